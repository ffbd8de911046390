"""Where arrays live: the CPU by NumPy, or a CUDA device by CuPy, and why it is that one."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import array_api_compat
import numpy as np

from gru_xp.devices.cupy_ops import CupyOps, plain_ops
from gru_xp.devices.fast_paths import fallback_allowed, is_of_cupy
from gru_xp.devices.host_memory import free_host_memory
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PLAIN_OPS, Ops
from gru_xp.devices.threads import MOST_THREADS, default_threads
from gru_xp.errors import (
    ArgumentError,
    DeviceError,
    DeviceNameError,
    MixedDevicesError,
    ShapeError,
    first_line,
    printable,
)
from gru_xp.nn.checks import check_choice, check_flag, device_name, namespace_name, shown, whole_number
from gru_xp.nn.scan import Array, Namespace, plain_wanted

DEVICE_PATTERN = re.compile(r"auto|cpu|cuda(:\d+)?")
_LIBRARY_PATTERN = re.compile(
    r"(nvrtc|cublas|cudart)(?!_|error)|NVRTC_ERROR_BUILTIN|headers?\b|cannot open source file|shared object"
    r"|dynamic.*lib|DLL|\.so\b|CUDA_PATH",
    re.I,
)
"""Of messages about a part of the CUDA toolkit that is not there."""
_DRIVER_PATTERN = re.compile(r"InsufficientDriver|UnsupportedPtx|UNSUPPORTED_PTX|unsupported toolchain")
"""Of messages about a driver that is not there, or older than the CUDA version of CuPy."""
MIN_TF32_CAPABILITY = 80
"""Compute capability from which GPUs have TF32, without its point."""
FREE_MEMORY_VARIABLE = "GRU_XP_FREE_MEMORY"
"""Bytes of memory to take for free, where the system says something else."""


@dataclass(frozen=True)
class Device:
    """A device that works.

    Attributes
    ----------
    name
        ``"cpu"`` or ``"cuda:N"``.
    requested
        The name that was asked for.
    reason
        Why it is this device.
    fallback
        Whether it stands in for a CUDA device that was asked for, or that ``"auto"`` found, and that does not work.
    xp
        The Array API namespace of its arrays.
    threads
        How many threads of a CPU to compute with; 1 for a CUDA device.
    tf32
        Whether its matrix products of float32 round their factors to TF32, which has 10 bits after the point.
    """

    name: str
    requested: str
    reason: str
    fallback: bool
    xp: Namespace
    threads: int = 1
    tf32: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle: all but the namespace, which is a module."""
        return _unpickled, (self.name, self.requested, self.reason, self.fallback, self.threads, self.tf32)

    @property
    def is_cuda(self) -> bool:
        """Whether it is a CUDA device."""
        return self.name.startswith("cuda")

    def ops(self) -> Ops:
        """How this device allocates, multiplies and runs pointwise expressions, for one thread of the caller."""
        if plain_wanted():
            return plain_ops(tf32=self.tf32) if self.is_cuda else PLAIN_OPS
        return CupyOps(tf32=self.tf32) if self.is_cuda else NumpyOps(threads=self.threads)

    def use(self) -> AbstractContextManager[Any]:
        """Context in which new arrays are made on this device, and in which overflow is left to its results to show.

        In it, errors of CUDA and its libraries, but for a lack of memory, become a DeviceError that says what to do.
        """
        return _using_cuda(self.name) if self.is_cuda else np.errstate(over="ignore", invalid="ignore")

    def free_memory(self) -> int:
        """Bytes that this process can still get on it.

        On a CUDA device, that includes the free memory of the pool that CuPy allocates from at the moment, but not that
        of an allocator of another library, such as RMM.

        Raises
        ------
        DeviceError
            The environment variable ``GRU_XP_FREE_MEMORY`` is set to something else than a whole number.
        """
        if (wanted := _wanted_memory()) is not None:
            return wanted
        if not self.is_cuda:
            return free_host_memory(self.threads)
        import cupy

        with self.use():
            free = cupy.cuda.runtime.memGetInfo()[0]
            pool: Any = getattr(cupy.cuda.get_allocator(), "__self__", None)
            try:
                limit, used = pool.get_limit(), pool.used_bytes()  # a limit of 0 for none
                free += pool.free_bytes()
            except (AttributeError, NotImplementedError, RuntimeError):  # no pool of CuPy, which alone tells
                return int(free)
            return int(min(free, limit - used) if limit else free)


