import io
import json
import logging
import os
import re
import select
import signal
import sys
import time
import warnings
from itertools import product
from pathlib import Path

import pytest

from gru_xp import Forecaster, cli
from gru_xp.devices import device
from gru_xp.errors import DeviceWarning
from gru_xp.forecasting.checkpoint import load_checkpoint
from gru_xp.reporting import run_folder
from gru_xp.training.checkpoint import Checkpoints
from gru_xp.training.trainer import EpochRecord

progress = cli.progress
SIGNALS = (signal.SIGINT, signal.SIGTERM)
FOREVER = ("--num-epochs", "1000000", "--patience", "0", "--hidden-size", "4", "--device", "cpu")


def record(epoch, seconds=1.0):
    return EpochRecord(epoch, 0.5, None, None, seconds, 0.25)


class Terminal:
    """A process whose stderr is a terminal and whose stdout is a pipe."""

    def __init__(self, start, *arguments, cwd):
        pty = pytest.importorskip("pty")
        self._own, terminal = pty.openpty()
        self.process = start(*arguments, cwd=cwd, stderr=terminal, env={"TERM": "xterm", "COLUMNS": "100"})
        os.close(terminal)
        self.shown = ""

    def read_until(self, text, seconds=60.0):
        """Read what is shown until `text` is there, or, if None, until the process has ended."""
        end = time.monotonic() + seconds
        while text is None or text not in self.shown:
            assert time.monotonic() < end, f"{text!r} was not shown: {self.shown!r}"
            if not select.select([self._own], [], [], 0.5)[0]:
                continue
            try:
                data = os.read(self._own, 4096)
            except OSError:  # as Linux tells the end
                data = b""
            if not data:
                assert text is None, f"{text!r} was not shown: {self.shown!r}"
                return
            self.shown += data.decode(errors="replace")

    def finish(self):
        """The exit code and stdout."""
        self.read_until(None)
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out.decode()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        os.close(self._own)


@pytest.fixture
def terminal(start, tmp_path):
    """``terminal(*arguments)``: the command with stderr on a terminal."""
    opened = []

    def terminal(*arguments):
        opened.append(Terminal(start, *arguments, cwd=tmp_path))
        return opened[-1]

    yield terminal
    for one in opened:
        one.close()


# --- bar, lines, nothing ----------------------------------------------------------------------------------------


