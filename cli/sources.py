"""Where a command's model and series come from: a run; a file that was named, a bundled one, or what the run kept."""

import hashlib
import os
import stat
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .messages import choose_device, note, rows_text
from .options import PLOT_FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.checkpoint import Checkpoint
    from gru_xp.forecasting.panels import AnySeries
    from gru_xp.forecasting.windows import Floats
    from gru_xp.io.options import ReadOptions
    from gru_xp.io.panel import Panel
    from gru_xp.io.series import Reading, TimeSeries
    from gru_xp.io.table import Rows

    from .options import DeviceRequest, Limits


_Kinds = dict[str, type | tuple[type, ...]]

_TEXT, _WHOLE, _NUMBER = (str, type(None)), (int, type(None)), (int, float, type(None))  # or nothing

_FACTS: _Kinds = {
    "file": str,
    "bundled": bool,
    "path": _TEXT,
    "size": _WHOLE,
    "modified_ns": _WHOLE,
    "threads": int,
    "checkpoint_every": _WHOLE,
    "checkpoint_seconds": _NUMBER,
    "plots": str,
}
"""What `train` writes about a run into its checkpoint."""

_NOTES: _Kinds = {
    "file": str,
    "bundled": bool,
    "reading": dict,
    "missing": (dict, type(None)),
    "series": dict,
    "split_ratio": float,
    "train_end": int,
    "fit_end": int,
    "fit_sha256": str,
    "last_label": _TEXT,
    "requested_device": str,
    "panel": dict,
}
"""What it notes in the model and is used again; models from elsewhere, and of older versions, have less."""

_NEW_NOTES = ("series", "panel")
"""Notes that checkpoints of older versions, or of one series, do not have."""

_PANEL_NOTES: _Kinds = {"names": list, "train": list, "fit": list}
"""Of several series, how many of the first rows are for training, and before the test set."""


@dataclass(frozen=True)
class Source:
    """A series and the file that it was read from; of a bundled file, `path` is the bare name.

    `target` is what the file calls the target; for a trained model, `series` has the model's names.
    """

    series: "AnySeries"
    target: str
    path: Path
    bundled: bool

    @property
    def one(self) -> "TimeSeries":
        """The series; DataError where there are several."""
        from gru_xp.errors import DataError
        from gru_xp.io.series import TimeSeries

        if not isinstance(self.series, TimeSeries):
            raise DataError(
                f"{self.series.name}: {click.get_current_context().info_name} does not take a model of several series "
                f"yet; train on one series (--where {self.series.id}=...)"
            )
        return self.series


def read_source(
    path: str, target: str | None, features: "Sequence[str] | str", options: "ReadOptions", *, quiet: bool
) -> Source:
    """Read a CSV file, or a bundled one by its bare name, and say what should be known about it."""
    from gru_xp.io.read import read

    file, bundled = open_file(path, quiet=quiet)
    return _source(read(file, target, features, options, file.name if bundled else None), path, file, bundled)


def read_panel_source(
    path: str,
    target: str | None,
    features: "Sequence[str] | str",
    options: "ReadOptions",
    *,
    quiet: bool,
    is_new: bool = False,
) -> Source:
    """The same of the series that ``--id-column`` tells apart; for a new model, one is taken as a series alone."""
    from gru_xp.io.panel import Panel, read_each, read_one_or_each

    assert options.id is not None
    file, bundled = open_file(path, quiet=quiet)
    read = read_one_or_each if is_new else read_each
    found = read(file, options.id, target, features, options, file.name if bundled else None)
    if isinstance(found, Panel):
        note(f"{found.name}: {len(found)} series of {lengths_text(found)}", quiet=quiet)
    else:
        note(f"{found.name}: only one series in column {options.id}; its model will take one series", quiet=quiet)
    return _source(found, path, file, bundled)


