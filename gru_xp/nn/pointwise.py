"""Pointwise bodies that several files use; see `gru_xp.nn.ops.Body`."""

from gru_xp.nn.ops import Array, Namespace, Ops


def add(xp: Namespace, a: Array, b: Array) -> tuple[Array]:
    """``a + b``."""
    return (a + b,)


def divide(xp: Namespace, a: Array, b: Array | float) -> tuple[Array]:
    """``a / b``."""
    return (a / b,)


def add_into(total: Array, a: Array, ops: Ops) -> None:
    """``total += a``."""
    ops.pointwise(add, (total, a), out=(total,))
