"""Trainings on a CUDA device, as parts of ``gpu --smoke``: ``python -m benchmarks.gpu_checks NAME``."""

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np

from gru_xp import Forecaster
from gru_xp.devices import resolve_device, to_host
from gru_xp.errors import DeviceError
from gru_xp.nn.params import named_arrays

LIMITS = {"float64": 1e-9, "float32": 1e-4, "tf32": 3e-2}
"""Largest difference of parameters after three epochs, in units of the largest one. In TF32, it is 6e-3 on the tests'
stand-in for CuPy."""

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"reset": "after", "num_layers": 2, "bidirectional": True, "batch_size": 32, "clip_norm": 0.5},
)


def train(device: str, precision: str, settings: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Parameters, losses and a forecast of a small model of a random walk, after three epochs."""
    series = 100.0 + np.cumsum(np.random.default_rng(3).standard_normal(120))
    fixed = {"num_epochs": 3, "hidden_size": 12, "learning_rate": 0.01, "validation_ratio": 0.0, "seed": 1}
    is_tf32 = precision == "tf32"
    forecaster = Forecaster(dtype="float32" if is_tf32 else precision, **fixed, **settings)
    forecaster.fit(series, device=resolve_device(device, fallback=False, tf32=is_tf32 and device != "cpu"))
    if forecaster.best_epoch == 0 or forecaster.training is None:
        sys.exit(f"Error: a training on {device} learned nothing: its loss did not fall")
    arrays = {name: to_host(array) for name, array in named_arrays(forecaster.params)}
    arrays["loss"] = np.array([record.cost for record in forecaster.training.history])
    arrays["forecast"] = np.asarray(forecaster.forecast(series, 3))
    return arrays


def cpu() -> None:
    """Train on both devices and compare parameters and forecasts."""
    for settings in SETTINGS:
        for precision, limit in LIMITS.items():
            actual, desired = (train(device, precision, settings) for device in ("cuda", "cpu"))
            worst = max(desired, key=lambda name: difference(actual[name], desired[name]))
            found = difference(actual[worst], desired[worst])
            print(f"{settings} {precision}: {worst} differs from the CPU by {found:.1e}; the limit is {limit:.0e}")
            if not found <= limit:
                sys.exit(f"Error: {precision}: {worst} differs from the CPU by {found:.1e}; the limit is {limit:.0e}")


def difference(actual: np.ndarray[Any, Any], desired: np.ndarray[Any, Any]) -> float:
    """The largest, in units of the largest element."""
    return float(np.max(np.abs(actual - desired)) / max(float(np.max(np.abs(desired))), 1e-30))


def digest() -> None:
    """Print a hash of all parameters and forecasts of trainings on the CUDA device."""
    total = hashlib.sha256()
    for settings in SETTINGS:
        for precision in LIMITS:
            for name, array in sorted(train("cuda", precision, settings).items()):
                total.update(name.encode() + np.ascontiguousarray(array).tobytes())
    print(total.hexdigest())


def twice() -> None:
    """Train in two processes and compare the hashes."""
    command = [sys.executable, "-m", "benchmarks.gpu_checks", "digest"]
    hashes = [subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.strip() for _ in range(2)]
    print(*hashes, sep="\n")
    if not all(hashes):
        sys.exit("Error: a training failed; see its messages above")
    if hashes[0] != hashes[1]:
        sys.exit(f"Error: the same training gave the hash {hashes[0][:12]} and then {hashes[1][:12]}")


def main(arguments: list[str]) -> None:
    """Run the check that is named."""
    checks = {"cpu": cpu, "digest": digest, "twice": twice}
    if len(arguments) != 1 or arguments[0] not in checks:
        sys.exit(f"Error: {' '.join(arguments) or 'nothing'} was given; give one of: {', '.join(checks)}")
    try:
        checks[arguments[0]]()
    except DeviceError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
