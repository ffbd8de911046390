from dataclasses import replace

import numpy as np
import pytest

from gru_xp import Forecaster
from gru_xp.errors import ArgumentError, DataError, NotFittedError
from gru_xp.forecasting.baselines import baselines
from gru_xp.forecasting.guard import naive_instead
from gru_xp.forecasting.presets import PRESETS, RECIPE
from gru_xp.forecasting.recipe import known_origins, step_budget
from gru_xp.forecasting.ridge import PENALTIES, PENALTY
from gru_xp.forecasting.scaling import Scaler
from gru_xp.forecasting.settings import training_config
from gru_xp.forecasting.stages import Hooks, Selection
from gru_xp.io.series import Reading, TimeSeries
from gru_xp.nn.params import arrays_of
from gru_xp.training.trainer import TrainingConfig

QUICK = RECIPE | {"num_steps": 5, "hidden_size": 4}


def daily(rng, rows=300):
    """Days of which every seventh is unlike the others."""
    values = np.resize([5.0, 6, 5, 7, 9, 12, 3], rows) + 0.3 * rng.standard_normal(rows) + 0.01 * np.arange(rows)
    return TimeSeries(values[:, None], ("y",), reading=Reading(freq="D"))


def test_what_is_not_given_is_settled_by_the_training_rows(rng, cpu):
    series = daily(rng)
    forecaster = Forecaster(**QUICK | {"horizon": 3}).fit(series, device=cpu)
    assert forecaster.seasons == (7,)
    assert forecaster.seq_length == "auto"
    assert forecaster.window_length >= 8
    assert forecaster.params.skip.weight.shape == (3, forecaster.window_length)
    with pytest.raises(NotFittedError):
        _ = Forecaster(**QUICK).window_length


def test_what_is_given_holds(rng, cpu):
    series = daily(rng)
    given = {"seq_length": 11, "season": 5, "patches": 4, "horizon": 2}
    forecaster = Forecaster(**QUICK | given).fit(series, device=cpu)
    assert (forecaster.window_length, forecaster.look_back.season, forecaster.seasons) == (11, 5, (5,))
    assert forecaster.params.gru[0][0].input_size == 3
    forecaster = Forecaster(**QUICK | given | {"season": "none"}).fit(series, device=cpu)
    assert (forecaster.look_back.season, forecaster.seasons) == (1, ())
    old = forecaster.describe()
    old |= {"seasons": [12], "settings": old["settings"] | {"season": 12}}
    assert Forecaster.from_description(old).seasons == (12,)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"num_epochs": None, "num_steps": 281, "schedule": "one-cycle", "resolved_reduction": "mean"}),
        ({"num_epochs": 3}, {"num_epochs": 3, "num_steps": None, "schedule": "one-cycle"}),
        ({"patience": 5}, {"num_epochs": 300, "num_steps": None, "schedule": "constant"}),
        ({"optimizer": "sgd"}, {"num_steps": 281, "schedule": "constant", "resolved_reduction": "sum"}),
        ({"optimizer": "sgd", "schedule": "cosine", "reduction": "mean"}, {"schedule": "cosine", "reduction": "mean"}),
    ],
    ids=str,
)
def test_what_is_given_settles_the_number_of_updates_and_their_rates(given, expected):
    config = training_config(Forecaster(**given), 4500)
    assert {name: getattr(config, name) for name in expected} == expected


def test_fewer_rows_than_patches_are_one_value_a_patch(rng, cpu):
    forecaster = Forecaster(**QUICK | {"seq_length": 5, "season": "none", "patches": 8}).fit(daily(rng, 60), device=cpu)
    assert forecaster.params.gru[0][0].input_size == 1
    assert forecaster.params.skip.weight.shape == (1, 5)


def test_a_rest_that_is_there_goes_through_a_file(rng, cpu, tmp_path):
    series = daily(rng)
    forecaster = Forecaster(**QUICK | {"horizon": 3}).fit(series, device=cpu)
    forecaster.save(tmp_path / "model")
    again = Forecaster.load(tmp_path / "model", device=cpu)
    assert (again.look_back, again.seasons, again.fallback) == (forecaster.look_back, (7,), None)
    np.testing.assert_array_equal(again.forecast(series, 8), forecaster.forecast(series, 8))
    description = forecaster.describe()
    assert description["look_back"].pop("penalty") == forecaster.look_back.penalty
    older = Forecaster.from_parts(forecaster.params, description, forecaster.device)  # of when there was but one
    assert older.look_back == replace(forecaster.look_back, penalty=PENALTY)


