"""Small calls and scans on NumPy, for which a program is kept, against the plain ones."""

import gc
import threading
import weakref

import array_api_compat.numpy as xp
import numpy as np
import pytest

from gru_xp.devices import numpy_bound
from gru_xp.devices.numpy_bound import BoundProgram, Input, inputs_like
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.nn import gru_cell_backward, gru_cell_forward, gru_step
from gru_xp.nn.cell import FORWARD_STEPS, joint_weights, state_after
from gru_xp.nn.inference import GRUInference
from gru_xp.nn.params import GRUParams, arrays_of, map_arrays
from gru_xp.nn.scan import PlainScan

PLAIN = PlainScan(xp)
TOLERANCES = {"float64": 1e-13, "float32": 1e-6}


@pytest.fixture(params=["before", "after"])
def reset(request):
    return request.param


def draw_arguments(shape, reset, rng, dtype="float64"):
    """x, h and params for a step of B sequences, I inputs and H units."""
    B, n_in, H = shape
    sizes = {"weight_ih": (3 * H, n_in), "weight_hh": (3 * H, H), "bias": (3 * H,), "bias_hn": (H,)}
    if reset == "before":
        sizes["bias_hn"] = None
    arrays = {n: None if s is None else rng.uniform(-1, 1, s).astype(dtype) for n, s in sizes.items()}
    return rng.uniform(-1, 1, (B, n_in)).astype(dtype), rng.uniform(-1, 1, (B, H)).astype(dtype), GRUParams(**arrays)


def programs_of(ops):
    return [call.program for call in ops._small_calls._bound if call.program is not None]


def assert_close(actual, desired, tolerance=1e-13):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance)


# --- what is computed -------------------------------------------------------------------------------------------


def test_every_call_of_several_kinds_in_turn(reset):
    rng = np.random.default_rng(1)
    kinds = [((B, n_in, H), dtype) for B, n_in, H in ((1, 1, 5), (3, 2, 1), (1, 4, 7)) for dtype in TOLERANCES]
    for _ in range(4):
        for shape, dtype in kinds:
            x, h, params = draw_arguments(shape, reset, rng, dtype)
            found, cache = gru_cell_forward(x, h, params)
            expected, plain_cache = gru_cell_forward(x, h, params, ops=PLAIN_OPS)
            assert found.dtype == dtype
            for actual, desired in zip((found, *cache.saved), (expected, *plain_cache.saved), strict=True):
                assert_close(actual, desired, TOLERANCES[dtype])
            assert_close(gru_step(x, h, params), expected, TOLERANCES[dtype])
            dh = rng.uniform(-1, 1, h.shape).astype(dtype)
            back, plain = gru_cell_backward(dh, cache), gru_cell_backward(dh, plain_cache)
            for actual, desired in zip(
                (*back[:2], *arrays_of(back[2])), (*plain[:2], *arrays_of(plain[2])), strict=True
            ):
                assert_close(actual, desired, 10 * TOLERANCES[dtype])


def test_a_program_gives_the_same_bits(reset):
    """So that the first call of a kind, which has none, does not differ from those after it."""
    ops, rng = NumpyOps(), np.random.default_rng(2)
    for B in (1, 4):
        arguments = draw_arguments((B, 2, 9), reset, rng)
        results = [ops.call(state_after, *arguments)[0].tolist() for _ in range(4)]
        assert results == [results[0]] * 4
    assert len(programs_of(ops)) == 2


