"""The seasons of many series at once, found in their values alone, quickly and strictly.

A season shows in the differences of a series: those a season apart are alike. Each lag is tested with the
autocorrelation of the differences, after the short memory that they have beside the season is filtered out. As noise
hides a smooth season in the differences between neighbours, those between the means of longer blocks are tried, too.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gru_xp.io.table import Floats, Rows

CALENDAR = (4, 7, 12, 24, 48, 52, 168)
"""Values in a year, a week or a day at common spacings; less evidence is asked for these."""

CALENDAR_PAIRS = ((24, 168), (48, 336))

SHORTEST = 4

MIN_CYCLES = 2.5

MAX_DIFFERENCE = 5.0
"""Of the mean size: larger differences are clipped."""

CYCLES_APART = 3
"""Values of up to so many cycles apart are compared."""

BLOCKS = 5
"""Blocks in a cycle, at least, for differences between blocks."""

LIMIT, CALENDAR_LIMIT = 4.6, 3.6
"""In standard errors."""

SECOND_LIMIT, CALENDAR_SECOND_LIMIT = 4.0, 3.0

MIN_CORRELATION = 0.1

CALENDAR_BONUS = 1.1

NEARLY_BEST = 0.75
"""The shortest period of so much evidence, relative to the best, is taken."""

MULTIPLES = np.arange(2, 14)
"""Of the first period, that the second one may be."""

MIN_SHARE = 0.5
"""Least correlation at the first period, relative to the second; below, the second is the only one."""


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
        Seasons in values, the shorter first; twice the same for one, and 1 for none. There are at least 2.5 cycles of
        each.
    """
    values, counts = np.asarray(values, dtype=np.float64), np.asarray(counts, dtype=np.int64)
    B, n = values.shape
    periods = np.ones((B, 2), dtype=np.int64)
    if n >= SHORTEST * MIN_CYCLES:
        for start in range(0, B, 32):  # fits into the cache
            rows = slice(start, start + 32)
            periods[rows] = _find(values[rows], counts[rows])
    return periods


class _Plan(NamedTuple):
    """T tests of lags in series of n values, with differences of several levels; blocks are of 2^level values."""

    n_levels: int
    width: int
    lags: Rows  # (T,)
    blocks: Rows  # (T,)
    near: Rows  # (3, T), places of the autocovariances at 0, 1 and 2 blocks
    far: Rows  # (CYCLES_APART, 5, T), at the lag and its multiples, less 2 to plus 2 blocks


@lru_cache(maxsize=64)
def _plan(n: int) -> _Plan:
    longest = int(n / MIN_CYCLES)
    n_levels = 1
    lags = np.arange(SHORTEST, longest + 1)
    levels = np.zeros_like(lags)
    coarse = np.arange(2 * BLOCKS, longest + 1)
    coarse_levels = np.log2(coarse / BLOCKS + 1e-9).astype(np.int64)
    n_levels = 1 + int(coarse_levels.max(initial=0))
    levels, lags = np.concatenate([levels, coarse_levels]), np.concatenate([lags, coarse])
    blocks = 1 << levels
    width = n + 4 * (1 << n_levels)
    start = levels * width
    cycles, shift = np.arange(1, CYCLES_APART + 1)[:, None, None], np.arange(-2, 3)[:, None]
    far = np.minimum(np.abs(cycles * lags + shift * blocks), width - 1)
    return _Plan(n_levels, width, lags, blocks, start + np.arange(3)[:, None] * blocks, start + far)


def _find(values: Floats, counts: Rows) -> Rows:
    plan = _plan(values.shape[1])
    count = np.maximum(counts - 1, 1)[:, None].astype(np.float64)
    r = _autocovariances(values, counts, count, plan)
    z, q = _evidence(r, count, plan)
    n_fine = int(plan.lags.max()) - SHORTEST + 1
    for each in (z, q):
        first = 2 * BLOCKS - SHORTEST
        if each.shape[1] > n_fine:
            each[:, first:n_fine] = np.maximum(each[:, first:n_fine], each[:, n_fine:])
    z, q, lags = z[:, :n_fine], q[:, :n_fine], plan.lags[:n_fine]
    calendar = np.isin(lags, CALENDAR)
    evidence = z * np.where(calendar, CALENDAR_BONUS, 1.0)
    fits = lags * MIN_CYCLES <= counts[:, None]
    passes = fits & (z > np.where(calendar, CALENDAR_LIMIT, LIMIT)) & (q > MIN_CORRELATION)
    padded = np.pad(evidence, ((0, 0), (1, 1)), constant_values=-np.inf)
    passes &= (evidence >= padded[:, :-2]) & (evidence >= padded[:, 2:])
    best = np.where(passes, evidence, 0.0).max(axis=1, keepdims=True)
    chosen = (passes & (evidence >= NEARLY_BEST * best)).argmax(axis=1)
    first = np.where(best[:, 0] > 0, lags[chosen], 1)
    second = _second(r, count, counts, first, plan)
    day = (first == 24) & (second == 168) | (first == 48) & (second == 336)
    share = (
        np.take_along_axis(q, chosen[:, None], 1)[:, 0]
        >= np.where(day, 0.3, 0.8) * np.take_along_axis(q, np.maximum(second - SHORTEST, 0)[:, None], 1)[:, 0]
    )
    first = np.where(share, first, second)
    return np.stack([first, second], axis=1)


