import math
from dataclasses import replace
from datetime import datetime, timedelta

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.dates import date2num

from gru_xp.forecasting.evaluation import evaluated_part
from gru_xp.reporting.plots import (
    MAX_FOLDS,
    Coming,
    cost_plot,
    error_by_step,
    folds_plot,
    forecast_plot,
    residual_plot,
    row_times,
    sequence_plot,
)
from gru_xp.reporting.style import save_figure
from gru_xp.training.trainer import EpochRecord

PARTS = {"train": slice(0, 60), "validation": slice(60, 80), "test": slice(80, None)}


def lines(axes):
    """The drawn lines by their label."""
    return {line.get_label(): line for line in axes.get_lines()}


def written(axes):
    """The labels at the lines, by text: their heights in the axes."""
    return {text.get_text(): text.get_position()[1] for text in axes.texts}


def bands(axes):
    """Filled areas by their label: lowest and highest value."""
    found = {}
    for band in (*axes.collections, *axes.patches):
        vertices = (band.get_paths()[0] if hasattr(band, "get_paths") else band.get_path()).vertices
        found[band.get_label()] = vertices
    return found


def title(figure):
    return figure._suptitle.get_text().replace("\n", " ")


@pytest.fixture
def coming():
    def coming(steps, quantiles=()):
        points = 50 + np.arange(steps) / 7
        return Coming("GRU", points, points - 3, "drift", {level: points + 9 * (level - 0.5) for level in quantiles})

    return coming


@pytest.fixture
def part(backtest):
    """``part(...)``: the test part of a `backtest`."""

    def part(*arguments, **options):
        result = backtest(*arguments, **options)
        return result.series, evaluated_part("test", result)

    return part


# --- forecast -----------------------------------------------------------------------------------------------------


def test_forecast_has_the_series_with_its_parts_and_what_comes(backtest, coming):
    series = backtest(100, 80).series
    figure = forecast_plot(series, PARTS, coming(5, (0.025, 0.1, 0.5, 0.9, 0.975)))
    whole, last = figure.axes
    np.testing.assert_array_equal(lines(whole)["actual"].get_ydata(), series.values[:, 0])
    np.testing.assert_array_equal(lines(whole)["GRU"].get_ydata()[-5:], coming(5).points)
    assert written(whole).keys() == {"train", "validation", "test", "forecast"}
    day = date2num(series.dates[0])
    shaded = {name: (band[:, 0].min(), band[:, 0].max()) for name, band in bands(whole).items()}
    widths = {name: patch.get_width() for name, patch in ((p.get_label(), p) for p in whole.patches)}
    assert shaded.keys() == widths.keys() == {"validation", "test", "forecast"}
    assert (widths["validation"], widths["test"], widths["forecast"]) == (19, 19, 5)
    assert whole.get_xlim()[0] == pytest.approx(day - 1.04)

    forecast, naive = lines(last)["GRU"], lines(last)["drift"]
    np.testing.assert_allclose(forecast.get_ydata(), [series.values[-1, 0], *coming(5).points])
    np.testing.assert_allclose(naive.get_ydata(), [series.values[-1, 0], *coming(5).naive])
    np.testing.assert_array_equal(date2num(forecast.get_xdata()), day + 99 + np.arange(6))
    assert naive.get_linestyle() == "--"
    fan = bands(last)
    for name, half in (("80%", 3.6), ("95%", 4.275)):
        top, bottom = fan[name][:, 1].max(), coming(5).points[0] - half
        assert top == pytest.approx(max(coming(5).points[-1] + half, series.values[-1, 0])), name
        assert fan[name][:, 1].min() == pytest.approx(min(bottom, series.values[-1, 0])), name
    assert written(last).keys() == {"GRU", "drift", "80%", "95%", "actual"}


def test_no_plot_has_a_legend_or_lines_around_it(backtest, part, coming, history):
    series, test = part(100, 60, 3)
    for figure in (
        forecast_plot(series, PARTS, coming(5)),
        sequence_plot(series, test),
        error_by_step(series, test),
        residual_plot(series, test),
        cost_plot("Value", history(3), 2),
        folds_plot(backtest(100, 60, 3)),
    ):
        for axes in figure.axes:
            assert axes.get_legend() is None
            assert not axes.spines["top"].get_visible()
            assert not axes.spines["right"].get_visible()


