import csv
import json
import os
import re
import sys
from datetime import datetime
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from safetensors import safe_open

from gru_xp.data import bundled_file
from gru_xp.devices.threads import MOST_THREADS
from gru_xp.forecasting import Forecaster
from gru_xp.forecasting.backtest import name_in_text
from gru_xp.reporting import run_folder
from gru_xp.reporting.text import number_text
from gru_xp.training.model_file import MOST_LAYERS

pytestmark = pytest.mark.compat

TRAINED = ("GRU", "Ridge", "ZeroShot")
"""Forecasts in tables that are no baselines."""

RUN_FILES = ["checkpoint.safetensors", "history.csv", "metrics.json", "model.safetensors", "predictions.csv"]
PLOTS = ("cost_plot", "error_by_step", "forecast_plot", "residual_plot", "sequence_plot")


def read_rows(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(text):
    """Exactly one document, without the numbers that JSON does not have."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def metadata(path):
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["metadata"])


def tensors(path):
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


# --- what a run leaves behind -----------------------------------------------------------------------------------


def test_all_files_of_a_run_are_there(run_script, quick, contents, goog, results, tmp_path):
    """With plots of their sizes, and with the numbers of the same run in the process of the tests."""
    outcome = run_script("train", "GOOG.csv", *quick, "--device", "cpu", "--out", "run", cwd=tmp_path)
    assert (outcome.code, outcome.out) == (0, goog.outcome.out)
    assert os.listdir(tmp_path) == ["run"]  # nothing temporary
    assert sorted(contents(tmp_path / "run")) == sorted([*RUN_FILES, *(f"plots/{name}.png" for name in PLOTS)])
    assert results(tmp_path / "run") == results(goog.folder)
    for name in PLOTS:
        path = tmp_path / "run/plots" / f"{name}.png"
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n"), name
        assert matplotlib.image.imread(path).shape[:2] == (672, 1200), name


def test_plots_have_the_format_that_is_asked_for(app, write_csv, quick, monkeypatch):
    """A resumed run keeps it, unless another one is given."""
    asked = []
    monkeypatch.setattr(run_folder, "write_plots", lambda folder, suffix, *_: asked.append(suffix))
    write_csv()
    for options, suffixes in (((), ["png"]), (("--plots", "svg"), ["svg"]), (("--plots", "none"), [])):
        assert app("train", "own.csv", *quick, *options, "--out", "run", "--overwrite").code == 0
        assert app("train", "--resume", "run").code == 0
        assert asked == suffixes * 2
        asked.clear()
    assert app("train", "--resume", "run", "--plots", "svg").code == 0
    assert asked == ["svg"]
    assert app("train", "own.csv", "--plots", "jpg").code == 2


def test_train_on_a_path(app, write_csv, quick, contents, tmp_path):
    (tmp_path / "series").mkdir()
    write_csv("series/own.csv")
    outcome = app("train", "series/own.csv", *quick, "--out", "deep/down/run")
    assert outcome.code == 0
    assert sorted(contents(tmp_path / "deep/down/run")) == RUN_FILES
    assert sorted(os.listdir(tmp_path / "deep/down")) == ["run"]
    assert "bundled" not in outcome.err
    notes = metadata(tmp_path / "deep/down/run/model.safetensors")["notes"]
    assert notes["file"] == "own.csv"  # a model that is handed on says nothing about the folders of who trained it
    assert notes.keys() == {
        "file",
        "bundled",
        "reading",
        "series",
        "missing",
        "split_ratio",
        "train_end",
        "fit_end",
        "fit_sha256",
        "last_label",
        "requested_device",
        "device_reason",
        "threads",
    }


def test_history_has_a_row_an_epoch(goog):
    rows = read_rows(goog.folder / "history.csv")
    assert list(rows[0]) == ["epoch", "cost", "validation_cost", "gradient_norm", "seconds"]
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0]["gradient_norm"] == ""
    assert all(float(row["gradient_norm"]) > 0 for row in rows[1:])
    assert float(rows[-1]["cost"]) < float(rows[0]["cost"])
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)


def test_predictions_are_of_every_row_that_has_a_window(validated):
    rows = read_rows(validated.folder / "predictions.csv")
    assert list(rows[0]) == ["date", "split", "step", "actual", "predicted", "residual", "best_baseline"]
    source = read_rows(bundled_file("GOOG.csv"))
    assert [row["date"] for row in rows] == [row["Date"] for row in source[10:]]
    assert [float(row["actual"]) for row in rows] == [float(row["Close"]) for row in source[10:]]
    for row in rows:
        assert float(row["residual"]) == float(row["actual"]) - float(row["predicted"])
    splits = [row["split"] for row in rows]
    fit_end = round(0.7 * len(source))
    train_end = fit_end - round(0.2 * fit_end)
    counts = {"train": train_end - 10, "validation": fit_end - train_end, "test": len(source) - fit_end}
    assert splits == [name for name, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("run", "file", "column"), [("validated", "GOOG.csv", "Close"), ("sunspots", "sunspots.csv", None)]
)
def test_metrics_follow_from_the_predictions(request, run, file, column):
    folder = request.getfixturevalue(run).folder
    metrics = read_json((folder / "metrics.json").read_text())
    source = read_rows(bundled_file(file))
    values = [float(row[column or "Sunspots"]) for row in source]
    labels = [row["Date" if column else "Year"] for row in source]
    before = dict(zip(labels[1:], values[:-1], strict=True))
    rows = read_rows(folder / "predictions.csv")
    assert list(metrics["parts"]) == ["train", *["validation"] * (run == "validated"), "test"]
    fit_end = metadata(folder / "model.safetensors")["notes"]["fit_end"]
    changes = np.abs(np.diff(values[:fit_end])).mean()
    for name, part in metrics["parts"].items():
        own = [row for row in rows if row["split"] == name]
        assert part["windows"] == len(own)
        actual = np.array([float(row["actual"]) for row in own])
        forecasts = {
            "GRU": np.array([float(row["predicted"]) for row in own]),
            "LastValue": np.array([before[row["date"]] for row in own]),
            "Mean": np.full(len(own), np.mean(values[:fit_end])),
        }
        for forecast, predicted in forecasts.items():
            errors = np.abs(actual - predicted)
            expected = {"mae": np.mean(errors), "rmse": np.sqrt(np.mean(errors**2))}
            if part["season"] == 1:
                expected["mase"] = expected["mae"] / changes
            reported = part["models"][forecast]
            assert {measure: reported[measure] for measure in expected} == pytest.approx(expected, rel=1e-9)
            assert reported["by_step"]["mae"] == [pytest.approx(expected["mae"], rel=1e-9)]
        baselines = {model: errors["mae"] for model, errors in part["models"].items()}
        baselines = {model: mae for model, mae in baselines.items() if model not in TRAINED}
        assert part["best_baseline"] == min(baselines, key=baselines.__getitem__)
        skill = 1 - part["models"]["GRU"]["mae"] / min(baselines.values())
        assert part["skill"] == pytest.approx(skill, abs=1e-9)


def test_metrics_agree_with_the_history(validated):
    metrics = read_json((validated.folder / "metrics.json").read_text())
    history = read_rows(validated.folder / "history.csv")
    best = min(history, key=lambda row: float(row["validation_cost"]))
    assert metrics["best_epoch"] == int(best["epoch"])
    assert metrics["epochs"] == int(history[-1]["epoch"]) == 3
    assert metrics["seconds"] == float(history[-1]["seconds"])
    assert metrics["stop_reason"] == "num_epochs"
    assert metrics["file"] == "GOOG.csv"
    assert metrics["target"] == "Close"
    assert metrics["device"] == {"requested": "cpu", "used": "cpu", "tf32": False, "reason": "as asked"}
    # the cost is the error in units of the one-step changes
    unit = metadata(validated.folder / "model.safetensors")["scaler"]["change_std"][0]
    for cost, part in (("cost", "train"), ("validation_cost", "validation")):
        assert float(best[cost]) == pytest.approx(
            (metrics["parts"][part]["models"]["GRU"]["rmse"] / unit) ** 2, rel=1e-4
        )


def test_model_file_says_all_about_the_run(goog):
    described = metadata(goog.folder / "model.safetensors")
    assert described["settings"] == {
        **Forecaster().settings(),
        "hidden_size": 4,
        "num_epochs": 3,
        "quantiles": [0.1, 0.5, 0.9],
        "levels": [],
    }
    assert described["settings"]["reset"] == "before"
    assert described["settings"]["seed"] == 0
    assert described["columns"] == ["Close"]
    assert described["device"] == "cpu"
    assert {"python", "gru-xp", "numpy", "array-api-compat"} <= set(described["versions"])
    closes = [float(row["Close"]) for row in read_rows(bundled_file("GOOG.csv"))]
    notes = described["notes"]
    learned = closes[: notes["train_end"]]
    scaler = described["scaler"]
    assert scaler["kind"] == "window"
    assert scaler["mean"] == pytest.approx([np.mean(learned)])
    assert scaler["std"] == pytest.approx([np.std(learned)])
    assert scaler["change_std"] == pytest.approx([np.std(np.diff(learned))])
    assert notes["train_end"] == notes["fit_end"] == 1504
    assert described["look_back"] == {"seq_length": 8, "season": 1, "penalty": 320.0}
    assert notes["bundled"] is True
    assert notes["split_ratio"] == 0.7
    shapes = {name: array.shape for name, array in tensors(goog.folder / "model.safetensors").items()}
    assert shapes == {
        "gru.0.0.weight_ih": (12, 1),
        "gru.0.0.weight_hh": (12, 4),
        "gru.0.0.bias": (12,),
        "linear.weight": (1, 4),
        "linear.bias": (1,),
        "skip.weight": (1, 8),
        "skip.bias": (1,),
    }


def test_settings_reach_the_model(app, write_csv, tmp_path):
    write_csv()
    options = {
        "seq_length": 4,
        "horizon": 3,
        "patches": 2,
        "hidden_size": 3,
        "num_layers": 2,
        "dropout": 0.25,
        "recurrent_dropout": 0.125,
        "zoneout": 0.5,
        "num_steps": 2,
        "learning_rate": 0.01,
        "optimizer": "adam",
        "reduction": "mean",
        "batch_size": 8,
        "clip_norm": 0.5,
        "patience": 7,
        "validation_ratio": 0.1,
        "scaling": "standard",
        "reset": "after",
        "dtype": "float64",
        "seed": 5,
        "keep_every": 2,
        "beta1": 0.75,
        "beta2": 0.875,
        "schedule": "cosine",
        "warmup": 0.25,
        "loss": "quantile",
    }
    flags = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)]
    flags += ["--quantile", 0.75, "--quantile", 0.25]
    others = ("--bidirectional", "--no-linear-skip", "--no-guard", "--refit")
    assert app("train", "own.csv", *flags, *others, "--out", "run").code == 0
    settings = metadata(tmp_path / "run/model.safetensors")["settings"]
    options["quantiles"] = [0.25, 0.5, 0.75]
    beside = {
        "num_epochs": None,
        "huber_delta": 1.0,
        "weight_decay": 0.0,
        "model": "gru",
        "season": "auto",
        "levels": [],
        "transform": "none",
        "minimum": None,
        "maximum": None,
    }  # not to be given with these
    assert settings == options | {"bidirectional": True, "linear_skip": False, "guard": False, "refit": True} | beside
    assert settings.keys() == Forecaster().settings().keys()
    assert all(value != Forecaster().settings()[name] for name, value in settings.items() if name not in beside)
    assert all(array.dtype == np.float64 for array in tensors(tmp_path / "run/model.safetensors").values())


def test_layers_and_directions_are_in_the_model(deep, validated):
    settings = metadata(deep.folder / "model.safetensors")["settings"]
    assert settings == metadata(validated.folder / "model.safetensors")["settings"] | {
        "hidden_size": 4,
        "num_epochs": 3,
        "num_layers": 2,
        "bidirectional": True,
        "dropout": 0.2,
        "recurrent_dropout": 0.1,
        "zoneout": 0.3,
    }
    shapes = {name: array.shape for name, array in tensors(deep.folder / "model.safetensors").items()}
    assert shapes == {
        **{f"gru.{layer}.{direction}.weight_ih": (12, 8 if layer else 1) for layer in (0, 1) for direction in (0, 1)},
        **{f"gru.{layer}.{direction}.weight_hh": (12, 4) for layer in (0, 1) for direction in (0, 1)},
        **{f"gru.{layer}.{direction}.bias": (12,) for layer in (0, 1) for direction in (0, 1)},
        "linear.weight": (1, 8),
        "linear.bias": (1,),
    }


def test_costs_with_dropout_are_those_of_the_predictions(deep):
    """Of the whole network, as the metrics are."""
    metrics = read_json((deep.folder / "metrics.json").read_text())
    best = read_rows(deep.folder / "history.csv")[metrics["best_epoch"]]
    unit = metadata(deep.folder / "model.safetensors")["scaler"]["change_std"][0]
    for cost, part in (("cost", "train"), ("validation_cost", "validation")):
        assert float(best[cost]) == pytest.approx(
            (metrics["parts"][part]["models"]["GRU"]["rmse"] / unit) ** 2, rel=1e-4
        )


def test_patience_ends_the_training(app, write_csv, tmp_path):
    write_csv()
    options = ("--hidden-size", 2, "--num-epochs", 50, "--patience", 3, "--optimizer", "sgd", "--learning-rate", 1)
    outcome = app("train", "own.csv", *options, "--out", "run")
    assert outcome.code == 0
    metrics = read_json((tmp_path / "run/metrics.json").read_text())
    assert metrics["stop_reason"] == "patience"
    assert metrics["epochs"] == metrics["best_epoch"] + 3 < 50
    assert "--patience" in outcome.err


def test_without_validation_test_and_patience(app, write_csv, quick, plain, tmp_path):
    write_csv()
    options = (*plain, "--validation-ratio", 0, "--split-ratio", 1, "--patience", 0)
    outcome = app("train", "own.csv", *quick, *options, "--out", "run")
    assert outcome.code == 0
    assert metadata(tmp_path / "run/model.safetensors")["settings"]["patience"] is None
    metrics = read_json((tmp_path / "run/metrics.json").read_text())
    assert {name: part["windows"] for name, part in metrics["parts"].items()} == {"train": 50}
    assert all(row["validation_cost"] == "" for row in read_rows(tmp_path / "run/history.csv"))
    assert {row["split"] for row in read_rows(tmp_path / "run/predictions.csv")} == {"train"}
    assert "test" not in outcome.err


def test_features_are_further_inputs(featured):
    assert "GOOG.csv, Open" in featured.outcome.out
    described = metadata(featured.folder / "model.safetensors")
    assert described["columns"] == ["Open", "High", "Low", "Adj Close"]
    assert tensors(featured.folder / "model.safetensors")["gru.0.0.weight_ih"].shape == (12, 4)


def test_the_same_command_gives_the_same_run_and_another_seed_another(app, write_csv, quick, tmp_path, results):
    write_csv()
    for options in (
        ("--batch-size", 7),
        ("--num-layers", 2, "--dropout", 0.5, "--recurrent-dropout", 0.2, "--zoneout", 0.1),
    ):
        for out, seed in (("one", 3), ("two", 3), ("other", 4)):
            arguments = (*quick, *options, "--seed", seed, "--out", out, "--overwrite")
            assert app("train", "own.csv", *arguments).code == 0
        one, two, other = (results(tmp_path / out) for out in ("one", "two", "other"))
        assert one == two, options
        assert all(one[name] != other[name] for name in one), options


# --- what is said where -----------------------------------------------------------------------------------------


def test_the_table_is_all_of_stdout(validated):
    lines = [line.split() for line in validated.outcome.out.splitlines() if line.strip()]
    assert lines[0][:2] == ["GOOG.csv,", "Close:"]
    assert lines[1] == ["part", "forecast", "windows", "MAE", "RMSE", "MASE", "skill"]
    metrics = read_json((validated.folder / "metrics.json").read_text())
    expected = []
    for name, part in metrics["parts"].items():
        for model, errors in part["models"].items():
            if model == "GRU" or name == "test":
                head = [name, "GRU", str(part["windows"])] if model == "GRU" else name_in_text(model).split()
                numbers = [
                    *(number_text(errors[measure]) for measure in ("mae", "rmse")),
                    number_text(errors["mase"], 4),
                ]
                skill = [f"{1 - errors['mae'] / part['models'][part['best_baseline']]['mae']:+.1%}"]
                if (p_value := part["p_values"].get(model)) is None or p_value >= 0.05:
                    skill = [f"{skill[0]}~"]
                skill = skill if model in TRAINED else ["best"] * (model == part["best_baseline"])
                expected.append([*head, *numbers, *skill])
    *table, first, second = (line for line in lines[3:] if line[0] != "~")
    assert table == expected
    assert [row[0] for row in expected if row[1] == "GRU"] == ["train", "validation", "test"]
    assert {"GRU", "MAE"} < set(first)
    assert {"GRU", "repeat"} < set(second) or {"GRU", "repeats"} < set(second)


def test_everything_else_is_on_stderr(goog):
    first, second, *others = goog.outcome.err.splitlines()
    assert "--preset article" in others[0]
    assert "bundled GOOG.csv" in first
    assert second.startswith("device: cpu ")
    for text in ("epoch 3/3", "last 8 rows before the test set", "written to run"):
        assert len([line for line in others if text in line]) == 1, text


def test_json_is_one_document_and_nothing_else(sunspots):
    document = read_json(sunspots.outcome.out)
    assert document.pop("run") == "run"
    assert document == read_json((sunspots.folder / "metrics.json").read_text())


def test_quiet_says_nothing_on_stderr(sunspots):
    assert sunspots.outcome.err == ""


def test_an_existing_folder_is_refused(app, write_csv, quick, unchanged, tmp_path):
    write_csv()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    with unchanged():
        outcome = app("train", "own.csv", *quick, "--out", "run")
    outcome.assert_refused("run exists", "--overwrite", "--out")


def test_a_file_in_the_place_of_the_folder_is_refused(app, write_csv, quick, unchanged):
    write_csv("run")
    with unchanged():
        outcome = app("train", "run", *quick, "--out", "run", "--overwrite")
    outcome.assert_refused("run exists and is not a folder", "--out")


def test_overwrite_replaces_the_run_and_keeps_other_files(app, write_csv, quick, contents, tmp_path):
    write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    (tmp_path / "run/notes.txt").write_text("mine")
    before = contents(tmp_path / "run")
    assert app("train", "own.csv", *quick, "--seed", 9, "--out", "run", "--overwrite").code == 0
    after = contents(tmp_path / "run")
    assert sorted(after) == sorted(before) == sorted([*RUN_FILES, "notes.txt"])
    assert after.pop("notes.txt") == b"mine"
    assert [name for name, text in after.items() if text == before[name]] == []
    assert sorted(os.listdir(tmp_path)) == ["own.csv", "run"]


def test_an_older_run_outlives_an_error_in_the_data(app, write_csv, quick, unchanged):
    write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    write_csv(change={30: "?"})
    with unchanged():
        assert app("train", "own.csv", *quick, "--out", "run", "--overwrite").code == 1


def test_nothing_but_the_checkpoint_is_left_when_writing_fails(app, write_csv, quick, contents, monkeypatch, tmp_path):
    write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    before = contents(tmp_path / "run")

    def fail(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr(run_folder, "write_plots", fail)
    for out in ("run", "deep/down/run"):
        outcome = app("train", "own.csv", *quick, "--seed", 4, "--out", out, "--overwrite", "--quiet")
        outcome.assert_refused(f"{out}: cannot be written (the disk is full)", f"gru-xp train --resume {out}")
    assert list(contents(tmp_path / "deep/down/run")) == ["checkpoint.safetensors"]
    after = contents(tmp_path / "run")
    assert before.keys() == after.keys()
    assert [name for name in before if after[name] != before[name]] == ["checkpoint.safetensors"]


def test_runs_have_a_folder_of_their_own(app, write_csv, quick, monkeypatch, tmp_path):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2024, 5, 17, 8, 30, 15)

    monkeypatch.setattr(sys.modules["gru_xp.cli.train"], "datetime", Clock)
    write_csv("my series.csv")
    names = ["my series-20240517-083015", "my series-20240517-083015-2"]
    for name in names:
        outcome = app("train", "my series.csv", *quick)
        assert outcome.code == 0
        assert f"written to {Path('runs') / name}\n" in outcome.err
    assert app("train", "sunspots", "--num-epochs", 1).code == 0
    assert sorted(os.listdir(tmp_path / "runs")) == [*names, "sunspots-20240517-083015"]


# --- when it does not work --------------------------------------------------------------------------------------


def test_a_run_that_gets_out_of_hand_keeps_the_best(app, write_csv, plain, tmp_path):
    write_csv()
    options = (*plain, "--hidden-size", 4, "--num-epochs", 20, "--learning-rate", "1e30", "--optimizer", "sgd")
    outcome = app("train", "own.csv", *options, "--out", "run", "--json", "--quiet")
    assert outcome.code == 1
    document = read_json(outcome.out)
    epoch = document["epochs"]
    assert 1 <= epoch < 20
    assert document["stop_reason"] == "non_finite"
    assert outcome.error.startswith(f"epoch {epoch}, batch 1: ")
    assert all(text in outcome.error for text in ("learning rate", "1e+30", f"epoch {document['best_epoch']} "))
    assert all(np.isfinite(array).all() for array in tensors(tmp_path / "run/model.safetensors").values())
    assert sorted(os.listdir(tmp_path)) == ["own.csv", "run"]
    assert app("evaluate", "run", "own.csv").code == 0


BAD_DATA = [
    (None, (), ["own.csv: no such file", "AAPL.csv, GOOG.csv, IBM.csv, sunspots.csv"]),
    ("", (), ["own.csv", "empty"]),
    ("\n \n", (), ["own.csv", "empty"]),
    ("Date,Close\n", (), ["own.csv", "header line and no rows"]),
    ("Date,Name\n2020-01-01,a\n2020-01-02,b\n", (), ["no numeric column", "Date, Name"]),
    ("Date,A,B\n2020-01-01,1,2\n2020-01-02,2,3\n", (), ["2 numeric columns", "--target", "A, B"]),
    ("Date,A\n2020-01-01,1\n2020-01-02,2\n", ("--target", "C"), ["no column 'C'", "Date, A"]),
    ("Date,A\n2020-01-01,1\n2020-01-02,2\n", ("--features", "C"), ["no column 'C'", "Date, A"]),
    ("Date,A\n2020-01-01,1\n2020-01-02,high\n2020-01-03,2\n", (), ["line 3, column A", "'high' is not a number"]),
    ("Date,A\n2020-01-01,1\n2020-01-02,2\n2020-01-03,NaN\n", (), ["line 4, column A", "missing"]),
    ("Date,A\n2020-01-01,1\n2020-01-02,\n2020-01-03,3\n", (), ["line 3, column A", "missing"]),
    ("Date,A\n2020-01-01,1\n2020-01-02,inf\n2020-01-03,3\n", (), ["line 3, column A", "'inf'"]),
    ("Date,A\n2020-01-01,1\n2020-01-02,2,3\n", (), ["line 3", "3 fields", "header has 2"]),
    ("Date,A\n2020-01-01,1\n2020-01-02,2\n", (), ["2 rows are too few", "are needed"]),
]


def test_bad_data_is_refused_in_one_line(app, tmp_path, unchanged):
    for content, options, said in BAD_DATA:
        if content is not None:
            (tmp_path / "own.csv").write_text(content)
        with unchanged():
            app("train", "own.csv", *options).assert_refused(*said)


def test_the_number_of_rows_that_is_said_is_enough(app, write_csv, quick, plain):
    for options, rows in (((), 2), (plain, 11)):
        write_csv(rows=rows)
        outcome = app("train", "own.csv", *quick, *options)
        outcome.assert_refused(f"{rows} rows are too few")
        (needed,) = (int(number) for number in re.findall(r"at least (\d+)", outcome.error))
        write_csv(rows=needed - 1)
        assert app("train", "own.csv", *quick, *options).code == 1
        write_csv(rows=needed)
        assert app("train", "own.csv", *quick, *options).code == 0


def test_a_constant_column_is_refused(app, write_csv, quick, unchanged):
    write_csv(change=dict.fromkeys(range(60), "5"))
    with unchanged():
        app("train", "own.csv", *quick, "--quiet").assert_refused("column Value")


def test_what_is_no_csv_file_is_refused(app, tmp_path):
    (tmp_path / "own.csv").mkdir()
    app("train", "own.csv").assert_refused("own.csv: is a directory")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    app("train", "binary.csv").assert_refused("binary.csv, line 3", "0x80", "UTF-8")


def test_what_was_done_to_the_data_is_said(app, quick, tmp_path):
    lines = [f"{1960 - row},{row % 5}" for row in range(60)]
    (tmp_path / "own.csv").write_text("\n".join(["Year,Value", *lines]))
    outcome = app("train", "own.csv", *quick, "--out", "run", "--quiet")
    assert outcome.code == 0
    (line,) = outcome.err.splitlines()
    assert line.startswith("own.csv: ")
    assert read_rows(tmp_path / "run/predictions.csv")[0]["date"] == "1911"


def test_a_local_file_comes_before_a_bundled_one(app, write_csv, quick, tmp_path):
    write_csv("GOOG.csv")
    outcome = app("train", "GOOG.csv", *quick, "--out", "run")
    assert outcome.code == 0
    assert "bundled" not in outcome.err
    assert "GOOG.csv, Value" in outcome.out
    notes = metadata(tmp_path / "run/model.safetensors")["notes"]
    assert notes["bundled"] is False
    assert notes["file"] == "GOOG.csv"


def test_no_run_has_more_than_its_files_can_hold(app, write_csv):
    write_csv()
    for option, most in (("--num-layers", MOST_LAYERS), ("--threads", MOST_THREADS)):
        outcome = app("train", "own.csv", option, most + 1)
        assert outcome.code == 2
        assert f"{most + 1} is not in the range 1<=x<={most}." in outcome.err
