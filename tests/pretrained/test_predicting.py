import numpy as np
import pandas as pd
import pytest

from gru_xp.devices import resolve_device
from gru_xp.errors import DataError
from gru_xp.nn.params import map_arrays
from gru_xp.pretrained.features import CONTEXT, HEAD, LEVELS, MEDIAN, PATCH, make_features, unsquash
from gru_xp.pretrained.network import predict
from gru_xp.pretrained.periods import find_periods
from gru_xp.pretrained.predicting import continue_forecast, forecast_quantiles, periods_of
from gru_xp.pretrained.weights import Weights

pytestmark = pytest.mark.compat

MONTHS = (12, 12)


def assert_alike(actual, desired, tolerance=1e-4):
    """To within a part of what the forecasts differ by: the network computes in float32."""
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * np.ptp(desired))


@pytest.mark.parametrize("views", [[MONTHS], [(4, 12), MONTHS]], ids=["one season", "two seasons"])
def test_forecasts_are_those_of_the_network_in_units_of_the_data(weights, seasonal, views):
    """A series of whole patches, each step of which is written down again here; with two seasons, a mean of two."""
    series = seasonal(4 * PATCH)  # too few for earlier forecasts to calibrate by
    (quantiles,) = forecast_quantiles(weights, [series], views[:1], 20)
    center = np.median(series)
    unit = np.abs(series - center).mean()
    scaled = ((series - center) / unit)[None].astype(np.float32)
    expected = 0.0
    for periods in views:
        features = make_features(scaled, np.array([len(series)]), np.array([periods]))
        raw = unsquash(np.asarray(predict(features.inputs, features.candidates, weights.params)))[0, :, :20].T
        assert (np.diff(raw, axis=1) < 0).any()
        raw = np.sort(raw, axis=1)
        raw = raw[:, [4]] + weights.widths[:20, None] * (raw - raw[:, [4]])
        in_units = center + unit * (features.location[0, -1] + features.scale[0, -1] * raw)
        expected = expected + in_units / len(views)
    assert_alike(quantiles, expected, 1e-6)


def test_quantiles_never_cross_and_follow_the_units(weights, seasonal):
    series = [seasonal(rows) for rows in (2, 5, 40, 600)]
    quantiles = forecast_quantiles(weights, series, None, 70)
    assert quantiles.shape == (4, 70, len(LEVELS))
    assert quantiles.dtype == np.float64
    assert (np.diff(quantiles, axis=2) >= 0).all()
    for factor, shift in ((1e-3, 0.0), (2.5e7, -3e8), (1e-300, 0.0), (1e140, 2e141)):
        moved = forecast_quantiles(weights, [factor * one + shift for one in series], None, 70)
        for one, other in zip(moved, quantiles, strict=True):
            assert_alike((one - shift) / factor, other)


def test_a_batch_is_forecast_as_each_series_alone(weights, seasonal):
    series = [seasonal(rows) for rows in (511, 30, 512, 17, 31, 700, 513)]
    periods = [MONTHS, None, (7, 24), (1, 1), None, None, MONTHS]
    quantiles = forecast_quantiles(weights, series, periods, 90)
    for one, pair, expected in zip(series, periods, quantiles, strict=True):
        assert_alike(forecast_quantiles(weights, [one], [pair], 90)[0], expected)
    assert forecast_quantiles(weights, [], None, 3).shape == (0, 3, len(LEVELS))


def test_many_series_are_forecast_in_several_batches(weights, seasonal, monkeypatch):
    series = [seasonal(rows) for rows in (40, 41, 42, 43, 44)]
    quantiles = forecast_quantiles(weights, series, None, 5)
    monkeypatch.setattr("gru_xp.pretrained.predicting.MAX_BATCH", 2)
    assert_alike(forecast_quantiles(weights, series, None, 5), quantiles)


