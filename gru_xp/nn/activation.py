"""The activation GELU, forward and backward."""

import math
from typing import NamedTuple

from gru_xp.nn.checks import check_array, check_kind, check_rows
from gru_xp.nn.gru import time_first
from gru_xp.nn.scan import Array, Arrays, Namespace, Scan, checked_call, scan_of

CUBIC = 0.044715
"""Factor of the cube in the tanh form."""

SLOPE = math.sqrt(8.0 / math.pi)
"""Twice the factor of the whole argument of tanh."""

LOWEST = -9.5
"""Below it, GELU is 0 to any precision, and ``exp`` might overflow."""


class GELUCache(NamedTuple):
    """What `gelu_backward` needs of the forward pass."""

    x: Array  # (N, H), or (T, B, H)
    s: Array  # sigmoid(2 u), in that shape
    ops: Scan | None  # as it was given


def gelu_forward(x: Array, *, ops: Scan | None = None) -> tuple[Array, GELUCache]:
    """``y = 0.5 x (1 + tanh(u))`` with ``u = sqrt(2 / pi) (x + 0.044715 x^3)``, elementwise.

    Parameters
    ----------
    x : array, shape ``(N, H)`` or ``(B, T, H)``
    ops : Scan, optional
        See `gru_forward`.

    Returns
    -------
    y : array, shape of `x`
    cache
        For `gelu_backward`.

    Raises
    ------
    ShapeError
        `x` is not a floating-point array of one of these shapes.

    Notes
    -----
    Source: Hendrycks and Gimpel (2016), *Gaussian Error Linear Units (GELUs)*, arXiv:1606.08415, section 2. This is
    their approximation by tanh, ``gelu(x, approximate="tanh")`` in PyTorch, as the Array API standard has no erf, which
    the exact form needs.

    ``0.5 (1 + tanh(u))`` is ``s = 1 / (1 + exp(-2 u))``, so ``y = x s``. This is what is computed: one exponential is
    cheaper than tanh, and nothing cancels where x is negative. As ``ds/du = 2 s (1 - s)``::

        dy/dx = s + x ds/du du/dx = s (1 + x (1 - s) 2 sqrt(2 / pi) (1 + 3 * 0.044715 x^2))

    Examples
    --------
    >>> import numpy as np
    >>> y, _ = gelu_forward(np.asarray([[-1.0, 0.0, 1.0]]))
    >>> y.round(4).tolist()
    [[-0.1588, 0.0, 0.8412]]
    """
    rows = time_first(x) if getattr(x, "ndim", 0) == 3 else x
    y, s = checked_call(_gelu, (rows,), _check_gelu, ops=ops)
    return time_first(y) if x.ndim == 3 else y, GELUCache(rows, s, ops)


def gelu_backward(dy: Array, cache: GELUCache) -> Array:
    """Gradient of GELU.

    Parameters
    ----------
    dy : array, shape ``(N, H)`` or ``(B, T, H)``
    cache
        From `gelu_forward`.

    Returns
    -------
    dx : array, shape of `dy`

    Raises
    ------
    ShapeError
        `dy` does not fit the forward pass.
    """
    check_kind("cache", cache, GELUCache, "the cache that gelu_forward returned")
    x, s, ops = cache
    shape = (x.shape[1], x.shape[0], x.shape[2]) if x.ndim == 3 else x.shape
    check_array("dy", dy, shape, like=("x", x))
    (dx,) = scan_of(x, ops).call(_gelu_backward, time_first(dy) if x.ndim == 3 else dy, x, s)
    return time_first(dx) if x.ndim == 3 else dx


def _check_gelu(x: Array) -> None:
    check_rows("x", x, "N", "H")


def _gelu(xp: Namespace, x: Array) -> Arrays:
    bounded = xp.maximum(x, LOWEST)
    s = 1.0 / (1.0 + xp.exp(bounded * (-SLOPE * CUBIC * (bounded * bounded) - SLOPE)))
    return x * s, s


def _gelu_backward(xp: Namespace, dy: Array, x: Array, s: Array) -> Arrays:
    slope = 3.0 * SLOPE * CUBIC * (x * x) + SLOPE  # of 2 u
    return (dy * (s * (1.0 + x * (1.0 - s) * slope)),)
