"""Forecasts of several steps at once, from patches, and beside a linear skip."""

import pickle

import numpy as np
import pytest

from gru_xp import Forecaster
from gru_xp.errors import ArgumentError, DataError, MemoryLimitError
from gru_xp.forecasting import predicting
from gru_xp.forecasting.checkpoint import load_checkpoint, save_checkpoint
from gru_xp.forecasting.data import series_to_learn
from gru_xp.forecasting.description import OLD_SETTINGS
from gru_xp.forecasting.scaling import SCALINGS
from gru_xp.io.series import TimeSeries
from gru_xp.nn.network import network_forward
from gru_xp.nn.params import arrays_of, flatten
from gru_xp.training import objective

pytestmark = pytest.mark.compat

SETTINGS = {
    "horizon": {"horizon": 3},
    "patches": {"patches": 2, "seq_length": 5, "scaling": "window"},
    "skip": {"linear_skip": True, "scaling": "robust", "reset": "after"},
    "all": {"horizon": 4, "patches": 3, "linear_skip": True, "seq_length": 7, "scaling": "none", "bidirectional": True},
}
"""The second and the last fill their first patch."""
CASES = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


@pytest.fixture
def rows(walk):
    return walk(70, 2)


@pytest.fixture
def learn(small, rows, cpu):
    """``learn(**settings)``: a forecaster that has learned the first 60 rows, in float64."""
    return lambda rows=rows, **settings: small(dtype="float64", **settings).fit(rows[:60], device=cpu)


