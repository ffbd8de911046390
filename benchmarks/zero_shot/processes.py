"""Models in processes of their own with one thread, and the results of other libraries, which are kept in a folder."""

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.environments import STATSFORECAST, TORCH, Environment, prepare
from benchmarks.model_process import read_arrays, run_model
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
    return Result(*_of_arrays(read_arrays(file)))


def run_peer(model: str, windows: Windows, folder: Path) -> Result:
    """Forecasts of another library, in its own environment."""
    python = prepare(PEERS[model], folder).absolute()
    return run_process([str(python), "-P", str(Path(peers.__file__).resolve())], model, windows)


def run_own(model: str, windows: Windows, weights: str) -> Result:
    """Zero-shot forecasts with the weights in a file; those of the package if it is empty."""
    return run_process([sys.executable, "-m", own.__name__], model, windows, weights)


def run_process(command: list[str], model: str, windows: Windows, *more: str) -> Result:
    """What a model forecasts in a new process with one thread."""
    late = f"{model}: not finished after {TIME_LIMIT} s; forecast fewer series"
    outcome = run_model(
        command, model, lambda job: write_windows(job, windows), *more, time_limit=TIME_LIMIT, at_limit=late
    )
    if outcome.problem is not None:
        return Result(None, {}, problem=outcome.problem)
    quantiles, about = _of_arrays(outcome.arrays)
    if not np.isfinite(quantiles).all():
        return Result(None, about, problem="the forecasts are not finite numbers")
    return Result(quantiles, about, outcome.wall_seconds)


def _of_arrays(arrays: Mapping[str, Floats]) -> tuple[Floats, dict[str, Any]]:
    return arrays["quantiles"], json.loads(str(arrays["about"]))


def _key(model: str, windows: Windows) -> str:
    """Name of a result, which changes with the rows, the model's code and the versions."""
    digest = hashlib.sha256(repr((model, PEERS[model].requirements, windows.horizon, windows.season)).encode())
    digest.update(inspect.getsource(peers).encode())
    for known in windows.known:
        digest.update(len(known).to_bytes(8, "little") + known.tobytes())
    return digest.hexdigest()[:24]
