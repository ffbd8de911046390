import csv
import random
from pathlib import Path

import pandas as pd
import pytest

from gru_xp.data import bundled_file, find_file
from gru_xp.errors import DataError
from gru_xp.io.csv_file import read_csv_table
from gru_xp.io.messages import command_line
from gru_xp.io.options import ReadOptions
from gru_xp.io.read import read as read_series

pytestmark = pytest.mark.compat

GOOD = "Date,Open,Close\n2020-01-01,1.5,10\n2020-01-02,2.5,20\n2020-01-03,3.5,30\n"


@pytest.fixture
def read(write):
    """``read(content, ...)``: the table of a file of that content."""

    def read(content, **options):
        return read_csv_table(write(content), "file", ReadOptions(**options))

    return read


@pytest.fixture
def refuse(write, refusal):
    """``refuse(content, *parts, ...)``: assert that such a file is refused in a line with its name and each part."""

    def refuse(content, *parts, **options):
        path = write(content)
        return refusal(lambda: read_csv_table(path, "file", ReadOptions(**options)), "file", *parts)

    return refuse


def rows(table):
    return list(zip(*(column.cells for column in table.columns), strict=True))


# --- files ------------------------------------------------------------------------------------------------------


def test_files_are_found(tmp_path, monkeypatch, write):
    for name in ("GOOG.csv", "GOOG"):
        assert find_file(name) == (bundled_file("GOOG.csv"), True)
    own = write(GOOD, "GOOG.csv")
    assert find_file(str(own)) == (own, False)
    monkeypatch.chdir(tmp_path)
    path, is_bundled = find_file("GOOG.csv")
    assert (path.resolve(), is_bundled) == (own.resolve(), False)
    assert find_file("-") == (Path("-"), False)
    write(GOOD, "-")
    assert len(read_csv_table(find_file("./-")[0], "file", ReadOptions())) == 3


def test_files_that_are_not_found(tmp_path, monkeypatch, refusal):
    monkeypatch.chdir(tmp_path)
    for name in ("missing.csv", "goog", "x/GOOG.csv", "README.md"):
        refusal(lambda name=name: find_file(name), name, "AAPL.csv, GOOG.csv, IBM.csv, sunspots.csv")
    refusal(lambda: find_file(""), "is empty")
    (tmp_path / "folder").mkdir()
    refusal(lambda: find_file("folder"), "folder", "is a directory")


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
        GOOD + ",,\n" * 3000,
        "\n".join(",".join(f'"{field}"' for field in line.split(",")) for line in GOOD.splitlines()),
        "\n".join("\t".join(f'"{field}"' for field in line.split(",")) for line in GOOD.splitlines()),
    ):
        table = read(content)
        assert table.names == ["Date", "Open", "Close"], content
        expected = [tuple(line.split(",")) for line in GOOD.splitlines()[1:]]
        assert [tuple(cell.strip() for cell in row) for row in rows(table)] == expected, content


def test_quoted_fields_may_hold_anything(read):
    table = read('Date,"Note, with ""quotes""",Close\n2020-01-01,"a,b\nc",10\n2020-01-02,"",20\n')
    assert table.names == ["Date", 'Note, with "quotes"', "Close"]
    assert rows(table) == [("2020-01-01", "a,b\nc", "10"), ("2020-01-02", "", "20")]
    assert rows(read('Date,Note,Close\n2020-01-01,5" pipe,1.5\n')) == [("2020-01-01", '5" pipe', "1.5")]
    assert read('"Da\nte";"Close, adjusted"\n2020-01-01;1.5\n').names == ["Da te", "Close, adjusted"]


