"""How far to look back, and the penalty of the linear forecast: by cross-validation of linear forecasts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gru_xp.forecasting.ridge import PENALTIES, PENALTY, Fold, Windows, cross_validate, naive_weight
from gru_xp.forecasting.windows import Floats
from gru_xp.io.table import Rows

LONGEST = 256
"""Of the windows that are tried, beside the shortest one."""

GAIN = 0.02
"""By which share the error of a longer window must be below that of a shorter one."""

FOLDS = 5
"""Blocks of training rows, each of which is forecast by what was fitted to the other ones."""

MAX_CHOSEN_BY = 3000
"""Windows to choose by, evenly spaced, of more."""

HELD_OUT = 0.2
"""Share of the training rows, from their end, by which the guard judges."""

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
    penalty
        Of the ridge; see `fit_ridge`.
    """

    seq_length: int
    season: int
    penalty: float = PENALTY


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
    ages: Rows | None = None,
) -> LookBack:
    """Choose the window length, the season whose naive forecast a linear one is shrunk towards, and by how much.

    The training rows are cut into `FOLDS` blocks. Each is forecast by `fit_ridge` from the other ones, and the mean
    absolute error over all blocks is compared. A longer window must be better by `GAIN`. Lengths are 1, 2, 4 and 8
    times two seasons, or 8 rows without one, up to `LONGEST` and to about a third of the first four fifths of the rows.

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
    ages
        Of several series: how many rows each origin has before it in its series. Blocks of origins are then groups of
        series, but for those at their ends.

    Returns
    -------
    LookBack
        The shortest length and season, and `PENALTY`, where there are too few rows to choose by.
    """
    seasons = [1, *sorted(seasons)]  # without a season, too
    lengths = [seq_length] if seq_length is not None else _lengths(seasons, held_out_from(rows), rows, horizon)
    ages = origins if ages is None else ages
    judged = origins[ages >= max((length for length in lengths if length <= _longest(ages)), default=0)]
    best: tuple[float, LookBack] | None = None
    for length in lengths:
        short_enough = [season for season in seasons if season <= length]
        errors = _errors(windows, (origins, ages), judged, length, horizon, short_enough)
        if errors is not None:
            season, penalty = np.unravel_index(errors.argmin(), errors.shape)
            if best is None or errors.min() < best[0] * (1 - GAIN):
                best = float(errors.min()), LookBack(length, short_enough[season], PENALTIES[penalty])
    if best is not None:
        return best[1]
    shortest_season = next((season for season in seasons[1:] if season <= lengths[-1]), 1)
    return LookBack(next(length for length in lengths if length >= shortest_season), shortest_season)


def choose_penalty(
    windows: Callable[[int, Rows], Windows],
    origins: Rows,
    horizon: int,
    look_back: LookBack,
    ages: Rows | None = None,
) -> LookBack:
    """Choose the penalty alone, as `choose_look_back` does."""
    length, ages = look_back.seq_length, origins if ages is None else ages
    errors = _errors(windows, (origins, ages), origins[ages >= length], length, horizon, [look_back.season])
    return look_back if errors is None else replace(look_back, penalty=PENALTIES[errors.argmin()])


def blocks_of(
    origins: Rows, judged: Rows, length: int, horizon: int, ages: Rows | None = None
) -> tuple[Rows, list[Fold]] | None:
    """The origins that windows of a length are chosen by, and their `FOLDS` blocks; None if there are too few.

    The blocks have the same number of `judged` origins. None that is fitted to has rows ahead in common with them.
    """
    ages = origins if ages is None else ages
    if length > _longest(ages):
        return None
    chosen_by = spaced(origins[ages >= length], MAX_CHOSEN_BY)
    folds = [
        Fold(
            np.flatnonzero((chosen_by >= block[0]) & (chosen_by <= block[-1])),
            np.flatnonzero((chosen_by <= block[0] - horizon) | (chosen_by >= block[-1] + horizon)),
        )
        for block in np.array_split(judged, FOLDS)
    ]
    return (chosen_by, folds) if all(len(fold.judged) and len(fold.fitted) for fold in folds) else None


def _longest(ages: Rows) -> int:
    """The longest windows to try, which leave two forecasts a block."""
    return int(np.partition(ages, -2 * FOLDS)[-2 * FOLDS]) if len(ages) >= 2 * FOLDS else 0


def _errors(
    windows: Callable[[int, Rows], Windows],
    origins: tuple[Rows, Rows],
    judged: Rows,
    length: int,
    horizon: int,
    seasons: Sequence[int],
) -> Floats | None:
    """Of each season and penalty, over blocks of the origins to judge by; None if there is too little to fit to.

    The origins come with their ages.
    """
    blocks = blocks_of(origins[0], judged, length, horizon, origins[1])
    if blocks is None:
        return None
    chosen_by, folds = blocks
    starts = [naive_weight(length, horizon, season) for season in seasons]
    return cross_validate(windows(length, chosen_by), folds, starts)


def _lengths(seasons: Sequence[int], start: int, rows: int, horizon: int) -> list[int]:
    """The lengths to try, the shortest first; one that leaves half of the rows to learn from is always there."""
    shortest = [max(2 * season, _SHORTEST) for season in seasons]
    if len(seasons) > 1 and shortest[1] <= LONGEST:  # a whole season is worth having, unless it takes a long window
        shortest = shortest[1:]
    lengths = {max(min(length, rows // 2 - horizon), 1) for length in shortest}
    most = min(LONGEST, int(0.35 * start) - horizon)
    return sorted(lengths | {k * length for length in shortest for k in _MULTIPLES[1:] if k * length <= most})
