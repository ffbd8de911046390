"""Pure steps by the primitives of a device, against the plain scan."""

import copy
import itertools
import math
import pickle
from typing import Any, NamedTuple

import array_api_compat.numpy as xp
import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import lowering, numpy_ops, persistent, persistent_loops, resolve_device, to_device, to_host
from gru_xp.devices.cupy_ops import CupyOps
from gru_xp.devices.lowering import Kept, Lowered
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PlainOps, even_slices
from gru_xp.devices.step_plan import scan_plan
from gru_xp.nn import gru_backward, gru_forward
from gru_xp.nn.cell import FORWARD_STEPS, backward_step, joint_weights, params_gradient, state_after
from gru_xp.nn.params import GRUParams
from gru_xp.nn.scan import PlainScan

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

PLAIN = PlainScan(xp)


def examples(number):
    """How many; the rest is the same for all tests."""
    return hypothesis.settings(max_examples=number, derandomize=True, deadline=None, database=None)


# --- ops that check what they are asked for -----------------------------------------------------------------------


class CheckedOps(NumpyOps):
    """NumPy's ops; new memory is NaN, and results share no memory with what a kernel might still read.

    Parameters
    ----------
    n_parts, block
        How many parts there are, and how many steps in a block, at most.
    """

    keeps_programs = False  # that is computed by these methods

    def __init__(self, n_parts: int = 1, block: int = 100) -> None:
        super().__init__(threads=n_parts)
        self.n_parts, self.block = n_parts, block
        self._workers = [CheckedOps(1, block) for _ in range(n_parts)] if n_parts > 1 else []

    def empty(self, shape, like):
        array = super().empty(shape, like)
        array[...] = math.nan
        return array

    def matmul(self, a, b, out):
        assert not np.shares_memory(a, out)
        assert not np.shares_memory(b, out)
        return super().matmul(a, b, out)

    def pointwise(self, body, inputs, out):
        for i, target in enumerate(out):
            assert not any(np.shares_memory(target, other) for other in out[:i])
            for a in inputs:
                if hasattr(a, "shape") and np.shares_memory(a, target):
                    places = (m.__array_interface__ for m in (a, target))
                    here, there = ((p["data"], p["shape"], p["strides"]) for p in places)
                    assert here == there
        super().pointwise(body, inputs, out)

    def parts(self, B, T, I, H):  # noqa: E741
        rows = even_slices(B, self.n_parts)
        return [(some, (self._workers or [self])[i]) for i, some in enumerate(rows)]

    def block_length(self, T, B, H):
        return min(T, self.block)


class PlainLoweredOps(Lowered, PlainOps):
    """The plain ops, by which steps are run as they are by a device's."""


def assert_same(actual, expected, tolerance=1e-10):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        if e is None:
            assert a is None
            continue
        a = np.asarray(a)
        assert a.shape == e.shape
        assert np.abs(a - e).max(initial=0.0) <= tolerance * max(1.0, np.abs(e).max(initial=0.0))


def results(scan, *arguments, **options):
    carry, ys, sums = scan.scan(*arguments, **options)
    return [carry, *ys, *sums]


# --- random steps -------------------------------------------------------------------------------------------------


class RandomStep(NamedTuple):
    """A step made of instructions on a list of values, which begins with the carry, xs and rows."""

    instructions: list[tuple[Any, ...]]
    carry: int
    ys: list[int]
    pairs: list[tuple[int, int]]
    widths: list[int]
    weights: tuple[Any, ...]

    def step(self, xp, weights, carry, xs, rows):
        values = [a for a in (carry, *xs, *rows) if a is not None]
        for name, *arguments in self.instructions:
            values.append(INSTRUCTIONS[name](xp, weights, values, *arguments))
        carry_out = None if carry is None else values[self.carry]
        return carry_out, tuple(values[i] for i in self.ys), tuple((values[i], values[j]) for i, j in self.pairs)


