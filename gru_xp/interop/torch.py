"""PyTorch: state dicts of ``torch.nn.GRU``, and files of whole forecasters.

``torch.nn.GRU`` computes what gru-xp calls ``reset="after"``, and nothing else.
"""

import io
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.devices import Device, to_host
from gru_xp.errors import CheckpointError, GruXpError, printable
from gru_xp.forecasting import Forecaster
from gru_xp.forecasting.predicting import forecasts_from_transformed
from gru_xp.interop.checking import Trial, check_forecaster
from gru_xp.interop.forecaster_parts import DESCRIPTION, build_forecaster, read_description, write_description
from gru_xp.interop.gates import HostArray, PeerGates, PeerNames, host_layers, layers_from_peer, layers_to_peer
from gru_xp.interop.peers import import_peer
from gru_xp.nn.params import LinearParams, Reset, named_arrays
from gru_xp.nn.stack import Layers
from gru_xp.training.files import check_path, replace_file

if TYPE_CHECKING:
    import torch

ORDER = "rzn"
SAFE_VERSION = (2, 6)
"""Of PyTorch, from which on ``weights_only=True`` keeps its promise."""

LARGEST_FILE = 2**30
"""Bytes."""

_NAME = re.compile(rf"({'|'.join(PeerGates._fields)})_l(\d{{1,6}})(_reverse)?")
_BIASES = ("bias_ih", "bias_hh")


def to_torch(layers: Layers, *, reset: Reset | None = None) -> "dict[str, torch.Tensor]":
    """The state dict of a ``torch.nn.GRU`` that computes what the layers do.

    Parameters
    ----------
    layers
        ``layers[layer][direction]``, on any device, for ``reset="after"``: PyTorch has no other form.
    reset : {"before", "after"}, optional
        The expected form of the layers; any if left out.

    Returns
    -------
    dict of str to torch.Tensor
        ``weight_ih_l0``, ``weight_hh_l0``, ``bias_ih_l0``, ``bias_hh_l0``, ``weight_ih_l0_reverse``, ...; on the CPU.
        `bias_hh` is zero but for the candidate's rows.

    Raises
    ------
    CheckpointError
        The layers are for ``reset="before"``, or the converted layers do not compute the same.
    ShapeError
        The layers do not fit on one another.
    ArgumentError
        `reset` is not their form.

    Examples
    --------
    >>> import numpy as np
    >>> layers = init_gru_stack_params(2, 5, num_layers=2, reset="after", xp=np)
    >>> gru = torch.nn.GRU(2, 5, num_layers=2, batch_first=True, dtype=torch.float64)
    >>> gru.load_state_dict(to_torch(layers))
    <All keys matched successfully>
    """
    layers = host_layers(layers, reset)
    _refuse_before(layers[0][0].reset, 'convert to Keras or ONNX, or train with reset="after"')
    torch = import_peer("torch")
    state = {
        name: torch.from_numpy(array)
        for number, layer in enumerate(layers_to_peer(layers, ORDER))
        for gates, names in zip(layer, _names(number, len(layer)), strict=True)
        for name, array in zip(names, gates, strict=True)
    }
    _check(state, layers, "to torch")
    return state


def from_torch(state_dict: Mapping[str, Any], *, prefix: str = "") -> Layers:
    """Layers that compute what a ``torch.nn.GRU`` of this state dict does.

    Parameters
    ----------
    state_dict
        Tensors by name, as ``gru.state_dict()`` gives them, on any device. A GRU without biases gets zeros.
    prefix
        Of the names, such as ``"gru."`` where the GRU is part of another module; other names are then left alone.

    Returns
    -------
    tuple of tuples of GRUParams
        ``layers[layer][direction]`` of host arrays, for ``reset="after"``.

    Raises
    ------
    CheckpointError
        It is not the state dict of a GRU, holds NaN, or the converted layers do not compute the same.

    Notes
    -----
    PyTorch's two biases of z and r are added up, which rounds.

    Examples
    --------
    >>> layers = from_torch(torch.nn.GRU(2, 5, num_layers=2).state_dict())
    >>> len(layers), layers[1][0].weight_ih.shape
    (2, (15, 5))
    """
    if not isinstance(state_dict, Mapping):
        got = f"a {type(state_dict).__name__}"
        raise CheckpointError(f"the state dict is {got}; it must map names to tensors, as gru.state_dict() does")
    names, with_biases = _expected_names([str(name) for name in state_dict], prefix)
    values = {
        name: _host(prefix + name, state_dict[prefix + name])
        for layer in names
        for direction in layer
        for name in direction
        if with_biases or not name.startswith(_BIASES)
    }
    layers = layers_from_peer(
        [[[values.get(name) for name in direction] for direction in layer] for layer in names],
        ORDER,
        "after",
        [[PeerNames(*(prefix + name for name in direction)) for direction in layer] for layer in names],
    )
    torch = import_peer("torch")
    _check({name: torch.from_numpy(array) for name, array in values.items()}, layers, "from torch")
    return layers