def test_the_ridge_is_the_closed_form(rng, cpu):
    series = daily(rng)
    forecaster = Forecaster(**RECIPE | {"model": "ridge", "guard": False, "seq_length": 14, "dtype": "float64"})
    forecaster.horizon = 4
    forecaster.fit(series, device=cpu)
    L, h = 14, 4
    target = series.values[:, 0]
    z = np.lib.stride_tricks.sliding_window_view(target, L + h)
    level, unit = z[:, L - 1 : L], z[:, :L].std(axis=1, keepdims=True) + 0.05 * target.std()
    x, y = ((z - level) / unit * unit)[:, :L], (z - level)[:, L:]
    naive = np.zeros((L, h))
    naive[L - 7 + np.arange(h), np.arange(h)] = 1
    A = x.T @ x
    ridges = [
        naive + np.linalg.solve(A + penalty / len(z) * np.trace(A) / L * np.eye(L), x.T @ (y - x @ naive))
        for penalty in PENALTIES
    ]
    expected = min(ridges, key=lambda weight: np.abs(forecaster.params.skip.weight - weight.T).max())
    np.testing.assert_allclose(forecaster.params.skip.weight, expected.T, atol=1e-9)
    last = target[-L:]
    np.testing.assert_allclose(forecaster.forecast(series, h), last[-1] + (last - last[-1]) @ expected, rtol=1e-9)


@pytest.mark.parametrize(("kind", "names"), [("walk", {"last value", "drift"}), ("noise", {"mean"})])
def test_the_guard_forecasts_what_nothing_beats(kind, names, rng, cpu, tmp_path):
    noise = 50 + rng.standard_normal(600)
    values = noise.cumsum() - 50 * np.arange(600) if kind == "walk" else noise
    forecaster = Forecaster(**RECIPE | {"num_steps": 20, "hidden_size": 4, "seq_length": 8}).fit(values, device=cpu)
    name = forecaster.fallback
    assert name in names
    origins = np.array([100, 300])
    expected = baselines(values)[name](values, origins, 5)
    np.testing.assert_allclose(forecaster.forecasts(values, origins.tolist(), 5), expected)
    np.testing.assert_allclose(forecaster.predict(values)[92], expected[0, 0])
    forecaster.save(tmp_path / "model")
    again = Forecaster.load(tmp_path / "model", device=cpu)
    np.testing.assert_array_equal(again.forecast(values, 3), forecaster.forecast(values, 3))
    without = Forecaster(**RECIPE | {"num_steps": 5, "guard": False, "seq_length": 8}).fit(values, device=cpu)
    assert without.fallback is None


def test_with_few_rows_the_guard_judges_the_ridge(cpu):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        noise, seasonal = rng.standard_normal(150), daily(rng, 100)
        assert Forecaster(model="ridge", horizon=3).fit(noise, device=cpu).fallback == "mean"
        assert Forecaster(model="ridge").fit(noise.cumsum(), device=cpu).fallback in ("last value", "drift")
        assert Forecaster(model="ridge", horizon=7).fit(seasonal, device=cpu).fallback is None
    assert Forecaster(**QUICK).fit(noise, device=cpu).fallback == "mean"
    counts = np.abs(noise).round()
    for settings, values in (
        ({"linear_skip": False}, noise),
        ({"loss": "poisson"}, counts),
        ({}, np.stack([noise, counts], axis=1)),
        ({"seq_length": 142, "patches": 0}, noise),  # whose windows are too few for blocks
    ):
        assert Forecaster(**QUICK | settings).fit(values, device=cpu).fallback is None


