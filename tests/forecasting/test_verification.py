import dataclasses
import math

import numpy as np
import pytest

from gru_xp.devices import Device, resolve_device
from gru_xp.devices.primitives import PLAIN_OPS
from gru_xp.forecasting import Forecaster
from gru_xp.forecasting.fitting import initial_params
from gru_xp.forecasting.verification import LIMITS, TF32_LIMIT, Drift, Witness, compare_with_cpu
from gru_xp.nn.params import flatten


@pytest.fixture
def learn(small, walk, cpu):
    """``learn(columns=2, device=cpu, **settings)``: a fitted Forecaster, what it has learned from, and its Witness."""

    def learn(columns=2, device=cpu, **settings):
        series, witness = walk(60, columns), Witness()
        return small(**settings).fit(series, device=device, pause=witness), series, witness

    return learn


def moved(array, by):
    """The array with one element further off, by a part of the largest."""
    array = array.copy()
    array[len(array) // 2] += by * np.abs(array).max()
    return array


# --- the witness ------------------------------------------------------------------------------------------------


def test_a_witness_remembers_the_first_epoch_and_the_last(small, walk, cpu):
    series, witness = walk(60), Witness()
    states = {}

    def remember(epoch, batches, state):
        states[epoch, batches] = state().theta

    small(batch_size=16, num_epochs=4).fit(series, device=cpu, pause=Witness(remember))
    forecaster = small(batch_size=16, num_epochs=4).fit(series, device=cpu, pause=witness)
    np.testing.assert_array_equal(witness.first, states[1, 0])
    np.testing.assert_array_equal(witness.last, states[4, 0])
    assert forecaster.training.stop_reason == "num_epochs"
    assert not np.array_equal(witness.first, witness.last)


def test_a_witness_of_nothing():
    witness = Witness()
    assert witness.first is None
    assert witness.last is None


def test_a_witness_hands_on(small, walk, cpu):
    seen = []

    def stop(epoch, batches, state):
        seen.append((epoch, batches, state().epoch))
        return (epoch, batches) == (1, 2)

    witness = Witness(stop)
    forecaster = small(batch_size=16).fit(walk(60), device=cpu, pause=witness)
    assert forecaster.training.stop_reason == "paused"
    assert seen == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 3, 0), (1, 0, 1), (1, 1, 1), (1, 2, 1)]
    assert witness.first is not None


def test_a_witness_changes_nothing(learn, small, cpu):
    forecaster, series, _ = learn(batch_size=16)
    alone = small(batch_size=16).fit(series, device=cpu)
    np.testing.assert_array_equal(flatten(forecaster.params), flatten(alone.params))


# --- fast paths of the CPU against the plain formulas -----------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_size": 16, "clip_norm": 0.1},
        {"optimizer": "momentum", "learning_rate": 1e-3, "validation_ratio": 0.0},
        {"num_layers": 2, "bidirectional": True, "dropout": 0.2, "batch_size": 20, "reset": "after"},
        {"recurrent_dropout": 0.3, "zoneout": 0.1, "keep_every": 3},
    ],
    ids=str,
)
def test_fast_paths_are_within_the_limits(learn, settings):
    for dtype, limit in LIMITS.items():
        drift = compare_with_cpu(*learn(dtype=dtype, **settings))
        assert drift.reference == "the CPU without fast paths", dtype
        assert drift.limit == LIMITS[dtype] == limit, dtype
        assert drift.first_epoch <= limit, dtype
        assert drift.is_within_limit, dtype
        assert drift.last_epoch < 1e3 * limit, dtype
        assert drift.cost < 1e3 * limit, dtype
        assert drift.epochs == 5, dtype


def test_the_reference_is_computed_without_fast_paths(learn, monkeypatch):
    forecaster, series, witness = learn()
    used, own = [], Device.ops

    def fit(self, series, *, device, original=Forecaster.fit, **options):
        used.append((device.ops(), device.threads, own(device) is PLAIN_OPS))
        return original(self, series, device=device, **options)

    monkeypatch.setattr(Forecaster, "fit", fit)
    compare_with_cpu(forecaster, series, witness)
    assert used == [(PLAIN_OPS, forecaster.device.threads, False)]


