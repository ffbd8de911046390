"""``gru-xp backtest``."""

import inspect
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from gru_xp.errors import DeviceWarning

from .exclusive import OF_RUN, check_auto, check_together, check_without_run, check_zero_shot, refuse_given
from .messages import (
    accuracy_title,
    choose_device,
    note,
    note_if_no_ridge,
    note_if_not_guarded,
    note_what_the_guard_chose,
    print_accuracy,
    print_json,
    settled_texts,
    warn_of_few_scores,
    warn_of_few_windows,
)
from .options import (
    Command,
    DeviceRequest,
    FiniteRange,
    SeasonSetting,
    column_options,
    compare_option,
    device_options,
    forecasts_to_compare,
    json_option,
    limits_taken_off,
    plot_option,
    quiet_option,
    season_option,
    setting,
    settings_as_options,
    weights_option,
    workers_option,
)
from .reading import reading_options
from .sources import (
    check_out,
    is_run,
    open_run,
    read_options,
    read_run_source,
    read_source,
    training_rows,
    warn_of_learned_rows,
)
from .train import train
from .zero_shot import backtest_zero_shot, note_no_training, open_zero_shot, zero_shot_beside

if TYPE_CHECKING:
    from gru_xp.devices import Device
    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.backtest import Backtest, Measured, OtherForecast
    from gru_xp.forecasting.folds import Fold
    from gru_xp.io.series import TimeSeries

COUNT = click.IntRange(min=1)


def _check_refit(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """The number of windows after which to train again; None for never."""
    if value in ("never", "always"):
        return None if value == "never" else 1
    if not (value.isdecimal() and int(value) > 0):
        raise click.BadParameter(f"{value!r} is not never, always or a number of forecasts")
    return int(value)


class _Plan(NamedTuple):
    """Which forecasts are made, as far as the options say, and how."""

    horizon: int | None
    windows: int | None
    stride: int | None
    refit: int | None
    others: "dict[str, OtherForecast]"
    workers: int
    journal: Path | None

    def run(
        self,
        series: "TimeSeries",
        first: int,
        horizon: int,
        fits: "_Fits",
        learned: int | None = None,
        training: "TimeSeries | None" = None,
        trained: "Forecaster | None" = None,
    ) -> "Backtest":
        """Forecast the rows from `first` on, `horizon` steps ahead unless an option says how many.

        By the `trained` forecaster, if there is one, and never others.
        """
        from gru_xp.forecasting.backtest import roll

        steps = self.horizon or horizon
        most = self.windows or (len(series) - first) // (self.stride or steps)
        beside = zero_shot_beside(series, fits.season, fits.device, most, quiet=fits.quiet)
        if self.workers > 1 and fits.device.is_cuda:
            note(f"{self.workers} workers share {fits.device.name}, each with a context there", quiet=fits.quiet)
        told = _Folds(fits, series, self.journal)
        with told, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # it is said there
            warnings.simplefilter("always", DeviceWarning)
            return roll(
                fits.fit if trained is None else lambda _: trained,
                series,
                first,
                steps,
                windows=self.windows,
                stride=self.stride,
                refit=self.refit,
                learned=learned,
                training=training,
                others={**beside, **self.others},
                workers=self.workers,
                journal=self.journal,
                on_fold=told if trained is None else None,
            )


class _Folds:
    """Says on stderr what has been trained, and, where that stops too early, what is kept of it."""

    def __init__(self, fits: "_Fits", series: "TimeSeries", journal: Path | None) -> None:
        self._fits, self._series, self._journal = fits, series, journal
        self._done, self._total = 0, 0

    def __call__(self, fold: "Fold | None", done: int, total: int) -> None:
        if fold is None:
            if done:
                note(f"continuing: {done} of {total} trainings are in {self._journal}", quiet=self._fits.quiet)
        else:
            self._fits.tell(fold, self._series.head(fold.rows), "" if total == 1 else f"{done}/{total}: ")
        self._done, self._total = done, total

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, *error: Any) -> None:
        if kind is not None and self._journal is not None and 0 < self._done < self._total:
            done = f"{self._done} of {self._total} trainings are kept in {self._journal}"
            note(f"Stopped. {done}; the same command continues from there.")


