"""The loop over epochs. A library function with a callback: it writes no file and prints nothing."""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from gru_xp.devices import Device, check_on_device, device_for_caller, to_device, to_host
from gru_xp.devices.primitives import Ops
from gru_xp.devices.short_memory import with_less_memory
from gru_xp.errors import ArgumentError, ShapeError
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
from gru_xp.nn.losses import REDUCTIONS, check_quantiles
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import Reset, arrays_of, check_reset, flatten, named_arrays, unflatten
from gru_xp.nn.pointwise import divide
from gru_xp.nn.scan import Array, Namespace
from gru_xp.nn.stack import StackMasks, draw_masks, patch_size
from gru_xp.training.objective import LOSSES, Loss, Objective, loss_function, outputs_per_target
from gru_xp.training.optimizers import DEFAULT_REDUCTIONS, OPTIMIZERS, Optimizer
from gru_xp.training.schedules import DEFAULT_WARMUPS, SCHEDULES, rate_factor
from gru_xp.training.sequences import HeldSequences, Sequences

StopReason = Literal["num_epochs", "num_steps", "patience", "callback", "paused", "non_finite"]


@dataclass(frozen=True)
class TrainingConfig:
    """Configure a training run.

    Parameters
    ----------
    num_epochs
        Passes over the training sequences; not used, and may be None, if `num_steps` is given.
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
    num_steps
        Number of updates, in place of `num_epochs`; the last pass may end early. With mini-batches, the loss of an
        epoch is the mean of those that its updates began with, and that of the start is of the first batch. Without
        validation, the last parameters are the result.
    stop_after
        Number of updates after which to stop, of those that the learning rates are for; all of them if None. Only with
        `num_steps`.
    loss : {"mse", "mae", "huber", "quantile", "gaussian", "poisson"}
        What is minimised; see `gru_xp.nn.losses`. The network has an output for each target, but one for each quantile
        of each, and two with gaussian.
    huber_delta
        Size of an error from which on the loss of huber is linear.
    quantiles
        Levels of quantile.

    Raises
    ------
    ArgumentError
        A value is out of range.
    """

    num_epochs: int | None
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
    num_steps: int | None = None
    stop_after: int | None = None
    loss: str = "mse"
    huber_delta: float = 1.0
    quantiles: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("loss", self.loss, LOSSES)
        positive_number("huber_delta", self.huber_delta)
        object.__setattr__(self, "quantiles", check_quantiles(self.quantiles))
        check_choice("optimizer", self.optimizer, tuple(OPTIMIZERS))
        if self.reduction is not None:
            check_choice("reduction", self.reduction, REDUCTIONS)
        name = "num_epochs" if self.num_steps is None else "num_steps"
        whole_number(name, getattr(self, name), 1, 2**31 - 1)
        if self.stop_after is not None:
            whole_number("stop_after", self.stop_after, 0)
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

    @property
    def loss_function(self) -> Loss:
        """The loss."""
        return loss_function(self.loss, huber_delta=self.huber_delta, quantiles=self.quantiles)

    @property
    def outputs_per_target(self) -> int:
        """How many outputs the network has for each target."""
        return outputs_per_target(self.loss, self.quantiles)

    def steps_per_epoch(self, n: int) -> int:
        """Number of updates in an epoch of `n` sequences."""
        return math.ceil(n / min(self.batch_size or n, n))

    def steps(self, n: int) -> int:
        """Number of updates of a training on `n` sequences that nothing ends early."""
        if self.num_steps is None:
            return (self.num_epochs or 0) * self.steps_per_epoch(n)
        return self.num_steps if self.stop_after is None else min(self.num_steps, self.stop_after)

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
        Mean loss on all training sequences with the parameters after this epoch, or before the updates of this epoch;
        see `num_steps` of `TrainingConfig`.
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
    loss_sum
        Of the sequences in those batches, before their updates, where that is the loss of the epoch; else 0.
    skipped
        Number of those batches without an update, since their loss or gradient was not finite; see `train_on_stream`.
    """

    batches: int
    theta: Array
    best_theta: Array
    optimizer: Mapping[str, Array]
    largest_norm: float
    best_epoch: int
    history: tuple[EpochRecord, ...]
    seconds: float
    loss_sum: float = 0.0
    skipped: int = 0

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
        The parameters after `best_epoch`, of the type of those at the start, on the training device.
    best_epoch
        The epoch with the lowest cost, of validation where there is one.
    history
        One record an epoch, from epoch 0.
    stop_reason
        ``"num_epochs"`` or ``"num_steps"`` (all done), ``"patience"``, ``"callback"`` or ``"paused"`` (those asked to
        stop), or ``"non_finite"``.
    problem
        What went wrong and what to do, where the cost or a gradient stopped being finite; else None.
    """

    params: Any
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
    x: Array | Sequences,
    y: Array | None = None,
    *,
    config: TrainingConfig,
    device: str | Device,
    reset: Reset | None = None,
    validation: tuple[Array, Array] | Sequences | None = None,
    callback: Callable[[EpochRecord], object] | None = None,
    pause: Pause | None = None,
    state: TrainingState | None = None,
) -> TrainingResult:
    """Minimise the loss of the network's prediction after the last step.

    Parameters
    ----------
    params
        Where to start, on `device`; left as it is.
    x : array, shape ``(B, T, I)``, or Sequences
        Training sequences, on `device`, like all arrays. `Sequences` that hold no arrays are gathered batch by batch,
        or once, if there is one batch.
    y : array, shape ``(B, O)``
        Their targets; none with `Sequences`.
    config
        How to train.
    device
        Name of a device, see `resolve_device`, or a `Device`.
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
        The arrays do not go together, or are on another device than `device`.
    ArgumentError
        `callback` or `pause` is not a function, `state` is not a `TrainingState`, or `reset` is not the form of
        `params`.
    """
    check_hooks(callback, pause, state)
    device = device if isinstance(device, Device) else device_for_caller(device)
    check_reset(reset, params.gru[0][0])
    for name, array in named_arrays(params, "params."):
        check_on_device(name, array, device)
    learned = _sequences("x", x, "y", y, params, config)
    validated = None
    if hasattr(validation, "gather"):
        validated = _sequences("validation", validation, "", None, params, config)
    elif validation is not None:
        validated = _sequences("validation[0]", validation[0], "validation[1]", validation[1], params, config)
    start = time.perf_counter()
    with device.use():
        training = _Training(params, learned, validated, config, device, start, state)
        return training.run(callback, pause)


