"""Kernels in CUDA C++, compiled for the host."""

import ctypes
import re
import threading
import types
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from cupy._array import check_device, ndarray, view_of
from cupy._compiling import MATHS, CompileError, compile_loop_kernel, compile_source, is_number, packed, parameters
from cupy._device import (
    CUDADriverError,
    Device,
    check_addresses,
    count,
    get_current_stream,
    launch,
    should_fail,
)

C_TYPES = {"f": "float", "d": "double", "i": "int", "l": "long long", "?": "bool"}


class CompileException(Exception):  # noqa: N818
    """A kernel cannot be compiled."""

    __module__ = "cupy.cuda.compiler"


_COMPILED: dict[Any, ctypes.CDLL] = {}
"""By what CuPy tells compiled kernels apart in a process."""


def _compile(how: Any, *source: str, variant: Any = None) -> ctypes.CDLL:
    key = Device().id, how, source, variant
    if key not in _COMPILED:
        _COMPILED[key] = _compile_first(how, source)
    return _COMPILED[key]


def _compile_first(how: Any, source: tuple[str, ...]) -> ctypes.CDLL:
    count("kernels loaded")
    if get_current_stream().recorded is not None:
        count("kernels loaded while capturing")
    try:
        library, new = how(*source)
    except CompileError as error:
        raise CompileException(str(error)) from error
    if new:
        count("kernels compiled")
    return library


def _fail(what: str) -> None:
    if should_fail(what):
        raise CompileException(f"{what} fails because FAKE_CUPY_FAIL names it\nin the second line")


def _split(params: str) -> list[tuple[str, str]]:
    """Types and names."""
    return [(kind, name) for kind, _, name in (text.strip().rpartition(" ") for text in params.split(",")) if name]


def _types_of(name: str, params: list[tuple[str, str]], arrays: Sequence[ndarray]) -> dict[str, np.dtype[Any]]:
    """The dtype of each letter, which all arrays with that letter must have."""
    types: dict[str, np.dtype[Any]] = {}
    for (kind, _), a in zip(params, arrays, strict=True):
        if types.setdefault(kind, a.dtype) != a.dtype:
            raise TypeError(f"Type is mismatched. {name} {kind} {types[kind]} {a.dtype}")
    return types


def _check_arrays(args: Sequence[Any]) -> None:
    for a in args:
        if not isinstance(a, ndarray):
            raise TypeError(f"Unsupported type {type(a)}")
        check_device(a)


