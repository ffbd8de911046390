import numpy as np
import pytest

from gru_xp.pretrained.calibration import COVERAGE, MIN_SEEN, MIN_SEEN_FOR_WIDTH, PRIOR, calibrate
from gru_xp.pretrained.features import HEAD, LEVELS, MEDIAN, PATCH, naive_forecasts

K = 20
PERIODS = (7, 24)


@pytest.fixture
def series(rng):
    """Quantiles, naive forecasts, values, their numbers, and longest seasons of four series."""
    values = rng.normal(size=(4, K * PATCH)).cumsum(axis=1).astype(np.float32)
    counts = np.array([K * PATCH, K * PATCH - 5, 200, 70])
    error = rng.normal(size=(4, K, HEAD, 1)) * np.array([1.0, 12, 4, 2])[:, None, None, None]
    center = values[:, PATCH - 1 :: PATCH, None, None] + error
    quantiles = center + np.sort(rng.normal(size=(4, K, HEAD, len(LEVELS))), axis=3)
    naive = naive_forecasts(values, counts, np.tile(PERIODS, (4, 1)), K)
    return quantiles, quantiles[..., [0, MEDIAN, -1]], naive, values, counts, np.full(4, PERIODS[1])


def by_hand(quantiles, _, naive, values, count, longest, k):
    """The calibrated quantiles ``(HEAD, Q)`` of one series after patch k, by loops over the earlier forecasts."""
    errors, relative, weights, n = [], [], [], 0
    for earlier in range(k):
        seen = count - (K - 1 - earlier) * PATCH
        error = np.zeros(4)
        for step in range(min(HEAD, (k - earlier) * PATCH)):
            truth, median = values[(earlier + 1) * PATCH + step], quantiles[earlier, step, MEDIAN]
            weight = (step + 4) ** -0.5
            if seen >= max(MIN_SEEN, longest):
                error += weight * np.abs(np.array([median, *naive[earlier, :, step]]) - truth)
            if seen >= MIN_SEEN_FOR_WIDTH:
                width = (
                    quantiles[earlier, step, -1] - median if truth > median else median - quantiles[earlier, step, 0]
                )
                relative.append(abs(truth - median) / width)
                weights.append(weight)
        n += seen >= MIN_SEEN_FOR_WIDTH
        if seen >= max(MIN_SEEN, longest):
            errors.append(error)
    result = quantiles[k].copy()
    if relative:
        order = np.argsort(relative)
        covered = np.cumsum(np.array(weights)[order]) / np.sum(weights)
        factor = np.clip(np.array(relative)[order][np.argmax(covered >= COVERAGE)], 1 / 3, 3) ** (n / (n + PRIOR))
        result = result[:, [MEDIAN]] + factor * (result - result[:, [MEDIAN]])
    if errors:
        capped = np.minimum(errors, 3 * np.quantile(errors, 0.5, axis=0, method="lower"))
        errors = capped.sum(axis=0)
        best = np.argmin(errors[1:])
        share = np.clip((errors[0] / errors[1 + best] - 1) / 0.15, 0, 1)
        result += share * (naive[k, best] - result[:, MEDIAN])[:, None]
    return result


def test_calibrated_forecasts_equal_those_by_loops(series):
    """Of one series much better than the naive forecasts, of one much worse, and of one with few earlier forecasts."""
    calibrated = calibrate(series[0][:, -3:], *series[1:])
    assert calibrated.shape == (4, 3, HEAD, len(LEVELS))
    for row in range(4):
        for number in range(3):
            expected = by_hand(*(array[row] for array in series), K - 3 + number)
            np.testing.assert_allclose(calibrated[row, number], expected, rtol=0, atol=1e-5)


def test_values_that_follow_do_not_matter(series):
    quantiles, earlier, naive, values, counts, longest = series
    calibrated = calibrate(series[0][:, -2:], *series[1:])
    changed = values.copy()
    changed[:, -PATCH:] += 100
    other = calibrate(quantiles[:, -2:], earlier, naive, changed, counts, longest)
    np.testing.assert_array_equal(other[:, 0], calibrated[:, 0])
    assert (other[0, 1] != calibrated[0, 1]).any()


def test_naive_forecasts_repeat_the_last_value_and_cycles(rng):
    values = rng.normal(size=(1, 3 * PATCH)).astype(np.float32)
    for count, periods in ((48, (7, 24)), (30, (5, 33))):
        naive = naive_forecasts(values, np.array([count]), np.array([periods]), 1)[0, 0]
        known = values[0, -count:]
        np.testing.assert_array_equal(naive[0], np.full(HEAD, known[-1]))
        for repeated, period in zip(naive[1:], periods, strict=True):
            cycle = np.concatenate([np.full(max(period - count, 0), known[-1]), known[-period:]])
            np.testing.assert_array_equal(repeated, np.resize(cycle, HEAD))


def test_equal_values_at_the_beginning_do_not_count(series):
    """As all forecasts of them are right, whatever the network is worth."""
    quantiles, earlier, naive, values, counts, longest = (array[1:2] for array in series)
    values = np.concatenate([np.full_like(values[:, :200], values[0, 200]), values[:, 200:]], axis=1)
    calibrated = calibrate(quantiles[:, -1:], earlier, naive, values, counts, longest)
    shorter = calibrate(quantiles[:, -1:], earlier, naive, values, np.array([K * PATCH - 200]), longest)
    np.testing.assert_array_equal(calibrated, shorter)
