import csv
import math
import random
from datetime import datetime

import numpy as np
import pytest

from gru_xp.errors import DataError
from gru_xp.forecasting.reading.csv_file import bundled_file, bundled_names, find_file, read_csv
from gru_xp.forecasting.reading.options import ReadOptions

GOOD = "Date,Open,Close\n2020-01-01,1.5,10\n2020-01-02,2.5,20\n2020-01-03,3.5,30\n"


def values(series):
    return series.values[:, 0].tolist()


@pytest.fixture
def read(write):
    """``read(content, ...)``: what `read_csv` makes of a file of that content."""

    def read(content, *args, **options):
        return read_csv(write(content), *args, **options)

    return read


@pytest.fixture
def refuse(write):
    """``refuse(content, pattern, ...)``: assert that such a file is refused in one line that names it."""

    def refuse(content, pattern, *args, **options):
        path = write(content)
        with pytest.raises(DataError, match=pattern) as error:
            read_csv(path, *args, **options)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)

    return refuse


# --- the bundled files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target", "rows", "first", "last"),
    [
        ("AAPL.csv", "Close", 3270, "2000-03-01", "2013-03-01"),
        ("GOOG.csv", "Close", 2148, "2004-08-19", "2013-03-01"),
        ("IBM.csv", "Close", 3270, "2000-03-01", "2013-03-01"),
        ("sunspots.csv", "Sunspots", 309, "1700", "2008"),
    ],
)
def test_bundled_files(name, target, rows, first, last):
    series = read_csv(bundled_file(name))
    with bundled_file(name).open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert len(series) == len(expected) == rows
    assert (series.labels[0], series.labels[-1]) == (first, last)
    assert len(series.dates) == rows
    assert series.columns == (target,)
    assert series.notices == ()
    assert values(series) == [float(row[target]) for row in expected]
    assert list(series.labels) == [next(iter(row.values())) for row in expected]


def test_all_columns_of_a_bundled_file():
    names = ["Open", "High", "Low", "Adj Close", "Volume"]
    series = read_csv(bundled_file("GOOG.csv"), "Close", names)
    assert series.columns == ("Close", *names)
    assert series.values[0].tolist() == [100.335, 100.01, 104.06, 95.96, 50.32284179174976, 44659000.0]
    assert series.dates[0] == datetime(2004, 8, 19)


def test_files_are_found(tmp_path, monkeypatch, write):
    assert bundled_names() == ["AAPL.csv", "GOOG.csv", "IBM.csv", "sunspots.csv"]
    for name in ("GOOG.csv", "GOOG"):
        path, bundled = find_file(name)
        assert (path, bundled) == (bundled_file("GOOG.csv"), True)
        assert path.is_file()
    own = write(GOOD, "GOOG.csv")
    assert find_file(str(own)) == (own, False)
    monkeypatch.chdir(tmp_path)
    path, bundled = find_file("GOOG.csv")
    assert path.resolve() == own
    assert not bundled


@pytest.mark.parametrize("name", ["missing.csv", "goog", "x/GOOG.csv", "README.md", ""])
def test_files_that_are_not_found(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no such file.*AAPL.csv, GOOG.csv, IBM.csv, sunspots.csv|is empty"):
        find_file(name)


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(DataError, match="is a directory"):
        find_file(str(tmp_path))
    with pytest.raises(DataError, match="cannot be read"):
        read_csv(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        read_csv(tmp_path / "missing.csv")


# --- forms of files that are right ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        GOOD.rstrip("\n"),
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        GOOD.replace(",", "|"),
        GOOD.replace(",", ", "),
        GOOD.replace(",", " , "),
        GOOD.replace("\n", ",\n"),
        GOOD.replace("\n", ",,\n"),
        GOOD.replace("\n", ";\n").replace(",", ";"),
        "\n\n" + GOOD.replace("\n", "\n\n") + "\n \n,,\n",
        "\n".join(",".join(f'"{field}"' for field in line.split(",")) for line in GOOD.splitlines()),
        "\n".join("\t".join(f'"{field}"' for field in line.split(",")) for line in GOOD.splitlines()),
        GOOD.replace(",10", ",1e1").replace(",20", ",+20.0").replace(",30", ",30."),
    ],
)
def test_the_same_file_in_other_forms(read, content):
    series = read(content, features=["Open"])
    assert series.values.tolist() == [[10.0, 1.5], [20.0, 2.5], [30.0, 3.5]]
    assert series.columns == ("Close", "Open")
    assert series.labels == ("2020-01-01", "2020-01-02", "2020-01-03")
    assert series.dates == (datetime(2020, 1, 1), datetime(2020, 1, 2), datetime(2020, 1, 3))
    assert series.notices == ()


