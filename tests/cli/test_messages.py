import numpy as np
import pytest

from gru_xp import cli
from gru_xp.forecasting.evaluation import EvaluatedPart
from gru_xp.forecasting.metrics import compare_with_naive

pytestmark = pytest.mark.compat

messages = cli.messages


@pytest.fixture
def part():
    """``part(name, model, naive)``: with errors of that size."""

    def part(name, model, naive):
        y_true = np.zeros(4)
        metrics = compare_with_naive(y_true, y_true + model, y_true + naive, 2.0)
        return EvaluatedPart(name, range(10, 14), y_true, y_true + model, metrics)

    return part


def test_notes_go_to_stderr(capsys):
    messages.note("once")
    messages.note("never", quiet=True)
    assert capsys.readouterr() == ("", "once\n")


def test_json(capsys):
    messages.print_json({"a": [1, None]})
    assert capsys.readouterr() == ('{\n  "a": [\n    1,\n    null\n  ]\n}\n', "")


def test_parts_stand_beside_the_naive_forecast(capsys, part):
    messages.print_parts("Some title", [part("train", 1.0, 2.0), part("test", 3.0, 2.0)])
    out, err = capsys.readouterr()
    title, _, _, *rows = [line.split() for line in out.splitlines() if line.strip()]
    assert title == ["Some", "title"]
    assert rows == [
        ["train", "GRU", "4", "1", "1", "1", "0.25", "+50.0%"],
        ["naive", "4", "2", "2", "4", "1"],
        ["test", "GRU", "4", "3", "3", "9", "2.25", "-50.0%"],
        ["naive", "4", "2", "2", "4", "1"],
    ]
    assert err == ""


def test_skill_against_a_perfect_forecast_is_not_available(capsys, part):
    messages.print_parts("t", [part("test", 1.0, 0.0)])
    row = next(line for line in capsys.readouterr().out.splitlines() if "GRU" in line)
    assert row.split()[-1] == "n/a"


def test_names_are_shown_as_they_are(capsys):
    messages.print_table("[bold]t :bug:", ("[red]a",), [("[link]b :bug: and some more words",)], left=1)
    out = capsys.readouterr().out
    assert "[red]a" in out
    assert "[link]b :bug:" in out
    assert "[bold]t :bug:" in out


def test_a_table_in_a_pipe_is_not_wrapped(capsys, monkeypatch):
    for columns, length in (("30", 5), ("30", 60), ("80", 5), ("80", 60)):
        monkeypatch.setenv("COLUMNS", columns)
        title, cell = "title " * length, "cell " * length
        messages.print_table(title, ("name", "number"), [(cell, "1"), ("b", "1000")], left=1)
        lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
        assert lines[0] == title.strip()
        assert lines[3].split() == [*cell.split(), "1"]
        assert lines[4].split() == ["b", "1000"]
        assert len(lines[3]) == len(lines[4])  # numbers are flush right
        assert "\x1b" not in "".join(lines)
