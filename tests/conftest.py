"""Namespaces, random numbers and references that the tests share."""

import argparse
import gc
import importlib
import os
import pickle
import re
import runpy
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from itertools import combinations, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gru_xp.devices import cuda_problem, numpy_ops, to_host
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import Ops, PlainOps
from gru_xp.errors import DataError
from gru_xp.forecasting.metrics import MEASURES
from gru_xp.nn import GRUParams, LinearParams, gru_backward, gru_forward
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import arrays_of, map_arrays, named_arrays
from gru_xp.nn.scan import PlainScan

OFFLINE = Path(__file__).parent / "offline"
FAKE_CUPY = Path(__file__).parent / "fake_cupy"

# this process, unless its Python was started so, and those that tests start
_begun = vars(sys.modules.get("sitecustomize", object))
_tried: list[str] = (_begun if "tried" in _begun else runpy.run_path(str(OFFLINE / "sitecustomize.py")))["tried"]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")]))
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with which each of those would compile everything again


@pytest.fixture(autouse=True, scope="module")
def network() -> Iterator[list[str]]:
    """What was asked of the network, all of which was refused: nothing, at the end of each file of tests."""
    yield _tried
    assert not _tried, f"gru-xp makes no network call: {_tried}"


def pytest_configure(config: pytest.Config) -> None:
    """Put the stand-in for CuPy first on the path, of this process and of those that tests start."""
    if config.getoption("fake_cupy"):
        if "cupy" in sys.modules:
            raise pytest.UsageError("--fake-cupy comes too late: something has imported cupy; remove that plugin")
        sys.path.insert(0, str(FAKE_CUPY))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(FAKE_CUPY), os.environ["PYTHONPATH"]])


def pytest_collection_finish() -> None:
    """Let no collection of garbage look at what is imported and collected by now, which stays."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none, and say why."""
    cuda_items = [item for item in items if item.get_closest_marker("cuda")]
    fake = str(FAKE_CUPY) in sys.path
    problem = NO_COMPILER if fake and shutil.which("g++") is None else cuda_problem() if cuda_items else None
    for item in cuda_items:
        reason = (problem and f"{NO_DEVICE}: {problem}") or (fake and NEEDS_GPU.get(item.name.partition("[")[0]))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


NO_DEVICE = "needs a CUDA device"
NO_COMPILER = "the stand-in for CuPy needs g++"
NEEDS_GPU = {
    "test_cuda_library_is_the_one_that_cupy_uses": "the stand-in for CuPy has no cupy_backends",
    "test_cuda_repeats_itself_and_agrees_with_the_cpu": "takes minutes on the stand-in for CuPy",
    "test_cuda_replays_wait_for_what_comes_before_them_and_are_waited_for": "the stand-in for CuPy runs in order",
}
"""Tests that the stand-in for CuPy cannot run, and why."""


# --- which tests run ----------------------------------------------------------------------------------------------

