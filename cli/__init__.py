"""The command line: ``gru-xp``. Each command is a thin file; what it does is in the library."""

import click

from .backtest import backtest
from .devices import devices
from .evaluate import evaluate
from .explain import explain
from .export import export
from .forecast import forecast
from .import_ import import_
from .inspect import inspect
from .options import run
from .train import train


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
    epilog="Example: gru-xp train GOOG.csv",
)
@click.version_option(package_name="gru-xp")
def cli() -> None:
    """Train a GRU on a time series in a CSV file, compare it with simple forecasts, and forecast with it.

    Runs on the CPU with NumPy and on NVIDIA GPUs with CuPy. Options may also be written with underscores.
    """


for command in (inspect, train, evaluate, backtest, forecast, explain, export, import_, devices):
    cli.add_command(command)


def main() -> None:
    """Entry point of the ``gru-xp`` command."""
    run(cli)
