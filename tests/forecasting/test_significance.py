import math

import numpy as np
import pytest

from gru_xp.forecasting.significance import MIN_WINDOWS, diebold_mariano, student_t_tails


@pytest.mark.parametrize("p", [0.1, 0.05, 0.01])
def test_tails_are_those_of_tables(p):
    """Two-sided quantiles from the tables of Abramowitz and Stegun, 26.10."""
    quantiles = {
        0.1: {1: 6.314, 2: 2.920, 3: 2.353, 6: 1.943, 9: 1.833, 30: 1.697, 120: 1.658},
        0.05: {1: 12.706, 2: 4.303, 3: 3.182, 6: 2.447, 9: 2.262, 30: 2.042, 120: 1.980},
        0.01: {1: 63.657, 2: 9.925, 3: 5.841, 6: 3.707, 9: 3.250, 30: 2.750, 120: 2.617},
    }
    for degrees, quantile in quantiles[p].items():
        for t in (quantile, -quantile):
            assert student_t_tails(t, degrees) == pytest.approx(p, rel=2e-3), degrees
    assert student_t_tails(0.0, 7) == 1.0
    for degrees, tails in (  # the leading term for large t
        (1, lambda t: 2 / math.pi / t),
        (2, lambda t: 1 / t**2),
        (4, lambda t: 6 / t**4),
        (5, lambda t: 8 / 3 / math.pi * 5**2.5 / 5 / t**5 * 2),
    ):
        for t in (1e4, 1e6):
            assert student_t_tails(t, degrees) == pytest.approx(tails(t), rel=1e-6), degrees


def test_statistic_term_by_term(rng):
    a, b = rng.exponential(size=(2, 40))
    for overlap, lags in ((1, 3), (3, 3), (6, 5)):
        d = a - b
        mean = d.mean()
        covariances = [sum((d[i] - mean) * (d[i - lag] - mean) for i in range(lag, 40)) / 40 for lag in range(lags + 1)]
        variance = covariances[0] + 2 * sum((1 - lag / (lags + 1)) * covariances[lag] for lag in range(1, lags + 1))
        correction = math.sqrt((40 + 1 - 2 * overlap + overlap * (overlap - 1) / 40) / 40)
        tested = diebold_mariano(a, b, overlap)
        assert tested.statistic == pytest.approx(mean / math.sqrt(variance / 40) * correction, rel=1e-12)
        assert tested.p_value == student_t_tails(tested.statistic, 39)
        assert diebold_mariano(b, a, overlap).statistic == -tested.statistic
        assert diebold_mariano(a * 1e200, b * 1e200, overlap).statistic == pytest.approx(tested.statistic)


def test_equal_forecasts_are_seldom_called_different(rng):
    """Also where losses are correlated in time, as those of windows that overlap are."""
    noise = rng.standard_normal((400, 2, 64))
    overlapping = sum(noise[:, :, start : start + 60] for start in range(4))
    p_values = [diebold_mariano(np.abs(a), np.abs(b), 4).p_value for a, b in overlapping]
    assert 0.01 < np.mean(np.array(p_values) < 0.05) < 0.1


def test_better_forecasts_are_found(rng):
    a, b = np.abs(rng.standard_normal((2, 80))) * [[0.5], [1.0]]
    assert diebold_mariano(a, b).statistic < 0
    assert diebold_mariano(a, b).p_value < 0.01


def test_what_cannot_be_tested(rng):
    a, b = rng.exponential(size=(2, 30))
    assert diebold_mariano(a, a) is None
    assert diebold_mariano(a, a + 0.25) is None
    assert diebold_mariano(a[: MIN_WINDOWS - 1], b[: MIN_WINDOWS - 1]) is None
    assert diebold_mariano(a[:MIN_WINDOWS], b[:MIN_WINDOWS]) is not None
    assert diebold_mariano(a, b, 30) is None
    assert diebold_mariano(a[:0], b[:0]) is None
