import csv
import math
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from gru_xp.data import bundled_file
from gru_xp.errors import DataError, DataWarning
from gru_xp.io.messages import command_line
from gru_xp.io.options import ReadOptions
from gru_xp.io.read import read, read_panel, read_series

pytestmark = pytest.mark.compat

GOOD = "Date,Open,Close\n2020-01-01,1.5,10\n2020-01-02,2.5,20\n2020-01-03,3.5,30\n"


def values(series):
    return series.values[:, 0].tolist()


@pytest.fixture
def take(write):
    """``take(content, target=None, features=(), **options)``: the series in a file of that content."""

    def take(content, target=None, features=(), **options):
        return read(write(content), target, features, ReadOptions(**options))

    return take


@pytest.fixture
def refuse(write, refusal):
    """``refuse(content, *parts, ...)``: assert that such a file is refused in a line with its path and each part."""

    def refuse(content, *parts, target=None, features=(), **options):
        path = write(content)
        with command_line():
            how = ReadOptions(**options)
            return refusal(lambda: read(path, target, features, how), str(path), *parts)

    return refuse


def closes(labels, header="Date,Close"):
    return header + "\n" + "".join(f"{label},{i}\n" for i, label in enumerate(labels))


# --- arrays -------------------------------------------------------------------------------------------------------


def test_one_column(rng):
    numbers = rng.standard_normal(7).astype(np.float32).astype(float)
    for data in (numbers, numbers.tolist(), tuple(numbers), numbers.astype(np.float32).astype(object)):
        series = read_series(data)
        np.testing.assert_array_equal(series.values, numbers[:, None])
        assert series.values.dtype == np.float64
        assert (series.columns, series.target, len(series)) == (("value",), "value", 7)
        assert series.labels is series.dates is None


def test_whole_numbers_become_floats():
    for data in ([1, 2, 4], pd.Series([1, 2, 4], dtype="Int64")):
        series = read_series(data, order="oldest-first")
        assert series.values.dtype == np.float64
        np.testing.assert_array_equal(series.values[:, 0], [1.0, 2.0, 4.0])


def test_a_matrix(rng):
    numbers = rng.standard_normal((6, 3))
    for data in (numbers, numbers.tolist()):
        series = read_series(data)
        np.testing.assert_array_equal(series.values, numbers)
        assert (series.columns, series.notices) == (("column 0", "column 1", "column 2"), ())


def test_arrays_are_taken_as_they_are():
    """Oldest first, whatever their numbers are."""
    for data in (np.arange(20.0)[::-1], np.repeat(np.arange(5.0), 4), np.arange(40.0).reshape(-1, 2)[::-1]):
        np.testing.assert_array_equal(read_series(data).values, data.reshape(len(data), -1))


def test_a_masked_value_is_missing(refusal):
    masked = np.ma.array([1, 2, -999, 4], mask=[False, False, True, False])
    refusal(lambda: read_series(masked), "row 2", "missing")
    with pytest.warns(DataWarning, match="1 missing value"):
        assert values(read_series(masked, missing="interpolate")) == [1.0, 2.0, 3.0, 4.0]


def test_arrays_that_are_no_series(refusal):
    for data, *parts in (
        (np.ones(()), "shape=()", "(N,) or (N, F)"),
        (np.ones((2, 2, 2)), "shape=(2, 2, 2)", "(N,) or (N, F)"),
        *(([],), (np.empty((0, 2)),), (np.empty((3, 0)),)),
        (["a", "b"], "row 0", "'a'"),
        ([object()], "row 0"),
        ([[1.0, 2.0], [3.0]], "inhomogeneous", "(N,) or (N, F)"),
        (np.array([1.0 + 2.0j, 3.0]), "complex128", "real numbers"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "row 0", "'2020-01-01' is not a number"),
    ):
        refusal(lambda data=data: read_series(data), *parts)


def test_values_that_are_not_finite(rng, refusal):
    for value, problem in ((np.nan, "the value is missing"), (np.inf, "'inf'"), (-np.inf, "'-inf'")):
        for row, column in ((0, 0), (3, 1), (5, 2)):
            numbers = rng.standard_normal((6, 3))
            numbers[row, column] = value
            for data, name, options in (
                (numbers, f"column {column}", {}),
                (
                    pd.DataFrame(numbers, columns=["a", "b", "c"]),
                    "abc"[column],
                    {"target": "a", "features": ["b", "c"]},
                ),
                (pd.Series(numbers[:, column], name="level"), "level", {}),
            ):
                use = lambda data=data, options=options: read_series(data, **options)  # noqa: E731
                refusal(use, f"row {row}, column {name}: ", problem)


# --- the bundled files --------------------------------------------------------------------------------------------


