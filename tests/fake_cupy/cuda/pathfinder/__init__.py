"""As much of cuda-pathfinder as gru-xp asks for: where cuBLAS is."""

from types import SimpleNamespace

from cupy import _blas


class DynamicLibNotFoundError(RuntimeError):
    """There is no such library."""


def load_nvidia_dynamic_lib(name: str) -> SimpleNamespace:
    """The stand-in for cuBLAS; no other library."""
    if name != "cublas":
        raise DynamicLibNotFoundError(f'Failure finding "lib{name}.so"')
    library, _ = _blas.load()
    return SimpleNamespace(abs_path=library._name, found_via="stand-in")
