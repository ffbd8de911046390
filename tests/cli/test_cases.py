"""Files of kinds that people have: what is said of them, and that the remedies in what is said work."""

import csv
import io
import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

pytestmark = pytest.mark.compat

SMALL = ("--seq-length", "3", "--hidden-size", "2", "--num-epochs", "1", "--device", "cpu")
QUICK = (*SMALL, "--out", "run", "--overwrite")
OPTION = re.compile(r"""(--[a-z-]+) ("[^"]*"|'[^']*'|[^\s;,)]+)""")


def dated(rows=40, first="2023-11-21", form="%Y-%m-%d", step=1):
    """Dates as text, a number of days apart."""
    return [(datetime.fromisoformat(first) + timedelta(step * row)).strftime(form) for row in range(rows)]


def hourly(form):
    return [(datetime(2024, 1, 1) + timedelta(hours=row)).strftime(form) for row in range(40)]


def write(header, rows, sep=",", name="own.csv"):
    """Write a file in the working folder; its name."""
    lines = [header, *(row if isinstance(row, str) else sep.join(map(str, row)) for row in rows)]
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


@pytest.fixture
def train(app):
    """``train("own.csv", *options)``: train quickly, into the folder ``run``."""
    return lambda *arguments: app("train", *arguments, *QUICK)


@pytest.fixture
def forecast(app):
    """``forecast(*options)``: dates, values and stderr of a forecast by the folder ``run``."""

    def forecast(*options):
        outcome = app("forecast", "run", *options)
        assert outcome.code == 0, outcome.err
        _, *rows = csv.reader(io.StringIO(outcome.out))
        return [row[1] for row in rows], [float(row[2]) for row in rows], outcome.err

    return forecast


@pytest.fixture
def follow(train):
    """``follow(outcome, "own.csv", *options)``: train again with the options that a message gives; of ``a or b``, a."""

    def follow(outcome, *arguments):
        options = [word.strip("\"'") for match in OPTION.finditer(outcome.err) for word in match.groups()]
        assert options, outcome.err
        return train(*arguments, *options)

    return follow


def reading():
    return json.loads(Path("run/metrics.json").read_text("utf-8"))["series"]


# --- dates of forecasts -------------------------------------------------------------------------------------------


def test_dates_continue_after_a_gap(app, train, forecast):
    cases = (
        (dated(60, "2023-01-01"), 30, "2023-03-02", "1 day", "D"),
        (dated(60, "2023-01-02", step=7), 30, "2024-02-26", "1 week", "W-MON"),
    )
    for dates, gap, expected, said, freq in cases:
        file = write("ds,y", [(date, row % 7) for row, date in enumerate(dates) if row != gap])
        outcome = train(file)
        assert outcome.code == 0
        assert said in outcome.err
        assert dates[gap] in outcome.err
        found = reading()
        assert (found["freq"], found["gaps"], found["first_gap"]) == (freq, 1, dates[gap])
        assert forecast()[0] == [expected]
        assert forecast(file)[0] == [expected]


def test_dates_have_the_hour_that_the_input_has(train, forecast):
    iso = write("period,value", zip(hourly("%Y-%m-%dT%H"), range(40), strict=True), name="iso.csv")
    rows = zip([1048] * 40, hourly("%Y%m%d%H"), range(40), strict=True)
    digits = write("STATION;MESS_DATUM;TT", rows, ";", "dwd.txt")
    for file, *options in ([iso], [digits, "--date-format", "%Y%m%d%H", "--target", "TT"]):
        outcome = train(file, *options)
        assert outcome.code == 0, outcome.err
        for arguments in ((), (file,)):
            dates = forecast(*arguments, "--steps", 3)[0]
            assert dates == [f"2024-01-02 {hour}:00:00" for hour in (16, 17, 18)], file


