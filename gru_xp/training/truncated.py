"""Truncated back-propagation: training on sequences too long for memory, a chunk of their steps at a time."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from array_api_compat import array_namespace

from gru_xp.devices import Device, check_on_device, check_tf32, device_for_caller, to_device, to_host
from gru_xp.devices.primitives import Ops
from gru_xp.errors import ArgumentError, ShapeError
from gru_xp.nn.checks import check_array, check_function, check_kind, check_lengths, whole_number
from gru_xp.nn.linear import linear_backward, linear_forward
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import LinearParams, Reset, flatten, named_arrays, unflatten
from gru_xp.nn.pointwise import only_valid
from gru_xp.nn.scan import Array, Namespace
from gru_xp.nn.stack import check_layers, gru_stack_backward, gru_stack_forward
from gru_xp.training.objective import Loss
from gru_xp.training.trainer import EpochRecord, Progress, TrainingConfig, TrainingResult, Update, run_epochs


class StepLoss(Protocol):
    """A loss of predictions for every step, such as `softmax_cross_entropy`."""

    def __call__(self, y_pred: Array, y: Array, /, *, mask: Array | None, reduction: str) -> tuple[Array, Array]:
        """Value ``()`` and gradient for ``y_pred (B, n, O)``; `reduction` is ``"sum"``, over the steps that count.

        `mask` ``(B, n)`` is True at those; None if all do. The gradient at the others must be 0, whatever stands there.
        """


class _Chunk(NamedTuple):
    x: Array  # (B, n, I)
    y: Array  # (B, n, O), or labels (B, n)
    lengths: list[int] | None  # how many steps of each sequence count; None if all do
    mask: Array | None  # (B, n): which those are
    n_steps: int  # how many of all sequences together


def train_on_chunks(
    params: NetworkParams,
    x: Array,
    y: Array,
    *,
    chunk_length: int,
    config: TrainingConfig,
    device: str | Device = "auto",
    reset: Reset | None = None,
    lengths: Array | Sequence[int] | None = None,
    h0: Array | None = None,
    loss: StepLoss | None = None,
    keep_every: int | None = None,
    callback: Callable[[EpochRecord], object] | None = None,
) -> TrainingResult:
    """Train on sequences too long for memory by truncated backpropagation through time.

    The steps of all sequences are cut into chunks of `chunk_length` steps. Chunks are processed in order, with one
    update of the parameters per chunk: a forward pass from the final states of the previous chunk, and a backward pass
    that ends at the first step of the chunk. The linear layer is applied to the state of the last GRU layer at every
    step, and every step has a target.

    Parameters
    ----------
    params : NetworkParams
        Initial parameters, on `device`; they are not modified. The GRU layers must be unidirectional.
    x : array_like, shape ``(B, T, I)``
        Input sequences: any object that has a shape and returns arrays for ``x[:, start:stop]``, such as a
        ``numpy.memmap``. Chunks are read one at a time, copied to `device`, and converted to the parameters' dtype.
    y : array_like, shape ``(B, T, O)``, or integers of shape ``(B, T)``
        Targets, or labels, of all steps; the same kinds of object as `x`.
    chunk_length : int
        Number of steps in a chunk; the last chunk may be shorter.
    config : TrainingConfig
        Training settings. `batch_size` must be None, since a chunk contains all sequences. `reduction` applies to the
        valid steps of a chunk. Dropout masks are drawn anew for each chunk; the mask of recurrent dropout is the same
        at all steps of a chunk.
    device : str or Device
        Name of a device, see `resolve_device`, or a `Device`.
    reset : {"before", "after"}, optional
        The expected form of the GRU layers; see `gru_forward`.
    lengths : integers, shape ``(B,)``, optional
        Number of valid steps of each sequence, from 0 to T. By default, all steps are valid.
    h0 : array, shape ``(L, B, H)``, optional
        Initial states of the L layers, used at the start of every epoch. Zeros by default.
    loss : callable, optional
        Called as ``loss(y_pred, y, mask=mask, reduction="sum")``; see `StepLoss`. `softmax_cross_entropy` can be
        passed directly. By default, that of `config`, averaged over the O outputs.
    keep_every : int, optional
        Activation checkpointing within a chunk, see `gru_forward`. By default, `keep_every` of `config`.
    callback : callable, optional
        Called with an `EpochRecord` after every epoch. If it returns True, training stops.

    Returns
    -------
    TrainingResult
        Losses are means over all valid steps, computed with the parameters at the end of the epoch in a separate
        forward pass over all chunks. If the loss of a chunk is NaN or infinite, training has diverged: it ends with
        that epoch, whose loss is NaN.

    Raises
    ------
    ShapeError
        The shapes, dtypes or devices of the arrays do not match, `h0` is not an array of real numbers, or no step is
        valid.
    ArgumentError
        A setting is out of range, `reset` is not the form of the GRU layers, or these are bidirectional.

    Notes
    -----
    The memory required is that of one chunk and its backward pass, regardless of T.

    With fixed parameters, truncation changes neither the states and predictions, and hence the reported losses, nor the
    gradient of the linear layer. With ``chunk_length >= T`` nothing is truncated.

    Truncation does change the gradient of the GRU layers: the influence of earlier chunks on an error is ignored. The
    error at the first step of a chunk is propagated through that step only, the error at the last step through the
    whole chunk. A state can carry older information, but no gradient rewards it for doing so, so choose chunks several
    times as long as the dependencies to be learned. In addition, parameters change between chunks, so the initial
    states of a chunk come from slightly older parameters.

    The method is BPTT(h; h') of Williams and Peng (1990), doi:10.1162/neco.1990.2.4.490, with h = h' = `chunk_length`.

    Examples
    --------
    >>> import numpy as np
    >>> from gru_xp.nn.network import init_network_params
    >>> x = np.random.default_rng(0).standard_normal((4, 1000, 1))
    >>> params = init_network_params(1, 8, 1, xp=np, seed=0, dtype=np.float64)
    >>> config = TrainingConfig(num_epochs=3, learning_rate=0.01)
    >>> result = train_on_chunks(
    ...     params, x, np.cumsum(x, axis=1), chunk_length=100, config=config, device="cpu"
    ... )
    >>> result.history[-1].cost < result.history[0].cost
    True
    """
    check_kind("params", params, NetworkParams, "a NetworkParams")
    check_kind("params.linear", params.linear, LinearParams, "a LinearParams")
    check_array("params.linear.bias", params.linear.bias, ("O",))
    if params.skip is not None:
        raise ArgumentError(
            "params has a skip, which reads whole sequences; for chunks of them, use params without skip"
        )
    check_kind("config", config, TrainingConfig, "a TrainingConfig")
    if config.batch_size is not None:
        raise ArgumentError(
            f"config.batch_size is {config.batch_size}; it must be None, as a chunk has all sequences: "
            "make chunk_length smaller for less memory"
        )
    whole_number("chunk_length", chunk_length, 1)
    for name, function in (("loss", loss), ("callback", callback)):
        check_function(name, function, optional=True)
    start = time.perf_counter()
    device = device if isinstance(device, Device) else device_for_caller(device)
    with device.use():
        ops = device.ops()
        dtype = "float32" if params.linear.bias.dtype == array_namespace(params.linear.bias).float32 else "float64"
        check_tf32(device, dtype)
        for name, array in named_arrays(params, "params."):
            check_on_device(name, array, device)
        counts = _check_sequences(
            params, x, y, lengths, device.xp, dtype, reset, columns=config.outputs_per_target, numbers=loss is None
        )
        theta = flatten(params)
        training = _Training(
            unflatten(theta, params),
            partial(_chunks, x, y, counts, chunk_length, device, dtype),
            sum(counts),
            None if h0 is None else _initial_states(h0, params, x.shape[0], device, dtype),
            partial(_error, loss=config.loss_function, ops=ops) if loss is None else loss,
            Update(theta, config, ops, math.ceil(max(counts) / chunk_length)),
            {"keep_every": config.keep_every if keep_every is None else keep_every, "ops": ops},
        )
        progress = Progress(theta, params, training.update, start)
        return run_epochs(progress, training.learn, training.costs, callback)


class _Training:
    """Passes over all chunks, for parameters that change in place."""

    def __init__(
        self,
        params: NetworkParams,
        chunks: Callable[[], Iterator[_Chunk]],
        count: int,
        h0: Array | None,
        loss: StepLoss,
        update: Update,
        options: dict[str, Any],
    ) -> None:
        self._params, self._chunks, self._count, self._h0, self._loss = params, chunks, count, h0, loss
        self.update = update
        rates = update.config.rates
        self._left_out = random.Random(f"dropout {update.config.seed}") if any(rates) else None
        self._options = options | {
            "dropout": rates.between,
            "recurrent_dropout": rates.recurrent,
            "zoneout": rates.zoneout,
        }
        self._diverged = False

    def learn(self, epoch: int, done: int) -> Iterator[int]:
        """An update a chunk; none any more, and no cost, once a chunk's cost is not finite."""
        states = self._h0
        for number, chunk in zip(range(1, self.update.steps_in(epoch) + 1), self._chunks(), strict=False):
            self.update.prepare(epoch, number)
            states, value = self._learn_from(chunk, states)
            self._diverged = not math.isfinite(value)
            yield number
            if self._diverged:
                break

    def costs(self, epoch: int) -> tuple[float, None]:
        """The mean over all steps that count, with the parameters as they are."""
        if self._diverged:
            return math.nan, None
        states, total = self._h0, 0.0
        for chunk in self._chunks():
            states, value = self._evaluate(chunk, states)
            total += value
            if not math.isfinite(total):
                break
        return total / self._count, None

    # What a chunk keeps for its backward pass is a local of these, so that it is gone when the next one comes.

    def _learn_from(self, chunk: _Chunk, states: Array | None) -> tuple[Array, float]:
        gru, linear = self._params.gru, self._params.linear
        options = self._options
        h, states, cache = gru_stack_forward(
            chunk.x, states, gru, lengths=chunk.lengths, seed=self._left_out, **options
        )
        y_pred, linear_cache = linear_forward(h, linear, ops=options["ops"])
        value, dpred = self._loss(y_pred, chunk.y, mask=chunk.mask, reduction="sum")
        if math.isfinite(float(value)):
            dh, dlinear = linear_backward(dpred, linear_cache)
            assert cache is not None
            _, _, dgru = gru_stack_backward(dh, cache, with_dx=False)
            self.update.step(flatten(NetworkParams(dgru, dlinear)), chunk.n_steps)
        return states, float(value)

    def _evaluate(self, chunk: _Chunk, states: Array | None) -> tuple[Array, float]:
        gru, linear = self._params.gru, self._params.linear
        options = self._options
        h, states, _ = gru_stack_forward(chunk.x, states, gru, lengths=chunk.lengths, with_cache=False, **options)
        y_pred, _ = linear_forward(h, linear, ops=options["ops"])
        value, _ = self._loss(y_pred, chunk.y, mask=chunk.mask, reduction="sum")
        return states, float(value)


def _chunks(x: Array, y: Array, counts: list[int], chunk_length: int, device: Device, dtype: str) -> Iterator[_Chunk]:
    """The chunks of sequences of which so many steps count, up to the last one that counts."""
    xp, (_, T, _) = device.xp, x.shape
    for start in range(0, max(counts), chunk_length):
        stop = min(start + chunk_length, T)
        lengths = [min(max(count - start, 0), stop - start) for count in counts]
        mask = None
        if min(lengths) < stop - start:
            times, ends = to_device(list(range(stop - start)), device), to_device(lengths, device)
            mask = xp.expand_dims(times, axis=0) < xp.expand_dims(ends, axis=1)
        y_chunk = to_device(y[:, start:stop], device, dtype if len(y.shape) == 3 else None)
        if y_chunk.ndim == 2 and not xp.isdtype(y_chunk.dtype, "integral"):
            raise ShapeError(
                f"y has dtype {y_chunk.dtype} and shape {tuple(y.shape)}; labels must be integers, numbers (B, T, O)"
            )
        x_chunk = to_device(x[:, start:stop], device, dtype)
        yield _Chunk(x_chunk, y_chunk, None if mask is None else lengths, mask, sum(lengths))


def _error(
    y_pred: Array, y: Array, /, *, mask: Array | None, reduction: str, loss: Loss, ops: Ops
) -> tuple[Array, Array]:
    """A loss of the steps that count."""
    xp = array_namespace(y_pred)
    rows, valid = [xp.reshape(a, (-1, a.shape[-1])) for a in (y_pred, y)], None
    if mask is not None:
        valid = xp.reshape(xp.astype(mask, y_pred.dtype), (-1, 1))
        for number, a in enumerate(rows):
            rows[number] = ops.empty(a.shape, like=a)
            ops.pointwise(only_valid, (a, valid), out=(rows[number],))
    value, dpred = loss(*rows, weight=valid, reduction=reduction, ops=ops)
    return value, xp.reshape(dpred, y_pred.shape)


def _initial_states(h0: Array, params: NetworkParams, B: int, device: Device, dtype: str) -> Array:
    """`h0` on the device; ShapeError unless it is an array ``(L, B, H)`` of numbers."""
    dims = len(params.gru), B, params.gru[0][0].hidden_size
    try:
        given = to_device(h0, device)
        xp = array_namespace(given)
        is_real = xp.isdtype(given.dtype, ("real floating", "integral"))
        states = xp.astype(given, getattr(xp, dtype)) if is_real else None
    except (TypeError, ValueError, RuntimeError, AttributeError):
        states = None
    if states is None:
        raise ShapeError(f"h0 is a {type(h0).__name__}; it must be an array of real numbers, of shape {dims}")
    check_array("h0", states, dims)
    return states


def _check_sequences(
    params: NetworkParams,
    x: Array,
    y: Array,
    lengths: Array | Sequence[int] | None,
    xp: Namespace,
    dtype: str,
    reset: Reset | None,
    *,
    columns: int,
    numbers: bool,
) -> list[int]:
    """How many steps of each sequence count; raise an error unless everything goes together."""
    for name, value in (("x", x), ("y", y)):
        if not hasattr(value, "shape"):
            raise ShapeError(f"{name} is a {type(value).__name__}; it must have a shape, and slices, as an array has")
    shape, y_shape = tuple(x.shape), tuple(y.shape)
    if len(shape) != 3 or 0 in shape:
        raise ShapeError(f"x has shape {shape}; it must be (B, T, I) with every size at least 1")
    B, T, _ = shape

    # It has the shape of x, which may be no array, and takes no memory.
    like_x = xp.broadcast_to(xp.zeros((1, 1, 1), dtype=getattr(xp, dtype)), shape)
    check_layers(params.gru, like_x, reset)
    if len(params.gru[0]) != 1:
        raise ArgumentError(
            "params.gru runs in both directions, and against time a chunk would need those after it first; "
            "take layers of one direction"
        )
    check_array("params.linear.weight", params.linear.weight, ("O", params.gru[0][0].hidden_size), like=("x", like_x))

    O = params.linear.weight.shape[0] // columns  # noqa: E741
    if numbers and y_shape != (B, T, O):
        raise ShapeError(f"y has shape {y_shape}; it must be {(B, T, O)}, or give the loss of labels {(B, T)}")
    if y_shape[:2] != (B, T) or len(y_shape) not in (2, 3):
        raise ShapeError(f"y has shape {y_shape}; it must be ({B}, {T}, O), or of labels {(B, T)}")

    if lengths is None:
        return [T] * B
    counts = [int(length) for length in to_host(check_lengths(lengths, like_x))]
    if not any(counts):
        raise ShapeError("lengths are all 0; at least one step must count")
    return counts
