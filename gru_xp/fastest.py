"""Which ops are the fastest for the arrays of a namespace.

The maths asks here, and the devices, which it does not know, are imported when it does.
"""

from importlib import import_module
from typing import Any

_MAKERS = {
    "numpy": ("gru_xp.devices.numpy_ops", "ops_of_thread"),
    "cupy": ("gru_xp.devices.cupy_ops", "ops_of_thread"),
}


def fastest_ops(namespace_name: str) -> Any:
    """The `gru_xp.nn.ops.Ops` for arrays of a namespace, such as ``"numpy"``; None if nothing beats the plain ones."""
    if namespace_name not in _MAKERS:
        return None
    module, maker = _MAKERS[namespace_name]
    return getattr(import_module(module), maker)()
