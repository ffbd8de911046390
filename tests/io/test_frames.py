import sys
from datetime import date, datetime

import numpy as np
import pandas as pd
import pytest

from gru_xp.errors import DataError, DataWarning
from gru_xp.io.frames import table_of_frame
from gru_xp.io.options import CHOICES
from gru_xp.io.read import read_series

pytestmark = pytest.mark.compat


@pytest.fixture
def walk(rng):
    """``walk(rows, columns=1)``: random walks, shape ``(rows, columns)``."""

    def walk(rows, columns=1):
        return np.cumsum(rng.standard_normal((rows, columns)), axis=0)

    return walk


@pytest.fixture
def frame(walk):
    """Four columns, one of them text, over trading days."""
    frame = pd.DataFrame(walk(8, 3), columns=["Close", "Volume", "Open"], index=pd.bdate_range("2020-01-02", periods=8))
    frame.insert(1, "Note", "x")
    return frame


# --- tables -------------------------------------------------------------------------------------------------------


def test_an_index_that_only_counts_is_no_column(walk):
    for index, names in (
        (None, ["v"]),
        (pd.RangeIndex(5, 11, 2), ["v"]),
        (pd.RangeIndex(3, 0, -1), ["index", "v"]),
        (pd.RangeIndex(1990, 1993, name="year"), ["year", "v"]),
        (pd.Index([0, 1, 2]), ["index", "v"]),
        (pd.date_range("2020-01-01", periods=3), ["index", "v"]),
        (pd.date_range("2020-01-01", periods=3, name="Date"), ["Date", "v"]),
        (pd.MultiIndex.from_product([["A"], [1, 2, 3]], names=["id", None]), ["id", "level_1", "v"]),
        (pd.MultiIndex.from_product([["A"], [1, 2, 3]], names=["v", "v"]), ["v (index)", "v (index)", "v"]),
    ):
        table = table_of_frame(pd.DataFrame({"v": walk(3)[:, 0]}, index=index))
        assert (table.names, table.index) == (names, len(names) - 1), index
        assert (len(table), table.unit, table.where(1)) == (3, "row", "row 1")


def test_names(walk):
    for columns, names in (
        ([10, 20], ["10", "20"]),
        (pd.Index([10, 2.5], dtype=object), ["10", "2.5"]),
        (["a  b", "c\n"], ["a b", "c"]),
        ([("Close", "AAA"), ("Open", "AAA")], ["Close", "Open"]),
        ([("Close", "AAA"), ("Close", "BBB")], ["AAA", "BBB"]),
        ([("Close", "AAA"), ("Open", "BBB")], ["Close AAA", "Open BBB"]),
    ):
        assert table_of_frame(pd.DataFrame(walk(3, 2), columns=columns)).names == names
    assert table_of_frame(pd.DataFrame(walk(3), columns=[("Close", "AAA")])).names == ["Close"]
    assert table_of_frame(pd.Series(walk(3)[:, 0])).names == ["value"]
    assert table_of_frame(pd.Series(walk(3)[:, 0], name=7)).names == ["7"]


def test_cells(refusal):
    stamps = pd.to_datetime(["2020-01-01", None, "2020-01-03"])
    for cells, texts in (
        ([1.5, None, 3.0], ["1.5", "", "3.0"]),
        (["a", None, "c"], ["a", "", "c"]),
        (stamps, ["2020-01-01", "", "2020-01-03"]),
        (stamps + pd.Timedelta("90min"), ["2020-01-01 01:30:00", "", "2020-01-03 01:30:00"]),
        (stamps.tz_localize("Europe/Paris"), ["2020-01-01 00:00:00+01:00", "", "2020-01-03 00:00:00+01:00"]),
        ([date(2020, 1, 1), None, date(2020, 1, 3)], ["2020-01-01", "", "2020-01-03"]),
    ):
        (column,) = table_of_frame(pd.DataFrame({"v": cells})).columns
        assert list(column.cells) == texts
    (column,) = table_of_frame(pd.DataFrame({"v": [True, False]})).columns
    assert (list(column.cells), column.numbers) == (["True", "False"], None)
    (column,) = table_of_frame(pd.DataFrame({"v": pd.period_range("2020-01", periods=2, freq="M")})).columns
    assert list(column.cells) == ["2020-01", "2020-02"]
    for empty in (pd.DataFrame(), pd.DataFrame({"v": []}), pd.Series([], dtype=float)):
        refusal(lambda empty=empty: table_of_frame(empty), "at least one row and one column")


