"""The chronological order of rows, rows that repeat a time, and missing values."""

from collections.abc import Callable, Sequence
from operator import lt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gru_xp.errors import printable
from gru_xp.io.messages import CellError, option
from gru_xp.io.series import Flags
from gru_xp.io.table import Rows, Table

if TYPE_CHECKING:
    import pandas as pd

_FILLS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "drop": (lambda values: values, "{dropped} row(s) dropped"),
    "ffill": (lambda values: values.ffill(), "filled with the last value before"),
    "interpolate": (
        lambda values: values.interpolate(limit_direction="both"),
        "interpolated between the values before and after; what comes before the later one gets the last value",
    ),
    "mask": (lambda values: values.ffill().bfill(), "marked as missing"),
}
"""By the option ``missing``: what fills the gaps, as far as there are values to do so, and how to say it."""


class Order(NamedTuple):
    """The chronological order of rows.

    Attributes
    ----------
    ranks
        Of the time of each row of the source; rows of the same time have the same rank.
    name
        Of the order in the source: ``"oldest-first"``, ``"newest-first"`` or ``"unsorted"``.
    late
        The rows that come after a later one.
    repeats
        The rows whose time an earlier row of the source has.
    """

    ranks: "pd.Series[int]"
    name: str
    late: Rows
    repeats: Rows

    def rows(self, last: bool = False) -> Rows:
        """The rows in chronological order; of those that repeat a time the first in the source, or the last."""
        return self.ranks.drop_duplicates(keep="last" if last else "first").sort_values().index.to_numpy()

    def take(self, values: "pd.DataFrame", on_duplicate: str | None) -> "pd.DataFrame":
        """The values in chronological order; of rows that repeat a time the first, the last or the mean."""
        if on_duplicate == "mean":
            values = values.groupby(self.ranks).transform("mean")
        return values.iloc[self.rows(on_duplicate == "last")]


def order_rows(keys: Sequence[Any]) -> Order:
    """Find the chronological order of rows by their keys."""
    import pandas as pd

    ranks = pd.Series(range(len(keys)))
    if not all(map(lt, keys, keys[1:])):
        ranks = pd.Series(pd.Index(keys, tupleize_cols=False).factorize(sort=True)[0])
    falls = "newest-first" if ranks.is_monotonic_decreasing else "unsorted"
    name = "oldest-first" if ranks.is_monotonic_increasing else falls
    return Order(ranks, name, np.flatnonzero(ranks.diff() < 0), np.flatnonzero(ranks.duplicated()))


class Filled(NamedTuple):
    """Values without gaps, what is marked as missing or interpolated, and what was done."""

    values: "pd.DataFrame"
    observed: Flags | None = None
    record: dict[str, Any] | None = None
    notices: tuple[str, ...] = ()
    interpolated: Flags | None = None


def fill_missing(values: "pd.DataFrame", how: str, table: Table) -> Filled:
    """Do what the option ``missing`` says about missing values.

    Parameters
    ----------
    values
        Rows in chronological order, labelled by their numbers in the table; missing values are NaN.
    how : {"refuse", "drop", "ffill", "interpolate", "mask"}
        See `ReadOptions`.
    table
        Where they are from.

    Raises
    ------
    DataError
        Values are missing, and `how` is to refuse them; or a column has no others.
    """
    missing = values.isna().sort_index()
    for name in missing.columns[missing.all()]:
        raise table.cell_refusal(name, CellError(missing.index[0], "all values are missing; choose another column"))
    if not len(gaps := np.argwhere(missing)):
        return Filled(values, np.ones(values.shape, dtype=bool) if how == "mask" else None)
    row, column = missing.index[gaps[0, 0]], missing.columns[gaps[0, 1]]
    if how == "refuse":
        which = f"the first of {len(gaps)} missing values" if len(gaps) > 1 else "the only missing one"
        remedy = option("missing", "drop", "ffill", "interpolate", "mask")
        raise table.cell_refusal(column, CellError(row, f"the value is missing, {which}; fill it in, or give {remedy}"))
    fill, done = _FILLS[how]
    filled = fill(values).dropna()
    if filled.empty:
        raise table.refusal("every row has a missing value; choose fewer columns, or fill the values in")
    if how == "ffill" and len(filled) < len(values):
        done += "; {dropped} row(s) at the start, with none before, dropped"
    what = f"{len(gaps)} missing values, the first in" if len(gaps) > 1 else "1 missing value, in"
    first = f"{table.where(row)}, column {printable(column)}"
    notice = f"{what} {first}: {done.format(dropped=len(values) - len(filled))}"
    observed = values.notna().to_numpy() if how == "mask" else None
    interpolated = values.isna().to_numpy() if how == "interpolate" else None
    return Filled(filled, observed, {"how": how, "values": len(gaps), "first": first}, (notice,), interpolated)
