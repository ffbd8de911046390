"""One GRU step for a whole batch, forward and backward.

    z  = sigmoid(a_z + W_hz h)        r = sigmoid(a_r + W_hr h)        a = W_ih x + bias
    n  = tanh(a_n + W_hn (r * h))                reset="before"
    n  = tanh(a_n + r * (W_hn h + bias_hn))      reset="after"
    h' = (1 - z) * h + z * n

README.md beside this file derives every line of the backward pass. ``gru.py`` runs the same steps over time.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from array_api_compat import array_namespace

from gru_xp.nn.activations import sigmoid_backward, sigmoid_forward, tanh_backward, tanh_forward
from gru_xp.nn.checks import check_array, check_choice, check_kind
from gru_xp.nn.ops import PLAIN_OPS, Array, Namespace, Ops
from gru_xp.nn.params import GRUParams

Reset: TypeAlias = Literal["before", "after"]
RESETS: tuple[Reset, ...] = ("before", "after")


class CellCache(NamedTuple):
    """What `gru_cell_backward` needs of the forward step."""

    x: Array  # (B, I)
    h_prev: Array  # (B, H)
    gates: Array  # (B, 3H): z, r, n
    inner: Array  # (B, H): r * h_prev (before) or W_hn h_prev + bias_hn (after)
    params: GRUParams
    reset: Reset
    ops: Ops


def gru_cell_forward(
    x: Array, h_prev: Array, params: GRUParams, *, reset: Reset = "before", ops: Ops = PLAIN_OPS
) -> tuple[Array, CellCache]:
    """One GRU step.

    Parameters
    ----------
    x : array, shape ``(B, I)``
        The step's input.
    h_prev : array, shape ``(B, H)``
        The state before the step.
    params : GRUParams
        Arrays of the same namespace, device and dtype as `x`.
    reset : {"before", "after"}
        Whether the reset gate multiplies the state before its matrix product (Cho et al. 2014, arXiv:1406.1078v3) or
        the product after it (PyTorch, cuDNN and Keras).
    ops : Ops
        How to allocate, multiply and run pointwise expressions; the Array API's own way by default.

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
    """
    check_choice("reset", reset, RESETS)
    check_array("x", x, ("B", "I"))
    check_params(params, x)
    B, H = x.shape[0], params.hidden_size
    check_array("h_prev", h_prev, (B, H), like=("x", x))

    gates = input_product(x, params, ops)
    inner, h = (ops.empty((B, H), like=x) for _ in range(2))
    form = FORMS[reset]
    form.forward(gates, h_prev, inner, h, form.products(B, H, x, ops), params, ops)
    return h, CellCache(x, h_prev, gates, inner, params, reset, ops)


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

    Raises
    ------
    ShapeError
        `dh` does not fit the forward step.
    """
    check_kind("cache", cache, CellCache, "the cache that gru_cell_forward returned")
    x, h_prev, gates, inner, params, reset, ops = cache
    B, H = h_prev.shape
    check_array("dh", dh, (B, H), like=("x", x))

    form = FORMS[reset]
    da_rec = ops.empty((B, form.recurrent_gates * H), like=x)
    da_n, dh_prev, product = (ops.empty((B, H), like=x) for _ in range(3))
    form.backward(dh, h_prev, gates, inner, da_rec, da_n, dh_prev, product, params, ops)
    dx, dparams = form.parameter_gradients(x, h_prev, inner, da_rec, da_n, params, ops)
    return dx, dh_prev, dparams


def check_params(params: GRUParams, x: Array) -> None:
    """Raise ShapeError unless `params` goes together and with the input `x`, whose last size is I."""
    check_kind("params", params, GRUParams, "a GRUParams")
    check_array("params.weight_hh", params.weight_hh, ("3H", "H"), like=("x", x))
    H = params.hidden_size
    dims = {"weight_hh": (3 * H, H), "weight_ih": (3 * H, x.shape[-1]), "bias": (3 * H,), "bias_hn": (H,)}
    for name, expected in dims.items():
        why = f", as the last size of x is {x.shape[-1]}" if name == "weight_ih" else ""
        check_array(f"params.{name}", getattr(params, name), expected, like=("x", x), why=why)