GROUPS = {"cuda", "peer"}
"""Markers of tests that a machine may have to skip; the pairs must be covered without them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--share",
        type=_share,
        default=1.0,
        metavar="X",
        help="with -m slow: run this share of the combinations of parameters and of the random cases (default 1)",
    )
    parser.addoption(
        "--fake-cupy", action="store_true", help="run the cuda tests on the CPU, on the stand-in in tests/fake_cupy"
    )


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return share


@pytest.fixture(scope="session")
def share(pytestconfig: pytest.Config) -> float:
    """Share of a slow test's work to do."""
    return pytestconfig.getoption("share")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print one line per skip reason."""
    reasons = Counter(_why_skipped(report) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped: {reason}")


def _why_skipped(report: Any) -> str:
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if reason.startswith(NO_DEVICE):
        return NO_DEVICE
    package = re.search(r"(?:No module named|could not import) '(\w+)'", reason)
    return f"needs {package[1]}" if package else reason


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> Any:
    """Keep enough variants of a parametrized test that every pair of values meets; the other variants are slow.

    These are collected only if the -m option asks for slow tests.
    """
    made = yield
    if not isinstance(made, list) or not all(isinstance(item, pytest.Function) for item in made):
        return made
    config = collector.config
    slow = {item for item in made if item.get_closest_marker("slow")}
    paired = _pairwise([item for item in made if item not in slow])
    others = [item for item in made if item not in slow | paired]
    if not re.search(r"(?<!not )\bslow\b", config.getoption("markexpr")):
        others = []
    others = others[:: max(1, round(1 / config.getoption("share")))]
    for item in others:
        item.add_marker("slow")
    return [item for item in made if item in slow or item in paired or item in others]


def _pairwise(items: list[pytest.Function]) -> set[pytest.Function]:
    """Choose variants of a test so that every pair of values of two parameters occurs."""
    groups: dict[frozenset[str], dict[pytest.Function, set[Any]]] = {}
    for item in items:
        group = frozenset(GROUPS.intersection(marker.name for marker in item.iter_markers()))
        groups.setdefault(group, {})[item] = set(combinations(_values(item), 2)) or {item.name}
    chosen = set()
    for pairs in groups.values():
        left = set().union(*pairs.values())
        while left:
            best = max(pairs, key=lambda item: len(pairs[item] & left))
            chosen.add(best)
            left -= pairs[best]
    return chosen


def _values(item: pytest.Function) -> list[tuple[str, Any]]:
    """Each parameter of a test with its value; of a named tuple, each field."""
    if not hasattr(item, "callspec"):
        return []
    values: list[tuple[str, Any]] = []
    for name, value in item.callspec.params.items():
        fields = getattr(value, "_asdict", dict)()
        values += [(f"{name}.{field}", repr(part)) for field, part in fields.items()]
        values += [] if fields else [(name, id(value))]
    return values


# --- namespaces and random numbers ------------------------------------------------------------------------------


@pytest.fixture(
    params=[
        "numpy",
        "array_api_strict",
        pytest.param("torch", marks=pytest.mark.peer),
        pytest.param("cupy", marks=pytest.mark.cuda),
    ]
)
def xp(request: pytest.FixtureRequest) -> Any:
    """Each namespace that is installed, as `array_namespace` names it."""
    library = pytest.importorskip(request.param)
    return (
        library if request.param == "array_api_strict" else importlib.import_module(f"array_api_compat.{request.param}")
    )


@pytest.fixture
def jax() -> Iterator[Any]:
    """JAX with numbers of 64 bits, where it is installed."""
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        yield jax


@pytest.fixture(params=["before", "after"])
def reset(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def check_mode(xp: Any) -> str:
    """How `gradcheck` compares: array-api-strict is slow, and there to judge which calls are made."""
    return "direction" if xp.__name__ == "array_api_strict" else "elements"


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers are drawn on the host, so that they are the same in every namespace."""
    return np.random.default_rng(20240611)


@pytest.fixture(scope="session")
def plain_accuracy() -> Callable[..., Any]:
    """In place of `gru_xp.forecasting.metrics.accuracy`, where nobody looks at MASE, RMSSE and sMAPE: they are None."""

    def plain_accuracy(y_true: Any, forecasts: dict[str, Any], train: Any, season: int) -> dict[str, dict[str, Any]]:
        measured = {}
        for name, forecast in forecasts.items():
            with np.errstate(over="ignore", invalid="ignore"):
                errors = forecast - y_true
                sizes = float(np.nanmean(np.abs(errors))), float(np.sqrt(np.nanmean(errors * errors)))
            numbers = [size if np.isfinite(size) else None for size in sizes]
            measured[name] = dict(zip(MEASURES, [*numbers, None, None, None], strict=True))
        return measured

    return plain_accuracy


@pytest.fixture
def draw(rng: np.random.Generator) -> Callable[..., Any]:
    """``draw(xp, shape, dtype="float64")``: normally distributed numbers."""

    def draw(xp: Any, shape: tuple[int, ...], dtype: str = "float64") -> Any:
        return xp.asarray(rng.standard_normal(shape), dtype=getattr(xp, dtype))

    return draw


