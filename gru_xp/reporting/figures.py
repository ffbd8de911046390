"""The plots of a forecaster, of a backtest and of a run, by their names."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gru_xp.errors import ArgumentError, DataError
from gru_xp.forecasting.backtest import Backtest, column_name, name_in_text, seasons_of
from gru_xp.forecasting.baselines import baselines
from gru_xp.forecasting.data import remembered_options, series_to_continue
from gru_xp.forecasting.evaluation import EvaluatedPart, evaluated_part
from gru_xp.forecasting.forecaster import Forecaster
from gru_xp.forecasting.naive_loss import naive_loss
from gru_xp.forecasting.outputs import quantile_column
from gru_xp.forecasting.settings import MAX_STEPS
from gru_xp.forecasting.windows import Split
from gru_xp.io.series import TimeSeries
from gru_xp.nn.checks import shown, whole_number
from gru_xp.reporting.plots import (
    Coming,
    cost_plot,
    error_by_step,
    folds_plot,
    forecast_plot,
    residual_plot,
    sequence_plot,
)

OF_PARTS: dict[str, Callable[[TimeSeries, EvaluatedPart], Figure]] = {
    "sequence": sequence_plot,
    "error_by_step": error_by_step,
    "residual": residual_plot,
}
"""Plots of predictions that have actual values."""

KINDS = ("forecast", *OF_PARTS, "cost")
"""Plots of a forecaster."""

STEPS, MAX_SEASON = 10, 60
"""Rows to forecast in a plot of a forecaster of fewer, where it has no season, or a longer one."""


def plot_backtest(backtest: Backtest, kind: str) -> Figure:
    """See `Backtest.plot`."""
    if kind == "folds":
        return folds_plot(backtest)
    _check_kind(kind, ("folds", *OF_PARTS))
    return OF_PARTS[kind](backtest.series, evaluated_part("backtest", backtest))


def plot_forecaster(
    forecaster: Forecaster, kind: str, series: Any = None, steps: int | None = None, *, start: int | None = None
) -> Figure:
    """See `Forecaster.plot`."""
    _check_kind(kind, KINDS)
    taken = None if series is None else _taken(forecaster, series)
    if kind == "cost":
        first = None if start is None else whole_number("start", start, 1)
        learned = None if taken is None else taken.head(len(taken) if first is None else first)
        return training_plot(forecaster, learned)
    if taken is None:
        raise ArgumentError(f"plot({kind!r}) needs a series, as forecast does: give plot({kind!r}, series)")
    if kind == "forecast":
        steps = _steps(forecaster) if steps is None else whole_number("steps", steps, 1, MAX_STEPS)
        parts = {"train": slice(0, start), "test": slice(start, None)} if start is not None else {}
        measured = _measured(forecaster, taken, start)
        best = None if measured is None else measured.metrics["best_baseline"]
        return forecast_plot(taken, parts, coming_of(forecaster, taken, steps, best, start))
    backtest = forecaster.evaluate(series, steps, start=start)
    return OF_PARTS[kind](backtest.series, evaluated_part("all" if start is None else "test", backtest))


def run_plots(
    forecaster: Forecaster, series: TimeSeries, split: Split, parts: Sequence[EvaluatedPart]
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of each plot of a run, made one after the other.

    Those of predictions are of the test part, or else of the last one that is evaluated.

    Parameters
    ----------
    forecaster
        It has learned from the rows before the test part.
    series
        All rows.
    split
        Their parts.
    parts
        The evaluated ones.
    """
    names = ("train", "validation", "test")
    best = parts[-1].metrics["best_baseline"] if parts else None
    try:
        coming = coming_of(forecaster, series, _steps(forecaster), best, split.fit_end)
    except DataError:  # the last rows are too far from those that were learned
        coming = None
    yield "forecast_plot", forecast_plot(series, {name: split.part(name) for name in names}, coming)
    if parts:
        yield "sequence_plot", sequence_plot(series, parts[-1])
        yield "error_by_step", error_by_step(series, parts[-1])
        yield "residual_plot", residual_plot(series, parts[-1])
    if forecaster.model == "gru":
        yield "cost_plot", training_plot(forecaster, series.head(split.fit_end))


def coming_of(
    forecaster: Forecaster, series: TimeSeries, steps: int, best: str | None, learned: int | None = None
) -> Coming:
    """The forecast of the rows after a series, beside one without training.

    Parameters
    ----------
    forecaster
        The model.
    series
        All rows.
    steps
        To forecast.
    best
        Which forecast without training, by its column in `Backtest.metrics`; the last value if None.
    learned
        How many of the rows, from the first, the forecaster has learned from, whose mean is a forecast; all if None.
    """
    origin = np.array([len(series)])
    named = {
        name: values[0] for name, values in forecaster.forecast_distributions(series, origin.tolist(), steps).items()
    }
    column, points = next(iter(named.items()))
    quantiles = {found[1]: values for name, values in named.items() if (found := quantile_column(name)) is not None}
    train = series.head(learned or len(series))
    seasons = seasons_of(forecaster, series, len(train), is_other=learned is None)
    by_name = baselines(train.values[:, 0], seasons)
    naive = next((name for name in by_name if column_name(name) == best), "last value")
    model = name_in_text(column) if forecaster.fallback is None else f"{name_in_text(column)} ({forecaster.fallback})"
    return Coming(model, points, by_name[naive](series.values[:, 0], origin, steps)[0], naive, quantiles)


def _steps(forecaster: Forecaster) -> int:
    """How many rows to forecast in a plot: a season, if it is not long, and at least the horizon.

    Intervals do not become wider after the horizon, so those of a forecaster that has any end there.
    """
    season = forecaster.seasons[0] if forecaster.seasons else STEPS
    if forecaster.outputs.quantiles:
        return forecaster.horizon
    return max(forecaster.horizon, season if season <= MAX_SEASON else STEPS)


def _measured(forecaster: Forecaster, series: TimeSeries, start: int | None) -> Backtest | None:
    """Forecasts that are measured, to know the best one without training; None where there is no row to forecast."""
    try:
        return forecaster.evaluate(series, start=start)
    except DataError:
        return None


def training_plot(forecaster: Forecaster, learned: TimeSeries | None = None) -> Figure:
    """`cost_plot` of a forecaster, with the naive level if the rows are given that it has learned from.

    Raises
    ------
    ArgumentError
        It has no epochs.
    """
    training = forecaster.selection or forecaster.training
    if forecaster.model == "ridge":
        raise ArgumentError("plot('cost'): a ridge regression is fitted in one step, without epochs; plot another kind")
    if training is None:
        raise ArgumentError(
            "plot('cost'): a model file holds no training history; plot it after fit(), or see the run's history.csv"
        )
    naive = None if learned is None else naive_loss(forecaster, learned)
    return cost_plot(forecaster.columns[0], training.history, training.best_epoch, naive)


def _taken(forecaster: Forecaster, series: Any) -> TimeSeries:
    return series_to_continue(series, forecaster.columns, remembered_options(forecaster.notes))


def _check_kind(kind: object, kinds: Sequence[str]) -> None:
    if kind not in kinds:
        *first, last = map(repr, kinds)
        raise ArgumentError(f"kind is {shown(kind)}; it must be {', '.join(first)} or {last}")
