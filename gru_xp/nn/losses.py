"""Losses: value and gradient with respect to the prediction."""

from array_api_compat import array_namespace, device, is_array_api_obj

from gru_xp.errors import ShapeError
from gru_xp.nn.checks import check_array, check_beside, check_choice, check_rows, may_hold
from gru_xp.nn.scan import Array, Arrays, Namespace, Scan, checked_call, on_its_device

REDUCTIONS = ("mean", "sum")


def mse_loss(y_pred: Array, y_true: Array, *, reduction: str = "mean", ops: Scan | None = None) -> tuple[Array, Array]:
    """Squared error.

    Parameters
    ----------
    y_pred, y_true : array, shape ``(B, O)``
        Prediction and target; shapes must agree, nothing is broadcast.
    reduction : {"mean", "sum"}
        Over sequences; over the O outputs it is always the mean.
    ops : Scan, optional
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
    function = _mean_squared_error if reduction == "mean" else _squared_error
    value, dpred = checked_call(function, (y_pred, y_true), _check_target, ops=ops)
    return array_namespace(value).reshape(value, ()), dpred


def _check_target(y_pred: Array, y_true: Array) -> None:
    check_array("y_pred", y_pred, ("B", "O"))
    check_array("y_true", y_true, tuple(y_pred.shape), like=("y_pred", y_pred))


def _mean_squared_error(xp: Namespace, y_pred: Array, y_true: Array) -> Arrays:
    return _squared_error(xp, y_pred, y_true, y_pred.shape[0])


def _squared_error(xp: Namespace, y_pred: Array, y_true: Array, B: int = 1) -> Arrays:
    scale = 1.0 / (B * y_pred.shape[1])
    error = y_pred - y_true
    scaled = scale * error  # so that no square overflows unless the value does
    total = xp.ones_like(error[:, :1]).T @ (scaled * error)  # (1, O)
    return total @ xp.ones_like(total).T, 2.0 * scaled


@on_its_device
def softmax_cross_entropy(
    logits: Array, labels: Array, *, mask: Array | None = None, reduction: str = "mean"
) -> tuple[Array, Array]:
    """Cross-entropy of the softmax: one label a sequence, or one a step.

    Parameters
    ----------
    logits : array, shape ``(B, C)`` or ``(B, T, C)``
        A number for each of C classes, such as `linear_forward` gives.
    labels : array of integers, shape ``(B,)`` or ``(B, T)``
        The right classes, 0 to C - 1, in the namespace and on the device of `logits`.
    mask : array, shape of `labels`, optional
        Which labels count: booleans, or numbers that are 0 or 1. A label that does not count may be any integer, and
        its logits any numbers, NaN too. By default all count.
    reduction : {"mean", "sum"}
        Over the labels that count.

    Returns
    -------
    value : array, shape ``()``
        Mean, or sum, of ``-log(softmax(logits)[label])``.
    dlogits : array, shape of `logits`
        Its gradient with respect to `logits`; exactly 0 where the label does not count.

    Raises
    ------
    ShapeError
        The arrays do not go together, a label that counts is not one of the classes, `mask` has another number than 0
        and 1, or no label counts.

    Notes
    -----
    The gradient is ``(softmax - onehot) / n``, equation 4.109 of C. M. Bishop, *Pattern Recognition and Machine
    Learning* (2006). Each row is shifted by its maximum first, so that no exponential overflows: P. Blanchard,
    D. J. Higham and N. J. Higham, *Accurately computing the log-sum-exp and softmax functions*, IMA Journal of
    Numerical Analysis 41 (2021), doi:10.1093/imanum/draa038.

    The values of labels and mask are checked on the host, so a CUDA device is waited for, and the call cannot be part
    of a captured function. Values that are not known yet, inside ``jax.jit`` and of dask arrays, are not checked.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_rows("logits", logits, "B", "C")
    xp = array_namespace(logits)
    _check_labels(logits, "labels", labels, ("integral",), "an integer type")
    if mask is None:
        counts = xp.ones(labels.shape, dtype=xp.bool, device=device(logits))
    else:
        _check_labels(logits, "mask", mask, ("bool", "integral", "real floating"), "bool, integer or floating-point")
        counts = _counting(xp, mask)
    labels = _classes(xp, labels, counts, logits.shape[-1])
    scale = 1.0 / xp.astype(xp.sum(xp.astype(counts, labels.dtype)), logits.dtype) if reduction == "mean" else 1.0

    zero = xp.zeros((), dtype=logits.dtype, device=device(logits))
    counts, labels = xp.expand_dims(counts, axis=-1), xp.expand_dims(labels, axis=-1)
    right = xp.arange(logits.shape[-1], dtype=labels.dtype, device=device(logits)) == labels
    logits = xp.where(counts, logits, zero)
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    powers = xp.exp(shifted)
    total = xp.sum(powers, axis=-1, keepdims=True)
    at_label = xp.sum(xp.where(right, shifted, zero), axis=-1, keepdims=True)
    value = xp.sum(xp.where(counts, scale * (xp.log(total) - at_label), zero))
    onehot = xp.astype(right, logits.dtype)
    dlogits = xp.where(counts, scale * (powers / total - onehot), zero)
    return xp.reshape(value, ()), dlogits


def _check_labels(logits: Array, name: str, value: Array, kinds: tuple[str, ...], what: str) -> None:
    """Raise ShapeError unless `value` is an array of these kinds of dtype, with a number for each row of `logits`."""
    expected = tuple(logits.shape)[:-1]
    if not is_array_api_obj(value):
        raise ShapeError(f"{name} is a {type(value).__name__}; it must be an array of shape {expected}")
    if tuple(value.shape) != expected:
        raise ShapeError(f"{name} has shape {tuple(value.shape)}; it must be {expected}, that of logits without C")
    if not array_namespace(value).isdtype(value.dtype, kinds):
        raise ShapeError(f"{name} has dtype {value.dtype}; it must be {what}")
    check_beside(name, value, "logits", logits)


def _counting(xp: Namespace, mask: Array) -> Array:
    """The mask as booleans; raise ShapeError if it is known not to be made of 0 and 1, with one of the latter."""
    counts = mask
    if not xp.isdtype(mask.dtype, "bool"):
        counts = mask == 1
        if where := _first(xp, ~(counts | (mask == 0))):
            raise ShapeError(f"mask[{', '.join(map(str, where))}] is {float(mask[where])}; it must be 0 or 1")
    if not may_hold(xp.any(counts)):
        raise ShapeError("mask counts no label; at least one must count")
    return counts


def _classes(xp: Namespace, labels: Array, counts: Array, C: int) -> Array:
    """The labels as signed integers; raise ShapeError if one that counts is known to be no class."""
    classes = xp.astype(labels, xp.arange(1).dtype)
    if where := _first(xp, counts & ((classes < 0) | (classes >= C))):
        label = int(classes[where])
        if xp.isdtype(labels.dtype, "unsigned integer"):
            label %= 2 ** xp.iinfo(classes.dtype).bits  # as it was before
        raise ShapeError(
            f"labels[{', '.join(map(str, where))}] is {label}; it must be 0 to {C - 1}, as logits has C = {C}, or mask "
            "must leave it out"
        )
    return classes


def _first(xp: Namespace, wrong: Array) -> tuple[int, ...]:
    """Return the index of the first True, or an empty one if there is no True or its place is not known."""
    if may_hold(~xp.any(wrong)):
        return ()
    return tuple(int(positions[0]) for positions in xp.nonzero(wrong))
