"""Scans on CuPy arrays, with weights that nobody changes, as CUDA graphs.

A graph has fixed arrays: those that a scan is given are copied into them, and its results out of them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from gru_xp.devices import cuda_graph
from gru_xp.devices.primitives import Ops
from gru_xp.devices.step_plan import replaced
from gru_xp.nn.params import map_arrays
from gru_xp.nn.scan import Array, Arrays, Step

N_WITHOUT = 2
"""How many scans of a kind are made without a graph."""

MAX_GRAPHS = 16
"""Graphs to keep, for each layer or thread."""

MAX_NUMBERS = 2**22
"""Numbers in the states of all steps, (T, B, K), of a scan that is worth a graph: others keep the GPU busy anyway."""


class GraphedScans:
    """The graphs of some ops.

    Parameters
    ----------
    device_of
        A context in which the device of arrays is the current one.
    """

    def __init__(self, device_of: Callable[[Arrays], AbstractContextManager[Any]]) -> None:
        self.device_of = device_of
        self._with_graph: list[_GraphedScan] = []

    def of(self, ops: Ops, step: Step, weights: Any) -> "_GraphedScan":
        """What makes scans of one kind, by `ops` where there is no graph."""
        return _GraphedScan(self, ops, step, weights)

    def keep(self, scan: "_GraphedScan") -> None:
        """Note that a scan has got a graph; drop the oldest one if there are too many."""
        self._with_graph.append(scan)
        if len(self._with_graph) > MAX_GRAPHS:
            self._with_graph.pop(0).drop()


class _GraphedScan:
    """See `gru_xp.nn.scan.run_of_scan`."""

    def __init__(self, owner: GraphedScans, ops: Ops, step: Step, weights: Any) -> None:
        self._owner, self._ops, self._step, self._weights = owner, ops, step, weights
        self._may_have_graph = True
        self.drop()

    def drop(self) -> None:
        """Forget the graph."""
        self._n_without = 0
        self._graph: Callable[[], Any] | None = None
        self._given: list[Array] = []
        self._stream: Any = None

    def __call__(self, arguments: Arrays, arrays: Sequence[Array]) -> Any:
        if self._graph is None and self._may_have_graph and not cuda_graph.is_capturing():
            self._n_without += 1
            if self._n_without > N_WITHOUT:
                with self._owner.device_of(tuple(arrays)):
                    self._capture(arguments, arrays)
        if self._graph is None or cuda_graph.is_capturing():
            return self._scan(*arguments)
        with self._owner.device_of(tuple(arrays)):
            self._wait_for_other_streams()
            for kept, given in zip(self._given, arrays, strict=True):
                kept[...] = given
            return map_arrays(lambda a: a.copy(), self._graph())

    def _scan(self, carry: Any, xs: Arrays, rows: Arrays) -> Any:
        return self._ops.scan(self._step, self._weights, carry, xs, rows=rows)

    def _capture(self, arguments: Arrays, arrays: Sequence[Array]) -> None:
        self._given = [a.copy() for a in arrays]
        carry, xs, rows = replaced(arguments, iter(self._given))

        def scan() -> Any:
            return self._scan(carry, xs, rows)

        graph = self._ops.capture(scan)
        self._may_have_graph = graph is not scan
        if self._may_have_graph:
            self._graph = graph
            self._owner.keep(self)
        else:
            self.drop()

    def _wait_for_other_streams(self) -> None:
        """Before the kept arrays are overwritten, let the stream of the last call be done with them."""
        import cupy

        stream = cupy.cuda.get_current_stream()
        if self._stream is not None and self._stream.ptr != stream.ptr:
            stream.wait_event(self._stream.record())
        self._stream = stream
