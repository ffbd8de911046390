import itertools
import math
import random
import re
import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest

from gru_xp.devices import Device, resolve_device, to_host
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.errors import ShapeError
from gru_xp.nn import (
    gru_forward,
    gru_stack_backward,
    gru_stack_forward,
    init_gru_stack_params,
    linear_backward,
    linear_forward,
    mse_loss,
    softmax_cross_entropy,
)
from gru_xp.nn.network import NetworkParams, init_network_params
from gru_xp.nn.params import LinearParams, flatten, map_arrays, named_arrays, unflatten
from gru_xp.training import TrainingConfig, train_on_chunks, truncated
from gru_xp.training.trainer import Update


class Stream(NamedTuple):
    params: NetworkParams
    x: np.ndarray  # (B, T, I)
    y: np.ndarray  # (B, T, O)
    h0: np.ndarray  # (L, B, H)


@pytest.fixture
def stream(rng, draw_params):
    """``stream(B=3, T=17, I=2, H=4, O=2, L=2, dtype="float64")``: a network, sequences, targets, states; all random.

    Further options are those of `draw_params`.
    """

    def stream(B=3, T=17, I=2, H=4, O=2, L=2, dtype="float64", **form):  # noqa: E741
        def draw(*shape):
            return rng.standard_normal(shape).astype(dtype)

        layers = tuple((draw_params(np, H if layer else I, H, dtype, **form),) for layer in range(L))
        linear = LinearParams(draw(O, H), draw(O))
        return Stream(NetworkParams(layers, linear), draw(B, T, I), draw(B, T, O), np.tanh(draw(L, B, H)))

    return stream


@pytest.fixture
def run(cpu):
    """``run(stream, chunk_length, ...)``: train with keywords of `train_on_chunks` and of the config."""
    own = {"reset", "lengths", "h0", "loss", "callback", "device"}

    def run(stream, chunk_length=5, **given):
        options = {"device": cpu} | {name: given.pop(name) for name in own & given.keys()}
        config = TrainingConfig(**({"num_epochs": 2, "learning_rate": 0.01} | given))
        return train_on_chunks(stream.params, stream.x, stream.y, chunk_length=chunk_length, config=config, **options)

    return run


def costs(result):
    return [record.cost for record in result.history]


def predictions(params, x, h0=None, **options):
    """Of one pass over whole sequences."""
    h, _, _ = gru_stack_forward(x, h0, params.gru, with_cache=False, **options)
    return linear_forward(h, params.linear)[0]


def value_and_gradient(params, x, y, h0=None, **options):
    """Squared error of whole sequences, summed over steps, its gradient, and the states at the end; step by step."""
    h, h_last, cache = gru_stack_forward(x, h0, params.gru, **options)
    total, dh, dlinear = 0.0, np.zeros(h.shape), 0.0
    for t in range(x.shape[1]):
        y_pred, linear_cache = linear_forward(h[:, t], params.linear)
        value, dpred = mse_loss(y_pred, y[:, t], reduction="sum")
        dh[:, t], dparams = linear_backward(dpred, linear_cache)
        total, dlinear = total + float(value), dlinear + flatten(dparams)
    _, _, dgru = gru_stack_backward(dh, cache)
    return total, np.concatenate([flatten(dgru), dlinear]), h_last


def descend(params, stream, chunk_length, *, epochs=1, rate=0.01, reduction="sum", **options):
    """Gradient descent by truncated back-propagation, by hand."""
    B, T, _ = stream.x.shape
    for _ in range(epochs):
        states = stream.h0
        for start in range(0, T, chunk_length):
            x, y = (a[:, start : start + chunk_length] for a in (stream.x, stream.y))
            _, gradient, states = value_and_gradient(params, x, y, states, **options)
            if reduction == "mean":
                gradient = gradient / (B * x.shape[1])
            params = unflatten(flatten(params) - rate * gradient, params)
    return params


@pytest.fixture
def gradients(monkeypatch):
    """The gradients that `Update.step` gets, and of how many steps they are."""
    seen = []

    def spy(self, gradient, n, *others, original=Update.step):
        seen.append((gradient.copy(), n))
        original(self, gradient, n, *others)

    monkeypatch.setattr(Update, "step", spy)
    return seen


