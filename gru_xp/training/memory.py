"""How much memory a training needs, and what would need less; both from shapes alone."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gru_xp.devices import Device, is_out_of_memory
from gru_xp.devices.cublas import SMALL_WORKSPACE_BYTES, WORKSPACE_BYTES, choose_workspace, workspace_held
from gru_xp.devices.cupy_ops import CupyOps
from gru_xp.devices.fast_paths import NO_FALLBACK_VARIABLE, fallback_allowed
from gru_xp.devices.fast_paths import replace as warn_of_slower
from gru_xp.devices.plan_memory import PlannedMemory, shape_alone
from gru_xp.devices.short_memory import SMALL_WORKSPACE
from gru_xp.errors import MemoryLimitError
from gru_xp.nn.dropout import DropoutRates
from gru_xp.nn.network import NetworkParams, network_backward, network_forward
from gru_xp.nn.params import GRUParams, LinearParams, Reset, arrays_of
from gru_xp.nn.scan import Array
from gru_xp.nn.stack import StackMasks, mean_masks
from gru_xp.training.objective import NO_DROPOUT, batch_parts, predicted_together
from gru_xp.training.optimizers import STATE_SHAPES
from gru_xp.training.sequences import MAX_FITTED, MAX_GATHERED
from gru_xp.training.trainer import EVALUATED, TrainingConfig

_VECTORS = 4
"""Vectors of all parameters: at the start, now, before an update, and the best ones."""

_NUMPY_VECTORS = {"sgd": 3, "momentum": 3, "adam": 4, "adamw": 5}
"""Those that come and go on NumPy, by optimizer; a CUDA device computes an update without any."""

_SMALL_BATCH = 32
"""Sequences an update that are few, and still many enough to learn from."""

_DRAW_BYTES = 13
"""For each number of a mask, while it is drawn: as digits of an integer, as bytes, and as integers of an array."""

_ORDER_BYTES = 40
"""For each sequence, while the order of an epoch is drawn: a Python integer in a list; 8 of them stay, in an array."""

_GATHER_BYTES = 24
"""For each number of sequences, while they are gathered and scaled in float64."""

_LOOK_BYTES = 16
"""For each number of sequences whose scales are found on a CUDA device, as measured on the tests' stand-in for CuPy."""

_FIT_BYTES = 40
"""For each number of sequences that a linear skip is fitted to, at a time."""

_MARGIN = 1.1
"""How many times the estimate must be free: memory falls into pieces, and the estimate is about right only."""

_MAX_SEGMENTS = 10_000
"""Segments between stored states, of all layers together: to count the memory of more would take long."""


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
    patches
        How many a sequence is cut into; 0 for a step for each row. See `patch_size_of`.
    skip
        Whether there is one.
    gathers
        Whether sequences are gathered, with weights, where they are computed, and not there from the start.
    gathers_to_fit
        Whether they are also gathered to fit the skip.
    is_followed
        Whether such a training follows while the parameters of this one are kept, as that of the guard.
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
    patches: int = 0
    skip: bool = False
    gathers: bool = False
    gathers_to_fit: bool = False
    is_followed: bool = False

    @property
    def patch_size(self) -> int:
        """Rows a step."""
        return patch_size_of(self.seq_length, self.patches)

    @property
    def n_steps(self) -> int:
        """Steps a sequence."""
        return math.ceil(self.seq_length / self.patch_size)

    def with_seq_length(self, seq_length: int) -> "TrainingShapes":
        """The same rows in shorter windows, of which there are more."""
        n_train = self.n_train + self.seq_length - seq_length
        return replace(self, n_train=n_train, seq_length=seq_length)


def patch_size_of(seq_length: int, patches: int) -> int:
    """Rows of a sequence that are one step, where it is to be cut into so many patches; 1 for 0 of them."""
    return math.ceil(seq_length / patches) if patches else 1


def training_memory(shapes: TrainingShapes, config: TrainingConfig, device: Device) -> int:
    """Bytes that a training takes at most, about, beside those that are taken before it.

    Parameters
    ----------
    shapes, config, device
        What is trained, how, and where. On a CUDA device with fast paths, the large workspace of cuBLAS, and what it
        takes to check kernels before their first launch, are counted as well.

    Returns
    -------
    int
    """
    return _training_alone(shapes, config, device) + (WORKSPACE_BYTES if _has_cublas(device) else 0)


def _training_alone(shapes: TrainingShapes, config: TrainingConfig, device: Device) -> int:
    """As `training_memory`, without the workspace."""
    with device.use():
        return _Estimate(shapes, device).add_training(config)


def _has_cublas(device: Device) -> bool:
    return isinstance(device.ops(), CupyOps)


