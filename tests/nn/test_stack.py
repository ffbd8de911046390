import random

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.errors import ShapeError
from gru_xp.nn import LinearParams, gradcheck, init_linear_params, init_params
from gru_xp.nn.params import flatten, named_arrays
from gru_xp.nn.stack import StackParams, init_stack_params, stack_backward, stack_forward


@pytest.fixture
def draw_stack(draw, draw_params):
    def draw_stack(xp, n_in, H, n_out, dtype="float64"):
        return StackParams(
            draw_params(xp, n_in, H, dtype), LinearParams(draw(xp, (n_out, H), dtype), draw(xp, (n_out,), dtype))
        )

    return draw_stack


def test_prediction_against_a_loop(xp, draw, draw_stack, reference_gru, reset):
    x, params = draw(xp, (3, 4, 2)), draw_stack(xp, 2, 5, 3)
    y, _ = stack_forward(x, params, reset=reset)
    states = reference_gru(to_host(x), np.zeros((3, 5)), *map(to_host, params.gru), reset=reset)
    expected = [to_host(params.linear.weight) @ h + to_host(params.linear.bias) for h in states[:, -1]]
    np.testing.assert_allclose(to_host(y), expected, rtol=1e-12)


@pytest.mark.parametrize(("B", "T", "n_in", "H", "n_out"), [(1, 1, 1, 1, 1), (2, 3, 2, 3, 2), (3, 2, 1, 2, 1)])
def test_gradients(xp, check_mode, draw, draw_stack, reset, B, T, n_in, H, n_out):
    report = gradcheck(
        lambda x, params: stack_forward(x, params, reset=reset),
        stack_backward,
        {"x": draw(xp, (B, T, n_in)), "params": draw_stack(xp, n_in, H, n_out)},
        mode=check_mode,
    )
    assert [row.name for row in report.rows] == [
        "x",
        "params.gru.weight_ih",
        "params.gru.weight_hh",
        "params.gru.bias",
        "params.gru.bias_hn",
        "params.linear.weight",
        "params.linear.bias",
    ]
    assert report.ok, report


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_namespace_dtype_and_shapes(xp, draw, draw_stack, reset, dtype):
    x, params = draw(xp, (3, 4, 2), dtype), draw_stack(xp, 2, 5, 3, dtype)
    y, cache = stack_forward(x, params, reset=reset)
    dx, dparams = stack_backward(draw(xp, (3, 3), dtype), cache)
    results = {"y": y, "dx": dx, **dict(named_arrays(dparams))}
    shapes = {"y": (3, 3), "dx": (3, 4, 2), **{name: tuple(a.shape) for name, a in named_arrays(params)}}
    assert {name: tuple(array.shape) for name, array in results.items()} == shapes
    assert {array_namespace(array) for array in results.values()} == {array_namespace(x)}
    assert all(array.dtype == getattr(xp, dtype) for array in results.values())


def test_initial_values_are_drawn_layer_by_layer(xp):
    params = init_stack_params(2, 5, 3, xp=xp, seed=11, dtype=xp.float64)
    rng = random.Random(11)
    expected = StackParams(init_params(2, 5, xp=np, seed=rng), init_linear_params(5, 3, xp=np, seed=rng))
    assert to_host(flatten(params.gru)).tolist() == flatten(expected.gru).tolist()
    assert to_host(flatten(params.linear)).tolist() == flatten(expected.linear).tolist()


def test_initial_values_depend_on_the_seed():
    first, same, other = (flatten(init_stack_params(2, 5, 3, xp=np, seed=seed)) for seed in (1, 1, 2))
    assert first.tolist() == same.tolist()
    assert not np.any(first == other)


def test_wrong_shapes(draw, draw_stack):
    x, params = draw(np, (3, 4, 2)), draw_stack(np, 2, 5, 3)
    with pytest.raises(ShapeError, match=r"x has shape \(4, 2\); it must be \(B, T, I\)"):
        stack_forward(x[0], params)
    too_wide = params._replace(linear=LinearParams(draw(np, (3, 6)), draw(np, (3,))))
    with pytest.raises(ShapeError, match=r"params.weight has shape \(3, 6\); it must be \(O, 5\)"):
        stack_forward(x, too_wide)
    _, cache = stack_forward(x, params)
    with pytest.raises(ShapeError, match=r"dy has shape \(3, 1\); it must be \(3, 3\)"):
        stack_backward(draw(np, (3, 1)), cache)
