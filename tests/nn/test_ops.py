import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.nn import gru_backward, gru_forward
from gru_xp.nn.ops import PLAIN_OPS, PlainOps


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3)])
def test_empty(xp, dtype, shape):
    like = xp.ones((1,), dtype=getattr(xp, dtype))
    array = PLAIN_OPS.empty(shape, like)
    assert tuple(array.shape) == shape
    assert array.dtype == like.dtype
    assert array_namespace(array) is array_namespace(like)


def test_empty_is_on_the_device():
    strict = pytest.importorskip("array_api_strict")
    like = strict.ones(1, device=strict.Device("device1"))
    assert PLAIN_OPS.empty((2, 3), like).device == like.device


@pytest.mark.parametrize("rows", [(4,), (2, 4), (3, 1)])
def test_matmul_writes_into_out(xp, draw, rows):
    a, b, out = draw(xp, (*rows, 3)), draw(xp, (3, 5)), draw(xp, (*rows, 5))
    assert PLAIN_OPS.matmul(a, b, out) is out
    expected = np.einsum("...k,km->...m", to_host(a), to_host(b))
    np.testing.assert_allclose(to_host(out), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rows", [(4,), (2, 4), (3, 1), (2, 3, 4)])
def test_contract_sums_over_all_axes_but_the_last(xp, draw, rows):
    a, b = draw(xp, (*rows, 3)), draw(xp, (*rows, 5))
    expected = np.einsum("np,nq->pq", to_host(a).reshape(-1, 3), to_host(b).reshape(-1, 5))
    np.testing.assert_allclose(to_host(PLAIN_OPS.contract(a, b)), expected, rtol=1e-12, atol=1e-14)


def test_pointwise_writes_into_parts_of_arrays(xp, draw):
    a, b, whole = draw(xp, (2, 3)), draw(xp, (3,)), draw(xp, (2, 8))
    kept = to_host(whole)[:, :2].tolist()

    def body(xp, a, b):
        return a + b, xp.tanh(a * b)

    PLAIN_OPS.pointwise(body, (a, b), out=(whole[:, 2:5], whole[:, 5:]))
    a, b, whole = to_host(a), to_host(b), to_host(whole)
    np.testing.assert_array_equal(whole[:, 2:5], a + b)
    np.testing.assert_allclose(whole[:, 5:], np.tanh(a * b), rtol=1e-14)
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


def test_the_ops_that_are_given_do_all_the_work(draw, draw_params, reset):
    """A device's own way must reach every product and every pointwise expression of both passes."""
    calls = []

    class Counted(PlainOps):
        def __getattribute__(self, name):
            calls.append(name)
            return super().__getattribute__(name)

    T = 4
    _, _, cache = gru_forward(draw(np, (2, T, 3)), None, draw_params(np, 3, 5), reset=reset, ops=Counted())
    counts = {name: calls.count(name) for name in ("matmul", "pointwise")}
    steps = 2 if reset == "before" else 1
    assert counts == {"matmul": 1 + steps * T, "pointwise": 1 + steps * T}
    calls.clear()
    gru_backward(draw(np, (2, T, 5)), cache)
    assert calls.count("matmul") == 2 + steps * T
    assert calls.count("contract") == (4 if reset == "before" else 3)
    assert calls.count("pointwise") == 1 + (3 if reset == "before" else 2) * T
