"""Memory for NumPy arrays that is kept: feature-major, aligned, and handed out again.

An array of shape ``(T, B, 3H)`` lies in memory as ``(T, 3H, B)``, so that the columns of one gate in one step are
contiguous.
"""

import math
import sys
from collections import defaultdict
from typing import Any

import numpy as np

from gru_xp.nn.ops import Array


def _feature_major(buffer: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of `shape` in the bytes of `buffer`, with its last two axes the other way round in memory."""
    memory_shape = shape if len(shape) < 2 else (*shape[:-2], shape[-1], shape[-2])
    array = np.ndarray(memory_shape, dtype, buffer)
    return array if len(shape) < 2 else array.swapaxes(-1, -2)


def _buffer(nbytes: int) -> Array:
    """Bytes that begin where a cache line does."""
    whole = np.empty(nbytes + 63, np.uint8)
    start = -whole.ctypes.data % 64
    return whole[start : start + nbytes]


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * int(dtype.itemsize)


class Arena:
    """Memory for a captured function: the same buffers, in the same order, for each one."""

    def __init__(self) -> None:
        self._buffers: list[Array] = []
        self.handed_out = 0

    @property
    def nbytes(self) -> int:
        """Of all buffers."""
        return sum(buffer.size for buffer in self._buffers)

    def rewind(self, to: int = 0) -> None:
        """Hand the buffers from number `to` on out again."""
        self.handed_out = to

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        index, nbytes = self.handed_out, _size(shape, dtype)
        self.handed_out += 1
        if index == len(self._buffers):
            self._buffers.append(_buffer(nbytes))
        elif self._buffers[index].size < nbytes:
            self._buffers[index] = _buffer(nbytes)  # functions that were captured before keep the old one
        return _feature_major(self._buffers[index], shape, dtype)


class Scratch:
    """Arrays that are kept, by shape, type and number.

    Parameters
    ----------
    limit
        Bytes above which all are forgotten before another one is made; no limit if left out.

    Attributes
    ----------
    nbytes
        Of all of them.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self.nbytes = 0
        self._limit = limit
        self._arrays: dict[Any, Array] = {}

    def array(self, shape: tuple[int, ...], dtype: Any, number: int) -> Array:
        """The same array for the same arguments, until they are cleared."""
        key = (shape, dtype, number)
        if key not in self._arrays:
            if self.nbytes > self._limit:
                self.clear()
            self._arrays[key] = self._make(shape, dtype)
            self.nbytes += _size(shape, dtype)
        return self._arrays[key]

    def _make(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return _feature_major(_buffer(_size(shape, dtype)), shape, dtype)

    def clear(self) -> None:
        """Forget all arrays; who has one may go on using it."""
        self._arrays.clear()
        self.nbytes = 0


class RecycledMemory:
    """Large buffers that are handed out again when nothing refers to them any more.

    The system takes the memory of a large array back when it is freed, and gives a new one page by page, which takes
    as long as computing with it. One instance belongs to one thread at a time.

    Parameters
    ----------
    limit
        Bytes to keep at most.
    """

    SMALLEST = 2**16

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffers: dict[int, list[Array]] = defaultdict(list)
        self._kept = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        nbytes = _size(shape, dtype)
        if nbytes < self.SMALLEST:
            return _feature_major(np.empty(nbytes, np.uint8), shape, dtype)
        buffer = _unused(self._buffers[nbytes])
        if buffer is None:
            buffer = np.empty(nbytes, np.uint8)
            self._keep(buffer)
        return _feature_major(buffer, shape, dtype)

    def _keep(self, buffer: Array) -> None:
        if self._kept + buffer.size > self._limit:
            for buffers in self._buffers.values():
                while (unused := _unused(buffers)) is not None:
                    self._kept -= unused.size
                    _remove(buffers, unused)
            for size in [size for size, buffers in self._buffers.items() if not buffers]:
                del self._buffers[size]
        if self._kept + buffer.size <= self._limit:
            self._kept += buffer.size
            self._buffers[buffer.size].append(buffer)


def _unused(buffers: list[Array]) -> Array | None:
    """A buffer that only the list refers to; arrays made of it, and their slices, do as well."""
    return next((buffer for buffer in buffers if sys.getrefcount(buffer) == _UNUSED), None)


def _remove(buffers: list[Array], buffer: Array) -> None:
    del buffers[next(i for i, other in enumerate(buffers) if other is buffer)]


_UNUSED = next(sys.getrefcount(buffer) for buffer in [np.empty(1)])
