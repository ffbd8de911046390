import ctypes
import gc
import sys
import threading
from functools import partial
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from gru_xp.devices import cublas, resolve_device, to_host
from gru_xp.errors import DeviceError, DeviceWarning

CTYPES = {0: ctypes.c_float, 1: ctypes.c_double}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("GRU_XP_NO_FALLBACK", raising=False)


class HostArray(np.ndarray):
    """Host memory that says where it is as a CuPy array does."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


class FakeStream:
    """A stream that remembers which events of others it waits for."""

    def __init__(self, ptr):
        self.ptr, self.capturing, self.events, self.waits_for = ptr, False, [], []

    def is_capturing(self):
        return self.capturing

    def record(self, event):
        self.events.append(event)
        return event

    def wait_event(self, event):
        self.waits_for.append(event)


class FakeLibrary:
    """cuBLAS on host memory, called through C function pointers of the prototypes in use."""

    def __init__(self):
        self.calls = []
        self.statuses = {}
        for name, argtypes in cublas.PROTOTYPES.items():
            setattr(self, name, ctypes.CFUNCTYPE(ctypes.c_int, *argtypes)(partial(self.call, name)))

    def cublasGetStatusName(self, status):
        return b"CUBLAS_STATUS_NUMBER_%d" % status

    def call(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name == "cublasCreate_v2":
            ctypes.c_void_p.from_address(arguments[0]).value = 4321
        elif name == "cublasGemmEx":
            gemm(*arguments)
        return self.statuses.get(name, 0)

    @property
    def names(self):
        return [name for name, *_ in self.calls]

    @property
    def last(self):
        """The arguments of the last product, by their names in NVIDIA's documentation."""
        gemm_arguments = [arguments for name, *arguments in self.calls if name == "cublasGemmEx"][-1]
        names = "handle transa transb m n k alpha A Atype lda B Btype ldb beta C Ctype ldc computeType algo"
        return dict(zip(names.split(), gemm_arguments, strict=True))


def gemm(handle, transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, compute, algo):
    """``C = alpha op(A) op(B) + beta C`` on matrices that are stored column by column."""
    assert handle == 4321
    assert Atype == Btype == Ctype
    assert transa in (0, 1)
    assert transb in (0, 1)

    def stored(pointer, rows, columns, leading):
        assert leading >= max(1, rows)
        kind = CTYPES[Atype]
        size = (columns - 1) * leading + rows if rows and columns else 0
        memory = np.frombuffer((kind * size).from_address(pointer), kind) if size else np.zeros(0, kind)
        steps = (memory.itemsize, leading * memory.itemsize)
        return np.lib.stride_tricks.as_strided(memory, (rows, columns), steps, writeable=True)

    a = stored(A, k, m, lda).T if transa else stored(A, m, k, lda)
    b = stored(B, n, k, ldb).T if transb else stored(B, k, n, ldb)
    c = stored(C, m, n, ldc)
    alpha, beta = (CTYPES[Atype].from_address(number).value for number in (alpha, beta))
    result = alpha * (np.asarray(a) @ np.asarray(b))
    c[...] = result + beta * c if beta else result


