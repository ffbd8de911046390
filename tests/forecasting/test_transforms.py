"""Transforms of the target and limits of its forecasts, from the training to the file."""

import math
import pickle

import numpy as np
import pytest

from gru_xp import Forecaster
from gru_xp.errors import ArgumentError, DataError
from gru_xp.forecasting.choosing_transform import choose_transform, growth_of_variance
from gru_xp.forecasting.transforms import TargetTransform
from gru_xp.io.series import TimeSeries

TINY = {"seq_length": 6, "season": "none", "hidden_size": 3, "num_steps": 3, "guard": False, "dtype": "float64"}
INVERSES = {"log": np.exp, "sqrt": np.square}
ROWS = 90


@pytest.fixture
def positive(rng):
    """Values above 0, around a level that moves."""
    return np.exp(2.0 + 0.1 * np.cumsum(rng.standard_normal(ROWS)))


@pytest.mark.parametrize("kind", ["log", "sqrt", "diff"])
def test_what_is_transformed_comes_back(kind, positive):
    transform, rows = TargetTransform(kind), 7 + np.arange(20)[:, None] + np.arange(4)
    learned = transform.apply(TimeSeries(np.stack([positive, -positive], axis=1), ("y", "x")))
    np.testing.assert_array_equal(learned.values[:, 1], -positive)
    back = transform.inverse(learned.values[rows, 0][:, None], positive[rows[:, 0] - 1])[:, 0]
    np.testing.assert_allclose(back, positive[rows], rtol=1e-14)


