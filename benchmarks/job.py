"""What one process measures: a job, its data, and how time and memory are taken."""

import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from gru_xp.nn.network import NetworkParams, init_network_params
from gru_xp.nn.params import Reset

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Shape = tuple[int, int, int, int]

LEARNING_RATE = 1e-3
SEED = 0
MAX_SAMPLES = 10_000
SAMPLE_SECONDS = 0.5e-3


@dataclass(frozen=True)
class Job:
    """What to time, in JSON's types.

    Attributes
    ----------
    task
        ``"train"`` (training steps), ``"variant"`` (layers of ``stacks.py``, forward and back), ``"layer"`` (one
        layer, by the functions that users call), ``"forward"`` (the states of whole sequences), ``"stream"`` (one step
        of one sequence after the other, with prepared weights), ``"step"`` (without), or ``"cell"`` (without, and with
        what the way back needs).
    library
        A key of ``worker.MODULES``.
    variant
        Which of the library's ways; each library's module says what there is.
    shape
        B, T, H, I.
    device
        A name for `resolve_device`.
    threads
        Of the CPU.
    warm_up_steps, warm_up_seconds
        Both are passed before a step is timed.
    min_steps, seconds
        Both are passed before the timing ends, unless `steps` says how many samples to take.
    steps
        How many samples to take; None for the first round.
    pipelined_steps
        How many training steps to time once more without reading the cost after each; none if 0.
    tf32
        Whether gru-xp's products use TF32.
    environment
        Further environment variables of the process.
    arrays_file
        Where to write what was computed, for comparison; nowhere if None.
    """

    task: str
    library: str
    variant: str
    shape: Shape
    device: str = "cpu"
    threads: int = 1
    warm_up_steps: int = 3
    warm_up_seconds: float = 0.3
    min_steps: int = 5
    seconds: float = 1.0
    steps: int | None = None
    pipelined_steps: int = 0
    tf32: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    arrays_file: str | None = None

    def fields(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON can hold it: other checkouts may not know all the rest."""
        values = ((field, getattr(self, field.name)) for field in fields(self))
        return {
            field.name: value
            for field, value in values
            if value != (field.default if field.default_factory is MISSING else field.default_factory())
        }

    def problem(self) -> tuple[NetworkParams, Array, Array]:
        """Starting weights, sequences ``(B, T, I)`` and targets ``(B, 1)``; every library's are the same.

        The weights are for ``reset="after"``, which all libraries have, unless the variant is ``"before"``.
        """
        B, T, H, I = self.shape  # noqa: E741
        rng = np.random.default_rng(SEED)
        x, y = (rng.standard_normal(size, dtype=np.float32) for size in ((B, T, I), (B, 1)))
        reset: Reset = "before" if self.variant == "before" else "after"
        return init_network_params(I, H, 1, reset=reset, xp=np, seed=SEED, dtype=np.float32), x, y

    def save(self, arrays: Arrays) -> None:
        """Write `arrays` where the job wants them."""
        if self.arrays_file is not None:
            np.savez(self.arrays_file, **arrays)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Measurement:
    """What a job comes to.

    Attributes
    ----------
    times
        Seconds of each sample: of a training step, or the mean of a few calls.
    peak_bytes
        How much the process grew at most; None where the system does not tell.
    pipelined_seconds
        Of a training step without a wait after each; None if the job does not want it.
    """

    times: list[float]
    peak_bytes: int | None = None
    pipelined_seconds: float | None = None


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
        return bool(self._times) and _enough(job, len(self._times) - 1, now - self._times[0])

    @property
    def times(self) -> list[float]:
        """Seconds of each timed step."""
        return np.diff(self._times).tolist()


def time_calls(job: Job, call: Callable[[], object]) -> list[float]:
    """Seconds of a call, sample by sample; a sample is so many calls that reading the clock does not count."""
    start, calls = time.perf_counter(), 0
    while calls < job.warm_up_steps or time.perf_counter() - start < job.warm_up_seconds:
        call()
        calls += 1
    once = time.perf_counter()
    call()
    a_sample = range(max(1, math.ceil(SAMPLE_SECONDS / (time.perf_counter() - once))))
    times: list[float] = []
    start = before = time.perf_counter()
    while not _enough(job, len(times), before - start):
        for _ in a_sample:
            call()
        now = time.perf_counter()
        times.append((now - before) / len(a_sample))
        before = now
    return times


def _enough(job: Job, done: int, seconds: float) -> bool:
    if job.steps is not None:
        return done >= job.steps
    return done >= MAX_SAMPLES or (done >= job.min_steps and seconds >= job.seconds)


class PeakMemory:
    """How much the resident memory of this process grows at most from here on; Linux only.

    The kernel keeps the highest value (``VmHWM``), and forgets earlier ones when it is asked to.
    """

    def __init__(self) -> None:
        with suppress(OSError):  # an earlier peak counts as well then, if it was higher
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._before = _status_bytes("VmRSS")

    def growth(self) -> int | None:
        """In bytes; None where the system does not tell."""
        peak = _status_bytes("VmHWM")
        return None if peak is None or self._before is None else peak - self._before


def _status_bytes(name: str) -> int | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    return None if found is None else 1024 * int(found[1])
