"""Training on an endless stream of batches, for any model whose parameters are nested named tuples of arrays."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from array_api_compat import array_namespace

from gru_xp.devices import Device, check_on_device, check_tf32, device_for_caller
from gru_xp.devices.primitives import Ops
from gru_xp.errors import ShapeError
from gru_xp.nn.checks import check_function, check_kind, rate, whole_number
from gru_xp.nn.params import flatten, map_arrays, named_arrays, unflatten
from gru_xp.nn.scan import Array, Namespace
from gru_xp.training.trainer import (
    EpochRecord,
    Pause,
    Progress,
    TrainingConfig,
    TrainingResult,
    TrainingState,
    Update,
    check_hooks,
    run_epochs,
)

ParamsT = TypeVar("ParamsT", bound=tuple[Any, ...])
BatchT = TypeVar("BatchT")

MAX_SKIPPED = 10
"""Number of batches in an epoch that may be skipped because their loss or gradient is NaN or infinite."""

_AVERAGE_DELAY = 20
"""The average follows the parameters closely until there have been some multiples of this number of updates."""


def train_on_stream(
    params: ParamsT,
    batches: Callable[[int], BatchT],
    objective: Callable[[ParamsT, BatchT, Ops], tuple[Array | float, ParamsT]],
    *,
    config: TrainingConfig,
    device: str | Device,
    validate: Callable[[ParamsT, Ops], float],
    steps_per_epoch: int,
    averaging: float | None = None,
    callback: Callable[[EpochRecord], object] | None = None,
    pause: Pause | None = None,
    state: TrainingState | None = None,
) -> TrainingResult:
    """Minimize the mean loss over batches that are computed as they are needed, each used for one update.

    Parameters
    ----------
    params : nested tuples of arrays
        Initial parameters, on `device`, all of one dtype; they are not modified.
    batches : callable
        ``batches(number)`` returns a batch of any type. Batches are counted from 1. The result must depend on the
        number alone, so that a resumed training sees the same batches.
    objective : callable
        ``objective(params, batch, ops)`` returns the mean loss of a batch, a number or an array of shape ``()``, and
        its gradient, of the structure of `params`. The arrays of `params` are overwritten by the next update.
    config : TrainingConfig
        Training settings. `num_steps` is the number of updates. Settings of sequences, losses and dropout are not
        used: they belong to `batches` and `objective`. The weight decay of adamw applies only to arrays of two or more
        dimensions, not to biases and other vectors.
    device : str or Device
        Name of a device, see `resolve_device`, or a `Device`.
    validate : callable
        ``validate(params, ops)`` returns the loss of parameters on held-out batches.
    steps_per_epoch : int
        Number of updates after which the parameters are validated, recorded, and `callback` is called.
    averaging : float, optional
        Decay of an exponential moving average of the parameters, from 0 to 1. After n updates, the decay is
        ``min(averaging, n / (n + 20))``, so that the initial parameters are soon forgotten. The average is validated
        and returned in place of the parameters. `patience` has no effect then.
    callback : callable, optional
        Called with an `EpochRecord` after every epoch. If it returns True, training stops.
    pause : callable, optional
        Called after every update and epoch, see `Pause`; for example `Checkpoints`.
    state : TrainingState, optional
        State of a training with the same arguments, to resume it. The result is bit-identical to that of a training
        that was not stopped.

    Returns
    -------
    TrainingResult
        With `averaging`, the average, and the last epoch; otherwise, the parameters of the epoch with the lowest
        validation loss. The `cost` of an epoch is the mean loss of its batches, each before its update; that of epoch
        0 is the loss of the first batch. The last epoch may have fewer updates.

    Raises
    ------
    ShapeError
        The arrays of `params` differ in dtype, are on another device, or do not match the gradient.
    ArgumentError
        A setting is out of range, or an argument is not of the expected type.

    Notes
    -----
    A batch whose loss or gradient is NaN or infinite is skipped: parameters, optimizer and average stay as they are.
    After more than `MAX_SKIPPED` such batches in one epoch, or if all its batches are skipped, training ends with the
    stop reason ``"non_finite"``.

    Source of the average: Polyak and Juditsky (1992), doi:10.1137/0330046.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_xp.nn import init_linear_params, linear_backward, linear_forward, mse_loss
    >>> def batches(number):
    ...     x = np.random.default_rng(number).standard_normal((32, 3))
    ...     return x, x @ np.array([[1.0], [-2.0], [0.5]])
    >>> def objective(params, batch, ops):
    ...     y_pred, cache = linear_forward(batch[0], params)
    ...     loss, gradient = mse_loss(y_pred, batch[1])
    ...     return loss, linear_backward(gradient, cache)[1]
    >>> result = train_on_stream(
    ...     init_linear_params(3, 1, xp=np, dtype=np.float64),
    ...     batches,
    ...     objective,
    ...     config=TrainingConfig(None, 0.1, num_steps=200, schedule="cosine", warmup=0.1),
    ...     device="cpu",
    ...     validate=lambda params, ops: float(objective(params, batches(0), ops)[0]),
    ...     steps_per_epoch=50,
    ... )
    >>> result.history[-1].validation_cost < 0.01 * result.history[0].validation_cost
    True
    """
    start = time.perf_counter()
    check_kind("config", config, TrainingConfig, "a TrainingConfig")
    for name, function in (("batches", batches), ("objective", objective), ("validate", validate)):
        check_function(name, function)
    whole_number("steps_per_epoch", steps_per_epoch, 1)
    if averaging is not None:
        rate("averaging", averaging)
    check_hooks(callback, pause, state)
    device = device if isinstance(device, Device) else device_for_caller(device)
    with device.use():
        for name, array in named_arrays(params, "params."):
            check_on_device(name, array, device)
        theta = flatten(params)
        for name, array in named_arrays(params, "params."):
            if array.dtype != theta.dtype:
                raise ShapeError(f"{name} has dtype {array.dtype}, others {theta.dtype}; convert params to one of them")
        check_tf32(device, "float32" if theta.dtype == array_namespace(theta).float32 else "float64")
        training = _Training(
            params, theta, batches, objective, validate, config, device, steps_per_epoch, averaging, start, state
        )
        return training.run(callback, pause)


class _Training:
    """Epochs of updates, for parameters that change in place."""

    def __init__(
        self,
        params: Any,
        theta: Array,
        batches: Callable[[int], Any],
        objective: Callable[[Any, Any, Ops], tuple[Array | float, Any]],
        validate: Callable[[Any, Ops], float],
        config: TrainingConfig,
        device: Device,
        steps_per_epoch: int,
        averaging: float | None,
        start: float,
        state: TrainingState | None,
    ) -> None:
        self._theta, self._current = theta, unflatten(theta, params)
        self._batches, self._objective, self._validate = batches, objective, validate
        self._steps_per_epoch, self._averaging = steps_per_epoch, averaging
        self._ops = ops = device.ops()
        self._norm, self._loss, self._share = (ops.empty((1,), like=theta) for _ in range(3))
        self._update = Update(theta, config, ops, steps_per_epoch, sums_losses=True, decayed=_matrices(params))
        if state is not None:
            self._update.restore(state, device)
        self._progress = Progress(theta, params, self._update, start, state, averages=averaging is not None)
        self._average = self._progress.best_theta
        self._result = self._current if averaging is None else unflatten(self._average, params)

    def run(self, callback: Callable[[EpochRecord], object] | None, pause: Pause | None) -> TrainingResult:
        """See `train_on_stream`."""
        result = run_epochs(self._progress, self._learn, self._costs, callback, pause=pause)
        return replace(result, problem=self._problem()) if result.stop_reason == "non_finite" else result

    def _learn(self, epoch: int, done: int) -> Iterator[int]:
        """An update a batch, unless too many are skipped."""
        for batch in range(done + 1, self._update.steps_in(epoch) + 1):
            if self._update.skipped > MAX_SKIPPED:
                break
            number = (epoch - 1) * self._steps_per_epoch + batch
            self._update.prepare(epoch, batch)
            loss, gradient = self._evaluate(number)
            self._ops.norm(gradient, out=self._norm)
            if math.isfinite(loss) and math.isfinite(float(self._norm[0])):
                self._ops.copy(loss, self._loss)
                self._update.step(gradient, 1, self._loss)
                self._follow(number)
            else:
                self._update.skipped += 1
            yield batch

    def _evaluate(self, number: int) -> tuple[float, Array]:
        """Loss and gradient of a batch, with the parameters as they are."""
        loss, gradient = self._objective(self._current, self._batches(number), self._ops)
        flat = flatten(gradient)
        if flat.shape != self._theta.shape or flat.dtype != self._theta.dtype:
            raise ShapeError(
                f"objective returned a gradient of {flat.shape[0]} numbers, {flat.dtype}; params has "
                f"{self._theta.shape[0]}, {self._theta.dtype}: return an array like each array of params"
            )
        return float(loss), flat

    def _follow(self, number: int) -> None:
        """Move the average towards the parameters."""
        if self._averaging is not None:
            decay = min(float(self._averaging), number / (number + _AVERAGE_DELAY))
            self._ops.copy(1.0 - decay, self._share)
            self._ops.pointwise(_approach, (self._average, self._theta, self._share), out=(self._average,))

    def _costs(self, epoch: int) -> tuple[float, float]:
        """Mean loss of an epoch's batches, and of validation."""
        progress, update = self._progress, self._update
        if epoch == progress.epoch:  # resumed where the costs are known
            last = progress.history[-1]
            assert last.validation_cost is not None
            return last.cost, last.validation_cost
        if epoch == 0:
            cost = self._evaluate(1)[0]
        elif update.skipped > MAX_SKIPPED or update.skipped == update.steps_in(epoch):
            return math.nan, math.nan
        else:
            cost = update.mean_loss(epoch, update.steps_in(epoch) - update.skipped, 1)
        return cost, float(self._validate(self._result, self._ops))

    def _problem(self) -> str:
        """What is not finite, and what to do."""
        progress, config = self._progress, self._update.config
        last = progress.history[-1]
        if progress.epoch == 0:
            return "the loss is not a finite number at the start; check the first batch and the initial parameters"
        if math.isfinite(last.cost):
            what = "the validation loss is not finite"
        else:
            what = f"{self._update.skipped} batches had a loss or gradient that is not finite"
        return (
            f"epoch {progress.epoch}: {what}; try a smaller learning rate than {config.learning_rate:g}, "
            f"or a smaller clip norm (the parameters of epoch {progress.best_epoch} are kept)"
        )


def _matrices(params: tuple[Any, ...]) -> Array:
    """1 for each number of an array of two or more dimensions, 0 for the others, shape ``(P,)``."""
    return flatten(map_arrays(lambda array: array_namespace(array).full_like(array, float(array.ndim > 1)), params))


def _approach(xp: Namespace, average: Array, theta: Array, share: Array) -> tuple[Array]:
    return (average + share * (theta - average),)
