"""``zero-shot``: forecasts of the pretrained network, beside other libraries."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.accuracy.environments import PACKAGES, prepare_packages
from benchmarks.accuracy.series import SOURCES, load
from benchmarks.checkout import ROOT
from benchmarks.report import grouped, json_option, number_text, save_json
from benchmarks.zero_shot import own
from benchmarks.zero_shot.peers import Windows
from benchmarks.zero_shot.processes import PEERS, forecast_kept
from benchmarks.zero_shot.sets import ID, ForecastSet, SetFile, parse_set, public_set, read_set, repeated
from benchmarks.zero_shot.times import SHORT, times
from gru_xp.cli.messages import note, print_table
from gru_xp.cli.options import Command
from gru_xp.pretrained.features import CONTEXT
from gru_xp.pretrained.weights import Weights

OWN = "zero-shot"
MODELS = (OWN, *PEERS)

TOLERANCE = 0.05
"""An error that is at most this much larger than that of the better naive forecast counts as no worse."""

GROUPS = {"public": "public series", "own": "sets"}


def _parse_sets(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[SetFile]:
    try:
        return [parse_set(value) for value in values]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("zero-shot", cls=Command)
@click.option(
    "--set",
    "files",
    multiple=True,
    metavar="PATH:HORIZON:SEASON[:FREQ]",
    callback=_parse_sets,
    help="A CSV file or a folder of them, the rows to forecast, the rows of a season (1 for none; 24,168 for two), and "
    "the spacing of the rows, if the season is to be found by the calendar, too. May be repeated.",
)
@click.option("--id", "id_column", default=ID, show_default=True, metavar="COLUMN", help="What tells series apart.")
@click.option(
    "--value", "value_column", metavar="COLUMN", help="The values.  [default: y, or the only column of numbers]"
)
@click.option("--sets-only", is_flag=True, help="Leave the public series out.")
@click.option(
    "--series",
    "names",
    multiple=True,
    type=click.Choice([source.name for source in SOURCES]),
    help="Only these public series.  [default: all]",
)
@click.option("--model", "models", multiple=True, type=click.Choice(MODELS), help="Only these models.  [default: all]")
@click.option(
    "--origins",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Most forecasts of each public series.",
)
@click.option(
    "--weights",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Weights of the network.  [default: gru-xp's own]",
)
@click.option("--no-times", is_flag=True, help="Measure errors only.")
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/accuracy"),
    show_default=True,
    metavar="FOLDER",
    help="Where environments and forecasts of other libraries are kept, as in accuracy.",
)
@json_option
def zero_shot(
    files: list[SetFile],
    id_column: str,
    value_column: str | None,
    sets_only: bool,
    names: tuple[str, ...],
    models: tuple[str, ...],
    origins: int,
    weights: str | None,
    no_times: bool,
    work: Path,
    json_file: Path | None,
) -> None:
    """Measure zero-shot forecasts of public series and of sets at hand, beside statsforecast and Fracast-0.

    Each forecast is made from the rows before it. Public series are forecast from rolling origins in the last 20 % of
    the rows; of each series of a set, the last HORIZON rows are forecast. A file with a column unique_id has several
    series; without one, or in a folder, each file is a series. The other libraries and the packages with the public
    series are installed into FOLDER.
    """
    if sets_only and names:
        raise click.UsageError("--series and --sets-only exclude each other; give one of them")
    if sets_only and not files:
        raise click.UsageError("--sets-only leaves nothing to measure; give --set, too")
    models = tuple(model for model in MODELS if model in (models or MODELS))
    path = str(Path(weights).absolute()) if weights else ""
    loaded = own.load(path)
    sets = [read_set(file, id_column, value_column) for file in files]
    _make(work)
    if not sets_only:
        packages = prepare_packages(work)
        wanted = [source for source in SOURCES if source.name in (names or [source.name])]
        sets = [public_set(load(source, packages, ROOT / "data"), origins) for source in wanted] + sets
    if twice := repeated([one.name for one in sets]):
        raise click.ClickException(f"several sets are called {', '.join(map(repr, twice))}; rename the files")
    rows = []
    for one in sets:
        found = rows_of(one, loaded, models, work)
        rows += found
        note(f"{one.name}: " + "; ".join(f"{row['model']} {_ratio_text(row)}" for row in found if "naive" not in row))
    summary = summary_of(rows)
    timed = [] if no_times else times(list(_timed(models)), path, work)
    _print(rows, summary, timed)
    for sentence in sentences(summary):
        click.echo(sentence)
    settings = {
        "threads": 1,
        "origins": origins,
        "weights": Path(weights).name if weights else "gru-xp's own",
        "weights_metadata": dict(loaded.metadata),
        "series_packages": {} if sets_only else PACKAGES,
        "packages": {name: version for row in rows for name, version in row.pop("versions", {}).items()},
    }
    save_json(json_file, "zero-shot", settings, [*rows, *timed], summary)


def _make(work: Path) -> None:
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{work} cannot be made ({error.strerror or error}); use another --work") from error


def _timed(models: Sequence[str]) -> Iterator[str]:
    for model in models:
        yield from own.VARIANTS if model == OWN else (model,)


# --- errors -----------------------------------------------------------------------------------------------------


def rows_of(one: ForecastSet, weights: Weights, models: Sequence[str], work: Path) -> list[dict[str, Any]]:
    """The results of all models on a set: the naive ones first."""
    common = {
        "set": one.name,
        "group": "own" if one.tuned is None else "public",
        "tuned": one.tuned,
        "series": len(one.series),
        "left_out": one.left_out,
        "forecasts": len(one.known),
        "rows": sum(map(len, one.series)),
        "season": list(one.seasons),
        "freq": one.freq,
        "horizon": one.horizon,
    }
    errors = {name: one.mase(y_pred) for name, y_pred in own.naive_forecasts(one).items()}
    better = min(errors.values())
    rows = [
        common | {"model": name, "naive": True, "mase": error, "by_better_naive": error / better}
        for name, error in errors.items()
    ]
    for row in _model_rows(one, weights, models, work):
        quantiles = row.pop("quantiles", None)
        if quantiles is not None:
            error = one.mase(quantiles[:, :, 1])
            coverage = one.coverage(quantiles[:, :, 0], quantiles[:, :, 2])
            row |= {"mase": error, "by_better_naive": error / better, "coverage": coverage}
        rows.append(common | row)
    return rows


def _model_rows(one: ForecastSet, weights: Weights, models: Sequence[str], work: Path) -> Iterator[dict[str, Any]]:
    for model in models:
        if model == OWN:
            for variant in own.VARIANTS:
                quantiles = own.zero_shot_forecasts(one, variant, weights)
                if quantiles is not None:
                    yield {"model": variant, "quantiles": quantiles}
            continue
        result = forecast_kept(model, Windows(one.known, one.horizon, one.season), work)
        if result.quantiles is None:
            yield {"model": model, "problem": result.problem}
        else:
            yield {"model": model, "quantiles": result.quantiles, "versions": result.about["versions"]}


def summary_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of each model over the public series, and over the sets."""
    summary = {}
    for group, title in GROUPS.items():
        by_model: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["group"] == group and "naive" not in row and "mase" in row:
                by_model.setdefault(row["model"], []).append(row)
        if by_model:
            sets = len({row["set"] for row in rows if row["group"] == group})
            summary[group] = {
                "title": title,
                "sets": sets,
                "models": {model: _means(found) for model, found in by_model.items()},
            }
    return summary


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ratios = [row["by_better_naive"] for row in rows]
    return {
        "sets": len(rows),
        "by_better_naive": float(np.exp(np.mean(np.log(ratios)))),
        "worst": max(ratios),
        "worse": [row["set"] for row in rows if row["by_better_naive"] > 1 + TOLERANCE],
        "coverage": float(np.mean([row["coverage"] for row in rows])),
    }


