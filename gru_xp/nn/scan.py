"""How steps are run: the protocol, and the plain way to do it, for every namespace.

A step is a pure function of arrays: it writes nothing and returns everything. A device may write down once what it
computes, and play that back faster; therefore a step is a function at the level of a module, made of

- products ``a @ w.T`` and ``a @ w``, operators with arrays and Python numbers, ``xp.tanh``, ``exp``, ``sqrt``,
  ``maximum``, and ``xp.where`` of a comparison;
- columns ``a[..., i:j]``, ``xp.concat`` along the last axis, and ``xp.ones_like(x[:, :1])``;
- of weights, ``.T``, any slice, ``w[:, None]``, and ``xp.concat`` along any axis.

It serves for any number of sequences, with which it computes nothing.
"""

import os
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache, partial, wraps
from importlib import import_module
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from array_api_compat import array_namespace

from gru_xp import PLAIN_SCANS, SCANS
from gru_xp.errors import ArgumentError, ShapeError

F = TypeVar("F", bound=Callable[..., Any])

Array: TypeAlias = Any
"""An array of any Array API namespace."""

Namespace: TypeAlias = Any
"""A module that follows the Array API standard."""

Arrays: TypeAlias = tuple[Any, ...]
"""Arrays, or None for one that a variant does without."""

Pairs: TypeAlias = tuple[tuple[Array, Array], ...]
"""Matrices a ``(B, P)`` and b ``(B, Q)``, of which ``aᵀ b``, summed over all steps, is wanted."""

Step: TypeAlias = Callable[[Namespace, Any, Any, Arrays, Arrays], tuple[Any, Arrays, Pairs]]
"""``step(xp, weights, carry, xs_t, rows) -> carry, ys_t, pairs``."""


