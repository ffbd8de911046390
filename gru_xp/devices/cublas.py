"""Matrix products by cuBLAS into given memory, through a handle of our own.

CuPy's products copy operands whose rows are not packed, and CuPy refuses cuBLAS while a CUDA graph is captured. So the
library that CuPy loads is called directly, with a workspace that is there beforehand, as capturing needs it.

cuBLAS reads matrices column by column. Memory that holds a matrix row by row holds its transpose to cuBLAS, so it is
asked for ``out^T = b^T a^T``; whether an operand's rows or columns are packed only decides what it is told of it.
"""

import ctypes
import math
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from gru_xp.devices import cuda_graph
from gru_xp.devices.fast_paths import check_again, fallback_allowed, is_on, is_trying, is_unchecked, replace
from gru_xp.errors import DeviceError, first_line, printable
from gru_xp.nn.scan import Array

WORKSPACE_BYTES = 2**25
"""What cuBLAS may use for intermediate results; NVIDIA recommends 32 MiB for its largest chips."""

SMALL_WORKSPACE_BYTES = 2**16
"""What it has where memory is short. NVIDIA names 16 KiB as enough for all routines, some of which may be slower."""

_POINTER, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_OPERAND = (_POINTER, _INT, _INT)  # memory, type, leading dimension

PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cublasCreate_v2": (_POINTER,),
    "cublasDestroy_v2": (_POINTER,),
    "cublasSetStream_v2": (_POINTER, _POINTER),
    "cublasSetWorkspace_v2": (_POINTER, _POINTER, _SIZE),
    "cublasGemmEx": (
        *(_POINTER, _INT, _INT, _INT, _INT, _INT),  # handle, two transpositions, m, n, k
        *(_POINTER, *_OPERAND, *_OPERAND),  # alpha, A, B
        *(_POINTER, *_OPERAND),  # beta, C
        *(_INT, _INT),  # compute type, algorithm
    ),
}
"""The functions used, all of which return a status, and the types of their arguments."""

_PLAIN, _TRANSPOSED = 0, 1  # CUBLAS_OP_N, CUBLAS_OP_T
_ANY_ALGORITHM = -1  # CUBLAS_GEMM_DEFAULT
_ALLOC_FAILED = 3  # CUBLAS_STATUS_ALLOC_FAILED
_COMPUTE_TF32 = 77  # CUBLAS_COMPUTE_32F_FAST_TF32


class _Type(NamedTuple):
    data: int  # CUDA_R_*
    compute: int  # CUBLAS_COMPUTE_*
    zero: Any
    one: Any


_TYPES = {
    "f": _Type(0, 68, ctypes.c_float(0.0), ctypes.c_float(1.0)),
    "d": _Type(1, 70, ctypes.c_double(0.0), ctypes.c_double(1.0)),
}


class _ShortOfMemoryError(DeviceError, MemoryError):
    """cuBLAS has no memory."""


class Matrix(NamedTuple):
    """Where a matrix lies in memory; steps are counted in numbers."""

    pointer: int
    rows: int
    columns: int
    row_step: int
    column_step: int

    @property
    def T(self) -> "Matrix":
        """The transpose, in the same memory."""
        return Matrix(self.pointer, self.columns, self.rows, self.column_step, self.row_step)

    @property
    def leading(self) -> int | None:
        """How many numbers lie between the beginnings of rows, if each is packed and they do not overlap."""
        if self.columns > 1 and self.column_step != 1:
            return None
        if self.rows > 1:
            return self.row_step if self.row_step >= max(self.columns, 1) else None
        return max(self.columns, 1)


