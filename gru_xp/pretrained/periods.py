"""The seasons of many series at once, found in their values alone.

Differences of values that are a season apart are alike: their autocorrelation is tested at each lag, after a filter
has removed the short memory that the differences have beside the season. Thus neither noise nor a random walk passes.
As noise hides a smooth season in differences between neighbours, those between the means of blocks are tested as well.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gru_xp.io.table import Rows

Floats = NDArray[np.floating[Any]]

SHORTEST = 4
"""Length of the shortest season."""

MIN_CYCLES = 2.5

CALENDAR = np.array([4, 7, 12, 24, 48, 52, 168, 336])
"""Values in a year, a week or a day at common spacings: less evidence is asked for these."""

LIMIT, CALENDAR_LIMIT = 4.9, 3.8
"""Least evidence, in standard errors: about one series in a hundred without a season has more."""

RELIEF, CALENDAR_RELIEF = 400.0, 180.0
"""The limits of a series of c values are lower by this over c^2, as few lags are tried."""

MIN_CORRELATION = 0.1

CALENDAR_BONUS = 1.1
"""Factor of the evidence for periods of the calendar."""

NEARLY_BEST, NEARLY_BEST_PART = 0.85, 0.75
"""Evidence, relative to the best, that a shorter period needs, and that a part of the best one needs."""

NEAR = 0.1
"""Relative distance to a period of the calendar, which is preferred to its neighbours."""

MULTIPLES = np.arange(2, 14)
"""Lengths of the second period, in first ones, that are tried."""

SECOND_LIMIT = 4.0
"""Least evidence for a second period, in standard errors."""

PARTS = ((6, 12), (8, 24), (16, 48), (13, 52), (26, 52))
"""Short periods that are likely to be only parts of long ones."""

DAY_AND_WEEK = ((24, 168), (48, 336))

PAIRS = {(4, 12): 2.0, (12, 24): 2.0, (24, 48): 3.0} | dict.fromkeys(DAY_AND_WEEK, 3.0) | dict.fromkeys(PARTS, 1.0)
"""Limits for the second period in some pairs."""

MIN_SHARE, MIN_SHARE_OF_DAY = 0.8, 0.3
"""Least correlation at the first period, relative to the second; below, the second is the only one."""

MAX_DIFFERENCE = 5.0
"""Larger differences are clipped; a multiple of the mean size."""

CYCLES_APART = 3
"""Most cycles between values that are compared."""

BLOCKS = 5
"""Fewest blocks in a cycle."""

SYMMETRIC = 7
"""Blocks in a cycle from which on the memory is estimated on both sides of the lag."""

ALTERNATING = 0.5
"""Extra standard error, relative, for each unit that the memory of differences is below that of noise, -0.5."""

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


class _Plan(NamedTuple):
    """T tests of a lag each, for series of n values: all lags by differences of values, then longer ones by blocks."""

    n_levels: int
    width: int
    lags: Rows  # (T,)
    blocks: Rows  # (T,), values in a block: 2 ** level
    near: Rows  # (3, T), places in the table (n_levels, width) of autocovariances, at 0, 1 and 2 blocks
    far: Rows  # (CYCLES_APART, 5, T), at the lag and its multiples, from 2 blocks before to 2 blocks after
    beside: Rows  # (4, T), half and quarter of a lag before and after it
    symmetric: Floats  # (T,), the share of the lags before in the memory
    n_lags: int
    limits: Floats  # (n_lags,)
    relief: Floats  # (n_lags,)
    bonus: Floats  # (n_lags,)
    calendar: Rows  # periods that fit


@lru_cache(maxsize=64)
def _plan(n: int) -> _Plan:
    longest = int(n / MIN_CYCLES)
    lags = np.concatenate([np.arange(SHORTEST, longest + 1), np.arange(2 * BLOCKS, longest + 1)])
    levels = np.zeros_like(lags)
    levels[longest - SHORTEST + 1 :] = [int(lag // BLOCKS).bit_length() - 1 for lag in lags[longest - SHORTEST + 1 :]]
    n_levels, blocks = int(levels.max()) + 1, 1 << levels
    width = n + (2 << n_levels)
    cycles, shifts = np.arange(1, CYCLES_APART + 1)[:, None, None], np.arange(-2, 3)[:, None]
    far = np.minimum(cycles * lags + shifts * blocks, width - 1)
    start = levels * width
    near = start + np.arange(3)[:, None] * blocks
    beside = start + np.minimum(lags * np.array([[2], [3], [5], [6]]) // 4, width - 1)
    symmetric = (0.5 * (lags >= SYMMETRIC * blocks)).astype(np.float32)
    n_lags = longest - SHORTEST + 1
    is_calendar = np.isin(lags[:n_lags], CALENDAR)
    limits = np.where(is_calendar, CALENDAR_LIMIT, LIMIT).astype(np.float32)
    relief = np.where(is_calendar, CALENDAR_RELIEF, RELIEF).astype(np.float32)
    bonus = np.where(is_calendar, CALENDAR_BONUS, 1).astype(np.float32)
    calendar = CALENDAR[longest >= CALENDAR]
    return _Plan(
        n_levels, width, lags, blocks, near, start + far, beside, symmetric, n_lags, limits, relief, bonus, calendar
    )


def _find(values: Floats, counts: Rows) -> Rows:
    plan = _plan(values.shape[1])
    count = np.maximum(counts - 1, 1)[:, None].astype(np.float32)
    r = _autocovariances(values, counts, count, plan)
    evidence, correlation = _evidence(r.reshape(len(r), -1), count, plan)
    first = _first(evidence, correlation, counts, plan)
    second = _second(r, count, first)
    own, longer = (_at(correlation, period) for period in (first, second))
    share = np.where(_is_pair(first, second, DAY_AND_WEEK), MIN_SHARE_OF_DAY, MIN_SHARE)
    is_part = (own < share * longer) | _is_pair(first, second, PARTS)
    return np.stack([np.where(is_part, second, first), second], axis=1)


def _autocovariances(values: Floats, counts: Rows, count: Floats, plan: _Plan) -> Floats:
    """Sums of products of differences by level and lag, ``(B, n_levels, width)``."""
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
    width = plan.width
    r = np.zeros((B, plan.n_levels, width), dtype=np.float32)
    r[:, 0, : n - 1] = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, length)[:, : n - 1]
    for level in range(1, plan.n_levels):  # sums of two differences, each of two blocks
        b = 1 << (level - 1)
        fine = r[:, level - 1]
        e = np.concatenate([fine[:, 2 * b : 0 : -1], fine, np.zeros((B, 2 * b), dtype=np.float32)], axis=1)
        r[:, level] = e[:, :width] + e[:, 4 * b :] + 4 * (e[:, b : b + width] + e[:, 3 * b : 3 * b + width]) + 6 * fine
    return r


def _evidence(r: Floats, count: Floats, plan: _Plan) -> tuple[Floats, Floats]:
    """Correlations at all lags, from `SHORTEST`, in standard errors, and themselves."""
    # near 0 and the lag, the covariances differ by those of the noise alone, whose AR(2) filter is fitted
    lags, blocks = plan.lags.astype(np.float32), plan.blocks.astype(np.float32)
    near, far = np.take(r, plan.near, axis=1), np.take(r, plan.far, axis=1)
    pairs = [np.maximum(count - cycle * lags, 0) for cycle in range(1, CYCLES_APART + 1)]
    beyond, before = far[:, 0, 2:], far[:, 0, 2::-1]
    scale = count / np.maximum(pairs[0], 1)
    noise = near - (beyond + plan.symmetric * np.minimum(before - beyond, 0)) * scale[:, None]
    least = 1e-3 * near[:, 0] + (near[:, 0] <= 0)
    r0 = np.maximum(noise[:, 0], least)
    r1, r2 = np.clip(noise[:, 1] / r0, -0.95, 0.95), noise[:, 2] / r0
    phi2 = np.clip((r2 - r1 * r1) / (1 - r1 * r1), -0.9, 0.9)
    phi1 = r1 * (1 - phi2)
    filters = 1 + phi1 * phi1 + phi2 * phi2, phi1 * (phi2 - 1), -phi2
    alike = far.sum(axis=1)
    product = (
        filters[0] * alike[:, 2] + filters[1] * (alike[:, 1] + alike[:, 3]) + filters[2] * (alike[:, 0] + alike[:, 4])
    )
    square = filters[0] * near[:, 0] + 2 * (filters[1] * near[:, 1] + filters[2] * near[:, 2])
    n_pairs = np.maximum(sum(pairs[1:], pairs[0]), 1)
    q = product * (count / n_pairs) / np.maximum(square, least * filters[0])
    # what is also beside the lag, by more than chance, is a long memory and no season
    beside = np.take(r, plan.beside, axis=1)
    tail = np.minimum(beside[:, 0], beside[:, 1]) + np.minimum(beside[:, 2], beside[:, 3])
    tail -= near[:, 0] * np.sqrt(blocks / np.maximum(pairs[0], 1)) / scale
    q *= np.clip(1 - tail / np.maximum(2 * far[:, 0, 2], least), 0, 1)
    z = q * np.sqrt(n_pairs / blocks) / (1 + ALTERNATING * np.maximum(-0.5 - r1, 0))
    if len(lags) > plan.n_lags:
        coarse = slice(2 * BLOCKS - SHORTEST, plan.n_lags)
        for each in (z, q):
            each[:, coarse] = np.maximum(each[:, coarse], each[:, plan.n_lags :])
    return z[:, : plan.n_lags], q[:, : plan.n_lags]


def _first(evidence: Floats, correlation: Floats, counts: Rows, plan: _Plan) -> Rows:
    lags = plan.lags[: plan.n_lags]
    limits = plan.limits - plan.relief * (1 / np.maximum(counts, 1)[:, None] ** 2).astype(np.float32)
    passes = (evidence > limits) & (correlation > MIN_CORRELATION)
    passes &= lags <= (counts / MIN_CYCLES).astype(np.int64)[:, None]
    evidence = evidence * plan.bonus
    is_peak = passes.copy()
    is_peak[:, 1:] &= evidence[:, 1:] >= evidence[:, :-1]
    is_peak[:, :-1] &= evidence[:, :-1] >= evidence[:, 1:]
    peaks = evidence * is_peak
    best = peaks.max(axis=1, keepdims=True)
    best_lag = lags[peaks.argmax(axis=1), None]
    share = np.where(best_lag % lags == 0, NEARLY_BEST_PART, NEARLY_BEST)
    first = lags[(peaks >= share * best).argmax(axis=1)]
    calendar = plan.calendar
    at_calendar = slice(None), calendar - SHORTEST
    is_near = np.abs(first[:, None] - calendar) <= NEAR * calendar
    is_near &= passes[at_calendar] & (evidence[at_calendar] > NEARLY_BEST_PART * _at(evidence, first)[:, None])
    nearest = (correlation[at_calendar] * is_near).argmax(axis=1)
    first = np.where(is_near.any(axis=1), calendar[nearest], first)
    for day, week in DAY_AND_WEEK:  # where the week is stronger
        if week <= lags[-1]:
            first[(first == week) & (peaks[:, day - SHORTEST] > 0)] = day
    return np.where(best[:, 0] > 0, first, 1)


def _second(r: Floats, count: Floats, first: Rows) -> Rows:
    """The second period of each row: a multiple of the first one at which differences are more alike than beside it."""
    second = first.copy()
    n_levels, width = r.shape[1:]
    rows = np.flatnonzero((first > 1) & (2 * MIN_CYCLES * first <= count[:, 0] + 1))
    if not rows.size:
        return second
    count, p = count[rows, :, None], first[rows, None, None]
    level = np.clip(np.log2(p / BLOCKS + 1e-9), 0, n_levels - 1).astype(np.int64) * np.array([[0], [1]])  # (R, 2, 1)
    b = 1 << level

    def at(lags: Rows) -> tuple[Floats, Floats]:
        """Sums of products, and how many they are of."""
        place = (rows[:, None, None] * n_levels + level) * width + np.minimum(lags, width - 1)
        return r.reshape(-1)[place], np.maximum(count - lags, 0)

    m = MULTIPLES
    sums, pairs = at(p * np.arange(2 * m[-1] + 2))
    n_alike, n_other = (np.maximum(each, 1) for each in (pairs[:, :, m] + pairs[:, :, 2 * m], _beside(pairs)))
    alike, other = (sums[:, :, m] + sums[:, :, 2 * m]) / n_alike, _beside(sums) / n_other
    whole = sums[:, :, :1] / count
    least = 0.02 * whole + (whole <= 0)
    rest = np.maximum(whole - other, least)
    near = b * np.arange(4)
    sums, pairs = at(np.concatenate([near, p + near], axis=2))
    covariances = sums / np.maximum(pairs, 1)
    noise = covariances[:, :, :4] - covariances[:, :, 4:]
    # Bartlett's error, and that of the incomplete cycles at both ends
    memory = noise[:, :, 1:] / np.maximum(noise[:, :, :1], least)
    inflation = b * (1 + 2 * (memory * memory).sum(axis=2, keepdims=True))
    at_ends = 4 * p * np.maximum(other, 0) / rest / n_alike**2
    z = (alike - other) / rest / np.sqrt(inflation * (1 / n_alike + 1 / n_other) + at_ends)
    p = p[:, 0]
    long = p * m
    limits = np.full(long.shape, SECOND_LIMIT)
    for (short, period), limit in PAIRS.items():
        limits[(p == short) & (long == period)] = limit
    evidence = np.where(long * MIN_CYCLES <= count[:, 0] + 1, z.max(axis=1) / limits, 0)
    best = evidence.max(axis=1)
    chosen = (evidence >= NEARLY_BEST * best[:, None]).argmax(axis=1)
    second[rows] = np.where(best > 1, long[np.arange(len(rows)), chosen], p[:, 0])
    return second


def _beside(table: Floats) -> Floats:
    """Sums of what is at the neighbours of `MULTIPLES`, and of twice these."""
    m = MULTIPLES
    return table[:, :, m - 1] + table[:, :, m + 1] + table[:, :, 2 * m - 1] + table[:, :, 2 * m + 1]


def _at(table: Floats, periods: Rows) -> Floats:
    found: Floats = table[np.arange(len(table)), np.maximum(periods - SHORTEST, 0)]
    return found


def _is_pair(short: Rows, long: Rows, pairs: tuple[tuple[int, int], ...]) -> NDArray[np.bool_]:
    is_pair = np.zeros(np.broadcast_shapes(short.shape, long.shape), dtype=np.bool_)
    for a, b in pairs:
        is_pair |= (short == a) & (long == b)
    return is_pair
