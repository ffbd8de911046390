"""Numbers as people write them: with thousands, currencies and percent, where there is one way to read them."""

import math
import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from gru_xp.forecasting.reading.cells import CellError, is_missing, quoted
from gru_xp.forecasting.windows import Floats

LARGEST = 1e150
"""Values above this are refused: their squares are no numbers any more."""

_SPACES = "\N{NO-BREAK SPACE}\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}"
_ROW_REMEDY = "correct the row or remove it"


def _grouped(decimal: str, thousands: str) -> re.Pattern[str]:
    """Digits in groups of three, all with the same sign between them."""
    return re.compile(rf"[+-]?[1-9]\d{{0,2}}([{thousands}{_SPACES}])\d{{3}}(?:\1\d{{3}})*(?:[{decimal}]\d*)?")


_GROUPED = {".": _grouped(".", ","), ",": _grouped(",", ".")}
_COMMA_FRACTION = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_UNSURE = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_UNSURE_POINT = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")
_BELOW_THOUSAND = re.compile(r"[+-]?\d{1,3}")


def parse_numbers(
    texts: Sequence[str], decimal: str | None, where: Callable[[int], str]
) -> tuple[Floats, tuple[str, ...]]:
    """The numbers of a column, missing ones as NaN, and notices about what was left out around them.

    Parameters
    ----------
    texts
        The cells.
    decimal
        The decimal sign; None where that is for the column to tell.
    where
        How to call a row in a message.

    Raises
    ------
    CellError
        A cell is neither a number nor empty, or could be two numbers.
    """
    numbers = _parse_plain(texts, decimal)
    if numbers is not None:
        return numbers, ()
    texts = [_plain(text) for text in texts]
    split = {row: _split_unit(text) for row, text in enumerate(texts) if not is_missing(text)}
    commas_group = decimal is not None or any(_is_clear(text) for text, _ in split.values())
    numbers = np.full(len(texts), math.nan)
    for row, (text, _) in split.items():
        number = _parse(text, decimal or ".")
        if number is None or (not commas_group and _UNSURE.fullmatch(text)):
            remedy = _ROW_REMEDY
            if 2 * sum(_parse(other, decimal or ".") is None for other, _ in split.values()) > len(split):
                remedy = "write the column as plain numbers, as 1234.5"
            raise CellError(row, _problem(texts[row], text, decimal, remedy))
        if not abs(number) <= LARGEST:
            raise CellError(row, _too_large(texts[row], number))
        numbers[row] = number
    unit, first = _one_unit(texts, split, where)
    if not unit:
        return numbers, ()
    name = "percent" if unit == "%" else unit
    return numbers, (f"all in {name}; {quoted(texts[first])} is read as {float(numbers[first])!r}",)


def check_points(texts: Sequence[str]) -> None:
    """Raise CellError where all points of a column, and there is one, may as well stand between thousands."""
    if "." not in "".join(texts):
        return
    unsure = None
    for row, text in enumerate(texts):
        plain = _plain(text)
        if is_missing(plain):
            continue
        number, _ = _split_unit(plain)
        if _UNSURE_POINT.fullmatch(number):
            unsure = unsure or CellError(row, _either(text, number))
        elif not _BELOW_THOUSAND.fullmatch(number):
            return
    if unsure:
        raise unsure


def has_decimal_commas(texts: Sequence[str]) -> bool:
    """Whether there are cells that only decimal commas explain."""
    if "," not in "".join(texts):
        return False
    plain = (_split_unit(text)[0] for text in map(_plain, texts) if "," in text)
    return any(_COMMA_FRACTION.fullmatch(text) and not _UNSURE.fullmatch(text) for text in plain)


def _one_unit(texts: Sequence[str], split: dict[int, tuple[str, str]], where: Callable[[int], str]) -> tuple[str, int]:
    """The unit of all numbers, and the first row that has one; raise CellError where they are in several units."""
    first = min(split, default=0)
    unit = split[first][1] if split else ""
    for row, (_, other) in split.items():
        if other != unit:
            raise CellError(
                row,
                f"{quoted(texts[row])} and {quoted(texts[first])} in {where(first)} are not in the same unit; write "
                "the whole column alike",
            )
    return unit, first


