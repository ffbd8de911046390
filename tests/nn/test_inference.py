import copy
import pickle
import threading

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.errors import ShapeError
from gru_xp.nn import gru_cell_forward, gru_forward
from gru_xp.nn.inference import GRUInference
from gru_xp.nn.params import arrays_of

OPS = pytest.mark.parametrize("make_ops", [lambda: None, NumpyOps, lambda: NumpyOps(0), lambda: PLAIN_OPS])
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])


def assert_close(actual, desired, tolerance=1e-12):
    np.testing.assert_allclose(to_host(actual), to_host(desired), rtol=0, atol=tolerance)


def by_gru_forward(x, h0, params, reset):
    return gru_forward(x, h0, params, reset=reset, ops=PLAIN_OPS, with_cache=False)[:2]


# --- whole sequences --------------------------------------------------------------------------------------------


def test_sequences_in_every_namespace(xp, draw, draw_params, reset):
    for B, T, n_in, H in ((1, 1, 1, 1), (1, 5, 2, 3), (3, 1, 3, 2), (4, 7, 1, 6)):
        params = draw_params(xp, n_in, H)
        layer = GRUInference(params, reset=reset)
        for with_h0 in (True, False, True):
            x, h0 = draw(xp, (B, T, n_in)), draw(xp, (B, H)) if with_h0 else None
            h, h_last = layer(x, h0)
            expected, expected_last = by_gru_forward(x, h0, params, reset)
            assert array_namespace(h) is array_namespace(x)
            assert (tuple(h.shape), tuple(h_last.shape)) == ((B, T, H), (B, H))
            assert h.dtype == h_last.dtype == x.dtype
            assert_close(h, expected)
            assert_close(h_last, expected_last)


@OPS
@DTYPES
def test_sequences_with_any_ops(draw, draw_params, reset, make_ops, dtype, tolerance):
    params = draw_params(np, 2, 5, dtype)
    layer = GRUInference(params, reset=reset, ops=make_ops())
    for B, T in ((3, 4), (1, 6), (3, 4), (5, 1)):
        x, h0 = draw(np, (B, T, 2), dtype), draw(np, (B, 5), dtype)
        for start in (h0, None):
            for actual, desired in zip(layer(x, start), by_gru_forward(x, start, params, reset), strict=True):
                assert actual.dtype == dtype
                assert_close(actual, desired, tolerance)


def test_sequences_in_several_parts(draw, draw_params, make_numpy_ops, reset):
    params = draw_params(np, 2, 3)
    layer = GRUInference(params, reset=reset, ops=make_numpy_ops())
    for B in (7, 2, 7):
        x, h0 = draw(np, (B, 4, 2)), draw(np, (B, 3))
        for start in (h0, None):
            for actual, desired in zip(layer(x, start), by_gru_forward(x, start, params, reset), strict=True):
                assert_close(actual, desired)


def test_results_are_the_users(draw, draw_params, reset):
    """Later calls leave them alone, and what is done to them has no effect on later calls."""
    params = draw_params(np, 2, 3)
    layer = GRUInference(params, reset=reset)
    held = []
    for B, T in ((3, 4), (3, 4), (2, 5), (3, 4)):
        x = draw(np, (B, T, 2))
        h, h_last = layer(x)
        assert_close(h, by_gru_forward(x, None, params, reset)[0])
        held.append((h, h.copy(), h_last, h_last.copy()))
        layer.step(x[:, 0])
    for h, h_before, h_last, last_before in held:
        assert h.tolist() == h_before.tolist()
        assert h_last.tolist() == last_before.tolist()
        h[...] = np.nan
    x = draw(np, (3, 4, 2))
    assert_close(layer(x)[0], by_gru_forward(x, None, params, reset)[0])


