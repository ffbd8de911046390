"""Which ops are the fastest for the arrays of a namespace.

The maths asks here, and the devices, which it does not know, are imported when it does.
"""

import threading
from importlib import import_module
from typing import Any

_MODULES = {
    "numpy": "gru_xp.devices.numpy_ops",
    "cupy": "gru_xp.devices.cupy_ops",
    "jax.numpy": "gru_xp.devices.jax_scan",
}

_thread = threading.local()


def fastest_ops(namespace_name: str, *, new: bool = False) -> Any:
    """The `gru_xp.nn.scan.Scan` for arrays of a namespace, such as ``"numpy"``; None if nothing beats the plain one.

    They are those of the thread that asks, or `new` ones that nobody else has.
    """
    if namespace_name not in _MODULES:
        return None
    if new:
        return import_module(_MODULES[namespace_name]).new_ops()
    its_ops = vars(_thread)
    if namespace_name not in its_ops:
        its_ops[namespace_name] = fastest_ops(namespace_name, new=True)
    return its_ops[namespace_name]
