"""The files of a run: where they are called what, and how they are written.

Its results are written to a folder inside the run's own and moved up into it at the end, so that a run that fails
leaves an older one as it was. Its checkpoint stands beside them from the moment that it is written.
"""

import csv
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from gru_xp.errors import CheckpointError, DataError, printable
from gru_xp.forecasting.backtest import column_name
from gru_xp.forecasting.evaluation import EvaluatedPart
from gru_xp.forecasting.forecaster import Forecaster
from gru_xp.forecasting.panel_evaluation import PanelBacktest
from gru_xp.forecasting.windows import Split
from gru_xp.io.series import TimeSeries
from gru_xp.training.files import PARTIAL
from gru_xp.training.trainer import EpochRecord

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

MODEL_FILE = "model.safetensors"
CHECKPOINT_FILE = "checkpoint.safetensors"
_PARTIAL = ".partial-"
_HISTORY, _SELECTION = "history.csv", "selection.csv"
_METRICS, _PREDICTIONS, _PLOTS = "metrics.json", "predictions.csv", "plots"
_SERIES = "series.csv"
_PLOT_NAMES = ("forecast_plot", "sequence_plot", "error_by_step", "residual_plot", "cost_plot")
_PLOT_SUFFIXES = ("png", "svg")


def model_file(run: str | Path) -> Path:
    """The model in a run folder; a path that is no folder is the model itself.

    Raises
    ------
    CheckpointError
        There is none.
    """
    _check_name(run)
    path = Path(run)
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.exists():
        raise CheckpointError(f"{path}: does not exist; give the folder of a run, or its {MODEL_FILE}")
    return path


def checkpoint_file(run: str | Path) -> Path:
    """The checkpoint in a run folder.

    Raises
    ------
    CheckpointError
        There is none.
    """
    _check_name(run)
    path = Path(run) / CHECKPOINT_FILE
    if not Path(run).is_dir():
        raise CheckpointError(f"{run} is not a run folder; give the folder passed to --out")
    if not path.exists():
        raise CheckpointError(f"{run}: has no {CHECKPOINT_FILE} yet; train again, with --overwrite")
    return path


def _check_name(run: str | Path) -> None:
    if run == "":  # which a path would take for the folder that one is in
        raise CheckpointError("the name of the run is empty; give the folder of a run")


@contextmanager
def run_folder(out: Path, *, overwrite: bool = False, unique: bool = False) -> Iterator[Path]:
    """A folder inside `out` to write a run's files into; at the end they are moved to `out`, its parent.

    Where an error ends it they are dropped, and so is `out` if it is empty then. With `unique`, an `out` that exists is
    left alone, and its name with a number is taken instead.

    Raises
    ------
    DataError
        `out` exists and may not be overwritten, or cannot be made.
    CheckpointError
        The files cannot be written.
    """
    made = [folder for folder in out.parents if not folder.exists()]
    name, number = out.name, 1
    while True:
        try:
            out.mkdir(parents=True)
            made = [out, *made]
            break
        except FileExistsError:
            if not unique:
                _check_overwrite(out, overwrite)
                break
            number += 1
            out = out.with_name(f"{name}-{number}")
        except OSError as error:
            raise DataError(f"{out} cannot be made ({error.strerror or error}); use another --out") from error
    try:
        with _alone(out):
            remove_partial(out)
            try:
                partial = out / Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=out)).name  # mkdtemp's own may be absolute
            except OSError as error:
                reason = error.strerror or error
                raise DataError(f"{out} cannot be written to ({reason}); use another folder") from error
            try:
                yield partial
                with written_to(out):
                    _move_up(partial)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    finally:
        with suppress(OSError):
            for folder in made:  # innermost first; those that hold something stay
                folder.rmdir()


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep a second process out of a folder, where the system can do that; DataError if this one is the second."""
    if fcntl is None:
        yield
        return
    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"{out}: another gru-xp is writing to it; wait for its end, or use another folder"
            ) from error
        except OSError:
            pass  # some file systems have no locks
        yield
    finally:
        os.close(folder)


def _move_up(partial: Path) -> None:
    """Move all files of a folder to the one that it is in, where no older run's are left that this one has none of."""
    plots = (Path(_PLOTS, f"{name}.{suffix}") for name in _PLOT_NAMES for suffix in _PLOT_SUFFIXES)
    for file in (Path(_SELECTION), Path(_SERIES), *plots):  # not all runs have them
        if not (partial / file).exists():
            (partial.parent / file).unlink(missing_ok=True)
    with suppress(OSError):  # there is none, or it holds something
        (partial.parent / _PLOTS).rmdir()
    for file in sorted(file for file in partial.rglob("*") if file.is_file()):
        target = partial.parent / file.relative_to(partial)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)


@contextmanager
def written_to(out: Path) -> Iterator[None]:
    """Say in one line what goes wrong while files are written to a run folder.

    Raises
    ------
    CheckpointError
        Instead of an OSError, or of the one that names the file inside.
    """
    try:
        yield
    except (OSError, CheckpointError) as error:
        cause = error.__cause__ or error
        reason, remedy = getattr(cause, "strerror", None) or cause, "fix that and train again"
        if not out.exists():
            reason, remedy = "the folder is gone", "train again"
        elif (out / CHECKPOINT_FILE).exists():
            resume = f"gru-xp train --resume {shlex.quote(str(out))}"
            remedy = f"fix that, then continue with: {resume}"
        raise CheckpointError(f"{out}: cannot be written ({reason}); {remedy}") from error


