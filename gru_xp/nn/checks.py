"""Refuse arguments that do not fit, before arithmetic broadcasts them into a wrong result."""

import math
import random
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from array_api_compat import array_namespace, device, is_array_api_obj, is_lazy_array

from gru_xp.errors import ArgumentError, GruXpError, MixedDevicesError, ShapeError, printable
from gru_xp.nn.scan import Array, Namespace, on_its_device

Dims = Sequence[int | str]
"""Expected sizes: a number where the size is known, the dimension's letter where any size will do."""


MAX_SHOWN = 100
"""Characters of a refused value in a message."""


def check_array(name: str, value: Array, dims: Dims, *, like: tuple[str, Array] | None = None, why: str = "") -> None:
    """Raise ShapeError unless `value` is a floating-point array of shape `dims` that goes with the array `like`.

    Parameters
    ----------
    name
        What the caller calls the argument.
    value
        The argument.
    dims
        Its shape; sizes of 0 never fit.
    like
        Name and value of an array with whose namespace, device and dtype it must agree.
    why
        Where its shape comes from, for the message.

    Raises
    ------
    ShapeError
        Names the argument, what it is and what it must be; a MixedDevicesError if it is on another device than `like`.
    """
    expected = f"({', '.join(map(str, dims))}{',' if len(dims) == 1 else ''})"
    if not is_array_api_obj(value):
        raise ShapeError(f"{name} is a {type(value).__name__}; it must be an array of shape {expected}")
    shape = tuple(value.shape)
    fits = len(shape) == len(dims) and all(
        size == dim if isinstance(dim, int) else size > 0 for size, dim in zip(shape, dims, strict=True)
    )
    if not fits:
        raise ShapeError(f"{name} has shape {shape}; it must be {expected}{_positive(shape, dims)}{why}")
    xp = array_namespace(value)
    if value.dtype not in (xp.float32, xp.float64):
        raise ShapeError(f"{name} has dtype {value.dtype}; it must be float32 or float64")
    if like is not None:
        check_beside(name, value, *like)
        _check_same(name, "dtype", value.dtype, like[0], like[1].dtype)


def check_optional(name: str, value: Array | None, dims: Dims, *, like: tuple[str, Array]) -> None:
    """`check_array`, but for None."""
    if value is not None:
        check_array(name, value, dims, like=like)


def _positive(shape: tuple[int, ...], dims: Dims) -> str:
    return " with every size at least 1" if len(shape) == len(dims) and 0 in shape else ""


def check_beside(name: str, value: Array, other_name: str, other: Array) -> None:
    """Raise ShapeError unless `value` has the namespace of `other`, and MixedDevicesError unless it has its device."""
    _check_same(name, "namespace", namespace_name(value), other_name, namespace_name(other))
    devices = device(value), device(other)
    if None not in devices and devices[0] != devices[1]:  # as long as a function is traced, its arrays are on none
        raise MixedDevicesError(
            f"{name} is on {device_name(value)}; it must be on {device_name(other)}, as {other_name} is; copy one of "
            "them to the other device"
        )


_DEVICES = {1: "cpu", 2: "cuda", 10: "rocm", 13: "cuda"}
"""What to call kinds of devices, by the numbers that DLPack has for them."""


def device_name(array: Array) -> str:
    """The device of an array as people write it, such as ``"cuda:1"``."""
    text = str(device(array))
    if not text.startswith("<"):
        return text
    kind, number = array.__dlpack_device__()
    return f"{_DEVICES.get(kind, f'device kind {int(kind)}')}:{number}"


def _check_same(name: str, what: str, got: object, other_name: str, expected: object) -> None:
    if got != expected:
        raise ShapeError(f"{name} has {what} {got}; it must be that of {other_name}, {expected}")


def namespace_name(a: Array) -> str:
    """The namespace of an array, such as ``"numpy"``."""
    return str(array_namespace(a).__name__).removeprefix("array_api_compat.")


def check_rows(name: str, value: Array, rows: str, columns: str) -> None:
    """Raise ShapeError unless `value` is a floating-point array ``(rows, columns)``, or ``(B, T, columns)``."""
    axes = len(getattr(value, "shape", ()))
    if axes == 3:
        check_array(name, value, ("B", "T", columns))
    else:
        check_array(name, value, (rows, columns), why="" if axes == 2 else f" or (B, T, {columns})")


def check_lengths(lengths: Array | Sequence[int], x: Array) -> Array:
    """How many steps of each sequence of `x` ``(B, T, I)`` count, ``(B,)``, on the device of `x`.

    Raises
    ------
    ShapeError
        They are no integers, too many or too few, or one is below 0 or above T.
    """
    return _lengths_beside(x, lengths)


