import logging
import re

import numpy as np
import pytest

from gru_xp import cli
from gru_xp.forecasting.backtest import Backtest
from gru_xp.forecasting.evaluation import EvaluatedPart
from gru_xp.io.series import TimeSeries

pytestmark = pytest.mark.compat

messages = cli.messages


@pytest.fixture
def part():
    """``part(name, model, naive, horizon=1)``: with errors of that size; those of another baseline are larger."""

    def part(name, model, naive, horizon=1):
        series = TimeSeries(np.arange(14 + 4 * horizon)[:, None] % 2 * 4.0, ("a",))
        origins = 10 + horizon * np.arange(4)
        y_true = series.values[origins[:, None] + np.arange(horizon), 0]
        forecasts = {
            "GRU": y_true + model,
            "last value": y_true + naive,
            "seasonal naive": y_true - 1.5 * naive - 1,
        }
        metrics = Backtest(series, origins, horizon, forecasts, 10).metrics
        values = (y_true[:, 0], y_true[:, 0] + model, y_true[:, 0] + naive)
        return EvaluatedPart(name, range(10, 14), np.ones(4, dtype=np.int64), *values, metrics)

    return part


def test_notes_go_to_stderr(capsys):
    messages.note("once")
    messages.note("never", quiet=True)
    assert capsys.readouterr() == ("", "once\n")


def test_what_the_package_logs_for_users_goes_to_stderr(capsys):
    logger = logging.getLogger("gru_xp")
    before = logger.level, list(logger.handlers)
    for quiet in (False, True):
        with messages.log_as_notes(quiet=quiet):
            logger.info("one of %d", 3)
            logger.debug("for developers")
        assert capsys.readouterr().err == ("" if quiet else "one of 3\n")
    assert (logger.level, logger.handlers) == before


def test_json(capsys):
    messages.print_json({"a": [1, None]})
    assert capsys.readouterr() == ('{\n  "a": [\n    1,\n    null\n  ]\n}\n', "")


def test_parts_stand_beside_forecasts_that_need_no_training(capsys, part):
    """In the last part."""
    messages.print_accuracy(
        "Some title", {p.name: p.metrics for p in [part("train", 1.0, 2.0), part("test", 3.0, 2.0)]}
    )
    out, err = capsys.readouterr()
    title, header, _, *rows, mark, first, second = [line.split() for line in out.splitlines() if line.strip()]
    assert title == ["Some", "title"]
    assert header == ["part", "forecast", "windows", "MAE", "RMSE", "MASE", "skill"]
    assert rows == [
        ["train", "GRU", "4", "1.000", "1.000", "0.2500", "+50.0%~"],
        ["test", "GRU", "4", "3.000", "3.000", "0.7500", "-50.0%~"],
        ["last", "value", "2.000", "2.000", "0.5000", "best"],
        ["seasonal", "naive", "4.000", "4.000", "1.000"],
    ]
    assert mark[:3] == ["~", "not", "significant:"]  # errors that differ by the same everywhere cannot be tested
    assert "50.0%" in first
    assert "GRU" in second
    assert err == ""


def test_errors_by_step(capsys, part):
    for horizon, steps in ((2, [1, 2]), (7, [1, 2, 3, 5, 6, 7]), (48, [1, 10, 20, 29, 39, 48])):
        messages.print_parts("t", "a", [part("test", 1.0, 2.0, horizon)])
        lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
        (start,) = (row for row, line in enumerate(lines) if line[0] == "step")
        assert list(map(int, lines[start][1:])) == steps
        assert lines[start + 2] == ["GRU", *["1.000"] * len(steps)]
        assert lines[start + 5] == ["skill,", "GRU", *["+50.0%~"] * len(steps)]


def test_a_skill_is_marked_unless_it_is_significant(capsys, part):
    metrics = part("test", 1.0, 2.0, 2).metrics
    for p_values, marked in (([0.3, 0.01, 0.01], 0), ([0.01, 0.3, 0.01], 1), ([0.01] * 3, None)):
        tested = {"p_value": p_values[0], "p_value_by_step": p_values[1:], "p_values": {"GRU": p_values[0]}}
        messages.print_accuracy("t", {"test": metrics | tested})
        out = capsys.readouterr().out
        cells = [word for word in out.split() if word.startswith("+50.0%")]
        assert [cell == "+50.0%~" for cell in cells] == [number == marked for number in range(3)]
        assert ("\n~ " in out) == (marked is not None)
    for share in (-0.0004, 0.0, 0.0004):
        rounded = {"skill": share, "p_value": 0.3, "skill_by_step": [share] * 2, "p_value_by_step": [0.3] * 2}
        messages.print_accuracy("t", {"test": metrics | rounded})
        out = capsys.readouterr().out
        assert out.split().count("0.0%") == 3
        assert "~" not in out


def test_numbers_are_those_that_people_read():
    for number, text in (
        (29_067.3, "29,070"),
        (1_234_567.8, "1,235,000"),
        (999_950.0, "1,000,000"),
        (0.051734, "0.05173"),
        (12.345, "12.35"),
        (-1234.5, "-1,234"),
        (9.99996, "10.00"),
        (3.2e9, "3.2e+09"),
        (2.5e-7, "2.5e-07"),
        (0.0, "0"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ):
        assert messages.number_text(number) == text


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_of_large_numbers_fits(capsys, monkeypatch, part, width):
    """Each row of a terminal is a line, and no number is in two parts."""
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setenv("COLUMNS", str(width))
    messages.print_parts("a name " * 40, "a", [part(name, 9.87e8, 9.99e8) for name in ("train", "validation", "test")])
    title, *lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).partition("The GRU")[0].splitlines()
    assert len(title) > width
    assert max(len(line.rstrip()) for line in lines) <= width
    assert sum("987,000,000" in line for line in lines) == 3
    assert sum("999,000,000" in line for line in lines) == 1


def test_large_numbers_have_an_exponent_only_where_the_table_is_too_wide(capsys, monkeypatch, part):
    """Forty numbers in the first row, from 1e3 to 1e40, with ordinary ones below."""
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    wide, ordinary = part("validation", 1.0, 1.01), part("test", 3.0, 2.0)
    for width, most in ((80, 11), (120, 15)):
        monkeypatch.setenv("COLUMNS", str(width))
        for digits in range(1, 41):
            model = 1.359 * 10.0 ** (digits - 1)
            for name in ("mae", "rmse"):
                wide.metrics["models"]["GRU"][name] = model
            messages.print_parts("title", "a", [wide, ordinary])
            lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).partition("The GRU")[0].splitlines()
            assert max(len(line.rstrip()) for line in lines) <= width, (width, digits)
            row = next(line.split() for line in lines if "validation" in line)
            text = messages.number_text(model, most)
            assert row[3:5] == [text, text], (width, digits)
            assert ("e" in text) == (digits > most), (width, digits)


def test_skill_against_a_perfect_forecast_is_not_available(capsys, part):
    messages.print_parts("t", "a", [part("test", 1.0, 0.0)])
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
