"""What is in a table, and how it can be trained on, found without training."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gru_xp.errors import DataError
from gru_xp.forecasting.data import naming
from gru_xp.forecasting.forecaster import Forecaster
from gru_xp.forecasting.scaling import Scaler
from gru_xp.forecasting.season import find_seasons
from gru_xp.forecasting.windows import split_rows
from gru_xp.io.dates import format_date
from gru_xp.io.messages import CellError, option
from gru_xp.io.numbers import is_boolean, is_missing, is_numeric, may_be_number, suspicious_value
from gru_xp.io.options import CHOICES, ReadOptions, texts
from gru_xp.io.order import order_rows
from gru_xp.io.read import ALL, choose_columns, choose_rows, default_target, numeric_columns, read_rows, read_values
from gru_xp.io.series import TimeSeries
from gru_xp.io.spacing import Spacing, find_spacing
from gru_xp.io.table import Column, Table
from gru_xp.io.time_column import Times, find_times, tell_rows_apart

SPLIT_RATIO = 0.7
"""Of `gru-xp train`, where nothing else is asked for."""

_MAX_TARGETS = 10
_MAX_MARKS, _LONGEST_MARK = 3, 12


@dataclass(frozen=True)
class ColumnFacts:
    """What is in a column.

    Attributes
    ----------
    name
        From the header.
    kind : {"time", "number", "boolean", "text"}
        ``"time"`` for the columns that date the rows.
    missing
        Cells without a value.
    min, max
        Of its numbers; None where it has none, or they cannot be read.
    constant
        Whether all values that are not missing are the same.
    suspicious
        A number far outside of the others that repeats, which may mark missing values.
    problem
        Why its numbers cannot be read.
    """

    name: str
    kind: str
    missing: int
    min: float | None = None
    max: float | None = None
    constant: bool = False
    suspicious: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Inspection:
    """What is in a table, and how it can be trained on.

    Attributes
    ----------
    name
        What to call the table.
    rows
        Their number.
    columns
        All of them, in their order.
    time
        The columns that date the rows; empty if no column does.
    first, last
        The first and the last time, as the table writes them.
    order : {"oldest-first", "newest-first", "unsorted"}
        Of the rows by time; None without one.
    freq
        The usual spacing of the rows, as a pandas offset; None if the rows have no usual spacing.
    breaks
        Two neighbouring rows that break the spacing that most others have, where there is no usual one.
    gaps
        Rows that are missing by that spacing.
    first_gap
        The time of the first of them.
    duplicates
        Rows that repeat a time.
    seasons
        The seasons of the target, in rows; see `find_seasons`.
    target
        A column that can be predicted; the one that was asked for, or the usual one, or else the last that works.
    is_default_target
        Whether the target need not be named.
    options
        How to read the table so that it can be trained on; None where no such options are known.
    notices
        What is said when it is read with these options.
    problems
        Why it cannot be read without these options, and what else to do about it.
    """

    name: str
    rows: int
    columns: tuple[ColumnFacts, ...]
    time: tuple[str, ...]
    first: str | None
    last: str | None
    order: str | None
    freq: str | None
    breaks: tuple[str, str] | None
    gaps: int
    first_gap: str | None
    duplicates: int
    seasons: tuple[int, ...]
    target: str | None
    is_default_target: bool
    options: ReadOptions | None
    notices: tuple[str, ...]
    problems: tuple[str, ...]


def inspect_table(
    table: Table, target: str | None = None, features: Sequence[str] | str = (), how: ReadOptions | None = None
) -> Inspection:
    """Describe a table.

    Parameters
    ----------
    table
        As `read_table` gives it.
    target, features, how
        As for training.

    Raises
    ------
    DataError
        A column that is named is not there.
    """
    how = how or ReadOptions()
    used = [table.column(name).name for name in (target, *texts("features", features)) if name not in (None, ALL)]
    times, how, problems = _find_times(table, how, used)
    trial = None if problems and times is None else _try_targets(table, times, target, features, how)
    problems += trial.problems if trial else []
    series = trial.series if trial else None
    return Inspection(
        name=table.name,
        rows=len(table),
        columns=tuple(_column_facts(table, column, times, how) for column in table.columns),
        **_time_facts(table, times, how),
        seasons=() if series is None else find_seasons(series.values[:, 0], series.reading.freq),
        target=None if series is None else series.target,
        is_default_target=trial is not None and trial.target is None,
        options=trial.options if trial else None,
        notices=() if series is None else series.notices,
        problems=tuple(problems),
    )


# --- columns and times --------------------------------------------------------------------------------------------


def _column_facts(table: Table, column: Column, times: Times | None, how: ReadOptions) -> ColumnFacts:
    cells = [cell.strip() for cell in column.cells]
    known = [cell for cell in cells if not is_missing(cell, how.missing_values)]
    facts = ColumnFacts(column.name, "text", len(cells) - len(known), constant=len(set(known)) <= 1)
    if times is not None and column.name in times.names:
        return replace(facts, kind="time", constant=False)
    kind = "number" if is_numeric(column, how.missing_values) else "text"
    kind = "boolean" if is_boolean(column, how.missing_values) else kind
    if kind == "text" or table.names.count(column.name) > 1:
        return replace(facts, kind=kind)
    try:
        values = read_values(table, [column.name], how)[0][column.name]
    except DataError as error:
        return replace(facts, kind=kind, problem=str(error))
    numbers = values.dropna()
    if numbers.empty:
        return replace(facts, kind=kind, missing=len(values))
    return replace(
        facts,
        kind=kind,
        missing=len(values) - len(numbers),
        min=float(numbers.min()),
        max=float(numbers.max()),
        constant=bool(np.ptp(numbers) == 0),
        suspicious=suspicious_value(values.to_numpy()),
    )


def _find_times(table: Table, how: ReadOptions, used: Sequence[str]) -> tuple[Times | None, ReadOptions, list[str]]:
    """What dates the rows, the options with the date format that a refusal names, if it is one, and the refusals."""
    try:
        return find_times(table, how, used), how, []
    except DataError as error:
        problem = str(error)
    named = re.search(option("date_format") + r"""[= ](?:'([^']+)'|"([^"]+)"|(%\S+?))(?=[,;]|$)""", problem)
    if named is None or how.date_format is not None:
        return None, how, [problem]
    times, how, problems = _find_times(table, replace(how, date_format=named[named.lastindex or 0]), used)
    return times, how, [problem, *problems]


