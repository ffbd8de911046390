import math
import random
from typing import Any, NamedTuple

import numpy as np
import pytest

from gru_xp.nn import gradcheck, gru_cell_backward, gru_cell_forward
from gru_xp.nn.checks import shown

MODES = pytest.mark.parametrize("mode", ["elements", "direction"])


def cube_forward(a):
    return a * a * a, a


def cube_backward(dy, a):
    return 3.0 * dy * a * a


def matmul_forward(a, b):
    return a @ b, (a, b)


def matmul_backward(dy, cache):
    a, b = cache
    return dy @ b.T, a.T @ dy


@MODES
def test_cubic_function(xp, draw, mode):
    report = gradcheck(cube_forward, cube_backward, {"a": draw(xp, (2, 3))}, mode=mode)
    assert report.ok, report
    assert report.error < 1e-9


@MODES
def test_transcendental_function_of_two_arrays(xp, draw, mode):
    def forward(a, b):
        y, w = xp.exp(a) * xp.sin(b), xp.sum(a * b)
        return y, w, (a, b)

    def backward(dy, dw, cache):
        a, b = cache
        return dy * xp.exp(a) * xp.sin(b) + dw * b, dy * xp.exp(a) * xp.cos(b) + dw * a

    report = gradcheck(forward, backward, {"a": draw(xp, (2, 3)), "b": draw(xp, (2, 3))}, mode=mode)
    assert [row.name for row in report.rows] == ["a", "b"]
    assert report.ok, report


def test_numbers_are_the_derivative():
    a = np.asarray([0.5, -2.0])
    seen = []

    def backward(dy, a):
        seen.append(dy)
        return cube_backward(dy, a)

    (row,) = gradcheck(cube_forward, backward, {"a": a}).rows
    (dy,) = seen
    where = row.where[0]
    assert row.backward == dy[where] * 3.0 * a[where] ** 2
    assert row.numeric == pytest.approx(row.backward, rel=1e-9)


@MODES
def test_scalar_input_and_output(mode):
    report = gradcheck(cube_forward, cube_backward, {"a": np.asarray(1.5)}, mode=mode)
    assert report.ok, report
    assert report.rows[0].where == (() if mode == "elements" else None)


def test_single_gradient_in_a_tuple(draw):
    assert gradcheck(cube_forward, lambda dy, a: (cube_backward(dy, a),), {"a": draw(np, (3,))}).ok


def test_named_tuples_may_be_nested(draw):
    class Pair(NamedTuple):
        first: Any
        second: Any

    def forward(pair):
        (a, b), c = pair
        return a * b + c * c, pair

    def right(dy, pair):
        (a, b), c = pair
        return Pair(Pair(dy * b, dy * a), 2.0 * dy * c)

    def wrong(dy, pair):
        (_, b), c = pair
        return Pair(Pair(dy * b, dy * b), 2.0 * dy * c)

    inputs = {"p": Pair(Pair(draw(np, (3,)), draw(np, (3,))), draw(np, (3,)))}
    report = gradcheck(forward, right, inputs)
    assert report.ok, report
    assert [row.name for row in report.rows] == ["p.first.first", "p.first.second", "p.second"]
    assert [row.error < 1e-7 for row in gradcheck(forward, wrong, inputs).rows] == [True, False, True]


@MODES
def test_plain_tuples_may_be_nested(draw, mode):
    """As the layers of a stack are."""

    def forward(x, layers):
        (a,), (b, c) = layers
        return a * b + c * c * x, (x, layers)

    def backward(dy, cache, factor=1.0):
        x, ((a,), (b, c)) = cache
        return dy * c * c, ((dy * b,), (factor * dy * a, 2.0 * dy * c * x))

    layers = ((draw(np, (3,)),), (draw(np, (3,)), draw(np, (3,))))
    inputs = {"x": draw(np, (3,)), "layers": layers}
    report = gradcheck(forward, backward, inputs, mode=mode)
    assert report.ok, report
    assert [row.name for row in report.rows] == ["x", "layers.0.0", "layers.1.0", "layers.1.1"]
    wrong = gradcheck(forward, lambda dy, cache: backward(dy, cache, -1.0), inputs, mode=mode)
    assert [row.error < 1e-7 for row in wrong.rows] == [True, True, False, True]


def test_gradients_of_tuples_that_are_built_otherwise(draw, refuses):
    def forward(layers):
        ((a,), (b,)) = layers
        return a * b, layers

    def flat(dy, layers):
        ((a,), (b,)) = layers
        return ((dy * b, dy * a),)

    inputs = {"layers": ((draw(np, (3,)),), (draw(np, (3,)),))}
    with refuses("backward", "layers.0, layers.1", "layers.0.0, layers.1.0"):
        gradcheck(forward, flat, inputs)


