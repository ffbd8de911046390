"""How to read a file or a table where its content leaves a choice."""

import codecs
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from numbers import Real
from typing import Any

from gru_xp.errors import ArgumentError, printable

CHOICES = {"decimal": (".", ","), "on_duplicate": ("first", "last", "mean"), "order": ("oldest-first", "newest-first")}
CHOICES |= {"missing": ("refuse", "drop", "ffill", "interpolate", "mask")}
"""The values of options that have few, by name."""


@dataclass(frozen=True)
class ReadOptions:
    """How to read a file or a table where its content leaves a choice.

    Parameters
    ----------
    time : str or sequence of str, optional
        The column that dates the rows. Several columns are joined: a date and a time of day, or year, month, day and
        hour. If None, it is found; see `read_series`.
    id : str, optional
        The column that tells several series apart.
    where : sequence of str or mapping, optional
        ``"COLUMN=VALUE"``: take the rows that have these values, such as one series out of several.
    order : {"oldest-first", "newest-first"}, optional
        The order of the rows where no column dates them; if None, oldest first, with a notice.
    freq : str, optional
        The spacing of the rows, as a pandas offset such as ``"D"``, ``"B"``, ``"W-MON"`` or ``"h"``; if None, it is
        found.
    missing_values : sequence of str
        Cells that mark a missing value, beside the usual ones such as ``NA``: ``("?", "-200")``.
    decimal : {".", ","}, optional
        The decimal sign; the other one separates groups of digits. If None, it is found where the column leaves no
        doubt.
    date_format : str, optional
        The form of the dates, as `datetime.strptime` takes it; if None, it is found where the column leaves no doubt.
    on_duplicate : {"first", "last", "mean"}, optional
        Which of the rows with the same time to take, in the order of the file; if None, they are refused.
    missing : {"refuse", "drop", "ffill", "interpolate", "mask"}
        What to do about missing values: refuse them, drop their rows, take the last value before, interpolate between
        the values before and after, or mark them as missing.
    encoding : str, optional
        Text encoding; if None, UTF-8, or UTF-16 where the file looks like that.

    Raises
    ------
    ArgumentError
        The value of an option is not allowed.
    """

    time: tuple[str, ...] = ()
    id: str | None = None
    where: tuple[str, ...] = ()
    order: str | None = None
    freq: str | None = None
    missing_values: tuple[str, ...] = ()
    decimal: str | None = None
    date_format: str | None = None
    on_duplicate: str | None = None
    missing: str = "refuse"
    encoding: str | None = None

    def __post_init__(self) -> None:
        given = dict(vars(self))
        for name in ("time", "where", "missing_values"):
            object.__setattr__(self, name, texts(name, getattr(self, name)))
        for name, (is_right, expected) in _CHECKS.items():
            value = getattr(self, name)
            with suppress(Exception):  # whatever a check says of a wrong value
                if (value is None and name != "missing") or is_right(value):
                    continue
            raise ArgumentError(f"{name} is {printable(repr(given[name]))}; it must be {expected}")

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "ReadOptions":
        """The inverse of `to_dict`, also for fewer options; raise ArgumentError for anything else."""
        try:
            return cls(**options)
        except TypeError as error:
            problem = re.sub(".* unexpected keyword argument", "there is no option", str(error))
            names = ", ".join(field.name for field in fields(cls))
            raise ArgumentError(f"{problem}; the options of reading are {names}") from error


def texts(name: str, given: Any) -> tuple[str, ...]:
    """Take the value of an argument, one or several texts or numbers, a mapping or nothing, as texts.

    Raises
    ------
    ArgumentError
        It is anything else.
    """
    values = given.tolist() if hasattr(given, "tolist") else given  # of NumPy and pandas
    if isinstance(values, Mapping):
        values = [f"{column}={value}" for column, value in values.items()]
    elif isinstance(values, str | Real) or not isinstance(values, Iterable):
        values = [] if values is None else [values]
    held = list(values)
    if isinstance(given, bytes) or not all(isinstance(value, str | Real) and value != "" for value in held):
        raise ArgumentError(f"{name} is {printable(repr(given))}; it must be a text or a number, or a list of them")
    return tuple(map(str, held))


def _is_date_format(form: str) -> bool:
    """Whether a format reads what it writes, year included."""
    moment = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    has_year = moment.strftime(form) != moment.replace(year=2007).strftime(form)  # a year with the same calendar
    return has_year and bool(datetime.strptime(moment.strftime(form), form))


def _is_freq(freq: str) -> bool:
    import pandas as pd

    moment, least = pd.Timestamp(2000, 1, 1), timedelta(microseconds=1)
    return isinstance(freq, str) and bool(moment + pd.tseries.frequencies.to_offset(freq) >= moment + least)


def _is_encoding(encoding: str) -> bool:
    return codecs.lookup(encoding).name not in ("idna", "punycode") and "1".encode(encoding).decode(encoding) == "1"


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    name: (choices.__contains__, " or ".join(map(repr, choices))) for name, choices in CHOICES.items()
} | {
    "where": (lambda conditions: all("=" in text for text in conditions), "texts such as 'COLUMN=VALUE'"),
    "id": (lambda name: isinstance(name, str), "the name of a column"),
    "date_format": (_is_date_format, "a strptime format with the year, such as '%d/%m/%Y'"),
    "freq": (_is_freq, "a pandas offset, such as 'D', 'B', 'W-MON', 'MS' or 'h'"),
    "encoding": (_is_encoding, "the name of a text encoding, such as 'cp1252'"),
}
"""What an option must be: a check, which may also raise an error, and how to say it."""