def input_product(x: Array, params: GRUParams, ops: Ops) -> Array:
    """``a = x W_ih^T + bias``, ``(..., 3H)``, for the input of one step or of all of them."""
    a = ops.matmul(x, params.weight_ih.T, out=ops.empty((*x.shape[:-1], params.bias.shape[0]), like=x))
    ops.pointwise(_sum, (a, params.bias), out=(a,))
    return a


def _blocks(stacked: Array, H: int) -> tuple[Array, ...]:
    """The column blocks of width H, one a gate."""
    return tuple(stacked[:, start : start + H] for start in range(0, stacked.shape[1], H))


def _sum(xp: Namespace, a: Array, b: Array) -> tuple[Array]:
    return (a + b,)


# --- reset="before" ---------------------------------------------------------------------------------------------


def _before_update_reset(
    xp: Namespace, a_z: Array, a_r: Array, s_z: Array, s_r: Array, h_prev: Array
) -> tuple[Array, Array, Array]:
    z = sigmoid_forward(xp, a_z + s_z)
    r = sigmoid_forward(xp, a_r + s_r)
    return z, r, r * h_prev


def _before_candidate(xp: Namespace, a_n: Array, s_n: Array, z: Array, h_prev: Array) -> tuple[Array, Array]:
    n = tanh_forward(xp, a_n + s_n)
    return n, h_prev + z * (n - h_prev)


def _before_forward(
    gates: Array,
    h_prev: Array,
    inner: Array,
    h: Array,
    products: tuple[Array, ...],
    params: GRUParams,
    ops: Ops,
) -> None:
    H = h_prev.shape[1]
    z, r, n = _blocks(gates, H)
    s_zr = ops.matmul(h_prev, params.weight_hh[: 2 * H, :].T, out=products[0])
    s_z, s_r = _blocks(s_zr, H)
    ops.pointwise(_before_update_reset, (z, r, s_z, s_r, h_prev), out=(z, r, inner))
    s_n = ops.matmul(inner, params.weight_hh[2 * H :, :].T, out=products[1])
    ops.pointwise(_before_candidate, (n, s_n, z, h_prev), out=(n, h))


def _before_d_candidate(xp: Namespace, dh: Array, h_prev: Array, z: Array, n: Array) -> tuple[Array, Array, Array]:
    da_z = sigmoid_backward(dh * (n - h_prev), z)
    da_n = tanh_backward(dh * z, n)
    return da_z, da_n, dh * (1.0 - z)


def _before_d_reset(xp: Namespace, d_inner: Array, h_prev: Array, r: Array, dh_prev: Array) -> tuple[Array, Array]:
    da_r = sigmoid_backward(d_inner * h_prev, r)
    return da_r, dh_prev + d_inner * r


def _before_backward(
    dh: Array,
    h_prev: Array,
    gates: Array,
    inner: Array,
    da_rec: Array,
    da_n: Array,
    dh_prev: Array,
    product: Array,
    params: GRUParams,
    ops: Ops,
) -> None:
    H = h_prev.shape[1]
    z, r, n = _blocks(gates, H)
    da_z, da_r = _blocks(da_rec, H)
    ops.pointwise(_before_d_candidate, (dh, h_prev, z, n), out=(da_z, da_n, dh_prev))
    d_inner = ops.matmul(da_n, params.weight_hh[2 * H :, :], out=product)
    ops.pointwise(_before_d_reset, (d_inner, h_prev, r, dh_prev), out=(da_r, dh_prev))
    dh_zr = ops.matmul(da_rec, params.weight_hh[: 2 * H, :], out=product)
    ops.pointwise(_sum, (dh_prev, dh_zr), out=(dh_prev,))


# --- reset="after" ----------------------------------------------------------------------------------------------


def _after_gates(
    xp: Namespace,
    a_z: Array,
    a_r: Array,
    a_n: Array,
    s_z: Array,
    s_r: Array,
    s_n: Array,
    bias_hn: Array,
    h_prev: Array,
) -> tuple[Array, Array, Array, Array, Array]:
    z = sigmoid_forward(xp, a_z + s_z)
    r = sigmoid_forward(xp, a_r + s_r)
    q = s_n + bias_hn
    n = tanh_forward(xp, a_n + r * q)
    return z, r, q, n, h_prev + z * (n - h_prev)


