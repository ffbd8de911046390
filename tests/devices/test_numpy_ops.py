import threading
import weakref
from itertools import product

import numpy as np
import pytest

from gru_xp.devices import lowering, numpy_ops
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.errors import ShapeError
from gru_xp.nn import gradcheck, gru_backward, gru_cell_backward, gru_cell_forward, gru_forward
from gru_xp.nn.network import init_network_params, network_backward, network_forward
from gru_xp.nn.params import arrays_of, named_arrays
from gru_xp.nn.scan import device_scan

SHAPES = [(1, 1, 1, 1), (1, 5, 2, 3), (3, 1, 3, 2), (4, 7, 1, 6), (7, 4, 3, 1), (5, 3, 2, 9)]  # B, T, input size, H
RESETS = ("before", "after")
TOLERANCES = {"float64": 1e-12, "float32": 1e-6}
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES.items())


def feature_major(array):
    """The same numbers, laid out in memory as `NumpyOps` does."""
    return np.swapaxes(np.array(np.swapaxes(array, -1, -2), order="C"), -1, -2)


# --- the same numbers -------------------------------------------------------------------------------------------


@DTYPES
def test_layer(draw_layer, make_numpy_ops, assert_same_results, reset, dtype, tolerance):
    """Matrix products may round differently, as their factors lie in memory differently."""
    ops = make_numpy_ops()
    for sizes in [*SHAPES, *SHAPES[:2]]:
        layer = draw_layer(*sizes, dtype)
        assert_same_results(layer(ops, reset), layer(PLAIN_OPS, reset), tolerance)


def test_layer_in_blocks_of_any_length(draw_layer, assert_same_results, monkeypatch, reset):
    for numbers, length in {1: 1, 20: 1, 45: 2, 10**6: 7}.items():
        monkeypatch.setattr(numpy_ops, "MAX_BLOCK_NUMBERS", numbers)
        ops, layer = NumpyOps(), draw_layer(5, 7, 2, 4)
        assert ops.block_length(7, 5, 4) == length
        assert_same_results(layer(ops, reset), layer(PLAIN_OPS, reset))


def test_layer_without(draw_layer, make_numpy_ops, some, assert_same_results):
    for left_out, with_dx, reset in some(product(("h0", "dh", "dh_last"), (True, False), RESETS)):
        layer = draw_layer(5, 4, 2, 3)._replace(**{left_out: None})
        actual, desired = (layer(ops, reset, with_dx=with_dx) for ops in (make_numpy_ops(), PLAIN_OPS))
        assert (actual[2] is None) == (not with_dx)
        assert_same_results(actual, desired)


def test_layer_without_cache(draw_layer, make_numpy_ops, assert_same_results):
    for (dtype, tolerance), reset, with_h0 in product(TOLERANCES.items(), RESETS, (True, False)):
        a = draw_layer(5, 4, 2, 3, dtype)
        h0 = a.h0 if with_h0 else None
        *actual, cache = gru_forward(a.x, h0, a.params_of(reset), ops=make_numpy_ops(), with_cache=False)
        *desired, _ = gru_forward(a.x, h0, a.params_of(reset), ops=PLAIN_OPS)
        assert cache is None
        assert_same_results(actual, desired, tolerance)


def test_backward_twice_with_one_cache(draw_layer, make_numpy_ops):
    for reset in RESETS:
        layer = draw_layer(5, 4, 2, 3)
        _, _, cache = gru_forward(layer.x, layer.h0, layer.params_of(reset), ops=make_numpy_ops())
        first, second = (gru_backward(layer.dh, cache, dh_last=layer.dh_last) for _ in range(2))
        for a, b in zip((*first[:2], *arrays_of(first[2])), (*second[:2], *arrays_of(second[2])), strict=True):
            assert a.tolist() == b.tolist(), reset
            assert not np.shares_memory(a, b), reset


def test_cell(draw, draw_params, assert_same_results, reset):
    for (dtype, tolerance), B in product(TOLERANCES.items(), (1, 3)):
        x, h_prev, dh = draw(np, (B, 2), dtype), draw(np, (B, 5), dtype), draw(np, (B, 5), dtype)
        params, results = draw_params(np, 2, 5, dtype), []
        for ops in (NumpyOps(), PLAIN_OPS):
            h, cache = gru_cell_forward(x, h_prev, params, reset=reset, ops=ops)
            dx, dh_prev, dparams = gru_cell_backward(dh, cache)
            results.append((h, h, dx, dh_prev, *arrays_of(dparams)))
        assert_same_results(*results, tolerance)