def test_dates_without_a_usual_spacing_need_a_freq(app, train, forecast):
    days = (0, 1, 3, 4, 8, 9, 15, 16, 23, 24, 31, 33, 40, 47, 48, 60, 66, 71, 75, 80, 91, 99)
    dates = dated(100)
    file = write("Date,Close", [(dates[day], day % 5) for day in days])
    assert train(file).code == 0
    for arguments in ((), (file,)):
        labels, _, said = forecast(*arguments, "--steps", 2, "--quiet")
        assert labels == ["", ""]
        (line,) = said.splitlines()
        assert "no usual spacing" in line
        assert all(text in line for text in ("'2023-11-22'", "'2023-11-24'", "--freq D"))
        assert forecast(*arguments, "--freq", "D", "--steps", 2)[0] == ["2024-02-29", "2024-03-01"]
        refused = app("forecast", "run", *arguments, "--freq", "W-MON", "--quiet")
        refused.assert_refused("does not fit --freq W-MON")


def test_counters_continue(train, forecast):
    quarters = [row / 4 for row in range(40)]
    tenths = [row / 10 for row in range(1, 41)]
    for numbers, expected in (
        (range(1, 41), "41"),
        (range(0, 400, 10), "400"),
        (quarters, "10.0"),
        (tenths, "4.1"),
    ):
        assert train(write("time,value", [(n, row % 7) for row, n in enumerate(numbers)])).code == 0
        assert forecast()[0] == [expected]
    assert train(write("time,value", [(row**2, row % 7) for row in range(40)])).code == 0
    labels, _, said = forecast()
    assert labels == [""]
    assert "not equally spaced" in said


# --- missing marks ------------------------------------------------------------------------------------------------


def test_marks_of_missing_values_are_named(train, follow):
    rows = [(date, "?" if row == 20 else row + 0.25) for row, date in enumerate(hourly("%d/%m/%Y %H:%M:%S"))]
    file = write("Date Time;Power", rows, ";")
    refused = train(file, "--missing", "ffill", "--date-format", "%d/%m/%Y %H:%M:%S")
    refused.assert_refused("line 22", "'?' is not a number", '--missing-values "?"')
    assert follow(refused, file, "--missing", "ffill", "--date-format", "%d/%m/%Y %H:%M:%S").code == 0
    assert json.loads(Path("run/metrics.json").read_text("utf-8"))["missing"]["values"] == 1

    file = write("Date,CO", [(date, -200 if row % 9 == 5 else row % 7) for row, date in enumerate(dated())])
    doubtful = train(file, "--no-guard")
    assert doubtful.code == 0
    assert "repeats 4 times" in doubtful.err
    refused = follow(doubtful, file)
    assert refused.code == 1
    assert "4 missing values" in refused.err
    assert train(file, "--missing-values", "?,-200", "--missing", "ffill").code == 0
    assert json.loads(Path("run/metrics.json").read_text("utf-8"))["missing"]["values"] == 4
    assert reading()["missing_values"] == ["?", "-200"]


# --- which rows, in which order -----------------------------------------------------------------------------------


def test_newest_first_files_in_other_languages_are_reversed(train, forecast):
    months = (("Dezember", 31), ("November", 30))
    german = [f"{day}. {month} 2023" for month, days in months for day in range(days, 0, -1)]
    german_rows = [(date, 1000 - row) for row, date in enumerate(german)]
    korean = dated(40, "2023-12-31", "%Y- %m- %d", step=-1)
    korean_rows = [(f'"{date}"', f'"{1000 - row:,}.00"', '"0.10%"') for row, date in enumerate(korean)]
    for header, rows, sep, target, following in (
        ("Datum;Umsatz", german_rows, ";", "Umsatz", "1. Januar 2024"),
        ('\ufeff"날짜","종가","변동 %"', korean_rows, ",", "종가", "2024- 01- 01"),
    ):
        outcome = train(write(header, rows, sep), "--target", target)
        assert outcome.code == 0, outcome.err
        assert "newest-first; reversed" in outcome.err
        dates, values, _ = forecast()
        assert abs(values[0] - 1000) < 10
        assert dates == [following]


def test_order_of_rows_without_dates(train, forecast):
    rows = [(f"day {40 - row}", 1000 - row) for row in range(40)]
    file = write("Tag,value", rows)
    refused = train(file)
    refused.assert_refused("line 3, column Tag: falls, from 'day 40'", "--order newest-first", "--order oldest-first")
    assert train(file, "--order", "newest-first").code == 0
    assert abs(forecast()[1][0] - 1000) < 10
    outcome = train(file, "--order", "oldest-first")
    assert outcome.code == 0
    assert "oldest first" not in outcome.err
    assert abs(forecast()[1][0] - 961) < 10
    outcome = train(write("name,value", [("abcde"[row % 5], row % 7) for row in range(40)]))
    assert outcome.code == 0
    assert "no time column found" in outcome.err
    assert "--time-column NAME" in outcome.err


