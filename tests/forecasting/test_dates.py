import re
from datetime import datetime, timedelta

import pandas as pd
import pytest

from gru_xp.forecasting.dates import direction, format_date, is_full_date, may_be_date, next_dates, parse_dates
from gru_xp.forecasting.reading.cells import CellError

pytestmark = pytest.mark.compat

# --- reading ----------------------------------------------------------------------------------------------------


LABELS = [
    (["2004-08-19", "2004-08-20"], [(2004, 8, 19), (2004, 8, 20)]),
    (["2004-08-19T16:30:05"], [(2004, 8, 19, 16, 30, 5)]),
    (["2004-08-19 16:30", "2004-08-19 16:31"], [(2004, 8, 19, 16, 30), (2004, 8, 19, 16, 31)]),
    (["2004-08-19 16:30:00+02:00"], [(2004, 8, 19, 16, 30)]),
    (["2004-08-19T23:30:00-05:00"], [(2004, 8, 19, 23, 30)]),
    (["2004-08-19T16:30:00Z"], [(2004, 8, 19, 16, 30)]),
    (["2004-08-19T16:30:00.250000"], [(2004, 8, 19, 16, 30, 0, 250000)]),
    (["20040819"], [(2004, 8, 19)]),
    (["1502942400000", "1503028799999"], [(2017, 8, 17, 4), (2017, 8, 18, 3, 59, 59, 999000)]),
    (["1700", "1701"], [(1700, 1, 1), (1701, 1, 1)]),
    (["2004-08", "2004-9", "2004-12"], [(2004, 8, 1), (2004, 9, 1), (2004, 12, 1)]),
    (["2004/08/19", "2004/8/2"], [(2004, 8, 19), (2004, 8, 2)]),
    (["Aug 19, 2004", "Sep 2, 2004"], [(2004, 8, 19), (2004, 9, 2)]),
    (["August 19, 2004"], [(2004, 8, 19)]),
    (["19-Aug-2004"], [(2004, 8, 19)]),
    (["19 Aug 2004"], [(2004, 8, 19)]),
    (["19 August 2004"], [(2004, 8, 19)]),
    (["08/19/2004", "09/01/2004"], [(2004, 8, 19), (2004, 9, 1)]),
    (["19/08/2004", "01/09/2004"], [(2004, 8, 19), (2004, 9, 1)]),
    (["19.08.2004", "01.09.2004"], [(2004, 8, 19), (2004, 9, 1)]),
    (["8-19-2004", "9-1-2004"], [(2004, 8, 19), (2004, 9, 1)]),
    (["01/01/2020", "02/02/2020"], [(2020, 1, 1), (2020, 2, 2)]),  # the same dates either way
    (["2020-1-4", "2020-10-4"], [(2020, 1, 4), (2020, 10, 4)]),
    (["2020.01.31", "2020.02.01 9:05"], [(2020, 1, 31), (2020, 2, 1, 9, 5)]),
    (["2020-004", "2020-366"], [(2020, 1, 4), (2020, 12, 31)]),
    *[([label], [(2020, 4, 1)]) for label in ("2020Q2", "2020-Q2", "2020 q2", "Q2 2020", "Apr 2020", "april-2020")],
    (["Jan 5 2020", "May 6 2020", "June 7 2020"], [(2020, 1, 5), (2020, 5, 6), (2020, 6, 7)]),
    (["01/13/2020 02:00 PM", "01/14/2020 12:00 am"], [(2020, 1, 13, 14), (2020, 1, 14)]),
    (["2020-01-13 02:00 PM", "2020-01-13 2:05:06 PM"], [(2020, 1, 13, 14), (2020, 1, 13, 14, 5, 6)]),
    (["1/13/2020 9:30", "1/13/2020 10:30"], [(2020, 1, 13, 9, 30), (2020, 1, 13, 10, 30)]),
    (["08/19/2004 10:00", "08/19/2004 11:30"], [(2004, 8, 19, 10), (2004, 8, 19, 11, 30)]),
    (["5 Jan 2020, 2pm"], [(2020, 1, 5, 14)]),
    (["1502942400000001"], [(2017, 8, 17, 4, 0, 0, 1)]),
    (["1502942400000001999"], [(2017, 8, 17, 4, 0, 0, 1)]),
    (["2001-02"], [(2001, 2, 1)]),
    (["2001-02", "2001-03"], [(2001, 2, 1), (2001, 3, 1)]),
    (["2004-08", "20040819", "2004-08-20 10:00"], [(2004, 8, 1), (2004, 8, 19), (2004, 8, 20, 10)]),
    # time zones at the ends of the calendar
    (["0001-01-01T00:00+05:00", "0001-01-02T00:00+06:00"], [(1, 1, 1), (1, 1, 2)]),
]


