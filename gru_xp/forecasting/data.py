"""The series that a Forecaster learns or continues, from the data that it is given, and forecasts in their form."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj

from gru_xp.devices import to_host
from gru_xp.errors import ArgumentError, DataError, DataWarning, printable
from gru_xp.forecasting.panels import AnySeries
from gru_xp.forecasting.scaling import LARGEST
from gru_xp.forecasting.windows import Floats
from gru_xp.io.frames import UNNAMED, is_table, to_pandas
from gru_xp.io.messages import find_name, listed, option, quoted
from gru_xp.io.options import ReadOptions
from gru_xp.io.panel import ID, Panel, check_for_panel, join_series, read_each
from gru_xp.io.read import read, read_table
from gru_xp.io.series import TimeSeries
from gru_xp.io.spacing import find_spacing, next_dates
from gru_xp.io.table import Rows


def series_to_learn(
    series: Any, target: str | None = None, features: Sequence[str] | str = (), how: Mapping[str, Any] | None = None
) -> TimeSeries:
    """Take what `Forecaster.fit` is given as a series.

    Raises
    ------
    ArgumentError
        An option of reading does not exist or has another kind of value, or the series is not a table.
    DataError
        The data cannot be used.
    """
    how = how or {}
    options = ReadOptions.from_dict(how)
    _refuse_panel(series)
    if is_table(series):
        return read(series, target, features, options)
    if target is not None or features:
        held = (
            "a TimeSeries has its columns" if isinstance(series, TimeSeries) else "column 0 of an array is the target"
        )
        raise ArgumentError(f"target and features choose columns of a table, but {held}; leave them out")
    if isinstance(series, TimeSeries) and how:
        raise ArgumentError(f"{listed(how)}: a TimeSeries has been read already; give options to read_series")
    return _checked(series) if isinstance(series, TimeSeries) else _from_array(series, options)


def series_to_continue(series: Any, columns: Sequence[str], how: ReadOptions | None = None) -> TimeSeries:
    """Take what a trained `Forecaster` is given as a series of the columns that it was trained on.

    A table must have them by name, and a `TimeSeries` should; otherwise, only the number of columns counts.

    Parameters
    ----------
    series
        As for `Forecaster.fit`.
    columns
        The columns, target first.
    how
        How the training data were read.

    Raises
    ------
    DataError
        A column is missing, or the data cannot be used.
    """
    _refuse_panel(series)
    if isinstance(series, TimeSeries):
        taken = _take_columns(_checked(series), columns)
    elif is_table(series):
        taken = _from_table(series, columns, how or ReadOptions())
    else:
        taken = _from_array(series, how or ReadOptions())
    _check_number(taken.columns, columns)
    return taken


# --- several series -----------------------------------------------------------------------------------------------


NIXTLA = (ID, "ds", "y")
"""The columns of a long table that has several series without further words."""


def is_panel(data: Any, how: ReadOptions | None = None) -> bool:
    """Whether some data are several series: a `Panel`, a dict of series, or a long table.

    A table is one that has the column that the options name as `id`, or all columns of `NIXTLA`.
    """
    if isinstance(data, Panel) or (isinstance(data, Mapping) and not is_table(data)):
        return True
    if not is_table(data) or not hasattr(data, "columns"):
        return False
    names = {
        str(name).strip().casefold() for name in (*data.columns, *getattr(getattr(data, "index", None), "names", ()))
    }
    return names >= set(NIXTLA) or (how is not None and how.id is not None and how.id.casefold() in names)


def panel_to_learn(
    data: Any, target: str | None = None, features: Sequence[str] | str = (), how: Mapping[str, Any] | None = None
) -> Panel:
    """Take several series, as `Forecaster.fit` is given them, as a panel.

    Raises
    ------
    ArgumentError
        As for `series_to_learn`, of each series.
    DataError
        The data cannot be used.
    """
    how = how or {}
    options = ReadOptions.from_dict(how)
    if isinstance(data, Panel):
        if how or target is not None or features:
            raise ArgumentError("a Panel has been read already; leave target, features and options of reading out")
        return data
    if isinstance(data, Mapping):
        check_for_panel(options)
        own = {name: value for name, value in how.items() if name != "id"}
        return _from_mapping(data, lambda series: series_to_learn(series, target, features, own), options.id)
    check_for_panel(options)
    return read_each(to_pandas(data), options.id or ID, target, features, options)


def panel_to_continue(data: Any, columns: Sequence[str], how: ReadOptions) -> Panel:
    """Take several series, as a trained `Forecaster` is given them, as a panel of the columns it was trained on.

    Raises
    ------
    DataError
        As for `series_to_continue`, of each series.
    """
    if isinstance(data, Panel):
        panel = data
        if set(columns) <= set(data.columns) and data.columns != tuple(columns):
            order = [data.columns.index(name) for name in columns]
            observed = None if data.observed is None else data.observed[:, order]
            panel = replace(data, values=data.values[:, order], columns=tuple(columns), observed=observed)
    elif isinstance(data, Mapping):
        own = replace(how, id=None)
        panel = _from_mapping(data, lambda series: series_to_continue(series, columns, own), how.id)
    else:
        frame = to_pandas(data)
        id = how.id if how.id is not None and is_panel(frame, replace(how, time=())) else None
        named = {str(name).casefold() for name in frame.columns}
        if id is None or id.casefold() not in named:
            id = ID
        if not {name.casefold() for name in how.time} <= named:
            how = replace(how, time=())
        panel = read_each(frame, id, columns[0], columns[1:], replace(how, where=()))
    _check_number(panel.columns, columns)
    return panel


def _from_mapping(data: Mapping[Any, Any], take: Callable[[Any], TimeSeries], id: str | None) -> Panel:
    series: dict[str, TimeSeries] = {}
    for key, given in data.items():
        name = str(key)
        if name in series:
            raise DataError(f"two series are named {quoted(name)}; give them different names")
        if isinstance(given, Mapping):
            raise DataError(f"{printable(name)}: is a dict; a series is a pandas object, an array or a TimeSeries")
        try:
            one = take(given)
        except DataError as error:
            raise DataError(f"{printable(name)}: {error}") from error
        if np.ndim(getattr(given, "values", given)) == 1:  # whatever it is called
            one = replace(one, columns=("y",))
        series[name] = replace(one, name=name)
    return join_series(series, id or ID)


def coming_rows(panel: Panel, steps: int) -> Any:
    """The names and the dates of the rows after each series, as a long pandas.DataFrame.

    Dates continue at the usual spacing of the series, or of most series; those of a series without any are missing,
    with a `DataWarning`. Without dates, rows are numbered from 0 for the first row of each series.
    """
    import pandas as pd

    names, missing = np.repeat(np.array(panel.names, dtype=object), steps), []
    if panel.dates is None:
        counted = panel.lengths[:, None] + np.arange(steps)
        return pd.DataFrame({panel.id: names, "ds": counted.ravel()})
    found = np.full((len(panel), steps), np.datetime64("NaT", "us"))
    freqs = panel.freqs or (None,) * len(panel)
    for number, (last, freq) in enumerate(zip(panel.dates[panel.offsets[1:] - 1].tolist(), freqs, strict=True)):
        usual = freq or panel.usual_freq
        following = None if usual is None else next_dates(last, usual, steps)
        if following is None:
            missing.append(panel.names[number])
        else:
            found[number] = np.array(following, dtype="datetime64[us]")
    if missing:
        warnings.warn(
            f"no dates for the forecasts of {listed(missing, 3)}: their rows have no usual spacing; give "
            f"{option('freq', 'D')} or another pandas offset",
            DataWarning,
            stacklevel=3,
        )
    return pd.DataFrame({panel.id: names, "ds": found.ravel()})


def _refuse_panel(data: Any) -> None:
    """Raise DataError for a panel or a dict; of a table with several series, reading says so."""
    if is_panel(data) and not is_table(data):
        raise DataError(
            "several series are given, and this takes one; fit, forecast and forecast_distribution take several"
        )


# --- notices and dates ----------------------------------------------------------------------------------------------


def warn_of_notices(data: Any, series: AnySeries, stacklevel: int) -> None:
    """Warn of what was noticed when `data` were read as `series`; a TimeSeries or a Panel was read before."""
    if not isinstance(data, TimeSeries | Panel):
        for notice in series.notices:
            warnings.warn(notice, DataWarning, stacklevel=stacklevel + 1)


def coming_index(data: Any, series: TimeSeries, count: int) -> Any:
    """The dates or numbers of the rows after the last one, as a pandas index; None for an array.

    Dates continue at the usual spacing of the rows; a RangeIndex goes on. If the rows have no usual spacing, or the
    calendar ends, the rows are numbered, from 0 for the first row of `data`.

    Parameters
    ----------
    data
        What the series was taken from.
    series
        The series.
    count
        How many rows.
    """
    is_dated_series = isinstance(data, TimeSeries) and series.dates is not None
    if not is_dated_series and not hasattr(data, "iloc"):
        return None
    import pandas as pd

    if series.dates is not None:
        freq = series.reading.freq or find_spacing(series.dates).freq
        following = None if freq is None else next_dates(series.dates[-1], freq, count)
        if following is not None:
            return pd.DatetimeIndex(following, name=getattr(getattr(data, "index", None), "name", None))
    elif isinstance(data.index, pd.RangeIndex):
        first, step = data.index.stop, data.index.step
        return pd.RangeIndex(first, first + count * step, step, name=data.index.name)
    return pd.RangeIndex(len(series), len(series) + count)


def with_index(data: Any, series: TimeSeries, predictions: Floats, first: int, name: str) -> Any:
    """Predictions of the rows of a series from `first` on: with their index, if the data are a pandas object."""
    if not hasattr(data, "iloc"):
        return predictions
    import pandas as pd

    return pd.Series(predictions, index=data.index[series.rows][first:], name=name)


def with_coming_index(data: Any, series: TimeSeries, forecast: Floats, name: str) -> Any:
    """A forecast after the last row: with the coming dates or numbers, if the data have any."""
    index = coming_index(data, series, len(forecast))
    if index is None:
        return np.asarray(forecast)
    import pandas as pd

    return pd.Series(forecast, index=index, name=name)


@contextmanager
def naming(series: object) -> Iterator[None]:
    """Where a DataError is about a `TimeSeries` or a `Panel` with a name of its own, the error begins with it, once."""
    try:
        yield
    except DataError as error:
        name = series.name if isinstance(series, TimeSeries | Panel) else TimeSeries.name
        start = f"{printable(name, 1000)}: "
        if name == TimeSeries.name or str(error).startswith(start):
            raise
        raise DataError(f"{start}{error}") from error


def before_later_rows(series: TimeSeries, origins: Rows) -> Iterator[tuple[int, TimeSeries]]:
    """The origins that interpolated values come just before, by number, each with the series as it is known there.

    These values are the last one that was there, not those between it and a later one. Rows from the origin on are as
    in the series, and each series holds only until the next one.
    """
    if series.interpolated is None:
        return
    there = np.where(series.interpolated, -1, np.arange(len(series))[:, None])
    last = np.maximum.accumulate(there, axis=0)  # row of the last value that was there, -1 for none
    known = replace(series, values=series.values.copy(), interpolated=None)
    for number in np.flatnonzero(series.interpolated[origins - 1].any(axis=1)).tolist():
        origin = int(origins[number])
        rows = last[origin - 1]
        changed = slice(max(rows.min(), 0), origin)
        for column, row in enumerate(rows.tolist()):
            if row >= 0:
                known.values[row:origin, column] = known.values[row, column]
        yield number, known
        known.values[changed] = series.values[changed]


def known_until(series: TimeSeries, row: int) -> TimeSeries:
    """The series whose interpolated values before a row are as they are known there; see `before_later_rows`."""
    if series.interpolated is None or row >= len(series):
        return series
    return replace(series, values=np.concatenate([series.head(row).values, series.values[row:]]))


def target_alone(series: TimeSeries) -> TimeSeries:
    """The series without its features."""
    observed, interpolated = (
        None if flags is None else flags[:, :1] for flags in (series.observed, series.interpolated)
    )
    return replace(
        series,
        values=series.values[:, :1],
        columns=series.columns[:1],
        observed=observed,
        interpolated=interpolated,
    )


def observed_values(series: AnySeries) -> Any:
    """Which values of a series were there, shape ``(N, F)``."""
    return np.ones(series.values.shape, dtype=bool) if series.observed is None else series.observed


def check_magnitude(series: AnySeries) -> None:
    """Raise DataError where a value is too large to be learned."""
    bad = np.argwhere(np.abs(series.values) > LARGEST)
    if len(bad):
        row, column = map(int, bad[0])
        raise DataError(
            f"{place_of(series, row, column)}: {series.values[row, column]:g} is not a number up to "
            f"{LARGEST:g}; scale the column down, or remove such rows"
        )


def check_counts(series: AnySeries) -> None:
    """Raise DataError where the target is below 0, which no count is."""
    below = np.flatnonzero(series.values[:, 0] < 0)
    if len(below):
        raise DataError(
            f"{place_of(series, below[0], 0)}: {series.values[below[0], 0]:g} is no count, as "
            f"{option('loss', 'poisson')} needs; use another loss, such as {option('loss', 'quantile')}"
        )


def check_limits(series: AnySeries, minimum: float | None, maximum: float | None) -> None:
    """Raise DataError where a value of the target is beyond limits that its forecasts are to be within."""
    target = series.values[:, 0]
    for name, limit, beyond, side in (
        ("minimum", minimum, target.argmin(), "below"),
        ("maximum", maximum, target.argmax(), "above"),
    ):
        value = target[beyond]
        if limit is not None and (value < limit if side == "below" else value > limit):
            raise DataError(
                f"{place_of(series, int(beyond), 0)}: {value:g} is {side} the {name} of the forecasts, {limit:g}; "
                f"give another {option(name)}, or leave it out"
            )


def place_of(series: AnySeries, row: int, column: int) -> str:
    """A value's row and column in a message."""
    return f"{_place(series, row)}, column {printable(series.columns[column])}"