def _check_suffix(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in (".csv", ".json"):
        raise click.BadParameter(f"'{value}' must end in .csv or .json, which determines the format.")
    return value


@click.command(cls=Command, epilog="Example: gru-xp backtest sunspots.csv --steps 5 --refit 4")
@click.argument("source", metavar="CSV|RUN", type=click.Path())
@click.argument("csv", metavar="[CSV]", required=False, type=click.Path())
@click.option(
    "--steps",
    "--horizon",
    "horizon",
    type=COUNT,
    metavar="N",
    help="Steps ahead of each forecast.  [default: as in the run, or 1]",
)
@click.option(
    "--windows", type=COUNT, metavar="N", help="Number of forecasts, the last ones.  [default: all of the test set]"
)
@click.option("--stride", type=COUNT, metavar="N", help="Rows from one forecast to the next.  [default: --steps]")
@click.option(
    "--refit",
    metavar="never|always|N",
    callback=_check_refit,
    default="never",
    show_default=True,
    help="How often to train: once, for every forecast, or for every N-th one, each time on all rows before it. "
    "Not the --refit of train.",
)
@click.option(
    "--split-ratio",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    metavar="X",
    default=0.7,
    show_default=True,
    help="With CSV: fraction of the rows, from the start, to train on first, as by train; ignored with --windows.",
)
@setting(
    "--model",
    type=click.Choice(["gru", "ridge", "zero-shot", "auto"]),
    help="With CSV: what forecasts; ridge is the linear skip alone, in closed form, and needs --linear-skip, and "
    "zero-shot a pretrained GRU, for which nothing is trained. auto is one of these or a forecast without training, "
    "whichever forecasts the last fifth of the training rows best.",
)
@season_option(
    "Rows of a season; for --model zero-shot, two numbers, such as 24,168, are two seasons. auto finds it by the "
    "spacing of the dates, or else by the autocorrelation.",
    cls=SeasonSetting,
    show_default=True,
)
@weights_option("With --model zero-shot or auto")
@column_options("Close, or the only numeric column; with RUN, as in the run")
@reading_options
@device_options
@workers_option("With --refit: train")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    callback=_check_suffix,
    help="Write all forecasts to this .csv or .json file, in the columns of Nixtla's libraries: unique_id, ds, cutoff, "
    "y, and one for each model. With --refit, a backtest that was stopped continues from FILE.journal.",
)
@plot_option("Draw each forecast over the series, and the error of each")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@compare_option
@quiet_option
@json_option
@click.pass_context
def backtest(
    ctx: click.Context,
    /,
    source: str,
    csv: str | None,
    horizon: int | None,
    windows: int | None,
    stride: int | None,
    refit: int | None,
    split_ratio: float,
    weights: str | None,
    target: str | None,
    features: tuple[str, ...] | str,
    reading: dict[str, Any],
    device: DeviceRequest,
    workers: int,
    out: Path | None,
    plot: Path | None,
    overwrite: bool,
    compare: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure forecasts from many points of a series.

    Each is made as if the later rows were not known yet. With CSV, a model is trained on the rows before them, as by
    train, whose options set it up; with --model zero-shot, nothing is trained. With RUN, a run folder or a model file,
    its model forecasts the rows that it was not trained on, or those of another CSV file.
    """
    from gru_xp.forecasting.backtest import first_origin
    from gru_xp.forecasting.data import naming

    for option, path in (("--out", out), ("--plot", plot)):
        if path is not None:
            check_out(path, source, csv, option=option, overwrite=overwrite)
    if overwrite and out is None and plot is None:
        raise click.UsageError("--overwrite needs --out or --plot")
    if refit is None:
        refuse_given(ctx, ("workers",), "needs --refit always or N; there is only one training without")
    journal = None if out is None or refit is None else out.with_name(out.name + ".journal")
    plan, known = _Plan(horizon, windows, stride, refit, forecasts_to_compare(compare), workers, journal), True
    part = "test"
    if is_run(source, csv):
        refuse_given(ctx, (*settings, "split_ratio", "weights"), OF_RUN)
        forecaster = open_run(source, device, quiet=quiet)
        read, known = read_run_source(source, forecaster, csv, target, features, reading, quiet=quiet)
        training = None
        if not known and not plan.refit:
            training, part = training_rows(source, forecaster), "all"
            if csv is not None:
                warn_of_learned_rows(forecaster, read.one, training)
        result = _of_run(plan, forecaster, read.one, training, known=known, quiet=quiet)
    elif settings["model"] == "zero-shot":
        check_without_run(source, csv)
        check_zero_shot(ctx, ("refit", *(name for name in settings if name not in ("model", "season"))))
        zero_shot = open_zero_shot(settings["season"], weights, device, quiet=quiet)
        read = read_source(source, target, (), read_options({}, reading), quiet=quiet)
        note_no_training(zero_shot, read.one, weights, plan.horizon or 1, rolling=True, quiet=quiet)
        result = backtest_zero_shot(zero_shot, read.one, horizon or 1, windows, stride, split_ratio, plan.others)
    else:
        check_without_run(source, csv)
        is_auto = settings["model"] == "auto"
        if not is_auto:
            refuse_given(ctx, ("weights",), "needs --model zero-shot or auto")
        if isinstance(settings["season"], tuple):
            raise click.UsageError("--season with two numbers needs --model zero-shot; give one")
        read = read_source(source, target, features, read_options({}, reading), quiet=quiet)
        settings |= {"horizon": horizon or 1, **limits_taken_off(settings)}
        check_together(ctx, settings)
        if is_auto:
            check_auto(ctx, settings)
        used = choose_device(device, quiet=quiet)
        fits = _AutoFits(settings, used, weights, quiet=quiet) if is_auto else _Fits(settings, used, quiet=quiet)
        steps, rows = horizon or 1, len(read.one)
        with naming(read.one):
            first = first_origin(rows, steps, stride or steps, windows, split_ratio, least=fits.least)
        result = plan.run(read.one, first, 1, fits, None if refit else first)
    if known:
        training = result.series.head(result.learned)
    note_if_no_ridge(result.metrics, read.path.name, training, quiet=quiet)
    if out is not None:
        _write(result, out)
        if journal is not None:
            journal.unlink(missing_ok=True)
        note(f"written to {out}", quiet=quiet)
    if plot is not None:
        _draw(result, plot)
        note(f"plot written to {plot}", quiet=quiet)
    if as_json:
        print_json({"source": source, "file": str(read.path), "target": read.target, **result.metrics})
    else:
        print_accuracy(accuracy_title(read.path.name, read.target, result.horizon), {part: result.metrics})


def _of_run(
    plan: _Plan,
    forecaster: "Forecaster",
    series: "TimeSeries",
    training: "TimeSeries | None",
    *,
    known: bool,
    quiet: bool,
) -> "Backtest":
    """Forecasts of the rows that a trained forecaster has not learned from: of all, unless it knows some.

    If it is trained again, other rows are divided as those of a file.
    """
    from gru_xp.forecasting.backtest import first_origin
    from gru_xp.forecasting.data import naming

    fits = _Fits(forecaster.settings(), forecaster.device, quiet=quiet)
    horizon = plan.horizon or forecaster.horizon
    if plan.refit and not known:
        with naming(series):
            first = first_origin(len(series), horizon, plan.stride or horizon, plan.windows, least=fits.least)
        return plan.run(series, first, horizon, fits)
    if not plan.refit:
        note_what_the_guard_chose(forecaster, quiet=quiet)
    learned = forecaster.notes["fit_end"] if known else len(series)
    first = learned if known else forecaster.window_length
    return plan.run(series, first, horizon, fits, learned, training, None if plan.refit else forecaster)


class _Fits:
    """How to train a forecaster, and what to say of it on stderr."""

    def __init__(self, settings: dict[str, Any], device: "Device", *, quiet: bool) -> None:
        from gru_xp.forecasting import Forecaster

        known = Forecaster().settings()
        self._settings = {name: value for name, value in settings.items() if name in known}
        self.device, self.quiet, self._has_warned = device, quiet, False
        self._settled: list[str] = []

    @property
    def season(self) -> int | str:
        """Rows of a season, or how to find it."""
        season: int | str = self._settings["season"]
        return season

    @property
    def least(self) -> int:
        """The fewest rows to learn from."""
        from gru_xp.forecasting.windows import least_rows

        forecaster = self._forecaster()
        return least_rows(forecaster.shortest_window, forecaster.validation_ratio, forecaster.horizon)

    @property
    def fit(self) -> "Callable[[TimeSeries], Measured]":
        """What trains."""
        from gru_xp.forecasting.backtest import FitForecaster

        return FitForecaster(self._forecaster().settings(), self.device)

    def tell(self, fold: "Fold", rows: "TimeSeries", number: str) -> None:
        """Say on stderr what was trained on these rows; a training that diverged is an error."""
        from gru_xp.forecasting import Forecaster

        facts = fold.facts
        if facts["problem"] is not None:
            raise click.ClickException(facts["problem"])
        forecaster = Forecaster.from_description(json.loads(json.dumps(facts["forecaster"])))
        for text in (settled := settled_texts(forecaster)):
            if text not in self._settled:
                note(text, quiet=self.quiet)
        if not self._has_warned:
            learned = rows.head(len(rows) - round(len(rows) * forecaster.validation_ratio))
            warn_of_few_windows(forecaster, len(learned))
            note_if_not_guarded(forecaster, learned, quiet=self.quiet)
            warn_of_few_scores(forecaster)
        self._has_warned, self._settled = True, settled
        epochs = f"best epoch {facts['best_epoch']} of {facts['epochs']}, " if forecaster.model == "gru" else ""
        naive = f"; nothing beats the {forecaster.fallback} forecast" if forecaster.fallback is not None else ""
        note(f"{number}trained on {len(rows)} rows: {epochs}{facts['seconds']:.1f} s{naive}", quiet=self.quiet)

    def _forecaster(self) -> "Forecaster":
        """One that is not trained."""
        from gru_xp.forecasting import Forecaster

        with settings_as_options():
            return Forecaster(**self._settings)


class _AutoFits(_Fits):
    """How to choose and train the best forecaster, and what to say of it on stderr."""

    def __init__(self, settings: dict[str, Any], device: "Device", weights: str | None, *, quiet: bool) -> None:
        from gru_xp.pretrained import AutoForecaster

        super().__init__(settings, device, quiet=quiet)
        own = {name: value for name, value in self._settings.items() if name not in ("model", "guard")}
        with settings_as_options():
            self._auto = AutoForecaster(**own, weights=weights)

    @property
    def least(self) -> int:
        """The fewest rows to learn from."""
        return self._auto.least

    @property
    def fit(self) -> "Callable[[TimeSeries], Measured]":
        """What chooses and trains."""
        return self._auto.fits(self.device)

    def tell(self, fold: "Fold", rows: "TimeSeries", number: str) -> None:
        """Say on stderr what was chosen by these rows."""
        note(f"{number}auto, {len(rows)} rows: {fold.facts['reason']}", quiet=self.quiet)


def _write(result: "Backtest", path: Path) -> None:
    """All forecasts, a row each."""
    from gru_xp.errors import DataError

    frame = result.to_frame()
    try:
        if path.suffix.lower() == ".csv":
            frame.to_csv(path, index=False)
        else:
            for column in ("ds", "cutoff"):
                if frame[column].dtype.kind != "i":
                    frame[column] = [str(time) for time in frame[column]]
            path.write_text(json.dumps(frame.to_dict("records"), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); use another --out") from error


def _draw(result: "Backtest", path: Path) -> None:
    """The plot of all forecasts."""
    from gru_xp.errors import DataError
    from gru_xp.reporting.style import save_figure

    try:
        save_figure(result.plot(), path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); use another --plot") from error


def _settings_of_train() -> list[click.Parameter]:
    """The options of `train` that are settings of the forecaster, or give their defaults."""
    others = set(inspect.signature(train.callback or train).parameters) - {"validation_ratio", "preset"}
    own = {parameter.name for parameter in backtest.params}
    return [parameter for parameter in train.params if parameter.name not in others | own]


backtest.params[-1:-1] = _settings_of_train()
