import math
import tracemalloc
import warnings
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import numpy_ops, to_host
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.errors import ShapeError
from gru_xp.nn import GRUParams, gradcheck, gru_backward, gru_forward, gru_step
from gru_xp.nn.params import arrays_of, map_arrays
from gru_xp.nn.scan import PLAIN_VARIABLE, PlainScan

KEEP_EVERY = [None, 1, 2, 3, 9]  # of 4 steps: divided or not, and more than there are
LENGTHS = [2, 0, 4, 1]
NAMES = {"before": GRUParams._fields[:3], "after": GRUParams._fields}


class Variant(NamedTuple):
    """What `gru_forward` is asked to do otherwise."""

    reset: str
    has_lengths: bool
    reverse: bool
    candidate: bool
    update: str | None

    def __str__(self) -> str:
        parts = [self.reset, "lengths", "reverse", "candidate", f"update={self.update}"]
        return "-".join(part for part, there in zip(parts, self, strict=True) if there)


VARIANTS = [
    Variant(*choice)
    for choice in product(["before", "after"], [False, True], [False, True], [False, True], [None, "array", "number"])
]
PAIRS = [
    Variant("before", False, False, False, None),
    Variant("after", True, True, True, None),
    Variant("before", True, False, True, "array"),
    Variant("after", False, True, False, "array"),
    Variant("before", False, True, True, "number"),
    Variant("after", True, False, False, "number"),
]
"""Some of them, in which any two choices meet."""
WITH_LENGTHS = [variant._replace(has_lengths=True) for variant in PAIRS]


@pytest.fixture(params=["pairs", pytest.param("all", marks=pytest.mark.slow)])
def variants(request):
    """The variants for a test to loop over."""
    return PAIRS if request.param == "pairs" else VARIANTS


def each(variants):
    """A test for each of the variants."""
    return pytest.mark.parametrize("variant", variants, ids=str)


def kept(variant, shift=0):
    """A `keep_every`; variants that differ in one thing only have other ones."""
    return KEEP_EVERY[(VARIANTS.index(variant) + shift) % len(KEEP_EVERY)]


class Call(NamedTuple):
    """Arguments of `gru_forward` and `gru_backward`."""

    x: Any
    h0: Any
    params: GRUParams
    dh: Any
    dh_last: Any
    options: dict[str, Any]

    def __call__(self, **options: Any) -> tuple[Any, ...]:
        """All results, as conftest's RESULTS names them."""
        h, h_last, cache = gru_forward(self.x, self.h0, self.params, **self.options | options)
        dx, dh0, dparams = gru_backward(self.dh, cache, dh_last=self.dh_last)
        return h, h_last, dx, dh0, *arrays_of(dparams)

    @property
    def lengths(self) -> Any:
        """The lengths, given or not."""
        return self.options.get("lengths") or [self.x.shape[1]] * self.x.shape[0]

    def arrays(self) -> list[Any]:
        """All arrays that stand in for numbers."""
        masks = [array for array in self.options.values() if hasattr(array, "shape")]
        return [a for a in (self.x, self.h0, *arrays_of(self.params), self.dh, self.dh_last, *masks) if a is not None]

    def to(self, xp: Any, dtype: str = "float64") -> "Call":
        """The same call in another namespace or dtype."""

        def convert(value):
            return xp.asarray(value, dtype=getattr(xp, dtype), copy=True) if hasattr(value, "shape") else value

        options = {name: convert(value) for name, value in self.options.items()}
        params = map_arrays(convert, self.params)
        return Call(*map(convert, self[:2]), params, *map(convert, self[3:5]), options)

    def with_past_the_length(self, number: float) -> "Call":
        """The same call with a number in `x` and `dh` where no step counts."""
        x, dh = self.x.copy(), self.dh.copy()
        for b, length in enumerate(self.lengths):
            x[b, length:] = dh[b, length:] = number
        return self._replace(x=x, dh=dh)


@pytest.fixture
def draw_call(rng, draw_params):
    """``draw_call(variant, with_h0=True, sizes=(4, 4, 2, 2), lengths=LENGTHS)``: random arguments of NumPy.

    Masks hold zeros, ones and what is between and beyond them.
    """

    def draw_mask(shape):
        return rng.choice([0.0, 0.3, 0.8, 1.0, 1.6], shape)

    def draw_call(variant, *, with_h0=True, sizes=(4, 4, 2, 2), lengths=LENGTHS):
        B, T, n_in, H = sizes
        options = {"reset": variant.reset, "reverse": variant.reverse}
        if variant.has_lengths:
            options["lengths"] = lengths
        if variant.candidate:
            options["candidate_mask"] = draw_mask((B, H))
        if variant.update is not None:
            options["update_mask"] = draw_mask((B, T, H)) if variant.update == "array" else 0.7
        h0 = rng.standard_normal((B, H)) if with_h0 else None
        x, dh, dh_last = (rng.standard_normal(shape) for shape in ((B, T, n_in), (B, T, H), (B, H)))
        return Call(x, h0, draw_params(np, n_in, H, reset=variant.reset), dh, dh_last, options)

    return draw_call


