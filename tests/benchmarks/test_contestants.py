"""What the benchmarks compare: that all contestants compute the same, the floors, and how failures are told."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import own_gru
from benchmarks.contest import Contestant, absolute_difference, compare, geometric_mean, hold, relative_difference
from benchmarks.gpu_floor import floor_ms, peak_of, step_flops
from benchmarks.job import Arrays, Job, Measurement, PeakMemory, time_calls
from benchmarks.products import product_flops, products
from benchmarks.scaling import exponent, sweep, thread_counts
from gru_xp.devices.lowering import Lowered
from gru_xp.devices.primitives import PlainOps
from gru_xp.nn.params import named_arrays
from gru_xp.nn.scan import Array
from gru_xp.training.objective import Objective

SHAPE = (6, 4, 5, 2)
SHORT: dict[str, Any] = {"warm_up_steps": 1, "warm_up_seconds": 0.0, "min_steps": 2, "seconds": 0.0}


def job(task: str, library: str = "gru-xp", variant: str = "after", **fields: Any) -> Job:
    return Job(task, library, variant, **{"shape": SHAPE, **SHORT, **fields})


def arrays_of(measure: Callable[[Job], Measurement], wanted: Job, folder: Path) -> Arrays:
    file = folder / f"{wanted.library}.npz"
    measurement = measure(replace(wanted, arrays_file=str(file)))
    assert len(measurement.times) >= 2
    assert min(measurement.times) > 0
    with np.load(file) as arrays:
        return dict(arrays)


# --- the same results -------------------------------------------------------------------------------------------


@pytest.mark.peer
def test_torch_takes_the_same_step(tmp_path: Path) -> None:
    torch_gru = pytest.importorskip("benchmarks.torch_gru", exc_type=ImportError)
    ours = arrays_of(own_gru.measure, job("train"), tmp_path)
    theirs = arrays_of(torch_gru.measure, job("train", "torch", "float32"), tmp_path)
    assert relative_difference(theirs, ours) < 1e-5


@pytest.mark.peer
def test_weights_come_back_from_torch() -> None:
    torch_gru = pytest.importorskip("benchmarks.torch_gru", exc_type=ImportError)
    params, *_ = job("train").problem()
    again = torch_gru.gradient_from_torch(torch_gru.weights_to_torch(params))
    for (name, a), (expected, b) in zip(named_arrays(again), named_arrays(params), strict=True):
        assert name == expected
        np.testing.assert_array_equal(a, b, err_msg=name)


TASKS = {"forward": "GRUInference", "stream": "step(x, h)", "step": "gru_step", "cell": "gru_cell_forward"}


@pytest.mark.peer
@pytest.mark.parametrize(
    ("library", "tasks"), [("torch", list(TASKS)), *[(name, ["forward", "stream"]) for name in ("onnx", "openvino")]]
)
def test_peers_compute_the_same_states(library: str, tasks: list[str], tmp_path: Path) -> None:
    peer = pytest.importorskip(f"benchmarks.{library}_gru", exc_type=ImportError)
    for task in tasks:
        ours = arrays_of(own_gru.measure, job(task, variant=TASKS[task]), tmp_path)
        theirs = arrays_of(peer.measure, job(task, library), tmp_path)
        assert ours["h"].shape == (6, 4, 5), task
        assert absolute_difference(theirs, ours) < 1e-6, task


@pytest.mark.peer
@pytest.mark.parametrize("library", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_peers_compute_the_same_layer(library: str, tmp_path: Path) -> None:
    peer = pytest.importorskip(f"benchmarks.{library}_gru", exc_type=ImportError)
    ours = arrays_of(own_gru.measure, job("layer"), tmp_path)
    for variant in ("one layer",) if library == "torch" else peer.FUNCTIONS:
        theirs = arrays_of(peer.measure, job("layer", library, variant), tmp_path)
        assert relative_difference(theirs, ours) < 1e-5, variant


def test_our_own_ways_compute_the_same_states(tmp_path: Path) -> None:
    by_sequence = arrays_of(own_gru.measure, job("forward", variant="gru_forward"), tmp_path)
    prepared = arrays_of(own_gru.measure, job("forward", variant="GRUInference"), tmp_path)
    assert absolute_difference(prepared, by_sequence) < 1e-6
    for variant in ("step(x, h)", "step(x)"):
        stream = arrays_of(own_gru.measure, job("stream", variant=variant), tmp_path)
        np.testing.assert_allclose(stream["h"], by_sequence["h"], atol=1e-6)


# --- floors -----------------------------------------------------------------------------------------------------


class CountingOps(Lowered, PlainOps):
    """Counts the operations of all products."""

    flops = 0

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        self.flops += 2 * math.prod(a.shape) * b.shape[-1]
        return super().matmul(a, b, out)

    def contract(self, a: Array, b: Array, out: Array, *, add: bool = False) -> Array:
        self.flops += 2 * math.prod(a.shape) * b.shape[-1]
        return super().contract(a, b, out, add=add)


def test_the_floor_of_the_cpu_is_the_products_of_our_step() -> None:
    B, T, H, I = SHAPE  # noqa: E741
    done = sum(2 * math.prod(a.shape) * b.shape[1] for a, b, _ in products(SHAPE))
    assert done == product_flops(SHAPE)
    for a, b, out in products(SHAPE):
        assert out.shape == (a.shape[0], b.shape[1])
        assert out.flags.c_contiguous

    ops = CountingOps()
    Objective(*job("train").problem(), ops).evaluate()
    linear, loss = 2 * B * (3 * H + 1), 2 * (B + 1)  # the bias's gradient, and the loss, are products with ones
    assert ops.flops - linear - loss == product_flops(SHAPE)

    K = H + I + 1
    forward = 2 * B * K * 3 * H + 2 * B * (I + 1) * H
    backward = 2 * B * 3 * H * H + 2 * 3 * H * B * K + 2 * H * B * (I + 1)
    assert product_flops(SHAPE) == T * (forward + backward)


def test_the_floor_of_a_gpu_follows_from_what_it_says_of_itself() -> None:
    attributes = {
        "MultiProcessorCount": 132,
        "ClockRate": 1_980_000,
        "MemoryClockRate": 3_201_000,
        "GlobalMemoryBusWidth": 6144,
        "L2CacheSize": 60 * 2**20,
    }
    peak = peak_of("a GPU", "90", attributes)
    assert peak.compute_capability == "9.0"
    assert peak.flops["ieee"] == pytest.approx(66.9e12, rel=1e-3)
    assert peak.flops["tf32"] == pytest.approx(535e12, rel=1e-3)
    assert peak.bytes_per_second == pytest.approx(4.92e12, rel=1e-3)

    large = (4096, 32, 128, 8)
    assert step_flops(large) == pytest.approx(product_flops(large), rel=0.03)  # less products with ones
    ieee, tf32 = (floor_ms(large, precision, peak) for precision in ("ieee", "tf32"))
    assert ieee["floor_ms"] == ieee["floor_products_ms"] == pytest.approx(0.602, rel=0.01)
    assert tf32["floor_ms"] == tf32["floor_memory_ms"] == pytest.approx(0.138, rel=0.01)
    assert floor_ms((64, 10, 70, 1), "tf32", peak)["floor_memory_ms"] == 0  # it fits in the cache

    unknown = peak_of("a GPU of another time", "990", {})
    assert unknown.flops == {"ieee": None, "tf32": None}
    assert floor_ms(large, "ieee", unknown)["floor_ms"] is None


# --- how it is measured -----------------------------------------------------------------------------------------


def test_pipelined_steps() -> None:
    measurement = own_gru.measure(job("train", pipelined_steps=3))
    assert measurement.pipelined_seconds is not None
    assert measurement.pipelined_seconds > 0


def test_peak_memory() -> None:
    memory = PeakMemory()
    if memory.growth() is None:
        pytest.skip("the system does not tell")
    np.ones(2**26, np.uint8)
    growth = memory.growth()
    assert growth is not None
    assert 0.9 * 2**26 < growth < 2**27
    if Path("/proc/self/clear_refs").exists():
        after = PeakMemory().growth()
        assert after is not None
        assert after < 2**24


def test_calls_are_timed_one_by_one_where_they_are_long() -> None:
    def call() -> None:
        time.sleep(0.002)

    times = time_calls(job("forward", steps=4), call)
    assert len(times) == 4
    assert min(times) >= 0.002


def test_one_failure_does_not_end_the_others(tmp_path: Path) -> None:
    good, bad, other = (Contestant(job("train", variant=variant)) for variant in ("after", "nonsense", "before"))
    hold([[good, bad, other]], 2, label="here")
    assert good.problem is None
    assert len(good.rounds) == len(other.rounds) == 2
    assert len(good.rounds[0].times) == len(good.rounds[1].times)
    assert bad.problem is not None
    assert "nonsense" in bad.problem
    assert "Traceback" in bad.row()["problem_details"]
    assert compare(good, bad) == {}
    assert compare(good, other)["times_as_fast"] == pytest.approx(other.median_ms / good.median_ms)


def test_nothing_runs_when_the_time_is_up() -> None:
    contestant = Contestant(job("train"))
    hold([[contestant]], 1, label="here", until=time.monotonic())
    assert contestant.problem == "not run: the time was up"


def test_scaling_exponents() -> None:
    assert exponent([1, 2, 4, 8], [3, 6, 12, 24]) == pytest.approx(1)
    assert exponent([1, 2, 4], [1, 4, 16]) == pytest.approx(2)
    assert sweep("T", (8, 4, 2, 1), 2) == [(8, 4, 2, 1), (8, 8, 2, 1), (8, 16, 2, 1)]
    assert [thread_counts(most) for most in (1, 2, 6)] == [[1], [1, 2], [1, 2, 4, 6]]
    assert geometric_mean([1, 4]) == pytest.approx(2)
