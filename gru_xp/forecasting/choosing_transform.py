"""Which transform of the target to learn, where its variance grows with its level."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gru_xp.devices import Device
from gru_xp.errors import DataError
from gru_xp.forecasting.choosing import held_out_from, judged_origins
from gru_xp.forecasting.recipe import known_origins
from gru_xp.forecasting.season import find_seasons
from gru_xp.forecasting.windows import Floats
from gru_xp.io.series import TimeSeries

if TYPE_CHECKING:
    from gru_xp.forecasting.forecaster import Forecaster

MIN_BLOCKS, MAX_BLOCKS = 6, 60
"""Of rows whose spread is compared with their level."""

SHORTEST_BLOCK = 8

SIGNIFICANCE = 0.05
"""Below this p-value, the variance grows with the level."""

MIN_GAIN = 0.01
"""By which share the error with a transform must be below that without."""


@dataclass(frozen=True)
class TransformChoice:
    """Which transform was chosen.

    Attributes
    ----------
    name
        ``"none"``, ``"log"`` or ``"sqrt"``.
    reason
        Why, in one sentence.
    p_value
        Of the test whether the variance grows with the level; None where there are too few rows.
    errors
        Mean absolute errors by transform, in the data's units; empty where nothing was compared.
    """

    name: str
    reason: str
    p_value: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)


def choose_transform(
    kind: "type[Forecaster]", forecaster: "Forecaster", series: TimeSeries, device: Device
) -> TransformChoice:
    """Choose a transform for a series, all of whose rows may be learned from.

    Where the variance grows with the level, a ridge is fitted to the first four fifths of the rows, without a transform
    and with each that the values allow, and forecasts the last fifth. The smallest mean absolute error in the data's
    units decides; that without a transform is kept unless another one is 1 % below.

    Parameters
    ----------
    kind
        Makes the ridge.
    forecaster
        Whose settings the ridge has.
    series
        The training rows.
    device
        To fit on.
    """
    target = series.values[:, 0]
    if target.min() < 0:
        return TransformChoice("none", "none is chosen: log and sqrt need values of at least 0")
    seasons = find_seasons(target, series.reading.freq) if forecaster.season == "auto" else [forecaster.season]
    p_value = growth_of_variance(target, next((m for m in seasons if isinstance(m, int)), 1))
    if p_value is None:
        return TransformChoice("none", "none is chosen: too few rows to see whether the variance grows with the level")
    shown = f"p = {p_value:.2g}" if p_value >= 0.001 else "p < 0.001"
    if p_value >= SIGNIFICANCE:
        reason = f"none is chosen: the variance does not grow with the level (rank correlation, {shown})"
        return TransformChoice("none", reason, p_value)
    names = ("none", "sqrt", "log") if target.min() > 0 else ("none", "sqrt")
    errors = {name: _error(kind, forecaster, series, name, device) for name in names}
    grows = f"the variance grows with the level (rank correlation, {shown})"
    if not all(map(math.isfinite, errors.values())):
        return TransformChoice("none", f"none is chosen: {grows}, but the rows are too few to compare errors", p_value)
    best = min(errors, key=errors.__getitem__)
    name = best if errors[best] <= (1 - MIN_GAIN) * errors["none"] else "none"
    found = ", ".join(f"{name} {errors[name]:.4g}" for name in sorted(errors, key=errors.__getitem__))
    rows = len(series) - held_out_from(len(series))
    needed = f"; another must be {MIN_GAIN:.0%} better" if name != best else ""
    reason = f"{name} is chosen: {grows}; mean absolute errors in the last {rows} training rows: {found}{needed}"
    return TransformChoice(name, reason, p_value, errors)


def growth_of_variance(target: Floats, season: int = 1) -> float | None:
    """The p-value of a test whether the spread of a series grows with its level.

    The rows ``(N,)`` are cut into blocks of whole seasons. The rank correlation (Kendall's tau) of the means of the
    blocks and the standard deviations around their straight lines is compared with that of independent ones.

    Returns
    -------
    float or None
        One-sided, by the normal approximation; None for fewer than `MIN_BLOCKS` blocks.

    References
    ----------
    .. [1] M. Kendall, "A new measure of rank correlation", Biometrika 30 (1938), doi:10.1093/biomet/30.1-2.81.
    """
    seasons = max(-(-SHORTEST_BLOCK // season), len(target) // (season * MAX_BLOCKS))
    length = season * seasons
    n = len(target) // length
    if n < MIN_BLOCKS:
        return None
    blocks = target[len(target) - n * length :].reshape(n, length)
    line = np.arange(length) - (length - 1) / 2
    levels = blocks.mean(axis=1)
    centred = blocks - levels[:, None]
    spreads = (centred - np.outer(centred @ line / (line @ line), line)).std(axis=1)
    signs = [np.sign(a[:, None] - a)[np.triu_indices(n, 1)] for a in (levels, spreads)]
    deviation = math.sqrt(n * (n - 1) * (2 * n + 5) / 18)  # of the sum of products, without ties
    return math.erfc(float(signs[0] @ signs[1]) / deviation / math.sqrt(2)) / 2


def _error(kind: "type[Forecaster]", forecaster: "Forecaster", series: TimeSeries, name: str, device: Device) -> float:
    """The mean absolute error of a ridge with this transform in the last rows; NaN where there are too few rows."""
    changed = {"model": "ridge", "loss": "mae", "guard": False, "validation_ratio": 0.0, "refit": False}
    changed |= {"linear_skip": True, "transform": name, "minimum": None, "maximum": None}
    ridge = kind(**forecaster.settings() | changed)
    first, horizon = held_out_from(len(series)), forecaster.horizon
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            ridge.fit(series.head(first), device=device)
            origins = known_origins(series, len(series), horizon)
            origins = judged_origins(origins[origins >= max(first, ridge.window_length)])
            if not len(origins):
                return math.nan
            forecasts = ridge.forecasts(series, origins.tolist(), horizon)
        except DataError:  # the rows before are constant, too few or missing
            return math.nan
    actual = series.values[origins[:, None] + np.arange(horizon), 0]
    return float(np.abs(forecasts - actual).mean())
