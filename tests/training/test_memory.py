import gc
import itertools
import json
import math
import re
import subprocess
import sys
import tracemalloc
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from gru_xp.devices import Device, cublas, fast_paths, plan_memory, resolve_device, to_device
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.errors import DeviceWarning, GruXpError, MemoryLimitError
from gru_xp.forecasting import Forecaster, fitting
from gru_xp.forecasting.presets import ARTICLE as ARTICLE_PRESET
from gru_xp.forecasting.scaling import Scaler
from gru_xp.forecasting.windows import WindowSequences
from gru_xp.nn.network import init_network_params
from gru_xp.training.memory import (
    TrainingShapes,
    check_memory,
    memory_advice,
    needed_memory,
    prediction_advice,
    training_memory,
)
from gru_xp.training.trainer import TrainingConfig, train

SHAPES = TrainingShapes(n_train=700, n_validation=200, seq_length=30, input_size=1, hidden_size=32)
CONFIG = TrainingConfig(num_epochs=2, learning_rate=1e-6)
MIB = 2**20


def train_on_random_numbers(shapes, config, device):
    rng, s, xp = np.random.default_rng(0), shapes, device.xp
    layers = {"num_layers": s.num_layers, "bidirectional": s.bidirectional, "reset": s.reset}
    with device.use():
        dtype = getattr(xp, s.dtype)
        layers |= {"patch_size": s.patch_size, "skip_length": s.seq_length if s.skip else None}
        params = init_network_params(s.input_size, s.hidden_size, s.output_size, **layers, xp=xp, dtype=dtype)
        learned, validation = (
            []
            if s.gathers
            else [
                xp.asarray(rng.standard_normal((n, *size)).astype(s.dtype))
                for size in ((s.seq_length, s.input_size), (s.output_size,))
            ]
            for n in (s.n_train, s.n_validation)
        )
    if s.gathers:
        learned, validation = [windows(s, s.n_train, rng, device)], windows(s, s.n_validation, rng, device)
    train(params, *learned, config=config, device=device, validation=validation if s.n_validation else None)


def windows(s, n, rng, device):
    """Windows of random rows, as a Forecaster has them."""
    rows = rng.standard_normal((max(n, 1) + s.seq_length + s.output_size - 1, s.input_size))
    scaler = Scaler.fit("window", rows, tuple("abcdefghijkl"[: s.input_size]))
    with device.use():
        placed, starts = (to_device(a, device) for a in (rows, np.arange(n)))
        dtype = getattr(device.xp, s.dtype)
        return WindowSequences(placed, starts, s.seq_length, s.output_size, scaler, dtype=dtype, mean_unit=1.0)


def peak_of_training(shapes, config, device):
    """Bytes that NumPy and Python ask for."""
    tracemalloc.start()
    try:
        train_on_random_numbers(shapes, config, device)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- the estimate -----------------------------------------------------------------------------------------------

RECIPE = {"gathers": True, "seq_length": 16, "patches": 8, "skip": True, "n_train": 150, "n_validation": 0}
STEPS = {"batch_size": 64, "num_steps": 3, "optimizer": "adamw", "loss": "mae", "schedule": "one-cycle", "clip_norm": 1}
ARTICLE = {"gathers": True, "seq_length": 10, "n_train": 70, "n_validation": 0}

CASES = {
    "all at once": ({}, {}),
    "uneven batches": ({"reset": "after"}, {"batch_size": 300}),
    "float64": ({"n_train": 400, "n_validation": 0, "dtype": "float64"}, {}),
    "layers": ({"n_train": 100, "num_layers": 2, "bidirectional": True}, {}),
    "dropout in batches": (
        {"n_train": 128, "num_layers": 2},
        {"dropout": 0.2, "recurrent_dropout": 0.1, "zoneout": 0.1, "batch_size": 64},
    ),
    "long": ({"n_train": 200, "n_validation": 60, "seq_length": 120, "hidden_size": 16}, {}),
    "wide": ({"n_train": 20, "n_validation": 5, "seq_length": 4, "hidden_size": 200}, {"optimizer": "momentum"}),
    "many inputs": ({"n_train": 300, "n_validation": 100, "input_size": 100}, {"batch_size": 100}),
    "patches and a skip": ({"seq_length": 60, "output_size": 24, "patches": 7, "skip": True}, {"batch_size": 300}),
    "gathered": ({"n_train": 5000, "n_validation": 700, "gathers": True}, {"batch_size": 100}),
    "gathered, a budget": (
        {"n_train": 5000, "n_validation": 0, "gathers": True},
        {"batch_size": 150, "num_steps": 4, "optimizer": "adamw", "loss": "mae"},
    ),
    "recipe, wide": (RECIPE | {"hidden_size": 256}, STEPS),
    "some states": (
        {"seq_length": 120, "n_train": 120, "n_validation": 0},
        {"keep_every": 9, "batch_size": 60},
    ),
}
QUICK = {"uneven batches", "layers", "dropout in batches", "patches and a skip", "gathered, a budget", "some states"}
"""Cases in which every kind of memory counts; the others are slow."""
EACH_CASE = pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)


