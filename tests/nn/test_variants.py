import math
import tracemalloc
import warnings
import weakref
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import numpy_ops, to_host
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.errors import ShapeError
from gru_xp.nn import GRUParams, gradcheck, gru_backward, gru_forward, gru_step
from gru_xp.nn.ops import PLAIN_OPS, PLAIN_VARIABLE, PlainOps

KEEP_EVERY = [None, 1, 2, 3, 9]  # of 4 steps: divided or not, and more than there are
LENGTHS = [2, 0, 4, 1]
NAMES = ["x", "h0", "weight_ih", "weight_hh", "bias", "bias_hn"]


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
WITH_LENGTHS = [variant for variant in VARIANTS if variant.has_lengths]


def each(variants, **others):
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
        return h, h_last, dx, dh0, *dparams

    @property
    def lengths(self) -> Any:
        """The lengths, given or not."""
        return self.options.get("lengths") or [self.x.shape[1]] * self.x.shape[0]

    def arrays(self) -> list[Any]:
        """All arrays that stand in for numbers."""
        masks = [array for array in self.options.values() if hasattr(array, "shape")]
        return [a for a in (self.x, self.h0, *self.params, self.dh, self.dh_last, *masks) if a is not None]

    def to(self, xp: Any, dtype: str = "float64") -> "Call":
        """The same call in another namespace or dtype."""

        def convert(value):
            return xp.asarray(value, dtype=getattr(xp, dtype), copy=True) if hasattr(value, "shape") else value

        options = {name: convert(value) for name, value in self.options.items()}
        params = GRUParams(*map(convert, self.params))
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
        return Call(x, h0, draw_params(np, n_in, H), dh, dh_last, options)

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
    bias_hn,
    *,
    reset,
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
    h = np.zeros((B, T, H), dtype=np.result_type(x, h0, weight_ih, weight_hh, bias, bias_hn))
    h_last = np.zeros((B, H), dtype=h.dtype)
    for b in range(B):
        steps = list(range(T if lengths is None else lengths[b]))
        state = h0[b]
        for t in reversed(steps) if reverse else steps:
            z = sigmoid(W_z @ x[b, t] + b_z + U_z @ state)
            r = sigmoid(W_r @ x[b, t] + b_r + U_r @ state)
            if reset == "before":
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
    arrays = [call.x, call.h0 if with_h0 else np.zeros((4, 2)), *call.params]

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
    assert {row.name.removeprefix("params.") for row in report.rows} >= set(NAMES) - {"h0"}
    assert report.ok, report


@each(VARIANTS)
def test_namespaces(xp, draw_call, assert_same_results, variant):
    call = draw_call(variant, with_h0=VARIANTS.index(variant) % 4 < 2)
    expected = call(keep_every=kept(variant), ops=PLAIN_OPS)
    results = call.to(xp)(keep_every=kept(variant))
    assert_same_results(results, expected, 1e-13)
    assert {array_namespace(array) for array in results} == {array_namespace(xp.ones(1))}


@pytest.mark.parametrize("keep_every", [None, 3])
@each([VARIANTS[0], VARIANTS[-1], VARIANTS[-2], VARIANTS[20], VARIANTS[23]])
def test_float32(xp, draw_call, assert_same_results, variant, keep_every):
    """Nothing is of another dtype than the input, in none of the steps: array-api-strict would not mix them."""
    call = draw_call(variant).to(np, "float32")
    expected = call.to(np)(ops=PLAIN_OPS)
    results = call.to(xp, "float32")(keep_every=keep_every)
    assert all(array.dtype == xp.float32 for array in results)
    assert_same_results([to_host(array).astype(np.float64) for array in results], expected, 2e-6)


# --- fast paths -------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("keep_every", [None, 3])
@each(VARIANTS[::5])
def test_plain_variable(monkeypatch, draw_call, variant, keep_every):
    call = draw_call(variant)
    expected = call(keep_every=keep_every, ops=PLAIN_OPS)
    monkeypatch.setenv(PLAIN_VARIABLE, "1")
    monkeypatch.setattr(NumpyOps, "matmul", None)
    assert equal_bits(call(keep_every=keep_every), expected)


