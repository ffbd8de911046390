"""Losses: value and gradient with respect to the prediction."""

from collections.abc import Callable, Sequence
from typing import Any

from array_api_compat import array_namespace, device, is_array_api_obj

from gru_xp.errors import ArgumentError, ShapeError
from gru_xp.nn.checks import check_array, check_beside, check_choice, check_rows, may_hold, positive_number, shown
from gru_xp.nn.scan import Array, Arrays, Namespace, Scan, checked_call, on_its_device

REDUCTIONS = ("mean", "sum")


def mse_loss(
    y_pred: Array,
    y_true: Array,
    *,
    weight: Array | None = None,
    reduction: str = "mean",
    ops: Scan | None = None,
) -> tuple[Array, Array]:
    """Squared error.

    Parameters
    ----------
    y_pred, y_true : array, shape ``(B, O)``
        Prediction and target; shapes must agree, nothing is broadcast.
    weight : array, shape ``(B, 1)``, optional
        Factor of each sequence's errors, such as the unit of its scaled values: the squares have that of its square.
    reduction : {"mean", "sum"}
        Over sequences; over the O outputs it is always the mean.
    ops : Scan, optional
        See `gru_forward`.

    Returns
    -------
    value : array, shape ``()``
        ``sum((weight * (y_pred - y_true))**2) / (B * O)``, or ``/ O`` with ``reduction="sum"``.
    dpred : array, shape ``(B, O)``
        Its gradient with respect to `y_pred`.

    Raises
    ------
    ShapeError
        The arrays do not go together.
    """
    return _loss(_squared_error, y_pred, y_true, weight, reduction, ops)


def mae_loss(
    y_pred: Array,
    y_true: Array,
    *,
    weight: Array | None = None,
    reduction: str = "mean",
    ops: Scan | None = None,
) -> tuple[Array, Array]:
    """Absolute error; the best prediction is the median.

    Parameters
    ----------
    y_pred, y_true, weight, reduction, ops
        See `mse_loss`.

    Returns
    -------
    value : array, shape ``()``
        ``sum(abs(weight * (y_pred - y_true))) / (B * O)``, or ``/ O`` with ``reduction="sum"``.
    dpred : array, shape ``(B, O)``
        Its gradient with respect to `y_pred`; 0 where the error is 0.

    Raises
    ------
    ShapeError
        The arrays do not go together.
    """
    return _loss(_absolute_error, y_pred, y_true, weight, reduction, ops)


def huber_loss(
    y_pred: Array,
    y_true: Array,
    *,
    delta: float = 1.0,
    weight: Array | None = None,
    reduction: str = "mean",
    ops: Scan | None = None,
) -> tuple[Array, Array]:
    """Half the squared error up to `delta`, and from there on straight, with the same slope.

    Parameters
    ----------
    y_pred, y_true, weight, reduction, ops
        See `mse_loss`.
    delta
        Size of a (weighted) error from which on its loss is linear.

    Returns
    -------
    value : array, shape ``()``
        Sum of ``e**2 / 2``, or of ``delta * (abs(e) - delta / 2)`` where ``abs(e) > delta``, over the errors
        ``e = weight * (y_pred - y_true)``, divided by ``B * O``, or by O with ``reduction="sum"``.
    dpred : array, shape ``(B, O)``
        Its gradient with respect to `y_pred`.

    Raises
    ------
    ShapeError
        The arrays do not go together.
    ArgumentError
        `delta` is not above 0 and finite.

    Notes
    -----
    Source: Huber (1964), doi:10.1214/aoms/1177703732.
    """
    return _loss(_huber_error, y_pred, y_true, weight, reduction, ops, positive_number("delta", delta))


