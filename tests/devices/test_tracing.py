import numpy as np
import pytest

from gru_xp.devices.tracing import (
    ALL,
    LOOP,
    ONCE,
    JoinedProducts,
    ScaledWeights,
    SumsOfProducts,
    Trace,
    needed,
)


@pytest.fixture
def trace():
    return Trace()


@pytest.fixture
def h(trace):
    return trace.input("carry", 0, (4, 3), LOOP)


@pytest.fixture
def x(trace):
    return trace.input("x", 0, (4, 2), ALL)


@pytest.fixture
def w(trace):
    return trace.input("weight", 0, (6, 3), ONCE)


def test_values_are_written_down_once(trace, h, x, w):
    assert h * 2 is h * 2.0
    assert h * 0.0 is not h * -0.0
    assert h @ w.T is h @ w.T
    assert h[..., 1:][:, :1] is h[:, 1:2]
    assert w.T.T is w
    assert h[..., :3] is h
    assert trace.ones_like(x[:, :1]) is trace.ones_like(h[:, :1])
    assert np.float64(2) * h is 2 * h


def test_what_depends_on_what(trace, h, x, w):
    assert [s.level for s in (w.T, x + w[:1, :2], trace.tanh(x) @ w[:2, :], x[:, :1] * h)] == [ONCE, ALL, ALL, LOOP]
    assert (h @ w.T).shape == (4, 6)
    assert (h > x[:, :1]).shape == (4, 3)
    assert w[1:, None, :].shape == (5, 1, 3)
    assert w[:, 0].shape == (6,)
    assert h[:, 1:].root is h
    assert repr(h) == "<input (4, 3)>"
    last = trace.exp(-h)
    assert [s.op for s in needed(trace.symbols, [last])] == ["input", "negative", "exp"]


def test_rows_are_flat(trace, h, x):
    one = trace.ones_like(x[:, :1])
    row = trace.concat([trace.concat([h, x], axis=-1), one], axis=1)
    assert row.pieces == (h, x, one)
    assert row[:, 3:5] is x
    assert row[..., 3:].pieces == (x, one)
    assert row[..., 1:].op == "slice"
    assert trace.concat([h], axis=1) is h


def test_weights_along_both_axes(trace, w):
    both = trace.concat([w, trace.concat([w, w[:, :1]], axis=1)[:, 1:]], axis=0)
    assert both.shape == (12, 3)
    assert len(both.pieces) == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda xp, h, w: xp.sum(h),
        lambda xp, h, w: h.sum(),
        lambda xp, h, w: h.T,
        lambda xp, h, w: h[0],
        lambda xp, h, w: h[::2, :],
        lambda xp, h, w: w[[0, 1], :],
        lambda xp, h, w: h @ h,
        lambda xp, h, w: h @ np.ones((3, 3)),
        lambda xp, h, w: h + np.ones((4, 3)),
        lambda xp, h, w: h * None,
        lambda xp, h, w: xp.tanh(2.0),
        lambda xp, h, w: xp.where(h, h, 0.0),
        lambda xp, h, w: (h > 0.0) * h,
        lambda xp, h, w: xp.concat([h > 0.0, h], axis=1),
        lambda xp, h, w: xp.concat([h, 1.0], axis=1),
        lambda xp, h, w: xp.concat([], axis=1),
        lambda xp, h, w: xp.concat([h, h], axis=0),
        lambda xp, h, w: h if h > 0.0 else -h,
        lambda xp, h, w: list(h),
    ],
)
def test_what_is_refused(trace, h, w, function):
    with pytest.raises(
        (TypeError, AttributeError), match=r"^a step .*; it may use products a @ w and .*xp.tanh, xp.wh"
    ):
        function(trace, h, w)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda xp, h, w: h @ w, r"shapes \(4, 3\) and \(6, 3\) do not go together in a product"),
        (lambda xp, h, w: h + w, r"shapes \(4, 3\), \(6, 3\) do not go together in add"),
        (lambda xp, h, w: xp.concat([h, w], axis=1), r"shapes \(4, 3\), \(6, 3\) do not go side by side along axis 1"),
        (lambda xp, h, w: xp.concat([w, w], axis=2), "along axis 2"),
    ],
)
def test_shapes_that_do_not_go_together(trace, h, w, function, message):
    with pytest.raises(ValueError, match=message):
        function(trace, h, w)


def ops_of(rewriting, symbol):
    return [s.op for s in needed(rewriting.trace.symbols, [rewriting.of(symbol)])]


def test_numbers_go_into_weights(trace, h, w):
    half = 0.5 * (h @ trace.concat([w[:, :2], w[:, 2:] + 1.0], axis=1).T)
    new = ScaledWeights(trace.symbols, [half])
    assert new.of(half).op == "matmul"
    weights = new.of(half).args[1].args[0]
    assert [p.op for p in weights.pieces] == ["multiply", "multiply"]


def test_numbers_stay_where_products_serve_twice(trace, h, w):
    product = h @ w.T
    for results in ([0.5 * product, product], [0.5 * product + product * product]):
        new = ScaledWeights(needed(trace.symbols, results), results)
        assert "multiply" in ops_of(new, results[0])


def test_products_of_rows_that_contain_each_other_are_joined(trace, h, x):
    one = trace.ones_like(h[:, :1])
    weights = [trace.input("weight", n, (k, k + 1), ONCE) for n, k in enumerate((5, 3, 2))]
    all_three, last, another = weights
    row = trace.concat([x, one, h], axis=1)
    a = row @ all_three.T
    b = trace.concat([one, h], axis=1) @ last.T
    assert row.shape == (4, 6)
    later = trace.concat([one, a[:, :2]], axis=1) @ another.T
    results = [a, b, later]
    apart = JoinedProducts(needed(trace.symbols, results), a)  # what the carry is made of, and what it is not
    assert apart.of(a).root is not apart.of(b).root
    carried = JoinedProducts(needed(trace.symbols, results), None)
    whole = carried.of(a).root
    assert whole.op == "matmul"
    assert carried.of(b).root is whole
    assert whole.shape == (4, 8)
    assert carried.of(later).root is not whole


def test_a_product_of_few_common_columns_stays_apart(trace, h):
    wide = trace.input("x", 1, (4, 50), ALL)
    long, short = trace.input("weight", 0, (9, 53), ONCE), trace.input("weight", 1, (9, 3), ONCE)
    a, b = trace.concat([wide, h], axis=1) @ long.T, h @ short.T
    new = JoinedProducts(needed(trace.symbols, [a, b]), None)
    assert new.of(a).root is not new.of(b).root


def test_one_step_takes_weights_as_they_are(trace):
    h, x = (trace.input("weight", n, (4, k), ONCE) for n, k in enumerate((3, 2)))
    a, b, c = (trace.input("weight", 2 + n, (5, k), ONCE) for n, k in enumerate((3, 2, 1)))
    row = trace.concat([h, x, trace.ones_like(x[:, :1])], axis=1)
    y = row @ trace.concat([a, b, c], axis=1).T
    assert "concat" not in ops_of(SumsOfProducts(trace.symbols), y)
    others = row @ trace.concat([b, a, c], axis=1).T  # blocks that fit no pieces
    assert "concat" in ops_of(SumsOfProducts(trace.symbols), others)
    ones = trace.ones_like(row) @ trace.concat([a, b, c], axis=1).T
    assert "fill" in ops_of(SumsOfProducts(trace.symbols), ones)
