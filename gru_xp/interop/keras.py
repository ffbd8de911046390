"""Keras 3: weights of ``keras.layers.GRU``, stacked, and of ``keras.layers.Bidirectional`` around it.

``reset_after=True``, Keras' default, is ``reset="after"`` here, and ``reset_after=False`` is ``reset="before"``.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from gru_xp.errors import CheckpointError
from gru_xp.interop.checking import Trial
from gru_xp.interop.gates import HostArray, PeerGates, PeerNames, host_layers, layers_from_peer, layers_to_peer
from gru_xp.interop.peers import import_peer
from gru_xp.nn.checks import check_flag
from gru_xp.nn.params import Reset
from gru_xp.nn.stack import Layers

ORDER = "zrn"
TRIAL_DTYPE = "float32"

Item = TypeVar("Item")


def to_keras(layers: Layers, *, reset: Reset | None = None) -> list[HostArray]:
    """The weights of Keras layers that compute what the layers do.

    Parameters
    ----------
    layers
        ``layers[layer][direction]``, on any device.
    reset : {"before", "after"}, optional
        The expected form of the layers; any if left out. The Keras layers need ``reset_after=True`` for layers of
        ``reset="after"``, and False for those of ``"before"``.

    Returns
    -------
    list of numpy.ndarray
        Kernel ``(I, 3H)``, recurrent kernel ``(H, 3H)`` and bias, ``(2, 3H)`` (after) or ``(3H,)`` (before), of each
        layer and direction; as ``keras.Sequential(gru_layers).set_weights`` takes them.

    Raises
    ------
    CheckpointError
        The converted layers do not compute the same.
    ShapeError
        The layers do not fit on one another.
    ArgumentError
        `reset` is not their form.

    Examples
    --------
    >>> import numpy as np
    >>> layers = init_gru_stack_params(2, 5, reset="after", xp=np)
    >>> [array.shape for array in to_keras(layers)]
    [(2, 15), (5, 15), (2, 15)]
    """
    layers = host_layers(layers, reset)
    form = layers[0][0].reset
    weights = [[_keras_arrays(gates, form) for gates in layer] for layer in layers_to_peer(layers, ORDER)]
    _check(weights, layers, "to keras")
    return [array for layer in weights for direction in layer for array in direction]


def from_keras(
    weights: Sequence[Any], *, reset_after: bool = True, bidirectional: bool = False, use_bias: bool = True
) -> Layers:
    """Layers that compute what Keras layers with these weights do.

    Parameters
    ----------
    weights
        Arrays as ``get_weights()`` of the layer gives them, or of a model of nothing but stacked GRU layers.
    reset_after, use_bias
        As in ``keras.layers.GRU``. `reset_after` gives the form of the result: ``"after"`` for True, else ``"before"``.
    bidirectional
        Whether every layer is in a ``keras.layers.Bidirectional``.

    Returns
    -------
    tuple of tuples of GRUParams
        ``layers[layer][direction]`` of host arrays.

    Raises
    ------
    CheckpointError
        The arrays are not those of such layers, hold NaN, or the converted layers do not compute the same.
    ArgumentError
        `reset_after`, `bidirectional` or `use_bias` is not a bool.

    See Also
    --------
    from_keras_layers : which takes the settings from the layers, and refuses those that cannot be represented.

    Examples
    --------
    >>> layers = from_keras(gru.get_weights(), reset_after=gru.reset_after)
    """
    for name, flag in (("reset_after", reset_after), ("bidirectional", bidirectional), ("use_bias", use_bias)):
        check_flag(name, flag)
    if not isinstance(weights, list | tuple):
        raise CheckpointError(
            f"weights is of type {type(weights).__name__}; give a list of arrays, as get_weights() gives them, or "
            "convert layers by from_keras_layers"
        )
    n_arrays, n_directions = 2 + bool(use_bias), 1 + bool(bidirectional)
    if not weights or len(weights) % (n_arrays * n_directions):
        raise CheckpointError(
            f"weights has {len(weights)} arrays; with use_bias={bool(use_bias)} and "
            f"bidirectional={bool(bidirectional)} there must be {n_arrays * n_directions} a layer"
        )
    named = [(f"weights[{number}]", array) for number, array in enumerate(weights)]
    directions = _parts(named, n_arrays)
    return _from_arrays(_parts(directions, n_directions), "after" if reset_after else "before")


def from_keras_layers(layers: Any) -> tuple[Layers, Reset]:
    """Layers that compute what built Keras layers do, and their form.

    Parameters
    ----------
    layers
        A ``keras.layers.GRU``, a ``keras.layers.Bidirectional`` of one, or a sequence of those, stacked. Dropout,
        which Keras applies in training only, is not taken over.

    Returns
    -------
    layers : tuple of tuples of GRUParams
        ``layers[layer][direction]`` of host arrays.
    reset : {"before", "after"}

    Raises
    ------
    CheckpointError
        A setting cannot be represented, or the converted layers do not compute the same.

    Examples
    --------
    >>> layers, reset = from_keras_layers([layer for layer in model.layers if "gru" in layer.name])
    """
    keras = import_peer("keras")
    stack = list(layers) if isinstance(layers, list | tuple) else [layers]
    if not stack:
        raise CheckpointError("layers is empty; give at least one keras.layers.GRU")
    resets: set[bool] = set()
    arrays: list[list[list[tuple[str, HostArray]]]] = []
    for number, layer in enumerate(stack):
        directions = _directions(keras, layer)
        if number + 1 < len(stack) and not directions[0].return_sequences:
            raise CheckpointError(f"{layer.name} has return_sequences=False; set it to True on all but the last layer")
        if arrays and len(directions) != len(arrays[0]):
            raise CheckpointError(
                f"{layer.name} has other directions than {stack[0].name}; all layers must have the same directions"
            )
        for direction, gru in enumerate(directions):
            _refuse_settings(keras, gru, layer.name, go_backwards=direction == 1)
            resets.add(bool(gru.reset_after))
        arrays.append([_named_weights(layer.name, gru) for gru in directions])
    if len(resets) > 1:
        raise CheckpointError("reset_after is True for some layers and False for others; it must be one for the stack")
    reset: Reset = "after" if resets == {True} else "before"
    return _from_arrays(arrays, reset), reset


def _parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _keras_arrays(gates: PeerGates, reset: Reset) -> list[HostArray]:
    bias = np.stack([gates.bias_ih, gates.bias_hh]) if reset == "after" else gates.bias_ih
    return [np.ascontiguousarray(gates.weight_ih.T), np.ascontiguousarray(gates.weight_hh.T), bias]


def _from_arrays(stack: Sequence[Sequence[Sequence[tuple[str, Any]]]], reset: Reset) -> Layers:
    """Of the arrays of each layer and direction, and what to call them in messages."""
    gates, names = [], []
    for layer in stack:
        converted = [_gates(direction, reset) for direction in layer]
        names.append([direction_names for direction_names, _ in converted])
        gates.append([direction_gates for _, direction_gates in converted])
    layers = layers_from_peer(gates, ORDER, reset, names)
    _check(
        [[[np.asarray(array) for _, array in arrays] for arrays in layer] for layer in stack],
        layers,
        "from keras",
    )
    return layers


def _gates(arrays: Sequence[tuple[str, Any]], reset: Reset) -> tuple[PeerNames, list[Any]]:
    """One direction's arrays as a `PeerGates`, biases that are not there None."""
    (kernel_name, kernel), (recurrent_name, recurrent_kernel), *biases = arrays
    bias_names = ["bias", "recurrent bias"]
    bias_values: list[HostArray | None] = [None, None]
    for name, value in biases:
        bias = np.asarray(value)
        if reset == "after":
            if bias.ndim != 2 or bias.shape[0] != 2:
                raise CheckpointError(f"{name} has shape {bias.shape}; with reset_after=True it must be (2, 3H)")
            bias_names, bias_values = [f"{name}[0]", f"{name}[1]"], list(bias)
        else:
            if bias.ndim != 1:
                raise CheckpointError(f"{name} has shape {bias.shape}; with reset_after=False it must be (3H,)")
            bias_names[0], bias_values[0] = name, bias
    names = PeerNames(f"{kernel_name}.T", f"{recurrent_name}.T", *bias_names)
    return names, [np.asarray(kernel).T, np.asarray(recurrent_kernel).T, *bias_values]


