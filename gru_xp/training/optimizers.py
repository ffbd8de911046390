"""Optimizers: each updates one flat parameter vector in place from the gradient of the same shape ``(P,)``."""

from collections.abc import Callable
from typing import Protocol

from array_api_compat import array_namespace

from gru_xp.nn.ops import Array


class Optimizer(Protocol):
    """Anything that takes a step against the gradient."""

    def step(self, theta: Array, gradient: Array) -> None:
        """Update `theta` in place."""


class SGD:
    """Gradient descent: ``theta -= learning_rate * gradient``."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate

    def step(self, theta: Array, gradient: Array) -> None:
        theta -= self.learning_rate * gradient


class Momentum:
    """Gradient descent with momentum, as PyTorch defines it: ``v = decay * v + gradient; theta -= learning_rate * v``.

    Source: Polyak (1964), doi:10.1016/0041-5553(64)90137-5.
    """

    def __init__(self, learning_rate: float, decay: float = 0.9) -> None:
        self.learning_rate = learning_rate
        self.decay = decay
        self._velocity: Array | None = None

    def step(self, theta: Array, gradient: Array) -> None:
        if self._velocity is None:
            self._velocity = array_namespace(theta).zeros_like(theta)
        self._velocity = self.decay * self._velocity + gradient
        theta -= self.learning_rate * self._velocity


class Adam:
    """Adam with bias correction. Source: Kingma and Ba (2014), arXiv:1412.6980, Algorithm 1."""

    def __init__(self, learning_rate: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.learning_rate = learning_rate
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self._steps = 0
        self._mean: Array | None = None
        self._square: Array | None = None

    def step(self, theta: Array, gradient: Array) -> None:
        xp = array_namespace(theta)
        if self._mean is None or self._square is None:
            self._mean, self._square = xp.zeros_like(theta), xp.zeros_like(theta)
        self._steps += 1
        self._mean = self.beta1 * self._mean + (1.0 - self.beta1) * gradient
        self._square = self.beta2 * self._square + (1.0 - self.beta2) * gradient * gradient
        mean = self._mean / (1.0 - self.beta1**self._steps)
        square = self._square / (1.0 - self.beta2**self._steps)
        theta -= self.learning_rate * mean / (xp.sqrt(square) + self.epsilon)


OPTIMIZERS: dict[str, Callable[[float], Optimizer]] = {"sgd": SGD, "momentum": Momentum, "adam": Adam}
"""Optimizers by name; each is made from a learning rate."""

DEFAULT_REDUCTIONS = {"sgd": "sum", "momentum": "sum", "adam": "mean"}
"""What the gradient is taken of where nothing is said: the sum over a batch's sequences, or their mean."""
