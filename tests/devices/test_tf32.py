"""Products in TF32, whose factors have 10 bits after the point."""

from contextlib import nullcontext

import numpy as np
import pytest

from gru_xp.devices import resolve_device, to_device, to_host
from gru_xp.devices.fast_paths import PATHS, trying
from gru_xp.devices.primitives import PlainOps
from gru_xp.errors import ArgumentError
from gru_xp.forecasting import Forecaster
from gru_xp.nn import gru_backward, gru_forward, init_gru_params, init_network_params, linear_backward, linear_forward
from gru_xp.nn.params import arrays_of
from gru_xp.training import TrainingConfig, train_on_chunks

pytestmark = pytest.mark.cuda

BIT = 2.0**-11
"""Of 1, as far as a factor moves at most."""


@pytest.fixture(params=["cublas", "cupy", "plain"])
def way(request, monkeypatch):
    """How products are computed: by our handle of cuBLAS, by CuPy among fast paths, or without any fast path."""
    monkeypatch.setenv("GRU_XP_PLAIN", "1" if request.param == "plain" else "")
    without = {"cublas", "graphs"} if request.param == "cupy" else {"loops"}  # which is exact
    with nullcontext() if request.param == "plain" else trying(PATHS.keys() - without):
        yield request.param


@pytest.fixture(params=[False, True], ids=["", "CUPY_TF32"])
def of_cupy(request):
    """What CUPY_TF32, which CuPy reads once a process, makes of CuPy's own products."""
    from cupy import _core
    from cupy._core import _routines_linalg as linalg

    before = _core.get_compute_type("float32")
    wanted = linalg.COMPUTE_TYPE_TF32 if request.param else linalg.COMPUTE_TYPE_DEFAULT
    _core.set_compute_type("float32", wanted)
    yield
    assert _core.get_compute_type("float32") == wanted
    _core.set_compute_type("float32", before)


def results(ops, place, dtype):
    """Of layers, forward and backward."""
    rng = np.random.default_rng(3)

    def draw(*shape):
        return place(rng.standard_normal(shape).astype(dtype))

    B, T, I, H = 7, 5, 4, 150  # noqa: E741
    params = init_gru_params(I, H, xp=np, seed=1, dtype=np.dtype(dtype))._replace(bias_hn=None)
    params = type(params)(*(None if a is None else place(a) for a in params))
    h, _, cache = gru_forward(draw(B, T, I), None, params, ops=ops)
    dx, dh0, dparams = gru_backward(draw(B, T, H), cache)
    network = init_network_params(I, H, 3, xp=np, seed=2, dtype=np.dtype(dtype))
    linear = type(network.linear)(*map(place, network.linear))
    y, cache = linear_forward(h, linear, ops=ops)
    return [to_host(a) for a in (h, dx, dh0, *arrays_of(dparams), y, *arrays_of(linear_backward(draw(B, T, 3), cache)))]


def distance(actual, desired):
    """The largest, of arrays in units of their largest element."""
    return max(float(np.abs(a - d).max() / np.abs(d).max()) for a, d in zip(actual, desired, strict=True))


def test_products_round_their_factors_if_that_is_asked_for(way, of_cupy):
    """Only then, whatever CuPy does with products of its own."""
    exact = results(PlainOps(), np.asarray, "float64")
    for tf32 in (False, True):
        device = resolve_device("cuda", fallback=False, tf32=tf32)
        found = distance(results(device.ops(), lambda a, to=device: to_device(a, to), "float32"), exact)
        assert (BIT / 8 < found < 16 * BIT) if tf32 else found < BIT / 200, (tf32, found)
    assert distance(results(device.ops(), lambda a: to_device(a, device), "float64"), exact) < 1e-12


def test_functions_without_a_device_are_exact(way, of_cupy):
    exact = results(PlainOps(), np.asarray, "float64")
    device = resolve_device("cuda", fallback=False)
    assert distance(results(None, lambda a: to_device(a, device), "float32"), exact) < BIT / 200


def test_float64_is_refused(tmp_path):
    device = resolve_device("cuda", fallback=False, tf32=True)
    series = np.cumsum(np.random.default_rng(1).standard_normal(40))
    settings = {"hidden_size": 3, "seq_length": 4, "num_epochs": 1, "validation_ratio": 0.0}
    forecaster = Forecaster(dtype="float64", **settings)
    with pytest.raises(ArgumentError, match=r"^dtype is float64 .*TF32.* float32"):
        forecaster.fit(series, device=device)
    forecaster.fit(series, device="cpu").save(tmp_path / "m.safetensors")
    with pytest.raises(ArgumentError, match=r"^dtype is float64 .*TF32.* float32"):
        Forecaster.load(tmp_path / "m.safetensors", device=device)
    params = init_network_params(1, 3, 1, xp=device.xp, dtype=device.xp.float64)
    with pytest.raises(ArgumentError, match=r"^dtype is float64 .*TF32.* float32"):
        train_on_chunks(
            params,
            series[None, :, None],
            series[None, :, None],
            config=TrainingConfig(num_epochs=1, learning_rate=0.1),
            chunk_length=5,
            device=device,
        )
