"""The loop over epochs. A library function with a callback: it writes no file and prints nothing."""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from array_api_compat import array_namespace

from gru_xp.devices import Device, to_device
from gru_xp.nn.cell import Reset
from gru_xp.nn.checks import check_array, check_choice, positive_number, whole_number
from gru_xp.nn.dropout import DropoutRates
from gru_xp.nn.losses import REDUCTIONS
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.ops import Array, Namespace, Ops
from gru_xp.nn.params import flatten, named_arrays, unflatten
from gru_xp.nn.pointwise import divide
from gru_xp.nn.stack import StackMasks, draw_masks
from gru_xp.training.objective import Objective
from gru_xp.training.optimizers import DEFAULT_REDUCTIONS, OPTIMIZERS

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
    dropout, recurrent_dropout, zoneout
        What to leave out of the GRU at random; see `DropoutRates`. The reported costs are those of the whole network.
    seed
        Of the order of sequences in mini-batches, and of what is left out.

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
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout: float = 0.0
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
        self.rates.check()

    @property
    def rates(self) -> DropoutRates:
        """Of dropout."""
        return DropoutRates(self.dropout, self.recurrent_dropout, self.zoneout)

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

    params: NetworkParams
    best_epoch: int
    history: tuple[EpochRecord, ...]
    stop_reason: StopReason
    problem: str | None


