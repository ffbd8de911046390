import json
import math

import numpy as np
import pytest

from gru_xp.forecasting.metrics import MEASURES, accuracy, accuracy_by_step, skill


@pytest.fixture
def forecasts(rng):
    """y_true with two values missing, and two forecasts, all (30, 4)."""
    y_true = 100.0 + np.cumsum(rng.standard_normal((30, 4)), axis=0)
    near, far = (y_true + size * rng.standard_normal((30, 4)) for size in (0.3, 2.0))
    y_true[3, 1] = y_true[17, 2] = np.nan
    return y_true, {"near": near, "far": far}


def test_measures_one_by_one(forecasts, rng):
    """utilsforecast has the formulas; this is whether it is given what is meant, missing values and all."""
    y_true, named = forecasts
    train = np.cumsum(rng.standard_normal(50))
    train[20] = np.nan
    measured = accuracy(y_true, named, train, 7)
    assert list(measured) == list(named)
    changes = [train[row] - train[row - 7] for row in range(7, 50) if row not in (20, 27)]
    for name, y_pred in named.items():
        pairs = [(t, p) for t, p in zip(y_true.ravel(), y_pred.ravel(), strict=True) if not math.isnan(t)]
        errors = [p - t for t, p in pairs]
        mae, rmse = math.fsum(map(abs, errors)) / 118, math.sqrt(math.fsum(e * e for e in errors) / 118)
        expected = {
            "mae": mae,
            "rmse": rmse,
            "mase": mae / (math.fsum(map(abs, changes)) / len(changes)),
            "rmsse": rmse / math.sqrt(math.fsum(c * c for c in changes) / len(changes)),
            "smape": math.fsum(abs(p - t) / (abs(p) + abs(t)) for t, p in pairs) / 118,
        }
        assert list(measured[name]) == list(MEASURES)
        assert measured[name] == pytest.approx(expected, rel=1e-12)


def test_measures_by_step(forecasts):
    y_true, named = forecasts
    y_true[:, 3] = np.nan
    measured = accuracy_by_step(y_true, named)
    for name, y_pred in named.items():
        errors = np.abs(y_pred - y_true)
        mae, rmse = measured[name]["mae"], measured[name]["rmse"]
        assert mae[3] is rmse[3] is None
        np.testing.assert_allclose(mae[:3], np.nanmean(errors[:, :3], axis=0), rtol=1e-12)
        np.testing.assert_allclose(rmse[:3], np.sqrt(np.nanmean(errors[:, :3] ** 2, axis=0)), rtol=1e-12)


def test_numbers_that_do_not_exist_are_none(forecasts):
    y_true, named = forecasts
    train = np.tile([1.0, 2.0, 4.0], 5)
    assert accuracy(y_true, named, train, 2)["near"]["mase"] > 0
    for season in (3, 15):  # nothing changes from season to season; there is less than one
        measured = accuracy(y_true, named, train, season)["near"]
        assert measured["mase"] is measured["rmsse"] is None
        assert measured["mae"] > 0
        assert json.loads(json.dumps(measured)) == measured
    measured = accuracy(y_true * 1e200, {"near": named["near"]}, train, 1)["near"]
    assert measured["rmse"] is None
    assert measured["mae"] > 1e200


def test_skill():
    assert skill(1.0, 4.0) == 0.75
    assert skill(3.0, 2.0) == -0.5
    assert skill(0.0, 2.0) == 1.0
    assert skill(1.0, 0.0) is skill(None, 1.0) is skill(1.0, None) is None
