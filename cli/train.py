"""``gru-xp train``."""

import math
import shlex
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gru_xp.errors import DeviceWarning
from gru_xp.io.messages import flag
from gru_xp.reporting.text import number_text

from .exclusive import OF_TRAINING, check_auto, check_together
from .messages import (
    choose_device,
    note,
    note_if_not_guarded,
    note_what_the_guard_chose,
    print_json,
    print_parts,
    rows_text,
    settled_texts,
    warn_of_few_scores,
    warn_of_few_windows,
)
from .options import (
    PLOT_FORMATS,
    Command,
    DeviceRequest,
    FiniteNumber,
    FiniteRange,
    OrWord,
    column_options,
    compare_option,
    device_options,
    forecasts_to_compare,
    is_given,
    joined_features,
    json_option,
    limits_taken_off,
    plots_option,
    quiet_option,
    setting,
)
from .panel import check_several, evaluate_run, is_panel, print_panel
from .progress import Interrupt, interruptible, watch
from .reading import reading_options
from .sources import load_run
from .training_run import TrainingRun, choose_model, new_run, resumed_run
from .zero_shot import zero_shot_beside

if TYPE_CHECKING:
    from gru_xp.devices import Device
    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.backtest import OtherForecast
    from gru_xp.forecasting.evaluation import EvaluatedPart
    from gru_xp.forecasting.stages import Hooks, Stage
    from gru_xp.forecasting.verification import Drift, Witness
    from gru_xp.training.checkpoint import Checkpoints
    from gru_xp.training.trainer import Pause, TrainingState

FINITE = FiniteNumber()
POSITIVE = FiniteRange(min=0, min_open=True)
RATE = FiniteRange(0, 1, max_open=True)
OPEN_FRACTION = FiniteRange(0, 1, min_open=True, max_open=True)
COUNT = click.IntRange(min=1)
EPOCHS = click.IntRange(1, 2**31 - 1)
SIZE = click.IntRange(1, 4096)
LAYERS = click.IntRange(1, 1000)


def _sorted(ctx: click.Context, param: click.Parameter, values: tuple[float, ...]) -> tuple[float, ...]:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise click.BadParameter(f"{twice:g} is given more than once")
    return tuple(sorted(values))


