"""Intervals by errors of held-out rows, from the training to the file and the table of errors."""

import json
import math
import pickle
import warnings
from statistics import NormalDist

import numpy as np
import pytest

from gru_xp import Forecaster
from gru_xp.errors import ArgumentError, CheckpointError, DataError
from gru_xp.forecasting import guard
from gru_xp.forecasting.conformal import Intervals, least_scores, rank_of
from gru_xp.forecasting.metrics import crps_of_quantiles
from gru_xp.pretrained import AutoForecaster

TINY = {"seq_length": 6, "season": "none", "hidden_size": 2, "num_steps": 2, "guard": False, "dtype": "float64"}
RIDGE = {"model": "ridge", "seq_length": 4, "season": "none", "guard": False, "hidden_size": 1, "dtype": "float64"}


def autoregression(rng, rows):
    """Each value is half of the one before, and normal noise."""
    values = rng.standard_normal(rows)
    for row in range(1, rows):
        values[row] += 0.5 * values[row - 1]
    return 100.0 + values


@pytest.mark.parametrize("few", [True, False], ids=["blocks", "tail"])
def test_the_coverage_of_twenty_series(few, rng, cpu, monkeypatch):
    """Within three standard deviations: of the rows that are forecast, and of the scores that the width is from."""
    learned, tested, count = 130, 60, 20
    if not few:
        monkeypatch.setattr(guard, "MIN_GUARDED", 20)
    within, scores = dict[int, list[float]]({80: [], 95: []}), 0
    for _ in range(count):
        values = autoregression(rng, learned + tested)
        forecaster = Forecaster(**RIDGE, levels=(80, 95)).fit(values[:learned], device=cpu)
        forecasts = forecaster.forecast_distributions(values, range(learned, learned + tested), 1)
        scores = forecaster.intervals.scores
        for level, shares in within.items():
            low, high = (forecasts[f"Ridge-{side}-{level}"][:, 0] for side in ("lo", "hi"))
            shares.append(np.mean((low <= values[learned:]) & (values[learned:] <= high)))
    assert scores == (126 if few else 26)
    for level, shares in within.items():
        rank = rank_of(scores, level)
        expected = rank / (scores + 1)
        variance = expected * (1 - expected) * (1 / tested + 1 / (scores + 2)) / count
        assert np.mean(shares) == pytest.approx(expected, abs=3 * math.sqrt(variance)), level


def test_the_rank_of_a_finite_sample(rng):
    """Of n scores and one to come, each rank of the latter is as likely."""
    for n, level in ((9, 90.0), (19, 95.0), (99, 80.0), (30, 99.0), (7, 33.3)):
        rank = rank_of(n, level)
        assert rank / (n + 1) >= level / 100 - 1e-12 > (rank - 1) / (n + 1)
        assert (rank <= n) == (n >= least_scores(level))
    scores = rng.random((40, 3))
    found = Intervals.of(scores, (50.0, 99.0))
    np.testing.assert_array_equal(found.widths[0], np.quantile(scores, 20 / 39, axis=0, method="nearest"))
    np.testing.assert_array_equal(found.widths[1], scores.max(axis=0))


def columns(forecaster):
    name, *quantiles = forecaster.forecast_distribution(VALUES, 1).columns
    return [column.removeprefix(f"{name}-") for column in quantiles]


VALUES = 50.0 + 10 * np.sin(np.arange(90) / 4) + np.random.default_rng(8).standard_normal(90)


def test_what_is_predicted_keeps_its_columns(cpu):
    own = Forecaster(**TINY, loss="quantile").fit(VALUES, device=cpu)
    both = Forecaster(**TINY, loss="quantile", levels=(95, 80, 10)).fit(VALUES, device=cpu)
    assert columns(both) == ["lo-95", "lo-80", "lo-10", "median", "hi-10", "hi-80", "hi-95"]
    assert both.outputs.levels == (10, 95)
    theirs, ours = (each.forecast_distribution(VALUES, 4) for each in (own, both))
    assert (np.diff(ours[ours.columns[1:]], axis=1) >= 0).all()
    np.testing.assert_array_equal(ours["GRU"], theirs["GRU"])