def resolve_device(
    name: str = "auto", *, fallback: bool | None = None, threads: int | None = None, tf32: bool = False
) -> Device:
    """Find the device to compute on.

    Parameters
    ----------
    name
        ``"auto"`` (device 0 of CUDA if it passes its self-check, else the CPU, with a RuntimeWarning if the self-check
        ends with a device that cannot be used), ``"cpu"``, ``"cuda"`` (device 0) or ``"cuda:N"``.
    fallback
        Whether the CPU stands in, with a RuntimeWarning, for a CUDA device that does not work. None: unless the
        environment variable ``GRU_XP_NO_FALLBACK`` is set to something else than ``0``.
    threads
        How many threads of a CPU to compute with. None: ``OMP_NUM_THREADS`` if that is set, else all cores.
    tf32
        Whether matrix products of float32 round their factors to TF32, for speed, on a GPU of compute capability 8.0 or
        higher. It is off unless asked for here; CuPy's ``CUPY_TF32`` does not matter. On a device without TF32,
        products are exact, with a RuntimeWarning, or an error is raised, as `fallback` says.

    Returns
    -------
    Device

    Raises
    ------
    DeviceError
        `name` is none of the above, or the device does not work and nothing may stand in for it.
    ArgumentError
        `threads` or `tf32` is out of range, or `tf32` is True for the CPU.
    """
    return device_for_caller(name, fallback=fallback, threads=threads, tf32=tf32)


def device_for_caller(
    name: str = "auto", *, fallback: bool | None = None, threads: int | None = None, tf32: bool = False
) -> Device:
    """As `resolve_device`, but for use inside another function: a warning names the line that called that function."""
    if not isinstance(name, str) or not DEVICE_PATTERN.fullmatch(name):
        raise DeviceNameError(f"device is {shown(name)}; it must be auto, cpu, cuda or cuda:N, such as cuda:0")
    threads = default_threads() if threads is None else whole_number("threads", threads, 1, MOST_THREADS)
    if check_flag("tf32", tf32) and name == "cpu":
        raise ArgumentError("tf32 is True and the device is cpu, which has no TF32; leave tf32 out, or use device cuda")
    if fallback is None:
        fallback = fallback_allowed()

    def cpu(reason: str, fallback: bool = False) -> Device:
        return Device("cpu", name, reason, fallback, array_api_compat.array_namespace(np.empty(0)), threads)

    if name == "cpu":
        return cpu("as asked")
    index = 0 if name == "auto" else _cuda_index(name)
    problem = cuda_problem(index)
    unusable = unusable_after_check(index, advise=False) if name == "auto" and problem is None else None
    problem = problem or unusable
    if problem is not None and name != "auto" and not fallback:
        raise DeviceError(f"device {name} cannot be used: {problem}; use device cpu, or allow the fallback")
    without_tf32 = tf32 and tf32_problem("cpu" if problem else f"cuda:{index}")
    if without_tf32 and not fallback:
        raise DeviceError(f"TF32 cannot be used: {without_tf32}; leave tf32 out, or allow the fallback")
    if without_tf32:
        warnings.warn(f"TF32 has no effect: {without_tf32}", RuntimeWarning, stacklevel=3)
    if problem is None:
        from array_api_compat import cupy as cupy_namespace

        reason = "CuPy finds a working device" if name == "auto" else "as asked"
        return Device(f"cuda:{index}", name, reason, False, cupy_namespace, tf32=bool(tf32 and not without_tf32))
    if name == "auto" and unusable is None:
        return cpu(problem)
    which = f"cuda:{index}" if name == "auto" else name
    warnings.warn(f"device {which} cannot be used: {problem}; using the CPU", RuntimeWarning, stacklevel=3)
    return cpu(problem, fallback=True)


def _unpickled(name: str, requested: str, reason: str, fallback: bool, threads: int, tf32: bool) -> Device:
    """The device of the same name on the machine that unpickles it; DeviceError where it does not work."""
    if name == "cpu":
        xp = array_api_compat.array_namespace(np.empty(0))
    else:
        if (problem := cuda_problem(_cuda_index(name))) is not None:
            raise DeviceError(f"device {name} cannot be used by a worker: {problem}; use device cpu")
        from array_api_compat import cupy as xp
    return Device(name, requested, reason, fallback, xp, threads, tf32)


def unusable_after_check(index: int, *, advise: bool = True) -> str | None:
    """Why a CUDA device cannot be used after its self-check, which is made if it has not been; None if it can be.

    With `advise`, also what to do about it.
    """
    if plain_wanted():
        return None
    from gru_xp.devices.self_check import ADVICE, verdicts_of

    try:
        verdicts_of(index)
    except (DeviceError, MemoryError) as error:
        reason = printable(first_line(error), None)
        return reason if advise else reason.removesuffix(ADVICE)
    return None


