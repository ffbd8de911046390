"""Predicting: what a fitted forecaster makes of the rows before, be it by its network or without training."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gru_xp.devices import is_out_of_memory, to_device, to_host
from gru_xp.devices.primitives import Ops
from gru_xp.errors import DataError, printable
from gru_xp.forecasting.baselines import Baseline, baselines_by_mean, panel_baselines
from gru_xp.forecasting.data import before_later_rows, naming, observed_values
from gru_xp.forecasting.outputs import WILDEST
from gru_xp.forecasting.panels import AnySeries, layout_of, series_numbers
from gru_xp.forecasting.scaling import Scaler
from gru_xp.forecasting.settings import training_config
from gru_xp.forecasting.transforms import MEAN_LOSSES
from gru_xp.forecasting.windows import Floats, Layout, make_windows
from gru_xp.io.series import TimeSeries
from gru_xp.io.table import Rows
from gru_xp.training.memory import prediction_advice
from gru_xp.training.objective import predict, predicted_together

if TYPE_CHECKING:
    from gru_xp.forecasting.forecaster import Forecaster


def predict_rows(forecaster: "Forecaster", series: TimeSeries) -> Floats:
    """Predictions ``(N - L,)`` of every row with a whole window before it, one step ahead."""
    origins = np.arange(forecaster.window_length, len(series))
    if forecaster.fallback is not None or forecaster.units is not None or is_transformed(forecaster):
        return forecast_origins(forecaster, series, origins, 1)[:, 0, 0]
    windows, _ = make_windows(series.values, forecaster.window_length)
    with prediction_advice(forecaster.window_length, forecaster.device), naming(series):
        predictions = np.empty(len(windows))
        for some in _together(forecaster, len(windows), forecaster.window_length):
            inputs = _inputs(series, forecaster.window_length, forecaster.scaler, forecaster.sees_gaps, some)
            ops = forecaster.device.ops()
            predictions[some] = _predict_windows(forecaster, inputs, windows[some], ops)[:, 0, 0]
        for number, known in before_later_rows(series, origins):
            predictions[number] = forecast_origins(forecaster, known, origins[number : number + 1], 1)[0, 0, 0]
        _check_predictions(predictions, partial(_called, series), first=forecaster.window_length)
    return predictions


def forecast_origins(forecaster: "Forecaster", series: AnySeries, origins: Rows, steps: int) -> Floats:
    """Forecasts ``(n, 1 + Q, steps)`` from all origins, points first, of many in one batch for each `horizon`.

    Those of a panel are rows of its `values`; the row after a series is one of its origins, not of the next one.
    """
    forecasts = _forecast_origins(forecaster, series, origins, steps)
    if not isinstance(series, TimeSeries):
        return forecasts
    for number, known in before_later_rows(series, origins):
        forecasts[number] = _forecast_origins(forecaster, known, origins[number : number + 1], steps)[0]
    return forecasts


def _forecast_origins(forecaster: "Forecaster", series: AnySeries, origins: Rows, steps: int) -> Floats:
    """The same where all values before each origin are known there."""
    if forecaster.outputs.levels and isinstance(series, TimeSeries):
        forecasts, centres, units = _centred_forecasts(forecaster, series, origins, steps)
        return _limited(forecaster, _with_intervals(forecaster, forecasts, centres, units))
    if forecaster.fallback is not None:
        return _limited(forecaster, _naive_forecasts(forecaster, series, origins, steps))
    with naming(series):
        transformed = forecaster.target_transform.apply(series) if isinstance(series, TimeSeries) else series
        forecasts = transformed_forecasts(forecaster, transformed, origins, steps)
        return forecasts_from_transformed(forecaster, forecasts, series.values[origins - 1, 0])


def centres_and_units(forecaster: "Forecaster", series: TimeSeries, origins: Rows, steps: int) -> tuple[Floats, Floats]:
    """What intervals are around ``(n, steps)``, as `TargetTransform` has it, and their units ``(n, 1)``."""
    _, centres, units = _centred_forecasts(forecaster, series, origins, steps)
    for number, known in before_later_rows(series, origins):
        _, own, unit = _centred_forecasts(forecaster, known, origins[number : number + 1], steps)
        centres[number], units[number] = own[0], unit[0]
    return centres, units


def _centred_forecasts(
    forecaster: "Forecaster", series: TimeSeries, origins: Rows, steps: int
) -> tuple[Floats, Floats, Floats]:
    """Forecasts ``(n, 1 + P, steps)`` without intervals, and the results of `centres_and_units`."""
    transform, last = forecaster.target_transform, series.values[origins - 1, 0]
    with naming(series):
        learned = transform.apply(series)
        units = window_units(forecaster, learned, origins)
        if forecaster.fallback is not None:
            forecasts = _naive_forecasts(forecaster, series, origins, steps)
            return forecasts, transform.to_centres(forecasts[:, 0]), units
        transformed = transformed_forecasts(forecaster, learned, origins, steps)
        forecasts = forecasts_from_transformed(forecaster, transformed, last)
    return forecasts, transform.centres_of(transformed, last), units


def window_units(forecaster: "Forecaster", series: TimeSeries, origins: Rows) -> Floats:
    """The units ``(n, 1)`` of the target after the windows before the origins, of a series that is transformed."""
    length, units = forecaster.input_length, np.empty((len(origins), 1))
    for some in _together(forecaster, len(origins), length):
        rows = origins[some, None] + np.arange(-length, 0)
        units[some] = forecaster.scaler.target_scales(series.values[rows, :1])[1]
    return units


def _with_intervals(forecaster: "Forecaster", forecasts: Floats, centres: Floats, units: Floats) -> Floats:
    """The forecasts ``(n, 1 + Q, steps)`` with the ends of the intervals, rising."""
    levels = forecaster.outputs.levels
    with np.errstate(over="ignore"):
        ends = forecaster.target_transform.from_centres(forecaster.intervals.around(centres, units, len(levels)))
    return np.concatenate([forecasts[:, :1], np.sort(np.concatenate([forecasts[:, 1:], ends], axis=1), axis=1)], axis=1)


def transformed_forecasts(forecaster: "Forecaster", series: AnySeries, origins: Rows, steps: int) -> Floats:
    """Forecasts of the network ``(n, 1 + Q, steps)``, of a series whose target is transformed, and so are they."""
    L = forecaster.input_length
    forecasts = np.empty((len(origins), 1 + len(forecaster.outputs.predicted), steps))
    if not len(origins):
        return forecasts
    layout, _ = _layout(forecaster, series, origins)
    with prediction_advice(L, forecaster.device), naming(series):
        for some in _together(forecaster, len(origins), L + steps):
            _write_forecasts(forecaster, series, layout, origins[some], forecasts[some])
    return forecasts


def forecasts_from_transformed(forecaster: "Forecaster", forecasts: Floats, last: Floats) -> Floats:
    """The forecasts ``(n, 1 + Q, steps)`` in the data's units and limits, where these are of the transformed target.

    `last (n,)` has the target's last value before each. Points that are means of the transformed target become means.
    """
    if not is_transformed(forecaster):
        return forecasts
    transform, outputs = forecaster.target_transform, forecaster.outputs
    with np.errstate(over="ignore", invalid="ignore"):
        found = transform.inverse(forecasts, last)
        if transform.kind in ("log", "sqrt") and forecaster.loss in MEAN_LOSSES:
            variance = transform.variance_at(forecasts.shape[2])
            if forecaster.loss == "gaussian":
                variance = outputs.deviation(forecasts) ** 2
            found = np.concatenate([transform.mean_from(forecasts[:, 0], variance)[:, None], found[:, 1:]], axis=1)
    for step in range(found.shape[2]):
        _check_predictions(found[:, :, step].reshape(-1), partial("step {}".format, step + 1), first=0)
    return _limited(forecaster, found)


def is_transformed(forecaster: "Forecaster") -> bool:
    """Whether forecasts of the network are yet to be transformed back, or limited."""
    limits = (forecaster.minimum, forecaster.maximum)
    return forecaster.target_transform.kind != "none" or limits != (None, None)


def _limited(forecaster: "Forecaster", forecasts: Floats) -> Floats:
    """The forecasts within the limits."""
    limits = forecaster.minimum, forecaster.maximum
    return forecasts if limits == (None, None) else np.clip(forecasts, *limits)


def _layout(forecaster: "Forecaster", series: AnySeries, origins: Rows) -> tuple[Layout | None, Floats]:
    """See `layout_of`; nothing of a series that was not learned from is known but the rows before the first origin."""
    if forecaster.units is None and isinstance(series, TimeSeries):
        return layout_of(None, forecaster.scaler, series)
    stops = series.offsets[1:].copy()
    np.minimum.at(stops, series_numbers(series, origins), origins)
    return layout_of(forecaster.units, forecaster.scaler, series, stops)


def forecast_each(forecaster: "Forecaster", series: Sequence[TimeSeries], steps: int) -> Floats:
    """Forecasts ``(n, steps)`` after the last row of each series."""
    if forecaster.fallback is not None or forecaster.units is not None or not series:  # more rows than a window count
        each = [forecast_origins(forecaster, one, np.array([len(one)]), steps)[0, 0] for one in series]
        return np.reshape(each, (len(series), steps))
    L = forecaster.window_length
    values, observed = (
        np.concatenate([rows[-L:] for rows in parts])
        for parts in ([one.values for one in series], [observed_values(one) for one in series])
    )
    joined = TimeSeries(values, forecaster.columns, observed=observed)
    return forecast_origins(forecaster, joined, L * np.arange(1, len(series) + 1), steps)[:, 0]


def chosen_baseline(forecaster: "Forecaster", series: AnySeries, origins: Rows | None = None) -> Baseline:
    """The forecast that the guard has chosen, for a series or a panel."""
    assert forecaster.fallback is not None
    seasons = forecaster.seasons
    if forecaster.units is None and isinstance(series, TimeSeries):
        return baselines_by_mean(forecaster.training_mean, seasons, seasons)[forecaster.fallback]
    _, means = _layout(forecaster, series, series.offsets[1:] if origins is None else origins)
    return panel_baselines(series.offsets, means, seasons)[forecaster.fallback]


def target_factors(forecaster: "Forecaster", series: AnySeries, origins: Rows | None = None) -> Floats | None:
    """What errors of each series are divided by, to be compared, ``(S,)``; None for one series."""
    layout, _ = _layout(forecaster, series, series.offsets[1:] if origins is None else origins)
    return None if layout is None else layout.factors[:, 0]


def _naive_forecasts(forecaster: "Forecaster", series: AnySeries, origins: Rows, steps: int) -> Floats:
    """The same as `forecast_origins` of the forecast that the guard has chosen, with its spread for quantiles."""
    outputs = forecaster.outputs
    points = chosen_baseline(forecaster, series, origins)(series.values[:, 0], origins, steps)
    if not outputs.predicted:
        return points[:, None]
    spread = np.array(forecaster.spread)[:, np.minimum(np.arange(steps), forecaster.horizon - 1)]  # (Q, steps)
    units = target_factors(forecaster, series, origins)
    if units is not None:
        spread = units[series_numbers(series, origins)][:, None, None] * spread
    quantiles = outputs.quantiles_around(points, spread)
    if forecaster.loss == "quantile":
        points = quantiles[:, outputs.point]
    return np.concatenate([points[:, None], quantiles], axis=1)


def _together(forecaster: "Forecaster", n: int, rows: int) -> Iterator[slice]:
    """Which of `n` windows to predict together, each with `rows` rows."""
    size = predicted_together(rows, forecaster.architecture().input_size)
    return (slice(first, first + size) for first in range(0, n, size))


def _write_forecasts(
    forecaster: "Forecaster", series: AnySeries, layout: Layout | None, origins: Rows, forecasts: Floats
) -> None:
    """Write the forecasts ``(n, 1 + Q, steps)`` from some origins."""
    L, h, steps = forecaster.input_length, forecaster.horizon, forecasts.shape[2]
    low, high = forecaster.target_transform.of_limits(forecaster.minimum, forecaster.maximum)
    scaler, before, there = forecaster.scaler, origins[:, None] + np.arange(-L, 0), None
    if layout is not None:
        may_pad = bool((origins - layout.firsts(origins) < L).any())
        before, scaler = layout.window_rows(origins - L, L, scaler, may_pad=may_pad)
        there = scaler.there
    # The known rows and the coming ones, whose further columns stay at their last value.
    values, observed = (
        np.concatenate([rows, np.repeat(rows[:, -1:], steps, axis=1)], axis=1)
        for rows in (series.values[before], observed_values(series)[before])
    )
    if there is not None:
        observed[:, :L] &= there
        there = np.concatenate([there, np.ones((len(origins), steps, 1), dtype=bool)], axis=1)
    observed[:, L:, 0] = True
    ops, known = forecaster.device.ops(), values[:, :L]
    for first in range(0, steps, h):
        window, is_known = values[:, first : first + L], observed[:, first : first + L]
        if there is not None:
            scaler = replace(scaler, there=there[:, first : first + L])
        inputs = network_inputs(window, is_known, scaler, forecaster.sees_gaps)
        predictions = _predict_windows(forecaster, inputs, window, ops, known, scaler)[:, :, : steps - first]
        for step in range(first, first + predictions.shape[2]):
            forecasts[:, :, step] = of_step = predictions[:, :, step - first]
            values[:, L + step, 0] = of_step[:, 0].clip(low, high)
            _check_predictions(of_step.reshape(-1), partial("step {}".format, step + 1), first=0)


def _predict_windows(
    forecaster: "Forecaster",
    inputs: Floats,
    windows: Floats,
    ops: Ops,
    known: Floats | None = None,
    scaler: Scaler | None = None,
) -> Floats:
    """Predictions ``(B, 1 + Q, h)`` in the data's units from the network's inputs for windows ``(B, T, F)``.

    The `known` rows are those before the first forecast; see `Outputs.forecasts`. The `scaler` is that of the windows,
    or the forecaster's.
    """
    scaled = network_outputs(forecaster, inputs, ops).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return forecaster.outputs.forecasts(scaled, windows, forecaster.scaler if scaler is None else scaler, known)


def network_outputs(forecaster: "Forecaster", inputs: Floats, ops: Ops) -> Floats:
    """Outputs of the network ``(B, O)``; where memory runs out, of half as many windows at a time."""
    try:
        return _predict_at_once(forecaster, inputs, ops)
    except Exception as error:
        if len(inputs) < 2 or not is_out_of_memory(error):
            raise
    with forecaster.device.use():  # here, where the error is gone, with all that its frames refer to
        ops.release()
    half = len(inputs) // 2
    return np.concatenate([network_outputs(forecaster, part, ops) for part in (inputs[:half], inputs[half:])])


def _predict_at_once(forecaster: "Forecaster", inputs: Floats, ops: Ops) -> Floats:
    with forecaster.device.use():
        x = to_device(inputs, forecaster.device, forecaster.dtype)
        return to_host(predict(forecaster.params, x, ops, training_config(forecaster).rates, reset=forecaster.reset))


def _check_predictions(predictions: Floats, where: Callable[[int], str], first: int) -> None:
    """See that forecasts can go on from them, and that errors can be squared."""
    wrong = ~(np.abs(predictions) <= WILDEST)
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(
            f"{where(first + at)}: the model predicts {predictions[at]:g}, which is no number up to {WILDEST:g}; give "
            "rows like those that it was trained on, or another model"
        )


def _called(series: TimeSeries, row: int) -> str:
    return printable(series.labels[row]) if series.labels else f"row {row + 1}"


def _inputs(series: TimeSeries, seq_length: int, scaler: Scaler, sees_gaps: bool, rows: slice = slice(None)) -> Floats:
    """What the network gets of a series' windows ``(B, T, I)``, or of some of them."""
    windows, observed = (make_windows(a, seq_length)[0][rows] for a in (series.values, observed_values(series)))
    return network_inputs(windows, observed, scaler, sees_gaps)


def network_inputs(windows: Floats, observed: Floats, scaler: Scaler, sees_gaps: bool) -> Floats:
    """What the network gets of windows ``(B, T, F)``, beside which values were there: ``(B, T, I)``."""
    scaled = scaler.scale_windows(windows)
    return np.concatenate([scaled, observed], axis=2) if sees_gaps else scaled
