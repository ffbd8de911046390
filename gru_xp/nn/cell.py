"""One GRU step for a whole batch and its way back, as pure functions: nothing is written, everything is returned.

    z  = sigmoid(a_z + W_hz h)        r = sigmoid(a_r + W_hr h)        a = W_ih x + bias
    n  = tanh(a_n + W_hn (r * h))                reset="before"
    n  = tanh(a_n + r * (W_hn h + bias_hn))      reset="after"
    h' = (1 - z) * h + z * n                     or, with masks u and m, h + u * z * (m * n - h)

All that enters a product stands side by side in one row a sequence, such as ``[h, x, 1]``, and so do the weights, so
that a product gives a gate's whole argument, bias included. Each way back returns, beside gradients, the pairs
(da, row) whose sums of ``daᵀ row`` over sequences and steps are the gradients of those weights. README.md beside this
file derives every line. ``gru.py`` runs the same steps over time.
"""

from functools import partial
from typing import NamedTuple, TypeAlias

from gru_xp.nn.checks import check_array, check_kind
from gru_xp.nn.params import GRUParams, Reset, check_reset
from gru_xp.nn.scan import Array, Arrays, Namespace, Pairs, Scan, Step, checked_call, scan_of, whole

Mask: TypeAlias = Array | None
"""A factor ``(B, H)`` or ``(B, 1)``; None for 1."""

Forward: TypeAlias = tuple[Array, Arrays]
"""The state after a step, and what its way back needs."""

Backward: TypeAlias = tuple[Array, Arrays, Pairs]
"""The gradient of the state before a step, that of x if it is wanted, and the pairs."""


class Weights(NamedTuple):
    """A layer's weights side by side, their columns as those of the rows that they are multiplied with."""

    zr: Array  # of z and r: (2H, H + I + 1) for [h, x, 1] (before), (2H, I + 1 + H) for [x, 1, h] (after)
    n: Array  # of the candidate: (H, I + 1 + H) for [x, 1, r * h] (before), (H, I + 1) for [x, 1] (after)
    q: Array  # of W_hn h + bias_hn: (H, 1 + H) for [1, h] (after), None (before)


# --- the equations ----------------------------------------------------------------------------------------------


def step(xp: Namespace, w: Weights, h: Array, x: Array, u: Mask, m: Mask) -> Forward:
    """The state after a step, and what its way back needs."""
    return (before_step if w.q is None else after_step)(xp, w, h, x, u, m)


def step_backward(xp: Namespace, p: GRUParams, dh: Array, saved: Arrays, u: Mask, m: Mask) -> Backward:
    """The gradient of the state before a step, that of x unless `p` has no weights for it, and the pairs."""
    return (before_step_backward if p.bias_hn is None else after_step_backward)(xp, p, dh, saved, u, m)


def before_step(xp: Namespace, w: Weights, h: Array, x: Array, u: Mask, m: Mask) -> Forward:
    """`step` of reset="before"."""
    one = xp.ones_like(x[:, :1])
    row_zr = xp.concat([h, x, one], axis=1)
    zr = sigmoid(xp, row_zr @ w.zr.T)
    z, r = halves(zr)
    row_n = xp.concat([x, one, r * h], axis=1)
    n = xp.tanh(row_n @ w.n.T)
    delta_h = times(u, z) * (times(m, n) - h)
    return h + delta_h, (row_zr, row_n, zr, n, delta_h)


def before_step_backward(xp: Namespace, p: GRUParams, dh: Array, saved: Arrays, u: Mask, m: Mask) -> Backward:
    """`step_backward` of reset="before"."""
    row_zr, row_n, zr, n, delta_h = saved
    H = n.shape[1]
    (z, r), rh, (W_hzr, W_hn) = halves(zr), row_n[..., -H:], gates(p.weight_hh)
    da_z, da_n, dh_kept = candidate_backward(dh, z, n, delta_h, u, m)
    drh = da_n @ W_hn
    da_zr = xp.concat([da_z, drh * rh * (1.0 - r)], axis=1)
    dh_prev = dh_kept + drh * r + da_zr @ W_hzr
    return dh_prev, input_gradient(p, da_zr, da_n), ((da_zr, row_zr), (da_n, row_n))


