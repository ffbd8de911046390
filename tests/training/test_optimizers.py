import itertools
import math

import numpy as np
import pytest

from gru_xp.devices import to_host
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.training.optimizers import DEFAULT_REDUCTIONS, OPTIMIZERS, SGD, STATE_SHAPES, Adam, AdamW, Momentum

STEPS = 50


def eager(optimizer, gradient, ops):
    return lambda: optimizer.step(gradient, ops)


def captured(optimizer, gradient, ops):
    """The first call captures, the others replay."""
    replay = []

    def step():
        if replay:
            replay[0]()
        else:
            replay.append(ops.capture(lambda: optimizer.step(gradient, ops)))

    return step


OPS = pytest.mark.parametrize("make_ops", [lambda: PLAIN_OPS, NumpyOps], ids=["plain", "numpy"])


@pytest.fixture
def gradients(rng):
    return 3.0 * rng.standard_normal((STEPS, 7))


def by_hand(name, theta, gradients, rate):
    """The parameters after all steps, from the textbook formulas, one number at a time."""
    results = []
    for i, value in enumerate(theta.tolist()):
        velocity = mean = square = 0.0
        for t, g in enumerate(gradients[:, i].tolist(), start=1):
            if name == "sgd":
                value -= rate * g
            elif name == "momentum":
                velocity = 0.9 * velocity + g
                value -= rate * velocity
            else:
                mean = 0.9 * mean + 0.1 * g
                square = 0.999 * square + 0.001 * g**2
                value *= 1 - 0.01 * rate if name == "adamw" else 1
                value -= rate * (mean / (1 - 0.9**t)) / (math.sqrt(square / (1 - 0.999**t)) + 1e-8)
        results.append(value)
    return np.asarray(results)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_steps_are_the_textbook_formulas_in_every_namespace(xp, rng, gradients, name):
    start = rng.standard_normal(7)
    theta = xp.asarray(start.copy())
    optimizer = OPTIMIZERS[name](theta, 0.05)
    for gradient in gradients:
        optimizer.step(xp.asarray(gradient), PLAIN_OPS)
    np.testing.assert_allclose(to_host(theta), by_hand(name, start, gradients, 0.05), rtol=1e-12, atol=1e-13)


@pytest.mark.peer
@OPS
@pytest.mark.parametrize("way", [eager, captured])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_steps_are_those_of_pytorch(rng, gradients, name, way, make_ops):
    torch = pytest.importorskip("torch")
    start = rng.standard_normal(7)
    theirs = torch.tensor(start, requires_grad=True)
    their_optimizer = {
        "sgd": lambda: torch.optim.SGD([theirs], lr=0.03),
        "momentum": lambda: torch.optim.SGD([theirs], lr=0.03, momentum=0.9),
        "adam": lambda: torch.optim.Adam([theirs], lr=0.03),
        "adamw": lambda: torch.optim.AdamW([theirs], lr=0.03),
    }[name]()
    ours, given = start.copy(), np.empty(7)
    step = way(OPTIMIZERS[name](ours, 0.03), given, make_ops())
    for gradient in gradients:
        given[...] = gradient
        step()
        theirs.grad = torch.tensor(gradient)
        their_optimizer.step()
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.peer
def test_other_coefficients(rng, gradients):
    torch = pytest.importorskip("torch")
    cases = (
        (lambda theta: Momentum(theta, 0.02, decay=0.5), "SGD", {"momentum": 0.5}),
        (lambda theta: Adam(theta, 0.02, 0.7, 0.8, epsilon=1e-2), "Adam", {"betas": (0.7, 0.8), "eps": 1e-2}),
        (
            lambda theta: AdamW(theta, 0.02, 0.9, 0.99, weight_decay=0.3),
            "AdamW",
            {"betas": (0.9, 0.99), "weight_decay": 0.3},
        ),
    )
    for (ours, theirs, options), ops in itertools.product(cases, (PLAIN_OPS, NumpyOps())):
        theta = rng.standard_normal(7)
        tensor = torch.tensor(theta, requires_grad=True)
        optimizer = getattr(torch.optim, theirs)([tensor], lr=0.02, **options)
        step = ours(theta).step
        for gradient in gradients:
            step(gradient, ops)
            tensor.grad = torch.tensor(gradient)
            optimizer.step()
        np.testing.assert_allclose(theta, tensor.detach().numpy(), rtol=1e-12, atol=1e-13, err_msg=theirs)


@pytest.mark.compat
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@OPS
def test_captured_steps_are_the_textbook_formulas(rng, gradients, name, make_ops):
    """In float32 and float64; the vector changes in place, and the gradients stay."""
    before = gradients.copy()
    for dtype, tolerance in (("float32", 1e-4), ("float64", 1e-12)):
        theta = rng.standard_normal(7).astype(dtype)
        start, view, given = theta.astype(np.float64), theta[2:5], np.empty(7, dtype)
        step = captured(OPTIMIZERS[name](theta, 0.01), given, make_ops())
        for gradient in gradients.astype(dtype):
            given[...] = gradient
            step()
            np.testing.assert_array_equal(given, gradient)
        assert theta.dtype == dtype
        expected = by_hand(name, start, gradients, 0.01)
        np.testing.assert_allclose(theta, expected, rtol=tolerance, atol=tolerance, err_msg=dtype)
        np.testing.assert_array_equal(view, theta[2:5])
        assert (theta != start).all()
    np.testing.assert_array_equal(gradients, before)


def test_the_first_adam_step_is_as_long_as_the_learning_rate(rng):
    theta = np.zeros(5)
    gradient = rng.standard_normal(5) * 10.0 ** np.arange(-2, 3)
    Adam(theta, 0.25).step(gradient, PLAIN_OPS)
    np.testing.assert_allclose(theta, -0.25 * np.sign(gradient), rtol=1e-4)


def test_every_optimizer_has_a_default_reduction():
    assert DEFAULT_REDUCTIONS.keys() == OPTIMIZERS.keys()
    assert DEFAULT_REDUCTIONS.keys() == STATE_SHAPES.keys()
    assert {"sgd": SGD, "momentum": Momentum, "adam": Adam, "adamw": AdamW} == OPTIMIZERS


def test_captured_steps_follow_the_learning_rate(rng, gradients):
    """Rates that are set after a step was captured are those of other optimizers, which had them from the start."""
    for name, make in OPTIMIZERS.items():
        theta = rng.standard_normal(7)
        expected, ops, given = theta.copy(), NumpyOps(), np.empty(7)
        changing, eager = make(theta, 0.5), make(expected, 1.0)
        step = captured(changing, given, ops)
        for gradient, rate in zip(gradients[:9], rng.uniform(0.0, 0.1, 9), strict=True):
            given[...] = gradient
            changing.set_learning_rate(rate, ops)
            eager.set_learning_rate(rate, PLAIN_OPS)
            step()
            eager.step(gradient, PLAIN_OPS)
        np.testing.assert_allclose(theta, expected, rtol=1e-13, err_msg=name)
