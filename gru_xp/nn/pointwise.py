"""Elementwise functions that several files use; see `gru_xp.devices.primitives.Body`."""

from gru_xp.nn.scan import Array, Namespace


def add(xp: Namespace, a: Array, b: Array) -> tuple[Array]:
    """``a + b``."""
    return (a + b,)


def divide(xp: Namespace, a: Array, b: Array | float) -> tuple[Array]:
    """``a / b``."""
    return (a / b,)


def multiply(xp: Namespace, a: Array, b: Array | float) -> tuple[Array]:
    """``a * b``."""
    return (a * b,)


def only_valid(xp: Namespace, a: Array, valid: Array) -> tuple[Array]:
    """`a`, and 0 where `valid` is 0, whatever stands there."""
    return (xp.where(valid > 0.0, a, 0.0),)
