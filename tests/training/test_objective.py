import itertools
import tracemalloc

import numpy as np
import pytest

from gru_xp.devices import primitives
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.nn import gru_cell_forward, mse_loss
from gru_xp.nn.dropout import DropoutRates
from gru_xp.nn.network import init_network_params, network_backward, network_forward
from gru_xp.nn.params import arrays_of, flatten, named_arrays, unflatten
from gru_xp.nn.stack import draw_masks, mean_masks
from gru_xp.training import objective as module
from gru_xp.training.objective import Objective, input_gradient, predict
from gru_xp.training.optimizers import Adam

RESETS = ("before", "after")
DEEP = {"num_layers": 2, "bidirectional": True}
BESIDE = {"patch": 3, "skip": 4}  # sequences of 4 rows, in patches of 3, and a linear skip
LAYERS = ({}, {"num_layers": 2}, DEEP)
CASES = (
    (1, {}, "float64", 1e-12),
    (7, {}, "float64", 1e-12),
    (7, {}, "float32", 2e-6),
    (1, DEEP, "float32", 2e-6),
    (7, {"num_layers": 2}, "float64", 1e-12),
    (7, DEEP, "float64", 1e-12),
    (7, BESIDE, "float64", 1e-12),
    (7, DEEP | BESIDE, "float64", 1e-12),
)
"""B, layers, dtype, tolerance."""

RATES = DropoutRates(between=0.4, recurrent=0.3, zoneout=0.2)


def whole(params, x, y, reset, masks=None):
    """Prediction, cost and gradient of the sum, in one piece and by the standard alone."""
    y_pred, cache = network_forward(x, params, masks=masks, reset=reset, ops=PLAIN_OPS)
    _, dpred = mse_loss(y_pred, y, reduction="sum", ops=PLAIN_OPS)
    _, dparams = network_backward(dpred, cache)
    return y_pred, float(np.mean((y_pred - y) ** 2)), flatten(dparams)


def assert_objective(objective, p, reset, tolerance=1e-12, masks=None):
    _, cost, gradient = whole(p.params, p.x, p.y, reset, masks)
    case = f"{reset}, {p.x.shape[0]} sequences, {len(p.params.gru)} layers, {p.x.dtype}"
    assert objective.cost.shape == (1,), case
    assert float(objective.cost[0]) == pytest.approx(cost, rel=max(tolerance, 1e-12)), case
    actual = np.asarray(objective.gradient)
    np.testing.assert_allclose(actual, gradient, rtol=0, atol=tolerance * np.abs(gradient).max(), err_msg=case)


def assert_cost(objective, p, reset, tolerance=1e-12, masks=None):
    y_pred, _ = network_forward(p.x, p.params, masks=masks, reset=reset, ops=PLAIN_OPS)
    expected = float(np.mean((y_pred - p.y) ** 2))
    assert float(objective.cost[0]) == pytest.approx(expected, rel=max(tolerance, 1e-12)), (reset, p.x.shape)


@pytest.fixture
def forward_sizes(monkeypatch):
    """The number of sequences of every forward pass."""
    sizes = []

    def spy(x, *args, **options):
        sizes.append(x.shape[0])
        return network_forward(x, *args, **options)

    monkeypatch.setattr(module, "network_forward", spy)
    return sizes


def change(p, rng):
    """Other numbers in the same arrays."""
    for array in (p.x, p.y, *arrays_of(p.params)):
        array[...] = 0.7 * rng.standard_normal(array.shape)


# --- the same numbers -------------------------------------------------------------------------------------------


@pytest.mark.compat
def test_parts_and_replays_give_what_one_piece_gives(problem, make_numpy_ops, some, rng):
    """Predictions, costs and gradients; replayed with other sequences and parameters in the same arrays."""
    for (B, layers, dtype, tolerance), reset in some(zip(CASES, itertools.cycle(RESETS))):
        p, ops = problem(B=B, H=4, dtype=dtype, **layers, reset=reset), make_numpy_ops()
        y_pred, _, _ = whole(p.params, p.x, p.y, reset)
        predicted = predict(p.params, p.x, ops)
        np.testing.assert_allclose(predicted, y_pred, rtol=0, atol=10 * tolerance, err_msg=f"{B} {layers} {dtype}")
        _, cache = network_forward(p.x, p.params, masks=mean_masks(p.params.gru, RATES), reset=reset, ops=PLAIN_OPS)
        expected, _ = network_backward(p.y, cache)
        dx = input_gradient(p.params, p.x, p.y, ops, RATES, reset=reset)
        np.testing.assert_allclose(dx, expected, rtol=0, atol=10 * tolerance, err_msg=f"{B} {layers} {dtype}")
        objective = Objective(p.params, p.x, p.y, ops)
        objective.evaluate_cost()
        assert_cost(objective, p, reset, tolerance)
        objective.evaluate()
        assert_objective(objective, p, reset, tolerance)
        again = ops.capture(objective.evaluate)
        change(p, rng)
        again()
        assert_objective(objective, p, reset, tolerance)


