import re
from collections.abc import Callable
from datetime import datetime, time, timedelta
from typing import Any

import pandas as pd
import pytest

from gru_xp.io.dates import (
    Dates,
    _languages,
    date_remedy,
    digit_formats,
    format_date,
    is_full_date,
    may_be_date,
    read_dates,
    short_year_formats,
)
from gru_xp.io.messages import CellError
from gru_xp.io.spacing import find_spacing

pytestmark = pytest.mark.compat


@pytest.fixture
def cell_error(refusal: Callable[..., Any]) -> Callable[..., CellError]:
    """``cell_error(labels, *parts)``: why a column is refused, in a line with these parts."""

    def cell_error(labels: list[str], *parts: str, date_format: str | None = None) -> CellError:
        return refusal(lambda: read_dates(labels, date_format), *parts, error=CellError)

    return cell_error


def read(labels: list[str], *args: Any, **options: Any) -> Dates:
    dates = read_dates(labels, *args, **options)
    assert dates is not None, labels
    return dates


# --- reading ----------------------------------------------------------------------------------------------------


HALF_SECOND = (2004, 8, 20, 10, 0, 0, 500000)
LABELS = [
    (["2004-08-19", "2004-08-20"], [(2004, 8, 19), (2004, 8, 20)]),
    (["2004-08-19T16:30:05"], [(2004, 8, 19, 16, 30, 5)]),
    (["2004-08-19 16:30", "2004-08-19 16:31"], [(2004, 8, 19, 16, 30), (2004, 8, 19, 16, 31)]),
    (["2004-08-19 16:30:00+02:00"], [(2004, 8, 19, 16, 30)]),
    (["2004-08-19T23:30:00-05:00"], [(2004, 8, 19, 23, 30)]),
    (["2004-08-19T16:30:00Z"], [(2004, 8, 19, 16, 30)]),
    (["2004-08-19 16:30:00 UTC"], [(2004, 8, 19, 16, 30)]),
    (["2004-08-19 16:30:00 +0200"], [(2004, 8, 19, 16, 30)]),
    (["2004-08-19T16:30:00.250000"], [(2004, 8, 19, 16, 30, 0, 250000)]),
    (["2004-08-19 16:30:00,25"], [(2004, 8, 19, 16, 30, 0, 250000)]),
    (["20040819T163005"], [(2004, 8, 19, 16, 30, 5)]),
    (["2024-01-01T00", "2024-01-01T01"], [(2024, 1, 1), (2024, 1, 1, 1)]),
    (["2024/01/01 00", "2024/01/01 01"], [(2024, 1, 1), (2024, 1, 1, 1)]),
    (["5 Jan 2024 15", "6 Jan 2024T16"], [(2024, 1, 5, 15), (2024, 1, 6, 16)]),
    (["20240105 1530", "20240105 1545"], [(2024, 1, 5, 15, 30), (2024, 1, 5, 15, 45)]),
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
    (["19AUG2004"], [(2004, 8, 19)]),
    (["2004-Aug-19"], [(2004, 8, 19)]),
    (["08/19/2004", "09/01/2004"], [(2004, 8, 19), (2004, 9, 1)]),
    (["19/08/2004", "01/09/2004"], [(2004, 8, 19), (2004, 9, 1)]),
    (["19.08.2004", "01.09.2004"], [(2004, 8, 19), (2004, 9, 1)]),
    (["8-19-2004", "9-1-2004"], [(2004, 8, 19), (2004, 9, 1)]),
    (["01/01/2020", "02/02/2020"], [(2020, 1, 1), (2020, 2, 2)]),  # the same dates either way
    (["2020-1-4", "2020-10-4"], [(2020, 1, 4), (2020, 10, 4)]),
    (["2020.01.31", "2020.02.01 9:05"], [(2020, 1, 31), (2020, 2, 1, 9, 5)]),
    *[([label], [(2020, 4, 1)]) for label in ("2020Q2", "2020-Q2", "2020 q2", "Q2 2020", "Apr 2020", "april-2020")],
    *[([label], [(2020, 4, 1)]) for label in ("04/2020", "2020/4", "2020M04", "2020 M04", "2020:M04", "2020-Apr")],
    (["12-2019", "01-2020"], [(2019, 12, 1), (2020, 1, 1)]),
    (["Jan 5 2020", "May 6 2020", "June 7 2020"], [(2020, 1, 5), (2020, 5, 6), (2020, 6, 7)]),
    (["01/13/2020 02:00 PM", "01/14/2020 12:00 am"], [(2020, 1, 13, 14), (2020, 1, 14)]),
    (["2020-01-13 02:00 PM", "2020-01-13 2:05:06 PM"], [(2020, 1, 13, 14), (2020, 1, 13, 14, 5, 6)]),
    (["1/13/2020 9:30", "1/13/2020 10:30"], [(2020, 1, 13, 9, 30), (2020, 1, 13, 10, 30)]),
    (["08/19/2004 10:00", "08/19/2004 11:30"], [(2004, 8, 19, 10), (2004, 8, 19, 11, 30)]),
    (["5 Jan 2020, 2pm"], [(2020, 1, 5, 14)]),
    (["Jan 5, 2020 at 2:00 p.m."], [(2020, 1, 5, 14)]),
    (["1502942400000001"], [(2017, 8, 17, 4, 0, 0, 1)]),
    (["1502942400000001999"], [(2017, 8, 17, 4, 0, 0, 1)]),
    (["2001-02"], [(2001, 2, 1)]),
    (["2001-02", "2001-03"], [(2001, 2, 1), (2001, 3, 1)]),
    (["2004-08-19", "2004-08-20 10:00", "2004-08-20T10:00:00.5"], [(2004, 8, 19), (2004, 8, 20, 10), HALF_SECOND]),
    # time zones at the ends of the calendar
    (["0001-01-01T00:00+05:00", "0001-01-02T00:00+06:00"], [(1, 1, 1), (1, 1, 2)]),
    # other languages
    (["31. Dezember 2023", "1. März 2023"], [(2023, 12, 31), (2023, 3, 1)]),
    (["Dez 2023", "Mrz 2023"], [(2023, 12, 1), (2023, 3, 1)]),
    (["Mon, 01 Jan 2024 10:00:00 GMT", "Tue, 02 Jan 2024 10:00:00 GMT"], [(2024, 1, 1, 10), (2024, 1, 2, 10)]),
    (["31 décembre 2023", "1er janvier 2024", "2 FEVRIER 2024"], [(2023, 12, 31), (2024, 1, 1), (2024, 2, 2)]),
    (["janv. 2024", "juil. 2024", "mai 2024"], [(2024, 1, 1), (2024, 7, 1), (2024, 5, 1)]),
    (["31 de diciembre de 2023", "1 de enero de 2024"], [(2023, 12, 31), (2024, 1, 1)]),
    (["31 dic 2023", "1 gen 2024"], [(2023, 12, 31), (2024, 1, 1)]),
    (["31 de dez. de 2023", "1 de fev. de 2024"], [(2023, 12, 31), (2024, 2, 1)]),
    (["31 december 2023", "1 maart 2024", "2 mrt 2024"], [(2023, 12, 31), (2024, 3, 1), (2024, 3, 2)]),
    (["31 grudnia 2023", "1 stycznia 2024"], [(2023, 12, 31), (2024, 1, 1)]),
    (["31 Aralık 2023", "1 KASIM 2023"], [(2023, 12, 31), (2023, 11, 1)]),
    (["31 декабря 2023", "1 мая 2023"], [(2023, 12, 31), (2023, 5, 1)]),
    # years first
    (["2023- 12- 31", "2023- 12- 30"], [(2023, 12, 31), (2023, 12, 30)]),
    (["2023年12月31日", "2023年1月2日"], [(2023, 12, 31), (2023, 1, 2)]),
    (["2023년 12월 31일 10:30"], [(2023, 12, 31, 10, 30)]),
    (["2023. 12. 31.", "2023. 1. 2."], [(2023, 12, 31), (2023, 1, 2)]),
    (["2023년 12월 31일 10", "2023년 12월 31일T11"], [(2023, 12, 31, 10), (2023, 12, 31, 11)]),
    (["2023- 12- 31 10"], [(2023, 12, 31, 10)]),
    (["2023年12月", "2023年1月"], [(2023, 12, 1), (2023, 1, 1)]),
    # 24:00, the end of a day
    (["2020-01-31 23:00", "2020-01-31 24:00"], [(2020, 1, 31, 23), (2020, 2, 1)]),
    (["01/13/2020 24:00:00", "01/14/2020 01:00:00"], [(2020, 1, 14), (2020, 1, 14, 1)]),
    (["2020-12-31T2400Z", "2021-01-01T0100Z"], [(2021, 1, 1), (2021, 1, 1, 1)]),
    # weeks
    (["2024-W05", "2024-W06"], [(2024, 1, 29), (2024, 2, 5)]),
    (["2024W05"], [(2024, 1, 29)]),
    (["2024-W05-3", "2020-W53-1"], [(2024, 1, 31), (2020, 12, 28)]),
    # intervals
    (["2023-01-08/2023-01-14", "2023-01-01/2023-01-07"], [(2023, 1, 8), (2023, 1, 1)]),
    (["2023-01-01 - 2023-01-07"], [(2023, 1, 1)]),
    (["01/01/2023 to 07/01/2023", "08/01/2023 to 14/01/2023"], [(2023, 1, 1), (2023, 1, 8)]),
    (["1 Jan 2023 – 7 Jan 2023"], [(2023, 1, 1)]),
    (["31.12.2023 23:00 - 01.01.2024 00:00"], [(2023, 12, 31, 23)]),
]


