"""What a forecaster settles by itself: how far to look back, how long to learn, and whether learning was any good."""

from collections.abc import Sequence

import numpy as np

from gru_xp.forecasting.baselines import Baseline, baselines
from gru_xp.forecasting.choosing import (
    LookBack,
    choose_look_back,
    choose_penalty,
    held_out_from,
    judged_origins,
    spaced,
)
from gru_xp.forecasting.scaling import Scaler
from gru_xp.forecasting.season import find_seasons
from gru_xp.forecasting.windows import Floats, WindowSequences
from gru_xp.io.series import TimeSeries
from gru_xp.io.table import Rows

MIN_LEARNED = 20
"""Training windows that make sense. With 6 to 20 rows of walks, noise, trends and seasons, the GRU's mean error was up
to 3.9 times that of the best forecast without training, and the ridge's up to 1.5; with 30 rows, 1.5 and 1.3."""

MIN_GUARDED = 100
"""Windows in the rows that are held out, of which fewer say too little about a forecast."""

MIN_GAIN = 0.01
"""By which share the error of a model must be below that of the best forecast that needs no training."""

MAX_SPREAD_ORIGINS = 5_000
"""Origins from which errors of a forecast without training are computed, evenly spaced, of more."""


def step_budget(windows: int, batch_size: int) -> int:
    """Updates to learn from so many windows: four passes, but at least 150 and at most 400."""
    return min(max(4 * windows // batch_size, 150), 400)


def known_origins(series: TimeSeries, rows: int, horizon: int) -> Rows:
    """The first rows of `horizon` ones whose targets are there, within the first `rows` of a series."""
    origins = np.arange(1, rows - horizon + 1, dtype=np.int64)
    if series.observed is None:
        return origins
    there = np.lib.stride_tricks.sliding_window_view(series.observed[:rows, 0], horizon)
    known: Rows = origins[np.all(there[origins], axis=1)]
    return known


def settle_look_back(
    series: TimeSeries,
    rows: int,
    scaler: Scaler,
    seq_length: int | str,
    season: int | str,
    horizon: int,
    linear_skip: bool = True,
) -> tuple[LookBack, tuple[int, ...]]:
    """Window length, season and penalty, and all seasons there are, by the first `rows` of a series alone."""
    values = series.values[:rows]
    if season == "auto":
        seasons = find_seasons(values[:, 0], series.reading.freq)
    else:
        seasons = () if isinstance(season, str) else (season,)
    settled = None
    if isinstance(seq_length, int) and len(seasons) < 2:
        settled = LookBack(seq_length, next((m for m in seasons if m <= seq_length), 1))
        if not linear_skip:
            return settled, seasons

    def windows(length: int, origins: Rows) -> WindowSequences:
        return WindowSequences(values, origins - length, length, horizon, scaler, mean_unit=1.0)

    origins = known_origins(series, rows, horizon)
    if settled is not None:
        return choose_penalty(windows, origins, horizon, settled), seasons
    given = seq_length if isinstance(seq_length, int) else None
    return choose_look_back(windows, origins, rows, horizon, seasons, given), seasons


def guarded_origins(series: TimeSeries, rows: int, horizon: int, seq_length: int) -> tuple[int, Rows]:
    """How many of the first `rows` to learn from for the guard, and the origins to forecast from, if enough."""
    first = held_out_from(rows)
    origins = known_origins(series, rows, horizon)
    origins = origins[origins >= max(first, seq_length)]
    return first, judged_origins(origins) if len(origins) >= MIN_GUARDED else origins[:0]


def naive_instead(
    series: TimeSeries,
    learned: int,
    origins: Rows,
    forecasts: Floats,
    seasons: tuple[int, ...],
    quantiles: tuple[float, ...] = (0.5,),
) -> str | None:
    """The name of the best forecast without training; None if `forecasts (n, Q, horizon)` are better.

    An error counts by how much the quantile is missed: its size for 0.5.
    """
    target, horizon, levels = series.values[:, 0], forecasts.shape[2], np.array(quantiles)[:, None]
    actual = target[origins[:, None] + np.arange(horizon)][:, None]

    def error_of(forecasts: Floats) -> float:
        below = actual - forecasts
        return float(2 * np.maximum(levels * below, (levels - 1) * below).mean())

    errors = {
        name: error_of(
            baseline(target, origins, horizon)[:, None]
            + naive_spread(baseline, series, learned, horizon, quantiles, seasons)
        )
        for name, baseline in baselines(target[:learned], seasons).items()
    }
    best = min(errors, key=errors.__getitem__)
    with np.errstate(over="ignore", invalid="ignore"):
        error = error_of(forecasts)
    return None if error <= (1 - MIN_GAIN) * errors[best] else best


def naive_spread(
    baseline: Baseline,
    series: TimeSeries,
    rows: int,
    horizon: int,
    quantiles: tuple[float, ...],
    seasons: Sequence[int] = (),
) -> Floats:
    """What to add to a forecast without training for its quantiles: those of its errors, less their median.

    Parameters
    ----------
    baseline
        The forecast.
    series, rows
        The training rows are the first ones of the series.
    horizon
        Rows of a forecast.
    quantiles
        Q levels, rising.
    seasons
        In rows; errors after less than the longest one count only if there are no others.

    Returns
    -------
    array, shape ``(Q, horizon)``
        By step ahead; 0 for the median, and where there is no error to know it from.
    """
    if quantiles == (0.5,):
        return np.zeros((1, horizon))
    known, target = known_origins(series, rows, horizon), series.values[:, 0]
    after = known[known >= max(seasons, default=1)]
    origins = after if len(after) else known
    if not len(origins):
        return np.zeros((len(quantiles), horizon))
    origins = spaced(origins, MAX_SPREAD_ORIGINS)
    errors = target[origins[:, None] + np.arange(horizon)] - baseline(target, origins, horizon)
    spread: Floats = np.quantile(errors, (*quantiles, 0.5), axis=0)
    spread -= spread[-1].copy()
    return spread[:-1]
