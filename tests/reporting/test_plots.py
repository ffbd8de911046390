import math
from dataclasses import replace
from datetime import datetime, timedelta

import matplotlib
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from gru_xp.reporting.plots import plot_cost, plot_residuals, plot_sequence
from gru_xp.training.trainer import EpochRecord

COST, RESIDUALS, ONE_PANEL, TWO_PANELS = (960, 540), (960, 600), (1200, 480), (1200, 960)
"""Width and height of the plots, in pixels."""


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """``draw(plot, ...)``: the figure that the plot writes, instead of the file."""

    def draw(plot, *arguments):
        saved = []
        with monkeypatch.context() as patch:
            patch.setattr(Figure, "savefig", lambda figure, path, **options: saved.append(figure))
            plot(tmp_path / "plot.png", *arguments)
        (figure,) = saved
        return figure

    return draw


@pytest.fixture
def assert_writes(tmp_path):
    """``assert_writes(size, plot, ...)``: the plot writes one PNG file, of that width and height in pixels."""

    def assert_writes(size, plot, *arguments):
        path = tmp_path / "plot.png"
        plot(path, *arguments)
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert matplotlib.image.imread(path).shape[1::-1] == size
        assert [file.name for file in tmp_path.iterdir()] == ["plot.png"]
        assert plt.get_fignums() == []  # no figure stays open

    return assert_writes


def lines(axes):
    """The drawn lines by their label."""
    return {line.get_label(): line for line in axes.get_lines()}


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


# --- cost -------------------------------------------------------------------------------------------------------


def test_cost(draw, history):
    *records, last = history(6)
    records.append(replace(last, cost=1 + 1 / 7))  # the last cost is not the best one
    (axes,) = draw(plot_cost, records, 4).axes
    drawn = lines(axes)
    assert legend(axes) == ["training cost", "validation cost", "best epoch, 4"]
    np.testing.assert_array_equal(drawn["training cost"].get_xdata(), range(7))
    np.testing.assert_allclose(drawn["training cost"].get_ydata(), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 1 + 1 / 7])
    np.testing.assert_allclose(drawn["validation cost"].get_ydata(), [2 / (1 + epoch) for epoch in range(7)])
    assert set(drawn["best epoch, 4"].get_xdata()) == {4}
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "epoch"
    assert "loss" in axes.get_ylabel()


def test_cost_without_validation(draw, history):
    (axes,) = draw(plot_cost, history(3, validation=False), 3).axes
    assert legend(axes) == ["training cost", "best epoch, 3"]


def test_cost_of_the_start_alone(draw, history):
    (axes,) = draw(plot_cost, history(0), 0).axes
    assert list(lines(axes)["training cost"].get_xdata()) == [0]


def test_costs_that_are_not_finite_huge_or_zero(draw, assert_writes, history):
    for cost in (math.inf, math.nan, 1e38, 1e308):
        records = (*history(2), EpochRecord(3, cost, cost, cost, 1.0, 0.3))
        if cost in (math.inf, 1e308):
            assert_writes(COST, plot_cost, records, 2)
        (axes,) = draw(plot_cost, records, 2).axes
        np.testing.assert_array_equal(lines(axes)["training cost"].get_ydata(), [1, 1 / 2, 1 / 3, cost])
    records = [replace(record, cost=0.0, validation_cost=0.0) for record in history(3)]
    assert_writes(COST, plot_cost, records, 2)
    (axes,) = draw(plot_cost, records, 2).axes
    assert axes.get_yscale() == "linear"


# --- sequence ---------------------------------------------------------------------------------------------------


def test_sequence_has_a_panel_for_what_was_learned_and_one_for_the_test(draw, series, parts):
    above, below = draw(plot_sequence, series(), parts).axes
    assert above.get_title() == "Value: train and validation"
    assert below.get_title() == "Value: test"
    assert legend(above) == ["actual", "predicted, train", "predicted, validation"]
    assert legend(below) == ["actual", "predicted, test"]
    np.testing.assert_array_equal(lines(below)["actual"].get_ydata(), parts[2].y_true)
    for axes, part in ((above, parts[0]), (above, parts[1]), (below, parts[2])):
        line = lines(axes)[f"predicted, {part.name}"]
        np.testing.assert_array_equal(line.get_ydata(), part.y_pred)
        days = [series().dates[row] for row in part.rows]
        np.testing.assert_array_equal(date2num(line.get_xdata()), date2num(days))


def test_all_actual_values_are_drawn(draw, series, parts):
    above, _ = draw(plot_sequence, series(), parts).axes
    points = [line.get_ydata() for line in above.get_lines() if line.get_marker() == "."]
    np.testing.assert_array_equal(np.concatenate(points), np.concatenate([parts[0].y_true, parts[1].y_true]))


