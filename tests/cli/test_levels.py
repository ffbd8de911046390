"""``--level`` of the commands."""

import csv
import json

import pytest

QUICK = ("--num-steps", "2", "--hidden-size", "2", "--seq-length", "6", "--season", "none", "--device", "cpu")


@pytest.fixture
def noisy(write_csv, rng):
    """A file of noise around a level."""
    return str(write_csv(rows=120, change={row: repr(float(50 + rng.normal())) for row in range(120)}))


def test_train_forecast_and_evaluate(app, noisy, tmp_path):
    trained = app("train", noisy, *QUICK, "--no-guard", "--level", "95", "--level", "50", "--out", "run")
    assert trained.code == 0, trained.err
    for name in ("in 50%", "in 95%", "width", "CRPS"):
        assert name in trained.out
    measured = json.loads((tmp_path / "run/metrics.json").read_text())["parts"]["test"]["models"]["GRU"]["intervals"]
    with (tmp_path / "run/predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    for level in ("50", "95"):
        within = [float(r[f"GRU-lo-{level}"]) <= float(r["actual"]) <= float(r[f"GRU-hi-{level}"]) for r in rows]
        assert measured[level]["coverage"] == pytest.approx(sum(within) / len(rows))
    forecast = app("forecast", "run", "--steps", "2", "--max", "50", "--json")
    assert "--horizon 1" in forecast.err
    for row in json.loads(forecast.out):
        values = [row[name] for name in ("GRU-lo-95", "GRU-lo-50", "Value", "GRU-hi-50", "GRU-hi-95")]
        assert values == sorted(values)
        assert values[-1] == 50
    evaluated = json.loads(app("evaluate", "run", "--json", "-q").out)["parts"]["test"]["models"]["GRU"]["intervals"]
    assert evaluated == measured
    app("export", "run", "model.onnx").assert_refused("levels", "--level")


def test_backtest(app, noisy, tmp_path):
    outcome = app("backtest", noisy, *QUICK, "--level", "99", "--windows", "3", "--out", "all.csv")
    assert outcome.code == 0, outcome.err
    assert "99 %, which need 99" in outcome.err or "in 99%" in outcome.out
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        assert {"GRU-lo-99", "GRU-hi-99", "Ridge-lo-99", "LastValue-hi-99"} <= set(next(csv.reader(file)))


def test_a_run_that_is_continued_has_the_same_intervals(app, noisy, tmp_path):
    """Once its training is complete, its intervals alone are made again."""
    options = (*QUICK, "--level", "80", "--checkpoint-every", "1", "--out", "run", "-q")
    assert app("train", noisy, *options).code == 0
    before = (tmp_path / "run/predictions.csv").read_bytes()
    assert app("train", "--resume", "run", "--level", "80", "-q").code == 0
    assert (tmp_path / "run/predictions.csv").read_bytes() == before
    app("train", "--resume", "run", "--level", "95", "-q").assert_refused("--level is 80.0", "95")


def test_what_does_not_go_together(app, noisy):
    for options, message in (
        (("--model", "auto", "--level", "80"), "--level cannot be combined with --model auto"),
        (("--level", "0.8"), "0.8"),
        (("--level", "80", "--level", "80"), "more than once"),
    ):
        outcome = app("train", noisy, *options)
        assert outcome.code == 2
        assert message in outcome.err
