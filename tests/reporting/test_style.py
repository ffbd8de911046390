from datetime import datetime, timedelta

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.dates import date2num

from gru_xp.reporting.style import (
    BINS,
    MAX_POINTS,
    DateFormatter,
    Label,
    NumberFormatter,
    draw_line,
    envelope,
    label_lines,
    new_figure,
    save_figure,
    set_time,
    set_ylabel,
    spread,
)

# --- numbers and dates on axes ------------------------------------------------------------------------------------


def test_ticks_have_the_decimals_that_tell_them_apart():
    for ticks, labels in (
        ((0, 2.5, 5), ["0.0", "2.5", "5.0"]),
        ((0.05, 0.1), ["0.05", "0.10"]),
        ((-500, 0, 500, 1000), ["−500", "0", "500", "1,000"]),
        ((1e9, 1e9 + 5), ["1,000,000,000", "1,000,000,005"]),
        ((0, 2e-9, 4e-9), ["0", "2×10⁻⁹", "4×10⁻⁹"]),
        ((0, 5e-8, 1e-7), ["0", "5×10⁻⁸", "1×10⁻⁷"]),
        ((-1.5e13, 1e13), ["−1.5×10¹³", "1.0×10¹³"]),
        ((0.1 + 0.2, 0.4), ["0.3", "0.4"]),
        ((0,), ["0"]),
    ):
        assert NumberFormatter().format_ticks(ticks) == labels, ticks
    assert NumberFormatter()(0.25) == "0.25"


def test_ticks_of_extreme_numbers_are_short_and_differ():
    for scale in (1e-308, 1e-300, 1e-150, 1e150, 1e300):
        labels = NumberFormatter().format_ticks([0.0, scale, 2 * scale])
        assert len(set(labels)) == 3, scale
        assert max(map(len, labels)) <= 8, scale


@pytest.mark.parametrize(
    ("days", "first"),
    [(20 * 365, 2001), (900, 2019), (300, 2020), (40, 2019), (3, 2020), (0.2, 2020), (0.0005, 2020)],
    ids=str,
)
def test_years_are_always_shown(days, first):
    """Each label without a year follows one of the same year."""
    start = datetime(first, 12, 20)
    _, axes = new_figure("title")
    x = np.array([start + timedelta(days=days) * share for share in np.linspace(0, 1, 50)], dtype="datetime64[us]")
    axes.plot(x, range(50))
    set_time(axes, x)
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.xaxis.get_majorticklocs() if low <= tick <= high]
    labels = axes.xaxis.get_major_formatter().format_ticks(ticks)
    assert len(ticks) >= 2
    year = None
    for tick, label in zip(ticks, labels, strict=True):
        own = str((datetime(1970, 1, 1) + timedelta(days=tick + 1e-6)).year)
        year = own if own in label else year
        assert year == own, labels


def test_days_and_months_are_named_in_english():
    days = [date2num(datetime(2023, 12, 31)), date2num(datetime(2024, 1, 2))]
    assert DateFormatter().format_ticks(days) == ["31 Dec\n2023", "2 Jan\n2024"]
    months = [date2num(datetime(2024, month, 1)) for month in (5, 7)]
    assert DateFormatter().format_ticks(months) == ["May\n2024", "Jul"]
    assert DateFormatter()(date2num(datetime(2024, 1, 1, 6, 30))) == "06:30\n1 Jan 2024"


# --- lines and their labels ---------------------------------------------------------------------------------------


def test_an_envelope_has_the_extremes_of_each_stretch():
    y = np.random.default_rng(3).normal(size=7_013)
    y[100:160] = np.nan
    x, low, high = envelope(np.arange(len(y)), y)
    assert len(x) == BINS
    stretches = [y[start:stop] for start, stop in zip(*_edges(len(y)), strict=True)]
    np.testing.assert_array_equal(low, [_extreme(np.nanmin, stretch) for stretch in stretches])
    np.testing.assert_array_equal(high, [_extreme(np.nanmax, stretch) for stretch in stretches])
    assert np.isnan(low).any()
    assert (np.diff(x) > 0).all()