def test_labels_that_are_dates():
    for labels, expected in LABELS:
        assert parse_dates(labels) == [datetime(*parts) for parts in expected], labels


def test_labels_that_are_no_dates():
    for label in (
        *("13/14/2020", "2004-13", "2004-02-30", "12", "1.5", "yesterday", "0000", "08/19/04", "Jan-20", "2020-367"),
        *("2020Q5", "13/13/2020 02:00 PM", "01/13/2020 13:00 PM", "09:30", "", "200408191630", "20040819116"),
        "20040819.12",
    ):
        assert parse_dates([label]) is None, label
    assert parse_dates(["12", "13"]) is None


def test_dates_that_could_be_others(refusal):
    for labels, row, *formats in (
        (["01/02/2020"], 0, "%d/%m/%Y", "%m/%d/%Y"),
        (["01/01/2020", "01.02.2020"], 1),
        (["01/02/2020", "02/03/2020", "03/04/2020"], 0, "%d/%m/%Y", "%m/%d/%Y"),
        (["05-05-2020", "01-02-2020"], 1, "%d-%m-%Y", "%m-%d-%Y"),
        # one of the readings would be in order, but rows need not be
        (["01/02/2020", "02/02/2020", "03/02/2020", "01/03/2020"], 0, "%d/%m/%Y", "%m/%d/%Y"),
        (["03.04.2020 10:30"], 0, "%d.%m.%Y %H:%M", "%m.%d.%Y %H:%M"),
        (["03.04.2020 10:30:05"], 0, "%d.%m.%Y %H:%M:%S", "%m.%d.%Y %H:%M:%S"),
        (["3/4/2020 9:30:05.25 PM"], 0, "%d/%m/%Y %I:%M:%S.%f %p", "%m/%d/%Y %I:%M:%S.%f %p"),
        (["03.04.2020T10:30+02:00"], 0, "%d.%m.%YT%H:%M%z", "%m.%d.%YT%H:%M%z"),
    ):
        error = refusal(lambda labels=labels: parse_dates(labels), repr(labels[row]), error=CellError)
        assert error.row == row, labels
        if formats:
            assert "--date-format" in str(error), labels
            assert re.findall("'(%.*?)'", str(error)) == formats, labels
        for form in formats:
            assert len(parse_dates(labels, form)) == len(labels), labels


def test_dates_of_several_forms(refusal):
    for labels, row, *parts in (
        (["08/19/2004", "19/08/2004"], 1, "'19/08/2004'", "'08/19/2004' in row 0"),
        (["08/19/2004", "2004-08-20"], 1, "'2004-08-20'", "'08/19/2004' in row 0"),
        (["2004-08-19", "Aug 20, 2004"], 1, "'Aug 20, 2004'", "'2004-08-19' in row 0"),
        (["x", "2004-08-19"], 0, "'x'", "'2004-08-19' in row 1"),
        (["01/02/2020", "13/02/2020", "02/13/2020"], 2, "'02/13/2020'", "'13/02/2020' in row 1"),
        (["13/02/2020", "14.02.2020"], 1, "'14.02.2020'", "'13/02/2020' in row 0"),
        (["19-Aug-2004", "20 Aug 2004"], 1, "'20 Aug 2004'", "'19-Aug-2004' in row 0"),
        (["2020-004", "2020-02"], 1, "'2020-02'", "'2020-004' in row 0"),
        (["2020-1-13 02:00 PM", "2020-1-13 03:00"], 1, "'2020-1-13 03:00'", "'2020-1-13 02:00 PM'"),
        (["2020-01-01 23:00", "2020-01-01 24:00"], 1, "24:00' has the hour 24", "write 00:00 of the next day"),
        (["01/13/2020 24:00"], 0, "'01/13/2020 24:00' has the hour 24"),
        (["2004-08-19", ""], 1, "the date is missing"),
        (["NaN", "2004-08-19"], 0, "the date is missing"),
        (["2004-08-19T10:00Z", "2004-08-20T10:00"], 1, "time zone"),
        (["2004-08-19", "2004-08-20", "2004-08-20 10:00+02:00"], 2, "time zone"),
        (["2004-08-19", "\x1b[31m"], 1, r"'\x1b[31m'"),
    ):
        error = refusal(lambda labels=labels: parse_dates(labels), *parts, error=CellError)
        assert error.row == row, labels


