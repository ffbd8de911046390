"""The folds of a backtest: what is kept of each forecaster that is fitted, here and in a file."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from gru_xp.devices import Device
from gru_xp.errors import CheckpointError, printable
from gru_xp.forecasting.journal import Journal
from gru_xp.forecasting.outputs import Outputs
from gru_xp.forecasting.windows import Floats
from gru_xp.io.series import TimeSeries
from gru_xp.nn.scan import plain_wanted
from gru_xp.training.strict_json import check_fields

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "rows": int,
    "forecasts": dict,
    "outputs": list,
    "season": (int, str, list),
    "seasons": list,
    "fallback": (str, type(None)),
    "mean": (int, float, type(None)),
    "facts": dict,
}


@dataclass(frozen=True)
class Fold:
    """What a backtest keeps of a forecaster that was fitted to the rows before some origins.

    Attributes
    ----------
    rows
        Number of rows that it was fitted to.
    forecasts
        Arrays ``(n, horizon)`` by name: its own, the points first, and the ridge's.
    outputs, season, seasons, fallback
        As the forecaster has them; see `gru_xp.forecasting.backtest.Measured`.
    mean
        The mean of its training rows, if its fallback may be that.
    facts
        How the fitting went, as JSON holds it: of a `Forecaster`, ``problem``, ``best_epoch``, ``epochs``, ``seconds``,
        and what its `describe` gives as ``forecaster``; of an `AutoForecaster`, its ``reason``.
    """

    rows: int
    forecasts: Mapping[str, Floats]
    outputs: Outputs
    season: int | str | tuple[int, ...]
    seasons: tuple[int, ...]
    fallback: str | None
    mean: float | None
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The fold as JSON holds it, with every bit of its numbers."""
        return {
            "rows": self.rows,
            "forecasts": {name: forecast.tolist() for name, forecast in self.forecasts.items()},
            "outputs": [self.outputs.loss, *self.outputs.quantiles],
            "season": self.season,
            "seasons": self.seasons,
            "fallback": self.fallback,
            "mean": self.mean,
            "facts": dict(self.facts),
        }

    @classmethod
    def from_dict(cls, fold: Mapping[str, Any]) -> "Fold":
        """The fold that `to_dict` describes; ValueError if the description is not valid."""
        held = dict(check_fields("the fold", fold, _FIELDS))
        loss, *quantiles = held["outputs"]
        forecasts = {name: np.array(rows, dtype=np.float64) for name, rows in held["forecasts"].items()}
        if len({forecast.shape for forecast in forecasts.values()}) != 1:
            raise ValueError("forecasts of several shapes")
        season = tuple(held["season"]) if isinstance(held["season"], list) else held["season"]
        outputs, seasons = Outputs(loss, tuple(quantiles)), tuple(held["seasons"])
        return cls(**held | {"forecasts": forecasts, "outputs": outputs, "season": season, "seasons": seasons})


class FoldJournal:
    """The folds of a backtest in a `Journal`, which is that of the same series, settings and versions.

    Attributes
    ----------
    folds : dict
        By the number of their first origin.
    """

    def __init__(self, path: str | os.PathLike[str], series: TimeSeries, settings: Mapping[str, Any]) -> None:
        versions = {name: version(name) for name in ("gru-xp", "numpy")}
        data = {"rows": len(series), "columns": series.columns, "sha256": _checksum(series)}
        about = {"results": "backtest", **settings, "data": data, "versions": versions}
        self._journal = Journal(path, about)
        try:
            self.folds = {int(key): Fold.from_dict(fold) for key, fold in self._journal.results.items()}
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"{printable(str(path), 1000)}: is damaged ({printable(str(error), 200)}); delete it to start again"
            ) from error

    def add(self, start: int, fold: Fold) -> None:
        """Write a fold, of which the number of the first origin is `start`."""
        self._journal.add(str(start), fold.to_dict())


def device_facts(device: Device) -> dict[str, Any]:
    """What the bits of a result depend on beside versions and settings, as JSON holds it."""
    return {"name": device.name, "threads": device.threads, "tf32": device.tf32, "plain": plain_wanted()}


def _checksum(series: TimeSeries) -> str:
    """Of all in a series that forecasts depend on."""
    digest = hashlib.sha256(series.values.tobytes())
    for flags in (series.observed, series.interpolated):
        digest.update(b"-" if flags is None else flags.tobytes())
    digest.update(json.dumps([series.labels, series.reading.date_form, series.reading.freq]).encode())
    return digest.hexdigest()
