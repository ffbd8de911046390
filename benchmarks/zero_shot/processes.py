"""Models in processes of their own with one thread, and the results of other libraries, which are kept in a folder."""

import hashlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.accuracy.environments import STATSFORECAST, TORCH, Environment, prepare
from benchmarks.checkout import ROOT
from benchmarks.contest import OTHER_SETTINGS, error_line
from benchmarks.zero_shot import own, peers
from benchmarks.zero_shot.peers import Floats, Windows, write_windows

FRACAST = Environment("fracast", ((TORCH,), (TORCH, "fracast==0.1.0")))

PEERS = {"AutoETS": STATSFORECAST, "AutoTheta": STATSFORECAST, "Fracast-0": FRACAST}
"""The environment of each model of `peers`."""

TIME_LIMIT = 8 * 3600
"""Seconds of one process."""


@dataclass(frozen=True)
class Result:
    """What a process comes to.

    Attributes
    ----------
    quantiles : array, shape ``(n, horizon, 3)``
        The quantile 0.1, the point forecast, and the quantile 0.9; None if the process failed.
    about
        ``versions``, ``sizes`` of the weights, and ``seconds`` of CPU time of each repetition.
    wall_seconds
        Of the process, from start to end.
    problem
        Why there is no result.
    """

    quantiles: Floats | None
    about: dict[str, Any]
    wall_seconds: float = 0.0
    problem: str | None = None


def forecast_kept(model: str, windows: Windows, folder: Path) -> Result:
    """Forecasts of another library; those that the folder has from an earlier run, if nothing has changed."""
    file = folder / "zero-shot" / f"{_key(model, windows)}.npz"
    if not file.exists():
        result = run_peer(model, windows, folder)
        if result.quantiles is None:
            return result
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.npz")
        np.savez(part, quantiles=result.quantiles, about=json.dumps(result.about))
        part.replace(file)
    return Result(*_read(file))


def run_peer(model: str, windows: Windows, folder: Path) -> Result:
    """Forecasts of another library, in its own environment."""
    python = prepare(PEERS[model], folder).absolute()
    return run_process([str(python), "-P", str(Path(peers.__file__).resolve())], model, windows)


def run_own(model: str, windows: Windows, weights: str) -> Result:
    """Zero-shot forecasts with the weights in a file; those of the package if it is empty."""
    return run_process([sys.executable, "-m", own.__name__], model, windows, weights)


def run_process(command: list[str], model: str, windows: Windows, *more: str) -> Result:
    """What a model forecasts in a new process with one thread."""
    environment = one_thread()
    with tempfile.TemporaryDirectory() as place:
        job, target = Path(place, "job.npz"), Path(place, "result.npz")
        write_windows(str(job), windows)
        start = time.perf_counter()
        try:
            done = subprocess.run(
                [*command, model, str(job), str(target), *more],
                capture_output=True,
                text=True,
                cwd=place,
                env=environment,
                timeout=TIME_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise click.ClickException(f"{model}: not finished after {TIME_LIMIT} s; forecast fewer series") from None
        wall_seconds = time.perf_counter() - start
        if done.returncode or not target.exists():
            return Result(None, {}, problem=error_line(done.stderr) or f"exit code {done.returncode}")
        quantiles, about = _read(target)
    if not np.isfinite(quantiles).all():
        return Result(None, about, problem="the forecasts are not finite numbers")
    return Result(quantiles, about, wall_seconds)


def one_thread() -> dict[str, str]:
    """The environment variables of a process."""
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_SETTINGS}
    return environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def _read(file: Path) -> tuple[Floats, dict[str, Any]]:
    with np.load(file) as result:
        return result["quantiles"], json.loads(str(result["about"]))


def _key(model: str, windows: Windows) -> str:
    """Name of a result, which changes with the rows, the model's code and the versions."""
    digest = hashlib.sha256(repr((model, PEERS[model].requirements, windows.horizon, windows.season)).encode())
    digest.update(inspect.getsource(peers).encode())
    for known in windows.known:
        digest.update(len(known).to_bytes(8, "little") + known.tobytes())
    return digest.hexdigest()[:24]
