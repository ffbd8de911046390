"""Models that are chosen by the last training rows."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from gru_xp import AutoForecaster, Forecaster, ZeroShotForecaster
from gru_xp.io.read import read_series
from gru_xp.pretrained import choosing, weights
from gru_xp.pretrained.network import init_zero_shot_params
from gru_xp.reporting import run_folder

pytestmark = pytest.mark.compat

SMALL = ("--hidden-size", 2, "--num-steps", 3)


@pytest.fixture(autouse=True)
def without_weights(monkeypatch):
    """Let the package have no weights, whether it has or not, and runs no plots, which take long."""
    monkeypatch.setattr(run_folder, "write_plots", lambda *arguments: None)
    weights.default_weights.cache_clear()
    monkeypatch.setattr(weights, "WEIGHTS_FILE", "none.safetensors")
    yield
    weights.default_weights.cache_clear()


@pytest.fixture
def weights_file(tmp_path):
    """Weights of a network that has learned nothing; its path."""
    path = tmp_path / "tiny.safetensors"
    weights.save_weights(path, init_zero_shot_params(hidden_size=6, xp=np, dtype=np.float32))
    return path


@pytest.fixture
def write(tmp_path):
    """``write(values)``: a file of days in the working folder; its name."""

    def write(values):
        days = np.datetime64("2001-01-01") + np.arange(len(values))
        lines = [f"{day},{value:.6f}" for day, value in zip(days, values, strict=True)]
        (tmp_path / "days.csv").write_text("\n".join(["Day,Sales", *lines]) + "\n", encoding="utf-8")
        return "days.csv"

    return write


@pytest.fixture
def line():
    """A series for the ridge."""
    rng, values = np.random.default_rng(4), np.zeros(300)
    for row in range(2, 300):
        values[row] = 1.6 * values[row - 1] - 0.9 * values[row - 2] + rng.standard_normal()
    return 40 + values


@pytest.fixture
def walk():
    """A series of which nothing can be learned."""
    return np.cumsum(np.random.default_rng(7).standard_normal(1000))


def said(outcome):
    """The line on stderr that says what is chosen."""
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("auto")]
    return line


def test_a_run_of_the_ridge(app, write, line):
    csv = write(line)
    given = ("train", csv, "--season", "none", "--horizon", 2)
    outcome = app(*given, *SMALL, "--model", "auto", "--out", "run")
    assert outcome.code == 0, outcome.err
    choice = AutoForecaster(season="none", horizon=2, hidden_size=2, num_steps=3)
    choice.fit(read_series(csv).head(210), device="cpu")
    assert choice.reason in said(outcome)
    assert choice.choice == "ridge"
    assert app(*given, "--model", "ridge", "--no-guard", "--out", "plain").out == outcome.out
    for command in ("forecast", "evaluate"):
        assert app(command, "run", "--quiet").out == app(command, "plain", "--quiet").out, command
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["auto"]["choice"] == "ridge"
    assert metrics["auto"]["errors"] == pytest.approx(choice.errors)


def test_a_run_of_the_gru(app, write, line, monkeypatch):
    """Which has no ridge to be compared with."""
    fit = choosing._rehearsed
    monkeypatch.setattr(choosing, "_rehearsed", lambda one, *given: fit(one, *given) if one.model == "gru" else None)
    csv = write(line)
    outcome = app("train", csv, *SMALL, "--model", "auto", "--validation-ratio", 0.2, "--refit", "--out", "run")
    assert outcome.code == 0, outcome.err
    assert said(outcome).startswith("auto: GRU ")
    app("train", csv, *SMALL, "--no-guard", "--validation-ratio", 0.2, "--refit", "--out", "plain")
    assert Forecaster.load("run/model.safetensors").model == "gru"
    assert app("forecast", "run", "--quiet").out == app("forecast", "plain", "--quiet").out


def test_a_run_of_a_forecast_without_training(app, write, walk):
    csv = write(walk)
    given = ("train", csv, *SMALL, "--model", "auto", "--validation-ratio", 0.1, "--out", "run")
    outcome = app(*given)
    assert outcome.code == 0, outcome.err
    assert said(outcome).startswith("auto: last value ")
    assert "ridge (last value)" in outcome.out
    assert Forecaster.load("run/model.safetensors").fallback == "last value"
    assert app("forecast", "run").out.splitlines()[1].split(",")[2] == repr(float(f"{walk[-1]:.6f}"))
    assert app("evaluate", "run", "--quiet").code == 0
    again = app("train", "--resume", "run")
    assert (again.code, again.out) == (0, outcome.out)
    assert Forecaster.load("run/model.safetensors").fallback == "last value"


def test_the_zero_shot_forecast_is_said_to_be_better(app, write, line, weights_file, monkeypatch):
    csv = write(line)
    truth = read_series(csv).values[:, 0]

    class Oracle(ZeroShotForecaster):
        def _quantiles(self, sought, steps):
            return np.array([np.resize(truth[origin:], steps) for _, origin in sought])[:, :, None] + np.zeros(9)

    monkeypatch.setattr(choosing, "ZeroShotForecaster", Oracle)
    monkeypatch.setattr(weights, "WEIGHTS_FILE", str(weights_file))
    outcome = app("train", csv, *SMALL, "--model", "auto", "--out", "run")
    assert outcome.code == 0, outcome.err
    assert said(outcome).startswith("auto: zero-shot ")
    (advice,) = [line for line in outcome.err.splitlines() if "gru-xp forecast days.csv" in line]
    assert "ridge" in advice
    assert "100.0%" in advice
    assert Forecaster.load("run/model.safetensors").model == "ridge"
    assert json.loads(Path("run/metrics.json").read_text())["auto"]["best"] == "zero-shot"
    measured = app("backtest", csv, *SMALL, "--model", "auto", "--windows", 20)
    assert "auto (zero-shot)" in measured.out
    quiet = app("train", csv, *SMALL, "--model", "auto", "--quiet", "--out", "other")
    assert "auto: " not in quiet.err


def test_ctrl_c_before_there_is_a_choice(app, write, line, unchanged, monkeypatch):
    def press(*arguments):
        signal.raise_signal(signal.SIGINT)

    csv = write(line)
    monkeypatch.setattr(choosing, "_rehearsed", press)
    with unchanged():
        outcome = app("train", csv, *SMALL, "--model", "auto", "--out", "run")
    assert (outcome.code, outcome.out) == (130, "")
    assert "nothing was saved" in outcome.err


def test_backtest(app, write, line, weights_file):
    csv = write(line)
    given = ("backtest", csv, *SMALL, "--model", "auto", "--weights", weights_file, "--windows", 12, "--steps", 2)
    outcome = app(*given, "--refit", 6, "--json", "--out", "all.json")
    assert outcome.code == 0, outcome.err
    lines = [line for line in outcome.err.splitlines() if "auto, " in line]
    assert [int(line.partition("auto, ")[2].split()[0]) for line in lines] == [276, 288]
    assert all("zero-shot" in line for line in lines)
    metrics = json.loads(outcome.out)
    expected = AutoForecaster(horizon=2, hidden_size=2, num_steps=3, weights=weights_file).backtest(
        read_series(csv), windows=12, refit=6, device="cpu"
    )
    assert metrics["models"]["Auto"]["mae"] == pytest.approx(expected.metrics["models"]["Auto"]["mae"])
    assert metrics["fallback"] == {"Ridge": 12}
    assert {"Auto", "Ridge", "LastValue"} <= set(metrics["models"])
    assert {"Auto", "Ridge"} <= set(json.loads(Path("all.json").read_text())[0])
    table = app(*given)
    assert "auto (ridge)" in table.out
    assert "The automatic choice is ridge" in table.out
    assert "no ridge" not in table.err


def test_options_that_have_no_effect_are_refused(app, write, line, weights_file):
    csv = write(line)
    for command in ("train", "backtest"):
        for option in (
            ("--no-guard",),
            ("--guard",),
            ("--loss", "gaussian"),
            ("--no-linear-skip",),
            ("--preset", "article"),
            ("--huber-delta", 2),
        ):
            outcome = app(command, csv, "--model", "auto", *option)
            assert (outcome.code, outcome.out) == (2, ""), option
    assert app("train", csv, "--model", "auto", "--verify-cpu").code == 2
    assert app("backtest", csv, "--model", "auto", "--season", "7,14").code == 2
    refused = app("backtest", csv, "--weights", weights_file)
    assert (refused.code, "auto" in refused.err) == (2, True)
    app("backtest", csv, "--model", "auto", "--weights", "none", "--quiet").assert_refused("none")
