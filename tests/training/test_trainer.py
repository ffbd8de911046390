import copy
import dataclasses
import itertools
import math
import random
import re
from functools import partial

import numpy as np
import pytest

from gru_xp.devices import Device, to_device
from gru_xp.devices.primitives import PLAIN_OPS, PlainOps
from gru_xp.nn import (
    gaussian_loss,
    huber_loss,
    init_linear_params,
    mae_loss,
    mse_loss,
    poisson_loss,
    quantile_loss,
)
from gru_xp.nn.dropout import DropoutRates
from gru_xp.nn.network import init_network_params, network_backward, network_forward
from gru_xp.nn.params import flatten, map_arrays, named_arrays, unflatten
from gru_xp.nn.stack import mean_masks
from gru_xp.training.objective import Objective
from gru_xp.training.sequences import HeldSequences
from gru_xp.training.trainer import TrainingConfig, train


def cost_of(params, x, y, reset=None):
    return float(np.mean((network_forward(x, params, reset=reset)[0] - y) ** 2))


def gradient_of(params, x, y, reduction, reset=None):
    y_pred, cache = network_forward(x, params, reset=reset)
    return flatten(network_backward(mse_loss(y_pred, y, reduction=reduction)[1], cache)[1])


def costs(result):
    return [record.cost for record in result.history]


def validation_costs(result):
    return [record.validation_cost for record in result.history]


@pytest.fixture
def run(cpu, problem):
    """``run(problem, num_epochs=..., learning_rate=..., ...)``: train with keywords of config and of `train`."""

    def run(problem, *, reset=None, validation=None, callback=None, pause=None, state=None, **config):
        return train(
            problem.params,
            problem.x,
            problem.y,
            config=TrainingConfig(**({"num_epochs": 6, "learning_rate": 0.01} | config)),
            device=cpu,
            reset=reset,
            validation=validation,
            callback=callback,
            pause=pause,
            state=state,
        )

    return run


@pytest.fixture
def steps(monkeypatch):
    """Sequences, targets and masks of every training step, in order."""
    monkeypatch.setenv("GRU_XP_PLAIN", "1")  # so that a captured function is really called
    seen = []

    class SpiedObjective(Objective):
        def __init__(self, params, x, y, *args, masks=None, **options):
            super().__init__(params, x, y, *args, masks=masks, **options)
            self.given = x, y, masks

        def evaluate(self):
            x, y, masks = self.given
            seen.append((x.copy(), y.copy(), map_arrays(np.copy, masks) if masks else None))
            super().evaluate()

    monkeypatch.setattr("gru_xp.training.trainer.Objective", SpiedObjective)
    return seen


def assert_same_training(actual, desired, case=None):
    """The same bits."""
    assert costs(actual) == costs(desired), case
    norms, expected = ([record.gradient_norm for record in result.history] for result in (actual, desired))
    assert norms == expected, case
    np.testing.assert_array_equal(flatten(actual.params), flatten(desired.params), err_msg=str(case))


# --- against something independent ------------------------------------------------------------------------------


@pytest.mark.compat
def test_one_step_of_gradient_descent_by_hand(run, problem, reset):
    for reduction, batch_size in itertools.product(("sum", "mean"), (None, 9, 1000)):
        p = problem()
        result = run(
            p,
            reset=reset,
            num_epochs=1,
            learning_rate=1e-3,
            optimizer="sgd",
            reduction=reduction,
            batch_size=batch_size,
        )
        gradient = gradient_of(p.params, p.x, p.y, reduction, reset)
        expected = flatten(p.params) - 1e-3 * gradient
        assert result.best_epoch == 1
        case = f"{reduction}, batch size {batch_size}"
        np.testing.assert_allclose(flatten(result.params), expected, rtol=1e-12, atol=1e-14, err_msg=case)
        assert costs(result) == pytest.approx(
            [cost_of(p.params, p.x, p.y, reset), cost_of(unflatten(expected, p.params), p.x, p.y, reset)], rel=1e-12
        ), case
        assert result.history[1].gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-12), case


def test_default_reductions(run, problem):
    for optimizer, reduction in (("sgd", "sum"), ("momentum", "sum"), ("adam", "mean"), ("adamw", "mean")):
        p = problem()
        other = {"sum": "mean", "mean": "sum"}[reduction]
        default, same, different = (
            run(p, optimizer=optimizer, reduction=name, num_epochs=2, learning_rate=1e-3)
            for name in (None, reduction, other)
        )
        assert TrainingConfig(1, 1.0, optimizer).resolved_reduction == reduction
        assert_same_training(default, same, optimizer)
        ratio = default.history[1].gradient_norm / different.history[1].gradient_norm
        assert ratio == pytest.approx({"sum": 9, "mean": 1 / 9}[reduction]), optimizer