@click.command(
    cls=Command,
    epilog="Example: gru-xp train GOOG.csv --hidden-size 64 --out runs/goog",
)
@click.argument("csv", metavar="[CSV]", required=False, type=click.Path())
@column_options("Close, or the only numeric column")
@reading_options
@click.option(
    "--preset",
    type=click.Choice(["recipe", "article"]),
    default="recipe",
    show_default=True,
    is_eager=True,
    help="Defaults of the other options. article: the settings of the article that gru-xp started from.",
)
@click.option(
    "--split-ratio",
    type=FiniteRange(0, 1, min_open=True),
    metavar="X",
    default=0.7,
    show_default=True,
    help="Fraction of the rows, from the start, used for training and validation; the rest is the test set. The "
    "first test windows reach back into the rows before it.",
)
@setting(
    "--validation-ratio",
    type=FiniteRange(0, 1, max_open=True),
    metavar="X",
    help="Fraction of the rows before the test set, from their end, held out to select the best epoch; 0 for none.",
)
@setting(
    "--refit",
    is_flag=True,
    help="With --validation-ratio: train again on all rows before the test set, for as many epochs as were best. "
    "Not the --refit of backtest.",
)
@setting(
    "--model",
    type=click.Choice(["gru", "ridge", "auto"]),
    help="What to train; ridge is the linear skip alone, in closed form, and needs --linear-skip. auto is the GRU, the "
    "ridge or a forecast without training, whichever forecasts the last fifth of the training rows best.",
)
@setting(
    "--seq-length",
    type=OrWord(COUNT, "auto"),
    metavar="N|auto",
    help="Window length: rows that each prediction is based on. auto chooses it by linear forecasts of five blocks "
    "of the training rows.",
)
@setting(
    "--season",
    type=OrWord(click.IntRange(min=2), "auto", "none"),
    metavar="N|auto|none",
    help="Rows of a season. auto finds it by the spacing of the dates, or else by the autocorrelation.",
)
@setting(
    "--guard/--no-guard",
    help="Forecast like the best forecast without training if the model was no better on held-out training rows.",
)
@setting(
    "--horizon",
    type=COUNT,
    metavar="N",
    help="Steps ahead to predict at once; longer forecasts continue from their own predictions.",
)
@setting(
    "--patches",
    type=click.IntRange(min=0),
    metavar="N",
    help="Cut each window into N patches, which are the steps of the GRU; 0 for one step a row.",
)
@setting(
    "--linear-skip/--no-linear-skip",
    help="Add a linear prediction from the target's values in the window; it begins as a ridge regression.",
)
@setting(
    "--transform",
    type=click.Choice(["none", "log", "sqrt", "diff", "auto"]),
    help="Learn the logarithm, the square root or the changes of the target, and transform forecasts back. auto takes "
    "log or sqrt where the variance grows with the level and forecasts of the last training rows are better with it.",
)
@setting("--min", "minimum", type=FINITE, metavar="X", help="No forecast, nor interval, is below this.")
@setting("--max", "maximum", type=FINITE, metavar="X", help="No forecast, nor interval, is above this.")
@setting("--hidden-size", type=SIZE, metavar="N", help="Hidden units of each GRU layer.")
@setting("--num-layers", type=LAYERS, metavar="N", help="Number of stacked GRU layers.")
@setting("--bidirectional", is_flag=True, help="Run each layer in both directions.")
@setting(
    "--dropout",
    type=RATE,
    metavar="X",
    help="Dropout between layers, during training.",
)
@setting(
    "--recurrent-dropout",
    type=RATE,
    metavar="X",
    help="Dropout of the candidate state, during training; one mask for all steps of a window.",
)
@setting(
    "--zoneout",
    type=RATE,
    metavar="X",
    help="Zoneout: probability that a unit keeps its previous state, during training.",
)
@setting(
    "--num-epochs",
    type=EPOCHS,
    metavar="N",
    help="Number of passes over the training windows.  [default: as many as --num-steps takes; 300 with --patience]",
)
@setting(
    "--num-steps",
    type=EPOCHS,
    metavar="N",
    help="Number of updates, instead of --num-epochs; without validation, the last model is kept.",
)
@setting(
    "--loss",
    type=click.Choice(["mse", "mae", "huber", "quantile", "gaussian", "poisson"]),
    help="Loss to minimise. quantile, gaussian and poisson (for counts) also forecast intervals.",
)
@setting(
    "--huber-delta",
    type=POSITIVE,
    metavar="X",
    help="Scaled error from which on the Huber loss is linear.",
)
@setting(
    "--quantile",
    "quantiles",
    type=OPEN_FRACTION,
    multiple=True,
    metavar="X",
    callback=_sorted,
    help="Quantile to predict, of --loss quantile; give it once for each. Between lower and higher ones the median is "
    "added, which is the point forecast then.",
)
@setting(
    "--level",
    "levels",
    type=FiniteRange(1, 100, max_open=True),
    multiple=True,
    metavar="X",
    callback=_sorted,
    help="Level of an interval in percent, such as 80; give it once for each. It holds that share of the forecasts of "
    "held-out training rows, or of the distribution of --loss gaussian or poisson; a level that --loss quantile "
    "predicts is the predicted one.",
)
@setting("--learning-rate", type=POSITIVE, metavar="X", help="Learning rate.")
@setting(
    "--optimizer",
    type=click.Choice(["adam", "adamw", "sgd", "momentum"]),
    help="Optimizer.",
)
@setting(
    "--beta1",
    type=RATE,
    metavar="X",
    help="Decay of the average gradient, of adam and adamw.",
)
@setting(
    "--beta2",
    type=RATE,
    metavar="X",
    help="Decay of the average squared gradient, of adam and adamw.",
)
@setting(
    "--weight-decay",
    type=RATE,
    metavar="X",
    help="Weight decay of adamw, as a fraction of the learning rate.",
)
@setting(
    "--schedule",
    type=click.Choice(["constant", "cosine", "one-cycle"]),
    help="Learning-rate schedule, over all updates.  "
    "[default: one-cycle; constant for sgd, momentum and with --patience]",
)
@setting(
    "--warmup",
    type=RATE,
    metavar="X",
    help="Fraction of the updates in which the learning rate rises.  [default: 0.2 for one-cycle, else 0]",
)
@setting(
    "--reduction",
    type=click.Choice(["mean", "sum"]),
    help="Reduction of the loss over a mini-batch; the reported loss is always the mean.  "
    "[default: mean for adam and adamw, else sum]",
)
@setting(
    "--batch-size",
    type=OrWord(COUNT, "all"),
    metavar="N|all",
    help="Mini-batch size, in windows.",
)
@setting(
    "--keep-every",
    type=COUNT,
    metavar="N",
    help="Activation checkpointing: store every N-th state and recompute the rest.  [default: store all]",
)
@setting(
    "--clip-norm",
    type=OrWord(POSITIVE, "none"),
    metavar="X|none",
    help="Clip gradients to this norm.",
)
@setting(
    "--patience",
    type=click.IntRange(min=0),
    metavar="N",
    help="Stop after N epochs without a lower loss, of the validation rows if there are any; 0 to disable.  "
    "[default: 0]",
)
@setting(
    "--scaling",
    type=click.Choice(["last", "standard", "window", "robust", "none"]),
    help="Scale each window relative to its last row, by typical changes (last) or by its own deviation (window); or "
    "all rows by the training rows' mean and deviation (standard), or median and interquartile range (robust).",
)
@setting(
    "--reset",
    type=click.Choice(["before", "after"]),
    help="Apply the reset gate before the recurrent matrix product, or after it as PyTorch and Keras do.",
)
@setting(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Floating-point precision.",
)
@setting(
    "--seed",
    type=click.IntRange(min=0),
    help="Random seed of the initial weights, the mini-batches and dropout.",
    metavar="N",
)
@device_options
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Run folder.  [default: runs/<file>-<time>]"
)
@click.option("--overwrite", is_flag=True, help="Replace the files of an existing run folder.")
@click.option(
    "--checkpoint-every", type=COUNT, metavar="N", help="Write a checkpoint after every N epochs, and at the end."
)
@click.option(
    "--checkpoint-seconds",
    type=FiniteRange(min=0),
    metavar="S",
    help="Write a checkpoint every S seconds.  [default: after 5 s, then every 30 s, or less often if writing would "
    "take over 1 % of the time]",
)
@click.option(
    "--resume",
    type=click.Path(),
    metavar="RUN",
    help="Continue an interrupted run; CSV and all options come from its folder.",
)
@click.option(
    "--allow-changes",
    is_flag=True,
    help="With --resume: accept a changed file, or another --num-epochs, --learning-rate, --clip-norm, --patience, "
    "--keep-every, --device, --threads or --tf32.",
)
@plots_option
@click.option(
    "--verify-cpu",
    is_flag=True,
    help="Train again on the CPU (after a CPU run, without its fast paths) and report the largest difference.",
)
@compare_option
@quiet_option
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    /,
    csv: str | None,
    target: str | None,
    features: tuple[str, ...] | str,
    reading: dict[str, Any],
    preset: str,
    split_ratio: float,
    validation_ratio: float,
    device: DeviceRequest,
    out: Path | None,
    overwrite: bool,
    checkpoint_every: int | None,
    checkpoint_seconds: float | None,
    resume: str | None,
    allow_changes: bool,
    plots: str,
    verify_cpu: bool,
    compare: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a GRU on the series in CSV, and evaluate the result.

    CSV is a file with a header line (also gzip, zip, Parquet, or - for stdin), or the name of a bundled series: AAPL,
    GOOG, IBM, sunspots. The result is compared with forecasts that need no
    training. The model, its training history, metrics,
    predictions and plots are written to the run folder, and checkpoints while it trains.

    Ctrl-C stops after the current batch and saves a checkpoint and the best model so far; pressed again, it quits at
    once. Continue with --resume: a resumed run gives bit-identical results.
    """
    from gru_xp.forecasting.verification import Witness
    from gru_xp.reporting.run_folder import CHECKPOINT_FILE, checkpoint_file, run_folder

    others, is_auto = forecasts_to_compare(compare), False
    if resume is not None:
        belong_to_new_runs = {
            "--out": out,
            "--overwrite": overwrite,
            "--verify-cpu": verify_cpu,
            "--preset": is_given(ctx, "preset"),
        }
        for name, value in belong_to_new_runs.items():
            if value:
                raise click.UsageError(f"{name} cannot be combined with --resume; it belongs to a new run")
        run = resumed_run(checkpoint_file(resume), csv, _given(ctx), allow_changes=allow_changes, quiet=quiet)
        folder = run_folder(Path(resume), overwrite=True)
    else:
        if csv is None:
            raise click.UsageError("Missing argument 'CSV': a file, a bundled name such as GOOG.csv, or --resume RUN.")
        if allow_changes:
            raise click.UsageError("--allow-changes needs --resume")
        settings |= {"validation_ratio": validation_ratio, **limits_taken_off(settings)}
        check_together(ctx, settings)
        if is_auto := settings["model"] == "auto":
            check_auto(ctx, settings)
            settings |= {"model": "gru"}
        if device.tf32 and settings["dtype"] != "float32":
            raise click.UsageError(f"--tf32 cannot be combined with --dtype {settings['dtype']}; TF32 is for float32")
        run = new_run(csv, target, features, reading, split_ratio, settings, quiet=quiet)
        if is_panel(run.series):
            check_several({"--model auto": is_auto, "--compare": compare})
        run.facts |= {
            "checkpoint_every": checkpoint_every,
            "checkpoint_seconds": checkpoint_seconds,
            "plots": plots,
        }
        default_out = Path("runs", f"{run.source.path.stem}-{datetime.now():%Y%m%d-%H%M%S}")
        folder = run_folder(out or default_out, overwrite=overwrite, unique=out is None)
    forecaster, request = run.forecaster, run.device or device
    checkpoints: Checkpoints | None = None

    def advise_at_quit() -> None:
        has_written = checkpoints is not None and (checkpoints.has_written or not replaces_another)
        stopped = Path(resume) if resume is not None else out if has_written else None
        if stopped is None or not _say_how_to_continue(stopped):
            note("Stopped before the first checkpoint; nothing was saved.")

    with interruptible(advise_at_quit) as interrupt:
        with folder as partial_folder:
            out = partial_folder.parent
            chosen = choose_device(request, quiet=quiet)
            run.use(chosen, request.name)
            if is_auto:
                _choose_model(run, chosen, csv, interrupt, quiet=quiet)
            if resume is None and preset == "recipe":
                _say_whose_defaults(ctx, forecaster, quiet=quiet)
            replaces_another = resume is None and (out / CHECKPOINT_FILE).exists()
            checkpoints = _checkpoints(run, out, replaces_another, lambda: interrupt.by is not None)
            witness = Witness(checkpoints) if verify_cpu else None  # its snapshot is for that alone
            with _Stages(run, checkpoints, witness, interrupt, quiet=quiet) as stages, warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a loss that is not finite is reported below
                warnings.simplefilter("always", DeviceWarning)
                forecaster.fit(run.learned, device=chosen, on_stage=stages, state=run.state, fallback=run.fallback)
            warn_of_few_scores(forecaster)
            checkpoints.write()
            run.count_refit_rows()
            drift = None if witness is None else _verify(run, witness, interrupt)
            metrics, parts = _write_run(partial_folder, run, drift, others, quiet=quiet)
        _say_which_model_is_kept(run)
        _say_what_the_guard_found(run)
        _say_if_nothing_was_left(run, quiet=quiet)
        _say_how_it_ended(run, out, stages.num_epochs, quiet=quiet)
        if as_json:
            print_json({"run": str(out), **metrics})
        else:
            show = print_panel if is_panel(run.series) else print_parts
            show(run.source.path.name, run.source.target, parts)
    if interrupt.by is not None and _is_complete(run):
        note("Stopped when the training had come to its end; there is nothing to continue.")
    elif interrupt.by is not None:
        _say_how_to_continue(out)
    if metrics["problem"] is not None:
        raise click.ClickException(metrics["problem"])
    if interrupt.by is not None:
        sys.exit(interrupt.exit_code)
    if drift is not None:
        _say_drift(drift)


def _choose_model(run: TrainingRun, device: "Device", csv: str | None, interrupt: Interrupt, *, quiet: bool) -> None:
    """Let the run be one of the best model, and say which that is."""
    from gru_xp.forecasting.backtest import ZERO_SHOT
    from gru_xp.forecasting.stages import Hooks

    with ExitStack() as shown:

        def on_stage(stage: "Stage") -> "Hooks":
            callback = shown.enter_context(watch(stage.num_epochs, quiet=quiet, epoch="auto: epoch"))
            return Hooks(callback, lambda *_: interrupt.by is not None)

        choice = choose_model(run, device, on_stage)
    if interrupt.by is not None:
        note("Stopped before the first checkpoint; nothing was saved.")
        sys.exit(interrupt.exit_code)
    note(f"auto: {choice.reason}", quiet=quiet)
    if choice.name != ZERO_SHOT:
        return
    held, errors, gain = choice.without_zero_shot(run.forecaster.horizon).name, choice.errors, ""
    if errors:
        gain = f" (MAE of zero-shot {1 - errors[ZERO_SHOT] / errors[held]:.1%} lower)" if errors[held] > 0 else ""
    command = shlex.join(["gru-xp", "forecast", str(csv), "--steps", str(run.forecaster.horizon)])
    note(f"a run cannot hold the zero-shot forecast, so this one is of {held}{gain}; for zero-shot: {command}")


class _Stages:
    """What is shown and saved in each stage of a training, and how it is stopped: an `OnStage` for `Forecaster.fit`.

    Attributes
    ----------
    num_epochs
        Epochs to expect of the stage that the model is from.
    """

    def __init__(
        self,
        run: TrainingRun,
        checkpoints: "Checkpoints",
        witness: "Witness | None",
        interrupt: Interrupt,
        *,
        quiet: bool,
    ) -> None:
        self._run, self._checkpoints, self._witness = run, checkpoints, witness
        self._interrupt, self._quiet = interrupt, quiet
        self._shown = ExitStack()
        self.num_epochs = 0
        self._has_begun = False

    def __enter__(self) -> "_Stages":
        return self

    def __exit__(self, *exception: object) -> None:
        self._shown.close()

    def __call__(self, stage: "Stage") -> "Hooks":
        from gru_xp.forecasting.stages import Hooks

        self._shown.close()
        if not self._has_begun:
            self._has_begun = True
            forecaster = self._run.forecaster
            for text in settled_texts(forecaster):
                note(text, quiet=self._quiet)
            if not is_panel(self._run.series):
                warn_of_few_windows(forecaster, stage.rows)
            note_if_not_guarded(forecaster, self._run.training_rows, quiet=self._quiet)
        epoch = "epoch"
        pause: Pause = self._witness or self._checkpoints
        if stage.name == "guard":
            self._checkpoints.write()
            epoch, pause = "guard: epoch", self._is_interrupted
        else:
            self.num_epochs = stage.num_epochs
        if stage.name == "refit":
            self._checkpoints.write()
            epoch = "refit: epoch"
            if self._run.selection is None:
                self._say_what_is_refit(stage)
        return Hooks(self._shown.enter_context(watch(stage.num_epochs, quiet=self._quiet, epoch=epoch)), pause)

    def _is_interrupted(self, *_: object) -> bool:
        return self._interrupt.by is not None

    def _say_what_is_refit(self, stage: "Stage") -> None:
        forecaster = self._run.forecaster
        amount = f"{stage.num_epochs} epochs" if stage.num_epochs != 1 else "1 epoch"
        if forecaster.counts_steps:
            amount = f"{stage.num_steps} updates"
        note(
            f"best epoch {forecaster.best_epoch}; training again on all {rows_text(stage.rows)} for {amount}",
            quiet=self._quiet,
        )


def _say_whose_defaults(ctx: click.Context, forecaster: "Forecaster", *, quiet: bool) -> None:
    """Which settings are not given, and are in force but not the article's."""
    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.presets import PRESETS
    from gru_xp.forecasting.settings import in_force

    ours, theirs = in_force(forecaster), in_force(Forecaster(**PRESETS["article"]))
    unheeded: tuple[str, ...] = OF_TRAINING if forecaster.model == "ridge" else ()
    if forecaster.num_steps is not None:
        unheeded += ("num_epochs",)
    names = [name for name in ctx.params if name in ours and ours[name] != theirs[name] and name not in unheeded]
    if names := [name for name in names if not is_given(ctx, name)]:
        options = ", ".join(map(flag, names))
        note(f"gru-xp's own defaults, unlike the article's (--preset article): {options}", quiet=quiet)


