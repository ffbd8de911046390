"""The self-check of a CUDA device, on the stand-in for CuPy, which can be made to fail."""

import gc
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from gru_xp.devices import cublas, fast_paths, norm_kernel, persistent, resolve_device, self_check, to_device, to_host
from gru_xp.devices.cupy_ops import CupyOps
from gru_xp.devices.fast_paths import PATHS
from gru_xp.devices.inventory import inventory
from gru_xp.errors import DeviceError, DeviceWarning
from gru_xp.nn import gru_backward, gru_forward
from gru_xp.nn.params import arrays_of, map_arrays
from gru_xp.training.trainer import TrainingConfig, train

pytestmark = pytest.mark.cuda

KERNELS = {"steps": "loops", "ElementwiseKernel": "kernels", "take_norm": "norm"}
FAULTS = {
    **{f"{how}{kind}": path for kind, path in KERNELS.items() for how in ("", "launch ", "wrong ")},
    "cublasCreate": "cublas",
    "cublasGemmEx": "cublas",
    "wrong cublasGemmEx": "cublas",
    "begin_capture": "graphs",
    "wrong Graph": "graphs",
}
"""Faults of the stand-in, and the fast path that each breaks."""


@pytest.fixture
def fail(monkeypatch):
    """``fail("steps")``: let parts of the stand-in fail, as if nothing had been checked or compiled before."""
    _device = pytest.importorskip("cupy._device", reason="a real GPU does not fail on request")
    for module, name, value in (
        (fast_paths, "_OFF", {}),
        (fast_paths, "_UNCHECKED", set()),
        (fast_paths, "_CHECKED", set()),
        (self_check, "_FOUND", {}),
        (cublas, "_HANDLES", cublas._Handles()),
        (_device, "DEAD", set()),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.delenv("GRU_XP_NO_FALLBACK", raising=False)
    kernels = (norm_kernel._kernels, persistent._kernel)

    def fail(*what):
        monkeypatch.setenv("FAKE_CUPY_FAIL", ",".join(what))
        for made in kernels:
            made.cache_clear()

    yield fail
    for made in kernels:
        made.cache_clear()


@pytest.fixture
def learn(draw, draw_network):
    """``learn()``: the parameters that a few epochs end with, on cuda:0."""
    params = draw_network(np, 2, 5, 1, "float32")
    x, y = draw(np, (7, 6, 2), "float32"), draw(np, (7, 1), "float32")
    config = TrainingConfig(num_epochs=3, learning_rate=0.01, clip_norm=0.5, batch_size=4)

    def learn():
        device = resolve_device("cuda", fallback=False)
        with device.use():
            on_device = map_arrays(lambda a: to_device(a, device), params)
        result = train(on_device, to_device(x, device), to_device(y, device), config=config, device=device)
        return [to_host(a) for a in arrays_of(result.params)]

    return learn


@pytest.fixture
def layer(draw, draw_params):
    """``layer(H=5, T=4)``: the results of a layer, by CuPy and by NumPy."""

    def layer(H=5, T=4):
        import cupy

        results = []
        numbers = np.random.default_rng(3)
        params = draw_params(np, 2, H, "float32", reset="before")
        x, dh = (numbers.standard_normal(shape).astype("float32") for shape in ((6, T, 2), (6, T, H)))
        for xp in (cupy, np):
            h, _, cache = gru_forward(xp.asarray(x), None, map_arrays(xp.asarray, params))
            dx, _, dparams = gru_backward(xp.asarray(dh), cache)
            results.append([to_host(a) for a in (h, dx, *arrays_of(dparams))])
        return SimpleNamespace(cupy=results[0], numpy=results[1])

    return layer


def off():
    return {path for path, verdict in self_check.verdicts_of(0).items() if verdict.problem is not None}


def assert_close(results, expected, tolerance=1e-5):
    for a, e in zip(results, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(1.0, np.abs(e).max()))


def test_what_works_is_on_and_nothing_is_said(fail, learn, monkeypatch):
    fail()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = learn()
    verdicts = self_check.verdicts_of(0)
    assert list(verdicts) == list(PATHS)
    assert all(verdict.problem is None and verdict.seconds > 0 for verdict in verdicts.values()), verdicts
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    assert_close(fast, learn())


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_is_done_without(fail, learn, monkeypatch, fault):
    """With one warning, and the numbers of the plain path."""
    fail(fault)
    with pytest.warns(DeviceWarning) as record:
        fast = learn()
    (warning,) = record
    assert "cuda:0" in str(warning.message)
    assert PATHS[FAULTS[fault]] in str(warning.message)
    assert warning.filename == __file__
    broken = {FAULTS[fault]} | ({"graphs"} if FAULTS[fault] == "cublas" else set())
    assert off() == (broken if fault != "cublasCreate" else set())  # there may be memory later
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert_close(learn(), fast)
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    assert_close(fast, learn())


def test_the_inventory_has_the_self_check_of_each_device(fail, monkeypatch):
    fail("take_norm")
    cuda = inventory()["cuda"]
    for device in cuda["devices"]:
        check = device["check"]
        assert {path: row["problem"] for path, row in check["paths"].items() if row["problem"]} == {
            "norm": "take_norm fails because FAKE_CUPY_FAIL names it"
        }
        assert list(check["paths"]) == list(PATHS)
        assert check["problem"] is None
        assert check["seconds"] >= check["compile_seconds"] > 0
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    assert inventory()["cuda"]["devices"][0]["check"] is None
    monkeypatch.delenv("GRU_XP_PLAIN")
    fail("illegal steps")
    self_check._FOUND.clear()
    check = inventory()["cuda"]["devices"][1]["check"]
    assert "IllegalAddress" in check["problem"]
    assert (check["seconds"], check["compile_seconds"], check["paths"]) == (None, None, {})


def test_public_functions_are_checked_before_they_compute(fail, layer):
    fail("wrong ElementwiseKernel", "wrong cublasGemmEx", "wrong steps")
    with pytest.warns(DeviceWarning) as record:
        results = layer()
    assert len(record) == 1
    assert off() == {"kernels", "cublas", "loops", "graphs"}
    assert_close(results.cupy, results.numpy)


def test_each_persistent_kernel_is_checked_before_its_first_launch(fail, layer):
    fail()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer()
        layer(T=7)  # by the same kernels, one forward and one backward
    assert len(fast_paths._CHECKED) == 2
    fail("wrong steps")
    with pytest.warns(DeviceWarning, match=f"cuda:0: {PATHS['loops']}") as record:
        results = layer(9)
    assert len(record) == 1
    assert_close(results.cupy, results.numpy)
    assert fast_paths._OFF[0] == {"loops"}


@pytest.mark.parametrize("kind", ["ElementwiseKernel", "steps"])
def test_an_illegal_address_found_by_the_self_check(fail, layer, kind):
    fail(f"illegal {kind}")
    for use in (layer, lambda: self_check.verdicts_of(0)):  # whatever uses the device next
        with pytest.raises(DeviceError, match=r"cuda:0 .*IllegalAddress.*GRU_XP_PLAIN=1"):
            use()


def test_auto_leaves_a_device_that_the_self_check_finds_unusable(fail, monkeypatch):
    """With one warning; whether or not CUDA still makes devices current and tells their properties."""
    import cupy

    def refusing(usual):
        def refuse(*arguments):
            is_dead, told = cupy._device.THREAD.device in cupy._device.DEAD, usual(*arguments)
            if is_dead:
                raise cupy._device.CUDARuntimeError(700, "cudaErrorIllegalAddress")
            return told

        return refuse

    fail()
    assert resolve_device().name == "cuda:0"
    for owner, name in ((cupy.cuda, None), (cupy.cuda.Device, "__exit__"), (cupy.cuda.runtime, "getDeviceProperties")):
        with monkeypatch.context() as patch:
            if name is not None:
                patch.setattr(owner, name, refusing(getattr(owner, name)))
            fail("illegal steps")
            cupy._device.DEAD.clear()
            self_check._FOUND.clear()
            with pytest.warns(RuntimeWarning, match=r"^device cuda:0 cannot be used: .*IllegalAddress") as record:
                device = resolve_device()
            assert len(record) == 1
            assert str(record[0].message).count("CPU") == 1
            assert (device.name, device.requested, device.fallback) == ("cpu", "auto", True)
            cupy._device.DEAD.add(1)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                cuda = inventory()["cuda"]
            assert cuda["problem"] is None
            assert all("IllegalAddress" in row["check"]["problem"] for row in cuda["devices"])


def test_an_illegal_address_at_the_first_launch_of_a_kernel(fail, layer):
    fail()
    layer()
    fail("illegal steps")
    with pytest.raises(DeviceError, match=r"cuda:0 .*IllegalAddress.*GRU_XP_PLAIN=1"):
        layer(9)


def test_a_lack_of_memory_is_no_verdict(fail, layer):
    import cupy

    fail()
    pool = cupy.get_default_memory_pool()
    x = cupy.zeros((2, 3, 4), "float32")
    gc.collect()  # or memory of earlier tests is free later
    pool.free_all_blocks()
    pool.set_limit(pool.used_bytes() + 512)
    try:
        with pytest.raises(MemoryError):
            CupyOps().matmul(x, cupy.zeros((4, 4), "float32"), out=x)
    finally:
        pool.set_limit(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer()
    assert off() == set()


def test_what_memory_was_short_for_is_checked_when_there_is_some(fail, learn, monkeypatch):
    """By the next thread that has a handle; what is off stays off."""
    for fault in ("wrong cublasGemmEx", "wrong Graph", None):
        for state in (fast_paths._OFF, fast_paths._UNCHECKED, self_check._FOUND):
            state.clear()
        monkeypatch.setattr(cublas, "_HANDLES", cublas._Handles())
        fail("cublasCreate", "take_norm")
        with pytest.warns(DeviceWarning):
            expected = learn()
        unchecked = {path for path, verdict in self_check.verdicts_of(0).items() if not verdict.is_checked}
        assert unchecked == {"cublas", "graphs"}
        assert off() == {"norm"}
        assert not inventory()["cuda"]["devices"][0]["check"]["paths"]["graphs"]["is_checked"]
        monkeypatch.setattr(cublas, "_HANDLES", cublas._Handles())  # as of another thread
        fail(*filter(None, [fault]))  # the norm would work by now
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            assert_close(learn(), expected)
        broken = {"wrong cublasGemmEx": {"cublas", "graphs"}, "wrong Graph": {"graphs"}}.get(fault, set())
        assert len(record) == bool(broken)
        assert off() == fast_paths._OFF[0] == {"norm"} | broken
        assert all(verdict.is_checked for verdict in self_check.verdicts_of(0).values())


def test_threads_wait_for_the_check(fail, layer):
    """It is made once, and none of them computes before."""
    fail("wrong ElementwiseKernel")
    results = []

    def use():
        results.append(layer())

    threads = [threading.Thread(target=use) for _ in range(3)]
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(record) == 1
    assert len(results) == 3
    for result in results:
        assert_close(result.cupy, result.numpy)


def test_a_failure_after_the_self_check_says_what_to_do(fail, learn):
    fail()
    learn()
    for fault, cause in (
        ("launch ElementwiseKernel", "OUT_OF_RESOURCES"),
        ("illegal take_norm", "IllegalAddress"),
    ):
        fail(fault)
        with pytest.raises(DeviceError, match=rf"^cuda:0 failed: .*{cause}.*GRU_XP_PLAIN=1"):
            learn()


@pytest.mark.parametrize(
    ("fault", "is_checked"),
    [("take_norm", False), ("cublasCreate", False), ("cublasCreate", True), ("begin_capture", True)],
)
def test_no_fallback(fail, learn, monkeypatch, fault, is_checked):
    """Nothing slower is used, whether a fault shows in the self-check or later."""
    fail()
    if is_checked:
        learn()
        monkeypatch.setattr(cublas, "_HANDLES", cublas._Handles())  # as in another thread
    monkeypatch.setenv("GRU_XP_NO_FALLBACK", "1")
    fail(fault)
    causes = {"cublasCreate": "no memory for cuBLAS on cuda:0", "begin_capture": "cuda:0 .*CUDA graph"}
    cause = causes.get(fault, f"cuda:0: .*{fault}")
    for _ in range(2):
        with pytest.raises(DeviceError, match=rf"{cause}.*--no-fallback.*GRU_XP_PLAIN=1"):
            learn()
