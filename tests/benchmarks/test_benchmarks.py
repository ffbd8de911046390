"""The benchmarks as a user runs them, in a process of their own from the repository's root."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gru_xp.devices import cuda_problem

ROOT = Path(__file__).resolve().parents[2]

RUN_WITH = "import runpy, sys; {}; runpy.run_module('benchmarks', run_name='__main__', alter_sys=True)"
WITHOUT_TORCH = "sys.modules['torch'] = None"
WITHOUT_PEERS = "sys.modules.update(torch=None, onnx=None, onnxruntime=None)"
WITH_THE_CPU_FOR_A_GPU = (
    "sys.modules['torch'] = None; import benchmarks.gpu as gpu; gpu.DEVICE = 'cpu'; gpu.cuda_problem = lambda: None; "
    "gpu.query_peak = lambda: gpu.Peak('none', '0.0', {'ieee': 1e12, 'tf32': None}, 1e12, 0)"
)
WITHOUT_COMMANDS = "sys.modules['gru_xp.cli'] = None"

TRAIN = ("train", "--quick", "--threads", "1", "--shapes", "9,4,5,2")


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
        assert result.keys() == {"benchmark", "date", "machine", "versions", "settings", "summary", "rows"}
        assert result["machine"].keys() == {"system", "cpu", "cores", "threads", "gpus"}
        assert result["machine"]["cpu"]
        assert result["versions"]["numpy"]
        return result, done.stdout + done.stderr

    return run_json


def check_times(row: dict[str, Any], rounds: int) -> None:
    assert row["problem"] is None
    assert 0 < row["min_ms"] <= row["q1_ms"] <= row["median_ms"] <= row["q3_ms"]
    assert len(row["round_medians_ms"]) == rounds


def test_train_beside_torch_and_the_products(run_json: Callable[..., Any]) -> None:
    pytest.importorskip("torch")
    result, text = run_json(*TRAIN, "--repeats", "1")
    ours, torch, floor, _ = result["rows"]
    assert [(row["library"], row["variant"]) for row in result["rows"]] == [
        ("gru-xp", "after"),
        ("torch", "float32"),
        ("products", "after"),
        ("gru-xp", "before"),
    ]
    for row in result["rows"]:
        check_times(row, 1)
        assert row["shape"] == {"B": 9, "T": 4, "H": 5, "I": 2}
    assert torch["gradient_difference"] < 1e-5
    assert torch["times_as_fast"] == pytest.approx(torch["median_ms"] / ours["median_ms"])
    assert floor["ours_by_floor"] == pytest.approx(ours["median_ms"] / floor["median_ms"])
    summary = result["summary"]
    assert summary["times_as_fast_geometric_mean"] == pytest.approx(torch["times_as_fast"])
    assert summary["ours_by_floor_highest"] == floor["ours_by_floor"]
    if sys.platform == "linux":
        assert ours["peak_bytes"] > 0
        assert torch["peak_bytes"] > 0
    assert f"{torch['times_as_fast']:.2f} times as fast as PyTorch" in text
    assert result["settings"]["torch_measured"] is True


def test_train_without_torch(run_json: Callable[..., Any]) -> None:
    result, text = run_json(*TRAIN, "--reset", "after", after=WITHOUT_TORCH)
    assert [row["library"] for row in result["rows"]] == ["gru-xp", "products"]
    for row in result["rows"]:
        check_times(row, 2)
    assert result["settings"]["torch_measured"] is False
    assert "PyTorch is not installed" in text


def test_infer_without_peers(run_json: Callable[..., Any]) -> None:
    result, text = run_json("infer", "--quick", "--repeats", "1", "--threads", "1", after=WITHOUT_PEERS)
    assert [(row["task"], row["shape"]["B"], row["variant"]) for row in result["rows"]] == [
        *[("forward", B, variant) for B in (1, 64, 4096) for variant in ("GRUInference", "gru_forward")],
        *[("stream", 1, variant) for variant in ("step(x, h)", "step(x)")],
    ]
    for row in result["rows"]:
        check_times(row, 1)
        assert row["difference"] < 1e-6
    assert "torch not installed" in text
    assert "onnx and onnxruntime not installed" in text


def test_gpu_with_the_cpu_in_its_place(run_json: Callable[..., Any]) -> None:
    arguments = ("gpu", "--quick", "--shapes", "9,4,5,2 8,3,5,1")
    result, _ = run_json(*arguments, after=WITH_THE_CPU_FOR_A_GPU)
    assert [(row["shape"]["B"], row["precision"]) for row in result["rows"]] == [
        (9, "ieee"),
        (9, "tf32"),
        (8, "ieee"),
        (8, "tf32"),
    ]
    for row in result["rows"]:
        check_times(row, 1)
        assert row["pipelined_ms"] > 0
    ieee, tf32 = result["rows"][:2]
    assert ieee["floor_share"] == pytest.approx(ieee["floor_ms"] / ieee["median_ms"])
    assert tf32["floor_ms"] is None
    assert tf32["gradient_difference_to_ieee"] < 1e-5
    assert result["settings"]["peak"]["name"] == "none"


def test_gpu_without_one() -> None:
    if cuda_problem() is None:
        pytest.skip("there is a CUDA device")
    done = run("gpu", "--json", "gpu.json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: there is no CUDA device to measure: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_scaling(run_json: Callable[..., Any], tmp_path: Path) -> None:
    result, text = run_json("scaling", "--quick", "--threads", "2", "--plot", str(tmp_path / "scaling.png"))
    sizes = [(row["against"], row["size"], row["threads"]) for row in result["rows"]]
    assert sizes == [
        *[("B", size, 1) for size in (8, 16, 32)],
        *[("T", size, 1) for size in (4, 8, 16)],
        *[("H", size, 1) for size in (8, 16, 32)],
        *[("threads", n, n) for n in (1, 2)],
    ]
    for row in result["rows"]:
        check_times(row, 1)
    assert result["summary"].keys() == {"B", "T", "H", "threads"}
    assert "steps T: time grows with exponent" in text
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


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
    assert result["summary"]["command_seconds"] > 0
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
        (("scaling", "--plot", "no/such/folder.png"), None, "there is no folder no/such"),
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
