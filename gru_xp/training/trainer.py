"""The loop over epochs. A library function with a callback: it writes no file and prints nothing."""

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from array_api_compat import array_namespace

from gru_xp.devices import Device, to_device
from gru_xp.nn.cell import Reset
from gru_xp.nn.checks import check_array, check_choice, positive_number, whole_number
from gru_xp.nn.losses import REDUCTIONS
from gru_xp.nn.ops import Array
from gru_xp.nn.params import flatten, unflatten
from gru_xp.nn.stack import StackParams
from gru_xp.training.optimizers import DEFAULT_REDUCTIONS, OPTIMIZERS
from gru_xp.training.shards import Shards

StopReason = Literal["num_epochs", "patience", "callback", "non_finite"]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Parameters
    ----------
    num_epochs
        Passes over the training sequences.
    learning_rate
        Length of the optimizer's steps.
    optimizer : {"adam", "sgd", "momentum"}
    reduction : {"mean", "sum"}, optional
        What the gradient is taken of, over a batch's sequences: mean for adam, sum for sgd and momentum if left out.
        The reported cost is always the mean.
    batch_size
        Sequences an update; all of them if None.
    clip_norm
        Largest Euclidean norm of the gradient; a longer one is shortened to it.
    patience
        Epochs to go on without a better cost; no limit if None.
    seed
        Of the order of sequences in mini-batches.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    num_epochs: int
    learning_rate: float
    optimizer: str = "adam"
    reduction: str | None = None
    batch_size: int | None = None
    clip_norm: float | None = None
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, tuple(OPTIMIZERS))
        if self.reduction is not None:
            check_choice("reduction", self.reduction, REDUCTIONS)
        whole_number("num_epochs", self.num_epochs, 1)
        whole_number("seed", self.seed, 0)
        positive_number("learning_rate", self.learning_rate)
        for name in ("batch_size", "patience"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), 1)
        if self.clip_norm is not None:
            positive_number("clip_norm", self.clip_norm)

    @property
    def resolved_reduction(self) -> str:
        """The reduction that is used."""
        return self.reduction or DEFAULT_REDUCTIONS[self.optimizer]


@dataclass(frozen=True)
class EpochRecord:
    """The state after an epoch; epoch 0 is the start.

    Attributes
    ----------
    epoch
        Epochs done.
    cost
        Mean squared error on all training sequences with the parameters after this epoch.
    validation_cost
        The same on the validation sequences; None without any.
    gradient_norm
        The largest Euclidean norm of the epoch's gradients, before clipping; None for epoch 0.
    seconds
        Time since the start of training.
    best_cost
        The lowest cost so far, of validation where there is one.
    """

    epoch: int
    cost: float
    validation_cost: float | None
    gradient_norm: float | None
    seconds: float
    best_cost: float


@dataclass(frozen=True)
class TrainingResult:
    """What training ends with.

    Attributes
    ----------
    params
        The parameters after `best_epoch`, on the training device.
    best_epoch
        The epoch with the lowest cost, of validation where there is one.
    history
        One record an epoch, from epoch 0.
    stop_reason
        ``"num_epochs"`` (all done), ``"patience"``, ``"callback"`` (it asked to stop) or ``"non_finite"``.
    problem
        What went wrong and what to do, where the cost stopped being finite; else None.
    """

    params: StackParams
    best_epoch: int
    history: tuple[EpochRecord, ...]
    stop_reason: StopReason
    problem: str | None


