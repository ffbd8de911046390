"""Which column of a table says when, and what it says."""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from gru_xp.errors import printable
from gru_xp.forecasting.dates import direction, is_full_date, may_be_date, parse_dates, refuse_short_years
from gru_xp.forecasting.reading.cells import CellError, is_missing, listed, quoted
from gru_xp.forecasting.reading.date_forms import beyond_microseconds, digit_formats, read_clock
from gru_xp.forecasting.reading.numerals import may_be_number
from gru_xp.forecasting.reading.row_order import DUPLICATE_REMEDY
from gru_xp.forecasting.reading.table import Table

INDEX_NAMES = {"ds", "index", "year", "month", "day", "week", "quarter", "period", "timestamp", "unnamed: 0", ""}
"""Names, in small letters, of columns that number the rows or date them."""

_DATE_WORDS = {"date", "dates", "datetime", "time", "timestamp"}
_DAY_WORDS = {"date", "dates", "datetime"}
_CLOCK_PARTS = {"hour", "minute", "second", "time"}
_WITHOUT_YEAR = {"quarter", "month", "mon", "week", "day"}
_DATE_PARTS = _WITHOUT_YEAR | {"year", "date", "period"}
_MONTH_NAMES = {"month", "mon", "period", "yearmonth", "quarter"}
_WEEK_WORDS = {"week", "weeks", "wk"}
_DIGITS = re.compile(r"\d{5,8}")
_TWO_DIGITS = re.compile(r"\d\d")
_DAY_MONTH = re.compile(r"(0?[1-9]|[12]\d|3[01])\.(0?[1-9]|1[0-2])")
_YEAR_POINT_MONTH = re.compile(r"\d{4}\.(0?[1-9]|1[0-2])|(0?[1-9]|1[0-2])\.\d{4}")
_YEAR_WEEK = re.compile(r"\d{4}[-/]\d\d?|\d\d?[-/]\d{4}")
_EPOCH_SECONDS = re.compile(r"\d{9,10}(\.\d+)?")
_SAMPLE = 100


class DateColumn(NamedTuple):
    """The column that says when: its name and cells, the dates that they are, and what the rows are ordered by.

    Without `keys` the rows are in the order of the file.
    """

    name: str
    labels: Sequence[str]
    dates: Sequence[datetime] | None
    keys: Sequence[Any] | None


def find_date_column(
    table: Table, date_format: str | None, target: str | None = None, features: Sequence[str] = ()
) -> DateColumn | None:
    """The column named so, if it is the first one or one of dates; the first one, if of dates; or the only such one.

    It is not the target, nor the only column, nor a feature called index that has fractions.

    Raises
    ------
    DataError
        It has dates that cannot be told for sure, or is named a date and has none, or numbers that say no order.
    """
    used = {target, *(name for name in features if _is_price_index(name, table.columns.get(name, ())))}
    names = [name for name in table.columns if name not in used]
    name = _name(table, names, date_format) if names and len(table.columns) > 1 else None
    if name is None:
        return None
    labels = [" ".join(text.split()) for text in table.columns[name]]
    try:
        is_week = date_format is None and not _WEEK_WORDS.isdisjoint(_words(name))
        if is_week and all(map(_YEAR_WEEK.fullmatch, labels)):
            raise CellError(0, f"{quoted(labels[0])} may be a week or a month; write weeks as 2024-W01")
        if dates := parse_dates(labels, date_format, table.where):
            return DateColumn(name, labels, dates, _exact_keys(labels, dates))
        keys = _number_keys(name, labels)
        if keys is None:
            _check_clocks(labels, "" if _says_day(name) else spread_over(table, name))
        return DateColumn(name, labels, None, keys)
    except CellError as error:
        raise table.error(name, error) from error


def spread_over(table: Table, name: str, used: Sequence[str] = ()) -> str:
    """What to do where a date is spread over column `name` and others, which are not `used`; "" where it is not."""
    parts = _CLOCK_PARTS if _says_day(name) else _CLOCK_PARTS | _DATE_PARTS  # a whole date may have its month beside it
    others = [other for other in table.columns if _letters(other) in parts and other not in (name, *used)]
    if not others:
        return ""
    return f"the date is spread over {len(others) + 1} columns ({listed([name, *others])}); join them into one"


