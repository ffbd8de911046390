"""Stacked GRU layers, unidirectional or bidirectional.

A stack's parameters are a tuple of layers, each a tuple of one `GRUParams`, or of two: for the direction of time, and
against it. What both give stands side by side and is the next layer's input.
"""

import random
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from gru_xp.errors import ShapeError
from gru_xp.nn.cell import check_params, gru_step
from gru_xp.nn.checks import (
    check_array,
    check_flag,
    check_kind,
    check_lengths,
    generator,
    whole_number,
)
from gru_xp.nn.dropout import DropoutRates, dropout_mask, keep_mask
from gru_xp.nn.gru import GRUCache, gru_backward, gru_forward, time_first
from gru_xp.nn.ops import Array, Namespace, Ops, default_ops, ops_or_default
from gru_xp.nn.params import GRUParams, Reset, check_reset, init_params
from gru_xp.nn.pointwise import add_into, multiply

MAX_LAYERS = 1000

Layers: TypeAlias = tuple[tuple[GRUParams, ...], ...]
"""Parameters of a stack: ``layers[l][d]``, direction 0 being that of time; all of one form of the reset gate."""


class StackMasks(NamedTuple):
    """Factors of dropout and zoneout for a stack, batch first; None for nothing.

    Attributes
    ----------
    between
        One a layer, ``(B, T, D * H)``, of its input; None for the first.
    candidate, update
        One a layer and direction; see `gru_forward`.
    """

    between: tuple[Array | None, ...]
    candidate: tuple[tuple[Array | None, ...], ...]
    update: tuple[tuple[Array | float | None, ...], ...]

    def at(self, rows: slice) -> "StackMasks":
        """Of some of the sequences."""
        return StackMasks(*(_map_masks(lambda mask: mask[rows, ...], masks) for masks in self))


class StackCache(NamedTuple):
    """What `gru_stack_backward` needs of the forward pass."""

    layers: tuple[tuple[GRUCache, ...], ...]
    masks: StackMasks
    ops: Ops | None  # as it was given


def init_gru_stack_params(
    input_size: int,
    hidden_size: int,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    reset: Reset = "before",
    xp: Namespace,
    seed: int | random.Random = 0,
    dtype: Any = None,
    device: Any = None,
) -> Layers:
    """Draw the parameters of a stack, layer by layer, from one seed.

    Parameters
    ----------
    input_size, hidden_size
        I of the first layer, and H of all.
    num_layers
        L.
    bidirectional
        Whether each layer runs against time, too.
    reset, xp, seed, dtype, device
        See `init_params`.

    Returns
    -------
    tuple of L tuples of 1 or 2 GRUParams

    Raises
    ------
    ArgumentError
        `num_layers` is not from 1 to 1000, `bidirectional` is not a bool, or as `init_params`.
    ShapeError
        `dtype` is neither float32 nor float64.
    """
    rng = generator(seed)
    directions = 2 if check_flag("bidirectional", bidirectional) else 1
    return tuple(
        tuple(
            init_params(
                directions * hidden_size if layer else input_size,
                hidden_size,
                reset=reset,
                xp=xp,
                seed=rng,
                dtype=dtype,
                device=device,
            )
            for _ in range(directions)
        )
        for layer in range(whole_number("num_layers", num_layers, 1, MAX_LAYERS))
    )