def test_states_do_not_go_from_one_sequence_to_the_next(draw, draw_params, reset):
    layer = GRUInference(draw_params(np, 2, 3), reset=reset)
    x, h0 = draw(np, (3, 4, 2)), draw(np, (3, 3))
    first = layer(x)[0].copy()
    layer(x, h0)
    layer.step(x[:, 0], h0)
    assert layer(x)[0].tolist() == first.tolist()


def test_parameters_are_copied(xp, draw, draw_params, reset):
    params = draw_params(xp, 2, 3)
    layer = GRUInference(params, reset=reset)
    x = draw(xp, (3, 4, 2))
    expected = by_gru_forward(x, None, params, reset)[0]
    step = to_host(gru_cell_forward(x[:, 0, :], x[:, 0, :1] * xp.zeros((1, 3)), params, reset=reset)[0])
    for array in arrays_of(params):
        array[...] = 100.0
    assert_close(layer(x)[0], expected)
    assert_close(layer.step(x[:, 0, :]), step)


def test_parameters_are_copied_for_several_parts(draw, draw_params, make_numpy_ops, reset):
    params = draw_params(np, 2, 4)
    layer = GRUInference(params, reset=reset, ops=make_numpy_ops())
    x = draw(np, (7, 5, 2))
    expected = by_gru_forward(x, None, params, reset)
    for array in arrays_of(params):
        array[...] = 100.0
    for actual, desired in zip(layer(x), expected, strict=True):
        assert_close(actual, desired)


def test_inputs_are_not_modified_and_may_be_read_only(draw, draw_params, reset):
    layer = GRUInference(draw_params(np, 2, 3), reset=reset)
    x, h0 = draw(np, (3, 4, 2)), draw(np, (3, 3))
    before = x.tolist(), h0.tolist()
    x.setflags(write=False)
    h0.setflags(write=False)
    layer(x, h0)
    layer.step(x[:, 0], h0)
    layer.step(x[:, 1])
    assert (x.tolist(), h0.tolist()) == before


# --- one step at a time -----------------------------------------------------------------------------------------


def test_steps_are_the_sequence(xp, draw, draw_params, reset):
    params = draw_params(xp, 2, 5)
    for B in (1, 3):
        x, h0 = draw(xp, (B, 6, 2)), draw(xp, (B, 5))
        for start in (None, h0):
            layer = GRUInference(params, reset=reset)
            expected = by_gru_forward(x, start, params, reset)[0]
            for t in range(6):
                h = layer.step(x[:, t, :], start if t == 0 else None)
                assert tuple(h.shape) == (B, 5)
                assert_close(h, expected[:, t, :])


@OPS
@DTYPES
def test_steps_with_any_ops(draw, draw_params, reset, make_ops, dtype, tolerance):
    params = draw_params(np, 2, 5, dtype)
    layer = GRUInference(params, reset=reset, ops=make_ops())
    x = draw(np, (3, 6, 2), dtype)
    expected = by_gru_forward(x, None, params, reset)[0]
    for t in range(6):
        h = layer.step(x[:, t])
        assert h.dtype == dtype
        assert_close(h, expected[:, t], tolerance)


def test_a_step_from_a_given_state(draw, draw_params, reset):
    params = draw_params(np, 2, 5)
    layer = GRUInference(params, reset=reset)
    for _ in range(4):
        x, h = draw(np, (3, 2)), draw(np, (3, 5))
        expected, _ = gru_cell_forward(x, h, params, reset=reset, ops=PLAIN_OPS)
        assert_close(layer.step(x, h), expected)
        following, _ = gru_cell_forward(x, expected, params, reset=reset, ops=PLAIN_OPS)
        assert_close(layer.step(x), following)


def test_a_step_from_its_own_result(draw, draw_params, reset):
    """Which is the memory that the layer writes into; also in another order of sequences."""
    params = draw_params(np, 2, 5)
    layer, x = GRUInference(params, reset=reset), draw(np, (3, 2))
    h = layer.step(x, draw(np, (3, 5)))
    for order in (slice(None), slice(None, None, -1), [2, 0, 1]):
        expected, _ = gru_cell_forward(x, h[order].copy(), params, reset=reset, ops=PLAIN_OPS)
        h = layer.step(x, h[order])
        assert_close(h, expected)


