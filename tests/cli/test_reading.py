import ast
from dataclasses import fields

import click
import pytest
from click.testing import CliRunner

from gru_xp.cli.reading import as_arguments, reading_options
from gru_xp.io.options import ReadOptions

pytestmark = pytest.mark.compat


@click.command()
@reading_options
def show(reading):
    click.echo(repr(reading))


def run(*arguments):
    result = CliRunner().invoke(show, arguments)
    return result.exit_code, result.output


GIVEN = {
    "time": ("Date", "Hour Ending"),
    "id": "store",
    "where": ("store=1", "item=a,b"),
    "order": "newest-first",
    "freq": "W-MON",
    "decimal": ",",
    "date_format": "%d/%m/%Y",
    "on_duplicate": "mean",
    "missing_values": ("?", "-200"),
    "missing": "mask",
    "encoding": "cp1252",
}


def test_only_what_was_given():
    assert run() == (0, "{}\n")
    for name, value in GIVEN.items():
        code, out = run(*as_arguments(ReadOptions(**{name: value})))
        assert (code, ast.literal_eval(out)) == (0, {name: value})
    code, out = run(*as_arguments(ReadOptions(**GIVEN)))
    assert (code, ast.literal_eval(out)) == (0, GIVEN)
    code, out = run("--missing", "refuse", "--missing-values", "?, -200", "--missing-values", "x")
    assert (code, ast.literal_eval(out)) == (0, {"missing": "refuse", "missing_values": ("?", "-200", "x")})


def test_the_options_are_those_of_reading():
    assert GIVEN.keys() == {field.name for field in fields(ReadOptions)}


def test_wrong_usage():
    for option, value, names in (
        ("--decimal", ";", ("'.', ','",)),
        ("--missing", "pad", ("'refuse', 'drop', 'ffill', 'interpolate', 'mask'",)),
        ("--on-duplicate", "median", ("'first', 'last', 'mean'",)),
        ("--order", "random", ("'oldest-first', 'newest-first'",)),
        ("--date-format", "%d/%m", ("date_format", "year")),
        ("--encoding", "latin-99", ("encoding",)),
        ("--freq", "often", ("freq", "pandas offset")),
        ("--where", "store", ("where", "COLUMN=VALUE")),
    ):
        code, out = run(option, value)
        assert code == 2, option
        assert all(name in out for name in (f"'{value}'", *names)), (option, out)
