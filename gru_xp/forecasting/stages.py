"""The stages of a forecaster's training, and what the first one leaves to the second."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from gru_xp.devices import to_host
from gru_xp.nn.params import flatten
from gru_xp.nn.scan import Array
from gru_xp.training.trainer import EpochRecord, Pause, TrainingConfig, TrainingResult


class Stage(NamedTuple):
    """A stage that begins.

    Attributes
    ----------
    name
        ``"training"``; ``"refit"``, the training on all rows after one with validation rows; or ``"guard"``, a training
        without the last rows, which are forecast to see whether the model is worth having.
    num_epochs
        Epochs, unless something ends it earlier.
    num_steps
        Updates of the parameters, likewise.
    rows
        Number of rows to train on.
    """

    name: Literal["training", "refit", "guard"]
    num_epochs: int
    num_steps: int
    rows: int


class Hooks(NamedTuple):
    """What to call during a stage; see `Forecaster.fit`."""

    callback: Callable[[EpochRecord], object] | None = None
    pause: Pause | None = None


OnStage = Callable[[Stage], Hooks | None]
"""Called when a stage begins; where the result is not None, it has the hooks of this stage."""


@dataclass(frozen=True)
class Selection:
    """What a training with validation rows has found.

    Attributes
    ----------
    best_epoch
        The epoch with the lowest validation loss.
    history
        One record for each epoch, from epoch 0.
    stop_reason
        See `TrainingResult`.
    theta : array, shape ``(P,)``
        The parameters of the best epoch, on the host.
    """

    best_epoch: int
    history: tuple[EpochRecord, ...]
    stop_reason: str
    theta: Array = field(compare=False, repr=False)

    @classmethod
    def of(cls, training: TrainingResult) -> "Selection":
        """That of a training."""
        theta = to_host(flatten(training.params))
        return cls(training.best_epoch, training.history, training.stop_reason, theta)

    def again(self, config: TrainingConfig, windows: int, all_windows: int) -> TrainingConfig:
        """Configure the training on all windows: the same updates at the same rates, up to the best epoch.

        Parameters
        ----------
        config
            Of the training that has found it.
        windows, all_windows
            Number of windows then, and now. A number of updates stays as it is; a number of epochs takes more updates.
        """
        before, now = config.steps_per_epoch(windows), config.steps_per_epoch(all_windows)
        if config.num_steps is not None:
            return replace(config, patience=None, stop_after=min(self.best_epoch * before, config.num_steps))
        assert config.num_epochs is not None
        steps = config.num_epochs * now
        return replace(config, patience=None, num_epochs=None, num_steps=steps, stop_after=self.best_epoch * now)
