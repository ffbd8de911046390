"""One GRU step for a whole batch, forward and backward.

    z  = sigmoid(a_z + W_hz h)        r = sigmoid(a_r + W_hr h)        a = W_ih x + bias
    n  = tanh(a_n + W_hn (r * h))                reset="before"
    n  = tanh(a_n + r * (W_hn h + bias_hn))      reset="after"
    h' = (1 - z) * h + z * n                     or, with masks u and m, h + u * z * (m * n - h)

All that enters a product stands side by side in one row a sequence, ``[h, x, 1]``, and so do the weights, so that a
product gives a gate's whole argument, bias included. README.md beside this file derives every line of the backward
pass. ``gru.py`` runs the same steps over time.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from typing import NamedTuple, TypeVar

from array_api_compat import array_namespace

from gru_xp.nn.activations import sigmoid_of_twice, tanh_backward, tanh_forward
from gru_xp.nn.checks import check_array, check_kind
from gru_xp.nn.ops import Array, Namespace, Ops, default_ops, ops_or_default
from gru_xp.nn.params import GRUParams, Reset, check_reset, map_arrays
from gru_xp.nn.pointwise import add, add_into, only_valid

Part = TypeVar("Part")


class Memory(NamedTuple):
    """What the forward pass keeps for the backward pass: of one step, or of all with time as the first axis."""

    joint: Array  # (..., B, H + I + 1): h, x, 1; and then r * h, (..., B, H + I + 1 + H) (before)
    gates: Array  # (..., B, 2H): z, r (before); (..., B, 3H): z, r, W_hn h + bias_hn (after)
    n: Array  # (..., B, H)
    change: Array  # (..., B, H): what is added to h: z * (n - h), with the masks u * z * (m * n - h)

    def at(self, t: int) -> "Memory":
        """Of step `t`; arrays that hold one step only serve for all."""
        return Memory(*(array[min(t, array.shape[0] - 1), ...] for array in self))


class Masks(NamedTuple):
    """What variants of a step multiply with: of one step, or of all with time as the first axis; None for nothing."""

    update: Array | float | None = None  # (..., B, 1) or (..., B, H), or a number for all: of z
    candidate: Array | None = None  # (B, H), the same in all steps: of n

    def at(self, t: int | slice) -> "Masks":
        """Of step `t`, or of some steps."""
        update = self.update
        return self if update is None or isinstance(update, float) else self._replace(update=update[t, ...])


NO_MASKS = Masks()


class Joint(NamedTuple):
    """Weights side by side as the columns of `Memory.joint` are, or their gradients."""

    recurrent: Array  # of h, x, 1: (2H, H + I + 1), z and r (before); (3H, H + I + 1), z, r, W_hn h + bias_hn (after)
    candidate: Array  # of x, 1, r * h: (H, I + 1 + H) (before); of x, 1: (H, I + 1) (after)


class CellCache(NamedTuple):
    """What `gru_cell_backward` needs of the forward step."""

    parts: Sequence[tuple[slice, Memory]]  # which sequences, and theirs
    params: GRUParams
    reset: Reset
    ops: Ops | None  # as it was given


def gru_cell_forward(
    x: Array, h_prev: Array, params: GRUParams, *, reset: Reset | None = None, ops: Ops | None = None
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
    ops : Ops, optional
        How to allocate, multiply and run pointwise expressions; the fastest way known for `x` if left out.

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
        `reset` is not the form of `params`.
    """
    _check_cell(x, "h_prev", h_prev, params, reset)
    return _cell_forward(x, h_prev, params, params.reset, ops)


def _check_cell(x: Array, h_name: str, h: Array, params: GRUParams, reset: Reset | None) -> None:
    check_array("x", x, ("B", "I"))
    check_params(params, x)
    check_reset(reset, params)
    check_array(h_name, h, (x.shape[0], params.hidden_size), like=("x", x))


