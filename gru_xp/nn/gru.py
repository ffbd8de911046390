"""A GRU layer over whole sequences: the steps of ``cell.py``, one after the other, and back."""

from collections.abc import Generator, Sequence
from functools import partial
from itertools import pairwise
from numbers import Real
from typing import NamedTuple

from array_api_compat import array_namespace, device

from gru_xp.errors import ShapeError
from gru_xp.nn.cell import (
    FORMS,
    NO_MASKS,
    Form,
    Joint,
    Masks,
    Memory,
    check_params,
    sum_of_parts,
    with_workers,
)
from gru_xp.nn.checks import check_array, check_flag, check_kind, check_lengths, share, whole_number
from gru_xp.nn.ops import Array, Namespace, Ops, Result, default_ops, ops_or_default
from gru_xp.nn.params import GRUParams, Reset, check_reset
from gru_xp.nn.pointwise import add_into, multiply, only_valid


class Steps(NamedTuple):
    """Memory of some steps, and the states around them; time is the first axis, whatever the direction."""

    memory: Memory  # of as many steps: h before the step, x, 1, ...
    h: Array  # (T, B, H): the state after each step
    first: Array  # (B, H): the state before the step that is run first
    last: Array  # (B, H): the state after the step that is run last


class Input(NamedTuple):
    """What enters the steps of some sequences; time is the first axis."""

    x: Array  # (T, B, I)
    valid: Array | None  # (T, B, 1): 1 before a sequence's end, 0 after it; None if none ends early
    masks: Masks

    def at(self, span: slice, ops: Ops) -> "Input":
        """What enters some of the steps; those after a sequence's end update nothing."""
        x, masks = self.x[span, ...], self.masks.at(span)
        if self.valid is None:
            return Input(x, None, masks)
        valid, update = self.valid[span, ...], masks.update
        if update is None:
            return Input(x, valid, masks._replace(update=valid))
        both = ops.empty(valid.shape if isinstance(update, float) else update.shape, like=x)
        ops.pointwise(multiply, (valid, update), out=(both,))
        return Input(x, valid, masks._replace(update=both))


class PartCache(NamedTuple):
    """What the backward pass needs of some sequences' forward pass."""

    rows: slice  # which sequences
    input: Input
    steps: Steps | None  # all of them; or, to compute them again,
    starts: Array | None  # (N, B, H): the states before each of N spans


