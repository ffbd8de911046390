"""``article``: the experiment of the article that this project starts from."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.report import device_option, json_option, quick_option, save_json
from gru_xp.cli.messages import note, print_table
from gru_xp.cli.options import Command
from gru_xp.forecasting.presets import ARTICLE

if TYPE_CHECKING:
    from gru_xp.devices import Device
    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.evaluation import EvaluatedPart
    from gru_xp.io.series import TimeSeries

SETTINGS: dict[str, Any] = {**ARTICLE, "hidden_size": 70}
SPLIT_RATIO = 0.7
LAST_ROWS = 250
COMMAND_REPEATS = 3
PUBLISHED = {
    "series": "GOOG, 250 daily rows, 2022-07 to 2023-07",
    "train_mse": 1.70,
    "test_mse": 6.57,
}
"""The article's own figures, standardised mean squared errors, about; its 250 rows are not bundled."""


def run_experiment(
    series: "TimeSeries", device: "Device", settings: dict[str, Any]
) -> "tuple[Forecaster, list[EvaluatedPart], dict[str, Any]]":
    """Train on the first part of `series` and evaluate both parts; the forecaster, the parts and a row of results."""
    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.evaluation import evaluate
    from gru_xp.forecasting.windows import split_rows

    forecaster = Forecaster(**settings)
    split = split_rows(len(series), forecaster.seq_length, SPLIT_RATIO, forecaster.validation_ratio)
    forecaster.fit(series.head(split.fit_end), device=device)
    parts = evaluate(forecaster, series, {name: split.part(name) for name in ("train", "test")}, learned=split.fit_end)
    training = forecaster.training
    assert training is not None
    row = {
        "series": series.name,
        "rows": len(series),
        "cost_start": training.history[0].cost,
        "cost_end": training.history[-1].cost,
        "epochs": training.history[-1].epoch,
        "best_epoch": training.best_epoch,
        "seconds": training.history[-1].seconds,
        "parts": {part.name: part.metrics for part in parts},
    }
    for errors in (errors for part in parts for errors in part.metrics["models"].values()):
        errors["mse/var"] = (errors["rmse"] / forecaster.scaler.std[0]) ** 2
    return forecaster, parts, row


def run_command(series: "TimeSeries", device: str, settings: dict[str, Any]) -> float:
    """Seconds of ``gru-xp train`` on `series` as a user runs it: a process from its start to its end."""
    others = {name: value for name, value in settings.items() if name not in ARTICLE or value != ARTICLE[name]}
    options = ["--preset", "article"]
    for name, value in others.items():
        options += [f"--{name.replace('_', '-')}", str(value)]
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder, "GOOG.csv")
        rows = zip(series.labels or (), series.values[:, 0].tolist(), strict=True)
        csv.write_text("Date,Close\n" + "".join(f"{date},{value!r}\n" for date, value in rows), encoding="utf-8")
        options += ["--device", device, "--split-ratio", str(SPLIT_RATIO), "--quiet", "--out", str(Path(folder, "run"))]
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", "from gru_xp.cli import main; main()", "train", str(csv), *options],
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - start
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise click.ClickException(f"gru-xp train: {last}")
    return seconds


@click.command(cls=Command)
@device_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the initial weights.")
@click.option(
    "--plots", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Write the three plots to DIR."
)
@quick_option("20 epochs instead of 1000")
@json_option
def article(device: str, seed: int, plots: Path | None, quick: bool, json_file: Path | None) -> None:
    """Run the article's experiment on the bundled GOOG series and on its last 250 rows.

    The article used 250 daily rows of GOOG, 2022-07 to 2023-07, which are not bundled: same task, other rows.
    """
    from gru_xp.data import bundled_file
    from gru_xp.devices import resolve_device
    from gru_xp.io.read import read_series

    goog = read_series(bundled_file("GOOG.csv"))
    goog = replace(goog, name="GOOG")
    chosen = resolve_device(device, fallback=False)
    settings = {**SETTINGS, "seed": seed}
    if quick:
        settings["num_epochs"] = 20
    rows = []
    for series in (goog, _tail(goog, LAST_ROWS)):
        note(f"{series.name}: {len(series)} rows, {settings['num_epochs']} epochs on {chosen.name}")
        forecaster, parts, row = run_experiment(series, chosen, settings)
        rows.append(row)
        if plots is not None:
            _plot(plots, forecaster, series, parts)

    last_rows = _tail(goog, LAST_ROWS)
    command_seconds = [run_command(last_rows, chosen.name, settings) for _ in range(1 if quick else COMMAND_REPEATS)]

    print_table(
        "The article's experiment: mean squared errors in units of the training rows' variance",
        (
            "series",
            "rows",
            "train, start",
            "train, end",
            "train, naive",
            "test",
            "test, naive",
            "best epoch",
            "seconds",
        ),
        list(_cells(rows)),
        left=1,
    )
    click.echo(
        f"gru-xp train on the last {LAST_ROWS} rows, from start to end: {statistics.median(command_seconds):.2f} s"
    )
    note("the article's rows are not the bundled ones, so its errors stand beside ours, not against them")
    settings = {**settings, "split_ratio": SPLIT_RATIO, "device": chosen.name, "quick": quick, "published": PUBLISHED}
    summary = {"command_seconds": statistics.median(command_seconds), "command_seconds_each": command_seconds}
    save_json(json_file, "article", settings, rows, summary)


def _tail(series: "TimeSeries", rows: int) -> "TimeSeries":
    return replace(
        series,
        values=series.values[-rows:],
        labels=series.labels and series.labels[-rows:],
        dates=series.dates and series.dates[-rows:],
        rows=None,
        name=f"{series.name}, last {rows}",
    )


def _cells(rows: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        errors = [
            row["parts"][part]["models"][forecast]["mse/var"]
            for part, forecast in (("train", "LastValue"), ("test", "GRU"), ("test", "LastValue"))
        ]
        numbers = (row["cost_start"], row["cost_end"], *errors)
        yield (
            row["series"],
            str(row["rows"]),
            *(f"{number:.4g}" for number in numbers),
            str(row["best_epoch"]),
            f"{row['seconds']:.1f}",
        )
    yield (
        f"published ({PUBLISHED['series']})",
        "250",
        "",
        f"about {PUBLISHED['train_mse']:.2f}",
        "",
        f"about {PUBLISHED['test_mse']:.2f}",
    )


def _plot(folder: Path, forecaster: "Forecaster", series: "TimeSeries", parts: "list[EvaluatedPart]") -> None:
    """``<rows>-rows-cost_plot.png`` and so on."""
    from gru_xp.reporting.figures import training_plot
    from gru_xp.reporting.plots import residual_plot, sequence_plot
    from gru_xp.reporting.style import save_figure

    test = parts[-1]
    figures = {
        "cost_plot": training_plot(forecaster),
        "sequence_plot": sequence_plot(series, test),
        "residual_plot": residual_plot(series, test),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            save_figure(figure, folder / f"goog-{len(series)}-rows-{name}.png")
    except OSError as error:
        raise click.ClickException(f"{folder}: the plots cannot be written ({error.strerror or error})") from error
