import warnings

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.errors import ShapeError
from gru_xp.nn import (
    GRUParams,
    LinearParams,
    gradcheck,
    gru_backward,
    gru_forward,
    init_linear_params,
    init_params,
    linear_backward,
    linear_forward,
    mse_loss,
    softmax_cross_entropy,
)


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (1, 3), (4, 3)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_value_against_a_loop(xp, draw, reduction, shape):
    y_pred, y_true = draw(xp, shape), draw(xp, shape)
    value, _ = mse_loss(y_pred, y_true, reduction=reduction)
    total = 0.0
    for pred_row, true_row in zip(to_host(y_pred), to_host(y_true), strict=True):
        total += sum((p - t) ** 2 for p, t in zip(pred_row, true_row, strict=True)) / shape[1]
    assert value.shape == ()
    assert float(value) == pytest.approx(total / shape[0] if reduction == "mean" else total, rel=1e-13)


def test_mean_over_sequences_is_the_default(draw):
    y_pred, y_true = draw(np, (4, 3)), draw(np, (4, 3))
    assert mse_loss(y_pred, y_true)[0] == pytest.approx(np.mean((y_pred - y_true) ** 2), rel=1e-14)


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (1, 3), (4, 3)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradient(xp, draw, reduction, shape):
    y_true = draw(xp, shape)
    report = gradcheck(
        lambda y_pred: mse_loss(y_pred, y_true, reduction=reduction),
        lambda dvalue, dpred: dvalue * dpred,
        {"y_pred": draw(xp, shape)},
    )
    assert report.ok, report


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_namespace_and_dtype(xp, draw, dtype):
    y_pred, y_true = draw(xp, (4, 3), dtype), draw(xp, (4, 3), dtype)
    for result in mse_loss(y_pred, y_true):
        assert array_namespace(result) is array_namespace(y_pred)
        assert result.dtype == getattr(xp, dtype)


def test_read_only_inputs(draw):
    y_pred, y_true = draw(np, (4, 3)), draw(np, (4, 3))
    y_pred.setflags(write=False)
    y_true.setflags(write=False)
    assert mse_loss(y_pred, y_true)[0] > 0.0


@pytest.mark.parametrize(
    ("pred_shape", "true_shape", "message"),
    [
        ((4, 1), (4,), "y_true has shape (4,); it must be (4, 1)"),  # would broadcast to (4, 4)
        ((4,), (4, 1), "y_pred has shape (4,); it must be (B, O)"),
        ((4, 3), (4, 1), "y_true has shape (4, 1); it must be (4, 3)"),
        ((4, 3), (1, 3), "y_true has shape (1, 3); it must be (4, 3)"),
        ((0, 3), (0, 3), "y_pred has shape (0, 3); it must be (B, O) with every size at least 1"),
    ],
)
def test_nothing_is_broadcast(pred_shape, true_shape, message):
    with pytest.raises(ShapeError) as error:
        mse_loss(np.ones(pred_shape), np.ones(true_shape))
    assert str(error.value) == message


def test_wrong_kinds(draw, misfit):
    y_pred, y_true = draw(np, (4, 3)), draw(np, (4, 3))
    bad, message = misfit("y_true", y_true, "(4, 3)", like="y_pred")
    with pytest.raises(ShapeError) as error:
        mse_loss(y_pred, bad)
    assert str(error.value) == message


def test_unknown_reduction():
    with pytest.raises(ValueError, match="reduction is 'none'; it must be one of 'mean', 'sum'"):
        mse_loss(np.ones((2, 1)), np.ones((2, 1)), reduction="none")


# --- softmax cross-entropy --------------------------------------------------------------------------------------

SHAPES = [(1, 1), (1, 4), (5, 3), (2, 1, 3), (3, 4, 2), (2, 5, 7)]
"""Of logits; the labels have all axes but the last."""