# --- lengths ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [math.nan, -math.inf])
@each(WITH_LENGTHS)
def test_what_stands_past_the_length_is_not_looked_at(xp, draw_call, variant, number):
    call = draw_call(variant)
    expected = call.to(xp)(keep_every=kept(variant))
    results = call.with_past_the_length(number).to(xp)(keep_every=kept(variant))
    assert equal_bits(results, expected)
    h, h_last, dx, dh0, *_ = map(to_host, results)
    for b, length in enumerate(LENGTHS):
        assert not h[b, length:].any()
        assert not dx[b, length:].any()
    assert h_last[1].tolist() == call.h0[1].tolist()
    assert dh0[1].tolist() == call.dh_last[1].tolist()


@pytest.mark.parametrize("variant", WITH_LENGTHS[::3], ids=str)
def test_each_sequence_is_one_of_its_own_length(draw_call, assert_same_results, variant):
    """Cut off at its end, without `lengths`."""
    call = draw_call(variant)
    h, h_last, dx, dh0, *dparams = call()
    total = [np.zeros(array.shape) for array in dparams]
    for b, length in enumerate(LENGTHS):
        if length == 0:
            continue
        row, steps = slice(b, b + 1), slice(0, length)
        options = {name: value for name, value in call.options.items() if name != "lengths"}
        for name in ("candidate_mask", "update_mask"):
            if hasattr(options.get(name), "shape"):
                options[name] = options[name][row] if name == "candidate_mask" else options[name][row, steps]
        one = Call(call.x[row, steps], call.h0[row], call.params, call.dh[row, steps], call.dh_last[row], options)
        h_b, h_last_b, dx_b, dh0_b, *dparams_b = one()
        assert_same_results((h[row, steps], h_last[row], dx[row, steps], dh0[row]), (h_b, h_last_b, dx_b, dh0_b), 1e-14)
        total = [a + b for a, b in zip(total, dparams_b, strict=True)]
    assert_same_results((h, h_last, dx, dh0, *dparams), (h, h_last, dx, dh0, *total), 1e-14)


def test_full_lengths_are_none(xp, draw_call, reset):
    call = draw_call(Variant(reset, False, False, True, "array")).to(xp)
    assert equal_bits_on_the_host(xp, call(lengths=[4, 4, 4, 4]), call())


