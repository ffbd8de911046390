import random
from itertools import product

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.nn import GRUParams, LinearParams, gradcheck, init_gru_stack_params, init_linear_params
from gru_xp.nn.dropout import DropoutRates
from gru_xp.nn.network import NetworkParams, init_network_params, network_backward, network_forward
from gru_xp.nn.params import arrays_of, flatten, map_arrays, named_arrays
from gru_xp.nn.stack import draw_masks

STACKS = [(1, False), (1, True), (2, False), (3, True)]
LAYERS = pytest.mark.parametrize(("num_layers", "bidirectional"), STACKS)
RATES = DropoutRates(between=0.3, recurrent=0.4, zoneout=0.25)
RESETS = ["before", "after"]
WITH_MASKS = [True, False, False, True] * 2  # for each stack and reset: each of them meets masks and none
SHAPES = {
    "patches": {"T": 6, "I": 2, "patch": 3},
    "filled patches": {"T": 7, "I": 2, "patch": 3},
    "skip": {"T": 4, "I": 1, "skip": 4},
    "both": {"T": 5, "I": 1, "patch": 2, "skip": 5},
    "both, with features": {"T": 5, "I": 3, "patch": 4, "skip": 5},
}
"""Sequences that are cut into patches, and linear skips beside the stack."""
BESIDE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@pytest.fixture
def draw_stacks(draw_network):
    """``draw_stacks(xp, I, H, O, dtype="float64")``: networks of every form, each with where its reset gate acts."""

    def draw_stacks(xp, *sizes):
        for (num_layers, bidirectional), reset in product(STACKS, RESETS):
            yield draw_network(xp, *sizes, num_layers=num_layers, bidirectional=bidirectional, reset=reset), reset

    return draw_stacks


@pytest.fixture
def reference_network(reference_gru):
    """``reference_network(x, params)``: results ``(B, O)`` of a loop over layers and directions."""

    def reference_network(x, params):
        target, k = x[:, :, 0], params.gru[0][0].input_size // x.shape[2]
        while x.shape[1] % k:
            x = np.insert(x, 0, 0.0, axis=1)
        x = np.stack([x[:, start : start + k].reshape(len(x), -1) for start in range(0, x.shape[1], k)], axis=1)
        for layer in params.gru:
            hs = []
            for direction, gru in enumerate(layer):
                x_run = x[:, ::-1] if direction else x
                h0 = np.zeros((x.shape[0], gru.hidden_size))
                hs.append(reference_gru(x_run, h0, *map(to_host, arrays_of(gru))))
            last = np.concatenate([h[:, -1] for h in hs], axis=-1)
            x = np.concatenate([hs[0], *(h[:, ::-1] for h in hs[1:])], axis=-1)
        y = last @ to_host(params.linear.weight).T + to_host(params.linear.bias)
        if params.skip is not None:
            y += np.einsum("bt,ot->bo", target, to_host(params.skip.weight)) + to_host(params.skip.bias)
        return y

    return reference_network


# --- references -------------------------------------------------------------------------------------------------


