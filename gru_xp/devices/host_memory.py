"""How much memory of the host this process can still get."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")

ADDRESSES = 2**26
"""What computing takes of a limited address space beside its arrays: buffers of BLAS, libraries, fragmentation."""

THREAD_ADDRESSES = 7 * 2**24
"""What each further thread does: its stack, its heap, and its buffer of BLAS."""

_FILES = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}
_FILE_CACHE = {1: "total_inactive_file", 2: "inactive_file"}


def free_host_memory(threads: int = 0) -> int:
    """How much memory the system has, and what limits of this process and of its groups (containers) leave.

    Parameters
    ----------
    threads
        How many are going to compute. They take addresses beside their arrays, which counts under ``ulimit -v`` alone.

    Returns
    -------
    int
        Bytes.
    """
    available = int(psutil.virtual_memory().available)
    return max(0, min([available, *_address_space(threads), *_cgroups()]))


def _address_space(threads: int) -> Iterator[int]:
    """What ``ulimit -v`` leaves for arrays: half of it at least, as not every training wakes all the threads."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        left = limit - psutil.Process().memory_info().vms
        reserve = ADDRESSES + (threads - 1) * THREAD_ADDRESSES if threads else 0
        yield left - min(reserve, left // 2)


def _cgroups() -> Iterator[int]:
    """What Linux's control groups leave: that of this process, and each group that it is in."""
    try:
        lines = OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            folders = [(2, CGROUPS), (2, CGROUPS / "unified")]
        elif "memory" in controllers.split(","):
            folders = [(1, CGROUPS / "memory")]
        else:
            continue
        own = PurePosixPath(path.lstrip("/"))
        for version, folder in folders:
            for group in (own, *own.parents):  # a container may see its own group as the root
                yield from _left_in(folder / group, version)


def _left_in(folder: Path, version: int) -> Iterator[int]:
    limit, used = (_number(folder / name) for name in _FILES[version])
    if limit is not None and used is not None:
        yield limit - used + _file_cache(folder, version)


def _number(path: Path) -> int | None:
    """What a file says; None if there is none, or no limit in it."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _file_cache(folder: Path, version: int) -> int:
    """What counts as used, but is given up when somebody wants it."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return int(dict(line.split() for line in lines).get(_FILE_CACHE[version], 0))
