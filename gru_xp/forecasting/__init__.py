"""Time series: reading them, cutting them into windows, and the Forecaster that learns from those."""

from gru_xp.forecasting.forecaster import Forecaster

__all__ = ["Forecaster"]
