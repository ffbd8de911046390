"""Write model files, runs and their forecasts with the gru-xp that is installed.

``python tests/files/write.py tests/files/version-N``, in an environment with the release whose files are to be kept.
"""

import contextlib
import csv
import io
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gru_xp import Forecaster

HERE = Path(__file__).parent.resolve()
SMALL = {"seq_length": 6, "hidden_size": 5, "num_epochs": 60, "learning_rate": 0.01}
MODELS = {
    "before-float32": {"reset": "before", "dtype": "float32"},
    "before-float64": {"reset": "before", "dtype": "float64", "scaling": "standard"},
    "after-float32": {"reset": "after", "dtype": "float32", "scaling": "standard"},
    "after-float64": {"reset": "after", "dtype": "float64"},
    "two-layers": {"num_layers": 2, "reset": "after"},
    "bidirectional": {"bidirectional": True, "dtype": "float64"},
    "two-layers-bidirectional": {"num_layers": 2, "bidirectional": True, "reset": "before"},
    "feature": {"reset": "after", "scaling": "standard"},
}
OPTIONS = "--seq-length 6 --hidden-size 5 --learning-rate 0.01 --device cpu --threads 1 --quiet"
RUNS = {
    "plain": f"series.csv --target Value --num-epochs 60 {OPTIONS}",
    "gaps": f"gaps.csv --target Value --features Other --missing mask --reset after --num-epochs 60 {OPTIONS}",
    "interrupted": f"series.csv --target Value --batch-size 8 --num-layers 2 --dropout 0.2 --dtype float64 "
    f"--num-epochs 30 {OPTIONS}",
}
INTERRUPTED_AT = (12, 3)
"""Completed epochs, and batches of the epoch in progress."""


def read_series() -> pd.DataFrame:
    """The rows of series.csv."""
    return pd.read_csv(HERE / "series.csv", index_col="Date", parse_dates=True)


def forecasts(forecaster: Forecaster, series: pd.DataFrame) -> dict[str, list[float]]:
    """Return predictions and a forecast; a model with features forecasts only one row ahead."""
    steps = 4 if len(forecaster.columns) == 1 else 1
    return {
        "predict": np.asarray(forecaster.predict(series)).tolist(),
        "forecast": np.asarray(forecaster.forecast(series, steps=steps)).tolist(),
    }


def write_models(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Write the models that the installed release supports, and return their forecasts."""
    known = {field.name for field in fields(Forecaster)}
    written = {}
    for name, settings in MODELS.items():
        if settings.keys() <= known:
            series = read_series()[["Value", "Other"] if "feature" in name else ["Value"]]
            forecaster = Forecaster(**SMALL | settings).fit(series, target="Value", features="all", device="cpu")
            forecaster.save(folder / f"{name}.safetensors")
            written[name] = forecasts(forecaster, series)
    return written


def run_app(*arguments: str) -> str:
    """Run the command; its stdout."""
    from gru_xp.cli import main

    sys.argv = ["gru-xp", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main()
    return out.getvalue()


def write_runs(folder: Path) -> dict[str, list[float]]:
    """Write the runs, the last one interrupted in mid-epoch; return their forecasts, after resuming that one."""
    from gru_xp.training.checkpoint import Checkpoints

    called = Checkpoints.__call__

    def interrupt(self: Checkpoints, epoch: int, batches: int, state: Any) -> bool:
        if (epoch, batches) == INTERRUPTED_AT:
            signal.raise_signal(signal.SIGINT)
        return called(self, epoch, batches, state)

    written = {}
    for name, arguments in RUNS.items():
        Checkpoints.__call__ = interrupt if name == "interrupted" else called
        run_app("train", *shlex.split(arguments), "--out", name)
        Checkpoints.__call__ = called
        shutil.copytree(name, folder / name)
        if name == "interrupted":
            run_app("train", "--resume", name, "--quiet")
        rows = csv.DictReader(io.StringIO(run_app("forecast", name, "--steps", "1" if "gaps" in name else "4")))
        written[name] = [float(row["Value"]) for row in rows]
    return written


def main() -> None:
    """Write everything into the folder that is named."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as elsewhere:  # no path of this machine goes into a run
        for file in ("series.csv", "gaps.csv"):
            shutil.copy(HERE / file, elsewhere)
        os.chdir(elsewhere)
        numbers = {"models": write_models(folder), "runs": write_runs(folder) if folder.name != "version-1" else {}}
    (folder / "forecasts.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
