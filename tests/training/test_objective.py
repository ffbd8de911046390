import time

import numpy as np
import pytest

from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.nn import gru_cell_forward, mse_loss
from gru_xp.nn import ops as ops_module
from gru_xp.nn.dropout import DropoutRates
from gru_xp.nn.network import init_network_params, network_backward, network_forward
from gru_xp.nn.ops import PLAIN_OPS
from gru_xp.nn.params import flatten, named_arrays, unflatten
from gru_xp.nn.stack import draw_masks, mean_masks
from gru_xp.training import objective as module
from gru_xp.training.objective import Objective, predict
from gru_xp.training.optimizers import Adam

DEEP = {"num_layers": 2, "bidirectional": True}
CASES = pytest.mark.parametrize(
    ("B", "layers", "dtype", "tolerance"),
    [
        (1, {}, "float64", 1e-12),
        (7, {}, "float64", 1e-12),
        (7, {}, "float32", 2e-6),
        (1, DEEP, "float32", 2e-6),
        (7, {"num_layers": 2}, "float64", 1e-12),
        (7, DEEP, "float64", 1e-12),
    ],
)


LAYERS = pytest.mark.parametrize("layers", [{}, {"num_layers": 2}, DEEP], ids=str)
RATES = DropoutRates(between=0.4, recurrent=0.3, zoneout=0.2)


def whole(params, x, y, reset, masks=None):
    """Prediction, cost and gradient of the sum, in one piece and by the standard alone."""
    y_pred, cache = network_forward(x, params, masks=masks, reset=reset, ops=PLAIN_OPS)
    _, dpred = mse_loss(y_pred, y, reduction="sum", ops=PLAIN_OPS)
    _, dparams = network_backward(dpred, cache)
    return y_pred, float(np.mean((y_pred - y) ** 2)), flatten(dparams)


def assert_objective(objective, p, reset, tolerance=1e-12, masks=None):
    _, cost, gradient = whole(p.params, p.x, p.y, reset, masks)
    assert objective.cost.shape == (1,)
    assert float(objective.cost[0]) == pytest.approx(cost, rel=max(tolerance, 1e-12))
    actual = np.asarray(objective.gradient)
    np.testing.assert_allclose(actual, gradient, rtol=0, atol=tolerance * np.abs(gradient).max())


def change(p, rng):
    """Other numbers in the same arrays."""
    for array in (p.x, p.y, *(array for _, array in named_arrays(p.params))):
        array[...] = 0.7 * rng.standard_normal(array.shape)


# --- the same numbers -------------------------------------------------------------------------------------------


@CASES
def test_parts_give_what_one_piece_gives(problem, make_numpy_ops, reset, B, layers, dtype, tolerance):
    p, ops = problem(B=B, H=4, dtype=dtype, **layers), make_numpy_ops()
    y_pred, cost, _ = whole(p.params, p.x, p.y, reset)
    np.testing.assert_allclose(predict(p.params, p.x, reset, ops), y_pred, rtol=0, atol=10 * tolerance)
    objective = Objective(p.params, p.x, p.y, reset, ops)
    objective.evaluate_cost()
    assert float(objective.cost[0]) == pytest.approx(cost, rel=max(tolerance, 1e-12))
    objective.evaluate()
    assert_objective(objective, p, reset, tolerance)


@CASES
def test_captured(problem, make_numpy_ops, rng, reset, B, layers, dtype, tolerance):
    """Replayed with other sequences and parameters in the same arrays."""
    p, ops = problem(B=B, H=4, dtype=dtype, **layers), make_numpy_ops()
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


@LAYERS
def test_everything_is_done_by_the_ops(problem, guarded_ops, guard, reset, layers):
    p = problem(**layers)
    params = guard(p.params)
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
    one_by_one = [network_forward(x[i : i + 1], params, reset="after", ops=PLAIN_OPS)[0][0] for i in range(B)]
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
        return network_forward(x, *args, **options)

    monkeypatch.setattr(module, "network_forward", spy)
    p, ops = problem(B=7, H=4), make_numpy_ops()
    predict(p.params, p.x, "before", ops)
    assert sorted(sizes) == sorted(rows.stop - rows.start for rows, _ in ops.parts(7, 4, 2, 4))


def test_parts_are_smaller_where_there_are_more_layers(problem, monkeypatch):
    """Each layer and direction keeps as much for its way back."""
    monkeypatch.setattr(ops_module, "MAX_NUMBERS", 7 * 4 * (8 * 4 + 2))
    for layers, n_parts in (({}, 1), ({"num_layers": 2}, 2), ({"num_layers": 2, "bidirectional": True}, 4)):
        p = problem(B=7, H=4, **layers)
        objective = Objective(p.params, p.x, p.y, "before", PLAIN_OPS)
        assert len(objective._parts) == n_parts
        objective.evaluate()
        monkeypatch.setattr(ops_module, "MAX_NUMBERS", 2**27)
        assert_objective(objective, p, "before")
        monkeypatch.setattr(ops_module, "MAX_NUMBERS", 7 * 4 * (8 * 4 + 2))


# --- states that are computed again -----------------------------------------------------------------------------


