"""The files of a run: where they are called what, and how they are written.

All files are written to a folder beside the run's own and moved into it at the end, so that a run that fails leaves
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


def fresh_folder(parent: Path, name: str) -> Path:
    """A folder in `parent` that does not exist yet: `name`, or `name` with a number."""
    path = parent / name
    number = 2
    while path.exists():
        path = parent / f"{name}-{number}"
        number += 1
    return path


@contextmanager
def run_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write a run's files into; they are moved to `out` at the end, and dropped where an error ends it.

    Raises
    ------
    DataError
        `out` exists and may not be overwritten, or cannot be made.
    """
    if out.is_dir():
        if not overwrite:
            raise DataError(f"{out} exists; use --overwrite or another --out")
        for path in (*(out / name for name in (MODEL_FILE, _HISTORY, _METRICS, _PREDICTIONS)), out / _PLOTS):
            if path.exists() and path.is_dir() != (path.name == _PLOTS):
                raise DataError(f"{path} is in the way of a file of the run; remove it or use another --out")
    elif out.exists() or out.is_symlink():
        raise DataError(f"{out} exists and is not a folder; use another --out")
    made = [folder for folder in out.parents if not folder.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise DataError(f"{out} cannot be made ({error.strerror or error}); use another --out") from error
    try:
        yield partial
        for file in sorted(file for file in partial.rglob("*") if file.is_file()):
            target = out / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in made:  # innermost first; those that hold something stay
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
        raise
    shutil.rmtree(partial, ignore_errors=True)


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
