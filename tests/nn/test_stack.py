import math
import random
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from array_api_compat import array_namespace

from gru_xp.devices import to_host
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.errors import ShapeError
from gru_xp.nn import (
    GRUParams,
    dropout_mask,
    gradcheck,
    gru_backward,
    gru_forward,
    gru_stack_backward,
    gru_stack_forward,
    gru_stack_step,
    init_gru_params,
    init_gru_stack_params,
)
from gru_xp.nn.dropout import DropoutRates, keep_mask
from gru_xp.nn.gru import batch_first
from gru_xp.nn.params import arrays_of, map_arrays, named_arrays
from gru_xp.nn.stack import StackMasks, back_through_layers, draw_masks, mean_masks, run_layers

B, T, IN, H = 3, 4, 2, 3
LENGTHS = [2, 0, 4]
EVERYTHING = {"dropout": 0.4, "recurrent_dropout": 0.3, "zoneout": 0.35, "seed": 5, "lengths": LENGTHS, "keep_every": 3}
SETTINGS = {
    "as it is": {},
    "lengths": {"lengths": LENGTHS},
    "dropout": {"dropout": 0.5, "seed": 1},
    "recurrent dropout": {"recurrent_dropout": 0.4, "seed": 2},
    "zoneout": {"zoneout": 0.4, "seed": 3},
    "all but a seed": EVERYTHING | {"seed": None},
    "everything": EVERYTHING,
}

LAYERS = pytest.mark.parametrize("L", [1, 2, 3])
DIRECTIONS = pytest.mark.parametrize("D", [1, 2])
EACH_SETTING = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)

RESETS = ["before", "after"]
STACKS = [(1, 1, "before"), (1, 2, "after"), (2, 1, "after"), (2, 2, "before"), (3, 1, "before"), (3, 2, "after")]
"""Numbers of layers and of directions, and where the reset gate acts; any two choices meet."""


@pytest.fixture(params=["pairs", pytest.param("all", marks=pytest.mark.slow)])
def stacks(request):
    """The stacks for a test to loop over."""
    return STACKS if request.param == "pairs" else list(product([1, 2, 3], [1, 2], RESETS))


class Call(NamedTuple):
    """Arguments of `gru_stack_forward` and `gru_stack_backward`."""

    x: Any
    h0: Any
    layers: Any
    dh: Any
    dh_last: Any

    def __call__(self, **options: Any) -> tuple[Any, ...]:
        """All results: h, h_last, dx, dh0, dlayers."""
        h, h_last, cache = gru_stack_forward(self.x, self.h0, self.layers, **options)
        return h, h_last, *gru_stack_backward(self.dh, cache, dh_last=self.dh_last)

    def to(self, xp: Any, dtype: str = "float64") -> "Call":
        """The same call in another namespace or dtype."""
        return map_arrays(lambda array: xp.asarray(array, dtype=getattr(xp, dtype), copy=True), self)


@pytest.fixture
def draw_call(draw, draw_params):
    """``draw_call(L, D, sizes=(B, T, IN, H))``: random arguments of NumPy; further options are `draw_params`'."""

    def draw_call(L, D, sizes=(B, T, IN, H), **form):
        B, T, n_in, H = sizes
        layers = tuple(
            tuple(draw_params(np, D * H if layer else n_in, H, **form) for _ in range(D)) for layer in range(L)
        )
        shapes = ((B, T, n_in), (L * D, B, H), (B, T, D * H), (L * D, B, H))
        x, h0, dh, dh_last = (draw(np, shape) for shape in shapes)
        return Call(x, h0, layers, dh, dh_last)

    return draw_call


@pytest.fixture
def assert_close(assert_params_close):
    """``assert_close(actual, desired, tolerance=1e-14)``: nested tuples of arrays, to a part of the largest element."""

    def assert_close(actual, desired, tolerance=1e-14):
        largest = max(float(np.abs(to_host(array)).max()) for _, array in named_arrays(desired))
        assert_params_close(actual, desired, rtol=0, atol=tolerance * max(1.0, largest))

    return assert_close


def equal_bits(actual, desired):
    """Whether (nested) tuples have the same numbers; NaN is not the same as NaN."""
    actual, desired = (
        [(name, to_host(array).tolist()) for name, array in named_arrays(tuple(results))]
        for results in (actual, desired)
    )
    return actual == desired


# --- against one layer after the other --------------------------------------------------------------------------


def masks_by_hand(L, D, sizes, *, dropout=0.0, recurrent_dropout=0.0, zoneout=0.0, seed=None, **others):
    """What is left out, drawn in the order that makes a seed what it is."""
    B, T, _, H = sizes
    if seed is None:
        return [None] * L, [[None] * D] * L, [[1.0 - zoneout if zoneout else None] * D] * L
    rng, like = random.Random(seed), np.ones(1)
    between = [dropout_mask((B, T, D * H), dropout, seed=rng, like=like) if dropout else None for _ in range(L - 1)]
    candidate, update = (
        [[draw_mask(shape, rate, seed=rng, like=like) if rate else None for _ in range(D)] for _ in range(L)]
        for draw_mask, shape, rate in (
            (dropout_mask, (B, H), recurrent_dropout),
            (keep_mask, (B, T, H), zoneout),
        )
    )
    return [None, *between], candidate, update


