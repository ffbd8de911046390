"""A stand-in for CuPy without a GPU; README.md in the folder above says what it can tell and what not.

Environment: FAKE_CUPY_DEVICES (2), FAKE_CUPY_MEMORY (8 GiB; a list for devices of different sizes), FAKE_CUPY_PEER (0;
1 lets devices access each other's memory), FAKE_CUPY_CAPABILITY (90, compute capability 9.0), FAKE_CUPY_SMS (132
multiprocessors), FAKE_CUPY_SHARED (227 KiB of shared memory), FAKE_CUPY_CACHE (folder of compiled kernels),
FAKE_CUPY_FAIL (what is to fail, such as "steps,begin_capture"; below).

These raise an error: ElementwiseKernel, and raw kernels by their names, such as steps, when they are compiled;
begin_capture, launch, cublasCreate (no memory), cublasGemmEx, getDeviceCount. Of these kernels, "launch steps" fails
when they are launched, "wrong steps" computes wrong numbers (also: wrong cublasGemmEx, wrong Graph), and "illegal
steps" uses an illegal address, after which the device refuses everything.
"""

import builtins as _builtins
import sys as _sys
import types as _types

import numpy as _np

from cupy import _array, _device, _kernels
from cupy._array import PerformanceWarning, array, ndarray
from cupy._array import apply as _apply
from cupy._kernels import ElementwiseKernel, RawKernel, RawModule  # noqa: F401

__version__ = "14.2.0"

_AS_IN_NUMPY = """
    bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128 generic integer
    floating number dtype finfo iinfo newaxis pi e inf nan result_type can_cast issubdtype isdtype promote_types
    broadcast_shapes isscalar
"""
_UFUNCS = {name for name in dir(_np) if isinstance(getattr(_np, name), _np.ufunc)}
_OTHER_FUNCTIONS = """
    sum prod max min amax amin all any mean std var argmax argmin cumsum median count_nonzero argsort sort clip
    tensordot dot matmul trace diff flip roll tile repeat outer vdot isclose round searchsorted
"""
_CUDA = """
    Device Stream Event Graph MemoryPointer MemoryPool UnownedMemory alloc get_allocator set_allocator
    using_allocator get_current_stream
"""
_LINALG = """
    norm cholesky cond cross det eig eigh eigvals eigvalsh inv lstsq matrix_power matrix_rank pinv qr slogdet solve svd
    tensorinv tensorsolve
"""
_FFT = """
    fft ifft fftn ifftn rfft irfft rfftn irfftn hfft ihfft fftfreq rfftfreq fftshift ifftshift
"""


# --- new arrays -------------------------------------------------------------------------------------------------


def empty(shape, dtype=float, order="C"):
    return ndarray(shape, dtype)


def full(shape, fill_value, dtype=None, order="C"):
    result = ndarray(shape, _np.asarray(fill_value).dtype if dtype is None else dtype)
    result.fill(fill_value)
    return result


def zeros(shape, dtype=float, order="C"):
    return full(shape, 0, float if dtype is None else dtype)


def ones(shape, dtype=float, order="C"):
    return full(shape, 1, float if dtype is None else dtype)


def _array_only(a):
    return a if isinstance(a, ndarray) else _array.refuse(a, "a function of arrays")


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    return ndarray(shape or _array_only(prototype).shape, dtype or prototype.dtype)


def zeros_like(a, dtype=None, order="K", subok=None, shape=None):
    return zeros(shape or _array_only(a).shape, dtype or a.dtype)


def ones_like(a, dtype=None, order="K", subok=None, shape=None):
    return ones(shape or _array_only(a).shape, dtype or a.dtype)


def full_like(a, fill_value, dtype=None, order="K", subok=None, shape=None):
    return full(shape or _array_only(a).shape, fill_value, dtype or a.dtype)


def asarray(a, dtype=None, order=None, *, blocking=False):
    return array(a, dtype=dtype, copy=False)


def ascontiguousarray(a, dtype=None):
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else a.copy()


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get() if isinstance(a, ndarray) else _np.asarray(a)


def arange(start, stop=None, step=1, dtype=None):
    return array(_np.arange(start, dtype=dtype) if stop is None else _np.arange(start, stop, step, dtype))


def linspace(start, stop, num=50, endpoint=True, dtype=None):
    return array(_np.linspace(start, stop, num, endpoint, dtype=dtype))


def eye(N, M=None, k=0, dtype=float, order="C"):
    return array(_np.eye(N, M, k, dtype))


# --- views and copies -------------------------------------------------------------------------------------------


def reshape(a, shape, order="C", copy=None):
    return _array_only(a).reshape(shape)


def transpose(a, axes=None):
    return _array_only(a).transpose(axes)


def expand_dims(a, axis):
    return _array_only(a)._like_view(_np.expand_dims(a._raw(), axis))


def squeeze(a, axis=None):
    return _array_only(a).squeeze(axis)


def swapaxes(a, axis1, axis2):
    return _array_only(a).swapaxes(axis1, axis2)


def broadcast_to(a, shape):
    return _array_only(a)._like_view(_np.broadcast_to(a._raw(), shape))


