"""Several series, one below the other: `Panel`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gru_xp.errors import ArgumentError, DataError, printable
from gru_xp.io.messages import CellError, listed, option
from gru_xp.io.options import ReadOptions
from gru_xp.io.read import groups_of, read_rows, read_table
from gru_xp.io.series import Flags, Reading, TimeSeries
from gru_xp.io.table import Floats, Rows

ID = "unique_id"
"""What Nixtla's libraries call the column that names the series."""

_TAKEN = [
    "ds",
    "cutoff",
    "y",
    "step",
    "date",
    "split",
    "actual",
    "predicted",
    "residual",
    "best_baseline",
    "forecast",
    "windows",
    "number",
]
"""Columns of tables of forecasts, which the column of the names goes into."""

MAX_NOTICES = 3
"""Notices about single series that are shown; the others are counted."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Several series in one array, one below the other, each in chronological order.

    Series may differ in length and in their dates. Item `i` is a series, with a view of its values.

    Attributes
    ----------
    values : array, shape ``(N, F)``, float64
        The target in column 0, then the features; all finite.
    columns
        Their F names.
    names
        Of the S series.
    offsets : array, shape ``(S + 1,)``, int64
        The first row of each series, and N.
    labels
        The text of each row's time; None without one.
    dates : array, shape ``(N,)``, datetime64[us], optional
        What the labels mean; None where they are not dates.
    freqs
        The usual spacing of the rows of each series, as a pandas offset; None where it is not known.
    id
        What to call the column of the names.
    name
        What to call all of them.
    notices, observed, missing, reading, unit
        As of `TimeSeries`. The reading is that of the longest series.
    rows : array, shape ``(N,)``, optional
        As of `TimeSeries`.
    """

    values: Floats
    columns: tuple[str, ...]
    names: tuple[str, ...]
    offsets: Rows
    labels: Sequence[str] | None = None
    dates: Any = None
    freqs: tuple[str | None, ...] = ()
    id: str = ID
    name: str = TimeSeries.name
    notices: tuple[str, ...] = ()
    observed: Flags | None = None
    missing: dict[str, Any] | None = None
    reading: Reading = field(default_factory=Reading)
    rows: Rows | None = None
    unit: str = "row"

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[TimeSeries]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> TimeSeries:
        rows = slice(*self.offsets[number : number + 2].tolist())
        freq = self.freqs[number] if self.freqs else None
        return TimeSeries(
            self.values[rows],
            self.columns,
            labels=None if self.labels is None else tuple(self.labels[rows]),
            dates=None if self.dates is None else tuple(self.dates[rows].tolist()),
            name=self.names[number],
            observed=None if self.observed is None else self.observed[rows],
            reading=replace(self.reading, freq=freq or self.usual_freq),
            rows=None if self.rows is None else self.rows[rows],
            unit=self.unit,
        )

    @property
    def target(self) -> str:
        """Name of the target column."""
        return self.columns[0]

    @property
    def lengths(self) -> Rows:
        """Rows of each series, shape ``(S,)``."""
        return np.diff(self.offsets)

    @cached_property
    def usual_freq(self) -> str | None:
        """The spacing that most series have; None where no series has one."""
        known = Counter(freq for freq in self.freqs if freq is not None).most_common(1)
        return known[0][0] if known else None

    def select(self, numbers: Sequence[int]) -> "Panel":
        """Some of the series, by number."""
        rows = np.concatenate([np.arange(*self.offsets[number : number + 2]) for number in numbers])
        parts: dict[str, Any] = {
            name: value[rows]
            for name in ("values", "dates", "observed", "rows")
            if (value := getattr(self, name)) is not None
        }
        if self.labels is not None:
            parts["labels"] = [self.labels[row] for row in rows.tolist()]
        offsets = np.concatenate([[0], np.cumsum(self.lengths[list(numbers)])])
        names = tuple(self.names[number] for number in numbers)
        freqs = tuple(self.freqs[number] for number in numbers if self.freqs)
        return replace(self, names=names, freqs=freqs, offsets=offsets, **parts)

    def target_alone(self) -> "Panel":
        """The series without their features."""
        observed = None if self.observed is None else self.observed[:, :1]
        return replace(self, values=self.values[:, :1], columns=self.columns[:1], observed=observed)

    def head(self, stops: Rows) -> "Panel":
        """The rows of each series before the row numbers ``stops (S,)``, as if there were no others."""
        counts = stops - self.offsets[:-1]
        taken = np.arange(len(self.values)) < np.repeat(stops, self.lengths)
        parts: dict[str, Any] = {
            name: value[taken]
            for name in ("values", "dates", "observed", "rows")
            if (value := getattr(self, name)) is not None
        }
        if self.labels is not None:
            parts["labels"] = [self.labels[row] for row in np.flatnonzero(taken).tolist()]
        return replace(self, offsets=np.concatenate([[0], np.cumsum(counts)]), **parts)


