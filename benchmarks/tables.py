"""Tables of the READMEs, from the files in ``results/``: ``python -m benchmarks.tables`` writes them anew."""

import json
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.command import by_series
from benchmarks.accuracy.command import sentences as sentences_on_accuracy
from benchmarks.report import number_text, shape_text
from benchmarks.zero_shot.command import GROUPS
from benchmarks.zero_shot.command import sentences as sentences_on_zero_shot
from gru_xp.forecasting.baselines import needs_no_training

FOLDER = Path(__file__).resolve().parent
README, ROOT_README = FOLDER / "README.md", FOLDER.parent / "README.md"

Rows = Sequence[dict[str, Any]]
Table = list[tuple[str, ...]]

ROOT_HEADER = ("sequences, steps, hidden, input", "gru-xp", "PyTorch", "faster by", "peak memory, gru-xp / PyTorch")
ROOT_SHAPES = ("704, 10, 70, 1", "2048, 32, 128, 8", "256, 100, 256, 8")
NONE = "–"


def find(rows: Rows, library: str, variant: str, **wanted: Any) -> dict[str, Any]:
    """The row of a contestant of this checkout; an empty one if there is none, or it has a problem."""
    wanted |= {"library": library, "variant": variant, "problem": None}
    found = [row for row in rows if "checkout" not in row and all(row.get(key) == wanted[key] for key in wanted)]
    return found[0] if found else {}


def shapes_of(rows: Rows) -> list[dict[str, int]]:
    """Different ones, in order."""
    return [dict(sizes) for sizes in dict.fromkeys(tuple(row["shape"].items()) for row in rows)]


def time_text(row: dict[str, Any], unit: float = 1.0) -> str:
    """The median, in milliseconds divided by `unit`."""
    if "median_ms" not in row:
        return NONE
    number = row["median_ms"] / unit
    return f"{number:,.0f}" if number >= 100 else f"{number:#.3g}".removesuffix(".")


def times_text(row: dict[str, Any], name: str = "times_as_fast", sign: str = " ×") -> str:
    """A ratio, such as ``2.5 ×``."""
    return f"{row[name]:.1f}{sign}" if name in row else NONE


def memory_text(*rows: dict[str, Any]) -> str:
    """Such as ``7 / 19 MiB``."""
    peaks = [row.get("peak_bytes") for row in rows]
    return " / ".join(NONE if peak is None else f"{peak / 2**20:.0f}" for peak in peaks) + " MiB"


# --- the tables -------------------------------------------------------------------------------------------------


def train_table(rows: Rows) -> Table:
    """The trainer's step."""
    floor = "times its matrix products alone"
    table: Table = [(*ROOT_HEADER[:4], floor, "memory, gru-xp / PyTorch")]
    for shape in shapes_of(rows):
        ours, torch, products = (
            find(rows, *name, shape=shape)
            for name in (("gru-xp", "after"), ("torch", "float32"), ("products", "after"))
        )
        cells = time_text(ours), time_text(torch), times_text(torch), times_text(products, "ours_by_floor", "")
        table.append((shape_text(shape.values()), *cells, memory_text(ours, torch)))
    return table


def root_table(rows: Rows) -> Table:
    """The same in short."""
    table: Table = [ROOT_HEADER]
    for shape in shapes_of(rows):
        if (name := shape_text(shape.values())) in ROOT_SHAPES:
            ours, torch = find(rows, "gru-xp", "after", shape=shape), find(rows, "torch", "float32", shape=shape)
            times = f"{time_text(ours)} ms", f"{time_text(torch)} ms"
            table.append((name, *times, times_text(torch), memory_text(ours, torch)))
    return table


