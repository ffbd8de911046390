"""Devices, streams, graphs and memory."""

import bisect
import ctypes
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

N_DEVICES = int(os.environ.get("FAKE_CUPY_DEVICES", "2"))
_MEMORY = [int(float(size)) for size in os.environ.get("FAKE_CUPY_MEMORY", str(8 * 2**30)).split(",")]
TOTAL = [_MEMORY[min(number, len(_MEMORY) - 1)] for number in range(N_DEVICES)]
PEER_ACCESS = os.environ.get("FAKE_CUPY_PEER", "0") != "0"
ATTRIBUTES = {
    "MultiProcessorCount": int(os.environ.get("FAKE_CUPY_SMS", "132")),
    "MaxSharedMemoryPerBlockOptin": int(os.environ.get("FAKE_CUPY_SHARED", 227 * 1024)),
}
CAPABILITY = os.environ.get("FAKE_CUPY_CAPABILITY", "90")
POISON = 0xFF  # four or eight such bytes are not a number
ALIGNMENT = 512

STATS: dict[str, int] = {}
"""How often each thing was done: launches, products, copies, allocations, kernels compiled."""


def count(what: str) -> None:
    """Add one to `STATS`."""
    STATS[what] = STATS.get(what, 0) + 1


def should_fail(what: str) -> bool:
    """Whether the environment variable FAKE_CUPY_FAIL names it."""
    return what in os.environ.get("FAKE_CUPY_FAIL", "").split(",")


DEAD: set[int] = set()
"""Devices that refuse everything, as a kernel has used an address that is none of theirs."""


def check_alive() -> None:
    """Fail as every call does after such a kernel."""
    if THREAD.device in DEAD:
        raise CUDARuntimeError(700, "cudaErrorIllegalAddress: an illegal memory access was encountered")


class CUDARuntimeError(RuntimeError):
    """An error of the CUDA runtime."""

    __module__ = "cupy_backends.cuda.api.runtime"

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


class CUDADriverError(RuntimeError):
    """An error of the CUDA driver."""

    __module__ = "cupy_backends.cuda.api.driver"


class OutOfMemoryError(MemoryError):
    """The pool cannot allocate."""

    __module__ = "cupy.cuda.memory"

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        text = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(text + (f", limit set to: {limit:,} bytes)." if limit else ")."))


# --- devices ----------------------------------------------------------------------------------------------------


class _Thread(threading.local):
    """What belongs to a thread: its current device, streams by device, and allocators."""

    def __init__(self) -> None:
        self.device = 0
        self.devices: list[int] = []
        self.streams = [[Stream.null] for _ in range(N_DEVICES)]
        self.allocators: list[Callable[[int], MemoryPointer]] = []


class Device:
    """A CUDA device; the current one if no number is given."""

    def __init__(self, device: Any = None) -> None:
        self.id = THREAD.device if device is None else int(device)

    def __int__(self) -> int:
        return self.id

    def __enter__(self) -> "Device":
        THREAD.devices.append(THREAD.device)
        return self.use()

    def __exit__(self, *_: object) -> None:
        THREAD.device = THREAD.devices.pop()

    def use(self) -> "Device":
        """Make it the current one."""
        if not 0 <= self.id < N_DEVICES:
            raise CUDARuntimeError(101, "cudaErrorInvalidDevice: invalid device ordinal")
        THREAD.device = self.id
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def synchronize(self) -> None:
        """Wait, which is not allowed while the stream is capturing."""
        refuse_while_capturing("synchronize")

    attributes = ATTRIBUTES
    compute_capability = CAPABILITY

    @property
    def mem_info(self) -> tuple[int, int]:
        """Free bytes and all bytes."""
        return TOTAL[self.id] - sum(pool.held[self.id] for pool in POOLS), TOTAL[self.id]


# --- streams and graphs -----------------------------------------------------------------------------------------

Work = Callable[[], object]
"""Work on the device. It holds addresses, no arrays: only so is memory that nobody keeps noticed."""