def test_bundled_files():
    for name, target, rows, first, last, freq in (
        ("AAPL.csv", "Close", 3270, "2000-03-01", "2013-03-01", "B"),
        ("GOOG.csv", "Close", 2148, "2004-08-19", "2013-03-01", "B"),
        ("IBM.csv", "Close", 3270, "2000-03-01", "2013-03-01", "B"),
        ("sunspots.csv", "Sunspots", 309, "1700", "2008", "YS-JAN"),
    ):
        series = read_series(bundled_file(name))
        with bundled_file(name).open(newline="") as file:
            expected = list(csv.DictReader(file))
        assert len(series) == len(expected) == rows, name
        assert (series.labels[0], series.labels[-1]) == (first, last), name
        assert (series.reading.freq, series.reading.order) == (freq, "oldest-first"), name
        assert len(series.dates) == rows, name
        assert series.columns == (target,), name
        assert series.notices == (), name
        assert values(series) == [float(row[target]) for row in expected], name
        assert list(series.labels) == [next(iter(row.values())) for row in expected], name


def test_all_columns_of_a_bundled_file():
    names = ["Open", "High", "Low", "Adj Close", "Volume"]
    series = read_series(bundled_file("GOOG.csv"), target="Close", features=names)
    assert series.columns == ("Close", *names)
    assert series.values[0].tolist() == [100.335, 100.01, 104.06, 95.96, 50.32284179174976, 44659000.0]
    assert series.dates[0] == datetime(2004, 8, 19)
    assert set(read_series(bundled_file("GOOG.csv"), features="all").columns) == set(series.columns)


def test_every_bit_of_a_number_is_read(take, rng):
    numbers = rng.standard_normal(300) * 10.0 ** rng.integers(-300, 149, 300)
    numbers[:4] = [0.1 + 0.2, 5e-324, 1.2345678901234567e149, -0.0]
    for form in ("{!r}", "{:.17g}", "{:.16e}"):
        series = take("Close\n" + "".join(form.format(float(number)) + "\n" for number in numbers))
        np.testing.assert_array_equal(series.values[:, 0], numbers)
        assert math.copysign(1.0, series.values[3, 0]) == -1.0


# --- target and features ------------------------------------------------------------------------------------------


def test_the_target_is_close_or_the_only_numeric_column(take):
    assert take(GOOD).target == "Close"
    assert take(GOOD, "Open").target == "Open"
    assert take("Year,Note,Spots\n1700,a,5\n1701,b,6\n").target == "Spots"
    assert take("Spots\n5\n6\n").target == "Spots"


def test_names_are_found_in_any_case(take, refuse):
    assert take(GOOD, "close", ["OPEN"]).columns == ("Close", "Open")
    assert take("a,A\n1,2\n2,3\n", "A").columns == ("A",)
    refuse(GOOD, "'Closed'", "did you mean 'Close'?", target="Closed")
    refuse("Aa,aA\n1,2\n2,3\n", "did you mean 'Aa' or 'aA'?", target="aa")


def test_several_numeric_columns_need_a_choice(refuse):
    content = GOOD.replace("Close", "Last").replace("Open", "First")
    refuse(content, "2 numeric columns", "--target", "First, Last")


def test_no_numeric_column(refuse):
    refuse("Date,Note\n2020-01-01,a\n2020-01-02,b\n", "no numeric column", "Date, Note")


def test_a_column_that_is_not_there(refuse):
    refuse(GOOD, "'High'", "Date, Open, Close", target="High")
    refuse(GOOD, "'High'", "Date, Open, Close", features=["Open", "High"])


def test_features_keep_their_order_and_come_once(take):
    content = "Date,a,b,c\n2020-01-01,1,2,3\n2020-01-02,4,5,6\n"
    series = take(content, "b", ["c", "b", "a", "c"])
    assert series.columns == ("b", "c", "a")
    assert series.values.tolist() == [[2.0, 3.0, 1.0], [5.0, 6.0, 4.0]]
    assert take(content, "b", "all").columns == ("b", "a", "c")
    assert take(content, "b", "c").columns == ("b", "c")


def test_truth_is_one_or_zero(take):
    series = take("Date,Close,Holiday\n2020-01-01,1,True\n2020-01-02,2,false\n", features=["Holiday"])
    assert series.values.tolist() == [[1.0, 1.0], [2.0, 0.0]]


def test_a_bad_value_matters_in_a_column_that_is_used(take, refuse):
    content = GOOD.replace("2.5", "oops")
    assert values(take(content)) == [10.0, 20.0, 30.0]
    refuse(content, "line 3, column Open: 'oops'", features=["Open"])


