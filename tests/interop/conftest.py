"""Layers and forecasters that the tests of conversions share."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gru_xp.forecasting import Forecaster
from gru_xp.nn.params import GRUParams, named_arrays
from gru_xp.nn.stack import Layers

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports keras

PLAIN: dict[str, Any] = {
    "seq_length": 5,
    "hidden_size": 4,
    "num_epochs": 2,
    "learning_rate": 0.05,
    "patches": 0,
    "linear_skip": False,
    "guard": False,
    "scaling": "last",
    "loss": "mse",
    "validation_ratio": 0.2,
}


@pytest.fixture(params=[(1, 1), (1, 2), (3, 1), (2, 2)], ids=["L1", "L1 both ways", "L3", "L2 both ways"])
def stack(request: pytest.FixtureRequest) -> tuple[int, int]:
    """Layers and directions."""
    return request.param


@pytest.fixture
def draw_layers(request: pytest.FixtureRequest, draw_params: Callable[..., GRUParams]) -> Callable[..., Layers]:
    """``draw_layers(L, D, I=3, H=5, dtype="float64", reset=...)``: a stack none of whose numbers is zero.

    Its form is that of the test's `reset`, or "after" if it has none.
    """
    form = request.getfixturevalue("reset") if "reset" in request.fixturenames else "after"

    def draw_layers(
        L: int,
        D: int,
        I: int = 3,  # noqa: E741
        H: int = 5,
        dtype: str = "float64",
        reset: str = form,
    ) -> Layers:
        return tuple(
            tuple(draw_params(np, D * H if layer else I, H, dtype, reset=reset) for _ in range(D)) for layer in range(L)
        )

    return draw_layers


@pytest.fixture
def assert_same_layers() -> Callable[..., None]:
    """``assert_same_layers(actual, desired)``: to the bit."""

    def assert_same_layers(actual: Layers, desired: Layers) -> None:
        wanted = dict(named_arrays(desired))
        found = dict(named_arrays(actual))
        assert found.keys() == wanted.keys()
        for name, array in found.items():
            assert array.dtype == wanted[name].dtype, name
            np.testing.assert_array_equal(array, wanted[name], err_msg=name)

    return assert_same_layers


@pytest.fixture(scope="session")
def series() -> np.ndarray:
    """Three random walks, shape ``(40, 3)``, around levels of their own, far from zero and of different units."""
    changes = np.random.default_rng(5).standard_normal((40, 3)) * [2.0, 0.01, 300.0]
    return np.asarray([500.0, -3.0, 7e4]) + np.cumsum(changes, axis=0)


@pytest.fixture(scope="session")
def plain() -> dict[str, Any]:
    """Settings of a small forecaster that is a GRU and a linear layer alone, one step for each row."""
    return PLAIN


@pytest.fixture(scope="session")
def learn(series: np.ndarray) -> Callable[..., Forecaster]:
    """``learn(columns=3, **settings)``: a small forecaster that has learned a little; tests only look at it."""
    learned: dict[Any, Forecaster] = {}

    def learn(columns: int = 3, **settings: Any) -> Forecaster:
        settings = PLAIN | settings
        key = (columns, *sorted(settings.items()))
        if key not in learned:
            learned[key] = Forecaster(**settings).fit(series[:, :columns], device="cpu")
        return learned[key]

    return learn
