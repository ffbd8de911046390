import pickle

import numpy as np
import pandas as pd
import pytest

from gru_xp import AutoForecaster, Forecaster, ZeroShotForecaster
from gru_xp.errors import ArgumentError, CheckpointError, DataError, DataWarning, NotFittedError
from gru_xp.forecasting import backtest
from gru_xp.forecasting.stages import Hooks
from gru_xp.pretrained import choosing, weights
from gru_xp.pretrained.choosing import Choice, first_judged
from gru_xp.pretrained.features import LEVELS

pytestmark = pytest.mark.compat

SMALL = {"hidden_size": 2, "num_steps": 3}


@pytest.fixture(autouse=True)
def without_weights(monkeypatch):
    """Let the package have no weights, whether it has or not."""
    weights.default_weights.cache_clear()
    monkeypatch.setattr(weights, "WEIGHTS_FILE", "none.safetensors")
    yield
    weights.default_weights.cache_clear()


@pytest.fixture
def oracle(monkeypatch, request):
    """``oracle(truth)``: let the pretrained network forecast these values; its quantiles are apart by 1."""

    def oracle(truth):
        class Oracle(ZeroShotForecaster):
            def _quantiles(self, sought, steps):
                points = np.array([truth[origin : origin + steps] for _, origin in sought])
                return points[:, :, None] + np.arange(-4, 5)

        monkeypatch.setattr(choosing, "ZeroShotForecaster", Oracle)

    return oracle


def autoregression(rng, rows):
    values = np.zeros(rows)
    for row in range(2, rows):
        values[row] = 1.6 * values[row - 1] - 0.9 * values[row - 2] + rng.standard_normal()
    return 40 + 3 * values


# --- which is chosen --------------------------------------------------------------------------------------------


def test_a_random_walk_has_nothing_to_learn(cpu, tmp_path):
    series = np.cumsum(np.random.default_rng(7).standard_normal(700))
    forecaster = AutoForecaster(**SMALL).fit(series, device=cpu)
    assert forecaster.choice == "last value"
    assert forecaster.forecast(series, 3).tolist() == [series[-1]] * 3
    assert forecaster.forecast_distribution(series, 2).columns.tolist() == ["LastValue"]
    forecaster.save(tmp_path / "model")
    assert Forecaster.load(tmp_path / "model", device=cpu).forecast(series, 3).tolist() == [series[-1]] * 3
    np.testing.assert_array_equal(forecaster.forecasts(series, [30, 699], 2), series[[29, 698]][:, None] + np.zeros(2))


def test_a_linear_series_is_for_the_ridge(rng, cpu):
    series = autoregression(rng, 600)
    forecaster = AutoForecaster(**SMALL, horizon=2).fit(series, device=cpu)
    assert forecaster.choice == "ridge"
    expected = Forecaster(model="ridge", horizon=2, guard=False, hidden_size=2).fit(series, device=cpu)
    np.testing.assert_array_equal(forecaster.forecast(series, 5), expected.forecast(series, 5))


def test_a_season_is_for_the_naive_forecast_or_the_ridge(rng, cpu):
    month = np.arange(240)
    series = 9 * np.sin(month * np.pi / 6) + 4 * np.cos(month * np.pi / 2) + 0.5 * rng.standard_normal(240)
    forecaster = AutoForecaster(**SMALL, horizon=6, season=12).fit(series, device=cpu)
    assert forecaster.choice in ("seasonal naive", "ridge")
    assert max(forecaster.errors["ridge"], forecaster.errors["seasonal naive"]) < 0.2 * forecaster.errors["last value"]


def test_what_no_line_fits_is_for_the_gru(cpu):
    """The logistic map, whose next value follows from the last one by a parabola."""
    values = [0.3]
    for _ in range(599):
        values.append(3.8 * values[-1] * (1 - values[-1]))
    series = np.array(values)
    settings = {"hidden_size": 16, "seq_length": 8, "season": "none", "num_steps": 120}
    forecaster = AutoForecaster(**settings).fit(series, device=cpu)
    assert forecaster.choice == "GRU"
    expected = Forecaster(**settings, guard=False).fit(series, device=cpu)
    np.testing.assert_array_equal(forecaster.forecast(series, 4), expected.forecast(series, 4))
    before = Forecaster(**settings, guard=False).fit(series[:480], device=cpu)
    errors = np.abs(before.forecasts(series, range(480, 600), 1)[:, 0] - series[480:])
    assert forecaster.errors["GRU"] == pytest.approx(errors.mean())


