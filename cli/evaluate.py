"""``gru-xp evaluate``."""

import sys
from typing import TYPE_CHECKING, Any

import click

from .diagnostics import find_patterns
from .exclusive import OF_RUN, check_without_run, check_zero_shot, refuse_given
from .messages import (
    accuracy_title,
    note,
    note_if_no_ridge,
    note_what_the_guard_chose,
    print_accuracy,
    print_json,
    print_sentence,
)
from .options import (
    Command,
    DeviceRequest,
    Limits,
    column_options,
    compare_option,
    device_options,
    forecasts_to_compare,
    json_option,
    limit_options,
    quiet_option,
    season_option,
    weights_option,
)
from .panel import check_several, evaluate_source, is_panel, print_panel
from .reading import reading_options
from .sources import (
    is_run,
    open_run,
    read_options,
    read_run_source,
    read_source,
    training_rows,
    warn_of_learned_rows,
)
from .zero_shot import backtest_zero_shot, note_no_training, open_zero_shot, zero_shot_beside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.backtest import OtherForecast
    from gru_xp.io.series import TimeSeries

BELOW_NAIVE = 3
"""Exit code if a model is worse than a forecast that needs no training."""


@click.command(cls=Command, epilog="Example: gru-xp evaluate runs/goog IBM.csv")
@click.argument("source", metavar="CSV|RUN", type=click.Path())
@click.argument("csv", metavar="[CSV]", required=False, type=click.Path())
@click.option(
    "--steps",
    "--horizon",
    "horizon",
    type=click.IntRange(min=1),
    metavar="N",
    help="Steps ahead of each forecast.  [default: as in the run, or 1]",
)
@click.option(
    "--fail-below-naive",
    is_flag=True,
    help="Exit with 3 if, in the last part, the best forecast that needs no training has a lower MAE, and with 1 if "
    "that part has no forecast.",
)
@column_options("Close, or the only numeric column; with RUN, as in the run")
@season_option(
    "With CSV alone: rows of a season; two numbers, such as 24,168, for two seasons. auto finds them.  [default: auto]"
)
@weights_option("With CSV alone")
@limit_options
@reading_options
@device_options
@click.option(
    "--diagnostics",
    is_flag=True,
    help="Look for patterns in the errors of the last part, one step ahead (extra stats). Where their size is unequal, "
    "the run is trained again with --transform log, to compare.",
)
@compare_option
@quiet_option
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    source: str,
    csv: str | None,
    horizon: int | None,
    fail_below_naive: bool,
    target: str | None,
    features: tuple[str, ...] | str,
    season: Any,
    weights: str | None,
    limits: Limits,
    reading: dict[str, Any],
    device: DeviceRequest,
    diagnostics: bool,
    compare: tuple[str, ...],
    quiet: bool,
    as_json: bool,
) -> None:
    """Evaluate a model and compare it with baselines.

    The baselines are forecasts that need no training: last value, mean, drift, and seasonal naive. Where the training
    rows are known, a ridge regression is fitted to them, too.

    With RUN, a run folder or a model file, its model is evaluated; without CSV, on the data of the run. A file that
    starts with the rows that the model was trained on is evaluated in parts, as by train; any other file is one part.
    With CSV alone, a pretrained GRU forecasts the last 30 % of the rows, with no training.
    """
    from gru_xp.forecasting.backtest import name_in_text

    others, found = forecasts_to_compare(compare), None
    if is_of_run := is_run(source, csv):
        refuse_given(ctx, ("season", "weights"), OF_RUN)
        forecaster = open_run(source, device, limits, quiet=quiet)
        read, known = read_run_source(source, forecaster, csv, target, features, reading, quiet=quiet)
        steps, used = horizon or forecaster.horizon, forecaster.device
        if is_several := is_panel(read.series):
            refused = {"--compare": compare, "--fail-below-naive": fail_below_naive, "--diagnostics": diagnostics}
            check_several(refused)
            by_part = evaluate_source(forecaster, source, read, steps, known=known)
            panel_parts = {name: part.metrics for name, part in by_part.items()}
        training = None
        if not known and not is_several:
            training = training_rows(source, forecaster)
            if csv is not None:
                warn_of_learned_rows(forecaster, read.one, training)
        parts = (
            panel_parts
            if is_several
            else _parts_of_run(
                forecaster,
                read.one,
                steps,
                training,
                others,
                known=known,
                demanded=fail_below_naive,
                quiet=quiet,
            )
        )
        if known and not is_several:
            training = read.one.head(forecaster.notes["fit_end"])
        note_what_the_guard_chose(forecaster, quiet=quiet)
        if diagnostics:
            found = find_patterns(forecaster, read.one, steps, known=known, quiet=quiet)
    else:
        check_without_run(source, csv)
        if diagnostics:
            raise click.UsageError("--diagnostics needs RUN, whose errors are looked at")
        check_zero_shot(ctx, limits.given())
        zero_shot = open_zero_shot(season, weights, device, quiet=quiet)
        read = read_source(source, target, (), read_options({}, reading), quiet=quiet)
        steps, used, is_several = horizon or 1, zero_shot.device, False
        note_no_training(zero_shot, read.one, weights, steps, rolling=True, quiet=quiet)
        result = backtest_zero_shot(zero_shot, read.one, steps, others=others)
        parts, training = {"test": result.metrics}, result.series.head(result.learned)
    *_, (name, last) = parts.items()
    if not is_several:
        note_if_no_ridge(last, read.path.name, training, quiet=quiet)
    if as_json:
        print_json(
            {
                "run": source if is_of_run else None,
                "file": str(read.path),
                "target": read.target,
                "device": {"requested": device.name, "used": used.name, "tf32": used.tf32, "reason": used.reason},
                "parts": parts,
                **({} if found is None else {"diagnostics": found.to_dict()}),
            }
        )
    elif is_several:
        print_panel(read.path.name, read.target, parts)
    else:
        print_accuracy(accuracy_title(read.path.name, read.target, steps), parts)
        for sentence in () if found is None else found.sentences:
            print_sentence(sentence)
    if is_several:
        return
    errors = {model: measures["mae"] for model, measures in last["models"].items()}
    if fail_below_naive and errors[last["model"]] > errors[last["best_baseline"]]:
        note(f"{name} part: the best baseline, {name_in_text(last['best_baseline'])}, has a lower MAE")
        sys.exit(BELOW_NAIVE)


