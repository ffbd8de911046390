import csv
import math
import random
from datetime import datetime

import numpy as np
import pytest

from gru_xp.errors import DataError
from gru_xp.forecasting.reading.csv_file import bundled_file, bundled_names, find_file, read_csv
from gru_xp.forecasting.reading.options import ReadOptions

pytestmark = pytest.mark.compat

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
def refuse(write, refusal):
    """``refuse(content, *parts, ...)``: assert that such a file is refused in a line with its path and each part."""

    def refuse(content, *parts, **options):
        path = write(content)
        return refusal(lambda: read_csv(path, **options), str(path), *parts)

    return refuse


# --- the bundled files ------------------------------------------------------------------------------------------


def test_bundled_files():
    for name, target, rows, first, last in (
        ("AAPL.csv", "Close", 3270, "2000-03-01", "2013-03-01"),
        ("GOOG.csv", "Close", 2148, "2004-08-19", "2013-03-01"),
        ("IBM.csv", "Close", 3270, "2000-03-01", "2013-03-01"),
        ("sunspots.csv", "Sunspots", 309, "1700", "2008"),
    ):
        series = read_csv(bundled_file(name))
        with bundled_file(name).open(newline="") as file:
            expected = list(csv.DictReader(file))
        assert len(series) == len(expected) == rows, name
        assert (series.labels[0], series.labels[-1]) == (first, last), name
        assert len(series.dates) == rows, name
        assert series.columns == (target,), name
        assert series.notices == (), name
        assert values(series) == [float(row[target]) for row in expected], name
        assert list(series.labels) == [next(iter(row.values())) for row in expected], name


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


def test_files_that_are_not_found(tmp_path, monkeypatch, refusal):
    monkeypatch.chdir(tmp_path)
    for name in ("missing.csv", "goog", "x/GOOG.csv", "README.md"):
        refusal(lambda name=name: find_file(name), name, "AAPL.csv, GOOG.csv, IBM.csv, sunspots.csv")
    refusal(lambda: find_file(""), "is empty")
    (tmp_path / "folder").mkdir()
    refusal(lambda: find_file("folder"), "folder", "is a directory")
    refusal(lambda: read_csv(tmp_path), str(tmp_path), "cannot be read")
    refusal(lambda: read_csv(tmp_path / "missing.csv"), "missing.csv", "No such file")


# --- forms of files that are right ------------------------------------------------------------------------------


def test_the_same_file_in_other_forms(read):
    for content in (
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
    ):
        series = read(content, features=["Open"])
        assert series.values.tolist() == [[10.0, 1.5], [20.0, 2.5], [30.0, 3.5]], content
        assert series.columns == ("Close", "Open"), content
        assert series.labels == ("2020-01-01", "2020-01-02", "2020-01-03"), content
        assert series.dates == (datetime(2020, 1, 1), datetime(2020, 1, 2), datetime(2020, 1, 3)), content
        assert series.notices == (), content


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
    refuse(content, "2 numeric columns", "Close", "--target", "First, Last")


def test_no_numeric_column(refuse):
    refuse("Date,Note\n2020-01-01,a\n2020-01-02,b\n", "no numeric column", "Date, Note")


def test_a_column_that_is_not_there(refuse):
    for options in ({"target": "High"}, {"features": ["Open", "High"]}):
        refuse(GOOD, "'High'", "Date, Open, Close", **options)


def test_features_keep_their_order_and_come_once(read):
    content = "Date,a,b,c\n2020-01-01,1,2,3\n2020-01-02,4,5,6\n"
    series = read(content, "b", ["c", "b", "a", "c"])
    assert series.columns == ("b", "c", "a")
    assert series.values.tolist() == [[2.0, 3.0, 1.0], [5.0, 6.0, 4.0]]


def test_the_date_is_found_by_name_or_by_its_values(read):
    assert read("v,w,Trade date\n1,a,2020-01-01\n2,b,2020-01-02\n").labels == ("2020-01-01", "2020-01-02")
    assert read("v,timestamp\n1,2020-01-01\n2,2020-01-02\n").dates[1] == datetime(2020, 1, 2)
    assert read("when,v\n2020-01-01,1\n2020-01-02,2\n").dates[1] == datetime(2020, 1, 2)