def test_several_series_are_refused_and_one_of_them_or_all_are_chosen(train, follow):
    for header, key in (("unique_id,ds,y", "unique_id"), ("store,week,units", "store")):
        rows = [(name, row + 1, base + row % 7) for name, base in (("A", 0), ("B", 500)) for row in range(30)]
        file, target = write(header, rows), header.rpartition(",")[2]
        refused = train(file, "--target", target)
        refused.assert_refused("several series", key, f"--where {key}=A", f"--id-column {key}")
        outcome = follow(refused, file, "--target", target)
        assert outcome.code == 0, outcome.err
        outcome = train(file, "--target", target, "--where", f"{key}=B", "--id-column", key)
        assert outcome.code == 0, outcome.err
        assert len(Path("run/predictions.csv").read_text("utf-8").splitlines()) == 30 - 3 + 1
        outcome = train(file, "--target", target, "--id-column", key)
        assert outcome.code == 0, outcome.err
        assert Path("run/predictions.csv").read_text("utf-8").startswith(f"{key},date,")
        refused = train(file, "--target", target, "--where", f"{key}=C")
        refused.assert_refused(f"column {key} has no 'C'; it has A, B")


def test_two_keys_tell_rows_apart(train, follow):
    keys = [(store, item) for store in (1, 2) for item in (1, 2)]
    rows = [(date, *key, 10 * key[0] + row % 3) for key in keys for row, date in enumerate(dated(30))]
    file = write("date,store,item,sales", rows)
    refused = train(file, "--target", "sales")
    refused.assert_refused("columns store, item", "--where store=1 --where item=1")
    assert "--on-duplicate" not in refused.err
    assert follow(refused, file, "--target", "sales").code == 0


def test_a_time_in_several_columns(train, follow, forecast):
    rows = [(date, hour, (row + hour) % 7) for row, date in enumerate(dated(4, "2024-01-01")) for hour in range(1, 25)]
    file = write("Date,Hour Ending,Load", rows)
    refused = train(file, "--target", "Load")
    refused.assert_refused("spread over 2 columns", "--time-column Date", '--time-column "Hour Ending"')
    assert follow(refused, file, "--target", "Load").code == 0
    assert forecast("--steps", 2)[0] == ["2024-01-05 01:00:00", "2024-01-05 02:00:00"]

    hours = [datetime(2024, 1, 1) + timedelta(hours=row) for row in range(60)]
    rows = [(t.year, t.month, t.day, t.hour, row % 7) for row, t in enumerate(hours)]
    for header, number in (("YEAR,MO,DY,HR,T2M", ()), ("No,year,month,day,hour,T2M", (1,))):
        file = write(header, [(*(row + 1 for _ in number), *cells) for row, cells in enumerate(rows)])
        refused = train(file, "--target", "T2M")
        year, month = header.split(",")[len(number) :][:2]
        refused.assert_refused("spread over 4 columns", f"--time-column {year} --time-column {month}")
        assert follow(refused, file, "--target", "T2M").code == 0
        assert forecast()[0] == ["2024-01-03 12:00:00"]

    for clock in ("%H:%M", "%H.%M.%S", "%H:%M:%S"):
        rows = [(f"{t:%Y-%m-%d}", format(t, clock), row % 7) for row, t in enumerate(hours)]
        file = write("Date;Time;CO", rows, ";")
        refused = train(file, "--target", "CO")
        refused.assert_refused("--time-column Date --time-column Time")
        outcome = follow(refused, file, "--target", "CO")
        assert outcome.code == 0, outcome.err
        assert [re.sub(r"\D", "", date)[:12] for date in forecast()[0]] == ["202401031200"]


