import contextlib
import csv
import errno
import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from gru_xp.errors import CheckpointError, DataError
from gru_xp.reporting import figures
from gru_xp.reporting.run_folder import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    checkpoint_file,
    model_file,
    run_folder,
    write_history,
    write_metrics,
    write_plots,
    write_predictions,
    written_to,
)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_text() if p.is_file() else None for p in folder.rglob("*")}


def read_rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# --- names ------------------------------------------------------------------------------------------------------


def test_model_file(tmp_path):
    for name in (MODEL_FILE, "some.file"):
        with pytest.raises(CheckpointError, match=f"{name}: does not exist"):
            model_file(tmp_path if name == MODEL_FILE else tmp_path / name)
        (tmp_path / name).touch()
    assert model_file(tmp_path) == model_file(str(tmp_path)) == tmp_path / MODEL_FILE
    assert model_file(tmp_path / "some.file") == tmp_path / "some.file"


def test_checkpoint_file(tmp_path):
    for run in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(CheckpointError, match=f"{run.name} is not a run folder; .* --out"):
            checkpoint_file(run)
        (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=f"no {CHECKPOINT_FILE} .*--overwrite"):
        checkpoint_file(tmp_path)
    (tmp_path / CHECKPOINT_FILE).touch()
    assert checkpoint_file(tmp_path) == checkpoint_file(str(tmp_path)) == tmp_path / CHECKPOINT_FILE


def test_a_run_without_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for find, name in ((model_file, MODEL_FILE), (checkpoint_file, CHECKPOINT_FILE)):
        (tmp_path / name).touch()
        with pytest.raises(CheckpointError, match="the name of the run is empty"):
            find("")
        assert find(".").parent == Path()


# --- run_folder -------------------------------------------------------------------------------------------------


def test_files_are_there_only_at_the_end(tmp_path):
    out = tmp_path / "deep/down/run"
    with run_folder(out, overwrite=False) as folder:
        (folder / "plots").mkdir()
        (folder / "plots/a.png").write_text("a")
        (folder / "b.csv").write_text("b")
        assert [path.name for path in out.iterdir()] == [folder.name]
    assert contents(tmp_path / "deep") == {
        "down": None,
        "down/run": None,
        "down/run/plots": None,
        "down/run/plots/a.png": "a",
        "down/run/b.csv": "b",
    }


def test_a_unique_folder_is_one_of_its_own(tmp_path):
    def run():
        with run_folder(tmp_path / "runs/run", unique=True) as folder:
            (folder / "a").touch()
            return folder.parent.name

    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/run").write_text("mine")
    assert [run() for _ in range(3)] == ["run-2", "run-3", "run-4"]
    with run_folder(tmp_path / "runs/run", unique=True) as one, run_folder(tmp_path / "runs/run", unique=True) as two:
        assert one.parent != two.parent
    assert "mine" in contents(tmp_path / "runs").values()


def test_a_run_that_fails_leaves_no_folders(tmp_path):
    for unique in (False, True):
        with contextlib.suppress(RuntimeError), run_folder(tmp_path / "a/b/run", unique=unique) as folder:
            (folder / "a").touch()
            raise RuntimeError
        assert contents(tmp_path) == {}


def test_a_folder_of_ones_own_stays(tmp_path):
    (tmp_path / "run").mkdir()
    with contextlib.suppress(RuntimeError), run_folder(tmp_path / "run", overwrite=True):
        raise RuntimeError
    assert contents(tmp_path) == {"run": None}


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such locks")
def test_two_processes_do_not_write_to_one_folder(tmp_path):
    out = tmp_path / "run"
    with run_folder(out) as first:
        (first / "a").write_text("mine")
        with (
            pytest.raises(DataError, match="run: another gru-xp"),
            run_folder(out, overwrite=True),
        ):
            pytest.fail("it must not come to this")
    assert contents(out) == {"a": "mine"}
    with run_folder(out, overwrite=True):
        pass


def test_a_file_or_folder_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    before = contents(tmp_path)
    for name, overwrite, offered in (
        ("file", False, "not a folder.*--out"),
        ("file", True, "not a folder.*--out"),
        ("folder", False, "--overwrite.*--out"),
    ):
        with (
            pytest.raises(DataError, match=f"{name} exists.*{offered}"),
            run_folder(tmp_path / name, overwrite=overwrite),
        ):
            pytest.fail("it must not come to this")
    assert contents(tmp_path) == before