def _given(ctx: click.Context) -> dict[str, Any]:
    """The options about the training that were given, by name."""
    others = (
        "csv",
        "preset",
        "resume",
        "allow_changes",
        "out",
        "overwrite",
        "verify_cpu",
        "compare",
        "quiet",
        "as_json",
        "debug",
    )
    given = {name: value for name, value in ctx.params.items() if is_given(ctx, name)}
    given |= limits_taken_off(given)
    if asked := joined_features(given.pop("feature", ()), given.pop("features", ())):
        given["features"] = asked
    return {name: value for name, value in given.items() if name not in others}


def _is_complete(run: TrainingRun) -> bool:
    """Whether all stages of the training, and the guard's, have come to their end."""
    forecaster = run.forecaster
    assert forecaster.training is not None
    return forecaster.training.stop_reason != "paused" and forecaster.refit_ended and forecaster.guard_ended


def _say_how_to_continue(out: Path) -> bool:
    """Say how to resume the stopped run in the folder, and return True, if it has a checkpoint to resume from."""
    from gru_xp.errors import GruXpError
    from gru_xp.reporting.run_folder import checkpoint_file

    try:
        load_run(checkpoint_file(out))
    except GruXpError:
        return False
    note(f"Stopped. Continue with: gru-xp train --resume {shlex.quote(str(out))}")
    return True


