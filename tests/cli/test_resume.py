"""Runs that stop, for whatever reason, and go on: they end with the bits of a run that did not stop."""

import csv
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import click
import numpy as np
import pytest
from safetensors.numpy import load_file

import gru_xp.io.read
from gru_xp import cli as app_package
from gru_xp.cli.reading import flag as option_of
from gru_xp.devices import inventory
from gru_xp.forecasting import Forecaster, backtest
from gru_xp.forecasting import checkpoint as checkpoint_module
from gru_xp.forecasting.checkpoint import load_checkpoint
from gru_xp.forecasting.presets import RECIPE
from gru_xp.reporting import run_folder
from gru_xp.training.checkpoint import Checkpoints

cli = app_package.cli
EPOCHS = ("--num-epochs", "5")
CONSTANT = ("--schedule", "constant")  # so that the rate does not depend on the number of epochs
QUIET = ("--hidden-size", "4", "--device", "cpu", "--quiet")
BATCHES = (*QUIET, "--batch-size", "5")  # 28 windows, or 24 beside validation: the last batch is smaller

KINDS = {
    "whole batch": (*QUIET, "--batch-size", "all", *CONSTANT),
    "adam, layers, dropout": (*BATCHES, "--num-layers", "3", "--dropout", "0.3", "--clip-norm", "0.1", *CONSTANT),
    "momentum, zoneout": (*BATCHES, "--optimizer", "momentum", "--learning-rate", "1e-4", "--zoneout", "0.2"),
    "sgd, validation": (*BATCHES, "--optimizer", "sgd", "--validation-ratio", "0.1", "--recurrent-dropout", "0.2"),
    "float64, states again": (*BATCHES, "--dtype", "float64", "--keep-every", "3", "--bidirectional"),
    "a feature": (*BATCHES, "--scaling", "standard", "--target", "Value", "--features", "Year", "--reset", "after"),
    "gaps": (*BATCHES, "--missing", "mask"),
    "a step a row": (*BATCHES, "--patches", "0", "--no-linear-skip", "--scaling", "last"),
    "mse": (*BATCHES, "--loss", "mse"),
}
STOPS = [(0, 0), (0, 3), (2, 0), (3, 4), (4, 5)]


class Killed(BaseException):
    """The end, as if by SIGKILL; nothing in the app catches it."""


@pytest.fixture(autouse=True)
def no_tables(monkeypatch):
    """Let the runs fit no ridge to compare with, and print no tables, at which nobody looks here."""
    monkeypatch.setattr(backtest, "ridge_beside", lambda *arguments: None)
    monkeypatch.setattr(sys.modules["gru_xp.cli.train"], "print_parts", lambda *arguments: None)


@pytest.fixture
def when():
    """``with when(at, act): ...``: `act` after so many epochs and batches of the next, before a checkpoint is written.

    Where the action is an exception or a signal it is raised, else called.
    """

    @contextmanager
    def when(at, act):
        def called(self, epoch, batches, state, before=Checkpoints.__call__):
            if (epoch, batches) == at:
                if isinstance(act, signal.Signals):
                    signal.raise_signal(act)
                elif isinstance(act, BaseException):
                    raise act
                else:
                    act()
            return before(self, epoch, batches, state)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpoints, "__call__", called)
            yield

    return when


@pytest.fixture
def own(write_csv):
    """The file that the runs learn from; see `write_csv`."""
    return write_csv()


@pytest.fixture
def whole(app, own, tmp_path, results):
    """``whole(*options)``: what a run in the folder ``whole`` ends with that did not stop."""

    def whole(*options):
        outcome = app("train", own.name, *options, "--out", "whole", "--overwrite")
        assert outcome.code == 0, outcome.err
        return results(tmp_path / "whole")

    return whole


@pytest.fixture(scope="session")
def known():
    """What runs end with, by their rows and options."""
    return {}


@pytest.fixture
def trained(whole, own, known):
    """``trained(*options)``: what a run ends with that did not stop; several tests may have the same one."""

    def trained(*options):
        key = own.read_bytes(), options
        if key not in known:
            known[key] = whole(*options)
        return known[key]

    return trained


@pytest.fixture
def resumed(app, tmp_path, results):
    """``resumed(*options, run="run")``: what a run ends with that went on."""

    def resumed(*options, run="run"):
        outcome = app("train", "--resume", run, *options)
        assert outcome.code == 0, outcome.err
        assert not list(Path(run).glob(".*"))  # nothing temporary
        return results(tmp_path / run)

    return resumed


@pytest.fixture
def stopped(app, own, when):
    """``stopped(*options, at=(2, 3), by=signal.SIGINT)``: a run in the folder ``run`` that was stopped there."""

    def stopped(*options, at=(2, 3), by=signal.SIGINT):
        with when(at, by):
            outcome = app("train", own.name, *options, "--out", "run", "--overwrite")
        assert outcome.code == 128 + by, outcome.err
        return outcome

    return stopped


@pytest.fixture
def restore(stopped, contents):
    """``restore()``: the run that was stopped, as it was then."""
    stopped(*BATCHES, *EPOCHS)
    files = contents("run")

    def restore():
        shutil.rmtree("run")
        Path("run").mkdir()
        for name, content in files.items():
            Path("run", name).write_bytes(content)

    return restore


def checkpoint(run="run"):
    return load_checkpoint(Path(run) / "checkpoint.safetensors")


def stands(run="run"):
    state = checkpoint(run).state
    return state.epoch, state.batches


# --- the same bits ----------------------------------------------------------------------------------------------


