"""``accuracy``: forecasts of public series, beside other libraries."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.accuracy import own
from benchmarks.accuracy.environments import PACKAGES, PEERS, prepare_packages
from benchmarks.accuracy.measurements import SEEDLESS, Measurement, job_of, mase, measure, spread
from benchmarks.accuracy.series import LEARNED, SOURCES, Series, load
from benchmarks.checkout import ROOT
from benchmarks.report import json_option, number_text, save_json
from gru_xp.cli.messages import note, print_table
from gru_xp.cli.options import Command

MODELS = (*own.MODELS, *PEERS)
OUR_GRU = "gru-xp"
GRUS = ("GRU (neuralforecast)", "GRU (darts)")
DLINEAR = "DLinear (neuralforecast)"

TOLERANCE = 0.02
"""A MASE that is at most this much larger counts as no worse."""
MANY_WINDOWS = 10
"""From so many origins on, gru-xp shall not be worse than the best naive forecast."""


@click.command(cls=Command)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/accuracy"),
    show_default=True,
    metavar="FOLDER",
    help="Where environments and finished results are kept; a run continues where another one stopped.",
)
@click.option("--model", "models", multiple=True, type=click.Choice(MODELS), help="Only these models.  [default: all]")
@click.option(
    "--series",
    "names",
    multiple=True,
    type=click.Choice([source.name for source in SOURCES]),
    help="Only these series.  [default: all]",
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Number of seeds.")
@click.option("--finished", is_flag=True, help="Run nothing: show the results that are kept.")
@json_option
def accuracy(
    work: Path, models: tuple[str, ...], names: tuple[str, ...], seeds: int, finished: bool, json_file: Path | None
) -> None:
    """Measure forecasts of public series, beside statsforecast, neuralforecast and darts.

    Models learn from the first 80 % of the rows and forecast the rest from rolling origins, a horizon apart, without
    being fitted again. The other libraries and the packages with the series are installed into FOLDER.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{work} cannot be made ({error.strerror or error}); use another --work") from error
    packages = prepare_packages(work)
    all_series = [
        load(source, packages, ROOT / "data") for source in SOURCES if source.name in (names or [source.name])
    ]
    results: dict[tuple[str, str], list[Measurement]] = {}
    for seed in range(seeds):
        for model in models or MODELS:
            for series in sorted(all_series, key=lambda one: len(one.values)):
                if seed and model in SEEDLESS:
                    continue
                found = measure(model, series, seed, work, run_missing=not finished)
                if found is not None:
                    results.setdefault((series.source.name, model), []).append(found)
                    if not finished:
                        text = found.problem or f"MASE {found.mase:.3f}, {found.fit_seconds:.1f} s"
                        note(f"{series.source.name}, {model}, seed {seed}: {text}")
    rows = [row for series in all_series for row in rows_of(series, results)]
    summary = summary_of(rows)
    header = ("series", "model", "MASE", "range", "skill", "fit, s", "forecasts, s")
    print_table(f"Forecasts of {len(all_series)} series", header, list(_cells(rows)), left=2)
    for sentence in sentences(summary):
        click.echo(sentence)
    versions = {name: version for row in rows for name, version in row.get("versions", {}).items()}
    settings = {"threads": 1, "seeds": seeds, "learned": LEARNED, "series_packages": PACKAGES, "packages": versions}
    save_json(json_file, "accuracy", settings, rows, summary)


def rows_of(series: Series, results: dict[tuple[str, str], list[Measurement]]) -> list[dict[str, Any]]:
    """The results of all models on a series: the naive ones first."""
    job = job_of(series, 0)
    source = series.source
    common = {
        "series": source.name,
        "package": source.package,
        "tuned": source.tuned,
        "freq": source.freq,
        "rows": len(series.values),
        "season": source.season,
        "horizon": source.horizon,
        "origins": len(series.origins),
    }
    errors = {name: mase(series, y_pred) for name, y_pred in own.naive_forecasts(job).items()}
    best = min(errors.values())
    rows = [
        common | {"model": name, "mase": error, "skill": 1 - error / best, "problem": None}
        for name, error in errors.items()
    ]
    for (name, model), found in results.items():
        if name != source.name:
            continue
        row = common | {"model": model, "problem": next((one.problem for one in found if one.problem), None)}
        values = [one.mase for one in found if one.mase is not None]
        if values and row["problem"] is None:
            row |= spread(values) | {"skill": 1 - float(np.mean(values)) / best, "mase_by_seed": values}
            if model in own.MODELS:
                row["same_as"] = _same_as(values, errors)
            for key in ("fit_seconds", "forecast_seconds"):
                row[key] = float(np.mean([getattr(one, key) for one in found]))
            row["versions"] = found[0].versions
        if model in PEERS and model not in SEEDLESS:
            row["length"] = job.length
        rows.append(row)
    return rows


