"""A training's state as the parts of a file, and when to write them."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, fields
from typing import Any

from array_api_compat import array_namespace

from gru_xp.nn.scan import Array, Namespace
from gru_xp.training.model_file import Architecture
from gru_xp.training.optimizers import STATE_SHAPES
from gru_xp.training.strict_json import check_fields
from gru_xp.training.tensors import TensorSpec
from gru_xp.training.trainer import EpochRecord, TrainingState

SECONDS_BETWEEN = 30.0
"""How often to write, where nothing else is said."""

SHARE_OF_TIME = 0.01
"""How much of the time writing may take then; where it is slow, it is done less often."""

SECONDS_BEFORE_FIRST = 5.0
"""When to write first then: what is lost until there is a checkpoint is little."""

_VECTORS = ("theta", "best_theta")
_OPTIMIZER = "optimizer."
_COLUMNS = tuple(field.name for field in fields(EpochRecord))[1:]  # the epoch is the row


class Checkpoints:
    """When to write checkpoints: a `Pause` for `train`, which stops it, too.

    Parameters
    ----------
    write
        Writes a state.
    every_epochs
        Write after every N-th epoch.
    every_seconds
        Write after the batch in which this interval ends. Without either, after `SECONDS_BEFORE_FIRST` and then every
        `SECONDS_BETWEEN`, or less often where that would take more than `SHARE_OF_TIME`.
    at_start
        Write the first state, too.
    wants_stop
        Asked after every batch; where it is True, the state is written and the training stops.

    Attributes
    ----------
    has_written
        Whether a state has been written.
    """

    def __init__(
        self,
        write: Callable[[TrainingState], object],
        *,
        every_epochs: int | None = None,
        every_seconds: float | None = None,
        at_start: bool = False,
        wants_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._write, self._wants_stop = write, wants_stop
        self._every_epochs, self._every_seconds = every_epochs, every_seconds
        self._last = time.perf_counter()
        self._took: float | None = None
        self._at_start = at_start
        self.has_written = False
        self._state: Callable[[], TrainingState] | None = None  # that is not written; it holds the training's arrays

    def __call__(self, epoch: int, batches: int, state: Callable[[], TrainingState]) -> bool:
        self._state = state
        stop = self._wants_stop()
        if stop or self._is_due(epoch, batches):
            self.write()
        return stop

    def write(self) -> None:
        """Write the state as it is, unless it is written, or something in it is not finite."""
        if self._state is None:
            return
        start = time.perf_counter()
        state = self._state()
        if _is_finite(state):
            self._write(state)
            self.has_written = True
        self._state = None
        self._last = time.perf_counter()
        self._took = self._last - start

    def _is_due(self, epoch: int, batches: int) -> bool:
        if self._at_start:
            self._at_start = False
            return True
        if self._every_epochs is not None and batches == 0 and epoch > 0 and epoch % self._every_epochs == 0:
            return True
        if self._every_seconds is not None:
            return time.perf_counter() - self._last >= self._every_seconds
        if self._every_epochs is not None:
            return False
        took = self._took
        wait = SECONDS_BEFORE_FIRST if took is None else max(SECONDS_BETWEEN, took / SHARE_OF_TIME)
        return time.perf_counter() - self._last >= wait


def state_parts(state: TrainingState) -> tuple[dict[str, Any], dict[str, Array]]:
    """What of a state JSON holds, and its arrays."""
    xp = array_namespace(state.theta)
    numbers = {
        "epochs": len(state.history),
        "batches": state.batches,
        "best_epoch": state.best_epoch,
        "largest_norm": state.largest_norm,
        "loss_sum": state.loss_sum,
        "skipped": state.skipped,
        "seconds": state.seconds,
    }
    arrays = {
        "theta": state.theta,
        "best_theta": state.best_theta,
        "history": history_array(state.history, xp),
        **{_OPTIMIZER + name: array for name, array in state.optimizer.items()},
    }
    return numbers, arrays


def state_specs(numbers: object, optimizer: str, P: int, dtype: str) -> dict[str, TensorSpec]:
    """The arrays of a state with these numbers, of P parameters.

    Raises
    ------
    ValueError
        The numbers are not those of a state.
    """
    real = (int, float)
    kinds: dict[str, Any] = {
        "epochs": int,
        "batches": int,
        "best_epoch": int,
        "largest_norm": real,
        "loss_sum": real,
        "skipped": int,
        "seconds": real,
    }
    if isinstance(numbers, dict):
        numbers = {"loss_sum": 0.0, "skipped": 0, **numbers}  # older files have neither
    checked = check_fields("the state", numbers, kinds)
    in_order = checked["best_epoch"] < checked["epochs"] < 2**31 and checked["batches"] < 2**31
    if any(number < 0 for name, number in checked.items() if name != "loss_sum") or not in_order:
        raise ValueError("the state of no training")
    shapes = dict.fromkeys(_VECTORS, (P,))
    shapes |= {_OPTIMIZER + name: (P,) if whole else (1,) for name, whole in STATE_SHAPES[optimizer].items()}
    specs = {name: TensorSpec(dtype, shape) for name, shape in shapes.items()}
    return specs | {"history": history_spec(checked["epochs"])}


def drop_unused(arrays: Mapping[str, Array], architecture: Architecture) -> dict[str, Array]:
    """The arrays of a state that has numbers for the unused parameters of older files, without these numbers.

    Parameters
    ----------
    arrays
        Of `state_specs`, with P counted over ``architecture.specs(with_unused=True)``; others are returned as they are.
    architecture
        Of the network.
    """
    used, whole, start = architecture.specs(), [], 0
    for name, spec in architecture.specs(with_unused=True).items():
        size = math.prod(spec.shape)
        whole += [slice(start, start + size)] if name in used else []
        start += size

    def dropped(name: str, array: Array) -> Array:
        if name.startswith((*_VECTORS, _OPTIMIZER)) and array.shape == (start,):
            return array_namespace(array).concat([array[part] for part in whole])
        return array

    return {name: dropped(name, array) for name, array in arrays.items()}


def state_from_parts(numbers: Mapping[str, Any], arrays: Mapping[str, Array]) -> TrainingState:
    """The state whose parts these are.

    Raises
    ------
    ValueError
        The history is not one.
    """
    history = history_from_array(arrays["history"])
    return TrainingState(
        numbers["batches"],
        arrays["theta"],
        arrays["best_theta"],
        {name.removeprefix(_OPTIMIZER): array for name, array in arrays.items() if name.startswith(_OPTIMIZER)},
        float(numbers["largest_norm"]),
        numbers["best_epoch"],
        history,
        float(numbers["seconds"]),
        float(numbers.get("loss_sum", 0.0)),
        numbers.get("skipped", 0),
    )


def history_array(history: Sequence[EpochRecord], xp: Namespace) -> Array:
    """A row for each epoch; NaN for a number that there is not."""
    rows = [[math.nan if value is None else value for value in astuple(record)[1:]] for record in history]
    return xp.asarray(rows, dtype=xp.float64)


def history_spec(epochs: int) -> TensorSpec:
    """The array of a history with so many records."""
    return TensorSpec("float64", (epochs, len(_COLUMNS)), finite=False)


def history_from_array(array: Array) -> tuple[EpochRecord, ...]:
    """The history whose array this is.

    Raises
    ------
    ValueError
        It is not that of a history.
    """
    history = tuple(_record(epoch, *row) for epoch, row in enumerate(array.tolist()))
    if len({record.validation_cost is None for record in history}) > 1:
        raise ValueError("a history with costs of validation for some epochs only")
    return history


def _is_finite(state: TrainingState) -> bool:
    """Whether its gradients, costs and arrays are, so that it can be read again, and gone on from."""
    xp, last = array_namespace(state.theta), state.history[-1]
    numbers = (state.largest_norm, state.loss_sum, last.cost, last.best_cost, last.validation_cost or 0.0)
    arrays = (state.theta, state.best_theta, *state.optimizer.values())
    return all(map(math.isfinite, numbers)) and all(bool(xp.all(xp.isfinite(array))) for array in arrays)


def _record(epoch: int, cost: float, validation: float, norm: float, seconds: float, best: float) -> EpochRecord:
    finite = all(map(math.isfinite, (cost, seconds, best))) and not math.isinf(validation) and not math.isinf(norm)
    if not finite or seconds < 0 or norm < 0 or math.isnan(norm) != (epoch == 0):
        raise ValueError(f"a history whose epoch {epoch} is none")
    validation_cost, gradient_norm = (None if math.isnan(value) else value for value in (validation, norm))
    return EpochRecord(epoch, cost, validation_cost, gradient_norm, seconds, best)
