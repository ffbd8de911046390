import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from gru_xp.devices import resolve_device
from gru_xp.errors import CheckpointError
from gru_xp.nn.params import GRUParams, map_arrays, named_arrays
from gru_xp.training.checkpoint import FORMAT_VERSION, load_checkpoint, save_checkpoint

METADATA = {"settings": {"seq_length": 3, "ratio": 0.1, "none": None}, "columns": ["a", "ü"], "deep": [[1], {"b": 2.5}]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def assert_same(actual, desired):
    assert type(actual) is type(desired)
    assert [list(map(type, layer)) for layer in actual.gru] == [list(map(type, layer)) for layer in desired.gru]
    desired = dict(named_arrays(desired))
    assert dict(named_arrays(actual)).keys() == desired.keys()
    for name, array in named_arrays(actual):
        assert array.dtype == desired[name].dtype, name
        np.testing.assert_array_equal(array, desired[name], err_msg=name)


def assert_refused(path, cpu, message):
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(path, cpu)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# --- round trips ------------------------------------------------------------------------------------------------


LAYERS = pytest.mark.parametrize(
    "layers", [{}, {"num_layers": 3}, {"bidirectional": True}, {"num_layers": 12, "bidirectional": True}], ids=str
)


@LAYERS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bit_comes_back(cpu, path, problem, layers, dtype):
    params = problem(dtype=dtype, **layers).params
    save_checkpoint(path, params, METADATA)
    loaded, metadata = load_checkpoint(path, cpu)
    assert_same(loaded, params)
    assert metadata == METADATA
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_extreme_numbers_come_back(cpu, path, problem):
    params = problem(H=2, O=1).params
    gru = params.gru[0][0]
    gru.weight_hh[0, :] = [5e-324, 1.7976931348623157e308]
    gru.bias[:3] = [0.1 + 0.2, -0.0, 2.0**-1074]
    save_checkpoint(path, params, {})
    loaded, _ = load_checkpoint(path, cpu)
    assert_same(loaded, params)
    assert np.signbit(loaded.gru[0][0].bias[1])


def test_arrays_in_any_memory_order(cpu, path, problem):
    params = problem().params
    ((gru,),) = params.gru
    strided = np.repeat(gru.bias, 3)[::3]
    gru = gru._replace(weight_ih=np.asfortranarray(gru.weight_ih), weight_hh=gru.weight_hh.T.copy().T, bias=strided)
    params = params._replace(gru=((gru,),), linear=params.linear._replace(weight=params.linear.weight[:, ::-1]))
    assert not any(a.flags.c_contiguous for a in (*gru[:3], params.linear.weight))
    save_checkpoint(path, params, {})
    assert_same(load_checkpoint(path, cpu)[0], params)


def test_parameters_of_every_namespace(xp, cpu, path, problem):
    params = problem(dtype="float32", num_layers=2).params
    save_checkpoint(path, map_arrays(xp.asarray, params), {})
    assert_same(load_checkpoint(path, cpu)[0], params)


@pytest.mark.cuda
def test_a_model_goes_to_another_device_and_back(cpu, path, problem):
    params = problem(num_layers=2, bidirectional=True).params
    save_checkpoint(path, params, METADATA)
    on_gpu, _ = load_checkpoint(path, resolve_device("cuda"))
    save_checkpoint(path, on_gpu, METADATA)
    assert_same(load_checkpoint(path, cpu)[0], params)


def test_the_loaded_arrays_can_be_written(cpu, path, problem):
    params = problem().params
    save_checkpoint(path, params, {})
    loaded, _ = load_checkpoint(path, cpu)
    loaded.gru[0][0].bias[0] = 7.0
    assert load_checkpoint(path, cpu)[0].gru[0][0].bias[0] == params.gru[0][0].bias[0]


def test_other_programs_can_read_the_arrays(path, problem):
    params = problem(num_layers=2, bidirectional=True).params
    save_checkpoint(path, params, {})
    arrays = safetensors.numpy.load_file(path)
    names = [f"gru.{where}.{name}" for where in ("0.0", "0.1", "1.0", "1.1") for name in GRUParams._fields]
    assert sorted(arrays) == sorted([*names, "linear.weight", "linear.bias"])
    np.testing.assert_array_equal(arrays["linear.weight"], params.linear.weight)
    np.testing.assert_array_equal(arrays["gru.1.0.weight_hh"], params.gru[1][0].weight_hh)
    np.testing.assert_array_equal(arrays["gru.0.1.bias"], params.gru[0][1].bias)


# --- format version 1 -------------------------------------------------------------------------------------------


def write_version_1(path, params, **header):
    """What version 1 wrote: one GRU layer, named without numbers."""
    ((gru,),) = params.gru
    arrays = {f"gru.{name}": array for name, array in gru._asdict().items()}
    arrays |= {f"linear.{name}": array for name, array in params.linear._asdict().items()}
    metadata = json.dumps(METADATA)
    digest = hashlib.sha256(metadata.encode())
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    header = {
        "format": "gru-xp",
        "format_version": "1",
        "sha256": digest.hexdigest(),
        "metadata": metadata,
    } | header
    path.write_bytes(safetensors.numpy.save(arrays, metadata=header))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_version_1(cpu, path, problem, dtype):
    params = problem(dtype=dtype).params
    write_version_1(path, params)
    loaded, metadata = load_checkpoint(path, cpu)
    assert_same(loaded, params)
    assert metadata == METADATA
    save_checkpoint(path, loaded, metadata)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata()["format_version"] == "2"
    assert_same(load_checkpoint(path, cpu)[0], params)


def test_version_1_that_is_damaged(cpu, path, problem):
    params = problem().params
    write_version_1(path, params, sha256="0" * 64)
    assert_refused(path, cpu, "a gru-xp model that is damaged; take another copy")


def test_names_of_the_other_version(cpu, path, problem):
    params = problem().params
    write_version_1(path, params, format_version="2")
    assert_refused(path, cpu, "a part missing or damaged")
    write(path, params, format_version="1")
    assert_refused(path, cpu, r"a part missing or damaged \('gru.weight_ih'\)")


# --- files that are no model ------------------------------------------------------------------------------------


def test_missing_file(cpu, path):
    assert_refused(path, cpu, "does not exist")


def test_directory(cpu, path):
    path.mkdir()
    assert_refused(path, cpu, "is a directory")


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"Date,Close\n2004-08-19,100\n", bytes(range(256)) * 5, b"PK\x03\x04" + bytes(60), b"\xff" * 100],
    ids=["empty", "blank", "text", "binary", "zip", "ones"],
)
def test_other_files(cpu, path, content):
    path.write_bytes(content)
    assert_refused(path, cpu, "not a model file")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file(cpu, path, problem, share):
    save_checkpoint(path, problem().params, METADATA)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert_refused(path, cpu, "not a model file")


