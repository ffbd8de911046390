"""Arrays and a description of them in one safetensors file, read strictly: nothing in it is believed unchecked.

The file is eight bytes that say how long the header is, the header (JSON: dtype, shape and place of each array, and
texts about them), and the numbers. It is written here, byte for byte the same for the same content; the library's own
writer puts the texts in any order, and takes arrays that are not C-contiguous for others.
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Collection, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import safetensors.numpy
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.devices.host_memory import free_host_memory
from gru_xp.errors import CheckpointError, printable
from gru_xp.nn.scan import Array
from gru_xp.training.files import check_path, replace_file
from gru_xp.training.strict_json import check_fields, read_json, shortened

DTYPES = {
    "float16": ("F16", 2),
    "float32": ("F32", 4),
    "float64": ("F64", 8),
    "int64": ("I64", 8),
    "uint8": ("U8", 1),
}
"""What the format calls them, and bytes a number."""

LARGEST_HEADER = 2**21
"""Bytes."""

DAMAGED = (KeyError, TypeError, ValueError, OverflowError)
"""What a wrong description raises where it is used."""

KINDS = {
    "model": "model.safetensors",
    "checkpoint": "checkpoint.safetensors",
    "pretrained network": "weights.safetensors",
}
"""Kinds of files, and what such a file is called."""

_TEXTS = ("format", "format_version", "sha256", "metadata")


class TensorSpec(NamedTuple):
    """What an array of a file must be.

    Attributes
    ----------
    dtype
        One of `DTYPES`.
    shape
    finite
        Whether its numbers must be finite.
    """

    dtype: str
    shape: tuple[int, ...]
    finite: bool = True


def write_tensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    *,
    kind: str,
    version: int,
    description: dict[str, Any],
    largest_header: int = LARGEST_HEADER,
) -> None:
    """Write arrays and a description to a file, all of it or nothing.

    Parameters
    ----------
    path
        The file; one that exists is replaced.
    arrays
        On any device, of a dtype of `DTYPES`.
    kind
        What the file is, one of `KINDS`.
    version
        Of its format.
    description
        What JSON can hold.
    largest_header
        Bytes that `read_tensors` will take.

    Raises
    ------
    CheckpointError
        The file cannot be written, or does not read back as it was written.
    """
    # numbers of 8 bytes first, then 4, 2 and 1: each starts at a multiple of its size
    hosts = sorted(((name, to_host(array)) for name, array in arrays.items()), key=lambda a: (-a[1].itemsize, a[0]))
    data = {name: host.astype(host.dtype.newbyteorder("<"), copy=False).tobytes() for name, host in hosts}
    text = json.dumps(description)
    try:
        read_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: cannot be written (what describes it could not be read: {error})") from error
    values = (_format(kind), str(version), _checksum(data, text), text)
    header: dict[str, Any] = {"__metadata__": dict(zip(_TEXTS, values, strict=True))}
    ends = accumulate(map(len, data.values()))
    for (name, host), end in zip(hosts, ends, strict=True):
        code, _ = DTYPES[host.dtype.name]
        header[name] = {"dtype": code, "shape": [*host.shape], "data_offsets": [end - len(data[name]), end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    if len(head) > largest_header:
        raise CheckpointError(
            f"{path}: cannot be written (what describes it takes {len(head):,} bytes, more than {largest_header:,}); "
            "use fewer columns, or shorter names"
        )
    replace_file(path, b"".join([len(head).to_bytes(8, "little"), head, *data.values()]))


def read_tensors(
    path: str | os.PathLike[str],
    *,
    kind: str,
    versions: Collection[int],
    expected: Callable[[int, dict[str, Any]], Mapping[str, TensorSpec]],
    largest_header: int = LARGEST_HEADER,
) -> tuple[int, dict[str, Any], dict[str, Array]]:
    """Read what `write_tensors` wrote; the file may be anybody's.

    Parameters
    ----------
    path
        The file.
    kind
        What it must be.
    versions
        Of the format, that are read.
    expected
        Called with version and description, before any number is read; what arrays such a file has. An
        error of `DAMAGED` means that the description is damaged.
    largest_header
        Bytes.

    Returns
    -------
    version : int
    description : dict
    arrays : dict of str to array
        On the host.

    Raises
    ------
    ArgumentError
        The path is neither a string nor an os.PathLike.
    CheckpointError
        There is no such file, or it is not exactly what was expected.
    """
    path = check_path(path)
    try:
        with _open(path, kind) as file:
            head, header = _read_header(file, largest_header, kind)
            texts = _texts(header.pop("__metadata__", None), kind)
            version = _version(texts, kind, versions)
            description = _description(texts, kind)
            specs = _expected(expected, version, description, kind)
            size = _check_tensors(header, specs, kind)
            if os.fstat(file.fileno()).st_size != len(head) + size:
                raise CheckpointError(f"a gru-xp {kind} that is truncated or too long; use another copy")
            if 2 * size > (free := free_host_memory()):
                raise CheckpointError(f"takes {2 * size:,} bytes of memory to read; {free:,} are free")
            content = b"".join([head, file.read(size)])
        if len(content) != len(head) + size:
            raise CheckpointError(f"a gru-xp {kind} that is truncated; use another copy")
        _check_sum(memoryview(content)[len(head) :], header, texts, kind)
        held = safetensors.numpy.load(content)
        arrays = {name: held[name] for name in specs}  # the library has them in any order
        _check_finite(arrays, specs, kind)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except MemoryError as error:
        raise CheckpointError(f"{path}: takes more memory to read than there is") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: not a {kind} file ({printable(str(error), 200)})") from error
    return version, description, arrays


def _format(kind: str) -> str:
    return "gru-xp" if kind == "model" else f"gru-xp {kind}"


def _checksum(data: Mapping[str, bytes | memoryview], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(data):
        digest.update(name.encode())
        digest.update(data[name])
    return digest.hexdigest()


# --- reading ----------------------------------------------------------------------------------------------------


def _open(path: Path, kind: str) -> BinaryIO:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"does not exist; a {kind} file is called {KINDS[kind]}") from error
    except ValueError as error:  # a path that no file can have
        raise CheckpointError(f"does not exist ({error})") from error
    if not stat.S_ISREG(mode):  # to open a pipe would wait for its writer
        what = "is a directory" if stat.S_ISDIR(mode) else "is no regular file"
        raise CheckpointError(f"{what}; a {kind} file is called {KINDS[kind]}")
    return path.open("rb")


def _read_header(file: BinaryIO, largest: int, kind: str) -> tuple[bytes, dict[str, Any]]:
    """The bytes before the numbers, and what they mean."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= size - 8:
        raise CheckpointError(f"not a {kind} file, or truncated ({size:,} bytes); use another copy")
    if length > largest:
        raise CheckpointError(f"its header takes {length:,} bytes; headers of more than {largest:,} are not read")
    text = file.read(length)
    try:
        header = read_json(text.decode())
    except ValueError as error:
        raise CheckpointError(f"not a {kind} file, or a damaged one ({printable(str(error), 200)})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"not a {kind} file, or a damaged one (its header is no object)")
    return start + text, header


def _texts(texts: object, kind: str) -> dict[str, str]:
    """The texts about the arrays, by name."""
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise CheckpointError(f"a safetensors file, but not a gru-xp {kind}")
    held = {_format(other): other for other in KINDS}.get(texts.get("format", ""))
    if held != kind:
        what = "a safetensors file, but" if held is None else f"a gru-xp {held},"
        raise CheckpointError(f"{what} not a gru-xp {kind}")
    if unknown := sorted(texts.keys() - {*_TEXTS}):
        raise CheckpointError(f"a gru-xp {kind} with an unknown text, {shortened(unknown[0])}; use another copy")
    return texts


def _version(texts: dict[str, str], kind: str, versions: Collection[int]) -> int:
    held = texts.get("format_version")
    for version in versions:
        if held == str(version):
            return version
    raise CheckpointError(
        f"a gru-xp {kind} of format version {shortened(held)}; this gru-xp reads versions up to {max(versions)}"
    )


def _description(texts: dict[str, str], kind: str) -> dict[str, Any]:
    try:
        description = read_json(texts["metadata"])
        if not isinstance(description, dict):
            raise ValueError("no object")
    except (KeyError, ValueError) as error:
        raise damaged(kind, error) from error
    return description


def _expected(
    expected: Callable[[int, dict[str, Any]], Mapping[str, TensorSpec]],
    version: int,
    description: dict[str, Any],
    kind: str,
) -> Mapping[str, TensorSpec]:
    try:
        return expected(version, description)
    except CheckpointError:
        raise
    except DAMAGED as error:
        raise damaged(kind, error) from error


def damaged(kind: str, error: Exception) -> CheckpointError:
    """That a description is damaged, and how."""
    what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
    return CheckpointError(f"a gru-xp {kind} whose description is damaged ({printable(what, 200)}); use another copy")


def _check_tensors(header: dict[str, Any], specs: Mapping[str, TensorSpec], kind: str) -> int:
    """How many bytes the numbers take, in a file that has these arrays, no others, and no gaps."""
    if header.keys() != specs.keys():
        (name, *_) = sorted(header.keys() ^ specs.keys())
        what = "missing" if name in specs else "unknown"
        raise CheckpointError(f"a gru-xp {kind} with a part missing or damaged ({shortened(name)} is {what})")
    places = []
    for name, spec in specs.items():
        code, itemsize = DTYPES[spec.dtype]
        try:
            held = check_fields(repr(name), header[name], {"dtype": str, "shape": list, "data_offsets": list})
        except ValueError as error:
            raise CheckpointError(f"a gru-xp {kind} with a part missing or damaged ({error})") from error
        if not _are_sizes(held["shape"]) or tuple(held["shape"]) != spec.shape or held["dtype"] != code:
            raise CheckpointError(
                f"a gru-xp {kind} whose {name!r} is {shortened(held['dtype'])} of shape {shortened(held['shape'])} "
                f"instead of {code} of {[*spec.shape]}, as it describes it"
            )
        if not _are_sizes(held["data_offsets"]) or len(held["data_offsets"]) != 2:
            raise CheckpointError(f"a gru-xp {kind} with a part missing or damaged (the place of {name!r})")
        places.append((*held["data_offsets"], math.prod(spec.shape) * itemsize, name))
    end = 0
    for start, stop, size, name in sorted(places):
        if start != end or stop != start + size:
            raise CheckpointError(f"a gru-xp {kind} with a part missing or damaged (the place of {name!r})")
        end = stop
    return end


def _are_sizes(values: list[Any]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _check_sum(data: memoryview, header: dict[str, Any], texts: dict[str, str], kind: str) -> None:
    """See that the numbers are those that were written; the first gru-xp wrote no checksum."""
    parts = {name: data[slice(*held["data_offsets"])] for name, held in header.items()}
    if texts.get("sha256", checksum := _checksum(parts, texts["metadata"])) != checksum:
        raise CheckpointError(f"a gru-xp {kind} that is damaged; use another copy")


def _check_finite(arrays: dict[str, Array], specs: Mapping[str, TensorSpec], kind: str) -> None:
    for name, array in arrays.items():
        xp = array_namespace(array)
        if specs[name].finite and xp.isdtype(array.dtype, "real floating") and not bool(xp.all(xp.isfinite(array))):
            raise CheckpointError(f"a gru-xp {kind} whose {name!r} holds numbers that are not finite; take another")