INSTRUCTIONS = {
    "matmul": lambda xp, w, v, i, k: v[i] @ w[k],
    "matmul_t": lambda xp, w, v, i, k: v[i] @ w[k].T,
    "half_matmul_t": lambda xp, w, v, i, k: 0.5 * (v[i] @ w[k].T),
    "concat_matmul_t": lambda xp, w, v, i, k, m: v[i] @ xp.concat([w[k][:, :1], w[m][:, 1:]], axis=1).T,
    "bias": lambda xp, w, v, i, k: v[i] + w[k],
    "tanh": lambda xp, w, v, i: xp.tanh(v[i]),
    "exp": lambda xp, w, v, i: xp.exp(-(v[i] * v[i])),
    "half": lambda xp, w, v, i: 0.5 * v[i],
    "less": lambda xp, w, v, i: 1.0 - v[i],
    "add": lambda xp, w, v, i, j: v[i] + v[j],
    "multiply": lambda xp, w, v, i, j: v[i] * v[j],
    "maximum": lambda xp, w, v, i, j: xp.maximum(v[i], v[j]),
    "where": lambda xp, w, v, i, j: xp.where(v[i] > v[j], v[j], 0.5),
    "slice": lambda xp, w, v, i, a, b: v[i][..., a:b],
    "concat": lambda xp, w, v, *some: xp.concat([v[i] for i in some], axis=1),
    "ones": lambda xp, w, v, i: xp.ones_like(v[i][:, :1]),
}


def random_step(random, widths, n):
    """A step of `n` instructions on a carry, xs and rows of `widths`; its carry, if it has one, comes first."""
    widths, weights, instructions = list(widths), [], []

    def weight(*shape):
        weights.append(np.array([random.gauss(0, 0.5) for _ in range(math.prod(shape))]).reshape(shape))
        return len(weights) - 1

    for _ in range(n):
        name = random.choice(list(INSTRUCTIONS))
        i = random.randrange(len(widths))
        width = widths[i]
        alike = [j for j, other in enumerate(widths) if other == width or 1 in (other, width)]
        arguments, out = (), width
        if "matmul" in name:
            out = random.choice([1, 2, 3])
            shape = (width, out) if name == "matmul" else (out, width)
            arguments = tuple(weight(*shape) for _ in range(2 if name == "concat_matmul_t" else 1))
        elif name == "bias":
            arguments = (weight(width),)
        elif name in ("add", "multiply", "maximum", "where"):
            arguments = (random.choice(alike),)
            out = max(width, widths[arguments[0]])
        elif name == "slice":
            a = random.randrange(width)
            arguments = (a, random.randint(a + 1, width))
            out = arguments[1] - a
        elif name == "concat":
            arguments = tuple(random.randrange(len(widths)) for _ in range(random.randint(1, 2)))
            out = sum(widths[j] for j in (i, *arguments))
        elif name == "ones":
            out = 1
        if out > 12:
            continue
        instructions.append((name, i, *arguments))
        widths.append(out)
    numbers = range(len(widths))
    same = [j for j in numbers if widths[j] == widths[0]]
    ys = random.sample(numbers, random.randint(0, min(4, len(widths))))
    pairs = [(random.choice(numbers), random.choice(numbers)) for _ in range(random.randint(0, 3))]
    carry = random.choice(same[-3:])
    return RandomStep(instructions, carry, ys, pairs, widths, tuple(weights))


def draw_case(random, n):
    """A step, and what to scan it over."""
    B, T, K = random.randint(1, 4), random.randint(1, 5), random.randint(1, 3)
    xs_widths = [random.randint(1, 3) for _ in range(random.randint(1, 3))]
    rows_widths = [random.choice([1, K]) for _ in range(random.randint(0, 1))]
    has_carry = random.random() < 0.9
    step = random_step(random, [*[K] * has_carry, *xs_widths, *rows_widths], n)
    rng = np.random.default_rng(random.randrange(1000))
    carry = rng.standard_normal((B, K)) if has_carry else None
    xs = tuple(rng.standard_normal((B, T, n)).transpose(1, 0, 2) for n in xs_widths)
    rows = tuple(rng.standard_normal((B, n)) for n in rows_widths)
    if random.random() < 0.3:
        xs, rows = (None, *xs), (*rows, None)
    return step.step, step.weights, carry, xs, {"rows": rows, "reverse": random.random() < 0.5}


@hypothesis.given(random=st.randoms(use_true_random=False), n=st.integers(1, 14), parts=st.integers(1, 3))
@examples(150)
def test_random_steps(random, n, parts):
    *arguments, options = draw_case(random, n)
    with np.errstate(all="ignore"):
        expected = results(PLAIN, *arguments, **options)
        hypothesis.assume(all(np.abs(e).max(initial=0.0) < 1e6 for e in expected if e is not None))
        ops = CheckedOps(parts, random.randint(1, 3))
        before = [np.copy(a) for a in arguments[1]]
        assert_same(results(ops, *arguments, **options), expected)
        assert all((a == b).all() for a, b in zip(arguments[1], before, strict=True))


