"""Dates: read a column by the one form that reads every cell, and write further dates in that form."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache, partial
from importlib import resources
from itertools import pairwise, takewhile
from typing import Any

from gru_xp.io.messages import CellError, option, quoted
from gru_xp.io.numbers import is_missing
from gru_xp.io.table import Where

# --- names of months ----------------------------------------------------------------------------------------------


@lru_cache
def _languages() -> dict[str, list[list[str]]]:
    """The names of the twelve months in each language: the full one, a short one, and other spellings."""
    text = resources.files("gru_xp.io").joinpath("months.csv").read_text("utf-8")
    rows = (line.split(",") for line in text.splitlines())
    return {language: [names.split("/") for names in months] for language, *months in rows}


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
# A form is "ISO 8601", or a day or period as `datetime.strptime` has it, with %q for a quarter, %e for the time since
# 1970, %b for any name of a month, and %p at its end where times of day have AM or PM.

_LENGTHS = {"Y": "4", "G": "4", "j": "3", "y": "2", "V": "2", "m": "1,2", "q": "1", "u": "1"}
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
    r"L/m L[\s:-]?Mm Y[年년]\s?m[月월] b_?Y Y_?b Y[\s/:-]?Qq Qq[\s/:-]?Y Y-j G-?WV G-WV-u GWVu e"
)
_SHORT_YEARS = _compile("d~m=y m~d=y y~m=d d_?b_?y b_d_y b_y")
_CLOCK = re.compile(
    r"(?:,? (?:at )?|T)(?P<hour>[01]\d|2[0-3]|\d(?=:| ?[ap]))(?P<rest>(?::?\d\d){2}[.,]\d+|(?::?\d\d){0,2})"
    r"(?P<half> ?[ap]\.?m\.?)?(?P<zone>(?<! \d\d)(?<! \d{4}) ?(?:UTC|GMT|Z|[+-]\d\d(?::?\d\d)?))?",  # not in 10-11
    re.IGNORECASE,
)
_ISO = re.compile(r"\d{4}(?:-\d\d?)?|\d{4}(-?)\d\d\1\d\d(?:[ T](?!24|\d\d(?::?\d\d)?[.,]|\d\d-)\d\d.*)?")
_ISO_SIGNS = {4: "-", 7: "-", 10: " T\n", 13: ":", 16: ":\n"}
_CLOCK_PARTS = re.compile(r"(?<=[.,])\d+|[+-]\d\d:?(?:\d\d)?$|\d\d?|[ap]\.?m\.?|UTC|GMT|Z", re.IGNORECASE)
_DIRECTIVES = dict.fromkeys("aApP", "%p") | dict.fromkeys("+-UuGgZz", "%z")
_INTERVAL = re.compile(r"((?!\d{6}).{6,}?)(?: (?:[-–—]|to|bis) |–|(?<=[\dZ])/(?=\d{4}-))(.+)")
_HOUR_24 = re.compile(r"[ T]24:00\b")
_TWO_YEARS = re.compile(r"\d\d(\d\d)([-/])(\d\d)")
_BEYOND_MICROSECONDS = re.compile(r"(?:\.\d{6}|^\d{16}(?=\d{3}$))(\d+)")
_DIGITS_ALONE: tuple[str, ...] = ("%Y%m", "%d%m%Y", "%m%d%Y", "%d%m%y", "%m%d%y", "%y%m%d")
_DIGITS_ALONE += ("%Y%m%d", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S")


def _forms(label: str, *, is_time: bool = False, shapes: Sequence[re.Pattern[str]] = _SHAPES) -> list[str]:
    """The forms that read a label; ten digits are seconds only where it `is_time`."""
    if not is_time and re.fullmatch(r"\d{10}(\.\d+)?", label):
        return []
    days = [_form(match) for match in (shape.match(label) for shape in shapes) if match]
    return [form for form in ("ISO 8601", *days, *(f"{day}%p" for day in days)) if _read(form, label)]


def _form(match: re.Match[str]) -> str:
    """What a shape matches, with the parts as `strptime` calls them."""
    form = match[0]
    for name in reversed(list(match.re.groupindex)):
        form = f"{form[: match.start(name)]}%{name}{form[match.end(name) :]}"
    return form


@lru_cache(maxsize=4096)
def _pattern(form: str) -> re.Pattern[str]:
    """What a day or period of a form matches; beside the number of a month alone, only likely years are no codes."""
    form = form.replace("%m%d", "%N") if "%d" in form or "%m" not in form else form.replace("%Y", "%L")
    return re.compile(re.sub("%(.)", lambda part: _PARTS[part[1]], re.escape(form)), re.IGNORECASE)


def _read(form: str, label: str) -> datetime | None:
    """The date of a label, or the start of an interval; None where it is not of this form."""
    if form == "ISO 8601":
        return _read_iso(label)
    match = _pattern(form).match(label)
    if match is None or (day := _day(form, match[0])) is None:
        return None
    after, is_half = label[match.end() :], form.endswith("%p")
    if not after and not is_half:
        return day
    if "%d" in form and (clock := _time(after, is_half)):
        return datetime.combine(day, clock)
    interval = _INTERVAL.fullmatch(label)
    return _read(form, interval[1]) if interval and _read(form, interval[2]) else None


def _are_plain_iso(labels: Sequence[str]) -> bool:
    """Whether labels are equally long days or times, if they are dates at all; fast, as there may be many."""
    text, width = "\n".join(labels) + "\n", len(labels[0]) + 1
    signs = [set(text[place::width]) <= set(sign) for place, sign in _ISO_SIGNS.items() if place < width]
    is_alike = all(signs) and {*map(len, labels)} == {width - 1}
    return width in (11, 17, 20) and is_alike and " 24:" not in text and "T24:" not in text


def _read_iso(label: str) -> datetime | None:
    """The date of a label in ISO 8601, or the first day of a year or month."""
    if not _ISO.fullmatch(label):
        return None
    try:
        return datetime.fromisoformat(label if len(label) > 7 else f"{label[:4]}-{label[5:] or 1:0>2}-01")
    except ValueError:
        return None


@lru_cache(maxsize=100_000)
def _day(form: str, text: str) -> datetime | None:
    """The day, or the first day of a period; None if the calendar has no such day."""
    match = _pattern(form).fullmatch(text)
    parts = match.groupdict() if match else {}
    if "e" in parts:
        return datetime(1970, 1, 1) + timedelta(microseconds=int(parts["e"].replace(".", "").ljust(16, "0")[:16]))
    number = {name: int(re.sub(r"\D", "", part) or 0) for name, part in parts.items()}
    if "b" in parts:
        number["m"] = _months().get(_plain(parts["b"]), 0)
    with suppress(ValueError, OverflowError):
        if "V" in number:
            return datetime.fromisocalendar(number["G"], number["V"], number.get("u", 1))
        month = number.get("m", 3 * number.get("q", 1) - 2)
        first = datetime(number.get("Y", 2000 + number.get("y", 0)), month, number.get("d", 1))
        date = first + timedelta(days=number.get("j", 1) - 1)
        return date if date.year == first.year else None
    return None


@lru_cache(maxsize=100_000)
def _time(text: str, is_half: bool) -> time | None:
    """The time of day, with AM or PM if `is_half`; None if the text is not a time of day."""
    match = _CLOCK.fullmatch(text)
    with suppress(ValueError):
        if match and bool(match["half"]) == is_half:
            hour, zone = match["hour"], (match["zone"] or "").strip()
            number = datetime.strptime(f"{hour}{match['half'].strip()[0]}m", "%I%p").hour if is_half else int(hour)
            return time.fromisoformat(f"{number:02d}{match['rest']}{'Z' if zone.isalpha() else zone}")
    return None


def _strptime_form(form: str, labels: Sequence[str]) -> str:
    """A form with full names of months where labels have them, the longest one's time of day, and the language."""
    longest, pattern = _start(max(labels, key=len)), _pattern(form)
    codes = iter(("%I" if form.endswith("%p") else "%H", "%M", "%S", "%f"))
    if "%d" in form:
        after = pattern.sub("", longest, count=1)
        clock = _CLOCK_PARTS.sub(lambda part: _DIRECTIVES.get(part[0][0]) or next(codes), after)
        form = form.removesuffix("%p") + clock
    if "%b" in form:
        words = {match["b"].rstrip(".").casefold() for match in map(pattern.match, labels) if match}
        for code, end in (("%B", 1), ("%b", None)):
            for language, year in _languages().items():
                if words <= {spell(name) for names in year for name in names[:end] for spell in (str.casefold, _plain)}:
                    return form.replace("%b", code) + (f" ({language})" if language != "en" else "")
    return form