class GRUCache(NamedTuple):
    """What `gru_backward` needs of the forward pass."""

    parts: Sequence[PartCache]
    params: GRUParams
    reset: Reset
    reverse: bool
    spans: Sequence[slice]  # of steps, in the order in which they were run
    ops: Ops | None  # as it was given


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
    ops: Ops | None = None,
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
        third more time. `x` is read again then: it must not change in between. The gradients are the same, but for the
        rounding of sums over steps that are taken in other groups.
    ops : Ops, optional
        How to allocate, multiply and run pointwise expressions; the fastest way known for `x` if left out.
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

    Arrays that record their operations for automatic differentiation must be detached first (of PyTorch:
    ``tensor.detach()``, or the calls inside ``torch.no_grad()``).

    Examples
    --------
    >>> import numpy as np
    >>> params = init_params(2, 5, xp=np, seed=0)
    >>> h, h_last, cache = gru_forward(np.ones((3, 4, 2)), None, params, lengths=[4, 0, 2])
    >>> h.shape, h_last.shape
    ((3, 4, 5), (3, 5))
    """
    for name, flag in (("reverse", reverse), ("with_h", with_h), ("with_cache", with_cache)):
        check_flag(name, flag)
    check_array("x", x, ("B", "T", "I"))
    check_params(params, x)
    reset = check_reset(reset, params)
    B, T, I = x.shape  # noqa: E741
    H = params.hidden_size
    if h0 is not None:
        check_array("h0", h0, (B, H), like=("x", x))
    if lengths is not None:
        lengths = check_lengths(lengths, x)
    if candidate_mask is not None:
        check_array("candidate_mask", candidate_mask, (B, H), like=("x", x))
    if isinstance(update_mask, Real):  # NumPy's are float64 to arrays, and strangers to other namespaces
        update_mask = share("update_mask", update_mask)
    elif update_mask is not None:
        check_array("update_mask", update_mask, (B, T, H), like=("x", x))
    if keep_every is not None:
        whole_number("keep_every", keep_every, 1)
    given_ops, ops = ops, ops_or_default(ops, x)

    form = FORMS[reset]
    spans = _spans(T, keep_every or T, reverse)
    longest = min(T, keep_every or T)
    parts = ops.parts(B, longest, I, H)
    keep = with_cache and len(spans) == 1
    whole = len(parts) == len(spans) == 1  # there is nothing to put together
    h = ops.empty((T, B, H), like=x) if with_h and (lengths is not None or not whole) else None
    h_last = None if whole else ops.empty((B, H), like=x)

    def forward(rows: slice, ops: Ops) -> Generator[PartCache, None, None]:
        """The pass of some sequences, span by span."""
        input = _input(x, lengths, candidate_mask, update_mask, rows)
        weights = form.weights(params, ops)
        n_rows = rows.stop - rows.start
        memory = form.memory((longest, n_rows), I, H, like=x, ops=ops, keep=keep)
        starts = ops.empty((len(spans), n_rows, H), like=x) if with_cache and not keep else None
        state = 0.0 if h0 is None else h0[rows, ...]
        for number, span in enumerate(spans):
            if starts is not None:
                ops.copy(state, starts[number, ...])
            steps = steps_of(memory, span.stop - span.start, reverse)
            span_input = input.at(span, ops)
            _run(form, weights, steps, state, span_input, reverse, ops)
            state = steps.last
            if h is not None:
                _write_valid(steps.h, span_input.valid, h[span, rows, :], ops)
            if h_last is not None:
                ops.copy(state, h_last[rows, :])
            # What nobody needs any more makes room for other parts.
            yield PartCache(rows, input, steps if keep or whole else None, starts)

    caches = _run_spans([(part_ops, forward(rows, part_ops)) for rows, part_ops in parts], len(spans), ops)
    if whole:
        steps = caches[0].steps
        assert steps is not None
        h_last = steps.last
        if with_h and h is None:
            h = steps.h
    cache = GRUCache(caches, params, reset, reverse, spans, given_ops) if with_cache else None
    return None if h is None else time_first(h), h_last, cache


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
    parts, params, reset, reverse, spans, given_ops = cache
    T, _, I = parts[0].input.x.shape  # noqa: E741
    B, H = parts[-1].rows.stop, params.hidden_size
    if dh is None and dh_last is None:
        raise ShapeError("dh and dh_last are both None; at least one gradient must be given")
    if dh is not None:
        check_array("dh", dh, (B, T, H), like=("x", params.bias))
    if dh_last is not None:
        check_array("dh_last", dh_last, (B, H), like=("x", params.bias))
    ops = given_ops or default_ops(params.bias)

    form = FORMS[reset]
    longest = max(span.stop - span.start for span in spans)

    def backward(part: PartCache, ops: Ops) -> Generator[tuple[Array | None, Array, Joint], None, None]:
        """The way back of some sequences, span by span."""
        rows, like = part.rows, params.bias
        n_rows = rows.stop - rows.start
        block_length = min(longest, ops.block_length(T, n_rows, H))
        da_rec = ops.empty((block_length, n_rows, form.recurrent_gates * H), like=like)
        da_n = ops.empty((block_length, n_rows, H), like=like)
        carry, *scratch = (ops.empty((n_rows, H), like=like) for _ in range(3))  # carry: dh before the step
        dweights = form.weights_like(params, ops)
        dx = ops.empty((T, n_rows, I), like=like) if with_dx else None
        dh_steps = None if dh is None else time_first(dh[rows, ...])
        # Where the steps were not kept: the memory and the weights to run them again.
        memory = None if part.steps else form.memory((longest, n_rows), I, H, like=like, ops=ops)
        weights = None if part.steps else form.weights(params, ops)

        def step(steps: Steps, input: Input, span: slice, block: slice, t: int) -> None:
            if dh_steps is not None:
                _add_valid(carry, dh_steps[span.start + t, ...], input.valid, t, ops)
            da = da_rec[t - block.start, ...], da_n[t - block.start, ...]
            form.backward(carry, steps.memory.at(t), *da, carry, scratch, input.masks.at(t), params, ops)

        ops.copy(0.0 if dh_last is None else dh_last[rows, ...], carry)
        first_block = True
        for number in reversed(range(len(spans))):
            span = spans[number]
            input, n_steps, steps = part.input.at(span, ops), span.stop - span.start, part.steps
            if steps is None:
                assert memory is not None
                assert weights is not None
                assert part.starts is not None
                steps = steps_of(memory, n_steps, reverse)
                _run(form, weights, steps, part.starts[number, ...], input, reverse, ops)
            for block in reversed(_spans(n_steps, block_length, reverse)):
                ops.loop(partial(step, steps, input, span, block), _in_order(block, reverse)[::-1])
                length = block.stop - block.start
                da = da_rec[:length, ...], da_n[:length, ...]
                form.weight_gradients(steps.memory.joint[block, ...], *da, dweights, ops, add=not first_block)
                if dx is not None:
                    form.input_gradient(*da, params, dx[span, ...][block, ...], ops)
                first_block = False
            yield dx, carry, dweights

    passes = [(worker, backward(part, worker)) for part, worker in with_workers(parts, ops.parts(B, longest, I, H))]
    results = _run_spans(passes, len(spans), ops)
    dx_parts, dh0_parts, dweights = zip(*results, strict=True)
    rows = [part.rows for part in parts]
    dx = time_first(_joined(dx_parts, rows, ops)) if with_dx else None
    return dx, _joined(dh0_parts, rows, ops), form.params(sum_of_parts(dweights, ops), params, ops)


def _run_spans(passes: Sequence[tuple[Ops, Generator[Result, None, None]]], n_spans: int, ops: Ops) -> list[Result]:
    """What passes give after the last of their spans.

    Spans are run one by one, as what is noted of their calls is memory, too; and passes that share ops one after the
    other, to the end, so that one's memory is there for the next.
    """

    def advance(part: Generator[Result, None, None], is_last: bool) -> Result:
        result = next(part)
        if is_last:
            part.close()  # forgets its memory
        return result

    if n_spans == 1:
        return ops.run([(part_ops, partial(advance, part, True)) for part_ops, part in passes])
    results: list[Result] = []
    n_together = len({id(part_ops) for part_ops, _ in passes})
    for start in range(0, len(passes), n_together):
        together = passes[start : start + n_together]
        for number in range(n_spans):
            is_last = number == n_spans - 1
            last = ops.run([(part_ops, partial(advance, part, is_last)) for part_ops, part in together])
        results += last
    return results


def steps_of(memory: Memory, n_steps: int, reverse: bool) -> Steps:
    """The first steps of memory that has one place more for states than it has steps.

    A step's input stands beside the state before it: of the place before, or with `reverse` of the place after.
    """
    H = memory.n.shape[-1]
    places = memory.joint[: n_steps + 1, ...]
    h = places[..., :H]
    before, after = (slice(1, None), slice(0, -1)) if reverse else (slice(0, -1), slice(1, None))
    first, last = (n_steps, 0) if reverse else (0, n_steps)
    others = (array[: min(n_steps, array.shape[0]), ...] for array in memory[1:])
    return Steps(Memory(places[before, ...], *others), h[after, ...], h[first, ...], h[last, ...])


def run_steps(
    form: Form, weights: Joint, steps: Steps, ops: Ops, *, masks: Masks = NO_MASKS, reverse: bool = False
) -> None:
    """The forward pass over all steps, whose memory holds the input and the first state."""
    form.input_product(steps.memory, weights, ops)
    times = _in_order(slice(0, steps.h.shape[0]), reverse)
    ops.loop(lambda t: form.forward(weights, steps.memory.at(t), steps.h[t, ...], masks.at(t), ops), times)


def _run(form: Form, weights: Joint, steps: Steps, state: Array | float, input: Input, reverse: bool, ops: Ops) -> None:
    """The forward pass over some steps, from the state before them."""
    ops.copy(state, steps.first)
    form.write_input(steps.memory, input.x, ops, valid=input.valid)
    run_steps(form, weights, steps, ops, masks=input.masks, reverse=reverse)


def _spans(n: int, length: int, reverse: bool) -> list[slice]:
    """`n` steps in runs of `length`, in the order in which they are run; the first one may be shorter."""
    edges = sorted({0, *range(n, 0, -length)})
    return [slice(n - stop, n - start) if reverse else slice(start, stop) for start, stop in pairwise(edges)]


def _in_order(span: slice, reverse: bool) -> range:
    """The steps of a span in the order in which they are run."""
    times = range(span.start, span.stop)
    return times[::-1] if reverse else times


def _input(
    x: Array,
    lengths: Array | None,
    candidate_mask: Array | None,
    update_mask: Array | float | None,
    rows: slice,
) -> Input:
    x = time_first(x[rows, ...])
    candidate = None if candidate_mask is None else candidate_mask[rows, ...]
    update = (
        update_mask if update_mask is None or isinstance(update_mask, float) else time_first(update_mask[rows, ...])
    )
    valid = None if lengths is None else _valid_steps(lengths[rows], x)
    return Input(x, valid, Masks(update, candidate))


def _valid_steps(lengths: Array, x: Array) -> Array:
    """``(T, B, 1)``: 1 before a sequence's end, 0 after it."""
    xp = array_namespace(x)
    times = xp.arange(x.shape[0], dtype=lengths.dtype, device=device(x))
    return xp.astype(xp.reshape(times, (-1, 1, 1)) < xp.reshape(lengths, (1, -1, 1)), x.dtype)


def _write_valid(a: Array, valid: Array | None, out: Array, ops: Ops) -> None:
    if valid is None:
        ops.copy(a, out)
    else:
        ops.pointwise(only_valid, (a, valid), out=(out,))


def _add_valid(total: Array, a: Array, valid: Array | None, t: int, ops: Ops) -> None:
    if valid is None:
        add_into(total, a, ops)
    else:
        ops.pointwise(_plus_valid, (total, a, valid[t, ...]), out=(total,))


def _plus_valid(xp: Namespace, total: Array, a: Array, valid: Array) -> tuple[Array]:
    return (total + only_valid(xp, a, valid)[0],)


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
