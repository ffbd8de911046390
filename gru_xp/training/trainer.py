"""The loop over epochs. A library function with a callback: it writes no file and prints nothing."""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from gru_xp.devices import Device, is_out_of_memory, to_device, to_host
from gru_xp.devices.fast_paths import replace, warn
from gru_xp.devices.primitives import Ops
from gru_xp.errors import ArgumentError
from gru_xp.nn.checks import (
    check_array,
    check_choice,
    check_function,
    check_kind,
    positive_number,
    rate,
    whole_number,
)
from gru_xp.nn.dropout import DropoutRates
from gru_xp.nn.losses import REDUCTIONS
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import Reset, arrays_of, check_reset, flatten, named_arrays, unflatten
from gru_xp.nn.pointwise import divide
from gru_xp.nn.scan import Array, Namespace
from gru_xp.nn.stack import StackMasks, draw_masks, patch_size
from gru_xp.training.objective import Objective
from gru_xp.training.optimizers import DEFAULT_REDUCTIONS, OPTIMIZERS, Optimizer
from gru_xp.training.schedules import DEFAULT_WARMUPS, SCHEDULES, rate_factor

Result = TypeVar("Result")
StopReason = Literal["num_epochs", "patience", "callback", "paused", "non_finite"]


@dataclass(frozen=True)
class TrainingConfig:
    """Configure a training run.

    Parameters
    ----------
    num_epochs
        Passes over the training sequences.
    learning_rate
        Learning rate.
    optimizer : {"adam", "adamw", "sgd", "momentum"}
    reduction : {"mean", "sum"}, optional
        Reduction of the loss over a mini-batch; by default mean for adam and adamw, sum for sgd and momentum. The
        reported loss is always the mean.
    batch_size
        Mini-batch size, in sequences; all of them if None.
    clip_norm
        Clip gradients to this Euclidean norm; no clipping if None.
    patience
        Stop after this many epochs without a lower loss; no limit if None.
    dropout, recurrent_dropout, zoneout
        Dropout rates during training; see `DropoutRates`. Reported losses are computed without dropout.
    seed
        Random seed of the mini-batches and dropout. Each epoch and batch has its own generator, seeded with (seed,
        epoch, batch), so that a resumed training draws the same numbers.
    keep_every
        Activation checkpointing: store the states of every N-th step and recompute the rest; see `gru_forward`.
    beta1, beta2
        Decay of the averages of the gradient and of its square, of adam and adamw.
    weight_decay
        Of adamw: each step shrinks all parameters by this share of the learning rate.
    schedule : {"constant", "cosine", "one-cycle"}
        How the learning rate changes from update to update: not at all; down to 0 along a cosine; or up and then down.
    warmup
        Share of the updates in which the learning rate rises, along a straight line; by default 0.2 for one-cycle, 0
        for the others.

    Raises
    ------
    ArgumentError
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
    keep_every: int | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.01
    schedule: str = "constant"
    warmup: float | None = None

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("optimizer", self.optimizer, tuple(OPTIMIZERS))
        if self.reduction is not None:
            check_choice("reduction", self.reduction, REDUCTIONS)
        whole_number("num_epochs", self.num_epochs, 1, 2**31 - 1)
        whole_number("seed", self.seed, 0)
        positive_number("learning_rate", self.learning_rate)
        for name in ("batch_size", "patience", "keep_every"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), 1)
        if self.clip_norm is not None:
            positive_number("clip_norm", self.clip_norm)
        for name in ("beta1", "beta2", "weight_decay", "warmup"):
            if getattr(self, name) is not None:
                rate(name, getattr(self, name))
        self.rates.check()

    @property
    def rates(self) -> DropoutRates:
        """Of dropout."""
        return DropoutRates(self.dropout, self.recurrent_dropout, self.zoneout)

    @property
    def resolved_reduction(self) -> str:
        """The reduction that is used."""
        return self.reduction or DEFAULT_REDUCTIONS[self.optimizer]

    def learning_rate_at(self, step: int, total: int) -> float:
        """The learning rate of one of `total` updates, the first of which is 0."""
        warmup = DEFAULT_WARMUPS[self.schedule] if self.warmup is None else self.warmup
        return self.learning_rate * rate_factor(self.schedule, warmup, step, total)


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
class TrainingState:
    """All that a training needs to go on, bit for bit as if it had not stopped; on the host.

    Attributes
    ----------
    batches
        Batches done of the epoch that comes after those in `history`.
    theta, best_theta : array, shape ``(P,)``
        The parameters, and those of `best_epoch`.
    optimizer
        The optimizer's arrays, by name.
    largest_norm
        Of the gradients in those batches.
    best_epoch
        The epoch with the lowest cost, of validation where there is one.
    history
        One record an epoch, from epoch 0.
    seconds
        Time of training so far.
    """

    batches: int
    theta: Array
    best_theta: Array
    optimizer: Mapping[str, Array]
    largest_norm: float
    best_epoch: int
    history: tuple[EpochRecord, ...]
    seconds: float

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.history[-1].epoch


Pause = Callable[[int, int, Callable[[], TrainingState]], object]
"""Called as ``pause(epoch, batches, state)`` after every batch and epoch: with the epochs done, the batches of the next
one, and a function that returns the `TrainingState`. The training stops there if the result is True."""


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
        ``"num_epochs"`` (all done), ``"patience"``, ``"callback"`` or ``"paused"`` (those asked to stop), or
        ``"non_finite"``.
    problem
        What went wrong and what to do, where the cost or a gradient stopped being finite; else None.
    """

    params: NetworkParams
    best_epoch: int
    history: tuple[EpochRecord, ...]
    stop_reason: StopReason
    problem: str | None


