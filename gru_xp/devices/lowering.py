"""Run pure steps, scanned over time, and other pure functions by the primitives of a device.

What a step does is planned once for each shape, and then emitted as calls of `empty`, `copy`, `matmul`, `contract`,
`pointwise` and `loop` of an `Ops`. So it can be captured, compiled into one kernel, or counted, as every such call.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from gru_xp.devices.primitives import Ops
from gru_xp.devices.step_plan import (
    Buffer,
    Copy,
    Kind,
    Place,
    Product,
    Run,
    Span,
    Stage,
    StepPlan,
    call_plan,
    filled,
    leaves_of,
    scan_plan,
    structure_of,
)
from gru_xp.devices.tracing import ROWS, Symbol
from gru_xp.nn.pointwise import add
from gru_xp.nn.scan import Array, Namespace

MIN_NUMBERS = 2**20
"""Numbers below which parts are put together by one thread: starting others would take longer."""


class Kept:
    """A result of a scan ``(T, B, K)`` whose sequences are in several arrays, as they were computed.

    Another scan of the same device takes it as it is; whatever else is done to it is done to `joined`, one array.

    Attributes
    ----------
    shape, ndim, dtype
        Of the whole.
    """

    ndim = 3

    def __init__(self, ops: Ops, parts: Sequence[tuple[slice, Array]]) -> None:
        self._ops, self.parts = ops, list(parts)
        T, _, K = self.parts[0][1].shape
        self.shape = (T, self.parts[-1][0].stop, K)
        self.dtype = self.parts[0][1].dtype

    @property
    def rows(self) -> list[slice]:
        """Which sequences the parts have."""
        return [rows for rows, _ in self.parts]

    def __getitem__(self, key: Any) -> "Kept":
        """Some of the steps."""
        steps = key[0] if isinstance(key, tuple) else key
        if not isinstance(steps, slice) or (isinstance(key, tuple) and key[1:] not in ((), (...,))):
            raise TypeError(f"a result in parts is sliced by {key!r}; slice its steps alone, as in a[i:j, ...]")
        return Kept(self._ops, [(rows, array[steps]) for rows, array in self.parts])

    def __reduce__(self) -> tuple[Callable[[Array], Array], tuple[Array]]:
        return _same, (self.joined(),)  # a copy, pickled or not, is an array

    def joined(self) -> Array:
        """One array."""
        whole = self._ops.empty(self.shape, like=self.parts[0][1])
        self.copy_to(whole)
        return whole

    def copy_to(self, out: Array) -> None:
        """Write it into one array."""
        ops = self._ops
        if math.prod(self.shape) < MIN_NUMBERS:
            for rows, array in self.parts:
                ops.copy(array, out[:, rows])
            return
        T, B, K = self.shape
        workers = [worker for _, worker in ops.parts(B, T, K, K)]
        parts = zip(self.parts, cycle(workers), strict=False)
        ops.run([(worker, partial(worker.copy, array, out[:, rows])) for (rows, array), worker in parts])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        whole = self.joined()
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __array_namespace__(self, api_version: str | None = None) -> "_JoiningNamespace":
        return _JoiningNamespace(array_namespace(self.parts[0][1]))


class _JoiningNamespace:
    """A namespace for :class:`Kept`, which are joined wherever a function gets them."""

    def __init__(self, xp: Namespace) -> None:
        self._xp = xp

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._xp, name)
        if not callable(value) or isinstance(value, type):
            return value
        return lambda *arguments, **options: value(*map(_joined, arguments), **options)


def _joined(a: Any) -> Any:
    return a.joined() if isinstance(a, Kept) else a


class Lowered:
    """Gives ops that have the primitives the methods of `gru_xp.nn.scan.Scan`."""

    def scan(
        self: Any,
        step: Any,
        weights: Any,
        carry: Array | None,
        xs: tuple[Any, ...],
        *,
        rows: tuple[Any, ...] = (),
        reverse: bool = False,
    ) -> tuple[Any, tuple[Any, ...], tuple[Array, ...]]:
        """See `gru_xp.nn.scan.Scan`; `ys` whose sequences were split are :class:`Kept`.

        Raises
        ------
        TypeError
            The step does something that is not traced; the message lists what it may do.
        ValueError
            Shapes do not go together.
        """
        ops: Ops = self
        given = [x for x in xs if x is not None]
        like = given[0] if carry is None else carry
        (T, B), K = given[0].shape[:2], like.shape[-1]
        workers = ops.parts(B, T, given[0].shape[2], K)
        split = next((x.rows for x in given if isinstance(x, Kept)), None)
        if split is None or any(isinstance(x, Kept) and x.rows != split for x in given):
            split = [some for some, _ in workers]
        key, leaves = structure_of(weights), tuple(leaves_of(weights))
        tasks: list[tuple[Ops, Callable[[], Any]]] = []
        whole = None if carry is None or len(split) == 1 else ops.empty(carry.shape, like=carry)
        for number, some in enumerate(split):
            one = len(split) == 1
            worker = workers[number % len(workers)][1]
            xs_part = [x if one and not isinstance(x, Kept) else _part(x, some, number, split) for x in given]
            carry_part = carry if one or carry is None else carry[some]
            rows_part = rows if one else tuple([None if a is None else a[some] for a in rows])
            n = some.stop - some.start
            key_xs = tuple([None if x is None else ("array", ROWS if n > 1 else 1, x.shape[2]) for x in xs])
            plan = scan_plan(
                step, key, structure_of(carry_part, n), ("tuple", tuple, key_xs), structure_of(rows_part, n)
            )
            into = None if whole is None else whole[some]
            inputs = leaves, tuple(leaves_of(rows_part)), tuple(xs_part)
            tasks.append((worker, ScanPart(worker, (plan.plan, *inputs, carry_part, into, T, reverse))))
        results = ops.run(tasks)
        carried, ys, sums = results[0]
        for _, _, more in results[1:]:
            for total, part in zip(sums, more, strict=True):
                ops.pointwise(add, (total, part), out=(total,))
        if len(results) > 1:
            carried = whole
            ys = [
                Kept(ops, list(zip(split, arrays, strict=True)))
                for arrays in zip(*(r[1] for r in results), strict=True)
            ]
        return carried, tuple([None if i is None else ys[i] for i in plan.ys]), tuple(sums)

    def call(self: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        """See `gru_xp.nn.scan.Scan`.

        Raises
        ------
        TypeError
            The function does something that is not traced; the message lists what it may do.
        ValueError
            Shapes do not go together.
        """
        leaves = leaves_of(arguments)
        plan, result, only_copied = call_plan(function, structure_of(arguments))
        leaves = [a if number in only_copied else _joined(a) for number, a in enumerate(leaves)]
        like = leaves[0].parts[0][1] if isinstance(leaves[0], Kept) else leaves[0]
        memory = _Memory(plan, self, {"weight": leaves}, like, 0, 0, False)
        for stage in plan.once:
            _emit(stage, self, memory.whole, memory.of_place)
        memory.end_calls()
        return filled(result, [memory.whole(s) for s in plan.ys])

    def for_calls(self, array: Array) -> Array:
        """The same array for the calls of a function that keeps the given one until all of them are made."""
        return array


def _same(array: Array) -> Array:
    return array


def _part(x: Any, some: slice, number: int, split: Sequence[slice]) -> Array:
    """Some sequences of an input."""
    if not isinstance(x, Kept):
        return x[:, some]
    return x.parts[number][1] if x.rows == split else x.joined()[:, some]


# --- one part ---------------------------------------------------------------------------------------------------


class _Memory:
    """Arrays for the buffers of a plan, taken when they are asked for first, and views of them and of inputs."""

    def __init__(
        self,
        plan: StepPlan,
        ops: Ops,
        inputs: dict[str, Sequence[Array]],
        like: Array,
        T: int,
        block_length: int,
        reverse: bool,
    ) -> None:
        self._plan, self._ops, self._like, self._reverse = plan, ops, like, reverse
        self._T, self._block_length = T, block_length
        self._for_calls = ops.for_calls if isinstance(ops, Lowered) else _same
        self._given = inputs
        self._taken: dict[Buffer, Array] = {}
        self.inputs: dict[str, Sequence[Array]] = {
            kind: list(map(self._for_calls, arrays)) for kind, arrays in inputs.items()
        }
        self._arrays: dict[Buffer, Array] = {}
        self._views: dict[Symbol, tuple[Array, Kind]] = {}

    def array(self, buffer: Buffer) -> Array:
        array = self._arrays.get(buffer)
        if array is None:
            shape = _shape_of(buffer, self._like, self._T, self._block_length)
            self._taken[buffer] = self._ops.empty(shape, like=self._like)
            array = self._arrays[buffer] = self._for_calls(self._taken[buffer])
        return array

    def end_calls(self) -> None:
        """From now on, give arrays for results, which keep their memory."""
        self.inputs, self._arrays, self._views, self._for_calls = self._given, self._taken, {}, _same

    def steps(self, buffer: Buffer, after: bool) -> Array:
        """A buffer's places for all steps: before them, or after them."""
        array = self.array(buffer)
        if not buffer.carries:
            return array
        start = int(after != self._reverse)
        return array[start : start + self._T]

    def of_place(self, place: Place) -> Array:
        """A place, for all steps if it has several."""
        array = self.steps(place.buffer, place.after)
        return array if place.slices is None else array[place.slices]

    def of_span(self, span: Span) -> Array:
        """Columns of a buffer or an input, for all steps."""
        source = span.source
        array = self.steps(source, span.after) if isinstance(source, Buffer) else self.inputs["x"][source]
        return array if (span.start, span.stop) == (0, array.shape[-1]) else array[..., span.start : span.stop]

    def view(self, s: Symbol) -> tuple[Array, Kind]:
        """Where a symbol lies, for all steps if it has several places."""
        found = self._views.get(s)
        if found is None:
            found = self._views[s] = self._view(s)
        return found

    def _view(self, s: Symbol) -> tuple[Array, Kind]:
        place = self._plan.places.get(s)
        if place is not None:
            return self.of_place(place), place.buffer.kind
        if s.op == "input":
            return self.inputs[s.args[0]][s.args[1]], Kind.TIME if s.args[0] == "x" else Kind.STEP
        array, kind = self.view(s.args[0])
        if s.op == "transpose":
            return array.T, kind
        return array[s.args[1] if s.op == "part" else (..., slice(*s.args[1:]))], kind

    def whole(self, s: Symbol) -> Array:
        """Where a symbol lies, for all steps if it has several places."""
        return self.view(s)[0]