@pytest.mark.peer
@pytest.mark.parametrize(
    ("optimizer", "reduction", "layers", "batch_size"),
    [
        ("sgd", "sum", {}, 4),
        ("momentum", "mean", {}, None),
        ("adam", "mean", {}, 4),
        ("sgd", "mean", {"num_layers": 2}, None),
        ("momentum", "sum", {"bidirectional": True}, 4),
        ("adam", "mean", {"num_layers": 3, "bidirectional": True}, None),
        ("adamw", "mean", {}, 4),
    ],
)
def test_training_is_that_of_pytorch(
    run, problem, torch_network, assert_params_close, monkeypatch, optimizer, reduction, layers, batch_size
):
    """The same weights after each of ten epochs, with PyTorch's own GRU, layer, gradients, optimizer and schedule."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("random.Random.shuffle", lambda self, indices: indices.reverse())
    p, rate = problem(B=9, T=6, I=2, H=5, O=2, reset="after", **layers), 2e-3
    peer = torch_network(p.params)
    weights = peer.parameters()
    stepper = {
        "sgd": lambda: torch.optim.SGD(weights, lr=rate),
        "momentum": lambda: torch.optim.SGD(weights, lr=rate, momentum=0.9),
        "adam": lambda: torch.optim.Adam(weights, lr=rate),
        "adamw": lambda: torch.optim.AdamW(weights, lr=rate, betas=(0.8, 0.99), weight_decay=0.1),
    }[optimizer]()
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, T_max=30) if optimizer == "adamw" else None
    others = {"beta1": 0.8, "beta2": 0.99, "weight_decay": 0.1, "schedule": "cosine"} if falling else {}

    def loss(x, y):
        errors = ((peer(torch.tensor(x)) - torch.tensor(y)) ** 2).mean(dim=1)
        return errors.sum() if reduction == "sum" else errors.mean()

    expected, states = [], []
    for epoch in range(11):
        if epoch > 0:
            x, y = (p.x[::-1].copy(), p.y[::-1].copy()) if batch_size else (p.x, p.y)
            for start in range(0, 9, batch_size or 9):
                rows = slice(start, start + (batch_size or 9))
                stepper.zero_grad()
                loss(x[rows], y[rows]).backward()
                peer.keep_second_biases()
                stepper.step()
                if falling:
                    falling.step()
        expected.append(float(loss(p.x, p.y).detach()) / (9 if reduction == "sum" else 1))
        states.append(map_arrays(np.copy, peer.params()))

    result = run(
        p,
        num_epochs=10,
        learning_rate=rate,
        optimizer=optimizer,
        reduction=reduction,
        batch_size=batch_size,
        **others,
    )
    assert min(expected) < 0.99 * expected[0]
    np.testing.assert_allclose(costs(result), expected, rtol=1e-9)
    assert result.best_epoch == int(np.argmin(expected))
    assert_params_close(result.params, states[result.best_epoch], rtol=0, atol=1e-9)


def test_training_learns(cpu, reset):
    """The next value of a sine of unknown phase, from six noisy ones."""
    rng = np.random.default_rng(5)
    waves = np.sin(0.8 * np.arange(7) + rng.uniform(0, 2 * np.pi, (80, 1)))
    x = waves[:, :6, None] + 0.01 * rng.standard_normal((80, 6, 1))
    y = waves[:, 6:]
    start = init_network_params(1, 10, 1, reset=reset, xp=cpu.xp, seed=1, dtype=np.float64)
    config = TrainingConfig(num_epochs=200, learning_rate=0.02)
    result = train(start, x[:60], y[:60], config=config, device=cpu, reset=reset)
    assert result.history[0].cost > 0.3
    assert cost_of(result.params, x[:60], y[:60], reset) < 0.003
    assert cost_of(result.params, x[60:], y[60:], reset) < 0.01


# --- losses, weights, and sequences that are gathered -------------------------------------------------------------

LOSS_SETTINGS = [
    ("mse", mse_loss, {}),
    ("mae", mae_loss, {}),
    ("huber", partial(huber_loss, delta=0.4), {"huber_delta": 0.4}),
    ("quantile", partial(quantile_loss, quantiles=(0.2, 0.7)), {"quantiles": (0.2, 0.7)}),
    ("gaussian", gaussian_loss, {}),
    ("poisson", poisson_loss, {}),
]


class Gathered:
    """Sequences that hold no arrays as far as the trainer knows; it counts how many are asked for at once."""

    def __init__(self, *arrays):
        self._held, self.sizes = HeldSequences(*arrays), []

    @property
    def n(self):
        return self._held.n

    def gather(self, index):
        self.sizes.append(len(index))
        return self._held.gather(index)


def test_one_step_with_each_loss_and_weights(cpu, problem, rng):
    weight = rng.uniform(0.5, 2.0, (9, 1))
    for name, loss, settings in LOSS_SETTINGS:
        p = problem()
        y = p.y if name not in ("quantile", "gaussian") else p.y[:, :1]
        config = TrainingConfig(1, 1e-3, "sgd", loss=name, **settings)
        result = train(p.params, HeldSequences(p.x, np.abs(y), weight), config=config, device=cpu)
        y_pred, cache = network_forward(p.x, p.params)
        value, dpred = loss(y_pred, np.abs(y), weight=None if name == "gaussian" else weight, reduction="sum")
        expected = flatten(p.params) - 1e-3 * flatten(network_backward(dpred, cache)[1])
        assert costs(result)[0] == pytest.approx(float(value) / 9, rel=1e-12), name
        assert result.best_epoch == 1, name
        np.testing.assert_allclose(flatten(result.params), expected, rtol=1e-12, atol=1e-14, err_msg=name)


def test_outputs_that_are_not_those_of_the_loss(cpu, problem, refused):
    p = problem(O=3)
    config = TrainingConfig(1, 1e-3, loss="gaussian")
    with refused(ValueError, "params has 3 outputs", "'gaussian' needs 2 for each target"):
        train(p.params, p.x, p.y, config=config, device=cpu)


def test_sequences_that_are_gathered_give_the_same_training(cpu, problem, monkeypatch, rng):
    """All at once where there is one batch, and else never more than a batch, or what is evaluated together."""
    monkeypatch.setattr("gru_xp.training.trainer.EVALUATED", 5)
    p, weight = problem(B=11), rng.uniform(0.5, 2.0, (11, 1))
    _, x, y = problem(B=6)
    for batch_size, *most in ((None, 11, 11), (4, 5, 4)):
        for number, others in enumerate(({"num_epochs": 3}, {"num_epochs": None, "num_steps": 5})):
            config = TrainingConfig(learning_rate=0.01, batch_size=batch_size, **others)
            held, gathered = (
                train(p.params, kind(p.x, p.y, weight), config=config, device=cpu, validation=kind(x, y))
                for kind in (HeldSequences, Gathered)
            )
            case = (batch_size, others)
            np.testing.assert_allclose(costs(gathered), costs(held), rtol=1e-12, err_msg=str(case))
            np.testing.assert_allclose(
                validation_costs(gathered), validation_costs(held), rtol=1e-12, err_msg=str(case)
            )
            np.testing.assert_array_equal(flatten(gathered.params), flatten(held.params), err_msg=str(case))
            sequences = Gathered(p.x, p.y, weight)
            train(p.params, sequences, config=config, device=cpu)
            assert max(sequences.sizes) == most[number], case


def test_gathered_sequences_that_do_not_fit(cpu, problem, refused):
    p = problem()
    for batch_size in (None, 4):
        config = TrainingConfig(1, 0.01, batch_size=batch_size)
        with refused(ValueError, "y", "shape", case=batch_size):
            train(p.params, Gathered(p.x, p.y[:, :1]), config=config, device=cpu)


# --- a budget of updates ------------------------------------------------------------------------------------------


def test_a_budget_of_updates(run, problem):
    """The last pass is cut short; losses are those before updates, and the last parameters are the result."""
    p, thetas = problem(B=10), []
    budget = {"num_epochs": None, "num_steps": 7, "batch_size": 4, "loss": "mae", "schedule": "one-cycle", "seed": 2}

    def pause(epoch, batches, state):
        if batches:
            thetas.append(state())

    result = run(p, pause=pause, **budget)
    assert (len(thetas), result.stop_reason, result.history[-1].epoch, result.best_epoch) == (7, "num_steps", 3, 3)
    np.testing.assert_array_equal(flatten(result.params), thetas[-1].theta)
    before, of_batches = [flatten(p.params), *(state.theta for state in thetas[:-1])], []
    for step, theta in enumerate(before):
        order = list(range(10))
        random.Random(f"order 2 {step // 3 + 1}").shuffle(order)
        rows = order[step % 3 * 4 : step % 3 * 4 + 4]
        y_pred, _ = network_forward(p.x[rows], unflatten(theta, p.params))
        of_batches.append((np.abs(y_pred - p.y[rows]).mean(), len(rows)))
    expected = [of_batches[0][0]]
    for first, stop in ((0, 3), (3, 6), (6, 7)):
        losses, sizes = zip(*of_batches[first:stop], strict=True)
        expected.append(np.average(losses, weights=sizes))
    np.testing.assert_allclose(costs(result), expected, rtol=1e-12)
    for state in thetas[::2]:  # also within the last pass
        again = run(p, state=state, **budget)
        assert without_seconds(again.history) == without_seconds(result.history)
        np.testing.assert_array_equal(flatten(again.params), flatten(result.params))


def test_a_budget_with_validation_and_one_with_a_whole_batch(run, overfitted):
    p, validation = overfitted
    result = run(p, num_steps=12, learning_rate=0.03, validation=validation)
    assert (result.best_epoch, result.history[-1].epoch, result.stop_reason) == (4, 12, "num_steps")
    assert costs(result) == costs(run(p, num_epochs=12, learning_rate=0.03))
    assert run(p, num_steps=12, learning_rate=0.03, validation=validation, patience=3).stop_reason == "patience"


def test_a_budget_that_is_stopped_gives_the_parameters_so_far(run, problem):
    states = []

    def pause(epoch, batches, state):
        states.append(state())
        return len(states) == 6

    result = run(problem(), batch_size=4, num_steps=9, pause=pause)
    assert result.stop_reason == "paused"
    np.testing.assert_array_equal(flatten(result.params), states[-1].theta)


# --- the order of sequences -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits(run, problem):
    configs = *({"optimizer": name, "learning_rate": 1e-3} for name in ("sgd", "momentum", "adam")), RATES
    for config, batch_size in itertools.product(configs, (None, 4)):
        p = problem(dtype="float32", num_layers=2)
        first, second = (run(p, batch_size=batch_size, seed=3, **config) for _ in range(2))
        assert_same_training(first, second, (config, batch_size))
        assert (flatten(first.params) != flatten(p.params)).any()


def test_the_seed_matters_to_mini_batches_and_dropout_only(run, problem):
    p = problem(num_layers=2)
    for config in ({"batch_size": 4}, RATES, {"batch_size": 4, **RATES}):
        first, second = (run(p, seed=seed, **config) for seed in (1, 2))
        assert costs(first)[0] == costs(second)[0], config
        assert costs(first)[1:] != costs(second)[1:], config
    assert costs(run(p, seed=1)) == costs(run(p, seed=2))


def test_a_batch_of_everything_is_a_full_batch(run, problem):
    p = problem(num_layers=2, bidirectional=True)
    for rates in ({}, RATES):
        full = run(p, **rates)
        for batch_size in (9, 10, 10_000):
            assert_same_training(run(p, batch_size=batch_size, **rates), full, (rates, batch_size))


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 11), (3, [3, 3, 3, 2]), (10, [10, 1])])
def test_mini_batches_take_every_sequence_once_an_epoch(run, problem, steps, batch_size, sizes):
    p = problem(B=11)
    run(p, batch_size=batch_size, num_epochs=3)
    batches = [(x, y) for x, y, _ in steps]
    assert [len(x) for x, _ in batches] == 3 * sizes
    orders = []
    for epoch in range(3):
        of_epoch = batches[epoch * len(sizes) : (epoch + 1) * len(sizes)]
        x, y = (np.concatenate(parts) for parts in zip(*of_epoch, strict=True))
        order = [int(np.flatnonzero((p.x == sequence).all(axis=(1, 2)))[0]) for sequence in x]
        assert sorted(order) == list(range(11))
        np.testing.assert_array_equal(y, p.y[order])
        orders.append(order)
    assert orders[0] != orders[1] != orders[2]
    assert list(range(11)) not in orders


def test_the_gradient_norm_of_an_epoch_is_its_largest(run, problem):
    p = problem(B=5)
    result = run(p, batch_size=1, num_epochs=1, learning_rate=1e-12, optimizer="sgd")
    norms = [np.linalg.norm(gradient_of(p.params, p.x[i : i + 1], p.y[i : i + 1], "sum")) for i in range(5)]
    assert result.history[1].gradient_norm == pytest.approx(max(norms), rel=1e-6)


# --- dropout ----------------------------------------------------------------------------------------------------

RATES = {"dropout": 0.4, "recurrent_dropout": 0.3, "zoneout": 0.2}
EACH_RATE = *({name: rate} for name, rate in RATES.items()), RATES


def whole_cost(params, x, y, reset=None, zoneout=0.0):
    """Of the network with nothing left out; zoneout's updates by their mean."""
    masks = mean_masks(params.gru, DropoutRates(zoneout=zoneout))
    return float(np.mean((network_forward(x, params, masks=masks, reset=reset)[0] - y) ** 2))


