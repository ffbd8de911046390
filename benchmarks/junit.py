"""Reports of tests, as pytest writes them with ``--junitxml``."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class TestCase(NamedTuple):
    """How a test ended: ``"passed"``, ``"failed"`` or ``"skipped"``, with the message of a test that did not pass."""

    file: str
    name: str
    outcome: str
    message: str
    seconds: float


def read_cases(report: Path) -> Iterator[TestCase]:
    """The tests of a report, in order.

    Raises
    ------
    OSError, xml.etree.ElementTree.ParseError
        There is no such report, or its process did not finish writing it.
    """
    for case in ET.parse(report).iter("testcase"):
        children = {child.tag: child for child in case}
        failure = children.get("failure", children.get("error"))
        skipped = children.get("skipped")
        outcome = "failed" if failure is not None else "passed" if skipped is None else "skipped"
        cause = skipped if failure is None else failure
        message = "" if cause is None else cause.get("message") or ""
        yield TestCase(case.get("classname", ""), case.get("name", ""), outcome, message, float(case.get("time", 0)))
