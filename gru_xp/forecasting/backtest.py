"""Forecasts from a rolling origin, beside those that need no training, and how good all of them are."""

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gru_xp.devices import Device
from gru_xp.errors import ArgumentError, DataError, printable
from gru_xp.forecasting.baselines import baselines, needs_no_training, seasonal_name
from gru_xp.forecasting.data import before_later_rows, target_alone
from gru_xp.forecasting.executors import Workers, run_tasks
from gru_xp.forecasting.folds import Fold, FoldJournal, device_facts
from gru_xp.forecasting.forecaster import Forecaster
from gru_xp.forecasting.metrics import STEP_MEASURES, accuracy, accuracy_by_step, quantile_accuracy, rounding, skill
from gru_xp.forecasting.outputs import Outputs, column_suffix, quantile_column
from gru_xp.forecasting.panels import AnySeries
from gru_xp.forecasting.recipe import naive_spread
from gru_xp.forecasting.season import find_seasons
from gru_xp.forecasting.significance import diebold_mariano, p_value_text
from gru_xp.forecasting.windows import Floats, first_that_does
from gru_xp.io.series import TimeSeries
from gru_xp.io.table import Rows
from gru_xp.nn.checks import shown, whole_number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

OtherForecast = Callable[[Floats, Rows, int, int], Floats]
"""``forecast(values, origins, horizon, season)``: forecasts ``(n, horizon)`` of the rows from each of ``origins (n,)``
on, from the rows of ``values (N,)`` before it; the season is in rows, and 1 for none."""

OnFold = Callable[[Fold | None, int, int], object]
"""What is told of the folds of a backtest; see `backtest`."""

RIDGE = "ridge"
"""Name of the linear forecast in tables."""

ZERO_SHOT = "zero-shot"
"""Name of the pretrained network's forecast in tables."""

AUTO = "auto"
"""Name in tables of the forecast that was the best of several on held-out training rows."""

LEARNED_MEAN = "training mean"
"""Name of the forecast of the mean of a model's training rows, where the mean in the table is that of others."""

MODELS = {"gru": "GRU", "ridge": RIDGE, "zero-shot": ZERO_SHOT, "auto": AUTO}
"""Names of forecasters in tables, by their setting `model`."""

SIGNIFICANCE = 0.05
"""Below this p-value, a difference is called significant."""

SPLIT_RATIO = 0.7
"""Fraction of the rows before the first origin, unless the number of windows is given."""

REPEATS = 0.1
"""A forecast that differs from the last value by less than this share of what the series does repeats it."""


class Measured(Protocol):
    """What a backtest uses of the forecaster that it measures, such as `Forecaster`.

    Attributes
    ----------
    model
        One of `MODELS`.
    outputs
        Whose quantiles forecasts without training get, too.
    season
        ``"auto"``, ``"none"``, or rows of a season, or of several.
    seasons
        The seasons found in the training rows, in rows; empty if no season was found.
    fallback
        The forecast without training that it makes instead of its own; None where it makes its own. Of ``"auto"``,
        the forecast that it has chosen.
    """

    @property
    def model(self) -> str: ...
    @property
    def outputs(self) -> Outputs: ...
    @property
    def season(self) -> int | str | tuple[int, ...]: ...
    @property
    def seasons(self) -> tuple[int, ...]: ...
    @property
    def fallback(self) -> str | None: ...
    def forecast_distributions(self, series: Any, origins: Sequence[int], steps: int) -> dict[str, Floats]:
        """Forecasts ``(n, steps)`` from each origin, by name, the points first."""
        ...


