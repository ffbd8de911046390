"""What holds for every input; the inputs are drawn by hypothesis, the same ones in every run."""

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest

from gru_xp.nn import GRUParams, gru_backward, gru_forward, gru_stack_backward, gru_stack_forward
from gru_xp.nn.params import map_arrays, named_arrays

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")
extra = pytest.importorskip("hypothesis.extra.numpy")

RESETS = ["before", "after"]


def examples(number):
    """How many; the rest is the same for all tests."""
    return hypothesis.settings(max_examples=number, derandomize=True, deadline=None, database=None)


class Call(NamedTuple):
    """Arguments of a GRU layer, or of a stack of layers, and of its backward pass; all of NumPy."""

    x: Any
    h0: Any  # (B, H), or (L * D, B, H)
    params: Any
    dh: Any
    dh_last: Any
    options: dict[str, Any]

    def __call__(self) -> tuple[Any, ...]:
        """h, h_last, dx, dh0, dparams."""
        forward, backward = (
            (gru_forward, gru_backward)
            if isinstance(self.params, GRUParams)
            else (gru_stack_forward, gru_stack_backward)
        )
        h, h_last, cache = forward(self.x, self.h0, self.params, **self.options)
        return h, h_last, *backward(self.dh, cache, dh_last=self.dh_last)

    def rows(self, rows: Any) -> "Call":
        """Of some of the sequences, in that order."""
        states = (..., rows, slice(None))
        options = {name: value[rows] if hasattr(value, "shape") else value for name, value in self.options.items()}
        return Call(self.x[rows], self.h0[states], self.params, self.dh[rows], self.dh_last[states], options)

    def astype(self, dtype: str) -> "Call":
        """The same in another dtype."""

        def convert(value):
            return value.astype(dtype) if getattr(value, "dtype", None) in ("float32", "float64") else value

        *arrays, options = self
        options = {name: convert(value) for name, value in options.items()}
        return Call(*map_arrays(convert, tuple(arrays)), options)


def make_params(rng, n_in, H, scale, reset):
    """No number is zero."""
    shapes = ((3 * H, n_in), (3 * H, H), (3 * H,), (H,))
    params = GRUParams(*(scale * rng.standard_normal(shape) for shape in shapes))
    return params if reset == "after" else params._replace(bias_hn=None)


def make_call(rng, sizes, options, *, scale=0.7, layers=None):
    """Random numbers of given sizes; `layers` is L and D, or None for a layer by itself."""
    (B, T, n_in, H), (L, D), reset = sizes, layers or (1, 1), options["reset"]
    if layers is None:
        params, states = make_params(rng, n_in, H, scale, reset), (B, H)
    else:
        params = tuple(
            tuple(make_params(rng, D * H if layer else n_in, H, scale, reset) for _ in range(D)) for layer in range(L)
        )
        states = (L * D, B, H)
    x, h0, dh, dh_last = (rng.standard_normal(shape) for shape in ((B, T, n_in), states, (B, T, D * H), states))
    return Call(x, h0, params, dh, dh_last, options)


