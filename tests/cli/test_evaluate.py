import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from gru_xp import Forecaster


def parts(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)["parts"]


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("run", ["goog", "sunspots", "deep"])
def test_a_run_of_its_own_gives_the_numbers_of_its_training(app, request, run):
    folder = request.getfixturevalue(run).folder
    outcome = app("evaluate", folder, "--json", "--quiet")
    assert parts(outcome) == metrics(folder)["parts"]
    assert outcome.err == ""


def test_json_names_everything(app, goog, no_cuda):
    document = json.loads(app("evaluate", goog.folder, "--json").out)
    assert document["run"] == str(goog.folder)
    assert document["file"] == "GOOG.csv"
    assert document["target"] == "Close"
    assert document["device"] == {"requested": "auto", "used": "cpu", "reason": no_cuda}


def test_the_table_is_that_of_the_training(app, goog):
    outcome = app("evaluate", goog.folder)
    assert outcome.out == goog.outcome.out
    assert len(outcome.err.splitlines()) == 1  # the device


def test_a_model_file_is_as_good_as_its_folder(app, goog, tmp_path):
    shutil.copy(goog.folder / "model.safetensors", tmp_path / "some.model")
    assert parts(app("evaluate", "some.model", "--json")) == metrics(goog.folder)["parts"]


def test_the_runs_own_file_by_name_is_divided_as_in_training(app, goog):
    assert parts(app("evaluate", goog.folder, "GOOG", "--json")) == metrics(goog.folder)["parts"]


def test_another_file_is_one_part(app, goog):
    outcome = app("evaluate", goog.folder, "IBM.csv", "--json")
    (part,) = parts(outcome).items()
    assert part[0] == "all"
    assert part[1]["windows"] == 3270 - 10
    assert "model learned from" in outcome.err
    rows = [line.split()[:2] for line in app("evaluate", goog.folder, "IBM.csv").out.splitlines() if line.strip()]
    assert ["all", "GRU"] in rows
    assert ["naive", "3260"] in rows


def test_another_column(app, goog):
    outcome = app("evaluate", goog.folder, "--target", "Open", "--json")
    assert json.loads(outcome.out)["target"] == "Open"
    assert parts(outcome) != metrics(goog.folder)["parts"]


def test_a_model_with_features_wants_as_many(app, quick, tmp_path):
    assert app("train", "GOOG.csv", *quick, "--features", "High", "--out", "run").code == 0
    assert parts(app("evaluate", "run", "--json")) == metrics(tmp_path / "run")["parts"]
    outcome = app("evaluate", "run", "sunspots.csv", "--quiet")
    assert outcome.code == 1
    assert "no column 'Close'; the columns are Year, Sunspots" in outcome.error


def test_a_model_with_features_takes_other_columns_in_their_place(app, quick):
    assert app("train", "GOOG.csv", *quick, "--features", "High", "--out", "run").code == 0
    outcome = app("evaluate", "run", "--target", "Open", "--features", "Low", "--json", "--quiet")
    assert outcome.err == ""
    assert json.loads(outcome.out)["target"] == "Open"


@pytest.mark.parametrize("features", ["High", "High,Low"])
def test_features_that_the_model_does_not_have_are_refused(app, goog, features):
    outcome = app("evaluate", goog.folder, "--features", features, "--quiet")
    assert outcome.code == 1
    assert "Close" in outcome.error


def test_from_another_folder(app, write_csv, quick, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_csv("here/own.csv")
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    shutil.move(tmp_path / "here/run", tmp_path / "there/run")
    monkeypatch.chdir(tmp_path / "there")
    outcome = app("evaluate", "run", "--json")
    assert parts(outcome) == metrics(tmp_path / "there/run")["parts"]
    assert "changed" not in outcome.err


def test_a_local_file_with_a_bundled_name_stays_the_runs_own(app, write_csv, quick, tmp_path, monkeypatch):
    own = write_csv("GOOG.csv")
    assert app("train", "GOOG.csv", *quick, "--out", "run").code == 0
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    for _ in range(2):
        outcome = app("evaluate", "../run", "--json", "--quiet")
        assert json.loads(outcome.out)["file"] == "GOOG.csv"
        assert parts(outcome) == metrics(tmp_path / "run")["parts"]
        assert outcome.err == ""
        own.unlink(missing_ok=True)  # and no other file takes its place


def test_a_bundled_file_stays_the_runs_own(app, write_csv, goog):
    write_csv("GOOG.csv")
    outcome = app("evaluate", goog.folder, "--json")
    assert parts(outcome) == metrics(goog.folder)["parts"]
    assert "changed" not in outcome.err


def test_the_rows_of_the_training_stay_the_runs_own(app, write_csv, quick, tmp_path):
    path = write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    before = f"{path.stat().st_size:,}"
    write_csv(rows=70)
    outcome = app("evaluate", "run", "--json", "--quiet")
    assert parts(outcome) == metrics(tmp_path / "run")["parts"]
    assert outcome.err == (
        f"warning: own.csv has changed since (it has {path.stat().st_size:,} bytes instead of {before}); "
        "taking the rows that the run kept\n"
    )
    path.unlink()
    outcome = app("evaluate", "run", "--json", "--quiet")
    assert (parts(outcome), outcome.err) == (metrics(tmp_path / "run")["parts"], "")


@pytest.mark.parametrize("options", [("--target", "Year"), ("--features", "Year"), ("--missing", "drop")])
def test_what_the_run_has_not_kept_needs_the_file(app, write_csv, quick, options):
    write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    outcome = app("evaluate", "run", *options, "--quiet")
    assert outcome.code == 1
    assert "need the file, of which the run keeps only what it used; name a CSV file" in outcome.error


def test_a_file_that_has_grown_has_the_same_parts(app, write_csv, quick, tmp_path):
    write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    write_csv(rows=70)
    outcome = app("evaluate", "run", "own.csv", "--json", "--quiet")
    assert outcome.err == ""
    before, now = metrics(tmp_path / "run")["parts"], parts(outcome)
    for name in ("train", "validation"):  # batches of another size round differently
        assert now[name]["windows"] == before[name]["windows"]
        assert now[name]["model"]["rmse"] == pytest.approx(before[name]["model"]["rmse"], rel=1e-6)
    assert now["test"]["windows"] == before["test"]["windows"] + 10


def test_a_file_whose_first_rows_have_changed_is_one_part(app, write_csv, quick):
    path = write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    header, _, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, *rest]) + "\n")  # the oldest row has dropped out
    outcome = app("evaluate", "run", "own.csv", "--json", "--quiet")
    assert "warning: the model learned from the time up to 1941" in outcome.err
    assert list(parts(outcome)) == ["all"]


