import json
import math

import numpy as np
import pandas as pd
import pytest
from utilsforecast.evaluation import evaluate as evaluate_frame
from utilsforecast.losses import coverage, mae, quantile_loss, rmse
from utilsforecast.plotting import plot_series

from gru_xp import Forecaster
from gru_xp.errors import ArgumentError
from gru_xp.forecasting.backtest import (
    Backtest,
    backtest,
    check_refit,
    column_name,
    comparison_sentence,
    copying_sentence,
    guard_sentence,
    name_in_text,
    roll,
    rolling_origins,
)
from gru_xp.forecasting.evaluation import evaluate
from gru_xp.forecasting.significance import diebold_mariano
from gru_xp.io.read import read_series
from gru_xp.io.series import Reading, TimeSeries
from gru_xp.nn.params import arrays_of

pytestmark = pytest.mark.compat


@pytest.fixture
def frame(rng):
    """90 days with a week's rhythm, and another column."""
    index = pd.date_range("2024-02-01", periods=90, name="Date")
    week = np.tile([5.0, 6.0, 5.0, 7.0, 9.0, 12.0, 11.0], 13)[:90]
    return pd.DataFrame({"Sales": week + rng.standard_normal(90), "Price": rng.standard_normal(90)}, index)


@pytest.fixture
def fit(small, cpu):
    """``fit(rows)``: a small forecaster of them; ``fit.seen`` has the number of rows of each call."""

    def fit(rows):
        fit.seen.append(len(rows))
        return small().fit(rows, device=cpu)

    fit.seen = []
    return fit


def test_origins_roll_up_to_the_end():
    assert rolling_origins(10, 20, 3, 3).tolist() == [11, 14, 17]
    assert rolling_origins(10, 20, 3, 1, windows=2).tolist() == [16, 17]
    assert rolling_origins(10, 20, 3, 1, windows=99).tolist() == list(range(10, 18))
    assert rolling_origins(10, 12, 3, 1).tolist() == []


@pytest.mark.parametrize(("refit", "fits"), [(None, [60]), (2, [60, 70, 80]), (1, [60, 65, 70, 75, 80])])
def test_every_window_is_forecast_from_the_rows_before(frame, small, cpu, fit, refit, fits):
    series = read_series(frame, target="Sales", features=["Price"])
    origins = np.array([60, 65, 70, 75, 80])
    result = backtest(fit, series, origins, 6, 5, refit=refit)
    assert fit.seen == fits
    for row, origin in enumerate(origins):
        rows = max(start for start in fits if start <= origin)
        expected = small().fit(series.head(rows), device=cpu).forecast(series.head(origin), 6)
        np.testing.assert_allclose(result.forecasts["GRU"][row], expected, rtol=1e-6)
        np.testing.assert_allclose(result.forecasts["mean"][row], series.values[:rows, 0].mean(), rtol=1e-12)
        np.testing.assert_array_equal(
            result.forecasts["seasonal naive"][row], series.values[origin - 7 : origin - 1, 0]
        )
    assert (result.season, result.learned, result.horizon) == (7, 60, 6)


