"""Programs for small calls on NumPy arrays: what a call does is written down once, and done to other arrays each time.

A program has memory of its own for intermediate values. It keeps neither its arguments nor anything made of them, and
its results belong to the caller.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import compress
from operator import attrgetter, itemgetter, methodcaller
from typing import Any, TypeAlias

import numpy as np

from gru_xp.devices.numpy_plan import Program
from gru_xp.devices.step_plan import rebuilt
from gru_xp.devices.threads import one_blas_thread
from gru_xp.nn.scan import Array

Seen: TypeAlias = Callable[[Any], Any]
"""What makes a view of an array."""


MIN_SHARED_WORK = 2**17
"""Products of numbers in a product of matrices that BLAS might share among threads, which wait for each other."""


LENT_NDIM = 3
"""Axes of results over time, which may be lent."""


class Input:
    """Stands for an array that a program is given, or for a view of one, while the program is written down.

    Attributes
    ----------
    shape, dtype, ndim
        Of the array.
    key
        Of equal views, the same.
    parent
        What it is a view of; None for what is given.
    view
        How its parent becomes the view.
    """

    __slots__ = ("_example", "key", "parent", "view")

    def __init__(self, example: Array, key: Any, parent: "Input | None" = None, view: Seen | None = None) -> None:
        self._example, self.key, self.parent, self.view = example, key, parent, view

    @property
    def shape(self) -> tuple[int, ...]:
        return self._example.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> Any:
        return self._example.dtype

    @property
    def ndim(self) -> int:
        return self._example.ndim  # type: ignore[no-any-return]

    @property
    def T(self) -> "Input":
        if self.parent is not None and self.key[1] == "T":
            return self.parent
        return self._seen("T", attrgetter("T"))

    def swapaxes(self, a: int, b: int) -> "Input":
        return self._seen(f"swapaxes {a} {b}", methodcaller("swapaxes", a, b))

    def __getitem__(self, key: Any) -> "Input":
        return self._seen(repr(key), itemgetter(key))

    def _seen(self, name: str, view: Seen) -> "Input":
        return Input(view(self._example), (self.key, name), self, view)


def inputs_like(arrays: Sequence[Array]) -> list[Input]:
    """Inputs of the same shapes and types."""
    return [Input(np.broadcast_to(np.empty((), a.dtype), a.shape), number) for number, a in enumerate(arrays)]


class BoundProgram:
    """A program, and which of its arrays are given when it is run.

    Parameters
    ----------
    inputs
        What stands in the program for the arrays that are given.
    program
        Functions and their arguments.
    result
        Arrays of the program, or inputs, in a (nested, named) tuple.
    lends
        Whether results over time are lent, and not copied: the program must not be run while it is not free.
    """

    def __init__(self, inputs: Sequence[Input], program: Program, result: Any, lends: bool = False) -> None:
        self._lends = lends
        over_time = [a for a in _arrays_of(result) if a.ndim == LENT_NDIM]
        self._lent = list({id(r): r for r in map(_root, over_time)}.values()) if lends else []
        self._n_own: list[int] = []
        self._numbers = {a.key: number for number, a in enumerate(inputs)}
        self._views: list[tuple[Seen, int]] = []
        self._own: list[Any] = []
        if not lends:
            program, result = _without_last_copies(program, result)
        program = _without_constants(program, self._lent)
        bound = [any(isinstance(a, Input) for a in arguments) for _, arguments in program]
        for _, arguments in compress(program, bound):
            for a in arguments:
                if isinstance(a, Input):
                    self._number(a)
        self._results: list[tuple[Callable[[], Array] | None, int]] = []  # what copies one, or the number of an input
        tree = self._of_result(result)
        is_flat = type(tree) is tuple and tree == tuple(range(len(self._results)))
        self._build: Callable[[list[Array]], Any] = tuple if is_flat else _builder_of(tree)
        # a function with the arguments that it always has, or with the numbers of those it gets
        self._calls: list[tuple[Callable[..., Any], Any, Any]] = []
        n = max(compress(range(len(program)), bound), default=-1) + 1
        for is_bound, (function, arguments) in zip(bound[:n], program, strict=False):
            if not is_bound:
                self._calls.append((function, arguments, None))
                continue
            places = [self._place(a) for a in arguments]
            if len(places) == 3:
                self._calls.append((function, None, tuple(places)))
            else:
                self._calls.append((function, (), itemgetter(*places)))
        self._last_calls = program[n:]
        self._one_thread = any(
            function is np.matmul and _work(*arguments) > MIN_SHARED_WORK for function, arguments in program
        )

    def _place(self, a: Any) -> int:
        """Which number an argument has in a run."""
        if isinstance(a, Input):
            return self._numbers[a.key]
        self._own.append(a)
        return len(self._numbers) + len(self._own) - 1

    def _number(self, a: Input) -> int:
        """Which number an input, or a view of it, has among the arrays of a run."""
        number = self._numbers.get(a.key)
        if number is None:
            assert a.parent is not None
            assert a.view is not None
            self._views.append((a.view, self._number(a.parent)))
            number = self._numbers[a.key] = len(self._numbers)
        return number

    def _of_result(self, tree: Any) -> Any:
        """A tree of numbers of results."""
        if isinstance(tree, tuple | list):
            return rebuilt(type(tree), [self._of_result(part) for part in tree])
        if tree is None:
            return None
        if isinstance(tree, Input):
            self._results.append((None, self._number(tree)))
        else:
            self._results.append((tree.view if self._lends and tree.ndim == LENT_NDIM else tree.__copy__, 0))
        return len(self._results) - 1

    def begin_to_lend(self) -> None:
        """To be called while nobody has results, nor what they were made with."""
        self._n_own = self._n_users()

    @property
    def is_free(self) -> bool:
        """Whether nobody has results that it has lent."""
        return self._n_users() == self._n_own

    def _n_users(self) -> list[int]:
        return [sys.getrefcount(a) for a in self._lent]

    def __call__(self, arrays: Sequence[Array]) -> Any:
        """Run it on arrays."""
        if self._one_thread:
            with one_blas_thread:
                return self._run(arrays)
        return self._run(arrays)

    def _run(self, arrays: Sequence[Array]) -> Any:
        at = list(arrays)
        for view, parent in self._views:
            at.append(view(at[parent]))
        given = at + self._own
        for function, arguments, places in self._calls:
            if places is None:
                function(*arguments)
            elif arguments is None:
                i, j, k = places
                function(given[i], given[j], given[k])
            else:
                function(*places(given))
        for function, own in self._last_calls:
            function(*own)
        results = [at[number] if copy is None else copy() for copy, number in self._results]
        return self._build(results)


def _builder_of(tree: Any) -> Callable[[list[Array]], Any]:
    """What puts results in the places of their numbers in a tree."""
    if isinstance(tree, int):
        return itemgetter(tree)
    if not tree:
        return lambda results: tree
    parts = [_builder_of(part) for part in tree]
    if type(tree) is tuple:
        return lambda results: tuple([build(results) for build in parts])
    return lambda results: rebuilt(type(tree), [build(results) for build in parts])


def _without_last_copies(program: Program, result: Any) -> tuple[Program, Any]:
    """Without copies, at the end, into results, which are then what was copied: results are copied anyway."""
    program = list(program)
    while program and program[-1][0] is np.copyto:
        out, source = program[-1][1]
        same = [a for a in _arrays_of(result) if isinstance(out, np.ndarray) and np.may_share_memory(a, out)]
        is_array = isinstance(source, np.ndarray) and source.shape == out.shape
        if len(same) != 1 or not is_array or same[0].__array_interface__ != out.__array_interface__:
            break
        result = _with(source, same[0], result)
        program.pop()
    return program, result


def _with(source: Array, out: Array, tree: Any) -> Any:
    """A tree with one array in place of another one."""
    if isinstance(tree, tuple | list):
        return rebuilt(type(tree), [_with(source, out, part) for part in tree])
    return source if tree is out else tree


def _work(a: Any, b: Any, out: Any) -> int:
    """How many products of two numbers a product of matrices is made of."""
    return int(math.prod(out.shape[-2:]) * a.shape[-1])


def _without_constants(program: Program, lent: Sequence[Array]) -> Program:
    """The calls whose results are not the same each time, or are in memory that is lent; the others are made, now."""
    arrays = [[a for a in arguments if isinstance(a, np.ndarray)] for _, arguments in program]
    written = [_written(function, some) for (function, _), some in zip(program, arrays, strict=True)]
    writes: dict[int, dict[int, list[Array]]] = defaultdict(dict)  # by memory and number of a call that is kept: where
    for number, some in enumerate(written):
        for out in some:
            writes[id(_root(out))].setdefault(number, []).append(out)
    kept = []
    for number, (function, arguments) in enumerate(program):
        outs = written[number]
        others = [writes[id(_root(a))] for a in arrays[number] if not any(a is out for out in outs)]
        may_differ = not isinstance(function, np.ufunc) and function is not np.copyto
        may_differ |= any(isinstance(a, Input) for a in arguments) or any(some.keys() - {number} for some in others)
        if not may_differ:
            (out,) = outs
            rivals = writes[id(_root(out))]
            may_differ = any(np.may_share_memory(out, a) for a in lent) or any(
                _overlap(out, a) for i, some in rivals.items() if i != number for a in some
            )
        if may_differ:
            kept.append(program[number])
        else:
            function(*arguments)
            for out in outs:
                writes[id(_root(out))].pop(number, None)
    return kept


def _written(function: Callable[..., Any], arrays: Sequence[Array]) -> Sequence[Array]:
    """Which of its arguments a function writes into; all of them, if that is not known."""
    if function is np.copyto:
        return arrays[:1]
    return arrays[-1:] if isinstance(function, np.ufunc) or function is np.dot else arrays


def _root(a: Array) -> Array:
    """What has the memory of an array."""
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a


def _arrays_of(tree: Any) -> list[Array]:
    """The arrays of a program among its results."""
    if isinstance(tree, tuple | list):
        return [a for part in tree for a in _arrays_of(part)]
    return [tree] if isinstance(tree, np.ndarray) else []


def _overlap(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=1000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


# --- which programs to keep -------------------------------------------------------------------------------------

N_WITHOUT = 2
"""How many calls of a kind are made without a program: one takes as long to make as three calls."""

MAX_CALLS = 256
"""Kinds of small calls to know."""

MAX_PROGRAMS = 64
"""Programs to keep."""

MAX_PROGRAM_BYTES = 2**21
"""Memory of a program that is worth keeping."""

MAX_BYTES = 2**24
"""Memory of all programs together."""

CALL_BYTES = 512
"""Memory that a function of a program takes with its arguments, about."""


Make: TypeAlias = Callable[[Any, tuple[Any, ...]], Any]
"""``make(ops, arguments)`` makes a call."""


class SmallCalls:
    """The small calls of some ops, by their kind.

    Parameters
    ----------
    ops
        How they are made the first time, and where there is no program.
    """

    def __init__(self, ops: Any) -> None:
        self.ops = ops
        self._calls: dict[Hashable, _SmallCall] = {}
        self._bound: list[_SmallCall] = []
        self._nbytes = 0

    def of(self, kind: Hashable, make: Make) -> "_SmallCall":
        """The calls of one kind.

        Parameters
        ----------
        kind
            By `gru_xp.nn.scan.kind_of`; None for a call that no other one is like.
        make
            Makes them where there is no program.
        """
        call = self._calls.get(kind)
        if call is None:
            call = _SmallCall(self, make)
            if kind is not None:
                if len(self._calls) >= MAX_CALLS:
                    self._calls.clear()
                self._calls[kind] = call
        return call

    def keep(self, call: "_SmallCall", nbytes: int) -> None:
        """Note that a call has got a program; forget all others if there are too many."""
        if len(self._bound) >= MAX_PROGRAMS or self._nbytes + nbytes > MAX_BYTES:
            for other in self._bound:
                other.drop()
            self._bound, self._nbytes = [], 0
        self._bound.append(call)
        self._nbytes += nbytes


class _SmallCall:
    """Calls of one kind: the first ones are made as any other, then a program is made."""

    __slots__ = ("_make", "_n_without", "_ops", "_owner", "program")

    def __init__(self, owner: SmallCalls, make: Make) -> None:
        self._owner, self._ops, self._make = owner, owner.ops, make
        self.drop()

    def drop(self) -> None:
        """Forget the program."""
        self._n_without = 0
        self.program: BoundProgram | None = None

    def __call__(self, arguments: tuple[Any, ...], arrays: Sequence[Array]) -> Any:
        ops, program = self._ops, self.program
        if program is not None and ops.program is None:
            return program(arrays)
        if ops.program is None:
            self._n_without += 1
        if self._n_without == N_WITHOUT + 1 and ops.program is None and all(type(a) is np.ndarray for a in arrays):
            program, nbytes = ops.bound(self._make, arguments, arrays)
            if nbytes <= MAX_PROGRAM_BYTES:
                self.program = program
                self._owner.keep(self, nbytes)
                return program(arrays)
        return self._make(ops, arguments)
