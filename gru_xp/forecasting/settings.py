"""The settings of a forecaster: what they may be, and the training that they ask for."""

import math
from dataclasses import fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from gru_xp.errors import ArgumentError
from gru_xp.forecasting.outputs import rising_levels, rising_quantiles
from gru_xp.forecasting.recipe import step_budget
from gru_xp.forecasting.scaling import SCALINGS
from gru_xp.forecasting.together import check_together
from gru_xp.forecasting.transforms import TRANSFORMS
from gru_xp.nn.checks import check_choice, check_flag, shown, whole_number
from gru_xp.nn.params import RESETS
from gru_xp.training.model_file import LARGEST_STATE, MOST_LAYERS
from gru_xp.training.objective import LOSSES
from gru_xp.training.schedules import DEFAULT_WARMUPS
from gru_xp.training.trainer import TrainingConfig

if TYPE_CHECKING:
    from gru_xp.forecasting.forecaster import Forecaster

DTYPES = ("float32", "float64")
MODELS = ("gru", "ridge")

MAX_STEPS = 10**6
"""Of one forecast."""

EPOCHS_WITH_PATIENCE = 300
"""At most, if no number is given."""


def check_settings(forecaster: "Forecaster") -> None:
    """Refuse settings that are out of range or do not go together, and give the others the form they are kept in."""
    check_choice("scaling", forecaster.scaling, SCALINGS)
    check_choice("reset", forecaster.reset, RESETS)
    check_choice("dtype", forecaster.dtype, DTYPES)
    for name, most in (("hidden_size", LARGEST_STATE), ("num_layers", MOST_LAYERS)):
        whole_number(name, getattr(forecaster, name), 1, most)
    _check_rows("seq_length", forecaster.seq_length, 1, "auto")
    _check_rows("season", forecaster.season, 2, "auto", "none")
    check_choice("model", forecaster.model, MODELS)
    check_flag("guard", forecaster.guard)
    check_choice("loss", forecaster.loss, LOSSES)
    forecaster.quantiles = rising_quantiles(forecaster.quantiles)
    check_choice("transform", forecaster.transform, TRANSFORMS)
    for name in ("minimum", "maximum"):
        _check_limit(name, getattr(forecaster, name))
    forecaster.levels = rising_levels(forecaster.levels)
    if forecaster.model == "ridge" and forecaster.outputs.predicted:
        raise ArgumentError(f"model='ridge' predicts a mean alone; use model='gru' with loss={forecaster.loss!r}")
    whole_number("horizon", forecaster.horizon, 1, MAX_STEPS)
    whole_number("patches", forecaster.patches, 0, LARGEST_STATE)
    check_flag("bidirectional", forecaster.bidirectional)
    check_flag("linear_skip", forecaster.linear_skip)
    if not isinstance(forecaster.validation_ratio, Real) or not 0 <= forecaster.validation_ratio < 1:
        raise ArgumentError(
            f"validation_ratio is {shown(forecaster.validation_ratio)}; it must be at least 0 and below 1"
        )
    check_flag("refit", forecaster.refit)
    training_config(forecaster)
    check_together(forecaster.settings())
    for f in fields(forecaster):  # numbers of NumPy become Python's, which a model file can hold
        if f.init and hasattr(getattr(forecaster, f.name), "item"):
            setattr(forecaster, f.name, getattr(forecaster, f.name).item())


def _check_rows(name: str, value: object, least: int, *words: str) -> None:
    """Refuse what is neither a number of rows nor one of the words."""
    if isinstance(value, str) and value in words:
        return
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        either = " or ".join(map(repr, words))
        raise ArgumentError(f"{name} is {shown(value)}; it must be {either}, or a whole number of at least {least}")


def _check_limit(name: str, value: object) -> None:
    """Refuse what is neither None nor a finite number."""
    if value is None or (isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)):
        return
    raise ArgumentError(f"{name} is {shown(value)}; it must be a finite number, or None for no limit")


def training_config(forecaster: "Forecaster", windows: int = 1) -> TrainingConfig:
    """The configuration of a training with so many windows."""
    values = {f.name: getattr(forecaster, f.name) for f in fields(TrainingConfig) if f.name != "stop_after"}
    if forecaster.schedule is None:
        turns = forecaster.optimizer in ("adam", "adamw") and forecaster.patience is None
        values["schedule"] = "one-cycle" if turns else "constant"
    if forecaster.num_epochs is None and forecaster.patience is not None:
        values["num_epochs"] = EPOCHS_WITH_PATIENCE
    elif forecaster.num_epochs is None and forecaster.num_steps is None:
        values["num_steps"] = step_budget(windows, forecaster.batch_size or windows)
    if forecaster.model == "ridge":  # what a training begins with is all of it
        values |= {"num_epochs": None, "num_steps": 1, "stop_after": 0, "patience": None}
    return TrainingConfig(**values)


def in_force(forecaster: "Forecaster") -> dict[str, Any]:
    """The settings by name, where those of the training that are None are what follows from the others."""
    config = training_config(forecaster)
    warmup = DEFAULT_WARMUPS[config.schedule] if config.warmup is None else config.warmup
    resolved = {"schedule": config.schedule, "warmup": warmup, "reduction": config.resolved_reduction}
    return forecaster.settings() | resolved


def planned_epochs(config: TrainingConfig, windows: int) -> int:
    """Passes over so many windows of a training that nothing ends early."""
    return math.ceil(config.steps(windows) / config.steps_per_epoch(windows))
