"""Dates: read a column by the one form that reads every cell, and write further dates in that form."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any

from gru_xp.io.messages import CellError, option, quoted
from gru_xp.io.numbers import is_missing

_Where = Callable[[int], str]
_Clock = tuple[time, bool]

# --- names of months ----------------------------------------------------------------------------------------------

_MONTHS = """
en January February March April May June July August September October November December
de Januar/Jänner Februar/Feber März/Mrz April Mai Juni Juli August September Oktober November Dezember
fr janvier février mars avril mai juin juillet août septembre octobre novembre décembre
es enero febrero marzo abril mayo junio julio agosto septiembre/setiembre octubre noviembre diciembre
it gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre
pt janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro
nl januari februari maart/mrt april mei juni juli augustus september oktober november december
sv januari februari mars april maj juni juli augusti september oktober november december
da januar februar marts april maj juni juli august september oktober november december
nb januar februar mars april mai juni juli august september oktober november desember
tr Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık
pl stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia
pl_ styczeń luty marzec kwiecień maj czerwiec lipiec sierpień wrzesień październik listopad grudzień
ru января февраля марта апреля мая июня июля августа сентября октября ноября декабря
ru_ январь февраль март апрель май июнь июль август сентябрь октябрь ноябрь декабрь
"""
_NAMES = {language: names for language, *names in map(str.split, _MONTHS.strip().splitlines())}


def _plain(word: str) -> str:
    """A word without capitals and accents."""
    letters = unicodedata.normalize("NFKD", word.casefold().replace("ı", "i"))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


@lru_cache(maxsize=4096)
def _months(word: str) -> dict[str, int]:
    """The month that a name, or the beginning of one, means in each language."""
    word, found = unicodedata.normalize("NFC", word.rstrip(".").casefold()), {}
    for language, months in _NAMES.items():
        spelled = [f"{names.casefold()}/{_plain(names)}".split("/") for names in months]
        names = [(month, name) for month, names in enumerate(spelled, 1) for name in names]
        full = {month for month, name in names if name == word}
        meant = full or {month for month, name in names if len(word) < 5 and name.startswith(word)}
        if len(meant) == 1:
            found[language] = meant.pop()
    return found


def _month_word(text: str) -> str:
    """The name of a month in a text; empty where there is none."""
    return max(filter(_months, re.findall(r"[^\W\d_]{3,}", text)), key=len, default="")


def _are_full(words: Collection[str]) -> bool:
    """Whether words are names of months that are not abbreviated."""
    full = {name for months in _NAMES.values() for names in months for name in _plain(names).split("/")}
    return all(_plain(word) in full for word in words) and max(map(len, words)) > 3


def _month_name(month: int, language: str, like: str, *, short: bool) -> str:
    """The name of a month, or an abbreviation, with capitals where `like` has them."""
    name, *others = _NAMES[language][month - 1].split("/")
    if short:
        cuts = (name[:end] for end in range(3, len(name)) if language in _months(name[:end]))
        name = next((other for other in others if len(other) == 3), next(cuts, name))
    return name.upper() if like.isupper() else name.title() if like[:1].isupper() else name.lower()


# --- forms --------------------------------------------------------------------------------------------------------

_LENGTHS = {"Y": "4", "G": "4", "j": "3", "y": "2", "V": "2", "m": "1,2", "d": "1,2", "q": "1", "u": "1"}
_PARTS = {name: rf"(?P<{name}>\d{{{length}}})" for name, length in _LENGTHS.items()} | {
    "L": r"(?P<Y>(?:1[89]|2[01])\d\d)",
    "b": r"(?P<b>[^\W\d_]{3,}(?:\.(?= ))?)",
    "_": r"(?:,? |[/-]|\. ?| (?:de|del|of) )",
}


def _compile(patterns: str) -> list[re.Pattern[str]]:
    """Compile patterns in which letters are parts, as `strptime` calls them, and signs at ~ are the same.

    L is a likely year, and _ what may be beside the name of a month.
    """
    signs = (text.replace("~", "(?P<sign>[/.-] ?| )", 1).replace("~", "(?P=sign)") for text in patterns.split())
    whole = (re.sub(f"[{''.join(_PARTS)}]", lambda part: _PARTS[part[0]], text) for text in signs)
    return [re.compile(text, re.IGNORECASE) for text in whole]


_DAYS = _compile(
    r"Y~m~d\.? (?=[0-9]{8}$)Ymd Y[年년]\s?m[月월]\s?d[日일] d~m~Y\.? m~d~Y\.? b_?d_Y d_?b_?Y Y_?b_?d\.? d_b_y"
)
_PERIODS = _compile(
    r"Y Y-m b_?Y Y_?b m[/-]L L/m L[\s:-]?Mm Y[年년]\s?m[月월] Y-j Y[\s/:-]?Qq Qq[\s/:-]?Y G-?WV G-WV-u GWVu"
)
_SHORT_YEARS = _compile("d~m~y m~d~y y~m~d d_?b_?y b_d_y b_y")
_DIGITS_ALONE = ("%Y%m", "%d%m%Y", "%m%d%Y", "%Y%m%d", "%d%m%y", "%m%d%y", "%y%m%d", "%Y%m%d%H", "%Y%m%d%H%M")

_HALF, _ZONE = r" ?[ap]\.?m\.?", r" ?(?:UTC|GMT|[+-]\d\d:?\d\d)"
_CLOCK = re.compile(
    rf"(.+?)(?:,? (?:at )?|(?<=\d)T)((?:\d\d?:\S+(?:{_HALF})?|\d\d?{_HALF})(?:{_ZONE})?)"
    r"|(.*\d{4}|\d{4}(?:\D+\d\d?){2}\D*|\S{6,}\d)(?: (\d\d(?:\d\d)?)|T(\d\d\S*))",
    re.IGNORECASE,
)
_CLOCK_PARTS = re.compile(rf"(\d\d?)(\S*?)({_HALF})?({_ZONE})?", re.IGNORECASE)
_DIRECTIVES = re.compile(r"(?<=[.,])\d+|\d\d?|([ap]\.?m\.?)(?=$| )|[+-]\d\d:?\d\d$|Z$| ?(?:UTC|GMT)$", re.IGNORECASE)
_NO_PART = re.compile(r"(?<=\d)(?:st|nd|rd|th|er|º|ª)\b|^[^\W\d_]{2,3}[.,]{0,2} |^[^\W\d_]{4,}, | ?\([^\W\d_]+\)$")
_EPOCH = re.compile(r"(\d{10})(?:\.\d+)?|\d{13}|\d{16}|\d{19}")
_BEYOND_MICROSECONDS = re.compile(r"(?:\.\d{6}|^\d{16}(?=\d{3}$))(\d+)")
_INTERVAL = re.compile(r"(.+?)(?: (?:[-–—]|to|bis) |–)(.+)|([^/]+)/([^/]+)")
_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:[ T](?!24)\d\d.*)?")
_HOUR_24 = re.compile(r"[ T]24:00\b")
_TWO_YEARS = re.compile(r"\d\d(\d\d)([-/])(\d\d)")


@lru_cache(maxsize=100_000)
def _read_clock(text: str) -> _Clock | None:
    """A time of day, and whether it is written with AM or PM; None for anything else."""
    match = _CLOCK_PARTS.fullmatch(text)
    if match is None or int(match[1]) not in (range(1, 13) if match[3] else range(24)):
        return None
    half, zone = ((match[group] or "").strip().upper() for group in (3, 4))
    hour = int(match[1]) % 12 + 12 * half.startswith("P") if half else int(match[1])
    with suppress(ValueError):
        return time.fromisoformat(f"{hour:02d}{match[2]}{'Z' if zone.isalpha() else zone}"), bool(half)
    return None


def _split(label: str) -> tuple[str, _Clock | None]:
    """A label's day and its time of day, if it has one."""
    if match := _CLOCK.fullmatch(label):
        day, text = filter(None, match.groups())
        if clock := _read_clock(text):
            return day, clock
    return label, None


