"""List the devices of this machine and the versions of the array libraries."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from gru_xp.devices.device import Device, cupy_version, resolve_device
from gru_xp.devices.fast_paths import PATHS
from gru_xp.errors import DeviceError
from gru_xp.nn.scan import plain_wanted


def inventory() -> dict[str, Any]:
    """Devices and versions, as JSON can hold them.

    Returns
    -------
    dict
        ``auto``
            The device that ``auto`` means.
        ``cpu``
            ``name``, ``threads``, ``numpy`` and ``blas``.
        ``cuda``
            ``problem``, why there is no device, or None; ``cupy``, its version or None; ``devices``; where there are
            any, the versions of ``runtime`` and ``driver``. Each device has ``device``, ``name``, ``memory_gib``,
            ``compute_capability`` and ``check``.
        ``check``
            The self-check of a device, which the first call of a process makes: ``problem``, why the device cannot be
            used, or None; ``paths``, by the keys of `gru_xp.devices.fast_paths.PATHS`, each with ``name``, ``problem``
            (why it is off, or None), ``seconds`` and ``compile_seconds``; their sums ``seconds`` and
            ``compile_seconds``. None if ``GRU_XP_PLAIN`` switches all fast paths off.
    """
    cpu = resolve_device("cpu")
    auto = resolve_device("auto")
    problem = None if auto.is_cuda else auto.reason
    return {
        "auto": auto.name,
        "cpu": {
            "name": _cpu_name(),
            "threads": cpu.threads,
            "numpy": np.__version__,
            "blas": [
                f"{library['internal_api']} {library.get('version') or 'of unknown version'}"
                for library in threadpool_info()
                if library["user_api"] == "blas"
            ],
        },
        "cuda": {"problem": problem, "cupy": cupy_version(), "devices": [], **({} if problem else _cuda())},
    }


def versions(device: Device) -> dict[str, str]:
    """Versions of Python, of this package and of the array libraries that compute on `device`."""
    packages = {name: version(name) for name in ("gru-xp", "numpy", "array-api-compat")}
    if device.is_cuda:
        import cupy

        packages["cupy"] = cupy.__version__
    return {"python": platform.python_version(), **packages}


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cuda() -> dict[str, Any]:
    import cupy

    runtime = cupy.cuda.runtime
    devices = []
    for index in range(runtime.getDeviceCount()):
        properties = runtime.getDeviceProperties(index)
        devices.append(
            {
                "device": f"cuda:{index}",
                "name": properties["name"].decode(),
                "memory_gib": properties["totalGlobalMem"] / 2**30,
                "compute_capability": f"{properties['major']}.{properties['minor']}",
                "check": None if plain_wanted() else _self_check(index),
            }
        )
    return {
        "devices": devices,
        "runtime": _cuda_version(runtime.runtimeGetVersion()),
        "driver": _cuda_version(runtime.driverGetVersion()),
    }


def _self_check(index: int) -> dict[str, Any]:
    from gru_xp.devices.self_check import verdicts_of

    try:
        problem, verdicts = None, verdicts_of(index)
    except DeviceError as error:
        problem, verdicts = str(error), {}
    return {
        "problem": problem,
        "paths": {path: {"name": PATHS[path], **verdict._asdict()} for path, verdict in verdicts.items()},
        **{name: sum(getattr(v, name) for v in verdicts.values()) for name in ("seconds", "compile_seconds")},
    }


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