def save_torch(forecaster: Forecaster, path: str | os.PathLike[str]) -> None:
    """Write a forecaster to a file that PyTorch reads without pickled code.

    Parameters
    ----------
    forecaster
        One that has learned, with ``reset="after"``.
    path
        The file, by custom called ``.pt``; one that exists is replaced.

    Raises
    ------
    CheckpointError
        ``reset="before"``, zoneout, ``missing="mask"`` or a guard that chose a forecast without training, or the file
        cannot be written, or what it holds does not compute the same.

    Notes
    -----
    The file holds the tensors of ``torch.nn.ModuleDict({"gru": torch.nn.GRU(...), "linear": torch.nn.Linear(...)})``,
    with a linear layer ``"skip"`` if there is one, and, as ``"gru_xp"``, a JSON text with the settings, the scaling and
    the names of the columns.

    Examples
    --------
    >>> state = torch.load("model.pt", weights_only=True)
    >>> description = json.loads(state.pop("gru_xp"))
    >>> module.load_state_dict(state)
    <All keys matched successfully>
    """
    check_path(path)
    description = write_description(forecaster, "torch.nn.GRU")
    way_out = "export to .onnx" if forecaster.model == "ridge" else "export to .onnx, or train with --reset after"
    _refuse_before(forecaster.params.gru[0][0].reset, way_out)
    torch = import_peer("torch")
    params = forecaster.params
    state: dict[str, Any] = {f"gru.{name}": tensor for name, tensor in to_torch(params.gru).items()}
    for part, held in (("linear", params.linear), ("skip", params.skip)):
        if held is not None:
            state |= {name: torch.from_numpy(to_host(a).copy()) for name, a in named_arrays(held, f"{part}.")}
    _check_forecaster(state, forecaster, "to torch")
    state[DESCRIPTION] = description

    content = io.BytesIO()
    torch.save(state, content)
    written = _parse(content.getvalue())
    if written.keys() != state.keys() or not all(
        value == written[name] if name == DESCRIPTION else torch.equal(value, written[name])
        for name, value in state.items()
    ):
        raise CheckpointError(f"{path}: PyTorch does not read back what it wrote; take another version of it")
    replace_file(path, content.getvalue())


def load_torch(path: str | os.PathLike[str], *, device: str | Device = "auto") -> Forecaster:
    """Read a forecaster that `save_torch` wrote, onto any device, without running anything that the file holds.

    Parameters
    ----------
    path
        The file.
    device
        A name for `resolve_device`, or its result.

    Returns
    -------
    Forecaster

    Raises
    ------
    CheckpointError
        The file is no such model.
    """
    state = _read(check_path(path))
    try:
        description = _description(state.pop(DESCRIPTION, None))
        layers = from_torch(state, prefix="gru.")
        parts = ["linear", "skip"] if any(name.startswith("skip.") for name in state) else ["linear"]
        linear, *skip = (
            LinearParams(*(_linear(state, f"{part}.{name}") for name in LinearParams._fields)) for part in parts
        )
        forecaster = build_forecaster(layers, linear, description, device, skip=skip[0] if skip else None)
        _check_forecaster(state, forecaster, "from torch")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return forecaster


