import json
import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from gru_xp import Forecaster

pytestmark = pytest.mark.compat


def parts(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)["parts"]


def window_length(folder):
    return Forecaster.load(folder / "model.safetensors", device="cpu").window_length


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
    assert document["device"] == {"requested": "auto", "used": "cpu", "tf32": False, "reason": no_cuda}


def test_the_table_is_that_of_the_training(app, goog):
    outcome = app("evaluate", goog.folder)
    assert outcome.out == goog.outcome.out
    device, guard = outcome.err.splitlines()
    assert device.startswith("device: ")
    assert guard in goog.outcome.err


def test_a_model_file_is_as_good_as_its_folder(app, goog, tmp_path):
    shutil.copy(goog.folder / "model.safetensors", tmp_path / "some.model")
    assert parts(app("evaluate", "some.model", "--json")) == metrics(goog.folder)["parts"]


def test_the_runs_own_file_by_name_is_divided_as_in_training(app, goog):
    assert parts(app("evaluate", goog.folder, "GOOG", "--json")) == metrics(goog.folder)["parts"]


def test_another_file_is_one_part(app, goog):
    outcome = app("evaluate", goog.folder, "IBM.csv", "--json")
    (part,) = parts(outcome).items()
    assert part[0] == "all"
    assert part[1]["windows"] == 3270 - window_length(goog.folder)
    assert "model was trained on" in outcome.err
    rows = [line.split()[:2] for line in app("evaluate", goog.folder, "IBM.csv").out.splitlines() if line.strip()]
    assert ["all", "GRU"] in rows
    assert ["last", "value"] in rows


def test_another_column(app, goog):
    outcome = app("evaluate", goog.folder, "--target", "Open", "--json")
    assert json.loads(outcome.out)["target"] == "Open"
    assert parts(outcome) != metrics(goog.folder)["parts"]


def test_a_model_with_features_wants_as_many(app, featured):
    assert parts(app("evaluate", featured.folder, "--json")) == metrics(featured.folder)["parts"]
    app("evaluate", featured.folder, "sunspots.csv", "--quiet").assert_refused("column 'Open'", "Year, Sunspots")
    outcome = app("evaluate", featured.folder, "--target", "Low", "--features", "High,Open,Close", "--json", "--quiet")
    assert outcome.err == ""
    assert json.loads(outcome.out)["target"] == "Low"


def test_features_that_the_model_does_not_have_are_refused(app, goog):
    for features in ("High", "High,Low"):
        app("evaluate", goog.folder, "--features", features, "--quiet").assert_refused("Close")


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
    (line,) = outcome.err.splitlines()
    assert line.startswith("warning: own.csv has changed")
    assert all(size in line for size in (f"{path.stat().st_size:,} bytes", before))
    path.unlink()
    outcome = app("evaluate", "run", "--json", "--quiet")
    assert (parts(outcome), outcome.err) == (metrics(tmp_path / "run")["parts"], "")


def test_what_the_run_has_not_kept_needs_the_file(app, write_csv, quick):
    write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    for options in (("--target", "Year"), ("--features", "Year"), ("--missing", "drop")):
        app("evaluate", "run", *options, "--quiet").assert_refused("give a CSV file")


def test_a_file_that_has_grown_has_the_same_parts(app, write_csv, quick, tmp_path):
    write_csv()
    assert app("train", "own.csv", *quick, "--validation-ratio", 0.2, "--out", "run").code == 0
    write_csv(rows=70)
    outcome = app("evaluate", "run", "own.csv", "--json", "--quiet")
    assert outcome.err == ""
    before, now = metrics(tmp_path / "run")["parts"], parts(outcome)
    for name in ("train", "validation"):  # batches of another size round differently
        assert now[name]["windows"] == before[name]["windows"]
        assert now[name]["models"]["GRU"]["rmse"] == pytest.approx(before[name]["models"]["GRU"]["rmse"], rel=1e-6)
    assert now["test"]["windows"] == before["test"]["windows"] + 10


def test_a_file_whose_first_rows_have_changed_is_one_part(app, write_csv, quick):
    path = write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    header, _, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, *rest]) + "\n")  # the oldest row has dropped out
    for command in ("evaluate", "backtest"):
        outcome = app(command, "run", "own.csv", "--quiet")
        (line,) = outcome.err.splitlines()
        assert line.startswith("warning: ")
        assert "1941" in line
        assert "\n all " in outcome.out
        assert " test " not in outcome.out


