import gc
import logging
import sys
import threading
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from gru_xp.devices import cublas, cuda_graph, resolve_device, to_device, to_host
from gru_xp.devices.cuda_graph import GraphMemory, capture
from gru_xp.devices.cupy_ops import CupyOps
from gru_xp.errors import DeviceError, DeviceWarning


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("GRU_XP_NO_FALLBACK", raising=False)


class FakeMemory:
    """What a pool hands out, and places in it."""

    device_id = 0

    def __init__(self, nbytes, ptr=0, owner=None):
        self.nbytes, self.ptr, self.owner = nbytes, ptr, owner


class FakeStream:
    def __init__(self, cupy, name, non_blocking=True):
        assert non_blocking, "a stream that waits for the default one cannot be captured"
        self.cupy, self.name, self.captured = cupy, name, None

    def __enter__(self):
        self.cupy.stack.append(self)

    def __exit__(self, *_):
        assert self.cupy.stack.pop() is self

    def record(self, event):
        assert self.captured is None
        self.cupy.log.append(f"record {self.name}")
        return self

    def wait_event(self, event):
        self.cupy.log.append(f"{self.name} waits for {event.name}")

    def begin_capture(self):
        self.cupy.log.append("begin")
        self.cupy.fail("begin")
        self.captured = []

    def end_capture(self):
        self.cupy.log.append("end")
        captured, self.captured = self.captured, None
        assert captured is not None
        self.cupy.fail("end")
        return FakeGraph(self.cupy, captured)


class FakeGraph:
    def __init__(self, cupy, work):
        self.cupy, self.work = cupy, work

    def upload(self, stream):
        self.cupy.log.append(f"upload {stream.name}")

    def launch(self):
        self.cupy.log.append(f"launch {self.cupy.stream.name}")
        for work in self.work:
            work()


class FakeCupy(SimpleNamespace):
    """Streams, events and memory as CuPy has them; `do` stands for launching a kernel."""

    def __init__(self):
        self.log, self.problems, self.allocator = [], {}, None
        self.stack = [FakeStream(self, "caller")]
        runtime = SimpleNamespace(getDevice=lambda: 0)
        self.cuda = SimpleNamespace(
            runtime=runtime,
            get_current_stream=lambda: self.stream,
            Stream=lambda non_blocking: FakeStream(self, "own", non_blocking),
            Event=lambda disable_timing: "event",
            get_allocator=lambda: self.malloc if self.allocator is None else self.allocator,
            using_allocator=self.using_allocator,
            UnownedMemory=lambda ptr, nbytes, owner, device_id: FakeMemory(nbytes, ptr, owner),
            MemoryPointer=lambda memory, offset: memory,
        )
        self.buffers = []

    @property
    def stream(self):
        return self.stack[-1]

    @contextmanager
    def using_allocator(self, allocator):
        before, self.allocator = self.allocator, allocator
        try:
            yield
        finally:
            self.allocator = before

    def malloc(self, nbytes):
        buffer = FakeMemory(nbytes, 10_000 * len(self.buffers))
        self.buffers.append(weakref.ref(buffer))
        return buffer

    def alloc(self, nbytes=512):
        return self.cuda.get_allocator()(nbytes)

    def do(self, work):
        if self.stream.captured is None:
            work()
        else:
            self.fail("work")
            self.stream.captured.append(work)

    def fail(self, where):
        if where in self.problems:
            raise self.problems[where]


@pytest.fixture
def cupy(monkeypatch, checked_devices):
    cupy = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cuda_graph, "_THREAD", cuda_graph._Thread())
    return cupy


@pytest.fixture
def counter(cupy):
    """A function that counts what is done, and allocates memory."""
    counter = SimpleNamespace(calls=0, done=0)

    def function():
        counter.calls += 1
        _, result = cupy.alloc(), cupy.alloc()
        cupy.do(lambda: setattr(counter, "done", counter.done + 1))
        return result

    counter.function = function
    return counter


# --- capturing, without a GPU -----------------------------------------------------------------------------------


def test_the_work_is_done_once_and_then_by_launches(cupy, counter):
    replay = capture(counter.function)
    assert (counter.calls, counter.done) == (2, 1)
    first, second = replay(), replay()
    assert (counter.calls, counter.done) == (2, 3)
    assert first is second
    assert cupy.log == [
        *("record caller", "own waits for caller"),
        *("begin", "end", "upload own"),
        *("record own", "caller waits for own"),
        *("launch caller", "launch caller"),
    ]