def test_a_column_whose_name_merely_holds_the_word(read):
    for name in ("Sentiment", "Candidates", "Lifetime value", "Updates"):
        series = read(f"Year,{name}\n2000,5\n2001,3\n2002,7\n")
        assert series.columns == (name,)
        assert series.labels == ("2000", "2001", "2002"), name


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
    (notice,) = series.notices
    assert "sorted" not in notice


def test_rows_in_no_order_are_sorted(read):
    for labels, order in (
        (["2020-01-01", "2020-01-03", "2020-01-02", "2020-01-04"], [0, 2, 1, 3]),
        (["08/19/2004", "09/01/2004", "08/18/2004", "08/20/2004"], [2, 0, 3, 1]),
    ):
        series = read("Date,Close\n" + "".join(f"{label},{i}\n" for i, label in enumerate(labels)))
        assert values(series) == order
        assert series.labels == tuple(labels[i] for i in order)
        (notice,) = series.notices
        assert all(part in notice for part in ("1 row", "line 4", repr(labels[2]), "sorted")), notice


def test_numbers_are_ordered_as_numbers(read):
    assert values(read("index,v\n8,1\n9,2\n10,3\n")) == [1.0, 2.0, 3.0]
    assert values(read("index,v\n10,1\n9,2\n8,3\n")) == [3.0, 2.0, 1.0]
    series = read("index,v\n1,0\n12,1\n10,2\n9,3\n11,4\n")
    assert values(series) == [0.0, 3.0, 2.0, 4.0, 1.0]
    (notice,) = series.notices
    assert all(part in notice for part in ("2 row", "line 4", "'10'", "sorted")), notice


def test_an_index_that_passes_by_years_is_of_numbers(read):
    for numbers in (range(1, 1201), range(1200, 0, -1), (9998, 9999, 10000, 10002)):
        series = read("index,v\n" + "".join(f"{number},{number}\n" for number in numbers))
        assert values(series) == sorted(numbers)
        assert series.dates is None


def closes(labels, header="Date,Close"):
    return header + "\n" + "".join(f"{label},{i}\n" for i, label in enumerate(labels))


def test_a_date_in_digits_that_could_be_anything(refuse):
    for labels, *parts in (
        (["30112019", "01122019"], "digits", "--date-format"),
        (["01122019", "02122019"], "digits"),
        (["1122019", "11122019"], "digits", "--date-format '%d%m%Y' or '%m%d%Y'"),
        (["43832", "43831"], "digits", "spreadsheets", "2020-01-31"),
        (["301119", "011219"], "digits"),
        (["191130", "191201"], "digits"),
        (["11302019", "12012019"], "digits"),
        (["30.11", "01.12"], "year"),
    ):
        refuse(closes(labels), "line 2, column Date", repr(labels[0]), *parts)
    refuse(closes(["1", "3", "2"]), "line 4, column Date: '2'", "'3'")


def test_dates_in_digits_by_their_form_and_their_name(read, refuse):
    labels = ["30112019", "01122019", "02122019"]
    series = read(closes(labels), options=ReadOptions(date_format="%d%m%Y"))
    assert (values(series), series.dates[1]) == ([0.0, 1.0, 2.0], datetime(2019, 12, 1))
    refuse("Ticker,Date,Close\na,30112019,1\na,01122019,2\n", "column Date: '30112019'", "digits")
    assert values(read(closes(["20191201", "20191130"]))) == [1.0, 0.0]
    assert values(read(closes(["1575158400", "1575072000"]))) == [1.0, 0.0]
    assert values(read(closes(["1", "2", "3"]))) == [0.0, 1.0, 2.0]
    assert values(read(closes(["10000", "9000"], "index,Close"))) == [1.0, 0.0]


def test_milliseconds_since_1970(read):
    labels = ["1503028800000", "1502942400000", "1502946000500"]
    for name in ("timestamp", "Date", "Open time"):
        series = read(closes(labels, f"{name},Close"))
        assert values(series) == [1.0, 2.0, 0.0], name
        assert series.dates[1:] == (datetime(2017, 8, 17, 5, 0, 0, 500000), datetime(2017, 8, 18, 4)), name
        assert values(read(f"Symbol,{name},Close\na,1503028800000,1\na,1502942400000,2\n")) == [2.0, 1.0], name