def test_a_value_that_may_mark_missing_ones(take):
    rows = [*range(20, 60), -200, *range(60, 80), -200, -200]
    content = "CO\n" + "".join(f"{value}\n" for value in rows)
    notice, _ = take(content).notices
    assert all(part in notice for part in ("-200", "3 times", "missing_values='-200'")), notice
    series = take(content, missing_values="-200", missing="drop")
    assert values(series) == [*range(20, 80)]
    assert series.missing["values"] == 3


# --- which column dates the rows ----------------------------------------------------------------------------------


def test_the_date_is_found_by_name_or_by_its_values(take):
    assert take("v,w,Trade date\n1,a,2020-01-01\n2,b,2020-01-02\n").labels == ("2020-01-01", "2020-01-02")
    assert take("v,timestamp\n1,2020-01-01\n2,2020-01-02\n").dates[1] == datetime(2020, 1, 2)
    assert take("when,v\n2020-01-01,1\n2020-01-02,2\n").dates[1] == datetime(2020, 1, 2)


def test_a_column_whose_name_merely_holds_the_word(take):
    for name in ("Sentiment", "Candidates", "Lifetime value", "Updates"):
        series = take(f"Year,{name}\n2000,5\n2001,3\n2002,7\n")
        assert series.columns == (name,)
        assert series.labels == ("2000", "2001", "2002"), name


def test_the_index_that_pandas_writes(take):
    assert values(take(",Close\n0,5\n1,7\n2,6\n")) == [5.0, 7.0, 6.0]
    assert values(take("Unnamed: 0,v\n0,5\n1,7\n", "v")) == [5.0, 7.0]
    assert take(",Close\n0,5\n1,7\n2,6\n").notices == ()


def test_without_dates_that_is_said(take):
    series = take("Close,Volume\n5,1\n7,2\n6,3\n", features=["Volume"])
    assert series.values.tolist() == [[5.0, 1.0], [7.0, 2.0], [6.0, 3.0]]
    assert series.labels is series.dates is None
    (notice,) = series.notices
    assert all(part in notice for part in ("oldest first", "order=")), notice
    assert take("Close,Volume\n5,1\n7,2\n6,3\n", order="oldest-first").notices == ()
    series = take("Close,Volume\n5,1\n7,2\n6,3\n", order="newest-first")
    assert (values(series), series.notices, series.rows.tolist()) == ([6.0, 7.0, 5.0], (), [4, 3, 2])


def test_columns_that_are_named(take, refuse):
    content = "Start,End,v\n2020-01-01,2020-01-05,1\n2020-01-02,2020-01-04,2\n2020-01-03,2020-01-03,3\n"
    assert values(take(content)) == [1.0, 2.0, 3.0]
    assert values(take(content, time="End")) == [3.0, 2.0, 1.0]
    assert take(content, time="end").reading.time == ("End",)
    refuse(content, "'Ende'", "did you mean 'End'?", time="Ende")
    content = "Day,Hour,v\n2020-01-01,1,1\n2020-01-01,0,0\n2020-01-02,0,2\n"
    series = take(content, "v", time=["Day", "Hour"])
    assert (values(series), series.dates[1]) == ([0.0, 1.0, 2.0], datetime(2020, 1, 1, 1))
    content = "Y,M,D,v\n2020,1,31,2\n2020,1,30,1\n2020,2,1,3\n"
    assert values(take(content, "v", time=["Y", "M", "D"])) in ([1.0, 2.0, 3.0],)


def test_a_time_in_several_columns(take, refuse):
    """The times that the columns mean, not numbers of hours such as 100."""
    for header, row, dates in (
        ("YEAR,MO,DY,HR,v", "2020,1,31,0{}00,{}", [datetime(2020, 1, 31, hour) for hour in (1, 2, 3)]),
        ("Date,Hour,Minute,v", "05.01.2020,0,{},{}", [datetime(2020, 1, 5, 0, minute) for minute in (1, 2, 3)]),
        ("Year,Quarter,v", "2020,{},{}", [datetime(2020, month, 1) for month in (1, 4, 7)]),
        ("Year,Quarter,Month,v", "2020,1,{},{}", [datetime(2020, month, 1) for month in (1, 2, 3)]),
    ):
        *names, _ = header.split(",")
        form = "%d.%m.%Y" if "Date" in names else None
        content = "\n".join([header, *(row.format(n, n) for n in (1, 2, 3))])
        times = [name for name in names if (name, "Month" in names) != ("Quarter", True)]
        refuse(
            content, f"({', '.join(times)})", *(f"--time-column {name}" for name in times), target="v", date_format=form
        )
        assert list(take(content, "v", time=times, date_format=form).dates) == dates, header