def masks_by_name(steps):
    return [dict(named_arrays(masks)) for _, _, masks in steps]


def test_the_reported_costs_are_those_of_the_whole_network(run, problem, reset):
    """Of the parameters after the epoch, whatever was left out in it."""
    p = problem(num_layers=2, bidirectional=True)
    validation = problem(B=4)[1:]
    for rates, batch_size in zip(({}, *EACH_RATE), itertools.cycle((None, 4))):
        result = run(p, reset=reset, num_epochs=2, batch_size=batch_size, validation=validation, **rates)
        assert [record.epoch for record in result.history] == [0, 1, 2]
        zoneout = rates.get("zoneout", 0.0)
        for params, epoch in ((result.params, result.best_epoch), (p.params, 0)):
            record, case = result.history[epoch], (rates, batch_size, epoch)
            assert record.cost == pytest.approx(whole_cost(params, p.x, p.y, reset, zoneout), rel=1e-12), case
            expected = whole_cost(params, *validation, reset, zoneout)
            assert record.validation_cost == pytest.approx(expected, rel=1e-12), case


def test_dropout_changes_the_training(run, problem):
    p = problem(num_layers=2)
    without = run(p)
    for rates in EACH_RATE:
        with_it = run(p, **rates)
        if "zoneout" not in rates:
            assert costs(with_it)[0] == pytest.approx(costs(without)[0], rel=1e-12), rates
        assert all(a != b for a, b in zip(costs(with_it)[1:], costs(without)[1:], strict=True)), rates


