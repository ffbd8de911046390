"""Plans: a recorded pointwise body as NumPy ufuncs with ``out=``, their temporaries in a few kept arrays."""

import math
from collections import defaultdict
from collections.abc import Callable
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
    numbers = {id(symbol): number for number, symbol in enumerate((*inputs, *outputs))}
    numbers |= _in_outputs(recording, numbers)
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
        return numbers[id(operand.root)], columns

    def take(shape: tuple[int, ...], kind: Any) -> int:
        pool = free[shape, kind]
        if not pool:
            pool.append(keep(scratch.array(shape, kind, made[shape, kind])))
            made[shape, kind] += 1
        return pool.pop()

    bits = np.dtype(f"i{dtype.itemsize}")
    last_use = {id(root): index for index, call in enumerate(calls) for root in _roots(call)}
    constants: dict[str, int] = {}
    free: dict[tuple[tuple[int, ...], Any], list[int]] = defaultdict(list)
    made: dict[tuple[tuple[int, ...], Any], int] = defaultdict(int)
    in_scratch: dict[int, Any] = {}
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
        for root in _roots(call):
            if id(root) in in_scratch and last_use[id(root)] == index:
                free[root.shape, in_scratch.pop(id(root))].append(numbers[id(root)])
        if id(result) not in numbers:
            kind = in_scratch[id(result)] = bits if call.function == "greater" else dtype
            numbers[id(result)] = take(result.shape, kind)
        steps.append((function, (*places, (numbers[id(result)], None))))
    return Plan(steps, tuple(kept))


def _is_zero(operand: Operand) -> bool:
    """Whether it is a constant whose bits are 0."""
    return not isinstance(operand, Symbol) and operand == 0 and math.copysign(1.0, operand) > 0


def _roots(call: Call) -> list[Symbol]:
    """The symbols whose memory a call reads, each once."""
    return list({id(operand.root): operand.root for operand in call.operands if isinstance(operand, Symbol)}.values())


def _in_outputs(recording: Recording, numbers: dict[int, int]) -> dict[int, int]:
    """Which results can stand in the memory of an output that is made of them, and its number.

    That memory may be an input's as well, so nothing may read inputs from then until the output is there.
    """
    inputs, outputs, calls = recording
    input_ids = {id(symbol) for symbol in inputs}
    made_by = {id(call.result): index for index, call in enumerate(calls)}
    conditions = {id(call.result) for call in calls if call.function == "greater"}
    uses: dict[int, int] = defaultdict(int)
    for call in calls:
        for root in _roots(call):
            uses[id(root)] += 1

    def reads_input(some: list[Call]) -> bool:
        return any(id(root) in input_ids for call in some for root in _roots(call))

    found: dict[int, int] = {}
    for output in outputs:
        index = last = made_by[id(output)]
        while True:
            earlier = [
                made_by[id(root)]
                for root in _roots(calls[index])
                if id(root) in made_by
                and id(root) not in numbers
                and id(root) not in conditions
                and uses[id(root)] == 1
                and root.shape == output.shape
            ]
            earlier = [i for i in earlier if not reads_input(calls[i + 1 : last + 1])]
            if not earlier:
                break
            index = max(earlier)
            found[id(calls[index].result)] = numbers[id(output)]
    return found