def _checkpoints(run: TrainingRun, out: Path, at_start: bool, wants_stop: Callable[[], bool]) -> "Checkpoints":
    from gru_xp.forecasting.checkpoint import save_checkpoint
    from gru_xp.reporting.run_folder import CHECKPOINT_FILE, written_to
    from gru_xp.training.checkpoint import Checkpoints

    def write(state: "TrainingState") -> None:
        with written_to(out):
            save_checkpoint(out / CHECKPOINT_FILE, run.forecaster, state, series=run.series, run=run.facts)

    return Checkpoints(
        write,
        every_epochs=run.facts["checkpoint_every"],
        every_seconds=run.facts["checkpoint_seconds"],
        at_start=at_start,
        wants_stop=wants_stop,
    )


def _verify(run: TrainingRun, witness: "Witness", interrupt: Interrupt) -> "Drift | None":
    """How far the training is from that on the CPU; None where one of the two has not come to its end."""
    from gru_xp.forecasting.verification import compare_with_cpu

    training = run.forecaster.training
    assert training is not None
    if interrupt.by is not None or training.problem is not None:
        return None
    drift = compare_with_cpu(run.forecaster, run.learned, witness, pause=lambda *_: interrupt.by is not None)
    return drift if interrupt.by is None else None


def _say_drift(drift: "Drift") -> None:
    """How far the training is from that on the CPU; an error where it is too far."""
    what = "their change" if drift.tf32 else "the largest"
    said = (
        f"compared with {drift.reference}: parameters differ by {drift.first_epoch:.1e} of {what} after epoch 1 "
        f"(limit {drift.limit:.0e})"
    )
    if not drift.is_within_limit:
        other = "train without --tf32" if drift.tf32 else "set GRU_XP_PLAIN=1 to use no fast paths"
        raise click.ClickException(f"{said}; do not trust this device, or {other}")
    note(f"{said}, by {drift.last_epoch:.1e} after epoch {drift.epochs}, losses by {drift.cost:.1e}")


