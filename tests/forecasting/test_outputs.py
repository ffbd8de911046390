"""Quantiles and distributions: what the outputs for each target mean, from the training to the file."""

import math
import pickle

import numpy as np
import pytest

from gru_xp import Forecaster
from gru_xp.errors import ArgumentError, DataError
from gru_xp.forecasting import outputs as module
from gru_xp.forecasting.outputs import (
    Outputs,
    between,
    column_suffix,
    poisson_quantile,
    quantile_column,
    start_of_skip,
)
from gru_xp.forecasting.ridge import PENALTIES
from gru_xp.forecasting.scaling import SCALINGS, Scaler
from gru_xp.forecasting.windows import WindowSequences
from gru_xp.io.read import read_series
from gru_xp.nn.network import network_forward

INTERVALS = ["GRU", "GRU-lo-95", "GRU-lo-80", "GRU-median", "GRU-hi-80", "GRU-hi-95"]
TINY = {"seq_length": 7, "hidden_size": 3, "num_steps": 3, "guard": False, "dtype": "float64"}
ROWS, LEARNED, DEVIATION = 1300, 900, 3.0


@pytest.fixture
def seasonal(rng):
    """Twelve rows a season, and normal noise of a standard deviation of 3."""
    return 40 + 10 * np.sin(np.arange(ROWS) * np.pi / 6) + DEVIATION * rng.standard_normal(ROWS)


def learn(values, cpu, tmp_path, **settings):
    """A forecaster of the first rows, and its forecasts of the last ones, which its file gives, too."""
    settings = {"seq_length": 24, "season": 12, "hidden_size": 8, "guard": False} | settings
    forecaster = Forecaster(**settings).fit(values[:LEARNED], device=cpu)
    forecaster.save(tmp_path / "model.safetensors")
    origins = range(LEARNED, ROWS - 1)
    forecasts = forecaster.forecast_distributions(values, origins, 2)
    for again in (Forecaster.load(tmp_path / "model.safetensors", device=cpu), pickle.loads(pickle.dumps(forecaster))):
        assert again.settings() == forecaster.settings()
        for name, of_file in again.forecast_distributions(values, origins, 2).items():
            np.testing.assert_array_equal(of_file, forecasts[name], err_msg=name)
    return forecaster, forecasts


def share_within(actual, low, high):
    return np.mean((low <= actual) & (actual <= high))


def spread_of(share):
    """Three standard deviations of a share of the rows that are forecast, and of one that was learned."""
    return 3 * np.sqrt(share * (1 - share) * (1 / LEARNED + 1 / (ROWS - LEARNED)))


def test_quantiles_cover_their_share(seasonal, cpu, tmp_path):
    forecaster, forecasts = learn(seasonal, cpu, tmp_path, loss="quantile", quantiles=[0.9, 0.25, 0.1])
    assert forecaster.quantiles == (0.1, 0.25, 0.5, 0.9)
    assert list(forecasts) == ["GRU", "GRU-lo-80", "GRU-lo-50", "GRU-median", "GRU-hi-80"]
    actual = seasonal[LEARNED : ROWS - 1]
    for quantile, name in zip(forecaster.quantiles, list(forecasts)[1:], strict=True):
        assert np.mean(actual <= forecasts[name][:, 0]) == pytest.approx(quantile, abs=spread_of(quantile)), name
    assert (np.diff([forecasts[name] for name in list(forecasts)[1:]], axis=0) >= 0).all()
    np.testing.assert_array_equal(forecasts["GRU"], forecasts["GRU-median"])
    np.testing.assert_array_equal(
        forecaster.forecasts(seasonal, range(LEARNED, ROWS - 1), 2), forecasts["GRU"], strict=True
    )


def test_a_normal_distribution_has_the_deviation_of_the_noise(seasonal, cpu, tmp_path):
    _, forecasts = learn(seasonal, cpu, tmp_path, loss="gaussian", horizon=2)
    assert list(forecasts) == INTERVALS
    deviation = (forecasts["GRU-hi-95"] - forecasts["GRU-lo-95"]) / (2 * 1.959963984540054)
    assert deviation.mean() == pytest.approx(DEVIATION, rel=0.1)
    np.testing.assert_allclose(forecasts["GRU-hi-80"] - forecasts["GRU"], 1.2815515655446004 * deviation)
    actual = np.stack([seasonal[LEARNED : ROWS - 1], seasonal[LEARNED + 1 :]], axis=1)
    within = share_within(actual, forecasts["GRU-lo-80"], forecasts["GRU-hi-80"])
    assert within == pytest.approx(0.8, abs=spread_of(0.8))
    assert np.abs(actual - forecasts["GRU"]).mean() < 1.15 * DEVIATION * np.sqrt(2 / np.pi)