def test_likelihoods_below_zero_are_compared(small, cpu, rng):
    series, witness = np.sin(np.arange(60.0)) + 0.01 * rng.standard_normal(60), Witness()
    forecaster = small(loss="gaussian", linear_skip=True, dtype="float64").fit(series, device=cpu, pause=witness)
    assert any(record.cost < 0 for record in forecaster.training.history)
    drift = compare_with_cpu(forecaster, series, witness)
    assert drift.cost < 1e3 * drift.limit


def test_the_same_arithmetic_is_no_difference(learn, monkeypatch):
    monkeypatch.setenv("GRU_XP_PLAIN", "1")
    drift = compare_with_cpu(*learn(batch_size=16))
    assert (drift.first_epoch, drift.last_epoch, drift.cost) == (0.0, 0.0, 0.0)


def test_the_forecaster_stays_as_it_is(learn):
    forecaster, series, witness = learn()
    params, training, settings = flatten(forecaster.params).copy(), forecaster.training, forecaster.settings()
    compare_with_cpu(forecaster, series, witness)
    np.testing.assert_array_equal(flatten(forecaster.params), params)
    assert forecaster.training is training
    assert forecaster.settings() == settings


# --- what is reported -------------------------------------------------------------------------------------------


def test_a_difference_after_the_first_epoch_is_told(learn):
    """Another number among the parameters, beside which rounding is small."""
    forecaster, series, witness = learn(dtype="float64", optimizer="sgd", learning_rate=1e-4)
    first = witness.first
    for by, within in ((1e-7, True), (3e-6, True), (1e-4, False), (0.1, False)):
        witness.first = moved(first, by)
        drift = dataclasses.replace(compare_with_cpu(forecaster, series, witness), limit=LIMITS["float32"])
        assert drift.first_epoch == pytest.approx(by, rel=1e-6)
        assert drift.is_within_limit == within, by
        assert drift.last_epoch < 1e-12, by


def test_the_limit_follows_the_dtype(learn):
    forecaster, series, witness = learn(dtype="float64")
    witness.first = moved(witness.first, 1e-8)
    assert not compare_with_cpu(forecaster, series, witness).is_within_limit


def test_numbers_that_are_not_finite_are_beyond_every_limit(learn):
    forecaster, series, witness = learn()
    for value in (math.nan, math.inf):
        witness.first[0] = value
        drift = compare_with_cpu(forecaster, series, witness)
        assert drift.first_epoch == math.inf, value
        assert not drift.is_within_limit, value


def test_a_first_epoch_that_only_one_of_them_has_is_beyond_the_limit(learn):
    forecaster, series, _ = learn()
    drift = compare_with_cpu(forecaster, series, Witness())
    assert drift.first_epoch == drift.last_epoch == math.inf
    assert not drift.is_within_limit


def test_trainings_that_go_apart_are_told_so(learn, small, cpu, monkeypatch):
    """Of another seed, as a device would be that is wrong everywhere."""
    forecaster, series, witness = learn(num_epochs=8)
    other = small(num_epochs=8, seed=1)
    monkeypatch.setattr(forecaster, "seed", 1)
    drift = compare_with_cpu(forecaster, series, witness)
    again = Witness()
    other.fit(series, device=cpu, pause=again)
    assert drift.first_epoch == pytest.approx(
        np.abs(witness.first - again.first).max() / np.abs(again.first).max(), rel=1e-5
    )
    assert drift.last_epoch == pytest.approx(
        np.abs(witness.last - again.last).max() / np.abs(again.last).max(), rel=1e-4
    )
    costs = zip(forecaster.training.history, other.training.history, strict=True)
    assert drift.cost == pytest.approx(max(abs(a.cost - b.cost) / b.cost for a, b in costs), rel=1e-4)
    assert drift.first_epoch > 0.1
    assert not drift.is_within_limit


def test_small_differences_grow(learn, monkeypatch):
    """Rounding in steps that are too large for the problem."""
    forecaster, series, witness = learn(num_epochs=40, learning_rate=0.5, patience=None)
    drift = compare_with_cpu(forecaster, series, witness)
    assert drift.epochs == 40
    assert drift.is_within_limit
    assert drift.last_epoch > 10 * drift.first_epoch


def test_patience_that_ends_at_another_epoch_is_no_difference(learn, monkeypatch):
    """The CPU goes on to the epoch that the training came to, so that the same epochs are compared."""
    forecaster, series, witness = learn(num_epochs=200, learning_rate=0.3, patience=3, dtype="float64")
    last = forecaster.training.history[-1].epoch
    assert forecaster.training.stop_reason == "patience"
    monkeypatch.setattr(forecaster, "patience", 1)  # by which the CPU would end earlier
    drift = compare_with_cpu(forecaster, series, witness)
    assert drift.epochs == last < 200
    assert drift.last_epoch < 1e-6


