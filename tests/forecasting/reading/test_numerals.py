import math

import numpy as np
import pytest

from gru_xp.forecasting.reading.cells import CellError
from gru_xp.forecasting.reading.numerals import (
    check_points,
    check_size,
    has_decimal_commas,
    is_fraction,
    may_be_number,
    parse_numbers,
)

pytestmark = pytest.mark.compat


def parse(*texts, decimal=None):
    numbers, _ = parse_numbers(texts, decimal, "row {}".format)
    return numbers.tolist()


def test_numbers_are_those_of_python(rng):
    numbers = rng.standard_normal(200) * 10.0 ** rng.integers(-300, 149, 200)
    for decimal in (None, "."):
        for form in ("{!r}", "{:.17g}", "{:.3f}", "{:+.5E}", " {!r} "):
            texts = [form.format(number) for number in numbers.tolist() if abs(number) < 1e14 or "f" not in form]
            assert parse(*texts, decimal=decimal) == list(map(float, texts)), (decimal, form)


def test_numbers_with_thousands(rng, refusal):
    """As Python writes them, with other signs."""
    for signs in (",.", ".,", "\u2009.", "\u00a0,", "\u202f,"):
        for around in ("{}", "${}", "{} €", "{}%"):
            numbers = np.round(rng.standard_normal(100) * 10.0 ** rng.integers(0, 12, 100), 2).tolist()
            thousands, decimal = signs
            swap = str.maketrans({",": thousands, ".": decimal})
            texts = [around.format(f"{number:,}").replace("$-", "-$").translate(swap) for number in numbers]
            assert parse(*texts, decimal=decimal) == numbers, (signs, around)
            if decimal == ".":
                assert parse(*texts) == numbers, (signs, around)
            else:
                refusal(lambda texts=texts: parse(*texts), "give --decimal", error=CellError)


def test_what_is_no_number(refusal):
    for texts, decimal, row in (
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
    ):
        read = lambda texts=texts, decimal=decimal: parse(*texts, decimal=decimal)  # noqa: E731
        assert refusal(read, repr(texts[row]), error=CellError).row == row, texts


def test_a_column_that_is_written_in_another_way(refusal):
    for cell in ("(5)", "5-", "1'234", "1 234", "USD 5", "5k"):
        refusal(lambda cell=cell: parse(cell, cell, "", "3"), "not a number", "plain numbers", error=CellError)
        refusal(lambda cell=cell: parse(cell, "2", "3"), "not a number", "correct the row", error=CellError)


def test_cells_that_only_decimal_commas_explain():
    for cell in ("1,5", "12,50 €", "0,123"):
        assert has_decimal_commas(["2", "", cell]), cell
    for cell in ("1,234", "1,234.5", "a, b"):
        assert not has_decimal_commas(["2", "", cell]), cell


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


def test_what_may_be_a_number():
    for text, number, fraction in (
        *[("5", True, False), ("-5", True, False), ("1.5", True, True), ("1,5", True, True), ("1e5", True, True)],
        *[("$5", True, True), ("5%", True, True), ("1.234,5", True, True), ("\u22121,234.5", True, True)],
        *[(text, False, False) for text in ("", "x", "2020-01-01", "1.2.2020", "1_0", "nan", "$", "Close", "5 6")],
    ):
        assert (may_be_number(text), is_fraction(text)) == (number, fraction), text


def test_points_that_may_separate_thousands_are_refused():
    """Up to three digits before the point and three after it."""
    for text in ("1.234", "12.345", "-123.456"):
        with pytest.raises(CellError) as refused:
            check_points([text, ""])
        assert refused.value.row == 0, text
    for text in ("1.23", "0.123", "1234.567", "1.2345"):
        check_points([text, "1.234"])
