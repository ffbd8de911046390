"""Text files as people have them: packed or not, in the encodings of spreadsheets, in files, pipes and on stdin.

They are read piece by piece, so that what is no text, or unpacks to far more than a table does, is refused early.
"""

import codecs
import gzip
import io
import lzma
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from gru_xp.errors import DataError, printable
from gru_xp.forecasting.reading.cells import listed

LONGEST_LINE = 2**20
"""Characters a line; a longer one is not a table's."""

LARGEST_FREE = 2**22
LARGEST_RATIO = 100
"""What is packed may unpack to so many bytes, or to so many times its own."""

_PIECE = 2**20
_LARGEST_PIPED_ZIP = 2**28
_GZIP, _ZIP = b"\x1f\x8b", b"PK"
_OTHERS = {
    b"BZh9": "packed by bzip2; unpack it first",
    b"\xfd7zXZ": "packed by xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it first",
    b"7z\xbc\xaf": "packed by 7-Zip; unpack it first",
    b"PAR1": "a Parquet file; name it .parquet",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as CSV",
}
_DAMAGED = (OSError, EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile, lzma.LZMAError)


@contextmanager
def open_lines(path: Path, name: str, encoding: str | None) -> Iterator[Iterator[list[str]]]:
    """The lines of a text file, with their ends, in lists of some thousands; ``-`` is stdin.

    Raises
    ------
    DataError
        The file cannot be read, is no text, or has a line that is too long; the message says where.
    """
    try:
        opened = nullcontext(_stdin()) if str(path) == "-" else path.open("rb")
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be read ({_reason(error)})") from error
    with opened as file:
        yield _lines(_pieces(file, name), name, encoding)


def _stdin() -> IO[bytes]:
    if sys.stdin is None:
        raise OSError("there is no stdin")
    return sys.stdin.buffer


def _reason(error: Exception) -> str:
    return printable(str(getattr(error, "strerror", None) or error or type(error).__name__), 200)


class _Looked:
    """A file whose first bytes were looked at; `read` gives them again, so that a pipe will do."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.head = self._rest = file.read(_PIECE)
        self.taken = 0

    def read(self, size: int) -> bytes:
        data, self._rest = self._rest[:size], self._rest[size:]
        data = data or self._file.read(size)
        self.taken += len(data)
        return data


def _pieces(file: IO[bytes], name: str) -> Iterator[bytes]:
    """The bytes of the text, unpacked if they are packed."""
    packed = False
    try:
        source = _Looked(file)
        for start, what in _OTHERS.items():
            if source.head.startswith(start):
                raise DataError(f"{name}: {what}")
        stream: Any = source
        if packed := source.head.startswith(_GZIP):
            stream = gzip.GzipFile(fileobj=source, mode="rb")  # type: ignore[call-overload]
        elif packed := source.head.startswith((_ZIP + b"\3\4", _ZIP + b"\5\6")):
            stream = _zip_member(file, source, name)
        unpacked = 0
        while piece := stream.read(_PIECE):
            unpacked += len(piece)
            if packed:
                _check_ratio(unpacked, source.taken, name)
            yield piece
    except DataError:
        raise
    except _DAMAGED as error:
        if packed:
            raise DataError(f"{name}: packed, and damaged ({_reason(error)}); take another copy") from error
        raise DataError(f"{name}: cannot be read ({_reason(error)})") from error


def _check_ratio(unpacked: int, packed: int, name: str) -> None:
    if unpacked > max(LARGEST_FREE, LARGEST_RATIO * packed):
        raise DataError(
            f"{name}: unpacks to more than {LARGEST_RATIO} times its size, as a table does not; if it is one, "
            "unpack it first"
        )


def _zip_member(file: IO[bytes], source: _Looked, name: str) -> IO[bytes]:
    """The one file in a zip archive, of which no more comes out than the archive says; `source` is told its size."""
    if not file.seekable():
        content = source.read(_PIECE) + file.read(_LARGEST_PIPED_ZIP)
        if len(content) > _LARGEST_PIPED_ZIP:
            raise DataError(f"{name}: a zip archive too large to come through a pipe; unpack it first")
        file = io.BytesIO(content)
    source.taken = file.seek(0, io.SEEK_END)
    archive = zipfile.ZipFile(file)
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and not member.filename.startswith("__MACOSX/") and ".DS_Store" not in member.filename
    ]
    if "xl/workbook.xml" in archive.namelist():
        raise DataError(f"{name}: an Excel workbook; save the sheet as CSV")
    if len(members) != 1:
        names = f" ({listed(member.filename for member in members)})" if members else ""
        raise DataError(f"{name}: a zip archive of {len(members)} files{names}; it must hold one CSV file")
    if members[0].flag_bits & 1:
        raise DataError(f"{name}: a zip archive with a password; unpack it first")
    _check_ratio(members[0].file_size, source.taken, name)
    return archive.open(members[0])


def _encoding_of(head: bytes) -> str:
    """Where there is no byte order mark, UTF-16 is known by the zero byte in each character of a table's numbers."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = head[::2].count(0), head[1::2].count(0)
    for zeros, others, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if zeros > 4 * others and len(head) > 8 and 4 * zeros > len(head):
            return encoding
    return "utf-8"


def _lines(pieces: Iterator[bytes], name: str, encoding: str | None) -> Iterator[list[str]]:
    count, rest = 0, ""  # lines that were handed on, and the beginning of the next one
    first = next(pieces, b"")
    encoding = encoding or _encoding_of(first[:1024])
    decoder = codecs.getincrementaldecoder(encoding)()
    piece, start = first, True
    while True:
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(encoding, "replace")
            line = count + _line_ends(rest + before) + 1
            raise DataError(
                f"{name}, line {line}: the byte 0x{error.object[error.start]:02x} is not {encoding.upper()}; save the "
                "file as UTF-8, or say what it is, as by --encoding cp1252"
            ) from error
        if start:
            text, start = text.removeprefix("\ufeff"), False
        text = rest + text
        if "\0" in text:
            line = count + _line_ends(text[: text.index("\0")]) + 1
            raise DataError(f"{name}, line {line}: a zero character; this is not a text file, or it is damaged")
        lines = io.StringIO(text, newline="").readlines()  # str.splitlines would break at other signs, too
        rest = lines.pop() if piece and lines and not lines[-1].endswith("\n") else ""
        too_long = next((i for i, line in enumerate((*lines, rest)) if len(line) > LONGEST_LINE), None)
        if too_long is not None:
            raise DataError(
                f"{name}, line {count + too_long + 1}: longer than {LONGEST_LINE:,} characters; a table has one line "
                "for each row"
            )
        count += len(lines)
        yield lines
        if not piece:
            return
        piece = next(pieces, b"")


def _line_ends(text: str) -> int:
    return sum(line[-1] in "\r\n" for line in io.StringIO(text, newline=""))
