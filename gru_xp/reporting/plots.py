"""The plots: each a function that returns a figure, which belongs to no pyplot session.

In all of them, actual values are dark, the model has one colour, the best forecast without training is dashed and grey,
and names are written at the lines.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gru_xp.errors import printable
from gru_xp.forecasting.backtest import Backtest, column_name, known_values, model_in_text, name_in_text
from gru_xp.forecasting.baselines import needs_no_training
from gru_xp.forecasting.data import coming_index
from gru_xp.forecasting.evaluation import EvaluatedPart
from gru_xp.forecasting.outputs import quantile_column
from gru_xp.forecasting.season import autocorrelation
from gru_xp.forecasting.windows import Floats
from gru_xp.io.series import TimeSeries
from gru_xp.reporting.style import (
    ACTUAL,
    FAN,
    MODEL,
    NAIVE,
    OTHER,
    PLAIN,
    TEXT,
    TRAINED,
    Label,
    draw_line,
    label_lines,
    label_peak,
    new_figure,
    set_heading,
    set_log_y,
    set_numbers,
    set_time,
    set_ylabel,
    shade,
    superscript,
)
from gru_xp.reporting.text import number_text
from gru_xp.training.trainer import EpochRecord

MIN_ROWS = 30
"""Of a plot of forecasts, which begins with rows before them where they are fewer."""

SEASONS, MIN_SEASON_ROWS = 3, 90
"""Of a longer test set that has a season, only so many seasons are shown, but at least so many rows."""

LOG_RATIO = 30
"""From the lowest loss to the highest one, from which on their axis is logarithmic."""

MAX_LOSS = 1e300
"""Larger losses are not drawn: an axis that extends beyond them would have no numbers."""

OUT_OF_RANGE = 3.0
"""Errors above so many times those of the model, and of the best forecast without training, are not drawn."""

MAX_FOLDS, FEW_FOLDS, MAX_FOLD_ROWS = 40, 10, 150
"""Of a backtest, so many folds are drawn over the series, the last ones: fewer where they have more rows, but not less
than a few."""

BENEATH: dict[str, Any] = {"linestyle": "--", "linewidth": 6.0, "marker": "", "zorder": 1.5}
"""How the best forecast without training is drawn where the model's is the same, which would cover it."""

NORMAL_95 = 1.96
"""Standard deviations around the mean that have 95 % of a normal distribution."""


@dataclass(frozen=True)
class Coming:
    """A forecast of the rows after the last one of a series.

    Attributes
    ----------
    model
        What made it.
    points : array, shape ``(steps,)``
        In the data's units.
    naive : array, shape ``(steps,)``
        A forecast without training.
    naive_name
        Its name.
    quantiles
        Arrays ``(steps,)`` by level.
    """

    model: str
    points: Floats
    naive: Floats
    naive_name: str
    quantiles: Mapping[float, Floats] = field(default_factory=dict)


# --- of forecasts -------------------------------------------------------------------------------------------------


def forecast_plot(series: TimeSeries, parts: Mapping[str, slice], coming: Coming | None = None) -> Figure:
    """Draw the whole series, with its parts shaded, and below it the last rows with the forecast of the coming ones.

    Parameters
    ----------
    series
        All rows.
    parts
        Name and rows of each part.
    coming
        The forecast; if None, the series is drawn alone.
    """
    steps = 0 if coming is None else len(coming.points)
    times, actual, N = row_times(series, steps), known_values(series), len(series)
    known = times[:N]
    shaded = {name: (known[rows][0], known[rows][-1]) for name, rows in parts.items() if len(known[rows])}
    if coming is None:
        figure, whole = new_figure(name_of(series))
    else:
        title = f"{name_of(series)}: the series, and the next {_count(steps, 'row')}"
        figure, (whole, last) = new_figure(title, nrows=2, height_ratios=(1, 1.5))
        shaded["forecast"] = (times[N - 1], times[-1])
        draw_coming(last, series, times, coming)
    draw_line(whole, times[:N], actual, ACTUAL, label="actual", linewidth=1.3, marker="")
    if coming is not None:
        draw_line(whole, times[N:], coming.points, MODEL, label=coming.model, linewidth=1.3, marker="")
    set_time(whole, times)
    set_ylabel(whole, name_of(series))
    shade(whole, shaded, times)
    return figure