def _say_which_model_is_kept(run: TrainingRun) -> None:
    if not run.forecaster.refit_ended:
        note(
            "interrupted while training again on all rows (--refit); the model is that of the training before, epoch "
            f"{run.forecaster.best_epoch}, the best on the validation rows"
        )


def _say_what_the_guard_found(run: TrainingRun) -> None:
    training = run.forecaster.training
    assert training is not None
    if training.stop_reason != "paused" and not run.forecaster.guard_ended:
        what = "the guard (--guard) had compared the model with forecasts that need no training"
        if not run.forecaster.guard:
            what = "the intervals (--level) were known; they have no bounds"
        note(f"interrupted before {what}")
    note_what_the_guard_chose(run.forecaster)


def _say_how_it_ended(run: TrainingRun, out: Path, num_epochs: int, *, quiet: bool) -> None:
    forecaster = run.forecaster
    training = forecaster.training
    assert training is not None
    last = training.history[-1]
    why = {"patience": ", stopped by --patience", "paused": ", interrupted"}.get(training.stop_reason, "")
    planned = last.epoch if training.stop_reason == "num_steps" else num_epochs
    in_tf32 = " in TF32" if forecaster.device.tf32 else ""
    what, best = f"epoch {last.epoch}/{planned}", f"best epoch {training.best_epoch}, "
    if forecaster.model == "ridge":
        what, best = "ridge regression", ""
    elif not forecaster.refit_ended:
        what, best = f"refit: {what}", ""
    note(f"{what}: training loss {number_text(last.cost)}, {best}{last.seconds:.1f} s{in_tf32}{why}", quiet=quiet)
    if run.has_test:
        note(
            f"the first test windows reach back into the last {rows_text(forecaster.window_length)} before the test "
            "set",
            quiet=quiet,
        )
    note(f"written to {out}", quiet=quiet)


