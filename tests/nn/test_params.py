import itertools
import math
import random

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.nn import GRUParams, LinearParams, gru_cell_forward, init_gru_params, init_linear_params
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import RESETS, arrays_of, flatten, map_arrays, named_arrays, unflatten


def textbook(params):
    return {name: getattr(params, name) for name in ("Wz", "Wr", "Wh", "bz", "br", "bh")}


# --- the article's names ----------------------------------------------------------------------------------------


def test_sizes(draw_params):
    params = draw_params(np, 2, 5)
    assert (params.input_size, params.hidden_size) == (2, 5)


def test_textbook_names_give_the_gates(xp, draw, draw_params):
    params = draw_params(xp, 2, 5)
    x, h = draw(xp, (1, 2)), draw(xp, (1, 5))
    h_next, _ = gru_cell_forward(x, h, params)
    x, h = to_host(x)[0], to_host(h)[0]
    Wz, Wr, Wh, bz, br, bh = map(to_host, textbook(params).values())
    z = 1.0 / (1.0 + np.exp(-(Wz @ np.concatenate([h, x]) + bz)))
    r = 1.0 / (1.0 + np.exp(-(Wr @ np.concatenate([h, x]) + br)))
    n = np.tanh(Wh @ np.concatenate([r * h, x]) + bh)
    np.testing.assert_allclose(to_host(h_next)[0], (1.0 - z) * h + z * n, rtol=1e-12)


def test_textbook_names_are_the_rows(draw_params):
    params = draw_params(np, 2, 3)
    for gate, name in enumerate("zrh"):
        for row in range(3):
            stacked = 3 * gate + row
            expected = [*params.weight_hh[stacked], *params.weight_ih[stacked]]
            assert getattr(params, f"W{name}")[row].tolist() == expected
            assert getattr(params, f"b{name}")[row] == params.bias[stacked]


def test_textbook_round_trip(xp, draw_params):
    for (n_in, H), reset in itertools.product(((1, 1), (2, 5), (4, 1), (1, 3)), RESETS):
        params = draw_params(xp, n_in, H, reset=reset)
        again = GRUParams.from_textbook(**textbook(params), bias_hn=params.bias_hn)
        assert again.reset == reset
        for (name, array), original in zip(named_arrays(again), arrays_of(params), strict=True):
            assert array_namespace(array) is array_namespace(original)
            np.testing.assert_array_equal(to_host(array), to_host(original), err_msg=name)


def test_textbook_biases_may_be_columns(xp, draw_params):
    params = draw_params(xp, 2, 3)
    parts = textbook(params)
    columns = {name: xp.reshape(array, (3, 1)) if name[0] == "b" else array for name, array in parts.items()}
    again = GRUParams.from_textbook(**columns)
    np.testing.assert_array_equal(to_host(again.bias), to_host(params.bias))
    assert (again.bias_hn, again.reset) == (None, "before")


def test_textbook_weights_are_copied(draw, draw_params):
    params = draw_params(np, 2, 3, reset="after")
    parts = textbook(params) | {"bias_hn": draw(np, (3,))}
    for array in parts.values():
        assert not any(np.shares_memory(array, field) for field in params)
    again = GRUParams.from_textbook(**parts)
    for array in parts.values():
        assert not any(np.shares_memory(array, field) for field in again)


def test_textbook_wrong_shapes(draw_params, refuses):
    parts = textbook(draw_params(np, 2, 3))
    for name, shape, expected in (
        ("Wz", (3,), "(H, H + I)"),
        ("Wz", (3, 3), "(3, 4)"),  # no column is left for the input
        ("Wr", (3, 4), "(3, 5)"),
        ("Wh", (5, 3), "(3, 5)"),
        ("bz", (4,), "(3,)"),
        ("br", (1, 3), "(3, 1)"),
        ("bh", (1,), "(3,)"),
        ("bias_hn", (3, 1), "(3,)"),
    ):
        with refuses(name, "shape", str(shape), expected):
            GRUParams.from_textbook(**parts | {name: np.ones(shape)})


def test_textbook_wrong_kinds(draw_params, misfits, refuses):
    params = draw_params(np, 2, 3, reset="after")
    parts = textbook(params) | {"bias_hn": params.bias_hn}
    for name, expected in (
        ("Wr", "(3, 5)"),
        ("Wh", "(3, 5)"),
        ("bz", "(3,)"),
        ("br", "(3,)"),
        ("bh", "(3,)"),
        ("bias_hn", "(3,)"),
    ):
        for bad, named in misfits(name, parts[name], expected, like="Wz"):
            with refuses(*named):
                GRUParams.from_textbook(**parts | {name: bad})


