"""Numbers are those that `float` finds when the signs around them are taken away, or are refused."""

import ast
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gru_xp.io.messages import CellError
from gru_xp.io.numbers import (
    NumberStyle,
    has_decimal_commas,
    is_missing,
    is_numeric,
    may_be_number,
    read_numbers,
    suspicious_value,
)
from gru_xp.io.options import ReadOptions
from gru_xp.io.table import Column

pytestmark = pytest.mark.compat

NAN = math.nan


def column(*cells):
    if cells and not isinstance(cells[0], str):
        return Column("Close", lambda: list(map(repr, cells)), np.array(cells, dtype=np.float64))
    return Column("Close", lambda: cells)


def read(*cells, points_may_group=False, **options):
    return read_numbers(column(*cells), ReadOptions(**options), points_may_group=points_may_group)


def refusal(*cells, **options):
    try:
        numbers, _ = read(*cells, **options)
    except CellError as error:
        return error
    pytest.fail(f"{cells}, {options}: read as {numbers}")


def parse(*cells, **options):
    return read(*cells, **options)[0].tolist()


READ = (
    (("1.5", " 2.5", "-3.25  "), {}, [1.5, 2.5, -3.25]),
    (("\u22121.5", "2", "\u22122"), {}, [-1.5, 2, -2]),
    (("1e3", "-2.5E-1", ".5", "5.", "+12", "007.5"), {}, [1000, -0.25, 0.5, 5, 12, 7.5]),
    # decimal commas
    (("1,5", "2,5", "-3,25", "0,125", ",5", "1,"), {"decimal": ","}, [1.5, 2.5, -3.25, 0.125, 0.5, 1]),
    (("1.234,5", "1.234.567", "2"), {"decimal": ","}, [1234.5, 1234567, 2]),
    (("1.234",), {"decimal": ","}, [1234]),
    (("1,234",), {"decimal": ","}, [1.234]),
    (("1,5e3", "-2,5E-1"), {"decimal": ","}, [1500, -0.25]),
    (("\u0661,\u0665",), {"decimal": ","}, [1.5]),
    (("1.234.567,89", "1.234,5", "1,5"), {}, [1234567.89, 1234.5, 1.5]),
    (("5", "1.234.567", "-1.234"), {}, [5, 1234567, -1234]),
    # commas between thousands
    (("1,234.56", "-1,234,567", "+12"), {}, [1234.56, -1234567, 12]),
    (("1,234", "1,234,567", "999", "1000"), {}, [1234, 1234567, 999, 1000]),
    (("1,234", "1,234."), {}, [1234, 1234]),
    (("1,234", "5"), {"decimal": "."}, [1234, 5]),
    (("51,28,100",), {}, [5128100]),
    (("1,234,567", "12,34,567"), {}, [1234567, 1234567]),
    (("1,51,28,100.50", "-51,28,100", "1,234", "12,345", "5.5"), {}, [15128100.5, -5128100, 1234, 12345, 5.5]),
    # other signs between thousands
    (("1'234.50", "5"), {}, [1234.5, 5]),
    (("1\u2019234.50", "-1'234'567"), {}, [1234.5, -1234567]),
    (("1'234", "999.5"), {}, [1234, 999.5]),
    (("1'234,50", "1,5"), {}, [1234.5, 1.5]),
    (("1 234.50", "1 234", "999.25"), {}, [1234.5, 1234, 999.25]),
    (("1 234,50", "1 234", "999,25"), {}, [1234.5, 1234, 999.25]),
    (("1 234 567", "1 234"), {}, [1234567, 1234]),
    (("1 234", "2"), {"decimal": "."}, [1234, 2]),
    (("1\u2009234.5", "12\u2009345"), {}, [1234.5, 12345]),
    (("1\u00a0234,5", "12\u202f345", "1 234"), {}, [1234.5, 12345, 1234]),
    (("1\u00a0234,5", "12\u202f345"), {"decimal": ","}, [1234.5, 12345]),
    # points that may stand between thousands
    (("1.234", "2.500"), {}, [1.234, 2.5]),
    (("1.234", "0.500", "999"), {"points_may_group": True}, [1.234, 0.5, 999]),
    (("1.234", "1000", ""), {"points_may_group": True}, [1.234, 1000, NAN]),
    (("1.234", "1.23"), {"points_may_group": True}, [1.234, 1.23]),
    (("1.234", "1234.567"), {"points_may_group": True}, [1.234, 1234.567]),
    (("1.234", "1.2345"), {"points_may_group": True}, [1.234, 1.2345]),
    (("1.234", "5"), {"points_may_group": True, "decimal": "."}, [1.234, 5]),
    (("1.234", "5"), {"points_may_group": True, "decimal": ","}, [1234, 5]),
    (("1.234", "1.234.567"), {"points_may_group": True}, [1234, 1234567]),
    (("12", "5", "."), {"points_may_group": True}, [12, 5, NAN]),
    # units
    (("$1,234.50", "-$2", "$-3", "$ 4"), {}, [1234.5, -2, -3, 4]),
    (("1.234,50 €", "-2€"), {"decimal": ","}, [1234.5, -2]),
    (("5%", "-2.5 %"), {}, [5, -2.5]),
    (("$5", "-", "$6"), {}, [5, NAN, 6]),
    (("₹51,28,100", "₹5"), {}, [5128100, 5]),
    # true and false
    (("True", "FALSE", "", "true"), {}, [1, 0, NAN, 1]),
    (("true", "?"), {"missing_values": "?"}, [1, NAN]),
    # missing values
    (("", "1,234.5", " NA ", "\u2212", "2"), {}, [NAN, 1234.5, NAN, NAN, 2]),
    (("", "null"), {}, [NAN, NAN]),
    (("", "null"), {"decimal": ",", "points_may_group": True}, [NAN, NAN]),
    (("nan", "1"), {}, [NAN, 1]),
    ((), {}, []),
    (("1", " ? ", "-200", "-200.0", "5"), {"missing_values": ["?", "-200"]}, [1, NAN, NAN, NAN, 5]),
    (("1,5", "-200,0", "?"), {"missing_values": ["?", "-200"], "decimal": ","}, [1.5, NAN, NAN]),
    (("1,5", "-999,9"), {"missing_values": "-999.9", "decimal": ","}, [1.5, NAN]),
    (("1,5", "-999,90"), {"missing_values": "-999,9", "decimal": ","}, [1.5, NAN]),
    (("5%", "-200%"), {"missing_values": "-200"}, [5, NAN]),
    (("1", "inf"), {"missing_values": "inf"}, [1, NAN]),
    (("1", "n_v", "1e300"), {"missing_values": ["n_v", "1e300"]}, [1, NAN, NAN]),
    (("1.5", "n.v.", "-1e3"), {"missing_values": ["n.v.", "-1000"]}, [1.5, NAN, NAN]),
    ((1.5, NAN, -200.0), {"missing_values": ["?", -200]}, [1.5, NAN, NAN]),
    ((1.5, float(np.float32(999.9))), {"missing_values": 999.9}, [1.5, NAN]),
)


