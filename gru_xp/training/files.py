"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gru_xp.errors import CheckpointError


def replace_file(
    path: str | os.PathLike[str], write: Callable[[Path], object], is_whole: Callable[[Path], bool]
) -> None:
    """Write a file beside `path`, read it back, and only then put it in its place.

    Parameters
    ----------
    path
        The file; one that exists is replaced.
    write, is_whole
        Called with the path of the new file. `is_whole` says whether it holds what was to be written.

    Raises
    ------
    CheckpointError
        The file cannot be written, or does not read back.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".part")
    try:
        if path.is_dir():
            raise CheckpointError(f"{path}: cannot be written (is a directory); give the path of a file")
        if not path.parent.is_dir():
            raise CheckpointError(f"{path}: cannot be written (there is no folder {path.parent}); make it first")
        write(partial)
        if not is_whole(partial):
            raise CheckpointError(f"{path}: the file does not read back as it was written; check the disk")
        partial.replace(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            partial.unlink()
