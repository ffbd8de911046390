import dataclasses
import hashlib
import json
import os
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from gru_xp.errors import CheckpointError
from gru_xp.forecasting import Forecaster
from gru_xp.forecasting import checkpoint as module
from gru_xp.forecasting.checkpoint import load_checkpoint, save_checkpoint, what_changed
from gru_xp.io.numbers import NumberStyle
from gru_xp.io.series import Reading, TimeSeries
from gru_xp.nn.params import flatten
from gru_xp.training.model_file import load_model

RUN = {
    "file": "Kurse ü.csv",
    "size": 2**40,
    "modified_ns": 1_731_000_000_123_456_789,
    "path": None,
    "deep": [{"a": 0.1}],
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


@pytest.fixture
def learn(small, cpu):
    """``learn(series, **settings)``: a fitted Forecaster, and its states by epoch and batch."""

    def learn(series, **settings):
        states = {}

        def pause(epoch, batches, state):
            states[epoch, batches] = state()

        forecaster = small(**settings)
        forecaster.notes = {"split_ratio": 0.75, "Spalte": "Größe \u2028"}
        return forecaster.fit(series, device=cpu, pause=pause), states

    return learn


@pytest.fixture
def series(walk):
    """``series(columns=1, rows=40, **fields)``: a TimeSeries."""

    def series(columns=1, rows=40, **fields):
        names = ("Close", "Größe $x$", "日付\t")[:columns]
        return TimeSeries(walk(rows, columns), names, **fields)

    return series


def assert_same_state(actual, desired):
    assert actual.optimizer.keys() == desired.optimizer.keys()
    arrays = [(actual.optimizer[name], desired.optimizer[name]) for name in desired.optimizer]
    for array, expected in [*arrays, (actual.theta, desired.theta), (actual.best_theta, desired.best_theta)]:
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        assert array.tobytes() == expected.tobytes()
    for name in ("batches", "largest_norm", "best_epoch", "history", "seconds"):
        assert getattr(actual, name) == getattr(desired, name), name


def assert_same_series(actual, desired):
    assert actual.values.dtype == np.float64
    assert actual.values.tobytes() == desired.values.tobytes()
    for name in ("columns", "labels", "dates", "name", "missing", "reading"):
        assert getattr(actual, name) == getattr(desired, name), name
    if desired.observed is None:
        assert actual.observed is None
    else:
        assert actual.observed.dtype == bool
        np.testing.assert_array_equal(actual.observed, desired.observed)


# --- round trips ------------------------------------------------------------------------------------------------

ROWS = 40
DAYS = [datetime(2023, 12, 20) + timedelta(days=row) for row in range(ROWS)]
ZONED = [
    datetime(2024, 3, 30, 22, 15, 7, 123456, timezone(timedelta(hours=5, minutes=45))) + timedelta(hours=row)
    for row in range(ROWS)
]
LABELS = {
    "none": {},
    "texts": {"labels": tuple(f"Zeile {row} – “ü” 日 \x1b[31m" for row in range(ROWS))},
    "empty texts": {"labels": ("",) * ROWS},
    "days": {"labels": tuple(f"{day:%d.%m.%Y}" for day in DAYS), "dates": tuple(DAYS)},
    "zones": {"labels": tuple(map(str, ZONED)), "dates": tuple(ZONED)},
    "utc": {"labels": tuple(map(str, ZONED)), "dates": tuple(date.astimezone(UTC) for date in ZONED)},
    "reading": {
        "reading": Reading(
            ("Datum", "Uhrzeit"),
            "%d.%m.%Y %H:%M",
            "unsorted",
            3,
            "W-MON",
            2,
            "01.02.2024 10:00",
            ("?", "-200"),
            {"Größe $x$": NumberStyle(",", ".", "€")},
        )
    },
    "name": {"name": "Börse ‘$\\frac{1}{2}$’\n.csv"},
}


@pytest.mark.compat
def test_a_series_comes_back(path, learn, series):
    for columns in (1, 3):
        plain = series(columns)
        forecaster, states = learn(plain.head(30), num_epochs=1)
        for case, fields in LABELS.items():
            whole = dataclasses.replace(plain, **fields)
            save_checkpoint(path, forecaster, states[1, 0], whole, RUN)
            checkpoint = load_checkpoint(path)
            assert_same_series(checkpoint.series, whole)
            assert what_changed(checkpoint.series, whole) is None, (case, columns)
    assert os.listdir(path.parent) == [path.name]


def test_missing_values_come_back(path, learn, series, rng):
    missing = {"how": "mask", "values": 9, "first": "line 3, column Größe $x$"}
    whole = series(3, observed=rng.random((ROWS, 3)) < 0.8, missing=missing)
    forecaster, states = learn(whole, num_epochs=1)
    save_checkpoint(path, forecaster, states[1, 0], whole, RUN)
    checkpoint = load_checkpoint(path)
    assert_same_series(checkpoint.series, whole)
    assert checkpoint.forecaster.sees_gaps
    assert checkpoint.state.theta.size == flatten(forecaster.params).size


SETTINGS = [
    {"optimizer": "sgd", "dtype": "float64", "validation_ratio": 0.0},
    {"optimizer": "momentum", "learning_rate": 1e-3, "batch_size": 7},
    {
        "optimizer": "adam",
        "batch_size": 10,
        "clip_norm": 0.5,
        "scaling": "standard",
        "reset": "after",
        "loss": "gaussian",
    },
    {"dtype": "float64", "num_layers": 2, "bidirectional": True, "dropout": 0.2, "batch_size": 9, "loss": "poisson"},
    {
        "recurrent_dropout": 0.3,
        "zoneout": 0.1,
        "keep_every": 2,
        "patience": 2,
        "learning_rate": 0.3,
        "num_epochs": 5,
        "loss": "quantile",
    },
    {"transform": "sqrt", "minimum": 0.0, "dtype": "float64"},
    {"transform": "diff", "linear_skip": True},
]


MASKED = [SETTINGS[1], SETTINGS[3]]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_training_goes_on_from_its_checkpoint_with_the_same_bits(path, learn, series, cpu, rng, settings):
    """From batches of the first epochs, as a file holds them."""
    whole = series(2, observed=rng.random((ROWS, 2)) < 0.9 if settings in MASKED else None)
    forecaster, states = learn(whole.head(36), **({"num_epochs": 2} | settings))
    for at, state in list(states.items())[SETTINGS.index(settings) % 3 :: 3]:
        save_checkpoint(path, forecaster, state, whole, RUN)
        checkpoint = load_checkpoint(path)
        assert_same_state(checkpoint.state, state)
        described = checkpoint.forecaster
        for name in ("scaler", "columns", "sees_gaps", "notes", "target_transform"):
            assert getattr(described, name) == getattr(forecaster, name), name
        assert described.settings() == forecaster.settings()
        assert not hasattr(described, "params")
        assert (checkpoint.device, checkpoint.versions["numpy"], checkpoint.run) == ("cpu", np.__version__, RUN)
        rest = described.fit(checkpoint.series.head(36), device=cpu, state=checkpoint.state)
        np.testing.assert_array_equal(flatten(rest.params), flatten(forecaster.params), err_msg=str(at))
        assert rest.best_epoch == forecaster.best_epoch
        costs, theirs = ([record.cost for record in each.training.history] for each in (rest, forecaster))
        assert costs == theirs
        np.testing.assert_array_equal(rest.predict(whole), forecaster.predict(whole))


@pytest.fixture
def load_refused(refusal):
    """``load_refused(path, *parts)``: assert that the file is refused in one short line that has each part."""

    def load_refused(path, *parts):
        error = refusal(lambda: load_checkpoint(path), *parts, error=CheckpointError)
        assert str(error).startswith(f"{path}: "), parts
        assert len(str(error)) < len(str(path)) + 500, parts

    return load_refused


def test_a_checkpoint_of_a_training_that_goes_on(path, learn, series, cpu):
    """Written while it learns, by a forecaster that came out of a file itself."""
    whole = series(2)
    forecaster, states = learn(whole, batch_size=9)
    save_checkpoint(path, forecaster, states[1, 2], whole, RUN)
    for _ in range(3):
        first = load_checkpoint(path)

        def pause(epoch, batches, state, first=first):
            save_checkpoint(path, first.forecaster, state(), first.series, first.run)
            return batches == 1

        first.forecaster.fit(first.series, device=cpu, state=first.state, pause=pause)
    last = load_checkpoint(path)
    assert (last.state.epoch, last.state.batches) == (4, 1)
    rest = last.forecaster.fit(last.series, device=cpu, state=last.state)
    np.testing.assert_array_equal(flatten(rest.params), flatten(forecaster.params))


def test_one_state_one_file(path, learn, series):
    whole = series(2, **LABELS["zones"])
    forecaster, states = learn(whole, num_epochs=1)
    contents = set()
    for _ in range(2):
        save_checkpoint(path, forecaster, states[1, 0], whole, RUN)
        contents.add(path.read_bytes())
    assert len(contents) == 1


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.fixture
def written(path, learn, series, rng):
    """A checkpoint with everything; its path."""
    whole = series(2, **LABELS["zones"], observed=rng.random((ROWS, 2)) < 0.9, missing={"how": "mask"})
    forecaster, states = learn(whole, batch_size=9, num_epochs=2)
    save_checkpoint(path, forecaster, states[1, 2], whole, RUN)
    return path


def rewrite(path, change=None, arrays=None):
    """Change the description, and arrays by name, and put a right checksum on it."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    description = json.loads(header["__metadata__"]["metadata"])
    if change is not None:
        change(description)
    header["__metadata__"]["metadata"] = text = json.dumps(description)
    parts = {name: data[slice(*held["data_offsets"])] for name, held in header.items() if name != "__metadata__"}
    for name, change_array in (arrays or {}).items():
        dtype = {"F32": np.float32, "F64": np.float64, "U8": np.uint8}[header[name]["dtype"]]
        parts[name] = change_array(np.frombuffer(parts[name], dtype).copy()).tobytes()
    digest = hashlib.sha256(text.encode())
    for name in sorted(parts):
        digest.update(name.encode() + parts[name])
    header["__metadata__"]["sha256"] = digest.hexdigest()
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(parts.values()))


def update(part, **fields):
    return lambda description: description[part].update(fields)


def remove(part, name):
    return lambda description: description[part].pop(name)


DAMAGES = {
    "another part": (lambda d: d.update(more=1), "'more'"),
    "no run": (lambda d: d.pop("run"), "no 'run'"),
    "a run that is a list": (lambda d: d.update(run=[]), "'run' of it is []; it must be of type dict"),
    "no state": (lambda d: d.update(state=None), "'state' of it is None"),
    "no epochs": (update("state", epochs=0), "the state of no training"),
    "another epoch": (update("state", epochs=3), "'history'", "F64 of [3, 5]"),
    "endless epochs": (update("state", epochs=2**31 - 1), "'history'"),
    "batches": (update("state", batches=10**300), "the state of no training"),
    "negative batches": (update("state", batches=-1), "the state of no training"),
    "best epoch": (update("state", best_epoch=2), "the state of no training"),
    "norm": (update("state", largest_norm=10**399), "too large"),
    "seconds": (update("state", seconds="\x1b"), r"'seconds' of the state is '\x1b'"),
    "state": (update("state", theta=[1.0]), "the state has 'theta'"),
    "rows": (update("series", rows=41), "'series.", "instead of"),
    "no rows": (update("series", rows=0), "not one for the forecaster"),
    "rows as text": (update("series", rows="40"), "'rows' of the series is '40'"),
    "columns": (update("series", columns=["Close"]), "not one for the forecaster"),
    "other columns": (update("series", columns=["Close", "Open"]), "not one for the forecaster"),
    "columns of numbers": (update("series", columns=[1, 2]), "not one for the forecaster"),
    "name": (update("series", name=None), "'name' of the series is None"),
    "gaps": (update("series", observed=False), "not one for the forecaster"),
    "gaps as a number": (update("series", observed=1), "'observed' of the series is 1"),
    "missing": (update("series", missing="mask"), "'missing' of the series is 'mask'"),
    "no labels": (update("series", labels=None), "'series.labels'"),
    "labels": (update("series", labels=7), "'series.labels'", "U8 of [7]"),
    "negative labels": (update("series", labels=-1), "'series.labels'"),
    "no dates": (remove("series", "dates"), "no 'dates'"),
    "reading": (update("series", reading=[]), "'reading' of the series is []"),
    "empty reading": (update("series", reading={}), "the reading has no"),
    "spacing": (lambda d: d["series"]["reading"].update(freq="x"), "freq is 'x'"),
    "time": (lambda d: d["series"]["reading"].update(time=[5]), "'time' of the reading is [5]"),
    "form": (lambda d: d["series"]["reading"].update(date_form=5), "'date_form' of the reading is 5"),
    "language": (lambda d: d["series"]["reading"].update(date_form="%d. %B %Y (xx)"), "xx"),
    "style": (lambda d: d["series"]["reading"].update(styles={"Close": {"a": 1}}), "'a'"),
    "styles": (lambda d: d["series"]["reading"].update(styles={"Close": 5}), "a style of the reading is 5"),
    "settings": (lambda d: d["forecaster"]["settings"].update(hidden_size=6), "instead of"),
    "optimizer": (lambda d: d["forecaster"]["settings"].update(optimizer="sgd"), "'optimizer.mean'"),
    "dtype": (lambda d: d["forecaster"]["settings"].update(dtype="float64"), "instead of F64"),
    "validation": (lambda d: d["forecaster"]["settings"].update(validation_ratio=0.0), "validation"),
    "device": (update("forecaster", device=None), "'device' of it is None"),
    "no device": (update("forecaster", device="\x1b"), r"device is '\x1b'"),
    "versions": (update("forecaster", versions={"numpy": 2}), "versions"),
    "sees no gaps": (update("forecaster", sees_gaps=False), "not one for the forecaster"),
}


def test_damaged_selections(path, learn, series, load_refused):
    whole = series()
    forecaster, states = learn(whole, num_epochs=2, refit=True)
    assert forecaster.selection is not None
    save_checkpoint(path, forecaster, states[0, 0], whole, RUN)
    assert load_checkpoint(path).forecaster.selection == forecaster.selection
    content, none = path.read_bytes(), "a selection of no training"
    for change, arrays, part in (
        (lambda d: d.update(selection=[]), {}, "'selection' of it is []"),
        (lambda d: d["forecaster"]["settings"].update(refit=False), {}, none),
        (update("selection", best_epoch=3), {}, none),
        (update("selection", best_epoch=-1), {}, none),
        (update("selection", stop_reason="\x1b"), {}, none),
        (update("selection", epochs=2**31 - 1), {}, "'selection.history'"),
        (remove("selection", "epochs"), {}, "no 'epochs'"),
        (None, {"selection.history": lambda a: np.where(np.arange(a.size) % 5 == 1, np.nan, a)}, "validation"),
        (None, {"selection.history": lambda a: -a}, "a history whose epoch"),
        (None, {"selection.theta": lambda a: a * np.nan}, "selection.theta"),
    ):
        path.write_bytes(content)
        rewrite(path, change, arrays)
        load_refused(path, "a gru-xp checkpoint", part)


def test_damaged_descriptions(written, load_refused):
    content = written.read_bytes()
    for change, *parts in DAMAGES.values():
        written.write_bytes(content)
        rewrite(written, change)
        load_refused(written, "a gru-xp checkpoint", *parts)


def filled(at, value):
    def fill(array):
        array[at] = value
        return array

    return fill


NUMBERS = {
    "parameters": ("theta", filled(3, np.nan), "'theta'", "not finite"),
    "best parameters": ("best_theta", filled(-1, np.inf), "'best_theta'", "not finite"),
    "optimizer": ("optimizer.square", filled(0, -np.inf), "'optimizer.square'", "not finite"),
    "values": ("series.values", filled(7, np.nan), "'series.values'", "not finite"),
    "large values": ("series.values", filled(3, 1e300), "1e+300", "row 2, column Größe $x$", "1e+150"),
    "large values below 0": ("series.values", filled(0, -1.1e150), "-1.1e+150", "row 1, column Close", "1e+150"),
    "cost": ("history", filled(5, np.nan), "history", "epoch 1"),
    "negative seconds": ("history", filled(8, -1.0), "history", "epoch 1"),
    "norm": ("history", filled(2, 0.5), "history", "epoch 0"),
    "validation": ("history", filled(1, np.nan), "validation"),
    "no text": ("series.labels", filled(4, 0xFF), "'utf-8' codec"),
    "a line more": ("series.labels", filled(4, ord("\n")), "41 labels", "40 rows"),
    "a date less": (
        "series.dates",
        lambda array: np.where(array == ord("\n"), ord("x"), array),
        "1 labels",
        "40 rows",
    ),
    "no date": ("series.dates", filled(5, ord("9")), "month must be"),
}


def test_damaged_numbers(written, load_refused):
    content = written.read_bytes()
    for array, change, *parts in NUMBERS.values():
        written.write_bytes(content)
        rewrite(written, arrays={array: change})
        load_refused(written, *parts)


def test_dates_that_no_file_gives(path, learn, series, load_refused):
    forecaster, states = learn(plain := series(), num_epochs=1)
    for dates, part in (
        (DAYS[::-1], "dates that go back"),
        ([*DAYS[:-1], DAYS[0]], "dates that go back"),
        ([*DAYS[:-1], DAYS[-1].replace(tzinfo=UTC)], "offset-naive and offset-aware"),
    ):
        whole = dataclasses.replace(plain, labels=tuple(map(str, DAYS)), dates=tuple(dates))
        save_checkpoint(path, forecaster, states[1, 0], whole, RUN)
        load_refused(path, part)


def test_older_files_do_not_say_how_they_were_read(written):
    rewrite(written, remove("series", "reading"))
    assert load_checkpoint(written).series.reading == Reading()


def test_what_is_only_rewritten_is_taken(written):
    before = load_checkpoint(written)
    rewrite(written)
    after = load_checkpoint(written)
    assert_same_state(after.state, before.state)
    assert_same_series(after.series, before.series)


def test_models_and_checkpoints_are_not_each_other(written, learn, series, cpu, tmp_path, refusal, load_refused):
    model = tmp_path / "model.safetensors"
    learn(series(), num_epochs=1)[0].save(model)
    load_refused(model, "a gru-xp model, not a gru-xp checkpoint")
    for load in (lambda: Forecaster.load(written, device=cpu), lambda: load_model(written, cpu, None)):
        refusal(load, "a gru-xp checkpoint, not a gru-xp model", error=CheckpointError)


def test_no_file(path, load_refused):
    load_refused(path, "checkpoint.safetensors")
    path.write_text("Date,Close\n2004-08-19,100\n")
    load_refused(path, "not a checkpoint file")


def test_what_could_not_be_read_is_not_written(written, learn, series):
    content = written.read_bytes()
    whole = series()
    forecaster, states = learn(whole, num_epochs=1)
    for run in ({"a": float("nan")}, {"a": "\ud800"}, {"a": "x" * 2**22}):
        with pytest.raises(CheckpointError, match="cannot be written"):
            save_checkpoint(written, forecaster, states[1, 0], whole, run)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(written.parent / "no" / "folder", forecaster, states[1, 0], whole, RUN)
    assert written.read_bytes() == content
    assert os.listdir(written.parent) == [written.name]


# --- what has changed -------------------------------------------------------------------------------------------


@pytest.fixture
def known():
    values = np.array([[1.5, 20.0], [2.5, 0.1 + 0.2], [4.5, 40.0]])
    days = tuple(datetime(2024, 2, 28) + timedelta(days=row) for row in range(3))
    return TimeSeries(values, ("Close", "Open"), tuple(f"{day:%Y-%m-%d}" for day in days), days)


def changed(series, row, column, value):
    values = series.values.copy()
    values[row, column] = value
    return dataclasses.replace(series, values=values)


def test_nothing_has_changed(known):
    other = dataclasses.replace(known, values=known.values.copy(), name="another", notices=("turned round",))
    assert what_changed(known, other) is None
    assert what_changed(dataclasses.replace(known, labels=None), dataclasses.replace(other, labels=None)) is None


def test_every_kind_of_change(known):
    more = TimeSeries(np.vstack([known.values, [[1.0, 2.0]]]), known.columns, (*known.labels, "2024-03-02"))
    bare = dataclasses.replace(known, labels=None)
    gaps = dataclasses.replace(known, observed=np.array([[True, False], [True, True], [True, True]]))
    another = dataclasses.replace(known, labels=("2024-02-28", "a\x1b", "2024-03-01"))
    for before, now, *parts in (
        (known, dataclasses.replace(known, columns=("Close", "\x1b")), r"Close, \x1b", "Close, Open"),
        (known, known.head(2), "2 rows", "3"),
        (known, more, "4 rows", "3"),
        (known, another, "row 2", r"a\x1b", "2024-02-29"),
        (known, bare, "no dates"),
        (bare, known, "dates now"),
        (known, changed(known, 2, 0, -4.5), "Close of 2024-03-01 is -4.5 instead of 4.5"),
        (known, changed(known, 1, 1, 0.3), "Open of 2024-02-29", "0.29999999999999999", "0.30000000000000004"),
        (bare, changed(bare, 0, 0, 1.25), "Close of row 1 is 1.25 instead of 1.5"),
        (known, gaps, "other values are missing"),
        (gaps, known, "other values are missing"),
        (gaps, dataclasses.replace(gaps, observed=~gaps.observed), "other values are missing"),
    ):
        said = what_changed(before, now)
        assert all(part in said for part in parts), (parts, said)


def test_the_first_change_is_told(known):
    other = changed(changed(known, 2, 1, 7.0), 1, 0, 7.0)
    assert what_changed(known, other) == "Close of 2024-02-29 is 7 instead of 2.5"


# --- format version 1 -------------------------------------------------------------------------------------------


@pytest.mark.compat
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "momentum", "sgd"])
@pytest.mark.parametrize("reset", ["before", "after"])
def test_version_1(learn, series, path, monkeypatch, reset, optimizer):
    """It had numbers for a `bias_hn` in both forms, which "before" did not use: they are dropped."""
    rows = series()
    forecaster, states = learn(rows, num_layers=2, bidirectional=True, reset=reset, optimizer=optimizer)
    state, architecture = states[1, 0], forecaster.architecture()
    used = [
        np.full(spec.shape, name in architecture.specs()) for name, spec in architecture.specs(with_unused=True).items()
    ]
    used = np.concatenate([part.reshape(-1) for part in used])
    assert used.all() == (reset == "after")

    def with_unused(array):
        if array.shape != state.theta.shape:
            return array
        wide = np.full(used.shape, 0.25, array.dtype)
        wide[used] = array
        return wide

    old = dataclasses.replace(
        state,
        theta=with_unused(state.theta),
        best_theta=with_unused(state.best_theta),
        optimizer={name: with_unused(array) for name, array in state.optimizer.items()},
    )
    monkeypatch.setattr(module, "FORMAT_VERSION", 1)
    save_checkpoint(path, forecaster, old, rows, RUN)
    monkeypatch.undo()
    assert_same_state(load_checkpoint(path).state, state)
    if reset == "before":
        save_checkpoint(path, forecaster, old, rows, RUN)
        with pytest.raises(CheckpointError, match="theta"):
            load_checkpoint(path)
