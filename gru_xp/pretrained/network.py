"""The pretrained network, forward and backward: two GRU layers on patches, and quantiles around a mixture of forecasts.

``a = gelu(W x + b)``, ``s1 = a + gru1(a)``, ``s2 = s1 + gru2(s1)``, ``o = V layer_norm(s2) + c``, for each patch. Of
the outputs, the softmax of the first ones mixes the candidates of `Features`, for `STRETCH` steps ahead together, and
the others are added to the squashed mixture, one for each quantile of each step.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from gru_xp.nn.activation import GELUCache, gelu_backward, gelu_forward
from gru_xp.nn.checks import generator
from gru_xp.nn.gru import GRUCache, gru_backward, gru_forward
from gru_xp.nn.linear import LinearCache, linear_backward, linear_forward
from gru_xp.nn.normalization import (
    LayerNormCache,
    LayerNormParams,
    init_layer_norm_params,
    layer_norm_backward,
    layer_norm_forward,
)
from gru_xp.nn.params import GRUParams, LinearParams, Reset, init_gru_params, init_linear_params
from gru_xp.nn.scan import Array, Arrays, Namespace, Scan
from gru_xp.pretrained.features import CANDIDATES, HEAD, LEVELS, N_INPUTS, SQUASH

RESET: Reset = "after"
"""The form of the GRU layers."""

HIDDEN = 160
"""Hidden units of each layer."""

N_CANDIDATES, N_LEVELS = len(CANDIDATES), len(LEVELS)

BLOCK = 512
"""Patches whose outputs are computed together, so that they fit into a processor's cache."""

STRETCH = 2
"""Steps ahead that share a mixture."""

N_SHARES = N_CANDIDATES * HEAD // STRETCH

HEAD_SCALE = 0.2
"""Factor of the first weights of the head, so that training begins near an equal mixture."""


class ZeroShotParams(NamedTuple):
    """The parameters of the pretrained network, with H hidden units, F inputs, C candidates and Q quantiles.

    Attributes
    ----------
    inputs
        Linear, ``(H, F)``.
    first, second
        GRU layers, of H inputs.
    norm
        Layer normalisation of the sum of both layers' states and their inputs, ``(H,)``.
    head
        Linear, ``(C * HEAD / STRETCH + Q * HEAD, H)``, whose outputs of a candidate or quantile are side by side.
    """

    inputs: LinearParams
    first: GRUParams
    second: GRUParams
    norm: LayerNormParams
    head: LinearParams


class TrunkCache(NamedTuple):
    """What `trunk_backward` needs of the forward pass."""

    inputs: LinearCache
    gelu: GELUCache
    first: GRUCache
    second: GRUCache
    norm: LayerNormCache


def init_zero_shot_params(
    *, hidden_size: int = HIDDEN, xp: Namespace, seed: int = 0, dtype: Any = None, device: Any = None
) -> ZeroShotParams:
    """Draw the parameters of a network that has learned nothing yet.

    Parameters
    ----------
    hidden_size
        H.
    xp, seed, dtype, device
        See `init_gru_params`.

    Returns
    -------
    ZeroShotParams
    """
    where: dict[str, Any] = {"xp": xp, "seed": generator(seed), "dtype": dtype, "device": device}
    H, n_outputs = hidden_size, N_SHARES + N_LEVELS * HEAD
    inputs = init_linear_params(N_INPUTS, H, **where)
    first, second = (init_gru_params(H, H, reset=RESET, **where) for _ in range(2))
    head = init_linear_params(H, n_outputs, **where)
    norm = init_layer_norm_params(H, xp=xp, dtype=head.bias.dtype, device=device)
    return ZeroShotParams(inputs, first, second, norm, head._replace(weight=HEAD_SCALE * head.weight))


