"""gru-xp's side of every comparison.

Variants: of ``train`` the form of the reset gate, ``after`` or ``before``; of ``variant`` those of ``stacks.py``; of
``forward`` ``GRUInference`` or ``gru_forward``; of ``stream`` ``step(x, h)``, which gets the state as PyTorch's cell
does, or ``step(x)``, which goes on from its own. The tasks ``layer``, ``step`` and ``cell`` call public functions as
users do, with all checks.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import stacks
from benchmarks.job import LEARNING_RATE, Array, Job, Measurement, PeakMemory, Stopwatch, time_calls
from gru_xp.devices import Device, resolve_device, to_device, to_host
from gru_xp.nn.cell import gru_cell_forward, gru_step
from gru_xp.nn.gru import gru_backward, gru_forward
from gru_xp.nn.inference import GRUInference
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import GRUParams, flatten, named_arrays, unflatten
from gru_xp.nn.stack import gru_stack_backward, gru_stack_forward
from gru_xp.training.objective import Objective
from gru_xp.training.optimizers import SGD
from gru_xp.training.trainer import TrainingConfig, train


def measure(job: Job) -> Measurement:
    """Do the job."""
    tf32 = {"tf32": True} if job.tf32 else {}  # another checkout may not know it
    device = resolve_device(job.device, fallback=False, threads=job.threads, **tf32)
    if job.task == "train":
        return _measure_training(job, device)
    if job.task == "variant":
        return _measure_variant(job, device)
    if job.task == "layer":
        return _measure_layer(job)
    params, x, _ = job.problem()
    ((gru,),) = params.gru
    if job.task in ("step", "cell"):
        return _measure_steps(job, gru, x)
    with device.use():
        if job.task == "forward":
            return _measure_forward(job, _forward(job, device, gru), x)
        return _measure_stream(job, GRUInference(gru, ops=device.ops()), x)


# --- training ---------------------------------------------------------------------------------------------------


def _measure_training(job: Job, device: Device) -> Measurement:
    """The trainer itself, with the stopwatch as its callback: what is timed is all that it does in an epoch."""
    host_params, *data = job.problem()
    params = unflatten(to_device(flatten(host_params), device), host_params)
    x, y = (to_device(array, device) for array in data)
    memory, stopwatch = PeakMemory(), Stopwatch(job)
    result = train(
        params,
        x,
        y,
        config=TrainingConfig(num_epochs=10**9, learning_rate=LEARNING_RATE, optimizer="sgd", reduction="mean"),
        device=device,
        reset=job.variant,  # type: ignore[arg-type]
        callback=stopwatch,
    )
    if result.problem is not None:
        raise RuntimeError(result.problem)
    peak = memory.growth()
    with device.use():
        if job.arrays_file is not None:
            _save_gradient(job, device, params, x, y, host_params)
        pipelined = _pipelined_seconds(job, device, params, x, y) if job.pipelined_steps else None
    return Measurement(stopwatch.times, peak, pipelined)


def _save_gradient(job: Job, device: Device, params: NetworkParams, x: Any, y: Any, like: NetworkParams) -> None:
    """Cost and gradient at the starting weights, by the way that the trainer takes: captured, and played back."""
    ops = device.ops()
    objective = Objective(params, x, y, ops)
    ops.capture(objective.evaluate)()
    gradient = unflatten(to_host(objective.gradient) / x.shape[0], like)
    job.save({"cost": np.asarray(float(objective.cost[0])), **dict(named_arrays(gradient))})


def _pipelined_seconds(job: Job, device: Device, params: NetworkParams, x: Any, y: Any) -> float:
    """Of one of many steps of which only the last one's cost is read."""
    ops = device.ops()
    theta = flatten(params)
    objective = Objective(unflatten(theta, params), x, y, ops)
    optimizer = SGD(theta, LEARNING_RATE / x.shape[0])  # the gradient is of the sum

    def step() -> None:
        objective.evaluate()
        optimizer.step(objective.gradient, ops)

    return pipelined_seconds(job, ops.capture(step), lambda: float(objective.cost[0]))