def test_rates_of_counts(rng, cpu, tmp_path):
    rates = np.exp(1.2 + 0.8 * np.sin(np.arange(ROWS) * np.pi / 6))
    _, forecasts = learn(rng.poisson(rates).astype(float), cpu, tmp_path, loss="poisson")
    assert list(forecasts) == INTERVALS
    actual = rates[LEARNED : ROWS - 1]
    assert np.abs(np.log(forecasts["GRU"][:, 0] / actual)).mean() < 0.17
    assert np.mean(forecasts["GRU"][:, 0] / actual) == pytest.approx(1, abs=0.08)
    for name, quantile in (("lo-95", 0.025), ("median", 0.5), ("hi-80", 0.9)):
        quantiles = poisson_quantile(forecasts["GRU"], quantile)
        np.testing.assert_array_equal(forecasts[f"GRU-{name}"], quantiles)


def test_all_outputs_follow_the_level_and_the_unit(rng, cpu):
    values = rng.standard_normal(80).cumsum()
    for loss, scaling in (
        ("quantile", "window"),
        ("quantile", "standard"),
        ("gaussian", "last"),
        ("gaussian", "robust"),
    ):
        settings = {**TINY, "loss": loss, "scaling": scaling, "horizon": 2}
        forecasts, moved = (
            Forecaster(**settings).fit(rows, device=cpu).forecast_distribution(rows, 5).to_numpy()
            for rows in (values, 50 * values + 1e4)
        )
        np.testing.assert_allclose(moved, 50 * forecasts + 1e4, rtol=1e-9, err_msg=scaling)


def test_rates_are_in_units_of_the_mean_of_the_window_or_the_training_rows(rng, cpu):
    counts = rng.poisson(6, 60).astype(float)
    for scaling in SCALINGS:
        forecaster = Forecaster(**TINY, loss="poisson", scaling=scaling, horizon=2).fit(counts[:50], device=cpu)
        window = counts[None, -7:, None]
        x = np.arcsinh(Scaler.fit(scaling, counts[:50, None], ("a",)).scale_windows(window))
        typical = counts[:50].mean()
        unit = window.mean() + 0.05 * typical if scaling in ("window", "last") else typical
        rates = unit * np.exp(network_forward(x, forecaster.params)[0][0])
        np.testing.assert_allclose(forecaster.forecast(counts, 2), rates, rtol=1e-12, err_msg=scaling)


def test_rates_of_sparse_counts_stay_near_the_counts(rng, cpu):
    sparse, weekly = np.zeros(250), rng.poisson(np.where(np.arange(250) % 7 == 5, 6, 0)).astype(float)
    sparse[::25] = 5
    for counts, L, scaling in ((sparse, 26, "window"), (sparse, 26, "standard"), (weekly, 14, "last")):
        settings = TINY | {"seq_length": L, "num_steps": 1, "loss": "poisson", "scaling": scaling}
        forecaster = Forecaster(**settings).fit(counts, device=cpu)
        assert np.nanmax(forecaster.predict(counts)) < 1.7 * counts.max(), scaling
        params = forecaster.params
        forecaster.params = params._replace(skip=params.skip._replace(weight=20 * params.skip.weight))
        assert 0 < forecaster.forecast(counts, 40).max() <= 2 * max(counts.max(), counts.mean() + 5 * counts.std())


def test_rates_begin_with_the_likeliest_penalty(rng, monkeypatch):
    """Independent counts say nothing of the next one; those of a season of 7 rows say much."""
    starts = {}
    for name, log_rates in (("none", np.full(200, 2.0)), ("season", 3 + np.sin(np.arange(200) * 2 * np.pi / 7))):
        rows = rng.poisson(np.exp(log_rates)).astype(float)[:, None]
        scaler = Outputs("poisson").for_targets(Scaler.fit("standard", rows, ("a",)))
        windows = WindowSequences(rows, np.arange(184), 14, 2, scaler)
        for penalties in (PENALTIES, *((penalty,) for penalty in PENALTIES)):
            monkeypatch.setattr(module, "PENALTIES", penalties)
            starts[name, penalties] = start_of_skip(Outputs("poisson"), windows, np.zeros((2, 14)))[0]
    for name, likely in (("none", PENALTIES[-1:]), ("season", PENALTIES[:-1])):
        chosen = [p for p in PENALTIES if np.array_equal(starts[name, (p,)], starts[name, PENALTIES])]
        assert len(chosen) == 1
        assert chosen[0] in likely


