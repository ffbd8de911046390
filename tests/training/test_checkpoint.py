import dataclasses
import itertools
import json
import math
import time

import numpy as np
import pytest

from gru_xp.nn.params import flatten
from gru_xp.training.checkpoint import (
    SECONDS_BEFORE_FIRST,
    SECONDS_BETWEEN,
    SHARE_OF_TIME,
    Checkpoints,
    state_from_parts,
    state_parts,
    state_specs,
)
from gru_xp.training.optimizers import OPTIMIZERS, STATE_SHAPES
from gru_xp.training.tensors import TensorSpec
from gru_xp.training.trainer import EpochRecord, TrainingConfig, TrainingState, train

P = 7


@pytest.fixture
def make_state(rng):
    """``make_state(optimizer="adam", dtype="float64", epochs=3, validation=True)``: one with random numbers."""

    def make_state(optimizer="adam", dtype="float64", epochs=3, validation=True):
        cost, validated, norm, seconds, best = np.exp(rng.standard_normal((5, epochs))).tolist()
        history = tuple(
            EpochRecord(
                epoch,
                cost[epoch],
                validated[epoch] if validation else None,
                norm[epoch] if epoch else None,
                seconds[epoch],
                best[epoch],
            )
            for epoch in range(epochs)
        )
        theta, best_theta = rng.standard_normal((2, P)).astype(dtype)
        remembered = {
            name: rng.standard_normal(P if whole else 1).astype(dtype)
            for name, whole in STATE_SHAPES[optimizer].items()
        }
        return TrainingState(5, theta, best_theta, remembered, 0.1 + 0.2, epochs - 1, history, 1e3 / 3)

    return make_state


def assert_same(actual, desired):
    """Every bit, and every type."""
    fields = {field.name: getattr(desired, field.name) for field in dataclasses.fields(desired)}
    for name in ("theta", "best_theta", "optimizer"):
        theirs = fields.pop(name)
        pairs = {name: (getattr(actual, name), theirs)}
        if name == "optimizer":
            assert actual.optimizer.keys() == theirs.keys()
            pairs = {key: (actual.optimizer[key], array) for key, array in theirs.items()}
        for key, (array, expected) in pairs.items():
            assert (array.dtype, array.shape) == (expected.dtype, expected.shape), key
            assert array.tobytes() == expected.tobytes(), key
    for name, value in fields.items():
        assert getattr(actual, name) == value, name


# --- a state's parts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_state_comes_back_from_its_parts(make_state, optimizer):
    for dtype, validation in itertools.product(("float32", "float64"), (True, False)):
        state = make_state(optimizer, dtype, validation=validation)
        numbers, arrays = state_parts(state)
        numbers = json.loads(json.dumps(numbers, allow_nan=False))
        specs = state_specs(numbers, optimizer, P, dtype)
        assert specs == {
            name: TensorSpec(array.dtype.name, array.shape, finite=name != "history") for name, array in arrays.items()
        }
        assert_same(state_from_parts(numbers, arrays), state)


def test_the_first_state_of_all(make_state):
    state = dataclasses.replace(make_state(epochs=1), batches=0, largest_norm=0.0)
    numbers, arrays = state_parts(state)
    assert state_specs(numbers, "adam", P, "float64")["history"].shape == (1, 5)
    back = state_from_parts(numbers, arrays)
    assert_same(back, state)
    assert back.epoch == 0
    assert back.history[0].gradient_norm is None


def test_what_is_not_there_is_none(make_state):
    numbers, arrays = state_parts(make_state(validation=False))
    assert np.isnan(arrays["history"]).sum() == 4  # three costs of validation, one norm
    assert [record.validation_cost for record in state_from_parts(numbers, arrays).history] == [None] * 3


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_states_of_a_training_are_what_is_expected(cpu, problem, optimizer):
    assert STATE_SHAPES.keys() == OPTIMIZERS.keys()
    for dtype in ("float32", "float64"):
        p, states = problem(dtype=dtype), []
        config = TrainingConfig(2, 1e-3, optimizer, batch_size=4)
        pause = lambda *at, states=states: states.append(at[2]())  # noqa: E731
        train(p.params, p.x, p.y, config=config, device=cpu, pause=pause)
        assert len(states) == 9
        for state in states:
            numbers, arrays = state_parts(state)
            specs = state_specs(numbers, optimizer, flatten(p.params).size, dtype)
            assert specs.keys() == arrays.keys()
            for name, array in arrays.items():
                assert specs[name][:2] == (array.dtype.name, array.shape), (dtype, name)
            assert_same(state_from_parts(numbers, arrays), state)


