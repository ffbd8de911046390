"""Settings that have no effect beside others, which are refused instead of ignored.

The command line applies these rules before it imports a forecaster, so this file imports nothing that takes time.
"""

from collections.abc import Collection, Mapping
from typing import Any

from gru_xp.errors import ArgumentError
from gru_xp.io.messages import option

OF_TRAINING = (
    "validation_ratio",
    "patches",
    "hidden_size",
    "num_layers",
    "bidirectional",
    "dropout",
    "recurrent_dropout",
    "zoneout",
    "reset",
    "num_epochs",
    "num_steps",
    "loss",
    "huber_delta",
    "quantiles",
    "learning_rate",
    "optimizer",
    "beta1",
    "beta2",
    "weight_decay",
    "schedule",
    "warmup",
    "reduction",
    "batch_size",
    "keep_every",
    "clip_norm",
    "patience",
)
"""Settings of a GRU and its training, which the ridge regression has none of."""

_NEEDS = {
    "huber_delta": ("loss", ("huber",)),
    "quantiles": ("loss", ("quantile",)),
    "weight_decay": ("optimizer", ("adamw",)),
    "beta1": ("optimizer", ("adam", "adamw")),
    "beta2": ("optimizer", ("adam", "adamw")),
}
"""Settings that only some values of another setting heed."""


def check_together(settings: Mapping[str, Any], given: Collection[str] = ()) -> None:
    """Refuse settings that contradict each other, and those that were asked for but have no effect beside the others.

    Parameters
    ----------
    settings
        By name, given or not.
    given
        The names of those that were asked for one by one. A `Forecaster` cannot tell them from those of a dictionary
        that it shares with other forecasters.

    Raises
    ------
    ArgumentError
        There is such a setting; the message has its name, and what to do.
    """
    if settings["model"] == "ridge":
        is_refit = ("refit",) if settings.get("refit") else ()
        for name in (*is_refit, *(name for name in OF_TRAINING if name in given)):
            _refuse(f"{option(name)} has no effect with {option('model', 'ridge')}, which has no GRU; leave it out")
        if not settings["linear_skip"]:
            _refuse(f"{option('model', 'ridge')} needs linear_skip=True: it is the linear skip alone")
    if settings.get("refit") and not settings["validation_ratio"]:
        _refuse(
            f"{option('refit')} needs validation rows, by which the number of epochs is found; give "
            f"{option('validation_ratio')} above 0, such as 0.2"
        )
    if settings["num_steps"] is not None:
        if "num_epochs" in given:
            _refuse(f"{option('num_steps')} cannot be combined with {option('num_epochs')}; it replaces it")
        if settings["patience"] is not None and "patience" in given and not settings["validation_ratio"]:
            _refuse(
                f"{option('patience')} needs {option('validation_ratio')} beside {option('num_steps')}, or "
                f"{option('num_epochs')} instead of it"
            )
    for name, (other, values) in _NEEDS.items():
        if name in given and settings[other] not in values:
            _refuse(f"{option(name)} needs {option(other, *values)}")
    if settings["dropout"] > 0 and settings["num_layers"] == 1:
        _refuse(
            f"{option('dropout')} applies between layers; use num_layers=2 or more, or {option('recurrent_dropout')}"
        )
    _check_transform(settings)
    season, seq_length = settings["season"], settings["seq_length"]
    are_numbers = isinstance(season, int) and isinstance(seq_length, int)
    if settings["linear_skip"] and are_numbers and season > seq_length:
        _refuse(
            f"season={season} needs {option('seq_length')} of at least {season}, or linear_skip=False: the linear skip "
            "begins with the value one season before"
        )


def _check_transform(settings: Mapping[str, Any]) -> None:
    """The part of `check_together` about the transform of the target and the limits of its forecasts."""
    transform, loss = settings["transform"], settings["loss"]
    minimum, maximum = settings["minimum"], settings["maximum"]
    if transform != "none" and loss == "poisson":
        _refuse(
            f"{option('transform', transform)} cannot be combined with {option('loss', loss)}, which predicts counts; "
            "leave one of them out"
        )
    if transform == "diff" and loss in ("quantile", "gaussian") and settings["horizon"] > 1:
        _refuse(
            f"{option('transform', transform)} with {option('loss', loss)} needs a horizon of 1: quantiles of several "
            f"changes do not add up; use another loss, or {option('transform', 'none')}"
        )
    if minimum is not None and maximum is not None and minimum >= maximum:
        _refuse(f"{option('minimum')} is {minimum:g} and {option('maximum')} {maximum:g}; the former must be smaller")
    if maximum is not None and (maximum <= 0 if transform == "log" else transform == "sqrt" and maximum < 0):
        _refuse(
            f"{option('maximum')} is {maximum:g}, but {option('transform', transform)} needs larger values; use "
            f"{option('transform', 'none')}"
        )


def _refuse(why: str) -> None:
    raise ArgumentError(why)
