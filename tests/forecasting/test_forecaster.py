import copy
import json
import pickle
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors
import safetensors.numpy

from gru_xp import Forecaster
from gru_xp.data import bundled_file
from gru_xp.devices import device as device_module
from gru_xp.errors import ArgumentError, CheckpointError, DataError, DataWarning, DeviceError, NotFittedError
from gru_xp.forecasting.evaluation import evaluate
from gru_xp.io.read import read_series
from gru_xp.io.series import TimeSeries
from gru_xp.nn.dropout import DropoutRates
from gru_xp.nn.network import init_network_params, network_forward
from gru_xp.nn.params import flatten, named_arrays
from gru_xp.nn.stack import mean_masks
from gru_xp.training.model_file import save_model

pytestmark = pytest.mark.compat


@pytest.fixture
def frame(walk):
    index = pd.bdate_range("2020-01-02", periods=60, name="Date")
    return pd.DataFrame(walk(60, 2), index=index, columns=["Close", "Volume"])


@pytest.fixture
def fitted(small, frame, cpu):
    return small().fit(frame, features=["Volume"], device=cpu)


# --- what it predicts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["last", "standard"])
@pytest.mark.parametrize("reset", ["before", "after"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predictions_are_the_networks_in_the_units_of_the_data(small, frame, cpu, scaling, reset, dtype):
    forecaster = small(scaling=scaling, reset=reset, dtype=dtype).fit(frame, features=["Volume"], device=cpu)
    assert {array.dtype for _, array in named_arrays(forecaster.params)} == {np.dtype(dtype)}
    train_rows = frame.to_numpy()[:48]
    expected = []
    for end in range(4, 60):
        window = frame.to_numpy()[end - 4 : end]
        if scaling == "standard":
            level, unit = train_rows.mean(axis=0), train_rows.std(axis=0)
        else:
            level, unit = window[-1], np.diff(train_rows, axis=0).std(axis=0)
        x = ((window - level) / unit)[None].astype(dtype)
        y, _ = network_forward(x, forecaster.params, reset=reset)
        expected.append(level[0] + unit[0] * float(y[0, 0]))
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(forecaster.predict(frame.to_numpy()), expected, rtol=tolerance)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_layers": 3, "scaling": "standard"},
        {"bidirectional": True, "reset": "after"},
        {"num_layers": 2, "bidirectional": True, "dropout": 0.4, "recurrent_dropout": 0.3},
        {"num_layers": 2, "zoneout": 0.2, "scaling": "standard"},
    ],
    ids=str,
)
def test_predictions_of_several_layers(small, frame, cpu, settings):
    """Dropout has no part in them, and zoneout's updates are their mean."""
    forecaster = small(dtype="float64", **settings).fit(frame, features=["Volume"], device=cpu)
    layers, linear, _ = forecaster.params
    D = 2 if forecaster.bidirectional else 1
    sizes = [[(params.input_size, params.hidden_size) for params in layer] for layer in layers]
    assert sizes == [[(D * 5 if number else 2, 5)] * D for number in range(forecaster.num_layers)]
    assert linear.weight.shape == (1, D * 5)
    windows = np.stack([frame.to_numpy()[end - 4 : end] for end in range(4, 60)])
    masks = mean_masks(layers, DropoutRates(zoneout=forecaster.zoneout))
    x = forecaster.scaler.scale_windows(windows)
    y, _ = network_forward(x, forecaster.params, masks=masks, reset=forecaster.reset)
    expected = forecaster.scaler.unscale_predictions(y[:, 0], windows)
    np.testing.assert_allclose(forecaster.predict(frame.to_numpy()), expected, rtol=1e-12)
    assert forecaster.forecast(frame, 1).iloc[0] == pytest.approx(
        forecaster.predict(np.vstack([frame.to_numpy(), [[0.0, 0.0]]]))[-1], rel=1e-9
    )


def test_predictions_belong_to_their_rows(cpu):
    """A sine is predicted well, and better than its neighbour in time is."""
    series = 10.0 + 3.0 * np.sin(0.7 * np.arange(200))
    forecaster = Forecaster(seq_length=6, hidden_size=12, num_epochs=200, learning_rate=0.02, dtype="float64")
    predictions = forecaster.fit(series[:150], device=cpu).predict(series)
    assert predictions.shape == (194,)

    def error(y_true, y_pred):
        return float(np.sqrt(np.mean((y_true - y_pred) ** 2)))

    own = error(series[150:], predictions[144:])
    assert own < 0.1
    assert own < 0.1 * error(series[149:-1], predictions[144:])
    assert own < 0.1 * error(series[151:], predictions[144:-1])
    forecast = forecaster.forecast(series[:150], 20)
    assert error(series[150:170], forecast) < 0.5


def test_the_first_forecast_is_the_prediction_of_the_next_row(fitted, frame):
    predictions = fitted.predict(frame)
    for rows in (4, 5, 17, 59):
        assert fitted.forecast(frame.iloc[:rows], 1).iloc[0] == pytest.approx(predictions.iloc[rows - 4], rel=1e-6)


def test_further_forecasts_build_on_those_before(fitted, frame):
    forecasts = fitted.forecast(frame, 7)
    assert forecasts.shape == (7,)
    values = frame.to_numpy()
    for step in range(7):
        np.testing.assert_array_equal(fitted.forecast(values, 1), forecasts[step : step + 1])
        values = np.vstack([values, [forecasts.iloc[step], frame["Volume"].iloc[-1]]])
    np.testing.assert_array_equal(fitted.forecast(frame, 3), forecasts[:3])
    np.testing.assert_array_equal(fitted.forecast(frame.iloc[-4:], 7), forecasts)
    assert len(set(forecasts)) == 7