def test_lines(read):
    """They count the lines of quoted fields, and no characters that merely end a line of text elsewhere."""
    for end in ("\n", "\r\n", "\r"):
        table = read(f'{end}Date,Note{end}2020-01-01,"a{end}b{end}c"{end}{end}2020-01-02,d{end}'.encode())
        assert list(table.lines) == [5, 7], end
    for character in "\x0b\x0c\x1c\x85\u2028":
        assert list(read(f"Date,Note\n2020-01-01,a{character}b\n2020-01-02,d\n").lines) == [2, 3]
    table = read("Date,Close\n" + "\n2020-01-01,1\n" * 5000)
    assert list(table.lines) == list(range(3, 10_003, 2))
    assert table.where(1) == "line 5"


def test_rows_that_are_missing_values(read):
    assert rows(read('Close\n5\n\n""\n')) == [("5",), ("",)]
    assert rows(read("Date,Close\n2020-01-01,1\n,\n2020-01-03,3\n"))[1] == ("", "")


def test_the_delimiter_that_excel_names(read, refuse):
    for delimiter in (";", ",", "\t", "|"):
        for first in ("sep={}\n", '"SEP={}"\n', "\n\nsep={}\r\n\n"):
            content = first.format(delimiter) + GOOD.replace(",", delimiter)
            table = read(content)
            assert (table.names, table.delimiter) == (["Date", "Open", "Close"], delimiter), first
            assert table.lines[-1] == content.count("\n"), first
    refuse("sep=:\n" + GOOD, "keep the header line")


def test_the_decimal_sign_and_the_delimiter(read, refuse):
    for delimiter in ("; ", ";", "\t"):
        content = f"Date{delimiter}Close\n2020-01-01{delimiter}1\n2020-01-02{delimiter}2,5\n"
        for decimal in (None, ","):
            assert rows(read(content, decimal=decimal))[1] == ("2020-01-02", "2,5"), delimiter
    assert rows(read('Date,Close\n2020-01-01,"1,5"\n', decimal=",")) == [("2020-01-01", "1,5")]
    assert rows(read("Close\n1,5\n2,25\n", decimal=",")) == [("1,5",), ("2,25",)]
    assert read("Date;Close, in EUR, total\n2020-01-01;5\n", decimal=",").names[0] == "Date"
    refuse("Close\n1,5\n2,25\n", "line 2: has 2 fields", "1 (Close)", "give decimal=','")
    with command_line():
        refuse("Close\n1,5\n2,25\n", "give --decimal")
    refuse("Date,Close\n2020-01-01,1,5\n", "line 2: has 3 fields", "2 (Date, Close)", "quotes")


def test_a_name_may_come_twice(read, refusal):
    table = read("date,AA,AA,DAX\n2023-01-01,0,1,5\n")
    assert table.names == ["date", "AA", "AA", "DAX"]
    assert table.column("DAX").cells == ["5"]
    refusal(lambda: table.column("AA"), "file: 2 columns are named 'AA'", "rename")


# --- headers ----------------------------------------------------------------------------------------------------


def test_no_header(read, refuse):
    for content in (
        "2020-01-01,1.5\n2020-01-02,2.5\n",
        "1.5\n2.5\n",
        "08/19/2004;1;2\n08/20/2004;1;2\n",
        "1,1\n2,2\n",
        "1/1/20,20\n1/2/20,21\n",
        "2020Q1,100\n",
        "2020-01-01,1,x\n2020-01-02,2,y\n",
        "x,2020-01-01,1\ny,2020-01-02,2\n",
    ):
        refuse(content, "line 1: the first line looks like data", "add a header line")
    for content in (
        "Country,2020\na,5\nb,6\n",
        "id,item_id,d_1,d_2\nFOODS_0,F_0,0,1\n",
        "RegionID,RegionName,2023-01-31,2023-02-28\n0,City 0,100.5,101.5\n",
        ",2023-01-31,2023-02-28\nCity 0,100.5,101.5\n",
        "Province,Lat,1/1/20,2/1/20\n,0.5,100,200\n",
        "Year 2020\n5\n",
    ):
        assert read(content).names == content.split("\n")[0].split(","), content


