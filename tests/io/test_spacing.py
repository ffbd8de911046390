"""The usual spacing is found though rows are missing, and dates go on as pandas continues them."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gru_xp.errors import ArgumentError
from gru_xp.io.messages import CellError, command_line
from gru_xp.io.options import ReadOptions
from gru_xp.io.spacing import Spacing, find_spacing, next_dates

pytestmark = pytest.mark.compat

DATA = Path(__file__).resolve().parents[2] / "data"

UNITS = {
    "days": "D",
    "2-day steps": "2D",
    "30-day steps": "30D",
    "business days": "B",
    "weeks": "W-WED",
    "2-week steps": "2W-FRI",
    "hours": "h",
    "6-hour steps": "6h",
    "36-hour steps": "36h",
    "minutes": "min",
    "15-minute steps": "15min",
    "90-minute steps": "90min",
    "seconds": "s",
    "10-second steps": "10s",
    "250-row steps": "250us",
    "months": "MS ME BMS BME",
    "2-month steps": "2ME",
    "quarters": "QS-JAN QS-FEB QE-DEC QE-JAN BQE-NOV",
    "2-quarter steps": "6MS",
    "years": "YS-JAN YS-OCT YE-DEC YE-JUN BYE-MAR",
    "2-year steps": "24MS",
    "10-year steps": "10YS-JAN",
}
FREQS = {freq: unit for unit, freqs in UNITS.items() for freq in freqs.split()}


def every(freq, start="1999-11-03", rows=40):
    """Dates of an offset, as pandas makes them."""
    return pd.date_range(np.datetime64(start, "us"), periods=rows, freq=freq, unit="us").to_pydatetime().tolist()


def without(dates, *rows):
    return [date for row, date in enumerate(dates) if row not in rows]


def goes_on(dates, count):
    """The dates that come next by the usual spacing; None where there is none."""
    spacing = find_spacing(dates)
    return spacing.freq and next_dates(dates[-1], spacing.freq, count)


@pytest.mark.parametrize(
    "start", ["1999-11-03", "2003-12-30", "2023-01-27 09:30", "1700-01-01", "9000-01-01", "0001-01-01"]
)
def test_the_next_dates_are_those_of_pandas(start):
    for freq, unit in FREQS.items():
        dates = every(freq, start)
        spacing = find_spacing(dates[:20])
        assert (spacing.unit, spacing.missing, spacing.breaks) == (unit, 0, None), (freq, spacing)
        assert next_dates(dates[19], spacing.freq, 20) == dates[20:], (freq, spacing)
        assert find_spacing(dates[:20], spacing.freq) == spacing, freq


def test_missing_rows_are_counted():
    for freq, unit in FREQS.items():
        dates = every(freq)
        for rows in ((5,), (18,), (4, 11), (3, 4, 5, 14), tuple(range(5, 15))):
            spacing = find_spacing(without(dates[:20], *rows))
            assert spacing == Spacing(spacing.freq, unit, len(rows), dates[rows[0]]), (freq, rows)
            assert next_dates(dates[19], spacing.freq, 20) == dates[20:], (freq, rows)


def test_a_day_and_a_week_after_a_gap():
    days = [datetime(2023, 1, 1) + timedelta(days=day) for day in range(60)]
    assert goes_on(without(days, 30), 1) == [datetime(2023, 3, 2)]
    assert find_spacing(without(days, 10, 41, 42)) == Spacing("D", "days", 3, datetime(2023, 1, 11))
    mondays = every("W-MON", "2023-01-02", 60)
    assert goes_on(without(mondays, 30), 1) == [datetime(2024, 2, 26)]


def test_recording_may_stop_and_start_again():
    for freq in ("D", "h", "B", "MS", "W-TUE"):
        dates = every(freq, "2020-01-01", 160)
        assert find_spacing(dates[:30] + dates[130:]).missing == 100, freq


def test_the_simplest_of_spacings_that_fit():
    for dates, freq in (
        ([(2003, 12, 1), (2004, 1, 1), (2004, 2, 1)], "MS"),  # 31 days
        ([(2004, 7, 1), (2004, 8, 1), (2004, 9, 1)], "MS"),
        ([(2001, 1, 1), (2002, 1, 1), (2003, 1, 1)], "YS-JAN"),
        ([(2021, 2, 1), (2021, 3, 1), (2021, 3, 29)], "4W-MON"),
        ([(2024, 1, 1), (2024, 1, 2), (2024, 1, 3), (2024, 1, 4), (2024, 1, 5)], "D"),
        ([(2024, 1, 1), (2024, 1, 2), (2024, 1, 3), (2024, 1, 4), (2024, 1, 5), (2024, 1, 8)], "B"),
        ([(2020, 1, 31), (2020, 2, 28), (2020, 3, 31)], "BME"),  # a leap year
        ([(2021, 1, 31), (2021, 2, 28), (2021, 3, 31)], "ME"),
    ):
        assert find_spacing([datetime(*date) for date in dates]).freq == freq, dates


def test_the_same_day_of_each_month():
    for day in (2, 15, 28):
        dates = [datetime(2020, month, day, 9) for month in range(5, 13)]
        following = [datetime(2021, month, day, 9) for month in (1, 2, 3)]
        assert goes_on(dates, 3) == goes_on(without(dates, 2), 3) == following, day
        assert find_spacing(without(dates, 2)).first_missing == dates[2], day
        assert goes_on([datetime(year, 7, day) for year in range(2000, 2010)], 1) == [datetime(2010, 7, day)]
        assert goes_on([datetime(2020, month, day) for month in (2, 5, 8, 11)], 1) == [datetime(2021, 2, day)]


def test_trading_days_go_from_friday_to_monday():
    trading = pd.bdate_range("2012-12-03", "2013-03-01").drop(["2012-12-25", "2013-01-01", "2013-01-21", "2013-02-18"])
    dates = [stamp.to_pydatetime() for stamp in trading + pd.Timedelta(hours=16)]
    assert dates[-1].weekday() == 4
    assert find_spacing(dates) == Spacing("B", "business days", 4, datetime(2012, 12, 25, 16))
    assert goes_on(dates, 6) == [datetime(2013, 3, day, 16) for day in (4, 5, 6, 7, 8, 11)]


def test_bundled_series():
    for name, spacing in (
        ("GOOG", Spacing("B", "business days", 79, datetime(2004, 9, 6))),  # Labor Day
        ("sunspots", Spacing("YS-JAN", "years")),
    ):
        labels = [line.partition(",")[0] for line in (DATA / f"{name}.csv").read_text().splitlines()[1:]]
        dates = [datetime.fromisoformat(label if len(label) > 4 else f"{label}-01-01") for label in labels]
        assert find_spacing(dates) == spacing, name


def test_dates_without_a_usual_spacing():
    for dates, breaks in (
        ([(2020, 1, 1), (2020, 1, 2), (2020, 1, 4), (2020, 1, 9)], (1, 2)),  # a Saturday
        ([(2020, 1, 1), (2020, 1, 3), (2020, 1, 8)], (1, 2)),
        ([(2021, 1, 31), (2021, 2, 27), (2021, 3, 31)], None),
        ([(2020, 1, 30), (2020, 2, 28), (2020, 3, 30)], None),
        ([(2020, 3, 30), (2020, 4, 30), (2020, 5, 30)], None),
        ([(2020, 1, 1), (2020, 3, 1), (2020, 4, 1)], (0, 1)),
        ([(2020, 1, 6), (2020, 1, 7), (2020, 1, 27), (2020, 1, 28)], (1, 2)),  # weeks missing
        ([*((2020, month, 1) for month in range(1, 7)), (2020, 7, 3), (2020, 8, 1)], (5, 6)),
        ([(2020, 1, 5), *((2020, month, 1) for month in range(2, 9))], (0, 1)),
        ([*((2020, 1, day) for day in range(1, 9)), (2020, 1, 9, 12), (2020, 1, 10)], (7, 8)),
    ):
        spacing = find_spacing([datetime(*date) for date in dates])
        assert spacing.freq is None, (dates, spacing)
        assert spacing.breaks is not None, dates
        assert breaks in (None, spacing.breaks), (dates, spacing)


def test_fewer_than_three_rows_have_no_spacing():
    for rows in range(3):
        assert find_spacing(every("D", rows=rows)) == Spacing(), rows


def test_dates_of_which_many_are_missing_have_no_spacing(rng):
    for freq in ("D", "h", "W-MON", "MS", "B"):
        dates = every(freq, rows=200)
        for share in (0.35, 0.5):
            kept = np.sort(rng.choice(200, size=int(200 * share), replace=False))
            assert find_spacing([dates[row] for row in kept]).freq is None, (freq, share)
        assert find_spacing([date for row, date in enumerate(dates) if row % 3]).freq is None, freq
    opening_hours = [date for date in every("15min", "2024-01-01", 2000) if 9 <= date.hour < 17]
    assert find_spacing(opening_hours).breaks == (31, 32)


def test_random_dates_do_not_go_on(rng):
    for _ in range(50):
        days = sorted(rng.choice(2000, size=30, replace=False).tolist())
        assert find_spacing([datetime(2000, 1, 1) + timedelta(days=day) for day in days]).freq is None


def test_the_end_of_the_calendar():
    for step in (1, 2):
        assert goes_on([datetime(9999 - step * i, 1, 1) for i in range(9, -1, -1)], 3) is None
    for freq in ("D", "B", "h", "W-FRI", "MS", "QE"):
        assert next_dates(datetime(9999, 12, 31), freq, 40) is None, freq


def test_hours_across_a_change_of_summer_time():
    for zone in ("Europe/Berlin", "Europe/London", "America/New_York", "Australia/Sydney"):
        for freq in ("30min", "h", "3h", "6h", "24h"):
            index = pd.date_range("2022-12-30", "2024-01-01", freq=freq, tz="UTC").tz_convert(zone).tz_localize(None)
            dates = index[~index.duplicated()].sort_values().to_pydatetime().tolist()  # the repeated hour goes
            spacing = find_spacing(dates)
            assert spacing.freq == freq.replace("24h", "D"), (zone, freq, spacing)
            assert spacing.missing == 0, (zone, freq, spacing)
            assert next_dates(dates[-1], spacing.freq, 1) == [dates[-1] + (dates[1] - dates[0])], (zone, freq)


def test_days_across_a_change_of_summer_time():
    index = pd.bdate_range("2023-10-02", "2023-11-30", tz="America/New_York").tz_localize(None)
    assert goes_on(index.to_pydatetime().tolist(), 2) == [datetime(2023, 12, 1), datetime(2023, 12, 4)]


def test_spacing_that_is_given():
    days = every("D", "2024-01-01", 10)
    for dates, freq, missing in (
        (days, "D", 0),
        (days[:2], "D", 0),
        (days[:1], "D", 0),
        ([], "D", 0),
        (days, "h", 9 * 23),
        ([days[0], days[4], days[9]], "D", 7),  # too few to find it
        ([days[0], days[4], days[9]], "B", 5),
        ([days[0], days[7]], "W-MON", 0),
        ([datetime(2024, 1, 15), datetime(2024, 4, 15)], "MS", 2),
        ([datetime(2024, 1, 1), datetime(2024, 1, 15), datetime(2024, 2, 15)], "SMS", 1),
    ):
        assert find_spacing(dates, freq).missing == missing, (dates, freq)


def test_dates_that_do_not_fit_the_spacing_that_is_given(refused):
    days, mondays = every("D", "2024-01-01", 10), every("W-MON", "2024-01-01", 10)
    for dates, freq, row in (
        (days, "B", 5),
        (days, "2D", 1),
        (mondays, "W-SUN", 0),
        (mondays, "MS", 1),
        ([*days[:3], days[4] + timedelta(hours=1)], "D", 3),
        ([datetime(2024, 1, 31)], "MS", 0),
    ):
        with command_line(), refused(CellError, str(dates[row]), f"--freq {freq}", "omit --freq"):
            find_spacing(dates, freq)
        with pytest.raises(CellError) as caught:
            find_spacing(dates, freq)
        assert caught.value.row == row, (freq, caught.value)
        find_spacing(dates, find_spacing(dates).freq)  # the remedy works


def test_spacings_that_no_dates_have(refused):
    for freq in ("ns", "0MS", "-2h", "99999999999h", "99999999999W", "9" * 30 + "h"):
        with refused(ArgumentError, repr(freq), "'W-MON'", case=freq):
            ReadOptions(freq=freq)


def test_many_rows_take_no_time():
    minutes = every("min", rows=100_000)
    assert find_spacing(without(minutes, 77)) == Spacing("min", "minutes", 1, minutes[77])
    assert find_spacing([datetime(1, 1, 1), *minutes]).freq == "min"  # the grid is not written out
