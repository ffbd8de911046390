"""What messages about files and tables have in common."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from gru_xp.errors import DataError, printable

_FLAGS = {"id": "id-column", "quantiles": "quantile", "levels": "level", "minimum": "min", "maximum": "max"}
_NEEDS_NO_QUOTES = re.compile(r"[\w.,:=%/+-]+")
_on_command_line = ContextVar("_on_command_line", default=False)


class CellError(Exception):
    """A problem in row `row` of a column, and what to do about it."""

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(problem)
        self.row = row


@contextmanager
def command_line() -> Iterator[None]:
    """Let messages name options as the command line does, instead of as arguments of a function."""
    token = _on_command_line.set(True)
    try:
        yield
    finally:
        _on_command_line.reset(token)


def flag(name: str) -> str:
    """The option of the command line for an argument: ``--date-format`` for ``date_format``."""
    return "--" + {"time": "time-column", **_FLAGS}.get(name, name).replace("_", "-")


def option(name: str, *values: str) -> str:
    """An option as the reader of the message gives it: ``--time-column Date``, or ``time='Date'`` in Python.

    `name` is the one in Python. Several values are alternatives; without any, the option alone is named.
    """
    if not _on_command_line.get():
        return f"{name}={' or '.join(map(repr, values))}" if values else name
    given = [value if _NEEDS_NO_QUOTES.fullmatch(value) else f'"{printable(value)}"' for value in values]
    return f"{flag(name)} {' or '.join(given)}".rstrip()


def options(name: str, values: Sequence[str]) -> str:
    """An option with all of the values together, as the reader of the message gives it."""
    if _on_command_line.get() or len(values) == 1:
        return " ".join(option(name, value) for value in values)
    return f"{name}={list(values)!r}"


def quoted(text: str) -> str:
    """Text from a file in quotes, shortened, without characters that steer a terminal."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def listed(names: Iterable[str], most: int = 20) -> str:
    """The first `most` names, joined with commas, and the number of the others."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def find_name(wanted: str, names: Sequence[str], what: str = "column") -> str:
    """The one of `names` that `wanted` means: the same one, or the only one that differs in case alone.

    Raises
    ------
    DataError
        There is no such name, or there are several; the message suggests the nearest.
    """
    by_folded = {name.casefold(): name for name in names}
    alike = [name for name in names if name.casefold() == wanted.casefold()]
    found = [name for name in alike if name == wanted] or alike
    if len(found) == 1:
        return found[0]
    if wanted in found:
        raise DataError(f"{len(found)} {what}s are named {quoted(wanted)}; rename all but one")
    likely = alike or [by_folded[name] for name in difflib.get_close_matches(wanted.casefold(), by_folded, 1)]
    hint = f"did you mean {' or '.join(map(quoted, dict.fromkeys(likely)))}? " if likely else ""
    raise DataError(f"there is no {what} {quoted(wanted)}; {hint}the {what}s are {listed(dict.fromkeys(names))}")
