import json
import sys

import numpy as np
import pytest

from gru_xp import Forecaster, cli
from gru_xp.forecasting.presets import ARTICLE, RECIPE

QUICK = ("--hidden-size", "4", "--device", "cpu")


@pytest.fixture
def csv(tmp_path, rng):
    values = np.resize([5.0, 6, 5, 7, 9, 12, 3], 200) + 0.2 * rng.standard_normal(200)
    dates = np.arange("2024-01-01", "2024-07-19", dtype="datetime64[D]")
    file = tmp_path / "visits.csv"
    file.write_text("date,visits\n" + "".join(f"{d},{v:.4f}\n" for d, v in zip(dates, values, strict=True)))
    return file


def test_the_recipe_from_the_command_line(app, csv, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.progress, "SECONDS_BETWEEN_LINES", 0)
    out = tmp_path / "run"
    result = app("train", csv, "--horizon", "3", *QUICK, "--out", out)
    settled, first = result.err.index("season: 7 rows"), result.err.index("epoch 1/")
    assert settled < first
    held = Forecaster.load(out / "model.safetensors", device="cpu")
    assert held.settings().items() >= (RECIPE | {"horizon": 3, "hidden_size": 4}).items()
    forecast = app("forecast", out, "--steps", "5")
    assert len(forecast.out.splitlines()) == 6
    assert json.loads((out / "metrics.json").read_text())["parts"]["test"]["skill"] > 0


def test_what_is_given_holds_beside_a_preset(app, csv, tmp_path):
    given = ("--num-epochs", "2", "--seq-length", "9", "--season", "none", "--guard", "--batch-size", "20")
    app("train", csv, "--preset", "article", *given, *QUICK, "--out", tmp_path / "run")
    settings = Forecaster.load(tmp_path / "run" / "model.safetensors", device="cpu").settings()
    assert [settings[name] for name in ("num_epochs", "seq_length", "season", "guard", "batch_size")] == [
        2,
        9,
        "none",
        True,
        20,
    ]
    assert settings["optimizer"] == ARTICLE["optimizer"]


def test_the_article_from_the_command_line(app, csv, tmp_path):
    app("train", csv, "--preset", "article", "--num-epochs", "3", *QUICK, "--out", tmp_path / "run")
    settings = Forecaster.load(tmp_path / "run" / "model.safetensors", device="cpu").settings()
    assert settings.items() >= (ARTICLE | {"num_epochs": 3}).items()


def test_a_recipe_goes_on_with_the_same_result(app, csv, tmp_path, monkeypatch):
    whole, part = tmp_path / "whole", tmp_path / "part"
    train = ("train", csv, *QUICK, "--out")
    app(*train, whole)
    app(*train, part, "--checkpoint-every", "2")
    app("train", "--resume", part)
    assert (whole / "model.safetensors").read_bytes() == (part / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["noise", "walk"])
def test_the_guard_says_what_it_forecasts(kind, app, tmp_path, rng):
    """And no skill is claimed."""
    values = rng.standard_normal(1000)
    file = tmp_path / "values.csv"
    file.write_text("value\n" + "".join(f"{v:.4f}\n" for v in (values if kind == "noise" else values.cumsum())))
    result = app("train", file, *QUICK, "--out", tmp_path / "run")
    found = Forecaster.load(tmp_path / "run" / "model.safetensors", device="cpu").fallback
    assert found == "mean" if kind == "noise" else found in ("last value", "drift")
    assert f"nothing beats the {found} forecast" in result.err
    evaluated, forecast = app("evaluate", tmp_path / "run"), app("forecast", tmp_path / "run")
    assert evaluated.out == result.out
    assert f" GRU ({found}) " in evaluated.out
    assert f"GRU ({found}) is the {found} forecast" in evaluated.out
    assert all(f"nothing beats the {found} forecast" in outcome.err for outcome in (evaluated, forecast))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["parts"]["test"]["skill"] <= 0.03


@pytest.mark.parametrize("is_walk", [False, True])
def test_a_run_of_a_ridge_holds_its_rows(is_walk, app, csv, tmp_path, rng):
    if is_walk:  # which the guard forecasts without the ridge
        csv.write_text("value\n" + "".join(f"{value:.4f}\n" for value in rng.standard_normal(800).cumsum()))
    run = tmp_path / "run"
    assert app("train", csv, "--model", "ridge", "--horizon", "2", "--device", "cpu", "--out", run).code == 0
    held = Forecaster.load(run / "model.safetensors", device="cpu")
    assert (held.model, held.fallback is not None) == ("ridge", is_walk)
    for command in (("forecast", run, "--steps", "3"), ("evaluate", run), ("backtest", run)):
        found, expected = app(*command), app(*command[:2], csv, *command[2:])
        assert found.code == 0, found.err
        assert found.out == expected.out
    before = (run / "model.safetensors").read_bytes()
    resumed = app("train", "--resume", run)
    assert (resumed.code, "the run was complete" in resumed.err) == (0, True)
    assert (run / "model.safetensors").read_bytes() == before
    app("train", "--resume", run, "--num-epochs", "3").assert_refused("--num-epochs is not set in the run", "ridge")


def test_few_rows_are_warned_of(app, csv):
    lines = csv.read_text().splitlines(keepends=True)
    for rows, warned in ((9, True), (60, False)):
        csv.write_text("".join(lines[: 1 + rows]))
        for command in (("train", csv, "--out", "run", "--overwrite"), ("backtest", csv)):
            result = app(*command, "--model", "ridge", "--season", "none", "--device", "cpu", "--quiet")
            assert result.code == 0
            assert ("training windows" in result.err) == warned, command


def test_one_line_says_whose_the_defaults_are(app, csv):
    def lines(*options):
        result = app("train", csv, "--model", "ridge", "--device", "cpu", "--out", "run", "--overwrite", *options)
        return [line for line in result.err.splitlines() if "--preset article" in line]

    (line,) = lines("--scaling", "none", "--seq-length", "12")
    assert "--guard" in line
    assert "--optimizer" not in line  # a ridge has none
    assert "--scaling" not in line
    assert "--hidden-size" not in line  # the article's is the same
    assert not lines("--preset", "article", "--linear-skip")
    assert not lines("--quiet")


def test_the_command_of_the_article_runs_verbatim(app, monkeypatch):
    article = (
        "--split_ratio 0.7 --seq_length 10 --hidden_size 70 --num_epochs 1000 --learning_rate 0.00001 --optimizer sgd"
    )
    called = []
    monkeypatch.setattr(Forecaster, "fit", lambda self, *_, **__: called.append(self.settings()) or sys.exit(0))
    for preset in ((), ("--preset", "article")):
        assert (
            app(
                "train", "GOOG.csv", *article.split(), "--optimizer", "sgd", *preset, "--device", "cpu", "--out", "run"
            ).code
            == 0
        )
    ours, theirs = called
    given = {"seq_length": 10, "hidden_size": 70, "num_epochs": 1000, "learning_rate": 1e-5, "optimizer": "sgd"}
    assert theirs == RECIPE | ARTICLE | given
    assert ours == RECIPE | given
