import gc
import weakref

import numpy as np
import pytest

from gru_xp.devices import numpy_ops
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.nn import gru_backward, gru_forward
from gru_xp.nn.params import arrays_of
from gru_xp.nn.scan import PlainScan

PLAIN = PlainScan(np)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(numpy_ops, "MIN_STATE_NUMBERS", 8)


def programs_of(ops):
    return [p for worker in ops._workers for kind in worker._part_programs._kinds.values() for p in kind.programs]


def layer(draw, params, ops, B=5, T=3):
    """What a layer gives for random inputs, each time others; the results of the plain scan beside it."""
    x, h0, dh = (draw(np, shape) for shape in ((B, T, 2), (B, 4), (B, T, 4)))

    def run(ops):
        h, h_last, cache = gru_forward(x, h0, params, ops=ops)
        return [h, h_last, *cache.saved[0]], [h, h_last, *arrays_of(gru_backward(dh, cache))]

    return run(ops), run(PLAIN)[1]


def assert_close(actual, desired):
    for a, d in zip(actual, desired, strict=True):
        np.testing.assert_allclose(a, d, rtol=0, atol=1e-13)


@pytest.mark.parametrize("threads", [1, 2])
def test_results_that_are_held_are_not_overwritten(draw, draw_params, reset, threads, monkeypatch):
    """The plain results again and again, in two programs for each part while only the last results are held."""
    monkeypatch.setattr(numpy_ops, "MAX_STEPS", 0)
    ops, params = NumpyOps(threads), draw_params(np, 2, 4)
    for _ in range(6):
        (kept, found), expected = layer(draw, params, ops)
        assert_close(found, expected)
    assert 2 * threads <= len(programs_of(ops)) <= 4 * threads
    held = [layer(draw, params, ops) for _ in range(6)]
    for (_, found), expected in held:
        assert_close(found, expected)
    n_programs = len(programs_of(ops))
    assert n_programs > 4 * threads
    del held, kept, found
    (_, found), expected = layer(draw, params, ops)
    assert_close(found, expected)
    assert len(programs_of(ops)) == n_programs


def test_results_may_be_written_into(draw, draw_params, reset):
    ops, params = NumpyOps(2), draw_params(np, 2, 4)
    for _ in range(6):
        (kept, found), expected = layer(draw, params, ops)
        assert_close(found, expected)
        for result in kept:
            for _, array in getattr(result, "parts", [(None, result)]):
                array[...] = np.nan
    assert programs_of(ops)


def test_the_same_bits_with_and_without(draw, draw_params, reset):
    ops, params = NumpyOps(2), draw_params(np, 2, 4)
    x = draw(np, (5, 3, 2))
    found = []
    for _ in range(5):
        h, _, cache = gru_forward(x, None, params, ops=ops)
        found.append([h.tobytes(), *(a.tobytes() for a in arrays_of(gru_backward(h, cache)))])
    assert programs_of(ops)
    assert found[1:] == found[:-1]


def test_arrays_are_let_go(draw, draw_params, reset):
    ops, params = NumpyOps(2), draw_params(np, 2, 4)
    x = draw(np, (5, 3, 2))
    for _ in range(4):
        h, _, cache = gru_forward(x, None, params, ops=ops)
        gru_backward(h, cache)
    gone = [weakref.ref(a) for a in (x, params.weight_hh)]
    del x, h, cache, params
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_subclasses_of_arrays_have_no_program(draw, draw_params):
    ops, params = NumpyOps(2), draw_params(np, 2, 4)
    for _ in range(4):
        x = draw(np, (5, 3, 2))
        h, _, _ = gru_forward(np.ma.array(x), None, params, ops=ops)
        assert_close([h], gru_forward(x, None, params, ops=PLAIN)[:1])
    assert not programs_of(ops)


def test_programs_are_bounded(draw, draw_params):
    """Old kinds make room for new ones; a program that is too large is not kept."""
    ops, params = NumpyOps(2, max_kept=3 * 4 * 2**17), draw_params(np, 2, 4)
    for T in (3, 4, 5, 3, 60):
        for _ in range(4):
            (_, found), expected = layer(draw, params, ops, T=T)
            assert_close(found, expected)
        for worker in ops._workers:
            assert 0 < worker._part_programs.nbytes <= 2**17
