"""``train``: one training step on the CPU, beside PyTorch's, and beside its matrix products alone."""

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
    range_text,
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

SHAPES: tuple[Shape, ...] = ((165, 10, 70, 1), (704, 10, 70, 1), (2048, 32, 128, 8), (256, 100, 256, 8))

GRADIENT_TOLERANCE = 1e-4
"""Largest relative difference of two gradients that are computed in float32 throughout."""

OURS, TORCH, FLOOR = ("gru-xp", "after"), ("torch", "float32"), ("products", "after")


def entrants(reset: str, torch_is_there: bool) -> list[tuple[str, str]]:
    """Library and variant of each contestant, in the order of their turns."""
    names = [OURS, *([TORCH] if torch_is_there else []), FLOOR] if reset != "before" else []
    return [*names, ("gru-xp", "before")] if reset != "after" else names


def rows_of(contestants: Sequence[Contestant]) -> list[dict[str, Any]]:
    """Their results on one shape; PyTorch and the products alone are held against ours."""
    ours = next((c for c in contestants if c.name == OURS), None)
    rows = []
    for contestant in contestants:
        row = contestant.row()
        if contestant.checkout is not None:
            row |= compare_with_before(contestants, contestant)
        compared = compare(ours, contestant)
        if ours is not None and compared and contestant.name == TORCH:
            row |= compared
            row["gradient_difference"] = relative_difference(ours.arrays, contestant.arrays)
        if compared and contestant.name == FLOOR:  # the other way round: how many times as long we take
            row["ours_by_floor"] = 1 / compared["times_as_fast"]
            row["ours_by_floor_min"] = 1 / compared["times_as_fast_max"]
            row["ours_by_floor_max"] = 1 / compared["times_as_fast_min"]
        rows.append(row)
    return rows


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the shapes have in common."""
    faster = [row["times_as_fast"] for row in rows if "times_as_fast" in row]
    floors = [row["ours_by_floor"] for row in rows if "ours_by_floor" in row]
    summary: dict[str, Any] = summarize_against(rows, geometric_mean)
    if faster:
        summary |= {"times_as_fast_geometric_mean": geometric_mean(faster), "times_as_fast_lowest": min(faster)}
    if floors:
        summary |= {"ours_by_floor_geometric_mean": geometric_mean(floors), "ours_by_floor_highest": max(floors)}
    return summary


@click.command(cls=Command)
@shapes_option
@click.option(
    "--reset",
    type=click.Choice(["before", "after", "both"]),
    default="both",
    show_default=True,
    help="The form of our reset gate; PyTorch has after only, and is left out without it.",
)
@threads_option
@repeats_option(5)
@against_option
@quick_option("Two rounds of a few steps")
@json_option
def train(
    shapes: tuple[Shape, ...],
    reset: str,
    threads: int | None,
    repeats: int,
    against: str | None,
    quick: bool,
    json_file: Path | None,
) -> None:
    """Time one training step (forward, loss, backward, update) on the CPU beside PyTorch's, in float32.

    The libraries take turns, each turn in a fresh process. It is checked that both take the same step. The floor is
    the time of the step's matrix products alone.
    """
    checkout = open_checkout(against)
    threads = threads or resolve_device("cpu").threads
    repeats = min(repeats, 2) if quick else repeats
    torch_is_there = find_spec("torch") is not None

    rows = []
    for shape in shapes or SHAPES:
        contestants = [
            Contestant(Job("train", library, variant, shape, threads=threads, **timing(quick)))
            for library, variant in entrants(reset, torch_is_there)
        ]
        contestants = with_before(contestants, checkout)
        hold([[contestant] for contestant in contestants], repeats, label=shape_text(shape))
        rows += rows_of(contestants)

    summary = summarize(rows)
    print_table(
        f"One training step in milliseconds, float32, {threads} CPU thread{'s' * (threads != 1)}",
        (
            "B, T, H, I",
            "what",
            "median",
            "min",
            "quartiles",
            "ours: times as fast",
            "in rounds",
            "ours / floor",
            "peak MiB",
            "gradient differs by",
        ),
        list(grouped(_cells(rows))),
        left=2,
    )
    if "times_as_fast_lowest" in summary:
        click.echo(
            f"{summary['times_as_fast_geometric_mean']:.2f} times as fast as PyTorch (geometric mean), "
            f"lowest {summary['times_as_fast_lowest']:.2f}"
        )
    if "ours_by_floor_highest" in summary:
        click.echo(
            f"{summary['ours_by_floor_geometric_mean']:.2f} times the products alone (geometric mean), "
            f"highest {summary['ours_by_floor_highest']:.2f}"
        )
    for line in against_lines(checkout, summary):
        click.echo(line)
    if not torch_is_there:
        note("PyTorch is not installed: there are no times of it, and our gradient is not checked against it")
    elif reset == "before":
        note('PyTorch has no reset="before": there are no times of it')
    settings = {
        "reset": reset,
        "threads": threads,
        "repeats": repeats,
        "quick": quick,
        "dtype": "float32",
        "torch_measured": torch_is_there and reset != "before",
        "gradient_tolerance": GRADIENT_TOLERANCE,
        **timing(quick),
        **commits(checkout),
    }
    save_json(json_file, "train", settings, rows, summary)
    check(rows)


def check(rows: Sequence[dict[str, Any]]) -> None:
    """Raise ClickException where two steps in full float32 are not the same, or nothing could be measured."""
    for row in rows:
        difference = row.get("gradient_difference", 0.0)
        if not row["variant"].startswith("tf32") and not difference <= GRADIENT_TOLERANCE:
            raise click.ClickException(
                f"{shape_text(row['shape'].values())} on {row['device']}: our gradient differs from that of "
                f"{row['library']}, {row['variant']}, by {difference:.1e}, more than {GRADIENT_TOLERANCE:g}; "
                f"the times are not of the same step"
            )
    check_measured(rows)


def _label(row: dict[str, Any]) -> str:
    labels = {"gru-xp": f'gru-xp, reset="{row["variant"]}"', "torch": "PyTorch", "products": "products alone"}
    return labels[row["library"]] + (f", {row['checkout']}" if "checkout" in row else "")


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for row in rows:
        group, label = (shape_text(row["shape"].values()),), _label(row)
        if row["problem"]:
            yield group, (f"{label}: {row['problem']}",)
            continue
        faster, rounds = ratio_cells(row)
        difference = f"{row['gradient_difference']:.1e}" if "gradient_difference" in row else ""
        floor = ""
        if "ours_by_floor" in row:
            floor = f"{row['ours_by_floor']:.2f}"
            rounds = range_text(row["ours_by_floor_min"], row["ours_by_floor_max"])
        yield (
            group,
            (
                label,
                number_text(row["median_ms"]),
                number_text(row["min_ms"]),
                f"{number_text(row['q1_ms'])} to {number_text(row['q3_ms'])}",
                faster,
                rounds,
                floor,
                number_text(row["peak_bytes"] / 2**20) if "peak_bytes" in row else "",
                difference,
            ),
        )
