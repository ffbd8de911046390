"""``gru-xp evaluate``."""

import sys
from typing import Any

import click

from .messages import note, note_if_no_ridge, note_what_the_guard_chose, print_json, print_parts
from .options import (
    Command,
    DeviceRequest,
    column_options,
    compare_option,
    device_options,
    forecasts_to_compare,
    json_option,
    quiet_option,
)
from .reading import reading_options
from .sources import open_run, read_run_source, training_rows, warn_of_learned_rows

BELOW_NAIVE = 3
"""Exit code if a model is worse than a forecast that needs no training."""


@click.command(cls=Command, epilog="Example: gru-xp evaluate runs/goog IBM.csv")
@click.argument("run", metavar="RUN", type=click.Path())
@click.argument("csv", metavar="[CSV]", required=False, type=click.Path())
@click.option(
    "--steps",
    "--horizon",
    "horizon",
    type=click.IntRange(min=1),
    metavar="N",
    help="Steps ahead of each forecast.  [default: as in the run]",
)
@click.option(
    "--fail-below-naive",
    is_flag=True,
    help="Exit with 3 if, in the last part, the best forecast that needs no training has a lower MAE, and with 1 if "
    "that part has no forecast.",
)
@column_options("as in the run")
@reading_options
@device_options
@compare_option
@quiet_option
@json_option
def evaluate(
    run: str,
    csv: str | None,
    horizon: int | None,
    fail_below_naive: bool,
    target: str | None,
    features: tuple[str, ...] | str,
    reading: dict[str, Any],
    device: DeviceRequest,
    compare: tuple[str, ...],
    quiet: bool,
    as_json: bool,
) -> None:
    """Evaluate RUN's model and compare it with baselines.

    The baselines are forecasts that need no training: last value, mean, drift, and seasonal naive. Where the training
    rows are known, a ridge regression is fitted to them, too.

    RUN is a run folder or a model file. Without CSV, the data of the run are used. A file that starts with the rows
    that the model was trained on is evaluated in parts, as by train; any other file is one part.
    """
    from gru_xp.forecasting import evaluation
    from gru_xp.forecasting.backtest import name_in_text

    others = forecasts_to_compare(compare)
    forecaster = open_run(run, device, quiet=quiet)
    source, known = read_run_source(run, forecaster, csv, target, features, reading, quiet=quiet)
    series, notes, used = source.series, forecaster.notes, forecaster.device
    training = None
    if known:
        parts = {
            "train": slice(0, notes["train_end"]),
            "validation": slice(notes["train_end"], notes["fit_end"]),
            "test": slice(notes["fit_end"], None),
        }
    else:
        parts = {"all": slice(0, None)}
        training = training_rows(run, forecaster)
        if csv is not None:
            warn_of_learned_rows(forecaster, series, training)
    evaluated = evaluation.evaluate(
        forecaster,
        series,
        parts,
        horizon or forecaster.horizon,
        learned=notes["fit_end"] if known else None,
        training=training,
        others=others,
    )
    *_, tested = parts
    if fail_below_naive and evaluated[-1].name != tested:
        raise click.ClickException(
            f"--fail-below-naive: the {tested} part has no window of {horizon or forecaster.horizon} step(s) to judge "
            "by; give more rows, or a smaller --steps"
        )
    for name in [name for name in parts if name not in [part.name for part in evaluated]]:
        if rows := len(range(len(series))[parts[name]]):
            note(f"warning: {name} part: its {rows} row(s) have no window of {horizon or forecaster.horizon} step(s)")
    note_what_the_guard_chose(forecaster, quiet=quiet)
    last = evaluated[-1].metrics
    note_if_no_ridge(last, source.path.name, known=known, quiet=quiet)
    if as_json:
        print_json(
            {
                "run": run,
                "file": str(source.path),
                "target": source.target,
                "device": {"requested": device.name, "used": used.name, "tf32": used.tf32, "reason": used.reason},
                "parts": {part.name: part.metrics for part in evaluated},
            }
        )
    else:
        print_parts(source.path.name, source.target, evaluated)
    errors = {model: measures["mae"] for model, measures in last["models"].items()}
    if fail_below_naive and errors[last["model"]] > errors[last["best_baseline"]]:
        note(f"{evaluated[-1].name} part: the best baseline, {name_in_text(last['best_baseline'])}, has a lower MAE")
        sys.exit(BELOW_NAIVE)
