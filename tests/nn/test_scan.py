import subprocess
import sys
import threading
from types import ModuleType

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.devices.cupy_ops import CupyOps
from gru_xp.devices.numpy_ops import NumpyOps
from gru_xp.errors import ArgumentError, ShapeError
from gru_xp.nn import gru_backward, gru_cell_backward, gru_cell_forward, gru_forward, gru_step, scan
from gru_xp.nn.params import GRUParams, arrays_of, map_arrays
from gru_xp.nn.scan import PlainScan, device_scan, scan_of


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


def test_the_scan_of_a_device_is_used(monkeypatch):
    class Own(PlainScan):
        """A device's."""

    own = Own(np)
    assert scan_of(np.ones(1), own) is own
    monkeypatch.setattr(scan, "device_scan", lambda name, new: {"numpy": own}.get(name))
    assert scan_of(np.ones(1)) is own
    monkeypatch.setattr(scan, "device_scan", lambda name, new: None)
    assert type(scan_of(np.ones(1))) is PlainScan


def test_each_thread_has_its_own():
    """Unless new ones are asked for; CuPy's need no CuPy until they compute."""
    for name, kind in (("numpy", NumpyOps), ("cupy", CupyOps)):
        assert isinstance(device_scan(name), kind)
        assert device_scan(name) is device_scan(name)
        assert isinstance(device_scan(name, new=True), kind)
        assert device_scan(name, new=True) not in (device_scan(name), device_scan(name, new=True))
    assert scan_of(np.ones(1)) is device_scan("numpy")
    others = []
    thread = threading.Thread(target=lambda: others.extend(scan_of(np.ones(1, dtype)) for dtype in ("f4", "f8")))
    thread.start()
    thread.join()
    assert isinstance(others[0], NumpyOps)
    assert others[0] is others[1] is not device_scan("numpy")


def test_namespaces_that_no_device_has():
    for name in ("torch", "array_api_strict", "dask.array", "array_api_compat.numpy", ""):
        assert device_scan(name) is None, name
        assert device_scan(name, new=True) is None, name


