import numpy as np
import pytest

from gru_xp.forecasting.evaluation import evaluate
from gru_xp.forecasting.metrics import compare_with_naive
from gru_xp.forecasting.windows import split_rows
from gru_xp.io.series import TimeSeries


@pytest.fixture
def series(walk):
    return TimeSeries(walk(70, 2), ("a", "b"))


@pytest.fixture
def forecaster(small, series, cpu):
    return small(dtype="float64").fit(series, device=cpu)


def test_each_row_is_held_against_the_value_before_it(forecaster, series):
    parts = {"middle": slice(20, 45), "end": slice(45, 70)}
    evaluated = evaluate(forecaster, series, parts)
    assert [part.name for part in evaluated] == ["middle", "end"]
    for part, (start, stop) in zip(evaluated, [(20, 45), (45, 70)], strict=True):
        assert part.rows == list(range(start, stop))
        np.testing.assert_array_equal(part.y_true, series.values[start:stop, 0])
        for y_pred, row in zip(part.y_pred, part.rows, strict=True):
            assert y_pred == pytest.approx(forecaster.forecast(series.head(row), 1)[0], rel=1e-12)
        y_naive = series.values[start - 1 : stop - 1, 0]
        unit = float(np.std(series.values[: split_rows(70, 4, 1.0, 0.2).train_end, 0]))
        expected = compare_with_naive(part.y_true, part.y_pred, y_naive, unit)
        assert part.metrics["windows"] == stop - start
        for name in ("model", "naive"):
            for measure in ("mse", "rmse", "mae"):
                assert part.metrics[name][measure] == pytest.approx(expected[name][measure], rel=1e-12)
            assert part.metrics[name]["standardised"] == pytest.approx(expected[name]["standardised"], rel=1e-12)
        assert part.metrics["skill"] == pytest.approx(expected["skill"], rel=1e-12)


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
    assert part.metrics["model"] == part.metrics["naive"]
    assert part.metrics["skill"] == 0.0


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


def test_errors_that_are_no_numbers(small, series, cpu, refusal):
    """A model of tiny values and a series of huge ones, both within what may be."""
    values = series.values[:, :1]
    forecaster = small().fit(values * 1e-148, device=cpu)
    huge = TimeSeries(values * 1e140, ("a",), name="own.csv")
    refusal(lambda: evaluate(forecaster, huge, {"all": slice(None)}), "own.csv: ", "all part", "too large")


def test_errors_begin_with_the_name_of_the_series(forecaster, series, refusal):
    other = TimeSeries(series.values[:, :1], ("c",), name="own.csv")
    refusal(lambda: evaluate(forecaster, other, {"all": slice(None)}), "own.csv: ", "1 column")
