"""Refuse options that have no effect beside others, instead of ignoring them."""

from collections.abc import Mapping
from typing import Any

import click

from gru_xp.errors import ArgumentError
from gru_xp.forecasting import together
from gru_xp.io.messages import flag

from .options import as_options, is_given

OF_TRAINING = (*together.OF_TRAINING, "checkpoint_every", "checkpoint_seconds", "verify_cpu")
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
    given = [name for name in ctx.params if is_given(ctx, name)]
    try:
        together.check_together(settings, given)
    except ArgumentError as error:
        raise click.UsageError(as_options(str(error))) from error
    if settings["model"] == "ridge":
        for name in given:
            if name in OF_TRAINING:
                raise click.UsageError(f"{flag(name)} has no effect with --model ridge, which is not trained")
    if settings.get("refit") and ctx.params.get("verify_cpu"):
        raise click.UsageError("--verify-cpu cannot be combined with --refit; it compares a single training")
