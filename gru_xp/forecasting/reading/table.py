"""Tables of text: rows of CSV files, all with as many fields as the header, each with its line."""

import csv
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from gru_xp.errors import DataError, printable
from gru_xp.forecasting.dates import is_full_date, may_be_date
from gru_xp.forecasting.reading.cells import CellError, is_missing, listed, quoted
from gru_xp.forecasting.reading.numerals import is_fraction, may_be_number
from gru_xp.forecasting.reading.options import ReadOptions
from gru_xp.forecasting.reading.text_file import LONGEST_LINE, open_lines
from gru_xp.forecasting.windows import Floats

MOST_CELLS = 2**26
"""A table with more is refused: a pipe may have no end."""

_ROWS_AT_ONCE = 4096
_DELIMITERS = ";\t|,"
_DELIMITER_NAMES = "comma, semicolon, tab or bar"
_EXCEL_DELIMITER = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_LOOKED_AT = 20


@dataclass(frozen=True)
class Table:
    """Columns of text, by name.

    Attributes
    ----------
    name
        What to call the file.
    columns
        The cells of each column.
    lines
        The line of the file, or the row, that each row ends in.
    unit
        ``"line"`` or ``"row"``.
    numbers
        The columns whose cells are numbers in the file already, missing ones as NaN.
    delimiter
        The sign between the cells of a row, if it is a text file.
    """

    name: str
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    unit: str = "line"
    numbers: Mapping[str, Floats] = field(default_factory=dict)
    delimiter: str = ""

    def where(self, row: int) -> str:
        """Row `row`, for a message."""
        return f"{self.unit} {self.lines[row]}"

    def error(self, column: str, error: CellError) -> DataError:
        """What is wrong in a column, with file, line and column."""
        return DataError(
            f"{self.name}, {self.where(error.row)}, column {printable(column) or 'without a name'}: {error}"
        )


def read_table(path: Path, name: str, options: ReadOptions) -> Table:
    """Read a CSV file with a header line.

    Raises
    ------
    DataError
        It is no such file, or a row has more or fewer fields than the header.
    """
    with open_lines(path, name, options.encoding) as batches:
        delimiter, records = _records(batches, name, options.decimal)
        header_line, header = next(((line, row) for line, row in records if not _is_blank(row)), (0, []))
        if not header:
            raise DataError(f"{name}: the file is empty; it must have a header line and rows of numbers")
        header = [" ".join(text.split()) for text in header]
        _check_header(header, name, header_line)
        begin = list(islice(records, _LOOKED_AT))
        for line, row in filter(lambda record: not _is_blank(record[1]), begin):
            _check_first_row(header, row, f"{name}, line {header_line}", f"line {line}", delimiter)
            break
        records = chain(begin, records)
        columns, lines = _columns(_rows(records, header, name, options.decimal), header, name)
    if not lines:
        raise DataError(f"{name}: has a header line and no rows; add rows of numbers")
    while len(header) > 1 and header[-1] == "" and _is_blank(columns[-1]):
        del header[-1], columns[-1]  # every line ends with a delimiter
    for text, count in Counter(header).items():
        if count > 1:
            raise DataError(
                f"{name}, line {header_line}: the header names column {quoted(text)} twice; rename one of them"
            )
    return Table(name, dict(zip(header, columns, strict=True)), lines, delimiter=delimiter)


def _is_blank(fields: Iterable[str]) -> bool:
    return not "".join(fields).strip()


def _records(
    batches: Iterator[list[str]], name: str, decimal: str | None
) -> tuple[str, Iterator[tuple[int, list[str]]]]:
    """The delimiter, and the fields of each record with the line that it ends in."""
    skipped = 0  # blank lines before everything else
    batch: list[str] = []
    for batch in batches:
        first = next((i for i, line in enumerate(batch) if line.strip()), len(batch))
        skipped, batch = skipped + first, batch[first:]
        if batch:
            break
    delimiter = _delimiter("".join(batch[:_LOOKED_AT]), decimal)
    if batch and (match := _EXCEL_DELIMITER.fullmatch(batch[0].rstrip("\r\n"))):
        delimiter = match[1]
        if delimiter not in _DELIMITERS:
            raise DataError(
                f"{name}, line {skipped + 1}: the delimiter is {delimiter!r}; it must be {_DELIMITER_NAMES}"
            )
        skipped, batch = skipped + 1, batch[1:]
    return delimiter, _split(chain([batch], batches), delimiter, skipped, name)


