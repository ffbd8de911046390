"""Contestants take turns, each turn in a fresh process, and what their rounds come to."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.checkout import ROOT, Checkout
from benchmarks.job import Arrays, Job, Measurement
from gru_xp.cli.messages import note

TIME_LIMIT = 900.0
DETAILS = 4_000
"""How many characters of a failed process's stderr are kept."""

OTHER_SETTINGS = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "CUPY_TF32",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "GRU_XP_PLAIN",
)
"""Environment variables that would change what is compared; processes do not get them from outside."""


@dataclass
class Contestant:
    """A job, and what its rounds have given; it runs in another checkout if there is one."""

    job: Job
    checkout: Checkout | None = None
    rounds: list[Measurement] = field(default_factory=list)
    arrays: Arrays = field(default_factory=dict)
    problem: str | None = None
    details: str = ""

    @property
    def name(self) -> tuple[str, str]:
        """Library and variant; of another checkout, the library is that checkout."""
        return self.job.library if self.checkout is None else self.checkout.name, self.job.variant

    @property
    def median_ms(self) -> float:
        """Of all samples."""
        return 1e3 * float(np.median(np.concatenate([measurement.times for measurement in self.rounds])))

    @property
    def round_medians_ms(self) -> list[float]:
        """Of the samples of each round."""
        return [1e3 * float(np.median(measurement.times)) for measurement in self.rounds]

    def next_job(self, arrays_file: Path) -> Job:
        """The job of the next round: later ones take as many samples as the first, which writes its arrays."""
        if self.rounds:
            return replace(self.job, steps=len(self.rounds[0].times))
        return replace(self.job, arrays_file=str(arrays_file))

    def row(self) -> dict[str, Any]:
        """The result, as JSON can hold it."""
        job = self.job
        row: dict[str, Any] = {
            "task": job.task,
            "device": job.device,
            "threads": job.threads,
            "shape": dict(zip("BTHI", job.shape, strict=True)),
            "library": job.library,
            "variant": job.variant,
            "problem": self.problem,
        }
        if self.checkout is not None:
            row["checkout"] = self.checkout.name
        if self.problem is not None:
            return row | {"problem_details": self.details}
        milliseconds = 1e3 * np.concatenate([measurement.times for measurement in self.rounds])
        q1, median, q3 = np.quantile(milliseconds, (0.25, 0.5, 0.75)).tolist()
        peaks = [measurement.peak_bytes for measurement in self.rounds if measurement.peak_bytes is not None]
        if job.device != "cpu":  # that would be the host's memory
            peaks = []
        pipelined = [1e3 * m.pipelined_seconds for m in self.rounds if m.pipelined_seconds is not None]
        row |= {
            "samples": milliseconds.size,
            "median_ms": median,
            "min_ms": milliseconds.min().item(),
            "q1_ms": q1,
            "q3_ms": q3,
            "round_medians_ms": self.round_medians_ms,
        }
        if peaks:
            row["peak_bytes"] = max(peaks)
        if pipelined:
            row["pipelined_ms"] = float(np.median(pipelined))
        return row


def hold(
    contestants: Sequence[list[Contestant]],
    repeats: int,
    *,
    label: str,
    limit: float = TIME_LIMIT,
    until: float = math.inf,
) -> None:
    """Have contestants take turns, every second round in reverse order; those in one list share a process.

    Parameters
    ----------
    contestants
        In the order of their turns.
    repeats
        Rounds.
    label
        Of the lines that say how far it is.
    limit
        Seconds that a process may take.
    until
        No process starts after, or outlasts, this ``time.monotonic()``.
    """
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            note(f"{label}: round {number + 1} of {repeats}")
            for together in contestants[:: -1 if number % 2 else 1]:
                _run([c for c in together if c.problem is None], Path(folder), limit, until)


def _run(waiting: list[Contestant], folder: Path, limit: float, until: float) -> None:
    """One round of each, in one process, or in another one after each that fails."""
    while waiting:
        left = until - time.monotonic()
        if left <= 0:
            for contestant in waiting:
                if not contestant.rounds:
                    contestant.problem = "not run: the time was up"
            return
        arrays_files = [folder / f"{number}.npz" for number in range(len(waiting))]
        jobs = [contestant.next_job(file) for contestant, file in zip(waiting, arrays_files, strict=True)]
        root = ROOT if waiting[0].checkout is None else waiting[0].checkout.folder
        measurements, problem, details = run_process(jobs, folder, min(limit, left), root)
        for contestant, job, measurement in zip(waiting, jobs, measurements, strict=False):
            contestant.rounds.append(measurement)
            if job.arrays_file is not None and Path(job.arrays_file).exists():
                with np.load(job.arrays_file) as arrays:
                    contestant.arrays = dict(arrays)
                Path(job.arrays_file).unlink()
        waiting = waiting[len(measurements) :]
        if problem is not None and waiting:
            failed, *waiting = waiting
            if not (failed.rounds and time.monotonic() >= until):  # else the rounds before count
                failed.problem, failed.details = problem, details


