"""``accuracy``: the series, what is kept of a run, and what the tables say; no other library is installed for it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import tables
from benchmarks.__main__ import benchmarks
from benchmarks.accuracy import command, measurements, own, peers
from benchmarks.accuracy.environments import PACKAGES, PEERS
from benchmarks.accuracy.measurements import Measurement, job_of, mase, measure
from benchmarks.accuracy.series import BUNDLED, SOURCES, Series, Source, load
from gru_xp.forecasting.baselines import needs_no_training

SOURCE = Source(
    "tides", "some-package", "some/tides.csv", "level", "h", 24, 5, True, where={"port": "Brest"}, time="at"
)


@pytest.fixture
def series(rng: np.random.Generator) -> Series:
    values = np.resize([3.0, 8.0, 5.0], 61) + rng.standard_normal(61)
    return Series(Source("tides", "some-package", "", "level", "MS", 3, 4, False), values)


def test_rows_are_put_on_the_grid_of_their_times(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    rows = ["at,port,level", "2024-03-01 04:00,Brest,7.5", "2024-03-01 01:00,Brest,3", "2024-03-01 02:00,Ostend,-9"]
    rows += ["2024-03-01 01:00,Brest,99", "2024-03-01 05:00,Brest,", "2024-03-01 06:00,Brest,9.5"]
    (tmp_path / SOURCE.file).write_text("\n".join(rows), encoding="utf-8")
    np.testing.assert_allclose(load(SOURCE, tmp_path, tmp_path).values, [3, 4.5, 6, 7.5, 8.5, 9.5])


def test_the_series_of_the_repository() -> None:
    bundled = [source for source in SOURCES if source.package == BUNDLED]
    values = load(bundled[0], Path("nowhere"), command.ROOT / "data").values
    assert values.size > 1000
    assert np.isfinite(values).all()
    assert len({source.name for source in SOURCES}) == len(SOURCES) >= 12
    assert {source.package for source in SOURCES} == {BUNDLED, *PACKAGES}


def test_origins_and_mase(series: Series) -> None:
    losses = pytest.importorskip("utilsforecast.losses")
    import pandas as pd

    assert series.origins.tolist() == [48, 52, 56]
    naive = own.naive_forecasts(job_of(series, 0))
    last = np.stack([series.values[[origin - 3, origin - 2, origin - 1, origin - 3]] for origin in series.origins])
    np.testing.assert_array_equal(naive["seasonal naive"], last)
    frame = pd.DataFrame({"unique_id": 0, "y": series.actual.ravel(), "naive": last.ravel()})
    train = pd.DataFrame({"unique_id": 0, "y": series.values[:48]})
    expected = losses.mase(frame, ["naive"], seasonality=3, train_df=train)["naive"].item()
    assert mase(series, last) == pytest.approx(expected, rel=1e-12)


def test_hours_have_naive_forecasts_of_a_day_and_a_week(rng: np.random.Generator) -> None:
    hours = Series(Source("loads", "some-package", "", "load", "h", 24, 30, False), rng.standard_normal(900))
    naive = own.naive_forecasts(job_of(hours, 0))
    assert all(map(needs_no_training, naive))
    for name, season in (("seasonal naive (24)", 24), ("seasonal naive (168)", 168)):
        back = np.arange(30) % season - season
        np.testing.assert_array_equal(naive[name], hours.values[hours.origins[:, None] + back])
    best = mase(hours, naive["seasonal naive (168)"])
    found = {("loads", "gru-xp"): [Measurement(best, 2.0, 0.1, {})] * 3}
    assert [row["same_as"] for row in command.rows_of(hours, found) if "same_as" in row] == ["seasonal naive (168)"]


def test_a_job_survives_its_file_and_its_model_is_timed(series: Series, tmp_path: Path) -> None:
    job_file, result = str(tmp_path / "job.npz"), str(tmp_path / "result.npz")
    job = job_of(series, 7)
    peers.write_job(job_file, job)
    seen = []

    def model(job: peers.Job) -> peers.Forecast:
        seen.append(job)
        return lambda: np.full((3, job.horizon), 2.5)

    peers.run({"constant": model}, ["constant", job_file, result])
    assert vars(seen[0]).keys() == vars(job).keys()
    assert (seen[0].seed, seen[0].freq, seen[0].season, seen[0].learned) == (7, "MS", 3, 48)
    np.testing.assert_array_equal(seen[0].values, series.values)
    with np.load(result) as kept:
        assert (kept["y_pred"] == 2.5).all()
        assert kept["fit_seconds"] >= 0
        assert json.loads(str(kept["versions"])).keys() >= {"python", "numpy"}


def test_a_finished_result_is_kept_until_settings_change(
    series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = iter([Measurement(0.5, 1.0, 0.1, {"numpy": "9"}), Measurement(0.25, 1.0, 0.1, {})])
    monkeypatch.setattr(measurements, "_run", lambda *_: next(results))
    assert measure("AutoTheta", series, 0, tmp_path, run_missing=False) is None
    first = measure("AutoTheta", series, 0, tmp_path)
    assert measure("AutoTheta", series, 0, tmp_path) == first == Measurement(0.5, 1.0, 0.1, {"numpy": "9"})
    monkeypatch.setitem(PEERS, "AutoTheta", PEERS["GRU (darts)"])
    second = measure("AutoTheta", series, 0, tmp_path)
    assert second is not None
    assert second.mase == 0.25


def test_the_error_of_a_process_is_the_result(series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        lines = "Traceback (most recent call last):\n  File x\nValueError: too few rows\n"
        return subprocess.CompletedProcess(arguments, 1, "", lines)

    monkeypatch.setattr(measurements, "prepare", lambda *_: tmp_path / "python")
    monkeypatch.setattr(subprocess, "run", fail)
    found = measure("AutoTheta", series, 0, tmp_path)
    assert found is not None
    assert (found.mase, found.problem) == (None, "ValueError: too few rows")


def results_of(series: Series, ours: float) -> dict[tuple[str, str], list[Measurement]]:
    """By model; MASE is relative to that of the best naive forecast."""
    best = min(mase(series, y_pred) for y_pred in own.naive_forecasts(job_of(series, 0)).values())
    errors = {"gru-xp": (ours, ours + 0.2), command.DLINEAR: (0.89,), "GRU (darts)": (1.5,), "AutoTheta": (1.0,)}
    found = {name: [Measurement(best * one, 2.0, 0.1, {"a": "1"}) for one in given] for name, given in errors.items()}
    found["GRU (neuralforecast)"] = [Measurement(None, None, None, {}, "ValueError: too few rows")]
    return {(series.source.name, name): measured for name, measured in found.items()}


def test_skill_is_against_the_best_naive_forecast(series: Series) -> None:
    rows = command.rows_of(series, results_of(series, 0.8))
    skills = {row["model"]: row["skill"] for row in rows if "skill" in row}
    assert max(skill for name, skill in skills.items() if needs_no_training(name)) == 0
    assert skills["gru-xp"] == pytest.approx(0.1)
    header, cells = tables.accuracy_table(rows)  # no means, as one model failed
    shown = dict(zip(header, cells, strict=True))
    assert shown["series"] == "tides *"
    assert shown[command.DLINEAR].startswith("**")
    assert "±" in shown["gru-xp"]
    assert shown["GRU (neuralforecast)"] == tables.NONE
    *_, ratios, seconds = tables.accuracy_table([row for row in rows if row["problem"] is None])
    assert ratios[-4:] == ("0.900", "0.890", "1.500", "1.000")
    assert set(seconds[-4:]) == {"2.0"}


@pytest.mark.parametrize(("ours", "dlinear", "worse"), [(0.805, 1, 0), (0.84, 0, 0), (0.95, 0, 1)])
def test_what_is_counted(
    series: Series, monkeypatch: pytest.MonkeyPatch, ours: float, dlinear: int, worse: int
) -> None:
    monkeypatch.setattr(command, "MANY_WINDOWS", 3)
    summary = command.summary_of(command.rows_of(series, results_of(series, ours)))
    assert summary["no_worse_than_dlinear"] == {"series": 1, "count": dlinear}
    assert summary["no_worse_than_naive"] == {"series": 1, "count": 1 - worse, "worse": ["tides"] * worse}
    assert summary["best_gru"]["series"] == 0  # one of the others failed
    assert summary["models"]["AutoTheta"]["by_best_naive"] == pytest.approx(1)
    assert len(list(command.sentences(summary))) == 2


def test_the_command_shows_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series/complete").touch()
    file = tmp_path / "accuracy.json"
    options = ["accuracy", "--work", str(tmp_path), "--series", "share price GOOG", "--finished", "--json", str(file)]
    done = CliRunner().invoke(benchmarks, options)
    assert done.exit_code == 0, done.output
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert {row["model"]: round(row["mase"], 3) for row in rows}["last value"] == 2.164
    below_a_file = CliRunner().invoke(benchmarks, ["accuracy", "--work", str(file / "work")])
    assert (below_a_file.exit_code, type(below_a_file.exception)) == (1, SystemExit)
    assert "work cannot be made" in below_a_file.output
