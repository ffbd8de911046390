import ctypes
import functools
import itertools
import logging
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gru_xp.devices import cupy_ops
from gru_xp.devices.lowering import Lowered
from gru_xp.devices.persistent import Matmul, Pointwise, Tile, compile_loop
from gru_xp.devices.persistent_loops import PersistentLoops
from gru_xp.devices.persistent_tile import H100, LoopSize, fastest_tile, feasible_tiles
from gru_xp.devices.primitives import PlainOps
from gru_xp.devices.recording import record
from gru_xp.nn import gru_backward, gru_forward, init_gru_params
from gru_xp.nn.params import arrays_of

COMPILING = Path(__file__).parents[1] / "fake_cupy" / "cupy" / "_compiling.py"

# --- loops like those of the GRU --------------------------------------------------------------------------------


class Plain:
    """Makes the calls of a step on NumPy arrays."""

    def matmul(self, a, b, out):
        out[...] = a @ b

    def pointwise(self, body, inputs, out):
        for target, value in zip(out, body(np, *inputs), strict=True):
            target[...] = value


class Log:
    """Writes the calls of a step down."""

    def __init__(self):
        self.calls = []

    def matmul(self, a, b, out):
        self.calls.append(Matmul(a, b, out))
        return out

    def pointwise(self, body, inputs, out):
        self.calls.append(Pointwise(body, inputs, out))


def add(xp, a, b):
    return (a + b,)


def sigmoid(xp, a):
    return 0.5 * xp.tanh(a) + 0.5


def only_valid(xp, a, valid):
    return (xp.where(valid > 0.0, a, 0.0),)


def add_valid(xp, a, b, valid):
    return (a + only_valid(xp, b, valid)[0],)


def masked(a, mask):
    return a if mask is None else mask * a


def after_gates(xp, p, a_n, h, update, candidate):
    H = h.shape[-1]
    zr = sigmoid(xp, p[..., : 2 * H])
    n = xp.tanh(a_n + zr[..., H:] * p[..., 2 * H :])
    change = masked(zr[..., :H], update) * (masked(n, candidate) - h)
    return zr, n, change, h + change


def after_gradients(xp, dh, gates, n, change, update, candidate):
    H = n.shape[-1]
    z, r, q = gates[..., :H], gates[..., H : 2 * H], gates[..., 2 * H :]
    dn = masked(masked(dh * z, update), candidate) * (1.0 - n * n)
    return change * dh * (1.0 - z), dn * q * r * (1.0 - r), dn * r, dn, dh * (1.0 - masked(z, update))


def before_gates(xp, p, h):
    H = h.shape[-1]
    zr = sigmoid(xp, p)
    return zr, zr[..., H:] * h


def before_state(xp, a_n, z, h, update, candidate):
    n = xp.tanh(a_n)
    change = masked(z, update) * (masked(n, candidate) - h)
    return n, change, h + change


def before_candidate_gradients(xp, dh, z, n, change, update, candidate):
    dn = masked(masked(dh * z, update), candidate) * (1.0 - n * n)
    return change * dh * (1.0 - z), dn, dh * (1.0 - masked(z, update))


def before_reset_gradients(xp, product, r, h, kept):
    return product * h * r * (1.0 - r), kept + product * r


UPDATES = {
    "number": 0.5,
    "column a step": ("T", "B", 1),
    "all of a step": ("T", "B", "H"),
    "sequences first": ("B", "T", "H"),
    "the same for all steps": (1, "B", "H"),
}
"""Factors of the update gate: a number, or the shape."""

VARIANTS = [
    {"update": "number", "candidate": True},
    {"update": "all of a step", "reverse": True},
    {"update": "the same for all steps", "valid": True},
    {"candidate": True, "reverse": True},
    {"valid": True},
    {"update": "column a step", "valid": True, "reverse": True},
    {"update": "sequences first", "valid": True, "candidate": True},
]