def _cell_forward(
    x: Array, h_prev: Array, params: GRUParams, reset: Reset, given_ops: Ops | None
) -> tuple[Array, CellCache]:
    B, H = h_prev.shape
    ops = ops_or_default(given_ops, x)

    form = FORMS[reset]
    h = ops.empty((B, H), like=x)

    def forward(rows: slice, ops: Ops) -> Memory:
        memory = form.memory((rows.stop - rows.start,), x.shape[1], H, like=x, ops=ops)
        weights = form.weights(params, ops)
        form.write_input(memory, x[rows, :], ops)
        ops.copy(h_prev[rows, :], memory.joint[:, :H])
        form.input_product(memory, weights, ops)
        form.forward(weights, memory, h[rows, :], NO_MASKS, ops)
        return memory

    parts = ops.parts(B, 1, x.shape[1], H)
    memories = ops.run([(part_ops, partial(forward, rows, part_ops)) for rows, part_ops in parts])
    rows = [rows for rows, _ in parts]
    return h, CellCache(list(zip(rows, memories, strict=True)), params, reset, given_ops)


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
    parts, params, reset, given_ops = cache
    B, I, H = parts[-1][0].stop, params.input_size, params.hidden_size  # noqa: E741
    check_array("dh", dh, (B, H), like=("x", params.bias))
    ops = given_ops or default_ops(dh)

    form = FORMS[reset]
    dx, dh_prev = ops.empty((B, I), like=dh), ops.empty((B, H), like=dh)

    def backward(rows: slice, memory: Memory, ops: Ops) -> Joint:
        n_rows = rows.stop - rows.start
        da_rec = ops.empty((n_rows, form.recurrent_gates * H), like=dh)
        da_n, *scratch = (ops.empty((n_rows, H), like=dh) for _ in range(3))
        form.backward(dh[rows, :], memory, da_rec, da_n, dh_prev[rows, :], scratch, NO_MASKS, params, ops)
        form.input_gradient(da_rec, da_n, params, dx[rows, :], ops)
        dweights = form.weights_like(params, ops)
        form.weight_gradients(memory.joint, da_rec, da_n, dweights, ops)
        return dweights

    workers = with_workers(parts, ops.parts(B, 1, I, H))
    dweights = ops.run([(worker, partial(backward, *part, worker)) for part, worker in workers])
    return dx, dh_prev, form.params(sum_of_parts(dweights, ops), params, ops)


def gru_step(x: Array, h: Array, params: GRUParams, *, reset: Reset | None = None, ops: Ops | None = None) -> Array:
    """One GRU step without gradients, as values come in one by one.

    What it needs is prepared at every call; `GRUInference.step` does that once, and is the faster one for many steps.

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
        `reset` is not the form of `params`.

    Examples
    --------
    >>> import numpy as np
    >>> params = init_params(2, 5, xp=np, seed=0)
    >>> h = np.zeros((1, 5))
    >>> for x in np.ones((3, 1, 2)):
    ...     h = gru_step(x, h, params)
    >>> h.shape
    (1, 5)
    """
    _check_cell(x, "h", h, params, reset)
    return _cell_forward(x, h, params, params.reset, ops)[0]


def with_workers(parts: Sequence[Part], device_parts: Sequence[tuple[slice, Ops]]) -> list[tuple[Part, Ops]]:
    """The parts of a forward pass, each with ops to go back with, of those that `Ops.parts` gives now.

    They may be others than the forward pass had, in another thread, say; any of them can take any part.
    """
    return list(zip(parts, cycle(worker for _, worker in device_parts), strict=False))


def sum_of_parts(dweights: Sequence[Joint], ops: Ops) -> Joint:
    """The gradients of all sequences' weights, from those of parts, in the memory of the first."""
    for part in dweights[1:]:
        for total, more in zip(dweights[0], part, strict=True):
            add_into(total, more, ops)
    return dweights[0]


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
        dims["bias_hn"] = (H,)
    for field, expected in dims.items():
        why = f", as the last size of x is {I}" if field == "weight_ih" and input_size is None else ""
        check_array(f"{name}.{field}", getattr(params, field), expected, like=("x", x), why=why)


def _half(xp: Namespace, a: Array) -> tuple[Array]:
    return (0.5 * a,)


def _masked(a: Array, mask: Array | float | None) -> Array:
    return a if mask is None else mask * a


