"""Activations, elementwise; each backward takes the gradient and the forward's *result*.

They take the namespace first because they are called inside pointwise bodies, whose arrays a device may replace by
symbols.
"""

from gru_xp.nn.ops import Array, Namespace


def sigmoid_forward(xp: Namespace, a: Array) -> Array:
    """``1 / (1 + exp(-a))``, as a tanh: the textbook form overflows."""
    return sigmoid_of_twice(xp, 0.5 * a)


def sigmoid_of_twice(xp: Namespace, half: Array) -> Array:
    """``sigmoid(2 half)``, where the halving is done already, such as on the weights."""
    return 0.5 * xp.tanh(half) + 0.5


def sigmoid_backward(ds: Array, s: Array) -> Array:
    """``da`` for ``s = sigmoid(a)``."""
    return ds * s * (1.0 - s)


def tanh_forward(xp: Namespace, a: Array) -> Array:
    """``tanh(a)``."""
    return xp.tanh(a)


def tanh_backward(dt: Array, t: Array) -> Array:
    """``da`` for ``t = tanh(a)``."""
    return dt * (1.0 - t * t)
