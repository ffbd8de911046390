"""Dates: read a column by the one form that reads every cell, and write further dates in that form."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, time, timedelta
from functools import lru_cache, partial
from itertools import product, takewhile
from typing import Any, NamedTuple

import numpy as np

from gru_xp.io.messages import CellError, option, quoted
from gru_xp.io.numbers import is_missing
from gru_xp.io.table import Where, stored_rows

# --- names of months ----------------------------------------------------------------------------------------------


@lru_cache
def _languages() -> dict[str, list[list[str]]]:
    """The names of the twelve months in each language: the full one, a short one, and other spellings."""
    return {language: [names.split("/") for names in months] for language, *months in stored_rows("months.csv")}


@lru_cache
def _months() -> dict[str, int]:
    """The month that a plain name means in any language."""
    spelled = [(name, month) for year in _languages().values() for month, names in enumerate(year, 1) for name in names]
    return {_plain(name): month for name, month in spelled}


def _plain(name: str) -> str:
    """A name without capitals, accents and points."""
    letters = unicodedata.normalize("NFKD", name.casefold().replace("ı", "i"))
    return "".join(filter(str.isalpha, letters))


# --- forms --------------------------------------------------------------------------------------------------------
# Shapes say what is read; the first label of a shape gives a form, by which all labels are read and dates written.
# A form is a day or period as `datetime.strptime` has it, with %q for a quarter, %e for the time since 1970, %b for any
# name of a month, and %p at its end where times of day have AM or PM.

_LENGTHS = {"Y": "4", "G": "4", "y": "2", "V": "2", "m": "1,2", "q": "1", "u": "1"}
_PARTS = {name: rf"(?P<{name}>\d{{{length}}})" for name, length in _LENGTHS.items()} | {
    "L": r"(?P<Y>(?:1[89]|2[01])\d\d)",
    "N": r"(?P<m>\d\d)(?P<d>\d\d)",
    "d": r"(?P<d>\d\d?(?:(?:er|st|nd|rd|th)\b)?)",
    "b": r"(?P<b>[^\W\d_]{3,}(?:\.(?= ))?)",
    "a": r"(?P<a>(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?)",
    "e": r"(?P<e>\d{19}|\d{16}|\d{13}|\d{10}(?:\.\d+)?)",
    "p": "",
}
_SIGNS = {"~": r"([/.-] ?| )", "=": r"\2", "_": r"(?:,? |[/-]|\. ?| (?:de|del|of) )"}


def _compile(shapes: str) -> list[re.Pattern[str]]:
    """Compile shapes: letters are parts of a date, L a likely year, ~ and = the same sign, _ the sign beside a name."""
    parts = (re.sub(".", lambda sign: (_PARTS | _SIGNS).get(sign[0], sign[0]), shape) for shape in shapes.split())
    return [re.compile(shape, re.IGNORECASE) for shape in parts]


_SHAPES = _compile(
    r"Y~m=d\.? YN Y[年년]\s?m[月월]\s?d[日일] d~m=Y\.? m~d=Y\.? b_?d_Y d_?b_?Y a,?\sd_b_Y Y_?b_?d\.? d_b_y L-m m[/-]L "
    r"L/m L[\s:-]?Mm Y[年년]\s?m[月월] b_?Y Y_?b Y[\s/:-]?Qq Qq[\s/:-]?Y Y G-?WV G-WV-u GWVu e"
)
_SHORT_YEARS = _compile("d~m=y m~d=y y~m=d d_?b_?y b_d_y b_y")
_CLOCK = re.compile(
    r"(?i)(?:(?:,? (?:at )?|T)(?P<H>[01]\d|2[0-3]|(?<=^[ T])24|\d(?=:| ?[ap]))"
    r"(?:(:?)(?P<M>\d\d)(?:\2(?P<S>\d\d)(?:[.,](?P<f>\d+))?)?)?"
    r"(?: ?(?P<p>[ap]\.?m\.?))?(?:(?<! \d\d)(?<! \d{4}) ?(?P<z>UTC|GMT|Z|[+-]\d\d(?::?\d\d)?))?)?"  # not 10-11
)
_ISO = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{3}|\.\d{6})?)?(Z|[+-]\d\d:\d\d)?)?")
_ALL_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_INTERVAL = re.compile(r"((?!\d{6}).{6,}?)(?: (?:[-–—]|to|bis) |–|(?<=[\dZ])/(?=\d{4}-))(.+)")
_BEYOND_MICROSECONDS = re.compile(r"(?:\.\d{6}|^\d{16}(?=\d{3}$))(\d+)")
_DAY_AND_HOUR = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([01]\d|2[0-4])$")
_WRITE_ISO = "write dates as 2020-01-31"
_DIGITS_ALONE = "%Y%m %d%m%Y %m%d%Y %d%m%y %m%d%y %y%m%d %Y%m%d %Y%m%d%H %Y%m%d%H%M %Y%m%d%H%M%S"


def _forms(label: str, *, is_time: bool = False, shapes: Sequence[re.Pattern[str]] = _SHAPES) -> list[str]:
    """The forms that read a label; ten digits are seconds only where it `is_time`, unless they may be 2020013124."""
    days = [_form(match) for match in (shape.match(label) for shape in shapes) if match]
    forms = [form for form in (*days, *(f"{day}%p" for day in days)) if _read(form, label)]
    return forms if not re.fullmatch(r"\d{10}(\.\d+)?", label) or (is_time and not _DAY_AND_HOUR.match(label)) else []


def _form(match: re.Match[str]) -> str:
    """What matches, with the parts as `strptime` calls them."""
    form = match[0]
    for name in [name for name in reversed(list(match.re.groupindex)) if match[name]]:
        form = f"{form[: match.start(name)]}%{name}{form[match.end(name) :]}"
    return form


@lru_cache(maxsize=4096)
def _pattern(form: str) -> re.Pattern[str]:
    """What a day or period of a form matches; beside the number of a month alone, only likely years are no codes."""
    form = form.replace("%m%d", "%N") if "%d" in form or "%m" not in form else form.replace("%Y", "%L")
    return re.compile(re.sub("%(.)", lambda part: _PARTS[part[1]], re.escape(form)), re.IGNORECASE)


def _read(form: str, label: str) -> datetime | None:
    """The date of a label, or the start of an interval; None where it is not of this form."""
    match = _pattern(form).match(label)
    if match is None:
        return None
    text = label[match.end() :]
    day, clock = _day(form, match.groups()), _time(form, text)
    if day and text[1:3] == "24":  # the end of the day
        day = day + timedelta(days=1) if day.year < 9999 else None
    if day and clock:
        return datetime.combine(day, clock) if "%d" in form else day
    interval = _INTERVAL.fullmatch(label)
    return _read(form, interval[1]) if interval and _read(form, interval[2]) else None


@lru_cache(maxsize=100_000)
def _day(form: str, texts: Sequence[str]) -> datetime | None:
    """The day, or the first day of a period, of the parts of a form; None if the calendar has no such day."""
    parts = dict(zip(_pattern(form).groupindex, texts, strict=True))
    if "e" in parts:
        return datetime(1970, 1, 1) + timedelta(microseconds=int(parts["e"].replace(".", "").ljust(16, "0")[:16]))
    number = {name: int(re.sub(r"\D", "", part) or 0) for name, part in parts.items()}
    if "b" in parts:
        number["m"] = _months().get(_plain(parts["b"]), 0)
    with suppress(ValueError):
        if "V" in number:
            return datetime.fromisocalendar(number["G"], number["V"], number.get("u", 1))
        month = number.get("m", 3 * number.get("q", 1) - 2)
        return datetime(number.get("Y", 2000 + number.get("y", 0)), month, number.get("d", 1))
    return None


@lru_cache(maxsize=100_000)
def _time(form: str, text: str) -> time | None:
    """The time of day that comes after a day of a form; midnight for no text, None for another text."""
    match, is_half = _CLOCK.fullmatch(text), form.endswith("%p")
    with suppress(ValueError):
        if match and bool(match["p"]) == is_half and ("%d" in form or not text):
            hour, minute, second, fraction = (match[name] or "00" for name in "HMSf")
            number = datetime.strptime(f"{hour}{match['p'][0]}m", "%I%p").hour if is_half else int(hour) % 24
            zone = match["z"] or ""
            return time.fromisoformat(f"{number:02d}:{minute}:{second}.{fraction}{'Z' if zone.isalpha() else zone}")
    return None


def _strptime_form(form: str, labels: Sequence[str]) -> str:
    """A form with the longest label's time of day, full names of months where labels have them, and the language."""
    pattern, longest = _pattern(form), _start(max(labels, key=len))
    clock = _CLOCK.fullmatch(pattern.sub("", longest, count=1))
    form = form.removesuffix("%p") + (_form(clock) if clock else "")
    form = form.replace("%H", "%I") if "%p" in form else form
    if "%b" in form:
        words = {match["b"].rstrip(".").casefold() for match in map(pattern.match, labels) if match}
        for (code, end), (language, year) in product((("%B", 1), ("%b", None)), _languages().items()):
            if words <= {spell(name) for names in year for name in names[:end] for spell in (str.casefold, _plain)}:
                return form.replace("%b", code) + (f" ({language})" if language != "en" else "")
    return form


