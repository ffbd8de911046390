"""Plots of a run, each written to one PNG file."""

import os
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from gru_xp.errors import printable
from gru_xp.forecasting.evaluation import EvaluatedPart
from gru_xp.io.series import TimeSeries
from gru_xp.training.trainer import EpochRecord

# Okabe and Ito's colours, which colour-blind readers can tell apart
_COLORS = {"train": "#0072B2", "validation": "#E69F00", "test": "#D55E00", "all": "#D55E00"}
_ACTUAL = "0.35"

_PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}
"""For text out of files, which is no formula, whatever signs it has."""

PathLike = str | os.PathLike[str]


def plot_cost(path: PathLike, history: Sequence[EpochRecord], best_epoch: int) -> None:
    """Cost, and validation cost where there is one, against epochs; the best epoch is marked."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    epochs = [record.epoch for record in history]
    axes.plot(epochs, [record.cost for record in history], color=_COLORS["train"], label="training cost")
    validation = [record.validation_cost for record in history if record.validation_cost is not None]
    if len(validation) == len(history):
        axes.plot(epochs, validation, color=_COLORS["validation"], label="validation cost")
    axes.axvline(best_epoch, color="0.5", linestyle=":", label=f"best epoch, {best_epoch}")
    scale = "log" if any(record.cost > 0 for record in history) else "linear"
    with np.errstate(over="ignore"):  # beyond the largest costs the axis would go on to infinity
        axes.set(xlabel="epoch", ylabel="loss (scaled)", yscale=scale, title="Cost")
    axes.legend()
    axes.grid(alpha=0.3)
    _save(figure, path)


def plot_sequence(path: PathLike, series: TimeSeries, parts: Sequence[EvaluatedPart]) -> None:
    """Actual values as points and one-step predictions as lines; the rows not trained on have a panel of their own."""
    panels = [[part for part in parts if part.name in names] for names in (("train", "validation"), ("test", "all"))]
    panels = [panel for panel in panels if panel]
    figure = Figure(figsize=(10, 4 * len(panels)), layout="constrained")
    size = 5 if len(series) < 500 else 2.5
    dates = _dates(series)
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        for number, part in enumerate(panel):
            x = [dates[row] for row in part.rows] if dates else list(part.rows)
            label = "actual" if number == 0 else None
            axes.plot(x, part.y_true, ".", color=_ACTUAL, markersize=size, label=label)
            axes.plot(x, part.y_pred, color=_COLORS[part.name], linewidth=0.9, label=f"predicted, {part.name}")
        axes.set_title(f"{_name(series)}: {' and '.join(part.name for part in panel)}", **_PLAIN)
        axes.set_ylabel(_name(series), **_PLAIN)
        _label_time(axes, has_dates=dates is not None)
        axes.legend(markerscale=7 / size)
        axes.grid(alpha=0.3)
    _save(figure, path)


def _dates(series: TimeSeries) -> Sequence[datetime] | None:
    """Its dates, unless an axis that goes on a little beyond them would leave the calendar."""
    if series.dates is None:
        return None
    first, last = series.dates[0], series.dates[-1]
    margin = (last - first) / 4 + timedelta(days=3000)
    calendar_begins, calendar_ends = (end.replace(tzinfo=first.tzinfo) for end in (datetime.min, datetime.max))
    return series.dates if first - calendar_begins > margin and calendar_ends - last > margin else None


def _label_time(axes: Axes, *, has_dates: bool) -> None:
    if not has_dates:
        axes.set_xlabel("row")
        return
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def plot_residuals(path: PathLike, series: TimeSeries, parts: Sequence[EvaluatedPart]) -> None:
    """Residuals, actual less predicted, against predictions."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for part in parts:
        residuals = part.y_true - part.y_pred
        axes.plot(part.y_pred, residuals, ".", color=_COLORS[part.name], markersize=4, alpha=0.6, label=part.name)
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set(ylabel="residual (actual - predicted)", title="Residuals")
    axes.set_xlabel(f"predicted {_name(series)}", **_PLAIN)
    axes.legend(markerscale=2)
    axes.grid(alpha=0.3)
    _save(figure, path)


def _name(series: TimeSeries) -> str:
    """What the target is called, where it may be short and on one line."""
    return printable(series.target)


def _save(figure: Figure, path: PathLike) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands there instead
        figure.savefig(path, dpi=120)