def lengths_text(panel: "Panel") -> str:
    """How many rows the series have, in words."""
    least, most = int(panel.lengths.min()), int(panel.lengths.max())
    return f"{least} to {most} rows" if least < most else rows_text(most)


def _source(series: "AnySeries", path: str, file: Path, bundled: bool) -> Source:
    for text in series.notices:
        note(f"{series.name}: {text}")
    named = Path("stdin") if path == "-" else Path(file.name) if bundled else file.resolve()
    return Source(series, series.target, named, bundled)


def open_file(path: str, *, quiet: bool) -> tuple[Path, bool]:
    """The file that `path` means, and whether it is a bundled one, which one line says."""
    from gru_xp.data import find_file

    file, bundled = find_file(path)
    if bundled:
        note(f"{path}: not found; using the bundled {file.name}", quiet=quiet)
    return file, bundled


def is_run(source: str, csv: str | None) -> bool:
    """Whether the first argument of a command is a run, and no CSV file.

    A run is a folder or a model file. What does not exist is one if a CSV file follows.

    Raises
    ------
    DataError
        The argument could be either, or is neither.
    """
    from gru_xp.data import bundled_names
    from gru_xp.errors import DataError, printable

    path, names = Path(source), bundled_names()
    has_bundled_name = source in names or f"{source}.csv" in names
    if source == "-":
        return False
    if path.is_dir():
        if has_bundled_name:
            other = source.removesuffix(".csv") if source in names else f"{source}.csv"
            raise DataError(
                f"{source}: is a folder here, and the name of a bundled series; give ./{source} for the run, or "
                f"{other} for the series"
            )
        return True
    if path.exists() or path.suffix == ".safetensors":
        return path.suffix == ".safetensors" or _is_model_file(path)
    if csv is None and not has_bundled_name:
        raise DataError(
            f"{printable(source)}: does not exist; give a run folder, a model file, a CSV file, or a bundled one: "
            f"{', '.join(names)}"
        )
    return not has_bundled_name


def _is_model_file(path: Path) -> bool:
    """Whether a file begins as safetensors does: with the length of its JSON header, and the header."""
    try:
        if not path.is_file():  # a pipe can be read only once
            return False
        with path.open("rb") as file:
            begin = file.read(9)
        return begin[8:] == b"{" and int.from_bytes(begin[:8], "little") < path.stat().st_size
    except OSError:
        return False


def is_file_of(given: str, path: Path) -> bool:
    """Whether `path` is the file that an argument refers to: a file, a bundled file, or stdin."""
    from gru_xp.data import find_file
    from gru_xp.errors import GruXpError

    try:
        if given == "-":
            return os.path.samefile(sys.stdin.fileno(), path)
        return os.path.samefile(find_file(given)[0], path)
    except (OSError, ValueError, GruXpError):  # one of them is not there
        return False


def check_out(path: Path, source: str, csv: str | None, *, overwrite: bool, option: str = "--out") -> None:
    """Refuse an output file that is also an input, exists, or has no folder, before anything is read or trained."""
    from gru_xp.errors import DataError

    for given in (source, csv):
        if given is not None and is_file_of(given, path):
            raise DataError(f"{path}: is read as {given!r}, and would be overwritten; use another {option}")
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists; use --overwrite or another {option}")
    if not path.parent.is_dir():
        raise DataError(
            f"{path}: cannot be written (there is no folder {path.parent}); make it, or use another {option}"
        )


def read_options(notes: "Mapping[str, Any]", given: "Mapping[str, Any]") -> "ReadOptions":
    """How to read a file for a model: as its own was read, but for what is asked for now."""
    from gru_xp.io.options import ReadOptions

    own = ReadOptions.from_dict(notes["reading"]) if "reading" in notes else ReadOptions()
    return replace(own, **given)