def _start(label: str) -> str:
    """The start of an interval, or any other label."""
    return interval[1] if (interval := _INTERVAL.fullmatch(label)) else label


# --- reading ------------------------------------------------------------------------------------------------------


class Dates(NamedTuple):
    """The dates of a column.

    Attributes
    ----------
    values
        Without time zones: by the wall clock or in UTC; see `wall_clock_or_utc`.
    form
        The format that `datetime.strptime` reads them by, where there is one, with the language where it is not
        English: ``"%d. %B %Y (de)"``. A quarter is ``%q``, and the time since 1970 ``%e``.
    keys
        What the rows are ordered by, to the nanosecond.
    """

    values: Sequence[datetime]
    form: str
    keys: Sequence[Any]


def read_dates(
    labels: Sequence[str], date_format: str | None = None, where: Where = "row {}".format, *, is_time: bool = False
) -> Dates | None:
    """Read a column of dates, or give None where they are no dates.

    Read are years, months, quarters, weeks and days, of numbers in any order that leaves no doubt or with names of
    months in several languages, with or without a time of day (one with a zone as `wall_clock_or_utc` says); milli-,
    micro- or nanoseconds since 1970 in 13, 16 or 19 digits, as UTC; and intervals, as their starts.

    Parameters
    ----------
    labels
        The cells of a column, with single spaces.
    date_format
        The one form to read, as `datetime.strptime` takes it.
    where
        How to call a row in a message.
    is_time
        Whether ten digits, with or without a fraction, are seconds since 1970.

    Raises
    ------
    CellError
        Some are dates of another form than others or none, could be other dates, or have a time zone alone.
    """
    if date_format is not None:
        read = partial(_strptime, date_format)
        dates = _read_first(lambda label: read(label) or read(_start(label)), labels)
        if len(dates) < len(labels):
            problem = f"{quoted(labels[len(dates)])} is not of the form {date_format!r}"
            raise CellError(len(dates), f"{problem}; correct {option('date_format')} or the row")
        return _dates(labels, dates, date_format, where)
    with suppress(ValueError):
        if labels and _ISO.fullmatch(labels[0]) and _are_alike(labels):  # fast, as there may be many
            dates, form = list(map(datetime.fromisoformat, labels)), _strptime_form("%Y-%m-%d", labels[:1])
            return _dates(labels, dates, form, where) if dates[0].tzinfo else Dates(dates, form, dates)
    found = _read_alike(labels, where, is_time)
    return found and _dates(labels, *found, where)


