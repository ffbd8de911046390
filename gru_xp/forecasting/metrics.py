"""Measures of error, by utilsforecast.

Source: Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., section 5.8.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.forecasting.windows import Floats

if TYPE_CHECKING:
    import pandas as pd

MEASURES = ("mae", "rmse", "mase", "rmsse", "smape")
STEP_MEASURES = ("mae", "rmse")
CRPS_LEVELS = 200
"""Levels at which the quantile loss is taken for a CRPS, evenly spaced."""

_ID, _STEP, _Y = "unique_id", "step", "y"


def accuracy(y_true: Floats, forecasts: dict[str, Floats], train: Floats, season: int) -> dict[str, dict[str, Any]]:
    """All measures of each forecast, over all steps ahead.

    Parameters
    ----------
    y_true : array, shape ``(n, horizon)``
        Actual values, NaN where they are missing.
    forecasts
        Arrays of the same shape, by name.
    train : array, shape ``(N,)``
        Training rows, NaN where they are missing: MASE and RMSSE are in units of the errors of their seasonal naive
        forecast one step ahead.
    season
        Rows of the season of that forecast; 1 for the last value.

    Returns
    -------
    dict
        By forecast and name of `MEASURES`; sMAPE is from 0 to 1. None where there is no such number, as for MASE if the
        training rows are constant, shorter than a season, or repeat it but for rounding.
    """
    losses = losses_of_utilsforecast()
    names, frame = list(forecasts), _frame(y_true, forecasts)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        results = {name: getattr(losses, name)(frame, names, id_col=_ID) for name in ("mae", "rmse", "smape")}
        training = _training_frame(train)
        for name in ("mase", "rmsse"):
            results[name] = getattr(losses, name)(frame, names, seasonality=season, train_df=training, id_col=_ID)
    measured = {model: {name: _number(results[name][model].iloc[0]) for name in MEASURES} for model in names}
    changes = np.abs(train[season:] - train[:-season])
    if np.nansum(changes) <= rounding(train) * np.count_nonzero(~np.isnan(changes)):
        for measures in measured.values():
            measures["mase"] = measures["rmsse"] = None
    return measured


def accuracy_by_step(y_true: Floats, forecasts: dict[str, Floats]) -> dict[str, dict[str, list[float | None]]]:
    """`STEP_MEASURES` of each forecast, a number for every step ahead; None where all values are missing."""
    losses = losses_of_utilsforecast()
    names, frame = list(forecasts), _frame(y_true, forecasts)
    steps = range(1, y_true.shape[1] + 1)
    with np.errstate(over="ignore", invalid="ignore"):
        results = {
            name: getattr(losses, name)(frame, names, id_col=_STEP).set_index(_STEP).reindex(steps)
            for name in STEP_MEASURES
        }
    return {model: {name: _numbers(results[name][model]) for name in STEP_MEASURES} for model in names}


def quantile_accuracy(
    y_true: Floats, quantiles: Mapping[str, Mapping[float, Floats]], points: Mapping[str, Floats]
) -> dict[str, dict[str, Any]]:
    """How good quantiles are.

    Parameters
    ----------
    y_true : array, shape ``(n, horizon)``
        Actual values, NaN where they are missing.
    quantiles
        Arrays of the same shape, by name of the forecast and level.
    points
        The point forecasts, likewise by name; they are the medians of those that have none.

    Returns
    -------
    dict
        By forecast: ``pinball``, the mean quantile loss over all levels; and, where there are two levels or more,
        ``coverage``, the share of the values from the lowest quantile to the highest, ``expected_coverage``, ``crps``,
        see `crps_of_quantiles`, and ``intervals``: by level in percent, such as ``"80"``, the ``coverage`` and the mean
        ``width`` of each interval between two of the quantiles. None where there is no such number.
    """
    losses, found = losses_of_utilsforecast(), dict[str, dict[str, Any]]()
    there = ~np.isnan(y_true)
    with np.errstate(over="ignore", invalid="ignore"):
        for name, by_level in quantiles.items():
            columns = {str(level): forecast for level, forecast in by_level.items()}
            low, high = min(by_level), max(by_level)
            frame = _frame(y_true, columns | {f"{name}-lo-all": by_level[low], f"{name}-hi-all": by_level[high]})
            pinball = [
                losses.quantile_loss(frame, {name: str(level)}, q=level, id_col=_ID)[name].iloc[0] for level in by_level
            ]
            found[name] = {"pinball": _number(sum(pinball) / len(pinball))}
            if low < high:
                coverage = losses.coverage(frame, [name], "all", id_col=_ID)[name].iloc[0]
                found[name] |= {"coverage": _number(coverage), "expected_coverage": round(high - low, 10)}
                found[name]["crps"] = _number(float(np.mean(crps_of_quantiles(y_true, by_level, points[name])[there])))
                found[name]["intervals"] = _intervals(y_true, by_level, there)
    return found


def _intervals(y_true: Floats, by_level: Mapping[float, Floats], there: Any) -> dict[str, dict[str, float | None]]:
    """Coverage and mean width of the central intervals, by their level in percent; the narrowest first."""
    found = {}
    for low in sorted((level for level in by_level if level < 0.5), reverse=True):
        high = round(1 - low, 10)
        if high in by_level:
            lower, upper = by_level[low], by_level[high]
            within = ((lower <= y_true) & (y_true <= upper))[there]
            width = float(np.mean((upper - lower)[there]))
            found[f"{100 * (high - low):.8g}"] = {"coverage": _number(float(np.mean(within))), "width": _number(width)}
    return found


def crps_of_quantiles(y_true: Floats, quantiles: Mapping[float, Floats], points: Floats | None = None) -> Floats:
    """The continuous ranked probability score of the distributions that quantiles stand for.

    It is twice the quantile loss, over all levels: of quantiles that are interpolated between those that are given, and
    the outermost ones beyond. For a distribution of one value, it is the absolute error.

    Parameters
    ----------
    y_true : array, shape ``(n, h)``
    quantiles
        Arrays of the same shape, by level.
    points
        The quantile 0.5, if it is not among those; left out if they are all on one side of it.

    Returns
    -------
    array, shape ``(n, h)``

    References
    ----------
    .. [1] T. Gneiting and A. Raftery, "Strictly proper scoring rules, prediction, and estimation", Journal of the
       American Statistical Association 102 (2007), doi:10.1198/016214506000001437.
    """
    known = dict(quantiles)
    if points is not None and min(known) < 0.5 < max(known) and 0.5 not in known:
        known[0.5] = points
    levels = np.array(sorted(known))
    ordered = [known[level] for level in levels.tolist()]
    total = np.zeros_like(y_true)
    for level in (np.arange(CRPS_LEVELS) + 0.5) / CRPS_LEVELS:
        place = float(np.interp(level, levels, np.arange(len(levels))))
        below, share = int(place), place - int(place)
        quantile = ordered[below] if share == 0 else (1 - share) * ordered[below] + share * ordered[below + 1]
        missed = y_true - quantile
        total += np.maximum(level * missed, (level - 1) * missed)
    return 2.0 * total / CRPS_LEVELS


def rounding(values: Floats) -> float:
    """The largest difference between values ``(N,)``, some of them NaN, that is no more than that of float64 numbers.

    Values of a formula, such as a sine, are exact to about 1e-13 of what they range over, and any to their last bits.
    """
    there = values[~np.isnan(values)]
    if not len(there):
        return 0.0
    with np.errstate(over="ignore"):
        spread = min(float(np.ptp(there)), 1e300)
    return max(1e-12 * spread, 8 * float(np.finfo(np.float64).eps) * float(np.abs(there).max()))


def skill(error: float | None, reference: float | None) -> float | None:
    """``1 - error / reference``: above 0 where the error is the smaller one; None where there is no such number."""
    return None if error is None or not reference else 1.0 - error / reference


def _frame(y_true: Floats, forecasts: dict[str, Floats]) -> "pd.DataFrame":
    """A row for each value that is there."""
    import pandas as pd

    there = ~np.isnan(y_true)
    steps = np.broadcast_to(np.arange(1, y_true.shape[1] + 1), y_true.shape)
    columns = {name: forecast[there] for name, forecast in forecasts.items()}
    return pd.DataFrame({_ID: 0, _STEP: steps[there], _Y: y_true[there], **columns})


def _training_frame(train: Floats) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame({_ID: 0, _Y: train})


def _number(value: float) -> float | None:
    """A number as JSON holds it; infinite scaled errors are those of constant training rows."""
    return float(value) if math.isfinite(value) else None


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [_number(value) for value in values]


def losses_of_utilsforecast() -> Any:
    """The measures of utilsforecast, whose escape sequences Python may warn of when it compiles them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*invalid escape sequence")
        from utilsforecast import losses
    return losses
