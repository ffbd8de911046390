import sys
from datetime import date

import numpy as np
import pandas as pd
import pytest

from gru_xp.errors import DataError
from gru_xp.forecasting.reading.csv_file import read_csv
from gru_xp.forecasting.reading.options import ReadOptions


def test_without_pyarrow(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = write(b"PAR1", "prices.parquet")
    with pytest.raises(DataError, match=r'Parquet files need pyarrow; install it by pip install "gru-xp\[parquet\]"'):
        read_csv(path)


@pytest.fixture
def save(tmp_path):
    """``save(frame, name)``: the path of a Parquet file with that table."""
    pytest.importorskip("pyarrow")

    def save(frame, name="prices.parquet"):
        frame.to_parquet(tmp_path / name, engine="pyarrow")
        return tmp_path / name

    return save


@pytest.fixture
def frame(walk):
    index = pd.bdate_range("2020-01-02", periods=8, name="Date")
    return pd.DataFrame(walk(8, 2), columns=["Open", "Close"], index=index)


@pytest.mark.parametrize("name", ["prices.parquet", "prices.pq", "PRICES.PARQUET"])
def test_every_bit_is_read(save, frame, name):
    series = read_csv(save(frame, name), features=["Open"])
    np.testing.assert_array_equal(series.values, frame[["Close", "Open"]])
    assert series.labels == tuple(frame.index.strftime("%Y-%m-%d"))
    assert series.dates == tuple(frame.index.to_pydatetime())
    assert series.notices == ()


@pytest.mark.parametrize(
    "make",
    [
        lambda frame: frame.reset_index(),
        lambda frame: frame.reset_index().assign(Date=[stamp.date() for stamp in frame.index]),
        lambda frame: frame.reset_index().assign(Date=frame.index.strftime("%Y-%m-%d")),
        lambda frame: frame.reset_index().convert_dtypes(),
        lambda frame: frame.reset_index().assign(Close=[repr(value) for value in frame["Close"]]),
        lambda frame: frame.reset_index().iloc[::-1],
        lambda frame: frame.reset_index().iloc[[0, 3, 1, 2, 4, 6, 5, 7]],
    ],
    ids=["column", "dates", "texts", "nullable", "numbers as text", "new to old", "unsorted"],
)
def test_the_same_table_in_other_forms(save, frame, make):
    series = read_csv(save(make(frame)))
    np.testing.assert_array_equal(series.values[:, 0], frame["Close"])
    assert series.dates == tuple(frame.index.to_pydatetime())


def test_times_and_zones(save, frame):
    frame.index = pd.date_range("2020-01-02 09:30", periods=8, freq="15min", tz="America/New_York", name="Time")
    series = read_csv(save(frame))
    assert [str(d) for d in series.dates[:2]] == ["2020-01-02 09:30:00", "2020-01-02 09:45:00"]


def test_whole_numbers_and_the_only_numeric_column(save):
    table = pd.DataFrame({"Year": [1700, 1701, 1702], "Note": ["a", "b", None], "Spots": [5, 11, 16]})
    series = read_csv(save(table))
    assert (series.target, series.labels) == ("Spots", ("1700", "1701", "1702"))
    assert series.values[:, 0].tolist() == [5.0, 11.0, 16.0]


@pytest.mark.parametrize("kind", ["float64", "Float64", "object"])
def test_missing_values(save, frame, kind):
    frame["Close"] = frame["Close"].astype(kind)
    frame.iloc[3, 1] = None
    path = save(frame)
    with pytest.raises(DataError, match=r"prices.parquet, row 3, column Close: the value is missing, the only"):
        read_csv(path)
    series = read_csv(path, options=ReadOptions(missing="ffill"))
    assert series.values[3] == series.values[2]
    assert series.missing == {"how": "ffill", "values": 1, "first": "row 3, column Close"}


def test_texts_follow_the_options(save):
    table = pd.DataFrame({"Date": ["01/02/2020", "02/02/2020"], "Close": ["1.234,5", "2"], "Open": [1.5, 2.5]})
    series = read_csv(save(table), features=["Open"], options=ReadOptions(decimal=",", date_format="%d/%m/%Y"))
    assert series.values.tolist() == [[1234.5, 1.5], [2.0, 2.5]]
    assert series.dates[0].date() == date(2020, 2, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Close": np.inf}, "row 0, column Close: 'inf' is too large"),
        ({"Close": True}, "row 0, column Close: 'True' is not a number"),
        ({"Close": "x"}, "row 0, column Close: 'x' is not a number"),
        ({"Date": date(2020, 1, 1)}, "row 1, column Date: '2020-01-01' is in row 0 already"),
    ],
)
def test_refused(save, frame, change, message):
    with pytest.raises(DataError, match=message):
        read_csv(save(frame.reset_index().assign(**change)), "Close")


def test_no_rows(save, frame):
    with pytest.raises(DataError, match="has no rows"):
        read_csv(save(frame.iloc[:0]))


def test_two_columns_of_one_name(save, frame):
    with pytest.raises(DataError, match="two columns are called 'Open'"):
        read_csv(save(frame.rename(columns={"Close": "Open "})))


@pytest.mark.parametrize(
    "index",
    [pd.Index([4, 3]), pd.Index([4, 3], name="index"), pd.MultiIndex.from_tuples([(1, 2), (3, 4)])],
    ids=["without a name", "index", "two"],
)
def test_an_index_beside_a_column_of_that_name(save, index):
    with pytest.raises(DataError, match="two columns are called 'index'; rename one of them"):
        read_csv(save(pd.DataFrame({"index": [5, 6]}, index=index)))


def test_an_index_without_a_name(save):
    series = read_csv(save(pd.DataFrame({"v": [5, 6]}, index=[4, 3])))
    assert (series.target, series.values[:, 0].tolist(), series.labels) == ("v", [6.0, 5.0], ("3", "4"))


@pytest.mark.parametrize(
    "dates",
    [
        pd.period_range("2020-01-01", periods=2, freq="W")[::-1],
        pd.to_timedelta([2, 1], unit="D"),
        np.array(["12000-01-01", "11000-01-01"], "datetime64[s]"),
    ],
    ids=["weeks", "durations", "after the last year"],
)
def test_what_datetime_has_no_place_for(save, dates):
    with pytest.raises(DataError, match=r"row 0, column Date: .* is not read as a date; say how .* rename the column"):
        read_csv(save(pd.DataFrame({"Date": dates, "v": [1, 2]})))


def test_periods_and_nanoseconds(save):
    quarters = pd.period_range("2020Q1", periods=2, freq="Q")
    nanoseconds = np.array(["2020-01-01T00:00:00.000000001", "2020-01-01T00:00:00.000000002"], "datetime64[ns]")
    for dates in (quarters, nanoseconds):
        series = read_csv(save(pd.DataFrame({"Date": dates[::-1], "v": [1, 2]})))
        assert series.values[:, 0].tolist() == [2.0, 1.0]


def test_more_rows_than_its_size_can_hold(save):
    path = save(pd.DataFrame({"Close": np.zeros(20_000_000, dtype=np.int8)}))
    with pytest.raises(DataError, match="says that it holds 20,000,000 numbers, too many for its size"):
        read_csv(path)


def test_damaged_files(save, frame, rng):
    content = save(frame).read_bytes()
    path = save(frame, "damaged.parquet")
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(0, len(content) + 1)] if rng.random() < 0.3 else damaged)
        try:
            read_csv(path)
        except DataError:
            refused += 1
    assert refused > 100


def test_no_such_file(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"cannot be read as Parquet \(No such file"):
        read_csv(tmp_path / "missing.parquet")