def test_only_the_context_matters(weights, seasonal):
    series = seasonal(CONTEXT + 100)
    changed = series.copy()
    changed[:100] = 1e6
    changed[3] = np.nan
    quantiles = forecast_quantiles(weights, [series, series[100:], changed], None, 80)
    np.testing.assert_array_equal(quantiles[1], quantiles[0])
    np.testing.assert_array_equal(quantiles[2], quantiles[0])
    changed[100] += 50.0
    assert not np.array_equal(forecast_quantiles(weights, [changed], None, 80)[0], quantiles[0])


def test_missing_values(weights, seasonal, rng):
    series = seasonal(90)
    gaps = series.copy()
    gaps[rng.choice(np.arange(5, 85), 20, replace=False)] = np.nan
    gaps[:4], gaps[87:] = np.nan, np.nan
    filled = pd.Series(gaps).interpolate().to_numpy()[4:]
    assert filled[-1] == series[86]
    quantiles = forecast_quantiles(weights, [gaps, filled], None, 10)
    assert_alike(quantiles[0], quantiles[1])


def test_a_constant_series_stays_constant(weights):
    series = [np.full(rows, value) for rows, value in ((2, 7.25), (100, -1e9), (600, 0.0), (30, 1e150), (30, 5e-324))]
    for one, quantiles in zip(
        series, forecast_quantiles(weights, series, [None, MONTHS] * 2 + [None], 100), strict=True
    ):
        np.testing.assert_array_equal(quantiles, one[0])


def test_series_that_cannot_be_forecast_are_named(weights, refused):
    good, few = np.arange(50.0), np.array([np.nan, 3.0, np.nan])
    with refused(DataError, "the shop\\n", "at least 2"):
        forecast_quantiles(weights, [good, few], None, 1, names=["good", "the shop\n"])
    with refused(DataError, "series 0", "512"):
        forecast_quantiles(weights, [np.concatenate([good, np.full(CONTEXT, np.nan)])], None, 1)
    for wild in (1e151, -np.inf):
        series = np.arange(600.0)
        series[550] = wild
        with refused(DataError, "series 1", "row 550"):
            forecast_quantiles(weights, [good, series], None, 1)


def test_wild_weights_are_refused(weights, refused):
    params = map_arrays(lambda array: array * np.float32(1e30), weights.params)
    with refused(DataError, "the shop", "step 1", "weights"):
        forecast_quantiles(Weights(params, weights.widths, {}), [np.arange(50.0)], None, 2, names=["the shop"])


def test_periods_are_found_in_the_last_values(seasonal):
    series = np.concatenate([seasonal(300, 7, 30.0), seasonal(CONTEXT, 24, 30.0)])
    found = periods_of(1e6 + 1e3 * series, "series")
    assert 24 in found
    expected = find_periods(series[None, -CONTEXT:], np.array([CONTEXT]))[0]
    assert found == tuple(expected.tolist())


# --- beyond the last step of the network ----------------------------------------------------------------------------


@pytest.fixture
def spread(rng):
    """Distances of quantiles from the median."""
    return np.concatenate([-np.sort(rng.uniform(0.1, 2, MEDIAN))[::-1], [0], np.sort(rng.uniform(0.1, 2, MEDIAN))])


@pytest.mark.parametrize("period", [2, 7, 12, 24, 40, 64])
@pytest.mark.parametrize("slope", [0.0, -0.3])
def test_a_season_goes_on_along_a_damped_trend(spread, rng, period, slope):
    """Where the forecast is a season on a line, at once after it also what follows is one."""
    season, steps = rng.standard_normal(period), np.arange(-3 * period, 5000)
    path = season[steps % period] + slope * (steps - HEAD)
    start = 3 * period
    values, coming = path[:start], path[start:]
    extended = continue_forecast(coming[:HEAD, None] + spread, values, (period, period), 5000)[:, MEDIAN]
    np.testing.assert_array_equal(extended[:HEAD], coming[:HEAD])
    np.testing.assert_allclose(extended[HEAD : HEAD + 3], coming[HEAD : HEAD + 3], atol=abs(slope) * 0.06)
    flat = extended - season[np.arange(5000) % period]
    assert np.all(np.diff(flat) * slope >= -1e-9)
    assert abs(flat[-1] - flat[HEAD - 1]) <= abs(slope) * 2 * HEAD + 1e-9
    np.testing.assert_allclose(extended[-period:], extended[-2 * period : -period], atol=1e-6)