def trunk_forward(
    x: Array, params: ZeroShotParams, *, ops: Scan | None = None, with_cache: bool = True
) -> tuple[Array, TrunkCache | None]:
    """States of patches ``x (B, K, F)`` of features, normalised, ``(B, K, H)``."""
    xp, (B, K, F) = array_namespace(x), x.shape
    H = params.inputs.bias.shape[0]
    projected, inputs_cache = linear_forward(xp.reshape(x, (B * K, F)), params.inputs, ops=ops)
    a, gelu_cache = gelu_forward(projected, ops=ops)
    a = xp.reshape(a, (B, K, H))
    h1, _, first_cache = gru_forward(a, None, params.first, ops=ops, with_cache=with_cache)
    s1 = a + h1
    h2, _, second_cache = gru_forward(s1, None, params.second, ops=ops, with_cache=with_cache)
    y, norm_cache = layer_norm_forward(s1 + h2, params.norm, ops=ops)
    if first_cache is None or second_cache is None:
        return y, None
    return y, TrunkCache(inputs_cache, gelu_cache, first_cache, second_cache, norm_cache)


def trunk_backward(dy: Array, cache: TrunkCache) -> tuple[LinearParams, GRUParams, GRUParams, LayerNormParams]:
    """Gradients of the parameters of the trunk, for ``dy (B, K, H)``."""
    xp, (B, K, H) = array_namespace(dy), dy.shape
    ds2, dnorm = layer_norm_backward(dy, cache.norm)
    dx2, _, dsecond = gru_backward(ds2, cache.second)
    ds1 = ds2 + dx2
    dx1, _, dfirst = gru_backward(ds1, cache.first)
    da = gelu_backward(xp.reshape(ds1 + dx1, (B * K, H)), cache.gelu)
    _, dinputs = linear_backward(da, cache.inputs)
    return dinputs, dfirst, dsecond, dnorm


def loss_and_gradient(
    x: Array, candidates: Array, y: Array, weight: Array, params: ZeroShotParams, *, ops: Scan | None = None
) -> tuple[Array, ZeroShotParams]:
    """The pinball loss of all patches, and its gradient.

    Parameters
    ----------
    x : array, shape ``(B, K, F)``
    candidates : array, shape ``(B, K, C, HEAD)``
    y : array, shape ``(B, K, HEAD)``
        Targets, squashed, in the units of the candidates.
    weight : array, shape ``(B, K, HEAD)``
        How much the error of each counts.
    params
        Of the network.
    ops
        See `gru_forward`.

    Returns
    -------
    value : array, shape ``()``
        ``sum(weight * mean over quantiles of max(q e, (q - 1) e))``, where e is the target less the quantile of level q
        (Koenker and Bassett 1978, doi:10.2307/1913643).
    dparams : ZeroShotParams
    """
    xp, (B, K, _) = array_namespace(x), x.shape
    states, cache = trunk_forward(x, params, ops=ops)
    assert cache is not None
    states = xp.reshape(states, (B * K, -1))
    candidates, y, weight = (xp.reshape(a, (B * K, *a.shape[2:])) for a in (candidates, y, weight))
    value, dstates, dhead = _head_loss(states, candidates, y, weight, params.head, ops)
    dinputs, dfirst, dsecond, dnorm = trunk_backward(xp.reshape(dstates, (B, K, -1)), cache)
    return value, ZeroShotParams(dinputs, dfirst, dsecond, dnorm, dhead)


def loss(
    x: Array, candidates: Array, y: Array, weight: Array, params: ZeroShotParams, *, ops: Scan | None = None
) -> Array:
    """The value of `loss_and_gradient` alone."""
    xp, (B, K, _) = array_namespace(x), x.shape
    states, _ = trunk_forward(x, params, ops=ops, with_cache=False)
    states, candidates, y, weight = (xp.reshape(a, (B * K, *a.shape[2:])) for a in (states, candidates, y, weight))
    return sum(
        _pinball(y[some, ...], _mix(states[some, ...], candidates[some, ...], params.head, ops)[0], weight[some, ...])[
            0
        ]
        for some in _blocks(B * K)
    )


def predict(x: Array, candidates: Array, params: ZeroShotParams, *, ops: Scan | None = None) -> Array:
    """Quantiles ``(B, Q, HEAD)`` after the last patch of features ``x (B, K, F)``, squashed.

    The candidates are those after the last patch, ``(B, 1, C, HEAD)``.
    """
    return predict_each(x, candidates[:, -1:, ...], params, ops=ops)[:, 0, ...]


