import contextlib
import csv
import gzip
import io
import os
import re
import subprocess
import sys
import threading
import zipfile
from itertools import chain, repeat

import pytest

from gru_xp.errors import DataError
from gru_xp.forecasting.reading.csv_file import find_file, read_csv
from gru_xp.forecasting.reading.text_file import LARGEST_FREE, LARGEST_RATIO, LONGEST_LINE, open_lines

pytestmark = pytest.mark.compat

MIB = 2**20
HEAD = b"Date,Close\n2020-01-01,"


def lines_of(path, encoding=None):
    with open_lines(path, "file", encoding) as batches:
        return [line for batch in batches for line in batch]


@contextlib.contextmanager
def piped(path, blocks):
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
    """The message that a file is refused with in a process of its own, which takes little memory."""
    code = f"""
import resource
from gru_xp.forecasting.reading.csv_file import DataError, read_csv
{before}
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_csv({str(path)!r})
except DataError as error:
    print(error)
growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
assert growth < 200 * 1024, f"{{growth / 1024:.0f}} MiB"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    return line


# --- lines ------------------------------------------------------------------------------------------------------


def test_lines_are_those_of_the_text(write):
    """In one piece of the file, and in several with characters across their edges."""
    encodings, ends = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"), ("\n", "\r\n", "\r")
    small = [(encoding, end, 3) for encoding in encodings for end in ends]
    large = [(encoding, ends[i % 3], 30_000) for i, encoding in enumerate(encodings)]
    for case in small + large:
        encoding, end, rows = case
        text = "".join(f"€{row},Größe,{'x' * (row % 70)}{end}" for row in range(rows))
        expected = list(io.StringIO(text, newline=""))
        assert lines_of(write(text.encode(encoding))) == expected, case
        if rows == 3 or encoding == "utf-16":
            assert lines_of(write(gzip.compress(text.encode(encoding), 1))) == expected, case


def test_the_end_of_a_line_across_pieces(write):
    lines = ["x\r\n", "a" * (MIB - 4) + "\r\n", "b\r\n"]
    assert len("".join(lines[:2])) == MIB + 1
    assert lines_of(write("".join(lines))) == lines


def test_the_line_of_what_is_no_text(write, refusal):
    for before in (0, 1, 5_000, 90_000):
        for bad, part in ((b"\xff\n", "0xff is not UTF-8"), (b"1\0\n", "a zero character"), (b"1\xc3", "0xc3")):
            path = write(b"2020-01-01\r\n" * before + bad)
            refusal(lambda path=path: lines_of(path), f"file, line {before + 1}: ", part)


def test_the_longest_line(write, refusal):
    assert len(lines_of(write("a\n" + "b" * (LONGEST_LINE - 1) + "\nc\n"))) == 3
    path = write("a\n" + "b" * LONGEST_LINE + "\nc\n")
    refusal(lambda: lines_of(path), "file, line 2: ", "1,048,576 characters")


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


def test_packed_files_that_are_damaged(write, rng):
    for pack in (gzip.compress, zipped):
        content = pack(b"Date,Close\n2020-01-01,1\n" * 50)
        for _ in range(100):
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


def test_a_named_pipe(tmp_path):
    for name, content in packed_ways().items():
        pieces = (content[i : i + 7] for i in range(0, len(content), 7))
        with piped(tmp_path / name, pieces) as path:
            assert find_file(str(path)) == (path, False), name
            assert read_csv(path).values.tolist() == [[1.5], [2.5]], name


def packed_ways():
    return {"plain": CONTENT, "gzip": gzip.compress(CONTENT), "zip": zipped(CONTENT)}


def test_stdin(write, monkeypatch):
    """As a pipe, and as a file."""
    for way, content in packed_ways().items():
        reading, writing = os.pipe()
        with open(writing, "wb") as pipe:
            pipe.write(content)
        for source in (reading, write(content)):
            with open(source) as stdin:
                monkeypatch.setattr(sys, "stdin", stdin)
                series = read_csv(find_file("-")[0])
            assert (series.name, series.values.tolist()) == ("stdin", [[1.5], [2.5]]), way


def test_stdin_of_a_process():
    code = "from gru_xp.forecasting.reading.csv_file import *; print(read_csv('-').values.tolist())"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, input=zipped(CONTENT), capture_output=True, check=True).stdout
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


def test_a_pipe_without_an_end(tmp_path, monkeypatch, refusal):
    monkeypatch.setattr("gru_xp.forecasting.reading.table.MOST_CELLS", 10_000)
    blocks = chain([HEAD + b"1\n"], repeat(b"2020-01-02,2\n" * 1000))
    with piped(tmp_path / "pipe", blocks) as path:
        refusal(lambda: read_csv(path), "more than 10,000 cells")


ENDLESS = {
    "one line": (b"1" * MIB, "line 2: longer than 1,048,576 characters"),
    "zeros": (b"\0" * MIB, "line 2: a zero character"),
    "no text": (b"\xff" * MIB, "line 2: the byte 0xff is not UTF-8"),
    "a quote that is not closed": (b'"' + b"a,1\n" * (MIB // 4), "line 2: not CSV"),
    "ragged rows": (b"1,2,3\n" * (MIB // 6), "line 2: has 4 fields"),
}


def test_a_pipe_is_refused_by_its_first_megabytes(tmp_path, refusal):
    for name, (block, part) in ENDLESS.items():
        blocks = iter([HEAD, *[block] * 9])
        with piped(tmp_path / name, blocks) as path:
            refusal(lambda path=path: read_csv(path), part)
        assert len(list(blocks)) >= 6, name


# --- what would take all memory ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_a_gigabyte_through_a_pipe(tmp_path, name):
    block, part = ENDLESS[name]
    with piped(tmp_path / "pipe", [HEAD, *[block] * 1024]) as path:
        assert part in refusal(path)


@pytest.mark.slow
def test_a_gigabyte_in_a_quote_where_fields_may_be_long(tmp_path):
    with piped(tmp_path / "pipe", [HEAD + b'"', *[b"2020-01-02,2\n" * 80_000] * 1000]) as path:
        assert "line 2: not CSV" in refusal(path, before="import csv; csv.field_size_limit(2**31 - 1)")


def test_a_quote_that_is_not_closed_where_fields_may_be_long(tmp_path, refusal):
    blocks = iter([HEAD + b'"', *[b"2020-01-02,2\n" * 80_000] * 9])
    before = csv.field_size_limit(2**31 - 1)
    try:
        with piped(tmp_path / "pipe", blocks) as path:
            refusal(lambda: read_csv(path), "line 2: not CSV", "quote")
    finally:
        csv.field_size_limit(before)
    assert len(list(blocks)) >= 5


@pytest.mark.slow
def test_a_sparse_gigabyte(tmp_path):
    path = tmp_path / "sparse.csv"
    with path.open("wb") as file:
        file.write(HEAD)
        file.truncate(2**30)
    assert "line 2: a zero character" in refusal(path)


@pytest.fixture
def bomb(tmp_path):
    """``bomb(pack, block, size)``: the path of a file of `size` MiB of such blocks, packed as gzip or zip."""

    def bomb(pack, block, size):
        path = tmp_path / pack
        with contextlib.ExitStack() as stack:
            if pack == "zip":
                archive = stack.enter_context(zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED))
                file = stack.enter_context(archive.open("a.csv", "w"))
            else:
                file = stack.enter_context(gzip.open(path, "wb"))
            file.write(HEAD + b"1\n")
            for _ in range(size):
                file.write(block * (MIB // len(block)))
        return path

    return bomb


BLOCKS = {"blank lines": b"\n", "rows": b"1,2\n", "one line": b"1"}


TOO_MUCH = "unpacks to more than 100 times its size|longer than 1,048,576 characters"


def test_what_unpacks_to_more_than_a_table(bomb, monkeypatch, refusal):
    monkeypatch.setattr("gru_xp.forecasting.reading.text_file.LARGEST_FREE", 2**16)
    for pack in ("gzip", "zip"):
        for name, block in BLOCKS.items():
            path = bomb(pack, block, 2)
            message = str(refusal(lambda path=path: read_csv(path)))
            assert re.search(TOO_MUCH, message), (pack, name, message)


@pytest.mark.slow
@pytest.mark.parametrize("pack", ["gzip", "zip"])
def test_what_unpacks_to_far_more_than_a_table(bomb, pack):
    for name, block in BLOCKS.items():
        message = refusal(bomb(pack, block, 32))
        assert re.search(TOO_MUCH, message), (name, message)


def test_a_small_file_may_unpack_to_many_times_its_size(write):
    content = b"Close\n" + b"1\n" * 50_000
    assert len(content) < LARGEST_FREE
    for pack in (gzip.compress, zipped):
        assert len(pack(content)) < len(content) / LARGEST_RATIO
        assert len(read_csv(write(pack(content)))) == 50_000


def test_a_zip_that_lies_about_its_size(write):
    content = bytearray(zipped(b"Close\n" + b"1\n" * 100_000))
    position = content.index(b"PK\1\2") + 24
    content[position : position + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(DataError, match="packed, and damaged"):
        read_csv(write(bytes(content)))


def many_columns(count):
    return ",".join(f"d{i:x} date" for i in range(count)) + "\n" + ",".join(["1"] * count) + "\n"


def test_very_many_columns(write, refusal):
    path = write(many_columns(3_000))
    refusal(lambda: read_csv(path), "numeric columns", "Close")


@pytest.mark.slow
def test_tens_of_thousands_of_columns(write):
    assert "numeric columns" in refusal(write(many_columns(30_000)))