def after_step(xp: Namespace, w: Weights, h: Array, x: Array, u: Mask, m: Mask) -> Forward:
    """`step` of reset="after"."""
    one = xp.ones_like(x[:, :1])
    row = xp.concat([x, one, h], axis=1)
    zr = sigmoid(xp, row @ w.zr.T)
    z, r = halves(zr)
    q = xp.concat([one, h], axis=1) @ w.q.T
    n = xp.tanh(xp.concat([x, one], axis=1) @ w.n.T + r * q)
    delta_h = times(u, z) * (times(m, n) - h)
    return h + delta_h, (row, zr, q, n, delta_h)


def after_step_backward(xp: Namespace, p: GRUParams, dh: Array, saved: Arrays, u: Mask, m: Mask) -> Backward:
    """`step_backward` of reset="after"."""
    row, zr, q, n, delta_h = saved
    H = n.shape[1]
    z, r = halves(zr)
    da_z, da_n, dh_kept = candidate_backward(dh, z, n, delta_h, u, m)
    dq = da_n * r
    da = xp.concat([da_z, dq * q * (1.0 - r), dq], axis=1)
    da_zr = da[..., : 2 * H]
    dh_prev = dh_kept + da @ p.weight_hh
    return dh_prev, input_gradient(p, da_zr, da_n), ((da_zr, row), (dq, row[..., -H - 1 :]), (da_n, row[..., :-H]))


def candidate_backward(dh: Array, z: Array, n: Array, delta_h: Array, u: Mask, m: Mask) -> tuple[Array, Array, Array]:
    """The gradients of the arguments of z and n, and that of h as far as it is kept: ``h' = h + u z (m n - h)``."""
    uz = times(u, z)
    da_z = dh * (1.0 - z) * delta_h
    da_n = times(m, dh * uz) * (1.0 - n * n)
    return da_z, da_n, dh * (1.0 - uz)


def input_gradient(p: GRUParams, da_zr: Array, da_n: Array) -> Arrays:
    """The gradient of x; nothing without weights for x."""
    if p.weight_ih is None:
        return ()
    W_izr, W_in = gates(p.weight_ih)
    return (da_zr @ W_izr + da_n @ W_in,)


def sigmoid(xp: Namespace, a: Array) -> Array:
    """``1 / (1 + exp(-a))``, as a tanh: the textbook form overflows."""
    return 0.5 * xp.tanh(0.5 * a) + 0.5


def times(mask: Mask, a: Array) -> Array:
    """`a` where there is no mask."""
    return a if mask is None else mask * a


def halves(zr: Array) -> tuple[Array, Array]:
    """z and r of both side by side."""
    H = zr.shape[-1] // 2
    return zr[..., :H], zr[..., H:]


def gates(weight: Array) -> tuple[Array, Array]:
    """The rows of z and r, and those of n."""
    H = weight.shape[0] // 3
    return weight[: 2 * H, :], weight[2 * H :, :]


def joint_weights(xp: Namespace, p: GRUParams) -> Weights:
    """The weights of a step."""

    def beside(*blocks: Array) -> Array:
        return xp.concat(blocks, axis=1)

    (W_izr, W_in), (W_hzr, W_hn), (b_zr, b_n) = (gates(a) for a in (p.weight_ih, p.weight_hh, p.bias[:, None]))
    if p.bias_hn is None:
        return Weights(beside(W_hzr, W_izr, b_zr), beside(W_in, b_n, W_hn), None)
    return Weights(beside(W_izr, b_zr, W_hzr), beside(W_in, b_n), beside(p.bias_hn[:, None], W_hn))