def test_quantiles_are_sorted_and_the_nearest_to_the_median_is_the_point(rng):
    outputs, scaled = Outputs("quantile", (0.05, 0.4, 0.6, 0.7)), rng.standard_normal((9, 4 * 3))
    scaler, windows = Scaler("standard", (5.0,), (2.0,), (1.0,)), np.zeros((9, 1, 1))
    forecasts = outputs.forecasts(scaled, windows, scaler)
    expected = [sorted(5.0 + 2.0 * scaled[row, step::3]) for row in range(9) for step in range(3)]
    np.testing.assert_allclose(forecasts[:, 1:].swapaxes(1, 2).reshape(-1, 4), expected)
    np.testing.assert_array_equal(forecasts[:, 0], forecasts[:, 2])


def test_later_blocks_begin_from_the_point_forecasts(rng, cpu):
    values = rng.standard_normal(60).cumsum()
    forecaster = Forecaster(**TINY, loss="quantile", quantiles=(0.7, 0.6), horizon=2).fit(values, device=cpu)
    whole = forecaster.forecast_distribution(values, 5)
    extended = np.concatenate([values, whole["GRU"].iloc[:2]])
    again = forecaster.forecast_distribution(extended, 3)
    np.testing.assert_allclose(whole.iloc[2:], again, rtol=1e-12)
    assert whole.index.tolist() == [60, 61, 62, 63, 64]
    assert again.index.tolist() == [62, 63, 64]
    np.testing.assert_array_equal(whole["GRU"], whole["GRU-hi-20"])


@pytest.mark.parametrize("settings", [{"loss": "quantile", "quantiles": (0.8, 0.95)}, {"loss": "gaussian"}], ids=str)
def test_a_forecast_without_training_has_the_spread_of_its_errors(rng, cpu, tmp_path, settings):
    values = 50 + rng.standard_normal(700)
    forecaster = Forecaster(seq_length=8, hidden_size=4, horizon=2, **settings).fit(values, device=cpu)
    assert forecaster.fallback == "mean"
    forecasts = forecaster.forecast_distribution(values, 3).to_numpy().T
    quantiles = forecaster.outputs.quantiles
    for step in range(3):
        targets = values[1 + min(step, 1) : 699 + min(step, 1)]
        expected = values.mean() + np.quantile(targets, quantiles) - np.median(targets)
        np.testing.assert_allclose(forecasts[1:, step], expected)
    point = forecasts[1] if settings["loss"] == "quantile" else np.full(3, values.mean())
    np.testing.assert_allclose(forecasts[0], point)
    forecaster.save(tmp_path / "model.safetensors")
    again = Forecaster.load(tmp_path / "model.safetensors", device=cpu)
    np.testing.assert_array_equal(again.forecast_distribution(values, 3).to_numpy().T, forecasts)
    described = forecaster.describe()
    for spread in ([[0.0, 0.0]], [[1.0, 0.0]] * len(quantiles) + [[0.0, 0.0]], [[0.0]] * len(quantiles), [["a", 0]]):
        with pytest.raises((ValueError, TypeError)):
            Forecaster.from_description({**described, "spread": spread})


def test_quantiles_of_a_poisson_distribution(rng):
    rates = np.concatenate([[1e-8, 0.7, 499.9, 600.0, 950.0], np.exp(rng.uniform(-4, 6, 200))])
    counts = np.arange(1500)
    logs = counts * np.log(rates)[:, None] - rates[:, None] - [math.lgamma(count + 1) for count in counts]
    up_to = np.cumsum(np.exp(logs), axis=1)
    for quantile in (0.025, 0.1, 0.5, 0.9, 0.975):
        expected = (up_to >= quantile).argmax(axis=1)
        difference = poisson_quantile(rates, quantile) - expected
        assert not difference[rates < 500].any()
        assert np.abs(difference).max() <= 1
    assert poisson_quantile(np.zeros(2), 0.975).tolist() == [0.0, 0.0]


