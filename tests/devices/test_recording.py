import ast
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import gru_xp
from gru_xp.devices.lowering import Lowered
from gru_xp.devices.primitives import PlainOps
from gru_xp.devices.recording import FUNCTIONS, Symbol, record
from gru_xp.nn.pointwise import only_valid


def play(recording, arrays):
    """What was recorded, done with NumPy in the plainest way."""
    values = {id(symbol): array for symbol, array in zip(recording.inputs, arrays, strict=True)}

    def value(operand):
        if not isinstance(operand, Symbol):
            return operand
        return values[id(operand.root)][..., operand.start : operand.start + operand.shape[-1]]

    for function, operands, result in recording.calls:
        operands = [value(o) if getattr(o, "shape", None) != () else values[id(o)] for o in operands]
        values[id(result)] = getattr(np, function)(*operands)
        assert values[id(result)].shape == result.shape
    return [values[id(symbol)] for symbol in recording.outputs]


def assert_played_back(body, inputs, case=""):
    recording = record(body, [getattr(a, "shape", a) for a in inputs])
    actual = play(recording, [a for a in inputs if hasattr(a, "shape")])
    for a, expected in zip(actual, body(np, *inputs), strict=True):
        assert a.tolist() == expected.tolist(), case
    return recording


def test_every_body_is_played_back(body_cases, draw_inputs):
    for case, rows in product(body_cases, [(3,), (1,), (2, 3), ()]):
        assert_played_back(case.body, draw_inputs(case, rows), case)


