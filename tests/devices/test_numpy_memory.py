import ctypes
import gc
import weakref
from itertools import product

import numpy as np
import pytest

from gru_xp.devices.numpy_memory import Arena, RecycledMemory, Scratch, detached
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.nn import gru_backward, gru_forward
from gru_xp.nn.network import init_network_params, network_backward, network_forward
from gru_xp.nn.params import arrays_of

FLOAT64 = np.dtype("float64")


@pytest.fixture
def memory(monkeypatch):
    """Recycled memory of which nothing has been handed out yet, and which takes the smallest arrays, too."""
    monkeypatch.setattr(RecycledMemory, "SMALLEST", 0)
    return RecycledMemory(limit=10**9)


@pytest.fixture
def made(monkeypatch):
    """The sizes of buffers that recycled memory had to make, in any thread."""
    sizes = []

    def keep(self, buffer, original=RecycledMemory._keep):
        sizes.append(buffer.size)
        original(self, buffer)

    monkeypatch.setattr(RecycledMemory, "_keep", keep)
    return sizes


@pytest.mark.parametrize("kind", [Arena, RecycledMemory, Scratch])
def test_memory_is_feature_major(kind):
    for case in product([(3,), (2, 3), (4, 2, 3), (200, 300), (1,)], map(np.dtype, ("float32", "float64"))):
        shape, dtype = case
        memory = RecycledMemory(limit=10**9) if kind is RecycledMemory else kind()
        array = memory.array(shape, dtype, 0) if kind is Scratch else memory.empty(shape, dtype)
        assert (array.shape, array.dtype) == case
        assert (np.swapaxes(array, -1, -2) if len(shape) > 1 else array).flags.c_contiguous, case
        assert array.flags.writeable, case
        array[...] = 7.0
        assert (array == 7.0).all(), case
        if kind is not RecycledMemory:
            assert array.ctypes.data % 64 == 0, case


# --- arenas and scratch -----------------------------------------------------------------------------------------


def test_an_arena_hands_out_the_same_memory_after_it_is_rewound():
    arena = Arena()
    first = [arena.empty(shape, FLOAT64) for shape in ((4, 3), (2, 5), (7,))]
    assert not any(np.shares_memory(a, b) for a in first for b in first if a is not b)
    nbytes = arena.nbytes
    arena.rewind()
    second = [arena.empty(shape, FLOAT64) for shape in ((4, 3), (5, 2), (3,))]
    assert {a.ctypes.data for a in first} == {a.ctypes.data for a in second}
    assert arena.nbytes == nbytes
    assert not np.shares_memory(arena.empty((2, 2), FLOAT64), np.concatenate([a.ravel() for a in second]))


def test_an_arena_leaves_arrays_alone_that_are_too_small_for_what_comes_later():
    arena = Arena()
    small = arena.empty((2, 3), FLOAT64)
    small[...] = 1.0
    arena.rewind()
    large = arena.empty((20, 30), FLOAT64)
    large[...] = 2.0
    assert (small == 1.0).all()
    arena.rewind()
    assert np.shares_memory(arena.empty((2, 3), FLOAT64), small)
    assert np.shares_memory(arena.empty((2, 30), FLOAT64), large)


def test_an_arena_keeps_what_somebody_needs():
    arena = Arena()
    first, second = arena.empty((4, 3), FLOAT64), arena.empty((40, 3), FLOAT64)
    call = detached(second)
    del first, second
    arena.rewind()
    assert arena.nbytes == 960
    del call
    arena.rewind()
    assert arena.nbytes == 0


def test_an_arena_cuts_free_memory_and_puts_it_together_again():
    arena = Arena()
    address = arena.empty((100,), FLOAT64).ctypes.data
    parts = [arena.empty((n,), FLOAT64) for n in (8, 33, 1)]
    assert [part.ctypes.data - address for part in parts] == [0, 64, 384]
    for number in (0, 2, 1):
        parts[number] = None
    assert arena.empty((104,), FLOAT64).ctypes.data == address
    assert arena.nbytes == 832


