"""Several series in one file, told apart by ``--id-column``."""

import io
import json

import numpy as np
import pandas as pd
import pytest

SHORT = ("--horizon", 3, "--num-steps", 8, "--hidden-size", 4, "--seq-length", 8, "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def stores():
    """Three stores with different sizes, starts and lengths."""
    rng, frames = np.random.default_rng(3), []
    sizes = (("North", "2020-01", 60, 1), ("South", "2021-03", 45, 1000), ("Tiny", "2022-01", 12, 5))
    for name, first, rows, size in sizes:
        sales = size * (10 + 3 * np.sin(np.arange(rows)) + rng.normal(size=rows))
        months = pd.period_range(first, periods=rows, freq="M").astype(str)
        frames.append(pd.DataFrame({"store": name, "month": months, "sales": sales.round(3)}))
    return pd.concat(frames)


@pytest.fixture(scope="module")
def trained(run_here, stores, tmp_path_factory):
    folder = tmp_path_factory.mktemp("panel")
    stores.to_csv(folder / "stores.csv", index=False)
    command = ("train", "stores.csv", "--id-column", "store", *SHORT, "--out", "run", "--json")
    result = run_here(*command, cwd=folder)
    assert result.code == 0, result.err
    return folder, json.loads(result.out)


def table(text):
    return pd.read_csv(io.StringIO(text))


def test_errors_of_each_series_and_of_all(trained):
    folder, printed = trained
    errors = pd.read_csv(folder / "run" / "series.csv")
    test = errors[(errors["split"] == "test") & (errors["forecast"] == "GRU")].set_index("store")
    rows = pd.read_csv(folder / "run" / "predictions.csv")
    assert list(rows)[:5] == ["store", "date", "split", "step", "actual"]
    tested = rows[rows["split"] == "test"]
    by_store = tested["residual"].abs().groupby(tested["store"]).mean()
    pd.testing.assert_series_equal(test["mae"], by_store, check_names=False, rtol=1e-12)
    assert tested["date"][tested["store"] == "South"].iloc[-1] == "2024-11"
    metrics = json.loads((folder / "run" / "metrics.json").read_text("utf-8"))["parts"]["test"]
    assert printed["parts"]["test"] == metrics
    assert metrics["models"]["GRU"]["mean"]["mase"] == pytest.approx(test["mase"].mean(), rel=1e-12)
    assert metrics["models"]["GRU"]["median"]["mase"] == pytest.approx(test["mase"].median(), rel=1e-12)
    assert [worst["series"] for worst in metrics["worst"]] == test["mase"].sort_values(ascending=False).index.tolist()
    assert metrics["series"] == 3


def test_forecasts_have_the_names_and_dates_of_their_series(trained, stores, run_here):
    folder, _ = trained
    outcome = run_here("forecast", "run", "stores.csv", "--steps", 2, "--quiet", "--device", "cpu", cwd=folder)
    found = table(outcome.out)
    assert list(found) == ["store", "step", "date", "sales"]
    assert found["store"].tolist() == ["North"] * 2 + ["South"] * 2 + ["Tiny"] * 2
    assert found["date"].tolist() == ["2025-01", "2025-02", "2024-12", "2025-01", "2023-01", "2023-02"]
    stored = run_here("forecast", "run", "--steps", 2, "--quiet", "--device", "cpu", cwd=folder)
    assert stored.out == outcome.out
    other = stores[stores["store"] == "South"].assign(store="East")
    pd.concat([other, stores]).to_csv(folder / "more.csv", index=False)
    more = table(run_here("forecast", "run", "more.csv", "--steps", 2, "-q", "--device", "cpu", cwd=folder).out)
    assert more["store"][:2].tolist() == ["East", "East"]
    pd.testing.assert_frame_equal(more[2:].reset_index(drop=True), found)


def test_evaluate_measures_the_same_parts_and_unseen_series(trained, stores, run_here):
    folder, printed = trained
    stores.sort_values(["month", "store"]).to_csv(folder / "sorted.csv", index=False)
    again = json.loads(run_here("evaluate", "run", "sorted.csv", "--json", "-q", "--device", "cpu", cwd=folder).out)
    for name, part in printed["parts"].items():
        assert again["parts"][name]["models"]["GRU"]["mean"]["mae"] == pytest.approx(
            part["models"]["GRU"]["mean"]["mae"], rel=1e-5
        )
    new = stores[stores["store"] == "North"].assign(store="New")
    pd.concat([stores, new]).to_csv(folder / "new.csv", index=False)
    outcome = run_here("evaluate", "run", "new.csv", "-q", "--device", "cpu", cwd=folder)
    assert outcome.code == 0, outcome.err
    assert "unseen" in outcome.out
    assert "Largest" not in outcome.out
    new.to_csv(folder / "alone.csv", index=False)
    parts = json.loads(run_here("evaluate", "run", "alone.csv", "--json", "-q", "--device", "cpu", cwd=folder).out)
    assert list(parts["parts"]) == ["all"]


def test_some_of_the_series_are_measured_in_the_parts_of_the_run(trained, stores, app, run_here):
    folder, _ = trained
    errors = pd.read_csv(folder / "run" / "series.csv").set_index(["store", "split", "forecast"])["mae"]
    evaluated = ("evaluate", "run", "stores.csv", "--where", "store=South", "--json", "-q", "--device", "cpu")
    outcome = run_here(*evaluated, cwd=folder)
    assert "warning" not in outcome.err
    for split, part in json.loads(outcome.out)["parts"].items():
        for name, model in part["models"].items():
            assert model["mean"]["mae"] == pytest.approx(errors["South", split, name], rel=1e-5), (split, name)
    stores[stores["store"] != "South"].groupby("store").head(30).to_csv(folder / "fewer.csv", index=False)
    outcome = run_here("evaluate", "run", "fewer.csv", "--json", "-q", "--device", "cpu", cwd=folder)
    assert list(json.loads(outcome.out)["parts"]) == ["train", "test"]
    stores.assign(sales=stores["sales"] + 1).to_csv(folder / "changed.csv", index=False)
    outcome = run_here("evaluate", "run", "changed.csv", "--json", "-q", "--device", "cpu", cwd=folder)
    assert list(json.loads(outcome.out)["parts"]) == ["all"]
    (warning,) = outcome.err.splitlines()
    assert "North, South, Tiny" in warning


def test_a_file_with_one_series_is_noticed(app, stores, tmp_path):
    stores[stores["store"] == "Tiny"].to_csv(tmp_path / "one.csv", index=False)
    outcome = app("train", tmp_path / "one.csv", "--id-column", "store", "--horizon", 50)
    assert "only one series in column store" in outcome.err


def test_a_stopped_run_resumes_bit_exactly(trained, run_here, tmp_path):
    folder, _ = trained
    stop = (*SHORT, "--checkpoint-every", 1)
    outcome = run_here("train", folder / "stores.csv", "--id-column", "store", *stop, "--out", "run", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    outcome = run_here("train", "--resume", "run", "--quiet", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    first, second = ((where / "run" / "predictions.csv").read_bytes() for where in (folder, tmp_path))
    assert first == second


def test_what_is_for_one_series_is_refused_by_name(trained, app, stores):
    folder, _ = trained
    file = folder / "stores.csv"
    refused = app("train", file, "--id-column", "store", "--model", "auto")
    assert refused.code == 2
    assert "--model auto" in refused.err
    for command in ("backtest", "explain"):
        app(command, folder / "run", file, "-q").assert_refused("several series", "train on one", "--where store=")
    refused = app("evaluate", folder / "run", "--diagnostics")
    assert refused.code == 2
    assert "train on one series" in refused.err
    app("train", file, "--id-column", "store", "--level", 80, "-q").assert_refused("--level", "--loss quantile")
    app("forecast", file, "--id-column", "store", "-q").assert_refused(
        "3 series in column store", "--where store=North"
    )
    app("export", folder / "run", "model.onnx").assert_refused("several series")
    app("train", file, "--id-column", "store", "--missing", "interpolate").assert_refused("--missing interpolate")
