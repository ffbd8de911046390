"""Series from CSV files: every value is what the file says, or there is an error that names line and column."""

import csv
import io
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gru_xp.errors import DataError
from gru_xp.forecasting.dates import direction, parse_dates
from gru_xp.forecasting.series import LARGEST, TimeSeries, check_columns

_INDEX_NAMES = {"ds", "index", "year", "month", "day", "week", "quarter", "period", "timestamp", "unnamed: 0", ""}
_DATE_WORDS = {"date", "dates", "datetime", "time", "timestamp"}
_DELIMITERS = ",;\t|"
_MISSING = {"", "na", "n/a", "nan", "null", "none", "#n/a"}


class _Table(NamedTuple):
    name: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]  # the line of the file that each row ends on

    def column(self, name: str) -> list[str]:
        index = self.header.index(name)
        return [row[index] for row in self.rows]


def bundled_names() -> list[str]:
    """Names of the bundled files."""
    return sorted(entry.name for entry in files("gru_xp.data").iterdir() if entry.name.endswith(".csv"))


def bundled_file(name: str) -> Path:
    """The bundled file of that name, such as ``"GOOG.csv"``."""
    return Path(str(files("gru_xp.data") / name))


def find_file(path: str) -> tuple[Path, bool]:
    """The file that `path` means, and whether it is a bundled one.

    A path that exists is itself; the bare name of a bundled file, with or without ``.csv``, is that file.

    Raises
    ------
    DataError
        There is no such file, or it is a directory.
    """
    if not path:
        raise DataError("the name of the CSV file is empty; give a path, or a bundled name such as GOOG.csv")
    file = Path(path)
    if file.is_dir():
        raise DataError(f"{path}: is a directory; give a CSV file in it")
    if file.exists():
        return file, False
    for name in bundled_names():
        if path in (name, name.removesuffix(".csv")):
            return bundled_file(name), True
    raise DataError(
        f"{path}: no such file; give the path of a CSV file, or a bundled one: {', '.join(bundled_names())}"
    )


def read_csv(
    path: str | Path, target: str | None = None, features: Sequence[str] = (), *, name: str | None = None
) -> TimeSeries:
    """Read a series from a CSV file with a header line.

    Delimiters are comma, semicolon, tab or bar; the decimal sign is a point. Rows are in the order of time; a file
    that runs from new to old is turned round, with a notice.

    Parameters
    ----------
    path
        The file.
    target
        The column to predict; if None, ``Close``, or else the only numeric column.
    features
        Further input columns.
    name
        What to call the file in messages; its path if None.

    Returns
    -------
    TimeSeries

    Raises
    ------
    DataError
        The file cannot be used; the message says what is where.
    """
    table = _read_table(Path(path), name or str(path))
    index = _index_column(table)
    target = target or _default_target(table, index)
    columns = (target, *(name for name in dict.fromkeys(features) if name != target))
    try:
        check_columns(columns, table.header)
    except DataError as error:
        raise DataError(f"{table.name}: {error}") from error
    values = np.column_stack([_numbers(table, name) for name in columns])

    labels = None if index is None else table.column(index)
    dates = None if labels is None else parse_dates(labels)
    notices = []
    if labels is not None and index is not None:
        keys = dates or _maybe_numbers(labels)
        if keys is None:
            notices.append(f"column {index}: not read as dates; the rows are taken in the order of the file")
        elif _turn(table, index, keys, notices):
            values, labels = values[::-1].copy(), labels[::-1]
            dates = None if dates is None else dates[::-1]
    return TimeSeries(
        values,
        columns,
        None if labels is None else tuple(labels),
        None if dates is None else tuple(dates),
        table.name,
        tuple(notices),
    )


def _read_table(file: Path, path: str) -> _Table:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not a text file in UTF-8; unpack it if it is compressed, or save it as CSV in UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if "\0" in text:
        raise DataError(f"{path}: not a text file; give a CSV file")
    if not text.strip():
        raise DataError(f"{path}: the file is empty; it must have a header line and rows of numbers")
    lines = io.StringIO(text, newline="").readlines()  # str.splitlines would break at other signs, too
    first = next(line for line in lines if line.strip())
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    rows, ends = [], []
    try:
        for row in reader:
            fields = [" ".join(field.split()) for field in row]
            if any(fields):
                rows.append(fields)
                ends.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
    if not rows:
        raise DataError(f"{path}: the file is empty but for delimiters; it must have a header line and rows of numbers")
    header, rows, ends = rows[0], rows[1:], ends[1:]
    while header[-1] == "" and len(header) > 1 and all(len(r) == len(header) and r[-1] == "" for r in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]  # every line ends with a delimiter
    _check_header(path, header)
    if not rows:
        raise DataError(f"{path}: has a header line and no rows; add rows of numbers")
    for row, line in zip(rows, ends, strict=True):
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {line}: has {len(row)} fields; the header has {len(header)} ({', '.join(header)})"
            )
    return _Table(path, header, rows, ends)


