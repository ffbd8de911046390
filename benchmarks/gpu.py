"""``gpu``: one training step on a CUDA device, beside PyTorch's, in IEEE float32 and in TF32."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from benchmarks.contest import Contestant, compare, geometric_mean, hold, relative_difference
from benchmarks.gpu_floor import ASSUMPTIONS, Peak, floor_ms, query_peak
from benchmarks.gpu_smoke import MINUTES, smoke
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
    timing,
)
from benchmarks.train import check
from gru_xp.cli.messages import note, print_table
from gru_xp.cli.options import Command
from gru_xp.devices import cuda_problem

SHAPES: tuple[Shape, ...] = (
    (64, 10, 70, 1),
    (704, 10, 70, 1),
    (4096, 32, 128, 8),
    (1024, 100, 256, 8),
    (256, 256, 1024, 8),
)
DEVICE = "cuda:0"
PRECISIONS = ("ieee", "tf32")
TORCH_WAYS = {"": "PyTorch", ", graph": "PyTorch, CUDA graph"}
PIPELINED_STEPS = 50
TIMING_MINUTES = 6.0


def jobs_of(precision: str, shapes: Sequence[Shape], torch_is_there: bool, times: dict[str, Any]) -> list[list[Job]]:
    """Those of our contestant, then of PyTorch's, a list of all shapes each."""
    own = {"tf32": precision == "tf32" and DEVICE != "cpu", "device": DEVICE, **times}
    jobs = [[Job("train", "gru-xp", "after", shape, **own) for shape in shapes]]
    for way in TORCH_WAYS if torch_is_there else ():
        variant = f"{precision}{way}"
        jobs.append([Job("train", "torch", variant, shape, device=DEVICE, **times) for shape in shapes])
    return jobs


def rows_of(entrants: Sequence[tuple[str, Contestant]], peak: Peak) -> list[dict[str, Any]]:
    """Results on one shape: every contestant with its precision.

    PyTorch's are held against ours in the same precision, and all gradients against ours in IEEE float32.
    """
    ours = {precision: contestant for precision, contestant in entrants if contestant.job.library == "gru-xp"}
    reference = ours["ieee"].arrays
    rows = []
    for precision, contestant in entrants:
        row = contestant.row() | {"precision": precision} | compare(ours[precision], contestant)
        if contestant.problem is None:
            row |= floor_ms(contestant.job.shape, precision, peak)
            row["floor_share"] = None if row["floor_ms"] is None else row["floor_ms"] / row["median_ms"]
            if contestant.arrays and reference:
                difference = relative_difference(contestant.arrays, reference)
                row["gradient_difference" if precision == "ieee" else "gradient_difference_to_ieee"] = difference
        rows.append(row)
    return rows


