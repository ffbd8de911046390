"""Parts of a series to draw and to write, without a model."""

from datetime import datetime, timedelta

import numpy as np
import pytest

from gru_xp.forecasting.backtest import Backtest, rolling_origins
from gru_xp.forecasting.baselines import baselines
from gru_xp.forecasting.evaluation import EvaluatedPart
from gru_xp.io.series import Reading, TimeSeries
from gru_xp.training.trainer import EpochRecord


@pytest.fixture
def series():
    """``series(dates=True, labels=None)``: 40 rows of one column."""

    def series(dates=True, labels=None):
        values = np.sin(np.arange(40.0))[:, None] * 3 + 10
        days = tuple(datetime(2024, 2, 1) + timedelta(days=row) for row in range(40)) if dates else None
        if labels is None and days:
            labels = tuple(day.date().isoformat() for day in days)
        return TimeSeries(values, ("Value",), labels, days)

    return series


@pytest.fixture
def part(series):
    """``part(name, start, stop)``: those rows, predicted wrongly by a half, above and below in turn."""
    values = series().values[:, 0]

    def part(name, start, stop):
        y_true = values[start:stop]
        y_pred = y_true + np.where(np.arange(start, stop) % 2 == 0, 0.5, -0.5)
        rows = np.arange(start, stop)
        return EvaluatedPart(name, range(start, stop), 1 + rows % 3, y_true, y_pred, y_true - rows / 7, {})

    return part


@pytest.fixture
def parts(part):
    return [part("train", 5, 20), part("validation", 20, 28), part("test", 28, 40)]


@pytest.fixture
def history():
    """``history(epochs, validation=True)``: epoch 0 and that many more."""

    def history(epochs, validation=True):
        return tuple(
            EpochRecord(
                epoch,
                1.0 / (1 + epoch),
                2.0 / (1 + epoch) if validation else None,
                None if epoch == 0 else 0.1 * epoch,
                0.25 * epoch,
                1.0 / (1 + epoch),
            )
            for epoch in range(epochs + 1)
        )

    return history


@pytest.fixture
def backtest():
    """``backtest(rows, first, horizon=1, ...)``: forecasts of the rows of a walk from a first one on, wrong by chance.

    With `quantiles`, there are intervals of 80 % and 95 % around them.
    """

    def backtest(
        rows,
        first,
        horizon=1,
        *,
        stride=None,
        season=1,
        quantiles=False,
        dates=True,
        scale=1.0,
        error=1.0,
        missing=(),
        name="Value",
        fallback=None,
    ):
        rng = np.random.default_rng(rows + first)
        values = scale * (50 + np.cumsum(rng.normal(size=rows)) + 8 * np.sin(2 * np.pi * np.arange(rows) / 12))
        days = tuple(datetime(2021, 2, 1) + timedelta(days=row) for row in range(rows)) if dates else None
        observed = np.ones((rows, 1), dtype=bool)
        observed[list(missing)] = False
        series = TimeSeries(
            values[:, None],
            (name,),
            None if days is None else tuple(day.date().isoformat() for day in days),
            days,
            observed=observed if len(missing) else None,
            reading=Reading(freq="D" if dates else None),
        )
        stride = stride or horizon
        origins = rolling_origins(first, rows, horizon, stride)
        points = values[origins[:, None] + np.arange(horizon)]
        forecasts = {"GRU": points + scale * error * rng.normal(size=points.shape)}
        if quantiles:
            for suffix, distance in (("lo-95", -2.0), ("lo-80", -1.3), ("hi-80", 1.3), ("hi-95", 2.0)):
                forecasts[f"GRU-{suffix}"] = forecasts["GRU"] + scale * distance
        seasons = [season] if season > 1 else []
        named = baselines(values[:first], seasons)
        forecasts |= {name: forecast(values, origins, horizon) for name, forecast in named.items()}
        return Backtest(series, origins, stride, forecasts, first, season, (fallback,) * len(origins))

    return backtest
