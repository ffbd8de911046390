"""Compare the fast paths of a CUDA device with plain operations, once a process, before the device is used.

A compiler, a driver or a library that does not go with the others shows in a tiny GRU as well as in a large one. Only
persistent kernels differ from one size to the next, so each is compared before it is launched for the first time.
"""

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from gru_xp.devices import cublas
from gru_xp.devices.compiling import compile_seconds
from gru_xp.devices.cupy_ops import CupyOps
from gru_xp.devices.fast_paths import PATHS, Verdict, is_of_cupy, is_on, trying
from gru_xp.devices.primitives import PLAIN_OPS, Ops
from gru_xp.devices.step_plan import built, leaves_of, structure_of
from gru_xp.errors import DeviceError, first_line, printable
from gru_xp.nn.gru import gru_backward, gru_forward
from gru_xp.nn.params import GRUParams, arrays_of, map_arrays
from gru_xp.nn.scan import Array, Arrays, Step

_LOGGER = logging.getLogger("gru_xp")
_LOCK = threading.RLock()
_FOUND: dict[int, dict[str, Verdict] | str] = {}
"""The verdicts on each device that was checked, or the message of an error."""
_ANNOUNCED: set[int] = set()
"""Devices of which it was said that they are checked."""

B, T, I, H = 5, 4, 3, 6  # noqa: E741
LIMITS = {"float32": 1e-4, "float64": 1e-9}
"""By how much results may differ: a part of the largest one of an array, or of 1 where that is smaller."""


def verdicts_of(device: int) -> dict[str, Verdict]:
    """The verdict on each of `PATHS` on a CUDA device; the first call of a process checks them.

    Raises
    ------
    DeviceError
        The device does not compute correctly any more after a path has failed, even without fast paths.
    MemoryError
        There is no memory even for a tiny layer; a later call checks again.
    """
    import cupy

    with _LOCK:
        found = _FOUND.get(device)
        if found is None:
            try:
                with cupy.cuda.Device(device):
                    try:
                        found = _check(device)
                    except DeviceError as error:
                        found = str(error)
            except Exception as error:  # of CUDA, which may refuse even to make another device the current one
                if not is_of_cupy(error) or isinstance(error, MemoryError):
                    raise
                found = found if isinstance(found, str) else _unusable(device, "its self-check", _first_line(error))
            _FOUND[device] = found
    if isinstance(found, str):
        raise DeviceError(found)
    return found


def checked_again(device: int, off: Collection[str]) -> dict[str, Verdict]:
    """`verdicts_of` a device that is the current one, where memory was short, after another check of all but `off`.

    Raises
    ------
    DeviceError
        See `verdicts_of`.
    """
    with _LOCK:
        found = verdicts_of(device)
        if not all(verdict.is_checked for verdict in found.values()):
            try:
                found = {**found, **_check(device, off)}
            except DeviceError as error:
                _FOUND[device] = str(error)
                raise
            _FOUND[device] = found
        return found


def _check(device: int, off: Collection[str] = ()) -> dict[str, Verdict]:
    """Try one path more at a time, so that a failure is that path's; what failed, or is in `off`, is left off."""
    if device not in _ANNOUNCED:  # where memory is short, a check is made again later
        _ANNOUNCED.add(device)
        _LOGGER.info("checking the fast paths of cuda:%d", device)
    verdicts, works = {}, set[str]()
    has_cublas = True
    for path in PATHS:
        if path in off:
            continue
        start, compiled = time.perf_counter(), compile_seconds()
        if path == "graphs" and "cublas" not in works:
            problem = "needs cuBLAS"
        elif path == "graphs" and not has_cublas:
            problem = None  # to be used once there is memory
        else:
            problem = _problem({*works, path})
        if path == "cublas":
            has_cublas = not cublas.lacks_memory()
        is_checked = has_cublas or path not in ("cublas", "graphs")
        verdicts[path] = Verdict(problem, time.perf_counter() - start, compile_seconds() - compiled, is_checked)
        if problem is None:
            works.add(path)
        else:
            _check_without(device, path, problem)
    return verdicts


def _problem(paths: Collection[str]) -> str | None:
    """What goes wrong with these fast paths alone; None if nothing does."""
    import cupy

    try:
        with trying(paths):
            for arguments, expected in _cases():
                ops = CupyOps()
                run = partial(_results, ops, *map_arrays(cupy.asarray, arguments))
                results = ops.capture(run)() if "graphs" in paths else run()
                cupy.cuda.get_current_stream().synchronize()  # so that an error meets what caused it
                problem = _difference([a.get() for a in results], expected)
                if problem is not None:
                    return problem
    except Exception as error:  # of CuPy, a compiler, a driver, a library
        if isinstance(error, MemoryError) and not paths:  # which says nothing of the device
            raise
        return _first_line(error)
    return None


