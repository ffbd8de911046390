"""Losses: value and gradient with respect to the prediction."""

from array_api_compat import array_namespace

from gru_xp.nn.checks import check_array, check_choice
from gru_xp.nn.ops import Array

REDUCTIONS = ("mean", "sum")


def mse_loss(y_pred: Array, y_true: Array, *, reduction: str = "mean") -> tuple[Array, Array]:
    """Squared error.

    Parameters
    ----------
    y_pred, y_true : array, shape ``(B, O)``
        Prediction and target; shapes must agree, nothing is broadcast.
    reduction : {"mean", "sum"}
        Over sequences; over the O outputs it is always the mean.

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
    scale = 1.0 / (B * O if reduction == "mean" else O)
    error = y_pred - y_true
    return scale * xp.sum(error * error), (2.0 * scale) * error