def _emit(stage: Stage, ops: Ops, of: Callable[[Symbol], Array], of_place: Callable[[Place], Array]) -> None:
    if isinstance(stage, Product):
        a, b = stage.symbol.args
        ops.matmul(of(a), of(b), out=of(stage.symbol))
    elif isinstance(stage, Copy):
        source, place = of(stage.source) if isinstance(stage.source, Symbol) else stage.source, of_place(stage.place)
        source.copy_to(place) if isinstance(source, Kept) else ops.copy(source, place)
    else:
        ops.pointwise(stage.body, tuple([of(a) for a in stage.inputs]), out=tuple([of(a) for a in stage.outputs]))


def _shape_of(buffer: Buffer, like: Array, T: int, block_length: int) -> tuple[int, ...]:
    lead = ((), (block_length,), (T + buffer.carries,))[buffer.kind]
    return *lead, *(like.shape[-2] if n is ROWS else n for n in buffer.shape)


class LoopCall(NamedTuple):
    """A stage of the loop: what it reads and writes, each with the steps that it has."""

    stage: Stage
    reads: list[tuple[Any, Kind]]
    writes: list[tuple[Array, Kind]]


@dataclass(frozen=True)
class LoopSteps:
    """The steps of a block that begins at `start`: ``steps(t)`` makes the calls of step `t`."""

    ops: Ops
    calls: Sequence[LoopCall]
    start: int

    def __call__(self, t: int) -> None:
        self.make(t, self.ops)

    def make(self, t: int, ops: Ops) -> None:
        """The calls of step `t`, of other ops."""
        index = (None, t - self.start, t)  # of each Kind
        for stage, reads, writes in self.calls:
            given = tuple([a[index[kind]] if kind else a for a, kind in reads])
            out = tuple([a[index[kind]] if kind else a for a, kind in writes])
            if isinstance(stage, Run):
                ops.pointwise(stage.body, given, out=out)
            elif isinstance(stage, Product):
                ops.matmul(given[0], given[1], out=out[0])
            else:
                ops.copy(given[0], out[0])