@EACH_CASE
def test_it_is_about_what_is_taken(cpu, case):
    shapes, config = (replace(a, **b) for a, b in zip((SHAPES, CONFIG), CASES[case], strict=True))
    device = replace(cpu, threads=1 if case == "layers" else 2)
    assert 0.88 < peak_of_training(shapes, config, device) / training_memory(shapes, config, device) < 1.12


def test_with_the_standard_alone(cpu, monkeypatch):
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    shapes = replace(SHAPES, n_train=100, n_validation=50)
    assert 0.5 < peak_of_training(shapes, CONFIG, cpu) / training_memory(shapes, CONFIG, cpu) < 2.0


@pytest.fixture
def gpu(monkeypatch):
    """A CUDA device whose ops take memory as plain ones do; 288 MiB of it are free."""
    monkeypatch.setattr(Device, "ops", lambda self: PLAIN_OPS)
    monkeypatch.setattr(Device, "use", lambda self: nullcontext())
    monkeypatch.setattr(Device, "free_memory", lambda self: 2**28 + cublas.WORKSPACE_BYTES)
    return Device("cuda:0", "cuda", "as asked", False, np)


def test_on_a_gpu_the_states_of_a_part_count(gpu, monkeypatch):
    """Memory of one part is there for the next; windows are scaled elsewhere."""
    shapes = replace(SHAPES, n_train=12_000)
    whole = training_memory(shapes, CONFIG, gpu)
    monkeypatch.setattr("gru_xp.devices.primitives.MAX_NUMBERS", 2**22)
    parts = training_memory(shapes, CONFIG, gpu)
    kept = 4 * 12_000 * 30 * 8 * 32  # in float32, eight numbers a unit and step
    data = 4 * 12_400 * 31
    assert kept < whole < 1.5 * kept
    assert data < parts < data + kept / 4


def test_a_gpu_is_named_where_it_has_not_enough(gpu):
    shapes = replace(SHAPES, n_train=400_000)
    config = replace(CONFIG, batch_size=100_000)
    message = refusal(shapes, config, gpu)
    assert "and cuda:0 has 288 MiB free; use batch_size=" in message
    assert message.endswith(", or --device cpu")
    for way in ways(message):
        check_memory(*applied(way, shapes, config), gpu)


@pytest.mark.parametrize(
    ("rows", "features", "settings"),
    [
        (15_000, 1, {"seq_length": 60, "num_steps": 2, "hidden_size": 8}),
        (5000, 9, {"seq_length": 40, "hidden_size": 4, "num_steps": 2}),
        (5000, 9, {"seq_length": 40, "hidden_size": 4, "num_steps": 2, "loss": "poisson"}),
        (5000, 3, dict(ARTICLE_PRESET, hidden_size=2, num_epochs=1, keep_every=3)),
    ],
)
def test_a_forecaster_of_many_rows(cpu, monkeypatch, rows, features, settings):
    """The rows and the gathering of their windows count, which take the most where the network is small."""
    series = np.random.default_rng(0).standard_normal((rows, features)).cumsum(0)
    if settings.get("loss") == "poisson":
        series = np.abs(series).round()
    device = replace(cpu, threads=1)
    estimates, before = [], []

    def check(*arguments):
        estimates.append(training_memory(*arguments))
        tracemalloc.reset_peak()
        before.append(tracemalloc.get_traced_memory()[0])

    monkeypatch.setattr(fitting, "check_memory", check)
    tracemalloc.start()
    try:
        Forecaster(**{"season": "none", "guard": False, **settings}).fit(series, device=device)
        taken = tracemalloc.get_traced_memory()[1] - before[0]
    finally:
        tracemalloc.stop()
    assert 0.9 < estimates[0] / taken < 1.3