def test_the_right_numbers():
    for cells, options, expected in READ:
        np.testing.assert_array_equal(parse(*cells, **options), expected, err_msg=f"{cells}, {options}")


def test_the_style():
    for cells, options, style in (
        (("1.5", "2"), {}, NumberStyle()),
        (("1,5",), {"decimal": ","}, NumberStyle(",")),
        (("1.234.567",), {}, NumberStyle(",", ".")),
        (("1\u202f234,5 €",), {}, NumberStyle(",", " ", "€")),
        (("1\u2019234.5",), {}, NumberStyle(".", "'")),
        (("51,28,100",), {}, NumberStyle(".", ",")),
        (("$5", ""), {}, NumberStyle(unit="$")),
        (("5 %",), {}, NumberStyle(unit="%")),
        (("true", ""), {}, NumberStyle(unit="true or false")),
        (("", ""), {}, NumberStyle()),
        ((1.5,), {"decimal": ","}, NumberStyle()),
    ):
        assert read(*cells, **options)[1] == style, cells


BOTH, COMMA, POINT = "give decimal='.' or ','", "give decimal=','", "give decimal='.'"
REFUSED = (
    # ambiguous
    (("5", "1,234"), {}, 1, ("may be 1234 or 1.234", BOTH)),
    (("1", "", "1,234", "1000"), {}, 2, ("may be 1234 or 1.234", BOTH)),
    (("1,234", "12.5"), {}, 0, ("may be 1234;", POINT)),
    (("5", "", "-1.234", "2.500"), {"points_may_group": True}, 2, ("may be -1234 or -1.234", BOTH)),
    (("12.345",), {"points_may_group": True}, 0, ("may be 12345 or 12.345", BOTH)),
    (("1.234 €",), {"points_may_group": True}, 0, ("may be 1234 or 1.234", BOTH)),
    (("1.234", "-9999"), {"points_may_group": True, "missing_values": "-9999"}, 0, ("may be 1234 or 1.234", BOTH)),
    (("1 234", "2 345", "3"), {}, 0, ("may be 1234;", BOTH)),
    (("1 234", "999.5"), {}, 0, ("may be 1234;", POINT)),
    # decimal commas that nobody gave
    (("5", "1,5"), {}, 1, ("may be 1.5;", COMMA)),
    (("5", "1.234,5"), {}, 1, ("may be 1234.5;", COMMA)),
    (("1,234e5",), {}, 0, ("may be 123400;", COMMA)),
    (("0,123",), {}, 0, ("may be 0.123;", COMMA)),
    (("1'234", "1,5"), {}, 1, ("may be 1.5;", COMMA)),
    (("1\u00a0234", "1,234"), {}, 1, ("may be 1.234;", COMMA)),
    (("1.234", "1,5"), {"points_may_group": True}, 1, ("may be 1.5;", COMMA)),
    # several styles
    (("1,234.5", "1,23"), {}, 1, ("not written like '1,234.5'",)),
    (("1,5", "1.5"), {}, 1, ("not written like '1,5'",)),
    (("7", "1,234.5", "", "1 234.5"), {}, 3, ("not written like '1,234.5'",)),
    (("1,234.5", "1.234,5"), {}, 1, ("not written like '1,234.5'",)),
    (("$5", "5 €"), {}, 1, ("not written like '$5'",)),
    (("5", "$5"), {}, 1, ("not written like '5'",)),
    (("", "5%", "0.05"), {}, 2, ("not written like '5%'",)),
    (("1,234.5", "$1,234"), {}, 1, ("not written like '1,234.5'",)),
    (("true", "1"), {}, 1, ("not written like 'true'",)),
    (("0", "false"), {}, 1, ("not written like '0'",)),
    # a wrong option
    (("1,5", "1.5"), {"decimal": ","}, 1, ("not a number with decimal=','",)),
    (("1,5", "1.2345"), {"decimal": ","}, 1, ("not a number with decimal=','",)),
    (("1.5", "1,5"), {"decimal": "."}, 1, ("not a number with decimal='.'",)),
    # two fields in one cell
    (("+0100,1", "+0101,1"), {}, 0, ("not a number", "two fields in one cell")),
    (("+0100,1", "+0101,1"), {"decimal": ","}, 0, ("not a number", "two fields in one cell")),
    (("160,1,N,0046,1",), {}, 0, ("not a number", "two fields in one cell")),
    (("5", "0100,1"), {}, 1, ("not a number", "two fields in one cell")),
    (("10021,1", "09987,1"), {}, 1, ("not a number", "two fields in one cell")),
    (("10021,1", "09987,1"), {"decimal": ","}, 1, ("not a number", "two fields in one cell")),
    # perhaps two fields in one cell
    (("10021,1", "10018,1"), {}, 0, ("may be 10021.1 or two fields in one cell;", f"{COMMA} or write them as two")),
    (("10021,1", "10018,5", "", "10018,1", "99999,9") * 2, {}, 0, ("may be 10021.1 or two fields in one cell;",)),
    (("19,5", "20,1", "18,7", "", "21,5"), {}, 0, ("may be 19.5;", COMMA)),
    (("19,5", "20", "18,5", "21,5"), {}, 0, ("may be 19.5;", COMMA)),
    (("50.123,25", "51.123,50") * 2, {}, 0, ("may be 50123.25;", COMMA)),
    (("1000,50", "1001,00") * 2, {}, 0, ("may be 1000.5;", COMMA)),
    (("19,125", "20,125", "18,125"), {}, 0, ("may be 19125 or 19.125;", BOTH)),
    # no numbers
    (("1", "2", "x"), {}, 2, ("correct the row", "missing_values='x'")),
    (("1,234.5", "01,234"), {}, 1, ("not a number",)),
    (("1,234.5", "1,234,56"), {}, 1, ("not a number",)),
    (("1,234.5", "1,,234"), {}, 1, ("not a number",)),
    (("1,5", "1,2,3"), {"decimal": ","}, 1, ("not a number",)),
    (("1,5", "1.23"), {"decimal": ","}, 1, ("not a number",)),
    (("1,5", "1.234.5"), {"decimal": ","}, 1, ("not a number",)),
    (("1", "inf"), {}, 1, ("too large for a number", "correct the row")),
    (("1", "-1e400"), {}, 1, ("too large for a number",)),
    (("1,234.5", "1e400"), {}, 1, ("too large for a number",)),
    ((1.0, -math.inf), {}, 1, ("'-inf' is too large for a number",)),
    *(((cell, "2", "3"), {}, 0, ("not a number", "correct the row")) for cell in ("(5)", "5-", "USD 5", "5k", "0x10")),
    *(((cell,), {}, 0, ("not a number",)) for cell in ("$", "%", "$5%", "+-5", "--5", "- 5", "1e5.5", "1_0", "1_000")),
    *(((cell,), {}, 0, ("not a number",)) for cell in ("(5.0)", "%5", "1,2345.0", "1,234\u2009567", "1\n2")),
    *(
        ((cell, ""), {}, 0, ())
        for cell in ("infinity", "5 6", "1 23", "1234 567", "0 123", "1.5.2", "1,2.3", "2020-01-01")
    ),
    (("1_0",), {"decimal": ","}, 0, ("not a number",)),
)


