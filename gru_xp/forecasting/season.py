"""The seasons of a series: those that its dates suggest and its values have, or else one guessed from the values."""

from collections.abc import Iterator
from datetime import datetime
from statistics import NormalDist

import numpy as np

from gru_xp.io.table import Floats

SIGNIFICANCE = 0.01
"""Probability that some lag of a series without a season passes the limit."""
CALENDAR_SIGNIFICANCE = 0.05
"""Probability that a series without a season passes as one with a season that its dates suggest."""
MIN_CORRELATION = 0.1
"""Of rows a season apart; in long series, less may be significant, but is of no use."""
MIN_SEASONS = 3
MIN_HEIGHT = 0.9
"""Height of a peak relative to the highest one, which may be at a multiple of the season."""

_MONTHS = {"M": 1, "Q": 3, "Y": 12}


def find_seasons(values: Floats, freq: str | None = None) -> tuple[int, ...]:
    """The seasons of a series, in rows, the shortest first; empty where none is significant.

    They are those that the spacing of its dates suggests, as far as its values have them. Where the values have none of
    these, a season is guessed.

    Parameters
    ----------
    values : array, shape ``(N,)``
        Equally spaced in time, all finite.
    freq
        The spacing of the rows, as a pandas offset; None if it is not known.
    """
    suggested = () if freq is None else calendar_seasons(freq)
    found = tuple(season for season in suggested if has_season(values, season))
    if not found and (guessed := guess_season(values)) is not None:
        found = (guessed,)
    return found


def calendar_seasons(freq: str) -> tuple[int, ...]:
    """How many rows a year, a week or a day has, by the spacing of the rows, as a pandas offset; the fewest first.

    Examples
    --------
    >>> calendar_seasons("MS"), calendar_seasons("h"), calendar_seasons("YS")
    ((12,), (24, 168), ())
    """
    from pandas.tseries.frequencies import to_offset

    offset = to_offset(freq)
    unit = offset.rule_code.partition("-")[0]
    if unit in ("B", "C"):
        return (5,) if offset.n == 1 else ()
    if unit == "W":
        return _whole(52, offset.n)
    if (months := _MONTHS.get(unit.removeprefix("B")[:1])) is not None and unit != "D":
        return _whole(12, months * offset.n)
    seconds = round((datetime.min + offset - datetime.min).total_seconds())
    return (*_whole(24 * 3600, seconds), *_whole(7 * 24 * 3600, seconds)) if seconds else ()


def is_unseen(values: Floats, season: int) -> bool:
    """Whether a series has rows enough to see a season in, and has none; see `has_season`."""
    return len(values) >= MIN_SEASONS * season and not has_season(values, season)


def has_season(values: Floats, season: int) -> bool:
    """Whether rows a season apart are alike, beside the trend.

    The trend is the moving average over a season. What is left must have an autocorrelation at the lag of the season
    that is significant by Bartlett's standard error, for the autocorrelation of the lags before its first decline below
    zero; see `guess_season`. The series must have `MIN_SEASONS` seasons.

    Parameters
    ----------
    values : array, shape ``(N,)``
        Equally spaced in time, all finite.
    season
        In rows, at least 2.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < MIN_SEASONS * season:
        return False
    values = values / (np.abs(values).max() or 1.0)
    values = values - values.mean()
    trend = _moving_average(values, season)
    first = (len(values) - len(trend)) // 2
    rest = values[first : first + len(trend)] - trend
    if np.ptp(rest) < 1e-12 * np.ptp(values) or not np.ptp(rest):
        return False
    rho = autocorrelation(rest)
    below_zero = np.flatnonzero(rho[:season] < 0)
    decline = int(below_zero[0]) if below_zero.size else season
    error = np.sqrt((1 + 2 * np.sum(rho[1:decline] ** 2)) / (len(rest) - season))
    return bool(rho[season] > max(NormalDist().inv_cdf(1 - CALENDAR_SIGNIFICANCE) * error, MIN_CORRELATION))


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


def _moving_average(values: Floats, season: int) -> Floats:
    """Over a season around each row; an even one begins and ends in the middle of a row."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    means = (sums[season:] - sums[:-season]) / season
    return np.asarray(means if season % 2 else (means[1:] + means[:-1]) / 2)


def _whole(period: int, step: int) -> tuple[int, ...]:
    """How many steps a period has, if it is a whole number above 1."""
    count, rest = divmod(period, step)
    return (count,) if count > 1 and not rest else ()


def _without_trend(values: Floats) -> Iterator[Floats]:
    rows = np.arange(len(values))
    if len(values) > 1:
        yield values - np.polynomial.Polynomial.fit(rows, values, 1)(rows)
        yield np.diff(values)


def _season(values: Floats) -> int | None:
    N, max_lag = len(values), len(values) // MIN_SEASONS
    if max_lag < 2 or np.ptp(values) < 1e-12:
        return None
    rho = autocorrelation(values)[: max_lag + 2]
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


def autocorrelation(values: Floats) -> Floats:
    """The autocorrelation at lags 0 to N-1, by a Fourier transform that is padded with zeros."""
    N = len(values)
    spectrum = np.fft.rfft(values - values.mean(), 2 * N)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, 2 * N)[:N] / np.arange(N, 0, -1)
    return np.asarray(covariance / covariance[0])