def test_every_body_of_the_sources_is_among_the_cases(body_cases):
    """Beside those that steps are planned as: what updates and sums call by its name."""
    called = set()
    for path in Path(gru_xp.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "pointwise":
                called |= {argument.id for argument in node.args[:1] if isinstance(argument, ast.Name)}
    called -= {"name", "function"}  # of a trace
    called -= {only_valid.__name__}  # of losses of some steps
    assert called <= {case.body.__name__ for case in body_cases}, "make run_every_body in conftest.py call them"
    assert {"add", "divide", "_sgd"} <= called


def test_all_functions_and_operators(draw):
    a, b = draw(np, (3,)), draw(np, (3,))

    def body(xp, a, b, c):
        return (
            (a + b) * 2.0 - b / a,
            xp.tanh(xp.negative(-a)) + xp.exp(-b) * xp.sqrt(xp.maximum(a, 0.25)),
            0.5 + a - (1.5 - b) * (c * a) / (3.0 / b),
            xp.add(xp.subtract(a, 1.0), xp.multiply(c, xp.divide(1.0, b))) * xp.maximum(a, b),
            xp.where(a > b, a, 0.25) + xp.where(xp.greater(b, 0.0), c, b) + xp.where(0.5 * a > c, a * b, a),
        )

    recording = assert_played_back(body, [a, b, 2.5])
    assert {call.function for call in recording.calls} == set(FUNCTIONS)


def test_numbers_are_constants(draw):
    def body(xp, a, rate, b, decay):
        return rate * a - b * (1.0 - decay), a / rate

    recording = assert_played_back(body, [draw(np, (3,)), 0.3, draw(np, (3,)), 0.9])
    assert [symbol.shape for symbol in recording.inputs] == [(3,), (3,)]
    constants = {o for call in recording.calls for o in call.operands if not isinstance(o, Symbol)}
    assert constants == {0.3, 1.0 - 0.9}


def masked(xp, a, update, valid):
    """The variants that inputs make which may be None."""
    total = a if update is None else update * a
    return (xp.exp(total) if valid is None else xp.where(valid > 0.0, xp.exp(total), 0.0),)


def test_none_is_a_constant(draw):
    for case in product([None, 0.5, (3, 4), (3, 1)], [None, (3, 4), (3, 1)]):
        update, valid = (draw(np, given) if isinstance(given, tuple) else given for given in case)
        recording = assert_played_back(masked, [draw(np, (3, 4)), update, valid], case)
        assert len(recording.inputs) == 1 + sum(hasattr(given, "shape") for given in (update, valid)), case
        names = ["multiply"] * (update is not None) + ["greater"] * (valid is not None) + ["exp"]
        assert [call.function for call in recording.calls] == [*names, *["where"] * (valid is not None)], case
        assert recording.width == 4, case


def test_calls_are_in_order():
    recording = record(lambda xp, a, b: (1.0 - a * b,), [(2,), (2,)])
    (a, b), (out,), (first, second) = recording
    assert first == ("multiply", (a, b), first.result)
    assert second == ("subtract", (1.0, first.result), out)


# --- slices of columns ------------------------------------------------------------------------------------------


def test_slices_of_inputs_and_results(draw):
    def body(xp, a, b):
        total = a + xp.tanh(b)
        left, rest = total[..., :2], total[..., 2:]
        middle = rest[..., 1:3]
        return left * middle, rest[..., -2:] - a[..., 1:3], middle / b[..., 0:1]

    assert_played_back(body, [draw(np, (3, 6)), draw(np, (3, 6))])


def test_a_slice_knows_where_it_is():
    seen = []

    def body(xp, a):
        seen.extend([a, a[..., 2:7], a[..., 2:7][..., 1:], a[..., -3:], a[..., :], a[..., 3:99]])
        return (a + a,)

    record(body, [(4, 9)])
    whole, *slices = seen
    assert (whole.root, whole.parent, whole.start) == (whole, None, 0)
    assert [(s.shape, s.start) for s in slices] == [((4, 5), 2), ((4, 4), 3), ((4, 3), 6), ((4, 9), 0), ((4, 6), 3)]
    assert all(s.parent is whole and s.root is whole for s in slices)


def test_other_slices_are_refused():
    for key in (0, slice(0, 2), (0, ...), (..., 0), (..., slice(0, 4, 2)), (slice(None), slice(0, 2)), (..., None)):
        with pytest.raises(TypeError) as error:
            record(lambda xp, a, key=key: (a[key] * 2.0,), [(4, 4)])
        assert all(part in str(error.value) for part in (repr(key), "a[..., :n]")), key


def test_width():
    for number, (body, shapes, width) in enumerate(WIDTHS):
        assert record(body, shapes).width == width, (number, shapes)


WIDTHS = [
    (lambda xp, a, b: (a + b,), [(3, 6), (3, 6)], 6),
    (lambda xp, a, b: (a + b,), [(3, 6), (6,)], 6),
    (lambda xp, a, b: (a + b,), [(3, 6), (3, 1)], 6),
    (lambda xp, a, b: (a + b,), [(3, 1), (3, 1)], 1),
    (lambda xp, a, b: (xp.where(b > 0.0, a, 0.0),), [(3, 6), (3, 1)], 6),
    (lambda xp, a, b: (xp.where(b > 0.0, a[..., :3], a[..., 3:]),), [(3, 6), (1,)], 3),
    (lambda xp, a, b: (xp.where(a[..., :2] > a[..., 4:], b, 0.0),), [(3, 6), (3, 2)], 2),
    (lambda xp, a, b: (xp.where(b > 0.0, a, 0.0),), [(3, 1), (3, 1)], 1),
    (lambda xp, a, b: (a[..., :4] + b, b * a[..., 8:]), [(3, 12), (3, 4)], 4),
    (lambda xp, a, b: (a[..., :4] + b, b * a[..., 6:10]), [(3, 12), (3, 4)], 2),
    (lambda xp, a, b: (a + a, b * b), [(3, 12), (3, 8)], 4),
    (lambda xp, a: (a[..., 1:3] * 2.0,), [(3, 4)], 1),
    (lambda xp, a: (a + a[..., 1:2],), [(3, 4)], 1),
    (lambda xp, a: (a * a[..., :1],), [(3, 4)], 1),
    (lambda xp, a: (a[..., 3:6] - a[..., :3],), [(7,)], 3),
]
"""Bodies, the shapes of their inputs, and the width of their blocks."""


def test_every_slice_of_a_body_is_a_whole_number_of_states(body_cases, draw_inputs):
    for case in body_cases:
        recording = record(case.body, [getattr(a, "shape", a) for a in draw_inputs(case, (3,))])
        symbols = [*recording.outputs, *(o for call in recording.calls for o in call.operands if isinstance(o, Symbol))]
        columns = [s.shape[-1] for s in symbols if s.shape[-1] > 1 or s.parent is not None]
        assert recording.width == min(columns, default=1), case


# --- shapes -----------------------------------------------------------------------------------------------------


def test_shapes_are_broadcast():
    for shapes in ([(2, 3), (3,)], [(3,), (2, 3)], [(2, 1), (1, 3)], [(4, 2, 3), (3,)], [(), (5,)]):
        recording = record(lambda xp, a, b: (a + b,), shapes)
        assert recording.outputs[0].shape == np.broadcast_shapes(*shapes), shapes


def test_shapes_that_do_not_go_together():
    for shapes in ([(2, 3), (2,)], [(4,), (5,)], [(2, 3), (3, 2)]):
        with pytest.raises(ValueError, match="shapes") as error:
            record(lambda xp, a, b: (a * b,), shapes)
        assert ", ".join(map(str, shapes)) in str(error.value), shapes


# --- what it must refuse ----------------------------------------------------------------------------------------


def test_unknown_function():
    for name in ("sin", "matmul", "sum", "less", "float32"):
        with pytest.raises(AttributeError, match=f"'{name}'.* add, .*, tanh"):
            record(lambda xp, a, name=name: (getattr(xp, name)(a),), [(2,)])


def test_functions_of_none():
    bodies = {
        "multiply": lambda xp, a, b: (b * a,),
        "where": lambda xp, a, b: (xp.where(a > 0.0, a, b),),
    }
    for function, body in bodies.items():
        with pytest.raises(TypeError, match=f"{function} on None"):
            record(body, [(2,), None])


def test_conditions_are_for_where_alone():
    for number, body in enumerate(MISUSED_CONDITIONS):
        with pytest.raises(TypeError) as error:
            record(body, [(2, 3), (2, 3)])
        assert all(part in str(error.value) for part in ("<lambda>", "xp.where(a > b, c, d)")), number


MISUSED_CONDITIONS = [
    lambda xp, a, b: (a * (a > b),),
    lambda xp, a, b: (a + b, a > b),
    lambda xp, a, b: (xp.where(a, b, 0.0),),
    lambda xp, a, b: (xp.where(True, a, b),),
    lambda xp, a, b: (xp.where(a == b, a, b),),
    lambda xp, a, b: (xp.where(a > b, (a > b)[..., :1], b),),
    lambda xp, a, b: (xp.where((a > b) > 0.0, a, b),),
]


def test_other_comparisons():
    for compare in (lambda a: a >= 0.0, lambda a: a <= 0.0):
        with pytest.raises(TypeError, match="not supported"):
            record(lambda xp, a, compare=compare: (xp.where(compare(a), a, 0.0),), [(2, 3)])


def test_less_is_greater_the_other_way_round():
    (call, _) = record(lambda xp, a: (xp.where(a < 1.5, a, 0.0),), [(2, 3)]).calls
    assert (call.function, call.operands[0]) == ("greater", 1.5)


def test_functions_of_constants_alone():
    with pytest.raises(TypeError, match="sqrt on no array"):
        record(lambda xp, a, c: (a * xp.sqrt(c),), [(2,), 0.5])


def test_outputs_must_be_computed_and_distinct():
    def returns_an_input(xp, a, b):
        return a + b, a

    def returns_a_result_twice(xp, a, b):
        total = a + b
        return total, total

    def returns_a_slice(xp, a, b):
        total = a + b
        return total, total[..., :1]

    def returns_a_slice_of_an_input(xp, a, b):
        return a + b, b[..., :1]

    for body in (returns_an_input, returns_a_result_twice, returns_a_slice, returns_a_slice_of_an_input):
        with pytest.raises(ValueError, match=f"^{body.__name__} returns"):
            record(body, [(2,), (2,)])


# --- the maths --------------------------------------------------------------------------------------------------


def test_the_maths_keeps_to_the_rules(run_every_body):
    """Which memory layers and updates hand to a device's operations, as primitives.py allows it."""
    checked = []

    class Strict(PlainOps):
        def matmul(self, a, b, out):
            self.keep_apart(out, a, b)
            return super().matmul(a, b, out)

        def contract(self, a, b, out, *, add=False):
            self.keep_apart(out, a, b)
            super().contract(a, b, out, add=add)

        def copy(self, source, out):
            self.keep_apart(out, np.asarray(source))
            super().copy(source, out)

        def keep_apart(self, out, *inputs):
            assert not any(np.shares_memory(a, out) for a in inputs)

        def pointwise(self, body, inputs, out):
            checked.append(body)
            recording = record(body, [getattr(a, "shape", a) for a in inputs])
            arrays = [a for a in inputs if hasattr(a, "shape")]
            computed = {id(call.result): index for index, call in enumerate(recording.calls)}
            for symbol, target in zip(recording.outputs, out, strict=True):
                assert symbol.shape == target.shape
                assert all(other is target or not np.shares_memory(other, target) for other in out)
                for source, array in zip(recording.inputs, arrays, strict=True):
                    assert target.dtype == array.dtype
                    if not np.shares_memory(array, target):
                        continue
                    assert self.is_part(target, array, recording.width)
                    later = recording.calls[computed[id(symbol)] + 1 :]
                    operands = [o for call in later for o in call.operands if isinstance(o, Symbol)]
                    assert all(o.start >= target.shape[-1] for o in operands if o.root is source)
            super().pointwise(body, inputs, out)

        @staticmethod
        def is_part(target, array, width):
            """Whether it is some blocks of columns of the array, from its first."""
            place, own = (a.__array_interface__["data"][0] for a in (target, array))
            return place == own and target.shape[:-1] == array.shape[:-1] and target.shape[-1] % width == 0

    run_every_body(Strict())
    assert checked


def test_layers_without_lengths_choose_nothing(draw_layer, reset):
    chosen = []

    class Listing(Lowered, PlainOps):
        def pointwise(self, body, inputs, out):
            calls = record(body, [getattr(a, "shape", a) for a in inputs]).calls
            chosen.append(any(call.function == "where" for call in calls))
            super().pointwise(body, inputs, out)

    layer = draw_layer(2, 4, 3, 5)
    layer(Listing(), reset)
    layer._replace(h0=None, dh=None)(Listing(), reset)
    assert chosen
    assert not any(chosen)
    layer(Listing(), reset, lengths=[3, 0])
    assert any(chosen)