# --- initial values ---------------------------------------------------------------------------------------------


def test_the_numbers_of_a_seed_never_change(xp):
    """Row by row in the order of the fields, from Python's generator, whose sequence is fixed for all versions."""
    rng = random.Random(7)
    for array, shape in zip(
        init_gru_params(2, 5, reset="after", xp=xp, seed=7, dtype=xp.float64),
        [(15, 2), (15, 5), (15,), (5,)],
        strict=True,
    ):
        expected = [(2.0 * rng.random() - 1.0) / math.sqrt(5) for _ in range(math.prod(shape))]
        np.testing.assert_allclose(to_host(array).reshape(-1), expected, rtol=1e-15)
        assert tuple(array.shape) == shape


def test_both_forms_draw_the_same_numbers():
    """As many of them, too."""
    drawn = random.Random(7)
    init_gru_params(2, 5, reset="after", xp=np, seed=drawn)
    for reset in RESETS:
        rng = random.Random(7)
        params = init_gru_params(2, 5, reset=reset, xp=np, seed=rng)
        assert params.reset == reset
        after = init_gru_params(2, 5, reset="after", xp=np, seed=7)
        assert all(a.tolist() == b.tolist() for a, b in zip(params[:3], after[:3], strict=True))
        assert rng.getstate() == drawn.getstate()
    assert init_gru_params(2, 5, xp=np).reset == "before"


def test_all_namespaces_draw_the_same_numbers(xp):
    expected = (*init_gru_params(2, 5, reset="after", xp=np, seed=3), *init_linear_params(5, 2, xp=np, seed=4))
    options = {"xp": xp, "dtype": xp.float64}
    actual = (*init_gru_params(2, 5, reset="after", seed=3, **options), *init_linear_params(5, 2, seed=4, **options))
    for array, numbers in zip(actual, expected, strict=True):
        assert to_host(array).tolist() == numbers.tolist()


def test_single_precision_is_rounded_double_precision(xp):
    double = init_gru_params(2, 5, reset="after", xp=np, seed=3)
    single = init_gru_params(2, 5, reset="after", xp=xp, seed=3, dtype=xp.float32)
    for array, numbers in zip(single, double, strict=True):
        assert array.dtype == xp.float32
        np.testing.assert_array_equal(to_host(array), numbers.astype(np.float32))


def test_the_seed_matters():
    first, same, other = (flatten(init_gru_params(2, 5, xp=np, seed=seed)) for seed in (1, 1, 2))
    assert first.tolist() == same.tolist()
    assert not np.any(first == other)
    assert np.unique(first).size == first.size
    for init in (init_gru_params, init_linear_params):
        assert flatten(init(2, 5, xp=np)).tolist() == flatten(init(2, 5, xp=np, seed=0)).tolist()


def test_a_generator_is_drawn_from_further():
    rng = random.Random(5)
    first, second = (flatten(init_gru_params(2, 3, xp=np, seed=rng)) for _ in range(2))
    assert first.tolist() == flatten(init_gru_params(2, 3, xp=np, seed=5)).tolist()
    assert not np.any(first == second)


def test_bounds():
    for init, n_in, n_out in ((init_gru_params, 3, 25), (init_linear_params, 25, 60)):
        values = flatten(init(n_in, n_out, xp=np, seed=0))
        bound = 1.0 / math.sqrt(25)  # H, or the inputs of the linear layer
        assert np.all(np.abs(values) <= bound), init
        assert values.max() > 0.98 * bound, init
        assert values.min() < -0.98 * bound, init
        assert abs(values.mean()) < 0.1 * bound, init


def test_linear_shapes():
    params = init_linear_params(4, 2, xp=np)
    assert (params.weight.shape, params.bias.shape) == ((2, 4), (2,))
    assert params.weight.dtype == np.float64


def test_device_is_passed_on():
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    options = {"xp": strict, "device": device}
    for array in (*init_gru_params(2, 3, reset="after", **options), *init_linear_params(2, 3, **options)):
        assert array.device == device


def test_refused_sizes_seeds_and_dtypes(refuses):
    for size in (0, -3, 2.0):
        for init, names in (
            (init_gru_params, ("input_size", "hidden_size")),
            (init_linear_params, ("input_size", "output_size")),
        ):
            for place, name in enumerate(names):
                sizes = [3, 3]
                sizes[place] = size
                with refuses(name, str(size), "whole number", "at least 1", error=ValueError):
                    init(*sizes, xp=np)
    with refuses("reset", "'both'", "'before', 'after'", error=ValueError):
        init_gru_params(2, 3, reset="both", xp=np)
    for init in (init_gru_params, init_linear_params):
        with refuses("seed", "-1", "whole number", "at least 0", error=ValueError):
            init(2, 3, xp=np, seed=-1)
        with refuses("dtype", "int64", "float32 or float64"):
            init(2, 3, xp=np, dtype=np.int64)


