"""Where a command's model and series come from: a run; a file that was named, a bundled one, or that of the run."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .messages import choose_device, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gru_xp.forecasting import Forecaster
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


def read_source(path: str, target: str | None, features: "Sequence[str]", *, quiet: bool) -> Source:
    """Read a CSV file, or a bundled one by its bare name, and say what should be known about it."""
    from gru_xp.forecasting.csv_file import find_file

    file, bundled = find_file(path)
    if bundled:
        note(f"{path}: no such file here; taking the bundled {file.name}", quiet=quiet)
    return _read(file, bundled, target, features)


def open_run(run: str, device: "DeviceRequest", *, quiet: bool) -> "Forecaster":
    """The model of a run, on the device that the options ask for."""
    from gru_xp.forecasting import Forecaster
    from gru_xp.reporting.run_folder import model_file

    model = model_file(run)  # first, as an error about it should stand alone
    return Forecaster.load(model, device=choose_device(device, quiet=quiet))


def read_run_source(
    forecaster: "Forecaster", csv: str | None, target: str | None, features: "Sequence[str]", *, quiet: bool
) -> tuple[Source, bool]:
    """The series for a trained model, of the file that is named or of the model's own, and whether the model knows it.

    It does if the first rows are those that it learned from; further rows may have come since.
    """
    from gru_xp.errors import CheckpointError, DataError
    from gru_xp.forecasting.csv_file import bundled_file, find_file

    notes: dict[str, Any] = forecaster.notes
    default_target, *default_features = forecaster.columns
    columns = target or default_target, features or default_features
    try:
        if csv is not None:
            source = read_source(csv, *columns, quiet=quiet)
        elif "file" not in notes:
            raise DataError("the model does not say which file it was trained on; name a CSV file")
        elif notes["bundled"]:
            source = _read(bundled_file(notes["file"]), True, *columns)
        else:
            source = _read(find_file(notes["file"])[0], False, *columns)
        source = _named_like(source, forecaster)
        known = "fit_sha256" in notes and rows_checksum(source.series, notes["fit_end"]) == notes["fit_sha256"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"the model's description is damaged ({error}); train it again") from error
    if csv is None and not known and not target and not features:
        note(f"warning: {source.path.name} has changed: its first rows are not those that the model learned from")
    return source, known


def rows_checksum(series: "TimeSeries", rows: int) -> str:
    """Of the values in the first rows."""
    return hashlib.sha256(series.values[:rows].tobytes()).hexdigest()


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

    series = read_csv(file, target, features, name=file.name if bundled else None)
    for text in series.notices:
        note(f"{file.name}: {text}")
    return Source(series, series.target, Path(file.name) if bundled else file.resolve(), bundled)