def _directions(keras: Any, layer: Any) -> list[Any]:
    """The GRU layers in a layer, forward first."""
    if type(layer) is keras.layers.GRU:
        return [layer]
    if type(layer) is not keras.layers.Bidirectional:
        raise CheckpointError(
            f"{getattr(layer, 'name', layer)!s} is a {type(layer).__name__}; it must be a keras.layers.GRU "
            "or a keras.layers.Bidirectional of one"
        )
    if layer.merge_mode != "concat":
        raise CheckpointError(
            f"{layer.name} has merge_mode={layer.merge_mode!r}, which cannot be represented; it must be 'concat'"
        )
    directions = [layer.forward_layer, layer.backward_layer]
    for direction in directions:
        if type(direction) is not keras.layers.GRU:
            raise CheckpointError(f"{layer.name} is around a {type(direction).__name__}; it must be a keras.layers.GRU")
    return directions


def _refuse_settings(keras: Any, gru: Any, name: str, *, go_backwards: bool) -> None:
    """Raise CheckpointError for what gru-xp's GRU does not have."""
    if gru.go_backwards != go_backwards:
        raise CheckpointError(
            f"{name} has go_backwards={gru.go_backwards}, which cannot be represented because it reverses the outputs; "
            "use a keras.layers.Bidirectional"
        )
    if getattr(gru, "time_major", False):
        raise CheckpointError(f"{name} has time_major=True, which cannot be represented; put the batch first")
    for setting, expected in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
        function = getattr(gru, setting)
        if function is not getattr(keras.activations, expected):
            got = getattr(function, "__name__", type(function).__name__)
            raise CheckpointError(f"{name} has {setting}={got!r}, which cannot be represented; it must be {expected!r}")