def test_a_run_in_the_way_may_be_gone_on_with(tmp_path):
    out = tmp_path / "my run"
    out.mkdir()
    (out / CHECKPOINT_FILE).touch()
    with pytest.raises(DataError) as error, run_folder(out):
        pytest.fail("it must not come to this")
    names = (f"{out} exists", "--overwrite", "--out", f"gru-xp train --resume '{out}'")
    assert all(name in str(error.value) for name in names), str(error.value)


def test_what_is_in_the_way_of_a_file_is_refused(tmp_path):
    for name in (MODEL_FILE, CHECKPOINT_FILE, "history.csv", "plots"):
        out = tmp_path / f"run with {name}"
        out.mkdir()
        (out / name).touch() if name == "plots" else (out / name).mkdir()
        before = contents(out)
        with (
            pytest.raises(DataError, match=f"{name} is in the way .*--out"),
            run_folder(out, overwrite=True),
        ):
            pytest.fail("it must not come to this")
        assert contents(out) == before


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".partial-abc/plots").mkdir(parents=True)
    (tmp_path / ".partial-abc/plots/a.png").touch()
    for name in (".gru-xp-0123456789abcdef.part", ".gru-xp-mine", "own.part", CHECKPOINT_FILE):
        (tmp_path / name).write_text("old")
    with run_folder(tmp_path, overwrite=True) as folder:
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            (folder.name, ".gru-xp-mine", "own.part", CHECKPOINT_FILE)
        )
    assert contents(tmp_path) == dict.fromkeys((".gru-xp-mine", "own.part", CHECKPOINT_FILE), "old")


def test_a_checkpoint_outlives_an_error(tmp_path):
    """It is written to the folder itself, and what it needs to be gone on from stays with it."""

    def fail():
        with run_folder(tmp_path / "deep/run") as folder:
            (folder.parent / CHECKPOINT_FILE).write_text("new")
            (folder / "a").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert contents(tmp_path) == {"deep": None, "deep/run": None, f"deep/run/{CHECKPOINT_FILE}": "new"}