def _check_header(path: str, header: list[str]) -> None:
    if all(_is_number(name) or parse_dates([name]) for name in header):
        raise DataError(
            f"{path}: the first line looks like data ({', '.join(header)[:60]}); add a header line with column names"
        )
    repeated = next((name for i, name in enumerate(header) if name in header[:i]), None)
    if repeated is not None:
        raise DataError(f"{path}: the header names column {repeated!r} twice; rename one of them")


def _index_column(table: _Table) -> str | None:
    """The column that says when: named so, and the first one or one of dates; or the first one, if of dates."""
    first = table.header[0]
    for by_name in (_says_date, lambda name: name.lower() in _INDEX_NAMES):
        for name in filter(by_name, table.header):
            if name == first or parse_dates(table.column(name)):
                return name
    labels = table.column(first)
    return first if _maybe_numbers(labels) is None and parse_dates(labels) else None


def _says_date(name: str) -> bool:
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", name)
    return any(word.lower() in _DATE_WORDS for word in words)


def _default_target(table: _Table, index: str | None) -> str:
    if "Close" in table.header:
        return "Close"
    candidates = [name for name in table.header if name != index and name.lower() not in _INDEX_NAMES]
    numeric = [name for name in candidates if sum(map(_is_number, table.column(name))) > len(table.rows) / 2]
    if len(numeric) == 1:
        return numeric[0]
    if not numeric:
        raise DataError(f"{table.name}: no numeric column; the columns are {', '.join(table.header)}")
    raise DataError(
        f"{table.name}: {len(numeric)} numeric columns and none is called Close; choose one with --target: "
        f"{', '.join(numeric)}"
    )


def _is_number(text: str) -> bool:
    if "_" in text:  # Python reads 1_000 as a number, people do not write it
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def _maybe_numbers(texts: Sequence[str]) -> list[float] | None:
    numbers = [float(text) if _is_number(text) else math.nan for text in texts]
    return numbers if all(map(math.isfinite, numbers)) else None


def _numbers(table: _Table, name: str) -> list[float]:
    numbers = []
    for text, line in zip(table.column(name), table.lines, strict=True):
        number = float(text) if _is_number(text) else math.nan
        if not abs(number) <= LARGEST:
            if text.lower().lstrip("+-") in _MISSING:
                problem = "the value is missing" if text == "" else f"the value is missing ({text!r})"
            elif _is_number(text):
                problem = f"{text!r} is too large{' for a number' if math.isinf(number) else f', above {LARGEST:g}'}"
            else:
                problem = f"{text!r} is not a number"
            raise DataError(f"{table.name}, line {line}, column {name}: {problem}; correct the row or remove it")
        numbers.append(number)
    return numbers


def _turn(table: _Table, index: str, keys: Sequence[Any], notices: list[str]) -> bool:
    """Whether the rows must be turned round; raise DataError where they are in no order at all."""
    way = direction(keys)
    if way is None:
        rising = keys[-1] >= keys[0]
        wrong = next(i for i in range(1, len(keys)) if (keys[i] < keys[i - 1]) == rising and keys[i] != keys[i - 1])
        before, here = table.column(index)[wrong - 1 : wrong + 1]
        raise DataError(
            f"{table.name}, line {table.lines[wrong]}, column {index}: {here} comes after {before}; "
            f"sort the rows by {index}"
        )
    equal = [i for i in range(1, len(keys)) if keys[i] == keys[i - 1]]
    if equal:
        notices.append(
            f"column {index}: {len(equal)} row(s) repeat the one before, first in line {table.lines[equal[0]]} "
            f"({table.column(index)[equal[0]]}); each row is taken as one step"
        )
    if way == -1 and len(equal) < len(keys) - 1:
        notices.append("the rows run from new to old; they are turned round")
        return True
    return False