def test_columns_that_are_no_part_of_the_time(take, refuse):
    rows = [f"2020-01-0{day},{store},{day},9" for store in "AB" for day in (1, 2, 3, 4)]
    refuse("\n".join(["date,store,min,max", *rows]), "series found (column store: A, B)", target="max")
    values = "\n".join(["x1,x2,x3,y", *(f"{n * n}.5,{n % 3},{n % 2},{n}" for n in range(9))])
    assert take(values, "y").values[:, 0].tolist() == [*range(9)]


def test_date_and_clock_in_two_columns(take, refuse):
    content = "Date,Time,v\n2020-01-01,09:30,1\n2020-01-01,09:31,2\n2020-01-02,09:30,3\n"
    refuse(content, "2 columns (Date, Time)", "--time-column Date --time-column Time")
    series = take(content, time=["Date", "Time"])
    assert (values(series), series.dates[1]) == ([1.0, 2.0, 3.0], datetime(2020, 1, 1, 9, 31))


def test_the_only_column_of_full_dates_dates_the_rows(take):
    for content in (
        "Ticker,TradeDay,Close\na,2020-01-03,3\na,2020-01-01,1\na,2020-01-02,2\n",
        "Close,When\n3,01/15/2020\n1,01/13/2020\n2,01/14/2020\n",
        ",TradeDay,Close\n0,2020-01-03,3\n1,2020-01-01,1\n2,2020-01-02,2\n",
    ):
        series = take(content)
        assert values(series) == [1.0, 2.0, 3.0], content
        assert len(series.dates) == 3, content
        assert any("sorted" in notice for notice in series.notices), content


def test_milliseconds_since_1970(take):
    labels = ["1503028800000", "1502942400000", "1502946000500"]
    for name in ("timestamp", "Date", "Open time"):
        series = take(closes(labels, f"{name},Close"))
        assert values(series) == [1.0, 2.0, 0.0], name
        assert series.dates[1:] == (datetime(2017, 8, 17, 5, 0, 0, 500000), datetime(2017, 8, 18, 4)), name


def test_seconds_since_1970(take):
    series = take(closes(["1575158400", "1575072000"], "time,Close"))
    assert (values(series), series.dates[0]) == ([1.0, 0.0], datetime(2019, 11, 30))


def test_dates_in_digits_by_their_form_and_their_name(take, refuse):
    labels = ["30112019", "01122019", "02122019"]
    series = take(closes(labels), date_format="%d%m%Y")
    assert (values(series), series.dates[1]) == ([0.0, 1.0, 2.0], datetime(2019, 12, 1))
    refuse("Ticker,Date,Close\na,30112019,1\na,01122019,2\n", "column Date: '", "--date-format")
    assert values(take(closes(["20191201", "20191130"]))) == [1.0, 0.0]
    assert values(take(closes(["1", "2", "3"]))) == [0.0, 1.0, 2.0]


def test_dates_that_could_be_anything(refuse):
    for labels, *parts in (
        (["30112019", "01122019"], "--date-format"),
        (["301119", "011219"], "--date-format"),
        (["30.11", "01.12"],),
    ):
        refuse(closes(labels), "column Date: ", repr(labels[0]), *parts)
    refuse(closes(["1", "3", "2"]), "line 4, column Date: '2'", "'3'")


def test_labels_that_are_no_dates(refuse):
    refuse(closes(["Monday", "Friday"]), "line 2, column Date: 'Monday'", "write dates as 2020-01-31")


def test_dates_that_are_not_read_in_another_column(refuse):
    for row in ("a,08/{}/04,{}", "0,08/{}/04,{}"):
        for first in ("Ticker", ""):
            rows = "\n".join(row.format(day, day) for day in (20, 19))
            refuse(f"{first},Date,Close\n{rows}\n", "line 2, column Date: '08/20/04'", "--date-format %m/%d/%y")


def test_times_of_day(take, refuse):
    series = take(closes(["9:30", "10:00", "16:00"], "Time,Close"))
    assert (values(series), series.dates) == ([0.0, 1.0, 2.0], None)
    for labels in (["09:30", "09:30"], ["09:30", "09:29"]):
        refuse(closes(labels, "Time,Close"), f"line 3, column Time: '{labels[1]}'", "'09:30'", "date")


def test_years_of_two_digits(take, refuse):
    for labels in (["97", "98", "99", "00", "01"], ["01", "00", "99", "98", "97"]):
        content = closes(labels, "Year,Close")
        if labels[0] == "01":
            refuse(content, "column Year", "falls", "--order newest-first")
        series = take(content, date_format="%y", time="Year")
        assert [date.year for date in series.dates] == [1997, 1998, 1999, 2000, 2001]