def _candidate(
    xp: Namespace, a_n: Array, z: Array, h: Array, update: Array | float | None, candidate: Array | None
) -> tuple[Array, Array, Array]:
    n = tanh_forward(xp, a_n)
    change = _masked(z, update) * (_masked(n, candidate) - h)
    return n, change, h + change


def _d_candidate(
    dh: Array,
    z: Array,
    one_minus_z: Array,
    n: Array,
    change: Array,
    update: Array | float | None,
    candidate: Array | None,
) -> tuple[Array, Array, Array]:
    dh_less_z = dh * one_minus_z
    z = _masked(z, update)
    dh_kept = dh_less_z if update is None else dh * (1.0 - z)
    return dh_less_z * change, tanh_backward(_masked(dh * z, candidate), n), dh_kept


# --- reset="before" ---------------------------------------------------------------------------------------------


def _before_gates(xp: Namespace, half_a: Array, h: Array) -> tuple[Array, Array]:
    zr = sigmoid_of_twice(xp, half_a)
    r = zr[..., h.shape[-1] :]
    return zr, r * h


def _before_forward(weights: Joint, memory: Memory, h_next: Array, masks: Masks, ops: Ops) -> None:
    joint, gates, n, change = memory
    H, K = n.shape[-1], weights.recurrent.shape[1]
    h = joint[:, :H]
    ops.matmul(joint[:, :K], weights.recurrent.T, out=gates)
    ops.pointwise(_before_gates, (gates, h), out=(gates, joint[:, K:]))
    ops.matmul(joint[:, H:], weights.candidate.T, out=n)
    ops.pointwise(_candidate, (n, gates[:, :H], h, *masks), out=(n, change, h_next))


def _before_d_candidate(
    xp: Namespace, dh: Array, z: Array, n: Array, change: Array, *masks: Array | float | None
) -> tuple[Array, Array, Array]:
    return _d_candidate(dh, z, 1.0 - z, n, change, *masks)


def _before_d_reset(xp: Namespace, d_inner: Array, r: Array, inner: Array, dh_kept: Array) -> tuple[Array, Array]:
    return d_inner * inner * (1.0 - r), dh_kept + d_inner * r


def _before_backward(
    dh: Array,
    memory: Memory,
    da_rec: Array,
    da_n: Array,
    dh_prev: Array,
    scratch: tuple[Array, Array],
    masks: Masks,
    params: GRUParams,
    ops: Ops,
) -> None:
    joint, gates, n, change = memory
    H = n.shape[-1]
    z, r, inner = gates[:, :H], gates[:, H:], joint[:, -H:]
    da_z, da_r = da_rec[:, :H], da_rec[:, H:]
    dh_kept, product = scratch
    ops.pointwise(_before_d_candidate, (dh, z, n, change, *masks), out=(da_z, da_n, dh_kept))
    d_inner = ops.matmul(da_n, params.weight_hh[2 * H :, :], out=product)
    ops.pointwise(_before_d_reset, (d_inner, r, inner, dh_kept), out=(da_r, dh_kept))
    dh_zr = ops.matmul(da_rec, params.weight_hh[: 2 * H, :], out=product)
    ops.pointwise(add, (dh_kept, dh_zr), out=(dh_prev,))


# --- reset="after" ----------------------------------------------------------------------------------------------


def _after_gates(
    xp: Namespace, a: Array, a_n: Array, h: Array, *masks: Array | float | None
) -> tuple[Array, Array, Array, Array]:
    H = h.shape[-1]
    zr = sigmoid_of_twice(xp, a[..., : 2 * H])
    z, r, q = zr[..., :H], zr[..., H:], a[..., 2 * H :]
    return zr, *_candidate(xp, a_n + r * q, z, h, *masks)


def _after_forward(weights: Joint, memory: Memory, h_next: Array, masks: Masks, ops: Ops) -> None:
    joint, gates, n, change = memory
    H = n.shape[-1]
    ops.matmul(joint, weights.recurrent.T, out=gates)
    ops.pointwise(_after_gates, (gates, n, joint[:, :H], *masks), out=(gates[:, : 2 * H], n, change, h_next))


