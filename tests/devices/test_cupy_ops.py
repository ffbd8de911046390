import ctypes
import functools
import itertools
import math
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from gru_xp.devices import cublas, cupy_ops, persistent_loops, resolve_device, to_device, to_host
from gru_xp.devices.c_code import C_CODE, rounded
from gru_xp.devices.cupy_ops import CupyOps, kernel_source
from gru_xp.devices.lowering import LoopCall, LoopSteps
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.devices.recording import FUNCTIONS, record
from gru_xp.devices.step_plan import Kind, Product, Run
from gru_xp.nn import gradcheck, gru_backward, gru_cell_backward, gru_cell_forward, gru_forward
from gru_xp.nn.network import init_network_params
from gru_xp.nn.params import arrays_of, map_arrays
from gru_xp.nn.scan import device_scan
from gru_xp.training.trainer import TrainingConfig, train
from gru_xp.training.truncated import train_on_chunks

C_TYPES = {"float32": "float", "float64": "double"}
RESULTS = ("h", "h_last", "dx", "dh0", "dweight_ih", "dweight_hh", "dbias", "dbias_hn")


# --- pointwise bodies, and what they are called with ------------------------------------------------------------


def everything(xp, a, b):
    """Every function that a body may call, and constants that are not short."""
    c = xp.tanh(-a) + xp.exp(b) / 3.0
    d = xp.sqrt(2 + a * a)
    e = xp.maximum(xp.negative(b) * 1e-05, d - 2.0)
    return c * a - 0.12345678901234567, (1.0 - c) / d, e, xp.where(a > b, d, -1e-05)


def blocks(xp, gates, h, column, rate):
    """Slices of slices, of results, results of several blocks, and one column for all of those."""
    H = h.shape[-1]
    all_but_last = xp.tanh(rate * gates[..., : 3 * H]) * (column + 1.0)
    z, rest = all_but_last[..., :H], all_but_last[..., H:]
    return rest[..., :H] + z * h, all_but_last * gates[..., H:], rest[..., H:] - h


def part_of_a_row(xp, a):
    """Only some of an array's columns, in blocks that do not make up the whole."""
    return a[..., 2:4] + a[..., 4:6], a[..., 4:6] * a[..., 2:4]


def broadcast(xp, a, row, column, number):
    """A row for all rows, a column for all columns, and one number for all."""
    return (a * row + column / number,)


def masked(xp, h, n, z, update, candidate, valid):
    """A step whose variants are made by inputs that may be None; what does not count may be not a number."""
    z = z if update is None else update * z
    n = n if candidate is None else candidate * n
    h_next = h + z * (n - h)
    return h_next, 2.0 * h_next if valid is None else xp.where(valid > 0.0, xp.sqrt(valid) * h_next, 0.0)


def chosen(xp, gates, valid):
    """A condition for several blocks, of one block, and used again."""
    above = gates > valid
    some = xp.where(above, gates, 0.5)
    H = some.shape[-1] // 2
    return some, xp.where(above[..., H:], some[..., :H], gates[..., :H]), xp.where(valid > 0.25, -0.5, some)


OWN_CALLS = [
    *[
        (masked, [(2, 5, 4), (2, 5, 4), (2, 5, 4), update, candidate, valid])
        for update in (None, 0.5, (5, 1), (2, 5, 4))
        for candidate in (None, (5, 4))
        for valid in (None, (2, 5, 1), (5, 4))
    ],
    (masked, [(4, 1), (4, 1), (4, 1), (4, 1), None, (4, 1)]),
    (chosen, [(2, 5, 6), (2, 5, 1)]),
    (chosen, [(5, 6), (6,)]),
    (everything, [(4, 3), (4, 3)]),
    (everything, [(7,), (7,)]),
    (blocks, [(2, 5, 12), (2, 5, 3), (5, 1), 0.1]),
    (blocks, [(5, 4), (5, 1), (1,), 2]),
    (part_of_a_row, [(3, 7)]),
    (broadcast, [(2, 4, 6), (6,), (4, 1), (1,)]),
    (broadcast, [(4, 1), (1,), (4, 1), (1, 1)]),
]


