import ctypes
import inspect
import shutil
import subprocess

import numpy as np
import pytest

from gru_xp.devices import resolve_device, to_device, to_host
from gru_xp.devices.cupy_ops import CupyOps, kernel_source
from gru_xp.devices.recording import FUNCTIONS, record
from gru_xp.nn import (
    GRUParams,
    gradcheck,
    gru_backward,
    gru_cell_backward,
    gru_cell_forward,
    gru_forward,
)
from gru_xp.nn.ops import PLAIN_OPS

C_TYPES = {"float32": "float", "float64": "double"}
RESULTS = ("h", "h_last", "dx", "dh0", "dweight_ih", "dweight_hh", "dbias", "dbias_hn")


def everything(xp, a, b):
    """Every function that a body may call, and constants that are not short."""
    c = xp.tanh(-a) + xp.exp(b) / 3.0
    return c * a - 0.12345678901234567, (1.0 - c) / (2 + a * a), xp.negative(b) * 1e-05


# --- the generated code, without a GPU --------------------------------------------------------------------------


def c_function(body, dtype):
    """A loop over elements around the kernel, whose arguments are references into the arrays, as in CuPy."""
    n_inputs = len(inspect.signature(body).parameters) - 1
    in_params, out_params, code = kernel_source(record(body, [(3,)] * n_inputs))
    inputs, outputs = ([parameter.split() for parameter in text.split(", ")] for text in (in_params, out_params))
    assert {kind for kind, _ in (*inputs, *outputs)} == {"T"}
    arguments = [f"const T *{name}_" for _, name in inputs] + [f"T *{name}_" for _, name in outputs]
    lines = [
        f"namespace {dtype} {{",
        f"typedef {C_TYPES[dtype]} T;",
        f'extern "C" void {body.__name__}_{dtype}(long n, {", ".join(arguments)}) {{',
        "for (long i = 0; i < n; ++i) {",
        *[f"const T &{name} = {name}_[i];" for _, name in inputs],
        *[f"T &{name} = {name}_[i];" for _, name in outputs],
        code,
        "}}}",
    ]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def library(bodies, tmp_path_factory):
    """The kernels of all bodies of cell.py, compiled as C++ for the host."""
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++", "cc"))), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("kernels")
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    functions = [c_function(body, dtype) for body in (*bodies.values(), everything) for dtype in C_TYPES]
    source.write_text("\n".join(["#include <cmath>", "using std::exp;", "using std::tanh;", *functions]))
    command = [compiler, "-x", "c++", "-O1", "-ffp-contract=off", "-shared", "-fPIC", source, "-o", library, "-lm"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return ctypes.CDLL(str(library))


def run_compiled(library, body, inputs, out):
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (*inputs, *out)]
    assert all(array.flags.c_contiguous for array in (*inputs, *out))
    getattr(library, f"{body.__name__}_{out[0].dtype}")(ctypes.c_long(out[0].size), *pointers)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 5e-6)])
def test_code_does_what_the_body_does(library, body, n_inputs, draw, dtype, tolerance):
    inputs = [draw(np, (7, 5), dtype) for _ in range(n_inputs)]
    expected = body(np, *inputs)
    out = [np.full((7, 5), np.nan, dtype) for _ in expected]
    run_compiled(library, body, inputs, out)
    for actual, desired in zip(out, expected, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 5e-6)])
def test_outputs_may_be_the_memory_of_any_inputs(library, body, n_inputs, draw, dtype, tolerance):
    """Outputs are written last, so that it may even be an input that the body uses to the end."""
    plain = [draw(np, (7, 5), dtype) for _ in range(n_inputs)]
    expected = body(np, *plain)
    for shift in range(n_inputs):
        inputs = [array.copy() for array in plain]
        out = [
            inputs[(k + shift) % n_inputs] if k < n_inputs else np.empty((7, 5), dtype) for k in range(len(expected))
        ]
        run_compiled(library, body, inputs, out)
        for actual, desired in zip(out, expected, strict=True):
            np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 5e-6)])
def test_code_of_every_function(library, draw, dtype, tolerance):
    assert {call.function for call in record(everything, [(1,), (1,)]).calls} == set(FUNCTIONS)
    inputs = [draw(np, (40,), dtype), draw(np, (40,), dtype)]
    expected = everything(np, *inputs)
    out = [np.full(40, np.nan, dtype) for _ in expected]
    run_compiled(library, everything, inputs, out)
    for actual, desired in zip(out, expected, strict=True):
        scale = np.abs(desired).max()
        np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance * scale)


def test_source_of_a_small_body():
    in_params, out_params, code = kernel_source(record(lambda xp, a, b: (xp.tanh(a) * 0.5, a - b), [(2,), (2,)]))
    assert (in_params, out_params) == ("T in0, T in1", "T out0, T out1")
    assert code.splitlines() == [
        "const T v0 = tanh(in0);",
        "const T v1 = v0 * T(0.5);",
        "const T v2 = in0 - in1;",
        "out0 = v1;",
        "out1 = v2;",
    ]


def test_body_that_returns_an_input():
    with pytest.raises(ValueError, match="returns an input, or a result twice"):
        kernel_source(record(lambda xp, a, b: (a * b, b), [(2,), (2,)]))


def test_unknown_function():
    with pytest.raises(AttributeError, match="a pointwise body calls 'sqrt'"):
        kernel_source(record(lambda xp, a: (xp.sqrt(a),), [(2,)]))


# --- with a GPU -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["plain", "cupy"])
def cuda_ops(request):
    return PLAIN_OPS if request.param == "plain" else CupyOps()


