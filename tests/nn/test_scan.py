from types import ModuleType

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.errors import ArgumentError, ShapeError
from gru_xp.nn import gru_backward, gru_cell_backward, gru_cell_forward, gru_forward, gru_step, scan
from gru_xp.nn.ops import PLAIN_OPS
from gru_xp.nn.params import GRUParams, arrays_of, map_arrays
from gru_xp.nn.scan import PlainScan, scan_of


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("GRU_XP_PLAIN", raising=False)


def decay(xp, weights, carry, xs, rows):
    """A step with what a step may have: weights in tuples, numbers, None, rows, several results and pairs."""
    (weight, factor), nothing = weights
    (x, missing), (row,) = xs, rows
    assert nothing is missing is None
    joint = xp.concat([x, xp.ones_like(x[:, :1])], axis=1)
    change = factor * xp.tanh(joint @ weight.T) + row
    carry = carry + change
    return carry, (change, joint), ((change, x), (carry, joint))


def arguments(draw, xp):
    """Weights, carry, xs and rows: B = 3, T = 4, x of 2, states of 5."""
    weights = (draw(xp, (5, 3)), 0.75), None
    return weights, draw(xp, (3, 5)), (draw(xp, (4, 3, 2)), None), (draw(xp, (3, 5)),)


def by_hand(weights, carry, xs, rows, reverse):
    ((weight, factor), _), (x, _), (row,) = weights, xs, rows
    changes, joints = np.empty((4, 3, 5)), np.concatenate([x, np.ones((4, 3, 1))], axis=2)
    sums = np.zeros((5, 2)), np.zeros((5, 3))
    for t in range(3, -1, -1) if reverse else range(4):
        changes[t] = factor * np.tanh(joints[t] @ weight.T) + row
        carry = carry + changes[t]
        sums = sums[0] + changes[t].T @ x[t], sums[1] + carry.T @ joints[t]
    return carry, (changes, joints), sums


# --- the plain scan ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_plain(xp, draw, reverse):
    weights, carry, xs, rows = arguments(draw, xp)
    results = PlainScan(xp).scan(decay, weights, carry, xs, rows=rows, reverse=reverse)
    host = map_arrays(lambda a: to_host(a) if hasattr(a, "shape") else a, (weights, carry, xs, rows))
    expected = by_hand(*host, reverse)
    assert map_arrays(lambda a: tuple(a.shape), results) == map_arrays(lambda a: a.shape, expected)
    for actual, desired in zip(arrays_of(results), arrays_of(expected), strict=True):
        assert array_namespace(actual) is xp
        np.testing.assert_allclose(to_host(actual), desired, rtol=1e-13, atol=1e-14)


def test_plain_without_results_carry_or_pairs(draw):
    def last(xp, weights, carry, xs, rows):
        return xs[1], (), ()

    x = draw(np, (4, 3, 2))
    carry, ys, sums = PlainScan(np).scan(last, None, None, (None, x))
    assert (carry.tolist(), ys, sums) == (x[-1].tolist(), (), ())
    assert PlainScan(np).scan(last, None, None, (None, x), reverse=True)[0].tolist() == x[0].tolist()


def test_plain_call(xp, draw):
    def function(given, a, weights):
        assert given is xp
        return (a @ weights[0].T, None), weights[1]

    a, weight = draw(xp, (3, 2)), draw(xp, (5, 2))
    (product, nothing), number = PlainScan(xp).call(function, a, (weight, 2.5))
    assert (nothing, number) == (None, 2.5)
    np.testing.assert_allclose(to_host(product), to_host(a) @ to_host(weight).T, rtol=1e-14)


@pytest.mark.peer
@pytest.mark.parametrize("reverse", [False, True])
def test_jax(jax, draw, reverse):
    """As it is, and as a part of a traced function."""
    from gru_xp.devices.jax_scan import JaxScan

    given, own = arguments(draw, jax.numpy), JaxScan()

    def run(weights, carry, xs, rows):
        return own.scan(decay, weights, carry, xs, rows=rows, reverse=reverse)

    *arrays, rows = given
    expected = PlainScan(jax.numpy).scan(decay, *arrays, rows=rows, reverse=reverse)
    for results in (run(*given), jax.jit(run)(*given)):
        for actual, desired in zip(arrays_of(results), arrays_of(expected), strict=True):
            np.testing.assert_allclose(actual, desired, rtol=1e-13, atol=1e-14)
    assert own.call(lambda xp, a, b: (xp.tanh(a), None), given[1], None)[1] is None


