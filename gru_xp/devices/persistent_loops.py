"""Persistent kernels of loops: each is planned once, then only its arguments are made for the next loop alike.

What is planned depends on bodies, shapes, strides, and which memory the arrays have in common, but not on where that
memory is. So each piece of memory that overlaps no other has a number, and arrays are told by their places in it.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from gru_xp.devices.lowering import LoopSteps
from gru_xp.devices.persistent import Matmul, PersistentLoop, Pointwise, compile_loop
from gru_xp.devices.persistent_tile import Limits, LoopSize, Tile, fastest_tile
from gru_xp.devices.step_plan import Copy, Run
from gru_xp.nn.scan import Array

MAX_LOOPS = 2048
"""Plans of loops to keep: with other numbers of sequences and steps, each has one of its own."""

TileChoice: TypeAlias = Callable[[LoopSize, Limits], Tile]


class PersistentLoops:
    """The kernels for loops, found by what they do; for one thread.

    Parameters
    ----------
    choose_tile
        ``choose_tile(loop, limits)``: one of `gru_xp.devices.persistent_tile.feasible_tiles`.
    """

    def __init__(self, choose_tile: TileChoice = fastest_tile) -> None:
        self._choose_tile = choose_tile
        self._known: OrderedDict[Any, _Plan | None] = OrderedDict()

    def find(self, steps: LoopSteps, times: Sequence[int], limits: Limits) -> PersistentLoop | None:
        """The kernel for several steps of a loop, ready to be launched; None if there is none for it."""
        layout = _layout_of(steps, times)
        if layout is None:
            return None
        key = layout.key, limits
        if key in self._known:
            self._known.move_to_end(key)
        else:
            self._known[key] = self._new_plan(steps, times, limits, layout)
            if len(self._known) > MAX_LOOPS:
                self._known.popitem(last=False)
        plan = self._known[key]
        return None if plan is None else plan.at(layout.addresses)

    def _new_plan(self, steps: LoopSteps, times: Sequence[int], limits: Limits, layout: "_Layout") -> "_Plan | None":
        first, second, last = (_calls_of(steps, t) for t in (times[0], times[1], times[-1]))
        program = compile_loop(first, second, last, len(times), limits=limits, tile=self._choose_tile)
        if program is None:
            return None
        places = []
        for position in program.addresses:
            address = program.arguments[position]
            number = next(n for n, (low, high) in enumerate(layout.extents) if low <= address <= high)
            places.append((position, number, int(address) - layout.addresses[number]))
        return _Plan(program._replace(arrays=()), places)


class _Plan(NamedTuple):
    """A kernel, and which of its arguments are addresses: their positions, pieces of memory, and places in these."""

    program: PersistentLoop
    places: list[tuple[int, int, int]]

    def at(self, addresses: Sequence[int]) -> PersistentLoop:
        arguments = list(self.program.arguments)
        for position, number, offset in self.places:
            arguments[position] = addresses[number] + offset
        return self.program._replace(arguments=tuple(arguments))


class _Layout(NamedTuple):
    """What the plan of a loop depends on, and where its pieces of memory are.

    Of each piece, `addresses` has the address of an array that begins somewhere in it, and `extents` the lowest and the
    highest one.
    """

    key: Any
    addresses: list[int]
    extents: list[tuple[int, int]]


def _layout_of(steps: LoopSteps, times: Sequence[int]) -> _Layout | None:
    """The layout of a loop; None where there is no kernel for it anyway."""
    index, pace, n_steps = (0, times[0] - steps.start, times[0]), times[1] - times[0], len(times)
    bodies: list[Any] = []
    operands: list[tuple[int, tuple[int, ...], tuple[int, ...], int]] = []
    ranges: list[tuple[int, int, int]] = []
    for stage, reads, writes in steps.calls:
        if isinstance(stage, Copy):
            return None
        bodies.append(stage.body if isinstance(stage, Run) else None)
        for array, kind in (*reads, *writes):
            address, shape, strides, time = _address_of(array), array.shape, array.strides, 0
            if array.dtype.char != "f" or 0 in shape:
                return None
            if kind:
                address += index[kind] * strides[0]
                time = pace * strides[0]
                shape, strides = shape[1:], strides[1:]
            low = high = address
            for size, stride in zip((*shape, n_steps), (*strides, time), strict=True):
                if stride < 0:
                    low += stride * (size - 1)
                else:
                    high += stride * (size - 1)
            ranges.append((low, high, len(operands)))
            operands.append((address, shape, strides, time))

    piece_of = [0] * len(operands)
    pieces: list[tuple[int, int]] = []
    for low, high, number in sorted(ranges):
        if pieces and low <= pieces[-1][1]:
            pieces[-1] = pieces[-1][0], max(high, pieces[-1][1])
        else:
            pieces.append((low, high))
        piece_of[number] = len(pieces) - 1
    numbers: dict[int, int] = {}  # of pieces in the order of arrays, as the order in memory may be another next time
    addresses: list[int] = []
    parts = []
    for (address, *others), piece in zip(operands, piece_of, strict=True):
        number = numbers.setdefault(piece, len(addresses))
        if number == len(addresses):
            addresses.append(address)
        parts.append((*others, number, address - addresses[number]))
    return _Layout((*bodies, *parts, n_steps), addresses, [pieces[piece] for piece in numbers])


def _address_of(array: Array) -> int:
    data = array.data
    address: int = data.ptr if hasattr(data, "ptr") else array.__array_interface__["data"][0]
    return address


class _Writer:
    """Writes the calls of a step down."""

    def __init__(self) -> None:
        self.calls: list[Matmul | Pointwise] = []

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        self.calls.append(Matmul(a, b, out))
        return out

    def pointwise(self, body: Any, inputs: tuple[Any, ...], out: tuple[Array, ...]) -> None:
        self.calls.append(Pointwise(body, inputs, out))


def _calls_of(steps: LoopSteps, t: int) -> list[Matmul | Pointwise]:
    writer: Any = _Writer()
    steps.make(t, writer)
    calls: list[Matmul | Pointwise] = writer.calls
    return calls
