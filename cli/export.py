"""``gru-xp export``."""

from pathlib import Path

import click

from .messages import note
from .options import Command, format_argument, quiet_option


@click.command(cls=Command, epilog="Example: gru-xp export runs/goog goog.onnx")
@click.argument("run", metavar="RUN", type=click.Path())
@format_argument
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@quiet_option
def export(run: str, file: Path, overwrite: bool, quiet: bool) -> None:
    """Export the model of RUN to FILE, for other programs.

    RUN is a run folder or a model file. An .onnx FILE predicts in any ONNX runtime, from windows in the units of the
    data. A .pt FILE holds PyTorch tensors and needs a model trained with --reset after.

    The exported model is run first, and its predictions must match. gru-xp import reads both formats.
    """
    from gru_xp.errors import CheckpointError
    from gru_xp.forecasting import Forecaster
    from gru_xp.interop.files import export_file
    from gru_xp.reporting.run_folder import model_file

    model = model_file(run)
    forecaster = Forecaster.load(model, device="cpu")
    if file.exists() and file.samefile(model):
        raise CheckpointError(f"{file}: is the model that is exported, and would be overwritten; use another name")
    if file.exists() and not overwrite:
        raise CheckpointError(f"{file} exists; use --overwrite or another name")
    export_file(forecaster, file)
    note(f"written to {file}", quiet=quiet)