@click.command(cls=Command)
@shapes_option
@repeats_option(2)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="When to stop; what is not done by then is left out.  "
    f"[default: {TIMING_MINUTES:g}; with --smoke {MINUTES:g}]",
)
@click.option("--smoke", "is_smoke", is_flag=True, help="Check the CUDA path, too: all tests that need a device.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=0.5,
    show_default=True,
    help="How long to time each row in each round.",
)
@quick_option("One round of a few steps of the smallest shapes")
@click.option("--all-shapes", is_flag=True, help="With --quick: of all shapes.")
@json_option
def gpu(
    shapes: tuple[Shape, ...],
    repeats: int,
    minutes: float | None,
    is_smoke: bool,
    seconds: float,
    quick: bool,
    all_shapes: bool,
    json_file: Path | None,
) -> None:
    """Time one training step on a CUDA device beside PyTorch's (cuDNN), eager and in a CUDA graph.

    Once in IEEE float32 and once in TF32, in which products use numbers with fewer bits. What fails says so in its
    row. The floor is an estimate; README.md says of what.

    With --smoke, it first runs the tests marked cuda in order of risk, and compares a training with the CPU and with
    itself; it also times tiles of persistent kernels, and ends with status 1 if a part fails. README.md says more.
    """
    problem = cuda_problem()
    if problem is not None:
        raise click.ClickException(f"there is no CUDA device: {problem}")
    if is_smoke:
        if quick:
            raise click.UsageError("--smoke takes --minutes, --shapes and --json only; leave out --quick")
        smoke(MINUTES if minutes is None else minutes, shapes, json_file)
        return
    minutes = TIMING_MINUTES if minutes is None else minutes
    peak = _known_peak()
    until = time.monotonic() + 60 * minutes
    torch_is_there = find_spec("torch") is not None
    chosen = shapes or (SHAPES[:2] if quick and not all_shapes else SHAPES)
    times = {**timing(quick, seconds=seconds), "pipelined_steps": 2 if quick else PIPELINED_STEPS}

    turns: list[tuple[str, list[Contestant]]] = [
        (precision, [Contestant(job) for job in jobs])
        for precision in PRECISIONS
        for jobs in jobs_of(precision, chosen, torch_is_there, times)
    ]
    processes = [  # one for all precisions of a library: starting it takes longer than measuring
        [c for _, contestants in turns for c in contestants if c.job.library == library]
        for library in ("gru-xp", *(["torch"] if torch_is_there else []))
    ]
    hold(processes, 1 if quick else repeats, label=DEVICE, limit=60 * minutes / 2, until=until)
    rows = [
        row
        for number in range(len(chosen))
        for row in rows_of([(precision, contestants[number]) for precision, contestants in turns], peak)
    ]

    print_table(
        f"One training step in milliseconds on {peak.name}",
        (
            "B, T, H, I",
            "",
            "what",
            "median",
            "min",
            "no waiting",
            "ours: times as fast",
            "in rounds",
            "floor, est.",
            "share of it",
            "gradient differs by",
        ),
        list(grouped(_cells(rows))),
        left=3,
    )
    summary = summarize(rows)
    for name, numbers in summary.items():
        click.echo(
            f"{name}: {numbers['geometric_mean']:.2f} times as fast (geometric mean), lowest {numbers['lowest']:.2f} "
            f"at {numbers['lowest_at']}"
        )
    if not torch_is_there:
        note("PyTorch is not installed: there are no times of it, and our gradient is not checked against it")
    settings = {
        "device": DEVICE,
        "repeats": repeats,
        "minutes": minutes,
        "quick": quick,
        "peak": asdict(peak),
        "floor": ASSUMPTIONS,
        **times,
    }
    save_json(json_file, "gpu", settings, rows, summary)
    check(rows)


def _known_peak() -> Peak:
    """Of the device; of one that tells nothing where it cannot be asked, as the times are worth having all the same."""
    try:
        return query_peak()
    except Exception as error:
        note(f"there is no floor: {' '.join(str(error).split()) or type(error).__name__}")
        return Peak(DEVICE, "unknown", dict.fromkeys(PRECISIONS), None, 0)


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Our times beside each of PyTorch's ways, over the shapes."""
    summary: dict[str, Any] = {}
    for precision in PRECISIONS:
        for way, label in TORCH_WAYS.items():
            faster = {
                shape_text(row["shape"].values()): row["times_as_fast"]
                for row in rows
                if "times_as_fast" in row and row["library"] == "torch" and row["variant"] == f"{precision}{way}"
            }
            if faster:
                lowest = min(faster, key=lambda shape: faster[shape])
                summary[f"{label}, {precision.upper()}"] = {
                    "geometric_mean": geometric_mean(list(faster.values())),
                    "lowest": faster[lowest],
                    "lowest_at": lowest,
                }
    return summary


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for row in rows:
        group = shape_text(row["shape"].values()), row["precision"].upper()
        way = row["variant"].removeprefix(row["precision"])
        label = "gru-xp" if row["library"] == "gru-xp" else TORCH_WAYS[way]
        if row["problem"]:
            yield group, (f"{label}: {row['problem']}",)
            continue
        faster = rounds = floor = share = difference = ""
        if "times_as_fast" in row:
            faster = f"{row['times_as_fast']:.2f}"
            rounds = range_text(row["times_as_fast_min"], row["times_as_fast_max"])
        if row["floor_ms"] is not None:
            floor, share = number_text(row["floor_ms"]), f"{row['floor_share']:.1%}"
        for name in ("gradient_difference", "gradient_difference_to_ieee"):
            if name in row:
                difference = f"{row[name]:.1e}"
        pipelined = number_text(row["pipelined_ms"]) if "pipelined_ms" in row else ""
        times = number_text(row["median_ms"]), number_text(row["min_ms"]), pipelined
        yield group, (label, *times, faster, rounds, floor, share, difference)