def draw_coming(axes: Axes, series: TimeSeries, times: Any, coming: Coming) -> None:
    """Draw the last rows, and what follows them; `times` are those of the coming rows, too."""
    N, steps, actual = len(series), len(coming.points), known_values(series)
    first = max(0, N - max(MIN_ROWS, 3 * steps))
    ahead = times[N - 1 :]
    shown = actual[first:]
    axes.axvspan(times[N - 1], times[-1], color=MODEL, alpha=0.07, linewidth=0)
    origin = actual[N - 1] if np.isfinite(actual[N - 1]) else series.values[N - 1, 0]
    quantiles = {level: np.concatenate([[origin], values]) for level, values in coming.quantiles.items()}
    labels = draw_fan(axes, ahead, quantiles)
    draw_line(axes, times[first:N], shown, ACTUAL, label="actual")
    model, naive = (np.concatenate([[origin], values]) for values in (coming.points, coming.naive))
    draw_line(axes, ahead, model, MODEL, label=coming.model, linewidth=2.2)
    how = _look_of_naive(model, naive, {"linestyle": "--", "marker": ""})
    draw_line(axes, ahead, naive, NAIVE, label=coming.naive_name, **how)
    set_time(axes, times[first:])
    set_ylabel(axes, name_of(series))
    labels += [Label(coming.model, model[-1], MODEL), Label(coming.naive_name, naive[-1], NAIVE)]
    label_peak(axes, "actual", times[first:N], shown, ACTUAL)
    label_lines(axes, labels)


def draw_fan(axes: Axes, x: Any, quantiles: Mapping[float, Floats]) -> list[Label]:
    """Shade the intervals between pairs of quantiles, the widest one first; their names, to be written at the end."""
    labels = []
    for low in sorted(level for level in quantiles if level < 0.5):
        high = next((level for level in quantiles if abs(level + low - 1) < 1e-9), None)
        if high is None:
            continue
        name = f"{100 * (high - low):g}%"
        axes.fill_between(x, quantiles[low], quantiles[high], color=MODEL, alpha=0.16, linewidth=0, label=name)
        labels.append(Label(name, float(quantiles[high][-1]), FAN))
    return labels


def sequence_plot(series: TimeSeries, part: EvaluatedPart) -> Figure:
    """Draw actual values and predictions of a part, or of its last three seasons, beside the best naive forecast."""
    shown = _last_seasons(part)
    where = part_text(part) if len(shown.rows) == len(part.rows) else f"last rows of the {part_text(part)}"
    figure, axes = new_figure(f"{name_of(series)}, {where}, {ahead_text(part)}: {mae_text(part)}")
    draw_sequence(axes, series, shown)
    return figure


def draw_sequence(axes: Axes, series: TimeSeries, part: EvaluatedPart) -> None:
    """Draw actual values and predictions of a part, after a few rows before it where it is short."""
    times, actual = row_times(series), known_values(series)
    rows = np.asarray(part.rows)
    first, last = int(rows.min()), int(rows.max())
    first = max(0, min(first, last + 1 - MIN_ROWS))
    x, at = times[first : last + 1], rows - first
    model, naive = model_in_text(part.metrics), name_in_text(part.metrics["best_baseline"])
    labels = draw_fan(axes, x, {level: _at(at, values, len(x)) for level, values in part_quantiles(part).items()})
    thin = {"linestyle": "--", "linewidth": 1.2, "marker": ""}
    lines: dict[str, tuple[Floats, str, dict[str, Any]]] = {
        "actual": (actual[first : last + 1], ACTUAL, {"linewidth": 2.0}),
        model: (_at(at, part.y_pred, len(x)), MODEL, {}),
        naive: (_at(at, part.y_naive, len(x)), NAIVE, _look_of_naive(part.y_pred, part.y_naive, thin)),
    }
    if len(rows) == 1:
        lines[naive][2].update(marker="_", markersize=16, markeredgewidth=2.5)
    for name, (y, color, how) in lines.items():
        draw_line(axes, x, y, color, label=name, **how)
        there = np.flatnonzero(np.isfinite(y))
        if len(there):
            labels.append(Label(name, float(y[there[-1]]), color))
    set_time(axes, x)
    set_ylabel(axes, name_of(series))
    label_lines(axes, labels)


