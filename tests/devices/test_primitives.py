from inspect import signature

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import primitives, to_host
from gru_xp.devices.cupy_ops import CupyOps
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.devices.primitives import PLAIN_OPS, Ops, PlainOps, even_slices, rounds_for_memory
from gru_xp.nn import (
    LinearParams,
    gru_cell_backward,
    gru_cell_forward,
    linear_backward,
    linear_forward,
    mse_loss,
)
from gru_xp.nn.params import arrays_of
from gru_xp.nn.scan import scan_of


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("GRU_XP_PLAIN", raising=False)


def test_all_ops_have_all_methods():
    """With the parameters that `Ops` names; the protocol is not there at run time."""
    methods = [name for name in vars(Ops) if not name.startswith("_")]
    assert "matmul" in methods
    for kind in (PlainOps, NumpyOps, CupyOps):
        for name in methods:
            wanted = signature(getattr(Ops, name)).parameters.values()
            found = signature(getattr(kind, name)).parameters.values()
            assert [(p.name, p.kind, p.default) for p in found] == [(p.name, p.kind, p.default) for p in wanted], (
                kind,
                name,
            )


# --- the plain ops ----------------------------------------------------------------------------------------------


def test_empty(xp):
    for dtype in (xp.float32, xp.float64):
        like = xp.ones((1,), dtype=dtype)
        for shape in ((3,), (2, 3), (4, 2, 3)):
            array = PLAIN_OPS.empty(shape, like)
            assert tuple(array.shape) == shape
            assert array.dtype == dtype
            assert array_namespace(array) is array_namespace(like)


def test_empty_is_on_the_device():
    strict = pytest.importorskip("array_api_strict")
    like = strict.ones(1, device=strict.Device("device1"))
    assert PLAIN_OPS.empty((2, 3), like).device == like.device


def test_copy_broadcasts_into_parts_of_arrays(xp, draw):
    for shape in ((2, 3), (3,), (2, 1)):
        source, whole = draw(xp, shape), draw(xp, (2, 8))
        kept = to_host(whole)[:, :2].tolist()
        PLAIN_OPS.copy(source, whole[:, 2:5])
        PLAIN_OPS.copy(0.25, whole[:, 5:])
        assert to_host(whole)[:, :2].tolist() == kept, shape
        assert to_host(whole)[:, 2:5].tolist() == np.broadcast_to(to_host(source), (2, 3)).tolist(), shape
        assert to_host(whole)[:, 5:].tolist() == [[0.25] * 3] * 2, shape


def test_matmul_writes_into_out(xp, draw):
    for rows in ((4,), (2, 4), (3, 1)):
        a, b, out = draw(xp, (*rows, 3)), draw(xp, (3, 5)), draw(xp, (*rows, 5))
        assert PLAIN_OPS.matmul(a, b, out) is out
        expected = np.einsum("...k,km->...m", to_host(a), to_host(b))
        np.testing.assert_allclose(to_host(out), expected, rtol=1e-12, atol=1e-14, err_msg=str(rows))


def test_contract_sums_over_all_axes_but_the_last(xp, draw):
    for rows in ((4,), (1,), (2, 4), (3, 1), (2, 3, 4)):
        for add in (False, True):
            a, b, whole = draw(xp, (*rows, 3)), draw(xp, (*rows, 5)), draw(xp, (3, 7))
            before = to_host(whole).copy()
            PLAIN_OPS.contract(a, b, whole[:, 1:6], add=add)
            product = np.einsum("np,nq->pq", to_host(a).reshape(-1, 3), to_host(b).reshape(-1, 5))
            expected, case = product + add * before[:, 1:6], str((rows, add))
            np.testing.assert_allclose(to_host(whole)[:, 1:6], expected, rtol=1e-12, atol=1e-14, err_msg=case)
            assert to_host(whole)[:, [0, 6]].tolist() == before[:, [0, 6]].tolist(), case


def test_pointwise_writes_into_parts_of_arrays(xp, draw):
    a, b, whole = draw(xp, (2, 3)), draw(xp, (3,)), draw(xp, (2, 8))
    kept = to_host(whole)[:, :2].tolist()

    def body(xp, a, b, c):
        return a + b, xp.tanh(a * b) * c

    PLAIN_OPS.pointwise(body, (a, b, 0.5), out=(whole[:, 2:5], whole[:, 5:]))
    a, b, whole = to_host(a), to_host(b), to_host(whole)
    np.testing.assert_array_equal(whole[:, 2:5], a + b)
    np.testing.assert_allclose(whole[:, 5:], 0.5 * np.tanh(a * b), rtol=1e-14)
    assert whole[:, :2].tolist() == kept


