"""Programs for the parts of large scans on NumPy arrays, as `numpy_bound` has them for small calls.

What a part computes for each step is not copied: it stays where the program has written it. So a program is run again
only when nobody has these results any more; where somebody has them, there is another one, or none.
"""

from collections.abc import Hashable
from typing import Any

import numpy as np

from gru_xp.devices.lowering import ScanPart, scan_part
from gru_xp.devices.numpy_bound import N_WITHOUT, BoundProgram
from gru_xp.nn.scan import Array, Arrays, kind_of

MAX_KINDS = 64
"""Kinds of parts to know."""


class _Kind:
    """Parts of the same plan and the same shapes; `nbytes` are those of one program."""

    def __init__(self, nbytes: int) -> None:
        self.n_without, self.nbytes = 0, nbytes
        self.programs: list[BoundProgram] = []


class PartPrograms:
    """Programs for the parts that some ops compute.

    Parameters
    ----------
    limit
        Bytes of all programs together; one of more than half of that is not kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kinds: dict[Hashable, _Kind] = {}  # the one that was used last at the end

    @property
    def nbytes(self) -> int:
        """Of all programs."""
        return sum(kind.nbytes * len(kind.programs) for kind in self._kinds.values())

    def of(self, part: ScanPart) -> tuple[BoundProgram, list[Array]] | None:
        """A program that computes a part, and the arrays to run it with; None if there is no program for it."""
        key, arrays = kind_of(part.arguments)
        if key is None or any(type(a) is not np.ndarray for a in arrays):
            return None
        kind = self._kinds[key] = self._kinds.pop(key) if key in self._kinds else _Kind(part.nbytes)
        if len(self._kinds) > MAX_KINDS:
            del self._kinds[next(iter(self._kinds))]
        program = next((program for program in kind.programs if program.is_free), None)
        if program is None:
            kind.n_without += 1
            if kind.n_without <= N_WITHOUT or not self._has_room(kind):
                return None
            program, kind.nbytes = part.ops.bound(_scan_part, part.arguments, arrays, lends=True)
            if not self._has_room(kind):
                return None
            program.begin_to_lend()
            kind.programs.append(program)
        return program, arrays

    def _has_room(self, kind: _Kind) -> bool:
        """Whether another program of a kind may be kept; those of kinds that were not used for longest make room."""
        if kind.nbytes > self._limit // 2:
            return False
        for other in self._kinds.values():
            if self.nbytes + kind.nbytes <= self._limit:
                return True
            if other is not kind:
                other.programs.clear()
        return self.nbytes + kind.nbytes <= self._limit


def _scan_part(ops: Any, arguments: Arrays) -> Any:
    return scan_part(ops, *arguments)
