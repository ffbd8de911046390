import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import gru_xp
from gru_xp import Forecaster, ZeroShotForecaster
from gru_xp.errors import ArgumentError, CheckpointError, DataError, DataWarning
from gru_xp.forecasting import backtest
from gru_xp.forecasting.outputs import quantile_column
from gru_xp.io.read import read_series
from gru_xp.pretrained import forecaster as module
from gru_xp.pretrained.features import HEAD, LEVELS
from gru_xp.pretrained.predicting import forecast_quantiles, periods_of
from gru_xp.pretrained.weights import save_weights

pytestmark = pytest.mark.compat


@pytest.fixture
def zero_shot(weights, cpu):
    return ZeroShotForecaster(weights=weights, device=cpu)


@pytest.fixture
def monthly(seasonal):
    return pd.Series(seasonal(150), index=pd.date_range("2005-03-01", periods=150, freq="MS"), name="sales")


def assert_alike(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-4 * np.ptp(desired))


# --- what is forecast -------------------------------------------------------------------------------------------


def test_forecasts_are_those_of_the_network(zero_shot, weights, seasonal):
    series = seasonal(200)
    (quantiles,) = forecast_quantiles(weights, [series], None, 70)
    np.testing.assert_array_equal(zero_shot.forecast(series, 70), quantiles[:, 4])
    table = zero_shot.forecast_distribution(series, 70)
    np.testing.assert_array_equal(table.to_numpy()[:, 1:], quantiles)
    point, *others = table.columns
    assert point == module.NAME == backtest.column_name(backtest.ZERO_SHOT)
    assert [quantile_column(name) for name in others] == [(point, level) for level in LEVELS]
    np.testing.assert_array_equal(table[point], table[f"{point}-median"])
    assert table.index.equals(pd.RangeIndex(200, 270))


def test_forecasts_have_the_index_that_comes(zero_shot, monthly):
    forecast = zero_shot.forecast(monthly, 3)
    assert forecast.name == "sales"
    assert forecast.index.equals(pd.date_range("2017-09-01", periods=3, freq="MS"))
    assert zero_shot.forecast_distribution(monthly, 3).index.equals(forecast.index)
    numbered = monthly.reset_index(drop=True)
    assert zero_shot.forecast(numbered, 2).index.equals(pd.RangeIndex(150, 152))
    assert isinstance(zero_shot.forecast(monthly.to_numpy(), 2), np.ndarray)


def test_the_target_alone_is_looked_at(zero_shot, monthly):
    frame = pd.DataFrame({"other": np.arange(150.0), "sales": monthly})
    expected = zero_shot.forecast(monthly, 3)
    pd.testing.assert_series_equal(zero_shot.forecast(frame, 3, target="sales"), expected)
    series = read_series(frame, target="sales", features=["other"])
    pd.testing.assert_series_equal(zero_shot.forecast(series, 3), expected, check_names=False, check_freq=False)
    columns = np.column_stack([monthly, np.full(150, 1e200)])
    np.testing.assert_array_equal(zero_shot.forecast(columns, 3), zero_shot.forecast(monthly.to_numpy(), 3))


