"""The season of a series, guessed from its autocorrelation."""

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from gru_xp.io.table import Floats

SIGNIFICANCE = 0.01
"""Probability that some lag of a series without a season passes the limit."""
MIN_SEASONS = 3
MIN_HEIGHT = 0.9
"""Height of a peak relative to the highest one, which may be at a multiple of the season."""


def guess_season(values: Floats) -> int | None:
    """Guess how many rows a season has.

    As in [1]_, the season is the lag of a peak of the autocorrelation after its first decline below zero. The peak
    must be significant for all lags together (Bonferroni), with Bartlett's standard error for a series whose
    autocorrelation is that of the lags before the decline [2]_. Where peaks are about equally high, the first one
    counts. First the values are tried, about a straight line; then the differences between rows, as a series that
    drifts may also have a season.

    Parameters
    ----------
    values : array, shape ``(N,)``
        Equally spaced in time, all finite.

    Returns
    -------
    int or None
        At least 2, and at most a third of the rows; None where no season is significant.

    References
    ----------
    .. [1] X. Wang, K. Smith and R. Hyndman, "Characteristic-based clustering for time series data", Data Mining and
       Knowledge Discovery 13 (2006).
    .. [2] G. Box, G. Jenkins, G. Reinsel and G. Ljung, "Time Series Analysis", 5th edition (2016), chapter 2.

    Examples
    --------
    >>> guess_season(np.tile([5.0, 6.0, 5.0, 7.0, 9.0, 12.0, 11.0], 8))
    7
    """
    values = np.asarray(values, dtype=np.float64)
    values = values / (np.abs(values).max(initial=0.0) or 1.0)
    return next(filter(None, map(_season, _without_trend(values))), None)


def _without_trend(values: Floats) -> Iterator[Floats]:
    rows = np.arange(len(values))
    if len(values) > 1:
        yield values - np.polynomial.Polynomial.fit(rows, values, 1)(rows)
        yield np.diff(values)


def _season(values: Floats) -> int | None:
    N, max_lag = len(values), len(values) // MIN_SEASONS
    if max_lag < 2 or np.ptp(values) < 1e-12:
        return None
    rho = _autocorrelation(values)[: max_lag + 2]
    below_zero = np.flatnonzero(rho < 0)
    if not below_zero.size:
        return None
    first_lag = max(int(below_zero[0]), 2)
    lags = np.arange(first_lag, max_lag + 1)
    z = NormalDist().inv_cdf(1 - SIGNIFICANCE / (2 * max_lag))
    limits = z * np.sqrt((1 + 2 * np.sum(rho[1:first_lag] ** 2)) / (N - lags))
    is_peak = (rho[lags] >= rho[lags - 1]) & (rho[lags] >= rho[lags + 1])
    peaks = lags[is_peak & (rho[lags] > limits)]
    high = peaks[rho[peaks] >= MIN_HEIGHT * rho[peaks].max(initial=0.0)]
    # noise splits a wide peak into several; the highest one of the same season is taken
    return int(max(high[high < 1.5 * high[0]], key=rho.__getitem__)) if high.size else None


def _autocorrelation(values: Floats) -> Floats:
    """The autocorrelation at lags 0 to N-1, by a Fourier transform that is padded with zeros."""
    N = len(values)
    spectrum = np.fft.rfft(values - values.mean(), 2 * N)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, 2 * N)[:N] / np.arange(N, 0, -1)
    return np.asarray(covariance / covariance[0])