@pytest.mark.peer
@MODES
def test_arrays_that_nothing_can_be_written_into(jax, draw, mode):
    dask = pytest.importorskip("dask.array")
    a, b = draw(np, (2, 3)), draw(np, (3, 2))
    for asarray in (jax.numpy.asarray, dask.from_array):
        inputs = {"a": asarray(a), "b": asarray(b)}
        assert gradcheck(matmul_forward, matmul_backward, inputs, mode=mode).ok
        assert not gradcheck(matmul_forward, lambda dy, cache: (dy @ cache[1].T, cache[1]), inputs, mode=mode).ok


# --- what it must refuse ----------------------------------------------------------------------------------------


@MODES
def test_transposed_factor(draw, mode):
    inputs = {"a": draw(np, (3, 3)), "b": draw(np, (3, 3))}
    assert gradcheck(matmul_forward, matmul_backward, inputs, mode=mode).ok

    def transposed(dy, cache):
        a, b = cache
        return dy @ b, a.T @ dy

    report = gradcheck(matmul_forward, transposed, inputs, mode=mode)
    assert not report.ok
    assert [row.error <= report.tolerance for row in report.rows] == [False, True]
    assert report.error == report.rows[0].error > 0.01


@MODES
def test_missing_path(draw, draw_params, mode, reset):
    """The state's direct way past the gates, left out."""

    inputs = {"x": draw(np, (2, 3)), "h_prev": draw(np, (2, 4)), "params": draw_params(np, 3, 4)}
    x, h_prev, params = inputs.values()
    z = 1.0 / (1.0 + np.exp(-(np.concatenate([h_prev, x], axis=1) @ params.Wz.T + params.bz)))

    def forward(x, h_prev, params):
        return gru_cell_forward(x, h_prev, params, reset=reset)

    def backward(dh, cache):
        dx, dh_prev, dparams = gru_cell_backward(dh, cache)
        return dx, dh_prev - dh * (1.0 - z), dparams

    assert gradcheck(forward, gru_cell_backward, inputs, mode=mode).ok
    report = gradcheck(forward, backward, inputs, mode=mode)
    assert {row.name for row in report.rows if row.error > report.tolerance} == {"h_prev"}


@MODES
def test_gradients_that_are_no_numbers(draw, mode):
    for bad in (math.nan, math.inf, -math.inf):

        def backward(dy, a, bad=bad):
            gradient = cube_backward(dy, a)
            gradient[1, 2] = bad
            return gradient

        report = gradcheck(cube_forward, backward, {"a": draw(np, (2, 3))}, mode=mode)
        assert not report.ok, bad
        assert report.error == math.inf, bad


@MODES
def test_values_that_are_no_numbers(draw, mode):
    def forward(a):
        return a * math.nan, a

    report = gradcheck(forward, cube_backward, {"a": draw(np, (2, 3))}, mode=mode)
    assert not report.ok


@MODES
def test_wrong_factor(draw, mode):
    for factor in (-1.0, 0.0, 2.0, 1.0 + 1e-5):
        inputs = {"a": draw(np, (2, 3))}
        report = gradcheck(cube_forward, lambda dy, a, f=factor: f * cube_backward(dy, a), inputs, mode=mode)
        assert not report.ok, factor
        assert report.error == pytest.approx(abs(factor - 1.0) / max(1.0, abs(factor)), rel=1e-3), factor


def test_the_wrong_element_is_named(draw):
    def backward(dy, a):
        gradient = cube_backward(dy, a)
        gradient[1, 2] *= 1.0 + 1e-4
        return gradient

    (row,) = gradcheck(cube_forward, backward, {"a": draw(np, (3, 4))}).rows
    assert row.where == (1, 2)
    assert row.error == pytest.approx(1e-4, rel=1e-2)


# --- the call ---------------------------------------------------------------------------------------------------


def test_tolerance_decides(draw):
    def nearly(dy, a):
        return (1.0 + 1e-5) * cube_backward(dy, a)

    inputs = {"a": draw(np, (2, 3))}
    assert not gradcheck(cube_forward, nearly, inputs).ok
    assert gradcheck(cube_forward, nearly, inputs, tolerance=1e-4).ok


@MODES
def test_seed_decides_the_weights(draw, mode):
    inputs = {"a": draw(np, (2, 3))}
    first, same, other = (gradcheck(cube_forward, cube_backward, inputs, mode=mode, seed=s) for s in (1, 1, 2))
    assert first == same
    assert first.rows[0].backward != other.rows[0].backward