def predict_each(x: Array, candidates: Array, params: ZeroShotParams, *, ops: Scan | None = None) -> Array:
    """Quantiles ``(B, n, Q, HEAD)`` after the last n patches, of which the candidates ``(B, n, C, HEAD)`` are."""
    xp, (B, n) = array_namespace(x), candidates.shape[:2]
    states, _ = trunk_forward(x, params, ops=ops, with_cache=False)
    states = xp.reshape(states[:, states.shape[1] - n :, :], (B * n, -1))
    quantiles, _ = _mix(states, xp.reshape(candidates, (B * n, *candidates.shape[2:])), params.head, ops)
    return xp.reshape(quantiles, (B, n, *quantiles.shape[1:]))


# --- the head, in blocks of patches -----------------------------------------------------------------------------------


class _MixtureCache(NamedTuple):
    """What the gradient needs of a mixture of candidates."""

    head: LinearCache
    shares: Array  # (N, C, HEAD / STRETCH, 1)
    candidates: Array  # (N, C, HEAD / STRETCH, STRETCH)
    mixture: Array  # (N, HEAD)


def _mix(states: Array, candidates: Array, head: LinearParams, ops: Scan | None) -> tuple[Array, _MixtureCache]:
    """Quantiles ``(N, Q, HEAD)``, squashed, of states ``(N, H)``."""
    xp, N = array_namespace(states), states.shape[0]
    outputs, cache = linear_forward(states, head, ops=ops)
    logits = xp.reshape(outputs[:, :N_SHARES], (N, N_CANDIDATES, -1, 1))
    powers = xp.exp(logits - xp.max(logits, axis=1, keepdims=True))
    shares = powers / xp.sum(powers, axis=1, keepdims=True)
    candidates = xp.reshape(candidates, (*shares.shape[:3], STRETCH))
    mixture = xp.reshape(xp.sum(shares * candidates, axis=1), (N, HEAD))
    center = SQUASH * xp.asinh(mixture / SQUASH)
    quantiles = center[:, None, :] + xp.reshape(outputs[:, N_SHARES:], (N, N_LEVELS, HEAD))
    return quantiles, _MixtureCache(cache, shares, candidates, mixture)


def _mix_backward(dquantiles: Array, cache: _MixtureCache) -> tuple[Array, LinearParams]:
    xp, N = array_namespace(dquantiles), dquantiles.shape[0]
    slope = 1.0 / xp.sqrt(1.0 + (cache.mixture / SQUASH) ** 2)  # of the squashed mixture
    dmixture, mixture = (
        xp.reshape(a, (N, 1, -1, STRETCH)) for a in (xp.sum(dquantiles, axis=1) * slope, cache.mixture)
    )
    dlogits = cache.shares * xp.sum(dmixture * (cache.candidates - mixture), axis=3, keepdims=True)
    doutputs = xp.concat([xp.reshape(dlogits, (N, -1)), xp.reshape(dquantiles, (N, -1))], axis=1)
    return linear_backward(doutputs, cache.head)


def _pinball(y: Array, quantiles: Array, weight: Array) -> Arrays:
    """The loss, and its gradient for the quantiles ``(N, Q, HEAD)``."""
    xp = array_namespace(y)
    levels = xp.asarray(LEVELS, dtype=y.dtype, device=device(y))[None, :, None]
    error = y[:, None, :] - quantiles
    slope = xp.where(error > 0, levels, levels - 1.0)
    share = weight[:, None, :] / N_LEVELS
    return xp.sum(slope * error * share), -(slope * share)


def _head_loss(
    states: Array, candidates: Array, y: Array, weight: Array, head: LinearParams, ops: Scan | None
) -> tuple[Array, Array, LinearParams]:
    """The loss, and its gradients for states ``(N, H)`` and the head."""
    total: Array = 0.0
    dstates: list[Array] = []
    dhead: LinearParams | None = None
    for some in _blocks(states.shape[0]):
        quantiles, cache = _mix(states[some, ...], candidates[some, ...], head, ops)
        value, dquantiles = _pinball(y[some, ...], quantiles, weight[some, ...])
        dpart, of_part = _mix_backward(dquantiles, cache)
        total = total + value
        dstates.append(dpart)
        dhead = of_part if dhead is None else LinearParams(*(a + b for a, b in zip(dhead, of_part, strict=True)))
    assert dhead is not None
    return total, array_namespace(y).concat(dstates, axis=0), dhead


def _blocks(n: int) -> Iterator[slice]:
    return (slice(first, min(first + BLOCK, n)) for first in range(0, n, BLOCK))