def test_sequence_without_dates_counts_rows(draw, series, parts):
    above, below = draw(plot_sequence, series(dates=False), parts).axes
    np.testing.assert_array_equal(lines(below)["predicted, test"].get_xdata(), range(28, 40))
    assert above.get_xlabel() == below.get_xlabel() == "row"


def test_dates_at_the_ends_of_the_calendar_count_rows(draw, series, parts):
    for year in (1, 9999):
        dates = tuple(datetime(year, 6, 1) + timedelta(days=row) for row in range(40))
        above, below = draw(plot_sequence, replace(series(), dates=dates), parts).axes
        assert above.get_xlabel() == below.get_xlabel() == "row", year


def test_years_far_apart(draw, assert_writes, series, part):
    """Where an axis that extends a little beyond them would leave the calendar, rows are counted."""
    for first, last, counts_rows in (
        (1000, 9970, True),
        (2500, 7400, False),
        (20, 2100, True),
        (1, 9999, True),
        (9700, 9960, True),
        (1700, 2024, False),
    ):
        dates = tuple(datetime(year, 1, 1) for year in np.linspace(first, last, 40).astype(int))
        arguments = (replace(series(), dates=dates), [part("test", 0, 40)])
        if not counts_rows:
            assert_writes(ONE_PANEL, plot_sequence, *arguments)
        (axes,) = draw(plot_sequence, *arguments).axes
        x = list(lines(axes)["predicted, test"].get_xdata())
        assert x == (list(range(40)) if counts_rows else list(dates)), (first, last)


def test_labels_that_are_no_dates_count_rows(draw, series, parts):
    _, below = draw(plot_sequence, series(dates=False, labels=("a",) * 40), parts).axes
    np.testing.assert_array_equal(lines(below)["actual"].get_xdata(), range(28, 40))


def test_sequence_of_one_part_has_one_panel(draw, series, part):
    for name in ("train", "validation", "test", "all"):
        (axes,) = draw(plot_sequence, series(), [part(name, 5, 40)]).axes
        assert axes.get_title() == f"Value: {name}"


def test_sequence_of_one_row(draw, series, part):
    (axes,) = draw(plot_sequence, series(), [part("test", 39, 40)]).axes
    assert len(lines(axes)["actual"].get_ydata()) == 1


# --- residuals --------------------------------------------------------------------------------------------------


def test_residuals_against_predictions(draw, series, parts):
    (axes,) = draw(plot_residuals, series(), parts).axes
    assert legend(axes) == ["train", "validation", "test"]
    for part in parts:
        line = lines(axes)[part.name]
        np.testing.assert_array_equal(line.get_xdata(), part.y_pred)
        np.testing.assert_allclose(line.get_ydata(), part.y_true - part.y_pred)
    (zero_line,) = (line for line in axes.get_lines() if line.get_label() not in legend(axes))
    assert set(zero_line.get_ydata()) == {0.0}
    assert axes.get_xlabel() == "predicted Value"
    assert axes.get_ylabel() == "residual (actual - predicted)"


def test_residuals_without_dates(draw, series, part):
    (axes,) = draw(plot_residuals, series(dates=False), [part("all", 5, 40)]).axes
    assert legend(axes) == ["all"]


# --- text out of files ------------------------------------------------------------------------------------------

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
def test_names_of_columns_are_drawn_as_they_are(draw, series, parts):
    for given, shown in NAMES.values():
        named = replace(series(), columns=(given,))
        with matplotlib.rc_context({"text.usetex": True}):  # as somebody may have it, for all that is drawn
            above, below = draw(plot_sequence, named, parts).axes
            (residuals,) = draw(plot_residuals, named, parts).axes
        assert above.get_title() == f"{shown}: train and validation"
        assert below.get_ylabel() == shown
        assert residuals.get_xlabel() == f"predicted {shown}"
        for text in (above.title, below.yaxis.label, residuals.xaxis.label):
            assert not text.get_parse_math()
            assert not text.get_usetex()


@pytest.mark.filterwarnings("error")
def test_no_name_of_a_column_breaks_a_picture(assert_writes, series, parts):
    for size, plot, name in (
        (TWO_PANELS, plot_sequence, "wrong formula"),
        (RESIDUALS, plot_residuals, "wrong formula"),
        (TWO_PANELS, plot_sequence, "controls"),
        (RESIDUALS, plot_residuals, "far away"),
    ):
        assert_writes(size, plot, replace(series(), columns=(NAMES[name][0],)), parts)


# --- pictures ---------------------------------------------------------------------------------------------------


def test_sizes_of_pictures(assert_writes, history, series, part, parts):
    assert_writes(COST, plot_cost, history(3), 1)
    assert_writes(RESIDUALS, plot_residuals, series(), parts)
    assert_writes(TWO_PANELS, plot_sequence, series(dates=False), parts)
    assert_writes(ONE_PANEL, plot_sequence, series(), [part("all", 5, 40)])