def _are_alike(labels: Sequence[str]) -> bool:
    """Whether labels differ in digits alone."""
    shapes = "".join(labels).encode().translate(_ALL_ZEROS)
    return shapes == shapes[: len(labels[0])] * len(labels)


def may_be_date(label: str, date_format: str | None = None, *, is_time: bool = False) -> bool:
    """Whether a cell is a date of some form, or of the one that is given."""
    return bool(_forms(label, is_time=is_time) if date_format is None else _strptime(date_format, label))


def is_full_date(label: str) -> bool:
    """Whether a cell is a date with year, month and day and more than digits."""
    return not label.isdecimal() and any(re.search("%[du]", form) for form in _forms(label))


def digit_formats(labels: Sequence[str]) -> tuple[str, ...]:
    """The formats of digits alone that read all labels, as years from 1800 to 2199."""

    def reads_all(form: str) -> bool:
        return all((date := _strptime(form, label)) and 1800 <= date.year < 2200 for label in labels)

    return tuple(filter(reads_all, _DIGITS_ALONE.split()))


def date_remedy(labels: Sequence[str]) -> str:
    """What to do about labels that are no dates: a format, unless no format reads numbers or words like these."""
    if forms := short_year_formats(labels) or digit_formats(labels[:100]):
        return f"give {option('date_format', *forms)}"
    may_have_format = not re.fullmatch(r"\d{5}|\d\d?\W\d\d?|.*[^\W\d_]{3}.*", labels[0])
    return f"give {option('date_format')}, or {_WRITE_ISO}" if may_have_format else _WRITE_ISO


