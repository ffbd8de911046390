"""Which values of its window a forecast is due to: integrated gradients, by the network's own backward pass.

A forecast is a function f of its window w, from the data's units to the data's units: the window is scaled, the network
predicts, and the prediction is scaled back. The baseline w' has the last value of each column in all rows, so that
f(w') is what the model forecasts where nothing has happened. On the straight line from w' to w,

    attribution of value i = (w_i - w'_i) * integral over a from 0 to 1 of df/dw_i (w' + a (w - w')) da

and all attributions together are f(w) - f(w'), which is called completeness [1]_. The scales of a window change with
it, and the gradient goes through them, too. The integral is a sum over the points of Gauss and Legendre, twice as many
until the sum of the attributions is right.

The last row is the same in both windows: it has no attribution, and its value is in the forecast of the baseline. So is
which values were missing, where the network sees that. Where the target is transformed, windows and line are
those of the transformed values, while f is still in the data's units; of differences, the baseline has none.

References
----------
.. [1] M. Sundararajan, A. Taly and Q. Yan, "Axiomatic attribution for deep networks" (2017), arXiv:1703.01365.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.devices import to_device, to_host
from gru_xp.errors import ArgumentError, DataError
from gru_xp.forecasting.data import before_later_rows, naming, observed_values
from gru_xp.forecasting.predicting import forecasts_from_transformed, network_inputs, network_outputs
from gru_xp.forecasting.settings import training_config
from gru_xp.forecasting.windows import Floats
from gru_xp.io.series import TimeSeries
from gru_xp.io.table import Rows
from gru_xp.training.memory import prediction_advice
from gru_xp.training.objective import input_gradient, predicted_together

if TYPE_CHECKING:
    import pandas as pd

    from gru_xp.forecasting.forecaster import Forecaster

FEWEST_POINTS, MOST_POINTS = 32, 512
"""Of the integral; from one number to the next, they are doubled."""

TOLERANCE = 1e-4
"""Of completeness, as a share of the sum of all attributions without their signs."""


@dataclass(frozen=True)
class Explanation:
    """A forecast, and the values of its window that it is due to.

    Attributes
    ----------
    columns
        The F columns of the window, the target first.
    rows : array, shape ``(L,)``
        The rows of the window, by position in the series.
    labels, dates
        Of these rows, as in `TimeSeries`; None where the rows have none.
    values : array, shape ``(L, F)``
        The window.
    attributions : array, shape ``(L, F)``
        Contribution of each value to the difference between `forecast` and `baseline_forecast`, in the target's units.
    forecast
        What the model forecasts.
    baseline_forecast
        What it forecasts from a window whose values are all those of the last row.
    step
        The step ahead that is explained; None for the mean of all steps.
    horizon
        How many steps the model predicts at once.
    points
        Number of points of the integral.
    """

    columns: tuple[str, ...]
    rows: Rows
    labels: tuple[str, ...] | None
    dates: tuple[datetime, ...] | None
    values: Floats
    attributions: Floats
    forecast: float
    baseline_forecast: float
    step: int | None
    horizon: int
    points: int

    @property
    def completeness_error(self) -> float:
        """The part of the difference between the two forecasts that the attributions leave out."""
        return self.forecast - self.baseline_forecast - float(self.attributions.sum())

    def to_frame(self) -> "pd.DataFrame":
        """The attributions as a table.

        Returns
        -------
        pandas.DataFrame, shape ``(L * F, 4)``
            A row for each value of the window: ``ds``, its date, label, or the number of its row; ``column``;
            ``value``; and ``attribution``.
        """
        import pandas as pd

        L, F = self.values.shape
        times: Any = self.rows if self.labels is None else np.array(self.labels)
        if self.dates is not None:
            times = np.array(self.dates, dtype="datetime64[us]")
        return pd.DataFrame(
            {
                "ds": np.repeat(times, F),
                "column": np.tile(np.array(self.columns), L),
                "value": self.values.reshape(-1),
                "attribution": self.attributions.reshape(-1),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON holds it, with a list of rows, whose values and attributions are by column."""
        rows = zip(self.rows.tolist(), self.values.tolist(), self.attributions.tolist(), strict=True)
        return {
            "step": self.step,
            "horizon": self.horizon,
            "forecast": self.forecast,
            "baseline_forecast": self.baseline_forecast,
            "completeness_error": self.completeness_error,
            "points": self.points,
            "rows": [
                {
                    "row": row,
                    "date": None if self.labels is None else self.labels[number],
                    "values": dict(zip(self.columns, values, strict=True)),
                    "attributions": dict(zip(self.columns, attributions, strict=True)),
                }
                for number, (row, values, attributions) in enumerate(rows)
            ],
        }