@pytest.fixture
def draw_params(request: pytest.FixtureRequest, rng: np.random.Generator) -> Callable[..., GRUParams]:
    """``draw_params(xp, input_size, hidden_size, dtype="float64", *, reset=...)``: no number is zero.

    Their form is that of the test's `reset`, or "before" if it has none.
    """
    form = request.getfixturevalue("reset") if "reset" in request.fixturenames else "before"

    def draw_params(
        xp: Any, input_size: int, hidden_size: int, dtype: str = "float64", *, reset: str = form
    ) -> GRUParams:
        rows = 3 * hidden_size
        shapes = ((rows, input_size), (rows, hidden_size), (rows,), (hidden_size,))
        params = GRUParams(*(xp.asarray(0.7 * rng.standard_normal(s), dtype=getattr(xp, dtype)) for s in shapes))
        return params if reset == "after" else params._replace(bias_hn=None)

    return draw_params


@pytest.fixture
def draw_network(draw: Callable[..., Any], draw_params: Callable[..., GRUParams]) -> Callable[..., NetworkParams]:
    """``draw_network(xp, I, H, O, dtype="float64", *, num_layers=1, bidirectional=False)``: all parameters random.

    With `patch`, so many rows are one step; with `skip`, there is one for sequences of that length. Further options are
    those of `draw_params`.
    """

    def draw_network(
        xp: Any,
        I: int,  # noqa: E741
        H: int,
        O: int,  # noqa: E741
        dtype: str = "float64",
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        patch: int = 1,
        skip: int | None = None,
        **form: str,
    ) -> NetworkParams:
        D = 2 if bidirectional else 1
        sizes = [patch * I, *[D * H] * (num_layers - 1)]
        gru = tuple(tuple(draw_params(xp, size, H, dtype, **form) for _ in range(D)) for size in sizes)
        linear, beside = (
            None if n_in is None else LinearParams(draw(xp, (O, n_in), dtype), draw(xp, (O,), dtype))
            for n_in in (D * H, skip)
        )
        return NetworkParams(gru, linear, beside)

    return draw_network


@pytest.fixture
def assert_params_close() -> Callable[..., None]:
    """``assert_params_close(actual, desired, **tolerances)`` for (nested) tuples of arrays."""

    def assert_params_close(actual: Any, desired: Any, **tolerances: float) -> None:
        desired = dict(named_arrays(desired))
        actual = dict(named_arrays(actual))
        assert actual.keys() == desired.keys()
        for name, array in actual.items():
            np.testing.assert_allclose(to_host(array), to_host(desired[name]), err_msg=name, **tolerances)

    return assert_params_close


