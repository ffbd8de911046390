"""How much memory a training needs, and what would need less; both from shapes alone."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from gru_xp.devices import Device
from gru_xp.devices.counting import counting_ops, shape_alone
from gru_xp.devices.primitives import Ops
from gru_xp.errors import MemoryLimitError
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import GRUParams, LinearParams, Reset, arrays_of
from gru_xp.nn.scan import Array
from gru_xp.nn.stack import StackMasks
from gru_xp.training.objective import Objective, predict
from gru_xp.training.trainer import TrainingConfig

_VECTORS = 5
"""Vectors of all parameters: where they start, as they are, the best ones, and two that come and go."""

_OPTIMIZER_VECTORS = {"sgd": 1, "momentum": 2, "adam": 4}
"""Those of optimizers: what they remember, and what they compute with."""

_SMALL_BATCH = 32
"""Sequences an update that are few, and still many enough to learn from."""

_DRAW_BYTES = 13
"""For each number of a mask, while it is drawn: as digits of an integer, as bytes, and as integers of an array."""

_MARGIN = 1.1
"""How many times the estimate must be free: memory falls into pieces, and the estimate is about right only."""

_MOST_STEPS = 200_000
"""Of all layers together, over one sequence: to count the memory of more would take minutes."""

_OUT_OF_MEMORY = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class TrainingShapes:
    """What a training computes with.

    Attributes
    ----------
    n_train, n_validation
        Sequences.
    seq_length, input_size, hidden_size, output_size
        T, I, H and O.
    num_layers, bidirectional
        Of the stack; see `init_gru_stack_params`.
    reset
        The form of the GRU layers.
    dtype : {"float32", "float64"}
    """

    n_train: int
    n_validation: int
    seq_length: int
    input_size: int
    hidden_size: int
    output_size: int = 1
    num_layers: int = 1
    bidirectional: bool = False
    reset: Reset = "before"
    dtype: str = "float32"

    def with_seq_length(self, seq_length: int) -> "TrainingShapes":
        """The same rows in shorter windows, of which there are more."""
        n_train = self.n_train + self.seq_length - seq_length
        return replace(self, n_train=n_train, seq_length=seq_length)


def training_memory(shapes: TrainingShapes, config: TrainingConfig, device: Device) -> int:
    """Bytes that a training takes at most, about, beside those that are taken before it.

    Parameters
    ----------
    shapes, config, device
        What is trained, how, and where. On the CPU, the windows that are scaled in float64 before are counted, too; on
        a CUDA device, no graphs are, as kernels are launched one by one where there is no memory for those.

    Returns
    -------
    int
    """
    with device.use():
        ops = counting_ops(device.ops())
        data = _Data.of(shapes, ops)
        params = _params(shapes, data.x.dtype)
        passing = _passes(data, params, shapes, config, ops)
    vectors = _VECTORS + _OPTIMIZER_VECTORS[config.optimizer]
    training = int(ops.nbytes + passing + vectors * data.x.itemsize * _size(params))
    return training if device.is_cuda else max(training, _scaling_bytes(shapes))


def needed_memory(shapes: TrainingShapes, config: TrainingConfig, device: Device) -> int:
    """Bytes that should be free before a training, so that it does not run out of them, nor what comes after it.

    On the CPU, all sequences are predicted while what the training took may be there still, held by a `Pause`.

    Parameters
    ----------
    shapes, config, device
        See `training_memory`.

    Returns
    -------
    int
    """
    after = 0 if device.is_cuda else _prediction_memory(shapes, device)
    return int(_MARGIN * (training_memory(shapes, config, device) + after))


def _prediction_memory(s: TrainingShapes, device: Device) -> int:
    """For all sequences, whose windows are scaled in float64; parts of two sizes have each their own memory."""
    n = s.n_train + s.n_validation
    with device.use():
        ops = counting_ops(device.ops())
        x = shape_alone((n, s.seq_length, s.input_size), s.dtype)
        ops.capture(partial(predict, _params(s, x.dtype), x, ops))
        n_steps = s.seq_length * s.num_layers * (1 + s.bidirectional)
        n_sizes = 1 + (len(ops.parts(n, n_steps, s.input_size, s.hidden_size)) > device.threads)
    return n_sizes * ops.nbytes + _nbytes(x) + 8 * int(x.size)


def check_memory(shapes: TrainingShapes, config: TrainingConfig, device: Device) -> None:
    """Refuse a training that needs more memory than is free, or so nearly as much that it may run out of it.

    Parameters
    ----------
    shapes, config, device
        See `training_memory`.

    Raises
    ------
    MemoryLimitError
        It says how much is needed, how much is free, and what would fit.
    """
    steps = shapes.seq_length * shapes.num_layers * (1 + shapes.bidirectional)
    if steps > _MOST_STEPS:
        raise MemoryLimitError(
            f"each sequence takes {steps:,} steps of layers, and a training at most {_MOST_STEPS:,}; use a smaller "
            "seq_length or fewer layers"
        )
    needed, free = needed_memory(shapes, config, device), device.free_memory()
    if needed > free:
        advice = _advice(shapes, config, device, free)
        raise MemoryLimitError(
            f"training needs about {_text(needed)} of memory, and {device.name} has {_text(free)} free; {advice}"
        )


@contextmanager
def memory_advice(shapes: TrainingShapes, config: TrainingConfig, device: Device) -> Iterator[None]:
    """Context in which a training that runs out of memory all the same says what would need half as much.

    Parameters
    ----------
    shapes, config, device
        See `training_memory`.

    Raises
    ------
    MemoryLimitError
        Instead of a MemoryError, which CuPy's OutOfMemoryError is, and of what CUDA and its libraries say.
    """

    def advice(what: str) -> str:
        needed = needed_memory(shapes, config, device)
        return f" ({what}), training needs about {_text(needed)}; {_advice(shapes, config, device, needed // 2)}"

    with _told_of_memory(device, advice):
        yield


@contextmanager
def prediction_advice(seq_length: int, device: Device) -> Iterator[None]:
    """Context in which a prediction that runs out of memory says what would need less.

    Parameters
    ----------
    seq_length
        Rows that each prediction looks back on.
    device
        Where it is computed.

    Raises
    ------
    MemoryLimitError
        As in `memory_advice`.
    """

    def advice(what: str) -> str:
        remedy = f"give fewer rows, or train a model with a seq_length below {seq_length}"
        return f" to predict all rows ({what}); {remedy}"

    with _told_of_memory(device, advice):
        yield


@contextmanager
def _told_of_memory(device: Device, advice: Callable[[str], str]) -> Iterator[None]:
    """Context in which an error that means too little memory becomes a MemoryLimitError; `advice` gets what it says."""
    try:
        yield
    except MemoryLimitError:
        raise
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        raise MemoryLimitError(f"{device.name} has not enough memory{advice(_what(error))}") from error


def _what(error: Exception) -> str:
    """What it says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _is_out_of_memory(error: Exception) -> bool:
    """Whether it says that memory is not enough, on whatever device."""
    return isinstance(error, MemoryError) or any(name in str(error) for name in _OUT_OF_MEMORY)