@CASES
def test_forecasts_are_the_networks_in_blocks_of_the_horizon(learn, rows, settings):
    forecaster = learn(**settings)
    L, h, scaler = forecaster.seq_length, forecaster.horizon, forecaster.scaler
    k = -(-L // forecaster.patches) if forecaster.patches else 1
    assert forecaster.params.gru[0][0].weight_ih.shape == (15, 2 * k)
    assert forecaster.params.linear.weight.shape[0] == h
    assert (forecaster.params.skip is not None) == forecaster.linear_skip
    known, expected = rows[:60], []
    while len(expected) < 9:
        window = known[None, -L:]
        y, _ = network_forward(scaler.scale_windows(window), forecaster.params)
        ahead = scaler.unscale_predictions(y, window)[0]
        expected += ahead.tolist()
        known = np.concatenate([known, np.stack([ahead, np.repeat(known[-1, 1], h)], axis=1)])
    np.testing.assert_allclose(forecaster.forecast(rows[:60], 9), expected[:9], rtol=1e-11)
    one_step = forecaster.predict(rows)
    assert one_step.shape == (70 - L,)
    assert one_step[60 - L] == pytest.approx(expected[0], rel=1e-11)
    np.testing.assert_allclose(forecaster.forecasts(rows, [60, 30], 9)[0], expected[:9], rtol=1e-11)


@pytest.mark.parametrize("at_once", [1, 4, 50])
def test_many_windows_are_predicted_some_at_a_time(learn, rows, monkeypatch, at_once):
    """As many as are planned, or, where memory runs out, half as many, and so on."""
    forecaster, origins = learn(**SETTINGS["horizon"]), [*range(20, 70)]
    expected = forecaster.forecasts(rows, origins, 5), forecaster.predict(rows)
    sizes = []

    def predict(params, x, *arguments, original=predicting.predict, **options):
        sizes.append(len(x))
        if len(x) > at_once:
            raise MemoryError
        return original(params, x, *arguments, **options)

    monkeypatch.setattr(predicting, "predict", predict)
    monkeypatch.setattr(objective, "MAX_PREDICTED", 17 * 2 * (forecaster.window_length + 5))
    for found, known in zip((forecaster.forecasts(rows, origins, 5), forecaster.predict(rows)), expected, strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-11)
    assert max(sizes) < 50
    at_once = 0
    with pytest.raises(MemoryLimitError, match="fewer rows"):
        forecaster.forecasts(rows, origins, 5)


@CASES
def test_a_model_goes_through_files_and_pickle(learn, rows, tmp_path, settings):
    forecaster = learn(**settings)
    forecaster.save(tmp_path / "model.safetensors")
    for again in (
        Forecaster.load(tmp_path / "model.safetensors", device="cpu"),
        pickle.loads(pickle.dumps(forecaster)),
    ):
        assert again.settings() == forecaster.settings()
        assert again.forecast(rows, 9).tolist() == forecaster.forecast(rows, 9).tolist()


def test_a_training_goes_on_from_a_checkpoint(small, rows, cpu, tmp_path):
    settings = {**SETTINGS["all"], "batch_size": 7}
    whole, stopped = small(**settings).fit(rows, device=cpu), small(**settings)
    series, path = series_to_learn(rows), tmp_path / "checkpoint.safetensors"

    def pause(epoch, batches, state):
        if (epoch, batches) == (2, 3):
            save_checkpoint(path, stopped, state(), series, {})
            return True
        return False

    stopped.fit(series, device=cpu, pause=pause)
    checkpoint = load_checkpoint(path)
    again = checkpoint.forecaster.fit(checkpoint.series, device=cpu, state=checkpoint.state)
    assert flatten(again.params).tolist() == flatten(whole.params).tolist()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_nothing_is_learned_from_later_rows(small, rows, cpu, scaling):
    """Not even one of the targets of a window is in the part that chooses the epoch."""
    learned = []
    for change in (0.0, 1e3):
        changed = rows.copy()
        changed[48:] += change
        forecaster = small(
            **SETTINGS["all"] | {"scaling": scaling, "num_epochs": 3, "patience": None, "clip_norm": 1.0}
        )
        states = []
        forecaster.fit(
            changed[:60],
            device=cpu,
            pause=lambda *at: states.append(at[2]().theta) if at[1] == 0 else None,  # noqa: B023
        )
        learned.append((forecaster.scaler, states[-1].tobytes(), [r.cost for r in forecaster.training.history]))
    assert learned[0] == learned[1]


def test_windows_with_a_missing_target_are_left_out(small, rows, cpu):
    observed = np.ones((70, 2), dtype=bool)
    observed[[20, 33], 0] = False
    series = TimeSeries(rows, ("a", "b"), observed=observed)
    forecaster = small(horizon=3, seq_length=6, patches=2, dtype="float64", validation_ratio=0).fit(series, device=cpu)
    starts = [s for s in range(70 - 6 - 3 + 1) if observed[s + 6 : s + 9, 0].all()]
    windows = np.stack([rows[s : s + 6] for s in starts])
    marks = np.stack([observed[s : s + 6] for s in starts]).astype(float)
    scaler, best = forecaster.scaler, forecaster.training
    x = np.concatenate([scaler.scale_windows(windows), marks], axis=2)
    y = scaler.scale_targets(np.stack([rows[s + 6 : s + 9, 0] for s in starts]), windows)
    cost = np.mean((network_forward(x, best.params)[0] - y) ** 2)
    assert best.history[best.best_epoch].cost == pytest.approx(cost, rel=1e-9)
    observed[:, 0] = np.arange(70) % 3 > 0
    with pytest.raises(DataError, match="every target of 3 steps of the train part"):
        small(horizon=3).fit(series, device=cpu)


def test_too_few_rows_for_a_horizon(small, rows, cpu):
    with pytest.raises(DataError, match=r"^20 rows .* a horizon of 9 .*: at least 43 .* horizon"):
        small(horizon=9).fit(rows[:20], device=cpu)
    small(horizon=9).fit(rows[:43], device=cpu)


def test_fewer_rows_than_patches_are_one_step_each(small, rows, cpu):
    forecaster = small(patches=8).fit(rows, device=cpu)
    plain = small().fit(rows, device=cpu)
    assert [a.tolist() for a in arrays_of(forecaster.params)] == [a.tolist() for a in arrays_of(plain.params)]


def test_wrong_settings():
    for settings, word in (
        ({"horizon": 0}, "horizon"),
        ({"horizon": 1.5}, "horizon"),
        ({"patches": -1}, "patches"),
        ({"linear_skip": 1}, "linear_skip"),
    ):
        with pytest.raises(ArgumentError, match=f"^{word} is"):
            Forecaster(**settings)


def test_a_description_from_before_there_were_such_settings(learn, rows):
    forecaster = learn()
    description = forecaster.describe()
    assert OLD_SETTINGS.keys() == forecaster.settings().keys()  # also those whose defaults may change later
    for name in ("horizon", "patches", "linear_skip", "guard", "loss", "schedule", "beta2", "num_steps", "model"):
        del description["settings"][name]
    again = Forecaster.from_parts(forecaster.params, description, forecaster.device)
    assert again.settings() == forecaster.settings()
    assert again.forecast(rows, 5).tolist() == forecaster.forecast(rows, 5).tolist()
