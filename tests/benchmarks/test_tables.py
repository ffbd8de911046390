"""The tables of the READMEs, which ``python -m benchmarks.tables`` makes of the files in ``results/``."""

import json
from typing import Any

from benchmarks import tables

SHAPE = {"B": 9, "T": 4, "H": 5, "I": 2}


def row(library: str, variant: str, median: float, **fields: Any) -> dict[str, Any]:
    return {"library": library, "variant": variant, "shape": SHAPE, "problem": None, "median_ms": median, **fields}


def test_the_pages_have_the_results() -> None:
    """If this fails, run ``python -m benchmarks.tables``."""
    for file, text in tables.pages():
        assert file.read_text(encoding="utf-8") == text, file


def test_a_table_has_the_rows_of_this_checkout() -> None:
    rows = [
        row("gru-xp", "public", 999.0, checkout="before"),
        row("gru-xp", "public", 1234.4),
        row("torch", "one layer", 2.0, times_as_fast=1.66),
        row("jax", "jit", 3.0) | {"problem": "it ended"},
        row("jax", "own gradient", 0.04567),
    ]
    header, cells = tables.layer_table(rows)
    assert dict(zip(header[1:], cells[1:], strict=True)) == {
        "gru-xp": "1,234",
        "PyTorch": "2.00",
        "gru-xp in `jax.jit`": "–",
        "with JAX's own gradient": "0.0457",
        "faster than PyTorch by": "1.7 ×",
    }
    assert cells[0] == "9, 4, 5, 2"
    assert tables.markdown([("", "a"), ("b", "c")]) == "| | a |\n|---|---|\n| b | c |\n"


def test_what_is_said_of_a_comparison_with_another_revision() -> None:
    record = json.loads((tables.FOLDER / "results/train-cpu.json").read_text(encoding="utf-8"))
    record["summary"]["against"] = {"geometric_mean": 0.9876, "lowest": 0.95}
    record["settings"] |= {"commit": "abc1234", "against": {"name": "HEAD~1", "commit": "def5678"}}
    text = tables.block("train-cpu", record)
    assert all(part in text.replace("\n", " ") for part in ("abc1234 is 0.988 times", "def5678", "lowest 0.950"))
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith("|"))