def test_inputs_of_any_memory_order(reset):
    ops, rng = NumpyOps(), np.random.default_rng(3)
    for number in range(6):
        x, h, params = draw_arguments((3, 2, 4), reset, rng)
        expected = PLAIN.call(state_after, x, h, params)[0]
        if number % 3 == 1:
            x, h, params = np.asfortranarray(x), np.asfortranarray(h), map_arrays(np.asfortranarray, params)
        elif number % 3 == 2:
            x, h = np.repeat(x, 2, 0)[::2], h[::-1][::-1]
            params = map_arrays(lambda a: np.stack([a, a], -1)[..., 0], params)
        for a in (x, h, *arrays_of(params)):
            a.setflags(write=False)
        assert_close(ops.call(state_after, x, h, params)[0], expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_scans(reset, reverse):
    ops, rng = NumpyOps(), np.random.default_rng(4)
    for T, B in ((1, 1), (6, 1), (6, 3), (1, 1), (6, 1), (6, 3), (6, 1)):
        _, h, params = draw_arguments((B, 2, 5), reset, rng)
        x, weights = rng.uniform(-1, 1, (T, B, 2)), PLAIN.call(joint_weights, params)
        for with_saved in (False, True):
            given = FORWARD_STEPS[True, with_saved], weights, h, (x, None)
            found, plain = (s.scan(*given, rows=(None,), reverse=reverse) for s in (ops, PLAIN))
            assert_close(found[0], plain[0])
            for actual, desired in zip(found[1], plain[1], strict=True):
                assert_close(actual, desired)
    assert programs_of(ops)


def test_results_of_any_form():
    """In the trees that the plain scan gives, without a carry as well."""

    def function(xp, a, b):
        return (a + b, None, (a * b,)), (), GRUParams(a - b, a, b, None), [2.0 * a]

    def step(xp, weights, carry, xs, rows):
        return None, (xs[0] @ weights,), ((xs[0], xs[1]), (xs[1], xs[1]))

    ops, rng = NumpyOps(), np.random.default_rng(13)
    for _ in range(4):
        a, b = rng.uniform(-1, 1, (2, 3, 4))
        for found, plain in (
            (s.call(function, a, b) for s in (ops, PLAIN)),
            (s.scan(step, np.ones((4, 2)), None, (a[None], b[None])) for s in (ops, PLAIN)),
        ):
            assert [type(part) for part in found] == [type(part) for part in plain]
            assert map_arrays(np.shape, found) == map_arrays(np.shape, plain)
            for actual, desired in zip(arrays_of(found), arrays_of(plain), strict=True):
                assert_close(actual, desired)
    assert len(programs_of(ops)) == 2


def test_captured_calls_follow_their_inputs(reset):
    """A program would do what it does once."""
    ops, rng = NumpyOps(), np.random.default_rng(5)
    x, h, params = draw_arguments((1, 2, 5), reset, rng)
    for _ in range(3):
        ops.call(state_after, x, h, params)
    replay = ops.capture(lambda: ops.call(state_after, x, h, params))
    x[...] = rng.uniform(-1, 1, x.shape)
    assert_close(replay()[0], PLAIN.call(state_after, x, h, params)[0])


# --- whose memory it is -----------------------------------------------------------------------------------------


def test_results_are_the_users(reset):
    rng = np.random.default_rng(6)
    held = []
    for _ in range(5):
        x, h, params = draw_arguments((1, 2, 5), reset, rng)
        h, cache = gru_cell_forward(x, gru_step(x, h, params), params)
        held += [(a, a.copy()) for a in (h, *cache.saved)]
    for a, before in held:
        assert a.tolist() == before.tolist()
        a[...] = np.nan
    x, h, params = draw_arguments((1, 2, 5), reset, rng)
    assert_close(gru_step(x, h, params), PLAIN.call(state_after, x, h, params)[0])


def test_arrays_are_let_go(reset):
    rng = np.random.default_rng(7)
    ops, gone = NumpyOps(), []
    for _ in range(4):
        x, h, params = draw_arguments((1, 2, 5), reset, rng)
        h_after = gru_step(x, h, params)
        saved = ops.call(state_after, x, h, params)
        _, ys, _ = ops.scan(FORWARD_STEPS[True, True], joint_weights(xp, params), h, (x[None], None), rows=(None,))
        gone += [weakref.ref(a) for a in (x, h, *arrays_of(params), h_after, *saved, *ys)]
    del x, h, params, h_after, saved, ys
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)
    assert programs_of(ops)


def test_weights_that_change_in_place_are_seen(reset):
    rng = np.random.default_rng(8)
    x, h, params = draw_arguments((1, 2, 5), reset, rng)
    for _ in range(5):
        for a in arrays_of(params):
            a *= 0.9
        assert_close(gru_step(x, h, params), PLAIN.call(state_after, x, h, params)[0])