class _Training:
    """A training that may be short of memory: it is prepared, and gone on with, as often as that takes.

    Everything that needs memory is done in `_go_on`, which may be called again wherever it was left, as long as the
    parameters were not changing: it repeats what belongs to the batch or the costs that it was left in.
    """

    def __init__(
        self,
        params: NetworkParams,
        learned: Sequences,
        validated: Sequences | None,
        config: TrainingConfig,
        device: Device,
        start: float,
        state: TrainingState | None,
    ) -> None:
        self._params, self._learned, self._validated = params, learned, validated
        self._config, self._device, self._start, self._state = config, device, start, state
        self._ops = device.ops()
        self._captures = _Captures(self._ops)
        self._prepared: _Prepared | None = None

    def run(self, callback: Callable[[EpochRecord], object] | None, pause: Pause | None) -> TrainingResult:
        """See `train`."""
        try:
            return with_less_memory(
                partial(self._go_on, callback, pause),
                self._device,
                "steps that are not captured, which are slower",
                release=self._captures.drop,
                may_repeat=self._may_repeat,
            )
        finally:
            self._captures.forget()

    def _may_repeat(self) -> bool:
        return self._prepared is None or not (
            self._prepared.progress.update.is_changing or self._prepared.progress.is_calling
        )

    def _go_on(self, callback: Callable[[EpochRecord], object] | None, pause: Pause | None) -> TrainingResult:
        if self._prepared is None:
            self._prepared = self._prepare()
        progress, learn, costs, gradient = self._prepared
        return run_epochs(progress, learn, costs, callback, gradient=gradient, pause=pause)

    def _prepare(self) -> "_Prepared":
        params, config, device, captures = self._params, self._config, self._device, self._captures
        learned, validated, ops = self._learned, self._validated, self._ops
        theta = flatten(params)
        current = unflatten(theta, params)
        n = learned.n
        batch_size = min(config.batch_size or n, n)
        # Without dropout, the gradient is that of the reported loss.
        whole_batch = batch_size == n and not any(config.rates)
        if whole_batch and not isinstance(learned, HeldSequences):
            learned = _held(learned, "x", "y", params, config, device)
        if whole_batch and validated is not None and not isinstance(validated, HeldSequences):
            validated = _held(validated, "validation[0]", "validation[1]", params, config, device)
        before_updates = config.num_steps is not None and not whole_batch
        update = Update(theta, config, ops, math.ceil(n / batch_size), sums_losses=before_updates)
        if self._state is not None:
            update.restore(self._state, device)
        setting = _Setting(params, current, config, device, ops, captures)
        batches = None if whole_batch else _Batches(setting, learned, batch_size, update)
        training_loss = None if before_updates else setting.evaluation(learned, batch_size)
        validation_loss = None if validated is None else setting.evaluation(validated, batch_size)
        whole = training_loss.held if training_loss is not None and whole_batch else None

        def evaluate() -> None:
            if whole is not None:  # the gradient is for the next epoch's update
                whole.evaluate()
            elif training_loss is not None and training_loss.held is not None:
                training_loss.held.evaluate_cost()
            if validation_loss is not None and validation_loss.held is not None:
                validation_loss.held.evaluate_cost()

        def costs(epoch: int) -> tuple[float, float | None]:
            captures.run(evaluate)
            if training_loss is not None:
                cost = training_loss.value()
            else:
                assert batches is not None
                cost = batches.first_cost() if epoch == 0 else update.mean_loss(epoch, n, batch_size)
            return cost, None if validation_loss is None else validation_loss.value()

        def whole_update() -> None:
            assert whole is not None
            update.step(whole.gradient, n)

        def learn_from_all(epoch: int, done: int) -> Iterator[int]:
            if done == 0:
                update.prepare(epoch, 1)
                captures.run(whole_update)
                yield 1

        def gradient(epoch: int, batch: int) -> Array:
            captures.drop()  # for the memory of what is computed now
            return batches.gradient(epoch, batch) if whole is None else whole.gradient  # type: ignore[union-attr]

        progress = Progress(theta, params, update, self._start, self._state)
        return _Prepared(progress, learn_from_all if batches is None else batches.learn, costs, gradient)