def test_forecasts_have_the_coming_dates(small, frame, cpu):
    values = frame["Close"].to_numpy()
    fitted = small().fit(frame["Close"], device=cpu)
    numbers = fitted.forecast(values, 3)
    assert isinstance(numbers, np.ndarray)
    days = pd.DatetimeIndex(["2020-03-26", "2020-03-27", "2020-03-30"], name="Date")
    cases = [
        (frame["Close"], days),
        (frame, days),
        (frame.reset_index(), days.rename(None)),
        (read_series(frame["Close"]), days.rename(None)),
        (pd.Series(values, index=pd.RangeIndex(10, 130, 2)), pd.RangeIndex(130, 136, 2)),
        (pd.Series(values, index=[*"abcdef"] * 10), pd.RangeIndex(60, 63)),
    ]
    for data, index in cases:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            forecast = fitted.forecast(data, 3)
        pd.testing.assert_series_equal(forecast, pd.Series(numbers, index, name="Close"), check_freq=False)
    undated = TimeSeries(values[:, None], ("Close",))
    assert isinstance(fitted.forecast(undated, 3), np.ndarray)


@pytest.mark.parametrize("fallback", [None, "drift"])
def test_forecasts_of_several_series_are_those_of_each(fallback, fitted, frame, refusal):
    series = {"all": frame, "start": frame[:9], 3: frame[10:30].to_numpy()}
    fitted.fallback = fallback
    together = fitted.forecast_all(series, 6)
    assert list(together) == list(series)
    for name, data in series.items():
        alone = fitted.forecast(data, 6)
        assert type(together[name]) is type(alone)
        np.testing.assert_allclose(together[name], alone, rtol=1e-6)
        if name != 3:
            assert together[name].index.equals(alone.index)
    assert fitted.forecast_all({}, 2) == {}
    refusal(lambda: fitted.forecast_all({"a": frame, "b": frame[:2]}, 2), "b: ", "2 rows are too few")
    refusal(lambda: fitted.forecast_all(frame.to_numpy(), 2), "dict", error=ArgumentError)


def test_forecasts_from_many_origins_are_those_of_the_rows_before(fitted, frame, refusal):
    origins = [60, 4, 33, 33]
    forecasts = fitted.forecasts(frame, origins, 5)
    expected = [fitted.forecast(frame.iloc[:origin], 5) for origin in origins]
    np.testing.assert_allclose(forecasts, expected, rtol=1e-6)
    later = frame.copy()
    later.iloc[33:] += 1000.0
    np.testing.assert_array_equal(fitted.forecasts(later, origins[1:], 5), fitted.forecasts(frame, origins[1:], 5))
    assert fitted.forecasts(frame, [], 5).shape == (0, 5)
    for origin in (3, 61, 4.5):
        refusal(lambda at=origin: fitted.forecasts(frame, [at], 5), f"origin is {origin}", error=ArgumentError)


def test_forecasting_leaves_the_series_as_it_is(fitted, frame):
    values = frame.to_numpy().copy()
    kept = values.copy()
    fitted.forecast(values, 3)
    fitted.predict(values)
    np.testing.assert_array_equal(values, kept)


def test_the_level_does_not_matter(small, walk, cpu):
    series = walk(60)[:, 0]
    plain, lifted = (small(dtype="float64").fit(series + shift, device=cpu) for shift in (0.0, 1024.0))
    np.testing.assert_allclose(lifted.predict(series + 1024.0), plain.predict(series) + 1024.0, rtol=1e-9)
    np.testing.assert_allclose(lifted.forecast(series + 1024.0, 5), plain.forecast(series, 5) + 1024.0, rtol=1e-9)


def test_further_columns_are_looked_at(fitted, frame):
    changed = frame.copy()
    changed.iloc[30, 1] += 5.0
    difference = (fitted.predict(changed) - fitted.predict(frame)).to_numpy() != 0.0
    assert np.flatnonzero(difference).tolist() == [27, 28, 29, 30]


@pytest.mark.slow
def test_default_settings_beat_the_naive_forecast_on_the_sunspots(cpu):
    series = read_series(bundled_file("sunspots.csv"))
    forecaster = Forecaster().fit(series.head(247), device=cpu)
    (part,) = evaluate(forecaster, series, {"test": slice(247, None)})
    assert part.metrics["windows"] == 62
    assert part.metrics["skill"] > 0.25


# --- what it learns from ----------------------------------------------------------------------------------------


def test_kinds_of_series(small, walk, cpu):
    values = walk(40)[:, 0]
    index = pd.date_range("2021-01-01", periods=40)
    expected = small().fit(values, device=cpu)
    for data in (
        values,
        values[:, None],
        values.tolist(),
        pd.Series(values, index=index, name="Close"),
        pd.DataFrame({"Note": "x", "Close": values}, index=index),
        TimeSeries(values[:, None], ("Close",)),
    ):
        kind = type(data).__name__
        forecaster = small().fit(data, device=cpu)
        predictions = forecaster.predict(data)
        np.testing.assert_array_equal(np.asarray(predictions), expected.predict(values), err_msg=kind)
        np.testing.assert_array_equal(forecaster.forecast(data, 3), expected.forecast(values, 3), err_msg=kind)
        if isinstance(data, pd.Series | pd.DataFrame):
            assert type(predictions) is pd.Series, kind
            assert predictions.index.equals(index[4:]), kind
            assert predictions.name == "Close", kind
        else:
            assert type(predictions) is np.ndarray, kind
            assert predictions.shape == (36,), kind
        assert predictions.dtype == np.float64, kind


def test_a_forecaster_takes_other_kinds_than_it_learned_from(fitted, frame):
    expected = fitted.predict(frame).to_numpy()
    np.testing.assert_array_equal(fitted.predict(frame.to_numpy()), expected)
    np.testing.assert_array_equal(fitted.predict(frame.assign(Note="x")[["Note", "Volume", "Close"]]), expected)
    np.testing.assert_array_equal(fitted.predict(TimeSeries(frame.to_numpy()[:, ::-1], ("Volume", "Close"))), expected)


