"""Runs that earlier versions wrote evaluate, forecast and resume; tests/files/README.md says what is there."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from gru_xp.forecasting.checkpoint import FORMAT_VERSION, load_checkpoint

pytestmark = pytest.mark.compat

FILES = Path(__file__).parents[1] / "files"
RUNS = {
    f"{listed.parent.name}/{name}": forecast
    for listed in sorted(FILES.glob("*/forecasts.json"))
    for name, forecast in json.loads(listed.read_text("utf-8"))["runs"].items()
}


def test_every_stored_run_is_listed():
    found = {f"{path.parent.parent.name}/{path.parent.name}" for path in FILES.glob("*/*/model.safetensors")}
    assert found == RUNS.keys()
    versions = {json.loads(_metadata(FILES / name / "checkpoint.safetensors")["format_version"]) for name in RUNS}
    assert versions == set(range(1, FORMAT_VERSION + 1))


def _metadata(path):
    with safe_open(path, framework="np") as file:
        return file.metadata()


@pytest.mark.parametrize("name", RUNS)
def test_a_stored_run_evaluates_and_forecasts_as_it_did(app, name):
    """The interrupted run is first resumed, from the middle of its epoch."""
    written = RUNS[name]
    shutil.copytree(FILES / name, "run")
    checkpoint = load_checkpoint("run/checkpoint.safetensors")
    interrupted = checkpoint.state.batches > 0
    assert interrupted == name.endswith("interrupted")
    if interrupted:
        assert app("train", "--resume", "run").code == 0
    metrics = json.loads(Path("run/metrics.json").read_text("utf-8"))
    evaluated = json.loads(app("evaluate", "run", "--json").out)
    for part in ("train", "test"):
        written_then = metrics["parts"][part]["models"]["GRU"] if interrupted else metrics["parts"][part]["model"]
        assert evaluated["parts"][part]["models"]["GRU"]["rmse"] == pytest.approx(written_then["rmse"])
    rows = csv.DictReader(io.StringIO(app("forecast", "run", "--steps", len(written)).out))
    close = {"rtol": 1e-10 if checkpoint.forecaster.dtype == "float64" else 2e-6}
    np.testing.assert_allclose([float(row["Value"]) for row in rows], written, **close)
