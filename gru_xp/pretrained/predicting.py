"""Forecasts of the pretrained network for several series at once, and how they continue beyond its last step."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gru_xp.devices import Device, resolve_device, to_device, to_host
from gru_xp.devices.threads import one_blas_thread
from gru_xp.errors import DataError, printable
from gru_xp.forecasting.outputs import WILDEST
from gru_xp.forecasting.scaling import LARGEST
from gru_xp.forecasting.windows import Floats
from gru_xp.io.table import Rows
from gru_xp.pretrained.calibration import calibrate, n_needed
from gru_xp.pretrained.features import (
    CONTEXT,
    HEAD,
    LEVELS,
    MEDIAN,
    PATCH,
    make_features,
    naive_forecasts,
    unsquash,
)
from gru_xp.pretrained.network import predict_each
from gru_xp.pretrained.periods import find_periods
from gru_xp.pretrained.weights import Weights

MIN_VALUES = 2
"""Values that a series must have."""

MAX_BATCH = 256
"""Series that are forecast together."""

TREND_LENGTH = 2 * HEAD
"""Beyond the last step of the network, a trend continues by no more than its slope times so many steps."""

LEVEL_LENGTH = 8
"""Steps in which a difference between the last step of the network and the season that follows fades to a third."""

MAX_CYCLES = 3
"""Of a long season, that are averaged."""

Periods = tuple[int, int]
"""Seasons in rows, the shorter first; twice the same for one, and 1 for none."""


def forecast_quantiles(
    weights: Weights,
    series: Sequence[Floats],
    periods: Sequence[Periods | None] | None,
    steps: int,
    *,
    device: Device | None = None,
    names: Sequence[object] | None = None,
) -> Floats:
    """Forecast the quantiles of `LEVELS` after the last value of each of several series.

    Parameters
    ----------
    weights
        Of the network.
    series : sequence of arrays, each of shape ``(N,)``
        The last `CONTEXT` values of each count. Missing values, NaN, are interpolated linearly; at the end, they are
        the last value that is there, and at the start, they are left out.
    periods : sequence of tuples of int, optional
        Seasons of each series in values, the shorter first; twice the same for one, and 1 for none. None, for all or
        for one series, to find them in the values.
    steps
        How many values ahead.
    device
        To compute on; the CPU if None.
    names
        What to call the series in errors.

    Returns
    -------
    array, shape ``(n, steps, 9)``
        In the units of each series, rising along the last axis.

    Raises
    ------
    DataError
        A series has fewer than two values, or one that is too large or infinite, or the network's forecasts are no
        numbers.

    Notes
    -----
    With two seasons, the forecast is the mean of one with both and one with the longer season alone. `calibrate` fits
    the width of the intervals to the errors of the network's forecasts within the series, from 80 values on, and moves
    the forecast towards a naive one where that has been better within the series, from 240 values on.

    No forecast is fed back. After step `HEAD`, the last cycle of the forecast's median repeats, for the longest season
    that fits into it. Of a longer season, up to three cycles of the series are averaged, at the level of the forecast;
    without a season, the last value repeats. A trend is added, whose slope is that from cycle to cycle, or without a
    season that of the last half of the forecast; it halves every 89 steps. Distances of quantiles from the median grow
    with the square root of the step, as those of a random walk.
    """
    device = device or resolve_device("cpu")
    known = [_known_values(values, _name(names, number)) for number, values in enumerate(series)]
    given: Sequence[Periods | None] = [None] * len(known) if periods is None else periods
    quantiles = np.empty((len(known), steps, len(LEVELS)))
    for some in _batches([len(values) for values in known]):
        batch = _forecast_batch(weights, [known[row] for row in some], [given[row] for row in some], steps, device)
        quantiles[some] = batch
    _check(quantiles, names)
    return quantiles


def _name(names: Sequence[object] | None, number: int) -> str:
    return f"series {number}" if names is None else printable(str(names[number]), 1000)


def _known_values(values: Floats, name: str) -> Floats:
    """The last values of a series, from the first one that is there, without gaps."""
    last = np.asarray(values, dtype=np.float64)[-CONTEXT:]
    rows = np.flatnonzero(~np.isnan(last))
    if len(rows) < MIN_VALUES:
        among = f" among the last {CONTEXT} rows" if len(values) > CONTEXT else ""
        raise DataError(f"{name}: {len(rows)} value(s){among} are too few; at least {MIN_VALUES} are needed")
    wild = rows[np.abs(last[rows]) > LARGEST]
    if len(wild):
        row = len(values) - len(last) + wild[0]
        raise DataError(
            f"{name}, row {row}: {last[wild[0]]:g} is not a number up to {LARGEST:g}; scale the series down"
        )
    if len(rows) == len(last):
        return last
    interpolated: Floats = np.interp(np.arange(rows[0], len(last)), rows, last[rows])
    return interpolated


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Which series to forecast together: those of as many patches."""
    by_patches: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        by_patches.setdefault(-(-length // PATCH), []).append(row)
    for rows in by_patches.values():
        yield from (rows[first : first + MAX_BATCH] for first in range(0, len(rows), MAX_BATCH))


def periods_of(values: Floats, name: object) -> Periods:
    """The seasons that `forecast_quantiles` finds in a series ``(N,)``."""
    batch = _scale([_known_values(values, printable(str(name), 1000))])
    short, long = find_periods(batch.values.astype(np.float64), batch.counts)[0].tolist()
    return short, long


class _Batch(NamedTuple):
    """Series as the network gets them: ``(B, 16 K)``, that end together, with their numbers of values, and units."""

    values: Floats
    counts: Rows
    center: Floats
    unit: Floats


def _scale(known: Sequence[Floats]) -> _Batch:
    counts = np.array([len(series) for series in known])
    values = np.zeros((len(known), -(-int(counts.max()) // PATCH) * PATCH), dtype=np.float32)
    center, unit = np.empty((2, len(known), 1, 1))
    for row, series in enumerate(known):
        center[row] = middle = np.median(series)
        differences = series - middle
        unit[row] = size = np.mean(np.abs(differences))
        if size > 0:
            values[row, -len(series) :] = differences / size
    return _Batch(values, counts, center, unit)


def _forecast_batch(
    weights: Weights, known: Sequence[Floats], given: Sequence[Periods | None], steps: int, device: Device
) -> Floats:
    """Quantiles ``(B, steps, Q)`` of series of as many patches."""
    batch = _scale(known)
    periods = _periods(batch, given)
    quantiles = forecast_patches(weights, batch.values, batch.counts, periods, n_last=1, device=device)[:, 0]
    if steps > HEAD:
        last = (row[len(row) - count :] for row, count in zip(batch.values, batch.counts, strict=True))
        extended = map(continue_forecast, quantiles, last, periods.tolist(), [steps] * len(known))
        quantiles = np.stack(list(extended))
    forecast: Floats = batch.center + batch.unit * quantiles[:, :steps]
    return forecast


def _periods(batch: _Batch, given: Sequence[Periods | None]) -> Rows:
    """The seasons ``(B, 2)``, those that are not given as found."""
    periods = np.ones((len(given), 2), dtype=np.int64)
    sought = [row for row, pair in enumerate(given) if pair is None]
    if sought:
        periods[sought] = find_periods(batch.values[sought].astype(np.float64), batch.counts[sought])
    for row, pair in enumerate(given):
        if pair is not None:
            periods[row] = pair
    return periods


def forecast_patches(
    weights: Weights, values: Floats, counts: Rows, periods: Rows, *, n_last: int, device: Device
) -> Floats:
    """Forecast the quantiles after each of the last patches of some series, in their units.

    Parameters
    ----------
    weights
        Of the network.
    values, counts, periods
        As for `make_features`, of K patches.
    n_last
        Number of patches, up to K.
    device
        To compute on.

    Returns
    -------
    array, shape ``(B, n_last, HEAD, 9)``
        In float64, rising along the last axis: with two seasons, the mean of forecasts with both and with the longer
        season alone, calibrated by the forecasts after patches before.
    """
    K = values.shape[1] // PATCH
    n = min(max(n_needed(K), n_last), K)
    quantiles, earlier = _forecast_view(weights, values, counts, periods, (n_last, n), device)
    if (two := np.flatnonzero(periods[:, 0] != periods[:, 1])).size:
        of_longer = periods[two][:, [1, 1]]
        view = _forecast_view(weights, values[two], counts[two], of_longer, (n_last, n), device)
        for first, second in zip((quantiles, earlier), view, strict=True):
            first[two] = (first[two] + second) / 2
    naive = naive_forecasts(values, counts, periods, n)
    return calibrate(quantiles, earlier, naive, values, counts, periods.max(axis=1))


def _forecast_view(
    weights: Weights, values: Floats, counts: Rows, periods: Rows, n_last: tuple[int, int], device: Device
) -> tuple[Floats, Floats]:
    """Quantiles ``(B, m, HEAD, Q)`` after the last m patches, and the three ``(B, n, HEAD, 3)`` of `calibrate`."""
    m, n = n_last
    features = make_features(values, counts, periods, n_last=n)
    with device.use(), one_blas_thread:  # so that bits do not depend on the number of threads
        x, candidates = (to_device(array, device) for array in (features.inputs, features.candidates))
        # without ops, those that are kept for each thread compute, which have prepared it before
        squashed = to_host(predict_each(x, candidates, weights.params_on(device)))
    scale, location = (array[:, -n:, None, None].astype(np.float64) for array in (features.scale, features.location))
    quantiles = np.sort(squashed[:, -m:], axis=2).transpose(0, 1, 3, 2).astype(np.float64)
    quantiles = _widen(weights, unsquash(quantiles)) * scale[:, -m:] + location[:, -m:]
    three = np.stack([squashed.min(axis=2), squashed[:, :, MEDIAN], squashed.max(axis=2)], axis=3)
    return quantiles, _widen(weights, unsquash(three)) * scale + location


def _widen(weights: Weights, quantiles: Floats) -> Floats:
    median = quantiles[..., quantiles.shape[3] // 2, None]
    widened: Floats = median + weights.widths[:, None] * (quantiles - median)
    return widened


def _check(quantiles: Floats, names: Sequence[object] | None) -> None:
    wrong = np.argwhere(~(np.abs(quantiles) <= WILDEST))
    if len(wrong):
        row, step, level = wrong[0]
        raise DataError(
            f"{_name(names, row)}, step {step + 1}: the network forecasts {quantiles[row, step, level]:g}, which is no "
            f"number up to {WILDEST:g}; use other weights"
        )


# --- beyond the last step of the network ----------------------------------------------------------------------------


def continue_forecast(quantiles: Floats, values: Floats, periods: Sequence[int], steps: int) -> Floats:
    """Continue a forecast without feeding it back; see the notes of `forecast_quantiles`.

    Parameters
    ----------
    quantiles : array, shape ``(HEAD, Q)``
        The forecast.
    values : array, shape ``(N,)``
        The series before it.
    periods
        Seasons in values.
    steps
        How many, more than HEAD.

    Returns
    -------
    array, shape ``(steps, Q)``
        The first ones are as they were.
    """
    median, short = quantiles[:, MEDIAN], min(periods)
    period = max((p for p in periods if p <= HEAD), default=1)
    longer = max(periods)
    if longer > HEAD and longer <= len(values):
        cycle, level, slope = _long_season(median, values, longer, short)
        period = longer
    else:
        cycle, level, slope = _short_season(median, values, period)
    coming = np.arange(HEAD + 1, steps + 1)
    ahead = coming - HEAD
    fading = (median[-1] - level - cycle[(HEAD - 1) % period]) * np.exp(-ahead / LEVEL_LENGTH)
    trend = slope * TREND_LENGTH * -np.expm1(-ahead / TREND_LENGTH)
    following = level + trend + cycle[(coming - 1) % period] + fading
    spread = np.sqrt(coming / HEAD)[:, None] * (quantiles[-1] - median[-1])
    return np.concatenate([quantiles, following[:, None] + spread])


def _short_season(median: Floats, values: Floats, period: int) -> tuple[Floats, float, float]:
    """Of a season that fits into the forecast: deviations ``(period,)`` by step, the last level, and the slope."""
    last = median[-period:]
    apart = max(HEAD // period - 1, 1) * period if period > 1 else HEAD // 2
    path = np.concatenate([values[-HEAD:], median])
    before = path[max(len(path) - apart - period, 0) : len(path) - apart]
    slope = float(np.mean(last) - np.mean(before)) / apart if len(before) == period else 0.0
    return _cycle(last, HEAD - period, slope), float(np.mean(last)) + slope * (period - 1) / 2, slope


def _long_season(median: Floats, values: Floats, period: int, short: int) -> tuple[Floats, float, float]:
    """Deviations, last level and slope, as in `_short_season`, of a longer season, from the values before."""
    n_cycles = min(len(values) // period, MAX_CYCLES)
    cycles = values[len(values) - n_cycles * period :].reshape(n_cycles, period)
    slope = float(np.mean(cycles[-1]) - np.mean(cycles[0])) / (max(n_cycles - 1, 1) * period)
    cycle = _cycle(np.mean(cycles, axis=0), 0, slope)
    whole = HEAD // short * short if 1 < short <= HEAD else HEAD  # cycles of the shorter season
    steps = np.arange(HEAD - whole, HEAD)
    level = float(np.mean(median[steps] - cycle[steps % period] - slope * (steps - HEAD + 1)))
    return cycle, level, slope


def _cycle(values: Floats, first: int, slope: float) -> Floats:
    """Deviations of a cycle's values from a line through their mean, by step modulo the period."""
    period = len(values)
    deviations = values - np.mean(values) - slope * (np.arange(period) - (period - 1) / 2)
    rolled: Floats = np.roll(deviations, first % period)
    return rolled
