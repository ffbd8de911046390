"""Where a training takes its sequences from: arrays that hold all of them, or anything that gathers some of them."""

from dataclasses import dataclass
from typing import Protocol

from array_api_compat import array_namespace

from gru_xp.nn.scan import Array

MAX_GATHERED = 4096
"""Sequences that are gathered at a time, for the memory that they take in float64 until they are scaled."""

MAX_FITTED = 2048
"""Sequences at a time that a linear forecast is fitted to."""


class Sequences(Protocol):
    """Sequences with their targets, which are gathered by number."""

    @property
    def n(self) -> int:
        """How many there are."""

    def gather(self, index: Array) -> tuple[Array, Array, Array | None]:
        """Some of them, on the device of the training.

        Parameters
        ----------
        index : array of int64, shape ``(B,)``
            Their numbers, from 0 to ``n - 1``.

        Returns
        -------
        x : array, shape ``(B, T, I)``
            Sequences.
        y : array, shape ``(B, O)``
            Their targets.
        weight : array, shape ``(B, 1)``, or None
            What their errors are multiplied by; see `mse_loss`.
        """


@dataclass(frozen=True)
class HeldSequences:
    """Sequences that are there, as arrays.

    Attributes
    ----------
    x : array, shape ``(n, T, I)``
    y : array, shape ``(n, O)``
    weight : array, shape ``(n, 1)``, or None
        See `Sequences`.
    """

    x: Array
    y: Array
    weight: Array | None = None

    @property
    def n(self) -> int:
        """How many there are."""
        return int(self.x.shape[0])

    def gather(self, index: Array) -> tuple[Array, Array, Array | None]:
        """See `Sequences`."""
        take = array_namespace(self.x).take
        x, y, weight = (None if a is None else take(a, index, axis=0) for a in (self.x, self.y, self.weight))
        return x, y, weight
