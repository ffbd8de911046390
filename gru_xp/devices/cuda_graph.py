"""Everything a function has the GPU do, as one launch: a CUDA graph.

A kernel takes the CPU about as long to launch as the GPU to run; a graph of all of them is launched once. It is made
by capturing: the function runs on a stream of its own, where its kernels are written down instead of being run. What
is written down are addresses and numbers, so

- arrays must stay where they are: the graph keeps the memory that the function asked for;
- Python numbers stay what they were: what changes from one run to the next must stand in arrays;
- nothing may wait for the GPU in between, as ``float(array)`` does.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

from gru_xp.devices.fast_paths import fallback_allowed, is_on, is_trying, replace
from gru_xp.devices.free_parts import FreeParts, Part
from gru_xp.errors import first_line, printable

Result = TypeVar("Result")

_LOGGER = logging.getLogger("gru_xp")


class _Thread(threading.local):
    """What each thread captures with."""

    def __init__(self) -> None:
        self.capturing = False
        self.allocate: Callable[[int], Any] | None = None  # as it is outside of the function
        self.streams: dict[int, Any] = {}


_THREAD = _Thread()


def is_capturing() -> bool:
    """Whether this thread is inside of a function that is being captured."""
    return _THREAD.capturing


ALIGNMENT = 512
"""Bytes of which every array takes a whole number, as in CuPy's pool."""


class GraphMemory:
    """Memory for captured functions, which share it.

    Memory that a function lets go of serves for its later arrays, and for those of other functions: a graph does its
    work in order, so old numbers are read before they are overwritten. Results that somebody holds stay. Memory comes
    in buffers from the allocator that is CuPy's current one: its pool, or a user's.

    Attributes
    ----------
    buffers
        All of it. Graphs hold them, and so does each array.
    has_warned
        Whether a warning has said that a function has no graph.
    """

    def __init__(self) -> None:
        self._stream: Any = None
        self.has_warned = False
        self.forget()

    def forget(self) -> None:
        """Keep nothing for later functions: buffers are free when no graph and no array holds them any more."""
        self.buffers: list[Any] = []
        self._free = FreeParts()
        self._returned: deque[Part] = deque()  # by any thread, at any time

    def use_current_stream(self) -> None:
        """Let what follows on CuPy's current stream use it, after what the last other stream does with it."""
        import cupy

        stream, last = cupy.cuda.get_current_stream(), self._stream
        if last is not None and last != stream:
            stream.wait_event(last.record(_event()))
        self._stream = stream

    def allocator(self) -> Callable[[int], Any]:
        """An allocator for CuPy to use, of memory in these buffers."""
        import cupy

        allocate = cupy.cuda.get_allocator()

        def allocate_part(nbytes: int) -> Any:
            if nbytes == 0:
                return allocate(0)
            size = -(-nbytes // ALIGNMENT) * ALIGNMENT
            while self._returned:
                self._free.add(self._returned.popleft())
            part = self._free.take(size)
            if part is None:
                self.buffers.append(allocate(size))
                part = Part(len(self.buffers) - 1, 0, size)
            buffer = self.buffers[part.buffer]
            loan = _Loan(buffer, part, self._returned)
            memory = cupy.cuda.UnownedMemory(buffer.ptr + part.start, nbytes, loan, buffer.device_id)
            return cupy.cuda.MemoryPointer(memory, 0)

        return allocate_part


class _Loan:
    """A part of a buffer, which is given back when nothing refers to its memory any more."""

    def __init__(self, buffer: Any, part: Part, returned: deque[Part]) -> None:
        self._buffer, self._part, self._returned = buffer, part, returned

    def __del__(self) -> None:
        self._returned.append(self._part)


def capture(
    function: Callable[[], Result],
    memory: GraphMemory | None = None,
    keep: object = None,
    before: Callable[[], object] | None = None,
) -> Callable[[], Result]:
    """Make a CUDA graph of what `function` does.

    `function` is called twice, but its work is done once: the first call does it, compiles kernels and asks for what
    memory it needs; the second one is captured.

    Parameters
    ----------
    function
        Called without arguments, on the current device.
    memory
        Where its arrays come from; memory of its own if left out. Graphs that share it run one after another, and one
        overwrites what another has computed, but for results that somebody holds when it is captured.
    keep
        What else must live as long as the graph.
    before
        Called before each launch of the graph.

    Returns
    -------
    callable
        Does the work again, on whichever stream is the current one, and returns what the second call returned: the
        same arrays every time. It is `function` itself where a graph is not possible, after one DeviceWarning for all
        functions with the same `memory`, and inside of another function that is being captured.

    Raises
    ------
    DeviceError
        A graph is not possible, and ``GRU_XP_NO_FALLBACK`` is set.
    """
    import cupy

    if _THREAD.capturing or not is_on("graphs"):
        function()
        return function
    caller, device = cupy.cuda.get_current_stream(), cupy.cuda.runtime.getDevice()
    stream = _THREAD.streams.get(device)
    if stream is None:
        stream = _THREAD.streams[device] = cupy.cuda.Stream(non_blocking=True)
    memory = GraphMemory() if memory is None else memory
    memory.use_current_stream()
    stream.wait_event(caller.record(_event()))
    _THREAD.capturing, _THREAD.allocate = True, cupy.cuda.get_allocator()
    try:
        with stream, cupy.cuda.using_allocator(memory.allocator()):
            function()  # with memory that is there, free again, for the second call
            try:
                return _Replay(function, stream, memory, keep, before)
            except Exception as error:
                memory.forget()
                del _THREAD.streams[device]  # in case it is still of no use for anything else
                if is_trying():
                    raise
                reason = printable(first_line(error), 200)
                if not (memory.has_warned and fallback_allowed()):
                    memory.has_warned = True
                    replace(f"cuda:{device} cannot capture a CUDA graph ({reason})", "one launch for each kernel")
                return function
    finally:
        _THREAD.capturing = False
        caller.wait_event(stream.record(_event()))


def usual_memory() -> AbstractContextManager[Any]:
    """Context for what is done once while a function is captured: its arrays take no memory of the graph's."""
    if not _THREAD.capturing:
        return nullcontext()
    import cupy

    usual: AbstractContextManager[Any] = cupy.cuda.using_allocator(_THREAD.allocate)
    return usual


class _Replay(Generic[Result]):
    """A captured function."""

    def __init__(
        self,
        function: Callable[[], Result],
        stream: Any,
        memory: GraphMemory,
        keep: object,
        before: Callable[[], object] | None,
    ) -> None:
        self._function, self._memory, self._before = function, memory, before
        stream.begin_capture()
        try:
            self._result = function()
        except BaseException:
            _abandon(stream)
            raise
        self._graph = stream.end_capture()
        self._kept = keep, tuple(memory.buffers)
        self._graph.upload(stream)

    def __call__(self) -> Result:
        if _THREAD.capturing:  # a graph cannot be launched into another one
            return self._function()
        self._memory.use_current_stream()
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