def test_replays_run_on_the_stream_that_is_current_then(cupy, counter):
    replay = capture(counter.function)
    with FakeStream(cupy, "other"):
        replay()
        replay()
    assert cupy.log[-4:] == ["record caller", "other waits for caller", "launch other", "launch other"]


def test_something_comes_before_each_launch(cupy, counter):
    """Such as waiting for the stream that has the workspace."""
    replay = capture(counter.function, before=lambda: cupy.log.append("before"))
    cupy.log.clear()
    replay()
    replay()
    assert cupy.log == ["before", "launch caller"] * 2


def test_memory_that_is_let_go_of_serves_again(cupy):
    def function():
        places = [cupy.alloc(nbytes).ptr for nbytes in (1000, 100, 512)]
        first, second = cupy.alloc(512), cupy.alloc(300)
        return places, first.ptr, second

    places, first, second = capture(function)()
    assert places == [0, 0, 0]
    assert (first, second.ptr) == (0, 512)
    assert [buffer().nbytes for buffer in cupy.buffers] == [1024]
    assert cupy.alloc(0).nbytes == 0


def test_functions_share_memory_but_not_that_of_results(cupy):
    memory = cuda_graph.GraphMemory()

    def function():
        temporary, result = cupy.alloc(1024), cupy.alloc(2048)
        return temporary.ptr, result

    (first_place, first), (second_place, second) = (capture(function, memory)() for _ in range(2))
    assert first_place == second_place == 0
    assert first.ptr != second.ptr
    assert [buffer().nbytes for buffer in cupy.buffers] == [1024, 2048, 2048]


def test_memory_lives_as_long_as_graphs_and_results_and_no_longer(cupy, counter):
    kept, memory = FakeMemory(1), cuda_graph.GraphMemory()
    reference = weakref.ref(kept)
    replay = capture(counter.function, memory, keep=kept)
    del kept
    memory.forget()
    gc.collect()
    assert [buffer() is None for buffer in cupy.buffers] == [False, False]
    assert reference() is not None
    result = replay()
    del replay
    gc.collect()
    assert [buffer() is None for buffer in cupy.buffers] == [True, False]  # one is the result's
    assert reference() is None
    del result
    gc.collect()
    assert cupy.buffers[1]() is None
    assert cupy.allocator is None


def test_memory_comes_from_the_allocator_that_is_set(cupy, counter):
    asked = []
    with cupy.using_allocator(lambda nbytes: asked.append(nbytes) or FakeMemory(nbytes)):
        capture(counter.function)
    assert asked == [512, 512]
    assert not cupy.buffers


def test_the_stream_is_used_again(cupy, counter):
    made = []
    stream = cupy.cuda.Stream
    cupy.cuda.Stream = lambda non_blocking: made.append(stream(non_blocking)) or made[-1]
    capture(counter.function)
    capture(counter.function)
    assert len(made) == 1
    thread = threading.Thread(target=capture, args=(counter.function,))
    thread.start()
    thread.join()
    assert len(made) == 2


@pytest.mark.parametrize("where", ["begin", "work", "end"])
def test_where_it_cannot_be_captured(cupy, counter, where, monkeypatch):
    memory = GraphMemory()
    cupy.problems[where] = NotImplementedError("calling cuBLAS API during stream capture is\nunsupported")
    with pytest.warns(DeviceWarning, match=r"CUDA graph \(calling cuBLAS API during stream capture is\)") as record:
        replay = capture(counter.function, memory)
    assert len(record) == 1
    assert memory.has_warned
    assert replay is counter.function
    assert counter.done == 1
    assert cupy.log.count("begin") == 1
    assert cupy.log.count("end") == (where != "begin")
    assert cupy.log[-2:] == ["record own", "caller waits for own"]
    assert (cupy.stream.name, cupy.allocator) == ("caller", None)
    replay()
    assert counter.done == 2
    with monkeypatch.context() as patch:
        patch.setenv("GRU_XP_NO_FALLBACK", "1")
        with pytest.raises(DeviceError, match=r"^cuda:0 .*graph \(calling.*--no-fallback"):
            capture(counter.function, memory)
    assert capture(counter.function, memory) is counter.function  # it was said before
    counter.done = 2

    cupy.problems.clear()  # an error holds what its frames refer to
    gc.collect()
    assert all(buffer() is None for buffer in cupy.buffers)
    replay = capture(counter.function)
    assert replay is not counter.function
    replay()
    assert counter.done == 4


