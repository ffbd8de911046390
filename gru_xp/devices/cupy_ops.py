"""CuPy's primitives, see ``primitives.py``: one kernel for a pointwise body, products without copies, CUDA graphs.

The text of a kernel has no number: those of a body are parameters, as arrays are. So a kernel depends on which calls a
body makes, and on which of its arrays have one column or several blocks of columns, but neither on sizes nor on
numbers such as a learning rate. CuPy compiles it for each dtype, number of axes and packing of arrays: a size of 1, or
rows that are part of wider ones, may be a new case.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache, partial
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias, TypeVar

from gru_xp.devices import cublas, cuda_graph
from gru_xp.devices.c_code import C_CODE, rounded
from gru_xp.devices.compiling import Launches
from gru_xp.devices.fast_paths import is_on, may_launch
from gru_xp.devices.graphed_scans import MAX_NUMBERS, GraphedScans
from gru_xp.devices.lowering import Kept, LoopSteps, Lowered
from gru_xp.devices.norm_kernel import write_norm
from gru_xp.devices.persistent_loops import PersistentLoops, TileChoice
from gru_xp.devices.persistent_tile import Limits, fastest_tile, may_have_tile
from gru_xp.devices.primitives import PLAIN_OPS, Body, Ops, PlainOps, even_slices, rounds_for_memory
from gru_xp.devices.recording import Operand, Recording, Symbol, record
from gru_xp.nn.scan import Array, Arrays, Run, Step

Result = TypeVar("Result")


MAX_CALLS = 1024
"""Calls of `pointwise`, by body, columns and numbers, to keep."""


class CupyOps(Lowered):
    """`gru_xp.devices.primitives.Ops` for CuPy arrays; primitives run on the current device, scans on the arrays'.

    Parameters
    ----------
    choose_tile
        See `PersistentLoops`; by default, the tile with the least estimated time.
    tf32
        Whether products of float32 round their factors to TF32; a loop that is one kernel is computed without.
    """

    def __init__(self, choose_tile: TileChoice = fastest_tile, *, tf32: bool = False) -> None:
        self._tf32 = tf32
        # Nothing here refers to these ops, so that their memory is free as soon as nobody has them any more.
        self._call = lru_cache(MAX_CALLS)(partial(_new_call, {}))
        self._loops = PersistentLoops(choose_tile)
        self._graphed_scans = GraphedScans(_device_of)
        self._scanned: tuple[Any, ...] | None = None  # the arguments of the scan that is run
        self._graph_memory = cuda_graph.GraphMemory()

    def scan(self, step: Step, weights: Any, carry: Any, xs: Arrays, **options: Any) -> tuple[Any, Arrays, Arrays]:
        self._scanned = step, weights, carry, xs, options
        try:
            with _device_of(xs):
                return super().scan(step, weights, carry, xs, **options)
        finally:
            self._scanned = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with _device_of(arguments):
            return super().call(function, *arguments)

    def scan_of_fixed(self, step: Step, weights: Any, carry: Any, xs: Arrays) -> Run | None:
        """What makes scans such as this one; see `gru_xp.nn.scan.run_of_scan`."""
        T, B, K = next(x.shape for x in xs if x is not None)
        is_small = T * B * (K if carry is None else carry.shape[1]) <= MAX_NUMBERS
        return self._graphed_scans.of(self, step, weights) if is_small else None

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        import cupy

        with _device_of((like,)):
            return cupy.empty(shape, like.dtype)

    def copy(self, source: Array | float, out: Array) -> None:
        with _device_of((out,)):
            out[...] = source

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        blas = cublas.current()
        if blas is not None:
            blas.product(a, b, out, tf32=self._tf32)
        else:
            with cublas.cupys_products(self._tf32):
                # A product of stacked matrices would build arrays of pointers; all rows at once are one product.
                out[...] = (a.reshape(-1, a.shape[-1]) @ b).reshape(out.shape)
        return out

    def contract(self, a: Array, b: Array, out: Array, *, add: bool = False) -> Array:
        blas = cublas.current()
        if blas is None:
            with cublas.cupys_products(self._tf32):
                return PLAIN_OPS.contract(a, b, out, add=add)
        blas.product(a, b, out, transpose_a=True, add=add, tf32=self._tf32)
        return out

    def pointwise(self, body: Body, inputs: tuple[Array | float | None, ...], out: tuple[Array, ...]) -> None:
        if not is_on("kernels"):
            PLAIN_OPS.pointwise(body, inputs, out)
            return
        call = self._call(body, tuple(map(_given, inputs)), out[0].dtype.char)
        call((*[a for a in inputs if hasattr(a, "shape")], *out))

    def norm(self, a: Array, out: Array) -> None:
        if not is_on("norm"):
            PLAIN_OPS.norm(a, out)
            return
        with _device_of((a,)):
            write_norm(a, out)

    def block_length(self, T: int, B: int, H: int) -> int:
        return T

    def loop(self, step: Callable[[int], None], times: Sequence[int]) -> None:
        import cupy

        if len(times) > 1 and isinstance(step, LoopSteps) and is_on("loops"):
            program = self._loops.find(step, times, _limits(cupy.cuda.runtime.getDevice()).of_a_block)
            if program is not None and may_launch(program.source, self._problem_of_loop):
                program.launch()
                return
        for t in times:
            step(t)

    def may_be_one_kernel(self, T: int, H: int, dtype: Any) -> bool:
        """Whether a loop of T steps of H units may be a persistent kernel on the current device."""
        import cupy

        limits = _limits(cupy.cuda.runtime.getDevice()).of_a_block
        return T > 1 and dtype.char == "f" and may_have_tile(H, limits)

    def parts(self, B: int, T: int, I: int, H: int) -> list[tuple[slice, Ops]]:  # noqa: E741
        import cupy

        rounds = rounds_for_memory(B, T, I, H) / _limits(cupy.cuda.runtime.getDevice()).memory_share
        return [(rows, self) for rows in even_slices(B, math.ceil(rounds))]

    def run(self, tasks: Sequence[tuple[Ops, Callable[[], Result]]]) -> list[Result]:
        return [function() for _, function in tasks]

    def capture(self, function: Callable[[], Result]) -> Callable[[], Result]:
        blas = cublas.current()
        keep, before = (None, None) if blas is None else ((blas, blas.workspace), blas.use_current_stream)
        return cuda_graph.capture(function, self._graph_memory, keep=keep, before=before)

    def release(self) -> None:
        import cupy

        self._graph_memory.forget()
        cupy.get_default_memory_pool().free_all_blocks()

    def _problem_of_loop(self) -> str | None:
        if self._scanned is None:
            return None
        with cuda_graph.usual_memory():
            problem: str | None = import_module("gru_xp.devices.self_check").problem_of_loop(*self._scanned)
        return problem


class PlainCupyOps(PlainOps):
    """The plain ops, on the device of their arrays, with products as for `CupyOps`."""

    def __init__(self, *, tf32: bool = False) -> None:
        self._tf32 = tf32

    def scan(self, step: Step, weights: Any, carry: Any, xs: Arrays, **options: Any) -> tuple[Any, Arrays, Arrays]:
        with _device_of(xs), cublas.cupys_products(self._tf32):
            return super().scan(step, weights, carry, xs, **options)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with _device_of(arguments), cublas.cupys_products(self._tf32):
            return super().call(function, *arguments)

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        with cublas.cupys_products(self._tf32):
            return super().matmul(a, b, out)

    def contract(self, a: Array, b: Array, out: Array, *, add: bool = False) -> Array:
        with cublas.cupys_products(self._tf32):
            return super().contract(a, b, out, add=add)


def _new_call(
    kernels: dict[tuple[str, ...], Launches], body: Body, given: tuple[Any, ...], dtype: str
) -> Callable[[tuple[Array, ...]], None]:
    """A function of the inputs that are arrays, and the outputs."""
    import cupy

    numbers = [float.fromhex(a) if isinstance(a, str) else a for a in given]
    source = kernel_source(record(body, numbers))
    text = source.in_params, source.out_params, source.code, "gru_xp_" + body.__name__.strip("<_>")
    kernel = kernels.get((*text, dtype))
    if kernel is None:
        kernel = kernels[*text, dtype] = Launches(cupy.ElementwiseKernel(*text, no_return=True))
    arguments = [rounded(a, dtype) if isinstance(a, float) else a for a in source.arguments]

    def run(arrays: tuple[Array, ...]) -> None:
        views = [a if isinstance(a, float) else _columns(arrays, *a) for a in arguments]
        kernel(cupy.cuda.runtime.getDevice(), arrays, views)

    return run


def new_ops() -> CupyOps:
    """Ops that nobody else has."""
    return CupyOps()


def plain_ops(*, tf32: bool = False) -> PlainCupyOps:
    """Ops without fast paths."""
    return PlainCupyOps(tf32=tf32)


def _device_of(values: Arrays) -> AbstractContextManager[Any]:
    """Context in which the device of the first array in (nested) values is the current one."""
    import cupy

    index = _device_index(values)
    return nullcontext() if index in (None, cupy.cuda.runtime.getDevice()) else cupy.cuda.Device(index)


def _device_index(values: Arrays) -> int | None:
    for value in values:
        if isinstance(value, tuple):
            index = _device_index(value)
        else:
            array = value.parts[0][1] if isinstance(value, Kept) else value
            index = getattr(getattr(array, "data", None), "device_id", None)
        if index is not None:
            return index
    return None


class _Limits(NamedTuple):
    """What a device can do.

    Attributes
    ----------
    of_a_block
        Multiprocessors, and the shared memory of a block of threads.
    memory_share
        How many times as much memory as `rounds_for_memory` counts on a part may take: in float64, a quarter of all.
    """

    of_a_block: Limits
    memory_share: int


@cache
def _limits(index: int) -> _Limits:
    import cupy

    device = cupy.cuda.Device(index)
    multiprocessors, shared_bytes = (
        device.attributes[name] for name in ("MultiProcessorCount", "MaxSharedMemoryPerBlockOptin")
    )
    return _Limits(Limits(multiprocessors, shared_bytes), max(1, int(device.mem_info[1]) // 2**32))


# --- pointwise bodies -------------------------------------------------------------------------------------------

_View: TypeAlias = tuple[int, slice | None]
"""The number of an array, and which of its columns; None for all."""


class KernelSource(NamedTuple):
    """An elementwise kernel: parameters, C code, and which numbers, arrays or columns of arrays to call it with.

    Arrays are numbered: the inputs that are arrays, then the outputs.
    """

    in_params: str
    out_params: str
    code: str
    arguments: list[_View | float]


def _given(value: Array | float | None) -> tuple[int, ...] | str | None:
    """What a call depends on: of an array its columns, and which other axes have one place, or 2 for several.

    Of a number it is all bits, as 0.0 and -0.0 are equal.
    """
    if value is None:
        return None
    shape = getattr(value, "shape", None)
    return float.hex(float(value)) if shape is None else (*[min(n, 2) for n in shape[:-1]], *shape[-1:])


def _columns(arrays: tuple[Array, ...], number: int, columns: slice | None) -> Array:
    return arrays[number] if columns is None else arrays[number][..., columns]


def kernel_source(recording: Recording) -> KernelSource:
    """The kernel that does what was recorded.

    The type of all arrays and numbers is ``T``. Each number has a parameter of its own, even where several are equal:
    they may differ in another call. An array that is several times as wide as others are is passed as so many blocks
    of columns, so that one element of the kernel has a variable for each: z, r and so on of one unit of one sequence.
    Every result is a local variable and outputs are written last, so that an output may be the memory of an input.
    """
    width = recording.width
    names = {id(symbol): f"in{i}" for i, symbol in enumerate(recording.inputs)}
    names |= {id(call.result): f"v{i}" for i, call in enumerate(recording.calls)}
    read: dict[str, _View] = {}
    numbers: dict[str, float] = {}

    def blocks(symbol: Symbol) -> int:
        return max(1, symbol.shape[-1] // width)  # one column stands for any number of them

    def view(number: int, symbol: Symbol, block: int) -> _View:
        whole = symbol.shape[-1] in (1, width)
        return number, None if whole else slice(block * width, (block + 1) * width)

    def named(operand: Operand) -> Symbol | str:
        if isinstance(operand, Symbol):
            return operand
        name = f"number{len(numbers)}"
        numbers[name] = float(operand)
        return name

    def text(operand: Symbol | str, block: int) -> str:
        if isinstance(operand, str):
            return operand
        block = operand.start // width + (block if blocks(operand) > 1 else 0)
        name = f"{names[id(operand.root)]}_{block}"
        for number, symbol in enumerate(recording.inputs):
            if symbol is operand.root:
                read[name] = view(number, symbol, block)
        return name

    lines = []
    for function, operands, result in recording.calls:
        texts = list(map(named, operands))
        lines += [
            f"const T {names[id(result)]}_{block} = {C_CODE[function](*[text(operand, block) for operand in texts])};"
            for block in range(blocks(result))
        ]
    written: dict[str, _View] = {}
    for i, symbol in enumerate(recording.outputs):
        for block in range(blocks(symbol)):
            written[f"out{i}_{block}"] = view(len(recording.inputs) + i, symbol, block)
            lines.append(f"out{i}_{block} = {names[id(symbol)]}_{block};")
    in_params, out_params = (", ".join(f"T {name}" for name in some) for some in ([*read, *numbers], written))
    arguments: list[_View | float] = [*read.values(), *numbers.values(), *written.values()]
    return KernelSource(in_params, out_params, "\n".join(lines), arguments)
