import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from array_api_compat import array_namespace, device

from gru_xp.devices import to_host
from gru_xp.errors import ArgumentError, DeviceError, GruXpError, MixedDevicesError, ShapeError
from gru_xp.nn.checks import (
    MAX_SHOWN,
    check_array,
    check_choice,
    check_flag,
    check_function,
    check_lengths,
    check_rows,
    positive_number,
    rate,
    share,
    shown,
    whole_number,
)


def test_what_fits_passes(xp, draw):
    for dtype in ("float32", "float64"):
        array = draw(xp, (2, 3), dtype)
        check_array("a", array, (2, 3))
        check_array("a", array, ("B", 3), like=("b", draw(xp, (5,), dtype)))
        check_array("a", draw(xp, (), dtype), ())


def test_shapes(xp, refuses):
    for shape in ((3, 2), (2,), (2, 3, 1), (1, 3), ()):
        with refuses("a", "shape", str(shape), "(2, 3)"):
            check_array("a", xp.ones(shape), (2, 3))
    with refuses("a", "shape", "(2, 3)", "(6,)"):
        check_array("a", xp.ones((2, 3)), (6,))
    for shape in ((0, 3), (2, 0)):
        with refuses("a", "shape", str(shape), "(B, I)", "every size", "at least 1"):
            check_array("a", xp.ones(shape), ("B", "I"))


def test_dtypes(xp, refuses):
    for dtype in ("int32", "int64", "bool", "complex128"):
        array = xp.ones((2,), dtype=getattr(xp, dtype))
        with refuses("a", "dtype", str(array.dtype), "float32 or float64"):
            check_array("a", array, (2,))
    single, double = xp.ones((2,), dtype=xp.float32), xp.ones((2,), dtype=xp.float64)
    with refuses("a", "dtype", str(single.dtype), f"b, {double.dtype}"):
        check_array("a", single, (2,), like=("b", double))


def test_half_precision(refuses):
    with refuses("a", "dtype", "float16", "float32 or float64"):
        check_array("a", np.ones(2, np.float16), (2,))


@pytest.mark.parametrize("library", ["array_api_strict", pytest.param("torch", marks=pytest.mark.peer)])
def test_namespace_of_the_other_array(library, refuses):
    other = pytest.importorskip(library)
    a, b = np.ones(2), other.ones(2, dtype=other.float64)
    with refuses("a", "namespace", "numpy", f"b, {library}"):
        check_array("a", a, (2,), like=("b", b))
    with refuses("b", "namespace", library, "a, numpy"):
        check_array("b", b, (2,), like=("a", a))


def test_device_of_the_other_array(refuses):
    strict = pytest.importorskip("array_api_strict")
    a, b = strict.ones(2), strict.ones(2, device=strict.Device("device1"))
    with refuses("a", "CPU_DEVICE", "'device1')", "b", "other device", error=DeviceError):
        check_array("a", a, (2,), like=("b", b))


def test_what_is_no_array(refuses):
    for value, kind in (([1.0, 2.0], "list"), (1.0, "float"), (None, "NoneType"), ("ab", "str")):
        with refuses("a", kind, "array", "(2,)"):
            check_array("a", value, (2,))


def test_the_error_is_a_value_error_and_ours():
    assert issubclass(MixedDevicesError, ShapeError)
    assert issubclass(MixedDevicesError, DeviceError)
    assert issubclass(ShapeError, GruXpError)
    assert issubclass(ShapeError, ValueError)


def test_choice(refuses):
    check_choice("reset", "after", ("before", "after"))
    with refuses("reset", "'never'", "'before', 'after'", error=ValueError):
        check_choice("reset", "never", ("before", "after"))


def test_refused_values_are_short_and_on_one_line(refuses):
    for value, *parts in (
        (np.zeros((2, 2)), "array([[0., 0.], [0., 0.]])"),
        (np.zeros((99, 99)), "..."),
        ("x" * 5000, "xxx..."),
        (10**400, "000..."),
        (10**9999, "a number of type int with thousands of digits"),
        ("one\ntwo\x1b[0m", r"'one\ntwo\x1b[0m'"),
    ):
        assert len(shown(value)) <= MAX_SHOWN
        assert shown(value).isprintable()
        for part in parts:
            assert part in shown(value)
        with refuses("dtype", shown(value), "'float32'", error=ValueError):
            check_choice("dtype", value, ("float32",))