def test_lines_before_the_header(refuse, read):
    for before in (
        "# made by me\n",
        "# made, by me\n",
        "# a, b, c\n# d, e, f\n",
        "My report\n",
        "\nMy report\n\n",
        "My report,,\n",
        "My report;;\n",
        "Station,Berlin\nElevation,55\n\n",
        "Station: Berlin; 55 m\n",
        "2020-01-01 export\nby me\n",
        "# a\n" * 40,
        "-BEGIN HEADER-\nDates: 01/01/2020, 03/01/2020\n-END HEADER-\n",
        '"A title, of\ntwo lines"\n',
    ):
        for delimiter in ",;\t":
            table = GOOD.replace(",", delimiter)
            message = str(refuse(before + table, "line", "header", "remove "))
            assert any(part in message for part in ("keep the header line", "lines before")), message
            assert len(read("".join((before + table).splitlines(keepends=True)[before.count("\n") :]))) == 3, before


def test_one_name_for_several_columns(refuse):
    for content in ("Open\t\t\n57\t\t12\n", "Date;;\n11;38;hello\n", "My report,,\n2020-01-01,1,2\n"):
        refuse(content, "line 1: ", "looks like data or a title (", "add a header line", "remove lines before it")


def test_a_header_with_a_number_sign(read):
    for content in ("#,Date,Close\n1,2020-01-01,5\n", "# of users\n5\n", "# Date,Close\n2020-01-01,5\n"):
        assert len(read(content)) == 1, content


def test_a_row_of_units(read, refuse):
    for header, units, row in (
        ("Date,Temp,Wind", ",degC,m/s", "2020-01-01,1,2"),
        ("Date,Temp,Wind", "date,degC,%", "2020-01-01,1,2"),
        ("Date,Temp,Wind", "yyyy-mm-dd,°C,-", "2020-01-01,1,2"),
        ("Date;Close", ";USD", "2020-01-01;1"),
        ("Date,Open,Close", ",USD,USD", "2020-01-01,1,2"),
        ("Close", "USD", "5"),
        ("Ticker,Open,Close", "A,n.v.,n.v.", "B,1,2"),
    ):
        lines = [header, units, row]
        error = refuse("\n".join(lines), "lines 1 to 2 are above", "keep the header line", "missing_values=")
        assert read(f"{header}\n{row}\n").lines[0] == 2
        mark = str(error).rpartition("missing_values='")[2].partition("'")[0]
        assert len(read("\n".join(lines), missing_values=mark)) == 2, units
    refuse(
        "\n".join(["Date,Temp", ",degC", ",daily mean", "2020-01-01,1"]), "lines 1 to 3 are above", "(degC, daily mean)"
    )


def test_texts_that_are_no_units(read):
    for content in (
        "Name,Note,Value\nSmith,hello,NA\nJones,x,5\n",
        "Name,Note,Value\nSmith,hello,\nJones,x,\nLee,y,z\n",
        "Date,Close\n2020-01-01,x\n2020-01-02,5\n",
        "Open,Close\n1,x\n2,5\n",
        "Name,Note\nSmith,hello\nJones,x\n",
        "Datum;Umsatz\n31. Dezember 2023;keiner\n30. Dezember 2023;5\n",
    ):
        assert len(read(content)) == content.count("\n") - 1, content


LEVELS = {
    "one ticker": ("Price,Close,High,Volume\nTicker,AAA,AAA,AAA\nDate,,,\n", ["Date", "Close", "High", "Volume"]),
    "one price": ("Price,Close\nTicker,AAA\nDate,\n", ["Date", "Close"]),
    "two tickers": (
        "Price,Close,Close,High\nTicker,AAA,BBB,BBB\nDate,,,\n",
        ["Date", "Close AAA", "Close BBB", "High BBB"],
    ),
    "one price of two": ("Price,Close,Close\nTicker,AAA,BBB\nDate,,\n", ["Date", "AAA", "BBB"]),
    "by ticker": (
        "Ticker,AAA,AAA,BBB\nPrice,Open,Close,Close\nDate,,,\n",
        ["Date", "AAA Open", "AAA Close", "BBB Close"],
    ),
    "by one ticker": ("Ticker,AAA,AAA\nPrice,Open,Close\nDate,,\n", ["Date", "Open", "Close"]),
    "without names": (",Close,High\n,AAA,BBB\nDate,,\n", ["Date", "Close AAA", "High BBB"]),
    "two aggregates": (",sales,price\n,sum,mean\ndate,,\n", ["date", "sales sum", "price mean"]),
    "three levels": ("a,x,x,y\nb,p,q,q\nc,k,k,k\nDate,,,\n", ["Date", "x p", "x q", "y q"]),
}


