"""Refuse options that have no effect beside others, instead of ignoring them."""

from collections.abc import Mapping
from typing import Any

import click

from gru_xp.io.messages import flag

from .options import is_given

_NEEDS = {
    "huber_delta": ("loss", ("huber",)),
    "quantiles": ("loss", ("quantile",)),
    "weight_decay": ("optimizer", ("adamw",)),
    "beta1": ("optimizer", ("adam", "adamw")),
    "beta2": ("optimizer", ("adam", "adamw")),
}
"""Options that only some values of another option heed."""

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
    "checkpoint_every",
    "checkpoint_seconds",
    "verify_cpu",
)
"""Options of a GRU and its training, which the ridge regression has none of."""


def check_together(ctx: click.Context, settings: Mapping[str, Any]) -> None:
    """Raise UsageError if an option is given that has no effect beside the settings.

    Parameters
    ----------
    ctx
        Of the command.
    settings
        Of the forecaster, by name, given or not.
    """

    def given(name: str) -> bool:
        return name in ctx.params and is_given(ctx, name)

    if settings["model"] == "ridge":
        is_refit = ("refit",) if settings.get("refit") else ()  # backtest has another --refit
        for name in (*is_refit, *filter(given, OF_TRAINING)):
            _refuse(f"{flag(name)} cannot be combined with --model ridge, which has no GRU and is not trained")
        if not settings["linear_skip"]:
            _refuse("--model ridge needs --linear-skip: it is the linear skip alone")
    if settings.get("refit"):
        if not settings["validation_ratio"]:
            _refuse("--refit needs validation rows, which the number of epochs is found by; add --validation-ratio 0.2")
        if ctx.params.get("verify_cpu"):
            _refuse("--verify-cpu cannot be combined with --refit; it compares a single training")
    if settings["num_steps"] is not None and given("num_epochs"):
        _refuse("--num-steps cannot be combined with --num-epochs; it replaces it")
    if settings["num_steps"] is not None and settings["patience"] is not None and not settings["validation_ratio"]:
        _refuse("--patience needs --validation-ratio beside --num-steps, or --num-epochs instead of it")
    for name, (other, values) in _NEEDS.items():
        if given(name) and settings[other] not in values:
            _refuse(f"{flag(name)} needs {flag(other)} {' or '.join(values)}")
    if settings["dropout"] > 0 and settings["num_layers"] == 1:
        _refuse("--dropout applies between layers; use --num-layers 2 or more, or --recurrent-dropout")
    season, seq_length = settings["season"], settings["seq_length"]
    if settings["linear_skip"] and isinstance(season, int) and isinstance(seq_length, int) and season > seq_length:
        _refuse(
            f"--season {season} needs a --seq-length of at least {season}, or --no-linear-skip: the linear skip begins "
            "with the value one season before"
        )


def _refuse(why: str) -> None:
    raise click.UsageError(why)
