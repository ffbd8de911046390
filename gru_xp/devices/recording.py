"""Run a pointwise body once on symbols, and write down the elementwise calls it makes.

A device then plays the calls back its own way: NumPy as ufuncs into kept memory, CuPy as one kernel.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from gru_xp.nn.ops import Body

FUNCTIONS = ("add", "divide", "exp", "multiply", "negative", "subtract", "tanh")
"""What a body may call, by the Array API's names; all but exp and tanh by their operators, too."""


class Symbol:
    """Stands for an array while a body is recorded."""

    def __init__(self, shape: tuple[int, ...], calls: "list[Call]") -> None:
        self.shape = shape
        self._calls = calls

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

    def __neg__(self) -> "Symbol":
        return _call("negative", self)


Operand: TypeAlias = Symbol | float


class Call(NamedTuple):
    """One elementwise call."""

    function: str
    operands: tuple[Operand, ...]
    result: Symbol


class Recording(NamedTuple):
    """What a body does: its inputs, its outputs, and the calls that lead from one to the other, in order."""

    inputs: tuple[Symbol, ...]
    outputs: tuple[Symbol, ...]
    calls: list[Call]


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
    result = Symbol(_broadcast([symbol.shape for symbol in symbols]), calls)
    calls.append(Call(function, operands, result))
    return result


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    ndim = max(map(len, shapes))
    padded = [(1,) * (ndim - len(shape)) + shape for shape in shapes]
    result = tuple(max(sizes) for sizes in zip(*padded, strict=True))
    if any(size not in (1, out) for shape in padded for size, out in zip(shape, result, strict=True)):
        raise ValueError(f"shapes {', '.join(map(str, shapes))} do not go together in a pointwise body")
    return result


def record(body: Body, shapes: Sequence[tuple[int, ...]]) -> Recording:
    """Record what `body` does to arrays of `shapes`.

    Raises
    ------
    ValueError
        An output is an input or stands twice, so that it could not be written where it belongs.
    """
    calls: list[Call] = []
    inputs = tuple(Symbol(shape, calls) for shape in shapes)
    outputs = body(_RecordingNamespace(), *inputs)
    if len({id(symbol) for symbol in (*inputs, *outputs)}) < len(inputs) + len(outputs):
        raise ValueError(f"{body.__name__} returns an input, or a result twice; each output must be computed")
    return Recording(inputs, outputs, calls)
