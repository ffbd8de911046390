"""``gru-xp train``."""

import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from .messages import choose_device, note, print_json, print_parts
from .options import Command, DeviceRequest, FiniteRange, column_options, device_options, json_option, quiet_option
from .progress import interruptible, watch
from .sources import read_source, rows_checksum

POSITIVE = FiniteRange(min=0, min_open=True)
RATE = FiniteRange(0, 1, max_open=True)
COUNT = click.IntRange(min=1)
SIZE = click.IntRange(1, 4096)


@click.command(
    cls=Command,
    epilog="Example: gru-xp train GOOG.csv --hidden-size 64 --out runs/goog",
)
@click.argument("csv", metavar="CSV")
@column_options("Close, or the only numeric column")
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
@click.option("--num-layers", type=COUNT, metavar="N", default=1, show_default=True, help="GRU layers one on another.")
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
    "--num-epochs", type=COUNT, metavar="N", default=300, show_default=True, help="Passes over the training windows."
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
@quiet_option
@json_option
def train(
    csv: str,
    target: str | None,
    features: tuple[str, ...],
    split_ratio: float,
    validation_ratio: float,
    device: DeviceRequest,
    out: Path | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a GRU on the series in CSV and hold it against the naive forecast.

    CSV is a file with a header line, or the bare name of a bundled one: AAPL, GOOG, IBM, sunspots. Its rows are in
    the order of time. The run's folder gets the model, its history, metrics, predictions and plots.

    Ctrl-C ends the training after the current epoch and keeps the best so far; a second one ends it at once and keeps
    nothing.
    """
    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.windows import split_rows
    from gru_xp.reporting.run_folder import run_folder

    settings["patience"] = settings["patience"] or None
    if settings["dropout"] > 0 and settings["num_layers"] == 1:
        raise click.UsageError("--dropout acts between layers; use --num-layers 2 or more, or --recurrent-dropout")
    forecaster = Forecaster(validation_ratio=validation_ratio, **settings)
    source = read_source(csv, target, features, quiet=quiet)
    series = source.series
    split = split_rows(len(series), forecaster.seq_length, split_ratio, validation_ratio)
    default_out = Path("runs", f"{source.path.stem}-{datetime.now():%Y%m%d-%H%M%S}")
    with interruptible() as interrupt:
        with run_folder(out or default_out, overwrite=overwrite, unique=out is None) as folder:
            out = folder.parent
            chosen = choose_device(device, quiet=quiet)
            with watch(forecaster.num_epochs, interrupt, quiet=quiet) as callback, warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a cost that is not finite is said below
                forecaster.fit(series.head(split.fit_end), device=chosen, callback=callback)
            forecaster.notes = {
                "file": str(source.path),
                "bundled": source.bundled,
                "fit_sha256": rows_checksum(series, split.fit_end),
                "split_ratio": split_ratio,
                "train_end": split.train_end,
                "fit_end": split.fit_end,
                "last_label": series.labels[split.fit_end - 1] if series.labels else None,
                "requested_device": device.name,
                "device_reason": chosen.reason,
                "threads": chosen.threads,
                "created": datetime.now().astimezone().isoformat(timespec="seconds"),
            }
            metrics, parts = _write_run(folder, forecaster, series, split)
        _say_how_it_ended(forecaster, out, has_test=split.fit_end < len(series), quiet=quiet)
        if as_json:
            print_json({"run": str(out), **metrics})
        else:
            print_parts(f"{source.path.name}, {series.target}: predictions of the next row", parts)
    if metrics["problem"] is not None:
        raise click.ClickException(metrics["problem"])
    if interrupt.pressed:
        sys.exit(130)


def _say_how_it_ended(forecaster: Any, out: Path, *, has_test: bool, quiet: bool) -> None:
    training = forecaster.training
    last = training.history[-1]
    why = {"patience": ", stopped by --patience", "callback": ", stopped by Ctrl-C"}.get(training.stop_reason, "")
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


def _write_run(folder: Path, forecaster: Any, series: Any, split: Any) -> tuple[dict[str, Any], list[Any]]:
    """Write all files of the run; the metrics and the evaluated parts."""
    from gru_xp.forecasting.evaluation import evaluate
    from gru_xp.reporting.run_folder import MODEL_FILE, write_history, write_metrics, write_plots, write_predictions

    training = forecaster.training
    parts = evaluate(forecaster, series, {name: split.part(name) for name in ("train", "validation", "test")})
    metrics = {
        "file": forecaster.notes["file"],
        "target": series.target,
        "device": {
            "requested": forecaster.device.requested,
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
    forecaster.save(folder / MODEL_FILE)
    write_history(folder, training.history)
    write_metrics(folder, metrics)
    write_predictions(folder, series, parts)
    write_plots(folder, series, parts, training.history, training.best_epoch)
    return metrics, parts
