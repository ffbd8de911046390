"""Where a command's series comes from: a file that was named, a bundled one, or the file of a run."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .messages import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.series import TimeSeries


@dataclass(frozen=True)
class Source:
    """A series and the file that it was read from; of a bundled file, `path` is the bare name.

    `target` is what the file calls the target; for a trained model, `series` has the model's names.
    """

    series: "TimeSeries"
    target: str
    path: Path
    bundled: bool
    sha256: str


def read_source(path: str, target: str | None, features: "Sequence[str]", *, quiet: bool) -> Source:
    """Read a CSV file, or a bundled one by its bare name, and say what should be known about it."""
    from gru_xp.forecasting.csv_file import find_file

    file, bundled = find_file(path)
    if bundled:
        note(f"{path}: no such file here; taking the bundled {file.name}", quiet=quiet)
    return _read(file, bundled, target, features)


def read_run_source(
    forecaster: "Forecaster", csv: str | None, target: str | None, features: "Sequence[str]", *, quiet: bool
) -> tuple[Source, bool]:
    """The series for a trained model: of the file that is named, or of the model's own; and whether it is its own."""
    from gru_xp.errors import DataError
    from gru_xp.forecasting.csv_file import bundled_file, find_file

    notes: dict[str, Any] = forecaster.notes
    default_target, *default_features = forecaster.columns
    columns = target or default_target, features or default_features
    if csv is not None:
        source = read_source(csv, *columns, quiet=quiet)
        return _named_like(source, forecaster), source.sha256 == notes.get("sha256")
    if "file" not in notes:
        raise DataError("the model does not say which file it was trained on; name a CSV file")
    if notes["bundled"]:
        source = _read(bundled_file(notes["file"]), True, *columns)
    else:
        source = _read(find_file(notes["file"])[0], False, *columns)
    if source.sha256 != notes["sha256"]:
        note(f"{source.path.name}: the file has changed since the model was trained on it")
    return _named_like(source, forecaster), True


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


def _read(file: Path, bundled: bool, target: str | None, features: "Sequence[str]") -> Source:
    from gru_xp.forecasting.csv_file import read_csv

    series = read_csv(file, target, features)
    for text in series.notices:
        note(f"{file.name}: {text}")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return Source(series, series.target, Path(file.name) if bundled else file.resolve(), bundled, sha256)