def _after_d_gates(
    xp: Namespace, dh: Array, gates: Array, n: Array, change: Array, *masks: Array | float | None
) -> tuple[Array, Array, Array, Array, Array]:
    H = n.shape[-1]
    zr, q = gates[..., : 2 * H], gates[..., 2 * H :]
    z, r = zr[..., :H], zr[..., H:]
    one_minus_zr = 1.0 - zr
    da_z, da_n, dh_kept = _d_candidate(dh, z, one_minus_zr[..., :H], n, change, *masks)
    dq = da_n * r
    return da_z, dq * q * one_minus_zr[..., H:], dq, da_n, dh_kept


def _after_backward(
    dh: Array,
    memory: Memory,
    da_rec: Array,
    da_n: Array,
    dh_prev: Array,
    scratch: tuple[Array, Array],
    masks: Masks,
    params: GRUParams,
    ops: Ops,
) -> None:
    _, gates, n, change = memory
    H = n.shape[-1]
    da_z, da_r, dq = da_rec[:, :H], da_rec[:, H : 2 * H], da_rec[:, 2 * H :]
    dh_kept, product = scratch
    ops.pointwise(_after_d_gates, (dh, gates, n, change, *masks), out=(da_z, da_r, dq, da_n, dh_kept))
    dh_s = ops.matmul(da_rec, params.weight_hh, out=product)
    ops.pointwise(add, (dh_kept, dh_s), out=(dh_prev,))


# --- what the two forms have in common --------------------------------------------------------------------------