def test_it_takes_no_memory_itself(cpu):
    usual = training_memory(SHAPES, CONFIG, cpu)
    for more in (
        {"n_train": 10**6},
        {"n_train": 10**5, "num_layers": 5, "bidirectional": True},
        {"hidden_size": 10**4},
        {"seq_length": 1500},
        {"input_size": 10**6},
    ):
        tracemalloc.start()
        try:
            needed = training_memory(replace(SHAPES, **more), CONFIG, cpu)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert needed > 10 * usual, more
        assert peak < 20 * MIB, more


ON_CUDA = {
    "validation": ({"n_validation": 70}, {"batch_size": 40}),
    "dropout": ({"n_train": 60, "num_layers": 2}, {"dropout": 0.2, "recurrent_dropout": 0.1, "zoneout": 0.1}),
    "layers": ({"n_train": 30, "num_layers": 3, "bidirectional": True}, {}),
    "some states": ({"n_train": 60, "seq_length": 30}, {"keep_every": 6}),
    "float64": ({"dtype": "float64", "reset": "after"}, {}),
    "recipe": (RECIPE | {"hidden_size": 32, "input_size": 1}, STEPS),
    "recipe, 200": (RECIPE | {"hidden_size": 200, "input_size": 1}, STEPS),
    "article, 128": (ARTICLE | {"hidden_size": 128, "input_size": 1}, {"optimizer": "sgd"}),
    "article, 512": (ARTICLE | {"hidden_size": 512, "input_size": 1, "n_train": 9}, {"optimizer": "sgd"}),
    "wide layers": (
        {"hidden_size": 256, "num_layers": 2, "bidirectional": True, "seq_length": 2, "n_train": 16},
        {"batch_size": 8, "optimizer": "momentum"},
    ),
}


@pytest.mark.cuda
@pytest.mark.parametrize("case", ON_CUDA)
def test_on_cuda_it_is_about_what_is_taken(monkeypatch, case):
    """Of the stand-in's pool, with graphs, and with kernels that are checked before their first launch."""
    pool = pytest.importorskip("cupy._device", reason="only the stand-in knows its peak").POOL
    shapes = TrainingShapes(n_train=150, n_validation=0, seq_length=20, input_size=3, hidden_size=24)
    shapes, config = (replace(a, **b) for a, b in zip((shapes, CONFIG), ON_CUDA[case], strict=True))
    device = resolve_device("cuda", fallback=False)
    with device.use():
        cublas.current()  # whose workspace is there once
    monkeypatch.setattr(fast_paths, "_CHECKED", set())
    gc.collect()
    before = pool.peak[0] = pool.used[0]
    train_on_random_numbers(shapes, replace(config, num_epochs=1), device)
    taken = cublas.WORKSPACE_BYTES + pool.peak[0] - before
    estimate = training_memory(shapes, config, device)
    assert 0.9 < (estimate - cublas.WORKSPACE_BYTES) / (taken - cublas.WORKSPACE_BYTES) < 1.3


@pytest.mark.cuda
def test_on_cuda_the_model_is_there_while_the_guard_trains(monkeypatch):
    pool = pytest.importorskip("cupy._device", reason="only the stand-in knows its peak").POOL
    device = resolve_device("cuda", fallback=False)
    with device.use():
        cublas.current()
    estimates = []
    monkeypatch.setattr(fitting, "check_memory", lambda *arguments: estimates.append(training_memory(*arguments)))
    gc.collect()
    before = pool.peak[0] = pool.used[0]
    series = np.random.default_rng(0).standard_normal(500).cumsum()
    Forecaster(hidden_size=150, seq_length=8, season="none", num_steps=1, batch_size=4).fit(series, device=device)
    assert len(estimates) == 2
    assert 0.98 < (estimates[0] - cublas.WORKSPACE_BYTES) / (pool.peak[0] - before) < 1.3


