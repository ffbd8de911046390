"""What the commands share: options, the machine that is measured, and JSON files."""

import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import click

from benchmarks.job import Shape
from gru_xp.cli.messages import note

F = TypeVar("F", bound=Callable[..., Any])


def _check_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a file that cannot be written before anything is measured, not after."""
    if value is not None:
        folder = value.absolute().parent
        if not folder.is_dir():
            raise click.BadParameter(f"there is no folder {value.parent}; make it first")
        if not os.access(folder, os.W_OK):
            raise click.BadParameter(f"the folder {value.parent} cannot be written to; choose another one")
    return value


def file_option(flag: str, name: str, text: str) -> Callable[[F], F]:
    """An option for a file that is written, which does what `text` says."""
    path = click.Path(path_type=Path, dir_okay=False, writable=True)
    return click.option(flag, name, type=path, metavar="FILE", callback=_check_file, help=text)


def json_option(command: F) -> F:
    """``--json FILE``."""
    return file_option("--json", "json_file", "Keep machine, versions, settings and every row in FILE, too.")(command)


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


def _parse_shapes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Shape, ...]:
    """Shapes from texts such as ``"165,10,70,1 704,10,70,1"``."""
    shapes = []
    for text in " ".join(values).split():
        sizes = tuple(int(size) if size.isdigit() else 0 for size in text.split(","))
        if len(sizes) != 4 or min(sizes) < 1:
            raise click.BadParameter(f"{text!r} is not B,T,H,I, four numbers above 0, such as 165,10,70,1")
        shapes.append((sizes[0], sizes[1], sizes[2], sizes[3]))
    return tuple(shapes)


def shapes_option(command: F) -> F:
    """``--shapes``."""
    return click.option(
        "--shapes",
        multiple=True,
        metavar="B,T,H,I",
        callback=_parse_shapes,
        help="Sequences, steps, hidden and input size, several separated by spaces.  [default: those in README.md]",
    )(command)


def threads_option(command: F) -> F:
    """``--threads``."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="Threads on the CPU, for every library.  [default: OMP_NUM_THREADS, or the cores]",
    )(command)


def repeats_option(default: int) -> Callable[[F], F]:
    """``--repeats``."""
    return click.option("--repeats", type=click.IntRange(min=1), default=default, show_default=True, help="Rounds.")


def timing(quick: bool, seconds: float = 1.0) -> dict[str, Any]:
    """How long a `Job` times."""
    if quick:
        return {"warm_up_steps": 1, "warm_up_seconds": 0.0, "min_steps": 2, "seconds": 0.02}
    return {"warm_up_steps": 3, "warm_up_seconds": 0.3, "min_steps": 5, "seconds": seconds}


def shape_text(shape: Iterable[int]) -> str:
    """Such as ``165, 10, 70, 1``."""
    return ", ".join(map(str, shape))


def number_text(number: float) -> str:
    """Three digits, or all before the point."""
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"


def range_text(low: float, high: float) -> str:
    """Such as ``1.20 to 1.31``."""
    return f"{low:.2f} to {high:.2f}"


def ratio_cells(row: dict[str, Any]) -> tuple[str, str]:
    """How many times as fast as a row's contestant we are, and in rounds; with another checkout, in three digits."""
    for name, digits in (("times_as_fast", 2), ("times_as_fast_as_before", 3)):
        if name in row:
            return f"{row[name]:.{digits}f}", range_text(row[f"{name}_min"], row[f"{name}_max"])
    return "", ""


def grouped(rows: Iterable[tuple[tuple[str, ...], tuple[str, ...]]]) -> Iterator[tuple[str, ...]]:
    """A table's rows from their group and the other cells: a gap between groups, each named once."""
    last: tuple[str, ...] | None = None
    for group, cells in rows:
        if last not in (None, group):
            yield ()
        yield (*([""] * len(group) if group == last else group), *cells)
        last = group


def save_json(
    file: Path | None,
    command: str,
    settings: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    summary: dict[str, Any] | None = None,
) -> None:
    """Write what was measured, and on what, to `file` if there is one."""
    if file is None:
        return
    record = {
        "benchmark": command,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        **describe_machine(),
        "settings": settings,
        "summary": summary or {},
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

    found = inventory(check=False)  # which would take longer than a benchmark may
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
            "onnxruntime": package_version("onnxruntime"),
            "openvino": package_version("openvino"),
            "jax": package_version("jax"),
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
