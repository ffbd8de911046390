"""Numbers as people write them, read only where a column can be read in one way."""

import re
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from gru_xp.io.messages import CellError, option, options, quoted
from gru_xp.io.options import ReadOptions
from gru_xp.io.table import Column, Floats

_MISSING = frozenset(("", "-", "--", ".", "na", "n/a", "#n/a", "nan", "+nan", "-nan", "null", "none"))
BOOLEAN = "true or false"
_BOOLEANS = ("true", "false")
_PLAIN = str.maketrans("\u2212\u2019\u2009\u202f", "-'\u00a0\u00a0")  # minus, apostrophe and thin spaces
_SHAPE = str.maketrans("23456789", "11111111")
_CURRENCY = r"$¢-¥\u058f\u060b\u09f2\u09f3\u0bf9\u0e3f\u17db\u20a0-\u20cf\ufdfc\ufe69\uff04\uffe0\uffe1\uffe5\uffe6"
_WITH_UNIT = re.compile(rf"^([+-]?)\s*([{_CURRENCY}])\s*(.*)$|^(.*?)\s*([{_CURRENCY}%])$")
_POINTS_MAY_GROUP = re.compile(r"[^\d.]*(?:\d{1,3}|[1-9]\d{0,2}\.\d{3})[^\d.]*")
_TWO_FIELDS, _TWO_COLUMNS = "two fields in one cell", "write them as two columns"


@dataclass(frozen=True)
class NumberStyle:
    """How the numbers of a column are written.

    Attributes
    ----------
    decimal
        The decimal sign.
    thousands
        The sign between groups of digits; empty if there is none.
    unit
        The currency or percent sign of each number, or ``"true or false"``; empty if there is none.
    """

    decimal: str = "."
    thousands: str = ""
    unit: str = ""


def _pattern(decimal: str) -> re.Pattern[str]:
    """Match numbers with this decimal sign, except ``0100,1``, which may be two fields in one cell."""
    other, indian = (",", r"|\d?(?:,\d\d)+,\d{3}") if decimal == "." else (".", "")
    groups = rf"\d?\d?([{other}' \u00a0])\d{{3}}(?:\1\d{{3}})*{indian}"
    fraction, exponent = rf"(?:[{decimal}]\d*)?", r"(?:[eE][+-]?\d+)?"
    number = rf"(?:\d+{fraction}|[{decimal}]\d+){exponent}|[1-9](?:{groups}){fraction}"
    return re.compile(rf"[+-]?(?!0\d+,)(?:{number})[{_CURRENCY}%]?")


_PATTERNS = {decimal: _pattern(decimal) for decimal in ".,"}
_CLEAR = {".": r"\A[^,' \u00a0]*\Z|,\d{3}[.,]|,\d\d,|'|\u00a0| \d{3}[ .]", ",": r"\.\d{3}\.|['\u00a0 ]\d{3},"}
"""What proves that a sign is the decimal one: not ``1,234``, but ``1,234.5`` or ``1,234,567``."""


def read_numbers(column: Column, how: ReadOptions, *, points_may_group: bool = False) -> tuple[Floats, NumberStyle]:
    """Read a column of numbers that are all written in one style, or of true and false as 1 and 0.

    Parameters
    ----------
    column
        The cells, or the numbers.
    how
        The decimal sign and the marks of missing values. A mark that is a number marks all cells of that value.
    points_may_group
        Whether ``1.234`` may be 1234 in this table.

    Returns
    -------
    numbers : array, shape ``(N,)``
        Missing values are NaN.
    style
        How the numbers are written.

    Raises
    ------
    CellError
        A cell is neither a number nor missing, can be read as two numbers, or is written in another style.
    """
    numbers, style = column.numbers, NumberStyle()
    if numbers is None:
        numbers, style = _read_cells(column.cells, how, points_may_group)
    for mark in how.missing_values:
        if (value := _read_plain([mark.replace(style.decimal, ".")])) is not None:  # equal in single precision
            numbers = np.where(np.isclose(numbers, value, rtol=1e-7, atol=0), np.nan, numbers)
    for row in np.flatnonzero(np.isinf(numbers)).tolist():
        raise CellError(row, f"{quoted(column.cells[row])} is too large for a number; correct the row or remove it")
    return numbers, style


