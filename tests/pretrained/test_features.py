import numpy as np
import pytest

from gru_xp.pretrained.features import (
    CANDIDATES,
    HEAD,
    MIN_SCALE,
    N_INPUTS,
    PATCH,
    SQUASH,
    make_features,
    squash,
    unsquash,
)


@pytest.fixture
def series():
    """Three series of at most 96 values: numbers of them, and periods."""
    values = np.random.default_rng(0).standard_normal((3, 96)).cumsum(axis=1).astype(np.float32)
    return values, np.array([96, 50, 91]), np.array([[4, 12], [7, 7], [1, 1]])


def test_squash():
    values = np.array([-1e3, -2.0, -1e-3, 0.0, 0.5, 40.0], dtype=np.float32)
    np.testing.assert_allclose(squash(values), SQUASH * np.arcsinh(values / SQUASH), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(unsquash(squash(values)), values, rtol=1e-4, atol=1e-5)


def test_shapes(series):
    features = make_features(*series)
    assert features.inputs.shape == (3, 6, N_INPUTS)
    assert features.candidates.shape == (3, 6, len(CANDIDATES), HEAD)
    assert {array.dtype for array in features[:-1]} == {np.dtype(np.float32)}
    assert features.seen[:, -1].tolist() == [96, 50, 91]
    last = make_features(*series, n_last=1)
    np.testing.assert_array_equal(last.inputs, features.inputs)
    np.testing.assert_array_equal(last.candidates, features.candidates[:, -1:])


def test_a_patch_knows_nothing_of_later_values(series):
    values, counts, periods = series
    changed = values.copy()
    changed[:, 4 * PATCH :] += 5
    for before, after in zip(make_features(*series), make_features(changed, counts, periods), strict=True):
        np.testing.assert_array_equal(before[:, :4], after[:, :4])
        assert before.dtype.kind == "i" or (before[:, 4:] != after[:, 4:]).any()


def test_a_patch_at_the_end_is_what_it_is_in_a_longer_series(series):
    values, counts, periods = series
    short = make_features(values[:, : 5 * PATCH], counts - PATCH, periods)
    for whole, part in zip(make_features(*series), short, strict=True):
        np.testing.assert_allclose(whole[:, 4], part[:, 4], rtol=1e-5, atol=1e-6)


def test_what_is_before_a_series_does_not_matter(series):
    values, counts, periods = series
    changed = values.copy()
    changed[1, : 96 - 50] = 1e4
    for before, after in zip(make_features(*series), make_features(changed, counts, periods), strict=True):
        np.testing.assert_array_equal(before, after)


def test_inputs_have_no_unit(series):
    values, counts, periods = series
    features, other = make_features(*series), make_features(3 * values - 2, counts, periods)
    known = features.seen >= 5
    np.testing.assert_allclose(other.inputs[known], features.inputs[known], rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(other.candidates[known], features.candidates[known], rtol=1e-3, atol=2e-4)


def test_candidates_against_definitions(series):
    """After the last patch, of a day of 4 values and a week of 12."""
    values = series[0]
    features = make_features(*series)
    x = values[0].astype(np.float64)
    loc, scale = x[-1], np.abs(x[4:] - x[:-4]).mean()
    assert scale > MIN_SCALE * x.std()
    day, week = np.resize(x[-4:], HEAD), np.resize(x[-12:], HEAD)
    m0, m1, m2 = (x[len(x) - 4 * (k + 1) : len(x) - 4 * k].mean() for k in range(3))
    cycles = -(-np.arange(1, HEAD + 1) // 4)
    slope = (x[-48:].mean() - x[:48].mean()) / 48
    three = sum(np.resize(x[len(x) - 4 * (k + 1) : len(x) - 4 * k], HEAD) - m for k, m in enumerate((m0, m1, m2))) / 3
    expected = [
        np.full(HEAD, loc),
        np.full(HEAD, m0),
        day,
        day + m0 - m1,
        day + slope * 4 * cycles,
        three + m0,
        week,
        week + m0 - x[-16:-12].mean(),
    ]
    np.testing.assert_allclose(features.location[0, -1], loc, rtol=1e-6)
    np.testing.assert_allclose(features.scale[0, -1], scale, rtol=1e-5)
    np.testing.assert_allclose(features.candidates[0, -1], (np.array(expected) - loc) / scale, rtol=1e-4, atol=1e-4)


def test_constant_series_have_finite_features():
    features = make_features(np.ones((2, 32), np.float32), np.array([32, 1]), np.array([[1, 1], [12, 84]]))
    assert all(np.isfinite(array).all() for array in features)
    assert not features.candidates[:, -1].any()