def equal_bits(actual, desired):
    """Whether all results have the same numbers; NaN is not the same as NaN."""
    return [to_host(a).tolist() for a in actual] == [to_host(d).tolist() for d in desired]


def equal_bits_on_the_host(xp, actual, desired):
    """The same of two ways to compute it, for which a CUDA device may take other kernels: they round otherwise."""
    if "cupy" not in xp.__name__:
        return equal_bits(actual, desired)
    pairs = zip(actual, desired, strict=True)
    return all(np.allclose(to_host(a), to_host(d), rtol=1e-12, atol=1e-13) for a, d in pairs)


# --- against a plain loop ---------------------------------------------------------------------------------------


def sigmoid(a):
    return 1.0 / (1.0 + np.exp(-a))


def loop(
    x,
    h0,
    weight_ih,
    weight_hh,
    bias,
    bias_hn=None,
    *,
    reset=None,
    reverse=False,
    lengths=None,
    candidate_mask=None,
    update_mask=None,
):
    """The states and the last ones, sequence by sequence and step by step, as the papers write them."""
    (B, T, _), H = x.shape, h0.shape[1]
    W_z, W_r, W_n = np.split(weight_ih, 3)
    U_z, U_r, U_n = np.split(weight_hh, 3)
    b_z, b_r, b_n = np.split(bias, 3)
    h = np.zeros((B, T, H), dtype=np.result_type(x, h0, weight_ih, weight_hh, bias))
    h_last = np.zeros((B, H), dtype=h.dtype)
    for b in range(B):
        steps = list(range(T if lengths is None else lengths[b]))
        state = h0[b]
        for t in reversed(steps) if reverse else steps:
            z = sigmoid(W_z @ x[b, t] + b_z + U_z @ state)
            r = sigmoid(W_r @ x[b, t] + b_r + U_r @ state)
            if bias_hn is None:
                n = np.tanh(W_n @ x[b, t] + b_n + U_n @ (r * state))
            else:
                n = np.tanh(W_n @ x[b, t] + b_n + r * (U_n @ state + bias_hn))
            if candidate_mask is not None:
                n = candidate_mask[b] * n
            new = (1.0 - z) * state + z * n
            if update_mask is not None:
                update = update_mask if np.isscalar(update_mask) else update_mask[b, t]
                new = update * new + (1.0 - update) * state
            state = new
            h[b, t] = state
        h_last[b] = state
    return h, h_last


@pytest.mark.parametrize("with_h0", [True, False])
@each(VARIANTS)
def test_against_a_plain_loop(draw_call, complex_step_gradients, assert_same_results, variant, with_h0):
    """Its gradients are those of the complex step, exact to rounding; states do not depend on what is kept at all."""
    call = draw_call(variant, with_h0=with_h0)
    arrays = [call.x, call.h0 if with_h0 else np.zeros((4, 2)), *arrays_of(call.params)]

    def scalar(*arrays):
        h, h_last = loop(*arrays, **call.options)
        return np.sum(call.dh * h) + np.sum(call.dh_last * h_last)

    expected = (*loop(*arrays, **call.options), *complex_step_gradients(scalar, arrays))
    whole = call()
    for keep_every in KEEP_EVERY:
        results = call(keep_every=keep_every)
        assert_same_results(results, expected, 1e-14)
        assert equal_bits(results[:2], whole[:2])
        for b, length in enumerate(call.lengths):
            h, h_last, dx, dh0 = (result[b] for result in results[:4])
            assert not h[length:].any()
            assert not dx[length:].any()
            if length == 0:
                assert h_last.tolist() == arrays[1][b].tolist()
                assert dh0.tolist() == call.dh_last[b].tolist()


@pytest.mark.compat
@pytest.mark.parametrize("with_h0", [True, False])
@each(VARIANTS)
def test_gradients(draw_call, variant, with_h0):
    """Central differences: of every number, or, without an initial state, along a direction."""
    call = draw_call(variant, sizes=(3, 3, 1, 2), lengths=[1, 0, 3])
    names = ["x", "h0", "params"] if with_h0 else ["x", "params"]
    options = call.options | {"keep_every": kept(variant, with_h0)}

    def forward(x, *others):
        h0, params = others if with_h0 else (None, *others)
        return gru_forward(x, h0, params, **options)

    def backward(dh, dh_last, cache):
        dx, dh0, dparams = gru_backward(dh, cache, dh_last=dh_last)
        return (dx, dh0, dparams) if with_h0 else (dx, dparams)

    inputs = {name: getattr(call, name) for name in names}
    report = gradcheck(forward, backward, inputs, mode="elements" if with_h0 else "direction")
    assert {row.name.removeprefix("params.") for row in report.rows} >= {*names, *NAMES[variant.reset]} - {"params"}
    assert report.ok, report