def matrix(array: Array) -> Matrix | None:
    """All rows ``(..., columns)`` of an array as one matrix; None where they are not evenly spaced or not packed."""
    *sizes, columns = array.shape
    if array.size == 0:
        return Matrix(array.data.ptr, math.prod(sizes), columns, max(columns, 1), 1)
    *steps, column_step = (stride // array.itemsize for stride in array.strides)
    rows = row_step = 1
    for size, step in zip(reversed(sizes), reversed(steps), strict=True):
        if rows == 1:
            row_step = step
        elif size > 1 and step != rows * row_step:
            return None
        rows *= size
    result = Matrix(array.data.ptr, rows, columns, row_step, column_step)
    return None if result.leading is None and result.T.leading is None else result


class Cublas:
    """A handle of cuBLAS on the current device, for one thread.

    Parameters
    ----------
    library
        What `load` returns.
    is_small
        Whether to do with a small workspace even if there is memory for a large one.

    Raises
    ------
    DeviceError
        cuBLAS refuses to start.
    MemoryError
        There is no memory even for a small workspace.

    Attributes
    ----------
    workspace
        The memory of its workspace, which a graph of its products needs as long as it exists.
    """

    def __init__(self, library: Any, *, is_small: bool = False) -> None:
        import cupy

        self._library = library
        self._small = cupy.cuda.alloc(SMALL_WORKSPACE_BYTES)  # always there, so that a large one can be let go of
        self.workspace = self._small
        self._stream: Any = None
        self.choose_workspace(is_small)
        handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(handle))
        self._handle = handle
        # At exit, the driver takes everything back by itself.
        weakref.finalize(self, library.cublasDestroy_v2, handle).atexit = False

    def product(
        self, a: Array, b: Array, out: Array, *, transpose_a: bool = False, add: bool = False, tf32: bool = False
    ) -> None:
        """Write ``a b`` into `out`, or add it, on CuPy's current stream; all rows of an array are one matrix.

        Parameters
        ----------
        a, b, out
            Arrays ``(..., columns)`` of CuPy, all of them float32 or float64. Nothing is copied where their rows, or
            their columns, are packed and evenly spaced.
        transpose_a
            Whether to write ``a^T b`` instead.
        add
            Whether to add to `out`.
        tf32
            Whether to round float32 factors to TF32.

        Raises
        ------
        ValueError
            Shapes or types do not go together.
        DeviceError
            cuBLAS reports an error.
        """
        if not a.dtype == b.dtype == out.dtype:
            raise ValueError(f"a product of {a.dtype} and {b.dtype} into {out.dtype}; all must be the same")
        (a, a_matrix), (b, b_matrix), (target, out_matrix) = map(_packed, (a, b, out))
        self._gemm(a_matrix.T if transpose_a else a_matrix, b_matrix, out_matrix, out.dtype.char, add, tf32)
        if target is not out:
            out[...] = target

    def _gemm(self, a: Matrix, b: Matrix, out: Matrix, dtype: str, add: bool, tf32: bool) -> None:
        if (a.rows, a.columns, b.columns) != (out.rows, b.rows, out.columns):
            shapes = " and ".join(f"{m.rows} x {m.columns}" for m in (a, b))
            raise ValueError(f"a product of {shapes} into {out.rows} x {out.columns}")
        if out.leading is None:
            a, b, out = b.T, a.T, out.T
        kind = _TYPES[dtype]
        b_transposed, b_leading = _as_stored(b)
        a_transposed, a_leading = _as_stored(a)
        self.use_current_stream()
        self._call(
            "cublasGemmEx",
            self._handle,
            *(b_transposed, a_transposed, out.columns, out.rows, a.columns),
            ctypes.byref(kind.one),
            *(b.pointer, kind.data, b_leading, a.pointer, kind.data, a_leading),
            ctypes.byref(kind.one if add else kind.zero),
            *(out.pointer, kind.data, out.leading),
            _COMPUTE_TF32 if tf32 and dtype == "f" else kind.compute,
            _ANY_ALGORITHM,
        )

    def use_current_stream(self) -> None:
        """Let what follows on CuPy's current stream have the workspace.

        There is one workspace, for products and for graphs of products, so that a stream waits for the last one.
        """
        import cupy

        stream, last = cupy.cuda.get_current_stream(), self._stream
        if last is not None and stream.ptr == last.ptr:
            return
        if last is not None and not (last.is_capturing() or stream.is_capturing()):  # which must not wait for others
            stream.wait_event(last.record(cupy.cuda.Event(disable_timing=True)))
        self._call("cublasSetStream_v2", self._handle, stream.ptr)  # which makes it forget the workspace
        nbytes = SMALL_WORKSPACE_BYTES if self.is_small else WORKSPACE_BYTES
        self._call("cublasSetWorkspace_v2", self._handle, self.workspace.ptr, nbytes)
        self._stream = stream

    @property
    def is_small(self) -> bool:
        """Whether its workspace is the small one."""
        return self.workspace is self._small

    def choose_workspace(self, is_small: bool) -> None:
        """Take the small workspace, or the large one if there is memory for it, when no product is under way."""
        import cupy

        if is_small == self.is_small:
            return
        if self._stream is not None:
            cupy.cuda.Device().synchronize()
            self._stream = None  # so that the next product gives cuBLAS the other one
        self.workspace = self._small
        if not is_small:
            with suppress(MemoryError):
                self.workspace = cupy.cuda.alloc(WORKSPACE_BYTES)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            reason = self._library.cublasGetStatusName(status).decode()
            kind = _ShortOfMemoryError if status == _ALLOC_FAILED else DeviceError
            advice = "set GRU_XP_PLAIN=1 to run without the fast paths, or use the CPU"
            raise kind(f"{name} failed: {reason}; {advice}")


def _packed(array: Array) -> tuple[Array, Matrix]:
    """The array, or a copy if it is no matrix yet, and where it lies."""
    import cupy

    found = matrix(array)
    if found is None:
        array = cupy.ascontiguousarray(array)
        found = matrix(array)
        assert found is not None
    return array, found


def _as_stored(m: Matrix) -> tuple[int, int]:
    """How cuBLAS gets the transpose of `m`: whether it must transpose what it sees, and the leading dimension."""
    if m.leading is not None:
        return _PLAIN, m.leading
    leading = m.T.leading
    assert leading is not None, f"neither the rows nor the columns of {m} are packed"
    return _TRANSPOSED, leading


