"""Memory for NumPy arrays that is kept: feature-major, aligned, and handed out again.

An array of shape ``(T, B, 3H)`` lies in memory as ``(T, 3H, B)``, so that the columns of one gate in one step are
contiguous.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gru_xp.devices.free_parts import FreeParts, Part
from gru_xp.nn.scan import Array

LINE = 64
"""Bytes of a cache line, where arrays begin."""


def _feature_major(buffer: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of `shape` in the bytes of `buffer`, with its last two axes the other way round in memory."""
    memory_shape = shape if len(shape) < 2 else (*shape[:-2], shape[-1], shape[-2])
    array = np.ndarray(memory_shape, dtype, buffer)
    return array if len(shape) < 2 else array.swapaxes(-1, -2)


def _buffer(nbytes: int) -> Array:
    """Bytes that begin where a cache line does."""
    whole = np.empty(nbytes + LINE - 1, np.uint8)
    start = -whole.ctypes.data % LINE
    return whole[start : start + nbytes]


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * int(dtype.itemsize)


class _Loan:
    """Memory of an arena, lent to one array; it is given back when neither that array nor a view of it is left.

    Attributes
    ----------
    array
        An array of the same memory that does not refer to the loan.
    """

    def __init__(self, arena: "Arena", array: Array, part: Part, number: int) -> None:
        self._arena, self.array, self._part, self._number = arena, array, part, number
        self.__array_interface__ = array.__array_interface__

    def __del__(self) -> None:
        self._arena.give_back(self._part, self._number)


class Arena:
    """Memory for captured functions, which share it.

    Memory that a function releases while it is recorded serves for its later arrays: a replay makes the calls in the
    recorded order, so old numbers are read before they are overwritten. Recorded calls refer to memory by
    :func:`detached` arrays, which keep it allocated without preventing its reuse.
    """

    def __init__(self) -> None:
        self._buffers: list[Array] = []
        self._free = FreeParts()
        self._waiting: list[Part] = []  # for the end of `side_by_side`
        self._n_lent = 0
        self._first = self._first_beside = 0  # loans up to these are of other functions, or older than `side_by_side`

    @property
    def nbytes(self) -> int:
        """Of all buffers."""
        return sum(map(_usable, self._buffers))

    def rewind(self) -> None:
        """Begin another function: make all memory free, and drop the buffers that nobody refers to."""
        self._buffers = [buffer for buffer in self._buffers if sys.getrefcount(buffer) > _UNUSED]
        self._free = FreeParts([_all_of(number, buffer) for number, buffer in enumerate(self._buffers)])
        self._waiting.clear()
        self._first = self._first_beside = self._n_lent

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        nbytes = -(-_size(shape, dtype) // LINE) * LINE
        part = self._free.take(nbytes)
        if part is None:
            self._buffers.append(np.empty(nbytes + LINE - 1, np.uint8))
            part = _all_of(len(self._buffers) - 1, self._buffers[-1])
        self._n_lent += 1
        array = _feature_major(self._buffers[part.buffer][part.start : part.stop], shape, dtype)
        return np.asarray(_Loan(self, array, part, self._n_lent))

    @contextmanager
    def side_by_side(self) -> Iterator[None]:
        """Context for recording calls that run beside those of other arenas.

        These may read what is here already: memory from before the context is reused only after it.
        """
        self._first_beside = self._n_lent
        try:
            yield
        finally:
            self._first_beside = self._first
            while self._waiting:
                self._free.add(self._waiting.pop())

    def give_back(self, part: Part, number: int) -> None:
        """End the loan of a number."""
        if number > self._first_beside:
            self._free.add(part)
        elif number > self._first:
            self._waiting.append(part)


def _usable(buffer: Array) -> int:
    return int(buffer.size) - LINE + 1


def _all_of(number: int, buffer: Array) -> Part:
    """All of a buffer, from the beginning of a cache line."""
    start = -buffer.ctypes.data % LINE
    return Part(number, start, start + _usable(buffer))


def detached(a: Any) -> Any:
    """Make an array of the same memory that does not prevent an arena from reusing it.

    Anything that is not in an arena is returned unchanged.
    """
    loan = a
    while isinstance(loan, np.ndarray):
        loan = loan.base
    if not isinstance(loan, _Loan) or a.size == 0:
        return a
    buffer = loan.array.base
    return np.ndarray(a.shape, a.dtype, buffer, a.ctypes.data - buffer.ctypes.data, a.strides)


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

    def drop_unused(self) -> None:
        """Give back what nothing refers to."""
        for buffers in self._buffers.values():
            while (unused := _unused(buffers)) is not None:
                self._kept -= unused.size
                _remove(buffers, unused)
        for size in [size for size, buffers in self._buffers.items() if not buffers]:
            del self._buffers[size]

    def _keep(self, buffer: Array) -> None:
        if self._kept + buffer.size > self._limit:
            self.drop_unused()
        if self._kept + buffer.size <= self._limit:
            self._kept += buffer.size
            self._buffers[buffer.size].append(buffer)


def _unused(buffers: list[Array]) -> Array | None:
    """A buffer that only the list refers to; arrays made of it, and their slices, do as well."""
    return next((buffer for buffer in buffers if sys.getrefcount(buffer) == _UNUSED), None)


def _remove(buffers: list[Array], buffer: Array) -> None:
    del buffers[next(i for i, other in enumerate(buffers) if other is buffer)]


_UNUSED = next(sys.getrefcount(buffer) for buffer in [np.empty(1)])
