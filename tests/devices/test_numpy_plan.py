from itertools import product

import numpy as np
import pytest

from gru_xp.devices.numpy_memory import Scratch
from gru_xp.devices.numpy_plan import make_plan
from gru_xp.devices.recording import record


def feature_major(array):
    """The same numbers, laid out in memory as `NumpyOps` does."""
    return np.swapaxes(np.array(np.swapaxes(array, -1, -2), order="C"), -1, -2)


def plan_of(body, inputs, dtype="float64", scratch=None):
    given = [getattr(a, "shape", a) for a in inputs]
    return make_plan(record(body, given), np.dtype(dtype), scratch or Scratch())


def play(plan, inputs, out):
    for ufunc, arguments in plan.calls(tuple(inputs), tuple(out)):
        ufunc(*arguments)


def new_outputs(expected):
    return [np.full(array.shape, np.nan, array.dtype) for array in expected]


def assert_equal(actual, expected, case=""):
    for a, e in zip(actual, expected, strict=True):
        if not hasattr(e, "shape"):
            assert a is e, case
            continue
        assert a.dtype == e.dtype, case
        assert a.tolist() == e.tolist(), case


# --- the same bits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_body(body_cases, draw_inputs, outputs_over_inputs, dtype):
    """Into new memory, and over the inputs that the sources write over; one plan for all calls."""
    for case in body_cases:
        inputs = draw_inputs(case, (5,), dtype)
        expected = case.body(np, *inputs)
        plan = plan_of(case.body, inputs, dtype)
        for layout in (np.array, feature_major):
            given = [layout(a) if hasattr(a, "shape") else a for a in inputs]
            out = new_outputs(expected)
            play(plan, given, out)
            assert_equal(out, expected, case)
            assert_equal(given, inputs, case)
            over = outputs_over_inputs(case, given, out)
            play(plan, given, over)
            assert_equal(over, expected, case)


def test_few_scratch_arrays(body_cases, draw_inputs):
    for case in body_cases:
        scratch = [array for array in plan_of(case.body, draw_inputs(case, (4,))).kept if array.shape]
        assert len(scratch) <= (2 if case.inputs[-2:] == (None, None) else 4), case


FUNCTIONS = ("add", "subtract", "multiply", "maximum", "tanh", "where")


