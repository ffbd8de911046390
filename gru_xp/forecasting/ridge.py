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
"""To fit to; of more windows, so many are drawn."""


class Windows(Protocol):
    """Scaled windows of a series, the scaled values after each, and how much their errors count."""

    @property
    def n(self) -> int:
        """How many."""

    def gather(self, index: Rows) -> tuple[Floats, Floats, Floats]:
        """Of windows by number: ``(B, L, F)`` with the target in column 0, ``(B, h)`` and ``(B, 1)``."""


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
        To fit to. Of more than `MAX_WINDOWS`, so many are drawn, always the same ones.
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
    L = start.shape[1]
    index = _drawn(windows)
    A, b = np.zeros((L, L)), np.zeros((L, len(start)))
    for z, y, weight in _chunks(windows, index):
        weighted = (z * weight**2).T
        A += weighted @ z
        b += weighted @ (y - z @ start.T)
    scale = np.trace(A) / L
    if not scale > 0:  # all windows are flat
        return start.copy()
    change = np.linalg.solve(A + penalty / len(index) * scale * np.eye(L), b)
    fitted: Floats = start + change.T
    return fitted


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
    x, y, weight = windows.gather(np.arange(windows.n))
    z, S = x[:, :, 0], len(starts)
    L = z.shape[1]
    weighted = z * weight**2
    start = np.concatenate(starts).T  # (L, S * h)
    all_A, all_b = weighted.T @ z, weighted.T @ y
    error = np.zeros((len(penalties), S))
    for fold in folds:
        out = np.ones(windows.n, dtype=bool)
        out[fold.fitted] = False  # few are left out
        A, b = all_A - weighted[out].T @ z[out], all_b - weighted[out].T @ y[out]
        rest = np.tile(b, S) - A @ start
        scale = np.trace(A) / L
        flat = scale <= 1e-12 * np.trace(all_A) / L  # but for rounding
        for i, penalty in enumerate(penalties):
            strength = penalty / len(fold.fitted) * scale
            change = 0.0 if flat else np.linalg.solve(A + strength * np.eye(L), rest)
            missed = np.abs(z[fold.judged] @ (start + change) - np.tile(y[fold.judged], S))
            error[i] += (weight[fold.judged] * missed).mean(axis=0).reshape(S, -1).mean(axis=1) / len(folds)
    return error.T


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