@pytest.mark.parametrize("settings", [{"loss": "mae", "horizon": 2}, {"loss": "quantile"}], ids=str)
@pytest.mark.parametrize("kind", INVERSES)
def test_a_forecaster_of_a_transform_is_one_of_the_transformed_series(kind, settings, positive, cpu, tmp_path):
    """Points and quantiles of the other one, transformed back by hand; also from its file and a pickle."""
    learned = {"log": np.log, "sqrt": np.sqrt}[kind](positive)
    forecaster = Forecaster(**TINY, **settings, transform=kind).fit(positive[:70], device=cpu)
    other = Forecaster(**TINY, **settings).fit(learned[:70], device=cpu)
    forecasts, origins = forecaster.forecast_distributions(positive, range(6, 80), 5), range(6, 80)
    for name, of_other in other.forecast_distributions(learned, origins, 5).items():
        np.testing.assert_allclose(forecasts[name], INVERSES[kind](of_other), rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(forecaster.predict(positive), INVERSES[kind](other.predict(learned)), rtol=1e-12)
    forecaster.save(tmp_path / "model.safetensors")
    for again in (Forecaster.load(tmp_path / "model.safetensors", device=cpu), pickle.loads(pickle.dumps(forecaster))):
        np.testing.assert_array_equal(again.forecast(positive, 5), forecaster.forecast(positive, 5))


def test_changes_add_up(positive, cpu):
    settings = TINY | {"linear_skip": False, "horizon": 3}
    forecaster = Forecaster(**settings, transform="diff").fit(positive[:70], device=cpu)
    other = Forecaster(**settings).fit(np.diff(positive[:70]), device=cpu)
    assert forecaster.window_length == 7
    origins = np.arange(7, ROWS)
    changes = other.forecasts(np.diff(positive), origins - 1, 5)
    expected = positive[origins - 1, None] + np.cumsum(changes, axis=1)
    np.testing.assert_allclose(forecaster.forecasts(positive, origins, 5), expected, rtol=1e-12)
    of_two = forecaster.forecast_all({"a": positive[:50], "b": positive[:60]}, 5)
    np.testing.assert_allclose([of_two["a"], of_two["b"]], expected[[50 - 7, 60 - 7]], rtol=1e-12)
    with pytest.raises(DataError, match="at least 7"):
        forecaster.forecast(positive[:6], 1)


@pytest.mark.parametrize(("loss", "is_mean"), [("mse", True), ("gaussian", True), ("mae", False), ("quantile", False)])
def test_points_are_means_or_medians(loss, is_mean, rng, cpu):
    """Of a log-normal distribution, whose mean is 28 % above its median."""
    values = np.exp(1.0 + 0.7 * rng.standard_normal(600))
    settings = {"seq_length": 8, "season": "none", "hidden_size": 2, "num_steps": 60, "guard": False, "loss": loss}
    forecaster = Forecaster(**settings, transform="log", scaling="standard").fit(values[:500], device=cpu)
    typical = float(np.mean(forecaster.predict(values)))
    assert typical == pytest.approx(math.exp(1.0 + (0.7**2 / 2 if is_mean else 0.0)), rel=0.1)


def test_the_mean_of_a_square(rng):
    transform, deviation = TargetTransform("sqrt"), 0.3
    simulated = (2.0 + deviation * rng.standard_normal(200_000)) ** 2
    assert transform.mean_from(np.array([[2.0]]), np.array([deviation**2]))[0, 0] == pytest.approx(
        simulated.mean(), rel=2e-3
    )


@pytest.mark.parametrize("settings", [{"loss": "gaussian"}, {"loss": "mse", "transform": "sqrt"}, {"model": "ridge"}])
def test_all_forecasts_are_within_the_limits(settings, rng, cpu):
    values = np.maximum(3 * rng.standard_normal(120) - 1.0, 0.0)
    limits = {"minimum": 0.25, "maximum": 0.5}
    with pytest.raises(DataError, match=r"0 is below the minimum of the forecasts, 0\.25"):
        Forecaster(**TINY, **settings, **limits).fit(values, device=cpu)
    forecaster = Forecaster(**TINY, **settings).fit(values[:90], device=cpu)
    free = forecaster.forecast_distributions(values, range(90, 110), 4)
    forecaster.minimum, forecaster.maximum = limits.values()
    limited = forecaster.forecast_distributions(values, range(90, 110), 4)
    assert max(map(np.max, free.values())) > 0.5
    for name, forecasts in free.items():
        np.testing.assert_array_equal(limited[name][:, :1], np.clip(forecasts[:, :1], 0.25, 0.5), err_msg=name)
        assert np.min(limited[name]) >= 0.25
        assert np.max(limited[name]) <= 0.5
    result = forecaster.evaluate(values, 4, start=90)
    assert all(forecasts.min() >= 0.25 for name, forecasts in result.forecasts.items() if name in ("GRU", "ridge"))


def test_a_forecast_without_training_has_the_mean_of_the_data(rng, cpu):
    """Noise is forecast by its mean, which is not that of the logarithms."""
    values = np.exp(0.8 * rng.standard_normal(700))
    settings = {"seq_length": 8, "season": "none", "hidden_size": 2, "num_steps": 2, "transform": "log", "loss": "mse"}
    forecaster = Forecaster(**settings, scaling="standard").fit(values, device=cpu)
    forecaster.fallback = "mean"
    np.testing.assert_allclose(forecaster.forecast(values, 2), values.mean())


def growing(rng, rows=240):
    """A level that grows, with a season and noise that do, too."""
    season = 0.8 * np.sin(np.arange(rows) * np.pi / 6)
    return np.exp(3.0 + 0.01 * np.arange(rows) + season + 0.05 * rng.standard_normal(rows))


def test_auto_takes_a_transform_where_the_variance_grows(rng, cpu):
    grows, constant = growing(rng), np.exp(3.0 + 0.01 * np.arange(240)) + 20 * rng.random(240)
    assert growth_of_variance(grows) < 1e-3
    assert growth_of_variance(constant) > 0.05
    assert growth_of_variance(grows[:40]) is None
    settings = TINY | {"seq_length": 12, "season": 12}
    forecaster = Forecaster(**settings | {"transform": "auto", "guard": True}).fit(grows, device=cpu)
    choice = forecaster.notes["transform"]
    assert forecaster.target_transform.kind == choice["name"] == "log"
    assert choice["errors"]["log"] == min(choice["errors"].values())
    assert "log" in choice["reason"]
    assert Forecaster(**TINY | {"transform": "auto"}).fit(constant, device=cpu).target_transform.kind == "none"


def test_auto_takes_none_that_the_values_do_not_allow(rng, cpu):
    values = growing(rng)
    forecaster = Forecaster(**TINY)
    for shifted, allowed in ((values - values.min(), {"none", "sqrt"}), (values - values.max(), set())):
        series = TimeSeries(shifted[:, None], ("y",))
        assert choose_transform(Forecaster, forecaster, series, cpu).errors.keys() == allowed


REFUSED = {
    "poisson": ({"transform": "log", "loss": "poisson"}, "counts"),
    "no such transform": ({"transform": "cube"}, "transform"),
    "quantiles of changes": ({"transform": "diff", "loss": "quantile", "horizon": 2}, "horizon of 1"),
    "no room": ({"minimum": 2, "maximum": 1}, "minimum is 2"),
    "nothing positive": ({"transform": "log", "maximum": 0}, "maximum is 0"),
    "no number": ({"minimum": math.nan}, "minimum is nan"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(ArgumentError, match=message):
        Forecaster(**settings)


def test_values_that_have_no_logarithm_are_named(positive, cpu):
    positive[11] = 0.0
    with pytest.raises(DataError, match=r"row 11, column \w+: 0 must be above 0 .*sqrt.*none"):
        Forecaster(**TINY, transform="log").fit(positive, device=cpu)
    forecaster = Forecaster(**TINY, transform="log").fit(positive[12:], device=cpu)
    with pytest.raises(DataError, match="row 11"):
        forecaster.forecast(positive, 1)


@pytest.mark.parametrize("kind", ["log", "diff"])
def test_what_leaves_nothing_to_learn_is_named_in_the_units_of_the_data(kind, refused):
    with refused(DataError, "constant", "forecast is 7,"):
        Forecaster(transform=kind, num_steps=1, seq_length=4).fit(np.full(60, 7.0), device="cpu")
    if kind == "diff":
        with refused(DataError, "changes by 2 ", "transform"):
            Forecaster(transform=kind, num_steps=1, seq_length=4).fit(10 + 2.0 * np.arange(60), device="cpu")
