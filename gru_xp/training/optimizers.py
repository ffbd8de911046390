"""Optimizers: each updates one flat parameter vector in place from the gradient of the same shape ``(P,)``."""

from collections.abc import Callable
from typing import Protocol

from array_api_compat import array_namespace

from gru_xp.devices.primitives import Ops
from gru_xp.nn.scan import Array, Namespace


class Optimizer(Protocol):
    """Anything that takes a step against the gradient."""

    def step(self, gradient: Array, ops: Ops) -> None:
        """Update the parameters in place."""

    def arrays(self) -> dict[str, Array]:
        """What it remembers between steps; it changes in place."""


class SGD:
    """Gradient descent: ``theta -= learning_rate * gradient``."""

    def __init__(self, theta: Array, learning_rate: float) -> None:
        self._theta = theta
        self._learning_rate = learning_rate

    def step(self, gradient: Array, ops: Ops) -> None:
        ops.pointwise(_sgd, (self._theta, gradient, self._learning_rate), out=(self._theta,))

    def arrays(self) -> dict[str, Array]:
        return {}


class Momentum:
    """Gradient descent with momentum, as PyTorch defines it: ``v = decay * v + gradient; theta -= learning_rate * v``.

    Source: Polyak (1964), doi:10.1016/0041-5553(64)90137-5.
    """

    def __init__(self, theta: Array, learning_rate: float, decay: float = 0.9) -> None:
        self._theta = theta
        self._settings = (learning_rate, decay)
        self._velocity = array_namespace(theta).zeros_like(theta)

    def step(self, gradient: Array, ops: Ops) -> None:
        theta, velocity = self._theta, self._velocity
        ops.pointwise(_momentum, (theta, velocity, gradient, *self._settings), out=(velocity, theta))

    def arrays(self) -> dict[str, Array]:
        return {"velocity": self._velocity}


class Adam:
    """Adam with bias correction. Source: Kingma and Ba (2014), arXiv:1412.6980, Algorithm 1."""

    def __init__(
        self, theta: Array, learning_rate: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        self._theta = theta
        self._settings = (learning_rate, beta1, beta2, epsilon)
        xp = array_namespace(theta)
        self._mean, self._square = xp.zeros_like(theta), xp.zeros_like(theta)
        # 1 - beta**steps: what the same averages of ones come to.
        self._weights = xp.zeros_like(theta[:1]), xp.zeros_like(theta[:1])

    def step(self, gradient: Array, ops: Ops) -> None:
        _, beta1, beta2, _ = self._settings
        ops.pointwise(_average_ones, (*self._weights, beta1, beta2), out=self._weights)
        state = (self._theta, self._mean, self._square)
        ops.pointwise(_adam, (*state, gradient, *self._weights, *self._settings), out=state)

    def arrays(self) -> dict[str, Array]:
        weight1, weight2 = self._weights
        return {"mean": self._mean, "square": self._square, "weight1": weight1, "weight2": weight2}


def _sgd(xp: Namespace, theta: Array, gradient: Array, learning_rate: float) -> tuple[Array]:
    return (theta - learning_rate * gradient,)


def _momentum(
    xp: Namespace, theta: Array, velocity: Array, gradient: Array, learning_rate: float, decay: float
) -> tuple[Array, Array]:
    velocity = decay * velocity + gradient
    return velocity, theta - learning_rate * velocity


def _average_ones(xp: Namespace, weight1: Array, weight2: Array, beta1: float, beta2: float) -> tuple[Array, Array]:
    return beta1 * weight1 + (1.0 - beta1), beta2 * weight2 + (1.0 - beta2)


def _adam(
    xp: Namespace,
    theta: Array,
    mean: Array,
    square: Array,
    gradient: Array,
    weight1: Array,
    weight2: Array,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> tuple[Array, Array, Array]:
    mean = beta1 * mean + (1.0 - beta1) * gradient
    square = beta2 * square + (1.0 - beta2) * gradient * gradient
    step = learning_rate * (mean / weight1) / (xp.sqrt(square / weight2) + epsilon)
    return theta - step, mean, square


OPTIMIZERS: dict[str, Callable[[Array, float], Optimizer]] = {"sgd": SGD, "momentum": Momentum, "adam": Adam}
"""Optimizers by name; each is made from the parameters and a learning rate."""

STATE_SHAPES = {
    "sgd": {},
    "momentum": {"velocity": True},
    "adam": {"mean": True, "square": True, "weight1": False, "weight2": False},
}
"""What each remembers, and whether that is a number a parameter or a single one."""

DEFAULT_REDUCTIONS = {"sgd": "sum", "momentum": "sum", "adam": "mean"}
"""What the gradient is taken of where nothing is said: the sum over a batch's sequences, or their mean."""