def test_a_file_that_has_become_shorter_than_the_training(app, write_csv, quick, tmp_path):
    write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    write_csv(rows=30)
    for run in ("run", "run/model.safetensors"):  # with the dates of all rows, and of the last one
        shorter = app("evaluate", run, "own.csv", "--json")
        assert list(parts(shorter)) == ["all"]
        assert "the model was trained on rows up to 1941" in shorter.err
    rows = window_length(tmp_path / "run")
    write_csv(rows=rows)
    outcome = app("evaluate", "run", "own.csv")
    assert outcome.code == 1
    assert f"{rows} rows are too few" in outcome.err


def test_rows_without_dates_that_the_model_knows(app, quick, tmp_path, rng):
    values = [f"{value:.3f}" for value in rng.normal(size=90)]
    for name, rows in {"own": values[:70], "later": values[5:], "earlier": ["1", *values], "new": values[55:]}.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(["A", *rows]))
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    for name, is_known in (("later", True), ("earlier", True), ("new", False)):
        outcome = app("evaluate", "run", f"{name}.csv", "--json")
        assert list(parts(outcome)) == ["all"]
        assert ("was trained on some of these rows" in outcome.err) == is_known


def test_a_model_without_its_run_wants_a_file(app, write_csv, quick, tmp_path):
    """It names one, which is not opened: the model may be somebody else's."""
    write_csv()
    write_csv("other.csv", change={3: "5"})
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    other = app("evaluate", "run", "other.csv", "--json")
    assert "Ridge" in parts(other)["all"]["models"]
    (tmp_path / "run/checkpoint.safetensors").unlink()
    without = app("evaluate", "run", "other.csv", "--json")
    assert "no ridge in the table: neither other.csv nor the run" in without.err
    models = parts(other)["all"]["models"]
    del models["Ridge"]
    assert parts(without)["all"]["models"] == models
    for run in ("run", "run/model.safetensors"):
        app("evaluate", run, "--quiet").assert_refused(f"{run}: ", "give a CSV file")
        assert parts(app("evaluate", run, "own.csv", "--json")) == metrics(tmp_path / "run")["parts"]


def test_the_checkpoint_of_another_training_is_not_taken(app, write_csv, quick, tmp_path):
    """As where a run was to be overwritten and was stopped at once."""
    write_csv()
    write_csv("other.csv", change={3: "5"})
    for name in ("own", "other"):
        assert app("train", f"{name}.csv", *quick, "--out", name).code == 0
    shutil.copy(tmp_path / "other/checkpoint.safetensors", tmp_path / "own")
    for command in ("evaluate", "forecast"):
        app(command, "own", "--quiet").assert_refused("own: its checkpoint", "give a CSV file")
        assert app(command, "own", "own.csv").code == 0


def test_a_model_that_names_no_file_wants_one(app, write_csv, tmp_path):
    write_csv()
    forecaster = Forecaster(hidden_size=2, num_epochs=1).fit(np.sin(np.arange(50.0)), device="cpu")
    forecaster.save(tmp_path / "model.safetensors")
    app("evaluate", "model.safetensors", "--quiet").assert_refused("model.safetensors: ", "give a CSV file")
    assert list(parts(app("evaluate", "model.safetensors", "own.csv", "--target", "Value", "--json"))) == ["all"]