def run_layer(convert, x, h0, params, dh, dh_last, ops):
    """All results of a layer, forward and backward, as host arrays."""
    x, h0, dh, dh_last = map(convert, (x, h0, dh, dh_last))
    h, h_last, cache = gru_forward(x, h0, map_arrays(convert, params), ops=ops)
    dx, dh_prev, dparams = gru_backward(dh, cache, dh_last=dh_last)
    return h, h_last, dx, dh_prev, *arrays_of(dparams)


@pytest.fixture
def layer(draw, draw_params):
    """``layer(B, T, I, H, dtype)``: the arguments of `run_layer` that are data."""

    def layer(B, T, n_in, H, dtype="float64"):
        shapes = [(B, T, n_in), (B, H)], [(B, T, H), (B, H)]
        (x, h0), (dh, dh_last) = ([draw(np, shape, dtype) for shape in pair] for pair in shapes)
        return x, h0, draw_params(np, n_in, H, dtype), dh, dh_last

    return layer


@pytest.fixture
def calls(body_cases, draw_inputs):
    """Bodies and what they are called with: those above, and those of layers and updates."""
    different = {str((case.body, case.inputs)): case for case in body_cases}.values()
    return OWN_CALLS + [
        (case.body, [getattr(a, "shape", a) for a in draw_inputs(case, rows, "float32")])
        for rows in ((3,), (1,))
        for case in different
    ]


def draw_call(draw, body, given, dtype="float64"):
    """What to call a body with, such that its results are finite."""
    inputs = [draw(np, shape, dtype) if isinstance(shape, tuple) else shape for shape in given]
    if not all(np.isfinite(a).all() for a in body(np, *inputs)):  # it takes roots
        inputs = [np.abs(a) if isinstance(a, np.ndarray) else a for a in inputs]
    return inputs


def assert_close(actual, desired, tolerance, name="", rounding=0.0):
    scale = np.abs(desired).max() if np.size(desired) else 0.0
    limit = tolerance * scale + rounding
    np.testing.assert_allclose(to_host(actual), desired, rtol=tolerance, atol=limit, err_msg=name)


# --- the generated code, compiled for the host ------------------------------------------------------------------


def c_function(name, source, dtype):
    """A loop over elements around the kernel, whose arguments are references into the arrays, as in CuPy."""
    inputs, outputs = (
        [parameter.removeprefix("T ") for parameter in text.split(", ")]
        for text in (source.in_params, source.out_params)
    )
    arguments = [f"const {C_TYPES[dtype]} *{i}_" for i in inputs] + [f"{C_TYPES[dtype]} *{o}_" for o in outputs]
    lines = [
        f'extern "C" void {name}_{dtype}(long n, {", ".join(arguments)}) {{',
        f"typedef {C_TYPES[dtype]} T;",
        "for (long i = 0; i < n; ++i) {",
        *[f"const T &{i} = {i}_[i];" for i in inputs],
        *[f"T &{o} = {o}_[i];" for o in outputs],
        source.code,
        "}}",
    ]
    return "\n".join(lines)


def views(source, arrays):
    """What a kernel is called with, numbers as arrays."""
    return [
        np.asarray(rounded(view, arrays[-1].dtype), arrays[-1].dtype)
        if isinstance(view, float)
        else arrays[view[0]]
        if view[1] is None
        else arrays[view[0]][..., view[1]]
        for view in source.arguments
    ]