@pytest.mark.compat
def test_namespaces(xp, draw_call, assert_same_results):
    for variant in VARIANTS:
        call = draw_call(variant, with_h0=variant.reverse)
        expected = call(keep_every=kept(variant), ops=PLAIN_OPS)
        results = call.to(xp)(keep_every=kept(variant))
        assert_same_results(results, expected, 1e-13)
        assert {array_namespace(array) for array in results} == {array_namespace(xp.ones(1))}, variant


def test_float32(xp, draw_call, assert_same_results):
    """Nothing is of another dtype than the input, in none of the steps: array-api-strict would not mix them."""
    for variant, keep_every in zip(PAIRS, [3, None, 3, None, None, 3], strict=True):
        call = draw_call(variant).to(np, "float32")
        expected = call.to(np)(ops=PLAIN_OPS)
        results = call.to(xp, "float32")(keep_every=keep_every)
        assert all(array.dtype == xp.float32 for array in results), variant
        assert_same_results([to_host(array).astype(np.float64) for array in results], expected, 2e-6)


# --- fast paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-12), ("float32", 2e-6)])
def test_fast_and_plain_ops_agree(draw_call, assert_same_results, dtype, limit):
    """At odd sizes, with weights as small as at the start of training, so that rounding stays small."""
    for variant in VARIANTS if dtype == "float64" else PAIRS:
        call = draw_call(variant, sizes=(37, 9, 3, 17), lengths=[(5 * b) % 10 for b in range(37)])
        call = call._replace(params=map_arrays(lambda array: 0.3 * array, call.params)).to(np, dtype)
        assert_same_results(call(), call(ops=PLAIN_OPS), limit)


@each(VARIANTS)
def test_numpy_ops(monkeypatch, rng, draw_call, make_numpy_ops, assert_same_results, variant):
    """Eager, and captured; a replay reads masks anew. What stands past the length is no number.

    The parts of a batch go back in blocks of different lengths: of 2 steps those of the whole one.
    """
    monkeypatch.setattr(numpy_ops, "MAX_BLOCK_NUMBERS", 2 * 7 * 4)
    index = VARIANTS.index(variant)
    options = {"keep_every": kept(variant)}
    call = draw_call(variant, with_h0=index % 4 < 2, sizes=(7, 5, 2, 4), lengths=[3, 5, 0, 1, 5, 2, 4])
    fast = call.with_past_the_length(math.nan)
    ops = make_numpy_ops()
    expected = call(ops=PLAIN_OPS, **options)
    assert_same_results(fast(ops=ops, **options), expected)

    replay = ops.capture(lambda: fast(ops=ops, **options))
    assert_same_results(replay(), expected)
    for array, other in zip(fast.arrays(), call.arrays(), strict=True):
        other[...] = rng.uniform(0.0, 1.2, array.shape)
        array[...] = other
    for changed, clean in zip(call.with_past_the_length(math.inf)[:5], fast[:5], strict=True):
        if hasattr(clean, "shape"):
            clean[...] = changed
    assert_same_results(replay(), call(ops=PLAIN_OPS, **options))


def test_plain_variable(monkeypatch, draw_call):
    calls = [(draw_call(variant), keep_every) for variant in PAIRS for keep_every in (None, 3)]
    expected = [call(keep_every=keep_every, ops=PLAIN_OPS) for call, keep_every in calls]
    monkeypatch.setenv(PLAIN_VARIABLE, "1")
    monkeypatch.setattr(NumpyOps, "matmul", None)
    for (call, keep_every), results in zip(calls, expected, strict=True):
        assert equal_bits(call(keep_every=keep_every), results), (call.options, keep_every)


# --- lengths ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_what_stands_past_the_length_is_not_looked_at(xp, draw_call):
    for variant, number in zip(
        WITH_LENGTHS, [math.nan, -math.inf, -math.inf, math.nan, math.nan, math.nan], strict=True
    ):
        call = draw_call(variant)
        expected = call.to(xp)(keep_every=kept(variant))
        results = call.with_past_the_length(number).to(xp)(keep_every=kept(variant))
        assert equal_bits(results, expected), variant
        h, h_last, dx, dh0, *_ = map(to_host, results)
        for b, length in enumerate(LENGTHS):
            assert not h[b, length:].any(), variant
            assert not dx[b, length:].any(), variant
        assert h_last[1].tolist() == call.h0[1].tolist(), variant
        assert dh0[1].tolist() == call.dh_last[1].tolist(), variant


def test_full_lengths_are_none(xp, draw_call):
    for reset in ("before", "after"):
        call = draw_call(Variant(reset, False, False, True, "array")).to(xp)
        assert equal_bits_on_the_host(xp, call(lengths=[4, 4, 4, 4]), call()), reset


