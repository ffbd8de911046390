"""Activations, elementwise; each backward takes the gradient and the forward's *result*.

They take the namespace first because they are called inside pointwise bodies, whose arrays a device may replace by
symbols.
"""

from gru_xp.nn.ops import Array, Namespace


def sigmoid_forward(xp: Namespace, a: Array) -> Array:
    """``1 / (1 + exp(-a))``, as a tanh: the textbook form overflows."""
    return 0.5 * xp.tanh(0.5 * a) + 0.5


def sigmoid_backward(ds: Array, s: Array) -> Array:
    """``da`` for ``s = sigmoid(a)``."""
    return ds * s * (1.0 - s)


def tanh_forward(xp: Namespace, a: Array) -> Array:
    """``tanh(a)``."""
    return xp.tanh(a)


def tanh_backward(dt: Array, t: Array) -> Array:
    """``da`` for ``t = tanh(a)``."""
    return dt * (1.0 - t * t)
