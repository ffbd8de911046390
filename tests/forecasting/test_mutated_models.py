"""Files of models and checkpoints that were changed at random: each is refused with a CheckpointError, or works."""

import copy
import functools
import hashlib
import itertools
import json
import warnings
from datetime import datetime

import numpy as np
import pytest

from gru_xp import Forecaster
from gru_xp.devices import resolve_device
from gru_xp.errors import CheckpointError, GruXpError
from gru_xp.forecasting.checkpoint import load_checkpoint, save_checkpoint
from gru_xp.io.series import TimeSeries
from gru_xp.nn.params import named_arrays
from gru_xp.training.optimizers import STATE_SHAPES

NASTY = [
    *(None, True, False, 0, -1, 1, 2, 3, 5, 0.5, -0.0, 1e-320, 1e308, 10**9, 2**63, 10**18, 10**399, -(10**399)),
    *("", "x", "\x1b[31m\n\x00", "../../../etc/passwd", "/dev/zero", "$\\frac{", "<b>", "0", "1", "2", "3", "\ud800"),
    *("float32", "float64", "F32", "F64", "I64", "BF16", "last", "standard", "after", "adam", "sgd", "gru-xp", "[["),
    *([], [[]], {}, {"": {}}, [0], [0, 8], [1.0, 2.0], ["a", "b"], [0] * 1000, {"a": [{"b": None}]}, "y" * 10_000),
    *(float("nan"), float("inf"), -float("inf")),
]
NASTY.append(functools.reduce(lambda inner, _: [inner], range(200), 1))


CPU = resolve_device("cpu")


@pytest.fixture(scope="module")
def originals():
    """Bytes of models of several kinds."""
    rng = np.random.default_rng(3)
    series = 50.0 + np.cumsum(rng.standard_normal((40, 2)), axis=0)
    settings = {"seq_length": 3, "hidden_size": 2, "num_epochs": 1}
    return [
        Forecaster(**settings, **more).fit(series[:, :columns], device="cpu")
        for columns, more in (
            (1, {}),
            (2, {"dtype": "float64", "scaling": "standard", "reset": "after"}),
            (2, {"num_layers": 2, "bidirectional": True, "dropout": 0.1}),
        )
    ]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Bytes of checkpoints of several kinds."""
    rng = np.random.default_rng(4)
    path = tmp_path_factory.mktemp("checkpoints") / "checkpoint.safetensors"
    days = [datetime(2024, 2, 20 + row) for row in range(10)] + [datetime(2024, 3, 1 + row) for row in range(10)]
    labels = tuple(f"{day:%Y-%m-%d}" for day in days)
    contents = []
    for columns, fields, settings in (
        (1, {"labels": labels, "dates": tuple(days)}, {"batch_size": 4, "validation_ratio": 0.3}),
        (2, {"labels": labels, "observed": rng.random((20, 2)) < 0.8}, {"optimizer": "momentum", "dtype": "float64"}),
        (1, {}, {"optimizer": "sgd", "batch_size": 5, "zoneout": 0.2, "validation_ratio": 0.0}),
    ):
        values = 50.0 + np.cumsum(rng.standard_normal((20, columns)), axis=0)
        series = TimeSeries(values, ("Close", "Open")[:columns], **fields)
        forecaster = Forecaster(seq_length=3, hidden_size=2, num_epochs=2, learning_rate=1e-3, **settings)

        def pause(epoch, batches, state, forecaster=forecaster, series=series):
            save_checkpoint(path, forecaster, state(), series, {"file": "own.csv", "threads": 2})

        forecaster.fit(series, device="cpu", pause=pause)
        contents.append(path.read_bytes())
    return contents


# --- changes ----------------------------------------------------------------------------------------------------


def change_bytes(rng, content):
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        content[rng.integers(len(content))] = rng.integers(256)
    return content


def flip_bit(rng, content):
    content = bytearray(content)
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return content


def change_length(rng, content):
    length = [0, 1, 2, 2**21, 2**32, 2**63, 2**64 - 1, int(rng.integers(4000))][rng.integers(8)]
    return length.to_bytes(8, "little") + content[8:]


def insert(rng, content):
    at = rng.integers(len(content) + 1)
    return content[:at] + rng.bytes(rng.integers(1, 40)) + content[at:]


def cut_out(rng, content):
    start, stop = sorted(rng.integers(len(content) + 1, size=2))
    return content[:start] + content[stop:]


def cut_off(rng, content):
    return content[: rng.integers(len(content))]


def repeat(rng, content):
    start, stop = sorted(rng.integers(len(content) + 1, size=2))
    return content[:stop] + content[start:]


def swap(rng, content):
    a, b, c = sorted(rng.integers(len(content) + 1, size=3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def places(value):
    """All containers in a JSON value, with each of their keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def change_place(rng, value, nasty):
    """Change one thing anywhere in a JSON value."""
    found = list(places(value))
    holder, key = found[rng.integers(len(found))]
    nasty = copy.deepcopy(nasty)
    how = rng.integers(8)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[str(nasty)[:20]] = holder[key]
    elif how == 2 and isinstance(holder, dict):
        other, other_key = found[rng.integers(len(found))]
        holder[key] = copy.deepcopy(other[other_key])
    elif how == 3 and isinstance(holder, list):
        holder.append(nasty)
    else:
        holder[key] = nasty


