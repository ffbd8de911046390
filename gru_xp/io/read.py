"""Series from files, pandas objects and arrays: `read_series`."""

import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.errors import ArgumentError, DataWarning, printable
from gru_xp.io import csv_file, frames, numbers, time_column
from gru_xp.io.dates import format_date
from gru_xp.io.messages import CellError, listed, option, options, quoted
from gru_xp.io.options import ReadOptions, texts
from gru_xp.io.order import Order, fill_missing, order_rows
from gru_xp.io.series import Reading, Styles, TimeSeries
from gru_xp.io.spacing import Spacing, find_spacing
from gru_xp.io.table import Column, Rows, Table
from gru_xp.io.time_column import Times

if TYPE_CHECKING:
    import pandas as pd

Features = Sequence[str] | str
"""The names of columns, or of one, or `ALL`."""

ALL = "all"
"""As the features: every numeric column."""

_HOLIDAYS = 0.06
"""Business days that may be missing without a notice, of all."""

_TOTALS = re.compile(r"((grand|sub)?[ -]?totals?|sum|average|avg|mean)\.?:?", re.IGNORECASE)


def read_series(source: Any, *, target: str | None = None, features: Features = (), **how: Any) -> TimeSeries:
    """Read a series from a file, a pandas object or an array.

    The rows are brought into chronological order by the column named `time`; if none is named, by the one called date,
    datetime, timestamp, ds or time (in any case), or else by the first column, if all of its cells are dates. Where no
    column dates the rows, they are taken as oldest first, unless the table shows that they are not; of a file, or where
    several columns look like dates, with a `DataWarning`.

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
        The value of an option is not allowed.
    DataError
        The source cannot be used; the message says where the problem is, and what to do.

    Warns
    -----
    DataWarning
        The rows were reversed or sorted, may not be in order, have gaps or suspicious values.
    """
    series = read(source, target, features, ReadOptions.from_dict(how))
    for notice in series.notices:
        warnings.warn(notice, DataWarning, stacklevel=2)
    return series