class Loops:
    """Arrays of a layer, filled with random numbers, and its steps; `names` are those of the arrays.

    Variants: `update` and `candidate` give factors of z and n; steps that are not `valid` have a gradient of NaN, and
    give zeros instead of the state; `reverse` goes from the last step to the first.
    """

    def __init__(self, B, T, n_in, H, reset, *, xp=np, dtype=np.float32, dh=True, keep=True, **variant):
        rng = np.random.default_rng(5)
        self.H, self.K, self.reset, self.reverse = H, H + n_in + 1, reset, variant.get("reverse", False)
        kept = T if keep else 1
        shapes = {
            "joint": (T + 1, B, self.K + (H if reset == "before" else 0)),
            "gates": (kept, B, 3 * H),
            "n": (T, B, H),
            "change": (kept, B, H),
            "dh": (B, T, H),
            "da": (T, B, 3 * H),
            "da_n": (T, B, H),
            **dict.fromkeys(("carry", "kept", "product"), (B, H)),
        }
        self.names = [*shapes, "W", "seen"]
        for name, shape in shapes.items():
            setattr(self, name, xp.asarray(rng.standard_normal(shape).astype(np.float32).astype(dtype)))
        self.W = xp.asarray((rng.standard_normal((3 * H, self.K)) / H**0.5).astype(np.float32).astype(dtype))
        self.seen = xp.ones((T, B, H), dtype)
        if not dh:
            self.dh = None
        self.update, self.candidate, self.valid = UPDATES.get(variant.get("update")), None, None
        if isinstance(self.update, tuple):
            shape = [{"T": T, "B": B, "H": H}.get(size, size) for size in self.update]
            mask = xp.asarray(((rng.random(shape) > 0.4) * 1.25).astype(dtype))
            self.update = mask.swapaxes(0, 1) if self.update[0] == "B" else mask
        if variant.get("candidate"):
            self.candidate = xp.asarray(((rng.random((B, H)) > 0.4) * 1.25).astype(dtype))
        if variant.get("valid"):
            self.valid = xp.asarray((rng.random((T, B, 1)) > 0.4).astype(dtype))
            self.dh[xp.broadcast_to(self.valid == 0.0, (T, B, H)).swapaxes(0, 1)] = xp.nan

    def masks(self, t):
        update = self.update
        return update if update is None or isinstance(update, float) else update[t % len(update)], self.candidate

    def forward(self, t, ops):
        H, K, gates, n, change = self.H, self.K, self.gates, self.n, self.change
        joint, joint_next = (self.joint[place] for place in ((t + 1, t) if self.reverse else (t, t + 1)))
        kept = min(t, gates.shape[0] - 1)
        gates, change, h, h_next = gates[kept], change[kept], joint[:, :H], joint_next[:, :H]
        if self.reset == "after":
            ops.matmul(joint, self.W.T, out=gates)
            out = (gates[:, : 2 * H], n[t], change, h_next)
            ops.pointwise(after_gates, (gates, n[t], h, *self.masks(t)), out=out)
        else:
            zr = gates[:, : 2 * H]
            ops.matmul(joint[:, :K], self.W[: 2 * H].T, out=zr)
            ops.pointwise(before_gates, (zr, h), out=(zr, joint[:, K:]))
            ops.matmul(joint[:, H:], self.W[2 * H :].T, out=n[t])
            ops.pointwise(before_state, (n[t], zr[:, :H], h, *self.masks(t)), out=(n[t], change, h_next))
        if self.valid is not None:
            ops.pointwise(only_valid, (h_next, self.valid[t]), out=(self.seen[t],))

    def backward(self, t, ops):
        H, gates, n, change, joint = self.H, self.gates, self.n, self.change, self.joint[t + self.reverse]
        da, da_n, carry, kept, product, W = self.da, self.da_n, self.carry, self.kept, self.product, self.W[:, :H]
        if self.valid is not None:
            ops.pointwise(add_valid, (carry, self.dh[:, t], self.valid[t]), out=(carry,))
        elif self.dh is not None:
            ops.pointwise(add, (carry, self.dh[:, t]), out=(carry,))
        da_z, da_r, dq = (da[t][:, start : start + H] for start in range(0, 3 * H, H))
        if self.reset == "after":
            inputs = (carry, gates[t], n[t], change[t], *self.masks(t))
            ops.pointwise(after_gradients, inputs, out=(da_z, da_r, dq, da_n[t], kept))
            ops.matmul(da[t], W, out=product)
        else:
            z, r = gates[t][:, :H], gates[t][:, H : 2 * H]
            inputs = (carry, z, n[t], change[t], *self.masks(t))
            ops.pointwise(before_candidate_gradients, inputs, out=(da_z, da_n[t], kept))
            ops.matmul(da_n[t], W[2 * H :], out=product)
            ops.pointwise(before_reset_gradients, (product, r, joint[:, :H], kept), out=(da_r, kept))
            ops.matmul(da[t][:, : 2 * H], W[: 2 * H], out=product)
        ops.pointwise(add, (kept, product), out=(carry,))