def test_whole_network(draw, make_numpy_ops, assert_same_results):
    for (dtype, tolerance), reset in product(TOLERANCES.items(), RESETS):
        x, dy = draw(np, (5, 6, 2), dtype), draw(np, (5, 3), dtype)
        params, results = init_network_params(2, 4, 3, reset=reset, xp=np, seed=1, dtype=getattr(np, dtype)), []
        for ops in (make_numpy_ops(), PLAIN_OPS):
            y, cache = network_forward(x, params, reset=reset, ops=ops)
            dx, dparams = network_backward(dy, cache)
            results.append((y, dx, *(array for _, array in named_arrays(dparams))))
        assert_same_results(*results, tolerance)


def test_gradients(draw, draw_params, make_numpy_ops, some):
    """Central differences of the fast forward pass."""
    for reset in some(RESETS, 2):
        ops = make_numpy_ops()
        report = gradcheck(
            lambda x, h0, params, ops=ops: gru_forward(x, h0, params, ops=ops),
            lambda dh, dh_last, cache: gru_backward(dh, cache, dh_last=dh_last),
            {"x": draw(np, (3, 3, 1)), "h0": draw(np, (3, 3)), "params": draw_params(np, 1, 3, reset=reset)},
        )
        assert report.ok, (reset, report)


def test_inputs_may_be_read_only_and_in_any_memory_order(draw_layer, make_numpy_ops, assert_same_results):
    for reset in RESETS:
        layer = draw_layer(5, 4, 2, 3)
        expected = layer(PLAIN_OPS, reset)
        arrays = (*layer[:2], *layer.params, *layer[3:])
        strided = [np.repeat(np.asfortranarray(a), 2, axis=-1)[..., ::2] for a in arrays]
        for array in strided:
            array.setflags(write=False)
        x, h0, *params, dh, dh_last = strided
        other = type(layer)(x, h0, type(layer.params)(*params), dh, dh_last)
        assert_same_results(other(make_numpy_ops(), reset), expected)


# --- single operations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pointwise_is_bit_equal(body_cases, draw_inputs, outputs_over_inputs, dtype):
    """Every body, in both memory orders, into new memory and over the inputs that the sources write over."""
    ops = NumpyOps()
    for case in body_cases:
        plain = draw_inputs(case, (5,), dtype)
        expected = case.body(np, *plain)
        for layout in (np.array, feature_major, feature_major):
            inputs = [layout(a) if hasattr(a, "shape") else a for a in plain]
            out = tuple(ops.empty(array.shape, like=plain[0]) for array in expected)
            ops.pointwise(case.body, tuple(inputs), out)
            for actual, desired in zip(out, expected, strict=True):
                assert actual.tolist() == desired.tolist(), case
            for given, original in zip(inputs, plain, strict=True):
                assert given is original or given.tolist() == original.tolist(), case
            over = outputs_over_inputs(case, inputs, out)
            ops.pointwise(case.body, tuple(inputs), tuple(over))
            for actual, desired in zip(over, expected, strict=True):
                assert actual.tolist() == desired.tolist(), case


def test_pointwise_broadcasts(draw):
    def body(xp, a, b):
        s = a + b
        return xp.tanh(s * b) - 0.5 * a, xp.exp(b) * b + a

    for shapes in ([(2, 3), (3,)], [(4, 2, 3), (3,)], [(3,), (2, 3)], [(2, 1), (1, 3)], [(5,), (1,)]):
        a, b = (draw(np, shape) for shape in shapes)
        expected = body(np, a, b)
        out = tuple(np.empty(array.shape) for array in expected)
        NumpyOps().pointwise(body, (a, b), out)
        for actual, desired in zip(out, expected, strict=True):
            assert actual.tolist() == desired.tolist(), shapes


def test_every_function_of_a_body(draw):
    def body(xp, a, b):
        return (
            xp.maximum(a, b) - xp.sqrt(xp.maximum(a * a, 0.5)),
            xp.exp(-b) / xp.add(2.0, xp.tanh(a)),
            xp.negative(xp.subtract(a, xp.multiply(b, 3.0))),
            xp.where(xp.greater(a, 0.0), b, a) + xp.where(b > a, a, 0.0),
        )

    a, b = draw(np, (4, 5)), draw(np, (4, 5))
    expected = body(np, a, b)
    out = tuple(np.empty((4, 5)) for _ in expected)
    NumpyOps().pointwise(body, (a, b), out)
    for actual, desired in zip(out, expected, strict=True):
        assert actual.tolist() == desired.tolist()


def masked(xp, h, n, z, update, candidate, valid):
    """A step whose variants are made by inputs that may be None; and its result where it counts."""
    z = z if update is None else update * z
    n = n if candidate is None else candidate * n
    h_next = h + z * (n - h)
    return h_next, h_next * 1.0 if valid is None else xp.where(valid > 0.0, h_next, 0.0)


UPDATES = [None, 0.5, (6, 5, 1), (6, 5, 3)]


@pytest.mark.parametrize("captured", [False, True])
def test_masked_steps(draw, rng, captured):
    """Masks of one column or all, of every step or of all steps, or none at all; one ops for all variants."""
    ops = NumpyOps()
    for case in product(UPDATES, [None, (5, 3)], [False, True]):
        check_masked_steps(ops, draw, rng, captured, *case)


