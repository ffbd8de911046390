import json
import math
from dataclasses import astuple

import numpy as np
import pytest

from gru_xp.devices import resolve_device, to_device, to_host
from gru_xp.nn import linear_backward, linear_forward, mse_loss
from gru_xp.nn.network import network_backward, network_forward
from gru_xp.nn.params import LinearParams, flatten, map_arrays, unflatten
from gru_xp.training import TrainingConfig, stream, train_on_stream
from gru_xp.training.checkpoint import Checkpoints, state_from_parts, state_parts, state_specs
from gru_xp.training.tensors import read_tensors, write_tensors

TRUE = LinearParams(np.array([[1.0, -2.0, 0.5], [0.3, 0.0, 4.0]]), np.array([0.7, -1.5]))


def batches(number, bad=()):
    """Of a linear model with noise; those in `bad` have an infinite target."""
    rng = np.random.default_rng(number)
    x = rng.standard_normal((20, 3))
    y = x @ TRUE.weight.T + TRUE.bias + 0.1 * rng.standard_normal((20, 2))
    if number in bad:
        y[3, 1] = np.inf
    return x, y


def objective(params, batch, ops=None):
    y_pred, cache = linear_forward(batch[0], params)
    with np.errstate(invalid="ignore"):
        loss, gradient = mse_loss(y_pred, batch[1])
        return loss, linear_backward(gradient, cache)[1]


def validate(params, ops=None):
    return float(objective(params, batches(0))[0])


@pytest.fixture
def start(rng):
    return LinearParams(rng.standard_normal((2, 3)), rng.standard_normal(2))


@pytest.fixture
def run(cpu, start):
    """``run(bad=(), ...)``: with keywords of `train_on_stream`, and others of the config."""
    own = {"averaging", "callback", "pause", "state", "validate", "steps_per_epoch", "objective", "device"}

    def run(bad=(), **given):
        options = {"device": cpu, "validate": validate, "steps_per_epoch": 4, "objective": objective}
        options |= {name: given.pop(name) for name in own & given.keys()}
        settings = {"num_epochs": None, "num_steps": 10, "learning_rate": 0.03, "optimizer": "adamw"} | given
        config = TrainingConfig(**settings)
        return train_on_stream(start, lambda number: batches(number, bad), config=config, **options)

    return run


def numbers(result):
    """Of the history, without the times."""
    return [(*astuple(record)[:4], record.best_cost) for record in result.history]


# --- updates ----------------------------------------------------------------------------------------------------


def test_updates_are_those_of_adamw(run, start):
    """With clipping, warmup and a cosine; matrices decay, and biases do not."""
    rate, decay, beta1, beta2, clip, steps, warmup = 0.2, 0.3, 0.8, 0.9, 5.0, 7, 0.3
    theta, decayed = flatten(start), np.array([1.0] * 6 + [0.0] * 2)
    mean = square = np.zeros(8)
    losses, norms = [], []
    for step in range(steps):
        loss, gradient = objective(unflatten(theta, start), batches(step + 1))
        gradient, share = flatten(gradient), step / steps
        losses.append(float(loss))
        norms.append(np.linalg.norm(gradient))
        gradient = gradient * min(1.0, clip / norms[-1])
        cosine = 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))
        now = rate * ((share + 0.001) / warmup if share < warmup else cosine)
        theta = theta - now * decay * decayed * theta
        mean, square = beta1 * mean + (1 - beta1) * gradient, beta2 * square + (1 - beta2) * gradient**2
        corrected = mean / (1 - beta1 ** (step + 1)), square / (1 - beta2 ** (step + 1))
        theta = theta - now * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
    assert min(norms) < clip < max(norms)
    given = {"beta1": beta1, "beta2": beta2, "clip_norm": clip, "schedule": "cosine", "warmup": warmup}
    result = run(num_steps=steps, learning_rate=rate, weight_decay=decay, **given)
    np.testing.assert_allclose(flatten(result.params), theta, rtol=1e-12)
    assert [record.cost for record in result.history] == pytest.approx(
        [losses[0], np.mean(losses[:4]), np.mean(losses[4:])], rel=1e-12
    )
    assert [record.gradient_norm for record in result.history[1:]] == pytest.approx([max(norms[:4]), max(norms[4:])])
    assert (result.stop_reason, result.problem, result.best_epoch) == ("num_steps", None, 2)


