"""Dates as people write them in CSV files, and the ones that come next."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from gru_xp.forecasting.reading.cells import CellError, is_missing, quoted

_YEAR = re.compile(r"\d{4}")
_YEAR_MONTH = re.compile(r"(\d{4})-(\d{1,2})")
_EPOCH_MILLISECONDS = re.compile(r"\d{13}")
_NUMBER = re.compile(r"\d{5,7}|\d{9,}|\d+[.,eE]\d+")  # datetime.fromisoformat takes some of them for dates
_NUMERIC = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})(?:[ T](\S+))?")
_NAMED_MONTH = re.compile(r"\d{4}/\d|[^\W\d_]+ \d{1,2}, \d{4}|\d{1,2}[ -][^\W\d_]+[ -]\d\d")
_NAMED_MONTH_FORMATS = ("%Y/%m/%d", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y")
_SAMPLE = 1000


def parse_dates(
    labels: Sequence[str], date_format: str | None = None, where: Callable[[int], str] = "row {}".format
) -> list[datetime] | None:
    """The dates that `labels` mean, or None where they are no dates at all.

    Read are ISO 8601 (of times with a zone see `wall_clock_or_utc`), years, months as ``2004-08``, months by English
    name, ``08/19/2004`` or ``19/08/2004`` where the column leaves no doubt which is the day, and milliseconds since
    1970 in 13 digits, as UTC.

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
    for form in _FORMS:
        if dates := _read_all(form, labels):
            return _without_zones(labels, dates, where)
    month_first, day_first = (_read_all(form, labels) for form in _NUMERIC_FORMS)
    if month_first and day_first and month_first != day_first:
        row = next(row for row, (a, b) in enumerate(zip(month_first, day_first, strict=True)) if a != b)
        formats = " or ".join(_format_like(labels[row], order) for order in ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y"))
        raise CellError(row, f"{quoted(labels[row])} may be day or month first; give --date-format {formats}")
    if dates := month_first or day_first:
        return _without_zones(labels, dates, where)
    _refuse_mixed(labels, where)
    return None


def may_be_date(label: str, date_format: str | None = None) -> bool:
    """Whether a cell is a date of some form, or of the one that is given."""
    if date_format is not None:
        return _reads(partial(_read_as, form=date_format), label)
    return any(_reads(form, label) for form in (*_FORMS, *_NUMERIC_FORMS))


def is_full_date(label: str) -> bool:
    """Whether a cell is a date with year, month and day and more than digits."""
    return not label.isdigit() and not _YEAR_MONTH.fullmatch(label) and may_be_date(label)


def _read_iso(label: str) -> datetime:
    if _NUMBER.fullmatch(label):
        raise ValueError(label)
    if _YEAR.fullmatch(label):
        label += "-01-01"
    elif match := _YEAR_MONTH.fullmatch(label):
        label = f"{match[1]}-{int(match[2]):02d}-01"
    return datetime.fromisoformat(label)


def _read_milliseconds(label: str) -> datetime:
    if not _EPOCH_MILLISECONDS.fullmatch(label):
        raise ValueError(label)
    return datetime(1970, 1, 1) + timedelta(milliseconds=int(label))


def _read_numeric(label: str, day: int, month: int) -> datetime:
    match = _NUMERIC.fullmatch(label)
    if match is None:
        raise ValueError(label)
    date = datetime(int(match[4]), int(match[month]), int(match[day]))
    return datetime.combine(date, time.fromisoformat(match[5])) if match[5] else date


def _read_as(label: str, form: str) -> datetime:
    return datetime.strptime(label, form)


def _read_named_month(label: str, form: str) -> datetime:
    if not _NAMED_MONTH.match(label):  # strptime takes long to say no
        raise ValueError(label)
    return _read_as(label, form)


_Form = Callable[[str], datetime]
_FORMS: tuple[_Form, ...] = (
    _read_iso,
    *(partial(_read_named_month, form=form) for form in _NAMED_MONTH_FORMATS),
    _read_milliseconds,
)
_NUMERIC_FORMS: tuple[_Form, ...] = (
    partial(_read_numeric, day=3, month=1),
    partial(_read_numeric, day=1, month=3),
)


def _reads(form: _Form, label: str) -> bool:
    try:
        form(label)
    except ValueError:
        return False
    return True


def _read_all(form: _Form, labels: Sequence[str]) -> list[datetime] | None:
    """The dates of all labels, or None; numeric ones must have the same sign between the numbers."""
    try:
        dates = [form(label) for label in labels]
    except ValueError:
        return None
    return dates if form not in _NUMERIC_FORMS or len(_signs(labels)) == 1 else None


def _signs(labels: Sequence[str]) -> set[str]:
    """What stands between the numbers of numeric dates."""
    return {match[2] for label in labels if (match := _NUMERIC.fullmatch(label))}


def _all_of_form(labels: Sequence[str], date_format: str, where: Callable[[int], str]) -> list[datetime]:
    dates = []
    for row, label in enumerate(labels):
        try:
            dates.append(_read_as(label, date_format))
        except ValueError:
            problem = f"{quoted(label)} is not of the form {date_format!r}; correct --date-format or the row"
            raise CellError(row, problem) from None
    return _without_zones(labels, dates, where)


def _format_like(label: str, form: str) -> str:
    """The form of a numeric date as strptime takes it, with the sign and the time of day that the label has."""
    match = _NUMERIC.fullmatch(label)
    assert match is not None
    clock = {0: "", 1: " %H:%M", 2: " %H:%M:%S"}[min((match[5] or "").count(":"), 2)]
    return f"'{form.format(match[2])}{clock}'"


def _refuse_mixed(labels: Sequence[str], where: Callable[[int], str]) -> None:
    """Raise CellError where some labels are dates and others are none, or none of the same form."""
    sample = next((row for row, label in enumerate(labels[:_SAMPLE]) if may_be_date(label)), None)
    if sample is None or (_YEAR.fullmatch(labels[sample]) and _count_on(labels)):
        return
    forms = [form for form in (*_FORMS, *_NUMERIC_FORMS) if _reads(form, labels[sample])]
    for row, label in enumerate(labels):
        if is_missing(label):
            raise CellError(row, "the date is missing; fill it in or remove the row")
        still = [form for form in forms if _reads(form, label)]
        if not still or _signs([label]) != _signs([labels[sample]]):
            raise CellError(
                row,
                f"{quoted(label)} is not written as {quoted(labels[sample])} in {where(sample)}; write all dates alike",
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
    if _YEAR.fullmatch(like):
        return f"{date.year:04d}"
    if _YEAR_MONTH.fullmatch(like):
        return f"{date.year:04d}-{date.month:02d}"
    has_time = ":" in like or _EPOCH_MILLISECONDS.fullmatch(like)
    return date.isoformat(sep=" ") if has_time else date.date().isoformat()