@pytest.mark.parametrize("seed", [None, 5])
def test_weights_are_normally_distributed_from_the_seed(draw, seed):
    """Output by output, from Python's generator; the seed is 0 if none is given."""
    seen = []

    def forward(a):
        return a * a, 3.0 * a[:, 0], a

    def backward(dy, dz, a):
        seen.extend((dy, dz))
        gradient = 2.0 * dy * a
        gradient[:, 0] += 3.0 * dz
        return gradient

    options = {} if seed is None else {"seed": seed}
    assert gradcheck(forward, backward, {"a": draw(np, (2, 3))}, **options).ok
    rng = random.Random(seed or 0)
    expected = [rng.gauss(0.0, 1.0) for _ in range(8)]
    assert [array.shape for array in seen] == [(2, 3), (2,)]
    assert np.concatenate([array.reshape(-1) for array in seen]).tolist() == expected


@MODES
def test_everything_stays_on_the_device(draw, mode):
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    inputs = {name: strict.asarray(draw(np, (3, 3)), device=device) for name in "ab"}
    report = gradcheck(matmul_forward, matmul_backward, inputs, mode=mode)
    assert report.ok, report


def test_inputs_are_not_modified(draw):
    a = draw(np, (2, 3))
    before = a.copy()
    a.setflags(write=False)
    gradcheck(cube_forward, cube_backward, {"a": a})
    assert a.tolist() == before.tolist()


def test_report_as_a_table(draw):
    good = gradcheck(matmul_forward, matmul_backward, {"a": draw(np, (2, 3)), "b": draw(np, (3, 2))})
    header, *rows, summary = str(good).splitlines()
    assert header.split() == ["input", "rel.", "error", "backward", "numeric", "where"]
    assert [row.split()[0] for row in rows] == ["a", "b"]
    assert float(rows[0].split()[2]) == pytest.approx(good.rows[0].backward, rel=1e-14)
    assert rows[0].endswith(f"  {good.rows[0].where}")
    assert summary.startswith("ok: largest ")
    bad = gradcheck(cube_forward, lambda dy, a: dy, {"a": draw(np, (2,))}, mode="direction")
    assert str(bad).splitlines()[1].endswith("  direction")
    assert str(bad).splitlines()[-1].startswith("WRONG: largest ")
    assert str(bad).endswith(", tolerance 1e-07")


def test_wrong_inputs(draw, refuses):
    with refuses("a", "dtype", "float32", "float64"):
        gradcheck(cube_forward, cube_backward, {"a": np.ones(2, np.float32)})
    with refuses("a", "list", "array or a named tuple of arrays"):
        gradcheck(cube_forward, cube_backward, {"a": [1.0, 2.0]})
    for inputs in ({}, [], None, (np.ones(2),), np.ones(2)):
        with refuses("inputs", shown(inputs), "mapping of names", "arrays or named tuples of arrays"):
            gradcheck(cube_forward, cube_backward, inputs)


def test_wrong_options(draw, refuses):
    inputs = {"a": draw(np, (2,))}
    with refuses("mode", "'all'", "'elements', 'direction'", error=ValueError):
        gradcheck(cube_forward, cube_backward, inputs, mode="all")
    for wrong in (None, "cube"):
        with refuses("forward", type(wrong).__name__, "a function", error=ValueError):
            gradcheck(wrong, cube_backward, inputs)
        with refuses("backward", type(wrong).__name__, "a function", error=ValueError):
            gradcheck(cube_forward, wrong, inputs)
    for name in ("step", "tolerance"):
        for value in (0.0, -1e-3, math.inf, "1e-3"):
            with refuses(name, repr(value), "above 0 and finite", error=ValueError):
                gradcheck(cube_forward, cube_backward, inputs, **{name: value})


def test_a_forward_that_returns_something_else(draw, refuses):
    for result in (
        lambda a: a,
        lambda a: (a,),
        lambda a: [a, None],
        lambda a: (1.0, None),
        lambda a: (a, a, 1.0, a),
    ):
        with refuses("forward", "tuple", "one or more arrays and a cache"):
            gradcheck(result, cube_backward, {"a": draw(np, (2,))})


def test_wrong_gradients(draw, refuses):
    with refuses("the gradient of a", "shape", "(3, 2)", "(2, 3)"):
        gradcheck(cube_forward, lambda dy, a: cube_backward(dy, a).T, {"a": draw(np, (2, 3))})
    inputs = {"a": draw(np, (2, 2)), "b": draw(np, (2, 2))}
    with refuses("backward", "1", "2", "each input"):
        gradcheck(matmul_forward, lambda dy, cache: (dy,), inputs)
    with refuses("backward", "list", "tuple", "each input"):
        gradcheck(matmul_forward, lambda dy, cache: list(matmul_backward(dy, cache)), inputs)
    for gradient, kind in ((None, "NoneType"), (2.0, "float"), ([1.0, 2.0], "list")):
        with refuses("the gradient of b", kind, "array"):
            gradcheck(matmul_forward, lambda dy, cache, gradient=gradient: (dy, gradient), inputs)