def test_pointwise_may_overwrite_its_inputs(xp, draw):
    a, b = draw(xp, (2, 3)), draw(xp, (2, 3))
    expected = to_host(a) - to_host(b), to_host(a) * to_host(b)
    PLAIN_OPS.pointwise(lambda xp, a, b: (a - b, a * b), (a, b), out=(a, b))
    np.testing.assert_array_equal(to_host(a), expected[0])
    np.testing.assert_array_equal(to_host(b), expected[1])


def test_pointwise_refuses_another_number_of_outputs(draw):
    a = draw(np, (2, 3))
    with pytest.raises(ValueError, match="zip"):
        PLAIN_OPS.pointwise(lambda xp, a: (a + a, a * a), (a,), out=(np.empty((2, 3)),))


NORMS = [
    ([3.0, -4.0], 5.0),
    ([-2.0], 2.0),
    ([0.0, 0.0], 0.0),
    ([3e25, 4e25], 5e25),
    ([3e-30, -4e-30], 5e-30),
    ([2.0**-149, 0.0], 2.0**-149),
    ([1.0, np.inf], np.inf),
    ([-np.inf, np.inf], np.inf),
    ([1.0, np.nan], np.nan),
    ([np.inf, np.nan, 1.0], np.nan),
    ([1e30, 1e-30, 0.0], 1e30),
]


def test_norm(xp):
    """Also where squares overflow, or vanish."""
    for dtype, tolerance in (("float32", 1e-6), ("float64", 1e-14)):
        for numbers, expected in NORMS:
            if dtype == "float64" and expected < 1e-40:
                continue  # a subnormal number of float32 alone
            a, out = xp.asarray(numbers, dtype=getattr(xp, dtype)), xp.zeros((3,), dtype=getattr(xp, dtype))
            PLAIN_OPS.norm(a, out[1:2])
            assert float(out[1]) == pytest.approx(expected, rel=tolerance, abs=0, nan_ok=True), (numbers, dtype)
            assert (float(out[0]), float(out[2])) == (0.0, 0.0)


def test_norm_of_any_shape(xp, draw):
    for shape in ((7,), (3, 4), (2, 3, 2)):
        a, out = draw(xp, shape), xp.empty((1,), dtype=xp.float64)
        PLAIN_OPS.norm(a, out)
        assert float(out[0]) == pytest.approx(np.sqrt(np.sum(to_host(a) ** 2)), rel=1e-14), shape


def test_loop_takes_the_times_in_order():
    seen = []
    PLAIN_OPS.loop(seen.append, range(5, 1, -1))
    assert seen == [5, 4, 3, 2]


def test_run_gives_results_in_order():
    assert PLAIN_OPS.run([(PLAIN_OPS, lambda i=i: i * i) for i in range(4)]) == [0, 1, 4, 9]


def test_capture_calls_once(draw):
    a = draw(np, (3,))
    calls = []

    def function():
        calls.append(a.copy())
        PLAIN_OPS.pointwise(lambda xp, a: (a + 1.0,), (a,), out=(a,))
        return a

    start = a.copy()
    again = PLAIN_OPS.capture(function)
    assert len(calls) == 1
    assert a.tolist() == (start + 1.0).tolist()
    assert again() is a
    assert a.tolist() == (start + 1.0 + 1.0).tolist()


# --- how much at once -------------------------------------------------------------------------------------------


def test_even_slices():
    for n, count, sizes in (
        (7, 1, [7]),
        (7, 2, [4, 3]),
        (7, 3, [3, 2, 2]),
        (7, 7, [1] * 7),
        (7, 40, [1] * 7),
        (7, 0, [7]),
        (1, 1, [1]),
        (23, 5, [5, 5, 5, 4, 4]),
    ):
        slices = even_slices(n, count)
        assert [s.stop - s.start for s in slices] == sizes, (n, count)
        assert [i for s in slices for i in range(s.start, s.stop)] == list(range(n)), (n, count)


def test_the_plain_ops_take_what_fits_in_memory(monkeypatch):
    assert PLAIN_OPS.parts(1000, 100, 3, 64) == [(slice(0, 1000), PLAIN_OPS)]
    monkeypatch.setattr(primitives, "MAX_NUMBERS", 1000)
    a_sequence = 4 * (8 * 5 + 2)
    rows = [rows for rows, own in PLAIN_OPS.parts(23, 4, 2, 5) if own is PLAIN_OPS]
    numbers = [a_sequence * (r.stop - r.start) for r in rows]
    assert max(numbers) < 1000 + a_sequence
    assert min(numbers) > 500
    assert sum(numbers) == 23 * a_sequence
    assert len(PLAIN_OPS.parts(3, 10_000, 2, 5)) == 3  # a sequence is not divided


