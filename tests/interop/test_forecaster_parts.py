"""What files of forecasters share, whatever format they have."""

import json

import numpy as np
import pytest

from gru_xp.errors import CheckpointError
from gru_xp.forecasting import Forecaster
from gru_xp.interop.checking import check_forecaster
from gru_xp.interop.forecaster_parts import build_forecaster, read_description, write_description
from gru_xp.interop.onnx_forecaster import save_onnx
from gru_xp.interop.torch import save_torch
from gru_xp.io.series import TimeSeries
from gru_xp.nn.params import flatten


@pytest.fixture
def told_of_gaps(plain, series, rng):
    """A forecaster that has learned from a series with missing values."""
    gaps = TimeSeries(series[:, :2], ("a", "b"), observed=rng.random((len(series), 2)) < 0.9)
    return Forecaster(**plain | {"reset": "after"}).fit(gaps, device="cpu")


def test_a_forecaster_comes_back_from_its_parts(learn, series):
    forecaster = learn(reset="after")
    description = read_description(write_description(forecaster, "a GRU"))
    params = forecaster.params
    back = build_forecaster(params.gru, params.linear, description, "cpu")
    np.testing.assert_array_equal(flatten(back.params), flatten(params))
    np.testing.assert_array_equal(back.predict(series), forecaster.predict(series))


@pytest.mark.peer
@pytest.mark.parametrize(("save", "library"), [(save_onnx, "onnx"), (save_torch, "torch")], ids=["onnx", "torch"])
def test_a_forecaster_that_is_told_of_gaps_has_no_file(told_of_gaps, tmp_path, refused, save, library):
    pytest.importorskip(library)
    with refused(CheckpointError, 'missing="mask"', "--missing ffill", case=library):
        save(told_of_gaps, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def guarded(plain):
    """A forecaster that is no better than a forecast without training, on a random walk."""
    walk = np.cumsum(np.random.default_rng(3).standard_normal(520))
    changed = {"guard": True, "reset": "after", "learning_rate": 1.0, "validation_ratio": 0.0}
    forecaster = Forecaster(**plain | changed).fit(walk, device="cpu")
    assert forecaster.fallback is not None
    return forecaster


@pytest.mark.peer
@pytest.mark.parametrize(("save", "library"), [(save_onnx, "onnx"), (save_torch, "torch")], ids=["onnx", "torch"])
def test_a_forecaster_whose_guard_has_chosen_another_has_no_file(guarded, tmp_path, refused, save, library):
    """Its weights would predict something else."""
    pytest.importorskip(library)
    with refused(CheckpointError, repr(guarded.fallback), "--no-guard", case=library):
        save(guarded, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_file_of_one_is_refused(told_of_gaps, guarded):
    """Its windows would be taken for those of twice as many columns, or its weights not be used."""
    for forecaster, said in ((told_of_gaps, r"sees_gaps=False .* True"), (guarded, rf"=None .* '{guarded.fallback}'")):
        description = json.loads(json.dumps(forecaster.describe()))
        with pytest.raises(CheckpointError, match=said):
            build_forecaster(forecaster.params.gru, forecaster.params.linear, description, "cpu")


def test_weights_that_predict_no_numbers(learn):
    forecaster = learn(dtype="float64")
    forecaster.params.linear.bias[...] = 1e308
    with pytest.raises(CheckpointError, match=r"^somewhere: on random windows, step 1: the model predicts"):
        check_forecaster(forecaster, lambda windows: np.zeros((len(windows), 1)), "somewhere")
