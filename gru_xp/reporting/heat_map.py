"""The values that a forecast is due to, as a heat map over time and features."""

import math
import os
import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gru_xp.errors import printable
from gru_xp.forecasting.explanation import Explanation, forecast_name
from gru_xp.forecasting.metrics import rounding

COLORS = "RdBu_r"
"""Blue lowers the forecast, white does nothing, red raises it; colour-blind readers can tell these apart."""

_ACTUAL, _FORECAST, _QUIET = "0.2", "#D55E00", "0.5"
_MOST_TICKS = 6
_LONGEST_NAME = 24
_PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}
"""For text out of files, which is no formula, whatever signs it has."""


def explanation_plot(explanation: Explanation, title: str = "") -> Figure:
    """Draw the target of a window with its forecast, above the contribution of each value of the window.

    Parameters
    ----------
    explanation
        What `Forecaster.explain` returns.
    title
        Such as the name of the file.

    Returns
    -------
    matplotlib.figure.Figure
    """
    F = len(explanation.columns)
    figure = Figure(figsize=(10, 4.4 + 0.32 * F), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 0.5 + 0.32 * F])
    _draw_window(above, explanation)
    above.set_title(" ".join(filter(None, (title, forecast_name(explanation)))), **_PLAIN, **_TITLE)
    contributions = explanation.attributions.T
    most = float(np.abs(contributions).max())
    if most <= rounding(explanation.values[:, 0]):
        most = 1.0
    image = below.imshow(contributions, cmap=COLORS, vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    below.set_yticks(range(F), [printable(name, _LONGEST_NAME) for name in explanation.columns], **_PLAIN)
    below.tick_params(axis="y", length=0)
    below.set_title("Contribution of each value to the forecast", **_TITLE)
    for row in range(1, F):
        below.axhline(row - 0.5, color="white", linewidth=2)
    _label_rows(below, explanation)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    below.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=[above, below], fraction=0.04, aspect=30)
    bar.outline.set_visible(False)
    bar.set_label("lowers  ←  contribution to the forecast  →  raises")
    return figure


_TITLE: dict[str, Any] = {"loc": "left", "weight": "bold", "fontsize": 11}


def write_heat_map(path: str | os.PathLike[str], explanation: Explanation, title: str = "") -> None:
    """Write `explanation_plot` to a file, whose suffix is its format."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands there instead
        explanation_plot(explanation, title).savefig(path, dpi=120)


def _draw_window(axes: Axes, explanation: Explanation) -> None:
    """The target in the window, and beside it the forecast and that of the baseline."""
    target = explanation.values[:, 0]
    L, h = len(target), explanation.horizon
    axes.plot(range(L), target, color=_ACTUAL, linewidth=1.4, marker="." if L <= 60 else None)
    at = [L, L + h - 1] if explanation.step is None else [L - 1 + explanation.step] * 2
    marker = {"marker": "o"} if at[0] == at[1] else {"linewidth": 3}
    ends = {
        "forecast": (explanation.forecast, _FORECAST),
        "baseline": (explanation.baseline_forecast, _QUIET),
    }
    higher = max(ends, key=lambda name: ends[name][0])
    for name, (value, color) in ends.items():
        axes.plot(at, [value] * 2, color=color, **marker)
        axes.annotate(
            f"{name} {value:.5g}",
            (at[1], value),
            (8, 4 if name == higher else -4),
            textcoords="offset points",
            color=color,
            va="bottom" if name == higher else "top",
        )
    axes.set_xlim(-0.5, at[1] + 0.5 + 0.16 * (at[1] + 1))
    axes.margins(y=0.15)
    axes.set_ylabel(printable(explanation.columns[0], 40), **_PLAIN)
    axes.grid(axis="y", alpha=0.25)
    axes.tick_params(axis="x", labelbottom=False, length=0)


def _label_rows(axes: Axes, explanation: Explanation) -> None:
    """The dates, labels or numbers of some rows, evenly spaced; years are always there."""
    L = len(explanation.rows)
    every = math.ceil(L / _MOST_TICKS)
    ticks = range((L - 1) % every, L, every)
    dates = explanation.dates
    if dates is not None:
        texts = [dates[tick].strftime(_form(dates)) for tick in ticks]
    elif explanation.labels is not None:
        texts = [printable(explanation.labels[tick], 16) for tick in ticks]
    else:
        texts = [str(explanation.rows[tick]) for tick in ticks]
        axes.set_xlabel("row")
    axes.set_xticks(ticks, texts, **_PLAIN)


def _form(dates: Sequence[datetime]) -> str:
    """How to write dates: no more of them than tells them apart."""
    if any(date.time() != dates[0].time() for date in dates):
        return "%Y-%m-%d\n%H:%M"
    if any(date.day != 1 for date in dates):
        return "%Y-%m-%d"
    return "%Y" if all(date.month == 1 for date in dates) else "%Y-%m"
