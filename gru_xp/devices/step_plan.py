"""Plan how a traced step is computed: what in which order, and where in memory each value lies.

Values have a level: what is the same in all steps is computed *once*; what does not depend on the carry and is worth
it, for *all* steps together before the loop; products that the carry does not depend on, *after* the loop, for a block
of steps together; and everything else in the *loop*. The elementwise calls between two products are one pointwise body.

A place is a range of columns in a buffer. Rows that are put side by side have one buffer, and pieces that serve in
several such rows lie in it once.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from gru_xp.devices.primitives import Body
from gru_xp.devices.tracing import (
    ALL,
    LOOP,
    MAX_PADDING,
    ONCE,
    ROWS,
    VIEWS,
    JoinedColumns,
    JoinedProducts,
    Operand,
    ScaledWeights,
    Shape,
    SumsOfProducts,
    Symbol,
    Trace,
    ancestors,
    edges_of,
    needed,
    refuse,
)

AFTER = LOOP + 1
"""The level of what is computed after the loop."""

MAX_PLANS = 256
"""Plans, and pointwise bodies, to keep."""

MAX_WASTE = 1.5
"""How many times as much memory as results take may be kept for them, rather than to copy them."""

NO_CALLS = (*VIEWS, "input", "fill", "concat")
"""Symbols for which nothing is computed."""


class Kind(IntEnum):
    """Of which steps a buffer has the values at one time: of a single one, of those of a block, or of all."""

    STEP = 0
    BLOCK = 1
    TIME = 2


@dataclass(eq=False)
class Buffer:
    """Memory ``shape``, for each step or not; one that `carries` has a place more, for the state at the end."""

    kind: Kind
    shape: Shape
    carries: bool = False


class Place(NamedTuple):
    """Where along each axis of a buffer a value begins and ends.

    Attributes
    ----------
    after
        Whether it is the next step's place.
    slices
        The edges as slices; None for all of the buffer.
    """

    buffer: Buffer
    edges: tuple[tuple[int, Any], ...]
    after: bool
    slices: tuple[Any, ...] | None

    def within(self, axis: int, start: int, stop: int) -> "Place":
        """A part of this place."""
        first = self.edges[axis][0]
        edges = (*self.edges[:axis], (first + start, first + stop), *self.edges[axis + 1 :])
        return _place(self.buffer, edges, self.after)

    def columns(self, start: int, stop: int) -> "Place":
        """Some of its columns."""
        return self.within(len(self.edges) - 1, start, stop)

    def in_next_step(self) -> "Place":
        """The same in the next step's place."""
        return self._replace(after=True)


def _place(buffer: Buffer, edges: tuple[tuple[int, Any], ...], after: bool = False) -> Place:
    slices = [slice(None) if some == (0, n) else slice(*some) for some, n in zip(edges, buffer.shape, strict=True)]
    is_whole = all(part.stop is None for part in slices)
    return Place(buffer, edges, after, None if is_whole else (..., *slices))


def _whole(kind: Kind, shape: Shape) -> Place:
    """A buffer of its own."""
    return _place(Buffer(kind, shape), tuple([(0, n) for n in shape]))


class Product(NamedTuple):
    """A product to compute."""

    symbol: Symbol


class Copy(NamedTuple):
    """A value, or a number, to write to another place."""

    source: Operand
    place: Place


class Run(NamedTuple):
    """A pointwise body to run."""

    body: Body
    inputs: tuple[Symbol, ...]
    outputs: tuple[Symbol, ...]
    calls: tuple[Symbol, ...]


Stage: TypeAlias = Product | Copy | Run


class Span(NamedTuple):
    """Columns of a buffer, or of the input of a number."""

    source: Buffer | int
    after: bool
    start: int
    stop: int


class Contraction(NamedTuple):
    """A sum of ``aᵀ b`` over steps and sequences; `results` tell which rows and columns are a pair's."""

    a: Span
    b: Span
    results: list[tuple[int, slice, slice]]


