"""Text files as people have them: packed or not, in the encodings of spreadsheets, in files, pipes and on stdin."""

import codecs
import gzip
import io
import lzma
import re
import sys
import zipfile
import zlib
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import IO

from gru_xp.errors import DataError, printable
from gru_xp.io.messages import listed, option

MAX_BYTES = 2**29
"""Bytes of a file, packed or unpacked: a pipe may have no end, and a small archive may unpack to anything."""

_PIECE = 2**20
_GZIP, _ZIP = b"\x1f\x8b", (b"PK\3\4", b"PK\5\6")
_OTHERS = {
    b"BZh9": "packed by bzip2; unpack it first",
    b"\xfd7zXZ": "packed by xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it first",
    b"7z\xbc\xaf": "packed by 7-Zip; unpack it first",
    b"PAR1": "a Parquet file; name it .parquet",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as CSV",
}
_DAMAGED = (OSError, EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile, lzma.LZMAError)


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
    content = None
    try:
        if str(path) == "-" and sys.stdin is None:
            raise OSError("there is no stdin")
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            content = _read(file, name)
        if content.startswith(_GZIP):
            content = _read(gzip.GzipFile(fileobj=io.BytesIO(content)), name)
        elif content.startswith(_ZIP):
            content = _read(_zip_member(zipfile.ZipFile(io.BytesIO(content)), name), name)
    except DataError:
        raise
    except _DAMAGED as error:
        reason = printable(str(getattr(error, "strerror", None) or error or type(error).__name__), 200)
        problem = f"packed, and damaged ({reason}); take another copy" if content else f"cannot be read ({reason})"
        raise DataError(f"{name}: {problem}") from error
    for start, kind in _OTHERS.items():
        if content.startswith(start):
            raise DataError(f"{name}: {kind}")
    return _decoded(content, name, encoding or _encoding_of(content[:1024]))


def _read(file: IO[bytes] | io.BufferedIOBase, name: str) -> bytes:
    """All bytes; or only the first where they cannot be packed or text, as devices without an end give them."""
    head, most = file.read(_PIECE), MAX_BYTES // _PIECE
    is_usable = head.startswith((_GZIP, *_ZIP)) or b"\0" * 8 not in head
    pieces = [head, *islice(iter(lambda: file.read(_PIECE), b""), most if is_usable else 0)]
    if len(pieces) > most:
        raise DataError(f"{name}: more than {MAX_BYTES:,} bytes; leave out columns or rows")
    return b"".join(pieces)


def _zip_member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """The one file in a zip archive, but for those that a Mac adds."""
    names = [entry for entry in archive.namelist() if not re.search(r"/$|^__MACOSX/|\.DS_Store", entry)]
    if "xl/workbook.xml" in names:
        raise DataError(f"{name}: an Excel workbook; save the sheet as CSV")
    if len(names) != 1:
        found = f" ({listed(names)})" if names else ""
        raise DataError(f"{name}: a zip archive of {len(names)} files{found}; it must hold one CSV file")
    if archive.getinfo(names[0]).flag_bits & 1:
        raise DataError(f"{name}: a zip archive with a password; unpack it first")
    return archive.open(names[0])


def _encoding_of(head: bytes) -> str:
    """Where there is no byte order mark, UTF-16 is known by the zero byte in each character of a table's numbers."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > 4 * min(even, odd) and 4 * max(even, odd) > len(head) > 8:
        return "utf-16-be" if even > odd else "utf-16-le"
    return "utf-8"


def _decoded(content: bytes, name: str, encoding: str) -> io.TextIOWrapper:
    """The text of the bytes, after a byte order mark."""
    lines = io.TextIOWrapper(io.BytesIO(content), encoding, newline="")
    try:
        before, zero, _ = content.decode(encoding).partition("\0")
        problem = zero and "a zero character; this is not a text file, or it is damaged"
        if lines.read(1) != "\ufeff":
            lines.seek(0)
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        before = content[:start].decode(encoding, "replace")
        remedy = f"save the file as UTF-8, or say what it is, as by {option('encoding', 'cp1252')}"
        problem = f"the byte 0x{content[start]:02x} is not {encoding.upper()}; {remedy}"
    if problem:
        line = 1 + before.count("\n") + before.count("\r") - before.count("\r\n")
        raise DataError(f"{name}, line {line}: {problem}")
    return lines