def test_a_quiet_terminal_stays_empty(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr", terminal)
    for quiet in (False, True):
        terminal.truncate(0)
        with progress.watch(100, quiet=quiet) as callback:
            callback(record(20))
        assert bool(terminal.getvalue()) != quiet


@pytest.mark.compat
def test_what_is_no_terminal_gets_lines(app, write_csv, quick, plain, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    write_csv()
    outcome = app("train", "own.csv", *quick, *plain)
    pattern = r"epoch \d/3: training loss \S+, best validation loss \S+, about \d+ s left"
    lines = [line for line in outcome.err.splitlines() if re.fullmatch(pattern, line)]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "\x1b" not in outcome.err
    assert "epoch" not in outcome.out
    assert app("train", "own.csv", *quick, "--quiet").err == ""


def test_lines_are_few(app, write_csv, quick):
    write_csv()
    assert "about" not in app("train", "own.csv", *quick).err


def test_a_line_says_how_long_it_will_take(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    with progress.watch(100, quiet=False) as callback:
        callback(record(20, seconds=5.0))
    out, err = capsys.readouterr()
    assert out == ""
    for part in ("epoch 20/100", "training loss 0.5000", "best training loss 0.2500", "20 s left"):
        assert part in err


def test_what_is_said_meanwhile_is_a_line_above_the_bar(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with (
        progress.watch(100, quiet=False) as callback,
        cli.messages.log_as_notes(quiet=False),
        cli.messages.device_warnings_as_notes(),
    ):
        callback(record(20))
        logging.getLogger("gru_xp").info("compiling kernels")
        warnings.warn("switched off", DeviceWarning, stacklevel=1)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.buffer.getvalue().decode())
    assert {"compiling kernels", "warning: switched off"} < set(re.split(r"[\r\n]+", shown))


@pytest.mark.parametrize("width", [80, 120])
def test_the_numbers_of_the_bar_fit(capsys, monkeypatch, width):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    with progress.watch(500_000, quiet=False) as callback:
        callback(record(110_340))
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", capsys.readouterr().err)
    last = [line for line in re.split(r"[\r\n]+", shown) if line.strip()][-1]
    assert len(last.rstrip()) <= width
    for part in ("110340/500000", "training 0.5000", "best training 0.2500", "left"):
        assert part in last
    assert re.search(r"-:--:--|\d:\d\d:\d\d$", last.strip())


# --- Ctrl-C, and being asked to end -----------------------------------------------------------------------------


@pytest.mark.compat
def test_a_signal_is_noted(capsys):
    for number in SIGNALS:
        before = signal.getsignal(number)
        with progress.interruptible(pytest.fail) as interrupt:
            assert interrupt == progress.Interrupt(None)
            assert interrupt.exit_code == 0
            signal.raise_signal(number)
            assert interrupt.by is number
            assert interrupt.exit_code == 128 + number
        assert signal.getsignal(number) is before
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.compat
def test_a_second_signal_ends_it_at_once():
    def interrupted(first, second):
        with progress.interruptible(lambda: calls.append("quit")):
            signal.raise_signal(first)
            assert not calls
            signal.raise_signal(second)

    for first, second in product(SIGNALS, SIGNALS):
        before, calls = signal.getsignal(second), []
        with pytest.raises(SystemExit) as leaving:
            interrupted(first, second)
        assert leaving.value.code == 128 + second
        assert calls == ["quit"]
        assert signal.getsignal(second) is before


def test_the_handlers_are_put_back_after_an_error():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), progress.interruptible(pytest.fail):
        raise RuntimeError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_ctrl_c_on_a_terminal_finishes_the_batch_and_keeps_the_run(terminal, write_csv, tmp_path):
    """The bar and the messages are on stderr, and stdout has none of them."""
    write_csv()
    shown = terminal("train", "own.csv", *FOREVER, "--batch-size", 5, "--out", "my run", "--json")
    shown.read_until("best training")  # the bar has a loss, so training has begun
    shown.process.send_signal(signal.SIGINT)
    code, out = shown.finish()
    assert code == 130
    assert re.search(r"\x1b\[.*/1000000.*loss: training .*best training .*left", shown.shown, re.DOTALL)
    lines = shown.shown.splitlines()
    assert "Stopping after this batch and saving. Press Ctrl-C again to quit now." in lines
    assert lines[-1] == "Stopped. Continue with: gru-xp train --resume 'my run'"
    assert "Traceback" not in shown.shown
    metrics = json.loads(out)
    assert metrics["stop_reason"] == "paused"
    assert metrics["epochs"] < 1000000
    history = (tmp_path / "my run/history.csv").read_text().splitlines()
    assert len(history) == metrics["epochs"] + 2
    assert load_checkpoint(tmp_path / "my run/checkpoint.safetensors").state.epoch == metrics["epochs"]
    assert Forecaster.load(tmp_path / "my run/model.safetensors", device="cpu").hidden_size == 4
    assert sorted(os.listdir(tmp_path)) == ["my run", "own.csv"]
    assert len(list((tmp_path / "my run/plots").iterdir())) == 5


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_leaves_the_last_checkpoint(start, tmp_path, number):
    rows = "\n".join(f"{row},{row % 7}" for row in range(4000))
    (tmp_path / "own.csv").write_text("index,Value\n" + rows)
    slow = ("--hidden-size", "128", "--seq-length", "20", "--num-epochs", "1000", "--checkpoint-every", "1")
    process = start("train", "own.csv", *slow, "--device", "cpu", "--out", "run", cwd=tmp_path)
    wait_for(process, (tmp_path / "run/checkpoint.safetensors").exists)
    process.send_signal(number)
    while b"Stopping" not in (said := process.stderr.readline()):
        assert said  # the first signal is noted before it ends
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert (out, err) == (b"", b"Stopped. Continue with: gru-xp train --resume run\n")
    assert_holds_only_a_checkpoint(tmp_path / "run")


def assert_holds_only_a_checkpoint(folder):
    assert os.listdir(folder) == ["checkpoint.safetensors"]
    state = load_checkpoint(folder / "checkpoint.safetensors").state
    assert (state.epoch >= 1, state.batches) == (True, 0)


def test_two_signals_leave_the_last_checkpoint(app, write_csv, monkeypatch, tmp_path):
    def called(self, epoch, batches, state, before=Checkpoints.__call__):
        if (epoch, batches) == (3, 2):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        return before(self, epoch, batches, state)

    write_csv()
    monkeypatch.setattr(Checkpoints, "__call__", called)
    options = ("--batch-size", 5, "--checkpoint-every", 1, "--quiet")
    outcome = app("train", "own.csv", *FOREVER, *options, "--out", "run")
    assert (outcome.code, outcome.out) == (143, "")
    assert outcome.err.splitlines()[-1] == "Stopped. Continue with: gru-xp train --resume run"
    assert_holds_only_a_checkpoint(tmp_path / "run")
    outcome = app("train", "--resume", "run", "--quiet")
    assert (outcome.code, outcome.err.splitlines()[-1][:8]) == (143, "Stopped.")


def test_two_signals_before_a_checkpoint_say_that_nothing_was_saved(app, write_csv, monkeypatch, quick):
    """Nor is there advice for the checkpoint of an earlier run, or for one that cannot be read."""

    def fit(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    def write_text_over(self, *arguments, before=Checkpoints.write):
        before(self, *arguments)
        Path("damaged/checkpoint.safetensors").write_text("no checkpoint")
        fit()

    write_csv()
    assert app("train", "own.csv", *quick, "--out", "earlier").code == 0
    for run, owner, name, act in (
        ("new", Forecaster, "fit", fit),
        ("earlier", Forecaster, "fit", fit),
        ("damaged", Checkpoints, "write", write_text_over),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, act)
            outcome = app("train", "own.csv", *quick, "--out", run, "--overwrite")
        assert outcome.code == 130, run
        assert "--resume" not in outcome.err, run
        assert outcome.err.splitlines()[-1] == "Stopped before the first checkpoint; nothing was saved.", run


def test_a_signal_before_the_training_ends_it_after_epoch_0(app, write_csv, monkeypatch, tmp_path):
    def resolve_device(*arguments, before=device.resolve_device, **options):
        signal.raise_signal(number)
        return before(*arguments, **options)

    write_csv()
    monkeypatch.setattr("gru_xp.devices.resolve_device", resolve_device)
    for number in SIGNALS:
        outcome = app("train", "own.csv", *FOREVER, "--out", f"run{number}", "--quiet", "--json")
        assert outcome.code == 128 + number
        assert json.loads(outcome.out)["epochs"] == 0
        assert load_checkpoint(tmp_path / f"run{number}/checkpoint.safetensors").state.epoch == 0


def wait_for(process, happens):
    """Wait until it happens, or the process has ended."""
    end = time.monotonic() + 60
    while not happens() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.slow
def test_a_signal_while_a_process_writes_its_files_keeps_the_run(start, tmp_path, write_csv):
    """The plots take the longest to write; the model is there before them."""
    write_csv()
    process = start("train", "own.csv", "--num-epochs", "2", "--device", "cpu", "--out", "run", cwd=tmp_path)
    wait_for(process, lambda: list(tmp_path.glob("run/.partial-*/model.safetensors")))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (0, 130)  # 0 where the run was over already
    assert Forecaster.load(tmp_path / "run/model.safetensors", device="cpu").best_epoch <= 2
    assert len(list((tmp_path / "run/plots").iterdir())) == 5
    assert not list(tmp_path.glob("run/.partial-*"))


def test_a_signal_while_the_files_are_written_or_moved_keeps_the_run(app, write_csv, quick, monkeypatch):
    """The predictions are the last of the files that are written, the history is the first of those that are moved."""

    def write_plots(*arguments):
        signal.raise_signal(signal.SIGINT)

    def replace(file, target, before=Path.replace):
        before(file, target)
        if target.name == "history.csv":
            signal.raise_signal(signal.SIGTERM)

    write_csv()
    for owner, name, act, code in ((run_folder, "write_plots", write_plots, 130), (Path, "replace", replace, 143)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, act)
            outcome = app("train", "own.csv", *quick, "--out", name)
        assert outcome.code == code, name
        assert sorted(os.listdir(name)) == [
            "checkpoint.safetensors",
            "history.csv",
            "metrics.json",
            "model.safetensors",
            "predictions.csv",
        ]
        assert Forecaster.load(f"{name}/model.safetensors", device="cpu").hidden_size == 4