def check_size(numbers: Floats) -> Floats:
    """The numbers themselves, missing ones as NaN; raise CellError where one is too large."""
    too_large = np.abs(numbers) > LARGEST
    if too_large.any():
        row = int(too_large.argmax())
        raise CellError(row, _too_large(repr(float(numbers[row])), float(numbers[row])))
    return numbers


def _parse_plain(texts: Sequence[str], decimal: str | None) -> Floats | None:
    """The numbers of a column that has nothing but numbers without thousands, and missing values."""
    if decimal == ",":
        if any("." in text for text in texts):
            return None
        texts = [text.replace(",", ".") for text in texts]
    numbers = _floats(texts)
    if numbers is None:
        numbers = _floats(["nan" if is_missing(text.strip()) else text for text in texts])
    if numbers is None or (np.abs(numbers) > LARGEST).any() or "_" in "".join(texts):
        return None
    return numbers


def _floats(texts: Sequence[str]) -> Floats | None:
    try:
        return np.array(list(map(float, texts)))
    except ValueError:
        return None


def _parse(text: str, decimal: str) -> float | None:
    if _GROUPED[decimal].fullmatch(text):
        text = re.sub(rf"[^\d{decimal}+-]", "", text).replace(",", ".")
    elif decimal == "," and "." in text:
        return None
    elif decimal == ",":
        text = text.replace(",", ".")
    return _float(text)


def _float(text: str) -> float | None:
    """What Python reads, but for 1_000, which people do not write, and for nan."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if "_" in text or math.isnan(number) else number


def _plain(text: str) -> str:
    return text.strip().replace("\N{MINUS SIGN}", "-")


def _split_unit(text: str) -> tuple[str, str]:
    """A number without the currency or percent sign around it, and that sign."""
    minus = text[0] if text[0] in "+-" else ""
    body = text[len(minus) :].strip()
    if body and (body[-1] == "%" or unicodedata.category(body[-1]) == "Sc"):
        return minus + body[:-1].rstrip(), body[-1]
    if body and unicodedata.category(body[0]) == "Sc":
        return minus + body[1:].lstrip(), body[0]
    return text, ""


def _is_clear(text: str) -> bool:
    """Whether the commas in a number can only stand between thousands."""
    return "," in text and bool(_GROUPED["."].fullmatch(text)) and not _UNSURE.fullmatch(text)


def _problem(written: str, text: str, decimal: str | None, remedy: str) -> str:
    if decimal is None and _UNSURE.fullmatch(text):
        return _either(written, text)
    if decimal is None and (_COMMA_FRACTION.fullmatch(text) or _GROUPED[","].fullmatch(text)):
        how = "is written with a decimal comma" if "," in text else "has points between thousands"
        return f"{quoted(written)} {how}; give --decimal ,"
    if decimal == "," and _float(text) is not None:
        return f"{quoted(written)} has a point that is not between groups of three digits; is --decimal , right?"
    return f"{quoted(written)} is not a number; {remedy}"


def _either(written: str, text: str) -> str:
    grouped, fraction = re.sub("[,.]", "", text), text.replace(",", ".")
    return f"{quoted(written)} may be {grouped} or {fraction}; give --decimal . or --decimal ,"


def _too_large(written: str, number: float) -> str:
    limit = " for a number" if math.isinf(number) else f", above {LARGEST:g}"
    return f"{quoted(written)} is too large{limit}; {_ROW_REMEDY}"


def may_be_number(text: str) -> bool:
    """Whether a cell is a number with some decimal sign, with a unit or without one."""
    if _float(text) is not None:
        return True
    text = _plain(text)
    if not any(map(str.isdigit, text)):
        return False
    text, _ = _split_unit(text)
    return any(_parse(text, decimal) is not None for decimal in _GROUPED)


def is_fraction(text: str) -> bool:
    """Whether a text is a number that is not written as a whole one."""
    return may_be_number(text) and not text.lstrip("+-").isdigit()
