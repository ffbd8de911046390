import pytest

from gru_xp.forecasting.reading.options import MISSING, ReadOptions

pytestmark = pytest.mark.compat

GIVEN = {"decimal": ",", "date_format": "%d/%m/%y", "on_duplicate": "mean", "missing": "mask", "encoding": "cp1252"}


def test_there_and_back():
    for options in (ReadOptions(), ReadOptions(**GIVEN), *(ReadOptions(missing=how) for how in MISSING)):
        assert ReadOptions.from_dict(options.to_dict()) == options
    assert ReadOptions(**GIVEN).to_dict() == GIVEN


def test_options_that_are_none(refusal):
    for name, wrong, *parts in (
        ("decimal", ";", "'.', ','"),
        ("decimal", "", "'.', ','"),
        ("on_duplicate", "median", "'first', 'last', 'mean'"),
        ("missing", None, "'refuse', 'drop'"),
        ("missing", ["drop"], "'refuse', 'drop'"),
        ("date_format", "%d/%m", "no year", "'%d/%m/%Y'"),
        ("date_format", "", "no year"),
        ("date_format", "day", "no year"),
        ("date_format", "%q", "strptime"),
        ("date_format", "%Y %Y", "strptime"),
        ("date_format", "%", "strptime"),
        ("date_format", "%Y\ud800", "strptime"),
        ("date_format", 5, "strptime"),
        ("encoding", "latin-99", "not known", "'cp1252'"),
        ("encoding", "zlib", "not known"),
        ("encoding", "undefined", "not known"),
        ("encoding", "idna", "not known"),
        ("encoding", "a\0b", "not known"),
        ("encoding", 5, "not known"),
    ):
        options = {name: wrong}
        for use in (
            lambda options=options: ReadOptions(**options),
            lambda options=options: ReadOptions.from_dict(ReadOptions().to_dict() | options),
        ):
            refusal(use, f"{name} is {wrong!r}", *parts, error=ValueError)


def test_date_formats():
    for form in ("%Y-%m-%d", "%d.%m.%y", "%b %d, %Y", "%Y", "%Y-%m", "%G-W%V-%u", "%Y-%jT%H", "%Y %Z", "%c"):
        assert ReadOptions(date_format=form).date_format == form


def test_only_the_options_that_there_are(refusal):
    for options in ({}, {"decimal": ","}, None, [], ReadOptions().to_dict() | {"more": "x"}):
        read = lambda options=options: ReadOptions.from_dict(options)  # noqa: E731
        refusal(read, "options", "date_format, decimal, encoding, missing, on_dup", error=ValueError)
