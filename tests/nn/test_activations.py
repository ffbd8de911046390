import warnings

import numpy as np
import pytest

from gru_xp.devices import to_host
from gru_xp.nn import gradcheck
from gru_xp.nn.activations import sigmoid_backward, sigmoid_forward, tanh_backward, tanh_forward

PAIRS = {"sigmoid": (sigmoid_forward, sigmoid_backward), "tanh": (tanh_forward, tanh_backward)}


def test_sigmoid_is_the_textbook_formula(xp, draw):
    a = draw(xp, (4, 7))
    s = to_host(sigmoid_forward(xp, a))
    np.testing.assert_allclose(s, 1.0 / (1.0 + np.exp(-to_host(a))), rtol=1e-14)
    assert float(sigmoid_forward(xp, xp.asarray(0.0))) == 0.5


def test_tanh_is_the_textbook_formula(xp, draw):
    a = draw(xp, (4, 7))
    e = np.exp(2.0 * to_host(a))
    np.testing.assert_allclose(to_host(tanh_forward(xp, a)), (e - 1.0) / (e + 1.0), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PAIRS)
def test_large_arguments_saturate_in_silence(xp, name, dtype):
    forward, backward = PAIRS[name]
    low = {"sigmoid": 0.0, "tanh": -1.0}[name]
    a = xp.asarray([-1e30, -1e4, 1e4, 1e30], dtype=getattr(xp, dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = forward(xp, a)
        da = backward(xp.ones_like(y), y)
    assert to_host(y).tolist() == [low, low, 1.0, 1.0]
    assert to_host(da).tolist() == [0.0, 0.0, 0.0, 0.0]
    assert y.dtype == da.dtype == getattr(xp, dtype)


@pytest.mark.parametrize("name", PAIRS)
def test_backward_is_the_derivative(xp, draw, name):
    forward, backward = PAIRS[name]
    report = gradcheck(lambda a: (forward(xp, a), forward(xp, a)), backward, {"a": draw(xp, (3, 5))})
    assert report.ok, report


@pytest.mark.parametrize(("name", "slope"), [("sigmoid", 0.25), ("tanh", 1.0)])
def test_backward_scales_the_incoming_gradient(name, slope):
    forward, backward = PAIRS[name]
    assert backward(np.asarray(3.0), forward(np, np.asarray(0.0))) == 3.0 * slope