def _least_workspace(device: Device, may_be_slower: bool | None = None) -> int:
    """Bytes of the workspace that a training can do with, unless nothing may be slower."""
    if not _has_cublas(device):
        return 0
    may_be_slower = fallback_allowed() if may_be_slower is None else may_be_slower
    return SMALL_WORKSPACE_BYTES if may_be_slower else WORKSPACE_BYTES


def needed_memory(
    shapes: TrainingShapes, config: TrainingConfig, device: Device, *, may_be_slower: bool | None = None
) -> int:
    """Bytes that should be free before a training, so that it does not run out of them, nor what comes after it.

    On the CPU, all sequences are predicted while what the training took may be there still, held by a `Pause`. On a
    CUDA device, cuBLAS does with a small workspace if it must and ``GRU_XP_NO_FALLBACK`` allows it.

    Parameters
    ----------
    shapes, config, device
        See `training_memory`.
    may_be_slower
        Whether a small workspace is enough; as the environment variable says if None.

    Returns
    -------
    int
    """
    after = 0 if device.is_cuda else _prediction_memory(shapes, config, device)
    return int(_MARGIN * (_training_alone(shapes, config, device) + after)) + _least_workspace(device, may_be_slower)


def _prediction_memory(s: TrainingShapes, config: TrainingConfig, device: Device) -> int:
    """For as many sequences as are predicted together; parts of two sizes have each their own memory."""
    n = min(s.n_train + s.n_validation, predicted_together(s.seq_length, s.input_size))
    predicting = _Estimate(s, device)
    n_parts = predicting.add_pass(n, config)
    n_numbers = n * s.seq_length * s.input_size
    return (1 + (n_parts > device.threads)) * predicting.nbytes + (predicting.itemsize + _GATHER_BYTES) * n_numbers


def check_memory(shapes: TrainingShapes, config: TrainingConfig, device: Device) -> None:
    """Refuse a training that needs more memory than is free, or so nearly as much that it may run out of it.

    Where a large workspace does not fit beside it, cuBLAS gets a small one, after a DeviceWarning.

    Parameters
    ----------
    shapes, config, device
        See `training_memory`.

    Raises
    ------
    MemoryLimitError
        It says how much is needed, how much is free, and what would fit.
    """
    n_segments = math.ceil(shapes.n_steps / config.keep_every) if config.keep_every else 1
    n_segments *= shapes.num_layers * (1 + shapes.bidirectional)
    if n_segments > _MAX_SEGMENTS:
        raise MemoryLimitError(
            f"keep_every={config.keep_every} makes {n_segments:,} segments of each sequence in all layers, and a "
            f"training may have {_MAX_SEGMENTS:,}; use a larger keep_every, or fewer layers"
        )
    needed, free = needed_memory(shapes, config, device), device.free_memory()
    if _has_cublas(device):
        with device.use():
            free += workspace_held()
    if needed > free:
        advice = _advice(shapes, config, device, free)
        wanted, there = _texts(needed, free)
        raise MemoryLimitError(f"training needs about {wanted} of memory, and {device.name} has {there} free; {advice}")
    if _has_cublas(device):
        is_small = needed - _least_workspace(device) + WORKSPACE_BYTES > free
        with device.use():
            choose_workspace(is_small=is_small)
        if is_small:
            warn_of_slower(f"{device.name} has {_text(free)} free", SMALL_WORKSPACE)


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
        remedy = f"give fewer rows, or train a model with a seq_length below {seq_length}{_or_the_cpu(device)}"
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
        if not is_out_of_memory(error):
            raise
        raise MemoryLimitError(f"{device.name} has not enough memory{advice(_what(error))}") from error