def run_epochs(
    progress: "Progress",
    learn: Callable[[int, int], Iterator[int]],
    costs: Callable[[int], tuple[float, float | None]],
    callback: Callable[[EpochRecord], object] | None,
    *,
    gradient: Callable[[int, int], Array] | None = None,
    pause: Pause | None = None,
) -> TrainingResult:
    """The loop over epochs itself: it watches the costs, keeps the best parameters, and knows when to stop.

    Where memory runs out, it may be called again with the same `progress`, unless that is changing or calling.

    Parameters
    ----------
    progress
        How far the training is, which changes.
    learn
        ``learn(epoch, done)`` learns for an epoch, of which so many batches are done; it yields their number after each
        further one.
    costs
        ``costs(epoch)``: the cost, and that of validation, with the parameters as they are after so many epochs.
    callback, pause
        As `train` has it.
    gradient
        ``gradient(epoch, batch)``, with the parameters as they are, to say what is wrong with it.
    """
    if progress.history and progress.done == 0 and progress.is_finite:
        costs(progress.epoch)  # the gradient for the next update comes with them

    def is_paused() -> bool:
        return pause is not None and progress.call(pause, progress.epoch, progress.done, progress.snapshot)

    stop_reason = progress.stop_reason()
    while stop_reason is None:
        if progress.done == 0:
            progress.update.start_epoch()
        if progress.history:
            for batch in learn(progress.epoch + 1, progress.done):
                progress.note(batch)
                if is_paused():
                    return progress.result("paused", None)
        progress.record(*costs(progress.epoch + 1))
        wants_stop = callback is not None and progress.call(callback, progress.history[-1])
        stop_reason = progress.stop_reason()
        if stop_reason == "non_finite":
            break
        if wants_stop:
            stop_reason = "callback"
        elif is_paused() and stop_reason is None:
            stop_reason = "paused"
    return progress.result(stop_reason, _problem(progress, gradient) if stop_reason == "non_finite" else None)