@pytest.mark.filterwarnings("ignore:epoch.*:RuntimeWarning")
def test_trainings_without_an_end(small, walk, cpu):
    """Both of which get out of hand; nobody is warned twice."""
    series, witness = walk(60), Witness()
    forecaster = small(optimizer="sgd", learning_rate=1e38).fit(series, device=cpu, pause=witness)
    assert forecaster.training.stop_reason == "non_finite"
    drift = compare_with_cpu(forecaster, series, witness)
    assert drift.cost == math.inf
    assert drift.epochs == 1


def test_the_training_on_the_cpu_can_be_ended(learn):
    drift = compare_with_cpu(*learn(), pause=lambda epoch, batches, state: epoch == 2)
    assert drift.epochs == 2
    assert drift.is_within_limit


def test_series_of_every_kind(learn, small, walk, cpu):
    pd = pytest.importorskip("pandas")
    frame, witness = pd.DataFrame(walk(60, 2), columns=["b", "Close"]), Witness()
    forecaster = small(validation_ratio=0.3).fit(frame, features="all", order="oldest-first", device=cpu, pause=witness)
    assert compare_with_cpu(forecaster, frame, witness).is_within_limit


def test_within_the_limit_means_up_to_it():
    drift = Drift("the CPU", 1e-5, 0.5, 0.5, 3, 1e-5)
    assert drift.is_within_limit
    assert not dataclasses.replace(drift, first_epoch=np.nextafter(1e-5, 1)).is_within_limit


# --- a CUDA device against the CPU ------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_size": 100},
        {"optimizer": "momentum", "learning_rate": 1e-4, "batch_size": 64, "clip_norm": 0.5},
        {"num_layers": 2, "bidirectional": True, "reset": "after", "scaling": "standard"},
        {"num_layers": 2, "dropout": 0.2, "recurrent_dropout": 0.1, "zoneout": 0.1, "batch_size": 100},
        {"keep_every": 4, "hidden_size": 64, "seq_length": 30},
    ],
    ids=str,
)
def test_cuda_repeats_itself_and_agrees_with_the_cpu(small, walk, settings):
    """The same bits again, and within the limits of the CPU after one epoch."""
    series, cuda = walk(400, 2), resolve_device("cuda", fallback=False)
    for dtype, limit in LIMITS.items():
        options = {"num_epochs": 10, "hidden_size": 24, "seq_length": 10, "learning_rate": 0.002} | settings
        options |= {"dtype": dtype, "seed": 5}
        witnesses = [Witness(), Witness()]
        first, second = (small(**options).fit(series, device=cuda, pause=witness) for witness in witnesses)
        np.testing.assert_array_equal(witnesses[0].last, witnesses[1].last, err_msg=dtype)
        for a, b in zip(first.training.history, second.training.history, strict=True):
            assert (a.cost, a.validation_cost, a.gradient_norm) == (b.cost, b.validation_cost, b.gradient_norm), dtype
        drift = compare_with_cpu(first, series, witnesses[0])
        print(f"{options}: {drift}")
        assert drift.reference == "the CPU", dtype
        assert drift.epochs == 10, dtype
        assert drift.first_epoch <= limit, dtype


@pytest.mark.cuda
@pytest.mark.parametrize("settings", [{}, {"reset": "after", "num_layers": 2, "batch_size": 20}], ids=str)
def test_tf32_has_a_limit_of_its_own(small, walk, settings):
    """Rounding stays far within it, and what changes parameters by too little does not."""
    series, witness = walk(60, 1), Witness()
    device = resolve_device("cuda", fallback=False, tf32=True)
    settings = {"hidden_size": 9, "seq_length": 6, "num_epochs": 2, "learning_rate": 0.002} | settings
    forecaster = small(**settings).fit(series, device=device, pause=witness)
    drift = compare_with_cpu(forecaster, series, witness)
    print(drift)
    assert (drift.tf32, drift.limit) == (True, TF32_LIMIT)
    assert LIMITS["float32"] < drift.first_epoch < TF32_LIMIT / 3
    start = flatten(initial_params(forecaster)).get()
    witness.first = start + 0.7 * (witness.first - start)
    assert not compare_with_cpu(forecaster, series, witness).is_within_limit
