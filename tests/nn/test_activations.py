import warnings

import numpy as np
import pytest

from gru_xp.devices import to_host
from gru_xp.nn import gradcheck
from gru_xp.nn.activations import sigmoid_backward, sigmoid_forward, tanh_backward, tanh_forward

PAIRS = {"sigmoid": (sigmoid_forward, sigmoid_backward), "tanh": (tanh_forward, tanh_backward)}


def test_textbook_formulas(xp, draw):
    a = draw(xp, (4, 7))
    host = to_host(a)
    np.testing.assert_allclose(to_host(sigmoid_forward(xp, a)), 1.0 / (1.0 + np.exp(-host)), rtol=1e-14)
    e = np.exp(2.0 * host)
    np.testing.assert_allclose(to_host(tanh_forward(xp, a)), (e - 1.0) / (e + 1.0), rtol=1e-12)
    assert float(sigmoid_forward(xp, xp.asarray(0.0))) == 0.5


@pytest.mark.parametrize("name", PAIRS)
def test_large_arguments_saturate_without_warnings(xp, name):
    forward, backward = PAIRS[name]
    low = {"sigmoid": 0.0, "tanh": -1.0}[name]
    for dtype in (xp.float32, xp.float64):
        a = xp.asarray([-1e30, -1e4, 1e4, 1e30], dtype=dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            y = forward(xp, a)
            da = backward(xp.ones_like(y), y)
        assert to_host(y).tolist() == [low, low, 1.0, 1.0], dtype
        assert to_host(da).tolist() == [0.0, 0.0, 0.0, 0.0], dtype
        assert y.dtype == da.dtype == dtype


@pytest.mark.compat
def test_backward_is_the_derivative(xp, draw):
    for name, (forward, backward) in PAIRS.items():
        report = gradcheck(lambda a, f=forward: (f(xp, a), f(xp, a)), backward, {"a": draw(xp, (3, 5))})
        assert report.ok, (name, report)


def test_backward_scales_the_incoming_gradient():
    for name, slope in (("sigmoid", 0.25), ("tanh", 1.0)):
        forward, backward = PAIRS[name]
        assert backward(np.asarray(3.0), forward(np, np.asarray(0.0))) == 3.0 * slope, name
