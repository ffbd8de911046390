"""Several series: how accurate forecasts of them are, as tables, and their forecasts, as CSV."""

import csv as csv_module
import sys
from typing import TYPE_CHECKING, Any

import click

from gru_xp.reporting.text import number_text

from .messages import note, print_json, print_sentence, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.panel_evaluation import PanelBacktest
    from gru_xp.forecasting.windows import Floats
    from gru_xp.io.panel import Panel

    from .sources import Source
    from .training_run import TrainingRun

OF_SEVERAL = "cannot be combined with a model of several series yet; train on one series (--where COLUMN=VALUE)"
"""Why an option is refused beside several series."""

MOST_NAMES = 5
"""Series that are named in one line."""


def check_several(names: "Mapping[str, object]") -> None:
    """Raise UsageError if an option that is for one series is given."""
    if given := [name for name, value in names.items() if value]:
        raise click.UsageError(f"{', '.join(given)} {OF_SEVERAL}")


def is_panel(series: object) -> bool:
    """Whether they are several series."""
    from gru_xp.io.panel import Panel

    return isinstance(series, Panel)


# --- accuracy ---------------------------------------------------------------------------------------------------


def evaluate_run(run: "TrainingRun") -> "dict[str, PanelBacktest]":
    """The parts of a run that has been trained."""
    from gru_xp.forecasting.panel_evaluation import evaluate_panel
    from gru_xp.forecasting.panels import PanelSplit
    from gru_xp.io.panel import Panel

    assert isinstance(run.series, Panel)
    assert isinstance(run.split, PanelSplit)
    parts = {name: run.split.bounds(name) for name in ("train", "validation", "test")}
    return evaluate_panel(run.forecaster, run.series, parts, run.forecaster.horizon, learned=run.split.fit_ends)


def evaluate_source(
    forecaster: "Forecaster", run: str, source: "Source", horizon: int, *, known: bool
) -> "dict[str, PanelBacktest]":
    """The parts of a file: those of the run, of series that it has learned from, and ``unseen``, of others; or all."""
    from gru_xp.forecasting.panel_evaluation import evaluate_panel
    from gru_xp.io.panel import Panel

    from .sources import known_series, known_stops, training_panel

    panel = source.series
    assert isinstance(panel, Panel)
    training = panel if known else training_panel(run, forecaster)
    seen = [] if training is None else known_series(forecaster.notes, panel, training)
    others = [number for number in range(len(panel)) if number not in set(seen)]
    _warn_of_learned_names(forecaster, panel, others)
    found: dict[str, PanelBacktest] = {}
    if training is not None and seen:
        own = panel.select(seen)
        train, fit = known_stops(forecaster.notes, own)
        parts = {"train": (own.offsets[:-1], train), "validation": (train, fit), "test": (fit, own.offsets[1:])}
        rows = None if known else training.head(known_stops(forecaster.notes, training)[1])
        found = evaluate_panel(forecaster, own, parts, horizon, learned=fit, training=rows)
    if others:
        panel = panel.select(others)
        name = "unseen" if seen else "all"
        found |= evaluate_panel(forecaster, panel, {name: (panel.offsets[:-1], panel.offsets[1:])}, horizon)
    return found


def _warn_of_learned_names(forecaster: "Forecaster", panel: "Panel", others: "Sequence[int]") -> None:
    """Warn, in one line, of series that do not begin with the rows of their names that the model was trained on."""
    from gru_xp.io.messages import listed

    learned = set() if forecaster.units is None else set(forecaster.units.names)
    if names := [panel.names[number] for number in others if panel.names[number] in learned]:
        note(
            f"warning: the model was trained on series with the names {listed(names, MOST_NAMES)}; if these are the "
            "same series, the accuracy includes rows that it was trained on"
        )


