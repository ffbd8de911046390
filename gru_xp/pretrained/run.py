"""A whole training of the pretrained network, with checkpoints in a folder, up to the weights that it ends with."""

import math
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gru_xp.devices import Device, to_device
from gru_xp.devices.primitives import Ops
from gru_xp.errors import CheckpointError
from gru_xp.nn.params import arrays_of, map_arrays
from gru_xp.pretrained.network import HIDDEN, ZeroShotParams, init_zero_shot_params
from gru_xp.pretrained.training import Batch, Batches, Learner, expected_positions, on_device
from gru_xp.pretrained.weights import WEIGHTS_FILE, load_weights, save_weights
from gru_xp.pretrained.widths import fit_widths
from gru_xp.training.checkpoint import Checkpoints, state_from_parts, state_parts, state_specs
from gru_xp.training.stream import train_on_stream
from gru_xp.training.strict_json import check_fields
from gru_xp.training.tensors import TensorSpec, read_tensors, write_tensors
from gru_xp.training.trainer import EpochRecord, TrainingConfig, TrainingState

CHECKPOINT_FILE = "checkpoint.safetensors"

POSITIONS = 40_000_000
"""Patches to learn from."""

UPDATES_OF_EPOCH = 250
"""Updates after which the loss on other series is computed."""

AVERAGING = 0.998
"""Decay of the moving average of the parameters, which the weights are."""

_FORMAT = 1
_KIND = "checkpoint"


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes
    ----------
    positions
        Patches to learn from, each of them once.
    seed
        Random seed of the series and of the first parameters.
    """

    positions: int = POSITIONS
    seed: int = 0

    @property
    def updates(self) -> int:
        """Number of updates of the parameters."""
        return math.ceil(self.positions / expected_positions())

    def config(self) -> TrainingConfig:
        """How the parameters are updated."""
        return TrainingConfig(
            None,
            2e-3,
            optimizer="adamw",
            clip_norm=1.0,
            beta2=0.98,
            weight_decay=0.02,
            schedule="cosine",
            warmup=min(0.5, 120 / self.updates),
            num_steps=self.updates,
            seed=self.seed,
        )


def train_weights(
    folder: str | os.PathLike[str],
    plan: Plan,
    device: Device,
    *,
    report: Callable[[EpochRecord], object],
    wants_stop: Callable[[], bool],
) -> Path | None:
    """Train the network, or continue a training, and write its weights.

    Parameters
    ----------
    folder
        For ``checkpoint.safetensors``, which is continued from if it is there, and ``weights.safetensors``.
    plan
        What to train; that of the checkpoint, where there is one.
    device
        Where to train.
    report
        Called after every epoch of `UPDATES_OF_EPOCH` updates.
    wants_stop
        Asked after every update; where the answer is True, a checkpoint is written and the training stops.

    Returns
    -------
    Path or None
        Of the weights; None if the training was stopped.

    Raises
    ------
    CheckpointError
        The checkpoint is damaged or of another plan, a file cannot be written, or the training diverged.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT_FILE
    xp = device.xp
    params = init_zero_shot_params(hidden_size=HIDDEN, xp=xp, seed=plan.seed, dtype=xp.float32)
    params = map_arrays(partial(to_device, device=device), params)
    state = _read(checkpoint, plan, params) if checkpoint.exists() else None
    batches, learner = Batches(plan.seed), Learner(device)
    held_out = [on_device(batch, device) for batch in batches.validation()]

    ahead = _Ahead(batches)

    def draw(number: int) -> Batch:
        return on_device(ahead(number), device)

    def validate(current: ZeroShotParams, ops: Ops) -> float:
        return learner.mean_loss(current, held_out)

    checkpoints = Checkpoints(partial(_write, checkpoint, plan), wants_stop=wants_stop)
    result = train_on_stream(
        params,
        draw,
        learner.objective,
        config=plan.config(),
        device=device,
        validate=validate,
        steps_per_epoch=UPDATES_OF_EPOCH,
        averaging=AVERAGING,
        callback=report,
        pause=checkpoints,
        state=state,
    )
    checkpoints.write()
    if result.stop_reason == "paused":
        return None
    if result.problem is not None:
        raise CheckpointError(f"{folder}: {result.problem}")
    loss = result.history[-1].validation_cost
    metadata = {
        "made_by": f"python -m gru_xp.pretrained --positions {plan.positions} --seed {plan.seed}",
        "gru_xp": version("gru-xp"),
        "updates": str(plan.updates),
        "validation_loss": f"{loss:.5f}",
    }
    path = folder / WEIGHTS_FILE
    save_weights(path, result.params, metadata=metadata)  # first, as the widths are of what is read again
    weights = load_weights(path)
    save_weights(path, weights.params, widths=fit_widths(weights, plan.seed), metadata=metadata)
    return path


class _Ahead:
    """Batches, each of which is drawn by another thread while the one before it is learned from."""

    def __init__(self, batches: Batches) -> None:
        self._batches, self._executor = batches, ThreadPoolExecutor(max_workers=1)
        self._next: tuple[int, Future[Batch]] | None = None

    def __call__(self, number: int) -> Batch:
        batch = self._next[1].result() if self._next and self._next[0] == number else self._batches(number)
        self._next = number + 1, self._executor.submit(self._batches, number + 1)
        return batch


def _write(path: Path, plan: Plan, state: TrainingState) -> None:
    numbers, arrays = state_parts(state)
    description = {"positions": plan.positions, "seed": plan.seed, "state": numbers}
    write_tensors(path, arrays, kind=_KIND, version=_FORMAT, description=description)


def _read(path: Path, plan: Plan, params: ZeroShotParams) -> TrainingState:
    """The state in a checkpoint of the same plan."""
    size = sum(math.prod(array.shape) for array in arrays_of(params))

    def expected(version: int, description: dict[str, Any]) -> dict[str, TensorSpec]:
        fields = {"positions": int, "seed": int, "state": dict}
        checked = check_fields("the training", description, fields)
        return state_specs(checked["state"], "adamw", size, "float32")

    _, description, arrays = read_tensors(path, kind=_KIND, versions=(_FORMAT,), expected=expected)
    for name in ("positions", "seed"):
        if description[name] != getattr(plan, name):
            raise CheckpointError(
                f"{path}: is of a training with --{name} {description[name]}, not {getattr(plan, name)}; give the same "
                "value, or another --out"
            )
    return state_from_parts(description["state"], arrays)