class StepPlan:
    """How a traced function is computed.

    Attributes
    ----------
    once, before, loop, after
        The stages of each level; `once` and `before` are done before the loop.
    written
        What is written before the loop into rows, for all steps.
    places
        Of symbols.
    contractions
        The sums over steps.
    carry_in, carry_out, ys
        Symbols.
    kept
        Buffers that stay, for results that lie in them.
    alone
        Of each of `ys`, whether it is to be copied out of a buffer that does not stay.
    carry_copied
        Where the carry is copied to at the end of a step; None if it is there already.
    """

    def __init__(
        self,
        symbols: Sequence[Symbol],
        carry_in: Symbol | None,
        carry_out: Symbol | None,
        ys: Sequence[Symbol],
        pairs: Sequence[tuple[Symbol, Symbol]],
    ) -> None:
        self.carry_in, self.carry_out, self.ys = carry_in, carry_out, tuple(ys)
        self.places: dict[Symbol, Place] = {}
        self.written: list[Copy] = []
        members = [m for pair in pairs for m in pair]
        self._results = [*ys, *members]
        self._carried = [] if carry_out is None else [carry_out]
        self._kept_roots = {r.root for r in (*self._results, *self._carried)}
        self.symbols = needed(symbols, [*self._results, *self._carried])
        self._index = {s: i for i, s in enumerate(self.symbols)}
        self._consumers: dict[Symbol, list[Symbol]] = defaultdict(list)
        for s in self.symbols:
            if s.op not in VIEWS:
                for a in s.operands:
                    self._consumers[a.root].append(s)
        self._copies: dict[Symbol, list[Copy]] = defaultdict(list)  # of concats: pieces that lie elsewhere, too
        self._copied: set[Symbol] = set()
        self._shared: set[Symbol] = set()  # what stands in the place of columns of a product that it is made of
        self._want: dict[Symbol, Kind] = {}
        for some, kind in ((members, Kind.BLOCK), (ys, Kind.TIME)):
            for s in some:
                self._want[s.root] = kind
        self._level = self._levels()
        self._want_more()
        self._place_once()
        self._place_rows()
        self._place_carry()
        done = {s for s in self.symbols if s.op == "input"}
        self.once = self._schedule(ONCE, done)
        self.before = self._schedule(ALL, done)
        self.loop = self._schedule(LOOP, done)
        self.after = self._schedule(AFTER, done)
        self._reads = [[self._reads_of(stage) for stage in level] for level in self._all_stages]
        self.carry_copied = self._carry_over()
        self._share_products()
        for s in self.symbols:
            if s in self._want and s.op not in NO_CALLS and s.level > ONCE:
                self._give(s, self._want[s])
        self._work_in_results()
        self._place_rest()
        self.contractions = self._contractions(pairs)
        self.kept = self._kept_buffers()
        self.alone = [self._in_steps(y) and self.places[y.root].buffer not in self.kept for y in self.ys]

    @property
    def _all_stages(self) -> list[list[Stage]]:
        return [self.once, self.before, self.loop, self.after]

    @property
    def buffers(self) -> set[Buffer]:
        """All memory."""
        return {place.buffer for place in self.places.values()}

    @property
    def in_blocks(self) -> bool:
        """Whether something is to be done after each block of steps."""
        return bool(self.after or self.contractions)

    # --- levels ---

    def _levels(self) -> dict[Symbol, int]:
        level = {s: ONCE if s.level == ONCE else LOOP for s in self.symbols}

        def hoist(s: Symbol) -> None:
            s = s.root
            if s.level == ALL and s.op != "input" and level[s] != ALL:
                level[s] = ALL
                for a in s.operands:
                    hoist(a)

        for s in self.symbols:
            if s.level == ALL and (s.op in ("matmul", "spread") or (self.carry_in is None and s.op not in VIEWS)):
                hoist(s)
            elif s.op == "concat" and s.level > ONCE:
                for piece in s.pieces:
                    hoist(piece)
        return level | dict.fromkeys(self._after(level), AFTER)

    def _after(self, level: dict[Symbol, int]) -> set[Symbol]:
        """Products that the carry does not depend on, and what is made of them."""
        feeds = ancestors(self._carried)
        late = [s for s in self.symbols if level[s] == LOOP and s not in feeds and s.op not in NO_CALLS]
        found = {s for s in late if s.op == "matmul"}

        def there(a: Symbol) -> bool:
            a = a.root
            return a.op == "input" or level[a] != LOOP or a in found or a in self._want

        for s in late:
            roots = [a.root for a in _inputs(s)]
            if s.op not in ("matmul", "greater") and any(a in found for a in roots) and all(map(there, roots)):
                found.add(s)
        before = None
        while before != found:
            before = set(found)
            for s in late:
                if s in found and not (
                    all(c in found or (c.op == "greater") for c in self._consumers[s])
                    and all(w in found for c in self._consumers[s] for w in self._chosen_by(c))
                    and (s.op == "matmul" or all(there(a) for a in _inputs(s)))
                ):
                    found.remove(s)
        return found

    def _chosen_by(self, condition: Symbol) -> list[Symbol]:
        return self._consumers[condition] if condition.op == "greater" else []

    def _want_more(self) -> None:
        """Keep what is read after the loop; what is computed before it is there for all steps anyway."""
        for s in self.symbols:
            if self._level[s] == AFTER:
                for a in _inputs(s):
                    if self._level[a.root] == LOOP:
                        self._want.setdefault(a.root, Kind.BLOCK)
            if self._level[s] == ALL and s in self._want:
                self._want[s] = Kind.TIME

    # --- rows and the carry ---

    def _give(self, s: Symbol, kind: Kind) -> None:
        if s not in self.places:
            self.places[s] = _whole(kind, s.shape)

    def _place_once(self) -> None:
        """Give arrays that are put together once, and numbers, memory; what is computed for it is computed there."""
        for s in reversed(self.symbols):
            if s.op == "fill" and (any(c.op != "concat" for c in self._consumers[s]) or s in self._kept_roots):
                self._give(s, Kind.STEP)
            if s.op != "concat" or s.level > ONCE:
                continue
            self._give(s, Kind.STEP)
            axis, start = s.args[-1], 0
            for piece in s.pieces:
                place = self.places[s].within(axis, start, start + piece.shape[axis])
                start += piece.shape[axis]
                if (piece.op in NO_CALLS and piece.op != "concat") or piece in self.places:
                    self._copies[s].append(Copy(piece.args[0] if piece.op == "fill" else piece, place))
                else:
                    self.places[piece] = place

    def _place_rows(self) -> None:
        """Give rows, and the pieces that stand side by side in them, memory."""
        for pieces, concats in self._rows():
            kind = self._kind_of_row(pieces, concats)
            whole = _whole(kind, (concats[0].shape[0], edges_of(pieces)[-1]))
            at: list[Copy] = []
            for i, (piece, start) in enumerate(zip(pieces, edges_of(pieces), strict=False)):
                place = whole.columns(start, start + piece.shape[1])
                at.append(Copy(piece, place))
                if piece.op == "fill":
                    self.written.append(Copy(piece.args[0], place))
                elif piece.root.level == ONCE or (piece.level == ALL and self._level[piece.root] != ALL):
                    self.written.append(Copy(piece, place))
                elif piece.op in VIEWS or piece.op == "concat" or piece in self.places or piece in pieces[:i]:
                    for concat in concats:
                        if _first_of(pieces, concat) <= i < _first_of(pieces, concat) + len(concat.pieces):
                            self._copies[concat].append(at[i])
                else:
                    self.places[piece] = place
            for concat in concats:
                first = _first_of(pieces, concat)
                start = edges_of(pieces)[first]
                self.places[concat] = whole.columns(start, start + concat.shape[1])

    def _rows(self) -> list[tuple[list[Symbol], list[Symbol]]]:
        """Rows that have pieces in common as one: its pieces, and which rows it holds."""
        rows: list[tuple[list[Symbol], list[Symbol]]] = []
        concats = [s for s in self.symbols if s.op == "concat" and s.level > ONCE]
        for s in sorted(concats, key=lambda s: -len(s.pieces)):
            pieces = list(s.pieces)
            for have, some in rows:
                if self._extend(have, pieces):
                    some.append(s)
                    break
            else:
                rows.append((pieces, [s]))
        return rows

    def _extend(self, have: list[Symbol], pieces: list[Symbol]) -> bool:
        """Put `pieces` into a row that has some of them; False if it has none where they would have to be."""
        if _first(have, pieces) is not None:
            return True
        shorter = range(min(len(have), len(pieces)) - 1, 0, -1)
        n = next((n for n in shorter if have[-n:] == pieces[:n]), 0)
        if n:
            have += pieces[n:]
            return True
        n = next((n for n in shorter if have[:n] == pieces[-n:]), 0)
        have[:0] = pieces[:-n] if n else []
        return n > 0

    def _kind_of_row(self, pieces: Sequence[Symbol], concats: Sequence[Symbol]) -> Kind:
        kind = max(self._want.get(s, Kind.STEP) for s in (*pieces, *concats))
        if any(p.level == ALL for p in pieces):
            return Kind.TIME
        return Kind.TIME if kind and self.carry_in in pieces else kind

    def _place_carry(self) -> None:
        if self.carry_in is None:
            return
        assert self.carry_out is not None
        computed = self.carry_out not in self.places and self._is_computed(self.carry_out)
        if computed and self._want.get(self.carry_out) == Kind.TIME:
            self._want[self.carry_in] = Kind.TIME
        self._give(self.carry_in, Kind.TIME if self.carry_in in self._want else Kind.STEP)
        place = self.places[self.carry_in]
        if place.buffer.kind == Kind.TIME:
            place.buffer.carries = True
            if computed:
                self.places[self.carry_out] = place.in_next_step()

    def _is_computed(self, s: Symbol) -> bool:
        """Whether it is a result of the loop itself."""
        return s.op not in NO_CALLS and self._level[s] == LOOP

    def _carry_over(self) -> Place | None:
        """Where to copy the new state at the end of a step; it is computed there, if that can be."""
        if self.carry_in is None or (self.carry_out is self.carry_in and not self._carries_in_time):
            return None
        assert self.carry_out is not None
        target = self.places[self.carry_in]
        if self._carries_in_time:
            target = target.in_next_step()
            return None if self.places.get(self.carry_out) == target else target
        elsewhere = self.carry_out in self.places or self.carry_out in self._want
        if elsewhere or not self._is_computed(self.carry_out):
            return target
        number = self._stage_of(self.carry_out)
        read_later = any(self.carry_in in reads for reads in self._reads[LOOP][number + 1 :])
        if read_later or not _may_overwrite(self.loop[number], self.carry_in, self.carry_out):
            return target
        self.places[self.carry_out] = target
        return None

    @property
    def _carries_in_time(self) -> bool:
        return self.carry_in is not None and self.places[self.carry_in].buffer.carries

    def _stage_of(self, s: Symbol) -> int:
        """In which stage of the loop a symbol is computed."""
        return next(i for i, stage in enumerate(self.loop) if s in _results_of(stage))

    # --- order ---

    def _schedule(self, level: int, done: set[Symbol]) -> list[Stage]:
        """The stages of a level; `done` is what is there, and what is there after it."""
        todo = [s for s in self.symbols if self._level[s] == level and s.op not in NO_CALLS and s.op != "greater"]
        todo = [s for s in todo if not self._is_lazy(s)]
        fills = [s for s in self.symbols if s.op == "fill" and s in self.places and level == ONCE]
        stages: list[Stage] = [Copy(s.args[0], self.places[s]) for s in fills]
        concats = [s for s in self.symbols if s.op == "concat" and s.level == level]
        while True:
            for concat in concats:
                if concat not in self._copied and all(self._ready(p, done) for p in concat.pieces):
                    self._copied.add(concat)
                    stages += [copy for copy in self._copies[concat] if copy not in stages]
            if not todo:
                return stages
            some = [s for s in todo if s.op in ("matmul", "spread") and self._ready(s.args[0], done)]
            some = [s for s in some if all(self._ready(a, done) for a in s.operands)]
            if some:
                stages += [Product(s) if s.op == "matmul" else Copy(s.args[0], self._spread(s)) for s in some]
                done |= set(some)
            else:
                run = self._run_of(todo, done)
                assert run, "a symbol is never ready"
                stages += [self._body(calls) for calls in self._split(run, level)]
                done |= {s for s in run if s.op != "greater"}
            todo = [s for s in todo if s not in done]

    def _spread(self, s: Symbol) -> Place:
        self._give(s, Kind.TIME)
        return self.places[s]

    def _is_lazy(self, s: Symbol) -> bool:
        """Whether it is computed where it is used first: it depends on no carry, and nobody else wants it."""
        computed = s.op not in NO_CALLS and s.level == ALL and self._level[s] == LOOP
        return computed and s not in self._kept_roots

    def _ready(self, a: Symbol, done: set[Symbol]) -> bool:
        a = a.root
        if a.op in ("input", "fill") or a in done:
            return True
        if a.op == "concat":
            return a in self._copied and all(self._ready(p, done) for p in a.pieces)
        lazy = a.op == "greater" or self._is_lazy(a)
        return lazy and all(self._ready(b, done) for b in a.operands)

    def _run_of(self, todo: Sequence[Symbol], done: set[Symbol]) -> list[Symbol]:
        """All elementwise calls that can be made now, in order."""
        run: dict[Symbol, None] = {}

        def there(a: Symbol) -> bool:
            a = a.root
            if a in run or self._ready(a, done):
                return True
            return (a.op == "greater" or self._is_lazy(a)) and all(map(there, a.operands))

        def add(s: Symbol) -> None:
            for a in s.operands:
                a = a.root
                if a not in run and a not in done and (a.op == "greater" or self._is_lazy(a)):
                    add(a)
            run[s] = None

        for s in todo:
            if s.op not in ("matmul", "spread") and all(map(there, s.operands)):
                add(s)
        return list(run)

    def _split(self, run: Sequence[Symbol], level: int) -> list[list[Symbol]]:
        """Calls as one body, or, where their columns or rows are too different for that, as several."""
        widths = [s.shape[-1] for s in run if s.op != "greater"]
        widths = [n for n in widths if n > 1] or widths
        rows = {s.shape[:-1] for s in run}
        if level > ONCE and math.gcd(*widths) == min(widths) and len(rows) == 1:
            return [list(run)]
        groups: list[list[Symbol]] = []
        for s in run:
            roots = {a.root for a in s.operands}
            mine = [group for group in groups if any(other in roots for other in group)]
            groups = [group for group in groups if group not in mine]
            groups.append([*(other for group in mine for other in group), s])
        return [sorted(group, key=run.index) for group in groups]

    def _body(self, run: Sequence[Symbol]) -> Run:
        """Calls as a pointwise body."""
        inside = {s: i for i, s in enumerate(run)}
        inputs: dict[Symbol, int] = {}

        def operand(a: Operand) -> Any:
            if not isinstance(a, Symbol):
                return float.hex(a)
            if a.root not in inside:
                return "input", inputs.setdefault(a, len(inputs))
            columns = a.args[1:] if a.op == "slice" else ()
            return "value", inside[a.root], *columns

        calls = tuple((s.op, *map(operand, s.args)) for s in run)
        outputs = [s for s in run if s.op != "greater" and self._is_used_outside(s, inside)]
        body = _pointwise_body(calls, tuple(inside[s] for s in outputs))
        return Run(body, tuple(inputs), tuple(outputs), tuple(run))

    def _is_used_outside(self, s: Symbol, inside: dict[Symbol, int]) -> bool:
        return s in self._kept_roots or any(
            c not in inside or any(w not in inside for w in self._chosen_by(c)) for c in self._consumers[s]
        )

    def _reads_of(self, stage: Stage) -> dict[Symbol, int]:
        """Whose memory a stage reads, and in which of its calls it does last."""
        if isinstance(stage, Run):
            operands = [(i, a) for i, call in enumerate(stage.calls) for a in call.operands]
        else:
            sources = stage.symbol.operands if isinstance(stage, Product) else [stage.source]
            operands = [(0, a) for a in sources if isinstance(a, Symbol)]
        return {s.root: i for i, a in operands for s in (a.root, *a.root.pieces)}

    # --- memory of results ---

    def _share_products(self) -> None:
        """Compute what is made of columns of a product in the place of these columns, if all of them are kept."""
        for stage in self.loop:
            product = stage.symbol if isinstance(stage, Product) else None
            if product is not None and product not in self.places and product not in self._results:
                slices = [s for s in self.symbols if s.op == "slice" and s.args[0] is product]
                self._share_product(product, slices)

    def _share_product(self, product: Symbol, slices: Sequence[Symbol]) -> None:
        readers = [i for i, reads in enumerate(self._reads[LOOP]) if product in reads]
        run = self.loop[readers[0]] if readers else None
        if len(readers) > 1 or not isinstance(run, Run) or any(product in s.args for s in run.calls):
            return
        if any(self._level[c] == AFTER for c in self._consumers[product]):
            return
        kinds: list[Kind] = []
        taken: list[tuple[Symbol, Symbol]] = []
        covered = 0
        for region in sorted(slices, key=lambda s: s.args[1]):
            if region.args[1] < covered:
                return
            if region.args[1] > covered:
                break
            target = self._target(run, region, [t for t, _ in taken])
            if region in self._results:
                kinds.append(self._want[product])
            elif target is not None:
                kinds.append(self._want[target])
                taken.append((target, region))
            else:
                break
            covered = region.args[2]
        if covered < product.shape[1]:
            return
        self._give(product, max(kinds))
        for target, region in taken:
            self.places[target] = self.places[product].columns(*region.args[1:])
            self._shared.add(target)

    def _target(self, run: Run, region: Symbol, taken: Sequence[Symbol]) -> Symbol | None:
        """What of a body's results is kept, and can stand where it reads `region`."""
        for output in run.outputs:
            if output in taken:
                continue
            free = output in self._want and output not in self.places and output.shape == region.shape
            if free and _may_overwrite(run, region, output):
                return output
        return None

    def _work_in_results(self) -> None:
        """Compute what a body reads where one of its results will stand, if it is of no other use."""
        for level, stages in enumerate(self._all_stages):
            for number in reversed(range(len(stages))):
                stage = stages[number]
                if level == ONCE or not isinstance(stage, Run):
                    continue
                for output in stage.outputs:
                    place = self.places.get(output)
                    if place is None or place.buffer.kind == Kind.STEP or output in self._shared:
                        continue
                    found = [a for a in stage.inputs if self._may_stand(a, output, place, level, number)]
                    if found:
                        best = max(found, key=lambda a: (self._level[a] == ALL, self._index[a]))
                        self.places[best] = place

    def _may_stand(self, a: Symbol, output: Symbol, place: Place, level: int, number: int) -> bool:
        if a.op in NO_CALLS or a.level == ONCE or a in self.places or a in self._kept_roots or a in self._want:
            return False
        if a.shape != output.shape or (self._level[a] == ALL and place.buffer.kind != Kind.TIME):
            return False
        reads = [(at, i) for at, levels in enumerate(self._reads) for i, reads in enumerate(levels) if a in reads]
        return reads == [(level, number)] and _may_overwrite(self._all_stages[level][number], a, output)

    def _place_rest(self) -> None:
        """Give everything else memory; within a step, memory that is free again serves for something else."""
        for level, stages in enumerate(self._all_stages):
            kind = (Kind.STEP, Kind.TIME, Kind.STEP, Kind.BLOCK)[level]
            last = {s: i for i, reads in enumerate(self._reads[level]) for s in reads}
            free: dict[Shape, list[Place]] = defaultdict(list)
            mine: list[Symbol] = []
            for number, stage in enumerate(stages):
                for s in _results_of(stage):
                    if s in self.places:
                        continue
                    dying = [a for a in mine if last.get(a) == number and a.shape == s.shape]
                    over = [a for a in dying if isinstance(stage, Run) and _may_overwrite(stage, a, s)]
                    if over:
                        mine.remove(over[0])
                        self.places[s] = self.places[over[0]]
                    elif free[s.shape]:
                        self.places[s] = free[s.shape].pop()
                    else:
                        self._give(s, kind)
                    if level in (LOOP, AFTER):
                        mine.append(s)
                for a in list(mine):
                    if last.get(a, math.inf) <= number:
                        mine.remove(a)
                        free[a.shape].append(self.places[a])

    def _in_steps(self, s: Symbol) -> bool:
        """Whether it lies in a buffer, and differs from step to step."""
        return s.level > ONCE and s.root in self.places

    def _kept_buffers(self) -> set[Buffer]:
        """Buffers most of whose columns are results."""
        spans: dict[Buffer, list[Span]] = defaultdict(list)
        for span in [self.span(y) for y in self.ys if self._in_steps(y)]:
            assert isinstance(span.source, Buffer)
            spans[span.source].append(span)
        return {buffer for buffer, some in spans.items() if buffer.shape[-1] <= MAX_WASTE * _n_columns(some)}

    # --- sums over steps ---

    def span(self, s: Symbol) -> Span:
        """Where a symbol lies that is not the same in all steps."""
        root, (start, stop) = s.root, s.args[1:] if s.op == "slice" else (0, s.shape[-1])
        place = self.places.get(root)
        if place is None:
            assert root.op == "input"
            return Span(root.args[1], False, start, stop)
        offset = place.edges[-1][0]
        return Span(place.buffer, place.after, offset + start, offset + stop)

    def _contractions(self, pairs: Sequence[tuple[Symbol, Symbol]]) -> list[Contraction]:
        """Sums of pairs; those that lie side by side are taken together."""
        found: list[Contraction] = []
        spans = [(number, self.span(a), self.span(b)) for number, (a, b) in enumerate(pairs)]
        for number, a, b in sorted(spans, key=lambda pair: pair[1].start):
            for i, other in enumerate(found):
                joined = _joined(other, a, b, number)
                if joined is not None:
                    found[i] = joined
                    break
            else:
                results = [(number, slice(0, a.stop - a.start), slice(0, b.stop - b.start))]
                found.append(Contraction(a, b, results))
        return found


