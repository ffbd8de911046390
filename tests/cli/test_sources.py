"""Runs from strangers: whatever they say of themselves with a right checksum is checked before it is used."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
import safetensors
from safetensors.numpy import load_file

from gru_xp.training.tensors import write_tensors

pytestmark = pytest.mark.compat

ESCAPES = "\x1b]0;owned\x07"


@pytest.fixture
def run(app, write_csv, quick):
    """A run in the folder ``run``, of a file ``own.csv`` of 60 rows, 42 of which it has learned from."""
    write_csv()
    options = (*quick, "--validation-ratio", 0.2, "--device", "cpu", "--out", "run")
    assert app("train", "own.csv", *options).code == 0


def forge(kind, change):
    """Change what the model or the checkpoint of the run says of itself."""
    path = Path(f"run/{kind}.safetensors")
    with safetensors.safe_open(path, "numpy") as file:
        texts = file.metadata()
    description = json.loads(texts["metadata"])
    change(description if kind == "model" else description["forecaster"], description)
    version = int(texts["format_version"])
    write_tensors(path, load_file(path), kind=kind, version=version, description=description)


def noted(**notes):
    return lambda model, _: model["notes"].update(notes)


def said(**facts):
    return lambda _, checkpoint: checkpoint["run"].update(facts)


def assert_refused(outcome, kind, *names):
    outcome.assert_refused(f"run/{kind}.safetensors: ", "damaged", *names)
    assert outcome.error.count("damaged") == 1
    assert outcome.error.isprintable()


WRONG_READINGS = [
    ({"colour": 1}, "'colour', which is unknown"),
    ({"time": "Year"}, "'time' of the reading"),
    ({"time": [5]}, "'time' of the reading"),
    ({"date_form": 5}, "'date_form' of the reading"),
    ({"date_form": "%d %B %Y (zz)"}, "'zz'"),
    ({"order": None}, "'order' of the reading"),
    ({"duplicates": "2"}, "'duplicates' of the reading"),
    ({"freq": "often"}, "freq is 'often'"),
    ({"freq": 5}, "'freq' of the reading"),
    ({"gaps": None}, "'gaps' of the reading"),
    ({"first_gap": []}, "'first_gap' of the reading"),
    ({"missing_values": {}}, "'missing_values' of the reading"),
    ({"styles": []}, "'styles' of the reading"),
    ({"styles": {"Value": 5}}, "a style of the reading"),
    ({"styles": {"Value": {"decimal": 5, "thousands": "", "unit": ""}}}, "'decimal' of a style"),
    ({"styles": {"Value": {"colour": ","}}}, "a style of the reading"),
]
"""What no reading finds in a file."""

NOTES = [
    ({"train_end": -50}, ("train_end is -50", "fit_end, 42")),
    ({"train_end": 0}, ("train_end is 0;",)),
    ({"train_end": 43}, ("train_end is 43;",)),
    ({"train_end": 10**9}, ("train_end is 1000000000;",)),
    ({"train_end": "x"}, ("'train_end'", "'x'", "int")),
    ({"train_end": 1.5}, ("'train_end'", "1.5", "int")),
    ({"fit_end": -1}, ("train_end is 34", "fit_end, -1")),
    ({"fit_end": True}, ("'fit_end'", "True")),
    ({"fit_sha256": 5}, ("'fit_sha256'", "5")),
    ({"last_label": [ESCAPES]}, ("'last_label'",)),
    ({"split_ratio": "5"}, ("'split_ratio'", "'5'")),
    ({"split_ratio": 5.0}, ("split_ratio is 5.0",)),
    ({"reading": []}, ("'reading'", "[]")),
    ({"reading": {"colour": 1}}, ("reading",)),
    ({"reading": {"date_format": "%Q", "missing": "drop"}}, ("date_format is '%Q'",)),
    ({"reading": {"where": [ESCAPES]}}, ("where is ",)),
    ({"reading": {"time": [None]}}, ("time is ",)),
    ({"series": []}, ("'series'", "[]")),
    *(({"series": reading}, (said,)) for reading, said in WRONG_READINGS),
    ({"missing": ESCAPES}, ("'missing'",)),
    ({"bundled": 1, "file": "GOOG.csv"}, ("'bundled'", " 1;")),
    ({"file": None}, ("'file'", "None")),
]


@pytest.fixture
def restore(run, contents):
    """``restore()``: undo what was forged."""
    files = contents("run")

    def restore():
        for name, content in files.items():
            Path("run", name).write_bytes(content)

    return restore


def test_notes_that_no_training_makes(app, restore, unchanged):
    for notes, names in NOTES:
        restore()
        for kind in ("model", "checkpoint"):
            forge(kind, noted(**notes))
        with unchanged():
            for command in ("evaluate", "forecast"):
                assert_refused(app(command, "run", "own.csv", "--quiet"), "model", *names)
            assert_refused(app("train", "--resume", "run"), "checkpoint", *names)


def test_notes_that_a_run_needs(app, restore):
    for name in ("reading", "fit_end", "split_ratio", "requested_device"):
        restore()
        forge("checkpoint", lambda model, _, name=name: model["notes"].pop(name))
        assert_refused(app("train", "--resume", "run"), "checkpoint", f"no '{name}'")


def test_notes_that_a_model_may_lack(app, run):
    forge("model", lambda model, _: model["notes"].clear())
    for command in ("evaluate", "forecast"):
        assert app(command, "run", "own.csv").code == 0
    forge("model", noted(fit_sha256="0" * 64, fit_end=42))
    assert_refused(app("evaluate", "run", "own.csv", "--quiet"), "model", "no 'train_end'")


def test_more_rows_learned_from_than_there_are(app, run):
    outcome = app("evaluate", "run", "own.csv", "--json")
    assert list(json.loads(outcome.out)["parts"]) == ["train", "validation", "test"]
    forge("model", noted(fit_end=10**9))
    assert list(json.loads(app("evaluate", "run", "own.csv", "--json").out)["parts"]) == ["all"]
    app("evaluate", "run", "--quiet").assert_refused("run: its checkpoint ", "give a CSV file")
    forge("checkpoint", noted(fit_end=61))
    assert_refused(app("train", "--resume", "run"), "checkpoint", "fit_end is 61 ", "60 rows")


def test_facts_that_no_run_has(app, restore):
    os.utime("own.csv", (1, 1))
    for facts, names in (
        ({"modified_ns": 10**30}, (f"modified_ns is {10**30}",)),
        ({"modified_ns": -(10**30)}, (f"modified_ns is -{10**30}",)),
        ({"modified_ns": None}, ("path, size and modified_ns",)),
        ({"path": None}, ("path, size and modified_ns",)),
        ({"size": -1}, ("size is -1",)),
        ({"threads": 10**30}, (f"threads is {10**30}",)),
        ({"plots": "jpg"}, ("plots is 'jpg'",)),
        ({"file": ESCAPES, "bundled": None}, ("'bundled'", "None")),
    ):
        restore()
        forge("checkpoint", said(**facts))
        assert_refused(app("train", "--resume", "run"), "checkpoint", *names)
        assert_refused(app("evaluate", "run", "--quiet"), "checkpoint", *names)


def test_a_device_that_is_none(app, run):
    forge("checkpoint", lambda model, _: model.update(device=ESCAPES))
    assert_refused(app("train", "--resume", "run"), "checkpoint", r"device is '\x1b]0;owned\x07'")


def test_scalers_beyond_numbers(app, restore):
    for number, text in ((1e308, "1e+308"), (1e-320, "1e-320")):
        restore()
        numbers = {name: [number] for name in ("mean", "std", "change_std")}
        for kind in ("model", "checkpoint"):
            forge(kind, lambda model, _, numbers=numbers: model["scaler"].update(numbers))
        for command in ("evaluate", "forecast"):
            assert_refused(app(command, "run", "own.csv", "--quiet"), "model", "scaler", text)
        assert_refused(app("train", "--resume", "run"), "checkpoint", "scaler", text)


def test_names_of_columns_steer_no_terminal(app, quick):
    values = "\n".join(f"{10 + row % 7},{row * row % 11}" for row in range(40))
    Path("own.csv").write_text(f'"{ESCAPES}","b{ESCAPES}"\n{values}\n', encoding="utf-8")
    options = ("--target", ESCAPES, "--features", f"b{ESCAPES}", "--out", "run")
    outcomes = [app("train", "own.csv", *quick, *options)]
    outcomes += [app("forecast", "run", *more) for more in ((), ("own.csv", "--steps", 2), ("--json",))]
    outcomes += [app("evaluate", "run", *more) for more in ((), ("own.csv",), ("--features", "x" * 99))]
    outcomes += [app("train", "--resume", "run", "--target", "b"), app("forecast", "run", "--target", ESCAPES[1:])]
    for outcome in outcomes:
        assert not set("\x1b\x07") & set(outcome.out + outcome.err)
    assert [outcome.code for outcome in outcomes] == [0] * 6 + [1] * 3
    assert next(csv.reader(io.StringIO(outcomes[1].out))) == ["step", "date", r"\x1b]0;owned\x07"]
