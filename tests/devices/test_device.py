import pickle
import re
import sys
import types
import warnings
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError
from itertools import product

import array_api_compat
import numpy as np
import pytest

from gru_xp.devices import Device, cuda_problem, device, resolve_device, to_device, to_host
from gru_xp.devices.cupy_ops import CupyOps
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PlainOps
from gru_xp.devices.threads import MOST_THREADS
from gru_xp.errors import ArgumentError, DeviceError, GruXpError

PROBLEM = "the driver is on holiday"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("GRU_XP_NO_FALLBACK", "GRU_XP_PLAIN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine whose CUDA devices do not work; the list of those that were asked for."""
    asked = []

    def cuda_problem(index=0):
        asked.append(index)
        return PROBLEM

    monkeypatch.setattr(device, "cuda_problem", cuda_problem)
    return asked


@pytest.fixture
def gpu(monkeypatch):
    """A machine whose CUDA devices work; its namespace."""
    namespace = types.ModuleType("array_api_compat.cupy")
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", namespace)
    monkeypatch.setattr(array_api_compat, "cupy", namespace, raising=False)
    monkeypatch.setattr(device, "cuda_problem", lambda index=0: None)
    monkeypatch.setattr(device, "unusable_after_check", lambda index, **how: None)
    return namespace


# --- resolve_device ---------------------------------------------------------------------------------------------


def test_cpu(no_gpu):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = resolve_device("cpu", threads=3)
    assert found == Device("cpu", "cpu", "as asked", False, array_api_compat.array_namespace(np.empty(0)), 3)
    assert not found.is_cuda
    assert no_gpu == []  # CuPy is not even looked for


def test_auto_without_gpu(no_gpu):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = resolve_device()
    assert (found.name, found.requested, found.reason, found.fallback) == ("cpu", "auto", PROBLEM, False)
    assert found.xp is array_api_compat.array_namespace(np.empty(0))
    assert no_gpu == [0]


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)])
def test_cuda_without_gpu_falls_back_with_a_warning(no_gpu, name, index):
    with pytest.warns(RuntimeWarning) as record:
        found = resolve_device(name)
    (message,) = (str(warning.message) for warning in record)
    assert all(part in message for part in (f"device {name} ", PROBLEM, "CPU"))
    assert record[0].filename == __file__
    assert (found.name, found.requested, found.reason, found.fallback) == ("cpu", name, PROBLEM, True)
    assert no_gpu == [index]


def test_fallback_refused(no_gpu):
    with pytest.raises(DeviceError, match=f"^device cuda:1 .*{PROBLEM}"):
        resolve_device("cuda:1", fallback=False)
    assert issubclass(DeviceError, GruXpError)


def test_fallback_refused_by_the_environment(no_gpu, monkeypatch):
    for value in ("1", "yes"):
        monkeypatch.setenv("GRU_XP_NO_FALLBACK", value)
        with pytest.raises(DeviceError, match=PROBLEM):
            resolve_device("cuda")
        assert resolve_device("auto").name == "cpu", value  # nothing was asked for that it stands in for
        with pytest.warns(RuntimeWarning, match=PROBLEM):  # the argument decides
            assert resolve_device("cuda", fallback=True).fallback, value


def test_fallback_allowed_by_the_environment(no_gpu, monkeypatch):
    for value in ("0", ""):
        monkeypatch.setenv("GRU_XP_NO_FALLBACK", value)
        with pytest.warns(RuntimeWarning, match=PROBLEM):
            assert resolve_device("cuda").fallback, value
        with pytest.raises(DeviceError, match=PROBLEM):
            resolve_device("cuda", fallback=False)


def test_cuda_with_gpu(gpu):
    for requested, name, reason in [
        ("auto", "cuda:0", "CuPy finds a working device"),
        ("cuda", "cuda:0", "as asked"),
        ("cuda:3", "cuda:3", "as asked"),
    ]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = resolve_device(requested, fallback=False)
        assert found == Device(name, requested, reason, False, gpu)
        assert found.is_cuda
        assert found.threads == 1


