"""Models that earlier versions wrote forecast the same; tests/files/README.md says what is there."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors

from gru_xp import Forecaster
from gru_xp.forecasting.description import OLD_SETTINGS
from gru_xp.training.model_file import FORMAT_VERSION

pytestmark = pytest.mark.compat

FILES = Path(__file__).parents[1] / "files"
VERSIONS = [f"version-{number}" for number in range(1, FORMAT_VERSION + 1)]  # a new format adds its files
MODELS = {
    f"{version}/{name}": forecasts
    for version in VERSIONS
    for name, forecasts in json.loads((FILES / version / "forecasts.json").read_text("utf-8"))["models"].items()
}


def test_every_stored_model_is_listed():
    found = {f"{path.parent.name}/{path.stem}" for path in FILES.glob("*/*.safetensors")}
    assert found == MODELS.keys()


def test_settings_that_stored_models_do_not_have_are_not_those_of_today():
    """A new setting has a value for models that are older, so that another default changes nothing of them."""
    for name in MODELS:
        with safetensors.safe_open(FILES / f"{name}.safetensors", framework="numpy") as file:
            settings = json.loads(file.metadata()["metadata"])["settings"]
        assert Forecaster().settings().keys() <= settings.keys() | OLD_SETTINGS.keys(), name


@pytest.mark.parametrize("name", MODELS)
def test_a_stored_model_forecasts_as_it_did(name):
    path, written = FILES / f"{name}.safetensors", MODELS[name]
    forecaster = Forecaster.load(path, device="cpu")
    series = pd.read_csv(FILES / "series.csv", index_col="Date", parse_dates=True)[list(forecaster.columns)]
    close = {"rtol": 1e-10 if forecaster.dtype == "float64" else 2e-6}
    np.testing.assert_allclose(forecaster.predict(series), written["predict"], **close)
    forecast = forecaster.forecast(series, steps=len(written["forecast"]))
    np.testing.assert_allclose(forecast, written["forecast"], **close)
