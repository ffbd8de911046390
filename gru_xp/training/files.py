"""Files that are written whole or not at all."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from gru_xp.errors import ArgumentError, CheckpointError, printable
from gru_xp.nn.checks import shown

PARTIAL = ".gru-xp-{}.part"
"""What a file is called while it is written; only a process that is killed leaves one."""


def check_path(path: str | os.PathLike[str]) -> Path:
    """`path` as a Path; raise ArgumentError unless it is a string or an os.PathLike."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):
        raise ArgumentError(f"path is {shown(path)}; it must be a string or an os.PathLike, such as a pathlib.Path")
    return Path(text)


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file beside `path`, see that it is on the disk and reads back, and only then put it in its place.

    Parameters
    ----------
    path
        The file; one that exists is replaced.
    content
        What it is to hold.

    Raises
    ------
    ArgumentError
        The path is neither a string nor an os.PathLike.
    CheckpointError
        The file cannot be written, or does not read back. What was there before is as it was.
    """
    path = check_path(path)
    partial = path.parent / PARTIAL.format(secrets.token_hex(8))
    try:
        _check_target(path)
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if partial.read_bytes() != content:
            raise CheckpointError(f"{path}: the file does not read back as it was written; check the disk")
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror or error})") from error
    except CheckpointError:
        raise
    except ValueError as error:  # a path that no file can have
        raise CheckpointError(f"{printable(str(path))}: cannot be written ({error})") from error
    finally:
        with suppress(OSError, ValueError):
            partial.unlink()


def _check_target(path: Path) -> None:
    if not path.parent.is_dir():
        raise CheckpointError(f"{path}: cannot be written (there is no folder {path.parent}); make it first")
    if path.exists() and not path.is_file():
        what = "a directory" if path.is_dir() else "no regular file"
        raise CheckpointError(f"{path}: cannot be written (is {what}); give the path of a file")


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk, too, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):  # some file systems cannot; the file is whole either way
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