def test_names_of_columns():
    for quantile, suffix in ((0.1, "lo-80"), (0.9, "hi-80"), (0.5, "median"), (0.025, "lo-95"), (0.9625, "hi-92.5")):
        assert column_suffix(quantile) == suffix
        assert quantile_column(f"GRU-{suffix}") == ("GRU", pytest.approx(quantile, abs=1e-10))
    assert quantile_column("GRU") is quantile_column("seasonal naive (12)") is None


def test_what_cannot_be_learned_is_refused(rng, cpu, tmp_path):
    for quantiles in ((), (0.5, 0.5), (0.0, 0.5), "0.5", None, 2):
        with pytest.raises(ArgumentError, match="quantiles is"):
            Forecaster(loss="quantile", quantiles=quantiles)
    assert Forecaster(loss="quantile", quantiles=0.25).quantiles == (0.25,)
    assert Forecaster(loss="quantile", quantiles=(0.9, 0.8)).quantiles == (0.8, 0.9)
    for loss in ("gaussian", "poisson"):
        with pytest.raises(ArgumentError, match=f"mean alone.*{loss}"):
            Forecaster(loss=loss, model="ridge")
    with pytest.raises(DataError, match=r"row 4.*-1 is no count.*loss='poisson'"):
        Forecaster(**TINY, loss="poisson").fit([3.0, 2, 0, 1, -1, *rng.poisson(2, 40)], device=cpu)
    for header, times, order, place in (
        ("y", [""] * 44, "oldest-first", "line 5, "),
        ("day,y", range(1, 45), None, r"line 5 \('4'\), "),
    ):
        rows = [f"{time},{number}".lstrip(",") for time, number in zip(times, [3, 2, 0, -1, *range(40)], strict=True)]
        (tmp_path / "own.csv").write_text("\n".join([header, *rows]))
        series = read_series(tmp_path / "own.csv", target="y", order=order)
        with pytest.raises(DataError, match=f"own.csv: {place}.*-1 is no count"):
            Forecaster(**TINY, loss="poisson").fit(series, device=cpu)


def test_a_quantile_begins_between_two_errors(rng):
    for n in (2, 31, 501):
        errors = rng.standard_normal(n)
        for level in (0.01, 0.1, 0.5, 0.9):
            value = between(errors, level)
            assert np.abs(errors - value).min() > 1e-7
            assert abs((errors < value).sum() - level * n) <= 1
    counts = np.repeat([0.0, 3.0, 4.0], [70, 20, 10])
    assert [between(counts, level) for level in (0.1, 0.5, 0.85, 0.95)] == [1.5, 1.5, 3.5, 3.5]
    assert between(np.full(3, 2.5), 0.9) == 2.5


@pytest.mark.parametrize("loss", ["mae", "quantile", "gaussian", "poisson"])
def test_gradients_of_points_by_central_differences(rng, loss):
    """Also of rates that are as large as they may be, by the window or by the training rows."""
    outputs = Outputs.of(loss, (0.1, 0.5, 0.9) if loss == "quantile" else ())
    scaler = outputs.for_targets(Scaler.fit("window", 5 + rng.random((60, 2)), ("a", "b")))
    windows = 4 + 3 * rng.random((5, 7, 2)) * np.array([1, 1, 1, 9, 9])[:, None, None]
    scaled = rng.standard_normal((5, 2 * outputs.per_target)) + np.array([0, 0, 6, 6, 0])[:, None]
    dpoints = rng.standard_normal((5, 2))
    gradients = outputs.points_backward(dpoints, scaled, windows, scaler)

    def value(scaled, targets):
        rows = np.concatenate([targets, windows[:, :, 1:]], axis=2)
        return np.sum(outputs.forecasts(scaled, rows, scaler)[:, 0] * dpoints)

    targets = windows[:, :, :1]
    for _ in range(3):
        by, to = 1e-6 * rng.standard_normal(scaled.shape), 1e-6 * rng.standard_normal(targets.shape)
        expected = (value(scaled + by, targets + to) - value(scaled - by, targets - to)) / 2
        assert np.sum(gradients[0] * by) + np.sum(gradients[1] * to) == pytest.approx(expected, rel=1e-5, abs=1e-10)