@pytest.mark.parametrize("kind", ["week", "noise"])
def test_what_comes_later_changes_nothing(kind, rng, cpu):
    """Bit for bit, whichever row is changed: no choice, no scale, no weight, no forecast of any row of the table."""
    values = rng.standard_normal((620, 2))
    if kind == "week":
        values[:, 0] += np.resize([5.0, 6, 5, 7, 9, 12, 3], 620) + 0.01 * np.arange(620)
    settings = {"num_steps": 5, "hidden_size": 4, "horizon": 5}
    origins = rolling_origins(560, 620, 5, 20)

    def results(values):
        forecasters = []

        def fit(rows):
            forecasters.append(Forecaster(**settings).fit(rows, device=cpu))
            return forecasters[-1]

        series = TimeSeries(values, ("y", "x"), reading=Reading(freq="D"))
        return backtest(fit, series, origins, 5, 20, refit=2), forecasters

    before, fitted = results(values)
    assert [fitted[0].seasons, fitted[0].fallback] == ([(7,), None] if kind == "week" else [(), "mean"])
    assert fitted[0].seq_length == "auto"
    assert before.season == (7 if kind == "week" else 1)
    for row in (origins[0], origins[2] + 1)[: 2 if kind == "week" else 1]:
        changed = values.copy()
        changed[row:] = 1e3 * changed[row:][::-1] ** 2
        after, fitted_after = results(changed)
        assert (after.season, list(after.forecasts)) == (before.season, list(before.forecasts))
        for name, forecast in before.forecasts.items():
            known = origins <= row
            np.testing.assert_array_equal(after.forecasts[name][known], forecast[known], err_msg=f"{name}, {row}")
        for one, other, first in zip(fitted, fitted_after, origins[::2], strict=True):
            if first <= row:
                for name in ("look_back", "seasons", "scaler", "fallback"):
                    assert getattr(one, name) == getattr(other, name), (name, row)
                for array, same in zip(arrays_of(one.params), arrays_of(other.params), strict=True):
                    np.testing.assert_array_equal(array, same)
        assert row > origins[-1] or not np.array_equal(after.forecasts["ridge"], before.forecasts["ridge"])