def _time_facts(table: Table, times: Times | None, how: ReadOptions) -> dict[str, Any]:
    """The facts about the time of rows, as `Inspection` has them."""
    if times is None:
        names = ("first", "last", "order", "freq", "breaks", "first_gap")
        return {"time": (), "gaps": 0, "duplicates": 0} | dict.fromkeys(names)
    order = order_rows(times.keys)
    rows = order.rows().tolist()
    labels = [times.labels[row] for row in rows]
    spacing = Spacing(None)
    if times.dates is not None:
        dates = [times.dates.values[row] for row in rows]
        try:
            spacing = find_spacing(dates, how.freq)
        except CellError:  # which is one of the problems
            spacing = find_spacing(dates)
    first_gap = None
    if times.dates is not None and spacing.first_missing is not None:
        first_gap = format_date(spacing.first_missing, labels[-1], times.dates.form)
    return {
        "time": times.names,
        "first": labels[0],
        "last": labels[-1],
        "order": order.name,
        "freq": spacing.freq,
        "breaks": None if spacing.breaks is None else tuple(labels[row] for row in spacing.breaks),
        "gaps": spacing.missing,
        "first_gap": first_gap,
        "duplicates": len(order.repeats),
    }


# --- how it can be trained on -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    """What came of reading a table: a series, the options by which it can be learned, and the refusals on the way."""

    target: str | None
    series: TimeSeries | None
    options: ReadOptions | None
    problems: list[str]


def _try_targets(
    table: Table, times: Times | None, target: str | None, features: Sequence[str] | str, how: ReadOptions
) -> _Trial:
    """Read the table for the target, or for the usual one, or for the last numeric column that can be learned.

    In tables that are read so, identifiers and counters mostly come first.
    """
    if target is not None:
        return _try(table, times, target, features, how)
    numeric, problems = numeric_columns(table, times.names if times else ()), []
    try:
        default_target(table, times.names if times else ())
        return _try(table, times, None, features, how)
    except DataError as error:
        if not numeric or all(map(may_be_number, numeric)):  # otherwise, a column must be chosen, which is no problem
            problems.append(str(error))
    trials = []
    likely = [name for name in numeric if name and (times or not _falls(table, name, how))] or numeric[-1:]
    for name in likely[: -_MAX_TARGETS - 1 : -1]:
        trial = _try(table, times, name, features, how)
        if trial.options is not None:
            return replace(trial, problems=problems + trial.problems)
        trials.append(trial)
    first = trials[0] if trials else _Trial(None, None, None, [])
    return replace(first, problems=problems + first.problems)


