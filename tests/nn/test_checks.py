import math
from fractions import Fraction

import numpy as np
import pytest
from array_api_compat import array_namespace, device

from gru_xp.devices import to_host
from gru_xp.errors import GruXpError, ShapeError
from gru_xp.nn.checks import check_array, check_choice, check_lengths, positive_number, rate


def message_of(*args, **kwargs):
    with pytest.raises(ShapeError) as error:
        check_array(*args, **kwargs)
    return str(error.value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_fits_passes(xp, draw, dtype):
    array = draw(xp, (2, 3), dtype)
    check_array("a", array, (2, 3))
    check_array("a", array, ("B", 3), like=("b", draw(xp, (5,), dtype)))
    check_array("a", draw(xp, (), dtype), ())


@pytest.mark.parametrize("shape", [(3, 2), (2,), (2, 3, 1), (1, 3), ()])
def test_shape(xp, shape):
    assert message_of("a", xp.ones(shape), (2, 3)) == f"a has shape {shape}; it must be (2, 3)"


def test_expected_shape_of_one_dimension_is_written_as_a_tuple(xp):
    assert message_of("a", xp.ones((2, 3)), (6,)) == "a has shape (2, 3); it must be (6,)"


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_empty_arrays(xp, shape):
    expected = f"a has shape {shape}; it must be (B, I) with every size at least 1"
    assert message_of("a", xp.ones(shape), ("B", "I")) == expected


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool", "complex128"])
def test_dtype(xp, dtype):
    array = xp.ones((2,), dtype=getattr(xp, dtype))
    assert message_of("a", array, (2,)) == f"a has dtype {array.dtype}; it must be float32 or float64"


def test_half_precision():
    assert message_of("a", np.ones(2, np.float16), (2,)) == "a has dtype float16; it must be float32 or float64"


def test_dtype_of_the_other_array(xp):
    single, double = xp.ones((2,), dtype=xp.float32), xp.ones((2,), dtype=xp.float64)
    expected = f"a has dtype {single.dtype}; it must be that of b, {double.dtype}"
    assert message_of("a", single, (2,), like=("b", double)) == expected


def test_namespace_of_the_other_array():
    strict = pytest.importorskip("array_api_strict")
    a, b = np.ones(2), strict.ones(2)
    assert message_of("a", a, (2,), like=("b", b)) == "a has namespace numpy; it must be that of b, array_api_strict"
    assert message_of("b", b, (2,), like=("a", a)) == "b has namespace array_api_strict; it must be that of a, numpy"


def test_namespace_of_a_tensor():
    torch = pytest.importorskip("torch")
    a, b = np.ones(2), torch.ones(2, dtype=torch.float64)
    assert message_of("a", a, (2,), like=("b", b)) == "a has namespace numpy; it must be that of b, torch"


def test_device_of_the_other_array():
    strict = pytest.importorskip("array_api_strict")
    a, b = strict.ones(2), strict.ones(2, device=strict.Device("device1"))
    message = message_of("a", a, (2,), like=("b", b))
    assert message.startswith("a has device ")
    assert "it must be that of b, " in message
    assert "device1" in message


@pytest.mark.parametrize(("value", "kind"), [([1.0, 2.0], "list"), (1.0, "float"), (None, "NoneType"), ("ab", "str")])
def test_what_is_no_array(value, kind):
    assert message_of("a", value, (2,)) == f"a is a {kind}; it must be an array of shape (2,)"


def test_the_error_is_a_value_error_and_ours():
    assert issubclass(ShapeError, GruXpError)
    assert issubclass(ShapeError, ValueError)


def test_choice():
    check_choice("reset", "after", ("before", "after"))
    with pytest.raises(ValueError, match="reset is 'never'; it must be one of 'before', 'after'"):
        check_choice("reset", "never", ("before", "after"))


# --- lengths ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lengths",
    [
        [4, 0, 2],
        (4, 0, 2),
        range(3),
        [np.int64(4), np.int8(0), np.int32(2)],
        *(np.asarray([4, 0, 2], dtype) for dtype in ("int8", "uint8", "int32", "int64", "uint64")),
        np.asarray([4, 9, 0, 9, 2, 9])[::2],
    ],
    ids=str,
)
def test_lengths_of_any_kind(xp, lengths):
    x = xp.ones((3, 4, 2), dtype=xp.float32)
    checked = check_lengths(lengths, x)
    assert array_namespace(checked) is array_namespace(x)
    assert device(checked) == device(x)
    assert xp.isdtype(checked.dtype, "integral")
    assert to_host(checked).tolist() == list(map(int, lengths))


