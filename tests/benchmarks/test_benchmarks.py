"""Every command of ``python -m benchmarks``, on the smallest sizes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
from click import ClickException
from click.testing import CliRunner
from matplotlib.figure import Figure

from benchmarks import article, checkout, contest, defaults, gpu, infer, layer, reading, stacks, train, variants
from benchmarks.__main__ import benchmarks
from benchmarks.gpu_floor import Peak
from benchmarks.job import Job, Measurement
from benchmarks.worker import MODULES
from gru_xp.cli import cli
from gru_xp.devices import cuda_problem

ROOT = Path(__file__).resolve().parents[2]

RUN_WITH = "import runpy, sys; sys.modules['{}'] = None; runpy.run_module('benchmarks', run_name='__main__')"
"""A process that has no such module."""

TRAIN = ("train", "--quick", "--repeats", "1", "--threads", "1", "--shapes", "9,4,5,2")


def run_process(*arguments: str, without: str | None = None) -> "subprocess.CompletedProcess[str]":
    """A command as a user starts it, from the root of the repository."""
    start = ("-m", "benchmarks") if without is None else ("-c", RUN_WITH.format(without))
    return subprocess.run(
        [sys.executable, *start, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def run(*arguments: str) -> tuple[int, str]:
    """A command in this process: its exit code, and stdout and stderr."""
    done = CliRunner().invoke(benchmarks, arguments)
    return done.exit_code, done.output


def read_result(file: Path, command: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    assert result["benchmark"] == command
    assert result.keys() == {"benchmark", "date", "machine", "versions", "settings", "summary", "rows"}
    assert result["machine"].keys() == {"system", "cpu", "cores", "threads", "gpus"}
    assert result["machine"]["cpu"]
    assert result["versions"]["numpy"]
    return result


@pytest.fixture
def run_json(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    """``run_json(*arguments)``: the content of the JSON file, and stdout and stderr."""

    def run_json(*arguments: str) -> tuple[dict[str, Any], str]:
        code, output = run(*arguments, "--json", str(tmp_path / "result.json"))
        assert code == 0, output
        return read_result(tmp_path / "result.json", arguments[0]), output

    return run_json


@pytest.fixture
def jobs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in this process, not in one of their own."""

    def run_here(jobs: Sequence[Job], *_: object) -> tuple[list[Measurement], str | None, str]:
        return [import_module(MODULES[job.library]).measure(job) for job in jobs], None, ""

    monkeypatch.setattr(contest, "run_process", run_here)


@pytest.fixture
def no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither PyTorch nor any other library is found."""
    for module in (train, layer, infer, variants, gpu):
        monkeypatch.setattr(module, "find_spec", lambda name: find_spec(name) if name == "numpy" else None)


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Numbers of panels of the figures that are saved, by name; nothing is drawn, which takes seconds."""
    saved = {}

    def savefig(figure: Figure, path: Path, **_: object) -> None:
        path.touch()
        saved[path.name] = len(figure.axes)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def check_times(row: dict[str, Any], rounds: int) -> None:
    assert row["problem"] is None
    assert 0 < row["min_ms"] <= row["q1_ms"] <= row["median_ms"] <= row["q3_ms"]
    assert len(row["round_medians_ms"]) == rounds


@pytest.mark.peer
@pytest.mark.usefixtures("jobs_here")
def test_train_with_torch(run_json: Callable[..., Any]) -> None:
    pytest.importorskip("torch")
    result, text = run_json(*TRAIN)
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


def test_train_without_torch_as_a_user_runs_it(tmp_path: Path) -> None:
    """With real processes throughout."""
    file = tmp_path / "result.json"
    done = run_process(*TRAIN, "--reset", "after", "--json", str(file), without="torch")
    assert done.returncode == 0, done.stderr
    result = read_result(file, "train")
    assert [row["library"] for row in result["rows"]] == ["gru-xp", "products"]
    for row in result["rows"]:
        check_times(row, 1)
    assert result["settings"]["torch_measured"] is False
    assert "PyTorch is not installed" in done.stderr


@pytest.mark.usefixtures("jobs_here", "no_peers")
def test_infer(monkeypatch: pytest.MonkeyPatch, run_json: Callable[..., Any]) -> None:
    cases = [("forward", (1, 3, 5, 1)), ("forward", (64, 3, 5, 2))]
    cases += [(task, (1, 3, 5, 1)) for task in ("stream", "step", "cell")]
    monkeypatch.setattr(infer, "CASES", cases)
    result, text = run_json("infer", "--quick", "--threads", "1")
    assert [(row["task"], row["shape"]["B"], row["variant"]) for row in result["rows"]] == [
        *[("forward", B, variant) for B in (1, 64) for variant in ("GRUInference", "gru_forward")],
        *[("stream", 1, variant) for variant in ("step(x, h)", "step(x)")],
        ("step", 1, "gru_step"),
        ("cell", 1, "gru_cell_forward"),
    ]
    for row in result["rows"]:
        check_times(row, 2)
        assert row["difference"] < 1e-6
    assert "torch not installed" in text
    assert "onnx and onnxruntime not installed" in text


