"""Checkpoints: a forecaster in the middle of its training, with the series that it learns from, in one file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np

from gru_xp.devices.device import DEVICE_PATTERN
from gru_xp.errors import CheckpointError, printable
from gru_xp.forecasting.data import observed_values
from gru_xp.forecasting.forecaster import Forecaster
from gru_xp.forecasting.panels import AnySeries
from gru_xp.forecasting.scaling import LARGEST
from gru_xp.forecasting.stages import Selection
from gru_xp.io.dates import format_date
from gru_xp.io.messages import listed
from gru_xp.io.options import ReadOptions
from gru_xp.io.panel import Panel
from gru_xp.io.series import Reading, TimeSeries
from gru_xp.training.checkpoint import (
    drop_unused,
    history_array,
    history_from_array,
    history_spec,
    state_from_parts,
    state_parts,
    state_specs,
)
from gru_xp.training.strict_json import check_fields, shortened
from gru_xp.training.tensors import DAMAGED, TensorSpec, damaged, read_tensors, write_tensors
from gru_xp.training.trainer import TrainingState

FORMAT_VERSION = 2
"""Version 1 has numbers for a `bias_hn` with ``reset="before"`` too, which are not used."""

_SERIES = "series."
_SELECTION, _SELECTED = "selection.history", "selection.theta"
_SELECTION_FIELDS: dict[str, type | tuple[type, ...]] = {"best_epoch": int, "epochs": int, "stop_reason": str}
_SERIES_FIELDS: dict[str, type | tuple[type, ...]] = {
    "rows": int,
    "columns": list,
    "name": str,
    "observed": bool,
    "interpolated": bool,
    "missing": (dict, type(None)),
    "labels": (int, type(None)),
    "dates": (int, type(None)),
    "reading": dict,
    "panel": (dict, type(None)),
}
_PANEL_FIELDS: dict[str, type | tuple[type, ...]] = {"names": list, "offsets": list, "freqs": list, "id": str}
_READING_FIELDS: dict[str, type | tuple[type, ...]] = {
    "time": list,
    "date_form": (str, type(None)),
    "order": str,
    "duplicates": int,
    "freq": (str, type(None)),
    "gaps": int,
    "first_gap": (str, type(None)),
    "missing_values": list,
    "styles": dict,
}
_STYLE_FIELDS: dict[str, type | tuple[type, ...]] = {"decimal": str, "thousands": str, "unit": str}


@dataclass(frozen=True)
class Checkpoint:
    """All that is needed to go on with a training.

    Attributes
    ----------
    forecaster
        Its settings, columns, scaler and notes, and its `selection`, once that is made; without parameters.
    state
        Where its training stands.
    series
        All rows, as they were read.
    device
        The device that it was trained on, by name.
    tf32
        Whether its products used TF32.
    versions
        Of Python and the libraries that it was trained with.
    run
        About the run that it belongs to; whatever JSON can hold.
    """

    forecaster: Forecaster
    state: TrainingState
    series: AnySeries
    device: str
    tf32: bool
    versions: dict[str, str]
    run: dict[str, Any]


def save_checkpoint(
    path: str | os.PathLike[str],
    forecaster: Forecaster,
    state: TrainingState,
    series: AnySeries,
    run: dict[str, Any],
) -> None:
    """Write a checkpoint, all of it or nothing: what is there before stays until the new one is on the disk.

    Parameters
    ----------
    path
        The file; one that exists is replaced.
    forecaster
        One that is learning.
    state, series, run
        See `Checkpoint`.

    Raises
    ------
    CheckpointError
        The file cannot be written.
    """
    numbers, arrays = state_parts(state)
    fields, series_arrays = _series_parts(series)
    description = {"forecaster": forecaster.describe(), "state": numbers, "series": fields, "run": run}
    arrays |= {_SERIES + name: array for name, array in series_arrays.items()}
    if (selection := forecaster.selection) is not None:
        description["selection"] = {
            "best_epoch": selection.best_epoch,
            "epochs": len(selection.history),
            "stop_reason": selection.stop_reason,
        }
        arrays |= {_SELECTION: history_array(selection.history, np), _SELECTED: selection.theta}
    write_tensors(path, arrays, kind="checkpoint", version=FORMAT_VERSION, description=description)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    CheckpointError
        There is no such file, or it is no checkpoint that this version can read.
    """
    versions = range(1, FORMAT_VERSION + 1)
    version, description, arrays = read_tensors(path, kind="checkpoint", versions=versions, expected=_expected)
    series = {name.removeprefix(_SERIES): array for name, array in arrays.items() if name.startswith(_SERIES)}
    described = description["forecaster"]
    try:
        forecaster = Forecaster.from_description(described)
        if (selected := description.get("selection")) is not None:
            history = history_from_array(arrays[_SELECTION])
            theta = arrays[_SELECTED]
            forecaster.selection = Selection(selected["best_epoch"], history, selected["stop_reason"], theta)
        if version == 1:
            arrays = drop_unused(arrays, forecaster.architecture())
        checkpoint = Checkpoint(
            forecaster,
            state_from_parts(description["state"], arrays),
            _series_from_parts(description["series"], series),
            described["device"],
            described.get("tf32", False),
            described["versions"],
            description["run"],
        )
        _check_parts(checkpoint)
    except DAMAGED as error:
        raise CheckpointError(f"{path}: {damaged('checkpoint', error)}") from error
    return checkpoint


