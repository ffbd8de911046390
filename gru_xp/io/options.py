"""How to read a file or a table where its content leaves a choice."""

import codecs
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from gru_xp.errors import ArgumentError

DECIMALS = (".", ",")
DUPLICATES = ("first", "last", "mean")
MISSING = ("refuse", "drop", "ffill", "interpolate", "mask")
ORDERS = ("oldest-first", "newest-first")
_SEVERAL = {"time": "column names", "missing_values": "texts or numbers", "where": "texts such as 'COLUMN=VALUE'"}


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
        An option does not have such a value.
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
        for name in _SEVERAL:
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        for name, choices in (
            ("order", (None, *ORDERS)),
            ("decimal", (None, *DECIMALS)),
            ("on_duplicate", (None, *DUPLICATES)),
            ("missing", MISSING),
        ):
            value = getattr(self, name)
            if value not in choices:
                known = " or ".join(repr(choice) for choice in choices if choice is not None)
                raise ArgumentError(f"{name} is {value!r}; it must be {known}")
        for name, check in (("date_format", _check_date_format), ("freq", _check_freq), ("encoding", _check_encoding)):
            if getattr(self, name) is not None:
                check(getattr(self, name))
        if self.id is not None and not isinstance(self.id, str):
            raise ArgumentError(f"id is {self.id!r}; it must be the name of a column")

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "ReadOptions":
        """The inverse of `to_dict`, also for fewer options; raise ValueError for anything else."""
        names = {field.name for field in fields(cls)}
        if not isinstance(options, Mapping) or not set(options) <= names:
            raise ValueError(f"the reading options must be {', '.join(sorted(names))}")
        return cls(**options)


def _texts(name: str, values: Any) -> tuple[str, ...]:
    """The values of an option that may be given several times."""
    if isinstance(values, Mapping):
        values = [f"{column}={value}" for column, value in values.items()]
    elif isinstance(values, str | int | float) or values is None:
        values = [] if values is None else [values]
    try:
        found = tuple(repr(value) if isinstance(value, int | float) else value for value in values)
    except TypeError:
        found = (None,)
    if not all(isinstance(text, str) and text for text in found) or (
        name == "where" and not all("=" in t for t in found)
    ):
        raise ArgumentError(f"{name} is {values!r}; it must be {_SEVERAL[name]}")
    return found


def _check_date_format(form: str) -> None:
    """See that a format reads what it writes, year included."""
    moment = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    same_calendar = moment.replace(year=2007)
    try:
        has_year = moment.strftime(form) != same_calendar.strftime(form)
        dated = form if has_year else f"{form} %Y"  # newer Pythons want a year beside a day
        datetime.strptime(moment.strftime(dated), dated)
    except (TypeError, ValueError, re.error) as error:
        raise ArgumentError(
            f"date_format is {form!r}, which strptime cannot read; write it as in '%d/%m/%Y'"
        ) from error
    if not has_year:
        raise ArgumentError(f"date_format is {form!r}, which has no year; write it as in '%d/%m/%Y'")


def _check_freq(freq: str) -> None:
    from pandas.tseries.frequencies import to_offset

    moment = datetime(2000, 1, 1)
    try:
        if not isinstance(freq, str) or (moment + to_offset(freq)).to_pydatetime(warn=False) <= moment:
            raise ValueError(freq)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ArgumentError(
            f"freq is {freq!r}, which is no pandas offset; give one such as 'D', 'B', 'W-MON', 'MS' or 'h'"
        ) from error


def _check_encoding(encoding: str) -> None:
    try:
        if codecs.lookup(encoding).name in ("idna", "punycode"):
            raise LookupError("for names of computers")
        "1".encode(encoding).decode(encoding)
    except (TypeError, LookupError, ValueError) as error:
        raise ArgumentError(f"encoding is {encoding!r}, which is not known; give one such as 'cp1252'") from error