def gru_stack_forward(
    x: Array,
    h0: Array | None,
    layers: Layers,
    *,
    lengths: Array | Sequence[int] | None = None,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    zoneout: float = 0.0,
    seed: int | random.Random | None = None,
    reset: Reset | None = None,
    keep_every: int | None = None,
    ops: Ops | None = None,
    with_h: bool = True,
    with_cache: bool = True,
) -> tuple[Array | None, Array, StackCache | None]:
    """Run stacked GRU layers over T steps.

    Parameters
    ----------
    x : array, shape ``(B, T, I)``
        B sequences of T steps.
    h0 : array, shape ``(L * D, B, H)``, or None
        The states before the first step of L layers in D directions, layer by layer as PyTorch has them; zeros if None.
    layers : tuple of L tuples of D GRUParams
        See `init_gru_stack_params`.
    lengths
        See `gru_forward`.
    dropout, recurrent_dropout, zoneout : float
        Rates, see `DropoutRates`. Without a `seed` nothing is left out: that is for predictions, where zoneout updates
        by its mean.
    seed : int or random.Random, optional
        Of what is left out.
    reset, keep_every, ops, with_h, with_cache
        See `gru_forward`. What a layer hands on to the next is kept for all steps.

    Returns
    -------
    h : array, shape ``(B, T, D * H)``, or None
        The last layer's states after every step, of both directions side by side.
    h_last : array, shape ``(L * D, B, H)``
        The states after the step that comes last, of all layers and directions; see `gru_forward`.
    cache
        For `gru_stack_backward`; None if it is not wanted.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit.
    ArgumentError
        A setting is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> layers = init_gru_stack_params(2, 5, num_layers=3, bidirectional=True, xp=np)
    >>> h, h_last, cache = gru_stack_forward(np.ones((3, 4, 2)), None, layers)
    >>> h.shape, h_last.shape
    ((3, 4, 10), (6, 3, 5))
    """
    check_array("x", x, ("B", "T", "I"))
    check_flag("with_h", with_h)
    check_flag("with_cache", with_cache)
    check_layers(layers, x, reset)
    rates = DropoutRates(dropout, recurrent_dropout, zoneout)
    rates.check()
    H, D = layers[0][0].hidden_size, len(layers[0])
    if h0 is not None:
        check_array("h0", h0, (len(layers) * D, x.shape[0], H), like=("x", x))
    masks = mean_masks(layers, rates) if seed is None else draw_masks(layers, x, rates, seed)
    states = [None if h0 is None else h0[i, ...] for i in range(len(layers) * D)]
    h, lasts, cache = run_layers(
        x,
        states,
        layers,
        masks,
        lengths=lengths,
        keep_every=keep_every,
        ops=ops,
        with_h=with_h,
        with_cache=with_cache,
    )
    return h, _stacked(lasts, ops_or_default(ops, x)), cache


def gru_stack_backward(
    dh: Array | None, cache: StackCache, *, dh_last: Array | None = None, with_dx: bool = True
) -> tuple[Array | None, Array, Layers]:
    """Compute the gradients of stacked GRU layers.

    Parameters
    ----------
    dh : array, shape ``(B, T, D * H)``, or None
        Gradient with respect to the last layer's states.
    cache
        From `gru_stack_forward`.
    dh_last : array, shape ``(L * D, B, H)``, or None
        Gradient with respect to `h_last`. One of the two must be given.
    with_dx : bool
        Whether the gradient with respect to the input is wanted.

    Returns
    -------
    dx : array, shape ``(B, T, I)``, or None
    dh0 : array, shape ``(L * D, B, H)``
    dlayers : tuple of L tuples of D GRUParams

    Raises
    ------
    ShapeError
        A gradient does not fit the forward pass, or both are None.
    """
    check_kind("cache", cache, StackCache, "the cache that gru_stack_forward returned")
    check_flag("with_dx", with_dx)
    if dh is None and dh_last is None:
        raise ShapeError("dh and dh_last are both None; at least one gradient must be given")
    L, D = len(cache.layers), len(cache.layers[0])
    top = cache.layers[-1][0]
    T = top.parts[0].input.x.shape[0]
    B, H, like = top.parts[-1].rows.stop, top.params.hidden_size, ("x", top.params.bias)
    if dh is not None:
        check_array("dh", dh, (B, T, D * H), like=like)
    if dh_last is not None:
        check_array("dh_last", dh_last, (L * D, B, H), like=like)
    dlasts = [None if dh_last is None else dh_last[i, ...] for i in range(L * D)]
    dx, dh0s, dlayers = back_through_layers(dh, dlasts, cache, with_dx=with_dx)
    return dx, _stacked(dh0s, cache.ops or default_ops(top.params.bias)), dlayers


