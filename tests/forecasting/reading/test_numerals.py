import math

import numpy as np
import pytest

from gru_xp.forecasting.reading.cells import CellError
from gru_xp.forecasting.reading.numerals import (
    check_size,
    has_decimal_commas,
    is_fraction,
    may_be_number,
    parse_numbers,
)


def parse(*texts, decimal=None):
    numbers, _ = parse_numbers(texts, decimal, "row {}".format)
    return numbers.tolist()


@pytest.mark.parametrize("decimal", [None, "."])
def test_numbers_are_those_of_python(rng, decimal):
    numbers = rng.standard_normal(200) * 10.0 ** rng.integers(-300, 149, 200)
    for form in ("{!r}", "{:.17g}", "{:.3f}", "{:+.5E}", " {!r} "):
        texts = [form.format(number) for number in numbers.tolist() if abs(number) < 1e14 or "f" not in form]
        assert parse(*texts, decimal=decimal) == list(map(float, texts))


@pytest.mark.parametrize("signs", [",.", ".,", "\u2009.", "\u00a0,", "\u202f,"])
@pytest.mark.parametrize("around", ["{}", "${}", "{} €", "{}%"])
def test_numbers_with_thousands(rng, signs, around):
    """As Python writes them, with other signs."""
    numbers = np.round(rng.standard_normal(100) * 10.0 ** rng.integers(0, 12, 100), 2).tolist()
    thousands, decimal = signs
    swap = str.maketrans({",": thousands, ".": decimal})
    texts = [around.format(f"{number:,}").replace("$-", "-$").translate(swap) for number in numbers]
    assert parse(*texts, decimal=decimal) == numbers
    if decimal == ".":
        assert parse(*texts) == numbers
    else:
        with pytest.raises(CellError, match="give --decimal"):
            parse(*texts)


@pytest.mark.parametrize(
    ("texts", "decimal", "row"),
    [
        (["1", "2", "x"], None, 2),
        (["1", "", "1,234"], None, 2),
        (["1,234.5", "1,23"], None, 1),
        (["1,234.5", "01,234"], None, 1),
        (["1,234.5", "1,234,56"], None, 1),
        (["1,234.5", "1,,234"], None, 1),
        (["1,234.5", "$1,234"], None, 1),
        (["1,5", "1,2,3"], ",", 1),
        (["1,5", "1.23"], ",", 1),
        (["1,5", "1.2345"], ",", 1),
        (["1,5", "1.234.5"], ",", 1),
        (["$", "1"], None, 0),
        (["%", "1"], None, 0),
        (["$5%"], None, 0),
        (["+-5"], None, 0),
        (["--5"], None, 0),
        (["5-"], None, 0),
        (["1e5.5"], None, 0),
        (["1_0"], None, 0),
        (["1_0"], ",", 0),
        (["infinity"], None, 0),
        (["1,234e5"], None, 0),
    ],
)
def test_what_is_no_number(texts, decimal, row):
    with pytest.raises(CellError) as error:
        parse(*texts, decimal=decimal)
    assert error.value.row == row


@pytest.mark.parametrize("cell", ["(5)", "5-", "1'234", "1 234", "USD 5", "5k"])
def test_a_column_that_is_written_in_another_way(cell):
    with pytest.raises(CellError, match="is not a number; write the column as plain numbers"):
        parse(cell, cell, "", "3")
    with pytest.raises(CellError, match="is not a number; correct the row or remove it"):
        parse(cell, "2", "3")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("1,5", True), ("12,50 €", True), ("0,123", True), ("1,234", False), ("1,234.5", False), ("a, b", False)],
)
def test_cells_that_only_decimal_commas_explain(cell, expected):
    assert has_decimal_commas(["2", "", cell]) == expected


def test_missing_values_are_nan():
    numbers = parse("", "1,234.5", " NA ", "\u2212", "2")
    np.testing.assert_array_equal(numbers, [math.nan, 1234.5, math.nan, math.nan, 2.0])
    assert all(map(math.isnan, parse("", "null")))
    np.testing.assert_array_equal(parse("$5", "-", "$6"), [5.0, math.nan, 6.0])


def test_a_plain_minus_and_unicode_s():
    assert parse("\u22125", "-5", "\u2212$6"[:1] + "6") == [-5.0, -5.0, -6.0]


def test_sizes(rng):
    numbers = rng.standard_normal(5)
    np.testing.assert_array_equal(check_size(numbers), numbers)
    numbers[3] = math.nan
    assert math.isnan(check_size(numbers)[3])
    numbers[2] = -math.inf
    with pytest.raises(CellError, match="'-inf' is too large for a number") as error:
        check_size(numbers)
    assert error.value.row == 2


@pytest.mark.parametrize(
    ("text", "number", "fraction"),
    [
        *[("5", True, False), ("-5", True, False), ("1.5", True, True), ("1,5", True, True), ("1e5", True, True)],
        *[("$5", True, True), ("5%", True, True), ("1.234,5", True, True), ("\u22121,234.5", True, True)],
        *[(text, False, False) for text in ("", "x", "2020-01-01", "1.2.2020", "1_0", "nan", "$", "Close", "5 6")],
    ],
)
def test_what_may_be_a_number(text, number, fraction):
    assert (may_be_number(text), is_fraction(text)) == (number, fraction)