def test_memory_of_an_arena_that_somebody_refers_to_is_not_handed_out():
    for case, hold in HOLDERS.items():
        if case != "frombuffer":
            check_held(Arena(), case, hold)


def test_detached_arrays_keep_memory_but_not_from_others():
    arena = Arena()
    for view in (lambda a: a, lambda a: a[1:, ::2], lambda a: a.T[::-1], lambda a: a[2], lambda a: a[:0]):
        array = arena.empty((4, 6), FLOAT64)
        array[...] = np.arange(24.0).reshape(4, 6)
        call, address = detached(view(array)), array.ctypes.data
        assert call.tolist() == view(array).tolist()
        assert call.strides == view(array).strides
        assert not call.size or np.shares_memory(call, array)
        del array
        if call.size:
            other = arena.empty((4, 6), FLOAT64)
            assert other.ctypes.data == address
            other[...] = 7.0
            assert (call == 7.0).all()
        del call


def test_what_is_in_no_arena_stays_as_it_is():
    recycled = RecycledMemory(10**9).empty((3, 4), FLOAT64)
    for a in (np.ones(3), np.ones((3, 2))[1:], np.frombuffer(memoryview(b"12345678")), recycled[1:], 2.0, None, "a"):
        assert detached(a) is a


def test_loans_of_what_runs_side_by_side():
    """Memory from before stays taken until the end, and that from between serves again at once."""
    arena = Arena()
    before = arena.empty((8,), FLOAT64)
    address = before.ctypes.data
    with arena.side_by_side():
        del before
        between = arena.empty((8,), FLOAT64).ctypes.data
        assert between != address
        assert arena.empty((8,), FLOAT64).ctypes.data == between
    both = [arena.empty((8,), FLOAT64) for _ in range(2)]
    assert {array.ctypes.data for array in both} == {address, between}


def test_scratch_is_kept_by_shape_type_and_number():
    scratch = Scratch()
    keys = [((2, 3), FLOAT64, 0), ((2, 3), FLOAT64, 1), ((3, 2), FLOAT64, 0), ((2, 3), np.dtype("float32"), 0)]
    arrays = [scratch.array(*key) for key in keys]
    assert all(scratch.array(*key) is array for key, array in zip(keys, arrays, strict=True))
    assert not any(np.shares_memory(a, b) for a in arrays for b in arrays if a is not b)


def test_scratch_above_its_limit_makes_room_for_others():
    scratch = Scratch(limit=100)
    small, large = scratch.array((5,), FLOAT64, 0), scratch.array((20,), FLOAT64, 0)
    assert scratch.array((5,), FLOAT64, 0) is small
    assert scratch.array((20,), FLOAT64, 0) is large
    assert scratch.nbytes == 200
    scratch.array((6,), FLOAT64, 0)
    assert scratch.nbytes == 48
    assert scratch.array((5,), FLOAT64, 0) is not small


# --- recycled memory --------------------------------------------------------------------------------------------


def test_memory_that_nobody_refers_to_is_handed_out_again(memory, made):
    address = memory.empty((4, 5), FLOAT64).ctypes.data
    for shape in ((4, 5), (5, 4), (20,), (2, 5, 2)):
        assert memory.empty(shape, FLOAT64).ctypes.data == address
    assert memory.empty((4, 10), np.dtype("float32")).ctypes.data == address
    assert made == [160]
    memory.empty((4, 6), FLOAT64)
    assert made == [160, 192]


