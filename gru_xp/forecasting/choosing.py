"""How far to look back: the window length and the season of the best linear forecast of the last training rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gru_xp.forecasting.ridge import Windows, fit_ridge, mean_absolute_error, naive_weight
from gru_xp.io.table import Rows

LONGEST = 256
"""Of the windows that are tried, beside the shortest one."""

GAIN = 0.02
"""By which share the error of a longer window must be below that of a shorter one."""

HELD_OUT = 0.2
"""Share of the training rows, from their end, by which a choice is judged."""

MOST_JUDGED = 400
"""Origins in these rows to forecast from, evenly spaced, of more."""

_MULTIPLES = (1, 2, 4, 8)  # of two seasons
_SHORTEST = 8


@dataclass(frozen=True)
class LookBack:
    """What forecasts are based on.

    Attributes
    ----------
    seq_length
        Rows a window.
    season
        In rows; 1 for none.
    """

    seq_length: int
    season: int


def held_out_from(rows: int) -> int:
    """The first of so many training rows by which a choice is judged."""
    return int((1 - HELD_OUT) * rows)


def judged_origins(origins: Rows) -> Rows:
    """At most `MOST_JUDGED` of the origins, evenly spaced."""
    return spaced(origins, MOST_JUDGED)


def spaced(origins: Rows, most: int) -> Rows:
    """All of the origins, or so many of more, evenly spaced."""
    places = np.linspace(0, len(origins) - 1, min(len(origins), most)).astype(np.int64)
    return origins[places]


def choose_look_back(
    windows: Callable[[int, Rows], Windows],
    origins: Rows,
    rows: int,
    horizon: int,
    seasons: Sequence[int] = (),
    seq_length: int | None = None,
) -> LookBack:
    """Choose the window length, and the season whose naive forecast a linear one is shrunk towards.

    Each choice is fitted by `fit_ridge` to the first four fifths of the training rows, and the mean absolute error is
    measured on the last fifth. A longer window must be better by `GAIN`. Lengths are 1, 2, 4 and 8 times two seasons,
    or 8 rows without one, up to `LONGEST` and to about a third of those rows.

    Parameters
    ----------
    windows
        ``windows(seq_length, origins)``: the windows before those origins, which are the first rows to forecast. Errors
        must count alike whatever the length.
    origins
        All rows of the training part that may be the first to be forecast, rising.
    rows
        Training rows.
    horizon
        Rows to forecast.
    seasons
        In rows, to choose from.
    seq_length
        The window length, if that is given.

    Returns
    -------
    LookBack
        The shortest length and season where there are too few rows to choose by.
    """
    start = held_out_from(rows)
    seasons = [1, *sorted(seasons)]  # without a season, too
    lengths = [seq_length] if seq_length is not None else _lengths(seasons, start, rows, horizon)
    last = judged_origins(origins[origins >= start])
    best: tuple[float, LookBack] | None = None
    for length in lengths:
        tried = []
        for season in (season for season in seasons if season <= length):
            first = origins[(origins >= length) & (origins <= start - horizon)]
            held_out = last[last >= length]
            if len(first) and len(held_out):
                weight = fit_ridge(windows(length, first), naive_weight(length, horizon, season))
                error = mean_absolute_error(windows(length, held_out), weight)
                tried.append((error, LookBack(length, season)))
        if tried:
            error, choice = min(tried, key=lambda pair: pair[0])
            if best is None or error < best[0] * (1 - GAIN):
                best = error, choice
    if best is not None:
        return best[1]
    shortest_season = next((season for season in seasons[1:] if season <= lengths[-1]), 1)
    return LookBack(next(length for length in lengths if length >= shortest_season), shortest_season)


def _lengths(seasons: Sequence[int], start: int, rows: int, horizon: int) -> list[int]:
    """The lengths to try, the shortest first; one that leaves half of the rows to learn from is always there."""
    shortest = [max(2 * season, _SHORTEST) for season in seasons]
    if len(seasons) > 1 and shortest[1] <= LONGEST:  # a whole season is worth having, unless it takes a long window
        shortest = shortest[1:]
    lengths = {max(min(length, rows // 2 - horizon), 1) for length in shortest}
    most = min(LONGEST, int(0.35 * start) - horizon)
    return sorted(lengths | {k * length for length in shortest for k in _MULTIPLES[1:] if k * length <= most})
