import warnings
from functools import partial

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.errors import ArgumentError
from gru_xp.nn import (
    LinearParams,
    gaussian_loss,
    gradcheck,
    gru_backward,
    gru_forward,
    huber_loss,
    init_gru_params,
    init_linear_params,
    linear_backward,
    linear_forward,
    mae_loss,
    mse_loss,
    poisson_loss,
    quantile_loss,
    softmax_cross_entropy,
)
from gru_xp.nn.losses import REDUCTIONS
from gru_xp.nn.params import flatten, unflatten
from gru_xp.nn.scan import PlainScan


def test_value_against_a_loop(xp, draw):
    for shape in ((1, 1), (5, 1), (1, 3), (4, 3)):
        y_pred, y_true, total = draw(xp, shape), draw(xp, shape), 0.0
        for pred_row, true_row in zip(to_host(y_pred), to_host(y_true), strict=True):
            total += sum((p - t) ** 2 for p, t in zip(pred_row, true_row, strict=True)) / shape[1]
        for reduction, expected in (("mean", total / shape[0]), ("sum", total)):
            value, _ = mse_loss(y_pred, y_true, reduction=reduction)
            assert value.shape == ()
            assert float(value) == pytest.approx(expected, rel=1e-13), (shape, reduction)


def test_mean_over_sequences_is_the_default(draw):
    y_pred, y_true = draw(np, (4, 3)), draw(np, (4, 3))
    assert mse_loss(y_pred, y_true)[0] == pytest.approx(np.mean((y_pred - y_true) ** 2), rel=1e-14)


@pytest.mark.compat
def test_gradient(xp, draw):
    for shape in ((1, 1), (5, 1), (1, 3), (4, 3)):
        for reduction in ("mean", "sum"):
            y_true = draw(xp, shape)
            report = gradcheck(
                lambda y_pred, y_true=y_true, reduction=reduction: mse_loss(y_pred, y_true, reduction=reduction),
                lambda dvalue, dpred: dvalue * dpred,
                {"y_pred": draw(xp, shape)},
            )
            assert report.ok, (shape, reduction, report)


def test_namespace_and_dtype(xp, draw):
    for dtype in ("float32", "float64"):
        y_pred, y_true = draw(xp, (4, 3), dtype), draw(xp, (4, 3), dtype)
        for result in mse_loss(y_pred, y_true):
            assert array_namespace(result) is array_namespace(y_pred)
            assert result.dtype == getattr(xp, dtype)


def test_read_only_inputs(draw):
    y_pred, y_true = draw(np, (4, 3)), draw(np, (4, 3))
    y_pred.setflags(write=False)
    y_true.setflags(write=False)
    assert mse_loss(y_pred, y_true)[0] > 0.0


def test_squares_overflow_only_where_the_value_does(xp):
    """The largest square alone is too large for the dtype."""
    for dtype in ("float32", "float64"):
        largest = float(np.sqrt(np.finfo(dtype).max))
        for size in (1.5 * largest, 1.0, 0.0):
            y_pred = xp.asarray([[size, 0.0], [0.0, -size], [0.0, 0.0], [0.0, 0.0]], dtype=getattr(xp, dtype))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                value, dpred = mse_loss(y_pred, xp.zeros_like(y_pred))
            assert float(value) == pytest.approx(size / 4 * size, rel=1e-6), (dtype, size)
            np.testing.assert_allclose(to_host(dpred), to_host(y_pred) / 4, rtol=1e-6)
        for number in (np.inf, np.nan):
            y_pred = xp.asarray([[number, 1.0]], dtype=getattr(xp, dtype))
            value, dpred = mse_loss(y_pred, xp.ones_like(y_pred))
            np.testing.assert_array_equal([float(value), *to_host(dpred)[0]], [number, number, 0.0])


def test_squared_error_by_every_way_to_run_it(draw):
    y_pred, y_true = draw(np, (7, 3)), np.asfortranarray(draw(np, (7, 3)))
    for ops in (NumpyOps(2), NumpyOps(0), PlainScan(np)):
        value, dpred = mse_loss(y_pred, y_true, ops=ops)
        assert float(value) == pytest.approx(np.mean((y_pred - y_true) ** 2), rel=1e-14)
        np.testing.assert_allclose(dpred, 2.0 / 21.0 * (y_pred - y_true), rtol=1e-14)