class Form(NamedTuple):
    """How a form of the reset gate keeps its memory, takes a step, and goes back.

    Attributes
    ----------
    recurrent_gates
        How many gates' products `h` enters directly: z and r (before) or all three (after).
    forward
        ``(weights, memory, h_next, masks, ops)``: one step; fills `memory`, which holds h and the input, and `h_next`.
    backward
        ``(dh, memory, da_rec, da_n, dh_prev, scratch, masks, params, ops)``: one step; writes the gradients with
        respect to the recurrent gates' arguments `da_rec`, the candidate's argument `da_n` and the state `dh_prev`,
        which may be the memory of `dh`; `scratch` is two more arrays like it.
    """

    recurrent_gates: int
    forward: Callable[..., None]
    backward: Callable[..., None]

    def memory(
        self,
        steps: tuple[int, ...],
        I: int,  # noqa: E741
        H: int,
        *,
        like: Array,
        ops: Ops,
        keep: bool = True,
    ) -> Memory:
        """Memory for steps of shape ``(B,)`` or ``(T, B)``.

        For T steps, `joint` has T + 1 places, one more for the state at the end; what only the backward pass needs is
        kept of one step unless `keep` is true.
        """
        before = self.recurrent_gates == 2
        width = H + I + 1 + (H if before else 0)
        joint_steps = (steps[0] + 1, steps[1]) if len(steps) == 2 else steps
        kept_steps = (1, steps[1]) if len(steps) == 2 and not keep else steps
        return Memory(
            ops.empty((*joint_steps, width), like=like),
            ops.empty((*kept_steps, self.recurrent_gates * H), like=like),
            ops.empty((*(kept_steps if before else steps), H), like=like),
            ops.empty((*kept_steps, H), like=like),
        )

    def weights_like(self, params: GRUParams, ops: Ops) -> Joint:
        """Memory for weights, or for their gradients."""
        I, H = params.input_size, params.hidden_size  # noqa: E741
        width = I + 1 + (H if self.recurrent_gates == 2 else 0)
        like = params.weight_hh
        return Joint(ops.empty((self.recurrent_gates * H, H + I + 1), like=like), ops.empty((H, width), like=like))

    def weights(self, params: GRUParams, ops: Ops) -> Joint:
        """The weights for `forward`; those of z and r are halved, as `sigmoid_of_twice` wants it."""
        xp = array_namespace(params.bias)
        I, H = params.input_size, params.hidden_size  # noqa: E741
        weight_ih, weight_hh, bias = *params[:2], xp.reshape(params.bias, (-1, 1))
        recurrent, candidate = joint = self.weights_like(params, ops)
        zr = slice(0, 2 * H)
        ops.pointwise(_half, (weight_hh[zr, :],), out=(recurrent[zr, :H],))
        ops.pointwise(_half, (weight_ih[zr, :],), out=(recurrent[zr, H:-1],))
        ops.pointwise(_half, (bias[zr, :],), out=(recurrent[zr, -1:],))
        ops.copy(weight_ih[2 * H :, :], candidate[:, :I])
        ops.copy(bias[2 * H :, :], candidate[:, I : I + 1])
        if self.recurrent_gates == 2:
            ops.copy(weight_hh[2 * H :, :], candidate[:, I + 1 :])
        else:
            ops.copy(weight_hh[2 * H :, :], recurrent[2 * H :, :H])
            ops.copy(0.0, recurrent[2 * H :, H:-1])
            ops.copy(xp.reshape(params.bias_hn, (-1, 1)), recurrent[2 * H :, -1:])
        return joint

    def params(self, dweights: Joint, like: GRUParams, ops: Ops) -> GRUParams:
        """The parameters' gradients, from those of the weights (which `forward` has halved, `dweights` has not)."""
        xp = array_namespace(like.bias)
        I, H = like.input_size, like.hidden_size  # noqa: E741
        recurrent, candidate = dweights
        dparams = map_arrays(lambda array: ops.empty(array.shape, like=array), like)
        dbias = xp.reshape(dparams.bias, (-1, 1))
        zr = slice(0, 2 * H)
        ops.copy(recurrent[zr, H:-1], dparams.weight_ih[zr, :])
        ops.copy(candidate[:, :I], dparams.weight_ih[2 * H :, :])
        ops.copy(recurrent[zr, -1:], dbias[zr, :])
        ops.copy(candidate[:, I : I + 1], dbias[2 * H :, :])
        ops.copy(recurrent[:, :H], dparams.weight_hh[: self.recurrent_gates * H, :])
        if self.recurrent_gates == 2:
            ops.copy(candidate[:, I + 1 :], dparams.weight_hh[2 * H :, :])
        else:
            ops.copy(recurrent[2 * H :, -1:], xp.reshape(dparams.bias_hn, (-1, 1)))
        return dparams

    def write_input(self, memory: Memory, x: Array, ops: Ops, *, valid: Array | None = None) -> None:
        """Put x ``(..., B, I)`` and the ones into `memory` of as many steps; zeros for x where `valid` is 0."""
        I, H = x.shape[-1], memory.n.shape[-1]  # noqa: E741
        place = memory.joint[..., H : H + I]
        if valid is None:
            ops.copy(x, place)
        else:
            ops.pointwise(only_valid, (x, valid), out=(place,))
        ops.copy(1.0, memory.joint[..., H + I : H + I + 1])

    def input_product(self, memory: Memory, weights: Joint, ops: Ops) -> None:
        """Put what of the candidate's argument comes from the input alone, for all steps at once, in the place of n."""
        if self.recurrent_gates == 3:
            H = memory.n.shape[-1]
            ops.matmul(memory.joint[..., H:], weights.candidate.T, out=memory.n)

    def weight_gradients(
        self, joint: Array, da_rec: Array, da_n: Array, dweights: Joint, ops: Ops, *, add: bool = False
    ) -> None:
        """Write, or add, the weights' gradients from arrays ``(..., size)`` of one step or of several."""
        H, K = da_n.shape[-1], dweights.recurrent.shape[1]
        ops.contract(da_rec, joint[..., :K], out=dweights.recurrent, add=add)
        ops.contract(da_n, joint[..., H:], out=dweights.candidate, add=add)

    def input_gradient(self, da_rec: Array, da_n: Array, params: GRUParams, dx: Array, ops: Ops) -> None:
        """Write ``dx (..., I)`` from arrays ``(..., size)`` of one step or of several."""
        H = da_n.shape[-1]
        dx_n = ops.empty(dx.shape, like=dx)
        ops.matmul(da_rec[..., : 2 * H], params.weight_ih[: 2 * H, :], out=dx)
        ops.matmul(da_n, params.weight_ih[2 * H :, :], out=dx_n)
        add_into(dx, dx_n, ops)


FORMS = {
    "before": Form(2, _before_forward, _before_backward),
    "after": Form(3, _after_forward, _after_backward),
}
