"""How much memory scans and calls take, read off their plans: nothing is computed, and nothing is allocated."""

import math
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from gru_xp.devices.cuda_graph import ALIGNMENT
from gru_xp.devices.cupy_ops import CupyOps
from gru_xp.devices.free_parts import FreeParts, Part
from gru_xp.devices.numpy_memory import LINE, Scratch
from gru_xp.devices.numpy_ops import MAX_PRODUCT_NUMBERS, NumpyOps
from gru_xp.devices.numpy_plan import make_plan
from gru_xp.devices.primitives import Body, Ops
from gru_xp.devices.recording import record
from gru_xp.devices.self_check import T as CHECKED_STEPS
from gru_xp.devices.step_plan import (
    MAX_PLANS,
    Buffer,
    Copy,
    Kind,
    Run,
    Stage,
    StepPlan,
    built,
    call_plan,
    filled,
    leaves_of,
    scan_plan,
    structure_of,
)
from gru_xp.devices.tracing import ONCE, ROWS, Shape, Symbol
from gru_xp.nn.scan import Array, Arrays, Step

CALL_BYTES = 320
"""What a call takes that is written down for replays: its tuple, and the views of arrays that are its arguments."""

Temporaries: TypeAlias = "Counter[tuple[tuple[int, ...], int]]"
"""How many temporaries there are of each shape and size of a number; bodies share them."""


