"""``gpu --smoke``: everything that needs a CUDA device, in order of risk, each part in a process of its own."""

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from benchmarks import ended_tests
from benchmarks.contest import DETAILS, OTHER_SETTINGS, ROOT, error_line
from benchmarks.junit import TestCase, read_cases
from benchmarks.report import package_version, save_json
from gru_xp.cli.messages import note, print_table

MINUTES = 4.0
RESERVE = 0.02
"""Share of the time that no part gets: for starting, ending processes and the report."""

MIN_SECONDS = 1.0
"""The shortest time to run a part for."""

BENCHMARK_SHAPE = "64,10,70,1"


@dataclass(frozen=True)
class Part:
    """A command that succeeds, fails, or does not end in its time.

    Attributes
    ----------
    name
        For people.
    share
        Of the time: what earlier parts leave is added, and later parts keep theirs.
    tests
        Arguments of pytest, which runs the tests with `marks` there.
    command
        Arguments of Python, where these are no tests.
    marks
        An expression of pytest's option ``-m``.
    in_spare_time
        Whether the part runs after all others, in the time that they leave.
    """

    name: str
    share: float
    tests: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    marks: str = "cuda and not slow"
    in_spare_time: bool = False


SELECTED = re.compile(r"collected (?:\d+ items? / .*\b)?(\d+) (?:selected|items?)")
ENDED = re.compile(r"\S*::(.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b.*\[ *\d+%\]$")
OUTCOMES = {"PASSED": "passed", "XPASS": "passed", "FAILED": "failed", "ERROR": "failed"} | dict.fromkeys(
    ("SKIPPED", "XFAIL"), "skipped"
)

DEVICES = "tests/devices/test_{}.py"
PARTS: tuple[Part, ...] = (
    Part("device and memory", 0.07, (DEVICES.format("device"),)),
    Part("plain operations", 0.11, ("tests/nn",)),
    Part("cuBLAS", 0.07, (DEVICES.format("cublas"),)),
    Part("elementwise kernels and reductions", 0.10, (DEVICES.format("cupy_ops"), "-k", "not captured")),
    Part("graphs", 0.08, (DEVICES.format("cuda_graph"), DEVICES.format("cupy_ops"), "-k", "cuda_graph or captured")),
    Part("persistent kernels", 0.14, (DEVICES.format("persistent"),)),
    Part("training", 0.12, ("tests/training", "tests/forecasting")),
    Part("command line", 0.07, ("tests/cli",)),
    Part("the other tests", 0.05, ("tests",)),
    Part("equal to the CPU", 0.05, command=("-m", "benchmarks.gpu_checks", "cpu")),
    Part("the same training twice", 0.05, command=("-m", "benchmarks.gpu_checks", "twice")),
    Part("one benchmark", 0.05, command=("-m", "benchmarks", "gpu", "--quick", "--shapes", BENCHMARK_SHAPE)),
    Part("slow tests", 0.04, ("tests",), marks="cuda and slow", in_spare_time=True),
)
"""In order of risk. Of parts with the same marks, a path that is in several, or in another path, runs in one: the most
specific. The share of the slow tests suffices to collect them; they run in the time that the other parts leave."""


