import itertools
import logging

import numpy as np
import pytest

from gru_xp.devices import compiling, resolve_device, to_device
from gru_xp.devices.compiling import NOTICE, Launches, compile_seconds
from gru_xp.devices.cupy_ops import CupyOps


@pytest.fixture
def notices(monkeypatch, caplog):
    """``notices()`` of a process that has compiled nothing yet."""
    monkeypatch.setattr(compiling, "_PROCESS", compiling._Process())
    caplog.set_level(logging.INFO, logger="gru_xp")
    return lambda: caplog.messages.count(NOTICE)


@pytest.fixture
def took(monkeypatch):
    """``took(seconds)``: each compilation from now on."""

    def took(seconds):
        monkeypatch.setattr(compiling.time, "perf_counter", itertools.count(step=seconds).__next__)

    return took


def test_a_process_that_compiles_says_so_once(notices, took):
    took(0.4)
    for number in range(8):
        with compiling.compiling():
            assert notices() == (number > 2)
    assert compile_seconds() == pytest.approx(3.2)


def test_a_process_that_loads_kernels_from_the_cache_says_nothing(notices, took):
    took(0.005)
    for _ in range(60):
        with compiling.compiling():
            pass
    assert notices() == 0


def test_launches_are_timed_until_one_works(notices, took):
    took(2.0)
    calls = []

    def launch(a, number):
        calls.append((a, number))
        if len(calls) == 1:
            raise ValueError("no memory")

    kernel, a = Launches(launch), np.ones((2, 3))
    with pytest.raises(ValueError, match="no memory"):
        kernel(0, (a,), (a, 0.5))
    for number in (0.5, 0.25, 0.5):
        kernel(0, (a,), (a, number))
    assert [number for _, number in calls] == [0.5, 0.5, 0.25, 0.5]
    assert compile_seconds() == 4.0


def test_what_cupy_compiles_anew_is_timed_anew(notices, took, monkeypatch):
    """On another device, and for arrays of which other axes can be joined; not for other numbers in them."""
    took(1.0)
    monkeypatch.setattr(compiling, "MAX_LAYOUTS", 4)
    kernel, whole = Launches(lambda *given: None), np.ones((4, 3, 2))
    timed = []
    for device, a in [
        (0, whole),
        (0, whole[::-1][::-1]),
        (1, whole),
        (0, whole[:, :2]),
        (0, whole[..., :1]),
        (0, whole),
    ]:
        kernel(device, (a,), (a,))
        timed.append(compile_seconds())
    assert timed == [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]
    kernel(0, (whole[0],), (whole[0],))  # more than are remembered
    assert len(kernel._known) == 1


def double(xp, a):
    return (2.0 * a,)


@pytest.mark.cuda
def test_cuda_kernels(notices, monkeypatch):
    """One line for kernels of both kinds, and none for those that are there."""
    monkeypatch.setattr(compiling, "NOTICE_SECONDS", 0.0)
    device = resolve_device("cuda", fallback=False)
    with device.use():
        ops, a = CupyOps(), to_device(np.ones((2, 3)), device)
        ops.pointwise(double, (a,), out=(a,))
        ops.norm(a, out=a[0, :1])
        assert notices() == 1
        seconds = compile_seconds()
        ops.pointwise(double, (a,), out=(a,))
    assert compile_seconds() == seconds
