"""A GRU layer over whole sequences: the steps of ``cell.py``, with every product that needs no state taken once."""

from typing import NamedTuple

from array_api_compat import array_namespace

from gru_xp.errors import ShapeError
from gru_xp.nn.cell import FORMS, RESETS, Reset, check_params, input_product
from gru_xp.nn.checks import check_array, check_choice, check_kind
from gru_xp.nn.ops import PLAIN_OPS, Array, Ops
from gru_xp.nn.params import GRUParams


class GRUCache(NamedTuple):
    """What `gru_backward` needs of the forward pass; time is the first axis."""

    x: Array  # (T, B, I)
    states: Array  # (T + 1, B, H): h0, then the state after each step
    gates: Array  # (T, B, 3H): z, r, n
    inner: Array  # (T, B, H): r * h (before) or W_hn h + bias_hn (after)
    params: GRUParams
    reset: Reset
    ops: Ops


def gru_forward(
    x: Array, h0: Array | None, params: GRUParams, *, reset: Reset = "before", ops: Ops = PLAIN_OPS
) -> tuple[Array, Array, GRUCache]:
    """A GRU layer over T steps.

    Parameters
    ----------
    x : array, shape ``(B, T, I)``
        B sequences of T steps.
    h0 : array, shape ``(B, H)``, or None
        The states before the first step; zeros if None.
    params : GRUParams
        Arrays of the same namespace, device and dtype as `x`.
    reset : {"before", "after"}
        Where the reset gate acts; see `gru_cell_forward`.
    ops : Ops
        How to allocate, multiply and run pointwise expressions; the Array API's own way by default.

    Returns
    -------
    h : array, shape ``(B, T, H)``
        The state after every step. It shares memory with the cache.
    h_last : array, shape ``(B, H)``
        The state after the last step.
    cache
        For `gru_backward`.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit.

    Notes
    -----
    Arrays that record their operations for automatic differentiation must be detached first (of PyTorch:
    ``tensor.detach()``, or the calls inside ``torch.no_grad()``).

    Examples
    --------
    >>> import numpy as np
    >>> params = init_params(2, 5, xp=np, seed=0)
    >>> h, h_last, cache = gru_forward(np.ones((3, 4, 2)), None, params)
    >>> h.shape, h_last.shape
    ((3, 4, 5), (3, 5))
    """
    check_choice("reset", reset, RESETS)
    check_array("x", x, ("B", "T", "I"))
    check_params(params, x)
    xp = array_namespace(x)
    B, T, _ = x.shape
    H = params.hidden_size
    if h0 is not None:
        check_array("h0", h0, (B, H), like=("x", x))

    steps = ops.empty((T, B, x.shape[2]), like=x)
    steps[...] = xp.permute_dims(x, (1, 0, 2))
    gates = input_product(steps, params, ops)
    inner = ops.empty((T, B, H), like=x)
    states = ops.empty((T + 1, B, H), like=x)
    states[0, ...] = 0.0 if h0 is None else h0
    form = FORMS[reset]
    products = form.products(B, H, x, ops)
    for t in range(T):
        form.forward(gates[t, ...], states[t, ...], inner[t, ...], states[t + 1, ...], products, params, ops)
    h = xp.permute_dims(states[1:, ...], (1, 0, 2))
    return h, states[T, ...], GRUCache(steps, states, gates, inner, params, reset, ops)


def gru_backward(dh: Array | None, cache: GRUCache, *, dh_last: Array | None = None) -> tuple[Array, Array, GRUParams]:
    """Gradients of a GRU layer, back through all T steps.

    Parameters
    ----------
    dh : array, shape ``(B, T, H)``, or None
        Gradient with respect to the state after every step.
    cache
        From `gru_forward`.
    dh_last : array, shape ``(B, H)``, or None
        Gradient with respect to `h_last`; it is added to that of the last step. One of the two must be given.

    Returns
    -------
    dx : array, shape ``(B, T, I)``
    dh0 : array, shape ``(B, H)``
    dparams : GRUParams

    Raises
    ------
    ShapeError
        A gradient does not fit the forward pass, or both are None.
    """
    check_kind("cache", cache, GRUCache, "the cache that gru_forward returned")
    x, states, gates, inner, params, reset, ops = cache
    xp = array_namespace(x)
    T, B, H = inner.shape
    if dh is None and dh_last is None:
        raise ShapeError("dh and dh_last are both None; at least one gradient must be given")
    if dh is not None:
        check_array("dh", dh, (B, T, H), like=("x", x))
    if dh_last is not None:
        check_array("dh_last", dh_last, (B, H), like=("x", x))

    form = FORMS[reset]
    da_rec = ops.empty((T, B, form.recurrent_gates * H), like=x)
    da_n = ops.empty((T, B, H), like=x)
    dh_prev, product = (ops.empty((B, H), like=x) for _ in range(2))
    carry = dh_last
    for t in reversed(range(T)):
        if dh is not None:
            carry = dh[:, t, :] if carry is None else carry + dh[:, t, :]
        form.backward(
            carry,
            states[t, ...],
            gates[t, ...],
            inner[t, ...],
            da_rec[t, ...],
            da_n[t, ...],
            dh_prev,
            product,
            params,
            ops,
        )
        carry = dh_prev

    dx, dparams = form.parameter_gradients(x, states[:T, ...], inner, da_rec, da_n, params, ops)
    return xp.permute_dims(dx, (1, 0, 2)), carry, dparams