def test_zero_shot_forecasts_that_come_true_are_chosen(rng, cpu, weights, oracle):
    series = np.cumsum(rng.standard_normal(130))
    oracle(np.concatenate([series, np.arange(50.0)]))
    forecaster = AutoForecaster(**SMALL, horizon=4, weights=weights).fit(series, device=cpu)
    assert (forecaster.choice, forecaster.errors["zero-shot"]) == ("zero-shot", 0.0)
    assert forecaster.forecast(series, 3).tolist() == [0.0, 1.0, 2.0]
    named = forecaster.forecast_distributions(series, [100, 130], 2)
    assert list(named)[:2] == ["ZeroShot", "ZeroShot-lo-80"]
    assert len(named) == 1 + len(LEVELS)
    np.testing.assert_array_equal(named["ZeroShot"], [series[100:102], [0.0, 1.0]])
    assert forecaster.forecast_distribution(series, 2)["ZeroShot-hi-80"].tolist() == [4.0, 5.0]
    with pytest.raises(DataError, match="zero-shot is chosen"):
        forecaster.save("model")


def test_the_network_is_compared_where_there_are_weights(rng, cpu, weights):
    series = autoregression(rng, 150)
    assert "zero-shot" not in AutoForecaster(**SMALL).fit(series, device=cpu).errors
    forecaster = AutoForecaster(**SMALL, weights=weights).fit(series, device=cpu)
    first = first_judged(150, 1)
    forecasts = ZeroShotForecaster(weights=weights, device=cpu).forecasts(series, range(first, 150), 1)[:, 0]
    assert forecaster.errors["zero-shot"] == pytest.approx(np.abs(forecasts - series[first:]).mean())
    assert choosing.zero_shot_for(511, weights, cpu).season == 511
    assert choosing.zero_shot_for(512, weights, cpu) is None


# --- how it is chosen -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "horizon", "first"),
    [(1000, 1, 800), (600, 20, 480), (300, 1, 200), (300, 20, 181), (120, 5, 60), (9, 2, 4)],
)
def test_rows_that_decide(rows, horizon, first):
    assert first_judged(rows, horizon) == first


def test_errors_are_those_of_the_last_rows(rng, cpu):
    series = autoregression(rng, 600)
    errors = AutoForecaster(**SMALL, horizon=3, season="none", seq_length=9).fit(series, device=cpu).errors
    origins = np.arange(480, 598)
    actual = series[origins[:, None] + np.arange(3)]
    expected = {"last value": series[origins - 1][:, None], "mean": series[:480].mean()}
    ridge = Forecaster(model="ridge", horizon=3, season="none", seq_length=9, guard=False, hidden_size=2)
    expected["ridge"] = ridge.fit(series[:480], device=cpu).forecasts(series, origins.tolist(), 3)
    for name, forecasts in expected.items():
        assert errors[name] == pytest.approx(np.abs(forecasts - actual).mean()), name
    assert set(errors) == {"last value", "mean", "drift", "ridge", "GRU"}


@pytest.mark.parametrize(
    ("windows", "errors", "name"),
    [
        (100, {}, "last value"),
        (100, {"mean": 9.99}, "mean"),
        (100, {"drift": 9.9, "seasonal naive": 9.8}, "seasonal naive"),
        (100, {"ridge": 9.95}, "last value"),
        (100, {"ridge": 9.89}, "ridge"),
        (100, {"ridge": 9.89, "mean": 9.9}, "mean"),
        (100, {"ridge": 8.0, "GRU": 7.95}, "ridge"),
        (100, {"ridge": 8.0, "GRU": 7.9}, "GRU"),
        (100, {"ridge": 8.0, "GRU": 7.98, "zero-shot": 7.95}, "ridge"),
        (100, {"ridge": 8.0, "GRU": 7.86, "zero-shot": 7.9}, "zero-shot"),
        (100, {"ridge": 9.95, "GRU": 9.9}, "GRU"),
        (36, {"ridge": 9.4}, "ridge"),
        (36, {"GRU": 9.6}, "last value"),
        (36, {"zero-shot": 9.6}, "zero-shot"),
        (36, {"zero-shot": 9.95}, "last value"),
        (9, {"GRU": 9.1}, "last value"),
        (9, {"GRU": 8.9}, "GRU"),
        (99, {"mean": 8.5}, "last value"),
        (99, {"mean": 8.3}, "mean"),
        (99, {"seasonal naive": 9.9}, "seasonal naive"),
    ],
)
def test_better_is_not_enough(windows, errors, name):
    """For one step ahead; in 36 windows, models must be 5 % better, and in 9 windows 10 %."""
    naive = {"last value": 10.0, "mean": 12.0, "drift": 11.0}
    choice = Choice.by_errors(naive | errors, windows, 50, 1)
    assert choice.name == name
    assert choice.without_zero_shot(1).name == (
        name if name != "zero-shot" else "GRU" if "GRU" in errors else "last value"
    )


