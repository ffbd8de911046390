import warnings

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.errors import ArgumentError
from gru_xp.nn import (
    LayerNormParams,
    gradcheck,
    init_layer_norm_params,
    layer_norm_backward,
    layer_norm_forward,
)
from gru_xp.nn.scan import PlainScan


@pytest.fixture
def draw_case(draw):
    """``draw_case(xp, shape, dtype="float64")``: x, dy and parameters."""

    def draw_case(xp, shape, dtype="float64"):
        params = LayerNormParams(draw(xp, shape[-1:], dtype), draw(xp, shape[-1:], dtype))
        return 2.0 * draw(xp, shape, dtype) + 1.5, draw(xp, shape, dtype), params

    return draw_case


def forward_and_backward(x, dy, params, **options):
    """The output and all gradients, flat."""
    y, cache = layer_norm_forward(x, params, **options)
    dx, dparams = layer_norm_backward(dy, cache)
    assert isinstance(dparams, LayerNormParams)
    return y, dx, *dparams


def test_forward_against_a_loop(xp, draw_case):
    for shape in ((4, 3), (2, 3, 5)):
        x, _, params = draw_case(xp, shape)
        y, _ = layer_norm_forward(x, params, epsilon=0.01)
        y, x, weight, bias = map(to_host, (y, x, *params))
        for where in np.ndindex(shape[:-1]):
            row = x[where]
            mean = sum(row) / len(row)
            variance = sum((number - mean) ** 2 for number in row) / len(row)
            expected = weight * (row - mean) / (variance + 0.01) ** 0.5 + bias
            np.testing.assert_allclose(y[where], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.compat
def test_gradients(xp, draw_case, check_mode):
    """With an epsilon that counts, too."""
    for shape in ((1, 3), (4, 3), (1, 6), (2, 3, 4), (1, 4, 3), (3, 1, 5)):
        for epsilon in (1e-5, 0.3):
            x, _, params = draw_case(xp, shape)
            report = gradcheck(
                lambda x, params, epsilon=epsilon: layer_norm_forward(x, params, epsilon=epsilon),
                layer_norm_backward,
                {"x": x, "params": params},
                mode=check_mode,
                step=1e-4,
                tolerance=1e-6,
            )
            assert [row.name for row in report.rows] == ["x", "params.weight", "params.bias"]
            assert report.ok, (shape, epsilon, report)


def by_torch(x, dy, params, epsilon=1e-5):
    torch = pytest.importorskip("torch")
    x, weight, bias = (torch.tensor(to_host(a), requires_grad=True) for a in (x, *params))
    y = torch.nn.functional.layer_norm(x, weight.shape, weight, bias, epsilon)
    y.backward(torch.tensor(to_host(dy)))
    return y.detach().numpy(), x.grad.numpy(), weight.grad.numpy(), bias.grad.numpy()


@pytest.mark.peer
def test_against_pytorch(xp, draw_case):
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        for shape in ((37, 11), (3, 5, 7)):
            case = draw_case(xp, shape, dtype)
            for epsilon in (1e-5, 0.1):
                expected = by_torch(*case, epsilon)
                for actual, desired in zip(forward_and_backward(*case, epsilon=epsilon), expected, strict=True):
                    np.testing.assert_allclose(to_host(actual), desired, rtol=tolerance, atol=tolerance)


def test_extreme_rows(xp):
    """Constant rows, large ones and small ones."""
    rows = [[1e4, -1e4, 1e4, -1e4], [1e4] * 4, [-1e4] * 4, [0.0] * 4, [1e4, 0.0, 0.0, 0.0], [1e-20, 0.0, 0.0, -1e-20]]
    signs = np.asarray([1.0, -1.0, 1.0, -1.0])
    for dtype in ("float32", "float64"):
        x = xp.asarray(rows, dtype=getattr(xp, dtype))
        params = init_layer_norm_params(4, xp=xp, dtype=getattr(xp, dtype))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            y, *gradients = map(to_host, forward_and_backward(x, xp.ones_like(x), params))
        expected = [signs, np.zeros(4), np.zeros(4), np.zeros(4), np.asarray([3.0, -1.0, -1.0, -1.0]) / 3**0.5]
        np.testing.assert_allclose(y[:5], expected, rtol=1e-6, atol=1e-6)
        assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_by_every_way_to_run_it(draw_case):
    """Whatever the order of the memory is; also captured, when it follows an input that changes."""
    for shape in ((7, 3), (4, 5, 3), (600, 4)):
        x, dy, params = draw_case(np, shape)
        captured = NumpyOps()
        again = captured.capture(
            lambda x=x, dy=dy, params=params, captured=captured: forward_and_backward(x, dy, params, ops=captured)
        )
        x += dy
        expected = forward_and_backward(x, dy, params, ops=PlainScan(np))
        other = x.transpose(1, 0, 2).copy().transpose(1, 0, 2) if x.ndim == 3 else np.asfortranarray(x)
        ways = again(), forward_and_backward(other, dy, params, ops=NumpyOps(2)), forward_and_backward(x, dy, params)
        for results in ways:
            for actual, desired in zip(results, expected, strict=True):
                np.testing.assert_allclose(actual, desired, rtol=1e-11, atol=1e-12)


def test_computed_by_the_ops_alone(draw_case, guarded_ops, guard):
    for shape in ((4, 3), (4, 5, 3)):
        case = draw_case(np, shape)
        expected = forward_and_backward(*case, ops=PlainScan(np))
        results = forward_and_backward(*map(guard, case), ops=guarded_ops)
        for actual, desired in zip(results, expected, strict=True):
            np.testing.assert_allclose(np.asarray(actual), desired, rtol=1e-12, atol=1e-13)


def test_namespace_dtype_and_shapes(xp, draw_case):
    for dtype in ("float32", "float64"):
        for shape in ((4, 3), (2, 5, 3)):
            x, dy, params = draw_case(xp, shape, dtype)
            results = forward_and_backward(x, dy, params)
            for array, expected in zip(results, (shape, shape, (3,), (3,)), strict=True):
                assert array_namespace(array) is array_namespace(x)
                assert array.dtype == getattr(xp, dtype)
                assert tuple(array.shape) == expected


def test_by_jax(jax, draw_case):
    """Differentiated, and traced."""
    x, dy, params = draw_case(jax.numpy, (2, 4, 3))
    y, *gradients = forward_and_backward(x, dy, params)
    again, pullback = jax.vjp(jax.jit(lambda x, params: layer_norm_forward(x, params)[0]), x, params)
    dx, dparams = pullback(dy)
    for actual, desired in zip((y, *gradients), (again, dx, *dparams), strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-11, atol=1e-13)


def test_initial_params(xp, refuses):
    for dtype in ("float32", "float64"):
        weight, bias = init_layer_norm_params(5, xp=xp, dtype=getattr(xp, dtype))
        assert (to_host(weight).tolist(), to_host(bias).tolist()) == ([1.0] * 5, [0.0] * 5)
        for array in (weight, bias):
            assert array.dtype == getattr(xp, dtype)
            assert array_namespace(array) is array_namespace(xp.ones(1))
    for size in (0, 2.5):
        with refuses("size", str(size), "at least 1", error=ArgumentError):
            init_layer_norm_params(size, xp=xp)
    with refuses("dtype", "float32 or float64"):
        init_layer_norm_params(2, xp=xp, dtype=xp.int32)
    with pytest.raises(ArgumentError, match="xp"):
        init_layer_norm_params(2, xp="numpy")


def test_refused_arguments(draw_case, misfits, refuses):
    x, dy, params = draw_case(np, (4, 3))
    for shape in ((3,), (4, 1, 3, 1)):
        with refuses("x", "shape", str(shape), "(N, H) or (B, T, H)"):
            layer_norm_forward(np.ones(shape), params)
    with refuses("params", "tuple", "a LayerNormParams"):
        layer_norm_forward(x, tuple(params))
    for name, array in params._asdict().items():
        for bad, parts in [
            (np.ones(2), (f"params.{name}", "shape", "(2,)", "(3,)")),
            *misfits(f"params.{name}", array, "(3,)"),
        ]:
            with refuses(*parts):
                layer_norm_forward(x, params._replace(**{name: bad}))
    for epsilon in (0.0, -1.0, np.inf, "1"):
        with refuses("epsilon", "above 0 and finite", error=ArgumentError):
            layer_norm_forward(x, params, epsilon=epsilon)
    with refuses("ops", "str", "a Scan, such as PlainScan(xp), or None", error=ValueError):
        layer_norm_forward(x, params, ops="x")
    _, cache = layer_norm_forward(x, params)
    for bad, parts in [(np.ones((1, 3)), ("dy", "shape", "(1, 3)", "(4, 3)")), *misfits("dy", dy, "(4, 3)")]:
        with refuses(*parts):
            layer_norm_backward(bad, cache)
    with refuses("dy", "shape", "(4, 2, 3)", "(2, 4, 3)"):
        layer_norm_backward(np.ones((4, 2, 3)), layer_norm_forward(np.ones((2, 4, 3)), params)[1])
    with refuses("cache", "tuple", "the cache", "layer_norm_forward returned"):
        layer_norm_backward(dy, (x, params))