@pytest.mark.parametrize("reverse", [False, True])
def test_no_sequence_has_any_step(xp, draw_call, reset, reverse):
    call = draw_call(Variant(reset, True, reverse, True, "array"), lengths=[0, 0, 0, 0]).to(xp)
    h, h_last, dx, dh0, *dparams = call()
    assert equal_bits([h_last, dh0], [call.h0, call.dh_last])
    for array in (h, dx, *dparams):
        assert not to_host(array).any()


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.mark.parametrize("dtype", [*INTEGERS, "list", "tuple"])
@pytest.mark.parametrize("source", ["numpy", "array_api_strict", "torch"])
def test_kinds_of_lengths(xp, rng, draw_params, source, dtype):
    """Of any integer type, and of a library other than that of `x`; the smallest types do not hold 300 steps."""
    library = pytest.importorskip(source)
    if dtype.endswith("int8") and xp.__name__ != "array_api_strict":
        T, lengths = 300, np.asarray([0, 100, 127, 44, 7])
    else:
        T, lengths = 4, np.asarray([0, 1, 3, 4, 2])
    x, params = rng.standard_normal((5, T, 1)), draw_params(np, 1, 2)
    h, h_last, _ = gru_forward(x, None, params, lengths=lengths.tolist(), ops=PLAIN_OPS)
    if dtype in ("list", "tuple"):
        given = lengths.tolist() if dtype == "list" else tuple(lengths.tolist())
    else:
        given = library.asarray(lengths.tolist(), dtype=getattr(library, dtype))
    actual_h, actual_last, _ = gru_forward(xp.asarray(x), None, GRUParams(*map(xp.asarray, params)), lengths=given)
    for b, length in enumerate(lengths):
        assert not h[b, length:].any()
        assert length == 0 or h[b, :length].all()
    np.testing.assert_allclose(to_host(actual_h), h, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(to_host(actual_last), h_last, rtol=1e-12, atol=1e-14)


def test_lengths_on_another_device(draw_call, reset):
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    call = draw_call(Variant(reset, True, False, True, "array"))
    expected = call.to(strict)()
    there = call.to(strict)
    options = {name: a.to_device(device) if hasattr(a, "shape") else a for name, a in there.options.items()}
    params = GRUParams(*(a.to_device(device) for a in there.params))
    there = Call(*(a.to_device(device) for a in there[:2]), params, *(a.to_device(device) for a in there[3:5]), options)
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


@each([variant for variant in VARIANTS if variant.reverse])
def test_reverse_is_a_flip(draw_call, assert_same_results, variant):
    call = draw_call(variant)
    options = call.options | {"reverse": False}
    if variant.update == "array":
        options["update_mask"] = flipped(options["update_mask"], call.lengths)
    x, dh = flipped(call.x, call.lengths), flipped(call.dh, call.lengths)
    h, h_last, dx, dh0, *dparams = call._replace(x=x, dh=dh, options=options)(keep_every=kept(variant))
    expected = (flipped(h, call.lengths), h_last, flipped(dx, call.lengths), dh0, *dparams)
    assert_same_results(call(keep_every=kept(variant)), expected, 1e-14)


def test_reverse_reads_what_comes_later(draw_call, reset):
    call = draw_call(Variant(reset, False, True, False, None))
    h = call()[0]
    call.x[:, :2] += 1.0
    changed = call()[0]
    assert changed[:, 2:].tolist() == h[:, 2:].tolist()
    assert np.all(changed[:, :2] != h[:, :2])


# --- masks ------------------------------------------------------------------------------------------------------


@each([variant for variant in VARIANTS if not variant.candidate and variant.update is None])
def test_masks_of_ones_are_none(xp, draw_call, variant):
    call = draw_call(variant).to(xp)
    expected = call()
    for update_mask in (1, 1.0, xp.ones((4, 4, 2), dtype=xp.float64)):
        results = call(candidate_mask=xp.ones((4, 2), dtype=xp.float64), update_mask=update_mask)
        assert equal_bits_on_the_host(xp, results, expected)


@each([variant for variant in VARIANTS if variant.update == "number"])
def test_a_number_is_a_mask_of_it(xp, draw_call, assert_same_results, variant):
    call = draw_call(variant).to(xp)
    same = xp.full((4, 4, 2), 0.7, dtype=xp.float64)
    assert_same_results(call(), call(update_mask=same), 1e-15)
    assert equal_bits(call(update_mask=np.float64(0.7)), call())


@pytest.mark.parametrize("as_number", [False, True])
def test_without_updates_the_state_stays(xp, draw_call, reset, as_number):
    call = draw_call(Variant(reset, True, False, True, "array")).to(xp)
    h, h_last, dx, _, *dparams = call(update_mask=0 if as_number else xp.zeros((4, 4, 2), dtype=xp.float64))
    for b, length in enumerate(LENGTHS):
        assert to_host(h)[b, :length].tolist() == [to_host(call.h0)[b].tolist()] * length
    assert equal_bits([h_last], [call.h0])
    for array in (dx, *dparams):
        assert not to_host(array).any()


def test_without_candidates_the_state_fades(xp, draw_call, reset):
    """No input is remembered, and none of the candidate's parameters has a gradient."""
    call = draw_call(Variant(reset, False, False, True, None)).to(xp)
    h, _, _, _, *dparams = call(candidate_mask=xp.zeros((4, 2), dtype=xp.float64))
    states = np.abs(np.concatenate([to_host(call.h0)[:, None], to_host(h)], axis=1))
    assert np.all(states[:, 1:] < states[:, :-1])
    for array, name in zip(dparams, GRUParams._fields, strict=True):
        rows = slice(None) if name == "bias_hn" else slice(4, None)
        assert not to_host(array)[rows].any()
    assert to_host(dparams[0])[:2].any()


def test_one_candidate_mask_serves_all_steps(draw_call, reset):
    """A unit whose candidate is left out fades, in each sequence its own; the others do not."""
    call = draw_call(Variant(reset, False, False, True, None))
    mask = np.asarray([[0.0, 2.0], [2.0, 0.0], [2.0, 2.0], [0.0, 0.0]])
    states = np.abs(np.concatenate([call.h0[:, None], call(candidate_mask=mask)[0]], axis=1))
    fades = np.all(states[:, 1:] < states[:, :-1], axis=1)
    assert np.all(fades[mask == 0.0])
    assert not np.all(fades[mask > 0.0])


# --- what is computed again -------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_every", [1, 3, 6, 7, 50])
@each(VARIANTS[::7])
def test_keep_every(xp, draw_call, assert_same_results, variant, keep_every):
    """Sums over steps, the parameters' gradients, may be rounded otherwise; in NumPy all else has the same bits."""
    call = draw_call(variant, sizes=(3, 7, 2, 3), lengths=[5, 7, 2]).to(xp)
    expected, results = call(), call(keep_every=keep_every)
    assert_same_results(results, expected, 1e-14)
    if "numpy" in xp.__name__:
        assert equal_bits(results[:4], expected[:4])
    if keep_every >= 7:
        assert equal_bits_on_the_host(xp, results, expected)


@pytest.mark.parametrize("ops", [PLAIN_OPS, None])
@each(VARIANTS[::11])
def test_keep_every_of_a_long_sequence(draw_call, assert_same_results, variant, ops):
    call = draw_call(variant, sizes=(2, 101, 3, 4), lengths=[101, 64])
    expected = call(ops=ops)
    for keep_every in (1, 10, 33, 100):
        results = call(ops=ops, keep_every=keep_every)
        assert equal_bits(results[:4], expected[:4])
        assert_same_results(results, expected, 1e-14)


class CountingOps(PlainOps):
    """Knows how many bytes of what it handed out are alive, and how many were at most."""

    def __init__(self):
        self.alive = self.peak = 0

    def empty(self, shape, like):
        array = super().empty(shape, like)
        weakref.finalize(array, self._gone, array.nbytes)
        self.alive += array.nbytes
        self.peak = max(self.peak, self.alive)
        return array

    def _gone(self, nbytes):
        self.alive -= nbytes


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


@pytest.mark.parametrize("keep_every", [20, None])
@each(LONG)
def test_memory_of_the_arrays(draw_call, variant, keep_every):
    call = draw_call(variant, sizes=(8, 400, 3, 16), lengths=[400, 3, 0, 399, 200, 1, 77, 350])
    ops = CountingOps()
    measured = []
    for _ in passes(call, keep_every, ops):
        measured += [ops.alive / bytes_of_steps(call), ops.peak / bytes_of_steps(call)]
        ops.peak = ops.alive
    after_forward, peak_forward, _, peak_backward = measured
    if keep_every is None:
        assert min(after_forward, peak_forward, peak_backward) > 400
    else:
        assert after_forward < 5
        assert peak_forward < 15
        assert peak_backward < 44


@each(LONG)
def test_memory_of_a_prediction(draw_call, variant):
    """Where no gradients are wanted, no states are kept, not even of every so many steps."""
    call = draw_call(variant, sizes=(8, 400, 3, 16), lengths=[400, 3, 0, 399, 200, 1, 77, 350])
    ops = CountingOps()
    options = call.options | {"keep_every": 1, "with_h": False, "with_cache": False, "ops": ops}
    gru_forward(call.x, call.h0, call.params, **options)
    assert ops.peak < 15 * bytes_of_steps(call)


@pytest.mark.parametrize("keep_every", [20, None])
@each(LONG[::3])
def test_memory_as_python_sees_it(draw_call, variant, keep_every):
    """With the fast ops, which have notes of all calls of a pass."""
    call = draw_call(variant, sizes=(64, 400, 3, 48), lengths=[30] * 64)
    ops = NumpyOps(max_kept=0)
    for _ in passes(call._replace(x=call.x[:, :40], dh=call.dh[:, :40]), keep_every, ops):
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


@pytest.mark.parametrize(("B", "T", "H", "k"), [(8, 2500, 32, 50), (64, 900, 32, 30), (700, 300, 16, 17)])
@pytest.mark.parametrize("with_lengths", [False, True])
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
    peak(2 * k, k)
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

    carry, dx, total = call.dh_last, np.empty((4, 4, 2)), [np.zeros(array.shape) for array in call.params]
    for steps, cache in reversed(caches):
        dx[:, steps], carry, dparams = gru_backward(call.dh[:, steps], cache, dh_last=carry)
        total = [a + b for a, b in zip(total, dparams, strict=True)]
    assert_same_results((h, state, dx, carry, *total), whole, 1e-14)


@pytest.mark.parametrize("ops", [None, PLAIN_OPS])
def test_step_by_step(xp, draw_call, reset, ops):
    call = draw_call(Variant(reset, False, False, False, None), sizes=(3, 6, 2, 5)).to(xp)
    h, h_last, _ = gru_forward(call.x, call.h0, call.params, reset=reset, ops=ops)
    state = call.h0
    for t in range(6):
        before = to_host(state).tolist()
        state, previous = gru_step(call.x[:, t, :], state, call.params, reset=reset, ops=ops), state
        assert to_host(previous).tolist() == before
        np.testing.assert_allclose(to_host(state), to_host(h[:, t, :]), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(to_host(state), to_host(h_last), rtol=1e-14, atol=1e-15)
    assert array_namespace(state) is array_namespace(call.x)


def test_a_step_is_refused_as_a_sequence_is(draw_call):
    call = draw_call(VARIANTS[0])
    with pytest.raises(ShapeError, match=r"x has shape \(4, 4, 2\); it must be \(B, I\)"):
        gru_step(call.x, call.h0, call.params)
    with pytest.raises(ValueError, match="reset is 'both'"):
        gru_step(call.x[:, 0], call.h0, call.params, reset="both")


# --- what is wanted ---------------------------------------------------------------------------------------------


@each(VARIANTS[::5])
def test_only_what_is_wanted(draw_call, make_numpy_ops, variant):
    call = draw_call(variant, sizes=(7, 5, 2, 4), lengths=[3, 5, 0, 1, 5, 2, 4])
    options = call.options | {"keep_every": kept(variant)}
    ops = make_numpy_ops()
    h, h_last, dx, dh0, *dparams = call(keep_every=kept(variant), ops=ops)
    for with_h, with_cache in product([False, True], repeat=2):
        actual_h, actual_last, cache = gru_forward(
            call.x, call.h0, call.params, **options, ops=ops, with_h=with_h, with_cache=with_cache
        )
        assert (actual_h is None, cache is None) == (not with_h, not with_cache)
        assert equal_bits([actual_last], [h_last])
        if with_h:
            assert equal_bits([actual_h], [h])
        if with_cache:
            for with_dx in (False, True):
                actual_dx, *others = gru_backward(call.dh, cache, dh_last=call.dh_last, with_dx=with_dx)
                assert (actual_dx is None) == (not with_dx)
                assert equal_bits([others[0], *others[1]], [dh0, *dparams])
                if with_dx:
                    assert equal_bits([actual_dx], [dx])


@each(VARIANTS)
def test_gradients_of_both_results_add_up(draw_call, assert_same_results, variant):
    call = draw_call(variant)
    h, h_last, cache = gru_forward(call.x, call.h0, call.params, **call.options, keep_every=kept(variant))
    (dx, dh0, dparams), (dx_last, dh0_last, dparams_last) = (
        gru_backward(call.dh, cache),
        gru_backward(None, cache, dh_last=call.dh_last),
    )
    sums = (dx + dx_last, dh0 + dh0_last, *(a + b for a, b in zip(dparams, dparams_last, strict=True)))
    assert_same_results((h, h_last, *sums), call(keep_every=kept(variant)), 1e-14)


@each(VARIANTS[::5])
def test_h_last_is_the_state_at_the_end(xp, draw_call, variant):
    """And a gradient of it is one of that state."""
    call = draw_call(variant).to(xp)
    h, h_last, *results = call()
    dh, dh_last = to_host(call.dh).copy(), to_host(call.dh_last).copy()
    for b, length in enumerate(call.lengths):
        if length:
            end = 0 if variant.reverse else length - 1
            assert to_host(h_last)[b].tolist() == to_host(h)[b, end].tolist()
            dh[b, end] += dh_last[b]
            dh_last[b] = 0.0
    other = call._replace(dh=xp.asarray(dh), dh_last=xp.asarray(dh_last))
    assert equal_bits_on_the_host(xp, other()[2:], results)


@each([VARIANTS[-2], VARIANTS[22]])
def test_nothing_given_is_changed(xp, draw_call, variant):
    call = draw_call(variant).to(xp)
    before = [to_host(array).tolist() for array in call.arrays()]
    lengths = xp.asarray(LENGTHS)
    call(lengths=lengths, keep_every=3)
    assert [to_host(array).tolist() for array in call.arrays()] == before
    assert to_host(lengths).tolist() == LENGTHS


@each([VARIANTS[-2], VARIANTS[22]])
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
    params = GRUParams(*map(strided, call.params))
    other = Call(*map(strided, call[:2]), params, *map(strided, call[3:5]), options)
    assert not other.options["update_mask"].flags.c_contiguous
    assert_same_results(other(lengths=strided(np.asarray(LENGTHS))), expected, 1e-14)


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([2.0, 0, 4, 1], "lengths has dtype float64 and shape (4,); it must be integers of shape (4,)"),
        (np.ones(4, np.float32), "lengths has dtype float32 and shape (4,); it must be integers of shape (4,)"),
        (np.full(4, np.nan), "lengths has dtype float64 and shape (4,); it must be integers of shape (4,)"),
        ([True] * 4, "lengths has dtype bool and shape (4,); it must be integers of shape (4,)"),
        ([1j] * 4, "lengths has dtype complex128 and shape (4,); it must be integers of shape (4,)"),
        (3, "lengths has dtype int64 and shape (); it must be integers of shape (4,)"),
        ([3], "lengths has dtype int64 and shape (1,); it must be integers of shape (4,)"),
        ([3] * 5, "lengths has dtype int64 and shape (5,); it must be integers of shape (4,)"),
        ([[2, 0, 4, 1]], "lengths has dtype int64 and shape (1, 4); it must be integers of shape (4,)"),
        ([[2], [0], [4], [1]], "lengths has dtype int64 and shape (4, 1); it must be integers of shape (4,)"),
        ([], "lengths has dtype float64 and shape (0,); it must be integers of shape (4,)"),
        ([[2, 1], 0, 4, 1], "lengths is a list; it must be integers of shape (4,)"),
        ("2041", "lengths has dtype <U4 and shape (); it must be integers of shape (4,)"),
        ([2, None, 4, 1], "lengths has dtype object and shape (4,); it must be integers of shape (4,)"),
        ({2: 0}, "lengths has dtype object and shape (); it must be integers of shape (4,)"),
        ([2, -1, 4, 1], "lengths has values from -1 to 4; each must be 0 to 4, as x has 4 steps"),
        ([2, 0, 5, 1], "lengths has values from 0 to 5; each must be 0 to 4, as x has 4 steps"),
        (
            np.asarray([2, 0, 255, 1], np.uint8),
            "lengths has values from 0 to 255; each must be 0 to 4, as x has 4 steps",
        ),
        (
            np.asarray([2, 0, -128, 1], np.int8),
            "lengths has values from -128 to 2; each must be 0 to 4, as x has 4 steps",
        ),
    ],
)
def test_wrong_lengths(draw_call, lengths, message):
    with pytest.raises(ShapeError) as error:
        draw_call(VARIANTS[0])(lengths=lengths)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "lengths", [[2.0, 0, 4, 1], [True] * 4, 3, [3] * 5, [[2], [0], [4], [1]], "2041", [2, None, 4, 1], {2: 0}, object()]
)
def test_wrong_lengths_in_every_namespace(xp, draw_call, lengths):
    call = draw_call(VARIANTS[0]).to(xp)
    with pytest.raises(ShapeError, match=r"^lengths (is a|has dtype) .*; it must be integers of shape \(4,\)$"):
        call(lengths=lengths)
    for out_of_range in ([2, -1, 4, 1], [2, 0, 5, 1]):
        with pytest.raises(
            ShapeError, match=r"^lengths has values from .* to .; each must be 0 to 4, as x has 4 steps$"
        ):
            call(lengths=out_of_range)