@cache
def load() -> Any:
    """The cuBLAS library that CuPy uses, found the way CuPy finds it."""
    path = import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublas").abs_path
    library = ctypes.CDLL(path)
    for name, argtypes in PROTOTYPES.items():
        getattr(library, name).argtypes = argtypes
    library.cublasGetStatusName.restype = ctypes.c_char_p
    return library


class _Handles(threading.local):
    """Of each thread, by device. Where a device has no handle: None, the reason, and the time if memory was short."""

    def __init__(self) -> None:
        self.by_device: dict[int, Cublas | None] = {}
        self.problems: dict[int, str] = {}
        self.warned: set[int] = set()
        self.short: dict[int, float] = {}
        self.saving: set[int] = set()  # devices on which a small workspace was chosen


_HANDLES = _Handles()

RETRY_SECONDS = 1.0
"""How long to wait before memory that was short is asked for again."""


def current() -> Cublas | None:
    """This thread's handle on the current device, made at the first call; None if it cannot be made, after one warning.

    If memory was short, later calls try again.

    Raises
    ------
    DeviceError
        There is no handle, and ``GRU_XP_NO_FALLBACK`` is set.
    """
    import cupy

    if not is_on("cublas"):
        return None
    handles = _HANDLES.by_device
    device = cupy.cuda.runtime.getDevice()
    if device not in handles or _may_try_again(device):
        try:
            handles[device] = Cublas(load(), is_small=device in _HANDLES.saving)
            _HANDLES.short.pop(device, None)
            _HANDLES.warned.discard(device)
        except Exception as error:
            is_short = isinstance(error, MemoryError)
            if is_trying() and not is_short:
                raise
            # no library, an unknown one, no memory: CuPy can multiply by itself
            reason = first_line(error).partition("; ")[0].rstrip(".")
            handles[device] = None
            _HANDLES.problems[device] = f"no memory for cuBLAS on cuda:{device}"
            if is_short:
                _HANDLES.short[device] = time.monotonic()
            else:
                _HANDLES.problems[device] = f"cuBLAS cannot be used on cuda:{device} ({printable(reason, 200)})"
    blas = handles[device]
    is_less = blas is None or (blas.is_small and device not in _HANDLES.saving)
    if is_less and not is_trying() and not (device in _HANDLES.warned and fallback_allowed()):
        _HANDLES.warned.add(device)
        if blas is not None:
            replace(f"little memory for cuBLAS on cuda:{device}", "a small workspace, which may be slower")
        else:
            until = " until there is memory" if device in _HANDLES.short else ""
            replace(_HANDLES.problems[device], f"CuPy's products{until}, which are slower")
    if blas is not None and is_unchecked(device) and not (is_trying() or _is_capturing()):
        check_again(device)
        return blas if is_on("cublas") else None
    return blas


def _is_capturing() -> bool:
    import cupy

    return cuda_graph.is_capturing() or bool(cupy.cuda.get_current_stream().is_capturing())


def lacks_memory() -> bool:
    """Whether this thread has no handle on the current device because memory was short."""
    import cupy

    return cupy.cuda.runtime.getDevice() in _HANDLES.short


def workspace_held() -> int:
    """Bytes that `choose_workspace` can free on the current device."""
    import cupy

    blas = _HANDLES.by_device.get(cupy.cuda.runtime.getDevice())
    return 0 if blas is None or blas.is_small else WORKSPACE_BYTES


def choose_workspace(*, is_small: bool) -> None:
    """Decide which workspace this thread's handle on the current device has from now on, or when it is made.

    The last bits of products may be others with the other one. Memory of a large one is free when no graph of its
    products exists any more.
    """
    import cupy

    device = cupy.cuda.runtime.getDevice()
    (_HANDLES.saving.add if is_small else _HANDLES.saving.discard)(device)
    blas = _HANDLES.by_device.get(device)
    if blas is not None and blas.is_small != is_small:
        blas.choose_workspace(is_small)
        cupy.get_default_memory_pool().free_all_blocks()


def _may_try_again(device: int) -> bool:
    import cupy

    since = _HANDLES.short.get(device)
    if since is None or time.monotonic() - since < RETRY_SECONDS:
        return False
    return not cupy.cuda.get_current_stream().is_capturing()  # which allows no allocation


_COMPUTE_TYPE_LOCK = threading.RLock()


@contextmanager
def cupys_products(tf32: bool) -> Iterator[None]:
    """Context in which CuPy's own products of float32 use TF32 or not, whatever ``CUPY_TF32`` says.

    CuPy has one setting for all threads; other ones of gru-xp wait meanwhile.
    """
    from cupy import _core

    linalg = import_module("cupy._core._routines_linalg")
    wanted = linalg.COMPUTE_TYPE_TF32 if tf32 else linalg.COMPUTE_TYPE_DEFAULT
    with _COMPUTE_TYPE_LOCK:
        before = _core.get_compute_type("float32")
        _core.set_compute_type("float32", wanted)
        try:
            yield
        finally:
            _core.set_compute_type("float32", before)