def test_the_ridge_must_be_better_than_the_best_without_training(rng, cpu, monkeypatch):
    """Which knows the rows before each of five blocks."""
    values, L, h = 3 + 5 * rng.standard_normal(101), 9, 4
    blocks = np.array_split(np.arange(L, 98), 5)
    ahead = [[np.abs(values[origin : origin + h] - values[: block[0]].mean()) for origin in block] for block in blocks]
    error = np.mean([np.mean(block) for block in ahead])
    ridge = Forecaster(model="ridge", seq_length=L, horizon=h, season="none", scaling="last")
    for share, chosen in ((0.95, "mean"), (0.92, None)):  # 1 - 0.3 / sqrt(89 / 4) is 0.936

        def block_forecasts(forecaster, series, origins, folds, missed=share * error):
            return [values[origins[fold.judged][:, None] + np.arange(h)] + missed for fold in folds]

        monkeypatch.setattr("gru_xp.forecasting.guard.block_forecasts", block_forecasts)
        assert ridge.fit(values, device=cpu).fallback == chosen


def test_a_model_must_be_better_than_the_best_without_training(rng):
    series = daily(rng)
    target = series.values[:, 0]
    origins = np.arange(200, 290)
    naive = baselines(target[:200], [7])["seasonal naive"](target, origins, 3)
    actual = target[origins[:, None] + np.arange(3)]
    for share, chosen in ((0.995, "seasonal naive"), (0.9, None), (np.nan, "seasonal naive")):
        forecasts = actual + share * (naive - actual)
        assert naive_instead(series, 200, origins, forecasts[:, None], (7,)) == chosen


def test_rows_after_the_training_part_change_nothing(rng, cpu):
    values = daily(rng, 400).values
    changed = np.concatenate([values[:320], 1e3 * rng.standard_normal((80, 1))])
    settings = RECIPE | {"validation_ratio": 0.2, "num_epochs": 1, "hidden_size": 4, "patience": None}
    first, second = (
        Forecaster(**settings).fit(TimeSeries(v, ("y",), reading=Reading(freq="D")), device=cpu)
        for v in (values, changed)
    )
    assert (first.look_back, first.seasons, first.fallback) == (second.look_back, second.seasons, second.fallback)
    assert first.scaler == second.scaler


def test_steps_by_the_number_of_windows():
    assert [step_budget(n, 64) for n in (1, 2400, 4000, 10**6)] == [150, 150, 250, 400]


def test_origins_are_those_whose_targets_are_there(rng):
    observed = np.ones((12, 1), dtype=bool)
    observed[5] = False
    series = TimeSeries(rng.standard_normal((12, 1)), ("y",), observed=observed)
    assert known_origins(series, 11, 2).tolist() == [1, 2, 3, 6, 7, 8, 9]
    assert known_origins(TimeSeries(series.values, ("y",)), 4, 2).tolist() == [1, 2]


def test_the_recipe_is_the_default():
    assert Forecaster().settings() == RECIPE


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_settings(name):
    assert Forecaster(**PRESETS[name]).settings().items() >= PRESETS[name].items()


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"seq_length": "long"}, "seq_length"),
        ({"season": 1}, "season"),
        ({"season": 12, "seq_length": 5}, "season=12"),
        ({"model": "arima"}, "model"),
        ({"guard": 2}, "guard"),
        ({"model": "ridge", "loss": "quantile"}, "quantile"),
    ],
)
def test_settings_out_of_range_are_refused(settings, part):
    with pytest.raises(ArgumentError, match=part):
        Forecaster(**settings)


def test_scalers_see_the_training_rows_alone(rng, cpu):
    series = daily(rng)
    forecaster = Forecaster(**QUICK | {"validation_ratio": 0.3}).fit(series, device=cpu)
    assert forecaster.scaler == Scaler.fit("window", series.values[:210], ("y",))


@pytest.mark.parametrize(("rows", "needed", "settings"), [(1, 2, {}), (10, 13, {"horizon": 12})])
def test_too_few_rows_are_refused_with_the_number_that_is_enough(rows, needed, settings, rng, cpu, refusal):
    values = rng.standard_normal(needed)
    forecaster = Forecaster(**QUICK | settings)
    error = refusal(lambda: forecaster.fit(values[:rows], device=cpu), f"at least {needed} are needed")
    assert "seq length" not in str(error)
    assert np.isfinite(forecaster.fit(values, device=cpu).forecast(values, 15)).all()