@pytest.mark.usefixtures("jobs_here", "no_peers")
def test_layer_against_another_checkout(run_json: Callable[..., Any]) -> None:
    result, text = run_json("layer", "--quick", "--threads", "1", "--shapes", "9,4,5,2", "--against", str(ROOT))
    ours, before = result["rows"]
    assert [row.get("checkout") for row in result["rows"]] == [None, str(ROOT)]
    for row in result["rows"]:
        check_times(row, 2)
    assert before["times_as_fast_as_before"] == pytest.approx(before["median_ms"] / ours["median_ms"])
    assert result["summary"] == {"against": dict.fromkeys(MEANS, before["times_as_fast_as_before"])}
    assert result["settings"]["against"]["name"] == str(ROOT)
    assert "jax is not installed" in text


MEANS = ("geometric_mean", "lowest")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_sources_of_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a repository whose last commit has other tasks than the one before."""

    def git(*arguments: str) -> None:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
        subprocess.run(command, check=True, capture_output=True)

    git("init")
    for task in ("old", "new"):
        for name in (*checkout.NEEDED, "benchmarks/own_gru.py"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(f'if task == "{task}"', encoding="utf-8")
        git("add", ".")
        git("commit", "-m", task)
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    found: list[checkout.Checkout] = []

    @click.command()
    @checkout.against_option
    def command(against: str) -> None:
        opened = checkout.open_checkout(against)
        assert opened is not None
        assert [opened.knows(task) for task in ("old", "new", "stream")] == [True, False, True]
        found.append(opened)

    done = CliRunner().invoke(command, ("--against", "HEAD~1"))
    assert done.exit_code == 0, done.output
    assert not found[0].folder.exists()
    assert checkout.commit_of(tmp_path) not in (None, found[0].commit)
    for wrong in ("no-such-revision", str(tmp_path / "gru_xp")):
        done = CliRunner().invoke(command, ("--against", wrong))
        assert done.exit_code == 2
        check_error(done.output, wrong)


@pytest.mark.usefixtures("jobs_here", "no_peers")
def test_variants(run_json: Callable[..., Any]) -> None:
    result, _ = run_json("variants", "--quick", "--repeats", "1", "--threads", "1", "--shapes", "9,4,5,2")
    assert [row["variant"] for row in result["rows"]] == list(stacks.STACKS)
    plain = result["rows"][0]
    for row in result["rows"]:
        check_times(row, 1)
        n_grus = stacks.STACKS[row["variant"]].n_grus
        if row is not plain:
            assert row["by_one_layer"] == pytest.approx(row["median_ms"] / plain["median_ms"] / n_grus)


@pytest.mark.usefixtures("jobs_here", "no_peers")
def test_gpu_with_the_cpu_in_its_place(monkeypatch: pytest.MonkeyPatch, run_json: Callable[..., Any]) -> None:
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "cuda_problem", lambda: None)
    monkeypatch.setattr(gpu, "query_peak", lambda: Peak("none", "0.0", {"ieee": 1e12, "tf32": None}, 1e12, 0))
    result, _ = run_json("gpu", "--quick", "--shapes", "9,4,5,2 8,3,5,1")
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
    code, output = run("gpu")
    assert code == 1
    assert output.startswith("Error: ")
    assert "CUDA" in output
    assert len(output.strip().splitlines()) == 1


@pytest.mark.usefixtures("jobs_here")
def test_scaling(run_json: Callable[..., Any], panels: dict[str, int], tmp_path: Path) -> None:
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
    assert panels == {"scaling.png": 8}  # four, with two axes each


def test_article(
    monkeypatch: pytest.MonkeyPatch, run_json: Callable[..., Any], panels: dict[str, int], tmp_path: Path
) -> None:
    """With the command in this process."""

    def run_here(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        done = CliRunner().invoke(cli, command[command.index("train") :])
        return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)

    monkeypatch.setattr(subprocess, "run", run_here)
    monkeypatch.setitem(article.SETTINGS, "hidden_size", 8)
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
    names = [path.name for path in (tmp_path / "plots").glob("*.png")]
    assert len(names) == 6
    assert panels.keys() > set(names)  # and those of the command


def test_defaults(monkeypatch: pytest.MonkeyPatch, run_json: Callable[..., Any]) -> None:
    monkeypatch.setattr(defaults, "SERIES", ("IBM", "sunspots"))
    first, second, *_, last = defaults.neighbours()
    monkeypatch.setattr(defaults, "neighbours", lambda: [first, second, last])
    result, _ = run_json("defaults", "--device", "cpu", "--quick")
    default = result["settings"]["defaults"]
    assert [row["series"] for row in result["rows"]] == ["IBM"] * 3 + ["sunspots"] * 3
    at_default = [row for row in result["rows"] if all(default[name] == row[name] for name in default if name in row)]
    assert len(at_default) == 2
    for row in result["rows"]:
        assert len(row["test_skill"]) == len(row["seconds"]) == 1
        assert row["validation_skill"] == []  # no rows are held out


def test_reading(monkeypatch: pytest.MonkeyPatch, run_json: Callable[..., Any]) -> None:
    monkeypatch.setattr(reading, "measure_in_process", reading.measure)
    monkeypatch.setattr(reading, "QUICK_ROWS", 300)
    result, text = run_json("reading", "--quick")
    libraries = [library for library in reading.LIBRARIES if library == "gru-xp" or find_spec(library)]
    assert [(row["form"], row["library"]) for row in result["rows"]] == [
        (form, library) for form in reading.TARGETS for library in libraries
    ]
    for row in result["rows"]:
        assert (row["rows"], row["cells"]) == (300, 600)
        assert row["cpu_median_ms"] == row["cpu_min_ms"] > 0
        assert row["by_pandas"] == row["by_pandas_min"] == row["by_pandas_max"]
    assert result["summary"].keys() == {"16/12/2006 17:24:00", "2006-12-16 17:24:00"}
    assert "16/12/2006 17:24:00: " in text
    assert result["settings"]["pandas"]


def test_reading_in_a_process(tmp_path: Path) -> None:
    form = "%d/%m/%Y %H:%M:%S"
    reading.write_rows(tmp_path / "rows.csv", form, 20)
    arguments = (form, tmp_path / "rows.csv", tmp_path / "rows.csv")
    measured = reading.measure_in_process("gru-xp", *arguments)
    assert measured.content[:2] == ("2006-12-16T17:24:00", "2006-12-16T17:43:00")
    assert len(reading.rows_of(form, {"gru-xp": [measured], "pandas": [measured]})) == 2
    with pytest.raises(ClickException, match="gru-xp reads 20 rows"):
        reading.rows_of(form, {"gru-xp": [measured], "pandas": [replace(measured, rows=19)]})
    with pytest.raises(ClickException, match="pandas cannot read"):
        reading.measure_in_process("pandas", "%Y", *arguments[1:])


REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_x[1-b]" time="0.5"/>
<testcase classname="tests.a" name="test_x[2]" time="0.25"><failure message="m"/></testcase>
<testcase classname="tests.b" name="test_y" time="1"><skipped/></testcase>
</testsuite></testsuites>"""


