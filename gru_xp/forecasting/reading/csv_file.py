"""Series from files: every value is what the file says, or there is an error that names line and column."""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.forecasting.reading.cells import CellError, is_missing, listed, quoted
from gru_xp.forecasting.reading.date_column import (
    INDEX_NAMES,
    DateColumn,
    duplicate_remedy,
    find_date_column,
    notices_without_dates,
)
from gru_xp.forecasting.reading.missing import treat_missing
from gru_xp.forecasting.reading.numerals import (
    check_points,
    check_size,
    has_decimal_commas,
    may_be_number,
    parse_numbers,
)
from gru_xp.forecasting.reading.options import ReadOptions
from gru_xp.forecasting.reading.parquet_file import SUFFIXES, read_parquet
from gru_xp.forecasting.reading.row_order import Rows, order_rows
from gru_xp.forecasting.reading.table import Table, read_table
from gru_xp.forecasting.series import TimeSeries, check_columns
from gru_xp.forecasting.windows import Floats

_DEFAULTS = ReadOptions()
_CLOCKS = "times of day without dates; the rows are taken in the order of the file"
_TOTALS = re.compile(r"((grand|sub)?[ -]?totals?|sum|average|avg|mean)\.?:?", re.IGNORECASE)


def bundled_names() -> list[str]:
    """Names of the bundled files."""
    return sorted(entry.name for entry in files("gru_xp.data").iterdir() if entry.name.endswith(".csv"))


def bundled_file(name: str) -> Path:
    """The bundled file of that name, such as ``"GOOG.csv"``."""
    return Path(str(files("gru_xp.data") / name))


def find_file(path: str) -> tuple[Path, bool]:
    """The file that `path` means, and whether it is a bundled one.

    A path that exists is itself, ``-`` is stdin, and the bare name of a bundled file, with or without ``.csv``, is
    that file.

    Raises
    ------
    DataError
        There is no such file, or it is a directory.
    """
    if not path:
        raise DataError("the name of the CSV file is empty; give a path, or a bundled name such as GOOG.csv")
    if path == "-":
        return Path(path), False
    file = Path(path)
    if file.is_dir():
        raise DataError(f"{printable(path)}: is a directory; give a CSV file in it")
    if file.exists():
        return file.absolute() if file.name == path.removeprefix("./") == "-" else file, False
    for name in bundled_names():
        if path in (name, name.removesuffix(".csv")):
            return bundled_file(name), True
    raise DataError(
        f"{printable(path)}: no such file; give the path of a CSV file, or a bundled one: {', '.join(bundled_names())}"
    )


def read_csv(
    path: str | Path,
    target: str | None = None,
    features: Sequence[str] = (),
    *,
    name: str | None = None,
    options: ReadOptions = _DEFAULTS,
) -> TimeSeries:
    """Read a series from a CSV file with a header line, or from a Parquet file.

    Delimiters are comma, semicolon, tab or bar; what else there is to know about a file is in `options`. The text may
    be UTF-8 or UTF-16, and packed by gzip or zip. The series is in the order of time, as its dates say; without dates,
    that of the file.

    Parameters
    ----------
    path
        The file, or ``-`` for stdin; Parquet where it ends in ``.parquet`` or ``.pq``.
    target
        The column to predict; if None, ``Close``, or else the only numeric column.
    features
        Further input columns.
    name
        What to call the file in messages; its path if None.
    options
        How to read what could be read in two ways, and what to do about missing values and repeated dates.

    Returns
    -------
    TimeSeries

    Raises
    ------
    DataError
        The file cannot be used; the message says what is where.
    """
    path = Path(path)
    name = printable(name or ("stdin" if str(path) == "-" else str(path)), 1000)
    is_parquet = path.suffix.lower() in SUFFIXES
    table = read_parquet(path, name) if is_parquet else read_table(path, name, options)
    date = find_date_column(table, options.date_format, target, features)
    columns = _columns(table, date, target, features)
    values, notices = _values(table, columns, options.decimal)
    values, rows, done = _in_order(table, date, columns, values, options.on_duplicate)

    def place(row: int, column: int) -> str:
        return f"{table.where(int(rows[row]))}, column {printable(columns[column])}"

    try:
        treated = treat_missing(values, options.missing, place, rows.tolist())
    except DataError as error:
        raise DataError(f"{name}, {error}") from error
    left = rows[treated.rows].tolist()
    return TimeSeries(
        treated.values,
        columns,
        None if date is None else tuple(date.labels[row] for row in left),
        None if date is None or date.dates is None else tuple(date.dates[row] for row in left),
        name,
        (*notices, *done, *treated.notices),
        treated.observed,
        treated.record,
    )


