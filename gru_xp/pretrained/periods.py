"""The seasons of many series at once, found in their values alone.

Differences of values that are a season apart are alike. Their autocorrelation is tested at each lag, after a filter that
removes the short memory which they have beside the season, so that neither a random walk nor noise passes. As noise
hides a smooth season in the differences between neighbours, differences between the means of blocks are tried as well.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gru_xp.io.table import Floats, Rows

SHORTEST = 4
"""Length of the shortest season."""

MIN_CYCLES = 2.5

CALENDAR = np.array([4, 7, 12, 24, 48, 52, 168, 336])
"""Values in a year, a week or a day at common spacings: less evidence is asked for these."""

WITHIN = ((4, 12), (6, 12), (12, 24), (26, 52), (24, 168), (48, 336))
"""Pairs of periods for which less evidence is asked."""

DAY_AND_WEEK = ((24, 168), (48, 336))

LIMIT, CALENDAR_LIMIT = 4.6, 3.6
"""Least correlation, in standard errors."""

SECOND_LIMIT, CALENDAR_SECOND_LIMIT = 4.0, 3.0

MIN_CORRELATION = 0.1

CALENDAR_BONUS = 1.1
"""Factor of the evidence for these periods."""

NEARLY_BEST = 0.85
"""The shortest period is taken whose evidence is that much of the best one's."""

NEAR = 0.1
"""Relative distance to a period of the calendar, which is preferred to its neighbours."""

MIN_SHARE, MIN_SHARE_OF_DAY = 0.8, 0.3
"""Least correlation at the first period, relative to the second; below, the second is the only one."""

MULTIPLES = np.arange(2, 14)
"""Lengths of the second period, in first ones, that are tried."""

MAX_DIFFERENCE = 5.0
"""Larger differences are clipped; a multiple of the mean size."""

CYCLES_APART = 3
"""Values are compared over up to so many cycles."""

BLOCKS = 5
"""Fewest blocks in a cycle."""

ORDER = 2
"""Order of the filter."""

ROWS = 64
"""Series at a time, so that they fit into the cache."""


def find_periods(values: Floats, counts: Rows) -> Rows:
    """Find up to two seasons of each series.

    Parameters
    ----------
    values : array, shape ``(B, n)``
        Series that end together, all finite.
    counts : array, shape ``(B,)``
        How many values each has, the last ones; those before do not matter.

    Returns
    -------
    array, shape ``(B, 2)``
        Seasons in values, the shorter first; twice the same for one, and 1 for none. Each has at least 4 values, and
        the series at least 2.5 cycles of it.
    """
    values, counts = np.asarray(values, dtype=np.float64), np.asarray(counts, dtype=np.int64)
    B, n = values.shape
    periods = np.ones((B, 2), dtype=np.int64)
    if n >= SHORTEST * MIN_CYCLES:
        for start in range(0, B, ROWS):
            rows = slice(start, start + ROWS)
            periods[rows] = _find(values[rows], counts[rows])
    return periods


class _Test(NamedTuple):
    """Lags from `first` to `last`, with differences between blocks of ``2 ** level`` values."""

    level: int
    first: int
    last: int


@lru_cache(maxsize=64)
def _tests(n: int) -> tuple[_Test, ...]:
    """Each lag by differences of values and, if it is long enough, by those of blocks."""
    longest = int(n / MIN_CYCLES)
    tests = [_Test(0, SHORTEST, longest)]
    while (first := BLOCKS << len(tests)) <= longest:
        tests.append(_Test(len(tests), first, min(2 * first - 1, longest)))
    return tuple(tests)


def _find(values: Floats, counts: Rows) -> Rows:
    tests = _tests(values.shape[1])
    count = np.maximum(counts - 1, 1)[:, None].astype(np.float32)
    r = _autocovariances(values, counts, count, len(tests))
    evidence, correlation = _evidence(r, count, tests)
    first = _first(evidence, correlation, counts)
    second = _second(r, count, first)
    own, longer = (_at(correlation, period) for period in (first, second))
    share = np.where(_is_pair(first, second, DAY_AND_WEEK), MIN_SHARE_OF_DAY, MIN_SHARE)
    return np.stack([np.where(own >= share * longer, first, second), second], axis=1)


