"""Weights of the pretrained network in a file: float16, so that a million of them take two megabytes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np

from gru_xp.devices import Device, to_device, to_host
from gru_xp.errors import ArgumentError, CheckpointError, DataError
from gru_xp.forecasting.windows import Floats
from gru_xp.io.messages import option
from gru_xp.nn.checks import shown
from gru_xp.nn.params import arrays_of, map_arrays, named_arrays
from gru_xp.pretrained.features import HEAD, LEVELS, N_INPUTS
from gru_xp.pretrained.network import N_CANDIDATES, ZeroShotParams, init_zero_shot_params
from gru_xp.training.strict_json import check_fields
from gru_xp.training.tensors import TensorSpec, read_tensors, write_tensors

FORMAT_VERSION = 1

WEIGHTS_FILE = "weights.safetensors"
"""The name of the file in the package."""

MAX_HIDDEN = 4096
"""Hidden units of a network in a file."""

_KIND = "pretrained network"
_WIDTHS = "widths"
_FIELDS = {"hidden_size": int, "inputs": int, "candidates": int, "steps": int, "levels": list, "metadata": dict}


@dataclass(frozen=True, eq=False)
class Weights:
    """A pretrained network.

    Attributes
    ----------
    params
        Of the network, in float32, of NumPy.
    widths : array, shape ``(HEAD,)``, float64
        By step ahead, what the distances of quantiles from the median are multiplied by.
    metadata
        How the weights were made.
    """

    params: ZeroShotParams
    widths: Floats
    metadata: Mapping[str, str]
    _placed: dict[str, ZeroShotParams] = field(default_factory=dict, repr=False)

    def params_on(self, device: Device) -> ZeroShotParams:
        """The parameters on a device, to which they are copied once."""
        if not device.is_cuda:
            return self.params
        if device.name not in self._placed:
            self._placed[device.name] = map_arrays(lambda array: to_device(array, device), self.params)
        return self._placed[device.name]

    def __getstate__(self) -> dict[str, Any]:
        """Without the copies on devices, for pickle and copy."""
        return vars(self) | {"_placed": {}}


def save_weights(
    path: str | os.PathLike[str],
    params: ZeroShotParams,
    *,
    widths: Sequence[float] | Floats | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network to a file, all of it or nothing, rounded to float16.

    Parameters
    ----------
    path
        The file; one that exists is replaced.
    params
        The parameters, on any device.
    widths : shape ``(HEAD,)``, optional
        See `Weights`; 1 for all steps if None.
    metadata
        How the weights were made; texts by name.

    Raises
    ------
    ArgumentError
        A parameter is not finite in float16, a width is not above 0, or the metadata are no texts.
    CheckpointError
        The file cannot be written, or does not read back as it was written.
    """
    factors = np.ones(HEAD) if widths is None else np.asarray(widths, dtype=np.float64)
    if factors.shape != (HEAD,) or not np.all((factors > 0) & (factors < np.inf)):
        raise ArgumentError(f"widths is {shown(widths)}; it must be {HEAD} numbers above 0, one a step ahead")
    texts = dict(metadata or {})
    if not all(isinstance(text, str) for pair in texts.items() for text in pair):
        raise ArgumentError(f"metadata is {shown(metadata)}; it must be a dict of strings by name")
    arrays = {name: _rounded(name, to_host(array)) for name, array in named_arrays(params)}
    arrays[_WIDTHS] = factors.astype(np.float32)
    description = {
        "hidden_size": int(params.inputs.bias.shape[0]),
        "inputs": N_INPUTS,
        "candidates": N_CANDIDATES,
        "steps": HEAD,
        "levels": [*LEVELS],
        "metadata": texts,
    }
    write_tensors(path, arrays, kind=_KIND, version=FORMAT_VERSION, description=description)


def load_weights(path: str | os.PathLike[str]) -> Weights:
    """Read what `save_weights` wrote.

    Parameters
    ----------
    path
        The file, which may be anybody's.

    Returns
    -------
    Weights

    Raises
    ------
    ArgumentError
        The path is neither a string nor an os.PathLike.
    CheckpointError
        There is no such file, or it is damaged, or of a network that this version does not have.
    """
    versions = range(1, FORMAT_VERSION + 1)
    _, description, arrays = read_tensors(path, kind=_KIND, versions=versions, expected=_expected)
    like = _shapes(description["hidden_size"])
    held = iter([arrays[name].astype(np.float32) for name, _ in named_arrays(like)])
    widths = arrays[_WIDTHS].astype(np.float64)
    if not np.all(widths > 0):
        raise CheckpointError(f"{path}: a gru-xp {_KIND} whose {_WIDTHS!r} are not all above 0; use another copy")
    return Weights(map_arrays(lambda _: next(held), like), widths, description["metadata"])


def has_default_weights() -> bool:
    """Whether the package has weights."""
    return files("gru_xp.pretrained").joinpath(WEIGHTS_FILE).is_file()


@cache
def default_weights() -> Weights:
    """The weights of the package, read once.

    Raises
    ------
    DataError
        The package has none.
    CheckpointError
        They are damaged.
    """
    if not has_default_weights():
        raise DataError(
            "this gru-xp has no pretrained weights; make them with python -m gru_xp.pretrained --out FOLDER, and give "
            + option("weights", f"FOLDER/{WEIGHTS_FILE}")
        )
    with as_file(files("gru_xp.pretrained").joinpath(WEIGHTS_FILE)) as path:
        return load_weights(path)


def _rounded(name: str, array: Any) -> Any:
    with np.errstate(over="ignore"):
        rounded = np.asarray(array).astype(np.float16)
    if not np.all(np.isfinite(rounded)):
        raise ArgumentError(f"params has numbers in {name} that are not finite in float16; train with a lower rate")
    return rounded


def _expected(version: int, description: dict[str, Any]) -> dict[str, TensorSpec]:
    """The arrays of a file, by name; ValueError where it is of another network."""
    held = check_fields("the description", description, _FIELDS)
    sizes = {"inputs": N_INPUTS, "candidates": N_CANDIDATES, "steps": HEAD, "levels": [*LEVELS]}
    for name, size in sizes.items():
        if held[name] != size:
            raise ValueError(f"{name} is {shown(held[name])}; networks of this gru-xp have {size}")
    if not 1 <= held["hidden_size"] <= MAX_HIDDEN:
        raise ValueError(f"hidden_size is {shown(held['hidden_size'])}; it must be from 1 to {MAX_HIDDEN}")
    if not all(isinstance(text, str) for text in held["metadata"].values()):
        raise ValueError("the metadata are no texts")
    specs = {name: TensorSpec("float16", array.shape) for name, array in named_arrays(_shapes(held["hidden_size"]))}
    return specs | {_WIDTHS: TensorSpec("float32", (HEAD,))}


def _shapes(hidden_size: int) -> ZeroShotParams:
    """Parameters of that size, whose numbers do not matter and take no memory."""
    one = init_zero_shot_params(hidden_size=1, xp=np, dtype=np.float32)
    two = init_zero_shot_params(hidden_size=2, xp=np, dtype=np.float32)
    growth = iter(arrays_of(two))

    def grown(array: Any) -> Any:  # each size is linear in the number of hidden units
        sizes = zip(array.shape, next(growth).shape, strict=True)
        return np.broadcast_to(np.float32(0), [a + (hidden_size - 1) * (b - a) for a, b in sizes])

    return map_arrays(grown, one)