def _autocovariances(values: Floats, counts: Rows, count: Floats, plan: _Plan) -> Floats:
    """Sums of products of differences, by lag, level after level, ``(B, n_levels * width)``."""
    B, n = values.shape
    d = np.diff(values, axis=1)
    there = np.arange(1, n) > (n - counts)[:, None]
    d = np.where(there, d, 0.0)
    d -= d.sum(axis=1, keepdims=True) / count * there
    size = np.abs(d).sum(axis=1, keepdims=True) / count
    d /= size + (size == 0)
    np.clip(d, -MAX_DIFFERENCE, MAX_DIFFERENCE, out=d)
    length = 1 << (2 * n - 3).bit_length()
    spectrum = np.fft.rfft(d, length)
    r = np.zeros((B, plan.n_levels, plan.width))
    r[:, 0, : n - 1] = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, length)[:, : n - 1]
    W = plan.width
    for level in range(1, plan.n_levels):
        b = 1 << (level - 1)
        fine = r[:, level - 1]
        e = np.concatenate([fine[:, 2 * b : 0 : -1], fine, np.zeros((B, 2 * b))], axis=1)
        r[:, level] = e[:, :W] + e[:, 4 * b :] + 4 * (e[:, b : b + W] + e[:, 3 * b : 3 * b + W]) + 6 * fine
    return r.reshape(B, -1)


def _evidence(r: Floats, count: Floats, plan: _Plan) -> tuple[Floats, Floats]:
    """Correlations of cycles in standard errors, and themselves, ``(B, T)``."""
    lags, far = plan.lags, r[:, plan.far]
    r0, r1, r2 = np.moveaxis(r[:, plan.near], 1, 0)
    scale = count / np.maximum(count - lags, 1.0)
    n0, n1, n2 = (near - scale * far[:, 0, 2 + i] for i, near in enumerate((r0, r1, r2)))
    n0 = np.maximum(n0, 1e-3 * r0) + (r0 <= 0)
    n1, n2 = np.clip(n1 / n0, -0.95, 0.95), np.clip(n2 / n0, -1.0, 1.0)
    phi2 = np.clip((n2 - n1 * n1) / (1 - n1 * n1), -0.9, 0.9)
    phi1 = n1 * (1 - phi2)
    a0, a1, a2 = 1 + phi1 * phi1 + phi2 * phi2, phi1 * (phi2 - 1), -phi2
    s = far.sum(axis=1)
    alike = a0 * s[:, 2] + a1 * (s[:, 1] + s[:, 3]) + a2 * (s[:, 0] + s[:, 4])
    total = a0 * r0 + 2 * (a1 * r1 + a2 * r2)
    pairs = sum(np.maximum(count - cycles * lags, 0.0) for cycles in range(1, CYCLES_APART + 1))
    pairs = np.maximum(pairs, 1.0)
    correlation = alike / pairs * count / np.maximum(total, 1e-3 * a0 * r0 + (r0 <= 0))
    return correlation * np.sqrt(pairs / plan.blocks), correlation


def _second(r: Floats, count: Floats, counts: Rows, first: Rows, plan: _Plan) -> Rows:
    second = first.copy()
    rows = np.flatnonzero((first > 1) & (2 * MIN_CYCLES * first <= counts))
    if not rows.size:
        return second
    p, r, count, counts = first[rows, None], r[rows], count[rows], counts[rows, None]
    P = p * MULTIPLES
    own = np.minimum(np.maximum(np.log2(p / BLOCKS + 1e-9), 0).astype(np.int64), plan.n_levels - 1)
    z = np.full(P.shape, -np.inf)
    for level in (0, own):
        b, start = 1 << level, level * plan.width
        take = lambda lag: np.take_along_axis(
            r,
            np.broadcast_to(start + np.minimum(lag, plan.width - 1), np.broadcast_shapes(lag.shape, (len(rows), 1))),
            1,
        )
        n = lambda lag: np.maximum(count - lag, 0.0)
        alike, n_alike = take(P) + take(2 * P), n(P) + n(2 * P)
        other, n_other = (
            take(P - p) + take(P + p) + take(2 * P - p) + take(2 * P + p),
            n(P - p) + n(P + p) + n(2 * P - p) + n(2 * P + p),
        )
        alike, other = alike / np.maximum(n_alike, 1), other / np.maximum(n_other, 1)
        r0 = take(0 * p) / count
        rest = np.maximum(r0 - other, 0.02 * r0) + (r0 <= 0)
        noise = r0 - take(p) / n(p)
        noise = np.maximum(noise, 0.02 * r0) + (r0 <= 0)
        memory = sum(
            ((take(i * b + 0 * p) / n(i * b) - take(p + i * b) / n(p + i * b)) / noise) ** 2 for i in (1, 2, 3)
        )
        error = np.sqrt(
            b * (1 + 2 * memory) * (1 / np.maximum(n_alike, 1) + 1 / np.maximum(n_other, 1))
            + 4 * p * np.maximum(other, 0) / rest / np.maximum(n_alike, 1) ** 2
        )
        z = np.maximum(z, (alike - other) / rest / error)
    limit = np.full(P.shape, SECOND_LIMIT)
    for a, b in CALENDAR_PAIRS:
        limit[(p == a) & (P == b)] = CALENDAR_SECOND_LIMIT
    z = np.where(P * MIN_CYCLES <= counts, z / limit, 0.0)
    best = z.max(axis=1, keepdims=True)
    chosen = (z >= NEARLY_BEST * best).argmax(axis=1)
    second[rows] = np.where(best[:, 0] > 1, P[np.arange(len(rows)), chosen], p[:, 0])
    return second
