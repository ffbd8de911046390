import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

from gru_xp.devices import numpy_ops
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.devices.threads import default_threads, one_thread, run_side_by_side
from gru_xp.nn import gru_backward, gru_forward
from gru_xp.nn.params import arrays_of


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def two_blas_threads():
    """Outside, BLAS is free to use two threads, and no thread is the only one that may change that."""
    with threadpool_limits(2, user_api="blas"):
        for library in ThreadpoolController().select(user_api="blas").lib_controllers:
            if hasattr(library, "clear_controlling_thread"):  # threadpoolctl 3.7
                library.clear_controlling_thread(force=True)
        yield


@pytest.fixture
def split_small(monkeypatch):
    """Split even the smallest batches over threads."""
    monkeypatch.setattr(numpy_ops, "MIN_STATE_NUMBERS", 1)


# --- how many ---------------------------------------------------------------------------------------------------


def test_default_threads_of_the_environment(monkeypatch):
    for value, expected in {"1": 1, "3": 3, "64": 64}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert default_threads() == expected


def test_default_threads_are_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = default_threads()
    assert 1 <= cores <= os.cpu_count()
    for value in ("", "0", "-2", "many", "4,2", "1.5"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert default_threads() == cores, value


def test_default_threads_where_no_affinity_is_known(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert default_threads() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_threads() == 1


# --- side by side -----------------------------------------------------------------------------------------------


def test_results_are_in_the_order_of_the_tasks():
    workers = [object() for _ in range(3)]

    def task(i):
        time.sleep(0.002 * (7 - i))
        return i

    tasks = [(workers[i % 3], lambda i=i: task(i)) for i in range(7)]
    assert run_side_by_side(tasks) == list(range(7))


def test_tasks_of_one_worker_run_one_after_the_other():
    workers, running, seen = [object(), object()], set(), []

    def task(i):
        assert i % 2 not in running
        running.add(i % 2)
        time.sleep(0.002)
        running.remove(i % 2)
        seen.append((i, threading.get_ident()))

    run_side_by_side([(workers[i % 2], lambda i=i: task(i)) for i in range(8)])
    for worker in range(2):
        own = [i for i, _ in seen if i % 2 == worker]
        assert own == sorted(own)
    first = {ident for i, ident in seen if i % 2 == 0}
    assert first == {threading.get_ident()}  # the caller works, too
    assert first.isdisjoint(ident for i, ident in seen if i % 2 == 1)


def test_tasks_of_several_workers_run_at_the_same_time():
    barrier = threading.Barrier(4, timeout=10)
    assert sorted(run_side_by_side([(object(), barrier.wait) for _ in range(4)])) == [0, 1, 2, 3]


def test_an_error_of_any_task_comes_out():
    for failing in ([0], [1], [3], [1, 2], [0, 3]):
        check_failing_tasks(failing)


def check_failing_tasks(failing):
    done = []

    def task(i):
        if i in failing:
            raise ValueError(f"task {i} fails")
        time.sleep(0.01)
        done.append(i)

    workers = [object() for _ in range(4)]
    with pytest.raises(ValueError, match=f"task {failing[0]} fails"):
        run_side_by_side([(workers[i], lambda i=i: task(i)) for i in range(4)])
    assert sorted(done) == [i for i in range(4) if i not in failing]  # nothing goes on after the call
    assert run_side_by_side([(worker, lambda: 1) for worker in workers]) == [1, 1, 1, 1]


def test_warnings_are_left_out_in_all_threads_where_the_caller_leaves_them_out():
    large = np.full(3, 1e300)
    with np.errstate(over="ignore"):
        results = run_side_by_side([(object(), lambda: large * large) for _ in range(3)])
    assert all(np.isinf(result).all() for result in results)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        run_side_by_side([(object(), lambda: large * large) for _ in range(3)])


# --- threads of BLAS --------------------------------------------------------------------------------------------


def test_blas_runs_on_one_thread_inside_only():
    before = blas_threads()
    assert before
    inside = run_side_by_side([(object(), blas_threads) for _ in range(3)])
    assert all(counts == [1] * len(before) for counts in inside)
    assert blas_threads() == before


def test_blas_is_given_back_after_an_error():
    before = blas_threads()

    def fail():
        raise RuntimeError("no")

    for tasks in ([fail], [blas_threads, fail], [fail, fail]):
        with pytest.raises(RuntimeError, match="no"):
            run_side_by_side([(object(), task) for task in tasks])
        assert blas_threads() == before


def test_blas_runs_on_one_thread_in_any_thread_of_the_user():
    before, seen = blas_threads(), []

    def work():
        seen.extend(run_side_by_side([(object(), blas_threads), (object(), blas_threads)]))
        seen.append(blas_threads())

    run_side_by_side([(object(), blas_threads)])
    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)
    one = [1] * len(before)
    assert seen == [one, one, before] * 2
    assert blas_threads() == before


@pytest.mark.parametrize("first_out", ["first in", "last in"])
def test_blas_is_given_back_when_the_last_of_two_callers_is_done(first_out):
    before, one = blas_threads(), [1] * len(blas_threads())
    inside, go_on, out = ([threading.Event() for _ in range(2)] for _ in range(3))
    end = threading.Event()

    def task(i):
        inside[i].set()
        go_on[i].wait(10)

    def call(i):
        run_side_by_side([(object(), lambda: task(i))])
        out[i].set()
        end.wait(10)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(2)]
    order = [0, 1] if first_out == "first in" else [1, 0]
    for i in range(2):
        threads[i].start()
        assert inside[i].wait(10)
    seen = [blas_threads()]
    for i in order:
        go_on[i].set()
        assert out[i].wait(10)
        seen.append(blas_threads())
    end.set()
    for thread in threads:
        thread.join(10)
    assert seen == [one, one, before]