def split(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header, data, *, twice=False):
    """A file whose checksum is right, where that can be."""
    texts = header.get("__metadata__")
    try:
        digest = hashlib.sha256(texts["metadata"].encode())
        for name in sorted(header.keys() - {"__metadata__"}):
            digest.update(name.encode() + data[slice(*header[name]["data_offsets"])])
        texts["sha256"] = digest.hexdigest()
    except (TypeError, KeyError, ValueError, AttributeError):
        pass
    text = json.dumps(header)
    if twice:  # one more time what stands there first
        text = text[:-1] + ", " + text[1:]
    return len(text.encode()).to_bytes(8, "little") + text.encode() + data


def change_header(rng, content):
    header, data = split(content)
    change_place(rng, header, NASTY[rng.integers(len(NASTY))])
    return join(header, data, twice=rng.integers(20) == 0)


def change_description(rng, content):
    header, data = split(content)
    description = json.loads(header["__metadata__"]["metadata"])
    for _ in range(rng.integers(1, 3)):
        change_place(rng, description, NASTY[rng.integers(len(NASTY))])
        if not description:
            break
    text = json.dumps(description)
    header["__metadata__"]["metadata"] = text[:-1] + ", " + text[1:] if rng.integers(20) == 0 else text
    return join(header, data)


def change_numbers(rng, content):
    header, data = split(content)
    name = list(header)[rng.integers(1, len(header))]
    dtype = {"F32": np.float32, "F64": np.float64, "U8": np.uint8}[header[name]["dtype"]]
    start, stop = header[name]["data_offsets"]
    numbers = np.frombuffer(data[start:stop], dtype).copy()
    nasty = [np.nan, np.inf, -np.inf, 1e30, 0.0][rng.integers(5)] if numbers.itemsize > 1 else rng.integers(256)
    numbers[rng.integers(len(numbers))] = nasty
    return join(header, data[:start] + numbers.tobytes() + data[stop:])


CHANGES = [
    *(change_bytes, flip_bit, change_length, insert, cut_out, cut_off, repeat, swap),
    *(change_header, change_header, change_description, change_description, change_numbers),
]


# --- tests ------------------------------------------------------------------------------------------------------


def assert_valid(model, predicts=True):
    """What a file that is taken must be."""
    arrays = dict(named_arrays(model.params))
    specs = model.architecture().specs()
    assert arrays.keys() == specs.keys()
    for name, array in arrays.items():
        assert (array.dtype, array.shape) == (specs[name].dtype, specs[name].shape)
        assert np.isfinite(array).all()
    assert all(isinstance(column, str) for column in model.columns)
    scaler = model.scaler
    assert {len(scaler.mean), len(scaler.std), len(scaler.change_std)} == {len(model.columns)}
    assert np.isfinite([*scaler.mean, *scaler.std, *scaler.change_std]).all()
    assert min(*scaler.std, *scaler.change_std) > 0
    json.dumps([model.settings(), model.notes], allow_nan=False)
    if not predicts:
        return
    rows = np.random.default_rng(0).standard_normal((12, len(model.columns)))
    try:
        with np.errstate(all="ignore"):
            assert model.predict(rows).shape == (12 - model.seq_length,)
    except GruXpError:  # such as a window longer than the series
        pass


