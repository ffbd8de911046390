"""The pointwise bodies that the fast paths must compute, as layers and updates call them."""

import ctypes
import ctypes.util
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gru_xp.devices import fast_paths
from gru_xp.devices.lowering import Lowered
from gru_xp.devices.primitives import Ops, PlainOps, even_slices
from gru_xp.devices.recording import record
from gru_xp.nn import (
    GRUInference,
    gru_backward,
    gru_cell_backward,
    gru_cell_forward,
    gru_forward,
    gru_stack_backward,
    gru_stack_forward,
    init_gru_params,
    init_gru_stack_params,
    init_linear_params,
    linear_backward,
    linear_forward,
    mse_loss,
)
from gru_xp.nn.network import init_network_params
from gru_xp.nn.params import RESETS
from gru_xp.training.objective import Objective
from gru_xp.training.optimizers import OPTIMIZERS
from gru_xp.training.stream import _approach
from gru_xp.training.trainer import TrainingConfig, Update


class BodyCase(NamedTuple):
    """A pointwise body as a layer or an update calls it: its inputs, and which of them its outputs are written over."""

    body: Callable[..., Any]
    inputs: tuple[int | float | None, ...]
    """Of an array, how many columns it has; a number; or None."""
    overwrites: dict[int, tuple[int, int]]
    """Outputs written over columns of an input, by their positions: which input, and from which column on."""

    def __str__(self) -> str:
        return f"{self.body.__name__}{self.inputs} over {self.overwrites}"


class _BodyRecorder(Lowered, PlainOps):
    """The plain ops, by which steps are run as they are by a device's; they record the bodies they run."""

    def __init__(self) -> None:
        self.cases: dict[Any, BodyCase] = {}

    def pointwise(self, body: Any, inputs: Any, out: Any) -> None:
        arrays = {number: a for number, a in enumerate(inputs) if hasattr(a, "shape")}
        given = tuple(
            a.shape[-1] if number in arrays else a if a is None else float(a) for number, a in enumerate(inputs)
        )
        overwrites = {}
        for position, target in enumerate(out):
            shared = [number for number, a in arrays.items() if np.shares_memory(a, target)]
            if shared:
                number = min(shared, key=lambda number: arrays[number].shape[-1])
                addresses = [a.__array_interface__["data"][0] for a in (target, arrays[number])]
                overwrites[position] = number, (addresses[0] - addresses[1]) // target.itemsize
        kinds = tuple("number" if isinstance(value, float) else value for value in given)
        self.cases.setdefault((body, kinds, *overwrites.items()), BodyCase(body, given, overwrites))
        super().pointwise(body, inputs, out)

    def parts(self, B: int, T: int, I: int, H: int) -> list[tuple[slice, Ops]]:  # noqa: E741
        return [(rows, self) for rows in even_slices(B, 2)]


def _run_every_body(ops: Ops, H: int = 7) -> None:
    """Layers with each kind of masks, cells, a stack with a cost, and updates: all calls of `pointwise` they make."""
    rng = np.random.default_rng(7)
    B, T, I = 4, 5, 3  # noqa: E741
    x, h0, dh, dh_last = (rng.standard_normal(shape) for shape in ((B, T, I), (B, H), (B, T, H), (B, H)))
    forms = [init_gru_params(I, H, reset=reset, xp=np, seed=1) for reset in RESETS]
    lengths, update, candidate = [T, 0, 2, 3], rng.random((B, T, H)), rng.random((B, H))
    for params, u, c, n in product(forms, (None, 0.75, update), (None, candidate), (None, lengths)):
        masks = {"update_mask": u, "candidate_mask": c, "lengths": n}
        _, _, cache = gru_forward(x, h0, params, ops=ops, **masks)
        gru_backward(dh, cache, dh_last=dh_last)
    for params in forms:
        _, _, cache = gru_forward(x, None, params, lengths=lengths, reverse=True, keep_every=2, ops=ops)
        gru_backward(None, cache, dh_last=dh_last)
        _, cache = gru_cell_forward(x[:, 0], h0, params, ops=ops)
        gru_cell_backward(dh_last, cache)
        inference = GRUInference(params, ops=ops)
        inference.step(x[:, 0], inference(x, h0)[1])
    stack = init_gru_stack_params(I, H, num_layers=2, bidirectional=True, xp=np, seed=2)
    rates = {"dropout": 0.3, "recurrent_dropout": 0.2, "zoneout": 0.1, "seed": 3}
    h, _, cache = gru_stack_forward(x, None, stack, ops=ops, **rates)
    y, linear_cache = linear_forward(h[:, -1], init_linear_params(2 * H, 2, xp=np, seed=4), ops=ops)
    _, dy = mse_loss(y, rng.standard_normal((B, 2)), ops=ops)
    linear_backward(dy, linear_cache)
    gru_stack_backward(rng.standard_normal(h.shape), cache)
    network = init_network_params(I, H, 2, xp=np, seed=5)
    Objective(network, x, rng.standard_normal((B, 2)), ops).evaluate()
    for optimizer in OPTIMIZERS:
        config = TrainingConfig(num_epochs=1, learning_rate=0.02, optimizer=optimizer, clip_norm=0.5, reduction="mean")
        step = Update(rng.standard_normal(H), config, ops, sums_losses=True)
        step.start_epoch()
        step.step(rng.standard_normal(H), B, rng.standard_normal(1))
    average, theta = rng.standard_normal((2, H))
    ops.pointwise(_approach, (average, theta, rng.random(1)), out=(average,))  # as train_on_stream does


