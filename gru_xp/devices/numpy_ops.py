"""How NumPy does what ``primitives.py`` describes: kept memory, feature-major; recorded calls; rows split over threads.

Memory is feature-major: an array of shape ``(T, B, 3H)`` lies in memory as ``(T, 3H, B)``, so that the columns of one
gate in one step are contiguous. The calls of a pointwise body are recorded once and then played back as ufuncs with
``out=``, their temporaries sharing a few scratch arrays that are kept. So are all calls of a captured function: what
is left of it is a list of NumPy functions and their arguments.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from gru_xp.devices.lowering import Lowered, ScanPart
from gru_xp.devices.numpy_bound import CALL_BYTES, BoundProgram, SmallCalls, inputs_like
from gru_xp.devices.numpy_memory import Arena, RecycledMemory, Scratch, detached
from gru_xp.devices.numpy_parts import PartPrograms
from gru_xp.devices.numpy_plan import Plan, Program, make_plan
from gru_xp.devices.primitives import Body, Ops, even_slices, rounds_for_memory
from gru_xp.devices.recording import record
from gru_xp.devices.step_plan import replaced
from gru_xp.devices.threads import default_threads, one_blas_thread, run_side_by_side
from gru_xp.nn.scan import Array, Arrays, Run, Step, kind_of

Result = TypeVar("Result")

MIN_STATE_NUMBERS = 5_000
"""Numbers in a state (B, H) below which handing them to another thread costs more than it saves."""

MAX_STATE_NUMBERS = 2**16
"""Numbers in a state (B, H) above which the arrays of a step outgrow a core's cache."""

MAX_PLANS = 256
"""Pointwise bodies and shapes to keep a plan for."""

MAX_SCRATCH_BYTES = 2**26
"""Memory for temporaries of pointwise bodies, and of contractions, to keep of all shapes together."""

MAX_PRODUCT_NUMBERS = 2**18
"""Numbers in the products of several steps that are summed at once."""

MAX_BLOCK_NUMBERS = 2**16
"""Numbers in the states of a block of steps whose weight gradients are summed together."""

MAX_STEPS = 128
"""Of a scan that a program is made for, as of a small call."""

PROGRAMS_SHARE = 4
"""One part in this many of the memory that is kept is for the programs of parts of scans."""

MIN_ROWS = 256
"""Sequences that are computed together even if their states have more than `MAX_STATE_NUMBERS` numbers, so that the
weights are read for many of them."""


def _call(function: Callable[..., Any], ops: "NumpyOps", arguments: Arrays) -> Any:
    return Lowered.call(ops, function, *arguments)


def _scan(step: Step, reverse: bool, ops: "NumpyOps", arguments: Arrays) -> tuple[Any, Arrays, Arrays]:
    weights, carry, xs, rows = arguments
    return Lowered.scan(ops, step, weights, carry, xs, rows=rows, reverse=reverse)


def _scan_with(step: Step, weights: Any, ops: "NumpyOps", arguments: Arrays) -> tuple[Any, Arrays, Arrays]:
    return _scan(step, False, ops, (weights, *arguments))


