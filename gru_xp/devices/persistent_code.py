"""The CUDA C++ of a persistent kernel."""

from collections.abc import Iterator

from gru_xp.devices.c_code import C_CODE, rounded
from gru_xp.devices.persistent_steps import Elementwise, Product, Region, Schedule, Steps, keys_of
from gru_xp.devices.persistent_tile import Tile, multiple, pitch
from gru_xp.devices.recording import Symbol

_FUNCTIONS = r"""
// A thread sums up R rows and the U columns j, j + J, ... of cells; when the S lanes have shared out the rows, SHARED
// with those that do not exist, it has P of them.
constexpr int J = W / U, P = SHARED > S ? SHARED / S : 1, E = P * U;
#define EACH _Pragma("unroll") for

// For rows that do not exist another is loaded, so that loads need no branch.
__device__ __forceinline__ void load(float (&x)[E], const float *from, long long row, long long column, int rows)
{
    EACH (int e = 0; e < E; ++e) x[e] = from[(e % P < rows ? e % P : 0) * row + e / P * J * column];
}

__device__ __forceinline__ void store(const float (&x)[E], float *to, long long row, int rows)
{
    EACH (int e = 0; e < E; ++e)
        if (e % P < rows) to[e % P * row + e / P * J] = x[e];
}

// N columns that no step writes, of all rows of the block.
template <int N> constexpr int SHARE = (G * R * N + THREADS - 1) / THREADS;

template <int N>
__device__ __forceinline__
void load_columns(float (&x)[SHARE<N>], const float *from, long long row, long long column, int rows)
{
    EACH (int i = 0; i < SHARE<N>; ++i) {
        const int at = threadIdx.x + i * THREADS;
        x[i] = from[(at / N < rows ? at / N : 0) * row + at % N * column];
    }
}

template <int N>
__device__ __forceinline__ void store_columns(const float (&x)[SHARE<N>], float *to)
{
    EACH (int i = 0; i < SHARE<N>; ++i) {
        const int at = threadIdx.x + i * THREADS;
        if (at < G * R * N) to[at / N * PITCH + at % N] = x[i];
    }
}

// Weights (K, M) in shared memory: four rows of a column side by side, those of S lanes after each other; what is left
// of K stays in rows.
template <int K> constexpr int FOURS = K / (4 * S);

template <int K, int M, int ROW, int COLUMN>
__device__ __forceinline__ void stage(float *to, const float *from)
{
    constexpr int MAIN = FOURS<K> * 4 * S;
    for (int i = threadIdx.x; i < K * M; i += THREADS) {
        const int k = ROW < COLUMN ? i % K : i / M, m = ROW < COLUMN ? i / K : i % M;
        float *at = to + (k < MAIN ? ((k / 4 / S * M + m) * S + k / 4 % S) * 4 + k % 4 : k * M + m);
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;"
                     :: "r"((unsigned)__cvta_generic_to_shared(at)), "l"(from + k * ROW + m * COLUMN) : "memory");
#else
        *at = from[k * ROW + m * COLUMN];
#endif
    }
}

__device__ __forceinline__ void wait_for_weights()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// R rows of the tile times U columns of each of C blocks; afterwards sum[][i] is that of the thread's row i of P.
template <int K, int C>
__device__ __forceinline__
void multiply(float (&sum)[C * U][SHARED], const float *tile, const float *weight, int j, int s)
{
    constexpr int M = C * W, MAIN = FOURS<K> * 4 * S, UNROLL = 256 / (C * U * R * 4) > 2 ? 256 / (C * U * R * 4) : 2;
    EACH (int c = 0; c < C * U; ++c)
        EACH (int r = 0; r < SHARED; ++r) sum[c][r] = 0.0f;
    const float4 *fours = (const float4 *)weight + j * S + s;
#pragma unroll UNROLL
    for (int k = 0; k < FOURS<K>; ++k) {
        float4 b[C * U];
        EACH (int c = 0; c < C * U; ++c) b[c] = fours[(k * M + c / U * W + c % U * J) * S];
        EACH (int r = 0; r < R; ++r) {
            const float4 a = *(const float4 *)(tile + r * PITCH + (k * S + s) * 4);
            EACH (int c = 0; c < C * U; ++c) {
                sum[c][r] += a.x * b[c].x;
                sum[c][r] += a.y * b[c].y;
                sum[c][r] += a.z * b[c].z;
                sum[c][r] += a.w * b[c].w;
            }
        }
    }
    EACH (int k = MAIN; k < K; k += S)
        if ((K - MAIN) % S == 0 || k + s < K) {
            EACH (int c = 0; c < C * U; ++c) {
                const float b = weight[(k + s) * M + c / U * W + c % U * J + j];
                EACH (int r = 0; r < R; ++r) sum[c][r] += tile[r * PITCH + k + s] * b;
            }
        }
    EACH (int lane = 1; lane < S; lane *= 2) {
        const int left = SHARED / lane / 2;  // rows that this lane keeps; the other lane takes as many
        const bool upper = s & lane;
        EACH (int c = 0; c < C * U; ++c) {
            if (left == 0) sum[c][0] += __shfl_xor_sync(0xffffffffu, sum[c][0], lane);
            EACH (int r = 0; r < SHARED / 2; ++r)
                if (r < left) {
                    const float given = upper ? sum[c][r] : sum[c][r + left];
                    const float kept = upper ? sum[c][r + left] : sum[c][r];
                    sum[c][r] = kept + __shfl_xor_sync(0xffffffffu, given, lane);
                }
        }
    }
}
"""

