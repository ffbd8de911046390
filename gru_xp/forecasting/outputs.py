"""What the network's outputs for each target mean: a value, quantiles, or the parameters of a distribution."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from numbers import Real
from statistics import NormalDist
from typing import Any

import numpy as np

from gru_xp.errors import ArgumentError
from gru_xp.forecasting.choosing import FOLDS, spaced
from gru_xp.forecasting.ridge import PENALTIES, PENALTY, Windows, fit_ridge, linear_forecasts, residuals
from gru_xp.forecasting.scaling import LARGEST, Scaler
from gru_xp.forecasting.windows import Floats
from gru_xp.io.table import Rows
from gru_xp.nn.checks import shown
from gru_xp.nn.losses import check_quantiles
from gru_xp.training.objective import outputs_per_target

DISTRIBUTION_QUANTILES = (0.025, 0.1, 0.5, 0.9, 0.975)
"""Of the forecasts of a distribution: intervals of 80 % and 95 %, and the median."""

SMALLEST_DEVIATION = 1e-3
"""Of the errors of the linear skip, in scaled units, for the deviation that a training begins with."""

SMALLEST_RATE = 1e-3
"""Of counts, in scaled units, that a training begins with, where all are 0."""

MAX_RATED = 1000
"""Windows to choose the penalty of rates by, evenly spaced, of more."""

USUAL_DEVIATIONS = 5.0
"""Above the mean of the training rows, up to which counts are usual: spikes in 1 row of 25 are as high."""

SMALLEST_GAP = 1e-5
"""Between the errors that a quantile begins between, as a share of their range: well above the rounding of float32."""

LARGEST_EXACT_RATE = 500.0
"""Of a Poisson distribution whose quantiles are summed up; those of larger rates are approximated."""

WILDEST = 100 * LARGEST
"""Predictions above this are refused."""

_SUFFIX = re.compile(r"(.+)-(?:(lo|hi)-(\d+(?:\.\d+)?)|median)")


@dataclass(frozen=True)
class Outputs:
    """The forecasts that a network's outputs stand for.

    Attributes
    ----------
    loss
        Of the training; see `gru_xp.nn.losses`.
    predicted
        Quantiles that the network predicts beside the point, rising; none for a loss of points.
    levels
        Of further intervals, in percent and rising, which errors of held-out rows give; see `Intervals`.
    """

    loss: str
    predicted: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()

    @classmethod
    def of(cls, loss: str, quantiles: tuple[float, ...], levels: tuple[float, ...] = ()) -> "Outputs":
        """Of a training with this loss; `quantiles` are those of ``"quantile"``, and levels in percent."""
        if loss in ("gaussian", "poisson"):
            asked = tuple(sorted({0.5, *(end for level in levels for end in ends_of(level))}))
            return cls(loss, asked if levels else DISTRIBUTION_QUANTILES)
        predicted = quantiles if loss == "quantile" else ()
        own = set(map(column_suffix, predicted))
        return cls(
            loss, predicted, tuple(level for level in levels if not own >= set(map(column_suffix, ends_of(level))))
        )

    @property
    def quantiles(self) -> tuple[float, ...]:
        """All quantiles that are forecast beside the point, rising."""
        return tuple(sorted({*self.predicted, *(end for level in self.levels for end in ends_of(level))}))

    @property
    def per_target(self) -> int:
        """Outputs of the network for each target."""
        return outputs_per_target(self.loss, self.predicted)

    @property
    def judged(self) -> tuple[float, ...]:
        """Levels by whose pinball losses forecasts are judged; a point forecast is the median."""
        return self.predicted or (0.5,)

    @property
    def point(self) -> int:
        """Which of the quantiles is the point forecast: the nearest to the median, and the lower one of two."""
        return min(range(len(self.predicted)), key=lambda number: (abs(self.predicted[number] - 0.5), number))

    @property
    def scores(self) -> tuple[float, ...]:
        """The quantiles of the standard normal distribution."""
        return tuple(map(NormalDist().inv_cdf, self.predicted))

    def for_targets(self, scaler: Scaler) -> Scaler:
        """The scaler, with targets that are scaled as the loss wants them."""
        return replace(scaler, counts=self.loss == "poisson")

    def forecasts(self, scaled: Floats, windows: Floats, scaler: Scaler, known: Floats | None = None) -> Floats:
        """The point forecast and the quantiles, in the data's units.

        Predictions of quantiles are sorted, so that they never cross, which takes none further from the true quantile.

        Parameters
        ----------
        scaled : array, shape ``(B, P * h)``
            The network's outputs: those of all h steps for the first of the P outputs of each target, then the next.
        windows : array, shape ``(B, T, F)``
            What they were predicted from, in the data's units.
        scaler
            Of windows and targets.
        known : array, shape ``(B, T, F)``, optional
            The last rows that are no forecasts, beyond whose counts no rate goes far; `windows` if None.

        Returns
        -------
        array, shape ``(B, 1 + Q, h)``
            The point first; for gaussian the mean, for poisson the rate, for quantile the quantile nearest to 0.5. The
            quantiles follow, rising.

        References
        ----------
        .. [1] V. Chernozhukov, I. Fernandez-Val and A. Galichon, "Quantile and probability curves without crossing",
           Econometrica 78 (2010), doi:10.3982/ECTA7880.
        """
        B = len(scaled)
        if self.loss == "gaussian":
            (_, unit), h = scaler.target_scales(windows), scaled.shape[1] // 2
            mean, deviation = scaler.unscale_predictions(scaled[:, :h], windows), unit * np.exp(scaled[:, h:])
            return np.stack([mean, *(mean + score * deviation for score in self.scores)], axis=1)
        if self.loss == "poisson":
            rate = scaler.unscale_predictions(np.exp(scaled), windows)
            rate = np.minimum(rate, _largest_rate(windows if known is None else known, scaler))
            return np.stack([rate, *(poisson_quantile(rate, q) for q in self.predicted)], axis=1)
        values: Floats = scaler.unscale_predictions(scaled, windows).reshape(B, self.per_target, -1)
        if self.predicted:
            values = np.sort(values, axis=1)
            values = np.concatenate([values[:, self.point, None], values], axis=1)
        return values

    def points_backward(
        self,
        dpoints: Floats,
        scaled: Floats,
        windows: Floats,
        scaler: Scaler,
        ddeviations: Floats | None = None,
    ) -> tuple[Floats, Floats]:
        """Gradients through the point forecasts of `forecasts`, whose known rows are the windows.

        Parameters
        ----------
        dpoints : array, shape ``(B, h)``
            Gradient of the point forecasts.
        scaled, windows, scaler
            As for `forecasts`.
        ddeviations : array, shape ``(B, h)``, optional
            Gradient of the standard deviations of gaussian; 0 if None.

        Returns
        -------
        dscaled : array, shape ``(B, P * h)``
            Of the network's outputs.
        dtargets : array, shape ``(B, T, 1)``
            Of the target's windows, through level, unit and largest rate.
        """
        B, h = dpoints.shape
        _, unit = scaler.target_scales(windows)
        if self.loss == "poisson":
            return self._rates_backward(dpoints, np.exp(scaled), windows, scaler)
        outputs = scaled.reshape(B, self.per_target, h)
        chosen = np.zeros((B, 1, h), dtype=np.int64)
        if self.loss == "quantile":
            chosen = np.argsort(outputs, axis=1, kind="stable")[:, self.point, None]
        points = np.take_along_axis(outputs, chosen, axis=1)[:, 0]
        doutputs = np.zeros_like(outputs)
        np.put_along_axis(doutputs, chosen, (dpoints * unit)[:, None], axis=1)
        dlevel, dunit = (np.sum(d, axis=1, keepdims=True) for d in (dpoints, dpoints * points))
        if ddeviations is not None:
            deviation = np.exp(outputs[:, 1])
            doutputs[:, 1] = ddeviations * unit * deviation
            dunit = dunit + np.sum(ddeviations * deviation, axis=1, keepdims=True)
        return doutputs.reshape(B, -1), scaler.target_scales_backward(dlevel, dunit, windows)

    @staticmethod
    def _rates_backward(dpoints: Floats, rate: Floats, windows: Floats, scaler: Scaler) -> tuple[Floats, Floats]:
        """`points_backward` of rates ``(B, h)`` in scaled units, of which the largest are those of `_largest_rate`."""
        (_, unit), largest, counts = scaler.target_scales(windows), _largest_rate(windows, scaler), windows[:, :, 0]
        is_largest = unit * rate > largest
        dlargest = np.sum(np.where(is_largest, dpoints, 0.0), axis=1, keepdims=True)
        drate = np.where(is_largest, 0.0, dpoints)
        dunit = np.sum(drate * rate, axis=1, keepdims=True)
        dtargets = scaler.target_scales_backward(0.0 * dunit, dunit, windows)
        of_window = 2.0 * counts.max(axis=1, keepdims=True) >= largest  # and not of what is usual in the training rows
        first = np.arange(counts.shape[1]) == counts.argmax(axis=1)[:, None]
        return drate * rate * unit, dtargets + np.where(of_window & first, 2.0 * dlargest, 0.0)[:, :, None]

    def deviation(self, forecasts: Floats) -> Floats:
        """The standard deviation ``(n, h)`` of the normal distribution whose `forecasts` are ``(n, 1 + Q, h)``."""
        deviation: Floats = (forecasts[:, -1] - forecasts[:, 0]) / self.scores[-1]
        return deviation

    def quantiles_around(self, points: Floats, spread: Floats) -> Floats:
        """Quantiles ``(n, Q, steps)`` of forecasts without training ``(n, steps)`` and a spread ``(Q, steps)``."""
        quantiles: Floats = points[:, None] + spread
        return np.maximum(quantiles, 0.0) if self.loss == "poisson" else quantiles


def _largest_rate(known: Floats, scaler: Scaler) -> Floats:
    """Twice the largest count of the windows ``(B, T, F)``, or of what is usual in the training rows, ``(B, 1)``.

    Forecasts that continue from forecasts might grow without end: a rate is the exponential of what counts add to it.
    """
    usual = scaler.mean[0] + USUAL_DEVIATIONS * scaler.std[0]
    largest: Floats = 2.0 * np.maximum(known[:, :, 0].max(axis=1, keepdims=True), usual)
    return largest


def rising_quantiles(quantiles: object) -> tuple[float, ...]:
    """The levels of a setting, rising; one number is one level. The median is added between lower and higher ones.

    Raises
    ------
    ArgumentError
        No level is given, one is given twice, or one is not between 0 and 1.
    """
    levels = tuple(sorted(check_quantiles((quantiles,) if isinstance(quantiles, Real) else quantiles)))
    if len({column_suffix(level) for level in levels}) < len(levels):
        raise ArgumentError(f"quantiles is {shown(quantiles)}; each must be there once")
    lower, higher = ([level for level in levels if side * (level - 0.5) > 0] for side in (-1, 1))
    return (*lower, 0.5, *higher) if lower and higher else levels


def rising_levels(levels: object) -> tuple[float, ...]:
    """The levels of a setting, in percent and rising; one number is one level.

    Raises
    ------
    ArgumentError
        A level is given twice, or is not from 1 to below 100.
    """
    given = (levels,) if isinstance(levels, Real) else levels
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise ArgumentError(f"levels is {shown(levels)}; it must be percentages, such as (80, 95)")
    for level in (given := tuple(given)):
        number = float(level) if isinstance(level, Real) and not isinstance(level, bool) else math.nan
        if not 1 <= number < 100:
            percent = f": {100 * number:g} means {number:.0%}" if 0 < number < 1 else ""
            raise ArgumentError(f"levels has {shown(level)}; each must be a percentage from 1 to below 100{percent}")
    rising = tuple(sorted(map(float, given)))
    if len({column_suffix(ends_of(level)[0]) for level in rising}) < len(rising):
        raise ArgumentError(f"levels is {shown(levels)}; each must be there once")
    return rising


def ends_of(level: float) -> tuple[float, float]:
    """The quantiles that an interval of a level in percent is between."""
    return round(0.5 - level / 200, 10), round(0.5 + level / 200, 10)


def column_suffix(quantile: float) -> str:
    """What Nixtla's libraries add to a forecast's name for a quantile: ``lo-80`` for 0.1, ``median``, ``hi-80``."""
    width = float(f"{100 * abs(1 - 2 * quantile):.8g}")
    return f"{'lo' if quantile < 0.5 else 'hi'}-{np.format_float_positional(width, trim='-')}" if width else "median"


def quantile_column(name: str) -> tuple[str, float] | None:
    """Forecast and quantile of a name with a suffix of `column_suffix`; None for others."""
    found = _SUFFIX.fullmatch(name)
    if found is None:
        return None
    forecast, side, width = found.groups()
    if side is None:
        return forecast, 0.5
    half = float(width) / 200
    return forecast, round(0.5 - half if side == "lo" else 0.5 + half, 10)


def poisson_quantile(rate: Floats, quantile: float) -> Floats:
    """The least counts that a Poisson variable does not exceed with this probability, for an array of rates.

    Above `LARGEST_EXACT_RATE`, by the Cornish-Fisher expansion, which is off by one count at most.
    """
    score = NormalDist().inv_cdf(quantile)
    spread = score * np.sqrt(rate)
    counts: Floats = np.maximum(np.ceil(rate + spread + (score**2 - 1) / 6 - 0.5), 0.0)
    small = rate <= LARGEST_EXACT_RATE
    rates = rate[small]
    if rates.size:
        probability = np.exp(-rates)
        total, found, count = probability.copy(), np.zeros_like(rates), 0
        last = rates.max() + 12 * np.sqrt(rates.max()) + 60  # beyond it, sums do not change any more
        while (short := total < quantile).any() and count < last:
            count += 1
            found[short] = count
            probability = probability * rates / count
            total += probability
        counts[small] = found
    return counts


def start_of_skip(outputs: Outputs, windows: Windows, start: Floats, penalty: float = PENALTY) -> tuple[Floats, Floats]:
    """Weights ``(P * h, L)`` and biases ``(P * h,)`` of the linear skip for a training to begin with.

    That of a value or a mean is `fit_ridge` with the penalty, shrunk towards `start (h, L)`. Quantiles begin as that
    and the quantiles of its errors, a standard deviation as that of its errors. The logarithm of a rate begins as the
    first step of a Poisson regression by least squares, shrunk towards the mean rate, or a share of that step; the
    penalty is the one with which blocks of windows are likeliest, each by what is fitted to the other ones.

    A quantile lies between two errors, as `between` has it: the slope of the quantile loss at an error of 0 is up to
    rounding.
    """
    h = len(start)
    if outputs.loss == "poisson":
        return _first_step(windows, np.zeros_like(start), _likeliest_penalty(windows, h, penalty))
    weight = fit_ridge(windows, start, penalty=penalty)
    if outputs.loss == "quantile":
        errors = residuals(windows, weight)
        begun = [between(column, quantile) for quantile in outputs.predicted for column in errors.T]
        return np.tile(weight, (len(outputs.predicted), 1)), np.array(begun)
    if outputs.loss == "gaussian":
        deviation = np.sqrt(np.mean(residuals(windows, weight) ** 2, axis=0))
        biases = np.zeros(h), np.log(np.maximum(deviation, SMALLEST_DEVIATION))
        return np.concatenate([weight, np.zeros_like(weight)]), np.concatenate(biases)
    return weight, np.zeros(h)


def _likeliest_penalty(windows: Windows, horizon: int, usual: float) -> float:
    """The penalty of the first step by which windows that it is not fitted to are likeliest; `usual` if there are few.

    The likelihood of the windows that it is fitted to would choose steps that are too long.
    """
    numbers = spaced(np.arange(windows.n), MAX_RATED)
    x, y, counts = windows.gather(numbers)
    errors, start = dict.fromkeys(reversed(PENALTIES), 0.0), np.zeros((horizon, x.shape[1]))
    for block in np.array_split(np.arange(len(numbers)), FOLDS):
        apart = np.abs(numbers[:, None] - numbers[block]).min(axis=1, initial=windows.n) >= horizon
        if not len(block) or not apart.any():
            return usual
        others = _Gathered(x[apart], y[apart], counts[apart])
        for penalty in errors:
            weight, bias = _first_step(others, start, penalty)
            log_rate = x[block, :, 0] @ weight.T + bias
            with np.errstate(over="ignore"):
                errors[penalty] += float(np.mean(counts[block] * (np.exp(log_rate) - y[block] * log_rate)))
    return min(errors, key=errors.__getitem__)


def _first_step(windows: Windows, start: Floats, penalty: float) -> tuple[Floats, Floats]:
    return _part_of_step(windows, fit_ridge(_FirstResponses(windows), start, penalty=penalty))


def _part_of_step(windows: Windows, weight: Floats) -> tuple[Floats, Floats]:
    """The share of a first step ``(h, L)`` that makes the counts likeliest, and the biases that go with it.

    A whole step goes far beyond the largest rate where most counts are 0: a linear response to a count is not its
    logarithm. With a bias that makes the mean rate that of the counts, the likelihood of each share is known.
    """
    step, y, counts = linear_forecasts(windows, weight)
    log_counts, total = np.log(counts), np.sum(counts * y, axis=0)
    total = np.maximum(total, SMALLEST_RATE * np.sum(counts))
    shares = np.linspace(0.0, 1.0, 33)[:, None]
    largest = np.max(step, axis=0)
    sums = [np.log(np.sum(np.exp(share * (step - largest) + log_counts), axis=0)) for share in shares]
    biases = np.log(total) - sums - shares * largest
    likelihood = shares * np.sum(counts * y * step, axis=0) + total * biases
    best, each = np.argmax(likelihood, axis=0), np.arange(len(weight))
    return shares[best] * weight, biases[best, each]


def between(errors: Floats, quantile: float) -> float:
    """The middle of two neighbouring errors ``(n,)`` that are about `quantile`, of which none is that number itself.

    Errors whose difference is below a share of `SMALLEST_GAP` of their range count as one. Where all are one, it is
    their middle.
    """
    ordered = np.sort(errors)
    gaps = np.diff(ordered)
    below = 1 + np.flatnonzero(gaps > SMALLEST_GAP * (ordered[-1] - ordered[0]))  # how many errors, for each wide gap
    if not len(below):
        return float(0.5 * (ordered[0] + ordered[-1]))
    n = below[np.argmin(np.abs(below - quantile * len(ordered)))]
    return float(0.5 * (ordered[n - 1] + ordered[n]))


@dataclass(frozen=True)
class _Gathered:
    """Windows that are there, with what follows them, and their weights."""

    x: Floats
    y: Floats
    weight: Floats

    @property
    def n(self) -> int:
        """How many."""
        return len(self.x)

    def gather(self, index: Rows) -> tuple[Floats, Floats, Floats]:
        """See `Windows`."""
        return self.x[index], self.y[index], self.weight[index]

    def sum_products(self) -> None:
        """See `Windows`."""


@dataclass(frozen=True)
class _FirstResponses:
    """Windows with the targets and weights of the first step of iteratively reweighted least squares.

    Where all rates are 1 in scaled units, a scaled count y is the response ``y - 1`` of the logarithm.
    """

    windows: Windows

    @property
    def n(self) -> int:
        """How many."""
        return self.windows.n

    def gather(self, index: Rows) -> tuple[Any, Any, Any]:
        """See `Windows`."""
        x, y, weight = self.windows.gather(index)
        return x, y - 1.0, np.sqrt(weight)

    def sum_products(self) -> None:
        """See `Windows`."""
