"""Threads for NumPy: how many, side by side on a CPU's cores, with one thread of BLAS for each."""

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ContextDecorator, contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

Result = TypeVar("Result")

MOST_THREADS = 4096
"""More than any machine has cores."""

_split: ContextVar[int | None] = ContextVar("_split", default=None)
"""The number of threads whose work one thread does; None where each does its own."""


def default_threads() -> int:
    """``OMP_NUM_THREADS`` if that is set, else the number of cores that this process may use."""
    if (split := _split.get()) is not None:
        return split
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(wanted), MOST_THREADS) if wanted.isdigit() and int(wanted) > 0 else _cores()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def one_thread(split: int) -> Iterator[None]:
    """Context in which the caller's thread computes alone, with the results, bit for bit, of `split` threads.

    The work is split as for so many, of which `default_threads` is the number, and done part by part.
    """
    token = _split.set(split)
    try:
        with one_blas_thread:
            yield
    finally:
        _split.reset(token)


def run_side_by_side(tasks: Sequence[tuple[Any, Callable[[], Result]]]) -> list[Result]:
    """Results of functions, in order; those of one ops one after the other, those of several side by side."""
    if _split.get() is not None:
        with one_blas_thread:
            return [function() for _, function in tasks]
    by_worker: dict[int, list[int]] = defaultdict(list)
    for i, (ops, _) in enumerate(tasks):
        by_worker[id(ops)].append(i)
    results: list[Any] = [None] * len(tasks)

    def work(indices: list[int]) -> None:
        for i in indices:
            results[i] = tasks[i][1]()

    first, *others = by_worker.values()
    with one_blas_thread:
        pending: list[Future[None]] = [_executor().submit(copy_context().run, work, indices) for indices in others]
        try:
            work(first)
        finally:
            errors = [future.exception() for future in pending]
    for error in errors:
        if error is not None:
            raise error
    return results


@cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(32, os.cpu_count() or 1), thread_name_prefix="gru_xp")


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=_executor.cache_clear)


class _OneBlasThread(ContextDecorator):
    """Holds BLAS to one thread while anybody wants that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._libraries: Any = None
        self._before: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._libraries is None:
                self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
            if self._users == 0:
                self._before = [library.get_num_threads() for library in self._libraries]
                self._set([1] * len(self._before))
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._set(self._before)

    def _set(self, counts: list[int]) -> None:
        for library, count in zip(self._libraries, counts, strict=True):
            if library.get_num_threads() != count:
                release = getattr(library, "clear_controlling_thread", None)  # threadpoolctl may heed one thread only
                if release is not None:
                    release(force=True)
                library.set_num_threads(count)
                if release is not None:
                    release(force=True)


one_blas_thread = _OneBlasThread()
"""A context that holds BLAS to one thread; also a decorator of functions that are to run in it."""