def pipelined_seconds(job: Job, step: Callable[[], object], read_cost: Callable[[], float]) -> float:
    """Of one of `job.pipelined_steps` steps, with one wait for the device at the end."""
    step()
    read_cost()
    start = time.perf_counter()
    for _ in range(job.pipelined_steps):
        step()
    read_cost()
    return (time.perf_counter() - start) / job.pipelined_steps


# --- variants ---------------------------------------------------------------------------------------------------


def _measure_variant(job: Job, device: Device) -> Measurement:
    """The public functions as they are called; the states of all steps, then all gradients."""
    layers, x, lengths, dh, options = stacks.problem(job)
    ops = device.ops()

    def forward_and_back() -> tuple[Any, ...]:
        if options:
            ((params,),) = layers
            h, h_last, cache = gru_forward(x, None, params, lengths=lengths, ops=ops, **options)
            return h, h_last, *gru_backward(dh, cache)
        h, h_last, stack_cache = gru_stack_forward(x, None, layers, lengths=lengths, ops=ops)
        assert stack_cache is not None
        return h, h_last, *gru_stack_backward(dh, stack_cache)

    if not options:
        h, h_last, dx, _, dlayers = forward_and_back()
        job.save({"h": h, "h_last": h_last, "dx": dx, **dict(named_arrays(dlayers))})
    memory = PeakMemory()
    times = time_calls(job, forward_and_back)
    return Measurement(times, memory.growth())


def _measure_layer(job: Job) -> Measurement:
    problem = stacks.problem(job)
    ((params,),) = problem.layers
    x, dh = problem.x, problem.dh

    def forward_and_back() -> tuple[Any, ...]:
        h, h_last, cache = gru_forward(x, None, params)
        return h, h_last, *gru_backward(dh, cache)

    h, h_last, dx, _, dparams = forward_and_back()
    job.save({"h": h, "h_last": h_last, "dx": dx, **dict(named_arrays(dparams, "0.0."))})
    memory = PeakMemory()
    times = time_calls(job, forward_and_back)
    return Measurement(times, memory.growth())


# --- inference --------------------------------------------------------------------------------------------------


def _forward(job: Job, device: Device, gru: GRUParams) -> Callable[[Array], tuple[Array, Array]]:
    ops = device.ops()
    if job.variant == "GRUInference":
        return GRUInference(gru, ops=ops)

    def forward(x: Array) -> tuple[Array, Array]:
        h, h_last, _ = gru_forward(x, None, gru, ops=ops, with_cache=False)
        return h, h_last

    return forward


def _measure_forward(job: Job, forward: Callable[[Array], tuple[Array, Array]], x: Array) -> Measurement:
    h, h_last = forward(x)
    job.save({"h": h, "h_last": h_last})
    return Measurement(time_calls(job, lambda: forward(x)))


def _measure_stream(job: Job, layer: GRUInference, x: Array) -> Measurement:
    take_step = save_states(job, x, layer.step)
    x_t = x[:, 0, :]
    return Measurement(time_calls(job, take_step if job.variant == "step(x, h)" else lambda: layer.step(x_t)))


def _measure_steps(job: Job, gru: GRUParams, x: Array) -> Measurement:
    def step(x_t: Array, h: Array) -> Array:
        return gru_step(x_t, h, gru) if job.task == "step" else gru_cell_forward(x_t, h, gru)[0]

    return Measurement(time_calls(job, save_states(job, x, step)))


def save_states(job: Job, x: Array, step: Callable[[Array, Array], Array]) -> Callable[[], None]:
    """Save the states of all steps; return a function without arguments that takes one more from the last state."""
    h = np.zeros((x.shape[0], job.shape[2]), x.dtype)
    states = []
    for t in range(x.shape[1]):
        h = step(x[:, t, :], h)
        states.append(h.copy())
    job.save({"h": np.stack(states, axis=1)})
    x_t = x[:, 0, :]

    def take_step() -> None:
        nonlocal h
        h = step(x_t, h)

    return take_step
