"""The Forecaster: a GRU that learns a series, predicts its next values, and goes into a file."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import partial
from importlib import import_module
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gru_xp.devices import Device, check_tf32, device_for_caller, to_device, to_host
from gru_xp.errors import ArgumentError, DataError, NotFittedError, printable
from gru_xp.forecasting.choosing import LookBack
from gru_xp.forecasting.conformal import Intervals, shortage
from gru_xp.forecasting.data import (
    check_counts,
    check_limits,
    check_magnitude,
    coming_index,
    coming_rows,
    is_panel,
    naming,
    panel_to_continue,
    panel_to_learn,
    remembered_options,
    series_to_continue,
    series_to_learn,
    warn_of_notices,
    with_coming_index,
    with_index,
)
from gru_xp.forecasting.description import describe, join_parts, read_description
from gru_xp.forecasting.executors import Workers, check_workers
from gru_xp.forecasting.fitting import learn
from gru_xp.forecasting.guard import chosen_spread, judge
from gru_xp.forecasting.outputs import Outputs, column_suffix, rising_levels, rising_quantiles
from gru_xp.forecasting.panels import PanelSplit, SeriesUnits, head_of, split_panel
from gru_xp.forecasting.predicting import forecast_each, forecast_origins, predict_rows
from gru_xp.forecasting.scaling import Scaler
from gru_xp.forecasting.settings import MAX_STEPS, check_settings, planned_epochs, training_config
from gru_xp.forecasting.stages import Hooks, OnStage, Selection
from gru_xp.forecasting.transforms import TargetTransform
from gru_xp.forecasting.windows import Floats, Split, least_rows, rows_are, split_rows
from gru_xp.io.messages import option
from gru_xp.io.options import ReadOptions
from gru_xp.io.panel import Panel
from gru_xp.io.series import TimeSeries
from gru_xp.io.table import Rows
from gru_xp.nn.checks import check_function, shown, whole_number
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import Reset, map_arrays
from gru_xp.training.files import check_path
from gru_xp.training.memory import patch_size_of
from gru_xp.training.model_file import Architecture, load_model, save_model
from gru_xp.training.trainer import (
    EpochRecord,
    Pause,
    TrainingResult,
    TrainingState,
    check_hooks,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from gru_xp.forecasting.backtest import Backtest, OtherForecast
    from gru_xp.forecasting.explanation import Explanation


@dataclass(eq=False)  # two are equal if they are the same object
class Forecaster:
    """Predict the next value of a series from its last ones, with a GRU and a linear layer.

    Parameters
    ----------
    seq_length
        Window length: rows that each prediction is based on. ``"auto"`` chooses it; see `choose_look_back`.
    hidden_size
        Hidden units H of each GRU layer.
    num_layers
        Number of stacked GRU layers.
    bidirectional
        Whether to run each layer in both directions.
    dropout, recurrent_dropout, zoneout
        Dropout between layers, dropout of the candidate state, and zoneout of the state, during training; see
        `DropoutRates`.
    num_epochs
        Passes over the windows; ignored where `num_steps` is given, which replaces it. If both are None, 300 with
        `patience`; else as many updates as four passes take, but at least 150 and at most 400.
    learning_rate, optimizer, reduction, batch_size, clip_norm, patience, keep_every
        See `TrainingConfig`.
    beta1, beta2, weight_decay, schedule, warmup, num_steps, huber_delta
        See `TrainingConfig`.
    loss : {"mse", "mae", "huber", "quantile", "gaussian", "poisson"}
        What training minimises; see `TrainingConfig`. The last three forecast quantiles beside the point; see
        `forecast_distribution`. Targets of ``"poisson"`` are counts, at least 0.
    quantiles
        Levels to predict with ``loss="quantile"``, each above 0 and below 1; one number is one level. The one nearest
        to 0.5 is the point forecast; where there are lower and higher ones, 0.5 is added.
    validation_ratio
        Fraction of the rows, from the end, held out to select the best epoch; 0 for none.
    scaling : {"last", "standard", "window", "robust", "none"}
        Scale each window relative to its last row, by typical changes or, with ``window``, by its own deviation; or all
        by mean and standard deviation, or median and interquartile range, of the training rows; or not at all.
    reset : {"before", "after"}
        Whether the reset gate is applied before the recurrent matrix product or after it; see `gru_cell_forward`.
    dtype : {"float32", "float64"}
        Floating-point precision.
    seed
        Random seed of the initial parameters, the order of mini-batches, and dropout.
    horizon
        Steps ahead that are predicted at once, one output for each.
    patches
        Steps of the GRU: each window is cut into so many patches, and filled with zeros at its start where its length
        is no multiple of them; 0 for a step for each row, as for windows that are shorter.
    linear_skip
        Whether a linear layer from the window's target to the predictions is added to the GRU, whose own output layer
        begins as zeros then. It begins as a ridge regression; see `fit_ridge`.

    season : int, {"auto", "none"}
        Rows of a season, to begin the linear skip from and to choose the window length by. ``"auto"`` finds it; see
        `find_seasons`.
    model : {"gru", "ridge"}
        What to train. The ridge is the linear skip alone, in closed form.
    guard
        Whether to forecast like the best forecast without training where the model, trained without the last fifth of
        the training rows, is not 1 % better there. Points are judged by the mean absolute error, quantiles by the mean
        quantile loss, where those of a forecast without training are the quantiles of its errors in the rows before,
        less their median. A model that cannot be trained without those rows is not judged. Where they have fewer than
        100 windows, the points of the ridge that the model begins with are judged on five blocks of all training rows,
        each forecast by what is fitted to the other ones. It must be better than last value, mean and drift by 5 %, or
        by 30 % over the root of the number of horizons in the rows, if that is more; else the best one of these is
        forecast: the mean only where the last value errs 20 % more, the drift only where it errs 2 % less than the last
        value. Where a seasonal naive forecast is better than these, with further columns, ``loss="poisson"`` or without
        `linear_skip`, the model is kept.
    refit
        Whether to train again on all rows, validation rows included, for as many epochs as were best on those; for as
        many updates where `num_steps` or nothing limits the training. The learning rates are the same, up to there.
        Only with a `validation_ratio`.
    transform : {"none", "log", "sqrt", "diff", "auto"}
        What to learn instead of the target: its logarithm, its square root, or its change from row to row. Forecasts
        are transformed back, and errors measured in the data's units; a median stays a median, and a mean a mean, see
        `gru_xp.forecasting.transforms`. ``"auto"`` takes the logarithm or the square root if the variance grows with
        the level and that makes linear forecasts of the last training rows better; see `choose_transform`.
    minimum, maximum
        Limits of all forecasts, quantiles included; None for none. Training rows beyond them are refused.
    levels
        Of intervals, in percent, such as ``(80, 95)``; one number is one level. Those of ``loss="gaussian"`` and
        ``"poisson"`` are of the distribution. Those of other losses, but for levels whose quantiles are predicted, are
        as wide as errors of held-out training rows, see `gru_xp.forecasting.conformal`; this may take a second
        training, as for `guard`.

    Attributes
    ----------
    fallback : str or None
        The forecast without training that the guard or the caller of `fit` has chosen, such as ``"last value"``; None
        where the model forecasts.

    Raises
    ------
    ArgumentError
        A setting is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> series = np.sin(np.arange(200) / 5)
    >>> forecaster = Forecaster(hidden_size=8, num_epochs=20).fit(series, device="cpu")
    >>> forecaster.forecast(series, steps=3).shape
    (3,)
    """

    _: KW_ONLY
    seq_length: int | Literal["auto"] = "auto"
    hidden_size: int = 32
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout: float = 0.0
    num_epochs: int | None = None
    learning_rate: float = 0.003
    optimizer: str = "adamw"
    reduction: str | None = None
    batch_size: int | None = 64
    clip_norm: float | None = 1.0
    patience: int | None = None
    validation_ratio: float = 0.0
    scaling: str = "window"
    reset: Reset = "before"
    dtype: Literal["float32", "float64"] = "float32"
    seed: int = 0
    keep_every: int | None = None
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    schedule: str | None = None
    warmup: float | None = None
    horizon: int = 1
    patches: int = 8
    linear_skip: bool = True
    num_steps: int | None = None
    loss: str = "mae"
    huber_delta: float = 1.0
    quantiles: Sequence[float] | float = (0.1, 0.5, 0.9)
    season: int | Literal["auto", "none"] = "auto"
    model: Literal["gru", "ridge"] = "gru"
    guard: bool = True
    refit: bool = False
    transform: str = "none"
    minimum: float | None = None
    maximum: float | None = None
    levels: Sequence[float] | float = ()

    device: Device = field(init=False, repr=False)
    params: NetworkParams = field(init=False, repr=False)
    scaler: Scaler = field(init=False, repr=False)
    columns: tuple[str, ...] = field(init=False, repr=False)
    sees_gaps: bool = field(init=False, repr=False, default=False)
    look_back: LookBack = field(init=False, repr=False)
    seasons: tuple[int, ...] = field(init=False, repr=False, default=())
    fallback: str | None = field(init=False, repr=False, default=None)
    spread: tuple[tuple[float, ...], ...] = field(init=False, repr=False, default=())
    target_transform: TargetTransform = field(init=False, repr=False, default=TargetTransform())
    units: SeriesUnits | None = field(init=False, repr=False, default=None)
    intervals: Intervals = field(init=False, repr=False, default=Intervals())
    guard_ended: bool = field(init=False, repr=False, default=True)
    refit_ended: bool = field(init=False, repr=False, default=True)
    selection: Selection | None = field(init=False, repr=False, default=None)
    best_epoch: int = field(init=False, repr=False)
    training: TrainingResult | None = field(init=False, repr=False, default=None)
    notes: dict[str, Any] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        check_settings(self)

    def __getstate__(self) -> dict[str, Any]:
        """The attributes, with arrays of the host and the device by its name, for pickle and copy."""
        state = vars(self).copy()
        if "device" in state:
            state["device"] = (self.device.name, self.device.threads, self.device.tf32)
        if "params" in state:
            state["params"] = map_arrays(to_host, self.params)
        if self.training is not None:
            state["training"] = replace(self.training, params=map_arrays(to_host, self.training.params))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes over, on the device they were on, or on the CPU, with a warning, if it does not work."""
        vars(self).update(state)
        if "device" in state:
            name, threads, *tf32 = state["device"]  # older ones do not say
            self.device = device_for_caller(name, threads=threads, tf32=any(tf32))
            place = partial(to_device, device=self.device)
            if "params" in state:
                self.params = map_arrays(place, self.params)
            if self.training is not None:
                self.training = replace(self.training, params=map_arrays(place, self.training.params))

    @property
    def shortest_window(self) -> int:
        """The fewest rows that a prediction may be based on."""
        length = self.seq_length if isinstance(self.seq_length, int) else 1
        return length + (self.transform == "diff")

    @property
    def window_length(self) -> int:
        """Rows that each prediction is based on: `input_length`, and one more with ``transform="diff"``.

        Raises
        ------
        NotFittedError
            As for `input_length`.
        """
        return self.input_length + self.target_transform.lag

    @property
    def input_length(self) -> int:
        """Length of the windows that the network gets: `seq_length`, or what was chosen for it.

        Raises
        ------
        NotFittedError
            It is to be chosen, and there is nothing to choose it by yet.
        """
        if isinstance(self.seq_length, int):
            return self.seq_length
        self._check_fitted("look_back")
        return self.look_back.seq_length

    @property
    def training_mean(self) -> float:
        """Mean of the target's training rows, in the data's units."""
        return self.scaler.mean[0] if self.target_transform.kind == "none" else self.target_transform.mean

    @property
    def outputs(self) -> Outputs:
        """What the network predicts for each target."""
        return Outputs.of(self.loss, rising_quantiles(self.quantiles), rising_levels(self.levels))

    def settings(self) -> dict[str, Any]:
        """The settings, as the constructor takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    @property
    def counts_steps(self) -> bool:
        """Whether a number of updates, and not of epochs, limits the training."""
        return training_config(self).num_steps is not None

    def planned_epochs(self, windows: int) -> int:
        """Passes over so many windows of a training that nothing ends early."""
        return planned_epochs(training_config(self, windows), windows)

    def learning_rate_after(self, epochs: int) -> float:
        """The learning rate that follows so many epochs, of a training whose number of epochs is set."""
        config = training_config(self)
        assert config.num_epochs is not None
        return config.learning_rate_at(epochs, config.num_epochs)

    def fit(
        self,
        series: Any,
        *,
        target: str | None = None,
        features: Sequence[str] | str = (),
        device: str | Device = "auto",
        callback: Callable[[EpochRecord], object] | None = None,
        pause: Pause | None = None,
        state: TrainingState | None = None,
        on_stage: OnStage | None = None,
        fallback: str | None = None,
        **how: Any,
    ) -> "Forecaster":
        """Learn from a series, all of whose rows may be looked at.

        Where the series says which of its values were missing, windows before a missing target are left out, and the
        network gets an input more for each column: 1 where the value was there, 0 where the one before stands for it.
        Source: Lipton, Kale and Wetzel (2016), arXiv:1606.04130.

        Parameters
        ----------
        series : TimeSeries, pandas.DataFrame, pandas.Series or array
            An array, of NumPy, CuPy or PyTorch and on any device, is ``(N,)`` or ``(N, F)``, oldest first, with the
            target in column 0 and the features after it. The rows of a table are brought into chronological order as
            `read_series` does.
        target
            The column of a DataFrame to predict; if None, ``Close``, or else the only numeric column.
        features
            Further input columns of a DataFrame; ``"all"`` for every other numeric column.
        device
            A name for `resolve_device`, or its result.
        callback
            Called with an `EpochRecord` after every epoch; the training stops if the result is True. With `refit`, the
            epochs of the second training follow, from 0 again, unless the first one was stopped.
        pause
            Called after every batch; see `Pause`.
        state
            The state in which the training of this forecaster stopped, to resume from; see `Checkpoint`.
        on_stage
            Called with a `Stage` when the training begins, and before those of `refit` and `guard`. It may return
            `Hooks` to use in this stage instead of `callback` and `pause`, which the stage of `guard` has none of
            otherwise. A guard that is stopped decides nothing, and `guard_ended` is False.
        fallback
            The forecast without training to make instead of the model's, such as ``"last value"``, chosen in another
            way than by the guard, which must be off. With a `state`, it is that of the training before.
        **how
            How to read a DataFrame: ``time``, the columns that date the rows, and the other options of `read_series`.
            `predict` and `forecast` use the same ones.

        Returns
        -------
        Forecaster
            Itself, with the parameters of the best epoch, or of the last one of `refit`. Where `refit` was stopped,
            they are those that were best on the validation rows, and `refit_ended` is False.

        Raises
        ------
        ArgumentError
            A setting or an argument is out of range.
        DataError
            The data cannot be learned from.
        MemoryLimitError
            It takes more memory than is free.

        Warns
        -----
        DataWarning
            The rows were reversed or sorted, are not dated, have gaps or suspicious values. For a `TimeSeries`,
            `read_series` has warned.
        RuntimeWarning
            The training diverged, or intervals have too few held-out forecasts.
        """
        self.__post_init__()  # the attributes may have changed since
        check_hooks(callback, pause, state)
        check_function("on_stage", on_stage, optional=True)
        if fallback is not None and self.guard:
            raise ArgumentError(f"fallback is {shown(fallback)}, but the guard chooses it; use guard=False")
        given = series
        if is_panel(series, ReadOptions.from_dict(how)):
            series = panel_to_learn(series, target, features, how)
        else:
            series = series_to_learn(series, target, features, how)
        warn_of_notices(given, series, stacklevel=2)
        device = device if isinstance(device, Device) else device_for_caller(device)
        check_tf32(device, self.dtype)
        notes = self.notes
        if series is not given:
            notes = {name: note for name, note in notes.items() if name != "reading"}
            notes |= {"reading": ReadOptions(**how).to_dict()} if how else {}
        with naming(series):
            check_magnitude(series)
            if self.loss == "poisson":
                check_counts(series)
            check_limits(series, self.minimum, self.maximum)
            split: Split | PanelSplit
            if isinstance(series, Panel):
                if self.transform != "none":
                    raise ArgumentError(
                        f"{option('transform', self.transform)} is for one series; leave it out for several"
                    )
                if self.outputs.levels:
                    raise ArgumentError(
                        f"{option('levels')} is for one series; for several, use {option('loss', 'quantile')}"
                    )
                split = split_panel(series, 1.0, self.validation_ratio, self.horizon)
            else:
                split = split_rows(len(series), self.shortest_window, 1.0, self.validation_ratio, self.horizon)
            if state is not None:
                self._check_fitted("scaler")
            hooks = Hooks(callback, pause)
            training = learn(
                self,
                series,
                split,
                device=device,
                notes=notes,
                hooks=hooks,
                on_stage=on_stage,
                state=state,
                fallback=fallback,
            )
        if training.problem is not None:
            warnings.warn(training.problem, RuntimeWarning, stacklevel=2)
        if self.guard or self.outputs.levels:
            self.guard_ended = training.stop_reason != "paused"
            if self.guard_ended:
                judge(Forecaster, self, head_of(series, split.bounds("train")[1]), device, on_stage)
        self.spread = chosen_spread(self, series, split.bounds("train")[1])
        if (few := shortage(self)) is not None:
            warnings.warn(few, RuntimeWarning, stacklevel=2)
        return self

    def predict(self, series: Any) -> Any:
        """Predict every row that has a whole window before it, each from the actual rows before it, one step ahead.

        Of quantiles and distributions, these are the points; see `forecast`.

        Parameters
        ----------
        series
            As for `fit`, with the same columns.

        Returns
        -------
        array, shape ``(N - window_length,)``, or pandas.Series
            In the data's units; element `i` belongs to row ``i + window_length`` in chronological order. A pandas
            object gives a pandas.Series with those rows' index.

        Raises
        ------
        DataError
            The data have other columns, or too few rows, or values that are too far from those that were learned.
        MemoryLimitError
            It takes more memory than there is.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        checked = self._checked(series, self.window_length + 1)
        return with_index(series, checked, predict_rows(self, checked), self.window_length, self.columns[0])

    def forecast(self, series: Any, steps: int) -> Any:
        """Predict the values after the last row: `horizon` of them at once, the next ones from those, and so on.

        With ``loss="quantile"``, the values are those of the quantile nearest to 0.5; with ``"gaussian"`` the means,
        and with ``"poisson"`` the rates. `forecast_distribution` also has the quantiles.

        Further input columns, whose future is not known, stay at their last value.

        Parameters
        ----------
        series
            As for `fit`, with the same columns.
        steps
            How many values.

        Returns
        -------
        array, shape ``(steps,)``, or pandas.Series
            In the data's units. A pandas object and a `TimeSeries` with dates give a pandas.Series with the coming
            dates, at the usual spacing of the rows; a RangeIndex goes on.

        Raises
        ------
        DataError
            The data have other columns, or too few rows, or values that are too far from those that were learned.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        steps = whole_number("steps", steps, 1, MAX_STEPS)
        if is_panel(series, remembered_options(self.notes)):
            table = self.forecast_distribution(series, steps)
            return table.iloc[:, :3]
        checked = self._checked(series, self.window_length)
        forecast = forecast_origins(self, checked, np.array([len(checked)]), steps)[0, 0]
        return with_coming_index(series, checked, forecast, self.columns[0])

    def forecast_all(self, series: Mapping[Any, Any], steps: int) -> dict[Any, Any]:
        """Predict the values after the last row of each of several series, in one batch.

        Parameters
        ----------
        series
            Series by name, each as for `forecast`, such as stores of which all sell the same.
        steps
            How many values of each.

        Returns
        -------
        dict
            By name, what `forecast` returns.

        Raises
        ------
        ArgumentError
            The series are no mapping.
        DataError
            As for `forecast`, with the name of the series.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        steps = whole_number("steps", steps, 1, MAX_STEPS)
        if not isinstance(series, Mapping):
            raise ArgumentError(f"series is {shown(series)}; it must be a dict of series by name; see forecast for one")
        checked = {}
        for name, data in series.items():
            try:
                checked[name] = self._checked(data, self.window_length)
            except DataError as error:
                raise DataError(f"{printable(str(name))}: {error}") from error
        forecasts = forecast_each(self, list(checked.values()), steps)
        return {
            name: with_coming_index(series[name], checked[name], forecast, self.columns[0])
            for name, forecast in zip(checked, forecasts, strict=True)
        }

    def forecast_distribution(self, series: Any, steps: int) -> "pd.DataFrame":
        """Predict the values after the last row, and quantiles of them.

        Parameters
        ----------
        series, steps
            As for `forecast`.

        Returns
        -------
        pandas.DataFrame, shape ``(steps, 1 + Q)``
            In the data's units, with the coming dates, or numbers of rows, as the index. The first column, ``GRU``, is
            `forecast`. Those of quantiles follow, with the names that Nixtla's libraries use: ``GRU-lo-80`` and
            ``GRU-hi-80`` for the quantiles 0.1 and 0.9, between which 80 % are expected; ``GRU-median``. Models of
            ``"gaussian"`` and ``"poisson"`` have the median and intervals of `levels`, or else of 80 % and 95 %; those
            of other losses have intervals of `levels`.

        Raises
        ------
        DataError
            As for `forecast`.

        Warns
        -----
        DataWarning
            As for `fit`.

        Notes
        -----
        Quantiles never cross; see `Outputs.forecasts`. Steps beyond `horizon` are predicted as if the point forecasts
        before had come true, so that intervals do not become wider by their errors.
        """
        import pandas as pd

        steps = whole_number("steps", steps, 1, MAX_STEPS)
        if is_panel(series, remembered_options(self.notes)):
            panel = self._checked_panel(series)
            named = self.named_forecasts(forecast_origins(self, panel, panel.offsets[1:], steps))
            table: pd.DataFrame = coming_rows(panel, steps)
            return table.assign(**{name: values.ravel() for name, values in named.items()})
        checked = self._checked(series, self.window_length)
        named = self.named_forecasts(forecast_origins(self, checked, np.array([len(checked)]), steps))
        index = coming_index(series, checked, steps)
        if index is None:
            index = pd.RangeIndex(len(checked), len(checked) + steps)
        return pd.DataFrame({name: values[0] for name, values in named.items()}, index=index)

    def forecast_distributions(self, series: Any, origins: Sequence[int], steps: int) -> dict[str, Floats]:
        """Forecast from several origins at once, as `forecasts` does, with the quantiles.

        Parameters
        ----------
        series, origins, steps
            As for `forecasts`.

        Returns
        -------
        dict
            Arrays ``(n, steps)`` by the names of the columns of `forecast_distribution`.

        Raises
        ------
        ArgumentError, DataError, MemoryLimitError
            As for `forecasts`.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        steps, checked, numbers = self._checked_origins(series, origins, steps)
        return self.named_forecasts(forecast_origins(self, checked, numbers, steps))

    def named_forecasts(self, forecasts: Floats) -> dict[str, Floats]:
        """Forecasts ``(n, 1 + Q, steps)`` by name of the column."""
        from gru_xp.forecasting.backtest import MODELS, column_name

        name = column_name(MODELS[self.model])
        names = [name, *(f"{name}-{column_suffix(quantile)}" for quantile in self.outputs.quantiles)]
        return dict(zip(names, np.swapaxes(forecasts, 0, 1), strict=True))

    def forecasts(self, series: Any, origins: Sequence[int], steps: int) -> Floats:
        """Forecast from several origins at once, each time as if the rows from the origin on were not known yet.

        Parameters
        ----------
        series
            As for `fit`, with the same columns.
        origins : sequence of int, shape ``(n,)``
            The first row of each forecast, in chronological order: the rows before it are known, of which there must be
            `window_length` at least. The number of rows means the first row after the series.
        steps
            Number of values of each forecast.

        Returns
        -------
        array, shape ``(n, steps)``
            In the data's units.

        Raises
        ------
        ArgumentError
            An origin is out of range.
        DataError
            The data have other columns, or too few rows, or values that are too far from those that were learned.
        MemoryLimitError
            It takes more memory than there is; give fewer origins.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        steps, checked, numbers = self._checked_origins(series, origins, steps)
        return forecast_origins(self, checked, numbers, steps)[:, 0]

    def explain(self, series: Any, step: int | None = None, *, origin: int | None = None) -> "Explanation":
        """Attribute a forecast to the values of the window that it is based on, by integrated gradients.

        Parameters
        ----------
        series
            As for `fit`, with the same columns.
        step
            Which step ahead to explain, from 1 to `horizon`; if None, the mean of these forecasts.
        origin
            The first row of the forecast, as for `forecasts`; if None, the first row after the series.

        Returns
        -------
        Explanation
            Its attributes ``attributions``, ``forecast`` and ``baseline_forecast``, and ``to_frame()``.

        Raises
        ------
        ArgumentError
            A number is out of range, or the guard has chosen a forecast without training, which nothing was learned
            for.
        DataError, MemoryLimitError
            As for `forecasts`.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        from gru_xp.forecasting.explanation import explain

        if self.units is not None:
            raise ArgumentError("a model of several series cannot be explained yet; fit it to one series")
        if step is not None and whole_number("step", step, 1) > self.horizon:
            raise ArgumentError(
                f"step is {step}, but the model predicts {self.horizon} at once, and further ones from its own "
                f"predictions; to explain one, it must be at most {self.horizon}"
            )
        checked = self._checked(series, self.window_length)
        origin = len(checked) if origin is None else whole_number("origin", origin, self.window_length, len(checked))
        return explain(self, checked, origin, step)

    def evaluate(
        self,
        series: Any,
        steps: int | None = None,
        *,
        start: int | None = None,
        others: "Mapping[str, OtherForecast] | None" = None,
    ) -> "Backtest":
        """Measure forecasts of the rows of a series, beside a ridge regression and forecasts that need no training.

        Parameters
        ----------
        series
            As for `fit`, with the same columns.
        steps
            Steps ahead of each forecast; `horizon` if None. The next forecast begins after so many rows.
        start
            The first row to forecast, which is the number of rows that this forecaster was fitted to; the ridge is
            fitted to them, too, and their mean and season make the forecasts that need no training. If None, all rows
            are forecast, their own mean is taken, their own seasons count beside those of this forecaster unless
            `season` is given, and there is no ridge.
        others
            Other forecasts to compare with, by name, such as `statsforecast_model` gives; see `OtherForecast`.

        Returns
        -------
        Backtest
            Its attributes ``metrics`` and ``forecasts``, and ``to_frame()``.

        Raises
        ------
        ArgumentError
            An argument is out of range.
        DataError
            As for `forecast`, or there is no row to forecast.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        from gru_xp.forecasting.backtest import roll

        steps = self.horizon if steps is None else whole_number("steps", steps, 1, MAX_STEPS)
        checked = self._checked(series, self.window_length)
        first = self.window_length if start is None else whole_number("start", start, self.window_length, len(checked))
        learned = len(checked) if start is None else first
        with naming(checked):
            return roll(lambda _: self, checked, first, steps, learned=learned, others=others)

    def backtest(
        self,
        series: Any,
        steps: int | None = None,
        *,
        windows: int | None = None,
        stride: int | None = None,
        refit: int | str = "never",
        split_ratio: float = 0.7,
        others: "Mapping[str, OtherForecast] | None" = None,
        target: str | None = None,
        features: Sequence[str] | str = (),
        device: str | Device = "auto",
        workers: Workers = None,
        journal: str | os.PathLike[str] | None = None,
        **how: Any,
    ) -> "Backtest":
        """Measure how well forecasters with these settings forecast a series, from a rolling origin.

        A copy of this forecaster is fitted to the rows before the first window, and again as `refit` says; this one
        stays as it is. No forecast depends on rows after its origin.

        Parameters
        ----------
        series
            As for `fit`.
        steps
            Steps ahead of each forecast; `horizon` if None.
        windows
            Number of forecasts, the last ones; if None, all after the first `split_ratio` of the rows.
        stride
            Rows from one forecast to the next; `steps` if None.
        refit : {"never", "always"} or int
            Whether to fit again for every window, or for every N-th one.
        split_ratio
            Fraction of the rows, from the start, to fit to first, if `windows` is None.
        others
            Other forecasts to compare with, by name, such as `statsforecast_model` gives; see `OtherForecast`.
        target, features, device, **how
            As for `fit`.
        workers : int or concurrent.futures.Executor, optional
            Number of processes to fit in, or an executor, such as that of a dask client; one process, this one, if
            None. The result has the same bits. Where fits share a CUDA device, each process has a context there.
        journal
            A file to write what is done to after every fit, if there are several. A call that was stopped continues
            from it when made again. The file stays when all is done; delete it then.

        Returns
        -------
        Backtest
            Its attributes ``metrics`` and ``forecasts``, and ``to_frame()``.

        Raises
        ------
        ArgumentError
            An argument is out of range.
        CheckpointError
            The journal cannot be read or written, or is that of another call.
        DataError
            The data cannot be learned from, or there are too few rows.
        WorkerError
            A worker process was killed.

        Warns
        -----
        DataWarning, RuntimeWarning
            As for `fit`.
        """
        from gru_xp.forecasting.backtest import FitForecaster, check_refit, first_origin, roll

        steps = self.horizon if steps is None else whole_number("steps", steps, 1, MAX_STEPS)
        stride = steps if stride is None else whole_number("stride", stride, 1)
        windows = None if windows is None else whole_number("windows", windows, 1)
        refit_after = check_refit(refit)
        if not isinstance(split_ratio, Real) or not 0 < split_ratio < 1:
            raise ArgumentError(f"split_ratio is {shown(split_ratio)}; it must be above 0 and below 1")
        given = series
        series = series_to_learn(series, target, features, how)
        warn_of_notices(given, series, stacklevel=2)
        workers = check_workers(workers)
        chosen = device if isinstance(device, Device) else device_for_caller(device)
        least = least_rows(self.shortest_window, self.validation_ratio, self.horizon)
        with naming(series):
            first = first_origin(len(series), steps, stride, windows, float(split_ratio), least=least)
            return roll(
                FitForecaster(self.settings(), chosen),
                series,
                first,
                steps,
                windows=windows,
                stride=stride,
                refit=refit_after,
                learned=None if refit_after else first,
                others=others,
                workers=workers,
                journal=journal,
            )

    def plot(self, kind: str, series: Any = None, steps: int | None = None, *, start: int | None = None) -> "Figure":
        """Draw this forecaster's forecasts, or its training.

        Parameters
        ----------
        kind : {"forecast", "sequence", "error_by_step", "residual", "cost"}
            ``"forecast"`` draws the series and the forecast of the rows after it, with intervals if there are any.
            ``"sequence"`` draws actual values and predictions, of the last three seasons if there are more,
            ``"error_by_step"`` the mean absolute error of all forecasts by step ahead, and ``"residual"`` the errors
            over time, their distribution and their autocorrelation: those of `evaluate`. ``"cost"`` draws the loss over
            epochs, and that of the best forecast without training if the series is given.
        series
            As for `fit`, with the same columns; ``"cost"`` needs none.
        steps
            Of ``"forecast"``, the number of rows to forecast; by default a season, or 10 rows without one, and at least
            `horizon`; `horizon` where intervals are forecast. Of the others, steps ahead as for `evaluate`.
        start
            As for `evaluate`: number of rows that this forecaster was fitted to, if the series goes on after them.

        Returns
        -------
        matplotlib.figure.Figure
            It belongs to no pyplot session: ``figure.savefig(path)`` writes it, and notebooks show it.

        Raises
        ------
        ArgumentError
            There is no such kind; it needs a series, or a training history, which model files do not hold; or another
            argument is out of range.
        DataError
            As for `evaluate`.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        from gru_xp import PLOTS

        self._check_fitted()
        figure: Figure = import_module(PLOTS).plot_forecaster(self, kind, series, steps, start=start)
        return figure

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, which `load` reads on any device.

        Parameters
        ----------
        path
            The file; one that exists is replaced.

        Raises
        ------
        ArgumentError
            The path is neither a string nor an os.PathLike.
        CheckpointError
            The file cannot be written.
        """
        check_path(path)
        self._check_fitted()
        save_model(path, self.params, self.describe())

    def describe(self) -> dict[str, Any]:
        """All about the model but its parameters, as JSON can hold it; see `from_parts`.

        Raises
        ------
        NotFittedError
            It has not begun to learn.
        """
        self._check_fitted("scaler")
        return describe(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | Device = "auto") -> "Forecaster":
        """Read a model that `save` wrote, onto any device.

        Parameters
        ----------
        path
            The file.
        device
            A name for `resolve_device`, or its result.

        Returns
        -------
        Forecaster

        Raises
        ------
        ArgumentError
            The path is neither a string nor an os.PathLike.
        CheckpointError
            The file is no such model.
        """
        check_path(path)
        device = device if isinstance(device, Device) else device_for_caller(device)
        params, description = load_model(path, device, lambda described: cls.from_description(described).architecture())
        return cls.from_parts(params, description, device)

    @classmethod
    def from_parts(cls, params: NetworkParams, description: dict[str, Any], device: Device) -> "Forecaster":
        """A model of parameters on `device` and of what `describe` gave.

        Raises
        ------
        CheckpointError
            The description is damaged, or it is that of other parameters.
        """
        return join_parts(cls, params, description, device)

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "Forecaster":
        """One without parameters, of what `describe` gave; an error of `DAMAGED` if that is damaged."""
        return read_description(cls, description)

    def architecture(self) -> Architecture:
        """What the sizes of the parameters follow from, once the columns are known."""
        input_size = len(self.columns) * (2 if self.sees_gaps else 1)
        return Architecture(
            input_size,
            self.hidden_size,
            self.horizon * self.outputs.per_target,
            self.num_layers,
            bool(self.bidirectional),
            self.dtype,
            self.reset,
            patch_size_of(self.input_length, self.patches),
            self.input_length if self.linear_skip else None,
        )

    def _checked_panel(self, series: Any, stacklevel: int = 3) -> Panel:
        """Several series; warnings name the caller of the method that calls this one."""
        self._check_fitted()
        panel = panel_to_continue(series, self.columns, remembered_options(self.notes))
        with naming(panel):
            check_magnitude(panel)
        warn_of_notices(series, panel, stacklevel=stacklevel)
        return panel

    def _checked(self, series: Any, rows: int, stacklevel: int = 3) -> TimeSeries:
        """The series with enough rows; warnings name the caller of the method that calls this one."""
        self._check_fitted()
        if self.units is not None:  # windows of several series may be padded
            rows -= self.window_length - 1
        with naming(series):
            checked = series_to_continue(series, self.columns, remembered_options(self.notes))
            check_magnitude(checked)
            if len(checked) < rows:
                raise DataError(
                    f"{rows_are(len(checked))} too few: the model looks back on {self.window_length}; "
                    f"at least {rows} are needed"
                )
        warn_of_notices(series, checked, stacklevel=stacklevel)
        return checked

    def _checked_origins(self, series: Any, origins: Sequence[int], steps: int) -> tuple[int, TimeSeries, Rows]:
        """The arguments of `forecasts`, in order of use; warnings name the caller of the method that calls this one."""
        steps = whole_number("steps", steps, 1, MAX_STEPS)
        checked = self._checked(series, self.window_length, stacklevel=4)
        numbers = [whole_number("origin", origin, self.window_length, len(checked)) for origin in origins]
        return steps, checked, np.array(numbers, dtype=np.int64)

    def _check_fitted(self, attribute: str = "params") -> None:
        if not hasattr(self, attribute):
            raise NotFittedError("this Forecaster is not fitted; call fit() first, or Forecaster.load")
