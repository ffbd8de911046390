"""Memory of a CUDA device from another allocator than CuPy's default pool."""

import gc
from contextlib import contextmanager

import numpy as np
import pytest

from gru_xp.devices import cublas, resolve_device, to_device, to_host
from gru_xp.devices.fast_paths import PATHS, trying
from gru_xp.nn import GRUInference, gru_backward, gru_forward, init_gru_params

pytestmark = pytest.mark.cuda


@contextmanager
def allocating(allocator):
    """CuPy allocates by it; meanwhile, the default pool gives nothing away."""
    import cupy

    pool = cupy.get_default_memory_pool()
    gc.collect()
    used, before = pool.used_bytes(), cupy.cuda.get_allocator()
    cupy.cuda.set_allocator(allocator)
    try:
        yield
        assert pool.used_bytes() <= used
    finally:
        cupy.cuda.set_allocator(before)


@pytest.fixture
def no_handle(monkeypatch):
    """No thread has a handle of cuBLAS yet."""
    monkeypatch.setattr(cublas, "_HANDLES", cublas._Handles())


def test_all_memory_is_that_of_the_allocator(no_handle):
    """The workspace of cuBLAS included, and results are right."""
    import cupy

    other, asked = cupy.cuda.MemoryPool(), []

    def allocate(nbytes):
        asked.append(nbytes)
        return other.malloc(nbytes)

    rng = np.random.default_rng(2)
    device, x, dh = (
        resolve_device("cuda", fallback=False),
        rng.standard_normal((4, 6, 3)),
        rng.standard_normal((4, 6, 5)),
    )
    with allocating(allocate), trying(PATHS):
        results = []
        for xp, place in ((cupy, lambda a: to_device(a, device)), (np, np.asarray)):
            params = init_gru_params(3, 5, xp=xp, seed=1, dtype=xp.float64)
            h, _, cache = gru_forward(place(x), None, params)
            dx, _, dparams = gru_backward(place(dh), cache)
            results.append([to_host(a) for a in (h, dx, dparams.weight_hh, GRUInference(params)(place(x))[0])])
        for actual, desired in zip(*results, strict=True):
            np.testing.assert_allclose(actual, desired, rtol=1e-9, atol=1e-11)
        assert cublas.WORKSPACE_BYTES in asked
        del cache, h, dx, dparams, params
        cublas._HANDLES.by_device.clear()


def test_free_memory_is_that_of_the_current_allocator():
    import cupy

    device, size = resolve_device("cuda", fallback=False), 2**24
    default, other = cupy.get_default_memory_pool(), cupy.cuda.MemoryPool()
    held = cupy.empty(size, dtype=cupy.int8)
    del held
    gc.collect()
    assert default.free_bytes() >= size
    on_device = cupy.cuda.runtime.memGetInfo()[0]
    assert device.free_memory() == on_device + default.free_bytes()
    with allocating(lambda nbytes: other.malloc(nbytes)):  # as of another library: who knows what it keeps
        assert device.free_memory() == cupy.cuda.runtime.memGetInfo()[0]
    with allocating(other.malloc):
        held = cupy.empty(size, dtype=cupy.int8)
        assert device.free_memory() == cupy.cuda.runtime.memGetInfo()[0]
        del held
        assert device.free_memory() == cupy.cuda.runtime.memGetInfo()[0] + other.free_bytes()
        assert other.free_bytes() >= size
        other.set_limit(size=2 * size)
        assert device.free_memory() == 2 * size