def layer_by_layer(call, L, D, *, lengths=None, reset=None, keep_every=None, **rates):
    """All results, with the layers' own functions and NumPy."""
    H = call.h0.shape[-1]
    between, candidate, update = masks_by_hand(L, D, (*call.x.shape, H), **rates)
    x, h_last, caches = call.x, [], []
    for layer in range(L):
        x = x if between[layer] is None else x * between[layer]
        hs = []
        for d in range(D):
            h, last, cache = gru_forward(
                x,
                call.h0[layer * D + d],
                call.layers[layer][d],
                lengths=lengths,
                reverse=d == 1,
                candidate_mask=candidate[layer][d],
                update_mask=update[layer][d],
                reset=reset,
            )
            hs.append(h)
            h_last.append(last)
            caches.append(cache)
        x = np.concatenate(hs, axis=-1)
    dh, dh0, dlayers = call.dh, [None] * (L * D), [[None] * D for _ in range(L)]
    for layer in reversed(range(L)):
        dx = 0.0
        for d in range(D):
            place = layer * D + d
            dx_d, dh0[place], dlayers[layer][d] = gru_backward(
                dh[:, :, d * H : (d + 1) * H], caches[place], dh_last=call.dh_last[place]
            )
            dx = dx + dx_d
        dh = dx if between[layer] is None else dx * between[layer]
    return x, np.stack(h_last), dh, np.stack(dh0), tuple(map(tuple, dlayers))


@LAYERS
@DIRECTIONS
@EACH_SETTING
def test_layer_by_layer(draw_call, assert_close, reset, L, D, settings):
    call = draw_call(L, D)
    results = call(reset=reset, **settings)
    assert [array.shape for array in results[:4]] == [(B, T, D * H), (L * D, B, H), (B, T, IN), (L * D, B, H)]
    assert_close(results, layer_by_layer(call, L, D, reset=reset, **settings))


@pytest.mark.compat
def test_namespaces(xp, draw_call, assert_close, stacks):
    """The same numbers: one seed leaves out the same everywhere."""
    cases = [(stack, EVERYTHING) for stack in stacks] + [(stack, {}) for stack in STACKS[1:5:3]]
    for (L, D, reset), settings in cases:
        call = draw_call(L, D, reset=reset)
        expected = call(reset=reset, ops=PLAIN_OPS, **settings)
        results = call.to(xp)(reset=reset, **settings)
        assert_close(results, expected)
        assert all(array_namespace(array) is array_namespace(xp.ones(1)) for _, array in named_arrays(results))


