"""A GRU layer over whole sequences, and back: scans of the steps of ``cell.py``. Inside, time is the first axis."""

from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from gru_xp.errors import ShapeError
from gru_xp.nn.cell import FORWARD_STEPS, Mask, backward_step, check_params, joint_weights, params_gradient, times
from gru_xp.nn.checks import check_array, check_flag, check_kind, check_lengths, check_optional, share, whole_number
from gru_xp.nn.params import GRUParams, Reset, check_reset
from gru_xp.nn.pointwise import only_valid
from gru_xp.nn.scan import Array, Arrays, Namespace, Scan, on_its_device, scan_of, whole


class Inputs(NamedTuple):
    """What enters the steps: the first two as `xs` of a scan, the third as its `rows`."""

    x: Array  # (T, B, I)
    update: Array | None  # (T, B, H) or (T, B, 1): factors of the update gate
    candidate: Array | None  # (B, H): factors of the candidate
    valid: Array | None  # (T, B, 1): 1 before a sequence's end, 0 after it; None if none ends early

    def at(self, span: slice, scan: Scan) -> "Inputs":
        """What enters some of the steps; those after a sequence's end see no x and update nothing."""
        x, update, valid = (None if a is None else a[span, ...] for a in (self.x, self.update, self.valid))
        if valid is not None:
            x, update = scan.call(_until_the_end, x, update, valid)
        return Inputs(x, update, self.candidate, valid)


class GRUCache(NamedTuple):
    """What `gru_backward` needs of the forward pass."""

    inputs: Inputs  # without x, if it is not needed
    size: tuple[int, int]  # T and B
    params: GRUParams
    reverse: bool
    spans: Sequence[slice]  # of steps, in the order in which they were run
    saved: Sequence[Any]  # of the only span, what its steps saved; or of each, to run it again, the state before it
    ops: Scan | None  # as it was given


def gru_forward(
    x: Array,
    h0: Array | None,
    params: GRUParams,
    *,
    lengths: Array | Sequence[int] | None = None,
    reverse: bool = False,
    candidate_mask: Array | None = None,
    update_mask: Array | float | None = None,
    reset: Reset | None = None,
    keep_every: int | None = None,
    ops: Scan | None = None,
    with_h: bool = True,
    with_cache: bool = True,
) -> tuple[Array | None, Array, GRUCache | None]:
    """A GRU layer over T steps.

    Parameters
    ----------
    x : array, shape ``(B, T, I)``
        B sequences of T steps.
    h0 : array, shape ``(B, H)``, or None
        The states before the first step; zeros if None.
    params : GRUParams
        Arrays of the same namespace, device and dtype as `x`.
    lengths : integers, shape ``(B,)``, optional
        How many steps of each sequence count, from 0 to T, in any order; all of them if left out. They may be an array
        on any device, which is waited for; a captured call does not follow them. What stands in `x` after a sequence's
        end is not looked at.
    reverse : bool
        Whether to run from a sequence's last step to its first.
    candidate_mask : array, shape ``(B, H)``, optional
        Factors of the candidate n, the same in all steps: recurrent dropout without memory loss (Semeniuta et al.
        2016, arXiv:1603.05118, equation 14), such as `dropout_mask` draws. ``h' = (1 - z) * h + z * mask * n``.
    update_mask : array, shape ``(B, T, H)``, or number, optional
        Factors of the update gate: zoneout (Krueger et al. 2016, arXiv:1606.01305), where 0 keeps an element of the
        state and 1 updates it; a number for all of them, 1 less the rate, to predict by the mean.
        ``h' = (1 - mask * z) * h + mask * z * n``.
    reset : {"before", "after"}, optional
        The expected form of `params`; any if left out. See `gru_cell_forward`.
    keep_every : int, optional
        Activation checkpointing: store the state of every N-th step, and recompute the steps between them in the
        backward pass: memory of about ``T / keep_every + keep_every`` steps instead of T, least at the root of T, for a
        third more time. `x` and `h0` are read again then: they must not change in between. The gradients are the same,
        but for the rounding of sums over steps that are taken in other groups.
    ops : Scan, optional
        How to run the steps; the fastest way known for `x` if left out.
    with_h : bool
        Whether the states after all steps are wanted; who needs the last ones alone can do without.
    with_cache : bool
        Whether `gru_backward` will follow; a prediction can do without, with less memory.

    Returns
    -------
    h : array, shape ``(B, T, H)``, or None
        The state after every step, at the step's own place, and zeros after a sequence's end. It may share memory with
        the cache.
    h_last : array, shape ``(B, H)``
        The state after the step that comes last: a sequence's last one, or its first with `reverse`. That of a
        sequence of length 0 is its `h0` (onnxruntime gives 0 there).
    cache
        For `gru_backward`; None if it is not wanted.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit, or a length is out of range.
    ArgumentError
        `reset` is not the form of `params`, `keep_every` or a number as `update_mask` is out of range, or `ops` or a
        flag is of the wrong kind.

    Notes
    -----
    Inputs must be finite: an infinite one may give NaN.

    JAX runs it inside of ``jax.jit``, ``jax.grad`` and ``jax.vmap``, and dask computes nothing until it is asked to;
    lengths whose values are not known then are not checked. PyTorch's autograd goes through it.

    Examples
    --------
    >>> import numpy as np
    >>> params = init_gru_params(2, 5, xp=np, seed=0)
    >>> h, h_last, cache = gru_forward(np.ones((3, 4, 2)), None, params, lengths=[4, 0, 2])
    >>> h.shape, h_last.shape
    ((3, 4, 5), (3, 5))
    """
    for name, flag in (("reverse", reverse), ("with_h", with_h), ("with_cache", with_cache)):
        check_flag(name, flag)
    check_array("x", x, ("B", "T", "I"))
    check_params(params, x)
    check_reset(reset, params)
    (B, T, _), H = x.shape, params.hidden_size
    check_optional("h0", h0, (B, H), like=("x", x))
    check_optional("candidate_mask", candidate_mask, (B, H), like=("x", x))
    if isinstance(update_mask, Real):  # NumPy's are float64 to arrays, and strangers to other namespaces
        update_mask = share("update_mask", update_mask)
    elif update_mask is not None:
        check_array("update_mask", update_mask, (B, T, H), like=("x", x))
    if keep_every is not None:
        whole_number("keep_every", keep_every, 1)
    valid = None if lengths is None else valid_steps(check_lengths(lengths, x), x)
    inputs = inputs_of(time_first(x), x, update_mask, candidate_mask, valid)
    h, h_last, cache = run_layer(inputs, h0, params, reverse, keep_every, ops, with_h, with_cache)
    return batch_first(h), h_last, cache