FROZEN = 1e-300
"""A learning rate at which no parameter changes."""


# --- states that are carried from chunk to chunk ----------------------------------------------------------------


def test_a_layer_over_chunks_gives_the_states_of_one_pass(stream, reset):
    s = stream()
    params, h0 = s.params.gru[0][0], s.h0[0]
    for chunk_length, lengths in itertools.product((1, 5, 16, 17), (None, [17, 0, 9])):
        whole, last, _ = gru_forward(s.x, h0, params, reset=reset, lengths=lengths)
        state, parts = h0, []
        for start in range(0, 17, chunk_length):
            x = s.x[:, start : start + chunk_length]
            valid = None if lengths is None else np.clip(np.array(lengths) - start, 0, x.shape[1])
            h, state, _ = gru_forward(x, state, params, reset=reset, lengths=valid)
            parts.append(h)
        case = f"chunks of {chunk_length}, lengths {lengths}"
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=0, atol=1e-15, err_msg=case)
        np.testing.assert_allclose(state, last, rtol=0, atol=1e-15, err_msg=case)
        assert np.ptp(whole) > 0.5


def test_training_sees_the_states_of_one_pass(stream, run, reset):
    """The linear layer hands on the states as they are, and the loss sees them: to learn from, and to tell the cost."""
    s = stream(O=4)
    s = s._replace(params=s.params._replace(linear=LinearParams(np.eye(4), np.zeros(4))))
    expected, _, _ = gru_stack_forward(s.x, s.h0, s.params.gru, reset=reset)
    for chunk_length in (1, 5, 17, 100):
        seen = []

        def loss(y_pred, y, *, mask, reduction, seen=seen):
            assert mask is None
            assert reduction == "sum"
            seen.append(y_pred.copy())
            return np.sum(y_pred), np.ones_like(y_pred)

        run(s, chunk_length, reset=reset, h0=s.h0, loss=loss, learning_rate=FROZEN, num_epochs=2)
        passes = np.split(np.concatenate(seen, axis=1), 5, axis=1)  # cost, learn, cost, learn, cost
        for states in passes:
            np.testing.assert_allclose(states, expected, rtol=0, atol=1e-15, err_msg=f"chunks of {chunk_length}")


def test_reported_costs_are_those_of_one_pass(stream, run, reset):
    s = stream()
    for chunk_length, epochs in ((1, 1), (4, 3), (17, 2)):
        result = run(s, chunk_length, reset=reset, h0=s.h0, num_epochs=epochs, learning_rate=1e-3)
        assert result.best_epoch == epochs
        expected = [np.mean((predictions(p, s.x, s.h0, reset=reset) - s.y) ** 2) for p in (s.params, result.params)]
        assert [costs(result)[0], costs(result)[epochs]] == pytest.approx(expected, rel=1e-13), chunk_length


# --- gradients --------------------------------------------------------------------------------------------------


def test_a_chunk_of_everything_gives_the_full_gradient(stream, run, reset):
    s = stream()
    total, full, _ = value_and_gradient(s.params, s.x, s.y, s.h0, reset=reset)
    for chunk_length, reduction in ((17, "sum"), (17, "mean"), (18, "mean"), (10**9, "sum")):
        options = {"num_epochs": 1, "learning_rate": 1e-4, "optimizer": "sgd", "reduction": reduction}
        result = run(s, chunk_length, reset=reset, h0=s.h0, **options)
        gradient, case = full / (3 * 17 if reduction == "mean" else 1), f"chunks of {chunk_length}, {reduction}"
        expected = flatten(s.params) - 1e-4 * gradient
        np.testing.assert_allclose(flatten(result.params), expected, rtol=0, atol=1e-14, err_msg=case)
        assert result.history[0].cost == pytest.approx(total / (3 * 17), rel=1e-13), case
        assert result.history[1].gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-12), case
        assert result.best_epoch == 1


