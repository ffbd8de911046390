"""Scaling of windows for the network, and back.

Two ways, both fitted on training rows only:

- ``standard``: every column less its training mean, in units of its training standard deviation.
- ``last``: every window less its own last row, in units of the standard deviation of the training rows' one-step
  changes. The network then predicts the change, and a level it has never seen is no different from any other.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gru_xp.errors import DataError
from gru_xp.forecasting.windows import Floats
from gru_xp.nn.checks import check_choice
from gru_xp.training.strict_json import check_fields, shortened

SCALINGS = ("last", "standard")

SMALLEST = 1e-150
"""Columns that change by less are refused: squares of their changes are zero."""


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
    """

    kind: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    change_std: tuple[float, ...]

    @classmethod
    def fit(cls, kind: str, rows: Floats, columns: tuple[str, ...]) -> "Scaler":
        """Fit to training rows ``(N, F)``.

        Raises
        ------
        DataError
            A column does not change, so that there is nothing to scale by.
        """
        for name, spread in zip(columns, np.ptp(rows, axis=0), strict=True):
            if 0 < spread < SMALLEST:
                raise DataError(f"column {name} changes by {spread:g} in all training rows, too little; scale it up")
            if not spread > 0:
                raise DataError(f"column {name} has one and the same value in all training rows; choose another column")
        std = rows.std(axis=0)
        change_std = np.diff(rows, axis=0).std(axis=0)
        # a straight line has a constant change: its scale is that change
        change_std = np.where(change_std > 1e-9 * std, change_std, np.abs(np.diff(rows, axis=0)).mean(axis=0))
        return cls(kind, tuple(rows.mean(axis=0).tolist()), tuple(std.tolist()), tuple(change_std.tolist()))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Scaler":
        """The inverse of `to_dict`.

        Raises
        ------
        ValueError
            A field is missing, unknown or of another kind, a number not finite, or a scale not above 0.
        """
        numbers = ("mean", "std", "change_std")
        check_fields("the scaler", fields, {"kind": str} | dict.fromkeys(numbers, (list, tuple)))
        check_choice("scaler kind", fields["kind"], SCALINGS)
        for name in numbers:
            smallest = -math.inf if name == "mean" else 0.0
            for number in fields[name]:
                if type(number) not in (int, float) or not smallest < number < math.inf:
                    raise ValueError(f"{name} of the scaler holds {shortened(number)}")
        if not len(fields["mean"]) == len(fields["std"]) == len(fields["change_std"]):
            raise ValueError("the scaler has not as many numbers of each kind")
        return cls(fields["kind"], *(tuple(map(float, fields[name])) for name in numbers))

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
