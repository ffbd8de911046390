"""The whole network: GRU layers, a linear layer on their last states, and perhaps one beside them, on the target."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from gru_xp.errors import ArgumentError
from gru_xp.nn.checks import check_array, check_beside, check_flag, check_kind, generator, whole_number
from gru_xp.nn.gru import batch_first, filled
from gru_xp.nn.linear import LinearCache, linear_backward, linear_forward
from gru_xp.nn.params import LinearParams, Reset, init_linear_params, named_arrays
from gru_xp.nn.pointwise import add
from gru_xp.nn.scan import Array, Arrays, Namespace, Scan, scan_of
from gru_xp.nn.stack import (
    Layers,
    StackCache,
    StackMasks,
    back_through_layers,
    check_layers,
    init_gru_stack_params,
    mean_masks,
    patch_size,
    run_layers,
    side_by_side,
)


class NetworkParams(NamedTuple):
    """The parameters of the whole network.

    Attributes
    ----------
    gru
        The layers of the stack, ``gru[l][d]``; see `init_gru_stack_params`. Where their input size is k I, each of
        their steps is a patch: k rows of a sequence, side by side.
    linear
        Of a layer that reads the last states of the stack's last layer, ``(B, D * H)``.
    skip
        Of a layer that reads column 0 of the whole sequence, ``(B, T)``, and whose result is added; None for none.
    """

    gru: Layers
    linear: LinearParams
    skip: LinearParams | None = None


class NetworkCache(NamedTuple):
    """What `network_backward` needs of the forward pass."""

    gru: StackCache
    linear: LinearCache
    skip: LinearCache | None
    size: tuple[int, int]  # T and I of the sequences


def init_network_params(
    input_size: int,
    hidden_size: int,
    output_size: int,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    reset: Reset = "before",
    patch_size: int = 1,
    skip_length: int | None = None,
    zero_head: bool = False,
    xp: Namespace,
    seed: int = 0,
    dtype: Any = None,
    device: Any = None,
) -> NetworkParams:
    """Draw the parameters of the whole network, layer by layer, from one seed.

    Parameters
    ----------
    input_size
        I, of a row of a sequence.
    hidden_size, num_layers, bidirectional
        Of the stack; see `init_gru_stack_params`.
    output_size
        O, of the linear layer.
    patch_size
        How many rows are one step.
    skip_length
        T, of sequences that a skip is to read, which begins as zeros; None for no skip.
    zero_head
        Whether the linear layer begins as zeros, too, so that the stack contributes nothing at first.
    reset, xp, seed, dtype, device
        See `init_gru_params`. The stack's numbers are those without skip and zeros.

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
    width = whole_number("input_size", input_size, 1) * whole_number("patch_size", patch_size, 1)
    gru = init_gru_stack_params(
        width, hidden_size, num_layers=num_layers, bidirectional=bidirectional, reset=reset, **where
    )

    def zeros(n_in: int) -> LinearParams:
        n_out, like = whole_number("output_size", output_size, 1), gru[0][0].bias
        return LinearParams(filled(0.0, (n_out, n_in), like=like), filled(0.0, (n_out,), like=like))

    n_states = directions * hidden_size
    return NetworkParams(
        gru,
        zeros(n_states) if check_flag("zero_head", zero_head) else init_linear_params(n_states, output_size, **where),
        None if skip_length is None else zeros(whole_number("skip_length", skip_length, 1)),
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
        For a captured call that is to follow its changes, in one piece of memory.
    params : NetworkParams
        Of steps that are k rows wide: T need not be a multiple of k; the first patch is filled with zeros at its start.
    lengths
        See `gru_forward`; for networks of one row a step and without a skip.
    masks : StackMasks, optional
        What to leave out; nothing if left out.
    reset, keep_every, ops, with_cache
        See `gru_forward`. What a layer hands on to the next is kept for all steps.

    Returns
    -------
    y : array, shape ``(B, O)``
        The linear layer's result on the last layer's states: that after the last step, and, of a bidirectional stack,
        beside it that of the other direction after the first step. With a skip, its result is added.
    cache
        For `network_backward`.

    Raises
    ------
    ShapeError
        A shape, namespace, device or dtype does not fit.
    ArgumentError
        `reset` is not the form of `params`, `keep_every` is out of range, or there may be no `lengths`.
    """
    check_array("x", x, ("B", "T", "I"))
    check_kind("params", params, NetworkParams, "a NetworkParams")
    check_layers(params.gru, x, reset, patches=True)
    for name, mask in named_arrays(masks or (), "masks."):
        if not isinstance(mask, float):
            check_beside(name, mask, "x", x)
    if keep_every is not None:
        whole_number("keep_every", keep_every, 1)
    k, scan = patch_size(params.gru, x), scan_of(x, ops)
    if lengths is not None and (k > 1 or params.skip is not None):
        what = "a skip" if k == 1 else f"patches of {k} rows"
        raise ArgumentError(f"lengths is given to a network with {what}; its sequences are whole: leave out lengths")
    L, D = len(params.gru), len(params.gru[0])
    _, lasts, gru_cache = run_layers(
        x if k == 1 else _to_patches(x, k, scan),
        [None] * (L * D),
        params.gru,
        masks or mean_masks(params.gru),
        lengths=lengths,
        keep_every=keep_every,
        ops=ops,
        with_h=False,
        with_cache=with_cache,
    )
    y, linear_cache = linear_forward(side_by_side(lasts[-D:], scan), params.linear, ops=ops)
    skip_cache = None
    if params.skip is not None:
        _check_skip(params.skip, x, y)
        of_skip, skip_cache = linear_forward(x[:, :, 0], params.skip, ops=ops)
        (y,) = scan.call(add, y, of_skip)
    size = int(x.shape[1]), int(x.shape[2])
    return y, None if gru_cache is None else NetworkCache(gru_cache, linear_cache, skip_cache, size)


def network_backward(dy: Array, cache: NetworkCache, *, with_dx: bool = True) -> tuple[Array | None, NetworkParams]:
    """Gradients of the whole network: ``dy (B, O)`` to ``dx (B, T, I)``, if it is wanted, and the parameters'."""
    check_flag("with_dx", with_dx)
    dh, dlinear = linear_backward(dy, cache.linear)
    L, D = len(cache.gru.layers), len(cache.gru.layers[0])
    H = dh.shape[-1] // D
    dlasts = [None] * ((L - 1) * D) + [dh[..., d * H : (d + 1) * H] for d in range(D)]
    dx, _, dgru = back_through_layers(None, dlasts, cache.gru, with_dx=with_dx)
    dx = _from_patches(batch_first(dx), *cache.size)
    if cache.skip is None:
        return dx, NetworkParams(dgru, dlinear)
    dtarget, dskip = linear_backward(dy, cache.skip)
    if dx is not None:
        (dx,) = scan_of(dx, cache.gru.ops).call(add if dx.shape[2] == 1 else _add_to_first, dx, dtarget[:, :, None])
    return dx, NetworkParams(dgru, dlinear, dskip)


def _check_skip(skip: LinearParams, x: Array, y: Array) -> None:
    check_kind("params.skip", skip, LinearParams, "a LinearParams")
    shape = y.shape[1], x.shape[1]
    check_array("params.skip.weight", skip.weight, shape, like=("x", x), why=", from each row of x to each result")
    check_array("params.skip.bias", skip.bias, shape[:1], like=("x", x))


def _to_patches(x: Array, k: int, scan: Scan) -> Array:
    """``(B, T, I)`` as ``(B, T / k, k * I)``, rounded up, with zeros before the first row where T is no multiple."""
    reshape, (B, T, I) = array_namespace(x).reshape, x.shape  # noqa: E741
    missing = -T % k
    if I > 1:  # reshape would make a copy, which a replay of what `scan` has recorded would not make again
        return side_by_side([_every(x, j - missing, k, scan) for j in range(k)], scan)
    rows = reshape(x, (B, T))
    if missing:
        rows = side_by_side([filled(0.0, (B, missing), like=x), rows], scan)
    return reshape(rows, (B, (T + missing) // k, k))


def _every(x: Array, first: int, k: int, scan: Scan) -> Array:
    """Every k-th row of ``(B, T, I)`` from the first one on; zeros for a row that is before all others."""
    if first >= 0:
        return x[:, first::k, :]
    zeros = filled(0.0, (x.shape[0], 1, x.shape[2]), like=x)
    return scan.call(_one_after_another, zeros, x[:, first + k :: k, :])[0] if first + k < x.shape[1] else zeros


def _from_patches(a: Array | None, T: int, I: int) -> Array | None:  # noqa: E741
    """The inverse of `_to_patches`; None stays None."""
    if a is None or a.shape[1:] == (T, I):
        return a
    reshape, (B, steps, width) = array_namespace(a).reshape, a.shape
    return reshape(reshape(a, (B, steps * width))[:, steps * width - T * I :], (B, T, I))


def _one_after_another(xp: Namespace, a: Array, b: Array) -> Arrays:
    return (xp.concat([a, b], axis=1),)


def _add_to_first(xp: Namespace, a: Array, b: Array) -> Arrays:
    return (xp.concat([a[..., :1] + b, a[..., 1:]], axis=-1),)
