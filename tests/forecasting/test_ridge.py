import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from gru_xp.forecasting import ridge
from gru_xp.forecasting.ridge import Fold, cross_validate, fit_ridge, naive_weight


class Held:
    """Windows that are there."""

    def __init__(self, z, y, weight):
        self.parts = z[:, :, None], y, weight
        self.n = len(z)

    def gather(self, index):
        return tuple(part[index] for part in self.parts)

    def sum_products(self):
        return None


@pytest.fixture
def windows(rng):
    z = rng.standard_normal((57, 6)) @ rng.standard_normal((6, 6))
    return Held(z, rng.standard_normal((57, 3)), rng.uniform(0.2, 3, (57, 1)))


def test_the_penalised_squared_error_is_least(windows, rng):
    start = rng.standard_normal((3, 6))
    fitted = fit_ridge(windows, start, penalty=2.5)
    (x, y, weight), n = windows.parts, windows.n
    # the same as ordinary least squares with so many rows more
    z = x[:, :, 0] * weight
    strength = np.sqrt(2.5 / n * np.trace(z.T @ z) / 6)
    rows = np.concatenate([z, strength * np.eye(6)])
    targets = np.concatenate([y * weight, strength * start.T])
    expected, *_ = np.linalg.lstsq(rows, targets, rcond=None)
    np.testing.assert_allclose(fitted, expected.T, atol=1e-12)


def test_it_is_solved_by_one_thread(windows, monkeypatch):
    """So that the bits are the same on any number of cores."""
    seen, gather = [], windows.gather

    def threads():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    def watched(index):
        seen.append(threads())
        return gather(index)

    monkeypatch.setattr(windows, "gather", watched)
    with threadpool_limits(2, "blas"):
        fit_ridge(windows, naive_weight(6, 3))
        cross_validate(windows, [Fold(np.arange(9), np.arange(9, windows.n))], [naive_weight(6, 3)])
        assert threads() <= {2}
    assert seen
    assert all(count <= {1} for count in seen)


def test_few_windows_stay_close_to_the_start(windows, rng):
    start = rng.standard_normal((3, 6))
    few = Held(*(part[:2].squeeze(-1) if part.ndim == 3 else part[:2] for part in windows.parts))
    many = Held(*(np.tile(part.squeeze(-1) if part.ndim == 3 else part, (20, 1)) for part in windows.parts))
    far, near = (np.abs(fit_ridge(each, start) - start).max() for each in (many, few))
    assert near < far
    np.testing.assert_array_equal(fit_ridge(Held(np.zeros((4, 6)), np.ones((4, 3)), np.ones((4, 1))), start), start)


def test_windows_are_gathered_in_parts(windows, rng, monkeypatch):
    start = rng.standard_normal((3, 6))
    whole = fit_ridge(windows, start)
    monkeypatch.setattr(ridge, "MAX_FITTED", 7)
    np.testing.assert_allclose(fit_ridge(windows, start), whole, rtol=1e-9)
    monkeypatch.setattr(ridge, "MAX_WINDOWS", 40)
    drawn = fit_ridge(windows, start)
    assert np.abs(drawn - whole).max() > 1e-3
    np.testing.assert_array_equal(fit_ridge(windows, start), drawn)


def test_windows_are_judged_by_what_is_fitted_to_others(windows, rng):
    rows, starts, penalties = np.arange(57), rng.standard_normal((2, 3, 6)), (0.3, 7.0)
    folds = [Fold(rows[:20], rows[23:]), Fold(rows[20:], rows[:17])]

    def part(index):
        x, y, weight = windows.gather(index)
        return Held(x[:, :, 0], y, weight)

    def mean_absolute_error(held, weights):
        x, y, weight = held.parts
        return np.mean(weight * np.abs(x[:, :, 0] @ weights.T - y))

    expected = np.zeros((2, 2))
    for s, start in enumerate(starts):
        for p, penalty in enumerate(penalties):
            fitted = [fit_ridge(part(fold.fitted), start, penalty=penalty) for fold in folds]
            errors = [mean_absolute_error(part(fold.judged), w) for fold, w in zip(folds, fitted, strict=True)]
            expected[s, p] = np.mean(errors)
    np.testing.assert_allclose(cross_validate(windows, folds, list(starts), penalties), expected, rtol=1e-9)
    x, y, weight = windows.parts
    flat = Held(np.where(rows[:, None] < 20, x[:, :, 0], 0.0), y, weight)  # those that are fitted to say nothing
    start = starts[0]
    expected = mean_absolute_error(Held(x[:20, :, 0], y[:20], weight[:20]), start)
    np.testing.assert_allclose(cross_validate(flat, folds[:1], [start], penalties), [[expected] * 2])


@pytest.mark.parametrize("season", [1, 4, 6])
def test_the_naive_weight_repeats_the_last_season(season, rng):
    window = rng.standard_normal(6)
    np.testing.assert_array_equal(naive_weight(6, 11, season) @ window, np.resize(window[-season:], 11))


def test_a_season_longer_than_the_window_is_refused():
    with pytest.raises(ValueError, match="7 rows"):
        naive_weight(6, 2, 7)
