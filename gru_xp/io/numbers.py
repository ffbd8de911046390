"""Numbers as people write them, read only where a column can be read in one way."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from gru_xp.io.messages import CellError, option, options, quoted
from gru_xp.io.options import ReadOptions
from gru_xp.io.table import Column, Floats

_MISSING = frozenset(("", "-", "--", ".", "na", "n/a", "#n/a", "nan", "+nan", "-nan", "null", "none"))
BOOLEAN = "true or false"
_BOOLEANS = {"false": ("0", BOOLEAN), "true": ("1", BOOLEAN)}
_PLAIN = str.maketrans("\u2212\u2019\u2009\u202f", "-'\u00a0\u00a0")  # minus, apostrophe and thin spaces
_CURRENCY = r"$¢-¥\u058f\u060b\u09f2\u09f3\u0bf9\u0e3f\u17db\u20a0-\u20cf\ufdfc\ufe69\uff04\uffe0\uffe1\uffe5\uffe6"
_WITH_UNIT = re.compile(rf"([+-]?)\s*([{_CURRENCY}])(.*)|(.*)([{_CURRENCY}%])")
_POINTS_MAY_GROUP = re.compile(r"[^\d.]*(?:\d{1,3}|[1-9]\d{0,2}\.\d{3})[^\d.]*")


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


def _pattern(decimal: str, thousands: str = "") -> re.Pattern[str]:
    """Match numbers with these signs, except ``0100,1``, which may be two fields in one cell."""
    sign = {"": "(?!)", " ": "[ \u00a0]"}.get(thousands, re.escape(thousands))  # (?!) matches nothing
    groups = rf"\d?\d?(?:{sign}\d{{3}})+" + (r"|\d?(?:,\d\d)+,\d{3}" if thousands == "," else "")  # as in India
    fraction, exponent = rf"(?:[{decimal}]\d*)?", r"(?:[eE][+-]?\d+)?"
    return re.compile(rf"[+-]?(?!0\d+,)(?:(?:\d+{fraction}|[{decimal}]\d+){exponent}|[1-9](?:{groups}){fraction})")


_PATTERNS = {NumberStyle(*signs): _pattern(*signs) for signs in (".", ".,", ".'", ". ", ",", ",.", ",'", ", ")}
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
        if (value := _read_plain([mark.replace(style.decimal, ".")])) is not None:
            with np.errstate(over="ignore"):
                numbers = np.where(np.isin(numbers, np.append(value, value.astype(np.float32))), np.nan, numbers)
    for row in np.flatnonzero(np.isinf(numbers)).tolist():
        raise CellError(row, f"{quoted(column.cells[row])} is too large for a number; correct the row or remove it")
    return numbers, style


def _read_cells(cells: Sequence[str], how: ReadOptions, points_may_group: bool) -> tuple[Floats, NumberStyle]:
    in_doubt = points_may_group and not how.decimal and _points_may_group(cells, how.missing_values)
    if how.decimal != "," and not in_doubt and (plain := _read_plain(cells, how.missing_values)) is not None:
        return plain, NumberStyle()
    known = {row: text.strip() for row, text in enumerate(cells) if not is_missing(text, how.missing_values)}
    split = {row: _BOOLEANS.get(text.lower()) or _split_unit(text) for row, text in known.items()}
    bodies, units = [body for body, _ in split.values()], {unit for _, unit in split.values()}
    text = "\n".join(bodies)
    clear = (style for style in _styles("0", how.decimal) if how.decimal or re.search(_CLEAR[style.decimal], text))
    style = next((style for style in clear if all(map(_PATTERNS[style].fullmatch, bodies))), None)
    if style is None or in_doubt or len(units) > 1:
        raise _refusal(known, split, how)
    numbers = np.full(len(cells), np.nan)
    numbers[list(split)] = [_value(body, style) for body in bodies]
    return numbers, replace(style, unit="".join(units))


def _read_plain(cells: Sequence[str], marks: Collection[str] | None = None) -> Floats | None:
    """Read numbers as Python writes them, but not ``1_000``, and missing values; None if there is anything else."""
    try:
        return None if "_" in "".join(cells) else np.array(list(map(float, cells)))
    except ValueError:
        return None if marks is None else _read_plain(["nan" if is_missing(cell, marks) else cell for cell in cells])


def _points_may_group(cells: Sequence[str], marks: Collection[str]) -> bool:
    """Tell whether there is a point between digits, and all of them may separate thousands."""
    known = (text for text in cells if not is_missing(text, marks))
    return bool(re.search(r"\d\.\d", "\n".join(cells))) and all(map(_POINTS_MAY_GROUP.fullmatch, known))


def _styles(number: str, decimal: str | None = None) -> Iterator[NumberStyle]:
    """Yield the styles in which a text is a number, with this decimal sign or, if it is None, with either."""
    return (style for style in _PATTERNS if decimal in (None, style.decimal) and _PATTERNS[style].fullmatch(number))


def _value(body: str, style: NumberStyle) -> float:
    return float(body.translate(str.maketrans(style.decimal, ".", style.thousands + "\u00a0")))


def _refusal(cells: Mapping[int, str], split: Mapping[int, tuple[str, str]], how: ReadOptions) -> CellError:
    """Explain why a column is not in one style. `split` has the number and the unit of each of its known `cells`."""
    styles = {row: [(style, unit) for style in _styles(body, how.decimal)] for row, (body, unit) in split.items()}
    counts = Counter(style for each in styles.values() for style in each)
    usual = max(counts, key=lambda style: counts[style], default=None)
    for row, text in cells.items():
        if not styles[row]:
            return CellError(row, _no_number(text, how))
        if usual not in styles[row]:
            like = max((cells[other] for other in cells if usual in styles[other]), key=len)
            return CellError(row, f"{quoted(text)} is not written like {quoted(like)}; write all cells alike")
    row, body = next((row, body) for sign in ", ." for row, (body, _) in split.items() if sign in body)
    readings = {style.decimal: _value(body, style) for (style, _), count in counts.items() if count == len(cells)}
    numbers = sorted({f"{value:.15g}" for value in readings.values()}, reverse=True)
    return CellError(row, f"{quoted(cells[row])} may be {' or '.join(numbers)}; give {option('decimal', *readings)}")


def _no_number(text: str, how: ReadOptions) -> str:
    problem = f"{quoted(text)} is not a number" + (f" with {option('decimal', how.decimal)}" if how.decimal else "")
    if "," in text:
        return f"{problem}; it may be two fields in one cell; write them as two columns"
    mark = f", or give {options('missing_values', (*how.missing_values, text))} if it marks a missing value"
    return f"{problem}; correct the row or remove it{mark if text.isprintable() and len(text) <= 12 else ''}"


def _split_unit(text: str) -> tuple[str, str]:
    """Split a cell into a number with plain signs and the currency or percent sign beside it."""
    text = text.strip().translate(_PLAIN)
    match = None if text[:1].isdigit() and text[-1:].isdigit() else _WITH_UNIT.fullmatch(text)
    minus, before, body, other_body, after = match.groups("") if match else ("", "", text, "", "")
    return minus + body.strip() + other_body.strip(), before + after


def is_missing(text: str, marks: Collection[str] = ()) -> bool:
    """Tell whether a cell has no value: it is empty, a usual word such as NA, or one of `marks`."""
    text = text.strip()
    return text in marks or (len(text) <= 4 and text.lower().replace("\N{MINUS SIGN}", "-") in _MISSING)


def may_be_number(text: str) -> bool:
    """Tell whether a cell is a number with either decimal sign, with or without a unit."""
    return next(_styles(_split_unit(text)[0]), None) is not None


def is_same(text: str, other: str) -> bool:
    """Whether two texts are alike, or the same number."""
    try:
        return text == other or float(text) == float(other)
    except ValueError:
        return False


def is_numeric(column: Column, marks: Collection[str] = ()) -> bool:
    """Tell whether most of the first thousand known cells of a column are numbers; true and false are not."""
    if column.numbers is not None:
        return not np.isnan(column.numbers).all()
    known = list(islice((text for text in column.cells if not is_missing(text, marks)), 1000))
    return 2 * sum(map(may_be_number, known)) > len(known)


def has_decimal_commas(cells: Sequence[str]) -> bool:
    """Tell whether a cell is a number only if the comma is the decimal sign."""
    likely = (text for text in cells if "," in text) if "," in "".join(cells) else ()
    return any({style.decimal for style in _styles(_split_unit(text)[0])} == {","} for text in likely)


def suspicious_value(numbers: Floats) -> float | None:
    """Return a value that may mark missing ones, such as -200, -999 or 999.9; None if there is none.

    Such a value is the smallest or the largest one, is negative or all nines, repeats, and is not a new level that
    stays. The gap between it and the next value is more than twice as wide as any other gap.
    """
    known = numbers[np.isfinite(numbers)]
    values, counts = np.unique(known, return_counts=True)
    gaps = np.diff(values)
    for end in (0, -1) if values.size > 3 else ():
        is_like_mark = values[end] <= -9 or set(f"{values[end]:.15g}") <= {"9", "."}
        comes_back = counts[end] > 1 and np.count_nonzero(np.diff(known == values[end])) > 1
        if is_like_mark and comes_back and gaps[end] > 2 * np.sort(gaps)[-2]:
            return float(values[end])
    return None