def test_numbers_of_no_state(make_state, refused):
    numbers, _ = state_parts(make_state())
    for name, value in (
        ("epochs", 0),
        ("epochs", 2),  # the best is epoch 2
        ("epochs", 3.0),
        ("epochs", 2**31),
        ("epochs", True),
        ("epochs", None),
        ("batches", -1),
        ("batches", 2**31),
        ("batches", 10**399),
        ("batches", "5"),
        ("best_epoch", 3),
        ("best_epoch", -1),
        ("best_epoch", [2]),
        ("largest_norm", -0.5),
        ("largest_norm", "0.5"),
        ("largest_norm", False),
        ("seconds", -1),
        ("seconds", {}),
        ("more", 1),
    ):
        with refused(ValueError, "state", case=(name, value)):
            state_specs(numbers | {name: value}, "adam", P, "float64")
    for name in ("epochs", "batches", "best_epoch", "largest_norm", "seconds"):
        with refused(ValueError, "state", f"no '{name}'", case=name):
            state_specs({key: value for key, value in numbers.items() if key != name}, "adam", P, "float64")
    with refused(ValueError, "state", "object", case="a list"):
        state_specs([numbers], "adam", P, "float64")


COST, VALIDATION, NORM, SECONDS, BEST = range(5)


def test_histories_of_no_training(make_state, refused):
    for epoch, column, value in (
        (0, COST, math.nan),
        (2, COST, math.inf),
        (1, VALIDATION, math.inf),
        (1, VALIDATION, math.nan),  # the others have one
        (0, NORM, 0.5),
        (1, NORM, math.nan),
        (2, NORM, -math.inf),
        (1, SECONDS, math.nan),
        (2, BEST, math.inf),
        *((1, column, -0.5) for column in (NORM, SECONDS)),
    ):
        numbers, arrays = state_parts(make_state())
        arrays["history"][epoch, column] = value
        place = "some epochs" if column == VALIDATION and math.isnan(value) else f"epoch {epoch}"
        with refused(ValueError, place, case=(epoch, column, value)):
            state_from_parts(numbers, arrays)


def test_a_number_that_no_float_can_be(make_state):
    numbers, arrays = state_parts(make_state())
    with pytest.raises(OverflowError):
        state_from_parts(numbers | {"seconds": 10**399}, arrays)


# --- when to write ----------------------------------------------------------------------------------------------


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self):
        self.now = 1e5

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.fixture
def walk_through(make_state, clock):
    """``walk_through(checkpoints, epochs=3, batches=4, seconds=1.0)``: call it as `train` does; where it stopped."""
    state = make_state()

    def walk_through(checkpoints, epochs=3, batches=4, seconds=1.0):
        for epoch in range(epochs + 1):
            steps = [(epoch - 1, batch) for batch in range(1, batches + 1)] if epoch else []
            for at in [*steps, (epoch, 0)]:
                clock.now += seconds
                if checkpoints(*at, lambda at=at: dataclasses.replace(state, batches=at[1])):
                    return at
        return None

    return walk_through


@pytest.fixture
def written():
    return []


def test_every_so_many_epochs(walk_through):
    for every, count in ((1, 7), (2, 3), (3, 2), (7, 1), (8, 0)):
        written = []
        checkpoints = Checkpoints(written.append, every_epochs=every)
        assert walk_through(checkpoints, epochs=7, seconds=1e6) is None
        assert len(written) == count, every
        assert all(state.batches == 0 for state in written), every  # after epochs, and not at the start


def test_every_so_many_seconds(walk_through, written, clock):
    start, times = clock.now, []
    checkpoints = Checkpoints(lambda state: times.append(clock.now - start), every_seconds=2.5)
    walk_through(checkpoints, epochs=2, batches=4, seconds=1.0)  # eleven calls, one a second
    assert times == [3.0, 6.0, 9.0]


def test_no_seconds_are_every_batch(walk_through, written):
    walk_through(Checkpoints(written.append, every_seconds=0), epochs=2, batches=3)
    assert [state.batches for state in written] == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_epochs_and_seconds(walk_through, written):
    walk_through(Checkpoints(written.append, every_epochs=2, every_seconds=7), epochs=4, batches=4)
    # calls 7 (by time), 11 (by epoch 2), 18 (by time), 21 (by epoch 4)
    assert [state.batches for state in written] == [1, 0, 2, 0]


def test_by_default_from_time_to_time(walk_through, written, clock):
    start, times = clock.now, []
    checkpoints = Checkpoints(lambda state: times.append(clock.now - start))
    walk_through(checkpoints, epochs=30, batches=3, seconds=0.75)
    first = SECONDS_BEFORE_FIRST + 0.25  # after the batch in which they are over
    assert times == [first, first + SECONDS_BETWEEN, first + 2 * SECONDS_BETWEEN]


