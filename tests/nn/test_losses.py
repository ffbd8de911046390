import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.errors import ShapeError
from gru_xp.nn import gradcheck, mse_loss


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