def test_one_line_that_says_what_is_where():
    for cells, options, row, parts in REFUSED:
        error = refusal(*cells, **options)
        assert str(error).isprintable(), cells
        missing = [part for part in (repr(cells[row]), *parts) if part not in str(error)]
        assert (error.row, missing) == (row, []), f"{cells}, {options}: {error}"


def test_following_the_remedy_works():
    """The decimal sign, and marks one after the other, are what the messages say."""
    for cells, options, _, parts in REFUSED:
        for remedy in {BOTH: ".,", COMMA: ",", POINT: "."}.get(parts[-1] if parts else "", ""):
            assert not np.isinf(parse(*cells, **options, decimal=remedy)).any(), (cells, remedy)
    marks = []
    cells = ("1.5", "?", "2", "***", "3", "?")
    for expected in ("?", ["?", "***"]):
        message = str(refusal(*cells, missing_values=marks))
        marks = ast.literal_eval(message.split("missing_values=")[1].split(" if")[0])
        assert marks == expected, message
    np.testing.assert_array_equal(parse(*cells, missing_values=marks), [1.5, NAN, 2, NAN, 3, NAN])


def test_words_for_missing():
    for word in (
        "",
        "NA",
        "N/A",
        "n/a",
        "null",
        "NULL",
        "None",
        "nan",
        "NaN",
        "-nan",
        "#N/A",
        "-",
        "--",
        ".",
        "\u2212",
    ):
        assert is_missing(f" {word} "), word
        np.testing.assert_array_equal(parse("1", word, "3"), [1, NAN, 3], err_msg=word)
    assert is_missing(" ? ", ("?",))
    assert not any(map(is_missing, ("?", "0", "x", "nano", "none.")))


