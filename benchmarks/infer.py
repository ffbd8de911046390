"""``infer``: states of whole sequences, and one step after the other, without gradients, beside other libraries."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from benchmarks.checkout import against_lines, against_option, commits, open_checkout, summarize_against
from benchmarks.contest import (
    Contestant,
    absolute_difference,
    check_measured,
    compare,
    compare_with_before,
    geometric_mean,
    hold,
    with_before,
)
from benchmarks.job import Job, Shape
from benchmarks.report import (
    grouped,
    json_option,
    number_text,
    quick_option,
    ratio_cells,
    repeats_option,
    save_json,
    shape_text,
    threads_option,
    timing,
)
from gru_xp.cli.messages import note, print_table
from gru_xp.cli.options import Command
from gru_xp.devices import resolve_device

CASES: tuple[tuple[str, Shape], ...] = (
    ("forward", (1, 10, 70, 1)),
    ("forward", (64, 10, 70, 1)),
    ("forward", (4096, 10, 70, 1)),
    ("stream", (1, 10, 70, 1)),
    ("step", (1, 10, 70, 1)),
    ("step", (1, 10, 256, 8)),
    ("cell", (1, 10, 70, 1)),
    ("cell", (1, 10, 256, 8)),
)

CONTESTANTS: dict[str, dict[tuple[str, str], str]] = {
    "forward": {
        ("gru-xp", "GRUInference"): "gru-xp, GRUInference",
        ("torch", "GRU"): "PyTorch, nn.GRU",
        ("onnxruntime", "GRU"): "onnxruntime, GRU",
        ("openvino", "GRU"): "OpenVINO, GRU",
        ("gru-xp", "gru_forward"): "gru-xp, gru_forward",
    },
    "stream": {
        ("gru-xp", "step(x, h)"): "gru-xp, GRUInference.step(x, h)",
        ("torch", "GRUCell"): "PyTorch, nn.GRUCell",
        ("onnxruntime", "GRU, T = 1"): "onnxruntime, GRU, T = 1",
        ("openvino", "GRU, T = 1"): "OpenVINO, GRU, T = 1",
        ("gru-xp", "step(x)"): "gru-xp, GRUInference.step(x)",
    },
    "step": {
        ("gru-xp", "gru_step"): "gru-xp, gru_step",
        ("torch", "GRUCell, no_grad"): "PyTorch, nn.GRUCell, no_grad",
    },
    "cell": {
        ("gru-xp", "gru_cell_forward"): "gru-xp, gru_cell_forward",
        ("torch", "GRUCell, no_grad"): "PyTorch, nn.GRUCell, no_grad",
        ("torch", "GRUCell, autograd"): "PyTorch, nn.GRUCell, autograd",
    },
}
"""By task; the first one is ours, which the others are held against."""

NEEDED = {
    "gru-xp": ("numpy",),
    "torch": ("torch",),
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
}
TASKS = {
    "forward": "whole sequences",
    "stream": "a streaming step",
    "step": "gru_step",
    "cell": "gru_cell_forward",
}
TOLERANCE = 1e-5
"""Largest difference of two states, which lie between -1 and 1."""


def missing(library: str) -> list[str]:
    """Which packages of those that a library's contestants need are not installed."""
    return [package for package in NEEDED[library] if find_spec(package) is None]


def rows_of(contestants: Sequence[Contestant]) -> list[dict[str, Any]]:
    """Their results in one case, held against the first."""
    ours = contestants[0]
    rows = []
    for contestant in contestants:
        row = contestant.row()
        if contestant.checkout is not None:
            row |= compare_with_before(contestants, contestant)
        else:
            row |= compare(ours, contestant)
        if ours.problem is None and contestant.problem is None:
            row["difference"] = absolute_difference(contestant.arrays, ours.arrays)
        rows.append(row)
    return rows


