"""``variants``: layers, directions, lengths and the rest, forward and back, beside PyTorch and one plain layer."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from benchmarks.contest import Contestant, check_measured, compare, geometric_mean, hold, relative_difference
from benchmarks.job import Job, Shape
from benchmarks.report import (
    grouped,
    json_option,
    number_text,
    quick_option,
    range_text,
    repeats_option,
    save_json,
    shape_text,
    shapes_option,
    threads_option,
    timing,
)
from benchmarks.stacks import STACKS
from gru_xp.cli.messages import note, print_table
from gru_xp.cli.options import Command
from gru_xp.devices import resolve_device

SHAPES: tuple[Shape, ...] = ((704, 10, 70, 1), (256, 100, 128, 8))

TOLERANCE = 1e-4
"""Largest relative difference of two results that are computed in float32 throughout."""


def rows_of(contestants: Sequence[Contestant]) -> list[dict[str, Any]]:
    """Their results on one shape: PyTorch's are held against ours, ours against those of one plain layer."""
    ours = {c.job.variant: c for c in contestants if c.job.library == "gru-xp"}
    plain = ours["one layer"]
    rows = []
    for contestant in contestants:
        row = contestant.row()
        own = ours[contestant.job.variant]
        compared = compare(own, contestant)
        if compared:
            row |= compared
            row["difference"] = relative_difference(own.arrays, contestant.arrays)
        compared = compare(plain, contestant)
        if contestant is own and compared:
            row["by_one_layer"] = compared["times_as_fast"] / STACKS[contestant.job.variant].n_grus
        rows.append(row)
    return rows


@click.command(cls=Command)
@shapes_option
@threads_option
@repeats_option(4)
@quick_option("Two rounds of a few passes")
@json_option
def variants(shapes: tuple[Shape, ...], threads: int | None, repeats: int, quick: bool, json_file: Path | None) -> None:
    """Time GRU layers forward and back, in every variant, on the CPU beside PyTorch's, in float32.

    States of all steps, then all gradients from one of the states; `reset` is "after", which PyTorch has. The
    libraries take turns, each turn in a fresh process, and it is checked that they compute the same.
    """
    threads = threads or resolve_device("cpu").threads
    repeats = min(repeats, 2) if quick else repeats
    libraries = ["gru-xp", *(["torch"] if find_spec("torch") else [])]
    rows = []
    for shape in shapes or SHAPES:
        contestants = [
            Contestant(Job("variant", library, variant, shape, threads=threads, **timing(quick, seconds=0.5)))
            for variant, stack in STACKS.items()
            for library in libraries
            if library == "gru-xp" or stack.only_ours is None
        ]
        hold([[contestant] for contestant in contestants], repeats, label=shape_text(shape))
        rows += rows_of(contestants)
    faster = [row["times_as_fast"] for row in rows if "times_as_fast" in row]
    summary = {"times_as_fast_geometric_mean": geometric_mean(faster), "lowest": min(faster)} if faster else {}
    print_table(
        f"Layers forward and back in milliseconds, float32, {threads} CPU thread{'s' * (threads != 1)}",
        ("B, T, H, I", "variant", "what", "median", "ours: times as fast", "in rounds", "by one layer", "differs by"),
        list(grouped(_cells(rows))),
        left=3,
    )
    if faster:
        click.echo(
            f"{summary['times_as_fast_geometric_mean']:.2f} times as fast as PyTorch (geometric mean), "
            f"lowest {summary['lowest']:.2f}"
        )
    else:
        note("PyTorch is not installed: there are no times of it")
    settings = {"threads": threads, "repeats": repeats, "quick": quick, "dtype": "float32", "reset": "after"}
    save_json(json_file, "variants", settings | {"tolerance": TOLERANCE} | timing(quick, seconds=0.5), rows, summary)
    for row in rows:
        if not row.get("difference", 0.0) <= TOLERANCE:
            raise click.ClickException(
                f"{row['variant']}, {shape_text(row['shape'].values())}: PyTorch's results differ from ours by "
                f"{row['difference']:.1e}, more than {TOLERANCE:g}"
            )
    check_measured(rows)


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for row in rows:
        group = (shape_text(row["shape"].values()), row["variant"])
        label = {"gru-xp": "gru-xp", "torch": "PyTorch"}[row["library"]]
        if row["problem"]:
            yield group, (f"{label}: {row['problem']}",)
            continue
        faster, rounds, difference = "", "", ""
        if "times_as_fast" in row:
            faster = f"{row['times_as_fast']:.2f}"
            rounds = range_text(row["times_as_fast_min"], row["times_as_fast_max"])
            difference = f"{row['difference']:.1e}"
        by_one = f"{row['by_one_layer']:.2f}" if "by_one_layer" in row else ""
        yield group, (label, number_text(row["median_ms"]), faster, rounds, by_one, difference)