def open_run(run: str, device: "DeviceRequest", limits: "Limits | None" = None, *, quiet: bool) -> "Forecaster":
    """The model of a run, on the device that the options ask for, with the limits that they have."""
    from gru_xp.errors import CheckpointError
    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.settings import check_settings
    from gru_xp.reporting.run_folder import model_file
    from gru_xp.training.tensors import DAMAGED, damaged

    from .options import settings_as_options

    path = model_file(run)
    forecaster = Forecaster.load(path, device=choose_device(device, quiet=quiet))
    try:
        _check_notes(forecaster.notes, ("train_end", "fit_end") if "fit_sha256" in forecaster.notes else ())
    except DAMAGED as error:
        raise CheckpointError(f"{path}: {damaged('model', error)}") from error
    if limits is not None:
        forecaster.minimum, forecaster.maximum = (
            own if given is None else given
            for own, given in zip((forecaster.minimum, forecaster.maximum), limits, strict=True)
        )
        with settings_as_options():
            check_settings(forecaster)
    return forecaster


def _check_notes(notes: "Mapping[str, Any]", needed: "Iterable[str]") -> None:
    """See that a model's notes, of which some are needed, are such as `train` makes them; an error of `DAMAGED`."""
    from gru_xp.forecasting.checkpoint import reading_from_fields
    from gru_xp.io.series import Reading
    from gru_xp.training.strict_json import check_fields, shortened

    known = {name: value for name, value in notes.items() if name in _NOTES}
    check_fields("what is noted", known, {name: _NOTES[name] for name in {**known, **dict.fromkeys(needed)}})
    read_options(known, {})
    reading_from_fields({**Reading().to_dict(), **known.get("series", {})})
    if not 0 < known.get("split_ratio", 1.0) <= 1:
        raise ValueError(f"split_ratio is {shortened(known['split_ratio'])}; it must be above 0 and up to 1")
    if "panel" in known:
        check_fields("the panel", known["panel"], _PANEL_NOTES)
        names, *counts = (known["panel"][name] for name in _PANEL_NOTES)
        are_numbers = all(type(n) is int and n > 0 for each in counts for n in each)
        if not are_numbers or {len(names), *map(len, counts)} != {len(set(map(str, names)))}:
            raise ValueError("the rows of the series in the panel are no such numbers")
    train_end, fit_end = known.get("train_end", 1), known.get("fit_end", inf)
    if not 0 < train_end <= fit_end:
        raise ValueError(f"train_end is {shortened(train_end)}; it must be above 0 and up to fit_end, {fit_end}")


def noted_reading(notes: "Mapping[str, Any]") -> "Reading":
    """What was found in the file of a model; of an older one, nothing is known."""
    from gru_xp.io.series import Reading

    return Reading.from_dict(notes.get("series", {}))


def read_run_source(
    run: str,
    forecaster: "Forecaster",
    csv: str | None,
    target: str | None,
    features: "Sequence[str] | str",
    reading: "Mapping[str, Any]",
    *,
    quiet: bool,
) -> tuple[Source, bool]:
    """The series for a trained model, of the file that is named or what its run kept, and whether the model knows it.

    It does if the first rows are those that it learned from; further rows may have come since.
    """
    notes: dict[str, Any] = forecaster.notes
    default_target, *default_features = forecaster.columns
    if csv is None:
        source = _own(run, forecaster, target, features, reading)
    else:
        columns = target or default_target, features or default_features
        options = read_options(notes, reading)
        read = read_source if forecaster.units is None or options.id is None else read_panel_source
        source = read(csv, *columns, options, quiet=quiet)
    source = _named_like(source, forecaster)
    return source, _is_known(notes, source.series)


def training_rows(run: str, forecaster: "Forecaster") -> "TimeSeries | None":
    """The rows that a model learned from, if they are bundled or in its run folder."""
    from gru_xp.errors import GruXpError

    try:
        series = _own(run, forecaster, None, (), {}, quiet=True).one
    except GruXpError:
        return None
    return series.head(forecaster.notes["fit_end"]) if _is_known(forecaster.notes, series) else None