def _split(batches: Iterator[list[str]], delimiter: str, skipped: int, name: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each record, and the line that it ends in; `skipped` lines were before the first."""
    ended = skipped  # the line in which the last record did

    def lines() -> Iterator[str]:
        swallowed = 0
        for lines in batches:
            before = ended
            yield from lines
            swallowed = swallowed + sum(map(len, lines)) if ended == before else 0
            if swallowed > LONGEST_LINE:
                raise csv.Error("a field that does not end")

    reader = csv.reader(lines(), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for record in reader:
            ended = skipped + reader.line_num
            yield ended, record
    except csv.Error as error:
        problem = f"{printable(str(error))}, in line {skipped + reader.line_num}"
        raise DataError(
            f"{name}, line {ended + 1}: not CSV ({problem}); is there a quote that is not closed?"
        ) from error


def _delimiter(sample: str, decimal: str | None) -> str:
    """The sign that is most often in the header, outside quotes; or that is in the line after it, but for the comma."""
    unquoted = re.sub(r'(^|[;\t|,]) *"(?:[^"]|"")*"', r"\1", sample)
    header, second, *_ = (*(line for line in unquoted.splitlines() if line.strip(" ")), "", "")
    counts = {sign: header.count(sign) for sign in _DELIMITERS}
    if not any(counts.values()):
        counts = {sign: second.count(sign) for sign in _DELIMITERS if sign != ","}
    elif decimal == ",":  # a comma may stand in a number
        counts[","] = min(counts[","], 0 if any(counts[sign] for sign in _DELIMITERS if sign != ",") else 1)
    if not any(counts.values()):
        return ";" if decimal == "," else ","
    return max(counts, key=lambda sign: counts[sign])


def _check_header(header: Sequence[str], name: str, line: int) -> None:
    names = [text for text in header if text]
    is_data = all(may_be_number(text) or is_missing(text) or may_be_date(text) for text in names)
    if is_data or is_fraction(header[0]) or any(map(is_full_date, names)):
        raise DataError(
            f"{name}, line {line}: the first line looks like data ({listed(names, 3)}); add a header line with column "
            "names"
        )


def _check_first_row(header: Sequence[str], row: Sequence[str], place: str, row_place: str, delimiter: str) -> None:
    """Raise DataError where the first row says that what is above it, in `place`, is no header."""
    filled = [text for text in row if text.strip()]
    is_title = any(header[:1]) and not any(header[1:]) and len(filled) > 1 and len(header) != 2
    if is_title and not may_be_number(delimiter.join(row)):
        raise DataError(
            f"{place}: has one field ({quoted(header[0])}), and {row_place} has {len(filled)}; remove the lines before "
            "the header"
        )
    is_row = any(may_be_number(text) or is_missing(text.strip()) or may_be_date(text.strip()) for text in filled)
    if header[0].startswith("#") and not (is_row and len(row) == len(header)):
        raise DataError(f"{place}: {quoted(header[0])} is a comment; remove the lines before the header")
    words, parts = header[0].split(), row[0].split()
    if len(header) == 1 and len(parts) >= len(words) > 1 and may_be_number(parts[-1]) and not may_be_number(row[0]):
        raise DataError(
            f"{place}: one column, {quoted(header[0])}; the sign between columns must be {_DELIMITER_NAMES}"
        )


def _rows(
    records: Iterable[tuple[int, list[str]]], header: Sequence[str], name: str, decimal: str | None
) -> Iterator[tuple[int, list[str]]]:
    """The rows under the header, with their lines, but for blank lines, and empty rows at the end."""
    width = len(header)
    remedy = "put quotes around a field that holds the delimiter"
    if width == 1 and decimal is None:
        remedy = "give --decimal , if that is what the commas are"
    empty: list[tuple[int, list[str]]] = []
    for line, row in records:
        if width > 1 and _is_blank(row):
            if len(row) > 1:
                empty.append((line, row))
        elif row:
            for number, fields in (*empty, (line, row)):
                if len(fields) != width:
                    raise DataError(
                        f"{name}, line {number}: has {len(fields)} fields; the header has {width} "
                        f"({listed(header, 3)}); correct the line, or {remedy}"
                    )
                yield number, fields
            empty.clear()


def _columns(
    rows: Iterator[tuple[int, list[str]]], header: Sequence[str], name: str
) -> tuple[list[list[str]], Sequence[int]]:
    """The cells of each column, which take far less memory than rows do, and the line of each row."""
    columns: list[list[str]] = [[] for _ in header]
    lines = array("q")
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        lines.extend(line for line, _ in some)
        for column, cells in zip(columns, zip(*(row for _, row in some), strict=True), strict=True):
            column.extend(cells)
        if len(lines) * len(header) > MOST_CELLS:
            raise DataError(f"{name}, line {lines[-1]}: more than {MOST_CELLS:,} cells; leave out columns or rows")
    return columns, lines