DIRECTIONS = ["forward", "backward"]


def logged(step, times):
    calls = []
    for t in (times[0], times[1], times[-1]):
        log = Log()
        step(t, log)
        calls.append(log.calls)
    return calls


def times_of(direction, T, reverse=False):
    return range(T) if (direction == "forward") != reverse else range(T - 1, -1, -1)


def compile_calls(calls, n_steps, tile=None, **limits):
    return compile_loop(*calls, n_steps, limits=H100._replace(**limits), tile=tile or fastest_tile)


def compiled(loops, direction, T, tile=None, **limits):
    times = times_of(direction, T, loops.reverse)
    program = compile_calls(logged(getattr(loops, direction), times), T, tile, **limits)
    assert program is not None
    return program


# --- the kernel on the host -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def run_on_host():
    """``run_on_host(program, backwards)``: the kernel as C++, one thread after the other from barrier to barrier."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    compiling = runpy.run_path(str(COMPILING))
    compile_kernel = functools.cache(compiling["compile_loop_kernel"])

    def run(program, backwards=False):
        library, _ = compile_kernel(program.source, "steps")
        arguments = compiling["packed"](program.arguments)
        shape = (program.grid, program.threads, program.shared_bytes, int(backwards))
        library.launch(*map(ctypes.c_int, shape), arguments)

    return run


def assert_did(loops, expected, atol=1e-6, plain=None):
    """Everything that a loop could have written is what it is in `expected`.

    `atol` is in units of the largest number of an array. Where there are results of `plain` operations in the same
    precision, their error is allowed ten times: rounding grows from step to step.
    """
    for name in expected.names:
        actual, desired = getattr(loops, name), getattr(expected, name)
        if desired is not None:
            actual = actual if isinstance(actual, np.ndarray) else actual.get()
            limit = atol * np.nanmax(np.abs(desired))
            if plain is not None:
                limit += 10 * np.nanmax(np.abs(getattr(plain, name) - desired))
            np.testing.assert_allclose(actual, desired, rtol=0, atol=limit, err_msg=name)


def assert_did_on_gpu(loops, direction, T, *sizes, **variant):
    """As in float64; a GPU sums in another order than NumPy, and has a tanh of its own."""
    expected, plain = (run_plainly(Loops(*sizes, **variant, dtype=t), direction, T) for t in (np.float64, np.float32))
    assert_did(loops, expected, 1e-5, plain)


def run_plainly(loops, direction, T):
    for t in times_of(direction, T, loops.reverse):
        getattr(loops, direction)(t, Plain())
    return loops


TILES = [
    (5, 4, 1, 7, Tile(groups=2, rows=2, columns=1, lanes=2)),
    (1, 2, 3, 1, Tile(groups=1, rows=1, columns=1, lanes=1)),
    (7, 3, 2, 6, Tile(groups=1, rows=4, columns=2, lanes=4)),
    pytest.param(3, 3, 1, 9, Tile(groups=1, rows=1, columns=1, lanes=8), marks=pytest.mark.slow),
    (9, 3, 5, 8, Tile(groups=2, rows=2, columns=4, lanes=4)),
    (14, 2, 1, 10, Tile(groups=1, rows=6, columns=5, lanes=8)),
    pytest.param(7, 3, 2, 5, Tile(groups=2, rows=3, columns=1, lanes=2), marks=pytest.mark.slow),
    (11, 3, 1, 10, None),
    (70, 3, 1, 35, None),
]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("B", "T", "n_in", "H", "tile"), TILES)
def test_kernel_does_what_the_loop_does(run_on_host, reset, direction, B, T, n_in, H, tile):
    expected = run_plainly(Loops(B, T, n_in, H, reset), direction, T)
    for backwards in (False, True):
        loops = Loops(B, T, n_in, H, reset)
        run_on_host(compiled(loops, direction, T, tile=tile, multiprocessors=4), backwards)
        assert_did(loops, expected)


VARIANT_TILES = [
    (9, 3, 5, 8, Tile(groups=2, rows=2, columns=4, lanes=4)),
    (5, 4, 2, 1, Tile(groups=2, rows=2, columns=1, lanes=1)),
    (14, 2, 1, 10, Tile(groups=1, rows=6, columns=5, lanes=8)),
    (11, 3, 1, 10, None),
]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("variant", "sizes"),
    [
        *zip(VARIANTS, itertools.cycle(VARIANT_TILES)),
        *zip(VARIANTS[-2:], (VARIANT_TILES[3], VARIANT_TILES[0]), strict=True),
    ],
    ids=str,
)
def test_kernel_of_a_variant(run_on_host, reset, direction, variant, sizes):
    B, T, n_in, H, tile = sizes
    loops, expected = (Loops(B, T, n_in, H, reset, **variant) for _ in range(2))
    run_plainly(expected, direction, T)
    if expected.valid is not None:
        assert np.isfinite(expected.da).all()
        assert np.isnan(expected.dh).any() == (not expected.valid.all())
    run_on_host(compiled(loops, direction, T, tile=tile, multiprocessors=4))
    assert_did(loops, expected)
    if direction == "forward" and expected.valid is not None:
        assert (loops.seen[np.broadcast_to(expected.valid == 0.0, expected.seen.shape)] == 0.0).all()


class HostOps(Lowered, PlainOps):
    """Runs every loop of a layer as a kernel on the host."""

    def __init__(self, run_on_host):
        self.run_on_host, self.n_kernels = run_on_host, 0
        self.loops = PersistentLoops(lambda loop, limits: Tile(groups=2, rows=2, columns=1, lanes=2))

    def loop(self, step, times):
        if len(times) == 1:
            super().loop(step, times)
            return
        self.run_on_host(self.loops.find(step, times, H100))
        self.n_kernels += 1


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("update", [None, 0.5, "mask"])
@pytest.mark.parametrize("lengths", [None, [5, 0, 3, 1, 5]])
def test_layers_and_their_variants(run_on_host, rng, draw, draw_params, reset, lengths, update, reverse):
    """`gru_forward` and `gru_backward`; what is not a number where no step counts is not looked at."""
    x, h0, dh, dh_last = (draw(np, shape, "float32") for shape in [(5, 5, 2), (5, 3), (5, 5, 3), (5, 3)])
    for row, length in enumerate(lengths or ()):
        x[row, length:] = dh[row, length:] = np.nan
    candidate = None if update is None else (rng.random((5, 3)) > 0.4).astype(np.float32) * 1.25
    update = (rng.random((5, 5, 3)) > 0.4).astype(np.float32) if update == "mask" else update
    given = {"lengths": lengths, "update_mask": update, "candidate_mask": candidate, "reverse": reverse}
    params, results, host = draw_params(np, 2, 3, "float32"), [], HostOps(run_on_host)
    for ops in (PlainOps(), host, host):
        h, h_last, cache = gru_forward(x, h0, params, reset=reset, ops=ops, **given)
        dx, dh0, dparams = gru_backward(dh, cache, dh_last=dh_last)
        results.append((h, h_last, dx, dh0, *arrays_of(dparams)))
    assert host.n_kernels == 4  # in the second round with arguments for other memory
    for desired, *actual in zip(*results, strict=True):
        for a in actual:
            np.testing.assert_allclose(a, desired, rtol=0, atol=1e-5 * max(1.0, np.abs(desired).max()))


def test_gradient_of_the_last_state_alone(run_on_host, reset):
    loops, expected = (Loops(4, 3, 1, 5, reset, dh=False) for _ in range(2))
    run_on_host(compiled(loops, "backward", 3))
    assert_did(loops, run_plainly(expected, "backward", 3))


def test_memory_of_one_step_for_all(run_on_host, reset):
    """Prediction keeps nothing for a backward pass: every step overwrites what the one before wrote."""
    loops, expected = (Loops(4, 3, 2, 5, reset, keep=False) for _ in range(2))
    run_on_host(compiled(loops, "forward", 3))
    assert_did(loops, run_plainly(expected, "forward", 3))


def everything(xp, a, b, c, d):
    e = xp.exp(-a) / (2 + xp.sqrt(a * a))
    above = c > 0.0
    f = xp.where(above, (0.12345678901234567 - d) * 1e-05 + e, xp.maximum(a, -0.5))
    return e * b - xp.where(above, c, 0.5 * c * c), xp.where(a > b, f, -0.25) + xp.where(e > 0.1, d, 0.0)


def test_functions_constants_and_broadcasts(run_on_host, rng):
    arrays = {"a": (3, 4, 6), "b": (3, 6), "c": (4, 1), "d": (6,), "W": (6, 6), "p": (3, 4, 6), "q": (3, 4, 6)}
    arrays |= {"x": (3, 4, 6), "y": (3, 4, 6)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in arrays.items()}
    arrays["b"], arrays["x"] = (np.asarray(arrays[name], order="F") for name in ("b", "x"))  # columns far apart
    expected = {name: array.copy() for name, array in arrays.items()}

    def steps(a, b, c, d, W, p, q, x, y):
        def step(t, ops):
            ops.pointwise(everything, (a[t], b[t], c, d), out=(p[t], q[t]))
            ops.matmul(p[t], W, out=a[t])
            ops.pointwise(scaled_sum, (a[t], 0.3, a[t]), out=(a[t],))
            ops.matmul(x[t], W, out=y[t])

        return step

    for t in range(3):
        steps(**expected)(t, Plain())
    run_on_host(compile_loop(*logged(steps(**arrays), range(3)), 3))
    for name, desired in expected.items():
        np.testing.assert_allclose(arrays[name], desired, rtol=0, atol=1e-6 * np.abs(desired).max(), err_msg=name)


def scaled_sum(xp, a, factor, b):
    return (a * factor + b,)


# --- the kernel for a GPU ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("B", "n_in", "H"),
    [
        (64, 1, 1),
        pytest.param(704, 3, 7, marks=pytest.mark.slow),
        pytest.param(64, 1, 70, marks=pytest.mark.slow),
        (704, 1, 70),
        (4096, 9, 128),
    ],
)
@pytest.mark.parametrize(
    ("architecture", "limits"),
    [
        ("sm_80", {"multiprocessors": 108, "shared_bytes": 163 * 1024}),
        ("sm_90", {"multiprocessors": 132, "shared_bytes": 227 * 1024}),
    ],
)
def test_kernel_compiles_for_cuda(nvrtc, reset, direction, B, n_in, H, architecture, limits):
    loops = Loops(B, 2, n_in, H, reset)
    if architecture == "sm_80" and H == 128:
        assert compile_calls(logged(getattr(loops, direction), times_of(direction, 2)), 2, **limits) is None
        return
    program = compiled(loops, direction, 2, **limits)
    assert program.threads <= 512
    assert program.shared_bytes <= limits["shared_bytes"]
    ptx, report = nvrtc(program.source, architecture)
    assert ".f64" not in ptx
    assert ".local" not in ptx
    assert "fma.rn.f32" in ptx
    assert "cp.async" in ptx
    assert re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", report) == ["0", "0", "0"], report


@pytest.mark.parametrize(
    ("variant", "reset", "direction"),
    [
        (VARIANTS[-2], "after", "backward"),
        (VARIANTS[-1], "before", "backward"),
        pytest.param(VARIANTS[-2], "before", "forward", marks=pytest.mark.slow),
        pytest.param(VARIANTS[-1], "after", "forward", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_kernel_of_a_variant_compiles_for_cuda(nvrtc, reset, direction, variant):
    program = compiled(Loops(4096, 2, 9, 128, reset, **variant), direction, 2)
    ptx, report = nvrtc(program.source, "sm_90")
    assert ".f64" not in ptx
    assert ".local" not in ptx
    assert re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", report) == ["0", "0", "0"], report


def test_what_is_none_leaves_no_trace():
    """The kernel of a body whose inputs are None is that of one without these inputs."""

    def scaled(xp, a, b, mask):
        return (a + b if mask is None else (a + b) * mask,)

    def step(t, ops, body, *masks):
        ops.matmul(a[t], W, out=b[t])
        ops.pointwise(body, (a[t], b[t], *masks), out=(b[t],))

    a, b, W = np.zeros((3, 4, 4), np.float32), np.zeros((3, 4, 4), np.float32), np.zeros((4, 4), np.float32)
    programs = [
        compile_loop(*logged(lambda t, ops, given=given: step(t, ops, *given), range(3)), 3)
        for given in [(scaled, None), (add,), (scaled, 1.0)]
    ]
    assert programs[0].source == programs[1].source != programs[2].source
    assert programs[2].arguments[-1] == 1.0
    assert all(array is not None for array in programs[0].arrays)


def test_source_is_the_same_for_other_memory_numbers_and_lengths(reset):
    """Also with other strides: those of a mask with the sequences, or the steps, last."""
    sources = set()
    for B, T, update in ((6, 3, 0.5), (9, 4, -0.0), (1, 2, 3.0)):
        loops = Loops(B, T, 2, 5, reset, update="number")
        loops.update, loops.candidate = update, np.ones((5, B + 1), np.float32).T[:B]
        sources.add(compiled(loops, "backward", T, multiprocessors=9).source)
    assert len(sources) == 1


class Sources(Lowered, PlainOps):
    """Prints the kernels of a layer."""

    def pointwise(self, body, inputs, out):
        print(cupy_ops.kernel_source(record(body, [getattr(a, "shape", a) for a in inputs])))
        super().pointwise(body, inputs, out)

    def loop(self, step, times):
        print(PersistentLoops().find(step, times, H100).source)
        super().loop(step, times)


def print_sources():
    rng = np.random.default_rng(0)
    x, mask = (rng.random(shape).astype(np.float32) for shape in ((4, 3, 2), (4, 3, 5)))
    for reset in ("before", "after"):
        params = init_gru_params(2, 5, reset=reset, xp=np, seed=1, dtype=np.float32)
        _, _, cache = gru_forward(x, None, params, lengths=[3, 0, 2, 1], update_mask=mask, ops=Sources())
        gru_backward(mask, cache)


def test_sources_are_the_same_in_all_processes():
    """So that CuPy finds them in its kernel cache."""
    command = [sys.executable, "-c", f"from {__name__} import print_sources; print_sources()"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    texts = [process.communicate()[0] for process in processes]
    assert texts[0] == texts[1]
    assert texts[0].count("__global__") == 4


@pytest.mark.parametrize("n_rows", [1, 132, 133, 397, 700, 10**6])
def test_the_rows_of_a_tile(n_rows):
    """The tile is the fastest for its class of numbers of rows, and near the fastest for each."""
    loop = LoopSize(n_rows, 70, ((72, 3),), 10)
    tile, best = fastest_tile(loop, H100), feasible_tiles(loop, H100)
    assert best.index(tile) < len(best) / 20
    classes = [(1, 132), (133, 264), (265, 396), (397, 528), (529, 792), (793, 1056)]
    for low, high in classes:
        some = {fastest_tile(loop._replace(n_rows=n), H100) for n in (low, (low + high) // 2, high)}
        assert some == {feasible_tiles(loop._replace(n_rows=high), H100)[0]}


# --- what is left to single calls -------------------------------------------------------------------------------


def refusal(caplog, calls, n_steps=3, **options):
    with caplog.at_level(logging.DEBUG, logger="gru_xp.devices.persistent"):
        assert compile_calls(calls, n_steps, **options) is None
    return caplog.text


@pytest.fixture
def forward_calls():
    loops = Loops(4, 4, 1, 6, "after")
    return logged(loops.forward, range(3))


def test_loops_of_float64(caplog):
    loops = Loops(4, 3, 1, 6, "after", dtype=np.float64)
    assert "an array is float64, not float32" in refusal(caplog, logged(loops.forward, range(3)))


def test_loops_of_one_step(caplog, forward_calls):
    assert "not several steps" in refusal(caplog, forward_calls, 1)


def test_loops_with_other_calls(caplog, forward_calls):
    calls = [[*step, "copy"] for step in forward_calls]
    assert "a step calls 'copy'" in refusal(caplog, calls)


def test_loops_over_uneven_times(caplog):
    loops = Loops(4, 4, 1, 6, "after")
    assert "does not move evenly" in refusal(caplog, logged(loops.forward, (0, 1, 3)))


def test_loops_of_different_steps(caplog, forward_calls):
    first, second, last = forward_calls
    assert "steps make different calls" in refusal(caplog, (first, second[::-1], last))
    other = [second[0], second[1]._replace(body=lambda *arrays: after_gates(*arrays))]
    assert "steps call different bodies" in refusal(caplog, (first, other, last))


def test_states_that_are_too_wide(caplog):
    loops = Loops(2, 3, 1, 129, "after")
    assert "in blocks of 129" in refusal(caplog, logged(loops.forward, range(3)))


def test_weights_that_do_not_fit(caplog, forward_calls):
    assert "weights do not fit into 500 bytes" in refusal(caplog, forward_calls, shared_bytes=500)


MISFITS = [
    (lambda t, a, b, W, ops: ops.pointwise(add, (a[t], b[t]), (b[t],)), "there is no product"),
    (lambda t, a, b, W, ops: ops.matmul(a[t, :1], W[:4], b[t]), "left operand has other rows"),
    (lambda t, a, b, W, ops: ops.matmul(a[t], b[0, :, :4], b[t, :, :4]), "right operand changes"),
    (lambda t, a, b, W, ops: ops.matmul(a[t], W[:4, ::2], b[t, :, ::2]), "not side by side"),
    (
        lambda t, a, b, W, ops: (
            ops.matmul(a[t], W[:4, :2], b[t, :, 1:3]),
            ops.matmul(b[t, :, :2], W[:2, :2], a[t, :, :2]),
        ),
        "a part of a result",
    ),
    (
        lambda t, a, b, W, ops: (
            ops.matmul(a[t], W[:4, :2], b[t, :, 1:3]),
            ops.pointwise(add, (b[t, :, :2], 1.0), (a[t, :, :2],)),
        ),
        "across the columns of another array",
    ),
    (
        lambda t, a, b, W, ops: (ops.matmul(a[t], W[:4], b[t]), ops.pointwise(add, (b[t], b[t][::-1]), (a[t],))),
        "across the memory of other arrays",
    ),
    (
        lambda t, a, b, W, ops: (ops.matmul(a[t], W[:4], b[t]), ops.pointwise(add, (b[t], float(t)), (a[t],))),
        "different constants",
    ),
    (
        lambda t, a, b, W, ops: (
            ops.matmul(a[t], W[:4], b[t]),
            ops.pointwise(masked_sum, (b[t], *((a[t], None) if t else (None, a[t]))), (b[t],)),
        ),
        "different constants or shapes",
    ),
    (
        lambda t, a, b, W, ops: (
            ops.matmul(a[t], W[:4], b[t]),
            ops.pointwise(only_valid, (b[t], a[t, :, 1:2] if t else a[t]), (b[t],)),
        ),
        "different constants or shapes",
    ),
    (
        lambda t, a, b, W, ops: (
            ops.matmul(a[t], W[:4], b[t]),
            ops.pointwise(only_valid, (b[t], b[t, :, 1:2]), (a[t],)),
        ),
        "across the memory of other arrays",
    ),
    (
        lambda t, a, b, W, ops: (
            ops.matmul(a[t], W[:4], b[t]),
            ops.pointwise(only_valid, (b[t], a[(0, 2, 1)[t]][:, 1:2]), (b[t],)),
        ),
        "does not move evenly",
    ),
]
"""Steps that a kernel cannot run, and why."""


def test_steps_that_do_not_fit(caplog):
    a, b, W = np.zeros((3, 4, 4), np.float32), np.zeros((3, 4, 4), np.float32), np.zeros((8, 4), np.float32)
    for number, (step, reason) in enumerate(MISFITS):
        caplog.clear()
        assert reason in refusal(caplog, logged(lambda t, ops, step=step: step(t, a, b, W, ops), range(3))), number


def masked_sum(xp, a, b, c):
    return (masked(a, b) + masked(a, c),)


# --- with a GPU -------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("B", "T", "n_in", "H", "tile"), [*TILES, (64, 10, 1, 70, None), (4096, 4, 8, 128, None)])
def test_cuda_loop(reset, direction, B, T, n_in, H, tile):
    """Launched, and then played back from a CUDA graph."""
    import cupy

    sizes = (B, T, n_in, H, reset)
    loops = Loops(*sizes, xp=cupy)
    program = compile_calls(logged(getattr(loops, direction), times_of(direction, T)), T, tile)
    if program is None:
        pytest.skip("the kernel needs more shared memory than this device has")
    program.launch()
    assert_did_on_gpu(loops, direction, T, *sizes)

    loops = Loops(*sizes, xp=cupy)
    program = compiled(loops, direction, T, tile=tile)
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        program.launch()
        graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
    assert_did_on_gpu(loops, direction, T, *sizes)


@pytest.mark.cuda
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize(("B", "T", "n_in", "H"), [(64, 10, 1, 70), (4096, 4, 8, 128)])
def test_cuda_loop_of_a_variant(reset, direction, variant, B, T, n_in, H):
    import cupy

    loops = Loops(B, T, n_in, H, reset, xp=cupy, **variant)
    times = times_of(direction, T, loops.reverse)
    program = compile_loop(*logged(getattr(loops, direction), times), T)
    if program is None:
        pytest.skip("the kernel needs more shared memory than this device has")
    program.launch()
    assert_did_on_gpu(loops, direction, T, B, T, n_in, H, reset, **variant)