def gru_stack_step(x: Array, h: Array, layers: Layers, *, reset: Reset | None = None, ops: Ops | None = None) -> Array:
    """Run one step of stacked GRU layers, for values that arrive one at a time; see `gru_step`.

    Parameters
    ----------
    x : array, shape ``(B, I)``
        The step's input.
    h : array, shape ``(L, B, H)``
        The states of all layers before the step.
    layers : tuple of L tuples of one GRUParams
        Layers that run against time, too, cannot be run step by step.
    reset, ops
        See `gru_forward`.

    Returns
    -------
    array, shape ``(L, B, H)``
        The states after the step; those of the last layer are the stack's result.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit, or the stack is bidirectional.
    ArgumentError
        `reset` is not the form of `layers`.
    """
    check_array("x", x, ("B", "I"))
    check_layers(layers, x, reset)
    if len(layers[0]) != 1:
        raise ShapeError("layers run in both directions; a step at a time can be taken in the direction of time only")
    check_array("h", h, (len(layers), x.shape[0], layers[0][0].hidden_size), like=("x", x))
    states = []
    for (params,), state in zip(layers, [h[i, ...] for i in range(len(layers))], strict=True):
        x = gru_step(x, state, params, ops=ops)
        states.append(x)
    return _stacked(states, ops_or_default(ops, x))


def check_layers(layers: Layers, x: Array, reset: Reset | None = None) -> None:
    """Raise an error unless `layers` goes together, with the input `x`, whose last size is I, and with `reset`.

    Raises
    ------
    ShapeError
        The layers or their shapes do not go together, or not all are of one form of the reset gate.
    ArgumentError
        `reset` is given, and is not their form.
    """
    if not (isinstance(layers, tuple) and layers and all(isinstance(layer, tuple) and layer for layer in layers)):
        raise ShapeError(
            f"layers is a {type(layers).__name__}; it must be a tuple of layers, each a tuple of GRUParams"
        )
    D = len(layers[0])
    if isinstance(layers[0], GRUParams) or D > 2 or any(len(layer) != D for layer in layers):
        raise ShapeError("layers must be a tuple of layers, each a tuple of one GRUParams, or each of two")
    I = int(x.shape[-1])  # noqa: E741
    check_params(layers[0][0], x, name="layers[0][0]", input_size=I)
    H, form = layers[0][0].hidden_size, layers[0][0].reset
    for number, layer in enumerate(layers):
        for direction, params in enumerate(layer):
            check_params(params, x, name=f"layers[{number}][{direction}]", input_size=I, hidden_size=H)
            if params.reset != form:
                raise ShapeError(
                    f"layers[{number}][{direction}] has the form {params.reset!r} of the reset gate (bias_hn is "
                    f"{'None' if params.bias_hn is None else 'an array'}); it must be {form!r}, as of layers[0][0]: "
                    "make all layers and directions with the same reset"
                )
        I = D * H  # noqa: E741
    check_reset(reset, layers[0][0], "layers")


def draw_masks(layers: Layers, x: Array, rates: DropoutRates, seed: int | random.Random) -> StackMasks:
    """What to leave out of a training step on sequences `x` ``(B, T, I)``."""
    rng = generator(seed)
    B, T, _ = x.shape
    L, D, H = len(layers), len(layers[0]), layers[0][0].hidden_size

    def draw(draw_one: Any, shape: tuple[int, ...], rate: float) -> Array | None:
        return draw_one(shape, rate, seed=rng, like=x) if rate > 0 else None

    def draw_each(draw_one: Any, shape: tuple[int, ...], rate: float) -> tuple[tuple[Array | None, ...], ...]:
        return tuple(tuple(draw(draw_one, shape, rate) for _ in range(D)) for _ in range(L))

    return StackMasks(
        (None, *(draw(dropout_mask, (B, T, D * H), rates.between) for _ in range(L - 1))),
        draw_each(dropout_mask, (B, H), rates.recurrent),
        draw_each(keep_mask, (B, T, H), rates.zoneout),
    )


def mean_masks(layers: Layers, rates: DropoutRates = DropoutRates()) -> StackMasks:  # noqa: B008
    """The masks' means, for predictions."""
    L, D = len(layers), len(layers[0])
    update = 1.0 - rates.zoneout if rates.zoneout > 0 else None
    return StackMasks((None,) * L, ((None,) * D,) * L, ((update,) * D,) * L)


