"""Series that say which of their values were missing, from what the network gets to what is told of its errors."""

import dataclasses

import numpy as np
import pytest

from gru_xp.errors import CheckpointError, DataError
from gru_xp.forecasting import Forecaster, fitting
from gru_xp.forecasting.evaluation import evaluate
from gru_xp.forecasting.metrics import accuracy
from gru_xp.forecasting.scaling import Scaler
from gru_xp.io.options import ReadOptions
from gru_xp.io.read import read
from gru_xp.io.series import TimeSeries
from gru_xp.nn.network import network_forward
from gru_xp.nn.params import flatten

T = 4


@pytest.fixture
def series(walk, rng):
    """Two columns and 60 rows, a sixth of whose values were missing; the last one before stands for each."""
    values = walk(60, 2)
    values[rng.random((60, 2)) < 1 / 6] = np.nan
    values[0] = 50.0, 90.0
    return read(values, None, (), ReadOptions(missing="mask"))


@pytest.fixture
def given(monkeypatch):
    """What `train` gets, one dict a call: x, y and validation."""
    calls = []

    def all_of(sequences):
        x, y, _ = sequences.gather(np.arange(sequences.n))
        return x, y

    def spy(params, sequences, *, validation, original=fitting.train, **options):
        x, y = all_of(sequences)
        calls.append({"x": x, "y": y, "validation": None if validation is None else all_of(validation)})
        return original(params, sequences, validation=validation, **options)

    monkeypatch.setattr(fitting, "train", spy)
    return calls


def cost_of(fitted):
    return fitted.training.history[0].cost


# --- what the network gets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["last", "standard"])
def test_the_network_gets_an_indicator_for_each_column(small, series, cpu, given, scaling):
    """Each window by hand: scaled values, then ones and zeros; those before a missing target are not there."""
    fitted = small(dtype="float64", scaling=scaling).fit(series, device=cpu)
    assert fitted.sees_gaps
    assert fitted.architecture().input_size == 4
    assert fitted.params.gru[0][0].weight_ih.shape == (15, 4)
    scaler = Scaler.fit(scaling, series.values[:48], series.columns)
    assert fitted.scaler == scaler
    parts = {"train": range(T, 48), "validation": range(48, 60)}
    expected = {}
    for name, targets in parts.items():
        rows = [row for row in targets if series.observed[row, 0]]
        windows = np.stack([series.values[row - T : row] for row in rows])
        flags = np.stack([series.observed[row - T : row] for row in rows])
        x = np.concatenate([scaler.scale_windows(windows), np.where(flags, 1.0, 0.0)], axis=2)
        expected[name] = x, scaler.scale_targets(series.values[rows, 0], windows)[:, None]
        assert 0 < len(rows) < len(targets)
    (call,) = given
    for name, (x, y) in {"train": (call["x"], call["y"]), "validation": call["validation"]}.items():
        np.testing.assert_array_equal(x, expected[name][0], err_msg=name)
        np.testing.assert_array_equal(y, expected[name][1], err_msg=name)
        assert set(np.unique(x[..., 2:])) == {0.0, 1.0}


def test_a_gap_that_validation_rows_end_says_nothing_of_them(small, walk, cpu, given):
    scalers, values = [], walk(60, 2)
    values[44:51] = np.nan
    for change in (0.0, 1000.0):
        later = values + change * (np.arange(60) >= 48)[:, None]
        series = read(later, None, (), ReadOptions(missing="interpolate"))
        scalers.append(small(scaling="standard").fit(series, device=cpu).scaler)
    assert scalers[0] == scalers[1]
    ours, theirs = given
    for name in ("x", "y"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert (ours["validation"][1] != theirs["validation"][1]).any()


def test_nothing_is_added_where_nothing_is_marked(small, series, cpu, given):
    fitted = small().fit(dataclasses.replace(series, observed=None), device=cpu)
    assert not fitted.sees_gaps
    assert fitted.architecture().input_size == 2
    assert given[0]["x"].shape == (48 - T, T, 2)


def test_marks_that_mark_nothing_are_inputs_all_the_same(small, series, cpu, given):
    """Such as those of the first rows of a file whose gaps come later."""
    whole = dataclasses.replace(series, observed=np.ones((60, 2), bool))
    fitted = small(dtype="float64").fit(whole, device=cpu)
    assert fitted.sees_gaps
    assert given[0]["x"].shape == (48 - T, T, 4)
    assert (given[0]["x"][..., 2:] == 1.0).all()


def test_what_stands_for_a_missing_target_is_not_learned(small, walk, cpu):
    """The last training row is in no window of that part, only a target."""
    values, observed = walk(60, 2), np.ones((60, 2), bool)
    observed[47, 0] = False
    gap = TimeSeries(values, ("a", "b"), observed=observed)
    other = dataclasses.replace(gap, values=values.copy())
    other.values[47, 0] += 1000.0
    settings = {"validation_ratio": 0.2, "scaling": "standard", "dtype": "float64"}
    scaler = Scaler.fit("standard", values[:48], gap.columns)  # which does look at it

    def fit(series):
        return small(**settings).fit(series, device=cpu)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scaler, "fit", lambda *args: scaler)
        ours, theirs = fit(gap), fit(other)
        assert [r.cost for r in ours.training.history] == [r.cost for r in theirs.training.history]
        all_there = np.ones((60, 2), bool)
        first, second = (fit(dataclasses.replace(each, observed=all_there)) for each in (gap, other))
        assert cost_of(first) != cost_of(second)
    # the validation's windows do look back on it
    costs = [each.training.history[0].validation_cost for each in (ours, theirs)]
    assert costs[0] != costs[1]