def test_forecast_of_one_row_and_of_none(backtest, coming):
    series = backtest(100, 80, dates=False).series
    _, last = forecast_plot(series, {}, coming(1)).axes
    assert list(lines(last)["GRU"].get_xdata()) == [99, 100]
    (whole,) = forecast_plot(series, PARTS).axes
    assert "forecast" not in written(whole)


def test_times_go_on_or_count_rows(backtest):
    series = backtest(40, 20).series
    days = row_times(series, 3)
    assert days[-1] == np.datetime64(series.dates[-1]) + np.timedelta64(3, "D")
    assert list(row_times(backtest(40, 20, dates=False).series, 2)) == list(range(42))
    uneven = tuple(day + timedelta(days=row**2) for row, day in enumerate(series.dates))
    irregular = replace(series, dates=uneven, reading=replace(series.reading, freq=None))
    assert row_times(irregular).dtype.kind == "M"
    assert list(row_times(irregular, 1)) == list(range(41))


@pytest.mark.parametrize(
    ("first", "last", "counts_rows"),
    [
        (1000, 9970, True),
        (2500, 7400, False),
        (20, 2100, True),
        (1, 9999, True),
        (9700, 9960, True),
        (1700, 2024, False),
    ],
)
def test_an_axis_that_would_leave_the_calendar_counts_rows(backtest, first, last, counts_rows):
    dates = tuple(datetime(year, 1, 1) for year in np.linspace(first, last, 40).astype(int))
    series = replace(backtest(40, 20).series, dates=dates)
    assert (row_times(series).dtype.kind == "i") == counts_rows
    forecast_plot(series, {"train": slice(0, 40)}).draw_without_rendering()


# --- sequence -----------------------------------------------------------------------------------------------------


def test_sequence_has_actual_values_and_predictions(part):
    series, test = part(100, 50, quantiles=True)
    figure = sequence_plot(series, test)
    (axes,) = figure.axes
    drawn = lines(axes)
    np.testing.assert_array_equal(drawn["actual"].get_ydata(), test.y_true)
    np.testing.assert_array_equal(drawn["GRU"].get_ydata(), test.y_pred)
    best = {"LastValue": "last value", "Mean": "mean", "Drift": "drift"}[test.metrics["best_baseline"]]
    np.testing.assert_array_equal(drawn[best].get_ydata(), test.y_naive)
    assert drawn[best].get_linestyle() == "--"
    np.testing.assert_array_equal(date2num(drawn["GRU"].get_xdata()), date2num(series.dates[50:]))
    assert written(axes).keys() == {"actual", "GRU", best, "80%", "95%"}
    assert f"{test.metrics['models']['GRU']['mae']:.4g}" in title(figure)
    top = bands(axes)["95%"][:, 1].max()
    assert top == pytest.approx(test.y_pred.max() + 2)


def test_sequence_shows_the_last_three_seasons_of_a_long_part(part):
    series, test = part(1000, 500, season=40)
    figure = sequence_plot(series, test)
    np.testing.assert_array_equal(lines(figure.axes[0])["GRU"].get_ydata(), test.y_pred[-120:])
    assert "last rows" in title(figure)
    series, test = part(1000, 500)
    np.testing.assert_array_equal(lines(sequence_plot(series, test).axes[0])["GRU"].get_ydata(), test.y_pred)


def test_sequence_of_one_row_begins_before_it(part):
    series, test = part(100, 99)
    (axes,) = sequence_plot(series, test).axes
    np.testing.assert_array_equal(lines(axes)["actual"].get_ydata(), series.values[70:, 0])
    y = lines(axes)["GRU"].get_ydata()
    assert y[-1] == test.y_pred[0]
    assert np.isnan(y[:-1]).all()


def test_missing_rows_interrupt_the_lines(part):
    series, test = part(100, 50, missing=(70, 71))
    (axes,) = sequence_plot(series, test).axes
    for name in ("actual", "GRU"):
        assert np.flatnonzero(np.isnan(lines(axes)[name].get_ydata())).tolist() == [20, 21], name


# --- errors -------------------------------------------------------------------------------------------------------


