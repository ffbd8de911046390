"""Run a pointwise body once on symbols, and write down the elementwise calls it makes.

A device then plays the calls back its own way: NumPy as ufuncs into kept memory, CUDA as part of a kernel.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from gru_xp.devices.primitives import Body

FUNCTIONS = ("add", "divide", "exp", "greater", "maximum", "multiply", "negative", "sqrt", "subtract", "tanh", "where")
"""What a body may call, by the Array API's names; most of them can be written as operators.

The first argument of ``where`` is what ``greater`` returned, which is for nothing else.
"""


class Symbol:
    """Stands for an array while a body is recorded.

    Attributes
    ----------
    shape
        Of the array.
    parent, start
        Of which symbol it is a slice of columns, and where that begins; None and 0 if it is none.
    """

    def __init__(
        self, shape: tuple[int, ...], calls: "list[Call]", parent: "Symbol | None" = None, start: int = 0
    ) -> None:
        self.shape = shape
        self.parent = parent
        self.start = start
        self._calls = calls

    @property
    def root(self) -> "Symbol":
        """The symbol that has the memory: itself, if it is no slice."""
        return self if self.parent is None else self.parent

    def __getitem__(self, key: object) -> "Symbol":
        columns = key[1] if isinstance(key, tuple) and len(key) == 2 and key[0] is ... else None
        if not isinstance(columns, slice) or columns.step not in (None, 1):
            raise TypeError(f"a pointwise body slices an array by {key!r}; it may take columns, as in a[..., :n]")
        start, stop, _ = columns.indices(self.shape[-1])
        return Symbol((*self.shape[:-1], stop - start), self._calls, self.root, self.start + start)

    def __add__(self, other: "Operand") -> "Symbol":
        return _call("add", self, other)

    def __radd__(self, other: float) -> "Symbol":
        return _call("add", other, self)

    def __sub__(self, other: "Operand") -> "Symbol":
        return _call("subtract", self, other)

    def __rsub__(self, other: float) -> "Symbol":
        return _call("subtract", other, self)

    def __mul__(self, other: "Operand") -> "Symbol":
        return _call("multiply", self, other)

    def __rmul__(self, other: float) -> "Symbol":
        return _call("multiply", other, self)

    def __truediv__(self, other: "Operand") -> "Symbol":
        return _call("divide", self, other)

    def __rtruediv__(self, other: float) -> "Symbol":
        return _call("divide", other, self)

    def __gt__(self, other: "Operand") -> "Symbol":
        return _call("greater", self, other)

    def __lt__(self, other: "Operand") -> "Symbol":
        return _call("greater", other, self)

    def __neg__(self) -> "Symbol":
        return _call("negative", self)


Operand: TypeAlias = Symbol | float


class Call(NamedTuple):
    """One elementwise call."""

    function: str
    operands: tuple[Operand, ...]
    result: Symbol


class Recording(NamedTuple):
    """What a body does: its inputs, its outputs, and the calls that lead from one to the other, in order.

    Operands may be slices of inputs and results; inputs that are numbers, or None, are not listed.
    """

    inputs: tuple[Symbol, ...]
    outputs: tuple[Symbol, ...]
    calls: list[Call]

    @property
    def width(self) -> int:
        """The widest columns that every symbol is a whole number of, one-column broadcasts aside."""
        used = [*self.outputs, *(call.result for call in self.calls)]
        used += [operand for call in self.calls for operand in call.operands if isinstance(operand, Symbol)]
        outputs = math.gcd(*(symbol.shape[-1] for symbol in self.outputs))
        sizes = [s.shape[-1] for s in used if s.shape[-1] != 1 or outputs == 1 or s.parent is not None]
        return math.gcd(*sizes, *(symbol.start for symbol in used))


class _RecordingNamespace:
    """The namespace that a body sees while it is recorded."""

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name not in FUNCTIONS:
            raise AttributeError(f"a pointwise body calls {name!r}; it may call {', '.join(FUNCTIONS)}")
        return lambda *operands: _call(name, *operands)


def _call(function: str, *operands: Operand) -> Symbol:
    symbols = [operand for operand in operands if isinstance(operand, Symbol)]
    if not symbols:
        raise TypeError(f"a pointwise body calls {function} on no array; compute constants outside of it")
    calls = symbols[0]._calls
    if any(operand is None for operand in operands):
        raise TypeError(f"a pointwise body calls {function} on None; it must do without inputs that are None")
    result = Symbol(broadcast([symbol.shape for symbol in symbols], "a pointwise body"), calls)
    calls.append(Call(function, operands, result))
    return result


def broadcast(shapes: Sequence[tuple[Any, ...]], where: str) -> tuple[Any, ...]:
    """The shape of an elementwise result of arrays of given shapes.

    Raises
    ------
    ValueError
        They do not go together.
    """
    if len(set(shapes)) == 1:
        return shapes[0]
    ndim = max(map(len, shapes))
    padded = [(1,) * (ndim - len(shape)) + shape for shape in shapes]
    sizes = [{n for n in axis if n != 1} or {1} for axis in zip(*padded, strict=True)]
    if any(len(some) > 1 for some in sizes):
        raise ValueError(f"shapes {', '.join(map(str, shapes))} do not go together in {where}")
    return tuple([some.pop() for some in sizes])


def record(body: Body, inputs: Sequence[tuple[int, ...] | float | None]) -> Recording:
    """Record what `body` does to arrays of given shapes, to numbers, and with None for what it has to do without.

    Raises
    ------
    TypeError
        It does what a device could not do its own way.
    ValueError
        An output is an input, a slice, or stands twice, so that it could not be written where it belongs.
    """
    calls: list[Call] = []
    arguments = [Symbol(given, calls) if isinstance(given, tuple) else given for given in inputs]
    symbols = tuple(argument for argument in arguments if isinstance(argument, Symbol))
    outputs = body(_RecordingNamespace(), *arguments)
    _check_conditions(body, outputs, calls)
    distinct = {id(symbol) for symbol in (*symbols, *outputs)}
    if len(distinct) < len(symbols) + len(outputs) or any(symbol.parent is not None for symbol in outputs):
        raise ValueError(f"{body.__name__} returns an input, a slice, or a result twice; each output must be computed")
    return Recording(symbols, outputs, calls)


def _check_conditions(body: Body, outputs: Sequence[Symbol], calls: Sequence[Call]) -> None:
    conditions = {id(call.result) for call in calls if call.function == "greater"}

    def is_condition(operand: Operand) -> bool:
        return isinstance(operand, Symbol) and id(operand.root) in conditions

    if any(map(is_condition, outputs)) or any(
        is_condition(operand) != (call.function == "where" and place == 0)
        for call in calls
        for place, operand in enumerate(call.operands)
    ):
        raise TypeError(f"{body.__name__} chooses by a number, or computes with a > b; it may do xp.where(a > b, c, d)")