def test_levels_of_a_distribution_are_its_own(cpu):
    forecaster = Forecaster(**TINY, loss="gaussian", levels=(50, 99.5)).fit(VALUES, device=cpu)
    assert columns(forecaster) == ["lo-99.5", "lo-50", "median", "hi-50", "hi-99.5"]
    frame = forecaster.forecast_distribution(VALUES, 3)
    scores = [NormalDist().inv_cdf(level) for level in (0.75, 0.9975)]
    ratio = (frame["GRU-hi-99.5"] - frame["GRU"]) / (frame["GRU-hi-50"] - frame["GRU"])
    np.testing.assert_allclose(ratio, scores[1] / scores[0])


@pytest.mark.parametrize("settings", [{"loss": "mse", "minimum": 0.0}, {"scaling": "standard", "horizon": 2}], ids=str)
def test_intervals_of_logarithms_are_even_there(settings, cpu, tmp_path):
    forecaster = Forecaster(**TINY, **settings, transform="log", levels=80).fit(VALUES, device=cpu)
    frame = forecaster.forecast_distribution(VALUES, 4)
    centre = np.sqrt(frame["GRU-lo-80"] * frame["GRU-hi-80"])
    plain = Forecaster(**TINY, **settings | {"loss": "mae"}, transform="log").fit(VALUES, device=cpu)
    if "loss" in settings:
        assert (frame["GRU"] > centre).all()  # a mean
    else:
        np.testing.assert_allclose(centre, plain.forecast(VALUES, 4))
    forecaster.save(tmp_path / "model.safetensors")
    for again in (Forecaster.load(tmp_path / "model.safetensors", device=cpu), pickle.loads(pickle.dumps(forecaster))):
        assert again.settings() == forecaster.settings()
        np.testing.assert_array_equal(again.forecast_distribution(VALUES, 4), frame)


def test_limits_hold_for_intervals(cpu):
    forecaster = Forecaster(**TINY, levels=95, transform="diff", minimum=30).fit(VALUES, device=cpu)
    free = forecaster.forecast_distribution(VALUES, 3)
    forecaster.minimum, forecaster.maximum = 45.0, 55.0
    frame = forecaster.forecast_distribution(VALUES, 3)
    assert frame.min(axis=None) >= 45.0
    assert frame.max(axis=None) <= 55.0
    np.testing.assert_array_equal(frame["GRU-hi-95"][:1], free["GRU-hi-95"][:1].clip(45, 55))


def test_intervals_of_a_forecast_without_training_are_of_its_errors(rng, cpu):
    """Of noise, that of the mean."""
    values = rng.standard_normal(160)
    settings = TINY | {"guard": True, "scaling": "standard", "levels": 80.0}
    forecaster = Forecaster(**settings).fit(values, device=cpu)
    assert forecaster.fallback == "mean"
    frame = forecaster.forecast_distribution(values, 2)
    width = frame["GRU-hi-80"] - frame["GRU"]
    rank = rank_of(forecaster.intervals.scores, 80)
    np.testing.assert_allclose(width[:1], np.sort(np.abs(values - values.mean())[6:])[rank - 1], rtol=0.05)


def test_the_tail_is_not_learned_from(rng, cpu, monkeypatch):
    """A network that knows its training rows by heart has wide intervals all the same."""
    values = rng.standard_normal(160)
    monkeypatch.setattr(guard, "MIN_GUARDED", 20)
    settings = TINY | {"hidden_size": 32, "num_steps": 150, "learning_rate": 0.03, "linear_skip": False, "levels": 80}
    forecaster = Forecaster(**settings, scaling="standard").fit(values, device=cpu)
    frame = forecaster.forecast_distribution(values, 1)
    in_sample = np.quantile(np.abs(forecaster.predict(values) - values[6:]), 0.8)
    assert frame["GRU-hi-80"].iloc[0] - frame["GRU"].iloc[0] > 1.5 * in_sample


def test_too_few_scores_are_said(cpu):
    with pytest.warns(RuntimeWarning, match=r"24 held-out forecasts .* 99 %, which need 99"):
        Forecaster(**TINY, levels=(80, 99)).fit(VALUES[:30], device=cpu)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Forecaster(**TINY, levels=80).fit(VALUES[:30], device=cpu)
    with pytest.raises(DataError, match="too few for levels"):
        Forecaster(**TINY | {"linear_skip": False}, horizon=4, levels=80).fit(VALUES[:15], device=cpu)