def test_a_date_that_is_spread_over_columns(refuse):
    for content, columns in (
        ("Year,Month,Close\n2000,1,5\n2000,2,6\n", "Year, Month"),
        ("Month,Year,Close\n1,2000,5\n2,2000,5\n1,2001,6\n2,2001,4\n", "Year, Month"),
        ("Date,Time,Close\n2020-01-01,09:30,5\n2020-01-01,09:31,6\n", "Date, Time"),
        ("Time,Date,Close\n09:30,2020-01-01,5\n10:30,2020-01-01,6\n09:30,2020-01-02,7\n", "Date, Time"),
    ):
        refuse(content, f"2 columns ({columns})", "--time-column")


# --- the order of rows --------------------------------------------------------------------------------------------


def test_newest_first_is_reversed(take):
    header, *rows = GOOD.splitlines()
    series = take("\n".join([header, *reversed(rows)]), features=["Open"])
    assert series.values.tolist() == [[10.0, 1.5], [20.0, 2.5], [30.0, 3.5]]
    assert series.labels == ("2020-01-01", "2020-01-02", "2020-01-03")
    assert series.dates[0] == datetime(2020, 1, 1)
    assert series.notices == ("rows are newest-first; reversed to chronological order",)
    assert (series.reading.order, series.rows.tolist()) == ("newest-first", [4, 3, 2])


def test_rows_in_no_order_are_sorted(take):
    for labels, order in (
        (["2020-01-01", "2020-01-03", "2020-01-02", "2020-01-04"], [0, 2, 1, 3]),
        (["08/19/2004", "08/21/2004", "08/18/2004", "08/20/2004"], [2, 0, 3, 1]),
    ):
        series = take(closes(labels))
        assert values(series) == order == [line - 2 for line in series.rows.tolist()]
        assert series.labels == tuple(labels[i] for i in order)
        notice = series.notices[0]
        assert all(part in notice for part in ("1 row", "line 4", repr(labels[2]), "sorted")), notice


def test_time_zones_in_no_order_are_sorted_as_instants(take):
    labels = ["2020-01-01T12:00+00:00", "2020-01-01T12:30+05:00", "2020-01-01T09:00-05:00", "2020-01-01T06:00+00:00"]
    assert values(take(closes(labels))) == [3.0, 1.0, 0.0, 2.0]


def test_dates_a_nanosecond_apart(take, refuse):
    for labels in (
        ["1577836800000000001", "1577836800000000000"],
        ["2020-01-01 00:00:00.0000000010", "2020-01-01 00:00:00.000000000"],
    ):
        assert values(take(closes(labels))) == [1.0, 0.0]
        refuse(closes([*labels, labels[0].rstrip("0")]), "line 4, column Date: ", "line 2")


REPEATED = "Date,Close,Open\n2020-01-03,5,1\n2020-01-01,1,2\n2020-01-02,2,3\n\n2020-01-02,4,4\n2020-01-02,9,\n"


def test_repeated_dates_are_refused(refuse):
    parts = "'2020-01-02'", "line 4", "2 row", "--on-duplicate first or last or mean"
    refuse(REPEATED, "line 6, column Date", *parts)


def test_one_row_of_each_date(take):
    content = REPEATED.replace("9,", "9,7")
    for how, expected in (
        ("first", [[1.0, 2.0], [2.0, 3.0], [5.0, 1.0]]),
        ("last", [[1.0, 2.0], [9.0, 7.0], [5.0, 1.0]]),
        ("mean", [[1.0, 2.0], [5.0, 14 / 3], [5.0, 1.0]]),
    ):
        series = take(content, features=["Open"], on_duplicate=how)
        assert series.values.tolist() == expected, how
        assert series.labels == ("2020-01-01", "2020-01-02", "2020-01-03"), how
        assert [date.day for date in series.dates] == [1, 2, 3], how
        assert series.reading.duplicates == 2, how
        repeat, order = series.notices
        assert all(part in repeat for part in ("column Date", "2 row", "line 6", "'2020-01-02'", how)), repeat
        assert "sorted" in order, how


def test_the_mean_is_of_the_values_that_are_there(take):
    series = take(REPEATED, features=["Open"], on_duplicate="mean", missing="drop")
    assert series.values.tolist() == [[1.0, 2.0], [5.0, 3.5], [5.0, 1.0]]
    assert series.missing is None


def test_first_and_last_are_so_in_the_file(take):
    for how, expected in (("first", [1.0, 3.0]), ("last", [2.0, 3.0]), ("mean", [1.5, 3.0])):
        for dates, numbers in (
            (["2020-01-01", "2020-01-01", "2020-01-02"], [1, 2, 3]),
            (["2020-01-02", "2020-01-01", "2020-01-01"], [3, 1, 2]),
        ):
            content = "Date,Close\n" + "".join(f"{date},{n}\n" for date, n in zip(dates, numbers, strict=True))
            assert values(take(content, on_duplicate=how)) == expected, (how, dates)


