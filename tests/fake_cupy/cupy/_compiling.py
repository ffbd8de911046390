"""Compile the CUDA C++ of the kernels, and the stand-in for cuBLAS, for the host.

Needs the standard library alone, so that tests that know nothing of CuPy can load this file, too.
"""

import ctypes
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("FAKE_CUPY_CACHE") or Path(__file__).parent / "__pycache__")
COMMAND = ("g++", "-O2", "-w", "-std=c++17", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-lm")

MATHS = """
#define NAN __builtin_nanf("")
#define abort __builtin_abort
inline float exp(float a) { return __builtin_expf(a); }
inline double exp(double a) { return __builtin_exp(a); }
inline float sqrt(float a) { return __builtin_sqrtf(a); }
inline double sqrt(double a) { return __builtin_sqrt(a); }
inline float tanh(float a) { return __builtin_tanhf(a); }
inline double tanh(double a) { return __builtin_tanh(a); }
inline float abs(float a) { return __builtin_fabsf(a); }
inline double abs(double a) { return __builtin_fabs(a); }
inline double hypot(double a, double b) { return __builtin_hypot(a, b); }
"""
"""What CUDA declares without a header; including <cmath> would make up most of the time of compiling."""

BLOCKS = r"""
#include <setjmp.h>
#include <ucontext.h>
// The threads of a block take turns: each runs to the next barrier, in ascending or descending order.
struct Dim { unsigned x; };
struct alignas(16) float4 { float x, y, z, w; };
static Dim threadIdx, blockIdx;
static float4 shared[1 << 14];
static float handed[1024];
static int waits_for[1024], n_fibers;
static ucontext_t beginnings[1024];
static jmp_buf scheduler, fibers[1024];
static char stacks[1024][1 << 16];
#define __global__
#define __device__
#define __forceinline__
#define __shared__
#define __launch_bounds__(...)
static void __attribute__((noinline)) wait(int what)
{
    waits_for[threadIdx.x] = what;
    if (!_setjmp(fibers[threadIdx.x])) _longjmp(scheduler, 1);
}
static void __attribute__((noinline)) resume()
{
    if (!_setjmp(scheduler)) _longjmp(fibers[threadIdx.x], 1);
}
static void __syncthreads() { wait(1); }
static float __shfl_xor_sync(unsigned, float value, int mask)
{
    handed[threadIdx.x] = value;
    wait(2);
    const float other = handed[threadIdx.x ^ mask];
    wait(3);
    return other;
}
#line 1 "kernel.cu"
%s
static const long long *given;
static void fiber()
{
    for (;;) {
        wait(0);
        %s(%s);
    }
}
static void __attribute__((noinline)) begin()
{
    if (!_setjmp(scheduler)) setcontext(&beginnings[threadIdx.x]);
}
extern "C" void launch(int blocks, int threads, int shared_bytes, int backwards, const long long *arguments)
{
    given = arguments;
    for (; n_fibers < threads; ++n_fibers) {
        ucontext_t &beginning = beginnings[n_fibers];
        getcontext(&beginning);
        beginning.uc_stack.ss_sp = stacks[n_fibers];
        beginning.uc_stack.ss_size = sizeof stacks[n_fibers];
        makecontext(&beginning, fiber, 0);
        threadIdx.x = n_fibers;
        begin();
    }
    for (blockIdx.x = 0; blockIdx.x < (unsigned)blocks; ++blockIdx.x) {
        for (unsigned i = 0; i < sizeof shared / 4; ++i) ((float *)shared)[i] = NAN;
        const int first = backwards ? threads - 1 : 0;
        do
            for (int i = 0; i < threads; ++i) {
                threadIdx.x = backwards ? threads - 1 - i : i;
                resume();
                if (waits_for[threadIdx.x] != waits_for[first]) abort();  // not all threads reach this barrier
            }
        while (waits_for[first]);
    }
    for (unsigned i = shared_bytes / 4; i < sizeof shared / 4; ++i)
        if (!__builtin_isnan(((float *)shared)[i])) abort();  // written beyond what the launch asks for
}
"""


class CompileError(Exception):
    """The compiler's messages, and the source."""


def compile_source(source: str) -> tuple[ctypes.CDLL, bool]:
    """Load a library from the cache; compile it first if it is not there. Return also whether it was compiled."""
    key = hashlib.sha256("\n".join([platform.machine(), *COMMAND, source]).encode()).hexdigest()
    library = CACHE / f"{key[:32]}.so"
    new = not library.exists()
    if new:
        CACHE.mkdir(parents=True, exist_ok=True)
        part = library.with_suffix(f".{os.getpid()}.part")  # several processes may compile at once
        program, *options = COMMAND
        command = [program, "-x", "c++", "-", "-o", str(part), *options]
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompileError(f"{done.stderr}\n{source}")
        part.replace(library)
    return ctypes.CDLL(str(library)), new


def compile_loop_kernel(source: str, name: str) -> tuple[ctypes.CDLL, bool]:
    """Compile a kernel of whole blocks: ``launch(blocks, threads, shared_bytes, backwards, arguments)``."""
    kinds = parameters(source, name)
    given = ", ".join(_argument(kind, i) for i, kind in enumerate(kinds))
    return compile_source(MATHS + BLOCKS % (source, name, given))


def _argument(kind: str, number: int) -> str:
    if "*" in kind:
        return f"({kind[: kind.rindex('*') + 1]})given[{number}]"
    return f"*(const float *)&given[{number}]" if is_number(kind) else f"given[{number}]"


def is_number(parameter: str) -> bool:
    """Whether a parameter is a float32 number, rather than an address or an integer."""
    return parameter.startswith("float ") and "*" not in parameter


def packed(arguments: Sequence[int | float]) -> Any:
    """The arguments of a kernel of whole blocks, eight bytes each: integers, and float32 numbers at the beginning."""
    given = (ctypes.c_longlong * len(arguments))()
    for number, argument in enumerate(arguments):
        if isinstance(argument, float):
            ctypes.c_float.from_buffer(given, 8 * number).value = argument
        else:
            given[number] = argument
    return given


def parameters(source: str, name: str) -> list[str]:
    """The parameters of a kernel."""
    found = re.search(rf"\b{name}\((.*)\)", source)
    assert found is not None, f"there is no kernel {name}"
    return found[1].split(", ")
