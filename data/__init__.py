"""The bundled series, as CSV files; README.md beside them gives source and licence."""

from importlib.resources import files
from pathlib import Path


def bundled_names() -> list[str]:
    """Names of the bundled files."""
    return sorted(entry.name for entry in files(__name__).iterdir() if entry.name.endswith(".csv"))


def bundled_file(name: str) -> Path:
    """The bundled file of that name, such as ``"GOOG.csv"``."""
    return Path(str(files(__name__) / name))