@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt")
def test_code_does_what_the_body_does(calls, draw, tmp_path):
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++", "cc"))), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    sources = [kernel_source(record(body, given)) for body, given in calls]
    code = [c_function(f"kernel{i}", source, dtype) for i, source in enumerate(sources) for dtype in C_TYPES]
    file, library = tmp_path / "kernels.cpp", tmp_path / "kernels.so"
    file.write_text("\n".join(["#include <cmath>", "using std::exp, std::sqrt, std::tanh;", *code]))
    command = [compiler, "-x", "c++", "-std=c++17", "-O0", "-ffp-contract=off", "-shared", "-fPIC", file, "-o", library]
    result = subprocess.run([*command, "-lm"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    functions = ctypes.CDLL(str(library))

    for (i, (body, given)), (dtype, tolerance) in [
        (call, kind) for call in enumerate(calls) for kind in [("float64", 1e-13), ("float32", 5e-6)]
    ]:
        inputs = draw_call(draw, body, given, dtype)
        expected = body(np, *inputs)
        assert all(np.isfinite(array).all() for array in expected), (body, given)
        out = [np.full(array.shape, np.nan, dtype) for array in expected]
        called_with = views(sources[i], [*[a for a in inputs if isinstance(a, np.ndarray)], *out])
        n_out = len(sources[i].out_params.split(", "))
        shape = called_with[-1].shape
        flat = [np.broadcast_to(a, shape).copy() for a in called_with]  # CuPy broadcasts, and follows strides
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in flat]
        getattr(functions, f"kernel{i}_{dtype}")(ctypes.c_long(math.prod(shape)), *pointers)
        for view, array in zip(called_with[-n_out:], flat[-n_out:], strict=True):
            view[...] = array
        for actual, desired in zip(out, expected, strict=True):
            assert_close(actual, desired, tolerance, f"{body.__name__} {given}")


def test_outputs_are_written_after_all_is_read(calls):
    """So that an output may even be an input that the body uses to the end."""
    for body, given in calls:
        code = kernel_source(record(body, given)).code
        assert re.fullmatch(r"(const T v\w+ = [^;]*;\n)*(out\w+ = v\w+;\n?)+", code), code


def test_every_function_is_tested():
    assert {call.function for call in record(everything, [(1,), (1,)]).calls} == set(FUNCTIONS)


def test_maximum_of_what_is_not_a_number():
    code = C_CODE["maximum"]("a", "b")
    pattern = re.fullmatch(r"(.*) \|\| (.*) \? (.*) : (.*)", code).groups()
    for a in (0.0, 1.0, np.nan):
        for b in (0.5, np.nan):
            first, second, yes, no = (eval(text, {"a": a, "b": b}) for text in pattern)
            np.testing.assert_equal(yes if first or second else no, np.maximum(a, b))


def test_source_of_a_small_body():
    source = kernel_source(record(lambda xp, a, b, rate: (xp.tanh(a) * rate, 2 - b), [(2,), (2,), 0.5]))
    assert source.in_params == "T in0_0, T in1_0, T number0, T number1"
    assert source.out_params == "T out0_0, T out1_0"
    assert source.code.splitlines() == [
        "const T v0_0 = tanh(in0_0);",
        "const T v1_0 = v0_0 * number0;",
        "const T v2_0 = number1 - in1_0;",
        "out0_0 = v1_0;",
        "out1_0 = v2_0;",
    ]
    assert source.arguments == [(0, None), (1, None), 0.5, 2.0, (2, None), (3, None)]


def test_source_of_blocks():
    source = kernel_source(record(lambda xp, a, b: (a[..., 2:4] * b + a[..., 6:],), [(5, 8), (5, 2)]))
    assert source.in_params == "T in0_1, T in1_0, T in0_3"
    assert source.code.splitlines()[:2] == ["const T v0_0 = in0_1 * in1_0;", "const T v1_0 = v0_0 + in0_3;"]
    assert source.arguments == [(0, slice(2, 4)), (1, None), (0, slice(6, 8)), (2, None)]


def test_body_that_returns_an_input():
    with pytest.raises(ValueError, match="<lambda> returns"):
        kernel_source(record(lambda xp, a, b: (a * b, b), [(2,), (2,)]))


def test_cupy_takes_the_code(calls):
    """As far as CuPy looks at it without a GPU."""
    cupy = pytest.importorskip("cupy")
    for body, given in calls:
        source = kernel_source(record(body, given))
        kernel = cupy.ElementwiseKernel(source.in_params, source.out_params, source.code, body.__name__)
        assert kernel.nin + kernel.nout == len(source.arguments)


def test_code_compiles_for_cuda(calls, nvrtc):
    """In float32 throughout, numbers included."""
    kernels = []
    for number, source in enumerate({source.code: source for source in map(recorded, calls)}.values()):
        names = [parameter.removeprefix("T ") for parameter in f"{source.in_params}, {source.out_params}".split(", ")]
        kinds = ["const T " if isinstance(view, float) else "T *" for view in source.arguments]
        parameters = [f"{kind}{name}{'_' * (kind == 'T *')}" for kind, name in zip(kinds, names, strict=True)]
        lines = [f"T &{name} = {name}_[threadIdx.x];" for kind, name in zip(kinds, names, strict=True) if kind == "T *"]
        kernels.append(f'extern "C" __global__ void k{number}({", ".join(parameters)}) {{')
        kernels += [*lines, source.code, "}"]
    ptx, _ = nvrtc("\n".join(["typedef float T;", *kernels]), "sm_90")
    assert ptx.count(".entry") > 20
    assert ".f64" not in ptx


def recorded(call):
    body, given = call
    return kernel_source(record(body, given))


# --- everything on a CuPy of NumPy arrays -----------------------------------------------------------------------


class FakeElementwiseKernel:
    """Runs the code of a kernel as Python, on whole arrays."""

    made = 0

    def __init__(self, in_params, out_params, code, name, no_return):
        assert re.fullmatch(r"gru_xp_\w+", name)
        FakeElementwiseKernel.made += 1
        self.names = re.findall(r"T (\w+)", f"{in_params}, {out_params}")
        code = re.sub(r"^const T ", "", code, flags=re.MULTILINE)
        code = re.sub(r"= (.*) \|\| .* \? (.*) : (.*);", r"= maximum(\2, \3);", code)
        code = re.sub(r"= (.*) \? (.*) : (.*);", r"= where(\1, \2, \3);", code)
        self.code = re.sub(r"^(out\w+) =", r"\1[...] =", code, flags=re.MULTILINE).replace(";", "")

    def __call__(self, *arrays):
        assert len(arrays) == len(self.names)
        functions = {name: getattr(np, name) for name in ("exp", "maximum", "sqrt", "tanh", "where")}
        exec(self.code, dict(zip(self.names, arrays, strict=True)) | functions | {"T": arrays[-1].dtype.type})


class HostBlas:
    """What `Cublas` does, by NumPy."""

    def __init__(self):
        self.products = 0

    def product(self, a, b, out, *, transpose_a=False, add=False, tf32=False):
        self.products += 1
        a = a.reshape(-1, a.shape[-1])
        result = (a.T if transpose_a else a) @ b.reshape(-1, b.shape[-1])
        out[...] = result.reshape(out.shape) + (out if add else 0)


@pytest.fixture
def fake_cupy(monkeypatch, checked_devices):
    device = SimpleNamespace(
        attributes={"MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": 1000}, mem_info=(1, 80 * 10**9)
    )
    cupy = SimpleNamespace(
        ndarray=type("ndarray", (), {}),
        empty=lambda shape, dtype: np.full(shape, np.nan, dtype),
        ElementwiseKernel=FakeElementwiseKernel,
        cuda=SimpleNamespace(runtime=SimpleNamespace(getDevice=lambda: 0), Device=lambda index: device),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cupy_ops, "_limits", functools.cache(cupy_ops._limits.__wrapped__))
    monkeypatch.setattr(cupy_ops, "write_norm", PLAIN_OPS.norm)
    monkeypatch.setattr(persistent_loops, "compile_loop", lambda *calls, **limits: None)
    return cupy


@pytest.fixture
def blas(monkeypatch):
    blas = HostBlas()
    monkeypatch.setattr(cublas, "current", lambda: blas)
    return blas


@pytest.fixture(params=["cublas", "cupy"])
def products(request, monkeypatch, blas):
    """Products by cuBLAS, and where it cannot be had."""
    if request.param == "cupy":
        monkeypatch.setattr(cublas, "current", lambda: None)
        monkeypatch.setattr(cublas, "cupys_products", lambda tf32: nullcontext())
    return request.param


def test_layer(fake_cupy, products, layer, reset):
    ops = CupyOps()
    for sizes in ((1, 1, 1, 1), (3, 4, 1, 5), (2, 3, 4, 2)):
        arguments = layer(*sizes)
        expected = run_layer(np.asarray, *arguments, PLAIN_OPS)
        for _ in range(2):
            actual = run_layer(np.asarray, *arguments, ops)
            for name, array, desired in zip(RESULTS, actual, expected, strict=False):
                assert_close(array, desired, 1e-12, f"{name} {sizes}")


def test_a_kernel_serves_all_numbers_and_shapes(fake_cupy):
    ops, made = CupyOps(), FakeElementwiseKernel.made
    for rows, H in ((4, 2), (4, 3), (1, 5)):
        for number in (0.5, 2, 0.5, -0.0, 0.0, np.inf):
            a, out = np.ones((rows, H)), np.empty((rows, H))
            ops.pointwise(broadcast_by, (a, number), (out,))
            np.testing.assert_array_equal(out, a * number)
            assert np.signbit(out).all() == np.signbit(number)
    assert FakeElementwiseKernel.made == made + 1


def test_a_call_serves_all_numbers_of_rows(fake_cupy, monkeypatch):
    """What it is recorded for has several rows; a single row, or column, is another matter, as it may be broadcast."""
    recorded = []
    monkeypatch.setattr(cupy_ops, "record", lambda *arguments: recorded.append(arguments) or record(*arguments))
    ops = CupyOps()
    for rows, columns, n_recorded in ((2, 3, 1), (7, 3, 1), (400, 3, 1), (1, 3, 2), (5, 1, 3), (9, 1, 3), (5, 3, 3)):
        a, b, out = np.full((4, rows, columns), 2.0), np.full((rows, 3), 3.0), np.empty((4, rows, 3))
        ops.pointwise(sum_of_two, (a, b), (out,))
        assert (out == 5.0).all()
        assert len(recorded) == n_recorded


def test_numbers_are_rounded_as_arrays_are(fake_cupy):
    """To the type of the arrays, where there are larger numbers than it has."""
    for number in (0.1, -0.0, 1e39, -np.inf, float(np.finfo("float32").max)):
        for dtype in ("float32", "float64"):
            out = np.empty((2, 3), dtype)
            CupyOps().pointwise(broadcast_by, (np.ones((2, 3), dtype), number), (out,))
            with np.errstate(over="ignore"):
                expected = np.full((2, 3), number).astype(dtype)
            np.testing.assert_array_equal(out, expected)
            assert np.signbit(out).all() == np.signbit(number)


@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt")
def test_pointwise(fake_cupy, draw, calls):
    """Also with None for an input, and with masks."""
    ops = CupyOps()
    for body, given in calls:
        inputs = tuple(draw_call(draw, body, given))
        expected = body(np, *inputs)
        for _ in range(2):
            out = tuple([np.full(array.shape, np.nan) for array in expected])
            ops.pointwise(body, inputs, out)
            for actual, desired in zip(out, expected, strict=True):
                assert_close(actual, desired, 1e-13, f"{body.__name__} {given}")


def broadcast_by(xp, a, number):
    return (a * number,)


def test_copy_and_empty(fake_cupy):
    ops = CupyOps()
    out = ops.empty((2, 3), like=np.empty(0, "float32"))
    assert out.dtype == np.float32
    ops.copy(np.arange(3), out)
    ops.copy(7.0, out[:, :1])
    assert out.tolist() == [[7.0, 1.0, 2.0]] * 2


def test_parts_go_by_the_memory_of_the_device(fake_cupy):
    ops = CupyOps()
    assert [rows for rows, _ in ops.parts(4096, 32, 8, 128)] == [slice(0, 4096)]
    parts = ops.parts(10**6, 100, 8, 128)
    assert parts[0][0].start == 0
    assert parts[-1][0].stop == 10**6
    assert all(part_ops is ops for _, part_ops in parts)
    assert 8 * 100 * 8 * 128 * max(rows.stop - rows.start for rows, _ in parts) < 80e9 / 3
    assert ops.run([(ops, lambda: 1), (ops, lambda: 2)]) == [1, 2]


def test_ops_of_a_thread(fake_cupy):
    assert device_scan("cupy") is device_scan("cupy")
    assert isinstance(device_scan("cupy"), CupyOps)


# --- loops ------------------------------------------------------------------------------------------------------


@pytest.fixture
def steps(fake_cupy, blas):
    """Ops and a step, which adds what is in row t of `x` to `total`, and where the result is seen."""
    ops, x, w = CupyOps(), np.arange(12.0).reshape(4, 3), np.eye(3)
    total, product = np.zeros((1, 3)), np.empty((1, 3))

    def step(t):
        assert ops.matmul(x[t : t + 1], w, out=product) is product
        ops.pointwise(sum_of_two, (total, product), (total,))

    return ops, step, x, total


def sum_of_two(xp, a, b):
    return (a + b,)


def test_loop_call_by_call(steps):
    ops, step, x, total = steps
    ops.loop(step, range(4))
    ops.loop(step, range(2, 0, -1))
    assert total.tolist() == [(x.sum(axis=0) + x[1:3].sum(axis=0)).tolist()]


def test_loop_in_one_launch(steps, blas, monkeypatch):
    ops, _, x, total = steps
    product, calls, found = np.empty((1, 3)), [], []
    calls.append(LoopCall(Product(None), [(x[:, None], Kind.TIME), (np.eye(3), Kind.STEP)], [(product, Kind.STEP)]))
    calls.append(
        LoopCall(Run(sum_of_two, (), (), ()), [(total, Kind.STEP), (product, Kind.STEP)], [(total, Kind.STEP)])
    )
    loop_steps = LoopSteps(ops, calls, 0)

    def find(self, *arguments):
        found.append(arguments)
        return SimpleNamespace(source="checked", launch=lambda: found.append("launched"))

    monkeypatch.setattr(persistent_loops.PersistentLoops, "find", find)
    ops.loop(loop_steps, range(3, 0, -1))
    assert found == [(loop_steps, range(3, 0, -1), (132, 1000)), "launched"]
    assert blas.products == 0
    assert total.tolist() == [[0.0] * 3]
    ops.loop(loop_steps, [1])  # too short for it
    assert total.tolist() == [x[1].tolist()]
    assert len(found) == 2


# --- with a GPU -------------------------------------------------------------------------------------------------


@pytest.fixture
def cuda():
    device = resolve_device("cuda", fallback=False)
    with device.use():
        yield device


@pytest.fixture(params=["plain", "cupy"])
def cuda_ops(request):
    return PLAIN_OPS if request.param == "plain" else CupyOps()


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_cuda_layer(cuda, cuda_ops, layer, reset, dtype, tolerance):
    """As in float64; rounding grows from step to step, and may do so ten times as much as in NumPy."""
    for sizes in ((1, 1, 1, 1), (5, 7, 1, 3), (3, 6, 4, 33), (70, 12, 2, 64)):
        arguments = layer(*sizes, dtype)
        expected, plain = (
            run_layer(lambda array, t=t: np.asarray(array, t), *arguments, PLAIN_OPS) for t in ("float64", dtype)
        )
        for _ in range(2):  # kernels are made in the first round and taken from the cache in the second
            results = run_layer(lambda array: to_device(array, cuda), *arguments, cuda_ops)
            assert all(type(array).__module__.startswith("cupy") and array.dtype == dtype for array in results)
            for name, actual, desired, numpys in zip(RESULTS, results, expected, plain, strict=False):
                assert_close(actual, desired, tolerance, f"{name} {sizes}", 10 * np.abs(numpys - desired).max())


@pytest.mark.cuda
@pytest.mark.parametrize("sizes", [(5, 7, 1, 3), (70, 12, 2, 64)])
def test_cuda_captured_layer(cuda, layer, reset, sizes):
    """It computes with what is in its inputs when it is replayed."""
    x, h0, params, dh, dh_last = layer(*sizes)
    ops = CupyOps()
    places = map_arrays(lambda array: to_device(array, cuda), (x, h0, params, dh, dh_last))

    def function():
        return run_layer(lambda array: array, *places, ops)

    replay = ops.capture(function)
    assert replay is not function
    for scale in (1.0, -0.5):
        places[0][...] = to_device(scale * x, cuda)
        expected = run_layer(np.asarray, scale * x, h0, params, dh, dh_last, PLAIN_OPS)
        for name, actual, desired in zip(RESULTS, replay(), expected, strict=False):
            assert_close(actual, desired, 1e-10, name)


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_cuda_cell(cuda, cuda_ops, draw, draw_params, reset, dtype, tolerance):
    x, h_prev, params = draw(np, (5, 3), dtype), draw(np, (5, 9), dtype), draw_params(np, 3, 9, dtype)
    dh = draw(np, (5, 9), dtype)

    def run(convert, ops):
        h, cache = gru_cell_forward(convert(x), convert(h_prev), map_arrays(convert, params), ops=ops)
        dx, dh_prev, dparams = gru_cell_backward(convert(dh), cache)
        return h, h, dx, dh_prev, *arrays_of(dparams)

    actual, expected = run(lambda array: to_device(array, cuda), cuda_ops), run(np.asarray, PLAIN_OPS)
    for name, array, desired in zip(RESULTS, actual, expected, strict=False):
        assert_close(array, desired, tolerance, name)


@pytest.mark.cuda
def test_cuda_gradients(cuda, draw, draw_params, reset):
    ops = CupyOps()
    params = map_arrays(lambda array: to_device(array, cuda), draw_params(np, 2, 4))
    report = gradcheck(
        lambda x, h0, params: gru_forward(x, h0, params, reset=reset, ops=ops),
        lambda dh, dh_last, cache: gru_backward(dh, cache, dh_last=dh_last),
        {"x": to_device(draw(np, (2, 3, 2)), cuda), "h0": to_device(draw(np, (2, 4)), cuda), "params": params},
    )
    assert report.ok, report


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 5e-6)])
def test_cuda_pointwise(cuda, calls, draw, dtype, tolerance):
    ops = CupyOps()
    for body, given in calls:
        inputs = draw_call(draw, body, given, dtype)
        expected = body(np, *inputs)
        arrays = [to_device(a, cuda) if isinstance(a, np.ndarray) else a for a in inputs]
        wide = [ops.empty((*array.shape[:-1], array.shape[-1] + 3), like=arrays[0]) for array in expected]
        out = tuple([array[..., 2:-1] for array in wide])
        ops.pointwise(body, tuple(arrays), out)
        for actual, desired in zip(out, expected, strict=True):
            assert_close(actual, desired, tolerance, f"{body.__name__} {given}")


