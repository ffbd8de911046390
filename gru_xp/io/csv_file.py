"""Tables from CSV files: rows that all have as many fields as the header, each with its line."""

import csv
import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, dropwhile, islice, takewhile
from pathlib import Path

from gru_xp.errors import DataError, printable
from gru_xp.io.dates import is_full_date, may_be_date, short_year_formats
from gru_xp.io.messages import listed, option, quoted
from gru_xp.io.numbers import is_missing, may_be_number
from gru_xp.io.options import ReadOptions
from gru_xp.io.table import Column, Table
from gru_xp.io.text import open_text

MAX_CELLS = 2**26
"""Cells of a table: each takes some 60 bytes."""

Record = tuple[int, list[str]]
"""The line that a record ends in, and its fields."""

_BATCH = 512
"""Rows that are turned into columns at once; with more, they leave the cache."""
_LOOKED_AT = 100
_DELIMITERS = ";\t|,"
_DELIMITER_NAMES = "comma, semicolon, tab or bar"
_EXCEL_DELIMITER = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_TIME_NAME = re.compile(r"\b(date|datetime|time|timestamp|ds|year|month|day|hour)\b", re.IGNORECASE)


def read_csv_table(path: Path, name: str, options: ReadOptions) -> Table:
    """Read a CSV file with a header line, or with the two or three that pandas writes for columns of several levels.

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
        The file cannot be read, has no header or other lines before it, or a row has more or fewer fields than it.
    """
    lines = open_text(path, name, options.encoding)
    skipped, first = next(((count, line) for count, line in enumerate(lines) if line.strip()), (0, ""))
    sample = [first, *islice(lines, _LOOKED_AT)]
    delimiter = _delimiter(sample, options.decimal)
    if match := _EXCEL_DELIMITER.fullmatch(first.rstrip("\r\n")):
        delimiter, sample[0] = match[1], "\n"
        if delimiter not in _DELIMITERS:
            problem = f"the delimiter is {delimiter!r}; it must be {_DELIMITER_NAMES}"
            raise DataError(f"{name}, line {skipped + 1}: {problem}")
    head = _head(sample, delimiter, skipped, name)
    if not head:
        raise DataError(f"{name}: the file is empty; it must have a header line and rows of numbers")
    widths = {len(row) for _, row in head}
    if (len(widths) > 1 or 1 in widths) and (header := _header_below(sample, skipped, name)):
        raise _before_header(head, header, name)
    _check_names(head[0][1], head[1][1] if len(head) > 1 else [], f"{name}, line {head[0][0]}")
    top, names = _header(head, name, options.missing_values)
    remedy = "put quotes around a field that holds the delimiter"
    if len(names) == 1 and options.decimal is None:
        remedy = f"give {option('decimal', ',')} if that is what the commas are"
    records = _records(chain(sample, lines), delimiter, skipped, name)
    columns, ends = _columns(dropwhile(lambda record: record[0] <= top, records), names, name, remedy)
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


def _delimiter(sample: Iterable[str], decimal: str | None) -> str:
    """The sign that is most often in the header, outside quotes; or that is in the line after it, but for the comma."""
    unquoted = re.sub(r'(^|[;\t|,]) *"(?:[^"]|"")*"', r"\1", "".join(sample))
    header, second, *_ = (*(line for line in unquoted.splitlines() if line.strip(" ")), "", "")
    for line, signs in ((header, _DELIMITERS), (second, _DELIMITERS[:-1])):
        # decimal commas may be in a name as well
        counts = {sign: min(line.count(sign), 1 if sign == decimal else len(line)) for sign in signs}
        if any(counts.values()):
            return max(counts, key=lambda sign: counts[sign])
    return ";" if decimal == "," else ","


def _records(lines: Iterable[str], delimiter: str, skipped: int, name: str, *, strict: bool = True) -> Iterator[Record]:
    """The records of the lines, before which were `skipped` others."""
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=strict)
    end = skipped
    try:
        for row in reader:
            end = skipped + reader.line_num
            yield end, row
    except csv.Error as error:
        problem = f"{printable(str(error))}, in line {skipped + reader.line_num}"
        raise DataError(f"{name}, line {end + 1}: not CSV ({problem}); is there a quote that is not closed?") from error