def test_labels_that_are_dates():
    for labels, expected in LABELS:
        assert read(labels).values == [datetime(*parts) for parts in expected], labels


def test_labels_that_are_no_dates():
    for label in (
        *("13/14/2020", "2004-13", "2004-02-30", "12", "1.5", "yesterday", "0000", "2020-367"),
        *("2020Q5", "13/13/2020 02:00 PM", "01/13/2020 13:00 PM", "09:30", "", "200408191630", "20040819116"),
        *(
            "20040819.12",
            "2004-08/19",
            "5/2340",
            "12.2020",
            "2020.12",
            "2020 10",
            "2023-W53",
            "2021-366",
            "wk 01/2024",
            "FY 2020",
        ),
        *(
            "Jan 2020 10:30",
            "Mars 1234567",
            "1400000000",
            "1234/5678",
            "5 - 7",
            "01/13/2020 9:60",
            "2020-01-01 9:30 XM",
            *("2020-01-01 22.30", "2020-01-01 22:30.5", "5 Jan 2020 22.30", "5 Jan 2020 10-11", "5 Jan 2020 1000-1100"),
            "1500000000000 - 1600000000000",
        ),
    ):
        assert read_dates([label]) is None, label
        assert not may_be_date(label), label
    for labels in ([], ["12", "13"], ["998", "1001", "1203"], ["2001", "999", "12"]):
        assert read_dates(labels) is None, labels