@pytest.mark.parametrize("batch_size", [None, 4])
def test_every_step_leaves_out_something_else(run, problem, steps, batch_size):
    p = problem(B=10, T=5, num_layers=2, bidirectional=True)
    run(p, num_epochs=3, batch_size=batch_size, **RATES)
    seen_masks = masks_by_name(steps)
    sizes = [10, 10, 10] if batch_size is None else [4, 4, 2] * 3
    drawn = {name for name, mask in seen_masks[0].items() if mask is not None}
    directions = [f"{layer}.{direction}" for layer in (0, 1) for direction in (0, 1)]
    assert drawn == {"between.1", *(f"{kind}.{where}" for kind in ("candidate", "update") for where in directions)}
    for name in drawn:
        masks = [step[name] for step in seen_masks]
        shape = {"between": (5, 10), "candidate": (5,), "update": (5, 5)}[name.partition(".")[0]]
        assert [mask.shape for mask in masks] == [(size, *shape) for size in sizes], name
        assert len({mask.tobytes() for mask in masks}) == len(masks), name
    for step in seen_masks:  # layers and directions leave out something else, too
        for kind in ("candidate", "update"):
            assert len({step[f"{kind}.{where}"].tobytes() for where in directions}) == 4
    for kind, rate, kept in (("between", 0.4, 1 / 0.6), ("candidate", 0.3, 1 / 0.7), ("update", 0.2, 1.0)):
        numbers = np.concatenate([step[name].ravel() for step in seen_masks for name in drawn if kind in name])
        np.testing.assert_allclose(np.unique(numbers), [0.0, kept], rtol=1e-12)
        assert np.mean(numbers == 0.0) == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / numbers.size))


def test_masks_follow_the_seed(run, problem, steps):
    """And not the optimizer, the data or the epochs."""
    drawn = []
    for config in ({"seed": 3}, {"seed": 3, "optimizer": "sgd", "num_epochs": 2}, {"seed": 4}):
        run(problem(B=10, T=5, num_layers=2), **RATES, **config)
        drawn.append([{k: m.tobytes() for k, m in step.items() if m is not None} for step in masks_by_name(steps)])
        steps.clear()
    first, same, other = drawn
    assert same == first[:2]
    assert all(a[name] != b[name] for a, b in zip(first, other, strict=True) for name in a)


def test_each_step_is_against_the_gradient_with_its_masks(run, problem, steps, reset):
    """Steps of gradient descent, taken by hand with the masks that the trainer drew."""
    p = problem(num_layers=2, bidirectional=True)
    result = run(
        p, reset=reset, batch_size=4, num_epochs=2, optimizer="sgd", reduction="sum", learning_rate=1e-3, **RATES
    )
    assert len(steps) == 2 * 3
    theta, expected = flatten(p.params), [whole_cost(p.params, p.x, p.y, reset, RATES["zoneout"])]
    for number, (x, y, masks) in enumerate(steps, 1):
        params = unflatten(theta, p.params)
        y_pred, cache = network_forward(x, params, masks=masks, reset=reset)
        _, dparams = network_backward(mse_loss(y_pred, y, reduction="sum")[1], cache)
        theta = theta - 1e-3 * flatten(dparams)
        if number % 3 == 0:
            expected.append(whole_cost(unflatten(theta, p.params), p.x, p.y, reset, RATES["zoneout"]))
    assert costs(result) == pytest.approx(expected, rel=1e-11)
    assert costs(result)[2] != costs(result)[1] != costs(result)[0]


