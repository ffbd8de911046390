"""The benchmarks as a user runs them, in a process of their own from the repository's root."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

RUN_WITH = "import runpy, sys; {}; runpy.run_module('benchmarks', run_name='__main__', alter_sys=True)"
WITHOUT_TORCH = "sys.modules['torch'] = None"
WITHOUT_COMMANDS = "sys.modules['gru_xp.cli'] = None"

TRAIN = ("train", "--device", "cpu", "--quick", "--threads", "1", "--shapes", "9,4,5,2")


def run(*arguments: str, after: str | None = None) -> "subprocess.CompletedProcess[str]":
    start = ("-m", "benchmarks") if after is None else ("-c", RUN_WITH.format(after))
    return subprocess.run(
        [sys.executable, *start, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def run_json(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    """``run_json(*arguments, after=None)``: what is in the JSON file, and stdout and stderr."""

    def run_json(*arguments: str, after: str | None = None) -> tuple[dict[str, Any], str]:
        file = tmp_path / "result.json"
        done = run(*arguments, "--json", str(file), after=after)
        assert done.returncode == 0, done.stderr
        result = json.loads(file.read_text(encoding="utf-8"))
        assert result["benchmark"] == arguments[0]
        assert result.keys() == {"benchmark", "date", "machine", "versions", "settings", "rows"}
        assert result["machine"].keys() == {"system", "cpu", "cores", "threads", "gpus"}
        assert result["machine"]["cpu"]
        assert result["versions"]["numpy"]
        return result, done.stdout + done.stderr

    return run_json


def test_train_takes_the_same_step_as_torch(run_json: Callable[..., Any]) -> None:
    pytest.importorskip("torch")
    result, _ = run_json(*TRAIN, "--repeats", "1")
    ours, torch, before = result["rows"]
    assert [(row["library"], row["variant"]) for row in result["rows"]] == [
        ("gru-xp", "after"),
        ("torch", "float32"),
        ("gru-xp", "before"),
    ]
    for row in result["rows"]:
        assert row["problem"] is None
        assert row["shape"] == {"B": 9, "T": 4, "H": 5, "I": 2}
        assert 0 < row["min_ms"] <= row["q1_ms"] <= row["median_ms"] <= row["q3_ms"]
        assert len(row["round_medians_ms"]) == 1
    assert torch["gradient_difference"] < 1e-5
    assert torch["ratio"] == pytest.approx(ours["median_ms"] / torch["median_ms"])
    assert "ratio" not in before
    assert result["settings"]["torch_measured"] is True


def test_train_without_torch(run_json: Callable[..., Any]) -> None:
    result, text = run_json(*TRAIN, "--reset", "after", after=WITHOUT_TORCH)
    assert [(row["library"], row["variant"]) for row in result["rows"]] == [("gru-xp", "after")]
    assert len(result["rows"][0]["round_medians_ms"]) == 2
    assert result["settings"]["torch_measured"] is False
    assert "PyTorch is not installed" in text


def test_article(run_json: Callable[..., Any], tmp_path: Path) -> None:
    result, text = run_json("article", "--device", "cpu", "--quick", "--plots", str(tmp_path / "plots"))
    assert [row["rows"] for row in result["rows"]] == [2148, 250]
    for row in result["rows"]:
        assert row["cost_end"] < row["cost_start"]
        assert row["parts"].keys() == {"train", "test"}
    assert result["settings"]["published"] == {
        "series": "GOOG, 250 daily rows, 2022-07 to 2023-07",
        "train_mse": 1.70,
        "test_mse": 6.57,
    }
    assert "published" in text
    assert len(list((tmp_path / "plots").glob("*.png"))) == 6


def test_defaults(run_json: Callable[..., Any]) -> None:
    result, _ = run_json("defaults", "--device", "cpu", "--quick")
    default = result["settings"]["defaults"]
    assert {row["series"] for row in result["rows"]} == {"GOOG", "AAPL", "IBM", "sunspots"}
    at_default = [row for row in result["rows"] if all(default[name] == row[name] for name in default if name in row)]
    assert len(at_default) == 4
    for row in result["rows"]:
        assert len(row["test_skill"]) == len(row["validation_skill"]) == len(row["seconds"]) == 1


@pytest.mark.parametrize(
    ("arguments", "after", "message"),
    [
        (("train", "--shapes", "1,2,3"), None, "'1,2,3' is not B,T,H,I"),
        (("train", "--json", "no/such/folder.json"), None, "there is no folder no/such"),
        (("article",), WITHOUT_COMMANDS, 'pip install -e ".[test]"'),
        (("defaults", "--device", "gpu"), None, "device is 'gpu'"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], after: str | None, message: str) -> None:
    done = run(*arguments, after=after)
    assert done.returncode != 0
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last
    assert "Traceback" not in done.stderr
