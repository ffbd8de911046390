"""A time series, ready to be learned, and how it was read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.io.numbers import NumberStyle
from gru_xp.io.table import Floats, Rows

if TYPE_CHECKING:
    import pandas as pd

Flags = np.ndarray[Any, np.dtype[np.bool_]]
Styles = Mapping[str, NumberStyle]
"""How the numbers are written, by column."""


@dataclass(frozen=True)
class Reading:
    """What was found in a source, or decided about it.

    Attributes
    ----------
    time
        The columns that date the rows; empty if no column does.
    date_form
        The form of the dates: a `datetime.strptime` format, or the name of another form; None without dates.
    order
        Of the rows in the source: ``"oldest-first"``, ``"newest-first"`` or ``"unsorted"``.
    duplicates
        Rows that repeat a time.
    freq
        The usual spacing of the rows, as a pandas offset; None if the rows have no usual spacing.
    gaps
        Rows that are missing by that spacing.
    first_gap
        The time of the first of them, as the source would write it.
    missing_values
        Cells that marked a missing value, beside the usual ones.
    styles
        How the numbers are written, by column.
    """

    time: tuple[str, ...] = ()
    date_form: str | None = None
    order: str = "oldest-first"
    duplicates: int = 0
    freq: str | None = None
    gaps: int = 0
    first_gap: str | None = None
    missing_values: tuple[str, ...] = ()
    styles: Styles = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The reading as JSON holds it."""
        return asdict(self) | {"time": list(self.time), "missing_values": list(self.missing_values)}

    @classmethod
    def from_dict(cls, reading: Mapping[str, Any]) -> "Reading":
        """The inverse of `to_dict`, also for fewer facts."""
        styles = {name: NumberStyle(**style) for name, style in reading.get("styles", {}).items()}
        held = {name: tuple(value) for name, value in reading.items() if isinstance(value, list)}
        return cls(**{**reading, **held, "styles": styles})


@dataclass(frozen=True)
class TimeSeries:
    """Rows in chronological order; see `read_series`.

    Attributes
    ----------
    values : array, shape ``(N, F)``, float64
        The target in column 0, then the features; all finite.
    columns
        Their F names.
    labels
        The text of each row's time or index; None without one.
    dates
        The dates that the labels mean; None where they are not dates.
    name
        What to call the series.
    notices
        Messages about how it was read.
    observed : array, shape ``(N, F)``, bool, optional
        False where a value was missing and `values` holds another in its place; None where none is marked so.
    interpolated : array, shape ``(N, F)``, bool, optional
        True where a value was missing and `values` holds one between those before and after; None where none is.
    missing
        What was done about missing values: ``how``, the number of ``values``, and where the ``first`` was; None where
        there were none.
    reading
        What was found and decided.
    rows : array, shape ``(N,)``, int64, optional
        For each row, the line of the text file that it ends in, or its number in another source, from 0; None where
        that is not known.
    unit : {"row", "line"}
        What `rows` count.
    """

    values: Floats
    columns: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    dates: tuple[datetime, ...] | None = None
    name: str = "series"
    notices: tuple[str, ...] = ()
    observed: Flags | None = None
    missing: dict[str, Any] | None = None
    reading: Reading = Reading()
    rows: Rows | None = None
    interpolated: Flags | None = None
    unit: str = "row"

    def __len__(self) -> int:
        return len(self.values)

    @property
    def target(self) -> str:
        """Name of the target column."""
        return self.columns[0]

    @property
    def offsets(self) -> Rows:
        """The first row, and the number of rows: a series is a panel of one; see `Panel`."""
        return np.array([0, len(self)])

    def head(self, rows: int) -> "TimeSeries":
        """The first `rows` rows, as if there were no others: interpolated values at their end are the last one."""
        names = ("values", "labels", "dates", "observed", "rows", "interpolated")
        head = replace(self, **{name: value[:rows] for name in names if (value := getattr(self, name)) is not None})
        if head.interpolated is None:
            return head
        row = np.indices(head.values.shape)[0]
        last = np.max(row, axis=0, where=~head.interpolated, initial=0)  # of each column, the row that was there
        return replace(head, values=np.take_along_axis(head.values, np.minimum(row, last), axis=0))

    def to_frame(self) -> "pd.DataFrame":
        """The series as a table.

        Returns
        -------
        pandas.DataFrame
            One row each, with its date or label as the index, and NaN for values that were missing.
        """
        import pandas as pd

        values = self.values if self.observed is None else np.where(self.observed, self.values, np.nan)
        index = self.labels if self.dates is None else np.array(self.dates, dtype="datetime64[us]")
        return pd.DataFrame(values, index, self.columns).rename_axis(" ".join(self.reading.time) or None)