def check_masked_steps(ops, draw, rng, captured, update, candidate, with_valid):
    case = (update, candidate, with_valid)
    z, n, h0 = np.abs(draw(np, (6, 5, 3))), draw(np, (6, 5, 3)), draw(np, (5, 3))
    update, candidate = (
        (rng.random(given) > 0.4) * 1.5 if isinstance(given, tuple) else given for given in (update, candidate)
    )
    valid = (rng.random((6, 5, 1)) > 0.4) * 1.0 if with_valid else None
    if with_valid:
        n[np.broadcast_to(valid == 0, n.shape)] = np.nan
    places = [feature_major(h0), feature_major(np.full((6, 5, 3), 9.0))]

    def steps(ops, h, out):
        def step(t):
            masks = [array[t] if getattr(array, "ndim", 0) == 3 else array for array in (update, candidate, valid)]
            state = h if valid is None else np.empty((5, 3))  # what is not a number must not stay
            ops.pointwise(masked, (h, n[t], z[t], *masks), (state, out[t]))

        ops.loop(step, range(5, -1, -1))

    expected = [h0.copy(), np.empty((6, 5, 3))]
    steps(PLAIN_OPS, *expected)
    if captured:
        replay = ops.capture(lambda: steps(ops, *places))
        places[0][...] = h0
        places[1][...] = 9.0
        replay()
    else:
        steps(ops, *places)
    for actual, desired in zip(places, expected, strict=True):
        assert not np.isnan(desired).any(), case
        assert actual.tolist() == desired.tolist(), case
    if with_valid:
        assert (places[1][np.broadcast_to(valid == 0, n.shape)] == 0.0).all(), case


@pytest.mark.parametrize("dtypes", [("float64", "float32"), ("float32", "float64")])
def test_plans_are_kept_apart(draw, dtypes):
    """By body, by dtype, by shapes and by constants."""
    ops = NumpyOps()

    def first(xp, a, b, c):
        return (0.1 * a + xp.tanh(b) * a * c,)

    def second(xp, a, b, c):
        return (c - a * xp.exp(b) / 3.0,)

    for _ in range(2):
        for dtype in dtypes:
            for shape in ((2, 3), (3, 2), (6,)):
                a, b = draw(np, shape, dtype), draw(np, shape, dtype)
                for body in (first, second):
                    for constant in (0.1, 0.3, 2, 0.0):
                        out = np.empty(shape, dtype)
                        ops.pointwise(body, (a, b, constant), (out,))
                        assert out.tolist() == body(np, a, b, constant)[0].tolist()


def test_copy(draw):
    for shape in ((2, 3), (3,), (2, 1)):
        source, whole = draw(np, shape), draw(np, (2, 8))
        kept = whole[:, :2].tolist()
        NumpyOps().copy(source, whole[:, 2:5])
        NumpyOps().copy(0.25, whole[:, 5:])
        assert whole[:, :2].tolist() == kept, shape
        assert whole[:, 2:5].tolist() == np.broadcast_to(source, (2, 3)).tolist(), shape
        assert whole[:, 5:].tolist() == [[0.25] * 3] * 2, shape


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matmul(draw, dtype):
    ops = NumpyOps()
    for rows, inner in product([(4,), (2, 4), (3, 1), (1,), (1, 1)], [1, 3]):
        a, wide = draw(np, (*rows, inner), dtype), draw(np, (inner, 11), dtype)
        whole = np.empty((*rows, 12), dtype)
        expected = np.einsum("...k,km->...m", a, wide[:, 2:7])
        for left, b, out in product(
            (a, feature_major(a)),
            (wide[:, 2:7], wide[:, 2:7].copy(), np.asfortranarray(wide[:, 2:7])),
            (np.empty((*rows, 5), dtype), ops.empty((*rows, 5), like=a), whole[..., 3:8], whole[..., 1:11:2]),
        ):
            out[...] = np.nan
            assert ops.matmul(left, b, out) is out
            case = f"{rows} {inner} {left.strides} {b.strides} {out.strides}"
            rtol = 1e-5 if dtype == "float32" else 1e-12
            np.testing.assert_allclose(out, expected, rtol=rtol, atol=1e-6, err_msg=case)


def test_contract(draw):
    ops = NumpyOps()
    for rows, add in product([(4,), (1,), (2, 4), (1, 4), (5, 1)], [False, True]):
        a, b = draw(np, (*rows, 3)), draw(np, (*rows, 5))
        before, start = (a.tolist(), b.tolist()), draw(np, (3, 5))
        expected = np.einsum("np,nq->pq", a.reshape(-1, 3), b.reshape(-1, 5)) + add * start
        for layout in (np.array, feature_major):
            for out in (start.copy(), np.asfortranarray(start.copy()), np.repeat(start, 2, axis=1)[:, ::2]):
                ops.contract(layout(a), layout(b), out, add=add)
                case = f"{rows} {add} {layout} {out.strides}"
                np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-14, err_msg=case)
        assert (a.tolist(), b.tolist()) == before