def _read_cells(cells: Sequence[str], how: ReadOptions, points_may_group: bool) -> tuple[Floats, NumberStyle]:
    marks = how.missing_values
    known = (text for text in cells if not is_missing(text, marks))
    have_points = points_may_group and not how.decimal and re.search(r"\d\.\d", "\n".join(cells))
    in_doubt = have_points and all(map(_POINTS_MAY_GROUP.fullmatch, known))  # 1.234 may be 1234
    if how.decimal != "," and not in_doubt and (plain := _read_plain(cells, marks)) is not None:
        return plain, NumberStyle()
    bodies = {row: _body(text) for row, text in enumerate(cells) if not is_missing(text, marks)}
    styles, text = _styles(bodies.values(), how.decimal), "\n".join(bodies.values())
    clear = (style for style in styles if how.decimal or (re.search(_CLEAR[style.decimal], text) and not in_doubt))
    style = next(clear, None)
    if style is None:
        raise _refusal(cells, bodies, styles) if styles else _unlike(cells, bodies, how)
    numbers = np.full(len(cells), np.nan)
    numbers[list(bodies)] = _values(text, style)
    return numbers, style


def _body(text: str) -> str:
    """Write a number with plain signs, and with the currency or percent sign beside it, if any, at the end."""
    return _WITH_UNIT.sub(r"\1\3\4\2\5", text.strip().translate(_PLAIN))


def _styles(bodies: Collection[str], decimal: str | None = None) -> list[NumberStyle]:
    """Return the styles in which all texts are numbers, with this decimal sign or, if it is None, with either."""
    if bodies and all(body.lower() in _BOOLEANS for body in bodies):
        return [NumberStyle(unit=BOOLEAN)]
    ends = {body[-1:] for body in bodies}
    units = {"" if end.isdigit() or end in ".," else end for end in ends}
    signs = set("".join(bodies).replace("\u00a0", " ")) & set(".,' ")
    styles = [NumberStyle(sign, "".join(signs - {sign}), "".join(units)) for sign in decimal or _PATTERNS]
    likely = (style for style in styles if len(units) < 2 and len(style.thousands) < 2)
    return [style for style in likely if all(map(_PATTERNS[style.decimal].fullmatch, bodies))]


def _values(text: str, style: NumberStyle) -> list[float]:
    """Return the numbers in the lines of a text."""
    text = text.lower().replace("true", "1").replace("false", "0")
    signs = str.maketrans(style.decimal, ".", style.thousands + style.unit + "\u00a0")
    return list(map(float, text.translate(signs).splitlines()))


def _refusal(cells: Sequence[str], bodies: Mapping[int, str], styles: Sequence[NumberStyle]) -> CellError:
    """Explain which numbers a cell may be, in a column that may be of several styles, or of a doubtful one."""
    row, body = next((row, body) for sign in ", ." for row, body in bodies.items() if sign in body)
    readings = sorted({f"{_values(body, style)[0]:.15g}" for style in styles}, reverse=True)
    remedy = f"give {option('decimal', *(style.decimal for style in styles))}"
    codes = {re.sub(r"^[+-]?\d+(,|$)", "", body) for body in bodies.values()}
    if all(len(code) == 1 for code in codes) and len(codes) <= min(5, len(bodies) / 2):  # as in 10021,1
        readings, remedy = [*readings, _TWO_FIELDS], f"{remedy} or {_TWO_COLUMNS}"
    return CellError(row, f"{quoted(cells[row])} may be {' or '.join(readings)}; {remedy}")


