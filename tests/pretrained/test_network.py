import numpy as np
import pytest

from gru_xp.nn.params import arrays_of, flatten, map_arrays, named_arrays, unflatten
from gru_xp.pretrained.features import HEAD, LEVELS, N_INPUTS, squash
from gru_xp.pretrained.network import (
    N_CANDIDATES,
    init_zero_shot_params,
    loss,
    loss_and_gradient,
    predict,
)


@pytest.fixture
def case():
    """Parameters of 3 hidden units, all of them random, and the arguments of a loss of 2 series of 3 patches."""
    rng = np.random.default_rng(0)
    params = init_zero_shot_params(hidden_size=3, xp=np, seed=1, dtype=np.float64)
    params = map_arrays(lambda a: a + 0.1 * rng.standard_normal(a.shape), params)
    x = rng.standard_normal((2, 3, N_INPUTS))
    candidates = rng.standard_normal((2, 3, N_CANDIDATES, HEAD))
    y, weight = rng.standard_normal((2, 3, HEAD)), rng.random((2, 3, HEAD))
    return params, (x, candidates, y, weight)


def test_gradients(case):
    params, arrays = case
    theta, rng = flatten(params), np.random.default_rng(2)
    value, gradient = loss_and_gradient(*arrays, params)
    assert float(value) == pytest.approx(float(loss(*arrays, params)), rel=1e-13)
    start = 0
    for name, array in named_arrays(params):
        direction = np.zeros_like(theta)
        direction[start : start + array.size] = rng.standard_normal(array.size)
        start += array.size
        values = [float(loss(*arrays, unflatten(theta + step * direction, params))) for step in (1e-5, -1e-5)]
        numeric = (values[0] - values[1]) / 2e-5
        assert float(flatten(gradient) @ direction) == pytest.approx(numeric, rel=1e-5, abs=1e-8), name
    assert start == theta.size


@pytest.mark.peer
def test_gradients_against_autograd(case):
    torch = pytest.importorskip("torch")
    params, arrays = case
    _, gradient = loss_and_gradient(*arrays, params)
    given = map_arrays(lambda a: torch.tensor(a, requires_grad=True), params)
    loss(*map(torch.tensor, arrays), given).backward()
    for (name, mine), theirs in zip(named_arrays(gradient), arrays_of(given), strict=True):
        np.testing.assert_allclose(mine, theirs.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)


def test_gradients_on_the_strict_namespace(case):
    xp = pytest.importorskip("array_api_strict")
    params, arrays = case
    value, gradient = loss_and_gradient(*arrays, params)
    strict, of_strict = loss_and_gradient(*map(xp.asarray, arrays), map_arrays(xp.asarray, params))
    assert float(strict) == pytest.approx(float(value), rel=1e-12)
    np.testing.assert_allclose(np.asarray(flatten(of_strict)), flatten(gradient), rtol=1e-9, atol=1e-12)


def test_many_patches_are_learned_from_in_blocks(case, monkeypatch):
    params, arrays = case
    value, gradient = loss_and_gradient(*arrays, params)
    monkeypatch.setattr("gru_xp.pretrained.network.BLOCK", 4)
    in_blocks, of_blocks = loss_and_gradient(*arrays, params)
    assert float(in_blocks) == pytest.approx(float(value), rel=1e-12)
    np.testing.assert_allclose(flatten(of_blocks), flatten(gradient), rtol=1e-9, atol=1e-14)


def test_without_a_head_the_forecast_is_the_mean_of_the_candidates(case):
    params, (x, candidates, *_) = case
    params = params._replace(head=map_arrays(np.zeros_like, params.head))
    quantiles = predict(x, candidates[:, -1:], params)
    assert quantiles.shape == (2, len(LEVELS), HEAD)
    mean = candidates[:, -1].mean(axis=1)
    np.testing.assert_allclose(quantiles, np.broadcast_to(squash(mean)[:, None], quantiles.shape), rtol=1e-6, atol=1e-7)


def test_the_forecast_follows_the_last_patch(case):
    """It is that of the loss after all patches, and earlier ones reach it by the states alone."""
    params, (x, candidates, *_) = case
    whole = predict(x, candidates[:, -1:], params)
    alone = predict(x[:, -1:], candidates[:, -1:], params)
    assert np.abs(whole - alone).max() > 1e-3
    np.testing.assert_array_equal(predict(x, candidates, params), whole)