def test_quoted_fields_may_hold_anything(read):
    series = read('Date,"Note, with ""quotes""",Close\n2020-01-01,"a,b\nc",10\n2020-01-02,"",20\n')
    assert values(series) == [10.0, 20.0]
    assert values(read('Date,"A,B"\n2020-01-01,3\n2020-01-02,4\n')) == [3.0, 4.0]


def test_every_bit_of_a_number_is_read(read, rng):
    numbers = rng.standard_normal(300) * 10.0 ** rng.integers(-300, 149, 300)
    numbers[:4] = [0.1 + 0.2, 5e-324, 1.2345678901234567e149, -0.0]
    for form in ("{!r}", "{:.17g}", "{:.16e}"):
        series = read("Close\n" + "".join(form.format(float(number)) + "\n" for number in numbers))
        np.testing.assert_array_equal(series.values[:, 0], numbers)
        assert math.copysign(1.0, series.values[3, 0]) == -1.0


# --- which column is which --------------------------------------------------------------------------------------


def test_the_target_is_close_or_the_only_numeric_column(read):
    assert read(GOOD).target == "Close"
    assert read(GOOD, "Open").target == "Open"
    assert read("Year,Note,Spots\n1700,a,5\n1701,b,6\n").target == "Spots"
    assert read("Spots\n5\n6\n").target == "Spots"


def test_several_numeric_columns_need_a_choice(refuse):
    content = GOOD.replace("Close", "Last").replace("Open", "First")
    refuse(content, r"2 numeric columns and none is called Close; choose one with --target: First, Last")


def test_no_numeric_column(refuse):
    refuse("Date,Note\n2020-01-01,a\n2020-01-02,b\n", "no numeric column; the columns are Date, Note")


@pytest.mark.parametrize("options", [{"target": "High"}, {"features": ["Open", "High"]}])
def test_a_column_that_is_not_there(write, options):
    with pytest.raises(DataError, match="no column 'High'; the columns are Date, Open, Close"):
        read_csv(write(GOOD), **options)


def test_features_keep_their_order_and_come_once(read):
    content = "Date,a,b,c\n2020-01-01,1,2,3\n2020-01-02,4,5,6\n"
    series = read(content, "b", ["c", "b", "a", "c"])
    assert series.columns == ("b", "c", "a")
    assert series.values.tolist() == [[2.0, 3.0, 1.0], [5.0, 6.0, 4.0]]


def test_the_date_is_found_by_name_or_by_its_values(read):
    assert read("v,w,Trade date\n1,a,2020-01-01\n2,b,2020-01-02\n").labels == ("2020-01-01", "2020-01-02")
    assert read("v,timestamp\n1,2020-01-01\n2,2020-01-02\n").dates[1] == datetime(2020, 1, 2)
    assert read("when,v\n2020-01-01,1\n2020-01-02,2\n").dates[1] == datetime(2020, 1, 2)


@pytest.mark.parametrize("name", ["Sentiment", "Candidates", "Lifetime value", "Updates"])
def test_a_column_whose_name_merely_holds_the_word(read, name):
    series = read(f"Year,{name}\n2000,5\n2001,3\n2002,7\n")
    assert series.columns == (name,)
    assert series.labels == ("2000", "2001", "2002")


def test_the_index_that_pandas_writes(read):
    series = read(",Close\n0,5\n1,7\n2,6\n")
    assert series.labels == ("0", "1", "2")
    assert values(series) == [5.0, 7.0, 6.0]
    assert series.notices == ()
    assert values(read("Unnamed: 0,v\n0,5\n1,7\n")) == [5.0, 7.0]


def test_dates_are_not_needed(read):
    series = read("Close,Volume\n5,1\n7,2\n6,3\n", features=["Volume"])
    assert series.values.tolist() == [[5.0, 1.0], [7.0, 2.0], [6.0, 3.0]]
    assert series.labels is series.dates is None
    assert series.notices == ()