def test_what_may_be_a_number():
    for text in ("5", "-5", "1.5", "1,5", "1e5", "$5", "5%", "1.234,5", "\u22121,234.5", "1'234", "1 234", "51,28,100"):
        assert may_be_number(text), text
    for text in ("", "x", "2020-01-01", "1.2.2020", "1_0", "nan", "$", "Close", "5 6", "+0100,1", "true", "1_000"):
        assert not may_be_number(text), text


def test_which_columns_are_numeric():
    for cells, marks, numeric in (
        (("1", "", "x", "2,5"), (), True),
        (("1", "x"), (), False),
        (("1", "?", "?"), (), False),
        (("1", "?", "?"), ("?",), True),
        (("", "nan"), (), False),
        (("nan", "1"), (), True),
        (("true", "false"), (), False),
        (("+0100,1", "+0101,1"), (), False),
        (("1_000", "2_000"), (), False),
        ((1.0, 2.0), (), True),
    ):
        assert is_numeric(column(*cells), marks) == numeric, cells


def test_cells_that_only_decimal_commas_explain():
    for cell in ("1,5", "12,50 €", "0,123", "1.234,5"):
        assert has_decimal_commas(["2", "", cell]), cell
    for cell in ("1,234", "1,234.5", "a, b", "+0100,1", "1,234,567", "1.5"):
        assert not has_decimal_commas(["2", "", cell]), cell