def test_overwriting_keeps_other_files(tmp_path):
    out = tmp_path / "run"
    (out / "plots").mkdir(parents=True)
    for name in ("a", "b", "plots/a", "plots/b", "selection.csv", "plots/cost_plot.png"):
        (out / name).write_text("old")
    with run_folder(out, overwrite=True) as folder:  # of a run without the last two
        (folder / "plots").mkdir()
        (folder / "a").write_text("new")
        (folder / "plots/a").write_text("new")
    assert contents(out) == {"a": "new", "b": "old", "plots": None, "plots/a": "new", "plots/b": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_overwriting_keeps_no_plots_of_the_old_run(tmp_path):
    (tmp_path / "plots").mkdir()
    for name in ("forecast_plot.svg", "error_by_step.png"):
        (tmp_path / "plots" / name).write_text("old")
    with run_folder(tmp_path, overwrite=True):
        pass
    assert contents(tmp_path) == {}


def test_an_error_leaves_everything_as_it_was(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/a").write_text("old")

    def fail(out, error):
        with run_folder(out, overwrite=True) as folder:
            (folder / "a").write_text("new")
            raise error

    for error in (RuntimeError, KeyboardInterrupt, SystemExit):
        for out in (tmp_path / "run", tmp_path / "deep/down/run"):
            with pytest.raises(error):
                fail(out, error)
        assert contents(tmp_path) == {"run": None, "run/a": "old"}, error


def test_what_others_put_into_the_folders_above_stays(tmp_path):
    def fail():
        with run_folder(tmp_path / "deep/down/run", overwrite=False):
            (tmp_path / "deep/other").write_text("mine")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert contents(tmp_path) == {"deep": None, "deep/other": "mine"}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(DataError, match=r"file/run cannot be made .*--out"),
        run_folder(tmp_path / "file/run", overwrite=False),
    ):
        pytest.fail("it must not come to this")
    assert contents(tmp_path) == {"file": "mine"}


def test_a_folder_without_a_path_above(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with run_folder(Path("run"), overwrite=False) as folder:
        (folder / "a").write_text("a")
    assert contents(tmp_path) == {"run": None, "run/a": "a"}


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    def mkdtemp(**options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/a").write_text("old")
    before = contents(tmp_path)
    for out in (tmp_path / "old", tmp_path / "deep/new"):
        with pytest.raises(DataError) as error, run_folder(out, overwrite=True):
            pytest.fail("it must not come to this")
        assert str(error.value).startswith(f"{out} cannot be written to (Permission denied)")
    assert contents(tmp_path) == before


def test_files_that_cannot_be_moved(tmp_path):
    def fail():
        with run_folder(tmp_path / "run") as folder:
            (folder / "plots").mkdir()
            (folder / "plots/a.png").touch()
            (tmp_path / "run/plots").write_text("in the way")

    with pytest.raises(CheckpointError, match="run: cannot be written"):
        fail()
    assert contents(tmp_path) == {"run": None, "run/plots": "in the way"}


def test_a_folder_that_is_removed_meanwhile_does_not_come_back(tmp_path):
    with run_folder(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")
    assert contents(tmp_path) == {}


def test_what_goes_wrong_while_writing_is_said_in_one_line(tmp_path):
    out = tmp_path / "my run"
    for prepare, *names in (
        (lambda: None, "(the folder is gone)"),
        (out.mkdir, "(No space left on device)", "train again"),
        ((out / CHECKPOINT_FILE).touch, "(No space left on device)", f"gru-xp train --resume '{out}'"),
    ):
        prepare()
        with pytest.raises(CheckpointError) as error, written_to(out):
            raise OSError(errno.ENOSPC, "No space left on device")
        message = str(error.value)
        assert message.startswith(f"{out}: cannot be written ")
        assert all(name in message for name in names), message
        assert "\n" not in message
    with pytest.raises(RuntimeError, match="another"), written_to(out):
        raise RuntimeError("another")


# --- files ------------------------------------------------------------------------------------------------------


def test_history_has_gaps_where_there_is_no_number(tmp_path, history):
    write_history(tmp_path, history(2, validation=False))
    assert (tmp_path / "history.csv").read_text() == (
        "epoch,cost,validation_cost,gradient_norm,seconds\n"
        "0,1.0,,,0.0\n"
        "1,0.5,,0.1,0.25\n"
        "2,0.3333333333333333,,0.2,0.5\n"
    )


def test_history_with_validation(tmp_path, history):
    write_history(tmp_path, history(1))
    assert read_rows(tmp_path / "history.csv")[1:] == [
        ["0", "1.0", "2.0", "", "0.0"],
        ["1", "0.5", "1.0", "0.1", "0.25"],
    ]


def test_predictions_have_all_digits(tmp_path, series, parts):
    write_predictions(tmp_path, series(), parts)
    header, *rows = read_rows(tmp_path / "predictions.csv")
    assert header == ["date", "split", "step", "actual", "predicted", "residual", "best_baseline"]
    expected = [
        [series().labels[row], part.name, step, true, pred, true - pred, naive]
        for part in parts
        for row, step, true, pred, naive in zip(
            part.rows, part.steps, part.y_true, part.y_pred, part.y_naive, strict=True
        )
    ]
    assert [[*row[:2], *map(float, row[2:])] for row in rows] == expected
    assert rows[0][0] == "2024-02-06"


def test_predictions_without_dates_have_row_numbers(tmp_path, series, part):
    write_predictions(tmp_path, series(dates=False), [part("test", 37, 40)])
    assert [row[:2] for row in read_rows(tmp_path / "predictions.csv")[1:]] == [[n, "test"] for n in ("37", "38", "39")]


def test_labels_stay_what_they_are_but_steer_no_terminal(tmp_path, series, part):
    labels = (*(f'"Maß" {row}, no date' for row in range(39)), "\x1b]0;owned\x07")
    write_predictions(tmp_path, series(dates=False, labels=labels), [part("all", 37, 40)])
    written = [row[0] for row in read_rows(tmp_path / "predictions.csv")[1:]]
    assert written == [*labels[37:39], "\\x1b]0;owned\\x07"]


def test_metrics(tmp_path):
    metrics = {"target": "Close", "parts": {"test": {"skill": None, "rmse": 0.1}}}
    write_metrics(tmp_path, metrics)
    text = (tmp_path / "metrics.json").read_text()
    assert json.loads(text) == metrics
    assert text.endswith("}\n")


def test_plots(tmp_path, monkeypatch):
    names = ("forecast_plot", "cost_plot")
    monkeypatch.setattr(figures, "run_plots", lambda *arguments: ((name, Figure()) for name in names))
    for suffix in ("png", "svg"):
        folder = tmp_path / suffix
        folder.mkdir()
        write_plots(folder, suffix, None, None, None, [])
        assert sorted(path.name for path in (folder / "plots").iterdir()) == sorted(f"{n}.{suffix}" for n in names)