def _start(label: str) -> str:
    """The start of an interval, or any other label."""
    interval = _INTERVAL.fullmatch(label)
    return interval[1] if interval else label


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dates:
    """The dates of a column.

    Attributes
    ----------
    values
        Without time zones: by the wall clock or in UTC; see `wall_clock_or_utc`.
    form
        ``"ISO 8601"``, or the format that `datetime.strptime` reads them by, where there is one, with the language
        where it is not English: ``"%d. %B %Y (de)"``. A quarter is ``%q``, and the time since 1970 ``%e``.
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

    Read are ISO 8601 (times with a zone as `wall_clock_or_utc` says), years, months, quarters, weeks and days, of
    numbers in any order that leaves no doubt or with names of months in several languages, with or without a time of
    day; milli-, micro- or nanoseconds since 1970 in 13, 16 or 19 digits, as UTC; and intervals, as their starts.

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
        dates = _read_first(
            lambda label: _strptime(date_format, label) or _strptime(date_format, _start(label)), labels
        )
        if len(dates) < len(labels):
            problem = f"{quoted(labels[len(dates)])} is not of the form {date_format!r}"
            raise CellError(len(dates), f"{problem}; correct {option('date_format')} or the row")
        return _dates(labels, dates, date_format, where)
    with suppress(ValueError):
        if labels and _are_plain_iso(labels):
            dates = list(map(datetime.fromisoformat, labels))
            return Dates(dates, "ISO 8601", dates)
    _refuse_two_years(labels)
    dates = _read_first(_read_iso, labels)
    if 0 < len(dates) == len(labels):
        return _dates(labels, dates, "ISO 8601", where)
    found = _read_alike(labels, where, is_time)
    return found and _dates(labels, *found, where)


def may_be_date(label: str, date_format: str | None = None, *, is_time: bool = False) -> bool:
    """Whether a cell is a date of some form, or of the one that is given."""
    return bool(_forms(label, is_time=is_time) if date_format is None else _strptime(date_format, label))


def is_full_date(label: str) -> bool:
    """Whether a cell is a date with year, month and day and more than digits."""
    return not label.isdecimal() and any(re.search("%[dju]", form) for form in _forms(label))


def digit_formats(labels: Sequence[str]) -> tuple[str, ...]:
    """The formats of digits alone that read all labels, as years from 1800 to 2199."""
    dates = {form: [_strptime(form, label) for label in labels] for form in _DIGITS_ALONE}
    return tuple(form for form, found in dates.items() if all(date and 1800 <= date.year < 2200 for date in found))


def short_year_formats(labels: Sequence[str]) -> tuple[str, ...]:
    """The formats with a year of two digits that read all labels."""
    forms = [form for form in _forms(labels[0], shapes=_SHORT_YEARS) if all(_read(form, label) for label in labels)]
    formats = [_strptime_form(form, labels) for form in forms if "%y" in form]
    return tuple(form for form in formats if _strptime(form, labels[0]))


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
    likely = (
        row for row, label in enumerate(labels[:1000]) if _forms(label, is_time=is_time) or _HOUR_24.search(label)
    )
    sample = next(likely, None)
    if sample is None:
        return None
    forms = _forms(labels[sample], is_time=is_time)
    found = {form: _read_first(partial(_read, form), labels) for form in forms}
    read = {form: dates for form, dates in found.items() if len(dates) == len(labels)}
    if not read:
        *others, row = sorted({len(dates) for dates in found.values()} or {sample})  # where each form ends
        _refuse(labels, row, others[-1] if others else sample, where)
        return None
    for row, dates in enumerate(zip(*read.values(), strict=True)):
        if len(set(dates)) > 1:
            remedy = option("date_format", *(_strptime_form(form, [labels[row]]) for form in read))
            raise CellError(row, f"{quoted(labels[row])} may be day or month first; give {remedy}")
    form = next(iter(read))
    if "%y" in form:
        formats = short_year_formats(labels)
        remedy = f"give {option('date_format', *formats)}" if formats else "write years of four digits"
        raise CellError(0, f"{quoted(labels[0])} has a year of two digits; {remedy}")
    return read[form], _strptime_form(form, labels)


def _refuse(labels: Sequence[str], row: int, sample: int, where: Where) -> None:
    """Raise CellError about a row that is not written like another one, unless all are numbers that count."""
    if len(labels[sample]) == 4 and all(map(str.isdecimal, labels)) and direction([*map(int, labels)]):
        return
    if is_missing(labels[row]):
        raise CellError(row, "the date is missing; fill it in or remove the row")
    if _HOUR_24.search(labels[row]):
        raise CellError(row, f"{quoted(labels[row])} has the hour 24, which is not read; write 00:00 of the next day")
    alike = f"{quoted(labels[row])} is not written as {quoted(labels[sample])} in {where(sample)}"
    raise CellError(row, f"{alike}; write all dates alike and remove rows without one")


def _refuse_two_years(labels: Sequence[str]) -> None:
    """Raise CellError where all labels may be years that end in the next one."""
    years = [*takewhile(bool, map(_TWO_YEARS.fullmatch, labels))]
    if len(years) == len(labels) > 1 and all((int(year[1]) + 1) % 100 == int(year[3]) for year in years if year):
        what = "may be a month, or a year that ends in the next one; if the labels are months, give"
        form = option("date_format", f"%Y{labels[0][4]}%m")
        raise CellError(0, f"{quoted(labels[0])} {what} {form}, else write the first year alone")


def _dates(labels: Sequence[str], dates: list[datetime], form: str, where: Where) -> Dates:
    """Dates without zones, and their keys."""
    offsets = {date.utcoffset() for date in dates} if any(date.tzinfo for date in dates) else {None}
    if None in offsets and len(offsets) > 1:
        zones = [date.tzinfo is not None for date in dates]
        row = zones.index(not zones[0])
        both = f"of {quoted(labels[row])} and {quoted(labels[0])} in {where(0)}"
        raise CellError(row, f"{both} only one has a time zone; write all alike")
    if len(offsets) > 1:
        ends = [date.replace(tzinfo=None) for date in (dates[0], dates[-1])]
        dates = wall_clock_or_utc(dates)
        form += " (local)" if [dates[0], dates[-1]] == ends else " (UTC)"
    elif offsets != {None}:
        dates = [date.replace(tzinfo=None) for date in dates]
    beyond = map(_BEYOND_MICROSECONDS.search, labels if len(set(dates)) < len(dates) else ())
    digits = [match[1].rstrip("0") if match else "" for match in beyond]
    return Dates(dates, form, list(zip(dates, digits, strict=True)) if any(digits) else dates)


def wall_clock_or_utc(dates: Sequence[datetime]) -> list[datetime]:
    """Dates with time zones as the wall clock showed them, without a zone, or in UTC.

    They are in UTC where the wall clock would put them in another order, or at uneven distances and UTC at even ones:
    days are 24 hours apart by the wall clock, and half-hours across a change of summer time in UTC alone.
    """
    wall_clock = [date.replace(tzinfo=None) for date in dates]
    if not all(date.tzinfo for date in dates) or len({date.utcoffset() for date in dates}) == 1:
        return wall_clock
    try:
        utc = [date.astimezone(UTC).replace(tzinfo=None) for date in dates]
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
    if all(a <= b for a, b in pairwise(keys)):
        return 1
    return -1 if all(a >= b for a, b in pairwise(keys)) else None


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
    if "%" not in form or re.search("%[aefz]|%[Yymdj]%[YymdjH]", form):
        if period := re.fullmatch(r"\d{4}(-\d\d?)?", like):
            return date.isoformat()[: 7 if period[1] else 4]
        has_time = re.search(r":|\d{9}|T\d|\d ?[ap]\.?m\b|%[HI]", f"{like} {form}", re.IGNORECASE)
        zone = re.search(r"(?<=:\d\d)(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)$", like)
        offset = {"UTC": "+00:00", "local": ""}.get(language, zone[2] if zone else "")
        if form == "%Y%m":
            return date.isoformat()[:7]
        return date.isoformat(" ") + offset if has_time else date.date().isoformat()
    lone_hour = re.search(r"(?<![\d:])\d(?=:| ?[ap]\.?m\b)", like, re.IGNORECASE)
    lone_day = re.search(r"(?<![\d:])\d(?!\d|:| ?[ap]\.?m\b)", like, re.IGNORECASE)

    def write(part: re.Match[str]) -> str:
        if part[1] in "bB":
            return _languages()[language or "en"][date.month - 1][part[1] == "b"]
        if part[1] in "Yq":
            return f"{date.year:04d}" if part[1] == "Y" else str((date.month + 2) // 3)
        is_bare = lone_hour if part[1] in "HI" else lone_day if part[1] in "md" else False
        return date.strftime(part[0]).removeprefix("0" if is_bare else "")

    text = re.sub("%([a-zA-Z])", write, form)
    return text.lower() if like.islower() else text.upper() if like.isupper() else text
