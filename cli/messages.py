"""What the commands say: results on stdout, everything else on stderr."""

import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from gru_xp.errors import DeviceWarning, printable
from gru_xp.reporting.text import number_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gru_xp.devices import Device
    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.evaluation import EvaluatedPart
    from gru_xp.forecasting.panels import AnySeries
    from gru_xp.io.series import TimeSeries

    from .options import DeviceRequest


MOST_DIGITS = 15
"""Digits before the point of a number without an exponent; those of larger numbers are not exact."""

MOST_STEPS = 6
"""Columns of a table of errors by step ahead."""

UNCERTAIN = "~"
"""After a skill that is not significant."""

GAPS = (3, 2, 1)
"""Columns between the columns of a table."""


def note(text: str, *, quiet: bool = False) -> None:
    """One line on stderr."""
    if not quiet:
        click.echo(printable(text, None), err=True)


def note_while_running(text: str) -> None:
    """One line on stderr, above the progress bar, which replaces `sys.stderr` while it is shown."""
    click.echo(printable(text, None), file=sys.stderr)


def settled_texts(forecaster: "Forecaster") -> list[str]:
    """What was chosen for the options that are ``auto``, a line each."""
    texts = []
    if "auto" in (forecaster.seq_length, forecaster.season):
        texts.append(f"windows of {rows_text(forecaster.window_length)}; season: {seasons_text(forecaster.seasons)}")
    if forecaster.transform == "auto":
        texts.append(f"transform: {forecaster.notes['transform']['reason']}")
    return texts


def seasons_text(seasons: Sequence[int]) -> str:
    """The seasons of a series, in words."""
    return " and ".join(f"{season} rows" for season in seasons) or "none"


def rows_text(count: int) -> str:
    """A number of rows, in words."""
    return "1 row" if count == 1 else f"{count} rows"


def note_if_not_guarded(forecaster: "Forecaster", training: "AnySeries", *, quiet: bool) -> None:
    """One line on stderr if the training rows are too few for the guard that a forecaster asks for."""
    from gru_xp.forecasting.guard import MIN_GUARDED, guarded_blocks, held_out_origins
    from gru_xp.io.panel import Panel

    if not forecaster.guard:
        return
    _, origins = held_out_origins(training, forecaster.horizon, forecaster.window_length)
    windows = len(origins)
    can_use_blocks = not isinstance(training, Panel) and guarded_blocks(forecaster, training) is not None
    if windows < MIN_GUARDED and not can_use_blocks:
        held = "1 window" if windows == 1 else f"{windows} windows"
        note(
            f"too few rows for the guard (--guard): {held} in the last fifth of the training rows, {MIN_GUARDED} are "
            "needed",
            quiet=quiet,
        )


def warn_of_few_windows(forecaster: "Forecaster", rows: int) -> None:
    """One line on stderr if a forecaster learns from too few rows to be of use."""
    from gru_xp.forecasting.recipe import MIN_LEARNED

    windows = rows - forecaster.window_length - forecaster.horizon + 1
    if windows < MIN_LEARNED:
        ridge = ", or use --model ridge, which needs fewer" if forecaster.model != "ridge" else ""
        note(
            f"warning: {windows} training windows; with fewer than {MIN_LEARNED}, forecasts are often worse than those "
            f"that need no training: give more rows{ridge}"
        )


def warn_of_few_scores(forecaster: "Forecaster") -> None:
    """One line on stderr if intervals have too few forecasts of held-out rows."""
    from gru_xp.forecasting.conformal import shortage

    if forecaster.guard_ended and (few := shortage(forecaster)) is not None:
        note(f"warning: {few}")


def note_what_the_guard_chose(forecaster: "Forecaster", *, quiet: bool = False) -> None:
    """One line on stderr if a forecaster's guard has chosen a forecast that needs no training."""
    if forecaster.fallback is not None:
        other = "--no-guard" if forecaster.guard else f"--model {forecaster.model} --no-guard"
        note(
            f"nothing beats the {forecaster.fallback} forecast here; forecasting that (train with {other} to forecast "
            "with the model)",
            quiet=quiet,
        )


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note_while_running(record.getMessage())


@contextmanager
def log_as_notes(*, quiet: bool) -> Iterator[None]:
    """Context in which what the package logs for users, such as that it compiles, is a line on stderr."""
    logger, handler = logging.getLogger("gru_xp"), _Notes(logging.INFO)
    level = logger.level
    if not quiet:
        logger.setLevel(min(level or logging.INFO, logging.INFO))
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def device_warnings_as_notes() -> Iterator[None]:
    """Context in which each `DeviceWarning` is a line on stderr, also where other warnings are ignored."""
    show = warnings.showwarning

    def show_or_note(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if issubclass(category, DeviceWarning):
            note_while_running(f"warning: {message}")
        else:
            show(message, category, *args, **kwargs)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DeviceWarning)
        warnings.showwarning = show_or_note
        yield