# --- pandas objects -----------------------------------------------------------------------------------------------


def test_a_series_with_dates(walk):
    index = pd.bdate_range("2020-01-02", periods=5, name="Date")
    series = read_series(pd.Series(walk(5)[:, 0], index=index, name="Close"))
    assert series.columns == ("Close",)
    assert series.labels == ("2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07", "2020-01-08")
    assert series.dates == tuple(datetime.fromisoformat(label) for label in series.labels)
    assert (series.reading.time, series.reading.freq, series.rows.tolist()) == (("Date",), "B", [0, 1, 2, 3, 4])


def test_a_series_with_times(walk):
    index = pd.date_range("2020-01-02 09:30", periods=3, freq="15min", tz="America/New_York")
    series = read_series(pd.Series(walk(3)[:, 0], index=index))
    assert series.columns == ("value",)
    assert series.dates[:2] == (datetime(2020, 1, 2, 9, 30), datetime(2020, 1, 2, 9, 45))


def test_a_series_of_periods(walk):
    series = read_series(pd.Series(walk(3)[:, 0], index=pd.period_range("2020-11", periods=3, freq="M")))
    assert series.dates == (datetime(2020, 11, 1), datetime(2020, 12, 1), datetime(2021, 1, 1))


def test_an_index_that_counts(walk, refusal):
    assert read_series(pd.Series(walk(3)[:, 0], index=[3, 5, 9])).labels == ("3", "5", "9")
    refusal(lambda: read_series(pd.Series(walk(3)[:, 0], index=[3, 9, 5])), "comes after", "time='index'")
    with pytest.warns(DataWarning, match="sorted by index"):
        series = read_series(pd.Series(walk(3)[:, 0], index=[3, 9, 5]), time="index")
    assert (series.labels, series.dates, series.rows.tolist()) == (("3", "5", "9"), None, [0, 2, 1])
    assert read_series(pd.Series(walk(3)[:, 0]), order="oldest-first").labels is None


def test_an_index_of_years(walk):
    series = read_series(pd.Series(walk(5)[:, 0], index=pd.RangeIndex(1990, 1995, name="year")))
    assert (series.reading.time, series.labels[0], series.reading.freq) == (("year",), "1990", "YS-JAN")


def test_columns_of_a_frame_by_name(frame):
    series = read_series(frame, target="Open", features=["Close"])
    assert series.columns == ("Open", "Close")
    np.testing.assert_array_equal(series.values, frame[["Open", "Close"]].to_numpy())
    assert read_series(frame).columns == ("Close",)
    assert read_series(frame, features="all").columns == ("Close", "Volume", "Open")


def test_columns_with_numbers_for_names(rng):
    values = rng.standard_normal((4, 2))
    series = read_series(pd.DataFrame(values, columns=[10, 20]), target=20, features=[10], order="oldest-first")
    np.testing.assert_array_equal(series.values, values[:, ::-1])


