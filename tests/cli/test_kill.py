"""Runs that are killed, again and again, at any moment: they end with the bits of a run that was left alone."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gru_xp.forecasting.checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL and fork are POSIX's")

KINDS = {
    "dropout": ("--batch-size", "6", "--num-layers", "2", "--dropout", "0.3"),
    "momentum": ("--batch-size", "8", "--optimizer", "momentum", "--learning-rate", "1e-4", "--zoneout", "0.2"),
    "whole batch": ("--dtype", "float64", "--bidirectional", "--num-epochs", "24"),
}
OPTIONS = ("--hidden-size", "4", "--num-epochs", "6", "--device", "cpu", "--threads", "1", "--quiet", "--json")


class ForkedApp:
    """The app in children of one process; see forked_app.py."""

    def __init__(self, folder):
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).parent / "forked_app.py"],
            cwd=folder,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},  # threads do not outlive a fork
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def begin(self, *arguments):
        """Let it import what these need."""
        self._process.stdin.write(json.dumps([arguments, None]) + "\n")

    def __call__(self, *arguments, seconds=None):
        """The exit code, and how long it took, where it is killed after so many seconds unless it has ended."""
        self._process.stdin.write(json.dumps([arguments, seconds]) + "\n")
        self._process.stdin.flush()
        code, took = json.loads(self._process.stdout.readline())
        return code, took

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.__exit__(*error)  # which closes the pipes, and waits


@pytest.fixture
def forked_app(tmp_path):
    with ForkedApp(tmp_path) as forked_app:
        yield forked_app


def kill_until_it_ends(forked_app, folder, options, longest, rng):
    """How often a run was killed before it ended, and how many checkpoints were there then; all could be read.

    It is left alone for `longest` seconds at most, and after each time for a little more, so that it does end.
    """
    kills, checkpoints = 0, 0
    checkpoint = folder / "run/checkpoint.safetensors"
    while True:
        arguments = ("--resume", "run") if checkpoint.exists() else ("own.csv", *options, "--out", "run", "--overwrite")
        code, _ = forked_app("train", *arguments, "--quiet", "--json", seconds=rng.uniform(0, longest))
        if code == 0:
            return kills, checkpoints
        assert code == -signal.SIGKILL
        kills, longest = kills + 1, 1.1 * longest
        if checkpoint.exists():
            load_checkpoint(checkpoint)
            checkpoints += 1


@pytest.mark.slow
def test_runs_that_are_killed_at_200_random_moments(forked_app, write_csv, tmp_path, results, share):
    """A checkpoint is written after each batch, so that most moments are in the middle of that."""
    write_csv()
    rng = random.Random(20240611)
    forked_app.begin("train", "own.csv", *OPTIONS, *KINDS["dropout"], "--out", "first")
    wanted = {}
    for kind, options in KINDS.items():
        code, took = forked_app("train", "own.csv", *OPTIONS, *options, "--out", kind, "--checkpoint-seconds", "0")
        assert code == 0
        wanted[kind] = results(tmp_path / kind), took
    kills = checkpoints = runs = 0
    while kills < 200 * share or runs < len(KINDS):
        kind = list(KINDS)[runs % len(KINDS)]
        expected, took = wanted[kind]
        options = (*OPTIONS, *KINDS[kind], "--checkpoint-seconds", "0")
        counts = kill_until_it_ends(forked_app, tmp_path, options, 0.4 * took, rng)
        kills, checkpoints, runs = kills + counts[0], checkpoints + counts[1], runs + 1
        assert results(tmp_path / "run") == expected
        assert not list(tmp_path.glob("run/.*"))
        shutil.rmtree(tmp_path / "run")
    assert checkpoints > kills / 3  # most of them were not too early
