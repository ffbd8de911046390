"""How CuPy does what ``nn/ops.py`` describes: one kernel for a pointwise body, and 2-D products into given memory."""

from collections.abc import Callable
from typing import Any

from gru_xp.devices.recording import Operand, Recording, Symbol, record
from gru_xp.nn.ops import PLAIN_OPS, Array, Body

_C_CODE: dict[str, Callable[..., str]] = {
    "add": "{} + {}".format,
    "divide": "{} / {}".format,
    "exp": "exp({})".format,
    "multiply": "{} * {}".format,
    "negative": "-{}".format,
    "subtract": "{} - {}".format,
    "tanh": "tanh({})".format,
}


class CupyOps:
    """`gru_xp.nn.ops.Ops` for CuPy arrays on the current device."""

    def __init__(self) -> None:
        self._kernels: dict[Body, Any] = {}

    def empty(self, shape: tuple[int, ...], like: Array) -> Array:
        return PLAIN_OPS.empty(shape, like)

    def rewind(self) -> None:
        """Nothing to do: CuPy's memory pool hands freed memory out again."""

    def matmul(self, a: Array, b: Array, out: Array) -> Array:
        import cupy

        # A product of stacked matrices would build arrays of pointers; all rows at once are one product.
        rows = a.reshape(-1, a.shape[-1])
        if out.flags.c_contiguous:
            cupy.matmul(rows, b, out=out.reshape(-1, out.shape[-1]))
        else:
            out[...] = cupy.matmul(rows, b).reshape(out.shape)
        return out

    def contract(self, a: Array, b: Array) -> Array:
        return PLAIN_OPS.contract(a, b)

    def pointwise(self, body: Body, inputs: tuple[Array, ...], out: tuple[Array, ...]) -> None:
        kernel = self._kernels.get(body)
        if kernel is None:
            import cupy

            in_params, out_params, code = kernel_source(record(body, [array.shape for array in inputs]))
            name = f"gru_xp{body.__name__}"
            kernel = self._kernels[body] = cupy.ElementwiseKernel(in_params, out_params, code, name)
        kernel(*inputs, *out)


def kernel_source(recording: Recording) -> tuple[str, str, str]:
    """Input parameters, output parameters and C code of the elementwise kernel that does what was recorded.

    The type of all arrays is ``T``. Every result is a local variable and outputs are written last, so that an output
    may be the memory of an input.
    """
    names = {id(symbol): f"in{i}" for i, symbol in enumerate(recording.inputs)}
    names |= {id(call.result): f"v{i}" for i, call in enumerate(recording.calls)}

    def text(operand: Operand) -> str:
        return names[id(operand)] if isinstance(operand, Symbol) else f"T({float(operand)!r})"

    lines = [
        f"const T {names[id(result)]} = {_C_CODE[function](*map(text, operands))};"
        for function, operands, result in recording.calls
    ]
    lines += [f"out{i} = {names[id(symbol)]};" for i, symbol in enumerate(recording.outputs)]
    in_params = ", ".join(f"T in{i}" for i in range(len(recording.inputs)))
    out_params = ", ".join(f"T out{i}" for i in range(len(recording.outputs)))
    return in_params, out_params, "\n".join(lines)