def test_by_default_writing_takes_little_of_the_time(walk_through, clock):
    """However slow the disk is: less than its share of all the time after the first one, whose cost nobody knew."""
    for takes in (0.01, 0.2, 3.0, 40.0):
        start, starts = clock.now, []

        def write(state, starts=starts, takes=takes):
            starts.append(clock.now)
            clock.now += takes

        walk_through(Checkpoints(write), epochs=1000, batches=20, seconds=1.0)
        later = starts[1:]
        assert len(later) > 2, takes
        assert len(later) * takes <= SHARE_OF_TIME * (later[-1] + takes - starts[0]), takes
        assert max(np.diff(starts)) <= max(SECONDS_BETWEEN, takes / SHARE_OF_TIME) + takes + 1.0, takes
        assert starts[0] - start == SECONDS_BEFORE_FIRST, takes


def test_a_snapshot_is_taken_only_to_be_written(clock):
    def state():
        pytest.fail("a copy off the device, for nothing")

    checkpoints = Checkpoints(lambda state: None, every_epochs=5)
    for epoch, batches in ((0, 0), (0, 1), (1, 0), (5, 1)):
        assert checkpoints(epoch, batches, state) is False


def test_who_wants_it_stops_the_training(walk_through):
    for at, expected in ((0, (0, 0)), (3, (0, 3)), (5, (1, 0))):
        calls, written = [], []

        def wants_stop(calls=calls, at=at):
            calls.append(None)
            return len(calls) == at + 1

        checkpoints = Checkpoints(written.append, every_epochs=1000, wants_stop=wants_stop)
        assert walk_through(checkpoints, epochs=3, batches=4) == expected
        assert [state.batches for state in written] == [expected[1]]


def test_the_end_is_written_once(walk_through, written):
    checkpoints = Checkpoints(written.append, every_epochs=2)
    walk_through(checkpoints, epochs=3)
    assert len(written) == 1
    checkpoints.write()
    checkpoints.write()
    assert len(written) == 2
    walk_through(checkpoints, epochs=2)
    assert len(written) == 3
    checkpoints.write()
    assert len(written) == 3  # epoch 2 was the last, and is written


def test_a_training_that_has_not_begun_is_not_written(written):
    Checkpoints(written.append).write()
    assert written == []


def test_what_goes_wrong_while_writing_is_told(walk_through):
    def write(state):
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        walk_through(Checkpoints(write, every_epochs=1))


def spoilt(state, name, value):
    """The state with one number that is not finite."""
    if name == "largest_norm":
        return dataclasses.replace(state, largest_norm=value)
    if name in ("theta", "best_theta"):
        array = getattr(state, name).copy()
        array[-1] = value
        return dataclasses.replace(state, **{name: array})
    if name in state.optimizer:
        array = state.optimizer[name].copy()
        array[0] = value
        return dataclasses.replace(state, optimizer={**state.optimizer, name: array})
    last = dataclasses.replace(state.history[-1], **{name: value})
    return dataclasses.replace(state, history=(*state.history[:-1], last))


def test_what_is_not_finite_is_not_written(make_state):
    """The checkpoint before, which can be gone on from, is worth more."""
    names = "largest_norm", "theta", "best_theta", "square", "weight1", "cost", "validation_cost", "best_cost"
    for name, value in itertools.product(names, (math.nan, math.inf)):
        good, written = make_state(), []
        bad = spoilt(good, name, value)
        checkpoints = Checkpoints(written.append, every_epochs=1)
        checkpoints(1, 0, lambda good=good: good)
        checkpoints(2, 0, lambda bad=bad: bad)
        checkpoints.write()
        assert written == [good], (name, value)
        checkpoints(3, 0, lambda good=good: good)
        assert written == [good, good], (name, value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_divergence_leaves_what_can_be_read(cpu, problem, dtype):
    huge = {"float32": 1e37, "float64": 1e307}[dtype]
    schedules = {"every_seconds": 0}, {"every_epochs": 1}, {}
    for every, batch_size, validation in itertools.product(schedules, (None, 4), (True, False)):
        p, written = problem(dtype=dtype), []
        checkpoints = Checkpoints(written.append, **every)
        result = train(
            p.params,
            p.x,
            p.y,
            config=TrainingConfig(50, huge, "sgd", batch_size=batch_size),
            device=cpu,
            validation=(p.x, p.y) if validation else None,
            pause=checkpoints,
        )
        checkpoints.write()
        assert result.stop_reason == "non_finite"
        assert bool(written) == ("every_seconds" in every), every  # it diverges in the first epoch
        for state in written:
            numbers, arrays = state_parts(state)
            json.dumps(numbers, allow_nan=False)
            for name, spec in state_specs(numbers, "sgd", flatten(p.params).size, dtype).items():
                assert not spec.finite or np.isfinite(arrays[name]).all(), (every, batch_size, validation, name)
            assert_same(state_from_parts(numbers, arrays), state)