def test_float32(xp, draw_call, assert_close):
    for D, reset, with_h0 in ((1, "before", False), (2, "after", False), (1, "after", True), (2, "before", True)):
        call = draw_call(2, D, reset=reset).to(np, "float32")
        if not with_h0:
            call = call._replace(h0=np.zeros_like(call.h0))
        expected = call.to(np)(reset=reset, **EVERYTHING)
        call = call.to(xp, "float32")
        results = (call if with_h0 else call._replace(h0=None))(reset=reset, **EVERYTHING)
        assert all(array.dtype == xp.float32 for _, array in named_arrays(results)), (D, reset, with_h0)
        assert_close(results, expected, 2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("T", [20, 200, 2000])
def test_float32_over_long_sequences(draw_call, reset, T):
    """Rounding errors do not grow with the number of steps, if weights are as small as at the start of training."""
    call = draw_call(2, 2, (5, T, 3, 16))
    single = call._replace(layers=map_arrays(lambda array: 0.35 * array, call.layers)).to(np, "float32")
    lengths = [0, T, T // 2, 1, T - 1]
    results = dict(named_arrays(single(reset=reset, lengths=lengths)))
    expected = dict(named_arrays(single.to(np)(reset=reset, lengths=lengths)))
    assert results.keys() == expected.keys()
    for name, array in results.items():
        assert array.dtype == np.float32, name
        largest = np.abs(expected[name]).max()
        assert np.abs(array - expected[name]).max() <= 2e-6 * largest, name


# --- gradients --------------------------------------------------------------------------------------------------


def check_gradients(call, mode, **options):
    report = gradcheck(
        lambda x, h0, layers: gru_stack_forward(x, h0, layers, **options),
        lambda dh, dh_last, cache: gru_stack_backward(dh, cache, dh_last=dh_last),
        {"x": call.x, "h0": call.h0, "layers": call.layers},
        mode=mode,
    )
    assert len(report.rows) == 2 + len(arrays_of(call.layers))
    assert report.ok, report


@pytest.mark.compat
@LAYERS
@DIRECTIONS
@pytest.mark.parametrize("settings", [{}, EVERYTHING, EVERYTHING | {"seed": None}], ids=["as it is", "seed", "no seed"])
def test_gradients(draw_call, reset, L, D, settings):
    """Along a direction for each array."""
    check_gradients(draw_call(L, D), "direction", reset=reset, **settings)


@pytest.mark.parametrize(("L", "D", "reset"), [pytest.param(2, 2, "before", marks=pytest.mark.slow), (2, 1, "after")])
def test_gradient_of_every_number(draw_call, L, D, reset):
    check_gradients(
        draw_call(L, D, sizes=(2, 2, 1, 2)),
        "elements",
        reset=reset,
        **EVERYTHING | {"lengths": [2, 1], "keep_every": 1},
    )


def test_gradients_in_every_namespace(xp, draw_call):
    for L, D, reset in ((1, 2, "after"), (2, 1, "before")):
        check_gradients(
            draw_call(L, D, sizes=(3, 2, 1, 2), reset=reset).to(xp),
            "direction",
            reset=reset,
            **EVERYTHING | {"lengths": [2, 0, 1], "keep_every": 1},
        )


def test_gradients_of_both_results_add_up(draw_call, assert_close, stacks):
    for (L, D, reset), settings in product(stacks, [{}, EVERYTHING]):
        call = draw_call(L, D, reset=reset)
        _, _, cache = gru_stack_forward(call.x, call.h0, call.layers, reset=reset, **settings)
        of_h, of_last = gru_stack_backward(call.dh, cache), gru_stack_backward(None, cache, dh_last=call.dh_last)
        both = [[array for _, array in named_arrays(gradients)] for gradients in (of_h, of_last)]
        sums = tuple(a + b for a, b in zip(*both, strict=True))
        _, _, *expected = call(reset=reset, **settings)
        assert_close(sums, tuple(array for _, array in named_arrays(tuple(expected))))
        for array in both[1]:
            assert array.any(), (L, D, settings)


def test_gradient_of_the_last_layers_last_states(draw_call, reset):
    """Zeros for all others are what they would be without."""
    call = draw_call(2, 2)
    for place in range(4):
        dh_last = np.zeros_like(call.dh_last)
        dh_last[place] = call.dh_last[place]
        _, _, cache = gru_stack_forward(call.x, call.h0, call.layers, reset=reset)
        expected = gru_stack_backward(None, cache, dh_last=dh_last)
        dx, dh0, dlayers = back_through_layers(None, list(dh_last), cache)
        dx = dx.swapaxes(0, 1)
        assert equal_bits((dx, np.stack(dh0), dlayers), expected)
        reached = {0: [0], 1: [1], 2: [0, 1, 2], 3: [0, 1, 3]}[place]
        assert [p for p in range(4) if expected[1][p].any()] == reached


def test_a_direction_that_nobody_reads(draw_call, reset):
    call = draw_call(1, 2)
    for place in range(2):
        _, _, cache = gru_stack_forward(call.x, call.h0, call.layers, reset=reset)
        dlasts = [call.dh_last[p] if p == place else None for p in range(2)]
        dx, dh0, dlayers = back_through_layers(None, dlasts, cache)
        dx = dx.swapaxes(0, 1)
        zeros = np.zeros_like(call.dh_last)
        zeros[place] = call.dh_last[place]
        assert equal_bits((dx, np.stack(dh0), dlayers), gru_stack_backward(None, cache, dh_last=zeros)), place
        assert not any(array.any() for array in arrays_of(dlayers[0][1 - place])), place


# --- order of states --------------------------------------------------------------------------------------------


def test_last_states_are_those_at_the_end(draw_call, stacks):
    """Of the last layer: forward after a sequence's last step, reverse after its first."""
    for (L, D, reset), settings in product(stacks, [{}, {"lengths": [2, 1, 4]}, EVERYTHING | {"lengths": [2, 1, 4]}]):
        h, h_last, *_ = draw_call(L, D, reset=reset)(reset=reset, **settings)
        for b, length in enumerate(settings.get("lengths", [T] * B)):
            assert h_last[(L - 1) * D, b].tolist() == h[b, length - 1, :H].tolist(), (L, D, settings)
            if D == 2:
                assert h_last[-1, b].tolist() == h[b, 0, H:].tolist(), (L, D, settings)


def test_each_initial_state_reaches_its_own_layer(draw_call, stacks):
    """And those above it."""
    for L, D, reset in stacks:
        call = draw_call(L, D, reset=reset)
        _, before, *_ = call(reset=reset)
        for place in range(L * D):
            h0 = call.h0.copy()
            h0[place] += 0.1
            _, after, *_ = call._replace(h0=h0)(reset=reset)
            changed = [p for p in range(L * D) if (after[p] != before[p]).any()]
            assert changed == [place, *range((place // D + 1) * D, L * D)], (L, D)


def test_no_initial_state_is_a_state_of_zeros(xp, draw_call):
    zeros = xp.zeros((4, B, H), dtype=xp.float64)
    for reset in RESETS:
        call = draw_call(2, 2, reset=reset).to(xp)
        assert equal_bits(call._replace(h0=None)(reset=reset), call._replace(h0=zeros)(reset=reset)), reset


# --- lengths ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_what_stands_past_the_length_is_not_looked_at(xp, draw_call):
    for D, reset, settings, number in (
        (1, "before", {"lengths": LENGTHS}, math.nan),
        (2, "after", {"lengths": LENGTHS}, math.inf),
        (1, "after", EVERYTHING, -math.inf),
        (2, "before", EVERYTHING, math.nan),
    ):
        call = draw_call(2, D, reset=reset)
        expected = call.to(xp)(reset=reset, **settings)
        for b, length in enumerate(LENGTHS):
            call.x[b, length:] = call.dh[b, length:] = number
        results = call.to(xp)(reset=reset, **settings)
        assert equal_bits(results, expected), (D, settings, number)
        h, h_last, dx, dh0, _ = results
        for b, length in enumerate(LENGTHS):
            assert not to_host(h)[b, length:].any(), (D, settings)
            assert not to_host(dx)[b, length:].any(), (D, settings)
        assert to_host(h_last)[:, 1].tolist() == call.h0[:, 1].tolist(), (D, settings)
        assert to_host(dh0)[:, 1].tolist() == call.dh_last[:, 1].tolist(), (D, settings)


def test_lengths_of_another_library(xp, draw_call):
    strict = pytest.importorskip("array_api_strict")
    call = draw_call(2, 2).to(xp)
    expected = call(lengths=LENGTHS)
    for library in (np, strict, xp):
        assert equal_bits(call(lengths=library.asarray(LENGTHS)), expected), library
    assert not equal_bits(expected, call())


# --- what is left out -------------------------------------------------------------------------------------------


def test_seeds(draw_call):
    """The same seed leaves out the same; another one something else; a generator goes on."""
    for D, name in product([1, 2], ["dropout", "recurrent_dropout", "zoneout"]):
        call, rates = draw_call(2, D), {name: 0.5}
        first, same, other = (call(seed=seed, **rates) for seed in (1, 1, 2))
        assert equal_bits(first, same), (D, name)
        assert not equal_bits(first[:1], other[:1]), (D, name)
        rng = random.Random(1)
        assert equal_bits(call(seed=rng, **rates), first), (D, name)
        assert not equal_bits(call(seed=rng, **rates)[:1], first[:1]), (D, name)


def test_without_a_seed_nothing_is_left_out(draw_call, reset):
    call = draw_call(2, 2)
    rates = {"dropout": 0.5, "recurrent_dropout": 0.5}
    assert equal_bits(call(reset=reset, **rates), call(reset=reset))
    assert not equal_bits(call(reset=reset, seed=1, **rates)[:1], call(reset=reset)[:1])


def test_without_a_seed_zoneout_updates_by_its_mean(draw_call, assert_close):
    for reset in RESETS:
        call = draw_call(1, 2, reset=reset)
        h, *_ = call(reset=reset, zoneout=0.3)
        for d in range(2):
            mean = np.full((B, T, H), 0.7)
            one, _, _ = gru_forward(
                call.x, call.h0[d], call.layers[0][d], reset=reset, reverse=d == 1, update_mask=mean
            )
            assert_close((h[..., d * H : (d + 1) * H],), (one,))
        assert not np.allclose(h, call(reset=reset)[0]), reset


def test_rates_of_zero_leave_nothing_out(draw_call):
    """Nor does dropout leave out inputs of the first layer: it is between layers."""
    for reset in RESETS:
        call = draw_call(2, 2, reset=reset)
        rates = {"dropout": 0.0, "recurrent_dropout": 0, "zoneout": 0.0}
        assert equal_bits(call(reset=reset, **rates, seed=4), call(reset=reset)), reset
        call = draw_call(1, 2, reset=reset)
        assert equal_bits(call(reset=reset, dropout=0.9, seed=4), call(reset=reset)), reset


def test_dropout_between_layers_is_right_on_average(draw_call):
    """The first layer's next input is kept in the mean: many seeds come close to none."""
    call = draw_call(2, 1, sizes=(1, 1, 2, 3))
    small = map_arrays(lambda array: 0.05 * array, call.layers[1])  # where a layer is nearly linear
    call = call._replace(layers=(call.layers[0], small))
    expected, *_ = call()
    mean = np.mean([call(dropout=0.5, seed=seed)[0] for seed in range(200)], axis=0)
    np.testing.assert_allclose(mean, expected, atol=6e-3)


@DIRECTIONS
def test_a_recurrent_mask_serves_all_steps(draw_call, reset, D):
    """One for each layer and direction; with a new one at every step, nobody would keep fading."""
    call = draw_call(1, D, sizes=(5, 30, 2, 8))
    h, *_ = call(reset=reset, recurrent_dropout=0.5, seed=3)
    fading = []
    for d in range(D):
        states = np.abs(h[:, :: -1 if d else 1, d * 8 : d * 8 + 8])
        fading.append(np.all(states[:, 1:] < states[:, :-1], axis=1))
    masks = draw_masks(call.layers, call.x, DropoutRates(0.0, 0.5, 0.0), 3)
    for d in range(D):
        assert fading[d].tolist() == (masks.candidate[0][d] == 0.0).tolist()
    if D == 2:
        assert fading[0].tolist() != fading[1].tolist()


def test_masks(draw_call):
    """None where nothing is left out; all different; of some sequences."""
    call = draw_call(3, 2)
    masks = draw_masks(call.layers, call.x, DropoutRates(0.5, 0.5, 0.5), 1)
    assert masks.between[0] is None
    arrays = [array for _, array in named_arrays(masks._replace(between=masks.between[1:]))]
    shapes = [(B, T, 2 * H)] * 2 + [(B, H)] * 6 + [(B, T, H)] * 6
    assert [array.shape for array in arrays] == shapes
    for i, a in enumerate(arrays):
        assert not any(a.tolist() == b.tolist() for b in arrays[i + 1 :])

    rows = masks.at(slice(1, 3))
    for whole, part in zip(arrays, named_arrays(rows._replace(between=rows.between[1:])), strict=True):
        assert part[1].tolist() == whole[1:3].tolist()

    none = StackMasks((None,) * 3, ((None,) * 2,) * 3, ((None,) * 2,) * 3)
    assert draw_masks(call.layers, call.x, DropoutRates(), 1) == none == mean_masks(call.layers)
    means = mean_masks(call.layers, DropoutRates(0.5, 0.5, 0.25))
    assert means == none._replace(update=((0.75,) * 2,) * 3) == means.at(slice(0, 1))


# --- ways to the same numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-12), ("float32", 2e-6)])
def test_fast_and_plain_ops_agree(draw_call, assert_close, dtype, limit):
    """At odd sizes, with weights as small as at the start of training, so that rounding stays small."""
    settings = EVERYTHING | {"lengths": [(5 * b) % 10 for b in range(37)]}
    for L, D, reset in STACKS:
        call = draw_call(L, D, (37, 9, 3, 17), reset=reset)
        call = call._replace(layers=map_arrays(lambda array: 0.3 * array, call.layers)).to(np, dtype)
        plain = call(reset=reset, ops=PLAIN_OPS, **settings)
        assert_close(call(reset=reset, **settings), plain, limit)


@DIRECTIONS
@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["as it is", "everything"])
def test_numpy_ops(rng, draw_call, make_numpy_ops, assert_close, reset, D, settings):
    """Eager, and captured with masks that are drawn in place."""
    lengths = [3, 5, 0, 1, 5, 2, 4] if settings else None
    options = {"lengths": lengths, "keep_every": 2 if settings else None}
    call = draw_call(2, D, sizes=(7, 5, 2, 4))
    ops = make_numpy_ops()
    settings = settings | options
    expected = call(ops=PLAIN_OPS, **settings)
    assert_close(call(ops=ops, **settings), expected, 1e-12)

    rates = DropoutRates(0.4, 0.3, 0.35) if lengths else DropoutRates()
    masks = draw_masks(call.layers, call.x, rates, 5)

    def both_ways(ops):
        h, lasts, cache = run_layers(call.x, list(call.h0), call.layers, masks, ops=ops, **options)
        dx, dh0, dlayers = back_through_layers(call.dh.swapaxes(0, 1), list(call.dh_last), cache)
        h, dx = (batch_first(a) for a in (h, dx))
        return h, tuple(lasts), dx, tuple(dh0), dlayers

    replay = ops.capture(lambda: both_ways(ops))
    assert_close(replay(), both_ways(PLAIN_OPS), 1e-12)
    arrays = [array for _, array in named_arrays((call, masks)) if hasattr(array, "shape")]
    assert len(arrays) == 4 + len(arrays_of(call.layers)) + (1 + 4 * D if lengths else 0)
    for array in arrays:
        array[...] = rng.uniform(0.0, 1.2, array.shape)
    assert_close(replay(), both_ways(PLAIN_OPS), 1e-12)


def test_keep_every(xp, draw_call, assert_close):
    for D, reset in ((1, "after"), (2, "before")):
        settings = EVERYTHING | {"reset": reset, "keep_every": None}
        call = draw_call(2, D, reset=reset).to(xp)
        expected = call(**settings)
        for keep_every in (1, 3, 9):
            results = call(**settings | {"keep_every": keep_every})
            assert_close(results, expected)
            if keep_every >= T:
                assert equal_bits(results, expected), (D, keep_every)


def test_only_what_is_wanted(draw_call, stacks):
    for (L, D, reset), settings in product(stacks, [{}, EVERYTHING]):
        call = draw_call(L, D, reset=reset)
        expected_h, expected_last, _, *expected = call(reset=reset, **settings)
        for with_h, with_cache in product([False, True], repeat=2):
            options = {"reset": reset, "with_h": with_h, "with_cache": with_cache, **settings}
            h, h_last, cache = gru_stack_forward(call.x, call.h0, call.layers, **options)
            assert (h is None, cache is None) == (not with_h, not with_cache), (L, D)
            assert equal_bits([h_last], [expected_last]), (L, D, settings)
            assert h is None or equal_bits([h], [expected_h]), (L, D, settings)
        _, _, cache = gru_stack_forward(call.x, call.h0, call.layers, reset=reset, with_h=False, **settings)
        dx, *others = gru_stack_backward(call.dh, cache, dh_last=call.dh_last, with_dx=False)
        assert dx is None
        assert equal_bits(others, expected), (L, D, settings)


def test_step_by_step(xp, draw_call):
    for L, reset in product([1, 2, 3], RESETS):
        call = draw_call(L, 1, reset=reset).to(xp)
        h, h_last, _ = gru_stack_forward(call.x, call.h0, call.layers, reset=reset)
        state = call.h0
        for t in range(T):
            before = to_host(state).tolist()
            state, previous = gru_stack_step(call.x[:, t, :], state, call.layers, reset=reset), state
            assert tuple(state.shape) == (L, B, H)
            assert to_host(previous).tolist() == before, (L, reset)
            np.testing.assert_allclose(to_host(state)[-1], to_host(h[:, t, :]), rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(to_host(state), to_host(h_last), rtol=1e-14, atol=1e-15)
        assert array_namespace(state) is array_namespace(call.x)


def test_nothing_given_is_changed(xp, draw_call):
    for reset in RESETS:
        call = draw_call(3, 2, reset=reset).to(xp)
        before = [to_host(array).tolist() for _, array in named_arrays(call)]
        call(reset=reset, **EVERYTHING)
        assert [to_host(array).tolist() for _, array in named_arrays(call)] == before, reset


def test_results_stay_after_later_calls(draw_call, reset):
    """Those of the backward pass, too, which can be called twice."""
    call = draw_call(2, 2)
    first = call(reset=reset, **EVERYTHING)
    copies = map_arrays(np.copy, first)
    call._replace(x=call.x + 1.0)(reset=reset, **EVERYTHING)
    assert equal_bits(first, copies)
    _, _, cache = gru_stack_forward(call.x, call.h0, call.layers, reset=reset, **EVERYTHING)
    once, twice = (gru_stack_backward(call.dh, cache, dh_last=call.dh_last) for _ in range(2))
    assert equal_bits(once, twice)


def test_results_stay_on_the_device(draw_call):
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    for reset in RESETS:
        call = draw_call(2, 2, reset=reset)
        expected = call.to(strict)(reset=reset, **EVERYTHING)
        results = map_arrays(lambda array: array.to_device(device), call.to(strict))(reset=reset, **EVERYTHING)
        assert {array.device for _, array in named_arrays(results)} == {device}
        there = map_arrays(lambda array: array.to_device(strict.Device("CPU_DEVICE")), results)
        assert equal_bits(there, expected), reset


# --- parameters -------------------------------------------------------------------------------------------------


def test_initial_values(xp):
    """Drawn layer by layer, forward before reverse, as one after the other from the seed."""
    for (L, D, reset), dtype in zip(STACKS, ["float32", "float64"] * 3, strict=True):
        layers = init_gru_stack_params(
            IN, H, num_layers=L, bidirectional=D == 2, reset=reset, xp=xp, seed=11, dtype=getattr(xp, dtype)
        )
        assert isinstance(layers, tuple)
        assert [len(layer) for layer in layers] == [D] * L
        rng = random.Random(11)
        for number, layer in enumerate(layers):
            assert isinstance(layer, tuple)
            for params in layer:
                assert isinstance(params, GRUParams)
                expected = init_gru_params(
                    D * H if number else IN, H, reset=reset, xp=np, seed=rng, dtype=getattr(np, dtype)
                )
                assert equal_bits(params, expected), (L, D, dtype)
                assert all(array.dtype == getattr(xp, dtype) for array in arrays_of(params))
                assert all(array_namespace(array) is array_namespace(xp.ones(1)) for array in arrays_of(params))


def test_both_forms_are_drawn_alike():
    """`bias_hn` of "before" is drawn and dropped: all else, the following layers too, is the same."""
    options = {"num_layers": 2, "bidirectional": True, "xp": np, "seed": 11}
    before, after = (dict(named_arrays(init_gru_stack_params(IN, H, reset=reset, **options))) for reset in RESETS)
    assert after.keys() - before.keys() == {f"{number}.{d}.bias_hn" for number in (0, 1) for d in (0, 1)}
    assert all(array.tolist() == after[name].tolist() for name, array in before.items())


def test_one_layer_is_drawn_as_ever():
    ((params,),) = init_gru_stack_params(IN, H, xp=np, seed=3)
    assert equal_bits(params, init_gru_params(IN, H, xp=np, seed=3))


def test_initial_values_depend_on_the_seed():
    first, same, other = (
        init_gru_stack_params(IN, H, num_layers=2, bidirectional=True, xp=np, seed=seed) for seed in (1, 1, 2)
    )
    assert equal_bits(first, same)
    assert not any((a == b).any() for (_, a), (_, b) in zip(named_arrays(first), named_arrays(other), strict=True))


def test_initial_values_on_a_device():
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    layers = init_gru_stack_params(IN, H, num_layers=2, xp=strict, device=device)
    assert {array.device for _, array in named_arrays(layers)} == {device}


def test_wrong_sizes(refuses):
    arguments = {"input_size": 2, "hidden_size": 3, "num_layers": 2, "xp": np, "seed": 0}
    for name, value, least in (
        ("num_layers", 0, 1),
        ("num_layers", 1.0, 1),
        ("input_size", 0, 1),
        ("hidden_size", 2.5, 1),
        ("seed", -1, 0),
    ):
        for bidirectional in (False, True):
            with refuses(name, str(value), "whole number", f"at least {least}", error=ValueError):
                init_gru_stack_params(bidirectional=bidirectional, **arguments | {name: value})


def test_wrong_dtype(refuses):
    with refuses("dtype", "float32 or float64"):
        init_gru_stack_params(2, 3, xp=np, dtype=np.int32)


# --- what is refused --------------------------------------------------------------------------------------------


def params_of(n_in, H, dtype="float64"):
    return init_gru_params(n_in, H, xp=np, dtype=getattr(np, dtype))


ONE, TWO = params_of(2, 3), params_of(3, 3)
A_TUPLE = ("tuple of layers", "tuple of GRUParams")
ONE_OR_TWO = ("tuple of layers", "one GRUParams", "each of two")


def test_wrong_layers(refuses):
    for layers, first, *parts in (
        ([(ONE,)], "layers", "is a list", *A_TUPLE),
        ((), "layers", "is a tuple", *A_TUPLE),
        (((),), "layers", *A_TUPLE),
        (((ONE,), ()), "layers", *A_TUPLE),
        (([ONE],), "layers", *A_TUPLE),
        (None, "layers", "is a NoneType", *A_TUPLE),
        (ONE, "layers", "is a GRUParams", *A_TUPLE),
        ((ONE, TWO), "layers", *ONE_OR_TWO),
        (((ONE,) * 3,), "layers", *ONE_OR_TWO),
        (((ONE,), (TWO, TWO)), "layers", *ONE_OR_TWO),
        (((ONE, ONE), (params_of(6, 3),)), "layers", *ONE_OR_TWO),
        (((tuple(ONE),),), "layers[0][0]", "is a tuple", "a GRUParams"),
        (((ONE, None),), "layers[0][1]", "is a NoneType", "a GRUParams"),
        (
            ((ONE, ONE._replace(bias_hn=np.ones(3))),),
            "layers[0][1]",
            "'after'",
            "'before'",
            "as of layers[0][0]",
            "same reset",
        ),
        (((params_of(1, 3),),), "layers[0][0].weight_ih", "shape (9, 1)", "(9, 2)"),
        (((ONE, params_of(1, 3)),), "layers[0][1].weight_ih", "shape (9, 1)", "(9, 2)"),
        (((ONE, params_of(2, 4)),), "layers[0][1].weight_hh", "shape (12, 4)", "(9, 3)"),
        (((ONE,), (params_of(2, 3),)), "layers[1][0].weight_ih", "shape (9, 2)", "(9, 3)"),
        (((ONE, ONE), (TWO, TWO)), "layers[1][0].weight_ih", "shape (9, 3)", "(9, 6)"),
        (((ONE,), (params_of(3, 2),)), "layers[1][0].weight_hh", "shape (6, 2)", "(9, 3)"),
        (((ONE,), (TWO,), (params_of(4, 3),)), "layers[2][0].weight_ih", "shape (9, 4)", "(9, 3)"),
        (((params_of(2, 3, "float32"),),), "layers[0][0].weight_hh", "float32", "that of x, float64"),
        (((ONE,), (TWO._replace(weight_hh=[[1.0]]),)), "layers[1][0].weight_hh", "is a list", "shape (3H, H)"),
        (((ONE._replace(weight_hh=np.ones((8, 3))),),), "layers[0][0].weight_hh", "shape (8, 3)", "(9, 3)"),
        (((ONE,), (TWO._replace(bias=np.ones(3)),)), "layers[1][0].bias", "shape (3,)", "(9,)"),
    ):
        with refuses(first, *parts):
            gru_stack_forward(np.ones((3, 4, 2)), None, layers)


def test_wrong_arrays(draw_call, refuses):
    strict = pytest.importorskip("array_api_strict")
    good = draw_call(2, 2)
    for name, expected, shapes in (
        ("x", "(B, T, I)", [(4, 2)]),
        ("h0", "(4, 3, 3)", [(3, 3), (2, 3, 3), (2, 2, 3, 3), (3, 4, 3)]),
        ("dh", "(3, 4, 6)", [(3, 4, 3), (3, 3, 6)]),
        ("dh_last", "(4, 3, 3)", [(3, 3), (2, 3, 3), (3, 4, 3)]),
    ):
        array = getattr(good, name)
        cases = [(np.ones(shape), f"shape {shape}", expected) for shape in shapes]
        if name == "x":
            cases.append((np.ones((3, 0, 2)), "shape (3, 0, 2)", expected, "at least 1"))
        else:  # all of which must be like x
            cases += [
                (array.tolist(), "is a list", f"array of shape {expected}"),
                (array.astype(np.int32), "dtype int32", "float32 or float64"),
                (array.astype(np.float32), "dtype float32", "that of x, float64"),
                (strict.asarray(array), "namespace array_api_strict", "that of x, numpy"),
            ]
        for wrong, *parts in cases:
            with refuses(name, *parts):
                good._replace(**{name: wrong})()


def test_wrong_settings(draw_call, refuses):
    for options, first, *parts in (
        ({"dropout": 1.0}, "dropout", "1.0", "at least 0", "below 1"),
        ({"recurrent_dropout": -0.1}, "recurrent_dropout", "-0.1", "at least 0", "below 1"),
        ({"zoneout": "0.5"}, "zoneout", "'0.5'", "at least 0", "below 1"),
        ({"dropout": 0.5, "seed": -1}, "seed", "-1", "whole number", "at least 0"),
        ({"dropout": 0.5, "seed": 1.5}, "seed", "1.5", "whole number", "at least 0"),
        ({"keep_every": 0}, "keep_every", "0", "whole number", "at least 1"),
        ({"reset": "both"}, "reset", "'both'", "'before'", "'after'"),
        (
            {"reset": "after"},
            "reset is 'after'",
            "must be 'before'",
            "layers (bias_hn is None)",
            "leave out reset",
            "form 'after'",
        ),
        ({"ops": "x"}, "ops", "str", "a Scan, such as PlainScan(xp), or None"),
        ({"with_h": np.ones(1)}, "with_h", "array([1.])", "True or False"),
        ({"with_cache": None}, "with_cache", "None", "True or False"),
        ({"lengths": [2, 0]}, "lengths", "shape (2,)", "integers of shape (3,)"),
        ({"lengths": [2, 0, 5]}, "lengths", "from 0 to 5", "0 to 4", "4 steps"),
    ):
        with refuses(first, *parts, error=ShapeError if first == "lengths" else ValueError):
            draw_call(2, 1)(**options)


def test_a_gradient_must_be_given(draw_call, refuses):
    call = draw_call(2, 2)
    _, _, cache = gru_stack_forward(call.x, None, call.layers)
    with refuses("dh", "dh_last", "None", "at least one gradient", "given"):
        gru_stack_backward(None, cache)
    with refuses("cache", "NoneType", "cache that gru_stack_forward returned"):
        gru_stack_backward(call.dh, None)


def test_wrong_steps(draw_call, refuses):
    strict = pytest.importorskip("array_api_strict")
    call = draw_call(2, 1)
    x, h = call.x[:, 0], call.h0
    for arguments, first, *parts in (
        ((call.x, h, call.layers), "x", "shape (3, 4, 2)", "(B, I)"),
        ((x, h[:1], call.layers), "h", "shape (1, 3, 3)", "(2, 3, 3)"),
        ((x, h[:, :2], call.layers), "h", "shape (2, 2, 3)", "(2, 3, 3)"),
        ((x, h[0], call.layers), "h", "shape (3, 3)", "(2, 3, 3)"),
        ((x, h.tolist(), call.layers), "h", "is a list", "array of shape (2, 3, 3)"),
        ((x, h.astype(np.int32), call.layers), "h", "dtype int32", "float32 or float64"),
        ((x, h.astype(np.float32), call.layers), "h", "dtype float32", "that of x, float64"),
        ((x, strict.asarray(h), call.layers), "h", "namespace array_api_strict", "that of x, numpy"),
        ((x, h, [call.layers]), "layers", "is a list", *A_TUPLE),
        ((x, h, draw_call(1, 2).layers), "layers", "both directions", "direction of time only"),
    ):
        with refuses(first, *parts):
            gru_stack_step(*arguments)
    with pytest.raises(ValueError, match="reset is 'both'"):
        gru_stack_step(x, h, call.layers, reset="both")
