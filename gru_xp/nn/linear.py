"""A linear layer, forward and backward."""

from typing import NamedTuple

from gru_xp.nn.checks import check_array, check_kind, check_rows
from gru_xp.nn.gru import time_first
from gru_xp.nn.params import LinearParams
from gru_xp.nn.scan import Array, Arrays, Namespace, Pairs, Scan, checked_call, scan_of, whole


class LinearCache(NamedTuple):
    """What `linear_backward` needs of the forward pass."""

    x: Array  # (N, I) or (B, T, I)
    params: LinearParams
    ops: Scan | None  # as it was given


def linear_forward(x: Array, params: LinearParams, *, ops: Scan | None = None) -> tuple[Array, LinearCache]:
    """``y = x W^T + b``, for every row of `x`: of a batch, or of each of its steps.

    Parameters
    ----------
    x : array, shape ``(N, I)`` or ``(B, T, I)``
    params : LinearParams
        ``weight (O, I)`` and ``bias (O,)``, of the same namespace, device and dtype as `x`.
    ops : Scan, optional
        See `gru_forward`.

    Returns
    -------
    y : array, shape ``(N, O)`` or ``(B, T, O)``
    cache
        For `linear_backward`.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit.
    """
    (y,) = checked_call(_linear, (x, params), _check_linear, ops=ops)
    return y, LinearCache(x, params, ops)


def linear_backward(dy: Array, cache: LinearCache) -> tuple[Array, LinearParams]:
    """Gradients of a linear layer.

    Parameters
    ----------
    dy : array, shape ``(N, O)`` or ``(B, T, O)``
    cache
        From `linear_forward`.

    Returns
    -------
    dx : array, shape ``(N, I)`` or ``(B, T, I)``
    dparams : LinearParams
        Summed over all rows.

    Raises
    ------
    ShapeError
        `dy` does not fit the forward pass.
    """
    check_kind("cache", cache, LinearCache, "the cache that linear_forward returned")
    x, params, ops = cache
    check_array("dy", dy, (*x.shape[:-1], params.weight.shape[0]), like=("x", x))
    scan = scan_of(x, ops)
    xs = (time_first(dy), time_first(x)) if x.ndim == 3 else (dy[None, ...], x[None, ...])
    _, (dx,), sums = scan.scan(_linear_backward, params, None, xs)
    dx = whole(dx)
    return time_first(dx) if x.ndim == 3 else dx[0, ...], scan.call(_params_gradient, sums)


def _check_linear(x: Array, params: LinearParams) -> None:
    check_rows("x", x, "N", "I")
    check_kind("params", params, LinearParams, "a LinearParams")
    check_array("params.weight", params.weight, ("O", x.shape[-1]), like=("x", x))
    check_array("params.bias", params.bias, (params.weight.shape[0],), like=("x", x))


def _linear(xp: Namespace, x: Array, params: LinearParams) -> Arrays:
    return (x @ params.weight.T + params.bias,)


def _linear_backward(
    xp: Namespace, params: LinearParams, carry: None, xs: Arrays, rows: Arrays
) -> tuple[None, Arrays, Pairs]:
    dy, x = xs
    row = xp.concat([x, xp.ones_like(x[:, :1])], axis=1)
    return None, (dy @ params.weight,), ((dy, row),)


def _params_gradient(xp: Namespace, sums: Arrays) -> LinearParams:
    (d_both,) = sums
    return LinearParams(d_both[:, :-1], d_both[:, -1])