# --- the order of rows ------------------------------------------------------------------------------------------


def test_from_new_to_old_is_turned_round(read):
    header, *rows = GOOD.splitlines()
    series = read("\n".join([header, *reversed(rows)]), features=["Open"])
    assert series.values.tolist() == [[10.0, 1.5], [20.0, 2.5], [30.0, 3.5]]
    assert series.labels == ("2020-01-01", "2020-01-02", "2020-01-03")
    assert series.dates[0] == datetime(2020, 1, 1)
    assert series.notices == ("the rows run from new to old; they are turned round",)


@pytest.mark.parametrize(
    ("labels", "order", "notice"),
    [
        (
            ["2020-01-01", "2020-01-03", "2020-01-02", "2020-01-04"],
            [0, 2, 1, 3],
            "1 row(s) come after a later one, first in line 4 ('2020-01-02'); the rows are sorted",
        ),
        (
            ["08/19/2004", "09/01/2004", "08/18/2004", "08/20/2004"],
            [2, 0, 3, 1],
            "1 row(s) come after a later one, first in line 4 ('08/18/2004'); the rows are sorted",
        ),
    ],
)
def test_rows_in_no_order_are_sorted(read, labels, order, notice):
    series = read("Date,Close\n" + "".join(f"{label},{i}\n" for i, label in enumerate(labels)))
    assert values(series) == order
    assert series.labels == tuple(labels[i] for i in order)
    assert series.notices == (notice,)


def test_numbers_are_ordered_as_numbers(read):
    assert values(read("index,v\n8,1\n9,2\n10,3\n")) == [1.0, 2.0, 3.0]
    assert values(read("index,v\n10,1\n9,2\n8,3\n")) == [3.0, 2.0, 1.0]
    series = read("index,v\n1,0\n12,1\n10,2\n9,3\n11,4\n")
    assert values(series) == [0.0, 3.0, 2.0, 4.0, 1.0]
    assert series.notices == ("2 row(s) come after a later one, first in line 4 ('10'); the rows are sorted",)


@pytest.mark.parametrize("numbers", [range(1, 1201), range(1200, 0, -1), (9998, 9999, 10000, 10002)])
def test_an_index_that_passes_by_years_is_of_numbers(read, numbers):
    series = read("index,v\n" + "".join(f"{number},{number}\n" for number in numbers))
    assert values(series) == sorted(numbers)
    assert series.dates is None


def closes(labels, header="Date,Close"):
    return header + "\n" + "".join(f"{label},{i}\n" for i, label in enumerate(labels))


@pytest.mark.parametrize(
    ("labels", "pattern"),
    [
        (
            ["30112019", "01122019"],
            "line 2, column Date: '30112019' is a date in digits alone; say how by --date-format",
        ),
        (["01122019", "02122019"], "'01122019' is a date in digits alone"),
        (["1122019", "11122019"], "'1122019' is a date in digits alone; say how by --date-format '%d%m%Y' or '%m%d%Y'"),
        (
            ["43832", "43831"],
            "'43832' is a date in digits alone, as spreadsheets count days; write dates as 2020-01-31",
        ),
        (["301119", "011219"], "'301119' is a date in digits alone"),
        (["191130", "191201"], "'191130' is a date in digits alone"),
        (["11302019", "12012019"], "'11302019' is a date in digits alone"),
        (["30.11", "01.12"], "'30.11' may be day and month; write dates with the year"),
        (["1", "3", "2"], "line 4, column Date: '2' comes after '3', and numbers that do not rise say no date"),
    ],
)
def test_a_date_in_digits_that_could_be_anything(refuse, labels, pattern):
    refuse(closes(labels), pattern)


def test_dates_in_digits_by_their_form_and_their_name(read, refuse):
    labels = ["30112019", "01122019", "02122019"]
    series = read(closes(labels), options=ReadOptions(date_format="%d%m%Y"))
    assert (values(series), series.dates[1]) == ([0.0, 1.0, 2.0], datetime(2019, 12, 1))
    refuse("Ticker,Date,Close\na,30112019,1\na,01122019,2\n", "column Date: '30112019' is a date in digits alone")
    assert values(read(closes(["20191201", "20191130"]))) == [1.0, 0.0]
    assert values(read(closes(["1575158400", "1575072000"]))) == [1.0, 0.0]
    assert values(read(closes(["1", "2", "3"]))) == [0.0, 1.0, 2.0]
    assert values(read(closes(["10000", "9000"], "index,Close"))) == [1.0, 0.0]