def test_an_old_cupy(cupy, counter, monkeypatch):
    monkeypatch.delattr(FakeStream, "begin_capture")
    with pytest.warns(DeviceWarning, match="begin_capture"):
        assert capture(counter.function) is counter.function
    assert counter.done == 1


def test_errors_of_the_function_are_raised(cupy):
    def fails():
        raise ValueError("wrong shapes")

    with pytest.raises(ValueError, match="wrong shapes"):
        capture(fails)
    assert "begin" not in cupy.log
    assert cupy.stream.name == "caller"
    assert not cuda_graph._THREAD.capturing


def test_an_interrupt_ends_the_capture(cupy, counter):
    cupy.problems["work"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        capture(counter.function)
    assert cupy.log.count("end") == 1
    assert (cupy.stream.name, cupy.allocator, cuda_graph._THREAD.capturing) == ("caller", None, False)


def test_a_capture_in_a_capture(cupy, counter):
    """The inner function becomes part of the outer graph, whether it was captured before or is so inside."""
    captured_before = capture(counter.function)
    cupy.log.clear()

    def outer():
        captured_before()
        return capture(counter.function)()

    replay = capture(outer)
    assert cupy.log.count("begin") == 1
    assert not [line for line in cupy.log if line.startswith("launch")]
    done = counter.done
    replay()
    assert counter.done == done + 3


# --- with a GPU -------------------------------------------------------------------------------------------------


@pytest.fixture
def cuda():
    with resolve_device("cuda", fallback=False).use():
        yield resolve_device("cuda", fallback=False)


def _descent(xp, w, dw, norm, rate):
    return (w - rate * dw / (1.0 + norm),)


def _error(xp, y, target):
    return (xp.tanh(y) - target,)


@pytest.fixture
def descent(cuda, draw):
    """Ops, a function that takes a step of gradient descent with products, kernels and a norm, and its data."""
    ops = CupyOps()
    numbers = {
        "x": draw(np, (3, 4, 5), "float32"),
        "target": draw(np, (3, 4, 2), "float32"),
        "w": draw(np, (2, 5), "float32"),
    }
    data = {name: to_device(array, cuda) for name, array in numbers.items()}

    def step():
        x, target, w = data["x"], data["target"], data["w"]
        error, dw, norm = (ops.empty(shape, like=x) for shape in [(3, 4, 2), (2, 5), (1,)])
        ops.matmul(x, w.T, out=error)
        ops.pointwise(_error, (error, target), out=(error,))
        ops.contract(error, x, out=dw)
        ops.norm(dw, out=norm)
        ops.pointwise(_descent, (w, dw, norm, 0.1), out=(w,))
        return w, norm

    def expected(numbers):
        x, target, w = (numbers[name].astype("float64") for name in ("x", "target", "w"))
        error = np.tanh(x @ w.T) - target
        dw = np.einsum("tbp,tbq->pq", error, x)
        norm = np.sqrt((dw * dw).sum())
        return w - 0.1 * dw / (1.0 + norm), norm

    return ops, step, data, numbers, expected


@pytest.mark.cuda
def test_cuda_graph_does_what_the_function_does(descent, draw, cuda, caplog):
    import cupy

    ops, step, data, numbers, expected = descent
    with caplog.at_level(logging.DEBUG, logger="gru_xp"):
        replay = ops.capture(step)
    assert replay is not step, caplog.messages
    numbers["w"], _ = expected(numbers)
    np.testing.assert_allclose(to_host(data["w"]), numbers["w"], rtol=1e-5, atol=1e-6)
    pool = cupy.get_default_memory_pool()
    used = pool.used_bytes(), pool.total_bytes()
    for _ in range(5):
        numbers["x"] = draw(np, (3, 4, 5), "float32")
        data["x"].set(numbers["x"])  # new data in the same place
        w, norm = replay()
        numbers["w"], expected_norm = expected(numbers)
        np.testing.assert_allclose(to_host(w), numbers["w"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(to_host(norm), [expected_norm], rtol=1e-5)
    assert (pool.used_bytes(), pool.total_bytes()) == used


@pytest.mark.cuda
def test_cuda_replays_wait_for_what_comes_before_them_and_are_waited_for(descent):
    """On a stream of the caller's, with work that takes long before and after; nothing is synchronised by hand."""
    import cupy

    ops, step, data, numbers, expected = descent
    replay = ops.capture(step)
    numbers["w"], _ = expected(numbers)
    x = data["x"].copy()
    for stream in (cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
        cupy.cuda.Device().synchronize()
        with stream:
            data["x"].fill(np.nan)
            long = cupy.ones((2048, 2048), "float32")
            for _ in range(20):
                long = long @ long / 2048
            data["x"][...] = x * long[0, 0]
            w, _ = replay()
            after = w + 0 * long[0, 0]
            numbers["w"], _ = expected(numbers)
            np.testing.assert_allclose(to_host(after), numbers["w"], rtol=1e-5, atol=1e-6)


@pytest.mark.cuda
def test_cuda_memory_is_not_handed_out_again(descent, cuda):
    import cupy

    ops, step, _, numbers, expected = descent
    replay = ops.capture(step)
    numbers["w"], _ = expected(numbers)
    gc.collect()
    others = [cupy.full((n,), np.nan, "float32") for n in (1, 8, 24, 64, 512) for _ in range(50)]
    w, norm = replay()
    numbers["w"], _ = expected(numbers)
    np.testing.assert_allclose(to_host(w), numbers["w"], rtol=1e-5, atol=1e-6)
    assert all(np.isnan(to_host(other)).all() for other in others)
    result = norm
    del replay, norm, w
    gc.collect()
    before = to_host(result).tolist()
    others += [cupy.zeros((n,), "float32") for n in (1, 8, 24, 64, 512) for _ in range(50)]
    assert to_host(result).tolist() == before


@pytest.mark.cuda
def test_cuda_an_operation_that_refuses(cuda):
    import cupy

    a = cupy.ones((2, 2))
    total = cupy.zeros(())

    def function():
        total[...] += float(a.sum())  # waits for the GPU
        return total

    with pytest.warns(DeviceWarning, match="CUDA graph") as record:
        replay = capture(function)
    assert replay is function
    assert len(record) == 1
    assert float(replay()) == 8.0
    ops = CupyOps()
    out = ops.empty((2, 2), like=a)
    assert ops.capture(lambda: ops.matmul(a, a, out=out))().tolist() == [[2.0, 2.0]] * 2


@pytest.mark.cuda
def test_cuda_graphs_keep_the_workspace_that_they_were_captured_with(cuda):
    """When products have got a smaller one, until they are gone."""
    import cupy

    pool, ops = cupy.get_default_memory_pool(), cuda.ops()
    a, b, out, other = (to_device(np.random.default_rng(n).standard_normal((5, 5)), cuda) for n in range(4))
    expected = to_host(a) @ to_host(b)
    cublas.choose_workspace(is_small=False)
    replay = ops.capture(lambda: ops.matmul(a, b, out))
    used = pool.used_bytes()
    cublas.choose_workspace(is_small=True)
    try:
        assert pool.used_bytes() == used
        for array, multiply in ((out, replay), (other, lambda: ops.matmul(a, b, other)), (out, replay)):
            array[...] = np.nan
            multiply()
            np.testing.assert_allclose(to_host(array), expected, rtol=1e-12)
        del replay, multiply
        gc.collect()
        assert pool.used_bytes() <= used - cublas.WORKSPACE_BYTES
    finally:
        cublas.choose_workspace(is_small=False)
    assert cublas.workspace_held() == cublas.WORKSPACE_BYTES


@pytest.mark.cuda
def test_cuda_graphs_of_products_take_turns_with_the_workspace(cuda):
    """On two streams: the handle follows, so that each waits for the other."""
    import cupy

    blas, ops = cublas.current(), cuda.ops()
    a, b, out = (to_device(np.random.default_rng(n).standard_normal((5, 5)), cuda) for n in range(3))
    replay = ops.capture(lambda: ops.matmul(a, b, out))
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    for stream in (*streams, streams[0]):
        cupy.cuda.get_current_stream().synchronize()
        with stream:
            replay()
            assert blas._stream is stream
        stream.synchronize()
    np.testing.assert_allclose(to_host(out), to_host(a) @ to_host(b), rtol=1e-12)