@pytest.mark.cuda
def test_on_cuda_the_large_workspace_is_only_taken_where_there_is_room(with_free, monkeypatch):
    device, small, large = resolve_device("cuda", fallback=False), cublas.SMALL_WORKSPACE_BYTES, cublas.WORKSPACE_BYTES
    monkeypatch.delenv("GRU_XP_NO_FALLBACK", raising=False)
    needed = needed_memory(SHAPES, CONFIG, device)

    def check(free):
        """With so much free before there is any workspace; whether the large one is taken, or there."""
        with device.use():
            with_free(free - cublas.workspace_held())
        check_memory(SHAPES, CONFIG, device)
        with device.use():
            ops, a = device.ops(), device.xp.ones((3, 3))
            assert float(ops.matmul(a, a, device.xp.empty((3, 3)))[0, 0]) == 3.0
            return cublas.workspace_held() == large

    room = needed - small + large
    assert check(room)
    for free in (room - 1, needed):
        with pytest.warns(DeviceWarning, match="MiB free; using a small workspace"):
            assert not check(free)
    assert check(room)
    with pytest.raises(MemoryLimitError, match=r"; use .*, or --device cpu$"):
        check(needed - 1)
    monkeypatch.setenv("GRU_XP_NO_FALLBACK", "1")
    with pytest.raises(
        MemoryLimitError, match=r"; leave out --no-fallback and \w+, or use .*, or --device cpu$"
    ) as caught:
        check(room - 1)
    wanted, there = re.findall(r"[\d.]+ MiB", str(caught.value))[:2]
    assert wanted != there
    with pytest.raises(MemoryLimitError, match=r"; leave out --no-fallback and \w+, and use .*, or --device cpu$"):
        check(needed - 1)
    assert check(room)


