"""``gru-xp forecast``."""

import contextlib
import csv as csv_module
import math
import re
import sys
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from gru_xp.io.messages import option

from .exclusive import OF_RUN, check_without_run, check_zero_shot, refuse_given
from .messages import note, note_what_the_guard_chose, print_json
from .options import (
    Command,
    DeviceRequest,
    Limits,
    column_options,
    device_options,
    limit_options,
    quiet_option,
    season_option,
    weights_option,
)
from .panel import is_panel, print_forecasts
from .reading import reading_options
from .sources import is_run, open_run, read_options, read_run_source, read_source
from .zero_shot import naive_forecasts, note_no_training, open_zero_shot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.windows import Floats
    from gru_xp.io.series import Reading, TimeSeries
    from gru_xp.pretrained import ZeroShotForecaster

    from .sources import Source

_BARE_DIGIT = re.compile(r"(?<!\d)\d(?!\d)")
_RECENT = 400
"""Labels that are looked at to see whether days and hours have leading zeros."""


@click.command(cls=Command, epilog="Example: gru-xp forecast runs/goog --steps 5 > next-week.csv")
@click.argument("source", metavar="CSV|RUN", type=click.Path())
@click.argument("csv", metavar="[CSV]", required=False, type=click.Path())
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Number of values to forecast.",
)
@column_options("Close, or the only numeric column; with RUN, as in the run")
@season_option(
    "With CSV alone: rows of a season; two numbers, such as 24,168, for two seasons. auto finds them.  [default: auto]"
)
@weights_option("With CSV alone")
@limit_options
@reading_options
@device_options
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of CSV.")
@click.pass_context
def forecast(
    ctx: click.Context,
    /,
    source: str,
    csv: str | None,
    steps: int,
    target: str | None,
    features: tuple[str, ...] | str,
    season: Any,
    weights: str | None,
    limits: Limits,
    reading: dict[str, Any],
    device: DeviceRequest,
    quiet: bool,
    as_json: bool,
) -> None:
    """Forecast the values after the end of a series, as CSV.

    With CSV alone, nothing is trained: a pretrained GRU forecasts the target. The column of the target has the median;
    further columns have quantiles, the last value and the seasonal naive forecast. With RUN, a run folder or a model
    file, its model forecasts; without CSV, the data of the run are used. Each value is predicted from the ones before
    it. A model of --level, or of --loss quantile, gaussian or poisson, also gives quantiles: 80 % of the values are
    expected between GRU-lo-80 and GRU-hi-80.

    Dates continue at the usual spacing of the rows, written as in the file; trading days are Monday to Friday, as
    holidays are not known. If there is no usual spacing, --freq sets it.
    """
    if is_run(source, csv):
        from gru_xp.io.messages import listed

        refuse_given(ctx, ("season", "weights"), OF_RUN)
        forecaster = open_run(source, device, limits, quiet=quiet)
        read, _ = read_run_source(source, forecaster, csv, target, features, reading, quiet=quiet)
        if is_panel(read.series):
            _forecast_panel(forecaster, read, steps, as_json=as_json, quiet=quiet)
            return
        series = read.one
        if len(series.columns) > 1 and steps > 1:
            note(f"future values of {listed(series.columns[1:])} are unknown; each keeps its last value", quiet=quiet)
        point, *others = forecaster.forecast_distributions(series, [len(series)], steps).items()
        note_what_the_guard_chose(forecaster, quiet=quiet)
        if forecaster.outputs.levels and steps > forecaster.horizon:
            ahead = f"step {forecaster.horizon}" if forecaster.horizon > 1 else "one step ahead"
            note(f"intervals beyond --horizon {forecaster.horizon} are as wide as those of {ahead}", quiet=quiet)
        columns = {read.target: point[1][0], **{name: values[0] for name, values in others}}
    else:
        check_without_run(source, csv)
        check_zero_shot(ctx)
        zero_shot = open_zero_shot(season, weights, device, quiet=quiet)
        read = read_source(source, target, (), read_options({}, reading), quiet=quiet)
        series = read.one
        seasons = note_no_training(zero_shot, series, weights, steps, quiet=quiet)
        own, naive = _quantiles(zero_shot, series, read.target, steps), naive_forecasts(series, seasons, steps)
        if limits.given():
            low = -math.inf if limits.minimum is None else limits.minimum
            high = math.inf if limits.maximum is None else limits.maximum
            own = {name: values.clip(low, high) for name, values in own.items()}
        columns = own | {name: values for name, values in naive.items() if name not in own}
    _print(series, columns, steps, as_json=as_json)


