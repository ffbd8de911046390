"""Arrays on another CUDA device than the current one."""

import gc
import pickle
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from gru_xp.devices import cupy_ops, resolve_device, to_device, to_host
from gru_xp.errors import DeviceError, ShapeError
from gru_xp.forecasting import Forecaster
from gru_xp.nn import (
    GRUInference,
    GRUParams,
    dropout_mask,
    gaussian_loss,
    gradcheck,
    gru_backward,
    gru_cell_backward,
    gru_cell_forward,
    gru_forward,
    gru_stack_backward,
    gru_stack_forward,
    gru_stack_step,
    gru_step,
    huber_loss,
    init_gru_params,
    init_gru_stack_params,
    init_network_params,
    linear_backward,
    linear_forward,
    mae_loss,
    mse_loss,
    poisson_loss,
    quantile_loss,
    softmax_cross_entropy,
)
from gru_xp.nn.dropout import DropoutRates
from gru_xp.nn.network import network_backward, network_forward
from gru_xp.nn.params import flatten, map_arrays, named_arrays, unflatten
from gru_xp.nn.stack import draw_masks
from gru_xp.training import TrainingConfig, train_on_chunks
from gru_xp.training.trainer import TrainingResult, train

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


def test_training_takes_the_name_of_a_device(second):
    rng = np.random.default_rng(6)
    x, y = (rng.standard_normal((B, 9, 1)) for _ in range(2))
    config = TrainingConfig(num_epochs=2, learning_rate=0.1)
    results = []
    for name in ("cpu", "cuda:1"):
        device = resolve_device(name, fallback=False)
        with device.use():
            params = init_network_params(1, H, 1, xp=device.xp, dtype=device.xp.float64)
        placed = to_device(x, device), to_device(y[:, -1], device)
        with nothing_on_the_first():
            on_chunks = train_on_chunks(params, x, y, config=config, chunk_length=4, device=name)
            at_once = train(params, *placed, config=config, device=name)
        results.append([to_host(a) for trained in (on_chunks, at_once) for a in leaves(trained.params)])
    for actual, desired in zip(*results, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-8, atol=1e-10)


def leaves(value):
    found = []
    map_arrays(found.append, (value,))
    return found


def calls(there):
    """Function, arguments with arrays on a device, and names of arguments that may be elsewhere, of all functions."""
    import cupy

    rng = np.random.default_rng(0)

    def draw(*shape):
        return to_device(rng.standard_normal(shape), there)

    where = {"xp": cupy, "dtype": cupy.float64, "device": 1}
    params = init_gru_params(I, H, reset="after", seed=1, **where)
    layers = init_gru_stack_params(I, H, num_layers=2, seed=2, **where)
    network = init_network_params(I, H, 2, skip_length=T, seed=3, **where)
    x, h, y, hs = draw(B, T, I), draw(B, H), draw(B, 2), draw(2, B, H)
    lengths = to_device(np.arange(2 * B)[::2] % T, there)
    masks = draw_masks(layers, x, DropoutRates(0.3, 0.2, 0.1), 4)
    cell = {"x": x[:, 0], "h_prev": h, "params": params}
    labels = to_device(rng.integers(0, 2, B), there)
    layer, device, config = GRUInference(params), {"device": there}, TrainingConfig(num_epochs=1, learning_rate=0.1)
    gru_cache = gru_forward(x, None, params)[2]
    stack_cache = gru_stack_forward(x, None, layers)[2]
    textbook = {name: getattr(params, name) for name in ("Wz", "Wr", "Wh", "bz", "br", "bh", "bias_hn")}
    whole = {"x": x, "h0": h, "params": params, "lengths": lengths, "candidate_mask": h, "update_mask": draw(B, T, H)}
    losses = [mse_loss, mae_loss, huber_loss, poisson_loss]
    yield gru_forward, whole, ["lengths"]
    yield partial(gru_backward, cache=gru_cache), {"dh": draw(B, T, H), "dh_last": h}, []
    yield gru_cell_forward, cell, []
    yield partial(gru_cell_backward, cache=gru_cell_forward(**cell)[1]), {"dh": h}, []
    yield gru_step, {"x": x[:, 0], "h": h, "params": params}, []
    yield GRUInference, {"params": params}, []
    yield layer, {"x": x, "h0": h}, []
    yield layer.step, {"x": x[:, 0], "h": h}, []
    yield gru_stack_forward, {"x": x, "h0": hs, "layers": layers, "lengths": lengths}, ["lengths"]
    yield partial(gru_stack_backward, cache=stack_cache), {"dh": draw(B, T, H), "dh_last": hs}, []
    yield gru_stack_step, {"x": x[:, 0], "h": hs, "layers": layers}, []
    plain = network._replace(gru=layers, skip=None)
    yield network_forward, {"x": x, "params": plain, "lengths": lengths, "masks": masks}, ["lengths"]
    yield network_forward, {"x": x, "params": network}, []
    yield partial(network_backward, cache=network_forward(x, network)[1]), {"dy": y}, []
    yield linear_forward, {"x": h, "params": network.linear}, []
    yield partial(linear_backward, cache=linear_forward(h, network.linear)[1]), {"dy": y}, []
    for loss in losses:
        yield loss, {"y_pred": y, "y_true": draw(B, 2), "weight": draw(B, 1)}, []
    for loss in (gaussian_loss, partial(quantile_loss, quantiles=(0.1, 0.9))):
        yield loss, {"y_pred": draw(B, 4), "y_true": y, "weight": draw(B, 1)}, []
    yield softmax_cross_entropy, {"logits": y, "labels": labels, "mask": to_device(np.ones(B, bool), there)}, []
    yield GRUParams.from_textbook, textbook, []
    yield lambda params: params.Wz, {"params": params._replace(bias=None, bias_hn=None)}, []
    yield flatten, {"params": network}, []
    check = partial(gradcheck, gru_cell_forward, gru_cell_backward, mode="direction")
    yield lambda **inputs: check(inputs).error and None, cell, []
    learned = {"params": network, "x": x, "y": y, "validation": (x, draw(B, 2))}
    yield partial(train, config=config, **device), learned, []
    chunks = {"params": plain, "x": x, "y": draw(B, T, 2), "lengths": lengths, "h0": hs}
    yield partial(train_on_chunks, chunk_length=3, config=config, **device), chunks, ["x", "y", "lengths", "h0"]


