import ast

import click
import pytest
from click.testing import CliRunner

from gru_xp.cli.reading import reading_options

pytestmark = pytest.mark.compat


@click.command()
@reading_options
def show(reading):
    click.echo(repr(reading))


def run(*arguments):
    result = CliRunner().invoke(show, arguments)
    return result.exit_code, result.output


def test_only_what_was_given():
    assert run() == (0, "{}\n")
    code, out = run("--decimal", ",", "--missing", "refuse", "--on-duplicate", "mean")
    assert (code, ast.literal_eval(out)) == (0, {"decimal": ",", "on_duplicate": "mean", "missing": "refuse"})
    code, out = run("--date-format", "%d/%m/%Y", "--encoding", "cp1252")
    assert (code, ast.literal_eval(out)) == (0, {"date_format": "%d/%m/%Y", "encoding": "cp1252"})


def test_wrong_usage():
    for option, value, names in (
        ("--decimal", ";", ("'.', ','",)),
        ("--missing", "pad", ("'refuse', 'drop', 'ffill', 'interpolate', 'mask'",)),
        ("--on-duplicate", "median", ("'first', 'last', 'mean'",)),
        ("--date-format", "%d/%m", ("date_format", "year")),
        ("--encoding", "latin-99", ("encoding",)),
    ):
        code, out = run(option, value)
        assert code == 2, option
        assert all(name in out for name in (f"'{value}'", *names)), (option, out)
