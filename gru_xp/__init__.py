"""A GRU written by hand, forward and backward, once, on the Array API standard.

The public names are imported when they are first used, so that ``import gru_xp`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gru_xp.devices import Device, resolve_device, to_device, to_host
    from gru_xp.errors import CheckpointError, DataError, DeviceError, GruXpError, ShapeError
    from gru_xp.forecasting import Forecaster
    from gru_xp.nn import (
        GRUInference,
        GRUParams,
        LinearParams,
        gradcheck,
        gru_backward,
        gru_cell_backward,
        gru_cell_forward,
        gru_forward,
        init_linear_params,
        init_params,
        linear_backward,
        linear_forward,
        mse_loss,
    )

_HOMES = {
    "gru_xp.devices": ("Device", "resolve_device", "to_device", "to_host"),
    "gru_xp.errors": ("CheckpointError", "DataError", "DeviceError", "GruXpError", "ShapeError"),
    "gru_xp.forecasting": ("Forecaster",),
}

__all__ = [
    "CheckpointError",
    "DataError",
    "Device",
    "DeviceError",
    "Forecaster",
    "GRUInference",
    "GRUParams",
    "GruXpError",
    "LinearParams",
    "ShapeError",
    "gradcheck",
    "gru_backward",
    "gru_cell_backward",
    "gru_cell_forward",
    "gru_forward",
    "init_linear_params",
    "init_params",
    "linear_backward",
    "linear_forward",
    "mse_loss",
    "resolve_device",
    "to_device",
    "to_host",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("gru-xp")
    if name not in __all__:
        raise AttributeError(f"module 'gru_xp' has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "gru_xp.nn")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
