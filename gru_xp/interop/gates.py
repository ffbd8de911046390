"""The one place that knows how gru-xp's gates stand to those of PyTorch, Keras and ONNX.

They differ in two ways. The peers stack the gates in another order (PyTorch) or in the same (Keras, ONNX), and their
update gate says how much to keep where that of gru-xp says how much to take: their z is 1 - z, and as
``1 - sigmoid(a) = sigmoid(-a)``, its rows change sign. They also have a second bias for every gate; only that of the
candidate can be told from the first, and only where the reset gate acts after the product.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gru_xp.devices import to_host
from gru_xp.errors import CheckpointError, ShapeError
from gru_xp.nn.cell import check_params
from gru_xp.nn.checks import check_array, check_choice, check_kind
from gru_xp.nn.params import RESETS, GRUParams, Reset, check_reset, map_arrays, named_arrays
from gru_xp.nn.stack import Layers, check_layers

HostArray: TypeAlias = np.ndarray[Any, Any]

OWN_ORDER = "zrn"
ORDERS = ("rzn", "zrn")
"""Of the gates: PyTorch's; Keras' and ONNX', which is also the order of `GRUParams`."""


class PeerGates(NamedTuple):
    """One layer and direction with a peer's gates, as host arrays.

    Attributes
    ----------
    weight_ih : array, shape ``(3H, I)``
    weight_hh : array, shape ``(3H, H)``
    bias_ih : array, shape ``(3H,)``
        Added to the input's products.
    bias_hh : array, shape ``(3H,)``
        Added to the state's products; the candidate's rows stand inside the reset where ``reset="after"``.
    """

    weight_ih: HostArray
    weight_hh: HostArray
    bias_ih: HostArray
    bias_hh: HostArray


class PeerNames(NamedTuple):
    """What a peer calls the four arrays, for messages."""

    weight_ih: str
    weight_hh: str
    bias_ih: str
    bias_hh: str


OWN_NAMES = PeerNames(*PeerGates._fields)


def to_peer(params: GRUParams, order: str, reset: Reset | None = None) -> PeerGates:
    """Parameters as a peer has them.

    Parameters
    ----------
    params
        On any device.
    order : {"rzn", "zrn"}
        The peer's order of the gates.
    reset : {"before", "after"}, optional
        The expected form of the parameters; any if left out.

    Returns
    -------
    PeerGates
        Copies. `bias_hh` holds `bias_hn`, where there is one, in the candidate's rows and zeros in the others.

    Raises
    ------
    ShapeError
        The parameters do not go together.
    ArgumentError
        `reset` is not their form.
    CheckpointError
        A parameter is not finite.
    """
    check_choice("order", order, ORDERS)
    host = host_params(params)
    check_reset(reset, host)
    for name, array in named_arrays(host):
        check_finite(name, array)
    H = host.hidden_size
    bias_hh = np.zeros_like(host.bias)
    if host.bias_hn is not None:
        bias_hh[2 * H :] = host.bias_hn
    return PeerGates(*(_reordered(a, OWN_ORDER, order) for a in (host.weight_ih, host.weight_hh, host.bias, bias_hh)))


def from_peer(
    gates: Sequence[Any],
    order: str,
    reset: Reset,
    *,
    names: PeerNames = OWN_NAMES,
    input_size: int | None = None,
    hidden_size: int | None = None,
    dtype: Any = None,
) -> GRUParams:
    """The inverse of `to_peer`: parameters, as host arrays, of what a peer has.

    Parameters
    ----------
    gates
        The four host arrays of a `PeerGates`; a bias may be None, which is zero.
    order : {"rzn", "zrn"}
        The peer's order of the gates.
    reset : {"before", "after"}
        The peer's form, which becomes that of the result. ``"before"`` adds both biases of the candidate up.
    names
        What the peer calls the arrays, for messages.
    input_size, hidden_size, dtype
        What they must be, where that is known from other layers.

    Returns
    -------
    GRUParams
        Of copies, float32 or float64 as in `gates`.

    Raises
    ------
    CheckpointError
        An array has another shape or dtype than the others say, or is not finite.
    """
    check_choice("order", order, ORDERS)
    check_choice("reset", reset, RESETS)
    for name, value in zip(names[:2], gates[:2], strict=True):
        if value is None:
            raise CheckpointError(f"{name} is missing; a GRU needs it")
    given = {
        name: float_array(name, value, dtype) for name, value in zip(names, gates, strict=True) if value is not None
    }
    first, of_state = given[names.weight_ih], given[names.weight_hh]
    H, I = _sizes(first, of_state, names, input_size, hidden_size)  # noqa: E741
    shapes = dict(zip(names, ((3 * H, I), (3 * H, H), (3 * H,), (3 * H,)), strict=True))
    for name, array in given.items():
        if array.shape != shapes[name]:
            raise CheckpointError(f"{name} has shape {array.shape}; beside {names.weight_hh} it must be {shapes[name]}")
        if array.dtype != first.dtype:
            raise CheckpointError(f"{name} has dtype {array.dtype}; {names.weight_ih} has {first.dtype}: convert one")
        check_finite(name, array)
    zeros = np.zeros(3 * H, first.dtype)
    weight_ih, weight_hh, bias, second = (_reordered(given.get(name, zeros), order, OWN_ORDER) for name in names)
    bias_hn: HostArray | None = None
    if reset == "after":
        bias_hn = second[2 * H :].copy()
        second[2 * H :] = 0.0
    bias += second
    return GRUParams(weight_ih, weight_hh, bias, bias_hn)


