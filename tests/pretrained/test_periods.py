import numpy as np
import pytest

from gru_xp.pretrained.periods import find_periods


def whole(rows):
    rows = np.atleast_2d(rows)
    return find_periods(rows, np.full(len(rows), rows.shape[1]))


def autoregress(steps, *coefficients):
    rows = steps.copy()
    for t in range(len(coefficients), rows.shape[1]):
        rows[:, t] += sum(c * rows[:, t - 1 - lag] for lag, c in enumerate(coefficients))
    return rows


def seasonal(rng, period, length, noise, B=60):
    """Random profiles, a quarter of them smooth, with random trends and noise."""
    time = np.arange(length)
    profile = rng.standard_normal((B, period))
    profile[::4] = np.sin(2 * np.pi * (np.arange(period) / period + rng.random((len(profile[::4]), 1))))
    profile -= profile.mean(axis=1, keepdims=True)
    profile /= profile.std(axis=1, keepdims=True)
    trend = rng.normal(0, 3, (B, 1)) * time / length
    return profile[:, time % period] + trend + noise * rng.standard_normal((B, length))


NO_SEASON = {
    "noise": lambda e: e,
    "walk": lambda e: e.cumsum(axis=1),
    "walk with drift": lambda e: (e + 0.3).cumsum(axis=1),
    "walk and noise": lambda e: (0.2 * e).cumsum(axis=1) + e[::-1],
    "slopes": lambda e: (0.2 * e.cumsum(axis=1) + e[::-1]).cumsum(axis=1),
    "AR(1)": lambda e: autoregress(e, 0.8),
    "AR(2)": lambda e: autoregress(e, 0.5, 0.3),
}


@pytest.mark.parametrize("kind", NO_SEASON)
@pytest.mark.parametrize("length", [40, 150, 512])
def test_series_without_a_season(rng, kind, length):
    found = whole(NO_SEASON[kind](rng.standard_normal((300, length))))
    assert np.mean(found[:, 1] > 1) < 0.05


@pytest.mark.parametrize("period", [4, 7, 12, 24, 52])
def test_season_with_trend(rng, period):
    for cycles, noise, share in ((6, 0.3, 0.8), (9, 0.5, 0.9)):
        found = whole(seasonal(rng, period, cycles * period, noise))
        assert np.mean((found == period).all(axis=1)) >= share, cycles


@pytest.mark.parametrize("period", [12, 24, 52])
def test_season_of_two_and_a_half_cycles(rng, period):
    found = whole(seasonal(rng, period, 5 * period // 2, 0.1))
    assert np.mean((found == period).all(axis=1)) > 0.6
    assert (whole(seasonal(rng, period, 5 * period // 2 - 1, 0.1)) != period).all()


def test_season_of_a_walk(rng):
    rows = 2 * seasonal(rng, 12, 120, 0) + rng.standard_normal((60, 120)).cumsum(axis=1)
    assert np.mean((whole(rows) == 12).all(axis=1)) > 0.9


@pytest.mark.parametrize(("day", "week", "length"), [(24, 168, 504), (48, 336, 1008)])
def test_day_and_week(rng, day, week, length):
    hours = np.arange(length) + rng.integers(week, size=(60, 1))
    rows = np.sin(2 * np.pi * hours / day) + (hours // day % 7 > 4) + 0.2 * rng.standard_normal(hours.shape)
    assert np.mean((whole(rows) == [day, week]).all(axis=1)) > 0.8
    rows = np.sin(2 * np.pi * hours / day) + 0.2 * rng.standard_normal(hours.shape)
    assert np.mean((whole(rows) == day).all(axis=1)) > 0.9


def test_only_the_last_values_matter(rng):
    rows = seasonal(rng, 7, 200, 0.5)
    counts = rng.integers(0, 201, 60)
    hidden = np.arange(200) < (200 - counts)[:, None]
    expected = find_periods(np.where(hidden, 0, rows), counts)
    assert (expected == 7).sum() > 60
    np.testing.assert_array_equal(
        find_periods(np.where(hidden, 1e6 * rng.standard_normal((60, 200)), rows), counts), expected
    )


def test_a_batch_is_the_same_as_single_series(rng):
    rows = np.concatenate([seasonal(rng, period, 240, 0.7, 20) for period in (4, 12, 24)])
    counts = rng.integers(20, 241, 60)
    single = [find_periods(rows[i : i + 1], counts[i : i + 1])[0] for i in range(60)]
    np.testing.assert_array_equal(find_periods(rows, counts), single)


def test_scale_and_level_do_not_matter(rng):
    rows = seasonal(rng, 12, 100, 0.7)
    for other in (1e-9 * rows, 1e9 * rows, 1e5 + rows, (rows * 1e3).astype(np.float32)):
        np.testing.assert_array_equal(whole(other), whole(rows))


def test_one_outlier_does_not_hide_a_season(rng):
    rows = seasonal(rng, 12, 120, 0.3)
    rows[np.arange(60), rng.integers(0, 120, 60)] += 50
    assert np.mean((whole(rows) == 12).all(axis=1)) > 0.9


@pytest.mark.parametrize("length", [1, 2, 9, 10, 60])
def test_rows_without_differences(length):
    rows = np.stack([np.zeros(length), np.full(length, 7.3), np.arange(length) / 3.0])
    np.testing.assert_array_equal(whole(rows), 1)


def test_no_values():
    np.testing.assert_array_equal(find_periods(np.ones((3, 32)), np.zeros(3, dtype=np.int64)), 1)
    assert find_periods(np.ones((0, 32)), np.zeros(0, dtype=np.int64)).shape == (0, 2)


def test_exact_repetition():
    np.testing.assert_array_equal(whole(np.tile([5.0, 6.0, 5.0, 7.0, 9.0, 12.0, 11.0], 8)), [[7, 7]])