def test_dropout_between_one_layer_and_none_leaves_out_nothing(run, problem):
    for layers in ({}, {"bidirectional": True}):
        p = problem(**layers)
        with_it, without = (run(p, num_epochs=3, **rates) for rates in ({"dropout": 0.9}, {}))
        assert costs(with_it) == pytest.approx(costs(without), rel=1e-11), layers


# --- fast paths -------------------------------------------------------------------------------------------------


BOTH_WAYS = {"num_layers": 2, "bidirectional": True}


def test_fast_paths_train_as_the_plain_one(run, problem, make_numpy_ops, some, monkeypatch):
    """Captured, in parts, in mini-batches of two sizes, with validation: three epochs give the same."""
    cases = (
        ("before", {}, {"optimizer": "adam"}),
        ("after", {}, {"optimizer": "adam", "batch_size": 4, "clip_norm": 0.05}),
        ("before", {}, {"optimizer": "momentum", "reduction": "sum", "learning_rate": 1e-3, "batch_size": 5}),
        ("after", BOTH_WAYS, {"optimizer": "sgd", "learning_rate": 1e-3, "clip_norm": 0.5}),
        ("before", BOTH_WAYS, {**RATES, "batch_size": 5}),
    )
    for reset, layers, config in some(cases):
        p, validation = problem(H=4, reset=reset, **layers), problem(B=7, H=4)[1:]
        results = []
        for ops in (PLAIN_OPS, make_numpy_ops()):
            monkeypatch.setattr(Device, "ops", lambda self, ops=ops: ops)
            results.append(run(p, reset=reset, validation=validation, num_epochs=3, **config))
        plain, fast = results
        assert costs(fast) == pytest.approx(costs(plain), rel=1e-10), (layers, config)
        assert validation_costs(fast) == pytest.approx(validation_costs(plain), rel=1e-10), (layers, config)
        norms, plain_norms = ([record.gradient_norm for record in result.history[1:]] for result in (fast, plain))
        assert norms == pytest.approx(plain_norms, rel=1e-9), (layers, config)
        np.testing.assert_allclose(
            flatten(fast.params), flatten(plain.params), rtol=0, atol=1e-10, err_msg=f"{layers} {config}"
        )


@pytest.mark.parametrize(("value", "is_plain"), [("1", True), ("0", False)])
def test_the_environment_switches_fast_paths_off(run, problem, monkeypatch, value, is_plain):
    monkeypatch.setenv("GRU_XP_PLAIN", value)
    p, captured = problem(), []

    def capture(self, function, original=PlainOps.capture):
        captured.append(function)
        return original(self, function)

    monkeypatch.setattr(PlainOps, "capture", capture)
    run(p, num_epochs=2)
    assert bool(captured) == is_plain


# --- what is recorded and kept ----------------------------------------------------------------------------------


def test_epoch_0_is_the_start(run, problem):
    p = problem()
    start = run(p, num_epochs=1).history[0]
    assert start.epoch == 0
    assert start.cost == start.best_cost == pytest.approx(cost_of(p.params, p.x, p.y), rel=1e-12)
    assert start.validation_cost is None
    assert start.gradient_norm is None


def test_history_and_callback_agree(run, problem):
    seen = []
    result = run(problem(), num_epochs=5, optimizer="sgd", learning_rate=0.3, callback=seen.append)
    assert tuple(seen) == result.history
    assert result.stop_reason == "num_epochs"
    assert result.problem is None
    assert [r.best_cost for r in seen] == np.minimum.accumulate(costs(result)).tolist()
    seconds = [r.seconds for r in seen]
    assert 0 <= seconds[0] < seconds[-1] < 60
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_the_best_parameters_are_kept_when_the_cost_rises(run, problem, batch_size):
    p = problem()
    before = copy.deepcopy(p)
    result = run(p, optimizer="sgd", reduction="sum", learning_rate=0.5, num_epochs=8, batch_size=batch_size)
    lowest = min(costs(result))
    assert costs(result)[-1] > 1.1 * lowest
    assert costs(result)[result.best_epoch] == lowest
    assert cost_of(result.params, p.x, p.y) == pytest.approx(lowest, rel=1e-12)
    for actual, expected in zip(flatten(p.params), flatten(before.params), strict=True):
        assert actual == expected
    assert not any(
        np.shares_memory(a, b)
        for (_, a), (_, b) in zip(named_arrays(result.params), named_arrays(p.params), strict=True)
    )


@pytest.fixture
def overfitted(run, problem):
    """A problem, and validation data that its training fits best after epoch 4, exactly."""
    p = problem()
    x = problem(B=6).x
    after_4 = run(p, num_epochs=4, learning_rate=0.03)
    assert after_4.best_epoch == 4
    return p, (x, network_forward(x, after_4.params)[0])


def test_validation_decides_which_parameters_are_best(run, overfitted):
    p, validation = overfitted
    result = run(p, num_epochs=12, learning_rate=0.03, validation=validation)
    assert result.best_epoch == 4 == int(np.argmin(validation_costs(result)))
    assert int(np.argmin(costs(result))) == 12
    assert result.history[12].best_cost == result.history[4].validation_cost < 1e-20
    assert cost_of(result.params, p.x, p.y) == pytest.approx(costs(result)[4], rel=1e-12)


def test_validation_does_not_change_the_training(run, overfitted):
    p, validation = overfitted
    assert costs(run(p, validation=validation)) == costs(run(p))


# --- when it stops ----------------------------------------------------------------------------------------------


