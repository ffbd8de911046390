"""Stacked GRU layers, unidirectional or bidirectional.

A stack's parameters are a tuple of layers, each a tuple of one `GRUParams`, or of two: for the direction of time, and
against it. What both give stands side by side and is the next layer's input.
"""

import random
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from gru_xp.errors import ShapeError
from gru_xp.nn.cell import check_params, state_after
from gru_xp.nn.checks import (
    check_array,
    check_flag,
    check_kind,
    check_lengths,
    check_optional,
    generator,
    whole_number,
)
from gru_xp.nn.dropout import DropoutRates, dropout_mask, keep_mask
from gru_xp.nn.gru import GRUCache, back_through_layer, batch_first, inputs_of, run_layer, time_first, valid_steps
from gru_xp.nn.params import GRUParams, Reset, check_reset, init_gru_params
from gru_xp.nn.pointwise import add, multiply
from gru_xp.nn.scan import Array, Arrays, Namespace, Scan, scan_of

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
    ops: Scan | None  # as it was given


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
        See `init_gru_params`.

    Returns
    -------
    tuple of L tuples of 1 or 2 GRUParams

    Raises
    ------
    ArgumentError
        `num_layers` is not from 1 to 1000, `bidirectional` is not a bool, or as `init_gru_params`.
    ShapeError
        `dtype` is neither float32 nor float64.
    """
    rng = generator(seed)
    directions = 2 if check_flag("bidirectional", bidirectional) else 1
    return tuple(
        tuple(
            init_gru_params(
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
    ops: Scan | None = None,
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
    if keep_every is not None:
        whole_number("keep_every", keep_every, 1)
    rates = DropoutRates(dropout, recurrent_dropout, zoneout)
    rates.check()
    H, D = layers[0][0].hidden_size, len(layers[0])
    check_optional("h0", h0, (len(layers) * D, x.shape[0], H), like=("x", x))
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
    scan = scan_of(x, ops)
    return batch_first(h), scan.call(_stacked, tuple(lasts))[0], cache


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
    (T, B), H, like = top.size, top.params.hidden_size, ("x", top.params.bias)
    check_optional("dh", dh, (B, T, D * H), like=like)
    check_optional("dh_last", dh_last, (L * D, B, H), like=like)
    dlasts = [None if dh_last is None else dh_last[i, ...] for i in range(L * D)]
    dx, dh0s, dlayers = back_through_layers(time_first(dh), dlasts, cache, with_dx=with_dx)
    scan = scan_of(top.params.bias, cache.ops)
    return batch_first(dx), scan.call(_stacked, tuple(dh0s))[0], dlayers


def gru_stack_step(x: Array, h: Array, layers: Layers, *, reset: Reset | None = None, ops: Scan | None = None) -> Array:
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
    scan = scan_of(x, ops)
    states = scan.call(_step, layers, x, *(h[i, ...] for i in range(len(layers))))
    return scan.call(_stacked, states)[0]


def patch_size(layers: Layers, x: Array) -> int:
    """How many rows of `x` ``(B, T, I)`` are one step of `layers`, as their input size tells; 1 if none fits."""
    _, T, I = x.shape  # noqa: E741
    rows, rest = divmod(layers[0][0].input_size, I)
    return rows if rows <= T and not rest else 1


def check_layers(layers: Layers, x: Array, reset: Reset | None = None, *, patches: bool = False) -> None:
    """Raise an error unless `layers` goes together, with the input `x`, whose last size is I, and with `reset`.

    With `patches`, `x` is ``(B, T, I)``, and several rows of it may be one step.

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
    if patches:
        check_kind("layers[0][0]", layers[0][0], GRUParams, "a GRUParams")
        check_array("layers[0][0].weight_ih", layers[0][0].weight_ih, ("3H", "I"), like=("x", x))
        I *= patch_size(layers, x)  # noqa: E741
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
    """What to leave out of a training step on sequences `x` ``(B, T, I)``, in patches or not."""
    rng = generator(seed)
    B, T = x.shape[0], -(-x.shape[1] // patch_size(layers, x))
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
    keep_every: int | None = None,
    ops: Scan | None = None,
    with_h: bool = True,
    with_cache: bool = True,
) -> tuple[Array | None, list[Array], StackCache | None]:
    """`gru_stack_forward` with checks of `lengths` alone, of states and masks in lists; the states are time first."""
    scan, valid = scan_of(x, ops), None if lengths is None else valid_steps(check_lengths(lengths, x), x)
    lasts: list[Array] = []
    caches: list[tuple[Any, ...]] = []
    h: Array | None = time_first(x)
    for number, layer in enumerate(layers):
        mask = masks.between[number]
        if mask is not None:
            (h,) = scan.call(multiply, h, time_first(mask))
        hs = []
        for direction, params in enumerate(layer):
            inputs = inputs_of(h, x, masks.update[number][direction], masks.candidate[number][direction], valid)
            keep_h, before = with_h or number < len(layers) - 1, h0[len(lasts) + direction]
            hs.append(run_layer(inputs, before, params, direction == 1, keep_every, ops, keep_h, with_cache))
        states, layer_lasts, layer_caches = zip(*hs, strict=True)
        lasts += layer_lasts
        caches.append(layer_caches)
        h = None if states[0] is None else side_by_side(states, scan)
    return h, lasts, StackCache(tuple(caches), masks, ops) if with_cache else None