def test_another_number_of_sequences_starts_from_zeros(draw, draw_params, reset):
    params = draw_params(np, 2, 5)
    layer = GRUInference(params, reset=reset)
    for B in (3, 1, 4, 3):
        x = draw(np, (B, 2, 2))
        expected = by_gru_forward(x, None, params, reset)[0]
        for t in range(2):
            assert_close(layer.step(x[:, t]), expected[:, t])


def test_sequences_in_between_leave_the_steps_alone(draw, draw_params, reset):
    params = draw_params(np, 2, 5)
    layer, x = GRUInference(params, reset=reset), draw(np, (3, 6, 2))
    expected = by_gru_forward(x, None, params, reset)[0]
    for t in range(6):
        assert_close(layer.step(x[:, t]), expected[:, t])
        layer(draw(np, (3, t + 1, 2)), draw(np, (3, 5)))


def test_layers_are_independent(draw, draw_params, reset):
    params = [draw_params(np, 2, 5) for _ in range(2)]
    layers, x = [GRUInference(p, reset=reset) for p in params], draw(np, (3, 4, 2))
    expected = [by_gru_forward(x, None, p, reset)[0] for p in params]
    for t in range(4):
        for layer, desired in zip(layers, expected, strict=True):
            assert_close(layer.step(x[:, t]), desired[:, t])
            assert_close(layer(x)[0], desired)


# --- what it must refuse ----------------------------------------------------------------------------------------


@pytest.fixture
def layer(draw_params):
    """A layer of 2 inputs and 3 units that has been used."""
    layer = GRUInference(draw_params(np, 2, 3))
    layer(np.ones((4, 5, 2)))
    layer.step(np.ones((4, 2)))
    return layer


def test_wrong_sequences(layer, refuses):
    right = np.ones((4, 5, 2))
    for x, h0, *parts in (
        (np.ones((4, 2)), None, "x", "shape", "(4, 2)", "(B, T, 2)"),
        (np.ones((4, 5, 3)), None, "x", "shape", "(4, 5, 3)", "(B, T, 2)"),
        (np.ones((4, 0, 2)), None, "x", "shape", "(4, 0, 2)", "(B, T, 2)", "at least 1"),
        (right, np.ones((1, 3)), "h0", "shape", "(1, 3)", "(4, 3)"),
        (right, np.ones((4, 2)), "h0", "shape", "(4, 2)", "(4, 3)"),
        (right.astype(np.float32), None, "x", "dtype", "float32", "params, float64"),
        (right, np.ones((4, 3), np.float32), "h0", "dtype", "float32", "x, float64"),
        (np.ones((4, 5, 2), int), None, "x", "dtype", "int64", "float32 or float64"),
        ([[[1.0, 2.0]]], None, "x", "list", "(B, T, 2)"),
    ):
        with refuses(*parts):
            layer(x, h0)


def test_wrong_steps(layer, refuses):
    right = np.ones((4, 2))
    for x, h, *parts in (
        (np.ones(2), None, "x", "shape", "(2,)", "(B, 2)"),
        (np.ones((4, 1)), None, "x", "shape", "(4, 1)", "(B, 2)"),
        (np.ones((4, 5, 2)), None, "x", "shape", "(4, 5, 2)", "(B, 2)"),
        (np.ones((0, 2)), None, "x", "shape", "(0, 2)", "(B, 2)", "at least 1"),
        (right, np.ones(3), "h", "shape", "(3,)", "(4, 3)"),
        (right, np.ones((1, 3)), "h", "shape", "(1, 3)", "(4, 3)"),
        (np.ones((5, 2)), np.ones((4, 3)), "h", "shape", "(4, 3)", "(5, 3)"),
        (right.astype(np.float32), None, "x", "dtype", "float32", "params, float64"),
        (right, np.ones((4, 3), np.float32), "h", "dtype", "float32", "params, float64"),
        (np.ones((4, 2), int), None, "x", "dtype", "int64", "float32 or float64"),
        ([[1.0, 2.0]] * 4, None, "x", "list", "(B, 2)"),
        (right, [[1.0, 2.0, 3.0]] * 4, "h", "list", "(4, 3)"),
    ):
        with refuses(*parts):
            layer.step(x, h)


