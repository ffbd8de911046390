import threading
from types import ModuleType

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.errors import ShapeError
from gru_xp.nn import (
    LinearParams,
    gru_backward,
    gru_cell_backward,
    gru_cell_forward,
    gru_forward,
    linear_backward,
    linear_forward,
    mse_loss,
    ops,
)
from gru_xp.nn.ops import PLAIN_OPS, PlainOps, default_ops, even_slices, rounds_for_memory
from gru_xp.nn.params import arrays_of


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("GRU_XP_PLAIN", raising=False)


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
    monkeypatch.setattr(ops, "MAX_NUMBERS", 1000)
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


def test_parts_of_the_plain_ops_give_what_one_gives(xp, draw, draw_params, reset, monkeypatch, assert_same_results):
    x, h0, params = draw(xp, (5, 4, 2)), draw(xp, (5, 3)), draw_params(xp, 2, 3)
    dh, dh_last = draw(xp, (5, 4, 3)), draw(xp, (5, 3))
    results = []
    for numbers in (2**27, 4 * (8 * 3 + 2) * 2):
        monkeypatch.setattr(ops, "MAX_NUMBERS", numbers)
        h, h_last, cache = gru_forward(x, h0, params, reset=reset, ops=PLAIN_OPS)
        assert len(cache.parts) == (1 if numbers == 2**27 else 3)
        dx, dh0, dparams = gru_backward(dh, cache, dh_last=dh_last)
        results.append((h, h_last, dx, dh0, *arrays_of(dparams)))
    assert_same_results(results[1], results[0])


# --- what the maths asks of ops ---------------------------------------------------------------------------------


def test_the_ops_that_are_given_do_all_the_work(draw, draw_params, reset):
    """A device's own way must reach every product and every pointwise expression of both passes."""
    calls = []

    class Counted(PlainOps):
        def __getattribute__(self, name):
            calls.append(name)
            return super().__getattribute__(name)

    T, before = 4, reset == "before"
    _, _, cache = gru_forward(draw(np, (2, T, 3)), None, draw_params(np, 3, 5), reset=reset, ops=Counted())
    assert calls.count("matmul") == (2 * T if before else 1 + T)
    assert calls.count("pointwise") == 3 + (2 * T if before else T)
    calls.clear()
    gru_backward(draw(np, (2, T, 5)), cache)
    assert calls.count("matmul") == 2 + (2 * T if before else T)
    assert calls.count("contract") == 2
    assert calls.count("pointwise") == 1 + (4 * T if before else 3 * T)
    calls.clear()
    gru_backward(None, cache, dh_last=draw(np, (2, 5)), with_dx=False)
    assert calls.count("matmul") == (2 * T if before else T)
    assert calls.count("pointwise") == (3 * T if before else 2 * T)


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


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("with_dh", [True, False])
def test_steps_of_a_loop_are_alike(draw, draw_layer, reset, with_dh, name):
    """The same calls on arrays of the same shapes, whose places in memory are evenly spaced."""
    loops = []

    class Watching(PlainOps):
        step = None

        def watch(self, name, *arrays):
            if self.step is not None:
                arrays = [a for a in arrays if hasattr(a, "shape")]
                places = [a.__array_interface__["data"][0] for a in arrays]
                self.step.append((name, [(a.shape, a.strides) for a in arrays], places))

        def loop(self, step, times):
            steps = []
            for t in times:
                self.step = []
                step(t)
                steps.append(self.step)
            self.step = None
            loops.append(steps)

        def matmul(self, a, b, out):
            self.watch("matmul", a, b, out)
            return super().matmul(a, b, out)

        def pointwise(self, body, inputs, out):
            self.watch(body, *inputs, *out)
            super().pointwise(body, inputs, out)

        def copy(self, source, out):
            assert self.step is None
            super().copy(source, out)

        def contract(self, a, b, out, *, add=False):
            assert self.step is None
            super().contract(a, b, out, add=add)

        def empty(self, shape, like):
            assert self.step is None
            return super().empty(shape, like)

    layer, options = draw_layer(3, 6, 2, 5), variant(draw, name, 3, 6, 5)
    (layer if with_dh else layer._replace(dh=None))(Watching(), reset, **options)
    # Spans are run once more before their way back.
    assert [len(steps) for steps in loops] == ([2, 4, 4, 4, 2, 2] if name == "kept every 4th" else [6, 6])
    there, back = (
        ["matmul" if name == "matmul" else "pointwise" for name, *_ in steps[0]] for steps in (loops[0], loops[-1])
    )
    # One kernel after each product, and one to begin the way back with; one more where the loss is on every state.
    forward, backward = (1, 1) if reset == "after" else (2, 2)
    assert there == ["matmul", "pointwise"] * forward
    assert back == ["pointwise"] * with_dh + ["pointwise"] + ["matmul", "pointwise"] * backward
    for steps in loops:
        for calls in zip(*steps, strict=True):
            names, shapes, places = zip(*calls, strict=True)
            assert all(name is names[0] for name in names)
            assert all(shape == shapes[0] for shape in shapes)
            for addresses in zip(*places, strict=True):
                assert len(set(np.diff(addresses))) == 1