def _advice(shapes: TrainingShapes, config: TrainingConfig, device: Device, limit: int) -> str:
    """What to do so that no more than `limit` bytes are needed; only what does help."""

    def fits(shapes: TrainingShapes, config: TrainingConfig) -> bool:
        return needed_memory(shapes, config, device) <= limit

    n, T, H = min(config.batch_size or shapes.n_train, shapes.n_train), shapes.seq_length, shapes.hidden_size

    def batch_size(config: TrainingConfig) -> list[str]:
        size = _largest(_powers_of_two(n), lambda size: fits(shapes, replace(config, batch_size=size)))
        return [f"batch_size={size}"] if size else []

    def seq_length(config: TrainingConfig) -> list[str]:
        length = _largest(_round_numbers(T), lambda length: fits(shapes.with_seq_length(length), config))
        return [f"seq_length={length}"] if length else []

    def hidden_size(config: TrainingConfig) -> list[str]:
        size = _largest(_round_numbers(H), lambda size: fits(replace(shapes, hidden_size=size), config))
        return [f"hidden_size={size}"] if size else []

    kept = replace(config, keep_every=config.keep_every or math.isqrt(T))
    small = replace(kept, batch_size=min(n, _SMALL_BATCH))
    keep = f"keep_every={kept.keep_every}"
    ways = batch_size(config) + seq_length(config)
    if kept != config and fits(shapes, kept):
        ways.append(keep)
    if not ways and kept != config:
        ways = [f"{way} with {keep}" for way in batch_size(kept) + seq_length(kept)]
    if not ways:
        ways = [f"{way} with batch_size={small.batch_size} and {keep}" for way in seq_length(small)]
    ways = ways or hidden_size(config)
    return f"use {' or '.join(ways)}" if ways else "use fewer rows, as no other setting is enough"


def _powers_of_two(limit: int) -> list[int]:
    """Those below `limit`."""
    return [2**i for i in range((limit - 1).bit_length())]


def _round_numbers(limit: int) -> list[int]:
    """Whole numbers below `limit` that have one digit, or two and zeros."""
    numbers = {digits * 10**zeros for zeros in range(len(str(limit))) for digits in range(1, 100)}
    return sorted(number for number in numbers if number < limit)