def assert_resumes_with_the_same_bits(trained, stopped, resumed, kind, stops):
    options = (*KINDS[kind], *EPOCHS)
    expected = trained(*options)
    for epoch, batches in stops:
        at = (epoch, min(batches, 1)) if kind == "whole batch" else (epoch, batches)
        stopped(*options, at=at, by=(signal.SIGINT, signal.SIGTERM)[(epoch + batches) % 2])
        assert stands() == at
        assert resumed() == expected, at


@pytest.mark.compat
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_interrupted_ends_with_the_same_bits(write_csv, trained, stopped, resumed, kind):
    """Each kind at one of the places, and each place with one of the kinds or more."""
    write_csv(change={20: "NA", 47: "NA"} if kind == "gaps" else None)
    stop = STOPS[list(KINDS).index(kind) % len(STOPS)]
    assert_resumes_with_the_same_bits(trained, stopped, resumed, kind, [stop])


@pytest.mark.parametrize("stage", ["training", "refit"])
def test_either_training_of_a_refit_goes_on_with_the_same_bits(app, own, trained, resumed, when, stage, monkeypatch):
    options = (*BATCHES, *EPOCHS, "--validation-ratio", "0.2", "--refit")
    expected = trained(*options)
    assert len(expected["selection"]) == 6
    assert len(expected["history"]) > 2
    count = 0

    def called(self, epoch, batches, state, before=Checkpoints.__call__):
        nonlocal count
        count += (epoch, batches) == (1, 2)
        if (epoch, batches) == (1, 2) and count == (1 if stage == "training" else 2):
            signal.raise_signal(signal.SIGINT)
        return before(self, epoch, batches, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "__call__", called)
        assert app("train", own.name, *options, "--out", "run").code == 130
    assert stands() == (1, 2)
    assert (checkpoint().forecaster.selection is None) == (stage == "training")
    if stage == "refit":
        more = ("--num-epochs", 9, "--allow-changes")
        app("train", "--resume", "run", *more).assert_refused("--num-epochs", "--refit")
        assert app("train", own.name, *options[:-1], "--no-guard", "--out", "selected").code == 0
        assert_same_forecasts("run", "selected")
        with when((2, 1), signal.SIGINT):
            outcome = app("train", "--resume", "run")
        assert (outcome.code, stands()) == (130, (2, 1))
        assert "the best on the validation rows" in outcome.err
        assert_same_forecasts("run", "selected")
    assert resumed() == expected
    assert resumed() == expected


def assert_same_forecasts(run, other):
    """Of models of two runs with validation rows, whose errors are those of the same parts."""
    ours, theirs = (json.loads(Path(folder, "metrics.json").read_text()) for folder in (run, other))
    assert ours["parts"] == theirs["parts"]
    assert ours["best_epoch"] == theirs["best_epoch"]