def short_year_formats(labels: Sequence[str]) -> tuple[str, ...]:
    """The formats with a year of two digits that read all labels."""
    forms = [form for form in _forms(labels[0], shapes=_SHORT_YEARS) if all(_read(form, label) for label in labels)]
    return _formats(forms, labels)


def _formats(forms: Iterable[str], labels: Sequence[str]) -> tuple[str, ...]:
    """The forms as `datetime.strptime` takes them, as far as it does."""
    first = _start(labels[0])
    return tuple(form for form in (_strptime_form(form, labels) for form in forms) if _strptime(form, first))


def _strptime(form: str, label: str) -> datetime | None:
    """The date of a label as `datetime.strptime` reads it; where that is lenient, all digits must be there."""
    with suppress(ValueError):
        date = datetime.strptime(label, form)
        if not re.search("^(%[a-zA-Z])+$|%[jUVW]", form) or date.strftime(form).casefold() == label.casefold():
            return date
    return None


def _read_first(read: Callable[[str], datetime | None], labels: Sequence[str]) -> list[datetime]:
    """The dates of the labels before the first one that is not read."""
    return [date for date in takewhile(bool, map(read, labels)) if date]


def _read_alike(labels: Sequence[str], where: Where, is_time: bool) -> tuple[list[datetime], str] | None:
    """The dates of all labels by the one form that reads them, and that form."""
    sample = next((row for row, label in enumerate(labels[:1000]) if _forms(label, is_time=is_time)), None)
    if sample is None:
        return None
    found = {form: _read_first(partial(_read, form), labels) for form in _forms(labels[sample], is_time=is_time)}
    readings = {form: dates for form, dates in found.items() if len(dates) == len(labels)}
    if not readings:
        *others, end = sorted(set(map(len, found.values())))  # where each form ends
        _refuse(labels, end, others[-1] if others else sample, where)
        return None
    form, dates = next(iter(readings.items()))
    if "%y" in form:
        return None
    pairs = (pair for other in [*readings.values()][1:] for pair in enumerate(zip(dates, other, strict=True)))
    doubt, row = "may be day or month first", next((row for row, (date, other) in pairs if date != other), None)
    if len(labels) > 1 and all(map(_spans_two_years, labels)):
        doubt, row = "may be a month, or a year that ends in the next one", 0
    if row is not None:
        remedy = f"give {option('date_format', *_formats(readings, labels))}, or {_WRITE_ISO}"
        raise CellError(row, f"{quoted(labels[row])} {doubt}; {remedy}")
    return dates, _strptime_form(form, labels)


def _refuse(labels: Sequence[str], row: int, sample: int, where: Where) -> None:
    """Raise CellError about a row that is not written like another one, unless all are numbers that count."""
    numbers = list(map(int, labels)) if len(labels[sample]) == 4 and all(map(str.isdecimal, labels)) else []
    if numbers and numbers in (sorted(numbers), sorted(numbers, reverse=True)):
        return
    if is_missing(labels[row]):
        raise CellError(row, "the date is missing; fill it in or remove the row")
    alike = f"{quoted(labels[row])} is not written as {quoted(labels[sample])} in {where(sample)}"
    raise CellError(row, f"{alike}; write all dates alike and remove rows without one")