class Scan(Protocol):
    """How a device runs pure functions of arrays, over time or once."""

    def scan(
        self, step: Step, weights: Any, carry: Any, xs: Arrays, *, rows: Arrays = (), reverse: bool = False
    ) -> tuple[Any, Arrays, Arrays]:
        """Run ``carry, ys, pairs = step(xp, weights, carry, xs_t, rows)`` for each t, from the last if `reverse`.

        Parameters
        ----------
        step
            See the module.
        weights
            Inputs that all steps share: (nested, named) tuples of arrays, numbers and None.
        carry : array, shape ``(B, K)``, or None
            The state before the step that is run first.
        xs : tuple of arrays, shape ``(T, B, K_i)``, or None
            Inputs, of which step t gets part t. They may be `ys` of a scan by the same device.
        rows : tuple of arrays, shape ``(B, K_i)``, or None
            Inputs of all steps, with a row for each sequence.

        Returns
        -------
        carry
            The state after the step that is run last.
        ys : tuple of arrays, shape ``(T, B, K_i)``
            The results of the steps, in the order of time. A device may keep them in a form of its own, of which
            ``a[i:j, ...]`` takes some steps, and whose method `joined` makes an array of it, as `call` does.
        sums : tuple of arrays, shape ``(P, Q)``
            For each pair (a, b), the sum of ``aᵀ b`` over the steps.
        """

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run ``function(xp, *arguments)``, a function like a step, and return its (nested, named) tuple of arrays.

        Arguments are arrays, numbers, None and, for weights, (nested, named) tuples of them.
        """


class PlainScan:
    """:class:`Scan` as a loop, for every namespace of the Array API standard. Automatic differentiation works."""

    def __init__(self, xp: Namespace) -> None:
        self.xp = xp

    def scan(
        self, step: Step, weights: Any, carry: Any, xs: Arrays, *, rows: Arrays = (), reverse: bool = False
    ) -> tuple[Any, Arrays, Arrays]:
        T = next(x.shape[0] for x in xs if x is not None)
        results = []
        for t in range(T)[::-1] if reverse else range(T):
            xs_t = tuple(None if x is None else x[t, ...] for x in xs)
            carry, *result = step(self.xp, weights, carry, xs_t, rows)
            results.append(result)
        ys, pairs = zip(*(results[::-1] if reverse else results), strict=True)
        stacked = tuple(self.xp.stack(y) for y in zip(*ys, strict=True))
        sums = tuple(self.contract(*map(self.xp.stack, zip(*pair, strict=True))) for pair in zip(*pairs, strict=True))
        return carry, stacked, sums

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self.xp, *arguments)

    def contract(self, a: Array, b: Array) -> Array:
        """The sum of ``aᵀ b`` over all axes but the last: ``(..., P)`` and ``(..., Q)`` to ``(P, Q)``."""
        a, b = (self.xp.reshape(m, (-1, m.shape[-1])) for m in (a, b))
        return a.T @ b


def scan_of(like: Array, ops: Scan | None = None, *, new: bool = False) -> Scan:
    """Return the given ops, or else the fastest ones for arrays such as `like`.

    The latter belong to the calling thread; with `new`, to the caller alone.

    Raises
    ------
    ArgumentError
        `ops` is no `Scan`.
    ShapeError
        The namespace of the array cannot do what a step does.
    """
    if ops is not None and not hasattr(type(ops), "scan"):
        raise ArgumentError(f"ops is a {type(ops).__name__}; it must be a Scan, such as PlainScan(xp), or None")
    xp = array_namespace(like)
    name = xp.__name__.removeprefix("array_api_compat.")
    if ops is None:
        ops = plain_scan(name) if plain_wanted() else device_scan(name, new=new)
    if ops is not None:
        return ops
    if not _can_scan(xp):
        raise ShapeError(
            f"the arrays have namespace {name}, which cannot run the steps of a GRU; convert them to NumPy, CuPy, "
            "PyTorch, JAX or dask arrays first"
        )
    return PlainScan(xp)


_thread = threading.local()


def device_scan(namespace_name: str, *, new: bool = False) -> Scan | None:
    """Return the scan that a device has for arrays of a namespace, such as ``"numpy"``; None if no device has one.

    It belongs to the calling thread; with `new`, to the caller alone.
    """
    if namespace_name not in SCANS:
        return None
    scan: Scan | None = None if new else vars(_thread).get(namespace_name)
    if scan is None:
        scan = import_module(SCANS[namespace_name]).new_ops()
        if not new:
            vars(_thread).update({namespace_name: scan})
    return scan


def plain_scan(namespace_name: str) -> Scan | None:
    """Return the plain scan that a device has for arrays of a namespace; None if `PlainScan` will do."""
    return import_module(PLAIN_SCANS[namespace_name]).plain_ops() if namespace_name in PLAIN_SCANS else None


def on_its_device(function: F) -> F:
    """Let a function run on the device of its first array, where a library has a current device to compute on."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        device = _device_to_enter((*args, *kwargs.values()))
        if device is None:
            return function(*args, **kwargs)
        with device:
            return function(*args, **kwargs)

    return cast(F, run)


def _device_to_enter(values: Iterable[Any]) -> Any:
    """The device of the first array in (nested) values that is on one which can be entered; None if there is none."""
    for value in values:
        if isinstance(value, tuple | list | Mapping):
            device = _device_to_enter(value.values() if isinstance(value, Mapping) else value)
        else:
            device = value.device if _has_device_to_enter(value) else None
        if device is not None:
            return device
    return None


def _has_device_to_enter(value: Any) -> bool:
    """Whether it is an array for which a device has a scan, and that device is a context, to be the current one."""
    if not hasattr(value, "shape") or not hasattr(type(getattr(value, "device", None)), "__enter__"):
        return False
    return array_namespace(value).__name__.removeprefix("array_api_compat.") in SCANS


# --- checked once -----------------------------------------------------------------------------------------------

Run: TypeAlias = Callable[[Arrays, Sequence[Array]], Any]
"""What makes a call with arguments, whose arrays it gets as well, in order."""

MAX_KNOWN = 64
"""Kinds of calls to know, for each thread or layer."""