def test_small_arrays_are_left_to_numpy(made):
    memory = RecycledMemory(limit=10**9)
    side = int((RecycledMemory.SMALLEST // 8) ** 0.5)
    memory.empty((side - 1, side), FLOAT64)
    assert made == []
    memory.empty((side + 1, side + 1), FLOAT64)
    assert len(made) == 1


HOLDERS = {
    "the array": lambda a: a,
    "a part": lambda a: a[1:2],
    "a number": lambda a: a[:1, :1],
    "a part of a part": lambda a: a[1:][:, 2:][..., 0],
    "a transpose": lambda a: a.T[::2],
    "another shape": lambda a: a.T.reshape(-1),
    "other bits": lambda a: a.view(np.int64),
    "its base": lambda a: a.base,
    "among others": lambda a: {"results": [(a[:, 1],)]},
    "a broadcast": lambda a: np.broadcast_to(a, (3, 4, 5)),
    "a memoryview": lambda a: memoryview(a)[1:],
    "an iterator": lambda a: iter(a),
    "a flat iterator": lambda a: a.flat,
    "a function": lambda a: lambda: a.sum(),
    "a DLPack capsule": lambda a: a.__dlpack__(),
    "DLPack": lambda a: np.from_dlpack(a),
    "as ctypes": lambda a: a.T.ctypes.data_as(ctypes.c_void_p),
    "masked": lambda a: np.ma.masked_less(a, 0.0, copy=False),
    "frombuffer": lambda a: np.frombuffer(a.base),
}


def check_held(memory, case, hold):
    """Memory that an object refers to is not handed out, but it is once that object is gone."""
    array = memory.empty((4, 5), FLOAT64)
    array[...] = 3.0
    address, held = array.ctypes.data, hold(array)
    numbers = held.tolist() if hasattr(held, "tolist") else None
    del array
    others = [memory.empty((4, 5), FLOAT64) for _ in range(3)]
    for other in others:
        other[...] = 4.0
    assert address not in [other.ctypes.data for other in others], case
    assert numbers is None or held.tolist() == numbers, case
    del held
    if memory.empty((4, 5), FLOAT64).ctypes.data != address:
        gc.collect()
        assert memory.empty((4, 5), FLOAT64).ctypes.data == address, case


def test_memory_that_somebody_refers_to_is_not(monkeypatch):
    monkeypatch.setattr(RecycledMemory, "SMALLEST", 0)
    for case, hold in HOLDERS.items():
        check_held(RecycledMemory(limit=10**9), case, hold)


@pytest.mark.peer
def test_memory_that_a_tensor_refers_to_is_not(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(RecycledMemory, "SMALLEST", 0)
    for case, hold in {
        "from_numpy": torch.from_numpy,
        "from_dlpack": torch.from_dlpack,
        "part": lambda array: torch.from_numpy(array)[1:, 2],
    }.items():
        check_held(RecycledMemory(limit=10**9), case, hold)


def test_random_patterns_of_use(memory, made, rng):
    """What is held keeps its numbers, and no two arrays that are held share memory."""
    held, shapes = {}, [(3, 4), (4, 3), (2, 3, 2), (5, 5), (7,)]
    for trial in range(2000):
        if held and rng.random() < 0.5:
            del held[rng.choice(list(held))]
            continue
        array = memory.empty(shapes[rng.integers(len(shapes))], FLOAT64)
        array[...] = trial
        held[trial] = array if rng.random() < 0.5 else array[1:]
        assert all((other == number).all() for number, other in held.items())
        addresses = [other.base.ctypes.data for other in held.values()]
        assert len(set(addresses)) == len(addresses)
    assert len(made) < 200


def test_no_more_than_the_limit_is_kept(monkeypatch):
    monkeypatch.setattr(RecycledMemory, "SMALLEST", 0)
    memory, buffers = RecycledMemory(limit=1000), []

    def empty(n):
        array = memory.empty((n,), FLOAT64)
        buffers.append(weakref.ref(array.base))
        return array

    def alive():
        return sum(buffer().nbytes for buffer in buffers if buffer() is not None)

    in_use = empty(50)
    in_use[...] = 3.0
    empty(60)
    assert alive() == 880  # both are kept
    empty(70)
    assert alive() == 400 + 560  # the one in use, and the latest
    large = empty(200)
    assert alive() == 400 + 1600  # all that was unused is gone
    del large
    assert alive() == 400  # more than the limit is never kept
    assert (in_use == 3.0).all()
    address = in_use.ctypes.data
    del in_use
    assert memory.empty((50,), FLOAT64).ctypes.data == address


def test_the_limit_holds_for_any_pattern(monkeypatch, rng):
    """Unused buffers never take more than the limit, and buffers are used again to the end."""
    monkeypatch.setattr(RecycledMemory, "SMALLEST", 0)
    memory, held, alive, last_recycled = RecycledMemory(limit=3000), [], [], 0
    for trial in range(1000):
        array = memory.empty((int(rng.integers(1, 60)),), FLOAT64)
        if any(buffer() is array.base for buffer in alive):
            last_recycled = trial
        else:
            alive.append(weakref.ref(array.base))
        held.append(array)
        del array, held[: int(rng.integers(0, 3))]
        alive = [buffer for buffer in alive if buffer() is not None]
        unused = sum(buffer().nbytes for buffer in alive) - sum(array.nbytes for array in held)
        assert unused <= 3000
    assert last_recycled > 900


# --- results of the maths ---------------------------------------------------------------------------------------


def test_nothing_is_allocated_any_more(memory, made, make_numpy_ops, draw_layer):
    """From the fourth call on: the third one may make programs, and gives back what they replace."""
    for reset in ("before", "after"):
        ops, layer = make_numpy_ops(), draw_layer(7, 5, 2, 4)
        made.clear()
        counts = []
        for _ in range(20):
            layer(ops, reset)
            counts.append(len(made))
        assert counts[0] > 0, reset
        assert counts[3] == counts[-1], reset


def test_nothing_is_allocated_by_the_whole_network(memory, made, draw, reset):
    x, dy, params = draw(np, (9, 5, 2)), draw(np, (9, 3)), init_network_params(2, 5, 3, reset=reset, xp=np, seed=1)
    ops, counts = NumpyOps(), []
    for _ in range(4):
        _, cache = network_forward(x, params, reset=reset, ops=ops)
        network_backward(dy, cache)
        counts.append(len(made))
    assert counts[1] == counts[2] == counts[3]


def test_what_the_user_holds_is_never_overwritten(memory, make_numpy_ops, draw_layer, rng):
    """Results and caches, kept and dropped at random while calls of the same and of other shapes go on."""
    ops, layers = make_numpy_ops(), [draw_layer(5, 3, 2, 4), draw_layer(5, 3, 2, 4), draw_layer(2, 4, 1, 6)]
    held = []
    for _ in range(60):
        layer, reset = layers[rng.integers(3)], rng.choice(["before", "after"])
        h, h_last, cache = gru_forward(layer.x, layer.h0, layer.params_of(reset), ops=ops)
        results = [h, h_last]
        if rng.random() < 0.7:
            dx, dh0, dparams = gru_backward(layer.dh, cache, dh_last=layer.dh_last)
            results += [dx, dh0, *arrays_of(dparams)]
        for array in rng.permutation(len(results))[: rng.integers(len(results) + 1)]:
            part = results[array] if rng.random() < 0.5 else results[array][1:]
            held.append((part, part.copy(), None, None))
        if rng.random() < 0.4:
            gradients = gru_backward(layer.dh, cache)
            held.append((h, h.copy(), (layer, cache), [a.copy() for a in (*gradients[:2], *arrays_of(gradients[2]))]))
        del h, h_last, cache, results
        for _ in range(rng.integers(4)):
            if held:
                del held[rng.integers(len(held))]
        for array, copy, _, _ in held:
            np.testing.assert_array_equal(array, copy)
        for _, _, call, expected in held[:1]:
            if call is not None:
                dx, dh0, dparams = gru_backward(call[0].dh, call[1])
                for a, e in zip((dx, dh0, *arrays_of(dparams)), expected, strict=True):
                    np.testing.assert_array_equal(a, e)
    assert held


def test_caches_of_several_calls_stay_apart(memory, make_numpy_ops, draw_layer, assert_same_results):
    ops, layers = (
        make_numpy_ops(),
        [(draw_layer(5, 3, 2, 4), reset) for reset in ("before", "after", "before", "after")],
    )
    passes = [gru_forward(a.x, a.h0, a.params_of(reset), ops=ops) for a, reset in layers]
    for (a, reset), (h, h_last, cache) in reversed(list(zip(layers, passes, strict=True))):
        for _ in range(2):
            dx, dh0, dparams = gru_backward(a.dh, cache, dh_last=a.dh_last)
            assert_same_results((h, h_last, dx, dh0, *arrays_of(dparams)), a(PLAIN_OPS, reset))
