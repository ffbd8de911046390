"""What the steps of a loop do to which memory: what is read, carried from step to step, and written."""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from gru_xp.devices.primitives import Body
from gru_xp.devices.recording import Operand, Recording, Symbol, record
from gru_xp.nn.scan import Array

MAX_WIDTH = 128
"""The widest cells: of wider ones the weights of a GRU do not fit into a multiprocessor's shared memory."""


class Matmul(NamedTuple):
    """A call of `Ops.matmul`."""

    a: Array
    b: Array
    out: Array


class Pointwise(NamedTuple):
    """A call of `Ops.pointwise`."""

    body: Body
    inputs: tuple[Array | float | None, ...]
    out: tuple[Array, ...]


class UnfitError(Exception):
    """Why a loop cannot be one kernel."""


class Region(NamedTuple):
    """An array at the first step. All but the sizes counts float32 numbers."""

    address: int
    row: int
    column: int
    time: int
    height: int
    width: int

    def columns(self, start: int, width: int) -> "Region":
        return self._replace(address=self.address + start * self.column, width=width)

    def blocks(self, width: int) -> list["Region"]:
        return [self.columns(start, width) for start in range(0, self.width, width)]

    def extent(self, n_steps: int) -> tuple[int, int]:
        """The first and last address over all steps."""
        moves = (self.row * (self.height - 1), self.column * (self.width - 1), self.time * (n_steps - 1))
        return self.address + sum(min(m, 0) for m in moves), self.address + sum(max(m, 0) for m in moves)


class Product(NamedTuple):
    """A product. `reads` tells, by the first column, the cells of its left operand and pieces that no step writes."""

    reads: dict[int, str]
    weight: str
    writes: tuple[str, ...]
    size: tuple[int, int]  # K, and M in blocks


class Elementwise(NamedTuple):
    """A pointwise body, and the cells of its inputs and outputs."""

    recording: Recording
    reads: "dict[Key, str]"
    writes: tuple[str, ...]


class Steps(NamedTuple):
    """What is to be done: `memory` is that of cells ``p…``, pieces ``f…`` and weights ``w…``."""

    n_rows: int
    n_steps: int
    width: int
    memory: dict[str, Region]
    stages: list[Product | Elementwise]

    @property
    def products(self) -> tuple[tuple[int, int], ...]:
        return tuple(stage.size for stage in self.stages if isinstance(stage, Product))


def operands_of(call: Matmul | Pointwise) -> list[Array]:
    """The arrays of a call: inputs, then outputs."""
    if isinstance(call, Matmul):
        return list(call)
    return [*(value for value in call.inputs if hasattr(value, "shape")), *call.out]