def run_process(
    jobs: Sequence[Job], folder: Path, limit: float, root: Path = ROOT
) -> tuple[list[Measurement], str | None, str]:
    """Do jobs of one library in a process of its own; results until the first that fails, and how that one did.

    The process starts in `root`, whose gru-xp and benchmarks it imports.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_SETTINGS}
    environment |= {"OMP_NUM_THREADS": str(jobs[0].threads), **jobs[0].environment}
    results, errors = folder / "results", folder / "errors"
    results.unlink(missing_ok=True)
    problem = None
    with errors.open("w", encoding="utf-8") as stderr:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.worker", str(results)],
                input=json.dumps([job.fields() for job in jobs]),
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                text=True,
                cwd=root,
                env=environment,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            problem = f"not done after {limit:.0f} s"
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    measurements = [Measurement(**json.loads(line)) for line in lines if line.endswith("}")]
    details = errors.read_text(encoding="utf-8", errors="replace").strip()
    if problem is None and done.returncode:
        problem = error_line(details) or f"ended with status {done.returncode}"
    return measurements, problem, details[-DETAILS:]


def error_line(output: str) -> str:
    """The line that names the error that ended a process: of several lines of a message, the first."""
    _, traceback, last = output.rstrip().rpartition("Traceback (most recent call last):\n")
    lines = last.splitlines()
    if traceback:
        lines = [line for line in lines if line and not line.startswith(" ")][:1]
    return lines[-1].removeprefix("Error: ") if lines else ""


def compare(ours: Contestant | None, other: Contestant) -> dict[str, float]:
    """How many times as fast we are as `other`: of the medians, and the smallest and largest of one round."""
    if ours is None or ours is other or ours.problem is not None or other.problem is not None:
        return {}
    rounds = [b / a for a, b in zip(ours.round_medians_ms, other.round_medians_ms, strict=False)]
    return {
        "times_as_fast": other.median_ms / ours.median_ms,
        "times_as_fast_min": min(rounds),
        "times_as_fast_max": max(rounds),
    }


def with_before(contestants: Sequence[Contestant], checkout: Checkout | None) -> list[Contestant]:
    """`contestants`, each of ours followed by the same one of another checkout, if there is one."""
    together = []
    for contestant in contestants:
        together.append(contestant)
        if checkout is not None and contestant.job.library == "gru-xp":
            task = contestant.job.task
            problem = None if checkout.knows(task) else f"its benchmarks have no task {task}"
            together.append(Contestant(contestant.job, checkout, problem=problem))
    return together


def compare_with_before(contestants: Sequence[Contestant], before: Contestant) -> dict[str, float]:
    """How many times as fast we are as the same contestant of another checkout."""
    ours = next(c for c in contestants if c.checkout is None and c.job == before.job)
    return {name.replace("as_fast", "as_fast_as_before"): ratio for name, ratio in compare(ours, before).items()}


def relative_difference(actual: Arrays, desired: Arrays) -> float:
    """The largest difference of any array's elements, in units of that array's largest element."""
    _check_names(actual, desired)
    return max(float(np.max(np.abs(actual[name] - b)) / np.max(np.abs(b))) for name, b in desired.items())


def absolute_difference(actual: Arrays, desired: Arrays) -> float:
    """The largest difference of any array's elements."""
    _check_names(actual, desired)
    return max(float(np.max(np.abs(actual[name] - b))) for name, b in desired.items())


def _check_names(actual: Arrays, desired: Arrays) -> None:
    if actual.keys() != desired.keys():
        raise ValueError(f"the arrays are {', '.join(actual)} and {', '.join(desired)}")


def check_measured(rows: Sequence[dict[str, Any]]) -> None:
    """Raise ClickException unless something could be measured."""
    if all(row["problem"] for row in rows):
        raise click.ClickException(f"nothing could be measured: {rows[0]['problem']}")


def geometric_mean(numbers: Sequence[float]) -> float:
    """Of positive numbers."""
    return float(np.exp(np.mean(np.log(numbers))))