@pytest.mark.parametrize("name", ["timestamp", "Date", "Open time"])
def test_milliseconds_since_1970(read, name):
    labels = ["1503028800000", "1502942400000", "1502946000500"]
    series = read(closes(labels, f"{name},Close"))
    assert values(series) == [1.0, 2.0, 0.0]
    assert series.dates[1:] == (datetime(2017, 8, 17, 5, 0, 0, 500000), datetime(2017, 8, 18, 4))
    assert read(f"Symbol,{name},Close\na,1503028800000,1\na,1502942400000,2\n").values[:, 0].tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    "content",
    [
        "Ticker,TradeDay,Close\na,2020-01-03,3\na,2020-01-01,1\na,2020-01-02,2\n",
        "Close,When\n3,01/15/2020\n1,01/13/2020\n2,01/14/2020\n",
        ",TradeDay,Close\n0,2020-01-03,3\n1,2020-01-01,1\n2,2020-01-02,2\n",
    ],
)
def test_the_only_column_of_full_dates_says_when(read, content):
    series = read(content)
    assert values(series) == [1.0, 2.0, 3.0]
    assert len(series.dates) == 3
    assert any("the rows are sorted" in notice for notice in series.notices)


def test_an_index_goes_before_dates_that_repeat(read):
    series = read(",Expiry,Close\n0,2020-01-03,3\n1,2020-01-03,1\n")
    assert (values(series), series.labels) == ([3.0, 1.0], ("0", "1"))


def test_several_columns_of_dates_without_a_name(read):
    series = read("Ticker,Opened,Closed,Close\na,2020-01-03,2020-01-04,3\na,2020-01-01,2020-01-02,1\n")
    assert values(series) == [3.0, 1.0]
    (notice,) = series.notices
    assert notice.startswith("the rows are taken in the order of the file, since 2 columns look like dates (Opened, Cl")


def test_time_zones_in_no_order_are_sorted_as_instants(read):
    labels = ["2020-01-01T12:00+00:00", "2020-01-01T12:30+05:00", "2020-01-01T09:00-05:00", "2020-01-01T06:00+00:00"]
    assert values(read(closes(labels))) == [3.0, 1.0, 0.0, 2.0]


REPEATED = "Date,Close,Open\n2020-01-03,5,1\n2020-01-01,1,2\n2020-01-02,2,3\n\n2020-01-02,4,4\n2020-01-02,9,\n"


def test_repeated_dates_are_refused(refuse):
    refuse(
        REPEATED,
        r"line 6, column Date: '2020-01-02' is in line 4 already \(2 row\(s\) repeat a date\); keep one row of each "
        "date, or give --on-duplicate first, last or mean",
    )


@pytest.mark.parametrize(
    ("how", "expected", "taken"),
    [
        ("first", [[1.0, 2.0], [2.0, 3.0], [5.0, 1.0]], "the first one of each date is"),
        ("last", [[1.0, 2.0], [9.0, 7.0], [5.0, 1.0]], "the last one of each date is"),
        ("mean", [[1.0, 2.0], [5.0, 14 / 3], [5.0, 1.0]], "their mean is"),
    ],
)
def test_one_row_of_each_date(read, how, expected, taken):
    content = REPEATED.replace("9,", "9,7")
    series = read(content, features=["Open"], options=ReadOptions(on_duplicate=how))
    assert series.values.tolist() == expected
    assert series.labels == ("2020-01-01", "2020-01-02", "2020-01-03")
    assert [date.day for date in series.dates] == [1, 2, 3]
    repeat, order = series.notices
    assert repeat == f"column Date: 2 row(s) repeat a date, first in line 6 ('2020-01-02'); {taken} taken"
    assert "the rows are sorted" in order