def test_states_are_kept_as_rarely_as_is_asked_for(problem, monkeypatch):
    """No loop is longer than that, and the numbers are the same."""
    p, lengths, scan = problem(B=3, T=7, H=4, reset="after"), [], NumpyOps.scan

    def spy(self, step, weights, carry, xs, **options):
        lengths.append(next(x.shape[0] for x in xs if x is not None))
        return scan(self, step, weights, carry, xs, **options)

    monkeypatch.setattr(NumpyOps, "scan", spy)
    for keep_every in (None, 3):
        lengths.clear()
        objective = Objective(p.params, p.x, p.y, NumpyOps(0), keep_every=keep_every)
        objective.evaluate()
        assert max(lengths) == (keep_every or 7)
        assert_objective(objective, p, "after")


def test_two_captured_objectives_in_turn(problem, make_numpy_ops, rng):
    """Of the same parameters and ops, as for training and validation; gradients and costs stay until the next turn."""
    for reset in RESETS:
        ops, p = make_numpy_ops(), problem(B=7, H=4, reset=reset)
        q = problem(B=5, H=4, reset=reset)._replace(params=p.params)
        objectives = [Objective(p.params, a.x, a.y, ops) for a in (p, q)]
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


def test_the_same_call_gives_the_same_bits(problem, make_numpy_ops, some):
    for reset, captured in some(itertools.product(RESETS, (False, True))):
        p, seen = problem(B=7, H=4, dtype="float32"), set()
        for _ in range(2):
            ops = make_numpy_ops()
            objective = Objective(p.params, p.x, p.y, ops)
            evaluate = ops.capture(objective.evaluate) if captured else objective.evaluate
            for _ in range(5):
                evaluate()
                seen.add((objective.gradient.tobytes(), objective.cost.tobytes()))
        assert len(seen) == 1, (reset, captured)


def test_everything_is_done_by_the_ops(problem, guarded_ops, guard, reset):
    for layers in (*LAYERS, BESIDE):
        p = problem(**layers)
        params = guard(p.params)
        objective = Objective(params, guard(p.x), guard(p.y), guarded_ops)
        objective.evaluate()
        gradient = guard(objective.gradient)
        Adam(guard(np.zeros(gradient.shape)), 0.1).step(gradient, guarded_ops)
        assert_objective(objective, p, reset)
        objective.evaluate_cost()
        predict(params, guard(p.x), guarded_ops)


def test_predictions_come_in_the_order_of_the_sequences(problem, make_numpy_ops, forward_sizes):
    """Each part is one forward pass, and the next call leaves the predictions alone."""
    for B in (1, 2, 3, 7, 13):
        (params, x, _), ops = problem(B=B, H=4, reset="after"), make_numpy_ops()
        forward_sizes.clear()
        together = predict(params, x, ops)
        assert sorted(forward_sizes) == sorted(rows.stop - rows.start for rows, _ in ops.parts(B, 4, 2, 4))
        kept = together.copy()
        predict(params, x + 1.0, ops)
        np.testing.assert_array_equal(together, kept)
        one_by_one = [network_forward(x[i : i + 1], params, ops=PLAIN_OPS)[0][0] for i in range(B)]
        assert together.shape == (B, 2)
        np.testing.assert_allclose(together, one_by_one, rtol=1e-11, atol=1e-13, err_msg=str(B))


def test_an_error_in_a_thread_comes_out(problem, make_numpy_ops):
    for captured in (False, True):
        p, ops = problem(B=7, H=4), make_numpy_ops()
        wrong = Objective(p.params, p.x, p.y[:, :1], ops)
        with pytest.raises(ValueError, match="y_true has shape"):
            ops.capture(wrong.evaluate) if captured else wrong.evaluate()
        objective = Objective(p.params, p.x, p.y, ops)
        objective.evaluate()
        assert_objective(objective, p, "before")


@pytest.mark.parametrize(("layers", "n_parts"), [({}, 1), ({"num_layers": 2}, 2), (DEEP, 4)], ids=str)
def test_parts_are_smaller_where_there_are_more_layers(problem, monkeypatch, forward_sizes, layers, n_parts):
    """Each layer and direction keeps as much for its way back."""
    p = problem(B=7, H=4, **layers)
    with monkeypatch.context() as patch:
        patch.setattr(primitives, "MAX_NUMBERS", 7 * 4 * (8 * 4 + 2))
        objective = Objective(p.params, p.x, p.y, PLAIN_OPS)
    objective.evaluate()
    assert len(forward_sizes) == n_parts
    assert_objective(objective, p, "before")


# --- states that are computed again -----------------------------------------------------------------------------


def test_keep_every(problem, make_numpy_ops, some, rng):
    one, two, deep = LAYERS
    cases = (
        (one, 1, "before", True),
        (one, 5, "after", False),
        (two, 2, "before", False),
        (two, 1, "after", True),
        (deep, 5, "before", True),
        (deep, 2, "after", True),
    )
    for layers, keep_every, reset, captured in some(cases):
        p, ops = problem(B=7, T=5, H=4, **layers, reset=reset), make_numpy_ops()
        masks = draw_masks(p.params.gru, p.x, RATES, 3)
        objective = Objective(p.params, p.x, p.y, ops, rates=RATES, masks=masks, keep_every=keep_every)
        evaluate = ops.capture(objective.evaluate) if captured else objective.evaluate
        change(p, rng)
        evaluate()
        assert_objective(objective, p, reset, masks=masks)
        objective.evaluate_cost()
        assert_cost(objective, p, reset, masks=mean_masks(p.params.gru, RATES))


