"""The guard: whether a forecaster forecasts rows that it has not learned better than what needs no training."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gru_xp.devices import Device
from gru_xp.errors import DataError
from gru_xp.forecasting.baselines import baselines
from gru_xp.forecasting.choosing import LookBack, blocks_of, held_out_from, judged_origins
from gru_xp.forecasting.conformal import Intervals
from gru_xp.forecasting.panels import AnySeries, baselines_of, head_of, series_numbers
from gru_xp.forecasting.predicting import (
    centres_and_units,
    chosen_baseline,
    forecast_origins,
    forecasts_from_transformed,
    target_factors,
    window_units,
)
from gru_xp.forecasting.recipe import known_origins, naive_spread, step_budget
from gru_xp.forecasting.ridge import Fold, cross_forecasts, naive_weight
from gru_xp.forecasting.stages import Hooks, OnStage, Stage
from gru_xp.forecasting.windows import Floats, WindowSequences
from gru_xp.io.messages import option
from gru_xp.io.series import TimeSeries
from gru_xp.io.table import Rows

if TYPE_CHECKING:
    from gru_xp.forecasting.forecaster import Forecaster

MIN_GUARDED = 100
"""Windows in the rows that are held out, of which fewer say too little about a forecast; see `naive_by_blocks`."""

MIN_GAIN = 0.01
"""By which share the error of a model must be below that of the best forecast that needs no training."""

MIN_GAIN_BY_BLOCKS, GAIN_OF_ROWS = 0.05, 0.3
"""The same of a ridge, forecasting blocks of all training rows: the first share, or the second over the root of the
number of horizons in these rows, if that is larger, as windows that overlap say little each."""

MIN_ABOVE_MEAN = 0.2
"""By which share the error of the last value must be above that of the mean of few rows, if the mean is to be forecast:
around a level that moves, the last value errs by little more, and the mean by a multiple later. In noise, by 41 %."""

MIN_BELOW_LAST_VALUE = 0.02
"""By which share the error of the drift must be below that of the last value in few rows, if it is to be forecast."""


class HeldOut(NamedTuple):
    """Forecasts of rows that what made them has not learned from; see `centres_and_units`."""

    origins: Rows
    centres: Floats
    units: Floats


def judge(
    kind: "type[Forecaster]", forecaster: "Forecaster", series: AnySeries, device: Device, on_stage: OnStage | None
) -> None:
    """Judge a forecaster by rows that it has not learned from, as far as its training rows have any.

    With `guard`, it forecasts like the best forecast without training, if these rows are in its favour. With levels, it
    gets its intervals. The `series` has the training rows. `kind` makes a forecaster of the same settings, which learns
    all but the last ones of them, and forecasts these. Where these are few, the ridge is judged that the forecaster
    began with.
    """
    levels, judged, horizon = forecaster.outputs.levels, forecaster.outputs.judged, forecaster.horizon
    stops, origins = guarded_origins(series, horizon, forecaster.window_length)
    is_few, held = not len(origins), None
    if is_few:
        if forecaster.guard and isinstance(series, TimeSeries):
            forecaster.fallback = naive_by_blocks(forecaster, series)
        if levels and isinstance(series, TimeSeries):
            held = _held_out_by_blocks(forecaster, series)
            origins = judged_origins(held_out_origins(series, horizon, forecaster.window_length)[1])
    if len(origins) and held is None:
        rehearsal = _rehearse(kind, forecaster, head_of(series, stops), device, on_stage)
        if rehearsal is None:
            return
        try:
            forecasts = forecast_origins(rehearsal, series, origins, horizon)[:, -len(judged) :]
            if levels and isinstance(series, TimeSeries):
                held = HeldOut(origins, *centres_and_units(rehearsal, series, origins, horizon))
        except DataError:  # they are no numbers
            forecasts = np.full((len(origins), len(judged), horizon), np.nan)
        if forecaster.guard and not is_few:
            units = target_factors(forecaster, series)
            seasons = forecaster.seasons
            forecaster.fallback = naive_instead(series, stops, origins, forecasts, seasons, judged, units)
    if held is not None and isinstance(series, TimeSeries):
        if forecaster.fallback is not None:
            held = HeldOut(held.origins, *centres_and_units(forecaster, series, held.origins, horizon))
        actual = series.values[held.origins[:, None] + np.arange(horizon), 0]
        errors = forecaster.target_transform.to_centres(actual) - held.centres
        forecaster.intervals = Intervals.of(np.abs(errors) / held.units, levels)


def _rehearse(
    kind: "type[Forecaster]", forecaster: "Forecaster", series: AnySeries, device: Device, on_stage: OnStage | None
) -> "Forecaster | None":
    """A forecaster of the same settings that has learned these rows; None where it cannot, or was stopped."""
    rehearsal = kind(**forecaster.settings() | rehearsal_settings(forecaster, forecaster.look_back, len(series.values)))

    def as_guard(stage: Stage) -> Hooks | None:
        return None if on_stage is None else on_stage(stage._replace(name="guard"))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            rehearsal.fit(series, device=device, on_stage=as_guard)
        except DataError:  # the rows before the last ones are constant, too few or missing
            return None
    assert rehearsal.training is not None
    if rehearsal.training.stop_reason in ("paused", "callback"):
        forecaster.guard_ended = False
        return None
    return rehearsal


def check_scores(forecaster: "Forecaster", series: TimeSeries) -> None:
    """Raise DataError where intervals are asked for, but no forecast of the training rows could be held out."""
    if not forecaster.outputs.levels or guarded_blocks(forecaster, series) is not None:
        return
    if not len(held_out_origins(series, forecaster.horizon, forecaster.window_length)[1]):
        raise DataError(
            f"{len(series)} training rows are too few for {option('levels')}: the last fifth of them has no window to "
            "measure errors by; give more rows, or leave it out"
        )


def _held_out_by_blocks(forecaster: "Forecaster", series: TimeSeries) -> HeldOut | None:
    """Those of the ridge that a forecaster begins with, block by block; None where there are no `guarded_blocks`."""
    blocks = guarded_blocks(forecaster, series)
    if blocks is None:
        return None
    transform, learned = forecaster.target_transform, forecaster.target_transform.apply(series)
    origins = np.concatenate([blocks[0][fold.judged] for fold in blocks[1]])
    forecasts = np.concatenate(block_forecasts(forecaster, learned, *blocks))[:, None]
    centres = transform.centres_of(forecasts, series.values[origins - 1, 0])
    return HeldOut(origins, centres, window_units(forecaster, learned, origins))


def rehearsal_settings(forecaster: "Forecaster", look_back: LookBack, learned: int) -> dict[str, Any]:
    """The settings to change for a training on the first `learned` rows, by which a forecaster is judged.

    Window length and season are those of all training rows, `look_back`.
    """
    season: Any = look_back.season if look_back.season > 1 else "none"
    changed = {"guard": False, "seq_length": look_back.seq_length, "season": season}
    if forecaster.transform == "auto":
        changed |= {"transform": forecaster.target_transform.kind}
    if forecaster.outputs.levels:
        changed |= {"levels": ()}
    changed |= {"validation_ratio": 0.0, "refit": False}
    batch_size = min(forecaster.batch_size or learned, learned)
    if forecaster.planned_epochs(learned) * math.ceil(learned / batch_size) > step_budget(learned, batch_size):
        changed |= {"num_epochs": None, "num_steps": None, "patience": None}  # long trainings are not made twice
    return changed


def chosen_spread(forecaster: "Forecaster", series: AnySeries, stops: Rows) -> tuple[tuple[float, ...], ...]:
    """Quantiles of the errors of the forecast that the guard has chosen, ``(Q, horizon)``, by the rows before `stops`.

    Of several series, the errors are in units of each; see `target_factors`.
    """
    if forecaster.fallback is None or not forecaster.outputs.predicted:
        return ()
    baseline, quantiles = chosen_baseline(forecaster, series), forecaster.outputs.predicted
    units = target_factors(forecaster, series)
    spread = naive_spread(baseline, series, stops, forecaster.horizon, quantiles, forecaster.seasons, units)
    return tuple(map(tuple, spread.tolist()))


def guarded_origins(series: AnySeries, horizon: int, seq_length: int) -> tuple[Rows, Rows]:
    """Where the rows to learn from for the guard end, ``(S,)``, and the origins to forecast from, if enough."""
    stops, origins = held_out_origins(series, horizon, seq_length)
    return stops, judged_origins(origins) if len(origins) >= MIN_GUARDED else origins[:0]


def held_out_origins(series: AnySeries, horizon: int, seq_length: int) -> tuple[Rows, Rows]:
    """Where the last rows of each series begin, by which the guard judges, ``(S,)``, and all origins in these.

    Windows of several series may be padded; those of one series are whole.
    """
    firsts, lengths = series.offsets[:-1], np.diff(series.offsets)
    stops = firsts + np.array([max(held_out_from(rows), 1) for rows in lengths.tolist()], dtype=np.int64)
    origins = known_origins(series, series.offsets[1:], horizon)
    least = np.maximum(stops, seq_length) if isinstance(series, TimeSeries) else stops
    return stops, origins[origins >= least[series_numbers(series, origins)]]


def guarded_blocks(forecaster: "Forecaster", series: TimeSeries) -> tuple[Rows, list[Fold]] | None:
    """Blocks of all rows, by which the guard judges a ridge, as `blocks_of` gives them; None if it cannot.

    The forecaster has begun with another linear forecast then, or none, or has further columns, of which a ridge knows
    nothing, or there are too few rows.
    """
    if not forecaster.linear_skip or forecaster.loss == "poisson" or len(series.columns) > 1:
        return None
    origins, length = known_origins(series, len(series), forecaster.horizon), forecaster.window_length
    return blocks_of(origins, origins[origins >= length], length, forecaster.horizon)


def block_forecasts(forecaster: "Forecaster", series: TimeSeries, origins: Rows, folds: Sequence[Fold]) -> list[Floats]:
    """Forecasts ``(n, horizon)`` of the judged origins of each block, by the ridge that is fitted to the other ones.

    The target of the series is transformed, and so are they.
    """
    length, horizon, scaler = forecaster.input_length, forecaster.horizon, forecaster.scaler
    windows = WindowSequences(series.values, origins - length, length, horizon, scaler)
    start, penalty = naive_weight(length, horizon, forecaster.look_back.season), forecaster.look_back.penalty
    found = []
    for fold, scaled in zip(folds, cross_forecasts(windows, folds, start, penalty), strict=True):
        rows = (origins[fold.judged] - length)[:, None] + np.arange(length)
        found.append(scaler.unscale_predictions(scaled, series.values[rows]))
    return found


def naive_by_blocks(forecaster: "Forecaster", series: TimeSeries) -> str | None:
    """The name of the best forecast without training of blocks of all training rows; None to forecast with the model.

    Each block is forecast by the ridge that is fitted to the other ones, and by what needs no training, which has the
    rows before the block alone. Points are judged, by the mean absolute error. A seasonal naive forecast is never
    chosen: where it is the best one, there is a season, which the GRU has more of than the ridge. Nor is anything where
    there are no `guarded_blocks`.
    """
    blocks = guarded_blocks(forecaster, series)
    if blocks is None:
        return None
    origins, folds = blocks
    target, horizon, error = series.values[:, 0], forecaster.horizon, 0.0
    of_ridge = block_forecasts(forecaster, forecaster.target_transform.apply(series), origins, folds)
    errors = dict.fromkeys(baselines(target[: origins[0]], forecaster.seasons), 0.0)
    for fold, forecasts in zip(folds, of_ridge, strict=True):
        judged = origins[fold.judged]
        actual, named = target[judged[:, None] + np.arange(horizon)], baselines(target[: judged[0]], forecaster.seasons)
        points = forecasts_from_transformed(forecaster, forecasts[:, None], target[judged - 1])[:, 0]
        error += float(np.abs(points - actual).mean()) / len(folds)
        for name in errors:
            errors[name] += float(np.abs(named[name](target, judged, horizon) - actual).mean()) / len(folds)
    best = best_of_few(errors)
    gain = gain_of_few(sum(len(fold.judged) for fold in folds), forecaster.horizon)
    return None if error <= (1 - gain) * errors[best] or best.startswith("seasonal") else best


def best_of_few(errors: Mapping[str, float]) -> str:
    """The name of the best forecast without training, by errors in few rows.

    The mean and the drift must be better than the last value by more than chance makes them.
    """
    left, last_value = dict(errors), errors["last value"]
    if last_value < (1 + MIN_ABOVE_MEAN) * errors["mean"]:
        del left["mean"]
    if errors["drift"] > (1 - MIN_BELOW_LAST_VALUE) * last_value:
        del left["drift"]
    return min(left, key=left.__getitem__)


def gain_of_few(windows: int, horizon: int) -> float:
    """By which share the error of a model must be below that of the best forecast without training in few windows."""
    return max(MIN_GAIN_BY_BLOCKS, GAIN_OF_ROWS / math.sqrt(windows / horizon))


def naive_instead(
    series: AnySeries,
    learned: int | Rows,
    origins: Rows,
    forecasts: Floats,
    seasons: tuple[int, ...],
    quantiles: tuple[float, ...] = (0.5,),
    units: Floats | None = None,
) -> str | None:
    """The name of the best forecast without training; None if `forecasts (n, Q, horizon)` are better.

    An error counts by how much the quantile is missed: its size for 0.5. Those of several series are divided by the
    ``units (S,)`` of these. The rows before `learned`, of each series, are those that were learned from.
    """
    target, horizon, levels = series.values[:, 0], forecasts.shape[2], np.array(quantiles)[:, None]
    actual = target[origins[:, None] + np.arange(horizon)][:, None]
    unit = 1.0 if units is None else units[series_numbers(series, origins)][:, None, None]

    def error_of(forecasts: Floats) -> float:
        below = (actual - forecasts) / unit
        return float(2 * np.maximum(levels * below, (levels - 1) * below).mean())

    errors = {
        name: error_of(
            baseline(target, origins, horizon)[:, None]
            + unit * naive_spread(baseline, series, learned, horizon, quantiles, seasons, units)
        )
        for name, baseline in baselines_of(series, np.atleast_1d(learned), seasons).items()
    }
    best = min(errors, key=errors.__getitem__)
    with np.errstate(over="ignore", invalid="ignore"):
        error = error_of(forecasts)
    return None if error <= (1 - MIN_GAIN) * errors[best] else best
