"""How plots look: colours, axes, dates and numbers on axes, labels at the lines."""

import math
import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from unicodedata import east_asian_width

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, num2date
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator

from gru_xp.forecasting.windows import Floats

# Of Okabe and Ito, which colour-blind readers can tell apart; greys differ in lightness alone.
ACTUAL, MODEL, NAIVE, OTHER = "0.1", "#D55E00", "0.4", "0.65"
TRAINED = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9")
"""Other trained forecasts, one after the other."""

FAN = "#A04600"
"""Names of intervals around a forecast."""

SHADES = {"validation": "#E69F00", "test": "#0072B2", "all": "#0072B2", "forecast": MODEL}
"""Behind the parts of a series; the training part has none."""

SHADE_TEXT = {**SHADES, "validation": "#8A5F00", "train": "0.35"}

WIDTH, HEIGHT, DPI = 10.0, 5.6, 120
"""Of a figure, in inches, and pixels per inch."""

TEXT, TITLE = 12.0, 14.0
"""Sizes in points, which a projector still shows."""

LINE_HEIGHT = 1.25
"""Of a text, relative to its size."""

MAX_POINTS = 2000
"""Of a line; longer ones are drawn as an envelope."""

BINS = 500
"""Of an envelope: no narrower than two pixels."""

PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}
"""For text out of files, which is no formula, whatever signs it has."""