def test_what_is_no_model_is_refused_in_one_line(app, write_csv, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    save_file({"weight": np.ones(3)}, tmp_path / "other.safetensors")
    write_csv()
    for run, said in (
        ("nothing", "nothing: does not exist"),
        ("empty", "model.safetensors: does not exist"),
        ("cut.safetensors", "cut.safetensors: not a model file"),
        ("other.safetensors", "not a gru-xp model"),
    ):
        for command in ("evaluate", "forecast"):
            outcome = app(command, run, "--quiet")
            outcome.assert_refused(said)
            loud = app(command, run)
            assert loud.err.splitlines()[-1] == f"Error: {outcome.error}"
            assert "Traceback" not in loud.err


def test_too_few_rows(app, goog, write_csv):
    rows = window_length(goog.folder)
    write_csv(rows=rows)
    outcome = app("evaluate", goog.folder, "own.csv", "--target", "Value", "--quiet")
    outcome.assert_refused(f"{rows} rows are too few", f"at least {rows + 1} ")


def test_fewer_errors_than_without_training_may_be_demanded(app, write_csv, quick):
    """The exit code tells a script; what is printed is the same."""
    write_csv(rows=60)
    bad = app("train", "own.csv", *quick, "--no-linear-skip", "--scaling", "standard", "--out", "bad")
    assert (bad.code, "too few rows for the guard" in bad.err) == (0, True)
    assert app("train", "sunspots", *quick, "--out", "good").code == 0
    for run in ("bad", "good"):
        outcome = app("evaluate", run, "--json")
        last = parts(outcome)["test"]
        below = last["skill"] < 0
        assert below == (run == "bad")
        demanded = app("evaluate", run, "--json", "--fail-below-naive")
        assert demanded.code == (3 if below else 0)
        assert demanded.out == outcome.out
        assert ("lower MAE" in demanded.err) == below


def test_what_the_guard_forecasts_is_measured(app, quick):
    trained = app("train", "GOOG.csv", *quick, "--guard", "--out", "run")
    assert trained.code == 0
    part = parts(app("evaluate", "run", "--json"))["test"]
    naive = [name for name, errors in part["models"].items() if errors == part["models"]["GRU"]]
    assert naive[1:] == [part["best_baseline"]]
    assert (part["skill"], part["p_value"]) == (0, None)
    assert f"best baseline, {part['best_baseline'].lower()}," in trained.out
    assert "too few" not in trained.out


def test_several_steps_ahead(app, quick):
    assert app("train", "sunspots", *quick, "--validation-ratio", 0.2, "--out", "run").code == 0
    several = parts(app("evaluate", "run", "--steps", 5, "--json"))["test"]
    assert (several["horizon"], several["windows"]) == (5, 93 // 5)
    assert len(several["models"]["GRU"]["by_step"]["mae"]) == 5
    long = app("evaluate", "run", "--steps", 50, "--json", "--quiet")
    assert list(parts(long)) == ["train", "test"]
    assert long.err.startswith("warning: validation part: its 43 row(s)")
    app("evaluate", "run", "--steps", 94, "--fail-below-naive", "-q").assert_refused("--fail-below-naive", "test part")
    out = app("evaluate", "run", "--steps", 5).out
    assert "5-step-ahead" in out
    assert "by step ahead" in out


# --- patterns in the errors -------------------------------------------------------------------------------------


@pytest.mark.peer
def test_patterns_in_the_errors(app, sunspots, write_csv, quick):
    """Of another file, all rows are looked at, and nothing is trained."""
    pytest.importorskip("statsmodels")
    document = json.loads(app("evaluate", sunspots.folder, "--diagnostics", "--json", "--quiet").out)
    found = document["diagnostics"]
    assert list(found["tests"]) == ["breusch_pagan", "arch_lm", "ljung_box"]
    assert found["residuals"] == document["parts"]["test"]["windows"]
    outcome = app("evaluate", sunspots.folder, "--diagnostics")
    assert outcome.code == 0, outcome.err
    for test in found["tests"].values():
        assert test["sentence"] in outcome.out

    values = {row: f"{2 ** (row / 10) * (1 + 0.2 * ((row * 7919) % 13 - 6) / 6):.4f}" for row in range(120)}
    write_csv(rows=120, change=values)
    assert app("train", "own.csv", *quick, "--seq-length", 5, "--no-guard", "--out", "run").code == 0
    outcome = app("evaluate", "run", "--diagnostics", "--json")
    found = json.loads(outcome.out)["diagnostics"]
    assert found["unequal_variance"]
    assert "training with --transform log" in outcome.err
    assert found["log"]["mae"] > 0
    assert found["log"]["mae_log"] > 0
    assert "--transform log" in app("evaluate", "run", "--diagnostics", "--quiet").out.splitlines()[-1]
    other = write_csv("other.csv", rows=119, change={**values, 0: "1.5"})
    outcome = app("evaluate", "run", other, "--diagnostics", "--json", "--quiet")
    found = json.loads(outcome.out)["diagnostics"]
    assert (found["residuals"], found["log"], found["suggests_log"]) == (114, None, True)


def test_patterns_need_a_run_and_statsmodels(app, sunspots, monkeypatch):
    outcome = app("evaluate", "sunspots.csv", "--diagnostics")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--diagnostics needs RUN" in outcome.err
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    outcome = app("evaluate", sunspots.folder, "--diagnostics", "--quiet")
    outcome.assert_refused("statsmodels", "gru-xp[stats]")