@pytest.mark.parametrize("settings", [{}, {"horizon": 4, "model": "ridge"}], ids=str)
def test_few_rows_with_gaps_and_a_feature_are_learned(settings, rng, cpu):
    values = rng.standard_normal((20, 2)).cumsum(axis=0)
    observed = rng.random((20, 2)) < 0.8
    forecaster = Forecaster(**QUICK | settings).fit(TimeSeries(values, ("a", "b"), observed=observed), device=cpu)
    assert forecaster.params.skip.weight.shape == (forecaster.horizon, forecaster.window_length)
    assert np.isfinite(forecaster.forecast(values, 9)).all()


def test_a_nearly_constant_target_stays_where_it_is(cpu):
    values = np.full(300, 5.0)
    values[7] = 6.0
    np.testing.assert_allclose(Forecaster(**QUICK).fit(values, device=cpu).forecast(values, 3), 5.0, atol=0.05)


def test_a_model_that_cannot_be_trained_without_the_last_rows_is_not_judged(rng, cpu):
    constant = np.concatenate([np.full(560, 5.0), rng.standard_normal(140)])
    missing = TimeSeries(rng.standard_normal((700, 1)), ("a",), observed=np.arange(700)[:, None] >= 560)
    for series, settings in ((constant, {}), (missing, {}), (rng.standard_normal(700), {"seq_length": 580})):
        assert Forecaster(**QUICK | settings).fit(series, device=cpu).fallback is None


def test_a_forecast_without_training_may_be_chosen_by_the_caller(rng, cpu, tmp_path):
    series, settings = daily(rng, 120), QUICK | {"guard": False}
    values = series.values[:, 0]
    for name, baseline in baselines(values, (7,)).items():
        forecaster = Forecaster(**settings).fit(series, device=cpu, fallback=name)
        expected = baseline(values, np.array([120]), 9)[0]
        np.testing.assert_allclose(forecaster.forecasts(series, [120], 9)[0], expected)
        forecaster.save(tmp_path / "model")
        assert Forecaster.load(tmp_path / "model", device=cpu).fallback == name
    states = []
    forecaster.fit(series, device=cpu, fallback=name, pause=lambda *at: states.append(at[2]()) or len(states) > 1)
    assert forecaster.fit(series, device=cpu, state=states[-1]).fallback == name
    assert forecaster.fit(series, device=cpu).fallback is None
    quantiles = Forecaster(**settings | {"loss": "quantile"}).fit(series, device=cpu, fallback="last value")
    low, high = quantiles.forecast_distribution(series, 1)[["GRU-lo-80", "GRU-hi-80"]].to_numpy()[0]
    assert low < values[-1] < high
    for name, guard, said in (("drift", True, "guard=False"), ("seasonal naive (9)", False, "'seasonal naive'")):
        with pytest.raises(ArgumentError, match=said):
            Forecaster(**settings | {"guard": guard}).fit(series, device=cpu, fallback=name)


def test_forecasts_that_are_no_numbers_lose(rng, cpu, monkeypatch):
    def refuse(*_):
        raise DataError("the model predicts inf")

    monkeypatch.setattr("gru_xp.forecasting.guard.forecast_origins", refuse)
    assert Forecaster(**QUICK | {"seq_length": 14}).fit(daily(rng, 600), device=cpu).fallback == "seasonal naive"


def test_a_second_fit_chooses_anew_unless_it_is_refused(rng, cpu):
    noise, seasonal = 50 + rng.standard_normal(600), daily(rng)
    forecaster = Forecaster(**QUICK).fit(noise, device=cpu)
    assert forecaster.fallback == "mean"
    before = forecaster.forecast(noise, 3)
    missing = TimeSeries(seasonal.values, ("y",), reading=seasonal.reading, observed=np.zeros((300, 1), dtype=bool))
    with pytest.raises(DataError, match="missing"):
        forecaster.fit(missing, device=cpu)
    np.testing.assert_array_equal(forecaster.forecast(noise, 3), before)
    again, anew = forecaster.fit(seasonal, device=cpu), Forecaster(**QUICK).fit(seasonal, device=cpu)
    assert (again.look_back, again.seasons, again.fallback) == (anew.look_back, (7,), anew.fallback)
    np.testing.assert_array_equal(again.forecast(seasonal, 9), anew.forecast(seasonal, 9))


