"""Which fast paths of a CUDA device are on: those that its self-check passed, see ``self_check.py``.

``GRU_XP_NO_FALLBACK``, or ``--no-fallback``, promises that nothing slower replaces what was asked for. Errors are:

- a CUDA device that was asked for by name, or TF32, cannot be used (`gru_xp.devices.resolve_device`);
- a fast path of the CUDA device in use cannot be used, or not any more: a self-check fails, cuBLAS has no memory, a
  CUDA graph cannot be made, or captured steps are dropped for lack of memory. All of these call `replace`.

``auto`` asks for no CUDA device, so it may still choose the CPU.
"""

import os
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import NamedTuple

from gru_xp.errors import DeviceError, DeviceWarning

NO_FALLBACK_VARIABLE = "GRU_XP_NO_FALLBACK"
"""Environment variable that forbids any fallback, if it is set to something else than ``0``."""

PATHS = {
    "kernels": "fused kernels",
    "norm": "norm kernels",
    "cublas": "cuBLAS",
    "loops": "persistent kernels",
    "graphs": "CUDA graphs",
}
"""Names of the fast paths, in the order in which they are checked."""


class Verdict(NamedTuple):
    """The result of checking a fast path.

    Attributes
    ----------
    problem
        Why it cannot be used, in one line, or None.
    seconds, compile_seconds
        How long it took to check, and how much of that to compile kernels, or to load them.
    is_checked
        False if there was no memory to check it.
    """

    problem: str | None
    seconds: float
    compile_seconds: float
    is_checked: bool = True


class _Thread(threading.local):
    def __init__(self) -> None:
        self.tried: Collection[str] | None = None


_THREAD = _Thread()
_LOCK = threading.RLock()
_OFF: dict[int, set[str]] = {}
"""The paths that are off, for each device that is in use."""
_UNCHECKED: set[int] = set()
"""Devices in use whose self-check lacked memory for cuBLAS."""
_CHECKED: set[tuple[int, str]] = set()
"""Devices, and sources of persistent kernels that work on them."""


def fallback_allowed() -> bool:
    """Whether the environment allows to replace what does not work."""
    return os.environ.get(NO_FALLBACK_VARIABLE, "") in ("", "0")


def is_on(path: str) -> bool:
    """Whether to use a fast path on the current device, which is checked at its first use by a process.

    Raises
    ------
    DeviceError
        The device cannot be used at all, or a path is off and ``GRU_XP_NO_FALLBACK`` is set.
    """
    if _THREAD.tried is not None:
        return path in _THREAD.tried
    import cupy

    device = cupy.cuda.runtime.getDevice()
    off: Collection[str] | None = _OFF.get(device)
    if off is None:
        if cupy.cuda.get_current_stream().is_capturing():
            return True  # by the caller, and nothing can be compared meanwhile
        off = _first_use(device)
    return path not in off


def _first_use(device: int) -> Collection[str]:
    with _LOCK:
        if device not in _OFF:
            verdicts: Mapping[str, Verdict] = import_module("gru_xp.devices.self_check").verdicts_of(device)
            problems = {path: verdict.problem for path, verdict in verdicts.items() if verdict.problem is not None}
            if problems:
                _report(device, problems)
            _OFF[device] = set(problems)
            if not all(verdict.is_checked for verdict in verdicts.values()):
                _UNCHECKED.add(device)
        return _OFF[device]


def is_unchecked(device: int) -> bool:
    """Whether the self-check lacked memory for cuBLAS, so that `check_again` must be called when there is some."""
    return device in _UNCHECKED


def check_again(device: int) -> None:
    """Make the self-check again, now that there is memory; what is off stays off, and what fails now is switched off.

    Raises
    ------
    DeviceError
        The device cannot be used any more, or a path fails and ``GRU_XP_NO_FALLBACK`` is set.
    """
    with _LOCK:
        if device not in _UNCHECKED:
            return
        off = _OFF[device]
        verdicts: Mapping[str, Verdict] = import_module("gru_xp.devices.self_check").checked_again(device, off)
        problems = {path: v.problem for path, v in verdicts.items() if v.problem is not None and path not in off}
        if problems:
            _report(device, problems)
        off.update(problems)
        if all(verdict.is_checked for verdict in verdicts.values()):
            _UNCHECKED.discard(device)


def switch_off(path: str, device: int, problem: str) -> None:
    """Use the plain path in place of a fast one from now on, and warn.

    Raises
    ------
    DeviceError
        ``GRU_XP_NO_FALLBACK`` is set.
    """
    with _LOCK:
        _report(device, {path: problem})
        _OFF.setdefault(device, set()).add(path)


def may_launch(source: str, check: Callable[[], str | None]) -> bool:
    """Whether to run a loop by a persistent kernel: at the first use of a source on a device, `check` decides.

    Parameters
    ----------
    source
        Of the kernel.
    check
        Finds why it cannot be used, in one line, or None.

    Raises
    ------
    DeviceError
        As `switch_off` and `check` do.
    """
    import cupy

    if _THREAD.tried is not None:
        return True
    device = cupy.cuda.runtime.getDevice()
    if (device, source) in _CHECKED:
        return True
    if cupy.cuda.get_current_stream().is_capturing():
        return True
    with _LOCK:
        problem = check()
        if problem is not None:
            switch_off("loops", device, problem)
            return False
        _CHECKED.add((device, source))
    return True


def _report(device: int, problems: Mapping[str, str]) -> None:
    paths_of: dict[str, list[str]] = {}
    for path, problem in problems.items():
        paths_of.setdefault(problem, []).append(PATHS[path])
    what = "; ".join(f"{', '.join(paths)} ({problem})" for problem, paths in paths_of.items())
    replace(f"switched off on cuda:{device}: {what}", "plain operations, which are slower")


def replace(problem: str, substitute: str) -> None:
    """Warn that something slower is used in place of a fast path of a CUDA device.

    Raises
    ------
    DeviceError
        ``GRU_XP_NO_FALLBACK`` is set.
    """
    if not fallback_allowed():
        raise DeviceError(
            f"{problem}; leave out --no-fallback and {NO_FALLBACK_VARIABLE} to use {substitute}, or set GRU_XP_PLAIN=1 "
            "to use no fast paths"
        )
    warn(f"{problem}; using {substitute}")


def warn(text: str) -> None:
    """A `DeviceWarning` at the line outside of the package that has led here."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "gru_xp":
        level, frame = level + 1, frame.f_back
    warnings.warn(text, DeviceWarning, stacklevel=level)


def is_of_cupy(error: Exception) -> bool:
    """Whether an error is one of CuPy, or of CUDA by way of CuPy."""
    return type(error).__module__.partition(".")[0] in ("cupy", "cupyx", "cupy_backends")


def is_trying() -> bool:
    """Whether this thread checks a fast path, so that an error must be raised instead of being worked around."""
    return _THREAD.tried is not None


@contextmanager
def trying(paths: Collection[str]) -> Iterator[None]:
    """Context in which this thread uses these fast paths alone."""
    before, _THREAD.tried = _THREAD.tried, paths
    try:
        yield
    finally:
        _THREAD.tried = before