@pytest.fixture
def checked_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two CUDA devices that have passed their self-check, for what stands for CuPy without computing."""
    monkeypatch.setattr(fast_paths, "_OFF", {0: set(), 1: set()})
    monkeypatch.setattr(fast_paths, "_CHECKED", {(0, "checked")})  # and the source of a persistent kernel


@pytest.fixture(scope="session")
def run_every_body() -> Callable[[Ops], None]:
    """``run_every_body(ops)`` makes the calls of `pointwise` that layers and updates make."""
    return _run_every_body


@pytest.fixture(scope="session")
def body_cases() -> list[BodyCase]:
    """Each pointwise body that layers and updates call, with each kind of inputs."""
    recorder = _BodyRecorder()
    for H in (1, 9):
        _run_every_body(recorder, H)
    return list(recorder.cases.values())


@pytest.fixture
def draw_inputs(draw: Callable[..., Any]) -> Callable[..., list[Any]]:
    """``draw_inputs(case, rows, dtype="float64")``: what to call the body with; arrays are ``(*rows, columns)``.

    What a root is taken of is not negative.
    """

    def draw_inputs(case: BodyCase, rows: tuple[int, ...], dtype: str = "float64") -> list[Any]:
        largest = float(np.finfo(dtype).max)
        inputs = [
            draw(np, (*rows, given), dtype) if isinstance(given, int) else given and min(given, largest)
            for given in case.inputs
        ]
        shapes = [getattr(a, "shape", a) for a in inputs]
        if any(call.function == "sqrt" for call in record(case.body, shapes).calls):
            inputs = [np.abs(a) if hasattr(a, "shape") else a for a in inputs]
        return inputs

    return draw_inputs


@pytest.fixture(scope="session")
def outputs_over_inputs() -> Callable[..., list[Any]]:
    """``outputs_over_inputs(case, inputs, out)``: `out`, but an input's columns where the sources write over it."""

    def outputs_over_inputs(case: BodyCase, inputs: Sequence[Any], out: Sequence[Any]) -> list[Any]:
        over = list(out)
        for position, (number, start) in case.overwrites.items():
            over[position] = inputs[number][..., start : start + out[position].shape[-1]]
        return over

    return outputs_over_inputs


def _load_nvrtc() -> ctypes.CDLL:
    """NVRTC as CuPy finds it, by cuda-pathfinder, or as the package nvidia-cuda-nvrtc has it."""
    problems = []
    with suppress(ImportError):
        pathfinder = importlib.import_module("cuda.pathfinder")
        try:
            return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("nvrtc").abs_path)
        except (OSError, RuntimeError) as error:  # it is not found, or needs a library that is not there
            problems.append(error)
    spec = importlib.util.find_spec("nvidia")
    folders = map(Path, spec.submodule_search_locations if spec else ())
    paths = [str(path) for folder in folders for path in sorted(folder.glob("*/lib/libnvrtc.so.*"))]
    for name in filter(None, [*paths, ctypes.util.find_library("nvrtc")]):
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            problems.append(error)
    reasons = "; ".join(str(problem).partition("\n")[0] for problem in problems)
    return pytest.skip(f"NVRTC cannot be loaded ({reasons})" if reasons else "there is no NVRTC")


@pytest.fixture(scope="session")
def nvrtc() -> Callable[[str, str], tuple[str, str]]:
    """``nvrtc(source, architecture)``: PTX and the assembler's report."""
    library = _load_nvrtc()

    def text(program: ctypes.c_void_p, what: str) -> str:
        size = ctypes.c_size_t()
        getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{what}")(program, buffer)
        return buffer.value.decode()

    def nvrtc(source: str, architecture: str) -> tuple[str, str]:
        program = ctypes.c_void_p()
        library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"steps.cu", 0, None, None)
        options = [f"--gpu-architecture={architecture}".encode(), b"-std=c++17", b"--ptxas-options=-v"]
        status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = text(program, "ProgramLog")
        assert status == 0, log
        ptx = text(program, "PTX")
        library.nvrtcDestroyProgram(ctypes.byref(program))
        return ptx, log

    return nvrtc