def test_a_stream_is_learned(run):
    result = run(num_steps=400, steps_per_epoch=100, learning_rate=0.1, schedule="cosine", warmup=0.1, weight_decay=0.0)
    assert result.history[-1].validation_cost < 0.02 < 1 < result.history[0].validation_cost  # the noise has 0.01
    np.testing.assert_allclose(flatten(result.params), flatten(TRUE), atol=0.05)


def test_the_best_epoch_is_kept_without_an_average(run):
    losses, trajectory = iter([3.0, 1.5, 2.0, 1.75]), []
    result = run(
        validate=lambda params, ops: next(losses),
        pause=lambda epoch, done, state: trajectory.append(state().theta),
    )
    assert (result.best_epoch, result.history[-1].best_cost) == (1, 1.5)
    np.testing.assert_array_equal(flatten(result.params), trajectory[4])
    result = run(validate=lambda params, ops: 1.0, patience=1)
    assert (result.stop_reason, result.best_epoch, len(result.history)) == ("patience", 0, 2)


def test_the_average(run, start):
    trajectory, averages = [], []
    result = run(
        averaging=0.2,
        pause=lambda epoch, done, state: done and trajectory.append(state().theta),
        callback=lambda record: averages.append(record.validation_cost),
    )
    average = flatten(start)
    expected = [validate(start)]
    for n, theta in enumerate(trajectory, 1):
        decay = min(0.2, n / (n + 20))
        average = decay * average + (1 - decay) * theta
        if n in (4, 8, 10):
            expected.append(validate(unflatten(average, start)))
    assert len(trajectory) == 10
    assert averages == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(flatten(result.params), average, rtol=1e-12)
    assert result.best_epoch == 3


# --- stopping and resuming --------------------------------------------------------------------------------------


@pytest.mark.parametrize("averaging", [None, 0.9])
def test_a_training_that_stops_after_every_update_gives_the_same_bits(run, tmp_path, averaging):
    """The states go through files."""
    path, options = tmp_path / "state.safetensors", {"averaging": averaging, "bad": (2, 6), "schedule": "cosine"}
    whole, state, stops, validated = run(**options), None, 0, []

    def counted(params, ops):
        validated.append(params)
        return validate(params)

    options |= {"validate": counted}
    while (result := run(**options, state=state, pause=save_and_stop(path))).stop_reason == "paused":
        state, stops = load(path), stops + 1
    assert stops == 1 + 10 + 2  # the start, every update, and all epochs but the last
    assert len(validated) == 4  # none again
    assert flatten(result.params).tobytes() == flatten(whole.params).tobytes()
    assert numbers(result) == numbers(whole)
    assert result.best_epoch == whole.best_epoch


def save_and_stop(path):
    def write(state):
        parts, arrays = state_parts(state)
        write_tensors(path, arrays, kind="checkpoint", version=1, description={"state": json.loads(json.dumps(parts))})

    return Checkpoints(write, wants_stop=lambda: True)


def load(path):
    def expected(version, description):
        return state_specs(description["state"], "adamw", 8, "float64")

    _, description, arrays = read_tensors(path, kind="checkpoint", versions=(1,), expected=expected)
    return state_from_parts(description["state"], arrays)


def test_hooks_stop_it(run):
    result = run(callback=lambda record: record.epoch == 2)
    assert (result.stop_reason, len(result.history)) == ("callback", 3)
    result = run(pause=lambda epoch, done, state: (epoch, done) == (1, 3), averaging=0.9)
    assert (result.stop_reason, len(result.history)) == ("paused", 2)
    assert run(stop_after=5).history[-1].epoch == 2


