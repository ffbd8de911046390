"""Namespaces, random numbers and references that the tests share."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gru_xp.devices import cuda_problem, to_host
from gru_xp.nn import GRUParams, cell
from gru_xp.nn.params import named_arrays


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none, and say why."""
    cuda_items = [item for item in items if item.get_closest_marker("cuda")]
    problem = cuda_problem() if cuda_items else None
    for item in cuda_items if problem else ():
        item.add_marker(pytest.mark.skip(reason=problem))


@pytest.fixture(params=["numpy", "array_api_strict", "torch", pytest.param("cupy", marks=pytest.mark.cuda)])
def xp(request: pytest.FixtureRequest) -> Any:
    """Each namespace that is installed, as `array_namespace` names it."""
    library = pytest.importorskip(request.param)
    return (
        library if request.param == "array_api_strict" else importlib.import_module(f"array_api_compat.{request.param}")
    )


@pytest.fixture(params=["before", "after"])
def reset(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers are drawn on the host, so that they are the same in every namespace."""
    return np.random.default_rng(20240611)


@pytest.fixture
def draw(rng: np.random.Generator) -> Callable[..., Any]:
    """``draw(xp, shape, dtype="float64")``: normally distributed numbers."""

    def draw(xp: Any, shape: tuple[int, ...], dtype: str = "float64") -> Any:
        return xp.asarray(rng.standard_normal(shape), dtype=getattr(xp, dtype))

    return draw


@pytest.fixture
def draw_params(rng: np.random.Generator) -> Callable[..., GRUParams]:
    """``draw_params(xp, input_size, hidden_size, dtype="float64")``: no parameter is zero, biases included."""

    def draw_params(xp: Any, input_size: int, hidden_size: int, dtype: str = "float64") -> GRUParams:
        rows = 3 * hidden_size
        shapes = ((rows, input_size), (rows, hidden_size), (rows,), (hidden_size,))
        return GRUParams(*(xp.asarray(0.7 * rng.standard_normal(s), dtype=getattr(xp, dtype)) for s in shapes))

    return draw_params


@pytest.fixture
def assert_params_close() -> Callable[..., None]:
    """``assert_params_close(actual, desired, **tolerances)`` for (nested) named tuples of arrays."""

    def assert_params_close(actual: Any, desired: Any, **tolerances: float) -> None:
        desired = dict(named_arrays(desired))
        actual = dict(named_arrays(actual))
        assert actual.keys() == desired.keys()
        for name, array in actual.items():
            np.testing.assert_allclose(to_host(array), to_host(desired[name]), err_msg=name, **tolerances)

    return assert_params_close


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-a))


@pytest.fixture
def reference_gru() -> Callable[..., np.ndarray]:
    """States ``(B, T, H)`` from the textbook equations: one sequence and one step at a time, one vector a gate.

    It takes host arrays, complex ones too.
    """

    def reference_gru(
        x: np.ndarray,
        h0: np.ndarray,
        weight_ih: np.ndarray,
        weight_hh: np.ndarray,
        bias: np.ndarray,
        bias_hn: np.ndarray,
        *,
        reset: str,
    ) -> np.ndarray:
        W_z, W_r, W_n = np.split(weight_ih, 3)
        U_z, U_r, U_n = np.split(weight_hh, 3)
        b_z, b_r, b_n = np.split(bias, 3)
        batch = []
        for sequence, h in zip(x, h0, strict=True):
            states = []
            for x_t in sequence:
                z = _sigmoid(W_z @ x_t + U_z @ h + b_z)
                r = _sigmoid(W_r @ x_t + U_r @ h + b_r)
                if reset == "before":
                    n = np.tanh(W_n @ x_t + U_n @ (r * h) + b_n)
                else:
                    n = np.tanh(W_n @ x_t + r * (U_n @ h + bias_hn) + b_n)
                h = (1.0 - z) * h + z * n
                states.append(h)
            batch.append(states)
        return np.asarray(batch)

    return reference_gru


@pytest.fixture
def complex_step_gradients() -> Callable[..., list[np.ndarray]]:
    """``complex_step_gradients(scalar, arrays)``: the gradient of ``scalar(*arrays)`` for each element of each array.

    The derivative is the imaginary part after an imaginary step, which is exact to rounding: nothing is subtracted.
    """

    def complex_step_gradients(scalar: Callable[..., Any], arrays: list[np.ndarray]) -> list[np.ndarray]:
        gradients = []
        for position, array in enumerate(arrays):
            gradient = np.empty(array.shape)
            for where in np.ndindex(array.shape):
                moved = [a.astype(complex) for a in arrays]
                moved[position][where] += 1e-30j
                gradient[where] = scalar(*moved).imag / 1e-30
            gradients.append(gradient)
        return gradients

    return complex_step_gradients


@pytest.fixture(params=["list", "integer", "dtype", "namespace"])
def misfit(request: pytest.FixtureRequest) -> Callable[..., tuple[Any, str]]:
    """``misfit(name, array, expected, like)``: the float64 array made into what does not fit, and the error's text."""
    if request.param == "namespace":
        strict = pytest.importorskip("array_api_strict")

    def misfit(name: str, array: np.ndarray, expected: str, like: str = "x") -> tuple[Any, str]:
        if request.param == "list":
            return array.tolist(), f"{name} is a list; it must be an array of shape {expected}"
        if request.param == "integer":
            return array.astype(np.int32), f"{name} has dtype int32; it must be float32 or float64"
        if request.param == "dtype":
            return array.astype(np.float32), f"{name} has dtype float32; it must be that of {like}, float64"
        return strict.asarray(array), f"{name} has namespace array_api_strict; it must be that of {like}, numpy"

    return misfit


BODIES = {
    name: function
    for name, function in vars(cell).items()
    if inspect.isfunction(function)
    and function.__module__ == cell.__name__
    and next(iter(inspect.signature(function).parameters), None) == "xp"
}
assert len(BODIES) >= 7, "the pointwise bodies of cell.py are no longer found"

OVERWRITES = {
    "_sum": {0: 0},
    "_before_update_reset": {0: 0, 1: 1},
    "_before_candidate": {0: 0},
    "_before_d_reset": {1: 3},
    "_after_gates": {0: 0, 1: 1, 3: 2},
}
"""Which output of a body is written over which of its inputs."""


@pytest.fixture(scope="session")
def bodies() -> dict[str, Callable[..., Any]]:
    """All pointwise bodies of cell.py by name."""
    return BODIES


@pytest.fixture(params=sorted(BODIES))
def body(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Each pointwise body of cell.py."""
    return BODIES[request.param]


@pytest.fixture
def n_inputs(body: Callable[..., Any]) -> int:
    """How many arrays `body` takes."""
    return len(inspect.signature(body).parameters) - 1


@pytest.fixture
def overwrites(body: Callable[..., Any]) -> dict[int, int]:
    """Which output of `body` cell.py writes over which of its inputs."""
    return OVERWRITES.get(body.__name__, {})