def back_through_layers(
    dh: Array | None, dh_last: Sequence[Array | None], cache: StackCache, *, with_dx: bool = True
) -> tuple[Array | None, list[Array], Layers]:
    """`gru_stack_backward` without checks, of states in lists, `dh` and `dx` time first."""
    D, top = len(cache.layers[0]), cache.layers[-1][0].params
    scan, H = scan_of(top.bias, cache.ops), top.hidden_size
    dh0: list[Array] = []
    dlayers: list[tuple[GRUParams, ...]] = []
    for number in reversed(range(len(cache.layers))):
        wants_dx = with_dx or number > 0
        results = []
        for direction, layer_cache in enumerate(cache.layers[number]):
            dh_one = dh if dh is None or D == 1 else dh[..., direction * H : (direction + 1) * H]
            results.append(back_through_layer(dh_one, dh_last[number * D + direction], layer_cache, wants_dx))
        dxs, layer_dh0, dparams = zip(*results, strict=True)
        dh0 = [*layer_dh0, *dh0]
        dlayers.insert(0, dparams)
        (dh,) = scan.call(add, *dxs) if wants_dx and D == 2 else dxs[:1]
        mask = cache.masks.between[number]
        if mask is not None:
            (dh,) = scan.call(multiply, dh, time_first(mask))
    return dh, dh0, tuple(dlayers)


def side_by_side(arrays: Sequence[Array], scan: Scan) -> Array:
    """Arrays ``(..., size)``, such as those of two directions, as one ``(..., sum of sizes)``; one stays as it is."""
    return arrays[0] if len(arrays) == 1 else scan.call(_concat, tuple(arrays))[0]


def _step(xp: Namespace, layers: Layers, x: Array, *states: Array) -> Arrays:
    after: Arrays = ()
    for (params,), state in zip(layers, states, strict=True):
        after += state_after(xp, after[-1] if after else x, state, params)
    return after


def _concat(xp: Namespace, arrays: Arrays) -> Arrays:
    return (xp.concat(arrays, axis=-1),)


def _stacked(xp: Namespace, states: Arrays) -> Arrays:
    return (xp.concat([state[None, ...] for state in states], axis=0),)


def _map_masks(function: Any, masks: Any) -> Any:
    if isinstance(masks, tuple):
        return tuple(map(partial(_map_masks, function), masks))
    return masks if masks is None or isinstance(masks, float) else function(masks)
