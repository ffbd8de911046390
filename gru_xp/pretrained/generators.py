"""Synthetic series with known seasons, which the pretrained network learns from.

Each series belongs to one family (`FAMILIES`): seasonal and trending series put together from components, growth, days
and weeks, random walks, noise, yearly series, irregular cycles, or intermittent demand. A family makes all its series
at once. Arrays hold a series per row, ``(n, length)``; a parameter drawn for each series is a column, ``(n, 1)``.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from gru_xp.errors import ArgumentError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

LENGTH = 640
"""Values of a series, unless the caller asks for another length."""

MIN_LENGTH = 192
"""Values of the shortest series that can be made: two of the longest days."""

CHUNK = 4000
"""Series made at once: enough to hide the cost of a loop over time, few enough for 10 MB an array."""

MAX_ABS = 50.0
"""Largest distance from the median, in mean absolute values of the series."""

SEASONS = {12: 0.26, 4: 0.20, 7: 0.14, 24: 0.14, 52: 0.08, 48: 0.03, 168: 0.03, 0: 0.12}
"""Shares of the periods of structural series; 0 is a random whole number from 3 to 130."""

SEASONS_OF_GROWTH = {4: 0.45, 12: 0.40, 1: 0.15}
"""Shares of the periods of growing series; 1 is no season."""

WEEKS_IN_YEAR = 365.25 / 7
"""The exact season of half of the series whose period is 52."""

DAY_LENGTHS = {24: 0.45, 48: 0.20, 96: 0.08, 1: 0.27}
"""Shares of the numbers of values a day in the family of days and weeks."""

HARMONICS = 6
"""Highest harmonic of a smooth season."""


class Synthetic(NamedTuple):
    """Synthetic series and their seasons.

    Attributes
    ----------
    values : ndarray of float32, shape ``(n, length)``
        Finite series with median 0 and mean absolute value 1, clipped to ±`MAX_ABS` afterwards.
    periods : ndarray of int64, shape ``(n, 2)``
        The seasons of each series in steps, shorter first: ``(p, p)`` for a series with one season, ``(1, 1)`` for
        a series without.
    """

    values: Floats
    periods: Ints


def generate(rng: Generator, n: int, length: int = LENGTH) -> Synthetic:
    """Make synthetic series of all families, in random order.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of randomness: equal states give equal series.
    n : int
        Number of series.
    length : int
        Values of each series, at least `MIN_LENGTH`. Seasons that do not fit are not named.

    Returns
    -------
    Synthetic
        `n` scaled series and their seasons.

    Raises
    ------
    ArgumentError
        If `n` is below 1 or `length` is below `MIN_LENGTH`.
    """
    if n < 1:
        raise ArgumentError(f"n is {n}, but at least one series must be made; pass n >= 1")
    if length < MIN_LENGTH:
        raise ArgumentError(
            f"length is {length}, but a series needs at least {MIN_LENGTH} values; pass a larger length"
        )
    values, periods = np.empty((n, length), np.float32), np.empty((n, 2), np.int64)
    for start in range(0, n, CHUNK):
        rows = slice(start, start + CHUNK)
        values[rows], periods[rows] = _generate_chunk(rng, len(values[rows]), length)
    return Synthetic(values, periods)


def _generate_chunk(rng: Generator, n: int, length: int) -> Synthetic:
    values, periods = np.zeros((n, length), np.float32), np.ones((n, 2), np.int64)
    family = _choose(rng, list(FAMILIES.values()), n)
    for index, make in enumerate(FAMILIES):
        rows = np.flatnonzero(family == index)
        if rows.size:
            values[rows], periods[rows] = make(rng, rows.size, length)
    values, usable = _scale(values)
    rows = np.flatnonzero(~usable)
    if rows.size:  # such as a demand of zeros only
        values[rows], periods[rows] = _scale(_random_walk(rng, rows.size, length))[0], 1
    return Synthetic(values, periods)


def _scale(values: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Scale each series to median 0 and mean absolute value 1; also tell which series are finite and not constant."""
    values = values - np.median(values, axis=1, keepdims=True)
    scale = np.abs(values).mean(1, keepdims=True)
    usable = np.isfinite(scale) & (scale > 1e-6)
    values = np.divide(values, scale, out=np.zeros_like(values), where=usable)
    return np.clip(values, -MAX_ABS, MAX_ABS), usable[:, 0]


# --- random draws ---------------------------------------------------------------------------------------------------


def _normal(rng: Generator, n: int, length: int) -> Floats:
    return rng.standard_normal((n, length), np.float32)


def _uniform(rng: Generator, low: float, high: float, n: int, width: int = 1) -> Floats:
    return rng.random((n, width), np.float32) * np.float32(high - low) + np.float32(low)


def _log_uniform(rng: Generator, low: float, high: float, n: int, width: int = 1) -> Floats:
    return np.exp(_uniform(rng, np.log(low), np.log(high), n, width))


