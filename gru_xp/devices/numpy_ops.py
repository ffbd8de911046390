"""How NumPy does what ``nn/ops.py`` describes: memory that is kept, feature-major, and pointwise bodies without
temporaries.

Memory is feature-major: an array of shape ``(T, B, 3H)`` lies in memory as ``(T, 3H, B)``, so that the columns of one
gate in one step are contiguous. The calls of a pointwise body are recorded once and then played back as ufuncs with
``out=``, their temporaries sharing a few scratch arrays that are kept.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from gru_xp.devices.recording import Symbol, record
from gru_xp.nn.ops import PLAIN_OPS, Array, Body


class NumpyOps:
    """`gru_xp.nn.ops.Ops` for NumPy arrays. One instance belongs to one thread.

    Parameters
    ----------
    reuse_memory
        Whether `rewind` makes all memory that `empty` handed out available again. A training loop, which is done
        with one step's arrays before the next, wants that; results that outlive the next `rewind` must be copied.
    """

    def __init__(self, *, reuse_memory: bool = False) -> None:
        self._reuse_memory = reuse_memory
        self._kept: dict[Any, list[Array]] = defaultdict(list)
        self._handed_out: dict[Any, int] = defaultdict(int)
        self._plans: dict[Any, _Plan] = {}

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        if not self._reuse_memory:
            return _feature_major(shape, like.dtype)
        key = (shape, like.dtype)
        kept, index = self._kept[key], self._handed_out[key]
        if index == len(kept):
            kept.append(_feature_major(shape, like.dtype))
        self._handed_out[key] = index + 1
        return kept[index]

    def rewind(self) -> None:
        """Hand the same memory out again from now on."""
        self._handed_out.clear()

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        if a.shape[-1] == 1:  # an outer product, which BLAS is slow at
            return np.multiply(a, b, out=out)
        return np.matmul(a, b, out=out)

    def contract(self, a: Array, b: Array) -> Array:
        if a.ndim != 3:
            return PLAIN_OPS.contract(a, b)
        # One product a step, of memory that is contiguous, instead of one of a rearranged copy.
        total = a[0].T @ b[0]
        for a_t, b_t in zip(a[1:], b[1:], strict=True):
            total += a_t.T @ b_t
        return total

    def pointwise(self, body: Body, inputs: tuple[Array, ...], out: tuple[Array, ...]) -> None:
        key = (body, out[0].dtype, *[array.shape for array in inputs])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = _plan(body, [array.shape for array in inputs], out[0].dtype)
        plan.run(inputs, out)


def _feature_major(shape: tuple[int, ...], dtype: Any) -> Array:
    *steps, rows, columns = shape
    return np.swapaxes(np.empty((*steps, columns, rows), dtype), -1, -2)


@dataclass(frozen=True)
class _Plan:
    """Ufunc calls over numbered arrays: the inputs, the outputs, then `kept` (scratch and constants)."""

    steps: list[tuple[np.ufunc, tuple[int, ...]]]
    kept: tuple[Array, ...]

    def run(self, inputs: tuple[Array, ...], out: tuple[Array, ...]) -> None:
        arrays = (*inputs, *out, *self.kept)
        for ufunc, operands in self.steps:
            ufunc(*[arrays[i] for i in operands])


def _plan(body: Body, shapes: list[tuple[int, ...]], dtype: Any) -> _Plan:
    """Give each result of the recorded body a place: an output, or scratch that is free by then."""
    inputs, outputs, calls = record(body, shapes)
    place = {id(symbol): number for number, symbol in enumerate((*inputs, *outputs))}
    kept: list[Array] = []

    def keep(array: Array) -> int:
        kept.append(array)
        return len(inputs) + len(outputs) + len(kept) - 1

    last_use = {id(operand): index for index, call in enumerate(calls) for operand in call.operands}
    constants: dict[float, int] = {}
    free: dict[tuple[int, ...], list[int]] = defaultdict(list)
    scratch: set[int] = set()
    steps = []
    for index, (function, operands, result) in enumerate(calls):
        numbers = []
        for operand in operands:
            if not isinstance(operand, Symbol):
                if operand not in constants:
                    constants[operand] = keep(np.asarray(operand, dtype))
                numbers.append(constants[operand])
                continue
            number = place[id(operand)]
            numbers.append(number)
            if last_use[id(operand)] == index and number in scratch:
                scratch.remove(number)
                free[operand.shape].append(number)
        if id(result) not in place:
            pool = free[result.shape]
            number = pool.pop() if pool else keep(_scratch(result.shape, dtype))
            place[id(result)] = number
            scratch.add(number)
        steps.append((getattr(np, function), (*numbers, place[id(result)])))
    return _Plan(steps, tuple(kept))


def _scratch(shape: tuple[int, ...], dtype: Any) -> Array:
    return _feature_major(shape, dtype) if len(shape) > 1 else np.empty(shape, dtype)