def layers_from_peer(
    gates: Sequence[Sequence[Sequence[Any]]],
    order: str,
    reset: Reset,
    names: Sequence[Sequence[PeerNames]],
) -> Layers:
    """A stack of layers, as host arrays, of what a peer has; see `from_peer`.

    Parameters
    ----------
    gates
        ``gates[layer][direction]``.
    order, reset
        The same for all.
    names
        Like `gates`.

    Raises
    ------
    CheckpointError
        An array is none of a GRU, or the layers do not fit on one another.
    """
    layers: list[tuple[GRUParams, ...]] = []
    sizes: dict[str, Any] = {}
    for layer_gates, layer_names in zip(gates, names, strict=True):
        layer: list[GRUParams] = []
        for direction_gates, direction_names in zip(layer_gates, layer_names, strict=True):
            layer.append(from_peer(direction_gates, order, reset, names=direction_names, **sizes))
            params = layer[0]
            sizes = {"hidden_size": params.hidden_size, "dtype": params.bias.dtype, "input_size": params.input_size}
        layers.append(tuple(layer))
        sizes["input_size"] = len(layer) * layer[0].hidden_size
    return tuple(layers)


def layers_to_peer(layers: Layers, order: str) -> list[list[PeerGates]]:
    """The inverse of `layers_from_peer`: ``gates[layer][direction]``; see `to_peer`."""
    return [[to_peer(params, order) for params in layer] for layer in host_layers(layers)]


def host_layers(layers: Layers, reset: Reset | None = None) -> Layers:
    """A stack of layers as host arrays, which fit on one another, and of the form `reset` if that is given.

    Raises
    ------
    ShapeError
        They do not fit.
    ArgumentError
        They are not of the form.
    """
    if not (isinstance(layers, tuple) and layers and all(type(layer) is tuple and layer for layer in layers)):
        raise ShapeError("layers must be a tuple of layers, each a tuple of one GRUParams, or each of two")
    host = tuple(tuple(map(host_params, layer)) for layer in layers)
    check_layers(host, host[0][0].weight_ih, reset)
    return host


def host_params(params: GRUParams) -> GRUParams:
    """Parameters as host arrays, whose shapes and dtypes go together.

    Raises
    ------
    ShapeError
        They do not.
    """
    check_kind("params", params, GRUParams, "a GRUParams")
    host = map_arrays(to_host, params)
    check_array("weight_ih", host.weight_ih, ("3H", "I"))
    check_params(host, np.zeros((1, host.input_size), host.bias.dtype))
    return host


def _reordered(array: HostArray, order: str, new_order: str) -> HostArray:
    """A copy with the gates, along the first axis, in a new order and the sign of the update gate changed."""
    blocks = dict(zip(order, np.split(array, 3), strict=True))
    blocks["z"] = 0.0 - blocks["z"]  # a zero stays +0
    return np.concatenate([blocks[gate] for gate in new_order])


def float_array(name: str, value: Any, dtype: Any = None) -> HostArray:
    """A host array, which must be float32 or float64, and `dtype` if that is given; else CheckpointError."""
    array = np.asarray(value)
    if array.dtype not in (np.float32, np.float64):
        raise CheckpointError(f"{name} has dtype {array.dtype}; it must be float32 or float64: convert it first")
    if dtype is not None and array.dtype != dtype:
        raise CheckpointError(f"{name} has dtype {array.dtype}; it must be that of the other layers, {np.dtype(dtype)}")
    return array


def check_finite(name: str, array: HostArray) -> None:
    """Raise CheckpointError unless all numbers are finite."""
    if not np.all(np.isfinite(array)):
        raise CheckpointError(f"{name} holds NaN or infinite numbers; a network with those predicts nothing")


def _sizes(
    weight_ih: HostArray, weight_hh: HostArray, names: PeerNames, input_size: int | None, hidden_size: int | None
) -> tuple[int, int]:
    """H and I."""
    shape = weight_hh.shape
    if len(shape) != 2 or 0 in shape or shape[0] != 3 * shape[1] or hidden_size not in (None, shape[1]):
        expected = "(3H, H)" if hidden_size is None else f"{(3 * hidden_size, hidden_size)}"
        raise CheckpointError(f"{names.weight_hh} has shape {shape}; it must be {expected}{_guess(shape)}")
    H, shape = shape[1], weight_ih.shape
    if len(shape) != 2 or 0 in shape or shape[0] != 3 * H or input_size not in (None, shape[1]):
        expected = f"({3 * H}, {'I' if input_size is None else input_size})"
        raise CheckpointError(f"{names.weight_ih} has shape {shape}; beside {names.weight_hh} it must be {expected}")
    return H, shape[1]


def _guess(shape: tuple[int, ...]) -> str:
    """What else a matrix of this shape may be."""
    if len(shape) != 2 or shape[1] == 0:
        return ""
    rows, columns = shape
    if rows == 4 * columns:
        return "; one of (4H, H) is an LSTM's"
    if rows == columns:
        return "; one of (H, H) is a plain RNN's"
    return "; a GRU with projections (proj_size) cannot be represented" if rows % 3 == 0 else ""