def _head(sample: Iterable[str], delimiter: str, skipped: int, name: str) -> list[Record]:
    """The first records, without blank ones; of the last, the end may be missing."""
    records = _records(sample, delimiter, skipped, name, strict=False)
    return [(line, [" ".join(cell.split()) for cell in row]) for line, row in records if not _is_blank(row)]


def _header_below(sample: Sequence[str], skipped: int, name: str) -> Record | None:
    """The first of some lines, but not the very first, that begins a table with any delimiter."""
    for delimiter in _DELIMITERS:
        records = _head(sample, delimiter, skipped, name)
        width = len(records[-1][1])
        start = max((i for i, (_, row) in enumerate(records, 1) if len(row) != width), default=0)
        if width > 1 and 0 < start < len(records) - 1 and _is_above([records[start][1]], records[start + 1][1]):
            return records[start]
    return None


def _before_header(head: Sequence[Record], header: Record, name: str) -> DataError:
    found = f"line {header[0]} looks like the header ({listed(header[1], 3)})"
    return DataError(f"{name}, line {head[0][0]}: {quoted(head[0][1][0])}; {found}; remove the lines before the header")


def _is_above(texts: Sequence[Sequence[str]], values: Sequence[str], marks: Collection[str] = ()) -> bool:
    """Whether rows hold words, such as names or units, in the columns where a row below them has numbers or dates."""
    columns = list(zip(*texts, values, strict=True))
    cells = [cell for *above, value in columns[len(columns) > 1 :] if _is_value(value) for cell in above if cell]
    is_known = not any(is_missing(cell, marks) for cell in cells if cell.strip("-."))
    return is_known and any(not is_missing(cell) and not _is_value(cell) for cell in cells)


def _check_names(header: Sequence[str], below: Sequence[str], place: str) -> None:
    """Raise DataError where the first line, of which `below` is the next one, has no names of columns."""
    words = [cell for cell in header if cell]
    is_data = all(_is_value(cell) or is_missing(cell) for cell in words)
    is_data &= bool(header[0]) or not all(map(is_full_date, words))  # times as columns, after one without a name
    is_data |= may_be_number(header[0]) and not header[0].lstrip("+-").isdigit()
    is_data |= any(map(is_full_date, header[:1]))
    if is_data or any(is_full_date(cell) and is_full_date(under) for cell, under in zip(header, below, strict=False)):
        problem = f"the first line looks like data ({listed(words, 3)}); add a header line with column names"
        raise DataError(f"{place}: {problem}")
    words, parts = header[0].split(), "".join(below[:1]).split()
    if len(header) == 1 and len(parts) >= len(words) > 1 and may_be_number(parts[-1]) and not may_be_number(below[0]):
        problem = f"one column, {quoted(header[0])}; the sign between columns must be {_DELIMITER_NAMES}"
        raise DataError(f"{place}: {problem}")


def _header(head: Sequence[Record], name: str, marks: Collection[str]) -> tuple[int, list[str]]:
    """The line in which the header ends, and the names of the columns."""
    rows = [row for _, row in head]
    count = next((i for i, row in enumerate(rows) if i and (any(map(_is_value, row)) or re.search(r"\d", row[0]))), 1)
    texts, values = rows[:count], rows[count:][:1]
    if count == 1 or {len(row) for row in texts} != {len(values[0])} or not _is_above(texts[1:], values[0], marks):
        if len(rows[0]) > 2 and not any(rows[0][1:]) and any(sum(map(bool, row)) > 1 for row in rows[1:2]):
            problem = (
                f"one name ({quoted(rows[0][0])}) for several columns; remove the lines before the header, or add names"
            )
            raise DataError(f"{name}, line {head[0][0]}: {problem}")
        return head[0][0], rows[0]
    if not any(row[0][:1] == "#" for row in texts) and (names := _joined_levels(texts, values[0])):
        return head[count - 1][0], names
    likely = [
        (row[0][:1] != "#", _TIME_NAME.search(" ".join(row)) is not None, sum(map(bool, row[1:]))) for row in texts
    ]
    if best := likely.index(max(likely)):
        raise _before_header(head, head[best], name)
    words = [cell for row in texts[1:] for cell in row if not is_missing(cell)]
    found = f"{listed(words, 3)} where later rows have numbers or dates"
    remedy = "if these are units or further names of columns, remove the line; if they mark missing values, give"
    raise DataError(f"{name}, line {head[1][0]}: {found}; {remedy} {option('missing_values', words[-1])}")


