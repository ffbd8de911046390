import numpy as np
import pytest

from gru_xp.forecasting import Forecaster
from gru_xp.forecasting.data import series_to_learn
from gru_xp.forecasting.naive_loss import naive_loss
from gru_xp.forecasting.scaling import FLOOR


@pytest.fixture(scope="module")
def walk():
    return 30 + np.cumsum(np.random.default_rng(2).normal(size=120))


@pytest.mark.parametrize(("loss", "of"), [("mae", np.abs), ("mse", np.square)])
@pytest.mark.parametrize("validation_ratio", [0.0, 0.25])
def test_the_loss_of_the_last_value(walk, loss, of, validation_ratio):
    """Errors in the units of the scaling; of windows with units of their own, in their mean unit."""
    train = 120 - round(120 * validation_ratio)
    first = 5 if train == 120 else train
    error = of(np.diff(walk))[first - 1 :]
    windows = np.lib.stride_tricks.sliding_window_view(walk[: train - 1], 5)
    spread = walk[:train].std()
    for scaling, unit in (
        ("standard", spread),
        ("last", np.diff(walk[:train]).std()),
        ("window", np.mean(windows.std(axis=1) + FLOOR * spread)),
    ):
        forecaster = Forecaster(
            model="ridge", seq_length=5, season="none", scaling=scaling, loss=loss, validation_ratio=validation_ratio
        ).fit(walk, device="cpu")
        name, found = naive_loss(forecaster, series_to_learn(walk))
        expected = error.mean() / of(unit)
        assert found <= expected * (1 + 1e-9), scaling
        if name == "last value":
            assert found == pytest.approx(expected), scaling


def test_levels_change_nothing(walk):
    found = [
        naive_loss(
            Forecaster(model="ridge", seq_length=5, horizon=3, loss="mae", levels=levels).fit(walk, device="cpu"),
            series_to_learn(walk),
        )
        for levels in ((), 80)
    ]
    assert found[0] is not None
    assert found[1] == found[0]


def test_there_is_none_for_distributions_or_too_few_rows(walk):
    forecaster = Forecaster(hidden_size=2, num_epochs=1, seq_length=5, loss="gaussian").fit(walk, device="cpu")
    assert naive_loss(forecaster, series_to_learn(walk)) is None
    ridge = Forecaster(model="ridge", seq_length=5).fit(walk, device="cpu")
    assert naive_loss(ridge, series_to_learn(walk[:4])) is None
