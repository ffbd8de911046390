"""Dates as people write them in CSV files, and the ones that come next."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from gru_xp.forecasting.reading.cells import CellError, is_missing, quoted
from gru_xp.forecasting.reading.date_forms import (
    FORMS,
    MONTH_FORMS,
    NUMERIC_FORMS,
    SHORT_YEAR,
    YEAR,
    YEAR_MONTH,
    Form,
    has_time,
    numeric_formats,
    read_as,
    reads,
    short_year_formats,
    style,
)

_TWO_YEARS = re.compile(r"(\d\d)(\d\d)([-/])(\d\d)")
_MIDNIGHT_24 = re.compile(r".*[ T]24:00\b.*")
_SAMPLE = 1000


def parse_dates(
    labels: Sequence[str], date_format: str | None = None, where: Callable[[int], str] = "row {}".format
) -> list[datetime] | None:
    """The dates that `labels` mean, or None where they are no dates at all.

    Read are ISO 8601 (of times with a zone see `wall_clock_or_utc`), years, months as ``2004-08`` and by English name,
    quarters as ``2004Q3``, ``08/19/2004`` or ``19/08/2004`` where the column leaves no doubt which is the day, times
    with AM and PM, and milli-, micro- or nanoseconds since 1970 in 13, 16 or 19 digits, as UTC.

    Parameters
    ----------
    labels
        The cells of a column.
    date_format
        The one form to read, as `datetime.strptime` takes it.
    where
        How to call a row in a message.

    Raises
    ------
    CellError
        Some are dates of another form than others or none, could be other dates, or have a time zone alone.
    """
    if date_format is not None:
        return _all_of_form(labels, date_format, where)
    _refuse_two_years(labels)
    for form in FORMS:
        if dates := _read_all(form, labels):
            if form is SHORT_YEAR:
                refuse_short_years(labels)
            return _without_zones(labels, dates, where)
    month_first, day_first = (_read_all(form, labels) for form in NUMERIC_FORMS)
    if month_first and day_first and month_first != day_first:
        row = next(row for row, (a, b) in enumerate(zip(month_first, day_first, strict=True)) if a != b)
        formats = numeric_formats(labels[row])
        raise CellError(row, f"{quoted(labels[row])} may be day or month first; give --date-format {formats}")
    if dates := month_first or day_first:
        return _without_zones(labels, dates, where)
    _refuse_mixed(labels, where)
    return None


def may_be_date(label: str, date_format: str | None = None) -> bool:
    """Whether a cell is a date of some form, or of the one that is given."""
    if date_format is not None:
        return reads(partial(read_as, form=date_format), label)
    return any(reads(form, label) for form in (*FORMS, *NUMERIC_FORMS))


def is_full_date(label: str) -> bool:
    """Whether a cell is a date with year, month and day and more than digits."""
    if label.isdigit() or YEAR_MONTH.fullmatch(label) or any(reads(form, label) for form in MONTH_FORMS):
        return False
    return may_be_date(label)


def refuse_short_years(labels: Sequence[str]) -> None:
    """Raise CellError where all labels are dates with a year of two digits."""
    if formats := short_year_formats(labels):
        what, years = "has a year of two digits", ""
        if "%d" not in formats:
            what, years = (
                "has a day and no year, or a year of two digits",
                "write years of four digits, or, for years, ",
            )
        raise CellError(0, f"{quoted(labels[0])} {what}; {years}give --date-format {formats}")


def _refuse_two_years(labels: Sequence[str]) -> None:
    matches = []
    for label in labels:  # most are left at the first one
        match = _TWO_YEARS.fullmatch(label)
        if match is None or (int(match[2]) + 1) % 100 != int(match[4]):
            return
        matches.append(match)
    if len(matches) > 1:
        raise CellError(
            0,
            f"{quoted(labels[0])} may be a month, or a year that ends in the next one; if the labels are months, give "
            f"--date-format '%Y{matches[0][3]}%m', else write the first year alone",
        )


def _read_all(form: Form, labels: Sequence[str]) -> list[datetime] | None:
    """The dates of all labels, which are written alike, or None."""
    try:
        dates = [form(label) for label in labels]
    except ValueError:
        return None
    return dates if len({style(form, label) for label in labels}) == 1 else None


def _all_of_form(labels: Sequence[str], date_format: str, where: Callable[[int], str]) -> list[datetime]:
    dates = []
    for row, label in enumerate(labels):
        try:
            dates.append(read_as(label, date_format))
        except ValueError:
            problem = f"{quoted(label)} is not of the form {date_format!r}; correct --date-format or the row"
            raise CellError(row, problem) from None
    return _without_zones(labels, dates, where)


def _refuse_mixed(labels: Sequence[str], where: Callable[[int], str]) -> None:
    """Raise CellError where some labels are dates and others are none, or none of the same form."""
    for row, label in enumerate(labels):
        if _MIDNIGHT_24.fullmatch(label):
            raise CellError(row, f"{quoted(label)} has the hour 24, which is not read; write 00:00 of the next day")
    sample = next((row for row, label in enumerate(labels[:_SAMPLE]) if may_be_date(label)), None)
    if sample is None or (YEAR.fullmatch(labels[sample]) and _count_on(labels)):
        return
    forms = [form for form in (*FORMS, *NUMERIC_FORMS) if reads(form, labels[sample])]
    for row, label in enumerate(labels):
        if is_missing(label):
            raise CellError(row, "the date is missing; fill it in or remove the row")
        still = [form for form in forms if reads(form, label) and style(form, label) == style(form, labels[sample])]
        if not still:
            raise CellError(
                row,
                f"{quoted(label)} is not written as {quoted(labels[sample])} in {where(sample)}; write all dates alike "
                "and remove rows without one",
            )
        if len(still) < len(forms):
            forms, sample = still, row


def _count_on(labels: Sequence[str]) -> bool:
    """Whether labels are whole numbers that rise or fall, of which some may look like years."""
    return all(label.isdecimal() for label in labels) and direction([float(label) for label in labels]) is not None


def _without_zones(labels: Sequence[str], dates: list[datetime], where: Callable[[int], str]) -> list[datetime]:
    has_zone = [date.tzinfo is not None for date in dates]
    if any(has_zone) and not all(has_zone):
        row = has_zone.index(not has_zone[0])
        raise CellError(
            row,
            f"of {quoted(labels[row])} and {quoted(labels[0])} in {where(0)} only one has a time zone; write all alike",
        )
    return wall_clock_or_utc(dates)


def wall_clock_or_utc(dates: Sequence[datetime]) -> list[datetime]:
    """Dates with time zones as the wall clock showed them, without a zone, or in UTC.

    They are in UTC where the wall clock would put them in another order, or at uneven distances and UTC at even ones:
    days are 24 hours apart by the wall clock, and half-hours across a change of summer time in UTC alone.
    """
    wall_clock = [date.replace(tzinfo=None) for date in dates]
    if not all(date.tzinfo for date in dates) or len({date.utcoffset() for date in dates}) == 1:
        return wall_clock
    try:
        utc = [date.astimezone(UTC) for date in dates]
    except OverflowError:  # at the ends of the calendar
        return wall_clock
    order = sorted(range(len(dates)), key=utc.__getitem__)
    steps, wall_steps = ([keys[b] - keys[a] for a, b in pairwise(order)] for keys in (utc, wall_clock))
    zero = timedelta(0)
    same_order = all(b > zero if a > zero else b == zero for a, b in zip(steps, wall_steps, strict=True))
    is_better = len(set(steps)) == 1 < len(set(wall_steps))
    return wall_clock if same_order and not is_better else utc


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
    if YEAR.fullmatch(like):
        return f"{date.year:04d}"
    if YEAR_MONTH.fullmatch(like):
        return f"{date.year:04d}-{date.month:02d}"
    return date.isoformat(sep=" ") if has_time(like) else date.date().isoformat()