def what_changed(series: TimeSeries, other: TimeSeries) -> str | None:
    """The first thing in which `other` is not `series`, in words; None if they are the same."""
    if series.columns != other.columns:
        return f"its columns are {listed(other.columns)} instead of {listed(series.columns)}"
    if (series.labels is None) != (other.labels is None):
        return "its rows have no dates any more" if other.labels is None else "its rows have dates now"
    for row in range(min(len(series), len(other))):
        label, now = (each.labels[row] if each.labels else f"row {row + 1}" for each in (series, other))
        if label != now:
            return f"row {row + 1} is {printable(now)} instead of {printable(label)}"
        for column, before, after in zip(series.columns, series.values[row], other.values[row], strict=True):
            if before != after:
                return f"{printable(column)} of {printable(label)} is {after:.17g} instead of {before:.17g}"
    if len(series) != len(other):
        return f"it has {len(other)} rows instead of {len(series)}"
    if not np.array_equal(observed_values(series), observed_values(other)):
        return "other values are missing"
    return None


def _check_parts(checkpoint: Checkpoint) -> None:
    forecaster, selection = checkpoint.forecaster, checkpoint.forecaster.selection
    histories = [(checkpoint.state.history, forecaster.validation_ratio > 0 and selection is None)]
    histories += [] if selection is None else [(selection.history, True)]
    if any((history[0].validation_cost is not None) != validated for history, validated in histories):
        raise ValueError("costs of validation that do not go with the validation ratio")
    if not all(isinstance(version, str) and version.isprintable() for version in checkpoint.versions.values()):
        raise ValueError("versions are not printable text")
    if not DEVICE_PATTERN.fullmatch(checkpoint.device):
        raise ValueError(f"device is {shortened(checkpoint.device)}")
    _check_series(checkpoint.series)


def _check_series(series: AnySeries) -> None:
    """See that it is one that reading a file could have given."""
    if isinstance(series, Panel):
        if not (np.abs(series.values) <= LARGEST).all():
            raise ValueError(f"values above {LARGEST:g}")
        for one in series if series.dates is not None else ():
            _check_series(one)
        return
    too_large = np.argwhere(np.abs(series.values) > LARGEST)
    if len(too_large):
        row, column = map(int, too_large[0])
        value = series.values[row, column]
        raise ValueError(f"{value:g} in row {row + 1}, column {printable(series.columns[column])}, above {LARGEST:g}")
    if any(b < a for a, b in pairwise(series.dates or ())):  # a TypeError where only some have a time zone
        raise ValueError("dates that go back")
    if series.dates and series.labels and series.reading.date_form:
        format_date(series.dates[-1], series.labels[-1], series.reading.date_form)


def _expected(version: int, description: dict[str, Any]) -> dict[str, TensorSpec]:
    kinds: dict[str, Any] = {
        "forecaster": dict,
        "state": dict,
        "series": dict,
        "run": dict,
        "selection": (dict, type(None)),
    }
    check_fields("it", {"selection": None, **description}, kinds)
    forecaster = Forecaster.from_description(description["forecaster"])
    parameters = forecaster.architecture().specs(with_unused=version == 1)
    P = sum(int(np.prod(spec.shape)) for spec in parameters.values())
    specs = state_specs(description["state"], forecaster.optimizer, P, forecaster.dtype)
    if (selected := description.get("selection")) is not None:
        check_fields("the selection", selected, _SELECTION_FIELDS)
        is_one = forecaster.refit and selected["stop_reason"] in ("num_epochs", "num_steps", "patience", "callback")
        if not is_one or not 0 <= selected["best_epoch"] < selected["epochs"] < 2**31:
            raise ValueError("a selection of no training")
        specs |= {_SELECTION: history_spec(selected["epochs"]), _SELECTED: TensorSpec(forecaster.dtype, (P,))}
    series = _series_specs(description["series"], forecaster)
    return specs | {_SERIES + name: spec for name, spec in series.items()}


