"""One process of ``train``: times the training steps of one implementation on one shape, and nothing else.

``python -m benchmarks.worker`` reads a `Job` as JSON on stdin and writes a result as JSON on stdout: ``times``, the
seconds of each timed step.
"""

import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from gru_xp.devices import resolve_device, to_device, to_host
from gru_xp.nn.params import named_arrays, unflatten
from gru_xp.nn.stack import StackParams, init_stack_params
from gru_xp.training.shards import Shards
from gru_xp.training.trainer import TrainingConfig, train

Arrays = dict[str, np.ndarray[Any, Any]]

LEARNING_RATE = 1e-3
SEED = 0
MAX_STEPS = 10_000


@dataclass(frozen=True)
class Job:
    """What to time.

    Attributes
    ----------
    library
        ``"gru-xp"`` or ``"torch"``.
    variant
        Of gru-xp the form of the reset gate, of PyTorch see `benchmarks.torch_gru`.
    device
        A name for `resolve_device`.
    shape
        B, T, H, I.
    threads
        Of the CPU.
    warm_up_steps, warm_up_seconds
        Both are passed before a step is timed.
    steps
        How many steps to time; as many as `seconds` need, and `min_steps`, if None.
    gradient_file
        Where to write the cost and its gradient at the starting weights; nowhere if None.
    """

    library: str
    variant: str
    device: str
    shape: tuple[int, int, int, int]
    threads: int
    warm_up_steps: int
    warm_up_seconds: float
    min_steps: int
    seconds: float
    steps: int | None = None
    gradient_file: str | None = None

    def problem(self, xp: Any = np) -> tuple[StackParams, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Starting weights in namespace `xp`, sequences ``(B, T, I)`` and targets ``(B, 1)``; every library's are
        the same."""
        B, T, H, I = self.shape  # noqa: E741
        rng = np.random.default_rng(SEED)
        x, y = (rng.standard_normal(size, dtype=np.float32) for size in ((B, T, I), (B, 1)))
        return init_stack_params(I, H, 1, xp=xp, seed=SEED, dtype=xp.float32), x, y


class Stopwatch:
    """Called after every step; True when enough steps are timed."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._start = time.perf_counter()
        self._calls = 0
        self._times: list[float] = []

    def __call__(self, _: object = None) -> bool:
        now = time.perf_counter()
        job = self._job
        self._calls += 1
        if self._times or (self._calls >= job.warm_up_steps and now - self._start >= job.warm_up_seconds):
            self._times.append(now)
        done = len(self._times) - 1
        if job.steps is not None:
            return done >= job.steps
        return done >= MAX_STEPS or (done >= job.min_steps and now - self._times[0] >= job.seconds)

    @property
    def times(self) -> list[float]:
        """Seconds of each timed step."""
        return np.diff(self._times).tolist()


def save_gradient(job: Job, cost: float, gradient: StackParams) -> None:
    """Write the mean squared error and its gradient, host arrays in gru-xp's order and signs, if the job wants it."""
    if job.gradient_file is not None:
        arrays: Arrays = {"cost": np.asarray(cost), **dict(named_arrays(gradient))}
        np.savez(job.gradient_file, **arrays)  # type: ignore[arg-type]


def run_gru_xp(job: Job) -> list[float]:
    """The trainer itself, with the stopwatch as its callback: what is timed is all that it does in an epoch."""
    device = resolve_device(job.device, fallback=False)
    with device.use():
        params, *data = job.problem(device.xp)
    x, y = (to_device(array, device) for array in data)
    if job.gradient_file is not None:
        with device.use(), Shards(device, job.variant) as shards:  # type: ignore[arg-type]
            cost, of_sum = shards.cost_and_gradient(params, x, y)
        host_params, *_ = job.problem()
        save_gradient(job, cost, unflatten(to_host(of_sum) / x.shape[0], host_params))
    stopwatch = Stopwatch(job)
    result = train(
        params,
        x,
        y,
        config=TrainingConfig(num_epochs=10**9, learning_rate=LEARNING_RATE, optimizer="sgd", reduction="mean"),
        device=device,
        reset=job.variant,  # type: ignore[arg-type]
        callback=stopwatch,
    )
    if result.problem is not None:
        raise RuntimeError(result.problem)
    return stopwatch.times


def main() -> None:
    """Do the job on stdin."""
    fields = json.load(sys.stdin)
    job = Job(**{**fields, "shape": tuple(fields["shape"])})
    if job.library == "torch":
        from benchmarks.torch_gru import run_torch

        times = run_torch(job)
    else:
        times = run_gru_xp(job)
    json.dump({"times": times}, sys.stdout)


if __name__ == "__main__":
    main()
