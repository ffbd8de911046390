"""Tables from CSV files: rows that all have as many fields as the header, each with its line."""

import csv
import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate, chain, dropwhile, islice
from pathlib import Path

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

Batch = tuple[Sequence[int], list[list[str]]]

_BATCH = 512
"""Rows that are turned into columns at once; with more, they leave the cache."""
_LOOKED_AT, _HEAD = 100, 20
_LINE_END = re.compile(r"\r\n|\r|\n")
_EXCEL_DELIMITER = re.compile(r'\s*"?sep=([;\t|,])"?\s', re.IGNORECASE)


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
    sample = list(islice(lines, _LOOKED_AT))
    delimiter = _delimiter("".join(sample), options.decimal)
    batches = _batches(chain(sample, lines), delimiter, name)
    before = ("", "sep=", f"sep={delimiter}")
    begin: list[Record] = []
    while not begin and (batch := next(batches, None)):
        records = zip(*batch, strict=True)
        begin = list(dropwhile(lambda record: "".join(record[1]).strip().lower() in before, records))
    if not begin:
        raise DataError(f"{name}: the file is empty; it must have a header line and rows of numbers")
    top, names = _header(begin[:_HEAD], name, options.missing_values)
    below = [record for record in begin if record[0] > top]
    first = [line for line, _ in below], [row for _, row in below]
    columns, ends = _columns(chain([first], batches), names, name, options.decimal)
    if not ends:
        raise DataError(f"{name}: has a header line and no rows; add rows of numbers")
    while len(names) > 1 and names[-1] == "" and _is_blank(columns[-1]):
        del names[-1], columns[-1]  # every line ends with a delimiter
    return Table(name, tuple(map(_column, names, columns)), ends, delimiter=delimiter)


def _column(name: str, cells: Sequence[str]) -> Column:
    return Column(name, lambda: cells)


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
    header, *below = [line for line in unquoted.splitlines() if line.strip(" ")] or [""]
    likely = ";\t|" if decimal == "," else ";\t|,"
    tries = [(header, likely), (header, ","), *((line, ";\t|") for line in below)]
    found = (max(signs, key=line.count) for line, signs in tries if set(signs) & set(line))
    return next(found, ";" if decimal == "," else ",")


def _batches(lines: Iterable[str], delimiter: str, name: str) -> Iterator[Batch]:
    """Some rows at a time, and the line that each ends in."""
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    end = 0
    while True:
        rows: list[list[str]] = []
        try:
            rows.extend(islice(reader, _BATCH))
        except csv.Error as error:
            end = [end, *_ends(rows, end)][-1]
            problem = f"{printable(str(error))}, in line {reader.line_num}"
            hint = "is there a quote that is not closed?"
            raise DataError(f"{name}, line {end + 1}: not CSV ({problem}); {hint}") from error
        if not rows:
            return
        is_plain = reader.line_num - end == len(rows)
        yield range(end + 1, reader.line_num + 1) if is_plain else _ends(rows, end), rows
        end = reader.line_num


def _ends(rows: Iterable[list[str]], before: int) -> list[int]:
    """The lines that rows after line `before` end in; their fields may have several lines."""
    heights = (1 + sum(len(_LINE_END.findall(cell)) for cell in row) for row in rows)
    return list(accumulate(heights, initial=before))[1:]