@LAYERS
@pytest.mark.parametrize("keep_every", [1, 3, 9])
@pytest.mark.parametrize("captured", [False, True])
def test_keep_every(problem, make_numpy_ops, rng, reset, layers, keep_every, captured):
    p, ops = problem(B=7, T=9, H=4, **layers), make_numpy_ops()
    masks = draw_masks(p.params.gru, p.x, RATES, 3)
    objective = Objective(p.params, p.x, p.y, reset, ops, rates=RATES, masks=masks, keep_every=keep_every)
    evaluate = ops.capture(objective.evaluate) if captured else objective.evaluate
    for _ in range(2):
        change(p, rng)
        evaluate()
        assert_objective(objective, p, reset, masks=masks)
    objective.evaluate_cost()
    _, cost, _ = whole(p.params, p.x, p.y, reset, mean_masks(p.params.gru, RATES))
    assert float(objective.cost[0]) == pytest.approx(cost, rel=1e-12)


@LAYERS
def test_more_sequences_together_where_states_are_computed_again(problem, monkeypatch, layers):
    p = problem(B=12, T=100, H=4, **layers)
    monkeypatch.setattr(ops_module, "MAX_NUMBERS", 1000 * (8 * 4 + 2))
    n_parts = [len(Objective(*p, "before", PLAIN_OPS, keep_every=k)._parts) for k in (None, 10, 100, 1)]
    assert n_parts[0] > n_parts[1] >= 1
    assert n_parts[2:] == n_parts[:1] * 2


# --- dropout ----------------------------------------------------------------------------------------------------


@CASES
def test_the_gradient_has_masks_and_the_cost_has_none(problem, make_numpy_ops, reset, B, layers, dtype, tolerance):
    p, ops = problem(B=B, H=4, dtype=dtype, **layers), make_numpy_ops()
    masks = draw_masks(p.params.gru, p.x, RATES, 3)
    objective = Objective(p.params, p.x, p.y, reset, ops, rates=RATES, masks=masks)
    objective.evaluate()
    assert_objective(objective, p, reset, tolerance, masks)
    gradient = objective.gradient.copy()
    objective.evaluate_cost()
    _, cost, _ = whole(p.params, p.x, p.y, reset, mean_masks(p.params.gru, RATES))
    assert float(objective.cost[0]) == pytest.approx(cost, rel=max(tolerance, 1e-12))
    assert objective.gradient.tolist() == gradient.tolist()


def test_masks_that_change_in_place(problem, make_numpy_ops, reset):
    """Replayed with what is drawn anew."""
    p, ops = problem(B=7, H=4, num_layers=2, bidirectional=True), make_numpy_ops()
    masks = draw_masks(p.params.gru, p.x, RATES, 0)
    objective = Objective(p.params, p.x, p.y, reset, ops, rates=RATES, masks=masks)
    again = ops.capture(objective.evaluate)
    assert_objective(objective, p, reset, masks=masks)
    for seed in (1, 2, 3):
        before = objective.gradient.copy()
        drawn = dict(named_arrays(draw_masks(p.params.gru, p.x, RATES, seed)))
        for name, mask in named_arrays(masks):
            if mask is not None:
                mask[...] = drawn[name]
        again()
        assert_objective(objective, p, reset, masks=masks)
        assert np.abs(objective.gradient - before).max() > 1e-3


@LAYERS
@pytest.mark.parametrize(
    "rates", [DropoutRates(between=0.5), DropoutRates(recurrent=0.5), DropoutRates(between=0.2, recurrent=0.9)], ids=str
)
def test_dropout_leaves_predictions_and_costs_alone(problem, make_numpy_ops, reset, layers, rates):
    p, ops = problem(B=7, H=4, **layers), make_numpy_ops()
    assert predict(p.params, p.x, reset, ops, rates).tolist() == predict(p.params, p.x, reset, ops).tolist()
    with_rates, without = Objective(p.params, p.x, p.y, reset, ops, rates=rates), Objective(*p, reset, ops)
    for objective in (with_rates, without):
        objective.evaluate_cost()
    assert float(with_rates.cost[0]) == float(without.cost[0])


@LAYERS
def test_predictions_after_zoneout_update_by_its_mean(problem, make_numpy_ops, reset, layers):
    """As if every row of z were multiplied by 1 less the rate: checked with one step, where that is a formula."""
    p, ops = problem(B=7, T=1, H=4, **layers), make_numpy_ops()
    zoned = predict(p.params, p.x, reset, ops, DropoutRates(zoneout=0.25))
    x = p.x[:, 0]
    for layer in p.params.gru:  # h' = 0.75 z n from a state of zeros
        states = [0.75 * gru_cell_forward(x, np.zeros((7, 4)), gru, reset=reset)[0] for gru in layer]
        x = np.concatenate(states, axis=1)
    expected = x @ p.params.linear.weight.T + p.params.linear.bias
    np.testing.assert_allclose(zoned, expected, rtol=1e-11, atol=1e-13)
    assert (np.abs(zoned - predict(p.params, p.x, reset, ops)) > 1e-6).all()


# --- speed ------------------------------------------------------------------------------------------------------


def test_a_captured_step_is_not_slower_than_a_plain_one(rng):
    """A training step of 704 sequences of 10 steps, 70 units, in float32."""
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((704, 10, 1), (704, 1)))
    steps = []
    for ops in (PLAIN_OPS, NumpyOps()):
        theta = flatten(init_network_params(1, 70, 1, xp=np, seed=1, dtype=np.float32))
        params = unflatten(theta, init_network_params(1, 70, 1, xp=np, seed=1, dtype=np.float32))
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