def quantile_loss(
    y_pred: Array,
    y_true: Array,
    *,
    quantiles: Sequence[float] = (0.5,),
    weight: Array | None = None,
    reduction: str = "mean",
    ops: Scan | None = None,
) -> tuple[Array, Array]:
    """Quantile (pinball) loss of one or several quantiles.

    Parameters
    ----------
    y_pred : array, shape ``(B, Q * O)``
        Predictions of Q quantiles: O columns for the first one, then O for the next.
    y_true : array, shape ``(B, O)``
        Target.
    quantiles
        Q levels between 0 and 1.
    weight, reduction, ops
        See `mse_loss`.

    Returns
    -------
    value : array, shape ``()``
        Sum of ``max((1 - q) * e, -q * e)`` over the errors ``e = weight * (y_pred - y_true)`` of each quantile q,
        divided by ``B * Q * O``, or by ``Q * O`` with ``reduction="sum"``. Of 0.5 alone, half the absolute error.
    dpred : array, shape ``(B, Q * O)``
        Its gradient with respect to `y_pred`; 0 where the error is 0.

    Raises
    ------
    ShapeError
        The arrays do not go together.
    ArgumentError
        A quantile is not between 0 and 1, or there is none.

    Notes
    -----
    Source: Koenker and Bassett (1978), doi:10.2307/1913643. Nothing keeps predictions of different quantiles from
    crossing; sorted, they do not, and their loss is no higher.
    """
    levels = check_quantiles(quantiles)
    return _loss(_quantile_error, y_pred, y_true, weight, reduction, ops, levels, outputs=len(levels))


def gaussian_loss(
    y_pred: Array,
    y_true: Array,
    *,
    weight: Array | None = None,
    reduction: str = "mean",
    ops: Scan | None = None,
) -> tuple[Array, Array]:
    """Negative log-likelihood of a normal distribution, without its constant ``log(2 pi) / 2``.

    Parameters
    ----------
    y_pred : array, shape ``(B, 2 * O)``
        O means m, then O logarithms s of standard deviations.
    y_true : array, shape ``(B, O)``
        Target.
    weight : array, shape ``(B, 1)``, optional
        Factor of each sequence's loss. Another unit of the values would change no gradient.
    reduction, ops
        See `mse_loss`.

    Returns
    -------
    value : array, shape ``()``
        ``sum(weight * (s + ((y_true - m) / exp(s))**2 / 2)) / (B * O)``, or ``/ O`` with ``reduction="sum"``.
    dpred : array, shape ``(B, 2 * O)``
        Its gradient with respect to `y_pred`.

    Raises
    ------
    ShapeError
        The arrays do not go together.
    """
    return _loss(_gaussian_error, y_pred, y_true, weight, reduction, ops, outputs=2)


def poisson_loss(
    y_pred: Array,
    y_true: Array,
    *,
    weight: Array | None = None,
    reduction: str = "mean",
    ops: Scan | None = None,
) -> tuple[Array, Array]:
    """Negative log-likelihood of a Poisson distribution, without its constant ``log(y_true!)``.

    Parameters
    ----------
    y_pred : array, shape ``(B, O)``
        Logarithm of the rate.
    y_true : array, shape ``(B, O)``
        Target, a count; of negative numbers the loss has no minimum.
    weight : array, shape ``(B, 1)``, optional
        Factor of each sequence's loss.
    reduction, ops
        See `mse_loss`.

    Returns
    -------
    value : array, shape ``()``
        ``sum(weight * (exp(y_pred) - y_true * y_pred)) / (B * O)``, or ``/ O`` with ``reduction="sum"``.
    dpred : array, shape ``(B, O)``
        Its gradient with respect to `y_pred`.

    Raises
    ------
    ShapeError
        The arrays do not go together.
    """
    return _loss(_poisson_error, y_pred, y_true, weight, reduction, ops)


def check_quantiles(quantiles: object) -> tuple[float, ...]:
    """Quantiles as floats; raise ArgumentError unless they are numbers between 0 and 1, at least one."""
    try:
        levels = tuple(float(q) for q in quantiles)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        levels = ()
    if not levels or not all(0.0 < q < 1.0 for q in levels):
        raise ArgumentError(f"quantiles is {shown(quantiles)}; it must be numbers above 0 and below 1, such as [0.5]")
    return levels


def _loss(
    function: Callable[..., Arrays],
    y_pred: Array,
    y_true: Array,
    weight: Array | None,
    reduction: str,
    ops: Scan | None,
    *settings: Any,
    outputs: int = 1,
) -> tuple[Array, Array]:
    """Value ``()`` and gradient by one of the functions below, of so many outputs for each target, after the checks."""
    check_choice("reduction", reduction, REDUCTIONS)
    count = (getattr(y_pred, "shape", None) or (1,))[0] if reduction == "mean" else 1
    arguments = (y_pred, y_true, weight, count, *settings)
    value, dpred = checked_call(function, arguments, _check_target, (outputs,), ops)
    return array_namespace(value).reshape(value, ()), dpred