def test_dates_alone_count_and_not_how_they_are_written(refuse):
    refuse("index,Close\n1,1\n1.0,2\n", "line 3, column index: '1.0'", time="index")


def test_an_index_is_no_time_unless_it_is_named(take, refuse):
    for numbers in ([8, 9, 10], range(1, 1201), (9998, 9999, 10000, 10002)):
        content = closes(numbers, "index,v")
        assert values(take(content, "v")) == [*range(len(numbers))]
        assert take(content, "v", time="index").labels == tuple(map(str, numbers))
    assert values(take(closes([1, 12, 10, 9, 11], "index,v"), "v", time="index")) == [0.0, 3.0, 2.0, 4.0, 1.0]
    refuse(closes([10, 9, 8], "index,v"), "line 3, column index: falls", target="v")
    for labels in (["1", "nan", "2"], ["nan", "1", "2"], ["1", "2", "nan"]):
        place = f"line {labels.index('nan') + 2}, column index"
        refuse(closes(labels, "index,Close"), place, time="index")


def test_several_columns_of_dates_without_a_name(take):
    series = take("Ticker,Opened,Closed,Close\na,2020-01-03,2020-01-04,3\na,2020-01-01,2020-01-02,1\n")
    assert (values(series), series.reading.time) == ([1.0, 3.0], ("Opened",))  # the first column that varies
    series = take("Ticker,Opened,Closed,Close\na,2020-01-01,2020-01-02,1\nb,2020-01-03,2020-01-04,3\n")
    assert "2 columns look like dates: Opened, Closed" in series.notices[0]


def test_words_in_a_column_that_is_not_named_a_date(take):
    series = take(closes(["Monday", "Friday"], "when,Close"))
    assert (values(series), series.labels) == ([0.0, 1.0], None)
    assert "column 'when' was not read as dates" in series.notices[0]


def test_the_month_beside_a_date_is_no_part_of_it(refuse):
    content = "Date,Month,Hour,Close\n2020-01-01,1,2,5\n2020-01-01,1,2,6\n"
    refuse(content, "--on-duplicate", features=["Hour"])


def test_rows_without_dates_may_be_alike(take):
    assert values(take("Close\n5\n5\n5\n")) == [5.0, 5.0, 5.0]


# --- what speaks against the order --------------------------------------------------------------------------------


def test_dates_that_are_not_read_must_not_fall(write, refusal):
    """Some are read, then the newest row is the last; the others are refused, with what to do."""
    for label in (
        "{:02d}. Januar 2020",
        "{:02d} janvier 2020",
        "2020- 1- {:02d}",
        "2020년 1월 {:02d}일",
        "day {:02d}",
        "{0:02d}-{0:02d} Uhr",
    ):
        content = "Tag,v\n" + "".join(f"{label.format(day)},{day}\n" for day in range(20, 0, -1))
        path = write(content)
        try:
            series = read(path, "v", (), ReadOptions())
        except DataError as error:
            message = str(error)
            assert "order='newest-first'" in message, (label, message)
            series = read(path, "v", (), ReadOptions(order="newest-first"))
        assert values(series) == [*range(1, 21)], label


SERIES = {
    "small numbers": "".join(f"{key},{week},{week}\n" for key in "AB" for week in range(1, 8)),
    "dates": "".join(f"{key},2020-01-{day:02d},{day}\n" for key in "AB" for day in range(1, 8)),
    "from new to old": "".join(f"{key},{week},{week}\n" for key in "AB" for week in range(7, 0, -1)),
    "side by side": "".join(f"{key},{week},{week}\n" for week in range(1, 8) for key in "AB"),
}


