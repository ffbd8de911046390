"""Which column of a table says when, and what it says."""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from gru_xp.forecasting.dates import may_be_date, parse_dates
from gru_xp.forecasting.reading.cells import CellError, is_missing
from gru_xp.forecasting.reading.numerals import may_be_number
from gru_xp.forecasting.reading.table import Table

INDEX_NAMES = {"ds", "index", "year", "month", "day", "week", "quarter", "period", "timestamp", "unnamed: 0", ""}
"""Names, in small letters, of columns that number the rows or date them."""

_DATE_WORDS = {"date", "dates", "datetime", "time", "timestamp"}
_SAMPLE = 100


class DateColumn(NamedTuple):
    """The column that says when: its name and cells, the dates that they are, and what the rows are ordered by."""

    name: str
    labels: Sequence[str]
    dates: Sequence[datetime] | None
    keys: Sequence[Any] | None


def find_date_column(table: Table, date_format: str | None) -> DateColumn | None:
    """The column named so, if it is the first one or one of dates; or the first one, if of dates.

    Raises
    ------
    DataError
        It has dates that cannot be told for sure.
    """
    name = _name(table, date_format)
    if name is None:
        return None
    labels = [" ".join(text.split()) for text in table.columns[name]]
    try:
        dates = parse_dates(labels, date_format, table.where)
    except CellError as error:
        raise table.error(name, error) from error
    return DateColumn(name, labels, dates, dates or _numbers(labels))


def _name(table: Table, date_format: str | None) -> str | None:
    first, *_ = names = list(table.columns)
    named = [name for says in (_says_date, _says_index) for name in names if says(name)][:_SAMPLE]
    if date_format is not None:
        candidates = [*named, *names[:_SAMPLE]]
        return next((name for name in candidates if _has_dates(table.columns[name], date_format)), candidates[0])
    for name in named:
        if name == first or _has_dates(table.columns[name]):
            return name
    is_numbers = all(may_be_number(text) or is_missing(text.strip()) for text in table.columns[first])
    return first if not is_numbers and _has_dates(table.columns[first]) else None


def _says_date(name: str) -> bool:
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", name)
    return any(word.lower() in _DATE_WORDS for word in words)


def _says_index(name: str) -> bool:
    return name.lower() in INDEX_NAMES


def _has_dates(cells: Sequence[str], date_format: str | None = None) -> bool:
    """Whether most of the first cells are dates."""
    sample = [" ".join(text.split()) for text in cells[:_SAMPLE]]
    return 2 * sum(may_be_date(text, date_format) for text in sample) > len(sample)


def _numbers(labels: Sequence[str]) -> list[float] | None:
    try:
        numbers = list(map(float, labels))
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) and "_" not in "".join(labels) else None
