"""The bundled series, as CSV files; README.md beside them gives source and licence."""

from importlib.resources import files
from pathlib import Path

from gru_xp.errors import DataError, printable


def bundled_names() -> list[str]:
    """Names of the bundled files."""
    return sorted(entry.name for entry in files(__name__).iterdir() if entry.name.endswith(".csv"))


def bundled_file(name: str) -> Path:
    """The bundled file of that name, such as ``"GOOG.csv"``."""
    return Path(str(files(__name__) / name))


def find_file(path: str) -> tuple[Path, bool]:
    """The file that `path` means, and whether it is a bundled one.

    A path that exists is itself, ``-`` is stdin, and the bare name of a bundled file, with or without ``.csv``, is
    that file.

    Raises
    ------
    DataError
        There is no such file, or it is a directory.
    """
    file, bundled = Path(path), {name.removesuffix(".csv"): name for name in bundled_names()}
    if path == "-" or (file.exists() and not file.is_dir()):
        return file.absolute() if path != file.name == "-" else file, False
    if path.removesuffix(".csv") in bundled and not file.exists():
        return bundled_file(bundled[path.removesuffix(".csv")]), True
    problem = "the name is empty" if not path else "is a directory" if file.is_dir() else "no such file"
    remedy = f"give the path of a CSV file, or a bundled one: {', '.join(bundled.values())}"
    raise DataError(f"{printable(path) or 'no file'}: {problem}; {remedy}")