def test_losses_that_are_kept_stay_as_they_are(draw):
    y_pred, y_true = draw(np, (3, 7, 3)), draw(np, (3, 7, 3))
    kept = [mse_loss(*arrays) for arrays in zip(y_pred, y_true, strict=True)]
    for (value, dpred), error in zip(kept, y_pred - y_true, strict=True):
        assert float(value) == pytest.approx(np.mean(error**2), rel=1e-14)
        np.testing.assert_allclose(dpred, 2.0 / 21.0 * error, rtol=1e-14)


def test_captured_squared_error_follows_its_arguments(draw):
    y_pred, y_true = draw(np, (7, 3)), draw(np, (7, 3))
    ops = NumpyOps()
    again = ops.capture(lambda: mse_loss(y_pred, y_true, reduction="sum", ops=ops))
    for _ in range(2):
        y_pred += 0.5
        value, dpred = again()
        assert float(value) == pytest.approx(np.sum((y_pred - y_true) ** 2) / 3, rel=1e-14)
        np.testing.assert_allclose(dpred, 2.0 / 3.0 * (y_pred - y_true), rtol=1e-14)


def test_refused_predictions(draw, misfits, refuses):
    for pred_shape, true_shape, *parts in (
        ((4, 1), (4,), "y_true", "shape", "(4,)", "(4, 1)"),  # would broadcast to (4, 4)
        ((4,), (4, 1), "y_pred", "shape", "(4,)", "(B, O)"),
        ((4, 3), (4, 1), "y_true", "shape", "(4, 1)", "(4, 3)"),
        ((4, 3), (1, 3), "y_true", "shape", "(1, 3)", "(4, 3)"),
        ((0, 3), (0, 3), "y_pred", "shape", "(0, 3)", "(B, O)", "at least 1"),
    ):
        with refuses(*parts):
            mse_loss(np.ones(pred_shape), np.ones(true_shape))
    y_pred, y_true = draw(np, (4, 3)), draw(np, (4, 3))
    for bad, parts in misfits("y_true", y_true, "(4, 3)", like="y_pred"):
        with refuses(*parts):
            mse_loss(y_pred, bad)
    with refuses("reduction", "'none'", "'mean', 'sum'", error=ValueError):
        mse_loss(y_pred, y_true, reduction="none")
    with refuses("ops", "str", "a Scan, such as PlainScan(xp), or None", error=ValueError):
        mse_loss(y_pred, y_true, ops="x")


# --- losses of errors and of distributions ----------------------------------------------------------------------

LOSSES = {
    "mse": (mse_loss, {}, 1),
    "mae": (mae_loss, {}, 1),
    "huber": (huber_loss, {"delta": 0.7}, 1),
    "quantile": (quantile_loss, {"quantiles": (0.1, 0.5, 0.85)}, 3),
    "gaussian": (gaussian_loss, {}, 2),
    "poisson": (poisson_loss, {}, 1),
}
"""Functions, their settings, and columns of predictions for each target."""

CASES = [(name, weighted, reduction) for name in LOSSES for weighted in (False, True) for reduction in REDUCTIONS]


@pytest.fixture
def draw_case(rng):
    """``draw_case(xp, name, weighted, B=5, O=3, dtype="float64")``: a loss of its prediction, which is drawn, too.

    No error is near 0 or delta, where the gradients of some losses jump.
    """

    def draw_case(xp, name, weighted, B=5, O=3, dtype="float64"):  # noqa: E741
        function, settings, columns = LOSSES[name]
        y_true = rng.integers(0, 6, size=(B, O)) / 2.0
        sizes = rng.uniform(0.1, 0.6, size=(B, columns * O)) + rng.integers(0, 2, size=(B, columns * O))
        weight = rng.uniform(0.9, 1.1, size=(B, 1)) if weighted else None
        y_pred = np.tile(y_true, columns) + rng.choice([-1.0, 1.0], size=sizes.shape) * sizes
        y_pred, y_true, weight = (None if a is None else xp.asarray(a.astype(dtype)) for a in (y_pred, y_true, weight))

        def loss(y_pred, **options):
            return function(y_pred, y_true, weight=weight, **settings, **options)

        return loss, y_pred, (y_true, weight)

    return draw_case


