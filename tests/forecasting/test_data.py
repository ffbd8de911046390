import numpy as np
import pandas as pd
import pytest

from gru_xp.forecasting.data import series_to_continue, series_to_learn
from gru_xp.io.options import ReadOptions
from gru_xp.io.read import read
from gru_xp.io.series import TimeSeries

pytestmark = pytest.mark.compat


@pytest.fixture
def frame(walk):
    """Four columns, one of them text, over trading days."""
    frame = pd.DataFrame(walk(8, 3), columns=["Close", "Volume", "Open"], index=pd.bdate_range("2020-01-02", periods=8))
    frame.insert(1, "Note", "x")
    return frame


@pytest.fixture
def series(frame):
    return series_to_learn(frame, features="all")


def test_a_series_is_taken_as_it_is(series):
    assert series_to_learn(series) is series


def test_columns_of_a_series_by_name(series, refusal):
    taken = series_to_continue(series, ["Open", "Close"])
    assert taken.columns == ("Open", "Close")
    np.testing.assert_array_equal(taken.values, series.values[:, [2, 0]])
    assert taken.labels == series.labels
    refusal(lambda: series_to_continue(series, ["High", "Close"]), "no column 'High'")


def test_a_series_of_one_column_may_call_it_anything(walk):
    one = TimeSeries(walk(5), ("Close",))
    assert series_to_continue(one, ["Open"]) is one
    named = pd.Series(walk(5)[:, 0], name="Level")
    np.testing.assert_array_equal(series_to_continue(named, ["Open"]).values[:, 0], named)


def test_marks_go_with_columns(walk):
    values = walk(6, 3)
    values[1, 1] = values[4, 0] = np.nan
    series = read(values, None, (), ReadOptions(missing="mask"))
    taken = series_to_continue(series, ["column 1", "column 0"])
    np.testing.assert_array_equal(taken.observed, series.observed[:, [1, 0]])
    assert taken.missing == series.missing


def test_a_frame_has_the_columns_that_were_learned_from(frame, refusal):
    """Only where these had no name may its one numeric column have any."""
    for columns in (["Close"], ["Open", "Close"], ["close"]):
        taken = series_to_continue(frame, columns)
        expected = frame[[name.capitalize() for name in columns]]
        np.testing.assert_array_equal(taken.values, expected)
    others = frame[["Note", "Open"]]
    refusal(lambda: series_to_continue(others, ["Close"]), "'Close'", "Note, Open")
    refusal(lambda: series_to_continue(frame, ["Close", "Note"]), "column Note: 'x'")
    unnamed = series_to_learn(np.arange(4.0)).columns
    np.testing.assert_array_equal(series_to_continue(others, unnamed).values[:, 0], frame["Open"])
    refusal(lambda: series_to_continue(frame, unnamed), "'value'", "Close, Note, Volume, Open")
    refusal(lambda: series_to_continue(frame, ["column 0", "column 1"]), "'column 0'")


def test_an_array_must_have_as_many_columns(rng, refusal):
    values = rng.standard_normal((5, 2))
    refusal(lambda: series_to_continue(values, ["a"]), "has 2 ", " a")
    refusal(lambda: series_to_continue(values, ["a", "b", "c"]), "has 2 ", "a, b, c")
    refusal(lambda: series_to_continue(pd.Series(values[:, 0]), ["a", "b"]), "has 1 ", "a, b")


def test_series_made_by_hand_are_checked(refusal):
    for values, columns, more in (
        (np.arange(4.0), ("a",), {}),
        (np.zeros((4, 2)), ("a",), {}),
        (np.zeros((4, 1), dtype=object), ("a",), {}),
        (np.zeros((4, 1)), ("a",), {"labels": ("x",)}),
    ):
        refusal(lambda v=values, c=columns, m=more: series_to_learn(TimeSeries(v, c, **m)), "TimeSeries", "must be")
