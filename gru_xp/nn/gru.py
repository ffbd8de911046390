"""A GRU layer over whole sequences: the steps of ``cell.py``, one after the other, and back."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from array_api_compat import array_namespace

from gru_xp.errors import ShapeError
from gru_xp.nn.cell import FORMS, RESETS, Form, Joint, Memory, Reset, check_params, run_parts, sum_of_parts
from gru_xp.nn.checks import check_array, check_choice, check_kind
from gru_xp.nn.ops import Array, Ops, default_ops
from gru_xp.nn.params import GRUParams
from gru_xp.nn.pointwise import add_into


class PartCache(NamedTuple):
    """What the backward pass needs of some sequences' forward pass; time is the first axis."""

    rows: slice  # which sequences
    memory: Memory


class GRUCache(NamedTuple):
    """What `gru_backward` needs of the forward pass."""

    parts: Sequence[PartCache]
    params: GRUParams
    reset: Reset
    ops: Ops | None  # as it was given


def gru_forward(
    x: Array,
    h0: Array | None,
    params: GRUParams,
    *,
    reset: Reset = "before",
    ops: Ops | None = None,
    with_cache: bool = True,
) -> tuple[Array, Array, GRUCache | None]:
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
    ops : Ops, optional
        How to allocate, multiply and run pointwise expressions; the fastest way known for `x` if left out.
    with_cache : bool
        Whether `gru_backward` will follow; a prediction can do without, with less memory.

    Returns
    -------
    h : array, shape ``(B, T, H)``
        The state after every step. It may share memory with the cache.
    h_last : array, shape ``(B, H)``
        The state after the last step.
    cache
        For `gru_backward`; None if it is not wanted.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit.

    Notes
    -----
    Inputs must be finite: an infinite one may give NaN.

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
    B, T, I = x.shape  # noqa: E741
    H = params.hidden_size
    if h0 is not None:
        check_array("h0", h0, (B, H), like=("x", x))
    given_ops, ops = ops, ops or default_ops(x)

    form = FORMS[reset]
    parts = ops.parts(B, T, I, H)
    states = ops.empty((T, B, H), like=x) if len(parts) > 1 else None

    def forward(rows: slice, ops: Ops) -> PartCache | None:
        memory = form.memory((T, rows.stop - rows.start), I, H, like=x, ops=ops, keep=with_cache)
        ops.copy(0.0 if h0 is None else h0[rows, ...], memory.joint[0, :, :H])
        form.write_input(memory, time_first(x[rows, ...]), ops)
        run_steps(form, form.weights(params, ops), memory, ops)
        if states is not None:
            ops.copy(memory.joint[1:, :, :H], states[:, rows, :])
        # What nobody needs any more makes room for other parts.
        return PartCache(rows, memory) if with_cache or states is None else None

    results = ops.run([(part_ops, partial(forward, rows, part_ops)) for rows, part_ops in parts])
    caches = [cache for cache in results if cache is not None]
    if states is None:
        states = caches[0].memory.joint[1:, :, :H]
    return time_first(states), states[-1, ...], GRUCache(caches, params, reset, given_ops) if with_cache else None


def run_steps(form: Form, weights: Joint, memory: Memory, ops: Ops) -> None:
    """The forward pass over all steps in `memory`, which holds the input and the first state."""
    joint, _, n, _ = memory
    H = n.shape[-1]
    form.input_product(memory, weights, ops)
    ops.loop(lambda t: form.forward(weights, memory.at(t), joint[t + 1, :, :H], ops), range(joint.shape[0] - 1))


def gru_backward(
    dh: Array | None, cache: GRUCache, *, dh_last: Array | None = None, with_dx: bool = True
) -> tuple[Array, Array, GRUParams]:
    """Gradients of a GRU layer, back through all T steps.

    Parameters
    ----------
    dh : array, shape ``(B, T, H)``, or None
        Gradient with respect to the state after every step.
    cache
        From `gru_forward`.
    dh_last : array, shape ``(B, H)``, or None
        Gradient with respect to `h_last`; it is added to that of the last step. One of the two must be given.
    with_dx : bool
        Whether the gradient with respect to the input is wanted; a first layer can do without.

    Returns
    -------
    dx : array, shape ``(B, T, I)``, or None
    dh0 : array, shape ``(B, H)``
    dparams : GRUParams

    Raises
    ------
    ShapeError
        A gradient does not fit the forward pass, or both are None.
    """
    check_kind("cache", cache, GRUCache, "the cache that gru_forward returned")
    parts, params, reset, given_ops = cache
    T, _, H = parts[0].memory.n.shape
    B, I = parts[-1].rows.stop, params.input_size  # noqa: E741
    if dh is None and dh_last is None:
        raise ShapeError("dh and dh_last are both None; at least one gradient must be given")
    if dh is not None:
        check_array("dh", dh, (B, T, H), like=("x", params.bias))
    if dh_last is not None:
        check_array("dh_last", dh_last, (B, H), like=("x", params.bias))
    ops = given_ops or default_ops(params.bias)

    form = FORMS[reset]

    def backward(rows: slice, memory: Memory, ops: Ops) -> tuple[Array, Array, Joint]:
        n_rows = rows.stop - rows.start
        block = ops.block_length(T, n_rows, H)
        da_rec = ops.empty((block, n_rows, form.recurrent_gates * H), like=memory.n)
        da_n = ops.empty((block, n_rows, H), like=memory.n)
        carry, *scratch = (ops.empty((n_rows, H), like=memory.n) for _ in range(3))  # carry: dh before the step
        dweights = form.weights_like(params, ops)
        dx = ops.empty((T, n_rows, I), like=memory.n) if with_dx else None
        ops.copy(0.0 if dh_last is None else dh_last[rows, ...], carry)
        dh_steps = None if dh is None else time_first(dh[rows, ...])

        def step(start: int, t: int) -> None:
            if dh_steps is not None:
                add_into(carry, dh_steps[t, ...], ops)
            da = da_rec[t - start, ...], da_n[t - start, ...]
            form.backward(carry, memory.at(t), *da, carry, scratch, params, ops)

        for stop in range(T, 0, -block):
            start = max(stop - block, 0)
            n_steps = stop - start
            ops.loop(partial(step, start), range(stop - 1, start - 1, -1))
            da = da_rec[:n_steps, ...], da_n[:n_steps, ...]
            form.weight_gradients(memory.joint[start:stop, ...], *da, dweights, ops, add=stop < T)
            if dx is not None:
                form.input_gradient(*da, params, dx[start:stop, ...], ops)
        return dx, carry, dweights

    results = run_parts(backward, parts, ops.parts(B, T, I, H), ops)
    dx_parts, dh0_parts, dweights = zip(*results, strict=True)
    rows = [part.rows for part in parts]
    dx = time_first(_joined(dx_parts, rows, ops)) if with_dx else None
    return dx, _joined(dh0_parts, rows, ops), form.params(sum_of_parts(dweights, ops), params, ops)


def time_first(a: Array) -> Array:
    """``(B, T, ...)`` to ``(T, B, ...)``, and the other way round."""
    return array_namespace(a).permute_dims(a, (1, 0, 2))


def _joined(parts: Sequence[Array], rows: Sequence[slice], ops: Ops) -> Array:
    """Arrays ``(..., b, size)`` of some sequences as one of all; the array itself where it is the only one."""
    if len(parts) == 1:
        return parts[0]
    *steps, _, size = parts[0].shape
    whole = ops.empty((*steps, rows[-1].stop, size), like=parts[0])
    for part, its_rows in zip(parts, rows, strict=True):
        ops.copy(part, whole[..., its_rows, :])
    return whole
