"""Where arrays live. The only room that may name CuPy or PyTorch."""

from gru_xp.devices.device import (
    Device,
    check_on_device,
    check_tf32,
    cuda_problem,
    device_for_caller,
    is_out_of_memory,
    resolve_device,
    to_device,
    to_host,
)

__all__ = [
    "Device",
    "check_on_device",
    "check_tf32",
    "cuda_problem",
    "device_for_caller",
    "is_out_of_memory",
    "resolve_device",
    "to_device",
    "to_host",
]
