import numpy as np
import pytest

from gru_xp.devices.numpy_ops import NumpyOps, _plan
from gru_xp.errors import ShapeError
from gru_xp.nn import gradcheck, gru_backward, gru_cell_backward, gru_cell_forward, gru_forward
from gru_xp.nn.ops import PLAIN_OPS
from gru_xp.nn.stack import init_stack_params, stack_backward, stack_forward

SHAPES = [(1, 1, 1, 1), (1, 5, 2, 3), (3, 1, 3, 2), (4, 7, 1, 6), (3, 4, 3, 1)]  # B, T, input size, H
RESULTS = ("h", "h_last", "dx", "dh0", "dweight_ih", "dweight_hh", "dbias", "dbias_hn")
BOTH = pytest.mark.parametrize("reuse_memory", [False, True])


def feature_major(array):
    """The same numbers, laid out in memory as `NumpyOps` does."""
    return np.swapaxes(np.ascontiguousarray(np.swapaxes(array, -1, -2)), -1, -2)


@pytest.fixture
def call(draw, draw_params):
    def call(B, T, n_in, H, dtype="float64"):
        return {
            "x": draw(np, (B, T, n_in), dtype),
            "h0": draw(np, (B, H), dtype),
            "params": draw_params(np, n_in, H, dtype),
            "dh": draw(np, (B, T, H), dtype),
            "dh_last": draw(np, (B, H), dtype),
        }

    return call


def run(call, ops, reset):
    h, h_last, cache = gru_forward(call["x"], call["h0"], call["params"], reset=reset, ops=ops)
    dx, dh0, dparams = gru_backward(call["dh"], cache, dh_last=call["dh_last"])
    return h, h_last, dx, dh0, *dparams


def assert_close(results, expected, tolerance=1e-11):
    for name, actual, desired in zip(RESULTS, results, expected, strict=True):
        scale = np.abs(desired).max()
        np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance * scale, err_msg=name)


# --- the same numbers -------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("B", "T", "n_in", "H"), SHAPES)
def test_layer(call, reset, reuse_memory, B, T, n_in, H):
    """Matrix products may round differently, as their factors lie in memory differently."""
    call = call(B, T, n_in, H)
    assert_close(run(call, NumpyOps(reuse_memory=reuse_memory), reset), run(call, PLAIN_OPS, reset))


@BOTH
def test_layer_in_single_precision(call, reset, reuse_memory):
    call = call(4, 7, 2, 6, "float32")
    results = run(call, NumpyOps(reuse_memory=reuse_memory), reset)
    assert all(array.dtype == np.float32 for array in results)
    assert_close(results, run(call, PLAIN_OPS, reset), 1e-4)


@BOTH
def test_cell(draw, draw_params, reset, reuse_memory):
    x, h_prev, dh, params = draw(np, (3, 2)), draw(np, (3, 5)), draw(np, (3, 5)), draw_params(np, 2, 5)
    results = []
    for ops in (NumpyOps(reuse_memory=reuse_memory), PLAIN_OPS):
        h, cache = gru_cell_forward(x, h_prev, params, reset=reset, ops=ops)
        dx, dh_prev, dparams = gru_cell_backward(dh, cache)
        results.append((h, h, dx, dh_prev, *dparams))
    assert_close(*results)


@BOTH
def test_whole_network(draw, reset, reuse_memory, assert_params_close):
    x, dy, params = draw(np, (4, 6, 2)), draw(np, (4, 3)), init_stack_params(2, 5, 3, xp=np, seed=1)
    y, cache = stack_forward(x, params, reset=reset, ops=NumpyOps(reuse_memory=reuse_memory))
    dx, dparams = stack_backward(dy, cache)
    expected_y, cache = stack_forward(x, params, reset=reset)
    expected_dx, expected_dparams = stack_backward(dy, cache)
    np.testing.assert_allclose(y, expected_y, rtol=1e-11)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-10, atol=1e-13)
    assert_params_close(dparams, expected_dparams, rtol=1e-10, atol=1e-13)


@BOTH
def test_gradients(draw, draw_params, reset, reuse_memory):
    """Central differences of the fast forward pass; `rewind` comes before each of its calls."""
    ops = NumpyOps(reuse_memory=reuse_memory)

    def forward(x, h0, params):
        ops.rewind()
        return gru_forward(x, h0, params, reset=reset, ops=ops)

    def backward(dh, dh_last, cache):
        dx, dh0, dparams = gru_backward(dh, cache, dh_last=dh_last)
        return dx.copy(), dh0.copy(), dparams

    inputs = {"x": draw(np, (2, 3, 2)), "h0": draw(np, (2, 4)), "params": draw_params(np, 2, 4)}
    report = gradcheck(forward, backward, inputs)
    assert report.ok, report