@dataclass(frozen=True)
class ScanPart:
    """The scan of some sequences, which a call of this object does; `arguments` are those of `scan_part`."""

    ops: Any
    arguments: tuple[Any, ...]

    def __call__(self) -> tuple[Array | None, list[Array], list[Array]]:
        return scan_part(self.ops, *self.arguments)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        plan, _, _, xs, carry, _, T, _ = self.arguments
        like = xs[0] if carry is None else carry
        length = _block_length(self.ops, plan, like, T)
        sizes = [math.prod(_shape_of(buffer, like, T, length)) for buffer in plan.buffers]
        return sum(sizes) * int(like.dtype.itemsize)


def scan_part(
    ops: Ops,
    plan: StepPlan,
    weights: Sequence[Array],
    rows: Sequence[Array],
    xs: Sequence[Array],
    carry: Array | None,
    into: Array | None,
    T: int,
    reverse: bool,
) -> tuple[Array | None, list[Array], list[Array]]:
    """The scan of some sequences: the last carry, also written `into` an array, ys, and sums."""
    like = xs[0] if carry is None else carry
    length = _block_length(ops, plan, like, T)
    memory = _Memory(plan, ops, {"weight": weights, "row": rows, "x": xs}, like, T, length, reverse)
    for stage in (*plan.once, *plan.written, *plan.before):
        _emit(stage, ops, memory.whole, memory.of_place)
    if plan.carry_in is not None:
        state, kind = memory.view(plan.carry_in)
        ops.copy(carry, state[T - 1 if reverse else 0] if kind else state)
    stages = plan.loop
    if plan.carry_copied is not None:
        assert plan.carry_out is not None
        stages = [*stages, Copy(plan.carry_out, plan.carry_copied)]
    calls = [_loop_call(stage, memory) for stage in stages]
    sums: list[Array] = [None] * sum(len(c.results) for c in plan.contractions)
    totals = []
    for contraction in plan.contractions:
        a, b = memory.of_span(contraction.a), memory.of_span(contraction.b)
        total = ops.empty((a.shape[-1], b.shape[-1]), like=like)
        totals.append((contraction, a, b, total))
        for number, some, columns in contraction.results:
            sums[number] = total[some, columns]
    for number, block in enumerate(_blocks(T, length, reverse)):
        times = range(block.start, block.stop)
        if calls:
            ops.loop(LoopSteps(ops, calls, block.start), times[::-1] if reverse else times)
        at = partial(_of_block, block)
        for stage in plan.after:
            _emit(stage, ops, lambda s, at=at: at(*memory.view(s)), memory.of_place)  # type: ignore[misc]
        for contraction, a, b, total in totals:
            a_block, b_block = at(a, _kind(contraction.a)), at(b, _kind(contraction.b))
            ops.contract(a_block, b_block, out=total, add=number > 0)
    memory.end_calls()
    ys = []
    for s, is_alone in zip(plan.ys, plan.alone, strict=True):
        y = memory.whole(s)
        if is_alone:
            ops.copy(y, out := ops.empty(y.shape, like=y))
            y = out
        ys.append(y)
    last = None if carry is None else _last(ops, plan, memory, T, reverse, into)
    return last, ys, sums