def _mask(rng: Generator, share: float, n: int) -> Floats:
    """Ones in about `share` of the rows, zeros elsewhere."""
    return (rng.random((n, 1)) < share).astype(np.float32)


def _choose(rng: Generator, shares: list[float], n: int) -> Ints:
    return rng.choice(len(shares), n, p=np.array(shares) / sum(shares))


def _student(rng: Generator, n: int, length: int) -> Floats:
    """Fat-tailed noise of unit variance: Student's t with three to ten degrees of freedom."""
    degrees = _log_uniform(rng, 3, 10, n)
    chi = 2 * rng.standard_gamma(np.broadcast_to(degrees / 2, (n, length)), dtype=np.float32) + np.float32(1e-6)
    return _normal(rng, n, length) * np.sqrt((degrees - 2 + 0.2) / chi)


def _jumps(rng: Generator, rate: Floats, length: int) -> Floats:
    """Zeros, and standard normal values at random steps, of which there are `rate` a step."""
    n = len(rate)
    jumps = np.zeros((n, length), np.float32)
    at = rng.random((n, length), np.float32) < rate
    jumps[at] = rng.standard_normal(int(at.sum()), np.float32)
    return jumps


def _logistic(x: Floats) -> Floats:
    return (1 / (1 + np.exp(-np.clip(x, -30, 30)))).astype(np.float32, copy=False)


def _shocks(rng: Generator, deviation: Floats, length: int) -> Floats:
    """Normal values ``(length, n)`` with the standard deviations ``(n,)``, of which many may be 0."""
    shocks, active = np.zeros((length, len(deviation)), np.float32), np.flatnonzero(deviation)
    shocks[:, active] = _normal(rng, length, active.size) * deviation[active]
    return shocks


def _add(rng: Generator, share: float, values: Floats, component: Callable[[Generator, int, int], Floats]) -> None:
    """Add a component to a random share of the series, in place."""
    rows = np.flatnonzero(rng.random(len(values)) < share)
    if rows.size:
        values[rows] += component(rng, rows.size, values.shape[1])


def _change(rng: Generator, share: float, values: Floats, change: Callable[[Generator, Floats], Floats]) -> None:
    """Change a random share of the series, in place."""
    _change_rows(rng, rng.random(len(values)) < share, values, change)


def _change_rows(
    rng: Generator, chosen: NDArray[np.bool_], values: Floats, change: Callable[[Generator, Floats], Floats]
) -> None:
    """Change the chosen series ``(n,)``, in place."""
    rows = np.flatnonzero(chosen)
    if rows.size:
        values[rows] = change(rng, values[rows])


# --- recursions in time ---------------------------------------------------------------------------------------------


def _autoregress(shocks: Floats, memory: Floats) -> Floats:
    """AR(1) with variance 1 where the shocks have: u_t = memory u_(t-1) + sqrt(1 - memory²) shock_t."""
    memory = memory[:, 0]
    state, steps = shocks[:, 0].copy(), (shocks * np.sqrt(1 - memory**2)[:, None]).T.copy()
    for t in range(len(steps)):
        state = memory * state + steps[t]
        steps[t] = state
    return steps.T


def _random_log_scale(rng: Generator, n: int, length: int) -> Floats:
    """A factor around 1 that wanders slowly, or jumps now and then."""
    path = _jumps(rng, _log_uniform(rng, 0.003, 0.02, n), length) * _uniform(rng, 0.3, 1.0, n)
    _change(rng, 0.6, path, lambda rng, rows: _normal(rng, *rows.shape) * _log_uniform(rng, 0.005, 0.12, len(rows)))
    path = np.cumsum(path, axis=1)
    factor: Floats = np.exp(np.clip(path - path.mean(1, keepdims=True), -2, 2))
    return factor


# --- level and trend ------------------------------------------------------------------------------------------------


def _stochastic_level(rng: Generator, n: int, length: int) -> Floats:
    """Local linear trend: a random walk whose slope wanders, is damped, or is fixed; some are pulled back to 0."""
    level_noise = (_mask(rng, 0.7, n) * _log_uniform(rng, 0.01, 1, n))[:, 0]
    slope_noise = (_mask(rng, 0.25, n) * _log_uniform(rng, 1e-4, 0.1, n))[:, 0]
    damping = np.where(_mask(rng, 0.6, n) > 0, _uniform(rng, 0.7, 0.99, n), np.float32(0.998))[:, 0]
    sign = np.sign(_uniform(rng, -0.28, 0.72, n))
    drift = (_mask(rng, 0.55, n) * _log_uniform(rng, 0.002, 0.3, n) * sign)[:, 0]
    keep = 1 - (_mask(rng, 0.15, n) * _log_uniform(rng, 0.005, 0.3, n))[:, 0]
    level_shocks, slope_shocks = _shocks(rng, level_noise, length), _shocks(rng, slope_noise, length)
    path = np.empty((length, n), np.float32)
    level, slope = np.zeros(n, np.float32), np.zeros(n, np.float32)
    for t in range(length):
        slope = damping * slope + slope_shocks[t]
        level = keep * level + drift + slope + level_shocks[t]
        path[t] = level
    return path.T.copy()