def test_patience(run, overfitted):
    p, validation = overfitted
    for patience in (1, 3, 5):
        result = run(p, num_epochs=50, learning_rate=0.03, validation=validation, patience=patience)
        assert result.stop_reason == "patience"
        assert result.problem is None
        assert result.best_epoch == 4
        assert result.history[-1].epoch == 4 + patience


def test_patience_without_validation_looks_at_the_training_cost(run, problem):
    result = run(problem(), optimizer="sgd", reduction="sum", learning_rate=0.4, num_epochs=90, patience=4)
    assert result.stop_reason == "patience"
    assert result.history[-1].epoch == result.best_epoch + 4
    assert result.best_epoch == int(np.argmin(costs(result)))


def test_patience_is_not_lost_while_the_cost_falls(run, problem):
    result = run(problem(), num_epochs=30, learning_rate=1e-3, patience=1)
    assert costs(result) == sorted(costs(result), reverse=True)
    assert result.stop_reason == "num_epochs"
    assert len(result.history) == 31


def test_the_callback_stops_with_true(run, problem):
    for last in (0, 2):
        result = run(problem(), callback=lambda record, last=last: record.epoch == last)
        assert result.stop_reason == "callback"
        assert [record.epoch for record in result.history] == list(range(last + 1))


def test_other_results_of_the_callback_do_not_stop(run, problem):
    assert len(run(problem(), num_epochs=3, callback=lambda record: record).history) == 4


@pytest.mark.filterwarnings("error")
def test_a_huge_learning_rate_stops_the_training(run, problem):
    for dtype, batch_size in itertools.product(("float32", "float64"), (None, 4)):
        p = problem(dtype=dtype)
        result = run(p, optimizer="sgd", learning_rate=1e250, num_epochs=90, batch_size=batch_size)
        last, case = result.history[-1], (dtype, batch_size)
        assert result.stop_reason == "non_finite", case
        assert 0 < last.epoch < 90, case
        assert not math.isfinite(last.cost), case
        assert all(math.isfinite(cost) for cost in costs(result)[:-1]), case
        assert re.match(rf"epoch {last.epoch}, batch \d: .* finite", result.problem), case
        assert_names(result.problem, "1e+250", "clip norm", f"epoch {result.best_epoch} ")
        np.testing.assert_array_equal(flatten(result.params), flatten(p.params), err_msg=str(case))


def assert_names(problem, *parts):
    assert [part for part in parts if part not in problem] == [], problem
    assert "\n" not in problem


def test_the_best_parameters_outlive_a_divergence(run, problem):
    p = problem()
    diverging = {"optimizer": "sgd", "reduction": "sum", "learning_rate": 3.0, "num_epochs": 3000}
    x = problem(B=4).x
    after_1 = unflatten(flatten(p.params) - 3.0 * gradient_of(p.params, p.x, p.y, "sum"), p.params)
    result = run(p, **diverging, validation=(x, network_forward(x, after_1)[0]))
    assert result.stop_reason == "non_finite"
    assert result.best_epoch == 1 < result.history[-1].epoch
    assert_names(result.problem, "parameters of epoch 1 ")
    np.testing.assert_allclose(flatten(result.params), flatten(after_1), rtol=1e-10)


def test_validation_that_is_not_finite_stops_too(run, problem):
    p, (_, x, y) = problem(), problem(B=4)
    y[2, 0] = np.inf
    result = run(p, validation=(x, y))
    assert result.stop_reason == "non_finite"
    assert len(result.history) == 1
    assert math.isfinite(result.history[0].cost)


@pytest.mark.parametrize("plain", ["0", "1"])
def test_the_batch_and_the_parameter_of_a_gradient_that_is_not_finite(run, problem, monkeypatch, plain):
    """A target in the third batch of the second epoch whose error is finite, and whose gradient is not."""
    monkeypatch.setenv("GRU_XP_PLAIN", plain)
    p = problem(B=12, dtype="float32")
    seen = []
    run(p, batch_size=4, num_epochs=2, pause=lambda epoch, batches, state: seen.append((epoch, batches, state())))
    before = {(epoch, batches): state for epoch, batches, state in seen}

    def poison(epoch, batches, state):
        if (epoch, batches) == (1, 2):
            p.y[...] = np.float32(3e38)

    result = run(p, batch_size=4, num_epochs=5, learning_rate=0.01, pause=poison)
    assert result.stop_reason == "non_finite"
    assert [record.epoch for record in result.history] == [0, 1, 2]
    assert result.problem.startswith("epoch 2, batch 3: ")
    assert_names(result.problem, "gradient of gru.0.0.weight_ih", "than 0.01", "clip norm such as 1", "of epoch 1 ")
    np.testing.assert_array_equal(flatten(result.params), before[1, 0].best_theta)


def test_a_clip_norm_that_is_there_is_not_suggested(run, problem):
    for clip_norm, advice in ((None, "such as 1"), (5.0, "such as 1"), (0.5, "below 0.5")):
        result = run(problem(), optimizer="sgd", learning_rate=1e300, num_epochs=9, clip_norm=clip_norm)
        assert_names(result.problem, f"clip norm {advice} ")


def test_after_a_gradient_that_is_not_finite_the_parameters_stay(run, problem):
    p = problem(B=12, dtype="float32")
    states = {}

    def pause(epoch, batches, state):
        states[epoch, batches] = state()
        if (epoch, batches) == (0, 1):
            p.y[...] = np.float32(3e38)

    run(p, batch_size=4, num_epochs=3, pause=pause)
    assert not math.isfinite(states[0, 3].largest_norm)
    np.testing.assert_array_equal(states[0, 2].theta, states[0, 1].theta)
    np.testing.assert_array_equal(states[0, 3].theta, states[0, 1].theta)


# --- going on ---------------------------------------------------------------------------------------------------