def test_a_long_season_comes_from_the_series(spread, rng):
    week = rng.standard_normal(168)
    path = week[np.arange(3 * 168 + 400) % 168]
    values, coming = path[: 3 * 168], path[3 * 168 :]
    extended = continue_forecast(coming[:HEAD, None] + spread, values, (24, 168), 400)[:, MEDIAN]
    np.testing.assert_allclose(extended, coming, atol=1e-9)
    trend = 0.01 * np.arange(-3 * 168, 400)
    rising = (coming + trend[3 * 168 :])[:HEAD, None] + spread
    extended = continue_forecast(rising, values + trend[: 3 * 168], (24, 168), 70)[:, MEDIAN]
    np.testing.assert_allclose(extended, (coming + trend[3 * 168 :])[:70], atol=0.01)
    higher = continue_forecast(coming[:HEAD, None] + 5.0 + spread, values, (24, 168), 400)[:, MEDIAN]
    assert (higher[HEAD:] > coming[HEAD:] + 4.9).all()


def test_a_season_that_the_series_does_not_cover_is_left_out(spread, rng):
    median, values = rng.standard_normal(HEAD), rng.standard_normal(100)
    longer = continue_forecast(median[:, None] + spread, values, (24, 168), 200)
    np.testing.assert_array_equal(longer, continue_forecast(median[:, None] + spread, values, (24, 24), 200))


def test_without_a_season_the_last_slope_fades(spread):
    median = np.linspace(1.0, 4.0, HEAD)
    extended = continue_forecast(median[:, None] + spread, np.zeros(3), (1, 1), 2000)[:, MEDIAN]
    slopes = np.diff(extended)
    np.testing.assert_allclose(slopes[HEAD - 1], 3.0 / (HEAD - 1), rtol=0.01)
    assert (np.diff(slopes[HEAD:]) <= 1e-12).all()
    np.testing.assert_allclose(extended[-1], 4.0 + 2 * HEAD * 3.0 / (HEAD - 1), rtol=1e-6)


def test_quantiles_spread_like_those_of_a_random_walk(spread):
    extended = continue_forecast(np.zeros((HEAD, 1)) + spread, np.zeros(200), (1, 1), 4 * HEAD)
    np.testing.assert_allclose(extended[-1], 2 * spread)
    np.testing.assert_allclose(extended[HEAD], spread * np.sqrt((HEAD + 1) / HEAD))


def test_long_forecasts_begin_with_short_ones_and_have_no_steps(weights, seasonal):
    series = [seasonal(400), seasonal(500, 168, 20.0)]
    periods = [MONTHS, (24, 168)]
    long = forecast_quantiles(weights, series, periods, 100)
    np.testing.assert_array_equal(forecast_quantiles(weights, series, periods, 30), long[:, :30])
    jumps = np.abs(np.diff(long[:, :, MEDIAN], axis=1))
    assert (jumps[:, HEAD - 1] <= jumps[:, : HEAD - 1].max(axis=1)).all()


@pytest.mark.cuda
def test_cuda_forecasts_what_the_cpu_does(weights, seasonal):
    series = [seasonal(rows) for rows in (20, 200, 520)]
    quantiles = forecast_quantiles(weights, series, None, 80, device=resolve_device("cuda"))
    for one, other in zip(quantiles, forecast_quantiles(weights, series, None, 80), strict=True):
        assert_alike(one, other, 1e-3)