def test_values_that_may_mark_missing_ones(rng):
    small = np.arange(40) % 7
    walk = 100 + np.cumsum(rng.standard_normal(400))
    levels = np.where(np.arange(400) < 300, walk, 999.0)

    def marked(values, mark, *rows):
        values = np.array(values, dtype=np.float64)
        values[list(rows)] = mark
        return values

    for what, values, expected in (
        ("-200", marked(small, -200, 5, 14, 23, 34), -200.0),
        ("with gaps", marked(marked(small, NAN, 3, 4), -200, 5, 14), -200.0),
        ("one outage", marked(walk, -999, 50, 51, 52), -999.0),
        ("999.9", marked(walk, 999.9, 0, 100, 399), 999.9),
        ("9999", marked(walk, 9999, 7, 100), 9999.0),
        ("two marks", marked(marked(small, -999, 1, 8), -200, 5, 14, 23), -999.0),
        ("once", marked(walk, -200, 7), None),
        ("none", walk, None),
        ("a new level", levels, None),
        ("an old level", levels[::-1], None),
        ("a split", np.where(np.arange(400) < 200, walk, np.round(walk / 4)), None),
        ("zeros and ones", np.arange(40) % 2, None),
        ("minus ones", np.arange(40) % 3 - 1.0, None),
        ("mostly zeros", np.where(np.arange(400) % 9, 0.0, walk), None),
        ("sales but for Sundays", np.where(np.arange(400) % 7, walk, 0.0), None),
        ("percent", 100 - small, None),
        ("percent up to 99", 99 - small, None),
        ("nothing", [], None),
        ("all missing", [NAN, NAN], None),
        ("one value", [-200.0, -200.0], None),
    ):
        assert suspicious_value(np.array(values, dtype=np.float64)) == expected, what


def test_numbers_are_those_of_python(rng):
    numbers = rng.standard_normal(200) * 10.0 ** rng.integers(-300, 149, 200)
    for decimal in (None, "."):
        for form in ("{!r}", "{:.17g}", "{:.3f}", "{:+.5E}", " {!r} "):
            texts = [form.format(number) for number in numbers.tolist() if abs(number) < 1e14 or "f" not in form]
            assert parse(*texts, decimal=decimal) == list(map(float, texts)), (decimal, form)


@hypothesis.given(
    st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=8),
    st.integers(0, 3),
    st.sampled_from((".", ",")),
    st.sampled_from(("", ".", ",", "'", "\u2019", " ", "\u00a0", "\u2009", "\u202f")),
    st.sampled_from(("{}", "${}", "{} €", "{}%")),
    st.sampled_from((None, ".", ",")),
    st.booleans(),
)
def test_numbers_in_every_style(units, places, decimal, thousands, around, given, points_may_group):
    """What is read is what was written; what is not read is refused, and never with the right decimal sign given."""
    hypothesis.assume(thousands != decimal)
    numbers = [unit / 10**places for unit in units]
    swap = str.maketrans({",": thousands, ".": decimal})
    texts = [around.format(f"{number:,.{places}f}".translate(swap)) for number in numbers]
    try:
        read_as = parse(*texts, decimal=given, points_may_group=points_may_group)
    except CellError:
        assert given != decimal, texts
        return
    if given in (None, decimal) and (given or points_may_group or "." not in (decimal, thousands)):
        assert read_as == numbers, texts