@pytest.mark.compat
def test_gradient_descent_by_hand(stream, run, reset):
    """Two epochs, each from h0, and a last chunk that is shorter."""
    s = stream()
    for chunk_length, reduction in ((1, "sum"), (5, "sum"), (5, "mean"), (16, "mean")):
        options = {"rate": 2e-3 if reduction == "sum" else 0.04, "reduction": reduction, "epochs": 2}
        result = run(
            s,
            chunk_length,
            reset=reset,
            h0=s.h0,
            num_epochs=2,
            learning_rate=options["rate"],
            optimizer="sgd",
            reduction=reduction,
        )
        expected = descend(s.params, s, chunk_length, reset=reset, **options)
        case = f"chunks of {chunk_length}, {reduction}"
        assert result.best_epoch == 2, case
        np.testing.assert_allclose(flatten(result.params), flatten(expected), rtol=0, atol=1e-13, err_msg=case)
        assert np.abs(flatten(result.params) - flatten(s.params)).max() > 0.01, case


def test_what_is_the_same_as_the_full_gradient_and_what_is_not(stream, run, gradients):
    """Summed over chunks: that of the linear layer is the same; that of the GRU lacks what crosses into a chunk."""
    s = stream(L=1)
    run(s, 5, h0=s.h0, num_epochs=1, learning_rate=FROZEN, optimizer="sgd")
    _, full, _ = value_and_gradient(s.params, s.x, s.y, s.h0)
    total = sum(gradient for gradient, _ in gradients)
    assert [n for _, n in gradients] == [15, 15, 15, 6]
    n_linear = 2 * 4 + 2
    np.testing.assert_allclose(total[-n_linear:], full[-n_linear:], rtol=0, atol=1e-12)
    difference = np.linalg.norm(total[:-n_linear] - full[:-n_linear])
    assert difference > 0.01 * np.linalg.norm(full[:-n_linear])
    # as in the full gradient if no error came back over the edges of chunks
    states, cut = s.h0, 0.0
    for start in range(0, 17, 5):
        chunk = slice(start, start + 5)
        _, gradient, states = value_and_gradient(s.params, s.x[:, chunk], s.y[:, chunk], states)
        cut = cut + gradient
    np.testing.assert_allclose(total, cut, rtol=0, atol=1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_training_is_that_of_pytorch_with_detached_states(stream, run, optimizer):
    torch = pytest.importorskip("torch")
    s, H, rate = stream(H=4, reset="after"), 4, 2e-3
    model = torch.nn.GRU(2, H, num_layers=2, batch_first=True).double()
    head = torch.nn.Linear(H, 2).double()
    z, r, n = (slice(gate * H, (gate + 1) * H) for gate in range(3))

    def swapped(rows, z=z, r=r, n=n):  # their z is 1 less ours, and stands second
        return np.concatenate([rows[r], -rows[z], rows[n]])

    with torch.no_grad():
        for number, (gru,) in enumerate(s.params.gru):
            getattr(model, f"weight_ih_l{number}").copy_(torch.tensor(swapped(gru.weight_ih)))
            getattr(model, f"weight_hh_l{number}").copy_(torch.tensor(swapped(gru.weight_hh)))
            getattr(model, f"bias_ih_l{number}").copy_(torch.tensor(swapped(gru.bias)))
            getattr(model, f"bias_hh_l{number}").copy_(torch.tensor(np.concatenate([np.zeros(2 * H), gru.bias_hn])))
        head.weight.copy_(torch.tensor(s.params.linear.weight))
        head.bias.copy_(torch.tensor(s.params.linear.bias))
    weights = [*model.parameters(), *head.parameters()]
    stepper = {
        "sgd": lambda: torch.optim.SGD(weights, lr=rate),
        "momentum": lambda: torch.optim.SGD(weights, lr=rate, momentum=0.9),
        "adam": lambda: torch.optim.Adam(weights, lr=rate),
    }[optimizer]()
    for _ in range(4):
        states = torch.tensor(s.h0)
        for start in range(0, 17, 5):
            x, y = (torch.tensor(a[:, start : start + 5]) for a in (s.x, s.y))
            stepper.zero_grad()
            h, states = model(x, states.detach())
            errors = ((head(h) - y) ** 2).mean(dim=2)
            (errors.mean() if optimizer == "adam" else errors.sum()).backward()
            for number in range(2):
                getattr(model, f"bias_hh_l{number}").grad[: 2 * H] = 0.0  # the two biases of a gate are one here
            stepper.step()

    result = run(s, 5, h0=s.h0, num_epochs=4, learning_rate=rate, optimizer=optimizer)
    assert result.best_epoch == 4
    for number, (gru,) in enumerate(result.params.gru):
        for ours, theirs in ((gru.weight_ih, "weight_ih"), (gru.weight_hh, "weight_hh"), (gru.bias, "bias_ih")):
            theirs = getattr(model, f"{theirs}_l{number}").detach().numpy()
            np.testing.assert_allclose(swapped(ours), theirs, rtol=0, atol=1e-11)
        theirs = getattr(model, f"bias_hh_l{number}").detach().numpy()[n]
        np.testing.assert_allclose(gru.bias_hn, theirs, rtol=0, atol=1e-11)
    np.testing.assert_allclose(result.params.linear.weight, head.weight.detach().numpy(), rtol=0, atol=1e-11)
    np.testing.assert_allclose(result.params.linear.bias, head.bias.detach().numpy(), rtol=0, atol=1e-11)
    assert np.abs(flatten(result.params) - flatten(s.params)).max() > 1e-3


def test_states_kept_now_and_then_give_the_same(stream, run, reset):
    s = stream()
    every, some = (run(s, 9, reset=reset, h0=s.h0, keep_every=k, num_epochs=3) for k in (None, 4))
    np.testing.assert_allclose(flatten(some.params), flatten(every.params), rtol=0, atol=1e-12)
    assert costs(some) == pytest.approx(costs(every), rel=1e-12)


def test_the_config_says_which_states_are_kept_unless_the_argument_does(stream, cpu, monkeypatch):
    used = []
    forward = truncated.gru_stack_forward
    monkeypatch.setattr(
        truncated,
        "gru_stack_forward",
        lambda *arrays, **options: used.append(options["keep_every"]) or forward(*arrays, **options),
    )
    s = stream()
    for of_config, given, wanted in ((None, None, None), (3, None, 3), (3, 2, 2), (None, 2, 2)):
        config = TrainingConfig(num_epochs=1, learning_rate=0.01, keep_every=of_config)
        train_on_chunks(s.params, s.x, s.y, chunk_length=9, config=config, device=cpu, keep_every=given)
        assert set(used) == {wanted}, (of_config, given)
        used.clear()


def test_clipping(stream, run, gradients):
    s = stream()
    norms = {"num_epochs": 1, "learning_rate": 1e-3, "optimizer": "sgd", "reduction": "sum"}
    clipped = run(s, 17, h0=s.h0, clip_norm=0.25, **norms)
    change = (flatten(clipped.params) - flatten(s.params)) / -1e-3
    assert np.linalg.norm(change) == pytest.approx(0.25, rel=1e-9)
    ((gradient, _),) = gradients
    np.testing.assert_allclose(change / 0.25, gradient / np.linalg.norm(gradient), rtol=0, atol=1e-9)
    assert clipped.history[1].gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-12)


