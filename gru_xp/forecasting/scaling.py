"""Scaling of windows for the network, and back.

Two ways, both fitted on training rows only:

- ``standard``: every column less its training mean, in units of its training standard deviation.
- ``last``: every window less its own last row, in units of the standard deviation of the training rows' one-step
  changes. The network then predicts the change, and a level it has never seen is no different from any other.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.forecasting.windows import Floats
from gru_xp.nn.checks import check_choice
from gru_xp.training.strict_json import check_fields, shortened

SCALINGS = ("last", "standard")

LARGEST = 1e150
"""Of a value: the squares of larger ones are no numbers any more."""

SMALLEST = 1e-150
"""Of a scale: the squares of smaller ones are no numbers any more."""

_MOST = 4 * LARGEST  # changes are up to twice as large as values, but for rounding
_BOUNDS = {"mean": (-_MOST, _MOST), "std": (SMALLEST, _MOST), "change_std": (SMALLEST, _MOST)}


@dataclass(frozen=True)
class Scaler:
    """Fitted statistics of the training rows, one number a column.

    Attributes
    ----------
    kind : {"last", "standard"}
    mean, std
        Of the columns, shape ``(F,)``.
    change_std
        Of their one-step changes, shape ``(F,)``.

    Raises
    ------
    ValueError
        There is no such kind, not one number of each for every column, or one that is too large or too small.
    """

    kind: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    change_std: tuple[float, ...]

    def __post_init__(self) -> None:
        check_choice("scaler kind", self.kind, SCALINGS)
        if not len(self.mean) == len(self.std) == len(self.change_std):
            raise ValueError("the scaler has not as many numbers of each kind")
        for name, (least, most) in _BOUNDS.items():
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
                raise DataError(f"{name} is constant in all training rows; choose another column")
        std = rows.std(axis=0)
        change_std = np.diff(rows, axis=0).std(axis=0)
        # a straight line has a constant change: its scale is that change
        change_std = np.where(change_std > 1e-9 * std, change_std, np.abs(np.diff(rows, axis=0)).mean(axis=0))
        for name, scale, spread in zip(names, np.minimum(std, change_std), high - low, strict=True):
            if scale < SMALLEST:
                raise DataError(f"{name} changes by {spread:g} in all training rows, too little; scale it up")
        return cls(kind, tuple(rows.mean(axis=0).tolist()), tuple(std.tolist()), tuple(change_std.tolist()))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Scaler":
        """The inverse of `to_dict`.

        Raises
        ------
        ValueError
            A field is missing, unknown or of another kind, or as for `Scaler`.
        """
        check_fields("the scaler", fields, {"kind": str} | dict.fromkeys(_BOUNDS, (list, tuple)))
        for name in _BOUNDS:
            for number in fields[name]:
                if type(number) not in (int, float):
                    raise ValueError(f"{name} of the scaler holds {shortened(number)}; it must be a number")
        return cls(fields["kind"], *(tuple(map(float, fields[name])) for name in _BOUNDS))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return asdict(self)

    def scale_windows(self, windows: Floats) -> Floats:
        """Windows ``(B, T, F)`` as the network gets them."""
        if self.kind == "last":
            scaled: Floats = (windows - windows[:, -1:, :]) / np.asarray(self.change_std)
        else:
            scaled = (windows - np.asarray(self.mean)) / np.asarray(self.std)
        return scaled

    def scale_targets(self, targets: Floats, windows: Floats) -> Floats:
        """Targets ``(B,)`` as the network predicts them after `windows`."""
        level, unit = self._target_level(windows)
        scaled: Floats = (targets - level) / unit
        return scaled

    def unscale_predictions(self, predictions: Floats, windows: Floats) -> Floats:
        """Predictions ``(B,)`` after `windows`, in the data's units."""
        level, unit = self._target_level(windows)
        unscaled: Floats = level + predictions * unit
        return unscaled

    def _target_level(self, windows: Floats) -> tuple[Floats, float]:
        """What is taken off the target after each window, and what it is divided by."""
        if self.kind == "last":
            return windows[:, -1, 0], self.change_std[0]
        return np.asarray(self.mean[0]), self.std[0]