def _columns(table: Table, date: DateColumn | None, target: str | None, features: Sequence[str]) -> tuple[str, ...]:
    """The names of the target and the features, each once."""
    columns = tuple(dict.fromkeys((target or _default_target(table, date), *features)))
    try:
        check_columns(columns, list(table.columns))
    except DataError as error:
        raise DataError(f"{table.name}: {error}") from error
    return columns


def _in_order(
    table: Table, date: DateColumn | None, columns: Sequence[str], values: Floats, on_duplicate: str | None
) -> tuple[Floats, Rows, list[str]]:
    """The values in the order of time, the row of the file that each is of, and notices about what was done."""
    if date is None or date.keys is None:
        _check_last_row(table, columns)
        notices = notices_without_dates(table) if date is None else [f"column {printable(date.name)}: {_CLOCKS}"]
        return values, np.arange(len(values)), notices
    try:
        order, notices = order_rows(
            date.name,
            date.labels,
            date.keys,
            on_duplicate,
            table.where,
            lambda: duplicate_remedy(table, date, columns),
        )
    except CellError as error:
        raise table.error(date.name, error) from error
    return *order.take(values, on_duplicate), notices


def _check_last_row(table: Table, columns: Sequence[str]) -> None:
    """Raise DataError where the first column, which is not one of `columns`, calls the last row a total."""
    first = next(iter(table.columns))
    if first in columns or first in table.numbers:
        return
    *others, last = (text.strip() for text in table.columns[first])
    is_alone = is_missing(last) and not any(map(is_missing, others)) and not all(map(may_be_number, others))
    if is_alone or _TOTALS.fullmatch(last):
        what = quoted(last) if last else "an empty cell"
        problem = f"{what} may mark a total; remove the {table.unit}, or write another word there"
        raise table.error(first, CellError(len(others), problem))


def _values(table: Table, columns: Sequence[str], decimal: str | None) -> tuple[Floats, list[str]]:
    """The numbers of some columns, shape ``(N, F)``, missing ones as NaN, and notices about how they are written."""
    may_group = decimal is None and _may_group_by_points(table)
    values, notices = [], []
    for column in columns:
        try:
            numbers, done = _numbers(table, column, decimal, may_group)
        except CellError as error:
            raise table.error(column, error) from error
        values.append(numbers)
        notices += [f"column {printable(column)}: {text}" for text in done]
    return np.column_stack(values), notices


def _may_group_by_points(table: Table) -> bool:
    """Whether points may stand between thousands: where decimals are commas, other signs stand between cells."""
    if table.delimiter == ",":
        return any(map(has_decimal_commas, table.columns.values()))
    return table.delimiter != ""


def _numbers(table: Table, column: str, decimal: str | None, may_group: bool) -> tuple[Floats, tuple[str, ...]]:
    if column in table.numbers:
        return check_size(table.numbers[column]), ()
    if may_group:
        check_points(table.columns[column])
    return parse_numbers(table.columns[column], decimal, table.where)


def _default_target(table: Table, date: DateColumn | None) -> str:
    names = list(table.columns)
    if "Close" in names:
        return "Close"
    candidates = [name for name in names if date is None or name != date.name]
    numeric = [name for name in candidates if name in table.numbers or _is_numeric(table.columns[name])]
    numeric = [name for name in numeric if name.lower() not in INDEX_NAMES] or numeric
    if not numeric:
        raise DataError(
            f"{table.name}: no numeric column; the columns are {listed(names, 3)}; to use one anyway, give --target"
        )
    if all(map(may_be_number, numeric)):
        raise DataError(
            f"{table.name}: the first line looks like data ({listed(names, 3)}); add a header line with column names, "
            f"or give --target {quoted(numeric[0])} if that is one"
        )
    if len(numeric) > 1:
        raise DataError(
            f"{table.name}: {len(numeric)} numeric columns, none of them named Close; choose one with --target: "
            f"{listed(numeric, 3)}"
        )
    return numeric[0]


def _is_numeric(cells: Sequence[str]) -> bool:
    """Whether most cells that are not empty are numbers."""
    known = [text for text in cells if not is_missing(text.strip())]
    return 2 * sum(map(may_be_number, known)) > len(known)