NORMS = [
    ([3.0, -4.0], 5.0),
    ([0.0, 0.0], 0.0),
    ([-0.0], 0.0),
    ([3e25, 4e25], 5e25),
    ([3e-30, -4e-30], 5e-30),
    ([1.0, np.inf], np.inf),
    ([-np.inf, np.inf], np.inf),
    ([1.0, np.nan], np.nan),
    ([np.inf, np.nan, 1.0], np.nan),
    ([1e30, 1e-30, 0.0], 1e30),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_norm(dtype, tolerance):
    """Also where squares overflow, or vanish."""
    for numbers, expected in NORMS:
        out = np.zeros(3, dtype)
        NumpyOps().norm(np.asarray(numbers, dtype), out[1:2])
        assert out[1] == pytest.approx(expected, rel=tolerance, abs=0, nan_ok=True), numbers
        assert (out[0], out[2]) == (0.0, 0.0), numbers


def test_norm_of_any_shape(draw):
    for shape in ((7,), (3, 4), (2, 3, 2)):
        a, out = draw(np, shape), np.empty(1)
        for array in (a, feature_major(a) if len(shape) > 1 else a[::1]):
            NumpyOps().norm(array, out)
            assert out[0] == pytest.approx(np.sqrt(np.sum(a**2)), rel=1e-14), array.strides


def test_norm_of_numbers_that_are_too_small_for_their_squares_alone():
    """Subnormal numbers, float32: what is divided by stays a number."""
    out = np.empty(1, np.float32)
    NumpyOps().norm(np.asarray([3.0, 4.0], np.float32) * np.float32(2.0**-149), out)
    assert out[0] == np.float32(5.0) * np.float32(2.0**-149)


def test_loop_takes_the_times_in_order():
    seen = []
    NumpyOps().loop(seen.append, range(5, 1, -1))
    assert seen == [5, 4, 3, 2]


# --- parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threads", "smallest", "largest", "sizes"),
    [
        (0, 1, 1, [23]),
        (1, 5_000, 2**16, [23]),
        (4, 5_000, 2**16, [23]),  # too small to share
        (2, 1, 2**16, [12, 11]),
        (5, 1, 2**16, [5, 5, 5, 4, 4]),
        (9, 30, 2**16, [8, 8, 7]),  # as many threads as the states pay for
        (1, 5_000, 40, [8, 8, 7]),
        (2, 1, 40, [6, 6, 6, 5]),  # as many rounds on each thread
        (3, 1, 5, [1] * 23),
        (40, 1, 2**16, [1] * 23),
    ],
)
def test_parts(monkeypatch, threads, smallest, largest, sizes):
    """23 sequences of states of 5 numbers."""
    monkeypatch.setattr(numpy_ops, "MIN_STATE_NUMBERS", smallest)
    monkeypatch.setattr(numpy_ops, "MAX_STATE_NUMBERS", largest)
    monkeypatch.setattr(numpy_ops, "MIN_ROWS", 1)
    ops = NumpyOps(threads)
    parts = ops.parts(23, 4, 2, 5)
    assert [rows.stop - rows.start for rows, _ in parts] == sizes
    assert [i for rows, _ in parts for i in range(rows.start, rows.stop)] == list(range(23))
    assert parts == ops.parts(23, 4, 2, 5)  # by the same workers
    assert len({id(own) for _, own in parts}) <= max(1, threads)
    for rows, own in parts:
        n = rows.stop - rows.start
        assert own.parts(n, 4, 2, 5) == [(slice(0, n), own)]  # a part is not split again


def test_parts_of_large_batches():
    sizes = [rows.stop - rows.start for rows, _ in NumpyOps(2).parts(704, 10, 1, 70)]
    assert sizes == [352, 352]
    sizes = [rows.stop - rows.start for rows, _ in NumpyOps(1).parts(10_000, 2, 1, 100)]
    assert len(sizes) == 16
    assert max(sizes) * 100 <= 2**16
    assert len(NumpyOps(1).parts(2 * numpy_ops.MIN_ROWS, 2, 1, 1000)) == 2  # enough rows for the weights of each step
    assert len(NumpyOps(1).parts(8, 2**20, 1, 64)) == 8  # what is kept for the backward pass, too, has a limit


def test_ops_belong_to_the_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    seen = []
    thread = threading.Thread(target=lambda: seen.extend([device_scan("numpy"), device_scan("numpy")]))
    thread.start()
    thread.join()
    assert seen[0] is seen[1] is not device_scan("numpy")
    assert len(seen[0].parts(300, 1, 1, 100)) == 3


# --- captured functions -----------------------------------------------------------------------------------------


