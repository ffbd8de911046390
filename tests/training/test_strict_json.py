import contextlib
import json
import time

import pytest

from gru_xp.training.strict_json import DEEPEST, check_fields, read_json


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        None,
        "[[[[",
        {"a": [1, -2.5, 1e-300, True, None, '\\"}]{['], "ü": {"\n\x1b": "€😀"}},
        {'"': {"\\": '\\"'}},
        10**300,
    ],
    ids=str,
)
def test_what_json_can_hold_comes_back(value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value, indent=1)):
        assert read_json(text) == value


def nested(depth):
    return "[" * depth + '{"a": 1}' + "]" * depth


def test_depth():
    assert read_json(nested(DEEPEST - 1))
    with pytest.raises(ValueError, match=r"more than 32 deep"):
        read_json(nested(DEEPEST))
    assert read_json('"' + nested(1000).replace('"', '\\"') + '"') == nested(1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
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
        ("NaN", "NaN is no number"),
        ("[1, -Infinity]", "-Infinity is no number"),
        ("1e400", "1e400 is too large for a number"),
        ("-1" + "0" * 400 + ".0", "too large for a number"),
        ("9" * 401, "a number of 401 digits"),
        ("9" * 10_000, "a number of 10,000 digits"),
        ('{"a": 1, "b": 2, "a": 1}', "'a' stands there twice"),
        ('[{"b": {"a": 1, "a": {}}}]', "'a' stands there twice"),
        ('{"\\u001b[31m": 1, "\\u001b[31m": 2}', r"'\\x1b\[31m' stands there twice"),
        ('["\\ud800"]', "no Unicode"),
        ('{"\\udc00": 1}', "no Unicode"),
        ("{'a': 1}", "property name"),
        ("\ufeff{}", "BOM"),
        ('"\x00"', "control character"),
    ],
)
def test_other_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_json(text)


@pytest.mark.parametrize(
    "part",
    [
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
    ],
)
def test_no_text_of_a_million_characters_takes_long(part):
    size = 2**20
    for text in (part * (size // len(part)), "[" + part * (size // len(part)) + "0]"):
        start = time.process_time()
        with contextlib.suppress(ValueError):
            read_json(text)
        assert time.process_time() - start < 1.0


def test_a_key_that_stands_there_twice_is_found_at_once():
    text = "{" + ",".join(f'"{number}":0' for number in range(100_000)) + ',"99999":1}'
    start = time.process_time()
    with pytest.raises(ValueError, match="'99999' stands there twice"):
        read_json(text)
    assert time.process_time() - start < 1.0


# --- fields -----------------------------------------------------------------------------------------------------

KINDS = {"name": str, "size": int, "rate": (int, float), "flag": bool, "rows": list}
FIELDS = {"name": "a", "size": 3, "rate": 0.5, "flag": True, "rows": [1]}


def test_fields():
    assert check_fields("it", FIELDS, KINDS) is FIELDS
    assert check_fields("it", FIELDS | {"rate": 1}, KINDS)["rate"] == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], r"it is \[1\]; it must be an object"),
        (None, "it is None"),
        (FIELDS | {"more": 1}, "it has 'more', which is unknown"),
        (FIELDS | {"\x1b": 1}, r"it has '\\x1b', which is unknown"),
        ({"name": "a"}, "it has no 'size'"),
        (FIELDS | {"size": 1.0}, "'size' of it is 1.0; it must be of type int"),
        (FIELDS | {"size": True}, "'size' of it is True; it must be of type int"),
        (FIELDS | {"rate": False}, "'rate' of it is False; it must be of type int or float"),
        (FIELDS | {"flag": 1}, "'flag' of it is 1; it must be of type bool"),
        (FIELDS | {"name": ["x" * 1000]}, r"'name' of it is \['x{20,60}\.\.\.; it must be of type str"),
    ],
)
def test_fields_that_do_not_fit(value, message):
    with pytest.raises(ValueError, match=message):
        check_fields("it", value, KINDS)
