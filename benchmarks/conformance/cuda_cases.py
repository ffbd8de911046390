"""Compare CUDA with the CPU: the same functions on arrays of CuPy and of NumPy, in IEEE arithmetic and in TF32."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.conformance.cases import LIMITS, Arrays, Case, Problem, differences, draw_problem
from gru_xp.devices import Device, resolve_device, to_device, to_host
from gru_xp.devices.primitives import Ops
from gru_xp.nn.cell import gru_cell_backward, gru_cell_forward, gru_step
from gru_xp.nn.dropout import dropout_mask, keep_mask
from gru_xp.nn.gru import gru_backward, gru_forward
from gru_xp.nn.inference import GRUInference
from gru_xp.nn.network import NetworkParams
from gru_xp.nn.params import LinearParams, map_arrays, named_arrays
from gru_xp.nn.stack import gru_stack_backward, gru_stack_forward
from gru_xp.training.objective import Objective

TF32_LIMIT = 1e-2
"""TF32 rounds the factors of products to 11 bits, 4.9e-4 of each."""

CASES = 2
"""Cases of each variant, form and precision."""

Results = tuple[Arrays, Arrays]


def cases() -> list[Case]:
    """`CASES` of each variant, in both forms of the reset gate and in each precision."""
    found = []
    for name, number, dtype, draw, run in _problems():
        found.append(Case(name, str(number), dtype, LIMITS[dtype], partial(compare, draw, run)))
    for name, number, dtype, draw, run in _problems():
        if dtype == "float32":
            found.append(Case(name, str(number), "tf32", TF32_LIMIT, partial(compare, draw, run, tf32=True)))
    return found


def _problems() -> Iterator[tuple[str, int, str, Callable[[], Problem], Callable[..., Results]]]:
    """Variant, number and precision of each case, and what to draw and to run."""
    variants: list[tuple[str, Callable[..., Results], dict[str, Any]]] = [
        ("1 layer", stack, {}),
        ("2 layers, both directions, lengths", stack, {"num_layers": 2, "directions": 2, "lengths": "zeros"}),
        ("every third state stored, lengths", partial(stack, keep_every=3), {"lengths": "random"}),
        ("reversed, zoneout and recurrent dropout", masked, {}),
        ("96 hidden units", stack, {"sizes": (9, 6, 5, 96)}),
        ("160 hidden units", stack, {"sizes": (9, 6, 5, 160)}),
        ("one step", step, {}),
        ("GRUInference", prepared, {}),
        ("objective of a training, as one graph", objective, {"num_layers": 2}),
    ]
    for variant, run, sizes in variants:
        for reset in ("before", "after"):
            name = f'reset="{reset}", {variant}'
            for dtype in LIMITS:
                for number in range(CASES):
                    draw = partial(
                        draw_problem, f"cuda {name} {number}", order="zrn", reset=reset, dtype=dtype, **sizes
                    )
                    yield name, number, dtype, draw, run


def compare(draw: Callable[[], Problem], run: Callable[..., Results], *, tf32: bool = False) -> dict[str, float]:
    """Differences of the results on the CUDA device, in TF32 or not, from those on the CPU."""
    results = []
    for name in ("cuda", "cpu"):
        device = resolve_device(name, fallback=False, tf32=tf32 and name != "cpu")
        with device.use():
            outputs, gradients = run(_placed(draw(), device), device)
            results.append(tuple({key: to_host(array) for key, array in part.items()} for part in (outputs, gradients)))
    found = differences(*results)
    return found if results[0][1] else {"outputs": found["outputs"]}


def _ops(device: Device) -> Ops | None:
    """What a function needs to compute in TF32; None for what it does by itself."""
    return device.ops() if device.tf32 else None


def _placed(problem: Problem, device: Device) -> Problem:
    x, h0, layers, lengths, dh, dh_last = map_arrays(
        partial(to_device, device=device),
        (problem.x, problem.h0, problem.layers, problem.lengths, problem.dh, problem.dh_last),
    )
    return problem._replace(x=x, h0=h0, layers=layers, lengths=lengths, dh=dh, dh_last=dh_last)


# --- what is run ------------------------------------------------------------------------------------------------


def stack(problem: Problem, device: Device, **options: Any) -> Results:
    """All states and all gradients."""
    options |= {"lengths": problem.lengths, "ops": _ops(device)}
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
    options = {"reverse": True, "ops": _ops(device)}
    h, h_last, cache = gru_forward(problem.x, problem.h0[0], problem.params(), **masks, **options)
    dx, dh0, dparams = gru_backward(problem.dh, cache, dh_last=problem.dh_last[0])
    return {"h": h, "h_last": h_last}, {"x": dx, "h0": dh0, **dict(named_arrays(dparams))}


def step(problem: Problem, device: Device) -> Results:
    """`gru_cell_forward` and `gru_cell_backward`, and `gru_step`."""
    assert problem.h0 is not None
    x, h0, params = problem.x[:, 0], problem.h0[0], problem.params()
    ops = _ops(device)
    h, cache = gru_cell_forward(x, h0, params, ops=ops)
    dx, dh0, dparams = gru_cell_backward(problem.dh_last[0], cache)
    return {"h": h, "step": gru_step(x, h0, params, ops=ops)}, {"x": dx, "h0": dh0, **dict(named_arrays(dparams))}


def prepared(problem: Problem, device: Device) -> Results:
    """Whole sequences, and one step."""
    assert problem.h0 is not None
    layer = GRUInference(problem.params(), ops=_ops(device))
    h, h_last = layer(problem.x, problem.h0[0])
    return {"h": h, "h_last": h_last, "step": layer.step(problem.x[:, 0], h_last)}, {}


def objective(problem: Problem, device: Device) -> Results:
    """The loss of a network and its gradient, by the way that a training takes."""
    linear = LinearParams(problem.dh[:1, 0, :], problem.dh[0, 0, :1])
    function = Objective(NetworkParams(problem.layers, linear), problem.x, problem.dh[:, 0, :1], device.ops())
    device.ops().capture(function.evaluate)()
    return {"cost": function.cost}, {"gradient": function.gradient}