def add_one(xp, a):
    return (a + 1.0,)


def test_a_captured_function_does_its_work_once(draw):
    ops, a, b = NumpyOps(), draw(np, (3, 4)), draw(np, (3, 4))
    counted, products, start = np.zeros(1), np.zeros((4, 4)), a.copy()

    def function():
        ops.pointwise(add_one, (counted,), (counted,))
        ops.pointwise(lambda xp, a, b: (a * b,), (a, b), (a,))
        ops.contract(a, b, products, add=True)
        return ops.matmul(a, b.T, ops.empty((3, 3), like=a))

    again = ops.capture(function)
    assert counted[0] == 1.0
    assert a.tolist() == (start * b).tolist()
    np.testing.assert_allclose(products, a.T @ b, rtol=1e-12)
    first = products.copy()
    result = again()
    assert counted[0] == 2.0
    assert a.tolist() == (start * b * b).tolist()
    np.testing.assert_allclose(result, a @ b.T, rtol=1e-12)
    np.testing.assert_allclose(products, first + a.T @ b, rtol=1e-12)
    b[...] = 2.0
    assert again() is result
    np.testing.assert_allclose(result, a @ b.T, rtol=1e-12)
    assert counted[0] == 3.0


def test_every_operation_is_captured(draw):
    ops, a, b = NumpyOps(), draw(np, (2, 3, 4)), draw(np, (4, 1))

    def function():
        whole = ops.empty((2, 3, 6), like=a)
        ops.copy(a, whole[..., :4])
        ops.copy(0.5, whole[..., 4:])
        product = ops.matmul(whole[..., :4], b, ops.empty((2, 3, 1), like=a))
        outer = ops.matmul(product, b.T, ops.empty((2, 3, 4), like=a))
        row = ops.matmul(a[0, :1], b, ops.empty((1, 1), like=a))
        sums = ops.empty((6, 4), like=a)
        ops.contract(whole, outer, sums)
        ops.contract(whole, outer, sums, add=True)
        norm = ops.empty((1,), like=a)
        ops.norm(sums, norm)
        ops.loop(lambda t: ops.pointwise(add_one, (whole[t],), (whole[t],)), range(1, -1, -1))
        return whole, product, outer, row, sums, norm

    def expected():
        whole = np.concatenate([a, np.full((2, 3, 2), 0.5)], axis=-1)
        outer = (a @ b) @ b.T
        sums = 2.0 * np.einsum("tbp,tbq->pq", whole, outer)
        return whole + 1.0, a @ b, outer, a[0, :1] @ b, sums, np.linalg.norm(sums)

    again = ops.capture(function)
    for _ in range(3):
        a[...], b[...] = draw(np, a.shape), draw(np, b.shape)
        for actual, desired in zip(again(), expected(), strict=True):
            np.testing.assert_allclose(actual, np.broadcast_to(desired, actual.shape), rtol=1e-11, atol=1e-13)


@DTYPES
def test_captured_layer(draw, draw_layer, make_numpy_ops, assert_same_results, reset, dtype, tolerance):
    """Replayed with other numbers in the same arrays, parameters included."""
    for sizes in ((1, 1, 1, 1), (5, 4, 2, 3), (7, 3, 1, 6)):
        ops, layer = make_numpy_ops(), draw_layer(*sizes, dtype)
        again = ops.capture(lambda ops=ops, layer=layer: layer(ops, reset))
        assert_same_results(again(), layer(PLAIN_OPS, reset), tolerance)
        for _ in range(3):
            layer.change(draw)
            assert_same_results(again(), layer(PLAIN_OPS, reset), tolerance)


def test_captured_forward_pass(draw, draw_layer, make_numpy_ops, assert_same_results):
    for reset in RESETS:
        ops, layer = make_numpy_ops(), draw_layer(7, 4, 2, 3)

        def forward(ops, layer=layer, reset=reset):
            return gru_forward(layer.x, layer.h0, layer.params_of(reset), ops=ops, with_cache=False)[:2]

        again = ops.capture(lambda forward=forward, ops=ops: forward(ops))
        for _ in range(3):
            assert_same_results(again(), forward(PLAIN_OPS))
            layer.change(draw)


def test_captured_cell(draw, draw_params, assert_same_results, reset):
    ops, x, h_prev, dh, params = NumpyOps(), draw(np, (3, 2)), draw(np, (3, 5)), draw(np, (3, 5)), draw_params(np, 2, 5)

    def function(ops):
        h, cache = gru_cell_forward(x, h_prev, params, reset=reset, ops=ops)
        dx, dh_prev, dparams = gru_cell_backward(dh, cache)
        return h, h, dx, dh_prev, *arrays_of(dparams)

    again = ops.capture(lambda: function(ops))
    for _ in range(3):
        assert_same_results(again(), function(PLAIN_OPS))
        for array in (x, h_prev, dh, *arrays_of(params)):
            array[...] = draw(np, array.shape)