def join_series(series: Mapping[str, TimeSeries], id: str = ID, name: str = TimeSeries.name) -> Panel:
    """Put series with the same columns into a panel, by name.

    Raises
    ------
    DataError
        There is no series, or their columns differ, or some have dates and others have not.
    """
    if not series:
        raise DataError("there is no series; give one or more, by name")
    parts = list(series.values())
    longest = max(parts, key=len)
    for key, part in series.items():
        if part.columns != longest.columns:
            raise DataError(
                f"{printable(key)}: its columns are {listed(part.columns)}, those of {printable(longest.name)} "
                f"{listed(longest.columns)}; all series of a panel need the same ones"
            )
    has_dates, has_labels = ({(part.dates, part.labels)[which] is not None for part in parts} for which in (0, 1))
    if len(has_dates) > 1 or len(has_labels) > 1:
        other = next(key for key, part in series.items() if part.dates is None)
        raise DataError(
            f"{printable(other)}: its rows have no dates, those of other series have; give all of them dates"
        )
    dates = [np.array(part.dates, dtype="datetime64[us]") for part in parts] if True in has_dates else None
    notices = [f"{printable(key)}: {notice}" for key, part in series.items() for notice in part.notices]
    more = len(notices) - MAX_NOTICES
    return Panel(
        np.concatenate([part.values for part in parts]),
        longest.columns,
        tuple(series),
        np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64),
        labels=[label for part in parts for label in part.labels or ()] if True in has_labels else None,
        dates=None if dates is None else np.concatenate(dates),
        freqs=tuple(part.reading.freq for part in parts),
        id=ID if id.casefold() in _TAKEN else id,
        name=name,
        notices=(*notices[:MAX_NOTICES], *([f"and {more} more notices about single series"] if more > 0 else [])),
        observed=_joined([part.observed for part in parts]),
        missing=next((part.missing for part in parts if part.missing is not None), None),
        reading=longest.reading,
        rows=_joined([part.rows for part in parts]),
        unit=longest.unit,
    )


def check_for_panel(how: ReadOptions) -> None:
    """Raise ArgumentError if an option cannot be used for several series."""
    if how.missing == "interpolate":
        raise ArgumentError(
            f"{option('missing', 'interpolate')} is for one series; of several, give "
            f"{option('missing', 'drop', 'ffill', 'mask')}"
        )


def read_each(
    source: Any, id: str, target: str | None, features: Sequence[str] | str, how: ReadOptions, name: str | None = None
) -> Panel:
    """Read several series from a file or a long table, each as `read_series` reads one.

    The columns are those that are found in the longest series.

    Parameters
    ----------
    source
        A file or a pandas.DataFrame.
    id
        The column that names the series.
    target, features, how
        See `read_series`.
    name
        What to call a file.

    Raises
    ------
    ArgumentError, DataError
        As for `read_series`; or a row has no name of a series.
    """
    series, id, table = _read_by_name(source, id, target, features, how, name)
    return join_series(series, id, table)


def read_one_or_each(
    source: Any, id: str, target: str | None, features: Sequence[str] | str, how: ReadOptions, name: str | None = None
) -> TimeSeries | Panel:
    """The same; of a source that has one series, that series."""
    series, id, table = _read_by_name(source, id, target, features, how, name)
    if len(series) == 1:
        return replace(next(iter(series.values())), name=table)
    return join_series(series, id, table)


def _read_by_name(
    source: Any, id: str, target: str | None, features: Sequence[str] | str, how: ReadOptions, name: str | None
) -> tuple[dict[str, TimeSeries], str, str]:
    """The series by name, what the column of the names is called, and what the source is."""
    table = read_table(source, how, name)
    column = table.column(id)
    groups = groups_of(column)
    if "" in groups:
        row = int(groups[""][0])
        raise table.cell_refusal(column.name, CellError(row, "the name of the series is missing; fill it in"))
    others = tuple(other for other in table.columns if other is not column)
    own = replace(table, columns=others, index=sum(other in others for other in table.columns[: table.index]))
    if len(groups) > 1:
        check_for_panel(how)
    how = replace(how, id=None, where=())
    series: dict[str, TimeSeries] = {}
    longest = max(groups, key=lambda key: len(groups[key]))
    for key in (longest, *(key for key in groups if key != longest)):
        series[key] = read_rows(own.take(groups[key]), target, features, how)
        if key == longest:
            target, *features = series[key].columns
            how = replace(how, time=series[key].reading.time)
    return {key: series[key] for key in groups}, column.name, table.name or TimeSeries.name


def _joined(parts: Sequence[Any]) -> Any:
    """Arrays of all series; None where one has none."""
    return None if any(part is None for part in parts) else np.concatenate(parts)
