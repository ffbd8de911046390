"""Windows of a series, and how its rows are divided in time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from gru_xp.errors import DataError
from gru_xp.forecasting.scaling import Scaler
from gru_xp.forecasting.sliding import sum_products, sum_relative_products
from gru_xp.io.table import Rows
from gru_xp.nn.scan import Array
from gru_xp.training.sequences import MAX_GATHERED

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]

MAX_LOOKED_AT = 2**18
"""Windows of several series whose mean unit is computed, evenly spaced, of more."""

MAX_SUMMED = 1000
"""Series up to which products of all windows are summed up; of more, some windows are drawn. See `fit_ridge`."""


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

    A window belongs to the part that all its targets are in. It may look back into the part before, never ahead; one
    whose targets are in two parts belongs to neither.

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

    def bounds(self, name: str) -> tuple[Rows, Rows]:
        """The first row of a part, and the row after its last one, each of shape ``(S,)``: S is 1, of one series."""
        rows = self.part(name)
        return np.array([rows.start]), np.array([rows.stop])

    def after_refit(self) -> "Split":
        """The validation rows as training rows."""
        return replace(self, train_end=self.fit_end)

    def without_parts(self) -> "Split":
        """All rows for training."""
        return Split(self.rows, self.rows, self.rows)

    def targets(self, name: str, seq_length: int, horizon: int = 1) -> slice:
        """The windows whose targets, `horizon` rows after each, are in part `name`."""
        rows = self.part(name)
        start = max(rows.start - seq_length, 0)
        return slice(start, max(rows.stop - seq_length - horizon + 1, start))


def split_rows(rows: int, seq_length: int, split_ratio: float, validation_ratio: float, horizon: int = 1) -> Split:
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
    horizon
        Rows after each window that are its targets.

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
        counts = {name: split.targets(name, seq_length, horizon) for name in wanted}
        return all(counts[name].stop > counts[name].start for name in wanted if wanted[name])

    split = divide(rows)
    if not fits(split):
        needed = first_that_does(lambda n: fits(divide(n)), rows + 1)
        enough = "no number of rows is enough" if needed is None else f"at least {needed} are needed"
        steps = f"{seq_length} steps" if seq_length > 1 else "1 step"
        ahead = f" and a horizon of {horizon}" if horizon > 1 else ""
        reducible = " or ".join(name for name, n in (("seq length", seq_length), ("horizon", horizon)) if n > 1)
        raise DataError(
            f"{rows_are(rows)} too few for windows of {steps}{ahead} with split ratio {split_ratio:g} and "
            f"validation ratio {validation_ratio:g}: {enough}; give more rows"
            f"{reducible and f', a smaller {reducible}'} or other ratios"
        )
    return split


def least_rows(seq_length: int, validation_ratio: float, horizon: int) -> int:
    """The fewest rows that `split_rows` divides with no test part."""

    def can_be_divided(rows: int) -> bool:
        try:
            split_rows(rows, seq_length, 1.0, validation_ratio, horizon)
        except DataError:
            return False
        return True

    return first_that_does(can_be_divided, 1) or 1


def rows_are(count: int) -> str:
    """A number of rows with its verb."""
    return "1 row is" if count == 1 else f"{count} rows are"


def first_that_does(holds: Callable[[int], bool], start: int) -> int | None:
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


@dataclass(frozen=True)
class Layout:
    """Which rows belong to which series, where several are one below the other, and the units of the series.

    Attributes
    ----------
    offsets : array of int64, shape ``(S + 1,)``
        The first row of each series, and the number of all rows.
    factors : array, shape ``(S, F)``
        See `Scaler`.
    """

    offsets: Array
    factors: Array

    def numbers(self, rows: Array) -> Array:
        """Of the series that rows belong to."""
        return array_namespace(rows).searchsorted(self.offsets[1:], rows, side="right")

    def firsts(self, origins: Array) -> Array:
        """The first row of the series of each origin, which may be the one after its last row."""
        return array_namespace(origins).take(self.offsets, self.numbers(origins - 1), axis=0)

    def window_rows(self, starts: Array, seq_length: int, scaler: Scaler, *, may_pad: bool) -> tuple[Array, Scaler]:
        """The rows ``(B, L)`` of windows, and the scaler of these.

        A window that begins before its series has the first row of that instead, and the scaler knows that it is not
        there.
        """
        xp = array_namespace(starts)
        numbers = self.numbers(starts + (seq_length - 1))
        rows = starts[:, None] + xp.arange(seq_length, dtype=starts.dtype, device=device(starts))[None, :]
        there = None
        if may_pad:
            firsts = xp.take(self.offsets, numbers, axis=0)[:, None]
            there = (rows >= firsts)[:, :, None]
            rows = xp.maximum(rows, firsts)
        factor = xp.take(self.factors, numbers, axis=0)[:, None, :]
        return rows, replace(scaler, factor=factor, there=there)


class WindowSequences:
    """Windows of a series as the network gets them, with what it is to predict; a `Sequences` of training.

    Windows are gathered from the rows by number, and scaled, when they are asked for: never all of them are copied.

    Parameters
    ----------
    rows : array, shape ``(N, F)``
        In the order of time and the data's units, on the device where the sequences are wanted; column 0 is the target.
        float64, so that nothing is lost where values are large and changes are small.
    starts : array of int64, shape ``(n,)``
        The first row of each window.
    seq_length, horizon
        L rows a window, and h rows after it, whose targets are to be predicted.
    scaler
        Fitted to training rows.
    observed : array, shape ``(N, F)``, optional
        1 where a value was there and 0 where not, of the dtype of `rows`; the network gets it beside the values.
    dtype
        Of the namespace of `rows`, for the results; that of `rows` if None.
    layout
        Where the rows are those of several series, on the same device. A window may begin before its series does.
    mean_unit
        What the units of windows are relative to in the weights; their mean if None.

    Attributes
    ----------
    n
        How many windows.
    mean_unit
        As given, or the mean over these windows.
    """

    def __init__(
        self,
        rows: Array,
        starts: Array,
        seq_length: int,
        horizon: int,
        scaler: Scaler,
        *,
        observed: Array | None = None,
        dtype: Any = None,
        mean_unit: float | None = None,
        layout: Layout | None = None,
    ) -> None:
        self._xp, self._layout = array_namespace(rows), layout
        self._rows, self._starts, self._observed, self._scaler = rows, starts, observed, scaler
        self._dtype, self._h = rows.dtype if dtype is None else dtype, horizon
        steps = self._xp.arange(seq_length + horizon, dtype=starts.dtype, device=device(rows))[None, :]
        self._before, self._after = steps[:, :seq_length], steps[:, seq_length:]
        self.n, self._length = int(starts.shape[0]), seq_length
        self._pads = layout is not None and any(
            bool(self._xp.any(some < layout.firsts(some + seq_length))) for some in _chunks(starts, MAX_LOOKED_AT)
        )
        self.mean_unit = self._mean_unit() if mean_unit is None else mean_unit

    def gather(self, index: Array) -> tuple[Array, Array, Array]:
        """Some of the windows.

        Parameters
        ----------
        index : array of int64, shape ``(B,)``
            Their numbers, from 0 to ``n - 1``.

        Returns
        -------
        x : array, shape ``(B, L, I)``
            Scaled; I is F, or 2 F with `observed`.
        y : array, shape ``(B, h)``
            The scaled targets.
        weight : array, shape ``(B, 1)``
            The unit of each window relative to `mean_unit`: errors times it count in the data's units. 1 where all
            windows have one unit.
        """
        parts = [self._gather(part) for part in _chunks(index)]
        x, y, weight = parts[0] if len(parts) == 1 else map(self._xp.concat, zip(*parts, strict=True))
        return x, y, weight

    def sum_products(self) -> Floats | None:
        """Sum ``v v^T`` over all windows, with the target's scaled window and the scaled values after it in ``v``.

        Both are multiplied by the weight of the window, which cancels the window's own unit: all windows are then
        divided by the same number, and need not be gathered.

        Returns
        -------
        array, shape ``(L + h, L + h)``, or None
            None where windows do not follow each other from row to row, or are not only shifted and divided.
        """
        starts, scaler = self._starts, self._scaler
        if not self.n or scaler.counts or self._pads:
            return None
        if self._layout is None:
            return self._sum_products(starts, 1.0)
        numbers = self._layout.numbers(starts)
        bounds = [0, *(1 + np.flatnonzero(np.diff(numbers))), self.n]
        if len(bounds) > MAX_SUMMED:
            return None
        total: Floats | None = None
        for first, stop in pairwise(bounds):
            products = self._sum_products(starts[first:stop], float(self._layout.factors[numbers[first], 0]))
            if products is None:
                return None
            total = products if total is None else total + products
        return total

    def _sum_products(self, starts: Array, factor: float) -> Floats | None:
        """The same of the windows of one series; None where they do not follow each other."""
        scaler, L = self._scaler, self._length
        if int(starts[-1] - starts[0]) != len(starts) - 1:
            return None
        length = L + self._h
        values = self._rows[starts[0] : starts[-1] + length, 0]
        level, unit = (float(scale[0, 0, 0]) for scale in scaler.scales(values[None, :, None]))
        if scaler.kind in ("window", "last"):
            unit *= factor
        if scaler.has_units_of_windows:
            return sum_relative_products(np.diff(values) / (self.mean_unit * factor), length, L - 1)
        if scaler.kind == "last":
            return sum_relative_products(np.diff(values) / unit, length, L - 1)
        return sum_products((values - level) / unit, length)

    def _gather(self, index: Array) -> tuple[Array, Array, Array]:
        xp, starts = self._xp, self._xp.take(self._starts, index, axis=0)
        windows, scaler = self._windows(self._rows, starts)
        level, unit = scaler.scales(windows)
        x = scaler.scaled(windows, level, unit)
        if self._observed is not None:
            observed, _ = self._windows(self._observed, starts)
            if scaler.there is not None:
                observed = xp.where(scaler.there, observed, xp.zeros_like(observed))
            x = xp.concat([x, observed], axis=2)
        if scaler.counts:
            level, unit = scaler.target_scales(windows)
        else:
            level, unit = level[:, 0, :1], unit[:, 0, :1]
        y = (self._take(self._rows[:, :1], starts[:, None] + self._after)[:, :, 0] - level) / unit
        weight = xp.ones_like(y[:, :1])
        if scaler.has_units_of_windows:
            weight = self._in_units_of_series(unit, scaler) / self.mean_unit
        return xp.astype(x, self._dtype), xp.astype(y, self._dtype), xp.astype(weight, self._dtype)

    def _windows(self, rows: Array, starts: Array) -> tuple[Array, Scaler]:
        """The windows ``(B, L, F)`` of rows, and the scaler of these."""
        if self._layout is None:
            return self._take(rows, starts[:, None] + self._before), self._scaler
        at, scaler = self._layout.window_rows(starts, self._length, self._scaler, may_pad=self._pads)
        return self._take(rows, at), scaler

    def _in_units_of_series(self, units: Array, scaler: Scaler) -> Array:
        """Units of windows ``(B, 1)`` relative to those of their series; as they are where targets are counts."""
        return units if scaler.factor is None or scaler.counts else units / scaler.factor[:, 0, :1]

    def _take(self, rows: Array, at: Array) -> Array:
        """Rows ``(B, steps, F)`` by their numbers ``(B, steps)``."""
        taken = self._xp.take(rows, self._xp.reshape(at, (-1,)), axis=0)
        return self._xp.reshape(taken, (*at.shape, rows.shape[1]))

    def _mean_unit(self) -> float:
        if not self._scaler.has_units_of_windows:
            return float(self._scaler.target_scales(self._rows[None, :1, :])[1][0, 0])
        looked_at = self._starts
        if self._layout is not None and self.n > MAX_LOOKED_AT:
            step = -(-self.n // MAX_LOOKED_AT)
            looked_at = looked_at[::step]
        total = 0.0
        for starts in _chunks(looked_at):
            windows, scaler = self._windows(self._rows[:, :1], starts)
            total += float(self._xp.sum(self._in_units_of_series(scaler.target_scales(windows)[1], scaler)))
        return total / int(looked_at.shape[0])


def _chunks(a: Array, size: int = MAX_GATHERED) -> list[Array]:
    n = a.shape[0]
    return [a[first : min(first + size, n)] for first in range(0, n, size)]
