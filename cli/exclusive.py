"""Refuse options that have no effect beside others, instead of ignoring them."""

from collections.abc import Iterable, Mapping
from typing import Any

import click

from gru_xp.errors import ArgumentError
from gru_xp.forecasting import together
from gru_xp.io.messages import flag

from .options import as_options, is_given

OF_TRAINING = (*together.OF_TRAINING, "checkpoint_every", "checkpoint_seconds", "verify_cpu")
"""Options of a GRU and its training, which the ridge regression has none of."""


OF_RUN = "cannot be combined with RUN, which has its own settings; give its CSV file"
"""Why an option is refused beside a run."""


def refuse_given(ctx: click.Context, names: Iterable[str], reason: str) -> None:
    """Raise UsageError, with the reason, if any of these options is given."""
    if given := [flag(name) for name in names if is_given(ctx, name)]:
        raise click.UsageError(f"{', '.join(given)} {reason}")


def check_without_run(source: str, csv: str | None) -> None:
    """Raise UsageError if a second file is given after one that is no run."""
    if csv is not None:
        raise click.UsageError(f"'{source}' is no run folder or model file; only RUN can be followed by a CSV file")


def check_zero_shot(ctx: click.Context, settings: Iterable[str] = ()) -> None:
    """Raise UsageError if features, one of these settings of a training, or a season that is too long are given."""
    refuse_given(ctx, settings, "cannot be combined with zero-shot forecasts, for which nothing is trained")
    refuse_given(
        ctx, ("feature", "features"), "cannot be combined with zero-shot forecasts, which see the target alone"
    )
    given = ctx.params["season"]
    seasons = [season for season in (given if isinstance(given, tuple) else [given]) if isinstance(season, int)]
    if seasons:
        from gru_xp.pretrained.features import CONTEXT

        if max(seasons) >= CONTEXT:
            raise click.UsageError(
                f"--season {max(seasons)} is too long for zero-shot forecasts, which look back on {CONTEXT} rows; give "
                f"at most {CONTEXT - 1}, or none"
            )


def check_auto(ctx: click.Context, settings: Mapping[str, Any]) -> None:
    """Raise UsageError if settings, or options that are given, do not go with ``--model auto``."""
    refuse_given(ctx, ("guard",), "has no effect with --model auto, which compares with naive forecasts itself")
    if ctx.params.get("verify_cpu"):
        raise click.UsageError("--verify-cpu cannot be combined with --model auto; give the model that it chooses")
    if (loss := settings["loss"]) in ("quantile", "gaussian", "poisson"):
        raise click.UsageError(f"--loss {loss} cannot be combined with --model auto, which compares points alone")
    if settings["levels"]:
        raise click.UsageError("--level cannot be combined with --model auto, which compares points alone")
    if not settings["linear_skip"]:
        raise click.UsageError("--model auto needs --linear-skip, which the ridge consists of")


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
