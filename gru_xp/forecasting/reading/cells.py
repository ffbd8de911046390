"""Cells of tables: which of them are empty, and how messages show what is in them."""

from collections.abc import Iterable

from gru_xp.errors import printable

_MISSING = frozenset(("", "-", "--", ".", "na", "n/a", "#n/a", "nan", "+nan", "-nan", "null", "none"))
_LONGEST = 60


class CellError(Exception):
    """What is wrong in row `row` of a column, and what to do about it."""

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(problem)
        self.row = row


def is_missing(text: str) -> bool:
    """Whether a cell with this text says that there is no value."""
    return len(text) <= 4 and text.lower().replace("\N{MINUS SIGN}", "-") in _MISSING


def quoted(text: str) -> str:
    """Text from a file in quotes, without what a terminal would obey, and not too much of it."""
    return repr(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")


def listed(names: Iterable[str], most: int = 20) -> str:
    """Join the first `most` names with commas, and count the rest."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more