def _n_columns(spans: Sequence[Span]) -> int:
    """How many columns there are in at least one of several spans."""
    number = edge = 0
    for span in sorted(spans, key=lambda span: span.start):
        number += max(0, span.stop - max(edge, span.start))
        edge = max(edge, span.stop)
    return number


def _joined(other: Contraction, a: Span, b: Span, number: int) -> Contraction | None:
    """Return a contraction that also gives another pair's sum, or None if that would take much more work."""
    if a[:2] != other.a[:2] or b[:2] != other.b[:2] or a.start != other.a.stop:
        return None
    start, stop = min(b.start, other.b.start), max(b.stop, other.b.stop)
    (p, q), (r, s) = ((x.stop - x.start, y.stop - y.start) for x, y in ((a, b), (other.a, other.b)))
    if stop - start > max(q, s) or (p + r) * (stop - start) > MAX_PADDING * (p * q + r * s):
        return None
    moved = other.b.start - start
    results = [(n, rows, slice(c.start + moved, c.stop + moved)) for n, rows, c in other.results]
    results.append((number, slice(r, r + p), slice(b.start - start, b.stop - start)))
    return Contraction(other.a._replace(stop=a.stop), other.b._replace(start=start, stop=stop), results)


def _inputs(s: Symbol) -> list[Symbol]:
    """What a symbol is made of, and, of one that chooses, what is compared for it."""
    return [b for a in s.operands for b in (a.operands if a.op == "greater" else [a])]


