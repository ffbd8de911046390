"""A linear layer, forward and backward."""

from typing import NamedTuple

from array_api_compat import array_namespace

from gru_xp.nn.checks import check_array, check_kind, check_rows
from gru_xp.nn.ops import Array, Ops, default_ops, ops_or_default
from gru_xp.nn.params import LinearParams
from gru_xp.nn.pointwise import add


class LinearCache(NamedTuple):
    """What `linear_backward` needs of the forward pass."""

    x: Array  # (N, I) or (B, T, I)
    params: LinearParams
    ops: Ops | None  # as it was given


def linear_forward(x: Array, params: LinearParams, *, ops: Ops | None = None) -> tuple[Array, LinearCache]:
    """``y = x W^T + b``, for every row of `x`: of a batch, or of each of its steps.

    Parameters
    ----------
    x : array, shape ``(N, I)`` or ``(B, T, I)``
    params : LinearParams
        ``weight (O, I)`` and ``bias (O,)``, of the same namespace, device and dtype as `x`.
    ops : Ops, optional
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
    check_rows("x", x, "N", "I")
    check_kind("params", params, LinearParams, "a LinearParams")
    check_array("params.weight", params.weight, ("O", x.shape[-1]), like=("x", x))
    check_array("params.bias", params.bias, (params.weight.shape[0],), like=("x", x))
    given_ops, ops = ops, ops_or_default(ops, x)
    y = ops.matmul(x, params.weight.T, out=ops.empty((*x.shape[:-1], params.weight.shape[0]), like=x))
    ops.pointwise(add, (y, params.bias), out=(y,))
    return y, LinearCache(x, params, given_ops)


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
    x, params, given_ops = cache
    check_array("dy", dy, (*x.shape[:-1], params.weight.shape[0]), like=("x", x))
    xp = array_namespace(x)
    ops = given_ops or default_ops(x)
    ones = ops.empty((*x.shape[:-1], 1), like=x)
    ops.copy(1.0, ones)
    dx = ops.matmul(dy, params.weight, out=ops.empty(x.shape, like=x))
    dparams = LinearParams(*(ops.empty(array.shape, like=array) for array in params))
    ops.contract(dy, x, out=dparams.weight)
    ops.contract(dy, ones, out=xp.reshape(dparams.bias, (-1, 1)))
    return dx, dparams
