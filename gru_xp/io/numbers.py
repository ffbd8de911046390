"""Numbers as people write them, where there is one way to read them."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from gru_xp.io.messages import CellError, option, options, quoted
from gru_xp.io.options import ReadOptions
from gru_xp.io.table import Column, Floats

Where = Callable[[int], str]
_Split = dict[int, tuple[str, str]]

_MISSING = frozenset(("", "-", "--", ".", "na", "n/a", "#n/a", "nan", "+nan", "-nan", "null", "none"))
_BOOLEANS = {"false": ("0", "true or false"), "true": ("1", "true or false")}
_PLAIN = str.maketrans("\u2212\u2019\u2009\u202f", "-'\u00a0\u00a0")  # minus, apostrophe and thin spaces
_CURRENCY = r"$¢-¥\u058f\u060b\u09f2\u09f3\u0bf9\u0e3f\u17db\u20a0-\u20cf\ufdfc\ufe69\uff04\uffe0\uffe1\uffe5\uffe6"
_WITH_UNIT = re.compile(rf"([+-]?)\s*(?:([{_CURRENCY}])\s*(.*)|(.*?)\s*([{_CURRENCY}%]))")
_POINTS_MAY_GROUP = re.compile(r"[^\d.]*(?:\d{1,3}|[1-9]\d{0,2}\.\d{3})[^\d.]*")


@dataclass(frozen=True)
class NumberStyle:
    """How the numbers of a column are written.

    Attributes
    ----------
    decimal
        The decimal sign.
    thousands
        The sign between groups of digits; empty where there is none.
    unit
        The currency or percent sign at each number, or ``"true or false"``; empty where there is none.
    """

    decimal: str = "."
    thousands: str = ""
    unit: str = ""


class _Form:
    """Numbers with a decimal sign and perhaps with signs, any of `thousands`, between groups of digits.

    `clear` occurs where a number can be read in this way only: ``1,234`` needs a ``1,234.5`` or a ``1,234,567`` in the
    column. With decimal commas, no zero comes before further digits: ``0100,1`` is no number.
    """

    def __init__(self, decimal: str, thousands: str, clear: str, groups: str = r"\d?\d?(?:,\d{3})+") -> None:
        self.decimal, self.thousands, self.clear = decimal, thousands, re.compile(clear)
        self.signs = str.maketrans(decimal, ".", thousands)
        whole = r"\d+" if decimal == "." else r"(?:0|[1-9]\d*)"
        pattern = rf"(?:\d+|{whole}[{decimal}]\d*|[{decimal}]\d+)(?:[eE][+-]?\d+)?"
        if thousands:
            pattern += rf"|[1-9]{groups.replace(',', f'[{thousands}]')}(?:[{decimal}]\d*)?"
        self.reads = re.compile(rf"[+-]?(?:{pattern})").fullmatch


_FORMS = (
    _Form(".", "", ""),
    _Form(".", ",", r",\d{3}[.,]"),
    _Form(".", ",", r",\d\d,", groups=r"\d?(?:,\d\d)*,\d{3}"),  # as in India
    _Form(".", "'", "'"),
    _Form(".", " \u00a0", r"\u00a0| \d{3}[ .]"),
    _Form(",", "", "(?!)"),
    _Form(",", ".", r"\.\d{3}\."),
    _Form(",", "'", r"'\d{3},"),
    _Form(",", " \u00a0", r"[ \u00a0]\d{3},"),
)
_FORMS_BY_DECIMAL = {sign: [form for form in _FORMS if sign in (None, form.decimal)] for sign in (None, ".", ",")}


def read_numbers(
    column: Column, options: ReadOptions, where: Where, *, points_may_group: bool = False
) -> tuple[Floats, NumberStyle]:
    """Read a column of numbers, all written in one style, or of true and false, as 1 and 0.

    Parameters
    ----------
    column
        The cells, or the numbers.
    options
        The decimal sign and the marks of missing values. A mark that is a number marks all cells of that value.
    where
        How to call a row in a message.
    points_may_group
        Whether the signs around the column leave open that ``1.234`` is 1234.

    Returns
    -------
    numbers : array, shape ``(N,)``
        Missing ones are NaN.
    style
        How they are written.

    Raises
    ------
    CellError
        A cell is neither a number nor missing, or could be two numbers, or is not written like the others.
    """
    if column.numbers is not None:
        numbers, style = np.array(column.numbers, dtype=np.float64), NumberStyle()
    else:
        numbers, style = _read_cells(column.cells, options, where, points_may_group)
    for mark in options.missing_values:
        value = _floats([mark.replace(style.decimal, ".")])
        if value is not None:
            with np.errstate(over="ignore"):
                numbers[(numbers == value) | (numbers == value.astype(np.float32))] = np.nan
    if np.isinf(numbers).any():
        row = int(np.isinf(numbers).argmax())
        raise CellError(row, f"{quoted(column.cells[row])} is too large for a number; correct the row or remove it")
    return numbers, style


def _read_cells(cells: Sequence[str], how: ReadOptions, where: Where, in_doubt: bool) -> tuple[Floats, NumberStyle]:
    in_doubt = in_doubt and not how.decimal and _points_may_group(cells, how.missing_values)
    plain = None if in_doubt or how.decimal == "," else _read_plain(cells, how.missing_values)
    if plain is not None:
        return plain, NumberStyle()
    known = {row: text.strip() for row, text in enumerate(cells) if not is_missing(text, how.missing_values)}
    split = {row: _BOOLEANS.get(text.lower()) or _split_unit(text) for row, text in known.items()}
    bodies, units = [body for body, _ in split.values()], {unit for _, unit in split.values()}
    joined = "\n".join(bodies)
    clear = (form for form in _FORMS_BY_DECIMAL[how.decimal] if how.decimal or form.clear.search(joined))
    form = next((form for form in clear if all(map(form.reads, bodies))), None)
    if form is None or in_doubt or len(units) > 1:
        raise _refusal(cells, split, how, where)
    numbers = np.full(len(cells), np.nan)
    numbers[list(known)] = [float(body.translate(form.signs)) for body in bodies]
    return numbers, NumberStyle(form.decimal, form.thousands[:1], *units)


def _read_plain(cells: Sequence[str], marks: Collection[str]) -> Floats | None:
    """The numbers of a column that has nothing but what Python reads, and missing values."""
    numbers = _floats(cells)
    return _floats(["nan" if is_missing(cell, marks) else cell for cell in cells]) if numbers is None else numbers


def _points_may_group(cells: Sequence[str], marks: Collection[str]) -> bool:
    """Whether all points, and there is one, may stand between groups of digits."""
    known = (text for text in cells if not is_missing(text, marks))
    return bool(re.search(r"\d\.\d", "\n".join(cells))) and all(map(_POINTS_MAY_GROUP.fullmatch, known))


def _refusal(cells: Sequence[str], split: _Split, how: ReadOptions, where: Where) -> CellError:
    """Why no form reads all cells, or which are left. `split` has the known cells without units, and the units."""
    left, other = _FORMS_BY_DECIMAL[how.decimal], next(iter(split))
    for row, (body, unit) in split.items():
        if not any(form.reads(body) for form in _FORMS_BY_DECIMAL[how.decimal]):
            return CellError(row, _no_number(cells[row].strip(), body, how))
        fitting = [form for form in left if form.reads(body) and unit == split[other][1]]
        if not fitting:
            pair = f"{quoted(cells[row])} and {quoted(cells[other])} in {where(other)}"
            return CellError(row, f"{pair} are not written alike; write the whole column in one way")
        left, other = fitting, row if len(fitting) < len(left) else other
    row, body = next((row, body) for sign in ", ." for row, (body, _) in split.items() if sign in body)
    numbers = sorted({float(body.translate(form.signs)) for form in left}, key=abs, reverse=True)
    remedy = option("decimal", *dict.fromkeys(form.decimal for form in left))
    return CellError(row, f"{quoted(cells[row])} may be {' or '.join(f'{n:.15g}' for n in numbers)}; give {remedy}")


def _no_number(text: str, body: str, how: ReadOptions) -> str:
    remedy = "correct the row or remove it"
    if re.fullmatch(r"[+-]?[\d.]+(?:,\s*[+-]?\w+)+", body):
        remedy = "it may be two fields in one cell; write them as two columns"
    elif re.fullmatch(r"[^\d,\n]{1,12}", text):
        remedy += f", or give {options('missing_values', (*how.missing_values, text))} if it marks a missing value"
    tried = f" with {option('decimal', how.decimal)}" if how.decimal and may_be_number(text) else ""
    return f"{quoted(text)} is not a number{tried}; {remedy}"


def _floats(texts: Sequence[str]) -> Floats | None:
    """The numbers that Python reads, if all texts are such, but for 1_000, which people do not write."""
    try:
        return None if "_" in "".join(texts) else np.array(list(map(float, texts)))
    except ValueError:
        return None


def _split_unit(text: str) -> tuple[str, str]:
    """A number without the currency or percent sign around it, in plain signs, and that sign."""
    text = text.strip().translate(_PLAIN)
    match = None if text[:1].isdigit() and text[-1:].isdigit() else _WITH_UNIT.fullmatch(text)
    if match is None:
        return text, ""
    minus, before, body, other_body, after = match.groups("")
    return minus + body + other_body, before + after


def is_missing(text: str, marks: Collection[str] = ()) -> bool:
    """Whether a cell says that there is no value: by a usual word such as NA, or by one of `marks`."""
    text = text.strip()
    return text in marks or (len(text) <= 4 and text.lower().replace("\N{MINUS SIGN}", "-") in _MISSING)


def may_be_number(text: str) -> bool:
    """Whether a cell is a number with some decimal sign, with a unit or without one."""
    body, _ = _split_unit(text)
    return any(form.reads(body) for form in _FORMS)


def is_numeric(column: Column, marks: Collection[str] = ()) -> bool:
    """Whether most known cells of a column are numbers; true and false are none."""
    numbers = _read_plain(column.cells, marks) if column.numbers is None else column.numbers
    if numbers is not None:
        return not np.isnan(numbers).all()
    known = Counter(text for text in column.cells if not is_missing(text, marks))
    return 2 * sum(count for text, count in known.items() if may_be_number(text)) > known.total()


def has_decimal_commas(cells: Sequence[str]) -> bool:
    """Whether there are cells that only decimal commas explain."""
    bodies = (_split_unit(text)[0] for text in cells if "," in text)
    return any({form.decimal for form in _FORMS if form.reads(body)} == {","} for body in bodies)


def suspicious_value(numbers: Floats) -> float | None:
    """The value of a column that may mark missing ones, such as -200, -999 or 999.9; None where there is none.

    It is the least or the largest value, negative or all nines, and at least 9 in size. It occurs twice or more, and
    the column comes back from it, as it does not from a new level. The others have three values or more, and the
    nearest is further away than half their range and than the distance of their percentiles 5 and 95.
    """
    known = numbers[np.isfinite(numbers)]
    for value in {known.min(), known.max()} if known.size else ():
        is_value = known == value
        others = known[~is_value]
        is_like_mark = abs(value) >= 9 and (value < 0 or set(f"{value:.15g}") <= {"9", "."})
        returns = np.count_nonzero(is_value) > 1 and np.count_nonzero(np.diff(is_value)) > 1
        if is_like_mark and returns and np.unique(others).size > 2:
            spread = max(np.ptp(others) / 2, np.ptp(np.quantile(others, (0.05, 0.95))))
            if np.abs(others - value).min() > spread:
                return float(value)
    return None