def _falls(table: Table, name: str, how: ReadOptions) -> bool:
    """Whether the numbers of a column fall from row to row, as those that count the rows of a newest-first table."""
    try:
        values = read_values(table, [name], how)[0][name]
    except DataError:
        return False
    return bool((values.diff()[1:] < 0).all())


def _try(
    table: Table, times: Times | None, target: str | None, features: Sequence[str] | str, how: ReadOptions
) -> _Trial:
    """Read the table, each time it is refused with one option more."""
    problems: list[str] = []
    while True:
        try:
            series = read_rows(table, target, features, how)
            break
        except DataError as error:
            problems += [str(error)] if str(error) not in problems else []
        try:
            remedy = _remedy(table, times, target, features, how)
            if remedy is None:
                return _Trial(target, None, None, problems)
            table = choose_rows(table, remedy.where[len(how.where) :])
            times, how = find_times(table, remedy, [] if target is None else [target]), remedy
        except DataError as error:
            return _Trial(target, None, None, [*problems, str(error)])
    try:
        _check_learnable(series)
    except DataError as error:
        return _Trial(target, series, None, [*problems, str(error)])
    return _Trial(target, series, how, problems)


def _check_learnable(series: TimeSeries) -> None:
    """Raise DataError where `gru-xp train` would refuse the series, with the usual settings."""
    usual = Forecaster()
    with naming(series):
        split = split_rows(len(series), usual.shortest_window, SPLIT_RATIO, usual.validation_ratio, usual.horizon)
        Scaler.fit(usual.scaling, series.values[: split.train_end], series.columns)


def _remedy(
    table: Table, times: Times | None, target: str | None, features: Sequence[str] | str, how: ReadOptions
) -> ReadOptions | None:
    """The options with one more, which should remove the reason for the refusal; None if no option does."""
    if how.id is not None and len(set(table.column(how.id).cells)) > 1:
        column = table.column(how.id)
        return replace(how, where=(*how.where, f"{column.name}={column.cells[0].strip()}"))
    used = choose_columns(table, times.names if times else (), target, features, how.id)
    repeats = times is not None and len(order_rows(times.keys).repeats) > 0
    if (times is None and how.order is None) or (repeats and how.on_duplicate is None):
        apart = tell_rows_apart(table, times, used)
        if apart.option == "time":
            return replace(how, time=tuple(apart.values))
        if apart.option == "where":
            return replace(how, where=(*how.where, *apart.values))
        if apart.message and not apart.option:  # the file must be changed
            return None
    if repeats and how.on_duplicate is None:
        return replace(how, on_duplicate="first")
    if marks := _marks(table.column(used[0]), how):
        return replace(how, missing_values=(*how.missing_values, *marks))
    if how.decimal is None and not _are_readable(table, used, how):
        certain = [sign for sign in CHOICES["decimal"] if _are_readable(table, used, replace(how, decimal=sign))]
        return replace(how, decimal=certain[0]) if len(certain) == 1 else None
    return replace(how, missing="ffill") if how.missing == "refuse" else None


def _marks(column: Column, how: ReadOptions) -> list[str]:
    """The few texts of a column of numbers that may mark missing values."""
    if column.numbers is not None:
        return []
    texts = dict.fromkeys(cell.strip() for cell in column.cells if not is_missing(cell, how.missing_values))
    others = [text for text in texts if not may_be_number(text)]
    are_short = all(len(text) <= _LONGEST_MARK and not re.search(r"[\d,]", text) for text in others)
    return others if len(others) <= _MAX_MARKS and are_short and is_numeric(column, how.missing_values) else []


def _are_readable(table: Table, names: Sequence[str], how: ReadOptions) -> bool:
    try:
        return bool(read_values(table, names, how))
    except DataError:
        return False
