"""The time that compiling takes, and the line that says so to a user who waits for it.

CuPy compiles a kernel at its first launch, or loads it from the cache on disk (``CUPY_CACHE_DIR``) if another process
has compiled the same source before. It does not tell which of the two it did; only the former takes long.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

NOTICE = "compiling kernels for this GPU (once)"
NOTICE_SECONDS = 1.0
"""Time after which it is said, so that a process that only loads kernels says nothing."""

MAX_LAYOUTS = 1024
"""Shapes and strides of arguments to remember of a kernel."""

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


class Launches:
    """The launches of an elementwise kernel of CuPy, timed where they may compile it.

    CuPy compiles it for each device, and for each number of axes that are left when those are joined that lie one after
    the other, with which arrays are packed. As it does not tell, the first launch for each device, and for all shapes
    and strides, is timed; where it compiles nothing, that adds a few microseconds.
    """

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self.kernel = kernel
        self._known: set[Any] = set()

    def __call__(self, device: int, arrays: Sequence[Any], arguments: Sequence[Any]) -> None:
        """Launch it with `arguments`, which are views of `arrays` and numbers."""
        layout = device, *[(a.shape, a.strides) for a in arrays]
        if layout in self._known:
            self.kernel(*arguments)
            return
        with compiling():
            self.kernel(*arguments)
        if len(self._known) >= MAX_LAYOUTS:
            self._known.clear()
        self._known.add(layout)
