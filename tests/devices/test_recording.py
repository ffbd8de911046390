import numpy as np
import pytest

from gru_xp.devices.recording import FUNCTIONS, Symbol, record
from gru_xp.nn import gru_backward, gru_cell_backward, gru_cell_forward, gru_forward
from gru_xp.nn.ops import PlainOps


def play(recording, arrays):
    """What was recorded, done with NumPy in the plainest way."""
    values = {id(symbol): array for symbol, array in zip(recording.inputs, arrays, strict=True)}
    for function, operands, result in recording.calls:
        numbers = [values[id(operand)] if isinstance(operand, Symbol) else operand for operand in operands]
        values[id(result)] = getattr(np, function)(*numbers)
        assert values[id(result)].shape == result.shape
    return [values[id(symbol)] for symbol in recording.outputs]


def test_bodies_of_the_cell_are_played_back(body, n_inputs, draw):
    arrays = [draw(np, (3, 4)) for _ in range(n_inputs)]
    recording = record(body, [array.shape for array in arrays])
    for actual, expected in zip(play(recording, arrays), body(np, *arrays), strict=True):
        assert actual.tolist() == expected.tolist()


def test_all_functions_and_operators(draw):
    a, b = draw(np, (3,)), draw(np, (3,))

    def body(xp, a, b):
        return (
            (a + b) * 2.0 - b / a,
            xp.tanh(xp.negative(-a)) + xp.exp(-b),
            0.5 + a - (1.5 - b) * (2.0 * a) / (3.0 / b),
            xp.add(xp.subtract(a, 1.0), xp.multiply(0.5, xp.divide(1.0, b))),
        )

    recording = record(body, [(3,), (3,)])
    assert {call.function for call in recording.calls} == set(FUNCTIONS)
    for actual, expected in zip(play(recording, [a, b]), body(np, a, b), strict=True):
        assert actual.tolist() == expected.tolist()


def test_calls_are_in_order(draw):
    recording = record(lambda xp, a, b: (1.0 - a * b,), [(2,), (2,)])
    (a, b), (out,), (first, second) = recording
    assert first == ("multiply", (a, b), first.result)
    assert second == ("subtract", (1.0, first.result), out)


@pytest.mark.parametrize(
    ("shapes", "result"),
    [
        ([(2, 3), (3,)], (2, 3)),
        ([(3,), (2, 3)], (2, 3)),
        ([(2, 1), (1, 3)], (2, 3)),
        ([(4, 2, 3), (3,)], (4, 2, 3)),
        ([(), (5,)], (5,)),
    ],
)
def test_shapes_are_broadcast(shapes, result):
    recording = record(lambda xp, a, b: (a + b,), shapes)
    assert recording.outputs[0].shape == result == np.broadcast_shapes(*shapes)


@pytest.mark.parametrize("shapes", [[(2, 3), (2,)], [(4,), (5,)], [(2, 3), (3, 2)]])
def test_shapes_that_do_not_go_together(shapes):
    text = ", ".join(map(str, shapes)).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=f"shapes {text} do not go together in a pointwise body"):
        record(lambda xp, a, b: (a * b,), shapes)


def test_unknown_function():
    with pytest.raises(AttributeError, match=r"a pointwise body calls 'sqrt'; it may call add, .*, tanh"):
        record(lambda xp, a: (xp.sqrt(a),), [(2,)])


def test_outputs_must_be_computed_and_distinct():
    def returns_an_input(xp, a, b):
        return a + b, a

    def returns_a_result_twice(xp, a, b):
        total = a + b
        return total, total

    for body in (returns_an_input, returns_a_result_twice):
        with pytest.raises(ValueError, match=f"{body.__name__} returns an input, or a result twice"):
            record(body, [(2,), (2,)])


def test_the_maths_keeps_to_the_rules(bodies, draw, draw_params, reset):
    """Which memory nn/cell.py hands to a device's operations, as nn/ops.py allows it."""
    seen = set()

    class Strict(PlainOps):
        def matmul(self, a, b, out):
            assert not np.shares_memory(a, out)
            assert not np.shares_memory(b, out)
            return super().matmul(a, b, out)

        def pointwise(self, body, inputs, out):
            assert bodies[body.__name__] is body
            seen.add(body.__name__)
            recording = record(body, [array.shape for array in inputs])
            computed = {id(call.result): index for index, call in enumerate(recording.calls)}
            for symbol, target in zip(recording.outputs, out, strict=True):
                assert symbol.shape == target.shape
                assert target.dtype == inputs[0].dtype
                for other in out:
                    assert other is target or not np.shares_memory(other, target)
                for source, array in zip(recording.inputs, inputs, strict=True):
                    if not np.shares_memory(array, target):
                        continue
                    assert array.__array_interface__ == target.__array_interface__
                    uses = [i for i, call in enumerate(recording.calls) if any(o is source for o in call.operands)]
                    assert max(uses) <= computed[id(symbol)]
            super().pointwise(body, inputs, out)

    params = draw_params(np, 3, 5)
    _, _, cache = gru_forward(draw(np, (2, 4, 3)), None, params, reset=reset, ops=Strict())
    gru_backward(draw(np, (2, 4, 5)), cache, dh_last=draw(np, (2, 5)))
    gru_backward(None, cache, dh_last=draw(np, (2, 5)))
    _, cache = gru_cell_forward(draw(np, (2, 3)), draw(np, (2, 5)), params, reset=reset, ops=Strict())
    gru_cell_backward(draw(np, (2, 5)), cache)
    assert seen == {name for name in bodies if name.startswith((f"_{reset}_", "_sum"))}