def assert_valid_checkpoint(checkpoint, goes_on=True):
    """What a file that is taken must be."""
    forecaster, state, series = checkpoint.forecaster, checkpoint.state, checkpoint.series
    P = sum(int(np.prod(spec.shape)) for spec in forecaster.architecture().specs().values())
    shapes = {name: (P,) if whole else (1,) for name, whole in STATE_SHAPES[forecaster.optimizer].items()}
    assert {name: array.shape for name, array in state.optimizer.items()} == shapes
    for array in (state.theta, state.best_theta, *state.optimizer.values()):
        assert array.dtype == forecaster.dtype
        assert np.isfinite(array).all()
    assert state.theta.shape == state.best_theta.shape == (P,)
    assert state.best_epoch <= state.epoch == len(state.history) - 1
    assert series.columns == forecaster.columns
    assert series.values.shape == (len(series), len(series.columns))
    assert np.isfinite(series.values).all()
    assert (series.observed is not None) == forecaster.sees_gaps
    for texts in (series.labels, series.dates):
        assert texts is None or len(texts) == len(series)
    json.dumps([forecaster.settings(), forecaster.notes, checkpoint.run, series.missing], allow_nan=False)
    if not goes_on:
        return
    stops = itertools.count()
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # such as a learning rate that is too large
            forecaster.fit(series, device=CPU, state=state, pause=lambda *_: next(stops) > 5)
    except GruXpError:  # such as windows longer than the series
        pass


def check(contents, load, assert_valid, path, count, seed):
    """Counts of files that are refused and of files that are taken."""
    rng = np.random.default_rng(seed)
    path.write_bytes(b"")
    refused = taken = 0
    for _ in range(count):
        content = contents[rng.integers(len(contents))]
        with path.open("r+b") as file:  # to make a new one takes longer than all the rest
            file.truncate(file.write(CHANGES[rng.integers(len(CHANGES))](rng, content)))
        try:
            loaded = load(path)
        except CheckpointError as error:
            refused += 1
            message = str(error)
            assert message.startswith(f"{path}: ")
            assert message.isprintable()
            assert len(message) < len(str(path)) + 500
        else:
            taken += 1
            assert_valid(loaded, taken % 10 == 0)
    return refused, taken


def check_models(originals, path, count, seed):
    contents = []
    for model in originals:
        model.save(path)
        contents.append(path.read_bytes())
    load = functools.partial(Forecaster.load, device=CPU)
    return check(contents, load, assert_valid, path, count, seed)


def test_originals_are_taken(originals, tmp_path):
    for number, model in enumerate(originals):
        model.save(tmp_path / str(number))
        header, data = split((tmp_path / str(number)).read_bytes())
        (tmp_path / "again").write_bytes(join(header, data))
        assert_valid(Forecaster.load(tmp_path / "again", device="cpu"))


def test_mutated_files(originals, tmp_path):
    refused, taken = check_models(originals, tmp_path / "model.safetensors", 400, seed=1)
    assert refused > 240
    assert taken > 12


@pytest.mark.slow
def test_a_hundred_thousand_mutated_files(originals, tmp_path, share):
    count = round(100_000 * share)
    refused, taken = check_models(originals, tmp_path / "model.safetensors", count, seed=2)
    print(f"{refused} refused, {taken} taken")
    assert refused > 0.6 * count
    assert taken > 0.03 * count


def test_original_checkpoints_are_taken(checkpoints, tmp_path):
    for content in checkpoints:
        (tmp_path / "again").write_bytes(join(*split(content)))
        assert_valid_checkpoint(load_checkpoint(tmp_path / "again"))


def test_mutated_checkpoints(checkpoints, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    refused, taken = check(checkpoints, load_checkpoint, assert_valid_checkpoint, path, 400, seed=5)
    assert refused > 240
    assert taken > 12


@pytest.mark.slow
def test_ten_thousand_mutated_checkpoints(checkpoints, tmp_path, share):
    path, count = tmp_path / "checkpoint.safetensors", round(10_000 * share)
    refused, taken = check(checkpoints, load_checkpoint, assert_valid_checkpoint, path, count, seed=6)
    print(f"{refused} refused, {taken} taken")
    assert refused > 0.6 * count
    assert taken > 0.03 * count