@pytest.mark.parametrize(
    "settings",
    [
        {"num_epochs": 9, "schedule": "constant", "learning_rate": 0.001},
        {"num_steps": 31, "schedule": "constant", "linear_skip": False},
        {"patience": 2, "batch_size": None, "scaling": "standard", "linear_skip": False},
    ],
    ids=str,
)
def test_a_refit_is_a_training_on_all_rows_for_the_epochs_found(settings, rng, cpu):
    series, names, records = daily(rng, 160), [], []
    common = {"seq_length": 14, "season": 7, "hidden_size": 4, "learning_rate": 0.02, "validation_ratio": 0.25}
    settings = {"batch_size": 20} | common | settings
    found = Forecaster(**settings, refit=False, guard=False).fit(series, device=cpu)
    again = Forecaster(**settings, refit=True)
    again.fit(series, device=cpu, callback=records.append, on_stage=names.append)
    assert again.selection.best_epoch == found.best_epoch > 0
    assert [record.cost for record in again.selection.history] == [record.cost for record in found.training.history]
    assert [(stage.name, stage.rows) for stage in names] == [("training", 120), ("refit", 160)]
    assert len(records) == len(again.selection.history) + len(again.training.history)
    batches = (1, 1) if settings["batch_size"] is None else (6, 8)  # of 106 and 146 windows
    steps = min(found.best_epoch * batches[0], 31) if "num_steps" in settings else found.best_epoch * batches[1]
    assert names[1].num_steps == steps
    changed = {"num_epochs": None, "patience": None, "num_steps": steps, "validation_ratio": 0.0, "guard": False}
    whole = Forecaster(**settings | changed | {"schedule": "constant"}).fit(series, device=cpu)
    for ours, theirs in zip(arrays_of(again.params), arrays_of(whole.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again.scaler == whole.scaler


def test_a_refit_takes_the_learning_rates_that_were_validated():
    config = TrainingConfig(num_epochs=10, learning_rate=1.0, schedule="one-cycle", batch_size=8)
    again = Selection(4, (), "num_epochs", np.zeros(0)).again(config, 40, 56)  # 5 and 7 updates an epoch
    assert (again.num_steps, again.stop_after, again.steps(56)) == (70, 28, 28)
    assert again.learning_rate_at(28, 70) == config.learning_rate_at(20, 50)
    counted = Selection(4, (), "num_steps", np.zeros(0)).again(replace(config, num_epochs=None, num_steps=18), 40, 56)
    assert (counted.num_steps, counted.stop_after) == (18, 18)


def test_a_refit_needs_validation_rows_and_a_training_that_ended(rng, cpu):
    with pytest.raises(ArgumentError, match="validation_ratio"):
        Forecaster(refit=True)
    stopped = Forecaster(**QUICK | {"refit": True, "validation_ratio": 0.2})
    stopped.fit(daily(rng, 90), device=cpu, callback=lambda record: record.epoch == 1)
    assert stopped.selection is None
    assert stopped.training.stop_reason == "callback"


def test_a_refit_that_is_stopped_leaves_the_model_of_the_training_before(rng, cpu):
    series, settings = daily(rng, 90), QUICK | {"validation_ratio": 0.2, "guard": False, "scaling": "standard"}
    selected = Forecaster(**settings).fit(series, device=cpu)

    def hooks(stage):
        return Hooks(lambda record: stage.name == "refit" and record.epoch == 1)

    stopped = Forecaster(**settings | {"refit": True}).fit(series, device=cpu, on_stage=hooks)
    assert (stopped.training.stop_reason, stopped.refit_ended) == ("callback", False)
    assert stopped.best_epoch == selected.best_epoch > 1
    np.testing.assert_array_equal(stopped.forecast(series, 3), selected.forecast(series, 3))
    assert stopped.fit(series, device=cpu).refit_ended


def test_a_guard_that_is_stopped_does_not_decide(rng, cpu):
    noise, stages = rng.standard_normal(700), []

    def hooks(stage):
        stages.append(stage.name)
        return Hooks(pause=lambda epoch, *_: epoch >= 1) if stage.name == "guard" else None

    forecaster = Forecaster(**QUICK | {"num_steps": 30}).fit(noise, device=cpu, on_stage=hooks)
    assert stages == ["training", "guard"]
    assert (forecaster.fallback, forecaster.guard_ended) == (None, False)
    assert forecaster.training.stop_reason == "num_steps"
    again = forecaster.fit(noise, device=cpu)
    assert (again.fallback, again.guard_ended) == ("mean", True)
