"""Which values a forecast is due to, as the command says it."""

import csv
import json

import numpy as np
import pytest

pytestmark = pytest.mark.compat


def test_the_contributions_lead_to_the_forecast(app, deep, tmp_path):
    outcome = app("explain", deep.folder, "--json", "--quiet", "--out", "all.csv")
    assert (outcome.code, outcome.err) == (0, "")
    document = json.loads(outcome.out)
    assert (document["file"], document["target"], document["horizon"]) == ("sunspots.csv", "Sunspots", 1)
    forecast = json.loads(app("forecast", deep.folder, "--json").out)[0]["Sunspots"]
    assert document["forecast"] == pytest.approx(forecast)
    contributions = [row["attributions"]["Sunspots"] for row in document["rows"]]
    assert document["baseline_forecast"] + sum(contributions) == pytest.approx(forecast, rel=1e-5)
    assert abs(document["completeness_error"]) < 1e-5 * forecast
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["attribution"]) for row in rows] == contributions
    assert rows[-1]["ds"].startswith(document["rows"][-1]["date"])

    words = app("explain", deep.folder).out.split()
    assert words[0] == "sunspots.csv,"
    assert {"2008", "contribution", "all", "Completeness:"} <= set(words)


def test_columns_of_their_own(app, quick, tmp_path, rng):
    lines = ["Day,Price,Sales", *(f"{row},{rng.normal():.3f},{9 + rng.normal():.3f}" for row in range(60))]
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = ("--target", "Sales", "--features", "Price", "--horizon", 2)
    assert app("train", "own.csv", *columns, *quick, "--seq-length", 5, "--no-guard", "--out", "run").code == 0
    document = json.loads(app("explain", "run", "--step", 2, "--json", "--quiet").out)
    assert (document["step"], document["horizon"], len(document["rows"])) == (2, 2, 5)
    attributions = [row["attributions"] for row in document["rows"]]
    assert all(list(row) == ["Sales", "Price"] for row in attributions)
    assert np.abs([row["Price"] for row in attributions]).max() > 0


def test_a_heat_map_is_written(app, deep, tmp_path):
    outcome = app("explain", deep.folder, "--out", "why.SVG")
    assert outcome.code == 0, outcome.err
    assert "written to why.SVG" in outcome.err
    assert b"<svg" in (tmp_path / "why.SVG").read_bytes()


def test_what_cannot_be_explained_or_written(app, goog, deep, write_csv):
    app("explain", goog.folder, "--quiet").assert_refused("nothing to explain", "--no-guard")
    app("explain", deep.folder, "--step", 2, "--quiet").assert_refused("step is 2", "at most 1")
    app("explain", deep.folder, "--out", "no/why.png", "--quiet").assert_refused("no/why.png", "no folder")
    own = write_csv()
    app("explain", deep.folder, own, "--out", own, "--quiet").assert_refused("own.csv", "overwritten")
    app("explain", "own.csv", "--quiet").assert_refused("own.csv")
    app("explain", deep.folder, "--out", own.with_name("run.csv"), "--quiet")
    app("explain", deep.folder, "--out", "run.csv", "--quiet").assert_refused("run.csv", "--overwrite")
    assert app("explain", deep.folder, "--out", "run.csv", "--overwrite").code == 0
    for given in (("--out", "why.gif"), ("--step", "0")):
        outcome = app("explain", deep.folder, *given)
        assert (outcome.code, outcome.out) == (2, "")
        assert given[1] in outcome.err