def _block_length(ops: Ops, plan: StepPlan, like: Array, T: int) -> int:
    """After how many steps of the loop something else is done for all of them."""
    if not plan.loop or not plan.in_blocks:
        return T
    return max(1, min(T, ops.block_length(T, *like.shape[-2:])))


def _last(ops: Ops, plan: StepPlan, memory: _Memory, T: int, reverse: bool, into: Array | None) -> Array:
    """The carry after the step that is run last."""
    assert plan.carry_in is not None
    place = plan.places[plan.carry_in]
    last = memory.of_place(place)
    if place.buffer.kind == Kind.TIME:
        last = memory.array(place.buffer)[0 if reverse else T]
        last = last if place.slices is None else last[place.slices]
        into = ops.empty(last.shape, like=last) if into is None else into  # not to keep the states of all steps
    if into is not None:
        ops.copy(last, into)
        return into
    return last


def _loop_call(stage: Stage, memory: _Memory) -> LoopCall:
    if isinstance(stage, Product):
        return LoopCall(stage, [memory.view(a) for a in stage.symbol.args], [memory.view(stage.symbol)])
    if isinstance(stage, Run):
        return LoopCall(stage, [memory.view(a) for a in stage.inputs], [memory.view(a) for a in stage.outputs])
    source = memory.view(stage.source) if isinstance(stage.source, Symbol) else (stage.source, Kind.STEP)
    return LoopCall(stage, [source], [(memory.of_place(stage.place), stage.place.buffer.kind)])


def _of_block(block: slice, array: Array, kind: Kind) -> Array:
    """The steps of a block, of an array for all steps or for one block."""
    if kind == Kind.STEP:
        return array
    return array[block if kind == Kind.TIME else slice(0, block.stop - block.start)]


def _kind(span: Span) -> Kind:
    return span.source.kind if isinstance(span.source, Buffer) else Kind.TIME


def _blocks(T: int, length: int, reverse: bool) -> list[slice]:
    """Runs of steps, in the order in which they are run; the last one may be shorter."""
    if reverse:
        return [slice(max(0, stop - length), stop) for stop in range(T, 0, -length)]
    return [slice(start, min(T, start + length)) for start in range(0, T, length)]
