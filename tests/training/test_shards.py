import contextlib

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from gru_xp.devices import numpy_ops
from gru_xp.nn import mse_loss
from gru_xp.nn.ops import PLAIN_OPS
from gru_xp.nn.params import flatten
from gru_xp.nn.stack import stack_backward, stack_forward
from gru_xp.training import shards as module
from gru_xp.training.shards import Shards

# threads, MIN_STATE_ELEMENTS, MAX_ELEMENTS, and the sizes of the shards of 23 sequences of 4 steps with H = 5, I = 2
DIVISIONS = {
    "one shard": (1, 20_000, 2**27, [23]),
    "too small to share": (4, 20_000, 2**27, [23]),
    "two threads": (2, 1, 2**27, [11, 12]),
    "five threads": (5, 1, 2**27, [3, 5, 5, 5, 5]),
    "as many threads as the states pay for": (9, 30, 2**27, [7, 8, 8]),
    "rounds on one thread": (1, 20_000, 1000, [7, 8, 8]),
    "rounds on two threads": (2, 1, 700, [3, 4, 4, 4, 4, 4]),
    "one sequence a shard": (3, 1, 1, [1] * 23),
    "more threads than sequences": (40, 1, 2**27, [1] * 23),
}


@pytest.fixture(params=sorted(DIVISIONS))
def division(request, monkeypatch):
    """Set how batches are divided; the sizes of shards to expect, sorted."""
    threads, min_state, max_elements, sizes = DIVISIONS[request.param]
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    monkeypatch.setattr(module, "MIN_STATE_ELEMENTS", min_state)
    monkeypatch.setattr(module, "MAX_ELEMENTS", max_elements)
    return sizes


@pytest.fixture
def seen(monkeypatch):
    """The number of sequences in each forward pass of a shard."""
    sizes = []

    def spy(x, *args, **options):
        sizes.append(x.shape[0])
        return stack_forward(x, *args, **options)

    monkeypatch.setattr(module, "stack_forward", spy)
    return sizes


def whole(params, x, y, reset):
    """Prediction, cost and gradient of the sum, in one piece and by the standard alone."""
    y_pred, cache = stack_forward(x, params, reset=reset, ops=PLAIN_OPS)
    _, dpred = mse_loss(y_pred, y, reduction="sum")
    _, dparams = stack_backward(dpred, cache)
    return y_pred, float(np.mean((y_pred - y) ** 2)), flatten(dparams)


def test_shards_give_what_one_piece_gives(cpu, problem, reset, division, seen):
    params, x, y = problem(B=23)
    y_pred, cost, gradient = whole(params, x, y, reset)
    with Shards(cpu, reset) as shards:
        np.testing.assert_allclose(shards.predict(params, x), y_pred, rtol=1e-11, atol=1e-13)
        assert sorted(seen) == division
        assert shards.cost(params, x, y) == pytest.approx(cost, rel=1e-12)
        actual_cost, actual_gradient = shards.cost_and_gradient(params, x, y)
        assert sorted(seen) == sorted(3 * division)
    assert actual_cost == pytest.approx(cost, rel=1e-12)
    np.testing.assert_allclose(actual_gradient, gradient, rtol=1e-10, atol=1e-12)


def test_the_same_call_gives_the_same_bits(cpu, problem, reset, division):
    params, x, y = problem(B=23, dtype="float32")
    with Shards(cpu, reset) as shards:
        first = shards.predict(params, x), *shards.cost_and_gradient(params, x, y)
        for _ in range(3):
            again = shards.predict(params, x), *shards.cost_and_gradient(params, x, y)
            for a, b in zip(first, again, strict=True):
                np.testing.assert_array_equal(a, b)
    with Shards(cpu, reset) as others:
        np.testing.assert_array_equal(others.cost_and_gradient(params, x, y)[1], first[2])


def test_results_outlive_the_next_call(cpu, problem):
    params, x, y = problem(B=6)
    with Shards(cpu, "before") as shards:
        predictions = shards.predict(params, x)
        _, gradient = shards.cost_and_gradient(params, x, y)
        kept = predictions.copy(), gradient.copy()
        shards.predict(params, x + 1.0)
        shards.cost_and_gradient(params, x + 1.0, y - 1.0)
    np.testing.assert_array_equal(predictions, kept[0])
    np.testing.assert_array_equal(gradient, kept[1])


def test_memory_is_used_again(cpu, problem, monkeypatch):
    allocated = []

    def spy(shape, dtype, original=numpy_ops._feature_major):
        allocated.append(shape)
        return original(shape, dtype)

    monkeypatch.setattr(numpy_ops, "_feature_major", spy)
    monkeypatch.setattr(module, "MAX_ELEMENTS", 1000)
    params, x, y = problem(B=24)
    with Shards(cpu, "before") as shards:
        shards.cost_and_gradient(params, x, y)
        first = len(allocated)
        for _ in range(3):
            shards.cost_and_gradient(params, x, y)
    assert len(allocated) == first > 0


@pytest.mark.usefixtures("division")
@pytest.mark.parametrize("B", [1, 2, 3, 7, 13])
def test_predictions_come_in_the_order_of_the_sequences(cpu, problem, B):
    params, x, _ = problem(B=B)
    with Shards(cpu, "after") as shards:
        together = shards.predict(params, x)
        one_by_one = [stack_forward(x[i : i + 1], params, reset="after")[0][0] for i in range(B)]
    assert together.shape == (B, 2)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-11, atol=1e-13)


def test_batches_of_different_sizes_one_after_the_other(cpu, problem, division):
    params, x, y = problem(B=23)
    with Shards(cpu, "before") as shards:
        for rows in (slice(0, 23), slice(3, 8), slice(2, 23), slice(22, 23)):
            _, cost, gradient = whole(params, x[rows], y[rows], "before")
            actual_cost, actual_gradient = shards.cost_and_gradient(params, x[rows], y[rows])
            assert actual_cost == pytest.approx(cost, rel=1e-12)
            np.testing.assert_allclose(actual_gradient, gradient, rtol=1e-10, atol=1e-12)


def test_an_error_in_a_thread_comes_out(cpu, problem, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(module, "MIN_STATE_ELEMENTS", 1)
    params, x, y = problem(B=8)
    with Shards(cpu, "before") as shards, pytest.raises(ValueError, match="y_true has shape"):
        shards.cost_and_gradient(params, x, y[:, :1])


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_the_blas_runs_on_one_thread_inside_only(cpu):
    before = blas_threads()
    with contextlib.suppress(RuntimeError), Shards(cpu, "before"):
        assert set(blas_threads()) <= {1}
        raise RuntimeError
    assert blas_threads() == before
