import contextlib
import gzip
import io
import os
import subprocess
import sys
import threading
import zipfile
from itertools import chain, repeat
from pathlib import Path

import pytest

from gru_xp.errors import DataError
from gru_xp.io.text import open_text

pytestmark = pytest.mark.compat

MIB = 2**20
HEAD = b"Date,Close\n2020-01-01,"
CONTENT = b"Date,Close\n2020-01-01,1.5\n2020-01-02,2.5\n"


def lines_of(path, encoding=None):
    return list(open_text(Path(path), "file", encoding))


def zipped(*members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


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


# --- lines ------------------------------------------------------------------------------------------------------


def test_lines_are_those_of_the_text(write):
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


def test_encodings_that_are_named(write, refusal):
    text = "Tag für Tag\n1\n"
    for encoding in ("utf-8", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7"):
        assert lines_of(write(text.encode(encoding)), encoding) == ["Tag für Tag\n", "1\n"], encoding
    marked = ("\ufeff" + text).encode("utf-16-be")
    assert lines_of(write(marked), "utf-16-be") == lines_of(write(text.encode("utf-8-sig")), "utf-8")
    refusal(lambda: lines_of(write("ab".encode("utf-16-le")), "utf-16"), "line 1: the byte 0x61 is not UTF-16")
    refusal(lambda: lines_of(write(b"a\n\x81\n"), "cp1252"), "line 2: the byte 0x81 is not CP1252")


def test_chinese_in_utf_16_without_a_mark(write):
    text = "日期,收盘价\n2020-01-01,1\n2020-01-02,2\n2020-01-03,3\n"
    for encoding in ("utf-16-le", "utf-16-be"):
        assert lines_of(write(text.encode(encoding))) == text.splitlines(keepends=True)


def test_the_line_of_what_is_no_text(write, refusal):
    for before in (0, 1, 5_000, 90_000):
        for bad, part in ((b"\xff\n", "0xff is not UTF-8"), (b"1\0\n", "a zero character"), (b"1\xc3", "0xc3")):
            for end in (b"\r\n", b"\n", b"\r"):
                path = write((b"2020-01-01" + end) * before + bad)
                refusal(lambda path=path: lines_of(path), f"file, line {before + 1}: ", part)
    refusal(lambda: lines_of(write("a\n1\0\n".encode("utf-16"))), "line 2: a zero character")
    refusal(lambda: lines_of(write("a\n1\n".encode("utf-32"))), "line 1: a zero character")
    refusal(lambda: lines_of(write("a\n1\n".encode("utf-16")[:-1])), "line 2: the byte 0x0a is not UTF-16")
    refusal(lambda: lines_of(write("Tag für Tag\n".encode("cp1252"))), "0xfc is not UTF-8", "encoding='cp1252'")


# --- packed files -----------------------------------------------------------------------------------------------


def test_packed_files(write):
    for case, content in {
        "gzip": gzip.compress(CONTENT),
        "gzip in two parts": gzip.compress(CONTENT[:30]) + gzip.compress(CONTENT[30:]),
        "zip": zipped(("prices.csv", CONTENT)),
        "zip of a Mac": zipped(("prices.csv", CONTENT), ("__MACOSX/._prices.csv", b"\0"), (".DS_Store", b"\0")),
        "zip with a folder": zipped(("data/", b""), ("data/prices.csv", CONTENT)),
        "many times its size": gzip.compress(CONTENT + b"2020-01-02,2\n" * 50_000),
    }.items():
        assert lines_of(write(content))[:3] == CONTENT.decode().splitlines(keepends=True), case


def test_packed_files_that_are_refused(write, refusal):
    locked = bytearray(zipped(("a.csv", b"Close\n1\n")))
    for sign, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        locked[locked.index(sign) + offset] |= 1
    liar = bytearray(zipped(("a.csv", b"Close\n" + b"1\n" * 100_000)))
    position = liar.index(b"PK\1\2") + 24
    liar[position : position + 4] = (1000).to_bytes(4, "little")
    for content, *parts in (
        (bytes(locked), "packed, and damaged or locked", "password", "unpack it first"),
        (bytes(liar), "packed, and damaged"),
        (zipped(("a.csv", CONTENT), ("b.csv", CONTENT)), "a zip archive of a.csv, b.csv; it must hold one CSV file"),
        (zipped(), "a zip archive of no file; it must hold one CSV file"),
        (zipped(("a.csv", CONTENT))[:-9], "packed, and damaged", "take another copy"),
        (zipped(("xl/workbook.xml", b""), ("[Content_Types].xml", b"")), "Excel workbook; save the sheet as CSV"),
        (gzip.compress(CONTENT)[:-5], "packed, and damaged", "take another copy"),
        (gzip.compress(CONTENT)[:20] + b"\xff" * 30, "packed, and damaged"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an Excel workbook; save the sheet as CSV"),
        (b"BZh91AY", "packed by bzip2; unpack it first"),
        (b"\xfd7zXZ\0\0", "packed by xz; unpack it first"),
        (b"\x28\xb5\x2f\xfd\0", "packed by zstd; unpack it first"),
        (b"7z\xbc\xaf\x27\x1c", "packed by 7-Zip; unpack it first"),
        (b"PAR1\x15\x04", "a Parquet file; name it .parquet"),
    ):
        path = write(content)
        refusal(lambda path=path: lines_of(path), "file: ", *parts)


def test_packed_files_that_are_damaged(write, rng):
    for pack in (gzip.compress, lambda content: zipped(("a.csv", content))):
        content = pack(b"Date,Close\n2020-01-01,1\n" * 50)
        for _ in range(100):
            damaged = bytearray(content)
            for position in rng.integers(4, len(content), 3):
                damaged[position] = rng.integers(256)
            with contextlib.suppress(DataError):
                lines_of(write(bytes(damaged[: rng.integers(4, len(content) + 1)])))


# --- pipes and stdin --------------------------------------------------------------------------------------------

WAYS = {"plain": CONTENT, "gzip": gzip.compress(CONTENT), "zip": zipped(("a.csv", CONTENT))}


def test_a_named_pipe(tmp_path):
    for name, content in WAYS.items():
        pieces = (content[i : i + 7] for i in range(0, len(content), 7))
        with piped(tmp_path / name, pieces) as path:
            assert "".join(lines_of(path)) == CONTENT.decode(), name


def test_stdin(write, monkeypatch):
    """As a pipe, and as a file."""
    for way, content in WAYS.items():
        reading, writing = os.pipe()
        with open(writing, "wb") as pipe:
            pipe.write(content)
        for source in (reading, write(content)):
            with open(source) as stdin:
                monkeypatch.setattr(sys, "stdin", stdin)
                assert "".join(lines_of("-")) == CONTENT.decode(), way


def test_stdin_of_a_process():
    code = "from gru_xp.io.text import open_text; print(open_text('-', 'stdin').read(), end='')"
    out = subprocess.run([sys.executable, "-c", code], input=WAYS["zip"], capture_output=True, check=True).stdout
    assert out.splitlines() == CONTENT.splitlines()


def test_what_cannot_be_read(monkeypatch, refusal, tmp_path):
    monkeypatch.setattr(sys, "stdin", None)
    refusal(lambda: lines_of("-"), "file: cannot be read (")
    refusal(lambda: lines_of(tmp_path), "file: cannot be read (")
    refusal(lambda: lines_of(tmp_path / "missing.csv"), "file: cannot be read (No such file")


# --- what would take all memory ---------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no such device")
def test_a_device_without_an_end(monkeypatch, refusal):
    monkeypatch.setattr("gru_xp.io.text.MAX_BYTES", 4 * MIB)
    refusal(lambda: lines_of(Path("/dev/zero")), "more than 4,194,304 bytes")


def test_a_pipe_without_an_end(tmp_path, monkeypatch, refusal):
    monkeypatch.setattr("gru_xp.io.text.MAX_BYTES", 4 * MIB)
    for name, block, part in (
        ("rows", b"2020-01-02,2\n" * 1000, "more than 4,194,304 bytes; leave out"),
        ("one line", b"1" * MIB, "more than 4,194,304 bytes"),
        ("no text", b"\xff" * MIB, "more than 4,194,304 bytes"),
        ("zeros", b"\0" * MIB, "more than 4,194,304 bytes"),
    ):
        with piped(tmp_path / name, chain([HEAD], repeat(block))) as path:
            refusal(lambda path=path: lines_of(path), part)


def test_what_unpacks_to_more_than_a_table(write, monkeypatch, refusal):
    monkeypatch.setattr("gru_xp.io.text.MAX_BYTES", 2 * MIB)
    for block in (b"\n", b"1,2\n", b"1"):
        content = HEAD + block * (3 * MIB // len(block))
        for packed in (gzip.compress(content), zipped(("a.csv", content))):
            path = write(packed)
            refusal(lambda path=path: lines_of(path), "more than 2,097,152 bytes")
    content = HEAD + b"1\n" * (MIB // 2)
    assert len(lines_of(write(gzip.compress(content)))) > MIB // 2 > len(gzip.compress(content))
