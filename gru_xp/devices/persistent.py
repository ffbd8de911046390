"""All steps of a loop over time in one CUDA launch.

A step of the GRU is a few calls of `Ops.matmul` and `Ops.pointwise`, and each row of their results depends on the same
row of what they read. So a block of threads can take a tile of rows through all steps without waiting for any other
block. This module turns the calls of a step, written down as :class:`Matmul` and :class:`Pointwise`, into the CUDA C++
of such a kernel; no formula is written a second time.

All arrays are cut into blocks of W columns (W is H), the *cells*. A thread owns the same rows and columns of every
cell and keeps them in registers: what a step computes, and what it reads of the step before, never waits for memory.
Only the left operand of a product needs other threads' columns: it goes through a tile in shared memory, where the
weights stay from the first step to the last.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from gru_xp.devices.compiling import compiling
from gru_xp.devices.persistent_code import kernel_parameters, kernel_source
from gru_xp.devices.persistent_steps import Matmul, Pointwise, UnfitError, analyse, make_schedule, operands_of
from gru_xp.devices.persistent_tile import H100, Limits, LoopSize, Tile, fastest_tile
from gru_xp.nn.scan import Array

__all__ = ["Matmul", "PersistentLoop", "Pointwise", "Tile", "compile_loop"]

_log = logging.getLogger(__name__)


class PersistentLoop(NamedTuple):
    """A loop that is ready to be launched, any number of times.

    Attributes
    ----------
    source
        CUDA C++ of the kernel, named ``steps``. Numbers, addresses, strides, and rows and steps are its arguments.
    grid, threads, shared_bytes
        Of the launch.
    arguments
        Sizes, addresses and strides, then the numbers of bodies, as floats.
    addresses
        The positions of addresses among the arguments.
    arrays
        What the addresses belong to, kept alive.
    """

    source: str
    grid: int
    threads: int
    shared_bytes: int
    arguments: tuple[int | float, ...]
    addresses: tuple[int, ...]
    arrays: tuple[Array, ...]

    def launch(self) -> None:
        """Run all steps on CuPy's current stream, without waiting for them.

        The first launch of a source on a device compiles and loads it: do that before a stream is captured.
        """
        import cupy
        import numpy as np

        kernel = _kernel(self.source, self.shared_bytes, cupy.cuda.runtime.getDevice())
        arguments = tuple([np.float32(a) if isinstance(a, float) else np.int64(a) for a in self.arguments])
        kernel((self.grid,), (self.threads,), arguments, shared_mem=self.shared_bytes)


@cache
def _kernel(source: str, shared_bytes: int, device: int) -> Any:
    import cupy

    with compiling():
        kernel = cupy.RawModule(code=source, options=("-std=c++17",)).get_function("steps")
    kernel.max_dynamic_shared_size_bytes = shared_bytes
    return kernel


def compile_loop(
    first: Sequence[Any],
    second: Sequence[Any],
    last: Sequence[Any],
    n_steps: int,
    *,
    limits: Limits = H100,
    tile: Tile | Callable[[LoopSize, Limits], Tile] = fastest_tile,
) -> PersistentLoop | None:
    """Make one kernel of a loop.

    Parameters
    ----------
    first, second, last
        The calls of those steps: of :class:`Matmul` and :class:`Pointwise`; anything else is refused.
    n_steps
        How many steps there are, 2 or more; arrays move evenly from the first to the last.
    limits
        Of the device.
    tile
        How to share out the work, or ``tile(loop, limits)``, which chooses one of `feasible_tiles`.

    Returns
    -------
    PersistentLoop or None
        None if the loop cannot be run this way; why not is logged for debugging.
    """
    try:
        loop = analyse(first, second, last, n_steps)
        plan = make_schedule(loop)
        if not isinstance(tile, Tile):
            tile = tile(LoopSize(loop.n_rows, loop.width, loop.products, len(loop.memory)), limits)
    except UnfitError as reason:
        _log.debug("a loop runs call by call: %s", reason)
        return None
    parameters = kernel_parameters(loop)
    return PersistentLoop(
        sys.intern(kernel_source(loop, plan, tile)),
        grid=-(-loop.n_rows // (tile.groups * tile.rows)),
        threads=tile.threads(loop.width),
        shared_bytes=tile.shared_bytes(loop.width, loop.products),
        arguments=tuple(parameters.values()),
        addresses=tuple([position for position, name in enumerate(parameters) if name in loop.memory]),
        arrays=tuple(array for call in first for array in operands_of(call)),
    )