@pytest.mark.compat
def test_names_that_are_none(no_gpu):
    for name in ("", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:0 ", "cpu:0", "auto:1", "cuda0", "cuda:0\n"):
        with pytest.raises(DeviceError) as error:
            resolve_device(name)
        assert all(part in str(error.value) for part in (repr(name), "auto", "cpu", "cuda", "cuda:N")), name
        assert no_gpu == [], name


def test_this_machine():
    problem = cuda_problem()
    found = resolve_device("auto")
    if problem is None:
        assert (found.name, found.reason) == ("cuda:0", "CuPy finds a working device")
    else:
        assert "\n" not in problem
        assert (found.name, found.reason) == ("cpu", problem)
    assert to_host(found.xp.asarray([1.0, 2.0])).tolist() == [1.0, 2.0]


@pytest.mark.compat
def test_tf32_is_refused_or_said_to_have_no_effect(gpu, monkeypatch):
    """On the CPU, on a GPU that lacks it, and where there is no GPU."""
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    with pytest.raises(ArgumentError, match=r"^tf32 is True .* cpu.*; leave tf32 out"):
        resolve_device("cpu", tf32=True)
    with pytest.raises(ArgumentError, match=r"^tf32 is 2; it must be True or False"):
        resolve_device("cuda", tf32=2)
    capability = types.SimpleNamespace(compute_capability="86")
    cuda = types.SimpleNamespace(Device=lambda index: capability)
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=cuda))
    for capability.compute_capability in ("80", "90", "120"):
        for name in ("auto", "cuda:1"):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert resolve_device(name, tf32=True).tf32
                assert not resolve_device(name).tf32
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    with pytest.raises(DeviceError, match="NVIDIA_TF32_OVERRIDE=0 forbids"):
        resolve_device("cuda:1", tf32=True, fallback=False)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    capability.compute_capability = "75"
    without = {"cuda:1": (r"cuda:1 .* 7\.5.* 8\.0", "cuda:1"), "auto": ("the CPU", "cpu"), "cuda": ("the CPU", "cpu")}
    for name, (reason, used) in without.items():
        if used == "cpu":
            monkeypatch.setattr(device, "cuda_problem", lambda index=0: PROBLEM)
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            found = resolve_device(name, tf32=True)
        assert re.match(f"TF32 has no effect: {reason}", str(record[0].message))
        assert (found.name, found.tf32) == (used, False)
        assert {warning.filename for warning in record} == {__file__}
        with pytest.raises(
            DeviceError, match=PROBLEM if name == "cuda" else f"^TF32 cannot be used: {reason}.*; leave"
        ):
            resolve_device(name, tf32=True, fallback=False)


# --- Device -----------------------------------------------------------------------------------------------------


def test_ops_of_the_cpu():
    found = resolve_device("cpu")
    assert isinstance(found.ops(), NumpyOps)
    assert found.ops() is not found.ops()  # one for each thread of the caller


def test_ops_of_a_gpu(gpu):
    assert isinstance(resolve_device("cuda").ops(), CupyOps)


def test_fast_paths_are_switched_off_by_the_environment(gpu, monkeypatch):
    for value, plain in {"1": True, "yes": True, "0": False, "": False}.items():
        monkeypatch.setenv("GRU_XP_PLAIN", value)
        for name in ("cpu", "cuda"):
            assert isinstance(resolve_device(name).ops(), PlainOps) == plain, (value, name)


def test_threads(no_gpu):
    for threads in (1, 2, 5):
        found = resolve_device("auto", threads=threads)
        assert found.threads == threads
        assert len(found.ops().parts(1000, 1, 1, 60)) == threads
        with pytest.warns(RuntimeWarning, match=PROBLEM):
            assert resolve_device("cuda", threads=threads).threads == threads


def test_threads_are_a_whole_number_of_any_kind():
    for threads in (np.int64(2), 2):
        assert type(resolve_device("cpu", threads=threads).threads) is int