def gru_backward(
    dh: Array | None, cache: GRUCache, *, dh_last: Array | None = None, with_dx: bool = True
) -> tuple[Array | None, Array, GRUParams]:
    """Gradients of a GRU layer, back through all T steps.

    Parameters
    ----------
    dh : array, shape ``(B, T, H)``, or None
        Gradient with respect to the state after every step; what stands in it after a sequence's end is not looked at.
    cache
        From `gru_forward`.
    dh_last : array, shape ``(B, H)``, or None
        Gradient with respect to `h_last`; it is added to that of the step it belongs to. One of the two must be given.
    with_dx : bool
        Whether the gradient with respect to the input is wanted; a first layer can do without.

    Returns
    -------
    dx : array, shape ``(B, T, I)``, or None
        Zeros after a sequence's end.
    dh0 : array, shape ``(B, H)``
    dparams : GRUParams
        Of the form of the parameters.

    Raises
    ------
    ShapeError
        A gradient does not fit the forward pass, or both are None.
    """
    check_kind("cache", cache, GRUCache, "the cache that gru_forward returned")
    check_flag("with_dx", with_dx)
    (T, B), H, like = cache.size, cache.params.hidden_size, ("x", cache.params.bias)
    if dh is None and dh_last is None:
        raise ShapeError("dh and dh_last are both None; at least one gradient must be given")
    check_optional("dh", dh, (B, T, H), like=like)
    check_optional("dh_last", dh_last, (B, H), like=like)
    dx, dh0, dparams = back_through_layer(time_first(dh), dh_last, cache, with_dx)
    return batch_first(dx), dh0, dparams


# --- without checks, time first ---------------------------------------------------------------------------------


def run_layer(
    inputs: Inputs,
    h: Array | None,
    params: GRUParams,
    reverse: bool = False,
    keep_every: int | None = None,
    ops: Scan | None = None,
    with_h: bool = True,
    with_cache: bool = True,
) -> tuple[Array | None, Array, GRUCache | None]:
    """The states after all steps and after the one that is run last, from the state `h` before them."""
    scan, (T, B, _) = scan_of(params.bias, ops), inputs.x.shape
    spans = _spans(T, keep_every or T, reverse)
    keep = with_cache and len(spans) == 1
    weights = scan.call(joint_weights, params)
    h = filled(0.0, (B, params.hidden_size), like=params.bias) if h is None else h
    step, hs, saved = FORWARD_STEPS[with_h, keep], [], []
    for span in spans:
        start, part = h, inputs.at(span, scan)
        h, ys, _ = scan.scan(step, weights, h, part[:2], rows=part[2:3], reverse=reverse)
        hs += [_valid_only(a, part.valid, scan) for a in ys[:with_h]]
        saved += [ys[with_h:] if keep else start] * with_cache
    kept = part._replace(x=None) if keep else inputs
    cache = GRUCache(kept, (T, B), params, reverse, spans, saved, ops) if with_cache else None
    return _joined(hs, reverse, scan), h, cache


