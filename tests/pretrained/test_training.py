import numpy as np
import pytest

from gru_xp.devices import resolve_device
from gru_xp.nn.params import flatten
from gru_xp.pretrained.features import squash
from gru_xp.pretrained.generators import Synthetic
from gru_xp.pretrained.network import init_zero_shot_params, loss_and_gradient
from gru_xp.pretrained.training import Batches, Learner, _draw_windows, draw_batch


@pytest.fixture
def pool():
    """Series that count up from different numbers, which say what follows what."""
    values = np.arange(640.0, dtype=np.float32) + 1000 * np.arange(50, dtype=np.float32)[:, None]
    return Synthetic(values, np.ones((50, 2), dtype=np.int64))


def test_targets_are_what_follows_each_patch(pool):
    """Of lines, whose scale is a step: the target is the number of the step."""
    batch = draw_batch(np.random.default_rng(0), pool, 40, 3)
    rows = np.abs(batch.candidates[:, -1, 4, :]).max(axis=1) < 1e3  # all but those that are masked but for a few
    steps = np.arange(1, 65)
    alone = slice(8, None)  # the first ones have another line added
    given_none = np.isclose(batch.targets[alone, -1, 0], squash(np.float32(1.0)), rtol=1e-3)
    assert rows[alone].all()
    assert given_none.mean() > 0.3
    wanted = np.broadcast_to(squash(steps.astype(np.float32)), (given_none.sum(), 64))
    np.testing.assert_allclose(batch.targets[alone, -1][given_none], wanted, rtol=2e-2)


def test_long_seasons_are_drawn_where_they_can_be_seen():
    """Of two kinds of series, whose values tell them apart: without a season, and with one of 100 values."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((400, 640)).astype(np.float32) + np.repeat([0, 1000], 200)[:, None]
    pool = Synthetic(values.astype(np.float32), np.repeat([[1, 1], [50, 100]], 200, axis=0))
    for patches, share in ((4, 1 / 3), (13, 4 / 5)):
        drawn, periods = _draw_windows(rng, pool, 2000, 16 * patches + 64)
        assert ((drawn.mean(axis=1) > 500) == (periods[:, 1] == 100)).all()
        assert (periods[:, 1] == 100).mean() == pytest.approx(share, abs=0.05)


def test_weights_sum_to_1_and_near_steps_count_more(pool):
    weight = draw_batch(np.random.default_rng(1), pool, 30, 2).weight
    assert weight.sum() == pytest.approx(1, rel=1e-5)
    assert (weight[..., :-1] >= weight[..., 1:]).all()
    assert weight[..., 0].sum() > 2 * weight[..., -1].sum()


def test_batches_depend_on_seed_and_number_alone(monkeypatch):
    monkeypatch.setattr("gru_xp.pretrained.training.POOL", 60)
    batches = Batches(5)
    batches(1)
    again, other, of_other = Batches(5)(3), batches(4), Batches(6)(3)
    for one, same in zip(batches(3), again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(other.targets.ravel()[:50], again.targets.ravel()[:50])
    assert not np.array_equal(of_other.targets.ravel()[:50], again.targets.ravel()[:50])


def test_threads_share_the_rows_of_a_batch(pool):
    batch = draw_batch(np.random.default_rng(2), pool, 7, 2)
    params = init_zero_shot_params(hidden_size=5, xp=np, seed=0, dtype=np.float32)
    value, gradient = loss_and_gradient(*batch, params)
    learner = Learner(resolve_device("cpu", threads=3))
    of_threads, shared = learner.objective(params, batch, None)
    assert float(of_threads) == pytest.approx(float(value), rel=1e-5)
    np.testing.assert_allclose(flatten(shared), flatten(gradient), rtol=1e-3, atol=1e-6)
    assert learner.mean_loss(params, [batch, batch]) == pytest.approx(float(value), rel=1e-5)