def by_torch(name, y_pred, y_true, weight, reduction):
    """Value and gradient by PyTorch's losses, as far as it has them, and autograd; of host arrays."""
    torch = pytest.importorskip("torch")
    of_torch, settings = torch.nn.functional, LOSSES[name][1]
    y_pred = torch.tensor(y_pred, requires_grad=True)
    y_true, factor = torch.tensor(y_true), torch.tensor(np.ones((len(y_true), 1)) if weight is None else weight)
    B, O = y_true.shape  # noqa: E741
    a, b, how = factor * y_pred, factor * y_true, {"reduction": "none"}
    if name in ("mse", "mae", "huber"):
        terms = {"mse": of_torch.mse_loss, "mae": of_torch.l1_loss, "huber": of_torch.huber_loss}[name]
        terms = terms(a, b, **how, **settings)
    elif name == "quantile":
        errors = b[:, None, :] - a.reshape(B, -1, O)
        q = torch.tensor(settings["quantiles"], dtype=torch.float64)[:, None]
        terms = torch.maximum(q * errors, (q - 1) * errors).reshape(B, -1)
    elif name == "gaussian":
        variance = torch.exp(2 * y_pred[:, O:])
        terms = factor * of_torch.gaussian_nll_loss(y_pred[:, :O], y_true, variance, eps=1e-300, **how)
    else:
        terms = factor * of_torch.poisson_nll_loss(y_pred, y_true, **how)
    value = terms.mean() if reduction == "mean" else terms.mean(dim=1).sum()
    value.backward()
    return value.item(), y_pred.grad.numpy()


@pytest.mark.peer
def test_losses_against_pytorch(xp, draw_case):
    for name, weighted, reduction in CASES:
        loss, y_pred, (y_true, weight) = draw_case(xp, name, weighted)
        host = [None if a is None else to_host(a) for a in (y_pred, y_true, weight)]
        expected, gradient = by_torch(name, *host, reduction)
        value, dpred = loss(y_pred, reduction=reduction)
        assert value.shape == ()
        case = (name, weighted, reduction)
        assert float(value) == pytest.approx(expected, rel=1e-13, abs=1e-13), case
        np.testing.assert_allclose(to_host(dpred), gradient, rtol=1e-12, atol=1e-14, err_msg=str(case))


@pytest.mark.compat
def test_gradients_of_losses(xp, draw_case):
    for name, weighted, reduction in CASES:
        loss, y_pred, _ = draw_case(xp, name, weighted, 3, 2)
        report = gradcheck(
            lambda y_pred, loss=loss, reduction=reduction: loss(y_pred, reduction=reduction),
            lambda dvalue, dpred: dvalue * dpred,
            {"y_pred": y_pred},
        )
        assert report.ok, (name, weighted, reduction, report)


def test_gradients_of_losses_by_jax(jax, draw_case):
    """By differentiation of the value."""
    for name in LOSSES:
        loss, y_pred, _ = draw_case(jax.numpy, name, True)
        value, dpred = loss(y_pred)
        again, gradient = jax.value_and_grad(lambda y_pred, loss=loss: loss(y_pred)[0])(y_pred)
        assert float(value) == float(again), name
        np.testing.assert_allclose(dpred, gradient, rtol=1e-13, atol=1e-15, err_msg=name)


def test_losses_keep_namespace_and_dtype(xp, draw_case):
    for name in LOSSES:
        for dtype in ("float32", "float64"):
            loss, y_pred, _ = draw_case(xp, name, True, dtype=dtype)
            for result in loss(y_pred):
                assert array_namespace(result) is array_namespace(y_pred)
                assert result.dtype == getattr(xp, dtype), name


