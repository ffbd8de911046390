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
        return DataError(f"{self.name}, {self.where(error.row)}, column {printable(column)}: {error}")


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
    delimiter = _delimiter("".join(batch[:20]), decimal)
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
    """The sign that is most often in the header, outside quotes."""
    header = re.sub(r'(^|[;\t|,]) *"(?:[^"]|"")*"', r"\1", sample).lstrip("\r\n").splitlines()
    counts = {sign: header[0].count(sign) if header else 0 for sign in _DELIMITERS}
    if decimal == ",":  # a comma may stand in a number
        counts[","] = min(counts[","], 0 if any(counts[sign] for sign in _DELIMITERS if sign != ",") else 1)
    elif not any(counts.values()):
        return ","
    return max(counts, key=lambda sign: counts[sign])


def _check_header(header: Sequence[str], name: str, line: int) -> None:
    names = [text for text in header if text]
    is_data = all(may_be_number(text) or is_missing(text) or may_be_date(text) for text in names)
    if is_data or is_fraction(header[0]) or any(map(is_full_date, names)):
        raise DataError(
            f"{name}, line {line}: the first line looks like data ({listed(names)}); add a header line with column "
            "names"
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
                        f"{name}, line {number}: has {len(fields)} fields; the header has {width} ({listed(header)}); "
                        f"correct the line, or {remedy}"
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
