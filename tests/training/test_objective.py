import time

import numpy as np
import pytest

from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.nn import mse_loss
from gru_xp.nn.ops import PLAIN_OPS
from gru_xp.nn.params import flatten, named_arrays, unflatten
from gru_xp.nn.stack import StackParams, init_stack_params, stack_backward, stack_forward
from gru_xp.training import objective as module
from gru_xp.training.objective import Objective, predict
from gru_xp.training.optimizers import Adam

DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-6)])


def whole(params, x, y, reset):
    """Prediction, cost and gradient of the sum, in one piece and by the standard alone."""
    y_pred, cache = stack_forward(x, params, reset=reset, ops=PLAIN_OPS)
    _, dpred = mse_loss(y_pred, y, reduction="sum", ops=PLAIN_OPS)
    _, dparams = stack_backward(dpred, cache)
    return y_pred, float(np.mean((y_pred - y) ** 2)), flatten(dparams)


def assert_objective(objective, p, reset, tolerance=1e-12):
    _, cost, gradient = whole(p.params, p.x, p.y, reset)
    assert objective.cost.shape == (1,)
    assert float(objective.cost[0]) == pytest.approx(cost, rel=max(tolerance, 1e-12))
    actual = np.asarray(objective.gradient)
    np.testing.assert_allclose(actual, gradient, rtol=0, atol=tolerance * np.abs(gradient).max())


def change(p, rng):
    """Other numbers in the same arrays."""
    for array in (p.x, p.y, *(array for _, array in named_arrays(p.params))):
        array[...] = 0.7 * rng.standard_normal(array.shape)


# --- the same numbers -------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("B", [1, 7])
def test_parts_give_what_one_piece_gives(problem, make_numpy_ops, reset, B, dtype, tolerance):
    p, ops = problem(B=B, H=4, dtype=dtype), make_numpy_ops()
    y_pred, cost, _ = whole(p.params, p.x, p.y, reset)
    np.testing.assert_allclose(predict(p.params, p.x, reset, ops), y_pred, rtol=0, atol=10 * tolerance)
    objective = Objective(p.params, p.x, p.y, reset, ops)
    objective.evaluate_cost()
    assert float(objective.cost[0]) == pytest.approx(cost, rel=max(tolerance, 1e-12))
    objective.evaluate()
    assert_objective(objective, p, reset, tolerance)


@DTYPES
@pytest.mark.parametrize("B", [1, 7])
def test_captured(problem, make_numpy_ops, rng, reset, B, dtype, tolerance):
    """Replayed with other sequences and parameters in the same arrays."""
    p, ops = problem(B=B, H=4, dtype=dtype), make_numpy_ops()
    objective = Objective(p.params, p.x, p.y, reset, ops)
    again = ops.capture(objective.evaluate)
    assert_objective(objective, p, reset, tolerance)
    for _ in range(3):
        change(p, rng)
        again()
        assert_objective(objective, p, reset, tolerance)


def test_two_captured_objectives_in_turn(problem, make_numpy_ops, rng, reset):
    """Of the same parameters and ops, as for training and validation; gradients and costs stay until the next turn."""
    ops, p = make_numpy_ops(), problem(B=7, H=4)
    q = problem(B=5, H=4)._replace(params=p.params)
    objectives = [Objective(p.params, a.x, a.y, reset, ops) for a in (p, q)]
    again = [ops.capture(objective.evaluate) for objective in objectives]
    for a, objective in zip((p, q), objectives, strict=True):
        assert_objective(objective, a, reset)
    for _ in range(3):
        change(p, rng)
        change(q, rng)
        for function in again:
            function()
        for a, objective in zip((p, q), objectives, strict=True):
            assert_objective(objective, a, reset)


def test_the_cost_alone_leaves_the_gradient(problem, make_numpy_ops, rng):
    p = problem(B=7, H=4)
    objective = Objective(p.params, p.x, p.y, "before", make_numpy_ops())
    objective.evaluate()
    gradient = objective.gradient.copy()
    change(p, rng)
    objective.evaluate_cost()
    assert float(objective.cost[0]) == pytest.approx(whole(p.params, p.x, p.y, "before")[1], rel=1e-12)
    assert objective.gradient.tolist() == gradient.tolist()