def _results_of(stage: Stage) -> tuple[Symbol, ...]:
    if isinstance(stage, Run):
        return stage.outputs
    return (stage.symbol,) if isinstance(stage, Product) else ()


def _first(have: Sequence[Symbol], pieces: Sequence[Symbol]) -> int | None:
    """At which of its pieces a row begins to have others side by side."""
    numbers = range(len(have) - len(pieces) + 1)
    return next((i for i in numbers if all(p is q for p, q in zip(have[i:], pieces, strict=False))), None)


def _first_of(have: Sequence[Symbol], concat: Symbol) -> int:
    first = _first(have, concat.pieces)
    assert first is not None
    return first


def _may_overwrite(stage: Stage, a: Symbol, output: Symbol) -> bool:
    """Whether a stage may write a result over what it reads of `a`, which may be columns of something.

    Each number of the result is made of the number that it is written over, if of any in that memory.
    """
    if a.shape != output.shape:
        return False
    if not isinstance(stage, Run):
        sources = stage.symbol.operands if isinstance(stage, Product) else []
        return all(a.root not in (s.root, *(p.root for p in s.root.pieces)) for s in sources)
    number = stage.calls.index(output)
    for i, call in enumerate(stage.calls):
        for operand in call.operands:
            if operand is a:
                if i > number:
                    return False
            elif a.root in [p.root for p in operand.root.pieces]:
                apart = operand.op == a.op == "slice" and operand.root is a.root
                if not apart or (operand.args[1] < a.args[2] and a.args[1] < operand.args[2]):
                    return False
    return True