def test_losses_by_every_way_to_run_them(draw_case):
    """Also captured, when they follow a prediction that changes."""
    for name, weighted, reduction in CASES:
        loss, y_pred, _ = draw_case(np, name, weighted, B=7)
        plain = partial(loss, ops=PlainScan(np), reduction=reduction)
        captured = NumpyOps()
        again = captured.capture(partial(loss, y_pred, ops=captured, reduction=reduction))
        y_pred += 0.03
        expected = plain(y_pred)
        for value, dpred in (again(), loss(np.asfortranarray(y_pred), ops=NumpyOps(2), reduction=reduction)):
            assert float(value) == pytest.approx(float(expected[0]), rel=1e-14), name
            np.testing.assert_allclose(dpred, expected[1], rtol=1e-14, atol=1e-16, err_msg=name)


def test_errors_of_zero_have_no_slope(xp):
    y_true = xp.asarray([[1.5, -2.0]])
    for loss in (mae_loss, huber_loss, quantile_loss):
        value, dpred = loss(y_true, y_true)
        assert (float(value), to_host(dpred).tolist()) == (0.0, [[0.0, 0.0]]), loss


def test_losses_overflow_only_where_their_value_does(xp):
    """Squares, deviations and rates alone are too large, or too small, for the dtype."""
    for dtype in ("float32", "float64"):
        largest, log_largest = float(np.finfo(dtype).max), float(np.log(np.finfo(dtype).max))
        number = partial(xp.asarray, dtype=getattr(xp, dtype))
        zeros = number([[0.0, 0.0]] * 4)
        cases = [
            (huber_loss, [largest / 4, -largest / 4], {}, largest / 16),
            (mae_loss, [largest / 2, -largest / 2], {}, largest / 8),
            (quantile_loss, [largest / 2, -largest / 2], {"quantiles": (0.25,)}, largest / 16),
            (poisson_loss, [log_largest + 1.0, 0.0], {}, largest / 8 * np.e),
            (gaussian_loss, [0.0, 0.0, -log_largest - 9.0, 0.0], {}, -(log_largest + 9.0) / 8),
            (gaussian_loss, [largest**0.75, 0.0, log_largest / 2, 0.0], {}, largest**0.5 / 16),
        ]
        for loss, row, settings, expected in cases:
            y_pred = number([row] + [[0.0] * len(row)] * 3)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                value, dpred = loss(y_pred, zeros, **settings)
            assert float(value) == pytest.approx(expected, rel=1e-4, abs=1.0), (loss, dtype)
            assert np.isfinite(to_host(dpred)).all(), (loss, dtype)
        for loss in (huber_loss, mae_loss, quantile_loss, poisson_loss):
            value, dpred = loss(number([[np.nan, 1.0]]), zeros[:1, :])
            assert np.isnan([float(value), to_host(dpred)[0, 0]]).all(), loss


def test_refused_settings_of_losses(draw, misfits, refuses):
    y_pred, y_true, weight = draw(np, (4, 6)), draw(np, (4, 3)), draw(np, (4, 1))
    for loss, settings, prediction, target, *parts in (
        (mae_loss, {}, y_pred, y_true, "y_true", "shape", "(4, 3)", "(4, 6)"),
        (gaussian_loss, {}, y_pred, y_pred, "y_true", "shape", "(4, 6)", "(4, 3)"),
        (gaussian_loss, {}, y_true, y_true, "y_pred", "shape", "(4, 3)", "(B, 2 * O)"),
        (quantile_loss, {"quantiles": (0.1, 0.9)}, y_true, y_true, "y_pred", "shape", "(4, 3)", "(B, 2 * O)"),
        (huber_loss, {"weight": weight[:, 0]}, y_true, y_true, "weight", "shape", "(4,)", "(4, 1)"),
    ):
        with refuses(*parts):
            loss(prediction, target, **settings)
    for bad, parts in misfits("weight", weight, "(4, 1)", like="y_pred"):
        with refuses(*parts):
            mae_loss(y_true, y_true, weight=bad)
    for delta in (0.0, -1.0, np.inf, "1"):
        with refuses("delta", "above 0 and finite", error=ArgumentError):
            huber_loss(y_true, y_true, delta=delta)
    for quantiles in ((), (0.0,), (0.5, 1.0), 0.5, ("a",), None):
        with refuses("quantiles", "above 0 and below 1, such as [0.5]", error=ArgumentError):
            quantile_loss(y_true, y_true, quantiles=quantiles)


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


