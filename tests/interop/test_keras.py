"""Keras: weights of stacked GRU layers, both ways, with masks; settings of layers; what is refused by name."""

import random
import sys

import numpy as np
import pytest

from gru_xp.errors import ArgumentError, CheckpointError, GruXpError
from gru_xp.interop import keras as interop
from gru_xp.interop.keras import from_keras, from_keras_layers, to_keras
from gru_xp.nn.params import map_arrays
from gru_xp.nn.stack import gru_stack_forward

keras = pytest.importorskip("keras")

pytestmark = [
    pytest.mark.peer,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of Keras itself
]

TOLERANCE = {"rtol": 0, "atol": 2e-6}
"""Keras computes products in float32, whatever the dtype."""


@pytest.fixture
def make_layers(rng):
    """``make_layers(L, D, I=3, H=5, **settings)``: built Keras layers none of whose weights is zero."""

    def make_layers(L, D, I=3, H=5, **settings):  # noqa: E741
        layers = []
        for number in range(L):
            layer = keras.layers.GRU(H, **({"return_sequences": True} | settings))
            layer = keras.layers.Bidirectional(layer) if D == 2 else layer
            layer.build((None, None, D * H if number else I))
            layer.set_weights([0.7 * rng.standard_normal(array.shape) for array in layer.get_weights()])
            layers.append(layer)
        return layers

    return make_layers


def weights_of(layers):
    return [array for layer in layers for array in layer.get_weights()]


def run_keras(layers, x, lengths):
    h, mask = x, keras.ops.convert_to_tensor(np.arange(x.shape[1]) < np.asarray(lengths)[:, None])
    for layer in layers:
        h = layer(h, mask=mask)
    return keras.ops.convert_to_numpy(h)


@pytest.fixture
def assert_same_outputs(draw):
    """``assert_same_outputs(keras_layers, layers, reset)`` on sequences of several lengths, behind masks."""

    def assert_same_outputs(keras_layers, layers, reset):
        x, lengths = draw(np, (4, 6, layers[0][0].input_size), "float32"), [2, 6, 1, 5]
        h, _, _ = gru_stack_forward(
            x.astype("float64"),
            None,
            map_arrays(lambda array: array.astype("float64"), layers),
            lengths=lengths,
            reset=reset,
        )
        inside = np.arange(6) < np.asarray(lengths)[:, None]
        assert np.abs(h).max() > 0.1
        np.testing.assert_allclose(run_keras(keras_layers, x, lengths)[inside], h[inside], **TOLERANCE)

    return assert_same_outputs


# --- weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_keras_computes_what_the_layers_do(make_layers, draw_layers, assert_same_outputs, stack, reset, dtype):
    layers = draw_layers(*stack, dtype=dtype)
    keras_layers = make_layers(*stack, reset_after=reset == "after")
    arrays = iter(to_keras(layers))
    for layer in keras_layers:
        layer.set_weights([next(arrays) for _ in layer.get_weights()])
    assert next(arrays, None) is None
    assert_same_outputs(keras_layers, layers, reset)


@pytest.mark.parametrize("use_bias", [True, False])
def test_the_layers_compute_what_keras_does(make_layers, assert_same_outputs, stack, reset, use_bias):
    settings = {"reset_after": reset == "after", "use_bias": use_bias}
    keras_layers = make_layers(*stack, **settings)
    layers = from_keras(weights_of(keras_layers), bidirectional=stack[1] == 2, **settings)
    assert_same_outputs(keras_layers, layers, reset)
    if not use_bias:
        assert not layers[0][0].bias.any()
        assert not (layers[0][0].bias_hn if reset == "after" else np.zeros(1)).any()


def test_layers_come_back_to_the_bit(draw_layers, assert_same_layers, stack, reset):
    for dtype in ("float32", "float64"):
        layers = draw_layers(*stack, dtype=dtype)
        back = from_keras(to_keras(layers), reset_after=reset == "after", bidirectional=stack[1] == 2)
        assert_same_layers(back, layers)