@pytest.fixture
def fake_cupy(monkeypatch, checked_devices):
    """As much of CuPy as products need, on host memory."""
    cupy = SimpleNamespace(ndarray=type("ndarray", (), {}), stream=FakeStream(0), device=0, copies=0)

    def ascontiguousarray(array):
        cupy.copies += 1
        return np.ascontiguousarray(array).view(HostArray)

    cupy.ascontiguousarray = ascontiguousarray
    cupy.cuda = SimpleNamespace(
        alloc=lambda nbytes: SimpleNamespace(ptr=777),
        get_current_stream=lambda: cupy.stream,
        Event=lambda disable_timing: object(),
        runtime=SimpleNamespace(getDevice=lambda: cupy.device),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


@pytest.fixture
def library():
    return FakeLibrary()


@pytest.fixture
def blas(fake_cupy, library):
    return cublas.Cublas(library)


@pytest.fixture
def fresh(monkeypatch, library):
    """No thread has a handle yet, and cuBLAS is `library`."""
    monkeypatch.setattr(cublas, "_HANDLES", cublas._Handles())
    monkeypatch.setattr(cublas, "load", lambda: library)


def place(xp, rows, columns, layout, dtype):
    """Memory for a matrix, and all that it is in the middle of, which is NaN."""
    if layout == "packed":
        memory = xp.full(rows * columns + 2, np.nan, dtype)
        return memory[1:-1].reshape(rows, columns), memory
    memory = xp.full((2 * (rows + columns), 2 * (rows + columns) + 3), np.nan, dtype)
    if layout == "columns":  # some of wider rows
        return memory[1 : 1 + rows, 2 : 2 + columns], memory
    if layout == "transposed":
        return memory[1 : 1 + columns, 2 : 2 + rows].T, memory
    assert layout == "spread"  # neither rows nor columns are packed
    return memory[1 : 1 + 2 * rows : 2, 2 : 2 + 2 * columns : 2], memory


LAYOUTS = ["packed", "columns", "transposed", "spread"]


def check_product(blas, xp, rng, layouts, sizes, dtype, tolerance):
    """All kinds of products of one size; nothing is written beside the result."""
    N, K, M = sizes
    for transpose_a in (False, True):
        for add in (False, True):
            shapes = [(K, N) if transpose_a else (N, K), (K, M), (N, M)]
            placed = [place(xp, *shape, layout, dtype) for shape, layout in zip(shapes, layouts, strict=True)]
            arrays, memory = zip(*placed, strict=True)
            numbers = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
            for array, its_numbers in zip(arrays, numbers, strict=True):
                array[...] = xp.asarray(its_numbers)
            a, b, before = (array.astype("float64") for array in numbers)
            if not add:
                arrays[2][...] = np.nan
            arrays = [array.view(HostArray) if xp is np else array for array in arrays]
            blas.product(*arrays, transpose_a=transpose_a, add=add)
            expected = (a.T if transpose_a else a) @ b + add * before
            case = f"{layouts} {sizes} {dtype} transpose_a={transpose_a} add={add}"
            result, atol = to_host(arrays[2]), tolerance * np.sqrt(K)
            np.testing.assert_allclose(result, expected, rtol=tolerance, atol=atol, err_msg=case)
            arrays[2][...] = np.nan
            assert np.isnan(to_host(memory[2])).all(), case


# --- products, without a GPU ------------------------------------------------------------------------------------


SIZES = [(1, 1, 1), (1, 5, 3), (4, 1, 3), (4, 5, 1), (1, 1, 3), (3, 1, 1), (1, 4, 1), (6, 5, 7), (2, 9, 4)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-13)])
def test_product(blas, rng, dtype, tolerance):
    for layouts, sizes in product(product(LAYOUTS, repeat=3), SIZES):
        check_product(blas, np, rng, layouts, sizes, dtype, tolerance)


@pytest.mark.parametrize("transpose_a", [False, True])
def test_rows_of_all_steps_are_one_matrix(fake_cupy, blas, library, rng, transpose_a):
    """As the columns of a step's row, for all steps at once: no copy, one call."""
    joint = rng.standard_normal((6, 4, 9)).view(HostArray)
    a = joint[1:, :, 2:7]
    if transpose_a:
        b, out = rng.standard_normal((5, 4, 3)).view(HostArray), np.empty((5, 3)).view(HostArray)
        expected = np.einsum("tbp,tbq->pq", a, b)
    else:
        b, out = rng.standard_normal((3, 5)).view(HostArray).T, np.empty((5, 4, 8)).view(HostArray)[..., 1:4]
        expected = np.einsum("tbk,km->tbm", a, b)
    blas.product(a, b, out, transpose_a=transpose_a)
    np.testing.assert_allclose(np.asarray(out), expected, rtol=1e-12, atol=1e-13)
    assert fake_cupy.copies == 0
    assert library.names.count("cublasGemmEx") == 1


def test_rows_that_are_not_evenly_spaced_are_copied(fake_cupy, blas, rng):
    batch_first = rng.standard_normal((4, 6, 3)).view(HostArray)
    a, b = batch_first.transpose(1, 0, 2), rng.standard_normal((3, 2)).view(HostArray)
    for add in (False, True):
        fake_cupy.copies = 0
        out = np.ones((4, 6, 2)).view(HostArray).transpose(1, 0, 2)
        blas.product(a, b, out, add=add)
        np.testing.assert_allclose(np.asarray(out), np.asarray(a) @ np.asarray(b) + add, rtol=1e-12, atol=1e-13)
        assert fake_cupy.copies == 2, add


def test_no_copies_of_what_is_packed(fake_cupy, blas):
    for layout in ("packed", "columns", "transposed"):
        blas.product(*[place(np, *shape, layout, "float64")[0].view(HostArray) for shape in [(4, 5), (5, 3), (4, 3)]])
        assert fake_cupy.copies == 0, layout


def test_broadcast_rows_are_no_matrix():
    a = np.broadcast_to(np.ones(3), (2, 3)).view(HostArray)
    assert cublas.matrix(a) is None
    assert cublas.matrix(a[:1]) is not None


def test_nothing_to_add_up(fake_cupy, blas):
    out = np.full((2, 3), np.nan).view(HostArray)
    blas.product(np.empty((0, 2)).view(HostArray), np.empty((0, 3)).view(HostArray), out, transpose_a=True)
    assert out.tolist() == [[0.0] * 3] * 2


