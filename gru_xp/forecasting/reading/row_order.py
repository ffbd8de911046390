"""The order of rows in time, which is not always that of the file, and rows with the same date."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gru_xp.errors import printable
from gru_xp.forecasting.dates import direction
from gru_xp.forecasting.reading.cells import CellError, quoted
from gru_xp.forecasting.windows import Floats

Rows = np.ndarray[Any, np.dtype[np.int64]]

DUPLICATE_REMEDY = "keep one row of each date, or give --on-duplicate first, last or mean"
"""What to do about rows with the same date."""


class RowOrder(NamedTuple):
    """Rows of a file in the order of time, those with the same date side by side, as in the file.

    Attributes
    ----------
    rows
        Their numbers.
    starts
        Where in `rows` each date begins.
    """

    rows: Rows
    starts: Rows

    def take(self, values: Floats, on_duplicate: str | None) -> tuple[Floats, Rows]:
        """The values of each date, of several rows first, last or mean, and the row that its label is of."""
        ends = np.append(self.starts[1:], len(self.rows)) - 1
        chosen = self.rows[ends if on_duplicate == "last" else self.starts]
        if on_duplicate != "mean" or len(self.starts) == len(self.rows):
            return values[chosen], chosen
        values = values[self.rows]
        known = ~np.isnan(values)
        sums = np.add.reduceat(np.where(known, values, 0.0), self.starts, axis=0)
        counts = np.add.reduceat(known.astype(np.float64), self.starts, axis=0)
        with np.errstate(invalid="ignore"):  # 0 / 0, where all values are missing
            return sums / counts, chosen


def order_rows(
    column: str,
    labels: Sequence[str],
    keys: Sequence[Any],
    on_duplicate: str | None,
    where: Callable[[int], str],
    remedy: Callable[[], str] = lambda: DUPLICATE_REMEDY,
) -> tuple[RowOrder, list[str]]:
    """The order of rows by `keys`, and notices about what was done.

    `remedy` says what to do about rows with the same key.

    Raises
    ------
    CellError
        Two rows have the same key, and `on_duplicate` does not say which to take.
    """
    rows = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    new = np.array([True, *(keys[a] != keys[b] for a, b in pairwise(rows))])
    notices = []
    if not new.all():
        row = int(rows[~new].min())
        count = f"{np.count_nonzero(~new)} row(s) repeat a date"
        if on_duplicate is None:
            before = where(int(min(r for r in rows if keys[r] == keys[row])))
            raise CellError(row, f"{quoted(labels[row])} is in {before} already ({count}); {remedy()}")
        taken = "their mean" if on_duplicate == "mean" else f"the {on_duplicate} one of each date"
        notices.append(
            f"column {printable(column)}: {count}, first in {where(row)} ({quoted(labels[row])}); {taken} is taken"
        )
    way = direction(keys)
    if way is None:
        late = [row for row in range(1, len(keys)) if keys[row] < keys[row - 1]]
        notices.append(
            f"{len(late)} row(s) come after a later one, first in {where(late[0])} ({quoted(labels[late[0]])}); "
            "the rows are sorted"
        )
    elif way == -1:
        notices.append("rows are newest-first; reversed to chronological order")
    return RowOrder(rows, np.flatnonzero(new)), notices
