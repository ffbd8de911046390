"""JSON from a file that anybody may have written: refused unless it is plain, flat enough and unambiguous."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from gru_xp.errors import printable

DEEPEST = 32
"""Objects and lists inside one another."""

MOST_DIGITS = 400
"""Of a whole number."""

_TEXTS = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = re.compile(r"[^][{}]++")


def read_json(text: str) -> Any:
    """What a JSON text means.

    Raises
    ------
    ValueError
        It is damaged or too deep, or holds a number that is not finite or of endless digits, a key twice, or text that
        is no Unicode.
    """
    _check_depth(text)
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_int=_whole, parse_float=_finite, parse_constant=_no_constant
        )
        json.dumps(value, ensure_ascii=False).encode()  # halves of pairs, such as \ud800, are no text
    except UnicodeEncodeError as error:
        raise ValueError("text that is no Unicode") from error
    return value


def check_fields(what: str, value: object, kinds: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """`value`, if it is a JSON object of exactly these fields; True and False are no numbers.

    Raises
    ------
    ValueError
        It is none, or a field is missing, unknown or of another kind.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{what} is {shortened(value)}; it must be an object")
    if unknown := sorted(value.keys() - kinds.keys()):
        raise ValueError(f"{what} has {shortened(unknown[0])}, which is unknown")
    for name, kind in kinds.items():
        if name not in value:
            raise ValueError(f"{what} has no {name!r}")
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value[name], allowed) or (isinstance(value[name], bool) and bool not in allowed):
            names = " or ".join(each.__name__ for each in allowed)
            raise ValueError(f"{name!r} of {what} is {shortened(value[name])}; it must be of type {names}")
    return value


def shortened(value: object) -> str:
    """What a file holds, for a message of one line."""
    return printable(repr(value))


def _check_depth(text: str) -> None:
    brackets = _NO_BRACKETS.sub("", _TEXTS.sub("", text))
    for _ in range(DEEPEST):
        before, brackets = brackets, brackets.replace("[]", "").replace("{}", "")
        if len(brackets) == len(before):
            break
    if brackets:
        raise ValueError(f"brackets that do not match, or are more than {DEEPEST} deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"duplicate key {shortened(name)}")
        values[name] = value
    return values


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large for a number")
    return number


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")
