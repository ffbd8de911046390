import ctypes
import ctypes.util
import importlib.util
import logging
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gru_xp.devices.persistent import Matmul, Pointwise, Tile, compile_loop

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

    def pointwise(self, body, inputs, out):
        self.calls.append(Pointwise(body, inputs, out))


def add(xp, a, b):
    return (a + b,)


def sigmoid(xp, a):
    return 0.5 * xp.tanh(a) + 0.5


def after_gates(xp, p, a_n, h):
    H = h.shape[-1]
    zr = sigmoid(xp, p[..., : 2 * H])
    n = xp.tanh(a_n + zr[..., H:] * p[..., 2 * H :])
    change = zr[..., :H] * (n - h)
    return zr, n, change, h + change


def after_gradients(xp, dh, gates, n, change):
    H = n.shape[-1]
    z, r, q = gates[..., :H], gates[..., H : 2 * H], gates[..., 2 * H :]
    dn = dh * z * (1.0 - n * n)
    return change * dh * (1.0 - z), dn * q * r * (1.0 - r), dn * r, dn, dh * (1.0 - z)


def before_gates(xp, p, h):
    H = h.shape[-1]
    zr = sigmoid(xp, p)
    return zr, zr[..., H:] * h


def before_state(xp, a_n, z, h):
    n = xp.tanh(a_n)
    change = z * (n - h)
    return n, change, h + change


def before_candidate_gradients(xp, dh, z, n, change):
    return change * dh * (1.0 - z), dh * z * (1.0 - n * n), dh * (1.0 - z)


def before_reset_gradients(xp, product, r, h, kept):
    return product * h * r * (1.0 - r), kept + product * r


class Loops:
    """Arrays of a layer, filled with random numbers, and its steps; `names` are those of the arrays."""

    def __init__(self, B, T, n_in, H, reset, *, xp=np, dtype=np.float32, dh=True, keep=True):
        rng = np.random.default_rng(5)
        self.H, self.K, self.reset = H, H + n_in + 1, reset
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
        self.names = [*shapes, "W"]
        for name, shape in shapes.items():
            setattr(self, name, xp.asarray(rng.standard_normal(shape).astype(dtype)))
        self.W = xp.asarray((rng.standard_normal((3 * H, self.K)) / H**0.5).astype(dtype))
        if not dh:
            self.dh = None

    def forward(self, t, ops):
        H, K, joint, gates, n, change = self.H, self.K, self.joint, self.gates, self.n, self.change
        kept = min(t, gates.shape[0] - 1)
        gates, change, h = gates[kept], change[kept], joint[t][:, :H]
        if self.reset == "after":
            ops.matmul(joint[t], self.W.T, out=gates)
            out = (gates[:, : 2 * H], n[t], change, joint[t + 1][:, :H])
            ops.pointwise(after_gates, (gates, n[t], h), out=out)
        else:
            zr = gates[:, : 2 * H]
            ops.matmul(joint[t][:, :K], self.W[: 2 * H].T, out=zr)
            ops.pointwise(before_gates, (zr, h), out=(zr, joint[t][:, K:]))
            ops.matmul(joint[t][:, H:], self.W[2 * H :].T, out=n[t])
            ops.pointwise(before_state, (n[t], zr[:, :H], h), out=(n[t], change, joint[t + 1][:, :H]))

    def backward(self, t, ops):
        H, joint, gates, n, change = self.H, self.joint, self.gates, self.n, self.change
        da, da_n, carry, kept, product, W = self.da, self.da_n, self.carry, self.kept, self.product, self.W[:, :H]
        if self.dh is not None:
            ops.pointwise(add, (carry, self.dh[:, t]), out=(carry,))
        da_z, da_r, dq = (da[t][:, start : start + H] for start in range(0, 3 * H, H))
        if self.reset == "after":
            ops.pointwise(after_gradients, (carry, gates[t], n[t], change[t]), out=(da_z, da_r, dq, da_n[t], kept))
            ops.matmul(da[t], W, out=product)
        else:
            z, r = gates[t][:, :H], gates[t][:, H : 2 * H]
            ops.pointwise(before_candidate_gradients, (carry, z, n[t], change[t]), out=(da_z, da_n[t], kept))
            ops.matmul(da_n[t], W[2 * H :], out=product)
            ops.pointwise(before_reset_gradients, (product, r, joint[t][:, :H], kept), out=(da_r, kept))
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


def times_of(direction, T):
    return range(T) if direction == "forward" else range(T - 1, -1, -1)