def test_the_mean_is_of_the_values_that_are_there(read):
    options = ReadOptions(on_duplicate="mean", missing="drop")
    series = read(REPEATED, features=["Open"], options=options)
    assert series.values.tolist() == [[1.0, 2.0], [5.0, 3.5], [5.0, 1.0]]
    assert series.missing is None


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("how", "expected"), [("first", [1.0, 3.0]), ("last", [2.0, 3.0]), ("mean", [1.5, 3.0])])
def test_first_and_last_are_so_in_the_file(read, how, expected, order):
    dates = ["2020-01-01", "2020-01-01", "2020-01-02"] if order == 1 else ["2020-01-02", "2020-01-01", "2020-01-01"]
    numbers = [1, 2, 3] if order == 1 else [3, 1, 2]
    content = "Date,Close\n" + "".join(f"{date},{number}\n" for date, number in zip(dates, numbers, strict=True))
    assert values(read(content, options=ReadOptions(on_duplicate=how))) == expected


def test_dates_alone_count_and_not_how_they_are_written(refuse):
    refuse("Date,Close\n2020-01-01,1\n20200101,2\n", "'20200101' is in line 2 already")
    refuse("index,Close\n1,1\n1.0,2\n", "'1.0' is in line 2 already")


def test_rows_without_dates_may_be_alike(read):
    assert values(read("Close\n5\n5\n5\n")) == [5.0, 5.0, 5.0]


@pytest.mark.parametrize("name", ["Date", "Time", "Week", "index", ""])
def test_labels_that_are_no_dates(refuse, name):
    refuse(
        closes(["Monday", "Friday"], f"{name},Close"),
        f"line 2, column {name or 'without a name'}: 'Monday' is not read as a date; say how to read it by "
        "--date-format, as in '%d/%m/%Y' for 31/12/2020, or, if the rows are in the order of time, rename the column",
    )


def test_words_in_a_column_that_is_not_named_a_date(read):
    series = read(closes(["Monday", "Friday"], "when,Close"))
    assert (values(series), series.labels, series.notices) == ([0.0, 1.0], None, ())


@pytest.mark.parametrize("row", ["a,08/{}/04,{}", "0,08/{}/04,{}"])
@pytest.mark.parametrize("first", ["Ticker", ""])
def test_dates_that_are_not_read_in_another_column(refuse, row, first):
    rows = "\n".join(row.format(day, day) for day in (20, 19))
    refuse(f"{first},Date,Close\n{rows}\n", "line 2, column Date: '08/20/04' has a year of two digits; give .*%m/%d/%y")


def test_times_of_day(read, refuse):
    series = read(closes(["9:30", "10:00", "04:00 PM"], "Time,Close"))
    assert (values(series), series.dates) == ([0.0, 1.0, 2.0], None)
    assert series.notices == ("column Time: times of day without dates; the rows are taken in the order of the file",)
    for labels in (["09:30", "09:30"], ["09:30", "09:29"]):
        message = f"line 3, column Time: '{labels[1]}' comes after '09:30', and times .*; write the date before the"
        refuse(closes(labels, "Time,Close"), message)


@pytest.mark.parametrize("labels", [["98", "99", "00", "01"], ["01", "00", "99", "98"]])
def test_years_of_two_digits(read, refuse, labels):
    content = closes(labels, "Year,Close")
    refuse(content, f"column Year: '{labels[0]}' is a year of two digits; write four, or give --date-format %y")
    series = read(content, options=ReadOptions(date_format="%y"))
    assert [date.year for date in series.dates] == [1998, 1999, 2000, 2001]
    assert values(read(closes(["97", "98", "99"], "Year,Close"))) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("Year,Month,Close\n2000,1,5\n2000,2,6\n", "Year, Month"),
        ("Month,Year,Close\n1,2000,5\n1,2001,6\n", "Month, Year"),
        ("Month,Year,Close\nJan,2000,5\nJan,2001,6\n", "Month, Year"),
        ("Date,Time,Close\n2020-01-01,09:30,5\n2020-01-01,09:31,6\n", "Date, Time"),
        ("Time,Date,Close\n09:30,2020-01-01,5\n10:30,2020-01-01,6\n09:30,2020-01-02,7\n", "Time, Date"),
    ],
)
def test_a_date_that_is_spread_over_columns(refuse, content, columns):
    refuse(content, rf"the date is spread over 2 columns \({columns}\); join them into one")