def read_panel(
    source: Any, *, id: str, target: str | None = None, features: Features = (), **how: Any
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
    ArgumentError, DataError
        As for `read_series`.

    Warns
    -----
    DataWarning
        As for `read_series`, of each series.
    """
    import pandas as pd

    options = ReadOptions.from_dict(how)
    table = read_table(source, options)
    column = table.column(str(id))
    parts = {}
    for key, rows in groups_of(column).items():
        series = read_rows(table.take(rows), target, features, options)
        for notice in series.notices:
            warnings.warn(f"{printable(key)}: {notice}", DataWarning, stacklevel=2)
        parts[key] = series.to_frame()
    return pd.concat(parts, names=[column.name])


def read(source: Any, target: str | None, features: Features, how: ReadOptions, name: str | None = None) -> TimeSeries:
    """Do what `read_series` does, without warnings; `name` is what to call a file."""
    table = read_table(source, how, name)
    if isinstance(source, str | Path) or frames.is_table(source):
        return read_rows(table, target, features, how)
    if target is not None or texts("features", features):
        raise ArgumentError("target and features choose columns of a table; an array has its target in column 0")
    return read_rows(table, table.names[0], table.names[1:], replace(how, order=how.order or "oldest-first"))


def read_table(source: Any, how: ReadOptions, name: str | None = None) -> Table:
    """Read the rows of a source that `how` asks for, without deciding anything about them."""
    if isinstance(source, str | Path):
        path = Path(source)
        name = printable(name or ("stdin" if str(path) == "-" else str(path)), 1000)
        is_parquet = path.suffix.lower() in frames.PARQUET_SUFFIXES
        table = frames.read_parquet(path, name) if is_parquet else csv_file.read_csv_table(path, name, how)
    else:
        table = frames.table_of_frame(frames.to_pandas(source))
    return choose_rows(table, how.where)


def choose_rows(table: Table, where: Sequence[str]) -> Table:
    """The rows that fulfil all conditions ``"COLUMN=VALUE"``."""
    for condition in where:
        name, _, value = map(str.strip, condition.partition("="))
        groups = groups_of(table.column(name))
        rows = next((rows for key, rows in groups.items() if numbers.is_same(key, value)), None)
        if rows is None:
            raise table.refusal(f"column {printable(name)} has no {quoted(value)}; it has {listed(groups, 5)}")
        table = table.take(rows)
    return table


def groups_of(column: Column) -> dict[str, Rows]:
    """The rows of each text in a column."""
    import pandas as pd

    cells = pd.Series(column.cells).str.strip()
    return {str(text): np.array(rows) for text, rows in cells.groupby(cells, sort=False).indices.items()}


def read_rows(table: Table, target: str | None, features: Features, how: ReadOptions) -> TimeSeries:
    """Read a series from a table, all of whose rows it has; see `read_series`."""
    if how.id is not None and len(keys := groups_of(table.column(how.id))) > 1:
        found = f"{len(keys)} series in column {printable(how.id)} ({listed(keys, 3)})"
        remedy = option("where", f"{how.id}={next(iter(keys))}")
        raise table.refusal(f"{found}; one series is expected; keep one by {remedy}")
    # a feature may date the rows as well
    times = time_column.find_times(table, how, [] if target is None else [table.column(str(target)).name])
    times = times or Times((), (), None, range(len(table))[:: -1 if how.order == "newest-first" else 1])
    columns = choose_columns(table, times.names, target, features, how.id)
    values, styles = read_values(table, columns, how)
    order = order_rows(times.keys)
    said = [*_value_notices(values, styles, how), *_order_notices(table, times, order, columns, how)]
    values = order.take(values, how.on_duplicate)
    spacing, first_gap = _find_gaps(table, times, values.index.to_numpy(), how.freq)
    if first_gap is not None and (spacing.freq != "B" or spacing.missing >= _HOLIDAYS * len(values)):
        unit = spacing.unit.removesuffix("s") if spacing.missing == 1 else spacing.unit
        said += [f"{spacing.missing} {unit} missing, first {first_gap}; the rows are taken as if they were adjacent"]
    filled = fill_missing(values, how.missing, table)
    rows = filled.values.index.to_numpy()
    form, gaps = times.dates.form if times.dates else None, (spacing.freq, spacing.missing, first_gap)
    return TimeSeries(
        np.array(filled.values, order="C"),
        columns,
        labels=_take(times.labels, rows) if times.names else None,
        dates=_take(times.dates.values, rows) if times.dates else None,
        name=table.name or TimeSeries.name,
        notices=(*said, *filled.notices),
        observed=filled.observed,
        missing=filled.record,
        reading=Reading(times.names, form, order.name, len(order.repeats), *gaps, how.missing_values, styles),
        rows=np.asarray(table.lines, dtype=np.int64)[rows],
        interpolated=filled.interpolated,
        unit=table.unit,
    )


def _take(cells: Sequence[Any], rows: Rows) -> tuple[Any, ...]:
    are_all = len(rows) == len(cells) and bool((np.diff(rows) > 0).all())  # in their order
    return tuple(cells if are_all else map(cells.__getitem__, rows.tolist()))


def _find_gaps(table: Table, times: Times, rows: Rows, freq: str | None) -> tuple[Spacing, str | None]:
    """The spacing of rows with dates, and the first date without a row, as the source would write it."""
    if times.dates is None:
        return Spacing(), None
    try:
        spacing = find_spacing(_take(times.dates.values, rows), freq)
    except CellError as error:
        raise table.cell_refusal(" ".join(times.names), CellError(rows[error.row], str(error))) from error
    first = spacing.first_missing
    return spacing, None if first is None else format_date(first, times.labels[rows[-1]], times.dates.form)


# --- columns ------------------------------------------------------------------------------------------------------


def choose_columns(
    table: Table, dated: Collection[str], target: str | None, features: Features, id: str | None = None
) -> tuple[str, ...]:
    """The names of the target and the features, each once."""
    target = default_target(table, dated) if target is None else target
    named = texts("features", features)
    if named == (ALL,) and ALL not in table.names:
        named = tuple(name for name in numeric_columns(table, dated, booleans=True) if name != id)
    return tuple(dict.fromkeys(table.column(str(name)).name for name in (target, *named)))


def numeric_columns(table: Table, dated: Collection[str], *, booleans: bool = False) -> list[str]:
    """The names of the numeric columns, but for those by which the rows are `dated`, and that count the rows."""
    free = [column for column in table.columns[table.index :] if column.name not in dated]
    numeric = [c for c in free if numbers.is_numeric(c) or (booleans and numbers.is_boolean(c))]
    return [column.name for column in numeric if not time_column.counts_rows(column)] or [c.name for c in numeric]


def default_target(table: Table, dated: Collection[str]) -> str:
    """The column to predict by default; raise DataError if the choice is not clear."""
    names = [name for name in table.names if name == "Close"] or [n for n in table.names if n.casefold() == "close"]
    if not names:
        numeric = numeric_columns(table, dated)
        names = [name for name in numeric if not time_column.is_calendar(name)] or numeric
    if names and table.unit == "line" and all(map(numbers.may_be_number, names)):
        remedy = f"add a header line with column names, or give {option('target', names[0])} if that is one"
        raise table.refusal(f"the first line looks like data ({listed(table.names, 3)}); {remedy}")
    if len(set(names)) == 1:
        return names[0]
    found = f"{len(names)} numeric columns may be the target" if names else "no numeric column"
    raise table.refusal(f"{found}; choose one by {option('target', 'NAME')}: {listed(names or table.names, 3)}")


def read_values(table: Table, columns: Sequence[str], how: ReadOptions) -> tuple["pd.DataFrame", Styles]:
    """The numbers of some columns, missing ones as NaN, and how they are written."""
    import pandas as pd

    # where decimals are commas, other signs stand between cells
    have_commas = (numbers.has_decimal_commas(column.cells) for column in table.columns)
    may_group = any(have_commas) if table.delimiter == "," and how.decimal is None else table.delimiter != ""
    values, styles = {}, {}
    for name in columns:
        try:
            values[name], styles[name] = numbers.read_numbers(table.column(name), how, points_may_group=may_group)
        except CellError as error:
            raise table.cell_refusal(name, error) from error
    return pd.DataFrame(values), styles


# --- notices ------------------------------------------------------------------------------------------------------


def _value_notices(values: "pd.DataFrame", styles: Styles, how: ReadOptions) -> Iterator[str]:
    """What to say of numbers with a unit, and of those that may mark missing values."""
    for name, style in styles.items():
        column, called = values[name], f"column {printable(name)}"
        if style.unit not in ("", numbers.BOOLEAN):
            yield f"{called}: all in {style.unit}, which is left out of the numbers"
        if (value := numbers.suspicious_value(column.to_numpy())) is not None:
            what = f"{value:g} is far outside of the other values and repeats {(column == value).sum()} times"
            remedy = options("missing_values", [*how.missing_values, f"{value:g}"])
            yield f"{called}: {what}; if it marks missing values, give {remedy}"


def _order_notices(table: Table, times: Times, order: Order, used: Sequence[str], how: ReadOptions) -> Iterator[str]:
    """What to say of the order of the rows and of those that repeat a time; DataError where they are refused."""
    if not times.names:
        if how.order is None:
            _check_last_row(table, used)
            yield from time_column.check_order(table, used)
        return
    name = printable(" ".join(times.names))
    if len(order.repeats):
        row, count = order.repeats[0], f"{len(order.repeats)} row(s) repeat a time"
        if how.on_duplicate is None:
            before = table.where(times.keys.index(times.keys[row]))
            remedy = time_column.tell_rows_apart(table, times, used).message
            problem = f"{quoted(times.labels[row])} is in {before} already ({count}); {remedy}"
            raise table.cell_refusal(name, CellError(row, problem))
        taken = "their mean" if how.on_duplicate == "mean" else f"the {how.on_duplicate} row of each time"
        yield f"column {name}: {count}, first in {_place(table, times, row)}; {taken} is taken"
    if how.order not in (None, order.name):
        yield f"{option('order', str(how.order))} is not used, since {name} dates the rows"
    yield from time_column.blocks_notices(table, times, used)
    if order.name == "newest-first":
        yield "rows are newest-first; reversed to chronological order"
    elif order.name == "unsorted":
        first = _place(table, times, order.late[0])
        yield f"{len(order.late)} row(s) come after a later one, first in {first}; sorted by {name}"


def _place(table: Table, times: Times, row: int) -> str:
    return f"{table.where(row)} ({quoted(times.labels[row])})"


def _check_last_row(table: Table, columns: Sequence[str]) -> None:
    """Raise DataError where the first column, which is not one of `columns`, calls the last row a total."""
    first = table.columns[0]
    *others, last = map(str.strip, first.cells)
    are_words = not any(numbers.is_missing(cell) or numbers.may_be_number(cell) for cell in others)
    is_total = _TOTALS.fullmatch(last) or (are_words and numbers.is_missing(last))
    if is_total and first.name not in columns:
        problem = f"{quoted(last)} may mark a total; remove the {table.unit}, or write another word there"
        raise table.cell_refusal(first.name, CellError(len(others), problem))
