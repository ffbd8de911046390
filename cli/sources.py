"""Where a command's model and series come from: a run; a file that was named, a bundled one, or what the run kept."""

import hashlib
import stat
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .messages import choose_device, note

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.checkpoint import Checkpoint
    from gru_xp.forecasting.reading.options import ReadOptions
    from gru_xp.forecasting.series import TimeSeries

    from .options import DeviceRequest


@dataclass(frozen=True)
class Source:
    """A series and the file that it was read from; of a bundled file, `path` is the bare name.

    `target` is what the file calls the target; for a trained model, `series` has the model's names.
    """

    series: "TimeSeries"
    target: str
    path: Path
    bundled: bool


def read_source(
    path: str, target: str | None, features: "Sequence[str]", options: "ReadOptions", *, quiet: bool
) -> Source:
    """Read a CSV file, or a bundled one by its bare name, and say what should be known about it."""
    from gru_xp.forecasting.reading.csv_file import find_file, read_csv

    file, bundled = find_file(path)
    if bundled:
        note(f"{path}: no such file here; taking the bundled {file.name}", quiet=quiet)
    series = read_csv(file, target, features, name=file.name if bundled else None, options=options)
    for text in series.notices:
        note(f"{series.name}: {text}")
    named = Path("stdin") if path == "-" else Path(file.name) if bundled else file.resolve()
    return Source(series, series.target, named, bundled)


def read_options(notes: "Mapping[str, Any]", given: "Mapping[str, str]") -> "ReadOptions":
    """How to read a file for a model: as its own was read, but for what is asked for now."""
    from gru_xp.errors import CheckpointError
    from gru_xp.forecasting.reading.options import ReadOptions

    try:
        own = ReadOptions.from_dict(notes["reading"]) if "reading" in notes else ReadOptions()
    except ValueError as error:
        raise CheckpointError(f"the model's description is damaged ({error}); train it again") from error
    return replace(own, **given)


def open_run(run: str, device: "DeviceRequest", *, quiet: bool) -> "Forecaster":
    """The model of a run, on the device that the options ask for."""
    from gru_xp.forecasting import Forecaster
    from gru_xp.reporting.run_folder import model_file

    path = model_file(run)
    return Forecaster.load(path, device=choose_device(device, quiet=quiet))


def read_run_source(
    run: str,
    forecaster: "Forecaster",
    csv: str | None,
    target: str | None,
    features: "Sequence[str]",
    reading: "Mapping[str, str]",
    *,
    quiet: bool,
) -> tuple[Source, bool]:
    """The series for a trained model, of the file that is named or what its run kept, and whether the model knows it.

    It does if the first rows are those that it learned from; further rows may have come since.
    """
    from gru_xp.errors import CheckpointError

    notes: dict[str, Any] = forecaster.notes
    default_target, *default_features = forecaster.columns
    columns = target or default_target, tuple(features) or tuple(default_features)
    try:
        if csv is None:
            source = _own(run, notes, columns, reading)
        else:
            source = read_source(csv, *columns, read_options(notes, reading), quiet=quiet)
        source = _named_like(source, forecaster)
        known = _is_known(notes, source.series)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{run}: the model's description is damaged ({error}); train it again") from error
    return source, known


def _is_known(notes: "Mapping[str, Any]", series: "TimeSeries") -> bool:
    """Whether the series begins with the rows that a model learned from."""
    return "fit_sha256" in notes and rows_checksum(series, notes["fit_end"]) == notes["fit_sha256"]


def rows_checksum(series: "TimeSeries", rows: int) -> str:
    """Of the values in the first rows."""
    return hashlib.sha256(series.values[:rows].tobytes()).hexdigest()


# --- what a run keeps of its file -------------------------------------------------------------------------------


def file_facts(source: Source) -> dict[str, Any]:
    """What is remembered of a file, to see whether it has changed; it is never opened by this again."""
    facts: dict[str, Any] = {"file": source.path.name, "bundled": source.bundled}
    found = _stat(source.path) if source.path.is_absolute() else None  # others are bundled, or stdin
    if found is None:
        return facts | {"path": None, "size": None, "modified_ns": None}
    return facts | {"path": str(source.path), "size": found[0], "modified_ns": found[1]}


