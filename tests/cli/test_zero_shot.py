"""Forecasts with no run, by a small network whose weights are random, and those of it beside a trained model."""

import csv
import io
import json
import os
import shutil
import threading

import numpy as np
import pytest

from gru_xp.cli import zero_shot
from gru_xp.forecasting import backtest
from gru_xp.io.read import read_series
from gru_xp.pretrained import ZeroShotForecaster, weights
from gru_xp.pretrained.network import init_zero_shot_params

pytestmark = pytest.mark.compat

QUANTILES = [
    f"ZeroShot-{side}-{share}"
    for side, shares in (("lo", (80, 60, 40, 20)), ("hi", (20, 40, 60, 80)))
    for share in shares
]


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """Weights of a network that has learned nothing; its path."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.save_weights(path, init_zero_shot_params(hidden_size=6, xp=np, dtype=np.float32))
    return path


@pytest.fixture(autouse=True)
def of_package(monkeypatch):
    """``of_package(path)``: let the package have these weights; it has none unless this is called."""

    def set_file(path):
        weights.default_weights.cache_clear()
        monkeypatch.setattr(weights, "WEIGHTS_FILE", str(path))

    set_file("none.safetensors")
    yield set_file
    weights.default_weights.cache_clear()


@pytest.fixture
def points_alone(monkeypatch):
    """Let quantiles be measured by nothing, which takes longer than all the rest."""
    monkeypatch.setattr(backtest, "quantile_accuracy", lambda *arguments: {})


@pytest.fixture
def monthly(tmp_path):
    """A file of 120 months with a season; its path."""
    rng, rows = np.random.default_rng(3), np.arange(120)
    values = 50 + 0.2 * rows + 8 * np.sin(2 * np.pi * rows / 12) + rng.standard_normal(120)
    lines = [f"{2001 + row // 12}-{1 + row % 12:02d}-01,{value:.3f}" for row, value in enumerate(values)]
    path = tmp_path / "monthly.csv"
    path.write_text("\n".join(["Month,Sales", *lines]) + "\n", encoding="utf-8")
    return path


def table(outcome):
    assert outcome.code == 0, outcome.err
    return list(csv.DictReader(io.StringIO(outcome.out)))


def column(rows, name):
    return [float(row[name]) for row in rows]


# --- forecasts ----------------------------------------------------------------------------------------------------


def test_a_forecast_needs_no_run(app, monthly, weights_file):
    outcome = app("forecast", "monthly.csv", "--steps", 15, "--weights", weights_file)
    rows, series = table(outcome), read_series(monthly)
    assert list(rows[0]) == ["step", "date", "Sales", *QUANTILES, "LastValue", "SeasonalNaive"]
    assert [row["date"] for row in rows[:2]] == ["2011-01-01", "2011-02-01"]
    expected = ZeroShotForecaster(weights=weights_file, device="cpu").forecast_distribution(series, 15)
    assert column(rows, "Sales") == expected.iloc[:, 0].tolist()
    for name in QUANTILES:
        assert column(rows, name) == expected[name].tolist(), name
    target = series.values[:, 0].tolist()
    assert column(rows, "LastValue") == target[-1:] * 15
    assert column(rows, "SeasonalNaive") == [*target[-12:], *target[-12:-9]]
    *_, said = outcome.err.splitlines()
    assert all(part in said for part in ("no training", "found: 12 rows", str(weights_file)))
    quiet = app("forecast", "monthly.csv", "--steps", 15, "--weights", weights_file, "--json", "--quiet")
    assert quiet.err == ""
    for step, row in zip(json.loads(quiet.out), rows, strict=True):
        assert {name: str(value) for name, value in step.items()} == row


def test_seasons_are_given_found_or_none(app, monthly, weights_file):
    given = ("forecast", "monthly.csv", "--weights", weights_file)
    for options, said, naive in (
        (("--season", "none"), "given: none", []),
        (("--season", 4), "given: 4 rows", ["SeasonalNaive"]),
        (("--season", "24,7"), "given: 7 rows and 24 rows", ["SeasonalNaive7", "SeasonalNaive24"]),
        (("--season", 24, "--season", 7), "given: 7 rows and 24 rows", ["SeasonalNaive7", "SeasonalNaive24"]),
        (("--season", "auto"), "found: 12 rows", ["SeasonalNaive"]),
    ):
        outcome = app(*given, *options)
        assert list(table(outcome)[0])[11:] == ["LastValue", *naive], options
        assert ("no clear season" in outcome.err) == ("given: 4" in said or "7 rows" in said), options
        assert said in outcome.err.splitlines()[-1]
    for wrong in ("1", "7,x", "7,none", "7,24,168", "weekly"):
        for command in ("forecast", "evaluate", "backtest"):
            outcome = app(command, "monthly.csv", "--season", wrong)
            assert (outcome.code, "--season" in outcome.err) == (2, True), wrong
    for command in ("forecast", "evaluate"):
        outcome = app(command, *given[1:], "--season", "24,512")
        assert (outcome.code, "--season 512" in outcome.err, "511" in outcome.err) == (2, True, True)
    assert app(*given, "--season", 511, "--quiet").code == 0
    given = ZeroShotForecaster(season=(7, 24), weights=weights_file, device="cpu")
    expected = given.forecast(read_series(monthly), 1).tolist()
    assert (
        column(table(app("forecast", "monthly.csv", "--weights", weights_file, "--season", "7,24")), "Sales")
        == expected
    )


def test_a_column_that_is_called_like_a_forecast_is_not_lost(app, monthly, weights_file):
    monthly.write_text(monthly.read_text().replace("Sales", "LastValue"))
    rows = table(app("forecast", "monthly.csv", "--weights", weights_file))
    expected = ZeroShotForecaster(weights=weights_file, device="cpu").forecast(read_series(monthly), 1)
    assert column(rows, "LastValue") == expected.tolist()


def test_the_package_has_weights_or_says_how_to_make_them(app, monthly, weights_file, of_package):
    for command in ("forecast", "evaluate", "backtest"):
        given = (command, "monthly.csv", *(("--model", "zero-shot") if command == "backtest" else ()), "--quiet")
        app(*given).assert_refused("python -m gru_xp.pretrained", "weights")
        app(*given, "--weights", "none.safetensors").assert_refused("none.safetensors")
        app(*given, "--weights", "monthly.csv").assert_refused("monthly.csv")
    of_package(weights_file)
    own, named = app("forecast", "monthly.csv"), app("forecast", "monthly.csv", "--weights", weights_file)
    assert table(own) == table(named)


def test_too_few_rows(app, monthly, weights_file):
    given = ("monthly.csv", "--order", "oldest-first", "--weights", weights_file, "--quiet")
    monthly.write_text("Sales\n3\n")
    app("forecast", *given).assert_refused("monthly.csv: 1 row is too few", "2 are needed")
    monthly.write_text("Sales\n3\n4\n")
    assert len(table(app("forecast", *given))) == 1
    app("evaluate", *given, "--steps", 4).assert_refused("monthly.csv: 2 rows are too few")
    app("evaluate", *given).assert_refused("monthly.csv: 2 rows are too few", "at least 3 are needed")


# --- measures -----------------------------------------------------------------------------------------------------


def test_a_file_is_evaluated_like_the_test_part_of_a_training(app, monthly, weights_file, quick, request):
    """The last 30 % of the rows, as backtest has them."""
    given = ("monthly.csv", "--steps", 3, "--weights", weights_file)
    evaluated = app("evaluate", *given, "--json")
    assert evaluated.code == 0, evaluated.err
    document = json.loads(evaluated.out)
    assert document["run"] is None
    assert (document["target"], document["device"]["requested"], document["device"]["used"]) == ("Sales", "auto", "cpu")
    (test,) = document["parts"].values()
    series = read_series(monthly)
    origins = range(84, 120, 3)
    forecasts = ZeroShotForecaster(weights=weights_file, device="cpu").forecasts(series, origins, 3)
    errors = np.abs(forecasts - series.values[84:, 0].reshape(-1, 3))
    assert (test["model"], test["windows"], test["horizon"]) == ("ZeroShot", 12, 3)
    assert test["models"]["ZeroShot"]["mae"] == pytest.approx(errors.mean(), rel=1e-4)
    assert test["models"]["ZeroShot"]["expected_coverage"] == pytest.approx(0.8)
    assert {"LastValue", "Mean", "Drift", "SeasonalNaive", "Ridge"} <= set(test["models"])

    measured = app("backtest", *given, "--model", "zero-shot", "--out", "all.csv", "--json")
    assert {**json.loads(measured.out), **test} == json.loads(measured.out)
    with open("all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:13] == ["unique_id", "ds", "cutoff", "y", "ZeroShot", *QUANTILES]
    assert not any("median" in name for name in rows[0])
    np.testing.assert_allclose(column(rows, "ZeroShot"), forecasts.ravel())

    request.getfixturevalue("points_alone")
    trained = app("backtest", "monthly.csv", "--steps", 3, *quick, "--json")
    for name in ("LastValue", "Drift", "SeasonalNaive"):
        assert json.loads(trained.out)["models"][name]["mae"] == pytest.approx(test["models"][name]["mae"])

    out = app("evaluate", *given).out
    assert out == app("backtest", *given, "--model", "zero-shot").out
    assert [line.split()[:3] for line in out.splitlines() if "zero-shot  " in line][:1] == [["test", "zero-shot", "12"]]
    assert "The zero-shot forecast" in out


def test_fewer_windows_and_other_shares(app, monthly, weights_file, points_alone):
    given = ("backtest", "monthly.csv", "--model", "zero-shot", "--weights", weights_file, "--json")
    for options, windows in ((("--split-ratio", 0.5), 60), (("--windows", 7), 7), (("--windows", 4, "--stride", 9), 4)):
        assert json.loads(app(*given, *options).out)["windows"] == windows, options


def test_few_rows_leave_out_the_ridge(app, monthly, weights_file, points_alone):
    given = ("backtest", "monthly.csv", "--model", "zero-shot", "--weights", weights_file, "--steps", 30)
    for windows, has_ridge in ((1, True), (3, False)):  # 90 and 30 rows before them
        outcome = app(*given, "--windows", windows, "--json")
        assert outcome.code == 0, outcome.err
        assert ("Ridge" in json.loads(outcome.out)["models"]) == has_ridge
        assert ("no ridge in the table: the training rows are too few" in outcome.err) != has_ridge


def test_a_constant_series_is_said_to_be_one(app, weights_file, tmp_path, points_alone):
    (tmp_path / "flat.csv").write_text("\n".join(["Day,Sales", *(f"2024-01-{day:02d},5" for day in range(1, 31))]))
    for command in (("evaluate", "flat.csv"), ("backtest", "flat.csv", "--model", "zero-shot")):
        outcome = app(*command, "--weights", weights_file)
        assert (outcome.code, "no ridge in the table: Sales is constant" in outcome.err) == (0, True)


def test_scripts_may_demand_few_errors(app, monthly, weights_file, points_alone):
    given = ("evaluate", "monthly.csv", "--weights", weights_file, "--json")
    (test,) = json.loads(app(*given).out)["parts"].values()
    outcome = app(*given, "--fail-below-naive")
    assert outcome.code == (3 if test["skill"] < 0 else 0)


# --- beside a trained model ---------------------------------------------------------------------------------------


def test_every_table_has_a_row(app, monthly, weights_file, of_package, quick, tmp_path):
    """Where the package has weights, in the part after the training rows."""
    given = ("monthly.csv", *quick, "--season", 12)
    without = app("train", *given, "--out", "without")
    assert (without.code, "zero-shot" in without.out + without.err) == (0, False)
    of_package(weights_file)
    outcomes = [
        app("train", *given, "--out", "run"),
        app("evaluate", "run"),
        app("evaluate", "run", "monthly.csv"),
        app("backtest", "run"),
        app("backtest", *given),
        app("backtest", "monthly.csv", "--model", "ridge", "--windows", 5, "--refit", "always"),
    ]
    for outcome in outcomes:
        assert outcome.code == 0, outcome.err
        (row,) = [line.split() for line in outcome.out.splitlines() if line.strip().startswith("zero-shot")]
        assert len(row) == 5
    parts = json.loads((tmp_path / "run/metrics.json").read_text())["parts"]
    assert ["ZeroShot" in part["models"] for part in parts.values()] == [False, True]
    series = read_series(monthly)
    forecaster = ZeroShotForecaster(season=12, weights=weights_file, device="cpu")
    errors = np.abs(forecaster.forecasts(series, range(84, 120), 1)[:, 0] - series.values[84:, 0])
    assert parts["test"]["models"]["ZeroShot"]["mae"] == pytest.approx(errors.mean(), rel=1e-4)


def test_a_table_of_a_season_that_is_too_long_has_none(app, of_package, weights_file, quick, tmp_path):
    rng = np.random.default_rng(3)
    (tmp_path / "long.csv").write_text("\n".join(["Sales", *map(str, rng.normal(size=900))]))
    of_package(weights_file)
    given = ("backtest", "long.csv", "--order", "oldest-first", *quick, "--windows", 3)
    outcome = app(*given, "--season", 512, "--json")
    assert "ZeroShot" not in json.loads(outcome.out)["models"]
    assert "no zero-shot" in outcome.err


def test_a_table_of_too_many_windows_has_none(app, monthly, weights_file, of_package, quick, monkeypatch):
    of_package(weights_file)
    for most, has_row in ((36, True), (35, False)):
        monkeypatch.setattr(zero_shot, "MAX_BESIDE", most)
        outcome = app("backtest", "monthly.csv", *quick, "--json")
        assert ("ZeroShot" in json.loads(outcome.out)["models"]) == has_row
        assert ("no zero-shot" in outcome.err) != has_row


# --- what is a run, and what is refused ---------------------------------------------------------------------------


def test_the_first_argument_is_a_run_or_a_file(app, goog, weights_file, tmp_path):
    given = ("--weights", weights_file)
    assert "Close" in table(app("forecast", "GOOG", *given))[0]
    shutil.copytree(goog.folder, "GOOG")
    shutil.copy(goog.folder / "model.safetensors", "some.model")
    for command in ("forecast", "evaluate", "backtest"):
        app(command, "GOOG", "--quiet").assert_refused("GOOG: ", "./GOOG", "GOOG.csv")
        app(command, "none", "--quiet").assert_refused("none: does not exist", "GOOG.csv")
        assert app(command, "./GOOG").out == app(command, goog.folder).out.replace(str(goog.folder), "./GOOG")
        assert app(command, "some.model", "IBM.csv", "--quiet").code == 0
        refused = app(command, "GOOG.csv", "IBM.csv")
        assert (refused.code, "'GOOG.csv' is no run" in refused.err) == (2, True)
    assert "Close" in table(app("forecast", "GOOG.csv", *given))[0]
    shutil.move("GOOG", "GOOG.csv")
    app("forecast", "GOOG.csv", "--quiet").assert_refused("./GOOG.csv", "or GOOG for")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name")
def test_a_pipe_is_read_once(app, monthly, weights_file, tmp_path):
    expected = table(app("forecast", "monthly.csv", "--weights", weights_file))
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(monthly.read_bytes()))
    writer.start()
    found = app("forecast", "pipe", "--weights", weights_file)
    writer.join()
    assert table(found) == expected


def test_options_that_have_no_effect_are_refused(app, goog, monthly, weights_file):
    for command in ("forecast", "evaluate", "backtest"):
        for option in ("--season", "--weights"):
            outcome = app(command, goog.folder, option, 12)
            assert (outcome.code, f"{option} cannot be combined with RUN" in outcome.err) == (2, True), (
                command,
                option,
            )
        model = ("--model", "zero-shot") if command == "backtest" else ()
        for option in ("--feature", "--features"):
            outcome = app(command, "monthly.csv", *model, "--weights", weights_file, option, "Month")
            assert (outcome.code, f"{option} cannot" in outcome.err) == (2, True), (command, option)
    for options in (
        ("--preset", "recipe"),
        ("--seq-length", 12),
        ("--no-guard",),
        ("--hidden-size", 4),
        ("--num-epochs", 3),
        ("--quantile", 0.1),
        ("--refit", "always"),
        ("--seed", 1),
    ):
        outcome = app("backtest", "monthly.csv", "--model", "zero-shot", *options)
        assert outcome.code == 2, options
        assert f"{options[0].replace('no-', '')} cannot be combined" in outcome.err
    for options, said in ((("--weights", weights_file), "--weights"), (("--season", "7,30"), "--season")):
        outcome = app("backtest", "monthly.csv", *options)
        assert (outcome.code, said in outcome.err, "--model zero-shot" in outcome.err) == (2, True, True)
    assert app("train", "monthly.csv", "--model", "zero-shot").code == 2
