"""Files, series and a small forecaster that the tests of forecasting share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gru_xp.devices import Device, resolve_device
from gru_xp.forecasting import Forecaster


@pytest.fixture
def cpu() -> Device:
    return resolve_device("cpu")


@pytest.fixture
def small() -> Callable[..., Forecaster]:
    """``small(**settings)``: a Forecaster that learns in no time."""

    def small(**settings: Any) -> Forecaster:
        return Forecaster(**({"seq_length": 4, "hidden_size": 5, "num_epochs": 5, "learning_rate": 0.02} | settings))

    return small


@pytest.fixture
def walk(rng: np.random.Generator) -> Callable[..., np.ndarray]:
    """``walk(rows, columns=1)``: random walks, shape ``(rows, columns)``, each around its own level."""

    def walk(rows: int, columns: int = 1) -> np.ndarray:
        levels = 50.0 + 40.0 * np.arange(columns)
        return levels + np.cumsum(rng.standard_normal((rows, columns)), axis=0)

    return walk
