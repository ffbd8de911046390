"""How the pretrained network learns: batches of synthetic series, and the loss of all their patches."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gru_xp.devices import to_device
from gru_xp.devices.device import Device
from gru_xp.devices.primitives import Ops, even_slices
from gru_xp.devices.threads import run_side_by_side
from gru_xp.forecasting.windows import Floats
from gru_xp.io.table import Rows
from gru_xp.nn.params import flatten, unflatten
from gru_xp.nn.scan import Array
from gru_xp.pretrained.features import HEAD, PATCH, STEP_WEIGHTS, make_features, squash
from gru_xp.pretrained.generators import Synthetic, generate
from gru_xp.pretrained.network import ZeroShotParams, loss, loss_and_gradient
from gru_xp.pretrained.periods import find_periods

Result = TypeVar("Result")

PATCHES = {1: 0.07, 2: 0.09, 3: 0.09, 4: 0.1, 6: 0.12, 8: 0.12, 12: 0.1, 16: 0.1, 24: 0.08, 32: 0.13}
"""How often series of so many patches are drawn: many of the world's series are short."""

POSITIONS = 4096
"""Patches in a batch, but for those of `MAX_ROWS` short series."""

MAX_ROWS = 1024

POOL = 32_768
"""Series that are drawn from together."""

BATCHES_OF_POOL = 512

VALIDATION_PATCHES = (1, 2, 4, 8, 16, 32)

MASKED, MIXED = 0.6, 0.2
"""Shares of the series whose beginning is hidden, and to which another one is added."""

MIN_SEEN = 6
"""Values before the end of a series that are never hidden; errors count after `MIN_JUDGED` values."""

MIN_JUDGED = 4

GIVEN, FOUND, NONE = 0.3, 0.5, 0.08
"""Shares of the series that come with their true season, with the one that is found, and with none; the rest come with
a common one that need not be theirs, as people give those."""

LONG_SEASON = 24
"""Series with a season of this length or more are drawn `SHOWN` times as often as others where two of their seasons are
in view, and `HIDDEN` times elsewhere."""

SHOWN, HIDDEN = 4.0, 0.5

COMMON = np.array([4, 7, 12, 24, 52])

FITS = 0.7
"""Of the values: a longer season is not given."""

MAX_TARGET = 300.0


class Batch(NamedTuple):
    """Features of B series of K patches, and what comes after each patch."""

    inputs: Array  # (B, K, F)
    candidates: Array  # (B, K, C, HEAD)
    targets: Array  # (B, K, HEAD)
    weight: Array  # (B, K, HEAD), with the sum 1


def expected_positions() -> float:
    """Patches of a batch, on average."""
    return sum(share * n * _rows(n) for n, share in PATCHES.items()) / sum(PATCHES.values())