def check_hooks(
    callback: Callable[[EpochRecord], object] | None, pause: Pause | None, state: TrainingState | None
) -> None:
    """Raise ArgumentError unless they are two functions and a `TrainingState`; each may be None."""
    check_function("callback", callback, optional=True)
    check_function("pause", pause, optional=True)
    if state is not None:
        check_kind("state", state, TrainingState, "a TrainingState or None", error=ArgumentError)


def train(
    params: NetworkParams,
    x: Array,
    y: Array,
    *,
    config: TrainingConfig,
    device: Device,
    reset: Reset | None = None,
    validation: tuple[Array, Array] | None = None,
    callback: Callable[[EpochRecord], object] | None = None,
    pause: Pause | None = None,
    state: TrainingState | None = None,
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
    config, device
        How to train, and where.
    reset : {"before", "after"}, optional
        The expected form of the GRU layers; see `gru_forward`.
    validation
        Sequences and targets to choose the best parameters by, instead of the training cost.
    callback
        Called after every epoch; the training stops after that epoch if the result is True.
    pause
        Called after every batch, too; see `Pause`.
    state
        Where a training of the same arguments stopped, to go on from there.

    Returns
    -------
    TrainingResult
        It is returned, too, when the cost stops being finite; `stop_reason` says so.

    Raises
    ------
    ShapeError
        The arrays do not go together.
    ArgumentError
        `callback` or `pause` is not a function, `state` is not a `TrainingState`, or `reset` is not the form of
        `params`.
    """
    check_hooks(callback, pause, state)
    check_reset(reset, params.gru[0][0])
    _check_sequences("x", x, "y", y, params)
    if validation is not None:
        _check_sequences("validation[0]", validation[0], "validation[1]", validation[1], params)
    start = time.perf_counter()

    with device.use():
        ops = device.ops()
        theta = flatten(params)
        current = unflatten(theta, params)
        n = x.shape[0]
        batch_size = min(config.batch_size or n, n)
        update = Update(theta, config, ops, math.ceil(n / batch_size))
        if state is not None:
            update.restore(state, device)
        rates = config.rates
        how: dict[str, Any] = {"rates": rates, "keep_every": config.keep_every}
        objective = Objective(current, x, y, ops, **how)
        validation_objective = None if validation is None else Objective(current, *validation, ops, **how)

        # Without dropout, the gradient is that of the reported cost.
        whole_batch = batch_size == n and not any(rates)
        captures = _Captures(ops, device, update)
        batches = None if whole_batch else _Batches(current, x, y, batch_size, device, ops, update, captures)

        def evaluate() -> None:
            if whole_batch:  # the gradient is for the next epoch's update
                objective.evaluate()
            else:
                objective.evaluate_cost()
            if validation_objective is not None:
                validation_objective.evaluate_cost()

        whole_update = partial(update.step, objective.gradient, n)

        def learn_again() -> None:  # where the gradient may have been scaled already
            objective.evaluate()
            whole_update()

        def costs() -> tuple[float, float | None]:
            captures.run(evaluate)
            validation_cost = None if validation_objective is None else float(validation_objective.cost[0])
            return float(objective.cost[0]), validation_cost

        def learn_from_all(epoch: int, done: int) -> Iterator[int]:
            if done == 0:
                update.prepare(epoch, 1)
                captures.run(whole_update, again=learn_again)
                yield 1

        def gradient(epoch: int, batch: int) -> Array:
            captures.drop()  # for the memory of what is computed now
            return objective.gradient if batches is None else batches.gradient(epoch, batch)

        return run_epochs(
            theta,
            params,
            update,
            learn_from_all if batches is None else batches.learn,
            costs,
            callback,
            start=start,
            gradient=gradient,
            pause=pause,
            state=state,
        )


def run_epochs(
    theta: Array,
    params: NetworkParams,
    update: "Update",
    learn: Callable[[int, int], Iterator[int]],
    costs: Callable[[], tuple[float, float | None]],
    callback: Callable[[EpochRecord], object] | None,
    *,
    start: float,
    gradient: Callable[[int, int], Array] | None = None,
    pause: Pause | None = None,
    state: TrainingState | None = None,
) -> TrainingResult:
    """The loop over epochs itself: it watches the costs, keeps the best parameters, and knows when to stop.

    Parameters
    ----------
    theta : array, shape ``(P,)``
        The parameters that change; those of epoch 0, or of `state`, when it is called.
    params
        What they are the numbers of.
    update
        Their updates, which `learn` takes.
    learn
        ``learn(epoch, done)`` learns for an epoch, of which so many batches are done; it yields their number after each
        further one.
    costs
        The cost, and that of validation, with the parameters as they are.
    callback, start, pause, state
        As `train` has it, and when that was called.
    gradient
        ``gradient(epoch, batch)``, with the parameters as they are, to say what is wrong with it.
    """
    progress = _Progress(theta, update, start, state)
    if state is not None and progress.done == 0:
        costs()  # the gradient for the next update comes with them

    def is_paused() -> bool:
        return pause is not None and _is_true(pause(progress.epoch, progress.done, progress.snapshot))

    problem = None
    stop_reason = progress.stop_reason()
    while stop_reason is None:
        if progress.done == 0:
            update.start_epoch()
        if progress.history:
            for batch in learn(progress.epoch + 1, progress.done):
                progress.done = batch
                if is_paused():
                    return progress.result(params, "paused", None)
        batches = progress.done
        finite = progress.record(*costs())
        wants_stop = callback is not None and _is_true(callback(progress.history[-1]))
        if not finite:
            stop_reason = "non_finite"
            problem = _problem(unflatten(theta, params), progress, batches, update, gradient)
        elif wants_stop:
            stop_reason = "callback"
        else:
            stop_reason = progress.stop_reason()
            if is_paused() and stop_reason is None:
                stop_reason = "paused"
    return progress.result(params, stop_reason, problem)


class _Progress:
    """How far a training is: its history, its best parameters, and the batches done of the next epoch."""

    def __init__(self, theta: Array, update: "Update", start: float, state: TrainingState | None) -> None:
        xp = array_namespace(theta)
        self._theta, self._update, self._start = theta, update, start
        self.history: list[EpochRecord] = []
        self.best_theta, self.best_epoch, self.done = xp.asarray(theta, copy=True), 0, 0
        if state is not None:
            self.history = list(state.history)
            self.best_theta[...] = xp.asarray(state.best_theta, dtype=theta.dtype, device=device_of(theta))
            self.best_epoch, self.done = state.best_epoch, state.batches
            self._start -= state.seconds

    @property
    def epoch(self) -> int:
        """Epochs done; -1 before the costs of the start are known."""
        return len(self.history) - 1

    def record(self, cost: float, validation_cost: float | None) -> bool:
        """Take down the end of an epoch; whether everything is finite."""
        epoch = self.epoch + 1
        norm = None if epoch == 0 else float(self._update.largest_norm[0])
        judged = cost if validation_cost is None else validation_cost
        finite = all(math.isfinite(number) for number in (cost, judged, norm or 0.0))
        best_cost = self.history[-1].best_cost if self.history else math.inf
        if finite and judged < best_cost:
            self.best_theta[...] = self._theta
            self.best_epoch, best_cost = epoch, judged
        self.history.append(EpochRecord(epoch, cost, validation_cost, norm, self._seconds(), best_cost))
        self.done = 0
        return finite

    def stop_reason(self) -> StopReason | None:
        """Why to stop after the epochs so far, all of which went well; None to go on."""
        config = self._update.config
        if config.patience is not None and self.epoch - self.best_epoch >= config.patience:
            return "patience"
        return "num_epochs" if self.epoch >= config.num_epochs else None

    def snapshot(self) -> TrainingState:
        """All of it on the host, as it is now."""
        return TrainingState(
            self.done,
            to_host(self._theta).copy(),
            to_host(self.best_theta).copy(),
            {name: to_host(array).copy() for name, array in self._update.optimizer.arrays().items()},
            float(self._update.largest_norm[0]),
            self.best_epoch,
            tuple(self.history),
            self._seconds(),
        )

    def result(self, params: NetworkParams, stop_reason: StopReason, problem: str | None) -> TrainingResult:
        """What training ends with."""
        best = unflatten(self.best_theta, params)
        return TrainingResult(best, self.best_epoch, tuple(self.history), stop_reason, problem)

    def _seconds(self) -> float:
        return time.perf_counter() - self._start


def _problem(
    params: NetworkParams,
    progress: _Progress,
    batches: int,
    update: "Update",
    gradient: Callable[[int, int], Array] | None,
) -> str:
    """What is not finite after an epoch, where, and what to do."""
    epoch = progress.epoch
    if epoch == 0:
        return "the cost is not a finite number at the start; look for extreme values, or compute in float64"
    batch = min(update.good_steps + 1, batches)
    if (name := _not_finite(params)) is not None:
        what = f"parameter {name} is no longer finite"
    elif gradient is not None and (name := _not_finite(unflatten(gradient(epoch, batch), params))) is not None:
        what = f"the gradient of {name} is not finite"
    else:
        what = "the cost is no longer finite, though the parameters are"
    clip_norm = update.config.clip_norm
    clipping = f"below {clip_norm:g}" if clip_norm is not None and clip_norm <= 1 else "such as 1"
    return (
        f"epoch {epoch}, batch {batch}: {what}; try a smaller learning rate than {update.config.learning_rate:g}, "
        f"or a clip norm {clipping} (the parameters of epoch {progress.best_epoch} are kept)"
    )


def _not_finite(params: NetworkParams) -> str | None:
    """The first array that holds a number that is not finite."""
    for name, array in named_arrays(params):
        xp = array_namespace(array)
        if not bool(xp.all(xp.isfinite(array))):
            return name
    return None


def _is_true(result: object) -> bool:
    """Whether it is True, of Python or of an array library; not any object that merely counts as true."""
    return type(result).__name__ == "bool" and bool(result)


def _check_sequences(x_name: str, x: Array, y_name: str, y: Array, params: NetworkParams) -> None:
    O, _ = params.linear.weight.shape  # noqa: E741
    first = params.gru[0][0]
    check_array(x_name, x, ("B", "T", "I"), like=("params", first.weight_ih))
    I = first.input_size // patch_size(params.gru, x)  # noqa: E741
    check_array(x_name, x, ("B", "T", I), like=("params", first.weight_ih))
    check_array(y_name, y, (x.shape[0], O), like=("params", first.weight_ih))


class _Captures:
    """The functions of a training, each captured when it is run for the first time.

    Where memory runs out, all of them are dropped, and functions are called as they are from then on.
    """

    def __init__(self, ops: Ops, device: Device, update: "Update") -> None:
        self._ops, self._device, self._update = ops, device, update
        self._replays: dict[Callable[[], object], Callable[[], object]] = {}
        self._is_capturing = True

    def run(self, function: Callable[[], object], again: Callable[[], object] | None = None) -> None:
        """Run a function; `again` does the same after an attempt that failed before the parameters were changed."""
        if not self._attempt(partial(self._run, function)):
            (again or function)()

    def call(self, function: Callable[[], Result]) -> Result:
        """The result of a function that is not captured."""
        results: list[Result] = []
        if not self._attempt(lambda: results.append(function())):
            return function()
        return results[0]

    def drop(self) -> None:
        """Let go of all functions, and of their memory."""
        self._is_capturing = False
        self._replays.clear()
        self._ops.release()

    def _run(self, function: Callable[[], object]) -> None:
        replay = self._replays.get(function)
        if replay is not None:
            replay()
        elif self._is_capturing:
            self._replays[function] = self._ops.capture(function)
        else:
            function()

    def _attempt(self, function: Callable[[], object]) -> bool:
        """Whether a function has run; if memory ran out, all that was captured has been dropped."""
        try:
            function()
            return True
        except Exception as error:
            if not self._is_capturing or self._update.is_changing or not is_out_of_memory(error):
                raise
        self.drop()  # here, where the error is gone, with all that its frames refer to
        without = "steps that are not captured, which are slower"
        if self._device.is_cuda:
            replace(f"{self._device.name} ran out of memory", without)
        else:
            warn(f"{self._device.name} ran out of memory; using {without}")
        return False


class Update:
    """Updates of the parameters `theta`, whose norms are watched; nothing of it waits for the device.

    From the first gradient of an epoch on that is not finite, `theta` stays as it is.
    """

    def __init__(self, theta: Array, config: TrainingConfig, ops: Ops, steps_per_epoch: int = 1) -> None:
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.optimizer = _optimizer(theta, config)
        self._theta, self._ops = theta, ops
        self._before = ops.empty(theta.shape, like=theta)
        self._norm = ops.empty((1,), like=theta)
        numbers = array_namespace(theta).finfo(theta.dtype)
        self._largest_finite = float(numbers.max)
        self.is_changing = False  # the parameters, so that a step cannot be repeated
        norm = config.clip_norm  # as a number that the dtype has
        self._clip_norm = norm and min(max(float(norm), float(numbers.smallest_normal)), self._largest_finite)
        self.largest_norm = ops.empty((1,), like=theta)
        self._good_steps = ops.empty((1,), like=theta)

    @property
    def good_steps(self) -> int:
        """Steps of this epoch before the first gradient that was not finite."""
        return int(self._good_steps[0])

    def start_epoch(self) -> None:
        """Forget the norms of the epoch before."""
        self._ops.copy(0.0, self.largest_norm)
        self._ops.copy(0.0, self._good_steps)

    def prepare(self, epoch: int, batch: int) -> None:
        """Set the learning rate of the step for a batch of an epoch, both counted from 1."""
        step, total = (epoch - 1) * self.steps_per_epoch + batch - 1, self.config.num_epochs * self.steps_per_epoch
        self.optimizer.set_learning_rate(self.config.learning_rate_at(step, total), self._ops)

    def restore(self, state: TrainingState, device: Device) -> None:
        """Go on from `state`."""
        places = {**self.optimizer.arrays(), "theta": self._theta}
        for name, array in {**state.optimizer, "theta": state.theta}.items():
            places[name][...] = to_device(array, device)
        self.largest_norm[...] = state.largest_norm
        self._good_steps[...] = float(state.batches)

    def step(self, gradient: Array, n: int) -> None:
        """One step against the gradient of the sum over `n` sequences, which is scaled and clipped in place."""
        ops, theta, limit = self._ops, self._theta, self._largest_finite
        if self.config.resolved_reduction == "mean":
            ops.pointwise(divide, (gradient, float(n)), out=(gradient,))
        ops.norm(gradient, out=self._norm)
        self.is_changing = True
        watched = (self.largest_norm, self._good_steps)
        ops.pointwise(_watch, (self._norm, *watched, limit), out=watched)
        if self._clip_norm is not None:
            ops.pointwise(_clip, (gradient, self._norm, self._clip_norm), out=(gradient,))
        ops.copy(theta, self._before)
        self.optimizer.step(gradient, ops)
        ops.pointwise(_while_finite, (theta, self._before, self.largest_norm, limit), out=(theta,))
        self.is_changing = False


def _optimizer(theta: Array, config: TrainingConfig) -> Optimizer:
    names = {"adam": ("beta1", "beta2"), "adamw": ("beta1", "beta2", "weight_decay")}.get(config.optimizer, ())
    return OPTIMIZERS[config.optimizer](theta, config.learning_rate, **{name: getattr(config, name) for name in names})


def _watch(xp: Namespace, norm: Array, largest: Array, good_steps: Array, limit: float) -> tuple[Array, Array]:
    largest = xp.maximum(norm, largest)  # not finite any more once a norm is not
    return largest, xp.where(limit > largest, good_steps + 1.0, good_steps)


def _while_finite(xp: Namespace, theta: Array, before: Array, largest_norm: Array, limit: float) -> tuple[Array]:
    return (xp.where(limit > largest_norm, theta, before),)


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
        device: Device,
        ops: Ops,
        update: Update,
        captures: _Captures,
    ) -> None:
        self._x, self._y, self._batch_size, self._device = x, y, batch_size, device
        self._captures, self._update = captures, update
        self._layers, self._rates, self._seed = current.gru, update.config.rates, update.config.seed
        self._prepared: dict[int, tuple[Array, Array, StackMasks, Objective, Callable[[], None]]] = {}
        for size in {batch_size, x.shape[0] % batch_size} - {0}:
            x_batch, y_batch = (ops.empty((size, *a.shape[1:]), like=a) for a in (x, y))
            masks = self._draw(x_batch, 0, 0)
            keep_every = update.config.keep_every
            objective = Objective(current, x_batch, y_batch, ops, rates=self._rates, masks=masks, keep_every=keep_every)

            def learn(objective: Objective = objective, size: int = size) -> None:
                objective.evaluate()
                update.step(objective.gradient, size)

            self._prepared[size] = x_batch, y_batch, masks, objective, learn

    def _draw(self, x: Array, epoch: int, batch: int) -> StackMasks:
        return draw_masks(self._layers, x, self._rates, random.Random(f"dropout {self._seed} {epoch} {batch}"))

    def learn(self, epoch: int, done: int) -> Iterator[int]:
        """Learn from every sequence once, in an order that is drawn on the host; `done` batches are done already."""
        order = self._captures.call(partial(self._order, epoch))
        for batch in range(done + 1, math.ceil(self._x.shape[0] / self._batch_size) + 1):
            _, learn = self._captures.call(partial(self._gather, order, epoch, batch))
            self._update.prepare(epoch, batch)
            self._captures.run(learn)
            yield batch

    def gradient(self, epoch: int, batch: int) -> Array:
        """That of a batch, counted from 1, with the parameters as they are."""
        objective, _ = self._gather(self._order(epoch), epoch, batch)
        objective.evaluate()
        return objective.gradient

    def _order(self, epoch: int) -> Array:
        indices = list(range(self._x.shape[0]))
        random.Random(f"order {self._seed} {epoch}").shuffle(indices)
        return to_device(indices, self._device, "int64")

    def _gather(self, order: Array, epoch: int, batch: int) -> tuple[Objective, Callable[[], None]]:
        """Put a batch, and what dropout leaves out of it, where it is learned from."""
        xp, last = self._device.xp, batch * self._batch_size
        part = order[last - self._batch_size : last]
        x_batch, y_batch, masks, objective, learn = self._prepared[part.shape[0]]
        x_batch[...] = xp.take(self._x, part, axis=0)
        y_batch[...] = xp.take(self._y, part, axis=0)
        if any(self._rates):
            drawn = self._draw(x_batch, epoch, batch)
            for place, mask in zip(arrays_of(masks), arrays_of(drawn), strict=True):
                place[...] = mask
        return objective, learn