def test_no_error_at_all_is_not_better(cpu):
    assert Choice.by_errors(dict.fromkeys(("last value", "mean", "drift", "ridge"), 0.0), 100, 100, 1).name != "ridge"


def test_the_reason_has_names_and_numbers(rng, cpu):
    forecaster = AutoForecaster(**SMALL).fit(autoregression(rng, 600), device=cpu)
    named = [name for name in forecaster.errors if name in ("ridge", "GRU")]
    naive = min((error, name) for name, error in forecaster.errors.items() if name not in named)[1]
    for name in (*named, naive):
        assert f"{name} {forecaster.errors[name]:.4g}" in forecaster.reason
    assert forecaster.reason.startswith("ridge ")
    assert "120 forecasts" in forecaster.reason
    choice = Choice.by_errors({"last value": 10.0, "mean": 11.0, "drift": 12.0, "ridge": 9.8}, 16, 20, 4)
    assert choice.reason.startswith("last value ")
    assert "15%" in choice.reason


def test_few_rows_decide_nothing(cpu, weights):
    series = np.array([3.0, 5.0, 4.0, 6.0, 1.0, 2.0])
    for given, name in ((None, "last value"), (weights, "zero-shot")):
        forecaster = AutoForecaster(**SMALL, horizon=4, weights=given).fit(series, device=cpu)
        assert (forecaster.choice, forecaster.errors) == (name, {})
        assert "too few" in forecaster.reason
        assert len(forecaster.forecast(series, 4)) == 4
    with pytest.raises(DataError, match="too few"):
        AutoForecaster(**SMALL, horizon=4).fit(series[:4], device=cpu)


def test_a_training_that_is_stopped_is_not_compared(rng, cpu):
    stages = []

    def stop(stage):
        stages.append(stage.name)
        return Hooks(callback=lambda record: True)

    forecaster = AutoForecaster(**SMALL).fit(autoregression(rng, 200), device=cpu, on_stage=stop)
    assert "GRU" not in forecaster.errors
    assert stages == ["guard"]


# --- as other forecasters ---------------------------------------------------------------------------------------


def test_tables_and_features(rng, cpu):
    values = autoregression(rng, 300)
    index = pd.date_range("2001-01-01", periods=300, freq="MS")
    frame = pd.DataFrame({"other": rng.standard_normal(300), "sales": values}, index=index)
    forecaster = AutoForecaster(**SMALL, season="none").fit(frame, target="sales", features=["other"], device=cpu)
    forecast = forecaster.forecast(frame, 2)
    assert forecast.index.tolist() == [pd.Timestamp("2026-01-01"), pd.Timestamp("2026-02-01")]
    assert forecast.name == "sales"
    alone = AutoForecaster(**SMALL, season="none").fit(frame["sales"], device=cpu)
    np.testing.assert_allclose(alone.forecast(frame["sales"], 2), forecast)
    with pytest.raises(DataError, match="other"):
        forecaster.forecast(frame[["sales"]], 2)


def test_missing_values(rng, cpu):
    series = autoregression(rng, 260)
    series[[7, 100, 230, 231]] = np.nan
    with pytest.warns(DataWarning):
        forecaster = AutoForecaster(**SMALL).fit(series, device=cpu, missing="mask")
    assert "98 forecasts" in forecaster.reason
    with pytest.warns(DataWarning):
        assert np.isfinite(forecaster.forecast(series, 3)).all()