def _piecewise_trend(rng: Generator, n: int, length: int) -> Floats:
    """Straight lines whose slope changes at random steps."""
    slopes = np.cumsum(_jumps(rng, _log_uniform(rng, 0.003, 0.03, n), length), axis=1) + _normal(rng, n, 1)
    return np.cumsum(slopes, axis=1) * _log_uniform(rng, 0.002, 0.1, n)


def _smooth_path(rng: Generator, n: int, length: int) -> Floats:
    """Gaussian process by random Fourier features: Gaussian (smooth) or Cauchy (rougher) frequencies."""
    features = 8
    frequency = _normal(rng, n, features)
    cauchy = frequency / _normal(rng, n, features)
    frequency = np.where(_mask(rng, 0.4, n) > 0, cauchy, frequency)
    frequency = np.minimum(np.abs(frequency) / _log_uniform(rng, 3, 300, n), np.float32(2))
    phase, time = _uniform(rng, 0, 2 * np.pi, n, features), np.arange(length, dtype=np.float32)
    path = np.zeros((n, length), np.float32)
    for k in range(features):
        path += np.cos(frequency[:, k, None] * time + phase[:, k, None])
    return path * _log_uniform(rng, 0.3, 6, n) * np.float32(np.sqrt(2 / features))


def _saturation(rng: Generator, n: int, length: int) -> Floats:
    """Logistic growth or decline, once in the series."""
    size = _log_uniform(rng, 1, 20, n) * np.sign(_uniform(rng, -0.3, 0.7, n))
    middle, width = _uniform(rng, 0, length, n), _log_uniform(rng, 5, 120, n)
    return size * _logistic((np.arange(length, dtype=np.float32) - middle) / width)


def _level_shifts(rng: Generator, n: int, length: int) -> Floats:
    """Breaks of the level at random steps; some die out."""
    jumps = _jumps(rng, _log_uniform(rng, 0.002, 0.02, n), length) * _log_uniform(rng, 0.5, 8, n)
    keep = np.where(_mask(rng, 0.3, n) > 0, _uniform(rng, 0.8, 0.99, n), np.float32(1))[:, 0]
    steps, level = jumps.T.copy(), np.zeros(n, np.float32)
    for t in range(length):
        level = keep * level + steps[t]
        steps[t] = level
    return steps.T


def _noise(rng: Generator, n: int, length: int) -> Floats:
    """White or autoregressive noise, some with fat tails, some with a scale that changes."""
    noise = _normal(rng, n, length)
    _change(rng, 0.2, noise, lambda rng, rows: _student(rng, *rows.shape))
    _change(rng, 0.5, noise, lambda rng, rows: _autoregress(rows, _uniform(rng, -0.5, 0.97, len(rows))))
    _change(rng, 0.3, noise, lambda rng, rows: rows * _random_log_scale(rng, *rows.shape))
    return noise


# --- seasons --------------------------------------------------------------------------------------------------------


def _season(rng: Generator, period: Floats, length: int) -> Floats:
    """A season of mean 0 and standard deviation 1 for each period ``(n, 1)``; more than half of them change."""
    n = len(period)
    offset = rng.integers(0, 1000, (n, 1))
    season, kind = np.empty((n, length), np.float32), _choose(rng, [0.55, 0.35, 0.10], n)
    for index, make in enumerate((_harmonics, _phase_values, _pulses)):
        rows = np.flatnonzero(kind == index)
        if rows.size:
            season[rows] = _evolving(rng, make, period[rows], np.arange(length) + offset[rows])
    _change(rng, 0.4, season, lambda rng, rows: rows * _random_log_scale(rng, *rows.shape))
    return season


def _evolving(rng: Generator, make: Callable[[Generator, Floats, Ints], Floats], period: Floats, time: Ints) -> Floats:
    """A shape that stays, becomes another at some time, or gets a random change at each step of each cycle."""
    n, length = time.shape
    season, kind = _standardise(make(rng, period, time)), _choose(rng, [0.4, 0.4, 0.2], n)
    rows = np.flatnonzero(kind == 1)
    if rows.size:
        other = _standardise(make(rng, period[rows], time[rows]))
        start, width = _uniform(rng, -0.3, 1, rows.size), _log_uniform(rng, 0.01, 1, rows.size)
        share = np.clip((np.linspace(0, 1, length, dtype=np.float32) - start) / width, 0, 1)
        share *= _uniform(rng, 0.1, 1, rows.size)
        season[rows] += share * (other - season[rows])
    rows = np.flatnonzero(kind == 2)
    if rows.size:
        season[rows] += _seasonal_walk(rng, np.round(period[rows]).astype(np.int64), length)
    return season