class Batches:
    """An endless stream of batches, each of which depends on the seed and its number alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, number: int) -> Batch:
        """The batch of a number from 1 on."""
        return self._draw(number, 1, _pool(self._seed, 2, (number - 1) // BATCHES_OF_POOL))

    def held_out(self, number: int) -> Batch:
        """A batch of a number from 1 on, of series that are in no other one."""
        return self._draw(number, 5, _pool(self._seed, 6, 0))

    def validation(self) -> list[Batch]:
        """Batches of other series, of several lengths."""
        pool = _pool(self._seed, 3, 0)
        return [
            draw_batch(np.random.default_rng([self._seed, 4, K]), pool, max(64, 1024 // K), K)
            for K in VALIDATION_PATCHES
        ]

    def _draw(self, number: int, stream: int, pool: Synthetic) -> Batch:
        rng = np.random.default_rng([self._seed, stream, number])
        shares = np.array(list(PATCHES.values()))
        K = int(rng.choice(list(PATCHES), p=shares / shares.sum()))
        return draw_batch(rng, pool, _rows(K), K)


@lru_cache(maxsize=2)
def _pool(seed: int, stream: int, number: int) -> Synthetic:
    return generate(np.random.default_rng([seed, stream, number]), POOL)


def _rows(K: int) -> int:
    return min(MAX_ROWS, POSITIONS // K)


def draw_batch(rng: np.random.Generator, pool: Synthetic, B: int, K: int) -> Batch:
    """Draw B series of K patches, with what comes after each patch."""
    n = K * PATCH
    values, periods = _draw_windows(rng, pool, B, n + HEAD)
    mixed, _ = _draw_windows(rng, pool, round(MIXED * B), n + HEAD)
    share = rng.uniform(0.2, 0.9, (len(mixed), 1)).astype(np.float32)
    values[: len(mixed)] = share * _standardized(values[: len(mixed)]) + (1 - share) * _standardized(mixed)
    counts = np.full(B, n)
    masked = rng.random(B) < MASKED
    counts[masked] = rng.integers(max(n - PATCH + 1, MIN_SEEN), n + 1, masked.sum())
    context = values[:, :n]
    center = np.median(context, axis=1, keepdims=True)
    scale = np.abs(context - center).mean(axis=1, keepdims=True)
    values = np.clip((values - center) / (scale + 1e-6), -1e3, 1e3).astype(np.float32)
    features = make_features(values[:, :n], counts, _choose_periods(rng, values[:, :n], counts, periods))
    ahead = np.arange(PATCH, n + 1, PATCH)[:, None] + np.arange(HEAD)
    targets = (values[:, ahead] - features.location[:, :, None]) / features.scale[:, :, None]
    targets = squash(np.clip(targets, -MAX_TARGET, MAX_TARGET))
    weight = _weight(features.candidates, features.seen)
    return Batch(features.inputs, features.candidates, targets, weight)


def _draw_windows(rng: np.random.Generator, pool: Synthetic, B: int, length: int) -> tuple[Floats, Rows]:
    N, T = pool.values.shape
    long = pool.periods[:, 1]
    odds = np.where(long < LONG_SEASON, 1.0, np.where(2 * long <= length - HEAD, SHOWN, HIDDEN))
    series, start = rng.choice(N, B, p=odds / odds.sum()), rng.integers(0, T - length + 1, B)
    return pool.values[series[:, None], start[:, None] + np.arange(length)], pool.periods[series]


def _standardized(values: Floats) -> Floats:
    standardized: Floats = (values - values.mean(axis=1, keepdims=True)) / (values.std(axis=1, keepdims=True) + 1e-4)
    return standardized


def _choose_periods(rng: np.random.Generator, context: Floats, counts: Rows, true: Rows) -> Rows:
    """The periods that the network is told."""
    n = context.shape[1]
    kind = rng.random(len(context))
    short, long = (np.where(true[:, side] < FITS * n, true[:, side], 0) for side in (0, 1))
    given = np.stack([np.where(short > 0, short, 1), np.where(long > 0, long, np.maximum(short, 1))], axis=1)
    common = rng.choice(COMMON, len(context))[:, None].repeat(2, axis=1)
    periods = find_periods(context, counts)
    none = kind >= GIVEN + FOUND
    other = (kind >= GIVEN + FOUND + NONE) & (common[:, 0] < FITS * n)
    periods[kind < GIVEN] = given[kind < GIVEN]
    periods[none] = 1
    periods[other] = common[other]
    return periods


def _weight(candidates: Floats, seen: Rows) -> Floats:
    """How much each error counts: near steps more, and wild series less."""
    size = np.abs(candidates[:, :, 2]).mean(axis=2) / 8
    rows = np.where(seen >= MIN_JUDGED, np.clip(1 / np.maximum(size, 1), 0.05, 1), 0.0)
    weight = rows[:, :, None] * STEP_WEIGHTS
    return np.asarray(weight / weight.sum(), dtype=np.float32)


# --- on a device ------------------------------------------------------------------------------------------------------


def on_device(batch: Batch, device: Device) -> Batch:
    """The same batch there."""
    return Batch(*(to_device(array, device, "float32") for array in batch))


class Learner:
    """The loss of batches, computed on a device, on a CPU by several threads side by side."""

    def __init__(self, device: Device) -> None:
        self._workers = [replace(device, threads=1).ops() for _ in range(device.threads)]

    def objective(self, params: ZeroShotParams, batch: Batch, ops: Ops) -> tuple[Array, ZeroShotParams]:
        """The loss of a batch and its gradient, as `train_on_stream` has it."""
        value, gradient = map(sum, zip(*self._by_rows(_flat_gradient, params, batch), strict=True))
        return value, unflatten(gradient, params)

    def mean_loss(self, params: ZeroShotParams, batches: Iterable[Batch]) -> float:
        """The mean of the losses of batches."""
        losses = [sum(map(float, self._by_rows(loss, params, batch))) for batch in batches]
        return math.fsum(losses) / len(losses)

    def _by_rows(self, function: Callable[..., Result], params: ZeroShotParams, batch: Batch) -> list[Result]:
        parts = even_slices(batch.inputs.shape[0], len(self._workers))
        tasks = [
            (ops, partial(function, *(array[rows, ...] for array in batch), params, ops=ops))
            for rows, ops in zip(parts, self._workers, strict=False)
        ]
        return run_side_by_side(tasks)


def _flat_gradient(*arguments: Any, ops: Ops) -> tuple[Array, Array]:
    value, gradient = loss_and_gradient(*arguments, ops=ops)
    return value, flatten(gradient)