SCRIPT = """
import json, re, sys
import numpy as np, psutil
from gru_xp.devices import resolve_device
from gru_xp.forecasting import Forecaster, fitting
from gru_xp.forecasting.presets import ARTICLE as ARTICLE_PRESET
rows, threads, settings = json.loads(sys.argv[1])
series = np.random.default_rng(0).standard_normal((rows, 1)).cumsum(0)
device = resolve_device("cpu", threads=threads)
Forecaster(num_epochs=1, hidden_size=4).fit(series[:200], device=device)  # what is loaded when it is needed
before = psutil.Process().memory_info().rss
Forecaster(**settings).fit(series, device=device)
with open("/proc/self/status") as status:  # getrusage would count what the parent process had
    print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]) - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="how the system counts memory")
@pytest.mark.parametrize(
    ("settings", "n_train", "n_validation"),
    [
        ({"seq_length": 100, "hidden_size": 32, "num_epochs": 1}, 19_900, 0),
        ({"seq_length": 500, "hidden_size": 64, "num_epochs": 1, "batch_size": 256}, 1_500, 500),
        ({"seq_length": 8, "hidden_size": 1000, "num_epochs": 2}, 392, 100),
    ],
)
def test_a_process_grows_by_about_as_much(cpu, settings, n_train, n_validation):
    rows = n_train + n_validation + settings["seq_length"]
    plain = {"batch_size": None, "optimizer": "adam", "scaling": "last", "patches": 0, "linear_skip": False}
    settings = plain | {"guard": False, "validation_ratio": n_validation / rows} | settings
    arguments = json.dumps([rows, 2, settings])
    out = subprocess.run([sys.executable, "-c", SCRIPT, arguments], capture_output=True, text=True, check=True).stdout
    config = replace(CONFIG, num_epochs=settings["num_epochs"], batch_size=settings.get("batch_size"))
    shapes = TrainingShapes(n_train, n_validation, settings["seq_length"], 1, settings["hidden_size"])
    estimate = training_memory(shapes, config, replace(cpu, threads=2))
    assert estimate > 50 * MIB
    assert 0.8 < int(out) / estimate < 1.3


# --- what is refused, and what is advised -----------------------------------------------------------------------


@pytest.fixture
def with_free(monkeypatch):
    """``with_free(nbytes)``: devices have so much memory free."""
    return lambda nbytes: monkeypatch.setattr(Device, "free_memory", lambda self: nbytes)


def refusal(shapes, config, device):
    with pytest.raises(MemoryLimitError) as error:
        check_memory(shapes, config, device)
    message = str(error.value)
    assert "\n" not in message
    return message


def ways(message):
    """The ways that a message advises, each as settings, but for the CPU."""
    advice = message.rpartition("; use ")[2].partition(", or --device cpu")[0]
    return [{n: int(v) for n, v in re.findall(r"(\w+)=(\d+)", way)} for way in advice.split(" or ")]


def applied(way, shapes, config):
    if "seq_length" in way:
        shapes = shapes.with_seq_length(way["seq_length"])
    if "hidden_size" in way:
        shapes = replace(shapes, hidden_size=way["hidden_size"])
    return shapes, replace(config, **{name: way[name] for name in ("batch_size", "keep_every") if name in way})


def test_what_fits_is_let_through(cpu, with_free):
    needed = needed_memory(SHAPES, CONFIG, cpu)
    with_free(needed)
    check_memory(SHAPES, CONFIG, cpu)
    with_free(needed - 1)
    assert refusal(SHAPES, CONFIG, cpu).startswith("training needs about ")


@EACH_CASE
def test_every_advice_helps_and_no_more_than_is_needed(cpu, with_free, case):
    device = replace(cpu, threads=2)
    shapes, config = (replace(a, **b) for a, b in zip((SHAPES, CONFIG), CASES[case], strict=True))
    needed = needed_memory(shapes, config, device)
    for part in ((0.9, 0.2), (0.5, 0.05))[[*CASES].index(case) % 2]:
        free = int(part * needed)
        with_free(free)
        message = refusal(shapes, config, device)
        if message.endswith("setting is enough"):
            small = {"seq_length": 1, "batch_size": 32, "keep_every": math.isqrt(shapes.seq_length)}
            for way in (small, {"hidden_size": 1}, {"batch_size": 1}, {"seq_length": 1}):
                assert needed_memory(*applied(way, shapes, config), device) > free, (part, way)
            continue
        assert ways(message), part
        for way in ways(message):
            assert way, part
            check_memory(*applied(way, shapes, config), device)
            if "batch_size" in way and "seq_length" not in way:
                size = way["batch_size"]
                assert size < (config.batch_size or shapes.n_train), (part, way)
                assert size == 2 ** int(math.log2(size)), (part, way)
                more = way | {"batch_size": 2 * size}
                if 2 * size < (config.batch_size or shapes.n_train):
                    assert needed_memory(*applied(more, shapes, config), device) > free, (part, way)
            if "seq_length" in way:
                assert way["seq_length"] < shapes.seq_length, (part, way)


def test_the_message(cpu, with_free):
    shapes = TrainingShapes(n_train=100_000, n_validation=0, seq_length=1000, input_size=1, hidden_size=64)
    config = replace(CONFIG, batch_size=2048)
    device = replace(cpu, threads=1)
    with_free(3 * 2**30 // 2)
    message = refusal(shapes, config, device)
    assert re.search(r"\b\d\.\d\d GiB of memory, and cpu has 1\.5 GiB free; use .*seq_length=\d+", message), message


def test_long_sequences_can_do_with_some_of_the_states(cpu, with_free):
    shapes = TrainingShapes(n_train=100, n_validation=0, seq_length=2000, input_size=1, hidden_size=200)
    needed = needed_memory(shapes, CONFIG, cpu)
    with_free(3 * needed // 4)
    assert {"keep_every": 44} in ways(refusal(shapes, CONFIG, cpu))
    already = replace(CONFIG, keep_every=44)
    with_free(needed_memory(shapes, already, cpu) // 2)
    assert not any("keep_every" in way for way in ways(refusal(shapes, already, cpu)))


def test_two_changes_where_one_is_not_enough(cpu, with_free):
    shapes = TrainingShapes(n_train=2000, n_validation=0, seq_length=500, input_size=1, hidden_size=64)
    alone = replace(CONFIG, batch_size=1), replace(CONFIG, keep_every=22)
    least = min(needed_memory(shapes, config, cpu) for config in alone)
    both = needed_memory(shapes, replace(CONFIG, batch_size=1, keep_every=22), cpu)
    assert both < least
    with_free(least - 1)
    found = ways(refusal(shapes, CONFIG, cpu))
    assert found
    for way in found:
        check_memory(*applied(way, shapes, CONFIG), cpu)


def test_a_smaller_network_where_nothing_else_is_enough(cpu, with_free):
    shapes = TrainingShapes(n_train=10, n_validation=0, seq_length=1, input_size=1, hidden_size=2000)
    with_free(needed_memory(replace(shapes, hidden_size=999), CONFIG, cpu))
    assert ways(refusal(shapes, CONFIG, cpu)) == [{"hidden_size": 990}]


def test_more_segments_than_can_be_counted_are_refused_before_they_are_counted(cpu, monkeypatch):
    monkeypatch.setattr(Device, "ops", lambda self: pytest.fail("memory was counted"))
    for more, keep_every, segments in (
        ({"seq_length": 10_001}, 1, "10,001"),
        ({"seq_length": 100_001, "num_layers": 2, "bidirectional": True}, 40, "10,004"),
    ):
        message = refusal(replace(SHAPES, **more), replace(CONFIG, keep_every=keep_every), cpu)
        parts = f"keep_every={keep_every} ", f"{segments} segments", "10,000", "larger keep_every", "fewer layers"
        assert all(part in message for part in parts), message


def test_long_sequences_are_counted_without_a_loop_over_their_steps(cpu, monkeypatch):
    """Twice the steps, the same work: plans are looked up as often."""
    lookups = []
    plan = plan_memory.scan_plan
    monkeypatch.setattr(plan_memory, "scan_plan", lambda *key: lookups.append(key) or plan(*key))
    needed = []
    for seq_length in (10**6, 2 * 10**6):
        shapes = replace(SHAPES, n_train=1, n_validation=0, seq_length=seq_length)
        needed.append(needed_memory(shapes, CONFIG, cpu))
        n_lookups = len(lookups)
        lookups.clear()
    assert n_lookups < 20
    assert needed[1] == pytest.approx(2 * needed[0], rel=0.01)


def test_nothing_is_enough(cpu, with_free):
    with_free(1000)
    more = math.ceil((needed_memory(SHAPES, CONFIG, cpu) - 1000) / MIB)
    assert refusal(SHAPES, CONFIG, cpu).endswith(f"; free {more} MiB more, as no setting is enough")


def test_the_error_is_one_of_ours():
    assert issubclass(MemoryLimitError, GruXpError)
    assert issubclass(MemoryLimitError, MemoryError)


# --- memory that runs out all the same --------------------------------------------------------------------------


class OutOfMemoryError(MemoryError):
    """As CuPy has one of that name."""


def test_advice_while_it_trains(cpu):
    needed = needed_memory(SHAPES, CONFIG, cpu)
    for error in (
        MemoryError("Unable to allocate 7.45 GiB for an array"),
        OutOfMemoryError("Out of memory allocating 8,000,000,000 bytes\n(allocated so far: 512 bytes)."),
        RuntimeError("cudaErrorMemoryAllocation: out of memory"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ):
        with pytest.raises(MemoryLimitError) as caught, memory_advice(SHAPES, CONFIG, cpu):
            raise error
        message = str(caught.value)
        assert caught.value.__cause__ is error
        assert "\n" not in message
        assert " ".join(str(error).split()).rstrip(".") in message
        assert ".)" not in message
        assert message.startswith("cpu "), message
        assert ways(message), message
        for way in ways(message):
            assert needed_memory(*applied(way, SHAPES, CONFIG), cpu) <= needed / 2, message


def test_other_errors_stay_what_they_are(cpu):
    contexts = (lambda: memory_advice(SHAPES, CONFIG, cpu), lambda: prediction_advice(9, cpu))
    errors = ValueError("no"), RuntimeError("cudaErrorIllegalAddress"), MemoryLimitError("known"), KeyboardInterrupt()
    for context, error in itertools.product(contexts, errors):
        with pytest.raises(type(error)) as caught, context():
            raise error
        assert caught.value is error


def test_what_it_returns_stays(cpu):
    with memory_advice(SHAPES, CONFIG, cpu):
        result = 3
    assert result == 3


def test_a_prediction_that_runs_out_of_memory(cpu):
    error = MemoryError("Unable to allocate\n115. MiB")
    with (
        pytest.raises(MemoryLimitError) as caught,
        prediction_advice(9, cpu),
    ):
        raise error
    assert caught.value.__cause__ is error
    message = str(caught.value)
    assert message.startswith("cpu ")
    assert all(part in message for part in ("Unable to allocate 115. MiB", "fewer rows", "seq_length below 9"))
    assert "\n" not in message


def test_a_margin_and_the_prediction_are_on_top(cpu, gpu):
    assert needed_memory(SHAPES, CONFIG, cpu) > 1.1 * training_memory(SHAPES, CONFIG, cpu) + MIB
    assert needed_memory(SHAPES, CONFIG, gpu) == int(1.1 * training_memory(SHAPES, CONFIG, gpu))
