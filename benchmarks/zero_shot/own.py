"""Zero-shot forecasts by gru-xp, and those that need no model."""

import sys
import warnings
from functools import partial
from typing import Any

import numpy as np

from benchmarks.zero_shot.peers import Floats, Forecast, Model, Windows, run
from benchmarks.zero_shot.sets import ForecastSet
from gru_xp.devices import resolve_device
from gru_xp.forecasting.baselines import last_value, seasonal_naive, seasonal_name
from gru_xp.pretrained import ZeroShotForecaster
from gru_xp.pretrained.forecaster import NAME
from gru_xp.pretrained.predicting import forecast_quantiles
from gru_xp.pretrained.weights import Weights, default_weights, load_weights

FOUND, GIVEN, CALENDAR = "zero-shot, season found", "zero-shot, season given", "zero-shot, calendar"
VARIANTS = (FOUND, GIVEN, CALENDAR)

LEVELS = (0.1, 0.5, 0.9)

FIRST_DATE = "1700-01-01"
"""Of rows without dates, whose spacing alone matters."""


def load(file: str) -> Weights:
    """The weights in a file; those of the package if it is empty."""
    return load_weights(file) if file else default_weights()


def naive_forecasts(one: ForecastSet) -> dict[str, Floats]:
    """The last value, and the last season again and again, by name: each ``(n, horizon)``."""
    seasons = one.naive_seasons
    named = {"last value": last_value}
    named |= {seasonal_name(season, seasons): partial(seasonal_naive, season) for season in seasons}
    windows = list(zip(one.series, one.origins, strict=True))
    return {
        name: np.concatenate([naive(values, origins, one.horizon) for values, origins in windows])
        for name, naive in named.items()
    }


def zero_shot_forecasts(one: ForecastSet, variant: str, weights: Weights) -> Floats | None:
    """Forecasts ``(n, horizon, 3)`` of a set; None where nothing is known that suggests a season by the calendar."""
    if variant == FOUND:
        return _quantiles(weights, None, Windows(one.known, one.horizon, one.season))
    if variant == GIVEN:
        seasons = one.seasons or (1,)
        return _quantiles(weights, (seasons[0], seasons[-1]), Windows(one.known, one.horizon, one.season))
    if one.freq is None:
        return None
    import pandas as pd

    forecaster = ZeroShotForecaster(weights=weights, device=resolve_device("cpu", threads=1))
    found = []
    for values, origins in zip(one.series, one.origins, strict=True):
        dates = pd.date_range(FIRST_DATE, periods=len(values), freq=one.freq)
        named = forecaster.forecast_distributions(pd.Series(values, dates), origins.tolist(), one.horizon)
        columns = [named[f"{NAME}{level}"] for level in ("-lo-80", "", "-hi-80")]
        found.append(np.stack(columns, axis=2))
    return np.concatenate(found)


def _quantiles(weights: Weights, periods: tuple[int, int] | None, windows: Windows) -> Floats:
    from gru_xp.pretrained.features import LEVELS as ALL

    given = None if periods is None else [periods] * len(windows.known)
    device = resolve_device("cpu", threads=1)
    quantiles = forecast_quantiles(weights, windows.known, given, windows.horizon, device=device)
    return np.asarray(quantiles[:, :, [ALL.index(level) for level in LEVELS]])


def models(file: str) -> dict[str, Model]:
    """Those that are timed with the weights in a file."""

    def model(season_given: bool) -> tuple[Forecast, dict[str, int]]:
        weights = load(file)

        def forecast(windows: Windows) -> Any:
            return _quantiles(weights, (windows.season,) * 2 if season_given else None, windows)

        return forecast, {}

    return {FOUND: partial(model, False), GIVEN: partial(model, True)}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run(models(sys.argv[4]), sys.argv[1:4])
