"""For a machine without a network: ``python -m benchmarks.offline pack FOLDER``, then there ``… run FOLDER``.

This module needs nothing but Python and pip.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WANTED = ("setuptools>=77", f"{ROOT}[test]")
"""What the tests need, and what builds gru-xp."""

COMMAND = ("gpu", "--smoke", "--json", "gpu-smoke.json")
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
PIP = (sys.executable, "-m", "pip")


def pack(folder: Path, python_version: str, machine: str, there: Collection[str]) -> None:
    """Download wheels for Linux into a folder, but for the packages that are there, see `installed`."""
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python_version]
    for platform in PLATFORMS:
        options += ["--platform", f"{platform}_{machine}"]
    with tempfile.TemporaryDirectory() as empty:
        report = Path(empty, "report.json")
        resolve = ["install", "-q", "--dry-run", "--ignore-installed", "--target", empty, "--report", str(report)]
        _run([*PIP, *resolve, *options, *WANTED])
        found = json.loads(report.read_text(encoding="utf-8"))
    wanted = missing(found, there)
    print(f"downloading {len(wanted)} packages: {', '.join(wanted) or 'none'}")
    if wanted:
        _run([*PIP, "download", "-q", "--no-deps", "-d", str(folder), *options, *wanted])


def installed(freeze: str) -> set[str]:
    """Names in what ``pip freeze`` prints."""
    return {_normalized(found[1]) for line in freeze.splitlines() if (found := re.match(r"([\w.-]+) *(?:==|@)", line))}


def missing(report: dict[str, Any], there: Collection[str]) -> list[str]:
    """Packages of pip's report to download, such as ``rich==15.0.0``; not gru-xp, which is installed from here."""
    packages = [entry["metadata"] for entry in report["install"]]
    return [f"{p['name']}=={p['version']}" for p in packages if _normalized(p["name"]) not in {*there, "gru-xp"}]


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def run(folder: Path, command: Sequence[str]) -> int:
    """Install gru-xp and what its tests need from a folder alone, and run a benchmark; return its exit status."""
    _run([*PIP, "install", "-q", "--no-index", "--find-links", str(folder), "-e", WANTED[1]])
    return subprocess.run([sys.executable, "-m", "benchmarks", *(command or COMMAND)], cwd=ROOT, check=False).returncode


def _run(command: Sequence[str]) -> None:
    """A command that prints its errors."""
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)


def _folder(text: str) -> Path:
    if not text or (Path(text).exists() and not Path(text).is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder; give the path of a new or an existing one")
    return Path(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline", description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    packing = actions.add_parser("pack", help="download wheels; needs a network")
    packing.add_argument("folder", type=_folder)
    packing.add_argument(
        "--python-version", default=".".join(map(str, sys.version_info[:2])), help="of the other machine"
    )
    packing.add_argument("--machine", default="x86_64", help="of the other machine, as uname -m prints it")
    packing.add_argument("--have", type=Path, help="packages to leave out: what pip freeze prints on the other machine")
    running = actions.add_parser("run", help=f"install and run a benchmark [default: {' '.join(COMMAND)}]")
    running.add_argument("folder", type=Path)
    running.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    if given.action == "run":
        if not given.folder.is_dir():
            parser.error(f"there is no folder {given.folder}; make it by: python -m benchmarks.offline pack")
        sys.exit(run(given.folder, given.command))
    if not re.fullmatch(r"3\.\d+", given.python_version):
        parser.error(f"--python-version is {given.python_version!r}; it must be a version of Python 3, such as 3.12")
    try:
        there = None if given.have is None else installed(given.have.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = str(error) if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None) or str(error)
        advice = "make it on the other machine by: pip freeze > have.txt"
        parser.error(f"--have {given.have} is no list of packages ({what}); {advice}")
    try:
        pack(given.folder, given.python_version, given.machine, there or set())
    except OSError as error:
        parser.error(f"{given.folder}: {error}")


if __name__ == "__main__":
    main()