def test_no_sequence_has_any_step(xp, draw_call):
    for reset, reverse in product(["before", "after"], [False, True]):
        call = draw_call(Variant(reset, True, reverse, True, "array"), lengths=[0, 0, 0, 0]).to(xp)
        h, h_last, dx, dh0, *dparams = call()
        assert equal_bits([h_last, dh0], [call.h0, call.dh_last]), (reset, reverse)
        for array in (h, dx, *arrays_of(dparams)):
            assert not to_host(array).any(), (reset, reverse)


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.fixture
def check_lengths(rng, draw_params):
    """``check_lengths(xp, library)``: lengths of any integer type of a library; the smallest do not hold 300 steps."""

    def check_lengths(xp, library):
        params, lengths = draw_params(np, 1, 2), {4: [0, 1, 3, 4, 2], 300: [0, 100, 127, 44, 7]}
        x = {T: rng.standard_normal((5, T, 1)) for T in lengths}
        expected = {
            T: gru_forward(x[T], None, params, lengths=np.asarray(lengths[T], np.int64), ops=PLAIN_OPS)[:2] for T in x
        }
        makers = {"list": list, "tuple": tuple}
        for dtype in INTEGERS:
            makers[dtype] = lambda values, dtype=dtype: library.asarray(values, dtype=getattr(library, dtype))
        for dtype, make in makers.items():
            T = 300 if dtype.endswith("int8") and xp.__name__ != "array_api_strict" else 4
            actual = gru_forward(xp.asarray(x[T]), None, map_arrays(xp.asarray, params), lengths=make(lengths[T]))
            for b, length in enumerate(lengths[T]):
                h = to_host(actual[0])[b]
                assert not h[length:].any(), dtype
                assert h[:length].all(), dtype
            for array, desired in zip(actual, expected[T], strict=False):
                np.testing.assert_allclose(to_host(array), desired, rtol=1e-12, atol=1e-14, err_msg=dtype)

    return check_lengths


def test_kinds_of_lengths(xp, check_lengths):
    """Of the library of `x`, and of others."""
    strict = pytest.importorskip("array_api_strict")
    for library in {library.__name__: library for library in (np, strict, xp)}.values():
        check_lengths(xp, library)


@pytest.mark.peer
def test_lengths_of_torch(check_lengths):
    torch = pytest.importorskip("torch")
    for xp in (np, pytest.importorskip("array_api_strict")):
        check_lengths(xp, torch)


def test_lengths_on_another_device(draw_call):
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    for reset in ("before", "after"):
        call = draw_call(Variant(reset, True, False, True, "array"))
        expected = call.to(strict)()
        there = call.to(strict)
        options = {name: a.to_device(device) if hasattr(a, "shape") else a for name, a in there.options.items()}
        params = map_arrays(lambda array: array.to_device(device), there.params)
        there = Call(
            *(a.to_device(device) for a in there[:2]), params, *(a.to_device(device) for a in there[3:5]), options
        )
        for lengths in (LENGTHS, strict.asarray(LENGTHS), strict.asarray(LENGTHS, device=device)):
            results = there(lengths=lengths)
            assert {array.device for array in results} == {device}
            assert equal_bits([array.to_device(strict.Device("CPU_DEVICE")) for array in results], expected)


# --- direction --------------------------------------------------------------------------------------------------


def flipped(array, lengths):
    """Each row back to front, as far as it counts."""
    array = array.copy()
    for b, length in enumerate(lengths):
        array[b, :length] = array[b, :length][::-1].copy()
    return array


def test_reverse_is_a_flip(draw_call, assert_same_results, variants):
    for variant in [variant._replace(reverse=True) for variant in variants]:
        call = draw_call(variant)
        options = call.options | {"reverse": False}
        if variant.update == "array":
            options["update_mask"] = flipped(options["update_mask"], call.lengths)
        x, dh = flipped(call.x, call.lengths), flipped(call.dh, call.lengths)
        h, h_last, dx, dh0, *dparams = call._replace(x=x, dh=dh, options=options)(keep_every=kept(variant))
        expected = (flipped(h, call.lengths), h_last, flipped(dx, call.lengths), dh0, *arrays_of(dparams))
        assert_same_results(call(keep_every=kept(variant)), expected, 1e-14)


# --- masks ------------------------------------------------------------------------------------------------------


def test_masks_of_ones_are_none(xp, draw_call):
    for variant in [variant._replace(candidate=False, update=None) for variant in PAIRS[:4]]:
        call = draw_call(variant).to(xp)
        expected = call()
        for update_mask in (1, 1.0, xp.ones((4, 4, 2), dtype=xp.float64)):
            results = call(candidate_mask=xp.ones((4, 2), dtype=xp.float64), update_mask=update_mask)
            assert equal_bits_on_the_host(xp, results, expected), (variant, update_mask)


def test_a_number_is_a_mask_of_it(xp, draw_call, assert_same_results, variants):
    for variant in [variant._replace(update="number") for variant in variants]:
        call = draw_call(variant).to(xp)
        same = xp.full((4, 4, 2), 0.7, dtype=xp.float64)
        assert_same_results(call(), call(update_mask=same), 1e-15)
        assert equal_bits(call(update_mask=np.float64(0.7)), call()), variant