def _place(series: AnySeries, row: int) -> str:
    """A row in a message: its line, if it is from a text file, and its time, or else its number."""
    if isinstance(series, Panel):
        number = int(np.searchsorted(series.offsets[1:], row, side="right"))
        return f"{printable(series.names[number])}, {_place(series[number], row - int(series.offsets[number]))}"
    place = f"{series.unit} {row if series.rows is None else series.rows[row]}"
    if series.unit == "line":
        return f"{place} ({quoted(series.labels[row])})" if series.labels else place
    return printable(series.labels[row]) if series.labels else place


def remembered_options(notes: Mapping[str, Any]) -> ReadOptions:
    """How the training data were read, as the notes of a model say."""
    try:
        return ReadOptions.from_dict(notes.get("reading", {}))
    except (TypeError, ValueError):  # notes of another program
        return ReadOptions()


def _from_array(data: Any, how: ReadOptions) -> TimeSeries:
    if is_array_api_obj(data) and not isinstance(data, np.ndarray):
        data = to_host(data)
    if isinstance(data, str) or hasattr(data, "__fspath__"):
        raise DataError(f"{printable(str(data))} is a name, not data; read a file by gru_xp.read_series first")
    return read(data, None, (), how)


def _from_table(data: Any, columns: Sequence[str], how: ReadOptions) -> TimeSeries:
    data = to_pandas(data)
    names = [name.casefold() for name in read_table(data, ReadOptions()).names]
    needed = [*how.time, *([] if how.id is None else [how.id]), *(text.partition("=")[0] for text in how.where)]
    if not {name.strip().casefold() for name in needed} <= set(names):
        how = replace(how, time=(), id=None, where=())
    target: str | None = columns[0]
    if data.ndim == 1:  # it is the target, whatever it is called
        _check_number([UNNAMED if data.name is None else str(data.name)], columns)
        data = data.rename(target)
    elif tuple(columns) == (UNNAMED,) and data.select_dtypes("number").shape[1] == 1:
        target = None
    return read(data, target, columns[1:], how)