class NumpyOps(Lowered):
    """`gru_xp.devices.primitives.Ops` for NumPy arrays. One instance belongs to one thread.

    So do its workers: that thread writes down what they do, and waits while other threads play it back.

    Parameters
    ----------
    threads
        Over how many threads `parts` may split the sequences; 0 for ops that split nothing.
    max_kept
        Bytes of memory to keep for arrays at most.

    Attributes
    ----------
    program
        What is being written down, instead of being done; None if nothing is.
    """

    keeps_programs = True
    """Whether small calls are written down for the next ones; see `SmallCalls`."""

    def __init__(self, threads: int = 1, *, max_kept: int = 2**29) -> None:
        self.threads = threads
        self._max_kept = max_kept // (threads + 1)  # here, and for each worker
        self._memory, self._part_programs = self._new_memory()
        self._workers: list[NumpyOps] = []
        self._plans: dict[Any, Plan] = {}
        self._scratch = Scratch()
        self._products = Scratch(MAX_SCRATCH_BYTES)
        self._arena = Arena()
        self.program: Program | None = None
        self._recording_memory: Arena | RecycledMemory = self._arena
        self._small_calls = SmallCalls(self)

    def scan(
        self, step: Step, weights: Any, carry: Any, xs: Arrays, *, rows: Arrays = (), reverse: bool = False
    ) -> tuple[Any, Arrays, Arrays]:
        if self.program is not None or not self.keeps_programs or not self._is_small(carry, xs):
            return super().scan(step, weights, carry, xs, rows=rows, reverse=reverse)
        arguments = weights, carry, xs, rows
        kind, arrays = kind_of((step, reverse, *arguments))
        call = self._small_calls.of(kind, partial(_scan, step, reverse))
        result: tuple[Any, Arrays, Arrays] = call(arguments, arrays)
        return result

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self.program is not None or not self.keeps_programs:
            return super().call(function, *arguments)
        kind, arrays = kind_of((function, *arguments))
        return self.run_of(function, kind)(arguments, arrays)

    def run_of(self, function: Callable[..., Any], kind: Hashable) -> Run:
        """What makes calls of a kind; see `gru_xp.nn.scan.checked_call`."""
        return self._small_calls.of(kind, partial(_call, function))

    def scan_of_fixed(self, step: Step, weights: Any, carry: Any, xs: Arrays) -> Run | None:
        """What makes scans such as this one; see `gru_xp.nn.scan.run_of_scan`."""
        if not self.keeps_programs or not self._is_small(carry, xs):
            return None
        return self._small_calls.of(None, partial(_scan_with, step, weights))

    def _is_small(self, carry: Any, xs: Arrays) -> bool:
        """Whether a scan is worth a program of its own, and not worth several parts."""
        T, B, K = next(x.shape for x in xs if x is not None)
        return bool(T <= MAX_STEPS and len(self.parts(B, T, K, K if carry is None else carry.shape[1])) == 1)

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        memory = self._memory if self.program is None else self._recording_memory
        return memory.empty(shape, like.dtype)

    def copy(self, source: Array | float, out: Array) -> None:
        self._call(np.copyto, out, source)

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        if a.shape[-1] == 1:  # an outer product, which is no work for BLAS
            self._call(np.multiply, a[0, 0, ...] if a.shape == (1, 1) else a, b, out)
        elif a.ndim == 2 and a.shape[0] == 1 and out[0].flags.c_contiguous:  # np.dot has less to say about it
            self._call(np.dot, b.T, a[0], out[0])
        else:
            self._call(np.matmul, a, b, out)
        return out

    def contract(self, a: Array, b: Array, out: Array, *, add: bool = False) -> Array:
        # One product a step, of memory that is contiguous, instead of one of a rearranged copy; their sum is taken for
        # several at once.
        if a.ndim == 2:
            a, b = a[None], b[None]
        several = max(1, MAX_PRODUCT_NUMBERS // math.prod(out.shape))
        for start in range(0, a.shape[0], several):
            a_t, b_t = a[start : start + several].swapaxes(-1, -2), b[start : start + several]
            n = b_t.shape[0]
            total = self._products.array(out.shape, out.dtype, 0) if add else out
            if n == 1:
                self._call(np.matmul, a_t[0], b_t[0], total)
            else:
                products = self._products.array((several, *out.shape), out.dtype, 0)[:n]
                self._call(np.matmul, a_t, b_t, products)
                self._call(np.add.reduce, products, 0, None, total)
            if add:
                self._call(np.add, out, total, out)
            add = True
        return out

    def pointwise(self, body: Body, inputs: tuple[Array | float | None, ...], out: tuple[Array, ...]) -> None:
        given = tuple([getattr(a, "shape", a) for a in inputs])
        key = (body, out[0].dtype, given)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) == MAX_PLANS or self._scratch.nbytes > MAX_SCRATCH_BYTES:  # of shapes that are gone
                self._plans.clear()
                self._scratch.clear()
            plan = self._plans[key] = make_plan(record(body, given), out[0].dtype, self._scratch)
        if self.program is not None:
            self.program += plan.calls(self._noted(inputs), self._noted(out))
            return
        for ufunc, arguments in plan.calls(inputs, out):
            ufunc(*arguments)

    def norm(self, a: Array, out: Array) -> None:
        self._call(_norm, a, out)

    def block_length(self, T: int, B: int, H: int) -> int:
        # The products of a step are quickest while its arrays are in the cache; where they are small, few calls count.
        return min(T, max(1, MAX_BLOCK_NUMBERS // (B * H)))

    def loop(self, step: Callable[[int], None], times: Sequence[int]) -> None:
        for t in times:
            step(t)

    def parts(self, B: int, T: int, I: int, H: int) -> list[tuple[slice, Ops]]:  # noqa: E741
        if self.threads == 0:
            return [(slice(0, B), self)]
        threads = max(1, min(self.threads, B * H // MIN_STATE_NUMBERS))
        rounds = max(rounds_for_memory(B, T, I, H), math.ceil(B / max(MIN_ROWS, MAX_STATE_NUMBERS // H)))
        while len(self._workers) < threads:
            self._workers.append(self._worker())
        slices = even_slices(B, threads * math.ceil(rounds / threads))
        return [(rows, self._workers[i % threads]) for i, rows in enumerate(slices)]

    def run(self, tasks: Sequence[tuple[Ops, Callable[[], Result]]]) -> list[Result]:
        if all(ops is self for ops, _ in tasks):
            return [function() for _, function in tasks]
        if self.program is not None:
            own = _own(tasks)
            with ExitStack() as stack:
                for ops in {id(ops): ops for ops, _ in own}.values():
                    stack.enter_context(ops._arena.side_by_side())
                replays = [(ops, ops._record(function, ops._arena)) for ops, function in own]
            programs = [(ops, _Replay(replay.program, None)) for ops, replay in replays]
            self.program.append((run_side_by_side, (programs,)))
            return [replay.result for _, replay in replays]
        if len(tasks) == 1:
            worker, function = _own(tasks)[0]
            with one_blas_thread:
                return [(worker._program_of(function) or function)()]
        # Python code of several threads would wait for each other: what there is to do is written down here, and the
        # threads do that. One task a worker at a time, so that those to come do not take memory yet.
        results = []
        own = _own(tasks)
        n = len({id(ops) for ops, _ in own})
        for start in range(0, len(own), n):
            wave = own[start : start + n]
            prepared = [(ops, ops._program_of(f) or ops._record(f, ops._memory)) for ops, f in wave]
            results += run_side_by_side(prepared)
        return results

    def _program_of(self, function: Callable[[], Result]) -> Callable[[], Result] | None:
        """What does the same, if it was written down for an earlier call like this one."""
        found = self._part_programs.of(function) if isinstance(function, ScanPart) and self.keeps_programs else None
        return None if found is None else partial(found[0], found[1])

    def capture(self, function: Callable[[], Result]) -> Callable[[], Result]:
        for ops in (self, *self._workers):
            ops._arena.rewind()
        replay = self._record(function, self._arena)
        replay()
        return replay

    def _new_memory(self) -> tuple[RecycledMemory, PartPrograms]:
        """Memory for arrays and programs, of which nothing is used yet."""
        for_programs = self._max_kept // PROGRAMS_SHARE
        return RecycledMemory(self._max_kept - for_programs), PartPrograms(for_programs)

    def release(self) -> None:
        for ops in (self, *self._workers):
            ops._arena.rewind()
            ops._memory, ops._part_programs = ops._new_memory()
            ops._plans.clear()
            ops._scratch.clear()
            ops._products.clear()

    def bound(
        self,
        make: Callable[["NumpyOps", Arrays], Any],
        arguments: Arrays,
        arrays: Sequence[Array],
        lends: bool = False,
    ) -> tuple[BoundProgram, int]:
        """A program for calls with arguments such as these, and how many bytes it takes; see `BoundProgram`."""
        if lends:
            self._memory.drop_unused()  # that was for calls without a program
        ops, inputs = self._worker(), inputs_like(arrays)
        replay = ops._record(partial(make, ops, replaced(arguments, iter(inputs))), ops._arena)
        nbytes = ops._arena.nbytes + ops._scratch.nbytes + ops._products.nbytes + CALL_BYTES * len(replay.program)
        return BoundProgram(inputs, replay.program, replay.result, lends), nbytes

    def _worker(self) -> "NumpyOps":
        """Ops for another thread."""
        return NumpyOps(threads=0, max_kept=self._max_kept)

    def _record(self, function: Callable[[], Result], memory: "Arena | RecycledMemory") -> "_Replay[Result]":
        """Write down what a function does, in memory that comes from there."""
        program: Program = []
        self.program, self._recording_memory = program, memory
        try:
            return _Replay(program, function())
        finally:
            self.program = None

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        if self.program is None:
            function(*arguments)
        else:
            self.program.append((function, self._noted(arguments)))

    def for_calls(self, array: Array) -> Array:
        """The same array for calls; detached here and not call by call, as that takes longer than to slice it."""
        return array if self.program is None or self._recording_memory is not self._arena else detached(array)

    def _noted(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arguments of a call as they are written down."""
        return tuple(map(detached, arguments)) if self._recording_memory is self._arena else arguments


def _own(tasks: Sequence[tuple[Ops, Callable[[], Result]]]) -> list[tuple[NumpyOps, Callable[[], Result]]]:
    own = [(ops, function) for ops, function in tasks if isinstance(ops, NumpyOps)]
    assert len(own) == len(tasks), "a task has ops that parts did not give"
    return own


def new_ops() -> NumpyOps:
    """Ops with all the threads that are there to work for them."""
    return NumpyOps(default_threads())


@dataclass(frozen=True)
class _Replay(Generic[Result]):
    """A captured function."""

    program: Program
    result: Result

    def __call__(self) -> Result:
        for function, arguments in self.program:
            function(*arguments)
        return self.result


def _norm(a: Array, out: Array) -> None:
    largest = np.max(np.abs(a))
    if not 0 < largest < math.inf:
        out[0] = largest
        return
    scaled = (a / largest).ravel(order="K")
    out[0] = largest * np.sqrt(np.dot(scaled, scaled))
