"""Series from files, pandas objects and arrays: `read_series`."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.errors import DataError, DataWarning, printable
from gru_xp.io.csv_file import read_csv_table
from gru_xp.io.dates import format_date
from gru_xp.io.frames import PARQUET_SUFFIXES, UNNAMED, read_parquet, table_of_frame
from gru_xp.io.messages import CellError, listed, option, options, quoted
from gru_xp.io.numbers import (
    NumberStyle,
    has_decimal_commas,
    is_missing,
    is_numeric,
    may_be_number,
    read_numbers,
    suspicious_value,
)
from gru_xp.io.options import ReadOptions
from gru_xp.io.order import fill_missing, order_rows
from gru_xp.io.series import Reading, TimeSeries
from gru_xp.io.spacing import Spacing, find_spacing
from gru_xp.io.table import Column, Floats, Rows, Table
from gru_xp.io.time_column import INDEX_NAMES, Times, check_order, find_times, refuse_wide, repeats_remedy

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
"""As the features: every numeric column."""

_HOLIDAYS = 0.06
"""Business days that may be missing without a notice, of all."""

_TOTALS = re.compile(r"((grand|sub)?[ -]?totals?|sum|average|avg|mean)\.?:?", re.IGNORECASE)


def read_series(
    source: Any, *, target: str | None = None, features: Sequence[str] | str = (), **how: Any
) -> TimeSeries:
    """Read a series from a file, a pandas object or an array.

    The rows are brought into chronological order by the column named `time`; if none is named, by the one called date,
    datetime, timestamp, ds or time (in any case), or else by the first column, if all of its cells are dates. Where no
    column dates the rows, they are taken as oldest first, with a `DataWarning`, unless the table shows that they are
    not.

    Parameters
    ----------
    source : path, pandas.DataFrame, pandas.Series or array
        A CSV or Parquet file, or ``"-"`` for stdin; or an object in memory. An array is ``(N,)`` or ``(N, F)``, oldest
        first, with the target in column 0 and the features after it.
    target
        The column to predict; if None, ``Close``, or else the only numeric column.
    features
        Further input columns; ``"all"`` for every other numeric column.
    **how
        See `ReadOptions`: ``time``, ``id``, ``where``, ``order``, ``freq``, ``missing_values``, ``decimal``,
        ``date_format``, ``on_duplicate``, ``missing`` and ``encoding``.

    Returns
    -------
    TimeSeries

    Raises
    ------
    ArgumentError
        An option does not have such a value.
    DataError
        The source cannot be used; the message says what is where, and what to do.

    Warns
    -----
    DataWarning
        The rows were reversed or sorted, are not dated, have gaps or suspicious values.
    """
    series = read(source, target, features, ReadOptions(**how))
    for notice in series.notices:
        warnings.warn(notice, DataWarning, stacklevel=2)
    return series


@dataclass(frozen=True)
class Panel:
    """Several series of one source.

    Attributes
    ----------
    id
        The column that tells them apart.
    series
        Each of them, by what that column says.
    """

    id: str
    series: Mapping[str, TimeSeries]

    def to_frame(self) -> "pd.DataFrame":
        """All series in one long table.

        Returns
        -------
        pandas.DataFrame
            One below the other, with the identifier and the time as the index.
        """
        import pandas as pd

        return pd.concat({key: series.to_frame() for key, series in self.series.items()}, names=[self.id])


def read_panel(
    source: Any, *, id: str, target: str | None = None, features: Sequence[str] | str = (), **how: Any
) -> Panel:
    """Read several series, told apart by the column `id`; the rest as for `read_series`, of each series alone."""
    options = ReadOptions(**how)
    table = read_table(source, options)
    column = table.column(id)
    keys = dict.fromkeys(cell.strip() for cell in column.cells)
    return Panel(column.name, {key: read_rows(_only(table, column, key), target, features, options) for key in keys})


def read(
    source: Any, target: str | None, features: Sequence[str] | str, how: ReadOptions, name: str | None = None
) -> TimeSeries:
    """Do what `read_series` does, without warnings; `name` is what to call a file."""
    table = read_table(source, how, name)
    if not (isinstance(source, str | Path) or hasattr(source, "iloc") or hasattr(source, "to_pandas")):
        target, *features = table.names
        how = replace(how, order=how.order or "oldest-first")
    return read_rows(table, target, features, how)


def read_table(source: Any, how: ReadOptions, name: str | None = None) -> Table:
    """Read the rows of a source that `how` asks for, without deciding anything about them."""
    if isinstance(source, str | Path):
        path = Path(source)
        name = printable(name or ("stdin" if str(path) == "-" else str(path)), 1000)
        is_parquet = path.suffix.lower() in PARQUET_SUFFIXES
        table = read_parquet(path, name) if is_parquet else read_csv_table(path, name, how)
    else:
        source = source.to_pandas() if hasattr(source, "to_pandas") else source
        table = table_of_frame(source if hasattr(source, "iloc") else _frame(source))
    return choose_rows(table, how.where)


def choose_rows(table: Table, where: Sequence[str]) -> Table:
    """The rows that fulfil all conditions ``"COLUMN=VALUE"``."""
    for condition in where:
        column, _, value = condition.partition("=")
        table = _only(table, table.column(column.strip()), value.strip())
    return table


def _frame(array: Any) -> "pd.DataFrame":
    import pandas as pd

    try:
        array = np.ma.asarray(array)
    except ValueError as error:
        raise DataError("the rows have different lengths; a series is (N,) or (N, F), target in column 0") from error
    if array.ndim not in (1, 2) or array.dtype.kind == "c":
        what = "complex numbers" if array.dtype.kind == "c" else f"shape {array.shape}"
        raise DataError(f"the array has {what}; a series is (N,) or (N, F) of real numbers, target in column 0")
    names = [UNNAMED] if array.ndim == 1 else [f"column {i}" for i in range(array.shape[1])]
    if array.mask.any():
        array = array.astype(np.float64).filled(np.nan)
    return pd.DataFrame(np.asarray(array).reshape(len(array), len(names)), columns=names)


def _only(table: Table, column: Column, value: str) -> Table:
    """The rows whose cell in a column is `value`."""
    kinds = [cell.strip() for cell in column.cells]
    if value not in kinds:
        hint = listed(dict.fromkeys(kinds), 5)
        raise table.refusal(f"column {printable(column.name)} has no {quoted(value)}; it has {hint}")
    return table.take(np.flatnonzero(np.array(kinds, dtype=object) == value))


def read_rows(table: Table, target: str | None, features: Sequence[str] | str, how: ReadOptions) -> TimeSeries:
    """Read a series from a table, all of whose rows it has; see `read_series`."""
    names = [features] if isinstance(features, str) and features != ALL else features
    wanted = [table.column(name).name for name in (target, *(() if names == ALL else names)) if name is not None]
    if how.id is not None and len(kinds := set(table.column(how.id).cells)) > 1:
        raise table.refusal(
            f"{len(kinds)} series in column {printable(how.id)} ({listed(sorted(kinds), 3)}); one series is expected; "
            f"keep one by {options('where', [f'{how.id}={min(kinds)}'])}"
        )
    times = find_times(table, how, wanted[: target is not None])  # a feature may date the rows as well
    try:
        columns = _columns(table, times, target, names)
    except DataError:
        if times is None:
            refuse_wide(table)
        raise
    values, styles, notices = read_values(table, columns, how)
    rows, duplicates = np.arange(len(table)), 0
    labels = dates = None
    spacing = Spacing()
    order = how.order or "oldest-first"
    if times is None:
        if how.order is None and (table.name or table.index or len(table.columns) > len(columns)):
            _check_last_row(table, columns)
            notices.append(check_order(table, columns))
        if order == "newest-first":
            values, rows = values[::-1], rows[::-1]
    else:
        values, rows, found, order = _in_order(table, times, columns, values, how.on_duplicate)
        duplicates = len(table) - len(rows)
        notices += found
        labels = [times.labels[row] for row in rows]
        if times.dates is not None:
            dates = [times.dates.values[row] for row in rows]
            spacing = _spacing(table, times, dates, rows, how.freq)
            notices += _gaps(spacing, labels[-1], times.dates.form, len(rows))

    def place(row: int, column: int) -> str:
        return f"{table.where(row)}, column {printable(columns[column])}"

    try:
        filled = fill_missing(values, how.missing, rows, place)
    except DataError as error:
        raise DataError(f"{table.name}, {error}" if table.name else str(error)) from error
    form = None if times is None or times.dates is None else times.dates.form
    first_gap = spacing.first_missing and labels and format_date(spacing.first_missing, labels[-1], form)
    return TimeSeries(
        filled.values,
        columns,
        None if labels is None else tuple(_kept(labels, filled.rows)),
        None if dates is None else tuple(_kept(dates, filled.rows)),
        table.name or TimeSeries.name,
        (*notices, *filled.notices),
        filled.observed,
        filled.record,
        Reading(
            () if times is None else times.names,
            form,
            order,
            duplicates,
            spacing.freq,
            spacing.missing,
            first_gap or None,
            how.missing_values,
            styles,
        ),
        rows[filled.rows],
    )


def _kept(values: Sequence[Any], rows: Any) -> Sequence[Any]:
    return values[rows] if isinstance(rows, slice) else list(compress(values, rows))


def _spacing(table: Table, times: Times, dates: Sequence[datetime], rows: Rows, freq: str | None) -> Spacing:
    try:
        return find_spacing(dates, freq)
    except CellError as error:
        raise table.cell_refusal(" ".join(times.names), CellError(int(rows[error.row]), str(error))) from error


def _gaps(spacing: Spacing, like: str, form: str, rows: int) -> list[str]:
    """What to say about missing rows; a few business days are holidays."""
    if spacing.first_missing is None or (spacing.freq == "B" and spacing.missing < _HOLIDAYS * rows):
        return []
    first = format_date(spacing.first_missing, like, form)
    unit = spacing.unit.removesuffix("s") if spacing.missing == 1 else spacing.unit
    return [f"{spacing.missing} {unit} missing, first {first}; the rows are taken as if they were adjacent"]


def _in_order(
    table: Table, times: Times, columns: Sequence[str], values: Floats, on_duplicate: str | None
) -> tuple[Floats, Rows, list[str], str]:
    """Values in chronological order, the row of the source that each is, notices, and the order of the source."""
    order, notices = order_rows(times.keys), []
    name = " ".join(times.names)
    if len(repeats := order.repeats):
        row = int(repeats[0])
        count = f"{len(repeats)} row(s) repeat a time"
        if on_duplicate is None:
            before = table.where(times.keys.index(times.keys[row]))
            problem = f"{quoted(times.labels[row])} is in {before} already ({count}); "
            raise table.cell_refusal(name, CellError(row, problem + repeats_remedy(table, times, columns)))
        taken = "their mean" if on_duplicate == "mean" else f"the {on_duplicate} row of each time"
        first = f"first in {table.where(row)} ({quoted(times.labels[row])})"
        notices.append(f"column {printable(name)}: {count}, {first}; {taken} is taken")
    if order.name == "newest-first":
        notices.append("rows are newest-first; reversed to chronological order")
    elif len(order.late):
        first = f"first in {table.where(int(order.late[0]))} ({quoted(times.labels[order.late[0]])})"
        notices.append(f"{len(order.late)} row(s) come after a later one, {first}; sorted by {printable(name)}")
    return *order.take(values, on_duplicate), notices, order.name


def _columns(table: Table, times: Times | None, target: str | None, features: Sequence[str] | str) -> tuple[str, ...]:
    """The names of the target and the features, each once."""
    target = table.column(target).name if target is not None else default_target(table, times)
    if features == ALL and ALL not in table.names:
        features = numeric_columns(table, times)
    return tuple(dict.fromkeys((target, *(table.column(name).name for name in features))))


def numeric_columns(table: Table, times: Times | None) -> list[str]:
    """The names of the numeric columns, but for those that date or number the rows."""
    free = [column for column in table.columns[table.index :] if times is None or column.name not in times.names]
    numeric = [column.name for column in free if is_numeric(column)]
    return [name for name in numeric if re.sub("[^a-z]", "", name.lower()) not in INDEX_NAMES] or numeric


def default_target(table: Table, times: Times | None) -> str:
    """The column to predict if none is named; DataError if there is no saying."""
    if closes := [name for name in table.names if name.casefold() == "close"]:
        return closes[0]
    numeric, names = numeric_columns(table, times), table.names
    if not numeric:
        raise table.refusal(
            f"no numeric column; the columns are {listed(names, 3)}; to use one anyway, give {option('target', 'NAME')}"
        )
    if table.unit == "line" and all(map(may_be_number, numeric)):
        raise table.refusal(
            f"the first line looks like data ({listed(names, 3)}); add a header line with column names, or give "
            f"{option('target', numeric[0])} if that is one"
        )
    if len(numeric) > 1:
        raise table.refusal(
            f"{len(numeric)} numeric columns, none of them named Close; choose one by {option('target', 'NAME')}: "
            f"{listed(numeric, 3)}"
        )
    return numeric[0]


def read_values(
    table: Table, columns: Sequence[str], how: ReadOptions
) -> tuple[Floats, dict[str, NumberStyle], list[str]]:
    """The numbers of some columns, shape ``(N, F)``, missing ones as NaN, their styles, and notices about them."""
    may_group = how.decimal is None and table.delimiter != ""
    if may_group and table.delimiter == ",":  # where decimals are commas, other signs stand between cells
        may_group = any(has_decimal_commas(column.cells) for column in table.columns)
    values, styles, notices = [], {}, []
    for name in columns:
        try:
            column = table.column(name)
            numbers, styles[name] = read_numbers(column, how, table.where, points_may_group=may_group)
        except CellError as error:
            raise table.cell_refusal(name, error) from error
        if unit := styles[name].unit:
            row = int(np.flatnonzero(~np.isnan(numbers))[0])
            read_as = f"{quoted(column.cells[row].strip())} is read as {float(numbers[row])!r}"
            notices.append(f"column {printable(name)}: all in {'percent' if unit == '%' else unit}; {read_as}")
        if (value := suspicious_value(numbers)) is not None:
            count = np.count_nonzero(numbers == value)
            notices.append(
                f"column {printable(name)}: {value:g} is far outside of the other values and repeats {count} times; if "
                f"it marks missing values, give {option('missing_values', f'{value:g}')}"
            )
        values.append(numbers)
    return np.column_stack(values), styles, notices


def _check_last_row(table: Table, columns: Sequence[str]) -> None:
    """Raise DataError where the first column, which is not one of `columns`, calls the last row a total."""
    first = table.columns[0]
    if first.name in columns or first.numbers is not None:
        return
    *others, last = (text.strip() for text in first.cells)
    is_alone = is_missing(last) and not any(map(is_missing, others)) and not all(map(may_be_number, others))
    if is_alone or _TOTALS.fullmatch(last):
        what = quoted(last) if last else "an empty cell"
        problem = f"{what} may mark a total; remove the {table.unit}, or write another word there"
        raise table.cell_refusal(first.name, CellError(len(others), problem))