def test_columns_that_are_chosen(small, frame, cpu, refusal):
    for choice, columns in (
        ({}, ("Close",)),
        ({"features": ["Volume"]}, ("Close", "Volume")),
        ({"features": "Volume"}, ("Close", "Volume")),
        ({"features": "all"}, ("Close", "Volume")),
        ({"target": "Volume", "features": ["Close"]}, ("Volume", "Close")),
        ({"target": "volume"}, ("Volume",)),
        ({"time": "Date"}, ("Close",)),
    ):
        forecaster = small(num_epochs=1).fit(frame, device=cpu, **choice)
        assert forecaster.columns == columns, choice
        learned = TimeSeries(frame[list(columns)].to_numpy(), columns)
        expected = small(num_epochs=1).fit(learned, device=cpu).forecast(learned, 3)
        np.testing.assert_array_equal(forecaster.forecast(frame, 3), expected, err_msg=str(choice))
    others = frame.rename(columns={"Close": "Last"})
    refusal(lambda: small().fit(others), "2 numeric columns", "target='NAME'", "Last, Volume")
    refusal(lambda: small().fit(frame, features=["High"]), "'High'", "Close, Volume")
    refusal(lambda: small().fit(frame, target=["Close"]), "no column", "Close, Volume")
    for choice in ({"features": b"x"}, {"time": 5.5j}, {"time": [""]}):
        refusal(lambda choice=choice: small().fit(frame, **choice), f"{next(iter(choice))} is", error=ArgumentError)


def test_frames_with_numbers_for_names(small, walk, cpu):
    values = walk(40, 2)
    expected = small().fit(values, device=cpu).forecast(values, 3)
    for frame in (pd.DataFrame(values), pd.DataFrame(values, columns=[7, 0])):
        first, second = frame.columns
        forecaster = small().fit(frame, target=first, features=[second], order="oldest-first", device=cpu)
        np.testing.assert_array_equal(forecaster.forecast(frame, 3), expected)
    assert small().fit(pd.DataFrame(values[:, :1]), order="oldest-first", device=cpu).columns == ("0",)


def test_columns_cannot_be_chosen_of_arrays_and_series(small, frame, refusal):
    series = TimeSeries(frame.to_numpy(), ("Close", "Volume"))
    for data, part in ((frame.to_numpy(), "array"), (series, "TimeSeries")):
        for choice in ({"target": "Close"}, {"features": ["Volume"]}, {"features": "all"}):
            use = lambda data=data, choice=choice: small().fit(data, **choice)  # noqa: E731
            refusal(use, "target and features", part, error=ArgumentError)
        refusal(lambda data=data: small().fit(data, time="Date"), error=(ArgumentError, DataError))
    refusal(lambda: small().fit(frame, tyme="Date"), "'tyme'", "time", error=ArgumentError)
    for name in ("prices.csv", Path("prices.csv")):
        refusal(lambda name=name: small().fit(name), "prices.csv", "gru_xp.read_series")


def test_files_are_read_first(small, cpu, tmp_path):
    days = pd.date_range("2024-01-01", periods=40).strftime("%d.%m.%y")
    table = pd.DataFrame({"Tag": days, "Umsatz": [f"{100 + i % 7},5" for i in range(40)]})
    table.to_csv(tmp_path / "sales.csv", index=False, sep=";")
    series = read_series(tmp_path / "sales.csv", decimal=",", date_format="%d.%m.%y")
    forecaster = small().fit(series, device=cpu)
    assert forecaster.forecast(series, 2).shape == (2,)


# --- the rows of frames -----------------------------------------------------------------------------------------