def tf32_problem(name: str) -> str | None:
    """Why a device that works has no TF32; None if it has."""
    if name == "cpu":
        return "the CPU has none"
    import cupy

    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return "NVIDIA_TF32_OVERRIDE=0 forbids it"
    capability = int(cupy.cuda.Device(_cuda_index(name)).compute_capability)
    if capability >= MIN_TF32_CAPABILITY:
        return None
    return f"{name} has compute capability {capability // 10}.{capability % 10}, and TF32 needs 8.0"


def check_on_device(name: str, array: Array, device: Device) -> None:
    """Raise an error unless an array, called `name`, is on a device; what is no array is for other checks.

    Raises
    ------
    ShapeError
        It is of another namespace than the arrays of the device.
    MixedDevicesError
        It is on another CUDA device.
    """
    if not array_api_compat.is_array_api_obj(array):
        return
    got, expected = namespace_name(array), device.xp.__name__.removeprefix("array_api_compat.")
    advice = f"copy it by gru_xp.devices.to_device, or compute on {device_name(array)}"
    if got != expected:
        raise ShapeError(f"{name} has namespace {got}; on {device.name} it must be {expected}; {advice}")
    if device.is_cuda and device_name(array) != device.name:
        raise MixedDevicesError(f"{name} is on {device_name(array)}; it must be on {device.name}; {advice}")


def check_tf32(device: Device, dtype: str) -> None:
    """Raise ArgumentError if a device is to use TF32 for a dtype other than float32."""
    if device.tf32 and dtype != "float32":
        raise ArgumentError(
            f"dtype is {dtype} and the device uses TF32, which is for float32; leave tf32 out, or use dtype float32"
        )


@contextmanager
def _using_cuda(name: str) -> Iterator[None]:
    import cupy

    try:
        with cupy.cuda.Device(_cuda_index(name)):
            yield
    except Exception as error:
        if not is_of_cupy(error) or isinstance(error, MemoryError):
            raise
        raise DeviceError(
            f"{name} failed: {type(error).__name__}: {printable(first_line(error), 200)}{_remedy(error)}; set "
            "GRU_XP_PLAIN=1 to run without fast paths, or use device cpu"
        ) from error


def _wanted_memory() -> int | None:
    """The free memory that the environment variable sets; None if it is not set."""
    wanted = os.environ.get(FREE_MEMORY_VARIABLE, "")
    if not wanted:
        return None
    if not (wanted.isascii() and wanted.isdigit() and len(wanted) < 20):
        raise DeviceError(
            f"{FREE_MEMORY_VARIABLE} is {printable(wanted)!r}; it must be a whole number of bytes, such as 2000000000; "
            "set it to one, or unset it"
        )
    return int(wanted)


def _cuda_index(name: str) -> int:
    return int(name.partition(":")[2] or 0)


_OUT_OF_MEMORY = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there is too little memory, on whatever device."""
    return isinstance(error, MemoryError) or any(name in str(error) for name in _OUT_OF_MEMORY)


def cuda_problem(index: int = 0) -> str | None:
    """Why CUDA device `index` cannot be used, or None if it works: it is made to compute something."""
    if find_spec("cupy") is None:
        return (
            "CuPy is not installed (pip install 'gru-xp[cuda13]' or 'gru-xp[cuda12]', "
            "whichever CUDA version the driver supports)"
        )
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # a broken install fails in many ways, and each means that there is no device
        return f"{_cupy()} finds no CUDA device ({first_line(error)}){_remedy(error)}"
    if index >= count:
        return f"there is no cuda:{index}; {_cupy()} finds {count} CUDA device{'s' * (count != 1)}"
    try:
        with cupy.cuda.Device(index):
            probe = cupy.ones((2, 2), dtype=cupy.float32)
            works = float(cupy.sum(cupy.matmul(probe, cupy.tanh(probe) * 0 + 2))) == 16.0
    except Exception as error:
        return f"cuda:{index} was found, but a test computation failed ({first_line(error)}){_remedy(error)}"
    return None if works else f"cuda:{index} was found, but a test computation gave wrong results"


def _remedy(error: Exception) -> str:
    """What to install instead, or in addition; CuPy's own hints name other packages."""
    package, _ = _cupy_package()
    text = f"{type(error).__name__}: {error}"
    if _DRIVER_PATTERN.search(text):
        return _remedy_of_driver(package)
    if package in (None, "cupy") or not _LIBRARY_PATTERN.search(text):
        return ""
    return f"; a CUDA library is missing: pip install '{package}[ctk]'"