def test_the_only_column_of_full_dates_says_when(read):
    for content in (
        "Ticker,TradeDay,Close\na,2020-01-03,3\na,2020-01-01,1\na,2020-01-02,2\n",
        "Close,When\n3,01/15/2020\n1,01/13/2020\n2,01/14/2020\n",
        ",TradeDay,Close\n0,2020-01-03,3\n1,2020-01-01,1\n2,2020-01-02,2\n",
    ):
        series = read(content)
        assert values(series) == [1.0, 2.0, 3.0], content
        assert len(series.dates) == 3, content
        assert any("sorted" in notice for notice in series.notices), content


def test_an_index_goes_before_dates_that_repeat(read):
    series = read(",Expiry,Close\n0,2020-01-03,3\n1,2020-01-03,1\n")
    assert (values(series), series.labels) == ([3.0, 1.0], ("0", "1"))


def test_several_columns_of_dates_without_a_name(read):
    series = read("Ticker,Opened,Closed,Close\na,2020-01-03,2020-01-04,3\na,2020-01-01,2020-01-02,1\n")
    assert values(series) == [3.0, 1.0]
    (notice,) = series.notices
    assert "order of the file" in notice
    assert "2 columns" in notice
    assert "Opened, Cl" in notice


def test_time_zones_in_no_order_are_sorted_as_instants(read):
    labels = ["2020-01-01T12:00+00:00", "2020-01-01T12:30+05:00", "2020-01-01T09:00-05:00", "2020-01-01T06:00+00:00"]
    assert values(read(closes(labels))) == [3.0, 1.0, 0.0, 2.0]


REPEATED = "Date,Close,Open\n2020-01-03,5,1\n2020-01-01,1,2\n2020-01-02,2,3\n\n2020-01-02,4,4\n2020-01-02,9,\n"


def test_repeated_dates_are_refused(refuse):
    parts = "'2020-01-02'", "line 4", "2 row", "--on-duplicate first, last or mean"
    refuse(REPEATED, "line 6, column Date", *parts)


def test_one_row_of_each_date(read):
    content = REPEATED.replace("9,", "9,7")
    for how, expected in (
        ("first", [[1.0, 2.0], [2.0, 3.0], [5.0, 1.0]]),
        ("last", [[1.0, 2.0], [9.0, 7.0], [5.0, 1.0]]),
        ("mean", [[1.0, 2.0], [5.0, 14 / 3], [5.0, 1.0]]),
    ):
        series = read(content, features=["Open"], options=ReadOptions(on_duplicate=how))
        assert series.values.tolist() == expected, how
        assert series.labels == ("2020-01-01", "2020-01-02", "2020-01-03"), how
        assert [date.day for date in series.dates] == [1, 2, 3], how
        repeat, order = series.notices
        assert all(part in repeat for part in ("column Date", "2 row", "line 6", "'2020-01-02'", how)), repeat
        assert "sorted" in order, how


def test_the_mean_is_of_the_values_that_are_there(read):
    options = ReadOptions(on_duplicate="mean", missing="drop")
    series = read(REPEATED, features=["Open"], options=options)
    assert series.values.tolist() == [[1.0, 2.0], [5.0, 3.5], [5.0, 1.0]]
    assert series.missing is None


def test_first_and_last_are_so_in_the_file(read):
    for how, expected in (("first", [1.0, 3.0]), ("last", [2.0, 3.0]), ("mean", [1.5, 3.0])):
        for dates, numbers in (
            (["2020-01-01", "2020-01-01", "2020-01-02"], [1, 2, 3]),
            (["2020-01-02", "2020-01-01", "2020-01-01"], [3, 1, 2]),
        ):
            content = "Date,Close\n" + "".join(f"{date},{n}\n" for date, n in zip(dates, numbers, strict=True))
            assert values(read(content, options=ReadOptions(on_duplicate=how))) == expected, (how, dates)


def test_dates_alone_count_and_not_how_they_are_written(refuse):
    refuse("Date,Close\n2020-01-01,1\n20200101,2\n", "'20200101' is in line 2 already")
    refuse("index,Close\n1,1\n1.0,2\n", "'1.0' is in line 2 already")


def test_rows_without_dates_may_be_alike(read):
    assert values(read("Close\n5\n5\n5\n")) == [5.0, 5.0, 5.0]


def test_labels_that_are_no_dates(refuse):
    for name in ("Date", "Time", "Week", "index", ""):
        place = f"line 2, column {name or 'without a name'}: 'Monday'"
        refuse(closes(["Monday", "Friday"], f"{name},Close"), place, "--date-format", "'%d/%m/%Y'", "31/12/2020")


