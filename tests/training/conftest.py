"""A device and networks with their data that the tests of training share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from gru_xp.devices import Device, resolve_device
from gru_xp.nn.params import LinearParams
from gru_xp.nn.stack import StackParams


class Problem(NamedTuple):
    params: StackParams
    x: np.ndarray  # (B, T, I)
    y: np.ndarray  # (B, O)


@pytest.fixture
def cpu() -> Device:
    return resolve_device("cpu")


@pytest.fixture
def problem(rng: np.random.Generator, draw_params: Callable[..., Any]) -> Callable[..., Problem]:
    """``problem(B=9, T=4, I=2, H=5, O=2, dtype="float64")``: a network, sequences and targets, all random."""

    def problem(B: int = 9, T: int = 4, I: int = 2, H: int = 5, O: int = 2, dtype: str = "float64") -> Problem:  # noqa: E741
        linear = LinearParams(*(rng.standard_normal(shape).astype(dtype) for shape in ((O, H), (O,))))
        x, y = (rng.standard_normal(shape).astype(dtype) for shape in ((B, T, I), (B, O)))
        return Problem(StackParams(draw_params(np, I, H, dtype), linear), x, y)

    return problem
