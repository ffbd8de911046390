"""What a model file says of a forecaster beside its parameters, and the forecaster that it describes."""

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gru_xp.devices import Device, check_tf32
from gru_xp.devices.inventory import versions
from gru_xp.errors import CheckpointError
from gru_xp.forecasting.baselines import baseline_names
from gru_xp.forecasting.choosing import LookBack
from gru_xp.forecasting.conformal import Intervals
from gru_xp.forecasting.outputs import WILDEST
from gru_xp.forecasting.panels import SeriesUnits
from gru_xp.forecasting.ridge import PENALTY
from gru_xp.forecasting.scaling import Scaler
from gru_xp.forecasting.transforms import TargetTransform
from gru_xp.nn.checks import whole_number
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import arrays_of, named_arrays
from gru_xp.training.strict_json import check_fields, shortened
from gru_xp.training.tensors import DAMAGED, damaged

if TYPE_CHECKING:
    from gru_xp.forecasting.forecaster import Forecaster

_DESCRIPTION: dict[str, type | tuple[type, ...]] = {
    "settings": dict,
    "scaler": dict,
    "columns": (list, tuple),
    "look_back": (dict, type(None)),
    "seasons": (list, tuple),
    "fallback": (str, type(None)),
    "spread": (list, tuple),
    "target_transform": (dict, type(None)),
    "units": (dict, type(None)),
    "intervals": (dict, type(None)),
    "sees_gaps": bool,
    "device": str,
    "tf32": bool,
    "versions": dict,
    "best_epoch": int,
    "notes": dict,
}
"""What `describe` gives, and what it is."""

OLD_SETTINGS: dict[str, Any] = {
    "seq_length": 10,
    "hidden_size": 32,
    "num_epochs": 300,
    "learning_rate": 0.002,
    "optimizer": "adam",
    "reduction": None,
    "batch_size": None,
    "clip_norm": None,
    "patience": 50,
    "validation_ratio": 0.2,
    "scaling": "last",
    "reset": "before",
    "dtype": "float32",
    "seed": 0,
    "num_layers": 1,
    "bidirectional": False,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "zoneout": 0.0,
    "keep_every": None,
    "horizon": 1,
    "patches": 0,
    "linear_skip": False,
    "season": "auto",
    "model": "gru",
    "guard": False,
    "beta1": 0.9,
    "beta2": 0.999,
    "weight_decay": 0.01,
    "num_steps": None,
    "loss": "mse",
    "huber_delta": 1.0,
    "quantiles": (0.5,),
    "schedule": "constant",
    "warmup": None,
    "refit": False,
    "transform": "none",
    "minimum": None,
    "maximum": None,
    "levels": (),
}
"""Of models that were written before there were these settings, whatever their defaults are now."""


def describe(forecaster: "Forecaster") -> dict[str, Any]:
    """All about a forecaster that has begun to learn, but its parameters, as JSON can hold it."""
    return {
        "settings": forecaster.settings(),
        "scaler": forecaster.scaler.to_dict(),
        "columns": forecaster.columns,
        "look_back": asdict(forecaster.look_back),
        "seasons": forecaster.seasons,
        "fallback": forecaster.fallback,
        **({"spread": forecaster.spread} if forecaster.spread else {}),
        **({"target_transform": held.to_dict()} if (held := forecaster.target_transform).kind != "none" else {}),
        **({"units": forecaster.units.to_dict()} if forecaster.units is not None else {}),
        **({"intervals": forecaster.intervals.to_dict()} if forecaster.intervals.scores else {}),
        "sees_gaps": forecaster.sees_gaps,
        "device": forecaster.device.name,
        **({"tf32": True} if forecaster.device.tf32 else {}),
        "versions": versions(forecaster.device),
        "best_epoch": forecaster.best_epoch,
        "notes": forecaster.notes,
    }


def join_parts(
    kind: "type[Forecaster]", params: NetworkParams, description: dict[str, Any], device: Device
) -> "Forecaster":
    """A forecaster of parameters on `device` and of what `describe` gave; CheckpointError if they do not fit."""
    try:
        forecaster = read_description(kind, description)
        shapes = {name: spec.shape for name, spec in forecaster.architecture().specs().items()}
    except DAMAGED as error:
        raise damaged("model", error) from error
    for form in {direction.reset for layer in params.gru for direction in layer}:
        if form != forecaster.reset:
            raise CheckpointError(
                f"a gru-xp model of reset={form!r} that is described as one of {forecaster.reset!r}; "
                "save or export the forecaster again"
            )
    if {name: tuple(array.shape) for name, array in named_arrays(params)} != shapes:
        raise CheckpointError("a gru-xp model whose weights do not have the shapes that it describes")
    if any(array.dtype != getattr(device.xp, forecaster.dtype) for array in arrays_of(params)):
        raise CheckpointError(f"a gru-xp model whose weights are not {forecaster.dtype}, as it describes them")
    check_tf32(device, forecaster.dtype)
    forecaster.params = params
    forecaster.device = device
    return forecaster


