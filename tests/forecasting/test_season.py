from pathlib import Path

import numpy as np
import pytest

from gru_xp.forecasting.season import guess_season

pytestmark = pytest.mark.compat

DATA = Path(__file__).resolve().parents[2] / "data"


def read_column(file: str, column: int) -> np.ndarray:
    return np.loadtxt(DATA / file, delimiter=",", skiprows=1, usecols=column)


def test_season_of_a_sine(rng):
    for season in (7, 12, 24, 52):
        rows = np.arange(6 * season)
        sine = np.sin(2 * np.pi * rows / season + 1)
        for values in (sine, 1e300 * sine, 5 + 0.1 * rows + sine + 0.1 * rng.standard_normal(rows.size)):
            assert guess_season(values) == season, season


def test_season_with_trend_and_noise(rng):
    for pattern in ([0, 1], [0, 1, 2, 3, 4, 5, 6], [9, 2, 2, 1, 4, 0, 0], [0] * 11 + [5]):
        rows = np.arange(40 * len(pattern))
        values = np.resize(pattern, rows.size) + 0.05 * rows + 0.3 * rng.standard_normal(rows.size)
        assert guess_season(values) == len(pattern), pattern


def test_season_of_a_series_that_drifts(rng):
    drift = rng.standard_normal(700).cumsum()
    assert guess_season(drift + np.resize([9, 2, 2, 1, 4, 0, 0], 700)) == 7


def test_the_shortest_of_several_seasons(rng):
    hours = np.arange(24 * 7 * 8)
    values = 5 * np.sin(2 * np.pi * hours / 24) + (hours // 24 % 7 > 4) + 0.5 * rng.standard_normal(hours.size)
    assert guess_season(values) == 24


def test_long_and_noisy_seasons(rng):
    days = np.arange(3650)
    values = 10 + 8 * np.sin(2 * np.pi * days / 365) + 3 * rng.standard_normal(days.size)
    assert guess_season(values) == pytest.approx(365, abs=5)


def test_sunspots():
    assert guess_season(read_column("sunspots.csv", 1)) in (10, 11)


def test_series_without_a_season(rng):
    for name in ("GOOG", "AAPL", "IBM"):
        assert guess_season(read_column(f"{name}.csv", 4)) is None, name
    for values in ([], [1.0], [1.0, 2.0], np.zeros(50), np.full(50, 0.1), np.arange(50.0), np.arange(50.0) ** 2):
        assert guess_season(np.array(values)) is None, values


def test_noise_and_random_walks_have_no_season(rng):
    found = 0
    for N in (40, 100, 365, 1000) * 10:
        noise = rng.standard_normal(N)
        found += sum(guess_season(values) is not None for values in (noise, noise.cumsum()))
    assert found <= 3  # of 80, at a probability of one percent
