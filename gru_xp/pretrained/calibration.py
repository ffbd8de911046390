"""Calibrate forecasts by how the network would have forecast the values of the same series that are known."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gru_xp.forecasting.windows import Floats
from gru_xp.io.table import Rows
from gru_xp.pretrained.features import HEAD, LEVELS, MEDIAN, PATCH, STEP_WEIGHTS

MIN_SEEN = 192
"""Values before an earlier forecast, and no less than its longest season, for its error to count."""

MIN_FORECASTS = 3

KEPT, REPLACED = 1.0, 1.15
"""Error of the earlier forecasts, relative to that of the best naive one, up to which a forecast is kept as it is, and
from which the naive one replaces it; in between, it is a mean of both."""

MIN_SEEN_FOR_WIDTH = 64

PRIOR = 8
"""Earlier forecasts that the widths of the intervals count for."""

COVERAGE = LEVELS[-1] - LEVELS[0]

MAX_FACTOR = 3.0

CAP = 3.0
"""Largest error of an earlier forecast that counts, in medians of them: a few wrong values decide nothing."""

ROUNDING = 1e-4
"""Error that counts for nothing, in units of the series."""

BLOCKS = HEAD // PATCH

NEAR = STEP_WEIGHTS.astype(np.float32)


class _Past(NamedTuple):
    """Errors of the forecasts after each patch, for each patch of steps ahead."""

    errors: Floats  # (B, n, 1 + 3, BLOCKS): of the median and of the naive forecasts, near steps counting more
    relative: Floats  # (B, n, HEAD): distances from the median, in those of the outer quantile on that side


def calibrate(quantiles: Floats, earlier: Floats, naive: Floats, values: Floats, counts: Rows, longest: Rows) -> Floats:
    """Calibrate the forecasts after each of the last patches of some series by the errors of those before.

    Parameters
    ----------
    quantiles : array, shape ``(B, m, HEAD, Q)``
        Forecasts after each of the last m patches.
    earlier : array, shape ``(B, n, HEAD, 3)``
        The lowest quantile, the median and the highest one after each of the last n patches, n at least m.
    naive : array, shape ``(B, n, 3, HEAD)``
        As `naive_forecasts` has them.
    values : array, shape ``(B, 16 K)``
        The series, in the same units.
    counts : array, shape ``(B,)``
        How many values each series has, the last ones.
    longest : array, shape ``(B,)``
        The longest season in values.

    Returns
    -------
    array, shape ``(B, m, HEAD, Q)``

    Notes
    -----
    Only values before a forecast have a part in its calibration. Its distances of quantiles from the median are
    multiplied by what would have let `COVERAGE` of the values be within the earlier intervals, as in split-conformal
    prediction (Lei et al. 2018, doi:10.1080/01621459.2017.1307116), to the power of n / (n + `PRIOR`) for n earlier
    forecasts. Then all quantiles move towards the best naive forecast as far as its earlier errors were smaller. Of
    each error, no more than `CAP` times the median counts. Equal values at the beginning of a series do not count.
    """
    n = earlier.shape[1]
    past, seen = _past(earlier, naive, values), _seen(values, counts, n)
    is_judged, has_width = seen >= np.maximum(MIN_SEEN, longest[:, None]), seen >= MIN_SEEN_FOR_WIDTH
    calibrated = quantiles.copy()
    for number, k in enumerate(range(n - quantiles.shape[1], n)):
        factor = _width_factor(past.relative[:, :k], has_width[:, :k])
        median = calibrated[:, number, :, MEDIAN, None]
        calibrated[:, number] = median + factor[:, None, None] * (calibrated[:, number] - median)
        best, share = _naive_share(past.errors[:, :k], is_judged[:, :k])
        shift = naive[np.arange(len(best)), k, best] - median[..., 0]
        calibrated[:, number] += (share[:, None] * shift)[..., None]
    return calibrated


def n_needed(n_patches: int) -> int:
    """After how many of the last of so many patches forecasts are needed to calibrate that after the last one."""
    return max(n_patches - MIN_SEEN_FOR_WIDTH // PATCH + 1, 1)


def _seen(values: Floats, counts: Rows, n: int) -> Rows:
    """Number of values ``(B, n)`` up to the end of each of the last n patches, without equal ones at the beginning."""
    rows, length = np.arange(1, values.shape[1]), values.shape[1]
    changes = (values[:, 1:] != values[:, :-1]) & (rows > length - counts[:, None])
    first = np.where(changes.any(axis=1), np.argmax(changes, axis=1), length)
    return np.asarray(np.arange(length - (n - 1) * PATCH, length + 1, PATCH) - first[:, None])


def _past(earlier: Floats, naive: Floats, values: Floats) -> _Past:
    B, n = earlier.shape[:2]
    ends = np.arange(values.shape[1] - PATCH * n, values.shape[1], PATCH) + PATCH
    ahead = np.minimum(ends[:, None] + np.arange(HEAD), values.shape[1] - 1)  # those beyond the end are never used
    truth, (low, median, high) = values[:, ahead], np.moveaxis(earlier, 3, 0)
    errors = np.abs(np.concatenate([median[:, :, None], naive], axis=2) - truth[:, :, None])
    errors *= NEAR
    width = np.where(truth > median, high - median, median - low)
    relative = np.abs(truth - median) / np.maximum(width, ROUNDING)
    return _Past(errors.reshape(B, n, -1, BLOCKS, PATCH).sum(axis=4), relative)


def _known(k: int) -> Rows:
    """How many patches of steps ahead are known at patch k of the forecasts after each patch before."""
    return np.minimum(k - np.arange(k), BLOCKS)


def _naive_share(errors: Floats, is_counted: NDArray[np.bool_]) -> tuple[Rows, Floats]:
    """The best naive forecast of each series ``(B,)``, and by how much it replaces the median."""
    if not is_counted.any():
        return np.zeros(len(errors), dtype=np.int64), np.zeros(len(errors))
    is_known = np.arange(BLOCKS) < _known(errors.shape[1])[:, None]
    of_forecasts = np.einsum("bncs,ns->bcn", errors, is_known)
    count = is_counted.sum(axis=1)
    ordered = np.sort(np.where(is_counted[:, None], of_forecasts, np.inf), axis=2)
    middle = np.take_along_axis(ordered, np.maximum(count - 1, 0)[:, None, None] // 2, axis=2)
    of_each = np.sum(np.minimum(of_forecasts, CAP * middle) * is_counted[:, None], axis=2)
    best = np.argmin(of_each[:, 1:], axis=1)
    least = np.take_along_axis(of_each[:, 1:], best[:, None], axis=1)[:, 0]
    ratio = of_each[:, 0] / np.maximum(least, ROUNDING * np.maximum(count, 1))
    share = np.clip((ratio - KEPT) / (REPLACED - KEPT), 0.0, 1.0)
    return best, np.where(count >= MIN_FORECASTS, share, 0.0)


def _width_factor(relative: Floats, is_counted: NDArray[np.bool_]) -> Floats:
    """What to multiply distances from the median by, for each series ``(B,)``."""
    B, k = is_counted.shape
    n = is_counted.sum(axis=1)
    if not n.any():
        return np.ones(B)
    is_known = np.repeat(np.arange(BLOCKS) < _known(k)[:, None], PATCH, axis=1)
    weight = (is_counted[:, :, None] * is_known * NEAR).reshape(B, -1)
    order = np.argsort(relative.reshape(B, -1), axis=1)
    share = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1)
    at = np.argmax(share >= COVERAGE * share[:, -1:], axis=1)
    factor = np.take_along_axis(relative.reshape(B, -1), np.take_along_axis(order, at[:, None], axis=1), axis=1)[:, 0]
    factor = np.clip(factor, 1 / MAX_FACTOR, MAX_FACTOR)
    widened: Floats = np.where(n > 0, factor ** (n / (n + PRIOR)), 1.0)
    return widened
