from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from gru_xp.errors import DataError
from gru_xp.forecasting.reading.options import MISSING
from gru_xp.forecasting.series import TimeSeries, as_series, check_columns

pytestmark = pytest.mark.compat


@pytest.fixture
def frame(walk):
    """Four columns, one of them text, over trading days."""
    frame = pd.DataFrame(walk(8, 3), columns=["Close", "Volume", "Open"], index=pd.bdate_range("2020-01-02", periods=8))
    frame.insert(1, "Note", "x")
    return frame


# --- arrays -----------------------------------------------------------------------------------------------------


def test_one_column(rng):
    values = rng.standard_normal(7).astype(np.float32).astype(float)
    for data in (values, values.tolist(), tuple(values), values.astype(np.float32).astype(object)):
        series = as_series(data)
        np.testing.assert_array_equal(series.values, values[:, None])
        assert series.values.dtype == np.float64
        assert (series.columns, series.target, len(series)) == (("value",), "value", 7)
        assert series.labels is series.dates is None


def test_whole_numbers_become_floats():
    for data in ([1, 2, 4], pd.Series([1, 2, 4], dtype="Int64")):
        series = as_series(data)
        assert series.values.dtype == np.float64
        np.testing.assert_array_equal(series.values[:, 0], [1.0, 2.0, 4.0])


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
def test_what_is_no_series(refusal):
    for data, *parts in (
        (np.ones(()), "shape ()", "(N,) or (N, F)"),
        (np.ones((2, 2, 2)), "shape (2, 2, 2)", "(N,) or (N, F)"),
        *(([],), (np.empty((0, 2)),), (np.empty((3, 0)),), (pd.Series([], dtype=float),)),
        (["a", "b"], "numbers"),
        ([object()], "numbers"),
        (pd.Series(["x", "y"]), "numbers"),
        (pd.Series([1, "y"]), "numbers"),
        ([[1.0, 2.0], [3.0]],),
        (np.array([1.0 + 2.0j, 3.0]),),
        (pd.Series([1, None, 5], dtype="Int64"), "row 1"),
        (pd.Series([1.0, 2.0], index=pd.DatetimeIndex(["2020-01-01", pd.NaT])), "row 1"),
        (pd.DataFrame(np.ones((4, 2)), columns=["a", "a"]), "'a'"),
    ):
        refusal(lambda data=data: as_series(data), *parts)


def test_matrix(rng):
    values = rng.standard_normal((6, 3))
    series = as_series(values)
    np.testing.assert_array_equal(series.values, values)
    assert series.columns == ("column 0", "column 1", "column 2")


def test_values_that_are_not_finite(rng, refusal):
    for value, problem in ((np.nan, "the value is missing"), (np.inf, ": inf "), (-np.inf, ": -inf ")):
        for row, column in ((0, 0), (3, 1), (5, 2)):
            values = rng.standard_normal((6, 3))
            values[row, column] = value
            for data, name in (
                (values, f"column {column}"),
                (pd.DataFrame(values, columns=["a", "b", "c"]), "abc"[column]),
                (pd.Series(values[:, column], name="level"), "level"),
            ):
                refusal(lambda data=data: as_series(data), f"row {row}, column {name}: ", problem)


def with_gaps(make):
    """A series of three columns over five days, from an array with gaps."""
    nan = np.nan
    values = np.array([[1, nan, 7], [2, 5, 8], [nan, nan, 9], [4, 6, 10], [5, 6, 11]])
    return make(pd.DataFrame(values, columns=["a", "b", "c"], index=pd.date_range("2020-01-01", periods=5)))


MAKERS = {
    "array": lambda frame: frame.to_numpy(),
    "list": lambda frame: frame.to_numpy().tolist(),
    "frame": lambda frame: frame,
    "nullable": lambda frame: frame.convert_dtypes(),
    "objects": lambda frame: frame.astype(object).where(frame.notna(), None),
}


@pytest.mark.parametrize(
    ("how", "rows", "expected"),
    [
        ("drop", [1, 3, 4], [[2, 5, 8], [4, 6, 10], [5, 6, 11]]),
        ("ffill", [1, 2, 3, 4], [[2, 5, 8], [2, 5, 9], [4, 6, 10], [5, 6, 11]]),
        ("interpolate", range(5), [[1, 5, 7], [2, 5, 8], [3, 5.5, 9], [4, 6, 10], [5, 6, 11]]),
        ("mask", range(5), [[1, 5, 7], [2, 5, 8], [2, 5, 9], [4, 6, 10], [5, 6, 11]]),
    ],
)
def test_missing_values(how, rows, expected):
    for kind, make in MAKERS.items():
        data = with_gaps(make)
        series = as_series(data, ["a", "b", "c"], missing=how)
        assert series.values.tolist() == expected, kind
        where = "row 0, column b" if hasattr(data, "columns") else "row 0, column column 1"
        assert series.missing == {"how": how, "values": 3, "first": where}, kind
        (notice,) = series.notices
        assert notice.startswith("3 missing values"), kind
        assert where in notice, kind
        if hasattr(data, "columns"):
            assert [date.day - 1 for date in series.dates] == list(rows), kind
            assert series.labels == tuple(f"2020-01-0{row + 1}" for row in rows), kind
        assert (series.observed is None) == (how != "mask"), kind
        if how == "mask":
            assert series.observed.tolist() == [[1, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1], [1, 1, 1]], kind