# --- bodies -----------------------------------------------------------------------------------------------------


@lru_cache(MAX_PLANS)
def _pointwise_body(calls: tuple[Any, ...], outputs: tuple[int, ...]) -> Body:
    """A function that makes elementwise calls; the same one each time, so that devices know it again.

    An operand is a number in hexadecimal, ``("input", i)``, or ``("value", i)``, the result of call i, or ``("value",
    i, start, stop)``, its columns.
    """

    def body(xp: Any, *inputs: Any) -> tuple[Any, ...]:
        values: list[Any] = []

        def value(operand: Any) -> Any:
            if isinstance(operand, str):
                return float.fromhex(operand)
            kind, number, *columns = operand
            array = inputs[number] if kind == "input" else values[number]
            return array[..., slice(*columns)] if columns else array

        for function, *operands in calls:
            values.append(getattr(xp, function)(*map(value, operands)))
        return tuple(values[i] for i in outputs)

    return body


# --- plans ------------------------------------------------------------------------------------------------------

Structure: TypeAlias = Any
"""A nested tuple of arguments as a key: of arrays, their shapes; numbers as they are."""


def structure_of(tree: Any, B: int = 1) -> Structure:
    """What of an argument a plan depends on; of B sequences, not how many they are, unless there is one alone."""
    if tree is None:
        return None
    if isinstance(tree, tuple | list):
        return "tuple", type(tree), tuple([structure_of(part, B) for part in tree])
    if isinstance(tree, float):
        return "float", float(tree).hex()  # 0.0 and -0.0 are equal, but not the same
    shape = getattr(tree, "shape", None)
    if shape is None:
        return "constant", type(tree), tree
    return ("array", ROWS, *shape[1:]) if B > 1 and shape[:1] == (B,) else ("array", *shape)