class Event:
    """A point in a stream."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.ptr, self.device_id = id(self), THREAD.device

    def record(self, stream: "Stream | None" = None) -> None:
        """Put it into a stream."""
        (stream or get_current_stream()).check()

    def synchronize(self) -> None:
        """Wait, which is not allowed while the stream is capturing."""
        refuse_while_capturing("synchronize an event")

    done = True


class Stream:
    """A queue of work, which is done at once, or recorded while the stream is capturing."""

    null: ClassVar["Stream"]
    ptds: ClassVar["Stream"]
    _last = 1 << 20

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        Stream._last += 64
        self.ptr = 0 if null else 2 if ptds else Stream._last
        self.device_id = -1 if null or ptds else THREAD.device
        self.recorded: list[Work] | None = None
        self.invalid = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def check(self) -> None:
        """Fail where an earlier call made the capture invalid."""
        if self.invalid:
            raise CUDARuntimeError(901, "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error")

    def _streams(self) -> "list[Stream]":
        if self.device_id not in (-1, THREAD.device):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with the current device "
                f"({THREAD.device})"
            )
        return THREAD.streams[THREAD.device]

    def __enter__(self) -> "Stream":
        self._streams().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        THREAD.streams[THREAD.device if self.device_id == -1 else self.device_id].pop()

    def use(self) -> "Stream":
        """Make it the current one of its device."""
        self._streams()[-1] = self
        return self

    def synchronize(self) -> None:
        """Wait, which makes a capture invalid."""
        check_alive()
        if self.recorded is not None:
            self.invalid = True
            raise CUDARuntimeError(900, "cudaErrorStreamCaptureUnsupported: operation not permitted when capturing")

    def record(self, event: Event | None = None) -> Event:
        """Put an event into it."""
        self.check()
        event = event or Event()
        if self.device_id not in (-1, event.device_id):
            raise CUDARuntimeError(400, "cudaErrorInvalidResourceHandle: an event of another device")
        return event

    def wait_event(self, event: Event) -> None:
        """Let later work wait."""
        self.check()

    done = True

    def begin_capture(self, mode: object = None) -> None:
        """Record work from now on."""
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.recorded is not None or should_fail("begin_capture"):
            raise CUDARuntimeError(1, "cudaErrorInvalidValue: invalid argument")
        self.recorded = []
        CAPTURING[self.ptr] = self

    def end_capture(self) -> "Graph":
        """The recorded work."""
        recorded, self.recorded = self.recorded, None
        CAPTURING.pop(self.ptr, None)
        if recorded is None:
            raise CUDARuntimeError(1, "cudaErrorIllegalState: the operation cannot be performed")
        try:
            self.check()
        finally:
            self.invalid = False
        return Graph(recorded, self.device_id)

    def is_capturing(self) -> bool:
        """Whether work is recorded."""
        return self.recorded is not None


class Graph:
    """Recorded work, which finds its arrays by address."""

    def __init__(self, work: list[Work], device: int) -> None:
        self.work, self.device_id = work, device
        count("graphs")

    def upload(self, stream: Stream | None = None) -> None:
        """Do nothing."""

    def launch(self, stream: Stream | None = None) -> None:
        """Do the work."""
        if (stream or get_current_stream()).recorded is not None:
            raise CUDARuntimeError(900, "cudaErrorStreamCaptureUnsupported: a graph in a graph")
        if THREAD.device != self.device_id:
            raise CUDARuntimeError(400, "cudaErrorInvalidResourceHandle: a graph of another device")
        count("launches of graphs")
        check_alive()
        for work in self.work[: len(self.work) - should_fail("wrong Graph")]:
            work()


CAPTURING: dict[int, Stream] = {}
"""Streams that are capturing, by their pointers."""


def get_current_stream(device_id: int = -1) -> Stream:
    """The current stream of a device."""
    return THREAD.streams[THREAD.device if device_id == -1 else device_id][-1]


def refuse_while_capturing(what: str) -> None:
    """Fail as CuPy does where it would wait for the device while the current stream is capturing."""
    count("synchronisations")
    check_alive()
    if get_current_stream().recorded is not None:
        raise RuntimeError(f"the current stream is capturing, so synchronous API calls are disallowed ({what})")


def check_addresses(addresses: Iterable[int]) -> None:
    """Fail where a kernel would find the memory of a device that the current one has no access to."""
    for address in addresses:
        if any(pool.device_at(address) not in (None, THREAD.device) for pool in POOLS) and not PEER_ACCESS:
            raise CUDARuntimeError(700, "cudaErrorIllegalAddress: an illegal memory access was encountered")


def launch(work: Work, kind: str = "", spoil: Work | None = None) -> None:
    """Do work now, or record it. Of a kind of kernel that is to compute wrong numbers, `spoil` does so afterwards."""
    count("launches")
    check_alive()
    if should_fail("launch") or should_fail(f"launch {kind}"):
        raise CUDADriverError("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: too many resources requested for launch")
    if should_fail(f"illegal {kind}"):
        work = partial(DEAD.add, THREAD.device)
    elif spoil is not None and should_fail(f"wrong {kind}"):
        work = partial(_do_both, work, spoil)
    stream = get_current_stream()
    stream.check()
    if stream.recorded is None:
        work()
    else:
        stream.recorded.append(work)


def _do_both(first: Work, second: Work) -> None:
    first()
    second()


# --- memory -----------------------------------------------------------------------------------------------------


class _Chunk:
    """Aligned memory of the host."""

    def __init__(self, size: int) -> None:
        self._raw = np.full(size + ALIGNMENT, POISON, np.uint8)
        self.ptr = -(-self._raw.ctypes.data // ALIGNMENT) * ALIGNMENT
        self.size = size

    def poison(self) -> None:
        ctypes.memset(self.ptr, POISON, self.size)


class PooledMemory:
    """A chunk, which goes back to the pool when nobody refers to this any more."""

    def __init__(self, pool: "MemoryPool", chunk: _Chunk, arena: tuple[int, int]) -> None:
        self.ptr, self.size, self.device_id = chunk.ptr, chunk.size, arena[0]
        weakref.finalize(self, pool.take_back, chunk, arena).atexit = False


class UnownedMemory:
    """Memory at an address, for as long as its owner is there. It is poisoned, in a graph at each launch."""

    def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1) -> None:
        if device_id < 0:
            raise NotImplementedError("the stand-in for CuPy cannot find the device of memory; pass device_id")
        self.ptr, self.size, self.device_id, self._owner = ptr, size, device_id, owner
        stream = get_current_stream()
        if stream.recorded is None:
            ctypes.memset(ptr, POISON, size)
        else:
            stream.recorded.append(lambda: ctypes.memset(ptr, POISON, size))


class MemoryPointer:
    """An address in memory."""

    def __init__(self, mem: "PooledMemory | UnownedMemory", offset: int) -> None:
        self.mem, self.ptr, self.device_id = mem, mem.ptr + offset, mem.device_id

    @property
    def device(self) -> Device:
        """Where it is."""
        return Device(self.device_id)


class MemoryPool:
    """Chunks by device, stream and size; free ones are poisoned."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._free: dict[tuple[int, int], dict[int, list[_Chunk]]] = {}
        POOLS.add(self)
        self._places: list[tuple[int, int, int]] = []  # begin, end and device of all chunks, by address
        self.used, self.held, self.limit, self.peak = ([0] * N_DEVICES for _ in range(4))
        self.fail_after: int | None = None

    def malloc(self, size: int) -> MemoryPointer:
        """Memory of the current device and stream."""
        if size == 0:
            return MemoryPointer(SimpleNamespace(ptr=0, size=0, device_id=THREAD.device), 0)
        size = -(-int(size) // ALIGNMENT) * ALIGNMENT
        device, arena = THREAD.device, (THREAD.device, get_current_stream().ptr)
        with self._lock:
            self._count_down(size)
            chunks = self._free.setdefault(arena, {}).setdefault(size, [])
            chunk = chunks.pop() if chunks else self._new_chunk(device, size)
            self.used[device] += size
            self.peak[device] = max(self.peak[device], self.used[device])
        count("allocations")
        return MemoryPointer(PooledMemory(self, chunk, arena), 0)

    def _count_down(self, size: int) -> None:
        """Fail once, after `fail_after` further allocations."""
        if self.fail_after == 0:
            self.fail_after = None
            raise OutOfMemoryError(size, self.held[THREAD.device])
        if self.fail_after is not None:
            self.fail_after -= 1

    def _new_chunk(self, device: int, size: int) -> _Chunk:
        limit = self.limit[device] or TOTAL[device] - sum(pool.held[device] for pool in POOLS - {self})
        for collect in (lambda: None, self.free_all_blocks, gc.collect, self.free_all_blocks):
            collect()
            if self.held[device] + size <= limit:
                self.held[device] += size
                chunk = _Chunk(size)
                bisect.insort(self._places, (chunk.ptr, chunk.ptr + size, device))
                return chunk
        raise OutOfMemoryError(size, self.held[device], self.limit[device])

    def take_back(self, chunk: _Chunk, arena: tuple[int, int]) -> None:
        """Poison a chunk and keep it."""
        with self._lock:
            chunk.poison()
            self._free.setdefault(arena, {}).setdefault(chunk.size, []).append(chunk)
            self.used[arena[0]] -= chunk.size

    def free_all_blocks(self, stream: Stream | None = None) -> None:
        """Give free memory back to the host."""
        with self._lock:
            for (device, _), sizes in self._free.items():
                self.held[device] -= sum(size * len(chunks) for size, chunks in sizes.items())
                freed = {chunk.ptr for chunks in sizes.values() for chunk in chunks}
                self._places = [place for place in self._places if place[0] not in freed]
            self._free = {}

    def device_at(self, address: int) -> int | None:
        """The device that has memory at an address."""
        with self._lock:
            number = bisect.bisect_right(self._places, (address + 1,)) - 1
            begin, end, device = self._places[number] if number >= 0 else (0, 0, -1)
            return device if begin <= address < end else None

    def used_bytes(self) -> int:
        """Of the current device."""
        return self.used[THREAD.device]

    def total_bytes(self) -> int:
        """Of the current device, free ones included."""
        return self.held[THREAD.device]

    def free_bytes(self) -> int:
        """Of the current device, to be used again."""
        return self.held[THREAD.device] - self.used[THREAD.device]

    def set_limit(self, size: int | None = None, fraction: float = 0.0) -> None:
        """Of the current device; 0 for none."""
        self.limit[THREAD.device] = int(fraction * TOTAL[THREAD.device] if size is None else size)

    def get_limit(self) -> int:
        """Of the current device; 0 for none."""
        return self.limit[THREAD.device]


def alloc(size: int) -> MemoryPointer:
    """Memory from the current allocator."""
    return get_allocator()(size)


def get_allocator() -> Callable[[int], MemoryPointer]:
    """The current allocator of this thread."""
    return THREAD.allocators[-1] if THREAD.allocators else ALLOCATORS[-1]


def set_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> None:
    """Change it for all threads; None for memory without a pool."""
    if THREAD.allocators:
        raise ValueError("Can't change the global allocator inside `using_allocator` context manager")
    ALLOCATORS[:] = [MemoryPool().malloc if allocator is None else allocator]


class using_allocator:  # noqa: N801
    """Context with another allocator."""

    def __init__(self, allocator: Callable[[int], MemoryPointer] | None = None) -> None:
        self._allocator = allocator

    def __enter__(self) -> None:
        THREAD.allocators.append(self._allocator or POOL.malloc)

    def __exit__(self, *_: object) -> None:
        THREAD.allocators.pop()


Stream.null = Stream(null=True)
Stream.ptds = Stream(ptds=True)
THREAD = _Thread()
POOLS: set[MemoryPool] = set()
POOL = MemoryPool()
ALLOCATORS: list[Callable[[int], MemoryPointer]] = [POOL.malloc]
"""The current allocator, of all threads that have none of their own."""