def layer_table(rows: Rows) -> Table:
    """Public functions of one layer."""
    others = {("torch", "one layer"): "PyTorch", ("jax", "jit"): "gru-xp in `jax.jit`"}
    others[("jax", "own gradient")] = "with JAX's own gradient"
    table: Table = [("sequences, steps, hidden, input", "gru-xp", *others.values(), "faster than PyTorch by")]
    for shape in shapes_of(rows):
        found = [find(rows, *name, shape=shape) for name in (("gru-xp", "public"), *others)]
        table.append((shape_text(shape.values()), *map(time_text, found), times_text(found[1])))
    return table


def infer_table(rows: Rows) -> Table:
    """Whole sequences, streaming steps, and steps with unprepared weights."""
    header = ("", "gru-xp", "PyTorch", "onnxruntime", "OpenVINO", "faster than PyTorch by")
    ways: list[tuple[str, str, tuple[str, ...]]] = [
        ("`GRUInference`, {B:,} × {T} steps", "forward", ("GRUInference", "GRU", "GRU", "GRU")),
        ("`gru_forward`, {B:,} × {T} steps", "forward", ("gru_forward", "GRU", "GRU", "GRU")),
        ("`GRUInference.step`", "stream", ("step(x, h)", "GRUCell", "GRU, T = 1", "GRU, T = 1")),
        ("`gru_step`, H = {H}, I = {I}", "step", ("gru_step", "GRUCell, no_grad", "", "")),
        ("`gru_cell_forward`, H = {H}, I = {I}", "cell", ("gru_cell_forward", "GRUCell, no_grad", "", "")),
    ]
    table: Table = [header]
    for label, task, variants in ways:
        for shape in shapes_of([row for row in rows if row["task"] == task]):
            libraries = ("gru-xp", "torch", "onnxruntime", "openvino")
            names = zip(libraries, variants, strict=True)
            found = [find(rows, *name, task=task, shape=shape) for name in names]
            ratio = {"times": found[1]["median_ms"] / found[0]["median_ms"]} if all(found[:2]) else {}
            times = (time_text(row, 1e-3) for row in found)
            table.append((label.format(**shape), *times, times_text(ratio, "times")))
    return table


def variants_table(rows: Rows) -> Table:
    """Variants of layers."""
    shapes = shapes_of(rows)
    table: Table = [("", *(name for shape in shapes for name in (f"gru-xp, {shape_text(shape.values())}", "PyTorch")))]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        found = [find(rows, library, variant, shape=shape) for shape in shapes for library in ("gru-xp", "torch")]
        table.append((variant, *map(time_text, found)))
    return table


def accuracy_table(rows: Rows) -> Table:
    """MASE on each series, with half the range over seeds; then means over the series that all models have."""
    models, complete = trained_on_all(rows)
    table: Table = [("series", "rows", "season", "horizon", "origins", "best naive", *models)]
    for name, found in by_series(rows).items():
        best = min((found[model] for model in found if needs_no_training(model)), key=lambda row: row["mase"])
        errors = [found.get(model, {}) for model in models]
        least = min(one["mase"] for one in (best, *errors) if "mase" in one)
        cells = (f"{best['rows']:,}", *(str(best[key]) for key in ("season", "horizon", "origins")))
        mark = "" if best["tuned"] else " *"
        table.append((name + mark, *cells, *(mase_text(one, least) for one in (best, *errors))))
    if complete and models:
        for (label, *cells), naive in zip(means(complete), ("1", ""), strict=True):
            table.append((f"{label}, {len(complete)} series", *[""] * 4, naive, *cells))
    return table


def accuracy_summary(rows: Rows) -> Table:
    """Means over the series that all models have."""
    models, complete = trained_on_all(rows)
    return [("", *models), *means(complete)]


def trained_on_all(rows: Rows) -> tuple[list[str], list[list[dict[str, Any]]]]:
    """The models that are trained, and their rows for each series on which all of them have a result."""
    models = [*dict.fromkeys(row["model"] for row in rows if not needs_no_training(row["model"]))]
    by_model = [[found.get(model, {}) for model in models] for found in by_series(rows).values()]
    return models, [each for each in by_model if all("mase" in one for one in each)]


