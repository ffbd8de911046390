"""Synthetic series: seeded, scaled, with seasons that are in them, and of all the kinds that they should be."""

import numpy as np
import pytest

from gru_xp.errors import ArgumentError
from gru_xp.pretrained.generators import FAMILIES, LENGTH, MAX_ABS, MIN_LENGTH, generate


@pytest.fixture(scope="module")
def sample():
    return generate(np.random.default_rng(20417), 1500)


def family(name, n, seed=73):
    make = next(make for make in FAMILIES if make.__name__ == f"_{name}")
    return make(np.random.default_rng(seed), n, LENGTH)


def moving_mean(values, width):
    """Means of `width` neighbours, centred; the ends, which have fewer neighbours, are left out."""
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1, dtype=float)
    return (sums[:, width:] - sums[:, :-width]) / width


def autocorrelations(values, lags, width):
    """Autocorrelations of series without a trend, which is a moving mean; outliers are clipped."""
    cut = (width - 1) // 2
    means = moving_mean(values, width)
    rest = values[:, cut : cut + means.shape[1]] - means
    rest = np.clip(rest, *np.quantile(rest, [0.02, 0.98], axis=1)[:, :, None])
    rest -= rest.mean(1, keepdims=True)
    power = (rest**2).mean(1) + 1e-12
    return np.stack([(rest[:, lag:] * rest[:, :-lag]).mean(1) / power for lag in lags], axis=1)


def with_season(sample, period):
    return sample.values[(sample.periods == period).all(1)]


# --- reproducible, finite, scaled -----------------------------------------------------------------------------------


def test_equal_seeds_give_equal_series_whatever_was_made_before():
    first = generate(np.random.default_rng(8), 60)
    other = generate(np.random.default_rng(9), 60)
    np.random.seed(5)
    again = generate(np.random.default_rng(8), 60)
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.periods, again.periods)
    assert not (first.values == other.values).all(1).any()


def test_a_generator_goes_on_with_other_series():
    rng = np.random.default_rng(31)
    first, second = generate(rng, 20), generate(rng, 20)
    assert not (first.values == second.values).all(1).any()


@pytest.mark.parametrize(("n", "length"), [(1, LENGTH), (37, MIN_LENGTH), (53, 701)])
def test_shapes(n, length):
    values, periods = generate(np.random.default_rng(n), n, length)
    assert values.shape == (n, length)
    assert values.dtype == np.float32
    assert periods.shape == (n, 2)
    assert periods.dtype == np.int64
    assert periods.max() <= length


def test_more_series_than_are_made_at_once(monkeypatch):
    monkeypatch.setattr("gru_xp.pretrained.generators.CHUNK", 30)
    values, periods = generate(np.random.default_rng(2), 71)
    assert np.isfinite(values).all()
    assert (values.std(1) > 0).all()
    assert (periods >= 1).all()


