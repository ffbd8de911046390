"""How long forecasts take: CPU time, one at a time and many at once, and wall time from start to end."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.contest import error_line
from benchmarks.model_process import one_thread
from benchmarks.zero_shot import own
from benchmarks.zero_shot.peers import Floats, Windows
from benchmarks.zero_shot.processes import PEERS, Result, run_own, run_peer
from gru_xp.cli.messages import note
from gru_xp.nn.params import arrays_of
from gru_xp.pretrained.features import CONTEXT
from gru_xp.pretrained.weights import WEIGHTS_FILE

SEASON, HORIZON = 12, 12
SHORT = 200
"""Rows of the series that is forecast from start to end."""

BATCH = 256
REPEATS, PEER_REPEATS = {1: 50, BATCH: 7}, {1: 5, BATCH: 3}
"""By number of series, of gru-xp and of other libraries, which take longer."""

FITTED = ("AutoETS", "AutoTheta")
"""Models that are fitted to each series, and gain nothing from batches."""

STARTS = 5
SEED = 0


def series(count: int, length: int) -> list[Floats]:
    """Random walks with a season; each of shape ``(length,)``."""
    rng = np.random.default_rng(SEED)
    season = np.sin(2 * np.pi * np.arange(length) / SEASON)
    return list(100 + 5 * season + rng.standard_normal((count, length)).cumsum(axis=1))


def times(models: Sequence[str], weights: str, work: Path) -> list[dict[str, Any]]:
    """A row for each model: its times and the size of its weights."""
    rows = []
    for model in models:
        note(f"{model}: times")
        if model in PEERS:
            rows.append(_times_of_peer(model, work))
        elif model == own.CALENDAR:
            seconds = [start_seconds(weights) for _ in range(STARTS)]
            rows.append({"model": model, "start_seconds": statistics.median(seconds), **sizes(weights)})
        else:
            batches = [1, BATCH]
            found = [run_own(model, _windows(count, CONTEXT, REPEATS[count]), weights) for count in batches]
            rows.append({"model": model, **_by_batch(batches, found), **sizes(weights)})
    return rows


def _times_of_peer(model: str, work: Path) -> dict[str, Any]:
    batches = [1] if model in FITTED else [1, BATCH]
    found = [run_peer(model, _windows(count, CONTEXT, PEER_REPEATS[count]), work) for count in batches]
    starts = [run_peer(model, _windows(1, SHORT, 1), work).wall_seconds for _ in range(STARTS)]
    about = found[0].about
    return {
        "model": model,
        **_by_batch(batches, found),
        "start_seconds": statistics.median(starts),
        **about.get("sizes", {}),
    }


def _windows(count: int, length: int, repeats: int) -> Windows:
    return Windows(series(count, length), HORIZON, SEASON, repeats)


def _by_batch(batches: Sequence[int], found: Sequence[Result]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for count, result in zip(batches, found, strict=True):
        if result.problem is not None:
            return {"problem": result.problem}
        row[f"batch_{count}_ms"] = 1000 * statistics.median(result.about["seconds"]) / count
    return row


def start_seconds(weights: str) -> float:
    """Seconds of ``gru-xp forecast`` of a CSV file with `SHORT` months, from start to end."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "series.csv")
        days = (date(1990 + month // 12, 1 + month % 12, 1) for month in range(SHORT))
        rows = zip(days, series(1, SHORT)[0].tolist(), strict=True)
        file.write_text("date,value\n" + "".join(f"{day},{value}\n" for day, value in rows), encoding="utf-8")
        command = [sys.executable, "-m", "gru_xp", "forecast", str(file), "--steps", str(HORIZON), "--quiet"]
        command += ["--weights", weights] if weights else []
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=one_thread(), check=False)
        seconds = time.perf_counter() - start
    if done.returncode:
        raise click.ClickException(f"gru-xp forecast failed: {error_line(done.stderr)}")
    return seconds


def sizes(weights: str) -> dict[str, int]:
    """Parameters of the network, and bytes of the file of its weights."""
    parameters = sum(array.size for array in arrays_of(own.load(weights).params))
    file = Path(weights) if weights else Path(str(files("gru_xp.pretrained") / WEIGHTS_FILE))
    return {"parameters": parameters, "weights_bytes": file.stat().st_size}
