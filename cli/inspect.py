"""``gru-xp inspect``."""

import shlex
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from gru_xp.reporting.text import number_text

from .messages import print_json, print_table, seasons_text
from .options import Command, column_options, quiet_option
from .reading import as_arguments, reading_options
from .sources import open_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gru_xp.forecasting.inspection import ColumnFacts, Inspection

_WIDTH = 80
_LONGEST_NAME = 30
_MOST_COLUMNS = 40


@click.command(cls=Command, epilog="Example: gru-xp inspect GOOG.csv")
@click.argument("csv", metavar="CSV", type=click.Path())
@column_options("Close, or the only numeric column")
@reading_options
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def inspect(
    csv: str,
    target: str | None,
    features: tuple[str, ...] | str,
    reading: dict[str, Any],
    quiet: bool,
    as_json: bool,
) -> None:
    """Show how the series in CSV is read, before anything is trained.

    Printed are the columns, the time and the spacing of the rows, gaps, duplicates, missing and suspicious values, the
    season, the notices and refusals that train would give, and the command that would train on the file.
    """
    from gru_xp.forecasting.inspection import inspect_table
    from gru_xp.io.options import ReadOptions
    from gru_xp.io.read import read_table

    options = ReadOptions(**reading)
    file, bundled = open_file(csv, quiet=quiet)
    table = read_table(file, options, file.name if bundled else None)
    found = inspect_table(table, target, features, options)
    command = _command(csv, found, features)
    if as_json:
        print_json({"file": csv, **asdict(found), "command": command})
    else:
        _print(found, command)


def _command(csv: str, found: "Inspection", features: "Sequence[str] | str") -> str | None:
    """The command line that trains on the file; None where none is known."""
    if found.options is None or found.target is None:
        return None
    words = ["gru-xp", "train", csv]
    if not found.is_default_target:
        words += ["--target", found.target]
    for name in [features] if isinstance(features, str) else features:
        words += ["--feature", name]
    return shlex.join(words + as_arguments(found.options))


def _print(found: "Inspection", command: str | None) -> None:
    title = f"{found.name}: {found.rows:,} row(s), {len(found.columns)} column(s)"
    rows = [_row(column) for column in found.columns[:_MOST_COLUMNS]]
    print_table(title, ("column", "kind", "missing", "min", "max"), rows, left=2)
    if len(found.columns) > _MOST_COLUMNS:
        click.echo(f"and {len(found.columns) - _MOST_COLUMNS} more columns; --json has all of them\n")
    notices = [("notice", text) for text in found.notices]
    _print_facts(
        [*_facts(found), *([] if found.problems else notices), *(("problem", text) for text in found.problems)]
    )
    if command is None:
        click.echo("\nNo command is known that would train on it; see the problems.")
        return
    click.echo(f"\nTo train on it:\n  {command}")
    if found.problems and notices:
        click.echo("\nNotices of this command:")
        _print_facts(notices)


def _print_facts(facts: "Sequence[tuple[str, str]]") -> None:
    from gru_xp.errors import printable

    for name, text in facts:
        said = textwrap.fill(printable(text, None), _WIDTH - 12, break_on_hyphens=False).splitlines() or [""]
        for number, line in enumerate(said):
            click.echo(f"{'' if number else name:12}{line}")


def _row(column: "ColumnFacts") -> tuple[str, ...]:
    from gru_xp.errors import printable

    ends = ("" if number is None else _number(number) for number in (column.min, column.max))
    return printable(column.name, _LONGEST_NAME), column.kind, f"{column.missing:,}", *ends


def _number(number: float) -> str:
    return f"{number:,.0f}" if number.is_integer() and abs(number) < 1e12 else number_text(number)


def _facts(found: "Inspection") -> list[tuple[str, str]]:
    """What is found in all columns together, each with its name."""
    from gru_xp.io.messages import listed

    time = "unknown" if found.target is None else "no column dates the rows"
    if found.time:
        time = f"{listed(found.time)}: {found.first} to {found.last}, {found.order}"
    gaps = f"{found.gaps:,} row(s) missing, first {found.first_gap}" if found.gaps else "no gaps"
    spacing = "unknown" if found.freq is None else f"{found.freq}, {gaps}"
    if found.breaks is not None:
        spacing = f"not usual: {found.breaks[0]} and {found.breaks[1]} break it"
    season = "unknown" if found.target is None else seasons_text(found.seasons)
    suspicious = [f"{c.name} ({c.suspicious:g})" for c in found.columns if c.suspicious is not None]
    duplicates = "none" if found.time else "unknown"
    return [
        ("time", time),
        ("spacing", spacing),
        ("duplicates", f"{found.duplicates:,} row(s) repeat a time" if found.duplicates else duplicates),
        ("missing", _several([f"{c.name} ({c.missing:,})" for c in found.columns if c.missing])),
        ("constant", _several([c.name for c in found.columns if c.constant])),
        ("suspicious", _several(suspicious)),
        ("season", season),
        *(("unreadable", c.problem) for c in found.columns if c.problem and c.problem not in found.problems),
    ]


def _several(texts: "Sequence[str]") -> str:
    from gru_xp.io.messages import listed

    return listed(texts) or "none"
