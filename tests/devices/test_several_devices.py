"""Arrays on another CUDA device than the current one."""

import gc
import pickle
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from gru_xp.devices import cupy_ops, resolve_device, to_device, to_host
from gru_xp.errors import ShapeError
from gru_xp.forecasting import Forecaster
from gru_xp.nn import (
    GRUInference,
    GRUParams,
    dropout_mask,
    gradcheck,
    gru_backward,
    gru_cell_backward,
    gru_cell_forward,
    gru_forward,
    gru_stack_backward,
    gru_stack_forward,
    gru_stack_step,
    gru_step,
    init_gru_params,
    init_gru_stack_params,
    init_network_params,
    linear_backward,
    linear_forward,
    mse_loss,
    softmax_cross_entropy,
)
from gru_xp.nn.network import network_backward, network_forward
from gru_xp.nn.params import flatten, map_arrays, unflatten
from gru_xp.training import TrainingConfig, train_on_chunks

pytestmark = pytest.mark.cuda

B, T, I, H = 4, 5, 3, 6  # noqa: E741


@pytest.fixture
def second():
    """The second CUDA device, while the first one is the current one."""
    import cupy

    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one CUDA device only")
    assert cupy.cuda.runtime.getDevice() == 0
    return resolve_device("cuda:1", fallback=False)


@contextmanager
def nothing_on_the_first():
    """No memory is taken on the first device meanwhile."""
    import cupy

    gc.collect()
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    held, free = pool.total_bytes(), pool.free_bytes()
    yield
    assert cupy.cuda.runtime.getDevice() == 0
    assert (pool.total_bytes(), pool.free_bytes()) == (held, free)


def every_function(xp, place, device):
    """Results of all public functions of arrays, by names."""
    rng = np.random.default_rng(5)

    def draw(*shape):
        return place(rng.standard_normal(shape))

    where = {"xp": xp, "dtype": xp.float64, "device": device}
    results = {}
    for reset in ("before", "after"):
        params = init_gru_params(I, H, reset=reset, seed=1, **where)
        h, h_last, cache = gru_forward(draw(B, T, I), None, params, lengths=[5, 0, 2, 4], update_mask=0.7, keep_every=2)
        results[reset, "layer"] = h, h_last, *gru_backward(None, cache, dh_last=draw(B, H))
        h, cache = gru_cell_forward(draw(B, I), draw(B, H), params)
        results[reset, "cell"] = h, *gru_cell_backward(draw(B, H), cache), gru_step(draw(B, I), draw(B, H), params)
        inference = GRUInference(params)
        for number in range(4):  # of which the last ones are by a graph
            results[reset, "inference", number] = *inference(draw(B, T, I)), inference.step(draw(B, I))
        textbook = {name: getattr(params, name) for name in ("Wz", "Wr", "Wh", "bz", "br", "bh", "bias_hn")}
        results[reset, "textbook"] = GRUParams.from_textbook(**textbook)
        results[reset, "flat"] = unflatten(flatten(params), params)
    stack = init_gru_stack_params(I, H, num_layers=2, bidirectional=True, seed=2, **where)
    rates = {"dropout": 0.3, "recurrent_dropout": 0.2, "zoneout": 0.1, "seed": 3}
    h, h_last, cache = gru_stack_forward(draw(B, T, I), None, stack, **rates)
    results["stack"] = h, h_last, *gru_stack_backward(draw(B, T, 2 * H), cache)
    upward = init_gru_stack_params(I, H, num_layers=2, seed=2, **where)
    results["stack step"] = gru_stack_step(draw(B, I), draw(2, B, H), upward)
    network = init_network_params(I, H, 2, seed=5, **where)
    y, cache = network_forward(draw(B, T, I), network, lengths=place(np.array([1, 5, 3, 2])))
    results["network"] = y, *network_backward(draw(B, 2), cache)
    for shape in ((B,), (B, T)):
        y, cache = linear_forward(draw(*shape, H), network.linear)
        results["linear", shape] = y, *linear_backward(draw(*shape, 2), cache)
        labels, mask = place(rng.integers(0, 2, shape)), place(rng.integers(0, 2, shape) | (np.arange(shape[-1]) == 1))
        results["softmax", shape] = softmax_cross_entropy(draw(*shape, 2), labels, mask=mask)
    results["mse"] = mse_loss(draw(B, 2), draw(B, 2), reduction="sum")
    results["dropout"] = dropout_mask((B, H), 0.4, seed=6, like=draw(1))
    inputs = {"x": draw(2, I), "h_prev": draw(2, 2), "params": init_gru_params(I, 2, seed=7, **where)}
    report = gradcheck(gru_cell_forward, gru_cell_backward, inputs, mode="direction")
    results["gradcheck"] = tuple(place(np.array(row.numeric)) for row in report.rows)
    return results


@pytest.mark.parametrize("plain", ["", "1"])
def test_functions_run_on_the_device_of_their_arrays(second, monkeypatch, plain):
    """What they return and what they need meanwhile is there, and the numbers are those of the CPU."""
    import cupy

    monkeypatch.setenv("GRU_XP_PLAIN", plain)
    desired = every_function(np, np.asarray, None)
    with nothing_on_the_first():
        actual = every_function(cupy, lambda array: to_device(array, second), 1)
        assert actual.keys() == desired.keys()
        for name in desired:
            for a, d in zip(leaves(actual[name]), leaves(desired[name]), strict=True):
                assert a.device.id == 1, name
                np.testing.assert_allclose(to_host(a), d, rtol=1e-9, atol=1e-11, err_msg=str(name))


