"""The usual spacing of dates, the rows that are missing by it, and the dates and numbers that come next."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np

from gru_xp.io.messages import CellError, option

MIN_SINGLE_STEPS = 2 / 3
"""Of the steps from row to row, more than this share must be one step of a spacing for it to be the usual one."""
MAX_MISSING = 1 / 2
"""Rows that may be missing by the usual spacing for each row that is there; the longest gap is not counted."""

_UNITS = {"D": "day", "B": "business day", "W": "week", "h": "hour", "min": "minute", "s": "second"}
_UNITS |= {"M": "month", "Q": "quarter", "Y": "year"}
_HOUR, _DAY, _WEEK = np.timedelta64(1, "h"), np.timedelta64(1, "D"), np.timedelta64(7, "D")
_SUNDAY_AT_2 = np.datetime64("1970-01-04T02", "us")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Spacing:
    """The spacing of rows in time.

    Attributes
    ----------
    freq
        A pandas offset; None where there is no usual spacing. Rows on the same day of each month, up to the 28th,
        have the offset of months that are dated by their first day.
    unit
        What to call its steps, in the plural: ``"business days"``, ``"15-minute steps"``.
    missing
        Number of rows that are missing between the first and the last one.
    first_missing
        The date of the first of them.
    breaks
        Two neighbouring rows that break the most frequent spacing, where there is no usual one.
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

    stamps: Array = pd.DatetimeIndex(pd.array(dates, dtype="datetime64[us]")).to_numpy()
    offsets = [pd.tseries.frequencies.to_offset(name) for name in ([freq] if freq else _candidates(stamps))]
    fits = [(offset.freqstr, *_count_steps(stamps, offset)) for offset in offsets]
    name, steps, on_grid = max(fits, key=lambda fit: _rating(*fit[1:]))
    if freq and not on_grid.all():
        row, usual = int(on_grid.argmin()), find_spacing(dates).freq
        remedy = f"all rows fit {option('freq', usual)}" if usual else f"correct the row or omit {option('freq')}"
        raise CellError(row, f"{dates[row]} does not fit {option('freq', freq)}; {remedy}")
    if not freq and not _rating(steps, on_grid)[0]:
        row = int((steps > 1 if on_grid.all() else steps == 0).argmax())
        return Spacing(None, breaks=(row, row + 1))
    missing = int((steps - 1).sum())
    following = next_dates(dates[int((steps > 1).argmax())], name, 1) if missing else None
    return Spacing(name, _unit(name), missing, following[0] if following else None)


def next_dates(last: datetime, freq: str, count: int) -> list[datetime] | None:
    """Return the `count` dates after `last`, or None where they are past the end of the calendar."""
    from pandas.tseries.frequencies import to_offset

    offset = to_offset(freq)
    shift = _days_after_start(last, offset)
    try:
        return [(last - shift + (n + 1) * offset).to_pydatetime() + shift for n in range(count)]
    except (OverflowError, ValueError):
        return None


def next_numbers(numbers: Sequence[float], count: int) -> list[float] | None:
    """Return the `count` numbers after the last one, or None unless the last ten, as written, are equally spaced.

    If these are whole, so are the next ones, as int.
    """
    exact = [Decimal(str(number)) for number in numbers[-10:]]
    steps = {b - a for a, b in pairwise(exact)}
    if len(exact) < 3 or len(steps) > 1 or steps == {0}:
        return None
    kind = int if all(number % 1 == 0 for number in exact) else float
    return [kind(exact[-1] + (n + 1) * (exact[-1] - exact[-2])) for n in range(count)]


def _candidates(stamps: Array) -> Iterator[str]:
    """Yield the offsets that the usual spacing may be, of equals the simplest first."""
    import pandas as pd

    first, months = pd.Timestamp(stamps[0]), stamps.astype("datetime64[M]").astype(np.int64)
    n_months, step = (pd.Series(np.diff(times)).mode()[0] for times in (months, stamps))
    if n_months:
        size, period = next((size, name) for size, name in ((12, "Y"), (3, "Q"), (1, "M")) if n_months % size == 0)
        anchor = "" if period == "M" else f"-{first.month_name()[:3].upper()}"
        yield from (f"{n_months // size}{b}{period}{end}{anchor}" for b in ("", "B") for end in "SE")
    whole_days = f"{step // _DAY}D" if step % _WEEK else f"{step // _WEEK}W-{first.day_name()[:3].upper()}"
    yield pd.tseries.frequencies.to_offset(step).freqstr if step % _DAY else whole_days
    if step == _DAY:
        yield "B"


def _count_steps(stamps: Array, offset: Any) -> tuple[Array, Array]:
    """Count the steps of an offset from each date to the next, 0 where one is off its grid; tell which are on it."""
    import pandas as pd

    if isinstance(offset, pd.offsets.Day | pd.offsets.Tick):
        step = np.timedelta64((datetime.min + offset - datetime.min).to_pytimedelta(), "us")
        stamps = stamps - _clock_shifts(stamps, step)
        places, rest = np.divmod(stamps - stamps[0], step)
        on_grid = rest == 0 * _DAY
    else:
        stamps = stamps - np.timedelta64(_days_after_start(stamps[0].item(), offset))
        grid = pd.date_range(stamps[0], stamps[-1], freq=offset, unit="us").to_numpy()
        places, on_grid = grid.searchsorted(stamps), np.isin(stamps, grid)
    return np.where(on_grid[1:] & on_grid[:-1], np.diff(places), 0), on_grid


def _rating(steps: Array, on_grid: Array) -> tuple[bool, int]:
    """Tell whether a spacing is the usual one, and how well it fits beside others of which the same is true."""
    missing, single_steps = int((steps - 1).sum()), int((steps == 1).sum())
    few_missing = missing - (steps.max(initial=1) - 1) <= MAX_MISSING * len(on_grid)
    is_usual = bool(on_grid.all() and few_missing and single_steps > MIN_SINGLE_STEPS * len(steps))
    return is_usual, -missing if is_usual else single_steps


def _days_after_start(date: datetime, offset: Any) -> timedelta:
    """Return the days from the start of the month to a date that stands for it, if all months have that day."""
    counts_starts = re.fullmatch("MS|[QY]S-...", offset.rule_code)
    return timedelta(days=date.day - 1 if counts_starts and date.day <= 28 else 0)


def _clock_shifts(stamps: Array, step: np.timedelta64) -> Array:
    """Sum up the hours that clocks skip or repeat, on some Sundays about two at night, between rows `step` apart."""
    jumps = np.diff(stamps) - step
    before, after = ((stamps - _SUNDAY_AT_2 + shift) // _WEEK for shift in (-_HOUR, _HOUR))
    months = stamps[1:].astype("datetime64[M]").astype(np.int64) % 12 + 1
    is_change = (before[:-1] < after[1:]) & np.isin(months, (3, 4, 9, 10, 11)) & (abs(jumps) == _HOUR) & (step <= _DAY)
    return np.append(0 * _HOUR, np.where(is_change, jumps, 0 * _HOUR).cumsum())


def _unit(freq: str) -> str:
    number, period, other = re.findall(r"(\d*)(?:B?([MQY])[SE]|(\w+))", freq)[0]
    unit = _UNITS.get(period or other, "row")
    return f"{number}-{unit} steps" if number else f"{unit}s"
