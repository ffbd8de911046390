"""Pure steps by the primitives of a device, against the plain scan."""

import math
from typing import Any, NamedTuple

import array_api_compat.numpy as xp
import numpy as np
import pytest

from gru_xp.devices.lowering import Lowered
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.nn.ops import PlainOps, even_slices
from gru_xp.nn.scan import PlainScan

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

PLAIN = PlainScan(xp)


def examples(number):
    """How many; the rest is the same for all tests."""
    return hypothesis.settings(max_examples=number, derandomize=True, deadline=None, database=None)


# --- ops that check what they are asked for -----------------------------------------------------------------------


class CheckedOps(Lowered, NumpyOps):
    """NumPy's ops; new memory is NaN, and results share no memory with what a kernel might still read.

    Parameters
    ----------
    n_parts, block
        How many parts there are, and how many steps in a block, at most.
    """

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
@examples(300)
def test_random_steps(random, n, parts):
    *arguments, options = draw_case(random, n)
    with np.errstate(all="ignore"):
        expected = results(PLAIN, *arguments, **options)
        hypothesis.assume(all(np.abs(e).max(initial=0.0) < 1e6 for e in expected if e is not None))
        ops = CheckedOps(parts, random.randint(1, 3))
        before = [np.copy(a) for a in arguments[1]]
        assert_same(results(ops, *arguments, **options), expected)
        assert all((a == b).all() for a, b in zip(arguments[1], before, strict=True))
