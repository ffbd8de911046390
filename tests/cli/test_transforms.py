"""``--transform``, ``--min`` and ``--max`` of the commands."""

import csv
import json

import pytest

QUICK = ("--num-steps", "2", "--hidden-size", "2", "--horizon", "2", "--device", "cpu")


@pytest.fixture
def growing(write_csv):
    """A file of values whose noise is a share of their level."""
    values = {row: repr(1.02**row * (1 + 0.3 * (row % 3 == 0) + 0.1 * (row % 5))) for row in range(150)}
    return str(write_csv(rows=150, change=values))


def test_train_forecast_and_evaluate(app, growing, tmp_path):
    trained = app("train", growing, "--transform", "auto", "--loss", "quantile", *QUICK, "--out", "run")
    assert trained.code == 0, trained.err
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["transform"]["reason"] in trained.err
    _, *rows = csv.reader(app("forecast", "run", "--steps", "3", "--min", "1e3", "-q").out.splitlines())
    assert {value for row in rows for value in row[2:]} == {"1000.0"}
    limited = json.loads(app("evaluate", "run", "--max", "1", "--json", "-q").out)["parts"]["test"]["models"]
    free = metrics["parts"]["test"]["models"]
    assert limited["LastValue"] == free["LastValue"]
    assert limited["GRU"]["mae"] > free["GRU"]["mae"]


def test_zero_shot_forecasts_have_limits(app, growing):
    outcome = app("forecast", growing, "--steps", "2", "--max", "2", "-q")
    if outcome.code == 0:  # the package has weights
        (_, _, first, *_), *rows = csv.reader(outcome.out.splitlines())
        assert first == "Value"
        assert all(float(row[2]) <= 2 for row in rows)


def test_backtest(app, growing):
    outcome = app("backtest", growing, "--transform", "auto", "--max", "1e6", *QUICK, "--windows", "2", "--refit", "1")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("transform: ") >= 1


def test_limits_that_contradict_each_other(app, growing):
    for command in (("train", growing), ("forecast", growing, "--steps", "1")):
        outcome = app(*command, "--min", "2", "--max", "1")
        assert (outcome.code, outcome.out) == (2, "")
        assert "--min is 2 and --max 1" in outcome.err
    app("train", growing, "--max", "1", "-q").assert_refused("--max", "above the maximum")
