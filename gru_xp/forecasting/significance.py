"""Is a difference between the errors of two forecasts more than chance?"""

import math
from dataclasses import dataclass

import numpy as np

from gru_xp.forecasting.windows import Floats

MIN_WINDOWS = 8
"""With fewer windows, nothing is tested."""


@dataclass(frozen=True)
class DieboldMariano:
    """Result of a test.

    Attributes
    ----------
    statistic
        Below 0 where the first forecast has the smaller errors.
    p_value
        Probability of a statistic as far from 0 where the two are equally good.
    """

    statistic: float
    p_value: float


def diebold_mariano(losses: Floats, other_losses: Floats, overlap: int = 1) -> DieboldMariano | None:
    """Test whether two forecasts have the same expected loss, by Diebold and Mariano [1]_.

    The variance of the mean difference is that of Newey and West [2]_, with Bartlett's weights, so that differences may
    be correlated in time and vary in size. The statistic has the small-sample correction of Harvey, Leybourne and
    Newbold [3]_, and is compared with Student's t distribution with ``n - 1`` degrees of freedom.

    Parameters
    ----------
    losses, other_losses : array, shape ``(n,)``
        Losses of the two forecasts in the same windows, in the order of time.
    overlap
        Number of windows that have rows in common with one of them, itself included: ``ceil(horizon / stride)``. It
        is the `h` of the correction.

    Returns
    -------
    DieboldMariano or None
        None for fewer than `MIN_WINDOWS` windows, for too many that overlap, and where the losses differ nowhere or
        everywhere by the same.

    References
    ----------
    .. [1] F. X. Diebold and R. S. Mariano, "Comparing predictive accuracy", Journal of Business & Economic Statistics
       13 (1995), 253-263.
    .. [2] W. K. Newey and K. D. West, "A simple, positive semi-definite, heteroskedasticity and autocorrelation
       consistent covariance matrix", Econometrica 55 (1987), 703-708; the number of lags is that of "Automatic lag
       selection in covariance matrix estimation", Review of Economic Studies 61 (1994), 631-653.
    .. [3] D. Harvey, S. Leybourne and P. Newbold, "Testing the equality of prediction mean squared errors",
       International Journal of Forecasting 13 (1997), 281-291.
    """
    difference = np.asarray(losses, dtype=np.float64) - other_losses
    n = len(difference)
    largest = float(np.abs(difference).max(initial=0.0))
    correction = (n + 1 - 2 * overlap + overlap * (overlap - 1) / n) / n if n else 0.0
    if n < MIN_WINDOWS or largest == 0 or overlap >= n or correction <= 0:
        return None
    difference = difference / largest  # squares of very large or small losses would be no numbers
    mean = float(difference.mean())
    centred = difference - mean
    n_lags = min(max(overlap - 1, int(4 * (n / 100) ** (2 / 9))), n - 1)
    variance = float(centred @ centred)
    for lag in range(1, n_lags + 1):
        variance += 2 * (1 - lag / (n_lags + 1)) * float(centred[lag:] @ centred[:-lag])
    if variance <= 1e-24 * n:
        return None
    statistic = mean / math.sqrt(variance / n**2) * math.sqrt(correction)
    return DieboldMariano(statistic, student_t_tails(statistic, n - 1))


def p_value_text(p_value: float) -> str:
    """A p-value in a sentence, such as ``"p = 0.032"``."""
    return f"p = {p_value:.2g}" if p_value >= 0.001 else "p < 0.001"


def student_t_tails(t: float, degrees: int) -> float:
    """Probability that a variable of Student's t distribution is farther from 0 than `t`.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.7.3 and 26.7.4: finite sums for the
    probability inside. The same sums without end are 1 for any `t`, so that their further terms are the tails, which
    `1 - inside` would lose to rounding where they are small.
    """
    theta = math.atan2(abs(t), math.sqrt(degrees))
    sin, cos, odd = math.sin(theta), math.cos(theta), degrees % 2
    unit, start = (2 / math.pi * sin * cos, 2 * theta / math.pi) if odd else (sin, 0.0)
    count = degrees // 2

    def terms(stop: int) -> Floats:
        k = np.arange(1, stop)
        factors = 2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k)
        return np.concatenate([[1.0], np.cumprod(cos**2 * factors)])[:stop]

    inside = start + unit * float(terms(count).sum())
    if inside < 0.999:
        return max(1.0 - inside, 0.0)
    negligible = math.ceil(40 / -math.log(cos**2)) if cos**2 > 0 else 1
    return min(unit * float(terms(count + negligible)[count:].sum()), 1.0)
