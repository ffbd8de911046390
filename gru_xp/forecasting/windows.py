"""Windows of a series, and how its rows are divided in time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gru_xp.errors import DataError

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]


def make_windows(values: Floats, seq_length: int) -> tuple[Floats, Floats]:
    """All windows of a series and the target value after each.

    Parameters
    ----------
    values : array, shape ``(N, F)``
        Rows in the order of time; column 0 is the target.
    seq_length
        Rows a window.

    Returns
    -------
    windows : array, shape ``(N - seq_length, seq_length, F)``
        A read-only view; window `i` holds rows ``i`` to ``i + seq_length - 1``.
    targets : array, shape ``(N - seq_length,)``
        The target column in row ``i + seq_length``.
    """
    windows = np.lib.stride_tricks.sliding_window_view(values, seq_length, axis=0)[:-1]
    return np.swapaxes(windows, 1, 2), values[seq_length:, 0]


@dataclass(frozen=True)
class Split:
    """Which rows are for training, validation and test: ``[0, train_end)``, ``[train_end, fit_end)`` and the rest.

    A window belongs to the part that its target is in. It may look back into the part before, never ahead.

    Attributes
    ----------
    train_end
        First row that is not trained on.
    fit_end
        First row of the test part; `train_end` where there is no validation part.
    rows
        Number of rows.
    """

    train_end: int
    fit_end: int
    rows: int

    def part(self, name: str) -> slice:
        """The rows of ``"train"``, ``"validation"`` or ``"test"``."""
        return {
            "train": slice(0, self.train_end),
            "validation": slice(self.train_end, self.fit_end),
            "test": slice(self.fit_end, self.rows),
        }[name]

    def targets(self, name: str, seq_length: int) -> slice:
        """The windows whose targets are in part `name`."""
        rows = self.part(name)
        return slice(max(rows.start - seq_length, 0), max(rows.stop - seq_length, 0))


def split_rows(rows: int, seq_length: int, split_ratio: float, validation_ratio: float) -> Split:
    """Divide a series in time.

    Parameters
    ----------
    rows
        Number of rows.
    seq_length
        Rows a window.
    split_ratio
        Share of the rows, from the first, that is not test; 1 leaves no test part.
    validation_ratio
        Share of those rows, from their end, that chooses the best epoch instead of being trained on.

    Raises
    ------
    DataError
        A part that is wanted has no window; the message says how many rows are needed.
    """

    def divide(n: int) -> Split:
        fit_end = round(n * split_ratio)
        return Split(fit_end - round(fit_end * validation_ratio), fit_end, n)

    def fits(split: Split) -> bool:
        wanted = {"train": True, "validation": validation_ratio > 0, "test": split_ratio < 1}
        counts = {name: split.targets(name, seq_length) for name in wanted}
        return all(counts[name].stop > counts[name].start for name in wanted if wanted[name])

    split = divide(rows)
    if not fits(split):
        needed = _first(lambda n: fits(divide(n)), rows + 1)
        enough = "no number of rows is enough" if needed is None else f"at least {needed} are needed"
        raise DataError(
            f"{rows} rows are too few for windows of {seq_length} steps with split ratio {split_ratio:g} and "
            f"validation ratio {validation_ratio:g}: {enough}; give more rows, a smaller seq length or other ratios"
        )
    return split


def _first(holds: Callable[[int], bool], start: int) -> int | None:
    """The first number from `start` for which `holds` does, if it goes on to hold from there, but for rounding."""
    high = start
    while not holds(high):
        high *= 2
        if high > 2**62:
            return None
    low = start
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    while low > start and holds(low - 1):
        low -= 1
    return low
