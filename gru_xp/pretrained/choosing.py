"""The AutoForecaster: the best of forecasts without training, a ridge, a GRU and the pretrained network, by errors."""

import copy
import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gru_xp.devices import Device, device_for_caller
from gru_xp.errors import ArgumentError, DataError, NotFittedError
from gru_xp.forecasting.backtest import (
    AUTO,
    MODELS,
    RIDGE,
    SPLIT_RATIO,
    ZERO_SHOT,
    Backtest,
    Measured,
    OtherForecast,
    check_refit,
    column_name,
    first_origin,
    roll,
)
from gru_xp.forecasting.baselines import baselines, needs_no_training
from gru_xp.forecasting.choosing import held_out_from, judged_origins
from gru_xp.forecasting.data import (
    coming_index,
    known_until,
    naming,
    series_to_continue,
    series_to_learn,
    warn_of_notices,
    with_coming_index,
)
from gru_xp.forecasting.executors import Workers, check_workers, run_tasks
from gru_xp.forecasting.folds import device_facts
from gru_xp.forecasting.forecaster import Forecaster
from gru_xp.forecasting.guard import MIN_GAIN, MIN_GUARDED, best_of_few, gain_of_few, rehearsal_settings
from gru_xp.forecasting.outputs import Outputs
from gru_xp.forecasting.recipe import known_origins
from gru_xp.forecasting.settings import MAX_STEPS
from gru_xp.forecasting.stages import Hooks, OnStage, Stage
from gru_xp.forecasting.windows import Floats, least_rows, rows_are
from gru_xp.io.options import ReadOptions
from gru_xp.io.series import TimeSeries
from gru_xp.nn.checks import check_function, shown, whole_number
from gru_xp.nn.params import arrays_of
from gru_xp.pretrained.features import CONTEXT
from gru_xp.pretrained.forecaster import ZeroShotForecaster
from gru_xp.pretrained.predicting import MIN_VALUES
from gru_xp.pretrained.weights import Weights, default_weights, has_default_weights, load_weights

if TYPE_CHECKING:
    import pandas as pd

GRU = MODELS["gru"]

_DECIDED = ("model", "guard")


@dataclass(frozen=True)
class Choice:
    """Which forecast is the best one, by errors in the last training rows.

    Attributes
    ----------
    name
        Of the forecast that is chosen: ``"GRU"``, ``"ridge"``, ``"zero-shot"``, or one of the names of `baselines`.
    errors
        Mean absolute errors by name of the forecast; empty where there are too few rows to measure any.
    windows
        Number of forecasts of each kind that were measured.
    rows
        Number of training rows, from their end, that were forecast.
    needed_gain
        By which share the error of the ridge or the GRU must be below that of the best forecast without training.
    """

    name: str
    errors: Mapping[str, float]
    windows: int
    rows: int
    needed_gain: float

    @classmethod
    def by_errors(cls, errors: Mapping[str, float], windows: int, rows: int, horizon: int) -> "Choice":
        """The forecast that is chosen by these errors; see `AutoForecaster`."""
        naive = {name: error for name, error in errors.items() if needs_no_training(name)}
        is_few = windows < MIN_GUARDED
        best = best_of_few(naive) if is_few else min(naive, key=naive.__getitem__)
        needed = gain_of_few(windows, horizon) if is_few else MIN_GAIN
        gains = {RIDGE: needed, ZERO_SHOT: MIN_GAIN, GRU: needed}
        better = [name for name in gains if name in errors and _is_below(errors[name], naive[best], gains[name])]
        least = min((errors[name] for name in better), default=0.0)
        name = next((name for name in better if not _is_below(least, errors[name], MIN_GAIN)), best)
        return cls(name, errors, windows, rows, needed)

    @property
    def best_naive(self) -> str | None:
        """The forecast without training that has the smallest error."""
        naive = [name for name in self.errors if needs_no_training(name)]
        return min(naive, key=self.errors.__getitem__, default=None)

    @property
    def reason(self) -> str:
        """Which forecast is chosen and why, in one sentence with the errors."""
        if not self.errors:
            return f"{self.name} is chosen: the training rows are too few to compare forecasts"
        named = [name for name in self.errors if not needs_no_training(name) or name in (self.best_naive, self.name)]
        found = ", ".join(f"{name} {self.errors[name]:.4g}" for name in sorted(named, key=self.errors.__getitem__))
        windows = "1 forecast" if self.windows == 1 else f"{self.windows} forecasts"
        said = f"{self.name} is chosen by mean absolute errors in {windows} of the last {self.rows} training rows: "
        return said + found + self._why(min(named, key=self.errors.__getitem__))

    def _why(self, least: str) -> str:
        """Why the forecast that has the smallest error is not chosen; empty if it is."""
        if least == self.name:
            return ""
        if not _is_below(self.errors[least], self.errors[self.name], MIN_GAIN):
            return f"; another must be {MIN_GAIN:.0%} better"
        if needs_no_training(least):
            return f"; in so few forecasts, {least} must be better than last value by more"
        return f"; in so few forecasts, {least} must be {self.needed_gain:.0%} better than those without training"

    def without_zero_shot(self, horizon: int) -> "Choice":
        """The choice of the other forecasts."""
        errors = {name: error for name, error in self.errors.items() if name != ZERO_SHOT}
        if not errors:
            return replace(self, name="last value") if self.name == ZERO_SHOT else self
        return self.by_errors(errors, self.windows, self.rows, horizon)


