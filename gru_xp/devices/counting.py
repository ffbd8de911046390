"""Ops that compute nothing and take no memory: they count the memory that a device's ops would take.

What they run is the code that trains, on arrays that are shapes alone. So nothing that is allocated is forgotten here
when that code changes.
"""

import math
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from gru_xp.devices.lowering import Lowered
from gru_xp.devices.numpy_memory import LINE, Arena, RecycledMemory, Scratch
from gru_xp.devices.numpy_ops import MAX_SCRATCH_BYTES, NumpyOps
from gru_xp.devices.primitives import Body, Ops
from gru_xp.nn.scan import Array

Result = TypeVar("Result")

NOTED_CALL_BYTES = 320
"""What a call takes that NumpyOps has written down: its tuple, and the views of arrays that are its arguments."""


MAX_BLOCKS = 64
"""Blocks of steps whose weight gradients are summed together, at most, so that long sequences are counted quickly."""


def counting_ops(ops: Ops) -> "CountingNumpyOps | CountingOps":
    """Ops that take memory as `ops` do, as long as nothing but their methods is called with their arrays."""
    return CountingNumpyOps(ops.threads) if isinstance(ops, NumpyOps) else CountingOps(ops)


class CountingOps(Lowered):
    """As ops that let go of memory which nothing refers to any more, such as CuPy's without a graph.

    Attributes
    ----------
    nbytes
        Of the memory that was taken at one time, at most.
    """

    def __init__(self, ops: Ops) -> None:
        self.nbytes = 0
        self._taken = 0
        self._ops = ops

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        array = shape_alone(shape, like.dtype)
        self._take(_size(array))
        weakref.finalize(array.base, self._take, -_size(array))
        return array

    def _take(self, nbytes: int) -> None:
        self._taken += nbytes
        self.nbytes = max(self.nbytes, self._taken)

    def copy(self, source: Array | float, out: Array) -> None:
        pass

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        return out

    def contract(self, a: Array, b: Array, out: Array, *, add: bool = False) -> Array:
        return out

    def pointwise(self, body: Body, inputs: tuple[Array | float | None, ...], out: tuple[Array, ...]) -> None:
        pass

    def norm(self, a: Array, out: Array) -> None:
        pass

    def block_length(self, T: int, B: int, H: int) -> int:
        return self._ops.block_length(T, B, H)

    def loop(self, step: Callable[[int], None], times: Sequence[int]) -> None:
        step(times[0])

    def parts(self, B: int, T: int, I: int, H: int) -> list[tuple[slice, Ops]]:  # noqa: E741
        return [(rows, self) for rows, _ in self._ops.parts(B, T, I, H)]

    def run(self, tasks: Sequence[tuple[Ops, Callable[[], Result]]]) -> list[Result]:
        return _run_alike([function for _, function in tasks])[0]

    def capture(self, function: Callable[[], Result]) -> Callable[[], Result]:
        function()
        return function


class CountingNumpyOps(NumpyOps):
    """As `NumpyOps` whose captured functions live as long as they do.

    Attributes
    ----------
    nbytes
        Of the memory that they, and their workers, have taken.
    """

    keeps_programs = False

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        self._kept, self._n_calls = _Kept(), 0
        self._memory, self._arena = _CountedMemory(self._kept), _CountedArena(self._kept)
        self._scratch, self._products = _CountedScratch(self._kept), _CountedScratch(self._kept, MAX_SCRATCH_BYTES)

    @property
    def nbytes(self) -> int:
        """See above."""
        own = self._kept.nbytes + self._n_calls * NOTED_CALL_BYTES
        return own + sum(worker.nbytes for worker in self._workers if isinstance(worker, CountingNumpyOps))

    def loop(self, step: Callable[[int], None], times: Sequence[int]) -> None:
        before = self._n_noted()
        step(times[0])
        self._n_calls += (self._n_noted() - before) * (len(times) - 1)

    def run(self, tasks: Sequence[tuple[Ops, Callable[[], Result]]]) -> list[Result]:
        if all(ops is self for ops, _ in tasks):
            return super().run(tasks)
        results: dict[int, list[Result]] = {}
        for worker in {id(ops): ops for ops, _ in tasks}.values():
            assert isinstance(worker, CountingNumpyOps)
            with worker._arena.side_by_side():
                results[id(worker)] = worker._note([function for ops, function in tasks if ops is worker])
        return [results[id(ops)].pop(0) for ops, _ in tasks]

    def capture(self, function: Callable[[], Result]) -> Callable[[], Result]:
        for ops in (self, *self._workers):
            ops._arena.rewind()
        self._record(function, self._arena)
        return function

    def _worker(self) -> NumpyOps:
        return CountingNumpyOps(threads=0)

    def block_length(self, T: int, B: int, H: int) -> int:
        return max(super().block_length(T, B, H), T // MAX_BLOCKS)

    def _record(self, function: Callable[[], Result], memory: Arena | RecycledMemory) -> Any:
        self.program = tape = _Tape()
        self._recording_memory = memory
        try:
            result = function()
        finally:
            self.program = None
        self._n_calls += len(tape)
        return result

    def _note(self, functions: Sequence[Callable[[], Result]]) -> list[Result]:
        """Write down functions that do the same for fewer and fewer sequences."""
        before = self._n_calls
        results, n = _run_alike([partial(self._record, function, self._arena) for function in functions])
        self._n_calls += (self._n_calls - before) * (len(functions) - n) // n
        return results

    def _n_noted(self) -> int:
        return 0 if self.program is None else len(self.program)


def _run_alike(functions: Sequence[Callable[[], Result]]) -> tuple[list[Result], int]:
    """Results of functions that do the same for fewer and fewer sequences, and how many of them were called.

    That is the first one, unless it returns something.
    """
    first = functions[0]()
    if first is None:
        return [first] * len(functions), 1
    return [first, *(function() for function in functions[1:])], len(functions)


def shape_alone(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array that takes the memory of one number, which is all of its numbers."""
    return np.ndarray(shape, dtype, np.zeros(1, dtype), 0, (0,) * len(shape))


def _size(array: Array) -> int:
    return int(array.size * array.itemsize)


class _Tape(list[Any]):
    """As long as what would stand on it."""

    def __init__(self) -> None:
        super().__init__()
        self._n_calls = 0

    def append(self, call: Any) -> None:
        self._n_calls += 1

    def __iadd__(self, calls: Any) -> "_Tape":  # type: ignore[misc]
        self._n_calls += len(calls)
        return self

    def __len__(self) -> int:
        return self._n_calls


class _Kept:
    """How much memory is taken, for good."""

    def __init__(self) -> None:
        self.nbytes = 0

    def array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        array = shape_alone(shape, dtype)
        self.nbytes += _size(array)
        return array


class _CountedMemory(RecycledMemory):
    def __init__(self, kept: _Kept) -> None:
        super().__init__(0)
        self._counted = kept

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self._counted.array(shape, dtype)


class _CountedArena(Arena):
    def __init__(self, kept: _Kept) -> None:
        super().__init__()
        self._counted = kept

    def _buffer(self, nbytes: int) -> Array:
        self._counted.nbytes += nbytes
        return shape_alone((nbytes + LINE - 1,), np.dtype("uint8"))

    def _needed(self) -> list[Array]:
        return self._buffers

    def _array(self, part: Any, shape: tuple[int, ...], dtype: Any) -> Array:
        return shape_alone(shape, dtype)


class _CountedScratch(Scratch):
    def __init__(self, kept: _Kept, limit: float = math.inf) -> None:
        super().__init__(limit)
        self._make = kept.array  # type: ignore[method-assign]