def test_words_in_a_column_that_is_not_named_a_date(read):
    series = read(closes(["Monday", "Friday"], "when,Close"))
    assert (values(series), series.labels, series.notices) == ([0.0, 1.0], None, ())


def test_dates_that_are_not_read_in_another_column(refuse):
    for row in ("a,08/{}/04,{}", "0,08/{}/04,{}"):
        for first in ("Ticker", ""):
            rows = "\n".join(row.format(day, day) for day in (20, 19))
            parts = "line 2, column Date: '08/20/04'", "two digits", "%m/%d/%y"
            refuse(f"{first},Date,Close\n{rows}\n", *parts)


def test_times_of_day(read, refuse):
    series = read(closes(["9:30", "10:00", "04:00 PM"], "Time,Close"))
    assert (values(series), series.dates) == ([0.0, 1.0, 2.0], None)
    (notice,) = series.notices
    assert "column Time" in notice
    assert "order of the file" in notice
    for labels in (["09:30", "09:30"], ["09:30", "09:29"]):
        refuse(closes(labels, "Time,Close"), f"line 3, column Time: '{labels[1]}'", "'09:30'", "date")


def test_years_of_two_digits(read, refuse):
    for labels in (["98", "99", "00", "01"], ["01", "00", "99", "98"]):
        content = closes(labels, "Year,Close")
        refuse(content, f"column Year: '{labels[0]}'", "two digits", "--date-format %y")
        series = read(content, options=ReadOptions(date_format="%y"))
        assert [date.year for date in series.dates] == [1998, 1999, 2000, 2001]
    assert values(read(closes(["97", "98", "99"], "Year,Close"))) == [0.0, 1.0, 2.0]


def test_a_date_that_is_spread_over_columns(refuse):
    for content, columns in (
        ("Year,Month,Close\n2000,1,5\n2000,2,6\n", "Year, Month"),
        ("Month,Year,Close\n1,2000,5\n1,2001,6\n", "Month, Year"),
        ("Month,Year,Close\nJan,2000,5\nJan,2001,6\n", "Month, Year"),
        ("Date,Time,Close\n2020-01-01,09:30,5\n2020-01-01,09:31,6\n", "Date, Time"),
        ("Time,Date,Close\n09:30,2020-01-01,5\n10:30,2020-01-01,6\n09:30,2020-01-02,7\n", "Time, Date"),
    ):
        refuse(content, f"2 columns ({columns})", "join")


def test_the_month_beside_a_date_is_no_part_of_it(refuse):
    content = "Date,Month,Hour,Close\n2020-01-01,1,2,5\n2020-01-01,1,2,6\n"
    refuse(content, "--on-duplicate", features=["Hour"])


def test_dates_a_nanosecond_apart(read, refuse):
    for labels in (
        ["1577836800000000001", "1577836800000000000"],
        ["2020-01-01 00:00:00.0000000010", "2020-01-01 00:00:00.000000000"],
    ):
        assert values(read(closes(labels))) == [1.0, 0.0]
        refuse(closes([*labels, labels[0].rstrip("0")]), "line 4, column Date: ", "line 2")


# --- files that are wrong ---------------------------------------------------------------------------------------


def test_empty_files(refuse):
    for content in ("", "\n", " \n\n\t\n", "\ufeff", "\r\n", ",\n,\n", ";;;", '""\n', " , \n"):
        refuse(content, "empty")
    for content in ("Date,Close\n", "Date,Close", "Date,Close,\n", "Date,Close\n\n,\n"):
        refuse(content, "no rows")


def test_no_header(read, refuse):
    for content in (
        "2020-01-01,1.5\n2020-01-02,2.5\n",
        "1.5\n2.5\n",
        "08/19/2004;1;2\n08/20/2004;1;2\n",
        "1,1\n2,2\n",
        "1/1/20,20\n1/2/20,21\n",
        "2020Q1,100\n",
        "AAPL,100\nIBM,5\n",
        "AAPL,100,3\nIBM,5,6\n",
    ):
        refuse(content, "first line", "add a header line")
    series = read("Country,2020\na,5\nb,6\n", "2020")
    assert (series.target, values(series)) == ("2020", [5.0, 6.0])


def test_a_last_row_of_totals(read, refuse):
    for last in ("Total", "TOTAL:", "sum", "Sub-total", "subtotals", "Grand Total:", "average", "Mean", "", "-"):
        content = f"Item,Close\na,5\nb,6\n{last},11\n"
        refuse(content, "line 4, column Item: ", "total", "remove the line")
        assert values(read(content.replace(last + ",11", "c,7"))) == [5.0, 6.0, 7.0], last


