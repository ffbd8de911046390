"""How far a training is from the same training on the CPU."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gru_xp.devices import Device, resolve_device
from gru_xp.devices.primitives import PLAIN_OPS, Ops
from gru_xp.forecasting.data import remembered_options, series_to_continue
from gru_xp.forecasting.fitting import initial_params
from gru_xp.forecasting.forecaster import Forecaster
from gru_xp.forecasting.settings import EPOCHS_WITH_PATIENCE
from gru_xp.io.panel import Panel
from gru_xp.nn.params import flatten
from gru_xp.nn.scan import Array
from gru_xp.training.trainer import EpochRecord, Pause, TrainingState

LIMITS = {"float32": 5e-5, "float64": 1e-10}
"""How far parameters may be apart after the first epoch, relative to the largest parameter. Rounding alone takes them
1.6e-5 apart in float32, for 64 hidden units and windows of 30 rows."""

TF32_LIMIT = 0.2
"""How far parameters may be apart where products use TF32: the norm, relative to that of what the first epoch changed.

Adam's first step goes by the sign of a gradient, so that a single parameter tells little. On the tests' stand-in for
CuPy, rounding takes them up to 3e-2 apart; gradients of opposite signs would take them 2 apart."""


@dataclass(frozen=True)
class Drift:
    """How far two trainings are apart.

    Attributes
    ----------
    reference
        What the training was compared with.
    first_epoch, last_epoch
        Largest difference between parameters after the first and after the last epoch that both have, relative to the
        largest parameter; with TF32, the former is the norm of the difference, relative to that of the first epoch's
        change.
    cost
        Largest relative difference between the costs of an epoch.
    epochs
        How many epochs both have.
    limit
        What `first_epoch` may be.
    tf32
        Whether the training used TF32, which the other one did not.
    """

    reference: str
    first_epoch: float
    last_epoch: float
    cost: float
    epochs: int
    limit: float
    tf32: bool = False

    @property
    def is_within_limit(self) -> bool:
        """Whether the two agree after the first epoch."""
        return self.first_epoch <= self.limit


class Witness:
    """Remembers the parameters after the first epoch and the last ones: a `Pause` for `train`, before another one."""

    def __init__(self, then: Pause | None = None) -> None:
        self._then = then
        self._state: Callable[[], TrainingState] | None = None
        self.first: Array | None = None

    def __call__(self, epoch: int, batches: int, state: Callable[[], TrainingState]) -> object:
        if batches == 0:
            self._state = state
            if epoch == 1:
                self.first = state().theta
        return None if self._then is None else self._then(epoch, batches, state)

    @property
    def last(self) -> Array | None:
        """The parameters as they are now."""
        return None if self._state is None else self._state().theta


def compare_with_cpu(forecaster: Forecaster, series: Any, witness: Witness, *, pause: Pause | None = None) -> Drift:
    """Train again on the CPU, a forecaster of the CPU without its fast paths, and compare.

    Parameters
    ----------
    forecaster
        One that has learned from `series`, without `refit`, while `witness` was watching.
    series
        What it has learned from.
    witness
        A `Witness`, which was the `pause` of its `fit`.
    pause
        Of the training on the CPU, which it may end.
    """
    training = forecaster.training
    assert training is not None
    if not isinstance(series, Panel):
        series = series_to_continue(series, forecaster.columns, remembered_options(forecaster.notes))
    cpu = resolve_device("cpu", threads=forecaster.device.threads if not forecaster.device.is_cuda else None)
    device = cpu if forecaster.device.is_cuda else _PlainCpu(**vars(cpu))
    # as many epochs: a cost that differs a little may end the patience earlier or later
    settings = forecaster.settings() | {"patience": None, "guard": False, "refit": False, "levels": ()}
    last = max(training.history[-1].epoch, 1)
    if forecaster.patience is not None and forecaster.num_epochs is None:
        settings["num_epochs"] = EPOCHS_WITH_PATIENCE

    def ends(epoch: int, batches: int, state: Callable[[], TrainingState]) -> bool:
        return epoch >= last or (pause is not None and pause(epoch, batches, state) is True)

    again = Witness(ends)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a cost that is not finite shows in the comparison
        reference = Forecaster(**settings).fit(series, device=device, pause=again)
    assert reference.training is not None
    is_tf32 = forecaster.device.tf32
    start = flatten(initial_params(reference)) if is_tf32 else None
    first = _difference(witness.first, again.first, start)
    records = list(zip(training.history, reference.training.history, strict=False))
    return Drift(
        "the CPU" if forecaster.device.is_cuda else "the CPU without fast paths",
        first,
        _difference(witness.last, again.last),
        max(_cost_difference(ours, theirs, forecaster.loss) for ours, theirs in records),
        len(records) - 1,
        TF32_LIMIT if is_tf32 else LIMITS[forecaster.dtype],
        is_tf32,
    )


class _PlainCpu(Device):
    def ops(self) -> Ops:
        return PLAIN_OPS


def _difference(ours: Array | None, theirs: Array | None, start: Array | None = None) -> float:
    """The largest one, relative to the largest parameter; or the norm, relative to that of the change since `start`."""
    if ours is None or theirs is None:
        return 0.0 if ours is theirs else math.inf
    with np.errstate(over="ignore", invalid="ignore"):
        if start is None:
            difference = float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))
        else:
            difference = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs - start))
    return difference if math.isfinite(difference) else math.inf


def _cost_difference(ours: EpochRecord, theirs: EpochRecord, loss: str) -> float:
    """The relative one; of a negative log-likelihood, which may be near 0 or below, not larger than the difference."""
    if not math.isfinite(ours.cost) or not math.isfinite(theirs.cost):
        return math.inf
    least = 1.0 if loss in ("gaussian", "poisson") else np.finfo(np.float64).tiny
    return float(abs(ours.cost - theirs.cost) / max(abs(theirs.cost), least))