@pytest.mark.parametrize(("plain", "imported"), [("", True), ("1", False)])
def test_devices_are_imported_when_they_are_needed(plain, imported):
    code = f"""
import os, sys
os.environ["GRU_XP_PLAIN"] = "{plain}"
import numpy as np
from gru_xp.nn import gru_forward, init_gru_params
assert "gru_xp.devices" not in sys.modules
gru_forward(np.ones((2, 3, 4)), None, init_gru_params(4, 5, xp=np, seed=1))
print(*sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert ("gru_xp.devices.numpy_ops" in out) == imported
    assert not {"cupy", "torch", "pandas"} & set(out)


def test_the_environment_switches_to_the_plain_scan(monkeypatch):
    fast = Counted(np)
    monkeypatch.setattr(scan, "device_scan", lambda name, new: fast)
    for value, plain in (("1", True), ("yes", True), ("0", False), ("", False)):
        monkeypatch.setenv("GRU_XP_PLAIN", value)
        assert (scan_of(np.ones(1)) is not fast) == plain, value


@pytest.mark.peer
def test_jax_has_its_own(jax, monkeypatch):
    from gru_xp.devices.jax_scan import JaxScan

    assert isinstance(scan_of(jax.numpy.ones(1)), JaxScan)
    assert scan_of(jax.numpy.ones(1)) is scan_of(jax.numpy.ones(2))
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    assert type(scan_of(jax.numpy.ones(1))) is PlainScan


@pytest.mark.parametrize("library", ["array_api_strict", pytest.param("torch", marks=pytest.mark.peer)])
def test_the_scan_of_others_is_plain(library):
    assert type(scan_of(pytest.importorskip(library).ones(1))) is PlainScan


def test_what_is_no_scan():
    for ops in ("x", 0, NumpyOps):
        with pytest.raises(ArgumentError, match=f"^ops is a {type(ops).__name__}; it must be a Scan, such as"):
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
    with pytest.raises(ShapeError, match=r"^the arrays have namespace abacus, which .* convert them to NumPy"):
        scan_of(Numbers(library))


def test_parameters_pass_through_a_call(draw_params):
    """A named tuple stays what it is, with its None."""
    params = draw_params(np, 3, 5)
    (same,) = PlainScan(np).call(lambda xp, p: (p,), params)
    assert isinstance(same, GRUParams)
    assert same.bias_hn is None


# --- checked once -----------------------------------------------------------------------------------------------


def total(xp, x, weights):
    return (x @ weights[0].T,)


def test_calls_of_a_known_kind_are_not_checked_again(xp, draw, monkeypatch):
    monkeypatch.setattr(scan, "_calls", scan.Known())
    checked = []
    for n in (2, 3, 2, 3, 2):
        x, weights = draw(xp, (n, 4)), (draw(xp, (5, 4)), None)
        (found,) = scan.checked_call(total, (x, weights), lambda *a: checked.append(a), (n, "x"))
        np.testing.assert_allclose(to_host(found), to_host(x) @ to_host(weights[0]).T, rtol=1e-12)
    assert [(tuple(a[0].shape), *a[2:]) for a in checked] == [((2, 4), 2, "x"), ((3, 4), 3, "x")]


def test_given_ops_and_plain_ones_are_always_checked(draw, monkeypatch):
    checked, arguments = [], (draw(np, (2, 4)), (draw(np, (5, 4)),))
    for _ in range(3):
        scan.checked_call(total, arguments, lambda *_: checked.append(1), ops=NumpyOps())
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    scan.checked_call(total, arguments, lambda *_: checked.append(1))
    assert len(checked) == 4


def test_kinds_differ_by_all_that_is_checked(draw):
    strict = pytest.importorskip("array_api_strict")
    a = np.zeros((2, 3))
    different = [
        (a,),
        (np.zeros((3, 2)),),
        (a.astype("float32"),),
        (a.astype(">f8"),),
        (np.ma.array(a),),
        (strict.asarray(a),),
        (None,),
        ((a,),),
        ((a, None),),
        (a, None),
        (GRUParams(a, None, None),),
        (True,),
        (1,),
        (1.0,),
        ("1",),
        (0.0,),
        (-0.0,),
    ]
    assert len({scan.kind_of(arguments)[0] for arguments in different}) == len(different)
    kind, arrays = scan.kind_of((a, GRUParams(a, None, a), "x"))
    assert kind == scan.kind_of((a + 1, GRUParams(a, None, a), "x"))[0]
    assert [id(b) for b in arrays] == [id(a)] * 3
    assert scan.kind_of((a, [a]))[0] is None


def test_kinds_that_are_known_are_bounded():
    known = scan.Known()
    for n in range(3 * scan.MAX_KNOWN):
        known.add((n,), n)
        assert known.get((n,)) == n
    known.add(None, 1)
    assert known.get(None) is None
    assert len(known._known) <= scan.MAX_KNOWN


def test_what_was_right_once_makes_nothing_else_right(draw, draw_params, refuses, reset):
    x, h, params = draw(np, (2, 3)), draw(np, (2, 4)), draw_params(np, 3, 4)
    strict = pytest.importorskip("array_api_strict")
    other = "after" if params.reset == "before" else "before"
    for _ in range(3):
        for call in (gru_step, gru_cell_forward):
            call(x, h, params)
            call(x, h, params, reset=params.reset)
            for wrong, word in (
                ((x[:, :2], h, params), "params.weight_ih"),
                ((x.astype("float32"), h, params), "params.weight_hh"),
                ((x, h.astype("float32"), params), "h" if call is gru_step else "h_prev"),
                ((x, h[:1], params), "h" if call is gru_step else "h_prev"),
                ((x.tolist(), h, params), "x"),
                ((x, strict.asarray(h), params), "h" if call is gru_step else "h_prev"),
                ((x, h, tuple(params)), "params"),
                ((x, h, params._replace(bias=params.bias[:, None])), "params.bias"),
            ):
                with pytest.raises(ShapeError, match=rf"^{word} "):
                    call(*wrong)
            for form in (other, "never", ["before"]):
                with pytest.raises(ArgumentError, match=r"^reset "):
                    call(x, h, params, reset=form)
