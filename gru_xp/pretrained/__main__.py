"""``python -m gru_xp.pretrained``: make the weights of the zero-shot forecasts again, from synthetic series alone."""

import signal
import sys
import time
from typing import Any

import click

from gru_xp.errors import GruXpError
from gru_xp.pretrained.run import POSITIONS, UPDATES_OF_EPOCH, Plan, train_weights
from gru_xp.training.trainer import EpochRecord


@click.command(context_settings={"show_default": True})
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Folder for checkpoint and weights.")
@click.option("--positions", default=POSITIONS, type=click.IntRange(min=1), help="Patches of series to learn from.")
@click.option("--seed", default=0, type=click.IntRange(min=0), help="Random seed of the series and first parameters.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
def main(out: str, positions: int, seed: int, device: str, threads: int | None) -> None:
    """Train the pretrained network on synthetic series, and write weights.safetensors.

    The same command continues a training that was stopped by Ctrl-C, or otherwise, from the checkpoint in the folder,
    with bit-identical results on the same machine with as many threads.
    """
    from gru_xp.devices import resolve_device

    plan = Plan(positions, seed)
    stopped: list[bool] = []

    def stop(number: int, frame: Any) -> None:
        if stopped:
            sys.exit(128 + number)
        stopped.append(True)
        click.echo("Stopping after this update and saving. Press Ctrl-C again to quit now.", err=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        used = resolve_device(device, threads=threads)
        click.echo(f"updates to make: {plan.updates:,}, on {used.name}", err=True)
        path = train_weights(out, plan, used, report=_Reporter(plan), wants_stop=lambda: bool(stopped))
    except GruXpError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"Stopped. Continue with the same command: the checkpoint is in {out}" if path is None else f"written: {path}"
    )


class _Reporter:
    """A line on stderr after every epoch."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._first: tuple[int, float] | None = None

    def __call__(self, record: EpochRecord) -> None:
        done = min(record.epoch * UPDATES_OF_EPOCH, self._plan.updates)
        now = time.perf_counter()
        first, start = self._first = self._first or (done, now)
        left: Any = ""
        if done > first:
            left = f", {(now - start) / (done - first) * (self._plan.updates - done) / 60:.0f} min left"
        click.echo(
            f"update {done:,} of {self._plan.updates:,}: loss {record.cost:.5f}, on other series "
            f"{record.validation_cost:.5f}{left}",
            err=True,
        )


if __name__ == "__main__":
    main()