def broadcast_arrays(*arrays):
    shape = _np.broadcast_shapes(*(a.shape for a in arrays))
    return [broadcast_to(a, shape) for a in arrays]


def concatenate(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    return _apply(
        "concatenate", lambda given: _np.concatenate(given, axis=axis), [_array_only(a) for a in tup], out=out
    )


def stack(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    return _apply("stack", lambda given: _np.stack(given, axis=axis), [_array_only(a) for a in tup], out=out)


def take(a, indices, axis=None, out=None):
    return _apply("take", lambda x, i: _np.take(x, i, axis=axis), _array_only(a), asarray(indices))


def where(condition, x=None, y=None):
    return _apply("where", _np.where, condition, x, y)


def nonzero(a):
    return tuple(array(i) for i in _array_only(a).get().nonzero())  # CuPy waits for the device, too


def may_share_memory(a, b, max_work=None):
    return _np.may_share_memory(a._raw(), b._raw())


shares_memory = may_share_memory


def allclose(a, b, rtol=1e-5, atol=1e-8, equal_nan=False):
    return _apply("allclose", lambda x, y: _np.asarray(_np.allclose(x, y, rtol, atol, equal_nan)), a, b)


def get_default_memory_pool():
    return _device.POOL


def get_default_pinned_memory_pool():
    return _types.SimpleNamespace(free_all_blocks=lambda: None)


def get_array_module(*args):
    return _sys.modules[__name__] if _builtins.any(isinstance(a, ndarray) for a in args) else _np


# --- functions of NumPy -----------------------------------------------------------------------------------------


def _wrapped(name):
    function = getattr(_np, name)

    def wrapper(*args, out=None, **kwargs):
        if not _builtins.any(isinstance(a, ndarray) for a in args):
            bad = next((a for a in args if not isinstance(a, _array.SCALARS)), None)
            if bad is not None or name not in _UFUNCS:
                _array.refuse(bad, name)
            args = tuple(array(a) for a in args)
        return _apply(name, function, *args, out=out, **kwargs)

    wrapper.__name__ = wrapper.__qualname__ = name
    return wrapper


def _missing(name):
    def function(*args, **kwargs):
        raise NotImplementedError(f"the stand-in for CuPy has no {name}; add it to tests/fake_cupy")

    return function


for _name in _AS_IN_NUMPY.split():
    globals()[_name] = getattr(_np, _name)
for _name in sorted({*_UFUNCS, *_OTHER_FUNCTIONS.split()} - {"where", "concatenate", "stack"}):
    globals()[_name] = _wrapped(_name)
del _name


def __getattr__(name):
    if not name.startswith("_") and callable(getattr(_np, name, None)):
        return _missing(name)
    raise AttributeError(f"module 'cupy' has no attribute {name!r}")


# --- modules ----------------------------------------------------------------------------------------------------


def _module(name, **members):
    module = _types.ModuleType(f"cupy.{name}")
    vars(module).update(members)
    _sys.modules[module.__name__] = module
    return module


def _count_devices():
    if _device.should_fail("getDeviceCount"):
        raise _device.CUDARuntimeError(35, "cudaErrorInsufficientDriver: FAKE_CUPY_FAIL names getDeviceCount")
    return _device.N_DEVICES


cuda = _module(
    "cuda",
    __path__=[],
    runtime=_module(
        "cuda.runtime",
        getDevice=lambda: _device.THREAD.device,
        getDeviceCount=_count_devices,
        memGetInfo=lambda: _device.Device().mem_info,
        getDeviceProperties=lambda number: {
            "name": b"stand-in for a GPU",
            "totalGlobalMem": _device.TOTAL[number],
            "major": int(_device.CAPABILITY[:-1]),
            "minor": int(_device.CAPABILITY[-1]),
        },
        runtimeGetVersion=lambda: 13000,
        driverGetVersion=lambda: 13000,
        deviceSynchronize=lambda: _device.refuse_while_capturing("deviceSynchronize"),
        CUDARuntimeError=_device.CUDARuntimeError,
    ),
    driver=_module("cuda.driver", CUDADriverError=_device.CUDADriverError),
    compiler=_module("cuda.compiler", CompileException=_kernels.CompileException),
    device=_module("cuda.device", Device=_device.Device),
    stream=_module("cuda.stream", Stream=_device.Stream, Event=_device.Event),
    memory=_module("cuda.memory", OutOfMemoryError=_device.OutOfMemoryError),
    **{name: getattr(_device, name) for name in _CUDA.split()},
)
_routines_linalg = _module(
    "_core._routines_linalg",
    **{name: getattr(_array, name) for name in ("COMPUTE_TYPE_DEFAULT", "COMPUTE_TYPE_TF32")},
)
_core = _module(
    "_core",
    __path__=[],
    _routines_linalg=_routines_linalg,
    get_compute_type=_array.get_compute_type,
    set_compute_type=_array.set_compute_type,
)
linalg = _module("linalg", **{name: _missing(f"linalg.{name}") for name in _LINALG.split()})
fft = _module("fft", **{name: _missing(f"fft.{name}") for name in _FFT.split()})
exceptions = _module("exceptions")
_util = _module("_util", PerformanceWarning=PerformanceWarning)