def compiled(loops, direction, T, **options):
    program = compile_loop(*logged(getattr(loops, direction), times_of(direction, T)), T, **options)
    assert program is not None
    return program


# --- the kernel on the host -------------------------------------------------------------------------------------

SHIM = r"""
#include <cmath>
using std::exp;
using std::sqrt;
using std::tanh;
#include <cstdlib>
#include <ucontext.h>
// Threads of a block take turns: each runs to the next barrier, in this or the other order.
struct Dim { unsigned x; };
struct alignas(16) float4 { float x, y, z, w; };
static Dim threadIdx, blockIdx;
static float4 shared[%d];
static float handed[1024];
static ucontext_t scheduler, fibers[1024];
static char stacks[1024][1 << 16];
static int waits_for[1024];
#define __global__
#define __device__
#define __forceinline__
#define __shared__
#define __launch_bounds__(...)
static void wait(int what)
{
    const unsigned me = threadIdx.x;
    waits_for[me] = what;
    swapcontext(&fibers[me], &scheduler);
}
static void __syncthreads() { wait(1); }
static float __shfl_xor_sync(unsigned, float value, int mask)
{
    handed[threadIdx.x] = value;
    wait(2);
    const float other = handed[threadIdx.x ^ mask];
    wait(3);
    return other;
}
#line 1 "kernel.cu"
%s
static const long long *given;
static void fiber()
{
    steps(%s);
    waits_for[threadIdx.x] = 0;
}
extern "C" void launch(int blocks, int threads, int shared_bytes, int backwards, const long long *arguments)
{
    given = arguments;
    for (blockIdx.x = 0; blockIdx.x < (unsigned)blocks; ++blockIdx.x) {
        for (unsigned i = 0; i < sizeof shared / 4; ++i) ((float *)shared)[i] = NAN;
        for (int i = 0; i < threads; ++i) {
            getcontext(&fibers[i]);
            fibers[i].uc_stack.ss_sp = stacks[i];
            fibers[i].uc_stack.ss_size = sizeof stacks[i];
            fibers[i].uc_link = &scheduler;
            makecontext(&fibers[i], fiber, 0);
            waits_for[i] = -1;
        }
        do
            for (int i = 0; i < threads; ++i) {
                threadIdx.x = backwards ? threads - 1 - i : i;
                swapcontext(&scheduler, &fibers[threadIdx.x]);
                if (waits_for[threadIdx.x] != waits_for[backwards ? threads - 1 : 0]) abort();  // not all come here
            }
        while (waits_for[0]);
    }
    for (unsigned i = shared_bytes / 4; i < sizeof shared / 4; ++i)
        if (!std::isnan(((float *)shared)[i])) abort();  // beyond what the launch asks for
}
"""