def back_through_layer(
    dh: Array | None, dh_last: Array | None, cache: GRUCache, with_dx: bool = True
) -> tuple[Array | None, Array, GRUParams]:
    """The gradients of `run_layer`."""
    inputs, (_, B), params, reverse, spans, saved_of_spans, ops = cache
    scan, p = scan_of(params.bias, ops), params if with_dx else params._replace(weight_ih=None)
    weights = None if len(spans) == 1 else scan.call(joint_weights, params)
    carry = filled(0.0, (B, params.hidden_size), like=params.bias) if dh_last is None else dh_last
    dxs: list[Array] = []
    totals: Arrays | None = None
    for span, saved in zip(spans[::-1], saved_of_spans[::-1], strict=True):
        part, step = inputs, FORWARD_STEPS[False, True]
        if weights is not None:
            part = inputs.at(span, scan)
            _, saved, _ = scan.scan(step, weights, saved, part[:2], rows=part[2:3], reverse=reverse)
        dh_span = None if dh is None else _valid_only(dh[span, ...], part.valid, scan)
        saved = dh_span, part.update, *saved  # under the same name, so that the next span reuses its memory
        carry, dx, sums = scan.scan(backward_step, p, carry, saved, rows=part[2:3], reverse=not reverse)
        totals = sums if totals is None else scan.call(_added, totals, sums)
        dxs += dx
    return _joined(dxs, not reverse, scan), carry, scan.call(params_gradient, totals)


def inputs_of(
    x: Array, like: Array, update: Array | float | None, candidate: Array | None, valid: Array | None
) -> Inputs:
    """What enters the steps, of masks as `gru_forward` has them; `x` may be what another scan gave."""
    update = filled(update, (*x.shape[:2], 1), like=like) if isinstance(update, float) else time_first(update)
    return Inputs(x, update, candidate, valid)


def time_first(a: Array | None) -> Array | None:
    """``(B, T, ...)`` to ``(T, B, ...)``, and the other way round; None stays None."""
    return None if a is None else array_namespace(a).permute_dims(a, (1, 0, 2))


def batch_first(a: Array | None) -> Array | None:
    """What a scan gave as an array ``(B, T, ...)``; None stays None."""
    return None if a is None else time_first(whole(a))


@on_its_device
def valid_steps(lengths: Array, x: Array) -> Array:
    """``(T, B, 1)``: 1 before a sequence's end, 0 after it."""
    xp = array_namespace(x)
    times = xp.arange(x.shape[1], dtype=lengths.dtype, device=device(x))
    return xp.astype(xp.reshape(times, (-1, 1, 1)) < xp.reshape(lengths, (1, -1, 1)), x.dtype)


@on_its_device
def filled(number: float, shape: tuple[int, ...], like: Array) -> Array:
    """An array of one number."""
    return array_namespace(like).full(shape, number, dtype=like.dtype, device=device(like))


def _spans(n: int, length: int, reverse: bool) -> list[slice]:
    """`n` steps in runs of `length`, in the order in which they are run; the first one may be shorter."""
    edges = sorted({0, *range(n, 0, -length)})
    return [slice(n - stop, n - start) if reverse else slice(start, stop) for start, stop in pairwise(edges)]


def _joined(spans: list[Array], reverse: bool, scan: Scan) -> Array | None:
    """Steps of spans, in the order in which they were run, as one array; None of no spans."""
    if len(spans) < 2:
        return spans[0] if spans else None
    return scan.call(_concat, tuple(spans[::-1] if reverse else spans))[0]


def _valid_only(a: Array, valid: Array | None, scan: Scan) -> Array:
    """`a`, and 0 after a sequence's end, whatever stands there."""
    return a if valid is None else scan.call(only_valid, a, valid)[0]


# --- what a scan calls ------------------------------------------------------------------------------------------


def _until_the_end(xp: Namespace, x: Array, update: Mask, valid: Array) -> Arrays:
    return *only_valid(xp, x, valid), times(update, valid)


def _concat(xp: Namespace, spans: Arrays) -> Arrays:
    return (xp.concat(spans, axis=0),)


def _added(xp: Namespace, totals: Arrays, more: Arrays) -> Arrays:
    return tuple(a + b for a, b in zip(totals, more, strict=True))