_FILE_SETTINGS: Any = {  # whose names are literals to a type checker
    "svg.hashsalt": "gru-xp",
    "svg.fonttype": "path",
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def new_figure(title: str, **grid: Any) -> tuple[Figure, Any]:
    """A figure with a title over all of it, and its axes, as `Figure.subplots` gives them for `grid`.

    It belongs to no pyplot session, and looks the same whatever is set in ``matplotlib.rcParams``.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(**grid)
    for each in np.ravel(axes):
        _style(each)
    figure.suptitle(
        "\n".join(_wrapped(title, 0.98 * 72 * WIDTH / TITLE)),
        x=0.01,
        ha="left",
        fontsize=TITLE,
        fontweight="bold",
        color=ACTUAL,
        **PLAIN,
    )
    return figure, axes


def _style(axes: Axes) -> None:
    axes.set_facecolor("white")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("0.4")
    axes.tick_params(labelsize=TEXT - 1, colors="0.25", which="both")
    axes.grid(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8, linestyle="-")
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(int(np.clip(_height(axes) / 28, 3, 8)), steps=(1, 2, 2.5, 5, 10)))
    axes.yaxis.set_major_formatter(NumberFormatter())


def text_width(text: str) -> float:
    """About how wide a text is, relative to its size, in bold type."""
    return sum(map(_letter_width, text))


def _letter_width(sign: str) -> float:
    if sign in "mwMW@%" or east_asian_width(sign) in "WF":
        return 1.2
    if sign in " iljtfr.,:;'|!()-":
        return 0.46
    return 0.85 if sign.isupper() else 0.72


def _wrapped(text: str, width: float) -> list[str]:
    """The text in lines of up to a width; words that are wider are cut."""
    lines = [""]
    for word in text.split(" "):
        spaced = f"{lines[-1]} {word}" if lines[-1] else word
        if text_width(spaced) <= width:
            lines[-1] = spaced
            continue
        if lines[-1]:
            lines.append("")
        for sign in word:
            if text_width(lines[-1] + sign) > width:
                lines.append("")
            lines[-1] += sign
    return lines


def set_ylabel(axes: Axes, text: str) -> None:
    """Label the y axis with as much of the text as its height has room for."""
    room, shown = _height(axes) / TEXT, text
    while text_width(shown) > room and len(shown) > 2:
        shown = f"{shown[:-2]}…"
    axes.set_ylabel(shown, fontsize=TEXT, color="0.25", **PLAIN)


def set_heading(axes: Axes, text: str, pad: float = 6.0) -> None:
    """Say above the axes what they show."""
    axes.set_title(text, loc="left", fontsize=TEXT, color="0.25", pad=pad, **PLAIN)


def superscript(exponent: str) -> str:
    """A whole number such as ``-05`` as an exponent: ⁻⁵."""
    return str(int(exponent.replace("−", "-"))).translate(_SUPERSCRIPTS)


def set_log_y(axes: Axes, low: float, high: float) -> None:
    """Make the y axis logarithmic, a little beyond these values, with plain numbers at 1, 2 and 5 of each decade."""
    axes.set_ylim(low / 1.2, min(1.2 * high, 1e308))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(NumberFormatter())
    axes.yaxis.set_minor_locator(LogLocator(subs=(), numticks=12))


def set_time(axes: Axes, x: Any) -> None:
    """Make the x axis one of times or row numbers, whichever `x` are, from the first to the last of them."""
    if x.dtype.kind == "M":
        axes.xaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=8))  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(DateFormatter())
    else:
        set_numbers(axes, "row", whole=True)
    if len(x) > 1 and x[0] != x[-1]:
        margin = (x[-1] - x[0]) / 100 if x.dtype.kind == "M" else 0.01 * (x[-1] - x[0])
        axes.set_xlim(x[0] - margin, x[-1] + margin)
        return
    margin = np.timedelta64(1, "D") if x.dtype.kind == "M" else 1
    axes.set_xlim(x[0] - margin, x[0] + margin)
    axes.set_xticks(x[:1])


def set_numbers(axes: Axes, text: str, most: int = 8, *, whole: bool = False) -> None:
    """Make the x axis one of numbers, with a label and up to `most` intervals between ticks."""
    axes.xaxis.set_major_locator(MaxNLocator(most, steps=(1, 2, 5, 10), integer=whole, min_n_ticks=1))
    axes.xaxis.set_major_formatter(NumberFormatter())
    axes.set_xlabel(text, fontsize=TEXT, color="0.25", **PLAIN)


class NumberFormatter(Formatter):
    """Tick labels with as many decimals as tell them apart, and thousands; with a power of ten where that is shorter.

    Matplotlib's own take a common number or power off all labels, and write it at the end of the axis.
    """

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of one tick alone."""
        return self.format_ticks([x])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """The labels of all ticks."""
        ticks = np.asarray(values, dtype=float)
        largest = np.max(np.abs(ticks), initial=0.0)
        if not largest or not np.isfinite(largest):
            return [f"{tick:g}" for tick in ticks]
        if isinstance(self.axis, Axis) and self.axis.get_scale() == "log":
            return [_shorter([tick], abs(tick) or 1.0)[0] for tick in ticks]
        steps = np.diff(np.unique(ticks))
        step = float(steps.min()) if len(steps) and steps.min() > 1e-12 * largest else float(largest)
        return _shorter(ticks.tolist(), step)


def _shorter(ticks: list[float], step: float) -> list[str]:
    """The labels of ticks so far apart, plain or with a power of ten."""
    largest = max(map(abs, ticks))
    exponent = math.floor(math.log10(largest))
    plain = _with_decimals(ticks, step, 1.0) if abs(exponent) < 15 else None
    if plain is not None and (-4 <= exponent < 6 or max(map(len, plain)) <= 9):
        return plain
    if exponent < -300:  # whose power of ten is no number
        return [f"{tick:.3g}" for tick in ticks]
    power = f"×10{superscript(str(exponent))}"
    scaled = _with_decimals(ticks, step, 10.0**exponent)
    powers = [text if float(tick) == 0 else text + power for tick, text in zip(ticks, scaled, strict=True)]
    if any(0 < abs(tick) < 10.0**exponent for tick in ticks):  # their own power, as 5×10⁻⁸ and not 0.5×10⁻⁷
        powers = [_with_own_power(tick, step) if tick else "0" for tick in ticks]
    return plain if plain is not None and max(map(len, plain)) <= max(map(len, powers)) else powers


def _with_own_power(tick: float, step: float) -> str:
    exponent = math.floor(math.log10(abs(tick)) + 1e-9)
    return f"{_with_decimals([tick], step, 10.0**exponent)[0]}×10{superscript(str(exponent))}"


def _with_decimals(ticks: list[float], step: float, unit: float) -> list[str]:
    """The fewest decimals that all ticks need in this unit, for steps of this size."""
    scaled = [tick / unit for tick in ticks]
    tolerance = 1e-3 * step / unit
    decimals = next((d for d in range(16) if all(abs(round(x, d) - x) <= tolerance for x in scaled)), 16)
    return [f"{0.0 if tick == 0 else x:,.{decimals}f}".replace("-", "−") for tick, x in zip(ticks, scaled, strict=True)]


class DateFormatter(Formatter):
    """Tick labels of dates, with the year below the first one and wherever it changes.

    Times of day have the date there.
    """

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of one tick alone."""
        return self.format_ticks([x])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """The labels of all ticks."""
        dates = [num2date(value) for value in values]  # type: ignore[no-untyped-call]
        if all((d.month, d.day, d.hour, d.minute, d.second, d.microsecond) == (1, 1, 0, 0, 0, 0) for d in dates):
            return [str(date.year) for date in dates]
        at_midnight = all((d.hour, d.minute, d.second, d.microsecond) == (0, 0, 0, 0) for d in dates)
        if at_midnight and all(date.day == 1 for date in dates):
            pairs = [(_MONTHS[date.month - 1], str(date.year)) for date in dates]
        elif at_midnight:
            pairs = [(f"{date.day} {_MONTHS[date.month - 1]}", str(date.year)) for date in dates]
        else:
            form = "%H:%M" if all(date.second == date.microsecond == 0 for date in dates) else "%H:%M:%S"
            if any(date.microsecond for date in dates):
                form = "%H:%M:%S.%f"
            pairs = [(d.strftime(form), f"{d.day} {_MONTHS[d.month - 1]} {d.year}") for d in dates]
        first, last = sorted(self.axis.get_view_interval()) if self.axis is not None else (-math.inf, math.inf)
        labels, before = [], None
        for value, (text, below) in zip(values, pairs, strict=True):
            is_shown = first <= value <= last
            labels.append(f"{text}\n{below}" if is_shown and below != before else text)
            before = below if is_shown else before
        return labels


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure to a file in the format of its suffix, the same bytes for the same figure."""
    suffix = os.fspath(path).rpartition(".")[2].lower()
    with warnings.catch_warnings(), matplotlib.rc_context(_FILE_SETTINGS):
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands there instead
        if suffix == "png":
            FigureCanvasAgg(figure)
            if (engine := figure.get_layout_engine()) is not None:  # once, where savefig would draw everything twice
                engine.execute(figure)
                figure.set_layout_engine(None)
            figure.savefig(path, pil_kwargs={"compress_level": 3})
        else:
            figure.savefig(path, metadata={"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix))


# --- lines --------------------------------------------------------------------------------------------------------


def draw_line(axes: Axes, x: Any, y: Floats, color: str, *, label: str, **how: Any) -> None:
    """Draw a line, or the lowest and highest values of its stretches if it has over `MAX_POINTS` points.

    Parameters
    ----------
    axes
        To draw in.
    x, y : array, shape ``(n,)``
        NaN in `y` interrupts the line.
    color
        Of the line.
    label
        Its name in the figure, for programs.
    **how
        More about the line, for `Axes.plot`.
    """
    how = {"linewidth": 1.8, **how}
    if len(x) <= MAX_POINTS:
        if len(x) <= 60 and "marker" not in how:
            how |= {"marker": "o", "markersize": 4.5 if len(x) > 1 else 7}
        axes.plot(x, y, color=color, label=label, **how)
        return
    middle, low, high = envelope(x, y)
    if how.get("linestyle", "-") == "-":
        axes.fill_between(
            middle, low, high, facecolor=color, edgecolor=color, linewidth=0.6, alpha=0.6, label=label, zorder=2
        )
    else:
        for edge in (low, high):
            axes.plot(middle, edge, color=color, label=label, **how | {"linewidth": 0.8})


def envelope(x: Any, y: Floats) -> tuple[Any, Floats, Floats]:
    """The middles of `BINS` stretches of a line, and its lowest and highest value in each; NaN where it has none."""
    edges = np.linspace(0, len(x), BINS + 1).astype(int)
    starts = edges[:-1]
    low, high = np.fmin.reduceat(y, starts), np.fmax.reduceat(y, starts)
    return x[(starts + edges[1:] - 1) // 2], low, high


class Label(NamedTuple):
    """A text at a line."""

    text: str
    y: float
    color: str


def label_lines(axes: Axes, labels: Iterable[Label]) -> None:
    """Write labels right of the axes, each as near to its height as the others leave room; in data units.

    The limits of the y axis stay as they are from now on.
    """
    axes.set_ylim(axes.get_ylim())
    shown = [label for label in labels if math.isfinite(label.y)]
    if not shown:
        return
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((0.0, label.y))[1]) for label in shown]
    gap = LINE_HEIGHT * TEXT / _height(axes)
    for label, height in zip(shown, spread(np.clip(heights, 0.0, 1.0), gap), strict=True):
        axes.text(
            1.01,
            height,
            label.text,
            color=NAIVE if label.color == OTHER else label.color,
            fontsize=TEXT,
            fontweight="normal" if label.color == OTHER else "bold",
            va="center",
            transform=axes.transAxes,
            **PLAIN,
        )


def label_peak(axes: Axes, text: str, x: Any, y: Floats, color: str) -> None:
    """Write a label above the highest point of the first half of a line, and make room for it."""
    there = np.flatnonzero(np.isfinite(y))
    if not len(there):
        return
    first = there[: (len(there) + 1) // 2]
    peak = int(first[np.argmax(y[first])])
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))
    axes.annotate(
        text,
        (x[peak], y[peak]),
        (0, 7),
        textcoords="offset points",
        ha="left" if peak < 0.05 * len(y) else "center",
        color=color,
        fontsize=TEXT,
        fontweight="bold",
        path_effects=[withStroke(linewidth=3, foreground="white")],
        **PLAIN,
    )


def spread(wanted: Floats, gap: float | Floats) -> Floats:
    """Places as near to the wanted ones as possible in their order, at least `gap` from each other.

    The least squares solution, by pooling neighbours that come too near [1]_.

    Parameters
    ----------
    wanted : array, shape ``(n,)``
        In any order.
    gap
        Between neighbours; or of shape ``(n,)``, the width of each, of which neighbours need half of both.

    References
    ----------
    .. [1] R. Barlow, D. Bartholomew, J. Bremner and H. Brunk, "Statistical inference under order restrictions" (1972):
       the pool-adjacent-violators algorithm.
    """
    order = np.argsort(wanted, kind="stable")
    widths = np.broadcast_to(np.asarray(gap, dtype=float), len(order))[order]
    offsets = np.concatenate([[0.0], np.cumsum((widths[1:] + widths[:-1]) / 2)])
    pools: list[tuple[float, int]] = []  # mean of the members' places less their offsets, and how many
    for place in np.asarray(wanted, dtype=float)[order] - offsets:
        pools.append((float(place), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (mean, n), (before, m) = pools.pop(), pools.pop()
            pools.append(((mean * n + before * m) / (n + m), n + m))
    places = np.empty(len(order))
    places[order] = np.repeat([mean for mean, _ in pools], [n for _, n in pools]) + offsets
    return places


def shade(axes: Axes, parts: dict[str, tuple[Any, Any]], x: Any) -> None:
    """Shade parts of a time axis, and name them above it.

    Parameters
    ----------
    axes
        To draw in.
    parts
        First and last time of each, by one of the names of `SHADES`, or ``"train"``.
    x
        All times, rising.
    """
    first, last = x[0], x[-1]
    width, names = 72 * _width(axes), list(parts)
    for name, (start, end) in parts.items():
        if name in SHADES:
            axes.axvspan(start, end, color=SHADES[name], alpha=0.13, linewidth=0, label=name)

    def place(time: Any) -> float:
        return float((time - first) / (last - first)) if last != first else 0.5

    widths = np.array([text_width(f"{name}  ") * TEXT / width for name in names])
    places = np.array([(place(start) + place(end)) / 2 for start, end in parts.values()])
    places = spread(places, widths)
    for name, at in zip(names, places, strict=True):
        axes.text(
            at,
            1.02,
            name,
            color=SHADE_TEXT[name],
            fontsize=TEXT,
            fontweight="bold",
            ha="center",
            va="bottom",
            transform=axes.transAxes,
            **PLAIN,
        )


def _height(axes: Axes) -> float:
    """Of the axes, in points, as far as it is known before the figure is drawn."""
    return axes.get_position().height * 72 * HEIGHT


def _width(axes: Axes) -> float:
    """Of the axes, in inches, as far as it is known before the figure is drawn."""
    return axes.get_position().width * WIDTH