def test_more_sequences_together_where_states_are_computed_again(problem, monkeypatch, forward_sizes):
    monkeypatch.setattr(primitives, "MAX_NUMBERS", 360 * (8 * 4 + 2))
    for layers in LAYERS:
        p, n_parts = problem(B=12, T=36, H=4, **layers), []
        for keep_every in (None, 6, 36, 1):
            forward_sizes.clear()
            Objective(*p, PLAIN_OPS, keep_every=keep_every).evaluate_cost()
            n_parts.append(len(forward_sizes))
        assert n_parts[0] > n_parts[1] >= 1, layers
        assert n_parts[2:] == n_parts[:1] * 2, layers


# --- dropout ----------------------------------------------------------------------------------------------------


def test_the_gradient_has_masks_and_the_cost_has_none(problem, make_numpy_ops, some, rng):
    """Nor does the cost alone change the gradient; captured, the gradient sees masks that change in place."""
    for (B, layers, dtype, tolerance), reset in some(zip(CASES, itertools.cycle(RESETS[::-1]))):
        p, ops = problem(B=B, H=4, dtype=dtype, **layers, reset=reset), make_numpy_ops()
        masks = draw_masks(p.params.gru, p.x, RATES, 3)
        objective = Objective(p.params, p.x, p.y, ops, rates=RATES, masks=masks)
        again = ops.capture(objective.evaluate)
        assert_objective(objective, p, reset, tolerance, masks)
        gradient = objective.gradient.copy()
        change(p, rng)
        objective.evaluate_cost()
        assert_cost(objective, p, reset, tolerance, mean_masks(p.params.gru, RATES))
        assert objective.gradient.tolist() == gradient.tolist()
        drawn = dict(named_arrays(draw_masks(p.params.gru, p.x, RATES, 4)))
        for name, mask in named_arrays(masks):
            assert (mask != drawn[name]).any(), name
            mask[...] = drawn[name]
        again()
        assert_objective(objective, p, reset, tolerance, masks)


def test_dropout_leaves_predictions_and_costs_alone(problem, reset):
    every_rate = DropoutRates(between=0.5), DropoutRates(recurrent=0.5), DropoutRates(between=0.2, recurrent=0.9)
    for ops, layers, rates in itertools.product((PLAIN_OPS, NumpyOps(2)), LAYERS, every_rate):
        p = problem(B=7, H=4, **layers)
        assert predict(p.params, p.x, ops, rates).tolist() == predict(p.params, p.x, ops).tolist()
        with_rates, without = Objective(p.params, p.x, p.y, ops, rates=rates), Objective(*p, ops)
        for objective in (with_rates, without):
            objective.evaluate_cost()
        assert float(with_rates.cost[0]) == float(without.cost[0]), (layers, rates)


def test_predictions_after_zoneout_update_by_its_mean(problem, make_numpy_ops):
    """As if every row of z were multiplied by 1 less the rate: checked with one step, where that is a formula."""
    for layers, reset in itertools.product(LAYERS, RESETS):
        p, ops = problem(B=7, T=1, H=4, **layers, reset=reset), make_numpy_ops()
        zoned = predict(p.params, p.x, ops, DropoutRates(zoneout=0.25))
        x = p.x[:, 0]
        for layer in p.params.gru:  # h' = 0.75 z n from a state of zeros
            states = [0.75 * gru_cell_forward(x, np.zeros((7, 4)), gru, reset=reset)[0] for gru in layer]
            x = np.concatenate(states, axis=1)
        expected = x @ p.params.linear.weight.T + p.params.linear.bias
        np.testing.assert_allclose(zoned, expected, rtol=1e-11, atol=1e-13, err_msg=f"{layers} {reset}")
        assert (np.abs(zoned - predict(p.params, p.x, ops)) > 1e-6).all()


# --- memory of a captured step ----------------------------------------------------------------------------------


def test_a_captured_step_takes_no_new_memory(rng):
    """Which is what makes it fast: a plain one allocates every state and gate again."""
    B, T, H = 64, 10, 20
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((B, T, 1), (B, 1)))
    peaks = []
    for ops in (PLAIN_OPS, NumpyOps()):
        start = init_network_params(1, H, 1, xp=np, seed=1, dtype=np.float32)
        theta = flatten(start)
        objective, optimizer = Objective(unflatten(theta, start), x, y, ops), Adam(theta, 1e-4)

        def step(objective=objective, optimizer=optimizer, ops=ops):
            objective.evaluate()
            optimizer.step(objective.gradient, ops)

        replay = ops.capture(step)
        replay()
        tracemalloc.start()
        try:
            replay()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    plain, captured = peaks
    assert plain > 4 * B * T * H  # bytes of one state a step
    assert captured < plain / 10
