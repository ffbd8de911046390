"""A plugin of pytest that continues an earlier run: it leaves out the tests that have ended, and records each one."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the benchmarks need no pytest
    import pytest

VARIABLE = "GRU_XP_ENDED_TESTS"
"""Environment variable that names the file with the identifiers of the tests that have ended, one per line."""


def pytest_collection_modifyitems(config: "pytest.Config", items: "list[pytest.Item]") -> None:
    """Leave out the tests that have ended."""
    file = Path(os.environ[VARIABLE])
    ended = set(file.read_text(encoding="utf-8").splitlines()) if file.exists() else set()
    if left_out := [item for item in items if item.nodeid in ended]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid not in ended]


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Record a test that has ended."""
    with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(f"{nodeid}\n")