def training_panel(run: str, forecaster: "Forecaster") -> "Panel | None":
    """The series that a model learned from, if they are in its run folder."""
    from gru_xp.errors import GruXpError
    from gru_xp.io.panel import Panel

    try:
        series = _own(run, forecaster, None, (), {}, quiet=True).series
    except GruXpError:
        return None
    return series if isinstance(series, Panel) and _is_known(forecaster.notes, series) else None


def known_series(notes: "Mapping[str, Any]", panel: "Panel", training: "Panel") -> list[int]:
    """The numbers of the series that begin with the rows of their name that a model learned from, or with some."""
    import numpy as np

    stops = known_stops(notes, training)[1]
    learned = {
        name: training.values[first:stop]
        for name, first, stop in zip(training.names, training.offsets.tolist(), stops.tolist(), strict=False)
        if stop > first
    }
    found = []
    for number, name in enumerate(panel.names):
        own, rows = panel.values[slice(*panel.offsets[number : number + 2])], learned.get(name)
        if rows is not None and np.array_equal(own[: len(rows)], rows[: len(own)]):
            found.append(number)
    return found


def warn_of_learned_rows(forecaster: "Forecaster", series: "TimeSeries", training: "TimeSeries | None") -> None:
    """Warn on stderr, in one line, if a series has rows that the model was trained on.

    For a series that does not begin with all of these rows. Without the `training` rows, the date of the last one,
    which the model has stored, decides.
    """
    from gru_xp.errors import printable

    last = forecaster.notes.get("last_label")
    if training is None:
        has_learned = last is not None and series.labels is not None and _begins_before(series.labels, last)
    elif series.dates and training.dates:
        has_learned = not set(training.dates).isdisjoint(series.dates)
    elif series.labels and training.labels:
        has_learned = not set(training.labels).isdisjoint(series.labels)
    else:
        own, known, rows = series.values[:, 0], training.values[:, 0], forecaster.window_length
        has_learned, last = _is_in(own[:rows], known) or _is_in(known[:rows], own), None
    if has_learned and last:
        note(
            f"warning: the model was trained on rows up to {printable(last)}; if this is the same series, the accuracy "
            "includes those rows"
        )
    elif has_learned:
        note("warning: the model was trained on some of these rows, by their values; the accuracy includes those")


def _begins_before(labels: "Sequence[str]", last: str) -> bool:
    """Whether the first of the labels is no later than the last one that a model learned from."""
    from gru_xp.io.dates import read_dates
    from gru_xp.io.messages import CellError

    try:
        found = read_dates([labels[0], labels[-1], last])
    except CellError:
        found = None
    return last in labels if found is None else found.values[0] <= found.values[2]


def _is_in(part: "Floats", values: "Floats") -> bool:
    """Whether the values of a part follow each other somewhere in others."""
    import numpy as np

    starts = np.arange(len(values) - len(part) + 1)
    for place, value in enumerate(part.tolist()):
        starts = starts[values[starts + place] == value]
    return len(starts) > 0


def _is_known(notes: "Mapping[str, Any]", series: "AnySeries") -> bool:
    """Whether the series begins with the rows that a model learned from; of several, each with its own."""
    from gru_xp.io.panel import Panel

    if "fit_sha256" not in notes:
        return False
    if isinstance(series, Panel) or "panel" in notes:
        if not isinstance(series, Panel) or "panel" not in notes:
            return False
        lengths = dict(zip(series.names, series.lengths.tolist(), strict=True))
        if any(lengths.get(name, -1) < fit for name, (_, fit) in _noted_rows(notes).items()):
            return False
        return bool(panel_checksum(series, known_stops(notes, series)[1]) == notes["fit_sha256"])
    if notes["fit_end"] > len(series):
        return False
    return bool(rows_checksum(series, notes["fit_end"]) == notes["fit_sha256"])


