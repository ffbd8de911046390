"""The options of commands that read a file: what it does not say about itself."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

F = TypeVar("F", bound=Callable[..., Any])


def _check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    from gru_xp.forecasting.reading.options import ReadOptions

    if value is not None:
        try:
            ReadOptions(**{str(param.name): value})
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return value


_OPTIONS = (
    click.option(
        "--decimal",
        type=click.Choice([".", ","]),
        help="Decimal sign; the other one separates thousands.  [default: . if unambiguous]",
    ),
    click.option(
        "--date-format",
        metavar="FORMAT",
        callback=_check,
        help="Date format, such as %d/%m/%Y.  [default: any common format, if unambiguous]",
    ),
    click.option(
        "--on-duplicate",
        type=click.Choice(["first", "last", "mean"]),
        help="Row to use if several have the same date.  [default: refuse]",
    ),
    click.option(
        "--missing",
        type=click.Choice(["refuse", "drop", "ffill", "interpolate", "mask"]),
        help="Missing values: refuse them, drop their rows, fill forward, interpolate, or mask them with an indicator "
        "input.  [default: refuse]",
    ),
    click.option(
        "--encoding", metavar="NAME", callback=_check, help="Text encoding, such as cp1252.  [default: UTF-8 or UTF-16]"
    ),
)
_NAMES = ("decimal", "date_format", "on_duplicate", "missing", "encoding")


def reading_options(command: F) -> F:
    """``--decimal``, ``--date-format``, ``--on-duplicate``, ``--missing`` and ``--encoding``.

    The command gets them as ``reading``, a dict of those that were given, which `ReadOptions` takes.
    """

    @functools.wraps(command)
    def with_reading(*args: Any, **others: Any) -> Any:
        given = {name: value for name in _NAMES if (value := others.pop(name)) is not None}
        return command(*args, reading=given, **others)

    for option in reversed(_OPTIONS):
        with_reading = option(with_reading)
    return cast(F, with_reading)