@pytest.fixture
def draw_labels(rng):
    """``draw_labels(xp, shape, classes, dtype="int64")``."""

    def draw_labels(xp, shape, classes, dtype="int64"):
        return xp.asarray(rng.integers(classes, size=shape).astype(dtype))

    return draw_labels


def torch_cross_entropy(logits, labels, mask, reduction):
    """Value and gradient, by PyTorch in float64, of host arrays."""
    torch = pytest.importorskip("torch")
    logits = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(labels if mask is None else np.where(mask, labels, -100), dtype=torch.int64)
    classes = logits.shape[-1]
    value = torch.nn.functional.cross_entropy(
        logits.reshape(-1, classes), labels.reshape(-1), ignore_index=-100, reduction=reduction
    )
    value.backward()
    return value.item(), logits.grad.numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("masked", [False, True])
def test_cross_entropy_against_pytorch(xp, rng, draw, draw_labels, shape, reduction, masked):
    logits, labels = 3.0 * draw(xp, shape), draw_labels(xp, shape[:-1], shape[-1])
    mask = None
    if masked:
        mask = rng.integers(2, size=shape[:-1]).astype(bool)
        mask.flat[-1] = True
    value, dlogits = softmax_cross_entropy(
        logits, labels, mask=None if mask is None else xp.asarray(mask), reduction=reduction
    )
    expected, gradient = torch_cross_entropy(to_host(logits), to_host(labels), mask, reduction)
    assert value.shape == ()
    assert float(value) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(to_host(dlogits), gradient, rtol=1e-12, atol=1e-12)


def test_cross_entropy_against_a_loop(xp, draw, draw_labels):
    logits, labels = draw(xp, (2, 3, 4)), draw_labels(xp, (2, 3), 4)
    value, _ = softmax_cross_entropy(logits, labels)
    logits, labels, total = to_host(logits), to_host(labels), 0.0
    for b, t in np.ndindex(2, 3):
        powers = np.exp(logits[b, t])
        total -= np.log(powers[labels[b, t]] / powers.sum())
    assert float(value) == pytest.approx(total / 6, rel=1e-13)


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_gradient(xp, rng, draw, draw_labels, check_mode, shape, reduction):
    labels = draw_labels(xp, shape[:-1], shape[-1])
    mask = rng.integers(2, size=shape[:-1]).astype(bool)
    mask.flat[0] = True
    mask = xp.asarray(mask)
    report = gradcheck(
        lambda logits: softmax_cross_entropy(logits, labels, mask=mask, reduction=reduction),
        lambda dvalue, dlogits: dvalue * dlogits,
        {"logits": draw(xp, shape)},
        mode=check_mode,
    )
    assert report.ok, report


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3)])
def test_cross_entropy_namespace_and_dtype(xp, draw, draw_labels, shape, dtype):
    logits, labels = draw(xp, shape, dtype), draw_labels(xp, shape[:-1], 3)
    value, dlogits = softmax_cross_entropy(logits, labels)
    assert (tuple(value.shape), tuple(dlogits.shape)) == ((), shape)
    for result in (value, dlogits):
        assert array_namespace(result) is array_namespace(logits)
        assert result.dtype == getattr(xp, dtype)
    with pytest.raises(TypeError):
        len(value)