def test_numbers_of_times_must_not_fall(write):
    """Newest first: read as dates, or refused; never taken as oldest first."""
    months = [(2023 + number // 12, number % 12 + 1) for number in range(30)]
    for name, form in (
        ("Month", "{0}.{1}"),
        ("Month", "{0}.{1:02d}"),
        ("Month", "{1:02d}.{0}"),
        ("Month", "{1}"),
        ("Month", "{0}-{1:02d}"),
        ("Month", "{0}{1:02d}"),
        ("Period", "{0}-{1:02d} to {0}-{1:02d}"),
        ("Year", "{1}-{0}"),
        ("date", "{0}M{1}"),
    ):
        rows = [f"{form.format(*month)},{number}\n" for number, month in enumerate(months)]
        try:
            series = read(write(f"{name},v\n{''.join(reversed(rows))}"), "v", (), ReadOptions())
        except DataError:
            continue
        assert values(series) == [*range(30)], form


def test_several_series_are_refused_and_one_is_taken(write, refusal):
    for kind, rows in SERIES.items():
        for header in ("store,week,units", "unique_id,ds,y"):
            path = write(f"{header}\n{rows}")
            target = header.rpartition(",")[2]
            key = header.partition(",")[0]
            message = str(refusal(lambda p=path, t=target: read(p, t, (), ReadOptions()), "several series", key))
            assert f"where='{key}=A'" in message, (kind, message)
            order = "newest-first" if kind == "from new to old" else None
            series = read(path, target, (), ReadOptions(where=f"{key}=A", order=order))
            assert sorted(values(series)) == [*range(1, 8)], kind


def test_a_column_that_tells_series_apart(write, refusal):
    path = write(f"unique_id,ds,y\n{SERIES['dates']}")
    refusal(lambda: read(path, "y", (), ReadOptions(id="unique_id")), "2 series", "unique_id", "where='unique_id=A'")
    frame = read_panel(path, id="unique_id", target="y")
    assert (frame.index.names[0], len(frame)) == ("unique_id", 14)
    assert frame.loc["B", "y"].tolist() == [*range(1, 8)]


def test_tables_with_times_as_columns(refuse):
    for content, target in (
        ("Region,2023-01-31,2023-02-28,2023-03-31\na,1,2,3\nb,2,3,4\n", None),
        ("Land,Lat,1/1/20,2/1/20,3/1/20\na,0.5,1,2,3\nb,1.5,2,3,4\n", "3/1/20"),
        ("id,d_1,d_2,d_3,d_4\na,1,2,3,4\nb,2,3,4,5\n", "d_4"),
    ):
        refuse(content, "columns are times", "transpose", target=target)


# --- pandas objects, newest first ---------------------------------------------------------------------------------


@pytest.fixture
def newest_first():
    """Prices that rise by one a day to 1000; the first row is the newest."""
    days = pd.date_range("2023-11-22", "2023-12-31")[::-1]
    return pd.DataFrame({"Date": days, "Close": np.arange(1000.0, 960.0, -1.0)})


def test_frames_with_dates_are_reversed(newest_first):
    days = newest_first["Date"]
    for kind, data in {
        "texts": newest_first.assign(Date=days.dt.strftime("%Y-%m-%d")),
        "month first": newest_first.assign(Date=days.dt.strftime("%m/%d/%Y")),
        "datetimes": newest_first,
        "dates": newest_first.assign(Date=days.dt.date),
        "periods": newest_first.assign(Date=days.dt.to_period("D")),
        "an index of datetimes": newest_first.set_index("Date"),
        "an index of texts": newest_first.set_index(days.dt.strftime("%Y-%m-%d"))[["Close"]],
        "a series": newest_first.set_index("Date")["Close"],
        "categories": newest_first.assign(Date=days.dt.strftime("%Y-%m-%d").astype("category")),
    }.items():
        with pytest.warns(DataWarning, match="newest-first; reversed") as warned:
            series = read_series(data)
        assert (series.values[-1, 0], len(warned), warned[0].filename) == (1000.0, 1, __file__), kind
        np.testing.assert_array_equal(series.rows, np.arange(40)[::-1], err_msg=kind)
        assert series.dates[-1] == datetime(2023, 12, 31), kind


def test_frames_whose_index_falls_are_refused(newest_first, refusal):
    closes = newest_first[["Close"]]
    for kind, index in {
        "reversed range": pd.RangeIndex(39, -1, -1),
        "whole numbers": pd.Index(range(40, 0, -1)),
        "texts": pd.Index([f"day {n}" for n in range(40, 0, -1)]),
    }.items():
        data = closes.set_index(index)
        message = str(refusal(lambda data=data: read_series(data), "column index", "falls"))
        assert "order='newest-first'" in message, kind
        series = read_series(data, order="newest-first")
        assert series.values[-1, 0] == 1000.0, kind


def test_dates_in_another_language(newest_first, refusal):
    months = {11: "novembre", 12: "dicembre"}
    texts = [f"{day.day} {months[day.month]} {day.year}" for day in newest_first["Date"]]
    data = newest_first.assign(Date=texts).rename(columns={"Date": "Giorno"})
    try:
        with pytest.warns(DataWarning, match="newest-first"):
            series = read_series(data)
    except DataError as error:
        assert "order='newest-first'" in str(error)  # noqa: PT017 (both ways are right)
        series = read_series(data, order="newest-first")
    assert series.values[-1, 0] == 1000.0


@pytest.mark.filterwarnings("ignore::gru_xp.errors.DataWarning")
def test_an_index_of_several_series(refusal):
    index = pd.MultiIndex.from_product([["A", "B"], pd.date_range("2020-01-01", periods=5)], names=["store", "day"])
    data = pd.DataFrame({"units": np.arange(10.0)}, index=index)
    for level in (data, data["units"], data.set_index(data.index.set_levels(range(5), level=1))):
        refusal(lambda level=level: read_series(level), "several series", "column store", "where='store=A'")
        assert values(read_series(level, where="store=A")) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_tables_of_several_dates_are_warned_of():
    """Not those whose order is given, and neither arrays nor tables without dates, which are oldest first."""
    data = pd.DataFrame({"Close": [5.0, 7.0, 6.0], "Note": ["x", "y", "z"]})
    for table in (data, data[["Close"]], data["Close"]):
        assert read_series(table).notices == ()
    days = ["2020-01-03", "2020-01-02", "2020-01-01"]
    data = data.assign(Opened=days, Closed=days)
    with pytest.warns(DataWarning, match="Opened, Closed.* oldest first"):
        read_series(data)
    assert read_series(data, order="oldest-first").notices == ()
    for array in (data["Close"].to_numpy(), data[["Close"]].to_numpy(), data["Close"].tolist()):
        assert read_series(array, features=None).notices == ()


# --- places in messages -------------------------------------------------------------------------------------------


def test_line_numbers(refuse):
    """They count the lines of quoted fields, and no signs that merely end a line of text elsewhere."""
    refuse('Date,Note,Close\n2020-01-01,"a\nb\nc",1\n2020-01-02,d,x\n', "line 5, column Close: 'x'")
    for character in "\x0b\x0c\x1c\x85\u2028":
        content = f"Date,Note,Close\n2020-01-01,a{character}b,1\n2020-01-02,d,x\n"
        refuse(content, "line 3, column Close: 'x'")
    for text in ("abc", "inf", "1e400", "1_000", "(5.0)", "0x10", "true", "2020-01-01"):
        for blank, line in (("", 4), ("\n\n", 6)):
            rows = f"2020-01-01,1,10\n{blank}2020-01-02,2,20\n2020-01-03,3,{text}\n2020-01-04,4,40\n"
            refuse("Date,Open,Close\n" + rows, f"line {line}, column Close: '{text}'")


def test_names_of_two_lines(refuse):
    refuse('Date,"Close\n(USD)"\n2020-01-01,x\n', "line 3, column Close (USD): 'x'", target="Close (USD)")
    refuse('"Da\nte",Close\n2020-01-02,1\n2020-01-02,2\n2020-01-03,3\n', "line 4", "column Da te", "line 3")


# --- files whose rows are not what they seem ----------------------------------------------------------------------


def test_a_last_row_of_totals(take, refuse):
    for last in ("Total", "TOTAL:", "sum", "Sub-total", "subtotals", "Grand Total:", "average", "Mean", "", "-"):
        content = f"Item,Close\na,5\nb,6\n{last},11\n"
        refuse(content, "line 4, column Item: ", "total", "remove the line")
        assert values(take(content.replace(last + ",11", "c,7"))) == [5.0, 6.0, 7.0], last


def test_a_last_row_of_totals_in_a_frame(refusal):
    data = pd.DataFrame({"Item": ["a", "b", "Total"], "Close": [5, 6, 11]})
    for table in (data, data.set_index("Item")):
        refusal(lambda table=table: read_series(table), "row 2, column Item: ", "total", "remove the row")


def test_a_last_row_like_others(take):
    for content in (
        "Item,v\na,5\n,6\n,11\n",
        "Item,v\na,5\nTotal,6\nb,11\n",
        "Item,v\na,5\nTotals of Lee,11\n",
    ):
        assert values(take(content, "v"))[-1] == 11.0, content


def test_no_header(take, refuse):
    for content in ("1.5\n2.5\n", "1,1\n2,2\n", "AAPL,100\nIBM,5\n", "AAPL,100,3\nIBM,5,6\n"):
        refuse(content, "first line", "add a header line")
    series = take("Country,2020\na,5\nb,6\n", "2020")
    assert (series.target, values(series)) == ("2020", [5.0, 6.0])


# --- spacing and gaps ---------------------------------------------------------------------------------------------


def test_missing_rows_are_counted(take):
    days = [f"2023-02-{day:02d}" for day in range(1, 29) if day not in (11, 14, 20)]
    series = take(closes(days))
    assert (series.reading.freq, series.reading.gaps, series.reading.first_gap) == ("D", 3, "2023-02-11")
    (notice,) = series.notices
    assert "3 days missing, first 2023-02-11" in notice
    assert take(closes(days), freq="D").reading.gaps == 3


def test_a_few_holidays_are_no_gaps(take):
    days = [day for day in pd.bdate_range("2023-01-02", periods=60).strftime("%Y-%m-%d") if day != "2023-01-16"]
    series = take(closes(days))
    assert (series.reading.freq, series.reading.gaps, series.notices) == ("B", 1, ())
