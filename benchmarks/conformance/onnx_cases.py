"""Run the tests of the GRU operator in the ``onnx`` package."""

import warnings
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks.conformance.cases import Case, difference
from gru_xp.interop.gates import HostArray, PeerGates, from_peer
from gru_xp.nn.gru import gru_forward
from gru_xp.nn.params import Reset

NODE_TESTS = (
    "test_gru_batchwise",
    "test_gru_bidirectional",
    "test_gru_defaults",
    "test_gru_reverse",
    "test_gru_seq_length",
    "test_gru_with_initial_bias",
)
"""Those of onnx 1.23; `carried_tests` says which an installed one has."""

LIMIT = 1e-6

DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""Which directions are against time."""

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h")


def cases() -> list[Case]:
    """One a test."""
    return [Case(name, "", "float32", LIMIT, partial(compare, name)) for name in NODE_TESTS]


@cache
def carried_tests() -> dict[str, Any]:
    """The tests of GRU nodes, by name."""
    try:  # what onnx offers makes the tests of all operators first, which takes seconds
        import onnx.backend.test.case.node.gru  # noqa: F401
        from onnx.backend.test.case.node import _NodeTestCases as tests
    except ImportError:
        from onnx.backend.test.loader import load_model_tests

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # other operators' tests overflow on purpose
            tests = load_model_tests(kind="node")
    return {test.name: test for test in tests if test.name.startswith("test_gru")}


def compare(name: str) -> dict[str, float]:
    """Our outputs and those of a test.

    Raises
    ------
    LookupError
        The installed onnx carries other tests than `NODE_TESTS`.
    """
    tests = carried_tests()
    if set(tests) != set(NODE_TESTS):
        raise LookupError(f"onnx carries {', '.join(sorted(tests))}; NODE_TESTS has {', '.join(NODE_TESTS)}")
    from onnx import helper

    test = tests[name]
    (node,) = test.model.graph.node
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    attributes = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}
    largest = 0.0
    for inputs, outputs in test.data_sets:
        values = dict(zip([value.name for value in test.model.graph.input], inputs, strict=True))
        named = {formal: values[actual] for formal, actual in zip(INPUTS, node.input, strict=False) if actual}
        formal_outputs = [formal for formal, actual in zip(("Y", "Y_h"), node.output, strict=False) if actual]
        expected = dict(zip(formal_outputs, outputs, strict=True))
        ours = run_node(attributes, named)
        largest = max(largest, difference({output: ours[output] for output in expected}, expected, relative=False))
    return {"outputs": largest}


def zero_if_empty(h_last: HostArray, lengths: HostArray) -> HostArray:
    """In ONNX, the last state of an empty sequence is 0."""
    return np.where((lengths > 0)[:, None], h_last, np.zeros_like(h_last))


def run_node(attributes: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """What a GRU node gives, computed by `gru_forward`.

    Parameters
    ----------
    attributes
        Of the node. `clip` is left alone: it must be so large that it never acts.
    inputs
        By the operator's names.

    Returns
    -------
    dict
        ``Y`` and ``Y_h``.

    Raises
    ------
    ValueError
        The node has activations of its own.
    """
    if "activations" in attributes:
        raise ValueError(f"the node has activations {attributes['activations']}; ours are fixed")
    reset: Reset = "after" if attributes.get("linear_before_reset", 0) else "before"
    layout = attributes.get("layout", 0)
    x, lengths, h0 = inputs["X"], inputs.get("sequence_lens"), inputs.get("initial_h")
    if layout == 0:
        x = x.swapaxes(0, 1)
    elif h0 is not None:
        h0 = h0.swapaxes(0, 1)
    hs: list[Any] = []
    lasts: list[Any] = []
    for number, reverse in enumerate(DIRECTIONS[attributes.get("direction", "forward")]):
        biases = np.split(inputs["B"][number], 2) if "B" in inputs else (None, None)
        params = from_peer(PeerGates(inputs["W"][number], inputs["R"][number], *biases), "zrn", reset)
        h, h_last, _ = gru_forward(
            x,
            None if h0 is None else h0[number],
            params,
            lengths=lengths,
            reverse=reverse,
            with_cache=False,
        )
        hs.append(h)
        lasts.append(h_last if lengths is None else zero_if_empty(h_last, lengths))
    if layout == 0:
        return {"Y": np.stack(hs).transpose(2, 0, 1, 3), "Y_h": np.stack(lasts)}
    return {"Y": np.stack(hs, 2), "Y_h": np.stack(lasts, 1)}