def test_blas_is_given_back_after_many_callers():
    before = blas_threads()

    def work():
        for _ in range(50):
            run_side_by_side([(object(), lambda: None), (object(), lambda: None)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert blas_threads() == before


def test_one_thread_does_the_work_of_several():
    before = blas_threads()
    with one_thread(3):
        assert default_threads() == 3
        idents = run_side_by_side([(object(), threading.get_ident) for _ in range(3)])
        assert blas_threads() == [1] * len(before)
    assert idents == [threading.get_ident()] * 3
    assert blas_threads() == before


# --- the maths on threads ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("split_small")
def test_the_same_split_gives_the_same_bits(draw_layer, reset):
    """Whatever the timing, and whichever ops of as many threads."""
    threads = 3
    layer = draw_layer(11, 6, 2, 9, "float32")
    ops = NumpyOps(threads)
    first = [array.tobytes() for array in layer(ops, reset)]
    for trial in range(20):
        ops = NumpyOps(threads) if trial % 5 == 4 else ops
        assert [array.tobytes() for array in layer(ops, reset)] == first
    for alone in (ops, NumpyOps(threads)):
        with one_thread(threads):
            assert [array.tobytes() for array in layer(alone, reset)] == first


@pytest.mark.usefixtures("split_small")
def test_forward_in_one_thread_and_backward_in_another(draw_layer, assert_same_results, reset, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    layer = draw_layer(7, 5, 2, 4)
    passes, results = [], []

    def forward():
        passes.append(gru_forward(layer.x, layer.h0, layer.params_of(reset)))

    def backward():
        h, h_last, cache = passes[0]
        dx, dh0, dparams = gru_backward(layer.dh, cache, dh_last=layer.dh_last)
        results.append((h, h_last, dx, dh0, *arrays_of(dparams)))

    for work in (forward, backward, backward):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(30)
    for actual in results:
        assert_same_results(actual, layer(PLAIN_OPS, reset))
    assert len(results) == 2


@pytest.mark.usefixtures("split_small")
def test_many_threads_of_the_user(draw_layer, assert_same_results, reset, monkeypatch):
    """All at once, each with several layers; what one computes is nobody else's."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr("gru_xp.devices.numpy_memory.RecycledMemory.SMALLEST", 0)
    layers = [draw_layer(*sizes) for sizes in ((5, 4, 2, 6), (5, 4, 2, 6), (2, 7, 1, 3), (9, 2, 3, 4))]
    expected = [layer(PLAIN_OPS, reset) for layer in layers]
    errors, start = [], threading.Barrier(6, timeout=10)

    def work(seed):
        rng, held = np.random.default_rng(seed), []
        try:
            start.wait()
            for _ in range(15):
                number = rng.integers(len(layers))
                held.append((number, layers[number](None, reset)))
                del held[: rng.integers(3)]
                for number, results in held:
                    assert_same_results(results, expected[number])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_computes():
    """It has none of its parent's threads."""
    code = """
import os, warnings
import numpy as np
from gru_xp.devices import numpy_ops
from gru_xp.nn import gru_backward, gru_forward, init_gru_params
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.nn.params import arrays_of
warnings.simplefilter("ignore")
numpy_ops.MIN_STATE_NUMBERS = 1
rng = np.random.default_rng(0)
x, dh, params = rng.standard_normal((8, 5, 2)), rng.standard_normal((8, 5, 4)), init_gru_params(2, 4, xp=np, seed=1)

def compute(ops=None):
    h, _, cache = gru_forward(x, None, params, ops=ops)
    dx, dh0, dparams = gru_backward(dh, cache)
    return np.concatenate([a.ravel() for a in (h, dx, dh0, *arrays_of(dparams))])

expected = compute(PLAIN_OPS)
assert np.allclose(compute(), expected)
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(0 if all(np.allclose(compute(), expected) for _ in range(5)) else 3)
    children.append(child)
    assert np.allclose(compute(), expected)
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("all right")
"""
    environment = os.environ | {"OMP_NUM_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == "all right\n", done.stderr