def random_body(rng, widths, n_calls=9):
    """A body of random calls on slices of inputs, of results and constants; when each input is last read from where."""
    steps, last_reads, sizes = [], {}, list(widths)
    for index in range(n_calls):
        name = FUNCTIONS[rng.integers(len(FUNCTIONS))]
        width = int(rng.choice([w for w in (1, 2, 4) if w <= max(sizes)]))
        operands = []
        for k in range({"tanh": 1, "where": 4}.get(name, 2)):
            if k % 2 == 1 and rng.random() < 0.2:
                operands.append(float(rng.choice([0.5, -1.25, 3.0, 0.0])))
                continue
            fitting = [i for i, size in enumerate(sizes) if size >= width]
            late = fitting[len(fitting) // 2 :]
            number = int(rng.choice(late if rng.random() < 0.6 else fitting))
            start = 0 if sizes[number] == width else int(rng.integers(sizes[number] - width + 1))
            operands.append((number, slice(start, start + width)))
            if number < len(widths):
                last_reads.setdefault(number, []).append((index, start, start + width))
        steps.append((name, operands))
        sizes.append(width)
    n_outputs = int(rng.integers(1, 4))
    outputs = sorted({n_calls - 1, *rng.choice(n_calls, n_outputs, replace=False).tolist()})

    def body(xp, *inputs):
        values = list(inputs)
        for name, operands in steps:
            arguments = [
                o
                if isinstance(o, float)
                else values[o[0]]
                if o[1] == slice(0, values[o[0]].shape[-1])
                else values[o[0]][..., o[1]]
                for o in operands
            ]
            if name == "where":
                arguments = [arguments[0] > arguments[1], *arguments[2:]]
            values.append(getattr(xp, name)(*arguments))
        return tuple(values[len(inputs) + i] for i in outputs)

    return body, outputs, [sizes[len(widths) + i] for i in outputs], last_reads


def test_random_bodies(rng):
    """Outputs lie over inputs, or over some of their columns, wherever these are not read after the output is there."""
    scratch, n_over = Scratch(), 0
    for trial in range(300):
        widths = rng.choice([2, 4, 8], 3).tolist()
        body, outputs, out_widths, reads = random_body(rng, widths)
        layout = (np.array, feature_major)[trial % 2]
        inputs = [rng.standard_normal((3, width)) for width in widths]
        expected = [np.array(a) for a in body(np, *inputs)]
        arrays, out, taken = [layout(a) for a in inputs], [], set()
        for index, width in zip(outputs, out_widths, strict=True):
            place = np.full((3, width), np.nan)
            number = int(rng.integers(3))
            start = int(rng.integers(max(1, widths[number] - width + 1)))
            free = all(
                read <= index or stop <= start or begin >= start + width for read, begin, stop in reads.get(number, [])
            )
            if free and width <= widths[number] and number not in taken:
                taken.add(number)
                place = arrays[number][:, start : start + width]
                n_over += 1
            out.append(place)
        play(plan_of(body, inputs, scratch=scratch), arrays, out)
        assert_equal(out, expected)
    assert n_over > 100


VALID = np.asarray([[1.0], [0.0], [np.nan], [1e-300], [-2.0]])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where(draw, dtype):
    """Into new memory and over every input; not a number, infinite and -0 are like any other number."""
    bodies = [
        lambda xp, a, b, v: (xp.where(v > 0.0, a, 0.0),),
        lambda xp, a, b, v: (xp.where(v > 0.0, a, -0.0),),
        lambda xp, a, b, v: (xp.where(v > 0, a, 0),),
        lambda xp, a, b, v: (xp.where(v > 0.0, 0.0, b),),
        lambda xp, a, b, v: (xp.where(v > 0.0, 2.5, b),),
        lambda xp, a, b, v: (xp.where(a > b, a, b),),
        lambda xp, a, b, v: (xp.where(b > v, a, b),),
        lambda xp, a, b, v: (xp.where(v > 0.0, a + b, xp.where(a > b, v, b)),),
        lambda xp, a, b, v: (xp.where(xp.where(v > 0.0, b, v) > a, v, b),),
    ]
    a, b = draw(np, (5, 5), dtype), draw(np, (5, 5), dtype)
    a[1:4, 2:4] = [[np.nan, np.inf], [-0.0, np.nan], [-np.inf, 0.0]]
    b[0, :3] = [np.nan, -0.0, np.inf]
    for layout, valid, (number, body), place in product(
        (np.array, feature_major),
        (VALID, VALID.T.repeat(5, axis=0), VALID[:, 0], VALID.repeat(5, axis=1)),
        enumerate(bodies),
        range(4),
    ):
        valid = valid.astype(dtype)
        (expected,) = body(np, a, b, valid)
        arrays = [layout(a), layout(b), valid.copy(), np.full_like(a, 7.0)]
        if arrays[place].shape == expected.shape:
            play(plan_of(body, arrays[:3], dtype), arrays[:3], [arrays[place]])
            case = (number, layout, valid.shape, place)
            assert arrays[place].dtype == expected.dtype, case
            assert arrays[place].tobytes() == expected.astype(dtype).tobytes(), case


def test_where_writes_over_other_columns_of_its_operands(draw):
    """An output that lies across what is chosen from, and across what is compared."""

    def body(xp, a, b):
        return (xp.where(a[..., 1:4] > a[..., 2:5], a[..., 0:3], b),)

    for layout in (np.array, feature_major):
        for start in range(4):
            a, b = layout(draw(np, (4, 6))), draw(np, (4, 3))
            expected = body(np, a.copy(), b)
            out = a[:, start : start + 3]
            play(plan_of(body, [a, b]), [a, b], [out])
            assert_equal([out], expected)


def test_a_condition_that_is_used_again(draw):
    """It is still there after a choice, beside conditions that are not, and its columns are."""

    def body(xp, a, b):
        above = a > b
        first = xp.where(above, a, b)
        second = xp.where(first > 1.0, first, xp.where(b > a, b * a, 2.0))
        return first, second, xp.where(above, second, first), xp.where(above[..., 1:], a[..., 1:], b[..., :-1])

    inputs = [draw(np, (4, 3)), draw(np, (4, 3))]
    expected = body(np, *inputs)
    out = new_outputs(expected)
    plan = plan_of(body, inputs)
    play(plan, inputs, out)
    assert_equal(out, expected)
    assert len([array for array in plan.kept if array.shape]) <= 5


def test_one_column_is_computed_once(draw):
    """What depends on the mask alone has its size, and what is chosen from stands where the result will."""
    a, valid = draw(np, (4, 3)), draw(np, (4, 1))
    plan = plan_of(lambda xp, a, v: (xp.where(v > 0.0, xp.tanh(a), 0.0),), [a, valid])
    assert [array.shape for array in plan.kept if array.size > 1] == [(4, 1)]


def test_intermediate_results_are_kept_until_their_last_use(draw):
    def body(xp, a, b):
        used_late = a + b
        used_twice = used_late * a
        passing = used_twice - b
        other = xp.tanh(passing)
        return other * used_late, used_twice / (2.0 + other * other), xp.exp(-used_late) * used_twice

    inputs = [draw(np, (2, 3)), draw(np, (2, 3))]
    expected = body(np, *inputs)
    out = new_outputs(expected)
    play(plan_of(body, inputs), inputs, out)
    assert_equal(out, expected)


def test_inputs_are_not_overwritten_before_their_last_use(draw):
    """A temporary must not stand in the memory of an output that is an input which is still to be read."""

    def body(xp, a, b):
        total = xp.tanh(a + b)
        return (total * 2.0 - a,)

    a, b = draw(np, (2, 3)), draw(np, (2, 3))
    (expected,) = body(np, a, b)
    play(plan_of(body, [a, b]), [a, b], [a])
    assert_equal([a], [expected])


def test_a_part_of_an_input_may_be_overwritten_while_the_rest_is_read(draw):
    def body(xp, a):
        first = xp.tanh(0.5 * a[..., :2]) + 1.0
        return first, first * a[..., 2:]

    a = draw(np, (3, 4))
    expected = body(np, a)
    out = [a[:, :2], np.empty((3, 2))]
    play(plan_of(body, [a]), [a], out)
    assert_equal(out, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constants_have_the_type_of_the_arrays(draw, dtype):
    def body(xp, a, rate):
        return (0.1 * a - rate / (a * a + 0.1) + xp.maximum(a, 0.1) * 3,)

    a = draw(np, (4, 3), dtype)
    plan = plan_of(body, [a, 1e-3], dtype)
    expected = body(np, a, 1e-3)
    out = new_outputs(expected)
    play(plan, [a, 1e-3], out)
    assert_equal(out, expected)
    constants = [array for array in plan.kept if array.shape == ()]
    assert sorted(map(float, constants)) == sorted(np.asarray([0.1, 1e-3, 3], dtype).astype(float).tolist())
    assert all(array.dtype == dtype for array in plan.kept)


# --- few arrays -------------------------------------------------------------------------------------------------


def test_a_chain_needs_no_scratch(draw):
    def body(xp, a):
        return (0.5 * xp.tanh(xp.exp(-a) + 1.0) + 0.5,)

    a = draw(np, (4, 3))
    plan = plan_of(body, [a])
    assert not [array for array in plan.kept if array.shape]
    (expected,) = body(np, a)
    play(plan, [a], [a])
    assert_equal([a], [expected])


def test_plans_share_their_scratch(draw):
    def first(xp, a, b):
        return (xp.tanh(a * b) * a,)

    def second(xp, a, b):
        return (xp.exp(a + b) * (a - b),)

    inputs, scratch = [draw(np, (4, 3)), draw(np, (4, 3))], Scratch()
    plans = [plan_of(body, inputs, scratch=scratch) for body in (first, second)]
    kept = [[a for a in plan.kept if a.shape] for plan in plans]
    assert [len(arrays) for arrays in kept] == [1, 1]
    assert np.shares_memory(kept[0][0], kept[1][0])
    for body, plan in zip((first, second), plans, strict=True):
        out = np.empty((4, 3))
        play(plan, inputs, [out])
        assert_equal([out], body(np, *inputs))


def test_nothing_is_left_in_the_arrays_that_are_given(draw):
    """A plan keeps scratch and constants alone, so that arrays are freed when their user lets go of them."""
    a = draw(np, (4, 3))
    plan = plan_of(lambda xp, a: (xp.tanh(a) * 2.0 + a,), [a])
    out = np.empty((4, 3))
    play(plan, [a], [out])
    assert not any(np.shares_memory(kept, array) for kept in plan.kept for array in (a, out))
