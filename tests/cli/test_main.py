import subprocess
import sys
from importlib.metadata import version
from unittest.mock import Mock

import pytest

from gru_xp.errors import DataError
from gru_xp.forecasting import evaluation, fitting

pytestmark = pytest.mark.compat


def test_version(app):
    outcome = app("--version")
    assert outcome.code == 0
    assert outcome.out == f"gru-xp, version {version('gru-xp')}\n"


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "gru_xp", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == version("gru-xp")


def test_no_command_shows_the_help(app, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = app()
    assert outcome.code in (0, 2)  # as Click has it
    assert "Usage: gru-xp" in outcome.out + outcome.err
    assert "Example: gru-xp train GOOG.csv" in outcome.out + outcome.err
    assert "..." not in (outcome.out + outcome.err).partition("Commands:")[2]  # no summary is cut


def test_the_script_prints_an_error_as_one_line_and_exits_with_1(run_script, tmp_path):
    outcome = run_script("train", "none.csv", cwd=tmp_path)
    outcome.assert_refused("none.csv: no such file")


def test_unexpected_errors_are_one_line_too(app, write_csv, quick, unchanged, monkeypatch):
    write_csv()
    for raised, said in (
        (KeyError("two\nlines"), r"KeyError: 'two\nlines'"),
        (OSError("two\nlines"), "OSError: two lines"),
    ):
        monkeypatch.setattr(fitting, "train", Mock(side_effect=raised))
        with unchanged():
            outcome = app("train", "own.csv", *quick, "--quiet")
        outcome.assert_refused(said, "--debug")


def test_an_error_of_cupy_names_a_way_around_it(app, write_csv, quick, monkeypatch):
    """Whether CuPy raises it, or anything does where a CUDA device was asked for."""
    write_csv()
    of_cupy = type("CompileException", (Exception,), {"__module__": "cupy.cuda.compiler"})
    for raised, options in ((of_cupy("no header"), ()), (OSError("libcublas.so.13"), ("--device", "cuda"))):
        monkeypatch.setattr(fitting, "train", Mock(side_effect=raised))
        outcome = app("train", "own.csv", *quick, "--quiet", *options)
        assert outcome.code == 1
        assert "Traceback" not in outcome.err
        last = outcome.err.splitlines()[-1]
        for part in (type(raised).__name__, str(raised), "GRU_XP_PLAIN=1", "--device cpu"):
            assert part in last


def test_debug_shows_the_traceback(main, app, write_csv, monkeypatch):
    write_csv()
    monkeypatch.setattr("sys.argv", ["gru-xp", "train", "none.csv", "--debug"])
    with pytest.raises(DataError, match=r"none\.csv"):
        main()
    monkeypatch.setattr(fitting, "train", Mock(side_effect=RuntimeError("surprise")))
    monkeypatch.setattr("sys.argv", ["gru-xp", "train", "own.csv", "--debug"])
    with pytest.raises(RuntimeError, match="surprise"):
        main()


def test_an_interrupt_outside_of_training(app, write_csv, quick, unchanged, monkeypatch):
    write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    monkeypatch.setattr(evaluation, "evaluate", Mock(side_effect=KeyboardInterrupt))
    with unchanged():
        outcome = app("evaluate", "run", "--quiet")
    assert outcome.code == 130
    assert outcome.err.strip() == ""