def test_nothing_is_missing(walk):
    for how in MISSING:
        series = as_series(walk(5, 2), missing=how)
        assert (series.missing, series.observed, series.notices) == (None, None, ())
    with pytest.raises(ValueError, match="missing is 'pad'; it must be one of 'refuse', 'drop'"):
        as_series(walk(5), missing="pad")


def test_missing_values_are_counted(refusal):
    for make in MAKERS.values():
        data = with_gaps(make)
        refusal(lambda data=data: as_series(data, ["a", "b", "c"]), "row 0, column ", "missing", "3 missing values")


def test_marks_go_with_rows_and_columns():
    series = as_series(with_gaps(MAKERS["frame"]), missing="mask")
    head = series.head(3)
    np.testing.assert_array_equal(head.observed, series.observed[:3])
    taken = as_series(series, ["b", "a"])
    np.testing.assert_array_equal(taken.observed, series.observed[:, [1, 0]])
    assert head.missing == taken.missing == series.missing


# --- pandas -----------------------------------------------------------------------------------------------------


def test_series_with_dates(walk):
    index = pd.bdate_range("2020-01-02", periods=5, name="Date")
    series = as_series(pd.Series(walk(5)[:, 0], index=index, name="Close"))
    assert series.columns == ("Close",)
    assert series.labels == ("2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07", "2020-01-08")
    assert series.dates == tuple(datetime.fromisoformat(label) for label in series.labels)


def test_series_with_times(walk):
    index = pd.date_range("2020-01-02 09:30", periods=3, freq="15min", tz="America/New_York")
    series = as_series(pd.Series(walk(3)[:, 0], index=index))
    assert series.columns == ("value",)
    assert series.labels == ("2020-01-02T09:30:00", "2020-01-02T09:45:00", "2020-01-02T10:00:00")
    assert series.dates[0] == datetime(2020, 1, 2, 9, 30)


def test_series_of_periods(walk):
    series = as_series(pd.Series(walk(3)[:, 0], index=pd.period_range("2020-11", periods=3, freq="M")))
    assert series.dates == (datetime(2020, 11, 1), datetime(2020, 12, 1), datetime(2021, 1, 1))


def test_series_without_dates(walk):
    for index in (None, [3, 5, 9], ["a", "b", "c"]):
        series = as_series(pd.Series(walk(3)[:, 0], index=index))
        assert series.labels is series.dates is None, index


def test_frame_has_its_numeric_columns_in_order(frame):
    series = as_series(frame)
    assert series.columns == ("Close", "Volume", "Open")
    np.testing.assert_array_equal(series.values, frame[["Close", "Volume", "Open"]].to_numpy())
    assert series.dates[0] == datetime(2020, 1, 2)


def test_columns_of_a_frame_by_name(frame):
    series = as_series(frame, ["Open", "Close"])
    assert series.columns == ("Open", "Close")
    np.testing.assert_array_equal(series.values, frame[["Open", "Close"]].to_numpy())


def test_a_frame_has_the_columns_that_were_learned_from(frame, refusal):
    """Only where these had no name may its one numeric column have any."""
    refusal(lambda: as_series(frame[["Note", "Open"]], ["Close"]), "'Close'", "Note, Open")
    series = as_series(frame[["Note", "Open"]], as_series(np.arange(4.0)).columns)
    np.testing.assert_array_equal(series.values[:, 0], frame["Open"].to_numpy())


def test_frame_with_a_missing_column(frame, refusal):
    refusal(lambda: as_series(frame, ["Close", "High"]), "'High'", "Close, Note, Volume, Open")


def test_frame_with_a_text_column(frame):
    with pytest.raises(DataError, match="does not consist of numbers"):
        as_series(frame, ["Close", "Note"])


def test_frame_without_numbers(frame):
    with pytest.raises(DataError, match="no numeric column"):
        as_series(frame[["Note"]])


def test_frame_with_integer_names(rng):
    values = rng.standard_normal((4, 2))
    series = as_series(pd.DataFrame(values, columns=[10, 20]), ["20", "10"])
    np.testing.assert_array_equal(series.values, values[:, ::-1])


# --- TimeSeries -------------------------------------------------------------------------------------------------


@pytest.fixture
def series(frame):
    return as_series(frame)


def test_a_series_is_taken_as_it_is(series):
    assert as_series(series) is series


def test_columns_of_a_series_by_name(series):
    taken = as_series(series, ["Open", "Close"])
    assert taken.columns == ("Open", "Close")
    np.testing.assert_array_equal(taken.values, series.values[:, [2, 0]])
    assert taken.labels == series.labels
    with pytest.raises(DataError, match="no column 'High'"):
        as_series(series, ["High", "Close"])


def test_a_series_of_one_column_may_call_it_anything(walk):
    one = TimeSeries(walk(5), ("Close",))
    assert as_series(one, ["Open"]) is one


def test_head(series):
    head = series.head(3)
    np.testing.assert_array_equal(head.values, series.values[:3])
    assert (head.labels, head.dates, len(head)) == (series.labels[:3], series.dates[:3], 3)
    assert head.columns == series.columns
    assert as_series(series.values).head(2).dates is None


def test_an_array_must_have_as_many_columns(rng, refusal):
    values = rng.standard_normal((5, 2))
    refusal(lambda: as_series(values, ["a"]), "has 2 ", " a")
    refusal(lambda: as_series(values, ["a", "b", "c"]), "has 2 ", "a, b, c")


def test_check_columns(refusal):
    check_columns(["b"], ["a", "b"])
    refusal(lambda: check_columns(["a", "c"], ["a", "b"]), "'c'", "a, b")