def _spans_two_years(label: str) -> bool:
    """Whether a label may be a year that ends in the next one."""
    return bool(re.fullmatch(r"\d{4}.\d\d", label)) and (int(label[2:4]) + 1) % 100 == int(label[5:])


def _dates(labels: Sequence[str], dates: list[datetime], form: str, where: Where) -> Dates:
    """Dates without zones, and their keys."""
    are_local = [date.tzinfo is None for date in dates]
    if len(set(are_local)) > 1:
        row = are_local.index(not are_local[0])
        both = f"of {quoted(labels[row])} and {quoted(labels[0])} in {where(0)}"
        raise CellError(row, f"{both} only one has a time zone; write all alike")
    if not all(are_local):
        dates, zone = wall_clock_or_utc(dates)
        form += zone
    beyond = map(_BEYOND_MICROSECONDS.search, labels if len(set(dates)) < len(dates) else ())
    digits = [match[1].rstrip("0") if match else "" for match in beyond]
    return Dates(dates, form, list(zip(dates, digits, strict=True)) if any(digits) else dates)


def wall_clock_or_utc(dates: Sequence[datetime]) -> tuple[list[datetime], str]:
    """Dates with time zones as the wall clock showed them, without a zone, or in UTC, and which of these they are.

    They are in UTC where the wall clock would put them in another order, as at the end of summer time.
    """
    wall_clock, offsets = [date.replace(tzinfo=None) for date in dates], [date.utcoffset() for date in dates]
    if len(set(offsets)) == 1:
        return wall_clock, ""
    utc = np.array(wall_clock, "M8[us]") - np.array(offsets, "m8[us]")
    ranks, wall_ranks = (np.unique(times, return_inverse=True)[1] for times in (utc, np.array(wall_clock, "M8[us]")))
    return (wall_clock, "") if np.array_equal(ranks, wall_ranks) else (utc.tolist(), " (UTC)")


# --- writing ------------------------------------------------------------------------------------------------------


def format_date(date: datetime, like: str, form: str | None = None) -> str:
    """Write a date as a column has them.

    Parameters
    ----------
    date
        What to write.
    like
        A label of the column; leading zeros and capitals are as in this one.
    form
        The column's `Dates.form`, where it is known.

    Returns
    -------
    str
        A text that `read_dates` reads. It is ISO 8601 where the form is or is not known, and where that has digits
        alone, a weekday, parts of a second or a time zone, or is the time since 1970.
    """
    form, _, language = (form or "").rstrip(")").partition(" (")
    like = _start(like)
    if re.search("^%Y-%m(?!.*%p)|^[^%]*$|%[aefz]|%[Yymdj]%[YymdjH]", form):
        has_time = re.search(r":|\d{9}|T\d|\d ?[ap]\.?m\b|%[HI]", f"{like} {form}", re.IGNORECASE)
        zone = re.search(r"(?:T\d{4,6}|:\d\d)(?:\.\d+)?(Z|[+-]\d\d(?::?\d\d)?)$", like)
        offset = "+00:00" if language == "UTC" else zone[1] if zone else ""
        is_month = form == "%Y%m" or re.fullmatch(r"\d{4}-\d\d?", like)
        end = 4 if len(like) == 4 else 7 if is_month else None if has_time else 10
        return (date.isoformat(" ") + offset)[:end]
    month = _languages()[language or "en"][date.month - 1]
    known = {"%B": month[0], "%b": month[1], "%Y": f"{date.year:04d}", "%q": f"{(date.month + 2) // 3}"}
    lone_hour = re.search(r"(?<![\d:])\d(?=:| ?[ap]\.?m\b)", like, re.IGNORECASE)
    lone_day = re.search(r"(?<![\d:])\d(?!\d|:| ?[ap]\.?m\b)", like, re.IGNORECASE)
    for code in ("HI" if lone_hour else "") + ("md" if lone_day else ""):
        known[f"%{code}"] = f"{int(date.strftime(f'%{code}'))}"
    text = re.sub("%[a-zA-Z]", lambda part: known.get(part[0]) or date.strftime(part[0]), form)
    return text.lower() if like.islower() else text.upper() if like.isupper() else text
