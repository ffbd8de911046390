from datetime import datetime, timedelta

import matplotlib.pyplot as plt
import numpy as np
import pytest

from gru_xp.forecasting.explanation import Explanation
from gru_xp.reporting.heat_map import COLORS, explanation_plot, write_heat_map

LONG = "what $it_ costs per \n litre, by the newest list of all prices"


@pytest.fixture
def explanation(rng):
    """``explanation(rows, columns, ...)``: random attributions of the last days of 2023; others by keyword."""

    def explanation(L, F, every=timedelta(days=1), **others):
        dates = tuple(datetime(2023, 12, 31) - every * row for row in range(L))[::-1]
        values, attributions = rng.standard_normal((2, L, F))
        fields = {
            "columns": (LONG, *(f"feature {number}" for number in range(1, F))),
            "rows": np.arange(40, 40 + L),
            "labels": tuple(str(date) for date in dates),
            "dates": dates,
            "values": values,
            "attributions": attributions,
            "forecast": 1.25,
            "baseline_forecast": -0.5,
            "step": 1,
            "horizon": 3,
            "points": 32,
        }
        return Explanation(**(fields | others))

    return explanation


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize(("L", "F"), [(1, 1), (10, 1), (10, 6), (256, 6)])
def test_colours_are_the_attributions_around_zero(explanation, L, F):
    shown = explanation(L, F, timedelta(hours=5))
    above, below, bar = explanation_plot(shown, "own.csv").axes
    (image,) = below.get_images()
    np.testing.assert_array_equal(image.get_array(), shown.attributions.T)
    low, high = image.get_clim()
    assert -low == high == np.abs(shown.attributions).max()
    assert image.get_cmap().name == COLORS
    assert len(ticks(below.yaxis)) == F
    assert all(len(name) <= 24 and name.isprintable() for name in ticks(below.yaxis))
    positions = below.get_xticks()
    assert len(positions) == min(L, len(positions)) <= 6
    assert positions[-1] == L - 1
    assert len(set(np.diff(positions))) <= 1
    assert all(label.startswith("2023-") and ":" in label for label in ticks(below.xaxis)) or L == 1
    np.testing.assert_array_equal(above.get_lines()[0].get_ydata(), shown.values[:, 0])
    assert {text.get_text() for text in above.texts} == {"forecast 1.25", "baseline -0.5"}
    assert "own.csv" in above.get_title("left")
    assert "contribution" in bar.get_ylabel()


def test_rows_without_dates_and_without_attributions(explanation):
    flat = explanation(5, 2, dates=None, labels=None, attributions=np.zeros((5, 2)), step=None)
    above, below, _ = explanation_plot(flat).axes
    assert ticks(below.xaxis) == ["40", "41", "42", "43", "44"]
    assert below.get_images()[0].get_clim() == (-1.0, 1.0)
    assert list(above.get_lines()[1].get_xdata()) == [5, 7]  # the mean of three steps
    for days, first in (((1, 1), "2019"), ((3, 1), "2019-03"), ((3, 2), "2019-03-02")):
        dates = tuple(datetime(2019 + row, *days) for row in range(5))
        assert ticks(explanation_plot(explanation(5, 1, dates=dates)).axes[1].xaxis)[0] == first
    labelled = explanation(5, 1, dates=None, labels=tuple("abcde"))
    assert ticks(explanation_plot(labelled).axes[1].xaxis) == list("abcde")


def test_files(explanation, tmp_path):
    for suffix, begin in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        path = tmp_path / f"map.{suffix}"
        write_heat_map(path, explanation(10, 2, labels=None, dates=None), "\u4e2d\u6587.csv")
        assert path.read_bytes().startswith(begin)
    assert plt.get_fignums() == []
