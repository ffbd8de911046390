"""JAX's side of ``layer``, on the CPU: ``jit`` is our forward and backward, ``own gradient`` our forward and JAX's.

Both are compiled as a whole by ``jax.jit``.
"""

from typing import Any

import jax

from benchmarks import stacks
from benchmarks.job import Job, Measurement, PeakMemory, time_calls
from gru_xp.nn.gru import gru_backward, gru_forward
from gru_xp.nn.params import GRUParams, named_arrays


def forward_and_back(x: Any, params: GRUParams, dh: Any) -> tuple[Any, ...]:
    """States and gradients by our functions."""
    h, h_last, cache = gru_forward(x, None, params)
    dx, _, dparams = gru_backward(dh, cache)
    return h, h_last, dx, dparams


def own_gradient(x: Any, params: GRUParams, dh: Any) -> tuple[Any, ...]:
    """States by our function, and JAX's gradients of them."""

    def states(x: Any, params: GRUParams) -> tuple[Any, Any]:
        h, h_last, _ = gru_forward(x, None, params)
        return h, h_last

    h, back, h_last = jax.vjp(states, x, params, has_aux=True)
    return h, h_last, *back(dh)


FUNCTIONS = {"jit": forward_and_back, "own gradient": own_gradient}


def measure(job: Job) -> Measurement:
    """Do the job."""
    problem = stacks.problem(job)
    ((host_params,),) = problem.layers
    x, params, dh = jax.device_put((problem.x, host_params, problem.dh), jax.devices("cpu")[0])
    function = jax.jit(FUNCTIONS[job.variant])

    def call() -> Any:
        return jax.block_until_ready(function(x, params, dh))

    h, h_last, dx, dparams = jax.device_get(call())
    job.save({"h": h, "h_last": h_last, "dx": dx, **dict(named_arrays(dparams, "0.0."))})
    memory = PeakMemory()
    times = time_calls(job, call)
    return Measurement(times, memory.growth())
