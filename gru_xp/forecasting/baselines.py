"""Forecasts that need no training, which any model must be held against.

Source: Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., section 5.2.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from gru_xp.forecasting.windows import Floats
from gru_xp.io.table import Rows

Baseline = Callable[[Floats, Rows, int], Floats]
"""``baseline(values, origins, horizon)``: forecasts ``(B, horizon)`` of the rows from each of ``origins (B,)`` on, from
the rows of ``values (N,)`` before it, of which there must be one."""

NAMES = ("last value", "mean", "drift", "seasonal naive")
"""Where there are several seasons, the rows of each follow the last one."""


def needs_no_training(name: str) -> bool:
    """Whether a forecast of this name is one of `baselines`."""
    return name.partition(" (")[0] in NAMES


def baselines(train: Floats, seasons: Sequence[int] = ()) -> dict[str, Baseline]:
    """All of them, by name.

    Parameters
    ----------
    train : array, shape ``(N,)``
        The target's training rows, for their mean.
    seasons
        Rows of each season; one is left out where the training rows do not cover it.
    """
    return baselines_by_mean(float(np.mean(train)), [season for season in seasons if season <= len(train)], seasons)


def baselines_by_mean(mean: float, covered: Sequence[int], seasons: Sequence[int]) -> dict[str, Baseline]:
    """The same from the mean of the training rows, and those of the seasons that they cover."""
    named: dict[str, Baseline] = {"last value": last_value, "mean": partial(constant, mean), "drift": drift}
    for season in sorted({season for season in covered if season > 1}):
        named[seasonal_name(season, seasons)] = partial(seasonal_naive, season)
    return named


def baseline_names(seasons: Sequence[int]) -> list[str]:
    """The names of all of them, of training rows that cover every season."""
    return list(baselines_by_mean(0.0, seasons, seasons))


def panel_baselines(offsets: Rows, means: Floats, seasons: Sequence[int]) -> dict[str, Baseline]:
    """All of them of several series, one below the other: each forecast is from the rows of its own series.

    Parameters
    ----------
    offsets : array, shape ``(S + 1,)``
        The first row of each series, and the number of all rows.
    means : array, shape ``(S,)``
        Of the training rows.
    seasons
        Rows of each season.
    """

    def numbers(origins: Rows) -> Rows:
        return np.searchsorted(offsets[1:], origins - 1, side="right")

    def mean(values: Floats, origins: Rows, horizon: int) -> Floats:
        return np.repeat(means[numbers(origins)][:, None], horizon, axis=1)

    def of_series(baseline: Callable[..., Floats], values: Floats, origins: Rows, horizon: int) -> Floats:
        return baseline(values, origins, horizon, offsets[numbers(origins)])

    named: dict[str, Baseline] = {"last value": last_value, "mean": mean, "drift": partial(of_series, drift)}
    for season in seasons:
        named[seasonal_name(season, seasons)] = partial(of_series, partial(seasonal_naive, season))
    return named


def seasonal_name(season: int, seasons: Sequence[int]) -> str:
    """The name of the seasonal naive forecast of one of the seasons, which says its rows if there are others."""
    return "seasonal naive" if list(seasons) == [season] else f"seasonal naive ({season})"


def naive_forecast(windows: Floats) -> Floats:
    """Tomorrow is today: the target's last value in each window ``(B, T, F)``, shape ``(B,)``."""
    return windows[:, -1, 0]


def last_value(values: Floats, origins: Rows, horizon: int) -> Floats:
    """The value before the origin."""
    return np.repeat(values[origins - 1][:, None], horizon, axis=1)


def constant(value: float, values: Floats, origins: Rows, horizon: int) -> Floats:
    """The same value always."""
    return np.full((len(origins), horizon), value)


def drift(values: Floats, origins: Rows, horizon: int, firsts: Rows | int = 0) -> Floats:
    """The straight line through the first value and the one before the origin; the latter where they are the same."""
    last = values[origins - 1]
    slope = (last - values[firsts]) / np.maximum(origins - firsts - 1, 1)
    line: Floats = last[:, None] + slope[:, None] * np.arange(1, horizon + 1)
    return line


def seasonal_naive(season: int, values: Floats, origins: Rows, horizon: int, firsts: Rows | int = 0) -> Floats:
    """The last season before the origin, again and again; the last value for a row that it does not cover."""
    rows = origins[:, None] - season + np.arange(horizon) % season
    return values[np.where(rows < np.reshape(firsts, (-1, 1)), origins[:, None] - 1, rows)]