@st.composite
def calls(draw, smallest_batch=1, with_lengths=None):
    """A layer in any of its variants."""
    sizes = B, T, _, H = draw(
        st.tuples(st.integers(smallest_batch, 6), st.integers(1, 8), st.integers(1, 3), st.integers(1, 5))
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    options = {
        "reset": draw(st.sampled_from(RESETS)),
        "reverse": draw(st.booleans()),
        "keep_every": draw(st.none() | st.integers(1, 10)),
    }
    if draw(st.booleans()) if with_lengths is None else with_lengths:
        options["lengths"] = np.asarray(draw(st.lists(st.integers(0, T), min_size=B, max_size=B)))
    if draw(st.booleans()):
        options["candidate_mask"] = rng.choice([0.0, 1.5], (B, H))
    update = draw(st.sampled_from(["none", "number", "array"]))
    if update != "none":
        options["update_mask"] = 0.8 if update == "number" else rng.choice([0.0, 1.0], (B, T, H))
    return make_call(rng, sizes, options)


@st.composite
def stacks(draw, smallest_batch=1, with_lengths=None):
    """Stacked layers; nothing is left out at random, as that depends on where a sequence stands."""
    sizes = B, T, _, _ = draw(
        st.tuples(st.integers(smallest_batch, 5), st.integers(1, 6), st.integers(1, 3), st.integers(1, 4))
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    options = {
        "reset": draw(st.sampled_from(RESETS)),
        "zoneout": draw(st.sampled_from([0.0, 0.3])),
        "keep_every": draw(st.none() | st.integers(1, 7)),
    }
    if draw(st.booleans()) if with_lengths is None else with_lengths:
        options["lengths"] = np.asarray(draw(st.lists(st.integers(0, T), min_size=B, max_size=B)))
    return make_call(rng, sizes, options, layers=draw(st.tuples(st.integers(1, 3), st.integers(1, 2))))


def assert_close(actual, desired, tolerance=1e-13):
    """Every array to a part of its largest element, or of 1 where that is smaller."""
    desired = dict(named_arrays(desired))
    for name, array in named_arrays(actual):
        atol = tolerance * max(1.0, np.abs(desired[name]).max())
        np.testing.assert_allclose(array, desired[name], rtol=0, atol=atol, err_msg=name)
    assert len(desired) == len(dict(named_arrays(actual)))


# --- batches ----------------------------------------------------------------------------------------------------


def check_permutation(call, seed):
    """The parameters' gradients are sums over the batch, and stay."""
    order = np.random.default_rng(seed).permutation(call.x.shape[0])
    h, h_last, dx, dh0, dparams = call()
    expected = h[order], h_last[..., order, :], dx[order], dh0[..., order, :], dparams
    assert_close(call.rows(order)(), expected)


def check_split(call, cut):
    """Two parts of a batch have the results of the whole one."""
    cut = 1 + cut % (call.x.shape[0] - 1)
    first, second = call.rows(slice(None, cut))(), call.rows(slice(cut, None))()
    axes = (0, -2, 0, -2)
    joined = [np.concatenate(pair, axis) for *pair, axis in zip(first[:4], second[:4], axes, strict=True)]
    gradients = (tuple(array for _, array in named_arrays(results[4])) for results in (first, second))
    sums = tuple(a + b for a, b in zip(*gradients, strict=True))
    *states, dparams = call()
    assert_close((*states, tuple(array for _, array in named_arrays(dparams))), (*joined, sums))


# --- padding ----------------------------------------------------------------------------------------------------

ANYTHING = st.sampled_from([0.0, 1.0, -1e30, 1e300, math.inf, -math.inf, math.nan])


def check_padding(call, n_more, numbers):
    """Longer sequences of the same lengths, with any numbers at their ends."""
    B, T, _ = call.x.shape
    lengths = call.options.get("lengths", np.full(B, T))

    def pad(array, number):
        more = np.full((B, n_more, array.shape[2]), number)
        return np.concatenate([array, more], axis=1)

    options = call.options | {"lengths": lengths}
    mask = options.get("update_mask")
    if hasattr(mask, "shape"):
        options["update_mask"] = pad(mask, 0.5)
    x, dh = (pad(array, number) for array, number in zip((call.x, call.dh), numbers, strict=True))
    h, h_last, dx, dh0, dparams = call._replace(x=x, dh=dh, options=options)()
    assert not h[:, T:].any()
    assert not dx[:, T:].any()
    assert_close((h[:, :T], h_last, dx[:, :T], dh0, dparams), call())


def check_numbers_past_the_length(call, x_number, dh_number):
    """Numbers past the end of a sequence change no bit of the results."""
    expected = call()
    x, dh = call.x.copy(), call.dh.copy()
    for b, length in enumerate(call.options["lengths"]):
        x[b, length:], dh[b, length:] = x_number, dh_number
    results = call._replace(x=x, dh=dh)()
    for (name, array), (_, desired) in zip(named_arrays(results), named_arrays(expected), strict=True):
        np.testing.assert_array_equal(array, desired, err_msg=name)
        assert np.all(np.isfinite(array))


# --- rounding ---------------------------------------------------------------------------------------------------

LONGEST = 2_000


def check_float32(seed, reset, reverse, T, masked):
    """2e-6 of an array's largest element, from the same numbers, with weights as they are at the start of training.

    That holds for sums over many steps, too, unless hardly anything is left of them: so there are some units.
    """
    rng = np.random.default_rng(seed)
    B, n_in, H = 4, 2, 12
    options = {"reset": reset, "reverse": reverse}
    if masked:
        options["lengths"] = np.asarray([T, 0, 1, T // 2])
        options["candidate_mask"] = rng.choice([0.0, 1.25], (B, H))
        options["update_mask"] = rng.choice([0.0, 1.0], (B, T, H), p=[0.2, 0.8])
        options["keep_every"] = 45
    single = make_call(rng, (B, T, n_in, H), options, scale=0.5 / math.sqrt(H)).astype("float32")
    double = single.astype("float64")()
    for (name, array), (_, desired) in zip(named_arrays(single()), named_arrays(double), strict=True):
        assert (array.dtype, desired.dtype) == ("float32", "float64"), name
        assert np.abs(array - desired).max() <= 2e-6 * np.abs(desired).max(), name


MODES = [("before", False, False), ("before", True, True), ("after", True, False), ("after", False, True)]


def test_float32_stays_close_to_float64():
    for seed, (reset, reverse, masked) in enumerate(MODES):
        check_float32(seed, reset, reverse, LONGEST // 8, masked)


@pytest.mark.slow
def test_float32_stays_close_to_float64_over_many_steps(share):
    for seed, (reset, reverse, masked) in enumerate(MODES):
        check_float32(seed, reset, reverse, LONGEST, masked)
    drawn = hypothesis.given(
        st.integers(0, 2**32), st.sampled_from(RESETS), st.booleans(), st.integers(1, LONGEST), st.booleans()
    )
    examples(round(60 * share))(drawn(check_float32))()


# --- large inputs -----------------------------------------------------------------------------------------------


def check_large_inputs(data, dtype):
    """No overflow, no NaN, and states that stay between -1 and 1, or where they began."""
    call = data.draw(calls())
    bits = 32 if dtype == "float32" else 64
    call = call._replace(x=data.draw(extra.arrays(dtype, call.x.shape, elements=st.floats(-1e4, 1e4, width=bits))))
    call = call.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = call()
    for name, array in named_arrays(results):
        assert array.dtype == dtype
        assert np.all(np.isfinite(array)), name
    mask = call.options.get("candidate_mask")
    largest = 1.0 if mask is None else 1.5
    bound = np.maximum(np.abs(call.h0), largest)[:, None, :] * (1.0 + 1e-5)
    assert np.all(np.abs(results[0]) <= bound)


def check_large_inputs_of_a_stack(data):
    call = data.draw(stacks())
    call = call._replace(x=data.draw(extra.arrays("float64", call.x.shape, elements=st.floats(-1e4, 1e4))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = call()
    assert all(np.all(np.isfinite(array)) for _, array in named_arrays(results))


# --- all of them ------------------------------------------------------------------------------------------------

SEED = st.integers(0, 100)

PROPERTIES = {
    "permuted batch": (21, check_permutation, calls(smallest_batch=2), SEED),
    "permuted batch, stack": (9, check_permutation, stacks(smallest_batch=2), SEED),
    "split batch": (18, check_split, calls(smallest_batch=2), SEED),
    "split batch, stack": (8, check_split, stacks(smallest_batch=2), SEED),
    "padding": (18, check_padding, calls(), st.integers(1, 5), st.tuples(ANYTHING, ANYTHING)),
    "padding, stack": (8, check_padding, stacks(), st.integers(1, 5), st.tuples(ANYTHING, ANYTHING)),
    "past the length": (18, check_numbers_past_the_length, calls(with_lengths=True), ANYTHING, ANYTHING),
    "large inputs": (18, check_large_inputs, st.data(), st.sampled_from(["float32", "float64"])),
    "large inputs, stack": (8, check_large_inputs_of_a_stack, st.data()),
}
"""How many examples are quick, what is checked, and what is drawn for it."""


@pytest.mark.parametrize("name", PROPERTIES)
def test_property(name):
    number, check, *drawn = PROPERTIES[name]
    examples(number)(hypothesis.given(*drawn)(check))()


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPERTIES)
def test_property_of_many_more(share, name):
    number, check, *drawn = PROPERTIES[name]
    examples(round(65 * number * share))(hypothesis.given(*drawn)(check))()
