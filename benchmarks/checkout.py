"""Another checkout of the project, whose times are taken in turn with ours: ``--against``."""

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("benchmarks/worker.py", "gru_xp/__init__.py")


class Checkout(NamedTuple):
    """A folder with the sources of the project, and its benchmarks, which measure them.

    Attributes
    ----------
    name
        The folder or revision, as it was given.
    folder
        Where the sources are.
    commit
        Short hash, with ``-dirty`` if files have changed since; None if unknown.
    """

    name: str
    folder: Path
    commit: str | None

    def knows(self, task: str) -> bool:
        """Whether its benchmarks have a task; "stream" is what they do with one that they do not know."""
        source = (self.folder / "benchmarks/own_gru.py").read_text(encoding="utf-8")
        return task == "stream" or f'"{task}"' in source


def against_option(command: F) -> F:
    """``--against``."""
    return click.option(
        "--against",
        metavar="FOLDER|REVISION",
        help="Also measure another checkout of gru-xp in turn with this one: its folder, or a revision of git.",
    )(command)


def open_checkout(name: str | None) -> Checkout | None:
    """The checkout that ``--against`` names; the files of a revision are in a temporary folder until the command ends.

    Raises
    ------
    click.BadParameter
        There is no such checkout, or it has no benchmarks.
    """
    if name is None:
        return None
    if Path(name).is_dir():
        folder = Path(name).resolve()
        _check_files(name, [file for file in NEEDED if (folder / file).is_file()])
        return Checkout(name, folder, commit_of(folder))
    try:
        commit = _git(ROOT, "rev-parse", "--short", "--verify", "--end-of-options", f"{name}^{{commit}}").decode()
        archive = _git(ROOT, "archive", "--format=tar", commit.strip())
    except (OSError, subprocess.CalledProcessError) as error:
        raise click.BadParameter(
            f"--against: {name!r} is neither a folder nor a revision of this repository"
        ) from error
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        _check_files(name, files.getnames())
        folder = Path(click.get_current_context().with_resource(tempfile.TemporaryDirectory()))
        files.extractall(folder, filter="data")
    return Checkout(name, folder, commit.strip())


def _check_files(name: str, files: Sequence[str]) -> None:
    if missing := [file for file in NEEDED if file not in files]:
        raise click.BadParameter(
            f"--against: {name} has no {missing[0]}; give a checkout of gru-xp with its benchmarks"
        )


def commit_of(folder: Path) -> str | None:
    """The short hash of a folder's commit; None without git."""
    try:
        return _git(folder, "describe", "--always", "--dirty", "--exclude=*").decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True).stdout


def commits(against: Checkout | None) -> dict[str, Any]:
    """The compared commits, as settings of a result; nothing without a comparison."""
    if against is None:
        return {}
    return {"commit": commit_of(ROOT), "against": {"name": against.name, "commit": against.commit}}


def summarize_against(rows: Sequence[dict[str, Any]], mean: Callable[[Sequence[float]], float]) -> dict[str, Any]:
    """How many times as fast as the other checkout we are, over the rows that tell."""
    ratios = [row["times_as_fast_as_before"] for row in rows if "times_as_fast_as_before" in row]
    return {"against": {"geometric_mean": mean(ratios), "lowest": min(ratios)}} if ratios else {}


def against_lines(against: Checkout | None, summary: dict[str, Any]) -> Iterator[str]:
    """The summary in words."""
    if against is not None and "against" in summary:
        numbers = summary["against"]
        yield (
            f"{numbers['geometric_mean']:.3f} times as fast as {against.name} (geometric mean), "
            f"lowest {numbers['lowest']:.3f}"
        )
