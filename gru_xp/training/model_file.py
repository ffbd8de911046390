"""Model files: the network's parameters and its description in one safetensors file, which any device loads."""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gru_xp.devices import Device, to_device
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import GRUParams, LinearParams, Reset, named_arrays
from gru_xp.nn.scan import Array
from gru_xp.nn.stack import MAX_LAYERS
from gru_xp.training.tensors import TensorSpec, read_tensors, write_tensors

FORMAT_VERSION = 3
"""Files of versions 1 and 2 have a `bias_hn` for ``reset="before"`` too, which is not used, and neither patches nor a
skip. Those of version 1 have one GRU layer, whose parameters are called ``gru.weight_ih`` and so on."""

MOST_LAYERS, LARGEST_STATE = MAX_LAYERS, 10**6
"""Of a network in a file; more would not fit into memory, either."""


class Architecture(NamedTuple):
    """What the sizes of a network's parameters follow from.

    Attributes
    ----------
    input_size, hidden_size, output_size
        I, H and O.
    num_layers
        L.
    bidirectional
    dtype : {"float32", "float64"}
    reset : {"before", "after"}
        Whether there is a `bias_hn`.
    patch_size
        Rows of a sequence that are one step.
    skip_length
        Rows of the sequences that a skip reads; None for no skip.
    """

    input_size: int
    hidden_size: int
    output_size: int
    num_layers: int
    bidirectional: bool
    dtype: str
    reset: Reset
    patch_size: int = 1
    skip_length: int | None = None

    def specs(self, *, with_unused: bool = False) -> dict[str, TensorSpec]:
        """The parameters by name, in the order of `named_arrays`; ValueError if there are too many.

        `with_unused` adds the `bias_hn` that layers of ``reset="before"`` had in older files.
        """
        fields = GRUParams._fields if with_unused else self._gru_fields()
        if self.num_layers > MOST_LAYERS or self.hidden_size > LARGEST_STATE:
            raise ValueError(
                f"{self.num_layers} layers of hidden_size {self.hidden_size}; "
                f"files hold up to {MOST_LAYERS} of up to {LARGEST_STATE:,}"
            )
        H, D, O = self.hidden_size, 2 if self.bidirectional else 1, self.output_size  # noqa: E741
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            for direction in range(D):
                I = D * H if layer else self.patch_size * self.input_size  # noqa: E741
                gru = dict(zip(GRUParams._fields, ((3 * H, I), (3 * H, H), (3 * H,), (H,)), strict=True))
                shapes |= {f"gru.{layer}.{direction}.{name}": gru[name] for name in fields}
        shapes |= {"linear.weight": (O, D * H), "linear.bias": (O,)}
        if self.skip_length is not None:
            shapes |= {"skip.weight": (O, self.skip_length), "skip.bias": (O,)}
        return {name: TensorSpec(self.dtype, shape) for name, shape in shapes.items()}

    def build(self, arrays: Mapping[str, Array]) -> NetworkParams:
        """The parameters whose arrays these are, by the names of `specs`."""

        def take(prefix: str, fields: tuple[str, ...]) -> list[Array]:
            return [arrays[f"{prefix}.{field}"] for field in fields]

        directions = range(2 if self.bidirectional else 1)
        gru = tuple(
            tuple(GRUParams(*take(f"gru.{layer}.{direction}", self._gru_fields())) for direction in directions)
            for layer in range(self.num_layers)
        )
        linear, skip = (
            LinearParams(*take(name, LinearParams._fields)) if there else None
            for name, there in (("linear", True), ("skip", self.skip_length is not None))
        )
        assert linear is not None
        return NetworkParams(gru, linear, skip)

    def _gru_fields(self) -> tuple[str, ...]:
        return GRUParams._fields if self.reset == "after" else GRUParams._fields[:-1]


def save_model(path: str | os.PathLike[str], params: NetworkParams, description: dict[str, Any]) -> None:
    """Write parameters and a description to a file, all of it or nothing.

    Parameters
    ----------
    path
        The file; one that exists is replaced.
    params
        The parameters, on any device.
    description
        Anything that JSON can hold.

    Raises
    ------
    CheckpointError
        The file cannot be written, or does not read back as it was written.
    """
    arrays = dict(named_arrays(params))
    write_tensors(path, arrays, kind="model", version=FORMAT_VERSION, description=description)


def load_model(
    path: str | os.PathLike[str], device: Device, architecture: Callable[[dict[str, Any]], Architecture]
) -> tuple[NetworkParams, dict[str, Any]]:
    """Read what `save_model` wrote, onto any device.

    Parameters
    ----------
    path
        The file, which may be anybody's.
    device
        From `resolve_device`.
    architecture
        Of the network that a description describes. An error of `DAMAGED` means that it is damaged.

    Returns
    -------
    params : NetworkParams
    description : dict

    Raises
    ------
    CheckpointError
        There is no such file, or it is not a gru-xp model that this version can read.
    """

    def expected(version: int, description: dict[str, Any]) -> dict[str, TensorSpec]:
        described = architecture(description)
        if version < 3 and (described.patch_size > 1 or described.skip_length is not None):
            raise ValueError(f"patches or a skip, which version {version} did not have")
        specs = described.specs(with_unused=version < 3)
        if version > 1:
            return specs
        if described.num_layers > 1 or described.bidirectional:
            raise ValueError("more than one layer or direction, which version 1 did not have")
        return {_name_of_version_1(name): spec for name, spec in specs.items()}

    versions = range(1, FORMAT_VERSION + 1)
    version, description, arrays = read_tensors(path, kind="model", versions=versions, expected=expected)
    described = architecture(description)
    names = {name: name if version > 1 else _name_of_version_1(name) for name in described.specs()}
    params = described.build({name: to_device(arrays[held], device) for name, held in names.items()})
    return params, description


def _name_of_version_1(name: str) -> str:
    return name.replace("gru.0.0.", "gru.")