GOING_ON = {
    "whole batch": {},
    "mini-batches": {"batch_size": 4},
    "dropout": {"batch_size": 4, **RATES},
    "dropout, whole batch": RATES,
    "clipping": {"batch_size": 5, "clip_norm": 0.1},
    "sgd": {"batch_size": 4, "optimizer": "sgd"},
    "momentum": {"batch_size": 4, "optimizer": "momentum"},
    "patience": {"batch_size": 4, "patience": 2, "learning_rate": 0.3, "num_epochs": 9},
    "budget": {"batch_size": 4, "num_steps": 6, "optimizer": "adamw", "schedule": "one-cycle", "loss": "mae"},
}


def without_seconds(history):
    return [dataclasses.replace(record, seconds=0.0) for record in history]


@pytest.mark.parametrize("config", GOING_ON)
def test_a_training_goes_on_with_the_same_bits_from_wherever_it_stopped(run, problem, config, monkeypatch):
    """On the plain path and on the fast one, each with another form of the reset gate."""
    forms = ("before", "after") if [*GOING_ON].index(config) % 2 else ("after", "before")
    config = GOING_ON[config]
    for plain, reset in zip("01", forms, strict=True):
        monkeypatch.setenv("GRU_XP_PLAIN", plain)
        p = problem(B=7, num_layers=2, dtype="float32", reset=reset)
        _, x, y = problem(B=6, dtype="float32")
        given = {"reset": reset, "num_epochs": 3, "validation": (x, y), **config}
        states = []
        whole = run(p, **given, pause=lambda *at, states=states: states.append((*at[:2], at[2]())))
        *_, (_, _, last) = states
        sizes = math.ceil(7 / config.get("batch_size", 7))
        assert [at[:2] for at in states] == [
            (0, 0),
            *(
                (epoch, batch % (sizes + 1))
                for e in range(1, len(whole.history))
                for epoch, batch in [*((e - 1, b) for b in range(1, sizes + 1)), (e, 0)]
            ),
        ]
        for epoch, batches, state in states[int(plain) :: 2]:
            case = f"{plain=} {reset=} {epoch=} {batches=}"
            assert (state.epoch, state.batches) == (epoch, batches), case
            ends = []
            rest = run(p, **given, state=state, pause=lambda *at, ends=ends: ends.append(at[2]()))
            assert rest.stop_reason == whole.stop_reason, case
            assert rest.best_epoch == whole.best_epoch, case
            assert without_seconds(rest.history) == without_seconds(whole.history), case
            np.testing.assert_array_equal(flatten(rest.params), flatten(whole.params), err_msg=case)
            if ends:
                np.testing.assert_array_equal(ends[-1].theta, last.theta, err_msg=case)
                for name, array in last.optimizer.items():
                    np.testing.assert_array_equal(ends[-1].optimizer[name], array, err_msg=f"{case} {name}")


def test_a_pause_stops_there(run, problem):
    for at, epochs in (((0, 0), 0), ((1, 2), 1), ((2, 0), 2)):
        states = []

        def pause(epoch, batches, state, at=at, states=states):
            if (epoch, batches) == at:
                states.append(state())
                return True
            return False

        result = run(problem(), batch_size=4, pause=pause)
        assert result.stop_reason == "paused"
        assert result.problem is None
        assert result.history[-1].epoch == epochs
        assert len(states) == 1


def test_states_are_copies_on_the_host(run, problem):
    p, states = problem(), []
    run(p, pause=lambda epoch, batches, state: states.append(state()))
    assert all(isinstance(array, np.ndarray) for array in (states[0].theta, *states[0].optimizer.values()))
    np.testing.assert_array_equal(states[0].theta, flatten(p.params))
    assert not np.array_equal(states[-1].theta, states[0].theta)


def test_time_goes_on_where_it_stopped(run, problem):
    states = []
    run(problem(), num_epochs=2, pause=lambda epoch, batches, state: states.append(state()))
    later = dataclasses.replace(states[1], seconds=1000.0)
    result = run(problem(), num_epochs=2, state=later)
    assert result.history[0].seconds < 1000 < result.history[1].seconds < 1100


def test_more_epochs_than_at_first(run, problem):
    p, states = problem(), []
    run(p, num_epochs=2, pause=lambda epoch, batches, state: states.append(state()))
    longer, whole = run(p, num_epochs=5, state=states[-1]), run(p, num_epochs=5)
    assert without_seconds(longer.history) == without_seconds(whole.history)


def test_a_training_that_is_done_is_done(run, problem):
    p, states = problem(), []
    whole = run(p, num_epochs=2, pause=lambda epoch, batches, state: states.append(state()))
    again = run(p, num_epochs=2, state=states[-1], pause=lambda *_: pytest.fail("nothing is left to do"))
    assert again.history == whole.history
    np.testing.assert_array_equal(flatten(again.params), flatten(whole.params))


# --- clipping ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_long_gradient_is_shortened_to_the_clip_norm(run, problem, reduction):
    p = problem()
    gradient = gradient_of(p.params, p.x, p.y, reduction)
    result = run(p, optimizer="sgd", reduction=reduction, learning_rate=1.0, num_epochs=1, clip_norm=0.01)
    step = flatten(p.params) - flatten(result.params)
    assert np.linalg.norm(gradient) > 0.1
    np.testing.assert_allclose(step, 0.01 * gradient / np.linalg.norm(gradient), rtol=1e-9, atol=1e-14)
    assert result.history[1].gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-12)


def test_a_short_gradient_is_left_alone(run, problem, monkeypatch):
    """Bit for bit, also where the dtype has no number as large as the clip norm."""
    settings = {"num_epochs": 4, "optimizer": "sgd", "learning_rate": 1e-3}
    for plain, dtype in itertools.product("01", ("float32", "float64")):
        monkeypatch.setenv("GRU_XP_PLAIN", plain)
        p = problem(dtype=dtype)
        free = run(p, **settings)
        assert max(record.gradient_norm for record in free.history[1:]) < 1e3
        for clip_norm in (1e3, 1e300):
            assert_same_training(run(p, clip_norm=clip_norm, **settings), free, (plain, dtype, clip_norm))