class AutoForecaster:
    """Forecast a series with the best of four: a forecast without training, a ridge, a GRU, and the pretrained network.

    They forecast the last fifth of the training rows, at most from 400 origins; the ridge and the GRU are fitted to the
    rows before. Where these are fewer than 100 forecasts, up to a half of the rows is forecast. The mean absolute error
    of a forecast must be 1 % below that of the best forecast without training. In fewer than 100 forecasts, that of the
    ridge and the GRU must be as far below as the guard of `Forecaster` demands of few rows; the pretrained network has
    nothing fitted to them. Of forecasts that are, the smallest error decides, or the first of ridge, network and GRU
    whose error is less than 1 % above it. What is chosen is fitted to all rows.
    Where there are too few rows for one forecast, the pretrained network is chosen, or without it, the last value.

    Parameters
    ----------
    horizon
        Steps ahead by which forecasts are compared, and which the ridge and the GRU predict at once.
    season
        Rows of a season; see `Forecaster`.
    weights
        Of the pretrained network; see `ZeroShotForecaster`. If None, those of the package, without which the network
        is not compared; nor is it with a season of 512 rows or more.
    **settings
        Other settings of `Forecaster`. Those of a training are for the GRU alone; `model` and `guard` are decided here,
        `linear_skip` must be True, and the loss one of points.

    Attributes
    ----------
    choice : str
        The name of the forecast that is chosen: ``"GRU"``, ``"ridge"``, ``"zero-shot"``, or, such as ``"last value"``,
        that of a forecast without training.
    errors : dict
        Mean absolute errors in the last training rows, by name; empty where there are too few rows.
    reason : str
        Which forecast is chosen and why, in one sentence.
    chosen : Forecaster or ZeroShotForecaster
        What forecasts. For a forecast without training, a ridge that makes it as its `fallback`.

    Raises
    ------
    ArgumentError
        A setting is out of range, or is not for this class.
    CheckpointError
        The weights cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> series = np.sin(np.arange(300) / 5)
    >>> forecaster = AutoForecaster(hidden_size=4, num_steps=20).fit(series, device="cpu")
    >>> forecaster.forecast(series, steps=3).shape
    (3,)
    >>> sorted({"ridge", "GRU", "last value"} - set(forecaster.errors))
    []
    """

    def __init__(
        self,
        *,
        horizon: int = 1,
        season: int | Literal["auto", "none"] = "auto",
        weights: str | os.PathLike[str] | Weights | None = None,
        **settings: Any,
    ) -> None:
        for name in _DECIDED:
            if name in settings:
                raise ArgumentError(f"{name} is decided by an AutoForecaster; leave it out, or use a Forecaster")
        self._gru = Forecaster(horizon=horizon, season=season, guard=False, **settings)
        check_is_choice(self._gru)
        self.horizon, self.season = self._gru.horizon, self._gru.season
        self._weights = weights if weights is None or isinstance(weights, Weights) else load_weights(weights)

    def __repr__(self) -> str:
        found = f", choice={self.choice!r}" if hasattr(self, "_choice") else ""
        return f"AutoForecaster(horizon={self.horizon!r}, season={self.season!r}{found})"

    @property
    def choice(self) -> str:
        """The name of the forecast that is chosen."""
        return self._fitted().name

    @property
    def errors(self) -> dict[str, float]:
        """Mean absolute errors in the last training rows, by name."""
        return dict(self._fitted().errors)

    @property
    def reason(self) -> str:
        """Which forecast is chosen and why, in one sentence."""
        return self._fitted().reason

    @property
    def chosen(self) -> Forecaster | ZeroShotForecaster:
        """What forecasts."""
        self._fitted()
        return self._chosen

    @property
    def least(self) -> int:
        """The fewest rows to fit to."""
        return least_rows(self._gru.shortest_window, self._gru.validation_ratio, self.horizon)

    def fit(
        self,
        series: Any,
        *,
        target: str | None = None,
        features: Sequence[str] | str = (),
        device: str | Device = "auto",
        on_stage: OnStage | None = None,
        workers: Workers = None,
        **how: Any,
    ) -> "AutoForecaster":
        """Choose a forecast by the last rows of a series, and fit it to all of them.

        Parameters
        ----------
        series, target, features, device, on_stage, **how
            As for `Forecaster.fit`. Features are for the GRU alone. The stage of the training by which the GRU is
            judged is called ``"guard"``.
        workers : int or concurrent.futures.Executor, optional
            Who makes the forecasts that are compared, as for `Forecaster.backtest`, and trains the GRU on all rows
            meanwhile, whether it will be chosen or not. The result has the same bits. Not with `on_stage`.

        Returns
        -------
        AutoForecaster
            Itself.

        Raises
        ------
        ArgumentError
            An argument is out of range.
        DataError
            The data cannot be learned from.
        MemoryLimitError
            It takes more memory than is free.

        Warns
        -----
        DataWarning, RuntimeWarning
            As for `Forecaster.fit`.
        """
        check_function("on_stage", on_stage, optional=True)
        workers = check_workers(workers)
        if on_stage is not None and workers not in (None, 1):
            raise ArgumentError("on_stage is for trainings in this process; leave it or workers out")
        given = series
        series = series_to_learn(series, target, features, how)
        warn_of_notices(given, series, stacklevel=2)
        device = device if isinstance(device, Device) else device_for_caller(device)
        zero_shot = zero_shot_for(self.season, self._weights, device)
        choice, ridge, gru = _choose(self._gru, series, device, zero_shot, on_stage, workers)
        chosen: Forecaster | ZeroShotForecaster = ridge
        if choice.name == ZERO_SHOT:
            assert zero_shot is not None
            chosen = zero_shot
        elif choice.name == GRU:
            chosen = gru or Forecaster(**self._gru.settings()).fit(series, device=device, on_stage=on_stage)
        elif choice.name != RIDGE:
            chosen = copy.copy(ridge)
            chosen.fallback = choice.name
        self._choice, self._ridge, self._chosen = choice, ridge, chosen
        self._read = ReadOptions(**how)
        return self

    def forecast(self, series: Any, steps: int) -> Any:
        """Forecast the values after the last row.

        Parameters
        ----------
        series
            As for `fit`, with the same columns.
        steps
            How many values.

        Returns
        -------
        array, shape ``(steps,)``, or pandas.Series
            As `Forecaster.forecast` returns them.

        Raises
        ------
        ArgumentError, DataError, NotFittedError
            As for `Forecaster.forecast`.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        steps = whole_number("steps", steps, 1, MAX_STEPS)
        checked = self._checked(series)
        return with_coming_index(series, checked, self._point(checked, [len(checked)], steps)[0], checked.target)

    def forecast_distribution(self, series: Any, steps: int) -> "pd.DataFrame":
        """Forecast the values after the last row, and quantiles of them where the pretrained network is chosen.

        Parameters
        ----------
        series, steps
            As for `forecast`.

        Returns
        -------
        pandas.DataFrame, shape ``(steps, 1 + Q)``
            The first column, called after `choice`, such as ``ZeroShot`` or ``LastValue``, is `forecast`; the others
            are those of `ZeroShotForecaster.forecast_distribution`. Other choices have no further columns.

        Raises
        ------
        ArgumentError, DataError, NotFittedError
            As for `forecast`.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        import pandas as pd

        steps = whole_number("steps", steps, 1, MAX_STEPS)
        checked = self._checked(series)
        index = coming_index(series, checked, steps)
        if index is None:
            index = pd.RangeIndex(len(checked), len(checked) + steps)
        return pd.DataFrame({name: values[0] for name, values in self._after(checked, steps).items()}, index=index)

    def forecasts(self, series: Any, origins: Sequence[int], steps: int) -> Floats:
        """Forecast from several origins at once, each time as if the rows from the origin on were not known yet.

        Parameters
        ----------
        series, steps
            As for `forecast`.
        origins : sequence of int, shape ``(n,)``
            As for `Forecaster.forecasts`.

        Returns
        -------
        array, shape ``(n, steps)``
            In the data's units.

        Raises
        ------
        ArgumentError, DataError, NotFittedError
            As for `Forecaster.forecasts`.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        return self._point(self._checked(series), origins, steps)

    def forecast_distributions(self, series: Any, origins: Sequence[int], steps: int) -> dict[str, Floats]:
        """Forecast from several origins at once, as `forecasts` does, with the quantiles if there are any.

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
        ArgumentError, DataError, NotFittedError
            As for `forecasts`.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        return self._forecasts(self._checked(series), origins, steps)

    def evaluate(
        self,
        series: Any,
        steps: int | None = None,
        *,
        start: int | None = None,
        others: Mapping[str, OtherForecast] | None = None,
    ) -> Backtest:
        """Measure forecasts of the rows of a series, beside the ridge and forecasts that need no training.

        Parameters
        ----------
        series
            As for `fit`, with the same columns.
        steps
            Steps ahead of each forecast; `horizon` if None. The next forecast begins after so many rows.
        start, others
            As for `Forecaster.evaluate`.

        Returns
        -------
        Backtest
            The forecast is called ``"auto"``, and `choice` is its fallback in all windows.

        Raises
        ------
        ArgumentError, DataError, NotFittedError
            As for `Forecaster.evaluate`.

        Warns
        -----
        DataWarning
            As for `fit`.
        """
        steps = self.horizon if steps is None else whole_number("steps", steps, 1, MAX_STEPS)
        checked = self._checked(series)
        least = self._ridge.window_length
        first = least if start is None else whole_number("start", start, least, len(checked))
        with naming(checked):
            learned = len(checked) if start is None else first
            return roll(lambda _: self.measured(), checked, first, steps, learned=learned, others=others)

    def backtest(
        self,
        series: Any,
        steps: int | None = None,
        *,
        windows: int | None = None,
        stride: int | None = None,
        refit: int | str = "never",
        split_ratio: float = SPLIT_RATIO,
        others: Mapping[str, OtherForecast] | None = None,
        target: str | None = None,
        features: Sequence[str] | str = (),
        device: str | Device = "auto",
        workers: Workers = None,
        journal: str | os.PathLike[str] | None = None,
        **how: Any,
    ) -> Backtest:
        """Measure how well forecasts that are chosen like this forecast a series, from a rolling origin.

        A forecast is chosen and fitted by the rows before the first window, and again as `refit` says; this forecaster
        stays as it is. No forecast depends on rows after its origin.

        Parameters
        ----------
        series, steps, windows, stride, refit, split_ratio, others, target, features, device, workers, journal, **how
            As for `Forecaster.backtest`.

        Returns
        -------
        Backtest
            The forecast is called ``"auto"``; ``fallbacks`` has the choice for each window.

        Raises
        ------
        ArgumentError, CheckpointError, DataError, WorkerError
            As for `Forecaster.backtest`.

        Warns
        -----
        DataWarning, RuntimeWarning
            As for `fit`.
        """
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
        chosen_device = device if isinstance(device, Device) else device_for_caller(device)
        with naming(series):
            first = first_origin(len(series), steps, stride, windows, float(split_ratio), least=self.least)
            return roll(
                self.fits(chosen_device),
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what is chosen to a file, which `Forecaster.load` reads.

        Parameters
        ----------
        path
            As for `Forecaster.save`.

        Raises
        ------
        ArgumentError, CheckpointError, NotFittedError
            As for `Forecaster.save`.
        DataError
            The pretrained network is chosen, of which nothing is fitted.
        """
        chosen = self.chosen
        if isinstance(chosen, ZeroShotForecaster):
            raise DataError(
                f"{ZERO_SHOT} is chosen, which has nothing fitted to save; use a ZeroShotForecaster of this season, "
                "or pickle this AutoForecaster"
            )
        chosen.save(path)

    def fits(self, device: Device) -> "FitAuto":
        """What fits copies of this forecaster on a device, for `roll`."""
        return FitAuto(self._gru.settings(), self._weights, device)

    def measured(self) -> Measured:
        """What `roll` measures: the forecasts under the name ``"auto"``, beside those of the ridge."""
        self._fitted()
        return _MeasuredChoice(self, self._ridge)

    def _forecasts(self, series: TimeSeries, origins: Sequence[int], steps: int) -> dict[str, Floats]:
        """Forecasts ``(n, steps)`` of what is chosen, by name of the column."""
        (_, point), *quantiles = self.chosen.forecast_distributions(series, origins, steps).items()
        return {column_name(self.choice): point, **dict(quantiles)}

    def _point(self, series: TimeSeries, origins: Sequence[int], steps: int) -> Floats:
        return self._forecasts(series, origins, steps)[column_name(self.choice)]

    def _after(self, series: TimeSeries, steps: int) -> dict[str, Floats]:
        return self._forecasts(series, [len(series)], steps)

    def _checked(self, series: Any) -> TimeSeries:
        """The series with the columns that it was fitted to; warnings name the caller of the calling method."""
        self._fitted()
        with naming(series):
            checked = series_to_continue(series, self._ridge.columns, self._read)
            if len(checked) < self._ridge.window_length:
                raise DataError(f"{rows_are(len(checked))} too few; at least {self._ridge.window_length} are needed")
        warn_of_notices(series, checked, stacklevel=3)
        return checked

    def _fitted(self) -> Choice:
        if not hasattr(self, "_choice"):
            raise NotFittedError("this AutoForecaster is not fitted; call fit() first")
        return self._choice


@dataclass(frozen=True)
class _MeasuredChoice:
    """See `AutoForecaster.measured`."""

    auto: AutoForecaster
    ridge: Forecaster

    model = AUTO
    outputs = Outputs("mae")

    @property
    def season(self) -> int | str:
        """As it was given."""
        return self.auto.season

    @property
    def seasons(self) -> tuple[int, ...]:
        """Those of the training rows."""
        return self.ridge.seasons

    @property
    def fallback(self) -> str:
        """The forecast that is chosen."""
        return self.auto.choice

    @property
    def reason(self) -> str:
        """Why."""
        return self.auto.reason

    def forecast_distributions(self, series: Any, origins: Sequence[int], steps: int) -> dict[str, Floats]:
        """Forecasts ``(n, steps)`` from each origin, by name."""
        return {
            AUTO: self.auto.forecasts(series, origins, steps),
            RIDGE: self.ridge.forecasts(series, origins, steps),
        }


@dataclass(frozen=True)
class FitAuto:
    """Fits an `AutoForecaster` of the same settings on a device, in this process or another."""

    settings: Mapping[str, Any]
    weights: Weights | None
    device: Device

    def __call__(self, rows: TimeSeries) -> Measured:
        own = {name: value for name, value in self.settings.items() if name not in _DECIDED}
        return AutoForecaster(**own, weights=self.weights).fit(rows, device=self.device).measured()

    def describe(self) -> dict[str, Any]:
        """What its forecasts depend on beside the rows, as JSON holds it."""
        weights = self.weights or (default_weights() if has_default_weights() else None)
        digest = hashlib.sha256()
        for array in () if weights is None else (*arrays_of(weights.params), weights.widths):
            digest.update(np.ascontiguousarray(array).tobytes())
        facts = {"device": device_facts(self.device), "weights": digest.hexdigest()}
        return {"model": AUTO, "settings": dict(self.settings), **facts}


def check_is_choice(forecaster: Forecaster) -> None:
    """See that the settings of a GRU are such that it can be compared with other forecasts; ArgumentError if not."""
    if forecaster.outputs.levels:
        raise ArgumentError("levels ask for intervals, but points are compared to choose a model; use model='gru'")
    if forecaster.outputs.quantiles:
        raise ArgumentError(
            f"loss={forecaster.loss!r} forecasts quantiles, but points are compared to choose a model; use another "
            "loss, or model='gru'"
        )
    if not forecaster.linear_skip:
        raise ArgumentError(
            "linear_skip=False has no effect on the ridge that a GRU is compared with to choose a model; leave it out, "
            "or use model='gru'"
        )


def zero_shot_for(season: Any, weights: Weights | None, device: Device) -> ZeroShotForecaster | None:
    """The pretrained network of these weights, or of the package if None; None where it has none, or for long seasons.

    Raises
    ------
    CheckpointError
        The package's weights cannot be read.
    """
    if (weights is None and not has_default_weights()) or (isinstance(season, int) and season >= CONTEXT):
        return None
    return ZeroShotForecaster(season=season, weights=weights or default_weights(), device=device)


def choose(
    gru: Forecaster,
    series: TimeSeries,
    device: Device,
    zero_shot: ZeroShotForecaster | None = None,
    on_stage: OnStage | None = None,
) -> tuple[Choice, Forecaster]:
    """The forecast to use for a series, by errors in its last rows, and a ridge that is fitted to all of them.

    Parameters
    ----------
    gru
        Settings of the GRU, and of the ridge as far as they apply. It is not fitted.
    series
        The training rows.
    device
        To train on.
    zero_shot
        The pretrained network, if it is to be compared, too.
    on_stage
        See `Forecaster.fit`. A GRU whose training is stopped is not compared.

    Raises
    ------
    DataError
        The rows are too few for the ridge, or cannot be learned from.
    """
    return _choose(gru, series, device, zero_shot, on_stage)[:2]


def _choose(
    gru: Forecaster,
    series: TimeSeries,
    device: Device,
    zero_shot: ZeroShotForecaster | None = None,
    on_stage: OnStage | None = None,
    workers: Workers = None,
) -> tuple[Choice, Forecaster, Forecaster | None]:
    """As `choose`, and the GRU that workers have fitted to all rows; None without workers."""
    ridge = Forecaster(**ridge_settings(gru)).fit(series, device=device)
    horizon, first = gru.horizon, first_judged(len(series), gru.horizon)
    origins = known_origins(series, len(series), horizon)
    origins = judged_origins(origins[origins >= max(first, ridge.window_length, MIN_VALUES)])
    if not len(origins):
        name = "last value" if zero_shot is None else ZERO_SHOT
        return Choice(name, {}, 0, len(series) - first, 0.0), ridge, None
    target, before = series.values[:, 0], known_until(series, first).head(first)
    forecasts = {
        name: baseline(target, origins, horizon)
        for name, baseline in baselines(before.values[:, 0], ridge.seasons).items()
    }
    rehearsals = {
        name: settings | rehearsal_settings(gru, ridge.look_back, first)
        for name, settings in ((RIDGE, ridge.settings()), (GRU, gru.settings()))
    }
    candidates = _Candidates(gru.settings(), rehearsals, zero_shot, series, before, origins.tolist(), device, on_stage)
    names = [RIDGE, GRU] if zero_shot is None else [RIDGE, GRU, ZERO_SHOT]
    tasks = names if workers in (None, 1) else [_FITTED, *names]  # what takes longest first
    found = {tasks[number]: result for number, result in run_tasks(_compute_candidate, candidates, tasks, workers)}
    for name in names:
        if found[name] is not None:
            forecasts[name] = found[name]
    actual = target[origins[:, None] + np.arange(horizon)]
    errors = {name: float(np.abs(forecast - actual).mean()) for name, forecast in forecasts.items()}
    return Choice.by_errors(errors, len(origins), len(series) - first, horizon), ridge, found.get(_FITTED)


_FITTED = "fitted to all rows"


@dataclass(frozen=True)
class _Candidates:
    """What the forecasts that are compared have in common."""

    gru: Mapping[str, Any]
    rehearsals: Mapping[str, Mapping[str, Any]]
    zero_shot: ZeroShotForecaster | None
    series: TimeSeries
    before: TimeSeries
    origins: Sequence[int]
    device: Device
    on_stage: OnStage | None

    def compute(self, name: str) -> Any:
        """The forecasts of this name, None where they cannot be made; or the GRU that is fitted to all rows."""
        if name == _FITTED:
            try:
                return Forecaster(**self.gru).fit(self.series, device=self.device)
            except DataError:  # which is raised where the GRU is chosen
                return None
        if name == ZERO_SHOT:
            assert self.zero_shot is not None
            return self.zero_shot.forecasts(self.series, self.origins, self.gru["horizon"])
        rehearsal, on_stage = Forecaster(**self.rehearsals[name]), self.on_stage if name == GRU else None
        return _rehearsed(rehearsal, self.before, self.series, self.origins, self.device, on_stage)


def _compute_candidate(candidates: _Candidates, name: str) -> Any:
    return candidates.compute(name)


def ridge_settings(gru: Forecaster) -> dict[str, Any]:
    """The settings of the ridge beside a GRU."""
    return gru.settings() | {"model": "ridge", "guard": False, "validation_ratio": 0.0, "refit": False}


def first_judged(rows: int, horizon: int) -> int:
    """The first of the training rows by which a forecast is chosen: a fifth of all, or up to a half if that is few."""
    return min(held_out_from(rows), max(rows // 2, rows - horizon + 1 - MIN_GUARDED))


def _rehearsed(
    forecaster: Forecaster,
    before: TimeSeries,
    series: TimeSeries,
    origins: Sequence[int],
    device: Device,
    on_stage: OnStage | None,
) -> Floats | None:
    """Forecasts ``(n, horizon)`` of a forecaster that is fitted to the rows before; None where it cannot be."""

    def as_guard(on_stage: OnStage, stage: Stage) -> Hooks | None:
        return on_stage(stage._replace(name="guard"))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            forecaster.fit(before, device=device, on_stage=None if on_stage is None else partial(as_guard, on_stage))
            assert forecaster.training is not None
            if forecaster.training.stop_reason in ("paused", "callback"):
                return None
            return forecaster.forecasts(series, origins, forecaster.horizon)
        except DataError:  # the rows before are too few, constant or missing, or the forecasts no numbers
            return None


def _is_below(error: float, other: float, share: float) -> bool:
    """Whether an error is below another one by at least a share of it."""
    return error < other and error <= (1 - share) * other
