"""Models that earlier versions wrote forecast the same; tests/files/README.md says what is there."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gru_xp import Forecaster

FILES = Path(__file__).parents[1] / "files"
MODELS = {f"{path.parent.name}/{path.stem}": path for path in sorted(FILES.glob("*/*.safetensors"))}


@pytest.mark.parametrize("name", MODELS)
def test_a_stored_model_forecasts_as_it_did(name):
    path = MODELS[name]
    written = json.loads((path.parent / "forecasts.json").read_text("utf-8"))["models"][path.stem]
    forecaster = Forecaster.load(path, device="cpu")
    series = pd.read_csv(FILES / "series.csv", index_col="Date", parse_dates=True)[list(forecaster.columns)]
    close = {"rtol": 1e-10 if forecaster.dtype == "float64" else 2e-6}
    np.testing.assert_allclose(forecaster.predict(series), written["predict"], **close)
    forecast = forecaster.forecast(series, steps=len(written["forecast"]))
    np.testing.assert_allclose(forecast, written["forecast"], **close)