def test_newest_first_files_with_a_counter_are_reversed(train, follow, forecast):
    days = [datetime.fromisoformat(date) for date in dated(40, "2023-12-31", step=-1)]
    epoch = datetime(1970, 1, 1)
    for header, form, said, following in (
        (",day,value", "%Y-%m-%d", "", "2024-01-01"),
        ("ts,value", lambda day: int((day - epoch).total_seconds()), "", "2024-01-01 00:00:00"),
        ("Tag,value", "%d.%m.%y", "--date-format %d.%m.%y", "01.01.24"),
        ("dag,value", lambda day: (day - datetime(1899, 12, 30)).days, "--order newest-first", ""),
    ):
        cells = [form(day) if callable(form) else day.strftime(form) for day in days]
        rows = [(row, cell, 1000 - row) for row, cell in enumerate(cells)]
        file = write(header, [row[-1 - header.count(",") :] for row in rows])
        outcome = train(file, "--target", "value")
        if said:
            outcome.assert_refused(said)
            outcome = follow(outcome._replace(err=outcome.err.partition(", or, if the rows")[0]), file)
        assert outcome.code == 0, outcome.err
        dates, values, _ = forecast()
        assert abs(values[0] - 1000) < 10, header
        assert dates == [following], header


def test_the_zone_of_dates_goes_on(train, forecast):
    for first, form in (
        ("2024-01-01", "%Y-%m-%d %H:%M:%S+02:00"),
        ("2024-01-01", "%Y-%m-%d %H:%M:%SZ"),
        ("2024-03-30", "%Y-%m-%d %H:%M:%S+00:00"),  # where clocks in Europe go forward
    ):
        hours = [datetime.fromisoformat(first) + timedelta(hours=hour) for hour in range(42)]
        texts = [hour.strftime(form) for hour in hours]
        file = write("time,value", [(text, row % 7) for row, text in enumerate(texts[:40])])
        assert train(file).code == 0
        for arguments in ((), (file,)):
            assert forecast(*arguments, "--steps", 2)[0] == texts[40:], form


def test_half_hours_that_are_counted_have_no_command(app, train):
    rows = [(date, half, (row + half) % 7) for row, date in enumerate(dated(4)) for half in range(1, 49)]
    file = write("Date,Settlement Period,Load", rows)
    train(file, "--target", "Load").assert_refused("spread over Date, Settlement Period; write it in one column")
    assert json.loads(app("inspect", file, "--target", "Load", "--json").out)["command"] is None