def _memory(array: Array) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Address, shape and strides of an array, counted in float32 numbers."""
    interface = getattr(array, "__cuda_array_interface__", None) or getattr(array, "__array_interface__", None)
    if interface is None or interface["typestr"] != "<f4":
        raise UnfitError(f"an array is {getattr(array, 'dtype', type(array).__name__)}, not float32")
    shape = tuple(interface["shape"])
    strides = interface.get("strides") or tuple(4 * math.prod(shape[i + 1 :]) for i in range(len(shape)))
    address = interface["data"][0]
    if any(number % 4 for number in (address, *strides)) or 0 in shape or len(shape) not in (1, 2):
        raise UnfitError(f"an array has shape {shape} and strides of {strides} bytes")
    return address // 4, shape, tuple(stride // 4 for stride in strides)


def _region(arrays: tuple[Array, ...], n_steps: int) -> Region:
    """Where an array is, from what it is in the first, second and last step."""
    (address, shape, strides), second, last = map(_memory, arrays)
    time = second[0] - address
    if last[0] != address + (n_steps - 1) * time or second[1:] != (shape, strides) or last[1:] != (shape, strides):
        raise UnfitError(f"an array of shape {shape} does not move evenly over time")
    height, width = (1,) * (2 - len(shape)) + shape
    row, column = (0,) * (2 - len(shape)) + strides
    return Region(address, row if height > 1 else 0, column if width > 1 else 1, time, height, width)


def _relation(region: Region, written: Region, n_steps: int) -> int | None:
    """In which column of `region`, of some step, `written` begins; None if they have no memory in common."""
    if not _meet(region, written, n_steps):
        return None
    row, time = abs(region.row), abs(region.time)
    distance = written.address - region.address
    pitch = min((stride for stride in (row, time) if stride), default=math.inf)
    shift = distance % time if time else distance
    if pitch < time and shift > time - pitch:  # to the left of where it is in the next step, or the one before
        shift -= time
    nested = not row or not time or time >= region.height * row or row >= n_steps * time + abs(distance)
    alike = (region.row, region.column, region.time) == (written.row, 1, written.time)
    if not (alike and nested) or shift + written.width > pitch or shift + pitch < region.width:
        raise UnfitError("a result lies across the memory of other arrays")
    return shift if -written.width < shift < region.width else None


def _meet(a: Region, b: Region, n_steps: int) -> bool:
    (start, stop), (low, high) = a.extent(n_steps), b.extent(n_steps)
    return start <= high and low <= stop


def _recording(calls: tuple[Any, Any, Any]) -> Recording | None:
    """What a call of :class:`Pointwise` does, the same in all steps; None for a product."""
    call = calls[0]
    if any(type(other) is not type(call) for other in calls):
        raise UnfitError("steps make different calls")
    if isinstance(call, Matmul):
        return None
    if not isinstance(call, Pointwise):
        raise UnfitError(f"a step calls {call!r}")
    given = [[getattr(value, "shape", value) for value in other.inputs] for other in calls]
    if any(other.body is not call.body for other in calls) or any(other != given[0] for other in given):
        raise UnfitError("steps call different bodies, or with different constants or shapes")
    recording = record(call.body, given[0])
    if any(symbol.shape != tuple(array.shape) for symbol, array in zip(recording.outputs, call.out, strict=True)):
        raise UnfitError("a body's results are broadcast")
    return recording


class Key(NamedTuple):
    """A block of columns of a symbol, or, `spread`, its only column for all columns."""

    symbol: int
    start: int
    spread: bool


def keys_of(operand: Operand, result: Symbol, width: int) -> list[Key]:
    """Which blocks of an operand go into the blocks of a result, one column being one block; none of a number."""
    if not isinstance(operand, Symbol):
        return []
    numbers = range(max(1, result.shape[-1] // width))
    if operand.shape[-1] == 1:
        return [Key(id(operand.root), operand.start, width > 1) for _ in numbers]
    return [Key(id(operand.root), operand.start + number * width, False) for number in numbers]


def analyse(first: Sequence[Any], second: Sequence[Any], last: Sequence[Any], n_steps: int) -> Steps:
    """Cut the arrays into cells, and find out which calls read and write which."""
    if n_steps < 2 or not first or not len(first) == len(second) == len(last):
        raise UnfitError("there are not several steps of equally many calls")
    steps = list(zip(first, second, last, strict=True))
    recordings = [_recording(calls) for calls in steps]
    regions = [[_region(arrays, n_steps) for arrays in zip(*map(operands_of, calls), strict=True)] for calls in steps]
    groups = list(zip(recordings, regions, strict=True))
    results = [region for recording, group in groups for region in group[len(recording.inputs) if recording else 2 :]]
    n_rows = results[0].height
    width = math.gcd(*(recording.width if recording else group[-1].width for recording, group in groups))
    widest = max(region.width for region in results)
    if width > MAX_WIDTH or widest > 4 * width or all(recordings):
        raise UnfitError(f"there is no product, or results have up to {widest} columns, in blocks of {width}")
    if any((region.height, region.column) != (n_rows, 1) for region in results):
        raise UnfitError("results have different rows, or columns that are not side by side")
    if any(region.height not in (1, n_rows) for recording, group in groups if recording for region in group):
        raise UnfitError("a body reads arrays of different rows")

    written = [block for region in results for block in region.blocks(width)]
    names: dict[Region, str] = {}
    other: dict[str, Region] = {}

    def cell(region: Region) -> str:
        if region not in names:
            relations = [_relation(region, result, n_steps) for result in written]
            if any(relation is not None and relation != 0 for relation in relations):
                raise UnfitError("a result lies across the columns of another array")
        return names.setdefault(region, f"p{len(names)}")

    def named(name: str, region: Region) -> str:
        other[name] = region
        return name

    def product(number: int, a: Region, b: Region, out: Region) -> Product:
        if a.height != n_rows or b.time or any(_meet(b, result, n_steps) for result in written):
            raise UnfitError("a product's left operand has other rows, or its right operand changes")
        starts = {start for result in written if (start := _relation(a, result, n_steps)) is not None}
        ends = sorted({0, a.width, *starts, *(start + width for start in starts)})
        if ends[0] < 0 or ends[-1] > a.width or any(0 < s - t < width for s in starts for t in starts):
            raise UnfitError("a product reads a part of a result")
        reads = {}
        for start, stop in itertools.pairwise(ends):
            piece = a.columns(start, stop - start)
            reads[start] = cell(piece) if start in starts else named(f"f{number}_{start}", piece)
        weight, writes = named(f"w{number}", b), tuple(map(cell, out.blocks(width)))
        return Product(reads, weight, writes, size=(b.height, len(writes)))

    def elementwise(recording: Recording, arrays: list[Region]) -> Elementwise:
        inputs = {id(symbol): region for symbol, region in zip(recording.inputs, arrays, strict=False)}
        reads = {}
        for call in recording.calls:
            for key in (key for operand in call.operands for key in keys_of(operand, call.result, width)):
                if key.symbol in inputs:
                    region = inputs[key.symbol].columns(key.start, width)
                    reads[key] = cell(region._replace(column=0) if key.spread else region)
        results = [block for region in arrays[len(inputs) :] for block in region.blocks(width)]
        return Elementwise(recording, reads, tuple(map(cell, results)))

    stages = [
        elementwise(recording, group) if recording else product(number, *group)
        for number, (recording, group) in enumerate(groups)
    ]
    return Steps(n_rows, n_steps, width, {name: region for region, name in names.items()} | other, stages)


class Schedule(NamedTuple):
    """When registers are loaded and stored, by the names of their memory; stages are told by number.

    Some are loaded once `at_start`, some right `before` a stage, and some `during` a product, for the next step or for
    this one. Results are stored right `after` the last stage that writes them, or, where the steps write the same
    memory, `at_end`. At the end of a step, `carried` get what the next step will read there.
    """

    at_start: list[str]
    before: dict[int, list[str]]
    during: dict[int, list[tuple[str, bool]]]
    after: dict[int, list[str]]
    at_end: list[str]
    carried: dict[str, str]


def make_schedule(loop: Steps) -> Schedule:
    """Load early what products can hide, and store late what the next step overwrites."""
    names = {region: name for name, region in loop.memory.items()}
    products = [i for i, stage in enumerate(loop.stages) if isinstance(stage, Product)]
    first_read: dict[str, int] = {}
    last_use: dict[str, float] = {}
    last_write: dict[str, int] = {}
    for i, stage in enumerate(loop.stages):
        for name in stage.reads.values():
            last_use[name] = i
            if name not in last_write:
                first_read.setdefault(name, i)
        for name in stage.writes:
            last_use[name] = i + 0.5
            last_write[name] = i
    plan = Schedule([], defaultdict(list), defaultdict(list), defaultdict(list), [], {})
    for name, number in last_write.items():
        (plan.after[number] if loop.memory[name].time else plan.at_end).append(name)
    for name, read in first_read.items():
        region = loop.memory[name]
        source = names.get(region._replace(address=region.address + region.time))
        later = [i for i in products if i >= last_use[name]]
        earlier = [i for i in products if i < read]
        if source in last_write or not region.time or later:
            plan.at_start.append(name)
        if source in last_write and source != name:
            plan.carried[name] = source
        elif region.time and later:
            plan.during[later[0]].append((name, True))
        elif region.time and earlier:
            plan.during[earlier[-1]].append((name, False))
        elif region.time:
            plan.before[read].append(name)
    if any(source in plan.carried for source in plan.carried.values()):
        raise UnfitError("a step reads what two steps before it wrote")
    return plan