def _halves(label: str) -> list[str]:
    """The start and the end of an interval; empty for anything else."""
    match = _INTERVAL.fullmatch(label)
    return [half for half in match.groups() if half] if match else []


def _forms(label: str, is_time: bool = False) -> dict[str, datetime]:
    """What each form reads in a label, without the time of day."""
    day, clock = _split(label)
    found = _read_day(day, clock is not None, is_time)
    if not found and (halves := _halves(label)) and not halves[0].isdecimal():
        start, end = map(_forms, halves)
        found = {f"from {form}": start[form] for form in start if form in end and start[form] <= end[form]}
    return found


def _read_day(day: str, has_clock: bool, is_time: bool) -> dict[str, datetime]:
    """The day, or the first one of the period, that each form reads in a text."""
    found = _match(_DAYS if has_clock else [*_PERIODS, *_DAYS], day) or _match(_DAYS, _NO_PART.sub("", day))
    for form in {"%Y", "%Y-%m", "%Y-%m-%d", "%Y%m%d"} & found.keys():
        found["ISO 8601"] = found[form]
    if (epoch := _EPOCH.fullmatch(day)) and (is_time or not epoch[1]):
        since = timedelta(microseconds=int(day.replace(".", "").ljust(16, "0")[:16]))
        found[f"epoch of {len(epoch[1] or day)} digits"] = datetime(1970, 1, 1) + since
    return found