class PlannedMemory:
    """A `gru_xp.nn.scan.Scan` whose results are shapes alone, and which counts the memory that they would take.

    Memory of a result is free again, for later ones, when neither it nor a view of it is left: so captured functions
    share memory, one after another.

    Parameters
    ----------
    ops
        Of the device that is asked about.

    Attributes
    ----------
    array_bytes
        Of the arrays of all that was run so far.
    noted_bytes
        Of calls that are written down for replays, on the CPU, and of arrays of one number that these refer to.
    check_bytes
        Of the largest comparison of a persistent kernel with other ones before its first launch, on CUDA.
    """

    def __init__(self, ops: Ops, *, is_check: bool = False) -> None:
        self.array_bytes = self.noted_bytes = self.check_bytes = 0
        self._is_check = is_check
        self._ops, self._is_numpy = ops, isinstance(ops, NumpyOps)
        self._alignment = LINE if self._is_numpy else ALIGNMENT
        self._temporaries: Temporaries = Counter()
        self._free, self._n_buffers = FreeParts(), 0

    @property
    def nbytes(self) -> int:
        """Of all this, and of temporaries."""
        temporaries = sum(n * itemsize * math.prod(shape) for (shape, itemsize), n in self._temporaries.items())
        return self.array_bytes + self.noted_bytes + self.check_bytes + temporaries

    def count(self, function: Callable[["PlannedMemory"], object], times: int = 1) -> None:
        """Count what a function takes, ``function(self)``, that is called several times, one after another."""
        before = self.noted_bytes
        function(self)
        self.noted_bytes += (times - 1) * (self.noted_bytes - before)

    def scan(
        self, step: Step, weights: Any, carry: Any, xs: Arrays, *, rows: Arrays = (), reverse: bool = False
    ) -> tuple[Any, Arrays, Arrays]:
        given = [x for x in xs if x is not None]
        like = given[0] if carry is None else carry
        T, B = given[0].shape[:2]
        one_step = tuple([None if x is None else x[0] for x in xs])
        plan, where = scan_plan(
            step, structure_of(weights), *(structure_of(tree, B) for tree in (carry, one_step, rows))
        )
        in_blocks = plan.loop and plan.in_blocks
        length = max(1, min(T, self._ops.block_length(T, B, like.shape[-1]))) if in_blocks else T
        self._note_check(plan, T, like, (step, weights, carry, xs, rows))
        held = self._hold([a for a in (carry, *given) if a is not None and a.base is None])
        memory = _Memory(self, plan, like.dtype, B, T, length)
        self._note_calls(plan, like.dtype, B, T, length)
        memory.write(*plan.once, *plan.written, *plan.before)
        if plan.carry_in is not None:
            memory.of_buffer(plan.places[plan.carry_in].buffer)
        memory.write(*plan.loop)
        sums: list[Any] = [None] * sum(len(c.results) for c in plan.contractions)
        for a, b, results in plan.contractions:
            total = self.array((a.stop - a.start, b.stop - b.start), like.dtype)
            for number, some, columns in results:
                sums[number] = total[some, columns]
        memory.write(*plan.after)
        ys = [
            self.array((T, *_sizes(y.shape, B)), like.dtype) if is_alone else memory.of(y, (T,), given)
            for y, is_alone in zip(plan.ys, plan.alone, strict=True)
        ]
        last = None if carry is None else self._last(plan, memory, carry)
        del held
        return last, tuple([None if i is None else ys[i] for i in where]), tuple(sums)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        leaves = leaves_of(arguments)
        plan, result, _ = call_plan(function, structure_of(arguments))
        memory = _Memory(self, plan, leaves[0].dtype, 1, 0, 0)
        self._note_calls(plan, leaves[0].dtype, 1, 0, 0)
        memory.write(*plan.once)
        return filled(result, [memory.of(y, (), leaves) for y in plan.ys])

    def _last(self, plan: StepPlan, memory: "_Memory", carry: Array) -> Array:
        assert plan.carry_in is not None
        buffer = plan.places[plan.carry_in].buffer
        if buffer.kind == Kind.TIME:
            return self.array(carry.shape, carry.dtype)
        return shape_alone(carry.shape, carry.dtype, memory.of_buffer(buffer))

    def _hold(self, constants: Sequence[Array]) -> list[Array]:
        """Memory of arrays that are there already, such as states of zeros; calls that are written down keep those."""
        if not self._is_numpy:
            return [self.memory(a.shape, a.dtype) for a in constants]
        self.noted_bytes += sum(a.nbytes for a in constants)
        return []

    def array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array with memory of its own."""
        return shape_alone(shape, dtype, self.memory(shape, dtype))

    def memory(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Memory for a shape, which is taken as long as anything refers to what is returned."""
        memory = np.zeros(1, dtype)
        nbytes = -(-math.prod(shape) * memory.itemsize // self._alignment) * self._alignment
        part = self._free.take(nbytes)
        if part is None:
            part = Part(self._n_buffers, 0, nbytes)
            self._n_buffers += 1
            self.array_bytes += nbytes
        weakref.finalize(memory, self._free.add, part).atexit = False
        return memory

    def _note_check(self, plan: StepPlan, T: int, like: Array, scanned: tuple[Step, Any, Any, Arrays, Arrays]) -> None:
        """Count a few steps of a scan on random numbers; see `gru_xp.devices.self_check.problem_of_loop`."""
        ops, H = self._ops, like.shape[-1]
        if (
            self._is_check
            or not plan.loop
            or not (isinstance(ops, CupyOps) and ops.may_be_one_kernel(T, H, like.dtype))
        ):
            return
        step, weights, carry, xs, rows = scanned
        check = PlannedMemory(ops, is_check=True)

        def draw(a: Array | None, *steps: int) -> Array | None:
            return None if a is None else check.array((*steps, *a.shape[len(steps) :]), like.dtype)

        few = tuple([draw(x, min(T, CHECKED_STEPS)) for x in xs])
        drawn = built(structure_of(weights), lambda shape: check.array(shape, like.dtype))
        results = check.scan(step, drawn, draw(carry), few, rows=tuple(map(draw, rows)))
        self.check_bytes = max(self.check_bytes, check.nbytes)
        del results

    def _note_calls(self, plan: StepPlan, dtype: Any, B: int, T: int, length: int) -> None:
        if self._is_numpy:
            n_calls, temporaries = _calls_of(plan, dtype, B, T, length)
            self.noted_bytes += n_calls * CALL_BYTES
            self._temporaries |= temporaries


class _Memory:
    """Memory of the buffers of a plan, taken in the order in which they are written."""

    def __init__(self, planned: PlannedMemory, plan: StepPlan, dtype: Any, B: int, T: int, length: int) -> None:
        self._planned, self._plan, self._dtype, self._B = planned, plan, dtype, B
        self._T, self._length = T, length
        self._taken: dict[Buffer, Array] = {}

    def write(self, *stages: Stage) -> None:
        """Take memory for what stages write."""
        for stage in stages:
            if isinstance(stage, Copy):
                self.of_buffer(stage.place.buffer)
            else:
                for s in stage.outputs if isinstance(stage, Run) else (stage.symbol,):
                    self.of_buffer(self._plan.places[s].buffer)

    def of_buffer(self, buffer: Buffer) -> Array:
        """Memory of a buffer."""
        if buffer not in self._taken:
            lead = ((), (self._length,), (self._T + buffer.carries,))[buffer.kind]
            self._taken[buffer] = self._planned.memory((*lead, *_sizes(buffer.shape, self._B)), self._dtype)
        return self._taken[buffer]

    def of(self, s: Symbol, lead: tuple[int, ...], inputs: Sequence[Array]) -> Array:
        """A result, in a buffer or an input."""
        place = self._plan.places.get(s.root)
        memory = inputs[s.root.args[1]] if place is None else self.of_buffer(place.buffer)
        return shape_alone((*lead, *_sizes(s.shape, self._B)), self._dtype, memory)


def _sizes(shape: Shape, B: int) -> tuple[int, ...]:
    """A shape of a plan for `B` sequences."""
    return tuple([B if n is ROWS else n for n in shape])


def shape_alone(shape: tuple[int, ...], dtype: Any, memory: Array | None = None) -> Array:
    """An array that takes the memory of one number, which is all of its numbers, and refers to `memory`."""
    memory = np.zeros(1, dtype) if memory is None else memory
    return np.lib.stride_tricks.as_strided(memory, shape, (0,) * len(shape))


@lru_cache(MAX_PLANS)
def _calls_of(plan: StepPlan, dtype: Any, B: int, T: int, length: int) -> tuple[int, Temporaries]:
    """How many calls NumPy makes for a plan, and their temporaries; `length` steps are a block."""
    n_blocks = math.ceil(T / length) if length else 0
    n_calls, temporaries = T * (plan.carry_copied is not None), Counter[tuple[tuple[int, ...], int]]()
    for stages, lead, times in (
        ((*plan.once, *plan.written), (), 1),
        (plan.before, (T,), 1),
        (plan.loop, (), T),
        (plan.after, (length,), n_blocks),
    ):
        for stage in stages:
            n, more = _calls_of_stage(stage, B, lead, dtype)
            n_calls += n * times
            temporaries |= more
    for a, b, _ in plan.contractions:
        shape: tuple[int, ...] = (a.stop - a.start, b.stop - b.start)
        several = max(1, MAX_PRODUCT_NUMBERS // math.prod(shape))
        n_sums = n_blocks * math.ceil(length / several)
        n_calls += 3 * n_sums
        arrays = {shape: n_sums > 1, (several, *shape): min(several, length) > 1}
        temporaries |= Counter({(key, dtype.itemsize): int(there) for key, there in arrays.items()})
    return n_calls, temporaries


def _calls_of_stage(stage: Stage, B: int, lead: tuple[int, ...], dtype: Any) -> tuple[int, Temporaries]:
    """The same for a stage whose values have `lead` in front of their shapes."""
    if not isinstance(stage, Run):
        return 1, Counter()
    given = tuple([(*(() if s.level == ONCE else lead), *_sizes(s.shape, B)) for s in stage.inputs])
    return _calls_of_body(stage.body, given, dtype)


@lru_cache(MAX_PLANS)
def _calls_of_body(body: Body, given: tuple[tuple[int, ...], ...], dtype: Any) -> tuple[int, Temporaries]:
    plan = make_plan(record(body, given), dtype, _ShapesAlone())
    return len(plan.steps), Counter((a.shape, a.itemsize) for a in plan.kept if a.ndim)


class _ShapesAlone(Scratch):
    def _make(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return shape_alone(shape, dtype)
