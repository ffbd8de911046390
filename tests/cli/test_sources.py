"""Runs from strangers: whatever they say of themselves with a right checksum is checked before it is used."""

import csv
import io
import json
import os
import re
from pathlib import Path

import pytest
import safetensors
from safetensors.numpy import load_file

from gru_xp.reporting import run_folder
from gru_xp.training.tensors import write_tensors

ESCAPES = "\x1b]0;owned\x07"


@pytest.fixture
def run(app, write_csv, quick, monkeypatch):
    """A run in the folder ``run``, of a file ``own.csv`` of 60 rows, 42 of which it has learned from."""
    monkeypatch.setattr(run_folder, "write_plots", lambda *arguments: None)
    write_csv()
    assert app("train", "own.csv", *quick, "--device", "cpu", "--out", "run").code == 0


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


def assert_refused(outcome, kind, message):
    assert (outcome.code, outcome.out) == (1, "")
    name = f"run/{kind}.safetensors: a gru-xp {kind} whose description is damaged"
    assert re.fullmatch(rf"{name} \(.*{message}.*\); take another copy", outcome.error)
    assert outcome.error.count("damaged") == 1
    assert outcome.error.isprintable()


NOTES = [
    ({"train_end": -50}, "train_end is -50; it must be above 0 and up to fit_end, 42"),
    ({"train_end": 0}, "train_end is 0; "),
    ({"train_end": 43}, "train_end is 43; "),
    ({"train_end": 10**9}, "train_end is 1000000000; "),
    ({"train_end": "x"}, "'train_end' of what is noted is 'x'; it must be of type int"),
    ({"train_end": 1.5}, "'train_end' of what is noted is 1.5; it must be of type int"),
    ({"fit_end": -1}, "train_end is 34; it must be above 0 and up to fit_end, -1"),
    ({"fit_end": True}, "'fit_end' of what is noted is True"),
    ({"fit_sha256": 5}, "'fit_sha256' of what is noted is 5"),
    ({"last_label": [ESCAPES]}, "'last_label' of what is noted is "),
    ({"split_ratio": "5"}, "'split_ratio' of what is noted is '5'"),
    ({"split_ratio": 5.0}, "split_ratio is 5.0; it must be above 0 and up to 1"),
    ({"reading": []}, r"'reading' of what is noted is \[\]"),
    ({"reading": {}}, "the reading options must be "),
    (
        {"reading": dict.fromkeys(("decimal", "on_duplicate", "encoding")) | {"date_format": "%Q", "missing": "drop"}},
        "date_format is '%Q'",
    ),
    ({"missing": ESCAPES}, "'missing' of what is noted is "),
    ({"bundled": 1, "file": "GOOG.csv"}, "'bundled' of what is noted is 1"),
    ({"file": None}, "'file' of what is noted is None"),
]


@pytest.mark.parametrize(("notes", "message"), NOTES, ids=str)
def test_notes_that_no_training_makes(app, run, unchanged, notes, message):
    for kind in ("model", "checkpoint"):
        forge(kind, noted(**notes))
    with unchanged():
        for command in ("evaluate", "forecast"):
            assert_refused(app(command, "run", "own.csv", "--quiet"), "model", message)
        assert_refused(app("train", "--resume", "run"), "checkpoint", message)


@pytest.mark.parametrize("name", ["reading", "fit_end", "split_ratio", "requested_device"])
def test_notes_that_a_run_needs(app, run, name):
    forge("checkpoint", lambda model, _: model["notes"].pop(name))
    assert_refused(app("train", "--resume", "run"), "checkpoint", f"what is noted has no '{name}'")


def test_notes_that_a_model_may_lack(app, run):
    forge("model", lambda model, _: model["notes"].clear())
    for command in ("evaluate", "forecast"):
        assert app(command, "run", "own.csv").code == 0
    forge("model", noted(fit_sha256="0" * 64, fit_end=42))
    assert_refused(app("evaluate", "run", "own.csv", "--quiet"), "model", "what is noted has no 'train_end'")


def test_more_rows_learned_from_than_there_are(app, run):
    outcome = app("evaluate", "run", "own.csv", "--json")
    assert list(json.loads(outcome.out)["parts"]) == ["train", "validation", "test"]
    forge("model", noted(fit_end=10**9))
    assert list(json.loads(app("evaluate", "run", "own.csv", "--json").out)["parts"]) == ["all"]
    assert app("evaluate", "run", "--quiet").error.startswith("run: its checkpoint is that of another training")
    forge("checkpoint", noted(fit_end=61))
    assert_refused(app("train", "--resume", "run"), "checkpoint", "fit_end is 61 of 60 rows")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"modified_ns": 10**30}, f"modified_ns is {10**30}, which is no time"),
        ({"modified_ns": -(10**30)}, f"modified_ns is -{10**30}, which is no time"),
        ({"modified_ns": None}, "path, size and modified_ns do not go together"),
        ({"path": None}, "path, size and modified_ns do not go together"),
        ({"size": -1}, "size is -1"),
        ({"threads": 10**30}, f"threads is {10**30}"),
        ({"file": ESCAPES, "bundled": None}, "'bundled' of the run is None"),
    ],
    ids=str,
)
def test_facts_that_no_run_has(app, run, facts, message):
    os.utime("own.csv", (1, 1))
    forge("checkpoint", said(**facts))
    assert_refused(app("train", "--resume", "run"), "checkpoint", message)
    assert_refused(app("evaluate", "run", "--quiet"), "checkpoint", message)


def test_a_device_that_is_none(app, run):
    forge("checkpoint", lambda model, _: model.update(device=ESCAPES))
    assert_refused(app("train", "--resume", "run"), "checkpoint", r"device is '\\x1b\]0;owned\\x07'")


@pytest.mark.parametrize("number", [1e308, 1e-320])
def test_scalers_beyond_numbers(app, run, number):
    numbers = {name: [number] for name in ("mean", "std", "change_std")}
    for kind in ("model", "checkpoint"):
        forge(kind, lambda model, _: model["scaler"].update(numbers))
    for command in ("evaluate", "forecast"):
        assert_refused(app(command, "run", "own.csv", "--quiet"), "model", "of the scaler holds 1e[+-]3")
    assert_refused(app("train", "--resume", "run"), "checkpoint", "of the scaler holds 1e[+-]3")


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
