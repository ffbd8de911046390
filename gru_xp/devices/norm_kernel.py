"""The norm of many numbers on a CUDA device, by two launches: one adds up parts of them, the other one the sums.

CuPy's own reductions are templates of CUB, of which each takes NVRTC more than a second to compile, and which are
compiled again for other numbers of numbers. These kernels include no header, and are compiled once for each dtype.
"""

from functools import cache
from typing import Any, NamedTuple

from gru_xp.devices.compiling import compiling
from gru_xp.nn.scan import Array

THREADS = 256
"""Of a block, a power of 2."""

NUMBERS = 2048
"""How many numbers are worth a block of their own."""

MAX_BLOCKS = 1024

_SOURCE = r"""
constexpr int THREADS = %(threads)d;

// Of what all threads of a block give, in the first one.
__device__ double join_block(double sum)
{
    extern __shared__ float4 shared[];
    double *const sums = (double *)shared;
    sums[threadIdx.x] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            const double a = sums[threadIdx.x], b = sums[threadIdx.x + half];
            sums[threadIdx.x] = %(join)s;
        }
    }
    return sums[0];
}

extern "C" __global__ void sum_parts(const %(type)s *numbers, long long n, long long n_blocks, double *parts)
{
    double a = 0.0;
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += n_blocks * THREADS) {
        const double x = numbers[i], b = %(map)s;
        a = %(join)s;
    }
    a = join_block(a);
    if (threadIdx.x == 0) parts[blockIdx.x] = a;
}

extern "C" __global__ void take_norm(const double *parts, long long n, %(type)s *out)
{
    double a = 0.0;
    for (long long i = threadIdx.x; i < n; i += THREADS) {
        const double b = parts[i];
        a = %(join)s;
    }
    a = join_block(a);
    if (threadIdx.x == 0) *out = %(root)s;
}
"""

_MATHS = {
    "f": {"type": "float", "map": "x * x", "join": "a + b", "root": "(float)sqrt(a)"},
    "d": {"type": "double", "map": "abs(x)", "join": "hypot(a, b)", "root": "a"},
}
"""In float64, where no square of a float32 number overflows; squares of float64 numbers are not taken."""


class _Kernels(NamedTuple):
    parts: Any
    total: Any


@cache
def _kernels(dtype: str, device: int) -> _Kernels:
    import cupy

    with compiling():
        module = cupy.RawModule(code=norm_source(dtype), options=("-std=c++17",))
        return _Kernels(module.get_function("sum_parts"), module.get_function("take_norm"))


def norm_source(dtype: str) -> str:
    """CUDA C++ of both kernels, for the character of a dtype."""
    return _SOURCE % {"threads": THREADS, **_MATHS[dtype]}


def write_norm(a: Array, out: Array) -> None:
    """Write the square root of the sum of squares of an array of CuPy into one with a single number of its dtype.

    The order of the additions depends on the number of numbers alone.
    """
    import cupy
    import numpy as np

    kernels = _kernels(a.dtype.char, cupy.cuda.runtime.getDevice())
    a = cupy.ascontiguousarray(a)
    n_blocks = max(1, min(MAX_BLOCKS, -(-a.size // NUMBERS)))
    parts = cupy.empty(n_blocks, np.float64)
    pointers = [np.int64(array.data.ptr) for array in (a, parts, out)]
    n, blocks, shared = np.int64(a.size), np.int64(n_blocks), 8 * THREADS
    kernels.parts((n_blocks,), (THREADS,), (pointers[0], n, blocks, pointers[1]), shared_mem=shared)
    kernels.total((1,), (THREADS,), (pointers[1], blocks, pointers[2]), shared_mem=shared)