def _look_of_naive(model: Floats, naive: Floats, how: Mapping[str, Any]) -> dict[str, Any]:
    """`how`, or that it is beneath the model's where both are the same."""
    return dict(BENEATH if _coincide(model, naive) else how)


def _last_seasons(part: EvaluatedPart) -> EvaluatedPart:
    """The last rows of a part that is longer than three seasons; all where it has no season."""
    season = part.metrics["season"]
    count = max(SEASONS * season, MIN_SEASON_ROWS)
    if season < 2 or len(part.rows) <= count:
        return part
    last = np.asarray(part.rows) > max(part.rows) - count
    kept = {name: getattr(part, name)[last] for name in ("steps", "y_true", "y_pred", "y_naive")}
    quantiles = {name: values[last] for name, values in part.quantiles.items()}
    return EvaluatedPart(
        part.name, np.asarray(part.rows)[last].tolist(), **kept, metrics=part.metrics, quantiles=quantiles
    )


def _at(rows: Any, values: Floats, count: int) -> Floats:
    """Values of some of `count` rows, NaN for the others; of several forecasts of a row, the last one."""
    every = np.full(count, np.nan)
    every[rows] = values
    return every


def folds_plot(backtest: Backtest) -> Figure:
    """Draw the forecasts of a backtest over the series, and below them the error of each, beside the best naive one."""
    series, metrics = backtest.series, backtest.metrics
    model, best = model_in_text(metrics), metrics["best_baseline"]
    naive = name_in_text(best)
    of_naive = next(backtest.forecasts[name] for name in backtest.baselines if column_name(name) == best)
    n, steps = backtest.y_pred.shape
    windows = f"{_count(n, 'forecast')} of {_count(steps, 'row')}"
    figure, (above, below) = new_figure(
        f"{name_of(series)}, backtest, {windows}: {_mae_text(metrics)}", nrows=2, height_ratios=(1.5, 1), sharex=True
    )
    times, actual = row_times(series), known_values(series)
    most = max(FEW_FOLDS, min(MAX_FOLDS, MAX_FOLD_ROWS // steps)) if steps > 1 else n
    shown = slice(max(0, n - most), n)
    rows = backtest.rows[shown]
    first = max(0, int(rows[0, 0]) - max(MIN_ROWS, steps))
    last = int(rows[-1, -1]) + 1
    look_of_naive = _look_of_naive(backtest.y_pred, of_naive, {"linestyle": "--", "linewidth": 1.3})
    draw_line(above, times[first:last], actual[first:last], ACTUAL, label="actual", marker="")
    for forecasts, name, color, how in (
        (backtest.y_pred, model, MODEL, {}),
        (of_naive, naive, NAIVE, look_of_naive),
    ):
        x, y = _joined(times, rows, forecasts[shown])
        draw_line(above, x, y, color, label=name, **{"marker": "", **how})
    if steps > 1:
        origins = rows[:, 0]
        above.plot(times[origins], backtest.y_pred[shown, 0], "o", color=MODEL, markersize=4, label="origins")
    ends = {"actual": actual[last - 1], model: backtest.y_pred[-1, -1], naive: of_naive[-1, -1]}
    colors = (ACTUAL, MODEL, NAIVE)
    label_lines(above, [Label(name, float(y), c) for (name, y), c in zip(ends.items(), colors, strict=True)])
    set_ylabel(above, name_of(series))
    if shown.start:
        set_heading(above, f"the last {most} forecasts")

    labels = []
    for forecasts, name, color, how in (
        (of_naive, naive, NAIVE, look_of_naive),
        (backtest.y_pred, model, MODEL, {}),
    ):
        errors = _mean_of_known(np.abs(backtest.y_true - forecasts)[shown])
        draw_line(below, times[rows[:, 0]], errors, color, label=name, **how)
        there = np.flatnonzero(np.isfinite(errors))
        if len(there):
            labels.append(Label(name, float(errors[there[-1]]), color))
    below.set_ylim(bottom=0)
    set_heading(below, "error of each forecast, at its first row")
    set_ylabel(below, "MAE")
    set_time(below, times[first:last])
    label_lines(below, labels)
    return figure


def _joined(times: Any, rows: Any, forecasts: Floats) -> tuple[Any, Floats]:
    """Forecasts ``(n, steps)`` as one line with gaps between them; of one step, without."""
    if rows.shape[1] == 1:
        return times[rows[:, 0]], forecasts[:, 0]
    gap = np.full((len(rows), 1), np.nan)
    return times[np.concatenate([rows, rows[:, -1:]], axis=1)].ravel(), np.concatenate([forecasts, gap], axis=1).ravel()


def _mean_of_known(errors: Floats) -> Floats:
    """Of each row of ``(n, steps)``; NaN where no error is known."""
    there = np.isfinite(errors)
    counts = there.sum(axis=1)
    sums = np.where(there, errors, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


# --- of errors ----------------------------------------------------------------------------------------------------


def error_by_step(series: TimeSeries, part: EvaluatedPart) -> Figure:
    """Draw the mean absolute error by step ahead of all forecasts; a dot for each of them where there is one step."""
    metrics = part.metrics
    errors = {
        column: np.array([math.nan if error is None else error for error in measures["by_step"]["mae"]])
        for column, measures in metrics["models"].items()
    }
    model, best, steps = metrics["model"], metrics["best_baseline"], metrics["horizon"]
    names = {column: name_in_text(column) for column in errors} | {model: model_in_text(metrics)}
    looks = _looks(errors, model, best)
    title = f"{name_of(series)}, {part_text(part)}: mean absolute error"
    if steps == 1:
        figure, axes = new_figure(f"{title}, 1 row ahead")
        _draw_dots(axes, {column: float(error[0]) for column, error in errors.items()}, names, looks)
        return figure
    figure, axes = new_figure(f"{title} by rows ahead")
    x = np.arange(1, steps + 1)
    top = _highest_shown(np.concatenate([errors[model], errors[best]]))
    labels = []
    ordered = sorted(errors, key=lambda column: (column == model, column == best))
    naive = [column for column in ordered if looks[column][0] in (NAIVE, OTHER)]
    for column in ordered:
        color, how = looks[column]
        end, known = float(errors[column][-1]), errors[column][np.isfinite(errors[column])]
        together = [c for c in naive if column in naive and _coincide(errors[c], errors[column])] or [column]
        name = ", ".join(names[c] for c in errors if c in together)
        if not len(known) or known.min() > top:
            mean = number(float(known.mean())) if len(known) else ""
            label = Label(f"{name} ↑ {mean}", top, color)
        else:
            draw_line(axes, x, errors[column], color, label=names[column], **how)
            label = Label(f"{name} ↑" if end > top else name, min(end, top), color)
        if column == together[-1]:
            labels.append(label)
    shown = [line.get_ydata() for line in axes.get_lines()]
    highest = min(top, float(np.nanmax(np.concatenate(shown), initial=0.0)) * 1.08)
    axes.set_ylim(0, highest or 1.0)
    axes.set_xlim(0.7, steps + 0.3)
    set_numbers(axes, "rows ahead", whole=True)
    set_ylabel(axes, f"MAE of {name_of(series)}")
    label_lines(axes, labels)
    return figure


def _coincide(one: Floats, other: Floats) -> bool:
    return bool(np.allclose(one, other, rtol=1e-9, atol=0.0, equal_nan=True))


def _looks(errors: Mapping[str, Floats], model: str, best: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Colour and line of each forecast."""
    colors = iter(TRAINED * len(errors))
    looks: dict[str, tuple[str, dict[str, Any]]] = {}
    for column in errors:
        if column == model:
            looks[column] = (MODEL, {"linewidth": 2.6})
        elif column == best:
            looks[column] = (NAIVE, _look_of_naive(errors[model], errors[best], {"linestyle": "--", "linewidth": 2.0}))
        elif needs_no_training(name_in_text(column)):
            looks[column] = (OTHER, {"linewidth": 1.2, "marker": ""})
        else:
            looks[column] = (next(colors), {"linewidth": 1.4})
    return looks


def _highest_shown(errors: Floats) -> float:
    return float(OUT_OF_RANGE * np.nanmax(errors, initial=0.0)) or 1.0


def _draw_dots(
    axes: Axes,
    errors: Mapping[str, float],
    names: Mapping[str, str],
    looks: Mapping[str, tuple[str, dict[str, Any]]],
) -> None:
    """One error of each forecast, the lowest one at the top, as a distance from zero."""
    errors = {column: math.inf if math.isnan(error) else error for column, error in errors.items()}
    ordered = sorted(errors, key=errors.__getitem__)
    compared = [errors[c] for c in ordered if looks[c][0] in (MODEL, NAIVE) and errors[c] < math.inf]
    top = _highest_shown(np.array(compared))
    shown_most = max((error for error in errors.values() if error <= top), default=1.0) or 1.0
    for place, column in enumerate(ordered):
        color, how = looks[column]
        color = NAIVE if color == OTHER else color
        error = errors[column]
        end = min(error, 1.12 * shown_most)
        axes.plot([0, end], [place, place], color=color, linewidth=2.2, linestyle=how.get("linestyle", "-"))
        if error <= top:
            axes.plot([error], [place], "o", color=color, markersize=9, label=names[column])
        text = number(error) if error <= top else f"{number(error) if error < math.inf else 'too large'} →"
        axes.annotate(
            text, (end, place), (8, 0), textcoords="offset points", va="center", fontsize=TEXT, color=color, **PLAIN
        )
    axes.set_yticks(range(len(ordered)), [names[column] for column in ordered], fontsize=TEXT + 1, **PLAIN)
    for tick, column in zip(axes.get_yticklabels(), ordered, strict=True):
        tick.set_color(NAIVE if looks[column][0] == OTHER else looks[column][0])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, 1.3 * shown_most)
    set_numbers(axes, "MAE")


def residual_plot(series: TimeSeries, part: EvaluatedPart) -> Figure:
    """Draw the residuals of a part: over time, with a band; how they are distributed; and their autocorrelation.

    The band has 95 % of a normal distribution with their mean and standard deviation. Of several forecasts of a row,
    the nearest one counts. The autocorrelation goes to two seasons, or to ``10 log10(n)`` rows without a season; the
    band around zero has 95 % of that of uncorrelated residuals.
    """
    rows, residuals = nearest_residuals(part)
    times = row_times(series)
    first, last = int(rows[0]), int(rows[-1])
    every = _at(rows - first, residuals, last + 1 - first)
    x = times[first : last + 1]
    mean, deviation = float(np.mean(residuals)), float(np.std(residuals))
    title = f"{name_of(series)}, {part_text(part)}: residuals of {model_in_text(part.metrics)} (actual − predicted)"
    figure, axes = new_figure(title, nrows=2, ncols=2, width_ratios=(3, 1), height_ratios=(1.5, 1))
    (over_time, histogram), (correlation, empty) = axes
    empty.remove()

    band = (mean - NORMAL_95 * deviation, mean + NORMAL_95 * deviation)
    over_time.axhspan(*band, color=MODEL, alpha=0.1, linewidth=0, label="band")
    for edge in band:
        over_time.axhline(edge, color=MODEL, alpha=0.5, linewidth=1.0, linestyle="--", label="edge")
    over_time.axhline(0.0, color=ACTUAL, linewidth=1.0, label="zero")
    how: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.9} if len(x) > 60 else {"linestyle": "none"}
    draw_line(over_time, x, every, MODEL, label="residuals", **how)
    set_time(over_time, x)
    set_ylabel(over_time, name_of(series))
    set_heading(over_time, f"mean {number(mean)}, band: ±1.96 standard deviations of {number(deviation)}")
    _draw_histogram(histogram, residuals)
    low, high = over_time.get_ylim()
    over_time.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    histogram.set_ylim(over_time.get_ylim())
    histogram.tick_params(labelleft=False)
    set_heading(histogram, "distribution")
    _draw_autocorrelation(correlation, every, len(residuals), part.metrics["season"])
    return figure


def nearest_residuals(part: EvaluatedPart) -> tuple[Any, Floats]:
    """Rows, rising, and their residuals, each of the forecast that is the fewest steps ahead."""
    order = np.lexsort((part.steps, np.asarray(part.rows)))
    rows, first = np.unique(np.asarray(part.rows)[order], return_index=True)
    return rows, (part.y_true - part.y_pred)[order][first]


def _draw_histogram(axes: Axes, residuals: Floats) -> None:
    """Lying, beside an axis of residuals."""
    low, high = float(residuals.min()), float(residuals.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = 0.02 * (abs(high) or 1.0)
        counts, edges = np.array([len(residuals)]), np.array([low - margin, high + margin])
    else:
        bins = int(np.clip(math.sqrt(len(residuals)), 5, 40))
        counts, edges = np.histogram(residuals, bins=np.linspace(low, high, bins + 1))
    axes.barh(edges[:-1], counts, height=np.diff(edges), align="edge", color=MODEL, alpha=0.75)
    axes.axhline(0.0, color=ACTUAL, linewidth=1.0)
    axes.grid(False)
    set_numbers(axes, "rows", 3, whole=True)


def _draw_autocorrelation(axes: Axes, every: Floats, n: int, season: int) -> None:
    """Of values in equal steps, NaN where `n` others are missing."""
    set_heading(axes, "autocorrelation, with the band of uncorrelated residuals")
    set_numbers(axes, "rows apart", whole=True)
    lags = min(2 * season if season > 1 else max(round(10 * math.log10(n)), 1), len(every) - 1)
    filled = np.where(np.isfinite(every), every, np.nanmean(every))
    if lags < 1 or np.ptp(filled) <= 1e-9 * np.abs(filled).max():
        axes.text(
            0.5,
            0.5,
            "undefined: all residuals are equal",
            ha="center",
            transform=axes.transAxes,
            fontsize=TEXT,
            **PLAIN,
        )
        axes.set(xticks=[], yticks=[])
        return
    x, N = np.arange(1, lags + 1), len(filled)
    values = autocorrelation(filled / np.abs(filled).max())[1 : lags + 1] * (1 - x / N)
    limit = NORMAL_95 / math.sqrt(n)
    axes.axhspan(-limit, limit, color="0.5", alpha=0.18, linewidth=0, label="band")
    axes.axhline(0.0, color=ACTUAL, linewidth=1.0)
    width = float(np.clip(150 / lags, 0.8, 5.0))
    axes.vlines(x, 0.0, values, color=MODEL, linewidth=width, label="autocorrelation")
    for multiple in (1, 2):
        if season > 1 and multiple * season <= lags:
            axes.axvline(multiple * season, color=NAIVE, linestyle=":", linewidth=1.2, zorder=0)
            text = "season" if multiple == 1 else "2 seasons"
            axes.annotate(
                text, (multiple * season, 1.0), (-4, -2), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="right", va="top", fontsize=TEXT - 1, color=NAIVE, **PLAIN,
            )  # fmt: skip
    axes.set_xlim(0.5, lags + 0.5)
    reach = max(1.15 * float(np.abs(values).max()), 1.5 * limit)
    axes.set_ylim(-min(reach, 1.05), min(reach, 1.05))


# --- of a training ------------------------------------------------------------------------------------------------


def cost_plot(
    name: str, history: Sequence[EpochRecord], best_epoch: int, naive: tuple[str, float] | None = None
) -> Figure:
    """Draw the loss over epochs: of the training rows, and of validation rows where there are any.

    Parameters
    ----------
    name
        Of the series.
    history
        The epochs.
    best_epoch
        The one that is kept. It is marked, as the best one where it has the lowest validation loss.
    naive
        Name of the best forecast without training, and its loss in the same rows and units.
    """
    epochs = np.array([record.epoch for record in history])
    costs = {"training": np.array([record.cost for record in history])}
    validation = [record.validation_cost for record in history if record.validation_cost is not None]
    if len(validation) == len(history):
        costs["validation"] = np.array(validation)
    judged = costs.get("validation", costs["training"])
    at = int(np.flatnonzero(epochs == best_epoch)[0])
    is_best = "validation" in costs and not (judged < judged[at]).any()
    said = f"{printable(name)}, loss over epochs: {number(float(judged[at]))} at epoch {best_epoch}"
    said = f"{said}, {'the best' if is_best else 'which is kept'}"
    figure, axes = new_figure(said if naive is None else f"{said}; {naive[0]} forecast {number(naive[1])}")
    levels = np.concatenate([*costs.values(), [] if naive is None else [naive[1]]])
    levels = levels[np.abs(levels) < MAX_LOSS]
    labels = []
    for part, cost in costs.items():
        color = MODEL if part == "training" else TRAINED[0]
        shown = np.where(np.abs(cost) < MAX_LOSS, cost, np.nan)
        draw_line(axes, epochs, shown, color, label=part, linewidth=2.2)
        there = np.flatnonzero(np.isfinite(shown))
        if len(there):
            labels.append(Label(part, float(shown[there[-1]]), color))
    if naive is not None:
        axes.axhline(naive[1], color=NAIVE, linestyle="--", linewidth=1.8, label=naive[0])
        labels.append(Label(naive[0], naive[1], NAIVE))
    axes.axvline(best_epoch, color="0.5", linestyle=":", linewidth=1.4, label="kept epoch")
    if len(levels) and levels.min() > 0 and levels.max() / levels.min() > LOG_RATIO:
        set_log_y(axes, float(levels.min()), float(levels.max()))
    if abs(judged[at]) < MAX_LOSS:
        axes.plot([best_epoch], [judged[at]], "o", color=ACTUAL, markersize=9, zorder=5, label="kept")
    set_numbers(axes, "epoch", whole=True)
    set_ylabel(axes, "loss, in scaled units")
    label_lines(axes, labels)
    near_end = best_epoch > epochs[0] + 0.7 * (epochs[-1] - epochs[0])
    axes.annotate(
        f"{'best' if is_best else 'kept'}: epoch {best_epoch}", (best_epoch, 1.0), (-6 if near_end else 6, -2),
        xycoords=("data", "axes fraction"), textcoords="offset points", ha="right" if near_end else "left", va="top",
        fontsize=TEXT, color="0.3", **PLAIN,
    )  # fmt: skip
    return figure


# --- what they have in common -------------------------------------------------------------------------------------


def row_times(series: TimeSeries, coming: int = 0) -> Any:
    """The time of each row, and of `coming` ones after it; their numbers where they have no times.

    That is so, too, where an axis that extends a little beyond them would leave the calendar, or where the rows have no
    usual spacing to continue with.
    """
    numbers = np.arange(len(series) + coming)
    if series.dates is None or not len(series):
        return numbers
    first, last = series.dates[0], series.dates[-1]
    margin = (last - first) / 4 + timedelta(days=3000)
    calendar_begins, calendar_ends = (end.replace(tzinfo=first.tzinfo) for end in (datetime.min, datetime.max))
    if first - calendar_begins <= margin or calendar_ends - last <= margin:
        return numbers
    dates = np.array([*series.dates], dtype="datetime64[us]")
    if not coming:
        return dates
    following = coming_index(series, series, coming)
    if following is None or following.dtype.kind != "M":
        return numbers
    return np.concatenate([dates, following.to_numpy().astype("datetime64[us]")])


def name_of(series: TimeSeries) -> str:
    """The name of the target, where it may be short and on one line."""
    return printable(series.target)


def part_text(part: EvaluatedPart) -> str:
    """The name of a part in a title."""
    return {"train": "training set", "all": "all rows", "backtest": "backtest"}.get(part.name, f"{part.name} set")


def part_quantiles(part: EvaluatedPart) -> dict[float, Floats]:
    """The quantiles of a part, by level."""
    found = ((quantile_column(column), values) for column, values in part.quantiles.items())
    return {column[1]: values for column, values in found if column is not None}


def ahead_text(part: EvaluatedPart) -> str:
    """How far ahead the predictions of a part are."""
    horizon = part.metrics["horizon"]
    return "1 row ahead" if horizon == 1 else f"1 to {horizon} rows ahead"


def mae_text(part: EvaluatedPart) -> str:
    """The errors of the model and of the best forecast without training, in a title."""
    return _mae_text(part.metrics)


def _mae_text(metrics: Mapping[str, Any]) -> str:
    model, best = (metrics["models"][metrics[name]]["mae"] for name in ("model", "best_baseline"))
    if model is None or best is None:
        return f"MAE of {model_in_text(metrics)} {'unknown' if model is None else number(model)}"
    said, naive = f"MAE of {model_in_text(metrics)} {number(model)}", name_in_text(metrics["best_baseline"])
    if math.isclose(model, best):
        return f"{said}, the same as {naive}"
    gain = metrics["skill"]
    compared = "" if gain is None else f" ({abs(gain):.1%} {'lower' if gain >= 0 else 'higher'})"
    return f"{said}, {naive} {number(best)}{compared}"


def number(value: float) -> str:
    """A number as in tables, with a minus sign and powers of ten."""
    mantissa, e, exponent = number_text(value).replace("-", "−").partition("e")
    return f"{mantissa}×10{superscript(exponent)}" if e else mantissa


def _count(count: int, name: str) -> str:
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"
