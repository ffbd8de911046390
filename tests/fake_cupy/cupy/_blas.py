"""The stand-in for cuBLAS: a library that the program loads, which asks here which streams are capturing."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

from cupy import _device
from cupy._compiling import compile_source


class Gemm(ctypes.Structure):
    """A product, as the library describes it."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("transpose_a", "transpose_b", "m", "n", "k")),
        *((name, ctypes.c_int) for name in ("dtype", "lda", "ldb", "ldc", "compute")),
        *((name, ctypes.c_double) for name in ("alpha", "beta")),
        *((name, ctypes.c_void_p) for name in ("a", "b", "c", "stream", "workspace")),
        ("device", ctypes.c_int),
    )


def check_workspace(gemm: Gemm) -> None:
    """Fail where the workspace has been freed, as a product writes into it."""
    if all(pool.device_at(gemm.workspace) is None for pool in _device.POOLS):
        raise _device.CUDARuntimeError(700, "cudaErrorIllegalAddress: an illegal memory access was encountered")


@cache
def load() -> tuple[ctypes.CDLL, Any]:
    """The library, and the functions that it calls, which must stay alive."""
    library, _ = compile_source(Path(__file__).with_name("cublas.cpp").read_text(encoding="utf-8"))

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Gemm))
    def record(given: Any) -> int:
        """0 to run the product now, 1 where it is recorded or done, 2 where it is to fail."""
        _device.count("products")
        if _device.should_fail("cublasGemmEx") or given.contents.device != _device.THREAD.device:
            return 2
        try:
            _device.check_addresses(filter(None, (given.contents.a, given.contents.b, given.contents.c)))
            check_workspace(given.contents)
        except _device.CUDARuntimeError:
            return 2
        pointer = given.contents.stream or 0
        if pointer != _device.get_current_stream().ptr:
            _device.count("products on another stream than the current one")
        stream = _device.CAPTURING.get(pointer)
        gemm = Gemm.from_buffer_copy(given.contents)
        if _device.should_fail("wrong cublasGemmEx"):
            gemm.alpha *= 1.01
        elif stream is None:
            return 0
        if stream is None:
            library.fake_run(ctypes.byref(gemm))
            return 1
        stream.recorded.append(lambda: check_workspace(gemm) or library.fake_run(ctypes.byref(gemm)))
        return 1

    device = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: _device.THREAD.device)
    library.fake_set_callbacks(record, device)
    return library, (record, device)
