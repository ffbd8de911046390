import numpy as np
import pytest

from gru_xp.errors import GruXpError, ShapeError
from gru_xp.nn.checks import check_array, check_choice


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