class Known(threading.local):
    """Kinds of arguments, by `kind_of`, that were found to be in order, with what is known of each."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}
        self.get = self._known.get

    def add(self, kind: Hashable, what: Any) -> None:
        """Remember one."""
        if kind is not None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known.setdefault(kind, what)


_calls = Known()


def checked_call(
    function: Callable[..., Any],
    arguments: Arrays,
    check: Callable[..., None],
    choices: Arrays = (),
    ops: Scan | None = None,
) -> Any:
    """``function(xp, *arguments)`` by the `call` of a scan, after ``check(*arguments, *choices)``.

    What is checked of arguments is their kind alone: types, shapes, dtypes and devices of arrays, and other values. So
    calls of a kind that is known go without, and are sent to where the first one went.

    Parameters
    ----------
    function, arguments
        See `Scan.call`. The first argument is an array.
    check
        Raises an error for arguments that do not fit.
    choices
        What else it has to know.
    ops
        See `scan_of`.
    """
    kind, arrays = kind_of((function, choices, *arguments)) if ops is None and not plain_wanted() else (None, ())
    run: Run | None = _calls.get(kind)
    if run is not None:
        return run(arguments, arrays)
    check(*arguments, *choices)
    scan = scan_of(arguments[0], ops)
    _calls.add(kind, run_of(scan, function, kind))
    return scan.call(function, *arguments)


def run_of(scan: Scan, function: Callable[..., Any], kind: Hashable) -> Run:
    """What makes calls of a function with arguments of one kind; a device may have something faster than `call`."""
    run: Run = scan.run_of(function, kind) if hasattr(scan, "run_of") else partial(_run, scan.call, function)
    return run


def run_of_scan(scan: Scan, step: Step, weights: Any, carry: Any, xs: Arrays) -> Run:
    """What makes scans with other carries, xs and rows of the same kind, which are its arguments.

    Nobody may change the weights any more, so that a device may keep what it makes of them.
    """
    run: Run | None = scan.scan_of_fixed(step, weights, carry, xs) if hasattr(scan, "scan_of_fixed") else None
    return partial(_run_scan, scan, step, weights) if run is None else run


def _run_scan(scan: Scan, step: Step, weights: Any, arguments: Arrays, arrays: Sequence[Array]) -> Any:
    carry, xs, rows = arguments
    return scan.scan(step, weights, carry, xs, rows=rows)


def _run(call: Callable[..., Any], function: Callable[..., Any], arguments: Arrays, arrays: Sequence[Array]) -> Any:
    return call(function, *arguments)


def kind_of(arguments: Arrays) -> tuple[Hashable, list[Array]]:
    """What kind of arguments these are, for `Known`, and their arrays, in order; the kind None if that is not known."""
    kind: list[Any] = []
    arrays: list[Array] = []
    try:
        _add_kind(arguments, kind, arrays)
    except Exception:  # of values that cannot be told apart, and arrays of functions that are traced
        return None, arrays
    return tuple(kind), arrays


def _add_kind(arguments: Sequence[Any], kind: list[Any], arrays: list[Array]) -> None:
    for a in arguments:
        if a is None:
            kind.append(None)
        elif isinstance(a, tuple):
            kind += (type(a), len(a))
            _add_kind(a, kind, arrays)
        elif (shape := getattr(a, "shape", None)) is not None:
            arrays.append(a)
            kind += (type(a), shape, a.dtype, getattr(a, "device", None))
        else:
            hash(a)
            kind += (type(a), repr(a) if isinstance(a, float) else a)  # 0.0 and -0.0 are equal, but not the same


PLAIN_VARIABLE = "GRU_XP_PLAIN"
"""Environment variable that switches every fast path off, if it is set to something else than ``0``."""


def plain_wanted() -> bool:
    """Whether fast paths are switched off."""
    return os.environ.get(PLAIN_VARIABLE, "") not in ("", "0")


def whole(a: Array) -> Array:
    """One of the `ys` of a scan as an array."""
    joined = getattr(a, "joined", None)
    return a if joined is None else joined()


@cache
def _can_scan(xp: Namespace) -> bool:
    """Whether a namespace has the functions of a step: one probe for each."""
    try:
        one = xp.ones((1, 1, 1), dtype=xp.float32)
        PlainScan(xp).scan(_probe, one[0, ...], one[0, ...], (xp.permute_dims(one, (1, 0, 2)),))
    except Exception:  # libraries refuse in many ways
        return False
    return True


def _probe(xp: Namespace, weights: Any, carry: Any, xs: Arrays, rows: Arrays) -> tuple[Any, Arrays, Pairs]:
    (x,) = xs
    row = xp.concat([x, xp.ones_like(x[:, :1])], axis=1)
    carry = 0.5 * xp.tanh(row[..., :1] @ weights.T) + carry
    return carry, (xp.where(x > 0.0, carry, 0.0),), ((carry, row),)
