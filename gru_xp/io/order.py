"""The chronological order of rows, rows that repeat a time, and missing values."""

from collections.abc import Callable, Sequence
from operator import ge, gt, lt, ne
from typing import Any, NamedTuple

import numpy as np

from gru_xp.errors import DataError
from gru_xp.io.messages import option
from gru_xp.io.series import Flags
from gru_xp.io.table import Floats, Rows


class Order(NamedTuple):
    """Rows in chronological order.

    Attributes
    ----------
    rows
        Their numbers; those that repeat a time side by side, as in the source.
    times
        The number of each one's time, from 0.
    name
        Of the order in the source: ``"oldest-first"``, ``"newest-first"`` or ``"unsorted"``.
    late
        The rows that come after a later one.
    """

    rows: Rows
    times: Rows
    name: str
    late: Rows

    @property
    def repeats(self) -> Rows:
        """The rows whose time an earlier row of the source has."""
        return np.sort(self.rows[1:][np.diff(self.times) == 0])

    def take(self, values: Floats, on_duplicate: str | None) -> tuple[Floats, Rows]:
        """The values of each time, of several rows first, last or mean, and the row that each is named after."""
        import pandas as pd

        starts = np.flatnonzero(np.diff(self.times, prepend=-1))
        ends = np.append(starts[1:], len(self.rows)) - 1
        chosen = self.rows[ends if on_duplicate == "last" else starts]
        if on_duplicate == "mean":
            return pd.DataFrame(values[self.rows]).groupby(self.times).mean().to_numpy(), chosen
        return values[chosen], chosen


def order_rows(keys: Sequence[Any]) -> Order:
    """Find the chronological order of rows by their keys."""
    numbers, late = np.arange(len(keys)), np.array([], dtype=np.int64)
    if all(map(lt, keys, keys[1:])):
        return Order(numbers, numbers, "oldest-first", late)
    rows = sorted(range(len(keys)), key=keys.__getitem__)
    in_order = list(map(keys.__getitem__, rows))
    times = np.cumsum([0, *map(ne, in_order, in_order[1:])])
    late = np.flatnonzero([False, *map(gt, keys, keys[1:])])
    is_falling = len(late) > 0 and all(map(ge, keys, keys[1:]))
    name = "newest-first" if is_falling else "unsorted" if len(late) else "oldest-first"
    return Order(np.array(rows), times, name, late)


class Filled(NamedTuple):
    """Values without gaps: the rows that are left, what is marked as missing, and what was done."""

    values: Floats
    rows: slice | Flags = slice(None)
    observed: Flags | None = None
    record: dict[str, Any] | None = None
    notices: tuple[str, ...] = ()


def fill_missing(values: Floats, how: str, rows: Rows, place: Callable[[int, int], str]) -> Filled:
    """Do what the option ``missing`` says about missing values.

    Parameters
    ----------
    values : array, shape ``(N, F)``
        Rows in chronological order; missing values are NaN.
    how : {"refuse", "drop", "ffill", "interpolate", "mask"}
        See `ReadOptions`.
    rows : array, shape ``(N,)``
        The row of the source that each is.
    place
        How to call a row of the source, and a column by its number, in a message.

    Raises
    ------
    DataError
        Values are missing, and `how` is to refuse them; or a column has no others.
    """
    import pandas as pd

    observed = ~np.isnan(values)
    if observed.all():
        return Filled(values)
    gaps = [(int(rows[row]), int(column)) for row, column in np.argwhere(~observed)]
    if not observed.any(axis=0).all():
        column = int(observed.any(axis=0).argmin())
        raise DataError(f"{place(int(rows[0]), column)}: all values are missing; choose another column")
    first = place(*min(gaps))
    if how == "refuse":
        which = f"the first of {len(gaps)} missing values" if len(gaps) > 1 else "the only missing one"
        remedy = option("missing", "drop", "ffill", "interpolate", "mask")
        raise DataError(f"{first}: the value is missing, {which}; fill it in, or give {remedy}")
    frame = pd.DataFrame(values)
    kept: Flags = np.ones(len(values), dtype=bool)
    if how == "drop":
        kept = np.asarray(observed.all(axis=1))
        done = f"{np.count_nonzero(~kept)} row(s) dropped"
    elif how == "ffill":
        frame = frame.ffill()
        kept = frame.notna().all(axis=1).to_numpy()
        dropped = np.count_nonzero(~kept)
        done = "filled with the last value before"
        done += f"; {dropped} row(s) at the start, with none before, dropped" if dropped else ""
    elif how == "interpolate":
        frame = frame.interpolate(limit_direction="both")
        done = "interpolated between the values before and after, so that these rows know later ones"
    else:
        frame, done = frame.ffill().bfill(), "marked as missing"
    if not kept.any():
        raise DataError("every row has a missing value; choose fewer columns, or fill the values in")
    what = f"{len(gaps)} missing values, the first in" if len(gaps) > 1 else "1 missing value, in"
    record = {"how": how, "values": len(gaps), "first": first}
    marked = observed if how == "mask" else None
    return Filled(frame.to_numpy()[kept], kept, marked, record, (f"{what} {first}: {done}",))