@pytest.fixture
def on_cuda():
    """``on_cuda(array or params)`` on the device that `resolve_device` finds."""
    device = resolve_device("cuda", fallback=False)

    def on_cuda(value):
        return GRUParams(*map(on_cuda, value)) if isinstance(value, tuple) else to_device(value, device)

    return on_cuda


def assert_close(results, expected, tolerance):
    for name, actual, desired in zip(RESULTS, results, expected, strict=True):
        scale = np.abs(desired).max()
        np.testing.assert_allclose(to_host(actual), desired, rtol=tolerance, atol=tolerance * scale, err_msg=name)


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize(("B", "T", "n_in", "H"), [(1, 1, 1, 1), (5, 7, 1, 3), (3, 6, 4, 33)])
def test_cuda_layer(cuda_ops, on_cuda, draw, draw_params, reset, dtype, tolerance, B, T, n_in, H):
    x, h0, params = draw(np, (B, T, n_in), dtype), draw(np, (B, H), dtype), draw_params(np, n_in, H, dtype)
    dh, dh_last = draw(np, (B, T, H), dtype), draw(np, (B, H), dtype)
    h, h_last, cache = gru_forward(x, h0, params, reset=reset)
    dx, dh0, dparams = gru_backward(dh, cache, dh_last=dh_last)
    expected = (h, h_last, dx, dh0, *dparams)

    for _ in range(2):  # kernels are made in the first round and taken from the cache in the second
        h, h_last, cache = gru_forward(on_cuda(x), on_cuda(h0), on_cuda(params), reset=reset, ops=cuda_ops)
        dx, dh0, dparams = gru_backward(on_cuda(dh), cache, dh_last=on_cuda(dh_last))
        results = (h, h_last, dx, dh0, *dparams)
        assert all(type(array).__module__.startswith("cupy") and array.dtype == dtype for array in results)
        assert_close(results, expected, tolerance)


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_cuda_cell(cuda_ops, on_cuda, draw, draw_params, reset, dtype, tolerance):
    x, h_prev, params = draw(np, (5, 3), dtype), draw(np, (5, 9), dtype), draw_params(np, 3, 9, dtype)
    dh = draw(np, (5, 9), dtype)
    h, cache = gru_cell_forward(x, h_prev, params, reset=reset)
    dx, dh_prev, dparams = gru_cell_backward(dh, cache)
    expected = (h, h, dx, dh_prev, *dparams)
    h, cache = gru_cell_forward(on_cuda(x), on_cuda(h_prev), on_cuda(params), reset=reset, ops=cuda_ops)
    dx, dh_prev, dparams = gru_cell_backward(on_cuda(dh), cache)
    assert_close((h, h, dx, dh_prev, *dparams), expected, tolerance)


@pytest.mark.cuda
def test_cuda_gradients(on_cuda, draw, draw_params, reset):
    ops = CupyOps()
    report = gradcheck(
        lambda x, h0, params: gru_forward(x, h0, params, reset=reset, ops=ops),
        lambda dh, dh_last, cache: gru_backward(dh, cache, dh_last=dh_last),
        {
            "x": on_cuda(draw(np, (2, 3, 2))),
            "h0": on_cuda(draw(np, (2, 4))),
            "params": on_cuda(draw_params(np, 2, 4)),
        },
    )
    assert report.ok, report


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 5e-6)])
def test_cuda_pointwise(body, n_inputs, overwrites, on_cuda, draw, dtype, tolerance):
    plain = [draw(np, (5, 9), dtype) for _ in range(n_inputs)]
    expected = body(np, *plain)
    arrays = [on_cuda(array) for array in plain]
    ops = CupyOps()
    out = [
        arrays[overwrites[k]] if k in overwrites else ops.empty((5, 9), like=arrays[0]) for k in range(len(expected))
    ]
    ops.pointwise(body, tuple(arrays), tuple(out))
    for actual, desired in zip(out, expected, strict=True):
        np.testing.assert_allclose(to_host(actual), desired, rtol=tolerance, atol=tolerance)


@pytest.mark.cuda
def test_cuda_pointwise_broadcasts(bodies, on_cuda, draw):
    a, b = draw(np, (4, 2, 3)), draw(np, (3,))
    out = on_cuda(np.zeros((4, 2, 3)))
    CupyOps().pointwise(bodies["_sum"], (on_cuda(a), on_cuda(b)), (out,))
    assert to_host(out).tolist() == (a + b).tolist()


@pytest.mark.cuda
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rows", [(4,), (2, 4), (3, 1)])
def test_cuda_matmul_and_contract(on_cuda, draw, rows, transposed):
    """Also into memory that cannot be seen as one matrix."""
    ops = CupyOps()
    a, b = draw(np, (*rows, 3)), draw(np, (3, 5))
    out = on_cuda(np.zeros((*rows, 5)))
    if transposed:
        out = on_cuda(np.zeros((*rows[:-1], 5, rows[-1]))).swapaxes(-1, -2)
    assert ops.matmul(on_cuda(a), on_cuda(b), out) is out
    np.testing.assert_allclose(to_host(out), np.einsum("...k,km->...m", a, b), rtol=1e-12, atol=1e-14)
    c = draw(np, (*rows, 2))
    expected = np.einsum("np,nq->pq", a.reshape(-1, 3), c.reshape(-1, 2))
    np.testing.assert_allclose(to_host(ops.contract(on_cuda(a), on_cuda(c))), expected, rtol=1e-12, atol=1e-14)
