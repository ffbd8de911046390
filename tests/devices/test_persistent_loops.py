"""The kernels of loops that were seen before."""

import gc
import itertools
import logging
import weakref

import numpy as np
import pytest

from gru_xp.devices import persistent_loops
from gru_xp.devices.lowering import LoopCall, LoopSteps, Lowered
from gru_xp.devices.persistent_loops import PersistentLoops
from gru_xp.devices.persistent_tile import H100, feasible_tiles
from gru_xp.devices.primitives import PlainOps
from gru_xp.devices.step_plan import Copy, Kind, Product, Run
from gru_xp.nn import gru_backward, gru_forward
from gru_xp.nn.pointwise import add


class Recorder(Lowered, PlainOps):
    """Runs loops call by call and writes them down."""

    def __init__(self):
        self.loops = []

    def loop(self, step, times):
        self.loops.append((step, times))
        super().loop(step, times)


@pytest.fixture
def loops_of(rng, draw, draw_params):
    """``loops_of(B, T)``: the loops of a layer, forward and backward; arrays are new each time."""

    def loops_of(B=3, T=4, dtype="float32", order="C", masked=False, reverse=False):
        x, dh, mask = (np.asarray(draw(np, (B, T, n), dtype), order=order) for n in (2, 5, 5))
        scattered.append(np.empty(rng.integers(1, 10**4)))  # so that arrays come to lie in another order
        ops, options = Recorder(), {"update_mask": mask, "lengths": [T, *[1] * (B - 1)]} if masked else {}
        _, _, cache = gru_forward(x, None, draw_params(np, 2, 5, dtype), ops=ops, reverse=reverse, **options)
        gru_backward(dh, cache)
        return ops.loops

    scattered = []
    return loops_of


@pytest.fixture
def n_planned(monkeypatch):
    """``n_planned()``: how many loops were planned."""
    calls = []

    def compile_loop(*arguments, **options):
        calls.append(None)
        return original(*arguments, **options)

    original = persistent_loops.compile_loop
    monkeypatch.setattr(persistent_loops, "compile_loop", compile_loop)
    return lambda: len(calls)


def test_arguments_for_other_memory(loops_of, reset, n_planned):
    """They are those of a loop that is planned anew."""
    for masked, reverse, order in itertools.product((False, True), (False, True), "CF"):
        known, arguments = PersistentLoops(), []
        for number in range(3):
            loops = loops_of(masked=masked, reverse=reverse, order=order)
            before = n_planned()
            found = [known.find(*loop, H100) for loop in loops]
            assert n_planned() - before == (0 if number else 2)
            for program, loop in zip(found, loops, strict=True):
                assert program == PersistentLoops().find(*loop, H100)
            arguments.append([program.arguments for program in found])
        assert arguments[0] != arguments[1]


def test_what_is_planned_anew(loops_of, n_planned):
    """Other sizes, strides, directions and limits; but not twice."""
    known, kinds = PersistentLoops(), [{}, {"B": 4}, {"T": 5}, {"order": "F"}, {"reverse": True}, {"masked": True}]
    for number, kind in enumerate([*kinds, *kinds]):
        before = n_planned()
        for loop in loops_of(**kind):
            assert known.find(*loop, H100) is not None
        assert (n_planned() == before) == (number >= len(kinds))
    before = n_planned()
    known.find(*loops_of()[0], H100._replace(multiprocessors=100))
    assert n_planned() == before + 1


def test_memory_in_common(n_planned):
    """The same shapes and strides, with a result over an input or beside it, and with inputs that overlap."""
    memory, known = np.zeros(1000, np.float32), PersistentLoops()

    def steps(b_at, out_at):
        a, b, out = (memory[at : at + 48].reshape(4, 3, 4) for at in (0, b_at, out_at))
        w, product = memory[900:916].reshape(4, 4), memory[950:962].reshape(3, 4)
        calls = [
            LoopCall(Product(None), [(a, Kind.TIME), (w, Kind.STEP)], [(product, Kind.STEP)]),
            LoopCall(Run(add, (), (), ()), [(product, Kind.STEP), (b, Kind.TIME)], [(out, Kind.TIME)]),
        ]
        return LoopSteps(PlainOps(), calls, 0), range(4)

    # apart in two orders; over an input; a step later; inputs that are the same
    for places in ((100, 200), (500, 300), (100, 100), (100, 112), (0, 200), (0, 12), (300, 500), (400, 400)):
        loop = steps(*places)
        assert known.find(*loop, H100) == PersistentLoops().find(*loop, H100), places
    assert n_planned() == 8 + 5


def test_loops_that_have_no_kernel(loops_of, n_planned, caplog):
    """Copies and float64 are not looked at; a loop that does not fit is found unfit once."""
    known = PersistentLoops()
    for loop in loops_of(dtype="float64"):
        assert known.find(*loop, H100) is None
    a = np.zeros((4, 3, 4), np.float32)
    copies = [LoopCall(Copy(0.0, None), [(0.0, Kind.STEP)], [(a, Kind.TIME)])]
    assert known.find(LoopSteps(PlainOps(), copies, 0), range(4), H100) is None
    assert n_planned() == 0
    sums = [LoopCall(Run(add, (), (), ()), [(a, Kind.TIME), (a, Kind.TIME)], [(a, Kind.TIME)])]
    with caplog.at_level(logging.DEBUG, logger="gru_xp"):
        for _ in range(3):
            assert known.find(LoopSteps(PlainOps(), sums, 0), range(4), H100) is None
    assert n_planned() == 1
    assert caplog.text.count("there is no product") == 1


def test_what_is_kept(loops_of, monkeypatch, n_planned):
    """No arrays, and the loops that were asked for last."""
    monkeypatch.setattr(persistent_loops, "MAX_LOOPS", 2)
    known, loops = PersistentLoops(), loops_of()
    arrays = [weakref.ref(a) for steps, _ in loops for call in steps.calls for a, _ in call.writes]
    first, second = loops
    for loop in (first, second, first, loops_of(T=6)[0], first):
        known.find(*loop, H100)
    assert n_planned() == 3
    known.find(*second, H100)
    assert n_planned() == 4
    del loop, loops, first, second
    gc.collect()
    assert not any(a() is not None for a in arrays)


def test_a_tile_of_ones_own(loops_of):
    asked = []

    def third(loop, limits):
        asked.append((loop, limits))
        return feasible_tiles(loop, limits)[2]

    programs = [PersistentLoops(third).find(*loop, H100) for loop in loops_of(B=70)]
    for program, (loop, limits) in zip(programs, asked, strict=True):
        assert limits == H100
        assert (loop.n_rows, loop.width) == (70, 5)
        tiles = feasible_tiles(loop, limits)
        assert program.source.startswith("constexpr int G = {}, R = {}, U = {}, S = {},".format(*tiles[2]))
        assert program.grid == -(-70 // (tiles[2].groups * tiles[2].rows))
        assert len(set(tiles)) == len(tiles)
        assert all(tile.shared_bytes(loop.width, loop.products) <= H100.shared_bytes for tile in tiles)
