import sys

import numpy as np
import pandas as pd
import pytest

from gru_xp import Forecaster
from gru_xp.errors import ArgumentError, DataError, GruXpError
from gru_xp.interop.statsforecast import statsforecast_model


@pytest.fixture
def sales(rng):
    """Twelve years of months."""
    values = 100 + np.arange(144) + 20 * np.sin(np.arange(144) * np.pi / 6) + 3 * rng.standard_normal(144)
    return pd.Series(values, pd.date_range("2012-01-01", periods=144, freq="MS"), name="Sales")


@pytest.mark.peer
def test_forecasts_are_those_of_its_own_cross_validation(sales):
    models = pytest.importorskip("statsforecast.models")
    from statsforecast import StatsForecast

    others = {name: statsforecast_model(name) for name in ("AutoTheta", "AutoETS")}
    forecaster = Forecaster(model="ridge", guard=False, seq_length=12)
    result = forecaster.backtest(sales, 6, windows=4, stride=5, others=others)
    assert list(result.forecasts)[-2:] == ["AutoTheta", "AutoETS"]
    assert not {"AutoTheta", "AutoETS"} & set(result.baselines)
    frame = pd.DataFrame({"unique_id": "Sales", "ds": sales.index, "y": sales.to_numpy()})
    peers = StatsForecast([models.AutoTheta(season_length=12), models.AutoETS(season_length=12)], freq="MS")
    expected = peers.cross_validation(df=frame, h=6, n_windows=4, step_size=5)
    columns = ["ds", "cutoff", "y", "AutoTheta", "AutoETS"]
    pd.testing.assert_frame_equal(result.to_frame()[columns], expected[columns], check_dtype=False, rtol=1e-9)


@pytest.mark.peer
def test_what_cannot_be_fitted_is_refused():
    pytest.importorskip("statsforecast")
    with pytest.raises(DataError, match="AutoTheta cannot be fitted to the first 1 rows"):
        statsforecast_model("AutoTheta")(np.ones(3), np.array([1]), 2, 1)


def test_a_model_that_is_not_there(monkeypatch):
    with pytest.raises(ArgumentError, match="AutoMagic"):
        statsforecast_model("AutoMagic")
    monkeypatch.setitem(sys.modules, "statsforecast", None)
    with pytest.raises(GruXpError, match=r"AutoETS needs statsforecast, .* pip install 'gru-xp\[statsforecast\]'$"):
        statsforecast_model("AutoETS")