def test_several_series_are_forecast_together(zero_shot, monthly, seasonal):
    series = {"a": monthly, 7: seasonal(40), "c": monthly[:30]}
    forecasts = zero_shot.forecast_all(series, 80)
    assert list(forecasts) == ["a", 7, "c"]
    for name, data in series.items():
        assert type(forecasts[name]) is type(data)
        assert_alike(forecasts[name], zero_shot.forecast(data, 80))
    assert forecasts["c"].index.equals(zero_shot.forecast(monthly[:30], 80).index)
    listed = zero_shot.forecast_all(list(series.values()), 80)
    for one, other in zip(listed, forecasts.values(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert zero_shot.forecast_all({}, 1) == {}


@pytest.mark.parametrize("is_dated", [False, True])
def test_no_forecast_looks_ahead(zero_shot, monthly, is_dated):
    series = monthly if is_dated else monthly.to_numpy()
    origins = [2, 9, 40, 97, 150]
    forecasts = zero_shot.forecast_distributions(series, origins, 70)
    np.testing.assert_array_equal(forecasts["ZeroShot"], zero_shot.forecasts(series, origins, 70))
    for number, origin in enumerate(origins):
        changed = series.copy()
        changed[origin:] = 1e3
        again = zero_shot.forecast_distributions(changed, [origin], 70)
        for name, values in forecasts.items():
            assert_alike(again[name][0], values[number])
        assert_alike(zero_shot.forecast(series[:origin], 70), forecasts["ZeroShot"][number])


def test_missing_values_are_known_as_far_as_the_values_before(zero_shot, seasonal):
    gaps = seasonal(120)
    gaps[[0, 30, 31, 60, 61, 62, 118, 119]] = np.nan
    origins = [62, 63, 64, 120]
    for how in ("mask", "interpolate"):
        with pytest.warns(DataWarning):
            forecasts = zero_shot.forecasts(gaps, origins, 5, missing=how)
        for origin, forecast in zip(origins, forecasts, strict=True):
            (quantiles,) = forecast_quantiles(zero_shot.weights, [gaps[:origin]], None, 5)
            assert_alike(forecast, quantiles[:, 4])


# --- seasons ----------------------------------------------------------------------------------------------------


def test_seasons_of_dates_come_first(zero_shot, rng):
    """Of a series with a season of a year, and one of seven months that shows more."""
    month = np.arange(240)
    values = rng.standard_normal(240) + 4 * np.sin(month * np.pi / 6) + 5 * np.sin(2 * np.pi * month / 7)
    index = pd.date_range("2000-01-01", periods=240, freq="MS")
    assert zero_shot.seasons_of(values) == tuple(sorted({*periods_of(values, "series")} - {1}))
    assert 7 in zero_shot.seasons_of(values)
    assert zero_shot.seasons_of(pd.Series(values, index=index)) == (12,)
    with_year = ZeroShotForecaster(season=12, weights=zero_shot.weights, device="cpu")
    np.testing.assert_array_equal(zero_shot.forecast(pd.Series(values, index=index), 9), with_year.forecast(values, 9))


def test_two_seasons_of_hours(zero_shot, rng):
    hour = np.arange(1000)
    values = np.sin(2 * np.pi * hour / 24) * (1 + (hour // 24 % 7 > 4)) + 0.05 * rng.standard_normal(1000)
    series = pd.Series(values, index=pd.date_range("2024-01-01", periods=1000, freq="h"))
    assert zero_shot.seasons_of(series) == (24, 168)
    given = ZeroShotForecaster(season=[168, 24], weights=zero_shot.weights, device="cpu")
    np.testing.assert_array_equal(given.forecast(values, 100), zero_shot.forecast(series, 100))
    assert given.season == (24, 168)
    names = list(given.evaluate(values, 24, start=900).points)
    assert names[-2:] == ["seasonal naive (24)", "seasonal naive (168)"]


def test_a_season_that_is_given_wins(weights, monthly):
    forecasts = []
    for season, seasons in ((12, (12,)), (5, (5,)), ((12, 12), (12,)), (np.int64(5), (5,)), ("none", ())):
        given = ZeroShotForecaster(season=season, weights=weights, device="cpu")
        assert given.seasons_of(monthly) == seasons
        forecasts.append(given.forecast(monthly, 5).to_numpy())
    np.testing.assert_array_equal(forecasts[0], forecasts[2])
    np.testing.assert_array_equal(forecasts[1], forecasts[3])
    assert not np.array_equal(forecasts[0], forecasts[1])


def test_seasons_are_found_by_rows_before_the_origin(zero_shot, seasonal, rng):
    """The season begins late; a forecast does not depend on which others are asked for."""
    values = np.concatenate([rng.standard_normal(100), 10 * np.sin(np.arange(400) * np.pi / 6)])
    series = pd.Series(values, index=pd.date_range("1970-01-01", periods=500, freq="MS"))
    known = module._Known(read_series(series))
    found = [known.calendar_periods(origin) for origin in range(2, 501)]
    assert found[98] is None
    assert found[-1] == (12, 12)
    for origin in (2, 31, 33, 150, 499):
        assert module._Known(read_series(series[:origin])).calendar_periods(origin) == found[origin - 2]
    assert len(known._found) < 120


# --- how good it is ---------------------------------------------------------------------------------------------


def test_backtest(zero_shot, monthly):
    result = zero_shot.backtest(monthly, 6, windows=4, stride=3)
    assert isinstance(result, backtest.Backtest)
    assert result.origins.tolist() == [135, 138, 141, 144]
    np.testing.assert_array_equal(result.y_pred, zero_shot.forecasts(monthly, result.origins.tolist(), 6))
    assert list(result.points) == ["zero-shot", "last value", "mean", "drift", "seasonal naive"]
    assert all(list(levels) == list(LEVELS) for levels in result.quantiles.values())
    assert set(result.quantiles) == set(result.points)
    metrics = result.metrics
    assert (metrics["model"], metrics["season"], metrics["windows"]) == ("ZeroShot", 12, 4)
    assert metrics["models"]["ZeroShot"]["mae"] == pytest.approx(np.abs(result.y_true - result.y_pred).mean())
    assert "zero-shot" in backtest.comparison_sentence(metrics)
    assert {"ZeroShot", "ZeroShot-lo-80", "SeasonalNaive"} <= set(result.to_frame().columns)


def test_the_same_origins_as_those_of_a_forecaster(zero_shot, monthly):
    other = Forecaster(model="ridge", seq_length=5, horizon=3).backtest(monthly, 3, device="cpu")
    for result in (zero_shot.backtest(monthly, 3), zero_shot.evaluate(monthly, 3)):
        assert (result.origins.tolist(), result.learned) == (other.origins.tolist(), other.learned)
        for name in ("last value", "mean", "drift", "seasonal naive"):
            np.testing.assert_array_equal(result.forecasts[name], other.forecasts[name])
    assert zero_shot.evaluate(monthly, 7, start=101).origins.tolist() == list(range(101, 144, 7))


def test_a_row_of_other_tables(zero_shot, monthly):
    others = {"zero-shot": zero_shot.other_forecast("MS"), "undated": zero_shot.other_forecast()}
    ridge = Forecaster(model="ridge", seq_length=5, horizon=3)
    result = ridge.backtest(monthly, 3, windows=5, others=others, device="cpu")
    origins = result.origins.tolist()
    np.testing.assert_array_equal(result.forecasts["zero-shot"], zero_shot.forecasts(monthly, origins, 3))
    np.testing.assert_array_equal(result.forecasts["undated"], zero_shot.forecasts(monthly.to_numpy(), origins, 3))


def test_backtests_of_gaps(zero_shot, monthly):
    gaps = monthly.copy()
    gaps.iloc[[100, 120, 121, 140]] = np.nan
    with pytest.warns(DataWarning):
        result = zero_shot.backtest(
            gaps, 4, windows=20, stride=1, missing="interpolate", others={"x": zero_shot.other_forecast()}
        )
    for row, origin in enumerate(result.origins.tolist()):
        (quantiles,) = forecast_quantiles(zero_shot.weights, [gaps.to_numpy()[:origin]], [(12, 12)], 4)
        assert_alike(result.y_pred[row], quantiles[:, 4])
    assert np.isfinite(result.forecasts["x"]).all()


# --- settings and errors ----------------------------------------------------------------------------------------


def test_weights_of_a_file_or_the_package(tmp_path, weights, monthly, monkeypatch, refused):
    save_weights(tmp_path / "w.safetensors", weights.params)
    of_file = ZeroShotForecaster(weights=tmp_path / "w.safetensors", device="cpu")
    monkeypatch.setattr(module, "default_weights", lambda: of_file.weights)
    of_package = gru_xp.pretrained.ZeroShotForecaster(device="cpu")
    np.testing.assert_array_equal(of_package.forecast(monthly, 3), of_file.forecast(monthly, 3))
    with refused(CheckpointError, str(tmp_path / "nowhere")):
        ZeroShotForecaster(weights=tmp_path / "nowhere")


def test_copies_forecast_the_same(zero_shot, monthly):
    for again in (copy.deepcopy(zero_shot), pickle.loads(pickle.dumps(zero_shot))):
        assert repr(again) == repr(zero_shot)
        np.testing.assert_array_equal(again.forecast(monthly, 3), zero_shot.forecast(monthly, 3))


@pytest.mark.parametrize("season", [1, 0, 512, "week", 7.0, True, None, (), (12, 1), (2, 3, 4), [7, "auto"]])
def test_seasons_that_are_none(weights, refused, season):
    with refused(ArgumentError, "season", "511"):
        ZeroShotForecaster(season=season, weights=weights, device="cpu")


def test_arguments_that_are_out_of_range(zero_shot, monthly, refused):
    for name, call in {
        "steps": lambda: zero_shot.forecast(monthly, 0),
        "steps is": lambda: zero_shot.forecast_all([monthly], 1.5),
        "series is": lambda: zero_shot.forecast_all(monthly, 1),
        "origin": lambda: zero_shot.forecasts(monthly, [50, 151], 1),
        "origin is 1": lambda: zero_shot.forecasts(monthly, [1], 1),
        "windows": lambda: zero_shot.backtest(monthly, windows=0),
        "stride": lambda: zero_shot.backtest(monthly, stride=0),
        "split_ratio": lambda: zero_shot.backtest(monthly, split_ratio=1),
        "start": lambda: zero_shot.evaluate(monthly, start=151),
        "device": lambda: ZeroShotForecaster(weights=zero_shot.weights, device="gpu"),
        "nonsense": lambda: zero_shot.forecast(monthly, 1, nonsense=1),
    }.items():
        with refused(ArgumentError, name, case=name):
            call()


def test_data_that_cannot_be_forecast(zero_shot, monthly, write, refused):
    short = read_series(write("date,sales\n2020-01-01,3\n", "shop.csv"))
    for parts, call in {
        ("1 row", "2"): lambda: zero_shot.forecast([3.0], 1),
        ("shop: ",): lambda: zero_shot.forecast_all({"shop": [1.0]}, 1),
        ("series 1: ",): lambda: zero_shot.forecast_all([monthly, [1.0]], 1),
        (f"{short.name}: ",): lambda: zero_shot.backtest(short),
        ("2012-01-01", "sales", "1e+160"): lambda: zero_shot.forecast(monthly.replace(monthly["2012-01-01"], 1e160), 1),
        ("missing",): lambda: zero_shot.forecast([3.0, np.nan, 2.0], 1),
        ("rows are too few", f"{HEAD}"): lambda: zero_shot.backtest(monthly, HEAD, windows=3),
        ("name", "read_series"): lambda: zero_shot.forecast("sales.csv", 1),
    }.items():
        with refused(DataError, *parts, case=parts):
            call()


@pytest.mark.cuda
def test_on_cuda(weights, monthly):
    on_cuda = ZeroShotForecaster(weights=weights, device="cuda")
    on_cpu = ZeroShotForecaster(weights=weights, device="cpu")
    assert_alike(on_cuda.forecast(monthly, 5), on_cpu.forecast(monthly, 5))
    again = pickle.loads(pickle.dumps(on_cuda))
    assert again.device.is_cuda
    np.testing.assert_array_equal(again.forecast(monthly, 5), on_cuda.forecast(monthly, 5))
