"""Forecasts of one series by one model, kept in a folder, so that a run continues where another one stopped."""

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import own, peers
from benchmarks.accuracy.environments import PEERS, prepare
from benchmarks.accuracy.peers import Floats, Job, write_job
from benchmarks.accuracy.series import Series
from benchmarks.checkout import ROOT
from benchmarks.model_process import run_model

SEEDLESS = ("gru-xp, ridge", "AutoTheta")
"""Models without random numbers, which run once."""

TIME_LIMIT = 4 * 3600
"""Seconds of one process."""


@dataclass(frozen=True)
class Measurement:
    """Result of one job.

    Attributes
    ----------
    mase
        Mean absolute scaled error over all origins and steps; None if it failed.
    fit_seconds, forecast_seconds
        CPU time, the first with the import of the library.
    versions
        Of the packages.
    problem
        Why there is no result.
    """

    mase: float | None
    fit_seconds: float | None
    forecast_seconds: float | None
    versions: dict[str, str]
    problem: str | None = None


def job_of(series: Series, seed: int) -> Job:
    """The job of a series.

    The neural peers get three horizons, as neuralforecast's GRU does by default, but at least two seasons, and a week
    of hourly or half-hourly rows, the longest season that is known without looking at the data.
    """
    source = series.source
    length = max(3 * source.horizon, 2 * source.season, own.WEEKS.get(source.season, 0))
    return Job(series.values, series.learned, series.origins, source.horizon, source.season, source.freq, length, seed)


def mase(series: Series, y_pred: Floats) -> float:
    """Mean absolute error of forecasts ``(n, horizon)``, in units of the series' scale."""
    return float(np.mean(np.abs(y_pred - series.actual)) / series.scale)


def measure(model: str, series: Series, seed: int, folder: Path, run_missing: bool = True) -> Measurement | None:
    """Measure a model on a series, or read the kept result; None if nothing is kept and `run_missing` is false."""
    job = job_of(series, seed)
    file = folder / "results" / f"{_key(model, job)}.json"
    if file.exists():
        return Measurement(**json.loads(file.read_text(encoding="utf-8")))
    if not run_missing:
        return None
    result = _run(model, series, job, folder)
    if result.problem is None or model in PEERS:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(asdict(result)), encoding="utf-8")
        part.replace(file)
    return result


def _run(model: str, series: Series, job: Job, folder: Path) -> Measurement:
    if model in PEERS:
        command = [str(prepare(PEERS[model], folder).absolute()), "-P", str(Path(peers.__file__).resolve())]
    else:
        command = [sys.executable, "-m", "benchmarks.accuracy.own"]
    late = f"{model} on {series.source.name}: not finished after {TIME_LIMIT} s"
    outcome = run_model(command, model, lambda file: write_job(file, job), time_limit=TIME_LIMIT, at_limit=late)
    if outcome.problem is not None:
        return Measurement(None, None, None, {}, outcome.problem)
    y_pred, arrays = outcome.arrays["y_pred"], outcome.arrays
    seconds = float(arrays["fit_seconds"]), float(arrays["forecast_seconds"])
    versions = json.loads(str(arrays["versions"]))
    if y_pred.shape != series.actual.shape or not np.isfinite(y_pred).all():
        return Measurement(None, *seconds, versions, "the forecasts are not finite numbers, one for each row")
    return Measurement(mase(series, y_pred), *seconds, versions)


def _key(model: str, job: Job) -> str:
    """Name of a result, which changes with the rows, the settings and the versions."""
    digest = hashlib.sha256(model.encode())
    for name, value in sorted(vars(job).items()):
        digest.update(name.encode() + np.asarray(value).tobytes())
    if model in PEERS:
        digest.update(inspect.getsource(peers.MODELS[model]).encode())
        digest.update(repr(PEERS[model].requirements).encode())
    else:
        digest.update(inspect.getsource(own).encode() + _sources())
    return digest.hexdigest()[:24]


@cache
def _sources() -> bytes:
    """A digest of gru-xp's own code."""
    digest = hashlib.sha256()
    for file in sorted((ROOT / "gru_xp").rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.digest()


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and range over seeds."""
    return {"mase": float(np.mean(values)), "mase_min": min(values), "mase_max": max(values)}