@pytest.mark.parametrize("captured", [False, True])
def test_the_same_call_gives_the_same_bits(problem, make_numpy_ops, reset, captured):
    p, seen = problem(B=7, H=4, dtype="float32"), set()
    for _ in range(2):
        ops = make_numpy_ops()
        objective = Objective(p.params, p.x, p.y, reset, ops)
        evaluate = ops.capture(objective.evaluate) if captured else objective.evaluate
        for _ in range(20):
            evaluate()
            seen.add((objective.gradient.tobytes(), objective.cost.tobytes()))
    assert len(seen) == 1


def test_everything_is_done_by_the_ops(problem, guarded_ops, guard, reset):
    p = problem()
    params = StackParams(guard(p.params.gru), guard(p.params.linear))
    objective = Objective(params, guard(p.x), guard(p.y), reset, guarded_ops)
    objective.evaluate()
    gradient = guard(objective.gradient)
    Adam(guard(np.zeros(gradient.shape)), 0.1).step(gradient, guarded_ops)
    assert_objective(objective, p, reset)
    objective.evaluate_cost()
    predict(params, guard(p.x), reset, guarded_ops)


@pytest.mark.parametrize("B", [1, 2, 3, 7, 13])
def test_predictions_come_in_the_order_of_the_sequences(problem, make_numpy_ops, B):
    params, x, _ = problem(B=B, H=4)
    together = predict(params, x, "after", make_numpy_ops())
    one_by_one = [stack_forward(x[i : i + 1], params, reset="after", ops=PLAIN_OPS)[0][0] for i in range(B)]
    assert together.shape == (B, 2)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-11, atol=1e-13)


def test_predictions_outlive_the_next_call(problem, make_numpy_ops):
    params, x, _ = problem(B=6, H=4)
    ops = make_numpy_ops()
    predictions = predict(params, x, "before", ops)
    kept = predictions.copy()
    predict(params, x + 1.0, "before", ops)
    np.testing.assert_array_equal(predictions, kept)


@pytest.mark.parametrize("captured", [False, True])
def test_an_error_in_a_thread_comes_out(problem, make_numpy_ops, captured):
    p, ops = problem(B=7, H=4), make_numpy_ops()
    wrong = Objective(p.params, p.x, p.y[:, :1], "before", ops)
    with pytest.raises(ValueError, match="y_true has shape"):
        ops.capture(wrong.evaluate) if captured else wrong.evaluate()
    objective = Objective(p.params, p.x, p.y, "before", ops)
    objective.evaluate()
    assert_objective(objective, p, "before")


def test_each_part_is_a_forward_pass(problem, make_numpy_ops, monkeypatch):
    sizes = []

    def spy(x, *args, **options):
        sizes.append(x.shape[0])
        return stack_forward(x, *args, **options)

    monkeypatch.setattr(module, "stack_forward", spy)
    p, ops = problem(B=7, H=4), make_numpy_ops()
    predict(p.params, p.x, "before", ops)
    assert sorted(sizes) == sorted(rows.stop - rows.start for rows, _ in ops.parts(7, 4, 2, 4))


# --- speed ------------------------------------------------------------------------------------------------------


def test_a_captured_step_is_not_slower_than_a_plain_one(rng):
    """A training step of 704 sequences of 10 steps, 70 units, in float32."""
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((704, 10, 1), (704, 1)))
    steps = []
    for ops in (PLAIN_OPS, NumpyOps()):
        theta = flatten(init_stack_params(1, 70, 1, xp=np, seed=1, dtype=np.float32))
        params = unflatten(theta, init_stack_params(1, 70, 1, xp=np, seed=1, dtype=np.float32))
        objective, optimizer = Objective(params, x, y, "before", ops), Adam(theta, 1e-4)

        def step(objective=objective, optimizer=optimizer, ops=ops):
            objective.evaluate()
            optimizer.step(objective.gradient, ops)

        steps.append(ops.capture(step))

    def seconds(function):
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    plain, captured = (min(seconds(function) for _ in range(5)) for function in steps)
    assert captured < plain
