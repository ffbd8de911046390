"""The whole program with ``--device cuda`` on the stand-in for CuPy, in processes of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gru_xp.pretrained import weights
from gru_xp.pretrained.network import init_zero_shot_params

FAKE_CUPY = Path(__file__).parents[1] / "fake_cupy"
CUDA = ("--device", "cuda:1", "--no-fallback")
NONE_ON_THE_FIRST = "0,1e10"
"""Memory of two devices in bytes: whatever is put on the first one fails."""


RUN_IN_CHILDREN = """
import json, os, sys
import array_api_compat.cupy, cupy, pandas
import gru_xp.cli.training_run, gru_xp.devices.cupy_ops, gru_xp.forecasting.evaluation
from gru_xp import cli
from gru_xp.reporting import run_folder

run_folder.write_plots = lambda *arguments: None
for line in sys.stdin:
    folder, sys.argv, variables = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ.update(variables)
        os.chdir(folder)
        for number, name in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        try:
            cli.main()
        except SystemExit as leaving:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(leaving.code)
        finally:
            os._exit(99)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""To start Python and import the program takes longer than what the tests do with it."""


@pytest.fixture(scope="module")
def run_in_child():
    """``run_in_child(folder, arguments, variables)``: the exit code of the command in a child of one process."""
    if shutil.which("g++") is None:
        pytest.skip("the stand-in for CuPy needs g++")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(FAKE_CUPY), os.environ["PYTHONPATH"]]),
        "FAKE_CUPY_MEMORY": NONE_ON_THE_FIRST,
        "OPENBLAS_NUM_THREADS": "1",  # threads do not outlive a fork
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", RUN_IN_CHILDREN],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def run_in_child(folder, arguments, variables):
            process.stdin.write(json.dumps([str(folder), ["gru-xp", *arguments], variables]) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run_in_child


@pytest.fixture
def on_stand_in(run_in_child, outcome_of, tmp_path):
    """``on_stand_in("train", ..., NAME="value")``: the command in an empty folder, with environment variables."""

    def on_stand_in(*arguments, **variables):
        code = run_in_child(tmp_path, arguments, variables)
        return outcome_of(code, *((tmp_path / name).read_text(encoding="utf-8") for name in (".out", ".err")))

    return on_stand_in


FEW_STEPS = ("--hidden-size", "3", "--num-epochs", "2", "--seq-length", "5", "--schedule", "constant", "--no-guard")


def test_train_resume_evaluate_and_forecast(on_stand_in, app, write_csv, tmp_path):
    write_csv(rows=40)
    settings = (*FEW_STEPS, "--transform", "log", "--min", "0", "--level", "50", "--quiet")
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
        numbers.append([part["models"]["GRU"]["rmse"] for part in json.loads(outcome.out)["parts"].values()])
    np.testing.assert_allclose(*numbers[2:4], rtol=1e-4)
    for outcome in (on_stand_in("explain", "cuda", "--json", *CUDA), app("explain", "cpu", "--json")):
        assert outcome.code == 0, outcome.err
        numbers.append([row["attributions"]["Value"] for row in json.loads(outcome.out)["rows"]])
    np.testing.assert_allclose(*numbers[4:], rtol=1e-3, atol=1e-4)


def test_forecasts_of_the_pretrained_network(on_stand_in, app, write_csv, tmp_path):
    params = init_zero_shot_params(hidden_size=5, xp=np, dtype=np.float32)
    weights.save_weights(tmp_path / "tiny.safetensors", params)
    write_csv(rows=60)
    given = ("own.csv", "--target", "Value", "--weights", "tiny.safetensors", "--steps", "9")
    numbers = []
    for outcome in (on_stand_in("forecast", *given, *CUDA), app("forecast", *given)):
        assert outcome.code == 0, outcome.err
        numbers.append([line.split(",") for line in outcome.out.splitlines()[1:]])
    np.testing.assert_allclose(*np.array(numbers, dtype=float), rtol=1e-4)
    for outcome in (on_stand_in("evaluate", *given, "--json", *CUDA), app("evaluate", *given, "--json")):
        assert outcome.code == 0, outcome.err
        numbers.append(json.loads(outcome.out)["parts"]["test"]["models"]["ZeroShot"]["mae"])
    np.testing.assert_allclose(*numbers[2:], rtol=1e-4)


def test_what_fails_is_done_without(on_stand_in, write_csv, tmp_path):
    """A warning, and the numbers of the plain path; an error of one line where there is no other way."""
    write_csv(rows=50)
    device = CUDA[1]
    command = ("train", "own.csv", *FEW_STEPS, "--quiet", "--device", device, "--out")
    faults = "launch steps,wrong ElementwiseKernel,take_norm,cublasCreate"
    outcome = on_stand_in(*command, "without", FAKE_CUPY_FAIL=faults)
    assert outcome.code == 0, outcome.err
    warnings = sorted(outcome.err.splitlines())
    assert len(warnings) == 2
    for warning, parts in zip(warnings, (("memory", "cuBLAS"), ("persistent kernels",)), strict=True):
        assert warning.startswith("warning: ")
        assert all(part in warning for part in (device, *parts)), warning
    outcome = on_stand_in(*command, "plain", GRU_XP_PLAIN="1", FAKE_CUPY_FAIL=faults)
    assert (outcome.code, outcome.err) == (0, "")
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text())["parts"] for name in ("without", "plain")]
    np.testing.assert_allclose(*[parts["test"]["models"]["GRU"]["rmse"] for parts in metrics], rtol=1e-4)
    outcome = on_stand_in(*command, "no", "--no-fallback", FAKE_CUPY_FAIL="take_norm")
    outcome.assert_refused(device, "take_norm")
    outcome = on_stand_in(*command, "dead", FAKE_CUPY_FAIL="illegal steps")
    outcome.assert_refused(device, "IllegalAddress", "GRU_XP_PLAIN=1")
