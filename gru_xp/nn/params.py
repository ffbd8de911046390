"""Parameters: named arrays, their initial values, and one flat vector for the optimizer."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from array_api_compat import array_namespace

from gru_xp.errors import ArgumentError, ShapeError, printable
from gru_xp.nn.checks import check_array, check_beside, check_choice, check_namespace, generator, shown, whole_number
from gru_xp.nn.scan import Array, Namespace, on_its_device

ParamsT = TypeVar("ParamsT", bound=tuple[Any, ...])

Reset: TypeAlias = Literal["before", "after"]
RESETS: tuple[Reset, ...] = ("before", "after")


class GRUParams(NamedTuple):
    """The parameters of one GRU layer, gates stacked in the order update z, reset r, candidate n.

    Attributes
    ----------
    weight_ih : array, shape ``(3H, I)``
        Input weights ``W_i``.
    weight_hh : array, shape ``(3H, H)``
        Recurrent weights ``W_h``.
    bias : array, shape ``(3H,)``
        One bias a gate.
    bias_hn : array, shape ``(H,)``, or None
        Bias of the candidate's recurrent part. An array for ``reset="after"``; None for ``reset="before"``, which has
        no such bias. It determines the form of the reset gate, see `reset`.

    Notes
    -----
    The names ``Wz``, ``Wr``, ``Wh``, ``bz``, ``br``, ``bh`` read the same numbers the way textbooks write them:
    ``Wz @ concat([h, x]) + bz``. `GRUParams.from_textbook` builds parameters from those.
    """

    weight_ih: Array
    weight_hh: Array
    bias: Array
    bias_hn: Array | None = None

    @property
    def reset(self) -> Reset:
        """The form of the reset gate that the parameters are for: ``"before"`` without `bias_hn`, ``"after"`` with."""
        return "before" if self.bias_hn is None else "after"

    @property
    def input_size(self) -> int:
        """I."""
        return int(self.weight_ih.shape[1])

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.weight_hh.shape[1])

    @property
    def Wz(self) -> Array:
        """Weights of the update gate on ``[h, x]``, shape ``(H, H + I)``, a copy."""
        return self._textbook_weight(0)

    @property
    def Wr(self) -> Array:
        """Weights of the reset gate on ``[h, x]``, shape ``(H, H + I)``, a copy."""
        return self._textbook_weight(1)

    @property
    def Wh(self) -> Array:
        """Weights of the candidate on ``[h, x]``, shape ``(H, H + I)``, a copy."""
        return self._textbook_weight(2)

    @property
    def bz(self) -> Array:
        """Bias of the update gate, shape ``(H,)``, a copy."""
        return self._textbook_bias(0)

    @property
    def br(self) -> Array:
        """Bias of the reset gate, shape ``(H,)``, a copy."""
        return self._textbook_bias(1)

    @property
    def bh(self) -> Array:
        """Bias of the candidate, shape ``(H,)``, a copy."""
        return self._textbook_bias(2)

    def _rows(self, gate: int) -> slice:
        return slice(gate * self.hidden_size, (gate + 1) * self.hidden_size)

    @on_its_device
    def _textbook_bias(self, gate: int) -> Array:
        return array_namespace(self.bias).asarray(self.bias[self._rows(gate)], copy=True)

    @on_its_device
    def _textbook_weight(self, gate: int) -> Array:
        check_beside("weight_ih", self.weight_ih, "weight_hh", self.weight_hh)
        rows = self._rows(gate)
        xp = array_namespace(self.weight_hh)
        return xp.concat([self.weight_hh[rows, :], self.weight_ih[rows, :]], axis=1)

    @classmethod
    @on_its_device
    def from_textbook(
        cls,
        *,
        Wz: Array,
        Wr: Array,
        Wh: Array,
        bz: Array,
        br: Array,
        bh: Array,
        bias_hn: Array | None = None,
    ) -> "GRUParams":
        """Build parameters from one ``[h, x]`` matrix and one bias a gate.

        Parameters
        ----------
        Wz, Wr, Wh : array, shape ``(H, H + I)``
            Weights of update gate, reset gate and candidate; the first H columns are the recurrent ones.
        bz, br, bh : array, shape ``(H,)`` or ``(H, 1)``
            Their biases.
        bias_hn : array, shape ``(H,)``, optional
            For ``reset="after"``. Without it, the parameters are for ``reset="before"``.

        Returns
        -------
        GRUParams
            Of copies.

        Raises
        ------
        ShapeError
            The arrays do not go together.
        """
        check_array("Wz", Wz, ("H", "H + I"))
        H, columns = Wz.shape
        check_array("Wz", Wz, (H, max(columns, H + 1)))
        xp = array_namespace(Wz)
        for name, weight in (("Wr", Wr), ("Wh", Wh)):
            check_array(name, weight, (H, columns), like=("Wz", Wz))
        biases = []
        for name, bias in (("bz", bz), ("br", br), ("bh", bh)):
            check_array(name, bias, (H, 1) if getattr(bias, "ndim", 1) == 2 else (H,), like=("Wz", Wz))
            biases.append(xp.reshape(bias, (H,)))
        if bias_hn is not None:
            check_array("bias_hn", bias_hn, (H,), like=("Wz", Wz))
        stacked = xp.concat([Wz, Wr, Wh], axis=0)
        return cls(
            weight_ih=xp.asarray(stacked[:, H:], copy=True),
            weight_hh=xp.asarray(stacked[:, :H], copy=True),
            bias=xp.concat(biases),
            bias_hn=None if bias_hn is None else xp.asarray(bias_hn, copy=True),
        )


class LinearParams(NamedTuple):
    """The parameters of one linear layer.

    Attributes
    ----------
    weight : array, shape ``(O, I)``
    bias : array, shape ``(O,)``
    """

    weight: Array
    bias: Array


def check_reset(reset: Reset | None, params: GRUParams, name: str = "params") -> Reset:
    """The form of `params`, called `name`; raise ArgumentError if `reset` is given and differs from it."""
    form = params.reset
    if reset is not None:
        check_choice("reset", reset, RESETS)
        if reset != form:
            bias_hn = "None" if form == "before" else "an array"
            raise ArgumentError(
                f"reset is {reset!r}; it must be {form!r}, the form of {name} (bias_hn is {bias_hn}): leave out reset, "
                f"or give weights of the form {reset!r}"
            )
    return form


def init_gru_params(
    input_size: int,
    hidden_size: int,
    *,
    reset: Reset = "before",
    xp: Namespace,
    seed: int | random.Random = 0,
    dtype: Any = None,
    device: Any = None,
) -> GRUParams:
    """Draw the parameters of a GRU layer from ``U(-1/sqrt(H), 1/sqrt(H))``, as PyTorch does.

    The numbers are drawn on the host by Python's own generator, so that one seed gives the same weights in every
    namespace and on every device.

    Parameters
    ----------
    input_size, hidden_size
        I and H.
    reset : {"before", "after"}
        The form of the reset gate, see `gru_cell_forward`. The arrays that both forms have get the same numbers.
    xp
        The namespace of the result, such as ``numpy`` or ``cupy``.
    seed
        A seed, or a generator to go on drawing from.
    dtype, device
        Passed on to ``xp.asarray``; the namespace's defaults if left out.

    Returns
    -------
    GRUParams

    Raises
    ------
    ArgumentError
        A size is no whole number of at least 1, or its arrays are too large for memory; `reset` is neither form; the
        seed is no whole number of at least 0; `xp` is not a namespace; or `device` is not one of its devices.
    ShapeError
        `dtype` is neither float32 nor float64.

    Examples
    --------
    >>> import numpy as np
    >>> init_gru_params(1, 70, xp=np, seed=3).weight_hh.shape
    (210, 70)
    >>> init_gru_params(1, 70, reset="after", xp=np, seed=3).bias_hn.shape
    (70,)
    """
    check_choice("reset", reset, RESETS)
    H = whole_number("hidden_size", hidden_size, 1)
    shapes = ((3 * H, whole_number("input_size", input_size, 1)), (3 * H, H), (3 * H,), (H,))
    sizes = {"input_size": input_size, "hidden_size": hidden_size}
    params = GRUParams(*_uniform(shapes, sizes, H, xp, seed, dtype, device))
    # bias_hn is drawn for both forms, so that one seed gives the next layer the same numbers.
    return params if reset == "after" else params._replace(bias_hn=None)


def init_linear_params(
    input_size: int,
    output_size: int,
    *,
    xp: Namespace,
    seed: int | random.Random = 0,
    dtype: Any = None,
    device: Any = None,
) -> LinearParams:
    """Draw the parameters of a linear layer from ``U(-1/sqrt(I), 1/sqrt(I))``, as PyTorch does.

    Parameters
    ----------
    input_size, output_size
        I and O.
    xp, seed, dtype, device
        See `init_gru_params`.

    Returns
    -------
    LinearParams

    Raises
    ------
    ArgumentError
        As `init_gru_params`.
    ShapeError
        `dtype` is neither float32 nor float64.
    """
    n_in = whole_number("input_size", input_size, 1)
    n_out = whole_number("output_size", output_size, 1)
    sizes = {"input_size": n_in, "output_size": n_out}
    return LinearParams(*_uniform(((n_out, n_in), (n_out,)), sizes, n_in, xp, seed, dtype, device))


MAX_NUMBERS = 2**30
"""Numbers in one array of initial parameters; while they are drawn, each takes 32 bytes of host memory."""


def _uniform(
    shapes: tuple[tuple[int, ...], ...],
    sizes: dict[str, int],
    fan_in: int,
    xp: Namespace,
    seed: int | random.Random,
    dtype: Any,
    device: Any,
) -> list[Array]:
    """Arrays of `shapes`, which follow from `sizes`, drawn from ``U(-1/sqrt(fan_in), 1/sqrt(fan_in))``."""
    rng = generator(seed)
    check_namespace(xp)
    if dtype is not None and not _is_floating(dtype, xp):
        raise ShapeError(f"dtype is {shown(dtype)}; it must be the namespace's float32 or float64")
    where = {} if device is None else {"device": device}
    xp = array_namespace(xp.empty(0)) if where else xp  # whose functions take a device
    name = xp.__name__.removeprefix("array_api_compat.")
    try:
        xp.asarray([0.0], dtype=dtype, **where)
    except Exception as error:  # libraries refuse a device in many ways
        raise ArgumentError(
            f"device is {shown(device)}; it must be a device of {name}, or None ({printable(str(error))})"
        ) from error
    got = " and ".join(f"{name} is {shown(size)}" for name, size in sizes.items())
    too_large = ArgumentError(f"{got}, which need an array too large for memory; use smaller sizes")
    if max(map(math.prod, shapes)) > MAX_NUMBERS:
        raise too_large
    bound = 1.0 / math.sqrt(fan_in)
    arrays = []
    try:
        for shape in shapes:
            values = [bound * (2.0 * rng.random() - 1.0) for _ in range(math.prod(shape))]
            arrays.append(xp.reshape(xp.asarray(values, dtype=dtype, **where), shape))
    except MemoryError as error:
        raise too_large from error
    return arrays


def _is_floating(dtype: Any, xp: Namespace) -> bool:
    """Whether it is the namespace's float32 or float64."""
    try:
        return bool(dtype in (xp.float32, xp.float64))
    except (TypeError, ValueError):  # an array compares with neither
        return False