@BOTH
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pointwise_is_bit_equal(body, n_inputs, overwrites, draw, reuse_memory, dtype):
    """All bodies of cell.py, in both memory orders, into new memory and over the inputs that cell.py writes over."""
    ops = NumpyOps(reuse_memory=reuse_memory)
    plain = [draw(np, (5, 33), dtype) for _ in range(n_inputs)]
    expected = body(np, *plain)
    for layout in (np.array, feature_major, feature_major):
        arrays = [layout(array) for array in plain]
        out = tuple(ops.empty((5, 33), like=plain[0]) for _ in expected)
        ops.pointwise(body, tuple(arrays), out)
        for actual, desired in zip(out, expected, strict=True):
            assert actual.tolist() == desired.tolist()
        for array, original in zip(arrays, plain, strict=True):
            assert array.tolist() == original.tolist()
        over = [arrays[overwrites[k]] if k in overwrites else out[k] for k in range(len(out))]
        ops.pointwise(body, tuple(arrays), tuple(over))
        for actual, desired in zip(over, expected, strict=True):
            assert actual.tolist() == desired.tolist()


@pytest.mark.parametrize("shapes", [[(2, 3), (3,)], [(4, 2, 3), (3,)], [(3,), (2, 3)], [(2, 1), (1, 3)]])
def test_pointwise_broadcasts(draw, shapes):
    def body(xp, a, b):
        s = a + b
        return xp.tanh(s * b) - 0.5 * a, xp.exp(b) * b + a

    a, b = (draw(np, shape) for shape in shapes)
    expected = body(np, a, b)
    out = tuple(np.empty(array.shape) for array in expected)
    NumpyOps().pointwise(body, (a, b), out)
    for actual, desired in zip(out, expected, strict=True):
        assert actual.tolist() == desired.tolist()


def test_bias_of_the_candidate_is_broadcast(bodies, draw):
    """``_after_gates`` takes ``bias_hn (H,)`` among arrays ``(B, H)``."""
    body = bodies["_after_gates"]
    arrays = [draw(np, (4, 3)) for _ in range(8)]
    arrays[6] = draw(np, (3,))
    ops = NumpyOps()
    for rows in (4, 2, 1):  # a plan of its own for each batch size
        inputs = tuple(array[:rows] if array.ndim == 2 else array for array in arrays)
        out = tuple(np.empty((rows, 3)) for _ in range(5))
        ops.pointwise(body, inputs, out)
        for actual, desired in zip(out, body(np, *inputs), strict=True):
            assert actual.tolist() == desired.tolist()


@pytest.mark.parametrize("dtypes", [("float64", "float32"), ("float32", "float64")])
def test_plans_are_kept_apart(draw, dtypes):
    """By body, by dtype and by shapes."""
    ops = NumpyOps()

    def first(xp, a, b):
        return (0.1 * a + xp.tanh(b) * a,)

    def second(xp, a, b):
        return (0.1 - a * xp.exp(b) / 3.0,)

    for _ in range(2):
        for dtype in dtypes:
            for shape in ((2, 3), (3, 2), (6,)):
                a, b = draw(np, shape, dtype), draw(np, shape, dtype)
                for body in (first, second):
                    out = np.empty(shape, dtype)
                    ops.pointwise(body, (a, b), (out,))
                    assert out.tolist() == body(np, a, b)[0].tolist()


def test_intermediate_results_are_kept_until_their_last_use(draw):
    def body(xp, a, b):
        used_late = a + b
        used_twice = used_late * a
        passing = used_twice - b
        other = xp.tanh(passing)
        return other * used_late, used_twice / (2.0 + other * other), xp.exp(-used_late) * used_twice

    a, b = draw(np, (2, 3)), draw(np, (2, 3))
    expected = body(np, a, b)
    out = tuple(np.empty((2, 3)) for _ in expected)
    NumpyOps().pointwise(body, (a, b), out)
    for actual, desired in zip(out, expected, strict=True):
        assert actual.tolist() == desired.tolist()


@pytest.mark.parametrize("rows", [(4,), (2, 4), (3, 1)])
@pytest.mark.parametrize("inner", [1, 3])
def test_matmul(draw, rows, inner):
    ops = NumpyOps()
    a, b = draw(np, (*rows, inner)), draw(np, (inner, 5))
    for left, out in ((a, np.empty((*rows, 5))), (feature_major(a), ops.empty((*rows, 5), like=a))):
        assert ops.matmul(left, b, out) is out
        np.testing.assert_allclose(out, np.einsum("...k,km->...m", a, b), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rows", [(4,), (1,), (2, 4), (1, 4), (5, 1)])
def test_contract(draw, rows):
    a, b = draw(np, (*rows, 3)), draw(np, (*rows, 5))
    expected = np.einsum("np,nq->pq", a.reshape(-1, 3), b.reshape(-1, 5))
    before = a.tolist(), b.tolist()
    for layout in (np.array, feature_major):
        result = NumpyOps().contract(layout(a), layout(b))
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-14)
    assert (a.tolist(), b.tolist()) == before