def _seasonal_walk(rng: Generator, period: Ints, length: int) -> Floats:
    """Changes that repeat one period later: s_t = s_(t-p) + noise."""
    changes = _normal(rng, len(period), length) * _log_uniform(rng, 0.02, 0.4, len(period))
    for p in np.unique(period):
        rows = np.flatnonzero(period[:, 0] == p)
        cycles = np.pad(changes[rows], ((0, 0), (0, -length % p))).reshape(len(rows), -1, p)
        changes[rows] = np.cumsum(cycles, axis=1).reshape(len(rows), -1)[:, :length]
    return changes


def _standardise(values: Floats) -> Floats:
    values = values - values.mean(1, keepdims=True)
    values /= values.std(1, keepdims=True) + np.float32(1e-6)
    return values


def _harmonics(rng: Generator, period: Floats, time: Ints) -> Floats:
    """A sum of up to `HARMONICS` harmonics that get weaker at a random rate."""
    n = len(period)
    order, fall = np.arange(1, HARMONICS + 1), _uniform(rng, 0, 2, n)
    used = (order <= rng.integers(1, HARMONICS + 1, (n, 1))) & (2 * order <= period)
    cosines = _normal(rng, n, HARMONICS) * used * order**-fall
    sines = _normal(rng, n, HARMONICS) * (used & (2 * order < period)) * order**-fall
    angle = ((time / period) % 1 * 2 * np.pi).astype(np.float32)
    cos, sin = np.cos(angle), np.sin(angle)
    season, cos_k, sin_k = np.zeros_like(cos), cos, sin
    for k in range(HARMONICS):
        season += cosines[:, k, None].astype(np.float32) * cos_k + sines[:, k, None].astype(np.float32) * sin_k
        cos_k, sin_k = cos_k * cos - sin_k * sin, sin_k * cos + cos_k * sin
    return season


def _phase_values(rng: Generator, period: Floats, time: Ints) -> Floats:
    """A free value for each phase; some are mostly 0, some all positive."""
    n, phases = len(period), int(np.ceil(period.max())) + 1
    table = _normal(rng, n, phases)
    _change(rng, 0.3, table, lambda rng, rows: rows * (rng.random(rows.shape, np.float32) < 0.2))
    _change(rng, 0.3, table, lambda rng, rows: np.exp(0.8 * rows))
    return np.take_along_axis(table, (time % period).astype(np.int64), axis=1)


def _pulses(rng: Generator, period: Floats, time: Ints) -> Floats:
    """One pulse a cycle with soft or sharp edges, such as working hours."""
    n = len(period)
    distance = np.abs((time / period) % 1 - 0.5).astype(np.float32) * 2
    edge = (_uniform(rng, 0.1, 0.6, n) - distance) * _log_uniform(rng, 4, 60, n)
    return _logistic(edge)


# --- changes of whole series ----------------------------------------------------------------------------------------


def _exponential(rng: Generator, values: Floats) -> Floats:
    """A multiplicative series: everything is added in logarithms, within a range that is possible in practice."""
    values = values - np.median(values, axis=1, keepdims=True)
    largest = np.abs(values).max(1, keepdims=True) + np.float32(1e-6)
    n = len(values)
    factor = np.minimum(_log_uniform(rng, 0.03, 0.5, n), _uniform(rng, 0.5, 4, n) / largest)
    result: Floats = np.exp(values * factor)
    return result


def _counts(rng: Generator, values: Floats) -> Floats:
    """Poisson counts whose logarithmic rate follows the series; a third come in batches."""
    n = len(values)
    log_rate = _standardise(values) * _uniform(rng, 0.1, 1, n) + np.log(_log_uniform(rng, 0.1, 30, n))
    counts: Floats = rng.poisson(np.exp(np.clip(log_rate, -5, 5))).astype(np.float32)
    _change(rng, 0.3, counts, lambda rng, rows: rows * (rng.poisson(1.5, rows.shape) + 1).astype(np.float32))
    return counts


def _outliers(rng: Generator, values: Floats) -> Floats:
    """Rare large values, mostly upwards."""
    jumps = _jumps(rng, _log_uniform(rng, 0.003, 0.05, len(values)), values.shape[1])
    size: Floats = values.std(1, keepdims=True) * _log_uniform(rng, 1, 6, len(values))
    jumps = np.abs(jumps) * np.sign(_uniform(rng, -0.3, 0.7, len(values)))
    return values + jumps * size


def _censored(rng: Generator, values: Floats) -> Floats:
    """Values that cannot fall below a limit, such as rain or unemployment at zero."""
    return np.maximum(_standardise(values), _uniform(rng, -1, 0.5, len(values)))