def test_a_file_that_has_become_shorter_than_the_training(app, write_csv, quick):
    write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    write_csv(rows=30)
    assert list(parts(app("evaluate", "run", "own.csv", "--json"))) == ["all"]
    write_csv(rows=10)
    outcome = app("evaluate", "run", "own.csv")
    assert outcome.code == 1
    assert "10 rows are too few" in outcome.err


def test_a_model_without_its_run_wants_a_file(app, write_csv, quick, tmp_path):
    """It names one, which is not opened: the model may be somebody else's."""
    write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    (tmp_path / "run/checkpoint.safetensors").unlink()
    for run in ("run", "run/model.safetensors"):
        outcome = app("evaluate", run, "--quiet")
        assert outcome.code == 1
        assert outcome.error == f"{run}: a model without what it was trained on; name a CSV file"
        assert parts(app("evaluate", run, "own.csv", "--json")) == metrics(tmp_path / "run")["parts"]


@pytest.mark.parametrize("command", ["evaluate", "forecast"])
def test_the_checkpoint_of_another_training_is_not_taken(app, write_csv, quick, tmp_path, command):
    """As where a run was to be overwritten and was stopped at once."""
    write_csv()
    write_csv("other.csv", change={3: "5"})
    for name in ("own", "other"):
        assert app("train", f"{name}.csv", *quick, "--out", name).code == 0
    shutil.copy(tmp_path / "other/checkpoint.safetensors", tmp_path / "own")
    outcome = app(command, "own", "--quiet")
    assert outcome.code == 1
    assert outcome.error == "own: its checkpoint is that of another training than its model; name a CSV file"
    assert app(command, "own", "own.csv").code == 0


def test_a_model_that_names_no_file_wants_one(app, write_csv, tmp_path):
    write_csv()
    forecaster = Forecaster(hidden_size=2, num_epochs=1).fit(np.sin(np.arange(50.0)), device="cpu")
    forecaster.save(tmp_path / "model.safetensors")
    outcome = app("evaluate", "model.safetensors", "--quiet")
    assert outcome.code == 1
    assert "name a CSV file" in outcome.error
    assert list(parts(app("evaluate", "model.safetensors", "own.csv", "--target", "Value", "--json"))) == ["all"]


@pytest.mark.parametrize("command", ["evaluate", "forecast"])
def test_what_is_no_model_is_said_in_one_line(app, write_csv, tmp_path, command):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    write_csv()
    for run, said in (
        ("nothing", "nothing: does not exist"),
        ("empty", "model.safetensors: does not exist"),
        ("own.csv", "own.csv: not a model file"),
        ("cut.safetensors", "cut.safetensors: not a model file"),
    ):
        outcome = app(command, run, "--quiet")
        assert outcome.code == 1
        assert outcome.out == ""
        assert said in outcome.error
        loud = app(command, run)
        assert loud.err.splitlines()[-1] == f"Error: {outcome.error}"
        assert "Traceback" not in loud.err


def test_another_models_file_is_no_model(app, tmp_path):
    save_file({"weight": np.ones(3)}, tmp_path / "model.safetensors")
    outcome = app("evaluate", "model.safetensors", "--quiet")
    assert outcome.code == 1
    assert "not a gru-xp model" in outcome.error


def test_too_few_rows(app, goog, write_csv):
    write_csv(rows=10)
    outcome = app("evaluate", goog.folder, "own.csv", "--target", "Value", "--quiet")
    assert outcome.code == 1
    assert "10 rows are too few: the model looks back on 10; at least 11 are needed" in outcome.error