class _Prepared(NamedTuple):
    """A training whose memory is there: how far it is, and what `run_epochs` calls."""

    progress: "Progress"
    learn: Callable[[int, int], Iterator[int]]
    costs: Callable[[int], tuple[float, float | None]]
    gradient: Callable[[int, int], Array]


class Progress:
    """How far a training is: its history, its best parameters, and the batches done of the next epoch.

    Parameters
    ----------
    theta : array, shape ``(P,)``
        The parameters that change; those of epoch 0, or of `state`, now.
    params
        What they are the numbers of.
    update
        Their updates.
    start, state
        When `train` was called, and its argument.
    averages
        Whether the caller keeps an average of the parameters in `best_theta`, which is the result.

    Attributes
    ----------
    is_finite
        Whether all costs and gradients were, so far.
    is_calling
        Whether a function of the caller's is being called, whose errors are the caller's.
    """

    def __init__(
        self,
        theta: Array,
        params: tuple[Any, ...],
        update: "Update",
        start: float,
        state: TrainingState | None = None,
        *,
        averages: bool = False,
    ) -> None:
        xp = array_namespace(theta)
        self._averages = averages
        self._theta, self._params, self.update, self._start = theta, params, update, start
        self.history: list[EpochRecord] = []
        self.best_theta, self.best_epoch = xp.asarray(theta, copy=True), 0
        self.done = self.last_batches = 0
        self.is_finite, self.is_calling = True, False
        if state is not None:
            self.history = list(state.history)
            self.best_theta[...] = xp.asarray(state.best_theta, dtype=theta.dtype, device=device_of(theta))
            self.best_epoch, self.done = state.best_epoch, state.batches
            self._start -= state.seconds

    @property
    def params(self) -> tuple[Any, ...]:
        """The parameters as they are."""
        return unflatten(self._theta, self._params)

    @property
    def epoch(self) -> int:
        """Epochs done; -1 before the costs of the start are known."""
        return len(self.history) - 1

    def note(self, batch: int) -> None:
        """Take down that a batch is done, with its update, which is not to be repeated from here on."""
        self.done, self.update.is_changing = batch, False

    def call(self, function: Callable[..., object], *arguments: object) -> bool:
        """Whether a function of the caller's returns True."""
        self.is_calling = True
        wants = _is_true(function(*arguments))
        self.is_calling = False
        return wants

    def record(self, cost: float, validation_cost: float | None) -> None:
        """Take down the end of an epoch."""
        epoch = self.epoch + 1
        norm = None if epoch == 0 else float(self.update.largest_norm[0])
        judged = cost if validation_cost is None else validation_cost
        finite = all(math.isfinite(number) for number in (cost, judged, norm or 0.0))
        best_cost = self.history[-1].best_cost if self.history else math.inf
        if finite and (self._averages or judged < best_cost or self._keeps_last(validation_cost)):
            if not self._averages:
                self.best_theta[...] = self._theta
            self.best_epoch, best_cost = epoch, judged
        self.history.append(EpochRecord(epoch, cost, validation_cost, norm, self._seconds(), best_cost))
        self.last_batches, self.done, self.is_finite = self.done, 0, finite

    def stop_reason(self) -> StopReason | None:
        """Why to stop after the epochs so far; None to go on."""
        config = self.update.config
        if not self.is_finite:
            return "non_finite"
        if config.patience is not None and self.epoch - self.best_epoch >= config.patience:
            return "patience"
        if self.epoch < self.update.num_epochs:
            return None
        return "num_epochs" if config.num_steps is None else "num_steps"

    def snapshot(self) -> TrainingState:
        """All of it on the host, as it is now."""
        return TrainingState(
            self.done,
            to_host(self._theta).copy(),
            to_host(self.best_theta).copy(),
            {name: to_host(array).copy() for name, array in self.update.optimizer.arrays().items()},
            float(self.update.largest_norm[0]),
            self.best_epoch,
            tuple(self.history),
            self._seconds(),
            float(self.update.loss_sum[0]),
            self.update.skipped,
        )

    def result(self, stop_reason: StopReason, problem: str | None) -> TrainingResult:
        """What training ends with."""
        if stop_reason == "paused" and self._keeps_last(self.history[-1].validation_cost):
            self.best_theta[...] = self._theta
        best = unflatten(self.best_theta, self._params)
        return TrainingResult(best, self.best_epoch, tuple(self.history), stop_reason, problem)

    def _keeps_last(self, validation_cost: float | None) -> bool:
        """Whether the last parameters are the best ones: within a budget of updates, all of which are wanted."""
        return self.update.config.num_steps is not None and validation_cost is None

    def _seconds(self) -> float:
        return time.perf_counter() - self._start