def duplicate_remedy(table: Table, date: DateColumn, used: Sequence[str]) -> str:
    """What to do about rows with the same date; the columns that are `used` do not tell them apart."""
    if spread := spread_over(table, date.name, used):
        return spread
    for other, cells in list(table.columns.items())[:_SAMPLE]:
        if other not in (date.name, *used) and _tells_series_apart(cells, date.labels):
            return f"several series found (column {printable(other)}); keep the rows of one"
    if date.dates is None and _letters(date.name) in _WITHOUT_YEAR:
        return f"column {printable(date.name)} says no year; write dates as 2020-01-31"
    return DUPLICATE_REMEDY


def _tells_series_apart(cells: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether cells name a few series, each of which has a date once."""
    if _is_numbers(cells) or any(is_missing(text.strip()) or ":" in text for text in cells):
        return False
    kinds = {text.strip().lower() for text in cells}
    return 2 * len(kinds) <= len(cells) == len(set(zip(labels, cells, strict=True))) and not kinds <= {"am", "pm"}


def notices_without_dates(table: Table) -> list[str]:
    """What to say of a table in which `find_date_column` finds none: which columns look like dates."""
    if not (names := _full_date_columns(table)):
        return []
    return [
        f"the rows are taken in the order of the file, since {len(names)} columns look like dates ({listed(names)}); "
        "call the one that says when Date"
    ]


def _name(table: Table, names: Sequence[str], date_format: str | None) -> str | None:
    """The one of `names` that says when."""
    first = next(iter(table.columns))
    named = [name for says in (_says_date, _says_index) for name in names if says(name)][:_SAMPLE]
    if date_format is not None:
        candidates = [*named, *names[:_SAMPLE]]
        return next((name for name in candidates if _has_dates(table.columns[name], date_format)), candidates[0])
    chosen = next((name for name in named if name == first or _may_say_when(name, table.columns[name])), None)
    if chosen is not None:
        if _has_dates(table.columns[chosen]):
            return chosen
        days = (name for name in named if _says_day(name) and _has_dates(table.columns[name]))
        chosen = next((name for name in days if len(set(table.columns[name])) == len(table.lines)), chosen)
        if _says_date(chosen):
            return chosen
    elif first in names and not _is_numbers(table.columns[first]) and _has_dates(table.columns[first]):
        return first
    called = [name for name in named if name.lower() in _DATE_WORDS and not _is_numbers(table.columns[name])]
    return _only_full_dates(table, called[0] if called else chosen)


def _is_numbers(cells: Sequence[str]) -> bool:
    return all(may_be_number(text) or is_missing(text.strip()) for text in cells)


def _only_full_dates(table: Table, index: str | None) -> str | None:
    """The only column of full dates, which are all different if there is an index; or else that index."""
    names = _full_date_columns(table)
    if len(names) != 1 or (index is not None and len(set(table.columns[names[0]])) < len(table.lines)):
        return index
    return names[0]


def _full_date_columns(table: Table) -> list[str]:
    """The columns of which every cell is a date with year, month and day."""
    names = [name for name in list(table.columns)[:_SAMPLE] if name not in table.numbers]
    return [name for name in names if all(is_full_date(" ".join(text.split())) for text in table.columns[name])]


def _is_price_index(name: str, cells: Sequence[str]) -> bool:
    """Whether a column called index is one of prices, and does not count rows."""
    return _letters(name) == "index" and any("." in text for text in cells) and not _has_dates(cells)


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)]


def _says_date(name: str) -> bool:
    return not _DATE_WORDS.isdisjoint(_words(name))


def _says_day(name: str) -> bool:
    return not _DAY_WORDS.isdisjoint(_words(name))


def _says_index(name: str) -> bool:
    return name.lower() in INDEX_NAMES


def _has_dates(cells: Sequence[str], date_format: str | None = None) -> bool:
    """Whether most of the first cells are dates."""
    sample = [" ".join(text.split()) for text in cells[:_SAMPLE]]
    return 2 * sum(may_be_date(text, date_format) for text in sample) > len(sample)


def _may_say_when(name: str, cells: Sequence[str]) -> bool:
    return _has_dates(cells) or (_says_day(name) and _is_digits(cells))


def _is_digits(cells: Sequence[str]) -> bool:
    """Whether all cells could be dates in digits alone, such as 01122019, but are not year, month and day."""
    return all(_DIGITS.fullmatch(text.strip()) for text in cells) and not _has_dates(cells)


def _exact_keys(labels: Sequence[str], dates: Sequence[datetime]) -> Sequence[Any]:
    """What tells dates apart, to the nanosecond where `datetime` does not."""
    if len(set(dates)) == len(dates):
        return dates
    return [(date, beyond_microseconds(label)) for label, date in zip(labels, dates, strict=True)]


def _number_keys(name: str, labels: Sequence[str]) -> list[float] | None:
    """The numbers of labels that are no dates; raise CellError where the column is named a date and they may be."""
    numbers = _numbers(labels)
    if numbers is None:
        return None
    remedy = f"or rename column {printable(name)} if it only counts"
    if name.lower() == "year" and all(map(_TWO_DIGITS.fullmatch, labels)) and direction(numbers) is None:
        raise CellError(0, f"{quoted(labels[0])} is a year of two digits; write four, or give --date-format %y")
    letters = _letters(name)
    if letters in _MONTH_NAMES and all(map(_YEAR_POINT_MONTH.fullmatch, labels)):
        raise CellError(
            0, f"{quoted(labels[0])} may be a month, or a fraction of a year; write months as 2020-01, {remedy}"
        )
    counts = not _says_day(name) or all(map(_EPOCH_SECONDS.fullmatch, labels))
    if counts and (letters not in _WITHOUT_YEAR or direction(numbers) is not None):
        return numbers
    if _is_digits(labels):
        formats = digit_formats(labels)
        problem = f"{quoted(labels[0])} is a date in digits alone"
        if formats:
            raise CellError(0, f"{problem}; say how by --date-format {formats}, {remedy}")
        raise CellError(0, f"{problem}, as spreadsheets count days; write dates as 2020-01-31, {remedy}")
    if all(map(_DAY_MONTH.fullmatch, labels)):
        raise CellError(0, f"{quoted(labels[0])} may be day and month; write dates with the year, {remedy}")
    late = next((row for row in range(1, len(numbers)) if numbers[row] < numbers[row - 1]), None)
    if late is not None:
        raise CellError(
            late,
            f"{quoted(labels[late])} comes after {quoted(labels[late - 1])}, and numbers that do not rise say no date; "
            f"write dates as 2020-01-31, {remedy}",
        )
    return numbers


def _check_clocks(labels: Sequence[str], spread: str) -> None:
    """Raise CellError unless labels are times of one day, which rise; `spread` is from `spread_over`."""
    missing = next((row for row, label in enumerate(labels) if is_missing(label)), None)
    if missing is not None:
        raise CellError(missing, "the date is missing; fill it in or remove the row")
    remedy = "if the rows are in the order of time, rename the column"
    try:
        clocks = [read_clock(label if ":" in label or label[-1:] in "mM" else "") for label in labels]
    except ValueError:
        refuse_short_years(labels)
        row = next((row for row, label in enumerate(labels) if not may_be_number(label)), 0)
        spread = spread or f"say how to read it by --date-format, as in '%d/%m/%Y' for 31/12/2020, or, {remedy}"
        raise CellError(row, f"{quoted(labels[row])} is not read as a date; {spread}") from None
    late = next((row for row, (a, b) in enumerate(pairwise(clocks), start=1) if not a < b), None)
    if late is not None:
        spread = spread or f"write the date before the time, or, {remedy}"
        raise CellError(
            late,
            f"{quoted(labels[late])} comes after {quoted(labels[late - 1])}, and times of day that do not rise say no "
            f"order; {spread}",
        )


def _numbers(labels: Sequence[str]) -> list[float] | None:
    try:
        numbers = list(map(float, labels))
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) and "_" not in "".join(labels) else None
