import json
import subprocess
import sys

import pytest

from gru_xp.training.strict_json import DEEPEST, check_fields, read_json


@pytest.mark.compat
def test_what_json_can_hold_comes_back():
    for value in (
        {},
        [],
        None,
        "[[[[",
        {"a": [1, -2.5, 1e-300, True, None, '\\"}]{['], "ü": {"\n\x1b": "€😀"}},
        {'"': {"\\": '\\"'}},
        10**300,
    ):
        for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value, indent=1)):
            assert read_json(text) == value, text


def nested(depth):
    return "[" * depth + '{"a": 1}' + "]" * depth


def test_depth():
    assert read_json(nested(DEEPEST - 1))
    with pytest.raises(ValueError, match=r"more than 32 deep"):
        read_json(nested(DEEPEST))
    assert read_json('"' + nested(1000).replace('"', '\\"') + '"') == nested(1000)


@pytest.mark.compat
def test_other_texts_are_refused(refused):
    for text, *parts in (
        ("", "Expecting value"),
        ("{", "brackets"),
        ("[}", "brackets"),
        ("{]", "brackets"),
        ("[]]", "brackets"),
        ('{"a": 1', "brackets"),
        ('"a', "Unterminated"),
        ('"a\\', "Unterminated"),
        ('{"a": 1}}', "brackets"),
        ('{"a": 1} 2', "Extra data"),
        ("NaN", "NaN"),
        ("[1, -Infinity]", "-Infinity"),
        ("1e400", "1e400 is too large"),
        ("-1" + "0" * 400 + ".0", "-10000", "too large"),
        ("9" * 401, "401 digits"),
        ("9" * 10_000, "10,000 digits"),
        ('{"a": 1, "b": 2, "a": 1}', "'a'", "duplicate key"),
        ('[{"b": {"a": 1, "a": {}}}]', "'a'", "duplicate key"),
        ('{"\\u001b[31m": 1, "\\u001b[31m": 2}', r"'\x1b[31m'", "duplicate key"),
        ('["\\ud800"]', "Unicode"),
        ('{"\\udc00": 1}', "Unicode"),
        ("{'a': 1}", "property name"),
        ("\ufeff{}", "BOM"),
        ('"\x00"', "control character"),
    ):
        with refused(ValueError, *parts, case=text[:50]):
            read_json(text)


PARTS = (
    "[",
    "]",
    "{",
    "[]",
    "{},",
    '"',
    '"\\',
    '\\"',
    '"":',
    '{"":',
    "[{",
    "0,",
    '{"a":1,"a":1},',
    " ",
    "e",
    '"\\ud800",',
)
READ_LONG_TEXTS = """
import contextlib, json, sys
from gru_xp.training.strict_json import read_json

for part in json.loads(sys.argv[1]):
    repeated = part * (2**18 // len(part))
    for text in (repeated, "[" + repeated + "0]"):
        with contextlib.suppress(ValueError):
            read_json(text)
try:
    read_json("{" + ",".join(f'"{number}":0' for number in range(100_000)) + ',"99999":1}')
except ValueError as error:
    print(error)
"""


def test_no_long_text_takes_forever():
    """Nor do 100,000 keys; the timeout is there for time that grows with the square of the length, which is hours."""
    command = [sys.executable, "-c", READ_LONG_TEXTS, json.dumps(PARTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "'99999'" in done.stdout
    assert "duplicate key" in done.stdout


# --- fields -----------------------------------------------------------------------------------------------------

KINDS = {"name": str, "size": int, "rate": (int, float), "flag": bool, "rows": list}
FIELDS = {"name": "a", "size": 3, "rate": 0.5, "flag": True, "rows": [1]}


def test_fields():
    assert check_fields("it", FIELDS, KINDS) is FIELDS
    assert check_fields("it", FIELDS | {"rate": 1}, KINDS)["rate"] == 1


def test_fields_that_do_not_fit(refused):
    for value, *parts in (
        ([1], "it is [1]", "object"),
        (None, "it is None", "object"),
        (FIELDS | {"more": 1}, "it has 'more'", "unknown"),
        (FIELDS | {"\x1b": 1}, r"it has '\x1b'", "unknown"),
        ({"name": "a"}, "it has no 'size'"),
        (FIELDS | {"size": 1.0}, "'size' of it is 1.0", "type int"),
        (FIELDS | {"size": True}, "'size' of it is True", "type int"),
        (FIELDS | {"rate": False}, "'rate' of it is False", "type int or float"),
        (FIELDS | {"flag": 1}, "'flag' of it is 1", "type bool"),
        (FIELDS | {"name": ["x" * 1000]}, "'name' of it is ['" + 20 * "x", "xx...", "type str"),
    ):
        with refused(ValueError, *parts, case=value):
            check_fields("it", value, KINDS)
    with pytest.raises(ValueError, match="name") as error:
        check_fields("it", FIELDS | {"name": ["x" * 1000]}, KINDS)
    assert len(str(error.value)) < 200
