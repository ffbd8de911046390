"""Scaling of windows for the network, and back.

Five ways, all fitted on training rows only:

- ``standard``: every column less its training mean, in units of its training standard deviation.
- ``robust``: every column less its training median, in units of its interquartile range.
- ``last``: every window less its own last row, in units of the standard deviation of the training rows' one-step
  changes. The network then predicts the change, and a level it has never seen is no different from any other.
- ``window``: every window less its own last row, in units of its own standard deviation and 0.05 of that of the
  training rows.
- ``none``: as it is.

Counts keep their zero as targets, whatever the windows are scaled by: their unit is a typical rate, that of the window
where windows are scaled by themselves (``last`` and ``window``), else that of the training rows. The network sees
the inverse hyperbolic sine of their scaled windows.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from gru_xp.errors import DataError, printable
from gru_xp.io.table import Floats
from gru_xp.nn.checks import check_choice
from gru_xp.nn.scan import Array
from gru_xp.training.strict_json import check_fields, shortened

SCALINGS = ("last", "standard", "window", "robust", "none")

FLOOR = 0.05
"""How much of the training rows' standard deviation a window's own is raised by, so that flat windows have a unit."""

LARGEST = 1e150
"""Of a value: the squares of larger ones are no numbers any more."""

SMALLEST = 1e-150
"""Of a scale: the squares of smaller ones are no numbers any more."""

_MOST = 4 * LARGEST  # changes are up to twice as large as values, but for rounding
_BOUNDS = {"mean": (-_MOST, _MOST), "std": (SMALLEST, _MOST), "change_std": (SMALLEST, _MOST)}
_ROBUST_BOUNDS = {"median": (-_MOST, _MOST), "iqr": (SMALLEST, _MOST)}


@dataclass(frozen=True)
class Scaler:
    """Fitted statistics of the training rows, one number a column.

    Attributes
    ----------
    kind : {"last", "standard", "window", "robust", "none"}
    mean, std
        Of the columns, shape ``(F,)``.
    change_std
        Of their one-step changes, shape ``(F,)``.
    median, iqr
        Of the columns, shape ``(F,)``, with the standard deviation where half of the values or more are the same; empty
        but for ``robust``.
    counts
        Whether the targets are counts; files do not have it.
    factor : array, shape ``(B, 1, F)``, optional
        Of the windows of several series: what their `std` and `change_std` are multiplied by, that of the series of
        each window; see `SeriesUnits`. Files do not have it.
    there : array, shape ``(B, T, 1)``, bool, optional
        For windows that begin before their series: False for rows before its first. They do not count for the unit,
        and are 0 when they are scaled. Files do not have it.

    Raises
    ------
    ValueError
        There is no such kind, not one number of each for every column, or one that is too large or too small.
    """

    kind: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    change_std: tuple[float, ...]
    median: tuple[float, ...] = ()
    iqr: tuple[float, ...] = ()
    counts: bool = field(default=False, kw_only=True)
    factor: Array | None = field(default=None, kw_only=True, compare=False, repr=False)
    there: Array | None = field(default=None, kw_only=True, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("scaler kind", self.kind, SCALINGS)
        F = len(self.mean)
        robust = F if self.kind == "robust" else 0
        if not (len(self.std) == len(self.change_std) == F and len(self.median) == len(self.iqr) == robust):
            raise ValueError("the scaler has not as many numbers of each kind")
        for name, (least, most) in (_BOUNDS | _ROBUST_BOUNDS).items():
            for number in getattr(self, name):
                if not least <= number <= most:
                    raise ValueError(
                        f"{name} of the scaler holds {shortened(number)}; it must be from {least:g} to {most:g}"
                    )

    @classmethod
    def fit(cls, kind: str, rows: Floats, columns: tuple[str, ...]) -> "Scaler":
        """Fit to training rows ``(N, F)``.

        Raises
        ------
        DataError
            A column does not change, or changes by too little or too much, so that there is nothing to scale by.
        """
        names = [f"column {printable(name)}" for name in columns]
        low, high = rows.min(axis=0), rows.max(axis=0)
        for name, least, most in zip(names, low, high, strict=True):
            if not -LARGEST <= least <= most <= LARGEST:
                raise DataError(
                    f"{name} has values from {least:g} to {most:g} in the training rows; they must be numbers up to "
                    f"{LARGEST:g}: scale it down"
                )
            if least == most:
                raise constant_column(name, least, is_alone=len(columns) == 1)
        std, change_std = deviations(rows)
        first, median, third = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
        iqr = np.where(third - first > 1e-9 * std, third - first, std)
        for name, scale, spread in zip(names, np.min([std, change_std, iqr], axis=0), high - low, strict=True):
            if scale < SMALLEST:
                raise DataError(f"{name} changes by {spread:g} in all training rows, too little; scale it up")
        mean = np.array([column.mean() for column in rows.T])  # to the last bit those of the columns alone
        numbers = (mean, std, change_std, *((median, iqr) if kind == "robust" else ()))
        return cls(kind, *(tuple(array.tolist()) for array in numbers))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Scaler":
        """The inverse of `to_dict`.

        Raises
        ------
        ValueError
            A field is missing, unknown or of another kind, or as for `Scaler`.
        """
        fields = dict.fromkeys(_ROBUST_BOUNDS, ()) | fields  # others do without
        bounds = _BOUNDS | _ROBUST_BOUNDS
        check_fields("the scaler", fields, {"kind": str} | dict.fromkeys(bounds, (list, tuple)))
        for name in bounds:
            for number in fields[name]:
                if type(number) not in (int, float):
                    raise ValueError(f"{name} of the scaler holds {shortened(number)}; it must be a number")
        return cls(fields["kind"], *(tuple(map(float, fields[name])) for name in bounds))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; without those that are empty."""
        fields = asdict(replace(self, factor=None, there=None))
        not_in_files = ("counts", "factor", "there")
        return {
            name: value
            for name, value in fields.items()
            if name not in not_in_files and (value != () or name not in _ROBUST_BOUNDS)
        }

    @property
    def has_units_of_windows(self) -> bool:
        """Whether the target of each window has a unit of its own."""
        return self.kind == "window" or (self.counts and self.kind == "last")

    def scales(self, windows: Array) -> tuple[Array, Array]:
        """What is taken off windows ``(B, T, F)`` and what they are divided by then, of any namespace.

        Parameters
        ----------
        windows : array, shape ``(B, T, F)``
            In the data's units; the target is column 0. There may be fewer columns than were fitted.

        Returns
        -------
        level, unit : array, shape ``(B, 1, F)`` or ``(1, 1, F)``
        """
        xp, F = array_namespace(windows), windows.shape[2]

        def numbers(values: tuple[float, ...]) -> Array:
            return xp.asarray([[values[:F]]], dtype=windows.dtype, device=device(windows))

        def of_series(values: tuple[float, ...]) -> Array:
            return numbers(values) if self.factor is None else numbers(values) * self.factor[:, :, :F]

        if self.kind == "last":
            return windows[:, -1:, :], of_series(self.change_std)
        if self.kind == "window":
            last = windows[:, -1:, :]  # and of what is left without it, whose numbers are smaller
            return last, self._deviations(windows - last) + FLOOR * of_series(self.std)
        if self.kind == "robust":
            return numbers(self.median), numbers(self.iqr)
        if self.kind == "standard":
            return numbers(self.mean), numbers(self.std)
        return numbers((0.0,) * F), numbers((1.0,) * F)

    def scales_backward(self, dlevel: Array, dunit: Array, windows: Array) -> Array:
        """The gradient of windows ``(B, T, F)``, given those of their `scales`, each ``(B, 1, F)``."""
        xp, T = array_namespace(windows), windows.shape[1]
        dwindows = 0.0 * windows
        if self.kind == "window":
            centred = windows - xp.mean(windows, axis=1, keepdims=True)
            std = xp.std(centred, axis=1, keepdims=True)
            dwindows = dunit * centred / (T * xp.where(std > 0.0, std, xp.ones_like(std)))
        if self.kind in ("last", "window"):
            dwindows = xp.concat([dwindows[:, :-1, :], dwindows[:, -1:, :] + dlevel], axis=1)
        return dwindows

    def _deviations(self, windows: Array) -> Array:
        """The standard deviation ``(B, 1, F)`` of the rows that are there."""
        xp = array_namespace(windows)
        deviations = xp.std(windows, axis=1, keepdims=True)
        if self.there is None:
            return deviations
        mean = self._means(windows)
        deviations_there = xp.sqrt(self._means((windows - mean) ** 2))
        return xp.where(xp.all(self.there, axis=1, keepdims=True), deviations, deviations_there)

    def _means(self, windows: Array) -> Array:
        """The mean ``(B, 1, F)`` of the rows that are there."""
        xp, there = array_namespace(windows), self.there
        if there is None:
            return xp.mean(windows, axis=1, keepdims=True)
        count = xp.sum(xp.astype(there, windows.dtype), axis=1, keepdims=True)
        total = xp.sum(xp.where(there, windows, xp.zeros_like(windows)), axis=1, keepdims=True)
        return xp.where(xp.all(there, axis=1, keepdims=True), xp.mean(windows, axis=1, keepdims=True), total / count)

    def target_scales(self, windows: Array) -> tuple[Array, Array]:
        """The target's level and unit after windows ``(B, T, F)``, each of shape ``(B, 1)`` or ``(1, 1)``.

        The level of counts is 0, and their unit above 0: the mean of the window, raised by `FLOOR` of that of the
        training rows, or the latter alone; see above.
        """
        if self.counts:
            return self._rates(windows)
        level, unit = self.scales(windows[:, :, :1])
        return level[:, 0, :], unit[:, 0, :]

    def target_scales_backward(self, dlevel: Array, dunit: Array, windows: Array) -> Array:
        """The gradient of the target's windows ``(B, T, 1)``, given those of their `target_scales`, each ``(B, 1)``."""
        targets = windows[:, :, :1]
        if not self.counts:
            return self.scales_backward(dlevel[:, :, None], dunit[:, :, None], targets)
        if not self.has_units_of_windows:
            return 0.0 * targets
        return array_namespace(windows).where(targets > 0.0, dunit[:, :, None] / targets.shape[1], 0.0 * targets)

    def _rates(self, windows: Array) -> tuple[Array, Array]:
        xp = array_namespace(windows)
        typical = xp.asarray([[self.mean[0]]], dtype=windows.dtype, device=device(windows))
        unit = typical
        if self.has_units_of_windows:
            counts = xp.where(windows[:, :, 0] > 0.0, windows[:, :, 0], 0.0 * typical)
            means = xp.mean(counts, axis=1, keepdims=True)
            if self.there is not None:
                means = self._means(counts[:, :, None])[:, 0, :]
            unit = means + FLOOR * typical
        return 0.0 * unit, unit

    def scale_windows(self, windows: Array) -> Array:
        """Windows ``(B, T, F)`` as the network gets them: beside counts, by the inverse hyperbolic sine.

        The network's outputs are logarithms of rates then, and the exponential of anything linear in the counts would
        grow out of all bounds.
        """
        return self.scaled(windows, *self.scales(windows))

    def scaled(self, windows: Array, level: Array, unit: Array) -> Array:
        """The same with their `scales`."""
        xp, scaled = array_namespace(windows), (windows - level) / unit
        if self.there is not None:
            scaled = xp.where(self.there, scaled, xp.zeros_like(scaled))
        return xp.asinh(scaled) if self.counts else scaled

    def scale_windows_backward(self, dscaled: Array, windows: Array) -> Array:
        """The gradient of windows ``(B, T, F)``, given that of `scale_windows`, of the same shape."""
        xp = array_namespace(windows)
        level, unit = self.scales(windows)
        scaled = (windows - level) / unit
        if self.counts:
            dscaled = dscaled / xp.sqrt(1.0 + scaled * scaled)
        dwindows = dscaled / unit
        dlevel = -xp.sum(dwindows, axis=1, keepdims=True)
        dunit = -xp.sum(dwindows * scaled, axis=1, keepdims=True)
        return dwindows + self.scales_backward(dlevel, dunit, windows)

    def scale_targets(self, targets: Array, windows: Array) -> Array:
        """Targets ``(B,)``, or ``(B, h)`` of h steps, as the network predicts them after `windows`."""
        level, unit = self.target_scales(windows)
        return (targets - level) / unit if targets.ndim == 2 else (targets - level[:, 0]) / unit[:, 0]

    def unscale_predictions(self, predictions: Array, windows: Array) -> Array:
        """Predictions ``(B,)`` or ``(B, h)`` after `windows`, in the data's units."""
        level, unit = self.target_scales(windows)
        return level + predictions * unit if predictions.ndim == 2 else level[:, 0] + predictions * unit[:, 0]


def deviations(rows: Floats) -> tuple[Floats, Floats]:
    """The standard deviation of the columns of rows ``(N, F)``, and that of their changes from row to row."""
    std = rows.std(axis=0)
    if len(rows) < 2:
        return std, np.zeros_like(std)
    change_std = np.diff(rows, axis=0).std(axis=0)
    # a straight line has a constant change: its scale is that change
    return std, np.where(change_std > 1e-9 * std, change_std, np.abs(np.diff(rows, axis=0)).mean(axis=0))


def constant_column(name: str, value: float, *, is_alone: bool) -> DataError:
    """The error of a column, such as ``column Close``, that has the same value in all training rows."""
    remedy = "choose another column"
    if is_alone:
        remedy = f"the forecast is {value:g}, too; to train a model, give rows in which it changes"
    return DataError(f"{name} is constant in all training rows; {remedy}")
