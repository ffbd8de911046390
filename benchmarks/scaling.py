"""``scaling``: time and peak memory of our training step against B, T, H and threads."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks.contest import Contestant, check_measured, hold
from benchmarks.job import Job, Shape
from benchmarks.report import (
    file_option,
    grouped,
    json_option,
    number_text,
    quick_option,
    repeats_option,
    save_json,
    shape_text,
    timing,
)
from gru_xp.cli.messages import note, print_table
from gru_xp.cli.options import Command
from gru_xp.devices import resolve_device

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASE: Shape = (256, 16, 32, 1)
DOUBLINGS = 5
THREADS_SHAPE: Shape = (2048, 32, 128, 8)
QUICK_BASE: Shape = (8, 4, 8, 1)

LABELS = {"B": "sequences B", "T": "steps T", "H": "hidden size H", "threads": "threads"}


def sweep(size: str, base: Shape, doublings: int) -> list[Shape]:
    """`base`, and the same with one of its sizes, ``"B"``, ``"T"`` or ``"H"``, doubled so many times."""
    place = "BTHI".index(size)
    return [(*base[:place], base[place] * 2**n, *base[place + 1 :]) for n in range(doublings + 1)]


def thread_counts(most: int) -> list[int]:
    """1, 2, 4 and so on, and `most`."""
    return [2**n for n in range(most.bit_length()) if 2**n < most] + [most]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of the straight line that fits the logarithms best: 1 for what grows as fast as its size."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def slopes(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By size, of time and of peak memory: the exponent over all, and of the last doubling alone."""
    summary: dict[str, Any] = {}
    for against in dict.fromkeys(row["against"] for row in rows):
        points = [row for row in rows if row["against"] == against and not row["problem"]]
        for name in ("median_ms", "peak_bytes"):
            known = [(point["size"], point[name]) for point in points if point.get(name, 0) > 0]
            if len(known) > 1:
                sizes, values = zip(*known, strict=True)
                summary.setdefault(against, {})[name] = {
                    "exponent": exponent(sizes, values),
                    "last_exponent": exponent(sizes[-2:], values[-2:]),
                }
    return summary


@click.command(cls=Command)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Most threads for the sweep over threads; the others use one.  [default: OMP_NUM_THREADS, or the cores]",
)
@repeats_option(3)
@file_option("--plot", "plot_file", "Draw time and memory to FILE, such as scaling.png.")
@quick_option("One round of a few steps, two doublings of small sizes")
@json_option
def scaling(threads: int | None, repeats: int, plot_file: Path | None, quick: bool, json_file: Path | None) -> None:
    """Time our training step, and take its peak memory, against B, T, H, each doubled five times, and threads.

    An exponent of 1 means that cost doubles with its size.
    """
    most = threads or resolve_device("cpu").threads
    base, doublings = (QUICK_BASE, 2) if quick else (BASE, DOUBLINGS)
    points = [
        (size, shape["BTHI".index(size)], shape, 1)
        for size in ("B", "T", "H")
        for shape in sweep(size, base, doublings)
    ]
    points += [("threads", n, base if quick else THREADS_SHAPE, n) for n in thread_counts(most)]

    # What is measured twice, as the base is, is run once.
    contestants = {
        (shape, count): Contestant(Job("train", "gru-xp", "after", shape, threads=count, **timing(quick)))
        for _, _, shape, count in points
    }
    hold(
        [[contestant] for contestant in contestants.values()],
        1 if quick else repeats,
        label=f"{len(contestants)} shapes",
    )
    rows = [
        {"against": against, "size": size, **contestants[shape, count].row()} for against, size, shape, count in points
    ]
    check_measured(rows)

    summary = slopes(rows)
    print_table(
        'One training step, float32, reset="after"',
        ("against", "size", "B, T, H, I", "threads", "ms, median", "min", "peak MiB"),
        list(grouped(_cells(rows))),
        left=1,
    )
    for against, numbers in summary.items():
        texts = [
            f"{label} grows with exponent {numbers[name]['exponent']:.2f} (last doubling "
            f"{numbers[name]['last_exponent']:.2f})"
            for name, label in (("median_ms", "time"), ("peak_bytes", "memory"))
            if name in numbers
        ]
        click.echo(f"{LABELS[against]}: {', '.join(texts)}")
    settings = {
        "base": dict(zip("BTHI", base, strict=True)),
        "doublings": doublings,
        "threads": most,
        "repeats": repeats,
        "quick": quick,
        "dtype": "float32",
        **timing(quick),
    }
    save_json(json_file, "scaling", settings, rows, summary)
    if plot_file is not None:
        try:
            plot(plot_file, rows, summary)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"{plot_file} cannot be written ({error})") from error
        note(f"written to {plot_file}")


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for row in rows:
        cells = [str(row["size"]), shape_text(row["shape"].values()), str(row["threads"])]
        if row["problem"]:
            cells.append(row["problem"])
        else:
            peak = number_text(row["peak_bytes"] / 2**20) if "peak_bytes" in row else ""
            cells += [number_text(row["median_ms"]), number_text(row["min_ms"]), peak]
        yield (row["against"],), tuple(cells)


