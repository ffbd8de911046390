import math
import random
from itertools import pairwise

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.errors import ArgumentError
from gru_xp.nn import dropout_mask
from gru_xp.nn.dropout import DropoutRates, keep_mask

SHAPE = (200, 50, 20)
DRAWS = (dropout_mask, keep_mask)
LIKE = np.ones(1)
BOTH = pytest.mark.parametrize("draw_mask", [dropout_mask, keep_mask])


def scale(draw_mask, rate):
    """The factor of elements that are kept."""
    return 1.0 / (1.0 - rate) if draw_mask is dropout_mask else 1.0


# --- what is drawn ----------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("rate", "seed"), [(0.001, 0), (0.25, 1), (0.5, 0), (0.99, 1)])
def test_shares_and_scale(draw_mask, rate, seed):
    """Of all elements and of each row, column and step within 4 (of many: 5) standard deviations; the mean is 1."""
    mask = draw_mask(SHAPE, rate, seed=seed, like=LIKE)
    assert mask.shape == SHAPE
    assert set(mask.ravel().tolist()) == {0.0, scale(draw_mask, rate)}
    zeros = mask == 0.0
    deviation = math.sqrt(rate * (1.0 - rate))
    assert abs(zeros.mean() - rate) < 4.0 * deviation / math.sqrt(zeros.size)
    for axis in range(3):
        others = tuple({0, 1, 2} - {axis})
        number = zeros.size / SHAPE[axis]
        if number * min(rate, 1.0 - rate) > 9.0:  # as a normal distribution has it
            assert np.all(np.abs(zeros.mean(axis=others) - rate) < 5.0 * deviation / math.sqrt(number))
    if draw_mask is dropout_mask:
        assert mask.mean() == pytest.approx(1.0, abs=4.0 * deviation / (1.0 - rate) / math.sqrt(zeros.size))


@BOTH
def test_elements_are_independent(draw_mask):
    """Of their neighbours along every axis, and of those of other seeds."""
    masks = [draw_mask(SHAPE, 0.3, seed=seed, like=LIKE) == 0.0 for seed in (4, 5)]
    first, second = (mask - 0.3 for mask in masks)
    pairs = [(np.delete(first, 0, axis), np.delete(first, -1, axis)) for axis in range(3)]
    for a, b in [*pairs, (first, second)]:
        assert abs(np.mean(a * b)) < 4.0 * 0.3 * 0.7 / math.sqrt(a.size)


def test_known_masks(xp):
    """One seed gives the same mask forever, wherever."""
    like = xp.ones(1, dtype=xp.float64)
    expected = np.asarray([[1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 0]])
    assert to_host(dropout_mask((3, 4), 0.25, seed=7, like=like)).tolist() == (expected / 0.75).tolist()
    expected = [[1, 1, 1, 1], [0, 1, 1, 0], [0, 1, 1, 0]]
    assert to_host(keep_mask((3, 4), 0.4, seed=7, like=like)).tolist() == expected


def test_bits_of_the_generator(xp):
    """An element is left out if its 32 bits, as a signed number, are among the lowest share of those numbers."""
    rng = random.Random(11)
    numbers = np.asarray([rng.getrandbits(32) for _ in range(60)])
    signed = np.where(numbers >= 2**31, numbers - 2**32, numbers)
    for draw_mask in DRAWS:
        expected = np.where(signed < 0.3 * 2**32 - 2**31, 0.0, scale(draw_mask, 0.3)).reshape(3, 4, 5)
        mask = draw_mask((3, 4, 5), 0.3, seed=11, like=xp.ones(1, dtype=xp.float64))
        np.testing.assert_allclose(to_host(mask), expected, rtol=1e-15)


def test_the_first_number_that_is_kept(xp):
    class Given(random.Random):
        def __init__(self, first_kept):
            self.numbers = np.asarray([max(first_kept - 1, -(2**31)), first_kept], np.int32)

        def randbytes(self, n):
            assert self.numbers.nbytes == n
            return self.numbers.tobytes()

    for rate, first_kept in (
        (0.0, -(2**31)),
        (0.25, -(2**30)),
        (0.5, 0),
        (0.75, 2**30),
        (1 - 2.0**-32, 2**31 - 1),
        (1 - 2.0**-53, 2**31 - 1),
    ):
        for draw_mask in DRAWS:
            mask = draw_mask((2,), rate, seed=Given(first_kept), like=xp.ones(1, dtype=xp.float64))
            assert (to_host(mask) != 0.0).tolist() == [rate == 0.0, True], (rate, draw_mask)