@pytest.fixture(scope="session")
def run_on_host(tmp_path_factory):
    """``run_on_host(program, backwards)``: the kernel as C++, one thread after the other from barrier to barrier."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")
    folder = tmp_path_factory.mktemp("persistent")
    libraries = {}

    def run(program, backwards=False):
        if program.source not in libraries:
            kinds = re.search(r"steps\((.*)\)", program.source).group(1).split(", ")
            assert len(kinds) == len(program.arguments)
            given = (f"({'float *' if '*' in kind else 'long long'})given[{i}]" for i, kind in enumerate(kinds))
            name = folder / f"kernel{len(libraries)}"
            name.with_suffix(".cpp").write_text(SHIM % (2**14, program.source, ", ".join(given)))
            command = [compiler, "-O1", "-w", "-std=c++17", "-shared", "-fPIC", name.with_suffix(".cpp"), "-o", name]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr
            libraries[program.source] = ctypes.CDLL(str(name))
        arguments = (ctypes.c_longlong * len(program.arguments))(*program.arguments)
        shape = (program.grid, program.threads, program.shared_bytes, int(backwards))
        libraries[program.source].launch(*map(ctypes.c_int, shape), arguments)

    return run


def assert_did(loops, expected):
    """Everything that a loop could have written is what it is in `expected`."""
    for name in expected.names:
        actual, desired = getattr(loops, name), getattr(expected, name)
        if desired is not None:
            actual = actual if isinstance(actual, np.ndarray) else actual.get()
            np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-6 * np.abs(desired).max(), err_msg=name)


def run_plainly(loops, direction, T):
    for t in times_of(direction, T):
        getattr(loops, direction)(t, Plain())
    return loops


TILES = [
    (5, 4, 1, 7, Tile(groups=2, rows=2, columns=1, lanes=2)),
    (1, 2, 3, 1, Tile(groups=1, rows=1, columns=1, lanes=1)),
    (7, 3, 2, 6, Tile(groups=1, rows=4, columns=2, lanes=4)),
    (3, 3, 1, 9, Tile(groups=1, rows=1, columns=1, lanes=8)),
    (9, 3, 5, 8, Tile(groups=2, rows=2, columns=4, lanes=4)),
    (14, 2, 1, 10, Tile(groups=1, rows=6, columns=5, lanes=8)),
    (7, 3, 2, 5, Tile(groups=2, rows=3, columns=1, lanes=2)),
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
    return e * b - c, (0.12345678901234567 - d) * 1e-05 + e


def test_functions_constants_and_broadcasts(run_on_host, rng):
    arrays = {"a": (3, 4, 6), "b": (3, 6), "c": (4, 1), "d": (6,), "W": (6, 6), "p": (3, 4, 6), "q": (3, 4, 6)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in arrays.items()}
    expected = {name: array.copy() for name, array in arrays.items()}

    def steps(a, b, c, d, W, p, q):
        def step(t, ops):
            ops.pointwise(everything, (a[t], b[t], c, d), out=(p[t], q[t]))
            ops.matmul(p[t], W, out=a[t])
            ops.pointwise(scaled_sum, (a[t], 0.3, a[t]), out=(a[t],))

        return step

    for t in range(3):
        steps(**expected)(t, Plain())
    run_on_host(compile_loop(*logged(steps(**arrays), range(3)), 3))
    for name, desired in expected.items():
        np.testing.assert_allclose(arrays[name], desired, rtol=0, atol=1e-6 * np.abs(desired).max(), err_msg=name)


def scaled_sum(xp, a, factor, b):
    return (a * factor + b,)


# --- the kernel for a GPU ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def nvrtc():
    """``nvrtc(source, architecture)``: PTX and the assembler's report."""
    spec = importlib.util.find_spec("nvidia")
    folders = map(Path, spec.submodule_search_locations if spec else ())
    found = [str(path) for folder in folders for path in folder.glob("*/lib/libnvrtc.so.*")]
    name = next(iter(found), ctypes.util.find_library("nvrtc"))
    if name is None:
        pytest.skip("there is no NVRTC")
    library = ctypes.CDLL(name)

    def text(program, what):
        size = ctypes.c_size_t()
        getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{what}")(program, buffer)
        return buffer.value.decode()

    def nvrtc(source, architecture):
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


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("B", "n_in", "H"), [(64, 1, 1), (704, 3, 7), (64, 1, 70), (704, 1, 70), (4096, 9, 128)])
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
        assert compile_loop(*logged(getattr(loops, direction), times_of(direction, 2)), 2, **limits) is None
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


def test_source_is_the_same_for_other_memory_and_lengths(reset):
    tile = Tile(groups=1, rows=2, columns=1, lanes=1)
    sources = {compiled(Loops(B, T, 2, 5, reset), "backward", T, tile=tile).source for B, T in ((6, 3), (9, 4))}
    assert len(sources) == 1


# --- what is left to single calls -------------------------------------------------------------------------------


def refusal(caplog, calls, n_steps=3, **options):
    with caplog.at_level(logging.DEBUG, logger="gru_xp.devices.persistent"):
        assert compile_loop(*calls, n_steps, **options) is None
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


@pytest.mark.parametrize(
    ("step", "reason"),
    [
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
    ],
)
def test_steps_that_do_not_fit(caplog, step, reason):
    a, b, W = np.zeros((3, 4, 4), np.float32), np.zeros((3, 4, 4), np.float32), np.zeros((8, 4), np.float32)
    assert reason in refusal(caplog, logged(lambda t, ops: step(t, a, b, W, ops), range(3)))


# --- with a GPU -------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("B", "T", "n_in", "H", "tile"), [*TILES, (64, 10, 1, 70, None), (4096, 4, 8, 128, None)])
def test_cuda_loop(reset, direction, B, T, n_in, H, tile):
    """Launched, and then played back from a CUDA graph."""
    import cupy

    expected = run_plainly(Loops(B, T, n_in, H, reset), direction, T)
    loops = Loops(B, T, n_in, H, reset, xp=cupy)
    program = compile_loop(*logged(getattr(loops, direction), times_of(direction, T)), T, tile=tile)
    if program is None:
        pytest.skip("the kernel needs more shared memory than this device has")
    program.launch()
    assert_did(loops, expected)

    loops = Loops(B, T, n_in, H, reset, xp=cupy)
    program = compiled(loops, direction, T, tile=tile)
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        program.launch()
        graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
    assert_did(loops, expected)
