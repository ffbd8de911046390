import numpy as np
import pytest

from gru_xp.forecasting.backtest import copying_sentence
from gru_xp.forecasting.evaluation import evaluate
from gru_xp.forecasting.metrics import accuracy
from gru_xp.io.series import TimeSeries


@pytest.fixture
def series(walk):
    return TimeSeries(walk(70, 2), ("a", "b"))


@pytest.fixture
def forecaster(small, series, cpu):
    return small(dtype="float64").fit(series, device=cpu)


def test_each_row_is_predicted_from_the_values_before_it(forecaster, series):
    parts = {"middle": slice(33, 45), "end": slice(58, 70)}
    evaluated = evaluate(forecaster, series, parts, learned=45)
    assert [part.name for part in evaluated] == ["middle", "end"]
    for part, (start, stop) in zip(evaluated, [(33, 45), (58, 70)], strict=True):
        assert part.rows == list(range(start, stop))
        np.testing.assert_array_equal(part.y_true, series.values[start:stop, 0])
        for y_pred, row in zip(part.y_pred, part.rows, strict=True):
            assert y_pred == pytest.approx(forecaster.forecast(series.head(row), 1)[0], rel=1e-12)
        forecasts = {"GRU": part.y_pred, "LastValue": series.values[start - 1 : stop - 1, 0]}
        forecasts["Mean"] = np.full(stop - start, series.values[:45, 0].mean())
        train, season = series.values[:45, 0], part.metrics["season"]
        expected = accuracy(part.y_true[:, None], {n: f[:, None] for n, f in forecasts.items()}, train, season)
        assert part.metrics["windows"] == stop - start
        for name, measures in expected.items():
            found = {measure: part.metrics["models"][name][measure] for measure in measures}
            assert found == pytest.approx(measures, rel=1e-12), name
            by_step = {"mae": [found["mae"]], "rmse": [found["rmse"]]}
            assert part.metrics["models"][name]["by_step"] == by_step


def test_several_steps_ahead(forecaster, series):
    """In blocks that end with the part; skill is against the best of the forecasts that need no training."""
    (part,) = evaluate(forecaster, series, {"end": slice(44, 70)}, 4, learned=44)
    origins = [46, 50, 54, 58, 62, 66]
    assert part.rows == list(range(46, 70))
    expected = [forecaster.forecast(series.head(origin), 4) for origin in origins]
    np.testing.assert_allclose(part.y_pred, np.ravel(expected), rtol=1e-12)
    metrics = part.metrics
    assert (metrics["windows"], metrics["horizon"], metrics["stride"]) == (6, 4, 4)
    errors = {name: measures["mae"] for name, measures in metrics["models"].items()}
    model = errors.pop("GRU")
    del errors["Ridge"]
    assert set(errors) >= {"LastValue", "Mean", "Drift"}
    best = min(errors, key=errors.__getitem__)
    assert metrics["best_baseline"] == best
    assert part.steps.tolist() == [1, 2, 3, 4] * 6
    assert np.abs(part.y_naive - part.y_true).mean() == pytest.approx(errors[best], rel=1e-12)
    assert metrics["skill"] == pytest.approx(1 - model / min(errors.values()), rel=1e-12)
    by_step = np.abs(part.y_pred - part.y_true).reshape(6, 4).mean(axis=0)
    np.testing.assert_allclose(metrics["models"]["GRU"]["by_step"]["mae"], by_step, rtol=1e-12)


def test_rows_without_a_whole_window_are_left_out(forecaster, series):
    parts = {
        "all": slice(None),
        "start": slice(0, 5),
        "none": slice(0, 4),
        "empty": slice(30, 30),
        "last": slice(-2, None),
    }
    evaluated = {part.name: part for part in evaluate(forecaster, series, parts)}
    assert {name: part.rows for name, part in evaluated.items()} == {
        "all": list(range(4, 70)),
        "start": [4],
        "last": [68, 69],
    }
    np.testing.assert_array_equal(evaluated["all"].y_pred, forecaster.predict(series))


def test_a_forecaster_that_repeats_the_last_value_has_no_skill(forecaster, series):
    for array in forecaster.params.linear:
        array[...] = 0.0
    (part,) = evaluate(forecaster, series, {"all": slice(None)})
    np.testing.assert_array_equal(part.y_pred, series.values[3:-1, 0])
    assert part.metrics["models"]["GRU"] == part.metrics["models"]["LastValue"]
    assert part.metrics["skill"] <= 0.0
    assert part.metrics["change"] == 0.0
    assert "nearly repeats" in copying_sentence(part.metrics)


def test_what_comes_after_a_row_does_not_change_its_prediction(forecaster, series):
    changed = TimeSeries(series.values.copy(), series.columns)
    changed.values[40:] += 1000.0
    (before,), (after,) = (evaluate(forecaster, s, {"all": slice(None)}) for s in (series, changed))
    np.testing.assert_allclose(after.y_pred[: 41 - 4], before.y_pred[: 41 - 4], rtol=1e-12)
    assert (np.abs(after.y_pred[41 - 4 :] - before.y_pred[41 - 4 :]) > 100.0).all()


def test_too_few_rows(forecaster, series, refusal):
    refusal(lambda: evaluate(forecaster, series.head(4), {"all": slice(None)}), "4 rows", "at least 5")


def test_columns_in_another_order(forecaster, series):
    turned = TimeSeries(series.values[:, ::-1], ("b", "a"))
    (expected,), (part,) = (evaluate(forecaster, s, {"all": slice(None)}) for s in (series, turned))
    np.testing.assert_array_equal(part.y_true, expected.y_true)
    assert part.metrics == expected.metrics


def test_errors_begin_with_the_name_of_the_series(forecaster, series, refusal):
    other = TimeSeries(series.values[:, :1], ("c",), name="own.csv")
    refusal(lambda: evaluate(forecaster, other, {"all": slice(None)}), "own.csv: ", "1 column")
