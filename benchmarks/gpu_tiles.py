"""Tiles of persistent kernels, a part of ``gpu --smoke``: ``python -m benchmarks.gpu_tiles compile|time``.

A tile is how a block of threads shares out rows and columns; `persistent_tile.py` estimates which one is the fastest.
Here the best ones by that estimate, and a few others, run the loops of a training step, and the estimate is compared
with the fastest.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.job import Job, Shape
from benchmarks.report import grouped, json_option, number_text, save_json, shape_text, shapes_option
from gru_xp.cli.messages import print_table
from gru_xp.devices import Device, resolve_device, to_device
from gru_xp.devices.cupy_ops import CupyOps
from gru_xp.devices.lowering import LoopSteps
from gru_xp.devices.persistent import PersistentLoop
from gru_xp.devices.persistent_loops import PersistentLoops
from gru_xp.devices.persistent_tile import Limits, LoopSize, Tile, fastest_tile, feasible_tiles
from gru_xp.errors import DeviceError
from gru_xp.nn.params import flatten, unflatten
from gru_xp.training.objective import Objective

SHAPES: tuple[Shape, ...] = ((64, 10, 70, 1), (704, 10, 70, 1), (4096, 32, 128, 8))
"""Those of ``gpu`` whose loops are persistent kernels."""

N_BEST, N_OTHERS = 8, 4
LAUNCHES, REPEATS = 10, 5
"""In a graph, and of the graph."""

THREADS = 8
"""That compile at once."""


class RecordingOps(CupyOps):
    """Keeps the calls of every loop."""

    def __init__(self) -> None:
        super().__init__()
        self.loops: list[tuple[LoopSteps, Sequence[int]]] = []

    def loop(self, step: Callable[[int], None], times: Sequence[int]) -> None:
        if len(times) > 1 and isinstance(step, LoopSteps):
            self.loops.append((step, times))
        super().loop(step, times)


class Loop(NamedTuple):
    """A loop of a training step, with the tiles to compare, and the place of each by its estimated time, from 0."""

    shape: Shape
    name: str
    steps: tuple[LoopSteps, Sequence[int]]
    limits: Limits
    chosen: Tile
    places: dict[Tile, int]

    def compile(self, tile: Tile) -> PersistentLoop:
        """The loop with a tile."""
        compiled = PersistentLoops(lambda size, limits: tile).find(*self.steps, self.limits)
        assert compiled is not None
        return compiled


def loops_of(shape: Shape, device: Device) -> Iterator[Loop]:
    """The persistent loops of a training step."""
    import cupy

    ops = RecordingOps()
    host_params, *data = Job("train", "gru-xp", "after", shape).problem()
    params = unflatten(to_device(flatten(host_params), device), host_params)
    x, y = (to_device(array, device) for array in data)
    Objective(params, x, y, ops).evaluate()
    attributes = cupy.cuda.Device().attributes
    limits = Limits(attributes["MultiProcessorCount"], attributes["MaxSharedMemoryPerBlockOptin"])
    sizes: list[LoopSize] = []

    def choose(size: LoopSize, limits: Limits) -> Tile:
        sizes.append(size)
        return fastest_tile(size, limits)

    for name, steps in zip(("forward", "backward"), ops.loops, strict=False):
        if PersistentLoops(choose).find(*steps, limits) is None:
            continue
        tiles, chosen = feasible_tiles(sizes[-1], limits), fastest_tile(sizes[-1], limits)
        others = tiles[N_BEST :: max(1, (len(tiles) - N_BEST) // N_OTHERS)][:N_OTHERS]
        places = {tile: tiles.index(tile) for tile in (chosen, *tiles[:N_BEST], *others)}
        yield Loop(shape, name, steps, limits, chosen, places)


def turns(loops: Sequence[Loop]) -> list[tuple[Loop, Tile]]:
    """The chosen tile of each loop, then the next one of each, and so on."""
    rounds = zip_longest(*([(loop, tile) for tile in loop.places] for loop in loops))
    return [turn for turns in rounds for turn in turns if turn is not None]


def compile_all(loops: Sequence[Loop], device: Device, until: float) -> int:
    """Compile kernels, which CuPy keeps on disk, until the time is up; return their number."""

    def compile_one(turn: tuple[Loop, Tile]) -> bool:
        if time.monotonic() >= until:
            return False
        loop, tile = turn
        with device.use():
            loop.compile(tile).launch()
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(compile_one, turns(loops)))


def measure(loop: Loop, tile: Tile) -> dict[str, Any]:
    """A row of results."""
    import cupy

    compiled = loop.compile(tile)

    def launch_all() -> None:
        for _ in range(LAUNCHES):
            compiled.launch()

    replay = CupyOps().capture(launch_all)
    times = []
    for _ in range(1 + REPEATS):
        cupy.cuda.get_current_stream().synchronize()
        start = time.perf_counter()
        replay()
        cupy.cuda.get_current_stream().synchronize()
        times.append((time.perf_counter() - start) / LAUNCHES)
    return {
        "shape": dict(zip("BTHI", loop.shape, strict=True)),
        "loop": loop.name,
        "tile": tile._asdict(),
        "estimated_place": loop.places[tile],
        "chosen": tile == loop.chosen,
        "grid": compiled.grid,
        "threads": compiled.threads,
        "shared_bytes": compiled.shared_bytes,
        "median_ms": 1e3 * statistics.median(times[1:]),
    }


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For each loop, how many times as long as the fastest the chosen tile takes, and which is the fastest."""
    summary = {}
    for chosen in (row for row in rows if row["chosen"]):
        same = [row for row in rows if (row["shape"], row["loop"]) == (chosen["shape"], chosen["loop"])]
        best = min(same, key=lambda row: float(row["median_ms"]))
        name = f"{shape_text(chosen['shape'].values())}, {chosen['loop']}"
        summary[name] = {"chosen_by_fastest": chosen["median_ms"] / best["median_ms"], "fastest": best["tile"]}
    return summary


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of each loop, the fastest first."""

    def cells() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
        for row in sorted(rows, key=lambda row: (*row["shape"].values(), row["loop"], row["median_ms"])):
            tile = ", ".join(map(str, row["tile"].values())) + (" (chosen)" if row["chosen"] else "")
            numbers = row["estimated_place"], row["grid"], row["threads"]
            group = shape_text(row["shape"].values()), row["loop"]
            yield group, (tile, number_text(1e3 * row["median_ms"]), *map(str, numbers))

    header = ("B, T, H, I", "loop", "groups, rows, columns, lanes", "microseconds", "place", "blocks", "threads")
    print_table("Tiles of persistent kernels", header, list(grouped(cells())), left=3)


@click.command()
@click.argument("what", type=click.Choice(["compile", "time"]))
@click.option("--seconds", type=float, default=math.inf, help="When to stop; what is not done by then is left out.")
@shapes_option
@json_option
def main(what: str, seconds: float, shapes: tuple[Shape, ...], json_file: Path | None) -> None:
    """Compile the kernels, or time them."""
    until = time.monotonic() + seconds
    try:
        device = resolve_device("cuda", fallback=False)
    except DeviceError as error:
        raise click.ClickException(str(error)) from error
    with device.use():
        loops = [loop for shape in shapes or SHAPES for loop in loops_of(shape, device)]
        if not loops:
            sys.exit("Error: no loop is a persistent kernel on this device")
        if what == "compile":
            print(compile_all(loops, device, until), "kernels are compiled")
            return
        rows = []
        for loop, tile in turns(loops):
            if time.monotonic() < until or tile == loop.chosen:
                rows.append(measure(loop, tile))
    show(rows)
    save_json(json_file, "gpu tiles", {"launches": LAUNCHES, "repeats": REPEATS}, rows, summarize(rows))


if __name__ == "__main__":
    main()