# --- one flat vector --------------------------------------------------------------------------------------------


@pytest.fixture(params=[(1, False), (2, True)], ids=["one layer", "two layers in both directions"])
def draw_network_params(request, draw_network):
    """``draw_network_params(xp)``."""
    num_layers, bidirectional = request.param
    return lambda xp: draw_network(
        xp, 2, 3, 2, num_layers=num_layers, bidirectional=bidirectional, reset="after" if bidirectional else "before"
    )


def test_names_and_order(draw_network):
    fields = ["weight_ih", "weight_hh", "bias", "bias_hn"]
    params = draw_network(np, 2, 3, 2)
    names = [*(f"gru.0.0.{name}" for name in fields[:3]), "linear.weight", "linear.bias"]
    assert [name for name, _ in named_arrays(params)] == names
    params = draw_network(np, 2, 3, 2, num_layers=2, bidirectional=True, reset="after")
    names = [f"gru.{where}.{name}" for where in ("0.0", "0.1", "1.0", "1.1") for name in fields]
    assert [name for name, _ in named_arrays(params)] == [*names, "linear.weight", "linear.bias"]
    assert dict(named_arrays(params))["gru.1.0.bias_hn"] is params.gru[1][0].bias_hn
    assert next(named_arrays(params.linear, "top."))[0] == "top.weight"
    assert [name for name, _ in named_arrays(params.gru, "layers.")][4] == "layers.0.1.weight_ih"


def test_parts_of_plain_tuples_are_called_by_their_numbers():
    tree = ("a", ("b", ("c", None), ()), LinearParams("d", ("e", "f")), None)
    names = {"0": "a", "1.0": "b", "1.1.0": "c", "2.weight": "d", "2.bias.0": "e", "2.bias.1": "f"}
    assert dict(named_arrays(tree)) == names
    assert list(named_arrays(())) == []


def test_map_arrays_builds_the_same_tuples(draw_network_params):
    network_params = draw_network_params(np)
    seen = []

    def function(array):
        seen.append(array)
        return len(seen)

    numbers = map_arrays(function, network_params)
    assert type(numbers) is NetworkParams
    assert type(numbers.linear) is LinearParams
    assert type(numbers.gru) is type(numbers.gru[0]) is tuple
    assert {type(params) for layer in numbers.gru for params in layer} == {GRUParams}
    assert [len(layer) for layer in numbers.gru] == [len(layer) for layer in network_params.gru]
    names, arrays = zip(*named_arrays(network_params), strict=True)
    assert all(a is b for a, b in zip(seen, arrays, strict=True))
    assert dict(named_arrays(numbers)) == {name: number for number, name in enumerate(names, 1)}


def test_map_arrays_over_plain_tuples():
    assert map_arrays(str, (1, (2, (3,), ()), LinearParams(4, 5))) == ("1", ("2", ("3",), ()), LinearParams("4", "5"))
    assert map_arrays(str, (None, (1, None))) == (None, ("1", None))
    assert map_arrays(str, ()) == ()


def test_flatten_is_row_by_row_in_order_and_unflatten_the_inverse(xp, draw_network_params, assert_params_close):
    params = draw_network_params(xp)
    flat = flatten(params)
    expected = np.concatenate([to_host(array).reshape(-1) for _, array in named_arrays(params)])
    assert to_host(flat).tolist() == expected.tolist()
    again = unflatten(flat, params)
    assert type(again) is NetworkParams
    assert {type(layer_params) for layer in again.gru for layer_params in layer} == {GRUParams}
    assert type(again.linear) is LinearParams
    assert [len(layer) for layer in again.gru] == [len(layer) for layer in params.gru]
    assert_params_close(again, params, rtol=0.0)
    assert to_host(flatten(again)).tolist() == expected.tolist()


def test_flatten_copies_and_unflatten_does_not(draw_params):
    params = draw_params(np, 2, 3, reset="after")
    flat = flatten(params)
    assert not any(np.shares_memory(flat, array) for array in params)
    again = unflatten(flat, params)
    flat[:] = np.arange(flat.size)
    assert np.concatenate([array.reshape(-1) for array in again]).tolist() == list(range(flat.size))
