"""``gru-xp import``."""

from pathlib import Path

import click

from .messages import note
from .options import Command, format_argument, quiet_option


@click.command("import", cls=Command, epilog="Example: gru-xp import goog.onnx --out runs/goog")
@format_argument
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", required=True, help="Run folder.")
@click.option("--overwrite", is_flag=True, help="Replace the files of an existing run folder.")
@quiet_option
def import_(file: Path, out: Path, overwrite: bool, quiet: bool) -> None:
    """Import FILE, written by gru-xp export, as a run folder.

    FILE is an .onnx or .pt file. None of it is executed as code; the imported model is run once, and its predictions
    must match. The run folder holds only the model, for forecast and evaluate.
    """
    from gru_xp.interop.files import import_file
    from gru_xp.reporting.run_folder import MODEL_FILE, run_folder

    forecaster = import_file(file, device="cpu")
    with run_folder(out, overwrite=overwrite) as folder:
        forecaster.save(folder / MODEL_FILE)
    if others := sorted(path.name for path in out.iterdir() if path.name != MODEL_FILE):
        note(f"warning: {out} still contains earlier files, which do not belong to this model: {', '.join(others)}")
    note(f"written to {out}", quiet=quiet)