def draw_mask(rng, shape):
    """A mask in which at least the last label counts."""
    mask = rng.integers(2, size=shape).astype(bool)
    mask.flat[-1] = True
    return mask


@pytest.mark.peer
def test_cross_entropy_against_pytorch(xp, rng, draw, draw_labels):
    for shape in SHAPES:
        logits, labels = 3.0 * draw(xp, shape), draw_labels(xp, shape[:-1], shape[-1])
        for mask in (None, draw_mask(rng, shape[:-1])):
            for reduction in ("mean", "sum"):
                own_mask, case = None if mask is None else xp.asarray(mask), (shape, reduction, mask)
                value, dlogits = softmax_cross_entropy(logits, labels, mask=own_mask, reduction=reduction)
                expected, gradient = torch_cross_entropy(to_host(logits), to_host(labels), mask, reduction)
                assert value.shape == ()
                assert float(value) == pytest.approx(expected, rel=1e-12, abs=1e-12), case
                np.testing.assert_allclose(to_host(dlogits), gradient, rtol=1e-12, atol=1e-12, err_msg=str(case))


def test_cross_entropy_against_a_loop(xp, draw, draw_labels):
    logits, labels = draw(xp, (2, 3, 4)), draw_labels(xp, (2, 3), 4)
    (mean, _), (sum_, _) = (
        softmax_cross_entropy(logits, labels),
        softmax_cross_entropy(logits, labels, reduction="sum"),
    )
    logits, labels, total = to_host(logits), to_host(labels), 0.0
    for b, t in np.ndindex(2, 3):
        powers = np.exp(logits[b, t])
        total -= np.log(powers[labels[b, t]] / powers.sum())
    assert mean.shape == ()
    assert float(mean) == pytest.approx(total / 6, rel=1e-13)
    assert float(sum_) == pytest.approx(total, rel=1e-13)


@pytest.mark.compat
def test_cross_entropy_gradient(xp, rng, draw, draw_labels, check_mode):
    for shape in SHAPES[1:]:
        for reduction in ("mean", "sum"):
            labels, mask = draw_labels(xp, shape[:-1], shape[-1]), xp.asarray(draw_mask(rng, shape[:-1]))
            options = {"mask": mask, "reduction": reduction}
            report = gradcheck(
                lambda logits, labels=labels, options=options: softmax_cross_entropy(logits, labels, **options),
                lambda dvalue, dlogits: dvalue * dlogits,
                {"logits": draw(xp, shape)},
                mode=check_mode,
            )
            assert report.ok, (shape, reduction, report)


def test_cross_entropy_namespace_and_dtype(xp, draw, draw_labels):
    for dtype in ("float32", "float64"):
        for shape in ((4, 3), (4, 2, 3)):
            logits, labels = draw(xp, shape, dtype), draw_labels(xp, shape[:-1], 3)
            value, dlogits = softmax_cross_entropy(logits, labels)
            assert (tuple(value.shape), tuple(dlogits.shape)) == ((), shape)
            for result in (value, dlogits):
                assert array_namespace(result) is array_namespace(logits)
                assert result.dtype == getattr(xp, dtype)
            with pytest.raises(TypeError):
                len(value)