def forecast_name(explanation: Explanation) -> str:
    """Which forecast is explained, in words."""
    if explanation.step is None and explanation.horizon > 1:
        return f"mean forecast of the next {explanation.horizon} steps"
    step = explanation.step or 1
    return f"forecast {'1 step' if step == 1 else f'{step} steps'} ahead"


def explain(forecaster: "Forecaster", series: TimeSeries, origin: int, step: int | None = None) -> Explanation:
    """Explain the forecast of a step ahead from an origin, or the mean of the horizon; see `Forecaster.explain`.

    Parameters
    ----------
    forecaster
        A forecaster that has learned.
    series
        Of its columns.
    origin
        The first row of the forecast, before which there is a whole window.
    step
        From 1 to the horizon; None for the mean.

    Raises
    ------
    ArgumentError
        The forecaster makes a forecast without training.
    DataError
        The forecasts are no numbers.
    """
    if forecaster.fallback is not None:
        raise ArgumentError(
            f"there is nothing to explain: the guard has chosen the {forecaster.fallback} forecast, which needs no "
            "training; train with guard=False to explain the model"
        )
    steps = np.full(forecaster.horizon, 1.0 / forecaster.horizon)
    if step is not None:
        steps = (np.arange(1, forecaster.horizon + 1) == step).astype(np.float64)
    L, transform = forecaster.input_length, forecaster.target_transform
    rows, before = slice(origin - L, origin), series.values[origin - L - transform.lag : origin]
    for _, known in before_later_rows(series, np.array([origin])):
        before = known.values[origin - len(before) : origin].copy()
    with prediction_advice(L, forecaster.device), naming(series):
        at = StraightLine(forecaster, before, observed_values(series)[rows], steps)
        baseline_forecast, forecast = at.forecasts(np.array([0.0, 1.0])).tolist()
        if not np.isfinite([baseline_forecast, forecast]).all():
            raise DataError(
                "the model predicts no finite number; give rows like those that it was trained on, or another model"
            )
        points = FEWEST_POINTS
        while True:
            attributions = at.attributions(points)
            missed = forecast - baseline_forecast - float(attributions.sum())
            if abs(missed) <= TOLERANCE * np.abs(attributions).sum() or points >= MOST_POINTS:
                break
            points *= 2
    return Explanation(
        forecaster.columns,
        np.arange(rows.start, rows.stop),
        None if series.labels is None else series.labels[rows],
        None if series.dates is None else series.dates[rows],
        before[-L:],
        attributions,
        forecast,
        baseline_forecast,
        step,
        forecaster.horizon,
        points,
    )