def test_error_by_step_beside_the_baselines(part):
    series, test = part(400, 200, 4, season=12)
    figure = error_by_step(series, test)
    (axes,) = figure.axes
    names = {"GRU": "GRU", "LastValue": "last value", "Drift": "drift", "SeasonalNaive": "seasonal naive"}
    drawn, best = lines(axes), names[test.metrics["best_baseline"]]
    for column, name in names.items():
        np.testing.assert_array_equal(drawn[name].get_xdata(), [1, 2, 3, 4])
        np.testing.assert_array_equal(drawn[name].get_ydata(), test.metrics["models"][column]["by_step"]["mae"])
    assert {name for name, line in drawn.items() if line.get_linestyle() == "--"} == {best}
    assert axes.get_ylim()[0] == 0
    assert names.items() <= {(c, n) for c, n in names.items() if n in written(axes)}


def test_errors_that_are_far_off_are_named_and_not_drawn(part):
    series, test = part(400, 200, 4)
    for errors, text in (([1e6] * 4, "mean ↑ 1,000,000"), ([None] * 4, "mean ↑ ")):
        models = test.metrics["models"]
        far = {**models, "Mean": {**models["Mean"], "by_step": {"mae": errors}}}
        (axes,) = error_by_step(series, replace(test, metrics={**test.metrics, "models": far})).axes
        assert "mean" not in lines(axes)
        assert text in written(axes)
        assert axes.get_ylim()[1] < 1000


def test_lines_that_end_above_the_axes_or_together_say_so(part):
    series, test = part(400, 200, 4)
    models = test.metrics["models"]
    high = 3.5 * max(max(models[name]["by_step"]["mae"]) for name in ("GRU", test.metrics["best_baseline"]))
    errors = {"Mean": [0.1, 0.2, 0.3, high], "LastValue": [0.5, 0.6, 0.7, 0.8], "Drift": [0.5, 0.6, 0.7, 0.8]}
    changed = {name: {**models[name], "by_step": {"mae": values}} for name, values in errors.items()}
    metrics = {**test.metrics, "models": {**models, **changed}, "best_baseline": "LastValue"}
    (axes,) = error_by_step(series, replace(test, metrics=metrics)).axes
    assert written(axes).keys() == {"mean ↑", "last value, drift", "GRU"}


def test_a_model_that_is_the_best_forecast_without_training_leaves_it_visible(part):
    series, test = part(100, 60, 3)
    best, metrics = test.metrics["best_baseline"], test.metrics
    metrics = {**metrics, "models": {**metrics["models"], "GRU": metrics["models"][best]}}
    same = replace(test, y_pred=test.y_naive, metrics=metrics)
    for plot in (sequence_plot, error_by_step):
        drawn = lines(plot(series, same).axes[0])
        model = drawn["GRU"]
        (dashed,) = (line for line in drawn.values() if line.get_linestyle() == "--")
        assert dashed.get_linewidth() > 2 * model.get_linewidth()
        assert dashed.get_zorder() < model.get_zorder()
    assert "the same as" in title(sequence_plot(series, same))


def test_errors_of_one_step_are_dots_in_order(part):
    series, test = part(400, 200)
    (axes,) = error_by_step(series, test).axes
    models = test.metrics["models"]
    ordered = [tick.get_text() for tick in axes.get_yticklabels()]
    columns = {"GRU": "GRU", "last value": "LastValue", "mean": "Mean", "drift": "Drift"}
    errors = [models[columns[name]]["mae"] for name in ordered]
    assert len(ordered) == 4
    assert errors == sorted(errors)
    dots = {name: float(line.get_xdata()[0]) for name, line in lines(axes).items() if name in columns}
    assert dots["GRU"] == models["GRU"]["mae"]


def test_residuals_over_time_with_their_band_and_distribution(part):
    series, test = part(400, 200)
    figure = residual_plot(series, test)
    over_time, histogram, correlation = (axes for axes in figure.axes if axes.get_visible())
    residuals = test.y_true - test.y_pred
    np.testing.assert_allclose(lines(over_time)["residuals"].get_ydata(), residuals)
    band = next(patch for patch in over_time.patches if patch.get_label() == "band")
    assert band.get_y() == pytest.approx(residuals.mean() - 1.96 * residuals.std())
    assert band.get_height() == pytest.approx(2 * 1.96 * residuals.std())
    assert sum(bar.get_width() for bar in histogram.patches) == len(residuals)
    assert histogram.get_ylim() == over_time.get_ylim()
    (bars,) = (found for found in correlation.collections if found.get_label() == "autocorrelation")
    values = [segment[1][1] for segment in bars.get_segments()]
    centred = residuals - residuals.mean()
    expected = np.correlate(centred, centred, "full")[len(centred) - 1 :] / (centred @ centred)
    assert len(values) == 23  # 10 log10(200)
    np.testing.assert_allclose(values, expected[1:24], atol=1e-12)