def test_labels_of_any_integer_type(xp, draw, draw_labels):
    """Also with more classes than an 8-bit label can name."""
    logits, labels = draw(xp, (5, 300)), draw_labels(xp, (5,), 100)
    expected, gradient = softmax_cross_entropy(logits, labels)
    for dtype in (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)):
        value, dlogits = softmax_cross_entropy(logits, xp.astype(labels, getattr(xp, dtype)))
        assert float(value) == float(expected), dtype
        np.testing.assert_array_equal(to_host(dlogits), to_host(gradient), err_msg=dtype)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_what_does_not_count_spoils_nothing(xp, draw, draw_labels, reduction):
    logits, labels = draw(xp, (2, 3, 4)), draw_labels(xp, (2, 3), 4)
    bad_logits, bad_labels = xp.asarray(logits, copy=True), xp.asarray(labels, copy=True)
    for where, label, number in (((0, 1), -100, np.nan), ((1, 0), 4, np.inf), ((1, 2), 2**62, -np.inf)):
        bad_labels[where] = label
        bad_logits[(*where, slice(None))] = number
        bad_logits[(*where, 0)] = 1e300
    kept = [(0, 0), (0, 2), (1, 1)]
    rows = xp.stack([logits[(*where, slice(None))] for where in kept])
    of_kept, _ = softmax_cross_entropy(rows, xp.stack([labels[where] for where in kept]), reduction=reduction)
    for dtype in ("bool", "int8", "uint8", "int64", "float32", "float64"):
        mask = xp.astype(xp.asarray([[1, 0, 1], [0, 1, 0]]), getattr(xp, dtype))
        value, dlogits = softmax_cross_entropy(logits, labels, mask=mask, reduction=reduction)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            bad_value, bad_dlogits = softmax_cross_entropy(bad_logits, bad_labels, mask=mask, reduction=reduction)
        assert float(bad_value) == float(value), dtype
        np.testing.assert_array_equal(to_host(bad_dlogits), to_host(dlogits), err_msg=dtype)
        for where in ((0, 1), (1, 0), (1, 2)):
            assert to_host(bad_dlogits)[where].tolist() == [0.0] * 4, dtype
        assert float(value) == pytest.approx(float(of_kept), rel=1e-13), dtype


def test_large_logits(xp):
    for dtype, size in (
        ("float32", 1e4),
        ("float64", 1e4),
        ("float32", float(np.finfo(np.float32).max) / 10),
        ("float64", 1e307),
    ):
        rows = [[size, -size, 0.0], [-size, size, size], [size, size, size], [-size] * 3]
        logits = xp.asarray(rows, dtype=getattr(xp, dtype))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            value, dlogits = softmax_cross_entropy(logits, xp.asarray([1, 1, 0, 2]), reduction="mean")
            total, _ = softmax_cross_entropy(logits[1:, :], xp.asarray([0, 1, 2]), reduction="sum")
        assert float(value) == pytest.approx(size / 2, rel=1e-3), dtype  # one row in four is wrong, by 2 size
        assert float(total) == pytest.approx(2.0 * size, rel=1e-3), dtype
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


def test_refused_logits_labels_and_masks(refuses):
    for name, bad, *parts in (
        ("logits", np.ones(4), "shape", "(4,)", "(B, C) or (B, T, C)"),
        ("logits", np.ones((1, 2, 3, 4)), "shape", "(1, 2, 3, 4)", "(B, C) or (B, T, C)"),
        ("logits", np.ones((2, 0)), "shape", "(2, 0)", "(B, C)", "at least 1"),
        ("logits", np.ones((2, 0, 4)), "shape", "(2, 0, 4)", "(B, T, C)", "at least 1"),
        ("logits", [[1.0, 2.0]], "list", "array", "(B, C)"),
        ("logits", np.ones((2, 3, 4), int), "dtype", "int64", "float32 or float64"),
        ("labels", [[1, 1, 1]] * 2, "list", "array", "(2, 3)"),
        ("labels", np.ones((3, 2), int), "shape", "(3, 2)", "(2, 3)", "logits without C"),
        ("labels", np.ones((1, 3), int), "shape", "(1, 3)", "(2, 3)", "logits without C"),
        ("labels", np.ones((2, 3, 1), int), "shape", "(2, 3, 1)", "(2, 3)", "logits without C"),
        ("labels", np.ones((2, 3)), "dtype", "float64", "an integer type"),
        ("labels", np.ones((2, 3), bool), "dtype", "bool", "an integer type"),
        ("mask", [[1, 1, 1]] * 2, "list", "array", "(2, 3)"),
        ("mask", np.ones(2), "shape", "(2,)", "(2, 3)", "logits without C"),
        ("mask", np.ones((2, 3), complex), "dtype", "complex128", "must be bool, integer or floating-point"),
    ):
        with refuses(name, *parts):
            softmax_cross_entropy(**RIGHT | {name: bad})
    with refuses("reduction", "'none'", "'mean', 'sum'", error=ValueError):
        softmax_cross_entropy(np.ones((2, 2)), np.array([0, 1]), reduction="none")


