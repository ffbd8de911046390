"""Tables from CSV files: rows that all have as many fields as the header, each with its line."""

import csv
import re
from array import array
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from gru_xp.errors import DataError, printable
from gru_xp.io.dates import is_full_date, may_be_date, short_year_formats
from gru_xp.io.messages import listed, option, quoted
from gru_xp.io.numbers import is_missing, may_be_number
from gru_xp.io.options import ReadOptions
from gru_xp.io.table import Column, Table, join_levels
from gru_xp.io.text import open_text

MAX_CELLS = 2**26
"""Cells of a table: each takes some 60 bytes."""

Record = tuple[int, list[str]]
"""The line that a record ends in, and its fields."""

_LOOKED_AT = 100
_EXCEL_DELIMITER = re.compile(r'\s*"?sep=([;\t|,])"?\s', re.IGNORECASE)
_ABOVE_HEADER = re.compile(r"\s*(sep=[;\t|,]?)?\s*", re.IGNORECASE)


def read_csv_table(path: Path, name: str, options: ReadOptions) -> Table:
    """Read a CSV file with a header line, or with those that pandas writes for columns of several levels.

    Parameters
    ----------
    path
        The file; ``-`` is stdin.
    name
        What to call it in messages.
    options
        Of which the encoding, the decimal sign and the marks of missing values are used.

    Raises
    ------
    DataError
        The file cannot be read, has no header or other lines above its rows, or a row has more or fewer fields than it.
    """
    lines = open_text(path, name, options.encoding)
    delimiter = _delimiter("".join(islice(lines, _LOOKED_AT)), options.decimal)
    try:
        reader = _reader(lines, delimiter)
        top, names = _header([(reader.line_num, row) for row in islice(reader, _LOOKED_AT)], options.missing_values)
        reader = _reader(lines, delimiter)
        while reader.line_num < top:
            next(reader)
        ends, columns = _columns(reader, names, options.decimal)
        if not ends:
            raise DataError(f"line {top}: a header line and no rows; add rows of numbers")
    except csv.Error as error:
        raise DataError(f"{name}, {_csv_problem(lines, delimiter)}") from error
    except DataError as error:
        raise DataError(f"{name}, {error}") from error
    used = [(title, cells) for title, cells in zip(names, columns, strict=True) if title or not _is_blank(cells)]
    return Table(name, tuple(Column(title, partial(list, cells)) for title, cells in used), ends, delimiter=delimiter)


def _is_blank(cells: Iterable[str]) -> bool:
    return not "".join(cells).strip()


def _is_value(cell: str) -> bool:
    return may_be_number(cell) or may_be_date(cell) or short_year_formats([cell]) != ()


def _delimiter(sample: str, decimal: str | None) -> str:
    """The sign that Excel's first line names, or else the most frequent one in the first line that has any.

    Signs in quotes do not count, nor commas below the header, where they may be decimal ones.
    """
    if named := _EXCEL_DELIMITER.match(sample):
        return named[1]
    unquoted = re.sub(r'(^|[;\t|,]) *"(?:[^"]|"")*"', r"\1", sample)
    lines = [line for line in unquoted.splitlines() if line.strip(" ")] or [""]
    likely = ";\t|" if decimal == "," else ";\t|,"
    tries = [*((line, likely) for line in lines), (lines[0], ",")]
    return next((max(signs, key=line.count) for line, signs in tries if set(signs) & set(line)), likely[-1])


def _reader(lines: IO[str], delimiter: str) -> Any:
    """Read the rows from the first one, one by one: the loop over them takes most of the time."""
    lines.seek(0)
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)


def _csv_problem(lines: IO[str], delimiter: str) -> str:
    """Find the row that is not CSV, and say where it begins and what is wrong."""
    reader, end = _reader(lines, delimiter), 0
    try:
        for _ in reader:
            end = reader.line_num
    except csv.Error as error:
        problem = f"not CSV ({printable(str(error))}, in line {reader.line_num})"
        return f"line {end + 1}: {problem}; is there a quote that is not closed?"
    raise AssertionError("all rows are CSV")


def _header(begin: Iterable[Record], marks: Collection[str]) -> tuple[int, list[str]]:
    """The line in which the header ends, and the names of the columns.

    It is the first line. Further ones without numbers and dates, but with words where the first row below them has
    numbers, are levels as pandas writes them, or refused. The last of these levels names the index and nothing else.
    """
    rows_of_text = (record for record in begin if not _ABOVE_HEADER.fullmatch("".join(record[1])))
    head = [(line, [" ".join(cell.split()) for cell in row]) for line, row in rows_of_text]
    if not head:
        raise DataError("line 1: the file is empty; it must have a header line and rows of numbers")
    lines, rows = zip(*head, (0, [""]), strict=True)
    first, second = rows[:2]
    is_title = len(first) > 2 and not any(first[1:]) and any(second[1:])
    is_repeated = any(is_full_date(a) and is_full_date(b) for a, b in zip(first, second, strict=False))
    if _is_value(first[0]) or is_title or is_repeated:
        found = f"the first line looks like data or a title ({listed(filter(None, first), 3)})"
        raise DataError(f"line {lines[0]}: {found}; add a header line with column names, or remove lines before it")
    end = next((i for i in range(1, len(head)) if _has_values(rows[i], marks)), len(head))
    levels, data = rows[:end], rows[end]
    pairs = [pair for row in levels[1:] for pair in zip(row, data, strict=False)]
    words = [cell for cell, value in pairs if may_be_number(value) and not is_missing(cell)]
    if not words:
        return lines[0], first
    *upper, (index, *rest) = levels
    is_table = _is_value(data[0]) and {*map(len, levels)} == {len(data)}
    if is_table and index and rest and not any(rest) and all(first[1:]):
        return lines[end - 1], [index, *join_levels([row[1:] for row in upper])]
    found = f"lines {lines[0]} to {lines[end - 1]} are above the first row of values ({listed(words, 3)})"
    remedy = f"keep the header line and remove the others; or, if {quoted(words[0])} marks a missing value, give"
    raise DataError(f"{found}; {remedy} {option('missing_values', words[0])}")


def _has_values(row: Sequence[str], marks: Collection[str]) -> bool:
    """Whether a row has numbers, dates or words for missing ones."""
    return any(_is_value(cell) or (is_missing(cell, marks) and cell.strip("-.") != "") for cell in row)


def _columns(reader: Any, names: list[str], decimal: str | None) -> tuple[Sequence[int], list[list[str]]]:
    """The line of each row, and the cells of each column, without blank lines and empty rows at the end."""
    cells: list[str] = []  # they take far less memory than rows do
    ends, width = array("q"), len(names)
    for row in islice(reader, MAX_CELLS // width + 1):
        if len(row) == width:
            ends.append(reader.line_num)
            cells.extend(row)
        elif len(row) > 1 or not _is_blank(row):
            remedy = "put quotes around a field that holds the delimiter, or remove the lines before the header"
            if width == 1 and decimal is None:
                remedy = f"give {option('decimal', ',')} if that is what the commas are, or {remedy}"
            found = f"has {len(row)} fields; the header has {width} ({listed(names, 3)})"
            raise DataError(f"line {reader.line_num}: {found}; correct the line, or {remedy}")
    if len(cells) > MAX_CELLS:
        raise DataError(f"line {reader.line_num}: more than {MAX_CELLS:,} cells; leave out columns or rows")
    while width > 1 and ends and _is_blank(cells[-width:]):
        del ends[-1], cells[-width:]
    return ends, [cells[place::width] for place in range(width)]