def named_arrays(params: tuple[Any, ...], prefix: str = "") -> Iterator[tuple[str, Array]]:
    """Name and array of each parameter in (nested) tuples, in order, such as ``("gru.0.0.bias", ...)``.

    Parts of a named tuple are called by their names, those of other tuples by their numbers. None is left out.
    """
    names = getattr(params, "_fields", range(len(params)))
    for name, value in zip(names, params, strict=True):
        if isinstance(value, tuple):
            yield from named_arrays(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


def arrays_of(params: tuple[Any, ...]) -> list[Array]:
    """The arrays in (nested) tuples, in order; None is left out."""
    return [array for _, array in named_arrays(params)]


def map_arrays(function: Callable[[Array], Any], params: ParamsT) -> ParamsT:
    """(Nested) tuples built like `params`, of the function's results for each array, in order; None stays None."""

    def mapped(part: Any) -> Any:
        if isinstance(part, tuple):
            return map_arrays(function, part)
        return None if part is None else function(part)

    values = map(mapped, params)
    return type(params)(*values) if hasattr(params, "_fields") else type(params)(values)


@on_its_device
def flatten(params: tuple[Any, ...]) -> Array:
    """All parameters, or gradients, as one vector of shape ``(P,)``, a copy.

    Raises
    ------
    ShapeError
        The arrays do not have one namespace and one device.
    """
    (first, like), *others = named_arrays(params)
    for name, array in others:
        check_beside(name, array, first, like)
    xp = array_namespace(like)
    return xp.concat([xp.reshape(array, (-1,)) for array in arrays_of(params)])


def unflatten(flat: Array, like: ParamsT) -> ParamsT:
    """The inverse of `flatten`: tuples built like `like`, of parts of the vector `flat`."""
    xp = array_namespace(flat)
    start = 0

    def take(array: Array) -> Array:
        nonlocal start
        size = math.prod(array.shape)
        part = flat[start : start + size]
        start += size
        return xp.reshape(part, array.shape)

    return map_arrays(take, like)
