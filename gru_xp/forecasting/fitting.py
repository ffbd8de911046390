"""Fitting: the trainings of a forecaster, from a series to the parameters of its network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gru_xp.devices import Device, to_device
from gru_xp.devices.short_memory import SMALL_WORKSPACE, with_less_memory
from gru_xp.errors import ArgumentError, DataError
from gru_xp.forecasting.baselines import baseline_names
from gru_xp.forecasting.choosing import held_out_from, judged_origins
from gru_xp.forecasting.choosing_transform import choose_transform
from gru_xp.forecasting.conformal import Intervals
from gru_xp.forecasting.data import known_until
from gru_xp.forecasting.guard import check_scores
from gru_xp.forecasting.outputs import start_of_skip
from gru_xp.forecasting.panels import AnySeries, PanelSplit, fit_scaler, layout_of, least_ages, series_numbers
from gru_xp.forecasting.predicting import transformed_forecasts
from gru_xp.forecasting.recipe import known_origins, settle_look_back
from gru_xp.forecasting.ridge import naive_weight
from gru_xp.forecasting.scaling import Scaler
from gru_xp.forecasting.settings import planned_epochs, training_config
from gru_xp.forecasting.stages import Hooks, OnStage, Selection, Stage
from gru_xp.forecasting.transforms import MOST_VARIANCE, TargetTransform
from gru_xp.forecasting.windows import Layout, Split, WindowSequences
from gru_xp.io.series import TimeSeries
from gru_xp.io.table import Rows
from gru_xp.nn.checks import shown
from gru_xp.nn.network import NetworkParams, init_network_params
from gru_xp.nn.params import LinearParams, unflatten
from gru_xp.training.memory import TrainingShapes, check_memory, memory_advice
from gru_xp.training.trainer import TrainingConfig, TrainingResult, TrainingState, train

if TYPE_CHECKING:
    from gru_xp.forecasting.forecaster import Forecaster

_ENDS = ("num_epochs", "num_steps", "patience")
"""Why a training stops that was not stopped from outside, and went well."""


def initial_params(forecaster: "Forecaster") -> NetworkParams:
    """The parameters that the training of a forecaster begins with, but for its linear skip."""
    architecture, xp = forecaster.architecture(), forecaster.device.xp
    with forecaster.device.use():
        return init_network_params(
            architecture.input_size,
            forecaster.hidden_size,
            architecture.output_size,
            num_layers=forecaster.num_layers,
            bidirectional=forecaster.bidirectional,
            reset=forecaster.reset,
            patch_size=architecture.patch_size,
            skip_length=architecture.skip_length,
            zero_head=bool(forecaster.linear_skip),
            xp=xp,
            seed=forecaster.seed,
            dtype=getattr(xp, forecaster.dtype),
        )


def learn(
    forecaster: "Forecaster",
    series: AnySeries,
    split: Split | PanelSplit,
    *,
    device: Device,
    notes: dict[str, Any],
    hooks: Hooks,
    on_stage: OnStage | None,
    state: TrainingState | None,
    fallback: str | None = None,
) -> TrainingResult:
    """Train a forecaster on the training part of the split, and again on all rows where `refit` asks for it.

    Parameters
    ----------
    forecaster
        It gets what is learned. Where that is refused before a training begins, it stays as it was.
    series, split
        All rows, of one series or several, and which of them are for training and validation.
    device
        To train on.
    notes
        Of the forecaster, from now on.
    hooks, on_stage, state, fallback
        See `Forecaster.fit`. With a state, the forecaster has its scaler.

    Returns
    -------
    TrainingResult
        Of the last stage.
    """
    known = known_until(series, split.train_end) if isinstance(series, TimeSeries) else series
    with _keeping_choices(forecaster):
        if state is None:
            forecaster.selection = None
            if isinstance(known, TimeSeries):
                notes = _settle_transform(forecaster, known.head(split.train_end), notes, device)
                forecaster.notes = notes
        original, transform = series, forecaster.target_transform
        if isinstance(series, TimeSeries) and isinstance(known, TimeSeries):
            transform.check_changes(known.head(split.train_end))
            known, series = transform.apply(known), transform.apply(series)
        if state is None:
            _, train_ends = split.bounds("train")
            scaler = _fit_scaler(forecaster, known, split)
            layout, _ = layout_of(forecaster.units, scaler, series)
            forecaster.look_back, forecaster.seasons = settle_look_back(
                known,
                train_ends,
                scaler,
                forecaster.seq_length,
                forecaster.season,
                forecaster.horizon,
                bool(forecaster.linear_skip),
                layout,
            )
            check_fallback(fallback, forecaster.seasons)
        else:
            scaler = forecaster.scaler
            fallback = None if forecaster.guard else forecaster.fallback
        if isinstance(known, TimeSeries):
            check_scores(forecaster, known.head(split.train_end))
        forecaster.fallback, forecaster.spread, forecaster.guard_ended = fallback, (), True
        forecaster.intervals = Intervals()
        forecaster.refit_ended = True
        stage = partial(_train, forecaster, device=device, notes=notes, hooks=hooks, on_stage=on_stage)
        selection = forecaster.selection
        config = training_config(forecaster, _training_shapes(forecaster, series, split).n_train)
        if selection is None:
            training = stage(known, split, scaler, config, state=state)
            state = None
            if forecaster.refit and training.stop_reason in _ENDS:
                selection = Selection.of(training)
        if selection is not None:
            whole = split.without_parts()
            counts = (_starts(forecaster, series, each, "train").size for each in (split, whole))
            scaler = _fit_scaler(forecaster, series, whole)
            forecaster.target_transform = transform.fitted(original.values[:, 0])
            training = stage(series, whole, scaler, selection.again(config, *counts), state=state, selection=selection)
            if training.stop_reason in ("paused", "callback"):
                _take_selected(forecaster, known, split, selection)
                forecaster.target_transform = transform
        if isinstance(series, TimeSeries):
            _settle_variance(forecaster, series, split.train_end)
    return training


def _settle_transform(
    forecaster: "Forecaster", series: TimeSeries, notes: dict[str, Any], device: Device
) -> dict[str, Any]:
    """Let the forecaster have the transform of its training rows, and note which was chosen, if it is to be."""
    kind = forecaster.transform
    notes = {name: note for name, note in notes.items() if name != "transform"}
    if kind == "auto":
        choice = choose_transform(type(forecaster), forecaster, series, device)
        kind, notes = choice.name, notes | {"transform": asdict(choice)}
    forecaster.target_transform = TargetTransform(kind).fitted(series.values[:, 0])
    return notes


def _settle_variance(forecaster: "Forecaster", series: TimeSeries, rows: int) -> None:
    """Let the forecaster know the variance of its errors in the last fifth of the first rows, where that is needed."""
    transform, horizon = forecaster.target_transform, forecaster.horizon
    if forecaster.loss != "mse" or transform.kind not in ("log", "sqrt"):
        return
    origins = known_origins(series, rows, horizon)
    origins = origins[origins >= forecaster.window_length]
    last = origins[origins >= held_out_from(rows)]
    origins = judged_origins(last if len(last) else origins)
    forecasts = transformed_forecasts(forecaster, series, origins, horizon)[:, 0]
    errors = series.values[origins[:, None] + np.arange(horizon), 0] - forecasts
    variance = np.minimum(np.mean(errors**2, axis=0), MOST_VARIANCE)
    forecaster.target_transform = replace(transform, variance=tuple(variance.tolist()))


def check_fallback(fallback: str | None, seasons: Sequence[int]) -> None:
    """See that a forecast without training can be made with these seasons; ArgumentError if not."""
    names = baseline_names(seasons)
    if fallback not in (None, *names):
        raise ArgumentError(f"fallback is {shown(fallback)}; it must be None or one of {', '.join(map(repr, names))}")


@contextmanager
def _keeping_choices(forecaster: "Forecaster") -> Iterator[None]:
    """What the parameters go with is as before, where a fit is refused that has left them there."""
    chosen = {"look_back", "seasons", "fallback", "spread", "guard_ended", "refit_ended", "selection"}
    chosen |= {"target_transform", "notes", "units", "intervals"}
    before = {name: value for name, value in vars(forecaster).items() if name in chosen}
    try:
        yield
    except BaseException:
        if "params" in vars(forecaster):
            vars(forecaster).update(before)
        raise


def _fit_scaler(forecaster: "Forecaster", series: AnySeries, split: Split | PanelSplit) -> Scaler:
    """The scaler of a training on the training part of a split, whose target is transformed.

    The forecaster gets the units of several series that go with it.
    """
    lag = forecaster.target_transform.lag
    scaler, forecaster.units = fit_scaler(forecaster.scaling, series, split.bounds("train")[1], lag)
    return forecaster.outputs.for_targets(scaler)


def _take_selected(
    forecaster: "Forecaster", series: AnySeries, split: Split | PanelSplit, selection: Selection
) -> None:
    """Go back to the parameters that were best on the validation rows, and the scaler that they go with."""
    forecaster.scaler = _fit_scaler(forecaster, series, split)
    with forecaster.device.use():
        forecaster.params = unflatten(to_device(selection.theta, forecaster.device), forecaster.params)
    forecaster.best_epoch, forecaster.refit_ended = selection.best_epoch, False


def _train(
    forecaster: "Forecaster",
    series: AnySeries,
    split: Split | PanelSplit,
    scaler: Scaler,
    config: TrainingConfig,
    *,
    device: Device,
    notes: dict[str, Any],
    hooks: Hooks,
    on_stage: OnStage | None,
    state: TrainingState | None,
    selection: Selection | None = None,
) -> TrainingResult:
    """One stage: train on the training part of the split, from the start or from a state."""
    shapes = _training_shapes(forecaster, series, split)
    check_memory(shapes, config, device)
    with memory_advice(shapes, config, device):
        gather = partial(_both_sequences, forecaster, series, split, scaler, device)
        learned, validation = with_less_memory(gather, device, SMALL_WORKSPACE)
        if on_stage is not None:
            name: Literal["training", "refit"] = "training" if selection is None else "refit"
            epochs, steps = planned_epochs(config, learned.n), config.steps(learned.n)
            hooks = on_stage(Stage(name, epochs, steps, split.train_end)) or hooks
        vars(forecaster).pop("params", None)  # they would not go with what follows
        forecaster.device, forecaster.columns = device, series.columns
        forecaster.scaler, forecaster.notes = scaler, notes
        forecaster.sees_gaps, forecaster.best_epoch, forecaster.selection = series.observed is not None, 0, selection
        begin = partial(_start, forecaster, series, split, scaler, learned.mean_unit)
        training = train(
            with_less_memory(begin, device, SMALL_WORKSPACE),
            learned,
            config=config,
            device=device,
            validation=validation,
            callback=hooks.callback,
            pause=hooks.pause,
            state=state,
        )
    forecaster.training, forecaster.params, forecaster.best_epoch = training, training.params, training.best_epoch
    return training


def _start(
    forecaster: "Forecaster", series: AnySeries, split: Split | PanelSplit, scaler: Scaler, mean_unit: float
) -> NetworkParams:
    """The initial parameters, with those of the skip, if there is one."""
    start = initial_params(forecaster)
    if forecaster.linear_skip:
        start = start._replace(skip=_ridge(forecaster, series, split, scaler, mean_unit))
    return start


def _both_sequences(
    forecaster: "Forecaster", series: AnySeries, split: Split | PanelSplit, scaler: Scaler, device: Device
) -> tuple[WindowSequences, WindowSequences | None]:
    """Those of the training part, and of the validation part, if there is one."""
    learned = _sequences(forecaster, series, "train", split, scaler, device)
    firsts, stops = split.bounds("validation")
    if not (stops > firsts).any():
        return learned, None
    return learned, _sequences(forecaster, series, "validation", split, scaler, device, learned.mean_unit)


def _sequences(
    forecaster: "Forecaster",
    series: AnySeries,
    part: str,
    split: Split | PanelSplit,
    scaler: Scaler,
    device: Device,
    mean_unit: float | None = None,
) -> WindowSequences:
    """What the network gets and is to predict in a part of the series."""
    starts = _starts(forecaster, series, split, part)
    ahead = f" of {forecaster.horizon} steps" if forecaster.horizon > 1 else ""
    if series.observed is not None and not len(starts):
        raise DataError(f"every target{ahead} of the {part} part is missing; treat them otherwise than by mask")
    if not len(starts):
        raise DataError(f"no series has a window{ahead} in the {part} part; give longer series")
    layout, _ = layout_of(forecaster.units, scaler, series)
    with device.use():
        return WindowSequences(
            to_device(series.values, device, "float64"),
            to_device(starts, device, "int64"),
            forecaster.input_length,
            forecaster.horizon,
            scaler,
            observed=None if series.observed is None else to_device(series.observed, device, "float64"),
            dtype=getattr(device.xp, forecaster.dtype),
            mean_unit=mean_unit,
            layout=None
            if layout is None
            else Layout(to_device(layout.offsets, device, "int64"), to_device(layout.factors, device, "float64")),
        )


def _starts(forecaster: "Forecaster", series: AnySeries, split: Split | PanelSplit, part: str) -> Rows:
    """The first rows of the windows whose targets are in a part, and there; of padded ones, before their series."""
    h = forecaster.horizon
    firsts, stops = split.bounds(part)
    origins = known_origins(series, stops, h)
    numbers = series_numbers(series, origins)
    least = np.array([forecaster.window_length])
    if not isinstance(series, TimeSeries):
        least = least_ages(split.bounds("train")[1] - series.offsets[:-1], forecaster.window_length, h)
    least = series.offsets[:-1] + least
    starts: Rows = origins[origins >= np.maximum(firsts, least)[numbers]] - forecaster.input_length
    return starts


def _ridge(
    forecaster: "Forecaster", series: AnySeries, split: Split | PanelSplit, scaler: Scaler, mean_unit: float
) -> LinearParams:
    """The linear skip to begin with."""
    L, h = forecaster.input_length, forecaster.horizon
    starts = _starts(forecaster, series, split, "train")
    layout, _ = layout_of(forecaster.units, scaler, series)
    windows = WindowSequences(series.values, starts, L, h, scaler, mean_unit=mean_unit, layout=layout)
    start = naive_weight(L, h, forecaster.look_back.season)
    weight, bias = start_of_skip(forecaster.outputs, windows, start, forecaster.look_back.penalty)
    place = partial(to_device, device=forecaster.device, dtype=forecaster.dtype)
    return LinearParams(place(weight), place(bias))


def _training_shapes(forecaster: "Forecaster", series: AnySeries, split: Split | PanelSplit) -> TrainingShapes:
    if isinstance(split, Split):
        slices = (split.targets(name, forecaster.window_length, forecaster.horizon) for name in ("train", "validation"))
        learned, validation = (part.stop - part.start for part in slices)
    else:
        learned, validation = (_starts(forecaster, series, split, name).size for name in ("train", "validation"))
    return TrainingShapes(
        learned,
        validation,
        forecaster.input_length,
        len(series.columns) * (1 if series.observed is None else 2),
        forecaster.hidden_size,
        forecaster.horizon * forecaster.outputs.per_target,
        forecaster.num_layers,
        bool(forecaster.bidirectional),
        forecaster.reset,
        forecaster.dtype,
        forecaster.patches,
        bool(forecaster.linear_skip),
        gathers=True,
        gathers_to_fit=forecaster.linear_skip and (series.observed is not None or forecaster.loss == "poisson"),
        is_followed=bool(forecaster.guard),
    )