def test_nothing_looks_ahead(rng, cpu, weights):
    series = autoregression(rng, 200)
    forecaster = AutoForecaster(**SMALL, weights=weights)
    result = forecaster.backtest(series, windows=6, stride=5, refit=3, device=cpu)
    changed = series.copy()
    changed[185:] = rng.standard_normal(15) * 100
    again = forecaster.backtest(changed, windows=6, stride=5, refit=3, device=cpu)
    assert result.origins.tolist() == [174, 179, 184, 189, 194, 199]
    assert result.fallbacks[:3] == again.fallbacks[:3]
    for name in ("auto", "ridge"):
        np.testing.assert_allclose(result.forecasts[name][:3], again.forecasts[name][:3])
        assert not np.allclose(result.forecasts[name][3:], again.forecasts[name][3:])


def test_measures(rng, cpu):
    series = autoregression(rng, 300)
    forecaster = AutoForecaster(**SMALL).fit(series[:250], device=cpu)
    assert np.array_equal(pickle.loads(pickle.dumps(forecaster)).forecast(series, 7), forecaster.forecast(series, 7))
    result = forecaster.evaluate(series, 5, start=250)
    np.testing.assert_array_equal(result.y_pred, forecaster.forecasts(series, result.origins.tolist(), 5))
    assert list(result.points)[:3] == ["auto", "ridge", "last value"]
    assert result.metrics["fallback"] == {backtest.column_name(forecaster.choice): 10}
    assert backtest.model_in_text(result.metrics) == f"auto ({forecaster.choice})"
    assert forecaster.choice in backtest.guard_sentence(result.metrics)
    assert "automatic choice" in backtest.comparison_sentence(result.metrics)
    assert len(forecaster.evaluate(series).origins) == 300 - forecaster.chosen.window_length
    np.testing.assert_array_equal(
        AutoForecaster(**SMALL).backtest(series, 5, windows=10, device=cpu).y_pred, result.y_pred
    )


def test_settings_that_are_refused(weights, tmp_path):
    for settings, named in (
        ({"model": "gru"}, "model"),
        ({"guard": True}, "guard"),
        ({"loss": "gaussian"}, "gaussian"),
        ({"linear_skip": False}, "linear_skip"),
        ({"horizon": 0}, "horizon"),
        ({"season": 1}, "season"),
        ({"hidden_size": 0}, "hidden_size"),
    ):
        with pytest.raises(ArgumentError, match=named):
            AutoForecaster(**settings)
    with pytest.raises(CheckpointError):
        AutoForecaster(weights=tmp_path / "none.safetensors")
    forecaster = AutoForecaster(**SMALL, weights=weights)
    for use in (
        lambda: forecaster.choice,
        lambda: forecaster.chosen,
        lambda: forecaster.save(tmp_path / "model"),
        lambda: forecaster.forecast(np.arange(30.0), 2),
        forecaster.measured,
    ):
        with pytest.raises(NotFittedError, match="fit"):
            use()
    with pytest.raises(ArgumentError, match="split_ratio"):
        forecaster.backtest(np.arange(30.0), split_ratio=2)


# --- workers ----------------------------------------------------------------------------------------------------


def test_workers_choose_the_same(elsewhere, weights, rng, cpu):
    """And train the GRU meanwhile; backtests choose elsewhere, too, and continue from a journal."""
    series = autoregression(rng, 300)
    here, there = (
        AutoForecaster(**SMALL, weights=weights).fit(series, device=cpu, workers=workers)
        for workers in (None, elsewhere)
    )
    assert len(elsewhere.calls) == 4
    assert (there.choice, there.errors) == (here.choice, here.errors)
    assert there.forecast(series, 3).tobytes() == here.forecast(series, 3).tobytes()
    with pytest.raises(ArgumentError, match="on_stage"):
        here.fit(series, on_stage=lambda stage: None, workers=2)


def test_a_backtest_of_choices_continues(elsewhere, weights, rng, cpu, tmp_path, refusal):
    series, journal = autoregression(rng, 200), tmp_path / "choices.journal"
    forecaster = AutoForecaster(**SMALL, weights=weights)
    how = {"steps": 2, "windows": 3, "refit": "always", "device": cpu}
    here = forecaster.backtest(series, **how)
    there = forecaster.backtest(series, **how, workers=elsewhere, journal=journal)
    again = forecaster.backtest(series, **how, workers=elsewhere, journal=journal)
    assert len(elsewhere.calls) == 3
    for result in (there, again):
        assert result.fallbacks == here.fallbacks
        for name, forecast in here.forecasts.items():
            assert result.forecasts[name].tobytes() == forecast.tobytes(), name
    other = AutoForecaster(**SMALL)
    refusal(lambda: other.backtest(series, **how, journal=journal), "weights", error=CheckpointError)
