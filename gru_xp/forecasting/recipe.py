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
from gru_xp.forecasting.panels import AnySeries, find_common_seasons, series_numbers
from gru_xp.forecasting.scaling import Scaler
from gru_xp.forecasting.windows import Floats, Layout, WindowSequences
from gru_xp.io.table import Rows

MIN_LEARNED = 20
"""Training windows that make sense. With 6 to 20 rows of walks, noise, trends and seasons, the GRU's mean error was up
to 3.9 times that of the best forecast without training, and the ridge's up to 1.5; with 30 rows, 1.5 and 1.3."""

MAX_SPREAD_ORIGINS = 5_000
"""Origins from which errors of a forecast without training are computed, evenly spaced, of more."""


def step_budget(windows: int, batch_size: int) -> int:
    """Updates to learn from so many windows: four passes, but at least 150 and at most 400."""
    return min(max(4 * windows // batch_size, 150), 400)


def known_origins(series: AnySeries, stops: int | Rows, horizon: int) -> Rows:
    """The first rows of `horizon` ones whose targets are there, before the row ``stops``, or ``(S,)`` of each series.

    There is a row of the same series before each of them.
    """
    ends = np.atleast_1d(np.asarray(stops, dtype=np.int64)).tolist()
    origins = np.concatenate(
        [
            np.arange(first + 1, stop - horizon + 1, dtype=np.int64)
            for first, stop in zip(series.offsets[:-1].tolist(), ends, strict=True)
        ]
    )
    if series.observed is None or not len(origins):
        return origins
    there = np.lib.stride_tricks.sliding_window_view(series.observed[:, 0], horizon)
    known: Rows = origins[np.all(there[origins], axis=1)]
    return known


def first_rows(series: AnySeries, origins: Rows) -> Rows:
    """The first row of the series of each origin."""
    first: Rows = series.offsets[series_numbers(series, origins)]
    return first


def settle_look_back(
    series: AnySeries,
    stops: Rows,
    scaler: Scaler,
    seq_length: int | str,
    season: int | str,
    horizon: int,
    linear_skip: bool = True,
    layout: Layout | None = None,
) -> tuple[LookBack, tuple[int, ...]]:
    """Window length, season and penalty, and all seasons there are, by the rows before ``stops (S,)`` alone.

    Of several series, the length is chosen for the median of their numbers of rows, by windows of all of them.

    Raises
    ------
    DataError
        There is no row one season after another.
    """
    lengths = np.sort(stops - series.offsets[:-1])
    rows = int(lengths[len(lengths) // 2])
    if isinstance(season, int) and season >= rows:
        raise DataError(
            f"a season of {season} rows is too long for {rows} training rows, which do not repeat then; give a shorter "
            "one, or none"
        )
    if season == "auto":
        seasons = find_common_seasons(series, stops, series.reading.freq)
    else:
        seasons = () if isinstance(season, str) else (season,)
    settled = None
    if isinstance(seq_length, int) and len(seasons) < 2:
        settled = LookBack(seq_length, next((m for m in seasons if m <= seq_length), 1))
        if not linear_skip:
            return settled, seasons

    def windows(length: int, origins: Rows) -> WindowSequences:
        return WindowSequences(series.values, origins - length, length, horizon, scaler, mean_unit=1.0, layout=layout)

    origins = known_origins(series, stops, horizon)
    ages = origins - first_rows(series, origins)
    if settled is not None:
        return choose_penalty(windows, origins, horizon, settled, ages), seasons
    given = seq_length if isinstance(seq_length, int) else None
    return choose_look_back(windows, origins, rows, horizon, seasons, given, ages), seasons


def naive_spread(
    baseline: Baseline,
    series: AnySeries,
    rows: int | Rows,
    horizon: int,
    quantiles: tuple[float, ...],
    seasons: Sequence[int] = (),
    units: Floats | None = None,
) -> Floats:
    """What to add to a forecast without training for its quantiles: those of its errors, less their median.

    Parameters
    ----------
    baseline
        The forecast.
    series, rows
        The training rows are the first ones of the series; of several, those before the row numbers ``(S,)``.
    horizon
        Rows of a forecast.
    quantiles
        Q levels, rising.
    seasons
        In rows; errors after less than the longest one count only if there are no others.
    units : array, shape ``(S,)``, optional
        Of several series: what their errors are divided by.

    Returns
    -------
    array, shape ``(Q, horizon)``
        By step ahead; 0 for the median, and where there is no error to know it from.
    """
    if quantiles == (0.5,):
        return np.zeros((1, horizon))
    known, target = known_origins(series, rows, horizon), series.values[:, 0]
    after = known[known - first_rows(series, known) >= max(seasons, default=1)]
    origins = after if len(after) else known
    if not len(origins):
        return np.zeros((len(quantiles), horizon))
    origins = spaced(origins, MAX_SPREAD_ORIGINS)
    errors = target[origins[:, None] + np.arange(horizon)] - baseline(target, origins, horizon)
    if units is not None:
        errors /= units[series_numbers(series, origins)][:, None]
    spread: Floats = np.quantile(errors, (*quantiles, 0.5), axis=0)
    spread -= spread[-1].copy()
    return spread[:-1]
