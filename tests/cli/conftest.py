"""The app as people start it, in this process and in one of its own, and runs that several tests look at."""

import contextlib
import csv
import io
import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import pytest

from gru_xp.devices import device, inventory
from gru_xp.forecasting import backtest, fitting
from gru_xp.reporting import run_folder

MEASURED = {"test_backtest", "test_messages", "test_stored_runs"}
"""Files of tests that look at the measures."""

SHARED = {"goog", "validated", "sunspots", "deep", "featured", "after"}
"""Runs that several tests look at, which utilsforecast has measured."""

NO_CUDA = "the driver is on holiday"
SMALL = ("--hidden-size", "4", "--num-epochs", "3")
PLAIN = (
    *("--seq-length", "10", "--patches", "0", "--no-linear-skip", "--no-guard", "--scaling", "last", "--loss", "mse"),
    *("--optimizer", "adam", "--schedule", "constant", "--learning-rate", "0.002"),
    *("--batch-size", "all", "--clip-norm", "none", "--validation-ratio", "0.2", "--patience", "50"),
)
"""A GRU on its own, with a step for each row, whose best epoch is chosen by rows that are held out."""


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of an error, when nothing else was said."""
        (line,) = self.err.splitlines()
        assert line.startswith("Error: "), line
        return line.removeprefix("Error: ")

    def with_last_line(self):
        """The same without what was said on stderr before the last line, which must not be an error."""
        *notes, last = self.err.splitlines(keepends=True)
        assert not [line for line in notes if line.startswith("Error: ")]
        return self._replace(err=last)

    def assert_refused(self, *names):
        """Exit code 1, nothing on stdout, and on stderr one line that names each of these."""
        assert (self.code, self.out) == (1, ""), self
        missing = [name for name in names if name not in self.error]
        assert not missing, f"{self.error!r} does not name {missing}"


@pytest.fixture(scope="session")
def outcome_of():
    """``outcome_of(code, out, err)``: how a command ended."""
    return Outcome


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """Let the runs in this process draw no plots, which takes longer than all the rest."""
    monkeypatch.setattr(run_folder, "write_plots", lambda *arguments: None)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Let the runs in this process not wait for the disk, nor work out the memory that their few rows take."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(fitting, "check_memory", lambda *arguments: None)


@pytest.fixture(autouse=True)
def plain_measures(request, monkeypatch, plain_accuracy):
    """Let the runs in this process measure with NumPy, and less: utilsforecast takes longer than a small training."""
    params = getattr(request.node, "callspec", None)
    names = [*request.fixturenames, *(params.params.values() if params else ())]
    if request.path.stem not in MEASURED and not any(name in SHARED for name in names if isinstance(name, str)):
        monkeypatch.setattr(backtest, "accuracy", plain_accuracy)


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch):
    """The reason why CUDA cannot be used, so that the tests do the same on all machines."""
    monkeypatch.delenv("GRU_XP_NO_FALLBACK", raising=False)
    monkeypatch.setattr(device, "cuda_problem", lambda index=0: NO_CUDA)
    monkeypatch.setattr(inventory, "_cuda_devices", list)
    return NO_CUDA


@pytest.fixture(scope="session")
def main():
    """What the installed command calls."""
    (entry,) = entry_points(group="console_scripts", name="gru-xp")
    return entry.load()


@pytest.fixture
def app(main, monkeypatch, capsys, tmp_path):
    """``app("train", "GOOG.csv", ...)``: run the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # as a script has it, whatever started the tests

    def app(*arguments):
        monkeypatch.setattr(sys, "argv", ["gru-xp", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        return Outcome(leaving.value.code, *capsys.readouterr())

    return app


@pytest.fixture(scope="session")
def run_here(main):
    """``run_here(*arguments, cwd=...)``: run the command in this process, for fixtures that several tests share."""

    def run_here(*arguments, cwd):
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.chdir(cwd)
            patch.setattr(sys, "argv", ["gru-xp", *map(str, arguments)])
            patch.setattr(sys.modules["__main__"], "__package__", None)
            patch.setattr(run_folder, "write_plots", lambda *arguments: None)
            with pytest.raises(SystemExit) as leaving:
                main()
        return Outcome(leaving.value.code, out.getvalue(), err.getvalue())

    return run_here


@pytest.fixture(scope="session")
def script():
    """Path of the console script."""
    found = shutil.which("gru-xp", path=str(Path(sys.executable).parent)) or shutil.which("gru-xp")
    assert found, "gru-xp is not installed as a command"
    return found


def _default_sigint():
    """A process started in a shell's background ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def start(script):
    """``start(*arguments, cwd=...)``: the command as a process of its own."""

    def start(*arguments, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        if os.name == "posix":
            options["preexec_fn"] = _default_sigint
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8", **options.pop("env", {})}
        return subprocess.Popen([script, *map(str, arguments)], env=environment, **options)

    return start


@pytest.fixture(scope="session")
def run_script(start):
    """``run_script(*arguments, cwd=...)``: run the command as a process of its own, to its end."""

    def run_script(*arguments, **options):
        process = start(*arguments, **options)
        out, err = (stream.decode() for stream in process.communicate(timeout=120))
        return Outcome(process.returncode, out, err)

    return run_script


class Run(NamedTuple):
    folder: Path
    outcome: Outcome


@pytest.fixture(scope="session")
def train_once(run_here, tmp_path_factory):
    """``train_once(file, *options)``: a run in this process that several tests look at."""

    def train_once(file, *options):
        folder = tmp_path_factory.mktemp("trained")
        outcome = run_here("train", file, *SMALL, *options, "--device", "cpu", "--out", "run", cwd=folder)
        assert outcome.code == 0, outcome.err
        return Run(folder / "run", outcome)

    return train_once


@pytest.fixture(scope="session")
def goog(train_once):
    """A run on a bundled file; tests only look at it."""
    return train_once("GOOG.csv")


@pytest.fixture(scope="session")
def validated(train_once):
    """A run of a GRU on its own, with validation rows; tests only look at it."""
    return train_once("GOOG.csv", *PLAIN)


@pytest.fixture(scope="session")
def sunspots(train_once):
    """A run on a bundled file with years, told in JSON; tests only look at it."""
    return train_once("sunspots", "--json", "--quiet")


@pytest.fixture(scope="session")
def deep(train_once):
    """A plain run of two layers in both directions, with all kinds of dropout; tests only look at it."""
    rates = ("--dropout", "0.2", "--recurrent-dropout", "0.1", "--zoneout", "0.3")
    return train_once("sunspots", *PLAIN, "--num-layers", "2", "--bidirectional", *rates)


@pytest.fixture(scope="session")
def featured(train_once):
    """A run with three features; tests only look at it."""
    return train_once("GOOG.csv", "--target", "Open", "--features", "High,Low", "--features", "Adj Close")


@pytest.fixture(scope="session")
def after(train_once):
    """A run that PyTorch can hold, of two layers in both directions; tests only look at it."""
    return train_once("GOOG.csv", "--reset", "after", "--num-layers", "2", "--bidirectional", "--no-guard")


@pytest.fixture
def write_csv(tmp_path):
    """``write_csv(name="own.csv", rows=60, change={row: text})``: a file of days and values; its path."""

    def write_csv(name="own.csv", rows=60, change=None):
        values = {row: f"{10 + row % 7 + row / 10}" for row in range(rows)} | (change or {})
        lines = [f"{1900 + row},{values[row]}" for row in range(rows)]
        path = tmp_path / name
        path.write_text("\n".join(["Year,Value", *lines]) + "\n", encoding="utf-8")
        return path

    return write_csv


@pytest.fixture
def quick():
    """Options of a training that takes no time."""
    return SMALL


@pytest.fixture
def plain():
    """Options of a GRU on its own, with a step for each row, and with validation rows."""
    return PLAIN


def _contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


@pytest.fixture
def contents():
    """``contents(folder)``: every file in it, hidden ones too, by its path."""
    return _contents


def _results(folder):
    histories = {}
    for path in folder.glob("[hs]*.csv"):  # history.csv, and selection.csv with --refit
        with path.open(newline="", encoding="utf-8") as file:
            histories[path.stem] = list(csv.DictReader(file))
        for row in histories[path.stem]:
            del row["seconds"]
    return histories | {name: (folder / name).read_bytes() for name in ("model.safetensors", "predictions.csv")}


@pytest.fixture(scope="session")
def results():
    """``results(folder)``: what a run ends with, every bit of it, but not how long it took."""
    return _results


@pytest.fixture
def unchanged(tmp_path):
    """Use as ``with unchanged():``; the working folder must be afterwards as it was before."""

    class Unchanged:
        def __enter__(self):
            self.folders, self.files = set(tmp_path.rglob("*")), _contents(tmp_path)

        def __exit__(self, kind, *rest):
            if kind is None:
                assert set(tmp_path.rglob("*")) == self.folders
                assert _contents(tmp_path) == self.files

    return Unchanged
