"""``reading``: CPU time and peak memory of reading a CSV file of dates and values, compared with pandas and pyarrow.

``python -m benchmarks.reading LIBRARY FORM FILE WARM_UP_FILE`` is one process of the measurement: it reads the files
with one library, and prints the result for the first one as JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.checkout import ROOT
from benchmarks.contest import OTHER_SETTINGS, TIME_LIMIT, error_line
from benchmarks.job import SEED, PeakMemory
from benchmarks.report import (
    grouped,
    json_option,
    number_text,
    package_version,
    quick_option,
    range_text,
    repeats_option,
    save_json,
)
from gru_xp.cli.messages import note, print_table
from gru_xp.cli.options import Command

ROWS = 400_000
QUICK_ROWS = 2_000
WARM_UP_ROWS = 200
START = datetime(2006, 12, 16, 17, 24)

TARGETS = {"%d/%m/%Y %H:%M:%S": 2.5, "%Y-%m-%d %H:%M:%S": 5.0}
"""The forms of dates, and the largest ratio of gru-xp's CPU time to that of pandas."""

Read = Callable[[str, str], Any]


@dataclass(frozen=True)
class Measurement:
    """One reading of a file.

    Attributes
    ----------
    cpu_seconds
        Of all threads of the process.
    peak_bytes
        How much the process grew at most; None where the system does not tell.
    rows, cells
        Which were read.
    content
        The first date, the last one, and the sum of the values, to compare.
    """

    cpu_seconds: float
    peak_bytes: int | None
    rows: int
    cells: int
    content: tuple[str, str, float]


def write_rows(file: Path, form: str, rows: int) -> None:
    """Write one row a minute: the date in this form, and a value with three decimals."""
    values = np.random.default_rng(SEED).uniform(0.1, 10, rows)
    lines = (f"{START + timedelta(minutes=row):{form}},{value:.3f}" for row, value in enumerate(values))
    file.write_text("\n".join(("date,value", *lines, "")), encoding="utf-8")


# --- one process ------------------------------------------------------------------------------------------------


def _gru_xp() -> tuple[Read, Callable[[Any], tuple[Any, Any]]]:
    from gru_xp.io.read import read_series

    return lambda file, form: read_series(file), lambda series: (series.dates, series.values[:, 0])


def _pandas() -> tuple[Read, Callable[[Any], tuple[Any, Any]]]:
    import pandas as pd

    def read(file: str, form: str) -> pd.DataFrame:
        frame = pd.read_csv(file)
        return frame.assign(date=pd.to_datetime(frame["date"], format=form))

    return read, lambda frame: (frame["date"], frame["value"])


def _pyarrow() -> tuple[Read, Callable[[Any], tuple[Any, Any]]]:
    import pyarrow as pa
    from pyarrow import csv

    def read(file: str, form: str) -> Any:
        types = {"date": pa.timestamp("s"), "value": pa.float64()}
        return csv.read_csv(file, convert_options=csv.ConvertOptions(column_types=types, timestamp_parsers=[form]))

    return read, lambda table: (table["date"], table["value"])


LIBRARIES = {"gru-xp": _gru_xp, "pandas": _pandas, "pyarrow": _pyarrow}
"""By name: a function that returns one that reads a file, and one that takes dates and values from its result."""


def measure(library: str, form: str, file: Path, warm_up_file: Path) -> Measurement:
    """Read a file with one library, after a short one, in this process."""
    read, take = LIBRARIES[library]()
    read(str(warm_up_file), form)
    memory = PeakMemory()
    start = time.process_time()
    result = read(str(file), form)
    seconds = time.process_time() - start
    peak = memory.growth()
    dates, values = (np.asarray(column) for column in take(result))
    first, last = (str(np.datetime64(dates[row], "s")) for row in (0, -1))
    content = (first, last, float(np.sum(values)))
    return Measurement(seconds, peak, len(values), len(dates) + len(values), content)