def _rounded(rng: Generator, values: Floats) -> Floats:
    return np.round(_standardise(values) * _log_uniform(rng, 1, 20, len(values)))


def _distort(rng: Generator, values: Floats, scale: float = 1.0) -> Floats:
    """The ways in which real series are measured: outliers, counts, limits, rounding; some upside down."""
    _change(rng, 0.10 * scale, values, _outliers)
    _change(rng, 0.07 * scale, values, _counts)
    _change(rng, 0.04 * scale, values, _censored)
    _change(rng, 0.08 * scale, values, _rounded)
    _change(rng, 0.12 * scale, values, lambda rng, rows: -rows)
    return values


# --- families -------------------------------------------------------------------------------------------------------


def _one_period(period: NDArray[np.generic]) -> Ints:
    """The seasons ``(n, 2)`` of series that have at most one."""
    return np.repeat(period.astype(np.int64), 2, axis=1)


def _no_periods(n: int) -> Ints:
    return np.ones((n, 2), np.int64)


def _structural(rng: Generator, n: int, length: int) -> Synthetic:
    """Level, trend, seasons and noise, added or multiplied: the bulk of monthly, quarterly, weekly and daily series."""
    level = _stochastic_level(rng, n, length)
    _change(rng, 0.15, level, lambda rng, rows: np.zeros_like(rows))
    _add(rng, 0.25, level, _smooth_path)
    _add(rng, 0.18, level, _piecewise_trend)
    _add(rng, 0.08, level, _saturation)
    _add(rng, 0.22, level, _level_shifts)
    season, amplitude = np.zeros((n, length), np.float32), np.zeros((n, 1), np.float32)
    periods, rows = _no_periods(n), np.flatnonzero(rng.random(n) < 0.85)
    if rows.size:
        season[rows], amplitude[rows], periods[rows] = _seasons(rng, rows.size, length)
    by_season = (amplitude > 0) & (rng.random((n, 1)) < 0.6)
    scale = np.where(by_season, amplitude * _log_uniform(rng, 0.05, 2, n), _log_uniform(rng, 0.02, 1.2, n))
    noise = _noise(rng, n, length) * scale
    values = level + season + noise
    kind = _choose(rng, [0.5, 0.38, 0.12], n)
    _change_rows(rng, kind == 1, values, _exponential)
    rows = np.flatnonzero(kind == 2)  # seasons and noise proportional to a level that does not grow exponentially
    if rows.size:
        base = level[rows] - level[rows].min(1, keepdims=True) + 1 + _log_uniform(rng, 0.1, 20, rows.size)
        values[rows] = base * (1 + 0.25 * (season[rows] + noise[rows]) / (amplitude[rows] + 1))
    return Synthetic(_distort(rng, values), periods)