def test_months_of_every_language_by_name():
    for name, month in (("Mai", 5), ("agosto", 8), ("août", 8), ("AOUT", 8), ("oktober", 10), ("Październik", 10)):
        for label in (f"5 {name} 2020", f"5-{name}-2020", f"{name} 5, 2020", f"2020 {name} 5"):
            assert read([label]).values == [datetime(2020, month, 5)], label
        assert read([f"{name} 2020"]).values == [datetime(2020, month, 1)], name
    for month in range(1, 13):
        day = datetime(2020, month, 5)
        for form in ("%d %b %Y", "%d-%B-%Y", "%b %d %Y", "%B %d, %Y", "%b-%Y", "%B %Y"):
            expected = [day if "%d" in form else day.replace(day=1)]
            for label in (day.strftime(form).upper(), day.strftime(form).lower()):
                assert read([label]).values == expected, label
    assert read_dates(["5 jui 2020"]) is None  # juin or juillet


def test_no_abbreviation_means_two_months():
    for language, months in _languages().items():
        assert len(months) == 12
        for month, names in enumerate(months, 1):
            for name in names:
                assert read([f"5 {name} 2020"]).values == [datetime(2020, month, 5)], (language, name)
                for end in (3, 4):
                    dates = read_dates([f"5 {name[:end]} 2020"])
                    assert dates is None or dates.values == [datetime(2020, month, 5)], (language, name[:end])


