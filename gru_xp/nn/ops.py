"""What a device may speed up, and the plain default.

The maths of this folder is written once, as Array API expressions. Three things decide how fast it runs, and they
are asked for here instead of being written into the maths: memory for results, matrix products, and pointwise
expressions (a *body*: a function of a namespace and arrays that returns new arrays, elementwise). A device
implements :class:`Ops` its own way; :class:`PlainOps` does it with the standard alone.

Results are written into parts of larger arrays (``gates[t]``), so slicing must give writable views, as it does in
NumPy, CuPy, PyTorch and array-api-strict.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from array_api_compat import array_namespace, device

Array: TypeAlias = Any
"""An array of any Array API namespace."""

Namespace: TypeAlias = Any
"""A module that follows the Array API standard."""

Body: TypeAlias = Callable[..., tuple[Array, ...]]
"""``body(xp, *arrays) -> arrays``: elementwise expressions, nothing else."""


class Ops(Protocol):
    """How a device allocates memory, multiplies matrices and runs pointwise expressions."""

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        """Uninitialised memory of `shape` with the dtype and device of `like`; the memory order is the device's."""

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        """Write ``a b``, ``(..., N, K)`` times ``(K, M)``, into `out`, which shares no memory with them; return it."""

    def contract(self, a: Array, b: Array) -> Array:
        """Sum over all axes but the last: ``(..., P)``, ``(..., Q)`` to ``(P, Q)``, ``a^T b`` for matrices."""

    def pointwise(self, body: Body, inputs: tuple[Array, ...], out: tuple[Array, ...]) -> None:
        """Write ``body(xp, *inputs)`` into `out`.

        An output may be the memory of an input that the body does not use after it has computed that output.
        """


class PlainOps:
    """:class:`Ops` by the Array API standard alone, for every namespace."""

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        return array_namespace(like).empty(shape, dtype=like.dtype, device=device(like))

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        out[...] = array_namespace(a).matmul(a, b)
        return out

    def contract(self, a: Array, b: Array) -> Array:
        xp = array_namespace(a, b)
        a, b = (xp.reshape(m, (-1, m.shape[-1])) for m in (a, b))
        return xp.matmul(a.T, b)

    def pointwise(self, body: Body, inputs: tuple[Array, ...], out: tuple[Array, ...]) -> None:
        for target, value in zip(out, body(array_namespace(*inputs), *inputs), strict=True):
            target[...] = value


PLAIN_OPS = PlainOps()