@pytest.mark.filterwarnings("ignore::gru_xp.errors.DataWarning")
@pytest.mark.parametrize("how", ["interpolate", "mask"])
def test_filled_gaps_say_nothing_of_later_rows(how, frame, small, cpu, tmp_path):
    """Everything is as if the rows from an origin on had not been read, also where gaps end at it."""
    gaps = [(58, 60, 0), (73, 77, 0), (68, 71, 1), (30, 33, 0)] if how == "interpolate" else [(73, 77, 0), (68, 71, 1)]
    for start, stop, column in gaps:
        frame.iloc[start:stop, column] = np.nan
    series, *before = (
        read_series(rows, target="Sales", features=["Price"], missing=how)
        for rows in (frame, *(frame[:origin] for origin in (60, 65, 70, 75, 80)))
    )
    origins = np.array(list(map(len, before)))
    fitted = []

    def fit(rows):
        fitted.append(small(scaling="standard").fit(rows, device=cpu))
        return fitted[-1]

    def mirrored(values, origins, horizon, season):
        return values[origins[:, None] - 1 - np.arange(horizon)]

    result = backtest(fit, series, origins, 6, 5, others={"mirrored": mirrored})
    alone = fit(before[0])
    assert fitted[0].scaler == alone.scaler
    assert fitted[0].look_back == alone.look_back
    for ours, theirs in zip(arrays_of(fitted[0].params), arrays_of(alone.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(result.forecasts["mean"], before[0].values[:, 0].mean())
    predictions = np.asarray(alone.predict(series))
    for row, rows in enumerate(before):
        assert len(rows.values) == origins[row]
        np.testing.assert_array_equal(series.head(origins[row]).values, rows.values)
        expected = np.asarray(alone.forecast(rows, 6))
        np.testing.assert_allclose(result.forecasts["GRU"][row], expected, rtol=1e-6)
        assert predictions[origins[row] - alone.window_length] == pytest.approx(expected[0], rel=1e-6)
        np.testing.assert_array_equal(result.forecasts["last value"][row], rows.values[-1, 0])
        np.testing.assert_array_equal(result.forecasts["seasonal naive"][row], rows.values[-7:-1, 0])
        np.testing.assert_array_equal(result.forecasts["mirrored"][row], rows.values[:-7:-1, 0])


def test_the_ridge_is_that_of_the_training_rows(frame, small, cpu):
    """Fitted anew for each fit, on the model's window length and the target alone; left out without training rows."""
    series = read_series(frame, target="Sales", features=["Price"])
    result = backtest(lambda rows: small().fit(rows, device=cpu), series, np.array([60, 65, 70]), 6, 5, refit=2)
    for row, (origin, rows) in enumerate([(60, 60), (65, 60), (70, 70)]):
        ridge = Forecaster(model="ridge", seq_length=4, season="none", horizon=6, guard=False, dtype="float64")
        ridge.fit(read_series(frame["Sales"][:rows]), device=cpu)
        expected = ridge.forecast(frame["Sales"][:origin], 6)
        np.testing.assert_allclose(result.forecasts["ridge"][row], expected, rtol=1e-12)
    fitted = small().fit(series.head(60), device=cpu)
    assert "ridge" in fitted.evaluate(series, 6, start=60).forecasts
    assert "ridge" not in fitted.evaluate(series, 6).forecasts
    known = fitted.evaluate(series, 6, start=60).forecasts["ridge"]
    others = roll(lambda _: fitted, series, 40, 6, learned=90, training=series.head(60))
    np.testing.assert_array_equal(others.forecasts["ridge"][-5:], known)
    alone = Forecaster(model="ridge", guard=False).fit(series.head(60), device=cpu).evaluate(series, start=60)
    assert list(alone.forecasts) == ["ridge", *alone.baselines]
    assert alone.metrics["model"] == "Ridge"
    assert "The ridge is" in comparison_sentence(alone.metrics)


@pytest.mark.parametrize(("season", "found"), [("auto", 7), (5, 5), ("none", 1)])
def test_a_season_that_is_given_holds_in_the_table(season, found, frame, small, cpu):
    result = small(season=season).backtest(frame["Sales"], device=cpu)
    assert result.season == found
    assert ("seasonal naive" in result.forecasts) == (found > 1)
    if found > 1:
        first = result.origins[0]
        assert result.forecasts["seasonal naive"][0, 0] == frame["Sales"].iloc[first - found]


def test_another_series_has_its_own_seasons_too(frame, small, cpu, rng):
    """Unless a season is given: with that of the training rows alone, a model could seem better than it is."""
    other = TimeSeries((np.sin(np.arange(120) * np.pi / 6) + rng.normal(0, 0.1, 120))[:, None], ("a",))
    fitted = small().fit(frame["Sales"], device=cpu)
    fitted.fallback = "seasonal naive"
    result = fitted.evaluate(other)
    (part,) = evaluate(fitted, other, {"all": slice(None)})
    assert result.season == 12
    assert result.metrics["fallback"] == part.metrics["fallback"] == {"SeasonalNaive7": 116}
    assert result.metrics["best_baseline"] == part.metrics["best_baseline"] == "SeasonalNaive12"
    assert {"SeasonalNaive7", "SeasonalNaive12"} <= part.metrics["models"].keys() == result.metrics["models"].keys()
    short = other.head(6)
    for fallback, named in (("seasonal naive", "LastValue"), ("mean", "TrainingMean")):
        fitted.fallback = fallback
        (part,) = evaluate(fitted, short, {"all": slice(None)})
        assert list(part.metrics["fallback"]) == list(fitted.evaluate(short).metrics["fallback"]) == [named]
        np.testing.assert_array_equal(part.y_pred == short.values[np.array(part.rows) - 1, 0], named == "LastValue")
        assert f"({name_in_text(named)})" in comparison_sentence(part.metrics)
    own, given = fitted.evaluate(frame["Sales"], start=60), small(season=7).fit(frame["Sales"], device=cpu)
    assert own.baselines == given.evaluate(other).baselines == ["last value", "mean", "drift", "seasonal naive"]


def test_a_forecaster_backtests_copies_of_itself(frame, small, cpu):
    forecaster = small(seed=3)
    result = forecaster.backtest(frame, 4, windows=6, refit=2, target="Sales", features=["Price"], device=cpu)
    assert not hasattr(forecaster, "params")
    assert result.origins.tolist() == [66, 70, 74, 78, 82, 86]
    series = read_series(frame, target="Sales", features=["Price"])
    fitted = small(seed=3).fit(series.head(82), device=cpu)
    np.testing.assert_array_equal(result.y_pred[4:], fitted.forecasts(series, [82, 86], 4))
    assert forecaster.backtest(frame["Sales"], device=cpu).origins.tolist() == list(range(63, 90))


def test_a_fitted_forecaster_is_evaluated_as_it_is(frame, small, cpu):
    fitted = small().fit(frame[:60], target="Sales", device=cpu)
    result = fitted.evaluate(frame, 4, start=60)
    assert result.origins.tolist() == [62, 66, 70, 74, 78, 82, 86]
    series = read_series(frame["Sales"])
    np.testing.assert_array_equal(result.y_pred, fitted.forecasts(series, result.origins, 4))
    np.testing.assert_allclose(result.forecasts["mean"], frame["Sales"][:60].mean())
    everything = fitted.evaluate(frame)
    assert everything.origins.tolist() == list(range(4, 90))
    np.testing.assert_allclose(everything.forecasts["mean"], frame["Sales"].mean())


def test_arguments_and_rows_that_do_not_fit(frame, small, cpu, refusal):
    fitted = small().fit(frame["Sales"], device=cpu)
    for wrong in ({"steps": 0}, {"stride": 0}, {"windows": 0}, {"refit": "often"}, {"split_ratio": 1.0}):
        refusal(lambda w=wrong: fitted.backtest(frame["Sales"], **w), next(iter(wrong)), error=ArgumentError)
    refusal(lambda: fitted.evaluate(frame, start=2), "start is 2", error=ArgumentError)
    refusal(lambda: fitted.backtest(frame["Sales"], 50, windows=2), "90 rows", "at least 106")
    refusal(lambda: fitted.evaluate(frame, 50, start=60), "90 rows", "at least 110")
    observed = np.ones((90, 1), dtype=bool)
    observed[80:] = False
    gone = TimeSeries(frame[["Sales"]].to_numpy(), ("Sales",), observed=observed)
    refusal(lambda: fitted.evaluate(gone, start=80), "missing in every row")


def test_other_forecasts_from_the_same_origins(frame, small, cpu, refusal):
    """They get the rows and the season; they are no reference for skill, however good."""
    fitted = small().fit(frame["Sales"][:60], device=cpu)
    series = read_series(frame["Sales"])

    def oracle(values, origins, horizon, season):
        return values[origins[:, None] + np.arange(horizon)] + season / 1000

    result = fitted.evaluate(series, 4, start=60, others={"my oracle": oracle})
    np.testing.assert_allclose(result.forecasts["my oracle"], result.y_true + 0.007)
    assert result.metrics["models"]["MyOracle"]["mae"] == pytest.approx(0.007)
    assert result.metrics["best_baseline"] == fitted.evaluate(series, 4, start=60).metrics["best_baseline"]
    assert "my oracle" in fitted.backtest(series, 4, windows=2, refit=1, others={"my oracle": oracle}).forecasts
    for others, part in (({"Last value": oracle}, "Last value"), ({"a": lambda *_: np.zeros(3)}, r"shape (3,)")):
        refusal(lambda o=others: fitted.evaluate(series, 4, start=60, others=o), part, error=ArgumentError)


# --- metrics and tables -----------------------------------------------------------------------------------------


@pytest.fixture
def result(frame, fit):
    series = read_series(frame["Sales"])
    return backtest(fit, series, rolling_origins(60, 90, 7, 3), 7, 3)


def test_the_frame_is_one_of_utilsforecast(result, frame):
    table = result.to_frame()
    models = ["GRU", "Ridge", "LastValue", "Mean", "Drift", "SeasonalNaive"]
    assert list(table) == ["unique_id", "ds", "cutoff", "y", *models]
    assert len(table) == 8 * 7
    assert (table["unique_id"] == "Sales").all()
    assert (table["cutoff"] < table["ds"]).all()
    np.testing.assert_array_equal(table["y"], frame["Sales"].loc[table["ds"]])
    np.testing.assert_array_equal(table["LastValue"], frame["Sales"].loc[table["cutoff"]])
    assert len(evaluate_frame(table, [mae])) == 8  # a row for each window
    pooled = evaluate_frame(table.drop(columns="cutoff"), [mae, rmse]).set_index("metric")
    for model, measures in result.metrics["models"].items():
        assert measures["mae"] == pytest.approx(pooled.loc["mae", model], rel=1e-12)
        assert measures["rmse"] == pytest.approx(pooled.loc["rmse", model], rel=1e-12)
    known = pd.DataFrame({"unique_id": "Sales", "ds": frame.index, "y": frame["Sales"].to_numpy()})
    last = table[table["cutoff"] == table["cutoff"].max()].drop(columns=["cutoff", "y"])
    (axes,) = plot_series(known, last).axes
    assert len(axes.lines) == 1 + len(models)


def test_quantiles_are_measured_beside_those_of_forecasts_without_training(frame, small, cpu):
    series = read_series(frame["Sales"])
    forecaster = small(loss="quantile", quantiles=(0.1, 0.4, 0.9), horizon=2, linear_skip=True)
    result = backtest(lambda rows: forecaster.fit(rows, device=cpu), series, rolling_origins(60, 90, 3, 3), 3, 3)
    table = result.to_frame().drop(columns="cutoff")
    suffixes = ["", "-lo-80", "-lo-20", "-median", "-hi-80"]
    assert [name for name in table if name.startswith("GRU")] == [f"GRU{suffix}" for suffix in suffixes]
    models = ["GRU", "LastValue", "Mean", "Drift", "SeasonalNaive"]
    assert [name for name in table if name.startswith("Last")] == [f"LastValue{suffix}" for suffix in suffixes]
    measured = evaluate_frame(table, [quantile_loss, coverage], models=models, level=[80]).set_index("metric")
    for model in models:
        measures, errors = result.metrics["models"][model], table["y"] - table[f"{model}-lo-20"]
        losses = [np.maximum(0.4 * errors, -0.6 * errors).mean(), *measured[model].iloc[:2]]
        losses.append((table["y"] - table[f"{model}-median"]).abs().mean() / 2)
        assert measures["pinball"] == pytest.approx(np.mean(losses), rel=1e-12), model
        assert measures["coverage"] == measured.loc["coverage_level80", model], model
        assert measures["expected_coverage"] == 0.8, model
    errors = frame["Sales"].to_numpy()[8:59] - frame["Sales"].to_numpy()[6:57]  # two steps ahead, after a season
    spread = np.quantile(errors, [0.1, 0.5, 0.9])
    second = result.forecasts["last value-hi-80"][:, 1] - result.forecasts["last value"][:, 1]
    np.testing.assert_allclose(second, spread[2] - spread[1])
    assert "pinball" not in result.metrics["models"]["Ridge"]
    assert json.loads(json.dumps(result.metrics)) == result.metrics


def test_rows_without_dates_and_missing_values(rng):
    values = rng.standard_normal((30, 1))
    observed = np.ones((30, 1), dtype=bool)
    observed[[21, 26, 27, 28, 29]] = False
    series = TimeSeries(values, ("a",), observed=observed)
    origins = np.array([20, 23, 26])
    forecasts = {"GRU": rng.standard_normal((3, 4)), "last value": rng.standard_normal((3, 4))}
    result = Backtest(series, origins, 3, forecasts, 20)
    table = result.to_frame()
    assert table["ds"].tolist() == [20, 22, 23, 23, 24, 25]
    assert table["cutoff"].tolist() == [19, 19, 19, 22, 22, 22]
    assert result.metrics["windows"] == 2
    assert result.metrics["models"]["GRU"]["mae"] == pytest.approx((table["GRU"] - table["y"]).abs().mean())


def test_metrics(result):
    metrics = result.metrics
    assert json.loads(json.dumps(metrics)) == metrics
    assert (metrics["windows"], metrics["horizon"], metrics["stride"], metrics["season"]) == (8, 7, 3, 7)
    errors = {name: np.abs(forecast - result.y_true) for name, forecast in result.forecasts.items()}
    best = min(errors.keys() - {"GRU", "ridge"}, key=lambda name: errors[name].mean())
    assert metrics["best_baseline"] == column_name(best)
    assert metrics["skill"] == pytest.approx(1 - errors["GRU"].mean() / errors[best].mean(), rel=1e-12)
    by_step = 1 - errors["GRU"].mean(axis=0) / errors[best].mean(axis=0)
    np.testing.assert_allclose(metrics["skill_by_step"], by_step, rtol=1e-12)
    of_steps = [diebold_mariano(errors["GRU"][:, h], errors[best][:, h], h // 3 + 1) for h in range(7)]
    assert metrics["p_value_by_step"] == [None if tested is None else tested.p_value for tested in of_steps]
    assert metrics["p_values"]["GRU"] == metrics["p_value"]
    tested = diebold_mariano(errors["GRU"].mean(axis=1), errors[best].mean(axis=1), 3)
    assert metrics["p_value"] == tested.p_value
    last = result.series.values[result.origins - 1, :1]
    assert metrics["change"] == pytest.approx(np.abs(result.y_pred - last).mean() / np.abs(result.y_true - last).mean())


def test_errors_that_are_no_numbers(refusal, rng):
    series = TimeSeries(rng.standard_normal((20, 1)), ("a",))
    forecasts = {"GRU": np.full((5, 1), 1e200), "last value": np.ones((5, 1))}
    refusal(lambda: Backtest(series, np.arange(15, 20), 1, forecasts, 15).metrics, "too large")


def mae_of(model, best):
    return {"GRU": {"mae": model}, "SeasonalNaive24": {"mae": best}}


def test_sentences():
    metrics = {"skill": 0.123, "p_value": 0.032, "windows": 40, "best_baseline": "SeasonalNaive24", "change": 0.5}
    metrics |= {"model": "GRU", "fallback": {}}
    for changes, parts in (
        ({}, ["12.3% lower", "seasonal naive (24)", "is significant", "p = 0.032", "40 windows"]),
        ({"p_value": 0.21}, ["GRU is not distinguishable", "12.3% lower", "not significant", "p = 0.21", "40 windows"]),
        ({"p_value": 1e-9}, ["p < 0.001"]),
        ({"skill": -0.05}, ["5.0% higher"]),
        ({"skill": -0.0004, "p_value": 0.6}, ["by less than 0.05%", "not significant"]),
        ({"p_value": None, "windows": 3}, ["3 windows are too few"]),
        ({"p_value": None, "windows": 1}, ["1 window is too little"]),
        ({"skill": None, "models": mae_of(0.0345, 0.0)}, ["no errors", "MAE of the GRU is 0.0345"]),
        ({"skill": None, "models": mae_of(0.0, 0.0)}, ["Neither the GRU nor"]),
        ({"skill": None, "models": mae_of(1.0, None)}, ["too large"]),
        ({"fallback": {"Drift": 40}}, ["MAE of the GRU (drift)"]),
        ({"fallback": {"Drift": 39}}, ["MAE of the GRU is"]),
        ({"model": "ZeroShot"}, ["MAE of the zero-shot forecast is"]),
    ):
        sentence = comparison_sentence({**metrics, **changes})
        assert all(part in sentence for part in parts), sentence
    for change, part in (
        (0.5, "not merely repeat the last value: its forecasts differ from it by 50%"),
        (0.02, "nearly"),
    ):
        assert part in copying_sentence(metrics | {"change": change})
    assert "does not change" in copying_sentence(metrics | {"change": None})
    for chosen, parts in (
        ({"SeasonalNaive24": 40}, ["nothing better", "seasonal naive (24) forecast", "GRU (seasonal naive (24))"]),
        ({"Drift": 9, "LastValue": 3}, ["In 12 of 40 windows", "drift in 9", "last value in 3"]),
    ):
        assert all(part in guard_sentence(metrics | {"fallback": chosen}) for part in parts)
    assert guard_sentence(metrics) is None
    assert copying_sentence(metrics | {"fallback": {"Drift": 9, "LastValue": 31}}) is None


@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1.0, -1e6), (1e100, 0.0)])
def test_errors_of_rounding_are_none(unit, offset, rng):
    """A forecast that a formula repeats has no errors, so no model has a share of them."""
    t = np.arange(300)
    values = offset + unit * np.sin(2 * np.pi * t / 12)
    series, origins = TimeSeries(values[:, None], ("a",)), np.arange(210, 300)
    naive = np.nextafter(values[origins - 12][:, None], np.inf)
    forecasts = {"GRU": naive + 1e-6 * unit * rng.standard_normal((90, 1)), "seasonal naive": naive}
    metrics = Backtest(series, origins, 1, forecasts, 210, 12).metrics
    assert [metrics[name] for name in ("skill", "p_value")] == [None, None]
    ours, best = (metrics["models"][name] for name in ("GRU", "SeasonalNaive"))
    assert [ours["mase"], ours["rmsse"], best["mae"]] == [None, None, 0.0]
    assert ours["mae"] == pytest.approx(0.8e-6 * unit, rel=0.2)
    assert f"MAE of the GRU is {ours['mae']:.3g}" in comparison_sentence(metrics)


@pytest.mark.parametrize("columns", [1, 3])
def test_a_model_that_forecasts_a_baseline_has_no_skill(columns, rng, cpu):
    """Be it to the last bit, as the mean that the guard chooses, or but for rounding."""
    values = 1e4 + rng.standard_normal((403, columns))
    fitted = Forecaster(model="ridge", seq_length=7, season="none").fit(values[:301], device=cpu)
    fitted.fallback = "mean"
    result = fitted.evaluate(values, start=301)
    np.testing.assert_array_equal(result.y_pred, result.forecasts["mean"])
    rounded = np.nextafter(result.y_pred, rng.choice([-np.inf, np.inf], result.y_pred.shape))
    for forecast in (result.y_pred, rounded):
        forecasts = {"ridge": forecast, "mean": result.forecasts["mean"]}
        metrics = Backtest(result.series, result.origins, 1, forecasts, 301).metrics
        assert [metrics[name] for name in ("skill", "p_value", "skill_by_step")] == [0.0, None, [0.0]]
        assert "forecasts what" in comparison_sentence(metrics)


def test_few_rows_without_structure_claim_no_skill(cpu):
    """Guard and test of significance err, but not by much."""
    for seed in range(4):
        noise = np.random.default_rng(seed).standard_normal(250)
        for values in (noise, noise.cumsum()):
            fitted = Forecaster(model="ridge").fit(values[:175], device=cpu)
            metrics = fitted.evaluate(values, start=175).metrics
            sentence = comparison_sentence(metrics)
            assert "not distinguishable" in sentence or metrics["skill"] <= 0.03, sentence


def test_names():
    for text, column in (
        ("last value", "LastValue"),
        ("seasonal naive (168)", "SeasonalNaive168"),
        ("GRU", "GRU"),
        ("ridge", "Ridge"),
        ("zero-shot", "ZeroShot"),
        ("AutoETS", "AutoETS"),
        ("last value-lo-80", "LastValue-lo-80"),
        ("zero-shot-median", "ZeroShot-median"),
    ):
        assert column_name(text) == column
        assert name_in_text(column) == text


def test_refit():
    assert [check_refit(refit) for refit in ("never", "always", 5)] == [None, 1, 5]
    for wrong in ("sometimes", 0, 2.5):
        with pytest.raises(ArgumentError, match="refit"):
            check_refit(wrong)


# --- no skill where there is none -------------------------------------------------------------------------------


GRU_ALONE = {"scaling": "standard", "linear_skip": False, "guard": False}


@pytest.mark.parametrize(
    ("kind", "settings", "horizon"),
    [
        ("noise", {}, 1),
        ("walk", {}, 5),
        ("walk", GRU_ALONE, 1),
        pytest.param("noise", GRU_ALONE, 5, marks=pytest.mark.slow),
        pytest.param("noise", {}, 5, marks=pytest.mark.slow),
        pytest.param("walk", {}, 1, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_no_skill_where_nothing_can_be_learned(kind, settings, horizon, cpu):
    """At most 3 %, one step ahead and several; of the recipe, and of a GRU on its own."""
    noise = np.random.default_rng(horizon // 5).standard_normal((1000, 1))
    series = TimeSeries(noise if kind == "noise" else np.cumsum(noise, axis=0), ("a",))
    forecaster = Forecaster(**settings, horizon=horizon, seed=horizon // 5).fit(series.head(600), device=cpu)
    metrics = forecaster.evaluate(series, start=600).metrics
    assert math.isfinite(metrics["skill"])
    assert metrics["skill"] <= 0.03