def test_cross_entropy_of_two_namespaces_or_devices(refuses):
    strict = pytest.importorskip("array_api_strict")
    right = {key: strict.asarray(value) for key, value in RIGHT.items()}
    for name in ("labels", "mask"):
        with refuses(name, "namespace", "array_api_strict", "logits, numpy"):
            softmax_cross_entropy(**RIGHT | {name: right[name]})
        elsewhere = strict.asarray(RIGHT[name], device=strict.Device("device1"))
        with refuses(name, "'device1'", "'CPU_DEVICE')", "logits", "other device"):
            softmax_cross_entropy(**right | {name: elsewhere})


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


def test_labels_that_are_no_class(xp, refuses):
    for label, dtype in ((4, "int64"), (-1, "int64"), (-100, "int64"), (200, "uint8"), (2**63 + 1, "uint64")):
        labels = np.ones((2, 3), dtype)
        labels[1, 2] = label
        for mask in (None, xp.asarray([[0, 1, 1], [0, 1, 1]])):
            with refuses("labels[1, 2]", str(label), "0 to 3", "C = 4", "mask", "leave it out"):
                softmax_cross_entropy(xp.ones((2, 3, 4)), xp.asarray(labels), mask=mask)


def test_masks_of_other_numbers(xp, refuses):
    labels = xp.asarray([0, 1, 2, 0])
    for number in (0.5, 1.0 + 1e-9, -1.0, np.nan, 2):
        mask = np.ones((4,), type(number))
        mask[2] = number
        with refuses("mask[2]", str(float(number)), "0 or 1"):
            softmax_cross_entropy(xp.ones((4, 3)), labels, mask=xp.asarray(mask))
    for dtype in (xp.bool, xp.int32, xp.float32):
        for reduction in ("mean", "sum"):
            with refuses("mask", "no label", "at least one must count"):
                softmax_cross_entropy(xp.ones((4, 3)), labels, mask=xp.zeros((4,), dtype=dtype), reduction=reduction)


