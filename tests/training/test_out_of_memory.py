"""Memory that runs out in the middle of a training, once or for good."""

import gc
import itertools
import warnings
from functools import partial

import numpy as np
import pytest

from gru_xp.devices import cublas, resolve_device, to_device, to_host
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.errors import DeviceError, DeviceWarning, MemoryLimitError
from gru_xp.forecasting import Forecaster
from gru_xp.nn.params import flatten, map_arrays
from gru_xp.training import trainer
from gru_xp.training.memory import TrainingShapes, memory_advice
from gru_xp.training.trainer import TrainingConfig, train

KINDS = {
    "one batch": ({}, {}),
    "batches": ({"num_layers": 2}, {"batch_size": 4, "dropout": 0.3, "zoneout": 0.1, "keep_every": 3}),
}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("GRU_XP_NO_FALLBACK", raising=False)


@pytest.fixture
def at_first_run(monkeypatch):
    """``at_first_run(function)``: call it when a training is about to compute, after all that it prepares."""

    def at_first_run(function):
        run, waiting = trainer._Captures.run, [function]

        def first(self, *arguments, **options):
            if waiting:
                waiting.pop()()
            return run(self, *arguments, **options)

        monkeypatch.setattr(trainer._Captures, "run", first)

    return at_first_run


@pytest.fixture
def fail_after(monkeypatch):
    """``fail_after(n)``: of the arrays that NumPy's ops make from now on, the one after so many fails, once.

    It returns a function that says whether it has failed.
    """
    left = [None]

    def empty(self, shape, like, original=NumpyOps.empty):
        if left[0] == 0:
            left[0] = None
            raise MemoryError(f"Unable to allocate an array with shape {shape}")
        if left[0] is not None:
            left[0] -= 1
        return original(self, shape, like)

    def fail_after(n):
        left[0] = n
        return lambda: left[0] is None

    monkeypatch.setattr(NumpyOps, "empty", empty)
    return fail_after


@pytest.fixture
def trained(problem):
    """``trained(kind, device, ...)``: parameters, as bytes, and costs of a training, and the warnings that it gave."""
    problems = {kind: problem(T=7, dtype="float32", **layers) for kind, (layers, _) in KINDS.items()}
    return lambda kind, *arguments, **options: _trained(problems[kind], KINDS[kind][1], *arguments, **options)