class TorchNetwork:
    """PyTorch's GRU, a linear layer on its last states, and a skip, with the weights of a network of reset="after".

    PyTorch stacks r, z, n, its z is our 1 - z, and it has a second bias for r and z, which is zero here.
    """

    def __init__(self, params: NetworkParams) -> None:
        import torch

        first, top, (weight, bias) = params.gru[0][0], params.gru[-1], params.linear
        H, options = first.hidden_size, {"dtype": torch.asarray(first.bias).dtype}
        self.gru = torch.nn.GRU(
            first.input_size, H, len(params.gru), batch_first=True, bidirectional=len(top) == 2, **options
        )
        self.linear = torch.nn.Linear(len(top) * H, len(bias), **options)
        self.skip = None if params.skip is None else torch.nn.Linear(params.skip.weight.shape[1], len(bias), **options)
        with torch.no_grad():
            for suffix, layer in self._named(params.gru):
                z, r, n = (slice(gate * H, (gate + 1) * H) for gate in range(3))
                for name, ours in (
                    ("weight_ih", layer.weight_ih),
                    ("weight_hh", layer.weight_hh),
                    ("bias_ih", layer.bias),
                ):
                    rows = torch.asarray(np.concatenate([ours[r], -ours[z], ours[n]]))
                    getattr(self.gru, f"{name}_{suffix}").copy_(rows)
                getattr(self.gru, f"bias_hh_{suffix}").copy_(
                    torch.cat([torch.zeros(2 * H), torch.asarray(layer.bias_hn)])
                )
            self.linear.weight.copy_(torch.asarray(weight))
            self.linear.bias.copy_(torch.asarray(bias))
            if self.skip is not None:
                for name in ("weight", "bias"):
                    getattr(self.skip, name).copy_(torch.asarray(getattr(params.skip, name)))
        self._like = params

    def _named(self, layers: Any) -> Iterator[tuple[str, Any]]:
        for number, layer in enumerate(layers):
            for direction, value in enumerate(layer):
                yield f"l{number}" + "_reverse" * direction, value

    def __call__(self, x: Any) -> Any:
        import torch

        B, T, I = x.shape  # noqa: E741
        k = self.gru.input_size // I
        padded = torch.nn.functional.pad(x, (0, 0, -T % k, 0))
        _, h_last = self.gru(padded.reshape(B, -1, k * I))
        top = h_last[-2:] if self.gru.bidirectional else h_last[-1:]
        y = self.linear(top.permute(1, 0, 2).flatten(1))
        return y if self.skip is None else y + self.skip(x[..., 0])

    def parameters(self) -> list[Any]:
        """All tensors."""
        return [*self.gru.parameters(), *self.linear.parameters(), *(self.skip.parameters() if self.skip else ())]

    def keep_second_biases(self) -> None:
        """Make their gradients zero, where the two biases of a gate are one here."""
        for suffix, layer in self._named(self._like.gru):
            getattr(self.gru, f"bias_hh_{suffix}").grad[: 2 * layer.hidden_size] = 0.0

    def params(self, *, gradients: bool = False) -> NetworkParams:
        """The weights, or their gradients, as a network of ours has them."""

        def host(tensor: Any) -> np.ndarray:
            return (tensor.grad if gradients else tensor.detach()).numpy()

        def layer(suffix: str, H: int) -> GRUParams:
            *rows, second = (
                host(getattr(self.gru, f"{name}_{suffix}")) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            r, z, n = (slice(gate * H, (gate + 1) * H) for gate in range(3))
            return GRUParams(*(np.concatenate([-theirs[z], theirs[r], theirs[n]]) for theirs in rows), second[n])

        layers = iter([layer(suffix, ours.hidden_size) for suffix, ours in self._named(self._like.gru)])
        gru = tuple(tuple(next(layers) for _ in ours) for ours in self._like.gru)
        linear, skip = (
            None if part is None else LinearParams(host(part.weight), host(part.bias))
            for part in (self.linear, self.skip)
        )
        return NetworkParams(gru, linear, skip)


@pytest.fixture
def torch_network() -> Callable[[NetworkParams], TorchNetwork]:
    """``torch_network(params)``, where PyTorch is installed."""
    pytest.importorskip("torch")
    return TorchNetwork


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
def refused() -> Callable[..., AbstractContextManager[None]]:
    """``with refused(ValueError, "size", case=...):`` expect an error whose message is one line and has these parts."""

    @contextmanager
    def refused(kind: type[Exception], *parts: str, case: object = "") -> Iterator[None]:
        caught = None
        try:
            yield
        except kind as error:
            caught = error
        assert caught is not None, f"not refused: {case}"
        message = str(caught)
        assert [part for part in parts if part not in message] == [], f"{case}: {message}"
        assert "\n" not in message, case

    return refused


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
        bias_hn: np.ndarray | None = None,
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
                if bias_hn is None:
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


# --- fast paths -------------------------------------------------------------------------------------------------

SPLITS = {
    "no split": (0, 1, 1, 1),
    "one part": (1, 5_000, 2**16, 1),
    "two threads": (2, 1, 2**16, 2),
    "rounds on one thread": (1, 5_000, 12, 3),
    "rounds on two threads": (2, 1, 8, 4),
    "a thread a sequence": (40, 1, 2**16, 7),
}
"""Threads, MIN_STATE_NUMBERS, MAX_STATE_NUMBERS, and into how many parts they split 7 sequences with H = 4."""


@pytest.fixture(params=SPLITS)
def make_numpy_ops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], NumpyOps]:
    """``make_numpy_ops()``: new NumpyOps, which split even small batches in every way."""
    threads, smallest, largest, n_parts = SPLITS[request.param]
    monkeypatch.setattr(numpy_ops, "MIN_STATE_NUMBERS", smallest)
    monkeypatch.setattr(numpy_ops, "MAX_STATE_NUMBERS", largest)
    monkeypatch.setattr(numpy_ops, "MIN_ROWS", 1)
    assert len(NumpyOps(threads).parts(7, 5, 2, 4)) == n_parts
    return lambda: NumpyOps(threads)


