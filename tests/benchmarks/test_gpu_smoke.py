"""``gpu --smoke`` with small commands in place of its parts."""

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import gpu, gpu_checks, gpu_smoke, offline
from benchmarks.__main__ import benchmarks
from benchmarks.gpu_smoke import PARTS, groups_of
from benchmarks.smoke_part import Part, command_of

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import os, signal, pytest
pytestmark = pytest.mark.cuda
def test_good(): pass
def test_bad(): assert [1, 2] == [1, 3], "the second\\nis wrong"
@pytest.mark.skip(reason="not on Sundays")
def test_skipped(): pass
def test_killed(): %s
"""


@pytest.fixture
def smoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """``smoke(*parts, minutes="4", lanes=1)``: the exit code, the rows and the text."""

    def smoke(*parts: Part, minutes: str = "4", lanes: int = 1) -> tuple[int, dict[str, dict[str, Any]], str]:
        monkeypatch.setattr(gpu_smoke, "PARTS", parts)
        monkeypatch.setattr(gpu_smoke, "parts_at_once", lambda: lanes)
        monkeypatch.setattr(gpu, "cuda_problem", lambda: None)
        file = tmp_path / "result.json"
        done = CliRunner().invoke(benchmarks, ("gpu", "--smoke", "--minutes", minutes, "--json", str(file)))
        result = json.loads(file.read_text(encoding="utf-8"))
        assert result["benchmark"] == "gpu"
        assert result["settings"]["smoke"] is True
        return done.exit_code, {row["name"]: row for row in result["rows"]}, done.output

    return smoke


def script(name: str, text: str, share: float = 0.1, *arguments: str, alone: bool = False) -> Part:
    return Part(name, share, command=("-c", text, *arguments), alone=alone)


def test_no_part_hides_another(smoke: Any) -> None:
    code, rows, text = smoke(
        script("good", "print('fine')"),
        script("bad", "import sys; print('before'); sys.exit('Error: this is wrong')"),
        script("raise", "raise ValueError('no such\\nkernel')"),
        script("crash", "import os, signal; print('here', flush=True); os.kill(os.getpid(), signal.SIGSEGV)"),
        script("hang", "import time; print('waiting', flush=True); time.sleep(1000)", share=0.0),
        script("last", "pass", share=0.5),
        minutes="0.1",
    )
    assert code == 1
    assert {name: row["status"] for name, row in rows.items()} == {
        "good": "passed",
        "bad": "failed",
        "raise": "failed",
        "crash": "failed",
        "hang": "incomplete",
        "last": "passed",
    }
    assert rows["bad"]["problem"] == "this is wrong"
    assert rows["raise"]["problem"] == "ValueError: no such"
    assert "SIGSEGV" in rows["crash"]["problem"]
    assert "waiting" in rows["hang"]["problem"]
    error = text.strip().splitlines()[-1]
    assert error.startswith("Error: ")
    assert error.endswith("3 of 6 parts failed: bad, raise, crash")
    assert "this is wrong" in text


def test_all_parts_pass(smoke: Any) -> None:
    code, rows, text = smoke(script("one", "pass"), script("two", "pass"))
    assert code == 0, text
    assert [row["status"] for row in rows.values()] == ["passed", "passed"]


def test_a_part_of_tests(smoke: Any, tmp_path: Path) -> None:
    for name, body in (("ends", "pass"), ("dies", "os.kill(os.getpid(), signal.SIGKILL)")):
        (tmp_path / f"test_{name}.py").write_text(TESTS % body, encoding="utf-8")
    ends, dies = (str(tmp_path / f"test_{name}.py") for name in ("ends", "dies"))
    none = (ends, "-k", "skipped")
    code, rows, _ = smoke(Part("ends", 0.4, (ends,)), Part("dies", 0.3, (dies,)), Part("none", 0.3, none))
    assert code == 1
    counts = [rows["ends"][kind] for kind in ("passed", "failed", "skipped")]
    assert counts == [2, 1, 1]
    assert rows["ends"]["problem"].startswith("test_bad: ")
    assert "\n" not in rows["ends"]["problem"]
    assert all(part in rows["dies"]["problem"] for part in ("SIGKILL", "test_killed"))
    counts = [rows["dies"][kind] for kind in ("passed", "failed", "skipped", "not_reached")]
    assert counts == [1, 1, 1, 1]
    assert "not on Sundays" in rows["none"]["problem"]


@pytest.mark.slow
def test_a_part_without_enough_time_is_continued_at_the_end(smoke: Any, tmp_path: Path) -> None:
    """The first run of the second test does not end; those before it are not run again."""
    text = """
        import pathlib, time, pytest
        pytestmark = pytest.mark.cuda
        runs = pathlib.Path(__file__).with_name("runs")
        @pytest.mark.parametrize("name", ["one", "one more", "two", "three"])
        def test_run(name):
            with runs.open("a") as file: print(name, file=file)
            if runs.read_text().splitlines()[-2:] == ["one more", "two"]: time.sleep(1000)
    """
    (tmp_path / "test_long.py").write_text(textwrap.dedent(text), encoding="utf-8")
    long = Part("long", 0.4, (str(tmp_path / "test_long.py"),))
    code, rows, out = smoke(long, script("other", "pass", 0.6), minutes="0.3")
    assert code == 0, out
    assert [rows["long"][kind] for kind in ("status", "passed", "failed", "not_reached")] == ["passed", 4, 0, 0], out
    assert (tmp_path / "runs").read_text().splitlines() == ["one", "one more", "two", "two", "three"]
    assert 7.0 < rows["long"]["seconds"] < 18.0


@pytest.mark.slow
def test_tests_in_spare_time_count_what_they_did_not_reach(smoke: Any, tmp_path: Path) -> None:
    text = """
        import time, pytest
        pytestmark = [pytest.mark.cuda, pytest.mark.slow]
        @pytest.mark.parametrize("name", ["one", "two words"])
        def test_quick(name): assert name in %s
        @pytest.mark.parametrize("name", "abc")
        def test_endless(name): time.sleep(1000)
        @pytest.mark.skip
        def test_other(): pass
    """
    for name, names in (("good", ("one", "two words")), ("bad", ("one",))):
        (tmp_path / f"test_{name}.py").write_text(textwrap.dedent(text % (names,)), encoding="utf-8")
    good, bad = (
        Part(name, 0.3, (str(tmp_path / f"test_{name}.py"),), marks="cuda and slow", in_spare_time=True)
        for name in ("good", "bad")
    )
    (tmp_path / "test_imports.py").write_text("import time\ntime.sleep(1000)", encoding="utf-8")
    imports = Part("imports", 0.0, (str(tmp_path / "test_imports.py"),), in_spare_time=True)
    code, rows, out = smoke(Part("not slow", 0.4, good.tests), imports, good, bad, minutes="0.2")
    assert code == 1
    assert {name: row["status"] for name, row in rows.items()} == {
        "not slow": "skipped",
        "imports": "incomplete",
        "good": "incomplete",
        "bad": "failed",
    }
    counts = {
        name: [row[kind] for kind in ("passed", "failed", "skipped", "not_reached")] for name, row in rows.items()
    }
    assert (counts["good"], counts["bad"], counts["imports"]) == ([2, 0, 0, 4], [1, 1, 0, 4], [0, 0, 0, None])
    assert "2 of 6 tests ran, 4 did not; last: " in rows["good"]["problem"]
    assert "before its tests were collected" in rows["imports"]["problem"]
    assert rows["bad"]["problem"].startswith("test_quick[two words]: ")
    assert rows["good"]["problem"] in out
    assert out.strip().splitlines()[-1] == "Error: 1 of 4 parts failed: bad"


def test_earlier_parts_leave_later_ones_their_share(smoke: Any) -> None:
    """Of two minutes, a quick part leaves all it has to the next."""
    _, _, text = smoke(script("a", "pass", 0.5), script("b", "pass", 0.25), script("c", "pass", 0.25), minutes="2")
    limits = [int(number) for number in re.findall(r": (\d+) s at most", text)]
    assert limits[0] == 59
    assert 80 <= limits[1] <= 90
    assert 105 <= limits[2] <= 120


def test_parts_side_by_side_and_alone(smoke: Any, tmp_path: Path) -> None:
    """Two wait for each other; the last one runs when they have ended, and gets what they left."""
    meet = """
        import pathlib, sys, time
        pathlib.Path(sys.argv[1], sys.argv[2]).touch()
        while len(list(pathlib.Path(sys.argv[1]).iterdir())) < 2: time.sleep(0.01)
    """
    two = [script(name, textwrap.dedent(meet), 0.4, str(tmp_path / "met"), name) for name in "ab"]
    (tmp_path / "met").mkdir()
    write = "import pathlib, sys; print('a table'); pathlib.Path(sys.argv[1]).write_text(sys.argv[2] % sys.argv[3])"
    text = '{"settings": {"minutes": %s}, "summary": {}, "rows": [1, 2], "machine": {}}'
    last = script("alone", write, 0.4, "{json}", text, "{minutes}", alone=True)
    code, rows, out = smoke(*two, last, minutes="1", lanes=2)
    assert code == 0, out
    assert rows["alone"]["results"]["rows"] == [1, 2]
    assert "machine" not in rows["alone"]["results"]
    assert "a table" in out
    limits = [int(number) for number in re.findall(r": (\d+) s at most", out)]
    assert limits[0] == limits[1] == 35  # of 58.8, less 0.4 for the last part
    assert 45 <= limits[2] <= 59
    assert 0.7 < rows["alone"]["results"]["settings"]["minutes"] < limits[2] / 60


def test_a_command_without_time_is_not_started(smoke: Any) -> None:
    """Its options would refuse it."""
    code, rows, out = smoke(script("timed", "raise SystemExit(2)", 0.5, "{minutes}"), minutes="0.02")
    assert (code, rows["timed"]["status"], rows["timed"]["seconds"]) == (1, "incomplete", 0.0), out


def test_nothing_is_proved_without_a_part_or_a_test_that_ended(smoke: Any, tmp_path: Path) -> None:
    """And no part runs beyond the end of the time."""
    (tmp_path / "test_endless.py").write_text("import time\ntime.sleep(1000)", encoding="utf-8")
    endless = [Part(name, 0.4, (str(tmp_path / "test_endless.py"),)) for name in ("a", "b")]
    good = script("good", "pass", 0.2, alone=True)
    for others, minutes in (((), "0.005"), ((good,), "0.02")):
        code, rows, text = smoke(*others, *endless, minutes=minutes)
        assert code == 1
        assert [rows[name]["status"] for name in "ab"] == ["incomplete"] * 2
        assert sum(map(int, re.findall(r"[ab]: (\d+) s at most", text))) <= 1
        error = text.strip().splitlines()[-1]
        assert error.startswith("Error: ")
        assert ("no test" if others else "no part") in error
        assert text.count("pytest -n0") == 1


def test_groups_of_parts() -> None:
    names = [[part.name for part in group] for group in groups_of(PARTS)]
    assert names[0] == ["device and self-check"]
    assert names[-3:-1] == [["times"], ["tiles"]]
    assert PARTS[-2].by_hand() == "python -m benchmarks.gpu_tiles time"
    given = ((6, 4, 8, 1), (5, 3, 4, 2))
    assert PARTS[-2].with_shapes(given).by_hand() == "python -m benchmarks.gpu_tiles time --shapes '6,4,8,1 5,3,4,2'"
    assert PARTS[0].with_shapes(given) == PARTS[0]
    assert [name for group in names for name in group] == [part.name for part in PARTS]


@pytest.mark.cuda
def test_tiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each loop of a training step runs with the tile that is chosen, and with another one."""
    gpu_tiles = pytest.importorskip("benchmarks.gpu_tiles")
    for name, value in {"N_BEST": 1, "N_OTHERS": 1, "LAUNCHES": 2, "REPEATS": 1}.items():
        monkeypatch.setattr(gpu_tiles, name, value)
    file = tmp_path / "tiles.json"
    for what in ("compile", "time"):
        done = CliRunner().invoke(gpu_tiles.main, (what, "--shapes", "6,4,8,1", "--json", str(file)))
        assert done.exit_code == 0, done.output
    result = json.loads(file.read_text(encoding="utf-8"))
    assert [(row["loop"], row["chosen"]) for row in result["rows"][:2]] == [("forward", True), ("backward", True)]
    assert {row["loop"] for row in result["rows"][2:]} == {"forward", "backward"}
    assert not any(row["chosen"] for row in result["rows"][2:])
    assert all(row["median_ms"] > 0 for row in result["rows"])
    assert all(numbers["chosen_by_fastest"] >= 1 for numbers in result["summary"].values())
    assert "(chosen)" in done.output


