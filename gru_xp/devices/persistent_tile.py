"""How the threads of a persistent kernel share out the work, and which way is likely to be the fastest."""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from gru_xp.devices.persistent_steps import MAX_WIDTH, UnfitError


class Tile(NamedTuple):
    """How a block of threads shares out its rows and columns.

    Attributes
    ----------
    groups, rows
        Groups of threads, and the rows that each computes.
    columns
        Columns of a cell that a thread computes, a divisor of W.
    lanes
        Neighbouring threads that share out the terms of the same sums, and then the rows of the results: a power of 2
        up to 32.
    """

    groups: int
    rows: int
    columns: int
    lanes: int

    @property
    def shared_rows(self) -> int:
        """`rows`, rounded up to what lanes can share out by halves."""
        return multiple(self.rows, self.lanes) if self.rows > self.lanes else 1 << (self.rows - 1).bit_length()

    def threads(self, width: int) -> int:
        """Threads of a block, in whole warps."""
        return multiple(self.groups * self.lanes * (width // self.columns), 32)

    def shared_bytes(self, width: int, products: Sequence[tuple[int, int]]) -> int:
        """Shared memory for the weights of `products`, each K and M in cells, and for a tile of left operands."""
        return 4 * (sum(multiple(K * M * width, 4) for K, M in products) + self.groups * self.rows * pitch(products))


def multiple(n: int, of: int) -> int:
    """`n`, rounded up to a multiple."""
    return -(-n // of) * of


def pitch(products: Sequence[tuple[int, int]]) -> int:
    """The numbers of a row of the tile."""
    return multiple(max(K for K, _ in products), 4)


class LoopSize(NamedTuple):
    """What the time that a tile takes depends on.

    Attributes
    ----------
    n_rows, width
        Of results: how many rows, and columns of a cell.
    products
        Of each product, K, and M in cells.
    n_cells
        Different cells, and other pieces of memory, of a step.
    """

    n_rows: int
    width: int
    products: tuple[tuple[int, int], ...]
    n_cells: int


class Limits(NamedTuple):
    """Multiprocessors of a device, and the bytes of shared memory that a block of threads may have."""

    multiprocessors: int
    shared_bytes: int


H100 = Limits(132, 227 * 1024)


def may_have_tile(width: int, limits: Limits) -> bool:
    """Whether a layer of `width` units may have a tile: the weights of a step and a row fit into shared memory."""
    products = ((multiple(width + 1, 4), 3),)  # of the three gates, with a bias
    return width <= MAX_WIDTH and Tile(1, 1, 1, 1).shared_bytes(width, products) <= limits.shared_bytes


def feasible_tiles(loop: LoopSize, limits: Limits) -> list[Tile]:
    """Tiles that a device can run, those with the least estimated time first.

    Raises
    ------
    UnfitError
        There is none: the weights do not fit into shared memory, or a step into registers.
    """
    n_rows, width, products, n_cells = loop
    multiprocessors, limit = limits
    cycles: dict[Tile, float] = {}
    for columns, lanes in itertools.product((c for c in range(1, 9) if width % c == 0), (1, 2, 4, 8, 16)):
        for rows in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16):
            for groups in range(1, 1 + min(512 * columns // (width * lanes), 64 // rows, -(-n_rows // rows))):
                tile = Tile(groups, rows, columns, lanes)
                if tile.shared_bytes(width, products) <= limit:
                    turns = -(-n_rows // (groups * rows * multiprocessors))
                    cycles[tile] = turns * _step_cycles(tile, width, products, n_cells)
    found = sorted((tile for tile in cycles if cycles[tile] < math.inf), key=cycles.__getitem__)
    if not found:
        raise UnfitError(f"weights do not fit into {limit} bytes of shared memory")
    return found


def fastest_tile(loop: LoopSize, limits: Limits) -> Tile:
    """The tile with the least estimated time for the largest number of rows in the class of `loop`.

    A kernel is compiled for its tile, so numbers of rows have to share tiles: those that make the busiest
    multiprocessor compute 1, 2, 3, 4, 6, 8, 12, 16 ... rows or less. A tile may not depend on what was run before: the
    order of its sums decides about the last bits of results.

    Raises
    ------
    UnfitError
        See `feasible_tiles`.
    """
    share = -(-loop.n_rows // limits.multiprocessors)
    power = 1 << (share - 1).bit_length()
    rounded_up = power * 3 // 4 if share <= power * 3 // 4 and power > 2 else power
    return _fastest_tile(loop._replace(n_rows=rounded_up * limits.multiprocessors), limits)


@lru_cache(maxsize=1024)
def _fastest_tile(loop: LoopSize, limits: Limits) -> Tile:
    return feasible_tiles(loop, limits)[0]


def _step_cycles(tile: Tile, width: int, products: tuple[tuple[int, int], ...], n_cells: int) -> float:
    """About how many cycles a multiprocessor takes for a step of one block; infinite without enough registers.

    It issues instructions of four warps a cycle. Its shared memory gives 128 bytes, or the same 16 to all threads of a
    warp, a cycle, and what is asked for comes after 30. An element of a cell costs about 10 instructions.
    """
    threads = tile.threads(width)
    warps, own = threads // 32, tile.columns * -(-tile.rows // tile.lanes)
    turns = -(-warps // 4)
    sums = tile.columns * max(blocks for _, blocks in products)
    if sums * (tile.shared_rows + 4) + 0.75 * own * n_cells + 56 > min(255, 65536 // multiple(threads, 128)):
        return math.inf
    cycles = 300.0 + turns * own * 10 * n_cells
    for K, blocks in products:
        fours, sums = K / (4 * tile.lanes), tile.columns * blocks
        multiplied = 4 * sums * tile.rows
        issued = fours * (multiplied + sums + tile.rows + 4)
        waited = 60 + 30 * fours / max(2, 256 // multiplied)
        served = warps * fours * (4 * sums + 1.5 * tile.rows)
        handed = 4 * turns * sums * tile.rows * (1 - 1 / tile.lanes)
        cycles += max(turns * issued, issued + waited, served) + handed
    return cycles