def test_what_stands_for_a_missing_input_is_seen_together_with_its_mark(small, series, cpu):
    fitted = small(dtype="float64", scaling="standard", validation_ratio=0.0).fit(series, device=cpu)
    before = fitted.predict(series)
    row = int(np.flatnonzero(series.observed[:50, 1])[10])
    observed = series.observed.copy()
    observed[row, 1] = False
    after = fitted.predict(dataclasses.replace(series, observed=observed))
    changed = np.flatnonzero(after != before) + T
    np.testing.assert_array_equal(changed, range(row + 1, row + 1 + T))


@pytest.mark.parametrize(("part", "rows"), [("train", slice(T, 48)), ("validation", slice(48, 60))])
def test_a_part_without_targets_is_refused(small, series, cpu, part, rows):
    observed = series.observed.copy()
    observed[rows, 0] = False
    gaps = dataclasses.replace(series, observed=observed)
    with pytest.raises(DataError, match=f"every target of the {part} part .*mask"):
        small().fit(gaps, device=cpu)
    if part == "validation":
        assert small(validation_ratio=0.0).fit(gaps, device=cpu).sees_gaps


@pytest.mark.parametrize(
    "settings",
    [
        {"num_layers": 2, "bidirectional": True, "dropout": 0.2, "reset": "after"},
        {"batch_size": 7, "recurrent_dropout": 0.2, "zoneout": 0.1},
        {"optimizer": "sgd", "learning_rate": 1e-3, "keep_every": 2},
    ],
    ids=str,
)
def test_all_kinds_of_networks(small, series, cpu, settings):
    fitted, again = (small(**settings).fit(series, device=cpu) for _ in range(2))
    np.testing.assert_array_equal(flatten(fitted.params), flatten(again.params))
    costs = [record.cost for record in fitted.training.history]
    assert min(costs) < costs[0]


def test_knowing_of_gaps_helps(small, cpu):
    """A value that is the last one, or, after a gap, something that the last one says nothing of."""
    rng = np.random.default_rng(3)
    flags = rng.random(400) < 0.5
    target = np.where(np.roll(flags, 1), 1.0, -1.0) + 0.05 * rng.standard_normal(400)
    values = np.stack([target, rng.standard_normal(400)], axis=1)
    observed = np.stack([np.ones(400, bool), flags], axis=1)
    series = TimeSeries(values, ("target", "other"), observed=observed)
    settings = {"seq_length": 3, "hidden_size": 8, "num_epochs": 120, "learning_rate": 0.02, "scaling": "standard"}
    told = small(**settings).fit(series, device=cpu)
    untold = small(**settings).fit(dataclasses.replace(series, observed=None), device=cpu)
    best, without = (min(record.validation_cost for record in each.training.history) for each in (told, untold))
    assert best < 0.05
    assert without > 0.5


# --- predictions and errors -------------------------------------------------------------------------------------


@pytest.fixture
def fitted(small, series, cpu):
    return small(dtype="float64").fit(series, device=cpu)


def test_predictions_are_those_of_the_network(fitted, series):
    predictions = fitted.predict(series)
    assert predictions.shape == (60 - T,)
    for row in range(T, 60):
        window, flags = series.values[None, row - T : row], series.observed[None, row - T : row]
        x = np.concatenate([fitted.scaler.scale_windows(window), flags.astype(float)], axis=2)
        y = network_forward(x, fitted.params, reset="before")[0][:, 0]
        assert predictions[row - T] == pytest.approx(fitted.scaler.unscale_predictions(y, window)[0], rel=1e-12)


def test_forecasts_are_values_that_are_there(fitted, series):
    """One after the other, by hand; other columns stay at their last value, and at what their mark says."""
    observed = series.observed.copy()
    observed[-1] = False
    gaps = dataclasses.replace(series, observed=observed)
    values, expected = gaps.values.copy(), []
    for _ in range(6):
        extended = TimeSeries(
            np.vstack([values, values[-1:]]), gaps.columns, observed=np.vstack([observed, observed[-1:]])
        )
        expected.append(fitted.predict(extended)[-1])
        values = np.vstack([values, [[expected[-1], values[-1, 1]]]])
        observed = np.vstack([observed, [[True, False]]])
    np.testing.assert_allclose(fitted.forecast(gaps, 6), expected, rtol=1e-12)
    assert fitted.forecast(series, 1)[0] != expected[0]


def test_a_series_without_gaps_is_predicted_as_one_that_has_everything(fitted, walk, series):
    values = walk(30, 2)
    everything = TimeSeries(values, series.columns, observed=np.ones((30, 2), bool))
    np.testing.assert_array_equal(fitted.predict(values), fitted.predict(everything))
    np.testing.assert_array_equal(fitted.forecast(values, 3), fitted.forecast(everything, 3))


