"""Series from files, pandas objects and arrays: `read_series`."""

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.errors import ArgumentError, DataError, DataWarning, printable
from gru_xp.io import numbers
from gru_xp.io.csv_file import read_csv_table
from gru_xp.io.dates import format_date
from gru_xp.io.frames import PARQUET_SUFFIXES, UNNAMED, read_parquet, table_of_frame
from gru_xp.io.messages import CellError, listed, option, options, quoted
from gru_xp.io.options import ReadOptions
from gru_xp.io.order import Order, fill_missing, order_rows
from gru_xp.io.series import Reading, TimeSeries
from gru_xp.io.spacing import find_spacing
from gru_xp.io.table import Column, Floats, Rows, Table
from gru_xp.io.time_column import Times, check_order, find_times, is_index, refuse_wide, repeats_remedy

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


def read_panel(
    source: Any, *, id: str, target: str | None = None, features: Sequence[str] | str = (), **how: Any
) -> "pd.DataFrame":
    """Read several series into one long table.

    Parameters
    ----------
    source, target, features, **how
        As for `read_series`, which reads each series alone.
    id
        The column that tells the series apart.

    Returns
    -------
    pandas.DataFrame
        One series below the other, with the identifier and the time as the index, and target and features as columns.

    Raises
    ------
    DataError
        As for `read_series`.
    """
    import pandas as pd

    table = read_table(source, ReadOptions(**how))
    column = table.column(id)
    tables = {key: _only(table, column, key) for key in dict.fromkeys(cell.strip() for cell in column.cells)}
    frames = {key: read_rows(rows, target, features, ReadOptions(**how)).to_frame() for key, rows in tables.items()}
    return pd.concat(frames, names=[column.name])


def read(
    source: Any, target: str | None, features: Sequence[str] | str, how: ReadOptions, name: str | None = None
) -> TimeSeries:
    """Do what `read_series` does, without warnings; `name` is what to call a file."""
    table = read_table(source, how, name)
    target = None if target is None else str(target)
    if not isinstance(features, Iterable):
        raise ArgumentError(f"features is {features!r}; it must be column names, or 'all'")
    features = features if isinstance(features, str) else [str(name) for name in features]
    if not (isinstance(source, str | Path) or hasattr(source, "iloc") or hasattr(source, "to_pandas")):
        if target is not None or features:
            raise ArgumentError("target and features choose columns of a table; an array has its target in column 0")
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
    if array.ndim not in (1, 2) or array.dtype.kind in "cmM":
        kind = "complex numbers" if array.dtype.kind == "c" else "dates or durations"
        what = kind if array.dtype.kind in "cmM" else f"shape {array.shape}"
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
    if how.id is not None and len(ids := sorted(set(table.column(how.id).cells))) > 1:
        remedy = options("where", [f"{how.id}={ids[0].strip()}"])
        found = f"{len(ids)} series in column {printable(how.id)} ({listed(ids, 3)})"
        raise table.refusal(f"{found}; one series is expected; keep one by {remedy}")
    # a feature may date the rows as well
    times = find_times(table, how, [] if target is None else [table.column(target).name])
    try:
        columns = _columns(table, times, target, features)
    except DataError:
        if times is None:
            refuse_wide(table)
        raise
    values, styles, notices = read_values(table, columns, how)
    order = _order(table, times, columns, how, notices)
    values, rows = order.take(values, how.on_duplicate)
    facts = {} if times is None or times.dates is None else _spacing(table, times, rows, how.freq, notices)

    def place(row: int, column: int) -> str:
        return f"{table.where(row)}, column {printable(columns[column])}"

    try:
        filled = fill_missing(values, how.missing, rows, place)
    except DataError as error:
        raise DataError(f"{table.name}, {error}" if table.name else str(error)) from error
    rows = rows[filled.rows]
    reading = {"order": order.name, "duplicates": len(order.repeats), "missing_values": how.missing_values, **facts}
    return TimeSeries(
        filled.values,
        columns,
        None if times is None else tuple(_chosen(times.labels, rows)),
        None if times is None or times.dates is None else tuple(_chosen(times.dates.values, rows)),
        table.name or TimeSeries.name,
        (*notices, *filled.notices),
        filled.observed,
        filled.record,
        Reading(() if times is None else times.names, styles=styles, **reading),
        rows,
    )


def _chosen(cells: Sequence[Any], rows: Rows) -> list[Any]:
    return list(map(cells.__getitem__, rows.tolist()))


def _order(table: Table, times: Times | None, columns: Sequence[str], how: ReadOptions, notices: list[str]) -> Order:
    """The chronological order of the rows; what is to be said of it is added to the notices."""
    if times is None:
        if how.order is None and (table.name or table.index or len(table.columns) > len(columns)):
            _check_last_row(table, columns)
            notices.append(check_order(table, columns))
        return order_rows(range(len(table), 0, -1) if how.order == "newest-first" else range(len(table)))
    order, name = order_rows(times.keys), " ".join(times.names)

    def first(row: int) -> str:
        return f"first in {table.where(row)} ({quoted(times.labels[row])})"

    if len(repeats := order.repeats):
        row, count = int(repeats[0]), f"{len(repeats)} row(s) repeat a time"
        if how.on_duplicate is None:
            before = table.where(times.keys.index(times.keys[row]))
            problem = f"{quoted(times.labels[row])} is in {before} already ({count}); "
            raise table.cell_refusal(name, CellError(row, problem + repeats_remedy(table, times, columns)))
        taken = "their mean" if how.on_duplicate == "mean" else f"the {how.on_duplicate} row of each time"
        notices.append(f"column {printable(name)}: {count}, {first(row)}; {taken} is taken")
    if order.name == "newest-first":
        notices.append("rows are newest-first; reversed to chronological order")
    elif order.name == "unsorted":
        late = f"{len(order.late)} row(s) come after a later one, {first(int(order.late[0]))}"
        notices.append(f"{late}; sorted by {printable(name)}")
    return order