# --- the plot ---------------------------------------------------------------------------------------------------

_PROPORTIONAL = (1, "proportional", "--")
GUIDES = {
    "B": [_PROPORTIONAL],
    "T": [_PROPORTIONAL],
    "H": [_PROPORTIONAL, (2, "quadratic", ":")],
    "threads": [(-1, "ideal time", "--")],
}
"""Lines to compare the time with: exponent, label, style."""

# Okabe and Ito's colours, which colour-blind readers can tell apart
_TIME, _MEMORY = "#0072B2", "#D55E00"


def plot(file: Path, rows: Sequence[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Four panels, both axes logarithmic: time on the left axis, peak memory on the right one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    for axes, against in zip(figure.subplots(2, 2).flat, LABELS, strict=True):
        points = [row for row in rows if row["against"] == against and not row["problem"]]
        _panel(axes, against, points, summary.get(against, {}))
    figure.suptitle('One training step on the CPU, float32, reset="after"')
    figure.savefig(file, dpi=120)


def _panel(axes: "Axes", against: str, points: Sequence[dict[str, Any]], slopes: dict[str, Any]) -> None:
    right = axes.twinx()
    sizes = [point["size"] for point in points]
    drawn = []
    for side, name, label, color, marker, unit in (
        (axes, "median_ms", "time", _TIME, "o", 1),
        (right, "peak_bytes", "peak memory", _MEMORY, "s", 2**20),
    ):
        known = [(point["size"], point[name] / unit) for point in points if point.get(name, 0) > 0]
        if not known:
            continue
        if name in slopes and against != "threads":
            label += f", exponent {slopes[name]['exponent']:.2f}"
        drawn += side.plot(*zip(*known, strict=True), color=color, marker=marker, label=label)
        _place(side, [value for _, value in known], above=side is axes)
    if sizes and points[0].get("median_ms"):
        first = points[0]["median_ms"]
        for power, label, style in GUIDES[against]:
            guide = [first * (size / sizes[0]) ** power for size in sizes]
            drawn += axes.plot(sizes, guide, color="0.5", linestyle=style, linewidth=1, label=label, zorder=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    shape = "" if not points else _fixed(against, points[0]["shape"], points[0]["threads"])
    axes.set(xlabel=LABELS[against], title=shape)
    axes.set_ylabel("milliseconds", color=_TIME)
    right.set_ylabel("MiB", color=_MEMORY)
    axes.grid(alpha=0.3)
    axes.legend(handles=drawn, fontsize="small", loc="upper left")


def _fixed(against: str, shape: dict[str, int], threads: int) -> str:
    """What does not change in a panel."""
    sizes = {**shape, "threads": threads}
    return ", ".join(f"{name} = {size}" for name, size in sizes.items() if name != against)


def _place(axes: "Axes", values: Sequence[float], *, above: bool) -> None:
    """A logarithmic axis of four decades, with the values in its upper or its lower part."""
    axes.set_yscale("log")
    middle = math.log10(math.sqrt(min(values) * max(values)))
    middle += -0.5 if above else 0.5
    axes.set_ylim(10 ** (middle - 2), 10 ** (middle + 2))