def test_a_model_that_knows_of_no_gaps_takes_what_stands_for_them(small, walk, series, cpu):
    fitted = small().fit(walk(60, 2), device=cpu)
    bare = dataclasses.replace(series, observed=None)
    np.testing.assert_array_equal(fitted.predict(series), fitted.predict(bare))
    np.testing.assert_array_equal(fitted.forecast(series, 3), fitted.forecast(bare, 3))


def test_columns_keep_their_marks_in_another_order(fitted, series):
    named = Forecaster.from_description(fitted.describe() | {"columns": ["a", "b"]})
    named.params, named.device = fitted.params, fitted.device
    turned = TimeSeries(series.values[:, ::-1], ("b", "a"), observed=series.observed[:, ::-1])
    np.testing.assert_array_equal(named.predict(turned), fitted.predict(series))


def test_errors_are_those_of_targets_that_were_there(fitted, series):
    parts = {"train": slice(0, 48), "validation": slice(48, 60)}
    evaluated = {part.name: part for part in evaluate(fitted, series, parts)}
    predictions = fitted.predict(series)
    for name, targets in (("train", range(T, 48)), ("validation", range(48, 60))):
        rows = [row for row in targets if series.observed[row, 0]]
        part = evaluated[name]
        assert list(part.rows) == rows
        assert part.metrics["windows"] == len(rows) < len(targets)
        np.testing.assert_array_equal(part.y_true, series.values[rows, 0])
        np.testing.assert_array_equal(part.y_pred, predictions[[row - T for row in rows]])
        naive = series.values[[row - 1 for row in rows], 0]
        forecasts = {"GRU": part.y_pred[:, None], "LastValue": naive[:, None]}
        train = np.where(series.observed[:, 0], series.values[:, 0], np.nan)
        for model, errors in accuracy(part.y_true[:, None], forecasts, train, part.metrics["season"]).items():
            found = part.metrics["models"][model]
            assert {name: found[name] for name in errors} == pytest.approx(errors, rel=1e-12)


def test_errors_and_costs_agree(fitted, series):
    """Of the best epoch, in units of the scaler; the recorded costs leave out the same rows."""
    parts = {"train": slice(0, 48), "validation": slice(48, 60)}
    unit = fitted.scaler.change_std[0]
    record = fitted.training.history[fitted.best_epoch]
    for part in evaluate(fitted, series, parts):
        cost = {"train": record.cost, "validation": record.validation_cost}[part.name]
        assert (part.metrics["models"]["GRU"]["rmse"] / unit) ** 2 == pytest.approx(cost, rel=1e-9)


def test_a_part_of_missing_targets_has_no_errors(fitted, series):
    observed = series.observed.copy()
    observed[50:, 0] = False
    gaps = dataclasses.replace(series, observed=observed)
    names = [part.name for part in evaluate(fitted, gaps, {"start": slice(0, 50), "end": slice(50, 60)})]
    assert names == ["start"]


def test_a_series_of_missing_targets_alone_is_refused(fitted, series):
    observed = series.observed.copy()
    observed[T:, 0] = False
    gaps = dataclasses.replace(series, observed=observed)
    with pytest.raises(DataError, match=r"column 0 is missing .*first 4"):
        evaluate(fitted, gaps, {"all": slice(None)})
    assert fitted.predict(gaps).shape == (60 - T,)


# --- files ------------------------------------------------------------------------------------------------------


def test_a_model_file_keeps_the_inputs(fitted, series, cpu, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    loaded = Forecaster.load(tmp_path / "model.safetensors", device=cpu)
    assert loaded.sees_gaps
    np.testing.assert_array_equal(loaded.predict(series), fitted.predict(series))
    np.testing.assert_array_equal(loaded.forecast(series, 5), fitted.forecast(series, 5))


def test_a_description_of_other_inputs_is_refused(fitted, small, walk, cpu):
    without = small(dtype="float64").fit(walk(60, 2), device=cpu)
    for model, sees_gaps in ((fitted, False), (without, True)):
        with pytest.raises(CheckpointError, match=r"weights .*shapes"):
            Forecaster.from_parts(model.params, model.describe() | {"sees_gaps": sees_gaps}, cpu)
    for wrong in (1, None, "yes"):
        with pytest.raises(CheckpointError, match=f"'sees_gaps' .*is {wrong!r}; .*bool"):
            Forecaster.from_parts(fitted.params, fitted.describe() | {"sees_gaps": wrong}, cpu)


def test_a_second_fit_starts_anew(fitted, series, cpu):
    fitted.fit(dataclasses.replace(series, observed=None), device=cpu)
    assert not fitted.sees_gaps
    assert fitted.architecture().input_size == 2
    fitted.fit(series, device=cpu)
    assert fitted.sees_gaps


def test_what_was_not_marked_is_refused_as_before(small, cpu, walk):
    values = walk(60)
    values[7, 0] = np.nan
    with pytest.raises(DataError, match="row 7"):
        small().fit(values, device=cpu)