def _check_overwrite(out: Path, overwrite: bool) -> None:
    if not out.is_dir():
        raise DataError(f"{out} exists and is not a folder; use another --out")
    if not overwrite:
        resume = f", or continue it with: gru-xp train --resume {shlex.quote(str(out))}"
        resume = resume if (out / CHECKPOINT_FILE).exists() else ""
        raise DataError(f"{out} exists; use --overwrite or another --out{resume}")
    names = (MODEL_FILE, CHECKPOINT_FILE, _HISTORY, _SELECTION, _METRICS, _PREDICTIONS, _SERIES, _PLOTS)
    for path in (out / name for name in names):
        if path.exists() and path.is_dir() != (path.name == _PLOTS):
            raise DataError(f"{path} is in the way of a file of the run; remove it or use another --out")


def remove_partial(out: Path) -> None:
    """Remove what a process that was killed was just writing to a run folder."""
    for path in out.glob(f"{_PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in out.glob(PARTIAL.format("*")):
        path.unlink(missing_ok=True)


def write_history(folder: Path, history: Sequence[EpochRecord], *, of_selection: bool = False) -> None:
    """``history.csv``, or ``selection.csv``: one row an epoch, from epoch 0, the start."""
    columns = ("epoch", "cost", "validation_cost", "gradient_norm", "seconds")
    rows = ([_cell(getattr(record, column)) for column in columns] for record in history)
    _write_csv(folder / (_SELECTION if of_selection else _HISTORY), columns, rows)


def write_predictions(folder: Path, series: TimeSeries, parts: Sequence[EvaluatedPart]) -> None:
    """``predictions.csv``: one row a predicted row of the series; ``date`` is its number where it has no date.

    ``best_baseline`` is the forecast without training that has the smallest mean absolute error in the part. Quantiles
    follow, if the model predicts any.
    """
    names = list(parts[0].quantiles) if parts else []
    rows = (
        (
            printable(series.labels[row], None) if series.labels else str(row),
            part.name,
            step,
            *map(repr, (true, pred, true - pred, naive, *quantiles)),
        )
        for part in parts
        for row, step, true, pred, naive, *quantiles in zip(
            part.rows,
            *(a.tolist() for a in (part.steps, part.y_true, part.y_pred, part.y_naive, *part.quantiles.values())),
            strict=True,
        )
    )
    columns = ("date", "split", "step", "actual", "predicted", "residual", "best_baseline", *names)
    _write_csv(folder / _PREDICTIONS, columns, rows)


def write_panel_predictions(folder: Path, parts: Mapping[str, PanelBacktest]) -> None:
    """``predictions.csv`` of several series, in which the names come first, and ``series.csv``, the errors of each."""
    import pandas as pd

    tables, errors = [], []
    for split, part in parts.items():
        panel, model, best = part.panel, column_name(part.model), part.metrics["best_baseline"]
        there, rows = ~np.isnan(part.y_true), part.rows
        frame, at = part.to_frame(), rows[there]
        counted = frame["ds"].astype(str) if panel.labels is None else [panel.labels[row] for row in at.tolist()]
        columns = {
            panel.id: [printable(name, None) for name in frame[panel.id]],
            "date": counted if panel.labels is None else [printable(text, None) for text in counted],
            "split": split,
            "step": (rows - part.origins[:, None] + 1)[there],
            "actual": frame["y"],
            "predicted": frame[model],
            "residual": frame["y"] - frame[model],
            "best_baseline": frame[best],
            **{name: frame[name] for name in map(str, frame) if name.startswith(f"{model}-")},
        }
        tables.append(pd.DataFrame(columns))
        own = part.by_series
        own.insert(1, "split", split)
        errors.append(own)
    for name, found in ((_PREDICTIONS, tables), (_SERIES, errors)):
        pd.concat(found).to_csv(folder / name, index=False, lineterminator="\n")


def write_cost_plot(folder: Path, suffix: str, forecaster: Forecaster) -> None:
    """``plots/`` with that of the loss alone, if there are epochs."""
    from gru_xp.reporting.figures import training_plot
    from gru_xp.reporting.style import save_figure

    (folder / _PLOTS).mkdir()
    if forecaster.model == "gru":
        save_figure(training_plot(forecaster), folder / _PLOTS / f"cost_plot.{suffix}")


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """``metrics.json``."""
    (folder / _METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def write_plots(
    folder: Path,
    suffix: str,
    forecaster: Forecaster,
    series: TimeSeries,
    split: Split,
    parts: Sequence[EvaluatedPart],
) -> None:
    """``plots/``: those of `run_plots`, in files of a format such as ``png``."""
    from gru_xp.reporting.figures import run_plots
    from gru_xp.reporting.style import save_figure

    plots = folder / _PLOTS
    plots.mkdir()
    for name, figure in run_plots(forecaster, series, split, parts):
        save_figure(figure, plots / f"{name}.{suffix}")


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)


def _write_csv(path: Path, header: Sequence[str], rows: Any) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
