"""GRU nodes of ONNX models that anybody wrote: what they say, and what they compute."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gru_xp.errors import CheckpointError
from gru_xp.interop.checking import Trial
from gru_xp.interop.gates import HostArray, PeerGates, PeerNames, layers_from_peer
from gru_xp.interop.onnx_graph import (
    GraphBuilder,
    StoredTensors,
    attributes_of,
    describe_node,
    is_float_cast,
    is_standard,
    opset_of,
    quoted,
    run_model,
)
from gru_xp.nn.params import Reset
from gru_xp.nn.stack import Layers

if TYPE_CHECKING:
    from onnx import ModelProto

ORDER = "zrn"
"""Of the gates."""

DIRECTIONS = {"forward": 1, "bidirectional": 2}

HANDLED = ("activations", "direction", "hidden_size", "layout", "linear_before_reset")
"""Attributes of a GRU node; all others are refused, unless they are empty."""

BETWEEN_LAYERS = ("Dropout", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that may lead from a layer's outputs to the next layer's input; so may casts of floats."""


class _Node(NamedTuple):
    """What a GRU node says."""

    gates: list[PeerGates]  # by direction; a bias may be None
    names: list[PeerNames]
    reset: Reset


def read_gru_layers(model: "ModelProto") -> Layers:
    """The GRU nodes of a valid model as layers, in the order of the graph; whether they are connected is not looked at.

    Raises
    ------
    CheckpointError
        There are none, or one does what a layer does not.
    """
    stored = StoredTensors(model.graph)
    nodes = _gru_nodes(model)
    if not nodes:
        raise CheckpointError("has no GRU node in its main graph; other layers cannot be converted")
    read = [_read_node(node, stored) for node in nodes]
    for node, other in zip(nodes, read, strict=True):
        if other.reset != read[0].reset:
            raise CheckpointError(
                f"{describe_node(node)} has another linear_before_reset than {describe_node(nodes[0])}; "
                "all layers of a stack must have the same"
            )
        if len(other.gates) != len(read[0].gates):
            raise CheckpointError(
                f"{describe_node(node)} has another direction than {describe_node(nodes[0])}; "
                "all layers of a stack must have the same"
            )
    gates, names = [node.gates for node in read], [node.names for node in read]
    return layers_from_peer(gates, ORDER, read[0].reset, names)


def _gru_nodes(model: "ModelProto") -> list[Any]:
    return [node for node in model.graph.node if is_standard(node, "GRU")]


def _read_node(node: Any, stored: StoredTensors) -> _Node:
    what = describe_node(node)
    attributes = attributes_of(node)
    D = _directions(what, attributes)
    inputs = [*node.input, *[""] * (6 - len(node.input))]
    lengths, h0 = inputs[4:6]
    if lengths and stored.holds(lengths):
        raise CheckpointError(f"{what} has stored lengths; to gru-xp they are an argument: make them an input")
    if h0 and stored.holds(h0) and np.any(stored.array(h0, f"initial_h of {what}")):
        raise CheckpointError(f"{what} has a stored initial state; to gru-xp it is an argument: make it an input")
    arrays = {
        label: stored.array(name, f"{label} of {what}") for label, name in zip("WRB", inputs[1:4], strict=True) if name
    }
    W, R, B = arrays["W"], arrays["R"], arrays.get("B")  # a valid node has the first two
    H = R.shape[-1] if R.ndim == 3 else 0
    _check_shape(f"R of {what}", R, (D, 3 * H, H), "(D, 3H, H)")
    _check_shape(f"W of {what}", W, (D, 3 * H, W.shape[-1] if W.ndim == 3 else 0), "(D, 3H, I)")
    if B is not None:
        _check_shape(f"B of {what}", B, (D, 6 * H), "(D, 6H)")
    if attributes.get("hidden_size", H) != H:
        raise CheckpointError(f"{what} has hidden_size {attributes['hidden_size']}; its R has {H} columns")
    gates = [PeerGates(W[d], R[d], *((None, None) if B is None else (B[d, : 3 * H], B[d, 3 * H :]))) for d in range(D)]
    names = [PeerNames(*(f"{name}[{d}] of {what}" for name in ("W", "R", "Wb", "Rb"))) for d in range(D)]
    return _Node(gates, names, "after" if attributes.get("linear_before_reset", 0) else "before")


def _check_shape(what: str, array: HostArray, shape: tuple[int, ...], letters: str) -> None:
    if array.shape != shape or 0 in shape:
        raise CheckpointError(f"{what} has shape {array.shape}; it must be {letters} with D = {shape[0]}")


