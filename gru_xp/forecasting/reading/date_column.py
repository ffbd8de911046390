"""Which column of a table says when, and what it says."""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from gru_xp.errors import printable
from gru_xp.forecasting.dates import is_full_date, may_be_date, parse_dates
from gru_xp.forecasting.reading.cells import CellError, is_missing, listed, quoted
from gru_xp.forecasting.reading.numerals import may_be_number
from gru_xp.forecasting.reading.table import Table

INDEX_NAMES = {"ds", "index", "year", "month", "day", "week", "quarter", "period", "timestamp", "unnamed: 0", ""}
"""Names, in small letters, of columns that number the rows or date them."""

_DATE_WORDS = {"date", "dates", "datetime", "time", "timestamp"}
_DAY_WORDS = {"date", "dates", "datetime"}
_DIGITS = re.compile(r"\d{5,8}")
_DAY_MONTH = re.compile(r"(0?[1-9]|[12]\d|3[01])\.(0?[1-9]|1[0-2])")
_EPOCH_SECONDS = re.compile(r"\d{9,10}(\.\d+)?")
_SAMPLE = 100


class DateColumn(NamedTuple):
    """The column that says when: its name and cells, the dates that they are, and what the rows are ordered by."""

    name: str
    labels: Sequence[str]
    dates: Sequence[datetime] | None
    keys: Sequence[Any] | None


def find_date_column(table: Table, date_format: str | None) -> DateColumn | None:
    """The column named so, if it is the first one or one of dates; the first one, if of dates; or the only such one.

    Raises
    ------
    DataError
        It has dates that cannot be told for sure, or is named a date and has numbers that say no order.
    """
    name = _name(table, date_format)
    if name is None:
        return None
    labels = [" ".join(text.split()) for text in table.columns[name]]
    try:
        dates = parse_dates(labels, date_format, table.where)
        return DateColumn(name, labels, dates, dates or _number_keys(name, labels))
    except CellError as error:
        raise table.error(name, error) from error


def notices_without_dates(table: Table) -> list[str]:
    """What to say of a table in which `find_date_column` finds none: which columns look like dates."""
    if not (names := _full_date_columns(table)):
        return []
    return [
        f"the rows are taken in the order of the file, since {len(names)} columns look like dates ({listed(names)}); "
        "call the one that says when Date"
    ]


def _name(table: Table, date_format: str | None) -> str | None:
    first, *_ = names = list(table.columns)
    named = [name for says in (_says_date, _says_index) for name in names if says(name)][:_SAMPLE]
    if date_format is not None:
        candidates = [*named, *names[:_SAMPLE]]
        return next((name for name in candidates if _has_dates(table.columns[name], date_format)), candidates[0])
    chosen = next((name for name in named if name == first or _may_say_when(name, table.columns[name])), None)
    if chosen is not None and (_says_date(chosen) or _has_dates(table.columns[chosen])):
        return chosen
    is_numbers = all(may_be_number(text) or is_missing(text.strip()) for text in table.columns[first])
    if chosen is None and not is_numbers and _has_dates(table.columns[first]):
        return first
    return _only_full_dates(table, chosen)


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


def _number_keys(name: str, labels: Sequence[str]) -> list[float] | None:
    """The numbers of labels that are no dates; raise CellError where the column is named a date and they may be."""
    numbers = _numbers(labels)
    if numbers is None or not _says_day(name) or all(map(_EPOCH_SECONDS.fullmatch, labels)):
        return numbers
    remedy = f"or rename column {printable(name)} if it only counts"
    if _is_digits(labels):
        raise CellError(
            0, f"{quoted(labels[0])} is a date in digits alone; say how by --date-format, as in %d%m%Y, {remedy}"
        )
    if all(map(_DAY_MONTH.fullmatch, labels)):
        raise CellError(0, f"{quoted(labels[0])} may be day and month; write dates with the year, {remedy}")
    late = next((row for row in range(1, len(numbers)) if numbers[row] < numbers[row - 1]), None)
    if late is not None:
        raise CellError(
            late,
            f"{quoted(labels[late])} comes after {quoted(labels[late - 1])}, and numbers that do not rise say no date; "
            f"say how to read them by --date-format, as in %d%m%Y, {remedy}",
        )
    return numbers


def _numbers(labels: Sequence[str]) -> list[float] | None:
    try:
        numbers = list(map(float, labels))
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) and "_" not in "".join(labels) else None