def test_the_gradient_norm_of_an_epoch_is_its_largest(stream, run, gradients):
    result = run(stream(), 4, num_epochs=1, learning_rate=FROZEN, optimizer="sgd")
    norms = [np.linalg.norm(gradient) for gradient, _ in gradients]
    assert len(norms) == 5
    assert result.history[1].gradient_norm == pytest.approx(max(norms), rel=1e-12)


# --- lengths ----------------------------------------------------------------------------------------------------


def test_each_sequence_learns_up_to_its_end(stream, run, reset, gradients):
    """A chunk's gradient is the sum of its sequences' own ones, and what stands after an end is nothing."""
    s, lengths = stream(B=4), np.array([12, 0, 17, 7])
    for row, length in enumerate(lengths):
        s.x[row, length:] = s.y[row, length:] = np.nan
    result = run(s, 5, reset=reset, h0=s.h0, lengths=lengths, num_epochs=1, learning_rate=FROZEN, optimizer="sgd")
    together = list(gradients)
    assert [n for _, n in together] == [15, 5 + 5 + 2, 2 + 5, 2]

    expected, total = [0.0] * 4, 0.0
    for row, length in enumerate(lengths):
        states = s.h0[:, row : row + 1]
        for number, start in enumerate(range(0, length, 5)):
            span = slice(start, min(start + 5, length))
            x, y = s.x[row : row + 1, span], s.y[row : row + 1, span]
            value, gradient, states = value_and_gradient(s.params, x, y, states, reset=reset)
            expected[number] = expected[number] + gradient
            total += value
    for (gradient, _), sum_of_rows in zip(together, expected, strict=True):
        np.testing.assert_allclose(gradient, sum_of_rows, rtol=0, atol=1e-12)
    assert costs(result) == pytest.approx([total / 36] * 2, rel=1e-13)