def test_what_does_not_fit_is_refused(fake_cupy, blas):
    a, b = np.ones((2, 3)).view(HostArray), np.ones((4, 5)).view(HostArray)
    with pytest.raises(ValueError, match="2 x 3 and 4 x 5 into 2 x 5"):
        blas.product(a, b, np.ones((2, 5)).view(HostArray))
    with pytest.raises(ValueError, match="float64 and float32 into float64"):
        blas.product(a, a.T.astype("float32"), np.ones((2, 2)).view(HostArray))


def test_precision(fake_cupy, library, monkeypatch):
    """The argument decides, and CUPY_TF32 does not; float64 has no TF32."""
    for case in product(("float32", "float64"), (False, True), ("0", "1")):
        dtype, tf32, variable = case
        monkeypatch.setenv("CUPY_TF32", variable)
        a = np.ones((2, 2), dtype).view(HostArray)
        cublas.Cublas(library).product(a, a, a.copy(), tf32=tf32)
        compute = 70 if dtype == "float64" else 77 if tf32 else 68
        assert library.last["computeType"] == compute, case
        assert library.last["Atype"] == {"float32": 0, "float64": 1}[dtype], case
        assert library.last["algo"] == -1, case


# --- handles ----------------------------------------------------------------------------------------------------


def test_stream_then_workspace_when_the_stream_changes(fake_cupy, blas, library):
    a = np.ones((2, 2)).view(HostArray)
    blas.product(a, a, a.copy())
    blas.product(a, a, a.copy())
    fake_cupy.stream = FakeStream(99)
    blas.product(a, a, a.copy())
    switch = ["cublasSetStream_v2", "cublasSetWorkspace_v2"]
    assert library.names == ["cublasCreate_v2", *switch, "cublasGemmEx", "cublasGemmEx", *switch, "cublasGemmEx"]
    streams = [arguments for name, *arguments in library.calls if name == "cublasSetStream_v2"]
    assert streams == [[4321, None], [4321, 99]]
    workspaces = [arguments for name, *arguments in library.calls if name == "cublasSetWorkspace_v2"]
    assert workspaces == [[4321, 777, cublas.WORKSPACE_BYTES]] * 2


def test_streams_take_turns_with_the_workspace(fake_cupy, blas):
    """The next one waits for the last one, unless one of them is capturing, which must not wait for others."""
    a, streams = np.ones((2, 2)).view(HostArray), [FakeStream(number) for number in range(3)]
    for fake_cupy.stream in (*streams, streams[0], streams[0]):
        blas.product(a, a, a.copy())
    assert [len(stream.events) for stream in streams] == [1, 1, 1]
    assert [stream.waits_for for stream in streams] == [streams[2].events, streams[0].events, streams[1].events]
    fake_cupy.stream = streams[1]
    blas.use_current_stream()  # as before a graph is launched there
    assert streams[1].waits_for[1:] == streams[0].events[1:] != []
    for capturing, other in ((2, 1), (0, 2)):
        streams[capturing].capturing = True
        fake_cupy.stream = streams[capturing]
        blas.product(a, a, a.copy())
        assert [len(stream.events) for stream in streams] == [2, 1, 1], (capturing, other)


def test_a_handle_is_destroyed(fake_cupy, library):
    blas = cublas.Cublas(library)
    assert "cublasDestroy_v2" not in library.names
    del blas
    gc.collect()
    assert library.calls[-1] == ("cublasDestroy_v2", 4321)


def test_errors(fake_cupy, library):
    for name in ("cublasCreate_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasGemmEx"):
        library.statuses = {name: 13}
        a = np.ones((2, 2)).view(HostArray)
        with pytest.raises(DeviceError, match=f"^{name} .*CUBLAS_STATUS_NUMBER_13; set GRU_XP_PLAIN=1"):
            cublas.Cublas(library).product(a, a, a.copy())


def test_one_handle_a_thread_and_device(fake_cupy, fresh, library):
    first = cublas.current()
    assert cublas.current() is first
    fake_cupy.device = 1
    assert cublas.current() not in (first, None)
    fake_cupy.device = 0
    others = []
    thread = threading.Thread(target=lambda: others.append(cublas.current()))
    thread.start()
    thread.join()
    assert others[0] not in (first, None)
    assert cublas.current() is first
    assert library.names.count("cublasCreate_v2") == 3


