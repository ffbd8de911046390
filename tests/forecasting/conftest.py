"""Files, series and a small forecaster that the tests of forecasting share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gru_xp.devices import Device, resolve_device
from gru_xp.forecasting import Forecaster, fitting

PLAIN = {
    "seq_length": 4,
    "hidden_size": 5,
    "num_epochs": 5,
    "learning_rate": 0.02,
    "validation_ratio": 0.2,
    "patience": 50,
    "scaling": "last",
    "loss": "mse",
    "optimizer": "adam",
    "beta2": 0.999,
    "schedule": "constant",
    "batch_size": None,
    "clip_norm": None,
    "patches": 0,
    "linear_skip": False,
    "guard": False,
}
"""A GRU alone that sees each row, on full batches, and whose best epoch is chosen by validation rows."""


@pytest.fixture(autouse=True)
def no_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody work out the memory that the few rows here take."""
    monkeypatch.setattr(fitting, "check_memory", lambda *arguments: None)


@pytest.fixture
def cpu() -> Device:
    return resolve_device("cpu")


@pytest.fixture
def small() -> Callable[..., Forecaster]:
    """``small(**settings)``: a Forecaster that learns in no time; with `PLAIN` settings, but for those given."""

    def small(**settings: Any) -> Forecaster:
        return Forecaster(**(PLAIN | settings))

    return small


@pytest.fixture
def walk(rng: np.random.Generator) -> Callable[..., np.ndarray]:
    """``walk(rows, columns=1)``: random walks, shape ``(rows, columns)``, each around its own level."""

    def walk(rows: int, columns: int = 1) -> np.ndarray:
        levels = 50.0 + 40.0 * np.arange(columns)
        return levels + np.cumsum(rng.standard_normal((rows, columns)), axis=0)

    return walk
