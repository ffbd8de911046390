import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from gru_xp.errors import ArgumentError, NotFittedError
from gru_xp.forecasting import Forecaster
from gru_xp.forecasting.evaluation import evaluate
from gru_xp.forecasting.windows import split_rows
from gru_xp.reporting.figures import KINDS, OF_PARTS, run_plots


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(8)
    return 20 + 5 * np.sin(np.arange(150) * 2 * np.pi / 6) + rng.normal(size=150)


@pytest.fixture(scope="module")
def quantiles(rows):
    forecaster = Forecaster(hidden_size=4, num_epochs=2, horizon=3, seq_length=12, season=6, loss="quantile")
    return forecaster.fit(rows[:110], device="cpu")


@pytest.fixture(scope="module")
def ridge(rows):
    forecaster = Forecaster(model="ridge", seq_length=12, season=6, dtype="float64", guard=False)
    return forecaster.fit(rows[:110], device="cpu")


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_a_forecaster_draws_each_kind(quantiles, rows):
    for kind in KINDS:
        figure = quantiles.plot(kind, rows, start=110)
        assert isinstance(figure, Figure), kind
        figure.draw_without_rendering()
    assert plt.get_fignums() == []  # no figure is left to pyplot


def test_the_forecast_that_is_drawn_is_that_of_the_forecaster(ridge, quantiles, rows):
    drawn = lines(ridge.plot("forecast", rows, 7).axes[1])
    np.testing.assert_allclose(drawn["ridge"].get_ydata()[1:], ridge.forecast(rows, 7))
    np.testing.assert_array_equal(drawn["seasonal naive"].get_ydata()[1:], np.tile(rows[-6:], 2)[:7])
    axes = quantiles.plot("forecast", rows).axes[1]
    (band,) = (found for found in axes.collections if found.get_label() == "80%")
    expected = quantiles.forecast_distribution(rows, 3)
    name = next(column for column in expected if column.endswith("hi-80"))
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(max(expected[name].max(), rows[-1]))


def test_how_many_rows_are_forecast(ridge, quantiles, rows):
    """A season; no more than the horizon where there are intervals."""
    for forecaster, steps in ((ridge, 6), (quantiles, 3)):
        axes = forecaster.plot("forecast", rows).axes[1]
        forecast = next(line for name, line in lines(axes).items() if name.startswith(("ridge", "GRU")))
        assert len(forecast.get_ydata()) == steps + 1


def test_errors_that_are_drawn_are_those_of_evaluate(ridge, rows):
    result = ridge.evaluate(rows, 4, start=110)
    (axes,) = ridge.plot("error_by_step", rows, 4, start=110).axes
    np.testing.assert_array_equal(lines(axes)["ridge"].get_ydata(), result.metrics["models"]["Ridge"]["by_step"]["mae"])
    (again,) = result.plot("error_by_step").axes
    np.testing.assert_array_equal(lines(again)["ridge"].get_ydata(), lines(axes)["ridge"].get_ydata())
    assert len(result.plot().axes) == 2


def test_what_cannot_be_drawn_is_refused(ridge, quantiles, rows, tmp_path):
    quantiles.save(tmp_path / "model.safetensors")
    loaded = Forecaster.load(tmp_path / "model.safetensors", device="cpu")
    for forecaster, arguments, message in (
        (quantiles, ("folds", rows), "'folds'.*'forecast'.*'cost'"),
        (quantiles, (None,), "None"),
        (quantiles, ("forecast",), "needs a series"),
        (quantiles, ("forecast", rows, 0), "steps"),
        (ridge, ("cost",), "ridge"),
        (loaded, ("cost",), "history"),
    ):
        with pytest.raises(ArgumentError, match=message):
            forecaster.plot(*arguments)
    with pytest.raises(ArgumentError, match="'cost'"):
        ridge.evaluate(rows, start=110).plot("cost")
    with pytest.raises(NotFittedError):
        Forecaster().plot("cost")


def test_a_run_has_all_plots(ridge, quantiles, rows):
    names = ["forecast_plot", "sequence_plot", "error_by_step", "residual_plot"]
    for forecaster, expected in ((ridge, names), (quantiles, [*names, "cost_plot"])):
        series = forecaster.evaluate(rows, start=110).series
        split = split_rows(150, 12, 110 / 150, 0.0, forecaster.horizon)
        parts = evaluate(forecaster, series, {"train": split.part("train"), "test": split.part("test")}, learned=110)
        figures = dict(run_plots(forecaster, series, split, parts))
        assert list(figures) == expected
        drawn = next(
            line for name, line in lines(figures["sequence_plot"].axes[0]).items() if name.startswith(("ridge", "GRU"))
        )
        np.testing.assert_array_equal(drawn.get_ydata(), parts[-1].y_pred)
    assert set(OF_PARTS) < set(KINDS)