def test_columns_of_several_levels(read):
    for case, (header, names) in LEVELS.items():
        for delimiter in ",;":
            values = [f"2020-01-0{day}" + ",7.5" * (len(names) - 1) for day in range(1, 4)]
            table = read((header + "\n".join(values)).replace(",", delimiter))
            assert table.names == names, case
            assert rows(table) == [tuple(row.split(",")) for row in values], case
            assert table.lines[0] == header.count("\n") + 1, case


def test_columns_of_several_levels_by_pandas(read):
    dates = pd.date_range("2020-01-01", periods=3, freq="D")
    for tickers in (["AAA"], ["AAA", "BBB"]):
        for names in (["Price", "Ticker"], [None, None]):
            columns = pd.MultiIndex.from_product([["Close", "High"], tickers], names=names)
            frame = pd.DataFrame(7.5, dates.rename("Date"), columns)
            table = read(frame.to_csv())
            joined = [" ".join(name) if len(tickers) > 1 else name[0] for name in columns]
            assert table.names == ["Date", *joined], (tickers, names)
            assert table.columns[0].cells == ["2020-01-01", "2020-01-02", "2020-01-03"]


def test_no_columns_of_several_levels(refuse):
    for content in (
        "Price,Close,Open\nTicker,AAA,BBB\n2020-01-01,1,2\n",
        ",Close,Close\n,AAA,BBB\n2020-01-01,1,2\n",
        "Date,Close,Close\n,AAA,BBB\n2020-01-01,1,2\n",
        "Price,Close,,High,\nTicker,AAA,BBB,AAA,BBB\nDate,,,,\n2020-01-01,1,2,3,4\n",
        "Close,Close\nAAA,AAA\n5,6\n",
        "Name,Close\nAAA,AAA\n5,6\n",
        "Item,Close\nx,n.v.\ny,\nz,5\n",
        "Id,Close,Note\nx,?,\n5,1,\n",
        "Item,Close,Close\nx,AAA,BBB\np,1,2\n",
        "Date,Close,,High,\n,AAA,BBB,AAA,BBB\n2020-01-01,1,2,3,4\n",
    ):
        refuse(content, "lines 1 to ", "keep the header line")


def test_spaces_between_columns(read, write, refusal):
    for row in ("2020-01-01 5", "2020-01-01  10:00 5"):
        path = write(f"Date Close\n{row}\n")
        refusal(lambda path=path: read_series(path, None, (), ReadOptions()), "Date Close")
    for cell in ("5", "5 %", "$ 5"):
        assert rows(read(f"Growth rate\n{cell}\n")) == [(cell,)]


# --- files that are wrong ---------------------------------------------------------------------------------------


def test_empty_files(refuse):
    for content in ("", "\n", " \n\n\t\n", "\ufeff", "\r\n", ",\n,\n", ";;;", '""\n', " , \n"):
        refuse(content, "empty")
    for content in ("Date,Close\n", "Date,Close", "Date,Close,\n", "Date,Close\n\n,\n"):
        refuse(content, "no rows")


def test_ragged_rows(refuse):
    for row in ("2020-01-04", "2020-01-04,1", "2020-01-04,1,2,3", "2020-01-04,1,2,"):
        fields = row.count(",") + 1
        refuse(GOOD + row + "\n", f"line 5: has {fields} fields", "the header has 3 (Date, Open, Close)", "quotes")
        refuse(GOOD + "2020-01-04,1,2\n" * 2000 + row + "\n", f"line 2005: has {fields} fields")
    refuse(GOOD + ",,,\n2020-01-04,1,2\n", "line 5: has 4 fields")
    refuse("Date,Close\n2020-01-01,1,2\n2020-01-02,1,2\n", "line 2: has 3 fields")


