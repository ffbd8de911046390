"""Runs that earlier versions wrote evaluate, forecast and resume; tests/files/README.md says what is there."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gru_xp.forecasting.checkpoint import load_checkpoint

FILES = Path(__file__).parents[1] / "files"
RUNS = {f"{path.parent.parent.name}/{path.parent.name}": path.parent for path in FILES.glob("*/*/model.safetensors")}


@pytest.mark.parametrize("name", RUNS)
def test_a_stored_run_evaluates_and_forecasts_as_it_did(app, name):
    """An interrupted one, after it is resumed from the middle of its epoch."""
    written = json.loads((RUNS[name].parent / "forecasts.json").read_text("utf-8"))["runs"][RUNS[name].name]
    shutil.copytree(RUNS[name], "run")
    interrupted = load_checkpoint("run/checkpoint.safetensors").state.batches > 0
    assert interrupted == (RUNS[name].name == "interrupted")
    if interrupted:
        assert app("train", "--resume", "run").code == 0
    metrics = json.loads(Path("run/metrics.json").read_text("utf-8"))
    evaluated = json.loads(app("evaluate", "run", "--json").out)
    for part in ("train", "test"):
        assert evaluated["parts"][part]["model"]["rmse"] == pytest.approx(metrics["parts"][part]["model"]["rmse"])
    rows = csv.DictReader(io.StringIO(app("forecast", "run", "--steps", len(written)).out))
    np.testing.assert_allclose([float(row["Value"]) for row in rows], written, rtol=2e-6)