_START = """
    extern __shared__ float4 shared[];
    // This thread's columns, its lane, and which rows of the results are its own.
    const int s = threadIdx.x % S, unit = threadIdx.x / S < G * J ? threadIdx.x / S : 0, j = unit % J, g = unit / J;
    int first = 0;
    EACH (int lane = 1; lane < S; lane *= 2) first += s & lane ? SHARED / lane / 2 : 0;
    const int held = threadIdx.x >= G * J * S || s >= SHARED ? 0 : R - first < P ? R - first : P;
    first += g * R;
    const long long block_row = (long long)blockIdx.x * (G * R), block_left = n_rows - block_row;
    const int block_rows = block_left < G * R ? (int)block_left : G * R;
    const int rows = block_rows - first < held ? block_rows - first : held;
    const long long row = block_row + (first < block_rows ? first : 0);
"""


def kernel_parameters(loop: Steps) -> dict[str, int | float]:
    """The kernel's arguments by name: sizes, addresses and strides, and the numbers of pointwise bodies."""
    parameters: dict[str, int | float] = {"n_rows": loop.n_rows, "n_steps": loop.n_steps}
    for name, region in loop.memory.items():
        parameters |= {name: 4 * region.address, f"{name}_row": region.row, f"{name}_time": region.time}
        if not name.startswith("w") and region.column not in (0, 1):
            parameters[f"{name}_column"] = region.column
    calls = [call for stage in loop.stages if isinstance(stage, Elementwise) for call in stage.recording.calls]
    numbers = [operand for call in calls for operand in call.operands if not isinstance(operand, Symbol)]
    return parameters | {f"number{i}": rounded(number, "float32") for i, number in enumerate(numbers)}


def _column(name: str, region: Region) -> str:
    """The stride over columns: 0 or 1, which the compiler should know, or else a parameter."""
    return str(region.column) if region.column in (0, 1) else f"{name}_column"


