import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.nn import LinearParams, gradcheck, linear_backward, linear_forward


@pytest.fixture
def host_call(rng):
    """A right call, by argument: N = 4, I = 3, O = 2."""
    shapes = {"x": (4, 3), "params.weight": (2, 3), "params.bias": (2,), "dy": (4, 2)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def forward(call):
    return linear_forward(call["x"], LinearParams(call["params.weight"], call["params.bias"]))


def forward_and_backward(call):
    _, cache = forward(call)
    return linear_backward(call["dy"], cache)


def test_forward_against_a_loop(xp, draw):
    x, weight, bias = draw(xp, (4, 3)), draw(xp, (2, 3)), draw(xp, (2,))
    y, _ = linear_forward(x, LinearParams(weight, bias))
    x, weight, bias = to_host(x), to_host(weight), to_host(bias)
    for n in range(4):
        for o in range(2):
            expected = sum(x[n, i] * weight[o, i] for i in range(3)) + bias[o]
            assert float(y[n, o]) == pytest.approx(expected, rel=1e-13)


@pytest.mark.compat
def test_gradients(xp, draw, check_mode):
    """Of rows and of every step of sequences."""
    for *rows, n_in, n_out in ((1, 1, 1), (4, 3, 2), (2, 1, 5), (1, 6, 1), (2, 3, 4, 2), (1, 4, 1, 3), (3, 1, 2, 1)):
        params = LinearParams(draw(xp, (n_out, n_in)), draw(xp, (n_out,)))
        inputs = {"x": draw(xp, (*rows, n_in)), "params": params}
        report = gradcheck(linear_forward, linear_backward, inputs, mode=check_mode)
        assert [row.name for row in report.rows] == ["x", "params.weight", "params.bias"]
        assert report.ok, (rows, n_in, n_out, report)


def test_every_step_is_a_row(xp, draw):
    """Also of an array whose memory has time first, as the states of a layer have."""
    x, dy = (xp.permute_dims(draw(xp, (5, 4, size)), (1, 0, 2)) for size in (3, 2))
    params = LinearParams(draw(xp, (2, 3)), draw(xp, (2,)))
    y, cache = linear_forward(x, params)
    dx, dparams = linear_backward(dy, cache)
    rows_y, rows_cache = linear_forward(xp.reshape(x, (20, 3)), params)
    rows_dx, rows_dparams = linear_backward(xp.reshape(dy, (20, 2)), rows_cache)
    for actual, desired in ((y, rows_y), (dx, rows_dx), *zip(dparams, rows_dparams, strict=True)):
        np.testing.assert_allclose(to_host(actual).reshape(desired.shape), to_host(desired), rtol=1e-13, atol=1e-13)
    assert (tuple(y.shape), tuple(dx.shape)) == ((4, 5, 2), (4, 5, 3))


def test_every_step_is_computed_by_the_ops_alone(draw, guarded_ops, guard):
    x, dy = guard(draw(np, (4, 5, 3))), guard(draw(np, (4, 5, 2)))
    params = guard(LinearParams(draw(np, (2, 3)), draw(np, (2,))))
    y, cache = linear_forward(x, params, ops=guarded_ops)
    _, dparams = linear_backward(dy, cache)
    x, dy, params = np.asarray(x), np.asarray(dy), [np.asarray(array) for array in params]
    np.testing.assert_allclose(np.asarray(y), x @ params[0].T + params[1], rtol=1e-13)
    np.testing.assert_allclose(np.asarray(dparams.weight), np.einsum("bto,bti->oi", dy, x), rtol=1e-12)
    np.testing.assert_allclose(np.asarray(dparams.bias), dy.sum(axis=(0, 1)), rtol=1e-12)


def test_namespace_dtype_and_shapes(xp, draw):
    for dtype in ("float32", "float64"):
        x = draw(xp, (4, 3), dtype)
        params = LinearParams(draw(xp, (2, 3), dtype), draw(xp, (2,), dtype))
        y, cache = linear_forward(x, params)
        dx, dparams = linear_backward(draw(xp, (4, 2), dtype), cache)
        for array, shape in ((y, (4, 2)), (dx, (4, 3)), (dparams.weight, (2, 3)), (dparams.bias, (2,))):
            assert array_namespace(array) is array_namespace(x)
            assert array.dtype == getattr(xp, dtype)
            assert tuple(array.shape) == shape


def test_read_only_inputs(host_call):
    for array in host_call.values():
        array.setflags(write=False)
    y, cache = forward(host_call)
    linear_backward(host_call["dy"], cache)
    np.testing.assert_allclose(y, host_call["x"] @ host_call["params.weight"].T + host_call["params.bias"])


def test_wrong_shapes(host_call, refuses):
    for name, shape, *expected in (
        ("x", (3,), "(N, I) or (B, T, I)"),
        ("x", (4, 1, 3, 1), "(N, I) or (B, T, I)"),
        ("x", (0, 3), "(N, I)", "at least 1"),
        ("x", (4, 0, 3), "(B, T, I)", "at least 1"),
        ("params.weight", (3, 2), "(O, 3)"),
        ("params.bias", (1,), "(2,)"),
        ("params.bias", (1, 2), "(2,)"),
        ("dy", (1, 2), "(4, 2)"),
        ("dy", (4,), "(4, 2)"),
    ):
        with refuses(name, "shape", str(shape), *expected):
            forward_and_backward(host_call | {name: np.ones(shape)})
    for shape in ((4, 2), (5, 4, 2), (4, 5, 3), (20, 2)):
        with refuses("dy", "shape", str(shape), "(4, 5, 2)"):
            forward_and_backward(host_call | {"x": np.ones((4, 5, 3)), "dy": np.ones(shape)})


def test_wrong_kinds(host_call, misfits, refuses):
    for name, expected in (("params.weight", "(O, 3)"), ("params.bias", "(2,)"), ("dy", "(4, 2)")):
        for bad, parts in misfits(name, host_call[name], expected):
            with refuses(*parts):
                forward_and_backward(host_call | {name: bad})
    with refuses("x", "list", "(N, I)"):
        forward(host_call | {"x": host_call["x"].tolist()})


def test_wrong_params_and_wrong_cache(host_call, refuses):
    x, weight, bias, dy = host_call.values()
    with refuses("params", "tuple", "LinearParams"):
        linear_forward(x, (weight, bias))
    with refuses("ops", "str", "a Scan, such as PlainScan(xp), or None", error=ValueError):
        linear_forward(x, LinearParams(weight, bias), ops="x")
    for cache in (None, (x, LinearParams(weight, bias))):
        with refuses("cache", type(cache).__name__, "the cache", "linear_forward returned"):
            linear_backward(dy, cache)
