"""The options of commands that read a file: how to read it where its content leaves a choice."""

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar, cast

import click

from gru_xp.io.messages import flag
from gru_xp.io.options import CHOICES, ReadOptions

F = TypeVar("F", bound=Callable[..., Any])


def _check(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    if value:
        try:
            ReadOptions(**{str(param.name): value})
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return value


def _check_marks(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(mark.strip() for value in values for mark in value.split(",") if mark.strip())


_OPTIONS = (
    click.option(
        flag("time"),
        "time",
        multiple=True,
        metavar="COLUMN",
        callback=_check,
        help="Column that dates the rows; give it once for each column if date and time of day are apart.  "
        "[default: Date or the like, or a first column of dates]",
    ),
    click.option(
        flag("id"),
        "id",
        metavar="COLUMN",
        callback=_check,
        help="Column that tells several series apart: train takes all of them, as do evaluate and forecast of such a "
        "run; other commands take one, which --where keeps.",
    ),
    click.option(
        flag("where"),
        multiple=True,
        metavar="COLUMN=VALUE",
        callback=_check,
        help="Use only the rows with this value; give it once for each condition.",
    ),
    click.option(
        flag("order"),
        type=click.Choice(CHOICES["order"]),
        help="Order of the rows if no column dates them.  [default: oldest-first]",
    ),
    click.option(
        flag("freq"),
        metavar="OFFSET",
        callback=_check,
        help="Spacing of the rows, as a pandas offset such as D, B, W-MON, MS or h.  [default: the usual spacing]",
    ),
    click.option(
        flag("decimal"),
        type=click.Choice(CHOICES["decimal"]),
        help="Decimal sign; the other one separates thousands.  [default: . if unambiguous]",
    ),
    click.option(
        flag("date_format"),
        metavar="FORMAT",
        callback=_check,
        help="Date format, such as %d/%m/%Y.  [default: any common format, if unambiguous]",
    ),
    click.option(
        flag("on_duplicate"),
        type=click.Choice(CHOICES["on_duplicate"]),
        help="Row to use if several have the same date.  [default: refuse]",
    ),
    click.option(
        flag("missing_values"),
        multiple=True,
        metavar="MARKS",
        callback=_check_marks,
        help='Cells that mark a missing value, beside the usual ones, separated by commas, such as "?,-200".',
    ),
    click.option(
        flag("missing"),
        type=click.Choice(CHOICES["missing"]),
        help="Missing values: refuse them, drop their rows, fill forward, interpolate, or mask them with an indicator "
        "input.  [default: refuse]",
    ),
    click.option(
        flag("encoding"),
        metavar="NAME",
        callback=_check,
        help="Text encoding, such as cp1252.  [default: UTF-8 or UTF-16]",
    ),
)


def reading_options(command: F) -> F:
    """All options of `ReadOptions`; the command gets those that were given as ``reading``, a dict."""

    @functools.wraps(command)
    def with_reading(*args: Any, **others: Any) -> Any:
        given = {field.name: value for field in fields(ReadOptions) if (value := others.pop(field.name))}
        return command(*args, reading=given, **others)

    for option in reversed(_OPTIONS):
        with_reading = option(with_reading)
    return cast(F, with_reading)


def as_arguments(options: ReadOptions) -> list[str]:
    """The words of a command line that gives these options; the inverse of `reading_options`."""
    words = []
    for field in fields(options):
        value = getattr(options, field.name)
        if value == field.default:
            continue
        values = [",".join(value)] if field.name == "missing_values" else [value] if isinstance(value, str) else value
        words += [word for each in values for word in (flag(field.name), each)]
    return words
