"""An ONNX model with one GRU node, and how runtimes of such models are timed."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.job import Array, Job, Measurement, time_calls
from gru_xp.interop.gates import to_peer
from gru_xp.nn.params import GRUParams

Run: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]
"""Takes ``x (T, B, I)`` and ``h0 (1, B, H)``, returns ``h (T, 1, B, H)`` and ``h_last (1, B, H)``."""

OPSET, IR_VERSION = 17, 8
"""Old enough for every onnxruntime of the last years."""


def gru_model(params: GRUParams) -> bytes:
    """An ONNX model of what `params`, of ``reset="after"``, compute.

    Inputs are ``x (T, B, I)`` and ``h0 (1, B, H)``, outputs ``h (T, 1, B, H)`` and ``h_last (1, B, H)``.
    """
    H, I = params.hidden_size, params.input_size  # noqa: E741
    gates = to_peer(params, "zrn")
    weights = {"W": gates.weight_ih, "R": gates.weight_hh, "bias": np.concatenate([gates.bias_ih, gates.bias_hh])}
    node = helper.make_node(
        "GRU", ["x", *weights, "", "h0"], ["h", "h_last"], hidden_size=H, linear_before_reset=1, layout=0
    )

    def tensor(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [node],
        "gru",
        [tensor("x", "T", "B", I), tensor("h0", 1, "B", H)],
        [tensor("h", "T", 1, "B", H), tensor("h_last", 1, "B", H)],
        [numpy_helper.from_array(array[None], name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized


def time_model(
    job: Job, open_model: Callable[[bytes, int], Callable[[Array, Array], tuple[Array, Array]]]
) -> Measurement:
    """Do a job of the task ``forward`` or ``stream``.

    Parameters
    ----------
    job
        Of any runtime.
    open_model
        Takes a model and T, the number of steps in a call.

    Returns
    -------
    Measurement
    """
    params, data, _ = job.problem()
    ((gru,),) = params.gru
    B, T, H, _ = job.shape
    run = open_model(gru_model(gru), T if job.task == "forward" else 1)
    x = np.ascontiguousarray(data.swapaxes(0, 1))
    h0 = np.zeros((1, B, H), np.float32)
    if job.task == "forward":
        h, h_last = run(x, h0)
        job.save({"h": h[:, 0].swapaxes(0, 1), "h_last": h_last[0]})
        return Measurement(time_calls(job, lambda: run(x, h0)))

    state, states = h0, []
    for t in range(T):
        _, state = run(x[t : t + 1], state)
        states.append(state[0])
    job.save({"h": np.stack(states, axis=1)})
    x_t = x[:1].copy()

    def step() -> None:
        nonlocal state
        _, state = run(x_t, state)

    return Measurement(time_calls(job, step))
