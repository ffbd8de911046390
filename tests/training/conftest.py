"""A device and networks with their data that the tests of training share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from gru_xp.devices import Device, resolve_device
from gru_xp.nn.network import NetworkParams


class Problem(NamedTuple):
    params: NetworkParams
    x: np.ndarray  # (B, T, I)
    y: np.ndarray  # (B, O)


@pytest.fixture
def cpu() -> Device:
    return resolve_device("cpu")


@pytest.fixture
def problem(rng: np.random.Generator, draw_network: Callable[..., NetworkParams]) -> Callable[..., Problem]:
    """``problem(B=9, T=4, I=2, H=5, O=2, dtype="float64", **layers)``: a network, sequences and targets, all random."""

    def problem(
        B: int = 9,
        T: int = 4,
        I: int = 2,  # noqa: E741
        H: int = 5,
        O: int = 2,  # noqa: E741
        dtype: str = "float64",
        **layers: Any,
    ) -> Problem:
        params = draw_network(np, I, H, O, dtype, **layers)
        x, y = (rng.standard_normal(shape).astype(dtype) for shape in ((B, T, I), (B, O)))
        return Problem(params, x, y)

    return problem