def test_autocorrelation_goes_to_two_seasons(part):
    for rows, count in ((400, 48), (230, 29)):
        series, test = part(rows, 200, season=24)
        *_, correlation = (axes for axes in residual_plot(series, test).axes if axes.get_visible())
        (bars,) = (found for found in correlation.collections if found.get_label() == "autocorrelation")
        assert len(bars.get_segments()) == count
        assert written(correlation).keys() == ({"season", "2 seasons"} if rows == 400 else {"season"})


def test_of_forecasts_of_the_same_row_the_nearest_one_has_the_residual(backtest):
    result = backtest(100, 50, 5, stride=2)
    figure = residual_plot(result.series, evaluated_part("all", result))
    drawn = lines(figure.axes[0])["residuals"].get_ydata()
    rows, errors = result.rows, result.y_true - result.y_pred
    first = int(rows.min())
    for place, error in enumerate(drawn):
        steps = np.argwhere(rows == first + place)
        window, step = min(steps.tolist(), key=lambda found: found[1])
        assert error == pytest.approx(errors[window, step])


def test_residuals_that_are_all_the_same(part):
    for size in (0.0, 0.5, 1e-9, 1e12):
        series, test = part(100, 60)
        test = replace(test, y_true=np.full(40, size), y_pred=np.zeros(40))
        figure = residual_plot(series, test)
        _, histogram, correlation = (axes for axes in figure.axes if axes.get_visible())
        (bar,) = histogram.patches
        assert bar.get_width() == 40
        assert bar.get_y() < size < bar.get_y() + bar.get_height()
        assert bar.get_height() <= 0.05 * (size or 1.0)
        assert len(correlation.texts) == 1
        figure.draw_without_rendering()


# --- folds --------------------------------------------------------------------------------------------------------


def test_folds_are_apart_and_have_their_errors(backtest):
    result = backtest(100, 60, 4)
    above, below = folds_plot(result).axes
    x, y = lines(above)["GRU"].get_data()
    gaps = np.isnan(np.asarray(y, dtype=float))
    assert gaps.sum() == len(result.origins)
    np.testing.assert_array_equal(np.asarray(y)[~gaps], result.y_pred.ravel())
    np.testing.assert_array_equal(date2num(x)[~gaps], date2num([result.series.dates[row] for row in result.rows.flat]))
    errors = lines(below)["GRU"].get_ydata()
    np.testing.assert_allclose(errors, np.abs(result.y_true - result.y_pred).mean(axis=1))
    assert len(written(below)) == 2
    assert len(written(above)) == 3


def test_the_last_of_many_folds_are_drawn(backtest):
    for steps, count in ((3, MAX_FOLDS), (5, 30), (14, 10), (20, 10)):
        result = backtest(600, 60, steps)
        above, below = folds_plot(result).axes
        assert np.isnan(lines(above)["GRU"].get_ydata()).sum() == count
        np.testing.assert_allclose(
            lines(below)["GRU"].get_ydata(), np.abs(result.y_true - result.y_pred).mean(axis=1)[-count:]
        )
        assert str(count) in above.get_title("left")
    above, _ = folds_plot(backtest(600, 60)).axes
    assert len(lines(above)["GRU"].get_ydata()) == 540


# --- cost ---------------------------------------------------------------------------------------------------------


def test_cost(history):
    *records, last = history(6)
    records.append(replace(last, cost=1 + 1 / 7, validation_cost=3.0))
    records[5] = replace(records[5], validation_cost=2.5)
    figure = cost_plot("Value", records, 4, ("drift", 0.7))
    (axes,) = figure.axes
    drawn = lines(axes)
    np.testing.assert_array_equal(drawn["training"].get_xdata(), range(7))
    np.testing.assert_allclose(drawn["training"].get_ydata(), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 1 + 1 / 7])
    np.testing.assert_allclose(drawn["validation"].get_ydata(), [2, 1, 2 / 3, 1 / 2, 2 / 5, 2.5, 3])
    assert (drawn["kept"].get_xdata(), drawn["kept"].get_ydata()) == ([4], [2 / 5])
    assert set(drawn["drift"].get_ydata()) == {0.7}
    assert written(axes).keys() == {"training", "validation", "drift", "best: epoch 4"}
    assert axes.get_xlabel() == "epoch"
    assert "loss" in axes.get_ylabel()
    assert "0.4000 at epoch 4, the best" in title(figure)