def _what(error: Exception) -> str:
    """What it says, on one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _advice(
    shapes: TrainingShapes, config: TrainingConfig, device: Device, limit: int, may_be_slower: bool | None = None
) -> str:
    """What to do so that no more than `limit` bytes are needed; only what does help."""

    def fits(shapes: TrainingShapes, config: TrainingConfig) -> bool:
        return needed_memory(shapes, config, device, may_be_slower=may_be_slower) <= limit

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

    kept = replace(config, keep_every=config.keep_every or math.isqrt(shapes.n_steps))
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
    fewest = replace(shapes, n_train=1, n_validation=min(1, shapes.n_validation))
    if ways:
        advice = f"use {' or '.join(ways)}"
    elif fits(fewest, config):
        advice = "use fewer rows, as no other setting is enough"
    else:
        missing = math.ceil((needed_memory(shapes, config, device, may_be_slower=may_be_slower) - limit) / 2**20)
        advice = f"free {missing:,} MiB more, as no setting is enough"
    if not fits(shapes, config) and needed_memory(shapes, config, device, may_be_slower=True) <= limit:
        advice = f"leave out --no-fallback and {NO_FALLBACK_VARIABLE}, or {advice}"
    elif advice.startswith("free ") and may_be_slower is None and not fallback_allowed():
        slower = _advice(shapes, config, device, limit, may_be_slower=True)
        if not slower.startswith("free "):
            return f"leave out --no-fallback and {NO_FALLBACK_VARIABLE}, and {slower}"
    return advice + _or_the_cpu(device)


def _or_the_cpu(device: Device) -> str:
    return ", or --device cpu" if device.is_cuda else ""


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


def _text(nbytes: int, digits: int = 3) -> str:
    unit, name = (2**30, "GiB") if nbytes >= 2**30 else (2**20, "MiB")
    number = nbytes / unit
    return f"{number:.{digits}g} {name}" if number < 10**digits else f"{number:.0f} {name}"


def _texts(more: int, less: int) -> tuple[str, str]:
    """Two numbers of bytes, with as many digits as it takes to tell them apart, up to nine."""
    texts = [(_text(more, digits), _text(less, digits)) for digits in range(3, 10)]
    return next((pair for pair in texts if pair[0] != pair[1]), texts[-1])


class _Estimate:
    """Adds up what passes of a network over sequences take, in parts and threads as they will be made."""

    def __init__(self, s: TrainingShapes, device: Device) -> None:
        self._shapes, self._device, self._ops = s, device, device.ops()
        self._params = _params(s)
        self.itemsize = int(self._params.linear.bias.itemsize)
        self._n_params = sum(int(array.size) for array in arrays_of(self._params))
        self._planned: dict[int, PlannedMemory] = {}  # of each worker

    @property
    def nbytes(self) -> int:
        """Of all passes so far."""
        return sum(planned.nbytes for planned in self._planned.values())

    def add_pass(
        self,
        n: int,
        config: TrainingConfig,
        *,
        backward: bool = False,
        rates: DropoutRates = NO_DROPOUT,
        drawn: bool = False,
        keep_every: int | None = None,
    ) -> int:
        """Add a captured function: the cost of `n` sequences, and its gradient if it goes `backward`.

        Parameters
        ----------
        rates, drawn, keep_every
            Of dropout, by masks that are drawn or by their means; see `Objective`.

        Returns
        -------
        int
            In how many parts it is computed.
        """
        s, params = self._shapes, self._params

        def compute(size: int, planned: PlannedMemory) -> None:
            x = self._array(size, s.seq_length, s.input_size)
            masks = self.masks(size, rates) if drawn else mean_masks(params.gru, rates)
            options: dict[str, Any] = {"masks": masks, "keep_every": keep_every, "ops": planned}
            y_pred, cache = network_forward(x, params, with_cache=backward, **options)
            weight = self._array(size, 1) if s.gathers and config.loss != "gaussian" else None
            y_true = self._array(size, s.output_size // config.outputs_per_target)
            _, dpred = config.loss_function(y_pred, y_true, weight=weight, reduction="sum", ops=planned)
            if cache is not None:
                network_backward(dpred, cache, with_dx=False)

        parts = batch_parts(params, self._array(n, s.seq_length, s.input_size), self._ops, keep_every)
        sizes = Counter((id(worker), rows.stop - rows.start) for rows, worker in parts)
        for (worker, size), times in sizes.items():
            if worker not in self._planned:
                self._planned[worker] = PlannedMemory(self._ops)
            self._planned[worker].count(partial(compute, size), times)
        return len(parts)

    def add_training(self, config: TrainingConfig) -> int:
        """Bytes that all takes that `train` has, and that is captured for it, in the same order."""
        s, rates = self._shapes, config.rates
        batch_size = min(config.batch_size or s.n_train, s.n_train)
        whole_batch = batch_size == s.n_train and not any(rates)
        options: dict[str, Any] = {"config": config, "rates": rates, "keep_every": config.keep_every}
        n_sequences, masks, n_sums = 0, 0, 0
        order = 0 if whole_batch else 8 * s.n_train
        passing = 0 if whole_batch or self._device.is_cuda else _ORDER_BYTES * s.n_train
        if config.num_steps is None or whole_batch:
            for size in self._evaluated(s.n_train, batch_size, held=whole_batch):
                n_sums += self.add_pass(size, backward=whole_batch, **options)
                n_sequences += size
        for size in self._evaluated(s.n_validation, batch_size, held=whole_batch):
            n_sums += self.add_pass(size, **options)
            n_sequences += size
        if s.gathers and not whole_batch and n_sequences:
            passing = max(passing, self._gathering_bytes(min(n_sequences, max(batch_size, EVALUATED))))
        if not s.gathers and config.num_steps is not None and not whole_batch:
            n_sequences += s.n_train  # they are there, though not evaluated
        for size in () if whole_batch else filter(None, (batch_size, s.n_train % batch_size)):
            n_sums += self.add_pass(size, backward=config.steps(s.n_train) > 0, drawn=any(rates), **options)
            n_sequences += size
            sizes = [int(array.size) for array in arrays_of(self.masks(size, rates))]
            masks += sum(sizes)
            drawing = 0 if self._device.is_cuda else _DRAW_BYTES * max(sizes, default=0)
            passing = max(passing, self.itemsize * sum(sizes) + drawing, self._gathering_bytes(size))
        vectors = _VECTORS + s.is_followed + sum(STATE_SHAPES[config.optimizer].values()) + n_sums
        vectors += 0 if isinstance(self._ops, CupyOps) else _NUMPY_VECTORS[config.optimizer]
        numbers = n_sequences * (s.seq_length * s.input_size + s.output_size) + masks + vectors * self._n_params
        if config.num_steps is not None and not whole_batch and not self._device.is_cuda:
            first = _Estimate(s, self._device)  # the loss of the first batch, which is not captured
            first.add_pass(batch_size, **options)
            passing += sum(planned.array_bytes for planned in first._planned.values())
        at_start = self._gathering_bytes(s.n_train) if whole_batch else self._look_bytes()
        training = self.itemsize * numbers + order + passing + self.nbytes
        return self._rows_bytes() + max(training, at_start)

    def _gathering_bytes(self, n: int) -> int:
        """While `n` sequences are gathered and scaled, some at a time, if they are not there from the start."""
        s = self._shapes
        if not s.gathers:
            return self.itemsize * n * s.seq_length * s.input_size
        gathered = self.itemsize * n if n > MAX_GATHERED else 0
        gathering = max(_GATHER_BYTES * min(n, MAX_GATHERED), gathered)
        return (gathering + gathered) * s.seq_length * s.input_size

    def _look_bytes(self) -> int:
        """While the scales of the target's windows are found, and a skip is fitted, which is done on the host."""
        s = self._shapes
        if not s.gathers:
            return 0
        n = (_LOOK_BYTES if self._device.is_cuda else _GATHER_BYTES) * min(s.n_train, MAX_GATHERED)
        fit = _FIT_BYTES * min(s.n_train, MAX_FITTED) if s.gathers_to_fit and not self._device.is_cuda else 0
        return max(n, fit * s.input_size) * s.seq_length

    def _rows_bytes(self) -> int:
        """Of the rows in float64 that sequences are gathered from, where these are copied, and where each begins."""
        s = self._shapes
        if not s.gathers:
            return 0
        n = s.n_train + s.n_validation
        copied = 8 * (1 + (s.n_validation > 0)) * (n + s.seq_length) * s.input_size
        return 8 * n + (copied if self._device.is_cuda else 0)

    def _evaluated(self, n: int, batch_size: int, *, held: bool = False) -> list[int]:
        """Sizes of what is evaluated of `n` sequences: all at once, or parts that are gathered."""
        if held or not self._shapes.gathers:
            return [n] if n else []
        size = min(n, max(batch_size, EVALUATED))
        return [part for part in (size, n % size if size else 0) if part]

    def masks(self, size: int, rates: DropoutRates) -> StackMasks:
        """As `draw_masks` gives them."""
        s = self._shapes
        L, D, H = s.num_layers, 1 + s.bidirectional, s.hidden_size

        def mask(rate: float, *shape: int) -> Array | None:
            return self._array(*shape) if rate > 0 else None

        def each(rate: float, *shape: int) -> tuple[tuple[Array | None, ...], ...]:
            return tuple(tuple(mask(rate, *shape) for _ in range(D)) for _ in range(L))

        between = (mask(rates.between, size, s.n_steps, D * H) for _ in range(L - 1))
        recurrent, zoneout = each(rates.recurrent, size, H), each(rates.zoneout, size, s.n_steps, H)
        return StackMasks((None, *between), recurrent, zoneout)

    def _array(self, *shape: int) -> Array:
        return shape_alone(shape, self._shapes.dtype)


def _params(s: TrainingShapes) -> NetworkParams:
    H, D = s.hidden_size, 1 + s.bidirectional
    empty = partial(shape_alone, dtype=s.dtype)

    def layer(I: int) -> GRUParams:  # noqa: E741
        bias_hn = empty((H,)) if s.reset == "after" else None
        return GRUParams(empty((3 * H, I)), empty((3 * H, H)), empty((3 * H,)), bias_hn)

    sizes = [s.patch_size * s.input_size, *[D * H] * (s.num_layers - 1)]
    layers = [tuple(layer(I) for _ in range(D)) for I in sizes]  # noqa: E741
    linear, skip = (LinearParams(empty((s.output_size, n)), empty((s.output_size,))) for n in (D * H, s.seq_length))
    return NetworkParams(tuple(layers), linear, skip if s.skip else None)
