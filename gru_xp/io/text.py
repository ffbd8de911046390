"""Text files as people have them: packed or not, in the encodings of spreadsheets, in files, pipes and on stdin."""

import gzip
import io
import re
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from gru_xp.errors import DataError, printable
from gru_xp.io.messages import listed, option

MAX_BYTES = 2**29
"""Bytes of a file, packed or unpacked: a pipe may have no end, and a small archive may unpack to anything."""

_PACKERS = {rb"BZh": "bzip2", rb"\xfd7zXZ": "xz", rb"\x28\xb5\x2f\xfd": "zstd", rb"7z\xbc\xaf": "7-Zip"}
_NOT_READ = {start: f"packed by {packer}; unpack it first" for start, packer in _PACKERS.items()} | {
    rb"PAR1": "a Parquet file; name it .parquet",
    rb"\xd0\xcf\x11\xe0|PK.*xl/workbook\.xml": "an Excel workbook; save the sheet as CSV",
}
"""What begins like this."""


def open_text(path: Path, name: str, encoding: str | None = None) -> io.TextIOWrapper:
    """Read a text file, and open it in memory, to be read in lines with their ends.

    Its bytes stay in memory; beside them is the text while it is checked, or the packed bytes while they are unpacked.

    Parameters
    ----------
    path
        The file; ``-`` is stdin.
    name
        What to call it in messages.
    encoding
        Text encoding; if None, UTF-8, or UTF-16 where the file looks like that.

    Raises
    ------
    DataError
        The file cannot be read, is too large or is no text; the message says where.
    """
    content = _content(path, name)
    encoding = encoding or _encoding_of(content[:1024])
    content = content.removeprefix("\ufeff".encode(encoding, "ignore"))
    lines = io.TextIOWrapper(io.BytesIO(content), encoding, newline="")
    try:
        before, zero, _ = lines.read().partition("\0")
        problem = zero and "a zero character; this is not a text file, or it is damaged"
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        before = content[:start].decode(encoding, "replace")
        remedy = f"save the file as UTF-8, or say what it is, as by {option('encoding', 'cp1252')}"
        problem = f"the byte 0x{content[start]:02x} is not {encoding.upper()}; {remedy}"
    if problem:
        line = 1 + len(re.findall(r"\r\n?|\n", before))
        raise DataError(f"{name}, line {line}: {problem}")
    lines.seek(0)
    return lines


def _content(path: Path, name: str) -> bytes:
    """The bytes of a file, or of the one that is packed in it."""
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" and sys.stdin else path.open("rb") as file:
            content = _read(file)
        if content.startswith(b"\x1f\x8b"):
            return _read(gzip.GzipFile(fileobj=io.BytesIO(content)))
        if content.startswith((b"PK\3\4", b"PK\5\6")):
            archive = zipfile.ZipFile(io.BytesIO(content))
            members = [each for each in archive.namelist() if not re.search(r"/$|^__MACOSX/|\.DS_Store", each)]
            if len(members) != 1:
                raise DataError(f"a zip archive of {listed(members, 3) or 'no file'}; it must hold one CSV file")
            return _read(archive.open(members[0]))
        return content
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:  # unpacking what is damaged raises errors of many kinds
        reason = getattr(error, "strerror", None)
        damaged = f"packed, and damaged or locked ({printable(str(error), 200)}); take another copy, or unpack it first"
        raise DataError(f"{name}: {f'cannot be read ({reason})' if reason else damaged}") from error


def _read(file: IO[bytes] | io.BufferedIOBase) -> bytes:
    content = file.read(MAX_BYTES + 1)
    for start, problem in _NOT_READ.items():
        if re.match(start, content, re.DOTALL):
            raise DataError(problem)
    if len(content) > MAX_BYTES:
        raise DataError(f"more than {MAX_BYTES:,} bytes; leave out columns or rows")
    return content


def _encoding_of(head: bytes) -> str:
    """Where there is no byte order mark, UTF-16 is known by the zero byte in each character of a table's numbers."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    zeros = {"utf-16-be": head[::2].count(0), "utf-16-le": head[1::2].count(0)}
    likely = max(zeros, key=zeros.__getitem__)
    return likely if 4 * zeros[likely] > len(head) > 8 else "utf-8"