def _spacing(table: Table, times: Times, rows: Rows, freq: str | None, notices: list[str]) -> dict[str, Any]:
    """The facts of a `Reading` about the dates; missing rows are added to the notices."""
    assert times.dates is not None
    form, like = times.dates.form, times.labels[rows[-1]]
    try:
        spacing = find_spacing(_chosen(times.dates.values, rows), freq)
    except CellError as error:
        raise table.cell_refusal(" ".join(times.names), CellError(int(rows[error.row]), str(error))) from error
    first = None if spacing.first_missing is None else format_date(spacing.first_missing, like, form)
    if first is not None and (spacing.freq != "B" or spacing.missing >= _HOLIDAYS * len(rows)):
        unit = spacing.unit.removesuffix("s") if spacing.missing == 1 else spacing.unit
        notices.append(f"{spacing.missing} {unit} missing, first {first}; the rows are taken as if they were adjacent")
    return {"date_form": form, "freq": spacing.freq, "gaps": spacing.missing, "first_gap": first}


def _columns(table: Table, times: Times | None, target: str | None, features: Sequence[str] | str) -> tuple[str, ...]:
    """The names of the target and the features, each once."""
    target = table.column(target).name if target is not None else default_target(table, times)
    if features == ALL and ALL not in table.names:
        features = numeric_columns(table, times)
    named = [features] if isinstance(features, str) else features
    return tuple(dict.fromkeys((target, *(table.column(name).name for name in named))))


def numeric_columns(table: Table, times: Times | None) -> list[str]:
    """The names of the numeric columns, but for those that date or number the rows."""
    free = [column for column in table.columns[table.index :] if times is None or column.name not in times.names]
    numeric = [column.name for column in free if numbers.is_numeric(column)]
    return [name for name in numeric if not is_index(name)] or numeric


def default_target(table: Table, times: Times | None) -> str:
    """The column to predict if none is named; DataError if there is no saying."""
    if closes := [name for name in table.names if name.casefold() == "close"]:
        return closes[0]
    numeric = numeric_columns(table, times)
    name, some = option("target", "NAME"), listed(table.names, 3)
    if not numeric:
        raise table.refusal(f"no numeric column; the columns are {some}; to use one anyway, give {name}")
    if table.unit == "line" and all(map(numbers.may_be_number, numeric)):
        remedy = f"add a header line with column names, or give {option('target', numeric[0])} if that is one"
        raise table.refusal(f"the first line looks like data ({some}); {remedy}")
    if len(numeric) > 1:
        found = f"{len(numeric)} numeric columns, none of them named Close"
        raise table.refusal(f"{found}; choose one by {name}: {listed(numeric, 3)}")
    return numeric[0]


def read_values(
    table: Table, columns: Sequence[str], how: ReadOptions
) -> tuple[Floats, dict[str, numbers.NumberStyle], list[str]]:
    """The numbers of some columns, shape ``(N, F)``, missing ones as NaN, their styles, and notices about them."""
    may_group = how.decimal is None and table.delimiter != ""
    if may_group and table.delimiter == ",":  # where decimals are commas, other signs stand between cells
        may_group = any(numbers.has_decimal_commas(column.cells) for column in table.columns)
    values, styles, notices = [], {}, []
    for name in columns:
        try:
            column = table.column(name)
            found, styles[name] = numbers.read_numbers(column, how, points_may_group=may_group)
        except CellError as error:
            raise table.cell_refusal(name, error) from error
        called = f"column {printable(name)}"
        if unit := styles[name].unit:
            row = int(np.isfinite(found).argmax())
            read_as = f"{quoted(column.cells[row].strip())} is read as {float(found[row])!r}"
            notices.append(f"{called}: all in {'percent' if unit == '%' else unit}; {read_as}")
        if (value := numbers.suspicious_value(found)) is not None:
            what = f"{value:g} is far outside of the other values and repeats {np.count_nonzero(found == value)} times"
            remedy = options("missing_values", [*how.missing_values, f"{value:g}"])
            notices.append(f"{called}: {what}; if it marks missing values, give {remedy}")
        values.append(found)
    return np.column_stack(values), styles, notices


def _check_last_row(table: Table, columns: Sequence[str]) -> None:
    """Raise DataError where the first column, which is not one of `columns`, calls the last row a total."""
    first = table.columns[0]
    if first.name in columns or first.numbers is not None:
        return
    *others, last = (text.strip() for text in first.cells)
    is_alone = (
        numbers.is_missing(last)
        and not any(map(numbers.is_missing, others))
        and not all(map(numbers.may_be_number, others))
    )
    if is_alone or _TOTALS.fullmatch(last):
        what = quoted(last) if last else "an empty cell"
        problem = f"{what} may mark a total; remove the {table.unit}, or write another word there"
        raise table.cell_refusal(first.name, CellError(len(others), problem))
