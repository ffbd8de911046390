"""``gpu --smoke``: everything that needs a CUDA device, in order of risk, each part in a process of its own."""

import os
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import click

from benchmarks.job import Shape
from benchmarks.report import package_version, save_json
from benchmarks.smoke_part import Outcome, Part, run_part
from gru_xp.cli.messages import note, print_table

MINUTES = 4.0
RESERVE = 0.02
"""Share of the time that no part gets: for starting, ending processes and the report."""

MIN_SECONDS = 1.0
MIN_SECONDS_AGAIN = 5.0
"""The shortest time to run a part for, if there is as much, and to continue it for."""

MAX_TOGETHER = 6
CORES_EACH = 2
"""How many parts run at once: at most so many, and one for so many cores."""

DEVICES = "tests/devices/test_{}.py"
CONFORMANCE = ("-m", "benchmarks", "conformance")
TILES = ("-m", "benchmarks.gpu_tiles")
TIMES = ("-m", "benchmarks", "gpu", "--minutes", "{minutes}", "--json", "{json}")
PARTS: tuple[Part, ...] = (
    Part("device and self-check", 0.06, (DEVICES.format("device"), DEVICES.format("self_check")), alone=True),
    Part("plain operations", 0.08, ("tests/nn",)),
    Part("cuBLAS", 0.05, (DEVICES.format("cublas"),)),
    Part("elementwise kernels and reductions", 0.06, (DEVICES.format("cupy_ops"), "-k", "not captured")),
    Part("graphs", 0.06, (DEVICES.format("cuda_graph"), DEVICES.format("cupy_ops"), "-k", "cuda_graph or captured")),
    Part("persistent kernels", 0.10, (DEVICES.format("persistent"),)),
    Part("training", 0.08, ("tests/training", "tests/forecasting")),
    Part("command line", 0.05, ("tests/cli",)),
    Part("the other tests", 0.04, ("tests",)),
    Part("functions equal to the CPU's", 0.03, command=(*CONFORMANCE, "--peer", "cuda", "--json", "{json}")),
    Part("trainings equal to the CPU's", 0.03, command=("-m", "benchmarks.gpu_checks", "cpu")),
    Part("the same training twice", 0.03, command=("-m", "benchmarks.gpu_checks", "twice")),
    Part("kernels of the shapes", 0.03, command=(*TIMES, "--quick", "--all-shapes"), takes_shapes=True),
    Part("kernels of the tiles", 0.03, command=(*TILES, "compile", "--seconds", "{seconds}"), takes_shapes=True),
    Part("times", 0.17, command=(*TIMES, "--repeats", "1", "--seconds", "0.2"), alone=True, takes_shapes=True),
    Part(
        "tiles",
        0.06,
        command=(*TILES, "time", "--seconds", "{seconds}", "--json", "{json}"),
        alone=True,
        takes_shapes=True,
    ),
    Part("slow tests", 0.04, ("tests",), marks="cuda and slow", in_spare_time=True),
)
"""In order of risk. Of parts with the same marks, a path that is in several, or in another path, runs in one: the most
specific. The parts before the times compile most of their kernels. The share of the slow tests suffices to collect
them; they run in the time that the other parts leave."""


def parts_at_once() -> int:
    """How many processes may use the device, and have enough cores."""
    import cupy

    if cupy.cuda.Device(0).attributes.get("ComputeMode", 0) != 0:  # it admits one process, or none
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_TOGETHER, cores // CORES_EACH))


