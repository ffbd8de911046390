import json
import math

import numpy as np
import pytest

from gru_xp.forecasting.metrics import compare_with_naive, mae, mse, rmse, skill


@pytest.fixture
def forecasts(rng):
    """y_true, y_pred and y_naive."""
    y_true = 100.0 + np.cumsum(rng.standard_normal(50))
    return y_true, y_true + 0.3 * rng.standard_normal(50), y_true + 2.0 * rng.standard_normal(50)


def test_measures_of_error_one_by_one(forecasts):
    y_true, y_pred, _ = forecasts
    errors = [float(a - b) for a, b in zip(y_true, y_pred, strict=True)]
    assert mse(y_true, y_pred) == pytest.approx(math.fsum(e * e for e in errors) / 50, rel=1e-12)
    assert rmse(y_true, y_pred) == pytest.approx(math.dist(y_true, y_pred) / math.sqrt(50), rel=1e-12)
    assert mae(y_true, y_pred) == pytest.approx(math.fsum(map(abs, errors)) / 50, rel=1e-12)


def test_measures_by_hand():
    y_true, y_pred = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 4.0, 2.0, 1.0])
    assert (mse(y_true, y_pred), rmse(y_true, y_pred), mae(y_true, y_pred)) == (3.5, math.sqrt(3.5), 1.5)
    assert all(type(measure(y_true, y_pred)) is float for measure in (mse, rmse, mae))


def test_skill(forecasts):
    y_true, y_pred, y_naive = forecasts
    expected = 1.0 - np.linalg.norm(y_true - y_pred) / np.linalg.norm(y_true - y_naive)
    assert 0.5 < skill(y_true, y_pred, y_naive) < 1.0
    assert skill(y_true, y_pred, y_naive) == pytest.approx(expected, rel=1e-12)
    assert skill(y_true, y_naive, y_pred) < 0.0
    assert skill(y_true, y_naive, y_naive) == 0.0
    assert skill(y_true, y_true, y_naive) == 1.0


def test_there_is_no_skill_beside_a_perfect_naive_forecast(forecasts):
    y_true, y_pred, _ = forecasts
    assert skill(y_true, y_pred, y_true) is None
    assert compare_with_naive(y_true, y_pred, y_true, 1.0)["skill"] is None


def test_comparison(forecasts):
    y_true, y_pred, y_naive = forecasts
    result = compare_with_naive(y_true, y_pred, y_naive, 2.5)
    assert result["windows"] == 50
    assert result["skill"] == skill(y_true, y_pred, y_naive)
    for name, y in (("model", y_pred), ("naive", y_naive)):
        measures = result[name]
        assert measures["mse"] == mse(y_true, y)
        assert measures["rmse"] == rmse(y_true, y)
        assert measures["mae"] == mae(y_true, y)
        for measure in (mse, rmse, mae):  # of the series in units of its standard deviation
            expected = measure((y_true - 100.0) / 2.5, (y - 100.0) / 2.5)
            assert measures["standardised"][measure.__name__] == pytest.approx(expected, rel=1e-10)
    assert json.loads(json.dumps(result)) == result
