"""Forecasts by other libraries: one process for each series, model and seed, in that library's own environment.

``python -P peers.py MODEL JOB RESULT`` reads a `Job` from a file of NumPy and writes the forecasts to another one. It
runs in a new folder, as some libraries write files where they run. This file imports nothing of gru-xp, which is not
installed there.
"""

import json
import logging
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Job:
    """A series, and which of its rows to forecast.

    Attributes
    ----------
    values : array, shape ``(N,)``
        Equally spaced, oldest first.
    learned
        Number of rows to fit to, from the first.
    origins : array, shape ``(n,)``
        The first row of each forecast, a horizon apart; the rows before it are known to it.
    horizon, season
        In rows; season 1 for none.
    freq
        Spacing of the rows, as a pandas offset.
    length
        Rows that a forecast of the neural models is based on.
    seed
        Of the random numbers.
    """

    values: Floats
    learned: int
    origins: NDArray[np.int64]
    horizon: int
    season: int
    freq: str
    length: int
    seed: int

    @property
    def train(self) -> Floats:
        """The rows to fit to."""
        return self.values[: self.learned]


Forecast = Callable[[], Floats]
"""Forecasts ``(n, horizon)`` from all origins."""


def auto_theta(job: Job) -> Forecast:
    """The best Theta method by AutoTheta of statsforecast; its parameters are kept for later origins."""
    from statsforecast.models import AutoTheta

    model = AutoTheta(season_length=job.season).fit(job.train)
    return lambda: np.stack([model.forward(job.values[:origin], h=job.horizon)["mean"] for origin in job.origins])


def neural_gru(job: Job) -> Forecast:
    """GRU of neuralforecast: 2 layers of 128 and 200 updates as in its documentation, else its defaults."""
    from neuralforecast.models import GRU

    settings = {"scaler_type": "robust", "encoder_hidden_size": 128, "decoder_hidden_size": 128, "max_steps": 200}
    model = GRU(h=job.horizon, input_size=job.length, random_seed=job.seed, **settings, **QUIET)
    return _neuralforecast(job, model)


def neural_dlinear(job: Job) -> Forecast:
    """DLinear of neuralforecast: scaling, learning rate and 500 updates as in its documentation, else its defaults."""
    from neuralforecast.models import DLinear

    settings = {"scaler_type": "robust", "learning_rate": 1e-3, "max_steps": 500}
    model = DLinear(h=job.horizon, input_size=job.length, random_seed=job.seed, **settings, **QUIET)
    return _neuralforecast(job, model)


def darts_gru(job: Job) -> Forecast:
    """BlockRNNModel of darts, a GRU with its defaults of 25 hidden units, and reversible instance normalisation."""
    from darts import TimeSeries
    from darts.dataprocessing.transformers import Scaler
    from darts.models import BlockRNNModel

    scaler = Scaler()
    train = scaler.fit_transform(TimeSeries.from_values(job.train.astype(np.float32)))
    windows = len(job.train) - job.length - job.horizon + 1
    model = BlockRNNModel(
        input_chunk_length=job.length,
        output_chunk_length=job.horizon,
        model="GRU",
        use_reversible_instance_norm=True,
        n_epochs=max(1, min(DARTS_EPOCHS, DARTS_UPDATES * DARTS_BATCH // windows)),
        batch_size=DARTS_BATCH,
        random_state=job.seed,
        pl_trainer_kwargs=QUIET,
    )
    model.fit(train, verbose=False)

    def forecast() -> Floats:
        series = scaler.transform(TimeSeries.from_values(job.values.astype(np.float32)))
        known = [series[int(origin) - job.length : int(origin)] for origin in job.origins]
        predicted = model.predict(n=job.horizon, series=known, verbose=False)
        return np.stack([scaler.inverse_transform(one).values()[:, 0] for one in predicted]).astype(np.float64)

    return forecast


DARTS_EPOCHS, DARTS_BATCH = 100, 32
"""Its defaults."""

DARTS_UPDATES = 5000
"""Of long series there are fewer epochs, so that there are at most so many updates."""

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "logger": False,
}
"""For the trainer of PyTorch Lightning."""

MODELS = {
    "AutoTheta": auto_theta,
    "GRU (neuralforecast)": neural_gru,
    "DLinear (neuralforecast)": neural_dlinear,
    "GRU (darts)": darts_gru,
}
"""Each fits to the rows of a `Job`, and returns its `Forecast`."""


def _neuralforecast(job: Job, model: Any) -> Forecast:
    import pandas as pd
    from neuralforecast import NeuralForecast

    frame = pd.DataFrame({"unique_id": 0, "ds": np.arange(len(job.values)), "y": job.values})
    fitted = NeuralForecast(models=[model], freq=1)
    fitted.fit(frame.head(job.learned))

    def forecast() -> Floats:
        known = frame.head(int(job.origins[-1]) + job.horizon)
        rows = fitted.cross_validation(
            known, n_windows=len(job.origins), step_size=job.horizon, refit=False, use_fitted=True
        )
        rows = rows.sort_values(["cutoff", "ds"])
        if list(rows["ds"]) != [row for origin in job.origins for row in range(origin, origin + job.horizon)]:
            raise ValueError("the forecasts are of other rows")
        return rows[type(model).__name__].to_numpy(dtype=np.float64).reshape(len(job.origins), job.horizon)

    return forecast


def run(models: dict[str, Callable[[Job], Forecast]], arguments: Sequence[str]) -> None:
    """Run a model's job, both given by ``MODEL JOB RESULT``."""
    name, source, target = arguments
    job = read_job(source)
    start = time.process_time()
    forecast = models[name](job)
    fitted = time.process_time()
    y_pred = forecast()
    ended = time.process_time()
    packages = ("numpy", "torch", "pytorch-lightning", "statsforecast", "neuralforecast", "darts")
    versions = {"python": platform.python_version()}
    versions |= {package: found for package in packages if (found := _version(package))}
    seconds = {"fit_seconds": fitted - start, "forecast_seconds": ended - fitted}
    np.savez(target, y_pred=y_pred, versions=json.dumps(versions), **seconds)


def read_job(file: str) -> Job:
    """Read a `Job`, as `write_job` wrote it."""
    with np.load(file) as given:
        kept = {key: given[key] for key in given.files}
    arrays = ("values", "origins")
    return Job(**{key: value if key in arrays else value.item() for key, value in kept.items()})


def write_job(file: str, job: Job) -> None:
    """Write a `Job` to a file of NumPy."""
    np.savez(file, **vars(job))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    run(MODELS, sys.argv[1:])