def test_broken_quotes(refuse):
    for content, *parts in (
        ('Date,Close\n2020-01-01,"1"x\n', "line 2: not CSV", "quote"),
        ('Date,Close\n2020-01-01,"2.5"0\n', "line 2: not CSV", "quote"),
        ('Date,Close\n2020-01-01,"1\n', "line 2: not CSV"),
        ('Date,"Close\n2020-01-01,1\n', "line 1: not CSV"),
        ('Date,Close\n\n2020-01-01,"1\n' + "2020-01-02,2\n" * 500, "line 3: not CSV", "in line 503"),
        ('\n\nDate,Close\n2020-01-01,1\n2020-01-02,"1\n2020-01-03,"2"\n', "line 5: not CSV", "in line 6"),
        ('Date,Close\n2020-01-01,"1\n' + "2020-01-02,2\n" * 50_000, "line 2: not CSV"),
        ("Date,Close\n2020-01-01," + "1" * 200_000 + "\n", "line 2: not CSV"),
        ("Date,Close" + "x" * 200_000 + "\n2020-01-01,1\n", "line 1: not CSV"),
    ):
        refuse(content, *parts)


def test_a_quote_that_is_not_closed_where_fields_may_be_long(refuse):
    before = csv.field_size_limit(2**31 - 1)
    try:
        refuse('Date,Close\n2020-01-01,"1\n' + "2020-01-02,2\n" * 200_000, "line 2: not CSV", "quote")
    finally:
        csv.field_size_limit(before)


def test_nothing_that_a_terminal_would_obey(refuse):
    for control in ("\x1b[31m", "\x07", "\x9b2J", "\u202e"):
        for content in (
            f"Date,{control}\n2020-01-01,1,2\n",
            f"Date,{control}a,{control}b\n2020-01-01,1\n",
            f"x{control}\nDate,Close\n2020-01-01,1\n",
            f"Date,Close\n,{control}x\n2020-01-01,1\n",
            f"sep={control[0]}\n",
        ):
            refuse(content)


def test_messages_stay_short(refuse):
    header = ",".join(f"column_{i}" for i in range(5000))
    error = refuse(f"{header}\n1\n", "column_0, column_1, column_2 and 4997 more")
    assert len(str(error)) < 1000


def test_more_cells_than_a_table_has(tmp_path, monkeypatch, refusal):
    monkeypatch.setattr("gru_xp.io.csv_file.MAX_CELLS", 10_000)
    path = tmp_path / "series.csv"
    path.write_text("Date,Close\n" + "2020-01-02,2\n" * 6000)
    refusal(lambda: read_csv_table(path, "file", ReadOptions()), "more than 10,000 cells")


# --- anything at all --------------------------------------------------------------------------------------------


def test_a_damaged_file_is_read_or_refused(write):
    random_ = random.Random(1)
    characters = "0123456789eE+-.,;\t|\"' \n\r:/aNn€"
    messages = []
    for _ in range(600):
        text = list(GOOD)
        for _ in range(random_.randint(1, 4)):
            position = random_.randrange(len(text))
            text[position : position + random_.randint(0, 3)] = random_.choices(characters, k=random_.randint(0, 3))
        path = write("".join(text))
        try:
            table = read_csv_table(path, "file", ReadOptions())
        except DataError as error:
            messages.append(str(error))
            assert messages[-1].isprintable()
        else:
            with path.open(newline="") as file:
                plain = [row for row in csv.reader(file, delimiter=table.delimiter, skipinitialspace=True) if row]
            assert set(rows(table)) <= {tuple(row)[: len(table.columns)] for row in plain}
    assert 100 < len(messages) < 500
    assert len(set(messages)) > 50