def test_a_label_a_step_is_learned(rng):
    """Is the sum of the inputs so far positive? Sequences of different lengths, by plain gradient descent."""

    def draw(B, T=12):
        x = rng.standard_normal((B, T, 1))
        labels = (np.cumsum(x[..., 0], axis=1) > 0).astype(np.int64)
        mask = np.arange(T) < rng.integers(T // 2, T + 1, size=(B, 1))
        return x, np.where(mask, labels, -100), mask

    H, learning_rate = 16, 1.0
    gru = init_gru_params(1, H, xp=np, seed=1, dtype=np.float64)
    linear = init_linear_params(H, 2, xp=np, seed=2, dtype=np.float64)

    def predict(x):
        h, _, cache = gru_forward(x, np.zeros((x.shape[0], H)), gru)
        return *linear_forward(h, linear), cache

    values = []
    for _ in range(300):
        x, labels, mask = draw(32)
        logits, linear_cache, cache = predict(x)
        value, dlogits = softmax_cross_entropy(logits, labels, mask=mask)
        dh, dlinear = linear_backward(dlogits, linear_cache)
        _, _, dgru = gru_backward(dh, cache, with_dx=False)
        gru = unflatten(flatten(gru) - learning_rate * flatten(dgru), gru)
        linear = LinearParams(*(p - learning_rate * dp for p, dp in zip(linear, dlinear, strict=True)))
        values.append(float(value))
    x, labels, mask = draw(500)
    right = np.argmax(predict(x)[0], axis=-1) == labels
    assert values[0] > 0.6
    assert np.mean(values[-50:]) < 0.15
    assert np.mean(right[mask]) > 0.95


# --- compiled, and lazily ---------------------------------------------------------------------------------------


@pytest.fixture
def losses(rng, draw):
    """Both losses with arguments of NumPy for them, of which the first is differentiated."""
    mask = draw_mask(rng, (2, 3, 4))
    labels = np.where(mask, rng.integers(5, size=(2, 3, 4)), -100)

    def cross_entropy(logits, labels, mask):
        return softmax_cross_entropy(logits, labels, mask=mask)

    return {mse_loss: (draw(np, (2, 7, 3)), draw(np, (2, 7, 3))), cross_entropy: (draw(np, (2, 3, 4, 5)), labels, mask)}


@pytest.mark.peer
def test_jax(jax, losses):
    """Compiled, and for two batches at once; its own gradient is ours."""
    for loss, batches in losses.items():
        expected = [loss(*(array[i] for array in batches)) for i in range(2)]
        values, gradients = (np.stack(arrays) for arrays in zip(*expected, strict=True))
        batches = [jax.numpy.asarray(array) for array in batches]
        both = jax.vmap(loss)(*batches)
        own = jax.vmap(jax.value_and_grad(lambda *arrays, loss=loss: loss(*arrays)[0]))(*batches)
        one = jax.jit(loss)(*(array[1] for array in batches))
        for value, gradient in (both, own):
            np.testing.assert_allclose(value, values, rtol=1e-13)
            np.testing.assert_allclose(gradient, gradients, rtol=1e-12, atol=1e-16)
        np.testing.assert_allclose(one[0], values[1], rtol=1e-13)
        np.testing.assert_allclose(one[1], gradients[1], rtol=1e-12, atol=1e-16)


@pytest.mark.peer
def test_jax_looks_at_labels_that_are_there(jax, refuses):
    logits, labels = jax.numpy.ones((2, 3)), jax.numpy.asarray([0, 3])
    with refuses("labels[1]", "3", "0 to 2", "C = 3", "mask", "leave it out"):
        softmax_cross_entropy(logits, labels)
    with refuses("mask", "no label", "at least one must count"):
        softmax_cross_entropy(logits, labels, mask=jax.numpy.zeros(2))
    assert jax.jit(softmax_cross_entropy)(logits, labels)[1].shape == (2, 3)


@pytest.mark.peer
def test_jax_in_single_precision():
    """Its integers have 32 bits then; no warning says so."""
    numpy = pytest.importorskip("jax").numpy
    value, dlogits = softmax_cross_entropy(numpy.zeros((3, 5)), numpy.asarray([0, 4, 2]))
    assert (float(value), dlogits.dtype) == (pytest.approx(np.log(5), rel=1e-6), np.float32)
    assert mse_loss(numpy.ones((3, 5)), numpy.zeros((3, 5)))[0].dtype == np.float32


@pytest.mark.peer
def test_dask_computes_when_it_is_asked_to(losses):
    dask = pytest.importorskip("dask")
    from dask.array import Array, from_array

    def refuse(*arguments, **options):
        pytest.fail("something is computed")

    for loss, batches in losses.items():
        arrays = [array[0] for array in batches]
        with dask.config.set(scheduler=refuse):
            lazy = loss(*(from_array(array, chunks=2) for array in arrays))
        assert all(isinstance(array, Array) for array in lazy)
        for actual, desired in zip(lazy, loss(*arrays), strict=True):
            np.testing.assert_allclose(actual.compute(), desired, rtol=1e-12, atol=1e-16)


@pytest.mark.peer
def test_autograd_of_pytorch(losses):
    torch = pytest.importorskip("torch")
    for loss, batches in losses.items():
        first, *others = (torch.asarray(array[0]) for array in batches)
        first.requires_grad_()
        value, gradient = loss(first, *others)
        value.backward()
        np.testing.assert_allclose(first.grad.numpy(), gradient.detach().numpy(), rtol=1e-12, atol=1e-16)