def train(
    params: StackParams,
    x: Array,
    y: Array,
    *,
    config: TrainingConfig,
    device: Device,
    reset: Reset = "before",
    validation: tuple[Array, Array] | None = None,
    callback: Callable[[EpochRecord], object] | None = None,
) -> TrainingResult:
    """Minimise the mean squared error of the network's prediction after the last step.

    Parameters
    ----------
    params
        Where to start; left as it is.
    x : array, shape ``(B, T, I)``
        Training sequences, on `device`, like all arrays.
    y : array, shape ``(B, O)``
        Their targets.
    config, device, reset
        How to train, where, and which GRU.
    validation
        Sequences and targets to choose the best parameters by, instead of the training cost.
    callback
        Called after every epoch; the training stops after that epoch if the result is True.

    Returns
    -------
    TrainingResult
        It is returned, too, when the cost stops being finite; `stop_reason` says so.

    Raises
    ------
    ShapeError
        The arrays do not go together.
    """
    _check_sequences("x", x, "y", y, params)
    if validation is not None:
        _check_sequences("validation[0]", validation[0], "validation[1]", validation[1], params)
    xp = device.xp
    optimizer = OPTIMIZERS[config.optimizer](config.learning_rate)
    order = random.Random(config.seed)
    start = time.perf_counter()
    history: list[EpochRecord] = []

    with device.use(), Shards(device, reset) as shards:
        theta = flatten(params)
        best_theta, best_epoch, best_cost = xp.asarray(theta, copy=True), 0, math.inf

        def update(gradient: Array, n: int) -> float:
            if config.resolved_reduction == "mean":
                gradient = gradient / n
            norm = _norm(gradient)
            if config.clip_norm is not None and norm > config.clip_norm:
                gradient = gradient * (config.clip_norm / norm)
            optimizer.step(theta, gradient)
            return norm

        n = x.shape[0]
        whole_batch = config.batch_size is None or config.batch_size >= n
        gradient: Array = None  # at the end of the last epoch, for the next update, where a batch is everything
        norm: float | None = None
        stop_reason: StopReason = "num_epochs"
        for epoch in range(config.num_epochs + 1):
            if epoch > 0 and whole_batch:
                norm = update(gradient, n)
            elif epoch > 0:
                norm = 0.0
                for x_batch, y_batch in _batches(x, y, config.batch_size or n, order, device):
                    _, gradient = shards.cost_and_gradient(unflatten(theta, params), x_batch, y_batch)
                    norm = max(norm, update(gradient, x_batch.shape[0]))
            current = unflatten(theta, params)
            if whole_batch:
                cost, gradient = shards.cost_and_gradient(current, x, y)
            else:
                cost = shards.cost(current, x, y)
            validation_cost = None if validation is None else shards.cost(current, *validation)

            judged = cost if validation_cost is None else validation_cost
            finite = math.isfinite(cost) and math.isfinite(judged)
            if finite and judged < best_cost:
                best_theta, best_epoch, best_cost = xp.asarray(theta, copy=True), epoch, judged
            seconds = time.perf_counter() - start
            history.append(EpochRecord(epoch, cost, validation_cost, norm, seconds, best_cost))
            wants_stop = callback is not None and _is_true(callback(history[-1]))
            if not finite:
                stop_reason = "non_finite"
            elif wants_stop:
                stop_reason = "callback"
            elif config.patience is not None and epoch - best_epoch >= config.patience:
                stop_reason = "patience"
            else:
                continue
            break
        problem = None
        if stop_reason == "non_finite" and len(history) == 1:
            problem = "the cost is not a finite number at the start; look for extreme values, or compute in float64"
        elif stop_reason == "non_finite":
            problem = (
                f"the cost is no longer a finite number after epoch {history[-1].epoch}; try a smaller learning "
                f"rate than {config.learning_rate:g}, or a clip norm such as 1 "
                f"(the parameters of epoch {best_epoch} are kept)"
            )
        return TrainingResult(unflatten(best_theta, params), best_epoch, tuple(history), stop_reason, problem)


def _is_true(result: object) -> bool:
    """Whether it is True, of Python or of an array library; not any object that merely counts as true."""
    return type(result).__name__ == "bool" and bool(result)


def _check_sequences(x_name: str, x: Array, y_name: str, y: Array, params: StackParams) -> None:
    O, _ = params.linear.weight.shape  # noqa: E741
    check_array(x_name, x, ("B", "T", params.gru.input_size), like=("params", params.gru.weight_ih))
    check_array(y_name, y, (x.shape[0], O), like=("params", params.gru.weight_ih))


def _norm(gradient: Array) -> float:
    """Euclidean norm, also where the squares of its elements overflow."""
    xp = array_namespace(gradient)
    norm = float(xp.sqrt(xp.sum(gradient * gradient)))
    if math.isinf(norm):
        largest = float(xp.max(xp.abs(gradient)))
        if math.isfinite(largest):
            scaled = gradient / largest
            return largest * float(xp.sqrt(xp.sum(scaled * scaled)))
    return norm


def _batches(
    x: Array, y: Array, batch_size: int, order: random.Random, device: Device
) -> Iterator[tuple[Array, Array]]:
    """The sequences in a new order, drawn on the host, in batches; the last one may be smaller."""
    indices = list(range(x.shape[0]))
    order.shuffle(indices)
    for start in range(0, len(indices), batch_size):
        part = to_device(indices[start : start + batch_size], device, "int64")
        yield device.xp.take(x, part, axis=0), device.xp.take(y, part, axis=0)
