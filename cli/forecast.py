"""``gru-xp forecast``."""

import csv as csv_module
import sys

import click

from .messages import note, print_json
from .options import Command, DeviceRequest, column_options, device_options, quiet_option
from .reading import reading_options
from .sources import open_run, read_run_source


@click.command(cls=Command, epilog="Example: gru-xp forecast runs/goog --steps 5 > next-week.csv")
@click.argument("run", metavar="RUN", type=click.Path())
@click.argument("csv", metavar="[CSV]", required=False, type=click.Path())
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Number of values to forecast.",
)
@column_options("as in the run")
@reading_options
@device_options
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of CSV.")
def forecast(
    run: str,
    csv: str | None,
    steps: int,
    target: str | None,
    features: tuple[str, ...],
    reading: dict[str, str],
    device: DeviceRequest,
    quiet: bool,
    as_json: bool,
) -> None:
    """Forecast the values after the end of a series, as CSV.

    RUN is a run folder or a model file. Without CSV, the data of the run are used. Each value is predicted from the
    ones before it. Dates continue at the spacing of the file; trading days are Monday to Friday, as holidays are not
    known. If the spacing has no rule, dates are left empty.
    """
    from gru_xp.errors import printable
    from gru_xp.forecasting.dates import format_date, next_dates
    from gru_xp.forecasting.reading.cells import listed

    forecaster = open_run(run, device, quiet=quiet)
    source, _ = read_run_source(run, forecaster, csv, target, features, reading, quiet=quiet)
    series = source.series
    if len(series.columns) > 1 and steps > 1:
        note(f"future values of {listed(series.columns[1:])} are unknown; each keeps its last value", quiet=quiet)
    values = forecaster.forecast(series, steps).tolist()
    dates = None if series.dates is None else next_dates(series.dates, steps)
    like = series.labels[-1] if series.labels else ""
    labels = [""] * steps if dates is None else [format_date(date, like) for date in dates]
    if as_json:
        print_json(
            [
                {"step": step, "date": label or None, source.target: value}
                for step, (label, value) in enumerate(zip(labels, values, strict=True), start=1)
            ]
        )
        return
    writer = csv_module.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("step", "date", printable(source.target, None)))
    for step, (label, value) in enumerate(zip(labels, values, strict=True), start=1):
        writer.writerow((step, label, repr(value)))
