import shutil
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from gru_xp.devices import host_memory
from gru_xp.devices.host_memory import free_host_memory

AVAILABLE = 8_000_000
FILES = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}
CACHE = {1: "total_inactive_file", 2: "inactive_file"}


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A system with `AVAILABLE` bytes, where ``groups(own)`` says what groups this process is in; the root of them."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=AVAILABLE))
    monkeypatch.setattr(host_memory, "_address_space", lambda threads: iter(()))
    monkeypatch.setattr(host_memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(host_memory, "OWN_CGROUPS", tmp_path / "own")

    def groups(own):
        (tmp_path / "own").write_text(own)
        return tmp_path / "cgroup"

    return groups


def group(folder, version, limit, used, cache=None):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(FILES[version], (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    if cache is not None:
        (folder / "memory.stat").write_text(f"anon 17\n{CACHE[version]} {cache}\n")


OWN = {
    1: "12:cpu,cpuacct:/a\n4:hugetlb,memory:/a/b\n0::/c\n",
    2: "0::/a/b\n",
}
ROOTS = {1: "memory", 2: ""}


LIMITS = [
    ("a/b", 5_000_000, 2_000_000, None, 3_000_000),
    ("a/b", 5_000_000, 2_000_000, 300_000, 3_300_000),
    ("a", 5_000_000, 2_000_000, 0, 3_000_000),
    ("", 5_000_000, 2_000_000, 0, 3_000_000),
    ("a/b", 90_000_000, 2_000_000, 0, AVAILABLE),
    ("a/b", 1_000_000, 2_000_000, 0, 0),
    ("a/c", 1_000_000, 500_000, 0, AVAILABLE),
    ("a/b", "max", 2_000_000, 0, AVAILABLE),
    ("a/b", 9223372036854771712, 2_000_000, 0, AVAILABLE),
]
"""The folder of a group, its limit, what is used, how much of that is cache, and what is free."""


@pytest.mark.parametrize("version", [1, 2])
def test_a_group_has_a_limit(groups, version):
    for case in LIMITS:
        path, limit, used, cache, expected = case
        root = groups(OWN[version])
        shutil.rmtree(root, ignore_errors=True)
        group(root / ROOTS[version] / path, version, limit, used, cache)
        assert free_host_memory() == expected, case


def test_the_smallest_limit_counts(groups):
    root = groups("0::/a/b\n4:memory:/d\n")
    group(root / "unified/a/b", 2, 7_000_000, 1_000_000)
    group(root / "unified/a", 2, 6_000_000, 4_000_000)
    group(root / "memory/d", 1, 5_000_000, 1_000_000)
    assert free_host_memory() == 2_000_000


def test_a_system_without_groups(groups):
    assert free_host_memory() == AVAILABLE
    groups("0::/a/b\n")
    assert free_host_memory() == AVAILABLE


def test_a_system_without_limits_of_processes(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert free_host_memory() > 0


def test_this_system():
    assert 0 < free_host_memory() <= psutil.virtual_memory().total


@pytest.mark.skipif(sys.platform != "linux", reason="not heeded elsewhere")
def test_a_limit_of_the_process():
    code = """
import resource
from gru_xp.devices.host_memory import free_host_memory
resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
print(free_host_memory())
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 0 < int(out) < 2**29


@pytest.mark.skipif(sys.platform != "linux", reason="not heeded elsewhere")
def test_threads_take_of_a_limited_address_space(monkeypatch):
    import resource

    vms, MiB = psutil.Process().memory_info().vms, 2**20
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: SimpleNamespace(vms=vms))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**60))
    monkeypatch.setattr(host_memory, "_cgroups", lambda: iter(()))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (vms + 1000 * MiB, vms + 1000 * MiB))
    left = [free_host_memory(threads) // MiB for threads in (0, 1, 2, 100)]
    assert left == [1000, 1000 - 64, 1000 - 64 - 112, 500]