def rows_checksum(series: "TimeSeries", rows: int) -> str:
    """Of the values in the first rows."""
    return hashlib.sha256(series.head(rows).values.tobytes()).hexdigest()


def panel_checksum(panel: "Panel", stops: "Rows") -> str:
    """Of the names and the values in the first rows of each series, whatever their order."""
    sums = sorted(
        f"{name} {hashlib.sha256(panel.values[first:stop].tobytes()).hexdigest()}"
        for name, first, stop in zip(panel.names, panel.offsets.tolist(), stops.tolist(), strict=False)
        if stop > first
    )
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()


def known_stops(notes: "Mapping[str, Any]", panel: "Panel") -> "tuple[Rows, Rows]":
    """Where training rows, and those before the test set, end in each series; at its start where it was not learned.

    At the end of a series that has fewer rows.
    """
    import numpy as np

    rows = _noted_rows(notes)
    counts = np.array([rows.get(name, (0, 0)) for name in panel.names], dtype=np.int64)
    counts = np.minimum(counts, panel.lengths[:, None])
    return panel.offsets[:-1] + counts[:, 0], panel.offsets[:-1] + counts[:, 1]


def _noted_rows(notes: "Mapping[str, Any]") -> dict[str, tuple[int, int]]:
    """How many first rows of each series are for training, and before the test set."""
    panel = notes["panel"]
    return dict(zip(panel["names"], zip(panel["train"], panel["fit"], strict=True), strict=True))


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
    return f"it was written at {_moment(found[1])}, the one that was read at {_moment(modified)}"


def _moment(nanoseconds: int) -> str:
    """A time of change as a date; a ValueError, an OverflowError or an OSError where there is no such date."""
    return datetime.fromtimestamp(nanoseconds / 1e9).isoformat(" ", "milliseconds")