@pytest.mark.parametrize("keep_every", [0, -1, 2.0, 2.5, True, "3", math.nan, [2]])
def test_wrong_keep_every(draw_call, keep_every):
    with pytest.raises(ValueError, match=r"^keep_every is .*; it must be at least 1 and a whole number$") as error:
        draw_call(VARIANTS[0])(keep_every=keep_every)
    assert repr(keep_every) in str(error.value)


@pytest.mark.parametrize("update_mask", [-0.1, 1.5, math.nan, math.inf, True, np.float32(2.0)])
def test_wrong_numbers_as_masks(draw_call, update_mask):
    with pytest.raises(ValueError, match=r"^update_mask is .*; it must be from 0 to 1$"):
        draw_call(VARIANTS[0])(update_mask=update_mask)


def test_keep_every_of_numpy(draw_call):
    call = draw_call(VARIANTS[0])
    assert equal_bits(call(keep_every=np.int32(3)), call(keep_every=3))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("candidate_mask", (4, 1), "(4, 2)"),
        ("candidate_mask", (1, 2), "(4, 2)"),
        ("candidate_mask", (2,), "(4, 2)"),
        ("candidate_mask", (4, 4, 2), "(4, 2)"),
        ("candidate_mask", (), "(4, 2)"),
        ("update_mask", (4, 5, 1), "(4, 5, 2)"),
        ("update_mask", (4, 1, 2), "(4, 5, 2)"),
        ("update_mask", (5, 4, 2), "(4, 5, 2)"),
        ("update_mask", (4, 2), "(4, 5, 2)"),
        ("update_mask", (2,), "(4, 5, 2)"),
        ("update_mask", (), "(4, 5, 2)"),
    ],
)
def test_wrong_shapes_of_masks(draw_call, name, shape, expected):
    call = draw_call(VARIANTS[0], sizes=(4, 5, 2, 2))
    with pytest.raises(ShapeError) as error:
        call(**{name: np.ones(shape)})
    assert str(error.value) == f"{name} has shape {shape}; it must be {expected}"


