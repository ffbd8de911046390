"""Which values a forecast is due to: completeness, gradients, and the same by PyTorch's own."""

import numpy as np
import pandas as pd
import pytest

from gru_xp import Forecaster
from gru_xp.errors import ArgumentError, DataError
from gru_xp.forecasting.explanation import StraightLine, forecast_name
from gru_xp.io.options import ReadOptions
from gru_xp.io.read import read

ROWS, T, H = 90, 13, 3
TINY = {"seq_length": T, "hidden_size": 4, "num_steps": 3, "guard": False, "dtype": "float64", "horizon": H}
ALONE = {"patches": 0, "linear_skip": False}
DEEP = {"num_layers": 2, "bidirectional": True, "dropout": 0.2, "recurrent_dropout": 0.1, "zoneout": 0.3}
SETTINGS = [
    {},
    ALONE,
    {"scaling": "last", "reset": "after", **DEEP},
    {"scaling": "standard", **ALONE},
    {"scaling": "robust", "patches": 4},
    {"scaling": "none", "loss": "mse"},
    {"loss": "quantile", "quantiles": (0.2, 0.45, 0.7)},
    {"loss": "gaussian", **DEEP},
    {"loss": "poisson"},
    {"loss": "poisson", "scaling": "last"},
    {"loss": "poisson", "scaling": "standard", **ALONE},
    {"model": "ridge"},
    {"transform": "log", "maximum": 40.0},
    {"transform": "log", "loss": "mse"},
    {"transform": "sqrt", "loss": "gaussian", **DEEP},
    {"transform": "diff", "scaling": "last"},
]


@pytest.fixture
def counts(rng):
    """Counts, and a walk beside them."""
    counts = 1.0 + rng.poisson(5 + 3 * np.sin(np.arange(ROWS)))
    return np.stack([counts, rng.standard_normal(ROWS).cumsum()], axis=1)


@pytest.fixture
def learn(counts, cpu):
    """``learn(**settings)``: a tiny forecaster that has learned the counts a little, and what it has learned."""

    def learn(**settings):
        values = counts[:, :1] if settings.get("model") == "ridge" else counts
        return Forecaster(**(TINY | settings)).fit(values, device=cpu), values

    return learn


def with_last(values, window):
    """The series with another last window."""
    return np.concatenate([values[: -len(window)], window])


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_attributions_are_the_difference_from_the_forecast_of_the_baseline(learn, settings, rng):
    """The gradient, too, is the forecast's own, by central differences."""
    forecaster, values = learn(**settings)
    lag = forecaster.window_length - T  # of differences, which attributions are to
    window, rows = values[-T:], values[-T - lag :]
    explanation = forecaster.explain(values, 2)
    forecast = forecaster.forecast(values, H)[1]
    baseline = forecaster.forecast(with_last(values, np.tile(window[-1:], (T + lag, 1))), H)[1]
    np.testing.assert_allclose([explanation.forecast, explanation.baseline_forecast], [forecast, baseline], rtol=1e-12)
    assert explanation.attributions.shape == explanation.values.shape == window.shape
    assert np.abs(explanation.attributions).sum() > 1e-3
    assert abs(explanation.attributions.sum() - (forecast - baseline)) < 1e-6 * abs(forecast)
    if not lag:
        np.testing.assert_array_equal(explanation.attributions[-1], 0.0)

    line = StraightLine(forecaster, rows, np.ones(window.shape, dtype=bool), np.array([0.0, 1.0, 0.0]))
    (gradient,) = line.gradients(np.array([1.0]))
    direction, size = rng.standard_normal(rows.shape), 1e-5
    if lag:
        direction[-1] = 0.0  # what differences are added to is no part of the window
    ends = np.stack([rows - size * direction, rows + size * direction])
    transformed = forecaster.target_transform.forward_windows(ends)
    low, high = (forecaster.forecast(with_last(values, end), H)[1] for end in ends)
    assert np.sum(gradient * np.diff(transformed[:, lag:], axis=0)[0]) == pytest.approx(high - low, rel=1e-6, abs=1e-11)


def test_without_a_step_it_is_the_mean_of_the_horizon(learn):
    forecaster, values = learn()
    mean = forecaster.explain(values, origin=70)
    each = [forecaster.explain(values, step, origin=70) for step in (1, 2, 3)]
    np.testing.assert_allclose(mean.attributions, np.mean([one.attributions for one in each], axis=0), atol=1e-12)
    assert mean.forecast == pytest.approx(forecaster.forecasts(values, [70], H)[0].mean())
    assert (mean.step, each[1].step, mean.rows[0], mean.rows[-1]) == (None, 2, 70 - T, 69)
    assert "mean" in forecast_name(mean)
    assert "2 steps ahead" in forecast_name(each[1])


def test_a_ridge_is_explained_by_its_weights(learn):
    forecaster, values = learn(model="ridge")
    change = values[-T:, 0] - values[-1, 0]
    expected = forecaster.params.skip.weight[0] * change  # the units of the window cancel
    np.testing.assert_allclose(forecaster.explain(values, 1).attributions[:, 0], expected, atol=1e-10)