@pytest.mark.compat
def test_prediction_against_a_loop(xp, draw, draw_stacks, reference_network):
    for params, reset in draw_stacks(xp, 2, 5, 3):
        x = draw(xp, (3, 4, 2))
        y, _ = network_forward(x, params, reset=reset)
        expected = reference_network(to_host(x), params)
        np.testing.assert_allclose(to_host(y), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.compat
@BESIDE
def test_patches_and_skips_against_a_loop(xp, draw, draw_network, reference_network, reset, shape):
    T, I, *_ = shape.values()  # noqa: E741
    x = draw(xp, (3, T, I))
    params = draw_network(xp, I, 4, 2, num_layers=2, bidirectional=True, **dict(list(shape.items())[2:]))
    y, _ = network_forward(x, params, reset=reset)
    np.testing.assert_allclose(to_host(y), reference_network(to_host(x), params), rtol=1e-11, atol=1e-13)


@pytest.mark.peer
@LAYERS
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_parity_with_pytorch(
    draw, draw_network, torch_network, assert_params_close, num_layers, bidirectional, dtype, tolerance
):
    """Results and all gradients; the bidirectional ones of filled patches beside a skip."""
    torch = pytest.importorskip("torch")
    x, dy = draw(np, (4, 7, 3), dtype), draw(np, (4, 2), dtype)
    layers = {"num_layers": num_layers, "bidirectional": bidirectional, "reset": "after"}
    params = draw_network(np, 3, 6, 2, dtype, **layers, **({"patch": 2, "skip": 7} if bidirectional else {}))
    peer = torch_network(params)
    peer_x = torch.tensor(x, requires_grad=True)
    peer_y = peer(peer_x)
    torch.sum(peer_y * torch.asarray(dy)).backward()

    y, cache = network_forward(x, params)
    dx, dparams = network_backward(dy, cache)
    expected = {"y": peer_y.detach().numpy(), "dx": peer_x.grad.numpy()}
    expected |= dict(named_arrays(peer.params(gradients=True)))
    results = {"y": y, "dx": dx, **dict(named_arrays(dparams))}
    assert results.keys() == expected.keys()
    for name, array in results.items():
        assert array.dtype == expected[name].dtype
        atol = tolerance * np.abs(expected[name]).max()
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=atol, err_msg=name)
    assert_params_close(peer.params(), params, rtol=0)


# --- gradients --------------------------------------------------------------------------------------------------


@pytest.mark.compat
@pytest.mark.parametrize(
    ("B", "T", "n_in", "H", "n_out", "num_layers", "bidirectional"),
    [
        (1, 1, 1, 1, 1, 1, False),
        (2, 3, 2, 3, 2, 1, False),
        (3, 2, 1, 2, 1, 1, True),
        (2, 2, 1, 3, 2, 2, False),
        (2, 2, 2, 2, 1, 2, True),
        (1, 2, 1, 2, 3, 3, True),
    ],
)
def test_gradients(draw, draw_network, reset, B, T, n_in, H, n_out, num_layers, bidirectional):
    layers = {"num_layers": num_layers, "bidirectional": bidirectional}
    report = gradcheck(
        lambda x, params: network_forward(x, params, reset=reset),
        network_backward,
        {"x": draw(np, (B, T, n_in)), "params": draw_network(np, n_in, H, n_out, **layers)},
        mode="direction" if num_layers == 3 else "elements",
    )
    assert [row.name for row in report.rows] == [
        "x",
        *(
            f"params.gru.{layer}.{direction}.{name}"
            for layer in range(num_layers)
            for direction in range(1 + bidirectional)
            for name in GRUParams._fields[: 3 + (reset == "after")]
        ),
        "params.linear.weight",
        "params.linear.bias",
    ]
    assert report.ok, report


@pytest.mark.compat
@BESIDE
def test_gradients_of_patches_and_skips(xp, draw, draw_network, reset, shape):
    T, I, *_ = shape.values()  # noqa: E741
    options = dict(list(shape.items())[2:])
    is_numpy = "numpy" in xp.__name__
    layers = {"num_layers": 2, "bidirectional": True} if T % 2 and is_numpy else {}
    params = draw_network(xp, I, 2, 2, **layers, **options)
    masks = draw_masks(params.gru, x := draw(xp, (2, T, I)), RATES, 5)
    report = gradcheck(
        lambda x, params: network_forward(x, params, masks=masks, keep_every=2 if T == 7 else None, reset=reset),
        network_backward,
        {"x": x, "params": params},
        mode="elements" if is_numpy and not layers else "direction",
    )
    assert report.ok, report
    names = [row.name for row in report.rows]
    beside = "skip" if "skip" in options else "linear"
    assert names[-2:] == [f"params.{beside}.weight", f"params.{beside}.bias"]


