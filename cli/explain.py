"""``gru-xp explain``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gru_xp.reporting.text import number_text

from .messages import note, print_json, print_sentence, print_table
from .options import (
    Command,
    DeviceRequest,
    column_options,
    device_options,
    json_option,
    quiet_option,
    settings_as_options,
)
from .reading import reading_options
from .sources import check_out, open_run, read_run_source

if TYPE_CHECKING:
    from gru_xp.forecasting.explanation import Explanation

PICTURES = (".png", ".svg", ".pdf")
"""Suffixes of a heat map; that of a table of all values is .csv."""

MOST_VALUES = 10
"""Rows of the table, one for each value that contributes most."""


def _check_suffixes(ctx: click.Context, param: click.Parameter, values: tuple[Path, ...]) -> tuple[Path, ...]:
    for value in values:
        if value.suffix.lower() not in (*PICTURES, ".csv"):
            suffixes = ", ".join(PICTURES)
            raise click.BadParameter(f"'{value}' must end in {suffixes} for a heat map, or in .csv for all values.")
    return values


@click.command(cls=Command, epilog="Example: gru-xp explain runs/goog --out why.png")
@click.argument("run", metavar="RUN", type=click.Path())
@click.argument("csv", metavar="[CSV]", required=False, type=click.Path())
@click.option(
    "--step",
    type=click.IntRange(min=1),
    metavar="N",
    help="Explain the forecast of this step ahead, up to the horizon of the run.  [default: the mean of the horizon]",
)
@column_options("as in the run")
@reading_options
@device_options
@click.option(
    "--out",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    callback=_check_suffixes,
    help="Draw the contributions as a heat map over time and columns in this .png, .svg or .pdf file, or write all of "
    "them to this .csv file; give it once for each.",
)
@click.option("--overwrite", is_flag=True, help="Replace each FILE if it exists.")
@quiet_option
@json_option
def explain(
    run: str,
    csv: str | None,
    step: int | None,
    target: str | None,
    features: tuple[str, ...] | str,
    reading: dict[str, Any],
    device: DeviceRequest,
    out: tuple[Path, ...],
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Show which values of the last rows a forecast is due to.

    The forecast is that of the rows after the series, by the model of RUN, a run folder or a model file; without CSV,
    the data of the run are used. Each value's contribution is in the units of the target. The contributions add up to
    the difference between the forecast and that of a baseline, in which all rows are like the last one (integrated
    gradients). How far they miss it is printed, too.
    """
    for path in out:
        check_out(path, run, csv, overwrite=overwrite)
    if overwrite and not out:
        raise click.UsageError("--overwrite needs --out")
    forecaster = open_run(run, device, quiet=quiet)
    read, _ = read_run_source(run, forecaster, csv, target, features, reading, quiet=quiet)
    with settings_as_options():
        explanation = forecaster.explain(read.one, step)
    if as_json:
        used = forecaster.device
        print_json(
            {
                "run": run,
                "file": str(read.path),
                "target": read.target,
                "device": {"requested": device.name, "used": used.name, "tf32": used.tf32, "reason": used.reason},
                **explanation.to_dict(),
            }
        )
    else:
        _print(explanation, f"{read.path.name}, {read.target}")
    for path in out:
        _write(path, explanation, read.path.name)
        note(f"written to {path}", quiet=quiet)


def _print(explanation: "Explanation", title: str) -> None:
    """The values that contribute most, in order of time, and what all of them add up to."""
    from gru_xp.errors import printable
    from gru_xp.forecasting.explanation import TOLERANCE, forecast_name

    frame = explanation.to_frame()
    most = sorted(frame["attribution"].abs().nlargest(MOST_VALUES).index)
    F = len(explanation.columns)
    times = [str(row) for row in explanation.rows.tolist()] if explanation.labels is None else explanation.labels
    columns, values, attributions = (frame.loc[most, name].tolist() for name in ("column", "value", "attribution"))
    rows = [
        (printable(times[number // F]), printable(column), number_text(value), _signed(attribution))
        for number, column, value, attribution in zip(most, columns, values, attributions, strict=True)
    ]
    total = frame["attribution"].sum()
    if len(frame) > len(rows):
        others = total - frame.loc[most, "attribution"].sum()
        rows.append((f"{len(frame) - len(rows)} others", "", "", _signed(others)))
    rows.append(("all", "", "", _signed(total)))
    header = ("row" if explanation.labels is None else "date", "column", "value", "contribution")
    print_table(f"{title}: what the {forecast_name(explanation)} is due to", header, rows, left=2)
    baseline, forecast = (number_text(number) for number in (explanation.baseline_forecast, explanation.forecast))
    print_sentence(
        f"The forecast is {forecast}. Were all rows like the last one, it would be {baseline}; the contributions add "
        "up to the difference."
    )
    missed = abs(explanation.completeness_error)
    print_sentence(f"Completeness: they miss it by {missed:.2g}.")
    if missed > 10 * TOLERANCE * frame["attribution"].abs().sum():
        print_sentence("That is much: the forecast is at a limit of --min or --max, or bends sharply on the way.")


def _signed(number: float) -> str:
    return f"{'-' if number < 0 else '+'}{number_text(abs(number))}"


def _write(path: Path, explanation: "Explanation", name: str) -> None:
    """All contributions as a table, or as a heat map."""
    from gru_xp.errors import DataError, printable

    try:
        if path.suffix.lower() == ".csv":
            explanation.to_frame().to_csv(path, index=False)
        else:
            from gru_xp.reporting.heat_map import write_heat_map

            write_heat_map(path, explanation, f"{printable(name)}:")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); use another --out") from error