def test_captured_functions_leave_other_arrays_alone(draw_layer, make_numpy_ops, some, assert_same_results):
    """Two of them in turn, beside calls that are not captured, whose results and caches are held."""
    for reset in some(RESETS, 2):
        check_captured_functions(draw_layer, make_numpy_ops(), assert_same_results, reset)


def check_captured_functions(draw_layer, ops, assert_same_results, reset):
    layers = [draw_layer(5, 4, 2, 3), draw_layer(3, 6, 1, 4)]
    held = [
        (layer, layer(ops, reset), gru_forward(layer.x, layer.h0, layer.params_of(reset), ops=ops)) for layer in layers
    ]
    copies = [[array.copy() for array in results] for _, results, _ in held]
    existing = [ops.empty((6, 4), like=layers[0].x) for _ in range(3)]
    for number, array in enumerate(existing):
        array[...] = number

    def forward(layer):
        return gru_forward(layer.x, layer.h0, layer.params_of(reset), ops=ops, with_cache=False)[:2]

    captured = [ops.capture(lambda layer=layer: forward(layer)) for layer in layers]
    for trial in range(6):
        number = trial % 2
        desired = layers[number](PLAIN_OPS, reset)
        assert_same_results(captured[number](), desired[:2])
        assert_same_results(layers[number](ops, reset), desired)
    assert all((array == number).all() for number, array in enumerate(existing))
    for (layer, results, (h, h_last, cache)), copy in zip(held, copies, strict=True):
        for array, before in zip(results, copy, strict=True):
            assert array.tolist() == before.tolist()
        dx, dh0, dparams = gru_backward(layer.dh, cache, dh_last=layer.dh_last)
        assert_same_results((h, h_last, dx, dh0, *arrays_of(dparams)), layer(PLAIN_OPS, reset))


def test_run_inside_a_captured_function(draw, make_numpy_ops):
    """Tasks of several workers, several for one worker, twice; each writes its rows of an array."""
    ops, x, weight = make_numpy_ops(), draw(np, (9, 4)), draw(np, (4, 3))
    out, total = np.empty((9, 3)), np.zeros(1)

    def task(rows, own):
        product = own.matmul(x[rows], weight, own.empty((rows.stop - rows.start, 3), like=x))
        own.pointwise(lambda xp, a: (xp.tanh(a),), (product,), (product,))
        own.copy(product, out[rows])

    def function():
        for _ in range(2):
            parts = ops.parts(9, 1, 4, 3)
            ops.run([(own, lambda rows=rows, own=own: task(rows, own)) for rows, own in parts])
        ops.pointwise(add_one, (total,), (total,))

    again = ops.capture(function)
    for times in range(1, 5):
        np.testing.assert_allclose(out, np.tanh(x @ weight), rtol=1e-12)
        assert total[0] == times
        x[...], weight[...] = draw(np, x.shape), draw(np, weight.shape)
        again()


def test_results_of_run_inside_a_captured_function_stay(draw, make_numpy_ops):
    """What tasks return is there until the function ends, as it is where nothing is captured."""
    ops, x = make_numpy_ops(), draw(np, (9, 4))

    def double(rows, own):
        result = own.empty((rows.stop - rows.start, 4), like=x)
        own.pointwise(lambda xp, a: (2.0 * a,), (x[rows],), (result,))
        return result

    def function():
        results = []
        for _ in range(2):
            parts = ops.parts(9, 1, 4, 3)
            results.append(ops.run([(own, lambda rows=rows, own=own: double(rows, own)) for rows, own in parts]))
        return results

    again = ops.capture(function)
    for _ in range(3):
        for results in again():
            assert np.concatenate(results).tolist() == (2.0 * x).tolist()
        x[...] = draw(np, x.shape)


def test_memory_that_a_captured_function_let_go_of_serves_again(draw):
    """What was written into it is read before it is overwritten, each time."""
    ops, x = NumpyOps(), draw(np, (3, 4))
    addresses = []

    def doubled(a):
        result = ops.empty(a.shape, like=a)
        ops.pointwise(lambda xp, a: (2.0 * a,), (a,), (result,))
        addresses.append(result.ctypes.data)
        return result

    def function():
        total = ops.empty((3, 4), like=x)
        ops.copy(0.0, total)
        a = x
        for _ in range(6):
            a = doubled(a)
            ops.pointwise(lambda xp, a, b: (a + b,), (total, a), (total,))
        return total, a[1:]

    again = ops.capture(function)
    assert len(set(addresses)) == 2
    for _ in range(3):
        total, last = again()
        np.testing.assert_allclose(total, 126.0 * x, rtol=1e-14)
        assert last.tolist() == (64.0 * x[1:]).tolist()
        x[...] = draw(np, (3, 4))