def test_gradients_with_lengths_and_masks(xp, draw, draw_network):
    for bidirectional, reset in ((False, "before"), (True, "after")):
        num_layers = 1 + (bidirectional and "numpy" in xp.__name__)
        x, params = (
            draw(xp, (3, 3, 1)),
            draw_network(xp, 1, 2, 2, num_layers=num_layers, bidirectional=bidirectional, reset=reset),
        )
        masks = draw_masks(params.gru, x, RATES, 5)
        report = gradcheck(
            lambda x, params: network_forward(x, params, lengths=[1, 2, 0], masks=masks, reset=reset),  # noqa: B023
            network_backward,
            {"x": x, "params": params},
            mode="elements" if "numpy" in xp.__name__ and not bidirectional else "direction",
        )
        assert report.ok, report


def test_the_gradient_of_the_input_can_be_left_out(draw, draw_stacks):
    for params, reset in draw_stacks(np, 2, 5, 2):
        x, dy = draw(np, (3, 4, 2)), draw(np, (3, 2))
        _, cache = network_forward(x, params, reset=reset)
        _, expected = network_backward(dy, cache)
        dx, dparams = network_backward(dy, cache, with_dx=False)
        assert dx is None
        assert flatten(dparams).tolist() == flatten(expected).tolist()


# --- lengths, masks, ops ----------------------------------------------------------------------------------------


def test_lengths_cut_sequences_off(xp, draw, draw_stacks):
    for params, reset in draw_stacks(xp, 2, 5, 3):
        x = draw(xp, (3, 4, 2))
        y, _ = network_forward(x, params, lengths=[3, 1, 4], reset=reset)
        for row, length in enumerate([3, 1, 4]):
            alone, _ = network_forward(x[row : row + 1, :length, :], params, reset=reset)
            np.testing.assert_allclose(to_host(y)[row], to_host(alone)[0], rtol=1e-11, atol=1e-13)


def test_masks_of_ones_change_nothing_and_others_do(draw, draw_network, reset):
    x, params = draw(np, (3, 4, 2)), draw_network(np, 2, 5, 3, num_layers=2, bidirectional=True)
    masks = draw_masks(params.gru, x, RATES, 5)
    whole, _ = network_forward(x, params, reset=reset)
    ones = map_arrays(lambda mask: None if mask is None else np.ones_like(mask), masks)
    same, _ = network_forward(x, params, masks=ones, reset=reset)
    np.testing.assert_allclose(same, whole, rtol=1e-13)
    for name in masks._fields:
        other, _ = network_forward(x, params, masks=ones._replace(**{name: getattr(masks, name)}), reset=reset)
        assert (np.abs(other - whole) > 1e-3).any(axis=1).all(), name


