import sys
from datetime import date

import numpy as np
import pandas as pd
import pytest

from gru_xp.errors import DataError
from gru_xp.forecasting.reading.csv_file import read_csv
from gru_xp.forecasting.reading.options import ReadOptions

pytestmark = pytest.mark.compat


def test_without_pyarrow(write, monkeypatch, refusal):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = write(b"PAR1", "prices.parquet")
    refusal(lambda: read_csv(path), "pyarrow", 'pip install "gru-xp[parquet]"')


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


def test_every_bit_is_read(save, frame):
    for name in ("prices.parquet", "prices.pq", "PRICES.PARQUET"):
        series = read_csv(save(frame, name), features=["Open"])
        np.testing.assert_array_equal(series.values, frame[["Close", "Open"]], err_msg=name)
        assert series.labels == tuple(frame.index.strftime("%Y-%m-%d")), name
        assert series.dates == tuple(frame.index.to_pydatetime()), name
        assert series.notices == (), name


def test_the_same_table_in_other_forms(save, frame):
    table = frame.reset_index()
    for form, other in {
        "column": table,
        "dates": table.assign(Date=[stamp.date() for stamp in frame.index]),
        "texts": table.assign(Date=frame.index.strftime("%Y-%m-%d")),
        "nullable": table.convert_dtypes(),
        "numbers as text": table.assign(Close=[repr(value) for value in frame["Close"]]),
        "new to old": table.iloc[::-1],
        "unsorted": table.iloc[[0, 3, 1, 2, 4, 6, 5, 7]],
    }.items():
        series = read_csv(save(other))
        np.testing.assert_array_equal(series.values[:, 0], frame["Close"], err_msg=form)
        assert series.dates == tuple(frame.index.to_pydatetime()), form


def test_times_and_zones(save, frame):
    frame.index = pd.date_range("2020-01-02 09:30", periods=8, freq="15min", tz="America/New_York", name="Time")
    series = read_csv(save(frame))
    assert [str(d) for d in series.dates[:2]] == ["2020-01-02 09:30:00", "2020-01-02 09:45:00"]


def test_whole_numbers_and_the_only_numeric_column(save):
    table = pd.DataFrame({"Year": [1700, 1701, 1702], "Note": ["a", "b", None], "Spots": [5, 11, 16]})
    series = read_csv(save(table))
    assert (series.target, series.labels) == ("Spots", ("1700", "1701", "1702"))
    assert series.values[:, 0].tolist() == [5.0, 11.0, 16.0]


def test_missing_values(save, frame, refusal):
    frame.iloc[3, 1] = None
    for kind in ("float64", "Float64", "object"):
        path = save(frame.astype({"Close": kind}))
        refusal(lambda path=path: read_csv(path), "prices.parquet, row 3, column Close: ", "missing")
        series = read_csv(path, options=ReadOptions(missing="ffill"))
        assert series.values[3] == series.values[2], kind
        assert series.missing == {"how": "ffill", "values": 1, "first": "row 3, column Close"}, kind


def test_texts_follow_the_options(save):
    table = pd.DataFrame({"Date": ["01/02/2020", "02/02/2020"], "Close": ["1.234,5", "2"], "Open": [1.5, 2.5]})
    series = read_csv(save(table), features=["Open"], options=ReadOptions(decimal=",", date_format="%d/%m/%Y"))
    assert series.values.tolist() == [[1234.5, 1.5], [2.0, 2.5]]
    assert series.dates[0].date() == date(2020, 2, 1)


def test_refused(save, frame, refusal):
    for changes, *parts in (
        ({"Close": np.inf}, "row 0, column Close: 'inf'"),
        ({"Close": True}, "row 0, column Close: 'True'"),
        ({"Close": "x"}, "row 0, column Close: 'x'"),
        ({"Date": date(2020, 1, 1)}, "row 1, column Date: '2020-01-01'", "row 0"),
    ):
        path = save(frame.reset_index().assign(**changes))
        refusal(lambda path=path: read_csv(path, "Close"), *parts)
    for table, *parts in (
        (frame.iloc[:0], "no rows"),
        (frame.rename(columns={"Close": "Open "}), "'Open'"),
    ):
        path = save(table)
        refusal(lambda path=path: read_csv(path), *parts)


def test_an_index_beside_a_column_of_that_name(save, refusal):
    for index in (pd.Index([4, 3]), pd.Index([4, 3], name="index"), pd.MultiIndex.from_tuples([(1, 2), (3, 4)])):
        path = save(pd.DataFrame({"index": [5, 6]}, index=index))
        refusal(lambda path=path: read_csv(path), "'index'", "rename")


def test_an_index_without_a_name(save):
    series = read_csv(save(pd.DataFrame({"v": [5, 6]}, index=[4, 3])))
    assert (series.target, series.values[:, 0].tolist(), series.labels) == ("v", [6.0, 5.0], ("3", "4"))


def test_what_datetime_has_no_place_for(save, refusal):
    for dates in (
        pd.period_range("2020-01-01", periods=2, freq="W")[::-1],
        pd.to_timedelta([2, 1], unit="D"),
        np.array(["12000-01-01", "11000-01-01"], "datetime64[s]"),
    ):
        path = save(pd.DataFrame({"Date": dates, "v": [1, 2]}))
        refusal(lambda path=path: read_csv(path), "row 0, column Date: ", "rename the column")


def test_periods_and_nanoseconds(save):
    quarters = pd.period_range("2020Q1", periods=2, freq="Q")
    nanoseconds = np.array(["2020-01-01T00:00:00.000000001", "2020-01-01T00:00:00.000000002"], "datetime64[ns]")
    for dates in (quarters, nanoseconds):
        series = read_csv(save(pd.DataFrame({"Date": dates[::-1], "v": [1, 2]})))
        assert series.values[:, 0].tolist() == [2.0, 1.0]


def test_more_rows_than_its_size_can_hold(save, refusal):
    path = save(pd.DataFrame({"Close": np.zeros(20_000_000, dtype=np.int8)}))
    refusal(lambda: read_csv(path), "20,000,000")


def test_damaged_files(save, frame, rng):
    content = save(frame).read_bytes()
    path = save(frame, "damaged.parquet")
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(0, len(content) + 1)] if rng.random() < 0.3 else damaged)
        try:
            read_csv(path)
        except DataError:
            refused += 1
    assert refused > 50


def test_no_such_file(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"cannot be read as Parquet \(No such file"):
        read_csv(tmp_path / "missing.parquet")
