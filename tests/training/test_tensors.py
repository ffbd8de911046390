import hashlib
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from gru_xp.errors import CheckpointError
from gru_xp.nn.scan import Array
from gru_xp.training import tensors
from gru_xp.training.tensors import DTYPES, LARGEST_HEADER, TensorSpec, read_tensors, write_tensors

DESCRIPTION = {"text": 'ü "€" \n', "deep": [[1], {"b": -2.5e-7}], "none": None, "numbers": [0, 10**30, True]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


@pytest.fixture
def arrays(rng):
    return {
        "bytes": rng.integers(0, 256, 5, dtype=np.uint8),
        "b": rng.standard_normal((3, 4)).astype(np.float32),
        "a": rng.standard_normal((2, 1, 3)),
        "counts": rng.integers(-(2**62), 2**62, (7,)),
        "one": np.asarray(rng.standard_normal()),
        "none": np.empty((0, 4), np.float32),
    }


def specs(arrays):
    return {name: TensorSpec(array.dtype.name, array.shape) for name, array in arrays.items()}


def write(path, arrays, description=DESCRIPTION, *, kind="model", version=3, **options):
    write_tensors(path, arrays, kind=kind, version=version, description=description, **options)


def read(path, arrays, *, kind="model", versions=(1, 3), **options):
    expected = specs(arrays)
    return read_tensors(path, kind=kind, versions=versions, expected=lambda version, description: expected, **options)


def assert_same(actual, desired):
    assert actual.keys() == desired.keys()
    for name, array in desired.items():
        assert (actual[name].dtype, actual[name].shape) == (array.dtype, array.shape), name
        assert actual[name].tobytes() == array.tobytes(), name


def assert_refused(path, arrays, *parts, **options):
    """In one short line that names the file and has these parts, and in little memory, whatever the file declares."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as refused:
            read(path, arrays, **options)
        assert tracemalloc.get_traced_memory()[1] < 16 * LARGEST_HEADER, parts
    finally:
        tracemalloc.stop()
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert [part for part in parts if part not in message] == [], message
    assert message.isprintable()
    assert len(message) < len(str(path)) + 500


def parts(content):
    """Header and numbers of a file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


# --- round trips ------------------------------------------------------------------------------------------------


@pytest.mark.compat
def test_every_bit_comes_back(path, arrays):
    write(path, arrays)
    version, description, loaded = read(path, arrays)
    assert version == 3
    assert description == DESCRIPTION
    assert_same(loaded, arrays)
    loaded["a"][...] = 7.0  # they can be written
    assert os.listdir(path.parent) == [path.name]


def test_special_numbers_come_back(path):
    arrays = {
        "a": np.array([5e-324, 1.7976931348623157e308, -0.0, 0.1 + 0.2]),
        "b": np.array([2.0**-149, -0.0], np.float32),
        "c": np.array([np.nan, np.inf, -np.inf]),
    }
    write(path, arrays)
    expected = specs(arrays) | {"c": TensorSpec("float64", (3,), finite=False)}
    _, _, loaded = read_tensors(path, kind="model", versions=[3], expected=lambda version, description: expected)
    assert_same(loaded, arrays)
    assert list(loaded) == list(arrays)
    assert_refused(path, arrays, "whose 'c' holds numbers that are not finite")
    arrays["b"][1] = np.inf
    write(path, arrays)
    assert_refused(path, arrays, "whose 'b' holds numbers that are not finite")


def test_arrays_in_any_memory_order(path, rng):
    a = rng.standard_normal((5, 6))
    arrays = {
        "transposed": a.T,
        "column": a[:, 1],
        "every second": a[::2],
        "against": a[:, ::-1],
        "repeated": np.broadcast_to(a[0], (4, 6)),
        "fortran": np.asfortranarray(a),
        "big-endian": a.astype(">f8"),
        "view of bytes": np.frombuffer(b"x" + a.tobytes(), np.float64, offset=1),
    }
    write(path, arrays)
    _, _, loaded = read(path, arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def test_arrays_of_every_namespace(xp, path, arrays):
    arrays = {name: arrays[name] for name in ("a", "b", "counts")}
    write(path, {name: xp.asarray(array) for name, array in arrays.items()})
    assert_same(read(path, arrays)[2], arrays)


def test_other_programs_can_read_it(path, arrays):
    write(path, arrays, kind="checkpoint")
    assert_same(safetensors.numpy.load_file(path), arrays)
    with safetensors.safe_open(path, framework="numpy") as file:
        texts = file.metadata()
    assert texts["format"] == "gru-xp checkpoint"
    assert texts["format_version"] == "3"
    assert json.loads(texts["metadata"]) == DESCRIPTION
    digest = hashlib.sha256(texts["metadata"].encode())
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    assert texts["sha256"] == digest.hexdigest()


def test_what_the_library_writes_can_be_read(path, arrays):
    texts = {"format": "gru-xp", "format_version": "1", "metadata": json.dumps(DESCRIPTION)}
    path.write_bytes(safetensors.numpy.save(arrays, metadata=texts))
    version, description, loaded = read(path, arrays)
    assert (version, description) == (1, DESCRIPTION)
    assert_same(loaded, arrays)


def test_numbers_begin_where_processors_like_them(path, arrays):
    write(path, arrays)
    content = path.read_bytes()
    header, data = parts(content)
    assert (len(content) - len(data)) % 8 == 0
    for name, array in arrays.items():
        assert header[name]["data_offsets"][0] % array.itemsize == 0
    assert sum(array.nbytes for array in arrays.values()) == len(data)


def test_one_content_one_file(path, arrays):
    """In another process, too, whose sets and hash tables have another order."""
    code = f"""
import numpy as np
from gru_xp.training.tensors import write_tensors
arrays = {{name: np.full(3, len(name)) for name in ("a", "bb", "ccc", "dd2")}}
description = {{"x": 1, "b": {{"z": 1, "a": 2}}}}
write_tensors({str(path)!r}, arrays, kind="model", version=1, description=description)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONHASHSEED": "1"})
    content = path.read_bytes()
    exec(code)  # with the hash seed of this process
    assert path.read_bytes() == content
    write(path, arrays)
    content = path.read_bytes()
    write(path, dict(reversed(arrays.items())))
    assert path.read_bytes() == content


# --- writing ----------------------------------------------------------------------------------------------------


def test_what_could_not_be_read_is_not_written(path, arrays, refused):
    write(path, arrays)
    content = path.read_bytes()
    deep: list[object] = []
    for _ in range(40):
        deep = [deep]
    for description, *parts in (
        ({"a": float("nan")}, "NaN"),
        ({"a": float("inf")}, "Infinity"),
        ({"a": deep}, "more than 32 deep"),
        ({"a": "\ud800"}, "Unicode"),
        ({"a": "x" * LARGEST_HEADER}, "takes 2,09", "more than 2,097,152"),
    ):
        with refused(CheckpointError, str(path), "cannot be written", *parts, case=parts):
            write(path, arrays, description)
    assert path.read_bytes() == content
    write(path, arrays, {"a": "x" * LARGEST_HEADER}, largest_header=2 * LARGEST_HEADER)
    assert_refused(path, arrays, "its header takes 2,09", "more than 2,097,152")
    assert read(path, arrays, largest_header=2 * LARGEST_HEADER)[1] == {"a": "x" * LARGEST_HEADER}


# --- files that are something else ------------------------------------------------------------------------------


def test_no_file(path, arrays):
    assert_refused(path, arrays, "does not exist", "model.safetensors")
    assert_refused(path / "in a file", arrays, "does not exist")
    assert_refused(path, arrays, "does not exist", "checkpoint.safetensors", kind="checkpoint")
    path.mkdir()
    assert_refused(path, arrays, "is a directory")
    assert_refused(path.parent / ("x" * 300), arrays, "cannot be read", "File name too long")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_what_would_never_end(path, arrays):
    os.mkfifo(path)
    assert_refused(path, arrays, "is no regular file")
    path.unlink()
    path.symlink_to("/dev/zero")
    assert_refused(path, arrays, "is no regular file")


def test_other_files(path, arrays):
    for content in (
        b"",
        b"\n",
        b"Date,Close\n2004-08-19,100\n",
        bytes(range(256)) * 5,
        b"PK\x03\x04" + bytes(60),
        b"\xff" * 100,
    ):
        path.write_bytes(content)
        assert_refused(path, arrays, "not a model file", f"{len(content):,} bytes")


def test_other_kinds(path, arrays):
    for kind, held, message in (
        ("model", "gru-xp checkpoint", "a gru-xp checkpoint, not a gru-xp model"),
        ("checkpoint", "gru-xp", "a gru-xp model, not a gru-xp checkpoint"),
        ("model", "pt", "not a gru-xp model"),
        ("model", "\x1b[31m", "not a gru-xp model"),
    ):
        path.write_bytes(safetensors.numpy.save(arrays, metadata={"format": held}))
        assert_refused(path, arrays, message, kind=kind)
    path.write_bytes(safetensors.numpy.save(arrays))
    assert_refused(path, arrays, "not a gru-xp model")


def test_other_versions(path, arrays):
    for version in ("2", "03", "3.0", "4", "\x1b", "", None):
        texts = {"format": "gru-xp", "metadata": "{}"} | ({} if version is None else {"format_version": version})
        path.write_bytes(safetensors.numpy.save(arrays, metadata=texts))
        assert_refused(path, arrays, f"version {version!r}", "up to 3")


# --- damaged files ----------------------------------------------------------------------------------------------


def test_cut_off_or_too_long(path, arrays):
    for change in (-1, -100, 1, 10**10):
        write(path, arrays)
        os.truncate(path, path.stat().st_size + change)  # 10 GB that take no room
        assert_refused(path, arrays, "truncated or too long")
    for share in (0.001, 0.1, 0.5):  # within the header
        write(path, arrays)
        os.truncate(path, int(path.stat().st_size * share))
        assert_refused(path, arrays, "truncated", f"{path.stat().st_size:,} bytes")


def test_numbers_that_are_not_those_that_were_written(path, arrays):
    write(path, arrays)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert_refused(path, arrays, "a gru-xp model that is damaged; use another copy")


def damage_texts(**texts):
    return lambda header: header["__metadata__"].update(texts)


def damage(name, **fields):
    return lambda header: header[name].update(fields)


DAMAGES = {
    "text": (damage_texts(metadata='{"a": 1}'), "that is damaged"),
    "no JSON": (damage_texts(metadata="{"), "description"),
    "twice": (damage_texts(metadata='{"a": 1, "a": 1}'), "description", "'a'", "twice"),
    "list": (damage_texts(metadata="[]"), "description", "no object"),
    "deep": (damage_texts(metadata="[" * 100_000), "description", "32 deep"),
    "no text": (lambda header: header["__metadata__"].pop("metadata"), "description", "no 'metadata'"),
    "a number as text": (damage_texts(format_version=3), "not a gru-xp model"),
    "unknown text": (damage_texts(**{"\x1b": ""}), r"'\x1b'"),
    "texts": (lambda header: header.update(__metadata__=[]), "not a gru-xp model"),
    "no texts": (lambda header: header.pop("__metadata__"), "not a gru-xp model"),
    "missing": (lambda header: header.pop("a"), "'a' is missing"),
    "unknown": (lambda header: header.update({"\x1b": header["a"]}), r"'\x1b' is unknown"),
    "no object": (lambda header: header.update(a=[1]), "'a' is [1]", "object"),
    "more": (damage("a", more=1), "'a' has 'more'", "unknown"),
    "less": (lambda header: header["a"].pop("shape"), "'a' has no 'shape'"),
    "dtype": (damage("a", dtype="F32"), "'a' is 'F32' of shape", "instead of F64"),
    "bfloat16": (damage("a", dtype="BF16"), "'a' is 'BF16' of shape", "instead of F64"),
    "no dtype": (damage("a", dtype=None), "'dtype' of 'a' is None", "type str"),
    "shape": (damage("a", shape=[2, 3, 1]), "[2, 3, 1] instead of F64 of [2, 1, 3]"),
    "size": (damage("a", shape=[2, 1, 2**64]), "'a'", "instead of F64 of [2, 1, 3]"),
    "overflow": (damage("a", shape=[2**32, 2**32, 1]), "'a'", "instead of F64 of [2, 1, 3]"),
    "fraction": (damage("a", shape=[2.0, 1, 3]), "'a'", "instead of F64 of [2, 1, 3]"),
    "truth": (damage("a", shape=[2, True, 3]), "'a'", "instead of F64 of [2, 1, 3]"),
    "negative": (damage("a", shape=[-2, -1, 3]), "'a'", "instead of F64 of [2, 1, 3]"),
    "endless shape": (damage("a", shape=[2] * 20_000), "'a'", "of shape [2, 2, 2, 2, ", "... instead of"),
    "place": (damage("a", data_offsets=[8, 56]), "the place of '"),
    "negative place": (damage("a", data_offsets=[-48, 0]), "the place of 'a'"),
    "far place": (damage("a", data_offsets=[2**63, 2**63 + 48]), "the place of '"),
    "place of text": (damage("a", data_offsets=["0", "48"]), "the place of 'a'"),
    "no place": (damage("a", data_offsets=[]), "the place of 'a'"),
    "three places": (damage("a", data_offsets=[0, 48, 96]), "the place of 'a'"),
    "against": (damage("a", data_offsets=[48, 0]), "the place of 'a'"),
}


@pytest.mark.compat
@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_headers(path, arrays, name):
    change, *parts_of_message = DAMAGES[name]
    write(path, arrays)
    header, data = parts(path.read_bytes())
    change(header)
    path.write_bytes(join(header, data))
    assert_refused(path, arrays, *parts_of_message)


def test_two_arrays_in_one_place(path, rng):
    arrays = {name: rng.standard_normal(4) for name in "ab"}
    write(path, arrays)
    header, data = parts(path.read_bytes())
    header["b"]["data_offsets"] = header["a"]["data_offsets"]
    for content in (data, data[:32]):
        path.write_bytes(join(header, content))
        assert_refused(path, arrays, "the place of 'b'")


def test_places_with_gaps(path, rng):
    arrays = {name: rng.standard_normal(4) for name in "ab"}
    write(path, arrays)
    header, data = parts(path.read_bytes())
    header["b"]["data_offsets"] = [40, 72]
    path.write_bytes(join(header, data[:32] + bytes(8) + data[32:]))
    assert_refused(path, arrays, "the place of 'b'")
    header["b"]["data_offsets"] = [32, 64]
    path.write_bytes(join(header, data + bytes(8)))
    assert_refused(path, arrays, "truncated or too long")


def test_headers_that_are_no_header(path, arrays):
    for text, message in (
        (b"[]", "no object"),
        (b"null", "no object"),
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b"[" * 2**20, "more than 32 deep"),
        (b'{"a":' * 10**5 + b"1" + b"}" * 10**5, "more than 32 deep"),
        (b'{"__metadata__": {"format": "gru-xp\xff"}}', "utf-8"),
        (b"{" + b'"a": NaN}', "NaN"),
        (b" " * 2**20, "Expecting value"),
    ):
        path.write_bytes(join(text, bytes(100)))
        assert_refused(path, arrays, "not a model file", message)


def test_headers_of_a_length_that_is_a_lie(path, arrays):
    for length in (0, 1, LARGEST_HEADER + 1, 2**40, 2**63, 2**64 - 1):
        write(path, arrays)
        with path.open("r+b") as file:
            file.write(length.to_bytes(8, "little"))
            file.truncate(2**34)
        message = f"takes {length:,} bytes" if length == LARGEST_HEADER + 1 else "not a model file"
        assert_refused(path, arrays, message)


def test_more_numbers_than_memory(path, arrays, monkeypatch):
    write(path, arrays)
    size = sum(array.nbytes for array in arrays.values())
    monkeypatch.setattr(tensors, "free_host_memory", lambda: 2 * size)
    assert_same(read(path, arrays)[2], arrays)
    monkeypatch.setattr(tensors, "free_host_memory", lambda: 2 * size - 1)
    assert_refused(path, arrays, f"takes {2 * size} bytes of memory to read; {2 * size - 1} are free")


def test_many_numbers_that_take_no_room_on_the_disk(path):
    """As its header says, so that nothing about it is wrong but that nobody could read it."""
    texts = {"format": "gru-xp", "format_version": "1", "metadata": "{}"}
    header = {"__metadata__": texts, "a": {"dtype": "F64", "shape": [10**12], "data_offsets": [0, 8 * 10**12]}}
    content = join(header, b"")
    path.write_bytes(content)
    try:
        os.truncate(path, len(content) + 8 * 10**12)
    except OSError:
        pytest.skip("the file system has no files of that size")
    assert_refused(path, {"a": np.broadcast_to(0.0, 10**12)}, "takes 16,000,000,000,000 bytes of memory")


def test_numbers_that_cannot_be_had(path, arrays, monkeypatch):
    write(path, arrays)
    for error, *parts_of_message in (
        (safetensors.SafetensorError("odd\n"), "not a model file", r"odd\n"),
        (MemoryError(), "more memory"),
    ):

        def load(content, error=error):
            raise error

        monkeypatch.setattr(safetensors.numpy, "load", load)
        assert_refused(path, arrays, *parts_of_message)


def test_a_description_that_cannot_be_used(path, arrays, refused):
    write(path, arrays)
    for error, message in (
        (KeyError("size"), "no 'size'"),
        (TypeError("none"), "none"),
        (ValueError("odd"), "odd"),
        (OverflowError("large"), "large"),
    ):

        def expected(version, description, error=error):
            raise error

        with refused(CheckpointError, str(path), "description is damaged", message, case=message):
            read_tensors(path, kind="model", versions=[3], expected=expected)


def test_the_description_is_looked_at_before_the_numbers(path, arrays):
    write(path, arrays)
    os.truncate(path, 2**36)  # numbers that nobody could read

    def expected(version, description):
        assert (version, description) == (3, DESCRIPTION)
        raise CheckpointError("wrong")

    with pytest.raises(CheckpointError, match=r"^.*: wrong$"):
        read_tensors(path, kind="model", versions=[3], expected=expected)


def test_every_byte_of_the_header_counts(path, rng):
    arrays = {"a": rng.standard_normal((2, 3)).astype(np.float32), "b": rng.standard_normal(2)}
    write(path, arrays)
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            _, description, loaded = read(path, arrays)
        except CheckpointError:
            continue
        else:  # a space that became another
            assert description == DESCRIPTION
            assert_same(loaded, arrays)


def test_dtypes():
    """Of each, what the library makes of it."""
    for name, (code, size) in DTYPES.items():
        array: Array = np.zeros(3, name)
        assert array.itemsize == size
        assert f'"dtype":"{code}"'.encode() in safetensors.numpy.save({"a": array})