def _named_weights(name: str, gru: Any) -> list[tuple[str, HostArray]]:
    arrays = gru.get_weights()
    if not arrays:
        raise CheckpointError(f"{name} has no weights yet; call it, or its build, first")
    return list(zip((f"{gru.name}.kernel", f"{gru.name}.recurrent_kernel", f"{gru.name}.bias"), arrays, strict=False))


def _check(weights: Sequence[Sequence[Sequence[HostArray]]], layers: Layers, conversion: str) -> None:
    """Refuse a conversion that changes what is computed."""
    keras = import_peer("keras")
    trial = Trial(layers)
    D, h_last = len(weights[0]), []
    # In float32, as most backends of Keras compute products of float64 in float32, too; and on the CPU, as a GPU may
    # round more than that.
    with keras.device("cpu"):
        h, *h0 = (keras.ops.convert_to_tensor(array, dtype=TRIAL_DTYPE) for array in (trial.x, *trial.h0))
        mask = keras.ops.convert_to_tensor(trial.inside)
        for number, directions in enumerate(weights):
            layer = keras.layers.GRU(
                trial.layers[0][0].hidden_size,
                use_bias=len(directions[0]) == 3,
                reset_after=layers[0][0].reset == "after",
                return_sequences=True,
                return_state=True,
                use_cudnn=False,
                # nothing is drawn, and no name is taken
                kernel_initializer="zeros",
                recurrent_initializer="zeros",
                seed=0,
                dtype=TRIAL_DTYPE,
                name=f"trial_{number}",
            )
            if D == 2:
                layer = keras.layers.Bidirectional(layer, dtype=TRIAL_DTYPE, name=f"trial_both_{number}")
            layer.build(h.shape)
            layer.set_weights([array.astype(TRIAL_DTYPE) for arrays in directions for array in arrays])
            h, *states = layer(h, mask=mask, initial_state=h0[D * number : D * (number + 1)])
            h_last += [keras.ops.convert_to_numpy(state) for state in states]
    h = keras.ops.convert_to_numpy(h)
    trial.check(conversion, h * trial.inside[:, :, None].astype(h.dtype), np.stack(h_last))
