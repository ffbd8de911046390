"""``gru-xp import``."""

from pathlib import Path

import click

from .messages import note
from .options import Command, format_argument, quiet_option


@click.command("import", cls=Command, epilog="Example: gru-xp import goog.onnx --out runs/goog")
@format_argument
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", required=True, help="Folder of the run.")
@click.option("--overwrite", is_flag=True, help="Write into --out even if it exists.")
@quiet_option
def import_(file: Path, out: Path, overwrite: bool, quiet: bool) -> None:
    """Make a run of FILE, which gru-xp export wrote, for forecast and evaluate.

    FILE ends in .onnx or .pt. Nothing in it is executed as code; it is computed once, and must predict what the run's
    model does. The folder gets the model alone.
    """
    from gru_xp.interop.files import import_file
    from gru_xp.reporting.run_folder import MODEL_FILE, run_folder

    forecaster = import_file(file, device="cpu")
    with run_folder(out, overwrite=overwrite) as folder:
        forecaster.save(folder / MODEL_FILE)
    if others := sorted(path.name for path in out.iterdir() if path.name != MODEL_FILE):
        note(f"warning: {out} holds what was there before and says nothing about this model: {', '.join(others)}")
    note(f"written to {out}", quiet=quiet)
