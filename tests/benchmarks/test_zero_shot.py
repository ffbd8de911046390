"""``zero-shot``: the sets, the errors, and what the command and the table say; no other library is installed for it."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks import tables
from benchmarks.__main__ import benchmarks
from benchmarks.accuracy.series import Series, Source
from benchmarks.zero_shot import command, own, peers, processes, times
from benchmarks.zero_shot.peers import Floats, Windows
from benchmarks.zero_shot.sets import ForecastSet, SetFile, parse_set, public_set, read_set
from gru_xp.pretrained.network import init_zero_shot_params
from gru_xp.pretrained.weights import save_weights

QUARTERS = SetFile(Path("quarters.csv"), 3, (4,), "QS")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(path, init_zero_shot_params(hidden_size=4, xp=np, dtype=np.float32, seed=3))
    return path


def write_long(path: Path, rng: np.random.Generator) -> list[Floats]:
    """Rows of two series that take turns, a third that is constant, and a fourth that is too short."""
    series = [np.round(rng.uniform(5, 9, size), 3) for size in (15, 19)] + [np.full(20, 3.0), np.arange(9.0)]
    rows = [
        (step, f"{name},{value}")
        for name, values in zip("dbca", series, strict=True)
        for step, value in enumerate(values)
    ]
    lines = ["key,sold", *(line for _, line in sorted(rows, key=lambda row: row[0]))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return series


def invoke(*options: object) -> Result:
    return CliRunner().invoke(benchmarks, ["zero-shot", *map(str, options)])


# --- sets -------------------------------------------------------------------------------------------------------


def test_a_file_with_several_series(tmp_path: Path, rng: np.random.Generator) -> None:
    series = write_long(tmp_path / "quarters.csv", rng)
    found = read_set(SetFile(tmp_path / "quarters.csv", 3, (4,), "QS"), id_column="key")
    assert (found.name, found.season, found.left_out) == ("quarters", 4, 2)
    for values, known, expected in zip(found.series, found.known, series[:2], strict=True):
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_array_equal(known, expected[:-3])
    np.testing.assert_array_equal(found.actual, [series[0][-3:], series[1][-3:]])


def test_a_folder_of_files(tmp_path: Path) -> None:
    for name, cells in (("b", "9,,7,4,1,8,2,6,5,3,4,"), ("a", "1,5,2,6,3,7,4,8,5,9,6")):
        rows = [f"x{row},{cell}" for row, cell in enumerate(cells.split(","))]
        (tmp_path / f"{name}.csv").write_text("\n".join(["when,load", *rows]), encoding="utf-8")
    found = read_set(SetFile(tmp_path, 2, (), None))
    np.testing.assert_array_equal(found.series[0], [1, 5, 2, 6, 3, 7, 4, 8, 5, 9, 6])
    np.testing.assert_array_equal(found.series[1], [9, 8, 7, 4, 1, 8, 2, 6, 5, 3, 4])
    np.testing.assert_allclose(found.window_units[:, 0], [(4 * 4 + 3 * 4) / 8, (1 + 1 + 3 + 3 + 7 + 6 + 4 + 1) / 8])


def test_what_is_given_of_a_set() -> None:
    assert parse_set("some/m3.csv:18:12:MS") == SetFile(Path("some/m3.csv"), 18, (12,), "MS")
    assert parse_set("C:/loads:24:168,24") == SetFile(Path("C:/loads"), 24, (24, 168), None)
    assert parse_set("years.csv:6:1").seasons == ()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("m3.csv", "PATH:HORIZON:SEASON"),
        ("m3.csv:0:12", "horizon of 0"),
        ("m3.csv:6:512", "511"),
        ("m3.csv:6:12:XYZ", "'XYZ'"),
        ("nowhere.csv:6:12", "nowhere.csv cannot be read"),
        (":6:12", "PATH"),
    ],
)
def test_a_set_that_is_refused(text: str, part: str, weights: Path, tmp_path: Path) -> None:
    done = invoke("--sets-only", "--set", text, "--weights", weights, "--work", tmp_path)
    assert done.exit_code != 0
    assert part in done.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("a,b\n1,2\n3,4\n", "--value"),
        ("a,y\n" + "1,2\n" * 20, "constant"),
        ("y\n1\n2\n", "shorter horizon"),
        ('a,b\n"1,2\n', "no CSV file"),
        ("", "no CSV file"),
    ],
)
def test_a_file_that_is_refused(content: str, part: str, weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(content, encoding="utf-8")
    done = invoke("--sets-only", "--set", f"{file}:6:12", "--weights", weights, "--work", tmp_path)
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert part in line
    assert str(file) in line


def test_options_that_do_not_fit(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for options, part in (
        (("--sets-only",), "--set"),
        (("--sets-only", "--series", "beer"), "--series"),
        (("--sets-only", "--set", f"{tmp_path / 'empty'}:6:12"), ".csv"),
    ):
        done = invoke(*options, "--weights", weights)
        assert done.exit_code != 0
        assert part in done.output.splitlines()[-1]


def test_origins_of_a_public_series_are_thinned_out(rng: np.random.Generator) -> None:
    series = Series(Source("tides", "some-package", "", "level", "h", 24, 5, False), rng.standard_normal(500))
    assert public_set(series, 50).origins[0].tolist() == series.origins.tolist()
    few = public_set(series, 3)
    assert few.origins[0].tolist() == [400, 450, 495]
    assert few.naive_seasons == [24, 168]
    assert few.units == (series.scale,)


# --- errors -----------------------------------------------------------------------------------------------------


def test_errors_and_coverage_are_means_over_forecasts() -> None:
    values = np.array([1.0, 3, 2, 6, 4, 8, 7, 9]), np.array([10.0, 20, 10, 40, 10, 20])
    one = ForecastSet("x", 2, (2,), None, values, (np.array([4, 6]), np.array([4])), (2.0, 10.0))
    y_pred = np.array([[5.0, 6], [7, 10], [0, 25]])
    assert one.mase(y_pred) == pytest.approx((1 / 2 + 2 / 2 + 0 + 1 / 2 + 10 / 10 + 5 / 10) / 6)
    assert one.coverage(y_pred - 1, y_pred + 1) == pytest.approx(3 / 6)
    naive = own.naive_forecasts(one)
    np.testing.assert_array_equal(naive["last value"], [[6, 6], [8, 8], [40, 40]])
    np.testing.assert_array_equal(naive["seasonal naive"], [[2, 6], [4, 8], [10, 40]])


def test_hours_have_naive_forecasts_of_a_day_and_a_week(rng: np.random.Generator) -> None:
    values = rng.standard_normal(400)
    one = ForecastSet("x", 30, (24,), "h", (values,), (np.array([360]),), (1.0,))
    naive = own.naive_forecasts(one)
    np.testing.assert_array_equal(naive["seasonal naive (168)"][0], values[192:222])
    np.testing.assert_array_equal(naive["seasonal naive (24)"][0], values[336 + np.arange(30) % 24])


def test_variants_differ_in_their_seasons(weights: Path, rng: np.random.Generator) -> None:
    hours = np.arange(700)
    values = np.sin(hours * np.pi / 12) + 2 * np.sin(hours * np.pi / 84) + 0.1 * rng.standard_normal(700)
    one = ForecastSet("x", 5, (24,), "h", (values,), (np.array([600, 660]),), (1.0,))
    loaded = own.load(str(weights))
    found = {variant: own.zero_shot_forecasts(one, variant, loaded) for variant in own.VARIANTS}
    for quantiles in found.values():
        assert quantiles is not None
        assert quantiles.shape == (2, 5, 3)
        assert (np.diff(quantiles, axis=2) >= 0).all()
    expected = own.forecast_quantiles(loaded, one.known, [(24, 168)] * 2, 5)[:, :, [0, 4, 8]]
    np.testing.assert_allclose(found[own.CALENDAR], expected, rtol=1e-5)
    assert not np.allclose(found[own.GIVEN], expected)  # type: ignore[arg-type]
    undated = ForecastSet("x", 5, (24,), None, (values,), (np.array([600]),), (1.0,))
    assert own.zero_shot_forecasts(undated, own.CALENDAR, loaded) is None


# --- other libraries --------------------------------------------------------------------------------------------


def add_one(windows: Windows) -> Floats:
    ends = np.array([[known[-1]] * windows.horizon for known in windows.known])
    return np.stack([ends - 1, ends + windows.season, ends + 9], axis=2)


def test_a_job_survives_its_file_and_its_model_is_timed(tmp_path: Path, rng: np.random.Generator) -> None:
    job, result = str(tmp_path / "job.npz"), str(tmp_path / "result.npz")
    known = [rng.standard_normal(size) for size in (9, 12, 8)]
    peers.write_windows(job, Windows(known, 2, 7, 4))
    peers.run({"own": lambda: (add_one, {"parameters": 5})}, ["own", job, result])
    with np.load(result) as kept:
        np.testing.assert_array_equal(kept["quantiles"][:, 1, 1], [values[-1] + 7 for values in known])
        about = json.loads(str(kept["about"]))
    assert len(about["seconds"]) == 4
    assert about["sizes"] == {"parameters": 5}
    assert about["versions"].keys() >= {"python", "numpy"}


def test_a_finished_result_is_kept_until_something_changes(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows, runs = Windows([rng.standard_normal(9)], 2, 4), []

    def run(model: str, given: Windows, folder: Path) -> processes.Result:
        runs.append(given)
        if given.horizon == 7:
            return processes.Result(None, {}, problem="ValueError: too few rows")
        return processes.Result(add_one(given), {"versions": {}, "sizes": {}, "seconds": [0.5]})

    monkeypatch.setattr(processes, "run_peer", run)
    first, second = (processes.forecast_kept("AutoETS", windows, tmp_path) for _ in range(2))
    np.testing.assert_array_equal(first.quantiles, second.quantiles)  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.quantiles, add_one(windows))  # type: ignore[arg-type]
    assert len(runs) == 1
    processes.forecast_kept("AutoTheta", windows, tmp_path)
    processes.forecast_kept("AutoETS", Windows(windows.known, 2, 1), tmp_path)
    assert len(runs) == 3
    assert processes.forecast_kept("AutoETS", Windows(windows.known, 7, 1), tmp_path).problem is not None


def test_the_error_of_a_process_is_the_result(tmp_path: Path) -> None:
    script = tmp_path / "model.py"
    script.write_text("raise ValueError('too few rows')", encoding="utf-8")
    found = processes.run_process([sys.executable, str(script)], "AutoETS", Windows([np.arange(9.0)], 2, 4))
    assert (found.quantiles, found.problem) == (None, "ValueError: too few rows")


def test_times_are_medians_per_forecast(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(model: str, windows: Windows, where: object) -> processes.Result:
        count = len(windows.known)
        assert len(windows.known[0]) == (200 if windows.repeats == 1 else 512)
        about = {"seconds": [0.5 * count, 9.0 * count, 0.25 * count], "sizes": {"parameters": 7}}
        return processes.Result(add_one(windows), about, wall_seconds=3.0)

    for name in ("run_own", "run_peer"):
        monkeypatch.setattr(times, name, run)
    starts = iter([4.0, 6.0, 5.0, 9.0, 1.0])
    monkeypatch.setattr(times, "start_seconds", lambda weights: next(starts))
    models = [own.FOUND, own.CALENDAR, "AutoETS", "Fracast-0"]
    found, calendar, ets, fracast = times.times(models, str(weights), tmp_path)
    assert (found["batch_1_ms"], found["batch_256_ms"]) == (500, 500)
    assert found["weights_bytes"] == weights.stat().st_size
    assert calendar["start_seconds"] == 5
    assert "batch_256_ms" not in ets
    assert (ets["start_seconds"], fracast["batch_256_ms"], fracast["parameters"]) == (3, 500, 7)


def test_the_command_is_timed_from_start_to_end(weights: Path) -> None:
    assert 0 < times.start_seconds(str(weights)) < np.inf
    with pytest.raises(click.ClickException, match="failed"):
        times.start_seconds(str(weights.with_name("nowhere")))


# --- the command and its table ----------------------------------------------------------------------------------


def test_a_set_from_end_to_end(
    tmp_path: Path, weights: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = write_long(tmp_path / "quarters.csv", rng)[:2]

    def kept(model: str, windows: Windows, folder: Path) -> processes.Result:
        if model == "Fracast-0":
            return processes.Result(None, {}, problem="ImportError: no torch")
        about = {"versions": {"statsforecast": "9"}, "sizes": {}, "seconds": [0.5]}
        return processes.Result(add_one(windows), about)

    monkeypatch.setattr(command, "forecast_kept", kept)
    file = tmp_path / "out.json"
    options = ["--sets-only", "--set", f"{tmp_path / 'quarters.csv'}:3:4:QS", "--id", "key", "--weights", weights]
    done = invoke(*options, "--work", tmp_path, "--no-times", "--json", file)
    assert done.exit_code == 0, done.output
    record = json.loads(file.read_text(encoding="utf-8"))
    rows: dict[str, dict[str, Any]] = {row["model"]: row for row in record["rows"]}

    actual = [values[-3:] for values in series]
    units = [np.mean(np.abs(values[4:-3] - values[:-7])) for values in series]
    last = [np.abs(values[-4] - values[-3:]) for values in series]
    seasonal = [np.abs(values[-7:-4] - values[-3:]) for values in series]
    theta = [np.abs(values[-4] + 4 - values[-3:]) for values in series]
    errors = {
        name: np.mean([each / unit for each, unit in zip(found, units, strict=True)])
        for name, found in (("last value", last), ("seasonal naive", seasonal), ("AutoTheta", theta))
    }
    for name, error in errors.items():
        assert rows[name]["mase"] == pytest.approx(error)
        better = min(errors["last value"], errors["seasonal naive"])
        assert rows[name]["by_better_naive"] == pytest.approx(error / better)
    inside = [(values[-4] - 1 <= y) & (y <= values[-4] + 9) for values, y in zip(series, actual, strict=True)]
    assert rows["AutoTheta"]["coverage"] == pytest.approx(np.mean(inside))
    assert rows["AutoTheta"]["left_out"] == 2
    assert rows["Fracast-0"]["problem"] == "ImportError: no torch"
    assert set(own.VARIANTS) < rows.keys()
    assert record["settings"]["packages"] == {"statsforecast": "9"}
    assert record["summary"]["own"]["models"]["AutoETS"]["worst"] == pytest.approx(rows["AutoETS"]["by_better_naive"])


def row(name: str, model: str, ratio: float, **more: Any) -> dict[str, Any]:
    common = {"set": name, "group": "public", "tuned": name == "beer", "season": [4], "horizon": 6, "forecasts": 9}
    return common | {"model": model, "mase": 2 * ratio, "by_better_naive": ratio, "coverage": 0.7} | more


def test_the_table_and_the_summary() -> None:
    rows = [
        row("beer", "last value", 1.0, naive=True),
        row("beer", own.FOUND, 0.5, coverage=0.9),
        row("beer", "AutoETS", 1.2),
        row("tides", "last value", 1.0, naive=True),
        row("tides", own.FOUND, 1.06),
        row("tides", "AutoETS", 1.25),
    ]
    summary = command.summary_of(rows)
    found = summary["public"]["models"][own.FOUND]
    assert found["by_better_naive"] == pytest.approx(np.sqrt(0.5 * 1.06))
    assert (found["worse"], found["worst"], found["coverage"]) == (["tides"], 1.06, pytest.approx(0.8))
    (sentence,) = command.sentences(summary)
    assert "1 of 2" in sentence
    assert "tides" in sentence
    timed = [{"model": own.FOUND, "batch_1_ms": 7.125, "weights_bytes": 1_950_000}]
    header, beer, tides, means, coverage, alone, *_, size = tables.zero_shot_table([*rows, *timed])
    assert header[-2:] == (own.FOUND, "AutoETS")
    assert beer == ("beer", "4", "6", "9", "2.000", "**0.500**", "1.200")
    assert tides == ("tides *", "4", "6", "9", "**2.000**", "1.060", "1.250")
    assert means[-2:] == ("0.728", "1.225")
    assert coverage[-2:] == ("80%", "70%")
    assert alone[-2:] == ("7.12", tables.NONE)
    assert size[-2:] == ("1.95", tables.NONE)
