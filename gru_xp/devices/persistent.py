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
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from gru_xp.devices.compiling import compiling
from gru_xp.devices.persistent_code import kernel_parameters, kernel_source
from gru_xp.devices.persistent_steps import Matmul, Pointwise, UnfitError, analyse, make_schedule, operands_of
from gru_xp.devices.persistent_tile import Limits, LoopSize, Tile, fastest_tile
from gru_xp.nn.scan import Array

__all__ = ["Matmul", "PersistentLoop", "Pointwise", "Tile", "compile_loop"]

_log = logging.getLogger(__name__)


class PersistentLoop(NamedTuple):
    """A loop that is ready to be launched, any number of times.

    Attributes
    ----------
    source
        CUDA C++ of the kernel, named ``steps``. It has the sizes of rows and the tile; all else is an argument.
    grid, threads, shared_bytes
        Of the launch.
    arguments
        Sizes, addresses and strides, then the numbers of bodies, as floats.
    arrays
        What the addresses belong to, kept alive.
    """

    source: str
    grid: int
    threads: int
    shared_bytes: int
    arguments: tuple[int | float, ...]
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
    multiprocessors: int = 132,
    shared_bytes: int = 227 * 1024,
    tile: Tile | None = None,
) -> PersistentLoop | None:
    """Make one kernel of a loop.

    Parameters
    ----------
    first, second, last
        The calls of those steps: of :class:`Matmul` and :class:`Pointwise`; anything else is refused.
    n_steps
        How many steps there are, 2 or more; arrays move evenly from the first to the last.
    multiprocessors, shared_bytes
        Of the device: how many multiprocessors, and how much shared memory a block may have.
    tile
        How to share out the work, instead of what is estimated to be fastest.

    Returns
    -------
    PersistentLoop or None
        None if the loop cannot be run this way; why not is logged for debugging.
    """
    try:
        loop = analyse(first, second, last, n_steps)
        plan = make_schedule(loop)
        if tile is None:
            size = LoopSize(loop.n_rows, loop.width, loop.products, len(loop.memory))
            tile = fastest_tile(size, Limits(multiprocessors, shared_bytes))
    except UnfitError as reason:
        _log.debug("a loop runs call by call: %s", reason)
        return None
    grid = -(-loop.n_rows // (tile.groups * tile.rows))
    arrays = tuple(array for call in first for array in operands_of(call))
    needed = tile.shared_bytes(loop.width, loop.products)
    source = kernel_source(loop, plan, tile)
    return PersistentLoop(
        source, grid, tile.threads(loop.width), needed, tuple(kernel_parameters(loop).values()), arrays
    )