def test_frames_that_are_refused(frame, refusal):
    for data, options, *parts in (
        (frame, {"features": ["High"]}, "'High'", "Close, Note, Volume, Open"),
        (frame, {"features": ["Note"]}, "row 0, column Note: 'x'", "not a number"),
        (frame[["Note"]], {}, "no numeric column"),
        (frame[["Open", "Volume"]], {}, "2 numeric columns", "target='NAME'", "Open, Volume"),
        (pd.DataFrame(np.ones((4, 2)), columns=["a", "a"]), {"target": "a"}, "2 columns are named 'a'"),
        (pd.Series(["x", "y"]), {}, "no numeric column"),
        (pd.Series([1, None, 5], dtype="Int64"), {}, "row 1, column value: the value is missing"),
        (pd.Series([1.0, np.inf]), {}, "row 1, column value: 'inf'"),
        (pd.Series([1.0, 2.0], index=pd.DatetimeIndex(["2020-01-01", pd.NaT])), {"time": "index"}, "row 1", "missing"),
    ):
        refusal(lambda data=data, options=options: read_series(data, **options), *parts)


def with_gaps(make):
    """Three columns over five days, from an array with gaps."""
    nan = np.nan
    values = np.array([[1, nan, 7], [2, 5, 8], [nan, nan, 9], [4, 6, 10], [5, 6, 11]])
    return make(pd.DataFrame(values, columns=["a", "b", "c"], index=pd.date_range("2020-01-01", periods=5)))


