"""Forecasts that any model must be held against."""

from gru_xp.forecasting.windows import Floats


def naive_forecast(windows: Floats) -> Floats:
    """Tomorrow is today: the target's last value in each window ``(B, T, F)``, shape ``(B,)``."""
    return windows[:, -1, 0]