@hypothesis.given(random=st.randoms(use_true_random=False), n=st.integers(1, 14))
@examples(40)
def test_random_steps_are_captured(random, n):
    """What is played back follows inputs that are changed in place."""
    *arguments, options = draw_case(random, n)
    carry, xs = arguments[2:]
    arrays = [a for a in (carry, *xs, *options["rows"], *arguments[1]) if a is not None]
    with np.errstate(all="ignore"):
        ops = CheckedOps(random.randint(1, 2), random.randint(1, 3))
        replay = ops.capture(lambda: results(ops, *arguments, **options))
        for a in arrays:
            a *= 0.5
        expected = results(PLAIN, *arguments, **options)
        hypothesis.assume(all(np.abs(e).max(initial=0.0) < 1e6 for e in expected if e is not None))
        assert_same(replay(), expected)


# --- the steps of a GRU -------------------------------------------------------------------------------------------

MASKS = list(itertools.product((None, "step", "unit"), (False, True)))


class Case(NamedTuple):
    """A layer's forward and backward scans."""

    params: GRUParams
    h0: Any
    xs: tuple[Any, ...]
    rows: tuple[Any, ...]
    dh: Any
    reverse: bool

    def run(self, scan):
        """The results of all scans, with the state of each step and without, and the gradients."""
        weights = scan.call(joint_weights, self.params)
        options = {"rows": self.rows, "reverse": self.reverse}
        h, (hs, *saved), _ = scan.scan(FORWARD_STEPS[True, True], weights, self.h0, self.xs, **options)
        last, (states,), _ = scan.scan(FORWARD_STEPS[True, False], weights, self.h0, self.xs, **options)
        options["reverse"] = not self.reverse
        xs = (self.dh, self.xs[1], *saved)
        dh0, (dx,), sums = scan.scan(backward_step, self.params, self.h0, xs, **options)
        return [h, hs, *saved, last, states, dh0, dx, *scan.call(params_gradient, sums)]


def layer_case(reset, sizes, masks=(None, False), reverse=False, convert=lambda a: a):
    """Random arrays; x and dh are stored sequence by sequence, as users have them."""
    B, T, I, H = sizes  # noqa: E741
    rng = np.random.default_rng(3)

    def draw(*shape):
        return convert(rng.standard_normal(shape))

    update, candidate = masks
    bias_hn = draw(H) if reset == "after" else None
    params = GRUParams(draw(3 * H, I), draw(3 * H, H), draw(3 * H), bias_hn)
    x, dh = (draw(B, T, n).transpose(1, 0, 2) for n in (I, H))
    u = None if update is None else convert(rng.random((T, B, H if update == "unit" else 1)))
    return Case(params, draw(B, H), (x, u), (convert(rng.random((B, H))) if candidate else None,), dh, reverse)


@pytest.mark.parametrize("reset", ["before", "after"])
@pytest.mark.parametrize("parts", [1, 3])
def test_layers(reset, parts):
    variants = list(itertools.product(MASKS, (False, True)))
    for number, sizes in enumerate(((1, 1, 1, 1), (2, 3, 5, 1), (1, 5, 1, 4), (4, 1, 3, 2), (5, 4, 2, 3))):
        for masks, reverse in variants[number::4] if number < 4 else variants:
            case = layer_case(reset, sizes, masks, reverse)
            assert_same(case.run(CheckedOps(parts, 3)), case.run(PLAIN))


@pytest.mark.parametrize("reset", ["before", "after"])
def test_layers_by_other_ops(reset):
    """Threads, float32, and no more than the primitives of the standard."""
    case = layer_case(reset, (301, 3, 2, 70))
    assert_same(case.run(NumpyOps(2)), case.run(PLAIN))
    assert_same(case.run(PlainLoweredOps()), case.run(PLAIN))
    single = layer_case(reset, (6, 4, 3, 5), convert=lambda a: a.astype("float32"))
    ran = single.run(NumpyOps(1))
    assert {a.dtype for a in ran if a is not None} == {np.dtype("float32")}
    assert_same(ran, single.run(PLAIN), 1e-5)


