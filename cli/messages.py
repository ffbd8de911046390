"""What the commands say: results on stdout, everything else on stderr."""

import json
import warnings
from collections.abc import Sequence
from math import floor, log10
from typing import TYPE_CHECKING, Any

import click

from gru_xp.errors import printable

if TYPE_CHECKING:
    from gru_xp.devices import Device
    from gru_xp.forecasting.evaluation import EvaluatedPart

    from .options import DeviceRequest


def note(text: str, *, quiet: bool = False) -> None:
    """One line on stderr."""
    if not quiet:
        click.echo(printable(text, None), err=True)


def choose_device(request: "DeviceRequest", *, quiet: bool) -> "Device":
    """The device that the options ask for; one line says which it is and why."""
    from gru_xp.devices import resolve_device

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it is said below
        device = resolve_device(request.name, fallback=False if request.no_fallback else None, threads=request.threads)
    if device.fallback:
        note(f"warning: device {request.name} cannot be used: {device.reason}; using the CPU")
    else:
        note(f"device: {device.name} ({request.reason or device.reason})", quiet=quiet)
    return device


def print_json(result: Any) -> None:
    """A result for programs."""
    click.echo(json.dumps(result, indent=2))


def number_text(number: float) -> str:
    """Four digits as people read them, such as 29,070 and 0.0517; powers of ten for the very large and small alone."""
    if not 1e-4 <= abs(number) < 999_950_000:
        return f"{number:.4g}"
    number = float(f"{number:.4g}")
    return f"{number:,.{max(3 - floor(log10(abs(number))), 0)}f}"


def print_parts(title: str, parts: "Sequence[EvaluatedPart]") -> None:
    """The closing table: every part's errors, the model's beside those of the naive forecast."""
    rows = []
    for part in parts:
        skill = part.metrics["skill"]
        for forecast in ("model", "naive"):
            errors = part.metrics[forecast]
            rows.append(
                (
                    part.name if forecast == "model" else "",
                    "GRU" if forecast == "model" else "naive",
                    str(part.metrics["windows"]),
                    *(number_text(errors[name]) for name in ("rmse", "mae")),
                    number_text(errors["standardised"]["mse"]),
                    ("n/a" if skill is None else f"{skill:+.1%}") if forecast == "model" else "",
                )
            )
    print_table(title, ("part", "forecast", "windows", "RMSE", "MAE", "MSE/var", "skill"), rows, left=2)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> None:
    """A table on stdout whose first `left` columns are flush left."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False, emoji=False)
    # a pipe has no width; on a narrow terminal a line that goes on below is better than a number in two parts
    needed = table.__rich_measure__(console, console.options.update(width=10_000)).maximum
    console.width = max(console.width, needed) if console.is_terminal else 10_000
    console.print(printable(title, None), style="bold", soft_wrap=True)
    console.print(table)
