"""The files of a run: where they are called what, and how they are written.

All files are written to a folder inside the run's own and moved up into it at the end, so that a run that fails leaves
an older one as it was.
"""

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gru_xp.errors import CheckpointError, DataError
from gru_xp.forecasting.evaluation import EvaluatedPart
from gru_xp.forecasting.series import TimeSeries
from gru_xp.training.trainer import EpochRecord

MODEL_FILE = "model.safetensors"
_HISTORY, _METRICS, _PREDICTIONS, _PLOTS = "history.csv", "metrics.json", "predictions.csv", "plots"


def model_file(run: str | Path) -> Path:
    """The model in a run folder; a path that is no folder is the model itself.

    Raises
    ------
    CheckpointError
        There is none.
    """
    path = Path(run)
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.exists():
        raise CheckpointError(f"{path}: does not exist; give the folder of a run, or its {MODEL_FILE}")
    return path


@contextmanager
def run_folder(out: Path, *, overwrite: bool = False, unique: bool = False) -> Iterator[Path]:
    """A folder inside `out` to write a run's files into; at the end they are moved to `out`, its parent.

    Where an error ends it they are dropped, and so is `out` if it is empty then. With `unique`, an `out` that exists is
    left alone, and its name with a number is taken instead.

    Raises
    ------
    DataError
        `out` exists and may not be overwritten, or cannot be made.
    """
    made = [folder for folder in out.parents if not folder.exists()]
    name, number = out.name, 1
    while True:
        try:
            out.mkdir(parents=True)
            break
        except FileExistsError:
            if not unique:
                _check_overwrite(out, overwrite)
                break
            number += 1
            out = out.with_name(f"{name}-{number}")
        except OSError as error:
            raise DataError(f"{out} cannot be made ({error.strerror or error}); use another --out") from error
    partial: Path | None = None
    try:
        try:
            partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
        except OSError as error:
            raise DataError(f"{out} cannot be written to ({error.strerror or error}); use another --out") from error
        yield partial
        for file in sorted(file for file in partial.rglob("*") if file.is_file()):
            target = out / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        for folder in (out, *made):  # innermost first; those that hold something stay
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _check_overwrite(out: Path, overwrite: bool) -> None:
    if not out.is_dir():
        raise DataError(f"{out} exists and is not a folder; use another --out")
    if not overwrite:
        raise DataError(f"{out} exists; use --overwrite or another --out")
    for path in (*(out / name for name in (MODEL_FILE, _HISTORY, _METRICS, _PREDICTIONS)), out / _PLOTS):
        if path.exists() and path.is_dir() != (path.name == _PLOTS):
            raise DataError(f"{path} is in the way of a file of the run; remove it or use another --out")


def write_history(folder: Path, history: Sequence[EpochRecord]) -> None:
    """``history.csv``: one row an epoch, from epoch 0, the start."""
    columns = ("epoch", "cost", "validation_cost", "gradient_norm", "seconds")
    rows = ([_cell(getattr(record, column)) for column in columns] for record in history)
    _write_csv(folder / _HISTORY, columns, rows)


def write_predictions(folder: Path, series: TimeSeries, parts: Sequence[EvaluatedPart]) -> None:
    """``predictions.csv``: one row a predicted row of the series; ``date`` is its number where it has no date."""
    rows = (
        (series.labels[row] if series.labels else str(row), part.name, repr(true), repr(pred), repr(true - pred))
        for part in parts
        for row, true, pred in zip(part.rows, part.y_true.tolist(), part.y_pred.tolist(), strict=True)
    )
    _write_csv(folder / _PREDICTIONS, ("date", "split", "actual", "predicted", "residual"), rows)


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """``metrics.json``."""
    (folder / _METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def write_plots(
    folder: Path,
    series: TimeSeries,
    parts: Sequence[EvaluatedPart],
    history: Sequence[EpochRecord],
    best_epoch: int,
) -> None:
    """``plots/``: cost, sequence and residuals."""
    from gru_xp.reporting.plots import plot_cost, plot_residuals, plot_sequence

    plots = folder / _PLOTS
    plots.mkdir()
    plot_cost(plots / "cost_plot.png", history, best_epoch)
    plot_sequence(plots / "sequence_plot.png", series, parts)
    plot_residuals(plots / "residual_plot.png", series, parts)


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)


def _write_csv(path: Path, header: Sequence[str], rows: Any) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