def print_panel(file: str, target: str, parts: "Mapping[str, Mapping[str, Any]]") -> None:
    """The errors of all forecasts over the series of each part, and the series with the largest ones in the last."""
    *others, name = parts
    horizon, last = parts[name]["horizon"], parts[name]
    title = f"{file}, {target}: {'one' if horizon == 1 else horizon}-step-ahead accuracy, means over series"
    header = ("part", "forecast", "series", "windows", "MAE", "RMSE", "MASE", "median MASE", "skill")
    rows = [_rows(other, parts[other])[0] for other in others] + _rows(name, last)
    print_table(title, header, rows, left=2)
    if last["series"] > 1:
        worst = [
            (
                text["series"],
                str(text["windows"]),
                *(_cell(text[measure]) for measure in ("mae", "rmse", "mase")),
                _cell(text["best_baseline"][last["measure"]]),
            )
            for text in last["worst"]
        ]
        best = _named(last["best_baseline"])
        measure = last["measure"].upper()
        columns = ("series", "windows", "MAE", "RMSE", "MASE", f"{measure} of {best}")
        print_table(f"Largest {measure} of the {_model(last)}, {name} part", columns, worst, left=1)
    for sentence in _sentences(last):
        print_sentence(sentence)


def _rows(name: str, metrics: "Mapping[str, Any]") -> list[tuple[str, ...]]:
    from gru_xp.forecasting.metrics import skill

    rows, best = [], metrics["best_baseline"]
    measure = metrics["measure"]
    for number, (model, errors) in enumerate(metrics["models"].items()):
        gain = skill(errors["mean"][measure], metrics["models"][best]["mean"][measure])
        rows.append(
            (
                "" if number else name,
                _named(model) if number else _model(metrics),
                "" if number else str(metrics["series"]),
                "" if number else str(metrics["windows"]),
                *(_cell(errors["mean"][each]) for each in ("mae", "rmse", "mase")),
                _cell(errors["median"]["mase"]),
                "best" if model == best else "n/a" if gain is None else f"{gain:+.1%}",
            )
        )
    return rows


def _sentences(metrics: "Mapping[str, Any]") -> list[str]:
    gain, best, series = metrics["skill"], _named(metrics["best_baseline"]), metrics["series"]
    measure = metrics["measure"].upper()
    found = []
    if gain is not None:
        size = f"{abs(gain):.1%} {'lower' if gain >= 0 else 'higher'}"
        found.append(
            f"The mean {measure} of the {_model(metrics)} is {size} than that of the best baseline, {best}; its MAE is "
            f"lower in {metrics['better_in']} of {series} series."
        )
    if metrics["scaled_series"] < series:
        without = series - metrics["scaled_series"]
        found.append(
            f"{without} series {'has' if without == 1 else 'have'} no MASE, as training rows do not change, or are "
            "fewer than a season."
        )
    if "coverage" in metrics and metrics["coverage"] is not None:
        found.append(
            f"{metrics['coverage']:.1%} of the values are between the lowest and the highest quantile, where "
            f"{100 * metrics['expected_coverage']:.4g}% are expected."
        )
    return found


def _named(column: str) -> str:
    from gru_xp.forecasting.backtest import name_in_text

    return str(name_in_text(column))


def _model(metrics: "Mapping[str, Any]") -> str:
    name = _named(metrics["model"])
    return name if metrics["fallback"] is None else f"{name} ({_named(metrics['fallback'])})"


def _cell(number: float | None) -> str:
    return "n/a" if number is None else number_text(number)


# --- forecasts --------------------------------------------------------------------------------------------------


def print_forecasts(panel: "Panel", target: str, named: "Mapping[str, Floats]", *, as_json: bool) -> None:
    """Print forecasts ``(S, steps)`` by column, the points first, with the dates of the rows after each series."""
    from gru_xp.errors import printable

    from .forecast import next_labels

    (_, points), *others = named.items()
    columns = {target: points, **dict(others)}
    steps, rows, undated = points.shape[1], [], []
    for number, name in enumerate(panel.names):
        labels, problem = next_labels(panel[number], steps)
        if problem is not None:
            undated.append(f"{printable(name)}: {problem}")
        values = [values[number].tolist() for values in columns.values()]
        rows += [(name, *row) for row in zip(range(1, steps + 1), labels, *values, strict=True)]
    for text in undated[:1]:
        more = f" (and {len(undated) - 1} more series)" if len(undated) > 1 else ""
        note(f"{panel.name}: no dates for the forecast of {text}{more}")
    header = (panel.id, "step", "date", *columns)
    if as_json:
        print_json(
            [dict(zip(header, (name, step, label or None, *row), strict=True)) for name, step, label, *row in rows]
        )
        return
    writer = csv_module.writer(sys.stdout, lineterminator="\n")
    writer.writerow(printable(name, None) for name in header)
    for name, step, label, *values in rows:
        writer.writerow((printable(name, None), step, label, *map(repr, values)))