def test_packages_to_carry_to_a_machine_without_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    there = offline.installed("numpy==2.4.6\nPytest_XDist @ file:///somewhere\n# no package\n-e git+https://x\n")
    assert there == {"numpy", "pytest-xdist"}
    names = (("numpy", "2.4.6"), ("rich", "15.0.0"), ("gru-xp", "0.1.0"), ("pytest-xdist", "3.8.0"))
    report = {"install": [{"metadata": {"name": name, "version": version}} for name, version in names]}
    assert offline.missing(report, there) == ["rich==15.0.0"]
    refused = [
        ["run", "no-such-folder"],
        ["pack", __file__],
        ["pack", ""],
        ["pack", "wheels", "--python-version", "abc"],
    ]
    refused += [["pack", "wheels", "--have", have] for have in ("no-such-file", sys.executable, str(ROOT))]
    for given in refused:
        with pytest.raises(SystemExit):
            offline.main(given)
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith("python -m benchmarks.offline"), message
        assert given[-1] in message


def test_every_cuda_test_is_in_a_part_and_the_time_suffices() -> None:
    assert sum(part.share for part in PARTS) == pytest.approx(1.0)
    paths = [path for part in PARTS for path in part.tests if path.startswith("tests")]
    assert all((ROOT / path).exists() for path in paths)
    assert "tests" in paths
    others = next(part for part in PARTS if "tests" in part.tests)
    command = command_of(others, Path("report.xml"), PARTS)
    assert {f"--ignore={path}" for path in paths if path != "tests"} <= set(command)
    last = PARTS[-1]
    command = command_of(last, Path("report.xml"), PARTS)
    assert (last.tests, last.in_spare_time) == (("tests",), True)
    assert "cuda and slow" in command
    assert not any(argument.startswith("--ignore") for argument in command)