@pytest.mark.peer
def test_attributions_are_those_of_autograd(learn, torch_network):
    """Of the same network in PyTorch, with the scales of the windows, by the midpoint rule."""
    torch = pytest.importorskip("torch")
    forecaster, values = learn(reset="after", num_layers=2, num_steps=30, learning_rate=0.03)
    network, std = torch_network(forecaster.params), torch.tensor(forecaster.scaler.std, dtype=torch.float64)
    window = torch.tensor(values[-T:])
    at = (torch.arange(2000) + 0.5) / 2000
    w = (window[-1] + at[:, None, None] * (window - window[-1])).requires_grad_()
    unit = (w - w[:, -1:]).std(1, correction=0, keepdim=True) + 0.05 * std
    (w[:, -1, 0] + unit[:, 0, 0] * network((w - w[:, -1:]) / unit)[:, 0]).sum().backward()
    expected = (window - window[-1]) * w.grad.mean(0)
    explanation = forecaster.explain(values, 1)
    np.testing.assert_allclose(explanation.attributions, expected.numpy(), atol=1e-5 * float(expected.abs().max()))


def test_single_precision_and_files(learn, cpu, tmp_path):
    double, values = learn()
    forecaster, _ = learn(dtype="float32")
    explanation = forecaster.explain(values)
    assert abs(explanation.completeness_error) < 1e-5 * abs(explanation.forecast)
    np.testing.assert_allclose(explanation.attributions, double.explain(values).attributions, atol=1e-3)
    forecaster.save(tmp_path / "model.safetensors")
    again = Forecaster.load(tmp_path / "model.safetensors", device=cpu).explain(values)
    np.testing.assert_array_equal(again.attributions, explanation.attributions)


def test_a_window_that_begins_to_move_takes_more_points(learn):
    """Its unit is far smaller in the baseline, and changes as soon as the window leaves it."""
    forecaster, values = learn(**ALONE, num_steps=30, learning_rate=0.05)
    window = values[-T:].copy()
    window[:-1, 0] += 1e2 * np.arange(T - 1)
    explanation = forecaster.explain(with_last(values, window), 1)
    assert explanation.points > 32
    assert abs(explanation.completeness_error) < 1e-3 * np.abs(explanation.attributions).sum()
    flat = forecaster.explain(with_last(values, np.tile(values[-1:], (T, 1))), 1)
    assert not flat.attributions.any()
    assert flat.completeness_error == 0


def test_missing_and_interpolated_values(counts, small, cpu):
    frame = pd.DataFrame(counts, columns=["a", "b"])
    frame.loc[[20, 40, 75, 76, 80, 81], "a"] = np.nan
    masked, between = (read(frame, "a", "all", ReadOptions(missing=how)) for how in ("mask", "interpolate"))
    forecaster = Forecaster(**TINY).fit(masked, device=cpu)
    assert forecaster.sees_gaps
    explanation = forecaster.explain(masked, 3)
    assert explanation.attributions.shape == (T, 2)
    assert abs(explanation.completeness_error) < 1e-6
    assert explanation.forecast == pytest.approx(forecaster.forecast(masked, H)[2])

    forecaster = Forecaster(**TINY).fit(between, device=cpu)
    known = forecaster.explain(between, 1, origin=81)
    assert known.forecast == pytest.approx(forecaster.forecasts(between, [81], 1)[0, 0], rel=1e-12)
    assert known.values[-1, 0] == known.values[-2, 0]  # row 80 is not known to lead to row 82


def test_the_frame_and_the_dictionary(counts, cpu):
    dates = pd.date_range("2024-01-01", periods=ROWS, freq="D")
    frame = pd.DataFrame(counts, dates, ["Sales", "Price"])
    explanation = Forecaster(**TINY).fit(frame, target="Sales", features="all", device=cpu).explain(frame)
    table = explanation.to_frame().pivot(index="ds", columns="column", values="attribution")
    assert list(table.index) == list(dates[-T:])
    np.testing.assert_array_equal(table[["Sales", "Price"]], explanation.attributions)
    rows = explanation.to_dict()["rows"]
    assert [row["row"] for row in rows] == list(range(ROWS - T, ROWS))
    assert rows[4]["values"] == {"Sales": counts[-T + 4, 0], "Price": counts[-T + 4, 1]}
    assert rows[4]["attributions"]["Price"] == explanation.attributions[4, 1]


def test_what_cannot_be_explained(learn, refusal):
    forecaster, values = learn()
    for arguments, parts in (
        ({"step": H + 1}, ("step is 4", "at most 3")),
        ({"step": 0}, ("step is 0",)),
        ({"origin": T - 1}, ("origin",)),
        ({"origin": ROWS + 1}, ("origin",)),
    ):
        refusal(lambda arguments=arguments: forecaster.explain(values, **arguments), *parts, error=ArgumentError)
    refusal(lambda: forecaster.explain(values[-T + 1 :]), "too few")
    forecaster.fallback = "last value"
    refusal(lambda: forecaster.explain(values), "last value", "guard=False", error=ArgumentError)
    forecaster.fallback = None
    forecaster.params.linear.bias[:] = np.inf
    with pytest.raises(DataError, match="finite"):
        forecaster.explain(values)
