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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("09:30", time(9, 30)),
        ("9:30", time(9, 30)),
        ("9:30:05.250", time(9, 30, 5, 250000)),
        ("9 am", time(9)),
        ("12:00 AM", time(0)),
        ("12:30PM", time(12, 30)),
        ("11:59:59 pm", time(23, 59, 59)),
    ],
)
def test_times_of_day(text, expected):
    assert read_clock(text) == expected


@pytest.mark.parametrize("text", ["x", "24:00", "24:00 AM", "13:00 PM", "0:30 AM", "9:60", "930", "9:30 XM"])
def test_no_times_of_day(text):
    with pytest.raises(ValueError, match=rf"{text}|must be in"):
        read_clock(text)


@pytest.mark.parametrize("month", range(1, 13))
def test_english_names_of_months(month):
    day = datetime(2020, month, 5)
    for form in ("%d %b %Y", "%d-%B-%Y", "%b %d %Y", "%B %d, %Y", "%d %b %y", "%b-%Y", "%B %Y"):
        (read,) = (read for read in (*FORMS, *NUMERIC_FORMS) if reads(read, day.strftime(form)))
        expected = day if "%d" in form else day.replace(day=1)
        assert read(day.strftime(form).upper()) == read(day.strftime(form).lower()) == expected


@pytest.mark.parametrize(
    ("label", "digits"),
    [
        *[("1577836800000000001", "001"), ("1577836800000000010", "01"), ("1577836800000000", "")],
        *[("2020-01-01 00:00:00.0000000010", "001"), ("2020-01-01 00:00:00.000001", ""), ("2020", "")],
    ],
)
def test_digits_beyond_microseconds(label, digits):
    assert beyond_microseconds(label) == digits


@pytest.mark.parametrize(
    ("label", "expected"), [("2020-01-01 10:00", True), ("1/2/2020 10 AM", True), ("1" * 13, True), ("2020Q1", False)]
)
def test_has_time(label, expected):
    assert has_time(label) == expected


@pytest.mark.parametrize(
    ("formats", "label", "expected"),
    [
        (short_year_formats, "01/02/03", "'%d/%m/%y' or '%m/%d/%y' or '%y/%m/%d'"),
        (short_year_formats, "13.02.99 9:30", "'%d.%m.%y %H:%M'"),
        (short_year_formats, "Jan-20", "'%b-%y'"),
        (short_year_formats, "Jan 5, 20", "'%b %d, %y'"),
        (short_year_formats, "01/02/2003", ""),
        (digit_formats, "30112019", "'%d%m%Y'"),
        (digit_formats, "43831", ""),
    ],
)
def test_formats_that_are_advised_work(formats, label, expected):
    assert formats([label]) == expected
    assert all(isinstance(read_as(label, form.strip("'")), datetime) for form in expected.split(" or ") if form)


@pytest.mark.parametrize("label", ["1/2/2020", "1.2.2020 9:30", "01-02-2020T09:30:05", "1/2/2020 9:30:05.5 PM"])
def test_both_orders_of_a_numeric_date(label):
    day_first, month_first = (read_as(label, form.strip("'")) for form in numeric_formats(label).split(" or "))
    assert (month_first, day_first) == tuple(form(label) for form in NUMERIC_FORMS)
    assert (day_first.month, month_first.month) == (2, 1)