def params_gradient(xp: Namespace, sums: Arrays) -> GRUParams:
    """The gradients of the parameters, from the sums of the pairs of `step_backward`."""
    d_zr, *d_q, d_n = sums
    H, db_hn = d_n.shape[0], None
    if not d_q:  # [dW_hzr, dW_izr, db_zr], [dW_in, db_n, dW_hn]
        dW_i, dW_h = (d_zr[:, H:-1], d_n[:, : -H - 1]), (d_zr[:, :H], d_n[:, -H:])
        db = (d_zr[:, -1], d_n[:, -H - 1])
    else:  # [dW_izr, db_zr, dW_hzr], [db_hn, dW_hn], [dW_in, db_n]
        dW_i, dW_h = (d_zr[:, : -H - 1], d_n[:, :-1]), (d_zr[:, -H:], d_q[0][:, 1:])
        db, db_hn = (d_zr[:, -H - 1], d_n[:, -1]), d_q[0][:, 0]
    dweight_ih, dweight_hh, dbias = (xp.concat(blocks, axis=0) for blocks in (dW_i, dW_h, db))
    return GRUParams(dweight_ih, dweight_hh, dbias, db_hn)


# --- steps as scans run them ------------------------------------------------------------------------------------


def _forward_step(with_h: bool, with_saved: bool) -> Step:
    def forward_step(xp: Namespace, w: Weights, h: Array, xs: Arrays, rows: Arrays) -> Backward:
        (x, u), (m,) = xs, rows
        h, saved = step(xp, w, h, x, u, m)
        return h, (h,) * with_h + saved * with_saved, ()

    return forward_step


FORWARD_STEPS = {(h, saved): _forward_step(h, saved) for h in (False, True) for saved in (False, True)}
"""Steps that give the states after them or not, and what their way back needs or not; xs are x and u, rows is m."""


def backward_step(xp: Namespace, p: GRUParams, dh: Array, xs: Arrays, rows: Arrays) -> Backward:
    """Their way back; xs are the gradient from outside, or None, u, and what was saved, rows is m."""
    (dh_outside, u, *saved), (m,) = xs, rows
    return step_backward(xp, p, dh if dh_outside is None else dh + dh_outside, tuple(saved), u, m)


def _cell(xp: Namespace, x: Array, h: Array, params: GRUParams) -> Arrays:
    h, saved = step(xp, joint_weights(xp, params), h, x, None, None)
    return h, *saved


def state_after(xp: Namespace, x: Array, h: Array, params: GRUParams) -> Arrays:
    """The state after one step, of weights as they are."""
    return _cell(xp, x, h, params)[:1]


# --- one step ---------------------------------------------------------------------------------------------------


class CellCache(NamedTuple):
    """What `gru_cell_backward` needs of the forward step."""

    saved: Arrays
    params: GRUParams
    ops: Scan | None  # as it was given


def gru_cell_forward(
    x: Array, h_prev: Array, params: GRUParams, *, reset: Reset | None = None, ops: Scan | None = None
) -> tuple[Array, CellCache]:
    """One GRU step.

    Parameters
    ----------
    x : array, shape ``(B, I)``
        The step's input.
    h_prev : array, shape ``(B, H)``
        The state before the step.
    params : GRUParams
        Arrays of the same namespace, device and dtype as `x`. They determine the form of the reset gate,
        `params.reset`: it multiplies the state before its matrix product (``"before"``; Cho et al. 2014,
        arXiv:1406.1078v3) or the product after it (``"after"``; PyTorch, cuDNN and Keras).
    reset : {"before", "after"}, optional
        The expected form; any if left out.
    ops : Scan, optional
        How to run the step; the fastest way known for `x` if left out.

    Returns
    -------
    h : array, shape ``(B, H)``
        The state after the step.
    cache
        For `gru_cell_backward`.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit.
    ArgumentError
        `reset` is not the form of `params`, or `ops` is of the wrong kind.
    """
    h, *saved = checked_call(_cell, (x, h_prev, params), _check_cell, (reset,), ops)
    return h, CellCache(tuple(saved), params, ops)


