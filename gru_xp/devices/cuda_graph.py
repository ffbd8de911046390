"""Everything a function has the GPU do, as one launch: a CUDA graph.

A kernel takes the CPU about as long to launch as the GPU to run; a graph of all of them is launched once. It is made
by capturing: the function runs on a stream of its own, where its kernels are written down instead of being run. What
is written down are addresses and numbers, so

- arrays must stay where they are: the graph keeps all memory that the function asked for;
- Python numbers stay what they were: what changes from one run to the next must stand in arrays;
- nothing may wait for the GPU in between, as ``float(array)`` does.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from gru_xp.devices.fast_paths import is_on, is_trying

Result = TypeVar("Result")

_LOGGER = logging.getLogger("gru_xp")


class _Thread(threading.local):
    """What each thread captures with."""

    def __init__(self) -> None:
        self.capturing = False
        self.streams: dict[int, Any] = {}


_THREAD = _Thread()


def is_capturing() -> bool:
    """Whether this thread is inside of a function that is being captured."""
    return _THREAD.capturing


def capture(
    function: Callable[[], Result], keep: object = None, before: Callable[[], object] | None = None
) -> Callable[[], Result]:
    """Make a CUDA graph of what `function` does.

    `function` is called twice, but its work is done once: the first call does it, compiles kernels and asks for what
    memory it needs; the second one is captured.

    Parameters
    ----------
    function
        Called without arguments, on the current device.
    keep
        What else must live as long as the graph.
    before
        Called before each launch of the graph.

    Returns
    -------
    callable
        Does the work again, on whichever stream is the current one, and returns what the second call returned: the
        same arrays every time. It is `function` itself where a graph is not possible, which is logged, and inside of
        another function that is being captured.
    """
    import cupy

    if _THREAD.capturing or not is_on("graphs"):
        function()
        return function
    caller, device = cupy.cuda.get_current_stream(), cupy.cuda.runtime.getDevice()
    stream = _THREAD.streams.get(device)
    if stream is None:
        stream = _THREAD.streams[device] = cupy.cuda.Stream(non_blocking=True)
    stream.wait_event(caller.record(_event()))
    _THREAD.capturing = True
    try:
        with stream:
            # Here, too, so that the memory which is free again afterwards is there for the second call.
            function()
            try:
                return _Replay(function, stream, keep, before)
            except Exception as error:
                del _THREAD.streams[device]  # in case it is still of no use for anything else
                if is_trying():
                    raise
                reason = (str(error) or type(error).__name__).splitlines()[0]
                _LOGGER.debug("no CUDA graph, its kernels are launched one by one: %s", reason)
                return function
    finally:
        _THREAD.capturing = False
        caller.wait_event(stream.record(_event()))


class _Replay(Generic[Result]):
    """A captured function.

    Its memory comes from CuPy's usual pool and is not handed out again before the graph is gone, even where the
    function let go of it. (A pool of its own would save what temporaries could share, but take the memory of results
    that somebody still holds with it.)
    """

    def __init__(
        self, function: Callable[[], Result], stream: Any, keep: object, before: Callable[[], object] | None
    ) -> None:
        import cupy

        self._function, self._before = function, before
        self._kept: list[object] = [keep]
        with cupy.cuda.using_allocator(self._allocate):
            stream.begin_capture()
            try:
                self._result = function()
            except BaseException:
                _abandon(stream)
                raise
            self._graph = stream.end_capture()
        self._graph.upload(stream)

    def _allocate(self, nbytes: int) -> Any:
        import cupy

        memory = cupy.get_default_memory_pool().malloc(nbytes)
        self._kept.append(memory)
        return memory

    def __call__(self) -> Result:
        if _THREAD.capturing:  # a graph cannot be launched into another one
            return self._function()
        if self._before is not None:
            self._before()
        # On the current stream: after what was asked for before, and before what will be; and a graph never runs
        # beside itself.
        self._graph.launch()
        return self._result


def _abandon(stream: Any) -> None:
    """End a capture that came to nothing, so that the stream works again."""
    try:
        stream.end_capture()
    except Exception as error:
        _LOGGER.debug("the capture was invalid: %s", error)


def _event() -> Any:
    import cupy

    return cupy.cuda.Event(disable_timing=True)