def _after_forward(
    gates: Array,
    h_prev: Array,
    inner: Array,
    h: Array,
    products: tuple[Array, ...],
    params: GRUParams,
    ops: Ops,
) -> None:
    H = h_prev.shape[1]
    z, r, n = _blocks(gates, H)
    s = ops.matmul(h_prev, params.weight_hh.T, out=products[0])
    ops.pointwise(_after_gates, (z, r, n, *_blocks(s, H), params.bias_hn, h_prev), out=(z, r, inner, n, h))


def _after_d_gates(
    xp: Namespace, dh: Array, h_prev: Array, z: Array, r: Array, n: Array, q: Array
) -> tuple[Array, Array, Array, Array, Array]:
    da_z = sigmoid_backward(dh * (n - h_prev), z)
    da_n = tanh_backward(dh * z, n)
    da_r = sigmoid_backward(da_n * q, r)
    return da_z, da_r, da_n * r, da_n, dh * (1.0 - z)


def _after_backward(
    dh: Array,
    h_prev: Array,
    gates: Array,
    inner: Array,
    da_rec: Array,
    da_n: Array,
    dh_prev: Array,
    product: Array,
    params: GRUParams,
    ops: Ops,
) -> None:
    H = h_prev.shape[1]
    da_z, da_r, dq = _blocks(da_rec, H)
    ops.pointwise(_after_d_gates, (dh, h_prev, *_blocks(gates, H), inner), out=(da_z, da_r, dq, da_n, dh_prev))
    dh_s = ops.matmul(da_rec, params.weight_hh, out=product)
    ops.pointwise(_sum, (dh_prev, dh_s), out=(dh_prev,))


# --- what the two forms have in common --------------------------------------------------------------------------


class Form(NamedTuple):
    """How a form of the reset gate takes a step.

    Attributes
    ----------
    recurrent_gates
        How many gates' products `h_prev` enters directly: z and r (before) or all three (after).
    forward
        ``(gates, h_prev, inner, h, products, params, ops)``: turns `gates` from the input product into z, r, n and
        writes `inner` and `h`.
    backward
        ``(dh, h_prev, gates, inner, da_rec, da_n, dh_prev, product, params, ops)``: writes the gradients with respect
        to the recurrent products `da_rec`, the candidate's argument `da_n` and the state `dh_prev`; `product` is
        scratch.
    """

    recurrent_gates: int
    forward: Callable[..., None]
    backward: Callable[..., None]

    def products(self, B: int, H: int, like: Array, ops: Ops) -> tuple[Array, ...]:
        """Scratch memory for the matrix products of `forward`."""
        widths = (2 * H, H) if self.recurrent_gates == 2 else (3 * H,)
        return tuple(ops.empty((B, width), like=like) for width in widths)

    def parameter_gradients(
        self, x: Array, h_prev: Array, inner: Array, da_rec: Array, da_n: Array, params: GRUParams, ops: Ops
    ) -> tuple[Array, GRUParams]:
        """``dx`` and the parameters' gradients, from arrays ``(..., size)`` of one step or of all of them."""
        xp = array_namespace(x)
        H = params.hidden_size
        over_rows = tuple(range(x.ndim - 1))
        da_zr = da_rec[..., : 2 * H]
        dx, dx_n = (ops.empty(x.shape, like=x) for _ in range(2))
        ops.matmul(da_zr, params.weight_ih[: 2 * H, :], out=dx)
        ops.matmul(da_n, params.weight_ih[2 * H :, :], out=dx_n)
        ops.pointwise(_sum, (dx, dx_n), out=(dx,))
        dweight_ih = xp.concat([ops.contract(da_zr, x), ops.contract(da_n, x)])
        dweight_hh = ops.contract(da_rec, h_prev)
        dbias = xp.concat([xp.sum(da_zr, axis=over_rows), xp.sum(da_n, axis=over_rows)])
        if self.recurrent_gates == 2:
            dweight_hh = xp.concat([dweight_hh, ops.contract(da_n, inner)])
            dbias_hn = xp.zeros_like(params.bias_hn)
        else:
            dbias_hn = xp.sum(da_rec[..., 2 * H :], axis=over_rows)
        return dx, GRUParams(dweight_ih, dweight_hh, dbias, dbias_hn)


FORMS = {
    "before": Form(2, _before_forward, _before_backward),
    "after": Form(3, _after_forward, _after_backward),
}
