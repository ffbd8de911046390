"""The other libraries: imported when they are asked for, and heard when they refuse."""

from importlib import import_module
from typing import Any

from gru_xp.errors import GruXpError, printable

EXTRAS = {
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "torch": "parity",
    "keras": "parity",
    "statsforecast": "statsforecast",
}
"""Which of gru-xp's extras brings a library."""


def import_peer(module: str, what: str = "the conversion") -> Any:
    """A module of one of the libraries of `EXTRAS`, which `what` needs.

    Raises
    ------
    GruXpError
        The library is not installed, or does not start.
    """
    package = module.partition(".")[0]
    try:
        import_module(package)
        return import_module(module)
    except Exception as error:  # a broken install fails in many ways
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise GruXpError(
                f"{what} needs {package}, which is not installed; pip install 'gru-xp[{EXTRAS[package]}]'"
            ) from error
        if package == "keras":
            raise GruXpError(
                f"keras does not start with its backend ({reason(error)}); set the environment variable KERAS_BACKEND "
                "to one that is installed, such as KERAS_BACKEND=torch"
            ) from error
        raise GruXpError(f"{package} is installed but cannot be imported ({reason(error)}); repair it") from error


def reason(error: Exception) -> str:
    """What another library says, for a message of one line."""
    return printable(" ".join(str(error).split()) or type(error).__name__, 300)