def _remedy_of_driver(package: str | None) -> str:
    driver = cuda_number("driverGetVersion")
    if driver is None:
        return ""
    if driver == 0:
        return "; no NVIDIA driver is installed"
    supported = f"; the driver supports CUDA {cuda_version(driver)}"
    runtime, major = cuda_number("runtimeGetVersion"), re.fullmatch(r"cupy-cuda(\d+)x", package or "")
    if major and driver // 1000 < int(major[1]):
        needed = f", and {package} needs {major[1]}.0 or later"
    elif runtime is not None and driver < runtime:
        needed = f", and the CUDA runtime is {cuda_version(runtime)}"
    else:
        return f"{supported}{'' if runtime is None else f', and the CUDA runtime is {cuda_version(runtime)}'}"
    if package == "cupy-cuda13x" and driver // 1000 == 12:
        return f"{supported}{needed}: pip uninstall {package}, then pip install 'gru-xp[cuda12]'; or update the driver"
    return f"{supported}{needed}: update the driver"


def cuda_number(function: str) -> int | None:
    """A version as CUDA counts it; None as CuPy cannot be imported, or does not tell."""
    try:
        import cupy

        return int(getattr(cupy.cuda.runtime, function)())
    except Exception:
        return None


def cuda_version(number: int) -> str:
    """A version as people write it."""
    return f"{number // 1000}.{number % 1000 // 10}"


def cupy_version() -> str | None:
    """The version of the CuPy that is installed, whether it works or not."""
    return _cupy_package()[1]


def _cupy_package() -> tuple[str | None, str | None]:
    """The name under which CuPy is installed, and its version."""
    for package in ("cupy-cuda13x", "cupy-cuda12x", "cupy"):
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    return None, None


def _cupy() -> str:
    return f"CuPy {cupy_version() or ''}".strip()


def to_device(array: Any, device: Device, dtype: str | None = None) -> Array:
    """Copy or view `array` as an array on `device`.

    Parameters
    ----------
    array
        An array on any device, or nested sequences of numbers.
    device
        From `resolve_device`.
    dtype
        ``"float32"``, ``"float64"`` or ``"int64"``; unchanged if None.

    Returns
    -------
    array

    Raises
    ------
    ArgumentError
        `dtype` is not one of these, `device` is not a Device, or `array` does not consist of numbers.
    """
    if not isinstance(device, Device):
        raise ArgumentError(f"device is {shown(device)}; it must be a Device, from resolve_device")
    if dtype is not None:
        check_choice("dtype", dtype, ("float32", "float64", "int64"))
    array = _to_copy(array, device)
    with device.use():
        try:
            placed = device.xp.asarray(array, dtype=None if dtype is None else getattr(device.xp, dtype))
            is_numeric = device.xp.isdtype(placed.dtype, ("bool", "numeric"))
        except (TypeError, ValueError, OverflowError) as error:
            reason = printable(first_line(error), 200)
            raise ArgumentError(
                f"array is a {type(array).__name__} that cannot become an array of numbers ({reason}); give an array, "
                "or nested sequences of equal lengths"
            ) from error
    if not is_numeric:
        raise ArgumentError(f"array has dtype {placed.dtype}; it must consist of numbers")
    return placed


def _to_copy(array: Any, device: Device) -> Any:
    """The array, or a copy of it from which the device can take its numbers."""
    if not array_api_compat.is_cupy_array(array):
        return array.detach() if array_api_compat.is_torch_array(array) else array
    if not device.is_cuda:
        return to_host(array)
    if array.device.id == _cuda_index(device.name):
        return array
    import cupy  # which copies nothing but arrays in one piece between devices

    with array.device:
        return cupy.ascontiguousarray(array)


def to_host(array: Array) -> np.ndarray[Any, Any]:
    """Copy or view an array as a NumPy array.

    Parameters
    ----------
    array
        Of NumPy, CuPy, PyTorch or array-api-strict, on any device.

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    ArgumentError
        `array` is not an array.
    """
    if not array_api_compat.is_array_api_obj(array):
        raise ArgumentError(f"array is a {type(array).__name__}; it must be an array of NumPy, CuPy or PyTorch")
    if array_api_compat.is_cupy_array(array):
        with array.device:  # whose current stream the array was computed on
            return np.asarray(array.get())
    if array_api_compat.is_torch_array(array):
        return np.asarray(array.detach().cpu().numpy())
    if array_api_compat.is_array_api_strict_namespace(array_api_compat.array_namespace(array)):
        return np.from_dlpack(array)
    return np.asarray(array)
