import json
import os
import pickle

import numpy as np
import pytest
import safetensors.numpy

from gru_xp.errors import ArgumentError, CheckpointError, DataError
from gru_xp.nn.params import arrays_of, map_arrays, named_arrays
from gru_xp.pretrained import weights as module
from gru_xp.pretrained.features import HEAD
from gru_xp.pretrained.network import init_zero_shot_params
from gru_xp.pretrained.weights import default_weights, has_default_weights, load_weights, save_weights
from gru_xp.training.tensors import write_tensors


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


@pytest.fixture
def written(path, weights):
    save_weights(path, weights.params, widths=weights.widths, metadata={"seed": "1", "ü": "€\n"})
    return path


def test_weights_come_back_in_half_precision(written, weights):
    loaded = load_weights(written)
    assert loaded.metadata == {"seed": "1", "ü": "€\n"}
    np.testing.assert_allclose(loaded.widths, weights.widths, rtol=1e-7)
    expected = dict(named_arrays(weights.params))
    for name, array in named_arrays(loaded.params):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name].astype(np.float16).astype(np.float32), err_msg=name)
    assert type(loaded.params) is type(weights.params)


def test_a_file_of_the_real_size_is_small(path):
    params = init_zero_shot_params(xp=np, seed=1, dtype=np.float32)
    save_weights(path, params, metadata={"corpus": "x" * 5000})
    assert os.path.getsize(path) <= 3_000_000
    loaded = load_weights(path)
    assert [array.shape for array in arrays_of(loaded.params)] == [array.shape for array in arrays_of(params)]
    np.testing.assert_array_equal(loaded.widths, np.ones(HEAD))


def test_other_libraries_read_them(written, weights):
    held = safetensors.numpy.load_file(written)
    np.testing.assert_array_equal(held["first.weight_hh"], weights.params.first.weight_hh.astype(np.float16))


def test_weights_can_be_pickled(weights):
    again = pickle.loads(pickle.dumps(weights))
    for ours, theirs in zip(arrays_of(again.params), arrays_of(weights.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_files_that_are_damaged_are_refused(written, refused):
    content = written.read_bytes()
    middle = len(content) // 2
    for case, damaged in {
        "a number": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "the end": content[:-1],
        "more": content + b"\0",
        "the start": content[1:],
        "nothing": b"",
    }.items():
        written.write_bytes(damaged)
        with refused(CheckpointError, str(written), case=case):
            load_weights(written)


def write(path, weights, change, **changes):
    """A file with the right checksum, but for what is changed."""
    arrays = {name: array.astype(np.float16) for name, array in named_arrays(weights.params)}
    arrays["widths"] = weights.widths.astype(np.float32)
    save_weights(path, weights.params)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    description = json.loads(json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]["metadata"])
    change(arrays)
    write_tensors(path, arrays, kind="pretrained network", version=1, description=description | changes)


def set_part(name, value):
    def change(arrays):
        arrays[name] = arrays[name].copy()
        arrays[name][0] = value

    return change


@pytest.mark.parametrize(
    ("change", "changes", "part"),
    [
        (lambda arrays: arrays.pop("norm.bias"), {}, "norm.bias"),
        (lambda arrays: arrays.update(more=np.ones(2, np.float16)), {}, "more"),
        (lambda arrays: arrays.update({"norm.bias": np.ones(3, np.float16)}), {}, "norm.bias"),
        (set_part("head.bias", np.inf), {}, "head.bias"),
        (set_part("widths", 0), {}, "widths"),
        (lambda arrays: None, {"hidden_size": 7}, "weight"),
        (lambda arrays: None, {"hidden_size": 10**9}, "hidden_size"),
        (lambda arrays: None, {"hidden_size": True}, "hidden_size"),
        (lambda arrays: None, {"steps": 32}, "steps"),
        (lambda arrays: None, {"levels": [0.5]}, "levels"),
        (lambda arrays: None, {"metadata": {"a": 1}}, "metadata"),
        (lambda arrays: None, {"unknown": 1}, "unknown"),
    ],
)
def test_files_of_other_networks_are_refused(path, weights, refused, change, changes, part):
    write(path, weights, change, **changes)
    with refused(CheckpointError, str(path), part):
        load_weights(path)


def test_other_files_are_refused(tmp_path, path, weights, refused):
    write_tensors(path, {"a": np.ones(2)}, kind="model", version=3, description={})
    for wrong in (path, tmp_path, tmp_path / "nowhere"):
        with refused(CheckpointError, str(wrong)):
            load_weights(wrong)
    with refused(ArgumentError, "path"):
        load_weights(7)


def test_what_cannot_be_kept_is_refused(path, weights, refused):
    large = map_arrays(lambda array: 1e6 * array, weights.params)
    with refused(ArgumentError, "float16"):
        save_weights(path, large)
    for widths in (np.ones(3), np.zeros(HEAD), np.full(HEAD, np.nan)):
        with refused(ArgumentError, "widths"):
            save_weights(path, weights.params, widths=widths)
    with refused(ArgumentError, "metadata"):
        save_weights(path, weights.params, metadata={"seed": 1})
    assert not path.exists()


def test_default_weights(tmp_path, weights, monkeypatch, refused):
    monkeypatch.setattr(module, "files", lambda package: tmp_path)
    default_weights.cache_clear()
    try:
        assert not has_default_weights()
        with refused(DataError, "gru_xp.pretrained", "weights"):
            default_weights()
        save_weights(tmp_path / module.WEIGHTS_FILE, weights.params)
        assert has_default_weights()
        assert default_weights() is default_weights()
    finally:
        default_weights.cache_clear()
