"""A model in a process of its own with one thread, which reads its job from a file and writes arrays to another."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import numpy.typing as npt

from benchmarks.checkout import ROOT
from benchmarks.contest import OTHER_SETTINGS, error_line


class Outcome(NamedTuple):
    """How a process ended.

    Attributes
    ----------
    arrays
        What it has written, by name; empty where it failed.
    wall_seconds
        From start to end.
    problem
        Why there is nothing, in one line; None if it succeeded.
    """

    arrays: dict[str, npt.NDArray[Any]]
    wall_seconds: float
    problem: str | None


def run_model(
    command: list[str], model: str, write_job: Callable[[str], None], *more: str, time_limit: float, at_limit: str
) -> Outcome:
    """Run ``command model JOB RESULT more...`` in an empty folder, where JOB and RESULT are ``.npz`` files.

    Parameters
    ----------
    command
        A program and its first arguments.
    model
        Name of the model.
    write_job
        Writes JOB.
    *more
        Last arguments.
    time_limit
        Seconds after which the process is ended.
    at_limit
        What to say then.

    Raises
    ------
    click.ClickException
        The time is up.
    """
    with tempfile.TemporaryDirectory() as place:
        job, result = Path(place, "job.npz"), Path(place, "result.npz")
        write_job(str(job))
        start = time.perf_counter()
        try:
            done = subprocess.run(
                [*command, model, str(job), str(result), *more],
                capture_output=True,
                text=True,
                cwd=place,
                env=one_thread(),
                timeout=time_limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise click.ClickException(at_limit) from None
        seconds = time.perf_counter() - start
        if done.returncode or not result.exists():
            return Outcome({}, seconds, error_line(done.stderr) or f"exit code {done.returncode}")
        return Outcome(read_arrays(result), seconds, None)


def read_arrays(file: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a ``.npz`` file."""
    with np.load(file) as arrays:
        return dict(arrays)


def one_thread() -> dict[str, str]:
    """The environment variables of a process."""
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_SETTINGS}
    return environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
