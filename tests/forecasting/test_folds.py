import dataclasses
import json

import numpy as np
import pytest

from gru_xp import Forecaster
from gru_xp.errors import CheckpointError
from gru_xp.forecasting import backtest
from gru_xp.forecasting.folds import Fold
from gru_xp.forecasting.outputs import Outputs
from gru_xp.io.series import TimeSeries
from gru_xp.training.strict_json import read_json

HOW = {"steps": 2, "windows": 7, "refit": 2, "device": "cpu"}


@pytest.fixture
def series(rng):
    return TimeSeries(np.sin(np.arange(90)[:, None] / 3) + 0.1 * rng.standard_normal((90, 1)), ("y",))


@pytest.fixture
def forecaster():
    return Forecaster(hidden_size=3, num_steps=3, loss="quantile", guard=False, horizon=2)


@pytest.fixture
def fits(monkeypatch):
    """The numbers of rows of each fit; ``fits.stop_at`` is the number of fits after which the next is interrupted."""

    class Fits(list):
        stop_at = None

    fits, call = Fits(), backtest.FitForecaster.__call__

    def counted(self, rows):
        if len(fits) == fits.stop_at:
            raise KeyboardInterrupt
        fits.append(len(rows))
        return call(self, rows)

    monkeypatch.setattr(backtest.FitForecaster, "__call__", counted)
    return fits


def assert_same(result, expected):
    assert list(result.forecasts) == list(expected.forecasts)
    for name, forecast in expected.forecasts.items():
        assert result.forecasts[name].tobytes() == forecast.tobytes(), name
    assert (result.season, result.fallbacks) == (expected.season, expected.fallbacks)


def test_a_fold_is_written_with_every_bit(rng):
    numbers = rng.standard_normal((2, 3, 2)) * 10.0 ** rng.integers(-300, 300, (2, 3, 2))
    forecasts = dict(zip(("GRU", "ridge"), numbers, strict=True))
    season = (24, 168)
    fold = Fold(70, forecasts, Outputs("quantile", (0.1, 0.5)), season, season, "mean", 1 / 3, {"seconds": 0.1})
    again = Fold.from_dict(read_json(json.dumps(fold.to_dict())))
    for name, forecast in forecasts.items():
        assert again.forecasts[name].tobytes() == forecast.tobytes()
    assert dataclasses.replace(again, forecasts=forecasts) == fold


def test_a_backtest_that_was_stopped_continues(fits, series, forecaster, tmp_path):
    journal = tmp_path / "folds.journal"
    expected = forecaster.backtest(series, **HOW)
    rows, fits[:] = list(fits), []
    for stop_at in (1, 3):
        fits.stop_at = stop_at
        with pytest.raises(KeyboardInterrupt):
            forecaster.backtest(series, **HOW, journal=journal)
    journal.write_bytes(journal.read_bytes()[:-3])  # killed while it wrote
    fits.stop_at = None
    assert_same(forecaster.backtest(series, **HOW, journal=journal), expected)
    assert fits == [*rows[:3], *rows[2:]]
    assert_same(forecaster.backtest(series, **HOW, journal=journal), expected)
    assert len(fits) == len(rows) + 1


def test_a_journal_is_of_one_backtest(fits, series, forecaster, tmp_path, refusal):
    journal = tmp_path / "folds.journal"
    forecaster.backtest(series, **HOW, journal=journal)
    before, fits[:] = journal.read_bytes(), []
    values = series.values.copy()
    values[-1] += 1e-9
    for other, rows, how, said in (
        (Forecaster(**forecaster.settings() | {"seed": 1}), series, HOW, "settings seed"),
        (forecaster, dataclasses.replace(series, values=values), HOW, "data sha256"),
        (forecaster, series.head(89), HOW, "data rows"),
        (forecaster, series, HOW | {"stride": 1}, "stride"),
        (forecaster, series, HOW | {"refit": 3}, "refit"),
    ):
        refusal(lambda: other.backtest(rows, **how, journal=journal), str(journal), said, error=CheckpointError)  # noqa: B023
    assert fits == []
    assert journal.read_bytes() == before
    journal.write_bytes(before.replace(b'"mean"', b'"median"'))
    refusal(lambda: forecaster.backtest(series, **HOW, journal=journal), "damaged", error=CheckpointError)


def test_one_training_needs_no_journal(series, forecaster, tmp_path):
    forecaster.backtest(series, **HOW | {"refit": "never"}, journal=tmp_path / "folds.journal")
    assert list(tmp_path.iterdir()) == []
