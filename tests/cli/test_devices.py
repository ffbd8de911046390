import json
import math
from importlib.metadata import version

import pytest

from gru_xp.devices import inventory
from gru_xp.forecasting import Forecaster

pytestmark = pytest.mark.compat


CHECK = {
    "problem": None,
    "paths": {
        "kernels": {
            "name": "fused kernels",
            "problem": None,
            "seconds": 0.7,
            "compile_seconds": 0.6,
            "is_checked": True,
        },
        "cublas": {
            "name": "cuBLAS",
            "problem": "no " + 9 * "memory, ",
            "seconds": 0.6,
            "compile_seconds": 0.0,
            "is_checked": True,
        },
        "graphs": {"name": "CUDA graphs", "problem": None, "seconds": 0, "compile_seconds": 0, "is_checked": False},
        "loops": {
            "name": "persistent kernels",
            "problem": None,
            "seconds": 1.1,
            "compile_seconds": 1.0,
            "is_checked": True,
        },
    },
    "seconds": 2.4,
    "compile_seconds": 1.6,
}


@pytest.fixture
def cuda_listed(monkeypatch):
    """A machine with a CUDA device, as the inventory tells it."""
    found = inventory.inventory()
    unwell = {"problem": "the device is unwell", "paths": {}, "seconds": None, "compile_seconds": None}
    devices = [
        {"device": f"cuda:{n}", "name": "Some GPU", "memory_gib": 79.6, "compute_capability": "9.0", "check": check}
        for n, check in enumerate((CHECK, unwell, None))
    ]
    devices[2] |= dict.fromkeys(("name", "memory_gib", "compute_capability"))
    cuda = {"problem": None, "devices": devices, "cupy": "14.0.1", "runtime": "13.0", "driver": "13.1"}
    monkeypatch.setattr(inventory, "inventory", lambda: {**found, "cuda": cuda, "auto": "cuda:0"})


# --- gru-xp devices ---------------------------------------------------------------------------------------------


def test_the_table_says_why_there_is_no_cuda(app, no_cuda):
    outcome = app("devices")
    assert outcome.code == 0
    assert outcome.err == ""
    assert max(map(len, outcome.out.splitlines())) <= 80
    assert f"not available: {no_cuda}" in " ".join(outcome.out.split())
    lines = {line.split()[0]: line for line in outcome.out.splitlines() if line.strip()}
    assert f"NumPy {version('numpy')}" in lines["cpu"]
    assert "thread(s)" in lines["cpu"]
    assert "not available" in lines["cuda"]
    assert lines["auto"].split() == ["auto", "cpu"]


def test_the_table_lists_cuda_devices(app, cuda_listed):
    out = app("devices").out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "Some GPU, 80 GiB, compute capability 9.0" in lines["cuda:0"]
    assert "CuPy 14.0.1, CUDA runtime 13.0, driver 13.1" in " ".join(out.split())
    assert "no properties" in lines["cuda:2"]
    assert "unknown" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert lines["auto"].split() == ["auto", "cuda:0"]


def test_the_table_shows_which_fast_paths_pass(app, cuda_listed):
    _, first, second, third = " ".join(app("devices").out.split()).split("cuda:", 3)
    assert "fast paths: fused kernels, CUDA graphs (not checked" in first
    assert "cuBLAS), persistent kernels off: cuBLAS (no memory," in first
    assert "2.4 s, of which 1.6 s" in first
    assert "not usable: the device is unwell" in second
    assert "GRU_XP_PLAIN" in third


def test_json(app, no_cuda):
    outcome = app("devices", "--json")
    found = json.loads(outcome.out)
    assert found["cuda"] == {"problem": no_cuda, "cupy": inventory.cupy_version(), "devices": []}
    assert found["cpu"]["numpy"] == version("numpy")
    assert found["cpu"]["threads"] >= 1
    assert found["auto"] == "cpu"
    assert outcome.err == ""


# --- --device ---------------------------------------------------------------------------------------------------


def test_auto_says_in_one_line_which_device_it_is_and_why(app, write_csv, quick, no_cuda):
    write_csv()
    outcome = app("train", "own.csv", *quick)
    assert outcome.code == 0
    assert [line for line in outcome.err.splitlines() if "device" in line] == [f"device: cpu ({no_cuda})"]


def test_the_cpu_stands_in_with_a_warning(app, write_csv, quick, no_cuda, tmp_path):
    write_csv()
    for name, quiet in (("cuda", ()), ("cuda:1", ("--quiet",))):
        outcome = app("train", "own.csv", *quick, "--device", name, "--out", "run", "--overwrite", *quiet)
        assert outcome.code == 0
        (warning,) = (line for line in outcome.err.splitlines() if "warning" in line.lower())
        assert all(part in warning for part in (f"device {name} ", no_cuda, "CPU")), warning
        metrics = json.loads((tmp_path / "run/metrics.json").read_text())
        assert metrics["device"] == {"requested": name, "used": "cpu", "tf32": False, "reason": no_cuda}
        forecaster = Forecaster.load(tmp_path / "run/model.safetensors", device="cpu")
        assert forecaster.notes["requested_device"] == name
        assert forecaster.notes["device_reason"] == no_cuda


def test_nothing_stands_in_where_that_is_not_wanted(app, write_csv, goog, unchanged, no_cuda, monkeypatch):
    write_csv()
    for command, file in (("train", "own.csv"), ("evaluate", goog.folder), ("forecast", goog.folder)):
        with unchanged():
            app(command, file, "--device", "cuda", "--no-fallback").assert_refused("device cuda ", no_cuda)
            with monkeypatch.context() as patch:
                patch.setenv("GRU_XP_NO_FALLBACK", "1")
                app(command, file, "--device", "cuda").assert_refused("device cuda ", no_cuda)


def test_no_fallback_does_not_mind_auto(app, goog):
    assert app("evaluate", goog.folder, "--no-fallback").code == 0


@pytest.mark.cuda
def test_train_on_a_cuda_device(app, monkeypatch, quick, tmp_path):
    from gru_xp.devices import cuda_problem, device

    monkeypatch.setattr(device, "cuda_problem", cuda_problem)
    outcome = app("train", "sunspots.csv", *quick, "--device", "cuda", "--no-fallback", "--out", "run")
    assert outcome.code == 0
    assert "device: cuda:0 (as asked)" in outcome.err
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["device"]["used"] == "cuda:0"
    evaluated = json.loads(app("evaluate", "run", "--device", "cpu", "--json").out)
    for name, part in evaluated["parts"].items():
        trained = metrics["parts"][name]["models"]["GRU"]["rmse"]
        assert math.isclose(part["models"]["GRU"]["rmse"], trained, rel_tol=1e-4)