def kernel_source(loop: Steps, plan: Schedule, tile: Tile) -> str:
    """CUDA C++ of the kernel. It depends on sizes in a row alone: on no address, number of rows or steps, or number."""
    sizes = {**dict(zip("GRUS", tile, strict=True)), "W": loop.width, "PITCH": pitch(loop.products)}
    sizes |= {"THREADS": tile.threads(loop.width), "SHARED": tile.shared_rows}
    parameters = [
        f"{'float *' if name in loop.memory else 'float ' if isinstance(value, float) else 'long long '}{name}"
        for name, value in kernel_parameters(loop).items()
    ]
    numbers = (name for name, value in kernel_parameters(loop).items() if isinstance(value, float))
    lines = [f"constexpr int {', '.join(f'{name} = {size}' for name, size in sizes.items())};", _FUNCTIONS]
    lines += [f'extern "C" __global__ void __launch_bounds__(THREADS, 1) steps({", ".join(parameters)})', "{", _START]
    used = 0
    for name, region in loop.memory.items():
        if name.startswith("w"):
            lines.append(f"float *const shared_{name} = (float *)shared + {used};")
            _, row, column, _, K, M = region
            lines.append(f"stage<{K}, {M}, {row}, {column}>(shared_{name}, {name});")
            used += multiple(K * M, 4)
        elif name.startswith("f"):
            lines.append(f"float x{name[1:]}[SHARE<{region.width}>];")
            lines.append(f"{name} += block_row * {name}_row;")
        else:
            lines.append(f"float x{name[1:]}[E];")
            lines.append(f"{name} += row * {name}_row + j * {_column(name, region)};")
    lines.append(f"float *const tile = (float *)shared + {used};")
    lines += [_load(loop, name) for name in plan.at_start]
    lines += ["wait_for_weights();", "for (long long t = 0; t < n_steps; ++t) {"]
    for i, stage in enumerate(loop.stages):
        lines += [_load(loop, name) for name in plan.before[i]]
        if isinstance(stage, Product):
            lines += _product_lines(loop, stage, plan.during[i])
        else:
            lines += _elementwise_lines(loop, stage, numbers)
        lines += [f"store(x{name[1:]}, {name}, {name}_row, rows);" for name in plan.after[i]]
    for name, source in plan.carried.items():
        lines.append(f"EACH (int e = 0; e < E; ++e) x{name[1:]}[e] = x{source[1:]}[e];")
    lines += [f"{name} += {name}_time;" for name, region in loop.memory.items() if region.time]
    lines.append("}")
    lines += [f"store(x{name[1:]}, {name}, {name}_row, rows);" for name in plan.at_end]
    return "\n".join([*lines, "}"]) + "\n"


def _load(loop: Steps, name: str, ahead: bool = False) -> str:
    region = loop.memory[name]
    function, rows = (f"load_columns<{region.width}>", "block_rows") if name.startswith("f") else ("load", "rows")
    place = f"{name}{f' + {name}_time' if ahead else ''}, {name}_row, {_column(name, region)}"
    return f"{function}(x{name[1:]}, {place}, {rows});"


def _product_lines(loop: Steps, stage: Product, loads: list[tuple[str, bool]]) -> list[str]:
    """Fill the tile once all threads are done with it; start loads that the product will hide; multiply."""
    lines = ["{", "__syncthreads();"]
    for start, name in stage.reads.items():
        if name.startswith("f"):
            lines.append(f"store_columns<{loop.memory[name].width}>(x{name[1:]}, tile + {start});")
        else:
            lines.append(f"store(x{name[1:]}, tile + first * PITCH + {start} + j, PITCH, held);")
    lines.append("__syncthreads();")
    lines += [_load(loop, name) for name, ahead in loads if not ahead]
    lines.append("if (t + 1 < n_steps) {")
    lines += [_load(loop, name, ahead) for name, ahead in loads if ahead]
    K, blocks = stage.size
    lines += ["}", f"float sum[{blocks} * U][SHARED];"]
    lines.append(f"multiply<{K}, {blocks}>(sum, tile + g * R * PITCH, shared_{stage.weight}, j, s);")
    lines += [
        f"EACH (int e = 0; e < E; ++e) x{name[1:]}[e] = sum[{block} * U + e / P][e % P];"
        for block, name in enumerate(stage.writes)
    ]
    return [*lines, "}"]


def _elementwise_lines(loop: Steps, stage: Elementwise, numbers: Iterator[str]) -> list[str]:
    """Every result is a variable and outputs are written last, so that an output may be the memory of an input.

    `numbers` are the names of the kernel's, of which the next ones are this stage's.
    """
    values = {key: f"x{name[1:]}[e]" for key, name in stage.reads.items()}
    lines = ["EACH (int e = 0; e < E; ++e) {"]
    for n, (function, operands, result) in enumerate(stage.recording.calls):
        keys = keys_of(result, result, loop.width)
        places = [keys_of(operand, result, loop.width) or next(numbers) for operand in operands]
        for block, key in enumerate(keys):
            texts = (place if isinstance(place, str) else values[place[block]] for place in places)
            lines.append(f"const float v{n}_{block} = {C_CODE[function](*texts)};")
            values[key] = f"v{n}_{block}"
    outputs = [values[key] for symbol in stage.recording.outputs for key in keys_of(symbol, symbol, loop.width)]
    lines += [f"x{name[1:]}[e] = {value};" for name, value in zip(stage.writes, outputs, strict=True)]
    return [*lines, "}"]
