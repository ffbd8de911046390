"""Compare a hand-written backward pass with central differences."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device, is_array_api_obj

from gru_xp.errors import ShapeError
from gru_xp.nn.checks import check_beside, check_choice, check_function, generator, positive_number, shown
from gru_xp.nn.params import map_arrays, named_arrays
from gru_xp.nn.scan import Array, on_its_device

MODES = ("elements", "direction")


class GradcheckRow(NamedTuple):
    """The comparison for one input array.

    Attributes
    ----------
    name
        The input's name, such as ``"params.weight_ih"``.
    error
        The largest ``|backward - numeric| / max(|backward|, |numeric|, floor)`` of its elements (or of its random
        direction), where ``floor`` is 1e-3 of the largest gradient of the array.
    where
        Index of that element; None for a direction.
    backward, numeric
        The two numbers there.
    """

    name: str
    error: float
    where: tuple[int, ...] | None
    backward: float
    numeric: float


class GradcheckReport(NamedTuple):
    """Result of `gradcheck`; ``print`` it for a table."""

    rows: tuple[GradcheckRow, ...]
    tolerance: float

    @property
    def error(self) -> float:
        """The largest error of all inputs."""
        return max(row.error for row in self.rows)

    @property
    def ok(self) -> bool:
        """Whether every error is within the tolerance (a NaN is not)."""
        return all(row.error <= self.tolerance for row in self.rows)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [f"{'input':<{width}}  {'rel. error':>10}  {'backward':>22}  {'numeric':>22}  where"]
        lines += [
            f"{row.name:<{width}}  {row.error:>10.2e}  {row.backward:>22.15e}  {row.numeric:>22.15e}  "
            f"{'direction' if row.where is None else row.where}"
            for row in self.rows
        ]
        lines.append(f"{'ok' if self.ok else 'WRONG'}: largest {self.error:.2e}, tolerance {self.tolerance:.0e}")
        return "\n".join(lines)


@on_its_device
def gradcheck(
    forward: Callable[..., tuple[Any, ...]],
    backward: Callable[..., Any],
    inputs: Mapping[str, Any],
    *,
    mode: str = "elements",
    step: float = 1e-3,
    tolerance: float = 1e-7,
    seed: int = 0,
) -> GradcheckReport:
    """Compare ``backward`` with central differences of ``forward``.

    The outputs are weighted with random numbers and summed to one scalar; its derivative is taken by the five-point
    central difference (error of order ``step**4``).

    Parameters
    ----------
    forward
        ``forward(*inputs) -> (output, ..., cache)``.
    backward
        ``backward(doutput, ..., cache) -> gradients``, one for each input and built alike; a single one may stand
        alone.
    inputs
        Name and value of each argument of `forward`, in order: a float64 array or a (nested) named tuple of them, in
        which None, such as the `bias_hn` of ``reset="before"``, is passed on and has None as its gradient.
    mode : {"elements", "direction"}
        Every element of every array by itself, or one random direction an array, for large ones.
    step
        Distance between the points of the difference.
    tolerance
        Largest relative error that is right.
    seed
        Of the random weights and directions, which are drawn on the host.

    Returns
    -------
    GradcheckReport

    Raises
    ------
    ShapeError
        An input is not float64, the inputs are on different devices, or what `forward` or `backward` returns is not as
        said above.
    ArgumentError
        `forward` or `backward` is not a function, or `mode`, `step` or `tolerance` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> params = init_gru_params(2, 3, xp=np, seed=0)
    >>> report = gradcheck(
    ...     lambda x, h, p: gru_cell_forward(x, h, p),
    ...     gru_cell_backward,
    ...     {"x": np.ones((2, 2)), "h_prev": np.ones((2, 3)), "params": params},
    ... )
    >>> report.ok
    True
    """
    check_function("forward", forward)
    check_function("backward", backward)
    check_choice("mode", mode, MODES)
    positive_number("step", step)
    positive_number("tolerance", tolerance)
    if not isinstance(inputs, Mapping) or not inputs:
        raise ShapeError(
            f"inputs is {shown(inputs)}; it must be a mapping of names to arrays or named tuples of arrays"
        )
    rng = generator(seed)
    arrays = dict(_flat_inputs(inputs))
    for name, array in arrays.items():
        if not is_array_api_obj(array):
            raise ShapeError(f"{name} is a {type(array).__name__}; it must be an array or a named tuple of arrays")
    first, like = next(iter(arrays.items()))
    xp = array_namespace(like)
    for name, array in arrays.items():
        check_beside(name, array, first, like)
        if array.dtype != xp.float64:
            raise ShapeError(f"{name} has dtype {array.dtype}; central differences need float64")

    def rebuild(replacement: Mapping[str, Array]) -> list[Any]:
        leaves = iter({**arrays, **replacement}.values())
        return [
            map_arrays(lambda _: next(leaves), value) if isinstance(value, tuple) else next(leaves)
            for value in inputs.values()
        ]

    def randoms_like(array: Array) -> Array:
        values = [rng.gauss(0.0, 1.0) for _ in range(math.prod(array.shape))]
        return xp.reshape(xp.asarray(values, dtype=xp.float64, device=device(array)), array.shape)

    result = forward(*inputs.values())
    if not isinstance(result, tuple) or len(result) < 2 or not all(map(is_array_api_obj, result[:-1])):
        raise ShapeError("forward must return a tuple of one or more arrays and a cache")
    *outputs, cache = result
    weights = [randoms_like(output) for output in outputs]
    gradients = backward(*weights, cache)
    if len(inputs) == 1 and not (type(gradients) is tuple and len(gradients) == 1):
        gradients = (gradients,)
    elif len(inputs) == 1 and dict(_flat_inputs(dict.fromkeys(inputs, gradients))).keys() == arrays.keys():
        gradients = (gradients,)  # a tuple of one is how the input is built
    if not isinstance(gradients, tuple):
        raise ShapeError(
            f"backward returned a {type(gradients).__name__}; it must be a tuple, a gradient for each input"
        )
    if len(gradients) != len(inputs):
        raise ShapeError(
            f"backward returned {len(gradients)} gradient(s); it must be {len(inputs)}, one for each input"
        )
    named_gradients = dict(_flat_inputs(dict(zip(inputs, gradients, strict=True))))
    if named_gradients.keys() != arrays.keys():
        raise ShapeError(f"backward returned gradients {', '.join(named_gradients)}; they must be {', '.join(arrays)}")

    def scalar(replacement: Mapping[str, Array]) -> float:
        *outputs, _ = forward(*rebuild(replacement))
        return math.fsum(float(xp.sum(w * y)) for w, y in zip(weights, outputs, strict=True))

    def derivative(name: str, direction: Array) -> float:
        def at(distance: float) -> float:
            return scalar({name: arrays[name] + distance * direction})

        return (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step)

    rows = []
    for name, array in arrays.items():
        gradient: Any = named_gradients[name]
        if not is_array_api_obj(gradient):
            raise ShapeError(f"the gradient of {name} is a {type(gradient).__name__}; it must be an array")
        if tuple(gradient.shape) != tuple(array.shape):
            raise ShapeError(
                f"the gradient of {name} has shape {tuple(gradient.shape)}; it must be {tuple(array.shape)}"
            )
        check_beside(f"the gradient of {name}", gradient, name, array)
        pairs: list[tuple[tuple[int, ...] | None, float, float]] = []
        if mode == "direction":
            direction = randoms_like(array)
            pairs.append((None, float(xp.sum(direction * gradient)), derivative(name, direction)))
        else:
            places = xp.reshape(xp.arange(math.prod(array.shape), device=device(array)), array.shape)
            for number, where in enumerate(_indices(tuple(array.shape))):
                unit = xp.astype(places == number, array.dtype)
                pairs.append((where, float(gradient[where]), derivative(name, unit)))
        rows.append(_worst(name, pairs))
    return GradcheckReport(tuple(rows), tolerance)


def _worst(name: str, pairs: list[tuple[tuple[int, ...] | None, float, float]]) -> GradcheckRow:
    floor = max(1e-3 * max(max(abs(b), abs(n)) for _, b, n in pairs), 1e-10)

    def row(where: tuple[int, ...] | None, b: float, n: float) -> GradcheckRow:
        error = abs(b - n) / max(abs(b), abs(n), floor)
        return GradcheckRow(name, math.inf if math.isnan(error) else error, where, b, n)

    return max((row(*pair) for pair in pairs), key=lambda r: r.error)


def _flat_inputs(inputs: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    for name, value in inputs.items():
        if isinstance(value, tuple):
            yield from named_arrays(value, f"{name}.")
        else:
            yield name, value


def _indices(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if not shape:
        yield ()
        return
    for first in range(shape[0]):
        for rest in _indices(shape[1:]):
            yield (first, *rest)
