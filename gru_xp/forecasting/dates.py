"""Dates as people write them in CSV files, and the ones that come next."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from typing import Any

import numpy as np

_YEAR = re.compile(r"\d{4}")
_YEAR_MONTH = re.compile(r"(\d{4})-(\d{1,2})")
_NUMERIC = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})(?:[ T](\S+))?")
_NAMED_MONTH_FORMATS = ("%Y/%m/%d", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y")


def parse_dates(labels: Sequence[str]) -> list[datetime] | None:
    """The dates that `labels` mean, or None where they are not dates or could be read in two ways.

    Read are ISO 8601 (of times with a zone see `wall_clock_or_utc`), years, months as ``2004-08``, months by English
    name, and ``08/19/2004`` or ``19/08/2004`` where the column leaves no doubt which is the day.
    """
    for read in (_parse_iso, _parse_named_month, _parse_numeric):
        dates = read(labels)
        if dates is not None:
            return dates
    return None


def _parse_iso(labels: Sequence[str]) -> list[datetime] | None:
    dates = []
    for label in labels:
        if _YEAR.fullmatch(label):
            label += "-01-01"
        elif match := _YEAR_MONTH.fullmatch(label):
            label = f"{match[1]}-{int(match[2]):02d}-01"
        try:
            dates.append(datetime.fromisoformat(label))
        except ValueError:
            return None
    return wall_clock_or_utc(dates)


def wall_clock_or_utc(dates: Sequence[datetime]) -> list[datetime]:
    """Dates with time zones as the wall clock showed them, without a zone; in UTC where only that is in good order.

    Days are 24 hours apart by the wall clock. Across a change of summer time, half-hours are so in UTC alone.
    """
    wall_clock = [date.replace(tzinfo=None) for date in dates]
    if not all(date.tzinfo for date in dates) or len({date.utcoffset() for date in dates}) == 1:
        return wall_clock
    utc = [date.astimezone(UTC) for date in dates]
    return utc if _order(utc) > _order(wall_clock) else wall_clock


def _order(dates: Sequence[datetime]) -> tuple[bool, bool, bool]:
    """How good an order dates are in: never back and forth, never repeated, always as far apart."""
    return direction(dates) is not None, len(set(dates)) == len(dates), len({b - a for a, b in pairwise(dates)}) <= 1


def _parse_named_month(labels: Sequence[str]) -> list[datetime] | None:
    for form in _NAMED_MONTH_FORMATS:
        try:
            return [datetime.strptime(label, form) for label in labels]
        except ValueError:
            continue
    return None


def _parse_numeric(labels: Sequence[str]) -> list[datetime] | None:
    """Month first and day first are both tried; the reading that is a date in every row, and alone so, counts.

    Where both are dates throughout, the one that keeps the rows in order does.
    """
    matches = [match for label in labels if (match := _NUMERIC.fullmatch(label))]
    if len(matches) < len(labels):
        return None
    readings = []
    for day, month in ((3, 1), (1, 3)):
        try:
            readings.append([_numeric_date(match, day, month) for match in matches])
        except ValueError:
            continue
    ordered = [dates for dates in readings if direction(dates) is not None]
    for candidates in (readings, ordered):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _numeric_date(match: re.Match[str], day: int, month: int) -> datetime:
    date = datetime(int(match[4]), int(match[month]), int(match[day]))
    return datetime.combine(date, time.fromisoformat(match[5])) if match[5] else date


def direction(keys: Sequence[Any]) -> int | None:
    """1 where `keys` never go back, -1 where they never go forward, None where they do both."""
    pairs = list(pairwise(keys))
    if all(a <= b for a, b in pairs):
        return 1
    if all(a >= b for a, b in pairs):
        return -1
    return None


def next_dates(dates: Sequence[datetime], count: int) -> list[datetime] | None:
    """The `count` dates after the last one, or None where the dates follow no rule that is known.

    The rules: equal numbers of months on the same day, or on each month's last day; equal distances; every working
    day, with gaps for holidays, which is continued from Monday to Friday, since holidays to come are not known.
    """
    if len(dates) < 3:
        return None
    try:
        return _next_months(dates, count) or _next_equal(dates, count) or _next_working_days(dates, count)
    except (OverflowError, ValueError):  # past the last date that there is
        return None


def _next_months(dates: Sequence[datetime], count: int) -> list[datetime] | None:
    months = [12 * date.year + date.month - 1 for date in dates]
    gaps = {b - a for a, b in pairwise(months)}
    if len(gaps) > 1 or gaps == {0}:
        return None
    gap = gaps.pop()
    targets = [months[-1] + (i + 1) * gap for i in range(count)]
    last = dates[-1]
    if len({(date.day, date.time()) for date in dates}) == 1 and last.day <= 28:
        return [last.replace(year=m // 12, month=m % 12 + 1) for m in targets]
    if all((date + timedelta(days=1)).day == 1 for date in dates):
        first_days = (last.replace(year=(m + 1) // 12, month=(m + 1) % 12 + 1, day=1) for m in targets)
        return [day - timedelta(days=1) for day in first_days]
    return None


def _next_equal(dates: Sequence[datetime], count: int) -> list[datetime] | None:
    gaps = {b - a for a, b in pairwise(dates)}
    if len(gaps) > 1 or gaps == {timedelta(0)}:
        return None
    gap = gaps.pop()
    return [dates[-1] + (i + 1) * gap for i in range(count)]


def _next_working_days(dates: Sequence[datetime], count: int) -> list[datetime] | None:
    gaps = [b - a for a, b in pairwise(dates)]
    if any(date.weekday() >= 5 for date in dates) or min(gaps) != timedelta(days=1) or max(gaps) > timedelta(days=11):
        return None
    days = np.busday_offset(np.datetime64(dates[-1].date(), "D"), np.arange(1, count + 1)).astype(object)
    return [datetime.combine(day, dates[-1].timetz()) for day in days]


def format_date(date: datetime, like: str) -> str:
    """A date as text: a year where `like` is one, with a time of day where `like` has one, ISO 8601 in any case."""
    if _YEAR.fullmatch(like):
        return f"{date.year:04d}"
    if _YEAR_MONTH.fullmatch(like):
        return f"{date.year:04d}-{date.month:02d}"
    return date.isoformat(sep=" ") if ":" in like else date.date().isoformat()