def test_seconds_since_1970_need_the_name_of_a_time():
    labels = ["1400000000", "1400000001.25"]
    assert read_dates(labels) is None
    dates = read(labels, is_time=True)
    assert dates.values == [datetime(2014, 5, 13, 16, 53, 20), datetime(2014, 5, 13, 16, 53, 21, 250000)]
    assert may_be_date(labels[1], is_time=True)


def test_times_of_day():
    for text, expected in (
        ("09:30", time(9, 30)),
        ("9:30", time(9, 30)),
        ("9:30:05.250", time(9, 30, 5, 250000)),
        ("9 am", time(9)),
        ("12:00 AM", time(0)),
        ("12:30PM", time(12, 30)),
        ("11:59:59 pm", time(23, 59, 59)),
    ):
        assert read([f"13/1/2020 {text}"]).values == [datetime.combine(datetime(2020, 1, 13), expected)], text
    for text in ("x", "13:00 PM", "0:30 AM", "9:60", "930", "9:30 XM"):
        assert read_dates([f"13/1/2020 {text}"]) is None, text


def test_dates_that_could_be_others(cell_error):
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
        (["01-02-2020T09:30:05"], 0, "%d-%m-%YT%H:%M:%S", "%m-%d-%YT%H:%M:%S"),
        (["01/02/2020 10"], 0, "%d/%m/%Y %H", "%m/%d/%Y %H"),
        (["01/02/2020 1030"], 0, "%d/%m/%Y %H%M", "%m/%d/%Y %H%M"),
    ):
        error = cell_error(labels, repr(labels[row]))
        assert error.row == row, labels
        assert re.findall("'(%.*?)'", str(error)) == formats, labels
        readings = [read(labels, form) for form in formats]
        assert [dates.form for dates in readings] == formats
        assert len({tuple(dates.values) for dates in readings}) == len(formats), labels
        assert not formats or "date_format=" in str(error), labels


def test_intervals_that_could_be_others(cell_error):
    parts = "'02/01/2023 - 03/01/2023'", "day or month first", "'%d/%m/%Y' or '%m/%d/%Y'"
    assert cell_error(["02/01/2023 - 03/01/2023"], *parts).row == 0
    assert cell_error(["2023-01-01/2023-01-07", "2023-01-08/x"], "'2023-01-08/x' is not written as").row == 1
    assert read(["02/01/2023 - 03/01/2023"], "%d/%m/%Y").values == [datetime(2023, 1, 2)]
    assert read(["2023-01-01/2023-01-07", "2023-01-08"]).values == [datetime(2023, 1, 1), datetime(2023, 1, 8)]


