"""Layer normalization, forward and backward."""

from typing import Any, NamedTuple

from array_api_compat import array_namespace

from gru_xp.nn.checks import check_array, check_kind, check_namespace, check_rows, positive_number, whole_number
from gru_xp.nn.gru import time_first
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
        `size` is no whole number of at least 1, or `xp` is not a namespace.
    """
    size = whole_number("size", size, 1)
    check_namespace(xp)
    return LayerNormParams(xp.ones(size, dtype=dtype, device=device), xp.zeros(size, dtype=dtype, device=device))


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
    over_time = normal.ndim == 3
    shape = (normal.shape[1], normal.shape[0], normal.shape[2]) if over_time else normal.shape
    check_array("dy", dy, shape, like=("x", normal))
    xs = (time_first(dy), normal, scale) if over_time else (dy[None, ...], normal[None, ...], scale[None, ...])
    _, (dx,), (dweight, dbias) = scan_of(normal, ops).scan(_layer_norm_backward, params, None, xs)
    xp, dx = array_namespace(normal), whole(dx)
    dparams = LayerNormParams(*(xp.reshape(a, params.weight.shape) for a in (dweight, dbias)))
    return time_first(dx) if over_time else dx[0, ...], dparams


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


def _layer_norm_backward(
    xp: Namespace, params: LayerNormParams, carry: None, xs: Arrays, rows: Arrays
) -> tuple[None, Arrays, Pairs]:
    dy, n, r = xs
    mean = params.weight[:, None] * (1.0 / params.weight.shape[0])  # (H, 1): a row times it is the mean of weight row
    dy_n, one = dy * n, xp.ones_like(r)
    dx = r * (params.weight * dy - dy @ mean - n * (dy_n @ mean))
    return None, (dx,), ((one, dy_n), (one, dy))