def _say_if_nothing_was_left(run: TrainingRun, *, quiet: bool) -> None:
    """Where a resumed run had come to its end before, what to raise to train further."""
    training = run.forecaster.training
    assert training is not None
    epoch = training.history[-1].epoch
    if run.state is None or epoch > run.state.epoch or run.forecaster.selection is not run.selection:
        return
    if run.forecaster.model == "ridge":
        note("the run was complete; a ridge regression is fitted at once, so there is nothing to resume", quiet=quiet)
    elif training.stop_reason == "patience":
        note(
            f"warning: no epoch was trained: the run stopped early after epoch {epoch} (--patience "
            f"{run.forecaster.patience}); to train further, give a larger --patience with --allow-changes"
        )
    elif training.stop_reason == "num_epochs":
        note("the run was complete; to train further, give a larger --num-epochs with --allow-changes", quiet=quiet)
    elif training.stop_reason == "num_steps" and run.selection is not None:
        note("the run was complete; to train further, train a new run", quiet=quiet)
    elif training.stop_reason == "num_steps":
        note("the run was complete; to train further, train a new run with a larger --num-steps", quiet=quiet)


def _write_run(
    folder: Path, run: TrainingRun, drift: "Drift | None", others: "dict[str, OtherForecast]", *, quiet: bool
) -> tuple[dict[str, Any], Any]:
    """Write all files of the run; the metrics and the evaluated parts."""
    from gru_xp.forecasting.windows import Split
    from gru_xp.reporting.run_folder import (
        MODEL_FILE,
        write_cost_plot,
        write_history,
        write_metrics,
        write_panel_predictions,
        write_plots,
        write_predictions,
        written_to,
    )

    forecaster, series, training = run.forecaster, run.series, run.forecaster.training
    assert training is not None
    parts: Any
    if is_panel(series):
        parts = evaluate_run(run)
        metrics_of_parts = {name: part.metrics for name, part in parts.items()}
    else:
        parts = _evaluated(run, others, quiet=quiet)
        metrics_of_parts = {part.name: part.metrics for part in parts}
    metrics = {
        "file": str(run.source.path),
        "target": series.target,
        "reading": forecaster.notes["reading"],
        "series": series.reading.to_dict(),
        "missing": series.missing,
        "device": {
            "requested": forecaster.notes["requested_device"],
            "used": forecaster.device.name,
            "tf32": forecaster.device.tf32,
            "reason": forecaster.device.reason,
        },
        "epochs": training.history[-1].epoch,
        "best_epoch": forecaster.best_epoch,
        "stop_reason": training.stop_reason,
        "problem": training.problem,
        "seconds": training.history[-1].seconds,
        "parts": metrics_of_parts,
    }
    metrics |= {name: forecaster.notes[name] for name in ("auto", "transform") if name in forecaster.notes}
    selection = forecaster.selection
    if selection is not None:
        metrics["selection"] = {
            "best_epoch": selection.best_epoch,
            "validation_loss": selection.history[selection.best_epoch].validation_cost,
            "epochs": selection.history[-1].epoch,
            "stop_reason": selection.stop_reason,
        }
    if drift is not None:
        metrics["verify_cpu"] = {name: None if value == math.inf else value for name, value in asdict(drift).items()}
    with written_to(folder.parent):
        forecaster.save(folder / MODEL_FILE)
        write_history(folder, training.history)
        if selection is not None:
            write_history(folder, selection.history, of_selection=True)
        write_metrics(folder, metrics)
        plots = run.facts.get("plots", PLOT_FORMATS[0])  # older runs do not say
        if is_panel(series):
            write_panel_predictions(folder, parts)
            if plots != "none":
                write_cost_plot(folder, plots, forecaster)
            return metrics, metrics_of_parts
        write_predictions(folder, run.source.one, parts)
        assert isinstance(run.split, Split)
        if plots != "none":
            write_plots(folder, plots, forecaster, run.source.one, run.split, parts)
    return metrics, parts


def _evaluated(run: TrainingRun, others: "dict[str, OtherForecast]", *, quiet: bool) -> "list[EvaluatedPart]":
    """The parts of a run of one series."""
    from gru_xp.forecasting.evaluation import evaluate
    from gru_xp.forecasting.windows import Split

    forecaster, series, split = run.forecaster, run.source.one, run.split
    assert isinstance(split, Split)
    asked = {name: split.part(name) for name in ("train", "validation", "test")}
    windows = (len(series) - split.fit_end) // forecaster.horizon
    others = {**zero_shot_beside(series, forecaster.season, forecaster.device, windows, quiet=quiet), **others}
    return evaluate(forecaster, series, asked, forecaster.horizon, learned=split.fit_end, others=others)