def test_a_last_row_like_others(read):
    for content in (
        "Id,v\n3,5\n1,6\n,11\n",
        "Item,v\na,5\n,6\n,11\n",
        "Item,v\na,5\nTotal,6\nb,11\n",
        "Item,v\na,5\nTotals of Lee,11\n",
    ):
        assert values(read(content, "v"))[-1] == 11.0, content


def test_the_delimiter_that_excel_names(read, refuse):
    for delimiter in (";", ",", "\t", "|"):
        for first in ("sep={}\n", '"SEP={}"\n', "\n\nsep={}\r\n\n"):
            first = first.format(delimiter)
            assert values(read(first + GOOD.replace(",", delimiter))) == [10.0, 20.0, 30.0], first
            content = first + GOOD.replace(",30", ",x").replace(",", delimiter)
            refuse(content, f"line {content.count(chr(10))}, column Close: 'x'")
    refuse("sep=:\n" + GOOD, "line 1: ", "':'", "comma, semicolon, tab or bar")


def test_lines_before_the_header(refuse):
    for before, *parts in (
        ("# made by me\n", "line 1: ", "'# made by me'"),
        ("# made, by me\n", "line 1: ", "'# made'"),
        ("# a, b, c\n# d, e, f\n", "line 1: ", "'# a'"),
        ("My report\n", "line 1: ", "'My report'", "line 2"),
        ("\nMy report\n\n", "line 2: ", "'My report'", "line 4"),
        ("My report,,\n", "line 1: ", "'My report'", "line 2"),
    ):
        for delimiter in ",;":
            content = before + GOOD
            content = content if "," in before else content.replace(",", delimiter)
            refuse(content, *parts, "remove the lines before the header")


def test_a_header_with_a_number_sign(read):
    for content in ("#,Date,Close\n1,2020-01-01,5\n", "# of users\n5\n", "# Date,Close\n2020-01-01,5\n"):
        assert values(read(content)) == [5.0], content


def test_spaces_between_columns(read, refuse):
    for row in ("2020-01-01 5", "2020-01-01  10:00 5"):
        refuse(f"Date Close\n{row}\n", "line 1: ", "'Date Close'", "comma, semicolon")
    for cell in ("5", "5 %", "$ 5"):
        assert values(read(f"Growth rate\n{cell}\n")) == [5.0], cell


def test_decimal_commas(read, refuse):
    for delimiter in ("; ", ";", "\t"):
        content = f"Date{delimiter}Close\n2020-01-01{delimiter}1\n2020-01-02{delimiter}2,5\n"
        error = refuse(content, "line 3, column Close: '2,5'")
        assert str(error).endswith("give --decimal ,"), delimiter
        assert values(read(content, options=ReadOptions(decimal=","))) == [1.0, 2.5], delimiter


def test_decimal_commas_between_commas(read, refuse):
    refuse("Date,Close\n2020-01-01,1,5\n", "line 2: has 3 fields", "2 (Date, Close)", "quotes")
    quoted = 'Date,Close\n2020-01-01,"1,5"\n2020-01-02,"2,25"\n'
    refuse(quoted, "line 2, column Close: '1,5'", "decimal comma")
    assert values(read(quoted, options=ReadOptions(decimal=","))) == [1.5, 2.25]


def test_decimal_commas_in_one_column(read, refuse):
    refuse("Close\n1,5\n2,25\n", "line 2: has 2 fields", "1 (Close)", "give --decimal ,")
    assert values(read("Close\n1,5\n2,25\n", options=ReadOptions(decimal=","))) == [1.5, 2.25]


def test_ragged_rows(refuse):
    for row in ("2020-01-04", "2020-01-04,1", "2020-01-04,1,2,3", "2020-01-04,1,2,"):
        fields = row.count(",") + 1
        refuse(GOOD + row + "\n", f"line 5: has {fields} fields", "the header has 3")