def test_steps_take_few_calls():
    """Products and bodies of a step, and what is done once, for all steps, and after a block of them."""

    class Log(CheckedOps):
        def __init__(self):
            super().__init__()
            self.calls, self.looped = [], None

        def matmul(self, a, b, out):
            self.calls.append(f"product {a.ndim}")
            return super().matmul(a, b, out)

        def contract(self, a, b, out, *, add=False):
            self.calls.append("sum")
            return super().contract(a, b, out, add=add)

        def pointwise(self, body, inputs, out):
            self.calls.append(f"body {out[0].ndim}")
            super().pointwise(body, inputs, out)

        def copy(self, source, out):
            self.calls.append("copy")
            super().copy(source, out)

        def loop(self, step, times):
            before = len(self.calls)
            super().loop(step, times)
            self.looped = self.calls[before : before + (len(self.calls) - before) // len(times)]

    expected = {
        "before": (["product 2", "body 2"] * 2, ["body 2", "product 2", "body 2", "product 2", "body 2"]),
        "after": (["product 2", "body 2"], ["body 2", "product 2", "body 2"]),
    }
    behind = ["product 3", "product 3", "body 3", "sum", "sum"]
    for reset, (forward, backward) in expected.items():
        case, ops = layer_case(reset, (3, 4, 2, 5)), Log()
        weights = ops.call(joint_weights, case.params)
        ops.calls.clear()
        _, (_, *saved), _ = ops.scan(FORWARD_STEPS[True, True], weights, case.h0, case.xs, rows=(None,))
        assert ops.looped == forward
        assert ops.calls.count("product 3") == (reset == "after")
        ops.calls.clear()
        ops.scan(backward_step, case.params, case.h0, (case.dh, None, *saved), rows=(None,), reverse=True)
        assert ops.looped == backward
        assert ops.calls == ["copy", *backward * 4, *behind]


def test_results_are_not_overwritten():
    ops, case = NumpyOps(1), layer_case("before", (300, 4, 2, 70))
    first = case.run(ops)
    copies = [np.copy(a) for a in first if a is not None]
    del first[5:]  # whose memory is free again
    other = layer_case("after", (300, 4, 2, 70))
    assert_same(other.run(ops), other.run(PLAIN))
    assert_same(first, copies[:5], 0.0)


@pytest.mark.parametrize("parts", [1, 2])
def test_layers_are_captured(parts):
    for reset in ("before", "after"):
        case, ops = layer_case(reset, (5, 3, 2, 4)), CheckedOps(parts, 2)
        replay = ops.capture(lambda case=case, ops=ops: case.run(ops))
        for a in (*case.params, *case.xs, case.h0, case.dh):
            if a is not None:
                a *= 0.5
        assert_same(replay(), case.run(PLAIN))


@pytest.mark.cuda
@pytest.mark.parametrize("reset", ["before", "after"])
def test_cuda_layers(reset, monkeypatch):
    """Each loop is one kernel, alone and in a graph that is launched again."""
    device = resolve_device("cuda", fallback=False)
    compiled = []

    def compile_loop(*arguments, **options):
        compiled.append(persistent.compile_loop(*arguments, **options))
        return compiled[-1]

    monkeypatch.setattr(persistent_loops, "compile_loop", compile_loop)
    with device.use():
        for masks, reverse in zip(MASKS, itertools.cycle((False, True)), strict=False):
            ops = CupyOps()
            case = layer_case(reset, (5, 3, 2, 4), masks, reverse, lambda a: to_device(a, device, "float32"))
            expected = layer_case(reset, (5, 3, 2, 4), masks, reverse).run(PLAIN)
            replay = ops.capture(lambda case=case, ops=ops: case.run(ops))
            for ran in (case.run(ops), replay()):
                assert_same([None if a is None else to_host(a) for a in ran], expected, 1e-5)
    assert compiled
    assert all(compiled)


@pytest.mark.parametrize("threads", [1, 2])
def test_spans_of_steps_share_memory(monkeypatch, reset, draw, draw_params, threads):
    """Activation checkpointing in a captured function takes less memory."""
    monkeypatch.setattr(numpy_ops, "MIN_STATE_NUMBERS", 20)
    x, params, dh = draw(np, (8, 60, 2)), draw_params(np, 2, 5, reset=reset), draw(np, (8, 60, 5))

    def taken(ops, keep_every):
        def passes():
            _, _, cache = gru_forward(x, None, params, keep_every=keep_every, ops=ops, with_h=False)
            return gru_backward(dh, cache, with_dx=False)

        ops.capture(passes)
        return [own._arena.nbytes for own in (ops, *ops._workers)]

    real = taken(NumpyOps(threads), 8)
    assert len(real) == 1 + threads
    assert sum(real) < 0.5 * sum(taken(NumpyOps(threads), None))


# --- results in parts ---------------------------------------------------------------------------------------------


def test_results_in_parts():
    case, ops = layer_case("after", (5, 3, 2, 4)), CheckedOps(2)
    weights = ops.call(joint_weights, case.params)
    _, (hs, *_), _ = ops.scan(FORWARD_STEPS[True, True], weights, case.h0, case.xs, rows=(None,))
    _, (expected, *_), _ = PLAIN.scan(FORWARD_STEPS[True, True], weights, case.h0, case.xs, rows=(None,))
    assert isinstance(hs, Kept)
    assert (hs.shape, hs.ndim, hs.dtype) == (expected.shape, 3, expected.dtype)
    assert_same([hs[1:3, ...], hs[1:], ops.call(lambda xp, a: a, hs)], [expected[1:3], expected[1:], expected])
    assert np.asarray(hs, "float32").dtype == np.dtype("float32")
    assert_same([pickle.loads(pickle.dumps(hs)), copy.deepcopy(hs)], [expected, expected])
    namespace = array_namespace(hs)
    assert_same([namespace.permute_dims(hs, (1, 0, 2))], [expected.transpose(1, 0, 2)])
    assert namespace.float64 is xp.float64
    with pytest.raises(TypeError, match=r"slice its steps alone, as in a\[i:j, ...\]"):
        hs[0]


def test_many_numbers_are_joined_by_threads(monkeypatch):
    monkeypatch.setattr(lowering, "MIN_NUMBERS", 1)
    case, ops = layer_case("after", (5, 3, 2, 4)), CheckedOps(2)
    assert_same(case.run(ops), case.run(PLAIN))


def test_parts_go_straight_into_larger_arrays(monkeypatch):
    case, ops, joined = layer_case("after", (5, 3, 2, 4)), CheckedOps(2), []
    weights = ops.call(joint_weights, case.params)
    _, (hs, *_), _ = ops.scan(FORWARD_STEPS[True, True], weights, case.h0, case.xs, rows=(None,))
    expected = np.asarray(hs)
    monkeypatch.setattr(Kept, "joined", lambda self, original=Kept.joined: joined.append(self) or original(self))
    first, second = hs[:1], hs[1:]
    assert_same(ops.call(lambda xp, a, b: (xp.concat([a, b], axis=0),), first, second), [expected])
    assert joined == []
    both = ops.call(lambda xp, a, b: (xp.concat([a, b], axis=0), 2.0 * b), first, second)
    assert_same(both, [expected, 2.0 * expected[1:]])
    assert joined == [second]


def test_parts_that_do_not_fit_are_joined():
    """A scan of other parts than its inputs have."""
    case = layer_case("before", (7, 3, 2, 4))
    weights = joint_weights(xp, case.params)
    two, three = (
        CheckedOps(n).scan(FORWARD_STEPS[True, True], weights, case.h0, case.xs, rows=(None,))[1] for n in (2, 3)
    )
    saved = (*two[1:4], *three[4:])
    xs = (case.dh, None, *saved)
    plain = (case.dh, None, *map(np.asarray, saved))
    options = {"rows": (None,), "reverse": True}
    for n in (1, 2):
        actual = results(CheckedOps(n), backward_step, case.params, case.h0, xs, **options)
        assert_same(actual, results(PLAIN, backward_step, case.params, case.h0, plain, **options))


# --- calls --------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    first: Any
    second: Any


def several(xp, x, pair, rate):
    """Views, arrays put together along each axis, numbers, None, and what is computed in three dimensions."""
    rows, columns = xp.concat([pair.first, 2.0 * pair.first], axis=0), xp.concat([pair.first, pair.second], axis=1)
    nested = xp.concat([columns, xp.concat([xp.zeros_like(pair.first), -pair.second], axis=1)], axis=0)
    y = xp.where(x > 0.0, x @ pair.first.T, rate)
    return Pair(rows, (columns, None, [nested])), pair.first[1:, 0], pair.first[:, None, :], y, x, xp.ones_like(y) / y


def test_calls():
    rng = np.random.default_rng(5)
    x, a, b = rng.standard_normal((2, 3, 1)), rng.standard_normal((4, 1)), rng.standard_normal((4, 2))
    for rate in (0.5, np.float64(2.0)):
        actual = CheckedOps().call(several, x, Pair(a, b), rate)
        expected = several(xp, x, Pair(a, b), rate)
        assert isinstance(actual[0], Pair)
        assert actual[0].second[1] is None
        assert isinstance(actual[0].second[2], list)
        flat = [(r[0].first, r[0].second[0], *r[0].second[2], *r[1:]) for r in (actual, expected)]
        assert_same(*flat)


@pytest.mark.parametrize("reset", ["before", "after"])
def test_one_step(reset):
    """Weights are multiplied as they are."""
    case = layer_case(reset, (3, 1, 2, 4))
    assert_same(
        CheckedOps().call(state_after, case.xs[0][0], case.h0, case.params),
        state_after(xp, case.xs[0][0], case.h0, case.params),
    )


def test_functions_that_are_refused():
    x = np.ones((2, 3))
    for function in (lambda xp, a: a > 1.0, lambda xp, a: 1.0, lambda xp, a: (a, [a @ a.T, "b"])):
        with pytest.raises(TypeError, match=r"returns .* as an array"):
            CheckedOps().call(function, x)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda xp, w, h, xs, rows: (h[:, :1], (), ()), "makes <slice .* of a carry"),
        (lambda xp, w, h, xs, rows: (None, (), ()), "makes None of a carry"),
        (lambda xp, w, h, xs, rows: (h, (w,), ()), "returns <input .* beside arrays of B rows"),
        (lambda xp, w, h, xs, rows: (h, (1.0,), ()), "returns 1.0 beside arrays of B rows"),
        (lambda xp, w, h, xs, rows: (h, (), ((h, h > 0.0),)), "returns <greater"),
        (lambda xp, w, h, xs, rows: (h * h.shape[0], (), ()), "calls multiply on a Rows"),
        (lambda xp, w, h, xs, rows: (h + rows[0][:1, :], (), ()), "slices an array"),
        (lambda xp, w, h, xs, rows: (h @ rows[0].T, (), ()), "transposes what is no matrix of weights"),
        (lambda xp, w, h, xs, rows: (h @ rows[0], (), ()), "multiplies by a matrix that is no weights"),
    ],
)
def test_steps_that_are_refused(step, message):
    with pytest.raises(TypeError, match=message):
        CheckedOps().scan(step, np.ones((2, 5)), np.ones((3, 2)), (np.ones((4, 3, 1)),), rows=(np.ones((3, 2)),))