def test_dates_of_several_forms(cell_error):
    for labels, row, *parts in (
        (["08/19/2004", "19/08/2004"], 1, "'19/08/2004'", "'08/19/2004' in row 0"),
        (["08/19/2004", "2004-08-20"], 1, "'2004-08-20'", "'08/19/2004' in row 0"),
        (["2004-08-19", "Aug 20, 2004"], 1, "'Aug 20, 2004'", "'2004-08-19' in row 0"),
        (["x", "2004-08-19"], 0, "'x'", "'2004-08-19' in row 1"),
        (["01/02/2020", "13/02/2020", "02/13/2020"], 2, "'02/13/2020'", "'13/02/2020' in row 1"),
        (["13/02/2020", "14.02.2020"], 1, "'14.02.2020'", "'13/02/2020' in row 0"),
        (["19-Aug-2004", "20 Aug 2004"], 1, "'20 Aug 2004'", "'19-Aug-2004' in row 0"),
        (["2020Q1", "2020-02"], 1, "'2020-02'", "'2020Q1' in row 0"),
        (["2020-1-13 02:00 PM", "2020-1-13 03:00"], 1, "'2020-1-13 03:00'", "'2020-1-13 02:00 PM'"),
        (["2020-01-01 23:00", "2020-01-01 25:00"], 1, "25:00' is not written as"),
        (["01/13/2020 11:00 PM", "01/13/2020 24:00 PM"], 1, "24:00 PM' is not written as"),
        (["12/31/9998 24:00", "12/31/9999 24:00"], 1, "'12/31/9999 24:00' is not written as"),
        (["2004-08-19", "2004-08-1", "92004-08-19"], 2, "'92004-08-19'"),
        (["2004-08-19", ""], 1, "the date is missing"),
        (["NaN", "2004-08-19"], 0, "the date is missing"),
        (["2004-08-19T10:00Z", "2004-08-20T10:00"], 1, "time zone"),
        (["2004-08-19", "2004-08-20", "2004-08-20 10:00+02:00"], 2, "time zone"),
        (["2004-08-19", "\x1b[31m"], 1, r"'\x1b[31m'"),
        (["2004", "x"], 1, "'x' is not written as '2004'"),
    ):
        assert cell_error(labels, *parts).row == row, labels


def test_years_of_two_digits_need_a_format():
    for labels, form in (
        (["08/19/04"], "%m/%d/%y"),
        (["Jan-20"], "%b-%y"),
        (["01-JAN-60", "01-FEB-61"], "%d-%b-%y"),
        (["29 February 00"], "%d %B %y"),
        (["31. Dez. 23"], None),
    ):
        assert read_dates(labels) is None, labels
        assert short_year_formats(labels) == ((form,) if form else ()), labels
        assert form is None or len(read(labels, form).values) == len(labels)


def test_years_that_span_two(cell_error):
    for labels in (["2001-02", "2002-03"], ["2001/02", "2002/03"]):
        cell_error(labels, f"'{labels[0]}'", "month", f"date_format='%Y{labels[0][4]}%m'")


def test_dates_of_a_form_that_is_given(cell_error):
    for label, form, expected in (
        ("01/02/2020", "%d/%m/%Y", (2020, 2, 1)),
        ("01/02/2020", "%m/%d/%Y", (2020, 1, 2)),
        ("08/19/04", "%m/%d/%y", (2004, 8, 19)),
        ("2004-08-19 07 PM", "%Y-%m-%d %I %p", (2004, 8, 19, 19)),
        ("2004-08-19 07:00 +0200", "%Y-%m-%d %H:%M %z", (2004, 8, 19, 7)),
        ("201912", "%Y%m", (2019, 12, 1)),
        ("2024010115", "%Y%m%d%H", (2024, 1, 1, 15)),
    ):
        assert read([label], form) == Dates([datetime(*expected)], form, [datetime(*expected)]), (label, form)
        assert may_be_date(label, form)
    error = cell_error(
        ["01/02/2020", "2020-02-01"], "'2020-02-01'", "'%d/%m/%Y'", "correct date_format", date_format="%d/%m/%Y"
    )
    assert error.row == 1
    cell_error(["30112019", "1122019"], "'1122019'", date_format="%d%m%Y")  # 1 December or 11 February
    cell_error(["2021-366"], "'2021-366'", date_format="%Y-%j")


def test_may_be_date():
    for label, is_date, is_full in (
        *[("2004", True, False), ("2004-08", True, False), ("20040819", True, False), ("2004-W05", True, False)],
        *[("2004-08-19", True, True), ("1/2/2020", True, True), ("Aug 2, 2004", True, True)],
        *[("Aug 2004", True, False), ("2004Q3", True, False), ("19-Aug-04", True, True), ("08/19/04", False, False)],
        *[("2023- 12- 31", True, True), ("2023-01-01/2023-01-07", True, True), ("31. Dezember 2023", True, True)],
        *[("x", False, False), ("", False, False), ("1.5", False, False), ("1400000000", False, False)],
    ):
        assert (may_be_date(label), is_full_date(label)) == (is_date, is_full), label