def choose_device(request: "DeviceRequest", *, quiet: bool) -> "Device":
    """The device that the options ask for; one line says which it is and why."""
    from gru_xp.devices import resolve_device
    from gru_xp.devices.device import tf32_problem

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it is said below
        fallback = False if request.no_fallback else None
        device = resolve_device(request.name, fallback=fallback, threads=request.threads, tf32=request.tf32)
    if device.fallback:
        name = "cuda:0" if request.name == "auto" else request.name
        note(f"warning: device {name} cannot be used: {device.reason}; using the CPU")
    else:
        in_tf32 = ", in TF32" if device.tf32 else ""
        note(f"device: {device.name}{in_tf32} ({request.reason or device.reason})", quiet=quiet)
    if request.tf32 and not device.tf32:
        note(f"warning: --tf32 has no effect: {tf32_problem(device.name)}")
    return device


def print_json(result: Any) -> None:
    """A result for programs."""
    click.echo(json.dumps(result, indent=2))


def accuracy_title(file: str, target: str, horizon: int) -> str:
    """The title of a table of errors."""
    return f"{file}, {target}: {'one' if horizon == 1 else horizon}-step-ahead accuracy"


def note_if_no_ridge(metrics: Mapping[str, Any], file: str, training: "TimeSeries | None", *, quiet: bool) -> None:
    """Say why a table has no ridge, where it has none; the training rows are None where they are not known."""
    from gru_xp.forecasting.backtest import RIDGE, column_name

    if column_name(RIDGE) in metrics["models"]:
        return
    why = "the training rows are too few to fit it to"
    if training is None:
        why = f"neither {file} nor the run has the training rows"
    elif len(training) > 1 and (training.values[:, 0] == training.values[0, 0]).all():
        why = f"{training.target} is constant in the training rows"
    note(f"no ridge in the table: {why}", quiet=quiet)


def print_parts(file: str, target: str, parts: "Sequence[EvaluatedPart]") -> None:
    """The closing table of a training or an evaluation."""
    title = accuracy_title(file, target, parts[-1].metrics["horizon"])
    print_accuracy(title, {part.name: part.metrics for part in parts})