def run_layers(
    x: Array,
    h0: Sequence[Array | None],
    layers: Layers,
    masks: StackMasks,
    *,
    lengths: Array | Sequence[int] | None = None,
    ops: Ops | None = None,
    with_h: bool = True,
    with_cache: bool = True,
    **options: Any,
) -> tuple[Array | None, list[Array], StackCache | None]:
    """`gru_stack_forward` without checks, of states and masks in lists."""
    used_ops = ops_or_default(ops, x)
    if lengths is not None:
        lengths = check_lengths(lengths, x)
    lasts: list[Array] = []
    caches: list[tuple[Any, ...]] = []
    h: Array | None = x
    for number, layer in enumerate(layers):
        mask = masks.between[number]
        x = h if mask is None else _product(h, mask, used_ops)
        hs, layer_lasts, layer_caches = zip(
            *(
                gru_forward(
                    x,
                    h0[len(lasts) + direction],
                    params,
                    lengths=lengths,
                    reverse=direction == 1,
                    candidate_mask=masks.candidate[number][direction],
                    update_mask=masks.update[number][direction],
                    ops=ops,
                    with_h=with_h or number < len(layers) - 1,
                    with_cache=with_cache,
                    **options,
                )
                for direction, params in enumerate(layer)
            ),
            strict=True,
        )
        lasts += layer_lasts
        caches.append(layer_caches)
        h = None if hs[0] is None else side_by_side(hs, used_ops)
    return h, lasts, StackCache(tuple(caches), masks, ops) if with_cache else None


def back_through_layers(
    dh: Array | None, dh_last: Sequence[Array | None], cache: StackCache, *, with_dx: bool = True
) -> tuple[Array | None, list[Array], Layers]:
    """`gru_stack_backward` without checks, of states in lists."""
    D, H = len(cache.layers[0]), cache.layers[0][0].params.hidden_size
    ops = cache.ops or default_ops(cache.layers[0][0].params.bias)
    dh0: list[Array] = []
    dlayers: list[tuple[GRUParams, ...]] = []
    for number in reversed(range(len(cache.layers))):
        wants_dx = with_dx or number > 0
        dxs, layer_dh0, dparams = zip(
            *(
                _back_through(
                    None if dh is None else dh[..., direction * H : (direction + 1) * H],
                    dh_last[number * D + direction],
                    gru_cache,
                    wants_dx,
                    ops,
                )
                for direction, gru_cache in enumerate(cache.layers[number])
            ),
            strict=True,
        )
        dh0 = [*layer_dh0, *dh0]
        dlayers.insert(0, dparams)
        dh = dxs[0]
        if wants_dx and D == 2:
            add_into(dh, dxs[1], ops)
        mask = cache.masks.between[number]
        if mask is not None:
            dh = _product(dh, mask, ops)
    return dh, dh0, tuple(dlayers)


def _back_through(
    dh: Array | None, dh_last: Array | None, cache: GRUCache, with_dx: bool, ops: Ops
) -> tuple[Array | None, Array, GRUParams]:
    if dh is None and dh_last is None:  # nobody reads this direction
        part = cache.parts[-1]
        dh_last = ops.empty((part.rows.stop, cache.params.hidden_size), like=cache.params.bias)
        ops.copy(0.0, dh_last)
    return gru_backward(dh, cache, dh_last=dh_last, with_dx=with_dx)


def side_by_side(arrays: Sequence[Array], ops: Ops) -> Array:
    """Arrays ``(..., size)`` of two directions as one ``(..., 2 * size)``; one stays as it is."""
    if len(arrays) == 1:
        return arrays[0]
    first, second = arrays
    size = first.shape[-1]
    if first.ndim == 3:  # time first in memory, as the steps have it
        B, T, _ = first.shape
        both = time_first(ops.empty((T, B, 2 * size), like=first))
    else:
        both = ops.empty((*first.shape[:-1], 2 * size), like=first)
    ops.copy(first, both[..., :size])
    ops.copy(second, both[..., size:])
    return both


def _product(a: Array, mask: Array, ops: Ops) -> Array:
    B, T, size = a.shape
    masked = time_first(ops.empty((T, B, size), like=a))
    ops.pointwise(multiply, (a, mask), out=(masked,))
    return masked


def _stacked(states: Sequence[Array], ops: Ops) -> Array:
    """States ``(B, H)`` as one array ``(N, B, H)``."""
    stacked = ops.empty((len(states), *states[0].shape), like=states[0])
    for number, state in enumerate(states):
        ops.copy(state, stacked[number, ...])
    return stacked


def _map_masks(function: Any, masks: Any) -> Any:
    if isinstance(masks, tuple):
        return tuple(map(partial(_map_masks, function), masks))
    return masks if masks is None or isinstance(masks, float) else function(masks)
