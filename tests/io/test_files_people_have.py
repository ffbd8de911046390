"""One table of the files that people have: each gives the right numbers, or one line that says what is where."""

import gzip
import io
import zipfile

import pytest

from gru_xp.errors import DataError
from gru_xp.io.messages import command_line
from gru_xp.io.options import ReadOptions
from gru_xp.io.read import read

pytestmark = pytest.mark.compat


def read_file(path, target=None, features=(), **options):
    """The series in a file, as the command line reads it."""
    with command_line():
        return read(path, target, features, ReadOptions(**options))


PLAIN = "Date,Close\n2020-01-01,1.5\n2020-01-02,2.5\n2020-01-03,-3.25\n"
NUMBERS = [1.5, 2.5, -3.25]


def zipped(*members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def column(*cells, delimiter=";"):
    """A file with these cells under Close."""
    rows = "".join(f"2020-01-{day:02d}{delimiter}{cell}\n" for day, cell in enumerate(cells, start=1))
    return f"Date{delimiter}Close\n{rows}"


def dated(*dates):
    """A file with these dates, and 1, 2, 3 ... under Close."""
    return "Date;Close\n" + "".join(f"{date};{number}\n" for number, date in enumerate(dates, start=1))


READ = {
    # text
    "UTF-8": (PLAIN, {}, NUMBERS),
    "byte order mark": (PLAIN.encode("utf-8-sig"), {}, NUMBERS),
    "UTF-16 with mark": (PLAIN.encode("utf-16"), {}, NUMBERS),
    "UTF-16, big end first, with mark": ("\ufeff".encode("utf-16-be") + PLAIN.encode("utf-16-be"), {}, NUMBERS),
    "UTF-16 without mark": (PLAIN.encode("utf-16-le"), {}, NUMBERS),
    "UTF-16, big end first, without mark": (PLAIN.encode("utf-16-be"), {}, NUMBERS),
    "UTF-16 that is named": (PLAIN.encode("utf-16-le"), {"encoding": "utf-16-le"}, NUMBERS),
    "cp1252": (PLAIN.replace("Date", "Tag für Tag").encode("cp1252"), {"encoding": "cp1252"}, NUMBERS),
    "a mark, and UTF-8 that is named": (PLAIN.encode("utf-8-sig"), {"encoding": "utf-8"}, NUMBERS),
    "CRLF": (PLAIN.replace("\n", "\r\n"), {}, NUMBERS),
    "CR": (PLAIN.replace("\n", "\r"), {}, NUMBERS),
    "no end of the last line": (PLAIN.strip(), {}, NUMBERS),
    "blank lines": (PLAIN.replace("\n", "\n\n"), {}, NUMBERS),
    "empty rows at the end": (PLAIN + ",\n,\n", {}, NUMBERS),
    "a delimiter at each end": (PLAIN.replace("\n", ",\n"), {}, NUMBERS),
    "gzip": (gzip.compress(PLAIN.encode()), {}, NUMBERS),
    "gzip in two parts": (gzip.compress(PLAIN[:30].encode()) + gzip.compress(PLAIN[30:].encode()), {}, NUMBERS),
    "gzip of UTF-16": (gzip.compress(PLAIN.encode("utf-16")), {}, NUMBERS),
    "zip": (zipped(("prices.csv", PLAIN)), {}, NUMBERS),
    "zip of a Mac": (zipped(("prices.csv", PLAIN), ("__MACOSX/._prices.csv", b"\0")), {}, NUMBERS),
    "zip with a folder": (zipped(("data/", ""), ("data/prices.csv", PLAIN)), {}, NUMBERS),
    "quotes": ('"Date","Close"\n"2020-01-01","1.5"\n"2020-01-02","2.5"\n"2020-01-03","-3.25"\n', {}, NUMBERS),
    "a lone quote in a field": ('Date,Note,Close\n2020-01-01,5" pipe,1.5\n2020-01-02,x,2\n', {}, [1.5, 2.0]),
    "a delimiter in a name": ('Date;"Close, adjusted"\n2020-01-01;1.5\n2020-01-02;2\n', {}, [1.5, 2.0]),
    "a name of two lines": ('"Da\nte";Close\n2020-01-01;1.5\n2020-01-02;2\n', {}, [1.5, 2.0]),
    # numbers
    "decimal commas": (column("1,5", "2,5", "-3,25"), {"decimal": ","}, NUMBERS),
    "decimal commas, tabs": (column("1,5", "2,5", "-3,25", delimiter="\t"), {"decimal": ","}, NUMBERS),
    "decimal commas, points in thousands": (
        column("1.234,5", "1.234.567", "2"),
        {"decimal": ","},
        [1234.5, 1234567, 2],
    ),
    "decimal commas, a point in thousands": (column("1.234"), {"decimal": ","}, [1234.0]),
    "decimal commas, exponents": (column("1,5e3", "-2,5E-1"), {"decimal": ","}, [1500.0, -0.25]),
    "commas in thousands": (column("1,234.56", "-1,234,567", "+12"), {}, [1234.56, -1234567.0, 12.0]),
    "commas that one number makes clear": (column("1,234", "1,234,567", "999"), {}, [1234.0, 1234567.0, 999.0]),
    "commas, and a decimal point that is given": (column("1,234", "5"), {"decimal": "."}, [1234.0, 5.0]),
    "points that one number makes clear": (column("1.234", "0.500", "999"), {}, [1.234, 0.5, 999.0]),
    "points that a long number makes clear": (column("1.234", "1000", ""), {"missing": "drop"}, [1.234, 1000.0]),
    "points that can only group": (column("5", "1.234.567"), {}, [5.0, 1234567.0]),
    "spaces that can only group": (column("1 234 567", "5"), {}, [1234567.0, 5.0]),
    "apostrophes": (column("1'234.50", "2"), {}, [1234.5, 2.0]),
    "as in India": (column("51,28,100", "2"), {}, [5128100.0, 2.0]),
    "spaces and decimal commas": (column("1 234,50", "2,5"), {"decimal": ","}, [1234.5, 2.5]),
    "points, and a decimal point that is given": (column("1.234", "5"), {"decimal": "."}, [1.234, 5.0]),
    "points between commas": (column("1.234", "2.500", delimiter=","), {}, [1.234, 2.5]),
    "points beside commas in thousands": ('Date,Close,Open\n2020-01-01,1.234,"1,500"\n', {}, [1.234]),
    "thin spaces": (column("1\u2009234.5", "12\u2009345"), {}, [1234.5, 12345.0]),
    "no-break spaces": (column("1\u00a0234,5", "12\u202f345"), {"decimal": ","}, [1234.5, 12345.0]),
    "dollars": (column("$1,234.50", "-$2", "$-3", "$ 4"), {}, [1234.5, -2.0, -3.0, 4.0]),
    "euros": (column("1.234,50 €", "-2€"), {"decimal": ","}, [1234.5, -2.0]),
    "percent": (column("5%", "-2.5 %"), {}, [5.0, -2.5]),
    "unicode minus": (column("\u22121.5", "2"), {}, [-1.5, 2.0]),
    "spaces around numbers": (column(" 1.5", "2.5 ", "  -3.25  "), {}, NUMBERS),
    # dates
    "day first": (dated("13/02/2020", "14/02/2020", "01/03/2020"), {}, [1, 2, 3]),
    "month first": (dated("02/13/2020", "02/14/2020", "03/01/2020"), {}, [1, 2, 3]),
    "a form that is given": (dated("01/02/2020", "02/02/2020"), {"date_format": "%d/%m/%Y"}, [1, 2]),
    "the other form": (dated("01/02/2020", "02/01/2020"), {"date_format": "%m/%d/%Y"}, [1, 2]),
    "in a form that turns them": (dated("02/01/2020", "01/02/2020"), {"date_format": "%m/%d/%Y"}, [2, 1]),
    "one time zone": (dated("2020-01-01T10:00Z", "2020-01-02T10:00Z"), {}, [1, 2]),
    "several time zones": (dated("2020-10-24 00:00+02:00", "2020-10-26 00:00+01:00"), {}, [1, 2]),
    "unsorted": (dated("2020-01-02", "2020-01-01", "2020-01-03"), {}, [2, 1, 3]),
    "new to old": (dated("2020-01-03", "2020-01-02", "2020-01-01"), {}, [3, 2, 1]),
    "the first of a date": (dated("2020-01-01", "2020-01-01", "2020-01-02"), {"on_duplicate": "first"}, [1, 3]),
    "the last of a date": (dated("2020-01-01", "2020-01-01", "2020-01-02"), {"on_duplicate": "last"}, [2, 3]),
    "the mean of a date": (dated("2020-01-01", "2020-01-01", "2020-01-02"), {"on_duplicate": "mean"}, [1.5, 3]),
    # missing values
    "rows left out": (column("", "1", "NA", "4"), {"missing": "drop"}, [1.0, 4.0]),
    "filled from before": (column("", "1", "null", "4", "-"), {"missing": "ffill"}, [1.0, 1.0, 4.0, 4.0]),
    "filled in between": (column("", "1", "n/a", "4", "-"), {"missing": "interpolate"}, [1.0, 1.0, 2.5, 4.0, 4.0]),
    "marked": (column("", "1", "#N/A", "4"), {"missing": "mask"}, [1.0, 1.0, 1.0, 4.0]),
}


@pytest.mark.parametrize("case", READ)
def test_the_right_numbers(write, case):
    content, options, expected = READ[case]
    series = read_file(write(content), **options)
    assert series.values[:, 0].tolist() == expected
    if "Date" in str(content):
        assert len(series.dates) == len(expected)


def at(line, column="Close"):
    return f"line {line}, column {column}: "


REFUSED = {
    # text
    "cp1252": (
        "Tag für Tag;Close\n1;2\n".encode("cp1252"),
        {},
        "line 1: the byte 0xfc is not UTF-8; save .* --encoding",
    ),
    "not cp1252": (b"Date;Close\n1;\x81\n", {"encoding": "cp1252"}, "line 2: the byte 0x81 is not CP1252"),
    "half a character": (PLAIN.encode() + b"\xc3", {}, "line 5: the byte 0xc3 is not UTF-8"),
    "UTF-16, cut": (PLAIN.encode("utf-16")[:-1], {}, "line 4: the byte 0x0a is not UTF-16"),
    "UTF-32": (PLAIN.encode("utf-32"), {}, "line 1: a zero character; this is not a text file"),
    "a zero": (
        PLAIN.replace("2.5", "2\0.5"),
        {},
        "line 3: a zero character; this is not a text file, or it is damaged",
    ),
    "a quote that is not closed": (PLAIN.replace("2.5", '"2.5'), {}, "line 3: not CSV .*; is there a quote that"),
    "text after a quote": (PLAIN.replace("2.5", '"2.5"0'), {}, "line 3: not CSV .*; is there a quote that"),
    "zip of two": (
        zipped(("a.csv", PLAIN), ("b.csv", PLAIN)),
        {},
        "a zip archive of a.csv, b.csv; it must",
    ),
    "zip of nothing": (zipped(), {}, "a zip archive of no file; it must hold one CSV file"),
    "zip, cut": (zipped(("a.csv", PLAIN))[:-9], {}, "packed, and damaged .*; take another copy"),
    "Excel": (
        zipped(("xl/workbook.xml", ""), ("[Content_Types].xml", "")),
        {},
        "Excel workbook; save the sheet as CSV",
    ),
    "an old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1", {}, "an Excel workbook; save the sheet as CSV"),
    "gzip, cut": (gzip.compress(PLAIN.encode())[:-5], {}, "packed, and damaged .*; take another copy"),
    "gzip, damaged": (gzip.compress(PLAIN.encode())[:20] + b"\xff" * 30, {}, "packed, and damaged"),
    "xz": (b"\xfd7zXZ\0\0", {}, "packed by xz; unpack it first"),
    "Parquet with another name": (b"PAR1\x15\x04", {}, "a Parquet file; name it .parquet"),
    # numbers
    "decimal commas": (
        column("1,5"),
        {},
        at(2) + "'1,5' may be 1.5; give --decimal ,",
    ),
    "points in thousands": (column("5", "1.234,5"), {}, at(3) + "'1.234,5' may be 1234.5; give --decimal ,"),
    "nought comma": (column("0,123"), {}, at(2) + "'0,123' may be 0.123; give --decimal ,"),
    "a comma that may be either": (
        column("5", "1,234"),
        {},
        at(3) + "'1,234' may be 1234 or 1.234; give --decimal . or ,",
    ),
    "points between semicolons": (
        column("5", "", "-1.234", "2.500"),
        {"missing": "drop"},
        at(4) + "'-1.234' may be -1234 or -1.234; give --decimal . or ,",
    ),
    "euros between semicolons": (column("1.234 €"), {}, at(2) + "'1.234 €' may be 1234 or 1.234; give --decimal"),
    "a decimal point": (column("1,5", "1.5"), {"decimal": ","}, at(3) + "'1.5' is not a number with --decimal ,"),
    "groups of four": (column("1,2345.0"), {}, at(2) + "'1,2345.0' is not a number"),
    "two kinds of groups": (column("1,234\u2009567"), {}, at(2) + ".* is not a number"),
    "a space": (column("1 234", "2", "3"), {}, at(2) + "'1 234' may be 1234; give --decimal . or ,"),
    "spaces": (column("1 234", "2 345", "3"), {}, at(2) + "'1 234' may be 1234; give --decimal . or ,"),
    "points between tabs": (column("1.234", delimiter="\t"), {}, at(2) + "'1.234' may be 1234 or 1.234; give"),
    "points between bars": (column("1.234", delimiter="|"), {}, at(2) + "'1.234' may be 1234 or 1.234; give"),
    "points beside decimal commas": (
        'Date,Close,Open\n2020-01-01,1.234,"1,5"\n',
        {},
        at(2) + "'1.234' may be 1234 or 1.234; give --decimal",
    ),
    "two currencies": (
        column("$5", "5 €"),
        {},
        at(3) + r"'5 €' is not written like '\$5'; write all",
    ),
    "currency and none": (
        column("5", "$5"),
        {},
        at(3) + r"'\$5' is not written like '5'; write all",
    ),
    "percent and none": (
        column("5%", "0.05"),
        {},
        at(3) + "'0.05' is not written like '5%'; write all",
    ),
    "brackets": (column("(5.0)"), {}, at(2) + r"'\(5.0\)' is not a number"),
    "inf": (column("1", "inf"), {}, at(3) + "'inf' is too large for a number; correct the row"),
    "1e400": (column("1", "-1e400"), {}, at(3) + "'-1e400' is too large for a number"),
    "underscores": (column("1_000"), {}, at(2) + "'1_000' is not a number"),
    "hexadecimal": (column("0x10"), {}, at(2) + "'0x10' is not a number"),
    # tables
    "too few fields": (
        PLAIN + "2020-01-04\n",
        {},
        r"line 5: has 1 fields; the header has 2 \(Date, Close\); correct the",
    ),
    "extra fields in the first row": (
        "Date,Close\n2020-01-01,1,2\n",
        {},
        "line 2: has 3 fields; the header has 2 .*; correct the line, or put quotes",
    ),
    "decimal commas in one column": ("Close\n1,5\n", {}, "line 2: has 2 fields; the header has 1 .* give --decimal ,"),
    "no header": (PLAIN[len("Date,Close\n") :], {}, "line 1: the first line looks like data .*; add a header line"),
    "no header, and text": ("2020-01-01,1,x\n2020-01-02,2,y\n", {}, "line 1: the first line looks like data"),
    "no header, no dates": ("x,1.5\ny,2.5\n", {}, "the first line looks like data .*, or give --target 1.5"),
    "two columns of one name": (
        "Date,Close,Close\n1,2,3\n",
        {},
        "2 columns are named 'Close'; rename all but one",
    ),
    "a row of delimiters": (PLAIN.replace("2020-01-02,2.5", ","), {}, at(3, "Date") + "the date is missing"),
    # dates
    "day or month first": (
        dated("01/02/2020", "02/02/2020"),
        {},
        at(2, "Date") + "'01/02/2020' may be day or month first; give --date-format %d/%m/%Y or %m/%d/%Y",
    ),
    "mixed forms": (
        dated("2020-01-01", "01/02/2020"),
        {},
        at(3, "Date") + "'01/02/2020' is not written as '2020-01-01' in line 2; write all dates alike",
    ),
    "mixed forms in another column": (
        "Close;Trade date\n1;2020-01-01\n2;01/02/2020\n3;2020-01-03\n",
        {},
        at(3, "Trade date") + "'01/02/2020' is not written as '2020-01-01' in line 2",
    ),
    "another form than is given": (
        dated("2020-01-01"),
        {"date_format": "%d/%m/%Y"},
        at(2, "Date") + "'2020-01-01' is not of the form '%d/%m/%Y'; correct --date-format",
    ),
    "a zone and none": (
        dated("2020-01-01T10:00Z", "2020-01-02T10:00"),
        {},
        at(3, "Date") + ".* in line 2 only one has a time zone; write all alike",
    ),
    "no date": (
        dated("2020-01-01", ""),
        {},
        at(3, "Date") + "the date is missing; fill it in or remove the row",
    ),
    "a date twice": (
        dated("2020-01-01", "2020-01-02", "2020-01-01"),
        {},
        at(4, "Date") + "'2020-01-01' is in line 2 already .*--on-duplicate first or last or mean",
    ),
    # missing values
    "missing": (
        column("1", "", "null"),
        {},
        at(3) + "the value is missing, the first of 2 missing values; fill it in, or give --missing drop",
    ),
    "one missing": (
        column("1", "-"),
        {},
        at(3) + "the value is missing, the only missing one; fill it",
    ),
    "all missing": (column("-", "") + "\n", {"missing": "ffill"}, at(2) + "all values are missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_one_line_that_says_what_is_where(write, case):
    content, options, message = REFUSED[case]
    path = write(content)
    with pytest.raises(DataError, match=message) as error:
        read_file(path, **options)
    assert str(error.value).startswith(str(path))
    assert str(error.value).isprintable()


def months(name, *labels):
    return f"{name},Sales\n" + "".join(f"{label},{number}\n" for number, label in enumerate(labels, start=1))


DATE_COLUMNS = {
    "the target is no date": ("Index,Year\n3.5,1900\n1.5,1901\n2.5,1902\n", "Index", (), [3.5, 1.5, 2.5], "1900"),
    "nor the only column": ("Time\n3\n1\n2\n", "Time", (), [3, 1, 2], None),
    "not even without a target": ("Index\n3\n1\n2\n", None, (), [3, 1, 2], None),
    "nor an index of prices": ("Index,Sales\n3.5,1\n1,2\n2,3\n", "Sales", ("Index",), [1, 2, 3], None),
    "but one of numbers": ("Timestamp,Sales\n3,1\n1,2\n2,3\n", "Sales", ("Timestamp",), [2, 3, 1], "1"),
    "a date beside a counter": (
        "Time,Date,Sales\n1,2024-01-03,1\n2,2024-01-01,2\n",
        "Sales",
        (),
        [2, 1],
        "2024-01-01",
    ),
    "years and halves": (months("Year", "1700.5", "1701.5", "1702.5"), "Sales", (), [1, 2, 3], None),
    "codes with a slash": (months("batch", "10/1500", "9/1500"), None, (), [1, 2], None),
    "but one of dates": ("Year,Sales\n1902,1\n1900,2\n1901,3\n", "Sales", ("Year",), [2, 3, 1], "1900"),
    "an index that is the only number": ("Year,Index\n1900,3\n1901,1\n1902,2\n", None, (), [3, 1, 2], "1900"),
    "months in digits": (months("Date", "192608", "192607"), None, (), [2, 1], "192607"),
    "months in digits, later": (months("Date", "200002", "200001"), None, (), [2, 1], "200001"),
    "months over the new year": (months("Month", "11", "12", "1"), "Sales", (), [1, 2, 3], None),
    "weeks over the new year": (months("Week", "51", "52", "1"), "Sales", (), [1, 2, 3], None),
    "year and month by name": (months("Month", "2024-Jan", "2023-Dec"), None, (), [2, 1], "2023-Dec"),
    "month, slash, year": (months("Month", "01/2024", "12/2023"), None, (), [2, 1], "12/2023"),
    "year, slash, month": (months("Month", "2024/01", "2023/12"), None, (), [2, 1], "2023/12"),
    "year, M, month": (months("Period", "2000M01", "1999M12"), None, (), [2, 1], "1999M12"),
    "quarters with a colon": (months("Quarter", "2000:Q1", "1999:Q4"), None, (), [2, 1], "1999:Q4"),
    "weeks": (months("Week", "2024-W02", "2024-W01"), None, (), [2, 1], "2024-W01"),
}


@pytest.mark.parametrize("case", DATE_COLUMNS)
def test_which_column_says_when(write, case):
    content, target, features, values, first = DATE_COLUMNS[case]
    series = read_file(write(content), target, features)
    assert series.values[:, 0].tolist() == values
    assert (series.labels and series.labels[0]) == first


def test_a_format_decides(write):
    content = months("Date", "05012024", "04012024")
    series = read_file(write(content), "Sales", ("Date",), date_format="%d%m%Y")
    assert series.values[:, 0].tolist() == [2, 1]
    content = months("Week", "2024-02", "2024-01")
    assert read_file(write(content), date_format="%Y-%m").values[:, 0].tolist() == [2, 1]


NO_DATES = {
    "weeks with a slash": (months("year_week", "2024/05", "2024/06"), "'2024/05' may be a week or a month; write we"),
    "a time twice": (
        months("Time", "2024-01-01 10:00", "2024-01-01 10:00"),
        "give --on-duplicate first or last or mean$",
    ),
    "notes": ("Date,Note,Close\n2024-01-01,a b,1\n2024-01-01,,2\n2024-01-02,,3\n", "give --on-duplicate first"),
    "months that may be weeks": (
        months("Week", "2024-01", "2024-02"),
        "'2024-01' may be a week or a month; write weeks",
    ),
    "days without a year": (months("Date", "Jan 01", "Jan 02"), "'Jan 01' was not read as a date"),
    "a time in brackets": (
        "<DATE>\t<TIME>\t<CLOSE>\n2020.01.02\t01:00\t1.5\n2020.01.02\t02:00\t2\n",
        r"spread over 2 columns \(<DATE>, <TIME>\); give --time-column",
    ),
    "a month in short": (
        "Year,Mon,Sales\n2020,1,5\n2020,2,6\n",
        r"spread over 2 columns \(Year, Mon\); give --time-column Year --time",
    ),
    "several series": (
        "Date,Ticker,Close\n2020-01-01,A,1\n2020-01-01,B,2\n2020-01-02,A,3\n2020-01-02,B,4\n",
        r"several series found \(column Ticker: A, B\); .*--id-column Ticker, or keep one by --where Ticker=A$",
    ),
    "a second header": (
        "Price,Close\nTicker,A\n2020-01-01,1\n2020-01-02,2\n",
        "lines 1 to 2 are above the first row of values .A.; keep the header line",
    ),
}


@pytest.mark.parametrize("case", NO_DATES)
def test_what_does_not_say_when(write, case):
    content, message = NO_DATES[case]
    with pytest.raises(DataError, match=message):
        read_file(write(content), target="Sales" if "Sales" in content else None)


@pytest.mark.parametrize(
    "word", ["", "NA", "N/A", "n/a", "null", "NULL", "None", "nan", "NaN", "-nan", "#N/A", "-", ".", "\u2212"]
)
def test_words_for_missing(write, word):
    content = column("1", word, "3")
    with pytest.raises(DataError, match="line 3, column Close: the value is missing"):
        read_file(write(content))
    series = read_file(write(content), missing="interpolate")
    assert series.values[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert series.missing == {"how": "interpolate", "values": 1, "first": "line 3, column Close"}


@pytest.mark.parametrize(
    ("content", "options", "notice"),
    [
        (column("$5", "$6"), {}, "column Close: all in $, which is left out of the numbers"),
        (column("5%", "6 %"), {}, "column Close: all in %, which is left out of the numbers"),
        (
            column("", "1", "", "2"),
            {"missing": "drop"},
            "2 missing values, the first in line 2, column Close: 2 row(s) dropped",
        ),
        (
            column("", "1", "", "2"),
            {"missing": "ffill"},
            "2 missing values, the first in line 2, column Close: filled with the last value before; 1 row(s) at "
            "the start, with none before, dropped",
        ),
        (
            column("1", "", "2"),
            {"missing": "interpolate"},
            "1 missing value, in line 3, column Close: interpolated between the values before and after; "
            "what comes before the later one gets the last value",
        ),
        (column("1", "", "2"), {"missing": "mask"}, "1 missing value, in line 3, column Close: marked as missing"),
    ],
)
def test_what_was_done_is_said(write, content, options, notice):
    assert read_file(write(content), **options).notices == (notice,)


def test_the_first_missing_value_is_so_in_the_file(write):
    content = "Date,Close,Open\n2020-01-03,,1\n2020-01-02,5,\n2020-01-01,6,2\n"
    with pytest.raises(DataError, match="line 2, column Close: the value is missing, the first of 2"):
        read_file(write(content), features=["Open"])
    series = read_file(write(content), features=["Open"], missing="mask")
    assert series.values.tolist() == [[6.0, 2.0], [5.0, 2.0], [5.0, 1.0]]
    assert series.observed.tolist() == [[True, True], [True, False], [False, True]]
    assert series.missing == {"how": "mask", "values": 2, "first": "line 2, column Close"}


def test_a_missing_value_in_a_column_that_is_not_used(write):
    series = read_file(write("Date,Close,Open\n2020-01-01,1,\n2020-01-02,2,5\n"))
    assert (series.values[:, 0].tolist(), series.missing) == ([1.0, 2.0], None)


@pytest.mark.parametrize("control", ["\x1b[31m", "\x07", "\x9b2J", "\u202e"])
def test_nothing_that_a_terminal_would_obey(write, control):
    for content in (
        f"Date,Close\n2020-01-01,{control}\n",
        f"Date,{control}\n2020-01-01,x\n",
        f"Date,{control}\n2020-01-01,1,2\n",
        f"Date,{control}a,{control}b\n2020-01-01,1,2\n",
        f"Date,{control},{control}\n2020-01-01,1,2\n",
        f"Date,Close\n2020-01-01,1\n{control},2\n",
    ):
        with pytest.raises(DataError) as error:
            read_file(write(content))
        assert str(error.value).isprintable()


def test_messages_stay_short(write):
    header = ",".join(f"column_{i}" for i in range(5000))
    with pytest.raises(DataError, match="column_0, column_1, column_2 and 4997 more") as error:
        read_file(write(f"{header}\n1\n"))
    assert len(str(error.value)) < 1000
    with pytest.raises(DataError) as error:
        read_file(write(f"Close\n{'x' * 100_000}\n"), "Close")
    assert len(str(error.value)) < 300