@pytest.mark.parametrize("library", ["array_api_strict", pytest.param("torch", marks=pytest.mark.peer)])
def test_arrays_of_another_namespace(layer, library, refuses):
    other = pytest.importorskip(library)
    for call, shape in ((layer, (4, 5, 2)), (layer.step, (4, 2))):
        with refuses("x", "namespace", library, "params, numpy"):
            call(other.ones(shape, dtype=other.float64))


def test_a_refused_step_leaves_the_state_alone(layer, draw):
    before = layer.step(draw(np, (4, 2))).copy()
    for x, h in ((np.ones((4, 3)), None), (np.ones((5, 2)), np.ones((4, 3))), (np.ones((4, 2)), np.ones((4, 2)))):
        with pytest.raises(ShapeError):
            layer.step(x, h)
    x = draw(np, (4, 2))
    continued = layer.step(x).copy()
    assert_close(continued, layer.step(x, before))


def test_wrong_parameters(draw_params, refuses):
    params = draw_params(np, 2, 3)
    with refuses("params.bias_hn", "shape", "(4,)", "(3,)"):
        GRUInference(params._replace(bias_hn=np.ones(4)))
    with refuses("params.weight_hh", "shape", "(9, 2)", "(6, 2)"):
        GRUInference(params._replace(weight_hh=np.ones((9, 2))))
    with refuses("params", "tuple", "a GRUParams"):
        GRUInference(tuple(params))
    with refuses("reset", "'never'", "'before', 'after'", error=ValueError):
        GRUInference(params, reset="never")
    with refuses("ops", "str", "a Scan, such as PlainScan(xp), or None", error=ValueError):
        GRUInference(params, ops="x")


def test_layers_of_one_thread_may_go_to_others(draw, draw_params, reset):
    """They share nothing that calls write into."""
    T, H = 12, 40
    layers, work = [], []
    for _ in range(3):
        params = draw_params(np, 2, H)
        x = draw(np, (20, T, 2))
        layers.append(GRUInference(params, reset=reset))
        work.append((x, *by_gru_forward(x, None, params, reset)))
    wrong = []

    def run(layer, x, h, h_last):
        for _ in range(60):
            found, found_last = layer(x)
            state = layer.step(x[:, 0, :], np.zeros((20, H)))
            for t in range(1, T):
                state = layer.step(x[:, t, :])
            for actual, desired in ((found, h), (found_last, h_last), (state, h_last)):
                if np.max(np.abs(actual - desired)) > 1e-12:
                    wrong.append(np.max(np.abs(actual - desired)))

    threads = [threading.Thread(target=run, args=(layer, *its)) for layer, its in zip(layers, work, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- copies, and functions that are traced ----------------------------------------------------------------------


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_go_on_by_themselves(draw, draw_params, again):
    layer, (first, second) = GRUInference(draw_params(np, 2, 3)), draw(np, (2, 4, 2))
    layer.step(first)
    other = again(layer)
    expected = layer.step(second)
    layer.step(first)
    assert_close(other.step(second), expected)


@pytest.mark.peer
def test_a_traced_function_leaves_the_layer_as_it_was(jax, draw, draw_params):
    layer, x = GRUInference(draw_params(jax.numpy, 2, 3, "float32")), draw(jax.numpy, (4, 5, 2), "float32")
    traced = jax.jit(lambda x: layer(x)[1])(x)
    assert_close(layer(x)[1], traced, 1e-6)