def test_more_threads_than_any_machine_has(monkeypatch):
    assert resolve_device("cpu", threads=MOST_THREADS).threads == MOST_THREADS
    with pytest.raises(ValueError, match=r"^threads is 4097; .* 4096$"):
        resolve_device("cpu", threads=MOST_THREADS + 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert resolve_device("cpu").threads == MOST_THREADS


def test_threads_of_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert resolve_device("cpu").threads == 3
    assert resolve_device("cpu", threads=2).threads == 2  # the argument decides
    for value in ("", "0", "two"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        everything = resolve_device("cpu").threads
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert resolve_device("cpu").threads == everything >= 1


def test_threads_that_are_none():
    for threads in (0, -1, 1.5, 2.0, "2", True, float("nan")):
        with pytest.raises(ValueError, match="threads") as error:
            resolve_device("cpu", threads=threads)
        assert all(part in str(error.value) for part in (repr(threads), "at least 1")), threads


def test_a_device_has_one_thread_unless_more_are_asked_for():
    found = Device("cpu", "cpu", "as asked", False, array_api_compat.array_namespace(np.empty(0)))
    assert found.threads == 1
    assert len(found.ops().parts(1000, 1, 1, 50)) == 1


def test_use_of_the_cpu():
    with resolve_device("cpu").use():
        assert np.ones(2).sum() == 2.0


def test_use_of_a_gpu(gpu, monkeypatch, fake_cupy):
    with resolve_device("cuda:3").use():
        pass
    assert fake_cupy.used == [3]


def test_free_memory_of_the_cpu(monkeypatch):
    monkeypatch.setattr(device, "free_host_memory", lambda threads: 123_456 + threads)
    assert resolve_device("cpu", threads=3).free_memory() == 123_459


def test_free_memory_of_a_gpu(gpu, fake_cupy):
    """What the driver has, and what CuPy keeps; no more than CuPy may take."""
    pool = types.SimpleNamespace(free_bytes=lambda: 30_000, used_bytes=lambda: 50_000)
    fake_cupy.cuda.get_allocator = lambda: types.SimpleNamespace(__self__=pool)
    fake_cupy.cuda.runtime.memGetInfo = lambda: (1_000_000, 80_000_000)
    for limit, expected in {0: 1_000_000 + 30_000, 10**7: 1_000_000 + 30_000, 300_000: 300_000 - 50_000}.items():
        pool.get_limit = lambda limit=limit: limit
        assert resolve_device("cuda:3").free_memory() == expected, limit
    assert fake_cupy.used == [3, 3, 3]


def test_free_memory_is_what_somebody_says(gpu, monkeypatch):
    monkeypatch.setenv("GRU_XP_FREE_MEMORY", "1000")
    for name in ("cpu", "cuda"):
        assert resolve_device(name).free_memory() == 1000
    monkeypatch.setenv("GRU_XP_FREE_MEMORY", "")
    assert resolve_device("cpu").free_memory() > 1000


def test_free_memory_that_is_no_number(monkeypatch):
    for wanted in ("1e5", "100k", "abc", "-5", "1.5", " ", "\u00b2", "9" * 5000):
        monkeypatch.setenv("GRU_XP_FREE_MEMORY", wanted)
        with pytest.raises(DeviceError, match=r"GRU_XP_FREE_MEMORY is '.*'; .* bytes"):
            resolve_device("cpu").free_memory()


# --- cuda_problem -----------------------------------------------------------------------------------------------


@pytest.fixture
def fake_cupy(monkeypatch):
    """A CuPy with one device that computes, by NumPy; `used` lists the devices that were made current."""
    cupy = types.ModuleType("cupy")
    cupy.used = []

    def use(index):
        cupy.used.append(index)
        return nullcontext()

    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=lambda: 1), Device=use)
    for name in ("ones", "sum", "matmul", "tanh", "float32"):
        setattr(cupy, name, getattr(np, name))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    monkeypatch.setattr(device, "version", lambda package: "14.2")
    return cupy