def test_remedies_that_lead_to_others(train, follow, forecast):
    months = [(region, 2020 + month // 12, month % 12 + 1, month) for region in "NS" for month in range(36)]
    halves = [datetime(2023, 1, 1) + timedelta(minutes=30 * half) for half in range(60)]
    buoy = [(t.year, t.month, t.day, t.hour, t.minute, row % 7) for row, t in enumerate(halves)]
    for header, rows, refusals, following in (
        ("region,year,month,value", months, ("--time-column year", "--where region=N"), "2023-01"),
        ("#YY,MM,DD,hh,mm,value", buoy, ('--time-column "#YY" --time-column MM',), "2023-01-02 06:00:00"),
    ):
        file, options = write(header, rows), []
        for said in refusals:
            outcome = train(file, "--target", "value", *options)
            outcome.assert_refused(said)
            first, _, _ = outcome.err.partition("; if the rows are in chronological order")
            options += [word.strip('"') for match in OPTION.finditer(first) for word in match.groups()]
        outcome = train(file, "--target", "value", *options)
        assert outcome.code == 0, outcome.err
        assert forecast()[0] == [following]


# --- tables of other kinds ----------------------------------------------------------------------------------------


def test_wide_tables_are_refused(train):
    months = [f"{month}/1/20" for month in range(1, 13)]
    for header, texts, name in (
        (["id", "item_id", *(f"d_{day}" for day in range(1, 21))], 2, "d_1"),
        (["RegionName", "RegionID", "2023-01-31", "2023-02-28", "2023-03-31"], 1, "2023-01-31"),
        (["Country/Region", "Lat", "Long", *months], 1, "6/1/20"),
    ):
        rows = [[f"S_{row}"] * texts + [100 * n + row for n in range(len(header) - texts)] for row in range(30)]
        file = write(",".join(header), rows)
        for options in ((), ("--target", name)):
            train(file, *options).assert_refused("columns are times", "one series a row", "transpose")


def test_two_numbers_in_a_cell_are_no_decimal_comma(train):
    rows = [(f'"{date}T00:00:00"', f'"+{100 + row:04d},1"') for row, date in enumerate(dated())]
    outcome = train(write('"DATE","TMP"', rows), "--target", "TMP")
    outcome.assert_refused("line 2, column TMP", "'+0100,1'", "two fields")
    assert "--decimal" not in outcome.err
    assert train("own.csv", "--target", "TMP", "--decimal", ",").code == 1


def test_a_repeated_name_that_nobody_asks_for(train):
    file = write("date,AA,AA,DAX", [(date, row % 3, row % 5, row % 7) for row, date in enumerate(dated())])
    outcome = train(file, "--target", "DAX")
    assert outcome.code == 0
    train(file, "--target", "AA").assert_refused("2 columns are named 'AA'")


def test_three_header_lines(train):
    days = list(enumerate(dated()))
    header = "Price,Close,High,Volume\nTicker,AAA,AAA,AAA\nDate,,,"
    outcome = train(write(header, [(date, 100 + row, 101 + row, 1000) for row, date in days]))
    assert outcome.code == 0, outcome.err
    assert reading()["freq"] == "D"
    assert Path("run/predictions.csv").read_text("utf-8").splitlines()[1].startswith("2023-11-24,")
    header = "Price,Close,Close,Volume,Volume\nTicker,AAA,BBB,AAA,BBB\nDate,,,,"
    file = write(header, [(date, 100 + row, 200 + row, 1000, 1000) for row, date in days])
    outcome = train(file)
    assert outcome.code == 1
    named = re.search(r"Close[ _]AAA|AAA[ _]Close", outcome.err)
    assert named, outcome.err
    assert train(file, "--target", named[0]).code == 0


# --- names of columns ---------------------------------------------------------------------------------------------


def test_names_of_columns_are_forgiven_and_suggested(app, train):
    rows = [(date, row % 7, row % 5, row % 3) for row, date in enumerate(dated())]
    file = write('Date,"Load, total",Open,Close', rows)
    outcome = train(file, "--target", "close", "--feature", "load, total", "--feature", "OPEN")
    assert outcome.code == 0
    assert "own.csv, Close" in outcome.out
    notes = json.loads(app("evaluate", "run", file, "--target", "close", "--json").out)
    assert notes["target"] == "Close"
    train(file, "--target", "Closs").assert_refused("there is no column 'Closs'; did you mean 'Close'?")
    train(file, "--feature", "Opne").assert_refused("did you mean 'Open'?")
    train(file, "--time-column", "Dat").assert_refused("did you mean 'Date'?")
    assert train(file, "--features", "Open,Close").code == 0
    for option in ("--features", "--feature"):
        assert train(file, option, "all").code == 0
        assert app("train", "--resume", "run", option, "all", "--target", "close").code == 0
        app("train", "--resume", "run", "--feature", "Open").assert_refused("--feature is Load, total, Open in the run")
        assert app("evaluate", "run", file).code == 0


def test_options_of_reading_are_those_of_the_run(app, train):
    rows = [(date, name, row % 7) for row, date in enumerate(dated()) for name in "AB"]
    file = write("Datum,id,value", rows)
    options = ["--time-column", "Datum", "--where", "id=B", "--missing-values", "?,x", "--freq", "D"]
    assert train(file, *options, "--target", "value").code == 0
    held = json.loads(Path("run/metrics.json").read_text("utf-8"))["reading"]
    assert held["time"] == ["Datum"]
    assert held["where"] == ["id=B"]
    assert app("evaluate", "run", file).code == 0
    assert app("forecast", "run", file, "--where", "id=A").code == 0
    found = reading()
    assert (found["time"], found["freq"], found["gaps"]) == (["Datum"], "D", 0)
    assert app("train", "--resume", "run", *options, "--target", "value").code == 0
    assert reading() == found
    other_case = ["--time-column", "DATUM", "--where", "ID=B"]
    assert app("train", "--resume", "run", *other_case, "--target", "VALUE").code == 0
    for where in ("id=A", "id=b"):
        resumed = app("train", "--resume", "run", "--where", where)
        resumed.assert_refused(f"--where is id=B in the run and {where} here")
    resumed = app("train", "--resume", "run", "--time-column", "id")
    resumed.assert_refused("--time-column is Datum in the run and id here")
    app("forecast", "run", "--where", "id=A", "--quiet").assert_refused("other --where", "give a CSV file")
    assert app("forecast", "run", *options).code == 0
