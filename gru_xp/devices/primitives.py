"""The primitives of a device, and the plain ones.

`gru_xp.devices` lowers pure steps to calls of these: memory, matrix products, pointwise expressions (a *body*: a
function of a namespace and arrays that returns new arrays, elementwise), loops over time, and which sequences are
computed together. A device implements :class:`Ops` its own way; :class:`PlainOps` does it with the standard alone.

Everything that training does to arrays goes through these methods, through the functions of `gru_xp.nn` and through
slices, so that a device may write the calls down once and play them back (`Ops.capture`). Results are written into
parts of larger arrays (``gates[t]``), so slices must be writable views.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeAlias, TypeVar

from array_api_compat import array_namespace, device, is_array_api_obj

from gru_xp.nn.scan import Array, Arrays, PlainScan, Scan, Step

Body: TypeAlias = Callable[..., tuple[Array, ...]]
"""``body(xp, *arrays) -> arrays``: elementwise expressions and slices of columns (``a[..., :n]``), nothing else.

``xp.where(a > b, c, d)`` chooses; a comparison is for nothing else.
"""

Result = TypeVar("Result")


class Ops(Scan, Protocol):
    """How a device allocates memory, multiplies matrices, runs pointwise expressions and loops."""

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        """Uninitialised memory of `shape` with the dtype and device of `like`; the memory order is the device's."""

    def copy(self, source: Array | float, out: Array) -> None:
        """Write `source`, broadcast, into `out`."""

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        """Write ``a b``, ``(..., N, K)`` times ``(K, M)``, into `out`, which shares no memory with them; return it."""

    def contract(self, a: Array, b: Array, out: Array, *, add: bool = False) -> Array:
        """Sum over all axes but the last, ``(..., P)``, ``(..., Q)`` to ``(P, Q)``; write or add it to `out`."""

    def pointwise(self, body: Body, inputs: tuple[Array | float | None, ...], out: tuple[Array, ...]) -> None:
        """Write ``body(xp, *inputs)`` into `out`; inputs that are Python numbers are constants.

        So is None, which stands for an input that a variant does without.

        An output may be the memory of an input that the body does not use after it has computed that output.
        """

    def norm(self, a: Array, out: Array) -> None:
        """Write the root of the sum of squares in `a` into `out`, shape ``(1,)``, also where squares overflow."""

    def block_length(self, T: int, B: int, H: int) -> int:
        """How many of T steps of B sequences to go back before their products are summed into weight gradients."""

    def loop(self, step: Callable[[int], None], times: Sequence[int]) -> None:
        """``step(t)`` for each of `times`, in order.

        Steps make the same calls of `matmul` and `pointwise`, on arrays of the same shapes, whose places in memory
        are evenly spaced over `times`; each row of a result depends on the same row of arrays with that many rows.
        """

    def parts(self, B: int, T: int, I: int, H: int) -> "list[tuple[slice, Ops]]":  # noqa: E741
        """Which of B sequences to compute together, and with which ops."""

    def run(self, tasks: "Sequence[tuple[Ops, Callable[[], Result]]]") -> list[Result]:
        """Results of functions that use the ops of `parts` beside them, in order.

        What they compute from arrays they compute by these methods, and may be there only when all of them are done.
        """

    def capture(self, function: Callable[[], Result]) -> Callable[[], Result]:
        """Do what `function` does once; return a function that does it again, faster, and returns its results.

        `function` may be called more than once for that: it does nothing else than to compute arrays. It does so by
        these methods, in arrays that exist already or that it gets from `empty`; the latter are overwritten when
        another captured function of the same ops runs.
        """

    def release(self) -> None:
        """Let go of memory that is kept for later calls; that of captured functions is free once they are gone."""


class PlainOps:
    """:class:`Ops` by the Array API standard alone, for every namespace."""

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        return array_namespace(like).empty(shape, dtype=like.dtype, device=device(like))

    def copy(self, source: Array | float, out: Array) -> None:
        out[...] = source

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        out[...] = array_namespace(a).matmul(a, b)
        return out

    def contract(self, a: Array, b: Array, out: Array, *, add: bool = False) -> Array:
        product = PlainScan(array_namespace(a, b)).contract(a, b)
        out[...] = out + product if add else product
        return out

    def pointwise(self, body: Body, inputs: tuple[Array | float | None, ...], out: tuple[Array, ...]) -> None:
        for target, value in zip(out, body(array_namespace(out[0]), *inputs), strict=True):
            target[...] = value

    def norm(self, a: Array, out: Array) -> None:
        xp = array_namespace(a)
        largest = xp.max(xp.abs(a))
        scale = xp.where(xp.isfinite(largest) & (largest > 0), largest, xp.ones_like(largest))
        scaled = a / scale
        out[...] = scale * xp.sqrt(xp.sum(scaled * scaled))

    def block_length(self, T: int, B: int, H: int) -> int:
        return T

    def loop(self, step: Callable[[int], None], times: Sequence[int]) -> None:
        for t in times:
            step(t)

    def parts(self, B: int, T: int, I: int, H: int) -> list[tuple[slice, Ops]]:  # noqa: E741
        return [(rows, self) for rows in even_slices(B, rounds_for_memory(B, T, I, H))]

    def run(self, tasks: Sequence[tuple[Ops, Callable[[], Result]]]) -> list[Result]:
        return [function() for _, function in tasks]

    def capture(self, function: Callable[[], Result]) -> Callable[[], Result]:
        function()
        return function

    def release(self) -> None:
        pass

    def scan(
        self, step: Step, weights: Any, carry: Any, xs: Arrays, *, rows: Arrays = (), reverse: bool = False
    ) -> tuple[Any, Arrays, Arrays]:
        like = next(x for x in xs if x is not None)
        return PlainScan(array_namespace(like)).scan(step, weights, carry, xs, rows=rows, reverse=reverse)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return PlainScan(array_namespace(_first_array(arguments))).call(function, *arguments)


def _first_array(tree: Any) -> Array:
    """Return the first array in (nested) tuples, or None."""
    if isinstance(tree, tuple | list):
        return next((a for a in map(_first_array, tree) if a is not None), None)
    return tree if is_array_api_obj(tree) else None


MAX_NUMBERS = 2**27
"""Numbers that sequences computed together may keep for their backward pass (512 MiB in float32)."""


def rounds_for_memory(B: int, T: int, I: int, H: int) -> int:  # noqa: E741
    """Into how many parts B sequences have to be split so that each keeps about `MAX_NUMBERS` at most."""
    return -(-B * T * (8 * H + I) // MAX_NUMBERS)


def even_slices(n: int, count: int) -> list[slice]:
    """`n` things in `count` runs (at most `n`) whose lengths differ by one at most, the longer ones first."""
    count = max(1, min(count, n))
    size, longer = divmod(n, count)
    starts = [i * size + min(i, longer) for i in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(starts)]


PLAIN_OPS = PlainOps()
