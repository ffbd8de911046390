"""Files of whole forecasters in other programs' formats, by their suffix."""

import os
from typing import TYPE_CHECKING

from gru_xp.errors import CheckpointError
from gru_xp.training.files import check_path

if TYPE_CHECKING:
    from gru_xp.devices import Device
    from gru_xp.forecasting import Forecaster

SUFFIXES = (".onnx", ".pt")
"""Of the files that `export_file` writes and `import_file` reads."""


def export_file(forecaster: "Forecaster", path: str | os.PathLike[str]) -> None:
    """Write a forecaster in the format that the file's suffix names.

    Parameters
    ----------
    forecaster
        One that has learned.
    path
        The file, ``.onnx`` (see `gru_xp.interop.onnx.save_onnx`) or ``.pt`` (see `gru_xp.interop.torch.save_torch`);
        one that exists is replaced.

    Raises
    ------
    CheckpointError
        The suffix is another one, or as from these functions.
    """
    if check_suffix(path) == ".onnx":
        from gru_xp.interop.onnx import save_onnx

        save_onnx(forecaster, path)
    else:
        from gru_xp.interop.torch import save_torch

        save_torch(forecaster, path)


def import_file(path: str | os.PathLike[str], *, device: "str | Device" = "auto") -> "Forecaster":
    """Read what `export_file` wrote, onto any device.

    Raises
    ------
    CheckpointError
        The suffix is another one, or the file is no such model.
    """
    if check_suffix(path) == ".onnx":
        from gru_xp.interop.onnx import load_onnx

        return load_onnx(path, device=device)
    from gru_xp.interop.torch import load_torch

    return load_torch(path, device=device)


def check_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a file, in small letters; raise CheckpointError unless it is one of `SUFFIXES`."""
    suffix = check_path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise CheckpointError(f"{path}: the name must end in {' or '.join(SUFFIXES)}, which determines the format")
    return suffix
