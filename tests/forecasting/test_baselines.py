import numpy as np

from gru_xp.forecasting.baselines import naive_forecast
from gru_xp.forecasting.windows import make_windows


def test_tomorrow_is_today(rng):
    values = rng.standard_normal((20, 3))
    windows, targets = make_windows(values, 6)
    naive = naive_forecast(windows)
    assert naive.shape == targets.shape
    for row, forecast in enumerate(naive.tolist(), start=6):
        assert forecast == values[row - 1, 0]
    np.testing.assert_array_equal(naive[1:], targets[:-1])