def _refuse_before(reset: Reset, way_out: str) -> None:
    if reset == "before":
        raise CheckpointError(
            f'reset="before" cannot be represented by torch.nn.GRU, whose reset gate acts after the product; {way_out}'
        )


def _names(layer: int, directions: int) -> list[PeerNames]:
    """What PyTorch calls a layer's arrays."""
    suffixes = ("", "_reverse")[:directions]
    return [PeerNames(*(f"{field}_l{layer}{suffix}" for field in PeerGates._fields)) for suffix in suffixes]


def _expected_names(given: list[str], prefix: str) -> tuple[list[list[PeerNames]], bool]:
    """Names of all arrays by layer and direction, without the prefix, and whether there are biases."""
    own = [name.removeprefix(prefix) for name in given if name.startswith(prefix)]
    found = [match for name in own if (match := _NAME.fullmatch(name))]
    for name in own:
        if name.startswith("weight_hr_l"):
            raise CheckpointError(
                f"{printable(prefix + name)} is a projection (proj_size), which gru-xp's GRU does not have"
            )
        if not _NAME.fullmatch(name) and not (prefix and found):
            raise CheckpointError(f"{printable(prefix + name)} is no parameter of a torch.nn.GRU{_advice(own)}")
    if not found:
        first = f"{prefix}weight_ih_l0"
        raise CheckpointError(f"{first} is missing; this is not the state dict of a torch.nn.GRU")
    names = [
        _names(layer, 2 if any(match[3] for match in found) else 1)
        for layer in range(min(1 + max(int(match[2]) for match in found), 1 + len(found)))
    ]
    with_biases = any(match[1] in _BIASES for match in found)
    for name in (name for layer in names for direction in layer for name in direction):
        if name not in own and (with_biases or not name.startswith(_BIASES)):
            raise CheckpointError(f"{prefix}{name} is missing; a torch.nn.GRU with {own[0]} has it")
    return names, with_biases


def _advice(names: list[str]) -> str:
    """What to do about names that are none of a GRU's."""
    for name in names:
        if match := re.fullmatch(rf"(.+\.){_NAME.pattern}", name):
            return f"; give prefix={printable(match[1])!r}"
    return "; give the state dict of the GRU alone"


def _description(text: Any) -> dict[str, Any]:
    if not isinstance(text, str):
        raise CheckpointError(
            f"holds no description of the scaling and the columns, a text called {DESCRIPTION!r}; "
            "for the weights alone, use gru_xp.interop.from_torch"
        )
    return read_description(text)


def _linear(state: Mapping[str, Any], name: str) -> HostArray:
    if name not in state:
        raise CheckpointError(f"{name} is missing; a forecaster has it")
    return _host(name, state[name])


def _host(name: str, value: Any) -> HostArray:
    """A tensor as a host array, a copy."""
    torch = import_peer("torch")
    if isinstance(value, np.ndarray):
        return value.copy()
    if not isinstance(value, torch.Tensor):
        raise CheckpointError(f"{name} is a {type(value).__name__}; it must be a tensor")
    if value.dtype not in (torch.float32, torch.float64):
        raise CheckpointError(f"{name} has dtype {value.dtype}; it must be float32 or float64: convert it first")
    if value.layout != torch.strided or value.device.type == "meta":
        raise CheckpointError(f"{name} is a {value.layout} tensor on {value.device}; it must hold all its numbers")
    return np.array(value.detach().cpu().numpy())


def _module(state: "Mapping[str, torch.Tensor]", layers: Layers) -> Any:
    """A torch.nn.GRU of this state dict, which computes in float64."""
    torch = import_peer("torch")
    gru = torch.nn.GRU(
        layers[0][0].input_size,
        layers[0][0].hidden_size,
        num_layers=len(layers),
        bias=any(name.startswith(_BIASES) for name in state),
        batch_first=True,
        bidirectional=len(layers[0]) == 2,
        device="meta",  # draws no random numbers
    )
    gru.load_state_dict({name: tensor.double() for name, tensor in state.items()}, assign=True)
    return gru