def _directions(what: str, attributes: dict[str, Any]) -> int:
    """How many directions a GRU node has; CheckpointError if it does what a layer does not."""
    direction = attributes.get("direction", "forward")
    if direction not in DIRECTIONS:
        raise CheckpointError(f"{what} has direction {quoted(direction)}; it must be forward or bidirectional")
    D = DIRECTIONS[direction]
    activations = attributes.get("activations") or ["Sigmoid", "Tanh"] * D
    if [name.casefold() for name in activations] != ["sigmoid", "tanh"] * D:
        given = ", ".join(activations)
        raise CheckpointError(f"{what} has activations {quoted(given)}; only Sigmoid, Tanh for each direction will do")
    if attributes.get("layout", 0) != 0:
        raise CheckpointError(f"{what} has layout={attributes['layout']}, which onnxruntime does not run; use layout=0")
    for name, value in attributes.items():
        if name not in HANDLED and value != []:
            raise CheckpointError(f"{what} has {name[:40]}, which gru-xp's GRU does not have; export it without")
    return D


# --- running ----------------------------------------------------------------------------------------------------


def run_gru_nodes(model: "ModelProto", trial: Trial) -> tuple[HostArray, HostArray]:
    """What the model's own GRU nodes, and what stands between them, make of the trial's input: h and h_last.

    They are run on their own, as another graph, with other lengths and initial states, and in float32.
    """
    stored = StoredTensors(model.graph)
    graph = GraphBuilder()
    nodes = _gru_nodes(model)
    own = "gru-xp check"  # begins the names of what the model does not have
    D = len(trial.layers[0])
    B, T, I = trial.x.shape  # noqa: E741
    H = trial.layers[0][0].hidden_size
    inputs: dict[str, Any] = {f"{own} x": ("FLOAT", (T, B, I)), f"{own} lengths": ("INT32", (B,))}
    outputs: dict[str, Any] = {}
    values = {f"{own} x": trial.x.swapaxes(0, 1).astype(np.float32), f"{own} lengths": trial.lengths.astype(np.int32)}
    source = f"{own} x"
    for number, node in enumerate(nodes):
        layer = f"{own} {number}"
        if number:
            _add_between(graph, nodes[number - 1], node, stored, layer)
            source = node.input[0]
        weights = [
            graph.store(f"{layer} {label}", stored.array(name, label).astype(np.float32)) if name else ""
            for label, name in zip("WRB", [*node.input[1:], ""][:3], strict=True)
        ]
        attributes = {key: value for key, value in attributes_of(node).items() if value != []} | {"hidden_size": H}
        states = _states(node) or f"{layer} h"
        graph.add("GRU", [source, *weights, f"{own} lengths", f"{layer} h0"], [states, f"{layer} h_last"], **attributes)
        inputs[f"{layer} h0"] = outputs[f"{layer} h_last"] = ("FLOAT", (D, B, H))
        values[f"{layer} h0"] = trial.h0[number * D : (number + 1) * D].astype(np.float32)
    outputs = {states: ("FLOAT", (T, D, B, H))} | outputs
    h, *last = run_model(graph.model("check", inputs, outputs, opset=opset_of(model)), values)
    h_last = np.where(trial.lengths[:, None] == 0, trial.h0.astype(np.float32), np.concatenate(last))
    return h.transpose(2, 0, 1, 3).reshape(B, T, D * H), h_last


def _states(node: Any) -> str:
    """What the model calls the states after every step; empty if it does not use them."""
    return next(iter(node.output), "")


def _add_between(graph: GraphBuilder, below: Any, above: Any, stored: StoredTensors, prefix: str) -> None:
    """Copy the nodes that lead from one layer's states to the next layer's input."""
    path: list[Any] = []
    name = above.input[0]
    while name != _states(below):
        node = stored.producer(name)
        if node is None or not (is_standard(node, *BETWEEN_LAYERS) or is_float_cast(node)):
            found = "an input of the model" if node is None else describe_node(node)
            raise CheckpointError(
                f"{describe_node(above)} is not stacked directly on {describe_node(below)}: between them is {found}; "
                "only stacked GRU layers can be converted"
            )
        path.append(node)
        name = node.input[0]
    for number, node in enumerate(reversed(path)):
        if is_float_cast(node):  # everything is float32 here
            graph.add("Identity", node.input[:1], node.output[:1])
            continue
        copied = type(node)()
        copied.CopyFrom(node)
        for i, name in enumerate(node.input):
            if i and name:
                numbers = stored.array(name, f"input {i} of {describe_node(node)}")
                copied.input[i] = graph.store(f"{prefix} {number}.{i}", numbers)
        graph.add_copy(copied)