def _trained(p, config, device, **options):
    params, x, y = map_arrays(partial(to_device, device=device), (p.params, p.x, p.y))
    config = TrainingConfig(num_epochs=4, learning_rate=0.01, **config)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        result = train(params, x, y, config=config, device=device, validation=(x[:2], y[:2]), **options)
    numbers = to_host(flatten(result.params)).tobytes(), [(r.cost, r.validation_cost) for r in result.history]
    return numbers, [str(w.message) for w in given if issubclass(w.category, DeviceWarning)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_goes_on_without_what_was_captured(cpu, trained, fail_after, kind):
    expected, no_warnings = trained(kind, cpu)
    assert not no_warnings
    for n in itertools.count(step=101):
        has_failed = fail_after(n)
        numbers, given = trained(kind, cpu)
        assert numbers == expected, n
        if not has_failed():
            break
        assert len(given) == 1, n
        assert given[0].startswith("cpu ran out of memory; using")
    assert n > 100


def test_an_update_that_has_begun_is_not_repeated(cpu, trained, monkeypatch):
    def fail(xp, *arrays):
        raise MemoryError("in the middle of an update")

    monkeypatch.setattr(trainer, "_watch", fail)
    with pytest.raises(MemoryError, match="in the middle"):
        trained("one batch", cpu)


def test_an_update_that_is_done_is_not_repeated(cpu, trained, monkeypatch):
    run, fails = trainer._Captures.run, iter([False, True])  # after the first gradient, and its update

    def fail_afterwards(self, function):
        run(self, function)
        if next(fails, False):
            raise MemoryError("after an update")

    monkeypatch.setattr(trainer._Captures, "run", fail_afterwards)
    with pytest.raises(MemoryError, match="after an update"):
        trained("one batch", cpu)


def test_other_errors_are_raised(cpu, trained, at_first_run):
    def fail():
        raise ValueError("no")

    at_first_run(fail)
    with pytest.raises(ValueError, match="no"):
        trained("one batch", cpu)


# --- on CUDA, through the stand-in ------------------------------------------------------------------------------


@pytest.fixture
def pool():
    """The pool of the stand-in."""
    pool = pytest.importorskip("cupy._device", reason="only the stand-in fails when it is told to").POOL
    yield pool
    pool.fail_after = None
    pool.limit[0] = 0
    cublas.choose_workspace(is_small=False)


@pytest.fixture
def cuda():
    device = resolve_device("cuda", fallback=False)
    with device.use():
        cublas.current()  # after the self-check, which is not to fail
    return device


RUNS = {
    "steps": {"num_steps": 3, "guard": False},
    "epochs": {"num_epochs": 2, "validation_ratio": 0.3, "batch_size": 16},
    "all": {"num_epochs": 2, "validation_ratio": 0.3, "batch_size": None, "num_layers": 2, "guard": False},
}


@pytest.mark.cuda
@pytest.mark.parametrize("step", [19, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", RUNS)
def test_cuda_memory_that_fails_once(cuda, pool, rng, kind, step):
    """At any allocation of a whole run, from the first rows on the device to the last."""
    series = 20 + 5 * np.sin(np.arange(50.0)) + rng.standard_normal(50)

    def fitted():
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            model = Forecaster(hidden_size=4, seq_length=6, season=6, **RUNS[kind]).fit(series, device=cuda)
        left, pool.fail_after = pool.fail_after, None
        costs = [(record.cost, record.validation_cost) for record in model.training.history]
        texts = [str(w.message) for w in given if issubclass(w.category, DeviceWarning)]
        return (to_host(flatten(model.params)).tobytes(), costs), texts, left is None

    fitted()  # compiles kernels
    expected, no_warnings, _ = fitted()
    assert not no_warnings
    for n in itertools.count(step=step):
        pool.fail_after = n
        numbers, given, has_failed = fitted()
        assert numbers == expected, n
        if not has_failed:
            break
        assert len(given) <= 1, n  # none where forecasts are computed again, of half as many windows
        assert all(text.startswith("cuda:0 ran out of memory; using") for text in given), given
        assert given or n, "not even the first failure was seen"
        cublas.choose_workspace(is_small=False)
    assert n > 40


@pytest.mark.cuda
@pytest.mark.parametrize("kind", RUNS)
def test_cuda_memory_is_free_again_without_the_garbage_collector(cuda, pool, rng, kind):
    """So a training that follows, as after that of the guard, has all of it."""
    series = 20 + 5 * np.sin(np.arange(50.0)) + rng.standard_normal(50)
    gc.collect()
    gc.disable()
    try:
        used = []
        for _ in range(2):  # the first one may leave what is kept for good
            Forecaster(hidden_size=4, seq_length=6, season=6, **RUNS[kind]).fit(series, device=cuda)
            used.append(pool.used[0])
    finally:
        gc.enable()
    assert used[0] == used[1]


@pytest.mark.cuda
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_graphs_are_dropped(cuda, pool, trained, at_first_run, kind):
    expected, no_warnings = trained(kind, cuda)
    assert not no_warnings
    for n in (0, 7, 20):
        at_first_run(lambda n=n: setattr(pool, "fail_after", n))
        numbers, given = trained(kind, cuda)
        assert numbers == expected, n
        assert len(given) <= 1, given
        assert all(text.startswith("cuda:0 ran out of memory; using") for text in given), given
        assert given or n, "not even the first failure was seen"


@pytest.mark.cuda
def test_cuda_graphs_are_dropped_in_a_later_epoch(cuda, pool, trained):
    """When graphs are there, and hold memory: it is free afterwards."""
    import cupy

    used = []

    def callback(record):
        used.append(pool.used[0])
        if record.epoch == 2:
            pool.fail_after = 0

    expected, _ = trained("batches", cuda)
    graphs = cupy._device.STATS["launches of graphs"]
    numbers, given = trained("batches", cuda, callback=callback)
    assert numbers == expected
    assert len(given) == 1
    assert cupy._device.STATS["launches of graphs"] > graphs
    assert used[3] < used[2]


@pytest.mark.cuda
def test_the_workspace_of_cublas_is_given_up_as_well(cuda, pool, trained, at_first_run):
    """There is no other memory at all."""

    def full():
        assert cublas.workspace_held() == cublas.WORKSPACE_BYTES
        gc.collect()
        pool.free_all_blocks()
        pool.limit[0] = pool.held[0]

    expected, _ = trained("one batch", cuda)
    at_first_run(full)
    numbers, given = trained("one batch", cuda)
    assert numbers == expected
    assert len(given) == 1
    assert cublas.workspace_held() == 0


@pytest.mark.cuda
def test_cuda_graphs_are_not_dropped_where_nothing_may_be_slower(cuda, pool, trained, at_first_run, monkeypatch):
    monkeypatch.setenv("GRU_XP_NO_FALLBACK", "1")
    at_first_run(lambda: setattr(pool, "fail_after", 0))
    with pytest.raises(DeviceError, match=r"^cuda:0 .*memory.*--no-fallback"):
        trained("batches", cuda)


@pytest.mark.cuda
def test_cuda_memory_that_is_gone_for_good(cuda, pool, trained, at_first_run):
    def full():
        pool.free_all_blocks()
        pool.limit[0] = 1

    at_first_run(full)
    shapes = TrainingShapes(n_train=9, n_validation=2, seq_length=7, input_size=2, hidden_size=5, output_size=2)
    config = TrainingConfig(num_epochs=4, learning_rate=0.01)
    with (
        pytest.raises(MemoryLimitError, match=r"^cuda:0 .*Out of memory.*; free .*") as caught,
        memory_advice(shapes, config, cuda),
    ):
        trained("one batch", cuda)
    assert "\n" not in str(caught.value)