def _unlike(cells: Sequence[str], bodies: dict[int, str], how: ReadOptions) -> CellError:
    """Name the first cell that is no number, or that is not written like those above it."""
    by_shape = {body.translate(_SHAPE): row for row, body in reversed(bodies.items())}
    rows = sorted(by_shape.values())
    texts = [bodies[row] for row in rows]
    first = bisect_left(range(len(rows)), True, key=lambda end: not _styles(texts[: end + 1], how.decimal))
    row, text = rows[first], cells[rows[first]].strip()
    if _styles([texts[first]], how.decimal):
        like = max((cells[other] for other in rows[:first]), key=len)
        return CellError(row, f"{quoted(text)} is not written like {quoted(like)}; write all cells alike")
    problem = f"{quoted(text)} is not a number" + (f" with {option('decimal', how.decimal)}" if how.decimal else "")
    if "," in text:
        return CellError(row, f"{problem}; it may be {_TWO_FIELDS}; {_TWO_COLUMNS}")
    mark = f", or give {options('missing_values', (*how.missing_values, text))} if it marks a missing value"
    may_be_mark = text.isprintable() and len(text) <= 12
    return CellError(row, f"{problem}; correct the row or remove it{mark if may_be_mark else ''}")


def _read_plain(cells: Sequence[str], marks: Collection[str] | None = None) -> Floats | None:
    """Read numbers as Python writes them, but not ``1_000``, and missing values; None if there is anything else."""
    try:
        return None if "_" in "".join(cells) else np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None if marks is None else _read_plain(["nan" if is_missing(cell, marks) else cell for cell in cells])


def is_missing(text: str, marks: Collection[str] = ()) -> bool:
    """Tell whether a cell has no value: it is empty, a usual word such as NA, or one of `marks`."""
    text = text.strip()
    return text in marks or (len(text) <= 4 and text.lower().replace("\N{MINUS SIGN}", "-") in _MISSING)


def may_be_number(text: str) -> bool:
    """Tell whether a cell is a number with either decimal sign, with or without a unit."""
    body = _body(text)
    return any(pattern.fullmatch(body) for pattern in _PATTERNS.values())


def is_same(text: str, other: str) -> bool:
    """Whether two texts are alike, or the same number."""
    plain = _read_plain([text, other])
    return text == other or (plain is not None and bool(plain[0] == plain[1]))


def is_numeric(column: Column, marks: Collection[str] = ()) -> bool:
    """Tell whether most of the first thousand known cells of a column are numbers; true and false are not."""
    if column.numbers is not None:
        return not np.isnan(column.numbers).all()
    known = list(islice((text for text in column.cells if not is_missing(text, marks)), 1000))
    return 2 * sum(map(may_be_number, known)) > len(known)


def is_boolean(column: Column, marks: Collection[str] = ()) -> bool:
    """Tell whether all known cells of a column are true or false."""
    kinds = {text.strip().lower() for text in column.cells if not is_missing(text, marks)}
    return bool(kinds) and kinds.issubset(_BOOLEANS)


def has_decimal_commas(cells: Sequence[str]) -> bool:
    """Tell whether a cell is a number only if the comma is the decimal sign."""
    likely = (_body(text) for text in cells if "," in text) if "," in "".join(cells) else ()
    return any(_PATTERNS[","].fullmatch(body) and not _PATTERNS["."].fullmatch(body) for body in likely)


def suspicious_value(numbers: Floats) -> float | None:
    """Return a value that may mark missing ones, such as -200, -999 or 999.9; None if there is none.

    Such a value is the smallest or the largest one, is negative or all nines, repeats, and is not a new level that
    stays. The gap between it and the next value is more than twice as wide as any other gap.
    """
    known = numbers[np.isfinite(numbers)]
    for value, end in ((known.min(), 0), (known.max(), -1)) if known.size else ():
        is_like_mark, marked = value <= -9 or set(f"{value:.15g}") <= {"9", "."}, known == value
        if is_like_mark and np.count_nonzero(marked) > 1 and np.count_nonzero(np.diff(marked)) > 1:
            gaps = np.diff(np.unique(known))
            if gaps.size > 2 and gaps[end] > 2 * np.sort(gaps)[-2]:
                return float(value)
    return None