def _autocovariances(values: Floats, counts: Rows, count: Floats, n_levels: int) -> Floats:
    """Sums of products of differences by level and lag, ``(B, n_levels, n + 2 ** (n_levels + 1))``."""
    B, n = values.shape
    d = np.diff(values, axis=1)
    there = np.arange(1, n) > (n - counts)[:, None]
    d *= there
    d -= d.sum(axis=1, keepdims=True) / count
    d *= there
    size = np.abs(d).sum(axis=1, keepdims=True) / count
    d /= size + (size == 0)
    d = np.clip(d, -MAX_DIFFERENCE, MAX_DIFFERENCE).astype(np.float32)
    length = 1 << (2 * n - 3).bit_length()  # so long that the end does not meet the beginning
    spectrum = np.fft.rfft(d, length)
    width = n + (2 << n_levels)
    r = np.zeros((B, n_levels, width), dtype=np.float32)
    r[:, 0, : n - 1] = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, length)[:, : n - 1]
    for level in range(1, n_levels):  # the sums of two differences of two blocks each
        b = 1 << (level - 1)
        fine = r[:, level - 1]
        e = np.concatenate([fine[:, 2 * b : 0 : -1], fine, np.zeros((B, 2 * b), dtype=np.float32)], axis=1)
        r[:, level] = e[:, :width] + e[:, 4 * b :] + 4 * (e[:, b : b + width] + e[:, 3 * b : 3 * b + width]) + 6 * fine
    return r


def _evidence(r: Floats, count: Floats, tests: tuple[_Test, ...]) -> tuple[Floats, Floats]:
    """Correlations at all lags, from `SHORTEST`, in standard errors, and themselves; the larger one where two are tested."""
    evidence = correlation = np.empty(0)
    for test in tests:
        z, q = _test(r[:, test.level], count, test)
        if test.level == 0:
            evidence, correlation = z, q
        else:
            lags = slice(test.first - SHORTEST, test.last - SHORTEST + 1)
            for total, each in ((evidence, z), (correlation, q)):
                np.maximum(total[:, lags], each, out=total[:, lags])
    return evidence, correlation


def _test(r: Floats, count: Floats, test: _Test) -> tuple[Floats, Floats]:
    b, lags = 1 << test.level, np.arange(test.first, test.last + 1, dtype=np.float32)
    T = len(lags)
    cycles = range(1, CYCLES_APART + 1)

    def at(cycle: int, shift: int) -> Floats:
        start = cycle * test.first + shift * b
        return r[:, start : start + cycle * (T - 1) + 1 : cycle]

    def together(shift: int) -> Floats:
        total = at(1, shift).copy()
        for cycle in cycles[1:]:
            more = at(cycle, shift)
            total[:, : more.shape[1]] += more
        return total

    pairs = [np.maximum(count - cycle * lags, 0) for cycle in cycles]
    scale = count / np.maximum(pairs[0], 1)
    near = [r[:, i * b, None] for i in range(ORDER + 1)]
    noise = [near[i] - scale * at(1, i) for i in range(ORDER + 1)]
    noise[0] = np.maximum(noise[0], 1e-3 * near[0]) + (near[0] <= 0)
    kernel = _whitening(noise)
    alike = kernel[0] * together(0)
    variance = kernel[0] * near[0]
    for i in range(1, ORDER + 1):
        alike += kernel[i] * (together(i) + together(-i))
        variance += 2 * kernel[i] * near[i]
    variance = np.maximum(variance, 1e-3 * kernel[0] * near[0]) + (near[0] <= 0)
    total = np.maximum(sum(pairs[1:], pairs[0]), 1)
    q = alike / variance * (count / total)
    return q * np.sqrt(total / b), q


def _whitening(covariances: list[Floats]) -> list[Floats]:
    """Autocovariances of the filter ``(1, -phi1, -phi2)`` that whitens noise of these, by the recursion of Durbin."""
    r0, r1, r2 = covariances
    k1 = np.clip(r1 / r0, -0.95, 0.95)
    phi2 = np.clip((r2 - k1 * r1) / (r0 * (1 - k1 * k1)), -0.9, 0.9)
    phi1 = k1 * (1 - phi2)
    return [1 + phi1 * phi1 + phi2 * phi2, phi1 * (phi2 - 1), -phi2]