def _match(patterns: Iterable[re.Pattern[str]], text: str) -> dict[str, datetime]:
    """The forms that patterns find in a text, one in each language that has the name of the month, and the dates."""
    found = {}
    for match in filter(None, (pattern.fullmatch(text) for pattern in patterns)):
        parts = {name: part for name, part in match.groupdict().items() if name != "sign"}
        form, end = "", 0
        for name in parts:
            form, end = f"{form}{text[end : match.start(name)]}%{name}", match.end(name)
        months = _months(parts.pop("b")) if "b" in parts else {"en": 3 * int(parts.pop("q", 1)) - 2}
        for language, month in months.items():
            year = "G" if "V" in parts else "Y"
            numbers = ({"u": "1"} if "V" in parts else {} if "j" in parts else {"m": str(month)}) | parts
            with suppress(ValueError):
                date = datetime.strptime(" ".join(numbers.values()), "%" + " %".join(numbers))
                if int(date.strftime(f"%{year}")) == int(parts.get(year, date.year)):  # no day 366 of 365, nor week 54
                    found[form + text[end:] + ("" if language == "en" else f" ({language})")] = date
    return found


def _whole_form(form: str, label: str, days: Iterable[str] = ()) -> str:
    """A form of days with full names of months where `days` have them, and the time of day where a label has it."""
    day, clock = _split(label)
    form, mark, language = form.removeprefix("from ").partition(" (")
    if "%b" in form and _are_full({_month_word(each) for each in days}):
        form = form.replace("%b", "%B")
    if clock and "%" in form:
        codes = iter(("%I" if clock[1] else "%H", "%M", "%S", *["%f"] * len(label)))
        form += _DIRECTIVES.sub(
            lambda part: next(codes) if part[0].isdecimal() else "%p" if part[1] else "%z", label[len(day) :]
        )
    return form + mark + language


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dates:
    """The dates of a column.

    Attributes
    ----------
    values
        Without time zones: by the wall clock or in UTC; see `wall_clock_or_utc`.
    form
        The format that `datetime.strptime` reads them by, where there is one, with the language where it is not English
        and ``%q`` for a quarter: ``"%d. %B %Y (de)"``; else ``"ISO 8601"`` or ``"epoch of 13 digits"``.
    keys
        What the rows are ordered by, to the nanosecond.
    """

    values: Sequence[datetime]
    form: str
    keys: Sequence[Any]