def test_what_runs_side_by_side_overwrites_nothing_that_another_reads(monkeypatch, draw):
    """Not even if nobody refers to it any more by the time that the other's calls are written down."""
    monkeypatch.setattr(numpy_ops, "MIN_STATE_NUMBERS", 1)
    ops, x, out = NumpyOps(2), draw(np, (8, 3)), np.empty((8, 3))
    kept, addresses = [], []

    def new(own):
        result = own.empty((8, 3), like=x)
        addresses.append(result.ctypes.data)
        own.pointwise(add_one, (x,), (result,))
        return result

    def function():
        (_, first), (_, second) = ops.parts(8, 1, 3, 3)
        kept.extend(ops.run([(first, lambda: new(first)), (second, lambda: None)])[:1])
        ops.run([(second, lambda: second.copy(kept.pop(), out)), (first, lambda: new(first) is None)])
        ops.run([(first, lambda: new(first) is None), (second, lambda: None)])

    again = ops.capture(function)
    read, beside, later = addresses
    assert read != beside
    assert later in (read, beside)
    again()
    assert out.tolist() == (x + 1.0).tolist()


@pytest.mark.parametrize("threads", [1, 3])
def test_random_captured_functions(monkeypatch, threads):
    """They read arrays of all workers, let go of them at any time, and return some."""
    monkeypatch.setattr(numpy_ops, "MIN_STATE_NUMBERS", 1)
    for seed in range(25):
        x = np.random.default_rng(seed).standard_normal((4, 5))
        ops = NumpyOps(threads)
        again = ops.capture(lambda ops=ops, x=x, seed=seed: random_calls(ops, x, seed))
        for factor in (1.0, -0.5, 3.0):
            x *= factor
            expected = random_calls(PLAIN_OPS, x, seed)
            for actual, desired in zip(again(), expected, strict=True):
                assert actual.tolist() == desired.tolist(), seed


def random_calls(ops, x, seed):
    rng, held = np.random.default_rng(seed), [x]

    def combine(own, a, b, n):
        result = own.empty((n, 5), like=x)
        own.pointwise(lambda xp, a, b: (0.75 * a - b,), (a[:n], b[:n]), (result,))
        return result

    for _ in range(20):
        if rng.random() < 0.5:
            a, b = (held[rng.integers(len(held))] for _ in range(2))
            held.append(combine(ops, a, b, min(len(a), len(b), int(rng.integers(1, 5)))))
            del a, b
        else:
            parts = ops.parts(4, 1, 5, 5)
            pairs = [[held[rng.integers(len(held))] for _ in range(2)] for _ in range(6)]
            held[1:] = [a for a in held[1:] if rng.random() < 0.5]
            tasks = []
            for number, pair in enumerate(pairs):
                own = parts[number % len(parts)][1]
                n = min(map(len, pair))
                tasks.append((own, lambda own=own, pair=pair, n=n: combine(own, pair.pop(), pair.pop(), n)))
            del pair
            results = ops.run(tasks)
            held += [result for result in results if rng.random() < 0.5]
            del results, tasks
        held[1:] = [a for a in held[1:] if rng.random() < 0.8]
    return held[1:]


def test_an_error_ends_a_capture(draw_layer, make_numpy_ops, assert_same_results):
    reset, ops, layer = "after", make_numpy_ops(), draw_layer(5, 4, 2, 3)
    wrong = layer._replace(dh=layer.dh[:, :1])
    with pytest.raises(ShapeError, match="dh has shape"):
        ops.capture(lambda: wrong(ops, reset))
    assert_same_results(layer(ops, reset), layer(PLAIN_OPS, reset))
    with pytest.raises(ShapeError, match="y_true"):
        ops.capture(lambda: ops.run([(own, fail) for _, own in ops.parts(5, 4, 2, 3)]))
    assert_same_results(layer(ops, reset), layer(PLAIN_OPS, reset))


def fail():
    raise ShapeError("y_true has shape")


# --- what it must refuse ----------------------------------------------------------------------------------------


def test_unknown_function(draw):
    a = draw(np, (2, 3))
    with pytest.raises(AttributeError, match=r"'sin'.* add, .*, tanh"):
        NumpyOps().pointwise(lambda xp, a: (xp.sin(a),), (a,), (np.empty((2, 3)),))


def test_body_that_returns_an_input(draw):
    def passes_on(xp, a, b):
        return a * b, b

    a, b = draw(np, (2, 3)), draw(np, (2, 3))
    with pytest.raises(ValueError, match="passes_on returns"):
        NumpyOps().pointwise(passes_on, (a, b), (np.empty((2, 3)), np.empty((2, 3))))


def test_shapes_are_checked_as_ever(draw_layer):
    layer = draw_layer(3, 4, 2, 5)
    with pytest.raises(ShapeError, match=r"h0 .*\(1, 5\).*\(3, 5\)"):
        gru_forward(layer.x, layer.h0[:1], layer.params, ops=NumpyOps())