@pytest.mark.parametrize("library", ["array_api_strict", "torch"])
def test_lengths_of_another_namespace(xp, library):
    lengths = pytest.importorskip(library).asarray([4, 0, 2])
    x = xp.ones((3, 4, 2))
    checked = check_lengths(lengths, x)
    assert array_namespace(checked) is array_namespace(x)
    assert to_host(checked).tolist() == [4, 0, 2]


def test_lengths_go_to_the_device_of_the_sequences():
    strict = pytest.importorskip("array_api_strict")
    x = strict.ones((3, 4, 2), device=strict.Device("device1"))
    for lengths in ([4, 0, 2], strict.asarray([4, 0, 2])):
        assert check_lengths(lengths, x).device == x.device


@pytest.mark.parametrize(
    ("lengths", "dtype", "shape"),
    [
        ([4, 2], "int64", "(2,)"),
        ([[4, 0, 2]], "int64", "(1, 3)"),
        (3, "int64", "()"),
        ([], "float64", "(0,)"),
        ([4.0, 0.0, 2.0], "float64", "(3,)"),
        ([True, False, True], "bool", "(3,)"),
        (np.ones(3, np.float32), "float32", "(3,)"),
        (np.ones((3, 1), np.int32), "int", "(3, 1)"),
    ],
)
def test_lengths_of_another_shape_or_dtype(xp, lengths, dtype, shape):
    with pytest.raises(ShapeError) as error:
        check_lengths(lengths, xp.ones((3, 4, 2), dtype=xp.float64))
    start, _, end = str(error.value).partition(" and ")
    assert start.startswith("lengths has dtype ")
    assert dtype.rstrip("3264") in start
    assert end == f"shape {shape}; it must be integers of shape (3,)"


@pytest.mark.parametrize(
    "lengths", ["abc", [None, 1, 2], [[1], [1, 2], 3], {"a": 1}, {1, 2, 3}, object(), [2**70, 1, 2]]
)
def test_lengths_that_are_no_numbers(xp, lengths):
    with pytest.raises(ShapeError, match=r"^lengths (is a|has dtype) .*; it must be integers of shape \(3,\)$"):
        check_lengths(lengths, xp.ones((3, 4, 2)))


def test_ragged_lengths(xp):
    with pytest.raises(ShapeError, match=r"^lengths is a list; it must be integers of shape \(3,\)$"):
        check_lengths([[1], [1, 2], 3], xp.ones((3, 4, 2)))


@pytest.mark.parametrize(
    ("lengths", "said"),
    [([4, 0, 5], "0 to 5"), ([-1, 2, 4], "-1 to 4"), (np.asarray([-128, 3, 127], np.int8), "-128 to 127")],
)
def test_lengths_out_of_range(xp, lengths, said):
    with pytest.raises(ShapeError) as error:
        check_lengths(lengths, xp.ones((3, 4, 2)))
    assert str(error.value).startswith(f"lengths has values from {said}; ")
    assert "4" in str(error.value).partition(";")[2]


def test_lengths_beyond_their_own_integers():
    """T does not fit into the lengths' own dtype."""
    x = np.ones((2, 300, 1))
    assert check_lengths(np.asarray([3, 127], np.int8), x).tolist() == [3, 127]
    with pytest.raises(ShapeError, match=r"^lengths has values from "):
        check_lengths(np.asarray([3, 2**64 - 1], np.uint64), x)


# --- numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 0.0, 0.25, 1.0 - 2.0**-53, np.float32(0.25), np.float64(0.1), Fraction(1, 3)])
def test_rates(value):
    result = rate("dropout", value)
    assert type(result) is float
    assert result == float(value)


@pytest.mark.parametrize(
    "value", [1, 1.0, 1.5, -0.1, -1e-300, math.nan, math.inf, True, False, "0.5", None, [0.5], 0.5j]
)
def test_rates_out_of_range(value):
    with pytest.raises(ValueError, match=r"^zoneout is .*; it must be at least 0 and below 1$") as error:
        rate("zoneout", value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("value", [1, 5e-324, 0.25, 1e308, np.float32(0.25), np.int64(3), Fraction(1, 3)])
def test_positive_numbers(value):
    result = positive_number("step", value)
    assert type(result) is float
    assert result == float(value)


@pytest.mark.parametrize("value", [0, 0.0, -1, -1e-300, math.nan, math.inf, True, False, "0.5", None, [0.5], 0.5j])
def test_numbers_that_are_not_positive(value):
    with pytest.raises(ValueError, match=r"^step is .*; it must be above 0 and finite$") as error:
        positive_number("step", value)
    assert repr(value) in str(error.value)
