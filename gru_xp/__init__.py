"""A GRU written by hand, forward and backward, once, on the Array API standard.

The public names are imported when they are first used, so that ``import gru_xp`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gru_xp.devices import Device, resolve_device, to_device, to_host
    from gru_xp.errors import (
        ArgumentError,
        CheckpointError,
        DataError,
        DataWarning,
        DeviceError,
        GruXpError,
        MemoryLimitError,
        NotFittedError,
        ShapeError,
    )
    from gru_xp.forecasting import Forecaster
    from gru_xp.interop import (
        from_keras,
        from_keras_layers,
        from_onnx,
        from_torch,
        gru_from_onnx,
        gru_to_onnx,
        load_onnx,
        load_torch,
        save_onnx,
        save_torch,
        to_keras,
        to_onnx,
        to_torch,
    )
    from gru_xp.io.read import read_panel, read_series
    from gru_xp.io.series import TimeSeries
    from gru_xp.nn import (
        GRUInference,
        GRUParams,
        LinearParams,
        dropout_mask,
        gradcheck,
        gru_backward,
        gru_cell_backward,
        gru_cell_forward,
        gru_forward,
        gru_stack_backward,
        gru_stack_forward,
        gru_stack_step,
        gru_step,
        init_gru_stack_params,
        init_linear_params,
        init_params,
        linear_backward,
        linear_forward,
        mse_loss,
        softmax_cross_entropy,
    )
    from gru_xp.nn.network import NetworkParams, init_network_params
    from gru_xp.training import TrainingConfig, train_on_chunks

_HOMES = {
    "gru_xp.devices": ("Device", "resolve_device", "to_device", "to_host"),
    "gru_xp.errors": (
        "ArgumentError",
        "CheckpointError",
        "DataError",
        "DataWarning",
        "DeviceError",
        "GruXpError",
        "MemoryLimitError",
        "NotFittedError",
        "ShapeError",
    ),
    "gru_xp.forecasting": ("Forecaster",),
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
    "gru_xp.io.read": ("read_panel", "read_series"),
    "gru_xp.io.series": ("TimeSeries",),
    "gru_xp.nn.network": ("NetworkParams", "init_network_params"),
    "gru_xp.training": ("TrainingConfig", "train_on_chunks"),
}

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "DataError",
    "DataWarning",
    "Device",
    "DeviceError",
    "Forecaster",
    "GRUInference",
    "GRUParams",
    "GruXpError",
    "LinearParams",
    "MemoryLimitError",
    "NetworkParams",
    "NotFittedError",
    "ShapeError",
    "TimeSeries",
    "TrainingConfig",
    "dropout_mask",
    "from_keras",
    "from_keras_layers",
    "from_onnx",
    "from_torch",
    "gradcheck",
    "gru_backward",
    "gru_cell_backward",
    "gru_cell_forward",
    "gru_forward",
    "gru_from_onnx",
    "gru_stack_backward",
    "gru_stack_forward",
    "gru_stack_step",
    "gru_step",
    "gru_to_onnx",
    "init_gru_stack_params",
    "init_linear_params",
    "init_network_params",
    "init_params",
    "linear_backward",
    "linear_forward",
    "load_onnx",
    "load_torch",
    "mse_loss",
    "read_panel",
    "read_series",
    "resolve_device",
    "save_onnx",
    "save_torch",
    "softmax_cross_entropy",
    "to_device",
    "to_host",
    "to_keras",
    "to_onnx",
    "to_torch",
    "train_on_chunks",
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
