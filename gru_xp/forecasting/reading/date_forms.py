"""Forms in which people write a date: what each reads of one label, and how `datetime.strptime` would be told."""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, time, timedelta
from functools import partial
from itertools import chain, product

YEAR = re.compile(r"\d{4}")
YEAR_MONTH = re.compile(r"(\d{4})-(\d{1,2})")
_ORDINAL = re.compile(r"\d{4}-\d{3}")
_EPOCH = re.compile(r"\d{13}|\d{16}|\d{19}")
_NUMBER = re.compile(r"\d{5,7}|\d{9,}|\d+[.,eE]\d+")  # datetime.fromisoformat takes some of them for dates
_ISO_24 = re.compile(r"[^ T]+[ T]24\b.*")  # newer Pythons take it for the next day
_BEYOND_MICROSECONDS = re.compile(r"(?:\.\d{6}|^\d{16}(?=\d{3}$))(\d+)")

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_FIRST_MONTHS = {f"q{quarter}": 3 * quarter - 2 for quarter in range(1, 5)}
for _number, _name in enumerate(_MONTHS, start=1):
    _FIRST_MONTHS.update(dict.fromkeys((_name.lower(), _name[:3].lower(), str(_number), f"{_number:02d}"), _number))

_NAME = rf"(?P<month>{'|'.join(_MONTHS)}|{'|'.join(name[:3] for name in _MONTHS)})"
_LIKELY_YEAR = r"(?P<year>(?:1[89]|2[01])\d\d)"  # other numbers with a slash may be codes
_NO_DAY, _NO_CLOCK = "(?P<day>)", "(?P<clock>)"
_CLOCK = r"(?:(?:,? |T)(?P<clock>\d{1,2}\S*(?: [ap]m)?))?"
_CLOCK_PARTS = re.compile(r"(\d{1,2})(\S*?)(?: ?([ap])m)?", re.IGNORECASE)

Form = Callable[[str], datetime]
"""What reads a label; it raises ValueError where that is not of its form."""


def _read_iso(label: str) -> datetime:
    if _NUMBER.fullmatch(label) or (label[11:13] == "24" and _ISO_24.fullmatch(label)):
        raise ValueError(label)
    if YEAR.fullmatch(label):
        label += "-01-01"
    elif match := YEAR_MONTH.fullmatch(label):
        label = f"{match[1]}-{int(match[2]):02d}-01"
    return datetime.fromisoformat(label)


def _read_parts(label: str, pattern: re.Pattern[str]) -> datetime:
    match = pattern.fullmatch(label)
    if match is None:
        raise ValueError(label)
    year, month, day, clock = match.group("year", "month", "day", "clock")
    century = 2000 if len(year) == 2 else 0  # a leap year, for the 29th of February
    date = datetime(century + int(year), _FIRST_MONTHS.get(month.lower(), 13), int(day or 1))
    return datetime.combine(date, read_clock(clock)) if clock else date


def _read_ordinal(label: str) -> datetime:
    if not _ORDINAL.fullmatch(label):
        raise ValueError(label)
    return read_as(label, "%Y-%j")