RISING = np.arange(961.0, 1001.0)
DAYS = pd.date_range("2023-11-22", periods=40, name="Date")
NEWEST_FIRST = pd.DataFrame({"Date": DAYS, "Close": RISING})[::-1].reset_index(drop=True)
FORMS = {
    "texts": lambda frame: frame.assign(Date=frame["Date"].dt.strftime("%Y-%m-%d")),
    "datetimes": lambda frame: frame,
    "an index of texts": lambda frame: frame.set_index(frame["Date"].dt.strftime("%Y-%m-%d"))[["Close"]],
    "an index of datetimes": lambda frame: frame.set_index("Date"),
    "a series": lambda frame: frame.set_index("Date")["Close"],
    "periods": lambda frame: frame.assign(Date=frame["Date"].dt.to_period("D")),
    "unsorted": lambda frame: frame.sample(frac=1.0, random_state=3),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_brought_into_order(small, cpu, form):
    """The forecast continues the newest row, and predictions belong to their rows."""
    data = FORMS[form](NEWEST_FIRST)
    with pytest.warns(DataWarning, match="sorted by Date" if form == "unsorted" else "newest-first") as warned:
        forecaster = small().fit(data, device=cpu)
    assert {(each.filename, each.category) for each in warned} == {(__file__, DataWarning)}
    with pytest.warns(DataWarning) as warned:
        forecasts = forecaster.forecast(data, 3)
    assert {each.filename for each in warned} == {__file__}
    assert np.abs(forecasts - 1000.0).max() < 20.0
    np.testing.assert_array_equal(forecasts, small().fit(RISING, device=cpu).forecast(RISING, 3))
    with pytest.warns(DataWarning) as warned:
        predictions = forecaster.predict(data)
    assert {each.filename for each in warned} == {__file__}
    np.testing.assert_array_equal(predictions, forecaster.predict(RISING))
    closes = data if form == "a series" else data["Close"]
    assert closes.loc[predictions.index].tolist() == RISING[4:].tolist()


def test_rows_that_fall_without_dates_are_refused(small, refusal):
    closes = NEWEST_FIRST[["Close"]]
    for data in (
        closes[::-1].reset_index(drop=True)[::-1],
        closes.set_index(pd.Index(range(40, 0, -1))),
        closes.set_index(pd.Index([f"day {i}" for i in range(40, 0, -1)])),
        closes.assign(Giorno=[f"{n}. giorno" for n in range(40, 0, -1)])[["Giorno", "Close"]],
    ):
        refusal(lambda data=data: small().fit(data), "falls", "order='newest-first'")
        series = read_series(data, order="newest-first")
        assert series.values[:, 0].tolist() == RISING.tolist()


def test_several_series_are_refused(small, cpu, refusal):
    index = pd.MultiIndex.from_product([["A", "B"], DAYS], names=["store", "day"])
    data = pd.DataFrame({"units": np.concatenate([RISING, RISING[::-1]])}, index=index)
    refusal(lambda: small().fit(data), "several series", "store", "where='store=A'")
    refusal(lambda: small().fit(RISING, device=cpu).predict(data["units"]), "several series", "store")
    series = read_series(data, where="store=A")
    assert small().fit(series, device=cpu).forecast(series, 1).shape == (1,)
    predictions = small().fit(data, where="store=B", device=cpu).predict(data)
    assert predictions.index.equals(data.index[44:])


def test_masked_values_are_missing(small, refusal):
    masked = np.ma.array(RISING, mask=[i == 7 for i in range(40)], fill_value=1e9)
    refusal(lambda: small().fit(masked), "row 7", "missing='drop'")


def test_a_frame_of_several_dates_is_warned_of(small, cpu):
    days = pd.date_range("2024-01-01", periods=40).astype(str)
    data = pd.DataFrame({"Close": RISING, "Opened": days, "Closed": days[::-1]})
    with pytest.warns(DataWarning, match="oldest first") as warned:
        small().fit(data, device=cpu)
    assert warned[0].filename == __file__
    forecaster = small().fit(data["Close"], device=cpu)
    forecaster.predict(data[["Close"]])
    forecaster.predict(RISING)


def test_the_time_is_remembered(small, cpu, tmp_path):
    """Also in a file, and only as long as the frames have it."""
    days = pd.date_range("2024-01-01", periods=40)
    data = pd.DataFrame({"Start": days, "End": days[::-1], "v": RISING})
    small().fit(data, device=cpu)  # dated by Start
    with pytest.warns(DataWarning, match="newest-first"):
        forecaster = small().fit(data, time="End", device=cpu)
    forecaster.save(tmp_path / "model.safetensors")
    for again in (forecaster, Forecaster.load(tmp_path / "model.safetensors", device=cpu)):
        with pytest.warns(DataWarning, match="newest-first"):
            assert abs(np.asarray(again.forecast(data, 1))[0] - 961.0) < 20.0
        assert again.predict(data[["Start", "v"]]).index[-1] == 39
    assert not forecaster.fit(data, device=cpu).notes


def test_notes_of_somebody_else(fitted, frame):
    for reading in ("x", 5, {"more": 1}, {"time": 5.5j}, {"decimal": ","}, {"time": ["When"]}):
        fitted.notes = {"reading": reading}
        assert fitted.predict(frame).shape == (56,), reading


def test_values_that_are_too_large(small, fitted, frame, cpu, refusal):
    values = frame.to_numpy().copy()
    values[7, 1] = -2e150
    for data, place in (
        (values, "row 7, column column 1: "),
        (frame.assign(Volume=values[:, 1]), "2020-01-13, column Volume: "),
        (TimeSeries(values, ("Close", "Volume"), name="own.csv"), "own.csv: row 7, column Volume: "),
    ):
        choice = {"features": ["Volume"]} if isinstance(data, pd.DataFrame) else {}
        for use in (
            lambda data=data, choice=choice: small().fit(data, device=cpu, **choice),
            lambda data=data: fitted.predict(data),
        ):
            refusal(use, place, "-2e+150", "1e+150", "scale")


def test_the_training_part_alone_is_scaled_by_and_learned_from(small, walk, cpu):
    values = walk(60, 2)
    changed = values.copy()
    changed[48:] *= 3.0  # the validation rows
    settings = {"num_epochs": 6, "patience": None, "dtype": "float64"}
    first, second = (small(**settings).fit(v, device=cpu) for v in (values, changed))
    assert first.scaler == second.scaler
    costs = [[record.cost for record in f.training.history] for f in (first, second)]
    assert costs[0] == costs[1]
    validation = [[record.validation_cost for record in f.training.history] for f in (first, second)]
    assert all(a != b for a, b in zip(*validation, strict=True))
    changed[47] *= 3.0
    assert small(**settings).fit(changed, device=cpu).scaler != first.scaler


@pytest.mark.parametrize(
    "settings",
    [
        {"reset": "before"},
        {"reset": "after"},
        {"num_layers": 2, "bidirectional": True},
        {"num_layers": 2, "dropout": 0.5, "recurrent_dropout": 0.3, "zoneout": 0.2},
    ],
    ids=str,
)
def test_the_recorded_costs_are_those_of_scaled_predictions(small, frame, cpu, settings):
    forecaster = small(dtype="float64", num_epochs=9, **settings).fit(frame, features=["Volume"], device=cpu)
    unit = np.diff(frame["Close"].to_numpy()[:48]).std()
    errors = ((forecaster.predict(frame) - frame["Close"].iloc[4:]) / unit).to_numpy()
    record = forecaster.training.history[forecaster.training.best_epoch]
    assert record.cost == pytest.approx(np.mean(errors[:44] ** 2), rel=1e-10)
    assert record.validation_cost == pytest.approx(np.mean(errors[44:] ** 2), rel=1e-10)


def test_without_validation_all_rows_are_learned_from(small, walk, cpu):
    values = walk(40)
    forecaster = small(validation_ratio=0.0).fit(values, device=cpu)
    assert all(record.validation_cost is None for record in forecaster.training.history)
    assert forecaster.scaler.mean[0] == pytest.approx(values.mean(), rel=1e-12)


def test_training_starts_from_the_seed(small, walk, cpu):
    values = walk(40)
    first, again, other = (small(seed=seed, batch_size=8).fit(values, device=cpu) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.predict(values), again.predict(values))
    np.testing.assert_array_equal(flatten(first.params), flatten(again.params))
    assert (first.predict(values) != other.predict(values)).all()
    seen = []
    small(seed=7).fit(values, device=cpu, callback=lambda record: seen.append(record) or record.epoch == 0)
    start = init_network_params(1, 5, 1, xp=np, seed=7, dtype=np.float32)
    stopped = small(seed=7).fit(values, device=cpu, callback=lambda record: True)
    np.testing.assert_array_equal(flatten(stopped.params), flatten(start))
    assert [record.epoch for record in seen] == [0]


def test_what_is_left_out_follows_the_seed(small, walk, cpu):
    values = walk(40)
    settings = {"num_layers": 2, "patience": None}
    without = small(seed=1, **settings).fit(values, device=cpu)
    for kind in ("dropout", "recurrent_dropout", "zoneout"):
        first, again = (small(seed=1, **settings, **{kind: 0.5}).fit(values, device=cpu) for _ in range(2))
        np.testing.assert_array_equal(flatten(first.params), flatten(again.params), err_msg=kind)
        start, *costs = [record.cost for record in first.training.history]
        start_without, *costs_without = [record.cost for record in without.training.history]
        assert all(a != b for a, b in zip(costs, costs_without, strict=True)), kind
        assert (start == start_without) == (kind != "zoneout"), kind


def test_several_layers_learn_a_sine(small, cpu):
    series = 10.0 + 3.0 * np.sin(0.7 * np.arange(150))
    settings = {"seq_length": 6, "hidden_size": 8, "num_epochs": 120, "learning_rate": 0.02}
    layers = {"num_layers": 2, "bidirectional": True}
    forecaster = small(**settings, **layers).fit(series, device=cpu)
    errors = forecaster.predict(series) - series[6:]
    assert np.sqrt(np.mean(errors**2)) < 0.2
    start = init_network_params(1, 8, 1, **layers, xp=np, seed=0, dtype=np.float32)
    assert [name for name, _ in named_arrays(forecaster.params)] == [name for name, _ in named_arrays(start)]


def test_a_second_fit_starts_anew(small, walk, cpu):
    first, second = walk(40), walk(50)
    refitted = small().fit(first, device=cpu).fit(second, device=cpu)
    np.testing.assert_array_equal(refitted.predict(second), small().fit(second, device=cpu).predict(second))


def test_two_processes_learn_the_same():
    program = (
        "import numpy as np; from gru_xp import Forecaster; s = np.sin(np.arange(80) ** 1.1);"
        "f = Forecaster(num_epochs=5, batch_size=16).fit(s, device='cpu');"
        "result = f.forecast(s, 4).tobytes().hex()"
    )
    here = {}
    exec(program, here)
    command = [sys.executable, "-c", f"{program}; print(result)"]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert there.strip() == here["result"] != ""


@pytest.mark.filterwarnings("error::RuntimeWarning:numpy")
def test_a_divergence_is_warned_of(small, walk, cpu):
    values = walk(40)
    with pytest.warns(RuntimeWarning, match="epoch 3, batch 1: .*learning") as w:
        forecaster = small(optimizer="sgd", learning_rate=1e6, num_epochs=500, patience=None).fit(values, device=cpu)
    assert w[0].filename == __file__
    assert forecaster.training.stop_reason == "non_finite"
    assert np.isfinite(forecaster.predict(values)).all()


@pytest.mark.cuda
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "dropout": 0.3, "zoneout": 0.1},
        {"loss": "quantile", "linear_skip": True, "horizon": 2, "batch_size": 16},
        {"loss": "gaussian", "linear_skip": True, "scaling": "window"},
        {"loss": "poisson", "batch_size": 16},
    ],
    ids=str,
)
def test_a_cuda_device_learns_the_same(small, walk, cpu, tmp_path, settings):
    values = walk(60, 2)
    on_cpu, on_gpu = (small(dtype="float64", **settings).fit(values, device=device) for device in (cpu, "cuda"))
    np.testing.assert_allclose(on_gpu.predict(values), on_cpu.predict(values), rtol=1e-9)
    distributions = (each.forecast_distribution(values, 3) for each in (on_gpu, on_cpu))
    np.testing.assert_allclose(*(each.to_numpy() for each in distributions), rtol=1e-9)
    on_gpu.save(tmp_path / "model.safetensors")
    moved = Forecaster.load(tmp_path / "model.safetensors", device=cpu)
    np.testing.assert_allclose(moved.predict(values), on_gpu.predict(values), rtol=1e-12)


