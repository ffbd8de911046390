"""Forecasts from many rows of one series, which share what the network has seen of the rows before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gru_xp.devices import Device
from gru_xp.forecasting.windows import Floats
from gru_xp.io.series import Reading, TimeSeries
from gru_xp.io.table import Rows
from gru_xp.pretrained.features import CONTEXT, HEAD, MEDIAN, PATCH
from gru_xp.pretrained.predicting import (
    MIN_VALUES,
    Periods,
    forecast_patches,
    forecast_quantiles,
)
from gru_xp.pretrained.weights import Weights

if TYPE_CHECKING:
    from gru_xp.forecasting.backtest import OtherForecast
    from gru_xp.pretrained.forecaster import ZeroShotForecaster

SHARED = 8
"""Forecasts of a pass through the network, each a patch after the one before."""

BLOCK = SHARED * PATCH
"""Rows of which forecasts may share a pass."""

MAX_PASSES = 64
"""Passes that are computed together."""

MAX_SIZE = 1e4
"""Of values in units of those before the first forecast of a pass, above which nothing is shared."""


def fast_forecast(forecaster: "ZeroShotForecaster", freq: str | None) -> "OtherForecast":
    """The forecasts of `rolling_medians` for a table of errors; the last value where there is but one.

    The seasons are found in the rows before the first forecast of each `BLOCK` of rows. Beyond `HEAD` steps, all is as
    `ZeroShotForecaster` forecasts.

    Parameters
    ----------
    forecaster
        Whose weights, seasons and device are used.
    freq
        The spacing of the rows, as a pandas offset; None if it is not known.
    """

    def forecast(values: Floats, origins: Rows, horizon: int, season: int) -> Floats:
        series = TimeSeries(np.asarray(values, dtype=np.float64)[:, None], ("series",), reading=Reading(freq=freq))
        known = origins >= MIN_VALUES
        forecasts = np.repeat(series.values[origins - 1], horizon, axis=1)
        if not known.any():
            return forecasts
        if horizon > HEAD:
            forecasts[known] = forecaster.forecasts(series, origins[known].tolist(), horizon)
            return forecasts
        periods: dict[int, Periods] = {}
        for origin in np.sort(origins[known]).tolist():
            if origin // BLOCK not in periods:
                seasons = forecaster.seasons_of(series.head(origin)) or (1,)
                periods[origin // BLOCK] = seasons[0], seasons[-1]
        pairs = [periods[origin // BLOCK] for origin in origins[known].tolist()]
        forecasts[known] = rolling_medians(
            forecaster.weights, series.values[:, 0], origins[known], pairs, horizon, device=forecaster.device
        )
        return forecasts

    return forecast


def rolling_medians(
    weights: Weights,
    values: Floats,
    origins: Rows,
    periods: Sequence[Periods],
    steps: int,
    *,
    device: Device,
) -> Floats:
    """Forecast the medians from several rows of a series, each time from the values before it.

    Parameters
    ----------
    weights
        Of the network.
    values : array, shape ``(N,)``
        The series, all finite.
    origins : array, shape ``(n,)``
        The first row of each forecast, at least 2.
    periods : sequence of tuples of int, shape ``(n,)``
        Seasons in rows for each, as for `forecast_quantiles`; the same in each `BLOCK` of rows.
    steps
        How many values ahead, up to `HEAD`.
    device
        To compute on.

    Returns
    -------
    array, shape ``(n, steps)``
        In the units of the series.

    Notes
    -----
    Each forecast is that of `forecast_quantiles` from `context_start` on, but for rounding. The network sees a series
    in patches, and its forecast after a patch depends on nothing that follows. So a pass through it gives eight
    forecasts whose origins are a patch apart, which takes a quarter of the time of a pass for each.
    """
    if not 1 <= steps <= HEAD:
        raise ValueError(f"steps is {steps}; a pass forecasts up to {HEAD}")
    medians = np.empty((len(origins), steps))
    for passes in _batches(_passes(values, origins, periods)):
        for one, forecasts in zip(passes, _forecast(weights, passes, device), strict=True):
            medians[one.numbers] = forecasts[[one.patch_of(origin) for origin in one.origins], :steps]
        for one in (one for one in passes if one.is_wild):
            known = [values[one.start : origin] for origin in one.origins]
            pairs = [one.periods] * len(known)
            medians[one.numbers] = forecast_quantiles(weights, known, pairs, steps, device=device)[:, :, MEDIAN]
    return medians


def context_start(origin: int) -> int:
    """The first row that a forecast from `origin` is based on, 400 to 512 rows before it.

    It is the same for all origins of a `BLOCK` of rows that are whole patches apart.
    """
    latest = origin // BLOCK * BLOCK + origin % PATCH + BLOCK - PATCH
    return max(latest - CONTEXT, 0)


@dataclass
class _Pass:
    """What a pass through the network sees, and the forecasts that come of it."""

    values: Floats
    """From `start` to before the last origin."""
    start: int
    periods: Periods
    origins: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    @property
    def n_patches(self) -> int:
        return -(-len(self.values) // PATCH)

    def patch_of(self, origin: int) -> int:
        """Which of the last patches ends before an origin, counted from the end."""
        return (origin - self.origins[-1]) // PATCH - 1

    def scale(self) -> tuple[float, float]:
        """Centre and unit of the values before the first origin."""
        known = self.values[: self.origins[0] - self.start]
        middle = float(np.median(known))
        return middle, float(np.mean(np.abs(known - middle)))

    @property
    def is_wild(self) -> bool:
        middle, unit = self.scale()
        return bool(np.abs(self.values - middle).max() > MAX_SIZE * unit)


def _passes(values: Floats, origins: Rows, periods: Sequence[Periods]) -> list[_Pass]:
    passes: dict[tuple[int, int], _Pass] = {}
    for number in np.argsort(origins, kind="stable").tolist():
        origin = int(origins[number])
        one = passes.setdefault(
            (origin // BLOCK, origin % PATCH), _Pass(values, context_start(origin), periods[number])
        )
        one.origins.append(origin)
        one.numbers.append(number)
    for one in passes.values():
        one.values = values[one.start : one.origins[-1]]
    return list(passes.values())


def _batches(passes: Sequence[_Pass]) -> Iterator[list[_Pass]]:
    """Which passes to compute together: those of as many patches."""
    by_patches: dict[int, list[_Pass]] = {}
    for one in passes:
        by_patches.setdefault(one.n_patches, []).append(one)
    for some in by_patches.values():
        yield from (some[first : first + MAX_PASSES] for first in range(0, len(some), MAX_PASSES))


def _forecast(weights: Weights, passes: Sequence[_Pass], device: Device) -> Floats:
    """Medians ``(B, n, HEAD)`` after the last n patches of passes of as many patches."""
    K = passes[0].n_patches
    scales = np.array([one.scale() for one in passes])
    values = np.zeros((len(passes), K * PATCH), dtype=np.float32)
    for row, (one, (middle, unit)) in enumerate(zip(passes, scales, strict=True)):
        if unit and not one.is_wild:
            values[row, -len(one.values) :] = (one.values - middle) / unit
    counts, pairs = np.array([len(one.values) for one in passes]), np.array([one.periods for one in passes])
    quantiles = forecast_patches(weights, values, counts, pairs, n_last=min(SHARED, K), device=device)
    in_units: Floats = scales[:, :1, None] + scales[:, 1:, None] * quantiles[..., MEDIAN]
    return in_units
