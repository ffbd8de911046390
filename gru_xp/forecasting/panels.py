"""What a model of several series knows of each, and how the rows of each are divided in time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.forecasting.baselines import Baseline, baselines, panel_baselines
from gru_xp.forecasting.scaling import SMALLEST, Scaler, deviations
from gru_xp.forecasting.season import find_seasons
from gru_xp.forecasting.windows import Layout
from gru_xp.io.panel import Panel
from gru_xp.io.series import TimeSeries
from gru_xp.io.table import Floats, Rows
from gru_xp.training.strict_json import check_fields

AnySeries = TimeSeries | Panel
"""One series, or several; all of them have `values` and `offsets`."""

CONSTANT = 1e-6
"""Factor of a series that does not change in its training rows: next to nothing, so that it is forecast as it is."""

DIGITS = 8
"""Significant ones of what is stored for each series."""

MAX_VOTERS = 200
"""Series that are looked at for a season, the longest ones, of more."""

MIN_VOTES = 1 / 3
"""Share of these series that must have a season."""


@dataclass(frozen=True, eq=False)
class SeriesUnits:
    """What a model knows of each series that it has learned from.

    Attributes
    ----------
    names
        Of the S series.
    factors : array, shape ``(S, F)``
        The standard deviation of the training rows, relative to the median of all series; see `Scaler`. 1 for each
        where windows are not scaled by themselves.
    means : array, shape ``(S,)``
        Of the target's training rows.
    """

    names: tuple[str, ...]
    factors: Floats
    means: Floats

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return {"names": list(self.names), "factors": self.factors.tolist(), "means": self.means.tolist()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], columns: int) -> "SeriesUnits":
        """The inverse of `to_dict`; raise ValueError for anything else."""
        check_fields("the series", dict(fields), {"names": list, "factors": list, "means": list})
        names = tuple(fields["names"])
        factors, means = (np.array(fields[name], dtype=np.float64) for name in ("factors", "means"))
        if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise ValueError("the names of the series must be different texts")
        if factors.shape != (len(names), columns) or means.shape != (len(names),):
            raise ValueError("not as many numbers as series")
        if not (np.isfinite(factors).all() and (factors > 0).all() and np.isfinite(means).all()):
            raise ValueError("a factor or a mean of a series is no such number")
        return cls(names, factors, means)


def fit_scaler(kind: str, series: AnySeries, stops: Rows, lag: int = 0) -> tuple[Scaler, SeriesUnits | None]:
    """Fit a scaler to the rows before ``stops (S,)`` of each series, and the units of these; None for one series.

    The first rows of one series, `lag` of them, do not count.

    Raises
    ------
    DataError
        As for `Scaler.fit`.
    """
    if isinstance(series, TimeSeries):
        return Scaler.fit(kind, series.values[lag : stops[0]], series.columns), None
    parts = list(_parts(series, stops))
    means = np.array([part.mean(axis=0) for part in parts])
    target_means = rounded(means[:, 0])
    if len(parts) == 1 or kind not in ("window", "last"):
        scaler = Scaler.fit(kind, np.concatenate(parts), series.columns)
        return scaler, SeriesUnits(series.names, np.ones(means.shape), target_means)
    std, change_std = map(np.array, zip(*map(deviations, parts), strict=True))
    usual = np.array([np.median(column[column > 0]) if column.any() else 0.0 for column in std.T])
    for name, number in zip(series.columns, usual.tolist(), strict=True):
        if number < SMALLEST:
            remedy = "choose another column" if len(series.columns) > 1 else "give series that change"
            raise DataError(f"column {printable(name)} is constant in the training rows of all series; {remedy}")
    factors = _factors(std, usual)
    changes = [np.median((of_all / factor)[of_all > 0]) for of_all, factor in zip(change_std.T, factors.T, strict=True)]
    counts = np.array([len(part) for part in parts])
    numbers = np.average(means, axis=0, weights=counts), usual, np.array(changes)
    return Scaler(kind, *(tuple(array.tolist()) for array in numbers)), SeriesUnits(series.names, factors, target_means)


def layout_of(
    units: SeriesUnits | None, scaler: Scaler, series: AnySeries, stops: Rows | None = None
) -> tuple[Layout | None, Floats]:
    """Where the windows of the series are and their units, and the mean of each series, for a model.

    Those of a series that the model has not learned from are those of its rows before ``stops (S,)``, or of all rows.

    Returns
    -------
    layout
        None of one series, for a model of one.
    means : array, shape ``(S,)``
        Of the target.
    """
    S, F = len(series.offsets) - 1, len(series.columns)
    if units is None:
        means = np.full(S, scaler.mean[0])
        return (None if isinstance(series, TimeSeries) else Layout(series.offsets, np.ones((S, F)))), means
    known = {name: number for number, name in enumerate(units.names)}
    names = series.names if isinstance(series, Panel) else ("",)
    numbers = [known.get(name) if isinstance(series, Panel) else None for name in names]
    factors, means = np.ones((S, F)), np.zeros(S)
    is_scaled = scaler.kind in ("window", "last")
    stops = series.offsets[1:] if stops is None else stops
    for place, (number, part) in enumerate(zip(numbers, _parts(series, stops), strict=True)):
        if number is not None:
            factors[place], means[place] = units.factors[number], units.means[number]
        else:
            means[place] = rounded(part[:, 0].mean(keepdims=True))[0]
            if is_scaled:
                factors[place] = _factors(deviations(part)[0], np.array(scaler.std))
    return Layout(series.offsets, factors), means


def series_numbers(series: AnySeries, origins: Rows) -> Rows:
    """The number of the series of each origin, which may be the row after its last one."""
    numbers: Rows = np.searchsorted(series.offsets[1:], origins - 1, side="right")
    return numbers


def head_of(series: AnySeries, stops: Rows) -> AnySeries:
    """The rows of each series before ``stops (S,)``, as if there were no others."""
    return series.head(int(stops[0])) if isinstance(series, TimeSeries) else series.head(stops)


def baselines_of(series: AnySeries, stops: Rows, seasons: Sequence[int]) -> dict[str, Baseline]:
    """The forecasts without training, by the rows of each series before ``stops (S,)``."""
    if isinstance(series, TimeSeries):
        return baselines(series.values[: stops[0], 0], seasons)
    means = np.array([part[:, 0].mean() for part in _parts(series, stops)])
    return panel_baselines(series.offsets, means, seasons)


def _parts(series: AnySeries, stops: Rows) -> Iterator[Floats]:
    return (series.values[first:stop] for first, stop in zip(series.offsets[:-1].tolist(), stops.tolist(), strict=True))


def _factors(std: Floats, usual: Floats) -> Floats:
    """Standard deviations relative to the usual ones."""
    return rounded(np.where(std > CONSTANT * usual, std / usual, CONSTANT))


def rounded(numbers: Floats) -> Floats:
    """To as many digits as a model file stores of each series."""
    return np.array([float(f"{number:.{DIGITS}g}") for number in numbers.ravel().tolist()]).reshape(numbers.shape)


def find_common_seasons(series: AnySeries, stops: Rows, freq: str | None) -> tuple[int, ...]:
    """The seasons, in rows, that at least a share of `MIN_VOTES` of the series have in their rows before ``stops``."""
    parts = [part[:, 0] for part in _parts(series, stops)]
    longest = sorted(range(len(parts)), key=lambda number: -len(parts[number]))[:MAX_VOTERS]
    if isinstance(series, TimeSeries):
        return find_seasons(parts[0], freq)
    freqs = series.freqs or (freq,) * len(parts)
    votes: dict[int, int] = {}
    for number in longest:
        for season in find_seasons(parts[number], freqs[number]):
            votes[season] = votes.get(season, 0) + 1
    return tuple(sorted(season for season, count in votes.items() if count >= MIN_VOTES * len(longest)))


# --- the split --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PanelSplit:
    """Which rows of each series are for training, validation and test; see `Split`.

    Attributes
    ----------
    offsets : array, shape ``(S + 1,)``
        The first row of each series, and the number of all rows.
    train_ends, fit_ends : array, shape ``(S,)``
        For each series, the first row that is not trained on, and the first row of the test part.
    """

    offsets: Rows
    train_ends: Rows
    fit_ends: Rows

    @property
    def train_end(self) -> int:
        """Number of training rows."""
        return int((self.train_ends - self.offsets[:-1]).sum())

    def bounds(self, name: str) -> tuple[Rows, Rows]:
        """See `Split.bounds`."""
        return {
            "train": (self.offsets[:-1], self.train_ends),
            "validation": (self.train_ends, self.fit_ends),
            "test": (self.fit_ends, self.offsets[1:]),
        }[name]

    def after_refit(self) -> "PanelSplit":
        """The validation rows as training rows."""
        return replace(self, train_ends=self.fit_ends)

    def without_parts(self) -> "PanelSplit":
        """All rows for training."""
        return PanelSplit(self.offsets, self.offsets[1:], self.offsets[1:])


def split_panel(panel: Panel, split_ratio: float, validation_ratio: float, horizon: int = 1) -> PanelSplit:
    """Divide each series in time, as `split_rows` does; the first row of each is always for training.

    Raises
    ------
    DataError
        A part that is wanted has no window in any series.
    """

    def share(rows: Rows, ratio: float) -> Rows:
        kept: Rows = np.array([max(round(n * ratio), 1) for n in rows.tolist()], dtype=np.int64)
        return kept

    fit = share(panel.lengths, split_ratio)
    train = fit - np.array([round(n * validation_ratio) for n in fit.tolist()], dtype=np.int64)
    split = PanelSplit(panel.offsets, panel.offsets[:-1] + np.maximum(train, 1), panel.offsets[:-1] + fit)
    wanted = {"train": True, "validation": validation_ratio > 0, "test": split_ratio < 1}
    for name, is_wanted in wanted.items():
        first, stop = split.bounds(name)
        if is_wanted and not (stop - np.maximum(first, panel.offsets[:-1] + 1) >= horizon).any():
            raise DataError(
                f"{len(panel)} series of up to {panel.lengths.max()} row(s) are too short: none has {horizon} row(s) "
                f"to forecast in the {name} part, after a row before; give longer series"
                f"{', a smaller horizon' if horizon > 1 else ''} or other ratios"
            )
    return split


def least_ages(rows: Sequence[int] | Rows, seq_length: int, horizon: int) -> Rows:
    """How many rows of its series a window to learn from must have, for series of so many training rows, ``(S,)``.

    A series with too few rows for a whole window has windows that are padded: of at least half of the rows that there
    can be before a forecast.
    """
    rows = np.asarray(rows, dtype=np.int64)
    longest = rows - horizon
    ages: Rows = np.where(longest >= seq_length, seq_length, np.maximum(-(-longest // 2), 1))
    return ages
