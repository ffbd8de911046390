"""Forecasting: windows of a series, their scaling, the Forecaster that learns from them, and its checkpoints."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gru_xp.forecasting.forecaster import Forecaster

__all__ = ["Forecaster"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # when it is first used, as it imports the libraries for arrays
        from gru_xp.forecasting.forecaster import Forecaster

        globals()[name] = Forecaster
        return Forecaster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
