"""Models of one GRU node in onnxruntime, built from random weights without our converter."""

from functools import partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks.conformance.cases import Case, Problem, difference, draw_problem
from benchmarks.conformance.onnx_cases import DIRECTIONS, run_node

OPSET, IR_VERSION = 17, 8
"""Old enough for every onnxruntime of the last years."""

LIMIT = 1e-6

LENGTHS = {None: "no lengths", "zeros": "lengths, some 0", "equal": "equal lengths"}


def cases() -> list[Case]:
    """Direction, form of the reset gate, lengths, first state, clip; three of each."""
    found = []
    for direction, after, lengths in product(DIRECTIONS, (1, 0), LENGTHS):
        variant = f"{direction}, linear_before_reset={after}, {LENGTHS[lengths]}"
        for with_h0, clip, number in product((False, True), (False, True), range(3)):
            name = f"{'h0' if with_h0 else 'no h0'}{', clip' * clip} {number}"
            draw = partial(
                draw_problem,
                f"onnxruntime {variant} {name}",
                order="zrn",
                reset="after" if after else "before",
                dtype="float32",
                directions=len(DIRECTIONS[direction]),
                lengths=lengths,
                with_h0=with_h0,
            )
            found.append(Case(variant, name, "float32", LIMIT, partial(compare, draw, direction, clip)))
    return found


def compare(draw: Any, direction: str, clip: bool) -> dict[str, float]:
    """Our outputs and onnxruntime's."""
    problem: Problem = draw()
    inputs = node_inputs(problem)
    attributes = {
        "direction": direction,
        "hidden_size": problem.dh_last.shape[2],
        "linear_before_reset": int(problem.reset == "after"),
    }
    if clip:
        attributes["clip"] = largest_argument(problem)
    theirs = run_session(attributes, inputs)
    return {"outputs": difference(run_node(attributes, inputs), theirs, relative=False)}


def node_inputs(problem: Problem) -> dict[str, Any]:
    """A problem as inputs of the node, by name."""
    (gates,) = problem.gates
    inputs = {
        "X": np.ascontiguousarray(problem.x.swapaxes(0, 1)),
        "W": np.stack([part.weight_ih for part in gates]),
        "R": np.stack([part.weight_hh for part in gates]),
        "B": np.stack([np.concatenate([part.bias_ih, part.bias_hh]) for part in gates]),
    }
    if problem.lengths is not None:
        inputs["sequence_lens"] = problem.lengths.astype(np.int32)
    if problem.h0 is not None:
        inputs["initial_h"] = problem.h0
    return inputs


def largest_argument(problem: Problem) -> float:
    """A bound for the arguments of sigmoid and tanh, so that a clip at it never acts: states lie between -1 and 1."""
    x = np.max(np.abs(problem.x))
    return max(
        float(np.max(np.sum(np.abs(g.weight_ih), 1) * x + np.sum(np.abs(g.weight_hh), 1)))
        + float(np.max(np.abs(g.bias_ih) + np.abs(g.bias_hh)))
        for g in problem.gates[0]
    )


def run_session(attributes: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """What onnxruntime makes of the node."""
    import onnxruntime
    from onnx import TensorProto, checker, helper, numpy_helper

    (T, B, _), (D, H) = inputs["X"].shape, (inputs["R"].shape[0], attributes["hidden_size"])
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h"]
    weights = ("W", "R", "B")
    node = helper.make_node("GRU", [name if name in inputs else "" for name in names], ["Y", "Y_h"], **attributes)
    graph = helper.make_graph(
        [node],
        "gru",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in inputs.items()
            if name not in weights
        ],
        [
            helper.make_tensor_value_info("Y", TensorProto.FLOAT, (T, D, B, H)),
            helper.make_tensor_value_info("Y_h", TensorProto.FLOAT, (D, B, H)),
        ],
        [numpy_helper.from_array(inputs[name], name) for name in weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    fed = {name: array for name, array in inputs.items() if name not in weights}
    return dict(zip(("Y", "Y_h"), session.run(None, fed), strict=True))
