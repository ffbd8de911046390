import math
import warnings

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.nn import gelu_backward, gelu_forward, gradcheck
from gru_xp.nn.scan import PlainScan

SHAPES = ((1, 1), (4, 3), (1, 6), (5, 1), (2, 3, 4), (1, 4, 1), (3, 1, 2))


def test_forward_against_the_formula(xp, draw):
    for shape in SHAPES:
        x = 3.0 * draw(xp, shape)
        y = to_host(gelu_forward(x)[0])
        for where, number in np.ndenumerate(to_host(x)):
            number = float(number)
            expected = number / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (number + 0.044715 * number**3)))
            assert float(y[where]) == pytest.approx(expected, rel=1e-11, abs=1e-15), (shape, where)


@pytest.mark.compat
def test_gradients(xp, draw, check_mode):
    for shape in SHAPES:
        report = gradcheck(gelu_forward, gelu_backward, {"x": 2.0 * draw(xp, shape)}, mode=check_mode)
        assert report.ok, (shape, report)


def by_torch(x, dy):
    """In float64: in float32, the tanh of PyTorch cancels where x is negative."""
    torch = pytest.importorskip("torch")
    x, dy = (torch.tensor(to_host(a).astype(np.float64)) for a in (x, dy))
    x.requires_grad_()
    y = torch.nn.functional.gelu(x, approximate="tanh")
    y.backward(dy)
    return y.detach().numpy(), x.grad.numpy()


@pytest.mark.peer
def test_against_pytorch(xp, draw):
    for dtype, tolerance in (("float64", 1e-12), ("float32", 2e-6)):
        for shape in ((37, 11), (3, 5, 7)):
            x, dy = (3.0 * draw(xp, shape, dtype) for _ in range(2))
            y, cache = gelu_forward(x)
            for actual, expected in zip((y, gelu_backward(dy, cache)), by_torch(x, dy), strict=True):
                np.testing.assert_allclose(to_host(actual), expected, rtol=tolerance, atol=tolerance)


def test_extreme_numbers(xp):
    """Far from 0, the output is x or 0, and nothing overflows."""
    numbers = [1e4, -1e4, 50.0, -50.0, 9.5, -9.5, -9.6, 1e-30, 0.0]
    for dtype in ("float32", "float64"):
        x = xp.asarray([numbers], dtype=getattr(xp, dtype))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            y, cache = gelu_forward(x)
            dx = gelu_backward(xp.ones_like(x), cache)
        expected = [[1e4, 0.0, 50.0, 0.0, 9.5, 0.0, 0.0, 0.5e-30, 0.0]]
        np.testing.assert_allclose(to_host(y), expected, rtol=1e-6, atol=1e-28)
        np.testing.assert_allclose(to_host(dx), [[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.5, 0.5]], atol=1e-20)


def test_by_every_way_to_run_it(draw):
    """Whatever the order of the memory is; also captured, when it follows an input that changes."""
    for shape in ((7, 3), (4, 5, 3)):
        x, dy = draw(np, shape), draw(np, shape)
        captured = NumpyOps()

        def both(x, dy, ops):
            y, cache = gelu_forward(x, ops=ops)
            return y, gelu_backward(dy, cache)

        again = captured.capture(lambda x=x, dy=dy, captured=captured: both(x, dy, captured))
        x += 0.25
        expected = both(x, dy, PlainScan(np))
        time_first = x.transpose(1, 0, 2).copy().transpose(1, 0, 2) if x.ndim == 3 else np.asfortranarray(x)
        for results in (again(), both(time_first, dy, NumpyOps(2)), both(x, dy, None)):
            for actual, desired in zip(results, expected, strict=True):
                np.testing.assert_allclose(actual, desired, rtol=1e-13, atol=1e-16)


def test_computed_by_the_ops_alone(draw, guarded_ops, guard):
    for shape in ((4, 3), (4, 5, 3)):
        x, dy = draw(np, shape), draw(np, shape)
        y, cache = gelu_forward(guard(x), ops=guarded_ops)
        dx = gelu_backward(guard(dy), cache)
        expected, cache = gelu_forward(x, ops=PlainScan(np))
        np.testing.assert_allclose(np.asarray(y), expected, rtol=1e-13)
        np.testing.assert_allclose(np.asarray(dx), gelu_backward(dy, cache), rtol=1e-13)


def test_namespace_dtype_and_shapes(xp, draw):
    for dtype in ("float32", "float64"):
        for shape in ((4, 3), (2, 5, 3)):
            x = draw(xp, shape, dtype)
            y, cache = gelu_forward(x)
            for array in (y, gelu_backward(draw(xp, shape, dtype), cache)):
                assert array_namespace(array) is array_namespace(x)
                assert array.dtype == getattr(xp, dtype)
                assert tuple(array.shape) == shape


def test_by_jax(jax, draw):
    """Differentiated, and traced."""
    x, dy = draw(jax.numpy, (2, 4, 3)), draw(jax.numpy, (2, 4, 3))
    y, cache = gelu_forward(x)
    again, pullback = jax.vjp(jax.jit(lambda x: gelu_forward(x)[0]), x)
    np.testing.assert_allclose(y, again, rtol=1e-13)
    np.testing.assert_allclose(gelu_backward(dy, cache), pullback(dy)[0], rtol=1e-12, atol=1e-15)


def test_refused_arguments(draw, misfits, refuses):
    x, dy = draw(np, (4, 3)), draw(np, (4, 3))
    for shape in ((3,), (4, 1, 3, 1)):
        with refuses("x", "shape", str(shape), "(N, H) or (B, T, H)"):
            gelu_forward(np.ones(shape))
    with refuses("x", "list", "(N, H)"):
        gelu_forward(x.tolist())
    with refuses("ops", "str", "a Scan, such as PlainScan(xp), or None", error=ValueError):
        gelu_forward(x, ops="x")
    _, cache = gelu_forward(x)
    for bad, parts in [(np.ones((4, 1)), ("dy", "shape", "(4, 1)", "(4, 3)")), *misfits("dy", dy, "(4, 3)")]:
        with refuses(*parts):
            gelu_backward(bad, cache)
    with refuses("dy", "shape", "(3, 4, 2)", "(4, 3, 2)"):
        gelu_backward(np.ones((3, 4, 2)), gelu_forward(np.ones((4, 3, 2)))[1])
    with refuses("cache", "tuple", "the cache", "gelu_forward returned"):
        gelu_backward(dy, (x,))
