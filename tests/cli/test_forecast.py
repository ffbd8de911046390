import csv
import io
import json

import pytest

from gru_xp.data import bundled_file
from gru_xp.forecasting import Forecaster
from gru_xp.io.read import read_series

pytestmark = pytest.mark.compat


def rows(outcome):
    assert outcome.code == 0, outcome.err
    return list(csv.reader(io.StringIO(outcome.out)))


def expected(run, file, steps, target=None, features=()):
    """The forecast without the app."""
    forecaster = Forecaster.load(run.folder / "model.safetensors", device="cpu")
    return forecaster.forecast(read_series(bundled_file(file), target=target, features=features), steps).tolist()


def test_trading_days_go_on_after_the_weekend(app, goog):
    outcome = app("forecast", goog.folder, "--steps", 6, "--quiet")
    header, *values = rows(outcome)
    assert header == ["step", "date", "Close"]
    assert [row[0] for row in values] == ["1", "2", "3", "4", "5", "6"]
    assert [row[1] for row in values] == [f"2013-03-{day:02d}" for day in (4, 5, 6, 7, 8, 11)]
    assert [float(row[2]) for row in values] == expected(goog, "GOOG.csv", 6)
    assert outcome.err == ""


def test_intervals(app, write_csv, quick, tmp_path):
    """Beside the forecast, in the run's predictions, and measured in its table."""
    path = write_csv(rows=60)
    outcome = app("train", path, *quick, "--loss", "gaussian", "--out", "run")
    assert outcome.code == 0, outcome.err
    (title,) = (line.split() for line in outcome.out.splitlines() if "MASE" in line)
    assert title[-3:] == ["pinball", "in", "95%"]
    run = tmp_path / "run"
    names = ["GRU-lo-95", "GRU-lo-80", "GRU-median", "GRU-hi-80", "GRU-hi-95"]
    header, *values = rows(app("forecast", "run", "--steps", 3))
    assert header[3:] == names
    expected = Forecaster.load(run / "model.safetensors", device="cpu").forecast_distribution(read_series(path), 3)
    assert [list(map(float, row[2:])) for row in values] == expected.to_numpy().tolist()
    for number, step in enumerate(json.loads(app("forecast", "run", "--steps", 3, "--json").out)):
        assert [step[name] for name in names] == expected[names].iloc[number].tolist()
    with (run / "predictions.csv").open(encoding="utf-8") as file:
        predicted = list(csv.DictReader(file))
    assert all(float(row["GRU-lo-95"]) < float(row["predicted"]) < float(row["GRU-hi-80"]) for row in predicted)


def test_years_go_on(app, sunspots):
    header, *values = rows(app("forecast", sunspots.folder, "--steps", 3))
    assert header == ["step", "date", "Sunspots"]
    assert [row[1] for row in values] == ["2009", "2010", "2011"]
    assert [float(row[2]) for row in values] == expected(sunspots, "sunspots.csv", 3)


def test_several_layers_in_both_directions(app, deep, sunspots):
    values = [float(row[2]) for row in rows(app("forecast", deep.folder, "--steps", 4))[1:]]
    assert values == expected(deep, "sunspots.csv", 4)
    assert len(set(values)) == 4
    assert values != expected(sunspots, "sunspots.csv", 4)


def test_one_step_is_the_default(app, goog):
    assert len(rows(app("forecast", goog.folder))) == 2


def test_json(app, goog):
    outcome = app("forecast", goog.folder, "--steps", 2, "--json", "--quiet")
    first, second = expected(goog, "GOOG.csv", 2)
    assert json.loads(outcome.out) == [
        {"step": 1, "date": "2013-03-04", "Close": first},
        {"step": 2, "date": "2013-03-05", "Close": second},
    ]
    assert outcome.err == ""


def test_after_another_file(app, goog):
    _, value = rows(app("forecast", goog.folder, "IBM.csv"))
    assert value[1] == "2013-03-04"
    assert float(value[2]) == expected(goog, "IBM.csv", 1)[0]


def test_another_column(app, goog):
    header, value = rows(app("forecast", goog.folder, "--target", "Open"))
    assert header == ["step", "date", "Open"]
    assert float(value[2]) == expected(goog, "GOOG.csv", 1, "Open")[0]


def test_dates_without_a_rule_are_left_empty(app, goog, tmp_path):
    lines = [f"20{row:02d}-0{1 + row % 9}-{1 + row % 5:02d},{row % 4}" for row in range(30)]
    (tmp_path / "own.csv").write_text("\n".join(["Date,Close", *lines]))
    _, *values = rows(app("forecast", goog.folder, "own.csv", "--steps", 2))
    assert [row[1] for row in values] == ["", ""]
    outcome = app("forecast", goog.folder, "own.csv", "--json", "--quiet")
    assert json.loads(outcome.out)[0]["date"] is None


def test_hours_have_leading_zeros_where_the_rows_have(app, goog, tmp_path):
    hours = [f"1/27/2020 {row % 12 or 12}:00 {'AP'[row // 12]}M" for row in range(24)]
    for size, following in ((12, "1/27/2020 12:00 PM"), (13, "1/27/2020 1:00 PM"), (24, "1/28/2020 12:00 AM")):
        lines = [f"{label},{row % 4}" for row, label in enumerate(hours[:size])]
        (tmp_path / "own.csv").write_text("\n".join(["Date,Close", *lines]))
        assert rows(app("forecast", goog.folder, "own.csv"))[1][1] == following


def test_a_file_without_dates(app, goog, tmp_path):
    (tmp_path / "own.csv").write_text("\n".join(["Close", *(str(row % 4) for row in range(30))]))
    _, value = rows(app("forecast", goog.folder, "own.csv"))
    assert value[1] == ""


def test_features_stay_at_their_last_value(app, featured):
    outcome = app("forecast", featured.folder, "--steps", 3)
    assert len(rows(outcome)) == 4
    names = "High, Low, Adj Close"
    assert names in outcome.err
    assert names not in app("forecast", featured.folder).err
    assert app("forecast", featured.folder, "--steps", 3, "--quiet").err == ""


def test_a_file_that_has_grown_goes_on_from_its_end(app, write_csv, quick):
    write_csv()
    assert app("train", "own.csv", *quick, "--out", "run").code == 0
    write_csv(rows=61)
    outcome = app("forecast", "run", "own.csv", "--quiet")
    assert outcome.err == ""
    assert rows(outcome)[1][1] == "1961"
    outcome = app("forecast", "run", "--quiet")
    assert outcome.err.startswith("warning: own.csv has changed")
    assert rows(outcome)[1][1] == "1960"


def test_steps_that_are_none(app, goog):
    for steps in ("0", "-1", "many"):
        outcome = app("forecast", goog.folder, "--steps", steps)
        assert outcome.code == 2
        assert "--steps" in outcome.err


def test_too_few_rows(app, goog, write_csv):
    rows = Forecaster.load(goog.folder / "model.safetensors", device="cpu").window_length
    write_csv(rows=rows - 1)
    app("forecast", goog.folder, "own.csv", "--target", "Value", "--quiet").assert_refused(
        f"{rows - 1} rows are too few"
    )
    write_csv(rows=rows)  # a forecast wants one window and no target
    assert app("forecast", goog.folder, "own.csv", "--target", "Value").code == 0
