import pytest

from gru_xp import errors
from gru_xp.errors import GruXpError, printable


def test_every_error_is_one_of_gru_xps():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) > 4
    assert all(issubclass(kind, GruXpError) for kind in kinds)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("Schlußkurs (€) 'a' \\ 价格", "Schlußkurs (€) 'a' \\ 价格"),
        ("a\nb\r\x1b[31m\x00\x7f", r"a\nb\r\x1b[31m\x00\x7f"),
        ("\u202eabc\u2028\ud800", r"\u202eabc\u2028\ud800"),
        ("x" * 12, "x" * 12),
        ("x" * 13, "x" * 9 + "..."),
        ("\n" * 13, r"\n\n\n\n\..."),
        ("x" * 10**7, "x" * 9 + "..."),
    ],
)
def test_printable_text(text, shown):
    assert printable(text, 12 if text[-5:] in ("x" * 5, "\n" * 5) else 60) == shown
    assert printable(text).isprintable()
    assert len(printable(text)) <= 60