def _quantiles(forecaster: "ZeroShotForecaster", series: "TimeSeries", target: str, steps: int) -> "dict[str, Floats]":
    """The columns of a zero-shot forecast, in which the median is the column of the target."""
    (_, median), *others = forecaster.forecast_distributions(series, [len(series)], steps).items()
    return {target: median[0]} | {name: values[0] for name, values in others if not name.endswith("-median")}


def _print(series: "TimeSeries", columns: "Mapping[str, Floats]", steps: int, *, as_json: bool) -> None:
    """Print forecasts ``(steps,)`` by column, with the dates of the rows that follow."""
    from gru_xp.errors import printable

    rows = [
        dict(zip(columns, values, strict=True))
        for values in zip(*(values.tolist() for values in columns.values()), strict=True)
    ]
    labels, problem = next_labels(series, steps)
    if problem is not None:
        note(f"{series.name}: no dates for the forecast: {problem}")
    if as_json:
        steps_of = enumerate(zip(labels, rows, strict=True), start=1)
        print_json([{"step": step, "date": label or None, **row} for step, (label, row) in steps_of])
        return
    writer = csv_module.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("step", "date", *(printable(name, None) for name in columns)))
    for step, (label, row) in enumerate(zip(labels, rows, strict=True), start=1):
        writer.writerow((step, label, *map(repr, row.values())))


def _forecast_panel(forecaster: "Forecaster", read: "Source", steps: int, *, as_json: bool, quiet: bool) -> None:
    """Print the forecasts after the end of several series."""
    from gru_xp.forecasting.predicting import forecast_origins
    from gru_xp.io.panel import Panel

    panel = read.series
    assert isinstance(panel, Panel)
    named = forecaster.named_forecasts(forecast_origins(forecaster, panel, panel.offsets[1:], steps))
    note_what_the_guard_chose(forecaster, quiet=quiet)
    print_forecasts(panel, read.target, named, as_json=as_json)


def next_labels(series: "TimeSeries", count: int) -> tuple[list[str], str | None]:
    """Continue the dates or numbers of the rows; if that is impossible, give empty texts and the reason."""
    from gru_xp.errors import printable
    from gru_xp.io.messages import quoted

    if series.labels is None:
        return [""] * count, None
    if series.dates is None:
        labels, problem = _next_numbers(series.labels, count)
    else:
        labels, problem = _next_dates(series.labels, series.dates, series.reading, count)
    if not problem and not labels:
        problem = f"the calendar ends soon after {quoted(series.labels[-1])}"
    return [printable(label, None) for label in labels or [""] * count], problem or None


def _next_dates(
    labels: "Sequence[str]", dates: "Sequence[datetime]", reading: "Reading", count: int
) -> tuple[list[str], str]:
    """Continue the dates of the rows, written as they are, or give the reason why that is impossible."""
    from gru_xp.io.dates import format_date
    from gru_xp.io.messages import quoted
    from gru_xp.io.spacing import find_spacing, next_dates

    spacing = find_spacing(dates) if reading.freq is None else None
    freq = reading.freq if spacing is None else spacing.freq
    if freq is None:
        pair = [quoted(labels[row]) for row in (spacing and spacing.breaks) or ()]
        which = f" ({' and '.join(pair)} break it)" if pair else ""
        remedy = option("freq", _fitting_freq(dates))
        return [], f"the rows have no usual spacing{which}; give {remedy} or another pandas offset"
    following = next_dates(dates[-1], freq, count) or []
    like = max(labels[:-_RECENT:-1], key=lambda label: len(_BARE_DIGIT.findall(label)))
    return [format_date(date, like=like, form=reading.date_form) for date in following], ""


def _fitting_freq(dates: "Sequence[datetime]") -> str:
    """The longest of the usual units of time that all dates are a multiple of."""
    from gru_xp.io.messages import CellError
    from gru_xp.io.spacing import find_spacing

    for freq in ("D", "h", "min", "s"):
        with contextlib.suppress(CellError):
            find_spacing(dates, freq)
            return freq
    return "us"


def _next_numbers(labels: "Sequence[str]", count: int) -> tuple[list[str], str]:
    """Continue the numbers of the rows, or give the reason why that is impossible."""
    from gru_xp.io.messages import quoted

    try:
        numbers = [Decimal(str(float(label))) for label in labels[-10:]]
        steps = {b - a for a, b in pairwise(numbers)}
    except (ValueError, InvalidOperation):
        return [], f"{quoted(labels[-1])} is not a date"
    if len(numbers) < 3 or len(steps) > 1 or 0 in steps:
        return [], f"the last numbers, up to {quoted(labels[-1])}, are not equally spaced"
    kind = int if all(number % 1 == 0 for number in numbers) else float
    return [str(kind(numbers[-1] + (n + 1) * (numbers[-1] - numbers[-2]))) for n in range(count)], ""