def test_any_length_of_blocks_gives_the_same(draw_layer, assert_same_results, reset):
    class Blocks(PlainOps):
        def __init__(self, block):
            self.block = block

        def block_length(self, T, B, H):
            assert (T, B, H) == (6, 3, 5)
            return self.block

    layer = draw_layer(3, 6, 2, 5)
    expected = layer(PLAIN_OPS, reset)
    for block in (1, 2, 3, 5, 6):
        assert_same_results(layer(Blocks(block), reset), expected)


# --- where no ops are given -------------------------------------------------------------------------------------


def test_default_ops_of_numpy_belong_to_the_thread():
    a = np.empty(1)
    own = default_ops(a)
    assert isinstance(own, NumpyOps)
    assert default_ops(np.empty(1, np.float32)) is own
    others = []
    thread = threading.Thread(target=lambda: others.extend([default_ops(a), default_ops(a)]))
    thread.start()
    thread.join()
    assert isinstance(others[0], NumpyOps)
    assert others[0] is others[1] is not own


class Copies:
    """Arrays of two axes whose slices are copies; those of `immutable` libraries take no numbers."""

    def __init__(self, library, numbers):
        self._library, self._numbers, self.dtype = library, numbers, numbers.dtype

    def __array_namespace__(self, api_version=None):
        return self._library

    def __getitem__(self, key):
        return Copies(self._library, self._numbers[key].copy())

    def __setitem__(self, key, value):
        if self._library.immutable:
            raise TypeError("this library has no item assignment")
        self._numbers[key] = value

    def __eq__(self, other):
        return self._numbers == other

    __hash__ = None


@pytest.mark.parametrize("immutable", [False, True])
def test_a_library_whose_slices_are_not_views_is_refused(immutable):
    library = ModuleType("copies")
    library.immutable, library.float32, library.all = immutable, np.float32, np.all
    library.zeros = lambda shape, dtype: Copies(library, np.zeros(shape, dtype))
    with pytest.raises(ShapeError, match="copies") as error:
        default_ops(library.zeros((2, 2), np.float32))
    assert "NumPy" in str(error.value)


def test_new_default_ops_belong_to_nobody():
    a = np.empty(1)
    ops = [default_ops(a), *(default_ops(a, new=True) for _ in range(2)), default_ops(a)]
    assert all(isinstance(each, NumpyOps) for each in ops)
    assert len({id(each) for each in ops[:3]}) == 3
    assert ops[3] is ops[0]


@pytest.mark.parametrize("library", ["array_api_strict", pytest.param("torch", marks=pytest.mark.peer)])
def test_default_ops_of_others_are_plain(library):
    assert default_ops(pytest.importorskip(library).ones(1)) is PLAIN_OPS


def test_fast_paths_are_switched_off_by_the_environment(monkeypatch):
    for value, plain in (("1", True), ("yes", True), ("0", False), ("", False)):
        monkeypatch.setenv("GRU_XP_PLAIN", value)
        assert (default_ops(np.empty(1)) is PLAIN_OPS) == plain, value


def test_the_environment_is_asked_at_every_call(draw_layer, reset, monkeypatch):
    """What is computed with fast paths switched off is what the plain ops compute, bit for bit."""
    layer = draw_layer(3, 6, 2, 5)
    fast = default_ops(layer.x)
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    off, plain = layer(None, reset), layer(PLAIN_OPS, reset)
    assert [a.tolist() for a in off] == [a.tolist() for a in plain]
    monkeypatch.delenv("GRU_XP_PLAIN")
    assert default_ops(layer.x) is fast


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


def test_the_backward_pass_uses_the_ops_that_the_forward_pass_was_given(draw_layer, reset):
    calls = []

    class Counted(PlainOps):
        def contract(self, a, b, out, *, add=False):
            calls.append(a.shape)
            super().contract(a, b, out, add=add)

    layer = draw_layer(3, 4, 2, 5)
    layer(Counted(), reset)
    assert len(calls) == 2
    _, cache = gru_cell_forward(layer.x[:, 0], layer.h0, layer.params_of(reset), ops=Counted())
    gru_cell_backward(layer.dh_last, cache)
    assert len(calls) == 4
