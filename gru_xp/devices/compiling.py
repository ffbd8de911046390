"""The time that compiling takes, and the line that says so to a user who waits for it.

CuPy compiles a kernel at its first launch, or loads it from the cache on disk (``CUPY_CACHE_DIR``) if another process
has compiled the same source before. It does not tell which of the two it did; only the former takes long.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NOTICE = "compiling kernels for this GPU (once)"
NOTICE_SECONDS = 1.0
"""Time after which it is said, so that a process that only loads kernels says nothing."""

_LOGGER = logging.getLogger("gru_xp")


class _Process:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seconds = 0.0
        self.said = False


_PROCESS = _Process()


@contextmanager
def compiling() -> Iterator[None]:
    """Context in which kernels are compiled or loaded; logs `NOTICE` when a process has waited `NOTICE_SECONDS`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        with _PROCESS.lock:
            _PROCESS.seconds += time.perf_counter() - start
            say = _PROCESS.seconds >= NOTICE_SECONDS and not _PROCESS.said
            _PROCESS.said = _PROCESS.said or say
        if say:
            _LOGGER.info(NOTICE)


def compile_seconds() -> float:
    """How long this process has compiled and loaded kernels."""
    return _PROCESS.seconds


class FirstLaunch:
    """A kernel of CuPy that its first launch compiles."""

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self.kernel = kernel
        self._launched = False

    def __call__(self, *arguments: Any, **options: Any) -> None:
        if self._launched:
            self.kernel(*arguments, **options)
            return
        with compiling():
            self.kernel(*arguments, **options)
        self._launched = True