def _problem(progress: Progress, gradient: Callable[[int, int], Array] | None) -> str:
    """What is not finite after an epoch, where, and what to do."""
    epoch, update, params = progress.epoch, progress.update, progress.params
    if epoch == 0:
        return "the cost is not a finite number at the start; look for extreme values, or compute in float64"
    batch = min(update.good_steps + 1, progress.last_batches)
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


def _not_finite(params: tuple[Any, ...]) -> str | None:
    """The first array that holds a number that is not finite."""
    for name, array in named_arrays(params):
        xp = array_namespace(array)
        if not bool(xp.all(xp.isfinite(array))):
            return name
    return None


def _is_true(result: object) -> bool:
    """Whether it is True, of Python or of an array library; not any object that merely counts as true."""
    return type(result).__name__ == "bool" and bool(result)


def _sequences(
    x_name: str, x: Array | Sequences, y_name: str, y: Array | None, params: NetworkParams, config: TrainingConfig
) -> Sequences:
    """Arrays, checked, or `Sequences`, whose arrays are checked as they are gathered."""
    if y is None and hasattr(x, "gather"):
        sequences: Sequences = x
    else:
        sequences = HeldSequences(x, y)
    if isinstance(sequences, HeldSequences):
        _check_sequences(x_name, sequences, y_name, params, config)
    return sequences


def _held(
    sequences: Sequences, x_name: str, y_name: str, params: NetworkParams, config: TrainingConfig, device: Device
) -> HeldSequences:
    """All of them, gathered once."""
    held = HeldSequences(*sequences.gather(device.xp.arange(sequences.n, dtype=device.xp.int64)))
    _check_sequences(x_name, held, y_name, params, config)
    return held