@pytest.mark.parametrize(("levels", "message"), [(0.8, "80%"), (100, "100"), ((80, 80), "once"), ("80", "percentages")])
def test_levels_that_are_none(levels, message):
    with pytest.raises(ArgumentError, match=message):
        Forecaster(levels=levels)


def test_what_has_no_place_for_them_says_so(cpu):
    with pytest.raises(ArgumentError, match="levels"):
        AutoForecaster(levels=80)
    pytest.importorskip("onnx")
    from gru_xp.interop.onnx import to_onnx

    with pytest.raises(CheckpointError, match=r"levels=\(80\.0,\)"):
        to_onnx(Forecaster(**TINY, levels=80).fit(VALUES, device=cpu))


DAMAGED = {
    "narrower": {"widths": [[2.0], [1.0]], "scores": 9},
    "negative": {"widths": [[-1.0], [1.0]], "scores": 9},
    "a level less": {"widths": [[1.0]], "scores": 9},
    "a step more": {"widths": [[1.0, 1.0], [2.0, 2.0]], "scores": 9},
    "none": {"widths": [[1.0], [2.0]], "scores": 0},
}


@pytest.mark.parametrize("intervals", DAMAGED.values(), ids=DAMAGED)
def test_damaged_intervals_are_refused(intervals, cpu):
    forecaster = Forecaster(**TINY, levels=(80, 95)).fit(VALUES, device=cpu)
    description = json.loads(json.dumps(forecaster.describe()))
    Forecaster.from_parts(forecaster.params, description, cpu)
    with pytest.raises(CheckpointError):
        Forecaster.from_parts(forecaster.params, description | {"intervals": intervals}, cpu)


def test_measures_of_intervals(cpu):
    result = Forecaster(**TINY, levels=(50, 80)).fit(VALUES[:70], device=cpu).evaluate(VALUES, 2, start=70)
    frame, models = result.to_frame(), result.metrics["models"]
    for name in ("GRU", "Ridge", "LastValue"):
        for level in (50, 80):
            low, high = (frame[f"{name}-{side}-{level}"] for side in ("lo", "hi"))
            found = models[name]["intervals"][str(level)]
            assert found["coverage"] == pytest.approx(frame["y"].between(low, high).mean())
            assert found["width"] == pytest.approx((high - low).mean())
    assert models["GRU"]["expected_coverage"] == 0.8
    assert 0 < models["GRU"]["crps"] < models["GRU"]["mae"]


def test_the_crps_of_a_normal_distribution(rng):
    """Against the closed form of Gneiting et al. (2005), doi:10.1175/MWR2904.1."""
    normal, actual = NormalDist(3.0, 2.0), rng.normal(3.0, 2.0, (20, 2))
    quantiles = {level: np.full((20, 2), normal.inv_cdf(level)) for level in np.linspace(0.001, 0.999, 999).tolist()}
    z = (actual - 3.0) / 2.0
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = np.vectorize(NormalDist().cdf)(z)
    expected = 2.0 * (z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi))
    np.testing.assert_allclose(crps_of_quantiles(actual, quantiles), expected, atol=0.01)


def test_the_crps_of_few_quantiles():
    """Against the integral of the squared difference of the two distribution functions."""
    levels, places, grid = [0.1, 0.5, 0.9], [1.0, 2.0, 4.0], np.linspace(-2.0, 7.0, 90_001)
    cdf = np.interp(grid, places, levels, left=0.0, right=1.0)
    actual = np.array([[0.5, 1.7, 3.0, 6.0]])
    quantiles = {level: np.full((1, 4), place) for level, place in zip(levels, places, strict=True) if level != 0.5}
    expected = [np.sum((cdf - (grid >= y)) ** 2) * (grid[1] - grid[0]) for y in actual[0]]
    found = crps_of_quantiles(actual, quantiles, np.full((1, 4), 2.0))
    np.testing.assert_allclose(found[0], expected, rtol=2e-3)
