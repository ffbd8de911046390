"""List the devices of this machine and the versions of the array libraries."""

import platform
import warnings
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from gru_xp.devices.device import (
    Device,
    cuda_number,
    cuda_problem,
    cuda_version,
    cupy_version,
    resolve_device,
    unusable_after_check,
)
from gru_xp.devices.fast_paths import PATHS, Verdict
from gru_xp.nn.scan import plain_wanted


def inventory(*, check: bool = True) -> dict[str, Any]:
    """Devices and versions, as JSON can hold them.

    Parameters
    ----------
    check
        Whether to make the self-check of each device, which takes seconds; without, ``auto`` and every ``check`` are
        None.

    Returns
    -------
    dict
        ``auto``
            The device that ``auto`` means.
        ``cpu``
            ``name``, ``threads``, ``numpy`` and ``blas``.
        ``cuda``
            ``problem``, why there is no device, or None; ``cupy``, its version or None; ``devices``; where there are
            any, the versions of ``runtime`` and ``driver``. Each device has ``device``, ``check``, and ``name``,
            ``memory_gib`` and ``compute_capability``, which are None if CUDA does not tell them.
        ``check``
            The self-check of a device, which the first call of a process makes: ``problem``, why the device cannot be
            used, or None; ``paths``, by the keys of `gru_xp.devices.fast_paths.PATHS`, each with ``name``, ``problem``
            (why it is off, or None), ``is_checked`` (false if there was no memory for cuBLAS), ``seconds`` and
            ``compile_seconds``; their sums ``seconds`` and ``compile_seconds``, or None if the device cannot be used.
            None if ``GRU_XP_PLAIN`` switches all fast paths off, and the device works.
    """
    cpu = resolve_device("cpu")
    devices = _cuda_devices()  # before a self-check can make CUDA refuse to tell
    auto = None
    if check:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the result says it
            auto = resolve_device("auto")
    problem, cuda = None, {}
    if not devices:
        problem = cuda_problem() if auto is None else None if auto.is_cuda else auto.reason
    if problem is None:
        cuda = _cuda(devices, check)
    return {
        "auto": None if auto is None else auto.name,
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
        "cuda": {"problem": problem, "cupy": cupy_version(), "devices": [], **cuda},
    }


def versions(device: Device) -> dict[str, str]:
    """Versions of Python, of this package and of the array libraries that compute on `device`."""
    packages = {name: _installed_version(name) for name in ("gru-xp", "numpy", "array-api-compat")}
    if device.is_cuda:
        import cupy

        packages["cupy"] = cupy.__version__
    return {"python": platform.python_version(), **packages}


_installed_version = cache(version)
"""Cached, as reading a version takes milliseconds, and every checkpoint asks for it."""


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cuda_devices() -> list[dict[str, Any]]:
    """What CUDA says of each device; an empty list if there is no device, or no CuPy."""
    if find_spec("cupy") is None:
        return []
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except Exception:  # which `resolve_device` reports
        return []
    return [{"device": f"cuda:{index}", **_properties(index)} for index in range(count)]


def _properties(index: int) -> dict[str, Any]:
    import cupy

    try:
        properties = cupy.cuda.runtime.getDeviceProperties(index)
    except Exception:  # of CUDA; the self-check will say what is wrong
        return {"name": None, "memory_gib": None, "compute_capability": None}
    return {
        "name": properties["name"].decode(),
        "memory_gib": properties["totalGlobalMem"] / 2**30,
        "compute_capability": f"{properties['major']}.{properties['minor']}",
    }


def _cuda(devices: list[dict[str, Any]], check: bool) -> dict[str, Any]:
    return {
        "devices": [device | {"check": _self_check(index) if check else None} for index, device in enumerate(devices)],
        **{name: _version(f"{name}GetVersion") for name in ("runtime", "driver")},
    }


def _version(function: str) -> str | None:
    number = cuda_number(function)
    return None if number is None else cuda_version(number)


def _self_check(index: int) -> dict[str, Any] | None:
    from gru_xp.devices.self_check import verdicts_of

    verdicts: dict[str, Verdict] = {}
    if plain_wanted():
        problem = cuda_problem(index)
        if problem is None:
            return None
    else:
        problem = unusable_after_check(index)
        if problem is None:
            verdicts = verdicts_of(index)
    return {
        "problem": problem,
        "paths": {path: {"name": PATHS[path], **verdict._asdict()} for path, verdict in verdicts.items()},
        **{
            name: sum(getattr(v, name) for v in verdicts.values()) if verdicts else None
            for name in ("seconds", "compile_seconds")
        },
    }