def leaves_of(tree: Any) -> list[Any]:
    """The arrays of an argument, in order."""
    if isinstance(tree, tuple | list):
        return [leaf for part in tree for leaf in leaves_of(part)]
    return [] if tree is None or not hasattr(tree, "shape") or isinstance(tree, float) else [tree]


def built(structure: Structure, leaf: Callable[[Shape], Any]) -> Any:
    """An argument with that structure, whose arrays are ``leaf(shape)``."""
    if structure is None:
        return None
    kind, *content = structure
    if kind == "array":
        return leaf(tuple(content))
    if kind == "float":
        return float.fromhex(content[0])
    if kind == "constant":
        return content[1]
    type_, parts = content
    return rebuilt(type_, [built(part, leaf) for part in parts])


def rebuilt(type_: Any, parts: Sequence[Any]) -> Any:
    """A tuple, a named one or a list of parts."""
    return type_._make(parts) if hasattr(type_, "_make") else type_(parts)


def replaced(tree: Any, arrays: Iterator[Any]) -> Any:
    """Arguments with other arrays in place of theirs, in order."""
    if isinstance(tree, tuple):
        return rebuilt(type(tree), [replaced(part, arrays) for part in tree])
    return next(arrays) if hasattr(tree, "shape") else tree


def filled(tree: Any, values: Sequence[Any]) -> Any:
    """A tree of values in place of their numbers."""
    kind = type(tree)
    if kind is int:
        return values[tree]
    if not tree:
        return tree
    parts = [filled(part, values) for part in tree]
    return tuple(parts) if kind is tuple else rebuilt(kind, parts)


