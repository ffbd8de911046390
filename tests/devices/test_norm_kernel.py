import itertools

import numpy as np
import pytest

from gru_xp.devices import resolve_device, to_device, to_host
from gru_xp.devices.cupy_ops import CupyOps
from gru_xp.devices.norm_kernel import MAX_BLOCKS, NUMBERS, norm_source


@pytest.mark.parametrize("dtype", "fd")
def test_source_compiles_for_cuda(nvrtc, dtype):
    ptx, report = nvrtc(norm_source(dtype), "sm_90")
    assert ptx.count(".entry") == 2
    assert " 0 bytes spill" in report


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "large", "tolerance"), [("float32", 1e30, 1e-6), ("float64", 1e300, 1e-13)])
def test_cuda_norm(draw, dtype, large, tolerance):
    device = resolve_device("cuda", fallback=False)
    ops, out = CupyOps(), to_device(np.zeros(1, dtype), device)
    for shape, scale in itertools.product([(1,), (0,), (1000,), (7, 3001)], (1.0, large, 0.0)):
        a = draw(np, shape, dtype)
        ops.norm(to_device(a * a.dtype.type(scale), device), out)
        expected = np.linalg.norm(a.astype("float64")) * scale
        np.testing.assert_allclose(to_host(out), [expected], rtol=tolerance, err_msg=f"{shape} {scale}")
    for number in (np.nan, np.inf, -np.inf):
        a[5, 1700] = number
        ops.norm(to_device(a, device), out)
        assert not np.isfinite(to_host(out)).any()


@pytest.mark.cuda
def test_more_numbers_than_blocks_at_once(monkeypatch):
    """And of columns of a wider array."""
    device = resolve_device("cuda", fallback=False)
    assert MAX_BLOCKS * NUMBERS < 2**31
    monkeypatch.setattr("gru_xp.devices.norm_kernel.MAX_BLOCKS", 3)
    a, out = np.random.default_rng(0).standard_normal((11, 1003)), to_device(np.zeros(1), device)
    CupyOps().norm(to_device(a, device)[:, 2:], out)
    np.testing.assert_allclose(to_host(out), [np.linalg.norm(a[:, 2:])], rtol=1e-13)


@pytest.mark.cuda
def test_other_numbers_of_numbers_compile_nothing():
    stats = pytest.importorskip("cupy._device", reason="only the stand-in counts").STATS
    device, loaded = resolve_device("cuda", fallback=False), []
    for size in (7, 200, 5000):
        CupyOps().norm(to_device(np.ones(size), device), to_device(np.zeros(1), device))
        loaded.append(stats["kernels loaded"])
    assert len(set(loaded)) == 1