@pytest.mark.parametrize("dtype", [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)])
def test_labels_of_any_integer_type(xp, draw, draw_labels, dtype):
    """More classes than an 8-bit label can name, too."""
    logits, labels = draw(xp, (5, 300)), draw_labels(xp, (5,), 100)
    value, dlogits = softmax_cross_entropy(logits, xp.astype(labels, getattr(xp, dtype)))
    expected, gradient = softmax_cross_entropy(logits, labels)
    assert float(value) == float(expected)
    np.testing.assert_array_equal(to_host(dlogits), to_host(gradient))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_what_does_not_count_spoils_nothing(xp, draw, draw_labels, dtype, reduction):
    logits, labels = draw(xp, (2, 3, 4)), draw_labels(xp, (2, 3), 4)
    mask = xp.astype(xp.asarray([[1, 0, 1], [0, 1, 0]]), getattr(xp, dtype))
    value, dlogits = softmax_cross_entropy(logits, labels, mask=mask, reduction=reduction)
    bad_logits, bad_labels = xp.asarray(logits, copy=True), xp.asarray(labels, copy=True)
    for where, label, number in (((0, 1), -100, np.nan), ((1, 0), 4, np.inf), ((1, 2), 2**62, -np.inf)):
        bad_labels[where] = label
        bad_logits[(*where, slice(None))] = number
        bad_logits[(*where, 0)] = 1e300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bad_value, bad_dlogits = softmax_cross_entropy(bad_logits, bad_labels, mask=mask, reduction=reduction)
    assert float(bad_value) == float(value)
    np.testing.assert_array_equal(to_host(bad_dlogits), to_host(dlogits))
    for where in ((0, 1), (1, 0), (1, 2)):
        assert to_host(bad_dlogits)[where].tolist() == [0.0] * 4
    kept = [(0, 0), (0, 2), (1, 1)]
    rows = xp.stack([logits[(*where, slice(None))] for where in kept])
    of_kept, _ = softmax_cross_entropy(rows, xp.stack([labels[where] for where in kept]), reduction=reduction)
    assert float(value) == pytest.approx(float(of_kept), rel=1e-13)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float32", 1e4), ("float64", 1e4), ("float32", float(np.finfo(np.float32).max) / 10), ("float64", 1e307)],
)
def test_large_logits(xp, dtype, size):
    dtype = getattr(xp, dtype)
    logits = xp.asarray([[size, -size, 0.0], [-size, size, size], [size, size, size], [-size] * 3], dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, dlogits = softmax_cross_entropy(logits, xp.asarray([1, 1, 0, 2]), reduction="mean")
        total, _ = softmax_cross_entropy(logits[1:, :], xp.asarray([0, 1, 2]), reduction="sum")
    assert float(value) == pytest.approx(size / 2, rel=1e-3)  # one row in four is wrong, by 2 size
    assert float(total) == pytest.approx(2.0 * size, rel=1e-3)
    third = 1 / 3
    expected = [[1, -1, 0], [0, -0.5, 0.5], [third - 1, third, third], [third, third, third - 1]]
    np.testing.assert_allclose(to_host(dlogits), np.array(expected) / 4, rtol=1e-6, atol=1e-7)


def test_a_class_that_is_ruled_out(xp):
    """A logit of -infinity is a probability of 0."""
    logits = xp.asarray([[0.5, -np.inf, 1.5]], dtype=xp.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, dlogits = softmax_cross_entropy(logits, xp.asarray([2]))
    p = 1 / (1 + np.exp(-1.0))
    assert float(value) == pytest.approx(-np.log(p), rel=1e-13)
    np.testing.assert_allclose(to_host(dlogits), [[1 - p, 0.0, p - 1]], rtol=1e-13)


def test_cross_entropy_of_equal_logits_and_of_one_class(xp):
    value, _ = softmax_cross_entropy(xp.zeros((3, 5)), xp.asarray([0, 4, 2]))
    assert float(value) == pytest.approx(np.log(5), rel=1e-6)
    value, dlogits = softmax_cross_entropy(xp.asarray([[7.5], [-2.0]]), xp.asarray([0, 0]))
    assert float(value) == 0.0
    assert to_host(dlogits).tolist() == [[0.0], [0.0]]


def test_cross_entropy_changes_no_argument(draw, draw_labels):
    logits, labels, mask = draw(np, (2, 3, 4)), draw_labels(np, (2, 3), 4), np.array([[1, 0, 1], [0, 1, 1]])
    for array in (logits, labels, mask):
        array.setflags(write=False)
    assert softmax_cross_entropy(logits, labels, mask=mask)[0] > 0.0


RIGHT = {"logits": np.ones((2, 3, 4)), "labels": np.ones((2, 3), int), "mask": np.ones((2, 3), bool)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits": np.ones(4)}, "logits has shape (4,); it must be (B, C) or (B, T, C)"),
        ({"logits": np.ones((1, 2, 3, 4))}, "logits has shape (1, 2, 3, 4); it must be (B, C) or (B, T, C)"),
        ({"logits": np.ones((2, 0))}, "logits has shape (2, 0); it must be (B, C) with every size at least 1"),
        ({"logits": np.ones((2, 0, 4))}, "logits has shape (2, 0, 4); it must be (B, T, C) with every size at least 1"),
        ({"logits": [[1.0, 2.0]]}, "logits is a list; it must be an array of shape (B, C)"),
        ({"logits": np.ones((2, 3, 4), int)}, "logits has dtype int64; it must be float32 or float64"),
        ({"labels": [[1, 1, 1]] * 2}, "labels is a list; it must be an array of shape (2, 3)"),
        ({"labels": np.ones((3, 2), int)}, "labels has shape (3, 2); it must be (2, 3), that of logits without C"),
        ({"labels": np.ones((1, 3), int)}, "labels has shape (1, 3); it must be (2, 3), that of logits without C"),
        (
            {"labels": np.ones((2, 3, 1), int)},
            "labels has shape (2, 3, 1); it must be (2, 3), that of logits without C",
        ),
        ({"labels": np.ones((2, 3))}, "labels has dtype float64; it must be an integer type"),
        ({"labels": np.ones((2, 3), bool)}, "labels has dtype bool; it must be an integer type"),
        ({"mask": [[1, 1, 1]] * 2}, "mask is a list; it must be an array of shape (2, 3)"),
        ({"mask": np.ones(2)}, "mask has shape (2,); it must be (2, 3), that of logits without C"),
        ({"mask": np.ones((2, 3), complex)}, "mask has dtype complex128; it must be bool, integer or floating-point"),
    ],
)
def test_cross_entropy_of_what_does_not_go_together(changed, message):
    call = {**RIGHT, **changed}
    with pytest.raises(ShapeError) as error:
        softmax_cross_entropy(call["logits"], call["labels"], mask=call["mask"])
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["labels", "mask"])
def test_cross_entropy_of_two_namespaces(name):
    strict = pytest.importorskip("array_api_strict")
    call = {**RIGHT, name: strict.asarray(RIGHT[name])}
    with pytest.raises(ShapeError) as error:
        softmax_cross_entropy(call["logits"], call["labels"], mask=call["mask"])
    assert str(error.value) == f"{name} has namespace array_api_strict; it must be that of logits, numpy"