class _Inputs:
    """Numbers inputs."""

    def __init__(self, trace: Trace, kind: str, level: int) -> None:
        self._trace, self._kind, self._level, self._n = trace, kind, level, 0

    def __call__(self, shape: Shape) -> Symbol:
        self._n += 1
        return self._trace.input(self._kind, self._n - 1, shape, self._level)


class ScanPlan(NamedTuple):
    """A plan of a step; of results that are None, it has none."""

    plan: StepPlan
    ys: tuple[int | None, ...]


@lru_cache(MAX_PLANS)
def scan_plan(step: Any, weights: Structure, carry: Structure, xs: Structure, rows: Structure) -> ScanPlan:
    """The plan of a step; shapes of `xs` are those of one step."""
    trace = Trace()
    given = built(weights, _Inputs(trace, "weight", ONCE))
    xs, rows = built(xs, _Inputs(trace, "x", ALL)), built(rows, _Inputs(trace, "row", ONCE))
    carry_in = built(carry, _Inputs(trace, "carry", LOOP))
    carry_out, ys, pairs = step(trace, given, carry_in, xs, rows)
    if (carry_in is None) != (carry_out is None) or (carry_in is not None and carry_in.shape != carry_out.shape):
        raise refuse(f"makes {carry_out!r} of a carry {carry_in!r}")
    B = next(a for a in (carry_in, *xs) if a is not None).shape[0]

    def result(a: Any) -> Symbol:
        if not isinstance(a, Symbol) or a.op == "greater" or a.ndim != 2 or a.shape[0] not in (1, B):
            raise refuse(f"returns {a!r} beside arrays of {B} rows")
        return trace.symbol("spread", (a,), (B, a.shape[1]), ALL) if a.level == ONCE else a

    results = [result(y) for y in ys if y is not None]
    members = [result(m) for pair in pairs for m in pair]
    carried = [] if carry_out is None else [carry_out]
    for rewriting in (ScaledWeights, JoinedProducts):
        everything = [*results, *members, *carried]
        symbols = needed(trace.symbols, everything)
        new = rewriting(symbols, everything) if rewriting is ScaledWeights else rewriting(symbols, carry_out)
        trace = new.trace
        carry_in = None if carry_in is None else new.of(carry_in)
        carry_out = None if carry_out is None else new.of(carry_out)
        results, members, carried = ([new.of(s) for s in some] for some in (results, members, carried))
    pairs = list(zip(members[::2], members[1::2], strict=True))
    numbers = iter(range(len(results)))
    where = tuple(None if y is None else next(numbers) for y in ys)
    return ScanPlan(StepPlan(trace.symbols, carry_in, carry_out, results, pairs), where)


