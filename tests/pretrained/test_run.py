import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gru_xp.devices import resolve_device
from gru_xp.errors import CheckpointError
from gru_xp.pretrained.run import CHECKPOINT_FILE, Plan, train_weights
from gru_xp.pretrained.weights import WEIGHTS_FILE, load_weights


@pytest.fixture
def small(monkeypatch):
    """A network of 4 hidden units, trained on few series."""
    for name, value in {
        "run.HIDDEN": 4,
        "run.UPDATES_OF_EPOCH": 4,
        "training.POOL": 200,
        "training.POSITIONS": 48,
        "training.MAX_ROWS": 16,
        "training.VALIDATION_PATCHES": (1, 4),
        "widths.BATCHES": 2,
    }.items():
        monkeypatch.setattr(f"gru_xp.pretrained.{name}", value)


def train(folder, stop_after=None, seed=3):
    """The path of the weights, and the records of a training that is stopped after some updates."""
    records, asked = [], []

    def wants_stop():
        asked.append(True)
        return len(asked) == stop_after

    plan, device = Plan(420, seed), resolve_device("cpu", threads=2)
    return train_weights(folder, plan, device, report=records.append, wants_stop=wants_stop), records


def test_a_stopped_training_ends_with_the_same_weights(small, tmp_path):
    whole, records = train(tmp_path / "whole")
    assert [record.epoch for record in records] == list(range(len(records)))
    assert len(records) > 3
    for stop_after in (2, 7):  # in the middle of an epoch
        stopped, _ = train(tmp_path / "parts", stop_after)
        assert stopped is None
    ended, rest = train(tmp_path / "parts")
    assert ended.read_bytes() == whole.read_bytes()
    assert [record.validation_cost for record in rest] == [r.validation_cost for r in records[-len(rest) :]]


def test_the_weights_say_how_they_were_made(small, tmp_path):
    path, records = train(tmp_path)
    weights = load_weights(path)
    assert "--positions 420 --seed 3" in weights.metadata["made_by"]
    assert float(weights.metadata["validation_loss"]) == pytest.approx(records[-1].validation_cost, abs=1e-5)
    assert path == tmp_path / WEIGHTS_FILE
    assert not np.allclose(weights.widths, 1)


def test_a_checkpoint_of_another_training_is_refused(small, tmp_path):
    train(tmp_path, stop_after=2)
    with pytest.raises(CheckpointError, match="--seed 3"):
        train(tmp_path, seed=4)
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match=CHECKPOINT_FILE):
        train(tmp_path)


@pytest.mark.slow
def test_the_command_stops_at_a_signal(tmp_path):
    command = [sys.executable, "-m", "gru_xp.pretrained", "--out", str(tmp_path), "--positions", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert "update" in process.stderr.readline()
    while "update 0" not in process.stderr.readline():
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "same command" in out
    assert (tmp_path / CHECKPOINT_FILE).exists()