def test_years_of_two_digits_have_no_century(refusal):
    for labels, form in ((["01-JAN-60", "01-FEB-61"], "%d-%b-%y"), (["29 February 00"], "%d %B %y")):
        read = lambda labels=labels: parse_dates(labels)  # noqa: E731
        error = refusal(read, f"'{labels[0]}'", "two digits", "--date-format", error=CellError)
        assert re.findall("'(%.*?)'", str(error)) == [form]
        assert len(parse_dates(labels, form)) == len(labels)


def test_years_that_span_two(refusal):
    for labels in (["2001-02", "2002-03"], ["2001-02", "2012-13"], ["1999/00", "2000/01"]):
        form = f"'%Y{labels[0][4]}%m'"
        refusal(lambda labels=labels: parse_dates(labels), f"'{labels[0]}'", "month", form, error=CellError)


def test_dates_of_a_form_that_is_given(refusal):
    for label, form, expected in (
        ("01/02/2020", "%d/%m/%Y", (2020, 2, 1)),
        ("01/02/2020", "%m/%d/%Y", (2020, 1, 2)),
        ("08/19/04", "%m/%d/%y", (2004, 8, 19)),
        ("2004-08-19 07 PM", "%Y-%m-%d %I %p", (2004, 8, 19, 19)),
        ("2004-08-19 07:00 +0200", "%Y-%m-%d %H:%M %z", (2004, 8, 19, 7)),
    ):
        assert parse_dates([label], form) == [datetime(*expected)], (label, form)
    read = lambda: parse_dates(["01/02/2020", "2020-02-01"], "%d/%m/%Y")  # noqa: E731
    assert refusal(read, "'2020-02-01'", "'%d/%m/%Y'", "--date-format", error=CellError).row == 1


def test_may_be_date():
    for label, is_date, is_full in (
        *[("2004", True, False), ("2004-08", True, False), ("20040819", True, False)],
        *[("2004-08-19", True, True), ("1/2/2020", True, True), ("Aug 2, 2004", True, True)],
        *[("Aug 2004", True, False), ("2004Q3", True, False), ("19-Aug-04", True, True)],
        *[("x", False, False), ("", False, False), ("1.5", False, False)],
    ):
        assert (may_be_date(label), is_full_date(label)) == (is_date, is_full), label


def test_dates_written_by_pandas(rng):
    days = pd.to_datetime(rng.integers(0, 20_000, 50), unit="D").sort_values()
    expected = days.to_pydatetime().tolist()
    for form in ("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%b %d, %Y", "%d %B %Y", "%Y%m%d"):
        assert parse_dates(days.strftime(form).tolist()) == expected, form


def test_direction():
    for keys, expected in (
        ([1, 2, 2, 5], 1),
        ([5, 2, 2, 1], -1),
        ([1, 3, 2], None),
        ([3, 1, 2], None),
        ([4, 4], 1),
        ([4], 1),
    ):
        assert direction(keys) == expected, keys


# --- going on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["1999-11-03", "2003-12-30", "2023-01-27 09:30"])
def test_the_next_dates_are_those_of_pandas(start):
    for frequency in (
        *("D", "2D", "W-WED", "h", "15min", "MS", "ME", "2ME", "QS", "QE", "QE-JAN", "YS", "YE", "YS-OCT", "B"),
        *("6MS", "24MS"),
    ):
        dates = pd.date_range(start, periods=40, freq=frequency).to_pydatetime().tolist()
        assert next_dates(dates[:20], 20) == dates[20:], frequency


def test_months_on_the_same_day():
    for day in (15, 28):
        dates = [datetime(2020, month, day) for month in range(5, 13)]
        assert next_dates(dates, 3) == [datetime(2021, month, day) for month in (1, 2, 3)], day


def test_trading_days_go_from_friday_to_monday():
    trading = pd.bdate_range("2012-12-03", "2013-03-01").drop(["2012-12-25", "2013-01-01", "2013-01-21", "2013-02-18"])
    dates = [stamp.to_pydatetime() for stamp in trading + pd.Timedelta(hours=16)]
    expected = [datetime(2013, 3, day, 16) for day in (4, 5, 6, 7, 8, 11)]
    assert dates[-1].weekday() == 4
    assert next_dates(dates, 6) == expected


