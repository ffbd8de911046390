"""What dates the rows of tables of many kinds; where that is refused, the remedies that are given work."""

import re
import shlex
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from gru_xp import read_series
from gru_xp.errors import ArgumentError, DataError, DataWarning
from gru_xp.io.dates import format_date
from gru_xp.io.messages import command_line
from gru_xp.io.options import ReadOptions
from gru_xp.io.read import read, read_panel
from gru_xp.io.spacing import next_dates

pytestmark = pytest.mark.compat

REVERSED = ("rows are newest-first; reversed to chronological order",)
OLDEST_FIRST = "if the rows are in chronological order, give "
OPTION = re.compile(r"""--([a-z-]+) ("[^"]*"|[^\s;,)]+)""")

DAYS = [datetime(2023, 11, 22) + timedelta(days) for days in range(40)]
MONTHS = [datetime(2000 + month // 12, month % 12 + 1, 1) for month in range(8, 48)]
HOURS = [datetime(2024, 1, 20) + timedelta(hours=hour) for hour in range(100)]
HALF_HOURS = [HOURS[0] + timedelta(minutes=30 * number) for number in range(100)]


def table(header, rows, sep=","):
    return "\n".join([header, *(sep.join(map(str, row)) for row in rows), ""])


def newest_first(header, form, moments):
    """A table of dates, as a format or a function has them, and values up to 1000, the last in time."""
    write = form if callable(form) else lambda moment: moment.strftime(form)
    rows = enumerate(reversed([*zip(map(write, moments), range(1001 - len(moments), 1001), strict=True)]))
    return table(header, ([number, *row][-header.count(",") - 1 :] for number, row in rows))


def following(series):
    """The date after the last row, as the source would write it."""
    date = next_dates(series.dates[-1], series.reading.freq, 1)[0]
    return format_date(date, series.labels[-1], series.reading.date_form)


def given(message):
    """The options that a message gives to read one series, in the order of the message; of ``a or b``, a."""
    return [(name, shlex.split(value)[0]) for name, value in OPTION.findall(message) if name != "id-column"]


@pytest.fixture
def take(write):
    """``take(content, target=None, **options)``: the series in such a file, as the command line reads it."""

    def take(content, target=None, **options):
        with command_line():
            return read(write(content), target, (), ReadOptions(**options), "own.csv")

    return take


@pytest.fixture
def follow(take, refusal):
    """``follow(content, target, *refusals)``: what is read after following the remedy of each refusal in turn.

    A refusal is the parts of its message; the remedies of those before it are followed already.
    """

    def follow(content, target, *refusals):
        options = {}
        for parts in refusals:
            message = str(refusal(lambda: take(content, target, **options), *parts))
            remedy = given(message.partition(OLDEST_FIRST)[0])
            assert remedy, message
            for name in dict(remedy):
                values = [value for other, value in remedy if other == name]
                argument = "time" if name == "time-column" else name.replace("-", "_")
                options[argument] = values if argument in ("time", "where") else values[0]
        return take(content, target, **options)

    return follow


# --- dates --------------------------------------------------------------------------------------------------------


def test_dates_of_many_forms_are_found_and_reversed(take):
    for header, form, moments, last, next_label, freq in (
        ("index,Month,v", "%Y-%m", MONTHS, "2003-12", "2004-01", "MS"),
        ("Unnamed: 0,Month,v", "%Y-%m", MONTHS, "2003-12", "2004-01", "MS"),
        (",ym,v", "%Y%m", MONTHS, "200312", "2004-01", "MS"),
        ("ym,v", "%Y%m", MONTHS, "200312", "2004-01", "MS"),
        ("day,v", "%Y%m%d", DAYS, "20231231", "2024-01-01", "D"),
        (",Datum,v", "%d.%m.%Y", DAYS, "31.12.2023", "01.01.2024", "D"),
        ("Station,MESS_DATUM,v", "%Y%m%d%H", HOURS[:40], "2024012115", "2024-01-21 16:00:00", "h"),
        ("ts,v", lambda day: int((day - datetime(1970, 1, 1)).total_seconds()), DAYS, "1703980800", None, "D"),
    ):
        text = newest_first(header, form, moments)
        if header.startswith("Station"):
            text = re.sub(r"^\d+", "1048", text, flags=re.MULTILINE)
        series = take(text, "v")
        assert (series.values[-1, 0], series.labels[-1], series.notices) == (1000, last, REVERSED), header
        assert (series.dates[-1], series.reading.freq) == (moments[-1], freq), header
        assert following(series) == (next_label or "2024-01-01 00:00:00"), header


def test_dates_that_may_mean_two_things_are_read_by_the_remedy(follow):
    months = (("may be a month or a fraction of a year", "for months, give --date-format %Y.%m"),)
    for header, form, moments, refusals, next_label in (
        ("Tag,v", "%d.%m.%y", DAYS, [("'31.12.23' was not read", "%d.%m.%y or %y.%m.%d")], "01.01.24"),
        ("Date,v", "%d/%m/%y", DAYS, [("'31/12/23' was not read", "--date-format %d/%m/%y")], "01/01/24"),
        ("Monat,v", "%b-%y", MONTHS, [("'Dec-03' was not read", "--date-format %b-%y")], "Jan-04"),
        ("Period,v", "%Y.%m", MONTHS, months, "2004.01"),
        ("Month,v", "%Y.%m", MONTHS, months, "2004.01"),
        ("Time,v", lambda month: f"{month.year}.{month.month}", MONTHS, months, "2004.01"),
    ):
        series = follow(newest_first(header, form, moments), "v", *refusals)
        assert (series.values[-1, 0], series.dates[-1], series.notices) == (1000, moments[-1], REVERSED), header
        assert following(series) == next_label, header


def test_dates_of_digits_are_not_sorted_as_numbers(take, refusal):
    days = [datetime(2019, 12, 22) + timedelta(days) for days in range(60)]
    for form, moments in (("%m.%Y", MONTHS), ("%m%Y", MONTHS), ("%d%m%Y", days), ("%d%m%y", days), ("%m%d%Y", days)):
        for header, how in (("ds,v", {}), ("time,v", {}), ("Date,v", {}), ("Monat,v", {"time": ["Monat"]})):
            text = newest_first(header, form, moments)
            refusal(
                lambda text=text, how=how: take(text, "v", **how), "was not read as a date", f"--date-format {form}"
            )
            assert take(text, "v", date_format=form, **how).dates == tuple(moments), (header, form)
    quarters = [f"{row % 4 + 1}.{1998 + row // 4}" for row in range(20)]
    weeks = [f"{row % 52 + 1}{2018 + row // 52}" for row in range(110)]
    for labels in (quarters, weeks, [f"{day:%d.%m}" for day in days]):
        text = table("time,v", zip(labels, range(len(labels)), strict=True))
        refusal(
            lambda text=text: take(text, "v"), "was not read as a date and comes after", "write dates as 2020-01-31"
        )


def test_numbers_that_count_are_sorted(take, refusal, rng):
    order = rng.permutation(60).tolist()
    for step, count in ((1, 60), (5, 60), (1, 40)):
        series = take(table("t,v", ((step * row, row) for row in order[:count])), "v", time=["t"])
        assert series.values[:, 0].tolist() == sorted(order[:count]), (step, count)
    text = table("t,v", ((row / 10, row) for row in order))
    assert take(text, "v", time=["t"]).values[:, 0].tolist() == sorted(order)
    panel = table("store,time,v", ((store, row / 10, row) for store in "AB" for row in range(40)))
    refusal(lambda: take(panel, "v"), "several series", "--where store=A")


def test_four_digits_are_years_if_these_are_likely(take):
    for header, labels, first in (
        ("Time", [f"{9 + row // 4:02d}{row % 4 * 15:02d}" for row in range(30)], None),
        ("Time", [f"{month:%y%m}" for month in MONTHS], None),
        ("Time", [f"{18 + row // 12}{row % 12 + 1:02d}" for row in range(30)], None),
        ("Time", [f"{day:%m%d}" for day in HOURS[::24]], None),
        ("index", range(1000, 1040), None),
        ("YEAR", range(1700, 1740), 1700),
        ("time", range(1790, 1830), 1790),
        ("time", range(1900, 2000, 5), 1900),
    ):
        series = take(table(f"{header},v", zip(labels, range(len(labels)), strict=True)), "v")
        assert (series.dates and series.dates[0].year) == first, header
        assert series.values[:, 0].tolist() == [*range(len(labels))], header


def test_numbers_that_fall_are_refused_and_reversed_by_the_remedy(take, follow):
    for header, form, moments in (
        ("dag,v", lambda day: (day - datetime(1899, 12, 30)).days, DAYS),
        ("decimal_date,v", lambda month: f"{month.year + (month.month - 1) / 12:.4f}", MONTHS),
        ("t,v", lambda day: (day - DAYS[0]).days, DAYS),
    ):
        text = newest_first(header, form, moments)
        refused = ("line 3", "falls, from", "--order newest-first if", "--order oldest-first")
        assert follow(text, "v", refused).values[-1, 0] == 1000, header
        assert take(text, "v", order="oldest-first").values[-1, 0] == 961, header


def test_dates_that_are_not_read_are_told(take):
    stems = ["tammi", "helmi", "maalis", "huhti", "touko", "kesä", "heinä", "elo", "syys", "loka", "marras", "joulu"]
    series = take(newest_first("kk,v", lambda month: f"{stems[month.month - 1]}kuu {month.year}", MONTHS), "v")
    assert series.labels is None
    (notice,) = series.notices
    assert "no time column found (column 'kk' was not read as dates)" in notice
    assert "--time-column NAME" in notice


def test_the_zone_of_dates_goes_on(take):
    for first, form, zone in (
        ("2024-01-01", "%Y-%m-%d %H:%M:%S+02:00", "+02:00"),
        ("2024-01-01", "%Y-%m-%dT%H:%M:%SZ", "Z"),
        ("2024-03-30", "%Y-%m-%d %H:%M:%S+00:00", "+00:00"),
        ("2024-03-30", "%Y-%m-%d %H:%M:%S-0500", "-0500"),
    ):
        hours = [datetime.fromisoformat(first) + timedelta(hours=hour) for hour in range(49)]
        texts = [hour.strftime(form) for hour in hours]
        series = take(table("time,v", zip(texts[:-1], range(48), strict=True)), "v")
        assert (series.reading.freq, series.reading.gaps, series.notices) == ("h", 0, ()), form
        date = following(series)
        assert date == texts[-1].replace("T", " "), form
        assert date.endswith(zone)


# --- several series -----------------------------------------------------------------------------------------------


def test_one_of_several_series_is_read_by_the_remedies(take, follow):
    months = [f"{month:%Y-%m}" for month in MONTHS]
    blocks = [(store, month, value) for store in "AB" for value, month in enumerate(months)]
    tickers = [("AAA" if row < 30 else "BBB", row % 7 + 500 * (row >= 30)) for row in range(60)]
    keyed = [(a, b, c, day.date(), 1) for a in ("CA", "TX") for b in (1, 2) for c in (1, 2) for day in DAYS]
    regions = [(region, 2020 + month // 12, month % 12 + 1, month) for region in "NS" for month in range(36)]
    store = (("several series", "column store: A, B", "--where store=A"),)
    store_0, id_0 = (("several series", f"column {name}: 0, 1, 2", f"--where {name}=0") for name in ("store", "id"))
    year_month = ("spread over 2 columns (year, month)", "--time-column year --time-column month")
    for name, text, refusals, count, last in (
        ("counter", table(",store,month,v", ((row, *cells) for row, cells in enumerate(blocks))), store, 40, None),
        ("a row less", table("store,month,v", blocks[:5] + blocks[6:]), store, 39, None),
        ("interleaved", table("store,month,v", sorted(blocks, key=lambda row: row[1])), store, 40, None),
        (
            "blocks of text",
            table(",ticker,v", ((row, *cells) for row, cells in enumerate(tickers))),
            [("several series", "column ticker: AAA, BBB", "--where ticker=AAA")],
            30,
            None,
        ),
        (
            "three keys",
            table("state,store,item,date,v", keyed),
            [("columns state, store, item: CA, TX", "--where state=CA --where store=1 --where item=1")],
            40,
            "2023-12-31",
        ),
        (
            "start and end",
            table("store,Start time,End time,v", ((s, d.date(), d.date(), 1) for s in "AB" for d in DAYS)),
            [("40 row(s) repeat a time", *store[0][1:])],
            40,
            "2023-12-31",
        ),
        ("numbers", table("store,v", ((row // 30, row) for row in range(90))), [store_0], 30, None),
        ("identifiers", table("id,v", ((row // 30, row) for row in range(85))), [id_0], 30, None),
        (
            "region, year, month",
            table("region,year,month,v", regions),
            [year_month, ("36 row(s) repeat a time", "column region: N, S", "--where region=N")],
            36,
            "2022-12",
        ),
    ):
        series = follow(text, "v", *refusals)
        assert len(series) == count, name
        if last is not None:
            assert series.labels[-1] == last, name
        with pytest.raises(DataError) as raised:
            take(text, "v")
        if OLDEST_FIRST in str(raised.value):
            assert len(take(text, "v", order="oldest-first")) == text.count("\n") - 1, name


def test_a_counter_that_repeats_dates_nothing(take, refusal):
    text = table("t,y", ((row // 2 + 1, row % 7 + 500 * (row % 2)) for row in range(60)))
    refusal(lambda: take(text, "y"), "line 3, column t: '1' repeats", "--time-column NAME", "--order oldest-first")
    assert len(take(text, "y", order="oldest-first")) == 60


def test_several_series_of_a_table_below_each_other():
    days = [day.date().isoformat() for day in DAYS]
    frame = pd.DataFrame({"id": ["A"] * 40 + ["B"] * 40, "ds": [*days, *days[::-1]], "y": range(80)})
    with pytest.warns(DataWarning, match="B: rows are newest-first") as said:
        panel = read_panel(frame, id="ID", target="Y")
    assert len(said) == 1
    assert panel.index.names == ["id", "ds"]
    assert panel.columns.tolist() == ["y"]
    assert panel.loc["A", "y"].tolist() == [*range(40)]
    assert panel.loc["B", "y"].tolist() == [*range(79, 39, -1)]
    assert len(read_panel(frame, id="id", where="id=A")) == 40
    with pytest.raises(DataError, match="no column 'idd'; did you mean 'id'"):
        read_panel(frame, id="idd")


# --- dates and clocks ---------------------------------------------------------------------------------------------


def test_a_date_and_a_clock_in_columns_of_their_own(follow):
    late = [(moment - timedelta(hours=1), moment) for moment in HOURS[1:]]  # a day has the hours 1 to 24
    for header, moments, cells, next_date in (
        ("Date,Time", HALF_HOURS, lambda t: (f"{t:%Y-%m-%d}", f"{t:%H%M}"), "2024-01-22 02:00:00"),
        ("Date,h", HOURS, lambda t: (t.date(), t.hour), "2024-01-24 04:00:00"),
        ("Date,h", HOURS, lambda t: (f"{t.date()}T00:00:00", t.hour), "2024-01-24 04:00:00"),
        ("Date,Time", HALF_HOURS, lambda t: (f"{t:%Y%m%d}", f"{t:%H:%M}"), "2024-01-22 02:00:00"),
        ("date,hour", HOURS, lambda t: (f"{t:%Y-%m-%d}", f"{t:%H}:00-{t.hour + 1:02d}:00"), "2024-01-24 04:00:00"),
        ("Fecha;Hora", late, lambda t: (f"{t[0]:%d/%m/%Y}", t[0].hour + 1), "24/01/2024 04:00"),
        ("date,time", late, lambda t: (f"{t[0]:%Y-%m-%d}", f"{t[0].hour + 1:02d}:00"), "2024-01-24 04:00:00"),
        ("Datum;Uhrzeit", HOURS, lambda t: (f"{t:%d.%m.%Y}", f"{t:%H:%M}"), "24.01.2024 04:00"),
        ("Dag;Tid", HOURS, lambda t: (f"{t:%Y-%m-%d}", f"{t:%H.%M}"), "2024-01-24 04:00:00"),
        ("日期,时间", HOURS, lambda t: (f"{t.year}年{t.month}月{t.day}日", f"{t:%H:%M}"), "2024年1月24日 04:00"),
    ):
        sep = ";" if ";" in header else ","
        text = table(f"{header}{sep}v", ((*cells(moment), n) for n, moment in enumerate(moments)), sep)
        date, clock = header.split(sep)
        remedy = f"--time-column {date} --time-column {clock}"
        series = follow(text, "v", ("spread over 2 columns", remedy))
        last = moments[-1][1] if moments is late else moments[-1]
        assert (series.reading.time, series.dates[-1], series.notices) == ((date, clock), last, ()), header
        assert following(series) == next_date, header


def test_clocks_beside_dates_with_years_of_two_digits(follow):
    for clock in ("%H", "%H:%M", "%I:%M %p"):
        text = table("Date,Time,v", ((f"{t:%d/%m/%y}", t.strftime(clock), n) for n, t in enumerate(HOURS)))
        spread = ("spread over 2 columns", "--time-column Date --time-column Time")
        given = ("'20/01/24' was not read", "--date-format %d/%m/%y")
        assert follow(text, "v", given, spread).dates == tuple(HOURS), clock


def test_minutes_are_added_to_hours_alone(take, refusal):
    text = table("Date,Hour,Min,v", ((t.date(), t.hour + 1, 30, n) for n, t in enumerate(HOURS)))
    first = HOURS[0] + timedelta(hours=1, minutes=30)
    assert take(text, "v", time=["Date", "Hour", "Min"]).dates[0] == first
    for names in (["Date", "Min"], ["Date", "Hour", "v"]):
        refusal(lambda names=names: take(text, None, time=names, order="oldest-first"), "line ")


def test_the_parts_of_a_date_are_named_in_any_order(take):
    text = table("Hour,Day,Month,Year,v", ((t.hour, t.day, t.month, t.year, n) for n, t in enumerate(HOURS)))
    for names in (["Day", "Month", "Year", "Hour"], ["Month", "Day", "Hour", "Year"]):
        assert take(text, "v", time=names).dates == tuple(HOURS)
    text = table("Hour,Date,v", ((t.hour, t.date(), n) for n, t in enumerate(HOURS)))
    assert take(text, "v", time=["Hour", "Date"]).dates == tuple(HOURS)


def test_a_date_in_several_columns(follow):
    for header, moments, cells, freq in (
        ("#YY,MM,DD,hh,mm", HALF_HOURS, lambda t: (t.year, t.month, t.day, t.hour, t.minute), "30min"),
        ("Vuosi,Kuukausi,Päivä,Aika", HOURS, lambda t: (t.year, t.month, t.day, f"{t:%H:%M}"), "h"),
        ("year,month", MONTHS, lambda t: (t.year, t.month), "MS"),
        ("year,mm", MONTHS, lambda t: (t.year, t.month), "MS"),
        ("year,doy", DAYS, lambda t: (t.year, t.timetuple().tm_yday), "D"),
        ("Jahr,Monat,Tag", DAYS, lambda t: (t.year, t.month, t.day), "D"),
    ):
        names = header.split(",")
        text = table(f"{header},v", ((*cells(moment), n) for n, moment in enumerate(moments)))
        series = follow(text, "v", (f"spread over {len(names)} columns ({', '.join(names)})", "--time-column"))
        assert (series.reading.time, series.dates) == (tuple(names), tuple(moments)), header
        assert (series.reading.freq, series.values[-1, 0]) == (freq, len(moments) - 1), header


def test_a_clock_is_told_by_its_cells(follow):
    for name, cell in (
        ("Stunden", lambda t: t.hour),
        ("Hour of day", lambda t: t.hour + 1),
        ("Hour (CET)", lambda t: f"{t:%H}-{t.hour + 1:02d}"),
        ("hora_fin", lambda t: f"{t.hour + 1:02d}:00"),
        ("From", lambda t: f"{t:%I:%M %p}"),
        ("x", lambda t: f"{t.hour}h"),
        ("x", lambda t: f"H{t.hour + 1}"),
        ("x", lambda t: f"{t:%H.%M}"),
    ):
        late = timedelta(hours=cell(HOURS[0]) not in (0, "00-01", "12:00 AM", "0h", "00.00"))
        text = table(f"Date,{name},v", ((t.date(), cell(t), n) for n, t in enumerate(HOURS)))
        spread = (f"spread over 2 columns (Date, {name})", "--time-column Date --time-column")
        assert follow(text, "v", spread).dates == tuple(t + late for t in HOURS), name
    text = table("Date,slot,v", ((f"{t:%d/%m/%y}", f"{t:%H}-{t.hour + 1:02d}", n) for n, t in enumerate(HOURS)))
    given = ("'20/01/24' was not read", "--date-format %d/%m/%y")
    assert follow(text, "v", given, ("spread over 2 columns (Date, slot)",)).dates == tuple(HOURS)


def test_numbers_that_may_be_hours_may_be_series(refusal, take):
    for name, number in (("slot", lambda t: t.hour), ("store", lambda t: t.hour + 1), ("x", lambda t: 100 * t.hour)):
        text = table(f"Date,{name},v", ((t.date(), number(t), n) for n, t in enumerate(HOURS)))
        refusal(lambda text=text: take(text, "v"), f"--time-column {name}, or", f"--where {name}={number(HOURS[0])}")
        assert len(take(text, "v", where=[f"{name}={number(HOURS[0])}"])) in (4, 5)
    two_a_day = table("Date,wind,v", ((t.date(), t.hour % 24, n) for n, t in enumerate([*HOURS, *HOURS])))
    refusal(lambda: take(two_a_day, "v"), "--on-duplicate")


def test_flags_and_blocks_without_dates_are_no_series(take):
    for name, cells in (("promo", [0] * 20 + [1] * 20), ("setpoint", [20] * 10 + [25] * 10 + [22] * 20)):
        for header, counter in (("", range(40)), ("id", range(40)), ("x", [5] * 40)):
            text = table(f"{header},{name},v", zip(counter, cells, range(40), strict=True))
            assert len(take(text, "v")) == 40, (name, header)


def test_few_numbers_beside_a_date_are_no_hours(refusal, take):
    text = table("Date,x,v", ((day.date(), x, 1) for day in DAYS for x in range(10)))
    refusal(lambda: take(text, "v"), "several series", "--where x=0")
    text = table("Date,x,v", ((day.date(), f"0.{x}", 1) for day in DAYS for x in (10, 20)))
    refusal(lambda: take(text, "v"), "keep one row of each time")


def test_years_and_months_are_told_by_their_cells(follow):
    for header, moments, cells, freq in (
        ("y,m,d", DAYS, lambda t: (t.year, t.month, t.day), "D"),
        ("Year,M,D", DAYS, lambda t: (t.year, t.month, t.day), "D"),
        ("y,m", MONTHS, lambda t: (t.year, t.month), "MS"),
        ("y,m", MONTHS[::-1], lambda t: (t.year, f"{t:%m}"), "MS"),
    ):
        text = table(f"{header},v", ((*cells(moment), n) for n, moment in enumerate(moments)))
        names = header.split(",")
        series = follow(text, "v", (f"spread over {len(names)} columns ({', '.join(names)})",))
        assert (series.dates, series.reading.freq) == (tuple(sorted(moments)), freq), header
    hours = table("y,m,d,hour,v", ((t.year, t.month, t.day, t.hour, n) for n, t in enumerate(HOURS)))
    assert follow(hours, "v", ("(y, m, d);",), ("(y, m, d, hour);",)).dates == tuple(HOURS)


def test_stores_beside_a_year_are_no_months(follow, take):
    for header in ("v,x", "v,x,x"):
        text = table(header, ([row, *[1990 + row // 5] * header.count("x")] for row in range(60)))
        assert len(take(text, "v", order="oldest-first")) == len(take(text, "v")) == 60, header
    for count in (10, 12):
        text = table("x,store,v", ((1950 + year, store + 1, 1) for store in range(count) for year in range(30)))
        assert len(follow(text, "v", ("several series", "column store"))) == 30, count


# --- other tables -------------------------------------------------------------------------------------------------


def test_times_as_the_names_of_columns(take, refusal):
    for names in (
        "1990 [YR1990],1991 [YR1991],1992 [YR1992]",
        "1990,1991,1992",
        "Jan 2020,Feb 2020,Mar 2020",
        "Jan-20,Feb-20,Mar-20",
        "Q1 2020,Q2 2020,Q3 2020",
        "2020Q1,2020Q2,2020Q3",
        "01/2020,02/2020,03/2020",
        "2020-01,2020-02,2020-03",
        "2020年1月,2020年2月,2020年3月",
        "Jan,Feb,Mar",
        "Januar,Februar,März",
        "00:00,01:00,02:00",
        "d_1,d_2,d_3",
    ):
        text = table(f"Series,Country,{names}", (("GDP", f"L{row}", row, row + 1, row + 2) for row in range(30)))
        if names == "d_1,d_2,d_3":  # which need names of the rows
            text = text.replace("Series,", "").replace("GDP,", "")
        first, *_, last = names.split(",")
        for target in (None, last):
            parts = (f"3 columns are times ({first}, ", last, "one series a row; transpose the table")
            refusal(lambda text=text, target=target: take(text, target), *parts)


def test_times_of_day_as_the_names_of_columns_beside_dates(take, follow, refusal):
    hours = [f"{hour:02d}:00" for hour in range(24)]
    days = pd.DataFrame([[day.date(), *range(24)] for day in DAYS], columns=["Date", *hours])
    names = [f"{month:%b}" for month in MONTHS[4:16]]
    years = pd.DataFrame([[1990 + year, *range(12)] for year in range(20)], columns=["Year", *names])
    for wide, last, count in ((days, datetime(2023, 12, 31, 23), 960), (years, datetime(2009, 12, 1), 240)):
        text, (time, first, *_) = wide.to_csv(index=False), wide.columns
        for how in ({}, {"time": [time]}):
            parts = (f"{len(wide.columns) - 1} columns are times", "use pandas.melt, or choose one by --target")
            refusal(lambda text=text, how=how: take(text, **how), *parts)
        assert len(take(text, first)) == len(wide)
        series = follow(wide.melt(time).to_csv(index=False), "value", (f"spread over 2 columns ({time}, variable)",))
        assert (series.dates[-1], len(series), series.reading.gaps) == (last, count, 0), time
    assert len(take(days.assign(Close=1).to_csv(index=False))) == 40


def test_names_that_are_given(take, refusal):
    text = newest_first("Date,v", "%Y-%m-%d", DAYS)
    refusal(lambda: take(text, "v", time="v"), "column 'v' is the target; name another one by --time-column")
    two = table("Date,close,CLOSE", ((day.date(), row, -row) for row, day in enumerate(DAYS)))
    refusal(lambda: take(two), "2 numeric columns may be the target; choose one by --target NAME: close, CLOSE")
    assert take(two, "close").values[-1, 0] == 39
    assert take(two, "CLOSE").values[-1, 0] == -39
    refusal(lambda: take(two, "Close"), "did you mean 'close' or 'CLOSE'?")


def test_an_order_that_dates_settle(take):
    text = newest_first("Date,v", "%Y-%m-%d", DAYS)
    series = take(text, "v", order="oldest-first")
    assert series.values[-1, 0] == 1000
    assert any("--order oldest-first is not used, since Date dates the rows" in notice for notice in series.notices)
    assert take(text, "v", order="newest-first").notices == REVERSED


def test_a_column_alone(take):
    text = table("Close", ([value] for value in range(40)))
    series = take(text)
    assert (series.values[-1, 0], series.labels, series.reading.time) == (39, None, ())
    (notice,) = series.notices
    assert "no time column found; rows are taken as oldest first; if not, give --order newest-first" in notice
    reverse = take(text, order="newest-first")
    assert (reverse.values[-1, 0], reverse.notices) == (0, ())


# --- pandas objects and arrays ------------------------------------------------------------------------------------


def test_truth_in_a_frame_is_as_in_a_csv_file(write):
    frame = pd.DataFrame({"Date": DAYS, "b": [True, False] * 20, "v": np.arange(40.0)})
    path = write(frame.to_csv(index=False))
    for source in (frame, frame.astype({"b": "boolean"}), frame.astype({"b": object}), path):
        series = read_series(source)
        assert (series.columns, series.reading.time) == (("v",), ("Date",))
        assert read_series(source, features="all").columns == ("v", "b")
        assert read_series(source, target="b").values[:, 0].tolist() == [1, 0] * 20
        assert read_series(source, features=["b"]).values[:2, 1].tolist() == [1, 0]
        only = source.drop(columns="v") if source is not path else write(frame[["Date", "b"]].to_csv(index=False))
        with pytest.raises(DataError, match="no numeric column; choose one by target='NAME': Date, b"):
            read_series(only)


def test_an_index_of_periods_dates_the_rows():
    for freq, first, found in (("M", "2024-01", "MS"), ("Q", "2024Q1", "QS-JAN"), ("D", "2024-01-01", "D")):
        index = pd.period_range("2024-01-01", periods=12, freq=freq)
        frame = pd.DataFrame({"v": range(12)}, index=index)
        series = read_series(frame)
        assert (series.labels[0], series.reading.freq, series.values[-1, 0]) == (first, found, 11), freq
        with pytest.warns(DataWarning, match="newest-first; reversed"):
            series = read_series(frame[::-1])
        assert (series.dates[0], series.values[:, 0].tolist()) == (datetime(2024, 1, 1), [*range(12)]), freq


def test_other_indices_that_date_or_count_the_rows():
    days = pd.date_range("2024-01-01", periods=12)
    for index, first, freq in (
        (pd.interval_range(days[0], periods=12), "2024-01-01", "D"),
        (pd.period_range("2010Q1", periods=12, freq="Q-NOV"), "2009-12-01", "QS-DEC"),
        (pd.period_range("2010", periods=12, freq="Y-JUN"), "2009-07-01", "YS-JUL"),
        (days - days[0], "0.0", None),
    ):
        for name in ("index", "time"):
            frame = pd.DataFrame({"v": range(12)}, index.rename(name))
            for source in (frame, frame.reset_index()) if freq else (frame,):
                series = read_series(source)
                assert (series.labels[0], series.reading.freq, series.values[-1, 0]) == (first, freq, 11), index
                with pytest.warns(DataWarning, match="newest-first; reversed"):
                    assert read_series(source[::-1], time=name).labels[0] == first


def test_the_index_of_a_frame(refusal):
    values = {"v": np.arange(40.0)}
    for name in ("v", "Date"):  # those of columns, too
        frame = pd.DataFrame(values | {"Date": ["x"] * 40} if name == "Date" else values, index=DAYS[::-1])
        with pytest.warns(DataWarning, match="newest-first; reversed"):
            series = read_series(frame.rename_axis(name), target="v")
        assert (series.reading.time, series.values[-1, 0]) == ((f"{name} (index)",), 0)

    pairs = pd.DataFrame({"v": range(80)}, index=pd.MultiIndex.from_product([["A", "B"], DAYS]))
    refusal(lambda: read_series(pairs), "several series", "column level_0: A, B", "where='level_0=A'")
    assert read_series(pairs, where="level_0=A").labels[-1] == "2023-12-31"
    assert read_series(pairs.rename_axis(["id", "day"]), where={"id": "B"}).values[0, 0] == 40

    shuffled = pd.DataFrame(values).sample(frac=1, random_state=1)
    refusal(lambda: read_series(shuffled), "comes after", "time='index'", "order='oldest-first'")
    with pytest.warns(DataWarning, match="sorted by index"):
        assert read_series(shuffled, time="index").values[:, 0].tolist() == [*range(40)]
    with pytest.warns(DataWarning, match="sorted by day"):
        assert read_series(shuffled.assign(day=[DAYS[row] for row in shuffled.index])).values[-1, 0] == 39
    assert read_series(shuffled, order="oldest-first").values[0, 0] == shuffled["v"].iloc[0]


def test_numbers_as_options():
    frame = pd.DataFrame({"ds": DAYS, "y": [-200.0 if row % 9 == 5 else row for row in range(40)]})
    with pytest.warns(DataWarning, match="missing_values='-200'"):
        read_series(frame)
    marks = (-200, -200.0, "-200", np.int64(-200), [np.float32(-200)], np.array([-200]), pd.Series([-200.0]))
    for marked in marks:
        with pytest.warns(DataWarning, match="4 missing values"):
            assert read_series(frame, missing_values=marked, missing="ffill").values[5, 0] == 4, marked
    frame = pd.DataFrame({"store": [1.0] * 40 + [2.0] * 40, "ds": DAYS * 2, "y": range(80)})
    for wanted in ("store=2", "store=2.0", ["store=2"], {"store": 2}, {"store": np.float64(2)}, {"STORE": "2.0"}):
        assert read_series(frame, target="y", where=wanted).values[0, 0] == 40, wanted
    with pytest.raises(DataError, match=r"column store has no '3'; it has 1.0, 2.0"):
        read_series(frame, target="y", where={"store": 3})


def test_arguments_that_are_none(refusal):
    frame = pd.DataFrame({"ds": DAYS, "y": range(40)})
    assert read_series(frame, features=None).columns == ("y",)
    for arguments, problem in (
        ({"time_column": "a"}, "there is no option 'time_column'"),
        ({"Order": "a"}, "the options of reading are time, id, where"),
        ({"order": "a"}, "order is 'a'; it must be"),
        ({"features": b"y"}, "features is b'y'; it must be a text"),
    ):
        refusal(lambda arguments=arguments: read_series(frame, **arguments), problem, error=ArgumentError)
    for arguments, problem in (
        ({"target": ["y"]}, "there is no column \"['y']\"; the columns are ds, y"),
        ({"features": 5}, "there is no column '5'"),
    ):
        refusal(lambda arguments=arguments: read_series(frame, **arguments), problem)
    fields = np.zeros(5, dtype=[("a", float), ("b", float)])
    for array, problem in ((fields, "compound dtype"), (np.array(5.0), "shape=()"), (5.0, "shape=()")):
        refusal(lambda array=array: read_series(array), problem, "a series is (N,) or (N, F) of real numbers")


# --- faults that are known ----------------------------------------------------------------------------------------


def test_times_that_fall_are_not_overlooked(take):
    """Rows that are newest-first are refused or reversed, whatever is beside their times."""
    years = [datetime(1980 + year, 1, 1) for year in range(40)]
    wrong = []
    for header, form, moments in (
        (",store,month", "%Y-%m", MONTHS),
        ("index,store,Month", "%Y%m", MONTHS),
        ("row,store,Month", "%b %Y", MONTHS),
        (",country,year", "%Y", years),
        (",store,Tag", "%d.%m.%y", DAYS),
        (",dag", lambda day: (day - datetime(1899, 12, 30)).days, DAYS),
        (",decimal_date", lambda month: f"{month.year + (month.month - 1) / 12:.4f}", MONTHS),
        (",week", lambda day: (day - DAYS[0]).days + 1, DAYS),
        (",season", lambda year: f"{year.year}/{year.year + 1}", years),
        (",year", "FY%Y", years),
        (",store,opened,closed", "%Y-%m-%d", DAYS),
        ("store,opened,closed", "%Y-%m-%d", DAYS),
        ("symbol,ts", lambda day: int((day - datetime(1970, 1, 1)).total_seconds()), DAYS),
    ):
        write = form if callable(form) else lambda moment, form=form: moment.strftime(form)
        rows = []
        for number, moment in enumerate(reversed(moments)):
            known = {"": number, "index": number, "row": number, "store": "A", "country": "A", "symbol": "A"}
            rows.append([*(known.get(name, write(moment)) for name in header.split(",")), 1000 - number])
        try:
            series = take(table(f"{header},v", rows), "v")
        except DataError:
            continue
        if series.values[-1, 0] != 1000:
            wrong.append((header, rows[0]))
    assert not wrong


def test_numbers_that_are_no_times_of_day_are_refused(take, refusal):
    weeks = [datetime(2020, 1, 6) + timedelta(7 * week) for week in range(40)]
    for header, moments, cells in (
        ("Date,Period", HALF_HOURS, lambda t: (t.date(), 2 * t.hour + t.minute // 30 + 1)),
        ("Date,hour", HALF_HOURS, lambda t: (t.date(), 2 * t.hour + t.minute // 30 + 1)),
        ("year,week", weeks, lambda t: t.isocalendar()[:2]),
    ):
        text = table(f"{header},v", ((*cells(moment), n) for n, moment in enumerate(moments)))
        names = header.split(",")
        refusal(lambda text=text, names=names: take(text, "v", time=names), "line ", names[0])


def test_the_hour_of_a_clock_in_six_digits_goes_on(take):
    text = table("Date,Time,v", ((t.date(), f"{t:%H%M%S}", n) for n, t in enumerate(HOURS)))
    assert following(take(text, "v", time=["Date", "Time"])) == "2024-01-24 04:00:00"


def test_parts_of_a_time_that_cannot_be_joined(take, refusal):
    """No remedy keeps one hour of each day, or one week of each year."""
    weeks = [datetime(2020, 1, 6) + timedelta(7 * week) for week in range(40)]
    for header, moments, cells in (
        ("Date,Settlement Period", HALF_HOURS, lambda t: (t.date(), 2 * t.hour + t.minute // 30 + 1)),
        ("year,week", weeks, lambda t: t.isocalendar()[:2]),
        ("Jahr,KW", weeks, lambda t: t.isocalendar()[:2]),
    ):
        text = table(f"{header},v", ((*cells(moment), n) for n, moment in enumerate(moments)))
        found = f"spread over {header.replace(',', ', ')}"
        for how in ({}, {"time": header.split(",")}):
            parts = ("write it in one column, such as", *([] if how else [found]))
            assert "--" not in str(refusal(lambda text=text, how=how: take(text, "v", **how), *parts)), header


def test_series_that_follow_each_other_in_time(take):
    days = [day.date() for day in DAYS]
    for name, keys, notices in (
        ("id", ["A"] * 15 + ["B"] * 25, 1),
        ("month", ["Nov"] * 9 + ["Dec"] * 31, 0),
        ("promo", ["no"] * 15 + ["yes"] * 5 + ["no"] * 20, 0),
        ("note", days, 0),
    ):
        series = take(table(f"date,{name},v", zip(days, keys, range(40), strict=True)), "v")
        assert len(series.notices) == notices, name
    for header, times, keys in (
        ("date,id,v", days, ["A"] * 15 + ["B"] * 25),
        ("week,id,v", range(40), ["A"] * 20 + ["B"] * 20),
        ("week,id,v", range(40), [1] * 20 + [2] * 20),
    ):
        (notice,) = take(table(header, zip(times, keys, range(40), strict=True)), "v").notices
        told = (
            f"{keys[0]}, {keys[-1]}, one after the other; if these are several series, keep one by --where id={keys[0]}"
        )
        assert told in notice


def test_a_cycle_is_no_time(take, refusal):
    text = table("weekday,v", ((row % 7, row) for row in range(40)))
    refusal(lambda: take(text, "v"), "line 9", "'0' repeats", "--order oldest-first")
    assert take(text, "v", order="oldest-first").values[-1, 0] == 39


def test_keys_with_fractions_or_gaps_tell_series_apart(refusal):
    for keys in ([1.0] * 40 + [2.0] * 40, ["A"] * 40 + [None] * 40):
        frame = pd.DataFrame({"store": keys, "ds": DAYS * 2, "y": range(80)})
        refusal(lambda frame=frame: read_series(frame, target="y"), "several series", "column store")


def test_more_times_as_the_names_of_columns(take, refusal):
    for names in ("1月,2月,3月", "2020年,2021年,2022年", "1990.0,1991.0,1992.0", "12AM,1AM,2AM"):
        text = table(f"Country,{names}", ((f"L{row}", row, row + 1, row + 2) for row in range(30)))
        last = names.split(",")[-1]
        refusal(lambda text=text, last=last: take(text, last), "3 columns are times", "one series a row")


def test_tables_without_dates_that_are_one_series(take, rng):
    """Ordinary columns are taken neither for times, nor for names of series, nor for times as columns."""
    draw = lambda high: rng.integers(0, high, 60).tolist()  # noqa: E731
    columns = {
        "season,temp,humidity,count": [draw(4), draw(30), draw(60), draw(900)],
        "x1,x2,x3,x4,y": [rng.standard_normal(60).round(3).tolist() for _ in range(5)],
        "Time (s),ch1,ch2,ch3": [range(60), *(rng.standard_normal(60).round(3).tolist() for _ in range(3))],
        "rain,min temp,max temp,y": [draw(9), draw(20), draw(30), draw(50)],
        "NO2,T1,T2,y": [draw(40), draw(40), draw(40), draw(40)],
        "temp,hour,load": [draw(30), [n % 24 for n in range(60)], draw(90)],
        "kcal,hours,score": [draw(900), draw(12), draw(10)],
        "week,promo,sales": [range(60), ["no"] * 30 + ["yes"] * 30, draw(90)],
        "jan,may,sep,y": [rng.standard_normal(60).round(3).tolist() for _ in range(4)],
    }
    for header, cells in columns.items():
        series = take(table(header, zip(*cells, strict=True)), header.rpartition(",")[2])
        assert series.values[:, 0].tolist() == list(cells[-1]), header


def test_columns_that_only_sound_like_times_are_values(take, write, refusal):
    days = [f"2024-01-{day:02d}" for day in range(1, 21)]
    for header in ("date,min temp,max temp", "date,level,flow", "Date,Sunshine Hours,Rain", "date,NO,NO2"):
        text = table(header, ((day, row % 7, row % 5) for row, day in enumerate(days)))
        refusal(lambda text=text: take(text, None), "2 numeric columns")
        _, first, second = header.split(",")
        assert read(write(text), second, "all", ReadOptions()).columns == (second, first), header
    calendar = table("date,month,hour,y", ((day, 1, row * 5 % 24, row) for row, day in enumerate(days)))
    assert take(calendar, None).columns == ("y",)
    assert read(write(calendar), "y", "all", ReadOptions()).columns == ("y", "month", "hour")


def test_arrays_of_any_width_are_in_order(rng):
    for columns in (4, 8):
        values = rng.standard_normal((30, columns))
        np.testing.assert_array_equal(read_series(values).values, values)


def test_rows_that_are_counted_beside_a_target_of_any_kind(take):
    for header, cell in (
        ("index,Value", lambda row: row % 7),
        ("week,v", lambda row: -row),
        (",y", lambda row: row // 9),
    ):
        series = take(table(header, ((row, cell(row)) for row in range(60))))
        assert (series.labels[-1], series.notices) == ("59", ()), header