def read_dates(
    labels: Sequence[str], date_format: str | None = None, where: _Where = "row {}".format, *, is_time: bool = False
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
        return _dates(labels, _read_given(labels, date_format), date_format, where)
    if labels and any(form.startswith("from ") for form in _forms(labels[0])):
        return _read_intervals(labels, where)
    _refuse_two_years(labels)
    if labels and all(map(_ISO.fullmatch, labels)):
        with suppress(ValueError):
            return _dates(labels, [*map(datetime.fromisoformat, labels)], "ISO 8601", where)
    found = _read_alike(labels, where, is_time)
    return found and _dates(labels, *found, where)


def may_be_date(label: str, date_format: str | None = None, *, is_time: bool = False) -> bool:
    """Whether a cell is a date of some form, or of the one that is given."""
    with suppress(CellError):
        return bool(_forms(label, is_time) if date_format is None else _read_given([label], date_format))
    return False


def is_full_date(label: str) -> bool:
    """Whether a cell is a date with year, month and day and more than digits."""
    return not label.isdecimal() and any(re.search("%[dju]", form) for form in _forms(label))


def digit_formats(labels: Sequence[str]) -> tuple[str, ...]:
    """The formats of digits alone that read all labels, as years from 1800 to 2199."""

    def read(label: str, form: str) -> bool:
        return may_be_date(label, form) and 1800 <= datetime.strptime(label, form).year < 2200

    return tuple(form for form in _DIGITS_ALONE if all(read(label, form) for label in labels))


def short_year_formats(labels: Sequence[str]) -> tuple[str, ...]:
    """The formats with a year of two digits that read all labels."""
    days = list(dict.fromkeys(_split(label)[0] for label in labels))
    forms = (form for form in _match(_SHORT_YEARS, days[0]) if all(form in _match(_SHORT_YEARS, day) for day in days))
    whole = (_whole_form(form, labels[0], days) for form in forms)
    return tuple(form for form in whole if may_be_date(labels[0], form))


def _read_alike(labels: Sequence[str], where: _Where, is_time: bool) -> tuple[list[datetime], str] | None:
    """The dates of all labels by the one form that reads them, and that form."""
    likely = (row for row, label in enumerate(labels[:1000]) if _forms(label, is_time) or _HOUR_24.search(label))
    sample = next(likely, None)
    if sample is None:
        return None
    parts = [_split(label) for label in labels]
    rows: dict[tuple[str, bool | None], int] = {}
    for row, (day, clock) in enumerate(parts):
        rows.setdefault((day, clock and clock[1]), row)
    forms, readings, is_half = list(_forms(labels[sample], is_time)), {}, (parts[sample][1] or (None, False))[1]
    for (day, half), row in rows.items():
        found = readings[day, half] = _read_day(day, half is not None, is_time)
        still = [form for form in forms if form in found and bool(half) == is_half]
        if not still:
            _refuse(labels, row, sample, where)
            return None
        if len(still) < len(forms):
            forms, sample = still, row
    for key, row in rows.items():
        if len({readings[key][form] for form in forms}) > 1:
            remedy = option("date_format", *(_whole_form(form, labels[row]) for form in forms))
            raise CellError(row, f"{quoted(labels[row])} may be day or month first; give {remedy}")
    if "%y" in forms[0]:
        formats = short_year_formats(labels)
        remedy = f"give {option('date_format', *formats)}" if formats else "write years of four digits"
        raise CellError(0, f"{quoted(labels[0])} has a year of two digits; {remedy}")
    days = {key: found[forms[0]] for key, found in readings.items()}
    dates = [datetime.combine(days[day, clock[1]], clock[0]) if clock else days[day, None] for day, clock in parts]
    return dates, _whole_form(forms[0], max(labels, key=len), (day for day, _ in rows))


def _refuse(labels: Sequence[str], row: int, sample: int, where: _Where) -> None:
    """Raise CellError about a row that is not written like another one, unless all are numbers that count."""
    alike = f"{quoted(labels[row])} is not written as {quoted(labels[sample])} in {where(sample)}"
    if len(labels[sample]) == 4 and all(map(str.isdecimal, labels)) and direction([*map(int, labels)]):
        return
    if is_missing(labels[row]):
        raise CellError(row, "the date is missing; fill it in or remove the row")
    if _HOUR_24.search(labels[row]):
        raise CellError(row, f"{quoted(labels[row])} has the hour 24, which is not read; write 00:00 of the next day")
    raise CellError(row, f"{alike}; write all dates alike and remove rows without one")


def _refuse_two_years(labels: Sequence[str]) -> None:
    """Raise CellError where all labels may be years that end in the next one."""
    years = [(int(match[1]), int(match[3])) for match in map(_TWO_YEARS.fullmatch, labels) if match]
    if len(years) == len(labels) > 1 and all((first + 1) % 100 == last for first, last in years):
        form = option("date_format", f"%Y{labels[0][4]}%m")
        what = f"a month, or a year that ends in the next one; if the labels are months, give {form}"
        raise CellError(0, f"{quoted(labels[0])} may be {what}, else write the first year alone")


def _read_given(labels: Sequence[str], form: str) -> list[datetime]:
    """The dates of labels as `strptime` reads them; where it is lenient, all digits must be there."""
    is_fixed, dates = re.search("^(%[a-zA-Z])+$|%[jUVW]", form), []
    for row, label in enumerate(labels):
        try:
            dates.append(datetime.strptime(label, form))
            if is_fixed and dates[-1].strftime(form).casefold() != label.casefold():
                raise ValueError(label)
        except ValueError:
            remedy = f"correct {option('date_format')} or the row"
            raise CellError(row, f"{quoted(label)} is not of the form {form!r}; {remedy}") from None
    return dates


def _read_intervals(labels: Sequence[str], where: _Where) -> Dates | None:
    """The starts of intervals, whose starts and ends have one form."""
    halves, count = [_halves(label) for label in labels], len(labels)
    if [] in halves:
        _refuse(labels, halves.index([]), 0, where)
    try:
        dates = read_dates([half[end] for end in (0, 1) for half in halves], None, lambda row: where(row % count))
    except CellError as error:
        raise CellError(error.row % count, str(error)) from error
    return dates and Dates(dates.values[:count], dates.form, dates.keys[:count])


def _dates(labels: Sequence[str], dates: list[datetime], form: str, where: _Where) -> Dates:
    """Dates without zones, and their keys."""
    zones = [date.tzinfo is not None for date in dates]
    if any(zones) and not all(zones):
        row = zones.index(not zones[0])
        both = f"of {quoted(labels[row])} and {quoted(labels[0])} in {where(0)}"
        raise CellError(row, f"{both} only one has a time zone; write all alike")
    dates = wall_clock_or_utc(dates) if any(zones) else dates
    if len(set(dates)) == len(dates):
        return Dates(dates, form, dates)
    beyond = [match[1].rstrip("0") if (match := _BEYOND_MICROSECONDS.search(label)) else "" for label in labels]
    return Dates(dates, form, list(zip(dates, beyond, strict=True)) if any(beyond) else dates)


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
        The column's `Dates.form`; if None, what the label leaves no doubt about.

    Returns
    -------
    str
        A text that `read_dates` reads. It is ISO 8601 where the form is, where it has digits alone or a time zone, and
        where it is a number since 1970.
    """
    if any(name.startswith("from ") for name in _forms(like)):
        like = _halves(like)[0]
    if form is None:
        with suppress(CellError):
            form = getattr(read_dates([like], is_time=True), "form", None)
    form, (day, clock) = form or "", _split(like)
    if "%" not in form or re.search("%z|%[Yymdj]%[YymdjH]", form):
        has_time = clock or re.search("%[HI]", form) or re.match(r"\d{9}", like)
        return date.isoformat(" ") if has_time else date.date().isoformat()
    form, _, language = form.partition(" (")
    word, clock_text = _month_word(day), like[len(day) :]
    language = language.rstrip(")") or next(iter(_months(word)), "en")
    lone = {"d": re.search(r"(?<!\d)\d(?!\d)", day), "H": re.match(r"\D*\d(?!\d)", clock_text)}

    def write(code: str) -> str:
        if code in "bB":
            name = _month_name(date.month, language, word, short=code == "b")
            return f"{name}." if code == "b" and f"{word}. " in like else name
        if code in "qY":
            return f"{date.year:04d}" if code == "Y" else str((date.month + 2) // 3)
        text = date.strftime(f"%{code}")
        if code == "p" and clock_text.rstrip(".").endswith("m"):
            return text.lower()
        return text.lstrip("0") or "0" if lone.get({"m": "d", "I": "H"}.get(code, code)) else text

    return re.sub("%([a-zA-Z])", lambda part: write(part[1]), form)
