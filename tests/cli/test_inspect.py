"""What ``gru-xp inspect`` says of files, and that the command it ends with works."""

import json
import shlex
from datetime import datetime, timedelta
from pathlib import Path

import pytest

pytestmark = pytest.mark.compat

QUICK = ("--hidden-size", "2", "--num-epochs", "1", "--device", "cpu", "--out", "run", "--overwrite")


def write(header, *columns, sep=","):
    """Write a file ``own.csv`` of some columns."""
    lines = [header, *(sep.join(map(str, row)) for row in zip(*columns, strict=True))]
    Path("own.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def days(rows, first="2024-01-01"):
    return [str((datetime.fromisoformat(first) + timedelta(row)).date()) for row in range(rows)]


def sales(rows):
    return [100 + row % 7 for row in range(rows)]


@pytest.fixture
def inspect(app):
    """``inspect(*options)``: what is found in ``own.csv``, as JSON."""

    def inspect(*options):
        outcome = app("inspect", "own.csv", *options, "--json")
        assert (outcome.code, outcome.err) == (0, "")
        return json.loads(outcome.out)

    return inspect


TEXT = """\
own.csv: 60 row(s), 4 column(s)

 column   kind      missing    min   max
 ───────────────────────────────────────
 Date     time            0
 Open     boolean         0      0     1
 Sales    number          2   -999   106
 Store    text            0

time        Date: 2024-01-01 to 2024-03-01, newest-first
spacing     D, 1 row(s) missing, first 2024-02-10
duplicates  none
missing     Sales (2)
constant    Store
suspicious  Sales (-999)
season      13 rows
problem     own.csv, line 12, column Sales: the value is missing, the first of 2
            missing values; fill it in, or give --missing drop or ffill or
            interpolate or mask

To train on it:
  gru-xp train own.csv --missing ffill

Notices of this command:
notice      column Sales: -999 is far outside of the other values and repeats 2
            times; if it marks missing values, give --missing-values -999
notice      rows are newest-first; reversed to chronological order
notice      1 day missing, first 2024-02-10; the rows are taken as if they were
            adjacent
notice      2 missing values, the first in line 12, column Sales: filled with
            the last value before
"""


def test_text(app):
    dates, values = days(61), sales(61)
    del dates[40], values[40]
    values[20] = values[33] = -999
    values[45] = values[49] = ""
    flags = [str(row % 5 < 2).lower() for row in range(60)]
    write("Date,Open,Sales,Store", dates[::-1], flags, values[::-1], ["north"] * 60)
    outcome = app("inspect", "own.csv")
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.rstrip() for line in outcome.out.splitlines()]
    assert lines == TEXT.splitlines()
    assert max(map(len, lines)) <= 80
    lines = app("inspect", "own.csv", "--missing", "ffill").out.splitlines()
    assert sum(line.startswith("notice ") for line in lines[: lines.index("To train on it:")]) == 4
    assert lines[-1] == "  gru-xp train own.csv --missing ffill"
    hours = [str(datetime(2024, 1, 1) + timedelta(hours=hour)) for hour in range(600)]
    write("Time,Load", hours, [hour % 24 + (9 if hour % 168 > 119 else hour % 5) for hour in range(600)])
    assert "season      24 rows and 168 rows\n" in app("inspect", "own.csv").out


def test_json(inspect):
    write("Date,Sales,Two", days(60), sales(60), [2] * 60)
    found = inspect("--target", "sales", "--feature", "Sales")
    assert found["columns"][1:] == [
        {
            "name": name,
            "kind": "number",
            "missing": 0,
            "min": least,
            "max": most,
            "constant": least == most,
            "suspicious": None,
            "problem": None,
        }
        for name, least, most in (("Sales", 100, 106), ("Two", 2, 2))
    ]
    options = found.pop("options")
    assert options["missing"] == "refuse"
    del found["columns"]
    assert found == {
        "file": "own.csv",
        "name": "own.csv",
        "rows": 60,
        "time": ["Date"],
        "first": "2024-01-01",
        "last": "2024-02-29",
        "order": "oldest-first",
        "freq": "D",
        "breaks": None,
        "gaps": 0,
        "first_gap": None,
        "duplicates": 0,
        "seasons": [7],
        "target": "Sales",
        "is_default_target": False,
        "notices": [],
        "problems": [],
        "command": "gru-xp train own.csv --target Sales --feature Sales",
    }


def test_bundled_files_and_stdin(app):
    outcome = app("inspect", "GOOG")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == "  gru-xp train GOOG"
    assert "bundled GOOG.csv" in outcome.err
    app("inspect", "nowhere.csv").assert_refused("nowhere.csv: no such file")


