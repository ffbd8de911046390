import numpy as np

from gru_xp.forecasting.baselines import baselines, naive_forecast
from gru_xp.forecasting.windows import make_windows


def test_tomorrow_is_today(rng):
    values = rng.standard_normal((20, 3))
    windows, targets = make_windows(values, 6)
    naive = naive_forecast(windows)
    assert naive.shape == targets.shape
    for row, forecast in enumerate(naive.tolist(), start=6):
        assert forecast == values[row - 1, 0]
    np.testing.assert_array_equal(naive[1:], targets[:-1])


def test_forecasts_that_need_no_training(rng):
    values = rng.standard_normal(30)
    origins, horizon = np.array([9, 17, 30]), 8
    named = baselines(values[:20], [5, 7])
    forecasts = {name: baseline(values, origins, horizon) for name, baseline in named.items()}
    assert list(forecasts) == ["last value", "mean", "drift", "seasonal naive (5)", "seasonal naive (7)"]
    for row, origin in enumerate(origins):
        history = values[:origin]
        expected = {
            "last value": np.full(horizon, history[-1]),
            "mean": np.full(horizon, values[:20].mean()),
            "drift": np.polyval(np.polyfit([0, origin - 1], history[[0, -1]], 1), np.arange(origin, origin + horizon)),
            "seasonal naive (5)": np.resize(history[-5:], horizon),
            "seasonal naive (7)": np.resize(history[-7:], horizon),
        }
        for name, forecast in forecasts.items():
            np.testing.assert_allclose(forecast[row], expected[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_no_season_is_longer_than_the_training_rows(rng):
    values = rng.standard_normal(30)
    assert list(baselines(values, [7])) == ["last value", "mean", "drift", "seasonal naive"]
    assert list(baselines(values[:6], [7])) == list(baselines(values[:6])) == ["last value", "mean", "drift"]


def test_a_row_without_a_season_before_it_gets_the_last_value(rng):
    values = rng.standard_normal(30)
    (forecast,) = baselines(values, [7])["seasonal naive"](values, np.array([4]), 9)
    np.testing.assert_array_equal(forecast, np.r_[[values[3]] * 3, values[:4], [values[3]] * 2])
    assert baselines(values)["drift"](values, np.array([1]), 2).tolist() == [[values[0]] * 2]
