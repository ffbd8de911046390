import ast

import click
import pytest
from click.testing import CliRunner

from gru_xp.cli.reading import reading_options


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--decimal", ";"), "';' is not one of '.', ','"),
        (("--missing", "pad"), "'pad' is not one of 'refuse', 'drop', 'ffill', 'interpolate', 'mask'"),
        (("--on-duplicate", "median"), "'median' is not one of 'first', 'last', 'mean'"),
        (("--date-format", "%d/%m"), "date_format is '%d/%m', which has no year"),
        (("--encoding", "latin-99"), "encoding is 'latin-99', which is not known"),
    ],
)
def test_wrong_usage(arguments, message):
    code, out = run(*arguments)
    assert code == 2
    assert message in out
