"""How training shows on stderr: a bar on a terminal, else a line every so often; and how it is interrupted."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .messages import note, number_text

if TYPE_CHECKING:
    from gru_xp.training.trainer import EpochRecord

SECONDS_BETWEEN_LINES = 10.0


@dataclass
class Interrupt:
    """Whether Ctrl-C was pressed, or the process was asked to end."""

    by: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that the signal ended."""
        return 0 if self.by is None else 128 + self.by


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Inside it, SIGINT and SIGTERM are only noted, so that what is done can be kept; a second one ends at once."""
    interrupt = Interrupt()

    def on_signal(number: int, frame: Any) -> None:
        if interrupt.by is not None:
            sys.exit(128 + number)
        interrupt.by = signal.Signals(number)
        with suppress(RuntimeError):  # it came in the middle of a line
            note("Stopping after this batch and saving. Press Ctrl-C again to quit now.")

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def watch(num_epochs: int, *, quiet: bool) -> "AbstractContextManager[Callable[[EpochRecord], None]]":
    """A callback for the trainer that shows progress."""
    show = _nothing if quiet else _bar if sys.stderr.isatty() else _lines
    return show(num_epochs)


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
        TextColumn("{task.fields[losses]}  left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("epoch", total=num_epochs, losses="")

        def update(record: "EpochRecord") -> None:
            progress.update(task, completed=record.epoch, losses=_losses(record))

        yield update


def _losses(record: "EpochRecord") -> str:
    """The loss of this epoch and the lowest so far, which is of validation where there is one."""
    kind = "training" if record.validation_cost is None else "validation"
    return f"training loss {number_text(record.cost)}, best {kind} loss {number_text(record.best_cost)}"


@contextmanager
def _lines(num_epochs: int) -> "Iterator[Callable[[EpochRecord], None]]":
    last_time = time.monotonic()

    def update(record: "EpochRecord") -> None:
        nonlocal last_time
        if record.epoch > 0 and time.monotonic() - last_time >= SECONDS_BETWEEN_LINES:
            last_time = time.monotonic()
            left = record.seconds / record.epoch * (num_epochs - record.epoch)
            note(f"epoch {record.epoch}/{num_epochs}: {_losses(record)}, about {left:.0f} s left")

    yield update
