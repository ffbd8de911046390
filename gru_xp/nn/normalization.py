"""Layer normalization, forward and backward."""

from typing import Any, NamedTuple

from gru_xp.nn.checks import check_array, check_kind, check_rows, positive_number, whole_number
from gru_xp.nn.gru import filled, time_first
from gru_xp.nn.params import init_linear_params
from gru_xp.nn.scan import Array, Arrays, Namespace, Pairs, Scan, checked_call, scan_of, whole


class LayerNormParams(NamedTuple):
    """The parameters of layer normalization.

    Attributes
    ----------
    weight : array, shape ``(H,)``
    bias : array, shape ``(H,)``
    """

    weight: Array
    bias: Array


class LayerNormCache(NamedTuple):
    """What `layer_norm_backward` needs of the forward pass."""

    normal: Array  # (N, H), or (T, B, H)
    scale: Array  # (N, 1), or (T, B, 1): 1 / sqrt(variance + epsilon)
    params: LayerNormParams
    ops: Scan | None  # as it was given


def init_layer_norm_params(size: int, *, xp: Namespace, dtype: Any = None, device: Any = None) -> LayerNormParams:
    """Return weights of 1 and biases of 0.

    Parameters
    ----------
    size
        H.
    xp, dtype, device
        See `init_gru_params`.

    Returns
    -------
    LayerNormParams

    Raises
    ------
    ArgumentError
        `size` is no whole number of at least 1, `xp` is not a namespace, or `device` is not one of its devices.
    ShapeError
        `dtype` is neither float32 nor float64.

    Examples
    --------
    >>> import numpy as np
    >>> init_layer_norm_params(3, xp=np)
    LayerNormParams(weight=array([1., 1., 1.]), bias=array([0., 0., 0.]))
    """
    size = whole_number("size", size, 1)
    like = init_linear_params(1, size, xp=xp, dtype=dtype, device=device).bias  # which checks the other arguments
    return LayerNormParams(filled(1.0, (size,), like), filled(0.0, (size,), like))


def layer_norm_forward(
    x: Array, params: LayerNormParams, *, epsilon: float = 1e-5, ops: Scan | None = None
) -> tuple[Array, LayerNormCache]:
    """``y = weight (x - mean) / sqrt(variance + epsilon) + bias``, mean and variance over each row of `x`.

    Parameters
    ----------
    x : array, shape ``(N, H)`` or ``(B, T, H)``
    params : LayerNormParams
        ``weight (H,)`` and ``bias (H,)``, of the same namespace, device and dtype as `x`.
    epsilon
        Is added to the variance, so that a constant row is divided by more than 0.
    ops : Scan, optional
        See `gru_forward`.

    Returns
    -------
    y : array, shape of `x`
    cache
        For `layer_norm_backward`.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit.
    ArgumentError
        `epsilon` is not above 0 and finite.

    Notes
    -----
    Source: Ba, Kiros and Hinton (2016), *Layer Normalization*, arXiv:1607.06450, equations 3 and 4. The variance is the
    biased one, the mean of squares, as in PyTorch. It is taken of ``d = x - mean`` and not as the mean of ``x^2`` less
    ``mean^2``, which cancels. A mean over a row is its product with a column of ``1 / H``, as steps have no sums.

    With ``r = 1 / sqrt(variance + epsilon)``, ``n = d r``, and ``g = weight dy``, the gradient with respect to n::

        dbias = sum of dy over rows         dweight = sum of dy n over rows
        dr/dx = -r^2 n / H                  dn_i/dx_j = r (1 if i = j else 0) - r / H - r n_i n_j / H
        dx    = r (g - mean(g) - n mean(g n))
    """
    epsilon = positive_number("epsilon", epsilon)
    rows = time_first(x) if getattr(x, "ndim", 0) == 3 else x
    y, normal, scale = checked_call(_layer_norm, (rows, params, epsilon), _check_layer_norm, ops=ops)
    return time_first(y) if x.ndim == 3 else y, LayerNormCache(normal, scale, params, ops)


def layer_norm_backward(dy: Array, cache: LayerNormCache) -> tuple[Array, LayerNormParams]:
    """Gradients of layer normalization; `layer_norm_forward` derives them.

    Parameters
    ----------
    dy : array, shape ``(N, H)`` or ``(B, T, H)``
    cache
        From `layer_norm_forward`.

    Returns
    -------
    dx : array, shape of `dy`
    dparams : LayerNormParams
        Summed over all rows.

    Raises
    ------
    ShapeError
        `dy` does not fit the forward pass.
    """
    check_kind("cache", cache, LayerNormCache, "the cache that layer_norm_forward returned")
    normal, scale, params, ops = cache
    scan, shape = scan_of(normal, ops), tuple(normal.shape)
    if len(shape) == 2:
        check_array("dy", dy, shape, like=("x", normal))
        dx, dweight, dbias = scan.call(_of_rows, dy, normal, scale, params)
        return dx, LayerNormParams(dweight[0, :], dbias[0, :])
    check_array("dy", dy, (shape[1], shape[0], shape[2]), like=("x", normal))
    _, (dx,), (dweight, dbias) = scan.scan(_of_steps, params, None, (time_first(dy), normal, scale))
    return time_first(whole(dx)), LayerNormParams(dweight[0, :], dbias[0, :])


def _check_layer_norm(x: Array, params: LayerNormParams, epsilon: float) -> None:
    axes = len(getattr(x, "shape", ()))
    check_rows("x", x, "N", "H")
    check_kind("params", params, LayerNormParams, "a LayerNormParams")
    for name, array in params._asdict().items():
        check_array(f"params.{name}", array, (x.shape[axes - 1],), like=("x", x))


def _layer_norm(xp: Namespace, x: Array, params: LayerNormParams, epsilon: float) -> Arrays:
    mean = xp.ones_like(params.weight[:, None]) * (1.0 / params.weight.shape[0])  # (H, 1): a row times it is its mean
    d = x - x @ mean
    r = 1.0 / xp.sqrt((d * d) @ mean + epsilon)
    n = d * r
    return params.weight * n + params.bias, n, r


def _of_rows(xp: Namespace, dy: Array, n: Array, r: Array, params: LayerNormParams) -> Arrays:
    dy_n, one = dy * n, xp.ones_like(r).T
    return _dx(params, dy, dy_n, n, r), one @ dy_n, one @ dy


def _of_steps(
    xp: Namespace, params: LayerNormParams, carry: None, xs: Arrays, rows: Arrays
) -> tuple[None, Arrays, Pairs]:
    dy, n, r = xs
    dy_n, one = dy * n, xp.ones_like(r)
    return None, (_dx(params, dy, dy_n, n, r),), ((one, dy_n), (one, dy))


def _dx(params: LayerNormParams, dy: Array, dy_n: Array, n: Array, r: Array) -> Array:
    mean = params.weight[:, None] * (1.0 / params.weight.shape[0])  # (H, 1): a row times it is mean(weight row)
    return r * (params.weight * dy - dy @ mean - n * (dy_n @ mean))