@pytest.mark.cuda
def test_cuda_pointwise_over_its_inputs(cuda, draw):
    a, b = draw(np, (5, 9)), draw(np, (5, 9))
    arrays = to_device(a, cuda), to_device(b, cuda)
    CupyOps().pointwise(swapped, arrays, arrays)
    assert_close(arrays[0], b + 0.0, 1e-15)
    assert_close(arrays[1], a + b, 1e-15)


def swapped(xp, a, b):
    return b + 0.0, a + b


@pytest.mark.cuda
@pytest.mark.parametrize("with_cublas", [True, False])
def test_cuda_matmul_and_contract(cuda, draw, monkeypatch, with_cublas):
    """Also into memory that cannot be seen as one matrix."""
    if not with_cublas:
        monkeypatch.setattr(cublas, "current", lambda: None)
    for rows, transposed in itertools.product([(4,), (2, 4), (3, 1)], [False, True]):
        check_matmul_and_contract(cuda, draw, rows, transposed)


def check_matmul_and_contract(cuda, draw, rows, transposed):
    ops, case = CupyOps(), f"{rows} transposed={transposed}"
    a, b, c = draw(np, (*rows, 3)), draw(np, (3, 5)), draw(np, (*rows, 2))
    out = to_device(np.zeros((*rows, 5)), cuda)
    if transposed:
        out = to_device(np.zeros((*rows[:-1], 5, rows[-1])), cuda).swapaxes(-1, -2)
    assert ops.matmul(to_device(a, cuda), to_device(b, cuda), out) is out
    np.testing.assert_allclose(to_host(out), np.einsum("...k,km->...m", a, b), rtol=1e-12, atol=1e-14, err_msg=case)
    expected = np.einsum("np,nq->pq", a.reshape(-1, 3), c.reshape(-1, 2))
    total = to_device(np.ones((3, 2)), cuda)
    for add, start in [(True, 1.0), (False, 0.0)]:
        assert ops.contract(to_device(a, cuda), to_device(c, cuda), total, add=add) is total
        np.testing.assert_allclose(to_host(total), start + expected, rtol=1e-12, atol=1e-14, err_msg=case)


