"""The whole program with ``--device cuda`` on the stand-in for CuPy, in processes of their own."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

FAKE_CUPY = Path(__file__).parents[1] / "fake_cupy"
CUDA = ("--device", "cuda:1", "--no-fallback")
NONE_ON_THE_FIRST = "0,1e10"
"""Memory of two devices in bytes: whatever is put on the first one fails."""


@pytest.fixture
def on_stand_in(run_script, tmp_path):
    """``on_stand_in("train", ..., NAME="value")``: the command in an empty folder, with environment variables."""
    if shutil.which("g++") is None:
        pytest.skip("the stand-in for CuPy needs g++")

    def on_stand_in(*arguments, **variables):
        path = os.pathsep.join([str(FAKE_CUPY), os.environ["PYTHONPATH"]])
        variables = {"PYTHONPATH": path, "MPLBACKEND": "agg", "FAKE_CUPY_MEMORY": NONE_ON_THE_FIRST, **variables}
        return run_script(*arguments, cwd=tmp_path, env=variables)

    return on_stand_in


def test_train_resume_evaluate_and_forecast(on_stand_in, app, write_csv, tmp_path):
    write_csv(rows=40)
    settings = ("--hidden-size", "3", "--num-epochs", "2", "--seq-length", "5", "--validation-ratio", "0", "--quiet")
    trained = on_stand_in("train", "own.csv", *settings, *CUDA, "--out", "cuda")
    assert (trained.code, trained.err) == (0, "")
    resumed = on_stand_in("train", "--resume", "cuda", "--num-epochs", "4", "--allow-changes", "--quiet")
    assert (resumed.code, resumed.err) == (0, "")
    metrics = json.loads((tmp_path / "cuda/metrics.json").read_text())
    assert (metrics["device"]["used"], metrics["epochs"]) == ("cuda:1", 4)
    assert app("train", "own.csv", *settings, "--num-epochs", "4", "--device", "cpu", "--out", "cpu").code == 0
    assert metrics["best_epoch"] > 0
    numbers = []
    for outcome in (
        on_stand_in("forecast", "cuda", "--steps", "3", *CUDA),
        app("forecast", "cpu", "--steps", "3", "--device", "cpu"),
    ):
        assert outcome.code == 0, outcome.err
        numbers.append([float(line.split(",")[-1]) for line in outcome.out.splitlines()[1:]])
    assert len(numbers[0]) == 3
    np.testing.assert_allclose(*numbers, rtol=1e-4)
    for outcome in (on_stand_in("evaluate", "cuda", "--json", *CUDA), app("evaluate", "cpu", "--json")):
        assert outcome.code == 0, outcome.err
        numbers.append([part["model"]["rmse"] for part in json.loads(outcome.out)["parts"].values()])
    np.testing.assert_allclose(*numbers[2:], rtol=1e-4)


def test_what_fails_is_done_without(on_stand_in, write_csv, tmp_path):
    """One warning, and the numbers of the plain path; an error of one line where there is no other way."""
    write_csv(rows=40)
    command = ("train", "own.csv", "--hidden-size", "3", "--num-epochs", "2", "--quiet", *CUDA, "--out")
    faults = "launch RawModule,wrong ElementwiseKernel,ReductionKernel,cublasCreate"
    outcome = on_stand_in(*command, "without", FAKE_CUPY_FAIL=faults)
    assert outcome.code == 0, outcome.err
    (warning,) = outcome.err.splitlines()
    assert warning.startswith("warning: ")
    assert all(part in warning for part in ("cuda:", "persistent kernels", "ALLOC_FAILED")), warning
    outcome = on_stand_in(*command, "plain", GRU_XP_PLAIN="1", FAKE_CUPY_FAIL=faults)
    assert (outcome.code, outcome.err) == (0, "")
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text())["parts"] for name in ("without", "plain")]
    np.testing.assert_allclose(*[parts["test"]["model"]["rmse"] for parts in metrics], rtol=1e-4)
    outcome = on_stand_in(*command, "dead", FAKE_CUPY_FAIL="illegal RawModule")
    outcome.assert_refused("cuda:", "IllegalAddress", "GRU_XP_PLAIN=1")