def test_a_sequential_model_takes_them(draw_layers):
    layers = draw_layers(2, 2)
    wrapped = [keras.layers.Bidirectional(keras.layers.GRU(5, return_sequences=True)) for _ in range(2)]
    model = keras.Sequential([keras.Input((None, 3)), *wrapped])
    model.set_weights(to_keras(layers))
    for theirs, own in zip(model.get_weights(), to_keras(layers), strict=True):
        np.testing.assert_array_equal(theirs, own.astype("float32"))


def test_neither_side_shares_memory_with_the_other(draw_layers):
    layers = draw_layers(1, 1)
    arrays = to_keras(layers)
    own = [array.copy() for array in layers[0][0]]
    for array in arrays:
        array[...] = 0.0
    for array, before in zip(layers[0][0], own, strict=True):
        np.testing.assert_array_equal(array, before)


def test_no_random_numbers_are_drawn_and_no_names_taken(draw_layers):
    layers, state = draw_layers(1, 2, reset="before"), random.getstate()
    first = int(keras.layers.GRU(2, seed=0).name.removeprefix("gru").lstrip("_") or 0)
    state = random.getstate()
    from_keras(to_keras(layers), reset_after=False, bidirectional=True)
    assert random.getstate() == state
    assert keras.layers.GRU(2, seed=0).name == f"gru_{first + 1}"


ONE = [np.ones((3, 15)), np.ones((5, 15)), np.ones((2, 15))]

REFUSALS = {
    "nothing": ([], {}, "weights has 0 arrays"),
    "an array too few": (ONE[:2], {}, "weights has 2 arrays", "use_bias=True", "bidirectional=False", "3 a layer"),
    "one direction": (ONE, {"bidirectional": True}, "6 a layer"),
    "bias for after": (ONE, {"reset_after": False}, "weights[2] has shape (2, 15)", "reset_after=False"),
    "bias for before": ([*ONE[:2], ONE[2][0]], {}, "weights[2] has shape (15,)", "reset_after=True"),
    "short bias": ([*ONE[:2], ONE[2][:, 1:]], {}, "weights[2][0] has shape (14,)"),
    "lstm": ([np.ones((3, 20)), np.ones((5, 20)), np.ones(20)], {"reset_after": False}, "weights[1].T ", "LSTM"),
    "second layer": ([*ONE, *ONE], {}, "weights[3].T has shape (15, 3)", "(15, 5)"),
    "nan": ([ONE[0], ONE[1] * np.nan, ONE[2]], {}, "weights[1].T", "NaN"),
    "integers": ([array.astype(int) for array in ONE], {}, "weights[0].T has dtype int"),
    "text": (["a", "b", "c"], {"reset_after": False}, "weights[2] has shape ()"),
}


def test_weights_that_are_none_are_refused_by_name(refused):
    for case, (weights, settings, *parts) in REFUSALS.items():
        with refused(CheckpointError, *parts, case=case):
            from_keras(weights, **settings)


def test_a_wrong_conversion_is_noticed(draw_layers, reset, monkeypatch):
    layers = draw_layers(1, 1)
    arrays = to_keras(layers)
    monkeypatch.setattr(interop, "ORDER", "rzn")
    with pytest.raises(CheckpointError, match=r"^from keras: .* h differs"):
        from_keras(arrays, reset_after=reset == "after")
    with pytest.raises(CheckpointError, match=r"^to keras: .* h differs"):
        to_keras(layers)