def test_clipping_of_a_gradient_whose_square_overflows(run, problem):
    p = problem(dtype="float32")
    p = p._replace(y=np.float32(5e18) * p.y)
    _, record = run(p, optimizer="sgd", learning_rate=0.1, num_epochs=1, clip_norm=1.0).history
    wide = map_arrays(lambda array: array.astype(np.float64), p.params)
    exact = p._replace(params=wide, x=p.x.astype(np.float64), y=p.y.astype(np.float64))
    _, expected = run(exact, optimizer="sgd", learning_rate=0.1, num_epochs=1, clip_norm=1.0).history
    assert record.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5)
    assert record.gradient_norm**2 > float(np.finfo(np.float32).max)


# --- arguments --------------------------------------------------------------------------------------------------


def test_settings_out_of_range(refused):
    usual = {"num_epochs": 3, "learning_rate": 0.1}
    whole, real = ("num_epochs", "batch_size", "patience", "num_steps"), ("learning_rate", "clip_norm", "huber_delta")
    for name, value in itertools.product(whole + real, (0, -1, math.nan, math.inf)):
        limit = "above 0 and finite" if name in real else "a whole number of at least 1"
        with refused(ValueError, f"{name} is {value}", limit, case=(name, value)):
            TrainingConfig(**usual | {name: value})
    others = ("beta1", "beta2", "weight_decay", "warmup")
    for name, value in itertools.product(others, (1.0, -0.1, math.nan, "0.5")):
        with refused(ValueError, f"{name} is {value!r}", "at least 0 and below 1", case=(name, value)):
            TrainingConfig(**usual, **{name: value})
    with refused(ValueError, "num_epochs is None", "a whole number"):
        TrainingConfig(num_epochs=None, learning_rate=0.1)
    with refused(ValueError, "quantiles is [0.5, 1.5]", "below 1"):
        TrainingConfig(**usual, quantiles=[0.5, 1.5])
    for name, value in itertools.product(RATES, (1, 1.0, -0.1, math.nan, math.inf, True, "0.5", None)):
        with refused(ValueError, f"{name} is {value!r}", "at least 0 and below 1", case=(name, value)):
            TrainingConfig(**usual, **{name: value})
    known = {
        "optimizer": ("'sgd'", "'momentum'", "'adam'", "'adamw'"),
        "reduction": ("'sum'", "'mean'"),
        "schedule": ("'constant'", "'cosine'", "'one-cycle'"),
        "loss": ("'mse'", "'mae'", "'huber'", "'quantile'", "'gaussian'", "'poisson'"),
    }
    for name, value in (
        ("optimizer", "rmsprop"),
        ("reduction", "max"),
        ("reduction", ""),
        ("schedule", "step"),
        ("loss", "l1"),
    ):
        choices = known[name]
        with refused(ValueError, f"{name} is '{value}'", *choices, case=(name, value)):
            TrainingConfig(**usual, **{name: value})
    assert TrainingConfig(num_epochs=2**31 - 1, learning_rate=0.1).num_epochs == 2147483647
    with refused(ValueError, "num_epochs is 2147483648", "at most 2147483647"):  # which a checkpoint can count
        TrainingConfig(num_epochs=2**31, learning_rate=0.1)


def test_arrays_that_do_not_go_together(run, problem, refused):
    p = problem(I=3, O=3)
    for name, batch_size in itertools.product("xy", (None, 4)):
        array = getattr(p, name)
        with refused(ValueError, "shape", case=(name, batch_size)):
            run(p._replace(**{name: array[..., :2]}), batch_size=batch_size)
        with refused(ValueError, "dtype", "float32", case=(name, batch_size)):
            run(p._replace(**{name: array.astype(np.float32)}), batch_size=batch_size)
    for n_x, n_y in ((9, 7), (7, 9)):
        with refused(ValueError, "shape", case=(n_x, n_y)):
            run(p._replace(x=p.x[:n_x], y=p.y[:n_y]))
    for rows in ((slice(0), ...), (..., 0)):
        with refused(ValueError, "x has shape", case=rows):
            run(p._replace(x=p.x[rows], y=p.y[: len(p.x[rows])]))


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("layers", "config"),
    [
        ({}, {}),
        ({"num_layers": 2, "bidirectional": True}, {}),
        ({"num_layers": 2, "bidirectional": True}, {"dropout": 0.3, "recurrent_dropout": 0.2, "zoneout": 0.1}),
    ],
)
def test_a_cuda_device_trains_the_same(problem, layers, config):
    from gru_xp.devices import resolve_device

    p = problem(**layers)
    trajectories = []
    for name in ("cpu", "cuda"):
        device = resolve_device(name)
        start = map_arrays(lambda array, device=device: to_device(array, device), p.params)
        given = TrainingConfig(num_epochs=5, learning_rate=0.01, batch_size=4, **config)
        x, y = to_device(p.x, device), to_device(p.y, device)
        trajectories.append(costs(train(start, x, y, config=given, device=device)))
    np.testing.assert_allclose(trajectories[1], trajectories[0], rtol=1e-10)


def test_one_output_and_one_step(run, problem, rng):
    """The smallest network there is."""
    p = problem(B=1, T=1, I=1, H=1, O=1)
    linear = init_linear_params(1, 1, xp=np, seed=int(rng.integers(100)))
    result = run(p._replace(params=p.params._replace(linear=linear)), num_epochs=50, learning_rate=0.05)
    assert costs(result)[-1] < 0.5 * costs(result)[0]