def test_plans_and_scratch_of_many_shapes_are_not_kept(monkeypatch, draw, draw_params, reset):
    monkeypatch.setattr(numpy_ops, "MAX_PLANS", 20)
    monkeypatch.setattr(numpy_ops, "MAX_SCRATCH_BYTES", 50_000)
    ops, params = NumpyOps(0), draw_params(np, 2, 5)
    for B in range(1, 120, 3):
        x = draw(np, (B, 3, 2))
        h, _, cache = gru_forward(x, None, params, reset=reset, ops=ops)
        expected, _, plain_cache = gru_forward(x, None, params, reset=reset, ops=PLAIN_OPS)
        np.testing.assert_allclose(h, expected, rtol=0, atol=1e-13)
        for actual, desired in zip(
            arrays_of(gru_backward(h, cache)[2]), arrays_of(gru_backward(h, plain_cache)[2]), strict=True
        ):
            np.testing.assert_allclose(actual, desired, rtol=1e-11, atol=1e-11)
        assert len(ops._plans) <= 20
        assert ops._scratch.nbytes <= 50_000 + 8 * 3 * 5 * 2 * B * 4


def test_a_cell_in_parts(monkeypatch, draw, draw_params, reset):
    monkeypatch.setattr(numpy_ops, "MIN_STATE_NUMBERS", 30)
    ops, params = NumpyOps(2), draw_params(np, 3, 5)
    for B, n_parts in ((3, 1), (40, 2)):
        x, h, dh = draw(np, (B, 3)), draw(np, (B, 5)), draw(np, (B, 5))
        results = []
        for own in (ops, PLAIN_OPS):
            h_next, cache = gru_cell_forward(x, h, params, reset=reset, ops=own)
            dx, dh_prev, dparams = gru_cell_backward(dh, cache)
            results.append((h_next, dx, dh_prev, *arrays_of(dparams)))
        assert len(ops.parts(B, 1, 3, 5)) == n_parts
        for actual, desired in zip(*results, strict=True):
            np.testing.assert_allclose(actual, desired, rtol=1e-12, atol=1e-12, err_msg=f"B={B}")


def test_contract_sums_the_products_of_any_number_of_steps(monkeypatch, rng):
    for T, several in product([1, 2, 5, 7], [1, 2, 3, 100]):
        monkeypatch.setattr(numpy_ops, "MAX_PRODUCT_NUMBERS", several * 4 * 3)
        ops, before = NumpyOps(0), rng.standard_normal((4, 3))
        a, b = rng.standard_normal((T, 6, 4)), rng.standard_normal((T, 6, 3))
        expected, out, case = np.einsum("tbp,tbq->pq", a, b), before.copy(), f"T={T} several={several}"
        ops.contract(a, b, out=out, add=True)
        np.testing.assert_allclose(out, before + expected, rtol=1e-12, atol=1e-12, err_msg=case)
        ops.contract(a, b, out=out)
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12, err_msg=case)


def test_contractions_keep_little_memory(monkeypatch, draw):
    monkeypatch.setattr(numpy_ops, "MAX_PRODUCT_NUMBERS", 100)
    monkeypatch.setattr(numpy_ops, "MAX_SCRATCH_BYTES", 10_000)
    ops = NumpyOps(0)
    for T in range(1, 30):
        for size in (3, T):
            a = draw(np, (T, 6, size))
            out = ops.contract(a, a, out=np.empty((size, size)))
            np.testing.assert_allclose(out, np.einsum("tbp,tbq->pq", a, a), rtol=1e-12, atol=1e-12)
            assert ops._products.nbytes <= 10_000 + 8 * (100 + 2 * 30 * 30)


def test_a_forward_pass_without_a_cache_keeps_no_part(monkeypatch, draw, draw_params, reset):
    """Of what the parts of a large batch compute in, only as much is in use as are computed side by side."""
    monkeypatch.setattr(numpy_ops, "MIN_ROWS", 1)
    monkeypatch.setattr(numpy_ops, "MAX_STATE_NUMBERS", 20)
    made, alive = [], []

    class Memory(lowering._Memory):
        def __init__(self, plan, ops, inputs, like, T, *others):
            super().__init__(plan, ops, inputs, like, T, *others)
            if T > 0:  # of a scan
                made.append(weakref.ref(self))
                alive.append(sum(memory() is not None for memory in made))

    monkeypatch.setattr(lowering, "_Memory", Memory)
    ops, params, x = NumpyOps(1), draw_params(np, 2, 5), draw(np, (60, 3, 2))
    h, _, _ = gru_forward(x, None, params, reset=reset, ops=ops, with_cache=False)
    assert len(made) == 15
    assert max(alive) <= 2
    np.testing.assert_allclose(h, gru_forward(x, None, params, reset=reset, ops=PLAIN_OPS)[0], rtol=0, atol=1e-13)