def test_parts_of_a_batch_are_joined_there(second, monkeypatch):
    import cupy

    monkeypatch.setattr(cupy_ops, "rounds_for_memory", lambda *sizes: 10**9)  # one for each sequence
    rng = np.random.default_rng(4)
    x, dh = rng.standard_normal((B, T, I)), rng.standard_normal((B, T, H))
    results = []
    for xp, place, device in ((np, np.asarray, None), (cupy, lambda a: to_device(a, second), 1)):
        params = init_gru_params(I, H, xp=xp, seed=1, dtype=xp.float64, device=device)
        with nothing_on_the_first():
            h, h_last, cache = gru_forward(place(x), None, params)
            results.append([to_host(a) for a in (h, h_last, *leaves(gru_backward(place(dh), cache)))])
    for actual, desired in zip(*results[::-1], strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-9, atol=1e-11)


def test_training_on_chunks(second):
    rng = np.random.default_rng(6)
    x, y = (rng.standard_normal((B, 9, 1)) for _ in range(2))
    results = []
    for device in ("cpu", "cuda:1"):
        device = resolve_device(device, fallback=False)
        with device.use():
            params = init_network_params(1, H, 1, xp=device.xp, dtype=device.xp.float64)
        with nothing_on_the_first():
            config = TrainingConfig(num_epochs=2, learning_rate=0.1)
            trained = train_on_chunks(params, x, y, config=config, chunk_length=4, device=device)
        results.append(list(map(to_host, leaves(trained.params))))
    for actual, desired in zip(*results, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-8, atol=1e-10)


def leaves(value):
    found = []
    map_arrays(found.append, (value,))
    return found


def test_arrays_of_two_devices_are_refused(second):
    """By name, and with both devices, also where a layer has prepared such shapes."""
    import cupy

    here, there = (init_gru_params(I, H, xp=cupy, device=number, seed=1) for number in (0, 1))
    rng = np.random.default_rng(0)
    x, h = rng.standard_normal((B, T, I)), rng.standard_normal((B, H))
    x_here, h_here = cupy.asarray(x), cupy.asarray(h)
    x_there, h_there = (to_device(a, second) for a in (x, h))
    layer = GRUInference(there)
    for _ in range(3):
        layer(x_there, h_there)
        layer.step(x_there[:, 0], h_there)
        gru_step(x_there[:, 0], h_there, there)
        for name, call in {
            "params": lambda: gru_forward(x_there, None, here),
            "h0": lambda: gru_forward(x_there, h_here, there),
            "dh_last": lambda: gru_backward(None, gru_forward(x_there, None, there)[2], dh_last=h_here),
            "h": lambda: gru_step(x_there[:, 0], h_here, there),
            "x": lambda: layer(x_here),
            "h0 ": lambda: layer(x_there, h_here),
            "x ": lambda: layer.step(x_here[:, 0]),
            "h ": lambda: layer.step(x_there[:, 0], h_here),
            "y_true": lambda: mse_loss(h_there, h_here),
        }.items():
            with pytest.raises(ShapeError, match=rf"^{name.strip()}.*Device [01]>.*Device [01]>; copy"):
                call()


def test_copies_between_devices(second):
    """Of arrays that are not in one piece, too."""
    import cupy

    numbers = np.random.default_rng(0).standard_normal((5, 6))
    for part in ((slice(None), slice(0, None, 2)), (slice(1, 4), slice(2, 5)), (slice(None), slice(None))):
        there = to_device(cupy.asarray(numbers)[part], second)
        assert there.device.id == 1
        back = to_device(there.T, resolve_device("cuda:0", fallback=False))
        assert back.device.id == 0
        np.testing.assert_array_equal(to_host(back), numbers[part].T)


def test_a_forecaster_lives_on_its_device(second):
    """Training with mini-batches and validation, predictions and copies take no memory of the first device."""
    series = np.cumsum(np.random.default_rng(1).standard_normal(60)) + 50
    settings = {"hidden_size": 4, "seq_length": 5, "num_epochs": 3, "batch_size": 16, "dropout": 0.2, "num_layers": 2}
    with nothing_on_the_first():
        forecaster = Forecaster(**settings).fit(series, device="cuda:1")
        assert forecaster.device.name == "cuda:1"
        assert {a.device.id for a in leaves(forecaster.params)} == {1}
        again = pickle.loads(pickle.dumps(forecaster))
        np.testing.assert_array_equal(again.forecast(series, 3), forecaster.forecast(series, 3))
        again.predict(series)
    desired = Forecaster(**settings).fit(series, device="cpu")
    np.testing.assert_allclose(forecaster.forecast(series, 3), desired.forecast(series, 3), rtol=1e-4)


def test_the_first_array_of_cupy_decides(second):
    """In whatever it is nested."""
    import cupy

    from gru_xp.nn.scan import on_its_device

    seen = on_its_device(lambda *_, **__: cupy.cuda.runtime.getDevice())
    array = to_device([1.0, 2.0], second)
    assert seen(np.ones(2), SimpleNamespace(a=array)) == 0
    for arguments in ((array,), (None, (3, [array])), ({"a": (np.ones(1), array)},)):
        assert seen(*arguments) == 1
    assert seen(1, like=array) == 1
