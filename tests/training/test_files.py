import itertools
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gru_xp.errors import CheckpointError
from gru_xp.training.files import replace_file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.bin"


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_file_is_made_and_replaced(path):
    for content in (b"old", b"newer", b""):
        replace_file(path, content)
        assert path.read_bytes() == content
        assert names(path.parent) == [path.name]


def test_a_path_without_a_folder(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    replace_file("model.bin", b"new")
    assert path.read_bytes() == b"new"


def test_numbers_are_on_the_disk_before_the_name_is(path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor):
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def watched_replace(self, target):
        steps.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    replace_file(path, b"new")
    assert steps == ["file", "replace", "folder"]


def test_a_folder_that_cannot_be_synchronised(path, monkeypatch):
    fsync = os.fsync

    def only_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_failure_leaves_the_old_file_alone(path, monkeypatch, refused):
    replace_file(path, b"old")
    errors = OSError(28, "No space left on device"), KeyboardInterrupt()
    for step, error in itertools.product(("fsync", "replace", "read_bytes", "open"), errors):

        def fail(*arguments, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(os if step == "fsync" else Path, step, fail)
            if isinstance(error, OSError):
                with refused(CheckpointError, "model.bin", "No space left on device", case=step):
                    replace_file(path, b"new")
            else:
                with pytest.raises(KeyboardInterrupt):
                    replace_file(path, b"new")
        assert path.read_bytes() == b"old", (step, error)
        assert names(path.parent) == [path.name], (step, error)


def test_what_does_not_read_back_leaves_the_old_file(path, monkeypatch, refused):
    replace_file(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: b"nex")
        with refused(CheckpointError, "model.bin", "read back"):
            replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(path.parent) == [path.name]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit that the system imposes")
def test_a_disk_that_is_full(path):
    replace_file(path, b"old")
    code = f"""
import resource, signal
from gru_xp.errors import CheckpointError
from gru_xp.training.files import replace_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    replace_file({str(path)!r}, bytes(100_000))
except CheckpointError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith(f"{path}: ")
    assert out.count("\n") == 1
    assert "File too large" in out
    assert path.read_bytes() == b"old"
    assert names(path.parent) == [path.name]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() == 0, reason="the administrator may write everywhere")
def test_a_folder_that_may_only_be_read(path, refused):
    replace_file(path, b"old")
    path.parent.chmod(0o500)
    try:
        with refused(CheckpointError, "model.bin", "Permission denied"):
            replace_file(path, b"new")
    finally:
        path.parent.chmod(0o700)
    assert path.read_bytes() == b"old"


def test_paths_that_no_file_can_have(path):
    (path.parent / "file").touch()
    for target, message in (
        (path.parent, "is a directory"),
        (path.parent / "no" / "model.bin", r"there is no folder .*; make it first"),
        (path.parent / "file" / "model.bin", "there is no folder"),
        (path.parent / ("x" * 300), "cannot be written"),
    ):
        with pytest.raises(CheckpointError, match=message):
            replace_file(target, b"new")
    assert names(path.parent) == ["file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_stays_a_pipe(path):
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="is no regular file"):
        replace_file(path, b"new")
    assert path.is_fifo()


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_others_may_read_what_they_may_read_of_other_files(path):
    (path.parent / "other").touch()
    replace_file(path, b"new")
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no file that is open")
def test_who_has_the_old_file_open_goes_on_reading_it(path):
    replace_file(path, b"old")
    with path.open("rb") as file:
        replace_file(path, b"new")
        assert file.read() == b"old"
