import pytest

from gru_xp.forecasting.reading.options import MISSING, ReadOptions

GIVEN = {"decimal": ",", "date_format": "%d/%m/%y", "on_duplicate": "mean", "missing": "mask", "encoding": "cp1252"}


def test_there_and_back():
    for options in (ReadOptions(), ReadOptions(**GIVEN), *(ReadOptions(missing=how) for how in MISSING)):
        assert ReadOptions.from_dict(options.to_dict()) == options
    assert ReadOptions(**GIVEN).to_dict() == GIVEN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decimal": ";"}, "decimal is ';'; it must be one of '.', ','"),
        ({"decimal": ""}, "decimal is ''; it must be one of"),
        ({"on_duplicate": "median"}, "on_duplicate is 'median'; it must be one of 'first', 'last', 'mean'"),
        ({"missing": None}, "missing is None; it must be one of 'refuse', 'drop'"),
        ({"missing": ["drop"]}, "missing is .*; it must be one of"),
        ({"date_format": "%d/%m"}, "date_format is '%d/%m', which has no year; write it as in '%d/%m/%Y'"),
        ({"date_format": ""}, "which has no year"),
        ({"date_format": "day"}, "which has no year"),
        ({"date_format": "%q"}, "date_format is '%q', which strptime cannot read"),
        ({"date_format": "%Y %Y"}, "which strptime cannot read"),
        ({"date_format": "%"}, "which strptime cannot read"),
        ({"date_format": "%Y\ud800"}, "which strptime cannot read"),
        ({"date_format": 5}, "which strptime cannot read"),
        ({"encoding": "latin-99"}, "encoding is 'latin-99', which is not known; give one such as 'cp1252'"),
        ({"encoding": "zlib"}, "which is not known"),
        ({"encoding": "undefined"}, "which is not known"),
        ({"encoding": "idna"}, "which is not known"),
        ({"encoding": "a\0b"}, "which is not known"),
        ({"encoding": 5}, "which is not known"),
    ],
)
def test_options_that_are_none(options, message):
    with pytest.raises(ValueError, match=message):
        ReadOptions(**options)
    with pytest.raises(ValueError, match=message):
        ReadOptions.from_dict(ReadOptions().to_dict() | options)


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d", "%d.%m.%y", "%b %d, %Y", "%Y", "%Y-%m", "%G-W%V-%u", "%Y-%jT%H", "%Y %Z", "%c"]
)
def test_date_formats(form):
    assert ReadOptions(date_format=form).date_format == form


@pytest.mark.parametrize("options", [{}, {"decimal": ","}, None, [], ReadOptions().to_dict() | {"more": "x"}])
def test_only_the_options_that_there_are(options):
    with pytest.raises(ValueError, match="the reading options must be date_format, decimal, encoding, missing, on_dup"):
        ReadOptions.from_dict(options)
