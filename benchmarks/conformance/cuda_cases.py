"""Compare CUDA with the CPU: the same functions on arrays of CuPy and of NumPy, in IEEE arithmetic and in TF32."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.conformance.cases import LIMITS, Arrays, Case, Problem, differences, draw_problem
from gru_xp.devices import Device, resolve_device, to_device, to_host
from gru_xp.devices.device import tf32_problem
from gru_xp.nn.cell import gru_cell_backward, gru_cell_forward, gru_step
from gru_xp.nn.dropout import dropout_mask, keep_mask
from gru_xp.nn.gru import gru_backward, gru_forward
from gru_xp.nn.inference import GRUInference
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import LinearParams, map_arrays, named_arrays
from gru_xp.nn.stack import gru_stack_backward, gru_stack_forward
from gru_xp.training.objective import LOSSES, Objective, loss_function, outputs_per_target

CUDA_LIMITS = LIMITS | {"tf32": 1e-2}
"""TF32 rounds the factors of products to 11 bits, by up to 4.9e-4 of each."""

QUANTILES = (0.1, 0.5, 0.9)
PATCH = 3
"""Rows of a patch, where there are patches."""

CASES = 2
"""Cases of each variant, form and precision."""

Results = tuple[Arrays, Arrays]
Run = Callable[[Problem, Device], Results]


def cases() -> list[Case]:
    """`CASES` of each variant, in both forms of the reset gate and in each precision."""
    variants: list[tuple[str, Run, dict[str, Any]]] = [
        ("1 layer", stack, {}),
        ("2 layers, both directions, lengths", stack, {"num_layers": 2, "directions": 2, "lengths": "zeros"}),
        ("every third state stored, lengths", partial(stack, keep_every=3), {"lengths": "random"}),
        ("reversed, zoneout and recurrent dropout", masked, {}),
        ("96 hidden units", stack, {"sizes": (9, 6, 5, 96)}),
        ("160 hidden units", stack, {"sizes": (9, 6, 5, 160)}),
        ("one step", step, {}),
        ("GRUInference", prepared, {}),
        ("objective of a training, as one graph", objective, {"num_layers": 2}),
        *(
            (f"objective of {loss}, patches, skip, weights", partial(objective, loss=loss), {"sizes": (7, 5, 6, 9)})
            for loss in LOSSES
        ),
    ]
    found = []
    for variant, run, sizes in variants:
        for reset in ("before", "after"):
            name = f'reset="{reset}", {variant}'
            for precision, limit in CUDA_LIMITS.items():
                dtype = "float32" if precision == "tf32" else precision
                for number in range(CASES):
                    draw = partial(
                        draw_problem, f"cuda {name} {number}", order="zrn", reset=reset, dtype=dtype, **sizes
                    )
                    found.append(Case(name, str(number), precision, limit, partial(compare, draw, run, precision)))
    return found


def compare(draw: Callable[[], Problem], run: Run, precision: str) -> dict[str, float]:
    """Differences of the results on the CUDA device from those on the CPU; none in TF32 if the device has none."""
    if precision == "tf32" and tf32_problem(resolve_device("cuda", fallback=False).name) is not None:
        return {}
    on_cuda, on_cpu = (
        _results(draw(), run, device)
        for device in (resolve_device("cuda", fallback=False, tf32=precision == "tf32"), resolve_device("cpu"))
    )
    found = differences(on_cuda, on_cpu)
    return found if on_cuda[1] else {"outputs": found["outputs"]}


def _results(problem: Problem, run: Run, device: Device) -> Results:
    with device.use():
        outputs, gradients = run(_placed(problem, device), device)
        return {k: to_host(a) for k, a in outputs.items()}, {k: to_host(a) for k, a in gradients.items()}


def _placed(problem: Problem, device: Device) -> Problem:
    x, h0, layers, lengths, dh, dh_last = map_arrays(
        partial(to_device, device=device),
        (problem.x, problem.h0, problem.layers, problem.lengths, problem.dh, problem.dh_last),
    )
    return problem._replace(x=x, h0=h0, layers=layers, lengths=lengths, dh=dh, dh_last=dh_last)


# --- what is run ------------------------------------------------------------------------------------------------


def stack(problem: Problem, device: Device, **options: Any) -> Results:
    """All states and all gradients."""
    options |= {"lengths": problem.lengths, "ops": device.ops()}
    h, h_last, cache = gru_stack_forward(problem.x, problem.h0, problem.layers, **options)
    assert cache is not None
    dx, dh0, dlayers = gru_stack_backward(problem.dh, cache, dh_last=problem.dh_last)
    return {"h": h, "h_last": h_last}, {"x": dx, "h0": dh0, **dict(named_arrays(dlayers))}


def masked(problem: Problem, device: Device) -> Results:
    """One layer against time, with masks that are the same on all devices."""
    assert problem.h0 is not None
    masks = {
        "update_mask": keep_mask(problem.dh.shape, 0.3, seed=1, like=problem.x),
        "candidate_mask": dropout_mask(problem.dh_last.shape[1:], 0.3, seed=2, like=problem.x),
    }
    options = {"reverse": True, "ops": device.ops(), **masks}
    h, h_last, cache = gru_forward(problem.x, problem.h0[0], problem.params(), **options)
    dx, dh0, dparams = gru_backward(problem.dh, cache, dh_last=problem.dh_last[0])
    return {"h": h, "h_last": h_last}, {"x": dx, "h0": dh0, **dict(named_arrays(dparams))}


def step(problem: Problem, device: Device) -> Results:
    """`gru_cell_forward` and `gru_cell_backward`, and `gru_step`."""
    assert problem.h0 is not None
    x, h0, params, ops = problem.x[:, 0], problem.h0[0], problem.params(), device.ops()
    h, cache = gru_cell_forward(x, h0, params, ops=ops)
    dx, dh0, dparams = gru_cell_backward(problem.dh_last[0], cache)
    return {"h": h, "step": gru_step(x, h0, params, ops=ops)}, {"x": dx, "h0": dh0, **dict(named_arrays(dparams))}


def prepared(problem: Problem, device: Device) -> Results:
    """Whole sequences, and one step."""
    assert problem.h0 is not None
    layer = GRUInference(problem.params(), ops=device.ops())
    h, h_last = layer(problem.x, problem.h0[0])
    return {"h": h, "h_last": h_last, "step": layer.step(problem.x[:, 0], h_last)}, {}


def objective(problem: Problem, device: Device, loss: str | None = None) -> Results:
    """The loss of a network and its gradient, by the way that a training takes.

    With a name of a loss, there are two targets, errors count by sequence, the window's rows are patches of the input,
    and there is a linear skip. No error is close to 0, where the slope of some losses jumps.
    """
    xp, x, dh, skip, options = device.xp, problem.x, problem.dh, None, {}
    outputs, y = 1, dh[:, 0, :1]
    if loss is not None:
        outputs = 2 * outputs_per_target(loss, QUANTILES)
        dh = xp.concat([0.25 * dh[:, :1, :], dh[:, 1:2, :], 0.25 * dh[:, 2:, :]], axis=1)
        y = xp.round(3 * xp.abs(dh[:, 1, :2])) if loss == "poisson" else dh[:, 1, :2] * (1 + 4 / xp.abs(dh[:, 1, :2]))
        x = xp.reshape(x, (x.shape[0], -1, x.shape[2] // PATCH))[:, 1:, :]
        skip = LinearParams(dh[:outputs, 2:3, :1] + xp.zeros_like(x[:1, :, 0]), dh[0, 3, :outputs])
        skip = LinearParams(xp.reshape(skip.weight, (outputs, -1)), skip.bias)
        options = {"weight": xp.abs(dh[:, 4, :1]), "loss": loss_function(loss, huber_delta=0.5, quantiles=QUANTILES)}
    linear = LinearParams(dh[:outputs, 0, :], dh[0, 0, :outputs])
    ops = device.ops()
    function = Objective(NetworkParams(problem.layers, linear, skip), x, y, ops, **options)
    ops.capture(function.evaluate)()
    return {"cost": function.cost}, {"gradient": function.gradient}