def test_padding_changes_nothing(stream, run):
    s = stream()
    short = s._replace(x=s.x[:, :11], y=s.y[:, :11])
    expected = run(short, 4, h0=s.h0, num_epochs=3)
    for as_given in (list, np.array, tuple):
        padded = run(s, 4, h0=s.h0, num_epochs=3, lengths=as_given([11, 11, 11]))
        assert costs(padded) == pytest.approx(costs(expected), rel=1e-13)
        np.testing.assert_allclose(flatten(padded.params), flatten(expected.params), rtol=0, atol=1e-13)
    assert costs(run(s, 4, lengths=[17, 17, 17])) == costs(run(s, 4))


# --- dropout ----------------------------------------------------------------------------------------------------

RATES = {"dropout": 0.3, "recurrent_dropout": 0.2, "zoneout": 0.1}


def test_what_is_left_out_is_drawn_for_each_chunk(stream, run, reset):
    s, left_out = stream(), random.Random("dropout 5")
    given = {"reset": reset, "optimizer": "sgd", "reduction": "sum", "learning_rate": 1e-3, "num_epochs": 2}
    result = run(s, 5, h0=s.h0, seed=5, **given, **RATES)
    expected = descend(s.params, s, 5, epochs=2, rate=1e-3, reset=reset, seed=left_out, **RATES)
    assert result.best_epoch == 2
    np.testing.assert_allclose(flatten(result.params), flatten(expected), rtol=0, atol=1e-13)
    whole_network = predictions(expected, s.x, s.h0, reset=reset, **RATES)
    assert costs(result)[2] == pytest.approx(np.mean((whole_network - s.y) ** 2), rel=1e-12)


def test_the_seed_matters_to_dropout_only(stream, run):
    s = stream()
    assert costs(run(s, seed=1)) == costs(run(s, seed=2))
    first, second = (costs(run(s, seed=seed, **RATES)) for seed in (1, 2))
    assert first[0] == second[0]
    assert first[1:] != second[1:]


# --- sequences that are no arrays, and memory -------------------------------------------------------------------


class Sliced:
    """Gives an array for each slice of time, and remembers which slices."""

    def __init__(self, array):
        self._array, self.shape, self.spans = array, array.shape, []

    def __getitem__(self, key):
        rows, span = key
        assert rows == slice(None)
        assert isinstance(span, slice)
        self.spans.append((span.start, span.stop))
        return self._array[key]


def test_chunks_are_taken_in_order_one_at_a_time(stream, run):
    s = stream()
    x, y = Sliced(s.x), Sliced(s.y)
    result = run(s._replace(x=x, y=y), 5, num_epochs=1)
    assert x.spans == y.spans == 3 * [(0, 5), (5, 10), (10, 15), (15, 17)]
    assert costs(result) == costs(run(s, 5, num_epochs=1))


def test_chunks_that_count_nowhere_are_not_read(stream, run):
    s = stream()
    x = Sliced(s.x)
    run(s._replace(x=x), 5, num_epochs=1, lengths=[6, 2, 0])
    assert x.spans == 3 * [(0, 5), (5, 10)]


def test_the_numbers_get_the_type_of_the_parameters(stream, run):
    for dtype in ("float32", "float64"):
        s = stream(dtype=dtype)
        whole = s._replace(x=np.rint(10 * s.x), y=np.rint(10 * s.y))
        small = whole._replace(x=whole.x.astype(np.int16), y=whole.y.astype(np.int8))
        result, expected = run(small), run(whole)
        assert flatten(result.params).dtype == dtype
        assert costs(result) == costs(expected), dtype