def test_slow_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a report in place of their run."""

    def write_report(command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        assert command[command.index("--share") + 1] == "0.1"
        (option,) = (argument for argument in command if argument.startswith("--junitxml="))
        Path(option.partition("=")[2]).write_text(REPORT, encoding="utf-8")
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", write_report)
    code, output = run("slow-tests", "--share", "0.1", "--json", str(tmp_path / "result.json"))
    assert code == 1
    assert "1 slow tests failed" in output
    result = read_result(tmp_path / "result.json", "slow-tests")
    assert result["rows"] == [
        {"test": "tests.a.test_x", "passed": 1, "failed": 1, "skipped": 0, "seconds": 0.75},
        {"test": "tests.b.test_y", "passed": 0, "failed": 0, "skipped": 1, "seconds": 1.0},
    ]


def check_error(output: str, *parts: str) -> None:
    last = output.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert all(part in last for part in parts), last
    assert "Traceback" not in output


def test_errors_are_one_line() -> None:
    for arguments, *parts in (
        (("train", "--shapes", "1,2,3"), "'1,2,3'", "B,T,H,I"),
        (("train", "--json", "no/such/folder.json"), "no/such"),
        (("scaling", "--plot", "no/such/folder.png"), "no/such"),
        (("defaults", "--device", "gpu"), "device", "'gpu'"),
    ):
        code, output = run(*arguments)
        assert code != 0, arguments
        check_error(output, *parts)


def test_a_missing_package_is_named() -> None:
    done = run_process("article", without="gru_xp.cli")
    assert done.returncode != 0
    assert done.stdout == ""
    check_error(done.stderr, "gru_xp.cli", 'pip install -e ".[test]"')