@pytest.mark.parametrize("plain", ["", "1"])
def test_arrays_of_two_devices_are_refused(second, monkeypatch, plain):
    """By name, and with both devices, also where such shapes were computed before; or they are copied."""
    first = resolve_device("cuda:0", fallback=False)
    monkeypatch.setenv("GRU_XP_PLAIN", plain)
    for function, arguments, movable in calls(second):
        desired = results_of([function(**arguments) for _ in range(3)][-1])
        names, values = zip(*arguments.items(), strict=True)
        cases = []
        for number, (name, _) in enumerate(named_arrays(values)):
            for move, error, parts in (
                (lambda a: to_device(a, first), DeviceError, r"cuda:[01].*cuda:[01]"),
                (to_host, ShapeError, r"cupy.*numpy|numpy.*cupy"),
            ):
                position = count()
                moved = map_arrays(lambda a: move(a) if next(position) == number else a, values)  # noqa: B023
                is_movable = names[int(name.partition(".")[0])] in movable
                cases.append((f"{function} {name}", dict(zip(names, moved, strict=True)), is_movable, error, parts))
        copies_parts = getattr(function, "func", None) is train_on_chunks  # each of them, in one piece, where they are
        with nullcontext() if copies_parts else nothing_on_the_first():
            for what, moved, is_movable, error, parts in cases:
                if not is_movable:
                    with pytest.raises(error, match=parts):
                        function(**moved)
                    continue
                for a, d in zip(results_of(function(**moved)), desired, strict=True):
                    assert a.device.id == 1, what
                    np.testing.assert_array_equal(to_host(a), to_host(d), err_msg=what)
                del a, d


def results_of(result):
    """The arrays of what a function returns."""
    result = result.params if isinstance(result, TrainingResult) else result
    return [a for a in leaves(result) if hasattr(a, "device")]


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


FORECASTERS = {
    "layers": {"num_layers": 2, "dropout": 0.2, "batch_size": 16, "horizon": 2},
    "article": {"linear_skip": False, "scaling": "standard", "optimizer": "sgd", "batch_size": None, "loss": "mse"},
    "ridge": {"model": "ridge"},
}


@pytest.mark.parametrize("kind", FORECASTERS)
def test_a_forecaster_lives_on_its_device(second, tmp_path, kind):
    """Whatever it does takes no memory of the first device, and has the bits that it has there."""
    series = np.cumsum(np.random.default_rng(1).standard_normal(40)) + 50
    settings = {"hidden_size": 3, "seq_length": 4, "num_epochs": 1, "validation_ratio": 0.3} | FORECASTERS[kind]
    path, results = tmp_path / "model.safetensors", []

    def use(device):
        forecaster = Forecaster(**settings).fit(to_device(series, resolve_device(device)), device=device)
        forecaster.save(path)
        for other in (forecaster, pickle.loads(pickle.dumps(forecaster)), Forecaster.load(path, device=device)):
            assert other.device.name == device
            assert {f"cuda:{a.device.id}" for a in leaves(other.params)} == {device}
            results.append((other.predict(series), other.forecast(to_device(series, other.device), 3)))
        errors = [forecaster.evaluate(series, 2).metrics, forecaster.backtest(series, 2, device=device).metrics]
        results.append([table["models"] for table in errors])

    with nothing_on_the_first():
        use("cuda:1")
    use("cuda:0")
    half = len(results) // 2
    for number in range(half):
        np.testing.assert_equal(results[number], results[half + number])
    desired = Forecaster(**settings).fit(series, device="cpu")
    np.testing.assert_allclose(results[0][1], desired.forecast(series, 3), rtol=1e-4)


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