def fail_with(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def test_a_gpu_that_works(fake_cupy):
    assert cuda_problem() is None
    assert fake_cupy.used == [0]


def test_cupy_is_not_installed(monkeypatch):
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    assert cuda_problem().startswith("CuPy is not installed (pip install 'gru-xp[cuda13]' or ")


def test_no_driver(fake_cupy):
    for error, text in [
        (RuntimeError("cudaErrorInsufficientDriver: too old\nsecond line"), "cudaErrorInsufficientDriver: too old"),
        (OSError("libcudart.so.13 is missing"), "libcudart.so.13 is missing"),
        (KeyError(), "KeyError"),
    ]:
        fake_cupy.cuda.runtime.getDeviceCount = fail_with(error)
        assert cuda_problem().startswith(f"CuPy 14.2 finds no CUDA device ({text})")


STATUSES = ("CUBLAS_STATUS_NOT_INITIALIZED", "NVRTC_ERROR_COMPILATION (6)")
"""What libraries say that are there."""


def test_a_missing_cuda_library_is_named_with_the_command_for_the_cupy_that_is_installed(fake_cupy, monkeypatch):
    installed = {}
    monkeypatch.setattr(device, "version", lambda package: installed.get(package) or fail_with(no_package)())
    no_package = PackageNotFoundError()
    errors = (
        RuntimeError("Failed to find CUDA headers; try pip install cupy-cuda12x[ctk]"),
        ImportError("libnvrtc.so.12: cannot open shared object file: No such file or directory"),
        RuntimeError("Failed to dynamically load a library: cublas"),
        type("DynamicLibNotFoundError", (RuntimeError,), {})('Failure finding "libcudart": No such file'),
        RuntimeError('steps.cu(1): catastrophic error: cannot open source file "cuda_fp16.h"'),
        RuntimeError("CUDA path could not be detected. Set CUDA_PATH environment variable"),
    )
    for package in ("cupy-cuda12x", "cupy-cuda13x"):
        installed = {package: "14.2"}
        for error in errors:
            monkeypatch.setattr(fake_cupy, "matmul", fail_with(error))
            assert cuda_problem().endswith(f"pip install '{package}[ctk]'"), error
    statuses = [type(f"{name.partition('_')[0]}Error", (RuntimeError,), {})(name) for name in STATUSES]
    for other in (RuntimeError("an illegal memory access was encountered"), KeyError(), *statuses):
        monkeypatch.setattr(fake_cupy, "matmul", fail_with(other))
        assert "[ctk]" not in cuda_problem(), other


def test_a_driver_that_is_too_old_is_named_with_the_cupy_that_it_supports(fake_cupy, monkeypatch):
    error = RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")
    fake_cupy.cuda.runtime.getDeviceCount = fail_with(error)
    fake_cupy.cuda.runtime.runtimeGetVersion = lambda: 13010
    no_package = device.PackageNotFoundError()
    for package, driver, advice in (
        (
            "cupy-cuda13x",
            12040,
            "supports CUDA 12.4, and cupy-cuda13x needs 13.0 or later: pip uninstall cupy-cuda13x, "
            "then pip install 'gru-xp[cuda12]'; or update",
        ),
        ("cupy-cuda13x", 11080, "supports CUDA 11.8, and cupy-cuda13x needs 13.0 or later: update"),
        ("cupy-cuda12x", 11080, "supports CUDA 11.8, and cupy-cuda12x needs 12.0 or later: update"),
        ("cupy", 11080, "supports CUDA 11.8, and the CUDA runtime is 13.1: update"),
        ("cupy-cuda13x", 13000, "supports CUDA 13.0, and the CUDA runtime is 13.1: update"),
        ("cupy-cuda13x", 0, "no NVIDIA driver"),
    ):
        installed = {package: "14.2"}
        monkeypatch.setattr(device, "version", lambda name, i=installed: i.get(name) or fail_with(no_package)())
        fake_cupy.cuda.runtime.driverGetVersion = lambda driver=driver: driver
        assert advice in cuda_problem(), (package, driver)
    fake_cupy.cuda.runtime.driverGetVersion = lambda: 13010  # which suffices: nothing to advise
    assert cuda_problem().endswith("supports CUDA 13.1, and the CUDA runtime is 13.1")
    fake_cupy.cuda.runtime.runtimeGetVersion = fail_with(error)
    assert cuda_problem().endswith("supports CUDA 13.1")
    fake_cupy.cuda.runtime.driverGetVersion = fail_with(error)
    assert cuda_problem().endswith("CUDA runtime version)")


def test_cupy_cannot_be_imported(fake_cupy, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    problem = cuda_problem()
    assert problem.startswith("CuPy 14.2 finds no CUDA device (")
    assert "cupy" in problem


def test_too_few_devices(fake_cupy):
    for count, index, found in [(0, 0, "0 CUDA devices"), (1, 3, "1 CUDA device"), (2, 2, "2 CUDA devices")]:
        fake_cupy.cuda.runtime.getDeviceCount = lambda count=count: count
        problem = cuda_problem(index)
        assert f"cuda:{index}" in problem
        assert problem.endswith(f"CuPy 14.2 finds {found}")
        assert fake_cupy.used == []


def test_the_device_that_was_asked_for_is_tried(fake_cupy):
    fake_cupy.cuda.runtime.getDeviceCount = lambda: 4
    assert cuda_problem(3) is None
    assert fake_cupy.used == [3]


def test_a_gpu_that_fails(fake_cupy, monkeypatch):
    for function in ("ones", "tanh", "matmul", "sum"):
        with monkeypatch.context() as patch:
            patch.setattr(fake_cupy, function, fail_with(RuntimeError("no kernel image\nis available")))
            problem = cuda_problem()
        assert problem.startswith("cuda:0 "), function
        assert problem.endswith("(no kernel image)"), function


def test_a_gpu_that_computes_wrong_results(fake_cupy, monkeypatch):
    for function, wrong in {"matmul": np.subtract, "sum": np.max, "ones": np.zeros}.items():
        with monkeypatch.context() as patch:
            patch.setattr(fake_cupy, function, wrong)
            assert "wrong results" in cuda_problem(), function
    assert cuda_problem() is None


def test_version_in_the_text(fake_cupy, monkeypatch):
    def version(package):
        if package != "cupy-cuda12x":
            raise device.PackageNotFoundError(package)
        return "14.0"

    fake_cupy.cuda.runtime.getDeviceCount = lambda: 0
    monkeypatch.setattr(device, "version", version)
    assert cuda_problem() == "there is no cuda:0; CuPy 14.0 finds 0 CUDA devices"
    monkeypatch.setattr(device, "version", fail_with(device.PackageNotFoundError()))
    assert cuda_problem() == "there is no cuda:0; CuPy finds 0 CUDA devices"


# --- from and to the host ---------------------------------------------------------------------------------------


@pytest.mark.compat
def test_to_host_and_back(xp, rng, draw):
    for case in product(("float32", "float64", "int64"), ((), (3,), (2, 3))):
        dtype, shape = case
        numbers = np.asarray(100.0 * rng.standard_normal(shape)).astype(dtype)
        host = to_host(xp.asarray(numbers))
        assert type(host) is np.ndarray, case
        assert (host.dtype, host.shape) == case
        assert host.tolist() == numbers.tolist(), case
    array = draw(xp, (3, 4))
    whole = to_host(array)
    assert to_host(array.T).tolist() == whole.T.tolist()
    assert to_host(array[1:, ::2]).tolist() == whole[1:, ::2].tolist()
    assert to_device(whole, resolve_device("cpu")).tolist() == whole.tolist()


@pytest.mark.peer
def test_to_host_of_a_tensor_with_gradient():
    torch = pytest.importorskip("torch")
    tensor = torch.asarray([1.0, 2.0], requires_grad=True)
    assert to_host(2.0 * tensor).tolist() == [2.0, 4.0]


def test_what_is_no_array_of_numbers_goes_nowhere():
    for wrong in (None, [1, 2], "x", 3.0):
        with pytest.raises(ArgumentError, match=f"^array is a {type(wrong).__name__}; it must be an array"):
            to_host(wrong)
    cpu = resolve_device("cpu")
    for wrong, dtype, got in (
        ([[1], [2, 3]], None, "a list"),
        ([2**70], "int64", "a list"),
        ("x", "float32", "a str"),
        ("x", None, "dtype <U1"),
        (None, None, "dtype object"),
    ):
        with pytest.raises(ArgumentError, match=f"^array (is|has) {got}"):
            to_device(wrong, cpu, dtype)


def test_to_device_of_the_cpu(draw):
    cpu = resolve_device("cpu")
    array = draw(np, (2, 3))
    assert to_device(array, cpu).tolist() == array.tolist()
    assert to_device(array, cpu).dtype == np.float64
    single = to_device(array, cpu, "float32")
    assert single.dtype == np.float32
    assert single.tolist() == array.astype(np.float32).tolist()
    assert to_device([[1, 2], [3, 4]], cpu, "float64").tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_cuda(draw, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = resolve_device(name, fallback=False)
    assert (found.name, found.requested, found.fallback) == ("cuda:0", name, False)
    array = draw(np, (2, 3))
    on_device = to_device(array, found, "float32")
    assert on_device.device.id == 0
    assert on_device.dtype == np.float32
    np.testing.assert_array_equal(to_device(on_device.T, resolve_device("cpu")), array.T.astype(np.float32))
    assert to_host(found.xp.matmul(on_device, on_device.T)) == pytest.approx(array @ array.T, rel=1e-5, abs=1e-6)


def test_a_device_is_pickled_without_its_namespace():
    device = resolve_device("cpu", threads=3)
    assert pickle.loads(pickle.dumps(device)) == device
