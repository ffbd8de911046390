"""The floor of a training step on a CPU: its matrix products alone, in the memory layout and the split of the rest.

What is left out is everything else: gates, sums, loss, update. It is the floor of this way to cut the work into
products; another way (one product of all steps for the weights, say) may be some per cent lower.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.job import Array, Job, Measurement, Shape, time_calls
from gru_xp.devices import resolve_device
from gru_xp.devices.threads import run_side_by_side

Product = tuple[Array, Array, Array]
"""Two matrices, and where to write their product."""


def products(shape: Shape) -> list[Product]:
    """The products of a training step, ``reset="after"``, in order; all arrays ``(features, B)``.

    K = H + I + 1 rows of h, x and ones enter the recurrent product. Every step has memory of its own for what a real
    step keeps for the way back.
    """
    B, T, H, I = shape  # noqa: E741
    K = H + I + 1
    rng = np.random.default_rng(0)

    def random(*size: int) -> Array:
        return rng.standard_normal(size, dtype=np.float32)

    weights, candidate_weights, recurrent = random(3 * H, K), random(H, I + 1), random(3 * H, H)
    joint, gates, n = random(T, K, B), random(T, 3 * H, B), random(T, H, B)
    da, da_n, dh = random(3 * H, B), random(H, B), random(H, B)
    dweights, dcandidate = random(3 * H, K), random(H, I + 1)
    forward = [
        *[(candidate_weights, joint[t, H:], n[t]) for t in range(T)],
        *[(weights, joint[t], gates[t]) for t in range(T)],
    ]
    backward = [
        product
        for t in reversed(range(T))
        for product in (
            (recurrent.T, da, dh),
            (da, joint[t].T, dweights),
            (da_n, joint[t, H:].T, dcandidate),
        )
    ]
    return forward + backward


def product_flops(shape: Shape) -> int:
    """Additions and multiplications of `products`."""
    B, T, H, I = shape  # noqa: E741
    K = H + I + 1
    return 2 * B * T * (3 * H * K + H * (I + 1) + 3 * H * H + 3 * H * K + H * (I + 1))


def measure(job: Job) -> Measurement:
    """Time them, over as many threads, and in as many parts, as the trainer would use."""
    B, T, H, I = job.shape  # noqa: E741
    ops = resolve_device("cpu", threads=job.threads).ops()
    tasks: list[tuple[object, Callable[[], None]]] = []
    for rows, worker in ops.parts(B, T, I, H):
        tasks.append((worker, partial(_multiply, products((rows.stop - rows.start, T, H, I)))))
    return Measurement(time_calls(job, lambda: run_side_by_side(tasks)))


def _multiply(some: list[Product]) -> None:
    for a, b, out in some:
        np.matmul(a, b, out=out)
