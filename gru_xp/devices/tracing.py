"""Run a pure step, or another function of arrays, once on symbols, and write down what it computes.

A :class:`Symbol` stands for an array, and a :class:`Trace` for the namespace. Each value is written down once, however
often the function computes it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from gru_xp.devices.recording import FUNCTIONS, broadcast

ONCE, ALL, LOOP = range(3)
"""Levels: what is the same in all steps; what differs, but does not depend on the carry; and what does."""

ALLOWED = (
    "products a @ w and a @ w.T, columns a[..., i:j], xp.concat along the last axis, xp.ones_like, xp.zeros_like, "
    f"operators and xp.{', xp.'.join(FUNCTIONS)}; of weights also .T, any slice, w[:, None] and xp.concat along any "
    "axis; a > b only as the condition of xp.where"
)
"""What a function that is traced may use."""

VIEWS = ("slice", "part", "transpose")
"""Symbols that are views of what they are made of."""


def refuse(what: str) -> TypeError:
    """The error for a function that does something else."""
    return TypeError(f"a step {what}; it may use {ALLOWED}")


class Rows:
    """The number of sequences while a step is traced, for any of them but 1; it differs from all numbers."""

    def __repr__(self) -> str:
        return "B"


ROWS = Rows()
"""In a shape: as many as there are sequences."""

Shape: TypeAlias = tuple[Any, ...]
"""Sizes; the first may be `ROWS`."""


class Symbol:
    """An array while a function is traced.

    Attributes
    ----------
    op
        ``"input"``, ``"fill"``, ``"slice"`` (of columns), ``"part"``, ``"transpose"``, ``"concat"``, ``"matmul"``,
        ``"spread"`` (the same for each step), or one of `recording.FUNCTIONS`.
    args
        What it is made of: symbols, numbers and, of views, where they begin and end.
    shape
        Of the array; of one that differs from step to step, of one step's.
    level
        `ONCE`, `ALL` or `LOOP`.
    trace
        What it belongs to.
    operands
        The symbols among `args`.
    root
        The symbol of which this one is a view, or the symbol itself.
    """

    __slots__ = ("args", "level", "op", "operands", "root", "shape", "trace")
    __array_ufunc__ = None  # NumPy's numbers leave operators to this class

    def __init__(self, op: str, args: tuple[Any, ...], shape: Shape, level: int, trace: "Trace") -> None:
        self.op, self.args, self.shape, self.level, self.trace = op, args, shape, level, trace
        self.operands = [a for a in args if isinstance(a, Symbol)]
        self.root: Symbol = self.operands[0].root if op in VIEWS else self

    def __repr__(self) -> str:
        return f"<{self.op} {self.shape}>"

    @property
    def pieces(self) -> "tuple[Symbol, ...]":
        """The symbols that stand side by side in it; itself, if it is no concat."""
        return self.args[:-1] if self.op == "concat" else (self,)

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    @property
    def T(self) -> "Symbol":
        """The transpose, of weights."""
        if self.level > ONCE or self.ndim != 2 or ROWS in self.shape:
            raise refuse("transposes what is no matrix of weights")
        return self.args[0] if self.op == "transpose" else self.trace.symbol("transpose", (self,), self.shape[::-1])

    def __getitem__(self, key: Any) -> "Symbol":
        columns = key[1] if isinstance(key, tuple) and len(key) == 2 and key[0] in (..., slice(None)) else None
        if self.ndim == 2 and isinstance(columns, slice) and columns.step in (None, 1):
            start, stop, _ = columns.indices(self.shape[1])
            return self.trace.columns(self, start, max(start, stop))
        if self.level > ONCE or ROWS in self.shape:
            raise refuse(f"slices an array by {key!r}")
        return self.trace.part(self, key)

    def __matmul__(self, other: Any) -> "Symbol":
        return self.trace.product(self, other)

    def __neg__(self) -> "Symbol":
        return self.trace.pointwise("negative", self)

    def __lt__(self, other: Any) -> "Symbol":
        return self.trace.pointwise("greater", other, self)

    def __bool__(self) -> bool:
        raise refuse("asks for the value of an array")

    def __iter__(self) -> Any:
        raise refuse("iterates over an array")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(str(refuse(f"asks an array for its {name}")))


def _operator(name: str, function: str, swap: bool = False) -> None:
    def method(self: Symbol, other: Any) -> Symbol:
        return self.trace.pointwise(function, *((other, self) if swap else (self, other)))

    setattr(Symbol, name, method)


for _name, _function in {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide"}.items():
    _operator(f"__{_name}__", _function)
    _operator(f"__r{_name}__", _function, swap=True)
_operator("__gt__", "greater")

Operand: TypeAlias = Symbol | float


class Trace:
    """The namespace that a function sees while it is traced; ``symbols`` is what it has computed, in order."""

    def __init__(self) -> None:
        self.symbols: list[Symbol] = []
        self._known: dict[Any, Symbol] = {}

    def symbol(self, op: str, args: tuple[Any, ...], shape: Shape, level: int | None = None) -> Symbol:
        """The symbol for a value, the same one each time."""
        key = (op, shape, *(a if isinstance(a, Symbol) else repr(a) for a in args))
        found = self._known.get(key)
        if found is None:
            if level is None:
                level = max((a.level for a in args if isinstance(a, Symbol)), default=ONCE)
            found = self._known[key] = Symbol(op, args, shape, level, self)
            self.symbols.append(found)
        return found

    def input(self, kind: str, number: int, shape: Shape, level: int) -> Symbol:
        """Input `number` of a kind."""
        return self.symbol("input", (kind, number), shape, level)

    def columns(self, a: Symbol, start: int, stop: int) -> Symbol:
        """Columns of a matrix: whole pieces, where it consists of them."""
        if (start, stop) == (0, a.shape[1]):
            return a
        if a.op == "slice":
            return self.columns(a.args[0], a.args[1] + start, a.args[1] + stop)
        if a.op == "concat" and a.args[-1] == 1:
            edges = edges_of(a.pieces)
            if start in edges and stop in edges[edges.index(start) + 1 :]:
                return self.concat(a.pieces[edges.index(start) : edges.index(stop)], axis=1)
        return self.symbol("slice", (a, start, stop), (a.shape[0], stop - start))

    def part(self, a: Symbol, key: Any) -> Symbol:
        """Any view of weights by slices, whole numbers and new axes."""
        keys = key if isinstance(key, tuple) else (key,)
        if not all(k is None or k is ... or isinstance(k, (slice, int)) for k in keys):
            raise refuse(f"slices weights by {key!r}")
        example = np.ndarray(a.shape, np.bool_, b"0", strides=(0,) * a.ndim)
        return self.symbol("part", (a, key), example[key].shape)

    def product(self, a: Any, b: Any) -> Symbol:
        """``a @ b``."""
        if not isinstance(b, Symbol) or b.level > ONCE or b.ndim != 2 or ROWS in b.shape or a.ndim < 2:
            raise refuse("multiplies by a matrix that is no weights")
        if a.shape[-1] != b.shape[0]:
            raise ValueError(f"shapes {a.shape} and {b.shape} do not go together in a product")
        return self.symbol("matmul", (a, b), (*a.shape[:-1], b.shape[1]))

    def pointwise(self, function: str, *operands: Any) -> Symbol:
        """An elementwise function of symbols and numbers."""
        given = [a if isinstance(a, Symbol) else _number(a, function) for a in operands]
        symbols = [a for a in given if isinstance(a, Symbol)]
        if not symbols:
            raise refuse(f"calls {function} on numbers alone")
        conditions = [place for place, a in enumerate(given) if isinstance(a, Symbol) and a.op == "greater"]
        if conditions != ([0] if function == "where" else []):
            raise refuse("chooses by a number, or computes with a comparison")
        return self.symbol(function, tuple(given), broadcast([a.shape for a in symbols], function))

    def concat(self, arrays: Sequence[Any], *, axis: int = 0) -> Symbol:
        """Arrays side by side."""
        if not arrays or not all(isinstance(a, Symbol) and a.op != "greater" for a in arrays):
            raise refuse("puts something else than arrays side by side")
        axis += arrays[0].ndim if axis < 0 else 0
        others = {(*a.shape[:axis], *a.shape[axis + 1 :]) for a in arrays}
        if len(others) > 1 or not 0 <= axis < arrays[0].ndim:
            shapes = ", ".join(str(a.shape) for a in arrays)
            raise ValueError(f"arrays of shapes {shapes} do not go side by side along axis {axis}")
        if max(a.level for a in arrays) > ONCE and (axis, arrays[0].ndim) != (1, 2):
            raise refuse(f"puts arrays side by side along axis {axis}")
        flat = [p for a in arrays for p in (a.pieces if a.op == "concat" and a.args[-1] == axis else (a,))]
        flat = [p for p in flat if p.shape[axis]] or flat[:1]
        first: Symbol = flat[0]
        if len(flat) == 1:
            return first
        size = sum(p.shape[axis] for p in flat)
        shape = (*first.shape[:axis], size, *first.shape[axis + 1 :])
        return self.symbol("concat", (*flat, axis), shape)

    def fill(self, value: float, shape: Shape) -> Symbol:
        """An array of the same number everywhere."""
        return self.symbol("fill", (value,), shape, ONCE)

    def ones_like(self, a: Symbol) -> Symbol:
        """Ones in the shape of an array."""
        return self.fill(1.0, a.shape)

    def zeros_like(self, a: Symbol) -> Symbol:
        """Zeros in the shape of an array."""
        return self.fill(0.0, a.shape)

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name not in FUNCTIONS:
            raise AttributeError(str(refuse(f"calls {name!r}")))
        return lambda *operands: self.pointwise(name, *operands)


def _number(value: Any, function: str) -> float:
    if not isinstance(value, Real):
        raise refuse(f"calls {function} on {'None' if value is None else f'a {type(value).__name__}'}")
    return float(value)


def edges_of(pieces: Sequence[Symbol]) -> list[int]:
    """In which columns pieces that stand side by side begin, and where the last one ends."""
    edges = [0]
    for piece in pieces:
        edges.append(edges[-1] + piece.shape[-1])
    return edges


def needed(symbols: Sequence[Symbol], results: Iterable[Symbol]) -> list[Symbol]:
    """Those that results depend on, in order."""
    wanted = ancestors(results)
    return [s for s in symbols if s in wanted]


def ancestors(results: Iterable[Symbol]) -> set[Symbol]:
    """All symbols that results are made of, themselves included."""
    found: set[Symbol] = set()
    stack = list(results)
    while stack:
        symbol = stack.pop()
        if symbol not in found:
            found.add(symbol)
            stack += symbol.operands
    return found


# --- rewriting --------------------------------------------------------------------------------------------------


class _Rewriting:
    """Symbols of a trace, made again in a new one, but for those that `replace` makes something else of.

    If it is known that there are none of these, the symbols are left as they are.
    """

    def __init__(self, symbols: Sequence[Symbol], replaces: bool = True) -> None:
        self.trace = Trace() if replaces or not symbols else symbols[0].trace
        self._made: dict[Symbol, Symbol] = {} if replaces else {s: s for s in symbols}
        for symbol in symbols:
            self.of(symbol)

    def of(self, symbol: Symbol) -> Symbol:
        made = self._made.get(symbol)
        if made is None:
            made = self.replace(symbol)
            made = self._made[symbol] = self._again(symbol) if made is None else made
        return made

    def replace(self, symbol: Symbol) -> Symbol | None:
        raise NotImplementedError

    def _again(self, symbol: Symbol) -> Symbol:
        args: tuple[Any, ...] = tuple(self.of(a) if isinstance(a, Symbol) else a for a in symbol.args)
        if symbol.op == "slice":
            return self.trace.columns(*args)
        if symbol.op == "concat":
            return self.trace.concat(args[:-1], axis=args[-1])
        return self.trace.symbol(symbol.op, args, symbol.shape, symbol.level)


class ScaledWeights(_Rewriting):
    """``number * (a @ w)`` as ``a @ (number * w)``: weights serve for all steps."""

    def __init__(self, symbols: Sequence[Symbol], results: Iterable[Symbol]) -> None:
        self._shared = set(results)
        seen: set[Symbol] = set()
        for symbol in symbols:
            for a in symbol.operands:
                (self._shared if a in seen else seen).add(a)
        super().__init__(symbols, any(map(self._is_scaled, symbols)))

    def replace(self, symbol: Symbol) -> Symbol | None:
        if not self._is_scaled(symbol):
            return None
        (a,) = symbol.operands
        number = symbol.args[0] if symbol.args[1] is a else symbol.args[1]
        return self.trace.product(self.of(a.args[0]), self._scaled(self.of(a.args[1]), number))

    def _is_scaled(self, symbol: Symbol) -> bool:
        """Whether it is a number times a product that nobody else wants."""
        if symbol.op != "multiply" or symbol.level == ONCE or len(symbol.operands) > 1:
            return False
        (a,) = symbol.operands
        return a.op == "matmul" and a not in self._shared

    def _scaled(self, w: Symbol, number: float) -> Symbol:
        if w.op == "transpose":
            return self._scaled(w.args[0], number).T
        if w.op == "concat":
            return self.trace.concat([self._scaled(p, number) for p in w.pieces], axis=w.args[-1])
        if w.op == "fill":
            return self.trace.fill(number * w.args[0], w.shape)
        return self.trace.pointwise("multiply", number, w)


MAX_PADDING = 1.3
"""How many times as much work a product of joined weights may be as those it takes the place of."""


class JoinedProducts(_Rewriting):
    """Products of rows that contain each other as one, with zeros in the weights of what a row has not."""

    def __init__(self, symbols: Sequence[Symbol], carry: Symbol | None) -> None:
        feeds = ancestors([] if carry is None else [carry])
        depths = _depths(symbols)
        groups: dict[Any, list[list[Symbol]]] = defaultdict(list)
        for product in sorted(symbols, key=lambda s: -len(s.args[0].pieces) if s.op == "matmul" else 0):
            if product.op != "matmul" or product.level == ONCE:
                continue
            # products of one depth do not depend on each other
            kind = depths[product], product.level, product.args[1].op == "transpose", product in feeds
            group = next((group for group in groups[kind] if _can_join(group, product)), None)
            if group is None:
                groups[kind].append([product])
            else:
                group.append(product)
        found = [group for some in groups.values() for group in some if len(group) > 1]
        self._group = {product: group for group in found for product in group}
        super().__init__(symbols, bool(found))

    def replace(self, symbol: Symbol) -> Symbol | None:
        group = self._group.get(symbol)
        if group is None:
            return None
        row, trace = group[0].args[0], self.trace
        transposed = group[0].args[1].op == "transpose"
        axis = 1 if transposed else 0  # along which a row's columns lie in the weights
        blocks = []
        for product in group:
            a, w = product.args
            w = self.of(w.args[0] if transposed else w)
            start = _columns_in(row, a)
            around = (start, row.shape[1] - start - a.shape[1])
            shapes = [(w.shape[0], n) if transposed else (n, w.shape[1]) for n in around]
            padding = [trace.fill(0.0, shape) for shape in shapes]
            blocks.append(trace.concat([padding[0], w, padding[1]], axis=axis))
        weights = trace.concat(blocks, axis=1 - axis)
        whole = trace.product(self.of(row), weights.T if transposed else weights)
        edges = edges_of(group)
        number = next(i for i, product in enumerate(group) if product is symbol)
        return trace.columns(whole, edges[number], edges[number + 1])


def _depths(symbols: Sequence[Symbol]) -> dict[Symbol, int]:
    """How many products lead to each symbol, one after the other, itself included."""
    depths: dict[Symbol, int] = {}
    for s in symbols:
        depths[s] = max((depths[a] for a in s.operands), default=0) + (s.op == "matmul")
    return depths


def _can_join(group: Sequence[Symbol], product: Symbol) -> bool:
    row = group[0].args[0]
    if _columns_in(row, product.args[0]) is None:
        return False
    members = [*group, product]
    work = sum(m.args[0].shape[1] * m.shape[1] for m in members)
    return bool(row.shape[1] * sum(m.shape[1] for m in members) <= MAX_PADDING * work)


def _columns_in(row: Symbol, a: Symbol) -> Any:
    """In which column of a row the pieces of another one begin; None if it does not have them side by side."""
    pieces, some = row.pieces, a.pieces
    for i in range(len(pieces) - len(some) + 1):
        if all(p is q for p, q in zip(pieces[i:], some, strict=False)):
            return edges_of(pieces)[i]
    return None


class SumsOfProducts(_Rewriting):
    """Products of pieces side by side as sums of their products, with weights as they are: for a single step."""

    def __init__(self, symbols: Sequence[Symbol]) -> None:
        super().__init__(symbols, any(s.op == "matmul" and s.args[0].op == "concat" for s in symbols))

    def replace(self, symbol: Symbol) -> Symbol | None:
        if symbol.op != "matmul" or symbol.args[0].op != "concat":
            return None
        row, w = symbol.args
        transposed = w.op == "transpose"
        w = w.args[0] if transposed else w
        axis = 1 if transposed else 0
        sizes = [b.shape[axis] for b in w.pieces]
        if w.op != "concat" or w.args[-1] != axis or sizes != [p.shape[-1] for p in row.pieces]:
            return None
        terms: list[Symbol] = []
        for piece, block in zip(map(self.of, row.pieces), map(self.of, w.pieces), strict=True):
            right = block.T if transposed else block
            if piece.op != "fill" or piece.shape[-1] > 1 or piece.args[0] != 1.0:
                terms.append(self.trace.product(piece, right))
            elif terms:  # to a product beside it, as other rows may have the same two pieces
                terms[-1] = self.trace.pointwise("add", terms[-1], right)
            else:
                terms.append(right)
        if all(term.shape != symbol.shape for term in terms):
            return None
        total, *others = terms
        for term in others:
            total = self.trace.pointwise("add", total, term)
        return total


class JoinedColumns(_Rewriting):
    """Products with rows of the same weights, and sums with such, as one: all of it serves for each."""

    def __init__(self, symbols: Sequence[Symbol]) -> None:
        self._columns: dict[Symbol, tuple[Symbol, int, int]] = {}
        self._found: dict[Symbol, set[tuple[int, int]]] = defaultdict(set)
        for s in symbols:
            columns = self._columns_of(s)
            if columns is not None:
                self._columns[s] = columns
                self._found[columns[0]].add(columns[1:])
        super().__init__(symbols, bool(self._columns))

    def replace(self, symbol: Symbol) -> Symbol | None:
        whole, start, stop = self._columns.get(symbol, (None, 0, 0))
        if whole is None or symbol.op not in ("matmul", "add") or not self._is_used(whole):
            return None
        return self.trace.columns(self.of(whole), start, stop)

    def _is_used(self, whole: Symbol) -> bool:
        """Whether the columns that are used are all there are, each once."""
        edge = 0
        for start, stop in sorted(self._found[whole]):
            if start != edge:
                return False
            edge = stop
        return bool(edge == whole.shape[1])

    def _columns_of(self, s: Symbol) -> tuple[Symbol, int, int] | None:
        """Which columns of what a symbol is, or can be."""
        if s.op == "transpose":
            return _rows_of(s.args[0])
        if s.op not in ("matmul", "add"):
            return None
        known = [self._columns.get(a) for a in s.args if isinstance(a, Symbol)]
        if s.op == "matmul":
            a, w = s.args[0], known[1]
            return None if w is None else (s.trace.product(a, w[0]), *w[1:])
        if len(known) < 2 or known[0] is None or known[1] is None or known[0][1:] != known[1][1:]:
            return None
        a, b = known[0][0], known[1][0]
        return None if a.shape[1] != b.shape[1] else (s.trace.pointwise("add", a, b), *known[0][1:])


def _rows_of(w: Symbol) -> tuple[Symbol, int, int] | None:
    """The transpose of a matrix, and which of its columns a part of its rows are."""
    if w.op != "part" or w.ndim != 2 or w.args[0].ndim != 2 or not isinstance(w.args[1], tuple):
        return None
    rows, *others = w.args[1]
    if not isinstance(rows, slice) or rows.step not in (None, 1) or any(other != slice(None) for other in others):
        return None
    start, stop, _ = rows.indices(w.args[0].shape[0])
    return w.args[0].T, start, stop