# --- memory -----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("shape", [(2, 3), (4, 2, 3)])
def test_memory_is_feature_major(reuse_memory, shape):
    array = NumpyOps(reuse_memory=reuse_memory).empty(shape, like=np.empty(0, np.float32))
    assert array.shape == shape
    assert array.dtype == np.float32
    assert np.swapaxes(array, -1, -2).flags.c_contiguous
    array[..., 1] = 7.0
    assert array[..., 1].min() == array[..., 1].max() == 7.0


def test_results_stay_after_later_calls(call, reset):
    ops = NumpyOps()
    first_call = call(3, 4, 2, 5)
    first = run(first_call, ops, reset)
    copies = [array.copy() for array in first]
    for _ in range(2):
        ops.rewind()
        second = run(call(3, 4, 2, 5), ops, reset)
        for a, b in zip(first, second, strict=True):
            assert not np.shares_memory(a, b)
    assert [array.tolist() for array in first] == [array.tolist() for array in copies]


def test_memory_is_reused_after_rewind(call, reset):
    ops = NumpyOps(reuse_memory=True)
    first = run(call(3, 4, 2, 5), ops, reset)
    second_call = call(3, 4, 2, 5)
    ops.rewind()
    second = run(second_call, ops, reset)
    for name, a, b in zip(RESULTS[:4], first, second, strict=False):
        assert np.shares_memory(a, b), name
    assert_close(second, run(second_call, PLAIN_OPS, reset))


def test_memory_is_not_reused_without_rewind(call, reset):
    ops = NumpyOps(reuse_memory=True)
    first = run(call(3, 4, 2, 5), ops, reset)
    copies = [array.copy() for array in first]
    second = run(call(3, 4, 2, 5), ops, reset)
    for a, b, copy in zip(first, second, copies, strict=True):
        assert not np.shares_memory(a, b)
        assert a.tolist() == copy.tolist()


def test_memory_does_not_grow(call, reset):
    ops = NumpyOps(reuse_memory=True)
    addresses = []
    for _ in range(3):
        ops.rewind()
        addresses.append([array.ctypes.data for array in run(call(3, 4, 2, 5), ops, reset)[:4]])
    assert addresses[0] == addresses[1] == addresses[2]


def test_reused_memory_keeps_no_old_numbers(call, reset):
    """Steps of a training loop: batches of several sizes (the last one is small) and both dtypes."""
    ops = NumpyOps(reuse_memory=True)
    sizes = [(4, 5, 2, 3), (4, 5, 2, 3), (1, 5, 2, 3), (4, 2, 2, 3), (4, 5, 2, 3), (4, 5, 1, 3)]
    for B, T, n_in, H in sizes:
        for dtype, tolerance in (("float64", 1e-11), ("float32", 1e-4)):
            arguments = call(B, T, n_in, H, dtype)
            ops.rewind()
            assert_close(run(arguments, ops, reset), run(arguments, PLAIN_OPS, reset), tolerance)


def test_inputs_may_be_read_only(call, reset):
    arguments = call(3, 4, 2, 5)
    expected = run(arguments, NumpyOps(), reset)
    for array in (arguments["x"], arguments["h0"], arguments["dh"], arguments["dh_last"], *arguments["params"]):
        array.setflags(write=False)
    for actual, desired in zip(run(arguments, NumpyOps(reuse_memory=True), reset), expected, strict=True):
        assert actual.tolist() == desired.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_scratch_arrays(body, n_inputs, dtype):
    shape = (4, 3)
    kept = _plan(body, [shape] * n_inputs, np.dtype(dtype)).kept
    scratch = [array for array in kept if array.shape]
    assert len(scratch) <= 3
    assert all(array.shape == shape for array in scratch)
    assert all(array.dtype == dtype for array in kept)


# --- what it must refuse ----------------------------------------------------------------------------------------


def test_unknown_function(draw):
    a = draw(np, (2, 3))
    with pytest.raises(AttributeError, match=r"a pointwise body calls 'sqrt'; it may call add, .*, tanh"):
        NumpyOps().pointwise(lambda xp, a: (xp.sqrt(a),), (a,), (np.empty((2, 3)),))


def test_body_that_returns_an_input(draw):
    def passes_on(xp, a, b):
        return a * b, b

    a, b = draw(np, (2, 3)), draw(np, (2, 3))
    with pytest.raises(ValueError, match="passes_on returns an input, or a result twice; each output must be computed"):
        NumpyOps().pointwise(passes_on, (a, b), (np.empty((2, 3)), np.empty((2, 3))))


def test_shapes_are_checked_as_ever(call):
    arguments = call(3, 4, 2, 5)
    with pytest.raises(ShapeError, match=r"h0 has shape \(1, 5\); it must be \(3, 5\)"):
        gru_forward(arguments["x"], arguments["h0"][:1], arguments["params"], ops=NumpyOps())