MAKERS = {
    "array": lambda frame: frame.to_numpy(),
    "list": lambda frame: frame.to_numpy().tolist(),
    "masked array": lambda frame: np.ma.array(frame.fillna(-99.0).to_numpy(), mask=frame.isna().to_numpy()),
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
        columns = {"target": "a", "features": ["b", "c"]} if hasattr(data, "columns") else {}
        with pytest.warns(DataWarning, match="3 missing values") as warned:
            series = read_series(data, **columns, missing=how)
        assert [str(each.message) for each in warned] == list(series.notices), kind
        assert warned[0].filename == __file__, kind
        assert series.values.tolist() == expected, kind
        where = "row 0, column b" if columns else "row 0, column column 1"
        assert series.missing == {"how": how, "values": 3, "first": where}, kind
        assert series.rows.tolist() == list(rows), kind
        if columns:
            assert [date.day - 1 for date in series.dates] == list(rows), kind
            assert series.labels == tuple(f"2020-01-0{row + 1}" for row in rows), kind
        assert (series.observed is None) == (how != "mask"), kind
        if how == "mask":
            assert series.observed.tolist() == [[1, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1], [1, 1, 1]], kind


def test_missing_values_are_counted(refusal):
    for make in MAKERS.values():
        data = with_gaps(make)
        columns = {"target": "a", "features": ["b", "c"]} if hasattr(data, "columns") else {}
        refusal(lambda data=data, columns=columns: read_series(data, **columns), "row 0, column ", "3 missing values")


def test_nothing_is_missing(walk):
    for how in CHOICES["missing"]:
        series = read_series(walk(5, 2), missing=how)
        assert (series.missing, series.interpolated, series.notices) == (None, None, ())
        assert series.observed is None if how != "mask" else series.observed.all()


def test_there_and_back(frame):
    series = read_series(frame, features="all")
    pd.testing.assert_frame_equal(
        series.to_frame(), frame.drop(columns="Note"), check_freq=False, check_names=False, check_index_type=False
    )
    with pytest.warns(DataWarning):
        masked = read_series(with_gaps(MAKERS["frame"]), target="a", features="all", missing="mask")
    assert masked.to_frame().isna().to_numpy().tolist() == (~masked.observed).tolist()
    assert read_series(frame.to_numpy()[:, 0].astype(float)).to_frame().columns.tolist() == ["value"]


def test_head(frame):
    series = read_series(frame, features="all")
    head = series.head(3)
    np.testing.assert_array_equal(head.values, series.values[:3])
    assert (head.labels, head.dates, head.rows.tolist()) == (series.labels[:3], series.dates[:3], [0, 1, 2])
    assert (head.columns, len(head)) == (series.columns, 3)
    assert read_series(series.values).head(2).dates is None


# --- Parquet ------------------------------------------------------------------------------------------------------


def test_without_pyarrow(tmp_path, monkeypatch, refusal):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "prices.parquet"
    path.write_bytes(b"PAR1")
    refusal(lambda: read_series(path), "pyarrow", 'pip install "gru-xp[parquet]"')


@pytest.fixture
def save(tmp_path):
    """``save(frame, name)``: the path of a Parquet file with that table."""
    pytest.importorskip("pyarrow")

    def save(frame, name="prices.parquet"):
        frame.to_parquet(tmp_path / name, engine="pyarrow")
        return tmp_path / name

    return save


@pytest.fixture
def prices(walk):
    index = pd.bdate_range("2020-01-02", periods=8, name="Date")
    return pd.DataFrame(walk(8, 2), columns=["Open", "Close"], index=index)


def test_every_bit_is_read(save, prices):
    for name in ("prices.parquet", "prices.pq", "PRICES.PARQUET"):
        series = read_series(save(prices, name), features=["Open"])
        np.testing.assert_array_equal(series.values, prices[["Close", "Open"]], err_msg=name)
        assert series.labels == tuple(prices.index.strftime("%Y-%m-%d")), name
        assert series.dates == tuple(prices.index.to_pydatetime()), name
        assert series.notices == (), name


@pytest.mark.filterwarnings("ignore::gru_xp.errors.DataWarning")
def test_the_same_table_in_other_forms(save, prices):
    """From a file, or as it is."""
    table = prices.reset_index()
    for form, other in {
        "index": prices,
        "column": table,
        "dates": table.assign(Date=[stamp.date() for stamp in prices.index]),
        "texts": table.assign(Date=prices.index.strftime("%Y-%m-%d")),
        "other texts": table.assign(Date=prices.index.strftime("%b %d, %Y")),
        "an index of texts": prices.set_index(prices.index.strftime("%Y-%m-%d")),
        "nullable": table.convert_dtypes(),
        "numbers as text": table.assign(Close=[repr(value) for value in prices["Close"]]),
        "newest first": table.iloc[::-1],
        "unsorted": table.iloc[[0, 3, 1, 2, 4, 6, 5, 7]],
    }.items():
        for source in (save(other), other):
            series = read_series(source)
            np.testing.assert_array_equal(series.values[:, 0], prices["Close"], err_msg=form)
            assert series.dates == tuple(prices.index.to_pydatetime()), form
            assert other["Close"].iloc[series.rows[0]] == other["Close"].loc[other.index[series.rows[0]]], form


def test_times_and_zones(save, prices):
    prices.index = pd.date_range("2020-01-02 09:30", periods=8, freq="15min", tz="America/New_York", name="Time")
    series = read_series(save(prices))
    assert [str(d) for d in series.dates[:2]] == ["2020-01-02 09:30:00", "2020-01-02 09:45:00"]


def test_whole_numbers_and_the_only_numeric_column(save):
    table = pd.DataFrame({"Year": [1700, 1701, 1702], "Note": ["a", "b", None], "Spots": [5, 11, 16]})
    series = read_series(save(table))
    assert (series.target, series.labels) == ("Spots", ("1700", "1701", "1702"))
    assert series.values[:, 0].tolist() == [5.0, 11.0, 16.0]


def test_missing_values_of_a_parquet_file(save, prices, refusal):
    prices.iloc[3, 1] = None
    for kind in ("float64", "Float64", "object"):
        path = save(prices.astype({"Close": kind}))
        refusal(lambda path=path: read_series(path), "prices.parquet, row 3, column Close: ", "missing")
        with pytest.warns(DataWarning):
            series = read_series(path, missing="ffill")
        assert series.values[3] == series.values[2], kind
        assert series.missing == {"how": "ffill", "values": 1, "first": "row 3, column Close"}, kind


def test_texts_follow_the_options(save):
    table = pd.DataFrame({"Date": ["01/02/2020", "02/02/2020"], "Close": ["1.234,5", "2"], "Open": [1.5, 2.5]})
    series = read_series(save(table), features=["Open"], decimal=",", date_format="%d/%m/%Y")
    assert series.values.tolist() == [[1234.5, 1.5], [2.0, 2.5]]
    assert series.dates[0].date() == date(2020, 2, 1)


def test_truth_is_one_or_zero(save):
    table = pd.DataFrame({"Date": ["2020-01-01", "2020-01-02"], "Close": [1.5, 2.5], "Holiday": [True, False]})
    for source in (save(table), table):
        assert read_series(source, features=["Holiday"]).values.tolist() == [[1.5, 1.0], [2.5, 0.0]]


def test_parquet_files_that_are_refused(save, prices, refusal):
    for changes, *parts in (
        ({"Close": np.inf}, "row 0, column Close: 'inf'"),
        ({"Close": "x"}, "row 0, column Close: 'x'"),
        ({"Date": date(2020, 1, 1)}, "row 1, column Date: '2020-01-01'", "row 0"),
    ):
        path = save(prices.reset_index().assign(**changes))
        refusal(lambda path=path: read_series(path, target="Close"), *parts)
    path = save(prices.iloc[:0])
    refusal(lambda: read_series(path), "at least one row")


def test_an_index_beside_a_column_of_that_name(save):
    for name, time in ((None, "level_0"), ("index", "index (index)")):
        path = save(pd.DataFrame({"index": [5, 6]}, index=pd.Index([3, 4], name=name)))
        assert read_series(path, target="index", time=time).values[:, 0].tolist() == [5.0, 6.0]


@pytest.mark.filterwarnings("ignore::gru_xp.errors.DataWarning")
def test_an_index_without_a_name(save):
    """Numbers that fall are sorted where they are an index by name, and refused where they only may be one."""
    table = pd.DataFrame({"v": [5, 6, 8]}, index=[4, 3, 2])
    for source in (save(table), table):
        try:
            series = read_series(source)
        except DataError as error:
            assert "falls" in str(error)  # noqa: PT017 (both ways are right)
        else:
            assert series.values[:, 0].tolist() == [8.0, 6.0, 5.0]


def test_what_datetime_has_no_place_for(save, refusal):
    for dates in (
        pd.to_timedelta([2, 1], unit="D"),
        np.array(["12000-01-01", "11000-01-01"], "datetime64[s]"),
    ):
        path = save(pd.DataFrame({"Date": dates, "v": [1, 2]}))
        refusal(lambda path=path: read_series(path), "row 0, column Date: ")


@pytest.mark.filterwarnings("ignore::gru_xp.errors.DataWarning")
def test_periods_and_nanoseconds(save):
    quarters = pd.period_range("2020Q1", periods=2, freq="Q")
    nanoseconds = np.array(["2020-01-01T00:00:00.000000001", "2020-01-01T00:00:00.000000002"], "datetime64[ns]")
    for dates in (quarters, nanoseconds):
        series = read_series(save(pd.DataFrame({"Date": dates[::-1], "v": [1, 2]})))
        assert series.values[:, 0].tolist() == [2.0, 1.0]


def test_more_rows_than_its_size_can_hold(save, refusal):
    path = save(pd.DataFrame({"Close": np.zeros(20_000_000, dtype=np.int8)}))
    refusal(lambda: read_series(path), "20,000,000")


@pytest.mark.filterwarnings("ignore::gru_xp.errors.DataWarning")
def test_damaged_files(save, prices, rng):
    content = save(prices).read_bytes()
    path = save(prices, "damaged.parquet")
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(0, len(content) + 1)] if rng.random() < 0.3 else damaged)
        try:
            read_series(path)
        except DataError:
            refused += 1
    assert refused > 50


def test_no_such_file(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"cannot be read as Parquet \(No such file"):
        read_series(tmp_path / "missing.parquet")
