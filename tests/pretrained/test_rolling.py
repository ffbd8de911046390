import numpy as np
import pytest

from gru_xp.pretrained import weights as weights_module
from gru_xp.pretrained.features import CONTEXT, HEAD, MEDIAN
from gru_xp.pretrained.forecaster import ZeroShotForecaster
from gru_xp.pretrained.network import init_zero_shot_params
from gru_xp.pretrained.predicting import forecast_quantiles
from gru_xp.pretrained.rolling import BLOCK, context_start, fast_forecast, rolling_medians

pytestmark = pytest.mark.compat


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a small network that has learned nothing, whose head is not as small as it begins."""
    params = init_zero_shot_params(hidden_size=5, xp=np, seed=2, dtype=np.float32)
    params = params._replace(head=params.head._replace(weight=5 * params.head.weight))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    weights_module.save_weights(path, params)
    return weights_module.load_weights(path)


def one_by_one(weights, values, origins, periods, steps):
    known = [values[context_start(origin) : origin] for origin in origins]
    return forecast_quantiles(weights, known, periods, steps)[:, :, MEDIAN]


def assert_alike(actual, desired):
    """Nearly all to within a part of what the forecasts differ by, as the network computes in float32.

    The scale of a first patch of one value is rounding alone.
    """
    difference = np.abs(actual - desired) / np.ptp(desired)
    assert np.quantile(difference, 0.99) < 1e-4
    assert difference.max() < 3e-3


@pytest.mark.parametrize("kind", ["walk", "season", "jump", "constant first"])
def test_each_forecast_is_as_if_it_were_alone(kind, weights, rng, cpu):
    rows = np.arange(900)
    values = 1e3 + rng.standard_normal(900).cumsum()
    if kind == "season":
        values += 30 * np.sin(2 * np.pi * rows / 24)
    elif kind == "jump":
        values[700:] += 3e5
    elif kind == "constant first":
        values[:500] = 7.0
    pair = (24, 168) if kind == "season" else (1, 1)
    origins = np.array([*range(2, 40), *range(505, 600), *range(690, 901, 3)])
    periods = [pair] * len(origins)
    found = rolling_medians(weights, values, origins, periods, 5, device=cpu)
    expected = one_by_one(weights, values, origins, periods, 5)
    assert_alike(found, expected)


def test_rows_that_follow_change_nothing(weights, rng, cpu):
    values = rng.standard_normal(700).cumsum()
    origins, periods = np.arange(530, 640), [(12, 12)] * 110
    before = rolling_medians(weights, values, origins[:60], periods[:60], HEAD, device=cpu)
    values[590:] += 40 * rng.standard_normal(110)
    after = rolling_medians(weights, values, origins, periods, HEAD, device=cpu)
    assert_alike(after[:60], before)


def test_contexts_are_long_and_shared(cpu):
    origins = np.arange(CONTEXT, 3 * CONTEXT)
    lengths = np.array([origin - context_start(origin) for origin in origins])
    assert (lengths.min(), lengths.max()) == (CONTEXT - BLOCK + 16, CONTEXT)
    assert len({(context_start(origin), origin % 16) for origin in origins}) == len(origins) / 8
    assert context_start(90) == 0


def test_the_order_of_origins_is_kept(weights, rng, cpu):
    values = rng.standard_normal(300).cumsum()
    origins = rng.permutation(np.arange(250, 300))
    found = rolling_medians(weights, values, origins, [(1, 1)] * 50, 1, device=cpu)
    in_order = rolling_medians(weights, values, np.sort(origins), [(1, 1)] * 50, 1, device=cpu)
    np.testing.assert_array_equal(found[np.argsort(origins)], in_order)
    with pytest.raises(ValueError, match="65"):
        rolling_medians(weights, values, origins, [(1, 1)] * 50, HEAD + 1, device=cpu)


def test_as_a_row_of_a_table(weights, rng):
    """With the seasons before each block, one value, or many steps."""
    rows = np.arange(420)
    values = 20 + rng.standard_normal(420) + 9 * np.sin(2 * np.pi * rows / 12) * (rows < 300)
    for season, horizon in (("auto", 4), ((7, 12), 4), ("none", HEAD + 3)):
        forecaster = ZeroShotForecaster(season=season, weights=weights, device="cpu")
        origins = np.array([1, *range(200, 230), *range(390, 400)])
        found = fast_forecast(forecaster, "MS")(values, origins, horizon, 1)
        np.testing.assert_array_equal(found[0], values[0])
        expected = []
        for origin in origins[1:].tolist():
            first = next(other for other in origins.tolist() if other // BLOCK == origin // BLOCK and other > 1)
            seasons = forecaster.seasons_of(values[:first]) or "none"
            alone = ZeroShotForecaster(season=seasons, weights=weights, device="cpu")
            expected.append(alone.forecast(values[:origin], horizon))
        assert_alike(found[1:], np.array(expected))