def test_without_updates_the_state_stays(xp, draw_call):
    for reset, update_mask in product(["before", "after"], [0, xp.zeros((4, 4, 2), dtype=xp.float64)]):
        call = draw_call(Variant(reset, True, False, True, "array")).to(xp)
        h, h_last, dx, _, *dparams = call(update_mask=update_mask)
        for b, length in enumerate(LENGTHS):
            assert to_host(h)[b, :length].tolist() == [to_host(call.h0)[b].tolist()] * length
        assert equal_bits([h_last], [call.h0]), reset
        for array in (dx, *arrays_of(dparams)):
            assert not to_host(array).any(), reset


def test_without_candidates_the_state_fades(draw_call, reset):
    """No input is remembered, and none of the candidate's parameters has a gradient."""
    call = draw_call(Variant(reset, False, False, True, None))
    h, _, _, _, *dparams = call(candidate_mask=np.zeros((4, 2)))
    states = np.abs(np.concatenate([call.h0[:, None], h], axis=1))
    assert np.all(states[:, 1:] < states[:, :-1])
    for array, name in zip(dparams, NAMES[reset], strict=True):
        rows = slice(None) if name == "bias_hn" else slice(4, None)
        assert not array[rows].any()
    assert dparams[0][:2].any()


# --- what is computed again -------------------------------------------------------------------------------------


def test_keep_every(xp, draw_call, assert_same_results, variants):
    """Sums over steps, the parameters' gradients, may be rounded otherwise; in NumPy all else has the same bits."""
    for number, variant in enumerate(variants):
        call = draw_call(variant, sizes=(3, 7, 2, 3), lengths=[5, 7, 2]).to(xp)
        expected = call()
        for keep_every in [1, 3, 6, 7, 50] if "numpy" in xp.__name__ else [(1, 3, 6)[number % 3], (50, 7)[number % 2]]:
            results = call(keep_every=keep_every)
            assert_same_results(results, expected, 1e-14)
            if "numpy" in xp.__name__:
                assert equal_bits(results[:4], expected[:4]), (variant, keep_every)
            if keep_every >= 7:
                assert equal_bits_on_the_host(xp, results, expected), (variant, keep_every)


def test_keep_every_of_a_long_sequence(draw_call, assert_same_results):
    for variant, ops in zip(PAIRS, [PLAIN_OPS, None] * 3, strict=True):
        call = draw_call(variant, sizes=(2, 101, 3, 4), lengths=[101, 64])
        expected = call(ops=ops)
        for keep_every in (1, 33) if variant.reset == "before" else (10, 100):
            results = call(ops=ops, keep_every=keep_every)
            assert equal_bits(results[:4], expected[:4]), (variant, keep_every)
            assert_same_results(results, expected, 1e-14)


def bytes_of_steps(call):
    """What one step keeps for the backward pass."""
    (B, _, n_in), H = call.x.shape, call.h0.shape[1]
    return B * (6 * H + n_in + 1) * call.x.itemsize


def passes(call, keep_every, ops):
    """A forward pass, and then a backward pass."""
    options = call.options | {"keep_every": keep_every, "with_h": False, "ops": ops}
    _, _, cache = gru_forward(call.x, call.h0, call.params, **options)
    yield
    gru_backward(call.dh, cache, dh_last=call.dh_last, with_dx=False)
    yield


LONG = [
    Variant(reset, *other)
    for reset in ("before", "after")
    for other in [(False, False, True, "number"), (True, True, False, None)]
]
"""Of 400 steps; 2 sqrt(400) = 40."""


def test_memory_of_a_prediction(draw_call):
    """Where no gradients are wanted, no states are kept, not even of every so many steps."""
    for variant in LONG:
        call = draw_call(variant, sizes=(64, 400, 3, 16), lengths=[400, 3, 0, 399, 200, 1, 77, 350] * 8)
        options = call.options | {"keep_every": 1, "with_h": False, "with_cache": False, "ops": PLAIN_OPS}
        gru_forward(call.x[:, :4], call.h0, call.params, **{**options, "lengths": None})
        tracemalloc.start()
        try:
            gru_forward(call.x, call.h0, call.params, **options)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 15 * bytes_of_steps(call), variant


