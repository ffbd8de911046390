"""What the pretrained network sees of a series: patches of values, scaled by what came before, and simple forecasts.

Everything of a patch is computed from the values up to its end, so that each patch of a series is a forecast to learn
from.
"""

from typing import NamedTuple

import numpy as np

from gru_xp.forecasting.windows import Floats
from gru_xp.io.table import Rows

PATCH = 16
"""Values of a series that are one step of the network."""

CONTEXT = 512
"""Values before a forecast that are looked at, at most."""

HEAD = 64
"""Steps ahead that the network forecasts at once."""

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels of the quantiles that the network forecasts."""

MEDIAN = LEVELS.index(0.5)

STEP_WEIGHTS = 1 / np.sqrt(np.arange(HEAD) + 4.0)
"""How much errors count, by step ahead: near ones more."""

CANDIDATES = (
    "last value",
    "mean of a cycle",
    "copy",
    "copy plus drift of a cycle",
    "copy plus drift of all values",
    "mean of three cycles, at the level of the last",
    "copy of the longer period",
    "copy of the longer period, at the level of the last cycle",
)
"""Simple forecasts that the network mixes; a copy repeats the last cycle."""

N_SCALARS = 25
N_INPUTS = 4 * PATCH + 5 * HEAD + N_SCALARS

MAX_INPUT = 8.0
"""Inputs are clipped at this size."""

MIN_SCALE = 0.03
"""Of the standard deviation: the least scale of a patch."""

SQUASH = 4.0


class Features(NamedTuple):
    """The network's view of B right-aligned series of K patches.

    Attributes
    ----------
    inputs : array, shape ``(B, K, N_INPUTS)``
    candidates : array, shape ``(B, K, C, HEAD)``, or fewer of the last patches
        Simple forecasts after each patch, less `location`, in units of `scale`.
    location, scale : array, shape ``(B, K)``
        Last value of each patch, and the mean absolute seasonal difference up to there.
    seen : array, shape ``(B, K)``
        How many values of the series there are up to the end of each patch.
    """

    inputs: Floats
    candidates: Floats
    location: Floats
    scale: Floats
    seen: Rows


def squash(values: Floats) -> Floats:
    """``4 asinh(values / 4)``: near 0 the values themselves, far from it their logarithm."""
    size = np.abs(values) * np.float32(1 / SQUASH)
    size = np.log(size + np.sqrt(size * size + np.float32(1)))  # several times as fast as arcsinh
    squashed: Floats = np.copysign(np.float32(SQUASH) * size, values)
    return squashed


def unsquash(values: Floats) -> Floats:
    """The inverse of `squash`; of values beyond 60, that of 60."""
    return np.asarray(SQUASH * np.sinh(np.clip(values, -60.0, 60.0) / SQUASH))


def make_features(values: Floats, counts: Rows, periods: Rows, *, n_last: int = 0) -> Features:
    """Describe each patch of some series.

    Parameters
    ----------
    values : array, shape ``(B, 16 K)``
        Series, of about unit size, that end together, in float32.
    counts : array, shape ``(B,)``
        How many values each has, the last ones; those before do not matter.
    periods : array, shape ``(B, 2)``
        Seasons in values, the shorter first; twice the same for one, and 1 for none.
    n_last
        After how many of the last patches candidates are wanted; 0 for all.

    Returns
    -------
    Features
        In float32.
    """
    history = _History(values, counts)
    short, long = (_Cycles(history, periods[:, side], n_copies) for side, n_copies in ((0, 3), (1, 2)))
    scale = np.where(short.n_differences >= 2, short.mean_difference, history.mean_step)
    scale = np.maximum(scale, MIN_SCALE * history.deviation)
    scale = np.where(scale < 1e-6, 1.0, scale).astype(np.float32)
    inputs = _inputs(history, short, long, scale)
    kept = slice(-n_last, None)  # all of them where it is 0
    candidates = _candidates(history, short, long, scale, kept)
    return Features(inputs, candidates, history.location, scale, history.seen)


class _History:
    """Series by patch: what is known at the end of each without a period."""

    def __init__(self, values: Floats, counts: Rows) -> None:
        B, n = values.shape
        self.n, self.ends = n, np.arange(PATCH - 1, n, PATCH)
        self.first = (n - counts)[:, None]
        self.is_there = np.arange(n) >= self.first
        self.values = np.where(self.is_there, values, np.float32(0))
        self.location = self.values[:, PATCH - 1 :: PATCH]
        self.seen = np.maximum(self.ends - self.first + 1, 0)
        self.sums = _sums(self.values)
        count = np.maximum(self.seen, 1)
        mean = self.sums[:, self.ends + 1] / count
        squares = _sums(self.values * self.values)[:, self.ends + 1] / count
        self.mean = mean.astype(np.float32)
        self.deviation = np.sqrt(np.maximum(squares - mean**2, 0.0)).astype(np.float32)
        self.mean_step, _ = self.differences(np.ones(B, dtype=np.int64))[1:]
        half = self.seen // 2
        middle = np.maximum(self.ends - half + 1, 0)
        recent, before = self.sum_between(middle, self.ends + 1), self.sum_between(middle - half, middle)
        self.slope = (recent - before) / np.maximum(half, 1).astype(
            np.float32
        ) ** 2  # of halves that are that far apart

    def sum_between(self, start: Rows, stop: Rows) -> Floats:
        """The sums of the values from `start` to before `stop`, both of a shape ``(B, K)``."""
        difference = _take(self.sums, np.broadcast_to(stop, self.seen.shape)) - _take(self.sums, start)
        return difference.astype(np.float32)

    def differences(self, lag: Rows) -> tuple[Floats, Floats, Rows]:
        """Differences ``(B, n)`` from the values a lag before, and their mean sizes and numbers up to each patch."""
        before = np.arange(self.n) - lag[:, None]
        known = before >= self.first
        differences = np.where(known, self.values - _take(self.values, before), np.float32(0))
        count = np.maximum(self.ends - self.first - lag[:, None] + 1, 0)
        sizes = _sums(np.abs(differences))[:, self.ends + 1]
        return differences, (sizes / np.maximum(count, 1)).astype(np.float32), count


class _Cycles:
    """Series by patch with one period: copies of the last cycles ``(B, K, HEAD)``, their means, and differences."""

    def __init__(self, history: _History, period: Rows, n_copies: int) -> None:
        self.period = p = period[:, None]
        length = p.astype(np.float32)
        self.differences, self.mean_difference, self.n_differences = history.differences(period)
        ends, first = history.ends, history.first
        self.cycles = _cycles_ahead(p)
        source = ends[:, None] + _steps_back(p)[:, None, :]
        copy = history.location[:, :, None]
        self.copies = []
        for number in range(n_copies):
            at = source - (number * p)[:, :, None]
            copy = np.where(at >= first[:, :, None], _take(history.values, at), copy)
            self.copies.append(copy)
        self.means, self.is_whole = [], []
        mean = history.mean
        for number in range(3):
            stop = ends - number * p + 1
            whole = stop - p >= first
            mean = np.where(whole, history.sum_between(stop - p, stop) / length, mean)
            self.means.append(mean)
            self.is_whole.append(whole)
        before = ends - p
        self.is_known = before >= first
        self.value_before = np.where(self.is_known, _take(history.values, before), history.location)


def _inputs(history: _History, short: _Cycles, long: _Cycles, scale: Floats) -> Floats:
    B, K = scale.shape
    inputs = np.empty((B, K, N_INPUTS), dtype=np.float32)
    unit = (1 / scale)[:, :, None]
    there = history.is_there.reshape(B, K, PATCH)
    location = history.location[:, :, None]
    patches = [squash((history.values.reshape(B, K, PATCH) - location) * unit) / 2 * there, there]
    patches += [squash(each.differences.reshape(B, K, PATCH) * unit) / 2 * there for each in (short, long)]
    for number, patch in enumerate(patches):
        inputs[:, :, number * PATCH : (number + 1) * PATCH] = patch
    first = len(patches) * PATCH
    for copy in (*short.copies, *long.copies):
        inputs[:, :, first : first + HEAD] = squash((copy - location) * unit) / 2
        first += HEAD
    for number, column in enumerate(_scalars(history, short, long, scale)):
        inputs[:, :, first + number] = column
    return np.clip(inputs, -MAX_INPUT, MAX_INPUT, out=inputs)


def _scalars(history: _History, short: _Cycles, long: _Cycles, scale: Floats) -> list[Floats]:
    def difference(a: Floats, b: Floats) -> Floats:
        return squash((a - b) / scale)

    def logarithm(a: Floats) -> Floats:
        return np.log(np.clip(a / scale, 1e-4, 1e4)) / 2

    location, (m0, m1, m2), (w0, w1, _) = history.location, short.means, long.means
    return [
        np.log(short.period) / 5,
        short.period == 1,
        np.log(long.period) / 5,
        long.period == short.period,
        np.log(np.maximum(history.seen, 1)) / 6,
        logarithm(history.mean_step),
        logarithm(history.deviation),
        # beside the deviation, as good as an autocorrelation at the period
        logarithm(np.where(long.n_differences >= 2, long.mean_difference, scale)),
        difference(m0, location) / 2,
        difference(m0, m1),
        difference(m1, m2),
        difference(history.mean, location) / 2,
        difference(short.value_before, location) / 2,
        *short.is_whole,
        short.is_known,
        difference(w0, m0) / 2,
        difference(w0, w1),
        difference(long.value_before, location) / 2,
        *long.is_whole[:2],
        long.is_known,
        squash(history.slope * short.period.astype(np.float32) / scale),
        squash(history.slope * HEAD / scale) / 2,
    ]


def _candidates(history: _History, short: _Cycles, long: _Cycles, scale: Floats, kept: slice) -> Floats:
    location = history.location[:, kept, None]
    m0, m1, m2 = (mean[:, kept, None] for mean in short.means)
    copy, second, third = (copy[:, kept] for copy in short.copies)
    p, w = short.period, long.period
    ahead = (p * short.cycles)[:, None, :].astype(np.float32)
    stop = history.ends - w + 1  # of the cycle a longer period ago
    level = np.where(
        stop - p >= history.first, history.sum_between(stop - p, stop) / p.astype(np.float32), short.means[0]
    )[:, kept, None]
    of_week = long.copies[0][:, kept]
    each = (
        location,
        m0,
        copy,
        copy + (m0 - m1),
        copy + history.slope[:, kept, None] * ahead,
        (copy + second + third - m0 - m1 - m2) / np.float32(3) + m0,
        of_week,
        of_week + (m0 - level),
    )
    B, K = m0.shape[:2]
    candidates = np.empty((B, K, len(CANDIDATES), HEAD), dtype=np.float32)
    unit = 1 / scale[:, kept, None]
    for number, forecast in enumerate(each):
        candidates[:, :, number] = (forecast - location) * unit
    return candidates


def naive_forecasts(values: Floats, counts: Rows, periods: Rows, n_last: int) -> Floats:
    """Repeat the last value, and the last cycle of each season, after each of the last patches of some series.

    Parameters
    ----------
    values, counts, periods
        As for `make_features`.
    n_last
        Number n of patches.

    Returns
    -------
    array, shape ``(B, n, 3, HEAD)``
        In float32. The last value also stands for those of a cycle that are before the series.
    """
    n = values.shape[1]
    first, ends = n - counts[:, None, None], np.arange(PATCH - 1, n, PATCH)[-n_last:, None]
    last = np.broadcast_to(values[:, ends], (*values.shape[:1], len(ends), HEAD))
    naive = [last]
    for period in periods.T:
        source = ends + _steps_back(period[:, None])[:, None, :]
        naive.append(np.where(source >= first, _take(values, source), last))
    return np.stack(naive, axis=2)


def _cycles_ahead(period: Rows) -> Rows:
    """How many cycles ``(B, HEAD)`` of the periods ``(B, 1)`` ahead each step is."""
    return -(-np.arange(1, HEAD + 1) // period)


def _steps_back(period: Rows) -> Rows:
    """Rows ``(B, HEAD)`` from the last one back to that of the same phase in its cycle, as numbers up to 0."""
    return np.arange(1, HEAD + 1) - period * _cycles_ahead(period)


def _sums(values: Floats) -> Floats:
    """Cumulative sums ``(B, n + 1)`` in float64, from 0."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def _take(values: Floats, columns: Rows) -> Floats:
    """The values ``(B, n)`` at columns ``(B, ...)`` of each row; those out of range are of the nearest one."""
    B, n = values.shape
    start = (np.arange(B) * n).reshape(B, *[1] * (columns.ndim - 1))
    taken: Floats = values.reshape(-1)[np.clip(columns, 0, n - 1) + start]
    return taken