def _first(evidence: Floats, correlation: Floats, counts: Rows) -> Rows:
    lags = np.arange(SHORTEST, SHORTEST + evidence.shape[1])
    is_calendar = np.isin(lags, CALENDAR)
    passes = (evidence > np.where(is_calendar, CALENDAR_LIMIT, LIMIT)) & (correlation > MIN_CORRELATION)
    passes &= lags * MIN_CYCLES <= counts[:, None]
    evidence = evidence * np.where(is_calendar, CALENDAR_BONUS, 1.0).astype(np.float32)
    is_peak = np.ones_like(passes)
    is_peak[:, 1:] = evidence[:, 1:] >= evidence[:, :-1]
    is_peak[:, :-1] &= evidence[:, :-1] >= evidence[:, 1:]
    evidence = np.where(passes, evidence, 0)
    peaks = np.where(is_peak, evidence, 0)
    best = peaks.max(axis=1, keepdims=True)
    first = np.where(best[:, 0] > 0, lags[(peaks >= NEARLY_BEST * best).argmax(axis=1)], 1)
    found = _at(evidence, first)
    for period in CALENDAR[CALENDAR <= lags[-1]]:
        is_near = np.abs(first - period) <= NEAR * period
        first[is_near & (first > 1) & (evidence[:, period - SHORTEST] > NEARLY_BEST * found)] = period
    for day, week in DAY_AND_WEEK:
        if week <= lags[-1]:
            first[(first == week) & (peaks[:, day - SHORTEST] > 0)] = day
    return first


def _second(r: Floats, count: Floats, first: Rows) -> Rows:
    """The second period of each row: a multiple of the first one at which differences are more alike than beside it."""
    second = first.copy()
    n_levels, width = r.shape[1:]
    rows = np.flatnonzero((first > 1) & (2 * MIN_CYCLES * first <= count[:, 0] + 1))
    if not rows.size:
        return second
    count, p = count[rows], first[rows, None]
    own = np.clip(np.log2(p / BLOCKS + 1e-9), 0, n_levels - 1).astype(np.int64)
    level = np.concatenate([0 * own, own], axis=1)[:, :, None]  # (R, 2, 1)
    b, p, count = 1 << level, p[:, :, None], count[:, :, None]
    long = p * MULTIPLES
    near = b * np.arange(4)
    lags = [near, p + near, *(np.broadcast_to(each, (len(rows), 2, len(MULTIPLES))) for each in (long, 2 * long))]
    lags += [np.broadcast_to(each + side, lags[2].shape) for each in (long, 2 * long) for side in (-p, p)]
    every = np.concatenate(lags, axis=2)
    start = (rows[:, None, None] * n_levels + level) * width
    sums = r.reshape(-1)[start + np.minimum(every, width - 1)]
    pairs = np.maximum(count - every, 0)
    M = len(MULTIPLES)
    covariance = sums[:, :, :8] / np.maximum(pairs[:, :, :8], 1)
    sums, pairs = (each[:, :, 8:].reshape(len(rows), 2, 6, M) for each in (sums, pairs))
    n_alike = np.maximum(pairs[:, :, :2].sum(axis=2), 1)
    n_other = np.maximum(pairs[:, :, 2:].sum(axis=2), 1)
    alike, other = sums[:, :, :2].sum(axis=2) / n_alike, sums[:, :, 2:].sum(axis=2) / n_other
    whole = covariance[:, :, :1]
    rest = np.maximum(whole - other, 0.02 * whole) + (whole <= 0)
    noise = covariance[:, :, :4] - covariance[:, :, 4:]
    memory = noise[:, :, 1:] / (np.maximum(noise[:, :, :1], 0.02 * whole) + (whole <= 0))
    inflation = b * (1 + 2 * (memory * memory).sum(axis=2, keepdims=True))
    at_ends = 4 * p * np.maximum(other, 0) / rest / n_alike**2
    z = (alike - other) / rest / np.sqrt(inflation * (1 / n_alike + 1 / n_other) + at_ends)
    p, long = p[:, 0], long[:, 0]
    limit = np.where(_is_pair(p, long, WITHIN), CALENDAR_SECOND_LIMIT, SECOND_LIMIT)
    evidence = np.where(long * MIN_CYCLES <= count[:, 0] + 1, z.max(axis=1) / limit, 0)
    best = evidence.max(axis=1)
    chosen = (evidence >= NEARLY_BEST * best[:, None]).argmax(axis=1)
    second[rows] = np.where(best > 1, long[np.arange(len(rows)), chosen], p[:, 0])
    return second


def _at(table: Floats, periods: Rows) -> Floats:
    found: Floats = table[np.arange(len(table)), np.maximum(periods - SHORTEST, 0)]
    return found


def _is_pair(short: Rows, long: Rows, pairs: tuple[tuple[int, int], ...]) -> Rows:
    is_pair = np.zeros(np.broadcast_shapes(short.shape, long.shape), dtype=np.bool_)
    for a, b in pairs:
        is_pair |= (short == a) & (long == b)
    return is_pair