def _joined_levels(texts: Sequence[Sequence[str]], values: Sequence[str]) -> list[str] | None:
    """The names of columns of several levels, as pandas writes them above `values`; None where these are other rows.

    The last row may name the index. Tickers and lower levels that are the same for all columns are left out.
    """
    *levels, last = texts
    index = list(takewhile(bool, last))
    is_named = len(levels) > 1 and 0 < len(index) < len(last) and not any(last[len(index) :])
    firsts = [row[0] for row in texts]
    if not is_named:
        levels = list(texts)
        name = next(filter(_TIME_NAME.search, firsts), "") if any(firsts[1:]) else firsts[0]
        index = [] if any(row[0] in row[1:] for row in texts) else [name]
    levels = [row[len(index) :] for row in levels]
    lower = [row for row in levels[1:] if len({*row, ""}) > 2]
    several = lower if lower and firsts[0].casefold() == "ticker" and len(set(levels[0])) == 1 else [levels[0], *lower]
    names = [" ".join(filter(None, cells)) for cells in zip(*several, strict=True)]
    is_repeated = len(set(levels[0])) < len(levels[0])
    is_alike = not lower and all(sum(map(bool, row)) > 1 for row in levels) and not _TIME_NAME.search(firsts[0])
    is_sure = is_named or (len(set(names)) == len(names) and (is_repeated or (is_alike and len(index) == 1)))
    return [*index, *names] if is_sure and all(levels[0]) and _is_value(values[0]) else None


def _columns(
    records: Iterator[Record], names: Sequence[str], name: str, remedy: str
) -> tuple[list[list[str]], Sequence[int]]:
    """The cells of each column, which take far less memory than rows do, and the line of each row."""

    def ragged(line: int, row: Sequence[str]) -> DataError:
        found = f"has {len(row)} fields; the header has {len(names)} ({listed(names, 3)})"
        return DataError(f"{name}, line {line}: {found}; correct the line, or {remedy}")

    columns: list[list[str]] = [[] for _ in names]
    ends = array("q")
    empty: Record | None = None
    while batch := list(islice(records, _BATCH)):
        rows = [record for record in batch if len(record[1]) == len(names)]
        for line, row in batch if len(rows) < len(batch) else ():
            if len(row) != len(names) and not _is_blank(row):
                raise ragged(line, row)
            if len(row) != len(names) and len(row) > 1:
                empty = empty or (line, row)
        ends.extend(line for line, _ in rows)
        for column, cells in zip(columns, zip(*(row for _, row in rows), strict=True), strict=bool(rows)):
            column.extend(cells)
        if len(ends) * len(names) > MAX_CELLS:
            raise DataError(f"{name}, line {ends[-1]}: more than {MAX_CELLS:,} cells; leave out columns or rows")
    while len(names) > 1 and ends and _is_blank(column[-1] for column in columns):
        ends.pop()
        for column in columns:
            column.pop()
    if empty and ends and empty[0] < ends[-1]:
        raise ragged(*empty)
    return columns, ends


def find_file(path: str) -> tuple[Path, bool]:
    """The file that `path` means, and whether it is a bundled one.

    A path that exists is itself, ``-`` is stdin, and the bare name of a bundled file, with or without ``.csv``, is
    that file.

    Raises
    ------
    DataError
        There is no such file, or it is a directory.
    """
    from gru_xp.data import bundled_file, bundled_names

    if path == "-":
        return Path(path), False
    if not path:
        raise DataError("the name of the CSV file is empty; give a path, or a bundled name such as GOOG.csv")
    file = Path(path)
    if file.is_dir():
        raise DataError(f"{printable(path)}: is a directory; give a CSV file in it")
    if file.exists():
        return file.absolute() if file.name == "-" else file, False
    for name in bundled_names():
        if path in (name, name.removesuffix(".csv")):
            return bundled_file(name), True
    names = ", ".join(bundled_names())
    raise DataError(f"{printable(path)}: no such file; give the path of a CSV file, or a bundled one: {names}")