@pytest.mark.parametrize("problem", ["library", "handle"])
def test_without_cublas(fake_cupy, fresh, library, monkeypatch, problem):
    calls = []

    def fails():
        calls.append(1)
        raise OSError("no such library\nand more")

    if problem == "library":
        monkeypatch.setattr(cublas, "load", fails)
    else:
        library.statuses["cublasCreate_v2"] = 1
    with pytest.warns(DeviceWarning) as record:
        found = [cublas.current() for _ in range(2)]
    assert found == [None, None]
    reason = {"library": "no such library", "handle": "cublasCreate_v2 failed: CUBLAS_STATUS_NUMBER_1"}[problem]
    (warning,) = record
    assert f"cuda:0 ({reason})" in str(warning.message)
    assert len(calls) == (problem == "library")
    monkeypatch.setenv("GRU_XP_NO_FALLBACK", "1")
    with pytest.raises(DeviceError, match=reason):
        cublas.current()


def test_memory_that_was_short_is_asked_for_again(fake_cupy, fresh, library, monkeypatch):
    """For the workspace, or in cuBLAS; not at once, and not while the stream is capturing."""
    short = {"workspace": True, "cuBLAS": False}
    now = 0.0
    monkeypatch.setattr(cublas.time, "monotonic", lambda: now)

    def alloc(nbytes):
        if short["workspace"]:
            raise MemoryError
        return SimpleNamespace(ptr=777)

    fake_cupy.cuda.alloc = alloc
    with pytest.warns(DeviceWarning, match="no memory for cuBLAS on cuda:0"):
        assert cublas.current() is None
    assert cublas.lacks_memory()
    short["workspace"], library.statuses["cublasCreate_v2"] = False, 3
    assert cublas.current() is None
    now += 1.5 * cublas.RETRY_SECONDS
    assert cublas.current() is None
    assert library.names.count("cublasCreate_v2") == 1
    library.statuses.clear()
    now += 0.5 * cublas.RETRY_SECONDS
    assert cublas.current() is None
    fake_cupy.stream.capturing = True
    now += cublas.RETRY_SECONDS
    assert cublas.current() is None
    fake_cupy.stream.capturing = False
    found = cublas.current()
    assert found is not None
    assert cublas.current() is found
    assert not cublas.lacks_memory()


def test_a_small_workspace_where_there_is_no_memory_for_the_large_one(fake_cupy, fresh, library, monkeypatch):
    """Said once, until there is memory and the large one is asked for; an error where nothing may be slower."""
    free, synchronised = cublas.WORKSPACE_BYTES - 1, []

    def alloc(nbytes):
        if nbytes > free:
            raise MemoryError
        return SimpleNamespace(ptr=nbytes)

    fake_cupy.cuda.alloc = alloc
    fake_cupy.cuda.Device = lambda: SimpleNamespace(synchronize=lambda: synchronised.append(1))
    fake_cupy.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=lambda: None)
    a = np.ones((2, 2)).view(HostArray)
    with pytest.warns(DeviceWarning, match="little memory for cuBLAS on cuda:0") as record:
        handles = [cublas.current() for _ in range(2)]
    assert len(record) == 1
    handles[0].product(a, a, a.copy())
    with monkeypatch.context() as patch:
        patch.setenv("GRU_XP_NO_FALLBACK", "1")
        with pytest.raises(DeviceError, match=r"little memory .*--no-fallback"):
            cublas.current()
    for is_small in (False, True, False):
        cublas.choose_workspace(is_small=is_small)
        cublas.current().product(a, a, a.copy())
        free = 2 * cublas.WORKSPACE_BYTES
    workspaces = [arguments[1:] for name, *arguments in library.calls if name == "cublasSetWorkspace_v2"]
    small, large = ([nbytes] * 2 for nbytes in (cublas.SMALL_WORKSPACE_BYTES, cublas.WORKSPACE_BYTES))
    assert workspaces == [small, small, large]
    assert len(synchronised) == 2


# --- with a GPU -------------------------------------------------------------------------------------------------


@pytest.mark.cuda
def test_cuda_library_is_the_one_that_cupy_uses():
    from cupy_backends.cuda.libs import cublas as cupys

    library = cublas.load()
    assert all(hasattr(library, name) for name in cublas.PROTOTYPES)
    blas = cublas.current()
    assert blas is not None
    version = ctypes.c_int()
    assert library.cublasGetVersion_v2(blas._handle, ctypes.byref(version)) == 0
    handle = cupys.create()
    try:
        assert cupys.getVersion(handle) == version.value
    finally:
        cupys.destroy(handle)


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-13)])
def test_cuda_product(rng, dtype, tolerance):
    import cupy

    with resolve_device("cuda", fallback=False).use():
        blas = cublas.Cublas(cublas.load())
        sizes_of_all = [(1, 1, 1), (5, 1, 3), (3, 4, 1), (65, 33, 17), (128, 70, 210)]
        for layouts, sizes in product(product(LAYOUTS, repeat=3), sizes_of_all):
            check_product(blas, cupy, rng, layouts, sizes, dtype, tolerance)