# --- what is compiled -------------------------------------------------------------------------------------------


def learn(device, *, B, T, batch_size, chunk_length, **config):
    """Train a network on whole sequences in mini-batches, and on chunks of other sequences."""
    rng = np.random.default_rng(B)
    params = init_network_params(2, 6, 1, xp=np, seed=1, dtype=np.float32)
    params = map_arrays(lambda array: to_device(array, device), params)
    x, y, y_chunks = (to_device(rng.random(shape), device, "float32") for shape in ((B, T, 2), (B, 1), (B, T, 1)))
    mini_batches = TrainingConfig(num_epochs=1, batch_size=batch_size, **config)
    train(params, x, y, config=mini_batches, device=device, validation=(x[1:], y[1:]))
    chunks = TrainingConfig(num_epochs=1, learning_rate=config["learning_rate"], clip_norm=config["clip_norm"])
    train_on_chunks(params, x, y_chunks, chunk_length=chunk_length, config=chunks, device=device)


@pytest.mark.cuda
def test_a_training_with_other_numbers_compiles_nothing(cuda):
    """Other rates, sizes of batches, numbers of sequences and steps, and chunks of lengths that no training had."""
    stats = pytest.importorskip("cupy._device", reason="only the stand-in counts").STATS
    learn(cuda, B=10, T=5, batch_size=4, chunk_length=3, learning_rate=0.01, clip_norm=1.0, zoneout=0.2)
    compiled = stats["kernels loaded"]
    assert compiled > 10
    others = {"learning_rate": 0.2, "clip_norm": 0.5, "zoneout": 0.1, "schedule": "one-cycle"}
    learn(cuda, B=17, T=9, batch_size=5, chunk_length=5, **others)
    assert stats["kernels loaded"] == compiled


@pytest.mark.cuda
def test_another_class_of_batch_sizes_compiles_one_kernel_for_each_direction(cuda, monkeypatch):
    """With 4 multiprocessors, which get one sequence each, or up to two."""
    stats = pytest.importorskip("cupy._device", reason="only the stand-in counts").STATS
    limits = cupy_ops._limits(0)
    of_a_block = limits.of_a_block._replace(multiprocessors=4)
    monkeypatch.setattr(cupy_ops, "_limits", lambda index: limits._replace(of_a_block=of_a_block))
    loaded = [0]
    for B in (3, 4, 2, 7, 5, 8):
        rng = np.random.default_rng(B)
        with cuda.use():
            params = init_network_params(2, 10, 1, xp=cuda.xp, seed=1, dtype=cuda.xp.float32)
            x, y = (to_device(rng.random(shape), cuda, "float32") for shape in ((B, 4, 2), (B, 1)))
        train(params, x, y, config=TrainingConfig(num_epochs=2, learning_rate=0.1), device=cuda)
        loaded.append(stats["kernels loaded"])
    assert [after - before for before, after in itertools.pairwise(loaded[1:])] == [0, 0, 2, 0, 0]