def test_a_plan_serves_any_number_of_sequences():
    """But one alone, whose row might be the same for all."""

    def step(xp, w, h, xs, rows):
        row = xp.concat([h, xs[0], xp.ones_like(h[:, :1])], axis=1)
        new = xp.where(h > rows[0], xp.tanh(row @ w.first), rows[1])
        return new, (row, rows[0]), ((row, new),)

    rng, ops, n_plans = np.random.default_rng(0), CheckedOps(), scan_plan.cache_info().misses
    w = Pair(rng.standard_normal((6, 3)), None)
    for B in (2, 1, 5, 3, 1, 6):  # 3 and 6 are also sizes of weights
        arguments = step, w, rng.standard_normal((B, 3)), (rng.standard_normal((4, B, 2)),)
        rows = rng.standard_normal((B, 3)), rng.standard_normal((1, 3))
        assert_same(results(ops, *arguments, rows=rows), results(PLAIN, *arguments, rows=rows))
    assert scan_plan.cache_info().misses == n_plans + 2


def test_what_a_step_does_without():
    """None among inputs and results, no carry, and no steps in a second scan of the same plan."""

    def step(xp, weights, carry, xs, rows):
        assert (weights.second, xs[0], rows) == (None, None, (None,))
        return carry, (None, xs[1] @ weights.first), ((xs[1], xs[1]),)

    x, w = np.arange(24.0).reshape(4, 3, 2), Pair(np.array([[1.0, 2.0, 3.0]] * 2), None)
    carry, (nothing, y), (total,) = CheckedOps().scan(step, w, None, (None, x), rows=(None,))
    assert (carry, nothing) == (None, None)
    assert_same([y, total], [x @ w.first, sum(a.T @ a for a in x)])
