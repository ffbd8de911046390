"""Files, series and a small forecaster that the tests of forecasting share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gru_xp.devices import Device, resolve_device
from gru_xp.errors import DataError
from gru_xp.forecasting import Forecaster


@pytest.fixture
def cpu() -> Device:
    return resolve_device("cpu")


@pytest.fixture(scope="session")
def refusal() -> Callable[..., Exception]:
    """``refusal(use, *parts, error=DataError)``: the error of `use()`, whose printable line has each of these parts."""

    def refusal(use: Callable[[], object], *parts: str, error: type[Exception] = DataError) -> Exception:
        try:
            result = use()
        except error as raised:
            message = str(raised)
            assert message.isprintable(), (parts, message)
            missing = [part for part in parts if part not in message]
            assert not missing, (missing, message)
            return raised
        pytest.fail(f"{result!r:.200} instead of {error.__name__} with {parts}")

    return refusal


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write(content)``: the path of a new file of these bytes, or this text in UTF-8 with its line ends as given."""

    def write(content: str | bytes, name: str = "series.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


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