@pytest.mark.parametrize("masked", [False, True])
def test_cross_entropy_stays_on_the_device(masked):
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    call = {key: strict.asarray(value, device=device) for key, value in RIGHT.items()}
    results = softmax_cross_entropy(call["logits"], call["labels"], mask=call["mask"] if masked else None)
    expected = softmax_cross_entropy(RIGHT["logits"], RIGHT["labels"], mask=RIGHT["mask"] if masked else None)
    for actual, desired in zip(results, expected, strict=True):
        assert actual.device == device
        actual = to_host(actual.to_device(strict.Device("CPU_DEVICE")))
        np.testing.assert_allclose(actual, desired, rtol=1e-13)


@pytest.mark.parametrize("name", ["labels", "mask"])
def test_cross_entropy_of_two_devices(name):
    strict = pytest.importorskip("array_api_strict")
    call = {key: strict.asarray(value) for key, value in RIGHT.items()}
    call[name] = strict.asarray(RIGHT[name], device=strict.Device("device1"))
    with pytest.raises(ShapeError) as error:
        softmax_cross_entropy(call["logits"], call["labels"], mask=call["mask"])
    devices = "array_api_strict.Device('device1')", "array_api_strict.Device('CPU_DEVICE')"
    assert str(error.value) == f"{name} has device {devices[0]}; it must be that of logits, {devices[1]}"


