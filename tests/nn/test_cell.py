import warnings

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.errors import ArgumentError
from gru_xp.nn import GRUInference, GRUParams, gradcheck, gru_cell_backward, gru_cell_forward, gru_forward, gru_step
from gru_xp.nn.params import arrays_of, named_arrays

SHAPES = [(1, 1, 1), (3, 1, 2), (1, 3, 4), (4, 2, 1), (2, 3, 5)]  # B, input size, H


@pytest.fixture
def host_call(rng, draw_params):
    """A right call, by argument: B = 2, I = 3, H = 5."""
    params = draw_params(np, 3, 5)
    arrays = dict(named_arrays(params, "params."))
    shapes = {"x": (2, 3), "h_prev": (2, 5), "dh": (2, 5)}
    return arrays | {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def forward(call, **options):
    params = GRUParams(*(call.get(f"params.{name}") for name in GRUParams._fields))
    return gru_cell_forward(call["x"], call["h_prev"], params, **options)


def forward_and_backward(call, **options):
    _, cache = forward(call, **options)
    return gru_cell_backward(call["dh"], cache)


def test_forward_against_the_equations(xp, draw, draw_params, reference_gru, reset):
    for B, n_in, H in SHAPES:
        x, h_prev, params = draw(xp, (B, n_in)), draw(xp, (B, H)), draw_params(xp, n_in, H)
        h, _ = gru_cell_forward(x, h_prev, params, reset=reset)
        expected = reference_gru(to_host(x)[:, None, :], to_host(h_prev), *map(to_host, arrays_of(params)))
        np.testing.assert_allclose(to_host(h), expected[:, 0, :], rtol=1e-12, atol=1e-14, err_msg=str((B, n_in, H)))


def test_gradients(xp, check_mode, draw, draw_params, reset):
    for B, n_in, H in SHAPES:
        report = gradcheck(
            lambda x, h_prev, params: gru_cell_forward(x, h_prev, params, reset=reset),
            gru_cell_backward,
            {"x": draw(xp, (B, n_in)), "h_prev": draw(xp, (B, H)), "params": draw_params(xp, n_in, H)},
            mode=check_mode,
        )
        names = ["x", "h_prev", "params.weight_ih", "params.weight_hh", "params.bias", "params.bias_hn"]
        assert [row.name for row in report.rows] == names[: 5 + (reset == "after")]
        assert report.ok, ((B, n_in, H), report)


@pytest.mark.compat
def test_gradients_against_the_complex_step(rng, draw_params, reference_gru, complex_step_gradients, reset):
    x, h_prev, dh, params = (
        rng.normal(size=(3, 2)),
        rng.normal(size=(3, 4)),
        rng.normal(size=(3, 4)),
        draw_params(np, 2, 4),
    )

    def scalar(x, h_prev, *params):
        return np.sum(dh * reference_gru(x[:, None, :], h_prev, *params)[:, 0, :])

    _, cache = gru_cell_forward(x, h_prev, params, reset=reset)
    dx, dh_prev, dparams = gru_cell_backward(dh, cache)
    expected = complex_step_gradients(scalar, [x, h_prev, *arrays_of(params)])
    for actual, desired in zip((dx, dh_prev, *arrays_of(dparams)), expected, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-10, atol=1e-13)


def test_the_form_is_that_of_the_weights(draw, draw_params, reset):
    x, h_prev, params = draw(np, (2, 3)), draw(np, (2, 4)), draw_params(np, 3, 4)
    assert params.reset == reset
    h, cache = gru_cell_forward(x, h_prev, params)
    assert h.tolist() == gru_cell_forward(x, h_prev, params, reset=reset)[0].tolist()
    _, _, dparams = gru_cell_backward(draw(np, (2, 4)), cache)
    assert dparams.reset == reset
    other = params._replace(bias_hn=np.zeros(4) if reset == "before" else None)
    assert np.all(gru_cell_forward(x, h_prev, other)[0] != h)


def test_another_form_than_that_of_the_weights(host_call, refuses, reset):
    other, bias_hn = ("after", "None") if reset == "before" else ("before", "an array")
    parts = (
        f"reset is '{other}'",
        f"must be '{reset}'",
        "params",
        f"bias_hn is {bias_hn}",
        "leave out reset",
        f"form '{other}'",
    )
    with refuses(*parts, error=ArgumentError):
        forward(host_call, reset=other)
    params = GRUParams(*(host_call.get(f"params.{name}") for name in GRUParams._fields))
    with refuses(*parts, error=ArgumentError):
        gru_step(host_call["x"], host_call["h_prev"], params, reset=other)


def test_namespace_dtype_and_shapes(xp, draw, draw_params, reset):
    for dtype in ("float32", "float64"):
        x, h_prev, params = draw(xp, (2, 3), dtype), draw(xp, (2, 5), dtype), draw_params(xp, 3, 5, dtype)
        h, cache = gru_cell_forward(x, h_prev, params, reset=reset)
        dx, dh_prev, dparams = gru_cell_backward(draw(xp, (2, 5), dtype), cache)
        shapes = [(2, 5), (2, 3), (2, 5), (15, 3), (15, 5), (15,), (5,)]
        shapes = shapes[: 6 + (reset == "after")]
        for array, shape in zip((h, dx, dh_prev, *arrays_of(dparams)), shapes, strict=True):
            assert array_namespace(array) is array_namespace(x)
            assert array.dtype == getattr(xp, dtype)
            assert tuple(array.shape) == shape


def test_inputs_are_not_modified(xp, draw, draw_params, reset):
    x, h_prev, dh, params = draw(xp, (2, 3)), draw(xp, (2, 5)), draw(xp, (2, 5)), draw_params(xp, 3, 5)
    inputs = (x, h_prev, dh, *arrays_of(params))
    before = [to_host(array).tolist() for array in inputs]
    _, cache = gru_cell_forward(x, h_prev, params, reset=reset)
    gru_cell_backward(dh, cache)
    assert [to_host(array).tolist() for array in inputs] == before


def test_read_only_inputs(host_call, reset):
    h, cache = forward(host_call, reset=reset)
    gradients = gru_cell_backward(host_call["dh"], cache)
    for array in host_call.values():
        array.setflags(write=False)
    again, cache = forward(host_call, reset=reset)
    assert again.tolist() == h.tolist()
    assert gru_cell_backward(host_call["dh"], cache)[0].tolist() == gradients[0].tolist()


def test_backward_can_be_called_twice(host_call, reset):
    _, cache = forward(host_call, reset=reset)
    first, second = (gru_cell_backward(host_call["dh"], cache) for _ in range(2))
    for a, b in zip((*first[:2], *arrays_of(first[2])), (*second[:2], *arrays_of(second[2])), strict=True):
        assert a.tolist() == b.tolist()
        assert not np.shares_memory(a, b)


def test_large_inputs(xp, draw, draw_params, reset):
    for dtype in ("float32", "float64"):
        x, h_prev, params = 1e4 * draw(xp, (4, 3), dtype), 1e4 * draw(xp, (4, 5), dtype), draw_params(xp, 3, 5, dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            h, cache = gru_cell_forward(x, h_prev, params, reset=reset)
            dx, dh_prev, dparams = gru_cell_backward(draw(xp, (4, 5), dtype), cache)
        for array in (h, dx, dh_prev, *arrays_of(dparams)):
            assert np.all(np.isfinite(to_host(array))), dtype
        h, h_prev = to_host(h), to_host(h_prev)
        slack = 1e-6 * np.abs(h_prev)
        assert np.all(h <= np.maximum(h_prev, 1.0) + slack), dtype  # between the old state and the candidate
        assert np.all(h >= np.minimum(h_prev, -1.0) - slack), dtype


def test_wrong_shapes(host_call, refuses, reset):
    for name, shape, *expected in (
        ("x", (3,), "(B, I)"),
        ("x", (2, 1, 3), "(B, I)"),
        ("h_prev", (1, 5), "(2, 5)"),
        ("h_prev", (2, 1), "(2, 5)"),
        ("h_prev", (5,), "(2, 5)"),
        ("params.weight_ih", (15, 1), "(15, 3)", "x is 3"),
        ("params.weight_ih", (5, 3), "(15, 3)", "x is 3"),
        ("params.weight_hh", (5, 5), "(15, 5)"),
        ("params.weight_hh", (15,), "(3H, H)"),
        ("params.bias", (1,), "(15,)"),
        ("params.bias", (1, 15), "(15,)"),
        ("params.bias_hn", (1,), "(5,)"),
        ("params.bias_hn", (15,), "(5,)"),
        ("dh", (1, 5), "(2, 5)"),
        ("dh", (2, 1), "(2, 5)"),
        ("dh", (2, 1, 5), "(2, 5)"),
    ):
        with refuses(name, "shape", str(shape), *expected):
            forward_and_backward(host_call | {name: np.ones(shape)}, reset=reset)


@pytest.mark.parametrize("reset", ["after"])
def test_wrong_kinds(host_call, misfits, refuses, reset):
    for name, expected in (
        ("h_prev", "(2, 5)"),
        ("params.weight_ih", "(15, 3)"),
        ("params.weight_hh", "(3H, H)"),
        ("params.bias", "(15,)"),
        ("params.bias_hn", "(5,)"),
        ("dh", "(2, 5)"),
    ):
        for bad, parts in misfits(name, host_call[name], expected):
            with refuses(*parts):
                forward_and_backward(host_call | {name: bad})


def test_wrong_params_cache_and_reset(host_call, refuses):
    x, h_prev, dh = (host_call[name] for name in ("x", "h_prev", "dh"))
    with refuses("params", "NoneType", "a GRUParams"):
        gru_cell_forward(x, h_prev, None)
    for cache in (None, (x, h_prev)):
        with refuses("cache", type(cache).__name__, "the cache", "gru_cell_forward returned"):
            gru_cell_backward(dh, cache)
    with refuses("reset", "'never'", "'before', 'after'", error=ValueError):
        forward(host_call, reset="never")
    params = GRUParams(*(host_call.get(f"params.{name}") for name in GRUParams._fields))
    for function in (gru_cell_forward, gru_step):
        with refuses("ops", "str", "a Scan, such as PlainScan(xp), or None", error=ValueError):
            function(x, h_prev, params, ops="x")


# --- one step without gradients ---------------------------------------------------------------------------------


def test_steps_are_the_sequence(xp, draw, draw_params, reset):
    for B, n_in, H in SHAPES:
        x, h0, params = draw(xp, (B, 4, n_in)), draw(xp, (B, H)), draw_params(xp, n_in, H)
        h, _, _ = gru_forward(x, h0, params, reset=reset)
        state = h0
        for t in range(4):
            state = gru_step(x[:, t, :], state, params, reset=reset)
            np.testing.assert_allclose(to_host(state), to_host(h[:, t, :]), rtol=1e-12, atol=1e-14)


def test_a_step_of_the_cell(xp, draw, draw_params, reset):
    for dtype in ("float32", "float64"):
        x, h, params = draw(xp, (2, 3), dtype), draw(xp, (2, 5), dtype), draw_params(xp, 3, 5, dtype)
        result = gru_step(x, h, params, reset=reset)
        expected, _ = gru_cell_forward(x, h, params, reset=reset)
        assert array_namespace(result) is array_namespace(x)
        assert result.dtype == getattr(xp, dtype)
        assert to_host(result).tolist() == to_host(expected).tolist()


def test_a_step_is_the_same_in_inference(draw, draw_params, reset):
    x, h, params = draw(np, (2, 3)), draw(np, (2, 5)), draw_params(np, 3, 5)
    prepared = GRUInference(params, reset=reset).step(x, h)
    np.testing.assert_allclose(gru_step(x, h, params, reset=reset), prepared, rtol=1e-13, atol=1e-15)


def test_a_step_leaves_its_inputs_and_results_alone(draw, draw_params, reset):
    x, h, params = draw(np, (2, 3)), draw(np, (2, 5)), draw_params(np, 3, 5)
    for array in (x, h, *arrays_of(params)):
        array.setflags(write=False)
    first = gru_step(x, h, params, reset=reset)
    kept = first.copy()
    second = gru_step(x, first, params, reset=reset)
    assert not np.shares_memory(first, h)
    assert not np.shares_memory(first, second)
    assert first.tolist() == kept.tolist() != second.tolist()


def test_the_step_uses_the_ops_that_it_is_given(draw, draw_params, make_numpy_ops, guarded_ops, guard, reset):
    x, h, params = draw(np, (7, 3)), draw(np, (7, 4)), draw_params(np, 3, 4)
    expected = gru_step(x, h, params, reset=reset, ops=PLAIN_OPS)
    guarded = gru_step(guard(x), guard(h), guard(params), reset=reset, ops=guarded_ops)
    assert guarded.tolist() == expected.tolist()
    split = gru_step(x, h, params, reset=reset, ops=make_numpy_ops())
    np.testing.assert_allclose(split, expected, rtol=1e-13, atol=1e-15)


def test_steps_of_a_wrong_shape(draw, draw_params, refuses, reset):
    params, call = draw_params(np, 3, 5), {"x": draw(np, (2, 3)), "h": draw(np, (2, 5))}
    for name, shape, *parts in (
        ("x", (3,), "x", "(3,)", "(B, I)"),
        ("x", (2, 1, 3), "x", "(2, 1, 3)", "(B, I)"),
        ("x", (2, 4), "params.weight_ih", "(15, 3)", "(15, 4)", "x is 4"),
        ("h", (1, 5), "h", "(1, 5)", "(2, 5)"),
        ("h", (2, 4), "h", "(2, 4)", "(2, 5)"),
        ("h", (5,), "h", "(5,)", "(2, 5)"),
    ):
        with refuses(*parts):
            gru_step(**call | {name: np.ones(shape)}, params=params, reset=reset)


def test_a_step_of_wrong_kinds(draw, draw_params, refuses):
    x, h, params = draw(np, (2, 3)), draw(np, (2, 5)), draw_params(np, 3, 5)
    with refuses("h", "dtype", "float32", "x, float64"):
        gru_step(x, h.astype(np.float32), params)
    for wrong in (tuple(params), ((params,),)):
        with refuses("params", "tuple", "a GRUParams"):
            gru_step(x, h, wrong)
    with refuses("reset", "'never'", "'before', 'after'", error=ValueError):
        gru_step(x, h, params, reset="never")
