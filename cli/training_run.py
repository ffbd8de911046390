"""Prepare the run that ``gru-xp train`` trains: a new one, or one that is resumed from its checkpoint."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gru_xp.io.messages import flag
from gru_xp.reporting.text import number_text

from .exclusive import OF_TRAINING
from .messages import note
from .options import DeviceRequest, settings_as_options
from .sources import (
    Source,
    change_of_file,
    file_facts,
    load_run,
    noted_reading,
    panel_checksum,
    read_options,
    read_panel_source,
    read_source,
    rows_checksum,
    same_names,
)

if TYPE_CHECKING:
    from pathlib import Path

    from gru_xp.devices import Device
    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.checkpoint import Checkpoint
    from gru_xp.forecasting.panels import AnySeries, PanelSplit
    from gru_xp.forecasting.stages import OnStage, Selection
    from gru_xp.forecasting.windows import Split
    from gru_xp.pretrained.choosing import Choice
    from gru_xp.training.trainer import TrainingState

CHANGEABLE = ("num_epochs", "learning_rate", "clip_norm", "patience", "keep_every", "device", "threads", "tf32")
"""Options that a resumed run may change, with --allow-changes."""

_FREE = ("checkpoint_every", "checkpoint_seconds", "plots", "no_fallback")  # they change nothing of what is computed


@dataclass
class TrainingRun:
    """A forecaster, its data, and the state of its training.

    `facts` describe the run in its checkpoints, and `fallback` is the forecast without training that ``--model auto``
    has chosen for a new run. The last four fields are set for a resumed run: the device to use, and the device, the
    versions and the `selection` of the earlier training.
    """

    forecaster: "Forecaster"
    source: Source
    split: "Split | PanelSplit"
    facts: dict[str, Any]
    state: "TrainingState | None" = None
    fallback: str | None = None
    device: DeviceRequest | None = None
    trained_on: str | None = None
    versions: Mapping[str, str] | None = None
    selection: "Selection | None" = None

    @property
    def series(self) -> "AnySeries":
        """All rows."""
        return self.source.series

    @property
    def learned(self) -> "AnySeries":
        """The rows that are not for the test."""
        from gru_xp.forecasting.panels import head_of

        return head_of(self.series, self.split.bounds("test")[0])

    @property
    def training_rows(self) -> "AnySeries":
        """The rows that are trained on."""
        from gru_xp.forecasting.panels import head_of

        return head_of(self.series, self.split.bounds("train")[1])

    @property
    def has_test(self) -> bool:
        """Whether there are rows for the test."""
        first, stop = self.split.bounds("test")
        return bool((first < stop).any())

    def count_refit_rows(self) -> None:
        """Count the validation rows as training rows, if they were learned from in the end."""
        if self.forecaster.selection is not None and self.forecaster.refit_ended:
            self.split = self.split.after_refit()
            self.forecaster.notes |= {"train_end": self.split.train_end}
            if "panel" in self.forecaster.notes:
                self.forecaster.notes["panel"]["train"] = self.forecaster.notes["panel"]["fit"]

    def use(self, device: "Device", requested: str) -> None:
        """Record the device of the training; warn if a resumed run has other versions than before."""
        from gru_xp.devices.inventory import versions

        if (device.name, device.threads) != (self.trained_on, self.facts.get("threads")):
            self.facts["threads"] = device.threads
            self.forecaster.notes |= {
                "requested_device": requested,
                "device_reason": device.reason,
                "threads": device.threads,
            }
        if self.versions is not None:
            before, here = self.versions, versions(device)
            changed = [f"{name} {before.get(name)} -> {here[name]}" for name in here if here[name] != before.get(name)]
            if changed:
                note(f"warning: versions have changed, so the last bits may differ: {', '.join(changed)}")


def new_run(
    csv: str,
    target: str | None,
    features: Sequence[str] | str,
    reading: Mapping[str, Any],
    split_ratio: float,
    settings: dict[str, Any],
    *,
    quiet: bool,
) -> TrainingRun:
    """A run from the start."""
    from gru_xp.forecasting import Forecaster

    with settings_as_options():
        forecaster = Forecaster(**settings)
    options = read_options({}, reading)
    if options.id is None:
        source = read_source(csv, target, features, options, quiet=quiet)
    else:
        source = read_panel_source(csv, target, features, options, quiet=quiet, is_new=True)
    forecaster.notes = {
        "file": source.path.name,
        "bundled": source.bundled,
        "reading": options.to_dict(),
        "series": source.series.reading.to_dict(),
        "missing": source.series.missing,
        "split_ratio": split_ratio,
    }
    if isinstance(features, str):
        forecaster.notes["features"] = features
    return TrainingRun(forecaster, source, _split(forecaster, source.series), file_facts(source))


def choose_model(run: TrainingRun, device: "Device", on_stage: "OnStage") -> "Choice":
    """Make a new run one of the model that forecasts the last training rows best, and note why in the model.

    A run cannot hold the zero-shot forecast; where that is the best one, the run is of the next one. Of a forecast
    without training, it is a ridge that falls back on it.
    """
    from gru_xp.forecasting.backtest import MODELS, ZERO_SHOT
    from gru_xp.forecasting.baselines import needs_no_training
    from gru_xp.forecasting.windows import Split
    from gru_xp.pretrained.choosing import choose, ridge_settings, zero_shot_for

    forecaster = run.forecaster
    zero_shot = zero_shot_for(forecaster.season, None, device)
    assert isinstance(run.split, Split)  # of several series, nothing is chosen
    choice, _ = choose(forecaster, run.source.one.head(run.split.fit_end), device, zero_shot, on_stage)
    held = choice.without_zero_shot(forecaster.horizon)
    forecaster.guard = False
    if held.name != MODELS["gru"]:
        for name, value in ridge_settings(forecaster).items():
            setattr(forecaster, name, value)
        run.fallback = held.name if needs_no_training(held.name) else None
        run.split = _split(forecaster, run.series)
    forecaster.notes["auto"] = {
        "choice": held.name,
        "errors": choice.errors,
        "windows": choice.windows,
        "rows": choice.rows,
        **({"best": ZERO_SHOT} if choice.name == ZERO_SHOT else {}),
    }
    return choice


def resumed_run(
    path: "Path", csv: str | None, given: Mapping[str, Any], *, allow_changes: bool, quiet: bool
) -> TrainingRun:
    """The run whose checkpoint `path` is, unless `csv`, or one of the options that are given, is not as it was.

    Raises
    ------
    CheckpointError
        Something has changed and may not, or there is no such checkpoint.
    """
    checkpoint = load_run(path)
    forecaster, series, facts, state = checkpoint.forecaster, checkpoint.series, checkpoint.run, checkpoint.state
    changes = _changed_options(path, checkpoint, given, allow_changes=allow_changes)
    name = changes.pop("device", None)
    no_fallback = name is None or bool(given.get("no_fallback"))
    reason = "as in the run" if name is None else None
    tf32 = changes.pop("tf32", checkpoint.tf32 and name != "cpu")
    if checkpoint.tf32 and name == "cpu" and not tf32:
        note("warning: the run has used TF32, which the CPU lacks; continuing, and recording it, without")
    if tf32 and (name or checkpoint.device) == "cpu":
        _refuse(path, "--tf32 needs a CUDA device, and the run is on cpu; leave it out, or add --device cuda")
    threads = changes.pop("threads", facts["threads"])
    device = DeviceRequest(name or checkpoint.device, no_fallback, threads, reason, tf32)
    _say_how_the_schedule_changes(forecaster, changes, state.epoch)
    for name, value in changes.items():
        setattr(forecaster, name, value)
    facts |= {name: given[name] for name in ("checkpoint_every", "checkpoint_seconds", "plots") if name in given}

    if "panel" in forecaster.notes and csv is not None:
        _refuse(path, f"a run of several series continues with the rows stored in it; leave {csv} out")
    series = dataclasses.replace(series, reading=noted_reading(forecaster.notes))
    source = Source(series, series.target, _bare_name(facts["file"]), facts["bundled"])
    if csv is not None:
        source, is_other = _compared(path, csv, checkpoint, allow_changes=allow_changes, quiet=quiet)
        facts |= file_facts(source)
        if is_other:
            state = dataclasses.replace(state, batches=0, largest_norm=0.0)
            forecaster.notes |= {
                "file": source.path.name,
                "bundled": source.bundled,
                "series": source.series.reading.to_dict(),
                "missing": source.series.missing,
            }
    elif (change := change_of_file(facts)) and not allow_changes:
        _refuse(
            path,
            f"{facts['file']} has changed since the run read it ({change}); give it after the folder to "
            "compare its rows, or add --allow-changes to continue with the rows stored in the run",
        )
    return TrainingRun(
        forecaster,
        source,
        _split(forecaster, source.series),
        facts,
        state,
        device=device,
        trained_on=checkpoint.device,
        versions=checkpoint.versions,
        selection=forecaster.selection,
    )


def _changed_options(
    path: "Path", checkpoint: "Checkpoint", given: Mapping[str, Any], *, allow_changes: bool
) -> dict[str, Any]:
    """The options that are given otherwise than the run has them; CheckpointError if they must not be."""
    columns, notes = checkpoint.forecaster.columns, checkpoint.forecaster.notes
    held = {
        **checkpoint.forecaster.settings(),
        **read_options(notes, {}).to_dict(),
        "split_ratio": notes["split_ratio"],
        "target": columns[0],
        "features": columns[1:],
        "device": checkpoint.device,
        "threads": checkpoint.run["threads"],
        "tf32": checkpoint.tf32,
    }
    changes = {}
    for name, value in given.items():
        if name in _FREE or value == held[name] or _is_same(name, value, held[name], notes):
            continue
        option = "--feature" if name == "features" else flag(name)
        what = f"{option} is {_said(held[name])} in the run and {_said(value)} here"
        if name == "num_epochs" and value < checkpoint.state.epoch:
            _refuse(
                path,
                f"{option} is {value}, but the run has {checkpoint.state.epoch} epochs already; give at least as many",
            )
        if checkpoint.forecaster.model == "ridge" and name in OF_TRAINING:
            _refuse(path, f"{what}, but a ridge regression is not trained; leave it out")
        if checkpoint.forecaster.selection is not None and name in ("num_epochs", "patience"):
            _refuse(path, f"{what}, but --refit is training on all rows already, for the epochs found; leave it out")
        if name not in CHANGEABLE or _settles_more(name, value, held):
            _refuse(path, f"{what}, which would be a different training; leave it out, or train a new run")
        if not allow_changes:
            _refuse(path, f"{what}; leave it out, or add --allow-changes")
        changes[name] = value
    return changes


def _say_how_the_schedule_changes(forecaster: "Forecaster", changes: Mapping[str, Any], epoch: int) -> None:
    """Warn where another number of epochs makes another schedule, which the training continues with."""
    if "num_epochs" not in changes:
        return
    from gru_xp.forecasting import Forecaster

    N = changes["num_epochs"]
    stretched = Forecaster(**forecaster.settings() | {"num_epochs": N})
    before, after = (each.learning_rate_after(epoch) for each in (forecaster, stretched))
    if before != after:
        note(
            f"warning: {N} epochs have another schedule: the learning rate continues with {number_text(after)}, not "
            f"{number_text(before)}, and the result is not that of a run of {N} epochs from the start"
        )


def _settles_more(name: str, given: Any, held: Mapping[str, Any]) -> bool:
    """Whether the number of updates, or the schedule of their learning rate, would follow from the option anew."""
    counts_updates = held["num_epochs"] is None and held["patience"] is None
    if name == "num_epochs":
        return held["num_steps"] is not None or counts_updates
    turns_on_or_off = name == "patience" and None in (given, held["patience"])
    return turns_on_or_off and (held["schedule"] is None or held["num_epochs"] is None)


def _is_same(name: str, given: Any, held: Any, notes: Mapping[str, Any]) -> bool:
    """Whether an option that is given otherwise than the run has it means the same."""
    if name == "levels":
        from gru_xp.forecasting.outputs import rising_levels

        return bool(rising_levels(given) == held)
    if name == "quantiles":
        from gru_xp.forecasting.outputs import rising_quantiles

        return bool(rising_quantiles(given) == held)
    if name == "device":
        return given in ("auto", held) or (given == "cuda" and held.startswith("cuda"))
    if name in ("target", "id"):
        return held is not None and same_names([given], [held])
    if name == "time":
        return same_names(given, held)
    if name == "where":
        return list(map(_condition, given)) == list(map(_condition, held))
    if name == "features":
        return given == notes.get("features") or (not isinstance(given, str) and same_names(given, held))
    return False


def _condition(text: str) -> tuple[str, str]:
    """Column and value of ``COLUMN=VALUE``; case is forgiven in the name of the column alone."""
    column, _, value = text.partition("=")
    return column.strip().casefold(), value.strip()


def _said(value: object) -> str:
    from gru_xp.errors import printable
    from gru_xp.io.messages import listed

    if isinstance(value, tuple):
        numbers = ", ".join(str(item) for item in value if isinstance(item, float))
        return numbers or listed(value) or "none"
    return "not set" if value is None else printable(str(value))


def _compared(
    path: "Path", csv: str, checkpoint: "Checkpoint", *, allow_changes: bool, quiet: bool
) -> tuple[Source, bool]:
    """What to learn from where a file is named, and whether that is not what was learned from."""
    from gru_xp.forecasting.checkpoint import what_changed
    from gru_xp.io.series import TimeSeries

    target, *features = checkpoint.series.columns
    source = read_source(csv, target, features, read_options(checkpoint.forecaster.notes, {}), quiet=quiet)
    assert isinstance(checkpoint.series, TimeSeries)
    change = what_changed(checkpoint.series, source.one)
    if change is None:
        series = dataclasses.replace(checkpoint.series, reading=source.series.reading)
        return dataclasses.replace(source, series=series), False
    if not allow_changes:
        _refuse(
            path,
            f"{csv} differs from the data of the run: {change}; leave it out to continue with the rows stored in "
            "the run, or add --allow-changes to continue with these",
        )
    if source.series.observed is not None and not checkpoint.forecaster.sees_gaps:  # a run of an earlier version
        if not source.series.observed.all():
            _refuse(path, f"{csv} has missing values, unlike the data of the run; train a new run")
        source = dataclasses.replace(source, series=dataclasses.replace(source.series, observed=None))
    note(f"{csv}: {change}; continuing with these rows")
    return source, True


def _split(forecaster: "Forecaster", series: "AnySeries") -> "Split | PanelSplit":
    """Split the rows, and record the split in the notes of the model."""
    from gru_xp.forecasting.data import naming
    from gru_xp.forecasting.panels import split_panel
    from gru_xp.forecasting.windows import split_rows
    from gru_xp.io.panel import Panel

    ratio, validation_ratio = forecaster.notes["split_ratio"], forecaster.validation_ratio
    if isinstance(series, Panel):
        with naming(series):
            of_panel = split_panel(series, ratio, validation_ratio, forecaster.horizon)
        counts = {
            name: (stops - series.offsets[:-1]).tolist()
            for name, stops in (("train", of_panel.train_ends), ("fit", of_panel.fit_ends))
        }
        forecaster.notes |= {
            "train_end": of_panel.train_end,
            "fit_end": sum(counts["fit"]),
            "fit_sha256": panel_checksum(series, of_panel.fit_ends),
            "last_label": None,
            "panel": {"names": list(series.names), **counts},
        }
        return of_panel
    with naming(series):
        split = split_rows(len(series), forecaster.shortest_window, ratio, validation_ratio, forecaster.horizon)
    forecaster.notes |= {
        "train_end": split.train_end,
        "fit_end": split.fit_end,
        "fit_sha256": rows_checksum(series, split.fit_end),
        "last_label": series.labels[split.fit_end - 1] if series.labels else None,
    }
    return split


def _bare_name(name: str) -> "Path":
    from pathlib import Path

    return Path(Path(name).name or "series")


def _refuse(path: "Path", why: str) -> None:
    from gru_xp.errors import CheckpointError

    raise CheckpointError(f"{path.parent}: {why}")
