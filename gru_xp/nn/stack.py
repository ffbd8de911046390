"""Layers one on another: a GRU, and a linear layer on its last state."""

import random
from typing import Any, NamedTuple

from gru_xp.nn.cell import Reset
from gru_xp.nn.gru import GRUCache, gru_backward, gru_forward
from gru_xp.nn.linear import LinearCache, linear_backward, linear_forward
from gru_xp.nn.ops import Array, Namespace, Ops
from gru_xp.nn.params import GRUParams, LinearParams, init_linear_params, init_params


class StackParams(NamedTuple):
    """The parameters of the whole network."""

    gru: GRUParams
    linear: LinearParams


class StackCache(NamedTuple):
    """What `stack_backward` needs of the forward pass."""

    gru: GRUCache
    linear: LinearCache


def init_stack_params(
    input_size: int,
    hidden_size: int,
    output_size: int,
    *,
    xp: Namespace,
    seed: int = 0,
    dtype: Any = None,
    device: Any = None,
) -> StackParams:
    """Draw the parameters of the whole network, layer by layer, from one seed; see `init_params`."""
    where = {"xp": xp, "seed": random.Random(seed), "dtype": dtype, "device": device}
    return StackParams(
        gru=init_params(input_size, hidden_size, **where),
        linear=init_linear_params(hidden_size, output_size, **where),
    )


def stack_forward(
    x: Array,
    params: StackParams,
    *,
    reset: Reset = "before",
    ops: Ops | None = None,
    with_cache: bool = True,
) -> tuple[Array, StackCache | None]:
    """Predict from whole sequences.

    Parameters
    ----------
    x : array, shape ``(B, T, I)``
    params : StackParams
    reset, ops, with_cache
        See `gru_forward`.

    Returns
    -------
    y : array, shape ``(B, O)``
        The linear layer's result on the state after the last step.
    cache
        For `stack_backward`.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit.
    """
    _, h_last, gru_cache = gru_forward(x, None, params.gru, reset=reset, ops=ops, with_cache=with_cache)
    y, linear_cache = linear_forward(h_last, params.linear, ops=ops)
    return y, None if gru_cache is None else StackCache(gru_cache, linear_cache)


def stack_backward(dy: Array, cache: StackCache, *, with_dx: bool = True) -> tuple[Array | None, StackParams]:
    """Gradients of the whole network: ``dy (B, O)`` to ``dx (B, T, I)``, if it is wanted, and the parameters'."""
    dh_last, dlinear = linear_backward(dy, cache.linear)
    dx, _, dgru = gru_backward(None, cache.gru, dh_last=dh_last, with_dx=with_dx)
    return dx, StackParams(dgru, dlinear)