def test_the_month_beside_a_date_is_no_part_of_it(refuse):
    content = "Date,Month,Hour,Close\n2020-01-01,1,2,5\n2020-01-01,1,2,6\n"
    refuse(content, "keep one row of each date, or give --on-duplicate", features=["Hour"])


@pytest.mark.parametrize(
    "labels",
    [
        ["1577836800000000001", "1577836800000000000"],
        ["2020-01-01 00:00:00.0000000010", "2020-01-01 00:00:00.000000000"],
    ],
)
def test_dates_a_nanosecond_apart(read, refuse, labels):
    assert values(read(closes(labels))) == [1.0, 0.0]
    refuse(closes([*labels, labels[0].rstrip("0")]), "line 4, column Date: .* is in line 2 already")


# --- files that are wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "\n", " \n\n\t\n", "\ufeff", "\r\n"])
def test_empty_files(refuse, content):
    refuse(content, "the file is empty")


@pytest.mark.parametrize("content", ["Date,Close\n", "Date,Close", "Date,Close,\n", "Date,Close\n\n,\n"])
def test_header_only(refuse, content):
    refuse(content, "has a header line and no rows")


@pytest.mark.parametrize(
    "content",
    ["2020-01-01,1.5\n2020-01-02,2.5\n", "1.5\n2.5\n", "08/19/2004;1;2\n08/20/2004;1;2\n", "1,1\n2,2\n"],
)
def test_no_header(refuse, content):
    refuse(content, "the first line looks like data .*add a header line")


@pytest.mark.parametrize(
    "content", ["1/1/20,20\n1/2/20,21\n", "2020Q1,100\n", "AAPL,100\nIBM,5\n", "AAPL,100,3\nIBM,5,6\n"]
)
def test_a_header_of_numbers(read, refuse, content):
    refuse(content, "the first line looks like data .*; add a header line with column names")
    series = read("Country,2020\na,5\nb,6\n", "2020")
    assert (series.target, values(series)) == ("2020", [5.0, 6.0])


@pytest.mark.parametrize(
    "last", ["Total", "TOTAL:", "sum", "Sub-total", "subtotals", "Grand Total:", "average", "Mean", "", "-"]
)
def test_a_last_row_of_totals(read, refuse, last):
    content = f"Item,Close\na,5\nb,6\n{last},11\n"
    refuse(content, "line 4, column Item: .* may mark a total; remove the line, or write another word there")
    assert values(read(content.replace(last + ",11", "c,7"))) == [5.0, 6.0, 7.0]


@pytest.mark.parametrize(
    "content",
    [
        "Id,v\n3,5\n1,6\n,11\n",
        "Item,v\na,5\n,6\n,11\n",
        "Item,v\na,5\nTotal,6\nb,11\n",
        "Item,v\na,5\nTotals of Lee,11\n",
    ],
)
def test_a_last_row_like_others(read, content):
    assert values(read(content, "v"))[-1] == 11.0


@pytest.mark.parametrize("first", ["sep={}\n", '"SEP={}"\n', "\n\nsep={}\r\n\n"])
@pytest.mark.parametrize("delimiter", [";", ",", "\t", "|"])
def test_the_delimiter_that_excel_names(read, refuse, first, delimiter):
    first = first.format(delimiter)
    assert values(read(first + GOOD.replace(",", delimiter))) == [10.0, 20.0, 30.0]
    content = first + GOOD.replace(",30", ",x").replace(",", delimiter)
    refuse(content, f"line {content.count(chr(10))}, column Close: 'x'")
    refuse("sep=:\n" + GOOD, "line 1: the delimiter is ':'; it must be comma, semicolon, tab or bar")


