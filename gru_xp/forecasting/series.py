"""A time series in memory, from a pandas object or an array; ``csv_file.py`` makes one from a file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time
from typing import Any

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.forecasting.dates import direction, wall_clock_or_utc
from gru_xp.forecasting.reading.cells import listed, quoted
from gru_xp.forecasting.reading.missing import Flags, treat_missing
from gru_xp.forecasting.reading.numerals import LARGEST
from gru_xp.forecasting.reading.options import MISSING
from gru_xp.forecasting.windows import Floats
from gru_xp.nn.checks import check_choice

UNNAMED = "value"
"""The name of a column that has none."""


@dataclass(frozen=True)
class TimeSeries:
    """Rows in the order of time.

    Attributes
    ----------
    values : array, shape ``(N, F)``, float64
        The target in column 0, then the further input columns; all finite.
    columns
        Their F names.
    labels
        The text of each row's date or index; None without one.
    dates
        The dates that the labels mean; None where they are not dates.
    name
        What to call the series.
    notices
        What was done to it on reading that its owner should know.
    observed : array, shape ``(N, F)``, bool, optional
        False where a value was missing and `values` holds another in its place; None where none is marked so.
    missing
        What was done about missing values: ``how``, the number of ``values``, and where the ``first`` was; None where
        there were none.
    """

    values: Floats
    columns: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    dates: tuple[datetime, ...] | None = None
    name: str = "series"
    notices: tuple[str, ...] = ()
    observed: Flags | None = None
    missing: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def target(self) -> str:
        """Name of the target column."""
        return self.columns[0]

    def is_there(self, row: int) -> bool:
        """Whether the target of a row is one that was not missing."""
        return self.observed is None or bool(self.observed[row, 0])

    def head(self, rows: int) -> "TimeSeries":
        """The first `rows` rows."""
        return replace(
            self,
            values=self.values[:rows],
            labels=None if self.labels is None else self.labels[:rows],
            dates=None if self.dates is None else self.dates[:rows],
            observed=None if self.observed is None else self.observed[:rows],
        )


def as_series(data: Any, columns: Sequence[str] | None = None, *, missing: str = "refuse") -> TimeSeries:
    """Take a series as people have it.

    Parameters
    ----------
    data : TimeSeries, pandas.Series, pandas.DataFrame or array
        An array is ``(N,)`` or ``(N, F)`` with the target in column 0.
    columns
        The columns to take of a DataFrame, target first; if None, all numeric ones, ``Close`` first if there is one.
        Of a TimeSeries they are taken by name, if they are there; else, and for anything else, only their number
        counts.
    missing
        What to do about missing values, of anything but a TimeSeries; see `ReadOptions`.

    Returns
    -------
    TimeSeries

    Raises
    ------
    DataError
        A column is missing, or a value is not a finite number; the message names row and column.
    """
    check_choice("missing", missing, MISSING)
    if isinstance(data, TimeSeries):
        series = data if columns is None else _take_columns(data, columns)
    elif hasattr(data, "select_dtypes"):
        series = _from_frame(data, columns, missing)
    elif hasattr(data, "index") and hasattr(data, "to_numpy"):
        name = UNNAMED if data.name is None else str(data.name)
        series = _from_values(_pandas_values(data), (name,), missing, *_from_index(data.index))
    else:
        try:
            array = np.asarray(data)
        except ValueError as error:
            raise DataError(
                "the rows have different lengths; a series is (N,) or (N, F), target in column 0"
            ) from error
        if array.ndim not in (1, 2):
            raise DataError(f"the array has shape {array.shape}; a series is (N,) or (N, F), target in column 0")
        names = (UNNAMED,) if array.ndim == 1 else tuple(f"column {i}" for i in range(array.shape[1]))
        series = _from_values(array, names, missing)
    if columns is not None and len(series.columns) != len(columns):
        raise DataError(
            f"the series has {len(series.columns)} column(s), {listed(series.columns)}; "
            f"the model was trained on {listed(columns)}"
        )
    return series


def _take_columns(series: TimeSeries, columns: Sequence[str]) -> TimeSeries:
    """The columns of those names; a series of as many columns and other names stays as it is."""
    if not set(columns) <= set(series.columns):
        if len(series.columns) not in (1, len(columns)):
            check_columns(columns, series.columns)
        return series
    order = [series.columns.index(name) for name in columns]
    observed = None if series.observed is None else series.observed[:, order]
    return replace(series, values=series.values[:, order], columns=tuple(columns), observed=observed)


def _from_frame(frame: Any, columns: Sequence[str] | None, missing: str) -> TimeSeries:
    numeric = [str(name) for name in frame.select_dtypes("number").columns]
    names = tuple(sorted(numeric, key=lambda name: name != "Close") if columns is None else columns)
    if not names:
        raise DataError("the DataFrame has no numeric column; convert one to numbers")
    if columns is not None and tuple(columns) == (UNNAMED,) and len(numeric) == 1:
        names = (numeric[0],)
    available = {str(name): name for name in frame.columns}
    if not frame.columns.is_unique:
        repeated = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"the DataFrame has several columns called {quoted(str(repeated))}; rename them")
    check_columns(names, tuple(available))
    values = _pandas_values(frame[[available[name] for name in names]])
    return _from_values(values, names, missing, *_from_index(frame.index))


def _pandas_values(data: Any) -> Any:
    """The values of a pandas object, with NaN for what pandas says is missing."""
    values = data.to_numpy()
    return np.where(data.isna(), np.nan, values) if values.dtype == object else values


def check_columns(wanted: Sequence[str], available: Sequence[str]) -> None:
    """Raise DataError unless every wanted column is there; the message lists those that are."""
    for name in wanted:
        if name not in available:
            raise DataError(f"there is no column {quoted(name)}; the columns are {listed(available)}")


def _from_index(index: Any) -> tuple[tuple[str, ...] | None, tuple[datetime, ...] | None]:
    """Labels and dates of a pandas index."""
    if hasattr(index, "to_timestamp"):
        index = index.to_timestamp()
    if not hasattr(index, "tz_localize"):
        return None, None
    if index.hasnans:
        raise DataError(f"row {int(index.isna().argmax())} has no date; fill it in or remove the row")
    dates = tuple(wall_clock_or_utc([stamp.to_pydatetime(warn=False) for stamp in index]))
    if direction(dates) != 1:
        raise DataError("the dates of the index do not rise; sort the rows first, by sort_index()")
    whole_days = all(date.time() == time() and date.tzinfo is None for date in dates)
    return tuple((date.date() if whole_days else date).isoformat() for date in dates), dates


def _from_values(
    array: Any,
    names: tuple[str, ...],
    missing: str,
    labels: tuple[str, ...] | None = None,
    dates: tuple[datetime, ...] | None = None,
) -> TimeSeries:
    treated = treat_missing(
        _floats(array, names),
        missing,
        lambda row, column: f"row {row}, column {printable(names[column])}",
        remedy="fill in or remove such rows first",
    )
    return TimeSeries(
        treated.values,
        names,
        None if labels is None else tuple(np.asarray(labels, dtype=object)[treated.rows]),
        None if dates is None else tuple(np.asarray(dates, dtype=object)[treated.rows]),
        notices=treated.notices,
        observed=treated.observed,
        missing=treated.record,
    )


def _floats(array: Any, names: Sequence[str]) -> Floats:
    """The values as floats, shape ``(N, F)``, missing ones as NaN."""
    array = np.asarray(array)
    if array.size == 0:
        raise DataError(f"the series has shape {array.shape}; it must have at least one row and one column")
    if np.iscomplexobj(array):
        raise DataError("the series consists of complex numbers; give their real part, or two columns")
    if array.dtype.kind in "mM":
        raise DataError("the series consists of dates or durations; convert them to numbers")
    try:
        values = np.asarray(array, dtype=np.float64).reshape(len(array), -1)
    except (TypeError, ValueError) as error:
        raise DataError(f"the series does not consist of numbers ({printable(str(error), 200)})") from error
    bad = np.argwhere(np.abs(values) > LARGEST)
    if len(bad):
        row, column = map(int, bad[0])
        raise DataError(
            f"row {row}, column {printable(names[column])}: {values[row, column]} is not a finite number up to "
            f"{LARGEST:g}; fill in, scale or remove such rows first"
        )
    return values
