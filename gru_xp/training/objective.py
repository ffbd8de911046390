"""The network's predictions for some sequences, their loss, and its gradient, in the parts that a device wants."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from gru_xp.devices.primitives import Ops
from gru_xp.nn.dropout import DropoutRates
from gru_xp.nn.losses import gaussian_loss, huber_loss, mae_loss, mse_loss, poisson_loss, quantile_loss
from gru_xp.nn.network import NetworkParams, network_backward, network_forward
from gru_xp.nn.params import Reset, arrays_of, unflatten
from gru_xp.nn.pointwise import add, divide
from gru_xp.nn.scan import Array, Scan
from gru_xp.nn.stack import StackMasks, mean_masks, patch_size

NO_DROPOUT = DropoutRates()

LOSSES = ("mse", "mae", "huber", "quantile", "gaussian", "poisson")


class Loss(Protocol):
    """A loss of `gru_xp.nn.losses`, whose other settings are fixed."""

    def __call__(
        self,
        y_pred: Array,
        y_true: Array,
        *,
        weight: Array | None = None,
        reduction: str = "mean",
        ops: Scan | None = None,
    ) -> tuple[Array, Array]:
        """Value ``()`` and gradient with respect to `y_pred`."""


def loss_function(name: str, *, huber_delta: float = 1.0, quantiles: tuple[float, ...] = (0.5,)) -> Loss:
    """One of `LOSSES`, by name."""
    losses: dict[str, Loss] = {
        "mse": mse_loss,
        "mae": mae_loss,
        "huber": partial(huber_loss, delta=huber_delta),
        "quantile": partial(quantile_loss, quantiles=quantiles),
        "gaussian": gaussian_loss,
        "poisson": poisson_loss,
    }
    return losses[name]


def outputs_per_target(name: str, quantiles: tuple[float, ...] = (0.5,)) -> int:
    """How many outputs of the network a loss wants for each target."""
    return {"quantile": len(quantiles), "gaussian": 2}.get(name, 1)


MAX_PREDICTED = 2**20
"""Numbers of sequences that are predicted together, for the memory that they take in float64 until they are scaled."""


def predicted_together(T: int, I: int) -> int:  # noqa: E741
    """How many sequences ``(T, I)`` to predict together."""
    return max(1, MAX_PREDICTED // (T * I))


def predict(
    params: NetworkParams, x: Array, ops: Ops, rates: DropoutRates = NO_DROPOUT, *, reset: Reset | None = None
) -> Array:
    """The results ``(B, O)`` for sequences ``x (B, T, I)`` of a network that has learned with dropout."""
    y_pred = ops.empty((x.shape[0], params.linear.bias.shape[0]), like=x)
    masks = mean_masks(params.gru, rates)

    def forward(rows: slice, ops: Ops) -> None:
        result, _ = network_forward(x[rows, ...], params, masks=masks, reset=reset, ops=ops, with_cache=False)
        ops.copy(result, y_pred[rows, :])

    ops.run([(part_ops, partial(forward, rows, part_ops)) for rows, part_ops in batch_parts(params, x, ops)])
    return y_pred


def input_gradient(
    params: NetworkParams,
    x: Array,
    dy: Array,
    ops: Ops,
    rates: DropoutRates = NO_DROPOUT,
    *,
    reset: Reset | None = None,
) -> Array:
    """The gradient of sequences ``x (B, T, I)``, given that of the results ``dy (B, O)`` of `predict`."""
    dx = ops.empty(x.shape, like=x)
    masks = mean_masks(params.gru, rates)

    def backward(rows: slice, ops: Ops) -> None:
        _, cache = network_forward(x[rows, ...], params, masks=masks, reset=reset, ops=ops)
        assert cache is not None
        gradient, _ = network_backward(dy[rows, :], cache)
        assert gradient is not None
        ops.copy(gradient, dx[rows, ...])

    ops.run([(part_ops, partial(backward, rows, part_ops)) for rows, part_ops in batch_parts(params, x, ops)])
    return dx


class Objective:
    """The mean loss on some sequences, and the gradient of its sum, for parameters that change in place.

    Parameters
    ----------
    params
        The arrays that hold the parameters, whatever they are when the methods are called.
    x : array, shape ``(B, T, I)``
        Sequences; they may change in place, too.
    y : array, shape ``(B, O)``
        Their targets.
    ops
        How to compute them.
    weight : array, shape ``(B, 1)``, optional
        Of each sequence; see `mse_loss`.
    loss
        By default, the squared error.
    rates
        Of dropout.
    masks
        What to leave out for the gradient; they may change in place. Nothing if None.
    keep_every
        Keep the states of every so many steps only, and compute the others again; see `gru_forward`.

    Attributes
    ----------
    cost : array, shape ``(1,)``
        Mean loss, after one of the methods.
    gradient : array, shape ``(P,)``
        Gradient of the *sum* over sequences, after `evaluate`.
    """

    def __init__(
        self,
        params: NetworkParams,
        x: Array,
        y: Array,
        ops: Ops,
        *,
        weight: Array | None = None,
        loss: Loss = mse_loss,
        rates: DropoutRates = NO_DROPOUT,
        masks: StackMasks | None = None,
        keep_every: int | None = None,
    ) -> None:
        self._params, self._x, self._y, self._ops = params, x, y, ops
        self._weight, self._loss_function = weight, loss
        self._options: dict[str, Any] = {"keep_every": keep_every}
        self._mean_masks = mean_masks(params.gru, rates)
        self._masks = masks or self._mean_masks
        self._parts = batch_parts(params, x, ops, keep_every)
        size = sum(array.size for array in arrays_of(params))
        # One array a part: its gradient, and its cost as the last number.
        self._sums = [ops.empty((size + 1,), like=x) for _ in self._parts]
        self.gradient = self._sums[0][:-1]
        self.cost = ops.empty((1,), like=x)

    def evaluate(self) -> None:
        """Compute cost and gradient."""
        self._compute(self._forward_backward)
        for other in self._sums[1:]:
            self._add(self._sums[0], other)
        self._write_cost()

    def evaluate_cost(self) -> None:
        """Compute the cost alone."""
        self._compute(self._forward)
        for other in self._sums[1:]:
            self._add(self._sums[0][-1:], other[-1:])
        self._write_cost()

    def _compute(self, part: Callable[[slice, Array, Ops], None]) -> None:
        tasks = zip(self._parts, self._sums, strict=True)
        self._ops.run([(part_ops, partial(part, rows, sums, part_ops)) for (rows, part_ops), sums in tasks])

    def _forward(self, rows: slice, sums: Array, ops: Ops) -> None:
        y_pred, _ = network_forward(
            self._x[rows, ...], self._params, masks=self._mean_masks, ops=ops, with_cache=False, **self._options
        )
        self._loss(y_pred, rows, sums, ops)

    def _forward_backward(self, rows: slice, sums: Array, ops: Ops) -> None:
        y_pred, cache = network_forward(
            self._x[rows, ...], self._params, masks=self._masks.at(rows), ops=ops, **self._options
        )
        dpred = self._loss(y_pred, rows, sums, ops)
        assert cache is not None
        _, dparams = network_backward(dpred, cache, with_dx=False)
        places = arrays_of(unflatten(sums[:-1], self._params))
        for place, gradient in zip(places, arrays_of(dparams), strict=True):
            ops.copy(gradient, place)

    def _loss(self, y_pred: Array, rows: slice, sums: Array, ops: Ops) -> Array:
        weight = None if self._weight is None else self._weight[rows, :]
        value, dpred = self._loss_function(y_pred, self._y[rows, ...], weight=weight, reduction="sum", ops=ops)
        ops.copy(value, sums[-1:])
        return dpred

    def _add(self, total: Array, a: Array) -> None:
        self._ops.pointwise(add, (total, a), out=(total,))

    def _write_cost(self) -> None:
        self._ops.pointwise(divide, (self._sums[0][-1:], float(self._x.shape[0])), out=(self.cost,))


def batch_parts(params: NetworkParams, x: Array, ops: Ops, keep_every: int | None = None) -> list[tuple[slice, Ops]]:
    """Which sequences to compute together: so many that what all layers keep of their steps fits into memory."""
    B, T = x.shape[0], -(-x.shape[1] // patch_size(params.gru, x))
    D, n_grus = len(params.gru[0]), sum(map(len, params.gru))
    n_steps = T * n_grus
    if keep_every is not None:
        # Two states a step go from one layer to the next and back, of the eight that it would keep.
        handed_on = T * (n_grus - D) // 4
        n_steps = min(n_steps, n_grus * (keep_every + math.ceil(T / keep_every)) + handed_on)
    return ops.parts(B, n_steps, params.gru[0][0].input_size, params.gru[0][0].hidden_size)
