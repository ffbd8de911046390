"""Time series: reading them (``reading/``), windows of them, the Forecaster that learns from those, its checkpoints."""

from gru_xp.forecasting.forecaster import Forecaster

__all__ = ["Forecaster"]