def change_of_file(facts: "Mapping[str, Any]") -> str | None:
    """How the file differs from what is remembered of it; None if it does not, or is no longer there."""
    path, size, modified = facts["path"], facts["size"], facts["modified_ns"]
    found = None if path is None or path.startswith("\\\\") else _stat(Path(path))
    if found is None or found == (size, modified):
        return None
    if found[0] != size:
        return f"it has {found[0]:,} bytes instead of {size:,}"
    then, now = (datetime.fromtimestamp(ns / 1e9).isoformat(" ", "milliseconds") for ns in (modified, found[1]))
    return f"it was written at {now}, the one that was read at {then}"


def _stat(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a regular file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _own(
    run: str, notes: "Mapping[str, Any]", columns: "tuple[str, Sequence[str]]", reading: "Mapping[str, str]"
) -> Source:
    """The bundled series of a run, or what it kept of another file."""
    from gru_xp.errors import CheckpointError, DataError
    from gru_xp.forecasting.reading.csv_file import bundled_file, bundled_names, read_csv
    from gru_xp.reporting.run_folder import CHECKPOINT_FILE

    if notes.get("bundled") is True and notes["file"] in bundled_names():
        file = bundled_file(notes["file"])
        series = read_csv(file, *columns, name=file.name, options=read_options(notes, reading))
        return Source(series, series.target, Path(file.name), True)
    path = Path(run) / CHECKPOINT_FILE
    if not path.exists():
        raise DataError(f"{run}: a model without what it was trained on; name a CSV file")
    checkpoint = load_run(path)
    if not _is_known(notes, checkpoint.series):
        raise CheckpointError(f"{run}: its checkpoint is that of another training than its model; name a CSV file")
    wanted = (columns[0], *columns[1])
    if wanted != checkpoint.series.columns or reading:
        what = f"columns {', '.join(wanted)}" if wanted != checkpoint.series.columns else "options of reading"
        raise DataError(f"{run}: {what} need the file, of which the run keeps only what it used; name a CSV file")
    if change := change_of_file(checkpoint.run):
        note(f"warning: {checkpoint.run['file']} has changed since ({change}); taking the rows that the run kept")
    name = Path(checkpoint.run["file"])
    return Source(checkpoint.series, checkpoint.series.target, name, checkpoint.run["bundled"])


def load_run(path: Path) -> "Checkpoint":
    """A checkpoint whose facts about the run are what `train` writes."""
    from gru_xp.errors import CheckpointError
    from gru_xp.forecasting.checkpoint import load_checkpoint
    from gru_xp.training.strict_json import check_fields

    optional_text, optional_int, optional_number = (str, type(None)), (int, type(None)), (int, float, type(None))
    checkpoint = load_checkpoint(path)
    try:
        check_fields(
            "the run",
            checkpoint.run,
            {
                "file": str,
                "bundled": bool,
                "path": optional_text,
                "size": optional_int,
                "modified_ns": optional_int,
                "threads": int,
                "checkpoint_every": optional_int,
                "checkpoint_seconds": optional_number,
            },
        )
        for name, least, most in (("threads", 1, 2**12), ("checkpoint_every", 1, inf), ("checkpoint_seconds", 0, inf)):
            if checkpoint.run[name] is not None and not least <= checkpoint.run[name] <= most:
                raise ValueError(f"{name} is {checkpoint.run[name]}")
        read_options(checkpoint.forecaster.notes, {})
    except ValueError as error:
        raise CheckpointError(f"{path}: a checkpoint that is damaged ({error}); take another copy") from error
    return checkpoint


def _named_like(source: Source, forecaster: "Forecaster") -> Source:
    """The source with the model's column names, so that the columns that were asked for take their places."""
    columns = source.series.columns
    if len(columns) != len(forecaster.columns):
        from gru_xp.errors import DataError

        raise DataError(
            f"--target and --features name {', '.join(columns)}; the model was trained on as many columns as "
            f"{', '.join(forecaster.columns)}"
        )
    return replace(source, series=replace(source.series, columns=forecaster.columns))