def _checked(series: TimeSeries) -> TimeSeries:
    """The series itself; DataError where it was made by hand and its parts do not fit."""
    shape = np.shape(series.values)
    parts = [part for part in (series.labels, series.dates) if part is not None]
    if len(shape) != 2 or shape[1] != len(series.columns) or any(len(part) != shape[0] for part in parts):
        lengths = ", ".join(str(len(part)) for part in parts) or "no"
        raise DataError(
            f"the TimeSeries has values of shape {shape}, {len(series.columns)} column(s), and {lengths} labels or "
            "dates; values must be (N, F) for F columns, with N labels and dates"
        )
    if not isinstance(series.values, np.ndarray):
        library = type(series.values).__module__.partition(".")[0]
        raise DataError(
            f"the TimeSeries has values of {library}; they must be of NumPy, as gru_xp.devices.to_host makes"
        )
    if series.values.dtype != np.float64:
        raise DataError(f"the TimeSeries has values of dtype {series.values.dtype}; they must be float64")
    return series


def _take_columns(series: TimeSeries, columns: Sequence[str]) -> TimeSeries:
    """The columns of those names; a series of as many columns with other names stays as it is."""
    if not set(columns) <= set(series.columns):
        if len(series.columns) not in (1, len(columns)):
            for name in columns:
                find_name(name, series.columns)
        return series
    order = [series.columns.index(name) for name in columns]
    observed, interpolated = (
        None if flags is None else flags[:, order] for flags in (series.observed, series.interpolated)
    )
    return replace(
        series, values=series.values[:, order], columns=tuple(columns), observed=observed, interpolated=interpolated
    )


def _check_number(names: Sequence[str], columns: Sequence[str]) -> None:
    if len(names) != len(columns):
        raise DataError(
            f"the series has {len(names)} column(s), {listed(names)}; the model was trained on {listed(columns)}"
        )