def _seasons(rng: Generator, n: int, length: int) -> tuple[Floats, Floats, Ints]:
    """One season or two of random periods; also the amplitude of the first, and the periods."""
    period = np.array(list(SEASONS))[_choose(rng, list(SEASONS.values()), n)][:, None]
    anything = np.clip(np.round(_log_uniform(rng, 3, 130, n)), 3, 130).astype(np.int64)
    period = np.where((period == 0) | (period > length // 2), np.minimum(anything, length // 2), period)
    exact = np.where((period == 52) & (rng.random((n, 1)) < 0.5), WEEKS_IN_YEAR, period).astype(np.float32)
    # A long season has more time to move away from the mean than a short one.
    amplitude = _log_uniform(rng, 0.05, 3, n) * np.clip(period / 12, 0.3, 3).astype(np.float32) ** 0.5
    season, periods = _season(rng, exact, length) * amplitude, _one_period(period)

    longer = period * rng.choice([2, 4, 7, 12], (n, 1))
    other = np.round(_log_uniform(rng, 3, 250, n)).astype(np.int64)
    second = np.where(rng.random((n, 1)) < 0.5, longer, other)
    rows = np.flatnonzero((rng.random(n) < 0.2) & (second <= length // 2)[:, 0] & (second != period)[:, 0])
    if rows.size:
        size = amplitude[rows] * _log_uniform(rng, 0.3, 1.5, rows.size)
        season[rows] += _season(rng, second[rows].astype(np.float32), length) * size
        periods[rows] = np.sort(np.hstack([period[rows], second[rows]]), axis=1)
    return season, amplitude, periods


def _growth(rng: Generator, n: int, length: int) -> Synthetic:
    """Growth in logarithms, whose rate changes with business cycles: output, sales and prices by quarter or month.

    Shocks are relative to the rate of growth, so that as many series are smooth as are rough.
    """
    rate = _log_uniform(rng, 0.6, 14, n) / np.float32(length)
    slope = 1 + _autoregress(_student(rng, n, length), _uniform(rng, 0.7, 0.99, n)) * _log_uniform(rng, 0.1, 2.5, n)
    _add(rng, 0.3, slope, lambda rng, n, length: np.cumsum(_jumps(rng, _log_uniform(rng, 0.005, 0.05, n), length), 1))
    steps = slope * np.sign(_uniform(rng, -0.1, 0.9, n))
    steps += _student(rng, n, length) * _mask(rng, 0.85, n) * _log_uniform(rng, 0.3, 8, n)
    steps += _jumps(rng, _log_uniform(rng, 0.002, 0.02, n), length) * _mask(rng, 0.3, n) * _log_uniform(rng, 5, 40, n)
    path = np.cumsum(steps, axis=1) + _noise(rng, n, length) * _log_uniform(rng, 0.1, 5, n)
    periods = np.array(list(SEASONS_OF_GROWTH))[_choose(rng, list(SEASONS_OF_GROWTH.values()), n)][:, None]
    rows = np.flatnonzero(periods > 1)
    season = _season(rng, periods[rows].astype(np.float32), length) * _log_uniform(rng, 0.3, 25, rows.size)
    path[rows] += season
    path -= np.median(path, axis=1, keepdims=True)
    relative = path * rate
    values = np.where(_mask(rng, 0.85, n) > 0, np.exp(np.clip(relative, -9, 9)), relative)
    return Synthetic(_distort(rng, values, 0.5), _one_period(periods))


def _days(rng: Generator, n: int, length: int) -> Synthetic:
    """Days and weeks: loads, traffic, visits, sunshine, with a week in about half, and daily series with a week."""
    per_day = np.array(list(DAY_LENGTHS))[_choose(rng, list(DAY_LENGTHS.values()), n)][:, None]
    has_week = (rng.random((n, 1)) < 0.6) | (per_day == 1)
    time = np.arange(length) + rng.integers(0, 7, (n, 1)) * per_day + rng.integers(0, per_day)
    day, phase = time // per_day, time % per_day
    profiles = _week_profiles(rng, per_day, has_week)
    weekday = day % 7
    holiday = (rng.random((n, int(day.max()) + 1)) < 0.02) & (rng.random((n, 1)) < 0.25)
    weekday = np.where(np.take_along_axis(holiday, day, axis=1), 6, weekday)
    shape = np.take_along_axis(profiles.reshape(n, -1), weekday * profiles.shape[2] + phase, axis=1)

    # Days differ in how far they rise above the base load.
    strength = _autoregress(_normal(rng, n, int(day.max()) + 1), _uniform(rng, 0, 0.9, n))
    strength = np.exp(strength * _log_uniform(rng, 0.01, 0.25, n) * (per_day > 1), dtype=np.float32)
    base = profiles.min((1, 2))[:, None]
    shape = base + (shape - base) * np.take_along_axis(strength, day, axis=1)

    memory = (1 - _log_uniform(rng, 0.002, 0.1, n) / per_day).astype(np.float32)
    wander = _autoregress(_normal(rng, n, length), memory)
    level = np.exp(np.clip(wander * _log_uniform(rng, 0.01, 0.4, n), -2, 2))
    year = np.sin((time / per_day / 365.25 * 2 * np.pi + _uniform(rng, 0, 2 * np.pi, n)).astype(np.float32))
    level *= 1 + year * (_mask(rng, 0.6, n) * _uniform(rng, 0, 0.5, n))
    values = level * shape * (1 + _noise(rng, n, length) * _log_uniform(rng, 0.01, 0.25, n))

    kind = _choose(rng, [0.72, 0.16, 0.12], n)  # proportional noise, added weather, or counts
    rows = np.flatnonzero(kind == 1)
    if rows.size:
        weather = wander[rows] * _log_uniform(rng, 0.1, 3, rows.size)
        values[rows] = weather + _standardise(shape[rows]) + 0.1 * _noise(rng, rows.size, length)
    rows = np.flatnonzero(kind == 2)
    if rows.size:
        values[rows] = rng.poisson(np.clip(values[rows], 0, 50) * _log_uniform(rng, 1, 30, rows.size))
    rows = np.flatnonzero((rng.random(n) < 0.16) & (per_day > 1)[:, 0])
    if rows.size:
        values[rows] = _sunshine(rng, phase[rows] / per_day[rows], day[rows])
        has_week[rows] = False

    first = np.where(per_day == 1, 7, per_day)
    second = np.where(has_week & (per_day > 1) & (7 * per_day <= length), 7 * per_day, first)
    return Synthetic(values, np.hstack([first, second]))


def _week_profiles(rng: Generator, per_day: Ints, has_week: NDArray[np.bool_]) -> Floats:
    """The mean of each phase of each weekday, ``(n, 7, phases)``: positive, with mean about 1."""
    n, phases = len(per_day), int(per_day.max())
    hour = (np.arange(phases) % per_day / per_day).astype(np.float32)
    working, weekend = _day_profile(rng, hour), _day_profile(rng, hour)
    alike = _uniform(rng, 0, 0.9, n)
    weekend = (alike * working + (1 - alike) * weekend) * _log_uniform(rng, 0.3, 1.4, n)
    factor = np.exp(_normal(rng, n, 7) * _log_uniform(rng, 0.01, 0.2, n))
    profiles = np.repeat(working[:, None, :], 7, axis=1)
    profiles[:, 5:] = np.where(_mask(rng, 0.1, n)[:, :, None] > 0, profiles[:, 5:], weekend[:, None, :])
    profiles *= factor[:, :, None]
    return np.where(has_week[:, :, None], profiles, working[:, None, :])


def _day_profile(rng: Generator, hour: Floats) -> Floats:
    """A day: a smooth wave, a plateau, or two sharp peaks, on a base load, at `hour` in days ``(n, phases)``."""
    n, turn = len(hour), np.float32(2 * np.pi)
    wave = np.ones_like(hour)
    for k in (1, 2, 3):
        wave += _uniform(rng, 0, 0.7 / k, n) * np.cos(turn * (k * hour - _uniform(rng, 0, 1, n)))
    plateau = _logistic((_uniform(rng, 0.3, 0.7, n) - np.abs(hour - 0.55) * 2) * _log_uniform(rng, 8, 60, n))
    peaks = np.zeros_like(hour)
    for middle in (0.33, 0.73):
        distance = (hour - middle - 0.06 * _normal(rng, n, 1)) / _log_uniform(rng, 0.015, 0.09, n)
        peaks += np.exp(-(distance**2) / 2) * _uniform(rng, 0.5, 3, n)
    plateau *= _mask(rng, 0.35, n) * _uniform(rng, 0.2, 1, n)
    peaks *= _mask(rng, 0.4, n) * _uniform(rng, 0.2, 1, n)
    plain = np.maximum(plateau, peaks).max(1, keepdims=True) == 0
    wave = np.maximum(wave, 0) * np.where(plain, np.float32(1), _mask(rng, 0.5, n) * _uniform(rng, 0.2, 1, n))
    profile = _log_uniform(rng, 0.01, 0.5, n) + wave + plateau + peaks
    profile /= profile.mean(1, keepdims=True)
    return profile


def _sunshine(rng: Generator, hour: NDArray[np.float64], day: Ints) -> Floats:
    """Solar power: exactly 0 at night, an arch by day, lower on cloudy days and under passing clouds."""
    n, length = hour.shape
    sunrise, daylight = _uniform(rng, 0.15, 0.35, n), _uniform(rng, 0.35, 0.6, n)
    height = np.sin(np.pi * np.clip((hour - sunrise) / daylight, 0, 1)).astype(np.float32)
    arch = np.where(height > 1e-5, height, 0) ** _uniform(rng, 0.8, 2, n)
    cloud = _autoregress(_normal(rng, n, int(day.max()) + 1), _uniform(rng, 0, 0.8, n))
    clear = 1 - _uniform(rng, 0.1, 0.9, n) * _logistic(2 * cloud - _uniform(rng, -2, 3, n))
    passing = 1 + _noise(rng, n, length) * _log_uniform(rng, 0.01, 0.4, n)
    power: Floats = np.maximum(arch * np.take_along_axis(clear, day, axis=1) * passing, 0)
    return power


def _random_walk(rng: Generator, n: int, length: int) -> Floats:
    """Walks with Gaussian, fat-tailed or volatile steps; some drift, some are geometric."""
    steps, kind = _normal(rng, n, length), _choose(rng, [0.5, 0.25, 0.25], n)
    _change_rows(rng, kind == 1, steps, lambda rng, rows: _student(rng, *rows.shape))
    rows = np.flatnonzero(kind == 2)
    if rows.size:
        volatility = _autoregress(_normal(rng, rows.size, length), 1 - _log_uniform(rng, 0.005, 0.2, rows.size))
        steps[rows] *= np.exp(volatility * _uniform(rng, 0.2, 0.9, rows.size))
    steps += _mask(rng, 0.3, n) * _normal(rng, n, 1) * np.float32(0.1)
    walk = np.cumsum(steps, axis=1)
    _change(rng, 0.3, walk, lambda rng, rows: np.exp(_standardise(rows) * _log_uniform(rng, 0.05, 0.8, len(rows))))
    return walk


def _walks(rng: Generator, n: int, length: int) -> Synthetic:
    return Synthetic(_random_walk(rng, n, length), _no_periods(n))


def _plain_noise(rng: Generator, n: int, length: int) -> Synthetic:
    """Independent values: Gaussian, fat-tailed, lognormal or uniform."""
    noise = _normal(rng, n, length)
    _change(rng, 0.3, noise, lambda rng, rows: _student(rng, *rows.shape))
    _change(rng, 0.3, noise, lambda rng, rows: np.exp(rows * _uniform(rng, 0.2, 1, len(rows))))
    _change(rng, 0.15, noise, lambda rng, rows: rng.random(rows.shape, np.float32))
    return Synthetic(noise, _no_periods(n))


def _yearly(rng: Generator, n: int, length: int) -> Synthetic:
    """Trends with little noise and no season: slopes start anew at random steps and stay, wander, or die out."""
    damping = np.where(_mask(rng, 0.6, n) > 0, 1 - _log_uniform(rng, 0.01, 0.3, n), np.float32(0.999))[:, 0]
    drift = (_uniform(rng, -0.3, 1, n) * _mask(rng, 0.7, n) * _log_uniform(rng, 0.1, 1, n))[:, 0]
    slope_noise = (_mask(rng, 0.5, n) * _log_uniform(rng, 0.01, 0.2, n))[:, 0]
    level_noise = (_mask(rng, 0.8, n) * _log_uniform(rng, 0.05, 2, n))[:, 0]
    restarts = _jumps(rng, _log_uniform(rng, 0.005, 0.1, n), length).T.copy()
    slope_shocks, level_shocks = _shocks(rng, slope_noise, length), _shocks(rng, level_noise, length)
    path = np.empty((length, n), np.float32)
    level, slope = np.zeros(n, np.float32), rng.standard_normal(n, np.float32)
    for t in range(length):
        slope = np.where(restarts[t] != 0, restarts[t], damping * slope) + slope_shocks[t]
        level = level + drift + slope + level_shocks[t]
        path[t] = level
    path = path.T + _normal(rng, n, length) * _mask(rng, 0.5, n) * _log_uniform(rng, 0.05, 1, n)
    _change(rng, 0.5, path, _exponential)
    return Synthetic(_distort(rng, path, 0.4), _no_periods(n))


def _cycles(rng: Generator, n: int, length: int) -> Synthetic:
    """AR(2) with cycles of random length, as of sunspots and hares; a regular cycle counts as a season."""
    period, decay = _log_uniform(rng, 4, 60, n), 1 - _log_uniform(rng, 0.0005, 0.1, n)
    first, second = (2 * decay * np.cos(2 * np.pi / period))[:, 0], (-(decay**2))[:, 0]
    # Start with the variance of the stationary process (Hamilton, Time Series Analysis, 1994, eq. 3.4.30).
    deviation = np.sqrt((1 - second) / ((1 + second) * ((1 - second) ** 2 - first**2)))
    angle = rng.random(n, np.float32) * np.float32(2 * np.pi)
    before, now = deviation * np.cos(angle), deviation * np.cos(angle + 2 * np.pi / period[:, 0])
    path = _normal(rng, length, n)
    for t in range(length):
        before, now = now, first * now + second * before + path[t]
        path[t] = now
    values = _standardise(path.T)
    _change(rng, 0.5, values, lambda rng, rows: np.exp(rows * _uniform(rng, 0.3, 1, len(rows))))
    values += _normal(rng, n, length) * _log_uniform(rng, 0.01, 0.4, n)
    whole = np.round(period)
    regular = (decay**period > 0.92) & (np.abs(period - whole) < 0.02 * period)
    return Synthetic(_distort(rng, values, 0.5), _one_period(np.where(regular, whole, 1)))


def _intermittent(rng: Generator, n: int, length: int) -> Synthetic:
    """Counts with many zeros: demand comes at random, in spells, or by season, in amounts of one or many."""
    log_odds = _uniform(rng, -3.5, 0.5, n) + np.zeros((n, length), np.float32)
    _add(
        rng,
        0.4,
        log_odds,
        lambda rng, n, length: 2 * _autoregress(_normal(rng, n, length), _uniform(rng, 0.5, 0.99, n)),
    )
    _add(rng, 0.3, log_odds, _level_shifts)
    periods = _no_periods(n)
    rows = np.flatnonzero(rng.random(n) < 0.25)
    if rows.size:
        period = rng.choice([4, 7, 12], (rows.size, 1))
        log_odds[rows] += _season(rng, period.astype(np.float32), length) * _uniform(rng, 2, 4, rows.size)
        periods[rows] = _one_period(period)
    demand = rng.random((n, length), np.float32) < _logistic(log_odds)
    sizes = np.ones((n, length), np.float32)
    _change(rng, 0.4, sizes, lambda rng, rows: rows + rng.poisson(_log_uniform(rng, 0.3, 20, len(rows)), rows.shape))
    _change(rng, 0.4, sizes, lambda rng, rows: np.ceil(rows * np.exp(_normal(rng, *rows.shape))))
    return Synthetic(demand * sizes, periods)


FAMILIES: dict[Callable[[Generator, int, int], Synthetic], float] = {
    _structural: 0.50,
    _growth: 0.14,
    _days: 0.14,
    _walks: 0.08,
    _plain_noise: 0.02,
    _yearly: 0.05,
    _cycles: 0.04,
    _intermittent: 0.03,
}
"""Shares of the families."""
