"""What a training step would take on a GPU at its peak: an estimate from what the device says of itself."""

from dataclasses import dataclass
from typing import Any

from benchmarks.job import Shape

FP32_LANES = {(7, 0): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128, (8, 9): 128, (9, 0): 128, (10, 0): 128, (12, 0): 128}
"""Fused multiply-adds in float32, a multiprocessor and cycle, by compute capability (CUDA programming guide)."""

TF32_FLOPS = {(8, 0): 1024, (8, 6): 256, (8, 9): 256, (9, 0): 2048, (10, 0): 4096, (12, 0): 256}
"""Operations in TF32, dense, a multiprocessor and cycle, by compute capability; from the peaks in the data sheets."""

ASSUMPTIONS = (
    "products: 2 B T 3H (3H + 2I) operations (forward, gradients of states, gradients of weights), at the peak of the "
    "precision: multiprocessors x highest clock x operations a cycle; memory: states, three gates and the candidate's "
    "recurrent part (5 H) and the input (I) of every step written or read once on each way, in float32, at memory "
    "clock x 2 x bus width, unless they fit in the L2 cache; the floor is the larger of the two. Launches, the order "
    "of steps, everything pointwise, loss and update count nothing."
)


@dataclass(frozen=True)
class Peak:
    """What a device could do at most.

    Attributes
    ----------
    name, compute_capability
        Of the device.
    flops
        Operations a second by precision, ``"ieee"`` and ``"tf32"``; None where the device's kind is not known.
    bytes_per_second
        Of its memory; None where it does not say.
    cache_bytes
        Its L2 cache.
    """

    name: str
    compute_capability: str
    flops: dict[str, float | None]
    bytes_per_second: float | None
    cache_bytes: int


def peak_of(name: str, compute_capability: str, attributes: dict[str, int]) -> Peak:
    """From the attributes of a device, as ``cupy.cuda.Device.attributes`` names them.

    Parameters
    ----------
    name
        Of the device.
    compute_capability
        Such as ``"90"``: all digits but the last are the major number.
    attributes
        Clocks in kHz, the bus in bits.

    Returns
    -------
    Peak
    """
    kind = int(compute_capability[:-1]), int(compute_capability[-1])
    cycles = 1e3 * attributes.get("ClockRate", 0) * attributes.get("MultiProcessorCount", 0)
    # Kinds of one generation that are not listed do what its first one does.
    a_cycle = {"ieee": 2 * _of_kind(FP32_LANES, kind), "tf32": _of_kind(TF32_FLOPS, kind)}
    bandwidth = 2 * 1e3 * attributes.get("MemoryClockRate", 0) * attributes.get("GlobalMemoryBusWidth", 0) / 8
    return Peak(
        name,
        f"{kind[0]}.{kind[1]}",
        {precision: cycles * operations or None for precision, operations in a_cycle.items()},
        bandwidth or None,
        attributes.get("L2CacheSize", 0),
    )


def _of_kind(table: dict[tuple[int, int], int], kind: tuple[int, int]) -> int:
    return table.get(kind, table.get((kind[0], 0), 0))


def query_peak(index: int = 0) -> Peak:
    """Of CUDA device `index`, by CuPy."""
    import cupy

    device = cupy.cuda.Device(index)
    name = cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()
    return peak_of(name, device.compute_capability, dict(device.attributes))


def step_flops(shape: Shape) -> int:
    """Operations in the products of a training step whose input needs no gradient."""
    B, T, H, I = shape  # noqa: E741
    return 2 * B * T * 3 * H * (3 * H + 2 * I)


def step_bytes(shape: Shape) -> int:
    """What a training step writes for its way back, and reads there."""
    B, T, H, I = shape  # noqa: E741
    return 2 * 4 * B * T * (5 * H + I)


def floor_ms(shape: Shape, precision: str, peak: Peak) -> dict[str, Any]:
    """``floor_ms`` and what it is the larger one of; None where the device's peak is not known."""
    flops, bandwidth = peak.flops[precision], peak.bytes_per_second
    in_cache = step_bytes(shape) / 2 <= peak.cache_bytes
    products = None if flops is None else 1e3 * step_flops(shape) / flops
    memory = 0.0 if in_cache else None if bandwidth is None else 1e3 * step_bytes(shape) / bandwidth
    floor = None if products is None or memory is None else max(products, memory)
    return {"floor_ms": floor, "floor_products_ms": products, "floor_memory_ms": memory}
