"""``gru-xp train``."""

import math
import shlex
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .messages import choose_device, note, print_json, print_parts
from .options import Command, DeviceRequest, FiniteRange, column_options, device_options, json_option, quiet_option
from .progress import Interrupt, interruptible, watch
from .reading import reading_options
from .training_run import TrainingRun, new_run, resumed_run

if TYPE_CHECKING:
    from gru_xp.forecasting.verification import Drift, Witness
    from gru_xp.training.checkpoint import Checkpoints
    from gru_xp.training.trainer import TrainingState

POSITIVE = FiniteRange(min=0, min_open=True)
RATE = FiniteRange(0, 1, max_open=True)
COUNT = click.IntRange(min=1)
EPOCHS = click.IntRange(1, 2**31 - 1)
SIZE = click.IntRange(1, 4096)
LAYERS = click.IntRange(1, 1000)


@click.command(
    cls=Command,
    epilog="Example: gru-xp train GOOG.csv --hidden-size 64 --out runs/goog",
)
@click.argument("csv", metavar="[CSV]", required=False, type=click.Path())
@column_options("Close, or the only numeric column")
@reading_options
@click.option(
    "--split-ratio",
    type=FiniteRange(0, 1, min_open=True),
    metavar="X",
    default=0.7,
    show_default=True,
    help="Share of the rows, from the first, to learn from; the rest is the test part, whose first windows look "
    "back into them.",
)
@click.option(
    "--validation-ratio",
    type=FiniteRange(0, 1, max_open=True),
    metavar="X",
    default=0.2,
    show_default=True,
    help="Share of those rows, from their end, that is not trained on but chooses the best epoch; 0 for none.",
)
@click.option(
    "--seq-length", type=COUNT, metavar="N", default=10, show_default=True, help="Rows that a prediction looks back on."
)
@click.option("--hidden-size", type=SIZE, metavar="N", default=32, show_default=True, help="Size of a layer's state.")
@click.option("--num-layers", type=LAYERS, metavar="N", default=1, show_default=True, help="GRU layers one on another.")
@click.option("--bidirectional", is_flag=True, help="Run each layer over the window backwards, too.")
@click.option(
    "--dropout",
    type=RATE,
    metavar="X",
    default=0.0,
    show_default=True,
    help="Share of what a layer hands on to the next that is left out at random while learning.",
)
@click.option(
    "--recurrent-dropout",
    type=RATE,
    metavar="X",
    default=0.0,
    show_default=True,
    help="Share of the candidate that is left out while learning, the same at all steps of a window.",
)
@click.option(
    "--zoneout",
    type=RATE,
    metavar="X",
    default=0.0,
    show_default=True,
    help="Share of the state's updates that are left out at random while learning.",
)
@click.option(
    "--num-epochs", type=EPOCHS, metavar="N", default=300, show_default=True, help="Passes over the training windows."
)
@click.option("--learning-rate", type=POSITIVE, metavar="X", default=0.002, show_default=True, help="Length of a step.")
@click.option(
    "--optimizer",
    type=click.Choice(["adam", "sgd", "momentum"]),
    default="adam",
    show_default=True,
    help="How parameters are updated.",
)
@click.option(
    "--reduction",
    type=click.Choice(["mean", "sum"]),
    help="What the gradient is taken of, over a batch's windows; the reported cost is always the mean.  "
    "[default: mean for adam, sum for sgd and momentum]",
)
@click.option("--batch-size", type=COUNT, metavar="N", help="Windows an update.  [default: all]")
@click.option(
    "--keep-every",
    type=COUNT,
    metavar="N",
    help="Keep the states of every N-th step alone and compute the others again, for less memory.  [default: keep all]",
)
@click.option("--clip-norm", type=POSITIVE, metavar="X", help="Largest norm of the gradient.  [default: no limit]")
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    metavar="N",
    default=50,
    show_default=True,
    help="Stop after so many epochs without a better cost; 0 for never.",
)
@click.option(
    "--scaling",
    type=click.Choice(["last", "standard"]),
    default="last",
    show_default=True,
    help="Scale windows relative to their last row, or by the training rows' mean and standard deviation.",
)
@click.option(
    "--reset",
    type=click.Choice(["before", "after"]),
    default="before",
    show_default=True,
    help="Whether the reset gate acts before the recurrent product, or after it as in PyTorch and Keras.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Numbers to compute in.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the initial parameters, of the order of mini-batches, and of what is left out.",
    metavar="N",
)
@device_options
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the run.  [default: runs/<file>-<time>]"
)
@click.option("--overwrite", is_flag=True, help="Write into --out even if it exists.")
@click.option(
    "--checkpoint-every", type=COUNT, metavar="N", help="Write a checkpoint after every N epochs, and at the end."
)
@click.option(
    "--checkpoint-seconds",
    type=FiniteRange(min=0),
    metavar="S",
    help="Write a checkpoint every S seconds.  [default: after 5, then every 30, or more where writing would take over "
    "1 % of the time]",
)
@click.option(
    "--resume",
    type=click.Path(),
    metavar="RUN",
    help="Go on with the run in this folder; CSV and its options are its own.",
)
@click.option(
    "--allow-changes",
    is_flag=True,
    help="With --resume: go on though the file has changed, or with another --num-epochs, --learning-rate, "
    "--clip-norm, --patience, --keep-every, --device or --threads.",
)
@click.option(
    "--verify-cpu",
    is_flag=True,
    help="Train again on the CPU (a model of the CPU: by the plain formulas), and say how far the two are apart.",
)
@quiet_option
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    /,
    csv: str | None,
    target: str | None,
    features: tuple[str, ...],
    reading: dict[str, str],
    split_ratio: float,
    validation_ratio: float,
    device: DeviceRequest,
    out: Path | None,
    overwrite: bool,
    checkpoint_every: int | None,
    checkpoint_seconds: float | None,
    resume: str | None,
    allow_changes: bool,
    verify_cpu: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a GRU on the series in CSV and hold it against the naive forecast.

    CSV is a file with a header line (also gzip, zip, Parquet, or - for stdin), or the bare name of a bundled one: AAPL,
    GOOG, IBM, sunspots. The run's folder gets the model, its history, metrics, predictions and plots, and checkpoints
    while it is trained.

    Ctrl-C ends the training after the current batch, with a checkpoint and the best model so far; a second one ends it
    at once, with the last checkpoint. --resume goes on from there, and ends with the same bits as without a stop.
    """
    from gru_xp.forecasting.verification import Witness
    from gru_xp.reporting.run_folder import CHECKPOINT_FILE, checkpoint_file, run_folder

    if resume is not None:
        for name, value in (("--out", out), ("--overwrite", overwrite), ("--verify-cpu", verify_cpu)):
            if value:
                raise click.UsageError(f"{name} is for a new run; leave it out with --resume")
        run = resumed_run(checkpoint_file(resume), csv, _given(ctx), allow_changes=allow_changes, quiet=quiet)
        folder = run_folder(Path(resume), overwrite=True)
    else:
        if csv is None:
            raise click.UsageError("Missing argument 'CSV': a file, a bundled name such as GOOG.csv, or --resume RUN.")
        if allow_changes:
            raise click.UsageError("--allow-changes is for --resume")
        settings |= {"validation_ratio": validation_ratio, "patience": settings["patience"] or None}
        if settings["dropout"] > 0 and settings["num_layers"] == 1:
            raise click.UsageError("--dropout acts between layers; use --num-layers 2 or more, or --recurrent-dropout")
        run = new_run(csv, target, features, reading, split_ratio, settings, quiet=quiet)
        run.facts |= {"checkpoint_every": checkpoint_every, "checkpoint_seconds": checkpoint_seconds}
        default_out = Path("runs", f"{run.source.path.stem}-{datetime.now():%Y%m%d-%H%M%S}")
        folder = run_folder(out or default_out, overwrite=overwrite, unique=out is None)
    forecaster, request = run.forecaster, run.device or device
    with interruptible() as interrupt:
        with folder as partial_folder:
            out = partial_folder.parent
            chosen = choose_device(request, quiet=quiet)
            run.use(chosen, request.name)
            replaces_another = resume is None and (out / CHECKPOINT_FILE).exists()
            checkpoints = _checkpoints(run, out, replaces_another, lambda: interrupt.by is not None)
            witness = Witness(checkpoints) if verify_cpu else None  # its snapshot is for that alone
            with watch(forecaster.num_epochs, quiet=quiet) as callback, warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a cost that is not finite is said below
                forecaster.fit(
                    run.learned, device=chosen, callback=callback, pause=witness or checkpoints, state=run.state
                )
            checkpoints.write()
            drift = None if witness is None else _verify(run, witness, interrupt)
            metrics, parts = _write_run(partial_folder, run, drift)
        _say_if_nothing_was_left(run, quiet=quiet)
        _say_how_it_ended(forecaster, out, has_test=run.split.fit_end < len(run.series), quiet=quiet)
        if as_json:
            print_json({"run": str(out), **metrics})
        else:
            print_parts(f"{run.source.path.name}, {run.source.target}: predictions of the next row", parts)
    if interrupt.by is not None and (out / CHECKPOINT_FILE).exists():
        note(f"Stopped. Continue with: gru-xp train --resume {shlex.quote(str(out))}")
    if metrics["problem"] is not None:
        raise click.ClickException(metrics["problem"])
    if interrupt.by is not None:
        sys.exit(interrupt.exit_code)
    if drift is not None:
        _say_drift(drift)


def _given(ctx: click.Context) -> dict[str, Any]:
    """The options about the training that were given, by name."""
    others = ("csv", "resume", "allow_changes", "out", "overwrite", "verify_cpu", "quiet", "as_json", "debug")
    default = click.core.ParameterSource.DEFAULT
    given = {name: value for name, value in ctx.params.items() if ctx.get_parameter_source(name) is not default}
    if "patience" in given:
        given["patience"] = given["patience"] or None
    return {name: value for name, value in given.items() if name not in others}


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
    said = (
        f"compared with {drift.reference}: parameters differ by {drift.first_epoch:.1e} of the largest after epoch 1 "
        f"(limit {drift.limit:.0e})"
    )
    if not drift.is_within_limit:
        raise click.ClickException(f"{said}; do not trust this device, or switch TF32 off (CUPY_TF32=0)")
    note(f"{said}, by {drift.last_epoch:.1e} after epoch {drift.epochs}, costs by {drift.cost:.1e}")


def _say_how_it_ended(forecaster: Any, out: Path, *, has_test: bool, quiet: bool) -> None:
    training = forecaster.training
    last = training.history[-1]
    why = {"patience": ", stopped by --patience", "paused": ", interrupted"}.get(training.stop_reason, "")
    note(
        f"epoch {last.epoch}/{forecaster.num_epochs}: cost {last.cost:.4g}, best epoch {training.best_epoch}, "
        f"{last.seconds:.1f} s{why}",
        quiet=quiet,
    )
    if has_test:
        note(
            f"the first {forecaster.seq_length} test windows look back into the rows before the test part", quiet=quiet
        )
    note(f"written to {out}", quiet=quiet)


def _say_if_nothing_was_left(run: TrainingRun, *, quiet: bool) -> None:
    """Where a resumed run had come to its end before, what to raise to train further."""
    training = run.forecaster.training
    assert training is not None
    epoch = training.history[-1].epoch
    if run.state is None or epoch > run.state.epoch:
        return
    if training.stop_reason == "patience":
        note(
            f"warning: no epoch was trained: the run had stopped after epoch {epoch}, by --patience "
            f"{run.forecaster.patience}; to train further, give a larger --patience with --allow-changes"
        )
    elif training.stop_reason == "num_epochs":
        note("the run was complete; to train further, give more --num-epochs with --allow-changes", quiet=quiet)


def _write_run(folder: Path, run: TrainingRun, drift: "Drift | None") -> tuple[dict[str, Any], list[Any]]:
    """Write all files of the run; the metrics and the evaluated parts."""
    from gru_xp.forecasting.evaluation import evaluate
    from gru_xp.reporting.run_folder import (
        MODEL_FILE,
        write_history,
        write_metrics,
        write_plots,
        write_predictions,
        written_to,
    )

    forecaster, series, training = run.forecaster, run.series, run.forecaster.training
    assert training is not None
    parts = evaluate(forecaster, series, {name: run.split.part(name) for name in ("train", "validation", "test")})
    metrics = {
        "file": str(run.source.path),
        "target": series.target,
        "reading": forecaster.notes["reading"],
        "missing": series.missing,
        "device": {
            "requested": forecaster.notes["requested_device"],
            "used": forecaster.device.name,
            "reason": forecaster.device.reason,
        },
        "epochs": training.history[-1].epoch,
        "best_epoch": training.best_epoch,
        "stop_reason": training.stop_reason,
        "problem": training.problem,
        "seconds": training.history[-1].seconds,
        "parts": {part.name: part.metrics for part in parts},
    }
    if drift is not None:
        metrics["verify_cpu"] = {name: None if value == math.inf else value for name, value in asdict(drift).items()}
    with written_to(folder.parent):
        forecaster.save(folder / MODEL_FILE)
        write_history(folder, training.history)
        write_metrics(folder, metrics)
        write_predictions(folder, series, parts)
        write_plots(folder, series, parts, training.history, training.best_epoch)
    return metrics, parts
