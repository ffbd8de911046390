import dataclasses
import json
import math
import os
import signal

import pytest

from gru_xp.forecasting import verification

pytestmark = pytest.mark.compat

FIELDS = {"reference", "first_epoch", "last_epoch", "cost", "epochs", "limit", "tf32"}


def read_metrics(folder):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture
def train(app, write_csv, quick, tmp_path):
    """``train(*options)``: what the command says that trains on a small file and verifies, and the run's folder."""
    write_csv()

    def train(*options):
        return app("train", "own.csv", *quick, "--out", "run", "--verify-cpu", *options), tmp_path / "run"

    return train


@pytest.fixture
def change_drift(monkeypatch):
    """``change_drift(**fields)``: what is found by the comparison from then on."""

    def change_drift(**fields):
        def compare(*args, original=verification.compare_with_cpu, **options):
            return dataclasses.replace(original(*args, **options), **fields)

        monkeypatch.setattr(verification, "compare_with_cpu", compare)

    return change_drift


def assert_compares(line, found):
    """One line says how far the training is from the CPU, as the metrics do."""
    assert "CPU" in line
    assert all(f"{found[name]:.1e}" in line for name in ("first_epoch", "last_epoch", "cost")), line
    assert f"limit {found['limit']:.0e}" in line
    assert f"epoch {found['epochs']}" in line


def test_a_training_within_the_limit(train):
    for dtype, limit in verification.LIMITS.items():
        outcome, folder = train("--dtype", dtype, "--overwrite")
        assert outcome.code == 0
        found = read_metrics(folder)["verify_cpu"]
        (line,) = (line for line in outcome.err.splitlines() if "limit" in line)
        assert_compares(line, found)
        assert found.keys() == FIELDS
        assert found["reference"] == "the CPU without fast paths"
        assert found["epochs"] == 3
        assert found["first_epoch"] <= found["limit"] == limit


def test_it_is_told_even_quietly_and_in_json(train):
    outcome, folder = train("--quiet", "--json", "--batch-size", "16", "--num-layers", "2", "--dropout", "0.2")
    assert outcome.code == 0
    result = json.loads(outcome.out)
    assert result.pop("run") == "run"
    assert result == read_metrics(folder)
    (line,) = outcome.err.splitlines()
    assert_compares(line, result["verify_cpu"])


def test_the_same_arithmetic_is_no_difference(train, monkeypatch):
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    outcome, folder = train("--quiet")
    (line,) = outcome.err.splitlines()
    assert line.count("0.0e+00") == 3
    found = read_metrics(folder)["verify_cpu"]
    assert (found["first_epoch"], found["last_epoch"], found["cost"]) == (0.0, 0.0, 0.0)


def test_the_run_is_that_without_the_option(app, train, quick, contents, tmp_path):
    _, folder = train()
    app("train", "own.csv", *quick, "--out", "other")
    ours, theirs = contents(folder), contents(tmp_path / "other")
    assert ours.keys() == theirs.keys()
    for name in ("model.safetensors", "predictions.csv"):
        assert ours[name] == theirs[name]
    assert "verify_cpu" not in read_metrics(tmp_path / "other")


def test_a_training_beyond_the_limit(train, change_drift, contents):
    """One line and exit code 1, after all that there is to tell; the run is there."""
    limit = verification.LIMITS["float32"]
    for first_epoch in (1.1 * limit, 0.25):
        change_drift(first_epoch=first_epoch)
        outcome, folder = train("--quiet", "--overwrite")
        assert outcome.code == 1
        assert all(
            text in outcome.error for text in ("CPU", f" {first_epoch:.1e} ", f"limit {limit:.0e}", "GRU_XP_PLAIN=1")
        )
        assert "own.csv, Value" in outcome.out
        assert {"model.safetensors", "history.csv", "predictions.csv"} <= contents(folder).keys()
        assert read_metrics(folder)["verify_cpu"]["first_epoch"] == first_epoch


def test_a_comparison_without_a_number_is_beyond_the_limit(train, change_drift):
    change_drift(first_epoch=math.inf, cost=math.inf)
    outcome, folder = train("--quiet")
    assert outcome.code == 1
    assert " inf " in outcome.error
    found = read_metrics(folder)["verify_cpu"]
    assert (found["first_epoch"], found["cost"]) == (None, None)


def test_a_training_that_gets_out_of_hand_is_not_compared(train, monkeypatch):
    monkeypatch.setattr(verification, "compare_with_cpu", lambda *_, **__: pytest.fail("nothing to compare"))
    outcome, folder = train("--optimizer", "sgd", "--learning-rate", "1e38", "--quiet")
    assert outcome.code == 1
    assert outcome.error == read_metrics(folder)["problem"]
    assert "verify_cpu" not in read_metrics(folder)


@pytest.mark.skipif(os.name != "posix", reason="signals to oneself are others")
def test_the_comparison_can_be_interrupted(train, monkeypatch):
    """The run is done by then, and is kept."""

    def compare(*args, original=verification.compare_with_cpu, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **options)

    monkeypatch.setattr(verification, "compare_with_cpu", compare)
    options = ("--num-epochs", "1000000", "--patience", "1", "--optimizer", "sgd", "--learning-rate", "1")
    outcome, folder = train("--quiet", *options)
    assert outcome.code == 128 + signal.SIGTERM
    assert "limit" not in outcome.err
    assert "verify_cpu" not in read_metrics(folder)
    assert (folder / "model.safetensors").exists()


def test_a_run_that_goes_on_is_not_compared(app, train):
    train()
    outcome = app("train", "--resume", "run", "--verify-cpu")
    assert outcome.code == 2
    assert all(option in outcome.err for option in ("--verify-cpu", "--resume"))
