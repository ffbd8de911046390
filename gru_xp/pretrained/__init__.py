"""A pretrained GRU that forecasts series it has never seen, without training on them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gru_xp.pretrained.choosing import AutoForecaster
    from gru_xp.pretrained.forecaster import ZeroShotForecaster

__all__ = ["AutoForecaster", "ZeroShotForecaster"]

_HOMES = {"AutoForecaster": "choosing", "ZeroShotForecaster": "forecaster"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:  # when it is first used, as it imports the libraries for arrays
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
