"""Independent trainings side by side: tasks for any `concurrent.futures.Executor`, with the same bits by each."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any, TypeVar

from gru_xp.devices.threads import default_threads, one_blas_thread, one_thread
from gru_xp.errors import ArgumentError, WorkerError
from gru_xp.nn.checks import shown, whole_number

Task = TypeVar("Task")
Result = TypeVar("Result")

Workers = int | Executor | None
"""Who computes tasks: so many worker processes, or any executor; this process alone if 1 or None."""

MAX_WORKERS = 61 if sys.platform == "win32" else 4096
"""Windows cannot wait for more processes; elsewhere, more than any machine has cores."""

_BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def check_workers(workers: object) -> Workers:
    """The workers, if they are such.

    Raises
    ------
    ArgumentError
        They are something else.
    """
    if workers is None or isinstance(workers, Executor):
        return workers
    if isinstance(workers, bool) or not hasattr(workers, "__index__"):
        raise ArgumentError(
            f"workers is {shown(workers)}; it must be a number of processes or a concurrent.futures.Executor"
        )
    return whole_number("workers", workers, 1, MAX_WORKERS)


def run_tasks(
    function: Callable[[Any, Task], Result], common: Any, tasks: Sequence[Task], workers: Workers = None
) -> Generator[tuple[int, Result], None, None]:
    """Call ``function(common, task)`` for each task, and yield its number and result as soon as it is done.

    The results have the same bits in any process: BLAS has one thread, and the work of a task is split into
    `default_threads` parts, which this process computes in that many threads, and a worker one after the other. Random
    numbers must follow from the task.

    Worker processes are spawned, and end with the tasks, or at once where the caller stops before. They do not import
    the main module, so that a script needs no ``if __name__ == "__main__":``. They leave Ctrl-C to this process, and do
    not outlive it, even if it is killed. Close the generator where it is not used up, as `contextlib.closing` does.

    Parameters
    ----------
    function
        Of a module, as pickle finds it by its name.
    common
        What all tasks need, such as the data. A worker process gets it once; other executors get it with each task.
    tasks
        What differs.
    workers
        See `Workers`. Several of them compute tasks in any order; this process alone computes them in theirs.

    Raises
    ------
    ArgumentError
        The workers are neither.
    WorkerError
        A worker process was killed. What a task raises is raised here, of one of those that fail.

    Warns
    -----
    Warning
        What a task has warned of in another process, when it is done.
    """
    workers, threads = check_workers(workers), default_threads()
    if isinstance(workers, int):
        workers = min(workers, len(tasks))
    if workers is None or workers in (0, 1):
        for number, task in enumerate(tasks):
            with one_blas_thread:
                result = function(common, task)
            yield number, result
    elif isinstance(workers, int):
        with _worker_processes(workers, common) as processes:
            yield from _results(tasks, lambda task: processes.submit(_call_in_worker, function, task, threads))
    else:
        executor, parent = workers, os.getpid()
        yield from _results(tasks, lambda task: executor.submit(_call, function, common, task, parent, threads))


def _results(
    tasks: Sequence[Task], submit: Callable[[Task], Future[tuple[Any, "_Warned"]]]
) -> Iterator[tuple[int, Any]]:
    """Submit all tasks, and yield results as they come; what has not begun when that stops never does."""
    numbers: dict[Future[tuple[Any, _Warned]], int] = {}
    try:
        for number, task in enumerate(tasks):
            numbers[submit(task)] = number
        for future in as_completed(list(numbers)):
            result, warned = future.result()
            for category, message in warned:
                warnings.warn(message, category, stacklevel=3)
            yield numbers.pop(future), result
    except BrokenExecutor as error:
        raise WorkerError(
            "a worker process has ended before its task was done; perhaps the system killed it for lack of memory: use "
            "fewer workers, each of which needs as much as one training"
        ) from error
    finally:
        for future in numbers:
            future.cancel()


# --- worker processes -------------------------------------------------------------------------------------------


@contextmanager
def _worker_processes(workers: int, common: Any) -> Iterator[Executor]:
    """An executor of so many processes; where its block is left by an error, they end at once."""
    context = _Context()
    with ProcessPoolExecutor(workers, context, _begin, (common,)) as executor:
        try:
            yield executor
        except BaseException:
            for process in context.started:
                process.terminate()
            raise


class _Process(SpawnProcess):
    """A process with one thread of BLAS, without the main module, to which Ctrl-C means nothing."""

    def start(self) -> None:
        with _one_thread_of_blas(), _without_main_module(), _without_interrupts():
            super().start()


class _Context(SpawnContext):
    """Makes such processes, and knows them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        self.started.append(_Process(*args, **kwargs))
        return self.started[-1]


@contextmanager
def _one_thread_of_blas() -> Iterator[None]:
    """Context whose new processes load BLAS with one thread."""
    before = {name: os.environ.get(name) for name in _BLAS_VARIABLES}
    os.environ.update(dict.fromkeys(_BLAS_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Context whose new processes find no main module to import, which might start processes itself."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Context whose new processes never see Ctrl-C; where the system cannot do that, `_begin` does it later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in a worker ------------------------------------------------------------------------------------------------

_common: Any = None


def _begin(common: Any) -> None:
    """Begin a worker process."""
    global _common
    _common = common
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call_in_worker(function: Callable[[Any, Any], Any], task: Any, threads: int) -> tuple[Any, "_Warned"]:
    return _call(function, _common, task, None, threads)


_Warned = list[tuple[type[Warning], str]]


def _call(
    function: Callable[[Any, Any], Any], common: Any, task: Any, parent: int | None, threads: int
) -> tuple[Any, _Warned]:
    """The result of a task, and what it has warned of, unless that was in the process that asked for it."""
    with one_thread(threads):
        if os.getpid() == parent:  # in a thread, which shares the filters of warnings with others
            return function(common, task), []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = function(common, task)
        return result, list(dict.fromkeys((warning.category, str(warning.message)) for warning in caught))