def test_extreme_rates(xp):
    """Rates so close to 0 or to 1 that nothing, or everything, is left out."""
    for rates, kept in (((0, 0.0, 1e-12), 1.0), ((1.0 - 2.0**-31, 1.0 - 1e-10, math.nextafter(1.0, 0.0)), 0.0)):
        for rate in rates:
            for draw_mask in DRAWS:
                mask = draw_mask((4, 5), rate, seed=3, like=xp.ones(1, dtype=xp.float32))
                assert to_host(mask).tolist() == [[kept] * 5] * 4, (rate, draw_mask)


@BOTH
def test_larger_rates_leave_out_more_of_the_same(draw_mask):
    zeros = [draw_mask((40, 50), rate, seed=9, like=LIKE) == 0.0 for rate in (0.1, 0.3, 0.31, 0.9)]
    for fewer, more in pairwise(zeros):
        assert np.all(more[fewer])
        assert more.sum() > fewer.sum()


@BOTH
def test_determinism(draw_mask):
    first, same, other = (draw_mask((9, 8), 0.5, seed=seed, like=LIKE).tolist() for seed in (1, 1, 2))
    assert first == same
    assert first != other


@BOTH
def test_a_generator_goes_on(draw_mask):
    """Two masks one after the other are the two halves of one."""
    rng = random.Random(5)
    parts = [draw_mask((6, 7), 0.4, seed=rng, like=LIKE) for _ in range(2)]
    whole = draw_mask((12, 7), 0.4, seed=5, like=LIKE)
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert parts[0].tolist() != parts[1].tolist()


@BOTH
def test_global_generators_are_left_alone(draw_mask):
    states = random.getstate(), np.random.get_state()[1].tolist()
    draw_mask((3, 4), 0.5, seed=1, like=LIKE)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


# --- arrays -----------------------------------------------------------------------------------------------------


def test_namespace_dtype_and_shape(xp):
    """Whatever kind of number the rate is."""
    for dtype in (xp.float32, xp.float64):
        like = xp.ones((2, 7), dtype=dtype)
        for draw_mask in DRAWS:
            for kind in (float, np.float32, np.float64):
                for shape in [(), (5,), (2, 3), (4, 3, 2)]:
                    mask = draw_mask(shape, kind(0.25), seed=1, like=like)
                    assert tuple(mask.shape) == shape
                    assert mask.dtype == dtype
                    assert array_namespace(mask) is array_namespace(like)
                    assert to_host(mask).tolist() == to_host(draw_mask(shape, 0.25, seed=1, like=like)).tolist(), kind


@BOTH
def test_device(draw_mask):
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    mask = draw_mask((3, 4), 0.4, seed=7, like=strict.ones(1, device=device))
    assert mask.device == device
    on_cpu = mask.to_device(strict.Device("CPU_DEVICE"))
    assert to_host(on_cpu).tolist() == draw_mask((3, 4), 0.4, seed=7, like=LIKE).tolist()


def test_masks_can_be_written_to_and_are_their_own(xp):
    for draw_mask in DRAWS:
        first, second = (draw_mask((3, 4), 0.4, seed=7, like=xp.ones(1)) for _ in range(2))
        before = to_host(second).tolist()
        first[...] = 9.0
        assert to_host(second).tolist() == before


# --- what is refused --------------------------------------------------------------------------------------------


def test_wrong_rates_and_seeds(refuses):
    for draw_mask, name in ((dropout_mask, "dropout"), (keep_mask, "zoneout")):
        for rate in (1.0, -0.1, math.nan, True, "0.5", None):  # the rest is in test_checks.py
            with refuses(name, repr(rate), "at least 0", "below 1", error=ValueError):
                draw_mask((2, 3), rate, seed=0, like=LIKE)
        for seed in (-1, 1.0, True, "1", None):
            with refuses("seed", repr(seed), "whole number", "at least 0", error=ValueError):
                draw_mask((2, 3), 0.5, seed=seed, like=LIKE)


def test_wrong_kinds_of_like():
    for like, kind in (([1.0], "list"), (np.array("a"), "dtype <U1"), (np.ones(2, int), "dtype int64")):
        with pytest.raises(ArgumentError, match=f"^like (is a|has) {kind}; it must be "):
            dropout_mask((2, 3), 0.5, seed=0, like=like)


def test_rates_of_a_stack(refuses):
    for rates in (DropoutRates(), DropoutRates(0.5, 0.2, 0.1), DropoutRates(0, 0.999, 0.0)):
        rates.check()
    for position, name in enumerate(("dropout", "recurrent_dropout", "zoneout")):
        for rate in (1.0, -0.5, math.nan, "half"):
            rates = DropoutRates(*(rate if place == position else 0.5 for place in range(3)))
            with refuses(name, repr(rate), "at least 0", "below 1", error=ValueError):
                rates.check()


def test_no_rate_is_set_at_first():
    assert tuple(DropoutRates()) == (0.0, 0.0, 0.0)