def test_an_epoch_is_the_best_only_by_its_validation_loss(history):
    for has_validation, epoch, word in ((True, 3, "best"), (True, 2, "kept"), (False, 3, "kept")):
        figure = cost_plot("Value", history(3, validation=has_validation), epoch)
        assert f"{word}: epoch {epoch}" in written(figure.axes[0])
        assert word in title(figure)


def test_cost_without_validation_or_a_naive_level(history):
    (axes,) = cost_plot("Value", history(3, validation=False), 3).axes
    assert written(axes).keys() == {"training", "kept: epoch 3"}
    (axes,) = cost_plot("Value", history(0), 0).axes
    assert list(lines(axes)["training"].get_xdata()) == [0]


def test_the_cost_axis_is_logarithmic_where_losses_differ_much(history):
    for highest, scale in ((5.0, "linear"), (200.0, "log")):
        first, *others = history(3, validation=False)
        (axes,) = cost_plot("Value", [replace(first, cost=highest), *others], 3).axes
        assert axes.get_yscale() == scale


@pytest.mark.filterwarnings("error")
def test_costs_that_are_not_finite_huge_or_zero(history):
    for cost in (math.inf, math.nan, 1e38, 1e307, 0.0):
        records = (*history(2), EpochRecord(3, cost, cost, cost, 1.0, 0.3))
        figure = cost_plot("Value", records, 2)
        figure.draw_without_rendering()
        y = lines(figure.axes[0])["training"].get_ydata()
        assert y[-1] == cost if cost < 1e300 else np.isnan(y[-1])
    zero = [replace(record, cost=0.0, validation_cost=0.0) for record in history(3)]
    cost_plot("Value", zero, 2).draw_without_rendering()


# --- text out of files --------------------------------------------------------------------------------------------

NAMES = {
    "formula": (r"$\frac{a}{b}$", r"$\frac{a}{b}$"),
    "half a formula": ("Price in $", "Price in $"),
    "wrong formula": (r"$\no{$", r"$\no{$"),
    "TeX": (r"\input{/etc/passwd} % & _^~#", r"\input{/etc/passwd} % & _^~#"),
    "controls": ("a\x00\x1b[31m\n\rb", r"a\x00\x1b[31m\n\rb"),
    "far away": ("价格 📈 \u202eabc", r"价格 📈 \u202eabc"),
    "endless": ("x" * 100_000, "x" * 57 + "..."),
    "blank": ("", ""),
}
"""What a column is called, and how that is drawn."""


@pytest.mark.filterwarnings("error")
def test_names_of_columns_are_drawn_as_they_are(part, coming, history):
    series, test = part(60, 40, 2)
    for given, shown in NAMES.values():
        named = replace(series, columns=(given,))
        with matplotlib.rc_context({"text.usetex": True}):  # as somebody may have it, for all that is drawn
            figures = [
                forecast_plot(named, PARTS, coming(2)),
                sequence_plot(named, test),
                error_by_step(named, test),
                residual_plot(named, test),
                cost_plot(given, history(2), 1),
            ]
        for figure in figures:
            assert title(figure).startswith(shown)
            texts = [figure._suptitle]
            for axes in figure.axes:
                texts += [axes.yaxis.label, axes.xaxis.label, *axes.texts, axes.title, axes._left_title]
            for text in texts:
                if text.get_text():
                    assert not text.get_parse_math(), text
                    assert not text.get_usetex(), text


@pytest.mark.filterwarnings("error")
def test_no_name_or_size_of_numbers_breaks_a_picture(part, tmp_path):
    for name, scale in (("wrong formula", 1e-150), ("controls", 1e140), ("far away", 1.0)):
        series, test = part(60, 40, 2, scale=scale, name=NAMES[name][0])
        for number, plot in enumerate((sequence_plot, error_by_step, residual_plot)):
            path = tmp_path / f"{number}.png"
            if name == "far away" and number:
                continue
            save_figure(plot(series, test), path)
            assert matplotlib.image.imread(path).shape[:2] == (672, 1200)
