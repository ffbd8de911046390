"""The usual spacing of dates, the rows that are missing by it, and the next dates."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from gru_xp.io.messages import CellError, option

_UNITS = {"D": "day", "B": "business day", "W": "week", "h": "hour", "min": "minute", "s": "second"}
_UNITS |= {b + unit[0].upper() + end: unit for unit in ("month", "quarter", "year") for b in ("", "B") for end in "SE"}
_HOUR, _DAY, _WEEK = np.timedelta64(1, "h"), np.timedelta64(1, "D"), np.timedelta64(7, "D")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Spacing:
    """The spacing of rows in time.

    Attributes
    ----------
    freq
        A pandas offset; None if there is no usual spacing. Rows on the same day of each month, up to the 28th,
        have the offset of months that are dated by their first day.
    unit
        The name of its steps, in the plural: ``"business days"``, ``"15-minute steps"``.
    missing
        The number of rows missing between the first and the last one.
    first_missing
        The date of the first missing row.
    breaks
        If there is no usual spacing: two neighbouring rows that break the most frequent one.
    """

    freq: str | None = None
    unit: str = "rows"
    missing: int = 0
    first_missing: datetime | None = None
    breaks: tuple[int, int] | None = None


def find_spacing(dates: Sequence[datetime], freq: str | None = None) -> Spacing:
    """Find the usual spacing of rows, some of which may be missing.

    The result is the offset whose grid contains every date and the fewest dates without a row, if most rows are one
    step apart and few are missing. One long gap is allowed, since recording may stop and start again, and so are
    changes to and from summer time, by which clocks skip or repeat an hour.

    Parameters
    ----------
    dates
        Without time zones, strictly rising.
    freq
        The pandas offset to use; if None, it is found.

    Raises
    ------
    CellError
        A date is not on the grid of `freq`.
    """
    if len(dates) < (3 if freq is None else 1):
        return Spacing(freq)
    import pandas as pd

    stamps: Array = pd.array(dates, dtype="datetime64[us]").to_numpy()
    offsets = [pd.tseries.frequencies.to_offset(name) for name in ([freq] if freq else _candidates(stamps))]
    fits = [(offset, *_count_steps(stamps, offset)) for offset in offsets]
    offset, steps, on_grid = max(fits, key=lambda fit: _rating(*fit[1:]))
    if freq and not on_grid.all():
        row = int(on_grid.argmin())
        raise CellError(row, f"{dates[row]} does not fit {option('freq', freq)}; correct it, or omit {option('freq')}")
    if not freq and not _rating(steps, on_grid)[0]:
        row = int((steps > 1 if on_grid.all() else steps == 0).argmax())
        return Spacing(None, breaks=(row, row + 1))
    unit, missing = _UNITS.get(offset.rule_code.partition("-")[0], "row"), int((steps - 1).sum())
    unit = f"{offset.n}-{unit} steps" if offset.n > 1 else f"{unit}s"
    first_gap = next_dates(dates[int((steps > 1).argmax())], offset.freqstr, 1) if missing else None
    return Spacing(offset.freqstr, unit, missing, first_gap[0] if first_gap else None)


def next_dates(last: datetime, freq: str, count: int) -> list[datetime] | None:
    """Return the `count` dates after `last`, or None where they are past the end of the calendar."""
    from pandas.tseries.frequencies import to_offset

    offset = to_offset(freq)
    shift = _days_after_start(last, offset)
    try:
        return [(last - shift + (n + 1) * offset).to_pydatetime() + shift for n in range(count)]
    except (OverflowError, ValueError):
        return None


def _candidates(stamps: Array) -> list[Any]:
    """List what may be the usual spacing; of those that fit equally well, the first is taken."""
    import pandas as pd

    first, months = pd.Timestamp(stamps[0]), stamps.astype("datetime64[M]").astype(np.int64)
    n_months, step = (pd.Series(np.diff(times)).mode()[0] for times in (months, stamps))
    size, period = next((size, name) for size, name in ((12, "Y"), (3, "Q"), (1, "M")) if n_months % size == 0)
    anchor = "" if period == "M" else f"-{first.month_name()[:3].upper()}"
    by_month = [f"{n_months // size}{b}{period}{end}{anchor}" for b in ("", "B") for end in "SE"] if n_months else []
    week = f"W-{first.day_name()[:3].upper()}"
    by_step = next((f"{step // size}{name}" for size, name in ((_WEEK, week), (_DAY, "D")) if not step % size), step)
    return [*by_month, by_step, "B"] if step == _DAY else [*by_month, by_step]


def _count_steps(stamps: Array, offset: Any) -> tuple[Array, Array]:
    """Count the steps from each date to the next, 0 where one is off the grid, and tell which dates are on it."""
    import pandas as pd

    if isinstance(offset, pd.offsets.Day | pd.offsets.Tick):
        step = np.timedelta64((datetime.min + offset - datetime.min).to_pytimedelta(), "us")
        places, rest = np.divmod(stamps - stamps[0] - _clock_changes(stamps, step), step)
        on_grid = rest == 0 * _DAY
    else:
        stamps = stamps - np.timedelta64(_days_after_start(stamps[0].item(), offset))
        grid = pd.date_range(stamps[0], stamps[-1], freq=offset, unit="us").to_numpy()
        places, on_grid = grid.searchsorted(stamps), np.isin(stamps, grid)
    return np.where(on_grid[1:] & on_grid[:-1], np.diff(places), 0), on_grid


def _rating(steps: Array, on_grid: Array) -> tuple[bool, int]:
    """Tell whether a spacing is the usual one, and how well it fits beside others of which the same is true.

    More than two thirds of the steps are single ones and, apart from the longest gap, at most one row is missing for
    every two that are there.
    """
    missing, single_steps = int((steps - 1).sum()), int((steps == 1).sum())
    few_missing = missing - (steps.max(initial=1) - 1) <= len(on_grid) / 2
    is_usual = bool(on_grid.all() and few_missing and single_steps > 2 / 3 * len(steps))
    return is_usual, -missing if is_usual else single_steps


def _days_after_start(date: datetime, offset: Any) -> timedelta:
    """Return the days from the start of the month to a date that stands for it, if all months have that day."""
    counts_starts = re.fullmatch("MS|[QY]S-...", offset.rule_code)
    return timedelta(days=date.day - 1 if counts_starts and date.day <= 28 else 0)


def _clock_changes(stamps: Array, step: np.timedelta64) -> Array:
    """Sum up the hours that clocks skip or repeat, on some Sundays at about two, between rows `step` apart."""
    jumps, changes = np.diff(stamps) - step, np.zeros(len(stamps), "timedelta64[us]")
    rows = np.flatnonzero((abs(jumps) == _HOUR) & (step <= _DAY))
    ends: list[Array] = [stamps[rows] - _HOUR, stamps[rows + 1] + _HOUR]
    before, after = ((end - np.datetime64("1970-01-04T02")) // _WEEK for end in ends)
    months = stamps[rows + 1].astype("datetime64[M]").astype(np.int64) % 12 + 1
    rows = rows[(before < after) & np.isin(months, (3, 4, 9, 10, 11))]
    changes[rows + 1] = jumps[rows]
    return changes.cumsum()