def test_learning_from_a_file_with_little_memory(rng, cpu, tmp_path, monkeypatch):
    """The value of two steps ago: from a file, in a small part of the memory of a pass over all of it."""
    B, T, H, delay = 24, 800, 12, 2
    x, y = (np.memmap(tmp_path / name, np.float32, "w+", shape=(B, T, 1)) for name in ("x", "y"))
    x[...] = rng.uniform(-1.0, 1.0, (B, T, 1))
    y[:, delay:] = x[:, :-delay]
    for array in (x, y):
        array.flush()
    x, y = (np.memmap(tmp_path / name, np.float32, "r", shape=(B, T, 1)) for name in ("x", "y"))
    params = init_network_params(1, H, 1, xp=cpu.xp, seed=4, dtype=np.float32)

    def learn():
        config = TrainingConfig(num_epochs=1, learning_rate=0.02, clip_norm=1.0)
        return train_on_chunks(params, x, y, chunk_length=12, config=config, device=cpu)

    def peak(function):
        tracemalloc.start()
        try:
            result = function()
            return result, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    monkeypatch.setenv("GRU_XP_PLAIN", "1")  # fast paths keep some memory that has nothing to do with T
    _, of_everything = peak(lambda: gru_stack_forward(x, None, params.gru))
    assert of_everything > B * T * 4 * H * 4  # the states, and the gates' three numbers
    result, of_chunks = peak(learn)
    assert of_chunks < of_everything / 20
    assert result.history[0].cost > 0.3
    assert result.history[-1].cost < 0.05


# --- other losses -----------------------------------------------------------------------------------------------