def means(series: Sequence[Sequence[dict[str, Any]]]) -> Table:
    """Of the rows of each series, by model: the geometric mean of MASE over that of the best naive, and the time."""
    ratios = np.exp(np.mean([[math.log(1 - one["skill"]) for one in errors] for errors in series], axis=0))
    seconds = np.mean([[one["fit_seconds"] for one in errors] for errors in series], axis=0)
    return [
        ("relative to best naive", *(f"{ratio:.3f}" for ratio in ratios)),
        ("CPU seconds of a fit", *(f"{one:.1f}" for one in seconds)),
    ]


def mase_text(row: dict[str, Any], least: float) -> str:
    """A MASE, with the range over seeds if it has one, and whether it is of a naive forecast; the least in bold."""
    if "mase" not in row:
        return NONE
    text = f"{row['mase']:.3f}"
    if row.get("mase_max", 0) > row.get("mase_min", 0) and len(row["mase_by_seed"]) > 1:
        half = (row["mase_max"] - row["mase_min"]) / 2
        text += f" ± {half:.3f}"
    if row.get("same_as"):
        text += " (naive)"
    return f"**{text}**" if row["mase"] <= least else text


def zero_shot_table(rows: Rows) -> Table:
    """Errors on each set relative to the better naive forecast, means of each group of sets, and times."""
    models = [*dict.fromkeys(row["model"] for row in rows if "naive" not in row)]
    table: Table = [("series", "season", "horizon", "forecasts", "MASE of better naive", *models)]
    for group, title in GROUPS.items():
        of_group: dict[str, dict[str, dict[str, Any]]] = {}
        for row in rows:
            if row.get("group") == group:
                of_group.setdefault(row["set"], {})[row["model"]] = row
        table += [_ratio_cells(found, models) for found in of_group.values()]
        present = [model for model in models if any(model in found for found in of_group.values())]
        complete = [found for found in of_group.values() if all("mase" in found.get(model, {}) for model in present)]
        if complete and present:
            columns = {model: [found[model] for found in complete] for model in present}
            ratios = {model: np.log([row["by_better_naive"] for row in each]) for model, each in columns.items()}
            means = {model: f"{np.exp(np.mean(each)):.3f}" for model, each in ratios.items()}
            shares = {model: f"{np.mean([row['coverage'] for row in each]):.0%}" for model, each in columns.items()}
            for label, cells in ((f"geometric mean, {len(complete)} {title}", means), ("in 80 % interval", shares)):
                table.append((label, *[""] * 4, *(cells.get(model, NONE) for model in models)))
    timed = {row["model"]: row for row in rows if "set" not in row}
    for label, key, unit in ZERO_SHOT_TIMES if timed else ():
        numbers = [timed.get(model, {}).get(key) for model in models]
        texts = [NONE if number is None else number_text(number / unit) for number in numbers]
        table.append((label, *[""] * 4, *texts))
    return table


ZERO_SHOT_TIMES = (
    ("CPU ms a forecast, alone", "batch_1_ms", 1),
    ("CPU ms a forecast, of 256 at once", "batch_256_ms", 1),
    ("seconds from start to end", "start_seconds", 1),
    ("weights, MB", "weights_bytes", 1e6),
)
"""Rows of the table: label, key, and unit."""


def _ratio_cells(found: dict[str, dict[str, Any]], models: Sequence[str]) -> tuple[str, ...]:
    """A row of `zero_shot_table`; the least error is in bold."""
    better = next(row for row in found.values() if row.get("naive") and row["by_better_naive"] == 1)
    least = min(row["by_better_naive"] for row in found.values() if "mase" in row)
    ratios = [found.get(model, {}).get("by_better_naive") for model in models]
    cells = [NONE if one is None else f"**{one:.3f}**" if one <= least else f"{one:.3f}" for one in ratios]
    naive = f"**{better['mase']:.3f}**" if least >= 1 else f"{better['mase']:.3f}"
    season = " and ".join(map(str, better["season"])) or "1"
    name = better["set"] + (" *" if better["tuned"] is False else "")
    return (name, season, str(better["horizon"]), f"{better['forecasts']:,}", naive, *cells)


