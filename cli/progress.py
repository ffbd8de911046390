"""How training shows on stderr: a bar on a terminal, else a line every so often; and Ctrl-C."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .messages import note

if TYPE_CHECKING:
    from gru_xp.training.trainer import EpochRecord

SECONDS_BETWEEN_LINES = 10.0


@dataclass
class Interrupt:
    """Whether Ctrl-C was pressed."""

    pressed: bool = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Inside it, Ctrl-C is only noted, so that what is done can be kept; a second one interrupts at once."""
    interrupt = Interrupt()

    def on_interrupt(number: int, frame: Any) -> None:
        interrupt.pressed = True
        signal.signal(signal.SIGINT, previous)
        note("ending after this epoch and keeping the best so far; press Ctrl-C again to end at once and keep nothing")

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def watch(num_epochs: int, interrupt: Interrupt, *, quiet: bool) -> "Iterator[Callable[[EpochRecord], bool]]":
    """A callback for the trainer that shows progress, and asks to stop after Ctrl-C."""
    show = _nothing if quiet else _bar if sys.stderr.isatty() else _lines
    with show(num_epochs) as update:

        def callback(record: "EpochRecord") -> bool:
            update(record)
            return interrupt.pressed

        yield callback


@contextmanager
def _nothing(num_epochs: int) -> "Iterator[Callable[[EpochRecord], None]]":
    yield lambda record: None


@contextmanager
def _bar(num_epochs: int) -> "Iterator[Callable[[EpochRecord], None]]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("cost {task.fields[cost]:.4g}  best {task.fields[best]:.4g}  left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("epoch", total=num_epochs, cost=float("nan"), best=float("nan"))

        def update(record: "EpochRecord") -> None:
            progress.update(task, completed=record.epoch, cost=record.cost, best=record.best_cost)

        yield update


@contextmanager
def _lines(num_epochs: int) -> "Iterator[Callable[[EpochRecord], None]]":
    last_time = time.monotonic()

    def update(record: "EpochRecord") -> None:
        nonlocal last_time
        if time.monotonic() - last_time >= SECONDS_BETWEEN_LINES:
            last_time = time.monotonic()
            left = record.seconds / record.epoch * (num_epochs - record.epoch) if record.epoch else float("nan")
            note(
                f"epoch {record.epoch}/{num_epochs}: cost {record.cost:.4g}, best {record.best_cost:.4g}, "
                f"about {left:.0f} s left"
            )

    yield update