@pytest.mark.parametrize(
    ("label", "dtype"), [(4, "int64"), (-1, "int64"), (-100, "int64"), (200, "uint8"), (2**63 + 1, "uint64")]
)
@pytest.mark.parametrize("masked", [False, True])
def test_labels_that_are_no_class(xp, label, dtype, masked):
    labels = np.ones((2, 3), dtype)
    labels[1, 2] = label
    mask = xp.asarray([[0, 1, 1], [0, 1, 1]]) if masked else None
    with pytest.raises(ShapeError) as error:
        softmax_cross_entropy(xp.ones((2, 3, 4)), xp.asarray(labels), mask=mask)
    assert str(error.value) == (
        f"labels[1, 2] is {label}; it must be 0 to 3, as logits has C = 4, or mask must leave it out"
    )


@pytest.mark.parametrize("number", [0.5, 1.0 + 1e-9, -1.0, np.nan, 2])
def test_a_mask_of_other_numbers(xp, number):
    mask = np.ones((4,), type(number))
    mask[2] = number
    with pytest.raises(ShapeError) as error:
        softmax_cross_entropy(xp.ones((4, 3)), xp.asarray([0, 1, 2, 0]), mask=xp.asarray(mask))
    assert str(error.value) == f"mask[2] is {float(number)}; it must be 0 or 1"


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_mask_that_counts_nothing(xp, dtype, reduction):
    mask = xp.zeros((4,), dtype=getattr(xp, dtype))
    with pytest.raises(ShapeError, match=r"^mask counts no label; at least one must count$"):
        softmax_cross_entropy(xp.ones((4, 3)), xp.asarray([0, 1, 2, 0]), mask=mask, reduction=reduction)


def test_cross_entropy_of_an_unknown_reduction():
    with pytest.raises(ValueError, match="reduction is 'none'; it must be one of 'mean', 'sum'"):
        softmax_cross_entropy(np.ones((2, 2)), np.array([0, 1]), reduction="none")


def test_a_label_a_step_is_learned(rng):
    """Is the sum of the inputs so far positive? Sequences of different lengths, by plain gradient descent."""

    def draw(B, T=12):
        x = rng.standard_normal((B, T, 1))
        labels = (np.cumsum(x[..., 0], axis=1) > 0).astype(np.int64)
        mask = np.arange(T) < rng.integers(T // 2, T + 1, size=(B, 1))
        return x, np.where(mask, labels, -100), mask

    H, learning_rate = 16, 1.0
    gru = init_params(1, H, xp=np, seed=1, dtype=np.float64)
    linear = init_linear_params(H, 2, xp=np, seed=2, dtype=np.float64)

    def predict(x):
        h, _, cache = gru_forward(x, np.zeros((x.shape[0], H)), gru)
        return *linear_forward(h, linear), cache

    values = []
    for _ in range(600):
        x, labels, mask = draw(32)
        logits, linear_cache, cache = predict(x)
        value, dlogits = softmax_cross_entropy(logits, labels, mask=mask)
        dh, dlinear = linear_backward(dlogits, linear_cache)
        _, _, dgru = gru_backward(dh, cache, with_dx=False)
        gru = GRUParams(*(p - learning_rate * dp for p, dp in zip(gru, dgru, strict=True)))
        linear = LinearParams(*(p - learning_rate * dp for p, dp in zip(linear, dlinear, strict=True)))
        values.append(float(value))
    x, labels, mask = draw(500)
    right = np.argmax(predict(x)[0], axis=-1) == labels
    assert values[0] > 0.6
    assert np.mean(values[-50:]) < 0.15
    assert np.mean(right[mask]) > 0.95