def sentences(summary: dict[str, Any]) -> Iterator[str]:
    """What the summary says of zero-shot forecasts as ``gru-xp forecast`` makes them."""
    for key, title in GROUPS.items():
        models = summary.get(key, {}).get("models", {})
        for variant in (own.CALENDAR, own.FOUND):
            if variant in models:
                found, worse = models[variant], models[variant]["worse"]
                which = variant.removeprefix(f"{OWN}, ")
                yield (
                    f"Zero-shot forecasts ({which}) are at most {TOLERANCE:.0%} worse than the better naive forecast "
                    f"on {found['sets'] - len(worse)} of {found['sets']} {title}"
                    + (f"; they are worse on {', '.join(worse)}." if worse else ".")
                )


# --- tables -----------------------------------------------------------------------------------------------------


def _print(rows: Sequence[dict[str, Any]], summary: dict[str, Any], timed: Sequence[dict[str, Any]]) -> None:
    columns = ("by better naive", "in 80 % interval")
    header: tuple[str, ...] = ("set", "model", "MASE", *columns)
    print_table("Zero-shot forecasts, beside others", header, list(_cells(rows)), left=2)
    for group in summary.values():
        header = ("model", "sets", columns[0], "worst", columns[1])
        print_table(f"{group['sets']} {group['title']}, geometric means", header, list(_mean_cells(group)), left=1)
    if timed:
        header = ("model", "ms, alone", "ms, of 256", "start to end, s", "parameters", "bytes")
        title = f"CPU time of series of {CONTEXT} rows, and wall time from start to end of one of {SHORT}"
        print_table(title, header, list(_time_cells(timed)), left=1)


def _ratio_text(row: dict[str, Any]) -> str:
    return f"{row['by_better_naive']:.3f}" if "mase" in row else row["problem"]


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        if "mase" not in row:
            return row["model"], row["problem"], "", ""
        coverage = f"{row['coverage']:.1%}" if "coverage" in row else ""
        return row["model"], f"{row['mase']:.3f}", f"{row['by_better_naive']:.3f}", coverage

    return grouped(((row["set"],), cells(row)) for row in rows)


def _mean_cells(group: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for model, found in group["models"].items():
        ratios = (f"{found[key]:.3f}" for key in ("by_better_naive", "worst"))
        yield model, str(found["sets"]), *ratios, f"{found['coverage']:.1%}"


def _time_cells(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        keys = ("batch_1_ms", "batch_256_ms", "start_seconds")
        numbers = (number_text(row[key]) if key in row else "" for key in keys)
        whole = (f"{row[key]:,}" if key in row else "" for key in ("parameters", "weights_bytes"))
        yield row["model"], *numbers, *whole