def test_any_ops_give_the_same(draw, draw_stacks, make_numpy_ops, some, assert_params_close):
    for (params, reset), with_masks in some(zip(draw_stacks(np, 2, 4, 3), WITH_MASKS, strict=True)):
        x, dy = draw(np, (7, 5, 2)), draw(np, (7, 3))
        masks = draw_masks(params.gru, x, RATES, 1)
        options = {"lengths": [5, 0, 3, 1, 5, 2, 4], "masks": masks} if with_masks else {}
        results = []
        for ops in (PLAIN_OPS, make_numpy_ops(), None):
            y, cache = network_forward(x, params, reset=reset, ops=ops, **options)
            results.append((y, *network_backward(dy, cache)))
            predicted, no_cache = network_forward(x, params, reset=reset, ops=ops, with_cache=False, **options)
            assert no_cache is None
            np.testing.assert_allclose(predicted, y, rtol=1e-12, atol=1e-14)
        (y, dx, dparams), *others = results
        for other_y, other_dx, other_dparams in others:
            np.testing.assert_allclose(other_y, y, rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(other_dx, dx, rtol=1e-10, atol=1e-12)
            assert_params_close(other_dparams, dparams, rtol=1e-10, atol=1e-12)


def test_states_that_are_computed_again(xp, draw, draw_stacks):
    """The same results and gradients, with masks and lengths."""
    stacks = list(draw_stacks(xp, 2, 4, 2))
    every = [(1, 5), (2, 8), (5, 2), (8, 1)] * 2
    if "numpy" not in xp.__name__:  # slower, so less of each
        stacks, every = [stacks[number] for number in (0, 3, 4, 7)], [(1,), (2, 8), (5,), (2,)]
    for (params, reset), numbers in zip(stacks, every, strict=True):
        x, dy = draw(xp, (3, 7, 2)), draw(xp, (3, 2))
        options = {"lengths": [7, 0, 4], "masks": draw_masks(params.gru, x, RATES, 5), "reset": reset}
        y, cache = network_forward(x, params, **options)
        expected = list(named_arrays((y, network_backward(dy, cache))))
        for keep_every in numbers:
            y, cache = network_forward(x, params, keep_every=keep_every, **options)
            for (name, array), (_, other) in zip(expected, named_arrays((y, network_backward(dy, cache))), strict=True):
                np.testing.assert_allclose(to_host(other), to_host(array), rtol=1e-10, atol=1e-13, err_msg=name)


def test_the_ops_that_are_given_do_all_the_work(draw, draw_stacks, guarded_ops, guard):
    """Nothing else computes, forward or back, and the results are those without a guard."""
    for (params, reset), with_masks in zip(draw_stacks(np, 2, 4, 3), WITH_MASKS, strict=True):
        x, dy = draw(np, (7, 5, 2)), draw(np, (7, 3))
        masks = draw_masks(params.gru, x, RATES, 1) if with_masks else None
        y, cache = network_forward(x, params, masks=masks, reset=reset, ops=PLAIN_OPS)
        expected = (y, *network_backward(dy, cache))
        guarded_masks = masks and guard(masks)
        y, cache = network_forward(guard(x), guard(params), masks=guarded_masks, reset=reset, ops=guarded_ops)
        results = (y, *network_backward(guard(dy), cache))
        for (name, actual), (_, desired) in zip(named_arrays(results), named_arrays(expected), strict=True):
            assert np.asarray(actual).tolist() == desired.tolist(), name


# --- compiled, and lazily ---------------------------------------------------------------------------------------


@pytest.mark.peer
def test_jax(jax, draw, draw_network, reset):
    """The gradient of JAX's own, and ours, compiled; of whole sequences in patches, beside a skip, or of others."""
    options = {"lengths": [5, 0, 3]} if reset == "before" else {}
    beside = {} if options else {"patch": 2, "skip": 5}
    params = draw_network(np, 2, 4, 3, num_layers=2, bidirectional=True, reset=reset, **beside)
    x, dy = draw(np, (3, 5, 2)), draw(np, (3, 3))
    options |= {"masks": draw_masks(params.gru, x, RATES, 1)}
    y, cache = network_forward(x, params, **options)
    expected = (y, *network_backward(dy, cache))
    x, dy, params, masks = map_arrays(jax.numpy.asarray, (x, dy, params, options["masks"]))

    def ours(x, params, masks):
        y, cache = network_forward(x, params, **(options | {"masks": masks}))
        return (y, *network_backward(dy, cache))

    def loss(x, params):
        return (dy * network_forward(x, params, **(options | {"masks": masks}))[0]).sum()

    results, theirs = jax.jit(ours)(x, params, masks), jax.jit(jax.grad(loss, argnums=(0, 1)))(x, params)
    for actual in (results, (expected[0], *theirs)):
        for a, desired in zip(arrays_of(actual), arrays_of(expected), strict=True):
            np.testing.assert_allclose(a, desired, rtol=1e-10, atol=1e-13)


@pytest.mark.peer
def test_dask(draw, draw_network, reset):
    dask = pytest.importorskip("dask")
    from dask.array import from_array

    params = draw_network(np, 2, 4, 3, num_layers=2, bidirectional=True, reset=reset)
    x, dy = draw(np, (3, 5, 2)), draw(np, (3, 3))

    def both(x, dy, params):
        y, cache = network_forward(x, params, lengths=[5, 0, 3])
        return (y, *network_backward(dy, cache))

    lazy = both(*map_arrays(lambda array: from_array(array, chunks=2), (x, dy, params)))
    actual = dask.compute(*arrays_of(lazy), scheduler="synchronous")
    for a, desired in zip(actual, arrays_of(both(x, dy, params)), strict=True):
        np.testing.assert_allclose(a, desired, rtol=1e-10, atol=1e-13)


# --- arrays -----------------------------------------------------------------------------------------------------


def test_namespace_dtype_and_shapes(xp, draw, draw_stacks):
    for dtype, number in (("float32", 0), ("float64", 1)):
        for params, reset in list(draw_stacks(xp, 2, 5, 3, dtype))[number::2]:
            x = draw(xp, (3, 4, 2), dtype)
            y, cache = network_forward(x, params, reset=reset)
            dx, dparams = network_backward(draw(xp, (3, 3), dtype), cache)
            results = {"y": y, "dx": dx, **dict(named_arrays(dparams))}
            shapes = {"y": (3, 3), "dx": (3, 4, 2), **{name: tuple(a.shape) for name, a in named_arrays(params)}}
            assert {name: tuple(array.shape) for name, array in results.items()} == shapes
            assert {array_namespace(array) for array in results.values()} == {array_namespace(x)}
            assert all(array.dtype == getattr(xp, dtype) for array in results.values())


def test_wrong_arguments(draw, draw_network, refuses):
    x, params = draw(np, (3, 4, 2)), draw_network(np, 2, 5, 3)
    too_wide = params._replace(linear=LinearParams(draw(np, (3, 6)), draw(np, (3,))))
    for arguments, first, *parts in (
        ((x[0], params), "x", "shape (4, 2)", "(B, T, I)"),
        ((x, too_wide), "params.weight", "shape (3, 6)", "(O, 5)"),
        ((x, tuple(params)), "params", "is a tuple", "a NetworkParams"),
    ):
        with refuses(first, *parts):
            network_forward(*arguments)
    beside = draw_network(np, 2, 5, 3, skip=3)
    for wrong, *parts in (
        (beside, "params.skip.weight", "(3, 3)", "(3, 4), from each row of x to each result"),
        (params._replace(skip=params.linear.weight), "params.skip", "is a ndarray", "a LinearParams"),
        (draw_network(np, 2, 5, 3, patch=5), "layers[0][0].weight_ih", "shape (15, 10)", "(15, 2)"),
    ):
        with refuses(*parts):
            network_forward(x, wrong)
    for whole, what in ((draw_network(np, 2, 5, 3, skip=4), "a skip"), (draw_network(np, 2, 5, 3, patch=3), "3 rows")):
        with refuses("lengths", what, "leave out lengths", error=ValueError):
            network_forward(x, whole, lengths=[4, 3, 4])
    with refuses("keep_every", "0", "whole number", "at least 1", error=ValueError):
        network_forward(x, params, keep_every=0)
    with refuses("reset is 'after'", "must be 'before'", "leave out reset", "form 'after'", error=ValueError):
        network_forward(x, params, reset="after")
    with refuses("ops", "str", "a Scan, such as PlainScan(xp), or None", error=ValueError):
        network_forward(x, params, ops="x")
    _, cache = network_forward(x, params)
    with refuses("with_dx", "None", "True or False", error=ValueError):
        network_backward(draw(np, (3, 3)), cache, with_dx=None)
    with refuses("dy", "shape (3, 1)", "(3, 3)"):
        network_backward(draw(np, (3, 1)), cache)


def test_layers_that_do_not_go_together(draw, draw_params, draw_network, refuses):
    x, params = draw(np, (3, 4, 2)), draw_network(np, 2, 5, 3, num_layers=2)
    (first,), (second,) = params.gru
    for gru, place, *parts in (
        (first, "layers", "is a GRUParams", "tuple of layers", "tuple of GRUParams"),
        ((), "layers", "is a tuple", "tuple of layers", "tuple of GRUParams"),
        ((first, second), "layers", "one GRUParams", "each of two"),
        (((first,), (second, second)), "layers", "one GRUParams", "each of two"),
        (((second,), (second,)), "layers[0][0].weight_ih", "shape (15, 5)", "(15, 2)"),
        (((first,), (first,)), "layers[1][0].weight_ih", "shape (15, 2)", "(15, 5)"),
        (((first,), (draw_params(np, 5, 4),)), "layers[1][0].weight_hh", "shape (12, 4)", "(15, 5)"),
        (
            ((first,), (draw_params(np, 5, 5, reset="after"),)),
            "layers[1][0]",
            "'after'",
            "'before'",
            "layers[0][0]",
            "same reset",
        ),
    ):
        with refuses(place, *parts):
            network_forward(x, params._replace(gru=gru))


# --- initial values ---------------------------------------------------------------------------------------------


def test_initial_values_are_drawn_layer_by_layer(xp):
    for num_layers, bidirectional in STACKS:
        layers = {"num_layers": num_layers, "bidirectional": bidirectional}
        params = init_network_params(2, 5, 3, **layers, xp=xp, seed=11, dtype=xp.float64)
        rng = random.Random(11)
        gru = init_gru_stack_params(2, 5, **layers, xp=np, seed=rng)
        expected = NetworkParams(gru, init_linear_params(10 if bidirectional else 5, 3, xp=np, seed=rng))
        assert [name for name, _ in named_arrays(params)] == [name for name, _ in named_arrays(expected)]
        for (name, array), (_, numbers) in zip(named_arrays(params), named_arrays(expected), strict=True):
            assert to_host(array).tolist() == numbers.tolist(), (name, layers)


def test_a_network_of_one_layer_keeps_its_initial_values():
    """A seed's numbers, as they were before there were more layers."""
    params = init_network_params(2, 5, 3, xp=np, seed=11)
    rng = random.Random(11)
    expected = [(2.0 * rng.random() - 1.0) / np.sqrt(5) for _ in range(30)]
    np.testing.assert_allclose(params.gru[0][0].weight_ih.reshape(-1), expected, rtol=1e-15)
    deeper = init_network_params(2, 5, 3, num_layers=2, xp=np, seed=11)
    assert flatten(deeper.gru[0]).tolist() == flatten(params.gru[0]).tolist()


def test_initial_values_of_patches_skips_and_heads_of_zeros(xp):
    """The stack's numbers do not depend on what is beside it."""
    options = {"num_layers": 2, "xp": xp, "seed": 3, "dtype": xp.float64}
    params = init_network_params(2, 5, 3, patch_size=4, skip_length=7, zero_head=True, **options)
    plain = init_network_params(8, 5, 3, **options)
    assert to_host(flatten(params.gru)).tolist() == to_host(flatten(plain.gru)).tolist()
    assert [tuple(a.shape) for a in arrays_of((params.linear, params.skip))] == [(3, 5), (3,), (3, 7), (3,)]
    y, _ = network_forward(xp.ones((2, 7, 2), dtype=xp.float64), params)
    assert to_host(y).tolist() == [[0.0] * 3] * 2
    assert init_network_params(8, 5, 3, skip_length=2, **options).linear.weight[0, 0] == plain.linear.weight[0, 0]


def test_a_network_has_one_layer_in_one_direction_and_seed_0_if_nothing_is_said():
    params = init_network_params(2, 5, 3, xp=np)
    assert [len(layer) for layer in params.gru] == [1]
    assert flatten(params).tolist() == flatten(init_network_params(2, 5, 3, xp=np, seed=0)).tolist()


def test_initial_values_depend_on_the_seed():
    first, same, other = (flatten(init_network_params(2, 5, 3, xp=np, seed=seed)) for seed in (1, 1, 2))
    assert first.tolist() == same.tolist()
    assert not np.any(first == other)


def test_the_number_of_layers_and_the_seed_are_checked(refuses):
    for name, values, least in (("num_layers", (0, -1, 1.5, True), 1), ("seed", (-1, 1.5, "x", None), 0)):
        for value in values:
            with refuses(name, repr(value), "whole number", f"at least {least}", error=ValueError):
                init_network_params(2, 5, 3, **{name: value}, xp=np)
