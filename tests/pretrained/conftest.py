"""A small network that tests of the pretrained one share."""

import numpy as np
import pytest

from gru_xp.devices import Device, resolve_device
from gru_xp.nn.params import map_arrays
from gru_xp.pretrained.features import HEAD
from gru_xp.pretrained.network import init_zero_shot_params
from gru_xp.pretrained.weights import Weights


@pytest.fixture(scope="session")
def weights() -> Weights:
    """Of a network of 6 hidden units whose quantiles cross, with another width for each step."""
    rng = np.random.default_rng(5)
    params = init_zero_shot_params(hidden_size=6, xp=np, seed=3, dtype=np.float32)
    params = map_arrays(lambda array: array + 0.3 * rng.standard_normal(array.shape, dtype=np.float32), params)
    return Weights(params, rng.uniform(0.5, 2.0, HEAD), {"made by": "a test"})


@pytest.fixture(scope="session")
def cpu() -> Device:
    return resolve_device("cpu")


@pytest.fixture
def seasonal(rng):
    """``seasonal(rows, period=12, size=5.0)``: a random walk with a season."""

    def seasonal(rows: int, period: int = 12, size: float = 5.0) -> np.ndarray:
        season = np.sin(2 * np.pi * np.arange(rows) / period)
        return 100 + np.cumsum(rng.standard_normal(rows)) + size * season

    return seasonal