# --- which scan it is -------------------------------------------------------------------------------------------


class Counted(PlainScan):
    """Counts what it is asked for."""

    def __init__(self, xp):
        super().__init__(xp)
        self.scans = self.calls = 0

    def scan(self, *arguments, **options):
        self.scans += 1
        return super().scan(*arguments, **options)

    def call(self, *arguments):
        self.calls += 1
        return super().call(*arguments)


def test_the_given_scan_is_used(draw, draw_params, reset):
    x, h, params = draw(np, (2, 3)), draw(np, (2, 5)), draw_params(np, 3, 5)
    counted = Counted(np)
    gru_step(x, h, params, ops=counted)
    _, cache = gru_cell_forward(x, h, params, ops=counted)
    assert (counted.scans, counted.calls) == (0, 2)
    gru_cell_backward(h, cache)
    assert counted.scans == 1
    _, _, cache = gru_forward(x[:, None], h, params, ops=counted)
    gru_backward(h[:, None], cache)
    assert counted.scans == 3


def test_ops_without_a_scan_run_the_plain_one(monkeypatch):
    """So do those that are known for a namespace, until they have one."""
    for ops in (PLAIN_OPS, PlainScan(np)):
        assert isinstance(scan_of(np.ones(1), ops), PlainScan)

    class Own(PlainScan):
        """A device's."""

    own = Own(np)
    assert scan_of(np.ones(1), own) is own
    monkeypatch.setattr(scan, "fastest_ops", lambda name, new: {"numpy": own}.get(name))
    assert scan_of(np.ones(1)) is own
    monkeypatch.setattr(scan, "fastest_ops", lambda name, new: PLAIN_OPS)
    assert type(scan_of(np.ones(1))) is PlainScan


def test_the_environment_switches_to_the_plain_scan(monkeypatch):
    fast = Counted(np)
    monkeypatch.setattr(scan, "fastest_ops", lambda name, new: fast)
    for value, plain in (("1", True), ("yes", True), ("0", False), ("", False)):
        monkeypatch.setenv("GRU_XP_PLAIN", value)
        assert (scan_of(np.ones(1)) is not fast) == plain, value


@pytest.mark.peer
def test_jax_has_its_own(jax, monkeypatch):
    from gru_xp.devices.jax_scan import JaxScan

    assert isinstance(scan_of(jax.numpy.ones(1)), JaxScan)
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    assert type(scan_of(jax.numpy.ones(1))) is PlainScan


@pytest.mark.parametrize("library", ["array_api_strict", pytest.param("torch", marks=pytest.mark.peer)])
def test_the_scan_of_others_is_plain(library):
    assert type(scan_of(pytest.importorskip(library).ones(1))) is PlainScan


def test_what_is_no_scan():
    for ops in ("x", 0, NumpyOps):
        with pytest.raises(ArgumentError, match=f"^ops is a {type(ops).__name__}; it must be an Ops, such as PlainOps"):
            scan_of(np.ones(1), ops)


class Numbers:
    """Arrays of a library that has little of what a step needs."""

    def __init__(self, library):
        self._library = library

    def __array_namespace__(self, api_version=None):
        return self._library


def test_a_library_that_cannot_run_a_step_is_refused_by_name():
    library = ModuleType("abacus")
    library.float32, library.ones = np.float32, np.ones
    for ops in (None, PLAIN_OPS):
        with pytest.raises(ShapeError, match=r"^the arrays have namespace abacus, which .* convert them to NumPy"):
            scan_of(Numbers(library), ops)


def test_parameters_pass_through_a_call(draw_params):
    """A named tuple stays what it is, with its None."""
    params = draw_params(np, 3, 5)
    (same,) = PlainScan(np).call(lambda xp, p: (p,), params)
    assert isinstance(same, GRUParams)
    assert same.bias_hn is None
