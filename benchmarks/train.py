"""``train``: one training step, beside PyTorch's."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.report import json_option, quick_option, save_json
from benchmarks.worker import Job
from gru_xp.cli.messages import note, print_table
from gru_xp.cli.options import Command
from gru_xp.devices import cuda_problem, resolve_device

Shape = tuple[int, int, int, int]

CPU_SHAPES: tuple[Shape, ...] = ((165, 10, 70, 1), (704, 10, 70, 1), (2048, 32, 128, 8), (256, 100, 256, 8))
CUDA_SHAPES: tuple[Shape, ...] = (*CPU_SHAPES, (64, 10, 70, 1), (4096, 32, 128, 8), (1024, 100, 256, 8))

TORCH_CPU_VARIANTS = ("float32",)
TORCH_CUDA_VARIANTS = ("ieee", "default", "ieee, graph", "default, graph")
"""PyTorch's rows; torch_gru.py says what they mean."""

GRADIENT_TOLERANCE = 1e-4
"""Largest relative difference of two gradients that are computed in float32 throughout."""

ROOT = Path(__file__).resolve().parent.parent
TIME_LIMIT = 900.0
OTHER_SETTINGS = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "CUPY_TF32",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Environment variables that would change what is compared; workers do not get them."""


@dataclass
class Contestant:
    """An implementation on one shape, and what its rounds have given."""

    job: Job
    rounds: list[list[float]] = field(default_factory=list)
    gradient: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def run(self, folder: Path) -> None:
        """One more round, in a process of its own, with as many steps as the first."""
        job = self.job
        gradient_file = folder / "gradient.npz"
        first = not self.rounds
        job = replace(job, gradient_file=str(gradient_file)) if first else replace(job, steps=len(self.rounds[0]))
        environment = {name: value for name, value in os.environ.items() if name not in OTHER_SETTINGS}
        environment["OMP_NUM_THREADS"] = str(job.threads)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.worker"],
                input=json.dumps(asdict(job)),
                capture_output=True,
                text=True,
                cwd=ROOT,
                env=environment,
                timeout=TIME_LIMIT,
            )
        except subprocess.TimeoutExpired:
            self.problem = f"not done after {TIME_LIMIT:g} s"
            return
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            self.problem = lines[-1] if lines else f"ended with status {done.returncode}"
            return
        if first:
            with np.load(gradient_file) as arrays:
                self.gradient = dict(arrays)
        self.rounds.append(json.loads(done.stdout)["times"])

    def row(self, ours: "Contestant | None") -> dict[str, Any]:
        """The result, as JSON can hold it; `ours` is what PyTorch is held against."""
        job = self.job
        row: dict[str, Any] = {
            "device": job.device,
            "shape": dict(zip("BTHI", job.shape, strict=True)),
            "library": job.library,
            "variant": job.variant,
            "problem": self.problem,
        }
        if self.problem is not None:
            return row
        milliseconds = 1e3 * np.asarray(self.rounds)
        q1, median, q3 = np.quantile(milliseconds, (0.25, 0.5, 0.75)).tolist()
        row |= {
            "steps": milliseconds.size,
            "median_ms": median,
            "min_ms": milliseconds.min().item(),
            "q1_ms": q1,
            "q3_ms": q3,
            "round_medians_ms": np.median(milliseconds, axis=1).tolist(),
        }
        if job.library == "torch" and ours is not None and ours.problem is None:
            our_rounds = np.median(1e3 * np.asarray(ours.rounds), axis=1)
            ratios = our_rounds / np.asarray(row["round_medians_ms"])
            row |= {
                "ratio": 1e3 * float(np.median(ours.rounds)) / median,
                "ratio_min": ratios.min().item(),
                "ratio_max": ratios.max().item(),
                "gradient_difference": relative_difference(ours.gradient, self.gradient),
            }
        return row


def relative_difference(actual: dict[str, Any], desired: dict[str, Any]) -> float:
    """The largest difference of any array's elements, in units of that array's largest element."""
    if actual.keys() != desired.keys():
        raise ValueError(f"the arrays are {', '.join(actual)} and {', '.join(desired)}")
    return max(float(np.max(np.abs(actual[name] - b)) / np.max(np.abs(b))) for name, b in desired.items())


def measure(jobs: Sequence[Job], repeats: int) -> list[dict[str, Any]]:
    """Time implementations on one shape, in turn."""
    contestants = [Contestant(job) for job in jobs]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            note(f"{_shape_text(jobs[0].shape)} on {jobs[0].device}: round {number + 1} of {repeats}")
            for contestant in contestants:
                if contestant.problem is None:
                    contestant.run(Path(folder))
    ours = next((c for c in contestants if (c.job.library, c.job.variant) == ("gru-xp", "after")), None)
    return [contestant.row(ours) for contestant in contestants]


def parse_shapes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Shape, ...]:
    """Shapes from texts such as ``"165,10,70,1 704,10,70,1"``."""
    shapes = []
    for text in " ".join(values).split():
        sizes = tuple(int(size) if size.isdigit() else 0 for size in text.split(","))
        if len(sizes) != 4 or min(sizes) < 1:
            raise click.BadParameter(f"{text!r} is not B,T,H,I, four numbers above 0, such as 165,10,70,1")
        shapes.append((sizes[0], sizes[1], sizes[2], sizes[3]))
    return tuple(shapes)


def _devices(device: str) -> list[str]:
    problem = None if device == "cpu" else cuda_problem()
    if device == "auto":
        return ["cpu"] if problem else ["cpu", "cuda"]
    if problem:
        raise click.ClickException(f"device cuda cannot be used: {problem}")
    return [device]


def _variants(device: str, reset: str, torch_is_there: bool) -> list[tuple[str, str]]:
    """Library and variant of each implementation, in the order of their turns."""
    variants = [("gru-xp", form) for form in ("after", "before") if reset in (form, "both")]
    if torch_is_there and reset != "before":
        names = TORCH_CPU_VARIANTS if device == "cpu" else TORCH_CUDA_VARIANTS
        variants[1:1] = [("torch", name) for name in names]
    return variants


@click.command(cls=Command)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes the CPU and, if one works, a CUDA device, too.",
)
@click.option(
    "--shapes",
    multiple=True,
    metavar="B,T,H,I",
    callback=parse_shapes,
    help="Sequences, steps, hidden and input size, several separated by spaces.  [default: those in README.md]",
)
@click.option(
    "--reset",
    type=click.Choice(["before", "after", "both"]),
    default="both",
    show_default=True,
    help="The form of our reset gate; PyTorch has after only, and is left out without it.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads on the CPU, for both libraries.  [default: OMP_NUM_THREADS, or the cores]",
)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds.")
@quick_option("Two rounds of a few steps")
@json_option
def train(
    device: str,
    shapes: tuple[Shape, ...],
    reset: str,
    threads: int | None,
    repeats: int,
    quick: bool,
    json_file: Path | None,
) -> None:
    """Time one training step (forward, loss, backward, update) beside PyTorch's, in float32.

    The libraries take turns, each turn in a fresh process. It is checked that both take the same step.
    """
    threads = threads or resolve_device("cpu").threads
    repeats = min(repeats, 2) if quick else repeats
    times: dict[str, Any] = {"warm_up_steps": 3, "warm_up_seconds": 0.3, "min_steps": 5, "seconds": 1.0}
    if quick:
        times = {"warm_up_steps": 1, "warm_up_seconds": 0.0, "min_steps": 2, "seconds": 0.02}
    torch_is_there = find_spec("torch") is not None

    rows = []
    for name in _devices(device):
        for shape in shapes or (CPU_SHAPES if name == "cpu" else CUDA_SHAPES):
            jobs = [
                Job(library, variant, name, shape, threads, **times)
                for library, variant in _variants(name, reset, torch_is_there)
            ]
            rows += measure(jobs, repeats)

    title = f"One training step in milliseconds, float32, {threads} CPU thread{'s' * (threads != 1)}"
    print_table(
        title,
        (
            "device",
            "B, T, H, I",
            "what",
            "median",
            "min",
            "quartiles",
            "ours / this",
            "in rounds",
            "gradient differs by",
        ),
        list(_cells(rows)),
        left=3,
    )
    if not torch_is_there:
        note("PyTorch is not installed: there are no times of it, and our gradient is not checked against it")
    elif reset == "before":
        note('PyTorch has no reset="before": there are no times of it')
    settings = {
        "device": device,
        "reset": reset,
        "threads": threads,
        "repeats": repeats,
        "quick": quick,
        "dtype": "float32",
        "torch_measured": torch_is_there and reset != "before",
        "gradient_tolerance": GRADIENT_TOLERANCE,
        **times,
    }
    save_json(json_file, "train", settings, rows)
    _check(rows)


def _check(rows: Sequence[dict[str, Any]]) -> None:
    """Raise ClickException where two steps in full float32 are not the same, or nothing could be measured."""
    for row in rows:
        difference = row.get("gradient_difference", 0.0)
        if not row["variant"].startswith("default") and not difference <= GRADIENT_TOLERANCE:
            shape = _shape_text(row["shape"].values())
            raise click.ClickException(
                f"{shape} on {row['device']}: our gradient differs from PyTorch's ({row['variant']}) by "
                f"{difference:.1e}, more than {GRADIENT_TOLERANCE:g}; the times are not of the same step"
            )
    if all(row["problem"] for row in rows):
        raise click.ClickException(f"nothing could be measured: {rows[0]['problem']}")


def _shape_text(sizes: Any) -> str:
    return ", ".join(map(str, sizes))


def _cells(rows: Sequence[dict[str, Any]]) -> Any:
    """The table's rows, a gap between shapes."""
    last = None
    for row in rows:
        group = (row["device"], _shape_text(row["shape"].values()))
        if last not in (None, group):
            yield ()
        label = f'gru-xp, reset="{row["variant"]}"' if row["library"] == "gru-xp" else f"PyTorch, {row['variant']}"
        cells = [*(("", "") if group == last else group), label]
        last = group
        if row["problem"]:
            yield (*cells[:2], f"{label}: {row['problem']}")
            continue
        cells += [_ms(row["median_ms"]), _ms(row["min_ms"]), f"{_ms(row['q1_ms'])} to {_ms(row['q3_ms'])}"]
        if "ratio" in row:
            cells += [
                f"{row['ratio']:.2f}",
                f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f}",
                f"{row['gradient_difference']:.1e}",
            ]
        yield cells


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:.0f}"