@on_its_device
def _lengths_beside(x: Array, given: Array | Sequence[int]) -> Array:
    B, T, _ = x.shape
    xp, lengths = array_namespace(x), given
    try:
        try:
            lengths = xp.asarray(given, device=device(x))
        except (TypeError, RuntimeError):  # of libraries that do not copy such arrays from one device to another
            lengths = xp.asarray(_as_list(given), device=device(x))
        is_whole = xp.isdtype(lengths.dtype, "integral")
    except (TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        raise ShapeError(f"lengths is a {type(lengths).__name__}; it must be integers of shape ({B},)") from error
    if not is_whole or tuple(lengths.shape) != (B,):
        raise ShapeError(
            f"lengths has dtype {lengths.dtype} and shape {tuple(lengths.shape)}; it must be integers of shape ({B},)"
        )
    lengths = xp.astype(lengths, xp.arange(1).dtype)  # a smaller type may not hold T
    if is_lazy_array(lengths) and not is_lazy_array(given):  # its numbers are there, others may not be
        numbers = given.tolist() if hasattr(given, "tolist") else list(given)
        low, high = min(numbers), max(numbers)
        fits = 0 <= low <= high <= T
    elif not (fits := may_hold(xp.all((lengths >= 0) & (lengths <= T)))):
        low, high = int(xp.min(lengths)), int(xp.max(lengths))
    if not fits:
        raise ShapeError(f"lengths has values from {low} to {high}; each must be 0 to {T}, as x has {T} steps")
    return lengths


@on_its_device
def _as_list(a: Array) -> Any:
    return a.tolist()


def may_hold(condition: Array) -> bool:
    """Whether a condition holds, as far as that is known: arrays of a traced function have no numbers yet."""
    if hasattr(condition, "compute"):  # nobody has asked for its numbers
        return True
    try:
        return bool(condition)
    except TypeError:
        return True


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ArgumentError unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ArgumentError(f"{name} is {shown(value)}; it must be one of {', '.join(map(repr, choices))}")


def check_kind(name: str, value: object, kind: type, what: str, *, error: type[GruXpError] = ShapeError) -> None:
    """Raise `error` unless `value` is a `kind`, which is `what`."""
    if not isinstance(value, kind):
        raise error(f"{name} is a {type(value).__name__}; it must be {what}")


def check_function(name: str, value: object, *, optional: bool = False) -> None:
    """Raise ArgumentError unless `value` can be called, or is None and may be left out."""
    if not callable(value) and not (optional and value is None):
        or_none = " or None" if optional else ""
        raise ArgumentError(f"{name} is a {type(value).__name__}; it must be a function{or_none}")


def check_flag(name: str, value: object) -> bool:
    """`value` as a bool; raise ArgumentError unless it is True or False, of Python or NumPy."""
    if value is True or value is False:
        return value
    if type(value).__name__ not in ("bool", "bool_"):
        raise ArgumentError(f"{name} is {shown(value)}; it must be True or False")
    return bool(value)


def check_namespace(xp: Namespace) -> None:
    """Raise ArgumentError unless `xp` is a namespace of arrays."""
    if not all(hasattr(xp, name) for name in ("asarray", "reshape", "float32", "float64")):
        raise ArgumentError(f"xp is {shown(xp)}; it must be an array namespace, such as the module numpy or cupy")


def shown(value: object) -> str:
    """A refused value for a message, shortened and on one line; Python prints no integers of thousands of digits."""
    try:
        return printable(" ".join(line.strip() for line in repr(value).splitlines()), MAX_SHOWN)
    except ValueError:
        return f"a number of type {type(value).__name__} with thousands of digits"


def whole_number(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """`value` as an int; raise ArgumentError unless it is a whole number of at least `minimum`, up to `maximum`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < minimum:
        raise ArgumentError(f"{name} is {shown(value)}; it must be a whole number of at least {minimum}")
    number = int(value)
    if maximum is not None and number > maximum:
        raise ArgumentError(f"{name} is {shown(number)}; it must be at most {maximum}")
    return number


def generator(seed: object) -> random.Random:
    """The generator itself, or one made from a seed; ArgumentError unless the seed is a whole number of at least 0."""
    return seed if isinstance(seed, random.Random) else random.Random(whole_number("seed", seed, 0))


def _real(value: object) -> float:
    """A real number as a float; NaN for one too large for a float, and for anything else."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def positive_number(name: str, value: object) -> float:
    """`value` as a float; raise ArgumentError unless it is a number above 0 and finite."""
    number = _real(value)
    if not 0 < number < math.inf:
        raise ArgumentError(f"{name} is {shown(value)}; it must be above 0 and finite")
    return number


def share(name: str, value: object) -> float:
    """`value` as a float; raise ArgumentError unless it is a number from 0 to 1."""
    number = _real(value)
    if not 0 <= number <= 1:
        raise ArgumentError(f"{name} is {shown(value)}; it must be from 0 to 1")
    return number


def rate(name: str, value: object) -> float:
    """`value` as a float; raise ArgumentError unless it is a number of at least 0 and below 1."""
    number = _real(value)
    if not 0 <= number < 1:
        raise ArgumentError(f"{name} is {shown(value)}; it must be at least 0 and below 1")
    return number
