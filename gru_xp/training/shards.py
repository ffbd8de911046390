"""How a batch is computed: in shards of sequences, side by side on a CPU's cores, one after the other for memory.

The sums of shards are added in a fixed order, so the same settings on the same machine give the same bits.
"""

import math
from collections.abc import Callable
from contextvars import copy_context
from multiprocessing.pool import ThreadPool
from types import TracebackType
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from gru_xp.devices import Device
from gru_xp.nn.cell import Reset
from gru_xp.nn.losses import mse_loss
from gru_xp.nn.ops import Array
from gru_xp.nn.params import flatten
from gru_xp.nn.stack import StackParams, stack_backward, stack_forward

Result = TypeVar("Result")

MAX_ELEMENTS = 2**27
"""Numbers that one shard may keep for its backward pass (512 MiB in float32)."""

MIN_STATE_ELEMENTS = 24_000
"""Numbers in a state (B, H) below which handing it to another thread costs more than it saves."""


class Shards:
    """Computes predictions, costs and gradients of whole batches on one device.

    A context manager: inside it the BLAS runs on one thread, since the shards take the cores.
    """

    def __init__(self, device: Device, reset: Reset) -> None:
        self._device = device
        self._reset = reset
        self._ops = [device.ops(reuse_memory=True) for _ in range(device.threads)]
        self._pool: ThreadPool | None = None  # made when it is needed
        self._limits: Any = None

    def __enter__(self) -> "Shards":
        self._limits = threadpool_limits(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limits.restore_original_limits()
        if self._pool is not None:
            self._pool.terminate()  # waits for nothing: after an error, its threads may be in the middle of a product

    def predict(self, params: StackParams, x: Array) -> Array:
        """The network's results ``(B, O)`` for sequences ``x (B, T, I)``."""

        def forward(rows: slice, ops: Any) -> Array:
            y_pred, _ = stack_forward(x[rows, ...], params, reset=self._reset, ops=ops)
            return y_pred

        return self._device.xp.concat(self._map(forward, params, x))

    def cost(self, params: StackParams, x: Array, y: Array) -> float:
        """Mean squared error of the predictions for ``x (B, T, I)`` against ``y (B, O)``."""
        value, _ = mse_loss(self.predict(params, x), y)
        return float(value)

    def cost_and_gradient(self, params: StackParams, x: Array, y: Array) -> tuple[float, Array]:
        """Mean squared error, and the gradient ``(P,)`` of its *sum* over sequences."""

        def forward_backward(rows: slice, ops: Any) -> tuple[Array, Array]:
            y_pred, cache = stack_forward(x[rows, ...], params, reset=self._reset, ops=ops)
            value, dpred = mse_loss(y_pred, y[rows, ...], reduction="sum")
            _, dparams = stack_backward(dpred, cache)
            return value, flatten(dparams)

        results = self._map(forward_backward, params, x)
        value, gradient = results[0]
        for more_value, more_gradient in results[1:]:
            value = value + more_value
            gradient = gradient + more_gradient
        return float(value) / x.shape[0], gradient

    def _map(self, function: Callable[[slice, Any], Result], params: StackParams, x: Array) -> list[Result]:
        """``function(rows, ops)`` for each shard of the sequences in `x`, in order."""
        B, T, _ = x.shape
        H = params.gru.hidden_size
        workers = max(1, min(len(self._ops), B * H // MIN_STATE_ELEMENTS))
        rounds = math.ceil(B * T * (6 * H + x.shape[2]) / (workers * MAX_ELEMENTS))
        size = math.ceil(B / (workers * rounds))
        shards = [slice(start, min(start + size, B)) for start in range(0, B, size)]

        def run(ops: Any, own: list[slice]) -> list[Result]:
            results = []
            for rows in own:
                ops.rewind()
                results.append(function(rows, ops))
            return results

        if workers == 1:
            return run(self._ops[0], shards)
        if self._pool is None:
            self._pool = ThreadPool(len(self._ops))
        pending = [
            self._pool.apply_async(copy_context().run, (run, self._ops[worker], shards[worker::workers]))
            for worker in range(workers)
        ]
        by_worker = [result.get() for result in pending]
        return [by_worker[i % workers][i // workers] for i in range(len(shards))]
