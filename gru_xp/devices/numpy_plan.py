"""Plans: a recorded pointwise body as NumPy ufuncs with ``out=``, their temporaries in a few kept arrays."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gru_xp.devices.numpy_memory import Scratch
from gru_xp.devices.recording import FUNCTIONS, Call, Operand, Recording, Symbol
from gru_xp.nn.scan import Array

Program: TypeAlias = list[tuple[Callable[..., Any], tuple[Any, ...]]]
"""Functions and their arguments, which write into memory that is among them."""

_Place: TypeAlias = tuple[int, slice | None]
"""The number of an array, and which of its columns."""


def _maximum(a: Array, b: Array, out: Array) -> None:
    np.maximum(a, b, out=out)  # NumPy wants it by name


def _negative(a: Array, out: Array) -> None:
    np.multiply(a, -1.0, out)  # np.negative of NumPy 2.4 misreads columns of wider arrays


# A condition is kept as integers of the size of numbers, all of whose bits are 1 where it is true. Choosing by it is
# then a matter of ufuncs alone: without branches, and right wherever the memory of operands and results is the same.


def _greater(a: Array, b: Array, condition: Array) -> None:
    np.greater(a, b, condition)
    np.multiply(condition, -1, condition)


def _where(condition: Array, a: Array, b: Array, different: Array, out: Array) -> None:
    a, b, out = a.view(condition.dtype), b.view(condition.dtype), out.view(condition.dtype)
    np.bitwise_xor(a, b, different)
    np.bitwise_and(different, condition, different)
    np.bitwise_xor(b, different, out)


def _where_or_zero(condition: Array, a: Array, out: Array) -> None:
    np.bitwise_and(a.view(condition.dtype), condition, out.view(condition.dtype))


_UFUNCS: dict[str, Callable[..., Any]] = {name: getattr(np, name) for name in FUNCTIONS}
_UFUNCS |= {"greater": _greater, "maximum": _maximum, "negative": _negative, "where": _where}


@dataclass(frozen=True)
class Plan:
    """Ufunc calls over numbered arrays: the inputs that are arrays, the outputs, then `kept` (scratch, constants)."""

    steps: list[tuple[Callable[..., Any], tuple[_Place, ...]]]
    kept: tuple[Array, ...]

    def calls(self, inputs: tuple[Array | float | None, ...], out: tuple[Array, ...]) -> Program:
        """The calls for given arrays."""
        arrays = (*[a for a in inputs if hasattr(a, "shape")], *out, *self.kept)
        return [
            (ufunc, tuple([arrays[i] if columns is None else arrays[i][..., columns] for i, columns in places]))
            for ufunc, places in self.steps
        ]


def make_plan(recording: Recording, dtype: Any, scratch: Scratch) -> Plan:
    """Give each result of the recorded body a place: an output, or scratch that is free by then."""
    inputs, outputs, calls = recording
    numbers = {symbol: number for number, symbol in enumerate((*inputs, *outputs))}
    roots = [_roots(call) for call in calls]
    numbers |= _in_outputs(recording, roots, numbers)
    kept: list[Array] = []

    def keep(array: Array) -> int:
        kept.append(array)
        return len(inputs) + len(outputs) + len(kept) - 1

    def place(operand: Operand) -> _Place:
        if not isinstance(operand, Symbol):
            text = repr(float(operand))  # 0.0 and -0.0 are equal, but not the same
            if text not in constants:
                constants[text] = keep(np.asarray(operand, dtype))
            return constants[text], None
        columns = None if operand.parent is None else slice(operand.start, operand.start + operand.shape[-1])
        return numbers[operand.root], columns

    def take(shape: tuple[int, ...], kind: Any) -> int:
        pool = free[shape, kind]
        if not pool:
            pool.append(keep(scratch.array(shape, kind, made[shape, kind])))
            made[shape, kind] += 1
        return pool.pop()

    bits = np.dtype(f"i{dtype.itemsize}")
    last_use = {root: index for index, some in enumerate(roots) for root in some}
    constants: dict[str, int] = {}
    free: dict[tuple[tuple[int, ...], Any], list[int]] = defaultdict(list)
    made: dict[tuple[tuple[int, ...], Any], int] = defaultdict(int)
    in_scratch: dict[Symbol, Any] = {}
    steps = []
    for index, call in enumerate(calls):
        function, result = _UFUNCS[call.function], call.result
        operands = call.operands
        if function is _where and _is_zero(operands[2]):
            function, operands = _where_or_zero, operands[:2]
        places = [place(operand) for operand in operands]
        if function is _where:  # while all that it reads is still taken
            different = take(result.shape, bits)
            free[result.shape, bits].append(different)
            places.append((different, None))
        for root in roots[index]:
            if root in in_scratch and last_use[root] == index:
                free[root.shape, in_scratch.pop(root)].append(numbers[root])
        if result not in numbers:
            kind = in_scratch[result] = bits if call.function == "greater" else dtype
            numbers[result] = take(result.shape, kind)
        steps.append((function, (*places, (numbers[result], None))))
    return Plan(steps, tuple(kept))


def _is_zero(operand: Operand) -> bool:
    """Whether it is a constant whose bits are 0."""
    return not isinstance(operand, Symbol) and operand == 0 and math.copysign(1.0, operand) > 0


def _roots(call: Call) -> list[Symbol]:
    """The symbols whose memory a call reads, each once."""
    return list(dict.fromkeys(a.root for a in call.operands if isinstance(a, Symbol)))


def _in_outputs(
    recording: Recording, roots: Sequence[Sequence[Symbol]], numbers: dict[Symbol, int]
) -> dict[Symbol, int]:
    """Which results can stand in the memory of an output that is made of them, and its number.

    That memory may be an input's as well, so nothing may read inputs from then until the output is there.
    """
    inputs, outputs, calls = recording
    made_by = {call.result: index for index, call in enumerate(calls)}
    conditions = {call.result for call in calls if call.function == "greater"}
    uses = Counter(root for some in roots for root in some)
    reads_input = [any(root in inputs for root in some) for some in roots]

    found: dict[Symbol, int] = {}
    for output in outputs:
        index = last = made_by[output]
        while True:
            earlier = [
                made_by[root]
                for root in roots[index]
                if root in made_by
                and root not in numbers
                and root not in conditions
                and uses[root] == 1
                and root.shape == output.shape
            ]
            earlier = [i for i in earlier if not any(reads_input[i + 1 : last + 1])]
            if not earlier:
                break
            index = max(earlier)
            found[calls[index].result] = numbers[output]
    return found