@dataclass
class Outcome:
    """How a part ended; `problem` is its first error, and `details` the end of its output.

    The status is ``"passed"``, ``"failed"``, ``"skipped"`` or ``"incomplete"``: ended when its time was over, without a
    failure. `not_reached` is the number of tests that did not run to their end; None if the part has no tests, or was
    ended before they were collected.
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

    def continued(self, rest: "Outcome") -> "Outcome":
        """The outcome of this run, which was incomplete, together with that of the rest of the tests."""
        passed, failed, skipped = self.passed + rest.passed, self.failed + rest.failed, self.skipped + rest.skipped
        seconds = round(self.seconds + rest.seconds, 2)
        status = "passed" if rest.status == "skipped" and passed else rest.status
        return replace(rest, status=status, seconds=seconds, passed=passed, failed=failed, skipped=skipped)


def command_of(part: Part, report: Path, parts: Sequence[Part]) -> list[str]:
    """The process of a part; of tests, with a JUnit report. Paths below its own that other parts have are left out."""
    if part.command:
        return [sys.executable, *part.command]
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


def run_part(part: Part, folder: Path, limit: float, parts: Sequence[Part] = PARTS) -> Outcome:
    """Run a part in a process of its own, and end that and all it started after `limit` seconds.

    Tests that ended in an earlier run with the same folder are left out.
    """
    output, report = folder / "output", folder / "report.xml"
    report.unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_SETTINGS}
    environment |= {"GRU_XP_NO_FALLBACK": "1", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    is_rest = (folder / "ended").exists()
    environment[ended_tests.VARIABLE] = str(folder / "ended")
    start = time.monotonic()
    with output.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command_of(part, report, parts),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                _kill(process)
    outcome = Outcome(part.name, "passed", round(time.monotonic() - start, 2))
    text = output.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    outcome.details = text.strip()[-DETAILS:]
    first, reason = _read(report, outcome, lines)
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


def _cut(outcome: Outcome, limit: float) -> str:
    """How far a part came that was ended after `limit` seconds."""
    if outcome.not_reached is None:
        return f"ended after {limit:.0f} s, before its tests were collected"
    ran = outcome.passed + outcome.failed + outcome.skipped
    return f"ended after {limit:.0f} s: {ran} of {ran + outcome.not_reached} tests ran, {outcome.not_reached} did not"


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


def smoke(minutes: float, json_file: Path | None) -> None:
    """Run all parts and print how each ended.

    Raises
    ------
    click.ClickException
        A part failed, or there is no pytest.
    """
    if find_spec("pytest") is None:
        raise click.ClickException('pytest is not installed; install it with: pip install -e ".[test]"')
    total = 60 * minutes * (1 - RESERVE)
    end = time.monotonic() + total

    def seconds_left(later: Sequence[Part]) -> float:
        return end - time.monotonic() - total * sum(part.share for part in later)

    def run(part: Part, later: Sequence[Part]) -> Outcome:
        limit = max(seconds_left(later), MIN_SECONDS)
        note(f"{part.name}: {limit:.0f} s at most")
        own_folder = Path(folder, part.name)
        own_folder.mkdir(exist_ok=True)
        return run_part(part, own_folder, limit, PARTS)

    regular, spare = ([part for part in PARTS if part.in_spare_time is kind] for kind in (False, True))
    done: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(regular):
            done[part.name] = run(part, [*regular[number + 1 :], *spare])
        for part in regular:
            if done[part.name].status == "incomplete" and seconds_left(spare) > MIN_SECONDS:
                done[part.name] = done[part.name].continued(run(part, spare))
        for number, part in enumerate(spare):
            done[part.name] = run(part, spare[number + 1 :])
    outcomes = [done[part.name] for part in PARTS]
    rows: list[dict[str, Any]] = [asdict(outcome) for outcome in outcomes]
    headers = ("part", "", "passed", "failed", "skipped", "not reached", "seconds", "first error")
    cells = [
        (
            o.name,
            o.status,
            *map(str, (o.passed, o.failed, o.skipped)),
            "" if o.not_reached is None else str(o.not_reached),
            f"{o.seconds:.1f}",
            _short(o.problem or ""),
        )
        for o in outcomes
    ]
    print_table("Checks of the CUDA path", headers, cells, left=len(headers))
    failed = [outcome.name for outcome in outcomes if outcome.status == "failed"]
    incomplete = [outcome.name for outcome in outcomes if outcome.status == "incomplete"]
    summary = {
        "failed": failed,
        "incomplete": incomplete,
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
    }
    settings = {"smoke": True, "minutes": minutes, "pytest": package_version("pytest")}
    save_json(json_file, "gpu", settings, rows, summary)
    for part, outcome in zip(PARTS, outcomes, strict=True):
        if outcome.status == "incomplete":
            command = f"pytest -n0 -m '{part.marks}'" if part.tests else f"python {shlex.join(part.command)}"
            note(f"{outcome.name}: {outcome.problem}; to run all of it: {command}")
    if failed:
        raise click.ClickException(f"{len(failed)} of {len(rows)} parts failed: {', '.join(failed)}")


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:99]}…"
