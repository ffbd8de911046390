"""Forecasts by other libraries: one process for each set and model, in that library's own environment.

``python -P peers.py MODEL JOB RESULT`` reads `Windows` from a file of NumPy and writes the forecasts to another one.
This file imports nothing of gru-xp, which is not installed there.
"""

import json
import logging
import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROWS = 1000
"""AutoETS and AutoTheta are fitted to at most so many rows, the last ones before a forecast."""


@dataclass(frozen=True)
class Windows:
    """What to forecast.

    Attributes
    ----------
    known : list of arrays, each of shape ``(N,)``
        The rows before each forecast.
    horizon
        Of the forecasts, in rows.
    season
        In rows, 1 for none.
    repeats
        How many times to forecast them, to take the time.
    """

    known: list[Floats]
    horizon: int
    season: int
    repeats: int = 1


Forecast = Callable[[Windows], Floats]
"""Forecasts ``(n, horizon, 3)``: the quantile 0.1, the point forecast, and the quantile 0.9."""

Model = Callable[[], tuple[Forecast, dict[str, int]]]
"""Loads a model; with the sizes of its weights, if it has any: ``parameters``, and ``weights_bytes`` of their file."""


def auto_ets() -> tuple[Forecast, dict[str, int]]:
    """AutoETS of statsforecast: its defaults and the season, fitted anew for each forecast."""
    from statsforecast.models import AutoETS

    return _statsforecast(AutoETS), {}


def auto_theta() -> tuple[Forecast, dict[str, int]]:
    """AutoTheta of statsforecast: its defaults and the season, fitted anew for each forecast."""
    from statsforecast.models import AutoTheta

    return _statsforecast(AutoTheta), {}


def fracast() -> tuple[Forecast, dict[str, int]]:
    """Fracast-0 with the weights in its package: those of its documentation, in int8."""
    import fracast as package
    import torch

    torch.set_num_threads(1)
    model: Any = package.FracastModel.from_pretrained()
    columns = [model.quantiles.index(level) for level in (0.1, 0.5, 0.9)]

    def forecast(windows: Windows) -> Floats:
        quantiles = np.empty((len(windows.known), windows.horizon, 3))
        for rows in _of_equal_length(windows.known, model.context_length):
            known = np.stack([windows.known[row][-model.context_length :] for row in rows])
            quantiles[rows] = model.forecast_batch(known, horizon=windows.horizon)[:, :, columns]
        return quantiles

    weights = Path(package.__file__).parent / "weights" / "model.int8.safetensors"
    parameters = sum(array.numel() for part in (model.core, model.head) for array in part.parameters())
    return forecast, {"parameters": parameters, "weights_bytes": weights.stat().st_size}


MODELS: dict[str, Model] = {"AutoETS": auto_ets, "AutoTheta": auto_theta, "Fracast-0": fracast}


def _statsforecast(model: Any) -> Forecast:
    def forecast(windows: Windows) -> Floats:
        quantiles = np.empty((len(windows.known), windows.horizon, 3))
        for row, known in enumerate(windows.known):
            fitted = model(season_length=windows.season)
            found = fitted.forecast(y=known[-ROWS:], h=windows.horizon, level=[80])
            quantiles[row] = np.stack([found[name] for name in ("lo-80", "mean", "hi-80")], axis=1)
        return quantiles

    return forecast


def _of_equal_length(known: Sequence[Floats], most: int, batch: int = 256) -> list[list[int]]:
    """Which of the series can be forecast in one batch."""
    by_length: dict[int, list[int]] = {}
    for row, values in enumerate(known):
        by_length.setdefault(min(len(values), most), []).append(row)
    return [rows[first : first + batch] for rows in by_length.values() for first in range(0, len(rows), batch)]


def run(models: Mapping[str, Model], arguments: Sequence[str]) -> None:
    """Run a model's job, both given by ``MODEL JOB RESULT``."""
    name, source, target = arguments
    windows = read_windows(source)
    forecast, sizes = models[name]()
    seconds = []  # of CPU time
    if windows.repeats > 1:
        forecast(windows)  # the first time may take longer
    for _ in range(windows.repeats):
        start = time.process_time()
        quantiles = forecast(windows)
        seconds.append(time.process_time() - start)
    versions = {"python": platform.python_version()}
    for package in ("numpy", "torch", "statsforecast", "fracast"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    about = {"versions": versions, "sizes": sizes, "seconds": seconds}
    np.savez(target, quantiles=quantiles, about=json.dumps(about))


def read_windows(file: str) -> Windows:
    """Read `Windows`, as `write_windows` wrote them."""
    with np.load(file) as given:
        known = np.split(given["values"], np.cumsum(given["lengths"])[:-1])
        return Windows(known, *given["settings"].tolist())


def write_windows(file: str, windows: Windows) -> None:
    """Write `Windows` to a file of NumPy."""
    lengths = [len(values) for values in windows.known]
    settings = [windows.horizon, windows.season, windows.repeats]
    np.savez(file, values=np.concatenate(windows.known), lengths=lengths, settings=settings)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    run(MODELS, sys.argv[1:])