def _header(begin: Sequence[Record], name: str, marks: Collection[str]) -> tuple[int, list[str]]:
    """The line in which the header ends, and the names of the columns.

    It is the first line. Further ones without numbers and dates, but with words where the first row below them has
    some, are levels as pandas writes them, or refused. The last of these levels names the index and nothing else.
    """
    head = [(line, [" ".join(cell.split()) for cell in row]) for line, row in begin if not _is_blank(row)]
    lines, rows = zip(*head, (0, [""]), strict=True)
    if _is_no_header(*rows[:2]):
        found = f"the first line looks like data or a title ({listed(filter(None, rows[0]), 3)})"
        remedy = "add a header line with column names, or remove lines before it"
        raise DataError(f"{name}, line {lines[0]}: {found}; {remedy}")
    end = next((i for i in range(1, len(head)) if _has_values(rows[i], marks)), len(head))
    levels, data = rows[:end], rows[end]
    pairs = [pair for row in levels[1:] for pair in zip(row[1:] or row, data[1:] or data, strict=False)]
    words = [cell for cell, value in pairs if _is_value(value) and not is_missing(cell)]
    if not words:
        return lines[0], rows[0]
    *upper, (index, *rest) = levels
    is_table = _is_value(data[0]) and {*map(len, levels)} == {len(data)}
    if is_table and index and rest and not any(rest) and all(upper[0][1:]):
        return lines[end - 1], [index, *join_levels([row[1:] for row in upper])]
    found = f"lines {lines[0]} to {lines[end - 1]} are above the first row of values ({listed(words, 3)})"
    remedy = "keep the header line, which names the columns, and remove the others"
    remedy += f"; or, if {quoted(words[0])} marks a missing value, give {option('missing_values', words[0])}"
    raise DataError(f"{name}, {found}; {remedy}")


def _is_no_header(first: Sequence[str], second: Sequence[str]) -> bool:
    words = list(filter(None, first))
    are_times = not first[0] and all(map(is_full_date, words))  # of a table with a series in each row
    are_values = all(_is_value(cell) or is_missing(cell) for cell in words) and not are_times
    is_fraction = may_be_number(first[0]) and not first[0].lstrip("+-").isdigit()
    is_repeated = any(is_full_date(a) and is_full_date(b) for a, b in zip(first, second, strict=False))
    is_title = len(first) > 2 and not any(first[1:]) and sum(map(bool, second)) > 1
    return are_values or is_fraction or is_full_date(first[0]) or is_repeated or is_title


def _has_values(row: Sequence[str], marks: Collection[str]) -> bool:
    """Whether a row has numbers, dates or words for missing ones."""
    return any(_is_value(cell) or (is_missing(cell, marks) and cell.strip("-.") != "") for cell in row)


def _columns(
    batches: Iterable[Batch], names: Sequence[str], name: str, decimal: str | None
) -> tuple[list[list[str]], Sequence[int]]:
    """The cells of each column, which take far less memory than rows do, and the line of each row.

    Blank lines, and empty rows at the end, are left out.
    """
    columns: list[list[str]] = [[] for _ in names]
    ends, width = array("q"), len(names)
    for lines, rows in batches:
        if {*map(len, rows)} != {width}:
            records = zip(lines, rows, strict=True)
            kept = [
                record for record in records if len(record[1]) == width or _has_fields(record, names, name, decimal)
            ]
            lines, rows = [line for line, _ in kept], [row for _, row in kept]
        ends.extend(lines)
        for column, cells in zip(columns, zip(*rows, strict=True), strict=bool(rows)):
            column.extend(cells)
        if len(ends) * width > MAX_CELLS:
            raise DataError(f"{name}, line {ends[-1]}: more than {MAX_CELLS:,} cells; leave out columns or rows")
    while width > 1 and ends and _is_blank(column[-1] for column in columns):
        ends.pop()
        for column in columns:
            column.pop()
    return columns, ends


def _has_fields(record: Record, names: Sequence[str], name: str, decimal: str | None) -> bool:
    """False for a blank line; raise DataError for another one that is not as wide as the header."""
    line, row = record
    if len(row) < 2 and _is_blank(row):
        return False
    remedy = "put quotes around a field that holds the delimiter, or remove the lines before the header"
    if len(names) == 1 and decimal is None:
        remedy = f"give {option('decimal', ',')} if that is what the commas are, or {remedy}"
    found = f"has {len(row)} fields; the header has {len(names)} ({listed(names, 3)})"
    raise DataError(f"{name}, line {line}: {found}; correct the line, or {remedy}")