TABLES: dict[str, tuple[str, Callable[[Rows], Table]]] = {
    "train-cpu": ('medians in milliseconds, `reset="after"`, and the largest growth of memory', train_table),
    "layer-cpu": ('medians in milliseconds, `reset="after"`', layer_table),
    "infer-cpu": ("medians in microseconds", infer_table),
    "variants-cpu": ("medians in milliseconds", variants_table),
    "accuracy": ("MASE by rolling origins, with half the range over seeds", accuracy_table),
    "zero-shot": ("MASE relative to that of the better naive forecast", zero_shot_table),
}

ROOT_TABLES: dict[str, Callable[[Rows], Table]] = {"train-cpu": root_table, "accuracy": accuracy_summary}
"""Those of the main README."""


def markdown(table: Table) -> str:
    """Its lines."""
    header, *rows = table
    lines = [f"| {' | '.join(cells)} |\n" for cells in (header, *rows)]
    return "".join([lines[0].replace("|  |", "| |"), f"|{'---|' * len(header)}\n", *lines[1:]])


def block(name: str, record: dict[str, Any]) -> str:
    """What a README says of a file of results."""
    text, table = TABLES[name]
    machine, versions, settings = record["machine"], record["versions"], record["settings"]
    packages = {"torch": "PyTorch", "jax": "JAX", "onnxruntime": "onnxruntime", "openvino": "OpenVINO"}
    libraries = {row.get("library") for row in record["rows"]}
    peers = [f"{label} {versions[key]}" for key, label in packages.items() if key in libraries]
    others = {name: found for name, found in settings.get("packages", {}).items() if name not in ("python", "numpy")}
    peers += [f"{name} {found}" for name, found in others.items()]
    numpy = f"NumPy {versions['numpy']} with {versions['blas']}"
    threads = f"{settings['threads']} thread{'s' * (settings['threads'] != 1)}"
    sentences = [
        f"Results ([{name}.json](results/{name}.json), {record['date'][:10]}), {text}, on {machine['cpu']} with "
        f"{machine['cores']} cores and {threads}: {', '.join([numpy, *peers])}."
    ]
    sentences += [*sentences_on_accuracy(record["summary"]), *sentences_on_zero_shot(record["summary"])]
    if "against" in record["summary"]:
        numbers, before = record["summary"]["against"], settings["against"]
        sentences.append(
            f"gru-xp at {settings['commit']} is {numbers['geometric_mean']:.3f} times as fast as at {before['commit']} "
            f"(geometric mean), lowest {numbers['lowest']:.3f}."
        )
    return f"{textwrap.fill(' '.join(sentences), 120, break_on_hyphens=False)}\n\n{markdown(table(record['rows']))}"


def pages() -> Iterator[tuple[Path, str]]:
    """The READMEs as they should be."""
    records = {
        name: json.loads(file.read_text(encoding="utf-8"))
        for name in TABLES
        if (file := FOLDER / "results" / f"{name}.json").exists()
    }
    text = README.read_text(encoding="utf-8")
    for name, record in records.items():
        before, rest = text.split(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->\n")
        text = f"{before}<!-- {name} -->\n{block(name, record)}{end}{after}"
    yield README, text
    text = ROOT_README.read_text(encoding="utf-8")
    for name, table_of in ROOT_TABLES.items():
        table = markdown(table_of(records[name]["rows"]))
        start = text.index(table.splitlines()[0])
        text = text[:start] + table + text[text.index("\n\n", start) + 1 :]
    yield ROOT_README, text


def main() -> None:
    """Write the READMEs."""
    for file, text in pages():
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
