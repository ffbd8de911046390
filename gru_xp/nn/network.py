"""The whole network: GRU layers, and a linear layer on their last states."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gru_xp.nn.checks import check_array, check_flag, check_kind, generator, whole_number
from gru_xp.nn.gru import batch_first
from gru_xp.nn.linear import LinearCache, linear_backward, linear_forward
from gru_xp.nn.params import LinearParams, Reset, init_linear_params
from gru_xp.nn.scan import Array, Namespace, Scan, scan_of
from gru_xp.nn.stack import (
    Layers,
    StackCache,
    StackMasks,
    back_through_layers,
    check_layers,
    init_gru_stack_params,
    mean_masks,
    run_layers,
    side_by_side,
)


class NetworkParams(NamedTuple):
    """The parameters of the whole network.

    Attributes
    ----------
    gru
        The layers of the stack, ``gru[l][d]``; see `init_gru_stack_params`.
    linear
        Of a layer that reads the last states of the stack's last layer, ``(B, D * H)``.
    """

    gru: Layers
    linear: LinearParams


class NetworkCache(NamedTuple):
    """What `network_backward` needs of the forward pass."""

    gru: StackCache
    linear: LinearCache


def init_network_params(
    input_size: int,
    hidden_size: int,
    output_size: int,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    reset: Reset = "before",
    xp: Namespace,
    seed: int = 0,
    dtype: Any = None,
    device: Any = None,
) -> NetworkParams:
    """Draw the parameters of the whole network, layer by layer, from one seed.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bidirectional
        Of the stack; see `init_gru_stack_params`.
    output_size
        O, of the linear layer.
    reset, xp, seed, dtype, device
        See `init_gru_params`.

    Returns
    -------
    NetworkParams

    Raises
    ------
    ArgumentError
        As `init_gru_stack_params` and `init_gru_params`.
    ShapeError
        `dtype` is neither float32 nor float64.
    """
    where = {"xp": xp, "seed": generator(seed), "dtype": dtype, "device": device}
    directions = 2 if check_flag("bidirectional", bidirectional) else 1
    return NetworkParams(
        gru=init_gru_stack_params(
            input_size, hidden_size, num_layers=num_layers, bidirectional=bidirectional, reset=reset, **where
        ),
        linear=init_linear_params(directions * hidden_size, output_size, **where),
    )


def network_forward(
    x: Array,
    params: NetworkParams,
    *,
    lengths: Array | Sequence[int] | None = None,
    masks: StackMasks | None = None,
    reset: Reset | None = None,
    keep_every: int | None = None,
    ops: Scan | None = None,
    with_cache: bool = True,
) -> tuple[Array, NetworkCache | None]:
    """Predict from whole sequences.

    Parameters
    ----------
    x : array, shape ``(B, T, I)``
    params : NetworkParams
    lengths
        See `gru_forward`.
    masks : StackMasks, optional
        What to leave out; nothing if left out.
    reset, keep_every, ops, with_cache
        See `gru_forward`. What a layer hands on to the next is kept for all steps.

    Returns
    -------
    y : array, shape ``(B, O)``
        The linear layer's result on the last layer's states: that after the last step, and, of a bidirectional stack,
        beside it that of the other direction after the first step.
    cache
        For `network_backward`.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit.
    ArgumentError
        `reset` is not the form of `params`, or `keep_every` is out of range.
    """
    check_array("x", x, ("B", "T", "I"))
    check_kind("params", params, NetworkParams, "a NetworkParams")
    check_layers(params.gru, x, reset)
    if keep_every is not None:
        whole_number("keep_every", keep_every, 1)
    L, D = len(params.gru), len(params.gru[0])
    _, lasts, gru_cache = run_layers(
        x,
        [None] * (L * D),
        params.gru,
        masks or mean_masks(params.gru),
        lengths=lengths,
        keep_every=keep_every,
        ops=ops,
        with_h=False,
        with_cache=with_cache,
    )
    y, linear_cache = linear_forward(side_by_side(lasts[-D:], scan_of(x, ops)), params.linear, ops=ops)
    return y, None if gru_cache is None else NetworkCache(gru_cache, linear_cache)


def network_backward(dy: Array, cache: NetworkCache, *, with_dx: bool = True) -> tuple[Array | None, NetworkParams]:
    """Gradients of the whole network: ``dy (B, O)`` to ``dx (B, T, I)``, if it is wanted, and the parameters'."""
    check_flag("with_dx", with_dx)
    dh, dlinear = linear_backward(dy, cache.linear)
    L, D = len(cache.gru.layers), len(cache.gru.layers[0])
    H = dh.shape[-1] // D
    dlasts = [None] * ((L - 1) * D) + [dh[..., d * H : (d + 1) * H] for d in range(D)]
    dx, _, dgru = back_through_layers(None, dlasts, cache.gru, with_dx=with_dx)
    return batch_first(dx), NetworkParams(dgru, dlinear)
