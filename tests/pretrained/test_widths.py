import numpy as np
import pytest

from gru_xp.pretrained import widths
from gru_xp.pretrained.features import HEAD, LEVELS, squash
from gru_xp.pretrained.training import Batch
from gru_xp.pretrained.weights import Weights


def test_factors_make_the_intervals_hold_their_share(monkeypatch):
    """Of values whose deviation grows with the step, and forecasts that say it is 1."""
    rng = np.random.default_rng(0)
    deviation = np.linspace(1, 2, HEAD)
    normal = [-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816]
    assert len(normal) == len(LEVELS)

    class Fake:
        def __init__(self, seed):
            assert seed == 7

        def held_out(self, number):
            values = squash((deviation * rng.standard_normal((1500, 1, HEAD))).astype(np.float32))
            weight = np.ones((1500, 1, HEAD))
            weight[:5] = 0
            values[:5] = 50
            return Batch(values, values[..., None, :], values, weight)

    monkeypatch.setattr(widths, "Batches", Fake)
    quantiles = squash(np.array(normal, dtype=np.float32))
    monkeypatch.setattr(widths, "predict", lambda x, *_: np.tile(quantiles[None, :, None], (len(x), 1, HEAD)))
    monkeypatch.setattr(widths, "BATCHES", 4)
    monkeypatch.setattr(widths, "COVERAGE", 0.8)
    factors = widths.fit_widths(Weights(None, np.ones(HEAD), {}), 7)
    assert factors[4:-4] == pytest.approx(deviation[4:-4], rel=0.05)
