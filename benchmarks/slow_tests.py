"""The slow tests as a measurement: each test, how many variants passed, and how long they took together."""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click

from benchmarks.junit import read_cases
from benchmarks.report import json_option, package_version, save_json

OUTCOMES = ("passed", "failed", "skipped")


def read_rows(report: Path) -> list[dict[str, Any]]:
    """A row for each test function of a JUnit report."""
    counts: dict[str, Counter[str]] = {}
    seconds: Counter[str] = Counter()
    for case in read_cases(report):
        test = f"{case.file}.{case.name}".partition("[")[0]
        counts.setdefault(test, Counter())[case.outcome] += 1
        seconds[test] += case.seconds
    return [
        {"test": test, **{outcome: counts[test][outcome] for outcome in OUTCOMES}, "seconds": round(seconds[test], 2)}
        for test in sorted(counts)
    ]


@click.command("slow-tests")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the work of each test.",
)
@json_option
def slow_tests(share: float, json_file: Path | None) -> None:
    """Run the slow tests; with --json, keep the outcome of each."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", "--share", str(share), f"--junitxml={report}"]
        code = subprocess.run(command, check=False).returncode
        if not report.exists():
            raise click.ClickException(f"pytest wrote no report and exited with {code}; see its messages above")
        rows = read_rows(report)
    summary = {outcome: sum(row[outcome] for row in rows) for outcome in OUTCOMES}
    save_json(json_file, "slow-tests", {"pytest": package_version("pytest"), "share": share}, rows, summary)
    if code:
        raise click.ClickException(f"{summary['failed']} slow tests failed; pytest exited with {code}")