def _largest(numbers: list[int], fits: Callable[[int], bool]) -> int | None:
    """The last of them that fits, where all before it do, too."""
    if not numbers or not fits(numbers[0]):
        return None
    count = bisect_left(numbers, True, key=lambda number: not fits(number))
    return numbers[count - 1]


def _text(nbytes: int) -> str:
    unit, name = (2**30, "GiB") if nbytes >= 2**30 else (2**20, "MiB")
    return f"{nbytes / unit:.3g} {name}" if nbytes < 1000 * unit else f"{nbytes / unit:.0f} {name}"


class _Data(NamedTuple):
    """Sequences and targets, of training and of validation."""

    x: Array
    y: Array
    x_validation: Array
    y_validation: Array

    @classmethod
    def of(cls, s: TrainingShapes, ops: Ops) -> "_Data":
        like = shape_alone((), s.dtype)
        sizes = (s.seq_length, s.input_size), (s.output_size,)
        return cls(*(ops.empty((n, *size), like=like) for n in (s.n_train, s.n_validation) for size in sizes))


def _passes(data: _Data, params: NetworkParams, s: TrainingShapes, config: TrainingConfig, ops: Ops) -> int:
    """Have `ops` count what `train` has it do; the bytes beside that which are taken for a while."""

    def objective(x: Array, y: Array, masks: StackMasks | None = None) -> Objective:
        return Objective(params, x, y, ops, rates=config.rates, masks=masks, keep_every=config.keep_every)

    n = s.n_train
    batch_size = min(config.batch_size or n, n)
    whole_batch = batch_size == n and not any(config.rates)
    whole = objective(data.x, data.y)
    validation = objective(data.x_validation, data.y_validation) if s.n_validation else None

    def evaluate() -> None:
        if whole_batch:
            whole.evaluate()
        else:
            whole.evaluate_cost()
        if validation is not None:
            validation.evaluate_cost()

    ops.capture(evaluate)
    if whole_batch:
        return 0
    passing = 0
    for size in {batch_size, n % batch_size} - {0}:
        x, y = (ops.empty((size, *a.shape[1:]), like=a) for a in (data.x, data.y))
        masks = _masks(params, x, config, ops)
        ops.capture(objective(x, y, masks).evaluate)
        drawn = arrays_of(masks)
        drawing = sum(map(_nbytes, drawn)) + max((_DRAW_BYTES * mask.size for mask in drawn), default=0)
        passing = max(passing, _nbytes(x), drawing)
    return passing


def _params(s: TrainingShapes, dtype: Any) -> NetworkParams:
    H, D = s.hidden_size, 1 + s.bidirectional
    empty = partial(shape_alone, dtype=dtype)

    def layer(I: int) -> GRUParams:  # noqa: E741
        bias_hn = empty((H,)) if s.reset == "after" else None
        return GRUParams(empty((3 * H, I)), empty((3 * H, H)), empty((3 * H,)), bias_hn)

    sizes = [s.input_size, *[D * H] * (s.num_layers - 1)]
    layers = [tuple(layer(I) for _ in range(D)) for I in sizes]  # noqa: E741
    return NetworkParams(tuple(layers), LinearParams(empty((s.output_size, D * H)), empty((s.output_size,))))


def _masks(params: NetworkParams, x: Array, config: TrainingConfig, ops: Ops) -> StackMasks:
    """As `draw_masks` gives them."""
    L, D, H = len(params.gru), len(params.gru[0]), params.gru[0][0].hidden_size
    (B, T, _), rates = x.shape, config.rates

    def empty(shape: tuple[int, ...], rate: float) -> Array | None:
        return ops.empty(shape, like=x) if rate > 0 else None

    def each(shape: tuple[int, ...], rate: float) -> tuple[tuple[Array | None, ...], ...]:
        return tuple(tuple(empty(shape, rate) for _ in range(D)) for _ in range(L))

    between = (empty((B, T, D * H), rates.between) for _ in range(L - 1))
    return StackMasks((None, *between), each((B, H), rates.recurrent), each((B, T, H), rates.zoneout))


def _scaling_bytes(s: TrainingShapes) -> int:
    """While windows are scaled: in float64, twice, beside those of training that are there already."""
    numbers, itemsize = s.seq_length * s.input_size, 8 if s.dtype == "float64" else 4
    return max(16 * s.n_train, itemsize * s.n_train + 16 * s.n_validation) * numbers


def _size(params: NetworkParams) -> int:
    return sum(array.size for array in arrays_of(params))


def _nbytes(array: Array) -> int:
    return int(array.size * array.itemsize)
