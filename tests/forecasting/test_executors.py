import operator
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from concurrent.futures import BrokenExecutor, Future
from contextlib import closing

import numpy as np
import pytest

from gru_xp import Forecaster
from gru_xp.devices.threads import default_threads
from gru_xp.errors import ArgumentError, WorkerError
from gru_xp.forecasting.executors import check_workers, run_tasks

SPAWNED = 60
"""Seconds that processes may take on a busy machine."""


def warn_and_add(common, task):
    warnings.warn(f"task {task}", RuntimeWarning, stacklevel=1)
    return common + task


def threads_and(common, task):
    return default_threads(), common, task


def test_tasks_without_workers_are_done_one_by_one_in_order():
    for workers in (None, 1):
        results = run_tasks(divmod, 100, [7, 9, 0], workers)
        assert next(results) == (0, (14, 2))
        assert next(results) == (1, (11, 1))
        with pytest.raises(ZeroDivisionError):
            next(results)
    assert list(run_tasks(divmod, 100, [], 4)) == []


def test_another_process_warns_here_and_splits_its_work_as_this_one(elsewhere, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with pytest.warns(RuntimeWarning, match="task") as warned:
        assert sorted(run_tasks(warn_and_add, 5, [1, 2], elsewhere)) == [(0, 6), (1, 7)]
    assert sorted(str(warning.message) for warning in warned) == ["task 1", "task 2"]
    assert dict(run_tasks(threads_and, "data", [1, 2], elsewhere)) == {0: (3, "data", 1), 1: (3, "data", 2)}
    with pytest.raises(ZeroDivisionError):
        list(run_tasks(divmod, 1, [0], elsewhere))


def test_what_has_not_begun_does_not_begin_after_a_stop(elsewhere):
    """Nor where the executor breaks."""
    for stop, expected in ((RuntimeError("enough"), RuntimeError), (BrokenExecutor("killed"), WorkerError)):
        elsewhere.idle = [Future(), Future(), Future()]
        elsewhere.idle[1].set_exception(stop)
        waiting = list(elsewhere.idle)
        with pytest.raises(expected):
            list(run_tasks(divmod, 1, [1, 2, 3], elsewhere))
        assert [future.cancelled() for future in waiting] == [True, False, True]


def test_workers_that_are_none():
    for workers in (0, -1, 10**6, True, 2.0, "4", ["a"]):
        with pytest.raises(ArgumentError, match="workers"):
            check_workers(workers)
    assert check_workers(np.int64(3)) == 3


def test_a_forecaster_fits_anywhere_with_the_same_bits(elsewhere, rng):
    """Also where warnings and quantiles come with the forecasts."""
    series = np.sin(np.arange(90) / 3) + 0.1 * rng.standard_normal(90)
    forecaster = Forecaster(hidden_size=3, num_steps=3, loss="quantile", guard=False, horizon=2)
    how = {"steps": 2, "windows": 5, "refit": 2, "device": "cpu"}
    here, there = (forecaster.backtest(series, **how, workers=workers) for workers in (None, elsewhere))
    assert len(elsewhere.calls) == 3
    assert list(here.forecasts) == list(there.forecasts)
    for name, forecast in here.forecasts.items():
        assert there.forecasts[name].tobytes() == forecast.tobytes(), name
    assert there.metrics == here.metrics


@pytest.mark.slow
def test_worker_processes():
    """They have one thread of BLAS, hand on errors, are ended where one of them is killed, and by a stop."""
    assert sorted(run_tasks(divmod, 100, [7, 9, 30], 2)) == [(0, (14, 2)), (1, (11, 1)), (2, (3, 10))]
    asked = ["OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    before = dict(os.environ)
    assert dict(run_tasks(operator.call, os.getenv, asked, 2)) == {0: "1", 1: "1"}
    assert dict(os.environ) == before
    with pytest.raises(ZeroDivisionError):
        list(run_tasks(divmod, 1, [1, 0], 2))
    with pytest.raises(WorkerError, match="fewer workers"):
        list(run_tasks(operator.call, signal.raise_signal, [signal.SIGABRT] * 2, 2))
    with closing(run_tasks(operator.call, time.sleep, [0, 10**6, 10**6], 2)) as results:
        assert next(results) == (0, None)


SCRIPT = """
    import operator, time
    from gru_xp.forecasting.executors import run_tasks
    print("main", flush=True)  # once, though there is no guard
    for _, result in run_tasks(operator.call, time.sleep, [0, 0, 1000, 1000], 2):
        print(result, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX's")
def test_no_worker_outlives_the_process_that_started_it():
    """Neither a Ctrl-C in the terminal, which reaches all of them, nor a kill, which reaches the first alone."""
    import psutil

    for stop in ("interrupt", "kill"):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert [process.stdout.readline() for _ in range(3)] == ["main\n", "None\n", "None\n"]
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        if stop == "interrupt":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
        _, err = process.communicate(timeout=SPAWNED)
        assert process.returncode == {"interrupt": -signal.SIGINT, "kill": -signal.SIGKILL}[stop]
        assert err.count("Traceback") == (stop == "interrupt"), err  # of the script
        _, alive = psutil.wait_procs(workers, timeout=SPAWNED)
        assert alive == []


DASK = """
    import os, signal
    import numpy as np
    from dask.distributed import Client, LocalCluster
    from gru_xp import Forecaster
    from gru_xp.devices import resolve_device
    from gru_xp.forecasting.backtest import FitForecaster, backtest
    from gru_xp.io.series import TimeSeries

    if __name__ == "__main__":
        values = np.sin(np.arange(120) / 3) + 0.1 * np.random.default_rng(0).standard_normal(120)
        fit = FitForecaster(Forecaster(hidden_size=3, num_steps=3).settings(), resolve_device("cpu", threads=2))
        series, origins = TimeSeries(values[:, None], ("y",)), np.arange(100, 120)
        expected = backtest(fit, series, origins, 1, 1, refit=1)
        cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        with cluster, Client(cluster) as client:
            pids = client.run(os.getpid)

            def kill_one(fold, done, total):
                if done == 3:
                    os.kill(next(iter(pids.values())), signal.SIGKILL)

            workers = client.get_executor()
            result = backtest(fit, series, origins, 1, 1, refit=1, workers=workers, on_fold=kill_one)
            assert client.run(os.getpid) != pids
        for name, forecast in expected.forecasts.items():
            assert result.forecasts[name].tobytes() == forecast.tobytes(), name
        print("same")
"""


@pytest.mark.peer
@pytest.mark.slow
def test_a_worker_of_dask_that_is_killed_is_replaced(tmp_path):
    pytest.importorskip("distributed")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(DASK))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # loopback is no network
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=10 * SPAWNED, env=environment, cwd=tmp_path
    )
    assert done.stdout == "same\n", done.stderr