def read_description(kind: "type[Forecaster]", description: dict[str, Any]) -> "Forecaster":
    """A forecaster without parameters, of what `describe` gave; an error of `DAMAGED` if that is damaged."""
    older = {"sees_gaps": False, "tf32": False, "look_back": None, "seasons": (), "fallback": None, "spread": ()}
    older |= {"target_transform": None, "units": None, "intervals": None}
    description = older | description  # not all files say
    check_fields("it", description, _DESCRIPTION)
    known = {f.name for f in fields(kind) if f.init}
    settings = OLD_SETTINGS | description["settings"]
    if "quantile" in settings:  # before there could be several
        settings["quantiles"] = settings.pop("quantile")
    season, seq_length = settings["season"], settings["seq_length"]
    if settings["linear_skip"] and isinstance(season, int) and isinstance(seq_length, int) and season > seq_length:
        settings["season"] = "auto"  # once it was for the baselines alone, and `seasons` has it
    if unknown := sorted(settings.keys() - known):
        raise ValueError(f"{shortened(unknown[0])} is no setting")
    columns = tuple(description["columns"])
    if not columns or not all(isinstance(column, str) for column in columns):
        raise ValueError("columns must be one name or more")
    forecaster = kind(**settings)
    forecaster.scaler = forecaster.outputs.for_targets(Scaler.from_dict(description["scaler"]))
    if len(forecaster.scaler.mean) != len(columns):
        raise ValueError("its scaler has not one number for each column")
    look_back = description["look_back"] or {"seq_length": forecaster.seq_length, "season": 1}
    look_back = {"penalty": PENALTY} | look_back  # older ones do not say
    check_fields("look_back", look_back, {"seq_length": int, "season": int, "penalty": float})
    penalty = look_back.pop("penalty")
    if not 0 < penalty < math.inf:
        raise ValueError(f"penalty of look_back is {penalty}; it must be a number above 0")
    numbers = {name: whole_number(name, n, 1) for name, n in look_back.items()}
    forecaster.look_back = LookBack(**numbers, penalty=penalty)
    forecaster.seasons = tuple(whole_number("season", season, 2) for season in description["seasons"])
    forecaster.fallback = description["fallback"]
    if forecaster.fallback not in (None, *baseline_names(forecaster.seasons)):
        raise ValueError(f"{shortened(forecaster.fallback)} is no forecast without training")
    forecaster.spread = _described_spread(forecaster, description["spread"])
    forecaster.target_transform = _described_transform(forecaster, description["target_transform"])
    if description["units"] is not None:
        forecaster.units = SeriesUnits.from_dict(description["units"], len(columns))
    if (intervals := description["intervals"]) is not None:
        forecaster.intervals = Intervals.from_dict(intervals, len(forecaster.outputs.levels), forecaster.horizon)
    forecaster.columns, forecaster.sees_gaps = columns, description["sees_gaps"]
    forecaster.best_epoch = whole_number("best_epoch", description["best_epoch"], 0)
    forecaster.notes = description["notes"]
    return forecaster


def _described_transform(forecaster: "Forecaster", described: dict[str, Any] | None) -> TargetTransform:
    """The transform in a description; ValueError if it is damaged."""
    transform = TargetTransform.from_dict({"kind": "none", "mean": 0.0} | (described or {}), forecaster.horizon)
    if forecaster.transform not in ("auto", transform.kind):
        raise ValueError(f"transform {shortened(transform.kind)}, which is not that of the settings")
    return transform


def _described_spread(forecaster: "Forecaster", described: Sequence[Any]) -> tuple[tuple[float, ...], ...]:
    """The spread in a description, zeros if the description has none; ValueError if it is damaged."""
    Q = len(forecaster.outputs.predicted)
    if forecaster.fallback is None or not Q:
        if len(described):
            raise ValueError("a spread, which such a model has not")
        return ()
    spread = tuple(tuple(map(float, row)) for row in described or [[0.0] * forecaster.horizon] * Q)
    steps = zip(*spread, strict=True)
    if (
        len(spread) != Q
        or len(spread[0]) != forecaster.horizon
        or not all(all(-WILDEST <= a <= b <= WILDEST for a, b in pairwise((*step, step[-1]))) for step in steps)
    ):
        raise ValueError("a spread that is not a rising number for each quantile, by step")
    return spread
