"""A part of ``gpu --smoke``: tests or a command, in a process of its own that cannot hide what others find."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import ended_tests
from benchmarks.checkout import ROOT
from benchmarks.contest import DETAILS, OTHER_SETTINGS, error_line
from benchmarks.job import Shape
from benchmarks.junit import TestCase, read_cases

MARGIN = 2.0
"""Seconds that a command has for writing its results, before it is ended."""

MIN_SECONDS = 1.0
"""The least time, besides, to start a command with that is told its time."""

LEAST_SECONDS = 0.1
"""The least time to start any part with."""

WAIT_SECONDS = 0.2
"""How often to look whether all parts are stopped."""


@dataclass(frozen=True)
class Part:
    """A command that succeeds, fails, or does not end in its time.

    Attributes
    ----------
    name
        For people.
    share
        Of the time, if it runs beside no other: what earlier parts leave is added, and later parts keep theirs.
    tests
        Arguments of pytest, which runs the tests with `marks` there.
    command
        Arguments of Python, where these are no tests. The values ``{minutes}``, ``{seconds}`` and ``{json}`` of options
        are replaced by the time that the part has, and by the file for its results.
    marks
        An expression of pytest's option ``-m``.
    alone
        Whether no other part may run beside it: it measures times or memory.
    in_spare_time
        Whether the part runs after all others, in the time that they leave.
    takes_shapes
        Whether the command has the option ``--shapes``.
    """

    name: str
    share: float
    tests: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    marks: str = "cuda and not slow"
    alone: bool = False
    in_spare_time: bool = False
    takes_shapes: bool = False

    def with_shapes(self, shapes: Sequence[Shape]) -> "Part":
        """The part, with other shapes if there are any and it takes them."""
        if not shapes or not self.takes_shapes:
            return self
        return replace(self, command=(*self.command, "--shapes", " ".join(",".join(map(str, s)) for s in shapes)))

    def by_hand(self) -> str:
        """What runs all of it, without a limit."""
        if self.tests:
            return f"pytest -n0 -m '{self.marks}'"
        pairs = zip(self.command, (*self.command[1:], ""), strict=True)
        given = [word for word, following in pairs if "{" not in word + following]
        return f"python {shlex.join(given)}"


SELECTED = re.compile(r"collected (?:\d+ items? / .*\b)?(\d+) (?:selected|items?)")
ENDED = re.compile(r"\S*::(.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b.*\[ *\d+%\]$")
OUTCOMES = {"PASSED": "passed", "XPASS": "passed", "FAILED": "failed", "ERROR": "failed"} | dict.fromkeys(
    ("SKIPPED", "XFAIL"), "skipped"
)


@dataclass
class Outcome:
    """How a part ended; `problem` is its first error, and `details` the end of its output.

    The status is ``"passed"``, ``"failed"``, ``"skipped"`` or ``"incomplete"``: ended when its time was over, without a
    failure. `not_reached` is the number of tests that did not run to their end; None if the part has no tests, or was
    ended before they were collected. `results` are those of a command that has some: settings, summary and rows.
    """

    name: str
    status: str
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    not_reached: int | None = None
    problem: str | None = None
    details: str = ""
    results: dict[str, Any] | None = None
    output: str = ""

    def continued(self, rest: "Outcome") -> "Outcome":
        """The outcome of this run, which was incomplete, together with that of the rest of the tests."""
        passed, failed, skipped = self.passed + rest.passed, self.failed + rest.failed, self.skipped + rest.skipped
        seconds = round(self.seconds + rest.seconds, 2)
        if rest.status == "incomplete" and rest.not_reached is None:  # it came no further
            return replace(self, seconds=seconds)
        status = "passed" if rest.status == "skipped" and passed else rest.status
        return replace(rest, status=status, seconds=seconds, passed=passed, failed=failed, skipped=skipped)


def command_of(part: Part, report: Path, parts: Sequence[Part], limit: float = math.inf) -> list[str]:
    """The process of a part; of tests, with a JUnit report. Paths below its own that other parts have are left out."""
    if part.command:
        seconds = max(0.0, limit - MARGIN)
        known = {"{seconds}": f"{seconds:.1f}", "{minutes}": f"{seconds / 60:.3f}", "{json}": str(report)}
        return [sys.executable, *(known.get(argument, argument) for argument in part.command)]
    beside = [other for other in parts if other is not part and other.marks == part.marks]
    others = {path for other in beside for path in other.tests if path.startswith("tests/")}
    ignored = [f"--ignore={path}" for path in sorted(others) if any(path.startswith(f"{own}/") for own in part.tests)]
    options = [
        "-c",
        "pyproject.toml",
        "-v",
        "-m",
        part.marks,
        "-p",
        "no:cacheprovider",
        "-p",
        "benchmarks.ended_tests",
        f"--junitxml={report}",
    ]
    options += ["-o", "addopts=--strict-markers --import-mode=importlib"]  # pytest-xdist is not needed, nor is it safe
    return [sys.executable, "-m", "pytest", *options, *part.tests, *ignored]


def run_part(part: Part, folder: Path, limit: float, parts: Sequence[Part], stopped: threading.Event) -> Outcome:
    """Run a part in a process of its own, and end that and all it started after `limit` seconds, or if it is `stopped`.

    Tests that ended in an earlier run with the same folder are left out. A part is not started if its time is too
    short, and counts as incomplete.
    """
    needed = MARGIN + MIN_SECONDS if {"{minutes}", "{seconds}"}.intersection(part.command) else LEAST_SECONDS
    if limit < needed:
        return Outcome(part.name, "incomplete", 0.0, problem=f"not started: {limit:.0f} s are too few")
    output, report = folder / "output", folder / ("report.xml" if part.tests else "results.json")
    report.unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_SETTINGS}
    environment |= {"GRU_XP_NO_FALLBACK": "1", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # what else is installed must not matter
    is_rest = (folder / "ended").exists()
    environment[ended_tests.VARIABLE] = str(folder / "ended")
    start = time.monotonic()
    with output.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command_of(part, report, parts, limit),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = _wait(process, start + limit, stopped)
        finally:
            if process.poll() is None:
                _kill(process)
    outcome = Outcome(part.name, "passed", round(time.monotonic() - start, 2))
    text = output.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    outcome.output = text.strip()
    outcome.details = outcome.output[-DETAILS:]
    first, reason = _read(report, outcome, lines) if part.tests else (None, "")
    outcome.results = None if part.tests else _results(report)
    if code is None:
        outcome.status = "failed" if outcome.failed else "incomplete"
        ended = _cut(outcome, limit) if part.tests else f"ended after {limit:.0f} s"
        outcome.problem = f"{f'{first}; ' if first else ''}{ended}; {_running(lines)}"
        return outcome
    if code < 0:
        outcome.problem = f"ended by {_signal_name(-code)}; {_running(lines)}"
    elif first is not None:
        outcome.problem = first
    elif part.tests and code == 5:  # pytest found no tests
        outcome.status = "skipped"
    elif code:
        outcome.problem = error_line(text) or f"ended with status {code}"
    elif part.tests and not outcome.passed and not is_rest:
        outcome.problem = f"all tests were skipped: {reason}"
    if outcome.problem is not None:
        outcome.status = "failed"
    return outcome


def _results(file: Path) -> dict[str, Any] | None:
    """What a command wrote with ``--json``, but for the machine; None if there is nothing."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {name: record[name] for name in ("settings", "summary", "rows")}