def _check(state: "Mapping[str, torch.Tensor]", layers: Layers, conversion: str) -> None:
    """Refuse a conversion that changes what is computed."""
    torch = import_peer("torch")
    trial = Trial(layers)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(trial.x), torch.from_numpy(trial.lengths), batch_first=True, enforce_sorted=False
    )
    with torch.no_grad():
        h, h_last = _module(state, layers)(packed, torch.from_numpy(trial.h0))
    h, _ = torch.nn.utils.rnn.pad_packed_sequence(h, batch_first=True)
    trial.check(conversion, h.numpy(), h_last.numpy())


def _check_forecaster(state: "Mapping[str, torch.Tensor]", forecaster: Forecaster, conversion: str) -> None:
    """Refuse a conversion that changes what is predicted."""
    torch = import_peer("torch")
    layers, skip, scaler = forecaster.params.gru, forecaster.params.skip, forecaster.scaler
    gru = _module({name.removeprefix("gru."): state[name] for name in state if name.startswith("gru.")}, layers)
    linear_params = [state[f"linear.{name}"].double() for name in LinearParams._fields]

    def predict(windows: HostArray) -> HostArray:
        windows = forecaster.target_transform.forward_windows(windows)
        with torch.no_grad():
            x = torch.from_numpy(scaler.scale_windows(windows))
            B, L, F = x.shape
            missing = -L % (gru.input_size // F)
            patches = torch.nn.functional.pad(x, (0, 0, missing, 0)).reshape(B, -1, gru.input_size)
            _, h_last = gru(patches)  # (layers * D, B, H)
            last_layer = torch.cat(list(h_last[-len(layers[0]) :]), dim=1)  # (B, D * H)
            scaled = torch.nn.functional.linear(last_layer, *linear_params)
            if skip is not None:
                skip_params = (state[f"skip.{name}"].double() for name in LinearParams._fields)
                scaled += torch.nn.functional.linear(x[:, :, 0], *skip_params)
        forecasts = forecaster.outputs.forecasts(scaled.numpy(), windows, scaler)
        return forecasts_from_transformed(forecaster, forecasts, windows[:, -1, 0])

    check_forecaster(forecaster, predict, conversion)


def _read(path: Path) -> dict[str, Any]:
    """What a file holds, which must be tensors and text by name."""
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: {'is a directory' if path.is_dir() else 'does not exist'}; give a .pt file")
        if path.stat().st_size > LARGEST_FILE:
            raise CheckpointError(f"{path}: larger than {LARGEST_FILE:,} bytes; models of that size are not read")
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        return _parse(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _parse(content: bytes) -> dict[str, Any]:
    """What the bytes of a file mean."""
    torch = import_peer("torch")
    version = re.match(r"(\d+)\.(\d+)", str(torch.__version__))
    if version and tuple(map(int, version.groups())) < SAFE_VERSION:
        raise GruXpError(
            f"torch {torch.__version__} may run code that a file holds (CVE-2025-32434); pip install 'torch>=2.6'"
        )
    try:
        _check_archive(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with the file is said below
            held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # damaged files raise RuntimeError, UnpicklingError, EOFError and others
        raise CheckpointError(
            f"not a file of tensors alone ({type(error).__name__}); nothing in it was run: "
            "save a state dict, not a module; or use another copy, if it is damaged"
        ) from error
    if not isinstance(held, dict) or not all(isinstance(name, str) for name in held):
        raise CheckpointError(f"holds a {type(held).__name__}; it must hold tensors by name")
    for name, value in held.items():  # a tensor may say that it is larger than what it holds
        if isinstance(value, torch.Tensor) and value.numel() * value.element_size() > len(content):
            raise CheckpointError(f"{printable(name)} has shape {[*value.shape]}, for which the file is too small")
    return dict(held)


def _check_archive(content: bytes) -> None:
    """See that the parts of a file are whole and take no more room than the file; torch looks at neither."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = archive.infolist()
        if sum(part.file_size for part in parts) > len(content) or any(part.compress_type for part in parts):
            raise CheckpointError("compressed, or damaged; save it by torch.save")
        damaged = archive.testzip()
    if damaged is not None:
        raise CheckpointError(f"damaged ({printable(damaged)}); use another copy")