def test_without_keras_one_line_says_what_to_do(draw_layers, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(GruXpError, match=r"needs keras, .* 'gru-xp\[parity\]'$"):
        to_keras(draw_layers(1, 1))


# --- layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_bias", [True, False])
def test_settings_are_read_from_layers(make_layers, assert_same_outputs, stack, reset, use_bias):
    keras_layers = make_layers(
        *stack, reset_after=reset == "after", use_bias=use_bias, dropout=0.3, recurrent_dropout=0.3, seed=1
    )
    layers, found = from_keras_layers(keras_layers)
    assert found == reset
    assert_same_outputs(keras_layers, layers, reset)


def test_one_layer_need_not_be_in_a_list(make_layers, assert_same_layers):
    (layer,) = make_layers(1, 1, return_sequences=False)
    layers, reset = from_keras_layers(layer)
    assert reset == "after"
    assert_same_layers(layers, from_keras(layer.get_weights()))


def bidirectional(**settings):
    return keras.layers.Bidirectional(keras.layers.GRU(5), **settings)


class OwnGRU(keras.layers.GRU):
    """It may compute something else."""


LAYERS = {
    "go_backwards": (lambda: keras.layers.GRU(5, go_backwards=True), "a has go_backwards=True"),
    "both backwards": (
        lambda: keras.layers.Bidirectional(keras.layers.GRU(5, go_backwards=True), backward_layer=keras.layers.GRU(5)),
        "a has go_backwards=True",
    ),
    "activation": (lambda: keras.layers.GRU(5, activation="relu"), "a has activation='relu'", "'tanh'"),
    "no activation": (lambda: keras.layers.GRU(5, activation=None), "a has activation='linear'"),
    "recurrent_activation": (
        lambda: keras.layers.GRU(5, recurrent_activation="hard_sigmoid"),
        "a has recurrent_activation='hard_sigmoid'",
        "'sigmoid'",
    ),
    "of one direction": (
        lambda: keras.layers.Bidirectional(
            keras.layers.GRU(5), backward_layer=keras.layers.GRU(5, activation="relu", go_backwards=True)
        ),
        "a has activation='relu'",
    ),
    "merge_mode": (lambda: bidirectional(merge_mode="sum"), "a has merge_mode='sum'", "'concat'"),
    "no merge_mode": (lambda: bidirectional(merge_mode=None), "a has merge_mode=None"),
    "lstm": (lambda: keras.layers.LSTM(5), "a is a LSTM", "keras.layers.GRU"),
    "lstm both ways": (lambda: keras.layers.Bidirectional(keras.layers.LSTM(5)), "a is around a LSTM"),
    "subclass": (lambda: OwnGRU(5), "a is a OwnGRU"),
    "reset_after of one direction": (
        lambda: keras.layers.Bidirectional(
            keras.layers.GRU(5), backward_layer=keras.layers.GRU(5, reset_after=False, go_backwards=True)
        ),
        "reset_after is True for some layers and False for others",
    ),
}


def test_settings_that_cannot_be_represented_are_refused_by_name(refused):
    for case, (make, *parts) in LAYERS.items():
        layer = make()
        layer.build((None, 4, 3))
        layer.name = "a"
        with refused(CheckpointError, *parts, case=case):
            from_keras_layers(layer)


def test_time_major_is_refused_by_name(make_layers):
    """Layers of Keras 2 had it."""
    (layer,) = make_layers(1, 1)
    layer.time_major = True
    with pytest.raises(CheckpointError, match="time_major=True"):
        from_keras_layers(layer)


def test_layers_that_make_no_stack_are_refused(make_layers):
    first, second = make_layers(2, 1)
    with pytest.raises(CheckpointError, match="layers is empty"):
        from_keras_layers([])
    with pytest.raises(CheckpointError, match="has no weights yet"):
        from_keras_layers(keras.layers.GRU(5))
    with pytest.raises(CheckpointError, match=r"a str; it must be a keras\.layers\.GRU"):
        from_keras_layers("gru")
    with pytest.raises(CheckpointError, match="has other directions than"):
        from_keras_layers([first, *make_layers(1, 2, I=5)])
    with pytest.raises(CheckpointError, match="has return_sequences=False"):
        from_keras_layers([*make_layers(1, 1, return_sequences=False), second])
    with pytest.raises(CheckpointError, match="reset_after is True for some layers and False for others"):
        from_keras_layers([first, *make_layers(1, 1, I=5, reset_after=False)])
    with pytest.raises(CheckpointError, match=r"kernel\.T has shape \(15, 3\); .* must be \(15, 5\)"):
        from_keras_layers([first, first])


def test_what_is_no_list_of_weights_is_refused():
    with pytest.raises(CheckpointError, match="weights is of type Sequential"):
        from_keras(keras.Sequential())
    for name in ("reset_after", "bidirectional", "use_bias"):
        with pytest.raises(ArgumentError, match=f"^{name} is array.*; it must be True or False$"):
            from_keras([np.ones((1, 3))], **{name: np.ones(2)})
