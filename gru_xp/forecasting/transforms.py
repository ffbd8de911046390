"""Transforms of the target, which the model learns instead of it, and back.

======  =====================  ============================
kind    learned                so that
======  =====================  ============================
log     log y, y > 0           errors are shares of the level
sqrt    square root, y >= 0    errors grow with the root of the level, as those of counts do
diff    y(t) - y(t - 1)        changes from row to row are forecast, and added up
======  =====================  ============================

Quantiles are transformed back one by one: a quantile of log y is the logarithm of that quantile of y. So is the median,
and with it the point forecast of a loss whose forecast is a median: mae, quantile, and huber, which is close to both.
The mean is not preserved: the exponential of the mean of log y is below the mean of y. Where the point forecast is a
mean (mse, gaussian), it stays one: with normal errors of variance v in the transformed space, the mean of y is
``exp(m + v / 2)`` for log and ``m ** 2 + v`` for sqrt. The variance is the predicted one (gaussian), or that of the
model's errors in the last fifth of the training rows, for each step ahead. Differences add up to the mean.

References
----------
.. [1] R. Hyndman and G. Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., section 5.6.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.forecasting.data import place_of
from gru_xp.forecasting.scaling import constant_column
from gru_xp.forecasting.windows import Floats
from gru_xp.io.messages import option
from gru_xp.io.series import TimeSeries
from gru_xp.training.strict_json import check_fields, shortened

KINDS = ("none", "log", "sqrt", "diff")

TRANSFORMS = (*KINDS, "auto")

MEAN_LOSSES = ("mse", "gaussian")
"""Losses whose point forecast is a mean."""

MOST_VARIANCE = 1e3
"""Of errors of logarithms; the mean of larger ones is no number."""

SMALLEST_SHARE = 1e-3
"""Of the mean of the training rows, up to which a forecast without training has a logarithm."""


@dataclass(frozen=True)
class TargetTransform:
    """A transform of the target, and what is known of the training rows to go back.

    Attributes
    ----------
    kind : {"none", "log", "sqrt", "diff"}
    mean
        Of the target's training rows, in the data's units; 0 for ``"none"``.
    variance
        Of the errors of the transformed target, by step ahead, where the point forecast is a mean; else empty.
    """

    kind: str = "none"
    mean: float = 0.0
    variance: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], horizon: int) -> "TargetTransform":
        """The inverse of `to_dict`; ValueError if that is damaged."""
        fields = {"variance": (), **fields}
        check_fields("the transform", fields, {"kind": str, "mean": float, "variance": (list, tuple)})
        variance = tuple(map(float, fields["variance"]))
        if fields["kind"] not in KINDS or not math.isfinite(fields["mean"]):
            raise ValueError(f"{shortened(fields)} is no transform")
        if len(variance) not in (0, horizon) or not all(0 <= v < math.inf for v in variance):
            raise ValueError("the transform has not a variance for each step ahead")
        return cls(fields["kind"], float(fields["mean"]), variance)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return {name: value for name, value in asdict(self).items() if value != ()}

    @property
    def lag(self) -> int:
        """Rows before a window that its transformed values follow from."""
        return 1 if self.kind == "diff" else 0

    def fitted(self, target: Floats) -> "TargetTransform":
        """The same, of these training rows ``(N,)``."""
        return self if self.kind == "none" else replace(self, mean=float(target.mean()))

    def apply(self, series: TimeSeries) -> TimeSeries:
        """The series with the transformed target. The first of its differences is not known, and is the second one.

        Raises
        ------
        DataError
            The target has a value that the transform does not exist for.
        """
        if self.kind == "none":
            return series
        self._check(series)
        return replace(series, values=self.forward_windows(series.values[None])[0])

    def check_changes(self, series: TimeSeries) -> None:
        """Raise DataError where the target of training rows is constant, or is once it is transformed."""
        if self.kind == "none" or not len(series):
            return
        name, target = f"column {printable(series.target)}", series.values[:, 0]
        if np.ptp(target) == 0:
            raise constant_column(name, target[0], is_alone=True)
        changed = self.forward(target)
        if np.ptp(changed) == 0:
            raise DataError(
                f"{name} changes by {changed[0]:g} in all training rows, so that its "
                f"{option('transform', self.kind)} is constant; leave the transform out"
            )

    def forward_windows(self, windows: Floats) -> Floats:
        """Windows ``(B, T, F)``, whose target is column 0, with the transformed target."""
        transformed = windows.copy()
        transformed[:, :, 0] = self.forward(windows[:, :, 0])
        return transformed

    def forward(self, target: Floats) -> Floats:
        """The transformed target of rows ``(..., T)``."""
        if self.kind == "log":
            with np.errstate(divide="ignore"):
                logarithms: Floats = np.log(target)
            return logarithms
        if self.kind == "sqrt":
            roots: Floats = np.sqrt(target)
            return roots
        if self.kind == "diff":
            changes: Floats = np.diff(target, axis=-1)
            return np.concatenate([changes[..., :1], changes], axis=-1) if changes.shape[-1] else 0.0 * target
        return target

    def _check(self, series: TimeSeries) -> None:
        target = series.values[:, 0]
        wrong = {"log": target <= 0, "sqrt": target < 0}.get(self.kind)
        if wrong is None or not wrong.any():
            return
        row = int(wrong.argmax())
        least, others = ("above 0", ("sqrt", "none")) if self.kind == "log" else ("at least 0", ("none",))
        instead = [other for other in others if other != "sqrt" or target.min() >= 0]
        raise DataError(
            f"{place_of(series, row, 0)}: {target[row]:g} must be {least} for {option('transform', self.kind)}; use "
            f"{option('transform', *instead)}, or add a constant to the column"
        )

    def inverse(self, forecasts: Floats, last: Floats) -> Floats:
        """Forecasts in the data's units.

        Parameters
        ----------
        forecasts : array, shape ``(n, P, h)``
            Of the transformed target, by origin, point or quantile, and step ahead; the points first. Each forecast of
            a change is one from where the points before it lead to.
        last : array, shape ``(n,)``
            The target's last value before each origin.

        Returns
        -------
        array, shape ``(n, P, h)``
        """
        if self.kind == "log":
            return np.exp(forecasts)
        if self.kind == "sqrt":
            return np.maximum(forecasts, 0.0) ** 2
        if self.kind == "diff":
            reached = np.cumsum(np.concatenate([last[:, None], forecasts[:, 0]], axis=1), axis=1)[:, None]
            added: Floats = reached[:, :, :-1] + forecasts
            return added
        return forecasts

    def centres_of(self, forecasts: Floats, last: Floats) -> Floats:
        """What intervals are around ``(n, h)``: points of the transformed target, or of the target for ``"diff"``.

        The arguments are those of `inverse`.
        """
        centres = self.inverse(forecasts[:, :1], last) if self.kind == "diff" else forecasts
        return centres[:, 0]

    def to_centres(self, values: Floats) -> Floats:
        """Values of the target as `centres_of` has forecasts; ones far below its mean have no logarithm or root."""
        if self.kind in ("none", "diff"):
            return values
        return self.forward(np.maximum(values, SMALLEST_SHARE * self.mean))

    def from_centres(self, values: Floats) -> Floats:
        """The inverse of `to_centres`."""
        return values if self.kind == "diff" else self.inverse(values, values[:, 0, 0])

    def mean_from(self, mean: Floats, variance: Floats) -> Floats:
        """The mean of the target ``(n, h)`` whose transform is normal, with this mean and variance."""
        if self.kind == "log":
            return np.exp(mean + variance / 2)
        assert self.kind == "sqrt"
        return np.maximum(mean, 0.0) ** 2 + variance

    def variance_at(self, steps: int) -> Floats:
        """The variance ``(steps,)``, that of the last step known for those beyond."""
        known = np.array(self.variance or (0.0,))
        return known[np.minimum(np.arange(steps), len(known) - 1)]

    def of_limits(self, minimum: float | None, maximum: float | None) -> tuple[float, float]:
        """The least and the largest transformed value within limits of the target."""
        if self.kind == "diff":
            return -math.inf, math.inf
        low, high = (limit if limit is None else self._of_limit(limit) for limit in (minimum, maximum))
        return -math.inf if low is None else low, math.inf if high is None else high

    def _of_limit(self, limit: float) -> float:
        if self.kind == "none":
            return limit
        return float(self.forward(np.array([max(limit, 0.0)]))[0])