def test_damaged_header_never_gives_another_error(cpu, path, problem, rng):
    save_checkpoint(path, problem(H=2).params, METADATA)
    content = path.read_bytes()
    header_size = 8 + int.from_bytes(content[:8], "little")
    messages = []
    for position in range(header_size):
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_checkpoint(path, cpu)
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) > header_size / 2
    assert not any("\n" in message for message in messages)


def write(path, params, *, without=(), more=None, **header):
    arrays = {name: np.ascontiguousarray(a) for name, a in named_arrays(params) if name not in without} | (more or {})
    header = {"format": "gru-xp", "format_version": str(FORMAT_VERSION), "metadata": "{}"} | header
    path.write_bytes(safetensors.numpy.save(arrays, metadata={k: v for k, v in header.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": None}, "not a gru-xp model"),
        ({"format": "pt"}, "not a gru-xp model"),
        ({"format_version": "99"}, "format version 99; this gru-xp reads versions up to 2"),
        ({"format_version": "0"}, "format version 0; this gru-xp reads versions up to 2"),
        ({"format_version": "2.0"}, "format version 2.0"),
        ({"format_version": None}, "format version None"),
        ({"metadata": None}, "missing or damaged"),
        ({"metadata": "{"}, "missing or damaged"),
        ({"without": ["gru.0.0.bias_hn"]}, "missing or damaged .*gru.0.0.bias_hn"),
        ({"without": ["linear.weight", "linear.bias"]}, "missing or damaged .*linear.weight"),
    ],
)
def test_foreign_safetensors(cpu, path, problem, changes, message):
    params = problem().params
    write(path, params)
    load_checkpoint(path, cpu)
    write(path, params, **changes)
    assert_refused(path, cpu, message)


def parts_of(*where):
    """Names of all parameters of layers and directions, such as ``"1.0"``."""
    return [f"gru.{place}.{name}" for place in where for name in GRUParams._fields]


@pytest.mark.parametrize(
    "without",
    [
        parts_of("0.0"),
        parts_of("0.1"),
        parts_of("1.0"),
        parts_of("1.1"),
        parts_of("2.1"),
        parts_of("0.0", "0.1"),
        parts_of("1.0", "1.1"),
        parts_of("0.0", "1.0", "2.0"),
        parts_of("0.0", "0.1", "1.0", "1.1", "2.0", "2.1"),
        ["gru.1.1.bias"],
        ["gru.2.0.weight_ih"],
    ],
    ids=lambda names: " ".join(sorted({name.removeprefix("gru.") for name in names}))[:30],
)
def test_layers_and_directions_that_are_missing(cpu, path, problem, without):
    params = problem(num_layers=3, bidirectional=True).params
    write(path, params)
    assert_same(load_checkpoint(path, cpu)[0], params)
    write(path, params, without=without)
    assert_refused(path, cpu, "a gru-xp model with a part missing or damaged")


@pytest.mark.parametrize(
    "name",
    [
        "gru.1.weight_ih",
        "gru.2.0.bias",
        "gru.0.1.bias",
        "gru.0.2.bias",
        "gru.bias",
        "gru.x.0.bias",
        "gru.00.0.bias",
        "gru.-1.0.bias",
    ],
)
def test_parts_that_no_layer_has(cpu, path, problem, name):
    params = problem().params
    write(path, params, more={name: np.ones(5)})
    assert_refused(path, cpu, "a gru-xp model with a part missing or damaged")


# --- writing ----------------------------------------------------------------------------------------------------


def interrupted(self, content):
    with self.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(28, "No space left on device")


def test_a_failed_write_leaves_the_old_file(cpu, path, problem, monkeypatch):
    old = problem().params
    save_checkpoint(path, old, METADATA)
    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device"):
        save_checkpoint(path, problem().params, {})
    loaded, metadata = load_checkpoint(path, cpu)
    assert_same(loaded, old)
    assert metadata == METADATA
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_write_that_does_not_read_back_leaves_the_old_file(cpu, path, problem, monkeypatch):
    old, new = problem().params, problem().params
    save_checkpoint(path, old, METADATA)
    save = safetensors.numpy.save

    def damage(arrays, metadata):
        return save(arrays | {"linear.bias": arrays["linear.bias"] + 1e-9}, metadata=metadata)

    monkeypatch.setattr(safetensors.numpy, "save", damage)
    with pytest.raises(CheckpointError, match="does not read back"):
        save_checkpoint(path, new, {})
    assert_same(load_checkpoint(path, cpu)[0], old)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_json_cannot_hold_leaves_the_old_file(cpu, path, problem):
    save_checkpoint(path, problem().params, METADATA)
    with pytest.raises(TypeError):
        save_checkpoint(path, problem().params, {"scale": json})
    assert load_checkpoint(path, cpu)[1] == METADATA


def test_a_new_model_replaces_the_old_one(cpu, path, problem):
    save_checkpoint(path, problem(H=3).params, METADATA)
    params = problem(H=4).params
    save_checkpoint(str(path), params, {"n": 2})
    loaded, metadata = load_checkpoint(str(path), cpu)
    assert_same(loaded, params)
    assert metadata == {"n": 2}


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no file that is open")
def test_who_has_the_old_file_open_goes_on_reading_it(path, problem):
    save_checkpoint(path, problem(H=3).params, METADATA)
    old = path.read_bytes()
    with path.open("rb") as file:
        save_checkpoint(path, problem(H=4).params, METADATA)
        assert file.read() == old != path.read_bytes()


def test_no_such_folder(path, problem):
    with pytest.raises(CheckpointError, match=r"cannot be written \(there is no folder .*; make it first"):
        save_checkpoint(path.parent / "no" / path.name, problem().params, {})


def test_a_folder_in_the_way(path, problem):
    path.mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(path, problem().params, {})
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["file.txt/model.safetensors", "m" * 300])
def test_impossible_paths(path, problem, name):
    (path.parent / "file.txt").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(path.parent / name, problem().params, {})