def _cut(outcome: Outcome, limit: float) -> str:
    """How far a part came that was ended after `limit` seconds."""
    if outcome.not_reached is None:
        return f"ended after {limit:.0f} s, before its tests were collected"
    ran = outcome.passed + outcome.failed + outcome.skipped
    return f"ended after {limit:.0f} s: {ran} of {ran + outcome.not_reached} tests ran, {outcome.not_reached} did not"


def _wait(process: "subprocess.Popen[bytes]", until: float, stopped: threading.Event) -> int | None:
    """The status of a process; None if it has not ended in time, or all are stopped."""
    while (left := until - time.monotonic()) > 0 and not stopped.is_set():
        try:
            return process.wait(min(left, WAIT_SECONDS))
        except subprocess.TimeoutExpired:
            continue
    return process.poll()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """And all processes that it started, where the system has groups of processes."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _running(lines: Sequence[str]) -> str:
    """The test that pytest named last, which it does before it runs it."""
    started = [line.partition(" ")[0] for line in lines if "::" in line.partition(" ")[0]]
    return f"last: {started[-1] if started else lines[-1] if lines else 'nothing'}"


def _read(report: Path, outcome: Outcome, lines: Sequence[str]) -> tuple[str | None, str]:
    """Count the tests in the report, or without one in the output; return the first failure and a reason for a skip."""
    selected = next((int(found[1]) for line in lines if (found := SELECTED.search(line))), None)
    try:
        cases = list(read_cases(report))
    except (OSError, ET.ParseError):  # the process did not get so far
        ended = {found[1]: OUTCOMES[found[2]] for line in lines if (found := ENDED.match(line))}
        cases = [TestCase("", name, ending, "failed", 0.0) for name, ending in ended.items()]
        outcome.not_reached = None if selected is None else selected - len(cases)
    else:
        outcome.not_reached = 0
    counts = Counter(case.outcome for case in cases)
    outcome.passed, outcome.failed, outcome.skipped = (counts[kind] for kind in ("passed", "failed", "skipped"))
    failures = [case for case in cases if case.outcome == "failed"]
    reasons = [case.message for case in cases if case.outcome == "skipped"]
    first = None
    if failures:
        line = " ".join(failures[0].message.split("\n")[0].split())
        first = f"{failures[0].name}: {line}"
    return first, reasons[-1] if reasons else ""