def test_classification_of_every_step(rng, cpu):
    """Which of three symbols came two steps ago, in sequences of several lengths."""
    B, T, C = 8, 200, 3
    symbols = rng.integers(0, C, (B, T))
    x = np.eye(C)[symbols]
    labels = np.concatenate([np.zeros((B, 2), np.int32), symbols[:, :-2].astype(np.int32)], axis=1)
    lengths = rng.integers(T // 2, T + 1, B)
    counts = np.arange(T) < lengths[:, None]
    labels[~counts] = -1  # no class
    params = init_network_params(C, 12, C, xp=cpu.xp, seed=2, dtype=np.float64)
    result = train_on_chunks(
        params,
        x,
        labels,
        chunk_length=25,
        config=TrainingConfig(num_epochs=8, learning_rate=0.05),
        device=cpu,
        lengths=lengths,
        loss=softmax_cross_entropy,
    )
    for p, cost in ((params, costs(result)[0]), (result.params, costs(result)[result.best_epoch])):
        expected, _ = softmax_cross_entropy(predictions(p, x), labels, mask=counts)
        assert cost == pytest.approx(float(expected), rel=1e-12)
    right = np.argmax(predictions(result.params, x), axis=2) == labels
    assert costs(result)[0] > 1.0
    assert right[counts].mean() > 0.98


def test_a_loss_of_ones_own(stream, run, gradients):
    """The absolute error: of which steps, it is told."""
    s, lengths = stream(), [17, 3, 8]
    masks = []

    def absolute_error(y_pred, y, *, mask, reduction):
        masks.append(mask)
        error = np.where(mask[..., None], y_pred - y, 0.0)
        return np.sum(np.abs(error)), np.sign(error)

    result = run(s, 9, loss=absolute_error, lengths=lengths, num_epochs=1, learning_rate=FROZEN)
    counts = np.arange(17) < np.array(lengths)[:, None]
    np.testing.assert_array_equal(np.concatenate(masks[:2], axis=1), counts)
    error = np.abs(predictions(s.params, s.x) - s.y)[counts]
    assert costs(result)[0] == pytest.approx(error.sum() / 28, rel=1e-12)
    assert [n for _, n in gradients] == [20, 8]


# --- fast paths and devices -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits(stream, run):
    for dtype, rates in (("float32", RATES), ("float64", {})):
        s = stream(dtype=dtype)
        first, second = (run(s, seed=3, num_epochs=2, lengths=[17, 4, 9], **rates) for _ in range(2))
        assert costs(first) == costs(second), (dtype, rates)
        np.testing.assert_array_equal(flatten(first.params), flatten(second.params))
        assert (flatten(first.params) != flatten(s.params)).any()


def test_fast_paths_train_as_the_plain_one(stream, run, make_numpy_ops, some, monkeypatch):
    for reset, lengths in some((("before", None), ("after", [17, 0, 4, 7, 16, 2, 11])), 2):
        s, results = stream(B=7, reset=reset), []
        for ops in (PLAIN_OPS, make_numpy_ops()):
            monkeypatch.setattr(Device, "ops", lambda self, ops=ops: ops)
            results.append(run(s, 7, reset=reset, h0=s.h0, lengths=lengths, num_epochs=1))
        plain, fast = results
        assert costs(fast) == pytest.approx(costs(plain), rel=1e-10), lengths
        np.testing.assert_allclose(flatten(fast.params), flatten(plain.params), rtol=0, atol=1e-10)


@pytest.mark.cuda
@pytest.mark.parametrize("lengths", [None, [17, 0, 9]])
def test_a_cuda_device_learns_the_same(stream, run, reset, lengths):
    s, device = stream(), resolve_device("cuda", fallback=False)
    expected = run(s, 5, reset=reset, h0=s.h0, lengths=lengths, num_epochs=3)
    there = s._replace(params=map_arrays(device.xp.asarray, s.params))
    result = run(there, 5, reset=reset, h0=s.h0, lengths=lengths, num_epochs=3, device=device)
    assert costs(result) == pytest.approx(costs(expected), rel=1e-10)
    np.testing.assert_allclose(to_host(flatten(result.params)), flatten(expected.params), rtol=0, atol=1e-10)


# --- what is kept, and when it stops ----------------------------------------------------------------------------


def test_history_and_callback_agree(stream, run):
    s, seen = stream(), []
    before = flatten(s.params)
    result = run(s, num_epochs=4, callback=seen.append)
    assert tuple(seen) == result.history
    assert [record.epoch for record in seen] == [0, 1, 2, 3, 4]
    assert seen[0].gradient_norm is None
    assert all(record.gradient_norm > 0 for record in seen[1:])
    assert all(record.validation_cost is None for record in seen)
    assert (result.stop_reason, result.problem) == ("num_epochs", None)
    np.testing.assert_array_equal(flatten(s.params), before)
    for (_, ours), (_, given) in zip(named_arrays(result.params), named_arrays(s.params), strict=True):
        assert not np.shares_memory(ours, given)


def test_the_best_parameters_are_kept_and_patience_ends(stream, run):
    s = stream()
    result = run(s, optimizer="sgd", learning_rate=0.15, num_epochs=60, patience=3)
    assert result.stop_reason == "patience"
    assert result.best_epoch == int(np.argmin(costs(result)))
    assert result.history[-1].epoch == result.best_epoch + 3
    best = np.mean((predictions(result.params, s.x) - s.y) ** 2)
    assert best == pytest.approx(min(costs(result)), rel=1e-12)
    assert costs(result)[-1] > min(costs(result))


def test_the_callback_stops_with_true(stream, run):
    result = run(stream(), num_epochs=9, callback=lambda record: record.epoch == 2)
    assert result.stop_reason == "callback"
    assert len(result.history) == 3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_huge_learning_rate_stops_at_the_chunk(stream, run, dtype):
    s = stream(dtype=dtype)
    x = Sliced(s.x)
    result = run(s._replace(x=x), optimizer="sgd", learning_rate=1e250, num_epochs=90)
    assert result.stop_reason == "non_finite"
    assert len(result.history) == 2
    assert math.isnan(costs(result)[1])
    assert re.match(r"epoch 1, batch \d: (parameter|the cost) .* 1e\+250", result.problem)
    np.testing.assert_array_equal(flatten(result.params), flatten(s.params))
    # all chunks for the cost of epoch 0; none is learned from after the second, which the first one's update spoilt
    assert x.spans[4:] == [(0, 5), (5, 10)]


def test_a_cost_that_is_not_finite_at_the_start(stream, run):
    s = stream()
    s.x[1, 7, 0] = np.nan
    x = Sliced(s.x)
    result = run(s._replace(x=x))
    assert (result.stop_reason, len(result.history)) == ("non_finite", 1)
    assert "at the start" in result.problem
    assert x.spans == [(0, 5), (5, 10)]


# --- errors -----------------------------------------------------------------------------------------------------


def both_directions(s):
    layers = init_gru_stack_params(2, 4, bidirectional=True, xp=np)
    return s._replace(params=NetworkParams(layers, LinearParams(np.ones((2, 8)), np.ones(2))))


def test_what_does_not_fit_is_refused(stream, run, refused):
    def other(**arrays):
        return lambda s: s._replace(**{name: change(getattr(s, name)) for name, change in arrays.items()})

    def other_linear(linear):
        return other(params=lambda params: params._replace(linear=linear(params)))

    def same(s):
        return s

    labels = {"loss": softmax_cross_entropy}
    for change, options, kind, *parts in (
        (both_directions, {}, ValueError, "params.gru", "both directions"),
        (same, {"batch_size": 2}, ValueError, "config.batch_size is 2", "None"),
        (same, {"chunk_length": 0}, ValueError, "chunk_length is 0", "at least 1"),
        (same, {"chunk_length": 2.5}, ValueError, "chunk_length is 2.5", "at least 1"),
        (same, {"keep_every": 0}, ValueError, "keep_every is 0"),
        (same, {"reset": "between"}, ValueError, "reset is 'between'"),
        (same, {"reset": "after"}, ValueError, "reset is 'after'; it must be 'before', the form of layers"),
        (other(params=lambda params: params.gru), {}, ShapeError, "params is a tuple", "NetworkParams"),
        (other_linear(lambda p: p.gru[0][0]), {}, ShapeError, "params.linear is a GRUParams", "LinearParams"),
        (
            other(params=lambda p: p._replace(gru=p.gru[0][0])),
            {},
            ShapeError,
            "layers is a GRUParams",
            "tuple of layers",
        ),
        (
            other_linear(lambda p: LinearParams(np.ones((2, 5)), np.ones(2))),
            {},
            ShapeError,
            "params.linear.weight has shape (2, 5)",
            "(O, 4)",
        ),
        (
            other_linear(lambda p: LinearParams(np.ones((2, 4), "f4"), np.ones(2))),
            {},
            ShapeError,
            "params.linear.weight has dtype float32",
            "float64",
        ),
        (other(x=np.ndarray.tolist), {}, ShapeError, "x is a list", "shape"),
        (other(y=np.ndarray.tolist), {}, ShapeError, "y is a list", "shape"),
        (other(x=lambda x: x[..., 0]), {}, ShapeError, "x has shape (3, 17)", "(B, T, I)"),
        (other(x=lambda x: x[:, :0]), {}, ShapeError, "x has shape (3, 0, 2)", "at least 1"),
        (other(x=lambda x: x[..., :1]), {}, ShapeError, "weight_ih has shape (12, 2)", "(12, 1)"),
        (other(y=lambda y: y[..., :1]), {}, ShapeError, "y has shape (3, 17, 1)", "(3, 17, 2)", "labels (3, 17)"),
        (other(y=lambda y: y[..., 0]), {}, ShapeError, "y has shape (3, 17)", "(3, 17, 2)"),
        (other(y=lambda y: y[:, :9, 0]), labels, ShapeError, "y has shape (3, 9)", "(3, 17, O)", "labels (3, 17)"),
        (other(y=lambda y: y[..., 0]), labels, ShapeError, "y has dtype float64 and shape (3, 17)", "integers"),
        (same, {"lengths": [17, 18, 0]}, ShapeError, "lengths has values from 0 to 18", "0 to 17"),
        (same, {"lengths": [17, 17]}, ShapeError, "integers of shape (3,)"),
        (same, {"lengths": [0, 0, 0]}, ShapeError, "lengths are all 0", "at least one"),
        (same, {"h0": np.zeros((1, 3, 4))}, ShapeError, "h0 has shape (1, 3, 4)", "(2, 3, 4)"),
    ):
        with refused(kind, *parts, case=parts):
            run(change(stream()), **options)


def test_parameters_of_another_library_are_refused(stream, run):
    strict = pytest.importorskip("array_api_strict")
    s = stream()
    with pytest.raises(ShapeError, match=r"has namespace array_api_strict; .* numpy"):
        run(s._replace(params=map_arrays(strict.asarray, s.params)))


def test_a_device_may_be_a_name(draw, draw_network):
    x, y = draw(np, (2, 6, 1)), draw(np, (2, 6, 1))
    params, config = draw_network(np, 1, 3, 1), TrainingConfig(num_epochs=1, learning_rate=0.1)
    by_name, by_device = (
        train_on_chunks(params, x, y, chunk_length=3, config=config, device=device)
        for device in ("cpu", resolve_device("cpu"))
    )
    assert flatten(by_name.params).tolist() == flatten(by_device.params).tolist()
