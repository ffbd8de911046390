"""Several series: one model of all of them, whose windows never cross from one series to another."""

import numpy as np
import pandas as pd
import pytest

from gru_xp import Forecaster
from gru_xp.errors import CheckpointError, DataError
from gru_xp.forecasting import fitting
from gru_xp.forecasting.baselines import baselines, panel_baselines
from gru_xp.forecasting.data import panel_to_learn
from gru_xp.forecasting.panels import CONSTANT, fit_scaler, layout_of, least_ages, split_panel
from gru_xp.forecasting.scaling import FLOOR, Scaler
from gru_xp.forecasting.windows import Layout, WindowSequences
from gru_xp.interop.onnx import to_onnx

QUICK = {"num_steps": 12, "hidden_size": 4, "horizon": 3, "seq_length": 8, "guard": False}


def draw(rng, rows, scale=1.0):
    return scale * (10 + 3 * np.sin(2 * np.pi * np.arange(rows) / 6 + rng.uniform(0, 6)) + rng.normal(size=rows))


@pytest.fixture
def panel(rng):
    """Of different lengths and sizes; one is shorter than a window, one has a single row, and one is constant."""
    sizes = {"a": (60, 1), "b": (45, 1000), "short": (7, 5), "one": (1, 3)}
    return {name: draw(rng, *size) for name, size in sizes.items()} | {"flat": np.full(30, 4.0)}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def learned(panel):
    return Forecaster(**QUICK).fit(panel, device="cpu")


def of(table, name):
    return table.loc[table.iloc[:, 0] == name].iloc[:, 2].to_numpy()


@pytest.mark.parametrize("settings", [{}, {"scaling": "standard"}, {"loss": "quantile", "guard": True}])
def test_a_panel_of_one_is_that_series(rng, settings):
    series, settings = draw(rng, 90), {**QUICK, **settings}
    alone, one = (Forecaster(**settings).fit(data, device="cpu") for data in (series, {"a": series}))
    expected = alone.forecast_distribution(series, 5)
    found = one.forecast_distribution({"a": series}, 5).drop(columns=["unique_id", "ds"])
    np.testing.assert_array_equal(found, expected)
    assert (one.look_back, one.seasons, one.scaler) == (alone.look_back, alone.seasons, alone.scaler)


def test_no_window_crosses_from_one_series_to_another(panel, monkeypatch):
    """Whatever the values of the other series are."""
    seen = []

    class Seen(WindowSequences):
        def __init__(self, rows, starts, *arguments, **others):
            super().__init__(rows, starts, *arguments, **others)
            seen.append(starts)

    monkeypatch.setattr(fitting, "WindowSequences", Seen)
    Forecaster(**QUICK).fit(panel, device="cpu")
    read = panel_to_learn(panel)
    rows = np.repeat(np.arange(len(read)), read.lengths)
    (starts, *_), L, h = seen, 8, 3
    for start in starts.tolist():
        last, number = start + L - 1, rows[start + L - 1]
        assert (rows[last : last + 1 + h] == number).all()
        is_whole = start >= read.offsets[number]
        assert is_whole or read.lengths[number] < L + h
    counts = np.bincount(rows[starts + L - 1], minlength=5)
    assert counts.tolist() == [60 - 10, 45 - 10, 7 - 3 - 2 + 1, 0, 30 - 10]


def test_the_windows_of_a_batch_are_those_of_their_series(rng):
    """Gathered together, each has the numbers of a window that is gathered of its series alone."""
    parts = [rng.normal(size=(n, 2)).cumsum(0) * size for n, size in ((30, 1), (20, 50), (25, 0.1))]
    rows, offsets = np.concatenate(parts), np.array([0, 30, 50, 75])
    scaler = Scaler("window", (0.0, 0.0), (2.0, 3.0), (1.0, 1.0))
    factors = rng.uniform(0.5, 2, size=(3, 2))
    starts = np.array([40, 3, 60, 31, 12, 50])
    together = WindowSequences(rows, starts, 6, 2, scaler, layout=Layout(offsets, factors), mean_unit=1.3)
    for place, start in enumerate(starts.tolist()):
        number = int(np.searchsorted(offsets, start, side="right")) - 1
        own = Scaler("window", (0.0, 0.0), tuple(factors[number] * (2.0, 3.0)), (1.0, 1.0))
        alone = WindowSequences(parts[number], np.array([start - offsets[number]]), 6, 2, own, mean_unit=1.3)
        x, y, weight = together.gather(np.array([place]))
        expected = alone.gather(np.array([0]))
        np.testing.assert_allclose(x, expected[0], rtol=1e-12)
        np.testing.assert_allclose(y, expected[1], rtol=1e-12)
        np.testing.assert_allclose(weight * factors[number, 0], expected[2], rtol=1e-12)
    runs = np.concatenate([np.arange(5, 15), np.arange(30, 42), np.arange(52, 60)])
    some = WindowSequences(rows, runs, 6, 2, scaler, layout=Layout(offsets, factors))
    x, y, weight = some.gather(np.arange(some.n))
    v = np.concatenate([x[:, :, 0], y], axis=1) * weight
    np.testing.assert_allclose(some.sum_products(), v.T @ v, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["window", "last"])
