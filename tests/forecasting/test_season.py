from pathlib import Path

import numpy as np
import pytest

from gru_xp.forecasting.season import calendar_seasons, find_seasons, guess_season, has_season

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


def test_seasons_by_the_spacing_of_the_dates():
    seasons = {
        "MS": (12,),
        "BME": (12,),
        "QE-DEC": (4,),
        "2MS": (6,),
        "W-SUN": (52,),
        "D": (7,),
        "B": (5,),
        "YS-JAN": (),
    }
    seasons |= {
        "h": (24, 168),
        "30min": (48, 336),
        "15min": (96, 672),
        "2h": (12, 84),
        "2W": (26,),
        "2D": (),
        "7h": (24,),
    }
    assert {freq: calendar_seasons(freq) for freq in seasons} == seasons


def test_a_season_that_dates_suggest_is_in_the_values(rng):
    hours = np.arange(24 * 7 * 5)
    day, week = 3 * np.sin(2 * np.pi * hours / 24), 2.0 * (hours // 24 % 7 > 4)
    noise = rng.standard_normal(hours.size)
    assert find_seasons(day + week + noise, "h") == (24, 168)
    assert find_seasons(day + noise, "h")[0] == 24
    assert find_seasons(noise.cumsum(), "h") == ()
    months = np.arange(40)
    trend = 0.1 * months + np.sin(2 * np.pi * months / 12 + 1) + 0.2 * rng.standard_normal(40)
    assert find_seasons(trend, "MS") == (12,)
    assert find_seasons(trend[:35], "MS") == ()  # not three of them
    assert find_seasons(np.resize([9.0, 2, 2, 1, 4, 0, 3], 120), "MS") == (7,)  # by the values


@pytest.mark.parametrize("season", [4, 7, 52])
def test_noise_and_random_walks_have_no_season_that_dates_suggest(season, rng):
    found = 0
    for N in (3 * season, 6 * season, 40 * season) * 20:
        noise = rng.standard_normal(N)
        found += has_season(noise, season) + has_season(noise.cumsum(), season)
    assert found <= 12  # of 120, at a probability of five percent
