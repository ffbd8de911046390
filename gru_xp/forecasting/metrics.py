"""Measures of error, of a model beside the naive forecast.

Source: Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., section 5.8.
"""

from typing import Any

import numpy as np

from gru_xp.errors import ShapeError
from gru_xp.forecasting.windows import Floats


def _errors(y_true: Floats, y_pred: Floats) -> Floats:
    if y_true.shape != y_pred.shape:
        raise ShapeError(f"y_pred has shape {y_pred.shape}; it must be that of y_true, {y_true.shape}")
    return y_true - y_pred


def mse(y_true: Floats, y_pred: Floats) -> float:
    """Mean squared error, in the data's units squared."""
    return float(np.mean(_errors(y_true, y_pred) ** 2))


def rmse(y_true: Floats, y_pred: Floats) -> float:
    """Root of the mean squared error, in the data's units."""
    return float(np.sqrt(mse(y_true, y_pred)))


def mae(y_true: Floats, y_pred: Floats) -> float:
    """Mean absolute error, in the data's units."""
    return float(np.mean(np.abs(_errors(y_true, y_pred))))


def skill(y_true: Floats, y_pred: Floats, y_naive: Floats) -> float | None:
    """``1 - RMSE / RMSE_naive``: above 0 where the model is better; None where the naive forecast is perfect."""
    reference = rmse(y_true, y_naive)
    return 1.0 - rmse(y_true, y_pred) / reference if reference > 0 else None


def compare_with_naive(y_true: Floats, y_pred: Floats, y_naive: Floats, std: float) -> dict[str, Any]:
    """All measures, for the model and for the naive forecast.

    Parameters
    ----------
    y_true, y_pred, y_naive : array, shape ``(N,)``
        Actual values and the two forecasts, in the data's units.
    std
        Standard deviation of the target's training rows, the unit of the standardised measures.

    Returns
    -------
    dict
        ``windows`` (N), ``model`` and ``naive`` (each with ``mse``, ``rmse``, ``mae`` and the same three under
        ``standardised``), and ``skill``.
    """

    def measures(y: Floats) -> dict[str, Any]:
        errors = {"mse": mse(y_true, y), "rmse": rmse(y_true, y), "mae": mae(y_true, y)}
        standardised = {
            "mse": errors["mse"] / std**2,
            "rmse": errors["rmse"] / std,
            "mae": errors["mae"] / std,
        }
        return {**errors, "standardised": standardised}

    return {
        "windows": len(y_true),
        "model": measures(y_pred),
        "naive": measures(y_naive),
        "skill": skill(y_true, y_pred, y_naive),
    }