class StraightLine:
    """The windows from the baseline to a window, and the sums of their forecasts.

    Parameters
    ----------
    forecaster
        A forecaster that has learned.
    rows : array, shape ``(L, F)``
        The window in the data's units; with ``transform="diff"``, after the row before it.
    observed : array, shape ``(L, F)``
        Which of its values were there.
    steps : array, shape ``(h,)``
        Weights of the steps ahead in the sum.
    """

    def __init__(self, forecaster: "Forecaster", rows: Floats, observed: Floats, steps: Floats) -> None:
        transform = forecaster.target_transform
        self._forecaster, self._observed, self._steps, self._last = forecaster, observed, steps, rows[-1, 0]
        window, flat = (
            transform.forward_windows(a[None])[0, transform.lag :] for a in (rows, np.tile(rows[-1:], (len(rows), 1)))
        )
        self._baseline, self._change = flat, window - flat
        self._together = predicted_together(len(window), forecaster.architecture().input_size)

    def forecasts(self, at: Floats) -> Floats:
        """Of windows at places ``(B,)`` from 0, the baseline, to 1: ``(B,)``, in the data's units."""
        windows = self._windows(at)
        _, forecasts = self._transformed(windows, self._outputs(windows))
        found: Floats = forecasts @ self._steps
        return found

    def attributions(self, points: int) -> Floats:
        """By so many points of Gauss and Legendre, ``(L, F)``."""
        nodes, weights = np.polynomial.legendre.leggauss(points)
        total = np.zeros_like(self._change)
        for first in range(0, points, self._together):
            some = slice(first, first + self._together)
            total += np.tensordot(weights[some] / 2, self.gradients((1 + nodes[some]) / 2), 1)
        attributions: Floats = total * self._change
        return attributions

    def gradients(self, at: Floats) -> Floats:
        """Of the forecasts at places ``(B,)`` with respect to their transformed windows, ``(B, L, F)``."""
        forecaster, windows = self._forecaster, self._windows(at)
        scaler, device = forecaster.scaler, forecaster.device
        outputs = self._outputs(windows)
        dpoints, ddeviations = self._back(*self._transformed(windows, outputs))
        with np.errstate(over="ignore", invalid="ignore"):
            dy, dtargets = forecaster.outputs.points_backward(dpoints, outputs, windows, scaler, ddeviations)
            inputs = self._inputs(windows)
            with device.use():
                dx = input_gradient(
                    forecaster.params,
                    to_device(inputs, device, forecaster.dtype),
                    to_device(dy, device, forecaster.dtype),
                    device.ops(),
                    training_config(forecaster).rates,
                    reset=forecaster.reset,
                )
                dscaled = to_host(dx)[:, :, : windows.shape[2]].astype(np.float64)
            dwindows: Floats = scaler.scale_windows_backward(dscaled, windows)
        dwindows[:, :, :1] += dtargets
        return dwindows

    def _transformed(self, windows: Floats, outputs: Floats) -> tuple[Floats, Floats]:
        """Forecasts ``(B, 1 + Q, h)`` of the transformed target, and the points ``(B, h)`` in the data's units."""
        forecaster = self._forecaster
        with np.errstate(over="ignore", invalid="ignore"):
            transformed = forecaster.outputs.forecasts(outputs, windows, forecaster.scaler)
        last = np.full(len(windows), self._last)
        return transformed, forecasts_from_transformed(forecaster, transformed, last)[:, 0]

    def _back(self, transformed: Floats, points: Floats) -> tuple[Floats, Floats | None]:
        """The gradients of transformed points and, where points depend on them, of standard deviations, ``(B, h)``."""
        forecaster, kind = self._forecaster, self._forecaster.target_transform.kind
        low, high = forecaster.minimum, forecaster.maximum
        is_free = (points > (-np.inf if low is None else low)) & (points < (np.inf if high is None else high))
        dpoints = np.where(is_free, self._steps, 0.0)
        if kind == "diff":  # each change leads to all points after it
            return np.cumsum(dpoints[:, ::-1], axis=1)[:, ::-1], None
        if kind == "none":
            return dpoints, None
        dvariance = dpoints * points / 2 if kind == "log" else dpoints
        dtransformed = dpoints * (points if kind == "log" else 2.0 * np.maximum(transformed[:, 0], 0.0))
        if forecaster.loss != "gaussian":
            return dtransformed, None
        return dtransformed, dvariance * 2.0 * forecaster.outputs.deviation(transformed)

    def _windows(self, at: Floats) -> Floats:
        windows: Floats = self._baseline + at[:, None, None] * self._change
        return windows

    def _inputs(self, windows: Floats) -> Floats:
        forecaster = self._forecaster
        observed = np.broadcast_to(self._observed, windows.shape)
        return network_inputs(windows, observed, forecaster.scaler, forecaster.sees_gaps)

    def _outputs(self, windows: Floats) -> Floats:
        forecaster = self._forecaster
        return network_outputs(forecaster, self._inputs(windows), forecaster.device.ops()).astype(np.float64)
