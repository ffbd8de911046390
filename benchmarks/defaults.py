"""``defaults``: the default settings and their neighbours on every bundled series."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.report import device_option, json_option, quick_option, save_json
from gru_xp.cli.messages import note, print_table
from gru_xp.cli.options import Command

if TYPE_CHECKING:
    from gru_xp.devices import Device
    from gru_xp.io.series import TimeSeries

SERIES = ("GOOG", "AAPL", "IBM", "sunspots")
SEEDS = (0, 1, 2)
SPLIT_RATIO = 0.7


def neighbours() -> list[dict[str, Any]]:
    """The default settings first, then others that differ from them in one, in several scalings."""
    from gru_xp.forecasting import Forecaster

    default = Forecaster()
    scalings = dict.fromkeys((default.scaling, "last", "standard"))
    size, rate = default.hidden_size, default.learning_rate
    sizes_and_rates = [(size, rate), (size // 2, rate), (2 * size, rate), (size, rate / 2), (size, 2 * rate)]
    return [
        {"scaling": scaling, "hidden_size": hidden_size, "learning_rate": learning_rate}
        for scaling in scalings
        for hidden_size, learning_rate in sizes_and_rates
    ]


def run_setting(
    series: "TimeSeries", device: "Device", settings: dict[str, Any], seeds: tuple[int, ...], num_epochs: int | None
) -> dict[str, Any]:
    """Train with each seed; a row with the lists of results, seed by seed."""
    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.evaluation import evaluate
    from gru_xp.forecasting.windows import split_rows

    row: dict[str, Any] = {"series": series.name, **settings}
    results: dict[str, list[Any]] = {
        name: [] for name in ("test_skill", "validation_skill", "epochs", "best_epoch", "seconds")
    }
    for seed in seeds:
        forecaster = Forecaster(**settings, seed=seed)
        if num_epochs is not None:
            forecaster.num_epochs = num_epochs
        split = split_rows(len(series), forecaster.shortest_window, SPLIT_RATIO, forecaster.validation_ratio)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the best epoch before a cost that is not finite counts
            forecaster.fit(series.head(split.fit_end), device=device)
        names = ("validation", "test") if forecaster.validation_ratio > 0 else ("test",)
        parts = evaluate(forecaster, series, {name: split.part(name) for name in names}, learned=split.fit_end)
        for part in parts:
            results[f"{part.name}_skill"].append(part.metrics["skill"])
        training = forecaster.training
        assert training is not None
        results["epochs"].append(training.history[-1].epoch)
        results["best_epoch"].append(training.best_epoch)
        results["seconds"].append(training.history[-1].seconds)
    return row | results


@click.command(cls=Command)
@device_option
@quick_option("Two epochs of one seed")
@json_option
def defaults(device: str, quick: bool, json_file: Path | None) -> None:
    """Train with the default settings, and with others around them, on every bundled series.

    Shows the skill, 1 - MAE / MAE of the best forecast that needs no training: mean and range over seeds.
    """
    from gru_xp.data import bundled_file
    from gru_xp.devices import resolve_device
    from gru_xp.forecasting import Forecaster
    from gru_xp.io.read import read_series

    chosen = resolve_device(device, fallback=False)
    seeds, num_epochs = (SEEDS[:1], 2) if quick else (SEEDS, None)
    rows = []
    for name in SERIES:
        note(f"{name}: {len(neighbours())} settings, {len(seeds)} seed{'s' * (len(seeds) != 1)}, on {chosen.name}")
        series = replace(read_series(bundled_file(f"{name}.csv")), name=name)
        rows += [run_setting(series, chosen, settings, seeds, num_epochs) for settings in neighbours()]

    print_table(
        f"Skill against the best baseline, mean (and range) over {len(seeds)} seed{'s' * (len(seeds) != 1)}; "
        "* the defaults",
        ("series", "scaling", "", "hidden size", "learning rate", "test", "range", "validation", "epochs", "seconds"),
        list(_cells(rows)),
        left=3,
    )
    default = Forecaster().settings()
    settings = {"defaults": default, "split_ratio": SPLIT_RATIO, "seeds": seeds, "device": chosen.name, "quick": quick}
    save_json(json_file, "defaults", settings, rows)


def _cells(rows: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """The table's rows, a gap between series."""
    default = neighbours()[0]
    last: tuple[str, str] | None = None
    for row in rows:
        group = (row["series"], row["scaling"])
        if last is not None and last[0] != group[0]:
            yield ()
        skills = [skill for skill in row["test_skill"] if skill is not None]
        yield (
            "" if last is not None and last[0] == group[0] else group[0],
            "" if group == last else group[1],
            "*" if all(row[name] == value for name, value in default.items()) else "",
            str(row["hidden_size"]),
            f"{row['learning_rate']:g}",
            _mean(row["test_skill"]),
            f"{min(skills):+.1%} to {max(skills):+.1%}" if skills else "",
            _mean(row["validation_skill"]),
            f"{sum(row['epochs']) / len(row['epochs']):.0f}",
            f"{sum(row['seconds']) / len(row['seconds']):.1f}",
        )
        last = group


def _mean(skills: list[float | None]) -> str:
    there = [skill for skill in skills if skill is not None]
    return f"{sum(there) / len(there):+.1%}" if there else "n/a"