def test_dates_written_by_pandas(rng):
    days = pd.to_datetime(rng.integers(0, 20_000, 50), unit="D").sort_values()
    expected = days.to_pydatetime().tolist()
    for form in ("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%b %d, %Y", "%d %B %Y", "%Y%m%d"):
        dates = read(days.strftime(form).tolist())
        assert dates.values == expected, form
        assert dates.form == form


def test_keys_tell_times_apart_to_the_nanosecond():
    for labels in (
        ["1577836800000000010", "1577836800000000001"],
        ["2020-01-01 00:00:00.0000000010", "2020-01-01 00:00:00.0000000001"],
        ["1/13/2020 00:00:00.0000000010", "1/13/2020 00:00:00.0000000001"],
    ):
        dates = read(labels)
        assert dates.values[0] == dates.values[1], labels
        assert dates.keys[0] > dates.keys[1], labels
    repeated = read(["2020-01-01", "2020-01-01", "2020-01-02"])
    assert repeated.keys[0] == repeated.keys[1] < repeated.keys[2]
    repeated = read(["2020-01-01 00:00:00.1000000010", "2020-01-01 00:00:00.100000001"])
    assert repeated.keys[0] == repeated.keys[1]


def test_formats_that_are_advised_work():
    for formats, labels, expected in (
        (short_year_formats, ["01/02/03"], ("%d/%m/%y", "%m/%d/%y", "%y/%m/%d")),
        (short_year_formats, ["01/02/03", "13/02/03"], ("%d/%m/%y", "%y/%m/%d")),
        (short_year_formats, ["13.02.99 9:30"], ("%d.%m.%y %H:%M",)),
        (short_year_formats, ["Jan-20"], ("%b-%y",)),
        (short_year_formats, ["Jan 5, 20"], ("%b %d, %y",)),
        (short_year_formats, ["January 5, 20"], ("%B %d, %y",)),
        (short_year_formats, ["01/02/2003"], ()),
        (short_year_formats, ["x"], ()),
        (digit_formats, ["30112019"], ("%d%m%Y",)),
        (digit_formats, ["201912"], ("%Y%m",)),
        (digit_formats, ["201112"], ("%Y%m", "%d%m%y", "%y%m%d")),
        (digit_formats, ["2024010100"], ("%Y%m%d%H",)),
        (digit_formats, ["20101211"], ("%Y%m%d",)),  # not the year 1211
        (digit_formats, ["43831"], ()),
        (digit_formats, ["1122019"], ()),
    ):
        assert formats(labels) == expected, labels
        for form in expected:
            assert read(labels, form).form == form


# --- time zones -------------------------------------------------------------------------------------------------


