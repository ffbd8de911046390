import re

import numpy as np
import pytest

from gru_xp.devices.recording import FUNCTIONS, Symbol, record
from gru_xp.nn import (
    LinearParams,
    gru_backward,
    gru_cell_backward,
    gru_cell_forward,
    gru_forward,
    linear_backward,
    linear_forward,
    mse_loss,
)
from gru_xp.nn.ops import PlainOps
from gru_xp.training import optimizers


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


def assert_played_back(body, inputs):
    recording = record(body, [getattr(a, "shape", a) for a in inputs])
    actual = play(recording, [a for a in inputs if hasattr(a, "shape")])
    for a, expected in zip(actual, body(np, *inputs), strict=True):
        assert a.tolist() == expected.tolist()
    return recording


@pytest.mark.parametrize("rows", [(3,), (1,), (2, 3)])
def test_bodies_of_the_cell_are_played_back(body, draw_inputs, rows):
    assert_played_back(body, draw_inputs(rows, 4))


@pytest.mark.parametrize("name", ["_sgd", "_momentum", "_average_ones", "_adam"])
def test_bodies_of_the_optimizers_are_played_back(draw, name):
    arrays, settings = {"_sgd": (2, 1), "_momentum": (3, 2), "_average_ones": (2, 2), "_adam": (6, 4)}[name]
    inputs = [np.abs(draw(np, (5,))) for _ in range(arrays)]
    assert_played_back(getattr(optimizers, name), [*inputs, 0.02, 0.9, 0.999, 1e-8][: arrays + settings])


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


@pytest.mark.parametrize("update", [None, 0.5, (3, 4), (3, 1)])
@pytest.mark.parametrize("valid", [None, (3, 4), (3, 1)])
def test_none_is_a_constant(draw, update, valid):
    update, valid = (draw(np, given) if isinstance(given, tuple) else given for given in (update, valid))
    recording = assert_played_back(masked, [draw(np, (3, 4)), update, valid])
    assert len(recording.inputs) == 1 + sum(hasattr(given, "shape") for given in (update, valid))
    names = ["multiply"] * (update is not None) + ["greater"] * (valid is not None) + ["exp"]
    assert [call.function for call in recording.calls] == [*names, *["where"] * (valid is not None)]
    assert recording.width == 4


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


@pytest.mark.parametrize(
    "key", [0, slice(0, 2), (0, ...), (..., 0), (..., slice(0, 4, 2)), (slice(None), slice(0, 2)), (..., None)]
)
def test_other_slices_are_refused(key):
    with pytest.raises(
        TypeError, match=re.escape(f"slices an array by {key!r}; it may take columns, as in a[..., :n]")
    ):
        record(lambda xp, a: (a[key] * 2.0,), [(4, 4)])


@pytest.mark.parametrize(
    ("body", "shapes", "width"),
    [
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
    ],
)
def test_width(body, shapes, width):
    assert record(body, shapes).width == width


@pytest.mark.parametrize("H", [1, 2, 7])
def test_every_slice_of_the_cell_is_a_whole_number_of_states(body, draw_inputs, H):
    assert record(body, [a.shape for a in draw_inputs((3,), H)]).width == H


# --- shapes -----------------------------------------------------------------------------------------------------


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
    text = re.escape(", ".join(map(str, shapes)))
    with pytest.raises(ValueError, match=f"shapes {text} do not go together in a pointwise body"):
        record(lambda xp, a, b: (a * b,), shapes)


# --- what it must refuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sin", "matmul", "sum", "less", "float32"])
def test_unknown_function(name):
    with pytest.raises(AttributeError, match=f"a pointwise body calls '{name}'; it may call add, .*, tanh"):
        record(lambda xp, a: (getattr(xp, name)(a),), [(2,)])


@pytest.mark.parametrize("body", [lambda xp, a, b: (b * a,), lambda xp, a, b: (xp.where(a > 0.0, a, b),)])
def test_functions_of_none(body):
    with pytest.raises(TypeError, match=r"a pointwise body calls \w+ on None; it must do without inputs that are None"):
        record(body, [(2,), None])


@pytest.mark.parametrize(
    "body",
    [
        lambda xp, a, b: (a * (a > b),),
        lambda xp, a, b: (a + b, a > b),
        lambda xp, a, b: (xp.where(a, b, 0.0),),
        lambda xp, a, b: (xp.where(True, a, b),),
        lambda xp, a, b: (xp.where(a == b, a, b),),
        lambda xp, a, b: (xp.where(a > b, (a > b)[..., :1], b),),
        lambda xp, a, b: (xp.where((a > b) > 0.0, a, b),),
    ],
)
def test_conditions_are_for_where_alone(body):
    message = "<lambda> chooses by a number, or computes with a > b; it may do xp.where(a > b, c, d)"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        record(body, [(2, 3), (2, 3)])


@pytest.mark.parametrize("compare", [lambda a: a >= 0.0, lambda a: a <= 0.0])
def test_other_comparisons(compare):
    with pytest.raises(TypeError, match="not supported between instances of"):
        record(lambda xp, a: (xp.where(compare(a), a, 0.0),), [(2, 3)])


def test_less_is_greater_the_other_way_round():
    (call, _) = record(lambda xp, a: (xp.where(a < 1.5, a, 0.0),), [(2, 3)]).calls
    assert (call.function, call.operands[0]) == ("greater", 1.5)


def test_functions_of_constants_alone():
    with pytest.raises(TypeError, match="a pointwise body calls sqrt on no array; compute constants outside of it"):
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
        message = f"^{body.__name__} returns an input, a slice, or a result twice; each output must be computed$"
        with pytest.raises(ValueError, match=message):
            record(body, [(2,), (2,)])


# --- the maths --------------------------------------------------------------------------------------------------


def test_the_maths_keeps_to_the_rules(draw, draw_layer, reset):
    """Which memory nn/ hands to a device's operations, as nn/ops.py allows it."""
    seen = set()

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
            seen.add(body.__name__)
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

    ops, layer = Strict(), draw_layer(2, 4, 3, 5)
    layer(ops, reset)
    layer._replace(h0=None, dh=None)(ops, reset)
    assert "only_valid" not in seen
    lengths, candidate = [3, 0], draw(np, (2, 5))
    for update in (None, 0.5, draw(np, (2, 4, 5))):
        masks = {"update_mask": update, "candidate_mask": candidate, "lengths": lengths}
        _, _, cache = gru_forward(layer.x, layer.h0, layer.params, reset=reset, ops=ops, keep_every=2, **masks)
        gru_backward(layer.dh, cache, dh_last=layer.dh_last)
    _, cache = gru_cell_forward(layer.x[:, 0], layer.h0, layer.params, reset=reset, ops=ops)
    gru_cell_backward(layer.dh_last, cache)
    cell = {"before": {"_before_gates", "_candidate", "_before_d_candidate", "_before_d_reset"}}
    cell["after"] = {"_after_gates", "_after_d_gates"}
    assert seen == {"add", "_half", "only_valid", "_plus_valid", "multiply", *cell[reset]}
    y, cache = linear_forward(layer.h0, LinearParams(draw(np, (2, 5)), draw(np, (2,))), ops=ops)
    linear_backward(mse_loss(y, draw(np, (2, 2)), ops=ops)[1], cache)
    for name in optimizers.OPTIMIZERS:
        optimizers.OPTIMIZERS[name](draw(np, (7,)), 0.1).step(draw(np, (7,)), ops)
    assert seen >= {"_scaled_error", "_scaled_square", "_sgd", "_momentum", "_average_ones", "_adam"}