def _parts_of_run(
    forecaster: "Forecaster",
    series: "TimeSeries",
    horizon: int,
    training: "TimeSeries | None",
    others: "Mapping[str, OtherForecast]",
    *,
    known: bool,
    demanded: bool,
    quiet: bool,
) -> dict[str, dict[str, Any]]:
    """The metrics of each part that has a window, of a series whose first rows are `known` to a model, or of another.

    An error if it is `demanded` that the last part has one.
    """
    from gru_xp.forecasting import evaluation

    notes = forecaster.notes
    parts = {"all": slice(0, None)}
    if known:
        parts = {
            "train": slice(0, notes["train_end"]),
            "validation": slice(notes["train_end"], notes["fit_end"]),
            "test": slice(notes["fit_end"], None),
        }
    *_, tested = parts
    rows = {name: len(range(len(series))[part]) for name, part in parts.items()}
    windows = rows[tested] // horizon
    beside = zero_shot_beside(series, forecaster.season, forecaster.device, windows, quiet=quiet)
    evaluated = evaluation.evaluate(
        forecaster,
        series,
        parts,
        horizon,
        learned=notes["fit_end"] if known else None,
        training=training,
        others={**beside, **others},
    )
    found = {part.name: part.metrics for part in evaluated}
    if demanded and tested not in found:
        raise click.ClickException(
            f"--fail-below-naive: the {tested} part has no window of {horizon} step(s) to judge by; give more rows, or "
            "a smaller --steps"
        )
    for name in parts:
        if rows[name] and name not in found:
            note(f"warning: {name} part: its {rows[name]} row(s) have no window of {horizon} step(s)")
    return found
