"""Forecasting: windows of a series, their scaling, the Forecaster that learns from them, and its checkpoints."""

from gru_xp.forecasting.forecaster import Forecaster

__all__ = ["Forecaster"]