# --- files ------------------------------------------------------------------------------------------------------


def test_a_model_file_gives_the_same_predictions(small, frame, cpu, tmp_path):
    for settings in (
        {},
        {"dtype": "float64", "reset": "after", "scaling": "standard"},
        {"optimizer": "sgd", "reduction": "mean", "batch_size": 8, "clip_norm": 1.5, "patience": None, "seed": 4},
        {"num_layers": 3, "dropout": 0.25},
        {"bidirectional": True, "recurrent_dropout": 0.5},
        {"num_layers": 2, "bidirectional": True, "zoneout": 0.1, "reset": "after", "dtype": "float64"},
    ):
        case = str(settings)
        forecaster = small(**{"num_epochs": 2} | settings).fit(frame, features=["Volume"], device=cpu)
        forecaster.notes = {"source": "ü", "split_ratio": 0.8}
        forecaster.save(tmp_path / "model.safetensors")
        loaded = Forecaster.load(tmp_path / "model.safetensors", device="cpu")
        np.testing.assert_array_equal(
            loaded.predict(frame).to_numpy(), forecaster.predict(frame).to_numpy(), err_msg=case
        )
        np.testing.assert_array_equal(loaded.forecast(frame, 5), forecaster.forecast(frame, 5), err_msg=case)
        assert loaded.settings() == forecaster.settings(), case
        assert (loaded.columns, loaded.scaler) == (("Close", "Volume"), forecaster.scaler), case
        assert loaded.notes == forecaster.notes, case
        assert loaded.training is None, case