def test_series_are_finite_and_scaled(sample):
    assert np.isfinite(sample.values).all()
    assert np.abs(sample.values).max() <= MAX_ABS
    clipped = (np.abs(sample.values) == MAX_ABS).any(1)
    assert clipped.mean() < 0.03
    np.testing.assert_allclose(np.median(sample.values, axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(np.abs(sample.values[~clipped]).mean(1), 1, rtol=1e-4)


@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__.strip("_"))
@pytest.mark.parametrize("n", [1, 23])
def test_every_family_makes_any_number_of_finite_series(make, n):
    values, periods = make(np.random.default_rng(n), n, LENGTH)
    assert values.shape == (n, LENGTH)
    assert np.isfinite(values).all()
    assert periods.shape == (n, 2)


def test_wrong_arguments():
    rng = np.random.default_rng(0)
    with pytest.raises(ArgumentError, match="n is 0"):
        generate(rng, 0)
    with pytest.raises(ArgumentError, match="length is 20"):
        generate(rng, 3, 20)


# --- seasons --------------------------------------------------------------------------------------------------------


def test_periods_are_sorted_and_one_means_none(sample):
    shorter, longer = sample.periods.T
    assert (shorter >= 1).all()
    assert (shorter <= longer).all()
    assert (longer[shorter == 1] == 1).all()


@pytest.mark.parametrize("period", [4, 7, 12, 24])
def test_rows_a_season_apart_are_alike(sample, period):
    values = with_season(sample, period)
    lags = np.arange(period // 2, period + period // 2 + 1)
    correlations = autocorrelations(values, lags, 2 * period + 1)
    at_period = correlations[:, lags == period][:, 0]
    others = np.median(correlations, axis=1)
    assert (at_period > others + 0.1).mean() > 0.5
    assert np.median(at_period - others) > 0.2


def test_walks_and_noise_claim_no_season_and_have_none():
    for name in ("walks", "plain_noise"):
        values, periods = family(name, 200)
        assert (periods == 1).all()
        differences = np.diff(values, axis=1) if name == "walks" else values
        correlations = autocorrelations(differences, [4, 7, 12, 24], LENGTH // 2)
        assert np.abs(np.median(correlations, axis=0)).max() < 0.05


def test_the_second_season_of_days_is_the_week():
    values, periods = family("days", 300)
    day, week = periods.T
    assert set(np.unique(week[week != day] / day[week != day])) == {7.0}
    assert set(np.unique(day)) == {7, 24, 48, 96}
    both = values[(day == 24) & (week == 168)]
    correlations = autocorrelations(both, [24, 72, 96, 168], 24)
    assert np.mean(correlations[:, 3] > correlations[:, 1:3].mean(1)) > 0.75


# --- kinds of series ------------------------------------------------------------------------------------------------


def test_shares_of_seasons(sample):
    shorter, longer = sample.periods.T
    assert 0.22 < np.mean(shorter == 1) < 0.36
    assert 0.08 < np.mean(shorter != longer) < 0.20
    for period in (4, 7, 12, 24, 48, 52, 168):
        assert np.mean(shorter == period) > 0.005
    assert np.mean(shorter == 12) > np.mean(shorter == 52)


def test_shares_of_zeros_and_of_whole_numbers(sample):
    differences = np.diff(sample.values, axis=1)
    assert 0.03 < np.mean((differences == 0).mean(1) > 0.2) < 0.25
    distinct = np.array([len(np.unique(series)) for series in sample.values])
    assert 0.03 < np.mean(distinct < 60) < 0.25


def test_nights_without_sun_are_exactly_zero():
    values, periods = family("days", 300)
    day, week = periods.T
    zeros = (values == 0).mean(1)
    sunny = (zeros > 0.25) & (day > 7) & (values.min(1) == 0) & (np.round(values) != values).any(1)
    assert 0.05 < sunny.mean() < 0.25
    assert (week == day)[sunny].mean() > 0.9


def test_demand_is_counted_and_often_zero():
    values, _ = family("intermittent", 200)
    assert (values == np.round(values)).all()
    assert (values >= 0).all()
    assert 0.5 < np.mean(values == 0) < 0.95


def test_cycles_come_at_irregular_times():
    values, periods = family("cycles", 300)
    irregular = values[periods[:, 0] == 1]
    assert 0.5 < len(irregular) / 300 < 0.95
    # An AR(2) has a spectral peak away from frequency 0.
    power = np.abs(np.fft.rfft(irregular - irregular.mean(1, keepdims=True), axis=1)) ** 2
    assert np.mean(power.argmax(1) > 8) > 0.7


def test_yearly_series_have_trends():
    values, periods = family("yearly", 200)
    assert (periods == 1).all()
    steps = np.abs(np.diff(values, axis=1)).mean(1)
    assert np.median((values.max(1) - values.min(1)) / steps) > 30


def test_levels_break_and_noise_changes(sample):
    """The spread of differences in the two halves of a series differs by more than half in many series."""
    spread = np.stack([np.abs(np.diff(half, axis=1)).mean(1) for half in np.split(sample.values, 2, axis=1)])
    ratio = np.abs(np.log((spread[1] + 1e-6) / (spread[0] + 1e-6)))
    assert 0.2 < np.mean(ratio > np.log(1.5)) < 0.8