def gru_cell_backward(dh: Array, cache: CellCache) -> tuple[Array, Array, GRUParams]:
    """Gradients of one GRU step.

    Parameters
    ----------
    dh : array, shape ``(B, H)``
        Gradient with respect to the state after the step.
    cache
        From `gru_cell_forward`.

    Returns
    -------
    dx : array, shape ``(B, I)``
    dh_prev : array, shape ``(B, H)``
    dparams : GRUParams
        Of the form of the parameters.

    Raises
    ------
    ShapeError
        `dh` does not fit the forward step.
    """
    check_kind("cache", cache, CellCache, "the cache that gru_cell_forward returned")
    saved, params, ops = cache
    check_array("dh", dh, (saved[0].shape[0], params.hidden_size), like=("x", params.bias))
    scan = scan_of(dh, ops)
    xs = (None, None, *(a[None, ...] for a in saved))
    dh_prev, (dx,), sums = scan.scan(backward_step, params, dh, xs, rows=(None,))
    return whole(dx)[0, ...], dh_prev, scan.call(params_gradient, sums)


def gru_step(x: Array, h: Array, params: GRUParams, *, reset: Reset | None = None, ops: Scan | None = None) -> Array:
    """One GRU step without gradients, as values come in one by one.

    `GRUInference.step` prepares the weights once, and is the faster one for many steps with the same weights.

    Parameters
    ----------
    x : array, shape ``(B, I)``
        The step's input.
    h : array, shape ``(B, H)``
        The states before the step.
    params, reset, ops
        See `gru_cell_forward`.

    Returns
    -------
    array, shape ``(B, H)``
        The states after the step, the same that `gru_forward` gives for it in a whole sequence.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit.
    ArgumentError
        `reset` is not the form of `params`, or `ops` is of the wrong kind.

    Examples
    --------
    >>> import numpy as np
    >>> params = init_gru_params(2, 5, xp=np, seed=0)
    >>> h = np.zeros((1, 5))
    >>> for x in np.ones((3, 1, 2)):
    ...     h = gru_step(x, h, params)
    >>> h.shape
    (1, 5)
    """
    (h,) = checked_call(state_after, (x, h, params), _check_step, (reset,), ops)
    return h


# --- checks -----------------------------------------------------------------------------------------------------


def _check_cell(x: Array, h_prev: Array, params: GRUParams, reset: Reset | None, *, h_name: str = "h_prev") -> None:
    check_array("x", x, ("B", "I"))
    check_params(params, x)
    check_reset(reset, params)
    check_array(h_name, h_prev, (x.shape[0], params.hidden_size), like=("x", x))


_check_step = partial(_check_cell, h_name="h")


def check_params(
    params: GRUParams,
    x: Array,
    *,
    name: str = "params",
    input_size: int | None = None,
    hidden_size: int | None = None,
) -> None:
    """Raise ShapeError unless `params` goes together and with `x`, whose last size is I if it is not given, and H."""
    check_kind(name, params, GRUParams, "a GRUParams")
    check_array(f"{name}.weight_hh", params.weight_hh, ("3H", "H"), like=("x", x))
    H = hidden_size or params.hidden_size
    I = input_size or x.shape[-1]  # noqa: E741
    dims = {"weight_hh": (3 * H, H), "weight_ih": (3 * H, I), "bias": (3 * H,)}
    if params.bias_hn is not None:
        dims |= {"bias_hn": (H,)}
    for field, expected in dims.items():
        why = f", as the last size of x is {I}" if field == "weight_ih" and input_size is None else ""
        check_array(f"{name}.{field}", getattr(params, field), expected, like=("x", x), why=why)