def _check_without(device: int, path: str, problem: str) -> None:
    """Raise a DeviceError if the device computes nothing right any more after a path has failed."""
    without = _problem(set())
    if without is not None:
        reasons = problem if without == problem else f"{problem}; without it, {without}"
        raise DeviceError(_unusable(device, f"a self-check of {PATHS[path]}", reasons))


ADVICE = "; set GRU_XP_PLAIN=1 to run without fast paths, or use the CPU"
"""What the message about a device that cannot be used ends with."""


def _unusable(device: int, what: str, reasons: str) -> str:
    return f"cuda:{device} does not work any more after {what} ({reasons}){ADVICE}"


def _difference(results: Sequence[Any], expected: Sequence[Any]) -> str | None:
    """By how much arrays differ, if that is too much."""
    for a, e in zip(results, expected, strict=False):  # results may lack the norm
        difference = np.abs(a - e).max(initial=0) / max(1.0, np.abs(e).max(initial=0))
        if not difference <= LIMITS[e.dtype.name]:  # nor NaN
            return f"{e.dtype} results differ by {difference:.1g}"
    return None


def _first_line(error: Exception) -> str:
    """The reason that an error gives, without the advice that ours end with."""
    line = first_line(error)
    return printable(line.partition("; ")[0] if isinstance(error, DeviceError) else line, 200)


# --- a tiny layer -----------------------------------------------------------------------------------------------


def _results(ops: Ops, x: Array, h0: Array, params: GRUParams, dh: Array, dh_last: Array, many: Array) -> list[Array]:
    """Of a layer, forward and backward, and norms of few and of many numbers, if such are to be checked."""
    h, h_last, cache = gru_forward(x, h0, params, ops=ops)
    assert cache is not None
    dx, dh0, dparams = gru_backward(dh, cache, dh_last=dh_last)
    results = [h, h_last, dx, dh0, *arrays_of(dparams)]
    if ops is PLAIN_OPS or is_on("norm") or is_on("graphs"):
        for a in (dparams.weight_hh, many):  # by one block of threads, and by several
            ops.norm(a, out=(norm := ops.empty((1,), like=dx)))
            results.append(norm)
    return results


@cache
def _cases() -> list[tuple[tuple[Any, ...], list[Array]]]:
    """Arguments of `_results` for both forms in float32 and one in float64, and the results, by NumPy.

    Another case would mean to compile more kernels, of the same code for another type.
    """
    rng = np.random.default_rng(0)
    shapes = (B, T, I), (B, H), (3 * H, I), (3 * H, H), (3 * H,), (H,), (B, T, H), (B, H), (5000,)
    cases = []
    for dtype in LIMITS:
        x, h0, *weights, dh, dh_last, many = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
        for params in (GRUParams(*weights), GRUParams(*weights[:3]))[: 2 if dtype == "float32" else 1]:
            arguments = (x, h0, params, dh, dh_last, many)
            cases.append((arguments, _results(PLAIN_OPS, *arguments)))
    return cases


# --- persistent kernels -----------------------------------------------------------------------------------------


def problem_of_loop(
    step: Step, weights: Any, carry: Array | None, xs: Arrays, options: Mapping[str, Any]
) -> str | None:
    """What is wrong with the persistent kernel of a scan, on random numbers and a few steps; None if nothing is.

    Parameters
    ----------
    step, weights, carry, xs, options
        The arguments of `gru_xp.nn.scan.Scan.scan`, of which no number of an array is read.

    Raises
    ------
    DeviceError
        The device does not compute correctly any more afterwards.
    """
    import cupy

    others = {path for path in PATHS if path != "loops" and is_on(path)}
    like = next(x for x in (carry, *xs) if x is not None)
    sizes = next(x.shape for x in xs if x is not None)
    n = CupyOps().parts(sizes[1], sizes[0], sizes[2], like.shape[-1])[0][0].stop  # sequences computed together
    numbers = np.random.default_rng(0).standard_normal(65521)  # a prime number, so that no two rows are the same

    def draw(shape: tuple[int, ...], scale: float = 0.5) -> Array:
        return cupy.asarray(scale * np.resize(numbers, shape), like.dtype)

    def run(paths: Collection[str]) -> list[Any]:
        with trying(paths):
            results = CupyOps().scan(
                step,
                built(structure_of(weights), lambda shape: draw(shape, shape[-1] ** -0.5)),
                None if carry is None else draw((n, carry.shape[-1])),
                tuple([None if x is None else draw((min(T, sizes[0]), n, x.shape[2])) for x in xs]),
                rows=tuple([None if a is None else draw((n, a.shape[-1])) for a in options.get("rows", ())]),
                reverse=options.get("reverse", False),
            )
            return [a.get() for a in leaves_of(results)]

    expected = run(others)
    try:
        problem = _difference(run({*others, "loops"}), expected)
    except Exception as error:  # of CuPy, a compiler, a driver, a library
        problem = _first_line(error)
    if problem is not None:
        _check_without(cupy.cuda.runtime.getDevice(), "loops", problem)
    return problem