@pytest.mark.parametrize(
    ("before", "pattern"),
    [
        ("# made by me\n", "line 1: .*'# made by me'.*; remove the lines before the header"),
        ("# made, by me\n", "line 1: '# made' is a comment; remove"),
        ("# a, b, c\n# d, e, f\n", "line 1: '# a' is a comment; remove"),
        ("My report\n", r"line 1: has one field \('My report'\), and line 2 has 3; remove the lines before the header"),
        ("\nMy report\n\n", r"line 2: has one field \('My report'\), and line 4 has 3; remove"),
        ("My report,,\n", r"line 1: has one field \('My report'\), and line 2 has 3; remove"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_lines_before_the_header(refuse, before, pattern, delimiter):
    content = before + GOOD
    refuse(content if "," in before else content.replace(",", delimiter), pattern)


@pytest.mark.parametrize(
    "header", ["#,Date,Close\n1,2020-01-01,5\n", "# of users\n5\n", "# Date,Close\n2020-01-01,5\n"]
)
def test_a_header_with_a_number_sign(read, header):
    assert values(read(header)) == [5.0]


@pytest.mark.parametrize("row", ["2020-01-01 5", "2020-01-01  10:00 5"])
def test_spaces_between_columns(refuse, row):
    refuse(
        f"Date Close\n{row}\n", "line 1: one column, 'Date Close'; the sign between columns must be comma, semicolon"
    )


@pytest.mark.parametrize("cell", ["5", "5 %", "$ 5"])
def test_spaces_in_a_column(read, cell):
    assert values(read(f"Growth rate\n{cell}\n")) == [5.0]


@pytest.mark.parametrize("delimiter", ["; ", ";", "\t"])
def test_decimal_commas(read, refuse, delimiter):
    content = f"Date{delimiter}Close\n2020-01-01{delimiter}1\n2020-01-02{delimiter}2,5\n"
    refuse(content, "line 3, column Close: '2,5' is written with a decimal comma; give --decimal ,$")
    assert values(read(content, options=ReadOptions(decimal=","))) == [1.0, 2.5]


def test_decimal_commas_between_commas(read, refuse):
    refuse("Date,Close\n2020-01-01,1,5\n", r"line 2: has 3 fields; the header has 2 \(Date, Close\); .*quotes")
    quoted = 'Date,Close\n2020-01-01,"1,5"\n2020-01-02,"2,25"\n'
    refuse(quoted, "line 2, column Close: '1,5' is written with a decimal comma")
    assert values(read(quoted, options=ReadOptions(decimal=","))) == [1.5, 2.25]


def test_decimal_commas_in_one_column(read, refuse):
    refuse("Close\n1,5\n2,25\n", r"line 2: has 2 fields; the header has 1 \(Close\); .* give --decimal ,")
    assert values(read("Close\n1,5\n2,25\n", options=ReadOptions(decimal=","))) == [1.5, 2.25]


@pytest.mark.parametrize("row", ["2020-01-04", "2020-01-04,1", "2020-01-04,1,2,3", "2020-01-04,1,2,"])
def test_ragged_rows(refuse, row):
    fields = row.count(",") + 1
    refuse(GOOD + row + "\n", f"line 5: has {fields} fields; the header has 3")


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        ('Date,Close\n2020-01-01,"1"x\n', "line 2: not CSV .*; is there a quote that is not closed"),
        ('Date,Close\n2020-01-01,"1\n', "line 2: not CSV"),
        ('Date,Close\n\n2020-01-01,"1\n' + "2020-01-02,2\n" * 500, "line 3: not CSV .*, in line 503"),
        ('\n\nDate,Close\n2020-01-01,1\n2020-01-02,"1\n2020-01-03,"2"\n', "line 5: not CSV .* in line 6"),
        ('Date,Close\n2020-01-01,"1\n' + "2020-01-02,2\n" * 50_000, "line 2: not CSV"),
    ],
)
def test_broken_quotes(refuse, content, pattern):
    refuse(content, pattern)


def test_a_field_that_is_too_long(refuse):
    refuse("Date,Close\n2020-01-01," + "1" * 200_000 + "\n", "line 2: not CSV")


def test_a_repeated_column(refuse):
    refuse("Date,Close,Open,Close\n2020-01-01,1,2,3\n", "names column 'Close' twice")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("abc", "'abc' is not a number"),
        ("inf", "'inf' is too large for a number"),
        ("-Infinity", "'-Infinity' is too large for a number"),
        ("1e400", "'1e400' is too large for a number"),
        ("1_000", "'1_000' is not a number"),
        ("1 000", "'1 000' is not a number"),
        ("(5.0)", "'[(]5.0[)]' is not a number"),
        ("0x10", "'0x10' is not a number"),
        ("true", "'true' is not a number"),
        ("2020-01-01", "'2020-01-01' is not a number"),
    ],
)
def test_values_that_are_no_numbers(refuse, text, problem):
    for blank, line in (("", 4), ("\n\n", 6)):
        content = f"Date,Open,Close\n2020-01-01,1,10\n{blank}2020-01-02,2,20\n2020-01-03,3,{text}\n2020-01-04,4,40\n"
        refuse(content, f"line {line}, column Close: {problem}; correct the row or remove it")