def test_rounds_for_memory():
    assert rounds_for_memory(1, 1, 1, 1) == 1
    assert rounds_for_memory(2**20, 64, 8, 1) == 8
    assert rounds_for_memory(2**20 + 1, 64, 8, 1) == 9


# --- what the maths asks of ops ---------------------------------------------------------------------------------


def variant(draw, name, B, T, H):
    """Options of `gru_forward`, of which lengths are looked at on the host."""
    masks = {"update_mask": np.abs(draw(np, (B, T, H))), "candidate_mask": draw(np, (B, H))}
    return {
        "plain": {},
        "reverse": {"reverse": True},
        "masks": masks,
        "a number": {"update_mask": 0.75, "reverse": True},
        "lengths": {"lengths": [T - 1, 0, T, *[1] * (B - 3)]},
        "all": {**masks, "reverse": True, "lengths": [T - 1, 0, T, *[1] * (B - 3)]},
        "kept every 4th": {"keep_every": 4, "reverse": True},
    }[name]


VARIANTS = ["plain", "reverse", "masks", "a number", "lengths", "all", "kept every 4th"]


def test_the_maths_touches_arrays_by_the_ops_alone(draw, draw_layer, guarded_ops, guard, reset):
    for name in VARIANTS:
        layer, options = draw_layer(3, 6, 2, 5), variant(draw, name, 3, 6, 5)
        given = {k: guard(value) if isinstance(value, np.ndarray) else value for k, value in options.items()}
        if "lengths" in options:
            given["lengths"] = np.asarray(options["lengths"])
        results = type(layer)(*map(guard, layer))(guarded_ops, reset, **given)
        assert [a.tolist() for a in results] == [a.tolist() for a in layer(PLAIN_OPS, reset, **options)], name


def test_the_other_functions_touch_arrays_by_the_ops_alone(draw, draw_layer, guarded_ops, guard, reset):
    layer = draw_layer(3, 4, 2, 5)
    x, params = guard(layer.x), guard(layer.params_of(reset))
    h, cache = gru_cell_forward(x[:, 0], guard(layer.h0), params, ops=guarded_ops)
    gru_cell_backward(guard(layer.dh_last), cache)
    linear = guard(LinearParams(draw(np, (2, 5)), draw(np, (2,))))
    y, cache = linear_forward(h, linear, ops=guarded_ops)
    _, dy = mse_loss(y, guard(draw(np, (3, 2))), ops=guarded_ops)
    linear_backward(dy, cache)
    with pytest.raises(AssertionError, match="beside the ops"):
        x + x
    with pytest.raises(AssertionError, match="beside the ops"):
        x[0] = 1.0


# --- where no ops are given -------------------------------------------------------------------------------------


def test_the_environment_is_asked_at_every_call(draw_layer, reset, monkeypatch):
    """What is computed with fast paths switched off is what the plain ops compute, bit for bit."""
    layer = draw_layer(3, 6, 2, 5)
    fast = scan_of(layer.x)
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    off, plain = layer(None, reset), layer(PLAIN_OPS, reset)
    assert [a.tolist() for a in off] == [a.tolist() for a in plain]
    monkeypatch.delenv("GRU_XP_PLAIN")
    assert scan_of(layer.x) is fast


def test_without_ops_the_layer_gives_the_same(draw_layer, assert_same_results, reset):
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-6)):
        for shape in ((1, 1, 1, 1), (4, 7, 3, 6), (40, 3, 1, 17)):
            layer = draw_layer(*shape, dtype)
            assert_same_results(layer(None, reset), layer(PLAIN_OPS, reset), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
def test_without_ops_the_other_functions_give_the_same(draw, draw_params, assert_same_results, reset, dtype, tolerance):
    shapes = {"x": (4, 3), "h_prev": (4, 5), "dh": (4, 5), "weight": (2, 5), "bias": (2,), "y": (4, 2)}
    a = {name: draw(np, shape, dtype) for name, shape in shapes.items()}
    params = draw_params(np, 3, 5, dtype)

    def results(given):
        h, cache = gru_cell_forward(a["x"], a["h_prev"], params, reset=reset, ops=given)
        dx, dh_prev, dparams = gru_cell_backward(a["dh"], cache)
        yield (h, h, dx, dh_prev, *arrays_of(dparams))
        y, cache = linear_forward(a["h_prev"], LinearParams(a["weight"], a["bias"]), ops=given)
        value, dy = mse_loss(y, a["y"], ops=given)
        dx, dparams = linear_backward(dy, cache)
        yield (y, value, dy, dx, *arrays_of(dparams))

    for actual, desired in zip(results(None), results(PLAIN_OPS), strict=True):
        assert_same_results(actual, desired, tolerance)