def _edges(n):
    edges = [n * k // BINS for k in range(BINS + 1)]
    return edges[:-1], edges[1:]


def _extreme(of, stretch):
    return np.nan if np.isnan(stretch).all() else of(stretch)


def test_long_lines_are_drawn_as_envelopes():
    y = np.random.default_rng(4).normal(size=MAX_POINTS + 1)
    for count, lines, bands in ((MAX_POINTS, 1, 0), (MAX_POINTS + 1, 0, 1)):
        _, axes = new_figure("title")
        draw_line(axes, np.arange(count), y[:count], "black", label="y")
        assert (len(axes.get_lines()), len(axes.collections)) == (lines, bands)
    (band,) = axes.collections
    vertices = band.get_paths()[0].vertices[:, 1]
    assert (vertices.min(), vertices.max()) == (y.min(), y.max())


def test_labels_are_spread_no_further_than_they_must():
    rng = np.random.default_rng(5)
    for n in (1, 2, 9):
        wanted = rng.uniform(size=n)
        places = spread(wanted, 0.1)
        gaps = np.diff(np.sort(places))
        assert (gaps >= 0.1 - 1e-12).all()
        np.testing.assert_array_equal(np.argsort(places), np.argsort(wanted))
        moved = np.sum((places - wanted) ** 2)
        for _ in range(200):  # no other places of that kind are nearer
            other = np.sort(places + rng.normal(scale=0.02, size=n))
            if (np.diff(other) >= 0.1).all():
                assert np.sum((other[np.argsort(np.argsort(wanted))] - wanted) ** 2) >= moved - 1e-12
    np.testing.assert_allclose(spread(np.array([0.5, 0.5, 0.5]), 0.1), [0.4, 0.5, 0.6])
    np.testing.assert_array_equal(spread(np.array([0.9, 0.1]), 0.1), [0.9, 0.1])
    np.testing.assert_allclose(spread(np.array([1.0, 1.0]), np.array([0.2, 0.6])), [0.8, 1.2])


def test_labels_do_not_overlap_and_stay_near_their_lines():
    _, axes = new_figure("title")
    axes.plot([0, 1], [0.0, 10.0])
    label_lines(axes, [Label("a", 5.0, "k"), Label("b", 5.1, "k"), Label("c", 9.0, "k"), Label("none", np.nan, "k")])
    texts = {text.get_text(): text for text in axes.texts}
    assert set(texts) == {"a", "b", "c"}
    heights = [texts[name].get_position()[1] for name in "abc"]
    boxes = [texts[name].get_window_extent() for name in "abc"]
    assert heights == sorted(heights)
    assert not boxes[0].overlaps(boxes[1])
    assert abs(heights[2] - 0.863) < 0.01  # 9 of -0.5 to 10.5


# --- figures ------------------------------------------------------------------------------------------------------


def test_figures_look_the_same_in_every_session():
    settings = {"axes.spines.top": True, "axes.grid": True, "text.usetex": True, "axes.facecolor": "black"}
    shown = plt.get_fignums()
    with matplotlib.rc_context(settings):
        figure, axes = new_figure("A title")
    sides = {side for side, spine in axes.spines.items() if spine.get_visible()}
    assert sides == {"left", "bottom"}
    assert matplotlib.colors.to_hex(axes.get_facecolor()) == "#ffffff"
    assert not figure._suptitle.get_usetex()
    assert plt.get_fignums() == shown


@pytest.mark.filterwarnings("ignore:Glyph")
def test_titles_and_labels_fit():
    for name in ("W" * 60, "a word " * 30, "价" * 60, "x" * 300):
        figure, axes = new_figure(f"{name}, the title", nrows=2)
        set_ylabel(axes[0], name)
        figure.draw_without_rendering()
        for text in (figure._suptitle, axes[0].yaxis.label):
            box = text.get_window_extent()
            assert box.x0 >= 0, name
            assert box.x1 <= figure.bbox.x1, name
            assert box.y0 >= 0, name
            assert box.y1 <= figure.bbox.y1, name


def test_files_have_the_same_bytes_every_time(tmp_path):
    starts = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF"}
    for suffix, start in starts.items():
        written = []
        for number in (1, 2):
            figure, axes = new_figure("Price in $, <b>&amp;")
            axes.plot([1, 2], [3, 4])
            save_figure(figure, tmp_path / f"{number}.{suffix}")
            written.append((tmp_path / f"{number}.{suffix}").read_bytes())
        assert written[0] == written[1], suffix
        assert written[0].startswith(start), suffix