def test_a_bad_value_in_a_column_that_is_not_used(read):
    assert values(read(GOOD.replace("2.5", "oops"))) == [10.0, 20.0, 30.0]


def test_a_bad_value_in_a_feature(refuse):
    refuse(GOOD.replace("2.5", "oops"), "line 3, column Open: 'oops' is not a number", features=["Open"])


def test_line_numbers_count_the_lines_of_quoted_fields(refuse):
    refuse('Date,Note,Close\n2020-01-01,"a\nb\nc",1\n2020-01-02,d,x\n', "line 5, column Close")


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_line_numbers_count_line_ends_only(refuse, character):
    refuse(f"Date,Note,Close\n2020-01-01,a{character}b,1\n2020-01-02,d,x\n", "line 3, column Close: 'x' is not a")


@pytest.mark.parametrize(
    "content",
    [
        'Date,"Close\n(USD)"\n2020-01-01,x\n',
        'Date,"Close\n(USD)"\n2020-01-01\n',
        '"Da\nte",Close\n2020-01-02,1\n2020-01-02,2\n2020-01-03,3\n',
    ],
)
def test_messages_about_names_of_two_lines(refuse, content):
    refuse(content, "line", *(["Close (USD)"] if "USD" in content else []))


@pytest.mark.parametrize("content", [",\n,\n", ";;;", '""\n', " , \n"])
def test_a_file_of_delimiters(refuse, content):
    refuse(content, "empty")


@pytest.mark.parametrize("labels", [["1", "nan", "2"], ["nan", "1", "2"], ["1", "2", "nan"]])
def test_a_nan_in_the_index(refuse, labels):
    refuse(
        closes(labels, "index,Close"), f"line {labels.index('nan') + 2}, column index: the date is missing; fill it in"
    )


# --- anything at all --------------------------------------------------------------------------------------------


@pytest.fixture
def read_or_refuse(write):
    """``read_or_refuse(content, ...)``: None where the file is read, the message where it is refused; else it fails."""

    def read_or_refuse(content, **options):
        path = write(content)
        try:
            series = read_csv(path, **options)
        except DataError as refusal:
            message = str(refusal)
        else:
            assert series.values.shape == (len(series), len(series.columns))
            assert np.isfinite(series.values).all()
            return None
        return message

    return read_or_refuse


def test_a_damaged_file_is_read_or_refused(read_or_refuse):
    random_ = random.Random(1)
    characters = "0123456789eE+-.,;\t|\"' \n\r:/aNn€"
    messages = []
    for _ in range(600):
        text = list(GOOD)
        for _ in range(random_.randint(1, 4)):
            position = random_.randrange(len(text))
            text[position : position + random_.randint(0, 3)] = random_.choices(characters, k=random_.randint(0, 3))
        messages.append(read_or_refuse("".join(text), target="Close", features=["Open"]))
    assert not any("\n" in message for message in messages if message)
    assert messages.count(None) > 30
    assert len(set(messages)) > 100


def test_garbage_is_refused(read_or_refuse):
    random_ = random.Random(2)
    messages = [
        read_or_refuse("x" + "".join(random_.choices('ab01.,;\t|"-/ \n\r\x0c€', k=random_.randint(1, 60))))
        for _ in range(600)
    ]
    assert len(set(messages)) > 100
    assert None not in [read_or_refuse(b"x" + random_.randbytes(random_.randint(8, 200))) for _ in range(300)]


def test_a_table_of_garbage_is_read_or_refused(read_or_refuse):
    random_ = random.Random(3)
    messages = []
    for _ in range(400):
        rows = [
            ",".join("".join(random_.choices("0123456789" * 3 + ".-e/_ ", k=3)) for _ in range(3)) for _ in range(4)
        ]
        messages.append(read_or_refuse("Note,Open,Close\n" + "\n".join(rows), target="Close"))
    assert 0 < messages.count(None) < 300