def _check_target(y_pred: Array, y_true: Array, weight: Array | None, count: int, *others: Any) -> None:
    outputs = others[-1]
    check_array("y_pred", y_pred, ("B", "O" if outputs == 1 else f"{outputs} * O"))
    B, columns = y_pred.shape
    if columns % outputs:
        raise ShapeError(f"y_pred has shape {(B, columns)}; it must be (B, {outputs} * O)")
    check_array("y_true", y_true, (B, columns // outputs), like=("y_pred", y_pred))
    if weight is not None:
        check_array("weight", weight, (B, 1), like=("y_pred", y_pred))


def _squared_error(xp: Namespace, y_pred: Array, y_true: Array, weight: Array | None, count: int) -> Arrays:
    scale = 1.0 / (count * y_pred.shape[1])
    error = _times(weight, y_pred - y_true)
    scaled = scale * error  # so that no square overflows unless the value does
    return _sum(xp, scaled * error), _times(weight, 2.0 * scaled)


def _absolute_error(xp: Namespace, y_pred: Array, y_true: Array, weight: Array | None, count: int) -> Arrays:
    scale = 1.0 / (count * y_pred.shape[1])
    error = _times(weight, y_pred - y_true)
    slope = _slope(xp, error, scale, scale)
    return _sum(xp, slope * error), _times(weight, slope)


def _huber_error(xp: Namespace, y_pred: Array, y_true: Array, weight: Array | None, count: int, delta: float) -> Arrays:
    scale = 1.0 / (count * y_pred.shape[1])
    error = _times(weight, y_pred - y_true)
    clipped = xp.where(error > delta, delta, xp.where(-error > delta, -delta, error))
    slope = scale * clipped
    return _sum(xp, slope * (error - 0.5 * clipped)), _times(weight, slope)


def _quantile_error(
    xp: Namespace, y_pred: Array, y_true: Array, weight: Array | None, count: int, quantiles: tuple[float, ...]
) -> Arrays:
    scale, O = 1.0 / (count * y_pred.shape[1]), y_true.shape[1]  # noqa: E741
    values, slopes = [], []
    for number, q in enumerate(quantiles):
        error = _times(weight, y_pred[:, number * O : (number + 1) * O] - y_true)
        slope = _slope(xp, error, scale * (1.0 - q), scale * q)
        values.append(slope * error)
        slopes.append(_times(weight, slope))
    return _sum(xp, xp.concat(values, axis=1)), xp.concat(slopes, axis=1)


def _gaussian_error(xp: Namespace, y_pred: Array, y_true: Array, weight: Array | None, count: int) -> Arrays:
    O = y_true.shape[1]  # noqa: E741
    scale = 1.0 / (count * O)
    log_deviation = y_pred[:, O:]
    root = xp.exp(-0.5 * log_deviation)  # twice, and not its square, which might overflow where the error is 0
    error = (y_pred[:, :O] - y_true) * root * root  # in standard deviations
    scaled = scale * error
    value = scale * log_deviation + 0.5 * scaled * error
    dmean, dlog_deviation = scaled * root * root, scale - scaled * error
    return _sum(xp, _times(weight, value)), _times(weight, xp.concat([dmean, dlog_deviation], axis=1))


def _poisson_error(xp: Namespace, y_pred: Array, y_true: Array, weight: Array | None, count: int) -> Arrays:
    scale = 1.0 / (count * y_pred.shape[1])
    root = xp.exp(0.5 * y_pred)
    rate, scaled = scale * root * root, scale * y_true  # so that no rate overflows unless the value does
    return _sum(xp, _times(weight, rate - scaled * y_pred)), _times(weight, rate - scaled)


def _times(weight: Array | None, a: Array) -> Array:
    return a if weight is None else weight * a


def _slope(xp: Namespace, error: Array, above: float, below: float) -> Array:
    """`above` where an error is positive, ``-below`` where it is negative; 0 at 0, NaN at NaN."""
    return xp.where(error > 0.0, above, xp.where(-error > 0.0, -below, error))


def _sum(xp: Namespace, a: Array) -> Array:
    """Over both axes, ``(1, 1)``."""
    total = xp.ones_like(a[:, :1]).T @ a  # (1, O)
    return total @ xp.ones_like(total).T


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
