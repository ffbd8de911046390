"""How training shows on stderr: a bar on a terminal, else a line every so often; and how it is interrupted."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from gru_xp.reporting.text import number_text

from .messages import note

if TYPE_CHECKING:
    from gru_xp.training.trainer import EpochRecord

SECONDS_BETWEEN_LINES = 10.0
WIDTH_FOR_A_BAR = 120
"""Columns of a terminal that has room for a bar beside the numbers."""


@dataclass
class Interrupt:
    """Whether Ctrl-C was pressed, or the process was asked to end."""

    by: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that the signal ended."""
        return 0 if self.by is None else 128 + self.by


@contextmanager
def interruptible(at_quit: Callable[[], object]) -> Iterator[Interrupt]:
    """Inside it, the first SIGINT or SIGTERM is only noted, so that results can be saved; a second one quits at once.

    After it has quit, `at_quit` is called.
    """
    interrupt, has_quit = Interrupt(), False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal has_quit
        with suppress(RuntimeError):  # the signal came in the middle of another message
            if sys.stderr.isatty():
                click.echo(err=True)  # ends the line of the bar, or of an echoed ^C
        if interrupt.by is not None:
            has_quit = True
            sys.exit(128 + number)
        interrupt.by = signal.Signals(number)
        with suppress(RuntimeError):
            note("Stopping after this batch and saving. Press Ctrl-C again to quit now.")

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if has_quit:
            at_quit()


def watch(
    num_epochs: int, *, quiet: bool, epoch: str = "epoch"
) -> "AbstractContextManager[Callable[[EpochRecord], None]]":
    """A callback for the trainer that shows progress; `epoch` is what an epoch is called."""
    show = _nothing if quiet else _bar if sys.stderr.isatty() else _lines
    return show(num_epochs, epoch)


@contextmanager
def _nothing(num_epochs: int, epoch: str) -> "Iterator[Callable[[EpochRecord], None]]":
    yield lambda record: None


@contextmanager
def _bar(num_epochs: int, epoch: str) -> "Iterator[Callable[[EpochRecord], None]]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn(epoch),
        MofNCompleteColumn(),
        *([BarColumn()] if console.width >= WIDTH_FOR_A_BAR else []),
        TextColumn("{task.fields[losses]} left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(epoch, total=num_epochs, losses="")

        def update(record: "EpochRecord") -> None:
            losses = f"loss: training {number_text(record.cost)}, best {_kind(record)} {number_text(record.best_cost)}"
            progress.update(task, completed=record.epoch, losses=losses)

        yield update


def _kind(record: "EpochRecord") -> str:
    """What the best loss is a loss of."""
    return "training" if record.validation_cost is None else "validation"


@contextmanager
def _lines(num_epochs: int, epoch: str) -> "Iterator[Callable[[EpochRecord], None]]":
    last_time = time.monotonic()

    def update(record: "EpochRecord") -> None:
        nonlocal last_time
        if record.epoch > 0 and time.monotonic() - last_time >= SECONDS_BETWEEN_LINES:
            last_time = time.monotonic()
            left = record.seconds / record.epoch * (num_epochs - record.epoch)
            note(
                f"{epoch} {record.epoch}/{num_epochs}: training loss {number_text(record.cost)}, "
                f"best {_kind(record)} loss {number_text(record.best_cost)}, about {left:.0f} s left"
            )

    yield update