def test_threads_have_programs_of_their_own(reset):
    rng = np.random.default_rng(9)
    work = [draw_arguments((1, 3, 40), reset, rng) for _ in range(4)]
    wrong = []

    def run(x, h, params):
        state = expected = h
        for _ in range(200):
            state = gru_step(x, state, params)
            expected = PLAIN.call(state_after, x, expected, params)[0]
        if np.max(np.abs(state - expected)) > 1e-12:
            wrong.append(state)

    threads = [threading.Thread(target=run, args=arguments) for arguments in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_programs_are_bounded(monkeypatch):
    monkeypatch.setattr(numpy_bound, "MAX_CALLS", 6)
    monkeypatch.setattr(numpy_bound, "MAX_PROGRAMS", 4)
    ops, rng = NumpyOps(), np.random.default_rng(10)
    for H in (*range(1, 10), *range(1, 10)):
        x, h, params = draw_arguments((1, 2, H), "before", rng)
        for _ in range(3):
            assert_close(ops.call(state_after, x, h, params)[0], PLAIN.call(state_after, x, h, params)[0])
        assert len(programs_of(ops)) <= 4
        assert len(ops._small_calls._calls) <= 6
    monkeypatch.setattr(numpy_bound, "MAX_BYTES", 0)
    calls = ops._small_calls
    x, h, params = draw_arguments((1, 3, 3), "before", rng)
    for _ in range(3):
        ops.call(state_after, x, h, params)
    assert len(programs_of(ops)) == 1
    assert calls._nbytes < 2**14


def test_large_calls_have_no_program():
    ops, rng = NumpyOps(), np.random.default_rng(11)
    x, h, params = draw_arguments((3000, 2, 20), "before", rng)
    for _ in range(3):
        assert_close(ops.call(state_after, x, h, params)[0], PLAIN.call(state_after, x, h, params)[0])
    assert not programs_of(ops)


def test_layers_drop_what_they_had():
    layer = GRUInference(draw_arguments((1, 2, 5), "before", np.random.default_rng(12))[2])
    x = np.ones((1, 6, 2))
    for _ in range(3):
        layer(x)
        layer.step(x[:, 0])
    gone = [weakref.ref(a) for a in (x, layer._params.bias, layer._weights.zr)]
    del layer, x
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


# --- programs ---------------------------------------------------------------------------------------------------


def test_views_of_inputs():
    array = np.arange(24.0).reshape(4, 6)
    (a,) = inputs_like([array])
    views = [
        (a[1:3].T, array[1:3].T),
        (a[:, None][2], array[:, None][2]),
        (a[None].swapaxes(0, 2), array[None].swapaxes(0, 2)),
    ]
    for view, expected in views:
        assert (view.shape, view.ndim, view.dtype) == (expected.shape, expected.ndim, expected.dtype)
        (found,) = BoundProgram([a], [], (view,))([array])
        assert np.shares_memory(found, array)
        assert found.tolist() == expected.tolist()
    assert a.T.T is a


def test_what_is_the_same_each_time_is_computed_once():
    calls = []

    def noted(a, b, out):  # a function of which nothing is known
        calls.append("noted")
        np.add(a, b, out)

    x = Input(np.ones(3), 0)
    constant, scaled, row, total, other = (np.full(3, float(n)) for n in range(5))
    program = [
        (np.copyto, (constant, 2.0)),
        (np.multiply, (constant, constant, scaled)),  # 4
        (np.copyto, (row[:1], x[:1])),
        (np.copyto, (row[1:], 7.0)),
        (np.add, (row, scaled, total)),
        (noted, (total, total, other)),
        (np.copyto, (total, 1.0)),  # which is written twice
    ]
    bound = BoundProgram([x], program, (other, total, row))
    assert len(bound._calls) + len(bound._last_calls) == 4
    for number in (1.0, 5.0):
        other_found, total_found, row_found = bound([np.full(3, number)])
        assert row_found.tolist() == [number, 7.0, 7.0]
        assert other_found.tolist() == [2 * (number + 4), 22.0, 22.0]
        assert total_found.tolist() == [1.0] * 3
    assert calls == ["noted"] * 2
