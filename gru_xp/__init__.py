"""A GRU written by hand, forward and backward, once, on the Array API standard.

The public names are imported when they are first used, so that ``import gru_xp`` costs nothing. Names for fewer users
are in `gru_xp.nn`, `gru_xp.interop`, `gru_xp.training`, `gru_xp.io`, `gru_xp.devices` and `gru_xp.errors`.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gru_xp.devices import resolve_device
    from gru_xp.errors import GruXpError
    from gru_xp.forecasting import Forecaster
    from gru_xp.io.read import read_series
    from gru_xp.nn import (
        GRUInference,
        GRUParams,
        gru_backward,
        gru_cell_backward,
        gru_cell_forward,
        gru_forward,
        gru_stack_backward,
        gru_stack_forward,
        gru_step,
        init_gru_params,
    )
    from gru_xp.nn.gradcheck import gradcheck
    from gru_xp.pretrained import AutoForecaster, ZeroShotForecaster

__all__ = [
    "AutoForecaster",
    "Forecaster",
    "GRUInference",
    "GRUParams",
    "GruXpError",
    "ZeroShotForecaster",
    "gradcheck",
    "gru_backward",
    "gru_cell_backward",
    "gru_cell_forward",
    "gru_forward",
    "gru_stack_backward",
    "gru_stack_forward",
    "gru_step",
    "init_gru_params",
    "read_series",
    "resolve_device",
]

_HOMES = {
    "AutoForecaster": "gru_xp.pretrained",
    "Forecaster": "gru_xp.forecasting",
    "GruXpError": "gru_xp.errors",
    "ZeroShotForecaster": "gru_xp.pretrained",
    "read_series": "gru_xp.io.read",
    "resolve_device": "gru_xp.devices",
}
"""Where public names are, if not in `gru_xp.nn`."""

SCANS = {
    "numpy": "gru_xp.devices.numpy_ops",
    "cupy": "gru_xp.devices.cupy_ops",
    "jax.numpy": "gru_xp.devices.jax_scan",
}
"""For arrays of which namespace which module makes the fastest scan, by its `new_ops`.

`gru_xp.nn`, which knows no devices, looks here, and imports the module when it has the first such array.
"""

PLAIN_SCANS = {"cupy": "gru_xp.devices.cupy_ops"}
"""Which module makes the plain scan, by its `plain_ops`, where that has to know the device."""

PLOTS = "gru_xp.reporting.figures"
"""Which module draws a forecaster and a backtest, by its `plot_forecaster` and `plot_backtest`.

`gru_xp.forecasting`, which knows no plots, looks here, and imports the module when somebody asks for one.
"""

_MOVED = {
    "gru_xp.devices": ("Device", "to_device", "to_host"),
    "gru_xp.errors": ("CheckpointError", "DataError", "DeviceError", "MemoryLimitError", "ShapeError"),
    "gru_xp.interop": (
        "from_keras",
        "from_keras_layers",
        "from_onnx",
        "from_torch",
        "gru_from_onnx",
        "gru_to_onnx",
        "load_onnx",
        "load_torch",
        "save_onnx",
        "save_torch",
        "to_keras",
        "to_onnx",
        "to_torch",
    ),
    "gru_xp.nn": (
        "LinearParams",
        "NetworkParams",
        "dropout_mask",
        "gru_stack_step",
        "init_gru_stack_params",
        "init_linear_params",
        "init_network_params",
        "linear_backward",
        "linear_forward",
        "mse_loss",
        "softmax_cross_entropy",
    ),
    "gru_xp.training": ("TrainingConfig", "train_on_chunks"),
}
"""Names that were here in 0.1, and where they are now; they work here until 0.3."""

_RENAMED = {"init_params": "init_gru_params"}
"""The same of a name that is still here."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("gru-xp")
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "gru_xp.nn")), name)
    home = "gru_xp" if name in _RENAMED else next((home for home, names in _MOVED.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'gru_xp' has no attribute {name!r}")
    new_name = _RENAMED.get(name, name)
    message = f"gru_xp.{name} works until gru-xp 0.3; use {home}.{new_name}"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return getattr(import_module(home), new_name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
