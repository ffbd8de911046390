"""Optimizers: each updates one flat parameter vector in place from the gradient of the same shape ``(P,)``."""

from collections.abc import Callable
from typing import Protocol

from array_api_compat import array_namespace, device

from gru_xp.devices.primitives import Body, Ops
from gru_xp.nn.scan import Array, Namespace


class Optimizer(Protocol):
    """Anything that takes a step against the gradient."""

    def set_learning_rate(self, rate: float, ops: Ops) -> None:
        """Use another learning rate from the next step on, also in steps that are captured already."""

    def step(self, gradient: Array, ops: Ops) -> None:
        """Update the parameters in place."""

    def arrays(self) -> dict[str, Array]:
        """What it remembers between steps; it changes in place."""


class _Base:
    """The parameters, and the learning rate as a number on their device, which captured steps read anew each time."""

    def __init__(self, theta: Array, learning_rate: float) -> None:
        self._theta = theta
        xp = array_namespace(theta)
        self._learning_rate = xp.asarray([learning_rate], dtype=theta.dtype, device=device(theta))
        self._rate = learning_rate

    def set_learning_rate(self, rate: float, ops: Ops) -> None:
        if rate != self._rate:
            ops.copy(rate, self._learning_rate)
            self._rate = rate


class SGD(_Base):
    """Gradient descent: ``theta -= learning_rate * gradient``."""

    def step(self, gradient: Array, ops: Ops) -> None:
        ops.pointwise(_sgd, (self._theta, gradient, self._learning_rate), out=(self._theta,))

    def arrays(self) -> dict[str, Array]:
        return {}


class Momentum(_Base):
    """Gradient descent with momentum, as PyTorch defines it: ``v = decay * v + gradient; theta -= learning_rate * v``.

    Source: Polyak (1964), doi:10.1016/0041-5553(64)90137-5.
    """

    def __init__(self, theta: Array, learning_rate: float, decay: float = 0.9) -> None:
        super().__init__(theta, learning_rate)
        self._decay = decay
        self._velocity = array_namespace(theta).zeros_like(theta)

    def step(self, gradient: Array, ops: Ops) -> None:
        theta, velocity = self._theta, self._velocity
        inputs = (theta, velocity, gradient, self._learning_rate, self._decay)
        ops.pointwise(_momentum, inputs, out=(velocity, theta))

    def arrays(self) -> dict[str, Array]:
        return {"velocity": self._velocity}


class Adam(_Base):
    """Adam with bias correction. Source: Kingma and Ba (2014), arXiv:1412.6980, Algorithm 1."""

    def __init__(
        self,
        theta: Array,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(theta, learning_rate)
        self._settings: tuple[float | Array, ...] = (beta1, beta2, epsilon)
        xp = array_namespace(theta)
        self._mean, self._square = xp.zeros_like(theta), xp.zeros_like(theta)
        # 1 - beta**steps: what the same averages of ones come to.
        self._weights = xp.zeros_like(theta[:1]), xp.zeros_like(theta[:1])

    def step(self, gradient: Array, ops: Ops) -> None:
        ops.pointwise(_average_ones, (*self._weights, *self._settings[:2]), out=self._weights)
        state = (self._theta, self._mean, self._square)
        inputs = (*state, gradient, *self._weights, self._learning_rate, *self._settings)
        ops.pointwise(self._body, inputs, out=state)

    def arrays(self) -> dict[str, Array]:
        weight1, weight2 = self._weights
        return {"mean": self._mean, "square": self._square, "weight1": weight1, "weight2": weight2}

    @property
    def _body(self) -> Body:
        return _adam


class AdamW(Adam):
    """Adam with decoupled weight decay: each step shrinks all parameters by ``learning_rate * weight_decay``, too.

    The weight decay is a number, or an array of one for each parameter.

    Source: Loshchilov and Hutter (2017), arXiv:1711.05101.
    """

    def __init__(
        self,
        theta: Array,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        weight_decay: float | Array = 0.01,
    ) -> None:
        super().__init__(theta, learning_rate, beta1, beta2, epsilon)
        self._settings = (*self._settings, weight_decay)

    @property
    def _body(self) -> Body:
        return _adamw


def _sgd(xp: Namespace, theta: Array, gradient: Array, learning_rate: Array) -> tuple[Array]:
    return (theta - learning_rate * gradient,)


def _momentum(
    xp: Namespace, theta: Array, velocity: Array, gradient: Array, learning_rate: Array, decay: float
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
    learning_rate: Array,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> tuple[Array, Array, Array]:
    mean = beta1 * mean + (1.0 - beta1) * gradient
    square = beta2 * square + (1.0 - beta2) * gradient * gradient
    step = learning_rate * (mean / weight1) / (xp.sqrt(square / weight2) + epsilon)
    return theta - step, mean, square


def _adamw(
    xp: Namespace,
    theta: Array,
    mean: Array,
    square: Array,
    gradient: Array,
    weight1: Array,
    weight2: Array,
    learning_rate: Array,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float | Array,
) -> tuple[Array, Array, Array]:
    decayed = (1.0 - weight_decay * learning_rate) * theta
    return _adam(xp, decayed, mean, square, gradient, weight1, weight2, learning_rate, beta1, beta2, epsilon)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": SGD, "momentum": Momentum, "adam": Adam, "adamw": AdamW}
"""Optimizers by name; each is made from the parameters, a learning rate, and settings of its own."""

_ADAM_STATE = {"mean": True, "square": True, "weight1": False, "weight2": False}

STATE_SHAPES = {"sgd": {}, "momentum": {"velocity": True}, "adam": _ADAM_STATE, "adamw": _ADAM_STATE}
"""What each remembers, and whether that is a number a parameter or a single one."""

DEFAULT_REDUCTIONS = {"sgd": "sum", "momentum": "sum", "adam": "mean", "adamw": "mean"}
"""What the gradient is taken of where nothing is said: the sum over a batch's sequences, or their mean."""
