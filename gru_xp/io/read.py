"""Series from files, pandas objects and arrays: `read_series`."""

import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.errors import ArgumentError, DataError, DataWarning, printable
from gru_xp.io import numbers
from gru_xp.io.csv_file import read_csv_table
from gru_xp.io.dates import format_date
from gru_xp.io.frames import PARQUET_SUFFIXES, is_table, read_parquet, table_of_frame, to_pandas
from gru_xp.io.messages import CellError, listed, option, options, quoted
from gru_xp.io.options import ReadOptions
from gru_xp.io.order import Order, fill_missing, order_rows
from gru_xp.io.series import Reading, Styles, TimeSeries
from gru_xp.io.spacing import Spacing, find_spacing
from gru_xp.io.table import Column, Rows, Table
from gru_xp.io.time_column import (
    Times,
    check_order,
    counts_rows,
    find_times,
    is_calendar,
    refuse_wide,
    repeats_remedy,
)

if TYPE_CHECKING:
    import pandas as pd

Features = Sequence[str] | str
"""The names of columns, or of one, or `ALL`."""

ALL = "all"
"""As the features: every numeric column."""

_HOLIDAYS = 0.06
"""Business days that may be missing without a notice, of all."""

_NO_NUMBERS = {"c": "complex numbers", "m": "dates or durations", "M": "dates or durations", "V": "fields"}
"""What arrays may not have, by the kind of their dtype."""

_TOTALS = re.compile(r"((grand|sub)?[ -]?totals?|sum|average|avg|mean)\.?:?", re.IGNORECASE)


