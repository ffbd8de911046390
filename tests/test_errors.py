import pytest

from gru_xp import errors
from gru_xp.errors import GruXpError, printable

pytestmark = pytest.mark.compat


def test_every_error_is_a_gru_xp_error():
    kinds = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert {"ShapeError", "DataError"} <= kinds.keys()
    others = {name: kind.__base__ for name, kind in kinds.items() if not issubclass(kind, GruXpError)}
    assert others == {"DataWarning": UserWarning, "DeviceWarning": RuntimeWarning}


def test_printable_text():
    for text, most, shown in (
        ("", 60, ""),
        ("Schlußkurs (€) 'a' \\ 价格", 60, "Schlußkurs (€) 'a' \\ 价格"),
        ("a\nb\r\x1b[31m\x00\x7f", 60, r"a\nb\r\x1b[31m\x00\x7f"),
        ("\u202eabc\u2028\ud800", 60, r"\u202eabc\u2028\ud800"),
        ("x" * 12, 12, "x" * 12),
        ("x" * 13, 12, "x" * 9 + "..."),
        ("\n" * 13, 12, r"\n\n\n\n\..."),
        ("x" * 10**7, 12, "x" * 9 + "..."),
    ):
        assert printable(text, most) == shown
        assert printable(text).isprintable(), shown
        assert len(printable(text)) <= 60, shown
