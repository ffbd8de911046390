"""The linear forecast of a window by ridge regression, shrunk towards the seasonal naive forecast."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from gru_xp.devices.threads import one_blas_thread
from gru_xp.forecasting.windows import Floats
from gru_xp.io.table import Rows
from gru_xp.training.sequences import MAX_FITTED

PENALTY = 5.0
"""Of weights that differ from the seasonal naive forecast: it counts as much as so many windows."""

PENALTIES = (1.0, 5.0, 20.0, 80.0, 320.0)
"""To choose from."""

MAX_WINDOWS = 2**15
"""The most windows to gather; of more, this many are drawn."""


class Windows(Protocol):
    """Scaled windows of a series, the scaled values after each, and how much their errors count."""

    @property
    def n(self) -> int:
        """How many."""

    def gather(self, index: Rows) -> tuple[Floats, Floats, Floats]:
        """Of windows by number: ``(B, L, F)`` with the target in column 0, ``(B, h)`` and ``(B, 1)``."""

    def sum_products(self) -> Floats | None:
        """Sum ``v v^T`` over all windows, where ``v (L + h,)`` has the target's window and the values after it.

        Both are multiplied by the weight of the window. None if the windows would have to be gathered.
        """


def naive_weight(seq_length: int, horizon: int, season: int = 1) -> Floats:
    """The weights ``(h, L)`` of the seasonal naive forecast of a window; of the last value where the season is 1.

    Raises
    ------
    ValueError
        A season is longer than the window.
    """
    if season > seq_length:
        raise ValueError(f"a season of {season} rows is longer than the window of {seq_length}")
    weight = np.zeros((horizon, seq_length))
    steps = np.arange(horizon)
    weight[steps, seq_length - season + steps % season] = 1.0
    return weight


@one_blas_thread  # on more, so small systems take longer, and the last bits depend on how many
def fit_ridge(windows: Windows, start: Floats, *, penalty: float = PENALTY) -> Floats:
    """Fit the weights of a linear forecast of the target from its window alone.

    The weighted squared error of N windows is minimised together with the squared distance of the weights from `start`,
    in closed form, so that few windows stay close to `start`. The distance counts ``penalty / N`` times as much as the
    mean diagonal of the normal equations' matrix.

    Parameters
    ----------
    windows
        To fit to. If they have to be gathered, and there are more than `MAX_WINDOWS`, that many are drawn, always the
        same ones.
    start : array, shape ``(h, L)``
        The weights to shrink towards, such as `naive_weight` gives.
    penalty
        Strength of the shrinkage, as a number of windows; above 0.

    Returns
    -------
    array, shape ``(h, L)``

    References
    ----------
    .. [1] A. Hoerl and R. Kennard, "Ridge regression: Biased estimation for nonorthogonal problems", Technometrics 12
       (1970), doi:10.1080/00401706.1970.10488634.
    """
    h, L = start.shape
    n, products = windows.n, windows.sum_products()
    if products is None:
        index = _drawn(windows)
        n, products = len(index), np.zeros((L + h, L + h))
        for z, y, weight in _chunks(windows, index):
            weighted = np.concatenate([z, y], axis=1) * weight
            products += weighted.T @ weighted
    A, b = products[:L, :L], products[:L, L:]
    scale = np.trace(A) / L
    if not scale > 0:  # all windows are flat
        return start.copy()
    fitted: Floats = start + _change(A, b - A @ start.T, penalty / n * scale).T
    return fitted


def _change(A: Floats, b: Floats, strength: float) -> Floats:
    """Solve ``(A + strength I) x = b``."""
    A = A.copy()
    A.flat[:: len(A) + 1] += strength
    return np.linalg.solve(A, b)


class Fold(NamedTuple):
    """Windows by number: those whose forecasts are judged, and those that are fitted to for it."""

    judged: Rows
    fitted: Rows


@one_blas_thread
def cross_validate(
    windows: Windows, folds: Sequence[Fold], starts: Sequence[Floats], penalties: Sequence[float] = PENALTIES
) -> Floats:
    """Mean absolute error of linear forecasts of windows that they are not fitted to, as the errors of windows count.

    Parameters
    ----------
    windows
        All of them are held in memory at once.
    folds
        Each counts as much as another one.
    starts : sequence of arrays, shape ``(h, L)``
        S weights to shrink towards.
    penalties
        P strengths of the shrinkage; see `fit_ridge`.

    Returns
    -------
    array, shape ``(S, P)``
    """
    S = len(starts)
    start = np.concatenate(starts).T  # (L, S * h)
    error = np.zeros((len(penalties), S))
    for fold in _cross_fit(windows, folds, start, S):
        for i, penalty in enumerate(penalties):
            missed = np.abs(fold.forecasts(penalty) - np.tile(fold.actual, S))
            error[i] += (fold.counts * missed).mean(axis=0).reshape(S, -1).mean(axis=1) / len(folds)
    return error.T


@one_blas_thread
def cross_forecasts(windows: Windows, folds: Sequence[Fold], start: Floats, penalty: float) -> list[Floats]:
    """Scaled forecasts ``(n, h)`` of the judged windows of each fold, which they are not fitted to; see `fit_ridge`."""
    return [fold.forecasts(penalty) for fold in _cross_fit(windows, folds, start.T, 1)]


class _CrossFit(NamedTuple):
    """The normal equations ``A x = rest`` of a fold, and its judged windows, their values and how much they count."""

    A: Floats
    rest: Floats
    n: int
    start: Floats
    judged: Floats
    actual: Floats
    counts: Floats

    def forecasts(self, penalty: float) -> Floats:
        """Of the judged windows."""
        scale = np.trace(self.A) / len(self.A)
        change = _change(self.A, self.rest, penalty / self.n * scale) if scale > 0 else 0.0
        forecasts: Floats = self.judged @ (self.start + change)
        return forecasts


def _cross_fit(windows: Windows, folds: Sequence[Fold], start: Floats, S: int) -> Iterator[_CrossFit]:
    """Each fold, to be shrunk towards S weights ``start (L, S * h)``."""
    x, y, weight = windows.gather(np.arange(windows.n))
    z = x[:, :, 0]
    L = z.shape[1]
    fitted = np.zeros((len(folds), windows.n), dtype=bool)
    for of_fold, fold in zip(fitted, folds, strict=True):
        of_fold[fold.fitted] = True
    groups, group_of = np.unique(fitted, axis=1, return_inverse=True)  # windows that the same folds are fitted to
    weighted = np.concatenate([z, y], axis=1) * weight
    products = [own.T @ own for own in (weighted[group_of.ravel() == group] for group in range(groups.shape[1]))]
    for fold, of_fold in zip(folds, groups, strict=True):
        total = np.zeros((weighted.shape[1],) * 2)
        for group in np.flatnonzero(of_fold):
            total += products[group]
        A = total[:L, :L]
        rest = np.tile(total[:L, L:], S) - A @ start
        yield _CrossFit(A, rest, len(fold.fitted), start, z[fold.judged], y[fold.judged], weight[fold.judged])


def residuals(windows: Windows, weight: Floats) -> Floats:
    """Scaled values less the linear forecast of those weights ``(h, L)``, shape ``(n, h)``, of windows to fit to."""
    forecasts, y, _ = linear_forecasts(windows, weight)
    return y - forecasts


def linear_forecasts(windows: Windows, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """Of windows to fit to: the linear forecasts of weights ``(h, L)``, and the scaled values, both ``(n, h)``.

    The third of the three arrays is how much the errors count, ``(n, 1)``.
    """
    parts = [(z @ weight.T, y, counts) for z, y, counts in _chunks(windows, _drawn(windows))]
    forecasts, values, counts = map(np.concatenate, zip(*parts, strict=True))
    return forecasts, values, counts


def _drawn(windows: Windows) -> Rows:
    """The windows to fit to."""
    index = np.arange(windows.n)
    if windows.n > MAX_WINDOWS:
        index = np.sort(np.random.default_rng(0).choice(windows.n, MAX_WINDOWS, replace=False))
    return index


def _chunks(windows: Windows, index: Rows) -> Iterator[tuple[Floats, Floats, Floats]]:
    for first in range(0, len(index), MAX_FITTED):
        x, y, weight = windows.gather(index[first : first + MAX_FITTED])
        yield x[:, :, 0], y, weight