def measure_in_process(library: str, form: str, file: Path, warm_up_file: Path) -> Measurement:
    """Do the same in a process of its own; raise ClickException where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reading", library, form, str(file), str(warm_up_file)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in OTHER_SETTINGS},
        timeout=TIME_LIMIT,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(f"{library} cannot read {form}: {error_line(done.stderr)}")
    result = json.loads(done.stdout)
    return Measurement(**{**result, "content": tuple(result["content"])})


# --- the command ------------------------------------------------------------------------------------------------


@click.command(cls=Command)
@click.option("--rows", type=click.IntRange(min=2), default=ROWS, show_default=True, help="Rows of the files.")
@repeats_option(5)
@quick_option(f"One round of {QUICK_ROWS} rows")
@json_option
def reading(rows: int, repeats: int, quick: bool, json_file: Path | None) -> None:
    """Take the CPU time and peak memory of reading dates and values, compared with pandas and pyarrow.

    The libraries take turns, each turn in a fresh process; all must read the same dates and values.
    """
    rows, repeats = (QUICK_ROWS, 1) if quick else (rows, repeats)
    libraries = [library for library in LIBRARIES if library == "gru-xp" or find_spec(library)]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        file, warm_up_file = Path(folder, "rows.csv"), Path(folder, "warm-up.csv")
        for form in TARGETS:
            write_rows(file, form, rows)
            write_rows(warm_up_file, form, WARM_UP_ROWS)
            rounds: dict[str, list[Measurement]] = {library: [] for library in libraries}
            for number in range(repeats):
                note(f"{START:{form}}: round {number + 1} of {repeats}")
                for library in libraries:
                    rounds[library].append(measure_in_process(library, form, file, warm_up_file))
            results += rows_of(form, rounds)

    print_table(
        f"Reading {rows:,} rows of date and value",
        ("dates", "library", "CPU ms, median", "min", "by pandas", "in rounds", "peak MiB", "rows", "cells"),
        list(grouped(_cells(results))),
        left=2,
    )
    summary = {
        row["example"]: {"by_pandas": row["by_pandas"], "target": row["target"]}
        for row in results
        if row["library"] == "gru-xp"
    }
    for example, numbers in summary.items():
        click.echo(f"{example}: {numbers['by_pandas']:.2f} times the CPU time of pandas; target: {numbers['target']:g}")
    for library in sorted(LIBRARIES.keys() - libraries):
        note(f"{library} is not installed: there are no times of it")
    versions = {library: package_version(library) for library in LIBRARIES if library != "gru-xp"}
    save_json(json_file, "reading", {"rows": rows, "repeats": repeats, "quick": quick, **versions}, results, summary)


def rows_of(form: str, rounds: dict[str, list[Measurement]]) -> list[dict[str, Any]]:
    """The results for one form of dates; ClickException where the libraries did not read the same."""
    milliseconds = {name: [1e3 * one.cpu_seconds for one in measured] for name, measured in rounds.items()}
    expected = rounds["pandas"][0]
    rows = []
    for library, measured in rounds.items():
        first = measured[0]
        _check(library, first, expected)
        ratios = [a / b for a, b in zip(milliseconds[library], milliseconds["pandas"], strict=True)]
        peaks = [one.peak_bytes for one in measured if one.peak_bytes is not None]
        rows.append(
            {
                "form": form,
                "example": f"{START:{form}}",
                "library": library,
                "rows": first.rows,
                "cells": first.cells,
                "cpu_median_ms": float(np.median(milliseconds[library])),
                "cpu_min_ms": min(milliseconds[library]),
                "round_cpu_ms": milliseconds[library],
                "by_pandas": float(np.median(milliseconds[library]) / np.median(milliseconds["pandas"])),
                "by_pandas_min": min(ratios),
                "by_pandas_max": max(ratios),
                "peak_bytes": max(peaks, default=None),
                "target": TARGETS[form] if library == "gru-xp" else None,
            }
        )
    return rows


def _check(library: str, measured: Measurement, expected: Measurement) -> None:
    *dates, total = measured.content
    *expected_dates, expected_total = expected.content
    if (measured.rows, dates) != (expected.rows, expected_dates) or not np.isclose(total, expected_total, rtol=1e-12):
        raise click.ClickException(
            f"{library} reads {measured.rows} rows, {measured.content}, and pandas {expected.rows} rows, "
            f"{expected.content}"
        )


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for row in rows:
        peak = row["peak_bytes"]
        yield (
            (row["example"],),
            (
                row["library"],
                number_text(row["cpu_median_ms"]),
                number_text(row["cpu_min_ms"]),
                f"{row['by_pandas']:.2f}",
                range_text(row["by_pandas_min"], row["by_pandas_max"]),
                "" if peak is None else number_text(peak / 2**20),
                f"{row['rows']:,}",
                f"{row['cells']:,}",
            ),
        )


if __name__ == "__main__":
    library, form, *files = sys.argv[1:]
    print(json.dumps(asdict(measure(library, form, *map(Path, files)))))
