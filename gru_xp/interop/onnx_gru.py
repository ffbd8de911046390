"""Stacks of GRU layers as ONNX models, and back.

An ONNX node ``GRU`` is one layer, in one direction or both, with time as its first axis. Its gates stand to those of
gru-xp as ``gates.py`` says, and ``linear_before_reset`` is ``reset="after"``. For a sequence of length 0 its last
state is zero, where that of gru-xp is the initial one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gru_xp.interop.checking import Trial
from gru_xp.interop.gates import HostArray, host_layers, layers_to_peer
from gru_xp.interop.onnx_graph import GraphBuilder, ModelSource, check_valid, naming, read_model, run_model
from gru_xp.interop.onnx_nodes import DIRECTIONS, ORDER, read_gru_layers, run_gru_nodes
from gru_xp.nn.params import Reset
from gru_xp.nn.stack import Layers

if TYPE_CHECKING:
    from onnx import ModelProto

LENGTHS = (5, 0, 3, 1, 5, 2)
"""Of the random sequences of the check."""

DOC = """A stack of GRU layers, written by gru-xp.

x (B, T, I): sequences; lengths (B,): how many steps of each count, 0 to T; h0 (L * D, B, H): initial states, by layer
and within a layer by direction. h (B, T, D * H): the last layer's states after every step, zero past a sequence's
length; h_last (L * D, B, H): the states after each sequence's last step, h0 where there is none.
"""


def gru_to_onnx(layers: Layers, *, reset: Reset | None = None) -> "ModelProto":
    """An ONNX model that computes what `gru_stack_forward` does.

    Parameters
    ----------
    layers
        ``layers[layer][direction]``, on any device.
    reset : {"before", "after"}, optional
        The expected form of the layers; any if left out.

    Returns
    -------
    onnx.ModelProto
        With inputs ``x (B, T, I)``, ``lengths (B,)`` of int64 and ``h0 (L * D, B, H)``, and outputs
        ``h (B, T, D * H)`` and ``h_last (L * D, B, H)``, for any B and T. It computes in float32, as onnxruntime has
        no other GRU; weights of float64 are stored as they are.

    Raises
    ------
    ShapeError
        The layers do not fit on one another.
    ArgumentError
        `reset` is not their form.
    CheckpointError
        A weight is not finite, or the model does not compute the same.
    GruXpError
        onnx or onnxruntime is not installed.

    Examples
    --------
    >>> layers = init_gru_stack_params(2, 5, num_layers=3, bidirectional=True, xp=np)
    >>> onnx.save(gru_to_onnx(layers), "gru.onnx")
    """
    layers = host_layers(layers, reset)
    L, D = len(layers), len(layers[0])
    I, H = layers[0][0].input_size, layers[0][0].hidden_size  # noqa: E741
    graph = GraphBuilder()
    graph.cast("lengths", "INT32", "lengths.int32")
    graph.add("Transpose", ["x"], ["x.time_first"], perm=(1, 0, 2))
    starts = [f"gru.{layer}.h0" for layer in range(L)]
    graph.add("Split", ["h0"], starts, axis=0, num_outputs=L)
    states, last = add_gru_layers(graph, "x.time_first", layers, lengths="lengths.int32", h0=starts)
    graph.add("Transpose", [states], ["h.time_second"], perm=(2, 0, 1, 3))  # (B, T, D, H)
    graph.add("Reshape", ["h.time_second", graph.store("h.shape", np.asarray([0, 0, D * H]))], ["h"])
    # The initial state is also the last one of a sequence without steps, where ONNX has zeros.
    graph.add("Concat", last, ["h_last.of_steps"], axis=0)
    graph.add("Equal", ["lengths", graph.store("zero", np.asarray(0))], ["empty"])
    graph.add("Unsqueeze", ["empty", graph.store("empty.axes", np.asarray([0, 2]))], ["empty.rows"])
    graph.add("Where", ["empty.rows", "h0", "h_last.of_steps"], ["h_last"])
    state = ("FLOAT", (L * D, "B", H))
    model = graph.model(
        "gru",
        {"x": ("FLOAT", ("B", "T", I)), "lengths": ("INT64", ("B",)), "h0": state},
        {"h": ("FLOAT", ("B", "T", D * H)), "h_last": state},
        doc=DOC,
    )
    check_valid(model)
    trial = Trial(layers, lengths=LENGTHS)
    trial.check("to ONNX", *run_model(model, _inputs(trial)))
    return model


def gru_from_onnx(model: ModelSource) -> tuple[Layers, Reset]:
    """The layers that the GRU nodes of an ONNX model are, whoever wrote it.

    Parameters
    ----------
    model : path or onnx.ModelProto
        Its GRU nodes must be stacked GRU layers, with only changes of layout between them, and their weights must be
        stored. What comes before the first and after the last one is left alone, and so are initial states
        and lengths that the model computes.

    Returns
    -------
    layers
        ``layers[layer][direction]`` of host arrays.
    reset : {"before", "after"}

    Raises
    ------
    CheckpointError
        It is no valid ONNX model or has no such nodes, a node does what a GRU of gru-xp does not (the message says
        what), or the layers do not compute the same as the nodes.

    Notes
    -----
    ONNX' two biases of z and r, and with ``linear_before_reset=0`` of the candidate, too, are added up, which rounds.

    Examples
    --------
    >>> layers, reset = gru_from_onnx("gru.onnx")
    >>> len(layers), reset
    (3, 'before')
    """
    with naming(model):
        proto = read_model(model)
        layers = read_gru_layers(proto)
        trial = Trial(layers, lengths=LENGTHS)
        trial.check("from ONNX", *run_gru_nodes(proto, trial))
    return layers, layers[0][0].reset


def _inputs(trial: Trial) -> dict[str, HostArray]:
    return {"x": trial.x.astype(np.float32), "lengths": trial.lengths, "h0": trial.h0.astype(np.float32)}


def add_gru_layers(
    graph: GraphBuilder,
    x: str,
    layers: Layers,
    *,
    lengths: str = "",
    h0: Sequence[str] = (),
) -> tuple[str, list[str]]:
    """Add a node for each layer.

    Parameters
    ----------
    graph
        What to add to.
    x
        Name of the input, ``(T, B, I)``.
    layers
        The stack.
    lengths
        Name of the lengths ``(B,)``, int32; all T without.
    h0
        Names of each layer's initial states ``(D, B, H)``; zeros without.

    Returns
    -------
    str
        Name of the last layer's states, ``(T, D, B, H)``.
    list of str
        Names of each layer's last states, ``(D, B, H)``.
    """
    D, H = len(layers[0]), layers[0][0].hidden_size
    last = []
    for number, gates in enumerate(layers_to_peer(layers, ORDER)):
        layer = f"gru.{number}"
        if number:
            graph.add("Transpose", [x], [f"{layer}.x.directions"], perm=(0, 2, 1, 3))  # (T, B, D, H)
            shape = graph.store(f"{layer}.x.shape", np.asarray([0, 0, D * H]))
            x = graph.add("Reshape", [f"{layer}.x.directions", shape], [f"{layer}.x"])
        weights = {
            "W": np.stack([direction.weight_ih for direction in gates]),
            "R": np.stack([direction.weight_hh for direction in gates]),
            "B": np.stack([np.concatenate([direction.bias_ih, direction.bias_hh]) for direction in gates]),
        }
        names = [graph.store_weights(f"{layer}.{name}", array) for name, array in weights.items()]
        x = graph.add(
            "GRU",
            [x, *names, lengths, h0[number]] if h0 else [x, *names, lengths],
            [f"{layer}.h", f"{layer}.h_last"],
            hidden_size=H,
            direction=next(name for name, count in DIRECTIONS.items() if count == D),
            linear_before_reset=int(layers[0][0].reset == "after"),
        )
        last.append(f"{layer}.h_last")
    return x, last