def _layout(arrays: Sequence[Any], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """What CuPy compiles a kernel for: how many axes are left when some are joined, and which arrays are packed."""
    views = [np.broadcast_to(a._raw(), shape) for a in arrays]
    packed_ones = tuple(view.flags.c_contiguous for view in views)
    if all(packed_ones) or len(shape) <= 1:
        return min(len(shape), 1), packed_ones
    if len(shape) == 2:
        return 2, packed_ones
    sizes, axes, last = list(shape), 0, None
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        if last is not None:
            joined = all(v.strides[axis] * size == v.strides[last] for v in views if not v.flags.c_contiguous)
            axes += not joined
            sizes[axis] *= sizes[last] if joined else 1
        last = axis
    return axes + 1, packed_ones


class _Number:
    """A scalar argument, in memory as if it were an array; the launch holds it, as a graph holds its value."""

    def __init__(self, value: Any) -> None:
        self._value = np.array(value)
        self.data = types.SimpleNamespace(ptr=self._value.ctypes.data)

    def _raw(self) -> Any:
        return self._value


def _spoiling(array: ndarray) -> Callable[[], None]:
    """What adds 1 to one number of an array."""
    where, first = array._where(), (0,) * array.ndim

    def spoil() -> None:
        view_of(*where)[first] += 1

    return spoil


class ElementwiseKernel:
    """One C++ expression for each element of arrays that are broadcast together."""

    def __init__(self, in_params: str, out_params: str, operation: str, name: str = "kernel", **_: Any) -> None:
        _fail("ElementwiseKernel")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f'Invalid kernel name: "{name}"')
        self.ins, self.outs, self.operation, self.name = _split(in_params), _split(out_params), operation, name
        names = [name for _, name in self.ins + self.outs]
        if len(set(names)) < len(names) or {"i", "n", "_ind"} & set(names):
            raise ValueError(f"reserved or repeated names of parameters: {names}")
        self.compiled: dict[Any, Any] = {}

    def __call__(self, *args: Any) -> None:
        n_in = len(self.ins)
        if len(args) != n_in + len(self.outs):
            raise TypeError(f"Wrong number of arguments for {self.name}")
        arrays = [a for a in args if type(a) is not float]
        _check_arrays(arrays)
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        for a in args[n_in:]:
            if a.shape != shape:
                raise ValueError(f"Out shape is mismatched: {a.shape} is not {shape}")
        params = [param for param, a in zip(self.ins + self.outs, args, strict=True) if type(a) is not float]
        kinds = _types_of(self.name, params, arrays)
        if 0 in shape:
            return
        key = tuple(getattr(a, "dtype", None) for a in args), len(shape), _layout(arrays, shape)
        if key not in self.compiled:
            self.compiled[key] = _compile(compile_source, self._source(kinds, len(shape)), variant=key).kernel
        function = self.compiled[key]
        dtypes = [kinds[kind] for kind, _ in self.ins + self.outs]
        numbers = [a if type(a) is not float else dtype.type(a) for a, dtype in zip(args, dtypes, strict=True)]
        args = [a if isinstance(a, ndarray) else _Number(a) for a in numbers]
        steps = [step for a in args for step in np.broadcast_to(a._raw(), shape).strides]
        given = (
            ctypes.c_longlong(int(np.prod(shape))),
            (ctypes.c_longlong * max(len(shape), 1))(*shape),
            (ctypes.c_longlong * len(args))(*(a.data.ptr for a in args)),
            (ctypes.c_longlong * max(len(steps), 1))(*steps),
        )
        held = [a for a in args if isinstance(a, _Number)]
        launch(lambda: function(*given) or held, "ElementwiseKernel", _spoiling(args[-1]))

    def _source(self, types: dict[str, np.dtype[Any]], ndim: int) -> str:
        lines = [MATHS]
        lines += [f"typedef {C_TYPES[dtype.char]} {kind};" for kind, dtype in types.items() if len(kind) == 1]
        lines += [
            'extern "C" void kernel(long long size, const long long *shape, const long long *p, const long long *st) {',
            f"constexpr int ND = {ndim};",
            "for (long long i_ = 0; i_ < size; ++i_) {",
            "long long at[ND > 0 ? ND : 1]; long long left = i_;",
            "for (int d = ND - 1; d >= 0; --d) { at[d] = left % shape[d]; left /= shape[d]; }",
        ]
        for k, (kind, name) in enumerate(self.ins + self.outs):
            const = "const " if k < len(self.ins) else ""
            lines.append(f"long long o{k}_ = p[{k}]; for (int d = 0; d < ND; ++d) o{k}_ += at[d] * st[{k} * ND + d];")
            lines.append(f"{const}{kind} &{name} = *({kind} *)o{k}_;")
        return "\n".join([*lines, self.operation + ";", "}}"])


_ALONE = threading.Lock()


def _launch_alone(library: ctypes.CDLL, *arguments: Any) -> None:
    """Run a kernel while no other thread does: those of its block take turns in memory of its library."""
    with _ALONE:
        library.launch(*arguments)


class RawModule:
    """Source whose kernels are compiled when they are asked for."""

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
        self.code = code

    def get_function(self, name: str) -> "RawKernel":
        """Compile a kernel."""
        return RawKernel(self.code, name)


class RawKernel:
    """A kernel of whole blocks, whose threads take turns."""

    def __init__(self, code: str, name: str) -> None:
        _fail(name)
        self._name, self._shared = name, 48 * 1024
        self._types = [np.float32 if is_number(kind) else np.int64 for kind in parameters(code, name)]
        self._library = _compile(compile_loop_kernel, code, name)

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """Shared memory that a launch may ask for."""
        return self._shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if size > Device().attributes["MaxSharedMemoryPerBlockOptin"]:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self._shared = size

    def __call__(self, grid: tuple[int], block: tuple[int], args: Sequence[Any], *, shared_mem: int = 0) -> None:
        if shared_mem > self._shared or not 1 <= block[0] <= 1024 or not 1 <= grid[0] < 2**31:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        if [type(a) for a in args] != self._types:
            raise TypeError(f"numbers of {self._types} are expected, not {args}")
        count("launches of raw kernels")
        check_addresses(int(a) for a in args if type(a) is np.int64)
        given = packed([a.item() for a in args])
        blocks = grid[0] - should_fail(f"wrong {self._name}")
        shape = [ctypes.c_int(number) for number in (blocks, block[0], shared_mem, False)]
        launch(partial(_launch_alone, self._library, *shape, given), self._name)
