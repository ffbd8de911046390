import dataclasses
import json
import math
import os
import re
import signal

import pytest

from gru_xp.forecasting import verification

FIELDS = {"reference", "first_epoch", "last_epoch", "cost", "epochs", "limit"}
SAID = re.compile(
    r"compared with the CPU without fast paths: parameters differ by (\S+) of the largest after epoch 1 "
    r"\(limit (\S+)\), by (\S+) after epoch (\d+), costs by (\S+)"
)


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


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("float64", 1e-10)])
def test_a_training_within_the_limit(train, dtype, limit):
    outcome, folder = train("--dtype", dtype)
    assert outcome.code == 0
    (said,) = (match for line in outcome.err.splitlines() if (match := SAID.fullmatch(line)))
    found = read_metrics(folder)["verify_cpu"]
    assert found.keys() == FIELDS
    assert found["reference"] == "the CPU without fast paths"
    assert found["epochs"] == int(said[4]) == 3
    assert found["limit"] == float(said[2]) == limit
    assert found["first_epoch"] <= limit
    for number, name in ((1, "first_epoch"), (3, "last_epoch"), (5, "cost")):
        assert float(said[number]) == pytest.approx(found[name], rel=0.06)


def test_it_is_told_even_quietly_and_in_json(train):
    outcome, folder = train("--quiet", "--json", "--batch-size", "16", "--num-layers", "2", "--dropout", "0.2")
    assert outcome.code == 0
    assert SAID.fullmatch(outcome.err.strip())
    result = json.loads(outcome.out)
    assert result.pop("run") == "run"
    assert result == read_metrics(folder)
    assert result["verify_cpu"].keys() == FIELDS


def test_the_same_arithmetic_is_no_difference(train, monkeypatch):
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    outcome, folder = train("--quiet")
    assert SAID.fullmatch(outcome.err.strip())[1] == "0.0e+00"
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


@pytest.mark.parametrize("first_epoch", [1.1e-5, 0.25])
def test_a_training_beyond_the_limit(train, change_drift, contents, first_epoch):
    """One line and exit code 1, after all that there is to tell; the run is there."""
    change_drift(first_epoch=first_epoch)
    outcome, folder = train("--quiet")
    assert outcome.code == 1
    assert outcome.error == (
        f"compared with the CPU without fast paths: parameters differ by {first_epoch:.1e} of the largest after epoch "
        "1 (limit 1e-05); do not trust this device, or switch TF32 off (CUPY_TF32=0)"
    )
    assert "predictions of the next row" in outcome.out
    assert {"model.safetensors", "history.csv", "predictions.csv"} <= contents(folder).keys()
    assert read_metrics(folder)["verify_cpu"]["first_epoch"] == first_epoch


def test_a_comparison_without_a_number_is_beyond_the_limit(train, change_drift):
    change_drift(first_epoch=math.inf, cost=math.inf)
    outcome, folder = train("--quiet")
    assert outcome.code == 1
    assert "differ by inf of the largest" in outcome.error
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
    outcome, folder = train("--quiet", "--num-epochs", "1000000", "--patience", "1")
    assert outcome.code == 128 + signal.SIGTERM
    assert "compared with" not in outcome.err
    assert "verify_cpu" not in read_metrics(folder)
    assert (folder / "model.safetensors").exists()


def test_a_run_that_goes_on_is_not_compared(app, train):
    train()
    outcome = app("train", "--resume", "run", "--verify-cpu")
    assert outcome.code == 2
    assert "--verify-cpu is for a new run; leave it out with --resume" in outcome.err