@pytest.fixture(params=["some", pytest.param("all", marks=pytest.mark.slow)])
def some(request: pytest.FixtureRequest, share: float) -> Callable[..., list[Any]]:
    """``some(cases, step=3)``: every third case, from another one on for each split of `make_numpy_ops`.

    So each case meets two of the splits; with ``-m slow``, all of them. For tests that have `make_numpy_ops`.
    """
    turn = list(SPLITS).index(request.node.callspec.params["make_numpy_ops"])

    def some(cases: Iterable[Any], step: int = 3) -> list[Any]:
        step = step if request.param == "some" else max(1, round(1 / share))
        return list(cases)[turn % step :: step]

    return some


RESULTS = ("h", "h_last", "dx", "dh0", "dweight_ih", "dweight_hh", "dbias", "dbias_hn")


class Layer(NamedTuple):
    """A call of `gru_forward` and one of `gru_backward`."""

    x: Any
    h0: Any
    params: GRUParams  # of the form "after"; see `params_of`
    dh: Any
    dh_last: Any

    def __call__(self, ops: Ops | None, reset: str, *, with_dx: bool = True, **options: Any) -> tuple[Any, ...]:
        """All results, as `RESULTS` names them; further options are those of `gru_forward`."""
        h, h_last, cache = gru_forward(self.x, self.h0, self.params_of(reset), ops=ops, **options)
        dx, dh0, dparams = gru_backward(self.dh, cache, dh_last=self.dh_last, with_dx=with_dx)
        return h, h_last, dx, dh0, *arrays_of(dparams)

    def params_of(self, reset: str) -> GRUParams:
        """The parameters in that form."""
        return self.params if reset == "after" else self.params._replace(bias_hn=None)

    def change(self, draw: Callable[..., Any]) -> None:
        """Draw other numbers for all arrays, in place."""
        for array in (self.x, self.h0, self.dh, self.dh_last, *arrays_of(self.params)):
            if array is not None:
                array[...] = 0.7 * draw(np, array.shape, str(array.dtype))


@pytest.fixture
def draw_layer(draw: Callable[..., Any], draw_params: Callable[..., GRUParams]) -> Callable[..., Layer]:
    """``draw_layer(B, T, I, H, dtype="float64")``: random arguments of NumPy."""

    def draw_layer(B: int, T: int, I: int, H: int, dtype: str = "float64") -> Layer:  # noqa: E741
        params = draw_params(np, I, H, dtype, reset="after")
        x, h0, dh, dh_last = (draw(np, shape, dtype) for shape in ((B, T, I), (B, H), (B, T, H), (B, H)))
        return Layer(x, h0, params, dh, dh_last)

    return draw_layer


