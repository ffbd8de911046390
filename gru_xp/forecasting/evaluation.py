"""One-step predictions of a series' parts, beside the naive forecast on the same windows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.forecasting.baselines import naive_forecast
from gru_xp.forecasting.data import remembered_options, series_to_continue, warn_of_notices
from gru_xp.forecasting.forecaster import Forecaster, naming
from gru_xp.forecasting.metrics import compare_with_naive
from gru_xp.forecasting.windows import Floats, make_windows
from gru_xp.io.series import TimeSeries


@dataclass(frozen=True)
class EvaluatedPart:
    """Predictions of some rows of a series.

    Attributes
    ----------
    name
        Such as ``"test"``.
    rows
        The rows that are predicted, by position in the series.
    y_true, y_pred : array, shape ``(len(rows),)``
        Actual and predicted values, in the data's units.
    metrics
        See `compare_with_naive`.
    """

    name: str
    rows: Sequence[int]
    y_true: Floats
    y_pred: Floats
    metrics: dict[str, Any]


def evaluate(forecaster: Forecaster, series: TimeSeries, parts: Mapping[str, slice]) -> list[EvaluatedPart]:
    """Predict each row of `parts`, from the actual rows before it, which may lie in the part before.

    Parameters
    ----------
    forecaster
        A forecaster that has learned.
    series
        All rows.
    parts
        Name and rows of each part; rows without a whole window before them are left out, and so are those whose target
        was missing, and empty parts.

    Returns
    -------
    list of EvaluatedPart

    Raises
    ------
    DataError
        The series has too few rows, or none whose target is there, or other columns than the forecaster was trained on,
        or values that are too far from those.
    """
    with naming(series):
        taken = series_to_continue(series, forecaster.columns, remembered_options(forecaster.notes))
    warn_of_notices(series, taken, stacklevel=2)
    y_pred = forecaster.predict(taken)
    with naming(taken):
        return _evaluated(forecaster, taken, y_pred, parts)


def _evaluated(
    forecaster: Forecaster, series: TimeSeries, y_pred: Floats, parts: Mapping[str, slice]
) -> list[EvaluatedPart]:
    if not any(map(series.is_there, range(forecaster.seq_length, len(series)))):
        raise DataError(
            f"{printable(series.target)} is missing in every row after the first {forecaster.seq_length}: there is "
            "nothing to hold predictions against; give rows that have it"
        )
    windows, y_true = make_windows(series.values, forecaster.seq_length)
    y_naive = naive_forecast(windows)
    evaluated = []
    for name, rows in parts.items():
        start, stop, _ = rows.indices(len(series))
        rows_there = [row for row in range(max(start, forecaster.seq_length), stop) if series.is_there(row)]
        if not rows_there:
            continue
        at = [row - forecaster.seq_length for row in rows_there]
        with np.errstate(over="ignore"):
            metrics = compare_with_naive(y_true[at], y_pred[at], y_naive[at], forecaster.scaler.std[0])
        if not all(map(math.isfinite, _numbers(metrics))):
            raise DataError(
                f"the errors in the {name} part are too large for numbers; give rows like those that the model was "
                "trained on, or another model"
            )
        evaluated.append(EvaluatedPart(name, rows_there, y_true[at], y_pred[at], metrics))
    return evaluated


def _numbers(metrics: Mapping[str, Any]) -> Iterator[float]:
    for value in metrics.values():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif value is not None:
            yield value
