"""Forecasts by gru-xp, and those that need no training, in a process of their own, as those of `peers`."""

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.accuracy.peers import Floats, Forecast, Job, run

if TYPE_CHECKING:
    import pandas as pd

WEEKS = {24: 168, 48: 336}
"""Rows of a week, by those of a day."""


def naive_forecasts(job: Job) -> dict[str, Floats]:
    """Forecasts ``(n, horizon)`` that need no training; hourly and half-hourly rows have two seasons."""
    from gru_xp.forecasting.baselines import baselines

    seasons = [season for season in (job.season, WEEKS.get(job.season, 1)) if season > 1]
    return {
        name: baseline(job.values, job.origins, job.horizon) for name, baseline in baselines(job.train, seasons).items()
    }


def _forecaster(job: Job, **settings: Any) -> Forecast:
    from gru_xp import Forecaster

    series = _dated(job)
    forecaster = Forecaster(seed=job.seed, horizon=job.horizon, **settings)
    forecaster.fit(series[: job.learned], device="cpu")
    return lambda: np.asarray(forecaster.forecasts(series, job.origins.tolist(), job.horizon))


MODELS: dict[str, Callable[[Job], Forecast]] = {
    "gru-xp": _forecaster,
    "gru-xp, ridge": partial(_forecaster, model="ridge"),
}
"""Each fits to the rows of a `Job`, and returns its `Forecast`."""


def _dated(job: Job) -> "pd.Series[float]":
    """The values at made-up dates with the spacing of the actual ones, from which gru-xp finds seasons."""
    import pandas as pd

    return pd.Series(job.values, index=pd.date_range("1900-01-01", periods=len(job.values), freq=job.freq), name="y")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run(MODELS, sys.argv[1:])
