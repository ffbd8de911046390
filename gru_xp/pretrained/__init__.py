"""A pretrained GRU that forecasts series it has never seen, without training on them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gru_xp.pretrained.forecaster import ZeroShotForecaster

__all__ = ["ZeroShotForecaster"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # when it is first used, as it imports the libraries for arrays
        from gru_xp.pretrained.forecaster import ZeroShotForecaster

        globals()[name] = ZeroShotForecaster
        return ZeroShotForecaster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