def read_series(source: Any, *, target: str | None = None, features: Features = (), **how: Any) -> TimeSeries:
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
        The value of an option is not allowed.
    DataError
        The source cannot be used; the message says where the problem is, and what to do.

    Warns
    -----
    DataWarning
        The rows were reversed or sorted, are not dated, have gaps or suspicious values.
    """
    series = read(source, target, features, ReadOptions.of(how))
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

    options = ReadOptions.of(how)
    table = read_table(source, options)
    column = table.column(str(id))
    parts = {key: table.take(rows) for key, rows in _groups(column).items()}
    series = {key: read_rows(part, target, features, options) for key, part in parts.items()}
    for key, each in series.items():
        for notice in each.notices:
            warnings.warn(f"{printable(key)}: {notice}", DataWarning, stacklevel=2)
    return pd.concat({key: each.to_frame() for key, each in series.items()}, names=[column.name])


def read(source: Any, target: str | None, features: Features, how: ReadOptions, name: str | None = None) -> TimeSeries:
    """Do what `read_series` does, without warnings; `name` is what to call a file."""
    features = () if features is None else features.tolist() if hasattr(features, "tolist") else features
    if not (target is None or isinstance(target, str | int | tuple)):
        raise ArgumentError(f"target is {printable(repr(target))}; it must name columns")
    if not isinstance(features, Iterable) or isinstance(features, bytes):
        raise ArgumentError(f"features is {printable(repr(features))}; it must name columns")
    table = read_table(source, how, name)
    if not (isinstance(source, str | Path) or is_table(source)):
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
        source = to_pandas(source)
        table = table_of_frame(source if hasattr(source, "iloc") else _frame(source))
    return choose_rows(table, how.where)


def choose_rows(table: Table, where: Sequence[str]) -> Table:
    """The rows that fulfil all conditions ``"COLUMN=VALUE"``."""
    for condition in where:
        name, _, value = map(str.strip, condition.partition("="))
        groups = _groups(table.column(name))
        value = next((key for key in groups if numbers.is_same(key, value)), value)
        if value not in groups:
            found = f"column {printable(name)} has no {quoted(value)}"
            raise table.refusal(f"{found}; it has {listed(groups, 5)}")
        table = table.take(groups[value])
    return table


def _groups(column: Column) -> dict[str, Rows]:
    """The rows of each text in a column."""
    import pandas as pd

    cells = pd.Series(column.cells).str.strip()
    return {str(text): np.array(rows) for text, rows in cells.groupby(cells, sort=False).indices.items()}


def _frame(array: Any) -> "pd.DataFrame | pd.Series[Any]":
    import pandas as pd

    try:
        array = np.ma.asarray(array)
        problem = _NO_NUMBERS.get(array.dtype.kind, "" if array.ndim in (1, 2) else f"shape {array.shape}")
    except ValueError:
        problem = "rows of different lengths"
    if problem:
        raise DataError(f"the array has {problem}; a series is (N,) or (N, F) of real numbers, target in column 0")
    return pd.Series(array) if array.ndim == 1 else pd.DataFrame(array).add_prefix("column ")


def read_rows(table: Table, target: str | None, features: Features, how: ReadOptions) -> TimeSeries:
    """Read a series from a table, all of whose rows it has; see `read_series`."""
    if how.id is not None and len(keys := _groups(table.column(how.id))) > 1:
        found = f"{len(keys)} series in column {printable(how.id)} ({listed(keys, 3)})"
        remedy = option("where", f"{how.id}={next(iter(keys))}")
        raise table.refusal(f"{found}; one series is expected; keep one by {remedy}")
    # a feature may date the rows as well
    times = find_times(table, how, [] if target is None else [table.column(str(target)).name])
    if times is None:
        times = Times((), (), None, range(len(table))[:: -1 if how.order == "newest-first" else 1])
    columns = _columns(table, times.names, target, features, [how.id])
    values, styles = read_values(table, columns, how)
    order = order_rows(times.keys)
    said = [*_value_notices(table, values, styles, how), *_order_notices(table, times, order, columns, how)]
    values = order.take(values, how.on_duplicate)
    spacing, first_gap = _spacing(table, times, values.index.to_numpy(), how.freq)
    filled = fill_missing(values, how.missing, table)
    rows = filled.values.index.to_numpy()
    form, gaps = times.dates.form if times.dates else None, (spacing.freq, spacing.missing, first_gap)
    return TimeSeries(
        np.array(filled.values, order="C"),
        columns,
        labels=_at(rows, times.labels) if times.names else None,
        dates=_at(rows, times.dates.values) if times.dates else None,
        name=table.name or TimeSeries.name,
        notices=(*said, *_gap_notices(spacing, first_gap, len(values)), *filled.notices),
        observed=filled.observed,
        missing=filled.record,
        reading=Reading(times.names, form, order.name, len(order.repeats), *gaps, how.missing_values, styles),
        rows=rows,
    )


def _at(rows: Rows, cells: Sequence[Any]) -> tuple[Any, ...]:
    if len(rows) == len(cells) and (np.diff(rows) > 0).all():
        return tuple(cells)
    return tuple(map(cells.__getitem__, rows.tolist()))


def _columns(
    table: Table, dated: Collection[str], target: str | None, features: Features, ids: Collection[str | None]
) -> tuple[str, ...]:
    """The names of the target and the features, each once."""
    target = default_target(table, dated) if target is None else target
    if features == ALL and ALL not in table.names:
        features = [name for name in numeric_columns(table, dated) if name not in ids]
    named = [target, *([features] if isinstance(features, str) else features)]
    return tuple(dict.fromkeys(table.column(str(name)).name for name in named))


def numeric_columns(table: Table, dated: Collection[str]) -> list[str]:
    """The names of the numeric columns, but for those by which the rows are `dated`, and that count the rows."""
    free = [column for column in table.columns[table.index :] if column.name not in dated]
    numeric = [column for column in free if numbers.is_numeric(column)]
    return [column.name for column in numeric if not counts_rows(column)] or [column.name for column in numeric]


def default_target(table: Table, dated: Collection[str]) -> str:
    """The column to predict by default; raise DataError if the choice is not clear."""
    closes = [name for name in table.names if name == "Close"] or [n for n in table.names if n.casefold() == "close"]
    if len(set(closes)) > 1:
        remedy = option("target", closes[0])
        raise table.refusal(f"{len(closes)} columns are named {listed(closes)}; choose one by {remedy}")
    if closes:
        return closes[0]
    numeric = numeric_columns(table, dated)
    numeric = [name for name in numeric if not is_calendar(name)] or numeric
    is_headless = numeric and table.unit == "line" and all(map(numbers.may_be_number, numeric))
    if len(numeric) == 1 and not is_headless:
        return numeric[0]
    if not dated:
        refuse_wide(table)
    if is_headless:
        remedy = f"add a header line with column names, or give {option('target', numeric[0])} if that is one"
        raise table.refusal(f"the first line looks like data ({listed(table.names, 3)}); {remedy}")
    found = f"{len(numeric)} numeric columns, none of them named Close" if numeric else "no numeric column"
    raise table.refusal(f"{found}; choose one by {option('target', 'NAME')}: {listed(numeric or table.names, 3)}")


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


def _value_notices(table: Table, values: "pd.DataFrame", styles: Styles, how: ReadOptions) -> Iterator[str]:
    """What to say of numbers with a unit, and of those that may mark missing values."""
    for name, style in styles.items():
        column, called = values[name], f"column {printable(name)}"
        if style.unit and style.unit != numbers.BOOLEAN:
            row, unit = int(column.notna().argmax()), "percent" if style.unit == "%" else style.unit
            text = table.column(name).cells[row].strip()
            yield f"{called}: all in {unit}; {quoted(text)} is read as {float(column[row])!r}"
        if (value := numbers.suspicious_value(column.to_numpy())) is not None:
            what = f"{value:g} is far outside of the other values and repeats {(column == value).sum()} times"
            remedy = options("missing_values", [*how.missing_values, f"{value:g}"])
            yield f"{called}: {what}; if it marks missing values, give {remedy}"


def _order_notices(table: Table, times: Times, order: Order, used: Sequence[str], how: ReadOptions) -> Iterator[str]:
    """What to say of the order of the rows and of those that repeat a time; DataError where they are refused."""
    name = " ".join(times.names)
    if not times.names:
        may_be_dated = table.name or table.index or len(table.columns) > len(used)
        if how.order is None and may_be_dated:
            _check_last_row(table, used)
            yield check_order(table, used)
        return

    def first(rows: Rows) -> str:
        return f"first in {table.where(rows[0])} ({quoted(times.labels[rows[0]])})"

    if len(order.repeats):
        row, count = order.repeats[0], f"{len(order.repeats)} row(s) repeat a time"
        if how.on_duplicate is None:
            before = table.where(times.keys.index(times.keys[row]))
            problem = f"{quoted(times.labels[row])} is in {before} already ({count})"
            raise table.cell_refusal(name, CellError(row, f"{problem}; {repeats_remedy(table, times, used)}"))
        taken = "their mean" if how.on_duplicate == "mean" else f"the {how.on_duplicate} row of each time"
        yield f"column {printable(name)}: {count}, {first(order.repeats)}; {taken} is taken"
    if how.order not in (None, order.name):
        yield f"{option('order', str(how.order))} is not used, since {printable(name)} dates the rows"
    if order.name == "newest-first":
        yield "rows are newest-first; reversed to chronological order"
    elif order.name == "unsorted":
        yield f"{len(order.late)} row(s) come after a later one, {first(order.late)}; sorted by {printable(name)}"


def _check_last_row(table: Table, columns: Sequence[str]) -> None:
    """Raise DataError where the first column, which is not one of `columns`, calls the last row a total."""
    first = table.columns[0]
    if first.name in columns or first.numbers is not None:
        return
    cells = [cell.strip() for cell in first.cells]
    known = [cell for cell in cells if not numbers.is_missing(cell)]
    only_last_is_missing = known == cells[:-1] and not all(map(numbers.may_be_number, known))
    if only_last_is_missing or _TOTALS.fullmatch(cells[-1]):
        problem = f"{quoted(cells[-1])} may mark a total; remove the {table.unit}, or write another word there"
        raise table.cell_refusal(first.name, CellError(len(cells) - 1, problem))


def _spacing(table: Table, times: Times, rows: Rows, freq: str | None) -> tuple[Spacing, str | None]:
    """The spacing of rows with dates, and the first date without a row, as the source would write it."""
    if times.dates is None:
        return Spacing(), None
    try:
        spacing = find_spacing(_at(rows, times.dates.values), freq)
    except CellError as error:
        raise table.cell_refusal(" ".join(times.names), CellError(rows[error.row], str(error))) from error
    first = spacing.first_missing
    return spacing, None if first is None else format_date(first, times.labels[rows[-1]], times.dates.form)


def _gap_notices(spacing: Spacing, first: str | None, count: int) -> Iterator[str]:
    """What to say of missing rows."""
    if first is not None and (spacing.freq != "B" or spacing.missing >= _HOLIDAYS * count):
        unit = spacing.unit.removesuffix("s") if spacing.missing == 1 else spacing.unit
        yield f"{spacing.missing} {unit} missing, first {first}; the rows are taken as if they were adjacent"
