"""Forecasts of statsforecast, to compare with: https://github.com/Nixtla/statsforecast."""

import logging
import time
import warnings

import numpy as np

from gru_xp.errors import DataError
from gru_xp.forecasting.backtest import OtherForecast
from gru_xp.forecasting.windows import Floats
from gru_xp.interop.peers import import_peer, reason
from gru_xp.io.table import Rows
from gru_xp.nn.checks import check_choice

MODELS = ("AutoTheta", "AutoETS")
"""Those that there are, by the names of their classes."""

_LONG = 10.0
"""Seconds of all fits, above which how long they take is said."""

_log = logging.getLogger(__name__)


def statsforecast_model(name: str) -> OtherForecast:
    """A model of statsforecast, as another forecast of a table of errors.

    It is fitted anew at each origin, to all rows before it. That takes a part of a second for a thousand rows, and
    longer with a season.

    Parameters
    ----------
    name : {"AutoTheta", "AutoETS"}
        Of the model.

    Returns
    -------
    callable
        For `Forecaster.backtest` and `Forecaster.evaluate`; it raises DataError where the model cannot be fitted.

    Raises
    ------
    ArgumentError
        There is no such model.
    GruXpError
        statsforecast is not installed.
    """
    check_choice("name", name, MODELS)
    model = getattr(import_peer("statsforecast.models", f"the forecast of {name}"), name)

    def forecast(values: Floats, origins: Rows, horizon: int, season: int) -> Floats:
        forecasts = np.empty((len(origins), horizon))
        start = time.perf_counter()
        for row, origin in enumerate(origins.tolist()):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # such as that a season is too long for a model
                    forecasts[row] = model(season_length=season).forecast(y=values[:origin], h=horizon)["mean"]
            except Exception as error:  # of its optimizer, of a series that is too short, and others
                raise DataError(f"{name} cannot be fitted to the first {origin} rows: {reason(error)}") from error
            if row == 1 and (seconds := (time.perf_counter() - start) / 2 * len(origins)) > _LONG:
                _log.info("%s is fitted before each of %d forecasts: about %.0f s", name, len(origins), seconds)
        return forecasts

    return forecast