def test_dates_without_a_rule_do_not_go_on():
    for dates in (
        [datetime(2020, 1, 1), datetime(2020, 1, 2), datetime(2020, 1, 4), datetime(2020, 1, 9)],  # a Saturday
        [datetime(2020, 1, 1), datetime(2020, 1, 3), datetime(2020, 1, 8)],
        [datetime(2020, 1, 31), datetime(2020, 2, 28), datetime(2020, 3, 31)],
        [datetime(2020, 1, 30), datetime(2020, 2, 28), datetime(2020, 3, 30)],
        [datetime(2020, 3, 30), datetime(2020, 4, 30), datetime(2020, 5, 30)],
        [datetime(2020, 1, 1), datetime(2020, 3, 1), datetime(2020, 4, 1)],
        [datetime(2020, 1, 6), datetime(2020, 1, 7), datetime(2020, 1, 27), datetime(2020, 1, 28)],  # weeks missing
        [datetime(2020, 1, 1), datetime(2020, 1, 2)],
        [datetime(2020, 1, 1)],
        [],
        [datetime(2004, 8, 19)] * 4,
        *([datetime(9999 - step * i, 1, 1) for i in range(9, -1, -1)] for step in (1, 2)),  # the calendar's end
    ):
        assert next_dates(dates, 3) is None, dates


def test_random_dates_do_not_go_on(rng):
    for _ in range(50):
        days = sorted(rng.choice(2000, size=30, replace=False).tolist())
        assert next_dates([datetime(2000, 1, 1) + timedelta(days=day) for day in days], 2) is None


def test_months_and_years_that_happen_to_be_equally_long():
    for labels, expected in (
        (["2001", "2002", "2003"], ["2004", "2005", "2006"]),
        (["2004-07-01", "2004-08-01", "2004-09-01"], ["2004-10-01", "2004-11-01", "2004-12-01"]),
        (["2003-12-01", "2004-01-01", "2004-02-01"], ["2004-03-01", "2004-04-01", "2004-05-01"]),
    ):
        dates = next_dates(parse_dates(labels), 3)
        assert [format_date(date, like=labels[-1]) for date in dates] == expected, labels


# --- writing ----------------------------------------------------------------------------------------------------


def test_format_date():
    for like, expected in (
        ("1700", "2004"),
        ("1999-12", "2004-08"),
        ("1999-1", "2004-08"),
        ("1999-12-31", "2004-08-19"),
        ("12/31/1999", "2004-08-19"),
        ("1999-12-31 10:00", "2004-08-19 16:30:00"),
        ("1999-12-31T10:00:00Z", "2004-08-19 16:30:00"),
        ("1502942400000", "2004-08-19 16:30:00"),
        ("1502942400000000", "2004-08-19 16:30:00"),
        ("12/31/1999 10 AM", "2004-08-19 16:30:00"),
        ("1999Q4", "2004-08-19"),
    ):
        assert format_date(datetime(2004, 8, 19, 16, 30), like) == expected, like
    for label in ("2004", "2004-08", "2004-08-19", "2004-08-19 16:30:00"):
        assert format_date(parse_dates([label])[0], label) == label


def test_times_across_a_change_of_summer_time_go_on():
    for change in ("2023-10-29", "2023-03-26"):
        for minutes in (30, 60):
            start = pd.Timestamp(change, tz="Europe/Berlin") - pd.Timedelta("1D")
            index = pd.date_range(start, periods=72 * 60 // minutes, freq=f"{minutes}min")
            dates = parse_dates([str(stamp) for stamp in index])
            (following,) = next_dates(dates, 1)
            expected = str((index[-1] + pd.Timedelta(minutes=minutes)).tz_convert("UTC"))
            assert format_date(following, str(index[-1])) == expected, (change, minutes)


def test_time_zones_that_tell_another_order_are_read_in_utc():
    labels = ["2020-01-01T10:00+00:00", "2020-01-01T12:00+05:00", "2020-01-01T11:00-05:00", "2020-01-01T01:00+00:00"]
    assert [date.hour for date in parse_dates(labels)] == [10, 7, 16, 1]
    same = ["2020-01-01T10:00+00:00", "2020-01-01T11:00+01:00", "2020-01-01T09:00+00:00"]
    assert [date.hour for date in parse_dates(same)] == [10, 10, 9]


def test_days_in_no_order_across_a_change_of_summer_time_keep_the_wall_clock():
    labels = [f"2020-10-{day} 00:00+0{offset}:00" for day, offset in ((26, 1), (24, 2), (25, 2), (27, 1))]
    assert parse_dates(labels) == [datetime(2020, 10, day) for day in (26, 24, 25, 27)]


def test_days_across_a_change_of_summer_time_keep_the_wall_clock():
    index = pd.bdate_range("2023-10-02", "2023-11-30", tz="America/New_York")
    dates = parse_dates([str(stamp) for stamp in index])
    assert dates == [stamp.to_pydatetime().replace(tzinfo=None) for stamp in index]
    assert next_dates(dates, 2) == [datetime(2023, 12, 1), datetime(2023, 12, 4)]