@pytest.fixture
def assert_same_results() -> Callable[..., None]:
    """``assert_same_results(actual, desired, tolerance)``: equal to within a part of each array's largest element.

    Of 1, where that is smaller: what is added up in an array is of that order, and may cancel.
    """

    def assert_same_results(actual: Sequence[Any], desired: Sequence[Any], tolerance: float = 1e-12) -> None:
        assert len(actual) == len(desired)
        for name, a, d in zip_longest(RESULTS, actual, desired):
            if d is None:
                assert a is None, name
                continue
            a, d = to_host(a), to_host(d)
            assert a.dtype == d.dtype, name
            np.testing.assert_allclose(a, d, rtol=0, atol=tolerance * max(1.0, np.abs(d).max()), err_msg=name)

    return assert_same_results


# --- ops that watch ---------------------------------------------------------------------------------------------


VIEWS_AND_ZEROS = ("reshape", "transpose", "zeros_like", "empty_like", "copyto")


class GuardedArray(np.ndarray):
    """An array that computes and takes numbers only inside a method of `GuardedOps`; slices of it are such, too."""

    allowed = False

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        assert GuardedArray.allowed, f"{ufunc.__name__} is called on an array, beside the ops"
        inputs = tuple(np.asarray(a) if isinstance(a, GuardedArray) else a for a in inputs)
        if "out" in kwargs:
            kwargs["out"] = tuple(np.asarray(a) for a in kwargs["out"])
        return getattr(ufunc, method)(*inputs, **kwargs)

    def __array_function__(self, function: Any, *args: Any) -> Any:
        name = function.__name__
        assert GuardedArray.allowed or name in VIEWS_AND_ZEROS, f"{name} is called on an array, beside the ops"
        return super().__array_function__(function, *args)

    def __setitem__(self, key: Any, value: Any) -> None:
        assert GuardedArray.allowed, "an array is written into, beside the ops"
        super().__setitem__(key, value)


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        GuardedArray.allowed = True
        try:
            return method(*args, **kwargs)
        finally:
            GuardedArray.allowed = False

    return call


PLAIN_SCAN = PlainScan(importlib.import_module("array_api_compat.numpy"))


class GuardedOps(PlainOps):
    """The plain ops, the only ones that may do anything to a `GuardedArray`."""

    copy, matmul, contract, pointwise, norm = (
        _guarded(getattr(PlainOps, name)) for name in ("copy", "matmul", "contract", "pointwise", "norm")
    )

    def empty(self, shape: tuple[int, ...], like: Any) -> Any:
        return super().empty(shape, like).view(GuardedArray)

    def scan(self, *args: Any, **kwargs: Any) -> Any:
        return _guarded_view(_guarded(PLAIN_SCAN.scan)(*args, **kwargs))

    def call(self, *args: Any) -> Any:
        return _guarded_view(_guarded(PLAIN_SCAN.call)(*args))


def _guarded_view(value: Any) -> Any:
    return map_arrays(lambda array: array.view(GuardedArray), (value,))[0]


@pytest.fixture
def guarded_ops() -> GuardedOps:
    """Ops that all arrays of a `GuardedArray` view must be computed with."""
    return GuardedOps()


@pytest.fixture
def guard() -> Callable[[Any], Any]:
    """``guard(value)``: the array, or (nested) tuples of arrays, as guarded views of the same memory."""

    return _guarded_view


# --- executors --------------------------------------------------------------------------------------------------


class Elsewhere(Executor):
    """Makes calls with copies of their arguments, as if in another process; `idle` futures come first, without calls.

    Attributes
    ----------
    calls
        Functions that were called.
    """

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.idle: list[Future[Any]] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.idle:
            return self.idle.pop(0)
        self.calls.append(function)
        future: Future[Any] = Future()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 0)
            patch.setenv("OMP_NUM_THREADS", "1")
            try:
                called, args, kwargs = pickle.loads(pickle.dumps((function, args, kwargs)))
                future.set_result(pickle.loads(pickle.dumps(called(*args, **kwargs))))
            except Exception as error:
                future.set_exception(error)
        return future


@pytest.fixture
def elsewhere() -> Elsewhere:
    """An executor whose calls get copies, and nothing else of this process."""
    return Elsewhere()
