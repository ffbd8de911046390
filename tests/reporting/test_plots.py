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


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """``draw(plot, ...)``: the figure that the plot writes, instead of the file."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: saved.append(figure))

    def draw(plot, *arguments):
        plot(tmp_path / "plot.png", *arguments)
        return saved[-1]

    return draw


@pytest.fixture
def check_picture(tmp_path):
    """``check_picture(plot, ...)``: the plot writes one PNG file, with something to see."""

    def check_picture(plot, *arguments):
        path = tmp_path / "plot.png"
        plot(path, *arguments)
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        pixels = matplotlib.image.imread(path)
        assert min(pixels.shape[:2]) >= 400
        assert len(np.unique(pixels @ np.array([1, 256, 65536, 0])[: pixels.shape[2]])) > 20  # colours
        assert [file.name for file in tmp_path.iterdir()] == ["plot.png"]
        assert plt.get_fignums() == []  # no figure stays open

    return check_picture


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
    assert "mean squared error" in axes.get_ylabel()


def test_cost_without_validation(draw, history):
    (axes,) = draw(plot_cost, history(3, validation=False), 3).axes
    assert legend(axes) == ["training cost", "best epoch, 3"]


def test_cost_of_the_start_alone(draw, history):
    (axes,) = draw(plot_cost, history(0), 0).axes
    assert list(lines(axes)["training cost"].get_xdata()) == [0]


@pytest.mark.parametrize("cost", [math.inf, math.nan, 1e38, 1e308])
def test_cost_that_got_out_of_hand(check_picture, history, cost):
    check_picture(plot_cost, (*history(2), EpochRecord(3, cost, cost, cost, 1.0, 0.3)), 2)


def test_cost_of_nothing(check_picture, history):
    check_picture(plot_cost, [replace(record, cost=0.0, validation_cost=0.0) for record in history(3)], 2)


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


@pytest.mark.parametrize("year", [1, 9999])
def test_dates_at_the_ends_of_the_calendar_count_rows(draw, series, parts, year):
    dates = tuple(datetime(year, 6, 1) + timedelta(days=row) for row in range(40))
    above, below = draw(plot_sequence, replace(series(), dates=dates), parts).axes
    assert above.get_xlabel() == below.get_xlabel() == "row"


@pytest.mark.parametrize("ends", [(1000, 9970), (2500, 7400), (20, 2100), (1, 9999), (9700, 9960)])
def test_years_far_apart(check_picture, series, parts, ends):
    dates = tuple(datetime(year, 1, 1) for year in np.linspace(*ends, 40).astype(int))
    check_picture(plot_sequence, replace(series(), dates=dates), parts)


def test_labels_that_are_no_dates_count_rows(draw, series, parts):
    _, below = draw(plot_sequence, series(dates=False, labels=("a",) * 40), parts).axes
    np.testing.assert_array_equal(lines(below)["actual"].get_xdata(), range(28, 40))


@pytest.mark.parametrize("name", ["train", "validation", "test", "all"])
def test_sequence_of_one_part_has_one_panel(draw, series, part, name):
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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("error")
def test_names_of_columns_are_drawn_as_they_are(draw, series, parts, name):
    given, shown = NAMES[name]
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


@pytest.mark.parametrize("name", ["wrong formula", "controls", "far away"])
@pytest.mark.filterwarnings("error")
def test_no_name_of_a_column_breaks_a_picture(check_picture, series, parts, name):
    named = replace(series(), columns=(NAMES[name][0],))
    check_picture(plot_sequence, named, parts)
    check_picture(plot_residuals, named, parts)


# --- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [True, False])
def test_picture_of_cost(check_picture, history, validation):
    check_picture(plot_cost, history(3, validation), 1)


@pytest.mark.parametrize("dates", [True, False])
def test_pictures_of_predictions(check_picture, series, parts, dates):
    check_picture(plot_sequence, series(dates), parts)
    check_picture(plot_residuals, series(dates), parts)