def test_functions_and_flags(refuses):
    check_function("callback", None, optional=True)
    for value, kind in ((3, "int"), ("x", "str"), (np.ones(2), "ndarray")):
        for optional in (False, True):
            with refuses("callback", kind, "a function or None" if optional else "a function", error=ArgumentError):
                check_function("callback", value, optional=optional)
    with refuses("callback", "NoneType", "a function", error=ArgumentError):
        check_function("callback", None)
    assert [check_flag("reverse", value) for value in (True, False, np.True_)] == [True, False, True]
    for value in (1, 0, None, "yes", np.ones(2, bool), np.asarray(True), pd.NA):
        with refuses("reverse", shown(value), "True or False", error=ArgumentError):
            check_flag("reverse", value)


# --- lengths ----------------------------------------------------------------------------------------------------


def test_lengths_of_any_kind(xp):
    for lengths in (
        [4, 0, 2],
        (4, 0, 2),
        range(3),
        [np.int64(4), np.int8(0), np.int32(2)],
        *(np.asarray([4, 0, 2], dtype) for dtype in ("int8", "uint8", "int32", "int64", "uint64")),
        np.asarray([4, 9, 0, 9, 2, 9])[::2],
    ):
        x = xp.ones((3, 4, 2), dtype=xp.float32)
        checked = check_lengths(lengths, x)
        assert array_namespace(checked) is array_namespace(x)
        assert device(checked) == device(x)
        assert xp.isdtype(checked.dtype, "integral"), lengths
        assert to_host(checked).tolist() == list(map(int, lengths))


@pytest.mark.parametrize("library", ["array_api_strict", pytest.param("torch", marks=pytest.mark.peer)])
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


def test_lengths_of_another_shape_or_dtype(xp, refuses):
    x = xp.ones((3, 4, 2), dtype=xp.float64)
    for lengths, shape in (
        ([4, 2], "(2,)"),
        ([[4, 0, 2]], "(1, 3)"),
        (3, "()"),
        ([], "(0,)"),
        ([4.0, 0.0, 2.0], "(3,)"),
        ([True, False, True], "(3,)"),
        (np.ones(3, np.float32), "(3,)"),
        (np.ones((3, 1), np.int32), "(3, 1)"),
    ):
        dtype = str(xp.asarray(lengths).dtype)
        with refuses("lengths", "dtype", dtype, "shape", shape, "integers", "(3,)"):
            check_lengths(lengths, x)


def test_lengths_that_are_no_numbers(xp, refuses):
    for lengths in ("abc", [None, 1, 2], {"a": 1}, {1, 2, 3}, object(), [2**70, 1, 2]):
        with refuses("lengths", "integers", "(3,)"):
            check_lengths(lengths, xp.ones((3, 4, 2)))
    with refuses("lengths", "list", "integers", "(3,)"):
        check_lengths([[1], [1, 2], 3], xp.ones((3, 4, 2)))


def test_lengths_out_of_range(xp, refuses):
    for lengths, *values in (
        ([4, 0, 5], "0", "5"),
        ([-1, 2, 4], "-1", "4"),
        (np.asarray([-128, 3, 127], np.int8), "-128", "127"),
    ):
        with refuses("lengths", *values, "0", "4", "x", "4 steps"):
            check_lengths(lengths, xp.ones((3, 4, 2)))


def test_lengths_beyond_their_own_integers(refuses):
    """T does not fit into the lengths' own dtype."""
    x = np.ones((2, 300, 1))
    assert check_lengths(np.asarray([3, 127], np.int8), x).tolist() == [3, 127]
    with refuses("lengths", "300", "300 steps"):
        check_lengths(np.asarray([3, 2**64 - 1], np.uint64), x)


@pytest.mark.peer
def test_lengths_of_traced_functions(jax, refuses):
    """Numbers that are there are looked at, those of the function's arguments are not."""
    x = jax.numpy.ones((3, 4, 2))

    def traced(lengths, x):
        return check_lengths(lengths, x)

    assert jax.jit(traced)(jax.numpy.asarray([4, 9, -2]), x).tolist() == [4, 9, -2]
    for lengths in ([4, 9, -2], np.asarray([4, 9, -2]), jax.numpy.asarray([4, 9, -2])):
        with refuses("lengths", "-2", "9", "4 steps"):
            check_lengths(lengths, x)
    with refuses("lengths", "-2", "9", "4 steps"):
        jax.jit(lambda x: check_lengths([4, 9, -2], x))(x)
    for bad in ([4.0, 0.0, 2.0], [4, 2]):
        with refuses("lengths", "integers", "(3,)"):
            jax.jit(traced)(jax.numpy.asarray(bad), x)


