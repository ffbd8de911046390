"""``layer``: the public functions of one layer, forward and backward, beside PyTorch's and on JAX."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from benchmarks.checkout import against_lines, against_option, commits, open_checkout, summarize_against
from benchmarks.contest import (
    Contestant,
    check_measured,
    compare,
    compare_with_before,
    geometric_mean,
    hold,
    relative_difference,
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
    shapes_option,
    threads_option,
    timing,
)
from gru_xp.cli.messages import note, print_table
from gru_xp.cli.options import Command
from gru_xp.devices import resolve_device

SHAPES: tuple[Shape, ...] = ((180, 12, 64, 1), (900, 12, 80, 3), (1500, 24, 144, 6), (200, 90, 300, 4))

OURS = ("gru-xp", "public")
CONTESTANTS = {
    OURS: "gru-xp",
    ("torch", "one layer"): "PyTorch",
    ("jax", "jit"): "gru-xp in jax.jit",
    ("jax", "own gradient"): "gru-xp in jax.jit, JAX's own gradient",
}
"""The first one is ours, which the others are compared with."""

TOLERANCE = 1e-4
"""Largest relative difference of two results that are computed in float32 throughout."""


def rows_of(contestants: Sequence[Contestant]) -> list[dict[str, Any]]:
    """Their results on one shape, compared with ours on NumPy."""
    ours = contestants[0]
    rows = []
    for contestant in contestants:
        row = contestant.row()
        if contestant.checkout is not None:
            row |= compare_with_before(contestants, contestant)
        elif compared := compare(ours, contestant):
            row |= compared
            row["difference"] = relative_difference(contestant.arrays, ours.arrays)
        rows.append(row)
    return rows


def of_jax(threads: int) -> dict[str, str]:
    """Environment variables that JAX reads: the CPU, and its threads."""
    return {"JAX_PLATFORMS": "cpu", "NPROC": str(threads)}


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Our times beside those of each other contestant, over the shapes."""
    summary: dict[str, Any] = {}
    for library, variant in CONTESTANTS:
        faster = [
            row["times_as_fast"]
            for row in rows
            if (row["library"], row["variant"]) == (library, variant) and "times_as_fast" in row
        ]
        if faster:
            name = library if library == "torch" else f"{library}, {variant}"
            summary[name] = {"geometric_mean": geometric_mean(faster), "lowest": min(faster)}
    return summary | summarize_against(rows, geometric_mean)


@click.command(cls=Command)
@shapes_option
@threads_option
@repeats_option(5)
@against_option
@quick_option("Two rounds of a few passes")
@json_option
def layer(
    shapes: tuple[Shape, ...],
    threads: int | None,
    repeats: int,
    against: str | None,
    quick: bool,
    json_file: Path | None,
) -> None:
    """Time gru_forward and gru_backward on the CPU beside PyTorch's, and compiled by JAX, in float32.

    The functions are called as a user calls them: states of all steps, then all gradients from one of the states;
    `reset` is "after", which PyTorch has. JAX runs our forward and backward, and our forward with its own gradient.
    The libraries take turns, each turn in a fresh process, and it is checked that they compute the same.
    """
    checkout = open_checkout(against)
    threads = threads or resolve_device("cpu").threads
    repeats = min(repeats, 2) if quick else repeats
    absent = [library for library in ("torch", "jax") if find_spec(library) is None]
    times = timing(quick, seconds=0.5)
    rows = []
    for shape in shapes or SHAPES:
        contestants = [
            Contestant(Job("layer", library, variant, shape, threads=threads, environment=of_jax(threads), **times))
            for library, variant in CONTESTANTS
            if library not in absent
        ]
        contestants = with_before(contestants, checkout)
        hold([[contestant] for contestant in contestants], repeats, label=shape_text(shape))
        rows += rows_of(contestants)

    summary = summarize(rows)
    print_table(
        f"One layer forward and back in milliseconds, float32, {threads} CPU thread{'s' * (threads != 1)}",
        ("B, T, H, I", "what", "median", "min", "quartiles", "ours: times as fast", "in rounds", "differs by"),
        list(grouped(_cells(rows))),
        left=2,
    )
    for name, numbers in summary.items():
        if name != "against":
            label = "PyTorch" if name == "torch" else CONTESTANTS["jax", name.removeprefix("jax, ")]
            click.echo(
                f"{numbers['geometric_mean']:.2f} times as fast as {label} (geometric mean), "
                f"lowest {numbers['lowest']:.2f}"
            )
    for line in against_lines(checkout, summary):
        click.echo(line)
    for library in absent:
        note(f"{library} is not installed: there are no times of it")
    settings = {"threads": threads, "repeats": repeats, "quick": quick, "dtype": "float32", "reset": "after"}
    save_json(json_file, "layer", settings | {"tolerance": TOLERANCE} | times | commits(checkout), rows, summary)
    for row in rows:
        if not row.get("difference", 0.0) <= TOLERANCE:
            raise click.ClickException(
                f"{shape_text(row['shape'].values())}: the results of {CONTESTANTS[row['library'], row['variant']]} "
                f"differ from ours by {row['difference']:.1e}, more than {TOLERANCE:g}"
            )
    check_measured(rows)


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for row in rows:
        group = (shape_text(row["shape"].values()),)
        label = CONTESTANTS[row["library"], row["variant"]] + (f", {row['checkout']}" if "checkout" in row else "")
        if row["problem"]:
            yield group, (f"{label}: {row['problem']}",)
            continue
        quartiles = f"{number_text(row['q1_ms'])} to {number_text(row['q3_ms'])}"
        difference = f"{row['difference']:.1e}" if "difference" in row else ""
        times = number_text(row["median_ms"]), number_text(row["min_ms"]), quartiles
        yield group, (label, *times, *ratio_cells(row), difference)
