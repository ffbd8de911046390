import contextlib
import gzip
import io
import os
import re
import subprocess
import sys
import threading
import zipfile

import pytest

from gru_xp.errors import DataError
from gru_xp.forecasting.reading.csv_file import find_file, read_csv
from gru_xp.forecasting.reading.text_file import LARGEST_FREE, LONGEST_LINE, open_lines

MIB = 2**20
HEAD = b"Date,Close\n2020-01-01,"


def lines_of(path, encoding=None):
    with open_lines(path, "file", encoding) as batches:
        return [line for batch in batches for line in batch]


@contextlib.contextmanager
def piped(path, *blocks):
    """A named pipe into which the blocks are written while it is read."""
    os.mkfifo(path)

    def write():
        try:
            with path.open("wb") as pipe:
                for block in blocks:
                    pipe.write(block)
        except BrokenPipeError:  # the reader has seen enough
            pass

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield path
    finally:
        thread.join()


def refusal(path, before=""):
    """The message that a file is refused with in a process of its own, which takes little time and memory."""
    code = f"""
import resource, time
from gru_xp.forecasting.reading.csv_file import DataError, read_csv
{before}
start, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_csv({str(path)!r})
except DataError as error:
    print(error)
growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
assert growth < 200 * 1024, f"{{growth / 1024:.0f}} MiB"
assert time.process_time() - start < 5
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    return line


# --- lines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("rows", [3, 30_000])  # one piece of the file, and several with characters across their edges
def test_lines_are_those_of_the_text(write, encoding, end, rows):
    text = "".join(f"€{row},Größe,{'x' * (row % 70)}{end}" for row in range(rows))
    assert lines_of(write(text.encode(encoding))) == list(io.StringIO(text, newline=""))
    assert lines_of(write(gzip.compress(text.encode(encoding), 1))) == list(io.StringIO(text, newline=""))


def test_the_end_of_a_line_across_pieces(write):
    lines = ["x\r\n", "a" * (MIB - 4) + "\r\n", "b\r\n"]
    assert len("".join(lines[:2])) == MIB + 1
    assert lines_of(write("".join(lines))) == lines


@pytest.mark.parametrize("before", [0, 1, 5_000, 300_000])
@pytest.mark.parametrize(
    ("bad", "pattern"), [(b"\xff\n", "the byte 0xff is not UTF-8"), (b"1\0\n", "a zero character"), (b"1\xc3", "0xc3")]
)
def test_the_line_of_what_is_no_text(write, before, bad, pattern):
    path = write(b"2020-01-01\r\n" * before + bad)
    with pytest.raises(DataError, match=f"^file, line {before + 1}: .*{pattern}"):
        lines_of(path)


def test_the_longest_line(write):
    assert len(lines_of(write("a\n" + "b" * (LONGEST_LINE - 1) + "\nc\n"))) == 3
    with pytest.raises(DataError, match=r"^file, line 2: longer than 1,048,576 characters; a table has one"):
        lines_of(write("a\n" + "b" * LONGEST_LINE + "\nc\n"))


def test_chinese_in_utf_16_without_a_mark(write):
    text = "日期,收盘价\n2020-01-01,1\n2020-01-02,2\n2020-01-03,3\n"
    for encoding in ("utf-16-le", "utf-16-be"):
        assert lines_of(write(text.encode(encoding))) == text.splitlines(keepends=True)


def test_a_zip_with_a_password(write):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.csv", "Close\n1\n")
    content = bytearray(buffer.getvalue())
    for sign, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(sign) + offset] |= 1
    with pytest.raises(DataError, match="a zip archive with a password; unpack it first"):
        lines_of(write(bytes(content)))


@pytest.mark.parametrize("packed", [gzip.compress, lambda content: zipped(content)])
def test_packed_files_that_are_damaged(write, packed, rng):
    content = packed(b"Date,Close\n2020-01-01,1\n" * 50)
    for _ in range(300):
        damaged = bytearray(content)
        for position in rng.integers(4, len(content), 3):
            damaged[position] = rng.integers(256)
        with contextlib.suppress(DataError):
            lines_of(write(bytes(damaged[: rng.integers(4, len(content) + 1)])))


def zipped(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", content)
    return buffer.getvalue()


# --- pipes and stdin --------------------------------------------------------------------------------------------

CONTENT = b"Date,Close\n2020-01-01,1.5\n2020-01-02,2.5\n"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zipped], ids=["plain", "gzip", "zip"])
def test_a_named_pipe(tmp_path, pack):
    with piped(tmp_path / "pipe", *(pack(CONTENT)[i : i + 7] for i in range(0, len(pack(CONTENT)), 7))) as path:
        assert find_file(str(path)) == (path, False)
        assert read_csv(path).values.tolist() == [[1.5], [2.5]]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zipped], ids=["plain", "gzip", "zip"])
def test_stdin(pack):
    code = (
        "from gru_xp.forecasting.reading.csv_file import *; "
        "s = read_csv(find_file('-')[0]); print(s.name, s.values.tolist())"
    )
    out = subprocess.run([sys.executable, "-c", code], input=pack(CONTENT), capture_output=True, check=True).stdout
    assert out.split() == b"stdin [[1.5], [2.5]]".split()


def test_stdin_from_a_file(write):
    code = "from gru_xp.forecasting.reading.csv_file import *; print(read_csv('-').values.tolist())"
    with write(zipped(CONTENT)).open("rb") as file:
        out = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, check=True).stdout
    assert out.strip() == b"[[1.5], [2.5]]"


def test_no_stdin(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match=r"^stdin: cannot be read \(there is no stdin\)"):
        read_csv("-")


def test_a_file_that_is_called_like_stdin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_bytes(CONTENT)
    assert read_csv(find_file("./-")[0]).values.tolist() == [[1.5], [2.5]]


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no such device")
def test_a_device_without_an_end():
    with pytest.raises(DataError, match="line 1: a zero character"):
        read_csv("/dev/zero")


def test_a_pipe_without_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr("gru_xp.forecasting.reading.table.MOST_CELLS", 10_000)
    with (
        piped(tmp_path / "pipe", HEAD + b"1\n", *[b"2020-01-02,2\n" * 1000] * 1000) as path,
        pytest.raises(DataError, match="more than 10,000 cells; leave out columns or rows"),
    ):
        read_csv(path)


# --- what would take all memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "pattern"),
    [
        (b"1" * MIB, "line 2: longer than 1,048,576 characters"),
        (b"\0" * MIB, "line 2: a zero character"),
        (b"\xff" * MIB, "line 2: the byte 0xff is not UTF-8"),
        (b'"' + b"a,1\n" * (MIB // 4), "line 2: not CSV .*; is there a quote that is not closed"),
        (b"1,2,3\n" * (MIB // 6), "line 2: has 4 fields"),
    ],
    ids=["one line", "zeros", "no text", "a quote that is not closed", "ragged rows"],
)
def test_a_gigabyte_through_a_pipe(tmp_path, block, pattern):
    with piped(tmp_path / "pipe", HEAD, *[block] * 1024) as path:
        assert re.search(pattern, refusal(path))


def test_a_quote_that_is_not_closed_where_fields_may_be_long(tmp_path):
    with piped(tmp_path / "pipe", HEAD + b'"', *[b"2020-01-02,2\n" * 80_000] * 1000) as path:
        message = refusal(path, before="import csv; csv.field_size_limit(2**31 - 1)")
    assert re.search("line 2: not CSV .*; is there a quote that is not closed", message)


def test_a_sparse_gigabyte(tmp_path):
    path = tmp_path / "sparse.csv"
    with path.open("wb") as file:
        file.write(HEAD)
        file.truncate(2**30)
    assert "line 2: a zero character" in refusal(path)


@pytest.fixture(scope="module", params=["gzip", "zip"])
def bomb(request, tmp_path_factory):
    """``bomb(block)``: the path of a packed file of 32 MiB of such blocks."""

    def bomb(block):
        path = tmp_path_factory.mktemp("bombs") / request.param
        with contextlib.ExitStack() as stack:
            if request.param == "zip":
                archive = stack.enter_context(zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED))
                file = stack.enter_context(archive.open("a.csv", "w"))
            else:
                file = stack.enter_context(gzip.open(path, "wb"))
            file.write(HEAD + b"1\n")
            for _ in range(32):
                file.write(block * (MIB // len(block)))
        return path

    return bomb


@pytest.mark.parametrize("block", [b"\n", b"1,2\n", b"1"], ids=["blank lines", "rows", "one line"])
def test_what_unpacks_to_far_more_than_a_table(bomb, block):
    assert re.search("unpacks to more than 100 times its size|longer than 1,048,576 characters", refusal(bomb(block)))


@pytest.mark.parametrize("pack", [gzip.compress, zipped])
def test_a_small_file_may_unpack_to_many_times_its_size(write, pack):
    content = b"Close\n" + b"1\n" * 200_000
    assert len(content) < LARGEST_FREE
    assert len(pack(content)) < len(content) / 200
    assert len(read_csv(write(pack(content)))) == 200_000


def test_a_zip_that_lies_about_its_size(write):
    content = bytearray(zipped(b"Close\n" + b"1\n" * 1_000_000))
    position = content.index(b"PK\1\2") + 24
    content[position : position + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(DataError, match="packed, and damaged"):
        read_csv(write(bytes(content)))


def test_very_many_columns(write):
    path = write(",".join(f"d{i:x} date" for i in range(30_000)) + "\n" + ",".join(["1"] * 30_000) + "\n")
    assert "numeric columns and none is called Close" in refusal(path)