@pytest.mark.peer
def test_arrays_of_traced_functions(jax, refuses):
    """They are on no device, beside those that are on one."""
    known = jax.numpy.ones((3, 2))

    def traced(a):
        check_array("a", a, (3, 2), like=("b", known))
        check_array("b", known, ("B", 2), like=("a", a))
        return a

    assert jax.jit(jax.grad(lambda a: traced(a).sum()))(known).tolist() == known.tolist()
    with refuses("a", "shape", "(3, 3)", "(3, 2)"):
        jax.jit(traced)(jax.numpy.ones((3, 3)))
    with refuses("a", "dtype", "float32", "b, float64"):
        jax.jit(traced)(known.astype("float32"))


@pytest.mark.peer
def test_lengths_of_lazy_arrays(refuses):
    dask = pytest.importorskip("dask")
    from dask.array import from_array

    def refuse(*arguments, **options):
        pytest.fail("something is computed")

    x = from_array(np.ones((3, 4, 2)), chunks=2)
    with dask.config.set(scheduler=refuse):
        check_array("x", x, ("B", "T", 2))
        for lengths in ([4, 0, 2], from_array(np.asarray([4, 9, -2]), chunks=2)):
            assert isinstance(check_lengths(lengths, x), type(x))
        for lengths in ([4, 9, -2], np.asarray([4, 9, -2])):
            with refuses("lengths", "-2", "9", "4 steps"):
                check_lengths(lengths, x)


# --- rows -------------------------------------------------------------------------------------------------------


def test_rows(refuses):
    for shape in ((4, 2), (4, 5, 2)):
        check_rows("a", np.ones(shape), "N", "I")
    for bad, *parts in (
        (np.ones(4), "(4,)", "(N, I) or (B, T, I)"),
        (np.ones((1, 2, 3, 4)), "(1, 2, 3, 4)", "(N, I) or (B, T, I)"),
        (np.ones((0, 4)), "(0, 4)", "(N, I)", "at least 1"),
        (np.ones((2, 0, 4)), "(2, 0, 4)", "(B, T, I)", "at least 1"),
        ([[1.0, 2.0]], "list", "(N, I)"),
    ):
        with refuses("a", *parts):
            check_rows("a", bad, "N", "I")


# --- numbers ----------------------------------------------------------------------------------------------------

NO_NUMBERS = (math.nan, math.inf, -math.inf, True, False, "0.5", None, [0.5], 0.5j)


@pytest.mark.parametrize(
    ("check", "right", "wrong", "allowed"),
    [
        (
            rate,
            (0, 0.0, 0.25, 1.0 - 2.0**-53, np.float32(0.25), np.float64(0.1), Fraction(1, 3)),
            (1, 1.0, 1.5, -0.1, -1e-300, 10**400),
            ("at least 0", "below 1"),
        ),
        (
            positive_number,
            (1, 5e-324, 0.25, 1e308, np.float32(0.25), np.int64(3), Fraction(1, 3)),
            (0, 0.0, -1, -1e-300, 10**400, -(10**400)),
            ("above 0", "finite"),
        ),
        (
            share,
            (0, 0.0, 0.25, 1, 1.0, np.float32(0.25), Fraction(1, 3)),
            (1.0 + 2.0**-52, 2, -0.1, -1e-300, 10**400),
            ("0 to 1",),
        ),
    ],
    ids=["rate", "positive number", "share"],
)
def test_numbers(check, right, wrong, allowed, refuses):
    for value in right:
        result = check("zoneout", value)
        assert type(result) is float
        assert result == float(value)
    for value in (*wrong, *NO_NUMBERS):
        with refuses("zoneout", shown(value), *allowed, error=ValueError):
            check("zoneout", value)


# --- whole numbers ----------------------------------------------------------------------------------------------


def test_whole_numbers_have_limits(refuses):
    assert [whole_number("steps", value, 1, 9) for value in (1, np.int64(9))] == [1, 9]
    assert whole_number("steps", 10**9, 1) == 10**9
    with refuses("steps", "10", "at most 9", error=ValueError):
        whole_number("steps", 10, 1, 9)
    for value in (0, -1, 2.0, True, "3", None):
        with refuses("steps", repr(value), "whole number", "at least 1", error=ValueError):
            whole_number("steps", value, 1, 9)
