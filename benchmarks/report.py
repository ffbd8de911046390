"""What the commands share: options, the machine that is measured, and JSON files."""

import json
import os
import platform
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import click

from gru_xp.cli.messages import note

F = TypeVar("F", bound=Callable[..., Any])


def _check_json(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a file that cannot be written before anything is measured, not after."""
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {value.parent}; make it first")
    return value


def json_option(command: F) -> F:
    """``--json FILE``."""
    return click.option(
        "--json",
        "json_file",
        type=click.Path(path_type=Path, dir_okay=False, writable=True),
        metavar="FILE",
        callback=_check_json,
        help="Keep machine, versions, settings and every row in FILE, too.",
    )(command)


def device_option(command: F) -> F:
    """``--device``, for commands that compute on one device."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|cuda:N",
        help="Where to compute; auto takes a CUDA device that works, else the CPU.",
    )(command)


def quick_option(text: str) -> Callable[[F], F]:
    """``--quick``, which does what `text` says."""
    return click.option("--quick", is_flag=True, help=f"{text}; to see that it works, not to measure.")


def save_json(file: Path | None, command: str, settings: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Write what was measured, and on what, to `file` if there is one."""
    if file is None:
        return
    record = {
        "benchmark": command,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        **describe_machine(),
        "settings": settings,
        "rows": list(rows),
    }
    try:
        file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written ({error.strerror or error})") from error
    note(f"written to {file}")


def describe_machine() -> dict[str, Any]:
    """``machine`` and ``versions``, as JSON can hold them."""
    from gru_xp.devices.inventory import inventory

    found = inventory()
    cpu, cuda = found["cpu"], found["cuda"]
    return {
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": cpu["name"],
            "cores": os.cpu_count(),
            "threads": cpu["threads"],
            "gpus": [device["name"] for device in cuda["devices"]],
        },
        "versions": {
            "python": platform.python_version(),
            "gru-xp": package_version("gru-xp"),
            "numpy": cpu["numpy"],
            "blas": ", ".join(cpu["blas"]),
            "torch": package_version("torch"),
            "cupy": cuda.get("cupy"),
            "cuda_runtime": cuda.get("runtime"),
            "cuda_driver": cuda.get("driver"),
        },
    }


def package_version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
