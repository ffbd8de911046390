"""How wide the intervals are to be, by steps ahead: fitted on synthetic series that nothing was trained on."""

import numpy as np

from gru_xp.forecasting.windows import Floats
from gru_xp.pretrained.features import HEAD, LEVELS, unsquash
from gru_xp.pretrained.network import predict
from gru_xp.pretrained.training import Batches
from gru_xp.pretrained.weights import Weights

COVERAGE = 0.86
"""Share of the synthetic values that the intervals from the lowest level to the highest hold: more than the 0.8 that
they are to hold of real series, which differ more."""

BATCHES = 24

NEIGHBOURS = 4
"""Steps before and after one whose factors are averaged with its own."""


def fit_widths(weights: Weights, seed: int) -> Floats:
    """Fit the factors that make the intervals of all steps hold `COVERAGE` of the values.

    Parameters
    ----------
    weights
        Whose own factors do not matter.
    seed
        Of the training; the series are others than those of the training with this seed.

    Returns
    -------
    array, shape ``(HEAD,)``
        By step ahead, what to multiply the distances of quantiles from the median by.
    """
    missed = np.concatenate([_relative_errors(weights, seed, number) for number in range(1, BATCHES + 1)])
    return _smooth(np.quantile(missed, COVERAGE, axis=0))


def _relative_errors(weights: Weights, seed: int, number: int) -> Floats:
    """Distances ``(B, HEAD)`` of the values from the median, relative to that of the outer quantile on their side."""
    batch = Batches(seed).held_out(number)
    quantiles = unsquash(np.asarray(predict(batch.inputs, batch.candidates[:, -1:], weights.params), dtype=np.float64))
    low, median, high = (np.sort(quantiles, axis=1)[:, row] for row in (0, LEVELS.index(0.5), -1))
    error = unsquash(batch.targets[:, -1].astype(np.float64)) - median
    width = np.where(error > 0, high - median, median - low)
    judged = batch.weight[:, -1, 0] > 0
    relative: Floats = (np.abs(error) / np.maximum(width, 1e-9))[judged]
    return relative


def _smooth(factors: Floats) -> Floats:
    """Geometric means over neighbouring steps."""
    logs = np.log(np.maximum(factors, 1e-3))
    sums = np.concatenate([[0.0], np.cumsum(logs)])
    steps = np.arange(HEAD)
    first, last = np.maximum(steps - NEIGHBOURS, 0), np.minimum(steps + NEIGHBOURS + 1, HEAD)
    return np.asarray(np.exp((sums[last] - sums[first]) / (last - first)))