def test_options_that_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "cuda_problem", lambda: None)
    done = CliRunner().invoke(benchmarks, ("gpu", "--smoke", "--quick"))
    assert done.exit_code == 2
    assert "--quick" in done.output


def test_without_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "cuda_problem", lambda: None)
    monkeypatch.setattr(gpu_smoke, "find_spec", lambda name: None)
    done = CliRunner().invoke(benchmarks, ("gpu", "--smoke"))
    assert done.exit_code == 1
    (line,) = done.output.strip().splitlines()
    assert line.startswith("Error: ")
    assert "pytest" in line


def test_checks_notice_a_difference(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the CPU in place of the device: once as it is, and once with a wrong parameter."""
    train = gpu_checks.train
    monkeypatch.setattr(gpu_checks, "SETTINGS", gpu_checks.SETTINGS[:1])
    monkeypatch.setattr(gpu_checks, "train", lambda device, *given: train("cpu", *given))
    gpu_checks.cpu()
    gpu_checks.digest()
    gpu_checks.digest()
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first == second

    def wrong(device: str, *given: Any) -> Any:
        arrays = train("cpu", *given)
        name = "forecast" if device == "cuda" else ""
        return {key: array * (1.01 if key == name else 1.0) for key, array in arrays.items()}

    monkeypatch.setattr(gpu_checks, "train", wrong)
    with pytest.raises(SystemExit, match="forecast"):
        gpu_checks.main(["cpu"])
    for given in ([], ["gpu"], ["cpu", "twice"]):
        with pytest.raises(SystemExit, match="digest"):
            gpu_checks.main(given)
