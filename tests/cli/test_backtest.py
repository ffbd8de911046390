import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gru_xp import Forecaster
from gru_xp.forecasting.backtest import FitForecaster
from gru_xp.forecasting.presets import PRESETS
from gru_xp.io.read import read_series

pytestmark = pytest.mark.compat


def read_table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_file(app, write_csv, quick, tmp_path):
    """Trained on the rows before the first forecast, as the library does it."""
    path = write_csv(rows=80)
    loss = ["--loss", "quantile", "--quantile", 0.9, "--quantile", 0.5, "--quantile", 0.1]
    outcome = app("backtest", "own.csv", *quick, *loss, "--steps", 3, "--windows", 5, "--out", "all.csv", "--json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert (document["windows"], document["horizon"], document["stride"]) == (5, 3, 3)
    assert document["file"] == str(path)
    assert "windows of " in outcome.err
    assert "too few rows for the guard" not in outcome.err
    assert "trained on 65 rows" in outcome.err
    rows = read_table(tmp_path / "all.csv")
    columns = ["unique_id", "ds", "cutoff", "y", "GRU", "GRU-lo-80", "GRU-median", "GRU-hi-80"]
    assert list(rows[0])[:8] == columns
    assert [row["ds"][:4] for row in rows] == [str(1965 + number) for number in range(15)]
    assert [row["cutoff"][:4] for row in rows] == [str(1964 + number // 3 * 3) for number in range(15)]
    series = read_series(path)
    forecaster = Forecaster(hidden_size=4, num_epochs=3, horizon=3, loss="quantile").fit(series.head(65), device="cpu")
    expected = pd.concat(forecaster.forecast_distribution(series.head(origin), 3) for origin in range(65, 80, 3))
    for column in columns[4:]:
        np.testing.assert_allclose([float(row[column]) for row in rows], expected[column], rtol=1e-6, err_msg=column)
    errors = [abs(float(row["GRU"]) - float(row["y"])) for row in rows]
    assert document["models"]["GRU"]["mae"] == pytest.approx(np.mean(errors))
    within = [float(row["GRU-lo-80"]) <= float(row["y"]) <= float(row["GRU-hi-80"]) for row in rows]
    assert document["models"]["GRU"]["coverage"] == pytest.approx(np.mean(within))


def test_the_options_of_train(app, write_csv, quick):
    """Those that take limits off, and presets."""
    path = write_csv(rows=60)
    own = {"hidden_size": 4, "num_epochs": 3}
    for options, settings in (
        (("--batch-size", "all", "--clip-norm", "none", "--patience", 0), {"batch_size": None, "clip_norm": None}),
        (("--preset", "article", "--scaling", "last"), {**PRESETS["article"], "scaling": "last"}),
    ):
        outcome = app("backtest", "own.csv", *quick, *options, "--json")
        assert outcome.code == 0, outcome.err
        result = Forecaster(**settings | own).backtest(read_series(path), device="cpu")
        expected = result.metrics["models"]["GRU"]["mae"]
        assert json.loads(outcome.out)["models"]["GRU"]["mae"] == pytest.approx(expected), options


def test_it_learns_from_the_rows_that_train_learns_from(app, write_csv, quick, tmp_path):
    """Also where these do not end with the start of a forecast."""
    write_csv(rows=60)
    document = json.loads(app("backtest", "own.csv", *quick, "--steps", 4, "--json").out)
    assert app("train", "own.csv", *quick, "--horizon", 4, "--out", "run").code == 0
    trained = json.loads((tmp_path / "run/metrics.json").read_text())["parts"]["test"]
    assert document["windows"] == trained["windows"] == 4
    for name, errors in trained["models"].items():
        assert document["models"][name]["mase"] == pytest.approx(errors["mase"], rel=1e-6), name


def test_training_again(app, write_csv, quick):
    write_csv(rows=60)
    for refit, fits in (("never", 1), ("2", 2), ("always", 4)):
        outcome = app("backtest", "own.csv", *quick, "--windows", 4, "--stride", 2, "--refit", refit)
        assert outcome.code == 0
        assert outcome.err.count("trained on") == fits, outcome.err
    assert "trained on 57 rows" in outcome.err
    assert app("backtest", "own.csv", "--refit", "rarely").code == 2


def test_a_run_has_the_numbers_of_its_training(app, goog):
    outcome = app("backtest", goog.folder, "--json")
    document = json.loads(outcome.out)
    trained = json.loads((goog.folder / "metrics.json").read_text())["parts"]["test"]
    assert document["windows"] == trained["windows"]
    assert document["skill"] == pytest.approx(trained["skill"], abs=1e-6)
    assert document["best_baseline"] == trained["best_baseline"]
    table = app("backtest", goog.folder, "--quiet").out.splitlines()
    wanted = [line.split() for line in goog.outcome.out.splitlines() if line.split()[:2] == ["test", "GRU"]]
    assert [line.split() for line in table if "GRU" in line][:1] == wanted


def test_a_run_on_other_rows_and_trained_again(app, write_csv, quick, tmp_path):
    write_csv(rows=60)
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    outcome = app("backtest", "run", "--windows", 3, "--refit", "always", "--out", "all.json", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    table = pd.DataFrame(json.loads((tmp_path / "all.json").read_text()))
    assert list(table)[:4] == ["unique_id", "ds", "cutoff", "y"]
    assert pd.to_datetime(table["ds"]).dt.year.tolist() == [1957, 1958, 1959]
    write_csv("other.csv", rows=40, change={3: "77"})
    document = json.loads(app("backtest", "run", "other.csv", "--json", "--quiet").out)
    assert document["windows"] == 40 - Forecaster.load(tmp_path / "run/model.safetensors", device="cpu").window_length


def test_the_forecasts_are_drawn(app, write_csv, monkeypatch):
    write_csv(rows=60)
    given = ("backtest", "own.csv", "--model", "ridge", "--steps", 3)
    outcome = app(*given, "--plot", "folds.svg")
    assert outcome.code == 0, outcome.err
    assert "folds.svg" in outcome.err
    assert Path("folds.svg").read_bytes().startswith(b"<?xml")
    app(*given, "--plot", "no/folds.png").assert_refused("no/folds.png", "--plot")
    assert app(*given, "--plot", "folds.xlsx").code == 2


@pytest.mark.peer
def test_models_of_statsforecast(app, write_csv, tmp_path):
    """In the tables of train, evaluate and backtest, fitted before the same forecasts."""
    pytest.importorskip("statsforecast")
    write_csv(rows=80, change={70: "99"})
    given = ("own.csv", "--model", "ridge", "--compare", "autoets", "--compare", "AutoTheta")
    train = app("train", *given, "--horizon", 6, "--out", "run")
    backtest = app("backtest", *given, "--steps", 6, "--json")
    evaluate = app("evaluate", "run", "own.csv", "--compare", "AutoETS", "--json")
    for outcome in (train, backtest, evaluate):
        assert outcome.code == 0, outcome.err
    parts = json.loads((tmp_path / "run/metrics.json").read_text())["parts"]
    found = json.loads(backtest.out)["models"]
    assert json.loads(evaluate.out)["parts"]["test"]["models"]["AutoETS"]["mae"] == found["AutoETS"]["mae"]
    for name in ("AutoETS", "AutoTheta"):
        assert name not in parts["train"]["models"]
        assert 0 < parts["test"]["models"][name]["mae"] == found[name]["mae"]
        assert [line for line in train.out.splitlines() if name in line and "%" in line]


def test_what_is_refused(app, goog, write_csv, quick, monkeypatch):
    write_csv(rows=60)
    monkeypatch.setitem(sys.modules, "statsforecast", None)
    for command in ("train", "backtest"):
        app(command, "own.csv", "--compare", "AutoETS").assert_refused("pip install 'gru-xp[statsforecast]'")
    for arguments, said in (
        (("own.csv", "--compare", "Foo"), "'AutoTheta', 'AutoETS'"),
        ((goog.folder, "--hidden-size", 3), "--hidden-size"),
        ((goog.folder, "--split-ratio", 0.5), "--split-ratio"),
        (("own.csv", "own.csv"), "own.csv"),
        (("own.csv", "--out", "all.xlsx"), ".csv or .json"),
    ):
        outcome = app("backtest", *arguments)
        assert outcome.code == 2, arguments
        assert said in outcome.err
    for given in (("--steps", 27), ("--windows", 20, "--steps", 3)):
        given = ("backtest", "own.csv", "--model", "ridge", *given, "--quiet")
        refused = app(*given)
        refused.assert_refused("60 rows are too few", "at least")
        needed = int(re.search(r"at least (\d+) are", refused.error)[1])
        write_csv(rows=needed - 1)
        assert app(*given).code == 1
        write_csv(rows=needed)
        assert app(*given).code == 0
        write_csv(rows=60)
    app("backtest", "own.csv", *quick, "--out", "no/all.csv").assert_refused("no/all.csv", "cannot be written")
    Path("old.csv").write_text("of yesterday")
    app("backtest", "own.csv", *quick, "--out", "old.csv").assert_refused("old.csv exists", "--overwrite")
    assert Path("old.csv").read_text() == "of yesterday"
    assert app("backtest", "own.csv", "--model", "ridge", "--out", "old.csv", "--overwrite").code == 0
    assert Path("old.csv").read_text().startswith("unique_id")
    outcome = app("backtest", "own.csv", *quick, "--overwrite")
    assert (outcome.code, "--out" in outcome.err) == (2, True)
    Path("same.csv").hardlink_to("own.csv")
    before = Path("own.csv").read_bytes()
    for sources in (["own.csv"], [goog.folder, "own.csv"]):
        app("backtest", *sources, "--out", "same.csv").assert_refused("same.csv", "'own.csv'", "--out")
    assert Path("own.csv").read_bytes() == before


def test_a_backtest_that_was_stopped_continues(app, write_csv, quick, tmp_path, monkeypatch):
    """With the bytes of one that was left alone; what is done stays beside the file until all is done."""
    write_csv(rows=60)
    given = ("backtest", "own.csv", *quick, "--windows", 4, "--refit", "always", "--device", "cpu")
    assert app(*given, "--out", "whole.csv").code == 0
    call, fits = FitForecaster.__call__, []

    def interrupted(self, rows):
        fits.append(rows)
        if len(fits) == 3:
            raise KeyboardInterrupt
        return call(self, rows)

    monkeypatch.setattr(FitForecaster, "__call__", interrupted)
    outcome = app(*given, "--out", "all.csv")
    assert outcome.code == 130
    assert "2 of 4 trainings are kept in all.csv.journal" in outcome.err
    app(*given, "--seed", 1, "--out", "all.csv", "--quiet").assert_refused("all.csv.journal", "seed")
    outcome = app(*given, "--out", "all.csv")
    assert outcome.code == 0
    assert "2 of 4 trainings are in all.csv.journal" in outcome.err
    assert outcome.err.count("trained on") == 2
    assert "4/4: trained on" in outcome.err
    assert (tmp_path / "all.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv", "own.csv", "whole.csv"]


def test_workers_need_several_trainings(app, write_csv):
    write_csv(rows=60)
    outcome = app("backtest", "own.csv", "--workers", 2)
    assert outcome.code == 2
    assert "--workers" in outcome.err
    assert "--refit" in outcome.err


@pytest.mark.slow
def test_workers_write_the_same_bytes(run_script, write_csv, quick, tmp_path):
    write_csv(rows=80)
    given = ("own.csv", "--steps", 2, "--windows", 4, "--refit", "always", "--device", "cpu", "--quiet")
    for model in ((*quick, "--loss", "quantile"), ("--model", "auto", *quick)):
        for workers in (1, 2):
            outcome = run_script(
                "backtest", *given, *model, "--workers", workers, "--out", f"{workers}.csv", cwd=tmp_path
            )
            assert (outcome.code, outcome.err) == (0, ""), model
        assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes(), model
        for workers in (1, 2):
            (tmp_path / f"{workers}.csv").unlink()