@pytest.mark.parametrize(
    ("variant", "keep_every"),
    [
        pytest.param(LONG[3], 20, id="20"),
        pytest.param(LONG[0], 20, id="20, all lengths", marks=pytest.mark.slow),
        pytest.param(LONG[3], None, id="all", marks=pytest.mark.slow),
        pytest.param(LONG[0], None, id="all, all lengths", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "make_ops",
    [
        pytest.param(lambda: NumpyOps(max_kept=0), id="fast", marks=pytest.mark.slow),
        pytest.param(lambda: PLAIN_OPS, id="plain"),
    ],
)
def test_memory_as_python_sees_it(draw_call, variant, keep_every, make_ops):
    """With the fast ops, which have notes of all calls of a pass, and with the plain ones."""
    call = draw_call(variant, sizes=(32, 400, 3, 32), lengths=[30] * 32)
    ops = make_ops()
    for _ in passes(call._replace(x=call.x[:, :80], dh=call.dh[:, :80]), keep_every, ops):
        """What is kept however long the sequences are is there now."""
    tracemalloc.start()
    try:
        measured = []
        for _ in passes(call, keep_every, ops):
            measured += [bytes / bytes_of_steps(call) for bytes in tracemalloc.get_traced_memory()]
            tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    after_forward, peak_forward, _, peak_backward = measured
    if keep_every is None:
        assert min(after_forward, peak_forward, peak_backward) > 400
    else:
        assert after_forward < 10
        assert peak_forward < 30
        assert peak_backward < 80


@pytest.mark.parametrize(
    ("B", "T", "H", "k", "with_lengths"),
    [
        pytest.param(64, 500, 32, 22, True, id="500"),
        *(
            pytest.param(*sizes, with_lengths, id=f"{sizes[1]}-{with_lengths}", marks=pytest.mark.slow)
            for sizes in [(8, 2500, 32, 50), (64, 900, 32, 30), (700, 300, 16, 17)]
            for with_lengths in (False, True)
        ),
    ],
)
def test_memory_of_long_sequences(draw, draw_params, B, T, H, k, with_lengths):
    """By the ops that everybody gets: notes of calls do not grow with T, whether or not the batch is split.

    How many bytes a step takes is measured without `keep_every`. The smallest of these states is 2 kB, beside which
    notes of a call, some 100 bytes, count: hence twice the 2 * sqrt(T) steps. Scratch memory stays with the ops.
    """
    x, params, dh_last = draw(np, (B, T, 2)), draw_params(np, 2, H), draw(np, (B, H))
    lengths = np.arange(B) % (T + 1) if with_lengths else None
    ops = NumpyOps(2, max_kept=0)

    def peak(n_steps, keep_every):
        ends = None if lengths is None else np.minimum(lengths, n_steps)
        tracemalloc.start()
        try:
            _, _, cache = gru_forward(
                x[:, :n_steps], None, params, lengths=ends, keep_every=keep_every, ops=ops, with_h=False
            )
            gru_backward(None, cache, dh_last=dh_last, with_dx=False)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(220, None)
    peak(4 * k, k)
    a_step = (peak(220, None) - peak(20, None)) / 200
    assert peak(T, k) < 4 * math.sqrt(T) * a_step


# --- sequences in parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 3])
@each(VARIANTS)
def test_chunks_with_carried_state(draw_call, assert_same_results, variant, chunk):
    """States have the same bits; gradients are carried back the same way."""
    call = draw_call(variant)
    whole = call()
    starts = range(0, 4, chunk)
    state, h, caches = call.h0, np.empty((4, 4, 2)), []
    for start in reversed(starts) if variant.reverse else starts:
        steps = slice(start, min(start + chunk, 4))
        options = dict(call.options)
        if variant.has_lengths:
            options["lengths"] = [min(max(length - start, 0), steps.stop - start) for length in LENGTHS]
        if variant.update == "array":
            options["update_mask"] = options["update_mask"][:, steps]
        h[:, steps], state, cache = gru_forward(call.x[:, steps], state, call.params, **options)
        caches.append((steps, cache))
    assert equal_bits([h, state], whole[:2])

    carry, dx, total = call.dh_last, np.empty((4, 4, 2)), [np.zeros(array.shape) for array in arrays_of(call.params)]
    for steps, cache in reversed(caches):
        dx[:, steps], carry, dparams = gru_backward(call.dh[:, steps], cache, dh_last=carry)
        total = [a + b for a, b in zip(total, arrays_of(dparams), strict=True)]
    assert_same_results((h, state, dx, carry, *total), whole, 1e-14)


@pytest.mark.compat
def test_step_by_step(xp, draw_call):
    for reset, ops in product(["before", "after"], [None, PLAIN_OPS]):
        call = draw_call(Variant(reset, False, False, False, None), sizes=(3, 6, 2, 5)).to(xp)
        h, h_last, _ = gru_forward(call.x, call.h0, call.params, reset=reset, ops=ops)
        state = call.h0
        for t in range(6):
            before = to_host(state).tolist()
            state, previous = gru_step(call.x[:, t, :], state, call.params, reset=reset, ops=ops), state
            assert to_host(previous).tolist() == before, (reset, ops)
            np.testing.assert_allclose(to_host(state), to_host(h[:, t, :]), rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(to_host(state), to_host(h_last), rtol=1e-14, atol=1e-15)
        assert array_namespace(state) is array_namespace(call.x)


def test_a_step_is_refused_as_a_sequence_is(draw_call, refuses):
    call = draw_call(VARIANTS[0])
    with refuses("x", "(4, 4, 2)", "(B, I)"):
        gru_step(call.x, call.h0, call.params)
    with pytest.raises(ValueError, match="reset is 'both'"):
        gru_step(call.x[:, 0], call.h0, call.params, reset="both")


# --- what is wanted ---------------------------------------------------------------------------------------------


def test_only_what_is_wanted(draw_call, make_numpy_ops, some):
    for number, variant in some(enumerate([*PAIRS, *PAIRS])):
        keep_every = KEEP_EVERY[number % len(KEEP_EVERY)]
        call = draw_call(variant, sizes=(7, 5, 2, 4), lengths=[3, 5, 0, 1, 5, 2, 4])
        options = call.options | {"keep_every": keep_every}
        ops = make_numpy_ops()
        h, h_last, dx, dh0, *dparams = call(keep_every=keep_every, ops=ops)
        for with_h, with_cache in product([False, True], repeat=2):
            actual_h, actual_last, cache = gru_forward(
                call.x, call.h0, call.params, **options, ops=ops, with_h=with_h, with_cache=with_cache
            )
            assert (actual_h is None, cache is None) == (not with_h, not with_cache), (variant, keep_every)
            assert equal_bits([actual_last], [h_last]), (variant, keep_every)
            if with_h:
                assert equal_bits([actual_h], [h]), (variant, keep_every)
            if with_cache:
                for with_dx in (False, True) if with_h else (False,):
                    actual_dx, *others = gru_backward(call.dh, cache, dh_last=call.dh_last, with_dx=with_dx)
                    assert (actual_dx is None) == (not with_dx), (variant, keep_every)
                    assert equal_bits([others[0], *arrays_of(others[1])], [dh0, *arrays_of(dparams)]), (
                        variant,
                        keep_every,
                    )
                    if with_dx:
                        assert equal_bits([actual_dx], [dx]), variant


class CountingScan(PlainScan):
    """Notes how many results each scan keeps of all its steps."""

    def __init__(self, xp):
        super().__init__(xp)
        self.numbers = []

    def scan(self, *args, **options):
        carry, ys, sums = super().scan(*args, **options)
        self.numbers.append(len(ys))
        return carry, ys, sums


def test_without_a_cache_nothing_is_kept_for_the_way_back(draw_call):
    for variant in PAIRS:
        call = draw_call(variant, sizes=(4, 5, 2, 3))
        for keep_every, with_h in product([None, 2], [False, True]):
            ops = CountingScan(np)
            options = call.options | {"keep_every": keep_every, "with_h": with_h, "with_cache": False, "ops": ops}
            gru_forward(call.x, call.h0, call.params, **options)
            assert set(ops.numbers) == {int(with_h)}, (variant, keep_every)


def test_gradients_of_both_results_add_up(draw_call, assert_same_results, variants):
    for variant in variants:
        call = draw_call(variant)
        h, h_last, cache = gru_forward(call.x, call.h0, call.params, **call.options, keep_every=kept(variant))
        (dx, dh0, dparams), (dx_last, dh0_last, dparams_last) = (
            gru_backward(call.dh, cache),
            gru_backward(None, cache, dh_last=call.dh_last),
        )
        sums = (
            dx + dx_last,
            dh0 + dh0_last,
            *(a + b for a, b in zip(arrays_of(dparams), arrays_of(dparams_last), strict=True)),
        )
        assert_same_results((h, h_last, *sums), call(keep_every=kept(variant)), 1e-14)


def test_h_last_is_the_state_at_the_end(xp, draw_call, variants):
    """And a gradient of it is one of that state."""
    for variant in variants:
        call = draw_call(variant).to(xp)
        h, h_last, *results = call()
        dh, dh_last = to_host(call.dh).copy(), to_host(call.dh_last).copy()
        for b, length in enumerate(call.lengths):
            if length:
                end = 0 if variant.reverse else length - 1
                assert to_host(h_last)[b].tolist() == to_host(h)[b, end].tolist(), variant
                dh[b, end] += dh_last[b]
                dh_last[b] = 0.0
        other = call._replace(dh=xp.asarray(dh), dh_last=xp.asarray(dh_last))
        assert equal_bits_on_the_host(xp, other()[2:], results), variant


BOTH_MASKS = [Variant(reset, True, True, True, "array") for reset in ("before", "after")]


def test_nothing_given_is_changed(xp, draw_call):
    for variant in BOTH_MASKS:
        call = draw_call(variant).to(xp)
        before = [to_host(array).tolist() for array in call.arrays()]
        lengths = xp.asarray(LENGTHS)
        call(lengths=lengths, keep_every=3)
        assert [to_host(array).tolist() for array in call.arrays()] == before, variant
        assert to_host(lengths).tolist() == LENGTHS, variant


@each(BOTH_MASKS)
def test_read_only_and_in_any_memory_order(draw_call, assert_same_results, variant):
    call = draw_call(variant)
    expected = call()

    def strided(array):
        if not hasattr(array, "shape"):
            return array
        array = np.repeat(np.asfortranarray(array), 2, axis=-1)[..., ::2]
        array.setflags(write=False)
        return array

    options = {name: strided(value) for name, value in call.options.items()}
    params = map_arrays(strided, call.params)
    other = Call(*map(strided, call[:2]), params, *map(strided, call[3:5]), options)
    assert not other.options["update_mask"].flags.c_contiguous
    assert_same_results(other(lengths=strided(np.asarray(LENGTHS))), expected, 1e-14)


# --- what is refused --------------------------------------------------------------------------------------------


SHAPE = "must be integers of shape (4,)"
"""The lengths of four sequences of four steps."""

WRONG_LENGTHS = [
    ([2.0, 0, 4, 1], "dtype float64", SHAPE),
    (np.ones(4, np.float32), "dtype float32", SHAPE),
    (np.full(4, np.nan), "dtype float64", SHAPE),
    ([True] * 4, "dtype bool", SHAPE),
    ([1j] * 4, "dtype complex128", SHAPE),
    (3, "shape ()", SHAPE),
    ([3], "shape (1,)", SHAPE),
    ([3] * 5, "int64", "shape (5,)", SHAPE),
    ([[2, 0, 4, 1]], "shape (1, 4)", SHAPE),
    ([[2], [0], [4], [1]], "shape (4, 1)", SHAPE),
    ([], "shape (0,)", SHAPE),
    ([[2, 1], 0, 4, 1], "is a list", SHAPE),
    ("2041", "dtype <U4", SHAPE),
    ([2, None, 4, 1], "dtype object", SHAPE),
    ({2: 0}, "dtype object", "shape ()", SHAPE),
    (object(), "dtype object", "shape ()", SHAPE),
    ([2, -1, 4, 1], "values from -1 to 4", "0 to 4", "4 steps"),
    ([2, 0, 5, 1], "values from 0 to 5", "0 to 4", "4 steps"),
    (np.asarray([2, 0, 255, 1], np.uint8), "values from 0 to 255", "0 to 4", "4 steps"),
    (np.asarray([2, 0, -128, 1], np.int8), "values from -128 to 2", "0 to 4", "4 steps"),
]


def test_wrong_lengths(xp, draw_call, refuses):
    """Each namespace makes its own arrays of them, of other dtypes."""
    call = draw_call(VARIANTS[0]).to(xp)
    for lengths, *parts in WRONG_LENGTHS:
        with refuses("lengths", *(parts if "numpy" in xp.__name__ else parts[-1:])):
            call(lengths=lengths)


def test_wrong_numbers(draw_call, refuses):
    call = draw_call(VARIANTS[0])
    for keep_every in (0, -1, 2.0, 2.5, True, "3", math.nan, [2]):
        with refuses("keep_every", repr(keep_every), "whole number", "at least 1", error=ValueError):
            call(keep_every=keep_every)
    for update_mask in (-0.1, 1.5, math.nan, math.inf, True, np.float32(2.0)):
        with refuses("update_mask", repr(update_mask), "from 0 to 1", error=ValueError):
            call(update_mask=update_mask)


def test_keep_every_of_numpy(draw_call):
    call = draw_call(VARIANTS[0])
    assert equal_bits(call(keep_every=np.int32(3)), call(keep_every=3))


def test_wrong_masks(draw_call, refuses):
    call = draw_call(VARIANTS[0], sizes=(4, 5, 2, 2))
    strict = pytest.importorskip("array_api_strict")
    for name, expected, others in (
        ("candidate_mask", (4, 2), [(4, 1), (1, 2), (2,), (4, 5, 2), ()]),
        ("update_mask", (4, 5, 2), [(4, 5, 1), (4, 1, 2), (5, 4, 2), (4, 2), (2,), ()]),
    ):
        mask = np.ones(expected)
        for wrong, *parts in [
            *((np.ones(shape), f"shape {shape}", str(expected)) for shape in others),
            (mask.tolist(), "is a list", f"array of shape {expected}"),
            (mask.astype(np.int32), "dtype int32", "float32 or float64"),
            (mask.astype(np.float32), "dtype float32", "that of x, float64"),
            (strict.asarray(mask), "namespace array_api_strict", "that of x, numpy"),
            ("0.5", "is a str", f"array of shape {expected}"),
            (1j, "is a complex", f"array of shape {expected}"),
            *([(0.5, "is a float", f"array of shape {expected}")] if name == "candidate_mask" else []),
        ]:
            with refuses(name, *parts):
                call(**{name: wrong})


def test_gradients_that_do_not_fit(draw_call, refuses):
    """Also of a forward pass that kept the states of some steps only."""
    call = draw_call(VARIANTS[-1])
    for keep_every in (None, 3):
        _, _, cache = gru_forward(call.x, call.h0, call.params, **call.options, keep_every=keep_every)
        with refuses("dh", "(4, 3, 2)", "(4, 4, 2)"):
            gru_backward(call.dh[:, :3], cache)
        with refuses("dh_last", "(3, 2)", "(4, 2)"):
            gru_backward(None, cache, dh_last=call.dh_last[:3])
        with pytest.raises(ShapeError, match="dh and dh_last are both None"):
            gru_backward(None, cache)


def test_large_inputs(draw_call):
    for variant, keep_every in product(WITH_LENGTHS, [None, 3]):
        call = draw_call(variant)
        call.x[...] *= 1e4
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            results = call(keep_every=keep_every)
        assert all(np.all(np.isfinite(array)) for array in results), (variant, keep_every)
