from datetime import datetime, time

import pytest

from gru_xp.forecasting.reading.date_forms import (
    FORMS,
    NUMERIC_FORMS,
    beyond_microseconds,
    digit_formats,
    has_time,
    numeric_formats,
    read_as,
    read_clock,
    reads,
    short_year_formats,
)

pytestmark = pytest.mark.compat


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
        assert read_clock(text) == expected, text
    for text in ("x", "24:00", "24:00 AM", "13:00 PM", "0:30 AM", "9:60", "930", "9:30 XM"):
        with pytest.raises(ValueError, match=rf"{text}|must be in"):
            read_clock(text)


def test_english_names_of_months():
    for month in range(1, 13):
        day = datetime(2020, month, 5)
        for form in ("%d %b %Y", "%d-%B-%Y", "%b %d %Y", "%B %d, %Y", "%d %b %y", "%b-%Y", "%B %Y"):
            (read,) = (read for read in (*FORMS, *NUMERIC_FORMS) if reads(read, day.strftime(form)))
            expected = day if "%d" in form else day.replace(day=1)
            assert read(day.strftime(form).upper()) == read(day.strftime(form).lower()) == expected, (month, form)


def test_digits_beyond_microseconds():
    for label, digits in (
        *[("1577836800000000001", "001"), ("1577836800000000010", "01"), ("1577836800000000", "")],
        *[("2020-01-01 00:00:00.0000000010", "001"), ("2020-01-01 00:00:00.000001", ""), ("2020", "")],
    ):
        assert beyond_microseconds(label) == digits, label


def test_has_time():
    for label in ("2020-01-01 10:00", "1/2/2020 10 AM", "1" * 13):
        assert has_time(label), label
    assert not has_time("2020Q1")


def test_formats_that_are_advised_work():
    for formats, label, expected in (
        (short_year_formats, "01/02/03", "'%d/%m/%y' or '%m/%d/%y' or '%y/%m/%d'"),
        (short_year_formats, "13.02.99 9:30", "'%d.%m.%y %H:%M'"),
        (short_year_formats, "Jan-20", "'%b-%y'"),
        (short_year_formats, "Jan 5, 20", "'%b %d, %y'"),
        (short_year_formats, "01/02/2003", ""),
        (digit_formats, "30112019", "'%d%m%Y'"),
        (digit_formats, "43831", ""),
    ):
        assert formats([label]) == expected, label
        for form in filter(None, expected.split(" or ")):
            assert isinstance(read_as(label, form.strip("'")), datetime), label


def test_both_orders_of_a_numeric_date():
    for label in ("1/2/2020", "1.2.2020 9:30", "01-02-2020T09:30:05", "1/2/2020 9:30:05.5 PM"):
        day_first, month_first = (read_as(label, form.strip("'")) for form in numeric_formats(label).split(" or "))
        assert (month_first, day_first) == tuple(form(label) for form in NUMERIC_FORMS), label
        assert (day_first.month, month_first.month) == (2, 1), label
