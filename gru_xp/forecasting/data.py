"""The series that a Forecaster learns or continues, from the data that it is given."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gru_xp.errors import ArgumentError, DataError, DataWarning, printable
from gru_xp.forecasting.scaling import LARGEST
from gru_xp.io.frames import UNNAMED
from gru_xp.io.messages import direct_arguments, find_name, listed
from gru_xp.io.options import ReadOptions
from gru_xp.io.read import read, read_table
from gru_xp.io.series import TimeSeries


def series_to_learn(
    data: Any, target: str | None = None, features: Sequence[str] | str = (), time: Sequence[str] | str | None = None
) -> TimeSeries:
    """Take what `Forecaster.fit` is given as a series.

    Raises
    ------
    ArgumentError
        Columns are chosen, but the data are not a table.
    DataError
        The data cannot be used.
    """
    how = ReadOptions.from_dict({"time": time or ()})
    try:
        names = features if isinstance(features, str) else tuple(map(str, features))
    except TypeError as error:
        raise ArgumentError(f"features is {features!r}; it must be column names, or 'all'") from error
    if not _is_table(data):
        if target is not None or names or how.time:
            kind = (
                "a TimeSeries has its columns" if isinstance(data, TimeSeries) else "column 0 of an array is the target"
            )
            raise ArgumentError(f"target, features and time choose columns of a table, but {kind}; leave them out")
        return data if isinstance(data, TimeSeries) else _from_array(data)
    with direct_arguments("target", "features", "time"):
        return read(data, None if target is None else str(target), names, how)


def series_to_continue(data: Any, columns: Sequence[str], time: Sequence[str] = ()) -> TimeSeries:
    """Take what a trained `Forecaster` is given as a series of the columns that it was trained on.

    A table must have them by name, and a `TimeSeries` should; otherwise, only the number of columns counts.

    Parameters
    ----------
    data
        As for `Forecaster.fit`.
    columns
        The columns, target first.
    time
        The columns that dated the rows of the training data, if they were named.

    Raises
    ------
    DataError
        A column is missing, or the data cannot be used.
    """
    if isinstance(data, TimeSeries):
        series = _take_columns(data, columns)
    elif _is_table(data):
        with direct_arguments():
            series = _from_table(data, columns, time)
    else:
        series = _from_array(data)
    _check_number(series.columns, columns)
    return series


def warn_of_notices(data: Any, series: TimeSeries, stacklevel: int) -> None:
    """Warn of what was noticed when `data` were read as `series`; a TimeSeries was read before."""
    if not isinstance(data, TimeSeries):
        for notice in series.notices:
            warnings.warn(notice, DataWarning, stacklevel=stacklevel + 1)


def check_magnitude(series: TimeSeries) -> None:
    """Raise DataError where a value is too large to be learned."""
    bad = np.argwhere(np.abs(series.values) > LARGEST)
    if len(bad):
        row, column = map(int, bad[0])
        place = f"row {row if series.rows is None else series.rows[row]}"
        if series.labels:
            place = printable(series.labels[row])
        raise DataError(
            f"{place}, column {printable(series.columns[column])}: {series.values[row, column]:g} is not a number up "
            f"to {LARGEST:g}; scale the column down, or remove such rows"
        )


def remembered_time(notes: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that dated the rows of the training data, as the notes of a model say; none where they do not."""
    try:
        return ReadOptions.from_dict(notes.get("reading", {})).time
    except (TypeError, ValueError):  # notes of somebody else
        return ()


def _is_table(data: Any) -> bool:
    return not isinstance(data, TimeSeries) and (hasattr(data, "iloc") or hasattr(data, "to_pandas"))


def _from_array(data: Any) -> TimeSeries:
    if isinstance(data, str) or hasattr(data, "__fspath__"):
        raise DataError(f"{printable(str(data))} is a name, not data; read a file by gru_xp.read_series first")
    with direct_arguments():
        return read(data, None, (), ReadOptions())


def _from_table(data: Any, columns: Sequence[str], time: Sequence[str]) -> TimeSeries:
    data = data.to_pandas() if hasattr(data, "to_pandas") else data
    names = read_table(data, ReadOptions()).names if time else []
    is_there = {name.casefold() for name in time} <= {name.casefold() for name in names}
    how = ReadOptions(time=tuple(time) if is_there else ())
    target: str | None = columns[0]
    if data.ndim == 1:  # it is the target, whatever it is called
        _check_number([UNNAMED if data.name is None else str(data.name)], columns)
        data = data.rename(target)
    elif tuple(columns) == (UNNAMED,) and data.select_dtypes("number").shape[1] == 1:
        target = None
    return read(data, target, columns[1:], how)


def _take_columns(series: TimeSeries, columns: Sequence[str]) -> TimeSeries:
    """The columns of those names; a series of as many columns with other names stays as it is."""
    if not set(columns) <= set(series.columns):
        if len(series.columns) not in (1, len(columns)):
            for name in columns:
                find_name(name, series.columns)
        return series
    order = [series.columns.index(name) for name in columns]
    observed = None if series.observed is None else series.observed[:, order]
    return replace(series, values=series.values[:, order], columns=tuple(columns), observed=observed)


def _check_number(names: Sequence[str], columns: Sequence[str]) -> None:
    if len(names) != len(columns):
        raise DataError(
            f"the series has {len(names)} column(s), {listed(names)}; the model was trained on {listed(columns)}"
        )
