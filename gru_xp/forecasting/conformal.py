"""Intervals by split-conformal prediction: as wide as errors of rows that the model has not learned from.

A score is the absolute error of a forecast in units of the window before it (see `Scaler.target_scales`); for log and
sqrt, of the transformed target. Of n scores of a step ahead, an interval of a level reaches as far to both sides of the
point as the score number ``ceil((n + 1) * level)``, in the unit of its own window. If errors to come are like these, it
holds at least that share of the values.

The model has learned all training rows, and its errors there would be too small. Where the last fifth of these rows has
100 windows or more, the errors are those of a second model, trained without them, which the guard needs, too. Of fewer
windows, they are those of the ridge that the model begins with, forecasting five blocks of all training rows, each
fitted to the other ones; of models without such a ridge, again those of a second model, in the windows there are. Where
the guard has chosen a forecast without training, they are its errors in the same rows.

Scores have no unit, so that those of several series may be put together.

References
----------
.. [1] J. Lei, M. G'Sell, A. Rinaldo, R. Tibshirani and L. Wasserman, "Distribution-free predictive inference for
   regression", Journal of the American Statistical Association 113 (2018), doi:10.1080/01621459.2017.1307116.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.forecasting.scaling import LARGEST
from gru_xp.forecasting.windows import Floats
from gru_xp.io.messages import option
from gru_xp.training.strict_json import check_fields

if TYPE_CHECKING:
    from gru_xp.forecasting.forecaster import Forecaster


@dataclass(frozen=True)
class Intervals:
    """How far intervals reach to both sides of the point, in scaled units.

    Attributes
    ----------
    widths
        For each level, rising, a number for each step ahead.
    scores
        Number of forecasts that they are from.
    """

    widths: tuple[tuple[float, ...], ...] = ()
    scores: int = 0

    @classmethod
    def of(cls, scores: Floats, levels: Sequence[float]) -> "Intervals":
        """Of scores ``(n, h)``, and levels in percent."""
        n, ordered = len(scores), np.sort(scores, axis=0)
        ranks = [min(rank_of(n, level), n) for level in levels]
        return cls(tuple(tuple(ordered[rank - 1].tolist()) for rank in ranks), n)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], levels: int, horizon: int) -> "Intervals":
        """The inverse of `to_dict`; ValueError if that is damaged."""
        check_fields("the intervals", fields, {"widths": (list, tuple), "scores": int})
        widths = tuple(tuple(map(float, row)) for row in fields["widths"])
        if len(widths) != levels or any(len(row) != horizon for row in widths) or fields["scores"] < 1:
            raise ValueError("the intervals have not a width for each level and step ahead")
        of_steps = [(0.0, *step, LARGEST) for step in zip(*widths, strict=True)]
        if not all(a <= b for step in of_steps for a, b in pairwise(step)):
            raise ValueError("the intervals do not become wider with the level")
        return cls(widths, fields["scores"])

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return asdict(self)

    def around(self, centres: Floats, units: Floats, levels: int) -> Floats:
        """Lower and upper ends ``(n, 2 * levels, steps)`` around centres ``(n, steps)``, for units ``(n, 1)``.

        Without scores, there are no bounds.

        The widest interval has the first one and the last one. Steps beyond the horizon have the width of the last one.
        """
        if not self.scores:
            return np.stack([centres - np.inf, centres + np.inf], axis=1).repeat(levels, axis=1)
        widths = np.array(self.widths)
        widths = widths[:, np.minimum(np.arange(centres.shape[1]), widths.shape[1] - 1)]
        half = units[:, None] * np.concatenate([-widths[::-1], widths])
        ends: Floats = centres[:, None] + half
        return ends


def rank_of(n: int, level: float) -> int:
    """Which of n scores, from the least, 1, covers a level in percent; n + 1 or more where they are too few."""
    return math.ceil((n + 1) * level / 100 - 1e-9)


def least_scores(level: float) -> int:
    """The fewest scores that an interval of a level in percent can be told from."""
    return math.ceil(level / (100 - level) - 1e-9)


def shortage(forecaster: "Forecaster") -> str | None:
    """Which intervals have too few scores, in one sentence; None if none has."""
    levels, n = forecaster.outputs.levels, forecaster.intervals.scores
    if levels and not n:
        return "no forecast of held-out rows could be measured: intervals have no bounds"
    few = [level for level in levels if rank_of(n, level) > n]
    if not few:
        return None
    named = ", ".join(f"{level:g} %" for level in few)
    return (
        f"{n} held-out forecasts are too few for intervals of {named}, which need {least_scores(few[-1])}: they reach "
        f"as far as the largest error, and cover less; give more rows, or a lower {option('levels')}"
    )
