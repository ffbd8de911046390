"""The loss that forecasts without training have, in the units that a network is trained in."""

import numpy as np

from gru_xp.errors import DataError
from gru_xp.forecasting.baselines import baselines
from gru_xp.forecasting.choosing import spaced
from gru_xp.forecasting.data import known_until
from gru_xp.forecasting.forecaster import Forecaster
from gru_xp.forecasting.recipe import known_origins
from gru_xp.forecasting.scaling import Scaler
from gru_xp.forecasting.windows import WindowSequences, split_rows
from gru_xp.io.series import TimeSeries
from gru_xp.io.table import Rows
from gru_xp.training.objective import loss_function

MAX_JUDGED = 5000
"""Windows whose loss is computed, evenly spaced, of more."""


def naive_loss(forecaster: Forecaster, learned: TimeSeries) -> tuple[str, float] | None:
    """The best forecast without training, by the loss whose epochs are in the history of a forecaster.

    Parameters
    ----------
    forecaster
        It has learned from all rows of the series.
    learned
        The series.

    Returns
    -------
    name, loss
        In the validation rows, if there are any, and else in the training rows. None for losses of quantiles and
        distributions, for transformed targets, and where the rows were other ones.
    """
    L, h = forecaster.window_length, forecaster.horizon
    if forecaster.outputs.predicted or forecaster.target_transform.kind != "none":
        return None
    try:
        split = split_rows(len(learned), L, 1.0, forecaster.validation_ratio, h)
        known = known_until(learned, split.train_end)
        scaler = Scaler.fit(forecaster.scaling, known.values[: split.train_end], learned.columns)
    except DataError:
        return None
    values = known.values

    def origins_in(part: str) -> Rows:
        rows = split.part(part)
        origins = known_origins(known, rows.stop, h)
        after: Rows = origins[origins >= max(rows.start, L)]
        return after

    training, validation = (origins_in(part) for part in ("train", "validation"))
    mean_unit = WindowSequences(values, training - L, L, h, scaler).mean_unit
    origins = spaced(validation if split.fit_end > split.train_end else training, MAX_JUDGED)
    if not len(origins):
        return None
    _, y_true, weight = WindowSequences(values, origins - L, L, h, scaler, mean_unit=mean_unit).gather(
        np.arange(len(origins))
    )
    windows = values[(origins - L)[:, None] + np.arange(L)]
    loss = loss_function(forecaster.loss, huber_delta=forecaster.huber_delta)
    losses = {}
    for name, baseline in baselines(values[: split.train_end, 0], forecaster.seasons).items():
        scaled = scaler.scale_targets(baseline(values[:, 0], origins, h), windows)
        losses[name] = float(loss(scaled, y_true, weight=weight)[0])
    best = min(losses, key=losses.__getitem__)
    return (best, losses[best]) if np.isfinite(losses[best]) else None