@click.command(cls=Command)
@threads_option
@repeats_option(5)
@against_option
@quick_option("Two rounds of a few calls")
@json_option
def infer(threads: int | None, repeats: int, against: str | None, quick: bool, json_file: Path | None) -> None:
    """Time the states of whole sequences and single steps on the CPU beside PyTorch, onnxruntime and OpenVINO.

    In float32, without gradients. Steps are taken with prepared weights (streaming), by gru_step, and by
    gru_cell_forward. The libraries take turns, each turn in a fresh process; it is checked that all compute the same
    states.
    """
    checkout = open_checkout(against)
    threads = threads or resolve_device("cpu").threads
    repeats = min(repeats, 2) if quick else repeats
    absent = {library: missing(library) for library in NEEDED}

    rows = []
    for task, shape in CASES:
        contestants = [
            Contestant(Job(task, library, variant, shape, threads=threads, **timing(quick, seconds=0.5)))
            for library, variant in CONTESTANTS[task]
            if not absent[library]
        ]
        contestants = with_before(contestants, checkout)
        hold([[contestant] for contestant in contestants], repeats, label=f"{task}, {shape_text(shape)}")
        rows += rows_of(contestants)

    print_table(
        f"Without gradients, in microseconds, float32, {threads} CPU thread{'s' * (threads != 1)}",
        (
            "B, T, H, I",
            "",
            "what",
            "median",
            "min",
            "quartiles",
            "ours: times as fast",
            "in rounds",
            "states differ by",
        ),
        list(grouped(_cells(rows))),
        left=3,
    )
    summary = summarize(rows)
    for line in (*_summary_lines(summary), *against_lines(checkout, summary)):
        click.echo(line)
    for library, packages in absent.items():
        if packages:
            note(f"{' and '.join(packages)} not installed: there are no times of {library}")
    settings = {
        "threads": threads,
        "repeats": repeats,
        "quick": quick,
        "dtype": "float32",
        "tolerance": TOLERANCE,
        **timing(quick, seconds=0.5),
        **commits(checkout),
    }
    save_json(json_file, "infer", settings, rows, summary)
    _check(rows)


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Our times beside those of the first contestant of each library, over the shapes of a task."""
    summary: dict[str, Any] = {}
    for task, contestants in CONTESTANTS.items():
        for library in ("torch", "onnxruntime", "openvino"):
            first = next((name for name in contestants if name[0] == library), None)
            faster = [
                row["times_as_fast"]
                for row in rows
                if row["task"] == task and (row["library"], row["variant"]) == first and "times_as_fast" in row
            ]
            if faster:
                summary[f"{task}_by_{library}"] = {"geometric_mean": geometric_mean(faster), "lowest": min(faster)}
    return summary | summarize_against(rows, geometric_mean)


def _summary_lines(summary: dict[str, Any]) -> Iterator[str]:
    for name, numbers in summary.items():
        task, by, library = name.partition("_by_")
        if by:
            text = f"{TASKS[task]}: {numbers['geometric_mean']:.2f} times as fast as {library}"
            n_shapes = sum(case == task for case, _ in CASES)
            yield text + (f" (geometric mean), lowest {numbers['lowest']:.2f}" if n_shapes > 1 else "")


def _check(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        if not row.get("difference", 0.0) <= TOLERANCE:
            raise click.ClickException(
                f"{row['task']}, {shape_text(row['shape'].values())}: the states of {row['library']}, "
                f"{row['variant']}, differ from ours by {row['difference']:.1e}, more than {TOLERANCE:g}"
            )
    check_measured(rows)


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for row in rows:
        group = (shape_text(row["shape"].values()), row["task"])
        label = CONTESTANTS[row["task"]][row["library"], row["variant"]]
        label += f", {row['checkout']}" if "checkout" in row else ""
        if row["problem"]:
            yield group, (f"{label}: {row['problem']}",)
            continue
        cells = [
            label,
            number_text(1e3 * row["median_ms"]),
            number_text(1e3 * row["min_ms"]),
            f"{number_text(1e3 * row['q1_ms'])} to {number_text(1e3 * row['q3_ms'])}",
        ]
        yield group, (*cells, *ratio_cells(row), f"{row['difference']:.1e}" if "difference" in row else "")
