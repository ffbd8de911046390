import numpy as np
import pytest

from gru_xp.errors import ArgumentError
from gru_xp.io.options import CHOICES, ReadOptions

pytestmark = pytest.mark.compat

GIVEN = {
    "time": ("Date", "Time"),
    "id": "store",
    "where": ("store=A",),
    "order": "newest-first",
    "freq": "W-MON",
    "missing_values": ("?", "-200"),
    "decimal": ",",
    "date_format": "%d/%m/%y",
    "on_duplicate": "mean",
    "missing": "mask",
    "encoding": "cp1252",
}


def test_there_and_back():
    for options in (ReadOptions(), ReadOptions(**GIVEN), *(ReadOptions(missing=how) for how in CHOICES["missing"])):
        assert ReadOptions.from_dict(options.to_dict()) == options
    assert ReadOptions(**GIVEN).to_dict() == GIVEN


def test_a_model_may_hold_fewer_options():
    """Those of models before ``time`` was one of them."""
    held = {name: GIVEN[name] for name in ("decimal", "date_format", "on_duplicate", "missing", "encoding")}
    assert ReadOptions.from_dict(held) == ReadOptions(**held)
    assert ReadOptions.from_dict({}) == ReadOptions()
    assert ReadOptions.from_dict({"time": ["a", "b"]}).time == ("a", "b")


def test_one_value_or_several():
    for name, given, held in (
        ("time", "Date", ("Date",)),
        ("time", ["Date", "Time"], ("Date", "Time")),
        ("time", None, ()),
        ("missing_values", -200, ("-200",)),
        ("missing_values", ["?", -999.5], ("?", "-999.5")),
        ("missing_values", np.float64(-999.5), ("-999.5",)),
        ("where", "store=A", ("store=A",)),
        ("where", {"store": "A", "item": 3}, ("store=A", "item=3")),
    ):
        assert getattr(ReadOptions(**{name: given}), name) == held, (name, given)


def test_options_that_are_none(refusal):
    for name, wrong, *parts in (
        ("decimal", ";", "'.' or ','"),
        ("decimal", "", "'.' or ','"),
        ("on_duplicate", "median", "'first' or 'last' or 'mean'"),
        ("missing", None, "'refuse' or 'drop'"),
        ("missing", ["drop"], "'refuse' or 'drop'"),
        ("order", "falling", "'oldest-first' or 'newest-first'"),
        ("freq", "fortnight", "'D'", "'h'"),
        ("freq", "-1D", "'D'"),
        ("freq", 5, "'D'"),
        ("time", 5.5j, "a list of them"),
        ("time", [None], "a list of them"),
        ("missing_values", b"?", "a list of them"),
        ("time", [""], "a list of them"),
        ("id", 5, "column"),
        ("where", "store", "COLUMN=VALUE"),
        ("date_format", "%d/%m", "year", "'%d/%m/%Y'"),
        ("date_format", "", "year"),
        ("date_format", "day", "year"),
        ("date_format", "%q", "strptime"),
        ("date_format", "%Y %Y", "strptime"),
        ("date_format", "%", "strptime"),
        ("date_format", "%Y\ud800", "strptime"),
        ("date_format", 5, "strptime"),
        ("encoding", "latin-99", "'cp1252'"),
        ("encoding", "zlib", "'cp1252'"),
        ("encoding", "undefined", "'cp1252'"),
        ("encoding", "idna", "'cp1252'"),
        ("encoding", "a\0b", "'cp1252'"),
        ("encoding", 5, "'cp1252'"),
    ):
        options = {name: wrong}
        for use in (
            lambda options=options: ReadOptions(**options),
            lambda options=options: ReadOptions.from_dict(ReadOptions().to_dict() | options),
        ):
            refusal(use, f"{name} is ", *parts, error=ArgumentError)


def test_date_formats():
    for form in ("%Y-%m-%d", "%d.%m.%y", "%b %d, %Y", "%Y", "%Y-%m", "%G-W%V-%u", "%Y-%jT%H", "%Y %Z", "%c"):
        assert ReadOptions(date_format=form).date_format == form


def test_spacings():
    for freq in ("D", "B", "W-MON", "MS", "ME", "BME", "QS", "YE", "h", "15min"):
        assert ReadOptions(freq=freq).freq == freq


def test_only_the_options_that_there_are(refusal):
    for options, *parts in (
        ({"x": 1}, "there is no option 'x'", "the options of reading are time, id, where"),
        ({"Order": "newest-first"}, "'Order'", "order"),
        (None, "NoneType"),
        ([], "list"),
    ):
        refusal(lambda options=options: ReadOptions.from_dict(options), *parts, error=ArgumentError)


def test_refused_values_are_shown_in_short(refusal):
    for value in ("x" * 5000, np.zeros((9, 9))):
        for name in ("order", "freq", "missing", "decimal", "encoding", "where"):
            error = refusal(lambda name=name, v=value: ReadOptions(**{name: v}), f"{name} is", error=ArgumentError)
            assert len(str(error)) < 250, name
