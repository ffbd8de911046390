import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gru_xp.forecasting import Forecaster

pytestmark = pytest.mark.compat

FORMATS = {"model.onnx": ("onnx", "onnxruntime"), "model.pt": ("torch",)}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.peer) for name in FORMATS])
def exported(request, app, after):
    """The name of an exported file in the working folder."""
    for library in FORMATS[request.param]:
        pytest.importorskip(library)
    assert app("export", after.folder, request.param, "--quiet").code == 0
    return request.param


def test_the_run_forecasts_and_evaluates_as_the_first_one(app, after, exported, tmp_path, contents):
    outcome = app("import", exported, "--out", "runs/back")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "written to runs/back\n")
    assert list(contents("runs/back")) == ["model.safetensors"]
    first, back = (
        Forecaster.load(run / "model.safetensors", device="cpu") for run in (after.folder, tmp_path / "runs/back")
    )
    assert back.describe() == first.describe()
    for arguments in (("forecast", "--steps", 5), ("forecast", "IBM.csv"), ("evaluate", "IBM.csv"), ("evaluate",)):
        command, *rest = arguments
        wanted, found = (app(command, run, *rest, "--json", "--quiet") for run in (after.folder, "runs/back"))
        assert wanted.code == found.code == 0, found.err
        for left, right in zip(numbers(wanted), numbers(found), strict=True):
            np.testing.assert_allclose(right, left, rtol=1e-12)


def numbers(outcome):
    """Every number in a JSON answer, in order."""
    found = []

    def walk(value):
        if isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                walk(part)
        elif isinstance(value, float | int):
            found.append(value)

    walk(json.loads(outcome.out))
    assert found
    return found


def test_out_must_be_given(app, exported, unchanged):
    with unchanged():
        outcome = app("import", exported)
    assert outcome.code == 2
    assert "--out" in outcome.err


def test_out_that_exists(app, goog, after, exported, unchanged, contents):
    """The run of another model, whose other files stay, but for its plots."""
    shutil.copytree(goog.folder, "run")
    older = contents("run")
    Path("run/plots").mkdir()
    Path("run/plots/cost_plot.svg").touch()
    with unchanged():
        outcome = app("import", exported, "--out", "run")
    outcome.assert_refused("run exists", "--overwrite", "--out", "gru-xp train --resume run")
    outcome = app("import", exported, "--out", "run", "--overwrite", "--quiet")
    assert outcome.code == 0
    (warning,) = outcome.err.splitlines()
    assert warning.startswith("warning: run ")
    assert warning.endswith(": checkpoint.safetensors, history.csv, metrics.json, predictions.csv")
    del older["model.safetensors"]
    assert older.items() <= contents("run").items()
    assert not Path("run/plots").exists()
    for command in ("forecast", "evaluate"):
        wanted, found, of_older = (app(command, run, "--json", "--quiet") for run in (after.folder, "run", goog.folder))
        assert numbers(found) == numbers(wanted) != numbers(of_older)


def test_a_suffix_that_says_no_format(app, unchanged):
    for name in ("model.txt", "model.safetensors"):
        with unchanged():
            outcome = app("import", name, "--out", "run")
        assert outcome.code == 2
        assert all(text in outcome.err for text in (f"'{name}'", ".onnx", ".pt")), outcome.err


@pytest.mark.peer
@pytest.mark.parametrize("name", FORMATS)
def test_files_that_are_no_models(app, unchanged, tmp_path, name):
    for library in FORMATS[name]:
        pytest.importorskip(library)
    with unchanged():
        app("import", name, "--out", "run").assert_refused(f"{name}: does not exist")
    for content in (b"", b"no model"):
        (tmp_path / name).write_bytes(content)
        with unchanged():
            app("import", name, "--out", "run").assert_refused(f"{name}: ")
