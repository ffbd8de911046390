from importlib.metadata import version

import pytest

from gru_xp.forecasting import evaluation, forecaster


def test_version(app):
    outcome = app("--version")
    assert outcome.code == 0
    assert outcome.out == f"gru-xp, version {version('gru-xp')}\n"


def test_version_as_a_process(run_script, tmp_path):
    outcome = run_script("--version", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert version("gru-xp") in outcome.out


def test_no_command_shows_the_help(app):
    outcome = app()
    assert outcome.code in (0, 2)  # as Click has it
    assert "Usage: gru-xp" in outcome.out + outcome.err
    assert "Example: gru-xp train GOOG.csv" in outcome.out + outcome.err


def test_debug_shows_the_traceback(run_script, tmp_path):
    outcome = run_script("train", "none.csv", "--debug", cwd=tmp_path)
    assert outcome.code == 1
    assert "Traceback (most recent call last)" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("gru_xp.errors.DataError: none.csv: no such file")
    assert outcome.out == ""


def test_an_error_is_one_line_and_code_1(run_script, tmp_path):
    outcome = run_script("train", "none.csv", cwd=tmp_path)
    assert outcome.code == 1
    assert outcome.error.startswith("none.csv: no such file")
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (KeyError("two\nlines"), r"unexpected KeyError: 'two\nlines'; run again with --debug for the traceback"),
        (OSError("two\nlines"), "unexpected OSError: two lines; run again with --debug for the traceback"),
    ],
)
def test_what_nobody_thought_of_is_one_line_too(app, write_csv, quick, unchanged, monkeypatch, raised, said):
    def fail(*arguments, **options):
        raise raised

    write_csv()
    monkeypatch.setattr(forecaster, "train", fail)
    with unchanged():
        outcome = app("train", "own.csv", *quick, "--quiet")
    assert outcome.code == 1
    assert outcome.error == said


def test_debug_shows_what_nobody_thought_of(main, app, write_csv, quick, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("surprise")

    write_csv()
    monkeypatch.setattr(forecaster, "train", fail)
    monkeypatch.setattr("sys.argv", ["gru-xp", "train", "own.csv", "--debug"])
    with pytest.raises(RuntimeError, match="surprise"):
        main()


def test_an_interrupt_outside_of_training(app, write_csv, quick, unchanged, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    monkeypatch.setattr(evaluation, "evaluate", interrupt)
    with unchanged():
        outcome = app("evaluate", "run", "--quiet")
    assert outcome.code == 130
    assert outcome.err.strip() == ""