def test_broken_quotes(refuse):
    for content, *parts in (
        ('Date,Close\n2020-01-01,"1"x\n', "line 2: not CSV", "quote"),
        ('Date,Close\n2020-01-01,"1\n', "line 2: not CSV"),
        ('Date,Close\n\n2020-01-01,"1\n' + "2020-01-02,2\n" * 500, "line 3: not CSV", "in line 503"),
        ('\n\nDate,Close\n2020-01-01,1\n2020-01-02,"1\n2020-01-03,"2"\n', "line 5: not CSV", "in line 6"),
        ('Date,Close\n2020-01-01,"1\n' + "2020-01-02,2\n" * 50_000, "line 2: not CSV"),
        ("Date,Close\n2020-01-01," + "1" * 200_000 + "\n", "line 2: not CSV"),
    ):
        refuse(content, *parts)


def test_a_repeated_column(refuse):
    refuse("Date,Close,Open,Close\n2020-01-01,1,2,3\n", "line 1: ", "'Close' twice")


def test_values_that_are_no_numbers(refuse):
    for text, problem in (
        ("abc", "not a number"),
        ("inf", "too large"),
        ("-Infinity", "too large"),
        ("1e400", "too large"),
        ("1_000", "not a number"),
        ("1 000", "not a number"),
        ("(5.0)", "not a number"),
        ("0x10", "not a number"),
        ("true", "not a number"),
        ("2020-01-01", "not a number"),
    ):
        for blank, line in (("", 4), ("\n\n", 6)):
            rows = f"2020-01-01,1,10\n{blank}2020-01-02,2,20\n2020-01-03,3,{text}\n2020-01-04,4,40\n"
            place = f"line {line}, column Close: '{text}'"
            refuse("Date,Open,Close\n" + rows, place, problem, "correct the row or remove it")


def test_a_bad_value_in_a_column_that_is_not_used(read):
    assert values(read(GOOD.replace("2.5", "oops"))) == [10.0, 20.0, 30.0]


def test_a_bad_value_in_a_feature(refuse):
    refuse(GOOD.replace("2.5", "oops"), "line 3, column Open: 'oops'", features=["Open"])


def test_line_numbers(refuse):
    """They count the lines of quoted fields, and no signs that merely end a line of text elsewhere."""
    refuse('Date,Note,Close\n2020-01-01,"a\nb\nc",1\n2020-01-02,d,x\n', "line 5, column Close: 'x'")
    for character in "\x0b\x0c\x1c\x85\u2028":
        content = f"Date,Note,Close\n2020-01-01,a{character}b,1\n2020-01-02,d,x\n"
        refuse(content, "line 3, column Close: 'x'")


def test_messages_about_names_of_two_lines(refuse):
    refuse('Date,"Close\n(USD)"\n2020-01-01,x\n', "line 3, column Close (USD): 'x'", target="Close (USD)")
    refuse('Date,"Close\n(USD)"\n2020-01-01\n', "line 3: ", "Close (USD)", target="Close (USD)")
    refuse('"Da\nte",Close\n2020-01-02,1\n2020-01-02,2\n2020-01-03,3\n', "line 4", "column Da te", "line 3")


def test_a_nan_in_the_index(refuse):
    for labels in (["1", "nan", "2"], ["nan", "1", "2"], ["1", "2", "nan"]):
        place = f"line {labels.index('nan') + 2}, column index"
        refuse(closes(labels, "index,Close"), place, "missing")


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
    for _ in range(300):
        text = list(GOOD)
        for _ in range(random_.randint(1, 4)):
            position = random_.randrange(len(text))
            text[position : position + random_.randint(0, 3)] = random_.choices(characters, k=random_.randint(0, 3))
        messages.append(read_or_refuse("".join(text), target="Close", features=["Open"]))
    assert not any("\n" in message for message in messages if message)
    assert messages.count(None) > 15
    assert len(set(messages)) > 50


def test_garbage_is_refused(read_or_refuse):
    random_ = random.Random(2)
    messages = [
        read_or_refuse("x" + "".join(random_.choices('ab01.,;\t|"-/ \n\r\x0c€', k=random_.randint(1, 60))))
        for _ in range(300)
    ]
    assert len(set(messages)) > 50
    assert None not in [read_or_refuse(b"x" + random_.randbytes(random_.randint(8, 200))) for _ in range(150)]


def test_a_table_of_garbage_is_read_or_refused(read_or_refuse):
    random_ = random.Random(3)
    messages = []
    for _ in range(200):
        rows = [
            ",".join("".join(random_.choices("0123456789" * 3 + ".-e/_ ", k=3)) for _ in range(3)) for _ in range(4)
        ]
        messages.append(read_or_refuse("Note,Open,Close\n" + "\n".join(rows), target="Close"))
    assert 0 < messages.count(None) < 150