WORKING = {
    "one column of numbers": ("value", sales(60)),
    "several, no Close": ("Date,A,B", days(60), sales(60), [row % 5 for row in range(60)]),
    "names to be quoted": ("Date,'A' $(x),B", days(60), sales(60), [1] * 60),
    "missing": ("Date,A", days(60), ["", *sales(59)]),
    "a mark": ("Date,A", days(60), ["?" if row == 9 else row % 7 for row in range(60)]),
    "several series": ("Date,shop,A", days(60) * 2, ["a b"] * 60 + ["c"] * 60, sales(120)),
    "two keys": (
        "Date,shop,item,A",
        days(60) * 4,
        [row // 120 for row in range(240)],
        [row // 60 % 2 for row in range(240)],
        sales(240),
    ),
    "series without dates": ("shop,week,A", ["a"] * 60 + ["b"] * 60, [*range(1, 61)] * 2, sales(120)),
    "hours apart": ("Date,Hour,A", [day for day in days(4) for _ in range(24)], [*range(24)] * 4, sales(96)),
    "duplicates": ("Date,A", [*days(60), "2024-01-02"], sales(61)),
    "hours apart, marks": (
        "Date,Time,A",
        [day for day in days(4) for _ in range(24)],
        [f"{hour:02d}.00.00" for hour in range(24)] * 4,
        ["?", *sales(95)],
    ),
    "decimal commas": ("Date,A", days(60), [f'"{row % 7},5"' for row in range(60)]),
    "no column of time": ("A,B", sales(60), [1] * 60),
    "a counter": ("time,A", range(60), sales(60)),
    "years of two digits": ("Date,A", [f"{m}-{y}" for y in range(20, 50) for m in ("Jan", "Jul")], sales(60)),
    "digits alone": ("Date,A", [f"{day[8:]}{day[5:7]}{day[:4]}" for day in days(60)], sales(60)),
}


@pytest.mark.parametrize("case", WORKING)
def test_the_command_works_when_it_is_pasted(app, inspect, case):
    write(*WORKING[case])
    found = inspect()
    program, *words = shlex.split(found["command"])
    assert program == "gru-xp"
    outcome = app(*words, *QUICK)
    assert outcome.code == 0, outcome.err
    target = json.loads(Path("run/metrics.json").read_text("utf-8"))["target"]
    assert (
        target
        == found["target"]
        == {"several, no Close": "B", "one column of numbers": "value"}.get(
            case, "'A' $(x)" if "quoted" in case else "A"
        )
    )


def test_options_that_are_given_are_those_of_the_command(app, inspect):
    dates = [f"{day:%m/%d/%Y}" for day in map(datetime.fromisoformat, days(60))]
    write("Datum;A;B;C", dates, sales(60), [f"{row % 5},5" for row in range(60)], ["x y"] * 60, sep=";")
    options = ["--time-column", "Datum", "--where", "C=x y", "--missing-values", "?,-200"]
    options += ["--decimal", ",", "--date-format", "%m/%d/%Y"]
    found = inspect("--target", "A", "--features", "B", *options)
    train, *given = found["command"].partition(" --time-column")
    assert train == "gru-xp train own.csv --target A --feature B"
    assert shlex.split("".join(given)) == options
    assert found["time"] == ["Datum"]
    assert app(*shlex.split(found["command"])[1:], *QUICK).code == 0


def test_what_cannot_be_trained_on_is_described(app, inspect):
    for columns, unknown, said in (
        (("Date,A", [f"01/{day:02d}/2024" for day in range(1, 13)], range(12)), "order", "--date-format %d/%m/%Y"),
        (("Date,A", days(2), range(2)), "seasons", "too few"),
        (("Date,A", days(60), [3] * 60), "seasons", "is constant"),
        (("id,1/1/20,2/1/20,3/1/20", range(60), *[sales(60)] * 3), "order", "one series a row"),
        (("Date,A", days(60), ["x"] * 60), "seasons", "no numeric column"),
        (("Date,A", days(60), ['"1,234"'] * 60), "seasons", "--decimal"),
        *(((f"{name},A", range(99, 39, -1), sales(60)), "target", "falls") for name in ("x", "id", "Unnamed: 0", "")),
    ):
        write(*columns)
        found = inspect()
        assert found["command"] is None, columns[0]
        assert found["rows"] == len(columns[1])
        assert any(said in problem for problem in found["problems"]), (said, found["problems"])
        assert not found[unknown]
        assert "No command is known" in app("inspect", "own.csv").out
    write("Date,shop,A", days(60) * 2, ["a"] * 60 + ["b"] * 60, sales(120))
    found = inspect("--id-column", "shop", "--freq", "W-MON")
    assert found["freq"] == "D"
    assert any("2 series in column shop" in problem for problem in found["problems"])
    assert any("does not fit --freq W-MON" in problem for problem in found["problems"])
    Path("own.csv").write_text("a,b\n1,2\n3\n5,6\n")
    app("inspect", "own.csv").assert_refused("own.csv, line 3")
    write("Date,A", days(60), sales(60))
    app("inspect", "own.csv", "--target", "B").assert_refused("there is no column 'B'")


def test_many_columns_fit(app):
    names = [f"column number {number} with a long name" for number in range(100)]
    write(",".join(["Date", *names]), days(60), *[[number + row % 9 for row in range(60)] for number in range(100)])
    out = app("inspect", "own.csv").out.rpartition("To train")[0]
    assert max(map(len, out.splitlines())) <= 80
    assert "and 61 more columns" in out