def _check_sequences(
    x_name: str, held: HeldSequences, y_name: str, params: NetworkParams, config: TrainingConfig
) -> None:
    O, columns = params.linear.weight.shape[0], config.outputs_per_target  # noqa: E741
    like = ("params", params.linear.weight)
    if O % columns:
        raise ShapeError(f"params has {O} outputs; the loss {config.loss!r} needs {columns} for each target")
    first = params.gru[0][0]
    check_array(x_name, held.x, ("B", "T", "I"), like=like)
    I = first.input_size // patch_size(params.gru, held.x)  # noqa: E741
    check_array(x_name, held.x, ("B", "T", I), like=like)
    check_array(y_name, held.y, (held.n, O // columns), like=like)
    if held.weight is not None:
        check_array(f"the weight of {x_name}", held.weight, (held.n, 1), like=like)


class _Captures:
    """The functions of a training, each captured when it is run for the first time, until all of them are dropped."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops
        self._replays: dict[Callable[[], object], Callable[[], object]] = {}
        self._is_capturing = True

    def run(self, function: Callable[[], object]) -> None:
        """Run a function."""
        replay = self._replays.get(function)
        if replay is not None:
            replay()
        elif self._is_capturing:
            self._replays[function] = self._ops.capture(function)
        else:
            function()

    def drop(self) -> None:
        """Let go of all functions, and of their memory; from now on, they are called as they are."""
        self._is_capturing = False
        self.forget()
        self._ops.release()

    def forget(self) -> None:
        """Let go of all functions, which may refer to what refers to them."""
        self._replays.clear()


class Update:
    """Updates of the parameters `theta`, whose norms are watched; nothing of it waits for the device.

    From the first gradient of an epoch on that is not finite, `theta` stays as it is.

    Where `decayed`, shape ``(P,)``, is 0 instead of 1, there is no weight decay.
    """

    def __init__(
        self,
        theta: Array,
        config: TrainingConfig,
        ops: Ops,
        steps_per_epoch: int = 1,
        *,
        sums_losses: bool = False,
        decayed: Array | None = None,
    ) -> None:
        self.config = config
        self._steps_per_epoch = steps_per_epoch
        self._n_steps = config.num_steps or (config.num_epochs or 0) * steps_per_epoch
        self._last_step = self._n_steps if config.stop_after is None else min(config.stop_after, self._n_steps)
        self.num_epochs = math.ceil(self._last_step / steps_per_epoch)
        self._sums_losses = sums_losses
        self.optimizer = _optimizer(theta, config, decayed)
        self._theta, self._ops = theta, ops
        self._before = ops.empty(theta.shape, like=theta)
        self._norm = ops.empty((1,), like=theta)
        numbers = array_namespace(theta).finfo(theta.dtype)
        self._largest_finite = float(numbers.max)
        self.is_changing = False  # the parameters, from a step until it is taken down: it cannot be repeated
        norm = config.clip_norm  # as a number that the dtype has
        self._clip_norm = norm and min(max(float(norm), float(numbers.smallest_normal)), self._largest_finite)
        self.largest_norm = ops.empty((1,), like=theta)
        self._good_steps = ops.empty((1,), like=theta)
        self.loss_sum = ops.empty((1,), like=theta)
        self.skipped = 0  # batches of this epoch that the caller made no step for

    @property
    def good_steps(self) -> int:
        """Steps of this epoch before the first gradient that was not finite."""
        return int(self._good_steps[0])

    def start_epoch(self) -> None:
        """Forget the norms of the epoch before."""
        self._ops.copy(0.0, self.largest_norm)
        self._ops.copy(0.0, self._good_steps)
        self._ops.copy(0.0, self.loss_sum)
        self.skipped = 0

    def steps_in(self, epoch: int) -> int:
        """How many updates there are in an epoch."""
        return min(self._steps_per_epoch, self._last_step - (epoch - 1) * self._steps_per_epoch)

    def mean_loss(self, epoch: int, n: int, batch_size: int) -> float:
        """The mean of the losses that the updates of an epoch began with, of `n` sequences if there are all of them."""
        return float(self.loss_sum[0]) / min(n, self.steps_in(epoch) * batch_size)

    def prepare(self, epoch: int, batch: int) -> None:
        """Set the learning rate of the step for a batch of an epoch, both counted from 1."""
        step = (epoch - 1) * self._steps_per_epoch + batch - 1
        self.optimizer.set_learning_rate(self.config.learning_rate_at(step, self._n_steps), self._ops)

    def restore(self, state: TrainingState, device: Device) -> None:
        """Go on from `state`."""
        places = {**self.optimizer.arrays(), "theta": self._theta}
        for name, array in {**state.optimizer, "theta": state.theta}.items():
            places[name][...] = to_device(array, device)
        self.largest_norm[...] = state.largest_norm
        self._good_steps[...] = float(state.batches)
        self.loss_sum[...] = state.loss_sum
        self.skipped = state.skipped

    def step(self, gradient: Array, n: int, cost: Array | None = None) -> None:
        """One step against the gradient of the sum over `n` sequences, which is scaled and clipped in place.

        `cost` is the mean loss of these, where losses are summed.
        """
        ops, theta, limit = self._ops, self._theta, self._largest_finite
        if self.config.resolved_reduction == "mean":
            ops.pointwise(divide, (gradient, float(n)), out=(gradient,))
        ops.norm(gradient, out=self._norm)
        self.is_changing = True
        if self._sums_losses:
            ops.pointwise(_add_times, (self.loss_sum, cost, float(n)), out=(self.loss_sum,))
        watched = (self.largest_norm, self._good_steps)
        ops.pointwise(_watch, (self._norm, *watched, limit), out=watched)
        if self._clip_norm is not None:
            ops.pointwise(_clip, (gradient, self._norm, self._clip_norm), out=(gradient,))
        ops.copy(theta, self._before)
        self.optimizer.step(gradient, ops)
        ops.pointwise(_while_finite, (theta, self._before, self.largest_norm, limit), out=(theta,))


def _optimizer(theta: Array, config: TrainingConfig, decayed: Array | None) -> Optimizer:
    names = {"adam": ("beta1", "beta2"), "adamw": ("beta1", "beta2", "weight_decay")}.get(config.optimizer, ())
    settings = {name: getattr(config, name) for name in names}
    if decayed is not None and "weight_decay" in settings:
        settings["weight_decay"] = config.weight_decay * decayed
    return OPTIMIZERS[config.optimizer](theta, config.learning_rate, **settings)


def _watch(xp: Namespace, norm: Array, largest: Array, good_steps: Array, limit: float) -> tuple[Array, Array]:
    largest = xp.maximum(norm, largest)  # not finite any more once a norm is not
    return largest, xp.where(limit > largest, good_steps + 1.0, good_steps)


def _add_times(xp: Namespace, total: Array, a: Array, n: float) -> tuple[Array]:
    return (total + n * a,)


def _while_finite(xp: Namespace, theta: Array, before: Array, largest_norm: Array, limit: float) -> tuple[Array]:
    return (xp.where(limit > largest_norm, theta, before),)


def _clip(xp: Namespace, gradient: Array, norm: Array, clip_norm: float) -> tuple[Array]:
    return (gradient * (clip_norm / xp.maximum(norm, clip_norm)),)


@dataclass(frozen=True)
class _Setting:
    """What the parts of a training have in common."""

    params: NetworkParams  # where it starts, for checks
    current: NetworkParams
    config: TrainingConfig
    device: Device
    ops: Ops
    captures: _Captures

    def objective(self, sequences: HeldSequences, masks: StackMasks | None = None) -> Objective:
        """Of arrays, which may change in place."""
        return Objective(
            self.current,
            sequences.x,
            sequences.y,
            self.ops,
            # in other units of the values, the gradient of the likelihood is the same
            weight=None if self.config.loss == "gaussian" else sequences.weight,
            loss=self.config.loss_function,
            rates=self.config.rates,
            masks=masks,
            keep_every=self.config.keep_every,
        )

    def place(self, sequences: Sequences, size: int) -> HeldSequences:
        """Memory for `size` of the sequences."""
        given = sequences
        if not isinstance(given, HeldSequences):
            given = HeldSequences(*sequences.gather(self.range(0, 1)))
            _check_sequences("x", given, "y", self.params, self.config)
        x, y, weight = (
            None if a is None else self.ops.empty((size, *a.shape[1:]), like=a)
            for a in (given.x, given.y, given.weight)
        )
        return HeldSequences(x, y, weight)

    def range(self, start: int, stop: int) -> Array:
        """Numbers of sequences."""
        return self.device.xp.arange(start, stop, dtype=self.device.xp.int64)

    def evaluation(self, sequences: Sequences, batch_size: int) -> "_Evaluation":
        """The loss of sequences, of which as many as in a batch may be gathered, or more, if that is few."""
        return _Evaluation(self, sequences, min(sequences.n, max(batch_size, EVALUATED)))


def _fill(place: HeldSequences, sequences: Sequences, index: Array) -> None:
    for old, new in zip((place.x, place.y, place.weight), sequences.gather(index), strict=True):
        if old is not None:
            old[...] = new


EVALUATED = 512
"""Sequences to gather together, at least, where their loss alone is computed."""


class _Evaluation:
    """The mean loss of sequences with the parameters as they are.

    Attributes
    ----------
    held
        Its objective, to be evaluated before `value` is asked for; None if the sequences are gathered in parts.
    """

    def __init__(self, setting: _Setting, sequences: Sequences, size: int) -> None:
        self._setting, self._sequences, self._size = setting, sequences, size
        self.held = setting.objective(sequences) if isinstance(sequences, HeldSequences) else None
        self._parts: dict[int, tuple[HeldSequences, Objective, Callable[[], None]]] = {}
        for n in () if self.held is not None else {size, sequences.n % size} - {0}:
            place = setting.place(sequences, n)
            objective = setting.objective(place)
            self._parts[n] = place, objective, objective.evaluate_cost

    def value(self) -> float:
        """The mean loss."""
        if self.held is not None:
            return float(self.held.cost[0])
        n, captures, total = self._sequences.n, self._setting.captures, 0.0
        for start in range(0, n, self._size):
            stop = min(start + self._size, n)
            place, objective, evaluate_cost = self._parts[stop - start]
            _fill(place, self._sequences, self._setting.range(start, stop))
            captures.run(evaluate_cost)
            total += (stop - start) * float(objective.cost[0])
        return total / n


class _Batches:
    """Mini-batches: the sequences in a new order each epoch, gathered into memory that stays; the last is smaller.

    What dropout leaves out is drawn for each of them anew.
    """

    def __init__(self, setting: _Setting, sequences: Sequences, batch_size: int, update: Update) -> None:
        self._setting, self._sequences, self._batch_size, self._update = setting, sequences, batch_size, update
        self._captures = setting.captures
        self._layers, self._rates, self._seed = setting.current.gru, update.config.rates, update.config.seed
        self._prepared: dict[int, tuple[HeldSequences, StackMasks, Objective, Callable[[], None]]] = {}
        for size in {batch_size, sequences.n % batch_size} - {0}:
            place = setting.place(sequences, size)
            masks = self._draw(place.x, 0, 0)
            objective = setting.objective(place, masks)

            def learn(objective: Objective = objective, size: int = size) -> None:
                objective.evaluate()
                update.step(objective.gradient, size, objective.cost)

            self._prepared[size] = place, masks, objective, learn

    def _draw(self, x: Array, epoch: int, batch: int) -> StackMasks:
        return draw_masks(self._layers, x, self._rates, random.Random(f"dropout {self._seed} {epoch} {batch}"))

    def learn(self, epoch: int, done: int) -> Iterator[int]:
        """Learn from every sequence once, in an order that is drawn on the host; `done` batches are done already."""
        order = self._order(epoch)
        for batch in range(done + 1, self._update.steps_in(epoch) + 1):
            _, learn = self._gather(order, epoch, batch)
            self._update.prepare(epoch, batch)
            self._captures.run(learn)
            yield batch

    def first_cost(self) -> float:
        """That of the first batch, with the parameters as they are."""
        objective, _ = self._gather(self._order(1), 1, 1)
        objective.evaluate_cost()
        return float(objective.cost[0])

    def gradient(self, epoch: int, batch: int) -> Array:
        """That of a batch, counted from 1, with the parameters as they are."""
        objective, _ = self._gather(self._order(epoch), epoch, batch)
        objective.evaluate()
        return objective.gradient

    def _order(self, epoch: int) -> Array:
        indices = list(range(self._sequences.n))
        random.Random(f"order {self._seed} {epoch}").shuffle(indices)
        return to_device(indices, self._setting.device, "int64")

    def _gather(self, order: Array, epoch: int, batch: int) -> tuple[Objective, Callable[[], None]]:
        """Put a batch, and what dropout leaves out of it, where it is learned from."""
        last = batch * self._batch_size
        part = order[last - self._batch_size : last]
        place, masks, objective, learn = self._prepared[part.shape[0]]
        _fill(place, self._sequences, part)
        if any(self._rates):
            drawn = self._draw(place.x, epoch, batch)
            for mask, new in zip(arrays_of(masks), arrays_of(drawn), strict=True):
                mask[...] = new
        return objective, learn