# --- numbers that are not finite --------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["both", "loss", "gradient"])
def test_a_bad_batch_is_skipped(run, start, what):
    """As if it had not been there, but for the learning rate, which is constant here."""

    def judged(params, batch, ops):
        loss, gradient = objective(params, batch)
        if np.isfinite(loss):
            return loss, gradient
        return (loss if what != "gradient" else 1.0), (gradient if what != "loss" else start)

    def without(number):
        return batches([1, 3, 4, 6, 7, 8][number - 1])

    result = run(bad=(2, 5), num_steps=8, objective=judged)
    config = TrainingConfig(None, 0.03, optimizer="adamw", num_steps=6)
    options = {"config": config, "device": "cpu", "validate": validate, "steps_per_epoch": 3}
    expected = train_on_stream(start, without, objective, **options)
    np.testing.assert_array_equal(flatten(result.params), flatten(expected.params))
    assert np.array(numbers(result)[1:]) == pytest.approx(np.array(numbers(expected)[1:]), rel=1e-12)
    assert (result.stop_reason, result.problem) == ("num_steps", None)


def test_many_bad_batches_end_it(run, monkeypatch):
    monkeypatch.setattr(stream, "MAX_SKIPPED", 2)
    seen = []
    result = run(bad=(5, 7, 8, 12, 13, 15), num_steps=40, steps_per_epoch=10, pause=lambda *at: seen.append(at[:2]))
    assert result.stop_reason == "non_finite"
    assert seen == [(0, 0), *((0, batch) for batch in range(1, 9))]
    assert "epoch 1" in result.problem
    assert "3 batches" in result.problem
    result = run(bad=range(5, 9), num_steps=40, averaging=0.9)
    assert (result.stop_reason, result.best_epoch, result.history[-1].epoch) == ("non_finite", 1, 2)
    assert np.isfinite(flatten(result.params)).all()
    for result in (run(bad=(1,)), run(validate=lambda params, ops: math.nan)):
        assert (result.stop_reason, result.history[-1].epoch) == ("non_finite", 0)


# --- arguments --------------------------------------------------------------------------------------------------


def test_arguments_are_refused(run, start, cpu, refused):
    with refused(ValueError, "averaging", case="averaging"):
        run(averaging=1.0)
    with refused(ValueError, "steps_per_epoch", case="steps_per_epoch"):
        run(steps_per_epoch=0)
    with refused(ValueError, "validate", "function", case="validate"):
        run(validate=3.0)
    with refused(ValueError, "gradient", "8", case="gradient"):
        run(objective=lambda params, batch, ops: (1.0, (params.bias,)))
    mixed = start._replace(bias=start.bias.astype(np.float32))
    options = {"config": TrainingConfig(1, 0.1), "device": cpu, "validate": validate, "steps_per_epoch": 1}
    with refused(ValueError, "params.bias", "float32", case="dtypes"):
        train_on_stream(mixed, batches, objective, **options)


# --- devices ----------------------------------------------------------------------------------------------------


@pytest.mark.cuda
def test_a_cuda_device_learns_the_same(draw_network):
    params, results = draw_network(np, 2, 5, 2, num_layers=2), []

    def draw(number):
        rng = np.random.default_rng(number)
        return rng.standard_normal((6, 7, 2)), rng.standard_normal((6, 2))

    def objective(params, batch, ops):
        x, y = (to_device(array, device) for array in batch)
        y_pred, cache = network_forward(x, params, ops=ops)
        loss, dpred = mse_loss(y_pred, y, ops=ops)
        return loss, network_backward(dpred, cache, with_dx=False)[1]

    for name in ("cpu", "cuda"):
        device = resolve_device(name, fallback=False)
        results.append(
            train_on_stream(
                map_arrays(lambda array, device=device: to_device(array, device), params),
                draw,
                objective,
                config=TrainingConfig(None, 0.01, num_steps=7, optimizer="adamw", clip_norm=0.5, schedule="cosine"),
                device=device,
                validate=lambda params, ops: float(objective(params, draw(0), ops)[0]),
                steps_per_epoch=3,
                averaging=0.9,
            )
        )
    expected, result = results
    np.testing.assert_allclose(to_host(flatten(result.params)), flatten(expected.params), rtol=0, atol=1e-10)
    assert [r.cost for r in result.history] == pytest.approx([r.cost for r in expected.history], rel=1e-10)