def _stat(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a regular file."""
    try:
        found = path.stat()
        _moment(found.st_mtime_ns)
    except (OSError, ValueError, OverflowError):
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _own(
    run: str,
    forecaster: "Forecaster",
    target: str | None,
    features: "Sequence[str] | str",
    reading: "Mapping[str, Any]",
    *,
    quiet: bool = False,
) -> Source:
    """The bundled series of a run, or what it kept of another file."""
    from gru_xp.data import bundled_file, bundled_names
    from gru_xp.errors import CheckpointError, DataError
    from gru_xp.io.messages import flag, listed
    from gru_xp.io.read import read
    from gru_xp.reporting.run_folder import CHECKPOINT_FILE

    notes, own_options = forecaster.notes, read_options(forecaster.notes, {})
    own_target, *own_features = forecaster.columns
    if notes.get("bundled") is True and notes.get("file") in bundled_names():
        file = bundled_file(notes["file"])
        series = read(file, target or own_target, features or own_features, read_options(notes, reading), file.name)
        return Source(series, series.target, Path(file.name), True)
    path = Path(run) / CHECKPOINT_FILE
    if not path.exists():
        raise DataError(f"{run}: the model does not include its training data; give a CSV file")
    checkpoint = load_run(path)
    if not _is_known(notes, checkpoint.series):
        raise CheckpointError(f"{run}: its checkpoint and its model are from different trainings; give a CSV file")
    kept = checkpoint.series
    wanted = (target or own_target, *([features] if isinstance(features, str) else features or own_features))
    others = [flag(name) for name, value in reading.items() if name != "freq" and value != getattr(own_options, name)]
    if others or not same_names(wanted, kept.columns):
        what = f"rows read with other {' and '.join(others)}" if others else f"columns {listed(wanted)}"
        raise DataError(f"{run}: {what} are not stored in the run; give a CSV file")
    if not quiet and (change := change_of_file(checkpoint.run)):
        note(f"warning: {checkpoint.run['file']} has changed since ({change}); using the rows stored in the run")
    found = _with_freq(kept, noted_reading(notes), reading.get("freq"))
    return Source(replace(kept, reading=found), kept.target, Path(checkpoint.run["file"]), checkpoint.run["bundled"])


def _with_freq(series: "AnySeries", reading: "Reading", freq: str | None) -> "Reading":
    """A reading of rows with the spacing that is asked for; DataError where a row does not fit it."""
    from gru_xp.errors import DataError
    from gru_xp.io.messages import CellError
    from gru_xp.io.panel import Panel
    from gru_xp.io.spacing import find_spacing

    if freq is None or series.dates is None or isinstance(series, Panel):
        return reading
    try:
        return replace(reading, freq=find_spacing(series.dates, freq).freq)
    except CellError as error:
        raise DataError(f"{series.name}: {error}") from error


def same_names(wanted: "Sequence[str]", columns: "Sequence[str]") -> bool:
    """Whether some names mean these columns, in this order; case is forgiven where only one column is meant."""
    from gru_xp.errors import DataError
    from gru_xp.io.messages import find_name

    try:
        return [find_name(name, columns) for name in dict.fromkeys(wanted)] == list(columns)
    except DataError:
        return False


def load_run(path: Path) -> "Checkpoint":
    """A checkpoint whose facts about the run are what `train` writes."""
    from gru_xp.errors import CheckpointError
    from gru_xp.forecasting.checkpoint import load_checkpoint
    from gru_xp.training.tensors import DAMAGED, damaged

    checkpoint = load_checkpoint(path)
    try:
        _check_facts(checkpoint.run)
        _check_notes(checkpoint.forecaster.notes, _NOTES.keys() - set(_NEW_NOTES))
        rows = len(checkpoint.series.values)
        if checkpoint.forecaster.notes["fit_end"] > rows:
            raise ValueError(f"fit_end is {checkpoint.forecaster.notes['fit_end']} of {rows} rows")
    except DAMAGED as error:
        raise CheckpointError(f"{path}: {damaged('checkpoint', error)}") from error
    return checkpoint


def _check_facts(facts: "Mapping[str, Any]") -> None:
    """See that what a checkpoint says about its run is such as `train` writes it; an error of `DAMAGED`."""
    from gru_xp.devices.threads import MOST_THREADS
    from gru_xp.training.strict_json import check_fields, shortened

    facts = {"plots": PLOT_FORMATS[0], **facts}  # older runs do not say
    check_fields("the run", facts, _FACTS)
    if facts["plots"] not in PLOT_FORMATS:
        raise ValueError(f"plots is {shortened(facts['plots'])}")
    limits = {
        "threads": (1, MOST_THREADS),
        "checkpoint_every": (1, inf),
        "checkpoint_seconds": (0, inf),
        "size": (0, inf),
    }
    for name, (least, most) in limits.items():
        if facts[name] is not None and not least <= facts[name] <= most:
            raise ValueError(f"{name} is {shortened(facts[name])}")
    if len({facts[name] is None for name in ("path", "size", "modified_ns")}) > 1:
        raise ValueError("path, size and modified_ns do not go together")
    if facts["modified_ns"] is not None:
        try:
            _moment(facts["modified_ns"])
        except (ValueError, OverflowError, OSError) as error:
            raise ValueError(f"modified_ns is {shortened(facts['modified_ns'])}, which is no time") from error


def _named_like(source: Source, forecaster: "Forecaster") -> Source:
    """The source with the model's column names, so that the columns that were asked for take their places."""
    columns = source.series.columns
    if len(columns) != len(forecaster.columns):
        from gru_xp.errors import DataError
        from gru_xp.io.messages import listed

        raise DataError(
            f"--target and --feature name {len(columns)} column(s), {listed(columns)}; the model was trained on "
            f"{len(forecaster.columns)}, {listed(forecaster.columns)}"
        )
    return replace(source, series=replace(source.series, columns=forecaster.columns))