def test_times_across_a_change_of_summer_time_are_in_utc_if_clocks_repeat_an_hour():
    for change, zone in (("2023-10-29", "UTC"), ("2023-03-26", None)):
        for minutes in (30, 60):
            start = pd.Timestamp(change, tz="Europe/Berlin") - pd.Timedelta("1D")
            index = pd.date_range(start, periods=72 * 60 // minutes, freq=f"{minutes}min")
            dates = read([str(stamp) for stamp in index])
            expected = (index.tz_convert(zone) if zone else index).tz_localize(None).to_pydatetime().tolist()
            assert dates.values == expected, (change, minutes)
            assert find_spacing(dates.values).missing == 0, (change, minutes)


def test_time_zones_that_tell_another_order_are_read_in_utc():
    labels = ["2020-01-01T10:00+00:00", "2020-01-01T12:00+05:00", "2020-01-01T11:00-05:00", "2020-01-01T01:00+00:00"]
    assert [date.hour for date in read(labels).values] == [10, 7, 16, 1]
    same = ["2020-01-01T10:00+00:00", "2020-01-01T11:00+01:00", "2020-01-01T09:00+00:00"]
    assert [date.hour for date in read(same).values] == [10, 10, 9]


def test_days_in_no_order_across_a_change_of_summer_time_keep_the_wall_clock():
    labels = [f"2020-10-{day} 00:00+0{offset}:00" for day, offset in ((26, 1), (24, 2), (25, 2), (27, 1))]
    assert read(labels).values == [datetime(2020, 10, day) for day in (26, 24, 25, 27)]


def test_days_across_a_change_of_summer_time_keep_the_wall_clock():
    index = pd.bdate_range("2023-10-02", "2023-11-30", tz="America/New_York")
    assert read([str(stamp) for stamp in index]).values == index.tz_localize(None).to_pydatetime().tolist()


# --- writing ----------------------------------------------------------------------------------------------------


def test_days_and_hours_are_no_seconds():
    assert read_dates(["2020013123", "2020013124"], is_time=True) is None
    assert read(["1900000000", "1900000001"], is_time=True).values[0].year == 2030


def test_what_to_do_about_labels_that_are_no_dates():
    iso = "write dates as 2020-01-31"
    for label, remedy in (
        ("Jan-18", "give date_format='%b-%y'"),
        ("15012020", "give date_format='%d%m%Y'"),
        *((label, iso) for label in ("dic-20", "01/31", "43831", "Monday")),
        ("2020|01|31", f"give date_format, or {iso}"),
    ):
        assert date_remedy([label]) == remedy, label


def test_format_date_without_a_form():
    for like, expected in (
        ("1700", "2004"),
        ("1999-12", "2004-08"),
        ("1999-1", "2004-08"),
        ("1999-12-31", "2004-08-19"),
        ("12/31/1999", "2004-08-19"),
        ("1999-12-31 10:00", "2004-08-19 16:30:00"),
        ("1999-12-31T10:00:00Z", "2004-08-19 16:30:00Z"),
        ("1999-12-31T10", "2004-08-19 16:30:00"),
        ("1502942400000", "2004-08-19 16:30:00"),
        ("1502942400000000", "2004-08-19 16:30:00"),
        ("1502942400", "2004-08-19 16:30:00"),
        ("12/31/1999 10 AM", "2004-08-19 16:30:00"),
        ("31.12.1999 10:00+02:00", "2004-08-19 16:30:00+02:00"),
        ("1999Q4", "2004-08-19"),
        ("2024010100", "2004-08-19 16:30:00"),
        ("19991231", "2004-08-19"),
        ("row 5", "2004-08-19"),
    ):
        assert format_date(datetime(2004, 8, 19, 16, 30), like) == expected, like
    for label in ("2004", "2004-08", "2004-08-19", "2004-08-19 16:30:00"):
        assert format_date(read([label]).values[0], label) == label


def test_format_date_in_the_form_of_a_column():
    for labels, next_date, expected in (
        (["2006-12-30", "2006-12-31"], "2007-01-01", "2007-01-01"),
        (["2024-01-01T00", "2024-01-02T15"], "2024-01-02 16:00", "2024-01-02 16:00:00"),
        (["31/12/2006 17:23:00", "31/12/2006 17:24:00"], "2006-12-31 17:25", "31/12/2006 17:25:00"),
        (["08/13/2004", "08/02/2004"], "2004-08-03", "08/03/2004"),
        (["8/13/2004", "8/2/2004"], "2004-08-03", "8/3/2004"),
        (["19.08.2004"], "2004-08-20", "20.08.2004"),
        (["Aug 19, 2004"], "2004-08-20", "Aug 20, 2004"),
        (["Nov 2023", "Dec 2023"], "2024-01-01", "Jan 2024"),
        (["April 2023", "May 2023"], "2023-06-01", "June 2023"),
        (["Apr 2023", "May 2023"], "2023-06-01", "Jun 2023"),
        (["4. June 2001", "5. July 2001"], "2001-08-06", "6. August 2001"),
        (["2-Mär-2024", "3-Mai-2024"], "2024-12-04", "4-Dez-2024"),
        (["3 déc 2023"], "2024-02-03", "3 fév 2024"),
        (["13/01/2020 1030"], "2020-02-14 11:30", "14/02/2020 1130"),
        (["DEC-2023"], "2024-01-01", "JAN-2024"),
        (["2020Q3"], "2020-10-01", "2020Q4"),
        (["Q3 2020"], "2020-10-01", "Q4 2020"),
        (["2020M08"], "2020-09-01", "2020M09"),
        (["2024-W05"], "2024-02-05", "2024-W06"),
        (["2024-W05-3"], "2024-02-01", "2024-W05-4"),
        (["20040819"], "2004-08-20", "2004-08-20"),
        (["1502942400000"], "2017-08-17 05:00", "2017-08-17 05:00:00"),
        (["31. Dezember 2023", "1. Mai 2023"], "2023-06-01", "1. Juni 2023"),
        (["31 mai 2023", "1er février 2023"], "2023-08-09", "9 août 2023"),
        (["31 de diciembre de 2023", "1 de enero de 2024"], "2024-02-03", "3 de febrero de 2024"),
        (["mai 2024", "juil. 2024"], "2024-06-01", "juin 2024"),
        (["31.Dez.2023", "1.Mai.2023"], "2023-10-02", "2.Okt.2023"),
        (["1/31/1999 9:05 p.m."], "2004-08-19 16:30", "8/19/2004 4:30 pm"),
        (["31.12.1999 10:00+02:00"], "2004-08-19 16:30", "2004-08-19 16:30:00+02:00"),
        (
            ["2024-10-27T01:00+02:00", "2024-10-27T02:00+02:00", "2024-10-27T02:00+01:00"],
            "2024-10-27 02:00",
            "2024-10-27 02:00:00+00:00",
        ),
        (["2024-03-31T01:00+01:00", "2024-03-31T03:00+02:00"], "2024-03-31 04:00", "2024-03-31 04:00:00+02:00"),
        (["20191231T230000Z"], "2020-01-01", "2020-01-01 00:00:00Z"),
        (["31.12.1999 10:00:00.5"], "2004-08-19 16:30", "2004-08-19 16:30:00"),
        (["Mon, 01 Jan 2024"], "2024-01-02", "2024-01-02"),
        (["2023- 12- 31"], "2024-01-01", "2024- 01- 01"),
        (["2023年12月31日", "2023年1月1日"], "2023-01-02", "2023年1月2日"),
        (["2023-01-01/2023-01-07"], "2023-01-08", "2023-01-08"),
        (["25/12/2022 to 31/12/2022", "01/01/2023 to 07/01/2023"], "2023-01-08", "08/01/2023"),
        (["1/5/2020 9:00 AM", "1/15/2020 9:00 AM"], "2020-01-16 21:00", "1/16/2020 9:00 PM"),
    ):
        date, dates = datetime.fromisoformat(next_date), read(labels)
        assert format_date(date, labels[-1], dates.form) == expected, labels
        same_form = [expected] if re.search("%[aefz]|%Y%m%d", dates.form) else [*labels, expected]
        assert read(same_form).values[-1] == date, labels
    for form, like in (("%Y%m%d%H", "2024010215"), ("%Y%m%d %H", "20240102 15")):
        assert format_date(datetime(2024, 1, 2, 16), like, form) == "2024-01-02 16:00:00"
    assert format_date(datetime(2024, 1, 2), "31.12.23", "%d.%m.%y") == "02.01.24"


def test_dates_written_are_read_back(rng):
    days = [datetime(1999, 1, 1) + timedelta(days=int(day)) for day in rng.integers(0, 9000, 30)]
    for form in ("%d/%m/%Y", "%b %d, %Y", "%d %B %Y", "%Y.%m.%d", "%d-%b-%Y %H:%M", "%m/%d/%Y %I:%M:%S %p"):
        labels = [day.strftime(form) for day in days]
        found = read(labels).form
        assert found == form
        written = [format_date(day + timedelta(hours=7 * ("%M" in form)), labels[0], found) for day in days]
        assert read(written).values == [day + timedelta(hours=7 * ("%M" in form)) for day in days], form