def _series_parts(series: AnySeries) -> tuple[dict[str, Any], dict[str, Any]]:
    arrays = {"values": series.values}
    if series.observed is not None:
        arrays["observed"] = series.observed.astype(np.uint8)
    interpolated = None if isinstance(series, Panel) else series.interpolated
    if interpolated is not None:
        arrays["interpolated"] = interpolated.astype(np.uint8)
    if series.labels is not None:
        arrays["labels"] = _bytes(series.labels)
    if series.dates is not None:
        dates: Any = series.dates
        dates = dates.tolist() if isinstance(series, Panel) else dates
        arrays["dates"] = _bytes([date.isoformat() for date in dates])
    fields: dict[str, Any] = {
        "rows": len(series.values),
        "columns": list(series.columns),
        "name": series.name,
        "observed": series.observed is not None,
        "interpolated": interpolated is not None,
        "missing": series.missing,
        "labels": len(arrays["labels"]) if "labels" in arrays else None,
        "dates": len(arrays["dates"]) if "dates" in arrays else None,
        "reading": series.reading.to_dict(),
    }
    if isinstance(series, Panel):
        fields["panel"] = {
            "names": list(series.names),
            "offsets": series.offsets.tolist(),
            "freqs": list(series.freqs),
            "id": series.id,
        }
    return fields, arrays


def _series_specs(fields: dict[str, Any], forecaster: Forecaster) -> dict[str, TensorSpec]:
    check_fields("the series", {"reading": {}, "interpolated": False, "panel": None, **fields}, _SERIES_FIELDS)
    columns, has_gaps = tuple(fields["columns"]), fields["observed"]
    if columns != forecaster.columns or has_gaps != forecaster.sees_gaps or fields["rows"] < 1:
        raise ValueError("the series is not one for the forecaster")
    shape = (fields["rows"], len(columns))
    specs = {"values": TensorSpec("float64", shape)}
    if has_gaps:
        specs["observed"] = TensorSpec("uint8", shape)
    if fields.get("interpolated"):
        specs["interpolated"] = TensorSpec("uint8", shape)
    return specs | {
        name: TensorSpec("uint8", (fields[name],)) for name in ("labels", "dates") if fields[name] is not None
    }


def _series_from_parts(fields: dict[str, Any], arrays: Mapping[str, Any]) -> AnySeries:
    labels, dates = (_texts(arrays[name], fields["rows"]) if name in arrays else None for name in ("labels", "dates"))
    if (panel := fields.get("panel")) is not None:
        return _panel_from_parts(fields, panel, arrays, labels, dates)
    return TimeSeries(
        arrays["values"],
        tuple(fields["columns"]),
        labels,
        None if dates is None else tuple(map(datetime.fromisoformat, dates)),
        fields["name"],
        observed=arrays["observed"].astype(bool) if "observed" in arrays else None,
        interpolated=arrays["interpolated"].astype(bool) if "interpolated" in arrays else None,
        missing=fields["missing"],
        reading=reading_from_fields(fields["reading"]) if "reading" in fields else Reading(),  # older files do not say
    )


def _panel_from_parts(
    fields: dict[str, Any],
    panel: dict[str, Any],
    arrays: Mapping[str, Any],
    labels: Sequence[str] | None,
    dates: Sequence[str] | None,
) -> Panel:
    check_fields("the panel", panel, _PANEL_FIELDS)
    names, offsets, freqs = tuple(panel["names"]), panel["offsets"], tuple(panel["freqs"])
    are_right = all(isinstance(name, str) for name in names) and all(type(number) is int for number in offsets)
    if not are_right or len(set(names)) < len(names) or len(offsets) != len(names) + 1 or len(names) != len(freqs):
        raise ValueError("names and places of series that do not go together")
    if offsets[0] != 0 or offsets[-1] != fields["rows"] or any(b <= a for a, b in pairwise(offsets)):
        raise ValueError("places of series that do not rise from 0 to the number of rows")
    for freq in set(freqs):
        ReadOptions(freq=freq)
    return Panel(
        arrays["values"],
        tuple(fields["columns"]),
        names,
        np.array(offsets, dtype=np.int64),
        labels,
        None if dates is None else np.array(list(map(datetime.fromisoformat, dates)), dtype="datetime64[us]"),
        freqs,
        panel["id"],
        fields["name"],
        observed=arrays["observed"].astype(bool) if "observed" in arrays else None,
        missing=fields["missing"],
        reading=reading_from_fields(fields["reading"]) if "reading" in fields else Reading(),
    )


def reading_from_fields(fields: dict[str, Any]) -> Reading:
    """The reading that `Reading.to_dict` described; an error of `DAMAGED` for anything else."""
    check_fields("the reading", fields, _READING_FIELDS)
    for name in ("time", "missing_values"):
        if not all(isinstance(text, str) for text in fields[name]):
            raise ValueError(f"{name!r} of the reading is {shortened(fields[name])}; it must be texts")
    for style in fields["styles"].values():
        check_fields("a style of the reading", style, _STYLE_FIELDS)
    ReadOptions(freq=fields["freq"])
    format_date(datetime(2000, 1, 1), "2000-01-01", fields["date_form"])
    return Reading.from_dict(fields)


def _bytes(texts: Sequence[str]) -> Any:
    """Texts without line ends as numbers."""
    return np.frombuffer("\n".join(texts).encode(), dtype=np.uint8)


def _texts(numbers: Any, count: int) -> tuple[str, ...]:
    texts = tuple(numbers.tobytes().decode().split("\n"))
    if len(texts) != count:
        raise ValueError(f"{len(texts)} labels of {count} rows")
    return texts