def _read_epoch(label: str, digits: int) -> datetime:
    if len(label) != digits or not _EPOCH.fullmatch(label):
        raise ValueError(label)
    return datetime(1970, 1, 1) + timedelta(microseconds=int(label) * 10**16 // 10**digits)


def read_as(label: str, form: str) -> datetime:
    """A label as `datetime.strptime` reads it."""
    return datetime.strptime(label, form)


def read_clock(text: str) -> time:
    """A time of day, with or without AM or PM, seconds and zone; raise ValueError for anything else."""
    if text[:2] == "24":  # newer Pythons take it for the next day
        raise ValueError(text)
    try:
        return time.fromisoformat(text)
    except ValueError:
        match = _CLOCK_PARTS.fullmatch(text)
    if match is None:
        raise ValueError(text)
    hour = int(match[1])
    if half := match[3]:
        hour = hour % 12 + 12 * (half in "pP") if 1 <= hour <= 12 else 24
    return time.fromisoformat(f"{hour:02d}{match[2]}")


def _of_parts(pattern: str) -> Form:
    return partial(_read_parts, pattern=re.compile(pattern, re.IGNORECASE))


SHORT_YEAR = _of_parts(rf"(?P<day>\d\d?)[ -]{_NAME}[ -](?P<year>\d\d){_NO_CLOCK}")
"""The form of dates with a year of two digits, whose century is not read."""

NUMERIC_FORMS: tuple[Form, ...] = (
    _of_parts(rf"(?P<month>\d\d?)(?P<sign>[/.-])(?P<day>\d\d?)(?P=sign)(?P<year>\d{{4}}){_CLOCK}"),
    _of_parts(rf"(?P<day>\d\d?)(?P<sign>[/.-])(?P<month>\d\d?)(?P=sign)(?P<year>\d{{4}}){_CLOCK}"),
)
"""Month first, and day first."""

MONTH_FORMS: tuple[Form, ...] = (
    _of_parts(rf"{_NAME}[ -](?P<year>\d{{4}}){_NO_DAY}{_NO_CLOCK}"),
    _of_parts(rf"(?P<year>\d{{4}})[ -]{_NAME}{_NO_DAY}{_NO_CLOCK}"),
    _of_parts(rf"(?P<month>\d\d?)/{_LIKELY_YEAR}{_NO_DAY}{_NO_CLOCK}"),
    _of_parts(rf"{_LIKELY_YEAR}(?:/|[ :-]?M)(?P<month>\d\d?){_NO_DAY}{_NO_CLOCK}"),
    _of_parts(rf"(?P<year>\d{{4}})[ /:-]?(?P<month>Q[1-4]){_NO_DAY}{_NO_CLOCK}"),
    _of_parts(rf"(?P<month>Q[1-4])[ /:-]?(?P<year>\d{{4}}){_NO_DAY}{_NO_CLOCK}"),
)
"""Months and quarters, which are read as their first day."""

FORMS: tuple[Form, ...] = (
    _read_iso,
    _of_parts(rf"(?P<year>\d{{4}})(?P<sign>[/.-])(?P<month>\d\d?)(?P=sign)(?P<day>\d\d?){_CLOCK}"),
    _of_parts(rf"{_NAME} (?P<day>\d\d?),? (?P<year>\d{{4}}){_CLOCK}"),
    _of_parts(rf"(?P<day>\d\d?)[ -]{_NAME}[ -](?P<year>\d{{4}}){_CLOCK}"),
    *MONTH_FORMS,
    _read_ordinal,
    *(partial(_read_epoch, digits=digits) for digits in (13, 16, 19)),
    SHORT_YEAR,
)
"""Those that leave no doubt about day and month."""


def reads(form: Form, label: str) -> bool:
    """Whether a form reads a label."""
    try:
        form(label)
    except ValueError:
        return False
    return True


def style(form: Form, label: str) -> tuple[str, bool]:
    """What labels of a form must have in common: the sign after the first number, and whether AM or PM is written."""
    if form is _read_iso:
        return "", False
    return label.lstrip("0123456789")[:1] if label[:1].isdigit() else "", label[-1:] in ("m", "M")


def beyond_microseconds(label: str) -> str:
    """The digits of a time that `datetime` has no place for."""
    match = _BEYOND_MICROSECONDS.search(label)
    return match[1].rstrip("0") if match else ""


def has_time(label: str) -> bool:
    """Whether a label of some form says the time of day."""
    return ":" in label or _EPOCH.fullmatch(label) is not None or label[-2:].upper() in ("AM", "PM")


# --- how strptime would be told ---------------------------------------------------------------------------------

_CLOCK_FORMS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_SHORT_YEARS = (
    *(f"%d{sign}{month}{sign}%y" for month in ("%b", "%B") for sign in "- "),
    *(f"{month}{sign}%y" for month in ("%b", "%B") for sign in "- "),
    *(f"{month} %d{comma} %y" for month in ("%b", "%B") for comma in (",", "")),
    *(sign.join(order) for sign in "/.-" for order in (("%d", "%m", "%y"), ("%m", "%d", "%y"), ("%y", "%m", "%d"))),
)
_DIGITS_ALONE = ("%Y%m", "%d%m%Y", "%m%d%Y", "%Y%m%d", "%d%m%y", "%m%d%y", "%y%m%d")


def _that_read(forms: Iterable[str], labels: Sequence[str]) -> str:
    found = [form for form in forms if all(_reads_plausibly(form, label) for label in labels)]
    return " or ".join(map(repr, found))


def _reads_plausibly(form: str, label: str) -> bool:
    try:
        return 1000 <= read_as(label, form).year < 2500
    except ValueError:
        return False


def short_year_formats(labels: Sequence[str]) -> str:
    """The formats with a year of two digits that read all labels, for a message."""
    return _that_read(chain(map("".join, product(_SHORT_YEARS, _CLOCK_FORMS))), labels)


def digit_formats(labels: Sequence[str]) -> str:
    """The formats of digits alone that read all labels, for a message."""
    days = all(len(label) == 5 for label in labels)  # as spreadsheets count them
    return "" if days else _that_read(_DIGITS_ALONE, labels)


def numeric_formats(label: str) -> str:
    """The formats, day first and month first, of a label that the `NUMERIC_FORMS` read, for a message."""
    sign = style(NUMERIC_FORMS[0], label)[0]
    year = re.search(r"\d{4}", label)
    assert year is not None
    parts = iter(("%I" if label[-1] in "mM" else "%H", "%M", "%S", "%f"))
    clock = re.sub(
        r"[+-]\d\d:?\d\d$|Z$|[ap]m$|\d+",
        lambda part: "%p" if part[0][-1] in "mM" else "%z" if part[0][0] in "+-Z" else next(parts),
        label[year.end() :],
        flags=re.IGNORECASE,
    )
    return " or ".join(f"'{sign.join(order)}{sign}%Y{clock}'" for order in (("%d", "%m"), ("%m", "%d")))
