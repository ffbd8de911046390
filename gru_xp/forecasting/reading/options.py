"""How files are to be read where they leave a choice."""

import codecs
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from gru_xp.errors import ArgumentError
from gru_xp.nn.checks import check_choice

DECIMALS = (".", ",")
DUPLICATES = ("first", "last", "mean")
MISSING = ("refuse", "drop", "ffill", "interpolate", "mask")


@dataclass(frozen=True)
class ReadOptions:
    """What a file does not say about itself, and what is to be done where it has gaps.

    Parameters
    ----------
    decimal : {".", ","}, optional
        The decimal sign; the other one stands between groups of three digits. If None it is the point, and numbers
        such as ``1,234`` are refused unless their column leaves no doubt.
    date_format
        The form of the dates, as `datetime.strptime` takes it; if None, every usual form that leaves no doubt is read.
    on_duplicate : {"first", "last", "mean"}, optional
        Which row to take of those with the same date, in the order of the file; if None they are refused.
    missing : {"refuse", "drop", "ffill", "interpolate", "mask"}
        What to do about missing values: refuse them; leave out their rows; take the last value before; take the
        straight line between the values before and after; or mark them as missing.
    encoding
        Of the text; if None, UTF-8, or UTF-16 where the file is seen to be that.

    Raises
    ------
    ArgumentError
        An option has no such value.
    """

    decimal: str | None = None
    date_format: str | None = None
    on_duplicate: str | None = None
    missing: str = "refuse"
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.decimal is not None:
            check_choice("decimal", self.decimal, DECIMALS)
        if self.date_format is not None:
            _check_date_format(self.date_format)
        if self.on_duplicate is not None:
            check_choice("on_duplicate", self.on_duplicate, DUPLICATES)
        check_choice("missing", self.missing, MISSING)
        if self.encoding is not None:
            _check_encoding(self.encoding)

    def to_dict(self) -> dict[str, str | None]:
        """The options as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "ReadOptions":
        """The inverse of `to_dict`; raise ValueError for anything else."""
        names = {field.name for field in fields(cls)}
        if not isinstance(options, Mapping) or set(options) != names:
            raise ValueError(f"the reading options must be {', '.join(sorted(names))}")
        return cls(**options)


def _check_date_format(form: str) -> None:
    """A format that reads what it writes, year included."""
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


def _check_encoding(encoding: str) -> None:
    try:
        if codecs.lookup(encoding).name in ("idna", "punycode"):
            raise LookupError("for names of computers")
        "1".encode(encoding).decode(encoding)
    except (TypeError, LookupError, ValueError) as error:
        raise ArgumentError(f"encoding is {encoding!r}, which is not known; give one such as 'cp1252'") from error
