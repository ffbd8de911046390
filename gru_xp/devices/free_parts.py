"""Which parts of some buffers are free, for memory that is lent for a while and then lent again."""

from collections.abc import Iterable
from typing import NamedTuple


class Part(NamedTuple):
    """Some bytes of the buffer of a number."""

    buffer: int
    start: int
    stop: int


class FreeParts:
    """Parts of buffers that nobody uses, those next to each other joined.

    Parameters
    ----------
    parts
        Parts that are free now.
    """

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self._parts = list(parts)

    def take(self, nbytes: int) -> Part | None:
        """Cut bytes from the smallest part that has as many; None if there is no such part."""
        best = None
        for part in self._parts:
            if part.stop - part.start >= nbytes and (best is None or part.stop - part.start < best.stop - best.start):
                best = part
        if best is None:
            return None
        self._parts.remove(best)
        middle = best.start + nbytes
        if middle < best.stop:
            self._parts.append(Part(best.buffer, middle, best.stop))
        return Part(best.buffer, best.start, middle)

    def add(self, part: Part) -> None:
        """Make a part free."""
        number, start, stop = part
        for other in [p for p in self._parts if p.buffer == number and (p.stop == start or p.start == stop)]:
            self._parts.remove(other)
            start, stop = min(start, other.start), max(stop, other.stop)
        self._parts.append(Part(number, start, stop))