def test_what_the_file_says_of_itself(fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        metadata = json.loads(file.metadata()["metadata"])
    assert metadata["settings"]["seq_length"] == 4
    assert metadata["device"] == "cpu"
    assert metadata["best_epoch"] == fitted.training.best_epoch
    assert metadata["versions"]["numpy"] == np.__version__


def test_a_file_of_format_version_1(fitted, frame, tmp_path):
    """One layer, named without numbers; the settings of later versions are missing."""
    ((gru,),), linear, _ = fitted.params
    unused = np.ones(gru.hidden_size, gru.bias.dtype)
    arrays = {f"gru.{name}": array for name, array in gru._replace(bias_hn=unused)._asdict().items()}
    arrays |= {f"linear.{name}": array for name, array in linear._asdict().items()}
    description = fitted.describe()
    for name in ("num_layers", "bidirectional", "dropout", "recurrent_dropout", "zoneout"):
        del description["settings"][name]
    header = {"format": "gru-xp", "format_version": "1", "metadata": json.dumps(description)}
    (tmp_path / "old.safetensors").write_bytes(safetensors.numpy.save(arrays, metadata=header))
    loaded = Forecaster.load(tmp_path / "old.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.predict(frame).to_numpy(), fitted.predict(frame).to_numpy())
    assert loaded.settings() == fitted.settings()
    loaded.save(tmp_path / "new.safetensors")
    again = Forecaster.load(tmp_path / "new.safetensors", device="cpu")
    np.testing.assert_array_equal(again.forecast(frame, 3), fitted.forecast(frame, 3))


@pytest.mark.parametrize(("reset", "other"), [("before", "after"), ("after", "before")])
def test_the_form_of_the_reset_gate_is_that_of_the_weights(small, frame, cpu, refusal, reset, other):
    forecaster = small(reset=reset).fit(frame, device=cpu)
    params = forecaster.params
    assert params.gru[0][0].reset == reset
    forecaster.reset = other
    refusal(lambda: forecaster.predict(frame), f"reset is '{other}'", f"must be '{reset}'", error=ArgumentError)
    parts = f"reset='{reset}'", f"described as one of '{other}'"
    refusal(lambda: Forecaster.from_parts(params, forecaster.describe(), cpu), *parts, error=CheckpointError)


def test_weights_of_other_layers_than_the_settings_say(small, frame, cpu, tmp_path, refusal):
    forecaster = small(num_layers=2, bidirectional=True).fit(frame, features=["Volume"], device=cpu)
    forecaster.save(tmp_path / "model.safetensors")
    Forecaster.load(tmp_path / "model.safetensors", device="cpu")
    path = tmp_path / "other.safetensors"
    for name, wrong, part in (
        ("num_layers", 1, "'gru.1."),
        ("num_layers", 3, "'gru.2."),
        ("bidirectional", False, "'gru.0.1."),
        ("hidden_size", 4, "'gru.0.0."),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(forecaster, name, wrong)
            forecaster.save(path)
        refusal(lambda: Forecaster.load(path, device="cpu"), f"{path}: ", part, error=CheckpointError)


def test_settings_in_a_file_that_are_out_of_range(small, frame, cpu, tmp_path, refusal):
    forecaster = small(num_layers=2).fit(frame, features=["Volume"], device=cpu)
    path = tmp_path / "model.safetensors"
    for name, wrong in (
        ("num_layers", 0),
        ("num_layers", "2"),
        ("bidirectional", 1),
        ("zoneout", 1.0),
        ("dropout", None),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(forecaster, name, wrong)
            forecaster.save(path)
        refusal(lambda: Forecaster.load(path, device="cpu"), f"{path}: ", f"{name} is {wrong!r}", error=CheckpointError)


# --- copies -----------------------------------------------------------------------------------------------------


COPIES = {
    "pickle": lambda forecaster: pickle.loads(pickle.dumps(forecaster)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_forecasts_the_same_bits(small, frame, cpu, kind):
    original = small(num_layers=2, bidirectional=True).fit(frame, features=["Volume"], device=cpu)
    made = COPIES[kind](original)
    assert made.predict(frame).to_numpy().tolist() == original.predict(frame).to_numpy().tolist()
    assert (made.settings(), made.columns, made.notes) == (original.settings(), original.columns, original.notes)
    assert (made.device.name, made.device.threads) == (cpu.name, cpu.threads)
    assert made.training.history == original.training.history
    if kind != "copy":
        made.params.linear.bias[...] += 1.0
        assert made.predict(frame).iloc[0] != original.predict(frame).iloc[0]


def test_a_copy_of_a_forecaster_that_is_not_fitted(small):
    made = pickle.loads(pickle.dumps(small(seed=7)))
    assert made.settings() == small(seed=7).settings()


def test_a_pickle_of_a_device_that_is_not_there_lands_on_the_cpu(fitted, frame, monkeypatch):
    monkeypatch.setattr(device_module, "cuda_problem", lambda index=0: "no driver")
    elsewhere = copy.copy(fitted)
    elsewhere.device = replace(fitted.device, name="cuda:1")
    pickled = pickle.dumps(elsewhere)
    with pytest.warns(RuntimeWarning, match=r"cuda:1 .*no driver") as record:
        made = pickle.loads(pickled)
    assert [warning.filename for warning in record] == [__file__]
    assert made.device.name == "cpu"
    np.testing.assert_allclose(made.predict(frame), fitted.predict(frame), rtol=1e-6)


def test_a_warning_of_the_device_names_the_line_that_asked_for_it(small, frame, monkeypatch, tmp_path):
    monkeypatch.setattr(device_module, "cuda_problem", lambda index=0: "no driver")
    with pytest.warns(RuntimeWarning, match="no driver") as fitting:
        fitted = small().fit(frame, device="cuda")
    fitted.save(tmp_path / "model")
    with pytest.warns(RuntimeWarning, match="no driver") as loading:
        Forecaster.load(tmp_path / "model", device="cuda")
    assert [warning.filename for warning in (*fitting, *loading)] == [__file__] * 2


def test_forecasters_are_equal_if_they_are_the_same_object(small, fitted):
    assert fitted == fitted
    assert small() != small()
    assert fitted in [small(), fitted]
    assert len({fitted, fitted, small()}) == 2


def test_a_model_from_its_parts(small, frame, cpu):
    forecaster = small(num_layers=2, bidirectional=True, zoneout=0.1).fit(frame, features=["Volume"], device=cpu)
    again = Forecaster.from_parts(forecaster.params, json.loads(json.dumps(forecaster.describe())), cpu)
    np.testing.assert_array_equal(again.predict(frame).to_numpy(), forecaster.predict(frame).to_numpy())
    assert again.settings() == forecaster.settings()
    other = small(num_layers=2).fit(frame, features=["Volume"], device=cpu)
    with pytest.raises(CheckpointError, match=r"weights .*shapes"):
        Forecaster.from_parts(other.params, forecaster.describe(), cpu)


def test_a_loaded_model_can_be_saved_again(fitted, tmp_path):
    fitted.save(tmp_path / "first")
    Forecaster.load(tmp_path / "first", device="cpu").save(tmp_path / "second")
    first, second = (safetensors.safe_open(tmp_path / name, framework="numpy") for name in ("first", "second"))
    assert json.loads(first.metadata()["metadata"]) == json.loads(second.metadata()["metadata"])


def test_files_that_are_no_model(fitted, tmp_path):
    path = tmp_path / "model.safetensors"
    for content in (b"", b"Date,Close\n", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a model file"):
            Forecaster.load(path, device="cpu")
    with pytest.raises(CheckpointError, match="does not exist"):
        Forecaster.load(tmp_path / "missing", device="cpu")
    with pytest.raises(CheckpointError, match="cannot be written"):
        fitted.save(tmp_path / "no" / "model.safetensors")


DAMAGES = {
    "no settings": (lambda m: m.pop("settings"), "no 'settings'"),
    "no scaler": (lambda m: m.pop("scaler"), "no 'scaler'"),
    "no columns": (lambda m: m.pop("columns"), "no 'columns'"),
    "more": (lambda m: m.update({"\x1b[31m": 1}), r"'\x1b[31m'"),
    "settings are none": (lambda m: m.update(settings=None), "'settings' of it is None; it must be of type dict"),
    "no layer": (lambda m: m["settings"].update(hidden_size=0), "hidden_size is 0"),
    "many layers": (lambda m: m["settings"].update(num_layers=10**9), "num_layers is 1000000000; it must be at most"),
    "endless": (lambda m: m["settings"].update(hidden_size=10**399), "hidden_size is 1000"),
    "a rate beyond numbers": (lambda m: m["settings"].update(learning_rate=10**399), "learning_rate is 1000"),
    "later setting": (lambda m: m["settings"].update({"\n": 1}), r"'\n'"),
    "reset": (lambda m: m["settings"].update(reset="\x1b"), r"reset is '\x1b'; it must be"),
    "a list for a word": (lambda m: m["settings"].update(scaling=["last"]), "scaling is ['last']; it must be"),
    "kind": (lambda m: m["scaler"].update(kind="first"), "kind is 'first'"),
    "no mean": (lambda m: m["scaler"].pop("mean"), "no 'mean'"),
    "text": (lambda m: m["scaler"].update(std=["x", "y"]), "std of the scaler holds 'x'"),
    "truth": (lambda m: m["scaler"].update(mean=[True, 0.5]), "mean of the scaler holds True"),
    "zero": (lambda m: m["scaler"].update(std=[0.5, 0.0]), "std of the scaler holds 0.0"),
    "negative": (lambda m: m["scaler"].update(change_std=[-0.5, 1.0]), "change_std of the scaler holds -0.5"),
    "nested": (lambda m: m["scaler"].update(change_std=[[1.0], 1.0]), "change_std of the scaler holds [1.0]"),
    "a huge mean": (lambda m: m["scaler"].update(mean=[1e308, 0.5]), "mean of the scaler holds 1e+308; it must be"),
    "a tiny scale": (lambda m: m["scaler"].update(std=[0.5, 1e-320]), "std of the scaler holds 1e-320; it must be"),
    "short scale": (lambda m: m["scaler"].update(mean=[0.5]), "as many numbers"),
    "short scaler": (lambda m: m["scaler"].update(mean=[0.5], std=[0.5], change_std=[0.5]), "each column"),
    "no column": (lambda m: m.update(columns=[]), "columns must be one name or more"),
    "numbers for columns": (lambda m: m.update(columns=[1, 2]), "columns must be one name or more"),
    "text for columns": (lambda m: m.update(columns="ab"), "'columns' of it is 'ab'; it must be of type list or tuple"),
    "epoch": (lambda m: m.update(best_epoch=-1), "best_epoch is -1"),
    "no penalty": (lambda m: m["look_back"].update(penalty=0.0), "penalty of look_back is 0.0"),
    "half an epoch": (lambda m: m.update(best_epoch=0.5), "'best_epoch' of it is 0.5; it must be of type int"),
    "notes": (lambda m: m.update(notes=[]), "'notes' of it is []; it must be of type dict"),
    "device": (lambda m: m.update(device=None), "'device' of it is None"),
}


def test_models_whose_description_is_damaged(fitted, tmp_path, refusal):
    path = tmp_path / "model.safetensors"
    fitted.save(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        text = file.metadata()["metadata"]
    for name, (damage, part) in DAMAGES.items():
        description = json.loads(text)
        damage(description)
        save_model(path, fitted.params, description)
        error = refusal(lambda: Forecaster.load(path, device="cpu"), f"{path}: ", part, error=CheckpointError)
        assert len(str(error)) < len(str(path)) + 400, name
        refusal(
            lambda description=description: Forecaster.from_parts(fitted.params, description, fitted.device),
            part,
            error=CheckpointError,
        )


# --- refusals ---------------------------------------------------------------------------------------------------


def test_a_forecaster_that_has_not_learned(small, frame, tmp_path, refusal):
    for use in (
        lambda f: f.predict(frame),
        lambda f: f.forecast(frame, 1),
        lambda f: f.save(tmp_path / "model.safetensors"),
    ):
        refusal(lambda use=use: use(small()), "call fit", error=NotFittedError)
    assert issubclass(NotFittedError, ValueError)
    assert list(tmp_path.iterdir()) == []


def test_series_with_other_columns(fitted, frame, refusal):
    refusal(lambda: fitted.predict(frame.rename(columns={"Volume": "Open"})), "'Volume'", "Close, Open")
    refusal(lambda: fitted.predict(frame["Close"]), "1 column", "Close, Volume")
    refusal(lambda: fitted.forecast(np.ones((20, 3)), 1), "3 column", "Close, Volume")


def test_too_few_rows(small, fitted, frame, cpu, refusal):
    assert fitted.predict(frame.iloc[:5]).shape == (1,)
    refusal(lambda: fitted.predict(frame.iloc[:4]), "4 rows", "at least 5")
    assert fitted.forecast(frame.iloc[:4], 2).shape == (2,)
    refusal(lambda: fitted.forecast(frame.iloc[:3], 2), "3 rows", "at least 4")
    small(validation_ratio=0.5).fit(frame.iloc[:9], device=cpu)
    refusal(lambda: small(validation_ratio=0.5).fit(frame.iloc[:8], device=cpu), "8 rows", "4 steps", "at least 9")


def test_predictions_that_are_no_numbers(small, frame, cpu, refusal):
    """As of a file that somebody made; nothing is warned of."""
    named = TimeSeries(frame.to_numpy(), tuple(frame.columns), tuple(map(str, range(60))), name="own.csv")
    for dtype in ("float32", "float64"):
        forecaster = small(dtype=dtype).fit(frame, features=["Volume"], device=cpu)
        forecaster.params.linear.weight[...] = np.finfo(dtype).max
        forecaster.params.linear.bias[...] = np.finfo(dtype).max
        for use, place in (
            (lambda f=forecaster: f.predict(frame.to_numpy()), "row 5: "),
            (lambda f=forecaster: f.predict(named), "own.csv: 4: "),
            (lambda f=forecaster: f.forecast(named, 3), "own.csv: step 1: "),
        ):
            message = str(refusal(use, "1e+152"))
            assert re.match(rf"{place}.* -?(inf|nan|[0-9.]+e.[0-9]+)\b", message), (dtype, message)


def test_errors_begin_with_the_name_of_the_series(small, fitted, frame, cpu, refusal):
    named = TimeSeries(frame.to_numpy(), tuple(frame.columns), name="own.csv")
    constant = TimeSeries(np.full((40, 1), 3.0), ("F",), name="own\x1b.csv")
    for use, start, *parts in (
        (lambda: small().fit(constant, device=cpu), r"own\x1b.csv: ", "column F"),
        (lambda: small().fit(named.head(5), device=cpu), "own.csv: ", "5 rows"),
        (lambda: fitted.predict(named.head(4)), "own.csv: ", "4 rows"),
        (lambda: fitted.forecast(named.head(3), 1), "own.csv: ", "3 rows"),
        (lambda: fitted.predict(constant), r"own\x1b.csv: ", "1 column"),
    ):
        message = str(refusal(use, *parts))
        assert message.startswith(start), message


def test_missing_values(small, fitted, frame, cpu):
    frame.iloc[12, 1] = np.nan
    for use in (lambda: small().fit(frame, features=["Volume"], device=cpu), lambda: fitted.predict(frame)):
        with pytest.raises(DataError, match="row 12, column Volume: the value is missing"):
            use()
    with pytest.raises(DataError, match="row 12, column column 1: the value is missing"):
        small().fit(frame.to_numpy(), device=cpu)


def test_a_constant_series(small, cpu):
    with pytest.raises(DataError, match="column value is constant"):
        small().fit(np.full(40, 3.0), device=cpu)


def test_settings_out_of_range():
    for name, wrong in (
        ("scaling", "minmax"),
        ("reset", "Before"),
        ("dtype", "float16"),
        ("optimizer", "lbfgs"),
        ("reduction", "max"),
        ("seq_length", 0),
        ("hidden_size", -1),
        ("num_epochs", 0),
        ("learning_rate", -0.1),
        ("batch_size", 0),
        ("clip_norm", float("nan")),
        ("patience", 0),
        ("validation_ratio", 1.0),
        ("validation_ratio", -0.1),
        ("num_layers", 0),
        ("num_layers", 1.5),
        ("num_layers", True),
        ("bidirectional", 1),
        ("bidirectional", "yes"),
        ("bidirectional", None),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", float("nan")),
        ("recurrent_dropout", 1),
        ("recurrent_dropout", "0.5"),
        ("zoneout", float("inf")),
        ("zoneout", None),
    ):
        with pytest.raises(ValueError, match=f"^{name} is {re.escape(repr(wrong))}; it must be "):
            Forecaster(**{"num_layers": 2, name: wrong})
    for name, wrong in (("seq_length", "long"), ("season", None), ("season", 1)):
        with pytest.raises(ValueError, match=f"^{name} is {wrong!r}; .*'auto'"):
            Forecaster(**{name: wrong})


def test_a_season_longer_than_the_training_rows(small, refusal, cpu):
    refusal(lambda: small(season=40).fit(np.arange(40.0) % 7, device=cpu), "season of 40 rows", "32 training rows")


def test_dropout_between_layers_wants_two():
    for bidirectional in (False, True):
        with pytest.raises(ValueError, match=r"^dropout .*num_layers.*recurrent_dropout"):
            Forecaster(dropout=0.1, bidirectional=bidirectional)
        Forecaster(dropout=0.1, num_layers=2, bidirectional=bidirectional)
        Forecaster(dropout=0.0, recurrent_dropout=0.5, zoneout=0.5, bidirectional=bidirectional)


def test_settings_that_are_numbers_of_numpy(small, frame, cpu, tmp_path):
    settings = {"num_layers": np.int64(2), "bidirectional": np.True_, "dropout": np.float32(0.25)}
    forecaster = small(**settings).fit(frame, features=["Volume"], device=cpu)
    kept = {name: forecaster.settings()[name] for name in settings}
    assert kept == {"num_layers": 2, "bidirectional": True, "dropout": 0.25}
    assert list(map(type, kept.values())) == [int, bool, float]
    forecaster.save(tmp_path / "model.safetensors")
    assert Forecaster.load(tmp_path / "model.safetensors", device="cpu").settings() == forecaster.settings()


def test_hooks_of_another_kind(small, frame, cpu, refusal):
    for name, wrong, expected in (
        ("callback", 3, "a function or None"),
        ("pause", "x", "a function or None"),
        ("state", 3, "a TrainingState or None"),
    ):
        use = partial(small().fit, frame, device=cpu, **{name: wrong})
        refusal(use, f"{name} is a {type(wrong).__name__}; it must be {expected}", error=ArgumentError)


def test_dates_are_no_values(small, cpu, refusal):
    for series, part in (
        (np.arange(80).astype("M8[D]"), "row 0, column value: '1970-01-01' is not a number"),
        (np.arange(80).astype("m8[s]"), "row 0, column value: '0 days"),
        (pd.Series(pd.date_range("2020", periods=80)), "no numeric column"),
    ):
        refusal(lambda series=series: small().fit(series, device=cpu), part)


def test_no_steps(fitted, frame):
    for steps in (0, -2, 10**11, 2**70):
        with pytest.raises(ValueError, match=f"steps is {steps}"):
            fitted.forecast(frame, steps)


def test_an_unknown_device(small, frame):
    with pytest.raises(DeviceError, match="device is 'tpu'"):
        small().fit(frame, features=["Volume"], device="tpu")


def test_a_refused_series_leaves_the_forecaster_as_it_was(fitted, frame, cpu):
    expected = fitted.predict(frame)
    with pytest.raises(DataError, match="is constant in all"):
        fitted.fit(np.full((40, 3), 2.0), device=cpu)
    pd.testing.assert_series_equal(fitted.predict(frame), expected)