@pytest.mark.parametrize(("name", "shape"), [("candidate_mask", (4, 2)), ("update_mask", (4, 4, 2))])
def test_wrong_kinds_of_masks(draw_call, misfit, name, shape):
    mask, message = misfit(name, np.ones(shape), str(shape))
    with pytest.raises(ShapeError) as error:
        draw_call(VARIANTS[0])(**{name: mask})
    assert str(error.value) == message


@pytest.mark.parametrize(("name", "value"), [("candidate_mask", 0.5), ("update_mask", "0.5"), ("update_mask", 1j)])
def test_masks_that_are_no_arrays(draw_call, name, value):
    with pytest.raises(ShapeError, match=rf"^{name} is a {type(value).__name__}; it must be an array of shape "):
        draw_call(VARIANTS[0])(**{name: value})


def test_gradients_that_do_not_fit(draw_call):
    """Also of a forward pass that kept the states of some steps only."""
    call = draw_call(VARIANTS[-1])
    for keep_every in (None, 3):
        _, _, cache = gru_forward(call.x, call.h0, call.params, **call.options, keep_every=keep_every)
        with pytest.raises(ShapeError, match=r"dh has shape \(4, 3, 2\); it must be \(4, 4, 2\)"):
            gru_backward(call.dh[:, :3], cache)
        with pytest.raises(ShapeError, match=r"dh_last has shape \(3, 2\); it must be \(4, 2\)"):
            gru_backward(None, cache, dh_last=call.dh_last[:3])
        with pytest.raises(ShapeError, match="dh and dh_last are both None"):
            gru_backward(None, cache)


@pytest.mark.parametrize("keep_every", [None, 3])
@each([variant for variant in VARIANTS if variant.has_lengths and variant.update != "number"])
def test_large_inputs(draw_call, variant, keep_every):
    call = draw_call(variant)
    call.x[...] *= 1e4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = call(keep_every=keep_every)
    assert all(np.all(np.isfinite(array)) for array in results)
