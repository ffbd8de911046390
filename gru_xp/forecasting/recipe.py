"""What a forecaster settles by itself: how far to look back, and how long to learn."""

from collections.abc import Sequence

import numpy as np

from gru_xp.errors import DataError
from gru_xp.forecasting.baselines import Baseline
from gru_xp.forecasting.choosing import (
    LookBack,
    choose_look_back,
    choose_penalty,
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
    """Window length, season and penalty, and all seasons there are, by the first `rows` of a series alone.

    Raises
    ------
    DataError
        There is no row one season after another.
    """
    values = series.values[:rows]
    if isinstance(season, int) and season >= rows:
        raise DataError(
            f"a season of {season} rows is too long for {rows} training rows, which do not repeat then; give a shorter "
            "one, or none"
        )
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