@dataclass(frozen=True)
class Backtest:
    """Forecasts of one series from several origins.

    Attributes
    ----------
    series
        All rows.
    origins : array, shape ``(n,)``
        The first row of each forecast; the rows before it are known to it.
    stride
        Rows from one origin to the next.
    forecasts
        Arrays ``(n, horizon)`` in the data's units, by name: the model's first, then the other trained ones and those
        that need no training. Quantiles have a suffix of Nixtla's, as in ``"GRU-lo-80"`` and ``"last value-lo-80"``.
    learned
        Number of rows, from the first, whose errors are the unit of MASE and RMSSE.
    season
        Rows of a season; 1 for none.
    fallbacks
        For each window, which forecast without training the model's guard had chosen for it, or ``"auto"`` had chosen
        of all; None where it had not. Empty where it had for none.
    """

    series: TimeSeries
    origins: Rows
    stride: int
    forecasts: Mapping[str, Floats]
    learned: int
    season: int = 1
    fallbacks: tuple[str | None, ...] = ()

    @property
    def model(self) -> str:
        """Name of the model that is measured."""
        return next(iter(self.forecasts))

    @property
    def horizon(self) -> int:
        """Number of steps ahead."""
        return int(self.y_pred.shape[1])

    @property
    def rows(self) -> Rows:
        """The rows that are forecast, shape ``(n, horizon)``."""
        rows: Rows = self.origins[:, None] + np.arange(self.horizon)
        return rows

    @property
    def y_true(self) -> Floats:
        """Their actual values, NaN where they are missing, shape ``(n, horizon)``."""
        return known_values(self.series)[self.rows]

    @property
    def y_pred(self) -> Floats:
        """The model's forecasts, shape ``(n, horizon)``."""
        return self.forecasts[self.model]

    @property
    def baselines(self) -> list[str]:
        """Names of the forecasts that need no training."""
        return [name for name in self.points if needs_no_training(name)]

    @property
    def points(self) -> dict[str, Floats]:
        """The forecasts that are no quantiles, by name."""
        return {name: forecast for name, forecast in self.forecasts.items() if quantile_column(name) is None}

    @property
    def quantiles(self) -> dict[str, dict[float, Floats]]:
        """The quantiles of each forecast that has any, by level."""
        found: dict[str, dict[float, Floats]] = {}
        for name, forecast in self.forecasts.items():
            if (column := quantile_column(name)) is not None:
                found.setdefault(column[0], {})[column[1]] = forecast
        return found

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """How good the forecasts are, as JSON holds it.

        ``windows``, ``horizon``, ``stride``, ``season``; ``model``, which column of `to_frame` is that of the model;
        ``models``, for each of these columns the measures of `accuracy` and, under ``by_step``, of `accuracy_by_step`,
        and those of `quantile_accuracy` where there are quantiles; ``fallback``, in how many windows the model's guard
        had chosen which forecast without training instead of it, ``TrainingMean`` where the mean of its training rows
        is not that of ``Mean``; ``best_baseline``, which of those that need no training has the smallest mean absolute
        error; ``skill``, by which share that of the model is smaller, and ``skill_by_step``; ``p_value`` of the
        Diebold-Mariano test of the two, ``p_value_by_step``, and ``p_values``, that of each trained forecast, by
        column; ``change``, how much the model's forecasts differ from the last value, relative to what the series does.
        None where there is no such number.
        Differences that are only rounding count as 0, both from the actual values and between forecasts: where the best
        baseline has no other errors, there is no skill and no test, and a model that forecasts the same has skill 0.

        Raises
        ------
        DataError
            The errors are too large for numbers.
        """
        y_true, model = self.y_true, self.model
        forecasts = self._without_rounding()
        errors = accuracy(y_true, forecasts, known_values(self.series.head(self.learned)), self.season)
        for name in ("mae", "rmse"):
            if errors[model][name] is None:
                raise DataError(
                    "the errors are too large for numbers; give rows like those that the model was trained on, or "
                    "another model"
                )
        for name, measures in quantile_accuracy(y_true, self.quantiles, self.points).items():
            errors[name] |= measures
        if self.horizon == 1:
            by_step = {name: {measure: [errors[name][measure]] for measure in STEP_MEASURES} for name in forecasts}
        else:
            by_step = accuracy_by_step(y_true, forecasts)
        best = min(self.baselines, key=lambda name: math.inf if errors[name]["mae"] is None else errors[name]["mae"])
        gain = skill(errors[model]["mae"], errors[best]["mae"])
        trained = (name for name in forecasts if not needs_no_training(name))
        p_values = {name: self._p_value(forecasts[name], forecasts[best], slice(None)) for name in trained}
        of_steps = (slice(step, step + 1) for step in range(self.horizon))
        steps = zip(by_step[model]["mae"], by_step[best]["mae"], strict=True)
        return {
            "windows": int((~np.isnan(y_true)).any(axis=1).sum()),
            "horizon": self.horizon,
            "stride": self.stride,
            "season": self.season,
            "model": column_name(model),
            "models": {column_name(name): {**errors[name], "by_step": by_step[name]} for name in forecasts},
            "fallback": self._fallbacks(),
            "best_baseline": column_name(best),
            "skill": gain,
            "skill_by_step": [skill(*pair) for pair in steps],
            "p_value": p_values[model],
            "p_value_by_step": [self._p_value(forecasts[model], forecasts[best], step) for step in of_steps],
            "p_values": {column_name(name): p_value for name, p_value in p_values.items()},
            "change": self._change(),
        }

    def _fallbacks(self) -> dict[str, int]:
        windows = np.flatnonzero((~np.isnan(self.y_true)).any(axis=1)).tolist() if self.fallbacks else []
        names = (self.fallbacks[window] for window in windows)
        return dict(Counter(column_name(name) for name in names if name is not None))

    def _without_rounding(self) -> dict[str, Floats]:
        """The forecasts, equal to the actual values and to each other where they differ by rounding alone."""
        points, most = self.points, rounding(known_values(self.series))
        equal: dict[str, Floats] = {}
        for name in sorted(points, key=needs_no_training, reverse=True):
            forecast = points[name]
            for other in (*equal.values(), self.y_true):
                with np.errstate(over="ignore", invalid="ignore"):
                    forecast = np.where(np.abs(forecast - other) <= most, other, forecast)
            equal[name] = forecast
        return {name: equal[name] for name in points}

    def _p_value(self, forecast: Floats, best: Floats, steps: slice) -> float | None:
        """Of the Diebold-Mariano test of the errors at these steps, mean by window; None where `best` has no errors."""
        y_true = self.y_true[:, steps]
        there = ~np.isnan(y_true).all(axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            losses, of_best = (np.nanmean(np.abs(each[:, steps] - y_true)[there], axis=1) for each in (forecast, best))
        if not of_best.any() or not np.isfinite([losses, of_best]).all():
            return None
        tested = diebold_mariano(losses, of_best, math.ceil((steps.stop or self.horizon) / self.stride))
        return None if tested is None else tested.p_value

    def _change(self) -> float | None:
        last, y_true = self.series.values[self.origins - 1, :1], self.y_true
        there = ~np.isnan(y_true)
        moved = np.abs(y_true - last)[there].mean() if there.any() else 0.0
        return float(np.abs(self.y_pred - last)[there].mean() / moved) if moved > 0 else None

    @property
    def _in_frame(self) -> list[str]:
        """Names of the forecasts that `to_frame` has."""
        are_medians = self.model == ZERO_SHOT
        return [name for name in self.forecasts if not (are_medians and name.endswith("-median"))]

    def to_frame(self) -> "pd.DataFrame":
        """The forecasts as the functions of utilsforecast take them.

        Returns
        -------
        pandas.DataFrame
            A row for each value that is not missing: ``unique_id``, the target's name; ``ds``, its date, or the number
            of its row; ``cutoff``, that of the last row before the origin; ``y``, the actual value; and a column for
            each forecast, such as ``GRU`` and ``LastValue``; that of a quantile has a suffix, as in ``GRU-lo-80``. The
            point of a zero-shot forecast is its median, so there are no further columns of medians.
        """
        import pandas as pd

        there, rows = ~np.isnan(self.y_true), self.rows
        times: Any = np.arange(len(self.series)) if self.series.dates is None else self.series.to_frame().index
        cutoffs = np.broadcast_to(self.origins[:, None] - 1, rows.shape)
        return pd.DataFrame(
            {
                "unique_id": self.series.target,
                "ds": times[rows[there]],
                "cutoff": times[cutoffs[there]],
                "y": self.y_true[there],
                **{column_name(name): self.forecasts[name][there] for name in self._in_frame},
            }
        )

    def plot(self, kind: str = "folds") -> "Figure":
        """Draw the forecasts, or their errors.

        Parameters
        ----------
        kind : {"folds", "sequence", "error_by_step", "residual"}
            ``"folds"`` draws each forecast over the series, and the error of each. For the others, see
            `Forecaster.plot`; where forecasts overlap, ``"residual"`` takes the nearest one of each row, and
            ``"sequence"`` the last one.

        Returns
        -------
        matplotlib.figure.Figure
            It belongs to no pyplot session.

        Raises
        ------
        ArgumentError
            There is no such kind.
        """
        from gru_xp import PLOTS

        figure: Figure = import_module(PLOTS).plot_backtest(self, kind)
        return figure


def known_values(series: TimeSeries) -> Floats:
    """The target, NaN where it was missing."""
    target = series.values[:, 0]
    return target if series.observed is None else np.where(series.observed[:, 0], target, np.nan)


def column_name(forecast: str) -> str:
    """The name of a forecast where a column is called after it: ``LastValue`` for ``"last value"``."""
    found = quantile_column(forecast)
    if found is not None:
        return f"{column_name(found[0])}-{column_suffix(found[1])}"
    return "".join(word[0].upper() + word[1:] for word in re.findall(r"\w+", forecast))


def name_in_text(column: str) -> str:
    """The inverse of `column_name`: ``"last value"`` for ``LastValue``."""
    if (found := quantile_column(column)) is not None:
        return f"{name_in_text(found[0])}-{column_suffix(found[1])}"
    if column == column_name(ZERO_SHOT):
        return ZERO_SHOT
    text = re.sub(r"(\d+)$", r" (\1)", re.sub(r"(?<!^)([A-Z])", r" \1", column).lower())
    return text if text in (RIDGE, AUTO, LEARNED_MEAN) or needs_no_training(text) else column


def model_in_text(metrics: Mapping[str, Any]) -> str:
    """The model's name: ``"GRU"``, or ``"GRU (drift)"`` where that was chosen instead of it in all windows."""
    name = name_in_text(metrics["model"])
    chosen = [naive for naive, count in metrics["fallback"].items() if count == metrics["windows"]]
    return f"{name} ({name_in_text(chosen[0])})" if chosen else name


def _in_sentence(model: str) -> str:
    """What follows "the" where a model is named in a sentence."""
    return f"{model} forecast" if model == ZERO_SHOT else re.sub(rf"^{AUTO}\b", "automatic choice", model)


def guard_sentence(metrics: Mapping[str, Any]) -> str | None:
    """In which windows which forecast was chosen, by the guard or auto, in one sentence; None if in none."""
    model, windows, chosen = name_in_text(metrics["model"]), metrics["windows"], metrics["fallback"]
    if not chosen:
        return None
    names = [name_in_text(column) for column in chosen]
    counts = ", ".join(f"{name} in {count}" for name, count in zip(names, chosen.values(), strict=True))
    if model == AUTO:
        which = names[0] if len(names) == 1 else counts + " windows"
        return f"The automatic choice is {which}, by errors in held-out training rows."
    if list(chosen.values()) == [windows]:
        return f"{model_in_text(metrics)} is the {names[0]} forecast: nothing better was found in held-out rows."
    return (
        f"In {sum(chosen.values())} of {windows} windows, the guard has chosen another forecast than {model}: {counts}."
    )


def comparison_sentence(metrics: Mapping[str, Any]) -> str:
    """Whether the model is better than the best forecast that needs no training, in one sentence."""
    gain, p_value, windows = metrics["skill"], metrics["p_value"], metrics["windows"]
    model, best = _in_sentence(model_in_text(metrics)), name_in_text(metrics["best_baseline"])
    if gain is None:
        return _without_skill(metrics, model, best)
    is_small, size = abs(gain) < 0.0005, f"{abs(gain):.1%} {'lower' if gain >= 0 else 'higher'}"
    compared = f"The MAE of the {model} is {size} than that of the best baseline, {best}"
    if is_small:
        compared = f"The MAE of the {model} differs from that of the best baseline, {best}, by less than 0.05%"
    if p_value is None and gain == 0:
        return f"The {model} forecasts what the best baseline, {best}, does."
    if p_value is None:
        few = "1 window is too little" if windows == 1 else f"{windows} windows are too few"
        return f"{compared}; {few} to test the difference."
    test = f"Diebold-Mariano test, {p_value_text(p_value)}, {windows} windows"
    if p_value < SIGNIFICANCE:
        return f"{compared}; the difference is significant ({test})."
    differs = "differs by less than 0.05%" if is_small else f"is {size}"
    alike = f"The {model} is not distinguishable from the best baseline, {best}"
    return f"{alike}: its MAE {differs}, which is not significant ({test})."


def _without_skill(metrics: Mapping[str, Any], model: str, best: str) -> str:
    """The sentence of `comparison_sentence` where the best forecast has no error to divide by."""
    error, least = (metrics["models"][metrics[name]]["mae"] for name in ("model", "best_baseline"))
    if least is None:
        return f"The {model} cannot be compared with the {best} forecast, whose errors are too large for numbers."
    if error == 0:
        return f"Neither the {model} nor the best baseline, {best}, has any errors in these rows."
    return f"The best baseline, {best}, has no errors at all in these rows; the MAE of the {model} is {error:.3g}."


def copying_sentence(metrics: Mapping[str, Any]) -> str | None:
    """Whether the model only repeats the last value, in one sentence; None if its guard had chosen another forecast."""
    change = metrics["change"]
    if sum(metrics["fallback"].values()) == metrics["windows"]:
        return None
    if change is None:
        return "The series does not change in these rows, so nothing can be said about copies of the last value."
    share = f"{change:.0%}" if change < 10 else "1000% or more"
    amount = f"its forecasts differ from it by {share} of the actual change, on average"
    model = _in_sentence(name_in_text(metrics["model"]))
    verb = "nearly repeats" if change < REPEATS else "does not merely repeat"
    return f"The {model} {verb} the last value: {amount}."


# --- making one -------------------------------------------------------------------------------------------------


def rolling_origins(first: int, stop: int, horizon: int, stride: int, windows: int | None = None) -> Rows:
    """The origins from row `first` on whose forecasts end before row `stop`, rising; the last one ends just there.

    Parameters
    ----------
    first, stop
        In rows.
    horizon
        Rows of a forecast.
    stride
        Rows from one origin to the next.
    windows
        How many, the last ones; all if None.
    """
    origins = np.arange(stop - horizon, first - 1, -stride, dtype=np.int64)[:windows]
    return origins[::-1]


def first_origin(
    rows: int, horizon: int, stride: int, windows: int | None, split_ratio: float = SPLIT_RATIO, *, least: int = 1
) -> int:
    """The first row that may be forecast: where a share of the rows ends, or where so many windows begin.

    Raises
    ------
    DataError
        There is nothing to forecast after it, or fewer than `least` rows to learn from before the first forecast.
    """

    def first_of(n: int) -> int:
        return round(split_ratio * n) if windows is None else n - horizon - stride * (windows - 1)

    def is_enough(n: int) -> bool:
        origins = rolling_origins(first_of(n), n, horizon, stride, windows)
        return len(origins) > 0 and origins[0] >= least

    if not is_enough(rows):
        needed = first_that_does(is_enough, rows + 1)
        which, fewer = f"after {split_ratio:g} of the rows", "a smaller split ratio"
        if windows is not None:
            which = f"in {windows} windows, {stride} row(s) apart, after at least {least} row(s) to learn from"
            fewer = "fewer windows"
        enough = "no number of rows is enough" if needed is None else f"at least {needed} are needed"
        raise DataError(
            f"{rows} rows are too few for forecasts of {horizon} step(s) {which}: {enough}; give more rows"
            f"{', fewer steps' if horizon > 1 else ''} or {fewer}"
        )
    return first_of(rows)


def forecast_from(
    forecaster: Measured,
    series: TimeSeries,
    origins: Rows,
    horizon: int,
    train: Floats,
    seasons: Sequence[int],
    training: TimeSeries | None,
) -> dict[str, Floats]:
    """Forecasts ``(n, horizon)`` from all origins, by name: the forecaster's, the ridge's, and those without training.

    Where the forecaster's has quantiles, those without training have them too: of their errors in the training rows.
    `train` has the rows of the target whose mean is taken. The ridge is fitted to the training rows; it is left out
    where these are not known.
    """
    named = _trained_forecasts(forecaster, series, origins, horizon, training)
    return named | _forecasts_without_training(forecaster.outputs, series, origins, horizon, train, seasons)


def _trained_forecasts(
    forecaster: Measured, series: TimeSeries, origins: Rows, horizon: int, training: TimeSeries | None
) -> dict[str, Floats]:
    """The forecaster's, and the ridge's where its training rows are known and enough."""
    origin_list = origins.tolist()
    named = forecaster.forecast_distributions(series, origin_list, horizon)
    ridge = None if training is None else ridge_beside(forecaster, training, horizon)
    if ridge is not None:
        named |= ridge.forecast_distributions(target_alone(series), origin_list, horizon)
    return {name_in_text(column): forecast for column, forecast in named.items()}


def _forecasts_without_training(
    outputs: Outputs, series: TimeSeries, origins: Rows, horizon: int, train: Floats, seasons: Sequence[int]
) -> dict[str, Floats]:
    named: dict[str, Floats] = {}
    target = series.values[:, 0]
    for name, baseline in baselines(train, seasons).items():
        named[name] = baseline(target, origins, horizon)
        for number, known in before_later_rows(series, origins):
            named[name][number] = baseline(known.values[:, 0], origins[number : number + 1], horizon)[0]
        if outputs.quantiles:
            spread = naive_spread(baseline, series.head(len(train)), len(train), horizon, outputs.quantiles, seasons)
            quantiles = outputs.quantiles_around(named[name], spread)
            for number, quantile in enumerate(outputs.quantiles):
                named[f"{name}-{column_suffix(quantile)}"] = quantiles[:, number]
    return named


def with_others(result: Backtest, others: Mapping[str, OtherForecast] | None) -> Backtest:
    """The result with other forecasts from the same origins, by name.

    Raises
    ------
    ArgumentError
        A name is taken, or a forecast is no array of shape ``(n, horizon)``.
    """
    forecasts = dict(result.forecasts)
    for name, forecast in (others or {}).items():
        if column_name(name) in map(column_name, forecasts):
            raise ArgumentError(f"the table has a forecast that is called {shown(name)} already; use another name")
        series, origins = result.series, result.origins
        values = np.asarray(forecast(series.values[:, 0], origins, result.horizon, result.season))
        if values.shape != result.y_pred.shape:
            raise ArgumentError(
                f"the forecasts of {shown(name)} have shape {values.shape}; it must be {result.y_pred.shape}, the "
                "numbers of origins and steps"
            )
        for number, known in before_later_rows(series, origins):
            own = origins[number : number + 1]
            values[number] = np.asarray(forecast(known.values[:, 0], own, result.horizon, result.season))[0]
        forecasts[name] = values
    return replace(result, forecasts=forecasts)


def ridge_beside(forecaster: Measured, rows: TimeSeries, horizon: int) -> Forecaster | None:
    """The linear forecast of the windows of a forecaster, fitted to its training rows, for so many steps at once.

    It sees the target alone. None where the forecaster is one itself or has no such windows, or where there are too few
    rows to fit it to.
    """
    if not isinstance(forecaster, Forecaster):
        return None
    ridge = fit_ridge_like(forecaster, target_alone(rows), horizon)
    if ridge is not None:
        ridge.minimum, ridge.maximum = forecaster.minimum, forecaster.maximum
    return ridge


def fit_ridge_like(forecaster: Forecaster, target: AnySeries, horizon: int) -> Forecaster | None:
    """Fit a ridge with the windows of a forecaster to a target, without limits; None in the cases of `ridge_beside`."""
    if forecaster.model == "ridge":
        return None
    season = forecaster.look_back.season
    ridge = Forecaster(
        model="ridge",
        seq_length=forecaster.input_length,
        season=season if season > 1 else "none",
        horizon=horizon,
        guard=False,
        dtype="float64",
        hidden_size=1,  # of a GRU that adds nothing
        transform=forecaster.target_transform.kind,
        levels=() if forecaster.outputs.predicted else forecaster.outputs.levels,
    )
    device = forecaster.device if forecaster.device.name == "cpu" else "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the forecaster has said that its intervals have few scores
        try:
            return ridge.fit(target, device=device)
        except DataError:
            return None


def seasons_of(forecaster: Measured | Fold, series: TimeSeries, learned: int, *, is_other: bool) -> list[int]:
    """The seasons for forecasts that need no training.

    A season that was given holds, and so do those that the forecaster has found in its training rows. Where the series
    is another one (`is_other`), or the forecaster has found no season, those of its first `learned` rows come first.
    """
    if (given := forecaster.season) != "auto":
        return [given] if isinstance(given, int) else [*given] if isinstance(given, tuple) else []
    if forecaster.seasons and not is_other:
        return list(forecaster.seasons)
    found = find_seasons(series.head(learned).values[:, 0], series.reading.freq)
    return [*found, *(season for season in forecaster.seasons if season not in found)]


def fallback_in(forecaster: Measured | Fold, seasons: Sequence[int], train: Floats) -> str | None:
    """The name of the forecast that the guard has chosen, beside the baselines of `train` and these seasons.

    None if it has chosen none. The mean may be another one than theirs; a season that is longer than the rows leaves
    the last value.
    """
    name, mean = forecaster.fallback, forecaster.mean if isinstance(forecaster, Fold) else _mean_of(forecaster)
    if name is None or mean is None:
        return name
    if name == "mean" and abs(mean - float(np.mean(train))) > rounding(train):
        return LEARNED_MEAN
    if not name.startswith("seasonal naive"):
        return name
    season = int("".join(filter(str.isdecimal, name)) or forecaster.seasons[0])
    if season > len(train):
        return "last value"
    return seasonal_name(season, seasons)


def _mean_of(forecaster: Measured) -> float | None:
    """The mean that the fallback of a `Forecaster` may be; None for others."""
    return float(forecaster.training_mean) if isinstance(forecaster, Forecaster) else None


@dataclass(frozen=True)
class FitForecaster:
    """Fits forecasters of the same settings on a device, in this process or another."""

    settings: Mapping[str, Any]
    device: Device

    def __call__(self, rows: TimeSeries) -> Forecaster:
        return Forecaster(**self.settings).fit(rows, device=self.device)

    def describe(self) -> dict[str, Any]:
        """What its forecasts depend on beside the rows, as JSON holds it."""
        return {"settings": dict(self.settings), "device": device_facts(self.device)}


@dataclass(frozen=True)
class _Folds:
    """What the folds of a backtest have in common; see `backtest`."""

    fit: Callable[[TimeSeries], Measured]
    series: TimeSeries
    origins: Rows
    horizon: int
    refit: int | None
    learned: int
    training: TimeSeries | None

    def starts(self) -> list[int]:
        """Numbers of the origins before which to fit."""
        return list(range(0, len(self.origins), self.refit or len(self.origins)))

    def origins_of(self, start: int) -> Rows:
        """Those of the fold that begins with this one."""
        return self.origins[start : start + (self.refit or len(self.origins))]

    def forecast(self, start: int) -> Fold:
        """Fit to the rows before the first origin of a fold, and forecast from all of them."""
        origins, training = self.origins_of(start), self.training
        first = int(origins[0])
        rows = first if self.refit else min(self.learned, first)
        forecaster = self.fit(self.series.head(rows))
        if self.refit or self.learned <= first:
            training = self.series.head(first if self.refit else self.learned)
        return Fold(
            rows,
            _trained_forecasts(forecaster, self.series, origins, self.horizon, training),
            forecaster.outputs,
            forecaster.season,
            forecaster.seasons,
            forecaster.fallback,
            _mean_of(forecaster),
            _facts_of(forecaster),
        )


def _forecast_fold(folds: _Folds, start: int) -> Fold:
    return folds.forecast(start)


def _facts_of(forecaster: Measured) -> dict[str, Any]:
    """How the fitting went; see `Fold`."""
    if not isinstance(forecaster, Forecaster):
        reason = getattr(forecaster, "reason", None)
        return {} if reason is None else {"reason": reason}
    training = forecaster.training
    if training is None:  # it was loaded
        return {}
    return {
        "problem": training.problem,
        "best_epoch": training.best_epoch,
        "epochs": training.history[-1].epoch,
        "seconds": training.history[-1].seconds,
        "forecaster": forecaster.describe(),
    }


def backtest(
    fit: Callable[[TimeSeries], Measured],
    series: TimeSeries,
    origins: Rows,
    horizon: int,
    stride: int,
    *,
    refit: int | None = None,
    learned: int | None = None,
    training: TimeSeries | None = None,
    others: Mapping[str, OtherForecast] | None = None,
    workers: Workers = None,
    journal: str | os.PathLike[str] | None = None,
    on_fold: OnFold | None = None,
) -> Backtest:
    """Forecast from all origins with forecasters that are fitted to the rows before them.

    Parameters
    ----------
    fit
        Gives a forecaster that is fitted to the given rows: with `refit`, all before an origin; else `learned` ones.
        With a `journal`, its method ``describe()`` says what else the forecasts depend on, as JSON holds it.
    series
        All rows.
    origins
        See `rolling_origins`.
    horizon, stride
        In rows.
    refit
        Fit again after so many windows; None for never. All windows of a fit are one batch.
    learned
        Number of rows to know mean, season and the unit of scaled errors from, and the ridge without `refit`; those
        before the first origin if None. If they are more, the training rows are others.
    training
        The training rows, if they are others and known, to fit the ridge to; without, it is left out.
    others
        Other forecasts to make from the same origins, by name.
    workers
        Who fits; see `run_tasks`. Without `refit`, this process.
    journal
        A file that the folds are added to as they come, if there are several. One that has some of them already, of the
        same series and settings, is continued. It stays when all are done.
    on_fold
        Called with None when the journal is read, and with each fold that follows; and with how many are done, and of
        how many. What it raises ends the backtest, without this fold in the journal.
    """
    if learned is None:
        learned = int(origins[0])
    work = _Folds(fit, series, origins, horizon, refit, learned, training)
    starts = work.starts()
    folds = _forecast_folds(work, starts, stride, workers, journal, on_fold)
    seasons = seasons_of(folds[0], series, learned, is_other=learned > origins[0])
    fallbacks: list[str | None] = []
    found: list[dict[str, Floats]] = []
    for start, fold in zip(starts, folds, strict=True):
        fold_origins = work.origins_of(start)
        train = series.head(learned if start == 0 else int(fold_origins[0])).values[:, 0]
        naive = _forecasts_without_training(fold.outputs, series, fold_origins, horizon, train, seasons)
        found.append({**fold.forecasts, **naive})
        fallbacks += [fallback_in(fold, seasons, train)] * len(fold_origins)
    forecasts = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    season = seasons[0] if seasons else 1
    return with_others(Backtest(series, origins, stride, forecasts, learned, season, tuple(fallbacks)), others)


def _forecast_folds(
    work: _Folds,
    starts: Sequence[int],
    stride: int,
    workers: Workers,
    journal: str | os.PathLike[str] | None,
    on_fold: OnFold | None,
) -> list[Fold]:
    """All folds, by this process or by workers, those of the journal as they are."""
    if len(starts) == 1:
        fold = work.forecast(0)
        if on_fold is not None:
            on_fold(fold, 1, 1)
        return [fold]
    kept: FoldJournal | None = None
    folds: dict[int, Fold] = {}
    if journal is not None:
        describe: Callable[[], Mapping[str, Any]] = getattr(work.fit, "describe", dict)
        asked = {"steps": work.horizon, "stride": stride, "windows": len(work.origins), "refit": work.refit}
        kept = FoldJournal(journal, work.series, {**asked, **describe()})
        folds = {start: kept.folds[start] for start in starts if start in kept.folds}
    if on_fold is not None:
        on_fold(None, len(folds), len(starts))
    left = [start for start in starts if start not in folds]
    with closing(run_tasks(_forecast_fold, work, left, workers)) as results:
        for number, fold in results:
            folds[left[number]] = fold
            if on_fold is not None:
                on_fold(fold, len(folds), len(starts))
            if kept is not None:
                kept.add(left[number], fold)
    return [folds[start] for start in starts]


def check_refit(refit: object) -> int | None:
    """The number of windows after which to fit again, from ``"never"``, ``"always"`` or that number.

    Raises
    ------
    ArgumentError
        It is something else.
    """
    if isinstance(refit, str):
        if refit not in ("never", "always"):
            raise ArgumentError(f"refit is {shown(refit)}; it must be 'never', 'always' or a number of windows")
        return None if refit == "never" else 1
    return whole_number("refit", refit, 1)


def roll(
    fit: Callable[[TimeSeries], Measured],
    series: TimeSeries,
    first: int,
    horizon: int,
    *,
    windows: int | None = None,
    stride: int | None = None,
    refit: int | None = None,
    learned: int | None = None,
    training: TimeSeries | None = None,
    others: Mapping[str, OtherForecast] | None = None,
    workers: Workers = None,
    journal: str | os.PathLike[str] | None = None,
    on_fold: OnFold | None = None,
) -> Backtest:
    """`backtest` from the origins of `rolling_origins`, whose `stride` is the horizon unless it is given.

    Raises
    ------
    DataError
        There is no row to forecast.
    """
    stride = horizon if stride is None else stride
    origins = rolling_origins(first, len(series), horizon, stride, windows)
    _check_origins(origins, series, first, horizon)
    return backtest(
        fit,
        series,
        origins,
        horizon,
        stride,
        refit=refit,
        learned=learned,
        training=training,
        others=others,
        workers=workers,
        journal=journal,
        on_fold=on_fold,
    )


def _check_origins(origins: Rows, series: TimeSeries, first: int, horizon: int) -> None:
    """See that there is a window to forecast; DataError if not."""
    if not len(origins):
        raise DataError(
            f"{len(series)} rows are too few for forecasts of {horizon} step(s) after the rows to learn from; at least "
            f"{first + horizon} are needed: give more rows or fewer steps"
        )
    target = known_values(series)
    if np.isnan(target[origins[:, None] + np.arange(horizon)]).all():
        raise DataError(
            f"{printable(series.target)} is missing in every row that is forecast: there is nothing to compare "
            "forecasts with; give rows that have it"
        )