def test_rows_before_a_series_do_not_count(rng, kind):
    values = rng.normal(size=(9, 1)).cumsum(0)
    rows, layout = np.concatenate([1e6 + values, values]), Layout(np.array([0, 9, 18]), np.ones((2, 1)))
    scaler = Scaler(kind, (0.0,), (2.0,), (1.5,))
    padded = WindowSequences(rows, np.array([7]), 6, 2, scaler, layout=layout, mean_unit=1.0)
    x, y, _ = padded.gather(np.array([0]))
    known = values[:4, 0]
    unit = 1.5 if kind == "last" else known.std() + FLOOR * 2.0
    np.testing.assert_allclose(x[0, :, 0], [0, 0, *((known - known[-1]) / unit)], atol=1e-12)
    np.testing.assert_allclose(y[0], (values[4:6, 0] - known[-1]) / unit, rtol=1e-12)
    assert padded.sum_products() is None


def test_each_series_has_its_own_unit(panel):
    read = panel_to_learn(panel)
    scaler, units = fit_scaler("window", read, read.offsets[1:])
    std = np.array([series.std() for series in panel.values()])
    assert scaler.std[0] == pytest.approx(np.median(std[std > 0]))
    expected = np.where(std > 0, std / scaler.std[0], CONSTANT)
    np.testing.assert_allclose(units.factors[:, 0], expected, rtol=1e-7)
    np.testing.assert_allclose(units.means, [series.mean() for series in panel.values()], rtol=1e-7)
    with pytest.raises(DataError, match=r"constant.* all series"):
        fit_scaler("window", panel_to_learn({"a": np.ones(9), "b": np.full(8, 3.0)}), np.array([9, 17]))


def test_forecasts_of_a_series_do_not_depend_on_the_others(learned, panel):
    """Nor on their order."""
    every = learned.forecast(panel, 4)
    assert every.columns.tolist() == ["unique_id", "ds", "GRU"]
    for name in panel:
        np.testing.assert_allclose(of(learned.forecast({name: panel[name]}, 4), name), of(every, name), rtol=1e-6)
        assert every["ds"][every["unique_id"] == name].tolist() == [len(panel[name]) + step for step in range(4)]
    assert of(every, "flat") == pytest.approx([4.0] * 4, abs=1e-4)
    assert of(every, "one") == pytest.approx([panel["one"][0]] * 4, abs=1e-4)


def test_forecasts_scale_with_their_series(rng, panel):
    """Also of a series that was not learned from, whose unit is that of its rows."""
    learned = Forecaster(**QUICK, dtype="float64").fit(panel, device="cpu")
    new = draw(rng, 40)
    first, second = (learned.forecast({"new": size * new}, 5)["GRU"] for size in (1.0, 1e4))
    np.testing.assert_allclose(second, 1e4 * first, rtol=1e-6)
    np.testing.assert_allclose(learned.forecast(new, 5), first, rtol=1e-12)
    thousandfold = {name: 1e3 * series for name, series in panel.items()}
    again = Forecaster(**QUICK, dtype="float64").fit(thousandfold, device="cpu")
    expected = 1e3 * learned.forecast(panel, 3)["GRU"]
    np.testing.assert_allclose(again.forecast(thousandfold, 3)["GRU"], expected, rtol=1e-4)


def test_no_forecast_depends_on_later_rows(learned, rng):
    new = draw(rng, 40)
    other = np.concatenate([new[:20], 1e3 * new[20:]])
    np.testing.assert_array_equal(learned.forecasts(new, [20], 3), learned.forecasts(other, [20], 3))


def test_a_model_of_several_series_is_saved_and_loaded(learned, panel, tmp_path):
    learned.save(tmp_path / "model.safetensors")
    again = Forecaster.load(tmp_path / "model.safetensors", device="cpu")
    pd.testing.assert_frame_equal(again.forecast(panel, 4), learned.forecast(panel, 4))


