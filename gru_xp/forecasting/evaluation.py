"""How good a trained forecaster is on the parts of a series, beside forecasts that need no training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.forecasting.backtest import (
    Backtest,
    OtherForecast,
    column_name,
    fallback_in,
    forecast_from,
    rolling_origins,
    seasons_of,
    with_others,
)
from gru_xp.forecasting.data import naming, remembered_options, series_to_continue, warn_of_notices
from gru_xp.forecasting.forecaster import Forecaster
from gru_xp.forecasting.outputs import column_suffix
from gru_xp.forecasting.windows import Floats, rows_are
from gru_xp.io.series import TimeSeries
from gru_xp.io.table import Rows


@dataclass(frozen=True)
class EvaluatedPart:
    """Predictions of some rows of a series.

    Attributes
    ----------
    name
        Such as ``"test"``.
    rows
        The rows that are predicted, by position in the series.
    steps : array, shape ``(len(rows),)``
        How many steps ahead each of them is predicted, from 1.
    y_true, y_pred, y_naive : array, shape ``(len(rows),)``
        Values in the data's units: actual, predicted, and those of the best forecast that needs no training.
    metrics
        See `Backtest.metrics`.
    quantiles
        Predicted quantiles ``(len(rows),)``, by column of `Backtest.to_frame`.
    """

    name: str
    rows: Sequence[int]
    steps: Rows
    y_true: Floats
    y_pred: Floats
    y_naive: Floats
    metrics: dict[str, Any]
    quantiles: Mapping[str, Floats] = field(default_factory=dict)


def evaluate(
    forecaster: Forecaster,
    series: TimeSeries,
    parts: Mapping[str, slice],
    horizon: int = 1,
    *,
    learned: int | None = None,
    training: TimeSeries | None = None,
    others: Mapping[str, OtherForecast] | None = None,
) -> list[EvaluatedPart]:
    """Predict the rows of `parts` by blocks of `horizon`, each from the actual rows before it.

    These may lie in the part before. The last block ends with its part.

    Parameters
    ----------
    forecaster
        A forecaster that has learned.
    series
        All rows.
    parts
        Name and rows of each part; rows without a whole window before them are left out, and so are those whose target
        was missing, and empty parts.
    horizon
        Steps ahead.
    learned
        How many of the rows, from the first, the forecaster has learned from: the ridge is fitted to them, and their
        mean and season make forecasts that need no training. If None, it has learned from other rows; the mean is that
        of all rows, and unless a season was given, seasons found in all rows count beside those of the forecaster.
    training
        The other rows, to fit the ridge to; without, it is left out.
    others
        Other forecasts of the last part, by name, where it comes after the training rows.

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
    origins = {
        name: rolling_origins(max(start, forecaster.window_length), stop, horizon, horizon)
        for name, rows in parts.items()
        for start, stop, _ in [rows.indices(len(taken))]
    }
    known_rows, is_other = learned or 0, learned is None
    if learned is None:
        learned = len(taken)
    else:
        training = taken.head(learned)
    seasons = seasons_of(forecaster, taken, learned, is_other=is_other)
    every = np.concatenate(list(origins.values()))
    if not len(every):
        needed = forecaster.window_length + horizon
        raise DataError(
            f"{taken.name}: {rows_are(len(taken))} too few: the model looks back on {forecaster.window_length} and "
            f"forecasts {horizon}; at least {needed} are needed"
        )
    train = taken.head(learned).values[:, 0]
    forecasts = forecast_from(forecaster, taken, every, horizon, train, seasons, training)
    evaluated, start = [], 0
    with naming(taken):
        for name, own in origins.items():
            held = {model: forecast[start : start + len(own)] for model, forecast in forecasts.items()}
            start += len(own)
            fallbacks = (fallback_in(forecaster, seasons, train),) * len(own)
            part = Backtest(taken, own, horizon, held, learned, seasons[0] if seasons else 1, fallbacks)
            if len(own) and not np.isnan(part.y_true).all():
                if name == list(origins)[-1] and own[0] >= known_rows:
                    part = with_others(part, others)
                evaluated.append(evaluated_part(name, part))
        if not evaluated:
            raise DataError(
                f"{printable(taken.target)} is missing in every row after the first {forecaster.window_length}: there "
                "is nothing to compare predictions with; give rows that have it"
            )
    return evaluated


def evaluated_part(name: str, part: Backtest) -> EvaluatedPart:
    """The forecasts of a backtest whose actual values are known, as those of a part."""
    there = ~np.isnan(part.y_true)
    best = next(model for model in part.baselines if column_name(model) == part.metrics["best_baseline"])
    return EvaluatedPart(
        name,
        part.rows[there].tolist(),
        (part.rows - part.origins[:, None] + 1)[there],
        part.y_true[there],
        part.y_pred[there],
        part.forecasts[best][there],
        part.metrics,
        {
            f"{column_name(part.model)}-{column_suffix(level)}": forecast[there]
            for level, forecast in part.quantiles.get(part.model, {}).items()
        },
    )