class Schedule:
    """Runs parts, and says for how long each may run.

    Parameters
    ----------
    seconds
        For all parts.
    lanes
        How many parts may run at once.
    folder
        For their files.

    Attributes
    ----------
    done
        How parts ended, by name.
    """

    def __init__(self, seconds: float, lanes: int, folder: Path) -> None:
        self._seconds, self._lanes, self._folder = seconds, lanes, folder
        self._end = time.monotonic() + seconds
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self.done: dict[str, Outcome] = {}

    def run(self, parts: Sequence[Part], later: Sequence[Part]) -> None:
        """Run parts in order, as many at once as may, and leave `later` ones their share of the time."""
        groups = groups_of(parts)
        for number, group in enumerate(groups):
            self._run_group(group, self._needs_all([*groups[number + 1 :], *groups_of(later)]))

    def run_rest(self, parts: Sequence[Part], later: Sequence[Part]) -> None:
        """Continue in order those parts that were ended before they were complete, as far as there is time."""
        for group in groups_of([part for part in parts if self.done[part.name].status == "incomplete"]):
            self._run_group(group, self._needs_all(groups_of(later)), again=True)

    def _needs(self, parts: Sequence[Part], width: int) -> float:
        """Seconds that parts have as their share, with as many at once."""
        return self._seconds * sum(part.share for part in parts) / width

    def _needs_all(self, groups: Sequence[Sequence[Part]]) -> float:
        return sum(self._needs(group, self._width(group)) for group in groups)

    def _width(self, group: Sequence[Part]) -> int:
        return min(self._lanes, len(group))

    def _run_group(self, group: Sequence[Part], later: float, *, again: bool = False) -> None:
        """Run parts that may run at once; each may use what those that start after it, or `later`, do not need.

        Parts that run `again` need nothing before they start.
        """
        width, waiting = self._width(group), list(group)
        running: list[Part] = []

        def run_next(part: Part) -> None:
            with self._lock:
                waiting.remove(part)
                running.append(part)
                needed = 0.0 if again else self._needs(waiting[width - len(running) :], width)
                left = self._end - time.monotonic() - later - needed
                if again and left < MIN_SECONDS_AGAIN:
                    return
                limit = max(0.0, min(max(left, MIN_SECONDS), self._end - time.monotonic()))
                note(f"{part.name}: {limit:.0f} s at most")
            folder = self._folder / part.name
            folder.mkdir(exist_ok=True)
            outcome, before = run_part(part, folder, limit, PARTS, self._stopped), self.done.get(part.name)
            with self._lock:
                running.remove(part)
                self.done[part.name] = outcome if before is None else before.continued(outcome)

        pool = ThreadPoolExecutor(width)
        try:
            for future in [pool.submit(run_next, part) for part in group]:
                future.result()
        except BaseException:  # such as Ctrl-C, which the threads do not see
            self._stopped.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def groups_of(parts: Sequence[Part]) -> list[list[Part]]:
    """Neighbours that may run at once, in order."""
    groups: list[list[Part]] = []
    for part in parts:
        if groups and not part.alone and not groups[-1][-1].alone:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def smoke(minutes: float, shapes: Sequence[Shape], json_file: Path | None) -> None:
    """Run all parts and print how each ended; measure given shapes, or those of each part if there are none.

    Raises
    ------
    click.ClickException
        A part failed, nothing is proved as too little ran, or there is no pytest.
    """
    if find_spec("pytest") is None:
        raise click.ClickException('pytest is not installed; install it with: pip install -e ".[test]"')
    start, lanes = time.monotonic(), parts_at_once()
    parts = [part.with_shapes(shapes) for part in PARTS]
    regular, spare = ([part for part in parts if part.in_spare_time is kind] for kind in (False, True))
    with tempfile.TemporaryDirectory() as folder:
        schedule = Schedule(60 * minutes * (1 - RESERVE), lanes, Path(folder))
        schedule.run(regular, spare)
        schedule.run_rest(regular, spare)
        schedule.run(spare, [])
    outcomes = [schedule.done[part.name] for part in parts]
    for outcome in outcomes:
        if outcome.results is not None and outcome.results["rows"]:
            click.echo(outcome.output)
    print_table("Checks of the CUDA path", HEADERS, [_cells(outcome) for outcome in outcomes], left=len(HEADERS))
    rows = [{name: value for name, value in asdict(o).items() if name != "output"} for o in outcomes]
    failed, incomplete = (
        [outcome.name for outcome in outcomes if outcome.status == status] for status in ("failed", "incomplete")
    )
    summary = {"failed": failed, "incomplete": incomplete, "seconds": round(time.monotonic() - start, 1)}
    settings = {
        "smoke": True,
        "minutes": minutes,
        "parts_at_once": lanes,
        "shapes": list(shapes),
        "pytest": package_version("pytest"),
    }
    save_json(json_file, "gpu", settings, rows, summary)
    by_hand: dict[str, list[str]] = {}
    for part, outcome in zip(parts, outcomes, strict=True):
        if outcome.status == "incomplete":
            note(f"{outcome.name}: {outcome.problem}")
            by_hand.setdefault(part.by_hand(), []).append(part.name)
    for command, names in by_hand.items():
        note(f"to run all of {', '.join(names)}: {command}")
    if failed:
        raise click.ClickException(f"{len(failed)} of {len(rows)} parts failed: {', '.join(failed)}")
    if missing := _missing_proof(parts, outcomes):
        raise click.ClickException(f"{missing} in {60 * minutes:.0f} s, so nothing is proved; give a longer --minutes")


def _missing_proof(parts: Sequence[Part], outcomes: Sequence[Outcome]) -> str | None:
    """What did not happen, where too little ran to say that anything works; None if enough did."""
    if not any(outcome.status == "passed" for outcome in outcomes):
        return "no part was completed"
    if any(part.tests for part in parts) and not any(outcome.passed for outcome in outcomes):
        return "no test was completed"
    return None


HEADERS = ("part", "", "passed", "failed", "skipped", "not reached", "seconds", "first error")


def _cells(outcome: Outcome) -> tuple[str, ...]:
    counts = outcome.passed, outcome.failed, outcome.skipped
    not_reached = "" if outcome.not_reached is None else str(outcome.not_reached)
    return (
        outcome.name,
        outcome.status,
        *map(str, counts),
        not_reached,
        f"{outcome.seconds:.1f}",
        _short(outcome.problem or ""),
    )


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:99]}…"