@pytest.mark.parametrize("settings", [{}, {"validation_ratio": 0.2, "refit": True, "num_steps": 40}])
def test_a_training_resumes_bit_exactly(panel, settings):
    states = []

    def pause(epoch, batches, state):
        states.append(state())
        return len(states) == 5

    settings = {**QUICK, **settings}
    whole = Forecaster(**settings).fit(panel, device="cpu")
    stopped = Forecaster(**settings).fit(panel, device="cpu", pause=pause)
    resumed = Forecaster.from_description(stopped.describe())
    resumed.selection = stopped.selection
    resumed.fit(panel, device="cpu", state=states[-1])
    pd.testing.assert_frame_equal(resumed.forecast(panel, 3), whole.forecast(panel, 3))


def test_the_guard_judges_all_series_together(rng):
    """Walks are forecast by their last values; no series alone has enough windows to tell."""
    walks = {f"walk {n}": 10.0**n * rng.normal(size=150).cumsum() for n in range(12)}
    settings = {"num_steps": 20, "hidden_size": 4, "seq_length": 8, "season": "none"}
    learned = Forecaster(**settings).fit(walks, device="cpu")
    assert learned.fallback == "last value"
    found = learned.forecast(walks, 2)["GRU"]
    np.testing.assert_array_equal(found, np.repeat([walk[-1] for walk in walks.values()], 2))


def test_baselines_of_a_panel_are_those_of_each_series(rng):
    parts = [rng.normal(size=n) for n in (9, 14, 5)]
    values, offsets = np.concatenate(parts), np.array([0, 9, 23, 28])
    means = np.array([part.mean() for part in parts])
    origins = [np.array([1, 4, 9]), np.array([2, 14]), np.array([5])]
    together = np.concatenate([first + own for first, own in zip(offsets, origins, strict=False)])
    for name, baseline in panel_baselines(offsets, means, (4,)).items():
        alone = [baselines(part, (4,))[name](part, own, 6) for part, own in zip(parts, origins, strict=True)]
        np.testing.assert_array_equal(baseline(values, together, 6), np.concatenate(alone))


def test_each_series_is_split_in_time(panel):
    read = panel_to_learn(panel)
    split = split_panel(read, 0.7, 0.2, 3)
    fit = [42, 31, 5, 1, 21]
    train = [34, 25, 4, 1, 17]
    assert (split.fit_ends - read.offsets[:-1]).tolist() == fit
    assert (split.train_ends - read.offsets[:-1]).tolist() == train
    assert split.train_end == sum(train)
    with pytest.raises(DataError, match="too short"):
        split_panel(panel_to_learn({"a": np.arange(4.0), "b": np.arange(3.0)}), 1.0, 0.0, 4)
    assert least_ages([30, 12, 11, 8, 3, 2], 8, 3).tolist() == [8, 8, 8, 3, 1, 1]


def test_long_tables(rng):
    dates = pd.date_range("2020-01-31", periods=40, freq="ME")
    frames = [
        pd.DataFrame({"unique_id": name, "ds": dates[start:], "y": draw(rng, 40 - start)})
        for name, start in (("b", 0), ("a", 12), ("c", 30))
    ]
    table = pd.concat(frames).sort_values("ds")
    learned = Forecaster(**QUICK).fit(table, device="cpu")
    found = learned.forecast(table, 2)
    assert found["ds"].tolist() == 3 * [pd.Timestamp("2023-05-31"), pd.Timestamp("2023-06-30")]
    by_name = {frame["unique_id"].iloc[0]: frame.set_index("ds")["y"] for frame in frames}
    expected = Forecaster(**QUICK).fit({name: by_name[name] for name in found["unique_id"].unique()}, device="cpu")
    pd.testing.assert_frame_equal(found, expected.forecast({n: by_name[n] for n in found["unique_id"].unique()}, 2))
    stores = table.rename(columns={"unique_id": "Store", "ds": "Month", "y": "Sales"})
    named = Forecaster(**QUICK).fit(stores, id="Store", device="cpu").forecast(stores, 2)
    assert named.columns.tolist() == ["Store", "ds", "GRU"]
    np.testing.assert_array_equal(named["GRU"], found["GRU"])


def test_what_takes_one_series_says_so(learned, panel):
    for call in (learned.predict, lambda data: learned.forecasts(data, [9], 1), learned.evaluate, learned.backtest):
        with pytest.raises(DataError, match="several series"):
            call(panel)
    with pytest.raises(CheckpointError, match="several series"):
        to_onnx(learned)


def test_layout_of_series_that_were_not_learned_from(learned, panel, rng):
    new = draw(rng, 20, 30)
    read = panel_to_learn({"new": new, "a": panel["a"]})
    layout, means = layout_of(learned.units, learned.scaler, read, np.array([15, 80]))
    assert means == pytest.approx([new[:15].mean(), panel["a"].mean()], rel=1e-7)
    assert layout.factors[0, 0] == pytest.approx(new[:15].std() / learned.scaler.std[0], rel=1e-7)
    assert layout.factors[1, 0] == learned.units.factors[0, 0]
