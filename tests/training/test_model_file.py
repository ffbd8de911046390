import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy

from gru_xp.devices import resolve_device
from gru_xp.errors import CheckpointError
from gru_xp.nn.params import GRUParams, map_arrays, named_arrays
from gru_xp.training.model_file import FORMAT_VERSION, LARGEST_STATE, MOST_LAYERS, Architecture, load_model, save_model
from gru_xp.training.tensors import TensorSpec, write_tensors

METADATA = {"settings": {"seq_length": 3, "ratio": 0.1, "none": None}, "columns": ["a", "ü"], "deep": [[1], {"b": 2.5}]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def architecture(params, patch=1):
    first, linear = params.gru[0], params.linear
    return Architecture(
        first[0].input_size // patch,
        first[0].hidden_size,
        linear.weight.shape[0],
        len(params.gru),
        len(first) == 2,
        linear.weight.dtype.name,
        first[0].reset,
        patch,
        None if params.skip is None else params.skip.weight.shape[1],
    )


def load(path, cpu, like):
    """The model in a file that describes one like this."""
    return load_model(path, cpu, lambda description: architecture(like))


def assert_same(actual, desired):
    assert type(actual) is type(desired)
    assert [list(map(type, layer)) for layer in actual.gru] == [list(map(type, layer)) for layer in desired.gru]
    desired = dict(named_arrays(desired))
    assert dict(named_arrays(actual)).keys() == desired.keys()
    for name, array in named_arrays(actual):
        assert array.dtype == desired[name].dtype, name
        np.testing.assert_array_equal(array, desired[name], err_msg=name)


@pytest.fixture
def assert_refused(path, cpu, refused):
    """``assert_refused(like, *parts, case="")``: the file holds no such model, which one line with these parts says."""

    def assert_refused(like, *parts, case=""):
        with refused(CheckpointError, str(path), *parts, case=case):
            load(path, cpu, like)

    return assert_refused


# --- round trips ------------------------------------------------------------------------------------------------


LAYERS = (
    {},
    {"num_layers": 3, "reset": "after"},
    {"bidirectional": True, "reset": "after"},
    {"num_layers": 12, "bidirectional": True},
    {"patch": 3, "skip": 4, "reset": "after"},
)


@pytest.mark.compat
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bit_comes_back(cpu, path, problem, dtype):
    for layers in LAYERS:
        params = problem(dtype=dtype, **layers).params
        save_model(path, params, METADATA)
        loaded, metadata = load(path, cpu, params)
        assert_same(loaded, params)
        assert metadata == METADATA
        assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_extreme_numbers_come_back(cpu, path, problem):
    params = problem(H=2, O=1).params
    gru = params.gru[0][0]
    gru.weight_hh[0, :] = [5e-324, 1.7976931348623157e308]
    gru.bias[:3] = [0.1 + 0.2, -0.0, 2.0**-1074]
    save_model(path, params, {})
    loaded, _ = load(path, cpu, params)
    assert_same(loaded, params)
    assert np.signbit(loaded.gru[0][0].bias[1])


def test_arrays_in_any_memory_order(cpu, path, problem):
    params = problem().params
    ((gru,),) = params.gru
    strided = np.repeat(gru.bias, 3)[::3]
    gru = gru._replace(weight_ih=np.asfortranarray(gru.weight_ih), weight_hh=gru.weight_hh.T.copy().T, bias=strided)
    params = params._replace(gru=((gru,),), linear=params.linear._replace(weight=params.linear.weight[:, ::-1]))
    assert not any(a.flags.c_contiguous for a in (*gru[:3], params.linear.weight))
    save_model(path, params, {})
    assert_same(load(path, cpu, params)[0], params)


def test_parameters_of_every_namespace(xp, cpu, path, problem):
    params = problem(dtype="float32", num_layers=2).params
    save_model(path, map_arrays(xp.asarray, params), {})
    assert_same(load(path, cpu, params)[0], params)


@pytest.mark.cuda
def test_a_model_goes_to_another_device_and_back(cpu, path, problem):
    params = problem(num_layers=2, bidirectional=True).params
    save_model(path, params, METADATA)
    on_gpu, _ = load(path, resolve_device("cuda"), params)
    save_model(path, on_gpu, METADATA)
    assert_same(load(path, cpu, params)[0], params)


def test_the_loaded_arrays_can_be_written(cpu, path, problem):
    params = problem().params
    save_model(path, params, {})
    loaded, _ = load(path, cpu, params)
    loaded.gru[0][0].bias[0] = 7.0
    assert load(path, cpu, params)[0].gru[0][0].bias[0] == params.gru[0][0].bias[0]


def test_other_programs_can_read_the_arrays(path, problem):
    params = problem(num_layers=2, bidirectional=True, reset="after").params
    save_model(path, params, {})
    arrays = safetensors.numpy.load_file(path)
    names = [f"gru.{where}.{name}" for where in ("0.0", "0.1", "1.0", "1.1") for name in GRUParams._fields]
    assert sorted(arrays) == sorted([*names, "linear.weight", "linear.bias"])
    np.testing.assert_array_equal(arrays["linear.weight"], params.linear.weight)
    np.testing.assert_array_equal(arrays["gru.1.0.weight_hh"], params.gru[1][0].weight_hh)
    np.testing.assert_array_equal(arrays["gru.0.1.bias"], params.gru[0][1].bias)


# --- older format versions --------------------------------------------------------------------------------------


def with_unused(params):
    """The parameters as versions 1 and 2 had them: with a `bias_hn`, used or not."""
    gru = tuple(
        tuple(layer._replace(bias_hn=np.full(layer.hidden_size, 0.25, layer.bias.dtype)) for layer in layers)
        for layers in params.gru
    )
    return params if params.gru[0][0].reset == "after" else params._replace(gru=gru)


def write_version_1(path, params, without=(), **header):
    """What version 1 wrote: one GRU layer, named without numbers."""
    params = with_unused(params)
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
    header = {name: text for name, text in header.items() if name not in without}
    path.write_bytes(safetensors.numpy.save(arrays, metadata=header))


@pytest.mark.compat
def test_version_2(cpu, path, problem, assert_refused, reset):
    params = problem(num_layers=2, bidirectional=True).params
    write(path, with_unused(params), version=2)
    loaded, metadata = load(path, cpu, params)
    assert_same(loaded, params)
    assert metadata == METADATA
    write(path, with_unused(params), version=2, without=["gru.0.1.bias_hn"])
    assert_refused(params, "'gru.0.1.bias_hn' is missing")
    if reset == "before":
        write(path, with_unused(params))
        assert_refused(params, "'gru.0.0.bias_hn' is unknown")


@pytest.mark.compat
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_version_1(cpu, path, problem, dtype, reset):
    params = problem(dtype=dtype).params
    write_version_1(path, params)
    loaded, metadata = load(path, cpu, params)
    assert_same(loaded, params)
    assert metadata == METADATA
    save_model(path, loaded, metadata)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata()["format_version"] == str(FORMAT_VERSION)
    assert_same(load(path, cpu, params)[0], params)


def test_version_1_that_is_damaged(path, problem, assert_refused):
    params = problem().params
    write_version_1(path, params, sha256="0" * 64)
    assert_refused(params, "damaged")


def test_version_1_without_a_checksum(cpu, path, problem):
    params = problem().params
    write_version_1(path, params, without=["sha256"])
    assert_same(load(path, cpu, params)[0], params)


def test_version_1_had_one_layer_in_one_direction(path, problem, assert_refused):
    write_version_1(path, problem().params)
    for layers in ({"num_layers": 2}, {"bidirectional": True}):
        assert_refused(problem(**layers).params, "more than one layer or direction", "version 1", case=layers)


def test_names_of_the_other_version(path, problem, assert_refused):
    params = problem().params
    write_version_1(path, params, format_version="2")
    assert_refused(params, "'gru.0.0.bias' is missing")
    write(path, with_unused(params), version=1)
    assert_refused(params, "'gru.0.0.bias' is unknown")


def test_older_versions_had_neither_patches_nor_a_skip(path, cpu, problem, refused):
    params = problem().params
    write(path, with_unused(params), version=2)
    for more in ({"patch_size": 2, "input_size": 1}, {"skip_length": 4}):
        with refused(CheckpointError, str(path), "patches or a skip", "version 2", case=more):
            load_model(path, cpu, lambda _, more=more: architecture(params)._replace(**more))


# --- parts ------------------------------------------------------------------------------------------------------


def write(path, params, *, without=(), more=None, version=FORMAT_VERSION):
    arrays = {name: array for name, array in named_arrays(params) if name not in without} | (more or {})
    write_tensors(path, arrays, kind="model", version=version, description=METADATA)


def parts_of(*where):
    """Names of all parameters of layers and directions, such as ``"1.0"``."""
    return [f"gru.{place}.{name}" for place in where for name in GRUParams._fields[:-1]]


def test_parts_that_are_missing(cpu, path, problem, assert_refused):
    params = problem(num_layers=3, bidirectional=True).params
    write(path, params)
    assert_same(load(path, cpu, params)[0], params)
    for without in (
        parts_of("0.0"),
        parts_of("1.1"),
        parts_of("0.1", "1.1", "2.1"),
        parts_of("0.0", "0.1", "1.0", "1.1", "2.0", "2.1"),
        ["gru.1.1.bias"],
        ["linear.weight", "linear.bias"],
    ):
        write(path, params, without=without)
        assert_refused(params, f"'{min(without)}' is missing", case=without)


def test_parts_that_no_layer_has(path, problem, assert_refused):
    params = problem().params
    for name in ("gru.1.0.bias", "gru.0.1.bias", "gru.bias", "gru.00.0.bias", "gru.-1.0.bias", "\x1b"):
        write(path, params, more={name: np.ones(5)})
        assert_refused(params, f"{name!r} is unknown")


def test_a_description_of_another_network(path, problem, assert_refused):
    save_model(path, problem().params, METADATA)
    for other, part in (
        ({"H": 6}, "gru.0.0.weight_ih"),
        ({"I": 3}, "gru.0.0.weight_ih"),
        ({"O": 1}, "linear.weight"),
        ({"dtype": "float32"}, "instead of F32"),
        ({"num_layers": 2}, "'gru.1.0.bias' is missing"),
        ({"bidirectional": True}, "'gru.0.1.bias' is missing"),
        ({"reset": "after"}, "'gru.0.0.bias_hn' is missing"),
        ({"patch": 2}, "gru.0.0.weight_ih"),
        ({"skip": 4}, "'skip.bias' is missing"),
    ):
        assert_refused(problem(**other).params, part, case=other)


def test_numbers_that_are_not_finite(path, problem, assert_refused):
    for value in (np.nan, np.inf, -np.inf):
        params = problem().params
        params.gru[0][0].bias[1] = value
        save_model(path, params, METADATA)
        assert_refused(params, "'gru.0.0.bias'", "not finite", case=value)


def test_more_than_any_network_has(cpu, path, problem, refused):
    params = problem().params
    save_model(path, params, METADATA)
    for sizes in ({"num_layers": MOST_LAYERS + 1}, {"num_layers": 10**18}, {"hidden_size": LARGEST_STATE + 1}):
        with refused(CheckpointError, str(path), f"{MOST_LAYERS}", f"{LARGEST_STATE:,}", case=sizes):
            load_model(path, cpu, lambda _, sizes=sizes: architecture(params)._replace(**sizes))


def test_a_missing_file(problem, assert_refused):
    assert_refused(problem().params, "does not exist", "model.safetensors")


# --- architecture -----------------------------------------------------------------------------------------------


def test_an_architecture_names_the_parameters_in_their_order(problem):
    for layers in LAYERS:
        params = problem(H=3, dtype="float32", **layers).params
        arrays = dict(named_arrays(params))
        specs = architecture(params, layers.get("patch", 1)).specs()
        assert list(specs) == list(arrays)
        assert specs == {name: TensorSpec("float32", array.shape) for name, array in arrays.items()}
        assert_same(architecture(params).build(arrays), params)


# --- writing ----------------------------------------------------------------------------------------------------


def test_what_json_cannot_hold_leaves_the_old_file(cpu, path, problem):
    params = problem().params
    save_model(path, params, METADATA)
    with pytest.raises(TypeError):
        save_model(path, problem().params, {"scale": json})
    assert load(path, cpu, params)[1] == METADATA


def test_a_new_model_replaces_the_old_one(cpu, path, problem):
    save_model(path, problem(H=3).params, METADATA)
    params = problem(H=4).params
    save_model(str(path), params, {"n": 2})
    loaded, metadata = load(str(path), cpu, params)
    assert_same(loaded, params)
    assert metadata == {"n": 2}