class CallPlan(NamedTuple):
    """A plan of a function.

    Attributes
    ----------
    result
        The structure of what it returns: numbers of results, and None.
    only_copied
        Numbers of the inputs that are only copied, as a whole, into larger arrays.
    """

    plan: StepPlan
    result: Any
    only_copied: frozenset[int]


@lru_cache(MAX_PLANS)
def call_plan(function: Any, arguments: Structure) -> CallPlan:
    """The plan of a function."""
    trace = Trace()
    returned = function(trace, *built(arguments, _Inputs(trace, "weight", ONCE)))
    results: list[Symbol] = []

    def numbered(tree: Any) -> Any:
        if isinstance(tree, tuple | list):
            return rebuilt(type(tree), [numbered(part) for part in tree])
        if tree is None:
            return None
        if not isinstance(tree, Symbol) or tree.op == "greater":
            raise refuse(f"returns {tree!r} as an array")
        results.append(tree)
        return len(results) - 1

    result = numbered(returned)
    for rewriting in (SumsOfProducts, JoinedColumns):
        new = rewriting(needed(trace.symbols, results))
        trace, results = new.trace, [new.of(s) for s in results]
    plan = StepPlan(trace.symbols, None, None, results, ())
    return CallPlan(plan, result, _only_copied(plan))


def _only_copied(plan: StepPlan) -> frozenset[int]:
    used = list(plan.ys)
    for stage in plan.once:
        if isinstance(stage, Run):
            used += stage.inputs
        elif isinstance(stage, Product):
            used += stage.symbol.operands
        elif isinstance(stage.source, Symbol) and stage.source.op != "input":
            used.append(stage.source)
    roots = {s.root for s in used}
    return frozenset(s.args[1] for s in plan.symbols if s.op == "input" and s not in roots)
