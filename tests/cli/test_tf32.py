"""``--tf32``."""

import json

import pytest

from gru_xp.devices import device
from gru_xp.forecasting import Forecaster
from gru_xp.forecasting.checkpoint import load_checkpoint
from gru_xp.forecasting.verification import TF32_LIMIT

cuda_problem_here = device.cuda_problem  # other tests are to find no CUDA device


@pytest.mark.compat
def test_it_is_refused_where_it_has_no_meaning(app, write_csv, quick):
    write_csv()
    for options, names in (
        (("--device", "cpu"), ("--tf32", "--device cpu")),
        (("--dtype", "float64"), ("--tf32", "--dtype float64", "float32")),
    ):
        outcome = app("train", "own.csv", *quick, "--tf32", *options)
        assert outcome.code == 2
        assert all(name in outcome.err for name in names), outcome.err


@pytest.mark.compat
def test_without_a_gpu_a_line_says_that_it_has_no_effect(app, write_csv, quick, no_cuda, tmp_path):
    write_csv()
    outcome = app("train", "own.csv", *quick, "--tf32", "--quiet", "--out", "run")
    assert outcome.code == 0
    (line,) = outcome.err.splitlines()
    assert line.startswith("warning: --tf32 has no effect: ")
    assert "CPU" in line
    assert json.loads((tmp_path / "run/metrics.json").read_text())["device"]["tf32"] is False
    app("train", "own.csv", *quick, "--tf32", "--no-fallback").assert_refused("TF32", "CPU")


@pytest.mark.cuda
def test_it_is_recorded_and_kept(app, write_csv, quick, tmp_path, monkeypatch):
    """In the metrics, the model and the checkpoint; shown; and used by a resumed run."""
    monkeypatch.setattr(device, "cuda_problem", cuda_problem_here)
    write_csv()
    settings = (*quick, "--schedule", "constant", "--verify-cpu")
    outcome = app("train", "own.csv", *settings, "--device", "cuda", "--tf32", "--out", "run")
    assert outcome.code == 0, outcome.err
    begun, compared, ended = (
        next(line for line in outcome.err.splitlines() if line.startswith(start))
        for start in ("device: ", "compared with ", "epoch ")
    )
    assert "TF32" in begun
    assert "TF32" in ended
    assert f"limit {TF32_LIMIT:.0e}" in compared
    assert b"tf32" in (tmp_path / "run/model.safetensors").read_bytes()
    for options in (("--tf32",), ("--num-epochs", "5", "--allow-changes")):
        metrics = json.loads((tmp_path / "run/metrics.json").read_text())
        assert metrics["device"]["tf32"] is True
        assert load_checkpoint(tmp_path / "run/checkpoint.safetensors").tf32
        assert app("train", "--resume", "run", *options).code == 0
    assert Forecaster.load(tmp_path / "run/model.safetensors", device="cpu").device.tf32 is False
    on_cpu = ("--device", "cpu", "--num-epochs", "6", "--allow-changes", "--quiet")
    outcome = app("train", "--resume", "run", *on_cpu)
    assert outcome.code == 0
    (line,) = outcome.err.splitlines()
    assert line.startswith("warning: ")
    assert "TF32" in line
    assert json.loads((tmp_path / "run/metrics.json").read_text())["device"]["tf32"] is False
    assert b"tf32" not in (tmp_path / "run/model.safetensors").read_bytes()
    assert not load_checkpoint(tmp_path / "run/checkpoint.safetensors").tf32
    app("train", "--resume", "run", "--tf32").assert_refused("--tf32 is False in the run and True here")
    found = app("evaluate", "run", "--device", "cuda", "--tf32", "--json")
    assert json.loads(found.out)["device"]["tf32"] is True
    assert "TF32" in app("forecast", "run", "--device", "cuda", "--tf32").err
