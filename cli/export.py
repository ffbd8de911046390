"""``gru-xp export``."""

from pathlib import Path

import click

from .messages import note
from .options import Command, format_argument, quiet_option


@click.command(cls=Command, epilog="Example: gru-xp export runs/goog goog.onnx")
@click.argument("run", metavar="RUN", type=click.Path())
@format_argument
@click.option("--overwrite", is_flag=True, help="Write FILE even if it exists.")
@quiet_option
def export(run: str, file: Path, overwrite: bool, quiet: bool) -> None:
    """Write the model of RUN to FILE for other programs.

    RUN is a run's folder or a model file. A FILE that ends in .onnx predicts in any ONNX runtime, from windows in the
    data's units. One that ends in .pt holds PyTorch's tensors and takes a model trained with --reset after.

    What is written is run first, and must predict what the model does. gru-xp import reads both.
    """
    from gru_xp.errors import CheckpointError
    from gru_xp.forecasting import Forecaster
    from gru_xp.interop.files import export_file
    from gru_xp.reporting.run_folder import model_file

    forecaster = Forecaster.load(model_file(run), device="cpu")
    if file.exists() and not overwrite:
        raise CheckpointError(f"{file} exists; use --overwrite or another name")
    export_file(forecaster, file)
    note(f"written to {file}", quiet=quiet)