def print_accuracy(title: str, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """The model's errors in every part, in the last one beside those of the ridge and of forecasts without training.

    For several steps ahead, the errors by step in the last part follow; at the end, what they mean. Of quantiles, there
    are also the mean loss and the share of values between the lowest and the highest, beside the share to expect.
    """
    from gru_xp.forecasting.backtest import comparison_sentence, copying_sentence, guard_sentence

    *others, name = parts
    last = parts[name]
    of_model = last["models"][last["model"]]
    header: tuple[str, ...] = ("part", "forecast", "windows", "MAE", "RMSE", "MASE", "skill")
    if "pinball" in of_model:
        header += ("pinball",)
    if "coverage" in of_model:
        header += (f"in {100 * of_model['expected_coverage']:.4g}%",)
    for digits in range(MOST_DIGITS, 8, -1):
        rows = [_part_rows(other, parts[other], digits)[0] for other in others] + _part_rows(name, last, digits)
        if _fitting_gap(_console(), header, rows, 2) is not None:
            break
    print_table(title, header, rows, left=2)
    if of_model.get("intervals"):
        print_intervals(f"Intervals, {name} part", last)
    if last["horizon"] > 1:
        rows += print_steps(f"Mean absolute error by step ahead, {name} part", last)
    if any(cell.endswith(UNCERTAIN) for row in rows for cell in row):
        print_sentence(f"{UNCERTAIN} not significant: the difference from the best baseline may be chance.")
    for sentence in (guard_sentence(last), comparison_sentence(last), copying_sentence(last)):
        if sentence is not None:
            print_sentence(sentence)


def _part_rows(name: str, metrics: Mapping[str, Any], digits: int) -> list[tuple[str, ...]]:
    """The rows of a table of errors, the model's first, with numbers of up to `digits` digits in full."""
    from gru_xp.forecasting.backtest import model_in_text, name_in_text
    from gru_xp.forecasting.baselines import needs_no_training
    from gru_xp.forecasting.metrics import skill

    best, rows = metrics["best_baseline"], []
    for number, (model, errors) in enumerate(metrics["models"].items()):
        text = "best" if model == best else ""
        if not number:
            text = _skill(metrics["skill"], metrics["p_value"])
        elif not needs_no_training(name_in_text(model)):
            text = _skill(skill(errors["mae"], metrics["models"][best]["mae"]), metrics["p_values"][model])
        rows.append(
            (
                "" if number else name,
                name_in_text(model) if number else model_in_text(metrics),
                "" if number else str(metrics["windows"]),
                *(_cell(errors[measure], digits) for measure in ("mae", "rmse")),
                _cell(errors["mase"], 4),
                text,
                *_quantile_cells(errors, metrics["models"][metrics["model"]]),
            )
        )
    return rows


def _quantile_cells(errors: Mapping[str, Any], of_model: Mapping[str, Any]) -> list[str]:
    """The cells of a forecast for the quantile measures in the table; empty if it has no quantiles."""
    cells = []
    if "pinball" in of_model:
        cells.append(_cell(errors["pinball"], 4) if "pinball" in errors else "")
    if "coverage" in of_model:
        share = errors.get("coverage")
        cells.append("" if share is None else f"{share:.1%}")
    return cells


def print_intervals(title: str, metrics: Mapping[str, Any]) -> None:
    """Print, for each forecast with quantiles, which share of the values its intervals have and how wide they are.

    Of many levels, those of the widest intervals that the table has room for.
    """
    levels = list(metrics["models"][metrics["model"]]["intervals"])
    for first in range(len(levels)):
        shown = levels[first:]
        header = ("forecast", *(cell for level in shown for cell in (f"in {level}%", "width")), "pinball", "CRPS")
        rows = [
            (name, *_interval_cells(errors["intervals"], shown), _cell(errors["pinball"], 4), _cell(errors["crps"], 4))
            for name, errors in _named_errors(metrics)
            if "intervals" in errors
        ]
        if _fitting_gap(_console(), header, rows, 1) is not None:
            break
    print_table(title, header, rows, left=1)


def _named_errors(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The errors of each forecast, the model's first, with its name in tables."""
    from gru_xp.forecasting.backtest import model_in_text, name_in_text

    for number, (model, errors) in enumerate(metrics["models"].items()):
        yield name_in_text(model) if number else model_in_text(metrics), errors


def _interval_cells(intervals: Mapping[str, Mapping[str, float | None]], levels: Sequence[str]) -> Iterator[str]:
    for level in levels:
        found = intervals.get(level, {"coverage": None, "width": None})
        share = found["coverage"]
        yield "n/a" if share is None else f"{share:.1%}"
        yield _cell(found["width"], 4)


def print_steps(title: str, metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Print the errors by step ahead, for a selection if there are many steps, and return the rows of the table."""
    from gru_xp.forecasting.backtest import name_in_text

    horizon = metrics["horizon"]
    steps = sorted({*range(1, min(horizon, MOST_STEPS) + 1)} if horizon <= MOST_STEPS else _some(horizon))
    rows = [
        (name_in_text(model), *(_cell(errors["by_step"]["mae"][step - 1], 9) for step in steps))
        for model, errors in metrics["models"].items()
    ]
    skills = (_skill(metrics["skill_by_step"][step - 1], metrics["p_value_by_step"][step - 1]) for step in steps)
    rows.append((f"skill, {name_in_text(metrics['model'])}", *skills))
    print_table(title, ("step", *map(str, steps)), rows, left=1)
    return rows


def _some(horizon: int) -> set[int]:
    """Some steps of many, the first and the last among them."""
    return {1 + round(part * (horizon - 1) / (MOST_STEPS - 1)) for part in range(MOST_STEPS)}


def _cell(number: float | None, digits: int) -> str:
    return "n/a" if number is None else number_text(number, digits)


def _skill(share: float | None, p_value: float | None) -> str:
    from gru_xp.forecasting.backtest import SIGNIFICANCE

    if share is None:
        return "n/a"
    if (text := f"{share:+.1%}") in ("-0.0%", "+0.0%"):
        return "0.0%"
    return text if p_value is not None and p_value < SIGNIFICANCE else text + UNCERTAIN


def print_sentence(text: str) -> None:
    """A line on stdout, or several on a narrow terminal."""
    console = _console()
    console.print(printable(text, None), soft_wrap=not console.is_terminal)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> None:
    """A table on stdout whose first `left` columns are flush left; its columns move closer together to fit."""
    console = _console()
    table = _table(header, rows, left, _fitting_gap(console, header, rows, left) or GAPS[0])
    # a pipe has no width; on a narrow terminal, a wrapped line is better than a divided number
    console.width = max(console.width, _width(console, table)) if console.is_terminal else 10_000
    console.print(printable(title, None), style="bold", soft_wrap=True)
    console.print(table)


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int, gap: int) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, gap // 2, 0, gap - 1 - gap // 2))  # and a divider
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _width(console: "Console", table: "Table") -> int:
    return table.__rich_measure__(console, console.options.update(width=10_000)).maximum


def _fitting_gap(console: "Console", header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> int | None:
    """The widest gap between columns with which a table fits a terminal, or 80 columns; None if none does."""
    room = console.width if console.is_terminal else 80
    return next((gap for gap in GAPS if _width(console, _table(header, rows, left, gap)) <= room), None)