def _same_as(values: Sequence[float], errors: dict[str, float]) -> str | None:
    """The forecast without training that has the same error, which the guard has chosen instead of the model."""
    return next((name for name, error in errors.items() if np.allclose(values, error, rtol=1e-9, atol=0)), None)


def summary_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean skill and time of each model, and on how many series gru-xp is as good as others."""
    table = by_series(rows)
    summary: dict[str, Any] = {"series": len(table), "models": {}}
    for model in dict.fromkeys(row["model"] for row in rows):
        found = [models[model] for models in table.values() if "mase" in models.get(model, {})]
        ratios = [1 - row["skill"] for row in found]
        seconds = [row["fit_seconds"] for row in found if "fit_seconds" in row]
        if found:
            summary["models"][model] = {
                "series": len(found),
                "by_best_naive": float(np.exp(np.mean(np.log(ratios)))),
                "fit_seconds_mean": float(np.mean(seconds)) if seconds else None,
                "fit_seconds_max": max(seconds, default=None),
            }
    ours = {name: models for name, models in table.items() if "mase" in models.get(OUR_GRU, {})}
    if ours:
        summary["best_gru"] = _count(
            [
                models[OUR_GRU]["mase"] <= min(models[gru]["mase"] for gru in GRUS)
                for models in ours.values()
                if all("mase" in models.get(gru, {}) for gru in GRUS)
            ]
        )
        summary["no_worse_than_dlinear"] = _count(
            [
                models[OUR_GRU]["mase"] <= (1 + TOLERANCE) * models[DLINEAR]["mase"]
                for models in ours.values()
                if "mase" in models.get(DLINEAR, {})
            ]
        )
        many = {name: models for name, models in ours.items() if models[OUR_GRU]["origins"] >= MANY_WINDOWS}
        worse = [name for name, models in many.items() if models[OUR_GRU]["skill"] < -TOLERANCE]
        summary["no_worse_than_naive"] = {"series": len(many), "count": len(many) - len(worse), "worse": worse}
    return summary


def by_series(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Rows by series and model."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        table.setdefault(row["series"], {})[row["model"]] = row
    return table


def sentences(summary: dict[str, Any]) -> Iterator[str]:
    """What the summary says of gru-xp."""
    texts = {
        "best_gru": "gru-xp is the best of the GRUs on",
        "no_worse_than_dlinear": f"gru-xp is at most {TOLERANCE:.0%} worse than DLinear on",
        "no_worse_than_naive": f"Of the series with {MANY_WINDOWS} origins or more, gru-xp is at most {TOLERANCE:.0%} "
        "worse than the best naive forecast on",
    }
    for name, text in texts.items():
        if summary.get(name, {}).get("series"):
            worse = f"; it is worse on {', '.join(summary[name]['worse'])}" if summary[name].get("worse") else ""
            yield f"{text} {summary[name]['count']} of {summary[name]['series']} series{worse}."


def _count(passed: list[bool]) -> dict[str, int]:
    return {"series": len(passed), "count": sum(passed)}


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    last = None
    for row in rows:
        if last not in (None, row["series"]):
            yield ()
        cells = [row["series"] if row["series"] != last else "", row["model"]]
        last = row["series"]
        if "mase" not in row:
            yield (*cells, row["problem"], "", "", "", "")
            continue
        span = f"{row['mase_min']:.3f} to {row['mase_max']:.3f}" if "mase_min" in row else ""
        times = [number_text(row[key]) if key in row else "" for key in ("fit_seconds", "forecast_seconds")]
        yield (*cells, f"{row['mase']:.3f}", span, f"{row['skill']:+.1%}", *times)
