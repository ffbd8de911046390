import tracemalloc
from itertools import product

import numpy as np
import pytest

from gru_xp.devices.counting import CountingNumpyOps, CountingOps, counting_ops, shape_alone
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PLAIN_OPS


def test_an_array_that_is_a_shape_alone():
    tracemalloc.start()
    array = shape_alone((10**5, 10**5, 3), "float32")
    assert tracemalloc.get_traced_memory()[1] < 10_000
    tracemalloc.stop()
    assert (array.shape, array.dtype) == ((10**5, 10**5, 3), np.float32)
    assert np.shares_memory(array[5:7, :, 1], array)
    assert np.shares_memory(array.reshape(-1), array)


def test_ops_of_a_kind():
    assert isinstance(counting_ops(NumpyOps(2)), CountingNumpyOps)
    assert isinstance(counting_ops(PLAIN_OPS), CountingOps)


@pytest.mark.parametrize("like", [np.empty(0), np.empty(0, "float32")])
def test_the_most_that_is_taken_at_a_time(like):
    ops, size = CountingOps(PLAIN_OPS), like.itemsize
    first = ops.empty((100, 3), like)
    assert ops.nbytes == 300 * size
    part = first[5:]
    del first
    second = ops.empty((50,), like)
    assert ops.nbytes == 350 * size
    del part
    third = ops.empty((60,), like)
    assert ops.nbytes == 350 * size
    fourth = ops.empty((1000,), like)
    assert ops.nbytes == 1110 * size
    assert [a.shape for a in (second, third, fourth)] == [(50,), (60,), (1000,)]


@pytest.mark.parametrize("ops", [CountingOps(PLAIN_OPS), CountingNumpyOps(2)], ids=["plain", "NumPy"])
def test_nothing_is_computed(draw, ops):
    a, b, total = draw(np, (6, 4)), draw(np, (4, 3)), draw(np, (6, 3))
    before = total.copy()

    def compute():
        assert ops.matmul(a, b, total) is total
        assert ops.contract(b.T, a.T[:3].T[:3], total) is total
        ops.copy(1.0, total)
        ops.pointwise(lambda xp, x: (xp.tanh(x) + 1.0,), (total,), (total,))
        ops.norm(total, total[0, :1])

    ops.capture(compute)
    assert total.tolist() == before.tolist()


def test_steps_are_counted_without_being_run(draw):
    ops, a, times = CountingNumpyOps(1), draw(np, (6, 4)), []
    ops.capture(lambda: ops.loop(lambda t: (times.append(t), ops.copy(0.0, a)), range(5, 105)))
    hundred = ops.nbytes
    ops.capture(lambda: [ops.copy(0.0, a) for _ in range(100)])
    assert times == [5]
    assert ops.nbytes == 2 * hundred


def test_captured_functions_share_memory():
    """As NumpyOps has it: what one lets go of is for the next one, and for other functions; in whole cache lines."""
    ops, like = CountingNumpyOps(1), np.empty(0)
    (_, worker), *_ = ops.parts(3, 1, 1, 1)

    def part(*sizes):
        def part():
            worker.empty((max(sizes),), like)  # which the next ones take the place of
            held = [worker.empty((size,), like) for size in sizes]
            assert len(held) == len(sizes)

        return worker, part

    calls = []
    for sizes, expected in (((104, 32), 1088), ((50, 20), 1088), ((104, 40), 1088 + 320), ((1, 1, 1), 1408)):
        ops.capture(lambda sizes=sizes: ops.run([part(*sizes), part(*sizes)]) and None)
        calls.append(expected)
        assert ops.nbytes - len(calls) * _own_call(ops) == expected


def _own_call(ops):
    """What one captured function takes that does nothing."""
    before = ops.nbytes
    empty = CountingNumpyOps(1)
    worker = empty.parts(3, 1, 1, 1)[0][1]
    empty.capture(lambda: empty.run([(worker, lambda: None)]) and None)
    assert ops.nbytes == before
    return empty.nbytes


def test_parts_are_those_of_the_ops():
    for case in product((0, 1, 3), ((7, 5, 2, 4), (10_000, 30, 2, 32), (5, 10**6, 1, 100))):
        threads, sizes = case
        parts, counted = NumpyOps(threads).parts(*sizes), CountingNumpyOps(threads).parts(*sizes)
        assert [rows for rows, _ in counted] == [rows for rows, _ in parts], case
        assert len({id(ops) for _, ops in counted}) == len({id(ops) for _, ops in parts}), case


def test_results_of_parts_come_in_order():
    ops = CountingNumpyOps(3)
    workers = [worker for _, worker in ops.parts(90_000, 1, 1, 1)]
    results = []
    ops.capture(lambda: results.extend(ops.run([(worker, lambda i=i: i) for i, worker in enumerate(workers)])))
    assert results == list(range(len(workers)))
    assert len(workers) > 1
