"""Losses: value and gradient with respect to the prediction."""

from array_api_compat import array_namespace

from gru_xp.nn.checks import check_array, check_choice
from gru_xp.nn.ops import Array, Namespace, Ops, default_ops

REDUCTIONS = ("mean", "sum")


def mse_loss(y_pred: Array, y_true: Array, *, reduction: str = "mean", ops: Ops | None = None) -> tuple[Array, Array]:
    """Squared error.

    Parameters
    ----------
    y_pred, y_true : array, shape ``(B, O)``
        Prediction and target; shapes must agree, nothing is broadcast.
    reduction : {"mean", "sum"}
        Over sequences; over the O outputs it is always the mean.
    ops : Ops, optional
        See `gru_forward`.

    Returns
    -------
    value : array, shape ``()``
        ``sum((y_pred - y_true)**2) / (B * O)``, or ``/ O`` with ``reduction="sum"``.
    dpred : array, shape ``(B, O)``
        Its gradient with respect to `y_pred`.

    Raises
    ------
    ShapeError
        The arrays do not go together.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_array("y_pred", y_pred, ("B", "O"))
    B, O = y_pred.shape  # noqa: E741
    check_array("y_true", y_true, (B, O), like=("y_pred", y_pred))
    xp = array_namespace(y_pred)
    ops = ops or default_ops(y_pred)
    scale = 1.0 / (B * O if reduction == "mean" else O)
    error, dpred = (ops.empty((B, O), like=y_pred) for _ in range(2))
    value = ops.empty((1,), like=y_pred)
    ops.pointwise(_scaled_error, (y_pred, y_true, 2.0 * scale), out=(error, dpred))
    ops.norm(error, out=value)
    ops.pointwise(_scaled_square, (value, scale), out=(value,))
    return xp.reshape(value, ()), dpred


def _scaled_error(xp: Namespace, y_pred: Array, y_true: Array, scale: float) -> tuple[Array, Array]:
    error = y_pred - y_true
    return error, scale * error


def _scaled_square(xp: Namespace, a: Array, scale: float) -> tuple[Array]:
    return (scale * a * a,)
