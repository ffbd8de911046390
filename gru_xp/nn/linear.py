"""A linear layer, forward and backward."""

from typing import NamedTuple

from array_api_compat import array_namespace

from gru_xp.nn.checks import check_array, check_kind
from gru_xp.nn.ops import Array
from gru_xp.nn.params import LinearParams


class LinearCache(NamedTuple):
    """What `linear_backward` needs of the forward pass."""

    x: Array  # (N, I)
    params: LinearParams


def linear_forward(x: Array, params: LinearParams) -> tuple[Array, LinearCache]:
    """``y = x W^T + b``.

    Parameters
    ----------
    x : array, shape ``(N, I)``
    params : LinearParams
        ``weight (O, I)`` and ``bias (O,)``, of the same namespace, device and dtype as `x`.

    Returns
    -------
    y : array, shape ``(N, O)``
    cache
        For `linear_backward`.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit.
    """
    check_array("x", x, ("N", "I"))
    check_kind("params", params, LinearParams, "a LinearParams")
    check_array("params.weight", params.weight, ("O", x.shape[1]), like=("x", x))
    check_array("params.bias", params.bias, (params.weight.shape[0],), like=("x", x))
    xp = array_namespace(x)
    return xp.matmul(x, params.weight.T) + params.bias, LinearCache(x, params)


def linear_backward(dy: Array, cache: LinearCache) -> tuple[Array, LinearParams]:
    """Gradients of a linear layer.

    Parameters
    ----------
    dy : array, shape ``(N, O)``
    cache
        From `linear_forward`.

    Returns
    -------
    dx : array, shape ``(N, I)``
    dparams : LinearParams

    Raises
    ------
    ShapeError
        `dy` does not fit the forward pass.
    """
    check_kind("cache", cache, LinearCache, "the cache that linear_forward returned")
    x, params = cache
    check_array("dy", dy, (x.shape[0], params.weight.shape[0]), like=("x", x))
    xp = array_namespace(x)
    dweight = xp.matmul(dy.T, x)
    dbias = xp.sum(dy, axis=0)
    return xp.matmul(dy, params.weight), LinearParams(dweight, dbias)