def test_a_guard_that_was_interrupted_does_not_decide_and_is_made_again(app, tmp_path, rng, results, monkeypatch):
    file = tmp_path / "noise.csv"
    file.write_text("value\n" + "".join(f"{v:.4f}\n" for v in rng.standard_normal(750)))
    train = ("train", file, *QUIET[:-1], "--num-steps", 20)
    assert "nothing beats the mean forecast" in app(*train, "--out", "whole").err

    module = sys.modules["gru_xp.cli.train"]

    def interrupted(*arguments, epoch, watch=module.watch, **options):
        if epoch.startswith("guard"):
            signal.raise_signal(signal.SIGINT)
        return watch(*arguments, epoch=epoch, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "watch", interrupted)
        outcome = app(*train, "--out", "run")
    assert outcome.code == 130
    assert "interrupted before the guard" in outcome.err
    assert "--resume run" in outcome.err
    assert "nothing beats" not in outcome.err
    assert Forecaster.load("run/model.safetensors", device="cpu").fallback is None
    assert "nothing beats the mean forecast" in app("train", "--resume", "run").err
    assert results(Path("run")) == results(Path("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_runs_that_were_interrupted_anywhere_end_with_the_same_bits(write_csv, trained, stopped, resumed, kind, share):
    """Each kind at the other places, or a share of them."""
    write_csv(change={20: "NA", 47: "NA"} if kind == "gaps" else None)
    first = list(KINDS).index(kind) + 1
    others = [STOPS[(first + number) % len(STOPS)] for number in range(len(STOPS) - 1)]
    assert_resumes_with_the_same_bits(trained, stopped, resumed, kind, others[: max(1, round(len(others) * share))])


@pytest.mark.compat
def test_what_an_interrupted_run_says(app, own, when, contents, tmp_path):
    for by in (signal.SIGINT, signal.SIGTERM):
        with when((2, 3), by):
            outcome = app("train", own.name, *BATCHES, "--out", "my run", "--overwrite", "--json")
        assert outcome.code == 128 + by
        first, last = outcome.err.splitlines()
        assert "Ctrl-C again" in first
        assert last.endswith("gru-xp train --resume 'my run'")
        document = json.loads(outcome.out)
        assert (document["epochs"], document["stop_reason"]) == (2, "paused")
        assert sorted(contents("my run")) == [
            "checkpoint.safetensors",
            "history.csv",
            "metrics.json",
            "model.safetensors",
            "predictions.csv",
        ]
        model = Forecaster.load(tmp_path / "my run/model.safetensors", device="cpu")
        assert model.best_epoch == document["best_epoch"]


def test_a_run_that_had_stopped_says_what_to_raise(app, own):
    app("train", own.name, *QUIET, "--num-epochs", "300", "--patience", "2", "--learning-rate", "0.5", "--out", "run")
    outcome = app("train", "--resume", "run", "--num-epochs", "500", "--allow-changes")
    assert outcome.code == 0
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    assert "--patience 2" in line
    assert "--allow-changes" in line
    assert "as in the run" in outcome.err


def test_interrupted_again_and_again(app, trained, stopped, resumed, when):
    options = (*KINDS["adam, layers, dropout"], *EPOCHS)
    expected = trained(*options)
    stopped(*options, at=(0, 1))
    for at in ((0, 2), (1, 0), (1, 4), (4, 1)):
        with when(at, signal.SIGTERM):
            assert app("train", "--resume", "run").code == 143
        assert stands() == at
    assert resumed() == expected


def test_a_run_that_was_killed_between_checkpoints_does_the_batches_after_the_last_one_again(
    app, own, trained, resumed, when
):
    options = (*KINDS["adam, layers, dropout"], *EPOCHS)
    expected = trained(*options)
    with when((3, 4), Killed()), pytest.raises(Killed):
        app("train", own.name, *options, "--checkpoint-every", 2, "--out", "run")
    assert os.listdir("run") == ["checkpoint.safetensors"]
    assert stands() == (2, 0)
    assert resumed() == expected


def test_a_run_that_was_killed_before_its_results_needs_only_them(app, own, trained, resumed, monkeypatch):
    def killed(*arguments, **options):
        raise Killed

    expected = trained(*BATCHES, *EPOCHS)
    with monkeypatch.context() as patch:
        patch.setattr("gru_xp.forecasting.evaluation.evaluate", killed)
        with pytest.raises(Killed):
            app("train", own.name, *BATCHES, *EPOCHS, "--out", "run")
    assert os.listdir("run") == ["checkpoint.safetensors"]
    before = Path("run/checkpoint.safetensors").read_bytes()
    assert stands() == (5, 0)
    assert resumed() == expected
    assert Path("run/checkpoint.safetensors").read_bytes() == before  # nothing was learned


def test_a_finished_run_ends_with_the_same_bits_again(whole, resumed):
    expected = whole(*BATCHES, *EPOCHS)
    for _ in range(2):
        assert resumed(run="whole") == expected


def test_patience_that_ended_a_run_ends_it_again(trained, stopped, resumed):
    options = (*BATCHES, "--num-epochs", 50, "--patience", 3, "--optimizer", "sgd", "--learning-rate", 0.03)
    expected = trained(*options)
    last = len(expected["history"]) - 1
    assert 3 <= last < 50
    stopped(*options, at=(last - 1, 2))
    assert resumed() == expected
    assert resumed() == expected
    assert json.loads(Path("run/metrics.json").read_text())["stop_reason"] == "patience"


def test_more_epochs_for_a_finished_run_are_those_of_a_longer_run(app, own, trained, resumed):
    for kind in ("whole batch", "adam, layers, dropout"):
        expected = trained(*KINDS[kind], "--num-epochs", 8)
        assert app("train", own.name, *KINDS[kind], *EPOCHS, "--out", "run", "--overwrite").code == 0
        assert resumed("--num-epochs", 8, "--allow-changes") == expected
        assert stands() == (8, 0)


def test_fewer_epochs_than_there_are(app, whole, unchanged):
    whole(*BATCHES, *EPOCHS)
    for more in ((), ("--allow-changes",)):
        with unchanged():
            outcome = app("train", "--resume", "whole", "--num-epochs", 4, *more)
        outcome.assert_refused("whole: --num-epochs is 4", " 5 ")


def test_as_many_epochs_as_there_are_end_a_run(app, own, stopped, resumed):
    stopped(*BATCHES, "--num-epochs", 9, at=(3, 2))
    resumed("--num-epochs", 3, "--allow-changes")
    assert json.loads(Path("run/metrics.json").read_text())["stop_reason"] == "num_epochs"


def test_options_as_they_were_change_nothing(trained, stopped, resumed, own):
    options = (*BATCHES, *EPOCHS, "--patience", 0, "--seed", 3, "--missing", "ffill")
    expected = trained(*options)
    stopped(*options)
    threads = checkpoint().run["threads"]
    assert resumed(own.name, *options, "--split-ratio", 0.7, "--threads", threads, "--no-fallback") == expected


def test_the_folder_may_be_elsewhere_and_the_file_gone(trained, stopped, resumed, app, own, tmp_path, monkeypatch):
    expected = trained(*BATCHES, *EPOCHS)
    stopped(*BATCHES, *EPOCHS)
    own.unlink()
    (tmp_path / "there").mkdir()
    shutil.move("run", tmp_path / "there/my run")
    monkeypatch.chdir(tmp_path / "there")
    assert resumed(run=tmp_path / "there/my run") == expected
    (tmp_path / "there/own.csv").write_text("of somebody else")
    assert resumed(run=tmp_path / "there/my run") == expected
    monkeypatch.chdir(tmp_path / "there/my run")
    assert app("evaluate", ".", "--quiet").code == 0


def test_the_folder_that_one_is_in(trained, stopped, app, tmp_path, monkeypatch, results):
    expected = trained(*BATCHES, *EPOCHS)
    stopped(*BATCHES, *EPOCHS)
    for here, run in ((tmp_path / "run", "."), (tmp_path, "run/")):
        monkeypatch.chdir(here)
        assert app("train", "--resume", run).code == 0
        assert results(tmp_path / "run") == expected


def test_a_run_on_stdin(app, own, resumed, results, tmp_path, monkeypatch, when):
    content = own.read_bytes()

    def train(out, code):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert app("train", "-", *BATCHES, *EPOCHS, "--out", out).code == code
        return tmp_path / out

    expected = results(train("whole", 0))
    (tmp_path / "stdin").write_text("a file of that name is another one")
    with when((2, 3), signal.SIGINT):
        train("run", 130)
    monkeypatch.setattr(sys, "stdin", None)
    (tmp_path / "stdin").write_text("and may change")
    assert resumed() == expected
    assert json.loads(app("evaluate", "run", "--json").out)["file"] == "stdin"


def test_a_bundled_file(app, when, results, resumed, tmp_path):
    options = (*QUIET, "--batch-size", 50, "--num-epochs", 2)
    assert app("train", "sunspots", *options, "--out", "whole").code == 0
    with when((1, 2), signal.SIGINT):
        assert app("train", "sunspots", *options, "--out", "run").code == 130
    (tmp_path / "sunspots.csv").write_text("of somebody else")
    assert resumed() == results(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["SIGTERM", "SIGKILL"])
def test_processes_that_are_stopped(start, run_script, own, tmp_path, results, trained, by):
    """As the tests above, but all of it real."""
    number = getattr(signal, by, None)
    if number is None or os.name != "posix":
        pytest.skip(f"there is no {by} here")
    options = (*BATCHES, "--num-layers", 2, "--dropout", "0.3", "--num-epochs", 60)
    expected = trained(*options)
    process = start("train", "own.csv", *options, "--checkpoint-seconds", 0, "--out", "run", cwd=tmp_path)
    end = time.monotonic() + 60
    while not (tmp_path / "run/checkpoint.safetensors").exists():
        assert time.monotonic() < end
        time.sleep(0.001)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (-number if by == "SIGKILL" else 128 + number)
    assert stands(tmp_path / "run") < (60, 0)
    (tmp_path / "there").mkdir()
    outcome = run_script("train", "--resume", "../run", "--checkpoint-seconds", 1000, cwd=tmp_path / "there")
    assert outcome.code == 0, outcome.err
    assert results(tmp_path / "run") == expected


@pytest.mark.slow
def test_ten_runs_have_one_hash(own, tmp_path, share):
    """In processes of their own, each of which orders sets of texts in its own way."""
    code = "from gru_xp import cli; from gru_xp.reporting import run_folder as r; r.write_plots = print; cli.main()"
    options = (*BATCHES, "--num-layers", "2", "--dropout", "0.2", "--num-epochs", "3", "--checkpoint-every", "1")
    environment = {**os.environ, "PYTHONHASHSEED": "random"}
    count = max(2, round(10 * share))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, "train", "own.csv", *options, "--out", f"run{number}"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        for number in range(count)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * count
    hashes = {sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("run*/model.safetensors")}
    assert len(hashes) == 1


# --- what has changed -------------------------------------------------------------------------------------------


def test_a_file_of_another_size(app, own, stopped, trained, resumed, unchanged):
    options = (*BATCHES, *EPOCHS)
    expected = trained(*options)
    stopped(*options)
    own.write_bytes(own.read_bytes() + b"1960,3.5\n")
    size = own.stat().st_size
    with unchanged():
        outcome = app("train", "--resume", "run")
    outcome.assert_refused("run: own.csv has changed", f"{size:,} bytes", f"{size - 9:,}", "--allow-changes")
    assert resumed("--allow-changes") == expected


def test_a_file_that_was_written_again(app, own, stopped, trained, resumed, unchanged):
    options = (*BATCHES, *EPOCHS)
    expected = trained(*options)
    stopped(*options)
    own.write_bytes(own.read_bytes())
    os.utime(own, ns=(1, own.stat().st_mtime_ns + 5_000_000))  # clocks of file systems are coarse
    with unchanged():
        app("train", "--resume", "run").assert_refused("run: own.csv has changed", " written at 2")
    assert resumed(own.name) == expected  # the rows are the same
    assert resumed() == expected


def test_a_file_that_is_named_is_remembered_from_then_on(app, own, stopped, trained, resumed, when):
    options = (*BATCHES, *EPOCHS)
    expected = trained(*options)
    stopped(*options)
    os.utime(own, ns=(1, 1))
    with when((3, 2), signal.SIGINT):
        assert app("train", "--resume", "run", own.name).code == 130
    assert resumed() == expected


def test_rows_that_have_changed(app, write_csv, restore, unchanged):
    for rows, change, said in (
        (60, {30: "99.5"}, ["1930", "99.5", "15"]),
        (61, {}, ["61 rows", "60"]),
        (59, {}, ["59 rows", "60"]),
        (60, {7: "1e-9"}, ["1907", "1.0000000000000001e-09", "10.699999999999999"]),
    ):
        restore()
        write_csv("other.csv", rows, change)
        with unchanged():
            app("train", "--resume", "run", "other.csv").assert_refused("run: other.csv", *said, "--allow-changes")
        outcome = app("train", "--resume", "run", "other.csv", "--allow-changes", "--json", "--quiet")
        assert outcome.code == 0
        (line,) = (line for line in outcome.err.splitlines() if line.startswith("other.csv: "))
        assert all(text in line for text in said), line
        document = json.loads(outcome.out)
        assert Path(document["file"]).name == "other.csv"
        assert document["epochs"] == 5
        outcome = app("evaluate", "run", "--json", "--quiet")  # the run knows those rows from then on
        assert (outcome.code, outcome.err) == (0, "")
        assert json.loads(outcome.out)["parts"] == document["parts"]


def test_labels_and_columns_that_have_changed(app, own, stopped, unchanged):
    stopped(*BATCHES, *EPOCHS)
    lines = own.read_text().splitlines()
    for name, changed, names in (
        ("a.csv", [lines[0], lines[1].replace("1900", "1899"), *lines[2:]], ("row 1 is 1899", "1900")),
        ("b.csv", [lines[0], *lines[2:], "1960,3"], ("row 1 is 1901", "1900")),
        ("c.csv", ["Year,Price", *lines[1:]], ("no column 'Value'",)),
    ):
        Path(name).write_text("\n".join(changed) + "\n")
        with unchanged():
            outcome = app("train", "--resume", "run", name)
            outcome.with_last_line().assert_refused(*names)


def test_rows_other_than_the_bundled_ones_are_the_runs_own(app, own, when, tmp_path):
    options = (*QUIET, "--target", "Sunspots", "--batch-size", 50, "--num-epochs", 2)
    with when((0, 2), signal.SIGINT):
        assert app("train", "sunspots", *options, "--out", "run").code == 130
    Path("own.csv").write_text(own.read_text().replace("Value", "Sunspots"))
    outcome = app("train", "--resume", "run", "own.csv", "--allow-changes", "--json")
    assert outcome.code == 0, outcome.err
    evaluated = app("evaluate", "run", "--json", "--quiet")
    assert json.loads(evaluated.out)["parts"] == json.loads(outcome.out)["parts"]
    notes = Forecaster.load("run/model.safetensors", device="cpu").notes
    assert (notes["file"], notes["bundled"]) == ("own.csv", False)


def test_rows_with_gaps_and_without(app, write_csv, stopped, unchanged, monkeypatch):
    """A run has inputs for gaps whether there are any or not; one of an earlier version only where there are."""
    gap = {20: "NA"}
    for first, other in ((gap, {}), ({}, gap)):
        write_csv(change=first)
        write_csv("other.csv", change=other)
        stopped(*BATCHES, *EPOCHS, "--missing", "mask")
        assert app("train", "--resume", "run", "other.csv", "--allow-changes", "--quiet").code == 0

    def filled_before(*args, original=gru_xp.io.read.fill_missing):
        filled = original(*args)
        return filled._replace(observed=filled.observed if filled.record else None)

    write_csv()
    write_csv("without.csv", change={30: "4"})
    with monkeypatch.context() as patch:
        patch.setattr("gru_xp.io.read.fill_missing", filled_before)
        stopped(*BATCHES, *EPOCHS, "--missing", "mask")
    with unchanged():
        outcome = app("train", "--resume", "run", "other.csv", "--allow-changes", "--quiet")
    outcome.with_last_line().assert_refused("run: other.csv", "missing values")
    assert app("train", "--resume", "run", "without.csv", "--allow-changes").code == 0


def test_other_gaps(app, write_csv, stopped):
    """What stands for a missing value is the value before, so that the rows may be the same."""
    write_csv(change={20: "NA", 21: "5", 22: "5"})
    write_csv("other.csv", change={20: "NA", 21: "5", 22: "NA"})
    stopped(*BATCHES, *EPOCHS, "--missing", "mask")
    outcome = app("train", "--resume", "run", "other.csv", "--quiet")
    assert outcome.code == 1
    line = outcome.err.splitlines()[-1]
    assert all(text in line for text in ("run: other.csv", "missing", "--allow-changes")), line


CHANGES = {
    "num_epochs": 7,
    "learning_rate": 0.01,
    "clip_norm": 0.5,
    "keep_every": 2,
    "threads": 3,
    "device": "cuda",
}
"""Options that a run may go on with otherwise, if that is said."""

OTHERS = {
    "refit": True,
    "target": "Year",
    "feature": "Year",
    "features": "Year",
    "time": "Value",
    "id": "Year",
    "where": "Year=1900",
    "order": "newest-first",
    "freq": "YS",
    "missing_values": "?",
    "decimal": ",",
    "date_format": "%Y",
    "on_duplicate": "first",
    "missing": "drop",
    "encoding": "cp1252",
    "split_ratio": 0.5,
    "validation_ratio": 0.1,
    "patience": 7,
    "seq_length": 9,
    "season": 3,
    "model": "ridge",
    "guard": False,
    "horizon": 2,
    "patches": 3,
    "linear_skip": False,
    "hidden_size": 5,
    "num_layers": 2,
    "bidirectional": None,
    "dropout": 0.1,
    "recurrent_dropout": 0.1,
    "zoneout": 0.1,
    "optimizer": "sgd",
    "reduction": "sum",
    "batch_size": 6,
    "scaling": "standard",
    "reset": "after",
    "dtype": "float64",
    "seed": 1,
    "beta1": 0.5,
    "beta2": 0.5,
    "weight_decay": 0.5,
    "schedule": "cosine",
    "warmup": 0.5,
    "num_steps": 9,
    "loss": "mse",
    "huber_delta": 0.5,
    "quantiles": 0.25,
    "transform": "sqrt",
    "minimum": -5.5,
    "maximum": 500.5,
    "levels": 80.5,
}
"""Options that make another training."""

FREE = {"checkpoint_every": 1, "checkpoint_seconds": 0, "plots": "svg", "no_fallback": None}
"""Options that change nothing of what is computed."""

NEW_RUNS = {"out": "other", "overwrite": None, "verify_cpu": None, "preset": "recipe"}
"""Options that are none for a run that goes on."""


def flag(name, value):
    if value is False:
        return [option_of(name).replace("--", "--no-")]
    return [option_of(name), *([] if value is None else [value])]


@pytest.mark.compat
def test_what_each_option_does_to_a_run_that_goes_on_is_known():
    options = {option.name for option in cli.commands["train"].params if isinstance(option, click.Option)}
    known = [
        *CHANGES,
        *OTHERS,
        *FREE,
        *NEW_RUNS,
        "tf32",
        "compare",
        "resume",
        "allow_changes",
        "quiet",
        "as_json",
        "debug",
        "help",
    ]
    assert len(known) == len(set(known))
    assert options | {"help"} == set(known)


def test_tf32_needs_another_device_than_the_cpu(app, restore, unchanged):
    restore()
    with unchanged():
        app("train", "--resume", "run", "--tf32").assert_refused("--tf32 is False in the run and True here")
        app("train", "--resume", "run", "--tf32", "--allow-changes").assert_refused("--tf32", "cpu", "--device cuda")


def test_options_that_may_change_if_that_is_said(app, restore, unchanged):
    threads = checkpoint().run["threads"]
    rate = RECIPE["learning_rate"]
    held = {"num_epochs": 5, "learning_rate": rate, "clip_norm": 1.0, "threads": threads, "device": "cpu"}
    for name, value in CHANGES.items():
        restore()
        option = flag(name, value)
        with unchanged():
            outcome = app("train", "--resume", "run", *option)
        outcome.assert_refused(f"run: {option[0]} is {held.get(name, 'not set')} ", f" {value} ", "--allow-changes")
        outcome = app("train", "--resume", "run", *option, "--allow-changes")
        assert outcome.code == 0, outcome.err
        if name == "num_epochs":  # two are done; the rate rises for a fifth of all
            rates = (rate / 2 * (1 + np.cos(np.pi * (2 / epochs - 0.2) / 0.8)) for epochs in (value, 5))
            assert all(f" {next_rate:.6f}"[:-2] in outcome.err for next_rate in rates), outcome.err
        else:
            assert "schedule" not in outcome.err
        described = Forecaster.load("run/model.safetensors", device="cpu")
        if name == "threads":
            assert described.notes["threads"] == checkpoint().run["threads"] == 3
        elif name == "device":
            assert outcome.err.startswith("warning: device cuda ")
        else:
            settings = (described.settings(), checkpoint().forecaster.settings())
            assert [each[name] for each in settings] == [value] * 2, name
        assert checkpoint().state.epoch == (7 if name == "num_epochs" else 5), name


def test_options_that_would_be_another_training(app, stopped, unchanged):
    stopped(*BATCHES, *EPOCHS)
    with unchanged():
        for name, value in OTHERS.items():
            option = flag(name, value)
            for more in ((), ("--allow-changes",)):
                outcome = app("train", "--resume", "run", *option, *more)
                said = option_of(name.replace("features", "feature"))
                outcome.assert_refused(f"run: {said} is ", f" {'True' if value is None else value} ")
                assert "--allow-changes" not in outcome.error, name


def test_what_the_number_of_updates_follows_from(app, own, stopped, unchanged):
    """Patience, without which there are as many as the windows ask for, and another schedule."""
    stopped(*BATCHES, "--patience", 9)
    resumed = app("train", "--resume", "run", "--patience", 2, "--num-epochs", 4, "--allow-changes")
    assert resumed.code == 0
    assert checkpoint().state.epoch <= 4
    with unchanged():
        for option in (("--patience", 0), ("--num-steps", 9)):
            app("train", "--resume", "run", *option, "--allow-changes").assert_refused(f"run: {option[0]} is ")
    stopped(*BATCHES)
    with unchanged():
        for option in (("--patience", 2), ("--num-epochs", 400)):
            app("train", "--resume", "run", *option, "--allow-changes").assert_refused(f"run: {option[0]} is not set ")


def test_options_that_change_nothing(trained, restore, resumed):
    expected = trained(*BATCHES, *EPOCHS)
    for name, value in FREE.items():
        restore()
        assert resumed(*flag(name, value)) == expected, name


def test_a_device_that_is_gone_is_not_replaced_unasked(app, stopped, unchanged, no_cuda, monkeypatch):
    def describe(self, before=Forecaster.describe):
        return before(self) | {"device": "cuda:0"}

    with monkeypatch.context() as patch:
        patch.setattr(Forecaster, "describe", describe)
        stopped(*BATCHES, *EPOCHS)
    with unchanged():
        app("train", "--resume", "run").assert_refused("cuda:0", no_cuda)
    assert app("train", "--resume", "run", "--device", "cpu", "--allow-changes").code == 0


def test_other_versions_are_said(app, stopped, monkeypatch):
    stopped(*BATCHES, *EPOCHS)
    assert app("train", "--resume", "run", "--quiet").err == ""
    monkeypatch.setattr(
        inventory, "versions", lambda device, before=inventory.versions: before(device) | {"numpy": "9"}
    )
    outcome = app("train", "--resume", "run", "--quiet")
    assert outcome.code == 0
    (line,) = outcome.err.splitlines()
    assert line.startswith("warning: ")
    assert line.endswith(f": numpy {np.__version__} -> 9")


# --- what cannot be gone on with --------------------------------------------------------------------------------


@pytest.mark.compat
def test_wrong_usage(app, own, unchanged):
    with unchanged():
        for arguments, names in (
            ((), ("'CSV'", "--resume RUN")),
            (("own.csv", "--allow-changes"), ("--allow-changes", "--resume")),
            (("--resume", "run", "--out", "other"), ("--out", "--resume")),
            (("--resume", "run", "--overwrite"), ("--overwrite", "--resume")),
            (("--resume", "run", "--verify-cpu"), ("--verify-cpu", "--resume")),
            (("--resume",), ("--resume",)),
            (("own.csv", "--checkpoint-every", "0"), ("--checkpoint-every",)),
            (("own.csv", "--checkpoint-seconds", "-1"), ("--checkpoint-seconds",)),
            (("own.csv", "--checkpoint-seconds", "nan"), ("--checkpoint-seconds",)),
        ):
            outcome = app("train", *arguments)
            assert (outcome.code, outcome.out) == (2, ""), arguments
            assert all(name in outcome.err.splitlines()[-1] for name in names), outcome.err


@pytest.mark.compat
def test_folders_of_no_run(app, own, stopped, unchanged, tmp_path):
    (tmp_path / "empty").mkdir()
    stopped(*BATCHES, *EPOCHS)
    shutil.move("run", "old")
    (tmp_path / "old/checkpoint.safetensors").unlink()
    with unchanged():
        for run, *names in (
            ("nowhere", "is not a run folder", "--out"),
            ("own.csv", "is not a run folder", "--out"),
            ("empty", "no checkpoint.safetensors", "--overwrite"),
            ("old", "no checkpoint.safetensors", "--overwrite"),
        ):
            app("train", "--resume", run).assert_refused(run, *names)


def test_a_model_is_no_checkpoint_and_a_checkpoint_no_model(app, stopped, unchanged):
    stopped(*BATCHES, *EPOCHS)
    for name, copy in (("checkpoint", "as_model/model"), ("model", "as_checkpoint/checkpoint")):
        Path(copy).parent.mkdir()
        shutil.copy(f"run/{name}.safetensors", f"{copy}.safetensors")
    with unchanged():
        app("train", "--resume", "as_checkpoint").assert_refused(
            "as_checkpoint/checkpoint.safetensors: a gru-xp model", "not a gru-xp checkpoint"
        )
        app("evaluate", "as_model", "--quiet").assert_refused(
            "as_model/model.safetensors: a gru-xp checkpoint", "not a gru-xp model"
        )


def test_damaged_checkpoints(app, stopped, unchanged):
    """Wherever a byte is not as it was: in the length of the header, the header, each array."""
    stopped(*BATCHES, *EPOCHS)
    path = Path("run/checkpoint.safetensors")
    good = path.read_bytes()
    positions = [*range(8), *np.linspace(8, len(good) - 1, 60, dtype=int).tolist()]
    damaged = [good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in positions]
    damaged += [b"", good[:7], good[: len(good) // 2], good[:-1], good + b"\0", b"\xff" * 100]
    for content in damaged:
        path.write_bytes(content)
        with unchanged():
            app("train", "--resume", "run").assert_refused("run/checkpoint.safetensors: ")
    path.write_bytes(good)
    assert app("train", "--resume", "run").code == 0


# --- when they are written --------------------------------------------------------------------------------------


@pytest.fixture
def times(monkeypatch):
    """Epochs and batches of the checkpoints that are written."""
    times = []

    def save(path, forecaster, state, before=checkpoint_module.save_checkpoint, **options):
        times.append((state.epoch, state.batches))
        before(path, forecaster, state, **options)

    monkeypatch.setattr(checkpoint_module, "save_checkpoint", save)
    return times


ALL = [(epoch, batch) for epoch in range(5) for batch in range(7)] + [(5, 0)]


def test_when_checkpoints_are_written(app, own, times):
    for options, expected in (
        ((), [(5, 0)]),
        (("--checkpoint-every", 2), [(2, 0), (4, 0), (5, 0)]),
        (("--checkpoint-every", 5), [(5, 0)]),
        (("--checkpoint-every", 99), [(5, 0)]),
        (("--checkpoint-seconds", 1000), [(5, 0)]),
        (("--checkpoint-seconds", 0), ALL),
        (("--checkpoint-seconds", 1000, "--checkpoint-every", 3), [(3, 0), (5, 0)]),
    ):
        times.clear()
        assert app("train", own.name, *BATCHES, *EPOCHS, *options, "--out", "run").code == 0
        assert times == expected, options
        assert stands() == (5, 0)
        shutil.rmtree("run")


def test_a_run_that_goes_on_writes_them_as_before_unless_told(app, own, times, when):
    with when((0, 2), signal.SIGINT):
        app("train", own.name, *BATCHES, *EPOCHS, "--checkpoint-every", 2, "--out", "run")
    with when((2, 2), signal.SIGINT):
        app("train", "--resume", "run")
    app("train", "--resume", "run", "--checkpoint-every", 1)
    assert times == [(0, 2), (2, 0), (2, 2), (3, 0), (4, 0), (5, 0)]


def test_a_run_that_gets_out_of_hand_leaves_a_checkpoint_that_can_be_read(app, own):
    no_limit = ("--clip-norm", "none", "--loss", "mse")
    options = (*BATCHES, *EPOCHS, *no_limit, "--optimizer", "sgd", "--learning-rate", "1e30")
    outcome = app("train", own.name, *options, "--checkpoint-seconds", 0, "--out", "run")
    assert outcome.code == 1
    assert stands() < (1, 0)
    again = app("train", "--resume", "run", "--quiet")
    assert (again.code, again.error) == (1, outcome.error)


def test_another_run_in_the_same_folder_is_the_one_that_goes_on(app, own, stopped, times, when):
    """It writes its first state at once, so that the checkpoint of the other is not taken for its own."""
    stopped(*BATCHES, *EPOCHS)
    times.clear()
    app("train", own.name, *BATCHES, "--num-epochs", 2, "--seed", 5, "--out", "run", "--overwrite")
    assert times == [(0, 0), (2, 0)]
    assert checkpoint().forecaster.seed == 5


# --- when they cannot be written --------------------------------------------------------------------------------


def no_space(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def assert_says_how_to_go_on(outcome, reason):
    outcome.assert_refused(f"run: cannot be written ({reason})", "gru-xp train --resume run")


def test_a_disk_that_gets_full(app, own, trained, resumed, when):
    """What is written before stays, and is gone on from."""

    def opened(path, mode="r", *arguments, before=Path.open, **options):
        return _Full() if "x" in mode else before(path, mode, *arguments, **options)

    expected = trained(*BATCHES, *EPOCHS)
    for owner, name, full in ((os, "fsync", no_space), (Path, "replace", no_space), (Path, "open", opened)):
        with (
            pytest.MonkeyPatch.context() as patch,
            when((2, 1), lambda patch=patch, case=(owner, name, full): patch.setattr(*case)),
        ):
            outcome = app("train", own.name, *BATCHES, *EPOCHS, "--checkpoint-seconds", 0, "--out", "run")
        assert_says_how_to_go_on(outcome, "No space left on device")
        assert os.listdir("run") == ["checkpoint.safetensors"], name
        assert stands() == (2, 0), name
        assert resumed() == expected, name
        shutil.rmtree("run")


class _Full:
    """A file on a full disk."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    write = staticmethod(no_space)


def test_files_that_must_not_grow_so_large(app, own, whole, resumed, contents, monkeypatch):
    """As on a disk that is full, but for the number of the error: a part of what is written gets there."""
    resource = pytest.importorskip("resource")
    options = (*BATCHES, *EPOCHS, "--checkpoint-every", 1)
    expected = whole(*options)
    sizes = {name: len(content) for name, content in contents("whole").items()}
    monkeypatch.setattr(run_folder, "write_plots", lambda folder, *_: (folder / "plots").write_bytes(bytes(20_000)))
    assert max(sizes.values()) < 20_000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = sizes["checkpoint.safetensors"]
    for limit, left in ((size - 100, 1), (size + 100, 5)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            outcome = app("train", own.name, *options, "--out", "run")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert_says_how_to_go_on(outcome, "File too large")
        assert os.listdir("run") == ["checkpoint.safetensors"]
        assert left <= checkpoint().state.epoch <= 5
        with monkeypatch.context() as patch:
            patch.setattr(run_folder, "write_plots", lambda *arguments: None)
            assert resumed() == expected
        shutil.rmtree("run")


def test_a_disk_that_is_full_from_the_start_leaves_nothing(app, own, unchanged, monkeypatch):
    monkeypatch.setattr(os, "fsync", no_space)
    with unchanged():
        outcome = app("train", own.name, *BATCHES, *EPOCHS, "--out", "deep/down/run")
    outcome.assert_refused("down/run: cannot be written (No space left on device)", "train again")


def test_a_folder_that_may_not_be_written_to(app, own, stopped, unchanged, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    stopped(*BATCHES, *EPOCHS)
    os.chmod("run", 0o500)
    try:
        if os.access("run", os.W_OK):  # root may
            monkeypatch.setattr(tempfile, "mkdtemp", denied)
        with unchanged():
            for arguments in (("--resume", "run"), (own.name, *BATCHES, "--out", "run", "--overwrite")):
                app("train", *arguments).assert_refused("run cannot be written to (Permission denied)")
    finally:
        os.chmod("run", 0o700)


def test_a_folder_that_becomes_read_only(app, own, trained, resumed, when, monkeypatch):
    def opened(path, mode="r", *arguments, before=Path.open, **options):
        if "x" in mode:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return before(path, mode, *arguments, **options)

    expected = trained(*BATCHES, *EPOCHS)
    with monkeypatch.context() as patch, when((3, 2), lambda: patch.setattr(Path, "open", opened)):
        outcome = app("train", own.name, *BATCHES, *EPOCHS, "--checkpoint-seconds", 0, "--out", "run")
    assert_says_how_to_go_on(outcome, "Permission denied")
    assert stands() == (3, 1)
    assert resumed() == expected


def test_a_folder_that_is_removed_meanwhile(app, own, when):
    for at in ((0, 0), (2, 1), (5, 0)):
        with when(at, lambda: shutil.rmtree("run")):
            outcome = app("train", own.name, *BATCHES, *EPOCHS, "--checkpoint-seconds", 0, "--out", "run")
        outcome.assert_refused("run: cannot be written (the folder is gone)")
        assert os.listdir() == ["own.csv"], at


def test_a_folder_that_is_removed_before_the_results(app, own, monkeypatch):
    def evaluate(*arguments, before=sys.modules["gru_xp.forecasting.evaluation"].evaluate, **options):
        shutil.rmtree("run")
        return before(*arguments, **options)

    monkeypatch.setattr("gru_xp.forecasting.evaluation.evaluate", evaluate)
    outcome = app("train", own.name, *BATCHES, *EPOCHS, "--out", "run")
    outcome.assert_refused("run: cannot be written")
    assert os.listdir() == ["own.csv"]


@pytest.mark.slow
def test_a_folder_that_is_removed_under_a_process(start, own, tmp_path):
    options = (*BATCHES, "--num-epochs", 100000, "--patience", 0, "--checkpoint-seconds", 0)
    process = start("train", "own.csv", *options, "--out", "run", cwd=tmp_path)
    end = time.monotonic() + 60
    while not (tmp_path / "run/checkpoint.safetensors").exists():
        assert time.monotonic() < end
        time.sleep(0.001)
    (tmp_path / "run").rename(tmp_path / "gone")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    (line,) = err.decode().splitlines()
    assert line.startswith("Error: run: cannot be written (the folder is gone)")
    assert stands(tmp_path / "gone") < (100000, 0)


def test_what_a_killed_process_left_is_cleared_away(stopped, trained, resumed, tmp_path):
    expected = trained(*BATCHES, *EPOCHS)
    stopped(*BATCHES, *EPOCHS)
    (tmp_path / "run/.partial-abc").mkdir()
    (tmp_path / "run/.partial-abc/model.safetensors").write_text("half")
    (tmp_path / "run/.gru-xp-0123456789abcdef.part").write_text("half")
    (tmp_path / "run/notes.txt").write_text("mine")
    assert resumed() == expected
    assert (tmp_path / "run/notes.txt").read_text() == "mine"


def test_predictions_are_those_of_the_model(stopped, resumed):
    """The results of a run that went on go together."""
    stopped(*BATCHES, *EPOCHS)
    resumed()
    with Path("run/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    model = Forecaster.load("run/model.safetensors", device="cpu")
    predicted = model.predict(checkpoint().series)
    np.testing.assert_allclose([float(row["predicted"]) for row in rows], predicted, rtol=1e-5)
    state, arrays = checkpoint().state, load_file("run/model.safetensors")
    assert sum(array.size for array in arrays.values()) == state.best_theta.size
    assert model.best_epoch == state.best_epoch