def train(
    params: NetworkParams,
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
    order = random.Random(config.seed)
    start = time.perf_counter()

    with device.use():
        ops = device.ops()
        theta = flatten(params)
        current = unflatten(theta, params)
        update = Update(theta, config, ops)
        rates = config.rates
        objective = Objective(current, x, y, reset, ops, rates=rates)
        validation_objective = None if validation is None else Objective(current, *validation, reset, ops, rates=rates)

        n = x.shape[0]
        batch_size = min(config.batch_size or n, n)
        # Without dropout, the gradient is that of the reported cost.
        whole_batch = batch_size == n and not any(rates)
        batches = None if whole_batch else _Batches(current, x, y, batch_size, reset, device, ops, update)

        def evaluate() -> None:
            if whole_batch:  # the gradient is for the next epoch's update
                objective.evaluate()
            else:
                objective.evaluate_cost()
            if validation_objective is not None:
                validation_objective.evaluate_cost()

        evaluation = _Captured(evaluate, ops)
        whole_update = _Captured(partial(update.step, objective.gradient, n), ops)

        def costs() -> tuple[float, float | None]:
            evaluation()
            validation_cost = None if validation_objective is None else float(validation_objective.cost[0])
            return float(objective.cost[0]), validation_cost

        learn = whole_update if batches is None else partial(batches.run_epoch, order)
        return run_epochs(theta, params, update, learn, costs, callback, start=start)


def run_epochs(
    theta: Array,
    params: NetworkParams,
    update: "Update",
    learn: Callable[[], None],
    costs: Callable[[], tuple[float, float | None]],
    callback: Callable[[EpochRecord], object] | None,
    *,
    start: float,
) -> TrainingResult:
    """The loop over epochs itself: it watches the costs, keeps the best parameters, and knows when to stop.

    Parameters
    ----------
    theta : array, shape ``(P,)``
        The parameters that change; those of epoch 0 when it is called.
    params
        What they are the numbers of.
    update
        Their updates, which `learn` takes.
    learn
        Learns for an epoch.
    costs
        The cost, and that of validation, with the parameters as they are.
    callback, start
        As `train` has it, and when that was called.
    """
    xp, config = array_namespace(theta), update.config
    history: list[EpochRecord] = []
    best_theta, best_epoch, best_cost = xp.asarray(theta, copy=True), 0, math.inf
    stop_reason: StopReason = "num_epochs"
    for epoch in range(config.num_epochs + 1):
        update.forget_norm()
        if epoch > 0:
            learn()
        cost, validation_cost = costs()
        norm = None if epoch == 0 else float(update.largest_norm[0])

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


def _check_sequences(x_name: str, x: Array, y_name: str, y: Array, params: NetworkParams) -> None:
    O, _ = params.linear.weight.shape  # noqa: E741
    first = params.gru[0][0]
    check_array(x_name, x, ("B", "T", first.input_size), like=("params", first.weight_ih))
    check_array(y_name, y, (x.shape[0], O), like=("params", first.weight_ih))


class _Captured:
    """A function that is captured when it is called for the first time."""

    def __init__(self, function: Callable[[], object], ops: Ops) -> None:
        self._function = function
        self._ops = ops
        self._replay: Callable[[], object] | None = None

    def __call__(self) -> None:
        if self._replay is None:
            self._replay = self._ops.capture(self._function)
        else:
            self._replay()


class Update:
    """Updates of the parameters `theta`, whose norms are watched; nothing of it waits for the device."""

    def __init__(self, theta: Array, config: TrainingConfig, ops: Ops) -> None:
        self.config = config
        self._ops = ops
        self._optimizer = OPTIMIZERS[config.optimizer](theta, config.learning_rate)
        self._norm = ops.empty((1,), like=theta)
        self.largest_norm = ops.empty((1,), like=theta)

    def forget_norm(self) -> None:
        self._ops.copy(0.0, self.largest_norm)

    def step(self, gradient: Array, n: int) -> None:
        """One step against the gradient of the sum over `n` sequences, which is scaled and clipped in place."""
        ops = self._ops
        if self.config.resolved_reduction == "mean":
            ops.pointwise(divide, (gradient, float(n)), out=(gradient,))
        ops.norm(gradient, out=self._norm)
        ops.pointwise(_larger, (self._norm, self.largest_norm), out=(self.largest_norm,))
        if self.config.clip_norm is not None:
            ops.pointwise(_clip, (gradient, self._norm, float(self.config.clip_norm)), out=(gradient,))
        self._optimizer.step(gradient, ops)


def _larger(xp: Namespace, a: Array, b: Array) -> tuple[Array]:
    return (xp.maximum(a, b),)


def _clip(xp: Namespace, gradient: Array, norm: Array, clip_norm: float) -> tuple[Array]:
    return (gradient * (clip_norm / xp.maximum(norm, clip_norm)),)


class _Batches:
    """Mini-batches: the sequences in a new order each epoch, gathered into memory that stays; the last is smaller.

    What dropout leaves out is drawn for each of them anew.
    """

    def __init__(
        self,
        current: NetworkParams,
        x: Array,
        y: Array,
        batch_size: int,
        reset: Reset,
        device: Device,
        ops: Ops,
        update: Update,
    ) -> None:
        self._x, self._y, self._batch_size, self._device = x, y, batch_size, device
        self._layers, self._rates = current.gru, update.config.rates
        self._left_out = random.Random(f"dropout {update.config.seed}")
        self._prepared: dict[int, tuple[Array, Array, StackMasks, _Captured]] = {}
        for size in {batch_size, x.shape[0] % batch_size} - {0}:
            x_batch, y_batch = (ops.empty((size, *a.shape[1:]), like=a) for a in (x, y))
            masks = self._draw(x_batch)
            objective = Objective(current, x_batch, y_batch, reset, ops, rates=self._rates, masks=masks)

            def learn(objective: Objective = objective, size: int = size) -> None:
                objective.evaluate()
                update.step(objective.gradient, size)

            self._prepared[size] = x_batch, y_batch, masks, _Captured(learn, ops)

    def _draw(self, x: Array) -> StackMasks:
        return draw_masks(self._layers, x, self._rates, self._left_out)

    def run_epoch(self, order: random.Random) -> None:
        """Learn from every sequence once, in an order that is drawn on the host."""
        xp, n = self._device.xp, self._x.shape[0]
        indices = list(range(n))
        order.shuffle(indices)
        shuffled = to_device(indices, self._device, "int64")
        for start in range(0, n, self._batch_size):
            part = shuffled[start : start + self._batch_size]
            x_batch, y_batch, masks, learn = self._prepared[part.shape[0]]
            x_batch[...] = xp.take(self._x, part, axis=0)
            y_batch[...] = xp.take(self._y, part, axis=0)
            for (_, place), (_, mask) in zip(named_arrays(masks), named_arrays(self._draw(x_batch)), strict=True):
                if mask is not None:
                    place[...] = mask
            learn()
